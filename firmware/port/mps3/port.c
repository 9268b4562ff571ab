/* QEMU's MPS3 board with the AN547 image: Cortex-M55 with vectors (MVE).
 *
 * The core starts in the secure state and stays there, so every address is the secure alias.
 * It fetches its first two words from ITCM, where this port puts them; the program lies in the
 * larger SSRAM.  Serial: CMSDK UART 0.  Clock and counter: the SSE-300's system counter, 64 bits at
 * 32 MHz.  Under QEMU's `-icount shift=0` every instruction takes 1 ns, hence 31.25 instructions a
 * tick: that is the counter's resolution, and its value is exact to within one tick.
 */
#include "../arch/cortex_m/semihosting.h"
#include "../common/icount.h"
#include "../common/start.h"
#include "../tinygen_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define UART_DATA REGISTER(0x59303000u)
#define UART_STATE REGISTER(0x59303004u)
#define UART_CTRL REGISTER(0x59303008u)
#define UART_BAUDDIV REGISTER(0x59303010u)
#define UART_STATE_TX_FULL 1u
#define UART_STATE_RX_FULL 2u
#define UART_CTRL_TX_ENABLE 1u
#define UART_CTRL_RX_ENABLE 2u

#define COUNTER_CONTROL REGISTER(0x58100000u)
#define COUNTER_LOW REGISTER(0x58100008u)
#define COUNTER_HIGH REGISTER(0x5810000Cu)

#define UART_CLOCK_HZ 25000000u
#define TICKS_PER_MICROSECOND 32u

extern void tinygen_reset(void);

typedef struct reset_words {
  uint32_t *stack;
  void (*reset)(void);
} reset_words;

__attribute__((used, section(".tinygen_far_vectors")))
const reset_words tinygen_reset_words = {tinygen_stack_top, tinygen_reset};

void tinygen_port_init(void) {
  UART_BAUDDIV = UART_CLOCK_HZ / 115200u;
  UART_CTRL = UART_CTRL_TX_ENABLE;
  COUNTER_CONTROL = 1;
}

/* The receiver starts with the first call.  What was sent before is offered by QEMU only after a read
 * of DATA; that gives 0, or the first byte should it arrive just then. */
static int start_receiver(void) {
  uint32_t first;
  UART_CTRL = UART_CTRL_TX_ENABLE | UART_CTRL_RX_ENABLE;
  first = UART_DATA;
  return first != 0 ? (int)first : -1;
}

int tinygen_port_read(void) {
  if ((UART_STATE & UART_STATE_RX_FULL) != 0) return (int)UART_DATA;
  return (UART_CTRL & UART_CTRL_RX_ENABLE) != 0 ? -1 : start_receiver();
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  for (; count > 0; --count) {
    while ((UART_STATE & UART_STATE_TX_FULL) != 0) {
    }
    UART_DATA = *data++;
  }
}

static uint64_t ticks_now(void) {
  uint32_t high, low;
  do {
    high = COUNTER_HIGH;
    low = COUNTER_LOW;
  } while (high != COUNTER_HIGH);
  return (uint64_t)high << 32 | low;
}

uint32_t tinygen_port_micros(void) { return (uint32_t)(ticks_now() / TICKS_PER_MICROSECOND); }

uint64_t tinygen_port_count(void) { return ticks_now() * 125u >> 2; }

const char *tinygen_port_count_unit(void) { return tinygen_icount_unit(); }

void tinygen_port_exit(int status) { tinygen_semihosting_exit(status); }
