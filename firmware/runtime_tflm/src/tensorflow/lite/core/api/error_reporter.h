/* Messages as TFLM's older interface passes them around. */
#ifndef TENSORFLOW_LITE_CORE_API_ERROR_REPORTER_H_
#define TENSORFLOW_LITE_CORE_API_ERROR_REPORTER_H_

#include <stdarg.h>

#include "tensorflow/lite/micro/micro_log.h"

namespace tflite {

class ErrorReporter {
 public:
  virtual int Report(const char *format, va_list args) = 0;
  int Report(const char *format, ...);
  int ReportError(void *, const char *format, ...);

 protected:
  ~ErrorReporter() = default;
};

}  // namespace tflite

#ifndef TF_LITE_STRIP_ERROR_STRINGS
#define TF_LITE_REPORT_ERROR(reporter, ...) \
  static_cast<::tflite::ErrorReporter *>(reporter)->Report(__VA_ARGS__)
#else
#define TF_LITE_REPORT_ERROR(reporter, ...) ::tflite::Unused(reporter, __VA_ARGS__)
#endif

#endif
