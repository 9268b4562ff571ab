/* Tells whether an emulated port's counter counts instructions. */
#ifndef TINYGEN_ICOUNT_H
#define TINYGEN_ICOUNT_H

#ifdef __cplusplus
extern "C" {
#endif

/* The unit of `tinygen_port_count` on QEMU: "instructions" under `-icount shift=0`, and "none"
 * otherwise, when QEMU's clock is the host's and the count means nothing. */
const char *tinygen_icount_unit(void);

#ifdef __cplusplus
}
#endif

#endif
