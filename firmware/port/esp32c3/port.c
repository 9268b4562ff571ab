/* Espressif ESP32-C3: UART0 on GPIO21 and GPIO20, the core's own cycle counter.
 *
 * Runs in labwired and, from silicon revision 0.3 on, by direct boot on the chip: the image goes to
 * the start of flash, and neither a second-stage bootloader nor a partition table is involved.  See
 * riscv.ld.  "TRM" is the ESP32-C3 Technical Reference Manual.
 *
 * The clock of the core is left to what the ROM chose, but for the crystal's 40 MHz instead of half of
 * them: setting the PLL up takes registers that are not documented.  The serial line runs from the
 * crystal in any case.  The receiver's own 128 bytes are 11 ms of line, so it is polled.
 */
#include "../common/chip.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* TRM, System Registers: what the core runs from; the divisor, less one, is the crystal's */
#define SYSTEM_CPU_PER_CONF REGISTER(0x600C0008u)
#define SYSTEM_CPUPERIOD_SEL 3u /* 0 there is 80 MHz, 1 is 160 MHz */
#define SYSTEM_SYSCLK_CONF REGISTER(0x600C0058u)
#define SYSTEM_SOC_CLK_SEL (3u << 10) /* 0 there is the crystal */
#define SYSTEM_SOC_CLK_SEL_PLL (1u << 10)
#define SYSTEM_PRE_DIV_CNT 0x3FFu

/* TRM, Timer Group and Low-power Management: the ROM leaves watchdogs running */
#define TIMG_WDTCONFIG0 REGISTER(0x6001F048u)
#define TIMG_WDTWPROTECT REGISTER(0x6001F064u)
#define RTC_CNTL_WDTCONFIG0 REGISTER(0x60008090u)
#define RTC_CNTL_WDTWPROTECT REGISTER(0x600080A8u)
#define WDT_WKEY 0x50D83AA1u
#define RTC_CNTL_SWD_CONF REGISTER(0x600080ACu)
#define RTC_CNTL_SWD_AUTO_FEED_EN (1u << 31)
#define RTC_CNTL_SWD_WPROTECT REGISTER(0x600080B0u)
#define SWD_WKEY 0x8F1D312Au

/* TRM, UART Controller: 40 MHz / 115,200 is 347 + 3/16 */
#define UART_FIFO REGISTER(0x60000000u)
#define UART_CLKDIV REGISTER(0x60000014u)
#define UART_CLKDIV_115200 (347u | (3u << 20))
#define UART_STATUS REGISTER(0x6000001Cu)
#define UART_RXFIFO_CNT(status) ((status) & 0x3FFu)
#define UART_TXFIFO_CNT(status) ((status) >> 16 & 0x3FFu)
#define UART_FIFO_BYTES 128u
#define UART_CLK_CONF REGISTER(0x60000078u)
#define UART_CLK_CONF_XTAL ((3u << 24) | (1u << 22) | (3u << 20)) /* TX, RX, both on; undivided */
#define UART_ID REGISTER(0x60000080u)
#define UART_HIGH_SPEED (1u << 30)
#define UART_REG_UPDATE (1u << 31)

#define ZICSR(text) ".option push\n\t.option arch, +zicsr\n\t" text "\n\t.option pop"

/* A zero word in flash (see riscv.ld) that the emulator's side sets before the program starts, for two
 * things that labwired does in its own way: its mpccr is 256 times the instructions executed, while it
 * has mcycle, which the chip has not; and it keeps to the serial line's rate, for nobody's good. */
extern const volatile uint32_t tinygen_port_emulated;

volatile uint32_t tinygen_port_ended;

static tinygen_clock time_now;
static uint32_t cycles_per_microsecond;

static void stop_watchdogs(void) {
  TIMG_WDTWPROTECT = WDT_WKEY;
  TIMG_WDTCONFIG0 = 0;
  TIMG_WDTWPROTECT = 0;
  RTC_CNTL_WDTWPROTECT = WDT_WKEY;
  RTC_CNTL_WDTCONFIG0 = 0;
  RTC_CNTL_WDTWPROTECT = 0;
  RTC_CNTL_SWD_WPROTECT = SWD_WKEY;
  RTC_CNTL_SWD_CONF |= RTC_CNTL_SWD_AUTO_FEED_EN; /* this one cannot be stopped */
  RTC_CNTL_SWD_WPROTECT = 0;
}

static void start_uart(void) {
  UART_ID &= ~UART_HIGH_SPEED; /* settings are taken over when asked for */
  UART_CLK_CONF = UART_CLK_CONF_XTAL;
  UART_CLKDIV = tinygen_port_emulated != 0 ? 1u : UART_CLKDIV_115200;
  UART_ID |= UART_REG_UPDATE;
}

/* TRM, ESP-RISC-V CPU: mpcer chooses what is counted, mpcmr starts, mpccr is the count. */
static void start_clock(void) {
  if ((SYSTEM_SYSCLK_CONF & SYSTEM_SOC_CLK_SEL) == SYSTEM_SOC_CLK_SEL_PLL) {
    cycles_per_microsecond = (SYSTEM_CPU_PER_CONF & SYSTEM_CPUPERIOD_SEL) == 0 ? 80 : 160;
  } else {
    SYSTEM_SYSCLK_CONF &= ~(SYSTEM_SOC_CLK_SEL | SYSTEM_PRE_DIV_CNT);
    cycles_per_microsecond = 40;
  }
  __asm volatile(ZICSR("csrwi 0x7e0, 1\n\tcsrwi 0x7e2, 0\n\tcsrwi 0x7e1, 1"));
}

static uint64_t cycles(void) {
  uint32_t counter;
  if (tinygen_port_emulated != 0) {
    __asm volatile(ZICSR("csrr %0, mcycle") : "=r"(counter) : : "memory");
  } else {
    __asm volatile(ZICSR("csrr %0, 0x7e2") : "=r"(counter) : : "memory");
  }
  return tinygen_clock_advance(&time_now, counter);
}

void tinygen_port_init(void) {
  stop_watchdogs();
  start_clock();
  start_uart();
}

int tinygen_port_read(void) {
  cycles();
  return UART_RXFIFO_CNT(UART_STATUS) > 0 ? (int)(UART_FIFO & 0xFFu) : -1;
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
  return tinygen_clock_micros(&time_now, cycles_per_microsecond);
}

uint64_t tinygen_port_count(void) { return cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) {
  tinygen_port_ended = TINYGEN_ENDED | ((uint32_t)status & 0xFFu);
  for (;;) {
  }
}
