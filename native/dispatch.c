#include "dispatch.h"

#if defined(US_X86)
#include <cpuid.h>

/* Older compilers do not know the name "f16c" in __builtin_cpu_supports. The operating
 * system's part, saving the YMM registers, is covered by the test for AVX2. */
static int has_f16c(void)
{
    unsigned int eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif

int us_level(void)
{
#if defined(US_X86)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !has_f16c())
        return US_LEVEL_PLAIN;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return US_LEVEL_WIDE;
    return US_LEVEL_VECTOR;
#elif defined(__aarch64__)
    return US_LEVEL_VECTOR;
#else
    return US_LEVEL_PLAIN;
#endif
}

const char *us_level_name(int level)
{
    if (level >= US_LEVEL_WIDE)
        return "avx512f";
    if (level == US_LEVEL_PLAIN)
        return "plain";
#if defined(__aarch64__)
    return "neon";
#else
    return "avx2";
#endif
}
