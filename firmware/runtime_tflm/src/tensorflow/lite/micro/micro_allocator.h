/* Hands out memory of a sketch's arena, from the beginning; nothing is given back. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_ALLOCATOR_H_
#define TENSORFLOW_LITE_MICRO_MICRO_ALLOCATOR_H_

#include <stddef.h>
#include <stdint.h>

#include "tensorflow/lite/micro/micro_log.h"

namespace tflite {

class MicroAllocator {
 public:
  MicroAllocator(uint8_t *arena, size_t size) : arena_(arena), size_(size) {}

  /* An allocator that lives in the arena itself; null when the arena is too small for that. */
  static MicroAllocator *Create(uint8_t *arena, size_t size);

  /* `bytes` aligned for any record, or null. */
  void *Allocate(size_t bytes);

  size_t used_bytes() const { return used_; }

  void PrintAllocations() const {
    MicroPrintf("[RecordingMicroAllocator] Arena allocation total %u bytes",
                static_cast<unsigned>(used_));
  }

 private:
  uint8_t *arena_;
  size_t size_;
  size_t used_ = 0;
};

}  // namespace tflite

#endif
