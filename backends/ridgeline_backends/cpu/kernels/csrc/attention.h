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

/* rows x 16 tile by rows of MAX_ROWS: c[rows][ldc] (+)= a[rows, k] panel^T */
INLINE void few_rows(const int type, int rows, const float *a, int64_t lda, const char *w, int k, float *c,
                     int64_t ldc, int first)
{
    while (rows > 0) {
        int n = rows < MAX_ROWS ? rows : MAX_ROWS;
#define CASE(h) case h: tile_float(type, h, 1, (const char *)a, 4 * lda, w, 0, k, c, ldc, first, (fetch){w, 64}); break;
        switch (n) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if MAX_ROWS > 6
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
        }
#undef CASE
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
    const int32_t rows = positions * group, window = layer->window;
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
        int32_t width = round_up(keys, PANEL);
        for (int32_t i = 0; i < width; i += PANEL) {
            int32_t at = base + i;
            const char *k = kv_keys(kv, layer->kv, blocks[at / kv->size], head)
                          + (at % kv->size) / PANEL * (kv->half / (kv->size / PANEL));
            few_rows(type, rows, t->q, wide, k, wide, t->score + i, KEYS, 1);
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
        for (int32_t i = 0; i < width; i += kv->size) {
            int32_t count = width - i < kv->size ? width - i : kv->size;
            const char *v = kv_keys(kv, layer->kv, blocks[(base + i) / kv->size], head) + kv->half;
            for (int32_t d = 0; d < wide; d += PANEL)
                few_rows(type, rows, t->score + i, KEYS, v + d * kv->size * (type == RL_BF16 ? 2 : 4), count,
                         t->part + d, wide, i == 0);
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
