/* A guard below the stack: see guard.S. */
#ifndef TINYGEN_RISCV_GUARD_H
#define TINYGEN_RISCV_GUARD_H

#ifdef __cplusplus
extern "C" {
#endif

/* From now on the 4 KB below the stack fault when touched. */
void tinygen_riscv_guard_stack(void);

#ifdef __cplusplus
}
#endif

#endif
