/* float32 <-> IEEE 754 binary16.
 *
 * Both kernels: buffers stay the caller's, need no alignment and must not overlap.
 * Nothing is allocated, no state is kept: safe from any number of threads on distinct
 * outputs. `level` is at most `us_level()`; a higher one is undefined.
 * Return US_OK or US_ERR_OVERLAP.
 */
#ifndef US_FLOAT16_H
#define US_FLOAT16_H

#include "dispatch.h"

/* cdef: begin */
/* Read `count` float32 at x, write `count` binary16 at out. Rounds half to even; what
 * rounds beyond 65504 becomes infinity; subnormals are kept; NaN becomes a quiet NaN
 * with its sign and the leading bits of its payload. */
int us_to_float16(const void *x, size_t count, void *out, int level);

/* Read `count` binary16 at h, write `count` float32 at out. Exact; NaN becomes quiet. */
int us_to_float32(const void *h, size_t count, void *out, int level);
/* cdef: end */

#endif
