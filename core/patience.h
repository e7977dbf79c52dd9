/* How long to wait for an answer that may never come, in time that this process ran.
 *
 * A process that was stopped, or whose machine was paused, wakes up late: by the clock all that it
 * waited for is overdue, and the answers lie ready. Whoever gave up then would take every disk to
 * be dead. So time is counted in slices, and each counts as no more than its length, whatever
 * passed until it was over.
 *
 *	struct sop_patience p = sop_patience(timeout_ms);
 *	uint64_t ms;
 *
 *	while (!answered && (ms = sop_patience_slice(&p)))
 *		wait for it, ms at most;
 *
 * One thread's. */
#ifndef SOP_PATIENCE_H
#define SOP_PATIENCE_H

#include "core/base.h"

struct sop_patience {
	uint64_t left_ms, slice_ms;
	uint64_t since_ms; /* when the slice under way began; 0: none is */
};

struct sop_patience sop_patience(uint64_t timeout_ms);

/* How long to wait now; 0: it is used up. */
uint64_t sop_patience_slice(struct sop_patience *p);

#endif
