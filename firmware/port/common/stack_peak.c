/* How deep the stack has been: the lowest word that no longer has the paint of start-up. */
#include "../tinygen_port.h"
#include "stack.h"
#include "start.h"

size_t tinygen_port_stack_peak(void) {
  const volatile uint32_t *word = tinygen_stack_bottom;
  while (word < tinygen_stack_top && *word == TINYGEN_STACK_PAINT) ++word;
  return (size_t)((uintptr_t)tinygen_stack_top - (uintptr_t)word);
}
