/* The channel to the kernel: the mount point, the /dev/fuse descriptor, and what libfuse's own
 * mounting cannot do. One per process.
 *
 * The descriptor is our own (root: mount(2); others: from fusermount3), so that the reply to INIT
 * can be completed with what an older libfuse leaves out, and so that we can stop reading on
 * request. */
#ifndef SOPFS_CHANNEL_H
#define SOPFS_CHANNEL_H

#include <sys/uio.h>

#include "core/err.h"

struct fuse_session;
struct sopfs_messenger;

struct sopfs_channel;

/* To be blocked in every thread but the loop's workers, who unblock it themselves. */
#define SOPFS_STOP_SIGNAL SIGUSR1

struct sopfs_channel_opts {
	const char *source; /* shown by mount and df */
	bool allow_other;
	unsigned long mount_flags;	   /* MS_* */
	struct sopfs_messenger *messenger; /* outlives the session; may be NULL */
	/* Answers STATX requests, with the session's userdata; NULL: there are none. */
	void (*statx)(void *userdata, int fd, const void *request, size_t len);
};

/* The answer to a request that came by fd and has a header: an errno, or 0 and the body. */
void sopfs_channel_answer(int fd, uint64_t unique, int error, const void *body, size_t len);

/* Checks a mount point before anything is opened, and gives its canonical name (free it). A dead
 * mount of our own there is detached; a living one is refused (-EBUSY), as is what is no directory.
 */
int sopfs_mountpoint_check(char **canonical, const char *mountpoint, struct sop_err *e);

/* Mounts there. Requests may come from then on: start the session loop. */
int sopfs_channel_open(struct sopfs_channel **out, struct fuse_session *se, const char *mountpoint,
	const struct sopfs_channel_opts *o, struct sop_err *e);
/* One request answered, as anyone would make it: the mount serves. Sets the read-ahead, if we may.
 */
int sopfs_channel_ready(struct sopfs_channel *c, struct sop_err *e);
/* -EBUSY while it is in use. 0 when it is mounted no more, by us or others. lazy: detach; the loop
 * ends when the last file is closed. Any thread. */
int sopfs_channel_unmount(struct sopfs_channel *c, bool lazy, struct sop_err *e);
/* Makes the session loop end now, open files or not. Any thread; call again while it has not ended
 * (a worker may just be between two steps). */
void sopfs_channel_stop(struct sopfs_channel *c);
/* After the loop: what is still mounted (the connection was aborted) is detached. The descriptor
 * goes with the session. */
void sopfs_channel_close(struct sopfs_channel *c);

/* A notification of a kind that libfuse does not know, sent as it sends its own. 0 or -errno. */
int sopfs_channel_notify(struct fuse_session *se, struct iovec *iov, int count);

/* For tests: complete an INIT reply (struct fuse_init_out as words) by what the kernel offers. */
void sopfs_init_complete(uint32_t reply[16], uint32_t offered_flags, uint32_t offered_flags2);

#endif
