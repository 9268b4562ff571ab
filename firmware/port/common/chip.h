/* What ports of whole chips share: a ring for received bytes, a clock made of a cycle counter, and a
 * word that says how the program ended.
 *
 * Bytes come into the ring from the serial line's interrupt, so that none is lost while the program
 * is busy.  On chips whose emulator has no working receiver it is `tinygen_port_mailbox`, and the
 * emulator fills it.
 */
#ifndef TINYGEN_CHIP_H
#define TINYGEN_CHIP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TINYGEN_RING_BYTES 256u /* a power of two */

typedef struct tinygen_ring {
  volatile uint32_t put;   /* bytes ever put in; only the giver changes it */
  volatile uint32_t taken; /* bytes ever taken out; only the taker changes it */
  volatile uint8_t bytes[TINYGEN_RING_BYTES];
} tinygen_ring;

/* A ring for an emulator to fill: once `room` is not zero any more, it writes bytes, then adds their
 * number to `put`. */
typedef struct tinygen_mailbox {
  volatile uint32_t room; /* TINYGEN_RING_BYTES as soon as the program has started */
  tinygen_ring ring;
} tinygen_mailbox;

/* A byte that finds no room is lost, as in any receiver. */
static inline void tinygen_ring_put(tinygen_ring *ring, uint8_t byte) {
  const uint32_t put = ring->put;
  if (put - ring->taken < TINYGEN_RING_BYTES) {
    ring->bytes[put % TINYGEN_RING_BYTES] = byte;
    ring->put = put + 1u;
  }
}

/* The oldest byte, or -1 when there is none. */
static inline int tinygen_ring_take(tinygen_ring *ring) {
  const uint32_t taken = ring->taken;
  int byte = -1;
  if (taken != ring->put) {
    byte = ring->bytes[taken % TINYGEN_RING_BYTES];
    ring->taken = taken + 1u;
  }
  return byte;
}

/* Time and cycles, both told by one free-running counter of 32 bits: it counts what is measured, it is
 * there on every chip, and emulators get it right, which cannot be said of their timers.  It must not
 * wrap twice between two calls, so ports call this whenever they are asked for time, cycles or a byte. */
typedef struct tinygen_clock {
  uint64_t cycles;
  uint64_t told; /* the part of them that is in `micros` */
  uint32_t micros;
  uint32_t seen; /* the counter at the last call */
} tinygen_clock;

static inline uint64_t tinygen_clock_advance(tinygen_clock *clock, uint32_t counter) {
  clock->cycles += counter - clock->seen;
  clock->seen = counter;
  return clock->cycles;
}

/* Microseconds at the last call of `tinygen_clock_advance`.  No division is wider than 32 bits: after a
 * long silence, time is made up for in steps of a second. */
static inline uint32_t tinygen_clock_micros(tinygen_clock *clock, uint32_t cycles_per_microsecond) {
  const uint32_t step = 1u << 20;
  uint32_t whole;
  while (clock->cycles - clock->told > UINT32_MAX) {
    clock->told += (uint64_t)step * cycles_per_microsecond;
    clock->micros += step;
  }
  whole = (uint32_t)(clock->cycles - clock->told) / cycles_per_microsecond;
  clock->told += whole * cycles_per_microsecond;
  clock->micros += whole;
  return clock->micros;
}

/* 0 while the program runs, then TINYGEN_ENDED plus its exit status: a chip cannot hand that to
 * anyone, but an emulator or a debugger can look. */
#define TINYGEN_ENDED 0x100u
extern volatile uint32_t tinygen_port_ended;

#ifdef __cplusplus
}
#endif

#endif
