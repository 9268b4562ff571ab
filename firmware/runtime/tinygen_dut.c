/* MLPerf Tiny's serial protocol; tinygen_dut.h says what it understands.
 *
 * Top to bottom: reply text, numbers, the model's input and outputs, inference, commands.
 */
#include "tinygen_dut.h"

#include <string.h>

#define PROTOCOL "1"
#define PROFILE "ULPMark for tinyML Firmware V0.0.1" /* the protocol's name, the runner records it */

#define ONE 0x3f800000u /* 1.0f */

/* What the model's input and outputs hold. */
enum { EMPTY, LOADING, LOADED, DONE, SPENT };

/* ---- reply text ---- */

static void flush(tinygen_dut *dut) {
  if (dut->reply_length > 0) {
    dut->io->write(dut->reply, dut->reply_length);
    dut->reply_length = 0;
  }
}

static void put_char(tinygen_dut *dut, char character) {
  dut->reply[dut->reply_length++] = character;
  if (dut->reply_length == sizeof dut->reply) {
    flush(dut);
  }
}

static void put(tinygen_dut *dut, const char *text) {
  while (*text != '\0') {
    put_char(dut, *text++);
  }
}

static void put_hex(tinygen_dut *dut, uint8_t byte) {
  static const char digits[] = "0123456789abcdef";
  put_char(dut, digits[byte >> 4]);
  put_char(dut, digits[byte & 15]);
}

static void put_hex32(tinygen_dut *dut, uint32_t word) {
  int shift;
  for (shift = 24; shift >= 0; shift -= 8) {
    put_hex(dut, (uint8_t)(word >> shift));
  }
}

static void put_unsigned(tinygen_dut *dut, uint64_t number) {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = (char)('0' + (int)(number % 10));
    number /= 10;
  } while (number > 0);
  while (count > 0) {
    put_char(dut, digits[--count]);
  }
}

/* "m-<what>-[<text>]", the protocol's usual line. */
static void put_line(tinygen_dut *dut, const char *what, const char *text) {
  put(dut, "m-");
  put(dut, what);
  put(dut, "-[");
  put(dut, text);
  put(dut, "]\r\n");
}

static void put_number_line(tinygen_dut *dut, const char *what, uint64_t number) {
  put(dut, "m-");
  put(dut, what);
  put(dut, "-[");
  put_unsigned(dut, number);
  put(dut, "]\r\n");
}

static void put_error(tinygen_dut *dut, const char *text) {
  put(dut, "e-[");
  put(dut, text);
  put(dut, "]\r\n");
}

/* ---- numbers ---- */

/* Six decimals of mantissa * 2^exponent, rounded to nearest even as printf does; mantissa < 2^60. */
static void put_fraction(tinygen_dut *dut, uint64_t mantissa, int exponent) {
  uint64_t whole, rest, half;
  uint32_t decimals = 0, digit;
  for (; exponent < -60; ++exponent) {
    mantissa = (mantissa >> 1) | (mantissa & 1); /* bits that fall off stay visible to rounding */
  }
  whole = mantissa >> -exponent;
  rest = mantissa & (((uint64_t)1 << -exponent) - 1);
  half = ((uint64_t)1 << -exponent) >> 1;
  for (digit = 0; digit < 6; ++digit) {
    rest *= 10;
    decimals = decimals * 10 + (uint32_t)(rest >> -exponent);
    rest &= ((uint64_t)1 << -exponent) - 1;
  }
  if (rest > half || (rest == half && (decimals & 1) != 0)) {
    ++decimals;
  }
  put_unsigned(dut, whole + decimals / 1000000u);
  put_char(dut, '.');
  for (digit = 100000; digit > 0; digit /= 10) {
    put_char(dut, (char)('0' + (int)(decimals / digit % 10)));
  }
}

