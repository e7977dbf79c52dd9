/* Where a volume is, as users say it: SOURCE of sopfs, fsck.sopfs, sopctl and mkfs.sopfs.
 *
 * One member folder, a list of them with ':' between, patterns of folders among them, or a NAME
 * that /etc/sopfs/NAME.conf describes ($SOPFS_CONFIG_DIR instead of /etc/sopfs). A backslash takes
 * the meaning from the character behind it, if it has one; elsewhere it is itself. Any thread; what
 * is given out is the caller's. */
#ifndef SOP_SOURCE_H
#define SOP_SOURCE_H

#include "core/err.h"

struct sop_paths {
	char **path; /* malloc'ed, and each */
	size_t n;
};
int sop_paths_add(struct sop_paths *p, const char *path, struct sop_err *e);
void sop_paths_release(struct sop_paths *p);

/* A list with `separator` between, "\SEPARATOR" and "\\" in names: added to p. -EINVAL: an entry is
 * empty. */
int sop_list_split(struct sop_paths *p, const char *list, char separator, struct sop_err *e);

/* Folders with ':' between, added to p. Entries with characters of patterns are expanded, unless
 * there is a folder of just that name; -ENOENT: one matches nothing. Empty entries are passed over.
 */
int sop_source_folders(struct sop_paths *p, const char *list, struct sop_err *e);

/* The settings of NAME.conf, "key = value" lines and comments behind '#', each given to fn but for
 * `source`, which is *list (malloc'ed). fn NULL: they do not matter. 0 and *list NULL: name cannot
 * be one, or there is no such file. What fn returns other than 0 ends it and is returned, with
 * where it was before e's text. */
int sop_source_config(char **list, const char *name,
	int (*fn)(void *arg, const char *key, const char *value, struct sop_err *e), void *arg,
	struct sop_err *e);

/* Both: the folders that SOURCE means, added to p. */
int sop_source_find(struct sop_paths *p, const char *source, struct sop_err *e);

#endif
