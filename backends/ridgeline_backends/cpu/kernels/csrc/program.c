/* Programs of simulated cores, in one call: operations whose results others read are phases, shared
 * out between the threads of one parallel region. What happens row by row is one phase from a product
 * or an attention to the next, in which a thread brings its row through all of it. Compiled once per
 * variant; see simd.h. */
#include "contiguous.h"
#include "linear.h"
#include "ridgeline.h"
#include "rows.h"
#include "team.h"

#define PHASES 2 /* of an operation at most */

typedef struct {
    const rl_operation *operation;
    rl_phase *phases;
    char *own, *packed; /* own: per thread */
    int64_t own_bytes;
    int32_t count, threads;
} run_job;

INLINE int32_t columns_in_use(int32_t n, int32_t width) { return width - n < WIDTH ? width - n : WIDTH; }

/* Activations of every core in the form for the weights, in a phase of its own where they are not. */
static const char *product_input(rl_worker *worker, const run_job *job, const rl_operation *op, int64_t *row,
                                 int64_t *core)
{
    const rl_matrix *w = op->matrix;
    const int padded = w->k != op->dim, floats = packed_bytes(w->type, GROUP) == 4 * GROUP;
    if (!padded && floats) {
        *row = 4 * op->x.row, *core = 4 * op->x.core;
        return op->x.data;
    }
    const int32_t cores = op->x.core ? op->cores : 1;
    int32_t begin, end;
    *row = align64(4 * (int64_t)w->k), *core = op->x.core ? op->rows * *row : 0;
    while (take_work(worker, cores * op->rows, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const float *x = rows_at(&op->x, unit / op->rows, unit % op->rows);
            char *to = job->packed + unit * *row;
            if (padded) {
                float *wide = floats ? (float *)to : (float *)(job->own + worker->id * job->own_bytes);
                memcpy(wide, x, 4 * (size_t)op->dim);
                memset(wide + op->dim, 0, 4 * (size_t)(w->k - op->dim));
                x = wide;
            }
            if (!floats) pack_row(w->type, x, w->k, to);
        }
    next_phase(worker);
    return job->packed;
}

/* Scale, bias and rounding, then into place. */
INLINE void finish_product(const rl_operation *op, const float *block, int32_t core, int32_t row, int32_t rows, int32_t n)
{
    const int32_t columns = columns_in_use(n, op->width);
    const float *scale = (const float *)op->y.data, *bias = (const float *)op->z.data;
    for (int32_t r = 0; r < rows; r++) {
        float *to = rows_at(&op->out, core, row + r) + n;
        EACH(i, count, columns) {
            vf v = load_some(block + r * WIDTH + i, count);
            if (scale) v = v * load_some(scale + core * op->y.core + n + i, count);
            if (bias) v = v + load_some(bias + core * op->z.core + n + i, count);
            store_some(to + i, op->round ? to_bf16(v) : v, count);
        }
    }
}

static void run_product(rl_worker *worker, const run_job *job, const rl_operation *op)
{
    const int32_t across = (op->width + WIDTH - 1) / WIDTH, down = (op->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    float *own = (float *)(job->own + worker->id * job->own_bytes);
    int64_t lda, between;
    const char *x = product_input(worker, job, op, &lda, &between);
    int32_t begin, end;
    while (take_work(worker, op->cores * down * across, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const int32_t core = unit / (down * across), n = unit % across * WIDTH;
            const int32_t row = unit / across % down * BLOCK_ROWS;
            const int32_t rows = op->rows - row < BLOCK_ROWS ? op->rows - row : BLOCK_ROWS;
            const rl_matrix *w = op->matrix + core;
            const int64_t panel = panel_bytes(w->type, w->k);
            const char *weight = (const char *)w->data + n / PANEL * panel, *from = x + core * between + row * lda;
            if (w->type == RL_BF16)
                block(RL_BF16, rows, from, lda, weight, panel, w->k, own);
            else
                block(RL_F32, rows, from, lda, weight, panel, w->k, own);
            finish_product(op, own, core, row, rows, n);
        }
    next_phase(worker);
}

static void run_attention(rl_worker *worker, const run_job *job, const rl_operation *op)
{
    float *score = (float *)(job->own + worker->id * job->own_bytes);
    int32_t begin, end;
    while (take_work(worker, op->cores * op->rows * op->kv_heads, &begin, &end))
        for (int32_t unit = begin; unit < end; unit++) {
            const int32_t core = unit / (op->rows * op->kv_heads);
            const int32_t row = unit / op->kv_heads % op->rows, head = unit % op->kv_heads;
            if (op->type == RL_BF16)
                attend_row(RL_BF16, op, core, row, head, score);
            else
                attend_row(RL_F32, op, core, row, head, score);
        }
    next_phase(worker);
}

static void sum_row(const rl_operation *op, int32_t row)
{
    float *out = rows_at(&op->out, 0, row);
    EACH(i, count, op->width) {
        vf sum = load_some(rows_at(&op->x, 0, row) + i, count);
        for (int32_t part = 1; part < op->parts; part++)
            sum = sum + load_some(rows_at(&op->x, part, row) + i, count);
        store_some(out + i, op->round ? to_bf16(sum) : sum, count);
    }
}

static void add_row(const rl_operation *op, const float *x, const float *y, float *out)
{
    EACH(i, count, op->width) {
        vf sum = load_some(x + i, count) + load_some(y + i, count);
        store_some(out + i, op->round ? to_bf16(sum) : sum, count);
    }
}

static void norm_row(const rl_operation *op, const float *x, const float *weight, float *out)
{
    for (int32_t h = 0; h < op->heads; h++)
        rms_norm(x + h * op->width, weight, op->width, op->eps, out + h * op->width);
    if (op->round) round_row(out, op->heads * op->width);
}

static void turn_row(const rl_operation *op, const float *x, int64_t position, int32_t core, float *out)
{
    const int32_t half = op->rotary / 2;
    const int64_t at = position < 0 ? 0 : position;
    const float *cos = (const float *)op->y.data + core * op->y.core + at * op->y.row;
    const float *sin = (const float *)op->z.data + core * op->z.core + at * op->z.row;
    for (int32_t h = 0; h < op->heads; h++, x += op->dim, out += op->dim) {
        for (int32_t i = 0; i < half; i++) {
            out[i] = x[i] * cos[i] + x[i + half] * sin[i];
            out[i + half] = x[i + half] * cos[i + half] + x[i] * sin[i + half];
        }
        for (int32_t i = op->rotary; i < op->dim; i++) out[i] = x[i];
        if (op->round) round_row(out, op->dim);
    }
}

/* In a finite form, so that what overflowed in one sequence does not reach the next holder of its
 * slot. */
INLINE void put_row(const int type, const rl_operation *op, int32_t core, int32_t row)
{
    const int64_t position = op->position[row];
    if (position < 0) return;
    const float *from = rows_at(&op->x, core, row);
    int64_t at = core * op->out.core + op->slot[row / op->each] * op->key_slot + position * op->out.row;
    for (int32_t h = 0; h < op->heads; h++, at += op->key_head, from += op->dim)
        for (int32_t d = 0; d < op->dim; d++)
            if (type == RL_BF16)
                ((uint16_t *)op->out.data)[at + d] = bf16_round(finite(from[d]));
            else
                ((float *)op->out.data)[at + d] = finite(from[d]);
}

static void gate_row(const rl_operation *op, const float *gate, float *out)
{
    const float *up = gate + op->width;
    EACH(i, count, op->width) {
        vf v = load_some(gate + i, count);
        v = (op->activation == RL_SILU ? vf_silu(v) : gelu_tanh(v)) * load_some(up + i, count);
        store_some(out + i, op->round ? to_bf16(v) : v, count);
    }
}

static void run_row(const rl_operation *op, int32_t row)
{
    if (op->kind == RL_SUM) {
        sum_row(op, row);
        return;
    }
    for (int32_t core = 0; core < op->cores; core++) {
        const float *x = rows_at(&op->x, core, row);
        float *out = rows_at(&op->out, core, row);
        switch (op->kind) {
            case RL_ADD: add_row(op, x, rows_at(&op->y, core, row), out); break;
            case RL_NORM: norm_row(op, x, rows_at(&op->y, core, row), out); break;
            case RL_TURN: turn_row(op, x, op->position[row], core, out); break;
            case RL_GATED: gate_row(op, x, out); break;
            case RL_PUT:
                if (op->type == RL_BF16)
                    put_row(RL_BF16, op, core, row);
                else
                    put_row(RL_F32, op, core, row);
                break;
        }
    }
}

/* Operations that follow each other on the same rows. */
static void run_rows(rl_worker *worker, const rl_operation *op, int32_t count)
{
    int32_t begin, end;
    while (take_work(worker, op->rows, &begin, &end))
        for (int32_t row = begin; row < end; row++)
            for (int32_t i = 0; i < count; i++) run_row(op + i, row);
    next_phase(worker);
}

static void run_operations(void *data)
{
    const run_job *job = data;
    rl_worker worker = {job->phases, omp_get_thread_num(), job->threads, 0, 0};
    for (int32_t i = 0; i < job->count;) {
        const rl_operation *op = job->operation + i++;
        if (op->kind == RL_PRODUCT) {
            run_product(&worker, job, op);
        } else if (op->kind == RL_ATTEND) {
            run_attention(&worker, job, op);
        } else {
            int32_t first = i - 1;
            while (i < job->count && job->operation[i].joined) i++;
            run_rows(&worker, op, i - first);
        }
    }
}

/* Bytes that each thread and all of them work in. */
static void measure(const rl_operation *operation, int32_t count, int64_t *own, int64_t *packed)
{
    *own = BLOCK_ROWS * WIDTH * sizeof(float), *packed = 0;
    for (int32_t i = 0; i < count; i++) {
        const rl_operation *op = operation + i;
        int64_t size = op->kind == RL_ATTEND ? 4 * (int64_t)round_up(op->entries, PADDING) : 0;
        if (op->kind == RL_PRODUCT) {
            size = 4 * (int64_t)op->matrix->k;
            int64_t all = (op->x.core ? op->cores : 1) * op->rows * align64(size);
            if (all > *packed) *packed = all;
        }
        if (size > *own) *own = size;
    }
    *own = align64(*own);
}

int64_t RL_VARIANT(run_scratch_bytes)(const rl_operation *operation, int32_t count, int32_t threads)
{
    int64_t own, packed;
    measure(operation, count, &own, &packed);
    return align64(PHASES * count * sizeof(rl_phase)) + threads * own + packed;
}

void RL_VARIANT(run)(const rl_operation *operation, int32_t count, int32_t threads, void *scratch)
{
    int64_t own, packed, phases = align64(PHASES * count * sizeof(rl_phase));
    measure(operation, count, &own, &packed);
    char *at = scratch;
    memset(at, 0, (size_t)phases);
    run_job job = {operation, (rl_phase *)at, at + phases, at + phases + threads * own, own, count, threads};
    GOMP_parallel(run_operations, &job, (unsigned)threads, 0);
}
