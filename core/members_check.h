/* The labels of a volume as they are on its folders: what is wrong with them, and which folder
 * without a label is a member all the same. For fsck; opens no volume, takes no lock. */
#ifndef SOP_MEMBERS_CHECK_H
#define SOP_MEMBERS_CHECK_H

#include "core/fsck.h"
#include "core/members.h"

struct sop_label_check; /* a finished look */

struct sop_label_check_opts {
	unsigned timeout_ms; /* of each folder */
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	/* Each thing found; object and texts are the callee's to copy. */
	void (*found)(void *ctx, const struct sop_finding *f);
	void *ctx;
};

/* SOP_ENOTVOLUME, SOP_EVERSION, SOP_EFOREIGN: no volume can be told. */
int sop_label_check(struct sop_label_check **out, const char *const *paths, size_t n,
	const struct sop_label_check_opts *o, struct sop_err *e);
void sop_label_check_free(struct sop_label_check *c); /* NULL is fine */
const struct sop_label *sop_label_check_newest(const struct sop_label_check *c);
/* The folders that are members; as long as c lives. */
size_t sop_label_check_paths(
	const struct sop_label_check *c, const char **paths /* SOP_MEMBERS_MAX */);
/* The last known path of a member that is not there, or NULL. */
const char *sop_label_check_missing(const struct sop_label_check *c);
/* The claim in the lock files, "" when there is none. It may be left from a crash. */
const char *sop_label_check_claim(const struct sop_label_check *c);
/* SOP_EINUSE, and by whom, when somebody holds a lock of it now. */
int sop_label_check_free_now(const struct sop_label_check *c, struct sop_err *e);
/* Give the folders that were told to be members a label again. It is as old as can be, so that
 * nothing else in the folder is believed before it has been healed. */
int sop_label_check_repair(struct sop_label_check *c, struct sop_err *e);

#endif
