/* Attention over keys and values that lie as rows, in caches of contiguous slots or fresh from a
 * product: what a device with static programs has, which rl_forward's paged memory is not.
 *
 * A query's bits depend on its own position and the keys that it sees alone: not on other rows, nor
 * on how far the memory goes on. */
#ifndef RL_CONTIGUOUS_H
#define RL_CONTIGUOUS_H

#include "ridgeline.h"
#include "rows.h"

typedef uint16_t vs __attribute__((vector_size(2 * LANES)));

INLINE float *rows_at(const rl_rows *rows, int32_t core, int32_t row)
{
    return (float *)rows->data + core * rows->core + row * rows->row;
}

/* To the nearest bfloat16, ties to even; what is no number stays none. */
INLINE vf to_bf16(vf x)
{
    vu u = (vu)x, up = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    vi number = x == x;
    return (vf)((number & (vi)up) | (~number & (vi)x));
}

/* `count` numbers, LANES or fewer: so that a function's tail has the bits of its body. */
INLINE vf load_some(const float *p, int32_t count)
{
    if (count == LANES) return vf_load(p);
    float some[LANES] = {0};
    memcpy(some, p, 4 * (size_t)count);
    return vf_load(some);
}

INLINE void store_some(float *p, vf v, int32_t count)
{
    if (count == LANES) {
        vf_store(p, v);
        return;
    }
    float some[LANES];
    vf_store(some, v);
    memcpy(p, some, 4 * (size_t)count);
}

#define EACH(i, count, n) \
    for (int32_t i = 0, count; count = (n) - i < LANES ? (n) - i : LANES, i < (n); i += LANES)

/* Its tanh form, as a sigmoid of twice the argument. */
INLINE vf gelu_tanh(vf x)
{
    vf cubic = x + vf_set(0.044715f) * x * x * x;
    return x / (vf_set(1.0f) + vf_exp(vf_min(vf_set(-1.5957691216f) * cubic, vf_set(88.0f))));
}

INLINE void round_row(float *x, int32_t n)
{
    EACH(i, count, n) store_some(x + i, to_bf16(load_some(x + i, count)), count);
}

/* LANES numbers at p, `type` F32 or BF16. */
INLINE vf row_load(const int type, const char *p)
{
    if (type == RL_F32) return vf_load((const float *)p);
    vs half;
    memcpy(&half, p, sizeof half);
    return (vf)(__builtin_convertvector(half, vu) << 16);
}

INLINE float number(const int type, const char *p)
{
    if (type == RL_F32) {
        float x;
        memcpy(&x, p, 4);
        return x;
    }
    uint16_t half;
    memcpy(&half, p, 2);
    uint32_t word = (uint32_t)half << 16;
    float x;
    memcpy(&x, &word, 4);
    return x;
}

/* score[i] = scale * q.k[i]. LANES keys at a time, so that their sums do not wait for each other. */
INLINE void scores(const int type, const float *q, const char *k, int64_t stride, int32_t keys, int32_t dim,
                   float scale, float *score)
{
    const int size = type == RL_F32 ? 4 : 2;
    for (int32_t first = 0; first < keys; first += LANES) {
        const int32_t count = keys - first < LANES ? keys - first : LANES;
        float parts[LANES][LANES] = {{0}}, total[LANES] = {0};
        for (int32_t i = 0; i < count; i++) {
            const char *at = k + (first + i) * stride;
            vf sum = vf_set(0);
            for (int32_t d = 0; d + LANES <= dim; d += LANES)
                sum = vf_fma(vf_load(q + d), row_load(type, at + (int64_t)size * d), sum);
            vf_store(parts[i], sum);
        }
        UNROLL for (int j = 0; j < LANES; j++)
            UNROLL for (int i = 0; i < LANES; i++) total[i] += parts[i][j];
        for (int32_t i = 0; i < count; i++) {
            const char *at = k + (first + i) * stride;
            for (int32_t d = dim / LANES * LANES; d < dim; d++) total[i] += q[d] * number(type, at + (int64_t)size * d);
            score[first + i] = scale * total[i];
        }
    }
}

