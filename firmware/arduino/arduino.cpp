/* Time, the serial line, and the main function that runs setup and loop. */
#include "Arduino.h"

TinyGenSerial Serial;

int main() {
  setup();
  for (;;) loop();
}

unsigned long micros() { return tinygen_port_micros(); }

/* Milliseconds that wrap at 2^32 like Arduino's, though the port's microseconds wrap earlier: what has
 * passed since the last call is added up, so calls must not lie further apart than those 71 minutes. */
unsigned long millis() {
  static uint32_t seen, whole;
  const uint32_t passed = (tinygen_port_micros() - seen) / 1000u;
  seen += passed * 1000u;
  whole += passed;
  return whole;
}

void delayMicroseconds(unsigned int microseconds) {
  const uint32_t start = tinygen_port_micros();
  while (tinygen_port_micros() - start < microseconds) {
  }
}

void delay(unsigned long milliseconds) {
  for (; milliseconds > 0; --milliseconds) delayMicroseconds(1000);
}

int TinyGenSerial::peek() {
  if (ahead_ < 0) ahead_ = tinygen_port_read();
  return ahead_;
}

int TinyGenSerial::available() { return peek() >= 0 ? 1 : 0; }

int TinyGenSerial::read() {
  const int value = peek();
  ahead_ = -1;
  return value;
}

size_t TinyGenSerial::write(const uint8_t *data, size_t count) {
  tinygen_port_write(data, count);
  return count;
}

size_t TinyGenSerial::write(const char *data, size_t count) {
  return write(reinterpret_cast<const uint8_t *>(data), count);
}

size_t TinyGenSerial::print(unsigned long value, int base) {
  char digits[8 * sizeof value];
  char *at = digits + sizeof digits;
  const unsigned long radix = base < 2 || base > 16 ? 10u : static_cast<unsigned long>(base);
  do {
    *--at = "0123456789ABCDEF"[value % radix];
    value /= radix;
  } while (value > 0);
  return write(at, static_cast<size_t>(digits + sizeof digits - at));
}

size_t TinyGenSerial::print(long value, int base) {
  if (value >= 0 || base != DEC) return print(static_cast<unsigned long>(value), base);
  return print('-') + print(0ul - static_cast<unsigned long>(value), base);
}

/* Like Arduino's Print: rounded to `digits` decimals, "nan", "inf", and "ovf" past 32 bits. */
size_t TinyGenSerial::print(double value, int digits) {
  size_t count = 0;
  double rounding = 0.5;
  if (value != value) return print("nan");
  if (value - value != 0.0) return print("inf");
  if (value > 4294967040.0 || value < -4294967040.0) return print("ovf");
  if (value < 0.0) {
    count += print('-');
    value = -value;
  }
  for (int i = 0; i < digits; ++i) rounding /= 10.0;
  value += rounding;
  uint32_t whole = static_cast<uint32_t>(value);
  count += print(static_cast<unsigned long>(whole));
  if (digits > 0) count += print('.');
  for (; digits > 0; --digits) {
    value = (value - whole) * 10.0;
    whole = static_cast<uint32_t>(value);
    count += print(static_cast<unsigned long>(whole));
  }
  return count;
}
