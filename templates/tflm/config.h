/* How TensorFlow Lite Micro is compiled here; included before everything else in its sources.
 *
 * Tensors live in the arena alone, and it is a release: no assertions and no messages, which also
 * spares stdio.  To see messages, take the definitions in the second block away and define DebugLog.
 * Layer by layer checks need them gone: TFLM tells its profiler of operators only then.
 */
#ifndef TINYGEN_TFLM_CONFIG_H
#define TINYGEN_TFLM_CONFIG_H

#ifndef TF_LITE_STATIC_MEMORY
#define TF_LITE_STATIC_MEMORY
#endif
#ifndef TINYGEN_TRACE
#ifndef NDEBUG
#define NDEBUG
#endif
#ifndef TF_LITE_STRIP_ERROR_STRINGS
#define TF_LITE_STRIP_ERROR_STRINGS
#endif
#endif

#endif
