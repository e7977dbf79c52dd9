/* A shared volume, seen by the engine: following the chain of slots, and placing commits in it.
 * What the protocol is, and why: core/SHARED.md.
 *
 * v->shared is NULL in a volume that is not shared. Everything here is called with the commit lock
 * held, except where it says otherwise. */
#ifndef SOP_SHARED_H
#define SOP_SHARED_H

#include "core/engine.h"

/* Recovery, no lock: what was committed after the checkpoint is applied from the slots. slot: the
 * first that is not in it; base: of its BASE. */
int sop_shared_open(struct sop_volume *v, uint64_t slot, uint64_t base, struct sop_err *e);
/* Recovery of who is alone, before anything is given back: nobody of before can commit from here
 * on. */
int sop_shared_take_over(struct sop_volume *v, struct sop_err *e);
/* The end of recovery: others are let in, and this mounter enters. No lock. */
int sop_shared_enter(struct sop_volume *v, struct sop_err *e);
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
/* A checkpoint that holds all slots below is published, and this mounter is alone. */
void sop_shared_trim(struct sop_volume *v, uint64_t slot);
/* The first slot not applied, and that of the BASE; 0 when the volume is not shared (or, the first,
 * where the chain ended when it was). */
uint64_t sop_shared_slot(const struct sop_volume *v);
uint64_t sop_shared_base(const struct sop_volume *v);

#endif
