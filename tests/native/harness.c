/* Runs every kernel at every level of this CPU over awkward sizes and addresses, in
 * buffers of exactly the size stated, and compares with the plain level. Built with
 * AddressSanitizer and UndefinedBehaviorSanitizer by test_c.py. */
#include "float16.h"
#include "normalise.h"
#include "quantise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_MAX = 210, OFFSET_MAX = 9 };

static uint32_t state = 1;

static uint32_t random_bits(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* Ends where the allocation ends; begins `offset` bytes after its start. */
static unsigned char *block(size_t bytes, size_t offset, unsigned char **base)
{
    *base = malloc(bytes + offset + 1);
    if (*base == NULL)
        exit(2);
    *base = realloc(*base, bytes + offset ? bytes + offset : 1);
    return *base + offset;
}

typedef int kernel(const void *in, size_t count, void *out, int level);

static int quantise(const void *in, size_t count, void *out, int level)
{
    us_quantisation r = us_quantise(in, count, out, level);
    uint32_t scale;

    if (r.status != US_OK)
        memset(out, 0, count);
    memcpy(&scale, &r.scale, sizeof scale);
    return (int)(scale & 0xffffffu) * 3 + r.zero_point * 7 + r.status;
}

static int dequantise(const void *in, size_t count, void *out, int level)
{
    return us_dequantise(in, count, 0.0173f, 117, out, level);
}

static const float factors[7] = {0.1f, -2.3f, 1e-3f, 3.7f, 1e20f, 0.0f, 0.017f};

#define NORMALISE(channels)                                                           \
    static int normalise_##channels(const void *in, size_t count, void *out, int level) \
    {                                                                                 \
        return us_normalise(in, count / channels, channels, factors, factors + 1, out, \
                            level);                                                   \
    }
NORMALISE(1)
NORMALISE(3)
NORMALISE(4)
NORMALISE(5)

static const struct {
    const char *name;
    kernel *run;
    size_t in_bytes, out_bytes;
    size_t multiple; /* of which the number of elements is */
} kernels[] = {
    {"quantise", quantise, 4, 1, 1},       {"dequantise", dequantise, 1, 4, 1},
    {"to_float16", us_to_float16, 4, 2, 1}, {"to_float32", us_to_float32, 2, 4, 1},
    {"normalise 1", normalise_1, 1, 4, 1}, {"normalise 3", normalise_3, 1, 4, 3},
    {"normalise 4", normalise_4, 1, 4, 4}, {"normalise 5", normalise_5, 1, 4, 5},
};

/* Any bits for the conversions; for quantise mostly values near each other. */
static void fill(unsigned char *in, size_t bytes, int tame)
{
    for (size_t i = 0; i < bytes; i++)
        in[i] = (unsigned char)random_bits();
    for (size_t i = 3; tame && i < bytes; i += 4)
        in[i] = (unsigned char)((in[i] & 0x80) | (random_bits() % 64 ? 0x3f : 0x7f));
}

static int compare(size_t k, size_t count, size_t offset, int level)
{
    size_t in_bytes = count * kernels[k].in_bytes;
    size_t out_bytes = count * kernels[k].out_bytes;
    unsigned char *bases[3];
    unsigned char *in = block(in_bytes, offset, &bases[0]);
    unsigned char *expected = block(out_bytes, 0, &bases[1]);
    unsigned char *out = block(out_bytes, (offset * 5) % 8, &bases[2]);
    int same;

    fill(in, in_bytes, kernels[k].run == quantise);
    same = kernels[k].run(in, count, expected, US_LEVEL_PLAIN) ==
               kernels[k].run(in, count, out, level) &&
           memcmp(out, expected, out_bytes) == 0;
    if (!same)
        printf("%s: level %s differs, %zu elements, offset %zu\n", kernels[k].name,
               us_level_name(level), count, offset);
    for (int i = 0; i < 3; i++)
        free(bases[i]);
    return same;
}

int main(void)
{
    int failures = 0;

    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
        for (int level = 0; level <= us_level(); level++)
            for (size_t count = 0; count <= COUNT_MAX; count += kernels[k].multiple)
                for (size_t offset = 0; offset < OFFSET_MAX; offset++)
                    failures += !compare(k, count, offset, level);
    printf("%s: %d failures\n", us_level_name(us_level()), failures);
    return failures != 0;
}
