/* The header that makes Arduino's build find the library; it only needs to be there. */
#ifndef TENSORFLOWLITE_H_
#define TENSORFLOWLITE_H_

#include "tinygen_tflm.h"

#endif
