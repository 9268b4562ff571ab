/* Small helpers that sketches use to prepare inputs. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_UTILS_H_
#define TENSORFLOW_LITE_MICRO_MICRO_UTILS_H_

#include <math.h>

#include "tensorflow/lite/c/common.h"

namespace tflite {

/* Product of the extents; 1 for a scalar. */
inline int ElementCount(const TfLiteIntArray &dims) {
  int count = 1;
  for (int i = 0; i < dims.size; ++i) count *= dims.data[i];
  return count;
}

/* Nearest element of type T, halves away from zero, saturating. */
template <typename T>
T FloatToQuantizedType(float value, float scale, int zero_point) {
  const bool is_signed = static_cast<T>(-1) < static_cast<T>(0);
  const float span = ldexpf(1.0f, static_cast<int>(8 * sizeof(T)) - (is_signed ? 1 : 0));
  const float least = is_signed ? -span : 0.0f;
  const float element = roundf(value / scale) + static_cast<float>(zero_point);
  if (!(element > least)) return static_cast<T>(least);
  if (element >= span - 1.0f) return static_cast<T>(static_cast<int64_t>(span) - 1);
  return static_cast<T>(element);
}

}  // namespace tflite

#endif
