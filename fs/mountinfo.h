/* /proc/self/mountinfo: what is mounted at a place. */
#ifndef SOPFS_MOUNTINFO_H
#define SOPFS_MOUNTINFO_H

#include "core/err.h"

#define SOPFS_MOUNT_TYPE "fuse.sopfs"

struct sopfs_mount {
	unsigned major, minor;
	char type[64];
	char source[512]; /* cut when longer: for messages */
	bool read_only;	  /* the mount, or its file system */
};

/* The topmost mount at just this canonical path: 1 and *out, or 0. */
int sopfs_mount_at(struct sopfs_mount *out, const char *path, struct sop_err *e);

/* Undo the octal escapes of a field, in place. */
void sopfs_mountinfo_unescape(char *field);

#endif
