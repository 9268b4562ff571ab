/* The arithmetic that Debian's libgcc for the LX106 leaves out, because the ESP8266's ROM has it:
 * integer division, 64-bit multiplication, and most of IEEE 754 in single and double precision,
 * rounded to nearest even, subnormal numbers included.
 *
 * One core serves both formats: a finite number is taken apart into sign, exponent and a 64-bit
 * significand with its leading one at bit 62, and put together again by `pack`, the only place that
 * rounds.  Small and exact, not fast: the machines that need it are emulated or compute in integers.
 * What a program does not call is not linked.
 *
 * TINYGEN_ARITHMETIC(name) can be defined to give the functions other names, for tests on a host.
 */
#include <stdint.h>

#ifndef TINYGEN_ARITHMETIC
#define TINYGEN_ARITHMETIC(name) __##name
#endif
#define FN(name) TINYGEN_ARITHMETIC(name)

uint32_t FN(udivsi3)(uint32_t a, uint32_t b);
uint32_t FN(umodsi3)(uint32_t a, uint32_t b);
int32_t FN(divsi3)(int32_t a, int32_t b);
uint64_t FN(umulsidi3)(uint32_t a, uint32_t b);
int64_t FN(muldi3)(int64_t a, int64_t b);
uint64_t FN(udivdi3)(uint64_t a, uint64_t b);
uint64_t FN(umoddi3)(uint64_t a, uint64_t b);
int64_t FN(divdi3)(int64_t a, int64_t b);
float FN(addsf3)(float a, float b);
float FN(subsf3)(float a, float b);
float FN(mulsf3)(float a, float b);
float FN(floatsisf)(int32_t a);
float FN(floatunsisf)(uint32_t a);
uint32_t FN(fixunssfsi)(float a);
double FN(adddf3)(double a, double b);
double FN(subdf3)(double a, double b);
double FN(muldf3)(double a, double b);
double FN(divdf3)(double a, double b);
double FN(floatsidf)(int32_t a);
double FN(floatunsidf)(uint32_t a);
int32_t FN(fixdfsi)(double a);
uint32_t FN(fixunsdfsi)(double a);
double FN(extendsfdf2)(float a);
float FN(truncdfsf2)(double a);

/* ---- Integers -------------------------------------------------------------------------------- */

typedef struct division {
  uint64_t quotient, remainder;
} division;

/* Schoolbook division in base two.  Dividing by zero gives a quotient of all ones. */
static division divide(uint64_t a, uint64_t b, int bits) {
  division result = {0, 0};
  while (bits-- > 0) {
    const uint64_t carry = result.remainder >> 63;
    result.remainder = result.remainder << 1 | (a >> bits & 1u);
    result.quotient <<= 1;
    if (carry != 0 || result.remainder >= b) {
      result.remainder -= b;
      result.quotient |= 1u;
    }
  }
  return result;
}

static uint32_t magnitude32(int32_t a) { return a < 0 ? 0u - (uint32_t)a : (uint32_t)a; }
static uint64_t magnitude64(int64_t a) { return a < 0 ? 0u - (uint64_t)a : (uint64_t)a; }

#ifndef TINYGEN_XTENSA_LX6 /* which has instructions for the next three: see ../../esp32 */

uint32_t FN(udivsi3)(uint32_t a, uint32_t b) { return (uint32_t)divide(a, b, 32).quotient; }

uint32_t FN(umodsi3)(uint32_t a, uint32_t b) { return (uint32_t)divide(a, b, 32).remainder; }

/* By halves: the core multiplies 32 bits to the lower 32. */
uint64_t FN(umulsidi3)(uint32_t a, uint32_t b) {
  const uint32_t a0 = a & 0xFFFFu, a1 = a >> 16, b0 = b & 0xFFFFu, b1 = b >> 16;
  const uint32_t low = a0 * b0;
  const uint32_t middle = a1 * b0 + (low >> 16);
  const uint32_t other = a0 * b1 + (middle & 0xFFFFu);
  const uint32_t high = a1 * b1 + (middle >> 16) + (other >> 16);
  return (uint64_t)high << 32 | (other << 16 | (low & 0xFFFFu));
}

#endif

int32_t FN(divsi3)(int32_t a, int32_t b) {
  const uint32_t quotient = FN(udivsi3)(magnitude32(a), magnitude32(b));
  return (int32_t)((a ^ b) < 0 ? 0u - quotient : quotient);
}

int64_t FN(muldi3)(int64_t a, int64_t b) {
  const uint64_t x = (uint64_t)a, y = (uint64_t)b;
  const uint32_t cross = (uint32_t)(x >> 32) * (uint32_t)y + (uint32_t)x * (uint32_t)(y >> 32);
  return (int64_t)(FN(umulsidi3)((uint32_t)x, (uint32_t)y) + ((uint64_t)cross << 32));
}

uint64_t FN(udivdi3)(uint64_t a, uint64_t b) { return divide(a, b, 64).quotient; }

