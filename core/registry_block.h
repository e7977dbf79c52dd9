/* Blocks of the registry on all its replicas. Private to registry.c and registry_block.c.
 *
 * A block is stored twice in its file, side by side, and written to the two places in turn: a crash
 * in the middle of a write tears the place that held the older version, never the newest one. Each
 * write raises the block's sequence number by one; odd ones lie in the second place, even ones in
 * the first. So all replicas have the same version in the same place, and a place that does not
 * verify can be told from one that was never written:
 *
 *   empty     both places are zeros: no write ever reached this block
 *   whole     two versions in a row, or version 1 and zeros: the newer one counts
 *   doubtful  one place does not verify, or the two do not follow each other: what verifies may be
 * old bad       no place verifies, and not both are zeros
 *
 * Of those whole the newest counts: a replica that has lost a write, or whose file has been put
 * back, is whole too. When it is whole on none it is lost, except right after mount: there a crash
 * in the last apply may have left doubt on every replica, in exactly the blocks that the
 * checkpoint's flips, applied again, are about to write; for those the newest version that verifies
 * is the right one to start from.
 *
 * Threads: reads from any; writes and repairs one at a time, which the caller sees to. */
#ifndef SOP_REGISTRY_BLOCK_H
#define SOP_REGISTRY_BLOCK_H

#include "core/registry.h"

#define SOP_REGISTRY_PAIR (2 * SOP_REGISTRY_BLOCK)

struct sop_regplace {
	uint32_t file;
	uint32_t block;
};

struct sop_regblocks;

int sop_regblocks_new(struct sop_regblocks **out, struct sop_members *mem, struct sop_iopool *io,
	uint32_t hashmod, struct sop_err *e);
void sop_regblocks_free(struct sop_regblocks *b);

enum sop_regstate { SOP_REG_EMPTY, SOP_REG_WHOLE, SOP_REG_DOUBTFUL, SOP_REG_BAD };

/* What one replica has of a block, and which version; for fsck. */
int sop_regblocks_examine(struct sop_regblocks *b, struct sop_regplace at, unsigned member,
	enum sop_regstate *state, uint32_t *seq, struct sop_err *e);

/* Of what replicas have of a block, SOP_REGISTRY_PAIR bytes each, the one to make another replica
 * from: the newest that is whole, else (*whole false) the newest that may be. -1: it is empty on
 * all. Pure. */
int sop_regpair_pick(const struct sop_uuid *volume, struct sop_regplace at,
	const uint8_t *const *pair, unsigned n, bool *whole);

/* The newest version of a block, SOP_REGISTRY_BLOCK bytes; all zeros when it was never written.
 * *damaged: some replica is not as it should be. SOP_ELOST when it is whole nowhere (lenient: when
 * no version verifies). */
int sop_regblocks_read(struct sop_regblocks *b, struct sop_regplace at, bool lenient, void *raw,
	bool *damaged, struct sop_err *e);
/* The same for many, at once where the disks must be asked, to be written anew: replicas on which a
 * block is not as it should be are repaired (lenient: left so by a cut apply). raw[i] may be NULL:
 * not wanted. *wrote: as in sop_regblocks_repair(). */
int sop_regblocks_read_many(struct sop_regblocks *b, const struct sop_regplace *at, size_t n,
	bool lenient, void *const *raw, bool *wrote, struct sop_err *e);
/* The files of a member have been replaced: none that is open is used any more. */
void sop_regblocks_forget(struct sop_regblocks *b, unsigned member);
/* Why a block is repaired. MET: it is in somebody's way, a replica that is slow is passed over.
 * CUT: the same, and it may be what a cut apply has left, which is no sign of a bad disk. SCRUB:
 * all are waited for. */
enum sop_regrepair { SOP_REPAIR_MET, SOP_REPAIR_CUT, SOP_REPAIR_SCRUB };
/* Write the newest block that is whole on a replica over those on which it is not. What cannot be
 * repaired stays as it was: the number of such copies, 1 when it is whole nowhere. *wrote is set
 * when something was written: it has to be synced before the next version is, which goes into the
 * other place of the pair, for a power cut must not tear both. mended: more of them, or NULL. */
unsigned sop_regblocks_repair(struct sop_regblocks *b, struct sop_regplace at,
	enum sop_regrepair why, bool *wrote, unsigned *mended);

/* Empty a block on all replicas, for fsck: a published checkpoint has flips for all that it held.
 */
int sop_regblocks_reset(struct sop_regblocks *b, struct sop_regplace at, struct sop_err *e);

/* Room on every current replica for the next versions of blocks, taken before anything depends on
 * it. A replica that fails is set aside. -ENOSPC: one is full; with `needed` that is so only when
 * all are, and a full one among others that are not is set aside: what cannot wait goes on without
 * it. */
int sop_regblocks_reserve(struct sop_regblocks *b, const struct sop_regplace *at, size_t n,
	bool needed, struct sop_err *e);

/* Writing, to the replicas that were current at the start and have not failed since; -EIO when none
 * is left. begin: opens or makes the files and sees to it that what they hold is on the media, for
 * it is what a crash will fall back to. write: raw[i] is the whole next version, lsn and slots
 * filled in, with the sequence number of the version before; memory of `batch`, which runs here.
 * begin and end: everything is on the media; sync: the same in between, but for names. */
struct sop_regwrite {
	unsigned member[SOP_MEMBERS_MAX];
	unsigned n;
	const uint32_t *file; /* in rising order */
	size_t files;
};
int sop_regblocks_begin(struct sop_regblocks *b, struct sop_regwrite *w, const uint32_t *file,
	size_t files, struct sop_err *e);
int sop_regblocks_write(struct sop_regblocks *b, struct sop_regwrite *w,
	const struct sop_regplace *at, size_t n, void *const *raw, struct sop_batch *batch,
	struct sop_err *e);
int sop_regblocks_sync(struct sop_regblocks *b, struct sop_regwrite *w, struct sop_err *e);
int sop_regblocks_end(struct sop_regblocks *b, struct sop_regwrite *w, struct sop_err *e);

#endif
