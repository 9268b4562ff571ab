/* Firmware that the tests of the emulators talk to: a letter asks, a line answers.
 *
 *   d  what start-up did: initialised data, zeroed bss, constructors in their order
 *   c  unit of the counter; what it counts for a loop of 20,000 instructions
 *   n  nothing but the loop, for counting from outside: 1,000 turns, then 3,000
 *   f  single-precision results as bit patterns
 *   v  a dot product with vector instructions where the core has them
 *   s  stack peak, before and after using 2,000 bytes more
 *   p  100,000 bytes in a row
 *   b  write to where nothing is;  u  an undefined instruction;  o  recursion without end
 *   e  echo of everything that follows, until a zero byte
 *   q  exit with status 7
 */
#include <stdint.h>

#include "tinygen_port.h"

#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#endif

#define KEEP __attribute__((noinline, noclone))

static uint32_t initialised = 0x12345678u;
static uint32_t zeroed[64];
static uint32_t constructed = 1;

static void append(uint32_t digit) { constructed = constructed * 10u + digit; }
__attribute__((constructor(202))) static void construct_second(void) { append(3); }
__attribute__((constructor)) static void construct_last(void) { append(4); }
__attribute__((constructor(201))) static void construct_first(void) { append(2); }

static void text(const char *words) {
  for (; *words != '\0'; ++words) tinygen_port_write((const uint8_t *)words, 1);
}

static void number(uint32_t value) {
  char digits[11];
  char *at = digits + sizeof digits;
  *--at = '\0';
  do {
    *--at = (char)('0' + value % 10u);
    value /= 10u;
  } while (value > 0u);
  text(at);
  text(" ");
}

static void end_line(void) { text("\n"); }

static uint8_t receive(void) {
  int byte;
  do {
    byte = tinygen_port_read();
  } while (byte < 0);
  return (uint8_t)byte;
}

static void tell_data(void) {
  uint32_t i, sum = 0;
  for (i = 0; i < 64; ++i) sum |= zeroed[i];
  number(initialised == 0x12345678u);
  number(sum == 0);
  number(constructed);
  end_line();
}

/* Two instructions a turn, and before them one more, so that the loop is not where the function is. */
KEEP void probe_spin(uint32_t turns);
void probe_spin(uint32_t turns) {
#if defined(__arm__)
  __asm volatile(".syntax unified\n nop\n1: subs %0, #1\n bne 1b" : "+l"(turns) : : "cc");
#elif defined(__riscv) || defined(__xtensa__)
  __asm volatile(" nop\n1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
#else
  volatile uint32_t left = turns;
  while (left > 0) --left;
#endif
}

static void tell_count(void) {
  uint64_t start, counted;
  text(tinygen_port_count_unit());
  text(" ");
  start = tinygen_port_count();
  probe_spin(10000);
  counted = tinygen_port_count() - start;
  number((uint32_t)counted);
  end_line();
}

static void tell_floats(void) {
  static volatile float operands[][2] = {
      {1.0f, 3.0f}, {16777216.0f, 1.0f}, {-2.5e-30f, 7.5e-12f}, {3.0e38f, 1.5f}, {0.1f, -0.3f}};
  unsigned i;
  for (i = 0; i < sizeof operands / sizeof *operands; ++i) {
    const float a = operands[i][0], b = operands[i][1];
    union {
      float value;
      uint32_t bits;
    } results[4];
    unsigned k;
    results[0].value = a + b;
    results[1].value = a - b;
    results[2].value = a * b;
    results[3].value = a / b;
    for (k = 0; k < 4; ++k) number(results[k].bits);
  }
  end_line();
}

static void tell_dot_product(void) {
  static volatile int8_t sources[2][64];
  int8_t a[64], b[64];
  int32_t sum = 0;
  int i;
  for (i = 0; i < 64; ++i) {
    sources[0][i] = (int8_t)(3 * i - 90);
    sources[1][i] = (int8_t)(127 - 5 * i);
  }
  for (i = 0; i < 64; ++i) {
    a[i] = sources[0][i];
    b[i] = sources[1][i];
  }
#if defined(__ARM_FEATURE_MVE)
  for (i = 0; i < 64; i += 16) sum = vmladavaq_s8(sum, vldrbq_s8(a + i), vldrbq_s8(b + i));
  text("mve ");
#else
  for (i = 0; i < 64; ++i) sum += a[i] * b[i];
  text("scalar ");
#endif
  number((uint32_t)sum);
  end_line();
}

KEEP static void use_stack(void) {
  volatile uint8_t used[2000];
  unsigned i;
  for (i = 0; i < sizeof used; ++i) used[i] = (uint8_t)i;
}

static void tell_stack(void) {
  number((uint32_t)tinygen_port_stack_peak());
  use_stack();
  number((uint32_t)tinygen_port_stack_peak());
  end_line();
}

static void tell_much(void) {
  uint8_t line[100];
  unsigned i;
  for (i = 0; i < sizeof line; ++i) line[i] = (uint8_t)(i < 99 ? '!' + i % 90 : '\n');
  for (i = 0; i < 1000; ++i) tinygen_port_write(line, sizeof line);
}

static void write_nowhere(void) {
#if defined(__linux__)
  static volatile uintptr_t nowhere = 8;
#elif defined(__ARM_ARCH_6M__) /* QEMU's nRF51 ignores writes to much of its addresses */
  static volatile uintptr_t nowhere = 0xA0000000u;
#else
  static volatile uintptr_t nowhere = 0xF8000000u;
#endif
  *(volatile uint32_t *)nowhere = 1u;
}

/* Ends after more frames than any machine here has memory for. */
static volatile uint32_t depth;
KEEP static uint32_t recurse(uint32_t value) {
  volatile uint32_t frame[16];
  if (++depth == UINT32_MAX) return value;
  frame[value % 16u] = depth;
  return recurse(value + 1u) + frame[value % 16u];
}

static void echo(void) {
  uint8_t byte;
  while ((byte = receive()) != 0) tinygen_port_write(&byte, 1);
}

int main(void) {
  for (;;) {
    switch (receive()) {
      case 'd': tell_data(); break;
      case 'c': tell_count(); break;
      case 'n': probe_spin(1000); probe_spin(3000); break;
      case 'f': tell_floats(); break;
      case 'v': tell_dot_product(); break;
      case 's': tell_stack(); break;
      case 'p': tell_much(); break;
      case 'b': write_nowhere(); break;
      case 'u': __builtin_trap();
      case 'o': number(recurse(0)); break;
      case 'e': echo(); break;
      case 'q': return 7;
      default: text("?\n");
    }
  }
}
