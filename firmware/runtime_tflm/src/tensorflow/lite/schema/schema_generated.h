/* tflite::Model: of the schema, only what finds a generated model. */
#ifndef TENSORFLOW_LITE_SCHEMA_SCHEMA_GENERATED_H_
#define TENSORFLOW_LITE_SCHEMA_SCHEMA_GENERATED_H_

#include <stdint.h>

#include "tinygen_tflm.h"

namespace tflite {

class Model : private tinygen_tflm_header {
 public:
  Model() = delete;

  /* TFLITE_SCHEMA_VERSION; 0 when this is no generated model, but a flatbuffer or something else. */
  uint32_t version() const;

  /* The generated model, or null. */
  const tinygen_model *generated() const;
};

/* `data` is the array of a `<name>_model_data.h` that TinyGen wrote. */
inline const Model *GetModel(const void *data) { return static_cast<const Model *>(data); }

}  // namespace tflite

#endif
