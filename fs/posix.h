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

#endif
