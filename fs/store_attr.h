/* Options of a store as attributes of its directory: sop.key, sop.unique, sop.slot_length, sop.value,
 * sop.ec, sop.balance shape it, and can be set while it is empty; sop.cache and sop.note at any time. */
#ifndef SOPFS_STORE_ATTR_H
#define SOPFS_STORE_ATTR_H

#include "fs/names.h"

/* As text into buf; the length. -ENODATA: not one of these. */
int sopfs_store_attr_get(struct sopfs *f, uint64_t store, const char *name, char *buf, size_t size,
	struct sop_err *e);
/* -ENODATA: not one of these; -EINVAL: no value for it; -ENOTEMPTY: it shapes a store that has items. */
int sopfs_store_attr_set(struct sopfs *f, uint64_t store, const char *name, const char *val, size_t len,
	struct sop_err *e);

#endif
