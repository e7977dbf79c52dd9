/* The directory .sop in the root, and its files: status as text and JSON, metrics for Prometheus.
 * Not listed by readdir of the root. What a file says is made when it is opened, from memory alone.
 */
#ifndef SOPFS_CTL_H
#define SOPFS_CTL_H

#include "fs/views.h"

#define SOPFS_CTL_NAME ".sop"

/* An item of .sop, in no table. */
struct sopfs_item *sopfs_ctl_item(uint64_t ino, mode_t type);
void sopfs_ctl_item_free(struct sopfs_item *item);
int sopfs_ctl_start(struct sopfs *f, struct sop_err *e);
void sopfs_ctl_stop(struct sopfs *f);
/* True: the name is ours to answer; out->view NULL: there is no such file. */
bool sopfs_ctl_lookup(
	struct sopfs *f, struct sopfs_item *dir, const char *name, struct sopfs_entry *out);
int sopfs_ctl_attr(const struct sopfs_view *v, struct sop_attr *a);
int sopfs_ctl_open(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v, int flags,
	struct sopfs_opened *out, struct sop_err *e);
/* File i of the directory; NULL beyond the last. */
const char *sopfs_ctl_name(unsigned i, uint64_t *ino);

#endif