/* mantissa * 2^exponent for exponent >= 0: all digits, or seventeen and a power of ten. */
static void put_whole(tinygen_dut *dut, uint64_t mantissa, int exponent) {
  unsigned tens = 0;
  for (; exponent > 0 && mantissa > 0; --exponent) {
    if (mantissa >> 63 != 0) {
      mantissa /= 10;
      ++tens;
    }
    mantissa <<= 1;
  }
  put_unsigned(dut, mantissa);
  if (tens > 0) {
    put_char(dut, 'e');
    put_unsigned(dut, tens);
  }
}

/* factor * real, `bits` being real's IEEE 754 single-precision pattern; |factor| <= 2^32. */
static void put_real(tinygen_dut *dut, uint32_t bits, int64_t factor) {
  const int biased = (int)(bits >> 23 & 255);
  uint64_t mantissa = bits & 0x7fffff;
  int exponent = biased - 150;
  if (biased == 255) {
    put(dut, mantissa != 0 ? "nan" : (bits >> 31 != 0) != (factor < 0) ? "-inf" : "inf");
    return;
  }
  if (biased == 0) {
    exponent = -149;
  } else {
    mantissa |= 0x800000;
  }
  if ((bits >> 31 != 0) != (factor < 0)) {
    put_char(dut, '-');
  }
  mantissa *= (uint64_t)(factor < 0 ? -factor : factor);
  if (exponent < 0) {
    put_fraction(dut, mantissa, exponent);
  } else {
    put_whole(dut, mantissa, exponent);
  }
}

/* CRC-32 as in zlib, four bits at a time.  Start with 0; may be continued. */
static uint32_t crc32(uint32_t crc, const void *data, size_t bytes) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
      0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
      0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  const uint8_t *byte = (const uint8_t *)data;
  crc = ~crc;
  for (; bytes > 0; --bytes, ++byte) {
    crc ^= *byte;
    crc = crc >> 4 ^ table[crc & 15];
    crc = crc >> 4 ^ table[crc & 15];
  }
  return ~crc;
}

/* ---- the model's input and outputs ---- */

static size_t total_bytes(const tinygen_tensor *tensors, int count) {
  size_t bytes = 0;
  int i;
  for (i = 0; i < count; ++i) {
    bytes += tensors[i].bytes;
  }
  return bytes;
}

static size_t input_bytes(const tinygen_model *model) {
  return total_bytes(model->inputs, model->input_count);
}

/* Byte `position` of all inputs laid one after another; `position` is below `input_bytes`. */
static uint8_t *input_byte(const tinygen_model *model, size_t position) {
  const tinygen_tensor *input = model->inputs;
  while (position >= input->bytes) {
    position -= input->bytes;
    ++input;
  }
  return (uint8_t *)input->data + position;
}

static size_t element_size(tinygen_type type) {
  return type == TINYGEN_INT8 || type == TINYGEN_UINT8 ? 1 : type == TINYGEN_INT16 ? 2 : 4;
}

static int32_t integer_at(const uint8_t *data, tinygen_type type) {
  int16_t half;
  int32_t word;
  if (type == TINYGEN_INT8) {
    return *data < 128 ? *data : *data - 256;
  }
  if (type == TINYGEN_UINT8) {
    return *data;
  }
  if (type == TINYGEN_INT16) {
    memcpy(&half, data, sizeof half);
    return half;
  }
  memcpy(&word, data, sizeof word);
  return word;
}

/* One element as a real number; as the integer it is when the tensor is not quantized. */
static void put_element(tinygen_dut *dut, const tinygen_tensor *tensor, const uint8_t *data) {
  uint32_t bits;
  if (tensor->type == TINYGEN_FLOAT32) {
    memcpy(&bits, data, sizeof bits);
    put_real(dut, bits, 1);
    return;
  }
  memcpy(&bits, &tensor->scale, sizeof bits);
  if (bits == 0) {
    put_real(dut, ONE, integer_at(data, tensor->type));
  } else {
    put_real(dut, bits, (int64_t)integer_at(data, tensor->type) - tensor->zero_point);
  }
}

