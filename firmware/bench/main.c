/* The smallest program around a model, for measuring it: start, fill the inputs, run, stop.
 *
 * MODEL_HEADER is the model's header in quotes, MODEL(x) its symbol x, MODEL_INPUT_BYTES the sizes of
 * its inputs, comma-separated.  The second inference lies between the calls of tinygen_bench_begin and
 * tinygen_bench_end, which the emulator looks for.
 */
#include "tinygen_port.h"

#include MODEL_HEADER

void tinygen_bench_begin(void);
void tinygen_bench_end(void);

__attribute__((noinline)) void tinygen_bench_begin(void)
{
  __asm__ volatile("");
}

__attribute__((noinline)) void tinygen_bench_end(void)
{
  __asm__ volatile("");
}

#ifdef TINYGEN_TRACE
/* One call behind each layer. */
__attribute__((noinline)) void tinygen_on_layer(const tinygen_model *model, int layer, const void *data, size_t bytes)
{
  (void)model;
  (void)layer;
  (void)data;
  (void)bytes;
  __asm__ volatile("");
}
#endif

static const size_t input_bytes[] = {MODEL_INPUT_BYTES};

/* Bytes from a linear congruential generator, the same on every run. */
static uint32_t fill(uint8_t *data, size_t count, uint32_t seed)
{
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = (uint8_t)(seed >> 24);
  }
  return seed;
}

int main(void)
{
  MODEL(init)();
  for (int round = 0; round < 2; ++round) {
    uint32_t seed = 1;
    for (int i = 0; i < (int)(sizeof input_bytes / sizeof input_bytes[0]); ++i) {
      seed = fill((uint8_t *)MODEL(input)(i), input_bytes[i], seed);
    }
    tinygen_bench_begin();
    if (MODEL(run)() != 0) {
      tinygen_port_exit(1);
    }
    tinygen_bench_end();
  }
#ifdef TINYGEN_TRACE
  for (int i = 0; i < MODEL(model).output_count; ++i) {
    const tinygen_tensor *tensor = &MODEL(model).outputs[i];
    tinygen_port_write((const uint8_t *)tensor->data, tensor->bytes);
  }
#endif
  tinygen_port_exit(0);
}
