/* Xtensa, call0 ABI: exceptions and reset, with interrupts off and no register windows.
 *
 * An exception jumps to VECBASE plus an offset that the core's designers chose: the table has those
 * of the LX106 and, when TINYGEN_XTENSA_LX6 is defined, those of the ESP32's LX6 and LX7 too.
 * The words that L32R loads stand where the table is free.  Its start is a way into the program as
 * well, for machines whose reset address is the start of flash.
 */
/* What `tinygen_fault` is told where the core has no number of a cause. */
#define CAUSE_DEBUG 62
#define CAUSE_DOUBLE 63

  .section .tinygen_vectors, "ax"
  .align 1024
tinygen_vectors:
  j tinygen_reset
  .org 0x10 /* break */
  j debug_exception
  .org 0x20 /* interrupt that cannot be masked */
  j exception
  .org 0x30 /* in kernel mode */
  j exception

  .org 0x34
stack:
  .word tinygen_stack_top
table:
  .word tinygen_vectors
start:
  .word tinygen_start
fault:
  .word tinygen_fault

  .org 0x50 /* in user mode */
  j exception
  .org 0x70 /* within an exception */
  j double_exception
#ifdef TINYGEN_XTENSA_LX6
  .org 0x180 /* interrupts of level 2 to 5 */
  j exception
  .org 0x1c0
  j exception
  .org 0x200
  j exception
  .org 0x240
  j exception
  .org 0x280 /* break */
  j debug_exception
  .org 0x2c0 /* interrupt that cannot be masked */
  j exception
  .org 0x300 /* in kernel mode */
  j exception
  .org 0x340 /* in user mode */
  j exception
  .org 0x3c0 /* within an exception */
  j double_exception
#endif

/* All take a fresh stack, since the fault may be that the old one is used up. */
  .align 4
exception:
  rsr.exccause a2
  rsr.epc1 a3
  j report
debug_exception:
  movi a2, CAUSE_DEBUG
#ifdef TINYGEN_XTENSA_LX6
  .byte 0x30, 0xb6, 0x03 /* rsr.epc6 a3, which the LX106's assembler does not know */
#else
  rsr.epc2 a3
#endif
  j report
double_exception:
  movi a2, CAUSE_DOUBLE
  rsr.depc a3
report:
  l32r a1, stack
  movi a4, 0 /* exceptions are possible again */
  wsr.ps a4
  rsync
  l32r a0, fault
  callx0 a0

  .align 4
  .globl tinygen_reset
  .type tinygen_reset, @function
tinygen_reset:
  movi a0, 0
  wsr.intenable a0
  wsr.ps a0
  l32r a4, table
  wsr.vecbase a4
  rsync
  l32r a1, stack
  l32r a4, start
  callx0 a4
  .size tinygen_reset, . - tinygen_reset
