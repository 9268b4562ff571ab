/* The part of Arduino's published interface that generated programs use, declared as vendors' cores
 * declare it: virtual functions in a class of their own, `unsigned long` times, C linkage.
 *
 * It lets a test compile src/main.cpp with each board's compiler where no vendor core can be had.
 */
#ifndef Arduino_h
#define Arduino_h

#include <stddef.h>
#include <stdint.h>

extern "C" {
unsigned long millis(void);
unsigned long micros(void);
void delay(unsigned long milliseconds);
void setup(void);
void loop(void);
}

class Print {
 public:
  virtual size_t write(uint8_t value) = 0;
  virtual size_t write(const uint8_t *buffer, size_t size);
};

class Stream : public Print {
 public:
  virtual int available() = 0;
  virtual int read() = 0;
  virtual int peek() = 0;
};

class HardwareSerial : public Stream {
 public:
  void begin(unsigned long baud);
  int available() override;
  int read() override;
  int peek() override;
  size_t write(uint8_t value) override;
  using Print::write;
  operator bool();
};

extern HardwareSerial Serial;

#endif
