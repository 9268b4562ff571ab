/* Makes the 4 KB below the stack inaccessible, for machines that have memory there:
 *
 *   void tinygen_riscv_guard_stack(void);
 *
 * Takes the first entry of physical memory protection, and locks it so that it holds in machine mode.
 */
  .option arch, +zicsr

#define GUARD_BYTES 4096
#define LOCKED_POWER_OF_TWO 0x98 /* no access */

  .section .text.tinygen_riscv_guard_stack, "ax", @progbits
  .globl tinygen_riscv_guard_stack
  .type tinygen_riscv_guard_stack, @function
tinygen_riscv_guard_stack:
  la a0, tinygen_stack_bottom - GUARD_BYTES
  srli a0, a0, 2
  ori a0, a0, GUARD_BYTES / 8 - 1 /* how the size is written */
  csrw pmpaddr0, a0
  li a0, LOCKED_POWER_OF_TWO
  csrw pmpcfg0, a0
  ret
  .size tinygen_riscv_guard_stack, . - tinygen_riscv_guard_stack
