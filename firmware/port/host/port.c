/* A process of the machine that builds: standard input and output are the serial line.
 *
 * When the input is closed the program ends, so that none is left behind.  A program that does
 * nothing but wait for input lets the processor rest.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "../tinygen_port.h"

enum { PATIENCE = 1000, REST_MILLISECONDS = 1 };

/* Microseconds of the host's monotonic clock. */
static uint64_t clock_micros(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static uint64_t start_micros;

__attribute__((constructor)) static void start(void) { tinygen_port_init(); }

void tinygen_port_init(void) { start_micros = clock_micros(); }

int tinygen_port_read(void) {
  static int waited;
  static uint8_t received[4096];
  static size_t count, next;
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  ssize_t got;

  if (next < count) return received[next++];
  if (poll(&input, 1, waited < PATIENCE ? 0 : REST_MILLISECONDS) <= 0) {
    if (waited < PATIENCE) ++waited;
    return -1;
  }
  waited = 0;
  got = read(STDIN_FILENO, received, sizeof received);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return -1;
  if (got <= 0) tinygen_port_exit(0);
  count = (size_t)got;
  next = 1;
  return received[0];
}

void tinygen_port_write(const uint8_t *data, size_t count) {
  while (count > 0) {
    const ssize_t sent = write(STDOUT_FILENO, data, count);
    if (sent < 0 && errno != EINTR && errno != EAGAIN) tinygen_port_exit(1);
    if (sent > 0) {
      data += sent;
      count -= (size_t)sent;
    }
  }
}

uint32_t tinygen_port_micros(void) { return (uint32_t)(clock_micros() - start_micros); }

uint64_t tinygen_port_count(void) { return 0; }

const char *tinygen_port_count_unit(void) { return "none"; }

size_t tinygen_port_stack_peak(void) { return 0; }

void tinygen_port_exit(int status) { exit(status); }
