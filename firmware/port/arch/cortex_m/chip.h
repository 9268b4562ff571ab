/* What ports of Cortex-M chips share. */
#ifndef TINYGEN_CORTEX_M_CHIP_H
#define TINYGEN_CORTEX_M_CHIP_H

#include <stdint.h>

#include "../../common/chip.h"

#define TINYGEN_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Starts the cycle counter: DWT's, or SysTick where there is none.  TINYGEN_CLOCK_HZ is what the core
 * runs at from now on. */
void tinygen_cycles_start(void);
uint64_t tinygen_cycles(void);
uint32_t tinygen_micros(void);

/* Lets interrupt `number` alone through and turns interrupts on.  Whatever a bootloader has left
 * enabled or pending is dropped.  The handler is `tinygen_interrupt`, and TINYGEN_IRQ_COUNT says that
 * the vector table reaches that far. */
void tinygen_only_interrupt(unsigned number);

/* The next byte of `ring`, else what `receive` finds in the serial line's receiver itself, or -1.
 * The interrupt is held off meanwhile. */
int tinygen_next_byte(tinygen_ring *ring, int (*receive)(void));

/* Stops for ever, leaving `status` in `tinygen_port_ended`. */
__attribute__((noreturn)) void tinygen_stop(int status);

#endif
