#include "core/written.h"

#include <stdatomic.h>

static atomic_ullong writes, bytes, syncs;

void sop_written_note(uint64_t n)
{
	atomic_fetch_add_explicit(&writes, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&bytes, n, memory_order_relaxed);
}

void sop_written_note_sync(void)
{
	atomic_fetch_add_explicit(&syncs, 1, memory_order_relaxed);
}

struct sop_written sop_written(void)
{
	return (struct sop_written){.writes = atomic_load(&writes),
		.bytes = atomic_load(&bytes),
		.syncs = atomic_load(&syncs)};
}
