/* The threads that read requests and serve them: one at first, more while all are busy.
 *
 * They do the small writes of their commits themselves (sop_volume_call()). One that a hanging disk
 * holds up counts no more once its request has been answered without it; another takes its place.
 */
#ifndef SOPFS_WORKERS_H
#define SOPFS_WORKERS_H

#include "core/sop.h"

struct fuse_session;

/* Serves until the session ends. All requests have been answered then, and no thread serves any
 * more; held up ones are left behind. 0, or what reading requests failed with. */
int sopfs_workers_run(struct fuse_session *se, struct sop_volume *v, unsigned threads_max);

#endif
