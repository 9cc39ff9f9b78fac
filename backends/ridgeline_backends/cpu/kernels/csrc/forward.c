/* A whole step of a decoder in one call: the same phases for every layer, rows shared out between
 * the threads of one parallel region. Compiled once per variant; see simd.h. */
#include <omp.h>
#include <stddef.h>

#include "attention.h"
#include "linear.h"
#include "ridgeline.h"
#include "rows.h"
#include "team.h"

enum epilogue { STORE, ADD, GATE };

/* A few positions of one chunk: one unit of attention work for each KV head. */
typedef struct { int32_t chunk, offset, positions, out_row; } query;

/* One step's memory, laid out in the caller's scratch. Strides are in floats, of packed rows in
 * bytes. */
typedef struct {
    rl_team *team;
    query *queries;
    int32_t query_count;
    int32_t *chunk_of_row;
    float *x, *normed, *qkv, *attended, *act, *branch;
    char *packed;
    float *packed_scale;
    int64_t x_stride, qkv_stride, attended_stride, act_stride, packed_stride;
    char *own; /* per thread */
    int64_t own_bytes;
} arena;

static int64_t matrix_row_bytes(const rl_model *m)
{
    int64_t widest = m->hidden > m->intermediate ? m->hidden : m->intermediate;
    int64_t q = (int64_t)m->heads * m->head_dim;
    if (q > widest) widest = q;
    return align64(4 * (int64_t)round_up((int32_t)widest, WIDTH));
}

/* Lay the arena out at `base` (null: only measure). Returns the bytes it takes. */
static int64_t lay_out(const rl_model *m, int32_t rows, int32_t threads, char *base, arena *out)
{
    int64_t at = 0;
#define TAKE(field, type, count) \
    out->field = (type *)(base + at); \
    at = align64(at + (int64_t)sizeof(type) * (count))
    int64_t hidden = round_up(m->hidden, WIDTH), q = round_up(m->heads * m->head_dim, WIDTH);
    out->x_stride = hidden;
    out->qkv_stride = round_up((m->heads + 2 * m->kv_heads) * m->head_dim, WIDTH);
    out->attended_stride = q;
    out->act_stride = round_up(m->intermediate, WIDTH);
    out->packed_stride = matrix_row_bytes(m);
    TAKE(team, rl_team, 1);
    TAKE(queries, query, rows);
    TAKE(chunk_of_row, int32_t, rows);
    TAKE(x, float, rows * hidden);
    TAKE(normed, float, rows * hidden);
    TAKE(branch, float, rows * hidden);
    TAKE(qkv, float, rows * out->qkv_stride);
    TAKE(attended, float, rows * q);
    TAKE(act, float, rows * out->act_stride);
    TAKE(packed, char, rows * out->packed_stride);
    TAKE(packed_scale, float, rows);
    int64_t own = sizeof(rl_attention_scratch);
    if (own < (int64_t)(BLOCK_ROWS * WIDTH * sizeof(float))) own = BLOCK_ROWS * WIDTH * sizeof(float);
    out->own_bytes = align64(own);
    TAKE(own, char, threads * out->own_bytes);
#undef TAKE
    return at;
}

/* Finish a block: integer sums to floats, bias, then into place. */
INLINE void finish(const rl_matrix *w, const float *block, const float *scale, int32_t rows, int32_t n,
                   enum epilogue mode, int32_t activation, float *out, int64_t stride)
{
    for (int32_t r = 0; r < rows; r++) {
        float value[WIDTH];
        for (int32_t j = 0; j < WIDTH; j += LANES) {
            vf v = vf_load(block + r * WIDTH + j);
            if (w->type == RL_INT8) {
                vi sum = vi_load(block + r * WIDTH + j);
#if defined(RL_AVX512)
                sum -= vi_load(w->sum + n + j) << 7;
#endif
                v = vi_to_float(sum) * (vf_set(scale[r]) * vf_load(w->scale + n + j));
            }
            if (w->bias) v = v + vf_load(w->bias + n + j);
            vf_store(value + j, v);
        }
        float *to = out + r * stride + (mode == GATE ? n / 2 : n);
        if (mode == GATE)
            for (int32_t j = 0; j < PANEL; j += LANES) {
                vf gate = vf_load(value + j);
                gate = activation == RL_SILU ? vf_silu(gate) : vf_gelu_tanh(gate);
                vf_store(to + j, gate * vf_load(value + PANEL + j));
            }
        else
            for (int32_t j = 0; j < WIDTH; j += LANES) {
                vf v = vf_load(value + j);
                vf_store(to + j, mode == ADD ? vf_load(to + j) + v : v);
            }
    }
}

