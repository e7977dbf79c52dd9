/* Mutexes with ranks. A thread takes locks in rising rank only; debug builds (SOP_DEBUG_LOCKS)
 * abort with both names when one does not. The order, from outermost:
 *
 *   VOLUME   open, close, state changes of a volume
 *   COMMIT   the commit critical section: validate, append, apply (the only lock held across I/O)
 *   VALUE    the window of extents of an open value
 *   JOURNAL  journal files, replicas, append position
 *   STORES   the table of store states
 *   NODES    the node cache (a rwlock of its own in node_cache.c ranks here)
 *   SPACE    live, dead and pending space
 *   SEGMENTS open segments, append cursors, open shard files
 *   REGISTRY handle allocation
 *   PINS     pinned snapshots
 *   IO       queues of the I/O pool
 *   COORD    where embedded mounters of one volume meet
 *   LEAF     anything that takes no other lock */
#ifndef SOP_LOCK_H
#define SOP_LOCK_H

#include <pthread.h>

#include "core/base.h"

enum sop_lock_rank {
	SOP_RANK_VOLUME = 1,
	SOP_RANK_COMMIT,
	SOP_RANK_VALUE,
	SOP_RANK_JOURNAL,
	SOP_RANK_STORES,
	SOP_RANK_NODES,
	SOP_RANK_SPACE,
	SOP_RANK_SEGMENTS,
	SOP_RANK_REGISTRY,
	SOP_RANK_PINS,
	SOP_RANK_IO,
	SOP_RANK_COORD,
	SOP_RANK_LEAF,
};

struct sop_lock {
	pthread_mutex_t mutex;
	enum sop_lock_rank rank;
	const char *name;
};

void sop_lock_init(struct sop_lock *l, enum sop_lock_rank rank, const char *name);
void sop_lock_release(struct sop_lock *l);
void sop_lock(struct sop_lock *l);
void sop_unlock(struct sop_lock *l);
/* Condition variables run on CLOCK_MONOTONIC. wait_ms < 0: no bound. False when the bound came. */
void sop_cond_init(pthread_cond_t *c);
bool sop_cond_wait(pthread_cond_t *c, struct sop_lock *l, long wait_ms);
bool sop_cond_wait_until(pthread_cond_t *c, struct sop_lock *l, uint64_t monotonic_ns);
uint64_t sop_monotonic_ns(void);

static inline void sop_unlock_p(struct sop_lock **l)
{
	if (*l)
		sop_unlock(*l);
}
/* Hold l to the end of the block: SOP_LOCK_GUARD(&v->lock); */
#define SOP_LOCK_GUARD_NAME2(line) sop_guard_##line
#define SOP_LOCK_GUARD_NAME(line)  SOP_LOCK_GUARD_NAME2(line)
#define SOP_LOCK_GUARD(l)                                                                          \
	struct sop_lock *SOP_LOCK_GUARD_NAME(__LINE__)                                             \
		__attribute__((cleanup(sop_unlock_p), unused)) = (sop_lock(l), (l))

#endif