static void put_results(tinygen_dut *dut) {
  const tinygen_model *model = dut->model;
  const char *separator = "";
  int i;
  put(dut, "m-results-[");
  for (i = 0; i < model->output_count; ++i) {
    const tinygen_tensor *output = &model->outputs[i];
    const size_t step = element_size(output->type);
    size_t at;
    for (at = 0; at < output->bytes; at += step) {
      put(dut, separator);
      put_element(dut, output, (const uint8_t *)output->data + at);
      separator = ",";
    }
  }
  put(dut, "]\r\n");
}

/* ---- inference ---- */

static uint64_t read_count(const tinygen_dut *dut) {
  return dut->io->count != NULL ? dut->io->count() : 0;
}

/* One inference, timed and counted; 0 when it failed, which the host has then been told. */
static int run_once(tinygen_dut *dut, uint64_t *elapsed) {
  uint64_t count;
  uint32_t start, stop;
  int status;
  start = dut->io->micros();
  count = read_count(dut);
  status = dut->model->run();
  dut->last_count = read_count(dut) - count;
  stop = dut->io->micros();
  *elapsed += (uint32_t)(stop - start);
  if (status != 0) {
    dut->state = EMPTY;
    put(dut, "e-[Inference failed with ");
    put_real(dut, ONE, status);
    put(dut, "]\r\n");
    return 0;
  }
  dut->state = dut->state == LOADED ? DONE : SPENT;
  return 1;
}

/* `times` inferences; the first of all prints its results when others will follow. */
static int run_many(tinygen_dut *dut, uint32_t times, int *first, uint64_t *elapsed) {
  for (; times > 0; --times) {
    if (!run_once(dut, elapsed)) {
      return 0;
    }
    if (*first) {
      *first = 0;
      put_results(dut);
      flush(dut);
    }
  }
  return 1;
}

static void put_lap(tinygen_dut *dut, uint64_t micros) {
  put(dut, "m-lap-us-");
  put_unsigned(dut, micros);
  put(dut, "\r\n");
}

static void infer(tinygen_dut *dut, uint32_t times, uint32_t warmups) {
  const int several = times > 1 || warmups > 0;
  int first = several;
  uint64_t elapsed = 0, start;
  if (dut->state != LOADED) {
    put(dut, "m-input-spent\r\n");
  }
  put(dut, "m-warmup-start-");
  put_unsigned(dut, warmups);
  put(dut, "\r\n");
  flush(dut);
  if (!run_many(dut, warmups, &first, &elapsed)) {
    return;
  }
  put(dut, "m-warmup-done\r\nm-infer-start-");
  put_unsigned(dut, times);
  put(dut, "\r\n");
  start = dut->io->micros();
  put_lap(dut, start);
  flush(dut);
  elapsed = 0;
  if (!run_many(dut, times, &first, &elapsed)) {
    return;
  }
  put_lap(dut, start + elapsed);
  put(dut, "m-infer-done\r\n");
  if (!several) {
    put_results(dut);
  }
}

#ifdef TINYGEN_TRACE
/* The `layers` command that is running, or NULL, and the count at which the present layer began. */
static tinygen_dut *tracing;
static uint64_t layer_start;

void tinygen_on_layer(const tinygen_model *model, int layer, const void *data, size_t bytes) {
  tinygen_dut *dut = tracing;
  uint64_t count;
  if (dut == NULL || dut->model != model) {
    return;
  }
  count = read_count(dut) - layer_start;
  put(dut, "m-layer-");
  put_unsigned(dut, (uint64_t)layer);
  put(dut, "-[");
  put_hex32(dut, crc32(0, data, bytes));
  put_char(dut, ',');
  put_unsigned(dut, bytes);
  put_char(dut, ',');
  put_unsigned(dut, count);
  put(dut, "]\r\n");
  layer_start = read_count(dut);
}

static void layers(tinygen_dut *dut) {
  uint64_t elapsed = 0;
  tracing = dut;
  layer_start = read_count(dut);
  run_once(dut, &elapsed);
  tracing = NULL;
}
#endif

/* ---- commands ---- */

