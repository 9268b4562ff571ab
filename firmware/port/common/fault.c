/* The last words of a program that did what it must not.
 *
 * Works on a fresh stack, reads no variable, and stops the emulator, so that a bad pointer in an
 * emulated test is a failed test and never a hang.
 */
#include "start.h"

#include "../tinygen_port.h"

static uint8_t *put_hex(uint8_t *at, uint32_t value, int digits) {
  while (digits > 0) {
    const uint32_t digit = (value >> (4 * --digits)) & 15u;
    *at++ = (uint8_t)(digit < 10u ? digit + '0' : digit - 10u + 'a');
  }
  return at;
}

static uint8_t *put_text(uint8_t *at, const char *text) {
  while (*text != '\0') *at++ = (uint8_t)*text++;
  return at;
}

void tinygen_fault(uint32_t cause, uint32_t pc) {
  uint8_t line[48];
  uint8_t *at = put_text(line, "\nfault: cause 0x");
  at = put_hex(at, cause, 8);
  at = put_text(at, " at 0x");
  at = put_hex(at, pc, 8);
  at = put_text(at, "\n");
  tinygen_port_write(line, (size_t)(at - line));
  tinygen_port_exit(TINYGEN_FAULT_STATUS);
}
