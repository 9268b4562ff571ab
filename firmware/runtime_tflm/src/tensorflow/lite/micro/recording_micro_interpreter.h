/* An interpreter that can say how much of its arena it took. */
#ifndef TENSORFLOW_LITE_MICRO_RECORDING_MICRO_INTERPRETER_H_
#define TENSORFLOW_LITE_MICRO_RECORDING_MICRO_INTERPRETER_H_

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/recording_micro_allocator.h"

namespace tflite {

class RecordingMicroInterpreter : public MicroInterpreter {
 public:
  RecordingMicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena,
                            size_t arena_size, MicroResourceVariables *variables = nullptr,
                            MicroProfilerInterface *profiler = nullptr, bool = false)
      : RecordingMicroInterpreter(model, resolver,
                                  RecordingMicroAllocator::Create(arena, arena_size), variables,
                                  profiler) {}

  RecordingMicroInterpreter(const Model *model, const MicroOpResolver &resolver,
                            RecordingMicroAllocator *allocator,
                            MicroResourceVariables *variables = nullptr,
                            MicroProfilerInterface *profiler = nullptr)
      : MicroInterpreter(model, resolver, allocator, variables, profiler), recording_(allocator) {}

  const RecordingMicroAllocator &GetMicroAllocator() const { return *recording_; }

 private:
  const RecordingMicroAllocator *recording_;
};

}  // namespace tflite

#endif
