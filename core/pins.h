/* Pinned LSNs: what some reader may still look at.
 *
 * A pin has a scope, so that a file held open for days does not hold the space of the whole volume:
 *   0                everything (transactions over several stores, the checkpoint)
 *   a store's id     the node versions of that store
 *   an inode number  the blobs that its value referred to
 * The published LSN is the newest that readers may start from. Any thread. */
#ifndef SOP_PINS_H
#define SOP_PINS_H

#include "core/lock.h"

#define SOP_PIN_ALL 0u

struct sop_pins;

struct sop_pins *sop_pins_new(void); /* NULL: no memory */
void sop_pins_free(struct sop_pins *p);

void sop_pins_publish(struct sop_pins *p, uint64_t lsn);
uint64_t sop_pins_published(struct sop_pins *p);

/* Pin the published LSN and return it in *lsn. -ENOMEM. Counted: each pin is put once. */
int sop_pins_get(struct sop_pins *p, uint64_t scope, uint64_t *lsn);
/* One more on an LSN that is pinned already in this scope or in SOP_PIN_ALL. */
int sop_pins_again(struct sop_pins *p, uint64_t scope, uint64_t lsn);
void sop_pins_put(struct sop_pins *p, uint64_t scope, uint64_t lsn);

/* Is there a pin p of this scope (or of everything) with from <= p < to? (A node version seen from
 * `from` on, replaced at `to`; with from 0: what was freed at `to`.) */
bool sop_pins_between(struct sop_pins *p, uint64_t scope, uint64_t from, uint64_t to);
/* The newest pin of this scope or of everything, 0 when there is none. */
uint64_t sop_pins_newest(struct sop_pins *p, uint64_t scope);
/* The oldest pin of any scope, or what is published when there is none: nobody looks at anything
 * older, now or later. */
uint64_t sop_pins_oldest(struct sop_pins *p);

#endif
