/* Where a file lies, as text: sop.layout. Any thread. */
#ifndef SOPFS_LAYOUT_H
#define SOPFS_LAYOUT_H

#include "fs/state.h"

/* The committed version of a regular file, a line for each extent in order:
 *   OFFSET+BYTES inline
 *   OFFSET+BYTES segment SEGMENT:OFFSET K+M DISK...    (shard 0 .. K+M-1; "DISK!" is known to be
 * missing or corrupt) A last line says how many there are beyond what an attribute can hold. *out:
 * malloc'd, ended by NUL. -ENODATA: it is nothing that has been committed. */
int sopfs_layout_text(struct sopfs *f, struct sopfs_item *item, char **out, struct sop_err *e);

#endif
