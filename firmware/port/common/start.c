/* From the reset handler to `main`, the same on every core.
 *
 * Nothing here needs a C library.  The loops go through volatile pointers so that the compiler does
 * not make calls to `memcpy` and `memset` of them, which would pull those into every image.
 */
#include "start.h"

#include "../tinygen_port.h"
#include "stack.h"

typedef void (*constructor)(void);

extern const uint32_t tinygen_data_load[];
extern uint32_t tinygen_data_start[];
extern uint32_t tinygen_data_end[];
extern uint32_t tinygen_bss_start[];
extern uint32_t tinygen_bss_end[];
extern const constructor tinygen_init_start[];
extern const constructor tinygen_init_end[];

extern int main(void);

static inline void fill(volatile uint32_t *from, const volatile uint32_t *to, uint32_t value) {
  while (from < to) *from++ = value;
}

void tinygen_start(void) {
  /* This function's own frame, a few words around its frame address, is left alone. */
  const uint32_t *const used = (const uint32_t *)__builtin_frame_address(0) - 16;
  const volatile uint32_t *from = tinygen_data_load;
  volatile uint32_t *to = tinygen_data_start;
  const constructor *each;

  fill(tinygen_stack_bottom, used, TINYGEN_STACK_PAINT);
  while (to < tinygen_data_end) *to++ = *from++;
  fill(tinygen_bss_start, tinygen_bss_end, 0);

  tinygen_port_init();
  for (each = tinygen_init_start; each < tinygen_init_end; ++each) (*each)();
  tinygen_port_exit(main());
}
