/* What POSIX asks of a filesystem and the kernel leaves to us: owners and modes of new files, suid bits
 * when a file is emptied, access control lists that are inherited. */
#ifndef SOPFS_POSIX_H
#define SOPFS_POSIX_H

#include "fs/views.h"

/* Access control lists that something new gets from its directory. */
struct sopfs_inherit {
	void *access, *fallback; /* fallback: the default list, for a directory's own content */
	size_t len;              /* of both */
};

/* Attributes of something new in dir; a set-group-ID directory hands down its group, a default access
 * control list takes the place of the umask. sopfs_inherit_release after use, also upon failure. */
int sopfs_new_attr(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	mode_t mode, struct sop_attr *out, struct sopfs_inherit *lists, struct sop_err *e);
/* In the transaction that makes it. */
int sopfs_inherit_apply(struct sop_txn *t, struct sop_name name, const struct sopfs_inherit *lists,
	struct sop_err *e);
void sopfs_inherit_release(struct sopfs_inherit *lists);
/* The list that is to go with a chmod: *out malloc'ed, *len 0 and NULL when it has none. */
int sopfs_acl_after_chmod(struct sop_txn *t, struct sop_name name, mode_t mode, void **out,
	size_t *len, struct sop_err *e);
/* s.lock held: its commit takes the set-ID bits that an unprivileged writer must not keep. */
int sopfs_kill_suid(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_session *s,
	struct sop_err *e);
/* The same with the transaction of a value that has just been opened. */
void sopfs_value_kill_suid(struct sop_value *value);
#define SOPFS_XATTR_MAX 65536
int sopfs_copy_xattrs(struct sop_txn *to, struct sop_name to_name, struct sop_txn *from,
	struct sop_name from_name, struct sop_err *e);
/* Pure: the mode without them. */
mode_t sopfs_mode_without_suid(mode_t mode);
struct timespec sopfs_now(void);

#endif
