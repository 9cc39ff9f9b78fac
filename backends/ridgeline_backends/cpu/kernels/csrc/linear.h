/* Matrix products: rows of activations against packed weights.
 *
 * Each output element is one chain of multiply-adds over k in rising order, whatever tile computed
 * it and however many rows there are. That is what makes answers independent of the batch.
 *
 * Activations are first brought into the form that a weight type multiplies (`pack_row`):
 * float32 rows; pairs of bfloat16 where the processor has dot products for them; or 8-bit integers.
 * Those have a scale for every GROUP of a row, as the weights have: within a group sums are exact
 * integers, and an unusual value spoils the precision of its own group only. */
#ifndef RL_LINEAR_H
#define RL_LINEAR_H

#include "ridgeline.h"
#include "simd.h"
#if defined(RL_AVX2) && !defined(RL_AVX512)
#define AVX2_TILES 1
#include "tile_avx2.h"
#else
#define AVX2_TILES 0
#endif

#if defined(RL_AVX512)
#define MAX_ROWS 12
#else
#define MAX_ROWS 6
#endif
#define HIDE(pointer) __asm__ volatile("" : "+r"(pointer)) /* the compiler forgets what it knows of it */
#if defined(RL_AVX512)
#define GROUP 128 /* numbers that share a scale */
#else
#define GROUP 64
#endif
#define PACKED_SCALE 16 /* bytes for one, which keeps groups aligned */
#define BLOCK_ROWS 48 /* rows that stay in the second-level cache while panels pass */
#define AHEAD 4096    /* bytes of weights asked for in advance, where they are read once */
#define UNIT 2        /* panels a thread takes at a time: a gate and its up, or two neighbours */
#define WIDTH (UNIT * PANEL)

/* k that keeps a panel in the first level while rows pass: whole groups of bytes. */
INLINE int block_k(int type) { return type == RL_INT8 ? 384 : 192; }

/* Groups of k, the last of which may be half a one. */
INLINE int64_t groups(int64_t k) { return (k + GROUP - 1) / GROUP; }

INLINE int64_t align64(int64_t n) { return (n + 63) & ~(int64_t)63; }

/* Bytes of k activations in the form for weights of this type; of INT8 each group is followed by
 * its scale. */
INLINE int64_t packed_bytes(int type, int64_t k)
{
#if defined(RL_AVX512_BF16)
    if (type == RL_BF16) return 2 * k;
#endif
    return type == RL_INT8 ? k + groups(k) * PACKED_SCALE : 4 * k;
}

/* Bytes of k of a panel of weights; of INT8 each group is followed by a line of scales and sums. */
INLINE int64_t panel_bytes(int type, int64_t k)
{
    return type == RL_INT8 ? (k + 4 * groups(k)) * PANEL : k * PANEL * (type == RL_F32 ? 4 : 2);
}

