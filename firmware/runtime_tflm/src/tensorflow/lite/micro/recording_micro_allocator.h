/* In TFLM the allocator that can print what it gave; here they all can. */
#ifndef TENSORFLOW_LITE_MICRO_RECORDING_MICRO_ALLOCATOR_H_
#define TENSORFLOW_LITE_MICRO_RECORDING_MICRO_ALLOCATOR_H_

#include "tensorflow/lite/micro/micro_allocator.h"

namespace tflite {

using RecordingMicroAllocator = MicroAllocator;

}  // namespace tflite

#endif
