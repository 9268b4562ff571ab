/* The clock of TFLM's profilers: microseconds on Arduino; elsewhere none, and 0 ticks a second. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_TIME_H_
#define TENSORFLOW_LITE_MICRO_MICRO_TIME_H_

#include <stdint.h>

namespace tflite {

uint32_t ticks_per_second();
uint32_t GetCurrentTimeTicks();

inline uint32_t TicksToMs(int32_t ticks) {
  const uint32_t a_millisecond = ticks_per_second() / 1000;
  return a_millisecond != 0 ? static_cast<uint32_t>(ticks) / a_millisecond : 0;
}

}  // namespace tflite

#endif
