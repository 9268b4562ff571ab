/* Instructions of the DSP extension, each against C, with random operands; a line says what went wrong,
 * or "right".  A letter starts it; after 'q' it executes one that labwired lacks and nobody has
 * replaced.
 */
#include "tinygen_port.h"

static uint32_t state = 1;

static uint32_t random_word(void) {
  uint32_t high;
  state = state * 1664525u + 1013904223u;
  high = state & 0xFFFF0000u;
  state = state * 1664525u + 1013904223u;
  return high | state >> 16;
}

static void text(const char *words) {
  for (; *words != '\0'; ++words) tinygen_port_write((const uint8_t *)words, 1);
}

static int wrong;

static void expect(const char *instruction, uint32_t got, uint32_t wanted) {
  if (got != wanted) {
    wrong = 1;
    text(instruction);
    text(" is wrong\n");
  }
}

static uint32_t rotated(uint32_t word, unsigned bits) {
  return bits == 0 ? word : word >> bits | word << (32u - bits);
}

static uint32_t signed_pair(uint32_t word) {
  return ((uint32_t)(int8_t)word & 0xFFFFu) | (uint32_t)(int8_t)(word >> 16) << 16;
}

static uint32_t saturated(int64_t value, int64_t low, int64_t high) {
  return (uint32_t)(value < low ? low : value > high ? high : value);
}

#define ONE(code, operand) \
  __extension__({ \
    uint32_t result; \
    __asm volatile(code : "=r"(result) : "r"(operand)); \
    result; \
  })

#define TWO(code, first, second) \
  __extension__({ \
    uint32_t result; \
    __asm volatile(code : "=r"(result) : "r"(first), "r"(second)); \
    result; \
  })

#define THREE(code, first, second, third) \
  __extension__({ \
    uint32_t result; \
    __asm volatile(code : "=r"(result) : "r"(first), "r"(second), "r"(third)); \
    result; \
  })

static uint32_t low(uint32_t word) { return (uint32_t)(int16_t)word; }
static uint32_t high(uint32_t word) { return (uint32_t)((int32_t)word >> 16); }

static int64_t wide_product(uint32_t a, uint32_t b) { return (int64_t)(int32_t)a * (int32_t)b; }
static int64_t upper(uint32_t word) { return (int64_t)((uint64_t)word << 32); }

/* The smaller bytes of two words, by the flags that SSUB8 leaves. */
static uint32_t least_bytes(uint32_t a, uint32_t b) {
  uint32_t result;
  __asm volatile("ssub8 %0, %1, %2\n sel %0, %2, %1" : "=&r"(result) : "r"(a), "r"(b));
  return result;
}

static uint32_t least_bytes_in_c(uint32_t a, uint32_t b) {
  uint32_t result = 0;
  int shift;
  for (shift = 0; shift < 32; shift += 8) {
    const int8_t x = (int8_t)(a >> shift), y = (int8_t)(b >> shift);
    result |= (uint32_t)(uint8_t)(x < y ? x : y) << shift;
  }
  return result;
}

/* A field of the one word in the other, whose bits around it stay. */
static uint32_t inserted(uint32_t into, uint32_t field) {
  __asm volatile("bfi %0, %1, #8, #8" : "+r"(into) : "r"(field));
  return into;
}

/* Whether a word is the constant, which takes an immediate of two bytes. */
static uint32_t is_end(uint32_t word) {
  uint32_t result = 0;
  __asm volatile("cmp %1, #0x80008000\n it eq\n moveq %0, #1" : "+r"(result) : "r"(word) : "cc");
  return result;
}

#define PAIRS(rotation, bits) \
  expect("sxtb16", ONE("sxtb16 %0, %1" rotation, a), signed_pair(rotated(a, bits))); \
  expect("uxtb16", ONE("uxtb16 %0, %1" rotation, a), rotated(a, bits) & 0xFF00FFu)