uint64_t FN(umoddi3)(uint64_t a, uint64_t b) { return divide(a, b, 64).remainder; }

int64_t FN(divdi3)(int64_t a, int64_t b) {
  const uint64_t quotient = divide(magnitude64(a), magnitude64(b), 64).quotient;
  return (int64_t)((a ^ b) < 0 ? 0u - quotient : quotient);
}

/* ---- Floating point: taking apart and putting together --------------------------------------- */

typedef struct format {
  int fraction; /* bits of the stored significand */
  int exponent; /* bits of the stored exponent */
} format;

static const format SINGLE = {23, 8};
static const format DOUBLE = {52, 11};

typedef enum kind { ZERO, FINITE, INFINITE, NAN_ } kind;

/* FINITE is significand * 2^(exponent - 62), with bit 62 the highest that is set. */
typedef struct number {
  kind kind;
  int negative;
  int exponent;
  uint64_t significand;
} number;

static number normalized(int negative, int exponent, uint64_t significand) {
  number result = {FINITE, negative, exponent, significand};
  if (significand == 0) {
    result.kind = ZERO;
    return result;
  }
  while ((result.significand >> 62 & 1u) == 0) {
    result.significand <<= 1;
    --result.exponent;
  }
  return result;
}

static number unpack(format f, uint64_t bits) {
  const int largest = (1 << f.exponent) - 1, bias = largest >> 1;
  const int negative = (int)(bits >> (f.fraction + f.exponent) & 1u);
  const int stored = (int)(bits >> f.fraction) & largest;
  const uint64_t fraction = bits & ((UINT64_C(1) << f.fraction) - 1u);
  number special = {INFINITE, negative, 0, 0};
  if (stored == largest) {
    if (fraction != 0) special.kind = NAN_;
    return special;
  }
  if (stored == 0) return normalized(negative, 1 - bias, fraction << (62 - f.fraction));
  return normalized(negative, stored - bias,
                    (UINT64_C(1) << f.fraction | fraction) << (62 - f.fraction));
}

/* Shifts right; what falls off is kept as a one in the lowest bit, for rounding. */
static uint64_t shift_sticky(uint64_t value, int by) {
  if (by <= 0) return value;
  if (by > 63) return value != 0;
  return value >> by | ((value & ((UINT64_C(1) << by) - 1u)) != 0);
}

static uint64_t pack(format f, number n) {
  const int largest = (1 << f.exponent) - 1, bias = largest >> 1, drop = 62 - f.fraction;
  const uint64_t sign = (uint64_t)n.negative << (f.fraction + f.exponent);
  const uint64_t infinity = (uint64_t)largest << f.fraction;
  int stored = n.exponent + bias;
  uint64_t kept, rest;
  if (n.kind == ZERO) return sign;
  if (n.kind == NAN_) return infinity | UINT64_C(1) << (f.fraction - 1);
  if (n.kind == INFINITE || stored >= largest) return sign | infinity;
  if (stored <= 0) {
    n.significand = shift_sticky(n.significand, 1 - stored);
    stored = 0;
  } else {
    --stored; /* the leading one adds it again */
  }
  kept = ((uint64_t)stored << f.fraction) + (n.significand >> drop);
  rest = n.significand << (64 - drop);
  if (rest > UINT64_C(1) << 63 || (rest == UINT64_C(1) << 63 && (kept & 1u) != 0)) ++kept;
  return sign | kept;
}

typedef union single_bits {
  float value;
  uint32_t bits;
} single_bits;

typedef union double_bits {
  double value;
  uint64_t bits;
} double_bits;

static number from_single(float value) {
  single_bits as;
  as.value = value;
  return unpack(SINGLE, as.bits);
}

static number from_double(double value) {
  double_bits as;
  as.value = value;
  return unpack(DOUBLE, as.bits);
}

static float to_single(number n) {
  single_bits as;
  as.bits = (uint32_t)pack(SINGLE, n);
  return as.value;
}

static double to_double(number n) {
  double_bits as;
  as.bits = pack(DOUBLE, n);
  return as.value;
}

/* ---- Floating point: the operations ---------------------------------------------------------- */

static number special(kind k, int negative) {
  const number result = {k, negative, 0, 0};
  return result;
}

static number negated(number a) {
  a.negative ^= 1;
  return a;
}

static number add(number a, number b) {
  if (a.kind == NAN_ || b.kind == NAN_) return special(NAN_, 0);
  if (a.kind == INFINITE) {
    return b.kind == INFINITE && a.negative != b.negative ? special(NAN_, 0) : a;
  }
  if (b.kind == INFINITE) return b;
  if (a.kind == ZERO && b.kind == ZERO) return special(ZERO, a.negative & b.negative);
  if (a.kind == ZERO) return b;
  if (b.kind == ZERO) return a;
  if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand)) {
    const number swap = a;
    a = b;
    b = swap;
  }
  b.significand = shift_sticky(b.significand, a.exponent - b.exponent);
  if (a.negative != b.negative) {
    if (a.significand == b.significand) return special(ZERO, 0);
    return normalized(a.negative, a.exponent, a.significand - b.significand);
  }
  a.significand += b.significand;
  if (a.significand >> 63 != 0) {
    a.significand = shift_sticky(a.significand, 1);
    ++a.exponent;
  }
  return a;
}

