/* Attention of a few query positions of one sequence over one KV head, in paged memory.
 *
 * Keys are taken in chunks of KEYS, counted from position 0. A chunk's part (peak, weight, sum of
 * values) is computed by itself and merged in order (Milakov & Gimelshein 2018), so a query's result
 * depends on its own position and the keys alone: not on the queries beside it, nor on how
 * a prompt was cut. A query that sees nothing of a chunk leaves it out. */
#ifndef RL_ATTENTION_H
#define RL_ATTENTION_H

#include "linear.h"
#include "rows.h"

#define KEYS 256
#define QUERY_ROWS 48 /* positions times query heads of a KV head, at most */

typedef struct {
    float q[QUERY_ROWS * 512];  /* rows of padded dim, at most 512 */
    float score[QUERY_ROWS * KEYS];
    float part[QUERY_ROWS * 512], out[QUERY_ROWS * 512];
    float peak[QUERY_ROWS], weight[QUERY_ROWS];
} rl_attention_scratch;

/* c[rows][panels * 16] = a[rows, segments * k] W^T: of segment i a panel at w[i], and for two panels
 * another one `next_panel` bytes further. w[segments] is what is read after. */
INLINE void few_rows(const int type, int rows, int panels, const float *a, int64_t lda, const char *const *w,
                     int64_t next_panel, int segments, int k, float *c, int64_t ldc)
{
    while (rows > 0) {
        int n = rows < MAX_ROWS ? rows : MAX_ROWS;
#if AVX2_TILES
        for (int r = 0; r < n; r++)
            for (int j = 0; j < panels * PANEL; j += LANES) vf_store(c + r * ldc + j, vf_set(0));
        (type == RL_F32 ? tile_f32 : tile_bf16)(n, panels, (const char *)a, 4 * lda, w, next_panel, segments, k, c,
                                                4 * ldc, 64);
#else
#define CASE(h) case h: tile_float(type, h, 1, (const char *)(a + i * k), 4 * lda, w[i] + j * next_panel, 0, k, \
                                   c + j * PANEL, ldc, i == 0, (fetch){w[i] + j * next_panel, 64}); break;
        for (int j = 0; j < panels; j++)
            for (int i = 0; i < segments; i++)
                switch (n) {
                    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if MAX_ROWS > 6
                    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
                }
#undef CASE
#endif
        a += n * lda;
        c += n * ldc;
        rows -= n;
    }
}

/* Keys [*from, *to) of the chunk at `base` that the query at `position` sees, relative to base. */
INLINE void visible(int32_t position, int32_t window, int32_t base, int32_t *from, int32_t *to)
{
    int32_t last = position + 1 - base, first = window > 0 ? position + 1 - window - base : 0;
    *to = last < KEYS ? last : KEYS;
    *from = first > 0 ? first : 0;
}

/* Turn a row of scores into weights, e^(s - peak); what is not visible becomes 0. */
INLINE float softmax_row(float *s, int32_t from, int32_t to, int32_t width, float scale, float softcap, float *peak)
{
    for (int32_t i = 0; i < from; i++) s[i] = -INFINITY;
    for (int32_t i = to; i < width; i++) s[i] = -INFINITY;
    vf top = vf_set(-INFINITY);
    for (int32_t i = 0; i < width; i += LANES) {
        vf v = vf_load(s + i) * vf_set(scale);
        if (softcap > 0) v = vf_set(softcap) * vf_tanh(v / vf_set(softcap));
        vf_store(s + i, v);
    }
    if (softcap > 0) { /* tanh brought the hidden ones back */
        for (int32_t i = 0; i < from; i++) s[i] = -INFINITY;
        for (int32_t i = to; i < width; i++) s[i] = -INFINITY;
    }
    for (int32_t i = 0; i < width; i += LANES) top = vf_max(top, vf_load(s + i));
    float m = *peak = vf_peak(top);
    vf sum = vf_set(0);
    for (int32_t i = 0; i < width; i += LANES) {
        vf e = vf_exp(vf_load(s + i) - vf_set(m));
        vf_store(s + i, e);
        sum = sum + e;
    }
    return vf_sum(sum);
}

