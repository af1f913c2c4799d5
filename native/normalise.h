/* Pixels to a network's input: uint8 [height, width, channel] to float32 [channel,
 * height, width], with a scale and an offset for each channel.
 *
 * Buffers stay the caller's, need no alignment; out must not overlap pixels. Nothing is
 * allocated, no state is kept: safe from any number of threads on distinct outputs.
 * `level` is at most `us_level()`; a higher one is undefined.
 */
#ifndef US_NORMALISE_H
#define US_NORMALISE_H

#include "dispatch.h"

/* cdef: begin */
/* Read count * channels uint8 at pixels, `channels` float32 at scale and at offset;
 * write channels * count float32 at out, where count = height * width:
 *
 *     out[c][i] = pixels[i][c] * scale[c] + offset[c]
 *
 * Product and sum are each rounded (no fused multiply-add), so the result is the same
 * on every CPU, and NumPy's. Returns US_OK or US_ERR_OVERLAP. */
int us_normalise(const void *pixels, size_t count, size_t channels, const void *scale,
                 const void *offset, void *out, int level);
/* cdef: end */

#endif
