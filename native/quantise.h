/* float32 <-> uint8 with one scale and one zero point for the whole tensor.
 *
 * The arithmetic is that of ONNX DynamicQuantizeLinear (opset 11) and DequantizeLinear
 * (opset 10), bit for bit.
 *
 * Both kernels: buffers stay the caller's, need no alignment and must not overlap.
 * Nothing is allocated, no state is kept: safe from any number of threads on distinct
 * outputs. `level` is at most `us_level()`; a higher one is undefined.
 */
#ifndef US_QUANTISE_H
#define US_QUANTISE_H

#include "dispatch.h"

/* cdef: begin */
typedef struct {
    float scale;    /* real value of one step, > 0 */
    int zero_point; /* 0..255, the code of 0.0 */
    int status;     /* US_OK, US_ERR_RANGE or US_ERR_OVERLAP */
} us_quantisation;

/* Read `count` float32 at x, write `count` uint8 at out.
 *
 *     scale      = (max(0, max x) - min(0, min x)) / 255
 *     zero_point = saturate(round_half_even(-min(0, min x) / scale))
 *     out        = saturate(round_half_even(x / scale) + zero_point)
 *
 * NaN does not count for the range and becomes code 0, as in onnxruntime on x86-64. If
 * scale would be 0 (no elements, all 0 or NaN, or a range below 1.8e-43) then scale = 1
 * and zero_point = 0. US_ERR_RANGE: x holds an infinity, or max - min overflows; out is
 * untouched. */
us_quantisation us_quantise(const void *x, size_t count, void *out, int level);

/* Read `count` uint8 at q, write `count` float32 at out: (q - zero_point) * scale.
 * zero_point is 0..255. Returns US_OK or US_ERR_OVERLAP. */
int us_dequantise(const void *q, size_t count, float scale, int zero_point, void *out,
                  int level);
/* cdef: end */

#endif
