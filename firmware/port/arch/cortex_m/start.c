/* Cortex-M: vector table, reset, faults.
 *
 * Most ports poll and never enable an interrupt, so the table ends with the core's own sixteen entries
 * unless TINYGEN_IRQ_COUNT asks for more.  Every entry but reset is a fault; the system timer and the
 * chip's interrupts too, until a port or a program defines `tinygen_systick` and `tinygen_interrupt`.
 */
#include "../../common/start.h"

#ifndef TINYGEN_IRQ_COUNT
#define TINYGEN_IRQ_COUNT 0
#endif

/* VTOR wants the table aligned to its size rounded up to a power of two. */
#if TINYGEN_IRQ_COUNT <= 48
#define TABLE_ALIGNMENT 256
#elif TINYGEN_IRQ_COUNT <= 112
#define TABLE_ALIGNMENT 512
#elif TINYGEN_IRQ_COUNT <= 240
#define TABLE_ALIGNMENT 1024
#else
#define TABLE_ALIGNMENT 2048
#endif

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define SCB_VTOR REGISTER(0xE000ED08u)
#define SCB_CCR REGISTER(0xE000ED14u)
#define SCB_CPACR REGISTER(0xE000ED88u)

typedef struct vector_table {
  uint32_t *stack;
  void (*core[15])(void);
#if TINYGEN_IRQ_COUNT > 0
  void (*interrupts[TINYGEN_IRQ_COUNT])(void);
#endif
} vector_table;

void tinygen_reset(void);
void tinygen_exception(void);
void tinygen_systick(void) __attribute__((weak, alias("tinygen_exception")));
void tinygen_interrupt(void) __attribute__((weak, alias("tinygen_exception")));
__attribute__((noreturn, used)) void tinygen_exception_at(const uint32_t *frame, uint32_t number);

__attribute__((used, section(".tinygen_vectors"), aligned(TABLE_ALIGNMENT)))
const vector_table tinygen_vectors = {
    tinygen_stack_top,
    {tinygen_reset, tinygen_exception, tinygen_exception, tinygen_exception, tinygen_exception,
     tinygen_exception, tinygen_exception, tinygen_exception, tinygen_exception, tinygen_exception,
     tinygen_exception, tinygen_exception, tinygen_exception, tinygen_exception, tinygen_systick},
#if TINYGEN_IRQ_COUNT > 0
    {[0 ... TINYGEN_IRQ_COUNT - 1] = tinygen_interrupt},
#endif
};

/* A bootloader may have left interrupts running and another stack and table in place. */
__attribute__((naked, noreturn)) void tinygen_reset(void) {
  __asm volatile(
      "cpsid i\n"
      "ldr r0, =tinygen_stack_top\n"
      "mov sp, r0\n"
      "ldr r0, =tinygen_enter\n"
      "bx r0\n");
}

__attribute__((noreturn, used)) void tinygen_enter(void);

void tinygen_enter(void) {
  SCB_VTOR = (uint32_t)(uintptr_t)&tinygen_vectors;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  SCB_CPACR |= 0xFu << 20; /* coprocessors 10 and 11: floating point and vectors */
#endif
#if defined(__ARM_FEATURE_MVE)
  SCB_CCR |= (1u << 18) | (1u << 19); /* branch prediction, low-overhead loops */
#endif
#if defined(__ARM_ARCH_8M_MAIN__) || defined(__ARM_ARCH_8_1M_MAIN__)
  __asm volatile("msr msplim, %0" : : "r"(tinygen_stack_bottom));
#endif
  __asm volatile("dsb\n\tisb" : : : "memory");
  tinygen_start();
}

/* Takes a fresh stack, since the fault may be that the old one is used up. */
__attribute__((naked)) void tinygen_exception(void) {
  __asm volatile(
      "mov r0, sp\n"
      "mrs r1, ipsr\n"
      "ldr r2, =tinygen_stack_top\n"
      "mov sp, r2\n"
      "ldr r2, =tinygen_exception_at\n"
      "bx r2\n");
}

void tinygen_exception_at(const uint32_t *frame, uint32_t number) {
  const int readable = frame >= tinygen_stack_bottom && frame + 8 <= tinygen_stack_top;
  tinygen_fault(number, readable ? frame[6] : 0u);
}