/* out[width] = sum of share[i] * v[i], by rising i. */
INLINE void weigh(const int type, const float *share, const char *v, int64_t stride, int32_t keys, int32_t width,
                  float *out)
{
    const int size = type == RL_F32 ? 4 : 2;
    int32_t d = 0;
    for (; d + 4 * LANES <= width; d += 4 * LANES) {
        vf sum[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
        const char *at = v + (int64_t)size * d;
        for (int32_t i = 0; i < keys; i++, at += stride)
            UNROLL for (int j = 0; j < 4; j++)
                sum[j] = vf_fma(vf_set(share[i]), row_load(type, at + size * j * LANES), sum[j]);
        UNROLL for (int j = 0; j < 4; j++) vf_store(out + d + j * LANES, sum[j]);
    }
    for (; d < width; d++) {
        float sum = 0;
        for (int32_t i = 0; i < keys; i++) sum += share[i] * number(type, v + i * stride + (int64_t)size * d);
        out[d] = sum;
    }
}

/* Scores to the shares of their softmax, with `round` as bfloat16 keeps them. */
INLINE void shares(float *s, int32_t keys, float softcap, int32_t round)
{
    int32_t whole = round_up(keys, LANES);
    if (softcap > 0)
        for (int32_t i = 0; i < whole; i += LANES)
            vf_store(s + i, vf_set(softcap) * vf_tanh(vf_load(s + i) / vf_set(softcap)));
    for (int32_t i = keys; i < whole; i++) s[i] = -INFINITY;
    vf top = vf_set(-INFINITY), sum = vf_set(0);
    for (int32_t i = 0; i < whole; i += LANES) top = vf_max(top, vf_load(s + i));
    vf peak = vf_set(vf_peak(top));
    for (int32_t i = 0; i < whole; i += LANES) {
        vf e = vf_exp(vf_load(s + i) - peak);
        sum = sum + e;
        vf_store(s + i, e);
    }
    const vf total = vf_set(vf_sum(sum));
    for (int32_t i = 0; i < whole; i += LANES) {
        vf share = vf_load(s + i) / total;
        vf_store(s + i, round ? to_bf16(share) : share);
    }
}

/* One row of one KV head of a core. */
INLINE void attend_row(const int type, const rl_operation *op, int32_t core, int32_t row, int32_t head, float *score)
{
    const int32_t group = op->heads / op->kv_heads, width = op->width;
    const int64_t position = op->position[row], slot = op->slot[row / op->each];
    const int size = type == RL_F32 ? 4 : 2;
    float *out = rows_at(&op->out, core, row) + (int64_t)head * group * width;
    if (position < 0) {
        memset(out, 0, 4 * (size_t)(group * width));
        return;
    }
    const int64_t first = op->window > 0 && position + 1 > op->window ? position + 1 - op->window : 0;
    const int32_t keys = (int32_t)(position + 1 - first);
    const char *k = (const char *)op->y.data
                  + size * (core * op->y.core + slot * op->key_slot + head * op->key_head + first * op->y.row);
    const char *v = (const char *)op->z.data
                  + size * (core * op->z.core + slot * op->value_slot + head * op->value_head + first * op->z.row);
    const float *q = rows_at(&op->x, core, row) + (int64_t)head * group * op->dim;
    for (int32_t g = 0; g < group; g++) {
        scores(type, q + (int64_t)g * op->dim, k, size * op->y.row, keys, op->dim, op->scale, score);
        shares(score, keys, op->softcap, op->round);
        weigh(type, score, v, size * op->z.row, keys, width, out + (int64_t)g * width);
    }
    if (op->round) round_row(out, group * width);
}

#endif
