/* TFLM's interpreter, allocator, messages and clock over generated models.  No heap. */
#include "tinygen_tflm.h"

#include <stdio.h>
#include <string.h>

#include "tensorflow/lite/micro/debug_log.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_time.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/micro/tflite_bridge/micro_error_reporter.h"

#ifdef __has_include
#if __has_include(<Arduino.h>)
#include <Arduino.h>
#define TINYGEN_HAS_SERIAL 1
#endif
#endif

#ifndef __GNUC__
#define WEAK
#else
#define WEAK __attribute__((weak))
#endif

namespace {

/* Of the arena, so that any record can stand there. */
const size_t kAlignment = sizeof(int64_t);

const char kIdentifier[4] = TINYGEN_TFLM_IDENTIFIER;

TfLiteType TfLiteTypeOf(tinygen_type type) {
  switch (type) {
    case TINYGEN_INT8:
      return kTfLiteInt8;
    case TINYGEN_INT16:
      return kTfLiteInt16;
    case TINYGEN_INT32:
      return kTfLiteInt32;
    case TINYGEN_FLOAT32:
      return kTfLiteFloat32;
    case TINYGEN_UINT8:
      return kTfLiteUInt8;
  }
  return kTfLiteNoType;
}

/* An array record for `count` elements, or null; TfLiteIntArray and TfLiteFloatArray. */
template <typename Array, typename Element>
Array *NewArray(tflite::MicroAllocator *allocator, int count) {
  const size_t bytes = sizeof(Array) + static_cast<size_t>(count) * sizeof(Element);
  Array *array = static_cast<Array *>(allocator->Allocate(bytes));
  if (array != nullptr) {
    array->size = count;
  }
  return array;
}

bool Describe(tflite::MicroAllocator *allocator, const tinygen_tensor &edge, TfLiteTensor *tensor) {
  memset(tensor, 0, sizeof *tensor);
  tensor->type = TfLiteTypeOf(edge.type);
  tensor->data.data = edge.data;
  tensor->params.scale = edge.scale;
  tensor->params.zero_point = edge.zero_point;
  tensor->allocation_type = kTfLiteArenaRw;
  tensor->bytes = edge.bytes;
  tensor->name = edge.name;
  tensor->dims = NewArray<TfLiteIntArray, int>(allocator, edge.rank);
  if (tensor->dims == nullptr) {
    return false;
  }
  for (int i = 0; i < edge.rank; ++i) {
    tensor->dims->data[i] = static_cast<int>(edge.shape[i]);
  }
  if (!(edge.scale > 0.0f)) {
    return true;
  }
  TfLiteAffineQuantization *affine = static_cast<TfLiteAffineQuantization *>(
      allocator->Allocate(sizeof(TfLiteAffineQuantization)));
  if (affine == nullptr) {
    return false;
  }
  affine->scale = NewArray<TfLiteFloatArray, float>(allocator, 1);
  affine->zero_point = NewArray<TfLiteIntArray, int>(allocator, 1);
  affine->quantized_dimension = 0;
  if (affine->scale == nullptr || affine->zero_point == nullptr) {
    return false;
  }
  affine->scale->data[0] = edge.scale;
  affine->zero_point->data[0] = static_cast<int>(edge.zero_point);
  tensor->quantization.type = kTfLiteAffineQuantization;
  tensor->quantization.params = affine;
  return true;
}

}  // namespace

