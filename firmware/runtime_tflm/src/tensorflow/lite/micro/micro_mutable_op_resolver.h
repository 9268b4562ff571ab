/* A resolver that takes any operator, says it is well, and keeps only how many there were. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_

#include <stdio.h>
#include <string.h>

#include "tensorflow/lite/kernels/internal/compatibility.h"
#include "tensorflow/lite/micro/compatibility.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  MicroMutableOpResolver() = default;

#define TINYGEN_TFLM_ADD(method, name) \
  TfLiteStatus Add##method(const TFLMRegistration & = TFLMRegistration()) { return Count(); }
#define TINYGEN_TFLM_ADD_CUSTOM(method) \
  TfLiteStatus Add##method(const TFLMRegistration * = nullptr) { return Count(); }
  TINYGEN_TFLM_OPERATORS(TINYGEN_TFLM_ADD)
  TINYGEN_TFLM_CUSTOM_OPERATORS(TINYGEN_TFLM_ADD_CUSTOM)
#undef TINYGEN_TFLM_ADD_CUSTOM
#undef TINYGEN_TFLM_ADD

  TfLiteStatus AddCustom(const char *, const TFLMRegistration *) { return Count(); }

  unsigned int GetRegistrationLength() const { return count_; }

 private:
  TfLiteStatus Count() {
    ++count_;
    return kTfLiteOk;
  }

  unsigned int count_ = 0;
};

}  // namespace tflite

#endif
