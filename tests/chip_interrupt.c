/* A program that is busy while bytes arrive: after a while it asks for the serial line's interrupt
 * itself, because labwired's receivers do not; PROBE_INTERRUPT is its number.  Then it says so, and
 * echoes what has been received meanwhile.
 */
#include "tinygen_port.h"

int main(void) {
  static const uint8_t done[] = {'!'};
  volatile uint32_t busy;
  for (busy = 0; busy < 20000u; ++busy) {
  }
  *(volatile uint32_t *)(uintptr_t)(0xE000E200u + PROBE_INTERRUPT / 32u * 4u) = 1u
                                                                              << PROBE_INTERRUPT % 32u;
  __asm volatile("dsb\n\tisb" : : : "memory");
  tinygen_port_write(done, 1);
  for (;;) {
    const int next = tinygen_port_read();
    const uint8_t byte = (uint8_t)next;
    if (next >= 0) tinygen_port_write(&byte, 1);
  }
}
