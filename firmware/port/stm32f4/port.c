/* ST STM32F446 (NUCLEO-F446RE): USART2 on the ST-LINK's virtual port, DWT.  Runs on the chip and in
 * labwired.
 *
 * "RM" is ST's reference manual RM0390.  The system clock is 180 MHz from the internal 16 MHz
 * oscillator, which takes the regulator's over-drive; APB1 runs at a quarter of it.
 */
#include "../arch/cortex_m/chip.h"
#include "../tinygen_port.h"

#if TINYGEN_CLOCK_HZ != 180000000
#error "this port sets the system clock to 180 MHz: the board's clock_hz must say so"
#endif

#define APB1_HZ (TINYGEN_CLOCK_HZ / 4u)

/* RM, reset and clock control */
#define RCC_CR TINYGEN_REGISTER(0x40023800u)
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 1)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR TINYGEN_REGISTER(0x40023804u)
/* from HSI, / 8 (M), * 180 (N), / 2 (P); Q and R, which nothing uses, at 48 MHz or below */
#define RCC_PLLCFGR_180MHZ (8u | (180u << 6) | (8u << 24) | (7u << 28))
#define RCC_CFGR TINYGEN_REGISTER(0x40023808u)
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (2u << 2)
#define RCC_CFGR_HSI 0u
#define RCC_CFGR_PPRE_4_2 ((5u << 10) | (4u << 13))
#define RCC_CFGR_PLL (RCC_CFGR_PPRE_4_2 | 2u)
#define RCC_AHB1ENR TINYGEN_REGISTER(0x40023830u)
#define RCC_AHB1ENR_GPIOA (1u << 0)
#define RCC_APB1ENR TINYGEN_REGISTER(0x40023840u)
#define RCC_APB1ENR_USART2 (1u << 17)
#define RCC_APB1ENR_PWR (1u << 28)

/* RM, power control */
#define PWR_CR TINYGEN_REGISTER(0x40007000u)
#define PWR_CR_VOS_SCALE1 (3u << 14)
#define PWR_CR_ODEN (1u << 16)
#define PWR_CR_ODSWEN (1u << 17)
#define PWR_CSR TINYGEN_REGISTER(0x40007004u)
#define PWR_CSR_ODRDY (1u << 16)
#define PWR_CSR_ODSWRDY (1u << 17)

/* RM, flash access: 5 wait states at 180 MHz and 3.3 V, prefetch, both caches */
#define FLASH_ACR TINYGEN_REGISTER(0x40023C00u)
#define FLASH_ACR_FAST (5u | (1u << 8) | (1u << 9) | (1u << 10))
#define FLASH_ACR_LATENCY 15u

/* RM, port A: PA2 and PA3 with alternate function 7 are USART2's TX and RX */
#define GPIOA_MODER TINYGEN_REGISTER(0x40020000u)
#define GPIOA_PUPDR TINYGEN_REGISTER(0x4002000Cu)
#define GPIOA_AFRL TINYGEN_REGISTER(0x40020020u)

/* RM, USART2 */
#define USART_INTERRUPT 38u
#define USART_SR TINYGEN_REGISTER(0x40004400u)
#define USART_SR_ORE (1u << 3)
#define USART_SR_RXNE (1u << 5)
#define USART_SR_TXE (1u << 7)
#define USART_DR TINYGEN_REGISTER(0x40004404u)
#define USART_BRR TINYGEN_REGISTER(0x40004408u)
#define USART_CR1 TINYGEN_REGISTER(0x4000440Cu)
#define USART_CR1_ENABLE ((1u << 13) | (1u << 5) | (1u << 3) | (1u << 2)) /* UE, RXNEIE, TE, RE */

static tinygen_ring received;

void tinygen_interrupt(void);

static void change(volatile uint32_t *reg, uint32_t mask, uint32_t value) {
  *reg = (*reg & ~mask) | value;
}

/* RM, power control, "Entering Over-drive mode" has the order of things. */
static void start_clocks(void) {
  RCC_CR |= RCC_CR_HSION;
  while ((RCC_CR & RCC_CR_HSIRDY) == 0) {
  }
  RCC_CFGR = RCC_CFGR_HSI;
  while ((RCC_CFGR & RCC_CFGR_SWS) != 0) {
  }
  RCC_CR &= ~RCC_CR_PLLON;
  while ((RCC_CR & RCC_CR_PLLRDY) != 0) {
  }
  RCC_APB1ENR |= RCC_APB1ENR_PWR;
  PWR_CR |= PWR_CR_VOS_SCALE1;
  RCC_PLLCFGR = RCC_PLLCFGR_180MHZ;
  RCC_CR |= RCC_CR_PLLON;
  PWR_CR |= PWR_CR_ODEN;
  while ((PWR_CSR & PWR_CSR_ODRDY) == 0) {
  }
  PWR_CR |= PWR_CR_ODSWEN;
  while ((PWR_CSR & PWR_CSR_ODSWRDY) == 0) {
  }
  FLASH_ACR = FLASH_ACR_FAST;
  while ((FLASH_ACR & FLASH_ACR_LATENCY) != (FLASH_ACR_FAST & FLASH_ACR_LATENCY)) {
  }
  while ((RCC_CR & RCC_CR_PLLRDY) == 0) {
  }
  RCC_CFGR = RCC_CFGR_PPRE_4_2;
  RCC_CFGR = RCC_CFGR_PLL;
  while ((RCC_CFGR & RCC_CFGR_SWS) != RCC_CFGR_SWS_PLL) {
  }
}

static void start_uart(void) {
  RCC_AHB1ENR |= RCC_AHB1ENR_GPIOA;
  RCC_APB1ENR |= RCC_APB1ENR_USART2;
  change(&GPIOA_PUPDR, 3u << 6, 1u << 6); /* an open input reads as an idle line */
  change(&GPIOA_AFRL, 0xFFu << 8, 0x77u << 8);
  change(&GPIOA_MODER, 15u << 4, 10u << 4);
  USART_CR1 = 0;
  USART_BRR = (APB1_HZ + 57600u) / 115200u;
  USART_CR1 = USART_CR1_ENABLE;
}

/* An overrun asks for the interrupt, too, and goes away when the data is read. */
static int receive(void) {
  const uint32_t state = USART_SR;
  int byte = -1;
  if ((state & (USART_SR_RXNE | USART_SR_ORE)) != 0) byte = (int)(USART_DR & 0xFFu);
  return (state & USART_SR_RXNE) != 0 ? byte : -1;
}

void tinygen_interrupt(void) {
  int byte;
  while ((byte = receive()) >= 0) tinygen_ring_put(&received, (uint8_t)byte);
}

void tinygen_port_init(void) {
  start_clocks();
  tinygen_cycles_start();
  start_uart();
  tinygen_only_interrupt(USART_INTERRUPT);
}

int tinygen_port_read(void) { return tinygen_next_byte(&received, receive); }

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((USART_SR & USART_SR_TXE) == 0) {
    }
    USART_DR = *data++;
  }
}

uint32_t tinygen_port_micros(void) { return tinygen_micros(); }

uint64_t tinygen_port_count(void) { return tinygen_cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) { tinygen_stop(status); }
