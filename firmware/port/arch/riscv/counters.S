/* 64-bit reads of the counters that RV32 shows in two halves, safe against the carry between them.
 *
 *   uint64_t tinygen_riscv_instructions(void);   minstret
 *   uint64_t tinygen_riscv_cycles(void);         mcycle
 */
  .option arch, +zicsr

  .macro counter name, low, high
  .section .text.\name, "ax", @progbits
  .globl \name
  .type \name, @function
\name:
1:
  csrr a1, \high
  csrr a0, \low
  csrr a2, \high
  bne a1, a2, 1b
  ret
  .size \name, . - \name
  .endm

  counter tinygen_riscv_instructions, minstret, minstreth
  counter tinygen_riscv_cycles, mcycle, mcycleh
