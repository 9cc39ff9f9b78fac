/* Tiles of AVX2 in assembly: floats, and bfloat16 widened in registers.
 *
 * Twelve accumulators, two vectors of weights, one of activations and a mask are all sixteen
 * registers. A compiler that places them itself moves and spills them, which costs up to a third of
 * the speed, and does so differently wherever the tile is inlined.
 *
 * Heights of 4 to 6 rows take one panel, an activation after the other meeting both vectors of
 * weights; heights up to 3 take two panels, each vector of weights meeting all activations. */
#ifndef RL_TILE_AVX2_H
#define RL_TILE_AVX2_H

#include "simd.h"

#define STEP_K 4 /* numbers of k in one round of a loop */

/* Rows 0 to 2 of x or of sums, and 3 to 5. */
#define ROW_0(x) "(%[" #x "])"
#define ROW_1(x) "(%[" #x "],%[" #x "_row])"
#define ROW_2(x) "(%[" #x "],%[" #x "_row],2)"
#define ROW_3(x) "(%[" #x "_3])"
#define ROW_4(x) "(%[" #x "_3],%[" #x "_row])"
#define ROW_5(x) "(%[" #x "_3],%[" #x "_row],2)"

/* Panels: the first and the second. */
#define PANEL_0 "(%[w])"
#define PANEL_1 "(%[w],%[panel])"

/* Line i of four of a panel to register `to`: floats, or a half of pairs of bfloat16. `mask` keeps
 * the upper half. */
#define WEIGHTS_F32(i, w, half, to, mask) "vmovups 64*" #i "+" #half w ", %%ymm" #to "\n\t"
#define WEIGHTS_BF16(i, w, half, to, mask) WEIGHTS_BF16_##i(w, half, to, mask)
#define WEIGHTS_BF16_0(w, half, to, mask) EVEN(0, w, half, to)
#define WEIGHTS_BF16_1(w, half, to, mask) ODD(0, w, half, to, mask)
#define WEIGHTS_BF16_2(w, half, to, mask) EVEN(64, w, half, to)
#define WEIGHTS_BF16_3(w, half, to, mask) ODD(64, w, half, to, mask)
#define EVEN(at, w, half, to) \
    "vmovdqu " #at "+" #half w ", %%ymm" #to "\n\tvpslld $16, %%ymm" #to ", %%ymm" #to "\n\t"
#define ODD(at, w, half, to, mask) \
    "vmovdqu " #at "+" #half w ", %%ymm" #to "\n\tvpand " mask ", %%ymm" #to ", %%ymm" #to "\n\t"
#define SPREAD(i, row, to) "vbroadcastss 4*" #i row ", %%ymm" #to "\n\t"
#define FMA(w, x, sum) "vfmadd231ps %%ymm" #w ", %%ymm" #x ", %%ymm" #sum "\n\t"

/* One panel: sums 0 to 11, weights in 12 and 13, the mask in 14, an activation in 15. */
#define TALL(i, row, even, odd) SPREAD(i, row, 15) FMA(12, 15, even) FMA(13, 15, odd)
#define TALL_1(i) TALL(i, ROW_0(x), 0, 1)
#define TALL_2(i) TALL_1(i) TALL(i, ROW_1(x), 2, 3)
#define TALL_3(i) TALL_2(i) TALL(i, ROW_2(x), 4, 5)
#define TALL_4(i) TALL_3(i) TALL(i, ROW_3(x), 6, 7)
#define TALL_5(i) TALL_4(i) TALL(i, ROW_4(x), 8, 9)
#define TALL_6(i) TALL_5(i) TALL(i, ROW_5(x), 10, 11)
#define TALL_LINE(type, rows, i) \
    WEIGHTS_##type(i, PANEL_0, 0, 12, "%%ymm14") WEIGHTS_##type(i, PANEL_0, 32, 13, "%%ymm14") TALL_##rows(i)

/* Two panels: sums 0 to 11, weights in 12, activations from 13 on. */
#define WIDE_X1(i) SPREAD(i, ROW_0(x), 13)
#define WIDE_X2(i) WIDE_X1(i) SPREAD(i, ROW_1(x), 14)
#define WIDE_X3(i) WIDE_X2(i) SPREAD(i, ROW_2(x), 15)
#define WIDE_1(a, b, c) FMA(12, 13, a)
#define WIDE_2(a, b, c) WIDE_1(a, b, c) FMA(12, 14, b)
#define WIDE_3(a, b, c) WIDE_2(a, b, c) FMA(12, 15, c)
#define WIDE_LINE(type, rows, i) \
    WIDE_X##rows(i) \
    WEIGHTS_##type(i, PANEL_0, 0, 12, "%[mask]") WIDE_##rows(0, 4, 8) \
    WEIGHTS_##type(i, PANEL_0, 32, 12, "%[mask]") WIDE_##rows(1, 5, 9) \
    WEIGHTS_##type(i, PANEL_1, 0, 12, "%[mask]") WIDE_##rows(2, 6, 10) \
    WEIGHTS_##type(i, PANEL_1, 32, 12, "%[mask]") WIDE_##rows(3, 7, 11)

