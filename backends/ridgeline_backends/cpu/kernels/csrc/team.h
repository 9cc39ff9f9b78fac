/* The threads of one step: OpenMP's, with phases of our own instead of its barriers.
 *
 * A step has hundreds of short phases, and a barrier waits for the slowest thread, which may have
 * lost its core to another process for milliseconds. So a phase ends when its units of work are
 * done, whoever did them: a thread that is away holds nobody up unless it holds a unit, and when it
 * is back it runs through the phases that went by without it. For that, every phase of a step has
 * counters of its own, and what a phase is must not depend on what later phases change. */
#ifndef RL_TEAM_H
#define RL_TEAM_H

#include <sched.h>
#include <stdint.h>

#define SPINS 2000 /* looks before the core is given away at every further one */

/* libgomp's own names for a parallel region, which torch's copy of it has. A compiler's directives
 * would call those of its own runtime, clang's another one. */
extern void GOMP_parallel(void (*run)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);

/* Units handed out, and units done. */
typedef struct { _Alignas(64) int32_t taken, done; } rl_phase;

/* One thread's view: the phase it is in, its units in all, and those it holds. */
typedef struct {
    rl_phase *phase;
    int32_t id, threads, units, held;
} rl_worker;

/* The next units [*begin, *end) of this phase, or 0 when none is left. Asking again reports the
 * former ones as done. */
static inline int take_work(rl_worker *w, int32_t units, int32_t *begin, int32_t *end)
{
    if (w->held) __atomic_fetch_add(&w->phase->done, w->held, __ATOMIC_RELEASE);
    w->held = 0;
    w->units = units;
    /* The fewer are left, the fewer at a time, so that the last ones end together. */
    int32_t left = units - __atomic_load_n(&w->phase->taken, __ATOMIC_RELAXED);
    if (left <= 0) return 0;
    int32_t share = left / (4 * w->threads) + 1;
    int32_t first = __atomic_fetch_add(&w->phase->taken, share, __ATOMIC_RELAXED);
    if (first >= units) return 0;
    *begin = first;
    *end = first + share < units ? first + share : units;
    w->held = *end - *begin;
    return 1;
}

/* Go on when all units of this phase are done. Called after take_work returned 0. */
static inline void next_phase(rl_worker *w)
{
    for (int spin = 0; __atomic_load_n(&w->phase->done, __ATOMIC_ACQUIRE) < w->units; spin++) {
        if (spin >= SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
    w->phase++;
}

#endif
