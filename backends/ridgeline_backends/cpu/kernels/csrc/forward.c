/* A whole step of a decoder in one call: the same phases for every layer, rows shared out between
 * the threads of one parallel region. Compiled once per variant; see simd.h. */
#include <stddef.h>

#include "arena.h"
#include "attention.h"
#include "linear.h"
#include "ridgeline.h"
#include "rows.h"
#include "team.h"

enum epilogue { STORE, ADD, GATE };

/* A panel of gates and its panel of ups to a panel of results. */
INLINE void gated(int32_t activation, const float *pair, float *out)
{
    for (int32_t j = 0; j < PANEL; j += LANES) {
        vf gate = vf_load(pair + j);
        gate = activation == RL_SILU ? vf_silu(gate) : vf_gelu_tanh(gate);
        vf_store(out + j, gate * vf_load(pair + PANEL + j));
    }
}

/* Finish a block: bias, then into place. */
INLINE void finish(const rl_matrix *w, const float *block, int32_t rows, int32_t n,
                   enum epilogue mode, int32_t activation, float *out, int64_t stride)
{
    for (int32_t r = 0; r < rows; r++) {
        float value[WIDTH];
        for (int32_t j = 0; j < WIDTH; j += LANES) {
            vf v = vf_load(block + r * WIDTH + j);
            if (w->bias) v = v + vf_load(w->bias + n + j);
            vf_store(value + j, v);
        }
        float *to = out + r * stride + (mode == GATE ? n / 2 : n);
        if (mode == GATE)
            gated(activation, value, to);
        else
            for (int32_t j = 0; j < WIDTH; j += LANES) {
                vf v = vf_load(value + j);
                vf_store(to + j, mode == ADD ? vf_load(to + j) + v : v);
            }
    }
}

/* One phase: out = a W^T in the way of `mode`. a: rows packed for w's type. */
static void multiply(rl_worker *worker, const rl_matrix *w, const char *a, int64_t lda, int32_t rows,
                     enum epilogue mode, int32_t activation, float *out, int64_t stride, float *own)
{
    const int32_t across = w->n / WIDTH, down = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int64_t panel = panel_bytes(w->type, w->k);
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
            finish(w, own, count, n, mode, activation, out + row * stride, stride);
        }
    next_phase(worker);
}

/* Rows of floats as the input of w: packed in a phase of their own where w needs another form. */
static const char *input_for(rl_worker *worker, const arena *s, const rl_matrix *w, const float *x, int64_t stride,
                             int32_t rows, int64_t *lda)
{
    if (packed_bytes(w->type, GROUP) == 4 * GROUP) {
        *lda = 4 * stride;
        return (const char *)x;
    }
    int32_t begin, end;
    while (take_work(worker, rows, &begin, &end))
        for (int32_t r = begin; r < end; r++)
            pack_row(w->type, x + r * stride, w->k, s->packed + r * s->packed_stride);
    next_phase(worker);
    *lda = s->packed_stride;
    return s->packed;
}

static void product(rl_worker *worker, const arena *s, const rl_model *m, const rl_matrix *w, const float *x,
                    int64_t x_stride, int32_t rows, enum epilogue mode, float *out, int64_t stride)
{
    int64_t lda;
    const char *a = input_for(worker, s, w, x, x_stride, rows, &lda);
    multiply(worker, w, a, lda, rows, mode, m->activation, out, stride,
             (float *)(s->own + worker->id * s->own_bytes));
}

