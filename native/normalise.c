#include "normalise.h"

#if defined(US_X86)
#include <immintrin.h>
#endif

/* One channel. `stride` is a constant where it is inlined, so that it vectorises. */
static US_INLINE void plane(const uint8_t *pixels, size_t count, size_t stride,
                            float scale, float offset, us_f32 *out)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        out[i] = (float)pixels[i * stride] * scale + offset;
}

static US_INLINE void planes(const uint8_t *pixels, size_t count, size_t channels,
                             const us_f32 *scale, const us_f32 *offset, us_f32 *out)
{
    for (size_t c = 0; c < channels; c++) {
        if (channels == 1)
            plane(pixels, count, 1, scale[c], offset[c], out);
        else
            plane(pixels + c, count, channels, scale[c], offset[c], out + c * count);
    }
}

static void planes_plain(const uint8_t *pixels, size_t count, size_t channels,
                         const us_f32 *scale, const us_f32 *offset, us_f32 *out)
{
    planes(pixels, count, channels, scale, offset, out);
}

/* Colour, with three channels or four: a whole number of groups of 8 or 16 pixels;
 * return how many pixels that was. */

#if defined(US_X86)

US_TARGET_AVX2 static void planes_avx2(const uint8_t *pixels, size_t count,
                                       size_t channels, const us_f32 *scale,
                                       const us_f32 *offset, us_f32 *out)
{
    planes(pixels, count, channels, scale, offset, out);
}

US_TARGET_AVX2 static US_INLINE void store_avx2(__m256i values, float scale,
                                                float offset, us_f32 *out)
{
    __m256 v = _mm256_cvtepi32_ps(values);

    v = _mm256_add_ps(_mm256_mul_ps(v, _mm256_set1_ps(scale)), _mm256_set1_ps(offset));
    _mm256_storeu_ps((float *)out, v);
}

/* The bytes of one channel from 48 bytes of pixels: in each third, a shuffle moves them
 * to where they belong and clears the rest (index 128). */
US_TARGET_AVX2 static size_t three_avx2(const uint8_t *pixels, size_t count,
                                        const us_f32 *scale, const us_f32 *offset,
                                        us_f32 *out)
{
    size_t i;
    __m128i pick[3][3];

    for (int c = 0; c < 3; c++) {
        for (int third = 0; third < 3; third++) {
            uint8_t index[16];

            for (int k = 0; k < 16; k++) {
                int at = 3 * k + c - 16 * third;

                index[k] = at >= 0 && at < 16 ? (uint8_t)at : 128;
            }
            pick[c][third] = _mm_loadu_si128((const __m128i *)index);
        }
    }
    for (i = 0; i + 16 <= count; i += 16) {
        const __m128i *from = (const __m128i *)(pixels + 3 * i);
        __m128i first = _mm_loadu_si128(from), second = _mm_loadu_si128(from + 1),
                third = _mm_loadu_si128(from + 2);

        for (int c = 0; c < 3; c++) {
            __m128i bytes = _mm_or_si128(
                _mm_or_si128(_mm_shuffle_epi8(first, pick[c][0]),
                             _mm_shuffle_epi8(second, pick[c][1])),
                _mm_shuffle_epi8(third, pick[c][2]));
            us_f32 *to = out + (size_t)c * count + i;

            store_avx2(_mm256_cvtepu8_epi32(bytes), scale[c], offset[c], to);
            store_avx2(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), scale[c],
                       offset[c], to + 8);
        }
    }
    return i;
}

/* A pixel is one 32-bit lane: shifting brings each channel to the bottom. */
US_TARGET_AVX2 static size_t four_avx2(const uint8_t *pixels, size_t count,
                                       const us_f32 *scale, const us_f32 *offset,
                                       us_f32 *out)
{
    size_t i;

    for (i = 0; i + 8 <= count; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(pixels + 4 * i));

        for (int c = 0; c < 4; c++) {
            store_avx2(_mm256_and_si256(v, _mm256_set1_epi32(255)), scale[c], offset[c],
                       out + (size_t)c * count + i);
            v = _mm256_srli_epi32(v, 8);
        }
    }
    return i;
}

#elif defined(__aarch64__)

static US_INLINE void store_neon(uint16x8_t values, float scale, float offset,
                                 us_f32 *out)
{
    const float32x4_t add = vdupq_n_f32(offset);
    float32x4_t low = vcvtq_f32_u32(vmovl_u16(vget_low_u16(values)));
    float32x4_t high = vcvtq_f32_u32(vmovl_u16(vget_high_u16(values)));

    us_store_neon(out, vaddq_f32(vmulq_n_f32(low, scale), add));
    us_store_neon(out + 4, vaddq_f32(vmulq_n_f32(high, scale), add));
}

static size_t three_neon(const uint8_t *pixels, size_t count, const us_f32 *scale,
                         const us_f32 *offset, us_f32 *out)
{
    size_t i;

    for (i = 0; i + 8 <= count; i += 8) {
        uint8x8x3_t v = vld3_u8(pixels + 3 * i);

        for (int c = 0; c < 3; c++)
            store_neon(vmovl_u8(v.val[c]), scale[c], offset[c],
                       out + (size_t)c * count + i);
    }
    return i;
}

static size_t four_neon(const uint8_t *pixels, size_t count, const us_f32 *scale,
                        const us_f32 *offset, us_f32 *out)
{
    size_t i;

    for (i = 0; i + 8 <= count; i += 8) {
        uint8x8x4_t v = vld4_u8(pixels + 4 * i);

        for (int c = 0; c < 4; c++)
            store_neon(vmovl_u8(v.val[c]), scale[c], offset[c],
                       out + (size_t)c * count + i);
    }
    return i;
}

#endif

static size_t colour(const uint8_t *pixels, size_t count, size_t channels,
                     const us_f32 *scale, const us_f32 *offset, us_f32 *out, int level)
{
    (void)level;
#if defined(US_X86)
    if (level >= US_LEVEL_VECTOR)
        return channels == 3 ? three_avx2(pixels, count, scale, offset, out)
                             : four_avx2(pixels, count, scale, offset, out);
#elif defined(__aarch64__)
    if (level >= US_LEVEL_VECTOR)
        return channels == 3 ? three_neon(pixels, count, scale, offset, out)
                             : four_neon(pixels, count, scale, offset, out);
#endif
    (void)pixels, (void)count, (void)channels, (void)scale, (void)offset, (void)out;
    return 0;
}

int us_normalise(const void *pixels, size_t count, size_t channels, const void *scale,
                 const void *offset, void *out, int level)
{
    const uint8_t *from = pixels;
    const us_f32 *factors = scale, *offsets = offset;
    us_f32 *to = out;
    size_t done;

    if (us_overlap(pixels, count * channels, out, count * channels * sizeof *to))
        return US_ERR_OVERLAP;
    if (channels == 3 || channels == 4) {
        done = colour(from, count, channels, factors, offsets, to, level);
        for (size_t c = 0; c < channels; c++)
            plane(from + done * channels + c, count - done, channels, factors[c],
                  offsets[c], to + c * count + done);
        return US_OK;
    }
#if defined(US_X86)
    if (level >= US_LEVEL_VECTOR) {
        planes_avx2(from, count, channels, factors, offsets, to);
        return US_OK;
    }
#endif
    planes_plain(from, count, channels, factors, offsets, to);
    return US_OK;
}
