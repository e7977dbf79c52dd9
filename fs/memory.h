/* What the allocator keeps. Files and directories come and go in all sizes, and each of its arenas
 * keeps the pages that it needed at its worst time: the daemon would grow beyond cache= and 64 MiB
 * with the number of names it has ever been asked for. */
#ifndef SOPFS_MEMORY_H
#define SOPFS_MEMORY_H

#include "fs/state.h"

/* Resident beyond what is allowed: the allocator gives back what it does not use. Costs
 * milliseconds when it does; one thread at a time. */
void sopfs_memory_settle(struct sopfs *f);

#endif
