/* TFLM's interpreter over a generated model.
 *
 * AllocateTensors puts a TfLiteTensor for every input and output into the arena and initialises the
 * model; tensors' data are the model's own buffers.  As in TFLM, running may overwrite the inputs, and
 * writing inputs may overwrite the outputs.
 */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_INTERPRETER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_INTERPRETER_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/core/api/error_reporter.h"
#include "tensorflow/lite/kernels/internal/compatibility.h"
#include "tensorflow/lite/kernels/internal/tensor_ctypes.h"
#include "tensorflow/lite/micro/micro_allocator.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_op_resolver.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/micro/micro_resource_variable.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "tensorflow/lite/version.h"

namespace tflite {

/* The TfLiteType of a C type. */
template <typename T>
struct TypeOf;
template <>
struct TypeOf<int8_t> {
  static const TfLiteType value = kTfLiteInt8;
};
template <>
struct TypeOf<uint8_t> {
  static const TfLiteType value = kTfLiteUInt8;
};
template <>
struct TypeOf<int16_t> {
  static const TfLiteType value = kTfLiteInt16;
};
template <>
struct TypeOf<int32_t> {
  static const TfLiteType value = kTfLiteInt32;
};
template <>
struct TypeOf<float> {
  static const TfLiteType value = kTfLiteFloat32;
};

class MicroInterpreter {
 public:
  MicroInterpreter(const Model *model, const MicroOpResolver &, uint8_t *arena, size_t arena_size,
                   MicroResourceVariables * = nullptr, MicroProfilerInterface *profiler = nullptr,
                   bool = false)
      : model_(model), own_(arena, arena_size), allocator_(&own_), profiler_(profiler) {}

  MicroInterpreter(const Model *model, const MicroOpResolver &, MicroAllocator *allocator,
                   MicroResourceVariables * = nullptr, MicroProfilerInterface *profiler = nullptr)
      : model_(model), own_(nullptr, 0), allocator_(allocator), profiler_(profiler) {}

  /* TFLM's older interface. */
  MicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena,
                   size_t arena_size, ErrorReporter *, MicroResourceVariables *variables = nullptr,
                   MicroProfilerInterface *profiler = nullptr)
      : MicroInterpreter(model, resolver, arena, arena_size, variables, profiler) {}
  MicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena,
                   size_t arena_size, decltype(nullptr), MicroProfilerInterface *profiler = nullptr)
      : MicroInterpreter(model, resolver, arena, arena_size,
                         static_cast<MicroResourceVariables *>(nullptr), profiler) {}

  MicroInterpreter(const MicroInterpreter &) = delete;
  MicroInterpreter &operator=(const MicroInterpreter &) = delete;

  /* kTfLiteError when the model is no generated one, or the arena too small for the records. */
  TfLiteStatus AllocateTensors();

  /* Allocates tensors if that has not been done. */
  TfLiteStatus Invoke();

  /* State of a streaming model back to its start. */
  TfLiteStatus Reset();

  TfLiteStatus initialization_status() const {
    return model_ != nullptr && allocator_ != nullptr ? kTfLiteOk : kTfLiteError;
  }

  size_t inputs_size() const;
  size_t outputs_size() const;

  /* Null for an index that is not there, and before AllocateTensors. */
  TfLiteTensor *input(size_t index);
  TfLiteTensor *output(size_t index);
  TfLiteTensor *input_tensor(size_t index) { return input(index); }
  TfLiteTensor *output_tensor(size_t index) { return output(index); }

  /* The data, or null when it is of another type. */
  template <typename T>
  T *typed_input_tensor(int index) {
    return Typed<T>(input(static_cast<size_t>(index)));
  }
  template <typename T>
  T *typed_output_tensor(int index) {
    return Typed<T>(output(static_cast<size_t>(index)));
  }

  size_t arena_used_bytes() const { return allocator_ != nullptr ? allocator_->used_bytes() : 0; }
  bool preserve_all_tensors() const { return false; }
  TfLiteStatus SetMicroExternalContext(void *) { return kTfLiteOk; }

 private:
  template <typename T>
  static T *Typed(TfLiteTensor *tensor) {
    return tensor != nullptr && tensor->type == TypeOf<T>::value ? GetTensorData<T>(tensor)
                                                                 : nullptr;
  }

  const tinygen_model *Generated() const {
    return model_ != nullptr ? model_->generated() : nullptr;
  }

  const Model *model_;
  MicroAllocator own_;
  MicroAllocator *allocator_;
  MicroProfilerInterface *profiler_;
  TfLiteTensor *tensors_ = nullptr; /* inputs, then outputs */
};

}  // namespace tflite

#endif
