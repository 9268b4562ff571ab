/* QEMU's microbit: an nRF51 with a Cortex-M0.
 *
 * Serial: the UART.  Clock and counter: TIMER0, 32 bits at 16 MHz.  Under QEMU's `-icount shift=0`
 * every instruction takes 1 ns, hence 62.5 instructions a tick: that is the counter's resolution, and
 * its value is exact to within one tick.  Two readings must not lie further apart than the timer
 * takes to wrap, 268 seconds.
 */
#include "../arch/cortex_m/semihosting.h"
#include "../common/icount.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_START_RX REGISTER(0x40002000u)
#define UART_START_TX REGISTER(0x40002008u)
#define UART_RX_READY REGISTER(0x40002108u)
#define UART_TX_READY REGISTER(0x4000211Cu)
#define UART_ENABLE REGISTER(0x40002500u)
#define UART_PSEL_TXD REGISTER(0x4000250Cu)
#define UART_PSEL_RXD REGISTER(0x40002514u)
#define UART_RXD REGISTER(0x40002518u)
#define UART_TXD REGISTER(0x4000251Cu)
#define UART_BAUDRATE REGISTER(0x40002524u)

#define TIMER_START REGISTER(0x40008000u)
#define TIMER_CAPTURE_0 REGISTER(0x40008040u)
#define TIMER_BITMODE REGISTER(0x40008508u)
#define TIMER_PRESCALER REGISTER(0x40008510u)
#define TIMER_CC_0 REGISTER(0x40008540u)
#define TIMER_CC_1 REGISTER(0x40008544u)

void tinygen_port_init(void) {
  UART_PSEL_TXD = 24;
  UART_PSEL_RXD = 25;
  UART_BAUDRATE = 0x01D7E000u; /* 115,200 */
  UART_ENABLE = 4;
  UART_START_RX = 1;
  UART_START_TX = 1;
  /* QEMU does not notice that the receiver is on, and offers nothing, until something else wakes it:
   * the timer, once, at 1 ms. */
  TIMER_CC_1 = 16000;
  TIMER_BITMODE = 3; /* 32 bits */
  TIMER_PRESCALER = 0;
  TIMER_START = 1;
}

int tinygen_port_read(void) {
  if (UART_RX_READY == 0) return -1;
  UART_RX_READY = 0;
  return (int)(UART_RXD & 0xFFu);
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    UART_TX_READY = 0;
    UART_TXD = *data++;
    while (UART_TX_READY == 0) {
    }
  }
}

static uint32_t ticks_now(void) {
  TIMER_CAPTURE_0 = 1;
  return TIMER_CC_0;
}

/* Whole microseconds are taken off the ticks as they pass. */
uint32_t tinygen_port_micros(void) {
  static uint32_t seen, micros;
  const uint32_t whole = (ticks_now() - seen) / 16u;
  seen += whole * 16u;
  micros += whole;
  return micros;
}

uint64_t tinygen_port_count(void) {
  static uint32_t seen;
  static uint64_t ticks;
  const uint32_t now = ticks_now();
  ticks += now - seen;
  seen = now;
  return ticks * 125u >> 1;
}

const char *tinygen_port_count_unit(void) { return tinygen_icount_unit(); }

void tinygen_port_exit(int status) { tinygen_semihosting_exit(status); }
