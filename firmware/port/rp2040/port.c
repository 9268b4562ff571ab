/* Raspberry Pi RP2040: UART0 on GP0 and GP1, SysTick as cycle counter.  Runs on the chip and in labwired.
 *
 * "DS" is the RP2040 Datasheet.  The crystal (12 MHz) drives everything: the system clock through the
 * PLL at 133 MHz, the UART directly.  One core runs.
 */
#include "../arch/cortex_m/chip.h"
#include "../tinygen_port.h"

#if TINYGEN_CLOCK_HZ != 133000000
#error "this port sets the system clock to 133 MHz: the board's clock_hz must say so"
#endif

/* DS 2.1.2: writing a register's alias sets or clears bits. */
#define SET(address) TINYGEN_REGISTER((address) + 0x2000u)
#define CLEAR(address) TINYGEN_REGISTER((address) + 0x3000u)

/* DS 2.14, reset controller */
#define RESETS_RESET 0x4000C000u
#define RESETS_RESET_DONE TINYGEN_REGISTER(0x4000C008u)
#define RESETS_IO_BANK0 (1u << 5)
#define RESETS_PADS_BANK0 (1u << 8)
#define RESETS_PLL_SYS (1u << 12)
#define RESETS_UART0 (1u << 22)

/* DS 2.16, crystal oscillator */
#define XOSC_CTRL TINYGEN_REGISTER(0x40024000u)
#define XOSC_CTRL_ENABLE_1_15MHZ ((0xFABu << 12) | 0xAA0u)
#define XOSC_STATUS TINYGEN_REGISTER(0x40024004u)
#define XOSC_STATUS_STABLE (1u << 31)
#define XOSC_STARTUP TINYGEN_REGISTER(0x4002400Cu)
#define XOSC_STARTUP_1MS 47u /* in units of 256 periods */

/* DS 2.18, system PLL: 12 MHz * 133 / 6 / 2 */
#define PLL_CS TINYGEN_REGISTER(0x40028000u)
#define PLL_CS_LOCK (1u << 31)
#define PLL_PWR 0x40028004u
#define PLL_PWR_PD_VCOPD ((1u << 0) | (1u << 5))
#define PLL_PWR_POSTDIVPD (1u << 3)
#define PLL_FBDIV_INT TINYGEN_REGISTER(0x40028008u)
#define PLL_PRIM TINYGEN_REGISTER(0x4002800Cu)
#define PLL_PRIM_6_2 ((6u << 16) | (2u << 12))

/* DS 2.15, clocks */
#define CLK_REF_CTRL TINYGEN_REGISTER(0x40008030u)
#define CLK_REF_SELECTED TINYGEN_REGISTER(0x40008038u)
#define CLK_REF_XOSC 2u
#define CLK_SYS_CTRL 0x4000803Cu
#define CLK_SYS_SELECTED TINYGEN_REGISTER(0x40008044u)
#define CLK_SYS_SRC_AUX 1u
#define CLK_SYS_AUXSRC (7u << 5) /* 0 there is the system PLL */
#define CLK_PERI_CTRL TINYGEN_REGISTER(0x40008048u)
#define CLK_PERI_ENABLE_XOSC ((1u << 11) | (4u << 5))

/* DS 2.19.6, pins: function 2 of GP0 and GP1 is UART0 */
#define GPIO0_CTRL TINYGEN_REGISTER(0x40014004u)
#define GPIO1_CTRL TINYGEN_REGISTER(0x4001400Cu)
#define GPIO_UART 2u
#define PADS_GPIO1 TINYGEN_REGISTER(0x4001C008u)
#define PADS_INPUT_PULLUP 0x5Au /* an open input reads as an idle line */

