/* B-trees over handles, in memory as cached, versioned nodes.
 *
 * All trees of a volume share one node cache. A node has a handle that never changes while it
 * lives; the cache holds its newest version and, while a pinned snapshot (core/pins.h) can still
 * see them, older ones. A reader works at an LSN: it meets, for each handle, the newest version not
 * after that LSN. The writer changes a version in place when nobody can see it (no pin does, and it
 * is newer than what is published, which could be pinned at any moment), else clones it first: so
 * readers never wait for a writer's I/O, and a checkpoint never stops writers. For that to hold,
 * what is published is always the LSN of a write that has ended, with none after it.
 *
 * Locks: one rwlock inside. Readers hold it shared while they touch nodes in memory, and drop it to
 * load one; the writer holds it exclusively between write_begin and write_end, so a transaction's
 * changes appear at once. There is one writer at a time: the caller holds the commit lock.
 *
 * Memory: clean nodes are evicted (second chance) to stay under cache_bytes; dirty ones leave by
 * checkpoint. Roots keep their handle: a root that splits moves its content to two new nodes. A
 * leaf that becomes empty is removed; a tree that becomes empty has root 0 again.
 *
 * Splits: at the middle, or at the end that a run of ascending or descending inserts goes to (such
 * loads fill pages). Leaf load balancing, where a tree has it: before a leaf splits, it gives of
 * its entries to a neighbour under the same parent that is in memory and has room (an eighth), so
 * that both are as full; and a node joins a neighbour at a half, not at a quarter. Bound:
 * node_bytes packed (0: 16 KiB), and slot_length entries when it is not 0. */
#ifndef SOP_BTREE_H
#define SOP_BTREE_H

#include "core/blob.h"
#include "core/node.h"
#include "core/pins.h"
#include "core/range.h"

struct sop_nodes;

/* Where nodes come from and handles are given out. */
struct sop_nodes_ops {
	/* The newest checkpointed blob of a handle: after sop_nodes_written the one written. */
	int (*locate)(void *ctx, uint64_t handle, struct sop_blobref *ref, struct sop_err *e);
	/* Its bytes, verified; *buf malloc'ed, ref->len long. */
	int (*load)(void *ctx, const struct sop_blobref *ref, void **buf, struct sop_err *e);
	int (*handle_alloc)(void *ctx, uint64_t *handle, struct sop_err *e);
	/* Nobody can meet the handle's node any more, at any LSN. Called under the node lock. */
	void (*handle_release)(void *ctx, uint64_t handle);
};

struct sop_nodes_opts {
	size_t cache_bytes;
	const struct sop_nodes_ops *ops;
	void *ctx;
	struct sop_pins *pins;
};

int sop_nodes_new(struct sop_nodes **out, const struct sop_nodes_opts *o, struct sop_err *e);
void sop_nodes_free(struct sop_nodes *n);

struct sop_nodes_stat {
	size_t memory_bytes;
	size_t dirty_bytes;	  /* what a checkpoint would make clean */
	size_t old_version_bytes; /* kept for pins */
	uint64_t nodes, hits, misses, evictions;
};
void sop_nodes_stat(struct sop_nodes *n, struct sop_nodes_stat *out);

/* Which nodes go first when memory is short: cold ones at once, hot ones after several rounds. */
enum sop_tree_cache { SOP_TREE_NORMAL, SOP_TREE_HOT, SOP_TREE_COLD };

/* A tree as the caller keeps it (in a store's state). The writer changes root. */
struct sop_tree {
	uint64_t store;
	uint64_t root; /* 0: empty */
	uint32_t node_bytes;
	uint32_t slot_length;
	uint8_t cache; /* enum sop_tree_cache */
	bool balance;  /* leaf load balancing */
};

/* --- reading, any thread, at a snapshot -----------------------------------------------------
 * lsn must be pinned by the caller (sop_pins_snapshot), or be the published one with `lsn` given as
 * SOP_LSN_LATEST: then the newest versions are read, each call by itself (a scan: each leaf by
 * itself). The callbacks run under the shared lock: short, no I/O, no lock of rank NODES or lower.
 *
 * A root that has no version at lsn reads as an empty tree. With SOP_LSN_LATEST the caller must
 * know the root to be the tree's still, by the lock that guards t, or by a pin older than the look
 * at t: a root that went may come back as another tree's node (SOP_ECORRUPT).
 *
 * The writer's own thread may read between write_begin and write_end: it sees its changes. */
#define SOP_LSN_LATEST UINT64_MAX

typedef int (*sop_entry_fn)(void *arg, const void *key, size_t klen, const void *val, size_t vlen);

