/* What happens to single rows between the matrix products: norms, rotary positions, KV writes. */
#ifndef RL_ROWS_H
#define RL_ROWS_H

#include "ridgeline.h"
#include "simd.h"

#define PADDING 64 /* what widths of rows are rounded up to */

INLINE int32_t round_up(int32_t n, int32_t to) { return (n + to - 1) / to * to; }

/* out = x / rms(x) * weight over n values; the padding of out is zeroed. Zhang & Sennrich 2019. */
static void rms_norm(const float *x, const float *weight, int32_t n, float eps, float *out)
{
    vf squares = vf_set(0);
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = vf_load(x + i);
        squares = vf_fma(v, v, squares);
    }
    float sum = vf_sum(squares);
    for (; i < n; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (i = 0; i + LANES <= n; i += LANES)
        vf_store(out + i, vf_load(x + i) * vf_set(scale) * vf_load(weight + i));
    for (; i < n; i++) out[i] = x[i] * scale * weight[i];
}

/* Rotate the halves of x[0 .. rotary_dim) against each other (Su et al. 2021, GPT-NeoX order). */
INLINE void rotate(float *x, const float *cos, const float *sin, int32_t rotary_dim)
{
    int32_t half = rotary_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

/* The geometry of KV memory. A block holds `size` tokens (a multiple of 16) of every KV head: first
 * the keys of a head, as panels of 16 tokens over dim, then its values, as panels of 16 dims over
 * tokens. Both are packed like weights, so attention is two matrix products. */
typedef struct {
    int32_t type, size, dim, heads;
    int64_t half, stride; /* bytes of the keys of one head; from block to block */
} rl_kv;

INLINE rl_kv kv_geometry(const rl_model *m)
{
    rl_kv kv = {m->kv_type, m->block_size, round_up(m->head_dim, PANEL), m->kv_heads, 0, m->kv_stride};
    kv.half = (int64_t)kv.size * kv.dim * (kv.type == RL_BF16 ? 2 : 4);
    return kv;
}

INLINE char *kv_keys(const rl_kv *kv, void *memory, int32_t block, int32_t head)
{
    return (char *)memory + block * kv->stride + 2 * head * kv->half;
}

INLINE void kv_put(const rl_kv *kv, char *panels, int64_t k, int32_t n, int32_t width, float x)
{
    /* Element (n, k) of panels [n/16][k/pair][16][pair], width values of k. */
    int64_t panel = n / PANEL, lane = n % PANEL;
    if (kv->type == RL_BF16)
        ((uint16_t *)panels)[(panel * (width / 2) + k / 2) * 2 * PANEL + 2 * lane + (k & 1)] = bf16_round(finite(x));
    else
        ((float *)panels)[(panel * width + k) * PANEL + lane] = finite(x);
}

/* Store one token's key and value of one head at `offset` in a block. */
INLINE void kv_write(const rl_kv *kv, char *keys, int32_t offset, const float *k, const float *v, int32_t dim)
{
    char *values = keys + kv->half;
    for (int32_t d = 0; d < dim; d++) {
        kv_put(kv, keys, d, offset, kv->dim, k[d]);
        kv_put(kv, values, offset, d, kv->size, v[d]);
    }
}

#endif
