/* ST STM32F746 (32F746G-DISCO): USART1 on the ST-LINK's virtual port, DWT.  Runs on the chip and in
 * labwired.
 *
 * "RM" is ST's reference manual RM0385, "PM" the programming manual PM0253.  The system clock is
 * 216 MHz from the internal 16 MHz oscillator, which takes the regulator's over-drive; the serial
 * line runs from that oscillator directly.  Both caches are on: nothing but the core touches memory.
 */
#include "../arch/cortex_m/chip.h"
#include "../tinygen_port.h"

#if TINYGEN_CLOCK_HZ != 216000000
#error "this port sets the system clock to 216 MHz: the board's clock_hz must say so"
#endif


/* RM, reset and clock control */
#define RCC_CR TINYGEN_REGISTER(0x40023800u)
#define RCC_CR_HSION (1u << 0)
#define RCC_CR_HSIRDY (1u << 1)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_PLLCFGR TINYGEN_REGISTER(0x40023804u)
/* from HSI, / 8 (M), * 216 (N), / 2 (P); Q, which nothing uses, at 48 MHz */
#define RCC_PLLCFGR_216MHZ (8u | (216u << 6) | (9u << 24) | (2u << 28))
#define RCC_CFGR TINYGEN_REGISTER(0x40023808u)
#define RCC_CFGR_SWS (3u << 2)
#define RCC_CFGR_SWS_PLL (2u << 2)
#define RCC_CFGR_HSI 0u
#define RCC_CFGR_PPRE_4_2 ((5u << 10) | (4u << 13))
#define RCC_CFGR_PLL (RCC_CFGR_PPRE_4_2 | 2u)
#define RCC_AHB1ENR TINYGEN_REGISTER(0x40023830u)
#define RCC_AHB1ENR_GPIOA_GPIOB 3u
#define RCC_APB1ENR TINYGEN_REGISTER(0x40023840u)
#define RCC_APB1ENR_PWR (1u << 28)
#define RCC_APB2ENR TINYGEN_REGISTER(0x40023844u)
#define RCC_APB2ENR_USART1 (1u << 4)
#define RCC_DCKCFGR2 TINYGEN_REGISTER(0x40023890u)
#define RCC_DCKCFGR2_USART1SEL 3u
#define RCC_DCKCFGR2_USART1SEL_HSI 2u

/* RM, power control */
#define PWR_CR1 TINYGEN_REGISTER(0x40007000u)
#define PWR_CR1_VOS_SCALE1 (3u << 14)
#define PWR_CR1_ODEN (1u << 16)
#define PWR_CR1_ODSWEN (1u << 17)
#define PWR_CSR1 TINYGEN_REGISTER(0x40007004u)
#define PWR_CSR1_ODRDY (1u << 16)
#define PWR_CSR1_ODSWRDY (1u << 17)

/* RM, flash access: 7 wait states at 216 MHz and 3.3 V, prefetch, accelerator */
#define FLASH_ACR TINYGEN_REGISTER(0x40023C00u)
#define FLASH_ACR_FAST (7u | (1u << 8) | (1u << 9))
#define FLASH_ACR_LATENCY 15u

/* PM, cache maintenance */
#define SCB_CCR TINYGEN_REGISTER(0xE000ED14u)
#define SCB_CCR_DC (1u << 16)
#define SCB_CCR_IC (1u << 17)
#define SCB_CCSIDR TINYGEN_REGISTER(0xE000ED80u)
#define SCB_CSSELR TINYGEN_REGISTER(0xE000ED84u)
#define SCB_ICIALLU TINYGEN_REGISTER(0xE000EF50u)
#define SCB_DCISW TINYGEN_REGISTER(0xE000EF60u)

/* RM, ports A and B: PA9 and PB7 with alternate function 7 are USART1's TX and RX */
#define GPIOA_MODER TINYGEN_REGISTER(0x40020000u)
#define GPIOA_AFRH TINYGEN_REGISTER(0x40020024u)
#define GPIOB_MODER TINYGEN_REGISTER(0x40020400u)
#define GPIOB_PUPDR TINYGEN_REGISTER(0x4002040Cu)
#define GPIOB_AFRL TINYGEN_REGISTER(0x40020420u)