static number multiply(number a, number b) {
  const int negative = a.negative ^ b.negative;
  uint64_t a0, a1, b0, b1, middle, high, low;
  if (a.kind == NAN_ || b.kind == NAN_) return special(NAN_, 0);
  if (a.kind == INFINITE || b.kind == INFINITE) {
    return special(a.kind == ZERO || b.kind == ZERO ? NAN_ : INFINITE, negative);
  }
  if (a.kind == ZERO || b.kind == ZERO) return special(ZERO, negative);
  a0 = a.significand & 0xFFFFFFFFu;
  a1 = a.significand >> 32;
  b0 = b.significand & 0xFFFFFFFFu;
  b1 = b.significand >> 32;
  low = a0 * b0;
  middle = a1 * b0 + (low >> 32); /* no carry: both factors of a1 and b1 are below 2^31 */
  high = a1 * b1 + (middle >> 32);
  middle = a0 * b1 + (middle & 0xFFFFFFFFu);
  high += middle >> 32;
  low = middle << 32 | (low & 0xFFFFFFFFu);
  /* The product's leading one is at bit 60 or 61 of `high`; two more places follow from `low`. */
  high = high << 1 | low >> 63;
  return normalized(negative, a.exponent + b.exponent + 1, high | (low << 1 != 0));
}

static number divide_numbers(number a, number b) {
  const int negative = a.negative ^ b.negative;
  uint64_t quotient = 0;
  int bit;
  if (a.kind == NAN_ || b.kind == NAN_) return special(NAN_, 0);
  if (a.kind == INFINITE) return special(b.kind == INFINITE ? NAN_ : INFINITE, negative);
  if (b.kind == INFINITE) return special(ZERO, negative);
  if (b.kind == ZERO) return special(a.kind == ZERO ? NAN_ : INFINITE, negative);
  if (a.kind == ZERO) return special(ZERO, negative);
  for (bit = 0; bit < 63; ++bit) {
    quotient <<= 1;
    if (a.significand >= b.significand) {
      a.significand -= b.significand;
      quotient |= 1u;
    }
    a.significand <<= 1;
  }
  return normalized(negative, a.exponent - b.exponent, quotient | (a.significand != 0));
}

/* The magnitude, cut off towards zero; `limit` when it is larger, or not a number. */
static uint32_t to_integer(number a, uint32_t limit) {
  uint64_t whole;
  if (a.kind == ZERO || (a.kind == FINITE && a.exponent < 0)) return 0;
  if (a.kind != FINITE || a.exponent > 31) return limit;
  whole = a.significand >> (62 - a.exponent);
  return whole > limit ? limit : (uint32_t)whole;
}

static uint32_t to_unsigned(number a) {
  if (a.negative) return 0u - to_integer(a, 0x80000000u);
  return to_integer(a, 0xFFFFFFFFu);
}

static number from_unsigned(uint32_t a) { return normalized(0, 62, a); }

static number from_signed(int32_t a) { return normalized(a < 0, 62, magnitude32(a)); }

float FN(addsf3)(float a, float b) { return to_single(add(from_single(a), from_single(b))); }
float FN(subsf3)(float a, float b) { return to_single(add(from_single(a), negated(from_single(b)))); }
float FN(mulsf3)(float a, float b) { return to_single(multiply(from_single(a), from_single(b))); }
float FN(floatsisf)(int32_t a) { return to_single(from_signed(a)); }
float FN(floatunsisf)(uint32_t a) { return to_single(from_unsigned(a)); }
uint32_t FN(fixunssfsi)(float a) { return to_unsigned(from_single(a)); }

double FN(adddf3)(double a, double b) { return to_double(add(from_double(a), from_double(b))); }
double FN(subdf3)(double a, double b) {
  return to_double(add(from_double(a), negated(from_double(b))));
}
double FN(muldf3)(double a, double b) { return to_double(multiply(from_double(a), from_double(b))); }
double FN(divdf3)(double a, double b) {
  return to_double(divide_numbers(from_double(a), from_double(b)));
}
double FN(floatsidf)(int32_t a) { return to_double(from_signed(a)); }
double FN(floatunsidf)(uint32_t a) { return to_double(from_unsigned(a)); }
uint32_t FN(fixunsdfsi)(double a) { return to_unsigned(from_double(a)); }
double FN(extendsfdf2)(float a) { return to_double(from_single(a)); }
float FN(truncdfsf2)(double a) { return to_single(from_double(a)); }

int32_t FN(fixdfsi)(double a) {
  const number n = from_double(a);
  const uint32_t whole = to_integer(n, n.negative ? 0x80000000u : 0x7FFFFFFFu);
  return (int32_t)(n.negative ? 0u - whole : whole);
}
