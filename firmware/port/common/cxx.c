/* What C++ asks of its surroundings and firmware has no use for.
 *
 * Programs here never end, so destructors of static objects are accepted and forgotten.  All of it
 * vanishes from images that do not refer to it.
 */
#include "../tinygen_port.h"

void *__dso_handle;

int __cxa_atexit(void (*destructor)(void *), void *object, void *library);
int __aeabi_atexit(void *object, void (*destructor)(void *), void *library);
void __cxa_pure_virtual(void);

int __cxa_atexit(void (*destructor)(void *), void *object, void *library) {
  (void)destructor;
  (void)object;
  (void)library;
  return 0;
}

int __aeabi_atexit(void *object, void (*destructor)(void *), void *library) {
  return __cxa_atexit(destructor, object, library);
}

void __cxa_pure_virtual(void) { tinygen_port_exit(134); }
