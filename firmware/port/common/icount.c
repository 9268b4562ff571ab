/* QEMU does not say whether it runs under `-icount`, so it is tried: a loop of a known number of
 * instructions must count just that, three times over.  By the host's clock this would take luck in
 * the tenth of a percent, each time.
 */
#include "icount.h"

#include "../tinygen_port.h"

enum { TURNS = 50000, INSTRUCTIONS_PER_TURN = 2, TRIES = 3 };

/* What the calls and the counter's resolution may add. */
enum { MARGIN = 200 };

static void spin(uint32_t turns) {
#if defined(__arm__)
  __asm volatile(".syntax unified\n1: subs %0, #1\n bne 1b" : "+l"(turns) : : "cc");
#elif defined(__riscv)
  __asm volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
#elif defined(__xtensa__)
  __asm volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
#else
#error "no loop of a known length for this core"
#endif
}

const char *tinygen_icount_unit(void) {
  int left;
  for (left = TRIES; left > 0; --left) {
    const uint64_t start = tinygen_port_count();
    uint64_t counted;
    spin(TURNS);
    counted = tinygen_port_count() - start;
    if (counted < TURNS * INSTRUCTIONS_PER_TURN) return "none";
    if (counted > TURNS * INSTRUCTIONS_PER_TURN + MARGIN) return "none";
  }
  return "instructions";
}
