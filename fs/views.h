/* Which nodeid stands for which version, and what the kernel is told about it.
 *
 * One nodeid for the committed version and one for each writing session. Who opens for writing gets
 * the committed nodeid itself if nobody reads by it (it is stolen: the next look-up makes a new one
 * for the committed version); else ESTALE, upon which the kernel looks the name up again from the
 * same thread, and that look-up is answered with a nodeid reserved for it.
 *
 * A mark remembers, for one thread and one item, that it has been sent through ESTALE, and the
 * nodeid reserved for it, which fits whatever it is up to: an open for writing makes it a
 * session's, one for reading a snapshot's. So the second answer is final, as it must be: the kernel
 * repeats an attempt only once. Marks end with the open they were made for, or after a few seconds.
 */
#ifndef SOPFS_VIEWS_H
#define SOPFS_VIEWS_H

#include "fs/notify.h"
#include "fs/session.h"

/* Who asks. */
struct sopfs_caller {
	int tid;
	uid_t uid;
	gid_t gid;
	mode_t umask;
};

struct sopfs_entry {
	struct sopfs_view *view; /* its look-up is counted */
	struct sop_attr attr;
	bool cache;    /* the kernel may keep name and attributes */
	bool fleeting; /* but not the name */
};

int sopfs_lookup(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	struct sopfs_entry *out, struct sop_err *e);
/* The same from what a scan gave, which began at this foreign_epoch; nobody waits: -EAGAIN when a
 * look-up has to be made. */
int sopfs_entry_of(struct sopfs *f, struct sopfs_item *dir, const char *name, size_t len,
	const struct sop_attr *attr, unsigned epoch, struct sopfs_entry *out);
void sopfs_forget(struct sopfs *f, struct sopfs_view *v, uint64_t n);

/* tid: who came by a path, or by a descriptor, that may lead to what has become somebody else's
 * session since: -ESTALE, upon which the kernel walks the path again. 0: nobody is sent away.
 * handle may be NULL. */
int sopfs_getattr(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_handle *handle,
	struct sop_attr *a, bool *cache, struct sopfs_notes *notes, struct sop_err *e);
/* In a shared volume: what others have committed so far is there. */
void sopfs_catch_up(struct sopfs *f);
/* What we know of the item's version and what is committed differ: one of our commits is between
 * the two, or another mounter's has been there. No lock held. */
void sopfs_come_to_rest(struct sopfs *f, struct sopfs_item *item, struct sopfs_notes *notes);
/* The committed attributes of an item, or the last known of one that is not there; no view's. */
int sopfs_item_attr(
	struct sopfs *f, struct sopfs_item *item, struct sop_attr *a, struct sop_err *e);

/* Mode, owner and times of the item, at once; but times that are set by who writes through this
 * nodeid, with his commit. */
int sopfs_setattr(struct sopfs *f, int tid, struct sopfs_view *v, const struct sop_attr *a,
	unsigned mask, struct sopfs_notes *notes, struct sop_err *e);
/* By handle: of its session. By path: a transaction of its own. */
int sopfs_set_size(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	struct sopfs_handle *handle, uint64_t size, struct sopfs_notes *notes, struct sop_err *e);

struct sopfs_opened {
	struct sopfs_handle *handle;
	bool keep_cache;
};
int sopfs_open(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v, int flags,
	struct sopfs_opened *out, struct sopfs_notes *notes, struct sop_err *e);
int sopfs_create(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, int flags, struct sopfs_entry *entry,
	struct sopfs_opened *out, struct sop_err *e);

/* item.lock held, sopfs.lock not: a commit has made `version` the newest. `mine` is the view whose
 * pages show it (or NULL). Others' views become old; notes say what the kernel must forget. */
void sopfs_superseded(struct sopfs *f, struct sopfs_item *item, struct sopfs_view *mine,
	uint64_t version, struct sopfs_notes *notes);

/* Does this directory's content use session=write? */
bool sopfs_dir_direct(struct sopfs *f, struct sopfs_item *dir);
/* sopfs.lock held. */
void sopfs_marks_release(struct sopfs *f);

#endif