/* The next word of a command, ended in place; "" when there is none. */
static char *next_word(char **cursor) {
  char *word = *cursor;
  char *end;
  while (*word == ' ') {
    ++word;
  }
  end = word;
  while (*end != ' ' && *end != '\0') {
    ++end;
  }
  *cursor = *end == '\0' ? end : end + 1;
  *end = '\0';
  return word;
}

static int is(const char *word, const char *name) { return strcmp(word, name) == 0; }

/* A decimal number below 2^32, `missing` for no word at all; 0 when it is anything else. */
static int parse_number(const char *word, uint32_t missing, uint32_t *number) {
  uint64_t value = 0;
  *number = missing;
  if (*word == '\0') {
    return 1;
  }
  for (; *word != '\0'; ++word) {
    if (*word < '0' || *word > '9') {
      return 0;
    }
    value = value * 10 + (uint64_t)(*word - '0');
    if (value > 0xffffffffu) {
      return 0;
    }
  }
  *number = (uint32_t)value;
  return 1;
}

static int hex_digit(char character) {
  if (character >= '0' && character <= '9') {
    return character - '0';
  }
  if (character >= 'a' && character <= 'f') {
    return character - 'a' + 10;
  }
  if (character >= 'A' && character <= 'F') {
    return character - 'A' + 10;
  }
  return -1;
}

static void db_load(tinygen_dut *dut, const char *word) {
  const size_t wanted = input_bytes(dut->model);
  uint32_t bytes;
  if (!parse_number(word, 0, &bytes) || bytes != wanted) {
    put(dut, "e-[The input is ");
    put_unsigned(dut, wanted);
    put(dut, " bytes]\r\n");
    return;
  }
  dut->loaded = 0;
  dut->state = LOADING;
  put(dut, "m-[Expecting ");
  put_unsigned(dut, wanted);
  put(dut, " bytes]\r\n");
}

static void put_input_crc(tinygen_dut *dut) {
  uint32_t crc = 0;
  int i;
  for (i = 0; i < dut->model->input_count; ++i) {
    crc = crc32(crc, dut->model->inputs[i].data, dut->model->inputs[i].bytes);
  }
  put(dut, "m-load-crc-[");
  put_hex32(dut, crc);
  put(dut, "]\r\n");
}

static void db_bytes(tinygen_dut *dut, const char *hex) {
  const size_t wanted = input_bytes(dut->model);
  const char *digit;
  if (dut->state != LOADING) {
    put_error(dut, "No 'db load' under way");
    return;
  }
  for (digit = hex; *digit != '\0'; ++digit) {
    if (hex_digit(*digit) < 0) {
      put_error(dut, "Invalid hex digit");
      return;
    }
  }
  if (((size_t)(digit - hex) & 1) != 0) {
    put_error(dut, "Insufficient number of hex digits");
    return;
  }
  for (; *hex != '\0' && dut->loaded < wanted; hex += 2) { /* more digits than wanted: ignored */
    *input_byte(dut->model, dut->loaded++) = (uint8_t)(hex_digit(hex[0]) << 4 | hex_digit(hex[1]));
  }
  if (dut->loaded == wanted) {
    dut->state = LOADED;
    put(dut, "m-load-done\r\n");
    put_input_crc(dut);
  }
}

static void db_print(tinygen_dut *dut, char *arguments) {
  const size_t bytes = input_bytes(dut->model);
  uint32_t count, offset;
  size_t at, end;
  if (!parse_number(next_word(&arguments), 0xffffffffu, &count) ||
      !parse_number(next_word(&arguments), 0, &offset) || offset > bytes) {
    put_error(dut, "db print [N] [OFFSET]");
    return;
  }
  end = count < bytes - offset ? offset + count : bytes;
  for (at = offset; at < end; ++at) {
    const int last = (at - offset) % 8 == 7 || at + 1 == end;
    if ((at - offset) % 8 == 0) {
      put(dut, "m-buffer-");
    }
    put_hex(dut, *input_byte(dut->model, at));
    put(dut, last ? "\r\n" : "-");
  }
}

