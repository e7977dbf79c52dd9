/* The node cache: versions of nodes in memory, shared by node_cache.c (keeps, loads, evicts,
 * freezes), btree.c (reads trees) and btree_write.c (changes them). Private to these three; the
 * public face is btree.h.
 *
 * A node is what has a handle; its versions form a chain, newest first. A version is seen by
 * readers at LSNs from its own up to (not including) that of the next newer one. Each version is in
 * one state:
 *
 *   clean      its page lies at ref; the page may be evicted (on the clock list) and loaded again
 *   dirty      the newest version, changed since the last checkpoint (on the dirty list)
 *   frozen     dirty, and in the list of a checkpoint under way: neither changed nor dropped
 *   superseded has a newer one; dropped as soon as no pin can see it and no checkpoint uses it
 *   unknown    the only version of a node that is being loaded for the first time: lsn and ref come
 *              with it
 *
 * A removed node ends in a tombstone: a version without a page. Its handle is given back when the
 * tombstone is all that is left of the node in memory and on disk; so a handle never has two lives
 * that any reader or checkpoint could confuse. */
#ifndef SOP_NODE_CACHE_H
#define SOP_NODE_CACHE_H

#include <stdatomic.h>

#include "core/btree.h"

#define SOP_DEPTH_MAX 40

struct link {
	struct link *prev, *next;
};

struct node;

struct version {
	struct link link; /* on the clock or dirty list, or on none */
	struct version *older;
	struct node *node;
	struct sop_page *page;	/* NULL: not in memory, or a tombstone */
	uint64_t lsn;		/* of the last change in it */
	struct sop_blobref ref; /* where it lies, when it is clean */
	_Atomic uint64_t
		proven; /* the place in which its keys have been found to belong; 0: none */
	_Atomic uint8_t touched; /* chances left; set under the shared lock */
	bool dirty, frozen, superseded, tombstone, unknown;
	uint8_t on; /* enum on: which list it is on */
};

struct node {
	uint64_t handle;
	uint64_t store; /* 0 while unknown */
	struct node *hash_next;
	struct version *newest;
	struct link olds;	 /* on the list of nodes that have something to drop one day */
	struct sop_blobref blob; /* of the last checkpoint; segment 0: none */
	_Atomic uint64_t kept;	 /* prefaulted for the write with this number: not evicted */
	_Atomic uint32_t users;	 /* readers that loaded it and are on their way: not evicted */
	uint64_t doomed_by; /* the write with this number will delete so many of its entries, */
	uint32_t doomed;    /* as far as prefault knows; both are the writer's thread's */
	bool loading;	    /* a reader is reading it from disk */
	bool root;
};

/* One level of a split that is being prepared, see btree_write.c. */
struct split {
	struct node *node, *right, *left; /* left: of a root that moves down */
	struct version *version;
	struct sop_page *top; /* the new page of a root */
	const void *key, *val;
	size_t klen, vlen, slen;
	unsigned slot, from;
	bool exact, tail;
	struct le64 child;
	uint8_t sep[SOP_KEY_MAX];
};

struct sop_nodes {
	pthread_rwlock_t lock; /* rank NODES; everything below is under it unless said */
	const struct sop_nodes_ops *ops;
	void *ctx;
	struct sop_pins *pins;
	size_t cache_bytes;

	struct node **bucket;
	size_t buckets, count; /* buckets: a power of two */
	struct link clock, dirty, olds;
	size_t clock_count, dirty_count, olds_count, olds_new;

	size_t memory_bytes, dirty_bytes, old_bytes;
	uint64_t evictions;
	_Atomic uint64_t hits, misses;

	uint64_t lsn;		  /* the writer's */
	_Atomic uint64_t writing; /* number of the write that is prepared or under way */
	bool freezing;
	const struct sop_nodes *outer; /* what the writer's thread was inside of before */

	struct sop_lock load_lock; /* LEAF: loads_done */
	pthread_cond_t load_cond;
	uint64_t loads_done;

	/* The writer's scratch memory. */
	struct split split[SOP_DEPTH_MAX + 1];
};

