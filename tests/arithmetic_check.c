/* Holds arch/xtensa/arithmetic.c against this machine's own arithmetic, on bit patterns that favour
 * zeros, subnormal numbers, infinities, NaNs, close exponents and few set bits.
 *
 *   arithmetic_check ROUNDS      prints what differs; exit status 1 if anything does
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINYGEN_ARITHMETIC(name) own_##name
#include "arithmetic.c"

static uint64_t state = 88172645463325252u;
static int wrong;

static uint64_t draw(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x9E3779B97F4A7C15u;
}

static uint64_t draw_number(int fraction, int exponent) {
  const uint64_t mask = ((UINT64_C(1) << exponent) - 1) << fraction;
  const uint64_t middle = (UINT64_C(1) << (exponent - 1)) - 32;
  uint64_t bits = draw() >> (63 - fraction - exponent);
  switch (draw() >> 61) {
    case 0: return bits & ~mask;
    case 1: return bits | mask;
    case 2: return bits & ~((UINT64_C(1) << fraction) - 1);
    case 3: return bits;
    case 4: bits &= ~UINT64_C(0) << draw() % 23; /* fall through */
    default: return (bits & ~mask) | ((middle + draw() % 64) << fraction);
  }
}

static float draw_single(void) {
  const uint32_t bits = (uint32_t)draw_number(23, 8);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static double draw_double(void) {
  const uint64_t bits = draw_number(52, 11);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void report(const char *what, double a, double b, double got, double wanted) {
  if (++wrong <= 20) printf("%s(%a, %a) is %a, not %a\n", what, a, b, got, wanted);
}

static void single(const char *what, float a, float b, float got, float wanted) {
  if (isnan(got) && isnan(wanted)) return;
  if (memcmp(&got, &wanted, sizeof got) != 0) report(what, a, b, got, wanted);
}

static void twice(const char *what, double a, double b, double got, double wanted) {
  if (isnan(got) && isnan(wanted)) return;
  if (memcmp(&got, &wanted, sizeof got) != 0) report(what, a, b, got, wanted);
}

static void integer(const char *what, uint64_t a, uint64_t b, uint64_t got, uint64_t wanted) {
  if (got != wanted) report(what, (double)a, (double)b, (double)got, (double)wanted);
}

static void check_singles(void) {
  const float a = draw_single(), b = draw_single();
  single("add", a, b, own_addsf3(a, b), a + b);
  single("subtract", a, b, own_subsf3(a, b), a - b);
  single("multiply", a, b, own_mulsf3(a, b), a * b);
  twice("extend", a, 0, own_extendsfdf2(a), (double)a);
  if (a > -1.0f && a < 4294967296.0f) {
    integer("to unsigned", (uint64_t)a, 0, own_fixunssfsi(a), (uint32_t)a);
  }
}

static void check_doubles(void) {
  const double a = draw_double(), b = draw_double();
  twice("add", a, b, own_adddf3(a, b), a + b);
  twice("subtract", a, b, own_subdf3(a, b), a - b);
  twice("multiply", a, b, own_muldf3(a, b), a * b);
  twice("divide", a, b, own_divdf3(a, b), a / b);
  single("truncate", 0, 0, own_truncdfsf2(a), (float)a);
  if (a > -2147483649.0 && a < 2147483648.0) {
    integer("to signed", 0, 0, (uint32_t)own_fixdfsi(a), (uint32_t)(int32_t)a);
  }
  if (a > -1.0 && a < 4294967296.0) {
    integer("to unsigned", 0, 0, own_fixunsdfsi(a), (uint32_t)a);
  }
}

static void check_words(void) {
  const uint32_t a = (uint32_t)(draw() >> draw() % 40), b = (uint32_t)(draw() >> draw() % 40);
  const int32_t s = (int32_t)a, t = (int32_t)b;
  twice("from unsigned", a, 0, own_floatunsidf(a), (double)a);
  twice("from signed", s, 0, own_floatsidf(s), (double)s);
  single("from unsigned", 0, 0, own_floatunsisf(a), (float)a);
  single("from signed", 0, 0, own_floatsisf(s), (float)s);
  integer("a * b", a, b, own_umulsidi3(a, b), (uint64_t)a * b);
  if (b == 0) return;
  integer("a / b", a, b, own_udivsi3(a, b), a / b);
  integer("a % b", a, b, own_umodsi3(a, b), a % b);
  if (s != INT32_MIN || t != -1) {
    integer("signed a / b", a, b, (uint32_t)own_divsi3(s, t), (uint32_t)(s / t));
  }
}

static void check_long_words(void) {
  const uint64_t a = draw() >> draw() % 64, b = draw() >> draw() % 64;
  const int64_t s = (int64_t)a, t = (int64_t)b;
  integer("long a * b", a, b, (uint64_t)own_muldi3(s, t), a * b);
  if (b == 0) return;
  integer("long a / b", a, b, own_udivdi3(a, b), a / b);
  integer("long a % b", a, b, own_umoddi3(a, b), a % b);
  if (s != INT64_MIN || t != -1) {
    integer("signed long a / b", a, b, (uint64_t)own_divdi3(s, t), (uint64_t)(s / t));
  }
}

int main(int argc, char **argv) {
  long rounds = argc > 1 ? atol(argv[1]) : 1;
  while (rounds-- > 0) {
    check_singles();
    check_doubles();
    check_words();
    check_long_words();
  }
  return wrong != 0;
}
