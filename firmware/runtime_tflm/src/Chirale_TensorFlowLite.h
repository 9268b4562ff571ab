/* TensorFlowLite.h under the name of Chirale's Arduino library. */
#ifndef CHIRALE_TENSORFLOWLITE_H_
#define CHIRALE_TENSORFLOWLITE_H_

#include "TensorFlowLite.h"

#endif
