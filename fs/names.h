/* Name operations: each one transaction, at once, tried again when it lost against another commit.
 *
 * A name may be one that is not committed yet (the overlay): then removing it takes the name from
 * its session, which goes on without; renaming or linking it commits it with its session when the
 * process that writes it does so, and as the empty file that others see when another does. */
#ifndef SOPFS_NAMES_H
#define SOPFS_NAMES_H

#include "fs/views.h"

typedef int (*sopfs_txn_fn)(struct sop_txn *t, void *arg, struct sop_err *e);
int sopfs_txn(struct sopfs *f, sopfs_txn_fn fn, void *arg, struct sop_err *e);
/* What a transaction has given: is it in effect? With -o sync it can fail, behind its commit, in
 * the wait for the media. */
static inline bool sopfs_stands(int rc)
{
	return !rc || rc == SOP_EUNSYNCED;
}
/* Of one that stands and failed: the kernel takes the answer for "nothing done", and must look at
 * the name again. item: whose name it is; or NULL. */
void sopfs_note_unsynced(struct sopfs *f, struct sopfs_notes *n, struct sopfs_item *dir,
	const char *name, const struct sopfs_item *item);
/* What a change by a name that the item had here has given: another mounter of a shared volume may
 * have taken the name. */
static inline int sopfs_name_lost(const struct sopfs *f, int rc)
{
	return f->shared && rc == -ENOENT ? -ESTALE : rc;
}

/* mode: type and permissions; target: of a symlink. */
int sopfs_mknod(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, dev_t rdev, const char *target, struct sopfs_entry *out,
	struct sop_err *e);
int sopfs_mkdir(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, struct sopfs_entry *out, struct sop_err *e);
int sopfs_unlink(struct sopfs *f, struct sopfs_item *dir, const char *name,
	struct sopfs_notes *notes, struct sop_err *e);
int sopfs_rmdir(struct sopfs *f, struct sopfs_item *dir, const char *name, struct sop_err *e);
/* flags: RENAME_NOREPLACE, EXCHANGE, WHITEOUT. */
int sopfs_rename(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *from_dir,
	const char *from, struct sopfs_item *to_dir, const char *to, unsigned flags,
	struct sopfs_notes *notes, struct sop_err *e);
int sopfs_link(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_item *dir,
	const char *name, struct sopfs_entry *out, struct sopfs_notes *notes, struct sop_err *e);
/* For those who change names without these; item.lock held. Its last name is about to go: each
 * session (of sopfs_each_session; arg: notes) must hold its value from now on. And: its names have
 * changed. */
int sopfs_session_keep(struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e);
int sopfs_follow_names(struct sopfs *f, struct sopfs_item *item, struct sop_err *e);
/* Malloc'ed, ended by NUL. */
int sopfs_readlink(struct sopfs *f, struct sopfs_view *v, char **target, struct sop_err *e);

#endif
