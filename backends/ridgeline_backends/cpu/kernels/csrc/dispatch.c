/* Chooses a variant by what the processor can do. Built for the plainest processor of its kind, so
 * that no instruction runs before it was asked for. */
#include <string.h>

#include "ridgeline.h"

typedef struct {
    const char *name;
    int64_t (*scratch_bytes)(const rl_model *, int32_t, int32_t, int32_t);
    void (*forward)(const rl_model *, const rl_step *);
    int64_t (*linear_scratch_bytes)(const rl_matrix *, int32_t, int32_t);
    void (*linear)(const rl_matrix *, const float *, float *, int32_t, int32_t, void *);
} variant;

#define DECLARE(v) \
    int64_t rl_##v##_scratch_bytes(const rl_model *, int32_t, int32_t, int32_t); \
    void rl_##v##_forward(const rl_model *, const rl_step *); \
    int64_t rl_##v##_linear_scratch_bytes(const rl_matrix *, int32_t, int32_t); \
    void rl_##v##_linear(const rl_matrix *, const float *, float *, int32_t, int32_t, void *);
#define ENTRY(v) {#v, rl_##v##_scratch_bytes, rl_##v##_forward, rl_##v##_linear_scratch_bytes, rl_##v##_linear}

DECLARE(plain)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
DECLARE(avx512_bf16)
static const variant all[] = {ENTRY(avx512_bf16), ENTRY(avx512), ENTRY(avx2), ENTRY(plain)};
#else
static const variant all[] = {ENTRY(plain)};
#endif
#define COUNT ((int)(sizeof all / sizeof all[0]))

static int runs_here(const char *name)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
              && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
              && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(name, "avx2")) return avx2;
    if (!strcmp(name, "avx512")) return avx512;
    if (!strcmp(name, "avx512_bf16")) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
    return !strcmp(name, "plain");
}

static const variant *chosen;

int32_t rl_abi(void) { return RL_ABI; }

const char *rl_variants(void)
{
    static char names[64];
    names[0] = 0;
    for (int i = 0; i < COUNT; i++)
        if (runs_here(all[i].name)) {
            if (names[0]) strcat(names, ",");
            strcat(names, all[i].name);
        }
    return names;
}

const char *rl_use(const char *name)
{
    for (int i = 0; i < COUNT; i++)
        if ((!*name || !strcmp(name, all[i].name)) && runs_here(all[i].name)) return (chosen = all + i)->name;
    return NULL;
}

int64_t rl_scratch_bytes(const rl_model *model, int32_t rows, int32_t threads, int32_t adapters)
{
    return chosen->scratch_bytes(model, rows, threads, adapters);
}

void rl_forward(const rl_model *model, const rl_step *step) { chosen->forward(model, step); }

int64_t rl_linear_scratch_bytes(const rl_matrix *w, int32_t rows, int32_t threads)
{
    return chosen->linear_scratch_bytes(w, rows, threads);
}

void rl_linear(const rl_matrix *w, const float *x, float *y, int32_t rows, int32_t threads, void *scratch)
{
    chosen->linear(w, x, y, rows, threads, scratch);
}
