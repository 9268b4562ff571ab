/* What the per-architecture start-up code and the common one ask of each other.
 *
 * The way from reset to the program: architecture's `tinygen_reset` (stack pointer, exception
 * vectors, floating point unit), `tinygen_start` (memory, port, constructors), `main`.
 * An exception goes to `tinygen_fault`, which never returns.
 */
#ifndef TINYGEN_START_H
#define TINYGEN_START_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Exit status of a program that ended in a fault: what a shell shows for a segmentation fault. */
#define TINYGEN_FAULT_STATUS 139

/* Bounds that the linker script defines; their addresses are what counts. */
extern uint32_t tinygen_stack_bottom[];
extern uint32_t tinygen_stack_top[];

/* Fills data, bss and the free stack, starts the port, runs constructors and `main`, exits. */
__attribute__((noreturn)) void tinygen_start(void);

/* Prints `fault: cause 0x<number> at 0x<pc>` on the serial line and exits with TINYGEN_FAULT_STATUS.
 * `cause` is the architecture's own number of the exception. */
__attribute__((noreturn)) void tinygen_fault(uint32_t cause, uint32_t pc);

#ifdef __cplusplus
}
#endif

#endif
