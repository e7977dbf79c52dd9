/* The one place where codes become errnos, and attributes what the kernel wants. */
#ifndef SOPFS_REPLY_H
#define SOPFS_REPLY_H

#include "fs/views.h"

struct fuse_req;
struct fuse_entry_param;

/* What the kernel is told of an entry, and for how long it may keep that. *p was zero. */
void sopfs_entry_param(
	struct sopfs *f, const struct sopfs_entry *entry, struct fuse_entry_param *p);

/* rc: 0 or a negative code. Answers the request. What a user could not explain by himself (a lost
 * shard, a failed volume) is logged with its message. */
void sopfs_reply_rc(struct sopfs *f, struct fuse_req *req, int rc, const struct sop_err *e);
void sopfs_reply_entry(struct sopfs *f, struct fuse_req *req, struct sopfs_entry *entry);
void sopfs_reply_attr(struct sopfs *f, struct fuse_req *req, const struct sop_attr *a, bool cache);

void sopfs_stat_of(const struct sop_attr *a, struct stat *st);
int sopfs_errno(int rc);
/* The errno of a negative code, which is logged as sopfs_reply_rc does. */
int sopfs_trouble(struct sopfs *f, int rc, const struct sop_err *e);

/* How long the kernel may keep what only changes through us. */
#define SOPFS_CACHE_SECONDS 86400.0

#endif
