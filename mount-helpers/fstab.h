/* Lines of fstab(5). */
#ifndef FSTAB_H
#define FSTAB_H

#include <stddef.h>
#include <stdio.h>

/* The line that mounts the volume on these folders at a mount point. */
void fstab_line(FILE *o, const char *const *paths, size_t n, const char *mountpoint);

#endif
