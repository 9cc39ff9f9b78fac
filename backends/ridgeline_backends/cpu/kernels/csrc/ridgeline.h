/* The C interface of the CPU kernels: plain structs and pointers, no library's headers.
 *
 * One call, rl_forward, runs a whole engine step: every layer, for a flat list of rows (tokens of
 * prompt chunks and of decoding sequences alike). Widths of matrices and of
 * rows are rounded up to 64, and what pads a weight is zero. Mirrored by library.py. */
#ifndef RIDGELINE_H
#define RIDGELINE_H

#include <stdint.h>

#define RL_ABI 6
#define RL_PUBLIC __attribute__((visibility("default")))

enum rl_type { RL_F32 = 0, RL_BF16 = 1, RL_INT8 = 2 };
enum rl_target { RL_QKV = 0, RL_O = 1, RL_GATE_UP = 2, RL_DOWN = 3, RL_TARGETS = 4 };
enum rl_activation { RL_SILU = 0, RL_GELU_TANH = 1 };

/* A weight [n, k], packed in panels of 16 rows: F32 [n/16][k][16], BF16 [n/16][k/2][16][2]. INT8:
 * for every group of k [group/4][16][4] numbers, then for each of the 16 rows a word, the group's scale
 * as bfloat16 (high) and less the sum of its numbers (low). n and k are the padded ones. data null:
 * absent. */
typedef struct {
    const void *data;
    const float *bias; /* [n] or null */
    int32_t type, n, k, reserved;
} rl_matrix;

/* What INT8 weights are for the variant in use: so many numbers of a row share a scale, the last ones
 * of a row perhaps half as many. With `narrow` four products are added in 16 bits: of every eight numbers
 * of a row 0, 1, 4, 5 and 2, 3, 6, 7 each have positive ones of at most 128 together, and negative ones. */
typedef struct {
    int32_t group, narrow;
} rl_int8_form;
RL_PUBLIC const rl_int8_form *rl_int8(void);

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

/* Row r of core c begins at data + c * core + r * row, counted in numbers. `core` is 0 where all cores
 * have the same, `row` where all rows have. */
typedef struct {
    void *data;
    int64_t core, row;
} rl_rows;

/* What simulated cores run: whole tensors of float32 numbers, a core's below another's.
 *
 * PRODUCT  out = x W^T * y + z; W of each core, a scale y and a bias z for each of `width` columns,
 *          null where there is none; x has `dim` columns
 * ATTEND   x [heads, dim] over keys y and values z [slots, kv_heads, entries, dim or width], `row`
 *          between entries, -> out [heads, width]: those of the row's slot up to its position, or
 *          the last `window` of them; zeros at a negative position. A score is scale * q.k, capped
 *          softly where softcap > 0. With `round` shares are rounded too before they weigh values
 * SUM      out = x of all `parts` cores, added by rank
 * ADD      out = x + y
 * NORM     out = x / rms(x) * y for each of `heads`
 * TURN     out = x [heads, dim] turned to its position, by cosines y and sines z [.., rotary], which
 *          carry the sign of the first half; a negative position counts as 0
 * PUT      x [heads, dim] into the cache out [slots, heads, entries, dim] at its position; nowhere at
 *          a negative one
 * GATED    out = activation(the first `width` of x) * the rest of it
 *
 * Results are rounded to bfloat16 with `round`. `each` rows share a slot. Row r stands at position[r].
 * `type` is that of keys, values and caches. Of `cores` 1 results are those of all. */
enum rl_kind { RL_PRODUCT, RL_ATTEND, RL_SUM, RL_ADD, RL_NORM, RL_TURN, RL_PUT, RL_GATED };

typedef struct {
    int32_t kind, joined; /* joined: reads of this row alone what the operation before has written */
    int32_t round, cores, parts, rows, width, heads, kv_heads, dim, rotary, each, window, entries, type, activation;
    float scale, softcap, eps, reserved;
    rl_rows x, y, z, out;
    int64_t key_slot, key_head, value_slot, value_head; /* from a slot and a head to the next; of PUT the key's */
    const rl_matrix *matrix; /* [cores] */
    const int64_t *position, *slot;
} rl_operation;

/* Run a list of operations in one parallel region. `scratch` is aligned to 64. */
RL_PUBLIC int64_t rl_run_scratch_bytes(const rl_operation *operation, int32_t count, int32_t threads);
RL_PUBLIC void rl_run(const rl_operation *operation, int32_t count, int32_t threads, void *scratch);

RL_PUBLIC int32_t rl_abi(void);
/* Names of the variants this processor can run, best first, separated by commas. */
RL_PUBLIC const char *rl_variants(void);
/* Use a variant by name ("" = the best). Returns its name, or null if it cannot run here. Call it
 * before anything else. */
RL_PUBLIC const char *rl_use(const char *name);

#endif
