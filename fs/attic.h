/* Extended attributes of a file that has lost its last name while it is open: in a transaction of its own
 * that is never committed, and ends with the item. */
#ifndef SOPFS_ATTIC_H
#define SOPFS_ATTIC_H

#include "fs/inode.h"

/* item.lock held in all of these. */

/* The name is about to go: what is there now is kept, if anybody has the file open. */
int sopfs_attic_keep(struct sopfs *f, struct sopfs_item *item, struct sop_txn *from,
	struct sop_name name, struct sop_err *e);
/* For an item without a name. *t NULL: it has none, and make was not asked for. */
int sopfs_attic_open(struct sopfs *f, struct sopfs_item *item, bool make, struct sop_txn **t,
	struct sop_name *name, struct sop_err *e);

#endif
