/* As much of the Arduino interface as a TinyGen program uses, on any TinyGen port.
 *
 * It lets one src/main.cpp build with a vendor's Arduino core and without: on bare chips, in emulators
 * and on the machine that builds.  Serial is the port's serial line; there are no pins.
 */
#ifndef TINYGEN_ARDUINO_H
#define TINYGEN_ARDUINO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tinygen_port.h"

/* Tells programs that the functions of tinygen_port.h are there to be called. */
#define TINYGEN_BARE_METAL 1

#define PROGMEM
#define F(text) (text)

enum { BIN = 2, OCT = 8, DEC = 10, HEX = 16 };

typedef uint8_t byte;

/* The program's; with C linkage, as Arduino's own. */
extern "C" {
void setup(void);
void loop(void);
}

unsigned long millis(void);
unsigned long micros(void);
void delay(unsigned long milliseconds);
void delayMicroseconds(unsigned int microseconds);
inline void yield(void) {}

class TinyGenSerial {
 public:
  void begin(unsigned long baud) { (void)baud; } /* the port has set its line up: 115,200 baud */
  void end(void) {}
  void flush(void) {}
  explicit operator bool() const { return true; }

  int available(void); /* 1 when a byte can be read, else 0 */
  int peek(void);      /* the next byte, which stays; -1 when there is none */
  int read(void);      /* the next byte, or -1 when there is none */

  size_t write(uint8_t value) { return write(&value, 1); }
  size_t write(const uint8_t *data, size_t count);
  size_t write(const char *data, size_t count);
  size_t write(const char *text) { return write(text, strlen(text)); }

  size_t print(const char *text) { return write(text); }
  size_t print(char value) { return write(static_cast<uint8_t>(value)); }
  size_t print(unsigned long value, int base = DEC);
  size_t print(long value, int base = DEC);
  size_t print(unsigned int value, int base = DEC) {
    return print(static_cast<unsigned long>(value), base);
  }
  size_t print(int value, int base = DEC) { return print(static_cast<long>(value), base); }
  size_t print(unsigned char value, int base = DEC) {
    return print(static_cast<unsigned long>(value), base);
  }
  size_t print(double value, int digits = 2);

  size_t println(void) { return write("\r\n", 2); }
  template <typename T>
  size_t println(T value) {
    const size_t count = print(value);
    return count + println();
  }
  template <typename T>
  size_t println(T value, int format) {
    const size_t count = print(value, format);
    return count + println();
  }

 private:
  int ahead_ = -1; /* a byte taken from the port and not yet read */
};

extern TinyGenSerial Serial;

#endif
