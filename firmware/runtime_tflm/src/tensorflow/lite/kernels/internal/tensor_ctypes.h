/* Data of a tensor as C elements. */
#ifndef TENSORFLOW_LITE_KERNELS_INTERNAL_TENSOR_CTYPES_H_
#define TENSORFLOW_LITE_KERNELS_INTERNAL_TENSOR_CTYPES_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

template <typename T>
inline T *GetTensorData(TfLiteTensor *tensor) {
  return tensor != nullptr ? static_cast<T *>(tensor->data.data) : nullptr;
}

template <typename T>
inline const T *GetTensorData(const TfLiteTensor *tensor) {
  return tensor != nullptr ? static_cast<const T *>(tensor->data.data) : nullptr;
}

}  // namespace tflite

#endif
