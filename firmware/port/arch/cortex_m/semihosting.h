/* The one request of Arm semihosting that emulated ports need: end the emulator with a status.
 *
 * Without a debugger or emulator that answers, the breakpoint would be a fault; ports for real chips
 * do not use it.
 */
#ifndef TINYGEN_SEMIHOSTING_H
#define TINYGEN_SEMIHOSTING_H

#include <stdint.h>

__attribute__((noreturn)) static inline void tinygen_semihosting_exit(int status) {
  const uint32_t block[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, (uint32_t)status};
  register uint32_t operation __asm("r0") = 0x20u; /* SYS_EXIT_EXTENDED */
  register const uint32_t *argument __asm("r1") = block;
  __asm volatile("bkpt 0xab" : "+r"(operation) : "r"(argument) : "memory");
  for (;;) {
  }
}

#endif
