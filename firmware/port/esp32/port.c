/* Espressif ESP32 in labwired: UART0 for output, the mailbox for input, CCOUNT.
 *
 * For emulation alone.  The compiler is the LX106's, whose code the ESP32's cores run, too, but the
 * image has neither the headers that the chip's ROM looks for nor a flash cache set up, and its one
 * flash region serves code and constants alike, which the chip's code addresses do not.  labwired's
 * UART does not receive, so bytes come through `tinygen_port_mailbox`; see ../common/chip.h.
 * "TRM" is the ESP32 Technical Reference Manual.
 */
#include "../common/chip.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* TRM, UART Controllers.  The emulator keeps to the line's rate: the highest saves time. */
#define UART_FIFO REGISTER(0x3FF40000u)
#define UART_CLKDIV REGISTER(0x3FF40014u)
#define UART_STATUS REGISTER(0x3FF4001Cu)
#define UART_TXFIFO_CNT(status) ((status) >> 16 & 0xFFu)
#define UART_FIFO_BYTES 128u

#define CYCLES_PER_MICROSECOND (TINYGEN_CLOCK_HZ / 1000000u)

volatile uint32_t tinygen_port_ended;
tinygen_mailbox tinygen_port_mailbox;

static tinygen_clock time_now;

static uint64_t cycles(void) {
  uint32_t counter;
  __asm volatile("rsr.ccount %0" : "=r"(counter) : : "memory");
  return tinygen_clock_advance(&time_now, counter);
}

void tinygen_port_init(void) {
  UART_CLKDIV = 1;
  tinygen_port_mailbox.room = TINYGEN_RING_BYTES;
}

int tinygen_port_read(void) {
  cycles();
  return tinygen_ring_take(&tinygen_port_mailbox.ring);
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while (UART_TXFIFO_CNT(UART_STATUS) >= UART_FIFO_BYTES - 1u) {
    }
    UART_FIFO = *data++;
  }
}

uint32_t tinygen_port_micros(void) {
  cycles();
  return tinygen_clock_micros(&time_now, CYCLES_PER_MICROSECOND);
}

uint64_t tinygen_port_count(void) { return cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) {
  tinygen_port_ended = TINYGEN_ENDED | ((uint32_t)status & 0xFFu);
  for (;;) {
  }
}
