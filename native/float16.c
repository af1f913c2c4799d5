#include "float16.h"

#include <string.h>

#if defined(US_X86)
#include <immintrin.h>
#endif

static US_INLINE uint32_t bits_of(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static US_INLINE float float_of(uint32_t bits)
{
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

/* The plain bodies follow Fabian Giesen's float_to_half_fast3_rtne and
 * half_to_float_fast4 (https://gist.github.com/rygorous/2156668, public domain), without
 * branches so that compilers vectorise them. */

static void to_float16_plain(const us_f32 *x, size_t count, us_u16 *out)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = bits_of(x[i]), magnitude = bits & 0x7fffffffu;
        /* Re-bias the exponent and round at bit 13; a carry into it is right. */
        const uint32_t normal =
            (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
        /* 0.5 has the unit of a binary16 subnormal in its last place: adding rounds. */
        const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - (126u << 23);
        const uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
        uint32_t h = magnitude < (113u << 23) ? subnormal : normal;

        h = magnitude >= (143u << 23) ? 0x7c00u : h;
        h = magnitude > (255u << 23) ? nan : h;
        out[i] = (uint16_t)(h | ((bits >> 16) & 0x8000u));
    }
}

static void to_float32_plain(const us_u16 *h, size_t count, us_f32 *out)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = h[i], magnitude = bits & 0x7fffu;
        const uint32_t normal = (magnitude << 13) + (112u << 23);
        /* 2^-14 plus the fraction, minus 2^-14: normalised by the subtraction. */
        const uint32_t subnormal =
            bits_of(float_of((magnitude << 13) + (113u << 23)) - 0x1p-14f);
        const uint32_t special = (magnitude << 13) | (255u << 23);
        uint32_t f = magnitude < 0x400u ? subnormal : normal;

        f = magnitude >= 0x7c00u ? special : f;
        f = magnitude > 0x7c00u ? f | (1u << 22) : f;
        out[i] = float_of(f | ((bits & 0x8000u) << 16));
    }
}

/* Vector bodies. Each does a whole number of groups and returns how many elements that
 * is; the entry points leave head and tail to the plain bodies. Hardware rounds as
 * written in the instruction (x86) or by default (Arm), and keeps subnormals. */

#if defined(US_X86)

US_TARGET_AVX2 static size_t to_float16_avx2(const us_f32 *x, size_t count, us_u16 *out)
{
    size_t i;

    for (i = 0; i + 16 <= count; i += 16) {
        __m256 a = _mm256_loadu_ps((const float *)(x + i));
        __m256 b = _mm256_loadu_ps((const float *)(x + i + 8));

        _mm256_storeu_si256(
            (__m256i *)(out + i),
            _mm256_set_m128i(_mm256_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)));
    }
    return i;
}

US_TARGET_AVX2 static size_t to_float32_avx2(const us_u16 *h, size_t count, us_f32 *out)
{
    size_t i;

    for (i = 0; i + 16 <= count; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(h + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(h + i + 8));

        _mm256_storeu_ps((float *)(out + i), _mm256_cvtph_ps(a));
        _mm256_storeu_ps((float *)(out + i + 8), _mm256_cvtph_ps(b));
    }
    return i;
}

#elif defined(__aarch64__)

static size_t to_float16_neon(const us_f32 *x, size_t count, us_u16 *out)
{
    size_t i;

    for (i = 0; i + 8 <= count; i += 8) {
        float16x8_t h = vcombine_f16(vcvt_f16_f32(us_load_neon(x + i)),
                                     vcvt_f16_f32(us_load_neon(x + i + 4)));

        vst1q_u8((uint8_t *)(out + i), vreinterpretq_u8_f16(h));
    }
    return i;
}

static size_t to_float32_neon(const us_u16 *h, size_t count, us_f32 *out)
{
    size_t i;

    for (i = 0; i + 8 <= count; i += 8) {
        float16x8_t v = vreinterpretq_f16_u8(vld1q_u8((const uint8_t *)(h + i)));

        us_store_neon(out + i, vcvt_f32_f16(vget_low_f16(v)));
        us_store_neon(out + i + 4, vcvt_f32_f16(vget_high_f16(v)));
    }
    return i;
}

#endif

int us_to_float16(const void *x, size_t count, void *out, int level)
{
    const us_f32 *from = x;
    us_u16 *to = out;
    size_t head = us_head(out, sizeof *to, count), done = head;

    (void)level;
    if (us_overlap(x, count * sizeof *from, out, count * sizeof *to))
        return US_ERR_OVERLAP;
#if defined(US_X86)
    if (level >= US_LEVEL_VECTOR)
        done += to_float16_avx2(from + head, count - head, to + head);
#elif defined(__aarch64__)
    if (level >= US_LEVEL_VECTOR)
        done += to_float16_neon(from + head, count - head, to + head);
#endif
    to_float16_plain(from, head, to);
    to_float16_plain(from + done, count - done, to + done);
    return US_OK;
}

int us_to_float32(const void *h, size_t count, void *out, int level)
{
    const us_u16 *from = h;
    us_f32 *to = out;
    size_t head = us_head(out, sizeof *to, count), done = head;

    (void)level;
    if (us_overlap(h, count * sizeof *from, out, count * sizeof *to))
        return US_ERR_OVERLAP;
#if defined(US_X86)
    if (level >= US_LEVEL_VECTOR)
        done += to_float32_avx2(from + head, count - head, to + head);
#elif defined(__aarch64__)
    if (level >= US_LEVEL_VECTOR)
        done += to_float32_neon(from + head, count - head, to + head);
#endif
    to_float32_plain(from, head, to);
    to_float32_plain(from + done, count - done, to + done);
    return US_OK;
}