/* RM, USART1 from HSI */
#define USART_INTERRUPT 37u
#define USART_CR1 TINYGEN_REGISTER(0x40011000u)
#define USART_CR1_ENABLE ((1u << 5) | (1u << 3) | (1u << 2) | 1u) /* RXNEIE, TE, RE, UE */
#define USART_CR3 TINYGEN_REGISTER(0x40011008u)
#define USART_CR3_OVRDIS (1u << 12)
#define USART_BRR TINYGEN_REGISTER(0x4001100Cu)
#define USART_BRR_115200 139u /* 16 MHz / 115,200 */
#define USART_ISR TINYGEN_REGISTER(0x4001101Cu)
#define USART_ISR_RXNE (1u << 5)
#define USART_ISR_TXE (1u << 7)
#define USART_RDR TINYGEN_REGISTER(0x40011024u)
#define USART_TDR TINYGEN_REGISTER(0x40011028u)

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
  PWR_CR1 |= PWR_CR1_VOS_SCALE1;
  RCC_PLLCFGR = RCC_PLLCFGR_216MHZ;
  RCC_CR |= RCC_CR_PLLON;
  PWR_CR1 |= PWR_CR1_ODEN;
  while ((PWR_CSR1 & PWR_CSR1_ODRDY) == 0) {
  }
  PWR_CR1 |= PWR_CR1_ODSWEN;
  while ((PWR_CSR1 & PWR_CSR1_ODSWRDY) == 0) {
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

static void barrier(void) { __asm volatile("dsb\n\tisb" : : : "memory"); }

/* What the data cache holds after a reset is not known, so every line of every way is
 * declared invalid.  A line has 32 bytes, hence the set at bit 5; the way is at the top. */
static void start_caches(void) {
  uint32_t size, set, way;
  SCB_ICIALLU = 0;
  barrier();
  SCB_CCR |= SCB_CCR_IC;
  barrier();
  if ((SCB_CCR & SCB_CCR_DC) != 0) return;
  SCB_CSSELR = 0; /* the data cache */
  barrier();
  size = SCB_CCSIDR;
  for (set = 0; set <= (size >> 13 & 0x7FFFu); ++set) {
    for (way = 0; way <= (size >> 3 & 3u); ++way) SCB_DCISW = way << 30 | set << 5;
  }
  barrier();
  SCB_CCR |= SCB_CCR_DC;
  barrier();
}

static void start_uart(void) {
  RCC_AHB1ENR |= RCC_AHB1ENR_GPIOA_GPIOB;
  change(&RCC_DCKCFGR2, RCC_DCKCFGR2_USART1SEL, RCC_DCKCFGR2_USART1SEL_HSI);
  RCC_APB2ENR |= RCC_APB2ENR_USART1;
  change(&GPIOA_AFRH, 15u << 4, 7u << 4);
  change(&GPIOA_MODER, 3u << 18, 2u << 18);
  change(&GPIOB_PUPDR, 3u << 14, 1u << 14); /* an open input reads as an idle line */
  change(&GPIOB_AFRL, 15u << 28, 7u << 28);
  change(&GPIOB_MODER, 3u << 14, 2u << 14);
  USART_CR1 = 0;
  USART_CR3 = USART_CR3_OVRDIS;
  USART_BRR = USART_BRR_115200;
  USART_CR1 = USART_CR1_ENABLE;
}

static int receive(void) {
  return (USART_ISR & USART_ISR_RXNE) != 0 ? (int)(USART_RDR & 0xFFu) : -1;
}

void tinygen_interrupt(void) {
  int byte;
  while ((byte = receive()) >= 0) tinygen_ring_put(&received, (uint8_t)byte);
}

void tinygen_port_init(void) {
  start_clocks();
  start_caches();
  tinygen_cycles_start();
  start_uart();
  tinygen_only_interrupt(USART_INTERRUPT);
}

int tinygen_port_read(void) { return tinygen_next_byte(&received, receive); }

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((USART_ISR & USART_ISR_TXE) == 0) {
    }
    USART_TDR = *data++;
  }
}

uint32_t tinygen_port_micros(void) { return tinygen_micros(); }

uint64_t tinygen_port_count(void) { return tinygen_cycles(); }

const char *tinygen_port_count_unit(void) { return "cycles"; }

void tinygen_port_exit(int status) { tinygen_stop(status); }
