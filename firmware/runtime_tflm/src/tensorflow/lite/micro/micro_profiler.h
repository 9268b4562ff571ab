/* A profiler that adds up events and their ticks; all events are inferences of one model. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_PROFILER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_PROFILER_H_

#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_profiler_interface.h"
#include "tensorflow/lite/micro/micro_time.h"

namespace tflite {

class MicroProfiler : public MicroProfilerInterface {
 public:
  uint32_t BeginEvent(const char *tag) override {
    tag_ = tag;
    begin_ = GetCurrentTimeTicks();
    return events_++;
  }

  void EndEvent(uint32_t) override { ticks_ += GetCurrentTimeTicks() - begin_; }

  void ClearEvents() { events_ = ticks_ = 0; }
  uint32_t GetTotalTicks() const { return ticks_; }

  void Log() const {
    MicroPrintf("%s took %u ticks in %u inferences", tag_, static_cast<unsigned>(ticks_),
                static_cast<unsigned>(events_));
  }
  void LogCsv() const {
    MicroPrintf("\"Event\",\"Tag\",\"Ticks\"");
    MicroPrintf("%u,%s,%u", static_cast<unsigned>(events_), tag_, static_cast<unsigned>(ticks_));
  }
  void LogTicksPerTagCsv() const {
    MicroPrintf("\"Unique Tag\",\"Total ticks across all events with that tag.\"");
    MicroPrintf("%s, %u", tag_, static_cast<unsigned>(ticks_));
  }

 private:
  const char *tag_ = "";
  uint32_t events_ = 0;
  uint32_t ticks_ = 0;
  uint32_t begin_ = 0;
};

}  // namespace tflite

#endif
