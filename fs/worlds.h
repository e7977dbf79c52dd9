/* Transactions over many files. `mkdir .sop/txn/NAME` begins one: the directory mirrors the mount,
 * as it was at that moment, and what is done below it is seen by nobody else, until all of it is
 * committed at once or rolled back.
 *
 * A world is the state of such a mirror: a struct sopfs of its own, with items, handles and locks
 * as those of the mount, but with session=write, and one transaction of libsop in which every
 * request is carried out. Its nodeids bear SOPFS_WORLD_BIT, so requests find it
 * (sopfs_world_enter), and are carried out one at a time, as a transaction is used by one thread at
 * a time. sopfs_of() is the world then.
 *
 * What always holds:
 *   1. Nothing of a world is written to the mount's items, names or sessions before its commit,
 * which is one commit of libsop: all or nothing, durable when it returns.
 *   2. All it has read and listed is as it was when it commits, or it is rolled back (conflict).
 *   3. A name that somebody is just making in the mount, or in a directory that the world removes,
 * is a conflict too: it is theirs, though it is not committed.
 *   4. The mount's items that the commit changes are locked from before it until what is kept of
 * them, names, versions, sessions, has followed; the kernel has forgotten what changes before the
 * commit, and keeps nothing new until all has followed, so nobody sees part of it (foreign.h).
 *   5. Once it has ended, or its commit has begun, every request is answered with ESTALE; it is
 * freed when the kernel has forgotten it.
 *   6. A world ends by commit, by rollback, with the open file that holds it (NAME.hold), or with
 * the mount.
 *
 * Two ways to begin one: mkdir NAME, ended by rmdir NAME (rollback) or mv NAME .sop/commit, and
 * refused after an hour; or creating NAME.hold, for as long as that file is open. Then "commit"
 * written to it commits: the write fails with what went wrong, which can be read from it in words.
 */
#ifndef SOPFS_WORLDS_H
#define SOPFS_WORLDS_H

#include "fs/names.h"

#define SOPFS_TXN_NAME	    "txn"
#define SOPFS_COMMIT_NAME   "commit"
#define SOPFS_TXN_INO	    12u /* below SOP_ROOT, as all of .sop */
#define SOPFS_COMMIT_INO    13u
#define SOPFS_HOLD_INO	    14u
#define SOPFS_HOLD_SUFFIX   ".hold"
#define SOPFS_WORLDS_MAX    64 /* of a mount */
#define SOPFS_WORLDS_OF_ONE 16 /* of them, of a user whom we do not trust */

struct sopfs_world;

/* What requests of the calling thread are about; NULL: the mount. */
extern _Thread_local struct sopfs_world *sopfs_world_current;
struct sopfs *sopfs_world_fs(struct sopfs_world *w);

/* A request for this nodeid begins. 0; -ESTALE: its world has ended (any: enter nevertheless). */
int sopfs_world_enter(uint64_t nodeid, bool any);
void sopfs_world_leave(void);
/* Of the world a nodeid belongs to; NULL: the mount's. */
struct sopfs_world *sopfs_world_of(uint64_t nodeid);
void sopfs_world_forget(uint64_t nodeid, uint64_t n);
/* 0: it is committed, or about to be, or has not ended; else what to answer who still has it. */
int sopfs_world_ended(const struct sopfs_world *w);

/* The current world has ended, and this is its mirror's root, which may still be seen. */
bool sopfs_world_root_left(uint64_t nodeid, struct sop_attr *a);

/* sopfs_txn() of a world: what fails half-way takes the whole with it. */
int sopfs_world_change(struct sopfs *f, sopfs_txn_fn fn, void *arg, struct sop_err *e);

/* ---- of the mount ---- */
int sopfs_worlds_start(struct sopfs *f, struct sop_err *e);
/* Nobody asks any more. Rolls back and frees all. */
void sopfs_worlds_stop(struct sopfs *f);

/* held: begun by NAME.hold; then *hold is its view. *root: of the mirror; its look-up is counted.
 */
int sopfs_world_begin(struct sopfs *f, const struct sopfs_caller *who, const char *name, bool held,
	struct sopfs_world **out, struct sop_err *e);
/* By its name, if the caller may know of it: referenced, to be put. */
struct sopfs_world *sopfs_world_find(struct sopfs *f, uid_t uid, const char *name);
void sopfs_world_put(struct sopfs_world *w);
/* Of those the caller may know of the oldest with a number beyond *number, which is set to its own.
 * False: there is none. */
bool sopfs_world_next(struct sopfs *f, uid_t uid, uint64_t *number, char name[SOPFS_NAME_MAX + 1]);
/* A look-up of the mirror itself, counted. */
int sopfs_world_entry(struct sopfs_world *w, struct sopfs_entry *out, struct sop_err *e);
/* And of the file that holds it. */
void sopfs_world_hold_entry(struct sopfs_world *w, struct sopfs_entry *out);
struct sopfs_world *sopfs_world_of_hold(const struct sopfs_view *v);
static inline bool sopfs_is_hold(const struct sopfs_view *v)
{
	return v->item->ino == SOPFS_HOLD_INO;
}
/* In a thread of its own, which calls done and puts the world. The mount's kernel knows of it then.
 * Less than 0: it could not be begun, and the world is still there. */
int sopfs_world_commit(struct sopfs_world *w,
	void (*done)(void *arg, struct sopfs_world *w, int rc, const struct sop_err *e), void *arg);
void sopfs_world_rollback(struct sopfs_world *w);
/* Of the hold file: opened, closed for good (rolls back what has not ended). */
void sopfs_world_held(struct sopfs_world *w, int more);
const char *sopfs_world_text(const struct sopfs_world *w); /* its name */
uid_t sopfs_world_owner(const struct sopfs_view *hold);
/* What the last commit said, for who reads the hold file; at most size bytes. */
size_t sopfs_world_message(struct sopfs_world *w, char *buf, size_t size, uint64_t off);
/* Open ones, for status. */
unsigned sopfs_worlds_count(struct sopfs *f);

#endif