/* Calls fn for the entry with this key; returns what fn returns; -ENOENT when there is none. */
int sop_tree_find(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn, const void *key,
	size_t klen, sop_entry_fn fn, void *arg, struct sop_err *e);

/* Calls fn for each entry of the range, in order, each once, until fn returns non-zero (returned),
 * or the end (0). Loads nodes between calls as needed, goes on by key: entries put or deleted
 * meanwhile (at the latest LSN) are met or not, all others exactly once. */
int sop_tree_scan(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	const struct sop_range *range, sop_entry_fn fn, void *arg, struct sop_err *e);

/* The key of the entry behind the first (descending: the last) `skip` ones: 1, and *klen bytes in
 * key, of SOP_KEY_MAX. 0: there are not so many. Looks at each leaf on the way, not at each entry.
 */
int sop_tree_skip(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn, uint64_t skip,
	bool descending, uint8_t *key, size_t *klen, struct sop_err *e);

/* --- writing, the one writer ----------------------------------------------------------------
 * For each key, in order: prefault before write_begin (loads and keeps in memory what put or del
 * will touch; may do I/O), then put/del inside begin..end, where nothing is read from disk unless
 * prefault was left out. lsn: of the transaction being applied, not lower than any before. */
int sop_tree_prefault(struct sop_nodes *n, const struct sop_tree *t, const void *key, size_t klen,
	bool del, struct sop_err *e);
void sop_nodes_write_begin(struct sop_nodes *n, uint64_t lsn);
void sop_nodes_write_end(struct sop_nodes *n); /* also lets prefaulted nodes go */

/* *was: the key was there before. -EINVAL: larger than SOP_KEY_MAX, SOP_VALUE_MAX. On any other
 * error (-ENOMEM, I/O of an unprefaulted node) the tree is as before the call. */
int sop_tree_put(struct sop_nodes *n, struct sop_tree *t, const void *key, size_t klen,
	const void *val, size_t vlen, bool *was, struct sop_err *e);
int sop_tree_del(struct sop_nodes *n, struct sop_tree *t, const void *key, size_t klen, bool *was,
	struct sop_err *e);

/* Let go of a node that cannot be read and of all below it: what it held is lost. key: the lowest
 * that only it leads to (empty: none is lower). -ENOENT: the key does not lead to it. Its handle,
 * and those below, are not given out again. For fsck. */
int sop_tree_prune(struct sop_nodes *n, struct sop_tree *t, uint64_t handle, const void *key,
	size_t klen, struct sop_err *e);

/* --- checkpoint -----------------------------------------------------------------------------
 * freeze: under the commit lock, with a pin at lsn held by the caller until done. The list holds
 * every node changed since the last checkpoint, as of lsn, and every handle removed. */
struct sop_frozen {
	uint64_t handle;
	uint64_t store;
	const struct sop_page *page; /* NULL: the node was removed */
	uint64_t node_lsn;
	bool root;
	struct sop_blobref from; /* the blob it had; segment 0: none */
	struct sop_blobref to;	 /* filled by the caller */
};
int sop_nodes_freeze(struct sop_nodes *n, uint64_t lsn, struct sop_frozen **list, size_t *count,
	struct sop_err *e);
/* The checkpoint is published and locate() knows of it: these versions are clean and lie at `to`.
 * Removed handles are passed to ops->handle_release, now or as soon as no pin sees them. thaw
 * (instead): it failed, all are dirty again. Both free the list. */
void sop_nodes_written(struct sop_nodes *n, struct sop_frozen *list, size_t count);
void sop_nodes_thaw(struct sop_nodes *n, struct sop_frozen *list, size_t count);
/* What a checkpoint would have to write now, in order of handles; free() the list. Nobody changes
 * anything meanwhile, no checkpoint is under way. */
int sop_nodes_changed(
	struct sop_nodes *n, struct sop_frozen **list, size_t *count, struct sop_err *e);

/* Walk a whole tree and check order, bounds, levels, each node before what is in it. For tests,
 * fsck. Callbacks hold no lock; any may be NULL; a result that is not 0 ends the walk and is
 * returned. */
struct sop_tree_visitor {
	int (*node)(void *arg, uint64_t handle); /* is as it should be */
	sop_entry_fn entry;			 /* of a leaf */
	/* A node that cannot be used, and the keys that only it leads to; the walk goes on without.
	 * NULL: the first one ends the walk. */
	int (*bad)(void *arg, uint64_t handle, const struct sop_range *keys, int rc,
		const struct sop_err *why);
};
int sop_tree_walk(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	const struct sop_tree_visitor *visit, void *arg, struct sop_err *e);
int sop_tree_check(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	int (*fn)(void *arg, uint64_t handle), void *arg, struct sop_err *e);

#endif
