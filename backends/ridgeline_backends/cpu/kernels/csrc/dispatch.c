/* Chooses a variant by what the processor can do. Built for the plainest processor of its kind, so
 * that no instruction runs before it was asked for. */
#include <string.h>

#include "ridgeline.h"

typedef struct {
    const char *name;
    const rl_int8_form *(*int8)(void);
    int64_t (*scratch_bytes)(const rl_model *, int32_t, int32_t, int32_t);
    void (*forward)(const rl_model *, const rl_step *);
    int64_t (*products_scratch_bytes)(const rl_product *, int32_t, int32_t);
    void (*products)(const rl_product *, int32_t, int32_t, void *);
    int64_t (*run_scratch_bytes)(const rl_operation *, int32_t, int32_t);
    void (*run)(const rl_operation *, int32_t, int32_t, void *);
} variant;

#define DECLARE(v) \
    const rl_int8_form *rl_##v##_int8(void); \
    int64_t rl_##v##_scratch_bytes(const rl_model *, int32_t, int32_t, int32_t); \
    void rl_##v##_forward(const rl_model *, const rl_step *); \
    int64_t rl_##v##_products_scratch_bytes(const rl_product *, int32_t, int32_t); \
    void rl_##v##_products(const rl_product *, int32_t, int32_t, void *); \
    int64_t rl_##v##_run_scratch_bytes(const rl_operation *, int32_t, int32_t); \
    void rl_##v##_run(const rl_operation *, int32_t, int32_t, void *);
#define ENTRY(v) {#v, rl_##v##_int8, rl_##v##_scratch_bytes, rl_##v##_forward, rl_##v##_products_scratch_bytes, \
                  rl_##v##_products, rl_##v##_run_scratch_bytes, rl_##v##_run}

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

const rl_int8_form *rl_int8(void) { return chosen->int8(); }

int64_t rl_scratch_bytes(const rl_model *model, int32_t rows, int32_t threads, int32_t adapters)
{
    return chosen->scratch_bytes(model, rows, threads, adapters);
}

void rl_forward(const rl_model *model, const rl_step *step) { chosen->forward(model, step); }

int64_t rl_products_scratch_bytes(const rl_product *product, int32_t count, int32_t threads)
{
    return chosen->products_scratch_bytes(product, count, threads);
}

void rl_products(const rl_product *product, int32_t count, int32_t threads, void *scratch)
{
    chosen->products(product, count, threads, scratch);
}

int64_t rl_run_scratch_bytes(const rl_operation *operation, int32_t count, int32_t threads)
{
    return chosen->run_scratch_bytes(operation, count, threads);
}

void rl_run(const rl_operation *operation, int32_t count, int32_t threads, void *scratch)
{
    chosen->run(operation, count, threads, scratch);
}
