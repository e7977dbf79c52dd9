/* A shared volume, seen by the engine: following the chain of slots, and placing commits in it.
 * What the protocol is, and why: core/SHARED.md.
 *
 * v->shared is NULL in a volume that is not shared. Everything here is called with the commit lock
 * held, except where it says otherwise. */
#ifndef SOP_SHARED_H
#define SOP_SHARED_H

#include "core/engine.h"

/* Recovery, no lock. begin: c, the newest checkpoint, gives way to the image that mounters begin
 * with now, if there is one behind it. open: what was committed after it is applied from the slots.
 */
int sop_shared_begin(struct sop_volume *v, struct sop_checkpoint *c, struct sop_err *e);
int sop_shared_open(struct sop_volume *v, struct sop_err *e);
/* Recovery of who is alone, before anything is given back: nobody of before can commit from here
 * on. */
int sop_shared_take_over(struct sop_volume *v, struct sop_err *e);
/* The end of recovery: others are let in, and this mounter enters. No lock. -ESTALE: others have
 * gone on to another image meanwhile; begin anew. */
int sop_shared_enter(struct sop_volume *v, struct sop_err *e);
/* No lock. Mounting has failed: was that because others have gone on to another image meanwhile? */
bool sop_shared_moved(struct sop_volume *v);
/* The others need not wait for this one any more. No lock. */
void sop_shared_leave(struct sop_volume *v);
void sop_shared_free(struct sop_volume *v);

/* Others may be there: labels, registry and what they refer to are not to be changed. Any thread.
 */
bool sop_shared_live(const struct sop_volume *v);
/* -EOPNOTSUPP for what cannot be done while others may be there; `what` says it. Any thread. */
int sop_shared_refuse(const struct sop_volume *v, const char *what, struct sop_err *e);

/* Apply what others have committed, up to the end. After an error other than SOP_EDISKS (too few
 * replicas answer now) the volume is dead. */
int sop_shared_follow(struct sop_volume *v, struct sop_err *e);

/* A batch on its way into a slot. */
void sop_shared_batch_txn(
	struct sop_buf *b, uint64_t lsn, uint64_t time_ns, const void *ops, size_t len);
/* 0: in the chain, durably. 1: somebody else's record has the slot: follow, check again, try again.
 * An error: it is not in the chain, unless the volume is dead now (then nobody knows). */
int sop_shared_place(struct sop_volume *v, enum sop_slot_type type, const void *payload, size_t len,
	struct sop_err *e);
/* All up to lsn is in memory, and has been on the media before. */
void sop_shared_published(struct sop_volume *v, uint64_t lsn);
/* c is published, and this mounter is alone: the base of those who enter from now on. */
void sop_shared_based(struct sop_volume *v, const struct sop_checkpoint *c);
/* For a checkpoint: what it says of the chain. */
void sop_shared_note(const struct sop_volume *v, struct sop_checkpoint *c);
/* The first slot not applied; of a volume that is not shared where the chain ended when it was, or
 * 0.
 */
uint64_t sop_shared_slot(const struct sop_volume *v);

/* ---- images: see SHARED.md, section 10 ---- */

/* What has been checkpointed here so far is no more than the image that was begun with. */
bool sop_shared_unchanged(const struct sop_volume *v);
/* Is it this mounter's turn to make one? */
bool sop_shared_image_due(struct sop_volume *v);
/* May one of all that is applied now be placed? */
bool sop_shared_may_image(const struct sop_volume *v);
/* c, whose nodes are on the media, becomes the image that mounters begin with, as soon as all who
 * are there know of it; unless another is quicker. No lock but the checkpoint's. */
int sop_shared_publish(struct sop_volume *v, const struct sop_checkpoint *c, struct sop_err *e);
/* From time to time, no lock: what the others wait for; what nobody needs any more goes. */
int sop_shared_tick(struct sop_volume *v, struct sop_err *e);

/* Of a segment, in this base: its own, another mounter's, or older (or of who was alone). */
enum sop_segment_whose { SOP_SEGMENT_OLD, SOP_SEGMENT_OWN, SOP_SEGMENT_OTHERS };
enum sop_segment_whose sop_shared_whose(const struct sop_volume *v, uint64_t segment);
/* No reader of any mounter looks at anything older. */
uint64_t sop_shared_pin(const struct sop_volume *v);
/* May anybody read an image whose LSN is from `from` to `to`? */
bool sop_shared_imaged(const struct sop_volume *v, uint64_t from, uint64_t to);

#endif