/* True on the thread that is between write_begin and write_end of this cache: it holds the lock. */
bool sop_nodes_inside(const struct sop_nodes *n);

/* Does the page belong where it was met? level: -1 for a root, else the one it must have.
 * SOP_ECORRUPT. */
int sop_node_place(
	const struct sop_page *p, const struct sop_tree *t, int level, struct sop_err *e);
int sop_node_corrupt(struct sop_err *e, uint64_t handle, const char *what);

/* The separators around a node; NULL: none. */
struct bounds {
	const void *low, *high;
	size_t low_len, high_len;
	uint64_t place; /* parent and slot; 0: a root */
};

/* Those of the child at slot, in p, which lies within b. */
void sop_node_bounds(struct bounds *b, const struct sop_page *p, unsigned slot);
/* Are the keys of a page within its bounds? Looked at once for each place it is met in: changes
 * keep it so. Were they not, a key could be there and not be found. SOP_ECORRUPT. */
int sop_node_prove(struct version *v, const struct bounds *b, struct sop_err *e);

/* ---- reading ------------------------------------------------------------------------------- */

/* A reader on its way through a tree. Nodes it had to load are held, so that a cache too small for
 * the path cannot make it load the same nodes for ever. */
struct reader {
	uint8_t chances; /* what a page that is met gets: more where it is to stay */
	struct sop_nodes *n;
	uint64_t lsn;
	bool inside; /* runs on the writer's thread, within its lock */
	bool keep;   /* prefault: keep what is met until write_end */
	unsigned held_count;
	uint64_t missing; /* the node to load */
	uint64_t failed;  /* the node whose load failed last */
	uint64_t met;	  /* nodes found in memory */
	struct node *held[SOP_DEPTH_MAX + 8];
};

void sop_reader_init(struct reader *r, struct sop_nodes *n, uint64_t lsn);
void sop_reader_release(struct reader *r); /* lets go of what is held; the lock is not held */
void sop_reader_lock(struct reader *r);
void sop_reader_unlock(struct reader *r);

/* Under the lock: the version of a handle as of r->lsn, with its page. SOP_SEE_LOAD: it must be
 * loaded first (r->missing is set); SOP_SEE_NOTHING: there is no such node at that LSN. */
enum sop_see { SOP_SEE_PAGE, SOP_SEE_NOTHING, SOP_SEE_LOAD };
enum sop_see sop_reader_page(struct reader *r, uint64_t handle, struct version **version);

/* Not under the lock (unless inside): load r->missing. 0: look again from the root, for anything
 * may have changed. A load that fails is tried twice, because the node may have been removed
 * meanwhile. */
int sop_reader_load(struct reader *r, struct sop_err *e);

/* ---- writing: under the exclusive lock ----------------------------------------------------- */

struct node *sop_nodes_find(struct sop_nodes *n, uint64_t handle);
/* The node with its newest page in memory, loaded here if it must be. */
int sop_nodes_get(struct sop_nodes *n, uint64_t handle, struct node **out, struct sop_err *e);
/* The version of node that may be changed at n->lsn, with its page: the newest, or a clone of it.
 */
int sop_nodes_writable(
	struct sop_nodes *n, struct node *node, struct version **out, struct sop_err *e);
/* Around any change of a version: it leaves the sums and its list, and goes to where it belongs
 * then. */
void sop_nodes_uncount(struct sop_nodes *n, struct version *v);
void sop_nodes_recount(struct sop_nodes *n, struct version *v);

/* A new node with a new handle and an empty page, not in the cache yet: attach puts it there (and
 * may return another struct for it), discard gives its handle back. */
int sop_nodes_prepare(struct sop_nodes *n, uint64_t store, unsigned level, size_t room,
	struct node **out, struct sop_err *e);
void sop_nodes_discard(struct sop_nodes *n, struct node *node);
struct node *sop_nodes_attach(struct sop_nodes *n, struct node *node);

/* Removing in two steps: the first may fail, the second not. *spare may stay NULL. */
int sop_nodes_remove_prepare(
	struct sop_nodes *n, const struct node *node, struct version **spare, struct sop_err *e);
void sop_nodes_remove(struct sop_nodes *n, struct node *node, struct version *spare);

#endif
