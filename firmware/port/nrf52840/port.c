/* Nordic nRF52840: UART on pins, DWT.  Runs on the chip and in labwired.
 *
 * "PS" is the nRF52840 Product Specification.  The boards' bootloaders start an application with
 * their own clocks and interrupts about, so nothing is taken for granted.  The serial line is the
 * UART without DMA: bytes come one at a time, when the interrupt asks for them.  Its pins
 * are the board's, as port * 32 + pin; unless told otherwise they are D1 and D0 of the Nano 33 BLE.
 * (USB serial takes a USB stack, which the vendor's framework has.)
 */
#include "../arch/cortex_m/chip.h"
#include "../tinygen_port.h"

#ifndef TINYGEN_PIN_TX
#define TINYGEN_PIN_TX 35 /* P1.03 */
#define TINYGEN_PIN_RX 42 /* P1.10 */
#endif

/* PS, CLOCK */
#define CLOCK_TASKS_HFCLKSTART TINYGEN_REGISTER(0x40000000u)
#define CLOCK_EVENTS_HFCLKSTARTED TINYGEN_REGISTER(0x40000100u)

/* PS, NVMC: instruction cache */
#define NVMC_ICACHECNF TINYGEN_REGISTER(0x4001E540u)

/* PS, GPIO */
#define GPIO(port, offset) TINYGEN_REGISTER(0x50000000u + 0x300u * (port) + (offset))
#define GPIO_OUTSET(port) GPIO(port, 0x508u)
#define GPIO_PIN_CNF(pin) GPIO((pin) / 32u, 0x700u + 4u * ((pin) % 32u))
#define PIN_OUTPUT 3u /* output, input buffer disconnected */
#define PIN_INPUT_PULLUP 12u

/* PS, UART (the one that the UARTE replaces) */
#define UART_INTERRUPT 2u
#define UART_TASKS_STARTRX TINYGEN_REGISTER(0x40002000u)
#define UART_TASKS_STARTTX TINYGEN_REGISTER(0x40002008u)
#define UART_EVENTS_RXDRDY TINYGEN_REGISTER(0x40002108u)
#define UART_EVENTS_TXDRDY TINYGEN_REGISTER(0x4000211Cu)
#define UART_INTENSET TINYGEN_REGISTER(0x40002304u)
#define UART_INTENCLR TINYGEN_REGISTER(0x40002308u)
#define UART_INT_RXDRDY (1u << 2)
#define UART_ENABLE TINYGEN_REGISTER(0x40002500u)
#define UART_ENABLE_UART 4u
#define UART_PSELRTS TINYGEN_REGISTER(0x40002508u)
#define UART_PSELTXD TINYGEN_REGISTER(0x4000250Cu)
#define UART_PSELCTS TINYGEN_REGISTER(0x40002510u)
#define UART_PSELRXD TINYGEN_REGISTER(0x40002514u)
#define UART_RXD TINYGEN_REGISTER(0x40002518u)
#define UART_TXD TINYGEN_REGISTER(0x4000251Cu)
#define UART_BAUDRATE TINYGEN_REGISTER(0x40002524u)
#define UART_BAUDRATE_115200 0x01D7E000u
#define UART_CONFIG TINYGEN_REGISTER(0x4000256Cu)
#define DISCONNECTED 0xFFFFFFFFu

static tinygen_ring received;

void tinygen_interrupt(void);

static void start_clock(void) {
  CLOCK_EVENTS_HFCLKSTARTED = 0;
  CLOCK_TASKS_HFCLKSTART = 1; /* the crystal: the internal oscillator is too coarse for a UART */
  while (CLOCK_EVENTS_HFCLKSTARTED == 0) {
  }
  NVMC_ICACHECNF = 1;
}

static void start_uart(void) {
  UART_ENABLE = 0;
  UART_INTENCLR = 0xFFFFFFFFu;
  GPIO_OUTSET(TINYGEN_PIN_TX / 32u) = 1u << (TINYGEN_PIN_TX % 32u); /* an idle line is high */
  GPIO_PIN_CNF(TINYGEN_PIN_TX) = PIN_OUTPUT;
  GPIO_PIN_CNF(TINYGEN_PIN_RX) = PIN_INPUT_PULLUP;
  UART_PSELRTS = DISCONNECTED;
  UART_PSELCTS = DISCONNECTED;
  UART_PSELTXD = TINYGEN_PIN_TX;
  UART_PSELRXD = TINYGEN_PIN_RX;
  UART_BAUDRATE = UART_BAUDRATE_115200;
  UART_CONFIG = 0; /* no parity, one stop bit, no flow control */
  UART_ENABLE = UART_ENABLE_UART;
  UART_EVENTS_RXDRDY = 0;
  UART_EVENTS_TXDRDY = 0;
  UART_TASKS_STARTTX = 1;
  UART_TASKS_STARTRX = 1;
  UART_INTENSET = UART_INT_RXDRDY;
}

/* The event has to go before the byte is read: reading makes room for the next one, and its event. */
static int receive(void) {
  if (UART_EVENTS_RXDRDY == 0) return -1;
  UART_EVENTS_RXDRDY = 0;
  return (int)(UART_RXD & 0xFFu);
}

void tinygen_interrupt(void) {
  int byte;
  while ((byte = receive()) >= 0) tinygen_ring_put(&received, (uint8_t)byte);
}

void tinygen_port_init(void) {
  start_clock();
  tinygen_cycles_start();
  start_uart();
  tinygen_only_interrupt(UART_INTERRUPT);
}

int tinygen_port_read(void) { return tinygen_next_byte(&received, receive); }

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    UART_TXD = *data++;
    while (UART_EVENTS_TXDRDY == 0) {
    }
    UART_EVENTS_TXDRDY = 0;
  }
}

uint32_t tinygen_port_micros(void) { return tinygen_micros(); }

uint64_t tinygen_port_count(void) { return tinygen_cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) { tinygen_stop(status); }
