/* Leaves whose bytes are right and whose order or place is not: every checksum verifies, and they
 * cannot be used all the same. What is in them can still be read, one entry after the other. For
 * fsck. Private to core. */
#ifndef SOP_SALVAGE_H
#define SOP_SALVAGE_H

#include "core/engine.h"

/* Calls fn for each entry of such a leaf of the store, as it is on the disks, in the order in which
 * they lie there. SOP_ECORRUPT: it is none of this store, or its entries cannot be told apart. */
int sop_salvage_each(struct sop_volume *v, uint64_t store, uint64_t handle, sop_entry_fn fn,
	void *arg, struct sop_err *e);

/* Does it have entries that belong between these keys? Then it is the leaf that was meant to lie
 * there. */
bool sop_salvage_any(
	struct sop_volume *v, uint64_t store, uint64_t handle, const struct sop_range *keys);

#endif