INLINE void attend_typed(const int type, const rl_model *m, const rl_layer *layer, const rl_kv *kv,
                         const int32_t *blocks, const float *qkv, int64_t qkv_stride, int32_t head,
                         int32_t position, int32_t positions, float *out, int64_t out_stride,
                         rl_attention_scratch *t)
{
    const int32_t group = m->heads / m->kv_heads, dim = m->head_dim, wide = kv->dim;
    const int32_t rows = positions * group, window = layer->window, size = type == RL_BF16 ? 2 : 4;
    const int32_t together = rows <= 3 ? 2 : 1; /* panels */
    const int64_t value_panel = (int64_t)kv->size * PANEL * size;
    for (int32_t i = 0; i < positions; i++)
        for (int32_t g = 0; g < group; g++) {
            float *q = t->q + (i * group + g) * wide;
            memcpy(q, qkv + i * qkv_stride + (head * group + g) * dim, 4 * (size_t)dim);
            for (int32_t d = dim; d < wide; d++) q[d] = 0;
        }
    for (int32_t r = 0; r < rows; r++) t->weight[r] = 0;
    int32_t begin = window > 0 && position + 1 > window ? (position + 1 - window) / KEYS * KEYS : 0;
    for (int32_t base = begin; base < position + positions; base += KEYS) {
        int32_t keys = position + positions - base < KEYS ? position + positions - base : KEYS;
        int32_t width = round_up(keys, PANEL), panels = width / PANEL;
        /* Panels of keys, and the same tokens' part of the first panel of values. */
        const char *keys_at[KEYS / PANEL + 1], *values_at[KEYS / PANEL + 1];
        for (int32_t i = 0; i < width; i += PANEL) {
            int32_t within = (base + i) % kv->size;
            const char *k = kv_keys(kv, layer->kv, blocks[(base + i) / kv->size], head);
            keys_at[i / PANEL] = k + within * wide * size;
            values_at[i / PANEL] = k + kv->half + within * PANEL * size;
        }
        for (int32_t i = 0, n; i < panels; i += n) {
            n = together < panels - i ? together : panels - i;
            const char *const at[] = {keys_at[i], i + n < panels ? keys_at[i + n] : values_at[0]};
            few_rows(type, rows, n, t->q, wide, at, n > 1 ? keys_at[i + 1] - keys_at[i] : 0, 1, wide,
                     t->score + i * PANEL, KEYS);
        }
        float weight[QUERY_ROWS], peak[QUERY_ROWS];
        for (int32_t r = 0; r < rows; r++) {
            int32_t from, to;
            visible(position + r / group, window, base, &from, &to);
            weight[r] = 0;
            if (from < to)
                weight[r] = softmax_row(t->score + r * KEYS, from, to, width, m->attention_scale,
                                        m->attention_softcap, &peak[r]);
            else
                memset(t->score + r * KEYS, 0, 4 * (size_t)width);
        }
        values_at[panels] = values_at[panels - 1];
        for (int32_t d = 0, n; d < wide; d += n * PANEL) {
            n = together * PANEL < wide - d ? together : (wide - d) / PANEL;
            few_rows(type, rows, n, t->score, KEYS, values_at, value_panel, panels, PANEL, t->part + d, wide);
            for (int32_t i = 0; i <= panels; i++) values_at[i] += n * value_panel;
        }
        for (int32_t r = 0; r < rows; r++) {
            if (weight[r] == 0) continue;
            float *part = t->part + r * wide, *sum = t->out + r * wide;
            if (t->weight[r] == 0) {
                memcpy(sum, part, 4 * (size_t)wide);
                t->weight[r] = weight[r];
                t->peak[r] = peak[r];
                continue;
            }
            float top = peak[r] > t->peak[r] ? peak[r] : t->peak[r];
            float shift[LANES] = {t->peak[r] - top, peak[r] - top};
            vf_store(shift, vf_exp(vf_load(shift)));
            for (int32_t d = 0; d < wide; d += LANES)
                vf_store(sum + d, vf_load(sum + d) * vf_set(shift[0]) + vf_load(part + d) * vf_set(shift[1]));
            t->weight[r] = t->weight[r] * shift[0] + weight[r] * shift[1];
            t->peak[r] = top;
        }
    }
    for (int32_t i = 0; i < positions; i++)
        for (int32_t g = 0; g < group; g++) {
            int32_t r = i * group + g;
            float scale = 1.0f / t->weight[r];
            float *to = out + i * out_stride + (head * group + g) * dim;
            for (int32_t d = 0; d < dim; d++) to[d] = t->out[r * wide + d] * scale;
        }
}

/* Positions position .. + positions - 1, whose projected rows are qkv; results go to out. */
static void attend(const rl_model *m, const rl_layer *layer, const rl_kv *kv, const int32_t *blocks, const float *qkv,
                   int64_t qkv_stride, int32_t head, int32_t position, int32_t positions, float *out,
                   int64_t out_stride, rl_attention_scratch *t)
{
    if (kv->type == RL_BF16)
        attend_typed(RL_BF16, m, layer, kv, blocks, qkv, qkv_stride, head, position, positions, out, out_stride, t);
    else
        attend_typed(RL_F32, m, layer, kv, blocks, qkv, qkv_stride, head, position, positions, out, out_stride, t);
}

#endif
