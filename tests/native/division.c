/* Proves by exhaustion that rounded_*() of quantise.c needs no division: for scales of
 * every mantissa, and the floats around every (k + 1/2) * scale that a quotient can
 * cross, one Newton step on x * RN(1 / scale) rounds to the same integer as x / scale.
 * Powers of two scale everything exactly and the sign is symmetric, so that is all.
 * Usage: division STEP (1: every mantissa, some seconds; n: every n-th). Needs FMA. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HALVES = 264, AROUND = 4 };

static float float_of(int32_t bits)
{
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

static int32_t bits_of(float v)
{
    int32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static int differences(float scale, const float *halves)
{
    const float inverse = 1.0f / scale;
    int different = 0;

    for (int d = -AROUND; d <= AROUND; d++) {
        for (int k = 0; k < HALVES; k++) {
            float x = float_of(bits_of(halves[k] * scale) + d), q = x * inverse;

            q = __builtin_fmaf(__builtin_fmaf(-q, scale, x), inverse, q);
            /* 1.5 * 2^23 rounds half to even. */
            different += q + 0x1.8p23f != x / scale + 0x1.8p23f;
        }
    }
    return different;
}

int main(int argc, char **argv)
{
    const int32_t step = argc > 1 ? atoi(argv[1]) : 1;
    float halves[HALVES];
    long different = 0;

    for (int k = 0; k < HALVES; k++)
        halves[k] = (float)k + 0.5f;
    for (int32_t mantissa = 0; step > 0 && mantissa < 1 << 23; mantissa += step)
        different += differences(float_of(0x3f800000 | mantissa), halves);
    printf("%ld differences\n", different);
    return step <= 0 || different != 0;
}
