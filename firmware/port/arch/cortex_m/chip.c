/* The parts of a port that are the same on every Cortex-M chip.
 *
 * Names and addresses of registers: Armv7-M Architecture Reference Manual, chapters on the NVIC, the
 * system timer and the Data Watchpoint and Trace unit; Armv6-M has the first two.
 */
#include "chip.h"

#define CYCLES_PER_MICROSECOND (TINYGEN_CLOCK_HZ / 1000000u)

#ifdef __ARM_ARCH_6M__
#define NVIC_WORDS 1u
#else
#define NVIC_WORDS 8u /* what the architecture allows for; chips have the first few */
#endif
#define NVIC_ISER(i) TINYGEN_REGISTER(0xE000E100u + 4u * (i))
#define NVIC_ICER(i) TINYGEN_REGISTER(0xE000E180u + 4u * (i))
#define NVIC_ICPR(i) TINYGEN_REGISTER(0xE000E280u + 4u * (i))

#define SYST_CSR TINYGEN_REGISTER(0xE000E010u)
#define SYST_CSR_CORE_CLOCK_INTERRUPT_ENABLE 7u
#define SYST_RVR TINYGEN_REGISTER(0xE000E014u)
#define SYST_CVR TINYGEN_REGISTER(0xE000E018u)
#define SYST_BITS 24
#define SYST_MASK ((1u << SYST_BITS) - 1u)

#define DEMCR TINYGEN_REGISTER(0xE000EDFCu)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CTRL TINYGEN_REGISTER(0xE0001000u)
#define DWT_CTRL_CYCCNTENA 1u
#define DWT_CYCCNT TINYGEN_REGISTER(0xE0001004u)
#define DWT_LAR TINYGEN_REGISTER(0xE0001FB0u)
#define DWT_LAR_UNLOCK 0xC5ACCE55u

volatile uint32_t tinygen_port_ended;

static tinygen_clock time_now;

#ifdef __ARM_ARCH_6M__

/* SysTick counts down in 24 bits; its interrupt counts the times that it wraps. */
static volatile uint32_t wraps;

void tinygen_systick(void);

void tinygen_systick(void) { ++wraps; }

void tinygen_cycles_start(void) {
  SYST_RVR = SYST_MASK;
  SYST_CVR = 0;
  SYST_CSR = SYST_CSR_CORE_CLOCK_INTERRUPT_ENABLE;
}

static uint32_t counter(void) {
  uint32_t before, low;
  do {
    before = wraps;
    low = (0u - SYST_CVR) & SYST_MASK;
  } while (before != wraps);
  return before << SYST_BITS | low;
}

#else

void tinygen_cycles_start(void) {
  DEMCR |= DEMCR_TRCENA;
  DWT_LAR = DWT_LAR_UNLOCK; /* the Cortex-M7 has a lock, others ignore this */
  DWT_CYCCNT = 0;
  DWT_CTRL |= DWT_CTRL_CYCCNTENA;
}

static uint32_t counter(void) { return DWT_CYCCNT; }

#endif

uint64_t tinygen_cycles(void) { return tinygen_clock_advance(&time_now, counter()); }

uint32_t tinygen_micros(void) {
  tinygen_cycles();
  return tinygen_clock_micros(&time_now, CYCLES_PER_MICROSECOND);
}

void tinygen_only_interrupt(unsigned number) {
  unsigned i;
  for (i = 0; i < NVIC_WORDS; ++i) {
    NVIC_ICER(i) = 0xFFFFFFFFu;
    NVIC_ICPR(i) = 0xFFFFFFFFu;
  }
  NVIC_ISER(number / 32u) = 1u << (number % 32u);
  __asm volatile("dsb\n\tisb\n\tcpsie i" : : : "memory");
}

int tinygen_next_byte(tinygen_ring *ring, int (*receive)(void)) {
  int byte;
  tinygen_cycles();
  __asm volatile("cpsid i" : : : "memory");
  byte = tinygen_ring_take(ring);
  if (byte < 0) byte = receive();
  __asm volatile("cpsie i" : : : "memory");
  return byte;
}

void tinygen_stop(int status) {
  tinygen_port_ended = TINYGEN_ENDED | ((uint32_t)status & 0xFFu);
  for (;;) {
    __asm volatile("wfi");
  }
}
