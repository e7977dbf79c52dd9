/* The registry: handle -> where that node's newest checkpointed blob lies, in hash-mod files of 4
 * KiB blocks with checksums, on every registry replica. A block has two places in its file and is
 * written to them in turn, so that a crash while it is written cannot take its other slots
 * (registry_block.h).
 *
 * On disk it changes only by sop_registry_apply(), with the flips of a published checkpoint;
 * repeating that is harmless. Handles are given out in memory; freed ones wait until the caller
 * says that no reader can meet them, then form a chain through their slots (head in the
 * checkpoint), so that neither mount time nor memory grows with the number of free handles.
 *
 * Threads: lookup from any; alloc, free, apply from the holder of the commit lock or the
 * checkpointer. */
#ifndef SOP_REGISTRY_H
#define SOP_REGISTRY_H

#include "core/blob.h"

struct sop_registry;

struct sop_flip {
	uint64_t handle;
	struct sop_blobref to;	 /* segment 0: the handle is freed; off: the next in the chain */
	struct sop_blobref from; /* segment 0: none */
};

int sop_registry_new(struct sop_registry **out, struct sop_members *mem, struct sop_iopool *io,
	uint32_t hashmod, uint64_t next_handle, uint64_t free_handle, struct sop_err *e);
void sop_registry_free(struct sop_registry *r);

/* For mounts that must not change the files: read-only ones, and those that share the volume. Flips
 * of the checkpoint that may not have been applied: look-ups see them from now on, and repair
 * nothing. Before other threads use r; n may be 0. */
int sop_registry_overlay(
	struct sop_registry *r, const struct sop_flip *flips, size_t n, struct sop_err *e);
/* Instead of apply, in a volume that others have mounted too: look-ups see these from now on, and
 * the files stay as they are. lsn: of the checkpoint that wrote them. One at a time. -ENOMEM: as
 * before. */
int sop_registry_overlay_add(struct sop_registry *r, const struct sop_flip *flips, size_t n,
	uint64_t lsn, struct sop_err *e);
/* Is the handle in the overlay? *ref: where to; *lsn: of the checkpoint that wrote it, 0 for one of
 * sop_registry_overlay(). */
bool sop_registry_overlaid(
	struct sop_registry *r, uint64_t handle, struct sop_blobref *ref, uint64_t *lsn);
/* All of the overlay, each with `from` as `to`; *flips malloc'ed. */
int sop_registry_overlay_list(
	struct sop_registry *r, struct sop_flip **flips, size_t *n, struct sop_err *e);

/* The block is read from the first current replica where it verifies; a bad copy met on the way is
 * counted and rewritten. -ENOENT: the slot is free or was never written. SOP_ELOST: bad on all
 * replicas. A small cache of blocks is kept. */
int sop_registry_lookup(
	struct sop_registry *r, uint64_t handle, struct sop_blobref *ref, struct sop_err *e);

/* A handle never in use by anybody now. Takes from the chain first. */
int sop_registry_alloc(struct sop_registry *r, uint64_t *handle, struct sop_err *e);
/* The handle's node is gone; it joins the chain with the next sop_registry_chain(). */
void sop_registry_release(struct sop_registry *r, uint64_t handle);

/* For a checkpoint: turn all released handles into flips (to.segment 0, chained; appended to
 * *flips, grown with realloc) and give the values for its header. Alloc'ed-and-released-again
 * handles that were never written are covered too. */
int sop_registry_chain(struct sop_registry *r, struct sop_flip **flips, size_t *n,
	uint64_t *next_handle, uint64_t *free_handle, struct sop_err *e);

/* Room for what an apply of these flips will write (only the handles count), on every current
 * replica: before the checkpoint that has them is published, since a replica that turns out to be
 * full after that is lost as one. -ENOSPC: a replica is full, and nothing has changed. needed: the
 * checkpoint cannot wait: a full one is set aside as long as another has room. */
int sop_registry_reserve(struct sop_registry *r, const struct sop_flip *flips, size_t n,
	bool needed, struct sop_err *e);

/* Write flips to all current replicas and fsync (files made as needed, with their directory). A
 * replica that fails is set aside; -EIO when none is left. Reads block by block, changes, writes
 * with checksum; blocks that do not verify on one replica are taken from another; a block that was
 * never written starts empty. One at a time.
 *
 * The first call after sop_registry_new must be that of mount, with all flips of the checkpoint
 * loaded, clean or not: it repairs what a crash in the apply before may have left half done. */
int sop_registry_apply(struct sop_registry *r, const struct sop_flip *flips, size_t n, uint64_t lsn,
	struct sop_err *e);

/* Write anew, from another replica, every block that is not as it should be, and sync. For fsck. */
int sop_registry_repair_all(struct sop_registry *r, struct sop_err *e);
/* While a replica is copied: which files applies write. touched: those since the last call,
 * malloc'ed. */
void sop_registry_track(struct sop_registry *r, bool on);
int sop_registry_touched(struct sop_registry *r, uint32_t **file, size_t *n);
/* What is open of member i's replica is another file by now. */
void sop_registry_forget(struct sop_registry *r, unsigned member);
/* Scrub: see that a block is whole on all current replicas (the copies that stay bad, 1 when it is
 * whole nowhere); the file after the last one in use. */
unsigned sop_registry_scrub(
	struct sop_registry *r, uint32_t file, uint32_t block, unsigned *mended);
uint32_t sop_registry_files(struct sop_registry *r);
uint64_t sop_registry_bytes(struct sop_registry *r); /* of one replica, holes not counted; about */

/* Pure codec of one block, for tests and fsck: raw is SOP_REGISTRY_BLOCK bytes. All zeros is an
 * empty block. SOP_ECORRUPT: magic, checksum, uuid, file or block number is not as expected. */
int sop_registry_block_check(const void *raw, const struct sop_uuid *volume, uint32_t file,
	uint32_t block, struct sop_err *e);

#endif
