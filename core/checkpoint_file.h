/* The checkpoint file: where the image of the trees stands, and the registry flips that make it so.
 * Codec, and publication on every registry replica. */
#ifndef SOP_CHECKPOINT_FILE_H
#define SOP_CHECKPOINT_FILE_H

#include "core/registry.h"

struct sop_pending_free {
	uint64_t lsn;
	struct sop_blobref ref;
};

struct sop_checkpoint {
	uint64_t epoch, lsn, journal;
	uint32_t chain;
	bool clean;
	uint64_t master_root, master_count;
	uint64_t next_ino, next_handle, free_handle, time_ns, items;
	uint64_t slot;		/* of a shared volume: the first that is not in it; else 0 */
	uint64_t base;		/* and of its BASE */
	struct sop_flip *flips; /* all three arrays: malloc'ed */
	size_t n_flips;
	struct sop_blobref *uncommitted;
	size_t n_uncommitted;
	struct sop_pending_free *pending;
	size_t n_pending;
};

void sop_checkpoint_release(struct sop_checkpoint *c); /* frees the arrays */

/* *raw malloc'ed. decode: SOP_ECORRUPT, SOP_EVERSION, SOP_EFOREIGN (another volume's). */
int sop_checkpoint_encode(void **raw, size_t *len, const struct sop_checkpoint *c,
	const struct sop_uuid *volume, struct sop_err *e);
int sop_checkpoint_decode(struct sop_checkpoint *out, const void *raw, size_t len,
	const struct sop_uuid *volume, struct sop_err *e);

/* On all current replicas, in parallel where it pays: the content first, and only when it is there
 * the names. 0 when at least one has it (the others have been set aside). -ENOSPC: a replica is
 * full, and all have the old one; with `needed` that is so only when all are full, and a full one
 * among others is set aside. *in_doubt (may be NULL): an error, but a replica may have it all the
 * same. */
int sop_checkpoint_store(struct sop_members *mem, const struct sop_checkpoint *c, bool needed,
	bool *in_doubt, struct sop_err *e);
/* The newest (highest epoch, then LSN) valid one among current replicas. SOP_ELOST: none is whole.
 */
int sop_checkpoint_load(struct sop_checkpoint *out, struct sop_members *mem, struct sop_err *e);
/* The one on one member, whatever the others have. */
int sop_checkpoint_load_one(
	struct sop_checkpoint *out, struct sop_members *mem, unsigned member, struct sop_err *e);
/* An image of a shared volume: the same in a file of its own, on a majority of all replicas, none
 * of which is set aside for it. On an error it may be on some. */
int sop_checkpoint_store_image(struct sop_members *mem, const char *path,
	const struct sop_checkpoint *c, struct sop_err *e);
/* From any of them. */
int sop_checkpoint_load_image(
	struct sop_checkpoint *out, struct sop_members *mem, const char *path, struct sop_err *e);
/* Remove the temporary files that crashes have left on current replicas. By who is alone; what
 * cannot be removed stays, and is no harm. */
void sop_checkpoint_tidy(struct sop_members *mem);
bool sop_checkpoint_newer(const struct sop_checkpoint *a, const struct sop_checkpoint *b);

#endif
