/* Holds memcpy, memmove and memset of the Cortex-M port against plain loops: all alignments, lengths to 70.
 * Writes "ok", or what differs first.
 */
#include <string.h>

#include "tinygen_port.h"

enum { ROOM = 96, MOST = 70 };

static uint8_t source[ROOM], target[ROOM];

static int right(int at, int count, int from, int value)
{
  for (int i = 0; i < ROOM; ++i) {
    const int inside = i >= at && i < at + count;
    const uint8_t wanted = (uint8_t)(!inside ? 0xA5 : from < 0 ? value : i - at + from + 1);
    if (target[i] != wanted) {
      return 0;
    }
  }
  return 1;
}

static void clear(void)
{
  for (volatile int i = 0; i < ROOM; ++i) {
    target[i] = 0xA5;
  }
}

/* Whether the bytes 1, 2, 3, ... are as a move within them leaves them. */
static int moved(int at, int count, int from)
{
  for (int i = 0; i < ROOM; ++i) {
    const int inside = i >= at && i < at + count;
    if (target[i] != (uint8_t)((inside ? i - at + from : i) + 1)) {
      return 0;
    }
  }
  return 1;
}

static void stop(const char *word, int status)
{
  size_t length = 0;
  while (word[length] != 0) {
    ++length;
  }
  tinygen_port_write((const uint8_t *)word, length);
  tinygen_port_exit(status);
}

int main(void)
{
  for (volatile int i = 0; i < ROOM; ++i) {
    source[i] = (uint8_t)(i + 1);
  }
  for (volatile int at = 0; at < 8; ++at) {
    for (volatile int count = 0; count <= MOST; ++count) {
      for (volatile int from = 0; from < 8; ++from) {
        clear();
        if (memcpy(target + at, source + from, (size_t)count) != target + at || !right(at, count, from, 0)) {
          stop("memcpy", 1);
        }
        for (volatile int i = 0; i < ROOM; ++i) {
          target[i] = (uint8_t)(i + 1);
        }
        if (memmove(target + at, target + from, (size_t)count) != target + at || !moved(at, count, from)) {
          stop("memmove", 1);
        }
      }
      clear();
      if (memset(target + at, 0x137, (size_t)count) != target + at || !right(at, count, -1, 0x37)) {
        stop("memset", 1);
      }
    }
  }
  stop("ok", 0);
}
