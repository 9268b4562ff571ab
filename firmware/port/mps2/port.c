/* QEMU's MPS2 boards with the AN385 (Cortex-M3), AN386 (M4) and AN500 (M7) images.
 *
 * Serial: CMSDK UART 0.  Clock and counter: CMSDK timer 0, 32 bits at 25 MHz.  Under QEMU's
 * `-icount shift=0` every instruction takes 1 ns, hence 40 instructions a tick: that is the counter's
 * resolution, and its value is exact to within one tick.  Two readings must not lie further apart
 * than the timer takes to wrap, 171 seconds.
 */
#include "../arch/cortex_m/semihosting.h"
#include "../common/icount.h"
#include "../common/start.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u)
#define UART_CTRL REGISTER(0x40004008u)
#define UART_BAUDDIV REGISTER(0x40004010u)
#define UART_STATE_TX_FULL 1u
#define UART_STATE_RX_FULL 2u
#define UART_CTRL_TX_ENABLE 1u
#define UART_CTRL_RX_ENABLE 2u

#define TIMER_CTRL REGISTER(0x40000000u)
#define TIMER_VALUE REGISTER(0x40000004u)
#define TIMER_RELOAD REGISTER(0x40000008u)
#define TIMER_CTRL_ENABLE 1u

#define MPU_CTRL REGISTER(0xE000ED94u)
#define MPU_RBAR REGISTER(0xE000ED9Cu)
#define MPU_RASR REGISTER(0xE000EDA0u)
#define MPU_CTRL_ENABLE 1u
#define MPU_CTRL_DEFAULT_MAP 4u
#define MPU_RBAR_VALID 0x10u
#define MPU_RASR_4K_NO_ACCESS (11u << 1 | 1u)
#define GUARD_BYTES 4096u

#define CLOCK_HZ 25000000u
#define TICKS_PER_MICROSECOND (CLOCK_HZ / 1000000u)
#define INSTRUCTIONS_PER_TICK (1000000000u / CLOCK_HZ)

/* Below RAM, writes are ignored and reads give 0; a stack that grows down there has to fault. */
static void guard_stack(void) {
  MPU_RBAR = ((uint32_t)(uintptr_t)tinygen_stack_bottom - GUARD_BYTES) | MPU_RBAR_VALID;
  MPU_RASR = MPU_RASR_4K_NO_ACCESS;
  MPU_CTRL = MPU_CTRL_DEFAULT_MAP | MPU_CTRL_ENABLE;
}

void tinygen_port_init(void) {
  guard_stack();
  UART_BAUDDIV = CLOCK_HZ / 115200u;
  UART_CTRL = UART_CTRL_TX_ENABLE;
  TIMER_RELOAD = 0xFFFFFFFFu;
  TIMER_VALUE = 0xFFFFFFFFu;
  TIMER_CTRL = TIMER_CTRL_ENABLE;
}

/* The receiver starts with the first call.  What was sent before is offered by QEMU only after a read
 * of DATA; that gives 0, or the first byte should it arrive just then. */
static int start_receiver(void) {
  uint32_t first;
  UART_CTRL = UART_CTRL_TX_ENABLE | UART_CTRL_RX_ENABLE;
  first = UART_DATA;
  return first != 0 ? (int)first : -1;
}

int tinygen_port_read(void) {
  if ((UART_STATE & UART_STATE_RX_FULL) != 0) return (int)UART_DATA;
  return (UART_CTRL & UART_CTRL_RX_ENABLE) != 0 ? -1 : start_receiver();
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((UART_STATE & UART_STATE_TX_FULL) != 0) {
    }
    UART_DATA = *data++;
  }
}

/* Whole microseconds are taken off the ticks as they pass, so no division is wider than 32 bits. */
uint32_t tinygen_port_micros(void) {
  static uint32_t seen, micros;
  const uint32_t passed = ~TIMER_VALUE - seen;
  const uint32_t whole = passed / TICKS_PER_MICROSECOND;
  seen += whole * TICKS_PER_MICROSECOND;
  micros += whole;
  return micros;
}

uint64_t tinygen_port_count(void) {
  static uint32_t seen;
  static uint64_t ticks;
  const uint32_t now = ~TIMER_VALUE;
  ticks += now - seen;
  seen = now;
  return ticks * INSTRUCTIONS_PER_TICK;
}

const char *tinygen_port_count_unit(void) { return tinygen_icount_unit(); }

void tinygen_port_exit(int status) { tinygen_semihosting_exit(status); }
