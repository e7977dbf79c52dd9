/* flock(2) and fcntl(2) locks. The kernel's own would be of one nodeid each, and an item has several, so
 * they are kept here, by item.
 *
 * All is under sopfs.locks_lock, a leaf. A lock that must wait is answered later, by whoever releases
 * what is in its way. */
#ifndef SOPFS_LOCKS_H
#define SOPFS_LOCKS_H

#include "core/sop.h"

struct sopfs;
struct sopfs_item;
struct sopfs_locks; /* of one item */

struct sopfs_lock {
	uint64_t start, end; /* bytes, both included */
	uint64_t owner;
	const void *handle; /* through which it was taken */
	int pid;
	short type; /* F_RDLCK, F_WRLCK, F_UNLCK */
	bool whole; /* flock */
};

/* ---- pure: one set of locks ---- */
struct sopfs_locks *sopfs_locks_new(void);
void sopfs_locks_free(struct sopfs_locks *l);
/* The first lock of another owner that is in the way; false: none. */
bool sopfs_locks_blocked(const struct sopfs_locks *l, const struct sopfs_lock *want,
	struct sopfs_lock *by);
/* Nothing is in the way: replaces what the owner has in the range (F_UNLCK: removes). Splits and joins.
 * -ENOMEM: nothing done. */
int sopfs_locks_put(struct sopfs_locks *l, const struct sopfs_lock *lock);
/* Removes all through this handle. */
void sopfs_locks_drop_handle(struct sopfs_locks *l, const void *handle);
size_t sopfs_locks_count(const struct sopfs_locks *l);

/* ---- with waiting ---- */
struct sopfs_waiter;
/* done(arg, rc) is called once if -EINPROGRESS is returned, from any thread and without locks: 0 granted,
 * -EINTR. wait: whether it may. *waiter: for sopfs_lock_interrupt; freed by sopfs_waiter_free, after
 * done has been called or when the call returned anything else. */
struct sopfs_waiter *sopfs_waiter_new(void (*done)(void *arg, int rc), void *arg);
void sopfs_waiter_free(struct sopfs_waiter *w);
int sopfs_lock_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter);
void sopfs_lock_interrupt(struct sopfs *f, struct sopfs_waiter *w);
bool sopfs_lock_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by);
/* At close. */
void sopfs_lock_drop_owner(struct sopfs *f, struct sopfs_item *item, uint64_t owner, bool whole);
void sopfs_lock_drop_handle(struct sopfs *f, struct sopfs_item *item, const void *handle);

#endif
