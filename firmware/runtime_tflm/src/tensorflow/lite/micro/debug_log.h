/* Where messages go.  There is a default; a program's own definitions take its place. */
#ifndef TENSORFLOW_LITE_MICRO_DEBUG_LOG_H_
#define TENSORFLOW_LITE_MICRO_DEBUG_LOG_H_

#include <stdarg.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Prints to Serial on Arduino, at most 255 characters at a time, and to the standard error stream
 * elsewhere. */
void DebugLog(const char *format, va_list args);

int DebugVsnprintf(char *buffer, size_t size, const char *format, va_list args);

#ifdef __cplusplus
}
#endif

#endif
