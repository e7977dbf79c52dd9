/* The state of one mount, shared by the files behind sopfs.h.
 *
 * Locks, outermost first:
 *   sopfs_item.lock      commits, renames and removals of one item; held across libsop commits
 *   (two items: the lower address first)
 *   sopfs_session.lock   one session's transaction and value
 *   sopfs_snap.lock      one reader's value
 *   sopfs.lock           tables, names, views, counts: short, no call that waits
 *   leaves: notify queue, locks.c, cookie tables, recent.c
 * None of them is held while the kernel is notified: an invalidation waits for a directory's lock
 * that another request may hold until we have answered it. */
#ifndef SOPFS_STATE_H
#define SOPFS_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/sopfs.h"

#define SOPFS_NAME_MAX 255
/* Tries of a name operation that lost against another commit. */
#define SOPFS_TRIES 200

struct sopfs_item;
struct sopfs_view;
struct sopfs_session;
struct sopfs_handle;
struct sopfs_mark;
struct sopfs_range;
struct sopfs_notifier;
struct sopfs_ticker;
struct sopfs_recent;
struct sopfs_waiter;
struct sopfs_control;
struct sopfs_events;
struct sopfs_world;

struct sopfs {
	struct sopfs_world
		*world; /* of a transaction over many files (worlds.h); NULL: the mount itself */
	struct sopfs_world *worlds; /* the mount's; under lock */
	unsigned committing;	    /* threads that commit worlds; under lock */
	pthread_cond_t committed_one;
	struct sopfs_item *txn_dir, *commit_dir; /* .sop/txn and .sop/commit, of the mount */
	struct sop_volume *v;
	struct sop_txn *latest; /* of a world: its transaction, under the world's lock */
	struct sopfs_opts o;
	bool shared; /* by other mounters too: what is committed changes without us */
	struct fuse_session *_Atomic se;
	pthread_mutex_t lock;

	/* inode number -> item; under lock */
	struct sopfs_item **table;
	size_t table_size, hand;
	_Atomic size_t table_used; /* changed under lock */
	_Atomic unsigned
		prune_due;    /* names since the last time the kernel was asked to forget some */
	atomic_bool no_prune; /* it cannot be */
	size_t settled;	      /* resident when the allocator last gave something back: memory.h */
	struct sopfs_item *root;
	struct sopfs_item *ctl; /* the directory .sop and its files, chained by hash_next */
	uint64_t generation;

	/* Names that are not committed yet; under lock. */
	struct sopfs_item *overlay[256];
	struct sopfs_item *overlay_first;
	_Atomic unsigned overlay_count;

	struct sopfs_range *ranges[64]; /* range_view.c; under lock */
	uint64_t range_count;

	struct sopfs_handle *handles; /* all open ones; under lock */
	struct sopfs_mark *marks;     /* under lock: see views.h */
	_Atomic unsigned mark_count;
	uint64_t rewritten[64]; /* under lock: files opened for writing over and over (views.c) */
	_Atomic unsigned foreign_epoch; /* commits that came by foreign.h */
	_Atomic unsigned
		foreign_busy; /* of them, under way: the kernel must keep nothing of what it gets */
	_Atomic unsigned session_epoch; /* what directories know of session= is as old as this */
	_Atomic unsigned companions;	/* open handles of them (companion.h) */

	pthread_mutex_t locks_lock; /* locks.c */
	struct sopfs_waiter *waiters;
	struct sopfs_waiter *far_waiters; /* for another mounter */
	unsigned locks_round;

	struct sopfs_notifier *notifier;
	struct sopfs_ticker *ticker;
	struct sopfs_recent *recent;   /* recent.h */
	struct sopfs_control *control; /* or NULL */
	struct sopfs_events *events;   /* events.h */
	struct timespec started;       /* real time */
	int64_t started_boot_s;	       /* CLOCK_BOOTTIME */

	/* rolled_back: all that came to nothing, conflicts and failed ones too */
	atomic_ullong sessions_open, committed, rolled_back, conflicts, failed;
};

/* Where an item lies, copied out so that it can be used without the lock. */
struct sopfs_where {
	bool self; /* by its number (store), as none of its names is known */
	uint64_t store;
	size_t len;
	char text[SOPFS_NAME_MAX + 1];
};

static inline struct sop_name sopfs_where_name(const struct sopfs_where *w)
{
	return w->self ? SOP_SELF(w->store) : (struct sop_name){w->store, w->text, w->len};
}

/* Root and the daemon's own user: they may see names of files anywhere, and change things. */
static inline bool sopfs_trusts(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

/* May the kernel keep what it is told now? In a shared volume nothing: it is not told what others
 * change. */
static inline bool sopfs_may_cache(const struct sopfs *f)
{
	return !f->shared && !atomic_load(&f->foreign_busy);
}

static inline unsigned sopfs_commit_flags(const struct sopfs *f)
{
	return f->o.sync ? SOP_COMMIT_DURABLE : 0;
}

#endif
