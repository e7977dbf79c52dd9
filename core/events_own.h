/* The ring behind core/events.h, for those who apply commits. Private to core. */
#ifndef SOP_EVENTS_OWN_H
#define SOP_EVENTS_OWN_H

#include "core/events.h"

struct sop_event_ring;

struct sop_event_ring *sop_event_ring_new(void);
void sop_event_ring_free(struct sop_event_ring *r); /* NULL is fine */
bool sop_event_ring_wanted(const struct sop_event_ring *r);
/* Commit lock held: commits up to lsn are about to be applied. */
void sop_event_ring_begin(struct sop_event_ring *r, uint64_t lsn);
/* Commit lock held. missed and more are set for each follower. */
void sop_event_ring_put(struct sop_event_ring *r, const struct sop_event *event);
/* What was put is published. */
void sop_event_ring_show(struct sop_event_ring *r);

#endif
