/* ESP32: integer arithmetic that its LX6 cores have instructions for and the LX106 has not.
 *
 * The assembler is the LX106's and does not know them, so they are written as the numbers that the
 * Xtensa Instruction Set Architecture manual gives; ../arch/xtensa/arithmetic.c leaves these functions
 * out when TINYGEN_XTENSA_LX6 is defined.
 *
 *   uint32_t __udivsi3(uint32_t a, uint32_t b);     a / b
 *   uint32_t __umodsi3(uint32_t a, uint32_t b);     a % b
 *   uint64_t __umulsidi3(uint32_t a, uint32_t b);   a * b
 */
#define QUOU 12
#define REMU 14
#define MULUH 10

  /* The format RRR with op1 = 2: \op a\r, a\s, a\t */
  .macro rrr op, r, s, t
  .byte \t << 4, \r << 4 | \s, \op << 4 | 2
  .endm

  .macro function name
  .section .text.\name, "ax", @progbits
  .align 4
  .globl \name
  .type \name, @function
\name:
  .endm

  function __udivsi3
  rrr QUOU, 2, 2, 3
  ret.n
  .size __udivsi3, . - __udivsi3

  function __umodsi3
  rrr REMU, 2, 2, 3
  ret.n
  .size __umodsi3, . - __umodsi3

  function __umulsidi3
  mull a4, a2, a3
  rrr MULUH, 3, 2, 3
  mov.n a2, a4
  ret.n
  .size __umulsidi3, . - __umulsidi3
