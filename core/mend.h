/* The mender: what a volume does by itself to be whole again, and the long work an administrator
 * asks for, while it is used.
 *
 *   watch     disks that failed or were missing are tried again; deleted folders noticed
 *   repair    shards that reads found bad are written anew
 *   heal      what disks missed that are back: replica, then shards, segment by segment
 *   drain     what lies on a disk that is replaced or removed goes elsewhere; then it is let go
 *   scrub     everything is verified
 *
 * Nothing of it holds a lock while it waits for a disk, except that a replica is completed under
 * the commit lock (a few files' tails). All of it follows from what the labels and the segment
 * table say, so it goes on after a crash or a remount where it was; of the scrub a record in the
 * master store tells how far it had come, as of the last checkpoint.
 *
 * One thread of its own; without threads sop_mend_all() does what there is to do. */
#ifndef SOP_MEND_H
#define SOP_MEND_H

#include "core/engine.h"

struct sop_mender;

struct sop_mender *sop_mender_new(struct sop_volume *v);
void sop_mender_free(struct sop_mender *m); /* NULL is fine */
int sop_mender_start(struct sop_mender *m, struct sop_err *e);
/* Ends what is under way, soon. */
void sop_mender_stop(struct sop_mender *m);
void sop_mender_kick(struct sop_mender *m);
/* On the caller's thread: all there is to do, until nothing more can be done now. */
int sop_mend_all(struct sop_volume *v, struct sop_err *e);

/* A read found a bad shard (from any thread; never waits). */
void sop_mender_repair(void *ctx, const struct sop_blobref *ref);

/* Mount: how far a scrub had come. Checkpoint: note it (commit lock held). */
int sop_mender_load(struct sop_mender *m, struct sop_err *e);
int sop_mender_flush(struct sop_mender *m, struct sop_err *e);

/* Bring the replica of member i up to date, and make it current, when it is here without a break
 * since this stay of it began (mend_replica.c). */
int sop_mend_replica(struct sop_volume *v, unsigned i, uint64_t stay, struct sop_err *e);

/* Member i was put online: it is looked through, whether or not its absence was noticed. */
void sop_mender_returned(struct sop_mender *m, unsigned i);
/* A replacement or removal has been cancelled: what is left where it was moved from goes. */
void sop_mender_cancelled(struct sop_mender *m, unsigned i);
void sop_mender_forget_lost(struct sop_mender *m);
/* Failed and missing disks are tried again at once. */
void sop_mender_retry(struct sop_mender *m);
/* Shares of disks: bytes of member i that are still to be written. */
uint64_t sop_mender_missing(struct sop_mender *m, unsigned i);

#endif