/* out += up (down x) for the rows of chunks that have an adapter for this matrix (Hu et al. 2021). */
static void adapt(rl_worker *worker, const arena *s, const rl_step *step, const span *now, int32_t place,
                  const float *x, int64_t x_stride, float *out, int64_t stride)
{
    if (!step->adapter) return;
    rl_attention_scratch *own = (rl_attention_scratch *)(s->own + worker->id * s->own_bytes);
    float *low = own->q, *sum = own->score;
    int32_t begin, end;
    while (take_work(worker, now->count, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const query *q = now->queries + unit;
            int32_t adapter = step->chunk[q->chunk].adapter;
            if (adapter < 0) continue;
            const rl_low_rank *pair = step->adapter[adapter] + place;
            if (!pair->down.data) continue;
            const int32_t rank = pair->down.n, k = pair->down.k;
            for (int32_t n = 0; n < rank; n += WIDTH) {
                block(RL_F32, q->positions, (const char *)(x + q->out_row * x_stride), 4 * x_stride,
                      (const char *)pair->down.data + (int64_t)n * k * 4, (int64_t)k * PANEL * 4, k, sum);
                for (int32_t r = 0; r < q->positions; r++)
                    memcpy(low + r * rank + n, sum + r * WIDTH, 4 * WIDTH);
            }
            for (int32_t n = 0; n < pair->up.n; n += WIDTH) {
                block(RL_F32, q->positions, (const char *)low, 4 * (int64_t)rank,
                      (const char *)pair->up.data + (int64_t)n * rank * 4, (int64_t)rank * PANEL * 4, rank, sum);
                finish(&pair->up, sum, q->positions, n, ADD, 0, out + q->out_row * stride, stride);
            }
        }
    next_phase(worker);
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
static void place_rows(rl_worker *worker, const arena *s, const rl_model *m, const rl_layer *layer, const rl_kv *kv,
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
                      const rl_step *step, const span *now)
{
    rl_attention_scratch *own = (rl_attention_scratch *)(s->own + worker->id * s->own_bytes);
    int32_t begin, end;
    while (take_work(worker, now->count * m->kv_heads, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const query *q = now->queries + unit / m->kv_heads;
            const rl_chunk *chunk = step->chunk + q->chunk;
            /* What pads a row meets weights of zero, and must be numbers for that. */
            for (int32_t r = 0; r < q->positions && unit % m->kv_heads == 0; r++)
                for (int64_t i = m->heads * m->head_dim; i < s->attended_stride; i++)
                    s->attended[(q->out_row + r) * s->attended_stride + i] = 0;
            attend(m, layer, kv, step->block_table + chunk->first_block,
                   s->qkv + (chunk->first_row + q->offset) * s->qkv_stride, s->qkv_stride, unit % m->kv_heads,
                   chunk->start + q->offset, q->positions, s->attended + q->out_row * s->attended_stride,
                   s->attended_stride, own);
        }
    next_phase(worker);
}

/* act = activation(gate) * up, with what adapters add to both where there are any. */
static void gate_up(rl_worker *worker, const arena *s, const rl_model *m, const rl_step *step, int32_t layer,
                    const span *now)
{
    const rl_matrix *w = &m->layer[layer].gate_up;
    if (!step->adapter) {
        product(worker, s, m, w, s->normed, s->x_stride, now->rows, GATE, s->act, s->act_stride);
        return;
    }
    const int64_t wide = 2 * s->act_stride;
    product(worker, s, m, w, s->normed, s->x_stride, now->rows, STORE, s->gate_up, wide);
    adapt(worker, s, step, now, layer * RL_TARGETS + RL_GATE_UP, s->normed, s->x_stride, s->gate_up, wide);
    int32_t begin, end;
    while (take_work(worker, now->rows, &begin, &end))
        for (int32_t r = begin; r < end; r++)
            for (int32_t j = 0; j < s->act_stride; j += PANEL)
                gated(m->activation, s->gate_up + 2 * (r * s->act_stride + j), s->act + r * s->act_stride + j);
    next_phase(worker);
}

/* x += W a, or x += norm(W a) where the family normalises what a branch gives. */
static void add_branch(rl_worker *worker, const arena *s, const rl_model *m, const rl_step *step, const span *now,
                       const rl_matrix *w, int32_t place, const float *a, int64_t a_stride, const float *norm)
{
    float *out = norm ? s->branch : s->x;
    product(worker, s, m, w, a, a_stride, now->rows, norm ? STORE : ADD, out, s->x_stride);
    adapt(worker, s, step, now, place, a, a_stride, out, s->x_stride);
    if (norm) normalise(worker, m, s->branch, s->x_stride, norm, now->rows, s->x, 1);
}

/* Bring the rows that logits are wanted of to the front. */
static void keep_wanted(rl_worker *worker, const arena *s, const rl_step *step)
{
    int32_t begin, end;
    while (take_work(worker, 1, &begin, &end))
        for (int32_t i = 0; i < step->wanted; i++)
            /* In rising order, so none is overwritten before it is moved. */
            if (step->wanted_row[i] != i)
                memcpy(s->x + i * s->x_stride, s->x + step->wanted_row[i] * s->x_stride, 4 * (size_t)s->x_stride);
    next_phase(worker);
}

static void run_layers(rl_worker *worker, const arena *s, const rl_model *m, const rl_step *step)
{
    const rl_kv kv = kv_geometry(m);
    const span *now = &s->every;
    embed(worker, s, m, step);
    for (int32_t i = 0; i < m->layers; i++) {
        const rl_layer *layer = m->layer + i;
        const int32_t place = i * RL_TARGETS;
        normalise(worker, m, s->x, s->x_stride, layer->attention_norm, step->rows, s->normed, 0);
        product(worker, s, m, &layer->qkv, s->normed, s->x_stride, step->rows, STORE, s->qkv, s->qkv_stride);
        adapt(worker, s, step, now, place + RL_QKV, s->normed, s->x_stride, s->qkv, s->qkv_stride);
        place_rows(worker, s, m, layer, &kv, step);
        if (i == m->layers - 1) {
            if (step->wanted == 0) return;
            keep_wanted(worker, s, step);
            now = &s->last;
        }
        attention(worker, s, m, layer, &kv, step, now);
        add_branch(worker, s, m, step, now, &layer->o, place + RL_O, s->attended, s->attended_stride,
                   layer->post_attention_norm);
        normalise(worker, m, s->x, s->x_stride, layer->mlp_norm, now->rows, s->normed, 0);
        gate_up(worker, s, m, step, i, now);
        add_branch(worker, s, m, step, now, &layer->down, place + RL_DOWN, s->act, s->act_stride, layer->post_mlp_norm);
    }
    const int32_t rows = now->rows;
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

const rl_int8_form *RL_VARIANT(int8)(void)
{
#if defined(RL_AVX512)
    static const rl_int8_form form = {GROUP, 0};
#else
    static const rl_int8_form form = {GROUP, 1};
#endif
    return &form;
}

int64_t RL_VARIANT(scratch_bytes)(const rl_model *model, int32_t rows, int32_t threads, int32_t adapters)
{
    arena s;
    return lay_out(model, rows, threads, adapters, NULL, &s);
}

typedef struct { const arena *s; const rl_model *m; const rl_step *step; } step_job;

static void run_step(void *data)
{
    const step_job *job = data;
    rl_worker worker = {job->s->phases, omp_get_thread_num(), job->step->threads, 0, 0};
    run_layers(&worker, job->s, job->m, job->step);
}

void RL_VARIANT(forward)(const rl_model *model, const rl_step *step)
{
    arena s;
    lay_out(model, step->rows, step->threads, step->adapter != NULL, step->scratch, &s);
    cut_queries(&s, model, step);
    memset(s.phases, 0, sizeof(rl_phase) * (size_t)phase_count(model));
    step_job job = {&s, model, step};
    GOMP_parallel(run_step, &job, (unsigned)step->threads, 0);
}

/* One product is two phases at most. */
#define PRODUCT_PHASES 2

int64_t RL_VARIANT(products_scratch_bytes)(const rl_product *product, int32_t count, int32_t threads)
{
    int64_t packed = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t own = product[i].rows * align64(4 * (int64_t)product[i].w.k);
        if (own > packed) packed = own;
    }
    return align64(count * PRODUCT_PHASES * sizeof(rl_phase)) + packed
         + threads * align64(BLOCK_ROWS * WIDTH * sizeof(float));
}

typedef struct {
    const rl_product *product;
    rl_phase *phases;
    char *own, *packed;
    int32_t count, threads;
} products_job;

static void run_products(void *data)
{
    const products_job *job = data;
    const rl_model plain = {0};
    rl_worker worker = {job->phases, omp_get_thread_num(), job->threads, 0, 0};
    for (int32_t i = 0; i < job->count; i++) {
        const rl_product *p = job->product + i;
        arena s = {0};
        s.own = job->own, s.own_bytes = align64(BLOCK_ROWS * WIDTH * sizeof(float));
        s.packed = job->packed, s.packed_stride = align64(4 * (int64_t)p->w.k);
        product(&worker, &s, &plain, &p->w, p->x, p->w.k, p->rows, STORE, p->y, p->w.n);
    }
}

void RL_VARIANT(products)(const rl_product *product, int32_t count, int32_t threads, void *scratch)
{
    int64_t phases = align64(count * PRODUCT_PHASES * sizeof(rl_phase));
    int64_t own = threads * align64(BLOCK_ROWS * WIDTH * sizeof(float));
    char *at = scratch;
    memset(at, 0, (size_t)phases);
    products_job job = {product, (rl_phase *)at, at + phases, at + phases + own, count, threads};
    GOMP_parallel(run_products, &job, (unsigned)threads, 0);
}
