/* An error reporter that prints where MicroPrintf prints. */
#ifndef TENSORFLOW_LITE_MICRO_TFLITE_BRIDGE_MICRO_ERROR_REPORTER_H_
#define TENSORFLOW_LITE_MICRO_TFLITE_BRIDGE_MICRO_ERROR_REPORTER_H_

#include "tensorflow/lite/core/api/error_reporter.h"

namespace tflite {

class MicroErrorReporter final : public ErrorReporter {
 public:
  using ErrorReporter::Report;
  int Report(const char *format, va_list args) override;
};

ErrorReporter *GetMicroErrorReporter();

}  // namespace tflite

#endif