/* The register is result and operand at once. */
static uint32_t in_place(uint32_t word) {
  __asm volatile("sxtb16 %0, %0, ror #8" : "+r"(word));
  return word;
}

/* All low registers hold something, and the flags do: none of it may change. */
static uint32_t undisturbed(uint32_t word) {
  uint32_t ok;
  __asm volatile(
      "mov r0, #10\n mov r2, #12\n mov r3, #13\n mov r4, #14\n"
      "subs r5, r0, r2\n" /* less: negative, a borrow */
      "sxtb16 r1, %1\n ssat r1, #9, r1\n pkhbt r1, r1, %1, lsl #16\n"
      "mov %0, #0\n"
      "bpl 1f\n bcs 1f\n bvs 1f\n beq 1f\n"
      "cmp r0, #10\n bne 1f\n cmp r2, #12\n bne 1f\n cmp r3, #13\n bne 1f\n cmp r4, #14\n bne 1f\n"
      "mov %0, #1\n1:"
      : "=&r"(ok)
      : "r"(word)
      : "r0", "r1", "r2", "r3", "r4", "r5", "cc");
  return ok;
}

/* Data among code that looks like `sxtb16 r0, r1`. */
__attribute__((naked, noinline)) static uint32_t look_alike(void) {
  __asm volatile("ldr r0, 1f\n bx lr\n .align 2\n1: .word 0xF081FA2F");
}

