/* A shared volume and its coordination (core/coord.h): what the engine asks of it. All of it is
 * advice but one thing: a mounter whose lease is no good does not commit. Private to core; the
 * public part is mounters.h.
 *
 * v->coordination is NULL in a volume without it; then all calls do nothing, and succeed. */
#ifndef SOP_COORDINATE_H
#define SOP_COORDINATE_H

#include "core/engine.h"

/* By v->opts, before the mounter enters: who is alone then says so, as nobody else can have a lock
 * that is not claimed yet. A server that is away is no error. */
int sop_coordinate_open(struct sop_volume *v, struct sop_err *e);
void sop_coordinate_close(struct sop_volume *v);

/* May this mounter commit? Waits, errs, as v->opts.ondown says, until deadline_ms (monotonic) at
 * most. No lock held. */
int sop_coordinate_gate(struct sop_volume *v, uint64_t deadline_ms, struct sop_err *e);
/* The same, asked right before a slot is tried, without waiting: where ondown=block waits, it is
 * SOP_COORDINATE_LATER. Nothing has been placed then: let go of all locks, wait at the gate, and
 * begin anew. */
#define SOP_COORDINATE_LATER 2
int sop_coordinate_may_commit(struct sop_volume *v, struct sop_err *e);
/* Has a lock been lost that was granted at or after `grant`? What was written under it must not be
 * committed. Asked with, and after, the one above. */
bool sop_coordinate_grant_lost(struct sop_volume *v, uint64_t grant);
/* Before the chain is followed for a commit: so that others do not try the same slot. A wait of
 * half a second at most. Ends with sop_coordinate_placed(). No lock held. */
void sop_coordinate_turn(struct sop_volume *v);
/* The slot has been decided; 0: none has. Before the commit is answered. */
void sop_coordinate_placed(struct sop_volume *v, uint64_t slot);
/* All up to the slot has been applied. Any lock may be held. */
void sop_coordinate_applied(struct sop_volume *v, uint64_t slot);

#endif
