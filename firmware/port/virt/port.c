/* QEMU's `riscv32 -machine virt`.
 *
 * Serial: the 16550 UART.  Clock: the CLINT's 10 MHz timer.  Counter: minstret, which under QEMU's
 * `-icount` counts instructions one by one and otherwise follows the host's clock.
 */
#include "../arch/riscv/counters.h"
#include "../arch/riscv/guard.h"
#include "../common/icount.h"
#include "../tinygen_port.h"

#define REGISTER8(address) (*(volatile uint8_t *)(uintptr_t)(address))
#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_DATA REGISTER8(0x10000000u)
#define UART_LINE_STATUS REGISTER8(0x10000005u)
#define UART_STATUS_RECEIVED 0x01u
#define UART_STATUS_TX_EMPTY 0x20u

#define CLINT_TIME_LOW REGISTER(0x0200BFF8u)
#define CLINT_TIME_HIGH REGISTER(0x0200BFFCu)

#define TEST_DEVICE REGISTER(0x00100000u)
#define TEST_PASS 0x5555u
#define TEST_FAIL 0x3333u

/* The UART works from reset.  Switching its FIFO on would drop a byte that has already arrived, and
 * without it QEMU waits with the next byte until the last has been read. */
void tinygen_port_init(void) { tinygen_riscv_guard_stack(); }

int tinygen_port_read(void) {
  return (UART_LINE_STATUS & UART_STATUS_RECEIVED) != 0 ? UART_DATA : -1;
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((UART_LINE_STATUS & UART_STATUS_TX_EMPTY) == 0) {
    }
    UART_DATA = *data++;
  }
}

uint32_t tinygen_port_micros(void) {
  uint32_t high, low;
  do {
    high = CLINT_TIME_HIGH;
    low = CLINT_TIME_LOW;
  } while (high != CLINT_TIME_HIGH);
  return (uint32_t)(((uint64_t)high << 32 | low) / 10u);
}

uint64_t tinygen_port_count(void) { return tinygen_riscv_instructions(); }

const char *tinygen_port_count_unit(void) { return tinygen_icount_unit(); }

void tinygen_port_exit(int status) {
  TEST_DEVICE = status == 0 ? TEST_PASS : ((uint32_t)status & 0xFFFFu) << 16 | TEST_FAIL;
  for (;;) {
  }
}
