/* A QEMU plugin that counts how often each block of instructions is executed.
 *
 *   -plugin file=block_counts.so,out=FILE[,mark=ADDRESS]...
 *
 * A block is what QEMU translates at once: instructions in a row, of which only the last can jump.
 * QEMU leaves a block early for a fault, and under `-icount` for access to a device; without those the
 * counts are exact.  Execution is cut into segments: the first starts at reset, and each time the
 * block at a marked address (a function's first instruction) is entered another one starts with it.
 *
 * FILE gets, in decimal, `segment <mark or -1>` for each segment, and below it for each block that ran
 * `<address> <instructions> <executions> <jumps>`; jumps are how often something else than the
 * instruction behind the block followed.  A block that was translated twice is listed twice.  The
 * file's last line is `end`, so that a file cut short is not mistaken for a whole one.
 *
 * QEMU's header is not needed: the declarations below are the ones of its plugin interface that are
 * used here.  PLUGIN_API is the interface's version, 1 up to QEMU 8 and 2 from QEMU 9 on.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PLUGIN_API
#define PLUGIN_API 1
#endif

struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef uint64_t plugin_id;
typedef void (*tb_translated)(plugin_id id, struct qemu_plugin_tb *tb);
typedef void (*tb_executed)(unsigned int cpu, void *data);
typedef void (*at_exit)(plugin_id id, void *data);

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, tb_translated call);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, tb_executed call,
                                          enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_atexit_cb(plugin_id id, at_exit call, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

#define EXPORT __attribute__((visibility("default")))
EXPORT extern int qemu_plugin_version;
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);

enum { MARKS = 64 };

typedef struct block {
  struct block *next;
  uint64_t address, end; /* of its first instruction, and behind its last */
  uint64_t executions, jumps;
  size_t instructions;
  bool mark;
} block;

int qemu_plugin_version = PLUGIN_API;

static uint64_t marks[MARKS];
static int mark_count;
static FILE *out;
static block *blocks;   /* all of them, the newest first */
static block *previous; /* the one executed last */
static int64_t segment = -1;

static void fail(const char *what) {
  fprintf(stderr, "block counts: %s\n", what);
  exit(1);
}

static void write_segment(void) {
  block *each;
  fprintf(out, "segment %" PRId64 "\n", segment);
  for (each = blocks; each != NULL; each = each->next) {
    if (each->executions == 0) continue;
    fprintf(out, "%" PRIu64 " %zu %" PRIu64 " %" PRIu64 "\n", each->address, each->instructions,
            each->executions, each->jumps);
    each->executions = 0;
    each->jumps = 0;
  }
}

static void executed(unsigned int cpu, void *data) {
  block *const now = data;
  (void)cpu;
  if (previous != NULL && previous->end != now->address) ++previous->jumps;
  previous = now;
  if (now->mark) {
    write_segment();
    segment = (int64_t)now->address;
  }
  ++now->executions;
}

static bool marked(uint64_t address) {
  int i;
  for (i = 0; i < mark_count; ++i) {
    if (marks[i] == address) return true;
  }
  return false;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  const size_t count = qemu_plugin_tb_n_insns(tb);
  const struct qemu_plugin_insn *const last = qemu_plugin_tb_get_insn(tb, count - 1);
  block *const made = calloc(1, sizeof *made);
  (void)id;
  if (made == NULL) fail("out of memory");
  made->address = qemu_plugin_tb_vaddr(tb);
  made->end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
  made->instructions = count;
  made->mark = marked(made->address);
  made->next = blocks;
  blocks = made;
  qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, made);
}

static void finish(plugin_id id, void *data) {
  (void)id;
  (void)data;
  write_segment();
  fputs("end\n", out);
  if (fclose(out) != 0) fail("cannot write the counts");
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  int i;
  (void)info;
  for (i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "out=", 4) == 0) {
      out = fopen(argv[i] + 4, "w");
    } else if (strncmp(argv[i], "mark=", 5) == 0 && mark_count < MARKS) {
      marks[mark_count++] = strtoull(argv[i] + 5, NULL, 0);
    } else {
      fail("bad argument");
    }
  }
  if (out == NULL) fail("cannot open the output file");
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