/* DS 4.2.8, UART0 (a PL011) at 12 MHz: divisor 6 + 33/64 */
#define UART_INTERRUPT 20u
#define UART_DR TINYGEN_REGISTER(0x40034000u)
#define UART_FR TINYGEN_REGISTER(0x40034018u)
#define UART_FR_RXFE (1u << 4)
#define UART_FR_TXFF (1u << 5)
#define UART_IBRD TINYGEN_REGISTER(0x40034024u)
#define UART_FBRD TINYGEN_REGISTER(0x40034028u)
#define UART_LCR_H TINYGEN_REGISTER(0x4003402Cu)
#define UART_LCR_H_8N1_FIFO ((3u << 5) | (1u << 4))
#define UART_CR TINYGEN_REGISTER(0x40034030u)
#define UART_CR_ENABLE_TX_RX ((1u << 0) | (1u << 8) | (1u << 9))
#define UART_IMSC TINYGEN_REGISTER(0x40034038u)
#define UART_INT_RX_AND_TIMEOUT ((1u << 4) | (1u << 6))

static tinygen_ring received;

void tinygen_interrupt(void);

static void unreset(uint32_t blocks) {
  CLEAR(RESETS_RESET) = blocks;
  while ((RESETS_RESET_DONE & blocks) != blocks) {
  }
}

static void start_clocks(void) {
  XOSC_STARTUP = XOSC_STARTUP_1MS;
  XOSC_CTRL = XOSC_CTRL_ENABLE_1_15MHZ;
  while ((XOSC_STATUS & XOSC_STATUS_STABLE) == 0) {
  }
  CLEAR(CLK_SYS_CTRL) = CLK_SYS_SRC_AUX; /* off the PLL before it changes */
  while (CLK_SYS_SELECTED != 1u) {
  }
  CLK_REF_CTRL = CLK_REF_XOSC;
  while (CLK_REF_SELECTED != 1u << CLK_REF_XOSC) {
  }

  SET(RESETS_RESET) = RESETS_PLL_SYS;
  unreset(RESETS_PLL_SYS);
  PLL_CS = 1; /* reference divisor */
  PLL_FBDIV_INT = 133;
  CLEAR(PLL_PWR) = PLL_PWR_PD_VCOPD;
  while ((PLL_CS & PLL_CS_LOCK) == 0) {
  }
  PLL_PRIM = PLL_PRIM_6_2;
  CLEAR(PLL_PWR) = PLL_PWR_POSTDIVPD;

  CLEAR(CLK_SYS_CTRL) = CLK_SYS_AUXSRC;
  SET(CLK_SYS_CTRL) = CLK_SYS_SRC_AUX;
  while (CLK_SYS_SELECTED != 1u << CLK_SYS_SRC_AUX) {
  }
  CLK_PERI_CTRL = CLK_PERI_ENABLE_XOSC;
}

static void start_uart(void) {
  SET(RESETS_RESET) = RESETS_UART0;
  unreset(RESETS_UART0 | RESETS_IO_BANK0 | RESETS_PADS_BANK0);
  UART_IBRD = 6;
  UART_FBRD = 33;
  UART_LCR_H = UART_LCR_H_8N1_FIFO; /* after the divisors, which it makes valid */
  UART_IMSC = UART_INT_RX_AND_TIMEOUT;
  UART_CR = UART_CR_ENABLE_TX_RX;
  PADS_GPIO1 = PADS_INPUT_PULLUP;
  GPIO0_CTRL = GPIO_UART;
  GPIO1_CTRL = GPIO_UART;
}

static int receive(void) {
  return (UART_FR & UART_FR_RXFE) == 0 ? (int)(UART_DR & 0xFFu) : -1;
}

void tinygen_interrupt(void) {
  int byte;
  while ((byte = receive()) >= 0) tinygen_ring_put(&received, (uint8_t)byte);
}

void tinygen_port_init(void) {
  start_clocks();
  tinygen_cycles_start();
  start_uart();
  tinygen_only_interrupt(UART_INTERRUPT);
}

int tinygen_port_read(void) { return tinygen_next_byte(&received, receive); }

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((UART_FR & UART_FR_TXFF) != 0) {
    }
    UART_DR = *data++;
  }
}

uint32_t tinygen_port_micros(void) { return tinygen_micros(); }

uint64_t tinygen_port_count(void) { return tinygen_cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) { tinygen_stop(status); }
