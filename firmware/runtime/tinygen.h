/* TinyGen's runtime header: how generated models describe themselves.
 *
 * A generated model needs nothing else.  Code that works with any model (the serial protocol, the
 * TensorFlow Lite Micro interface, a scheduler of yours) takes a `const tinygen_model *`; a program
 * that knows its model calls `<name>_init`, `<name>_input`, `<name>_run` and `<name>_output` and
 * never pays for the descriptor.
 */
#ifndef TINYGEN_H
#define TINYGEN_H

#include <stddef.h>
#include <stdint.h>

/* Raised whenever generated code and this header must change together. */
#define TINYGEN_RUNTIME_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tinygen_type {
  TINYGEN_INT8 = 0,
  TINYGEN_INT16 = 1,
  TINYGEN_INT32 = 2,
  TINYGEN_FLOAT32 = 3,
  TINYGEN_UINT8 = 4
} tinygen_type;

/* An input or output: real value = scale * (element - zero_point); scale is 0 when not quantized. */
typedef struct tinygen_tensor {
  const char *name;
  tinygen_type type;
  int rank;
  const int32_t *shape; /* `rank` extents */
  size_t bytes;
  float scale;
  int32_t zero_point;
  void *data; /* fixed address inside the model's arena */
} tinygen_tensor;

typedef struct tinygen_model {
  const char *name;
  const char *sha256; /* of the model file, 64 hexadecimal digits */
  int input_count;
  int output_count;
  int layer_count; /* layers that `tinygen_on_layer` reports */
  const tinygen_tensor *inputs;
  const tinygen_tensor *outputs;
  size_t arena_bytes;
  void (*init)(void);  /* once, before anything else */
  void (*reset)(void); /* state of streaming models to its start; nothing for the others */
  int (*run)(void);    /* 0, or an engine's error code */
} tinygen_model;

/* Called after each layer when the model is compiled with TINYGEN_TRACE defined; the program defines
 * it.  `data` is the layer's output, valid until the next layer runs. */
void tinygen_on_layer(const tinygen_model *model, int layer, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