/* One phase: out = a W^T in the way of `mode`. a: rows packed for w's type. */
static void multiply(rl_worker *worker, const rl_matrix *w, const char *a, int64_t lda, const float *scale,
                     int32_t rows, enum epilogue mode, int32_t activation, float *out, int64_t stride, float *own)
{
    const int32_t across = w->n / WIDTH, down = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int64_t panel = (int64_t)w->k * PANEL * weight_size(w->type);
    int32_t begin, end;
    while (take_work(worker, across * down, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            int32_t row = unit / across * BLOCK_ROWS, n = unit % across * WIDTH;
            int32_t count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
            const char *weight = (const char *)w->data + n / PANEL * panel, *from = a + row * lda;
            switch (w->type) {
                case RL_F32: block(RL_F32, count, from, lda, weight, panel, w->k, own); break;
                case RL_BF16: block(RL_BF16, count, from, lda, weight, panel, w->k, own); break;
                case RL_INT8: block(RL_INT8, count, from, lda, weight, panel, w->k, own); break;
            }
            finish(w, own, scale ? scale + row : NULL, count, n, mode, activation, out + row * stride, stride);
        }
    next_phase(worker);
}

/* Rows of floats as the input of w: packed in a phase of their own where w needs another form. */
static const char *input_for(rl_worker *worker, const arena *s, const rl_matrix *w, const float *x, int64_t stride,
                             int32_t rows, int64_t *lda)
{
    if (packed_size(w->type) == 4) {
        *lda = 4 * stride;
        return (const char *)x;
    }
    int32_t begin, end;
    while (take_work(worker, rows, &begin, &end))
        for (int32_t r = begin; r < end; r++)
            pack_row(w->type, x + r * stride, w->k, s->packed + r * s->packed_stride, s->packed_scale + r);
    next_phase(worker);
    *lda = s->packed_stride;
    return s->packed;
}

static void product(rl_worker *worker, const arena *s, const rl_model *m, const rl_matrix *w, const float *x,
                    int64_t x_stride, int32_t rows, enum epilogue mode, float *out, int64_t stride)
{
    int64_t lda;
    const char *a = input_for(worker, s, w, x, x_stride, rows, &lda);
    multiply(worker, w, a, lda, s->packed_scale, rows, mode, m->activation, out, stride,
             (float *)(s->own + worker->id * s->own_bytes));
}

static void normalise(rl_worker *worker, const rl_model *m, const float *x, int64_t stride, const float *weight,
                      int32_t rows, float *out, int add)
{
    int32_t begin, end;
    while (take_work(worker, rows, &begin, &end))
        for (int32_t r = begin; r < end; r++) {
            const float *from = x + r * stride;
            float *to = out + r * stride;
            if (!add) {
                rms_norm(from, weight, m->hidden, m->norm_eps, to);
                for (int32_t i = m->hidden; i < stride; i++) to[i] = 0;
                continue;
            }
            rms_norm(from, weight, m->hidden, m->norm_eps, (float *)from);
            for (int32_t i = 0; i < m->hidden; i++) to[i] += from[i];
        }
    next_phase(worker);
}

static void embed(rl_worker *worker, const arena *s, const rl_model *m, const rl_step *step)
{
    const rl_matrix *e = &m->embedding;
    int32_t begin, end;
    while (take_work(worker, step->rows, &begin, &end))
        for (int32_t r = begin; r < end; r++) {
            float *x = s->x + r * s->x_stride;
            int64_t token = step->tokens[r], panel = token / PANEL, lane = token % PANEL;
            for (int64_t k = 0; k < e->k; k++) {
                if (e->type == RL_BF16) {
                    const uint16_t *half = (const uint16_t *)e->data
                                         + (panel * (e->k / 2) + k / 2) * 2 * PANEL + 2 * lane + (k & 1);
                    uint32_t word = (uint32_t)*half << 16;
                    memcpy(x + k, &word, 4);
                } else
                    x[k] = ((const float *)e->data)[(panel * e->k + k) * PANEL + lane];
                x[k] *= m->embedding_scale;
            }
        }
    next_phase(worker);
}

/* Norm and rotate queries and keys in place, and store keys and values. */
static void place(rl_worker *worker, const arena *s, const rl_model *m, const rl_layer *layer, const rl_kv *kv,
                  const rl_step *step)
{
    const int32_t dim = m->head_dim, half = m->rotary_dim / 2;
    int32_t begin, end;
    while (take_work(worker, step->rows, &begin, &end))
        for (int32_t r = begin; r < end; r++) {
            const rl_chunk *chunk = step->chunk + s->chunk_of_row[r];
            int32_t position = chunk->start + r - chunk->first_row;
            const float *cos = layer->cos + (int64_t)position * half, *sin = layer->sin + (int64_t)position * half;
            float *head = s->qkv + r * s->qkv_stride;
            for (int32_t h = 0; h < m->heads + m->kv_heads; h++, head += dim) {
                const float *norm = h < m->heads ? layer->q_norm : layer->k_norm;
                if (norm) rms_norm(head, norm, dim, m->norm_eps, head);
                rotate(head, cos, sin, m->rotary_dim);
            }
            int32_t block = step->block_table[chunk->first_block + position / kv->size];
            const float *k = s->qkv + r * s->qkv_stride + m->heads * dim, *v = k + m->kv_heads * dim;
            for (int32_t h = 0; h < m->kv_heads; h++)
                kv_write(kv, kv_keys(kv, layer->kv, block, h), position % kv->size, k + h * dim, v + h * dim, dim);
        }
    next_phase(worker);
}

static void attention(rl_worker *worker, const arena *s, const rl_model *m, const rl_layer *layer, const rl_kv *kv,
                      const rl_step *step)
{
    rl_attention_scratch *own = (rl_attention_scratch *)(s->own + worker->id * s->own_bytes);
    int32_t begin, end;
    while (take_work(worker, s->query_count * m->kv_heads, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const query *q = s->queries + unit / m->kv_heads;
            const rl_chunk *chunk = step->chunk + q->chunk;
            attend(m, layer, kv, step->block_table + chunk->first_block,
                   s->qkv + (chunk->first_row + q->offset) * s->qkv_stride, s->qkv_stride, unit % m->kv_heads,
                   chunk->start + q->offset, q->positions, s->attended + q->out_row * s->attended_stride,
                   s->attended_stride, own);
        }
    next_phase(worker);
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
    s->query_count = n;
}

/* For the last layer: only the rows that logits are wanted of go on. */
static void keep_wanted(arena *s, const rl_step *step)
{
    for (int32_t i = 0; i < step->wanted; i++) {
        int32_t row = step->wanted_row[i], c = s->chunk_of_row[row];
        s->queries[i] = (query){c, row - step->chunk[c].first_row, 1, i};
        /* Wanted rows are in rising order, so none is overwritten before it is moved. */
        if (i != row) memcpy(s->x + i * s->x_stride, s->x + row * s->x_stride, 4 * (size_t)s->x_stride);
    }
    s->query_count = step->wanted;
}

static void run_layers(rl_worker *worker, arena *s, const rl_model *m, const rl_step *step)
{
    const rl_kv kv = kv_geometry(m);
    int32_t rows = step->rows;
    embed(worker, s, m, step);
    for (int32_t i = 0; i < m->layers; i++) {
        const rl_layer *layer = m->layer + i;
        normalise(worker, m, s->x, s->x_stride, layer->attention_norm, rows, s->normed, 0);
        product(worker, s, m, &layer->qkv, s->normed, s->x_stride, rows, STORE, s->qkv, s->qkv_stride);
        place(worker, s, m, layer, &kv, step);
        if (i == m->layers - 1) {
            if (step->wanted == 0) return;
            if (worker->id == 0) keep_wanted(s, step);
            next_phase(worker);
            rows = step->wanted;
        }
        attention(worker, s, m, layer, &kv, step);
        if (layer->post_attention_norm) {
            product(worker, s, m, &layer->o, s->attended, s->attended_stride, rows, STORE, s->branch, s->x_stride);
            normalise(worker, m, s->branch, s->x_stride, layer->post_attention_norm, rows, s->x, 1);
        } else
            product(worker, s, m, &layer->o, s->attended, s->attended_stride, rows, ADD, s->x, s->x_stride);
        normalise(worker, m, s->x, s->x_stride, layer->mlp_norm, rows, s->normed, 0);
        product(worker, s, m, &layer->gate_up, s->normed, s->x_stride, rows, GATE, s->act, s->act_stride);
        if (layer->post_mlp_norm) {
            product(worker, s, m, &layer->down, s->act, s->act_stride, rows, STORE, s->branch, s->x_stride);
            normalise(worker, m, s->branch, s->x_stride, layer->post_mlp_norm, rows, s->x, 1);
        } else
            product(worker, s, m, &layer->down, s->act, s->act_stride, rows, ADD, s->x, s->x_stride);
    }
    normalise(worker, m, s->x, s->x_stride, m->norm, rows, s->normed, 0);
    product(worker, s, m, &m->head, s->normed, s->x_stride, rows, STORE, step->logits, m->head.n);
    if (m->final_softcap > 0) {
        int32_t begin, end;
        while (take_work(worker, rows, &begin, &end))
            for (int32_t r = begin; r < end; r++)
                for (int32_t j = 0; j < m->head.n; j += LANES) {
                    float *p = step->logits + (int64_t)r * m->head.n + j;
                    vf_store(p, vf_set(m->final_softcap) * vf_tanh(vf_load(p) / vf_set(m->final_softcap)));
                }
        next_phase(worker);
    }
}

static void begin_team(rl_team *team, int32_t threads)
{
    memset(team, 0, sizeof *team);
    team->size = threads;
}

int64_t RL_VARIANT(scratch_bytes)(const rl_model *model, int32_t rows, int32_t threads)
{
    arena s;
    return lay_out(model, rows, threads, NULL, &s);
}

void RL_VARIANT(forward)(const rl_model *model, const rl_step *step)
{
    arena s;
    lay_out(model, step->rows, step->threads, step->scratch, &s);
    cut_queries(&s, model, step);
#pragma omp parallel num_threads(step->threads)
    {
        /* OpenMP may give fewer threads than asked for. */
#pragma omp single
        begin_team(s.team, omp_get_num_threads());
        rl_worker worker = {s.team, omp_get_thread_num(), 0};
        run_layers(&worker, &s, model, step);
    }
}

int64_t RL_VARIANT(linear_scratch_bytes)(const rl_matrix *w, int32_t rows, int32_t threads)
{
    return align64(sizeof(rl_team)) + (int64_t)rows * align64(4 * (int64_t)w->k) + align64(4 * (int64_t)rows)
         + threads * align64(BLOCK_ROWS * WIDTH * sizeof(float));
}

void RL_VARIANT(linear)(const rl_matrix *w, const float *x, float *y, int32_t rows, int32_t threads, void *scratch)
{
    arena s = {0};
    char *at = scratch;
    s.team = (rl_team *)at, at += align64(sizeof(rl_team));
    s.packed = at, s.packed_stride = align64(4 * (int64_t)w->k), at += rows * s.packed_stride;
    s.packed_scale = (float *)at, at += align64(4 * (int64_t)rows);
    s.own = at, s.own_bytes = align64(BLOCK_ROWS * WIDTH * sizeof(float));
    const rl_model plain = {0};
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        begin_team(s.team, omp_get_num_threads());
        rl_worker worker = {s.team, omp_get_thread_num(), 0};
        product(&worker, &s, &plain, w, x, w->k, rows, STORE, y, w->n);
    }
}
