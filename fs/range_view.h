/* Range views: .sop/range/STORE/FROM..TO is a directory that holds the items of STORE with FROM <= name
 * <= TO, and nothing else; desc:FROM..TO lists them in falling order. Either side may be empty.
 *
 * The way to STORE is walked as it is from the root, by directories that stand for the real ones: with
 * their owners, modes and access lists, as whoever may not look into a directory must not do so here. Files
 * below are the real ones, by their own nodeids. Directories are stand-ins again: the kernel knows a
 * directory by one name only. Names cannot be made, changed or removed here.
 *
 * In the names of such directories %XX is a byte, so that a store "a..b" is written "a%2e%2eb", and a bound
 * may hold "..", "/" or "%". */
#ifndef SOPFS_RANGE_VIEW_H
#define SOPFS_RANGE_VIEW_H

#include "fs/views.h"

#define SOPFS_RANGE_NAME "range"
#define SOPFS_RANGE_INO	 15u /* of the items that stand for directories; below SOP_ROOT, as all of .sop */

static inline bool sopfs_is_range(const struct sopfs_item *item)
{
	return item->ino == SOPFS_RANGE_INO;
}

/* Is a name in dir ours to look up? */
bool sopfs_range_has(const struct sopfs *f, const struct sopfs_item *dir, const char *name);
int sopfs_range_lookup(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	struct sopfs_entry *out, struct sop_err *e);
void sopfs_range_forget(struct sopfs *f, struct sopfs_view *v, uint64_t n);
int sopfs_range_attr(struct sopfs *f, struct sopfs_item *dir, struct sop_attr *a, struct sop_err *e);
/* The real directory; it lives as long as dir. within: what of it is shown; NULL from and to: all.
 * *plain: names that would have to be written with % are not listed. */
struct sopfs_item *sopfs_range_store(struct sopfs_item *dir, struct sop_range *within, bool *plain);
void sopfs_ranges_release(struct sopfs *f);

#endif