#if defined(RL_AVX512_BF16)
static void pack_pairs(const float *x, int k, uint16_t *out)
{
    for (int i = 0; i < k; i += 16)
        _mm256_storeu_si256((__m256i *)(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
}
#endif

/* Symmetric 8-bit integers: x ~ scale * q, |q| <= 127. They carry +128, for the processor multiplies
 * unsigned bytes by signed ones. */
static void pack_group(const float *x, int size, char *out)
{
    vf peak = vf_set(0);
    for (int i = 0; i < size; i += LANES) {
        vf v = vf_load(x + i);
        peak = vf_max(peak, vf_max(v, -v));
    }
    float top = vf_peak(peak), scale = top / 127.0f, inverse = top > 0 ? 127.0f / top : 0;
    for (int i = 0; i < size; i += LANES) {
        vb bytes = __builtin_convertvector(vf_to_int(vf_load(x + i) * vf_set(inverse)) + vi_set(128), vb);
        memcpy(out + i, &bytes, sizeof bytes);
    }
    memcpy(out + size, &scale, sizeof scale);
}

/* Bring a row of k floats into the form for weights of this type. */
INLINE void pack_row(int type, const float *x, int k, char *out)
{
    if (type == RL_INT8) {
        for (int i = 0; i < k; i += GROUP) {
            int size = k - i < GROUP ? k - i : GROUP;
            pack_group(x + i, size, out);
            out += size + PACKED_SCALE;
        }
        return;
    }
#if defined(RL_AVX512_BF16)
    if (type == RL_BF16) pack_pairs(x, k, (uint16_t *)out);
#endif
}

/* Weights that will be needed next: the hardware's own look ahead stops at every page. `step` bytes
 * further with every line of weights that is multiplied. */
typedef struct { const char *at; int64_t step; } fetch;

INLINE fetch next_of(fetch next, int64_t offset) { return (fetch){next.at + offset, next.step}; }

INLINE void fetch_weights(const int panels, int64_t next_panel, fetch *next)
{
    UNROLL for (int j = 0; j < panels; j++) __builtin_prefetch(next->at + j * next_panel, 0, 3);
    next->at += next->step;
}

/* Where vector j of a line that begins at w lies: in its own panel or in the next one. */
INLINE const char *lanes_of(const char *w, int64_t next_panel, const int j)
{
    return w + (j / NV) * next_panel + (j % NV) * (int64_t)sizeof(vf);
}

/* The next tile's activations come from the second-level cache: ask for them in time. */
INLINE void fetch_ahead(const char *a, int64_t lda, const int rows)
{
    UNROLL for (int r = 0; r < rows; r++) __builtin_prefetch(a + r * lda, 0, 3);
}

/* acc[rows][panels * 16] (+)= a[rows, k] panel^T, float or bfloat16 weights, float activations. */
#if AVX2_TILES
INLINE void tile_float(const int type, const int rows, const int panels, const char *a, int64_t lda,
                       const char *w, int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    if (first)
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < panels * NV; j++) vf_store(acc + r * ldo + j * LANES, vf_set(0));
    const char *const places[] = {w, next.at};
    (type == RL_F32 ? tile_f32 : tile_bf16)(rows, panels, a, lda, places, next_panel, 1, k, acc, 4 * ldo, next.step);
}
#else
INLINE void tile_float(const int type, const int rows, const int panels, const char *a, int64_t lda,
                       const char *w, int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    vf sum[MAX_ROWS][UNIT * NV];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < panels * NV; j++)
            sum[r][j] = first ? vf_set(0) : vf_load(acc + r * ldo + j * LANES);
    for (int i = 0; i < k; i += 2) {
        fetch_weights(panels, next_panel, &next);
        if (rows > 3 && i % 16 == 0) fetch_ahead(a + rows * lda + 4 * i, lda, rows);
        UNROLL for (int odd = 0; odd < 2; odd++) {
            vf weight[UNIT * NV];
            UNROLL for (int j = 0; j < panels * NV; j++) {
                const char *p = lanes_of(w, next_panel, j);
                /* Loaded twice rather than kept: six rows leave no register for the words. */
                HIDE(p);
                if (type == RL_BF16)
                    weight[j] = odd ? vf_odd(vu_load(p)) : vf_even(vu_load(p));
                else
                    weight[j] = vf_load((const float *)p + odd * PANEL);
            }
            UNROLL for (int r = 0; r < rows; r++) {
                vf x = vf_set(((const float *)(a + r * lda))[i + odd]);
                UNROLL for (int j = 0; j < panels * NV; j++) sum[r][j] = vf_fma(x, weight[j], sum[r][j]);
            }
        }
        w += type == RL_BF16 ? 4 * PANEL : 8 * PANEL;
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < panels * NV; j++) vf_store(acc + r * ldo + j * LANES, sum[r][j]);
}
#endif

#if defined(RL_AVX512_BF16)
/* The same with activations in bfloat16 pairs: two products a lane and instruction. */
INLINE void tile_pairs(const int rows, const int panels, const char *a, int64_t lda, const char *w,
                       int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    __m512 sum[MAX_ROWS][UNIT];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < panels; j++)
            sum[r][j] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(acc + r * ldo + j * PANEL);
    for (int i = 0; i < k; i += 2, w += 4 * PANEL) {
        fetch_weights(panels, next_panel, &next);
        __m512i weight[UNIT];
        UNROLL for (int j = 0; j < panels; j++) weight[j] = _mm512_loadu_si512(w + j * next_panel);
        UNROLL for (int r = 0; r < rows; r++) {
            __m512i x = (__m512i)vf_set(*(const float *)(a + r * lda + 2 * i));
            UNROLL for (int j = 0; j < panels; j++)
                sum[r][j] = _mm512_dpbf16_ps(sum[r][j], (__m512bh)x, (__m512bh)weight[j]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < panels; j++) _mm512_storeu_ps(acc + r * ldo + j * PANEL, sum[r][j]);
}
#endif

/* sum + eight of k: a lane has four weights in `early` and four in `late`. */
#if defined(RL_AVX512)
INLINE vi dot_eight(vi sum, const char *x, vi early, vi late)
{
    __m512i s = _mm512_dpbusd_epi32((__m512i)sum, (__m512i)vf_set(*(const float *)x), (__m512i)early);
    return (vi)_mm512_dpbusd_epi32(s, (__m512i)vf_set(*(const float *)(x + 4)), (__m512i)late);
}
#elif defined(RL_AVX2)
INLINE vi dot_eight(vi sum, const char *x, vi early, vi late)
{
    /* In 16 bits, which four products of packed weights do not overflow. */
    __m256i a = _mm256_maddubs_epi16((__m256i)vf_set(*(const float *)x), (__m256i)early);
    __m256i b = _mm256_maddubs_epi16((__m256i)vf_set(*(const float *)(x + 4)), (__m256i)late);
    return sum + (vi)_mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1));
}
#else
INLINE vi dot_eight(vi sum, const char *x, vi early, vi late)
{
    UNROLL for (int i = 0; i < 4; i++)
        sum += ((early << (24 - 8 * i)) >> 24) * (uint8_t)x[i] + ((late << (24 - 8 * i)) >> 24) * (uint8_t)x[i + 4];
    return sum;
}
#endif

