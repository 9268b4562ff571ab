/* How tflite::GetModel finds a generated model: what `<name>_model_data.h` gives a sketch for an array.
 *
 * The headers beside this one have the include paths and the names of TensorFlow Lite Micro (TFLM) on
 * top of `tinygen_model`, so that a sketch written for TFLM runs the generated code with another
 * model array and nothing else changed.  What differs:
 *
 *   - The model has one set of buffers of its own; interpreters of the same model share them.
 *   - A sketch's arena holds tensor records alone, a few hundred bytes: arena_used_bytes() says how
 *     many, and the rest of the arena is better given back.
 *   - Operator resolvers take every operator and keep none.  There are no custom operators, no
 *     intermediate tensors, and no flatbuffer behind tflite::Model but its version.
 */
#ifndef TINYGEN_TFLM_H
#define TINYGEN_TFLM_H

#include "tinygen.h"

#define TINYGEN_TFLM_IDENTIFIER {'T', 'G', 'E', 'N'}

/* Laid out so that it cannot be taken for a flatbuffer, which has its identifier in the same place. */
typedef struct tinygen_tflm_header {
  uint32_t reserved;
  char identifier[4];
  const tinygen_model *model;
} tinygen_tflm_header;

#endif
