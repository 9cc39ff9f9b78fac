/* A library of one variant, whatever the processor: forward.c exports its functions by their public
 * names, and what chooses between variants elsewhere has nothing to choose here. */
#include <string.h>

#include "ridgeline.h"

int32_t rl_abi(void) { return RL_ABI; }

const char *rl_variants(void) { return RL_NAME; }

const char *rl_use(const char *name) { return !*name || !strcmp(name, RL_NAME) ? RL_NAME : NULL; }
