/* ST STM32L4R5 (NUCLEO-L4R5ZI): LPUART1 on the ST-LINK's virtual port, DWT.  Runs on the chip
 * and in labwired.
 *
 * "RM" is ST's reference manual RM0432.  The system clock is 120 MHz from the internal 16 MHz
 * oscillator; the serial line runs from that oscillator directly.
 */
#include "../arch/cortex_m/chip.h"
#include "../tinygen_port.h"

#if TINYGEN_CLOCK_HZ != 120000000
#error "this port sets the system clock to 120 MHz: the board's clock_hz must say so"
#endif

/* RM, reset and clock control */
#define RCC_CR TINYGEN_REGISTER(0x40021000u)
#define RCC_CR_HSION (1u << 8)
#define RCC_CR_HSIRDY (1u << 10)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR TINYGEN_REGISTER(0x40021008u)
#define RCC_CFGR_SW 3u
#define RCC_CFGR_SW_HSI 1u
#define RCC_CFGR_SW_PLL 3u
#define RCC_CFGR_SWS(source) ((source) << 2)
#define RCC_CFGR_HPRE (15u << 4)
#define RCC_CFGR_HPRE_2 (8u << 4)
#define RCC_PLLCFGR TINYGEN_REGISTER(0x4002100Cu)
/* from HSI16, / 2 (M), * 30 (N), / 2 (R), R on */
#define RCC_PLLCFGR_120MHZ (2u | (1u << 4) | (30u << 8) | (1u << 24))
#define RCC_AHB2ENR TINYGEN_REGISTER(0x4002104Cu)
#define RCC_AHB2ENR_GPIOG (1u << 6)
#define RCC_APB1ENR1 TINYGEN_REGISTER(0x40021058u)
#define RCC_APB1ENR1_PWR (1u << 28)
#define RCC_APB1ENR2 TINYGEN_REGISTER(0x4002105Cu)
#define RCC_APB1ENR2_LPUART1 (1u << 0)
#define RCC_CCIPR TINYGEN_REGISTER(0x40021088u)
#define RCC_CCIPR_LPUART1SEL (3u << 10)
#define RCC_CCIPR_LPUART1SEL_HSI (2u << 10)

/* RM, power control */
#define PWR_CR2 TINYGEN_REGISTER(0x40007004u)
#define PWR_CR2_IOSV (1u << 9) /* pins PG2 to PG15 have a supply of their own */
#define PWR_CR5 TINYGEN_REGISTER(0x40007080u)
#define PWR_CR5_R1MODE (1u << 8) /* cleared: boost mode, which 120 MHz needs */

/* RM, flash access: 5 wait states at 120 MHz in boost mode, prefetch, both caches */
#define FLASH_ACR TINYGEN_REGISTER(0x40022000u)
#define FLASH_ACR_FAST (5u | (1u << 8) | (1u << 9) | (1u << 10))
#define FLASH_ACR_LATENCY 15u

/* RM, port G: PG7 and PG8 with alternate function 8 are LPUART1's TX and RX */
#define GPIOG_MODER TINYGEN_REGISTER(0x48001800u)
#define GPIOG_PUPDR TINYGEN_REGISTER(0x4800180Cu)
#define GPIOG_AFRL TINYGEN_REGISTER(0x48001820u)
#define GPIOG_AFRH TINYGEN_REGISTER(0x48001824u)

/* RM, LPUART: 256 * 16 MHz / 115,200 */
#define LPUART_INTERRUPT 70u
#define LPUART_CR1 TINYGEN_REGISTER(0x40008000u)
#define LPUART_CR1_ENABLE ((1u << 29) | (1u << 5) | (1u << 3) | (1u << 2) | 1u) /* FIFO, RXNEIE, TE, RE, UE */
#define LPUART_CR3 TINYGEN_REGISTER(0x40008008u)
#define LPUART_CR3_OVRDIS (1u << 12)
#define LPUART_BRR TINYGEN_REGISTER(0x4000800Cu)
#define LPUART_BRR_115200 35556u
#define LPUART_ISR TINYGEN_REGISTER(0x4000801Cu)
#define LPUART_ISR_RXNE (1u << 5)
#define LPUART_ISR_TXE (1u << 7)
#define LPUART_RDR TINYGEN_REGISTER(0x40008024u)
#define LPUART_TDR TINYGEN_REGISTER(0x40008028u)

