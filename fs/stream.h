/* Reading .sop/events: a file without an end, whose reader waits. A read that finds nothing is kept and
 * answered when something comes, so that no number of readers uses up the threads that serve the mount.
 * Interrupted, it gives EINTR. */
#ifndef SOPFS_STREAM_H
#define SOPFS_STREAM_H

#include "fs/state.h"

struct fuse_req;
struct sopfs_stream;

int sopfs_stream_open(struct sopfs_stream **out, struct sopfs *f, struct sop_err *e);
/* Answers the request, now or later. */
void sopfs_stream_read(struct sopfs_stream *s, struct fuse_req *req, size_t size, bool nonblock);
/* Who waits is told ENODEV. NULL is fine. */
void sopfs_stream_close(struct sopfs_stream *s);

#endif
