/* flock(2) and fcntl(2) locks. The kernel's own would be of one nodeid each, and an item has
 * several, so they are kept here, by item.
 *
 * All is under sopfs.locks_lock, a leaf. A lock that must wait is answered later, by whoever
 * releases what is in its way.
 *
 * When do locks end by a close? Those of fcntl (POSIX) end with the first close of any descriptor
 * of the file by their process: FLUSH says whose. Those of a description (flock, OFD) end with its
 * last close: RELEASE. But RELEASE comes some time after close() has returned, and descriptors for
 * reading send no FLUSH (it would cost each open and close of a reader a third), until somebody has
 * taken a lock on the file: from then on all that are opened do. For those that were open before,
 * the first to take a POSIX lock has the numbers of its descriptors noted with it; when the lock is
 * in somebody's way, a look at /proc tells whether one of them has been closed. */
#ifndef SOPFS_LOCKS_H
#define SOPFS_LOCKS_H

#include "core/sop.h"

#define SOPFS_LOCK_FDS 4

struct sopfs;
struct sopfs_item;
struct sopfs_handle;
struct sopfs_session;
struct sopfs_locks; /* of one item */

struct sopfs_lock {
	uint64_t start, end; /* bytes, both included */
	uint64_t owner;
	struct sopfs_handle *handle; /* through which it was taken */
	int pid, tid;		     /* who took it, or asks */
	short type;		     /* F_RDLCK, F_WRLCK, F_UNLCK */
	bool whole;		     /* flock */
	uint8_t fds; /* descriptors of its process whose close would not be told; see above */
	int fd[SOPFS_LOCK_FDS];
};

/* ---- pure: one set of locks ---- */
struct sopfs_locks *sopfs_locks_new(void);
void sopfs_locks_free(struct sopfs_locks *l);
/* The lock of another owner that is in the way and begins first; false: none. */
bool sopfs_locks_blocked(
	const struct sopfs_locks *l, const struct sopfs_lock *want, struct sopfs_lock *by);
/* Nothing is in the way: replaces what the owner has in the range (F_UNLCK: removes). Splits and
 * joins. -ENOMEM: nothing done. */
int sopfs_locks_put(struct sopfs_locks *l, const struct sopfs_lock *lock);
/* Removes what was taken through this handle, and with an fcntl lock all of its owner. */
void sopfs_locks_drop_handle(struct sopfs_locks *l, const struct sopfs_handle *handle);
size_t sopfs_locks_count(const struct sopfs_locks *l);

/* ---- with waiting ---- */

/* Of the locks themselves, and of locks_far.c. All under locks_lock. */
struct sopfs_waiter {
	struct sopfs_waiter *next;
	struct sopfs_item *item;
	struct sopfs_lock lock;
	void (*done)(void *arg, int rc);
	void *arg;
	bool queued, interrupted;
	bool in_interrupt; /* done() is called by an interrupt */
	unsigned round;	   /* deadlock: of the search that has been here */
	int rc;
	bool asking, again; /* far: the server is being asked; meanwhile something was unlocked */
	bool polls;	    /* far: nobody may say when to ask again */
};
/* Without a waiter: -EAGAIN when something is in the way. With one done(arg, rc) is called once if
 * -EINPROGRESS is returned, from any thread and without locks: 0 granted, -EINTR. -EDEADLK: the
 * owner of an fcntl lock would wait for itself. The waiter is for sopfs_lock_interrupt; freed by
 * sopfs_waiter_free, after done has been called or when the call returned anything else. */
struct sopfs_waiter *sopfs_waiter_new(void (*done)(void *arg, int rc), void *arg);
void sopfs_waiter_free(struct sopfs_waiter *w);
int sopfs_lock_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter);
void sopfs_lock_interrupt(struct sopfs *f, struct sopfs_waiter *w);
bool sopfs_lock_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by);
/* At close. Of an owner all byte ranges. */
void sopfs_lock_drop_owner(struct sopfs *f, struct sopfs_handle *handle, uint64_t owner);
void sopfs_lock_drop_handle(struct sopfs *f, struct sopfs_item *item, struct sopfs_handle *handle);
/* Does a lock of this owner and kind, write: one for writing, lie in the range? */
bool sopfs_lock_has(
	struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *range, bool write);

/* At the end, when nobody asks any more: who waits still is told ENODEV. */
void sopfs_lock_stop(struct sopfs *f);

/* A descriptor for reading is opened: may it do without FLUSH? Counted, until it is released. */
bool sopfs_lock_quiet(struct sopfs *f, struct sopfs_handle *h);
void sopfs_lock_release_quiet(struct sopfs *f, struct sopfs_handle *h);
/* A descriptor of h has been closed: its RELEASE may be on its way. */
void sopfs_lock_flushed(struct sopfs *f, struct sopfs_handle *h);

/* ---- between mounters of a shared volume (locks_far.c) ---- */

/* In a volume that is coordinated, a lock is granted by the server first, which knows those of this
 * mount too, and then here. So all that is held here is held there; what is dropped, is dropped
 * here first. The server is waited for 2 s at most, -ENOLCK: it is away. */
int sopfs_far_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter);
/* Everything of the owner and kind is gone here. */
void sopfs_far_drop(struct sopfs *f, uint64_t ino, uint64_t owner, bool whole);
/* F_GETLK: of another mounter. by->pid is -1: of no process here. */
bool sopfs_far_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by);
/* The ticker's: ask again for those who may have it now. */
void sopfs_far_poll(struct sopfs *f);
void sopfs_far_interrupt(struct sopfs *f, struct sopfs_waiter *w);
void sopfs_far_start(struct sopfs *f);
void sopfs_far_stop(struct sopfs *f);
/* locks.c: as sopfs_lock_set(), and a look without a wait, among those of this mount alone. */
int sopfs_near_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter);
bool sopfs_near_blocked(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock);
/* locks_lock held: is there a lock that was taken through the session? */
bool sopfs_near_holds(const struct sopfs_item *item, const struct sopfs_session *s);

/* The ticker's: look whether locks that others wait for have ended without a word. */
void sopfs_lock_poll(struct sopfs *f);

#endif
