/* QEMU's Xtensa LX60 board with an LX106 in it, the core of the ESP8266 that Debian has a compiler for.
 *
 * Serial: the 16550 UART.  (The simpler `sim` machine loses input: its console is not guarded against
 * QEMU's own threads.)  Exit: the simulator's SIMCALL.  Clock and counter: CCOUNT, which this core of
 * QEMU's drives at 40 MHz.  Under `-icount shift=0` every instruction takes 1 ns, hence 25
 * instructions a tick: that is the counter's resolution, and its value is exact to within one tick.
 * Two readings must not lie further apart than CCOUNT takes to wrap, 107 seconds.
 */
#include "../common/icount.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_DATA REGISTER(0x9D050020u)
#define UART_LINE_STATUS REGISTER(0x9D050034u)
#define UART_STATUS_RECEIVED 0x01u
#define UART_STATUS_TX_EMPTY 0x20u

#define SIMCALL_EXIT 1

#define TICKS_PER_MICROSECOND 40u
#define INSTRUCTIONS_PER_TICK 25u

/* The UART works from reset.  Switching its FIFO on would drop a byte that has already arrived, and
 * without it QEMU waits with the next byte until the last has been read. */
void tinygen_port_init(void) {}

int tinygen_port_read(void) {
  return (UART_LINE_STATUS & UART_STATUS_RECEIVED) != 0 ? (int)(UART_DATA & 0xFFu) : -1;
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((UART_LINE_STATUS & UART_STATUS_TX_EMPTY) == 0) {
    }
    UART_DATA = *data++;
  }
}

static uint32_t ticks_now(void) {
  uint32_t ticks;
  __asm volatile("rsr.ccount %0" : "=r"(ticks) : : "memory");
  return ticks;
}

/* Whole microseconds are taken off the ticks as they pass, so no division is wider than 32 bits. */
uint32_t tinygen_port_micros(void) {
  static uint32_t seen, micros;
  const uint32_t whole = (ticks_now() - seen) / TICKS_PER_MICROSECOND;
  seen += whole * TICKS_PER_MICROSECOND;
  micros += whole;
  return micros;
}

uint64_t tinygen_port_count(void) {
  static uint32_t seen;
  static uint64_t ticks;
  const uint32_t now = ticks_now();
  ticks += now - seen;
  seen = now;
  return ticks * INSTRUCTIONS_PER_TICK;
}

const char *tinygen_port_count_unit(void) { return tinygen_icount_unit(); }

void tinygen_port_exit(int status) {
  for (;;) {
    register int request __asm("a2") = SIMCALL_EXIT;
    register int argument __asm("a3") = status;
    __asm volatile("simcall" : "+r"(request), "+r"(argument) : : "memory");
  }
}
