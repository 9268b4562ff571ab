/* The counters of a RISC-V core, whole: see counters.S. */
#ifndef TINYGEN_RISCV_COUNTERS_H
#define TINYGEN_RISCV_COUNTERS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t tinygen_riscv_instructions(void);
uint64_t tinygen_riscv_cycles(void);

#ifdef __cplusplus
}
#endif

#endif
