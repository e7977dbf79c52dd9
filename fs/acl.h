/* POSIX access control lists, in the form that setxattr(2) carries them (linux/posix_acl_xattr.h). The
 * kernel checks access; we keep mode and list in step, and hand default lists down. Pure. */
#ifndef SOPFS_ACL_H
#define SOPFS_ACL_H

#include <sys/stat.h>

#include "core/sop.h"

#define SOPFS_ACL_ACCESS  "system.posix_acl_access"
#define SOPFS_ACL_DEFAULT "system.posix_acl_default"

/* -EINVAL: not a list, or one without the three entries each has, or with names but no mask. */
int sopfs_acl_check(const void *raw, size_t len);
/* The rest takes lists that were checked. */
/* The mode that shows this list; the bits above the permissions are those of `mode`. */
mode_t sopfs_acl_mode(const void *raw, size_t len, mode_t mode);
/* It says no more than a mode does. */
bool sopfs_acl_is_mode(const void *raw, size_t len);
/* After a chmod. */
void sopfs_acl_set_mode(void *raw, size_t len, mode_t mode);
/* A default list becomes the list of something made with this mode, which is narrowed by it. */
mode_t sopfs_acl_inherit(void *raw, size_t len, mode_t mode);

#endif
