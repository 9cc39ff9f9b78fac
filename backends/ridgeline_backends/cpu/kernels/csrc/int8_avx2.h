/* Products of 8-bit numbers on AVX2, for many rows.
 *
 * AVX2 multiplies pairs of 16-bit numbers. Taking bytes apart costs three instructions for each
 * vector of weights, so a block of them is widened once, into the first-level cache, for all tiles. */
#ifndef RL_INT8_AVX2_H
#define RL_INT8_AVX2_H

#include "tile_avx2.h"

#define WIDE_GROUP (GROUP * PANEL * 2 + 64) /* bytes of a panel's group: pairs, then scales as floats */
#define NARROW_ROWS 12 /* up to so many rows bytes are taken apart for each tile */

/* Groups of k numbers of a panel from bytes to what the tiles below read. */
static void widen_panel(const char *w, int k, char *out)
{
    for (; k > 0; k -= GROUP, w += 4 * PANEL, out += 64) {
        for (int i = 0; i < GROUP; i += 4, w += 4 * PANEL, out += 8 * PANEL)
            UNROLL for (int j = 0; j < NV; j++) {
                vi bytes = vi_load(w + j * (int)sizeof(vi));
                vi_store((int32_t *)out + j * LANES, low_halves(bytes));
                vi_store((int32_t *)out + PANEL + j * LANES, high_halves(bytes));
            }
        UNROLL for (int j = 0; j < NV; j++) vf_store((float *)out + j * LANES, vf_odd(vu_load(w + j * (int)sizeof(vu))));
    }
}

#define ZERO(at, row, sum) "vpxor %%ymm" #sum ", %%ymm" #sum ", %%ymm" #sum "\n\t"
#define DOT_LINE(rows, i) WEIGHTS_F32(i, PANEL_0, 0, 12, ) WEIGHTS_F32(i, PANEL_0, 32, 13, ) TALL_##rows(DOT, i)

/* The whole numbers of a group times both scales, onto the sums. */
#define SCALE(at, row, w, sum) \
    "vmulps %%ymm" #w ", %%ymm15, %%ymm14\n\tvcvtdq2ps %%ymm" #sum ", %%ymm" #sum "\n\t" \
    "vfmadd213ps " #at row ", %%ymm14, %%ymm" #sum "\n\tvmovups %%ymm" #sum ", " #at row "\n\t"
#define SCALES(x, row, even, odd) SPREAD(0, x, 15) SCALE(0, row, 12, even) SCALE(32, row, 13, odd)
#define SCALES_1 SCALES(ROW_0(x), ROW_0(sum), 0, 1)
#define SCALES_2 SCALES_1 SCALES(ROW_1(x), ROW_1(sum), 2, 3)
#define SCALES_3 SCALES_2 SCALES(ROW_2(x), ROW_2(sum), 4, 5)
#define SCALES_4 SCALES_3 SCALES(ROW_3(x), ROW_3(sum), 6, 7)
#define SCALES_5 SCALES_4 SCALES(ROW_4(x), ROW_4(sum), 8, 9)
#define SCALES_6 SCALES_5 SCALES(ROW_5(x), ROW_5(sum), 10, 11)

#define TILE_INT8(rows) \
    case rows: \
        __asm__ volatile( \
            "2:\n\t" TALL_SUMS_##rows(ZERO) "mov $8, %k[left]\n\t.p2align 5\n1:\n\t" \
            FETCH_TALL DOT_LINE(rows, 0) DOT_LINE(rows, 1) FETCH_TALL DOT_LINE(rows, 2) DOT_LINE(rows, 3) \
            "add $16, %[x]\n\tadd $16, %[x_3]\n\tadd $256, %[w]\n\tsub $1, %k[left]\n\tjg 1b\n\t" \
            "vmovups (%[w]), %%ymm12\n\tvmovups 32(%[w]), %%ymm13\n\tadd $64, %[w]\n\t" SCALES_##rows \
            "add $16, %[x]\n\tadd $16, %[x_3]\n\tsub $1, %k[groups]\n\tjg 2b\n\t" \
            : [x] "+r"(x), [x_3] "+r"(x_3), [w] "+r"(w), [next] "+r"(next), [groups] "+r"(groups), [left] "=&r"(left) \
            : [x_row] "r"(x_row), [ahead] "r"(ahead), [sum] "r"(sum), [sum_3] "r"(sum_3), [sum_row] "r"(sum_row) \
            : "cc", "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", \
              "ymm11", "ymm12", "ymm13", "ymm14", "ymm15"); \
        break;

/* sum[rows][16] += x[rows, groups * GROUP] panel^T, of a widened panel. Distances are in bytes. */
static __attribute__((noinline)) void tile_widened(int rows, const char *x, int64_t x_row, const char *w, int groups,
                                                   float *sum, int64_t sum_row, const char *next, int64_t ahead)
{
    const char *x_3 = x + 3 * x_row;
    float *sum_3 = (float *)((char *)sum + 3 * sum_row);
    int32_t left;
    switch (rows) { TILE_INT8(4) TILE_INT8(5) TILE_INT8(6) }
}

/* acc[rows][WIDTH] = a[rows, k] (panels of one unit)^T, NARROW_ROWS < rows <= BLOCK_ROWS. */
static void block_int8(int rows, const char *a, int64_t lda, const char *w, int64_t next_panel, int k, float *acc)
{
    _Alignas(64) char wide[UNIT][BLOCK_K / GROUP * WIDE_GROUP];
    const int tiles = (rows + MAX_ROWS - 1) / MAX_ROWS;
    memset(acc, 0, (size_t)rows * WIDTH * sizeof(float));
    for (int i = 0; i < k; i += BLOCK_K) {
        const int count = k - i < BLOCK_K ? k - i : BLOCK_K;
        const char *part = w + panel_bytes(RL_INT8, i);
        const char *next = i + BLOCK_K < k ? part + panel_bytes(RL_INT8, BLOCK_K) : w + UNIT * next_panel;
        for (int j = 0; j < UNIT; j++) widen_panel(part + j * next_panel, count, wide[j]);
        for (int t = 0, row = 0; t < tiles; t++) {
            const int height = (rows - row + tiles - t - 1) / (tiles - t);
            for (int j = 0; j < UNIT; j++)
                tile_widened(height, a + row * lda + packed_bytes(RL_INT8, i), lda, wide[j], count / GROUP,
                             acc + row * WIDTH + j * PANEL, WIDTH * sizeof(float), next + j * next_panel, 64 / tiles);
            next += panel_bytes(RL_INT8, count) / tiles;
            row += height;
        }
    }
}

#endif
