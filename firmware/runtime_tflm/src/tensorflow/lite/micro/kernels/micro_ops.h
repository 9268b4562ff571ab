/* Registrations of kernels.  Generated models have their kernels: these are empty and for nothing. */
#ifndef TENSORFLOW_LITE_MICRO_KERNELS_MICRO_OPS_H_
#define TENSORFLOW_LITE_MICRO_KERNELS_MICRO_OPS_H_

#include "tinygen_tflm_operators.h"

struct TFLMRegistration {};
typedef TFLMRegistration TfLiteRegistration;

namespace tflite {

#define TINYGEN_TFLM_REGISTER(name) \
  inline TFLMRegistration Register_##name() { return TFLMRegistration(); }
#define TINYGEN_TFLM_REGISTER_OPERATOR(method, name) TINYGEN_TFLM_REGISTER(name)
TINYGEN_TFLM_OPERATORS(TINYGEN_TFLM_REGISTER_OPERATOR)
TINYGEN_TFLM_VARIANTS(TINYGEN_TFLM_REGISTER)
#undef TINYGEN_TFLM_REGISTER_OPERATOR
#undef TINYGEN_TFLM_REGISTER

}  // namespace tflite

#endif
