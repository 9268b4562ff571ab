/* A sketch in the manner of person detection: an image, a hand-picked resolver with int8 kernels,
 * checks of shape and type, raw bytes of the output, a new interpreter for every image.
 */
#include MODEL_HEADER

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

constexpr int kSide = 96;
constexpr int kCategories = 2;
constexpr int kTensorArenaSize = 136 * 1024;
uint8_t tensor_arena[kTensorArenaSize];

using PersonResolver = tflite::MicroMutableOpResolver<5>;

TfLiteStatus RegisterOps(PersonResolver &resolver) {
  TF_LITE_ENSURE_STATUS(resolver.AddAveragePool2D(tflite::Register_AVERAGE_POOL_2D_INT8()));
  TF_LITE_ENSURE_STATUS(resolver.AddConv2D(tflite::Register_CONV_2D_INT8()));
  TF_LITE_ENSURE_STATUS(resolver.AddDepthwiseConv2D(tflite::Register_DEPTHWISE_CONV_2D_INT8()));
  TF_LITE_ENSURE_STATUS(resolver.AddReshape());
  TF_LITE_ENSURE_STATUS(resolver.AddSoftmax(tflite::Register_SOFTMAX_INT8()));
  return kTfLiteOk;
}

void TakePicture(uint32_t seed, int8_t *pixels) {
  for (int i = 0; i < kSide * kSide; ++i) {
    seed = seed * 1664525u + 1013904223u;
    pixels[i] = static_cast<int8_t>(static_cast<uint8_t>(seed >> 24));
  }
}

TfLiteStatus Detect(uint32_t seed) {
  const tflite::Model *model = ::tflite::GetModel(g_model);
  TFLITE_CHECK_EQ(static_cast<int>(model->version()), TFLITE_SCHEMA_VERSION);
  PersonResolver resolver;
  TF_LITE_ENSURE_STATUS(RegisterOps(resolver));
  tflite::MicroInterpreter interpreter(model, resolver, tensor_arena, kTensorArenaSize);
  TF_LITE_ENSURE_STATUS(interpreter.AllocateTensors());

  TfLiteTensor *input = interpreter.input(0);
  if (interpreter.inputs_size() != 1 || input->dims->size != 4 || input->dims->data[0] != 1 ||
      input->dims->data[1] != kSide || input->dims->data[2] != kSide ||
      input->dims->data[3] != 1 || input->type != kTfLiteInt8) {
    MicroPrintf("Bad input tensor parameters in model");
    return kTfLiteError;
  }
  TakePicture(seed, interpreter.typed_input_tensor<int8_t>(0));
  TF_LITE_ENSURE_STATUS(interpreter.Invoke());

  TfLiteTensor *output = interpreter.output(0);
  TFLITE_CHECK_EQ(output->dims->data[output->dims->size - 1], kCategories);
  const int8_t *scores = tflite::GetTensorData<int8_t>(output);
  MicroPrintf("seed %u: %d %d, as bytes %u %u", static_cast<unsigned>(seed), scores[0], scores[1],
              output->data.uint8[0], output->data.uint8[1]);
  return kTfLiteOk;
}

}  // namespace

void setup() {}

void loop() {
  static uint32_t seed = 0;
  if (seed < 3 && Detect(++seed) != kTfLiteOk) {
    MicroPrintf("Detection failed");
  }
}
