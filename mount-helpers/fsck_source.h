/* What fsck.sopfs is given to look at, in the forms that sopfs(8) takes. */
#ifndef FSCK_SOURCE_H
#define FSCK_SOURCE_H

#include "core/sop.h"

/* The folders that SOURCE names are added to *path (malloc'ed, and each): one, several with ':'
 * between, patterns of folders, or the name of a volume that /etc/sopfs/NAME.conf describes. 0 or a
 * negative code. */
int fsck_source(char ***path, size_t *n, const char *source, struct sop_err *e);

#endif
