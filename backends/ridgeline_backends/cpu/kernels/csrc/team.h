/* The threads of one step: OpenMP's, with a barrier and a counter of work of our own.
 *
 * A step has hundreds of short phases. Work is handed out by a counter, not cut in equal parts
 * beforehand, so that a thread that loses its core for a while delays the others by one unit.
 * Waiting threads spin for some microseconds and then give their core away at every look. */
#ifndef RL_TEAM_H
#define RL_TEAM_H

#include <sched.h>
#include <stdint.h>

#define SPINS 4000

typedef struct {
    _Alignas(64) volatile int32_t arrived;
    _Alignas(64) volatile int32_t round;
    _Alignas(64) int32_t size;
    /* Two counters in turns: one is reset while the other is in use. */
    struct { _Alignas(64) volatile int32_t next; } work[2];
} rl_team;

/* What a thread knows: which phase it is in. */
typedef struct {
    rl_team *team;
    int32_t id, round;
} rl_worker;

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until every thread is here; afterwards a new phase begins. */
static inline void next_phase(rl_worker *w)
{
    rl_team *team = w->team;
    int32_t round = w->round++;
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == team->size) {
        team->arrived = 0;
        /* The counter of the phase before: everybody has left it. */
        team->work[round & 1].next = 0;
        __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spin = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; spin++) {
        if (spin < SPINS) pause_briefly();
        else sched_yield();
    }
}

/* The next units [*begin, *end) of this phase, or 0 when there are none left. */
static inline int take_work(rl_worker *w, int32_t units, int32_t *begin, int32_t *end)
{
    rl_team *team = w->team;
    int32_t chunk = units / (4 * team->size);
    if (chunk < 1) chunk = 1;
    int32_t first = __atomic_fetch_add(&team->work[w->round & 1].next, chunk, __ATOMIC_RELAXED);
    if (first >= units) return 0;
    *begin = first;
    *end = first + chunk < units ? first + chunk : units;
    return 1;
}

#endif