/* Sums from memory to registers and back. */
#define LOAD(at, row, sum) "vmovups " #at row ", %%ymm" #sum "\n\t"
#define KEEP(at, row, sum) "vmovups %%ymm" #sum ", " #at row "\n\t"
#define TALL_SUMS(move, row, even, odd) move(0, row, even) move(32, row, odd)
#define TALL_SUMS_1(move) TALL_SUMS(move, ROW_0(sum), 0, 1)
#define TALL_SUMS_2(move) TALL_SUMS_1(move) TALL_SUMS(move, ROW_1(sum), 2, 3)
#define TALL_SUMS_3(move) TALL_SUMS_2(move) TALL_SUMS(move, ROW_2(sum), 4, 5)
#define TALL_SUMS_4(move) TALL_SUMS_3(move) TALL_SUMS(move, ROW_3(sum), 6, 7)
#define TALL_SUMS_5(move) TALL_SUMS_4(move) TALL_SUMS(move, ROW_4(sum), 8, 9)
#define TALL_SUMS_6(move) TALL_SUMS_5(move) TALL_SUMS(move, ROW_5(sum), 10, 11)
#define WIDE_SUMS(move, row, a, b, c, d) move(0, row, a) move(32, row, b) move(64, row, c) move(96, row, d)
#define WIDE_SUMS_1(move) WIDE_SUMS(move, ROW_0(sum), 0, 1, 2, 3)
#define WIDE_SUMS_2(move) WIDE_SUMS_1(move) WIDE_SUMS(move, ROW_1(sum), 4, 5, 6, 7)
#define WIDE_SUMS_3(move) WIDE_SUMS_2(move) WIDE_SUMS(move, ROW_2(sum), 8, 9, 10, 11)

#define FETCH_TALL "prefetcht0 (%[next])\n\tadd %[ahead], %[next]\n\t"
#define FETCH_WIDE "prefetcht0 (%[next])\n\tprefetcht0 (%[next],%[panel])\n\tadd %[ahead], %[next]\n\t"
#define BYTES_F32 "256"
#define BYTES_BF16 "128"

/* Each segment of k has its own place of weights; the next place is what is looked ahead at. */
#define TILE(FORM, type, rows) \
    __asm__ volatile( \
        "vmovdqu %[mask], %%ymm14\n\t" FORM##_SUMS_##rows(LOAD) \
        "1:\n\tmov (%[place]), %[w]\n\tmov 8(%[place]), %[next]\n\tadd $8, %[place]\n\tmov %[k], %k[left]\n\t" \
        ".p2align 5\n2:\n\t" \
        FETCH_##FORM FORM##_LINE(type, rows, 0) FORM##_LINE(type, rows, 1) \
        FETCH_##FORM FORM##_LINE(type, rows, 2) FORM##_LINE(type, rows, 3) \
        "add $16, %[x]\n\tadd $16, %[x_3]\n\tadd $" BYTES_##type ", %[w]\n\tsub $4, %k[left]\n\tjg 2b\n\t" \
        "sub $1, %k[segments]\n\tjg 1b\n\t" FORM##_SUMS_##rows(KEEP) \
        : [x] "+r"(x), [x_3] "+r"(x_3), [place] "+r"(place), [segments] "+r"(segments), [w] "=&r"(w), \
          [next] "=&r"(next), [left] "=&r"(left) \
        : [x_row] "r"(x_row), [panel] "r"(panel), [ahead] "r"(ahead), [sum] "r"(sum), [sum_3] "r"(sum_3), \
          [sum_row] "r"(sum_row), [k] "m"(k), [mask] "m"(*(const vu *)UPPER) \
        : "cc", "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", \
          "ymm11", "ymm12", "ymm13", "ymm14", "ymm15"); \
    break;

static const uint32_t UPPER[LANES] __attribute__((aligned(32))) = {
    0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u};

/* sum[rows][panels * 16] += x[rows, segments * k] W^T. The weights of segment i are a panel at
 * place[i] and, for up to three rows, another one `panel` bytes further; place[segments] is what
 * comes after, `ahead` bytes of which are asked for with every two numbers of k. Distances of rows
 * are in bytes. k is a multiple of 4. */
#define TILES(NAME, type) \
    static __attribute__((noinline)) void NAME(int rows, int panels, const char *x, int64_t x_row, \
                                               const char *const *place, int64_t panel, int segments, int k, \
                                               float *sum, int64_t sum_row, int64_t ahead) \
    { \
        const char *x_3 = x + 3 * x_row, *w, *next; \
        float *sum_3 = (float *)((char *)sum + 3 * sum_row); \
        int left; \
        switch (panels == 2 ? rows : rows + 3) { \
            case 1: TILE(WIDE, type, 1) \
            case 2: TILE(WIDE, type, 2) \
            case 3: TILE(WIDE, type, 3) \
            case 4: TILE(TALL, type, 1) \
            case 5: TILE(TALL, type, 2) \
            case 6: TILE(TALL, type, 3) \
            case 7: TILE(TALL, type, 4) \
            case 8: TILE(TALL, type, 5) \
            case 9: TILE(TALL, type, 6) \
        } \
    }

TILES(tile_f32, F32)
TILES(tile_bf16, BF16)

#endif