namespace tflite {

/* ---- Model ------------------------------------------------------------------------------------- */

const tinygen_model *Model::generated() const {
  return memcmp(identifier, kIdentifier, sizeof kIdentifier) == 0 ? model : nullptr;
}

uint32_t Model::version() const { return generated() != nullptr ? TFLITE_SCHEMA_VERSION : 0; }

/* ---- Allocator --------------------------------------------------------------------------------- */

MicroAllocator *MicroAllocator::Create(uint8_t *arena, size_t size) {
  MicroAllocator allocator(arena, size);
  void *place = allocator.Allocate(sizeof allocator);
  if (place != nullptr) {
    memcpy(place, &allocator, sizeof allocator);
  }
  return static_cast<MicroAllocator *>(place);
}

void *MicroAllocator::Allocate(size_t bytes) {
  const uintptr_t next = reinterpret_cast<uintptr_t>(arena_) + used_;
  const size_t padding = (kAlignment - next % kAlignment) % kAlignment;
  if (size_ - used_ < padding || size_ - used_ - padding < bytes) {
    MicroPrintf("The arena of %u bytes is too small for the records of tensors",
                static_cast<unsigned>(size_));
    return nullptr;
  }
  void *result = arena_ + used_ + padding;
  used_ += padding + bytes;
  return result;
}

/* ---- Interpreter ------------------------------------------------------------------------------- */

TfLiteStatus MicroInterpreter::AllocateTensors() {
  const tinygen_model *model = Generated();
  if (model == nullptr || allocator_ == nullptr) {
    MicroPrintf("Not a model that TinyGen generated: include its <name>_model_data.h");
    return kTfLiteError;
  }
  if (tensors_ != nullptr) {
    return kTfLiteOk;
  }
  model->init();
  const size_t inputs = inputs_size();
  const size_t count = inputs + outputs_size();
  TfLiteTensor *tensors =
      static_cast<TfLiteTensor *>(allocator_->Allocate(count * sizeof(TfLiteTensor)));
  if (tensors == nullptr) {
    return kTfLiteError;
  }
  for (size_t i = 0; i < count; ++i) {
    const tinygen_tensor &edge = i < inputs ? model->inputs[i] : model->outputs[i - inputs];
    if (!Describe(allocator_, edge, &tensors[i])) {
      return kTfLiteError;
    }
  }
  tensors_ = tensors;
  return kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Invoke() {
  TF_LITE_ENSURE_STATUS(AllocateTensors());
  const tinygen_model *model = Generated();
  if (profiler_ == nullptr) {
    return model->run() == 0 ? kTfLiteOk : kTfLiteError;
  }
  const uint32_t event = profiler_->BeginEvent(model->name);
  const int status = model->run();
  profiler_->EndEvent(event);
  return status == 0 ? kTfLiteOk : kTfLiteError;
}

TfLiteStatus MicroInterpreter::Reset() {
  TF_LITE_ENSURE_STATUS(AllocateTensors());
  Generated()->reset();
  return kTfLiteOk;
}

size_t MicroInterpreter::inputs_size() const {
  const tinygen_model *model = Generated();
  return model != nullptr ? static_cast<size_t>(model->input_count) : 0;
}

size_t MicroInterpreter::outputs_size() const {
  const tinygen_model *model = Generated();
  return model != nullptr ? static_cast<size_t>(model->output_count) : 0;
}

TfLiteTensor *MicroInterpreter::input(size_t index) {
  return tensors_ != nullptr && index < inputs_size() ? &tensors_[index] : nullptr;
}

TfLiteTensor *MicroInterpreter::output(size_t index) {
  return tensors_ != nullptr && index < outputs_size() ? &tensors_[inputs_size() + index] : nullptr;
}

/* ---- Messages and time ------------------------------------------------------------------------- */

int ErrorReporter::Report(const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int status = Report(format, args);
  va_end(args);
  return status;
}

int ErrorReporter::ReportError(void *, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int status = Report(format, args);
  va_end(args);
  return status;
}

int MicroErrorReporter::Report(const char *format, va_list args) {
  VMicroPrintf(format, args);
  return 0;
}

ErrorReporter *GetMicroErrorReporter() {
  static MicroErrorReporter reporter;
  return &reporter;
}

void InitializeTarget() {
#ifdef TINYGEN_HAS_SERIAL
  Serial.begin(9600);
#endif
}

uint32_t ticks_per_second() {
#ifdef TINYGEN_HAS_SERIAL
  return 1000000;
#else
  return 0;
#endif
}

uint32_t GetCurrentTimeTicks() {
#ifdef TINYGEN_HAS_SERIAL
  return static_cast<uint32_t>(micros());
#else
  return 0;
#endif
}

}  // namespace tflite

extern "C" WEAK int DebugVsnprintf(char *buffer, size_t size, const char *format, va_list args) {
  return vsnprintf(buffer, size, format, args);
}

extern "C" WEAK void DebugLog(const char *format, va_list args) {
#ifdef TINYGEN_HAS_SERIAL
  char text[256];
  vsnprintf(text, sizeof text, format, args);
  Serial.print(text);
#else
  vfprintf(stderr, format, args);
#endif
}

#ifndef TF_LITE_STRIP_ERROR_STRINGS
static void PrintRaw(const char *format, ...) {
  va_list args;
  va_start(args, format);
  DebugLog(format, args);
  va_end(args);
}

void VMicroPrintf(const char *format, va_list args) {
  DebugLog(format, args);
  PrintRaw("\r\n");
}

void MicroPrintf(const char *format, ...) {
  va_list args;
  va_start(args, format);
  VMicroPrintf(format, args);
  va_end(args);
}

int MicroVsnprintf(char *buffer, size_t size, const char *format, va_list args) {
  return DebugVsnprintf(buffer, size, format, args);
}

int MicroSnprintf(char *buffer, size_t size, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int length = MicroVsnprintf(buffer, size, format, args);
  va_end(args);
  return length;
}
#endif

extern "C" const char *TfLiteTypeGetName(TfLiteType type) {
  switch (type) {
    case kTfLiteInt8:
      return "INT8";
    case kTfLiteInt16:
      return "INT16";
    case kTfLiteInt32:
      return "INT32";
    case kTfLiteFloat32:
      return "FLOAT32";
    case kTfLiteUInt8:
      return "UINT8";
    default:
      return "NOTYPE";
  }
}

extern "C" int TfLiteIntArrayEqual(const TfLiteIntArray *a, const TfLiteIntArray *b) {
  if (a == nullptr || b == nullptr || a->size != b->size) {
    return a == b;
  }
  for (int i = 0; i < a->size; ++i) {
    if (a->data[i] != b->data[i]) {
      return 0;
    }
  }
  return 1;
}
