/* AVX-512 in portable C, in place of the compiler's header of this name: SIMDe, and the few
 * functions that its release 0.7.4 lacks. Executes no vector instruction that the compiler was not
 * told of. Multiply-adds round twice here, so results are near those of a processor, not equal. */
#ifndef RL_EMULATED_IMMINTRIN_H
#define RL_EMULATED_IMMINTRIN_H

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
static inline __m512i emulated_cvtps_epi32(__m512 a)
{
    float from[16];
    int32_t to[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++) to[i] = (int32_t)rintf(from[i]);
    __m512i out;
    memcpy(&out, to, sizeof out);
    return out;
}

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
static inline __m512 emulated_cvtepi32_ps(__m512i a)
{
    int32_t from[16];
    float to[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++) to[i] = (float)from[i];
    __m512 out;
    memcpy(&out, to, sizeof out);
    return out;
}

/* To nearest even; a denormal becomes zero, and no number stays none. */
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
static inline __m256bh emulated_cvtneps_pbh(__m512 a)
{
    uint32_t from[16];
    uint16_t to[16];
    memcpy(from, &a, sizeof from);
    for (int i = 0; i < 16; i++) {
        uint32_t u = from[i], size = u & 0x7fffffffu;
        if (size > 0x7f800000u)
            u |= 0x400000u;
        else if (size < 0x800000u)
            u &= 0x80000000u;
        else
            u += 0x7fffu + ((u >> 16) & 1);
        to[i] = (uint16_t)(u >> 16);
    }
    __m256bh out;
    memcpy(&out, to, sizeof out);
    return out;
}

#endif
