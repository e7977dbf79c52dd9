/* The sessions that came to nothing lately: rolled back, conflicting, failed. What status shows of
 * them; each is logged too. Kept in memory, the last SOPFS_RECENT. Any thread; a leaf lock of its
 * own. */
#ifndef SOPFS_RECENT_H
#define SOPFS_RECENT_H

#include "fs/inode.h"

#define SOPFS_RECENT	  32
#define SOPFS_RECENT_PATH 512

struct sopfs_ending {
	struct timespec time;
	uint64_t ino;
	int code; /* what its users were told: SOP_ECONFLICT, -EIO, -ENOSPC, ... */
	char path[SOPFS_RECENT_PATH]; /* from the root of the mount, at that time; printable */
	char reason[160];	      /* a sentence */
};

/* sopfs.lock not held. */
void sopfs_recent_add(struct sopfs *f, struct sopfs_item *item, int code, const char *reason);
/* The i-th last, from 0; false: there are no more. For .sop and the control socket. */
bool sopfs_recent_get(struct sopfs *f, unsigned i, struct sopfs_ending *out);

int sopfs_recent_start(struct sopfs *f, struct sop_err *e);
void sopfs_recent_stop(struct sopfs *f);

#endif
