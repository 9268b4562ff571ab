/* RISC-V: reset and traps, in machine mode with interrupts off.
 *
 * TINYGEN_TRAP_ALIGN is the power of two that the core wants in mtvec: 2 is the standard's own,
 * cores that know vectored mode only (ESP32-C3) need 8.
 */
#ifndef TINYGEN_TRAP_ALIGN
#define TINYGEN_TRAP_ALIGN 2
#endif

  .option arch, +zicsr

  .section .tinygen_reset, "ax", @progbits
  .globl tinygen_reset
  .type tinygen_reset, @function
tinygen_reset:
  csrci mstatus, 8
  .option push
  .option norelax
  la gp, __global_pointer$
  .option pop
  la sp, tinygen_stack_top
  la t0, tinygen_trap
  csrw mtvec, t0
#ifdef __riscv_flen
  li t0, 0x2000 /* floating point unit: initial */
  csrs mstatus, t0
#endif
  mv s0, zero
  mv ra, zero
  tail tinygen_start
  .size tinygen_reset, . - tinygen_reset

/* Takes a fresh stack, since the fault may be that the old one is used up. */
  .section .text.tinygen_trap, "ax", @progbits
  .p2align TINYGEN_TRAP_ALIGN
  .globl tinygen_trap
  .type tinygen_trap, @function
tinygen_trap:
  la sp, tinygen_stack_top
  csrr a0, mcause
  csrr a1, mepc
  tail tinygen_fault
  .size tinygen_trap, . - tinygen_trap
