/* The serial protocol of MLPerf Tiny's device under test, for any model TinyGen generates.
 *
 * A program owns one `tinygen_dut`, tells it how to write and how to read the time, and hands it the
 * characters it receives.  About 200 bytes of RAM: no heap, no copy of the input (`db load` fills the
 * model's own input, several inputs one after another), no float arithmetic.
 *
 * A command ends in '%', line ends are ignored, every reply ends in the line "m-ready".  Lines that
 * begin with "m-" carry the answer, lines that begin with "e-[" say what went wrong.
 *
 * As MLPerf Tiny's runner knows them:
 *   name, profile, help, timestamp
 *   db load N           start to load N bytes, which must be all of the model's input
 *   db HEX              the next bytes; a line that is not clean hexadecimal changes nothing
 *   db print [N] [OFFS] N bytes of the input from offset OFFS, all of them by default
 *   infer [N=1] [W=10]  W warm-ups, then N timed inferences; "m-lap-us" before and after
 *   results             real values of all outputs
 *
 * TinyGen's own, for exact checks and for measuring:
 *   info                SHA-256 of the model file, sizes, longest command, what `count` counts
 *   model [N]           list the models of this program, or choose one
 *   output              bytes of all outputs as hexadecimal, then their CRC-32
 *   layers              one inference; after each layer its number, CRC-32, bytes and count
 *                       (in programs compiled with TINYGEN_TRACE)
 *   count               cycles or instructions of the last inference
 *   stack               most bytes of stack used since start
 *   reset               state of a streaming model back to its start
 *
 * An inference may overwrite its input, because the planner gives that memory to later layers.  Only
 * the first inference after a load has a meaning, so `infer` prints the results of its first one
 * (before the others when there are several; the clock stands still meanwhile), and `results` and
 * `output` refuse to answer after a second one.  The others measure time: they run on what was left,
 * and integer kernels do the same work whatever the data.  An `infer` without a fresh input says
 * "m-input-spent".  "m-lap-us" is the sum of the timed inferences alone.
 */
#ifndef TINYGEN_DUT_H
#define TINYGEN_DUT_H

#include "tinygen.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Longest command and the replies' buffer.  80 characters is what MLPerf Tiny's runner expects. */
#ifndef TINYGEN_DUT_COMMAND
#define TINYGEN_DUT_COMMAND 80
#endif
#ifndef TINYGEN_DUT_REPLY
#define TINYGEN_DUT_REPLY 64
#endif

typedef struct tinygen_dut_io {
  const char *name;                              /* what `name` answers, such as the board's */
  void (*write)(const char *text, size_t count); /* sends all of it */
  uint32_t (*micros)(void);                      /* may wrap */
  uint64_t (*count)(void);                       /* NULL when there is no counter */
  const char *count_unit;                        /* "cycles", "instructions", or NULL */
  size_t (*stack_peak)(void);                    /* NULL when not known */
} tinygen_dut_io;

/* To be allocated by the program and left alone. */
typedef struct tinygen_dut {
  const tinygen_dut_io *io;
  const tinygen_model *const *models;
  const tinygen_model *model;
  int model_count;
  int state;
  size_t loaded;
  uint64_t last_count;
  size_t command_length;
  size_t reply_length;
  char command[TINYGEN_DUT_COMMAND + 1];
  char reply[TINYGEN_DUT_REPLY];
} tinygen_dut;

/* Initialises every model, chooses the first, greets the host.  `models` must stay. */
void tinygen_dut_begin(tinygen_dut *dut, const tinygen_dut_io *io,
                       const tinygen_model *const *models, int model_count);

/* Takes one received character; on '%' carries the command out and replies before it returns. */
void tinygen_dut_feed(tinygen_dut *dut, char received);

#ifdef __cplusplus
}
#endif

#endif
