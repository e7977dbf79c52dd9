/* Commits that do not come through the mount's own items and sessions: what is kept of the items
 * they change must follow, and the kernel be told. */
#ifndef SOPFS_FOREIGN_H
#define SOPFS_FOREIGN_H

#include "fs/views.h"

struct sopfs_foreign;

/* In this order, by a thread that answers no requests.
 *
 * new: gathers what t changes. From now on, until free, nothing that the mount answers may be kept
 * by the kernel: else somebody might see one change, and then, from the kernel's memory, another
 * not. */
int sopfs_foreign_new(
	struct sopfs_foreign **out, struct sopfs *f, struct sop_txn *t, struct sop_err *e);
/* The kernel forgets what it has of all that changes. Waits for the kernel, which may wait for
 * answers of ours: not with a lock held that a request may want. */
void sopfs_foreign_tell(struct sopfs_foreign *x);
/* Before the commit: locks the items that are known, until end. SOP_ECONFLICT: a name it makes is
 * just being made by somebody (then, as with any error, nothing is locked). */
int sopfs_foreign_begin(struct sopfs_foreign *x, struct sop_err *e);
/* After it: they follow. */
void sopfs_foreign_end(struct sopfs_foreign *x, bool committed);
/* The kernel knows all when it returns; waits as tell does. NULL is fine. */
void sopfs_foreign_free(struct sopfs_foreign *x);

#endif
