/* The C interface of the CPU kernels: plain structs and pointers, no library's headers.
 *
 * One call, rl_forward, runs a whole engine step: every layer, for a flat list of rows (tokens of
 * prompt chunks and of decoding sequences alike). Widths of matrices and of
 * rows are rounded up to 64, and what pads a weight is zero. Mirrored by library.py. */
#ifndef RIDGELINE_H
#define RIDGELINE_H

#include <stdint.h>

#define RL_ABI 3
#define RL_PUBLIC __attribute__((visibility("default")))

enum rl_type { RL_F32 = 0, RL_BF16 = 1, RL_INT8 = 2 };
enum rl_target { RL_QKV = 0, RL_O = 1, RL_GATE_UP = 2, RL_DOWN = 3, RL_TARGETS = 4 };
enum rl_activation { RL_SILU = 0, RL_GELU_TANH = 1 };

/* A weight [n, k], packed in panels of 16 rows: F32 [n/16][k][16], BF16 [n/16][k/2][16][2]. INT8:
 * for every 64 of k [16][16][4] numbers, then for each of the 16 rows a word, the group's scale as
 * bfloat16 (high) and the sum of its numbers (low). n and k are the padded ones. data null: absent. */
typedef struct {
    const void *data;
    const float *bias; /* [n] or null */
    int32_t type, n, k, reserved;
} rl_matrix;

/* Low-rank addition to one matrix: y += up (down x). Both F32; a rank of at most RL_MAX_RANK,
 * padding included. */
#define RL_MAX_RANK 512
typedef struct {
    rl_matrix down; /* [rank, k] */
    rl_matrix up;   /* [n, rank] */
} rl_low_rank;

/* Norm weights are float32; a null one is absent. gate_up interleaves panels: gate, up, gate, up. */
typedef struct {
    const float *attention_norm, *post_attention_norm, *mlp_norm, *post_mlp_norm;
    const float *q_norm, *k_norm;
    rl_matrix qkv, o, gate_up, down;
    const float *cos, *sin; /* [positions, rotary_dim / 2] */
    void *kv;               /* this layer's KV of block 0 */
    int32_t window;         /* keys a query sees, itself included; 0: all */
    int32_t reserved;
} rl_layer;

typedef struct {
    int32_t hidden, layers, heads, kv_heads, head_dim, rotary_dim, intermediate, vocab;
    int32_t activation, kv_type, block_size, reserved;
    int64_t kv_stride; /* bytes from one block's KV of a layer to the next block's */
    float norm_eps, attention_scale, attention_softcap, final_softcap, embedding_scale;
    float reserved_float;
    const rl_layer *layer;
    const float *norm;
    rl_matrix head;
    rl_matrix embedding; /* F32 or BF16, packed as a matrix [vocab, hidden]; often the head itself */
} rl_model;

/* Rows first_row .. first_row + rows - 1 of the step are tokens of one sequence, at positions
 * start, start + 1, ... Its KV blocks are block_table[first_block ...]. */
typedef struct {
    int32_t first_row, rows, start, first_block, adapter, reserved;
} rl_chunk;

/* adapter[chunk.adapter][4 * layer + target]: low-rank additions, targets as in rl_target; what an
 * adapter leaves alone has null data. adapter itself is null where no chunk has one (-1). */
typedef struct {
    int32_t rows, chunks, wanted, threads;
    const int32_t *tokens;    /* [rows] */
    const rl_chunk *chunk;    /* [chunks] */
    const int32_t *block_table;
    const int32_t *wanted_row; /* [wanted] */
    float *logits;            /* [wanted, padded vocab] */
    const rl_low_rank *const *adapter;
    void *scratch;            /* rl_scratch_bytes of it, aligned to 64 */
} rl_step;

/* Bytes of scratch for steps of at most so many rows, with or without adapters. */
RL_PUBLIC int64_t rl_scratch_bytes(const rl_model *model, int32_t rows, int32_t threads, int32_t adapters);

/* Run the step. */
RL_PUBLIC void rl_forward(const rl_model *model, const rl_step *step);

/* y[rows, n] = x[rows, k] W^T + bias. */
typedef struct {
    rl_matrix w;
    const float *x;
    float *y;
    int32_t rows, reserved;
} rl_product;

/* Matrix products, one after the other in one parallel region. */
RL_PUBLIC int64_t rl_products_scratch_bytes(const rl_product *product, int32_t count, int32_t threads);
RL_PUBLIC void rl_products(const rl_product *product, int32_t count, int32_t threads, void *scratch);

/* Attention of rows q [rows, heads, dim] -> out [rows, heads, width], each over the keys of its slot
 * up to its own position, or the last `window` of them; zeros where the position is negative. Keys
 * and values are F32 or BF16; strides are in numbers. A score is `scale` * q.k, capped softly where
 * softcap > 0. With `round` shares are rounded to bfloat16 before they weigh values. */
typedef struct {
    const float *q;
    const void *k, *v;
    const int64_t *position, *slot; /* [rows] */
    float *out;
    int64_t slot_stride, head_stride, entry_stride;
    int64_t value_slot_stride, value_head_stride, value_entry_stride;
    int32_t rows, heads, kv_heads, dim, width, window, type, round, entries, threads;
    float scale, softcap;
} rl_attention;

RL_PUBLIC int64_t rl_attention_scratch_bytes(int32_t entries, int32_t threads);
RL_PUBLIC void rl_attend(const rl_attention *attention, void *scratch);

/* out = x / rms(x) * weight, for each row of n. */
RL_PUBLIC void rl_norm(const float *x, const float *weight, float *out, int32_t rows, int32_t n, float eps);

/* Entries [rows, heads, dim] into a cache F32 or BF16, each at its position in its slot; `each` rows
 * share a slot. A row at a negative position goes nowhere. Strides are in numbers. */
typedef struct {
    void *cache;
    const float *entries;
    const int64_t *position, *slot; /* [rows], [rows / each] */
    int64_t slot_stride, head_stride, entry_stride;
    int32_t rows, each, heads, dim, type, reserved;
} rl_put;

RL_PUBLIC void rl_put_entries(const rl_put *put);

/* Rotary positions of x [rows, heads, dim], in place. Row r stands at position[r % period]; a
 * negative one counts as 0. Tables [positions, rotary]. */
typedef struct {
    float *x;
    const int64_t *position;
    const float *cos, *sin;
    int32_t rows, period, heads, dim, rotary, reserved;
} rl_turn;

RL_PUBLIC void rl_turn_rows(const rl_turn *turn);

RL_PUBLIC int32_t rl_abi(void);
/* Names of the variants this processor can run, best first, separated by commas. */
RL_PUBLIC const char *rl_variants(void);
/* Use a variant by name ("" = the best). Returns its name, or null if it cannot run here. Call it
 * before anything else. */
RL_PUBLIC const char *rl_use(const char *name);

#endif