static void do_db(tinygen_dut *dut, char *arguments) {
  const char *word = next_word(&arguments);
  if (is(word, "")) {
    put_error(dut, "Command 'db' requires a subcommand");
  } else if (is(word, "load")) {
    db_load(dut, next_word(&arguments));
  } else if (is(word, "print")) {
    db_print(dut, arguments);
  } else {
    db_bytes(dut, word);
  }
}

static void do_infer(tinygen_dut *dut, char *arguments) {
  uint32_t times, warmups;
  if (!parse_number(next_word(&arguments), 1, &times) || times == 0) {
    put_error(dut, "Inference iterations must be >0");
  } else if (!parse_number(next_word(&arguments), 10, &warmups)) {
    put_error(dut, "Inference warmup must be >=0");
  } else {
    infer(dut, times, warmups);
  }
}

/* Whether the outputs answer the last input; tells the host when not. */
static int outputs_hold(tinygen_dut *dut) {
  if (dut->state != DONE) {
    put_error(dut, dut->state == SPENT ? "The input was spent by an earlier inference: load it again"
                                       : "No inference since the last load");
    return 0;
  }
  return 1;
}

static void do_results(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  if (outputs_hold(dut)) {
    put_results(dut);
  }
}

static void do_output(tinygen_dut *dut, char *arguments) {
  const tinygen_model *model = dut->model;
  uint32_t crc = 0;
  size_t column = 0;
  int i;
  (void)arguments;
  if (!outputs_hold(dut)) {
    return;
  }
  for (i = 0; i < model->output_count; ++i) {
    const uint8_t *data = (const uint8_t *)model->outputs[i].data;
    size_t at;
    for (at = 0; at < model->outputs[i].bytes; ++at) {
      put(dut, column == 0 ? "m-output-[" : "");
      put_hex(dut, data[at]);
      column = (column + 1) % 32;
      put(dut, column == 0 ? "]\r\n" : "");
    }
    crc = crc32(crc, data, model->outputs[i].bytes);
  }
  put(dut, column != 0 ? "]\r\nm-output-crc-[" : "m-output-crc-[");
  put_hex32(dut, crc);
  put(dut, "]\r\n");
}

static void do_layers(tinygen_dut *dut, char *arguments) {
  (void)arguments;
#ifdef TINYGEN_TRACE
  if (dut->state == LOADED) {
    layers(dut);
  } else {
    put_error(dut, "Load an input first");
  }
#else
  put_error(dut, "Built without TINYGEN_TRACE");
#endif
}

static void do_model(tinygen_dut *dut, char *arguments) {
  const char *word = next_word(&arguments);
  uint32_t number;
  int i;
  if (is(word, "")) {
    for (i = 0; i < dut->model_count; ++i) {
      put(dut, "m-models-");
      put_unsigned(dut, (uint64_t)i);
      put(dut, "-[");
      put(dut, dut->models[i]->name);
      put(dut, "]\r\n");
    }
  } else if (!parse_number(word, 0, &number) || number >= (uint32_t)dut->model_count) {
    put_error(dut, "No such model");
  } else {
    dut->model = dut->models[number];
    dut->state = EMPTY;
    put_line(dut, "model", dut->model->name);
  }
}

static void do_info(tinygen_dut *dut, char *arguments) {
  const tinygen_model *model = dut->model;
  (void)arguments;
  put_line(dut, "info-protocol", PROTOCOL);
  put_line(dut, "info-model", model->name);
  put_line(dut, "info-sha256", model->sha256);
  put_number_line(dut, "info-models", (uint64_t)dut->model_count);
  put_number_line(dut, "info-input", input_bytes(model));
  put_number_line(dut, "info-output", total_bytes(model->outputs, model->output_count));
  put_number_line(dut, "info-arena", model->arena_bytes);
#ifdef TINYGEN_TRACE
  put_number_line(dut, "info-layers", (uint64_t)model->layer_count);
#else
  put_number_line(dut, "info-layers", 0);
#endif
  put_number_line(dut, "info-command", TINYGEN_DUT_COMMAND);
  put_line(dut, "info-count", dut->io->count_unit != NULL ? dut->io->count_unit : "none");
}

