/* What every kernel shares: return codes, instruction-set levels, unaligned types.
 *
 * The caller asks `us_level()` once and hands the answer to each kernel, so that a
 * kernel reads no global and a test can run every level that the machine has. Ifuncs
 * (`target_clones`) would be shorter, but musl and macOS have none.
 */
#ifndef US_DISPATCH_H
#define US_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
enum {
    US_OK = 0,          /* the output is complete */
    US_ERR_RANGE = 1,   /* the range of the input is not finite; output untouched */
    US_ERR_OVERLAP = 2  /* input and output share memory; output untouched */
};

enum {
    US_LEVEL_PLAIN = 0,  /* C for any CPU, as the compiler vectorises it */
    US_LEVEL_VECTOR = 1, /* AVX2 with FMA and F16C; NEON on 64-bit Arm */
    US_LEVEL_WIDE = 2    /* AVX-512 F, BW, DQ, VL, and all of the above */
};

/* The highest level that this CPU and operating system run. Thread-safe. */
int us_level(void);

/* Its name for people, a string constant: "avx512f", "avx2", "neon", "plain". */
const char *us_level_name(int level);
/* cdef: end */

/* Received frames begin where the sender's header ended: no alignment is assumed.
 * Costs nothing on any CPU with these vector units, and spares a copy. */
typedef float us_f32 __attribute__((aligned(1), may_alias));
typedef uint16_t us_u16 __attribute__((aligned(1), may_alias));

/* Kernel bodies are written once and inlined into one function for each level. */
#define US_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)
#define US_X86 1
#define US_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define US_TARGET_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static US_INLINE float32x4_t us_load_neon(const us_f32 *x)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)x));
}

static US_INLINE void us_store_neon(us_f32 *x, float32x4_t v)
{
    vst1q_u8((uint8_t *)x, vreinterpretq_u8_f32(v));
}
#endif

/* Elements before the first 64-byte boundary at or after p: a vector access that
 * straddles two cache lines costs a third of the speed. 0 if none is ever aligned. */
static US_INLINE size_t us_head(const void *p, size_t element_bytes, size_t count)
{
    size_t bytes = (size_t)(-(uintptr_t)p & 63);
    size_t head = bytes % element_bytes == 0 ? bytes / element_bytes : 0;

    return head < count ? head : count;
}

static US_INLINE int us_overlap(const void *a, size_t a_bytes, const void *b,
                                size_t b_bytes)
{
    uintptr_t a_first = (uintptr_t)a, b_first = (uintptr_t)b;

    return a_first < b_first + b_bytes && b_first < a_first + a_bytes;
}

#endif
