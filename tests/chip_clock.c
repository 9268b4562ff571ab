/* Holds the clock of firmware/port/common/chip.h against 64-bit arithmetic, on the machine at hand. */
#include "common/chip.h"

#include <stdio.h>

int main(void) {
  static const uint32_t rates[] = {16, 40, 64, 133, 216, 240};
  uint64_t state = 1, steps = 0;
  unsigned i;
  for (i = 0; i < sizeof rates / sizeof *rates; ++i) {
    tinygen_clock clock = {0, 0, 0, 0};
    uint64_t truth = 0;
    for (steps = 0; steps < 200000u; ++steps) {
      uint32_t passed, micros;
      state = state * 6364136223846793005u + 1442695040888963407u;
      passed = (uint32_t)(state >> 32) >> (state >> 27 & 31u); /* short and long silences */
      truth += passed;
      if (tinygen_clock_advance(&clock, (uint32_t)truth) != truth) return 1;
      if ((state >> 20 & 3u) != 0) continue; /* nobody asks for the time */
      micros = tinygen_clock_micros(&clock, rates[i]);
      if (micros != (uint32_t)(truth / rates[i])) {
        printf("%u cycles a microsecond: %u, not %llu\n", rates[i], micros,
               (unsigned long long)(truth / rates[i]));
        return 2;
      }
    }
  }
  return 0;
}
