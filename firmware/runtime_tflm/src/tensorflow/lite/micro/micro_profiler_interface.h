/* Who is told when something begins and ends.  Generated code reports an inference as one event. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_PROFILER_INTERFACE_H_
#define TENSORFLOW_LITE_MICRO_MICRO_PROFILER_INTERFACE_H_

#include <stdint.h>

namespace tflite {

class MicroProfilerInterface {
 public:
  virtual uint32_t BeginEvent(const char *tag) = 0;
  virtual void EndEvent(uint32_t event) = 0;

 protected:
  ~MicroProfilerInterface() = default;
};

}  // namespace tflite

#endif