static void check(void) {
  int i;
  for (i = 0; i < 200; ++i) {
    const uint32_t a = random_word(), b = random_word(), c = random_word();
    PAIRS("", 0);
    PAIRS(", ror #8", 8);
    PAIRS(", ror #16", 16);
    PAIRS(", ror #24", 24);
    expect("sxtb16 in place", in_place(a), signed_pair(rotated(a, 8)));
    expect("pkhbt", TWO("pkhbt %0, %1, %2", a, b), (b & 0xFFFF0000u) | (a & 0xFFFFu));
    expect("pkhbt lsl 16", TWO("pkhbt %0, %1, %2, lsl #16", a, b), b << 16 | (a & 0xFFFFu));
    expect("pkhbt lsl 5", TWO("pkhbt %0, %1, %2, lsl #5", a, b),
           (b << 5 & 0xFFFF0000u) | (a & 0xFFFFu));
    expect("pkhtb asr 16", TWO("pkhtb %0, %1, %2, asr #16", a, b), (a & 0xFFFF0000u) | b >> 16);
    expect("pkhtb asr 3", TWO("pkhtb %0, %1, %2, asr #3", a, b),
           (a & 0xFFFF0000u) | ((uint32_t)((int32_t)b >> 3) & 0xFFFFu));
    expect("pkhtb asr 32", TWO("pkhtb %0, %1, %2, asr #32", a, b),
           (a & 0xFFFF0000u) | (b >> 31 != 0 ? 0xFFFFu : 0u));
    expect("ssat 8", ONE("ssat %0, #8, %1", a), saturated((int32_t)a, -128, 127));
    expect("ssat 1", ONE("ssat %0, #1, %1", a), saturated((int32_t)a, -1, 0));
    expect("ssat 32", ONE("ssat %0, #32, %1", a), a);
    expect("ssat asr", ONE("ssat %0, #8, %1, asr #24", a), a >> 24 | (a >> 31 ? 0xFFFFFF00u : 0u));
    expect("ssat asr 20", ONE("ssat %0, #8, %1, asr #20", a),
           saturated((int32_t)a >> 20, -128, 127));
    expect("ssat lsl", ONE("ssat %0, #8, %1, lsl #3", a), saturated((int32_t)(a << 3), -128, 127));
    expect("usat", ONE("usat %0, #8, %1", a), saturated((int32_t)a, 0, 255));
    expect("usat asr", ONE("usat %0, #8, %1, asr #16", a), saturated((int32_t)a >> 16, 0, 255));
    expect("smlad", THREE("smlad %0, %1, %2, %3", a, b, c),
           low(a) * low(b) + high(a) * high(b) + c);
    expect("smuad", TWO("smuad %0, %1, %2", a, b), low(a) * low(b) + high(a) * high(b));
    expect("smladx", THREE("smladx %0, %1, %2, %3", a, b, c),
           low(a) * high(b) + high(a) * low(b) + c);
    expect("smlsd", THREE("smlsd %0, %1, %2, %3", a, b, c),
           low(a) * low(b) - high(a) * high(b) + c);
    expect("smlabb", THREE("smlabb %0, %1, %2, %3", a, b, c), low(a) * low(b) + c);
    expect("smlabt", THREE("smlabt %0, %1, %2, %3", a, b, c), low(a) * high(b) + c);
    expect("smlatb", THREE("smlatb %0, %1, %2, %3", a, b, c), high(a) * low(b) + c);
    expect("smlatt", THREE("smlatt %0, %1, %2, %3", a, b, c), high(a) * high(b) + c);
    expect("smulbb", TWO("smulbb %0, %1, %2", a, b), low(a) * low(b));
    expect("smulbt", TWO("smulbt %0, %1, %2", a, b), low(a) * high(b));
    expect("smultb", TWO("smultb %0, %1, %2", a, b), high(a) * low(b));
    expect("smultt", TWO("smultt %0, %1, %2", a, b), high(a) * high(b));
    expect("smmul", TWO("smmul %0, %1, %2", a, b), (uint32_t)(wide_product(a, b) >> 32));
    expect("smmulr", TWO("smmulr %0, %1, %2", a, b),
           (uint32_t)((wide_product(a, b) + 0x80000000) >> 32));
    expect("smmla", THREE("smmla %0, %1, %2, %3", a, b, c >> 1),
           (uint32_t)((wide_product(a, b) + upper(c >> 1)) >> 32));
    expect("smmlar", THREE("smmlar %0, %1, %2, %3", a, b, c >> 1),
           (uint32_t)((wide_product(a, b) + upper(c >> 1) + 0x80000000) >> 32));
    expect("smmls", THREE("smmls %0, %1, %2, %3", a, b, c >> 1),
           (uint32_t)((upper(c >> 1) - wide_product(a, b)) >> 32));
    expect("sadd16", TWO("sadd16 %0, %1, %2", a, b),
           ((a + b) & 0xFFFFu) | ((a >> 16) + (b >> 16)) << 16);
    expect("ssub16", TWO("ssub16 %0, %1, %2", a, b),
           ((a - b) & 0xFFFFu) | ((a >> 16) - (b >> 16)) << 16);
    expect("ssub8 and sel", least_bytes(a, b), least_bytes_in_c(a, b));
    expect("bfi", inserted(a, b), (a & 0xFFFF00FFu) | (b & 0xFFu) << 8);
    expect("sub asr", TWO("sub %0, %1, %2, asr #31", a, b), a - (uint32_t)((int32_t)b >> 31));
    expect("asr", TWO("asr %0, %1, %2", a, i & 31), (uint32_t)((int32_t)a >> (i & 31)));
    expect("cmp", is_end(0x80008000u), 1);
    expect("cmp", is_end(a | 1u), 0);
    expect("pkhtb", TWO("pkhtb %0, %1, %2", a, b), (a & 0xFFFF0000u) | (b & 0xFFFFu));
    expect("what is around", undisturbed(a), 1);
  }
  expect("data among code", look_alike(), 0xF081FA2Fu);
  expect("ssat of the least", ONE("ssat %0, #8, %1", 0x80000000u), 0xFFFFFF80u);
}

int main(void) {
  int letter;
  while ((letter = tinygen_port_read()) < 0) {
  }
  if (letter == 'q') {
    expect("qadd", TWO("qadd %0, %1, %2", 0x7FFFFFFFu, 1u), 0x7FFFFFFFu);
  } else {
    check();
  }
  if (!wrong) text("right\n");
  return wrong;
}
