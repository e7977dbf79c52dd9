/* Mount points, for who mounts and unmounts: no engine in it. */
#ifndef SOP_MOUNTPOINT_H
#define SOP_MOUNTPOINT_H

#include "core/err.h"

/* The canonical name of a mount point that may be dead, where every call on it fails: realpath(3)
 * of the folder that holds it, and its own name. malloc'ed; NULL and errno. */
char *sop_mountpoint_name(const char *path);

/* One of two canonical paths is the other, or lies in it. */
bool sop_paths_overlap(const char *a, const char *b);

/* The calling process moves into another mount namespace, as -N of mount(8) and umount(8) names it:
 * a process, or the path of a namespace. Before it has a second thread. NULL: it stays. */
int sop_namespace_enter(const char *name, struct sop_err *e);

#endif