/* 8-bit weights and activations: whole numbers within a group, then scaled into acc. */
INLINE void tile_int8(const int rows, const int panels, const char *a, int64_t lda, const char *w,
                      int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    for (int size; k > 0; k -= size, a += size + PACKED_SCALE, first = 0) {
        size = k < GROUP ? k : GROUP;
        vi sum[MAX_ROWS][UNIT * NV], weight[2][UNIT * NV];
        UNROLL for (int j = 0; j < panels * NV; j++) {
            /* What the 128 in every activation comes to is taken off first. */
            vi taken = (vi_load(lanes_of(w + size * PANEL, next_panel, j)) << 16) >> 9;
            UNROLL for (int r = 0; r < rows; r++) sum[r][j] = taken;
        }
        for (int i = 0; i < size; i += 8, w += 8 * PANEL) {
            fetch_weights(panels, next_panel, &next);
            fetch_weights(panels, next_panel, &next);
            UNROLL for (int j = 0; j < panels * NV; j++) {
                weight[0][j] = vi_load(lanes_of(w, next_panel, j));
                weight[1][j] = vi_load(lanes_of(w + 4 * PANEL, next_panel, j));
            }
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int j = 0; j < panels * NV; j++)
                    sum[r][j] = dot_eight(sum[r][j], a + r * lda + i, weight[0][j], weight[1][j]);
        }
        UNROLL for (int j = 0; j < panels * NV; j++) {
            vf scale = vf_odd(vu_load(lanes_of(w, next_panel, j)));
            UNROLL for (int r = 0; r < rows; r++) {
                float *to = acc + r * ldo + j * LANES;
                vf both = scale * vf_set(*(const float *)(a + r * lda + size));
                vf_store(to, vf_fma(vi_to_float(sum[r][j]), both, first ? vf_set(0) : vf_load(to)));
            }
        }
        w += 4 * PANEL;
    }
}

INLINE void tile(const int type, const int rows, const int panels, const char *a, int64_t lda,
                 const char *w, int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    if (type == RL_INT8) {
        tile_int8(rows, panels, a, lda, w, next_panel, k, acc, ldo, first, next);
        return;
    }
#if defined(RL_AVX512_BF16)
    if (type == RL_BF16) {
        tile_pairs(rows, panels, a, lda, w, next_panel, k, acc, ldo, first, next);
        return;
    }
#endif
    tile_float(type, rows, panels, a, lda, w, next_panel, k, acc, ldo, first, next);
}

/* Two panels of accumulators fit the registers for few rows only (always on AVX-512). */
INLINE void tile_unit(const int type, const int rows, const char *a, int64_t lda, const char *w,
                      int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
    if (rows * UNIT * NV <= MAX_ROWS * 2) {
        tile(type, rows, UNIT, a, lda, w, next_panel, k, acc, ldo, first, next);
        return;
    }
    UNROLL for (int j = 0; j < UNIT; j++)
        tile(type, rows, 1, a, lda, w + j * next_panel, next_panel, k, acc + j * PANEL, ldo, first, next_of(next, j * next_panel));
}

INLINE void tile_rows(const int type, int rows, const char *a, int64_t lda, const char *w,
                      int64_t next_panel, int k, float *acc, const int64_t ldo, int first, fetch next)
{
#define CASE(n) case n: tile_unit(type, n, a, lda, w, next_panel, k, acc, ldo, first, next); break;
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if MAX_ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
#undef CASE
}

/* acc[rows][WIDTH] = a[rows, k] (panels of one unit)^T, rows <= BLOCK_ROWS. */
INLINE void block(const int type, int rows, const char *a, int64_t lda, const char *w,
                  int64_t next_panel, int k, float *acc)
{
    /* Tiles of nearly equal height: 32 rows are 6 6 5 5 5 5, not 6 6 6 6 6 2. */
    int tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    int step = tiles > 1 ? block_k(type) : k;
    for (int i = 0; i < k; i += step) {
        int count = k - i < step ? k - i : step;
        const char *part = w + panel_bytes(type, i);
        /* While one block of k is multiplied, each tile fetches its share of the next one. */
        const char *after = i + step < k ? part + panel_bytes(type, step) : w + UNIT * next_panel;
        fetch next = {tiles > 1 ? after : part + AHEAD, 64 / tiles};
        for (int t = 0, row = 0; t < tiles; t++) {
            int height = (rows - row + tiles - t - 1) / (tiles - t);
            tile_rows(type, height, a + row * lda + packed_bytes(type, i), lda, part, next_panel,
                      count, acc + row * WIDTH, WIDTH, i == 0, next);
            next.at += panel_bytes(type, count) / 64 * next.step;
            row += height;
        }
    }
}

#endif
