/* Messages, each followed by a line end; nothing at all with TF_LITE_STRIP_ERROR_STRINGS. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_LOG_H_
#define TENSORFLOW_LITE_MICRO_MICRO_LOG_H_

#include <stdarg.h>
#include <stddef.h>

namespace tflite {

template <typename... Args>
inline void Unused(const Args &...) {}

template <typename T, typename... Args>
inline T UnusedResult(const Args &...) {
  return T();
}

}  // namespace tflite

#ifndef TF_LITE_STRIP_ERROR_STRINGS
void MicroPrintf(const char *format, ...);
void VMicroPrintf(const char *format, va_list args);
int MicroSnprintf(char *buffer, size_t size, const char *format, ...);
int MicroVsnprintf(char *buffer, size_t size, const char *format, va_list args);
#else
#define MicroPrintf(...) tflite::Unused(__VA_ARGS__)
#define VMicroPrintf(...) tflite::Unused(__VA_ARGS__)
#define MicroSnprintf(...) tflite::UnusedResult<int>(__VA_ARGS__)
#define MicroVsnprintf(...) tflite::UnusedResult<int>(__VA_ARGS__)
#endif

#endif
