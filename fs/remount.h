/* mount -o remount: what a living mount can change (read-only or not, nosuid, nodev, noexec), the kernel
 * changes; what it cannot is refused by name. */
#ifndef SOPFS_REMOUNT_H
#define SOPFS_REMOUNT_H

#include "fs/options.h"

/* o: as parsed, with remount among its options. */
int sopfs_remount(const struct sopfs_options *o, struct sop_err *e);

#endif