static void do_count(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put_number_line(dut, "count", dut->last_count);
}

static void do_stack(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put_number_line(dut, "stack", dut->io->stack_peak != NULL ? dut->io->stack_peak() : 0);
}

static void do_reset(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  dut->model->reset();
}

static void do_name(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put_line(dut, "name-dut", dut->io->name);
}

static void do_profile(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put_line(dut, "profile", PROFILE);
  put_line(dut, "model", dut->model->name);
}

static void do_timestamp(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put_lap(dut, dut->io->micros());
}

static void do_help(tinygen_dut *dut, char *arguments) {
  (void)arguments;
  put(dut, PROFILE "\r\n\r\n"
      "help, name, profile, timestamp\r\n"
      "db load N           : load N bytes, the whole input\r\n"
      "db HH[HH]*          : the next bytes\r\n"
      "db print [N] [OFFS] : show the input\r\n"
      "infer [N=1] [W=10]  : N timed inferences after W warm-ups\r\n"
      "results             : outputs as real numbers\r\n"
      "output              : outputs as bytes\r\n"
      "layers              : one inference, CRC-32 of each layer (TINYGEN_TRACE)\r\n"
      "count               : cycles or instructions of the last inference\r\n"
      "stack               : most stack used\r\n"
      "reset               : state of a streaming model to its start\r\n"
      "info                : this model and its sizes\r\n"
      "model [N]           : list or choose models\r\n");
}

static const struct {
  const char *name;
  void (*run)(tinygen_dut *dut, char *arguments);
} commands[] = {
    {"db", do_db},           {"infer", do_infer},     {"results", do_results},
    {"output", do_output},   {"layers", do_layers},   {"count", do_count},
    {"stack", do_stack},     {"reset", do_reset},     {"name", do_name},
    {"profile", do_profile}, {"timestamp", do_timestamp}, {"help", do_help},
    {"info", do_info},       {"model", do_model},
};

static void execute(tinygen_dut *dut) {
  char *arguments = dut->command;
  const char *word = next_word(&arguments);
  size_t i;
  for (i = 0; i < sizeof commands / sizeof commands[0]; ++i) {
    if (is(word, commands[i].name)) {
      commands[i].run(dut, arguments);
      return;
    }
  }
  if (!is(word, "")) {
    put(dut, "e-[Unknown command: ");
    put(dut, word);
    put(dut, "]\r\n");
  }
}

void tinygen_dut_begin(tinygen_dut *dut, const tinygen_dut_io *io,
                       const tinygen_model *const *models, int model_count) {
  int i;
  dut->io = io;
  dut->models = models;
  dut->model = models[0];
  dut->model_count = model_count;
  dut->state = EMPTY;
  dut->loaded = 0;
  dut->last_count = 0;
  dut->command_length = 0;
  dut->reply_length = 0;
  for (i = 0; i < model_count; ++i) {
    models[i]->init();
  }
  put(dut, "m-timestamp-mode-performance\r\n");
  put_lap(dut, io->micros());
  put(dut, "m-init-done\r\nm-ready\r\n");
  flush(dut);
}

void tinygen_dut_feed(tinygen_dut *dut, char received) {
  if (received == '%') {
    if (dut->command_length > TINYGEN_DUT_COMMAND) {
      put_error(dut, "Command too long");
    } else {
      dut->command[dut->command_length] = '\0';
      execute(dut);
    }
    dut->command_length = 0;
    put(dut, "m-ready\r\n");
    flush(dut);
  } else if (received != '\r' && received != '\n' && received != '\0') {
    if (dut->command_length < TINYGEN_DUT_COMMAND) {
      dut->command[dut->command_length] = received;
    }
    if (dut->command_length <= TINYGEN_DUT_COMMAND) {
      ++dut->command_length; /* one past the end means too long */
    }
  }
}
