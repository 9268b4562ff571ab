/* `memcpy`, `memmove` and `memset` in a quarter of the space that a C library's take, and faster for the short
 * runs that networks copy: rows of a window, a padded border.  Linked only where something calls them.
 */
  .syntax unified
  .thumb

  .macro function name
  .section .text.\name, "ax", %progbits
  .balign 4
  .global \name
  .type \name, %function
  .thumb_func
\name:
  .endm

#if defined(__ARM_FEATURE_UNALIGNED) && defined(__thumb2__)

/* void *memcpy(void *to, const void *from, size_t count)
 * Sixteen bytes at a time, then four, then one; words need no alignment on these cores. */
  function memcpy
  mov ip, r0
  subs r2, #16
  blo 2f
1:
  .rept 4
  ldr r3, [r1], #4
  str r3, [ip], #4
  .endr
  subs r2, #16
  bhs 1b
2:
  adds r2, #12
  bmi 4f
3:
  ldr r3, [r1], #4
  str r3, [ip], #4
  subs r2, #4
  bpl 3b
4:
  adds r2, #4
  beq 6f
5:
  ldrb r3, [r1], #1
  strb r3, [ip], #1
  subs r2, #1
  bne 5b
6:
  bx lr
  .size memcpy, . - memcpy

/* void *memset(void *to, int value, size_t count) */
  function memset
  mov ip, r0
  uxtb r1, r1
  orr r1, r1, r1, lsl #8
  orr r1, r1, r1, lsl #16
  subs r2, #4
  blo 2f
1:
  str r1, [ip], #4
  subs r2, #4
  bhs 1b
2:
  adds r2, #4
  beq 4f
3:
  strb r1, [ip], #1
  subs r2, #1
  bne 3b
4:
  bx lr
  .size memset, . - memset

/* void *memmove(void *to, const void *from, size_t count)
 * From the end, if the target begins within the source; `memcpy` goes strictly upwards. */
  function memmove
  subs r3, r0, r1
  cmp r3, r2
  bhs memcpy
  subs r2, #4
  blo 2f
1:
  ldr r3, [r1, r2]
  str r3, [r0, r2]
  subs r2, #4
  bhs 1b
2:
  adds r2, #4
  beq 4f
3:
  subs r2, #1
  ldrb r3, [r1, r2]
  strb r3, [r0, r2]
  bne 3b
4:
  bx lr
  .size memmove, . - memmove

#else

/* Words where both addresses are multiples of four, bytes otherwise. */
  function memcpy
  push {r0, r4, lr}
  movs r3, r0
  orrs r3, r1
  lsls r3, r3, #30
  bne 3f
1:
  subs r2, #4
  blo 2f
  ldmia r1!, {r4}
  stmia r0!, {r4}
  b 1b
2:
  adds r2, #4
3:
  subs r2, #1
  blo 4f
  ldrb r4, [r1]
  strb r4, [r0]
  adds r1, #1
  adds r0, #1
  b 3b
4:
  pop {r0, r4, pc}
  .size memcpy, . - memcpy

  function memset
  push {r0, lr}
  uxtb r1, r1
  lsls r3, r1, #8
  orrs r1, r3
  lsls r3, r1, #16
  orrs r1, r3
  lsls r3, r0, #30
  bne 3f
1:
  subs r2, #4
  blo 2f
  stmia r0!, {r1}
  b 1b
2:
  adds r2, #4
3:
  subs r2, #1
  blo 4f
  strb r1, [r0]
  adds r0, #1
  b 3b
4:
  pop {r0, pc}
  .size memset, . - memset

  function memmove
  subs r3, r0, r1
  cmp r3, r2
  blo 1f
  ldr r3, =memcpy
  bx r3
1:
  subs r2, #1
  ldrb r3, [r1, r2]
  strb r3, [r0, r2]
  bne 1b
  bx lr
  .size memmove, . - memmove

#endif
