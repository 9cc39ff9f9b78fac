/* Vectors of one variant: what the rest is written in.
 *
 * A variant is this source compiled with its own flags (RL_PLAIN, RL_AVX2, RL_AVX512,
 * RL_AVX512_BF16). Everything works on panels of 16 lanes, in NV vectors of LANES floats, so that
 * packed weights and KV memory are laid out the same whatever the processor.
 *
 * Bits: contraction is off (-ffp-contract=off) and fused multiply-adds are written out, so an
 * element's value depends on its inputs and the order of k alone, never on where the compiler put
 * it in a vector or a tail. */
#ifndef RL_SIMD_H
#define RL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(RL_AVX512) || defined(RL_AVX2)
#include <immintrin.h>
#endif

#define PANEL 16
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(RL_AVX512)
#define LANES 16
#elif defined(RL_AVX2)
#define LANES 8
#else
#define LANES 4
#endif
#define NV (PANEL / LANES)

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint8_t vb __attribute__((vector_size(LANES)));

INLINE vf vf_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
INLINE vu vu_load(const void *p) { vu v; memcpy(&v, p, sizeof v); return v; }
INLINE vi vi_load(const void *p) { vi v; memcpy(&v, p, sizeof v); return v; }
INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE void vi_store(int32_t *p, vi v) { memcpy(p, &v, sizeof v); }

#if defined(RL_AVX512)
INLINE vf vf_set(float x) { return (vf)_mm512_set1_ps(x); }
INLINE vi vi_set(int32_t x) { return (vi)_mm512_set1_epi32(x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf vf_round(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, 8); }
INLINE vi vf_to_int(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); }
INLINE vf vi_to_float(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
#elif defined(RL_AVX2)
INLINE vf vf_set(float x) { return (vf)_mm256_set1_ps(x); }
INLINE vi vi_set(int32_t x) { return (vi)_mm256_set1_epi32(x); }
INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf vf_round(vf a) { return (vf)_mm256_round_ps((__m256)a, 8); }
INLINE vi vf_to_int(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
INLINE vf vi_to_float(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
#else
INLINE vf vf_set(float x) { return x - (vf){0}; }
INLINE vi vi_set(int32_t x) { return x - (vi){0}; }
INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vf_max(vf a, vf b) { vi m = a > b; return (vf)((m & (vi)a) | (~m & (vi)b)); }
INLINE vf vf_min(vf a, vf b) { vi m = a < b; return (vf)((m & (vi)a) | (~m & (vi)b)); }
/* To nearest even, for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction. */
INLINE vf vf_round(vf a) { vf magic = vf_set(12582912.0f); return (a + magic) - magic; }
INLINE vi vf_to_int(vf a) { return __builtin_convertvector(vf_round(a), vi); }
INLINE vf vi_to_float(vi a) { return __builtin_convertvector(a, vf); }
#endif

INLINE float vf_sum(vf v)
{
    float t[LANES], s = 0;
    vf_store(t, v);
    UNROLL for (int i = 0; i < LANES; i++) s += t[i];
    return s;
}

INLINE float vf_peak(vf v)
{
    float t[LANES];
    vf_store(t, v);
    float m = t[0];
    UNROLL for (int i = 1; i < LANES; i++) m = t[i] > m ? t[i] : m;
    return m;
}

/* e^x for x <= 88: 2^n * p(r) with |r| <= ln(2)/2, error below 2 units in the last place.
 * Below -87 it is 0. Coefficients: Cephes expf. */
INLINE vf vf_exp(vf x)
{
    vi none = x < vf_set(-87.0f);
    x = vf_min(vf_max(x, vf_set(-87.0f)), vf_set(88.0f));
    vf n = vf_round(x * vf_set(1.44269504088896341f));
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + vf_set(1.0f);
    vi power = (vf_to_int(n) + vi_set(127)) << 23;
    return (vf)((vi)(p * (vf)power) & ~none);
}

/* x / (1 + e^-x) */
INLINE vf vf_silu(vf x) { return x / (vf_set(1.0f) + vf_exp(vf_min(-x, vf_set(88.0f)))); }

/* 1 - 2 / (e^2x + 1): absolute error below 2^-22, which is what its users need. */
INLINE vf vf_tanh(vf x)
{
    vf e = vf_exp(vf_min(x + x, vf_set(88.0f)));
    return vf_set(1.0f) - vf_set(2.0f) / (e + vf_set(1.0f));
}

/* The tanh form of GELU (Hendrycks & Gimpel 2016), as in Gemma. */
INLINE vf vf_gelu_tanh(vf x)
{
    vf inner = vf_set(0.7978845608f) * vf_fma(vf_set(0.044715f) * x * x, x, x);
    return vf_set(0.5f) * x * (vf_set(1.0f) + vf_tanh(inner));
}

/* bfloat16: the upper half of a float. Words hold two, the even one low. */
INLINE vf vf_even(vu words) { return (vf)(words << 16); }
INLINE vf vf_odd(vu words) { return (vf)(words & 0xffff0000u); }

/* A finite number for KV memory, so that what overflowed in one sequence does not reach the next
 * holder of its blocks, where a weight of 0 times infinity would be no number. */
INLINE float finite(float x)
{
    const float most = 3.3895314e38f; /* the largest bfloat16 */
    if (x != x) return 0;
    return x > most ? most : x < -most ? -most : x;
}

/* A finite float to bfloat16, to nearest even. */
INLINE uint16_t bf16_round(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

#endif
