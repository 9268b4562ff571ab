/* The older path of tflite_bridge/micro_error_reporter.h. */
#ifndef TENSORFLOW_LITE_MICRO_MICRO_ERROR_REPORTER_H_
#define TENSORFLOW_LITE_MICRO_MICRO_ERROR_REPORTER_H_

#include "tensorflow/lite/micro/tflite_bridge/micro_error_reporter.h"

#endif
