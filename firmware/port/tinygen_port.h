/* What a bare-metal program asks of the chip or emulator under it.
 *
 * One folder per port beside this file implements it; start-up code calls `tinygen_port_init` before
 * constructors and `main`.
 */
#ifndef TINYGEN_PORT_H
#define TINYGEN_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Clocks, serial line (115,200 baud, 8N1 where that means anything), counters. */
void tinygen_port_init(void);

/* Next received byte, 0 to 255, or -1 when none has arrived. */
int tinygen_port_read(void);

/* Sends `count` bytes; returns when the last is on its way. */
void tinygen_port_write(const uint8_t *data, size_t count);

/* Microseconds since start; wraps. */
uint32_t tinygen_port_micros(void);

/* A count for measuring code, and what it counts: "cycles", "instructions", or "none" with 0. */
uint64_t tinygen_port_count(void);
const char *tinygen_port_count_unit(void);

/* Bytes of stack that have been used at the most since start, by painting; 0 where not known. */
size_t tinygen_port_stack_peak(void);

/* Ends the program: leaves the emulator with `status`, stops for ever on a chip. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void tinygen_port_exit(int status);

#ifdef __cplusplus
}
#endif

#endif
