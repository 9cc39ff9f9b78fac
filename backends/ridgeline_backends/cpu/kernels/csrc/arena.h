/* The memory of one step, and what its rows are: laid out in the caller's scratch. */
#ifndef RL_ARENA_H
#define RL_ARENA_H

#include "attention.h"
#include "linear.h"
#include "ridgeline.h"
#include "rows.h"
#include "team.h"

/* A few positions of one chunk: one unit of attention work for each KV head. */
typedef struct { int32_t chunk, offset, positions, out_row; } query;

/* The queries of a layer, and the rows that it computes for them after its keys and values. */
typedef struct { const query *queries; int32_t count, rows; } span;

/* One step's memory, laid out in the caller's scratch. Strides are in floats, of packed rows in
 * bytes. */
typedef struct {
    rl_phase *phases;
    query *queries, *last_queries;
    span every, last; /* of all layers but the last, and of that one */
    int32_t *chunk_of_row;
    float *x, *normed, *qkv, *attended, *act, *branch, *gate_up;
    char *packed;
    int64_t x_stride, qkv_stride, attended_stride, act_stride, packed_stride;
    char *own; /* per thread */
    int64_t own_bytes;
} arena;

static int64_t matrix_row_bytes(const rl_model *m)
{
    int64_t widest = m->hidden > m->intermediate ? m->hidden : m->intermediate;
    int64_t q = (int64_t)m->heads * m->head_dim;
    if (q > widest) widest = q;
    return align64(4 * (int64_t)round_up((int32_t)widest, PADDING));
}

/* At least as many as a step has. */
static int32_t phase_count(const rl_model *m) { return 24 * m->layers + 16; }

/* Lay the arena out at `base` (null: only measure). Returns the bytes it takes. */
static int64_t lay_out(const rl_model *m, int32_t rows, int32_t threads, int32_t adapters, char *base, arena *out)
{
    int64_t at = 0;
#define TAKE(field, type, count) \
    out->field = (type *)(base + at); \
    at = align64(at + (int64_t)sizeof(type) * (count))
    int64_t hidden = round_up(m->hidden, PADDING), q = round_up(m->heads * m->head_dim, PADDING);
    out->x_stride = hidden;
    out->qkv_stride = round_up((m->heads + 2 * m->kv_heads) * m->head_dim, PADDING);
    out->attended_stride = q;
    out->act_stride = round_up(m->intermediate, PADDING);
    out->packed_stride = matrix_row_bytes(m);
    TAKE(phases, rl_phase, phase_count(m));
    TAKE(queries, query, rows);
    TAKE(last_queries, query, rows);
    TAKE(chunk_of_row, int32_t, rows);
    TAKE(x, float, rows * hidden);
    TAKE(normed, float, rows * hidden);
    TAKE(branch, float, rows * hidden);
    TAKE(qkv, float, rows * out->qkv_stride);
    TAKE(attended, float, rows * q);
    TAKE(act, float, rows * out->act_stride);
    TAKE(gate_up, float, adapters ? 2 * rows * out->act_stride : 0);
    TAKE(packed, char, rows * out->packed_stride);
    int64_t own = sizeof(rl_attention_scratch);
    if (own < (int64_t)(BLOCK_ROWS * WIDTH * sizeof(float))) own = BLOCK_ROWS * WIDTH * sizeof(float);
    out->own_bytes = align64(own);
    TAKE(own, char, threads * out->own_bytes);
#undef TAKE
    return at;
}

/* The queries of the step, long contexts first, so that no thread is left with one at the end. */
static void cut_queries(arena *s, const rl_model *m, const rl_step *step)
{
    int32_t most = QUERY_ROWS / (m->heads / m->kv_heads), n = 0;
    if (most < 1) most = 1;
    for (int32_t c = 0; c < step->chunks; c++) {
        const rl_chunk *chunk = step->chunk + c;
        for (int32_t r = 0; r < chunk->rows; r++) s->chunk_of_row[chunk->first_row + r] = c;
        for (int32_t end = chunk->rows; end > 0;) {
            int32_t begin = (end - 1) / most * most;
            s->queries[n++] = (query){c, begin, end - begin, chunk->first_row + begin};
            end = begin;
        }
    }
    s->every = (span){s->queries, n, step->rows};
    s->last = (span){s->last_queries, step->wanted, step->wanted};
    /* Beyond the last layer's keys and values only the rows that logits are wanted of go on. */
    for (int32_t i = 0; i < step->wanted; i++) {
        int32_t row = step->wanted_row[i], c = s->chunk_of_row[row];
        s->last_queries[i] = (query){c, row - step->chunk[c].first_row, 1, i};
    }
}

#endif
