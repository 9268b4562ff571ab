/* The resolver of sketches that do not choose. */
#ifndef TENSORFLOW_LITE_MICRO_ALL_OPS_RESOLVER_H_
#define TENSORFLOW_LITE_MICRO_ALL_OPS_RESOLVER_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

namespace tflite {

class AllOpsResolver : public MicroMutableOpResolver<128> {};

}  // namespace tflite

#endif
