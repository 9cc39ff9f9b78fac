/* Attention over keys and values that lie as rows, in caches of contiguous slots or fresh from a
 * product: what a device with static programs has, which rl_forward's paged memory is not.
 *
 * A query's bits depend on its own position and the keys that it sees alone: not on other rows, nor
 * on how far the memory goes on. */
#ifndef RL_CONTIGUOUS_H
#define RL_CONTIGUOUS_H

#include "ridgeline.h"
#include "rows.h"
#include "team.h"

typedef uint16_t vs __attribute__((vector_size(2 * LANES)));

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
    const float whole_sum = vf_sum(sum);
    for (int32_t i = 0; i < keys; i++) {
        s[i] /= whole_sum;
        if (!round) continue;
        uint32_t word = (uint32_t)bf16_round(s[i]) << 16;
        memcpy(s + i, &word, 4);
    }
}

INLINE void attend_row(const int type, const rl_attention *job, int32_t row, int32_t head, float *score)
{
    const int32_t group = job->heads / job->kv_heads;
    const int64_t position = job->position[row];
    const int64_t width = job->width;
    float *out = job->out + ((int64_t)row * job->heads + head * group) * width;
    if (position < 0) {
        memset(out, 0, 4 * (size_t)(group * width));
        return;
    }
    int64_t first = job->window > 0 && position + 1 > job->window ? position + 1 - job->window : 0;
    const int32_t keys = (int32_t)(position + 1 - first);
    const int size = type == RL_F32 ? 4 : 2;
    const int64_t place = job->slot[row] * job->slot_stride + head * job->head_stride, stride = size * job->entry_stride;
    const char *k = (const char *)job->k + size * place + first * stride;
    const char *v = (const char *)job->v + size * (job->slot[row] * job->value_slot_stride + head * job->value_head_stride)
                  + first * size * job->value_entry_stride;
    for (int32_t g = 0; g < group; g++) {
        const float *q = job->q + ((int64_t)row * job->heads + head * group + g) * job->dim;
        scores(type, q, k, stride, keys, job->dim, job->scale, score);
        shares(score, keys, job->softcap, job->round);
        weigh(type, score, v, size * job->value_entry_stride, keys, job->width, out + g * width);
    }
}

/* Entries of some rows into their slots, in a finite form. */
INLINE void put_typed(const int type, const rl_put *job)
{
    for (int32_t r = 0; r < job->rows; r++) {
        const int64_t position = job->position[r];
        if (position < 0) continue;
        for (int32_t h = 0; h < job->heads; h++) {
            const float *from = job->entries + ((int64_t)r * job->heads + h) * job->dim;
            const int64_t at = job->slot[r / job->each] * job->slot_stride + h * job->head_stride
                             + position * job->entry_stride;
            for (int32_t d = 0; d < job->dim; d++)
                if (type == RL_BF16)
                    ((uint16_t *)job->cache)[at + d] = bf16_round(finite(from[d]));
                else
                    ((float *)job->cache)[at + d] = finite(from[d]);
        }
    }
}

/* Turn heads in place; tables are as wide as what is turned, sines carry the sign of the first half. */
static void turn_rows(const rl_turn *job)
{
    const int32_t half = job->rotary / 2;
    for (int32_t r = 0; r < job->rows; r++) {
        int64_t position = job->position[r % job->period];
        if (position < 0) position = 0;
        const float *cos = job->cos + position * job->rotary, *sin = job->sin + position * job->rotary;
        for (int32_t h = 0; h < job->heads; h++) {
            float *x = job->x + ((int64_t)r * job->heads + h) * job->dim;
            for (int32_t i = 0; i < half; i++) {
                float a = x[i], b = x[i + half];
                x[i] = a * cos[i] + b * sin[i];
                x[i + half] = b * cos[i + half] + a * sin[i + half];
            }
        }
    }
}

typedef struct { const rl_attention *job; rl_phase *phase; float *score; int64_t room; } attention_job;

static void run_attention(void *data)
{
    const attention_job *own = data;
    const rl_attention *job = own->job;
    rl_worker worker = {own->phase, omp_get_thread_num(), job->threads, 0, 0};
    float *score = own->score + worker.id * own->room;
    int32_t begin, end;
    while (take_work(&worker, job->rows * job->kv_heads, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            int32_t row = unit / job->kv_heads, head = unit % job->kv_heads;
            if (job->type == RL_BF16)
                attend_row(RL_BF16, job, row, head, score);
            else
                attend_row(RL_F32, job, row, head, score);
        }
}

#endif
