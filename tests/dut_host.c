/* The serial protocol on the host, with three small models that show its corners.
 *
 * "spender" overwrites its inputs, as planned memory does; "counter" keeps a state, says where it is
 * by an unquantized output, and fails on request; "wide" prints real numbers of every type.  Counters
 * are made up, so that a test knows what they must be.  A word on the command line breaks something.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tinygen_dut.h"

static int lies;    /* "lies": one output bit is wrong */
static int quits;   /* "quits": the program ends in the middle of an inference */
static int hangs;   /* "hangs": an inference never ends */
static int babbles; /* "babbles": the program talks without end */

static uint32_t clock_us;
static uint64_t counter = 1000;

static void layer(const tinygen_model *model, int index, const void *data, size_t bytes) {
#ifdef TINYGEN_TRACE
  tinygen_on_layer(model, index, data, bytes);
#else
  (void)model, (void)index, (void)data, (void)bytes;
#endif
}

static void nothing(void) {}

/* spender: output0 = 2 * input0 + input1 elementwise (int8, wrapping), output1 = input0 as float / 4 */

extern const tinygen_model spender_model;
static const int32_t spender_shape[] = {1, 3};
static struct {
  int8_t input0[3];
  int8_t pad;
  int16_t input1[3];
  int8_t output0[3];
  float output1[3];
} spender;

static int spender_run(void) {
  int8_t doubled[3];
  int i;
  clock_us += 250;
  counter += 777;
  if (quits) {
    _exit(3);
  }
  while (hangs) {
    sleep(1);
  }
  for (i = 0; i < 3; ++i) {
    doubled[i] = (int8_t)(uint8_t)(2 * spender.input0[i]);
    spender.output1[i] = (float)spender.input0[i] / 4.0f;
  }
  layer(&spender_model, 0, doubled, sizeof doubled);
  counter += 23;
  for (i = 0; i < 3; ++i) {
    spender.output0[i] = (int8_t)(uint8_t)(doubled[i] + spender.input1[i]);
  }
  spender.output0[1] = (int8_t)(spender.output0[1] ^ lies);
  memset(spender.input0, 99, sizeof spender.input0);
  layer(&spender_model, 1, spender.output0, sizeof spender.output0);
  return 0;
}

static const tinygen_tensor spender_inputs[] = {
    {"a", TINYGEN_INT8, 2, spender_shape, 3, 0.5f, 0, spender.input0},
    {"b", TINYGEN_INT16, 2, spender_shape, 6, 0.25f, 0, spender.input1},
};
static const tinygen_tensor spender_outputs[] = {
    {"sum", TINYGEN_INT8, 2, spender_shape, 3, 0.1f, -4, spender.output0},
    {"real", TINYGEN_FLOAT32, 2, spender_shape, 12, 0.0f, 0, spender.output1},
};
const tinygen_model spender_model = {
    "spender", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 2, 2, 2,
    spender_inputs, spender_outputs, sizeof spender, nothing, nothing, spender_run};

/* counter: output = sum of all inputs since reset; fails on input -128 */

static const int32_t counter_shape[] = {1};
static int8_t counter_input[1];
static int32_t counter_sum;

static void counter_reset(void) { counter_sum = 0; }
static int counter_run(void) {
  if (counter_input[0] == -128) {
    return -7;
  }
  counter_sum += counter_input[0];
  return 0;
}

static const tinygen_tensor counter_inputs[] = {
    {"x", TINYGEN_INT8, 1, counter_shape, 1, 1.0f, 0, counter_input}};
static const tinygen_tensor counter_outputs[] = {
    {"sum", TINYGEN_INT32, 1, counter_shape, 4, 0.0f, 0, &counter_sum}};
static const tinygen_model counter_model = {
    "counter", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", 1, 1, 0,
    counter_inputs, counter_outputs, 8, counter_reset, counter_reset, counter_run};

/* wide: the input's bytes reappear as every element type; the first four are also the scale that
 * 100 integers share, and all of it is more than one line of `output` and one chunk of `db`. */

static const int32_t wide_shape[] = {100};
static uint8_t wide_input[404];
static uint8_t wide_output8[100];
static int8_t wide_bytes[100];
static int16_t wide_shorts[50];
static int32_t wide_words[25];
static float wide_floats[25];
static tinygen_tensor wide_outputs[] = {
    {"u8", TINYGEN_UINT8, 1, wide_shape, 100, 0.0f, 3, wide_output8},
    {"i8", TINYGEN_INT8, 1, wide_shape, 100, 0.0f, -128, wide_bytes},
    {"i16", TINYGEN_INT16, 1, wide_shape, 100, 0.0f, 0, wide_shorts},
    {"i32", TINYGEN_INT32, 1, wide_shape, 100, 0.0f, 2147483647, wide_words},
    {"f32", TINYGEN_FLOAT32, 1, wide_shape, 100, 0.0f, 0, wide_floats},
};

static int wide_run(void) {
  int i;
  memcpy(wide_output8, wide_input + 4, 100);
  memcpy(wide_bytes, wide_input + 104, 100);
  memcpy(wide_shorts, wide_input + 204, 100);
  memcpy(wide_words, wide_input + 304, 100);
  memcpy(wide_floats, wide_input + 304, 100);
  for (i = 0; i < 4; ++i) {
    memcpy(&wide_outputs[i].scale, wide_input, 4);
  }
  return 0;
}

static const tinygen_tensor wide_inputs[] = {
    {"bytes", TINYGEN_UINT8, 1, wide_shape, 404, 1.0f, 0, wide_input}};
static const tinygen_model wide_model = {
    "wide", "0000000000000000000000000000000000000000000000000000000000000000", 1, 5, 0,
    wide_inputs, wide_outputs, 1000, nothing, nothing, wide_run};

static void send(const char *text, size_t count) {
  fwrite(text, 1, count, stdout);
  fflush(stdout);
}
static uint32_t micros_now(void) { return clock_us += 3; }
static uint64_t count_now(void) { return counter; }
static size_t stack_peak(void) { return 1234; }

int main(int argc, char **argv) {
  static const tinygen_model *const models[] = {&spender_model, &counter_model, &wide_model};
  static const tinygen_dut_io io = {"bench", send, micros_now, count_now, "ticks", stack_peak};
  static tinygen_dut dut;
  int received;
  const char *fault = argc > 1 ? argv[1] : "";
  lies = strcmp(fault, "lies") == 0 ? 16 : 0;
  quits = strcmp(fault, "quits") == 0;
  hangs = strcmp(fault, "hangs") == 0;
  babbles = strcmp(fault, "babbles") == 0;
  clock_us = strcmp(fault, "wraps") == 0 ? 0xffffff00u : 0;
  while (babbles) {
    puts("m-babble");
  }
  fputs("boot noise \x01\xff without a line end", stdout);
  tinygen_dut_begin(&dut, &io, models, 3);
  while ((received = getchar()) != EOF) {
    tinygen_dut_feed(&dut, (char)received);
  }
  return 0;
}
