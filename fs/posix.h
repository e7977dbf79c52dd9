/* What POSIX asks of a filesystem and the kernel leaves to us: owners and modes of new files, suid bits
 * when a file is emptied, access control lists that are inherited. */
#ifndef SOPFS_POSIX_H
#define SOPFS_POSIX_H

#include "fs/views.h"

/* Attributes of something new in dir; a set-group-ID directory hands down its group. */
int sopfs_new_attr(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	mode_t mode, struct sop_attr *out, struct sop_err *e);
/* s.lock held: its commit takes the set-ID bits that an unprivileged writer must not keep. */
int sopfs_kill_suid(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_session *s,
	struct sop_err *e);
/* Pure: the mode without them. */
mode_t sopfs_mode_without_suid(mode_t mode);
struct timespec sopfs_now(void);

#define SOPFS_ACL_ACCESS "system.posix_acl_access"
/* Pure: the permission bits that an access control list (in the kernel's xattr form) stands for. 1: it
 * says no more than these bits; 0: it says more; -EINVAL: it is not one. */
int sopfs_acl_mode(const void *acl, size_t len, mode_t *bits);

#endif
