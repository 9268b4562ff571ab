/* A sketch in the manner of older Arduino examples: every operator, an error reporter, its own log.
 *
 * TFLM has dropped this interface since; Arduino's library still has the resolver.
 */
#include <TensorFlowLite.h>

#include MODEL_HEADER

#include "tensorflow/lite/micro/all_ops_resolver.h"
#include "tensorflow/lite/micro/micro_error_reporter.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "tensorflow/lite/version.h"

namespace {
tflite::ErrorReporter *error_reporter = nullptr;
tflite::MicroInterpreter *interpreter = nullptr;
alignas(16) uint8_t tensor_arena[16 * 1024];
}  // namespace

void setup() {
  static tflite::MicroErrorReporter micro_error_reporter;
  error_reporter = &micro_error_reporter;
  const tflite::Model *model = tflite::GetModel(g_model);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    TF_LITE_REPORT_ERROR(error_reporter, "schema %d, not %d", static_cast<int>(model->version()),
                         TFLITE_SCHEMA_VERSION);
    return;
  }
  static tflite::AllOpsResolver resolver;
  static tflite::MicroInterpreter static_interpreter(model, resolver, tensor_arena,
                                                     sizeof tensor_arena, error_reporter);
  if (static_interpreter.AllocateTensors() != kTfLiteOk) {
    TF_LITE_REPORT_ERROR(error_reporter, "AllocateTensors failed");
    return;
  }
  interpreter = &static_interpreter;
}

void loop() {
  static int step = 0;
  if (interpreter == nullptr || step == 3) {
    return;
  }
  TfLiteTensor *input = interpreter->input(0);
  for (size_t i = 0; i < input->bytes; ++i) {
    input->data.int8[i] = static_cast<int8_t>((static_cast<int>(i) * (step + 3)) % 256 - 128);
  }
  if (interpreter->Invoke() != kTfLiteOk) {
    TF_LITE_REPORT_ERROR(error_reporter, "Invoke failed");
    return;
  }
  TfLiteTensor *output = interpreter->output(0);
  for (size_t i = 0; i < output->bytes; ++i) {
    TF_LITE_REPORT_ERROR(error_reporter, "%d %d %d", step, static_cast<int>(i),
                         output->data.int8[i]);
  }
  ++step;
}