static tinygen_ring received;

void tinygen_interrupt(void);

static void change(volatile uint32_t *reg, uint32_t mask, uint32_t value) {
  *reg = (*reg & ~mask) | value;
}

static void run_from(uint32_t source) {
  change(&RCC_CFGR, RCC_CFGR_SW, source);
  while ((RCC_CFGR & RCC_CFGR_SWS(RCC_CFGR_SW)) != RCC_CFGR_SWS(source)) {
  }
}

/* RM, system clock selection: above 80 MHz the bus clock is halved for a microsecond around the switch. */
static void start_clocks(void) {
  volatile unsigned wait;
  RCC_CR |= RCC_CR_HSION;
  while ((RCC_CR & RCC_CR_HSIRDY) == 0) {
  }
  run_from(RCC_CFGR_SW_HSI);
  RCC_CR &= ~RCC_CR_PLLON;
  while ((RCC_CR & RCC_CR_PLLRDY) != 0) {
  }
  RCC_APB1ENR1 |= RCC_APB1ENR1_PWR;
  PWR_CR5 &= ~PWR_CR5_R1MODE;
  FLASH_ACR = FLASH_ACR_FAST;
  while ((FLASH_ACR & FLASH_ACR_LATENCY) != (FLASH_ACR_FAST & FLASH_ACR_LATENCY)) {
  }
  RCC_PLLCFGR = RCC_PLLCFGR_120MHZ;
  RCC_CR |= RCC_CR_PLLON;
  while ((RCC_CR & RCC_CR_PLLRDY) == 0) {
  }
  change(&RCC_CFGR, RCC_CFGR_HPRE, RCC_CFGR_HPRE_2);
  run_from(RCC_CFGR_SW_PLL);
  for (wait = 0; wait < 60; ++wait) { /* at the least a cycle each, of 60 a microsecond */
  }
  change(&RCC_CFGR, RCC_CFGR_HPRE, 0);
}

static void start_uart(void) {
  PWR_CR2 |= PWR_CR2_IOSV;
  RCC_AHB2ENR |= RCC_AHB2ENR_GPIOG;
  change(&RCC_CCIPR, RCC_CCIPR_LPUART1SEL, RCC_CCIPR_LPUART1SEL_HSI);
  RCC_APB1ENR2 |= RCC_APB1ENR2_LPUART1;
  change(&GPIOG_PUPDR, 3u << 16, 1u << 16); /* an open input reads as an idle line */
  change(&GPIOG_AFRL, 15u << 28, 8u << 28);
  change(&GPIOG_AFRH, 15u, 8u);
  change(&GPIOG_MODER, 15u << 14, 10u << 14);
  LPUART_CR1 = 0;
  LPUART_CR3 = LPUART_CR3_OVRDIS;
  LPUART_BRR = LPUART_BRR_115200;
  LPUART_CR1 = LPUART_CR1_ENABLE;
}

static int receive(void) {
  return (LPUART_ISR & LPUART_ISR_RXNE) != 0 ? (int)(LPUART_RDR & 0xFFu) : -1;
}

void tinygen_interrupt(void) {
  int byte;
  while ((byte = receive()) >= 0) tinygen_ring_put(&received, (uint8_t)byte);
}

void tinygen_port_init(void) {
  start_clocks();
  tinygen_cycles_start();
  start_uart();
  tinygen_only_interrupt(LPUART_INTERRUPT);
}

int tinygen_port_read(void) { return tinygen_next_byte(&received, receive); }

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((LPUART_ISR & LPUART_ISR_TXE) == 0) {
    }
    LPUART_TDR = *data++;
  }
}

uint32_t tinygen_port_micros(void) { return tinygen_micros(); }

uint64_t tinygen_port_count(void) { return tinygen_cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) { tinygen_stop(status); }
