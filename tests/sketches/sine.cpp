/* A sketch in the manner of TFLM's first example: one number in, one number out, messages.
 *
 * It names only what TFLM, Arduino's libraries and TinyGen's headers all have, and its model array
 * as the build says (MODEL_HEADER, g_model).
 */
#include MODEL_HEADER

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

const tflite::Model *model = nullptr;
tflite::MicroInterpreter *interpreter = nullptr;
TfLiteTensor *input = nullptr;
TfLiteTensor *output = nullptr;

constexpr int kTensorArenaSize = 2500;
alignas(16) uint8_t tensor_arena[kTensorArenaSize];

}  // namespace

void setup() {
  tflite::InitializeTarget();
  model = tflite::GetModel(g_model);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    MicroPrintf("schema %d, not %d", static_cast<int>(model->version()), TFLITE_SCHEMA_VERSION);
    return;
  }
  static tflite::MicroMutableOpResolver<1> resolver;
  if (resolver.AddFullyConnected() != kTfLiteOk) {
    return;
  }
  static tflite::MicroInterpreter static_interpreter(model, resolver, tensor_arena,
                                                     kTensorArenaSize);
  interpreter = &static_interpreter;
  if (interpreter->AllocateTensors() != kTfLiteOk) {
    MicroPrintf("AllocateTensors failed");
    return;
  }
  input = interpreter->input(0);
  output = interpreter->output(0);
  MicroPrintf("input %s, rank %d, %d bytes", TfLiteTypeGetName(input->type), input->dims->size,
              static_cast<int>(input->bytes));
}

void loop() {
  static int step = 0;
  if (output == nullptr || step == 64) {
    return;
  }
  const float x = static_cast<float>(step++) * 6.28f / 64.0f;
  const int8_t x_quantized = static_cast<int8_t>(x / input->params.scale +
                                                 static_cast<float>(input->params.zero_point));
  input->data.int8[0] = x_quantized;
  if (interpreter->Invoke() != kTfLiteOk) {
    MicroPrintf("Invoke failed");
    return;
  }
  const float y =
      static_cast<float>(output->data.int8[0] - output->params.zero_point) * output->params.scale;
  MicroPrintf("%d: %d -> %d = %d thousandths", step, x_quantized, output->data.int8[0],
              static_cast<int>(y * 1000.0f));
}
