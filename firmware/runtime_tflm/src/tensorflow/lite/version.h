/* The version of TensorFlow Lite's schema that models have to be of. */
#ifndef TENSORFLOW_LITE_VERSION_H_
#define TENSORFLOW_LITE_VERSION_H_

#define TFLITE_SCHEMA_VERSION (3)

#endif
