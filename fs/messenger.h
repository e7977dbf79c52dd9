/* The messenger: a small process that carries invalidations to the kernel.
 *
 * To invalidate a name the kernel waits for the lock of its directory, in a sleep that nothing can end.
 * Whoever holds that lock may be waiting for an answer of ours. Should the daemon be killed just then,
 * the sleeping thread would keep the dead process's files: /dev/fuse, so that nobody's request would ever
 * be answered or fail, and the volume's lock, so that nobody could mount it again. So another process
 * does the sleeping. It holds one more descriptor of the same connection (FUSE_DEV_IOC_CLONE) and nothing
 * else. When the daemon dies, its own descriptor goes, what it was working on fails, the lock is let go;
 * the messenger refuses what is still queued, wakes up, ends, and with it the connection.
 *
 * Should the messenger be gone, or never have come up, the daemon writes for itself. */
#ifndef SOPFS_MESSENGER_H
#define SOPFS_MESSENGER_H

#include <sys/uio.h>

#include "core/err.h"

struct sopfs_messenger;

/* Forks; call it before there are threads, files or locks to be inherited. */
int sopfs_messenger_start(struct sopfs_messenger **out, struct sop_err *e);
/* Gives it a descriptor of the connection behind fuse_fd. An error leaves it without work. */
int sopfs_messenger_attach(struct sopfs_messenger *m, int fuse_fd, struct sop_err *e);
/* As writev(2) to the connection. False: it cannot; write for yourself. Any thread; waits. */
bool sopfs_messenger_send(struct sopfs_messenger *m, const struct iovec *iov, int count, ssize_t *result);
/* Nobody sends any more. NULL is fine. */
void sopfs_messenger_stop(struct sopfs_messenger *m);

#endif
