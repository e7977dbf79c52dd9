/* The inside of the engine's upper tier: what store, txn, commit, apply, value, space, checkpoint
 * and recovery share. Private to core; the public face is sop.h.
 *
 * A commit's way: txn.c gathers a write set and a read set; commit.c (the leader of a group,
 * holding the commit lock) validates it against the newest state, has resolve.c turn it into
 * operations and small blobs, writes blobs and journal records in one batch, and applies the
 * operations by apply.c, the same code that recovery uses. checkpoint.c brings trees and registry
 * up to the journal; space.c accounts for blobs and gives freed ones back when nobody can see them
 * any more. */
#ifndef SOP_ENGINE_H
#define SOP_ENGINE_H

#include "core/blob.h"
#include "core/btree.h"
#include "core/checkpoint_file.h"
#include "core/events_own.h"
#include "core/imap.h"
#include "core/item.h"
#include "core/journal.h"
#include "core/keying.h"
#include "core/registry.h"
#include "core/sop.h"

/* ---- states of stores (stores.c) ----------------------------------------------------------- */

struct sop_state_version {
	uint64_t lsn; /* of the change that made it */
	uint64_t root, count, subdirs;
	struct timespec mtime, ctime;
	bool gone;
};

/* Changed by the holder of the commit lock alone, under the STORES lock. */
struct sop_state {
	uint64_t id;
	struct sop_state_version now;
	uint32_t node_bytes, slot_length;
	void *options; /* struct sop_disk_store_options and strings */
	uint32_t options_len;
	struct sop_keying *keying; /* NULL: bytes, unique */
	uint8_t profile;	   /* of the label's, for its nodes and values */
	uint8_t value_class, cache_class;
	bool balance;
	bool dirty;
	bool wanted;		       /* loaded for the writer: stays until the next checkpoint */
	struct sop_state_older *older; /* versions a pin may still see, newest first */
	struct sop_state *hash_next;
	struct sop_state *dirty_next;
};

/* What a reader gets: a copy. */
struct sop_state_view {
	struct sop_tree tree;
	struct sop_state_version at;
	uint8_t profile, value_class;
	bool typed;	/* it has a keying */
	uint32_t shape; /* of it, or 0 */
};

struct sop_stores;
struct sop_stores *sop_stores_new(struct sop_volume *v);
void sop_stores_free(struct sop_stores *s);
/* -ENOENT: no such store at that LSN (SOP_LSN_LATEST: now). May read the master store. */
int sop_stores_view(struct sop_stores *s, uint64_t id, uint64_t lsn, struct sop_state_view *out,
	struct sop_err *e);
/* The state itself, loaded: for the writer. Stays in memory until the next checkpoint. */
int sop_stores_load(struct sop_stores *s, uint64_t id, struct sop_state **out, struct sop_err *e);
/* For the writer, between sop_stores_begin and _end: about to change it at lsn. */
int sop_stores_change(struct sop_stores *s, struct sop_state *st, uint64_t lsn, struct sop_err *e);
int sop_stores_create(struct sop_stores *s, uint64_t id, const void *options, uint32_t len,
	uint64_t lsn, struct timespec time, struct sop_err *e);
/* Between begin and end: one that is in memory, or NULL. */
struct sop_state *sop_stores_get(struct sop_stores *s, uint64_t id);
void sop_stores_begin(struct sop_stores *s); /* takes the STORES lock */
void sop_stores_end(struct sop_stores *s);
struct sop_tree sop_state_tree(const struct sop_state *st);
/* Write the dirty states into the master store (checkpoint; commit lock held). */
int sop_stores_flush(struct sop_stores *s, uint64_t lsn, struct sop_err *e);
/* What fsck has counted. Commit lock held; a checkpoint makes it last. */
int sop_stores_correct(
	struct sop_stores *s, uint64_t id, uint64_t count, uint64_t subdirs, struct sop_err *e);
size_t sop_stores_count(struct sop_stores *s); /* in memory */
/* What a checkpoint would make clean. Any thread. */
size_t sop_stores_dirty_bytes(const struct sop_stores *s);
/* Forget clean states over a bound. */
void sop_stores_trim(struct sop_stores *s);
/* Its keys' codec, counted; *out NULL: bytes, unique. */
int sop_stores_keying(
	struct sop_stores *s, uint64_t id, struct sop_keying **out, struct sop_err *e);
/* A copy of its options, malloc'ed, NULL when it has none. */
int sop_stores_options(
	struct sop_stores *s, uint64_t id, void **options, uint32_t *len, struct sop_err *e);
unsigned sop_stores_profile(struct sop_stores *s, uint64_t id); /* 0 when it is not in memory */
/* Between begin and end: other options from now on. */
int sop_stores_set(struct sop_stores *s, struct sop_state *st, const void *options, uint32_t len,
	struct sop_err *e);

/* ---- options of stores (options.c) --------------------------------------------------------- */

struct sop_arena;
/* Bytes as read: SOP_ECORRUPT, SOP_EVERSION. */
int sop_store_options_check(const void *raw, size_t len, struct sop_err *e);
/* o NULL: none, len 0. In the arena. -EINVAL says which is wrong. */
int sop_options_encode(struct sop_arena *a, const struct sop_store_opts *o, const void **raw,
	uint32_t *len, struct sop_err *e);
/* Strings and index point into buf. -ERANGE. */
int sop_options_decode(struct sop_store_opts *o, const void *raw, size_t len, char *buf,
	size_t size, struct sop_err *e);
/* What o asks for beyond the defaults is what the store has; else -EINVAL and which is not. */
int sop_options_match(
	const struct sop_store_opts *has, const struct sop_store_opts *o, struct sop_err *e);

/* ---- erasure code profiles (profile.c) ----------------------------------------------------- */

/* Number of a profile by name; 0, the default, when there is none of the name. */
unsigned sop_profile_of(struct sop_volume *v, const char *name, size_t len);
/* A disk by name ("d1"), path, or UUID or the beginning of it (admin.c). */
int sop_disk_find(struct sop_volume *v, const char *which, unsigned *member, struct sop_err *e);
/* By name. -ENOENT. */
int sop_profile_find(struct sop_volume *v, const char *name, unsigned *profile, struct sop_err *e);

/* ---- space (space.c) ----------------------------------------------------------------------- */

struct sop_mender;
struct sop_shared;
struct sop_space;
struct sop_space *sop_space_new(struct sop_volume *v);
void sop_space_free(struct sop_space *s);

/* Written, and not yet referred to. -ENOMEM. */
int sop_space_reserve(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e);
/* Its session ended without a commit: garbage. */
void sop_space_abandon(struct sop_space *s, const struct sop_blobref *ref);
/* A committed transaction refers to it now. */
int sop_space_alloc(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e);
/* One reference less as of lsn, once no pin of scope can see it and lsn is on the media. */
int sop_space_free_later(struct sop_space *s, uint64_t lsn, uint64_t scope,
	const struct sop_blobref *ref, struct sop_err *e);
/* The same of a node that the checkpoint of LSN born wrote, 0: one before this mount. */
int sop_space_free_node(struct sop_space *s, uint64_t born, uint64_t lsn, uint64_t scope,
	const struct sop_blobref *ref, struct sop_err *e);
/* Do what can be done of it (at most `max` blobs); takes the commit lock for the accounts, not for
 * the holes. The caller holds the checkpoint lock. *left: not all has been looked at. */
int sop_space_reclaim(struct sop_space *s, size_t max, bool *left, struct sop_err *e);
/* -ENOSPC unless `bytes` of data fit and the reserve stays. */
int sop_space_check(struct sop_space *s, unsigned profile, uint64_t bytes, struct sop_err *e);
/* One more reference to a live blob (the SHARED store gets it later). */
int sop_space_ref(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e);
/* sop_segments_prepare and _put, with the places taken noted as uncommitted before they are
 * written. After a failed finish of what prepare gave, sop_space_abandon() each ref. */
int sop_space_prepare(struct sop_append **out, struct sop_space *s, unsigned profile,
	enum sop_stream stream, struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_batch *b, struct sop_err *e);
int sop_space_put(struct sop_space *s, unsigned profile, enum sop_stream stream,
	struct sop_blob_put *puts, size_t n, struct sop_err *e);
/* Kept free for deletes and metadata, of a volume of this size. */
uint64_t sop_space_reserve_bytes(uint64_t total);

/* Checkpoint: segment table into its store; the lists for the checkpoint file (malloc'ed). */
int sop_space_flush(struct sop_space *s, struct sop_checkpoint *c, struct sop_err *e);
/* The checkpoint that flush was for is published: what it left out can go. Checkpoint lock held. */
int sop_space_published(struct sop_space *s, struct sop_err *e);
/* Mount: read the table; take the lists of the checkpoint. Then replay; then settle: garbage of the
 * crash is found and freed, orphaned segment files are removed. */
int sop_space_load(struct sop_space *s, const struct sop_checkpoint *c, struct sop_err *e);
int sop_space_settle(struct sop_space *s, struct sop_err *e);
/* Instead of settle, when others are there: nothing is found, nothing freed. */
void sop_space_leave_unsettled(struct sop_space *s);

/* Is there an account of the segment? */
bool sop_space_knows(struct sop_space *s, uint64_t id);
/* Calls fn for a copy of each segment's account, under no lock. */
struct sop_space_seg {
	uint64_t id, live;
	bool recorded; /* in the segment table, as of the last checkpoint */
};
int sop_space_list(
	struct sop_space *s, int (*fn)(void *arg, const struct sop_space_seg *g), void *arg);

/* Bytes of member i's file system that shards take, about: what is live or pending. */
uint64_t sop_space_on(struct sop_space *s, unsigned member);
struct sop_space_shares {
	uint64_t data, nodes, parity, pinned;
};
void sop_space_shares(struct sop_space *s, struct sop_space_shares *out);

struct sop_space_stat {
	uint64_t live_bytes; /* of all shard files */
	uint64_t pending_bytes, segments, pending;
};
void sop_space_stat(struct sop_space *s, struct sop_space_stat *out);
/* For check: calls fn for each segment with its live bytes of a shard file. */
int sop_space_each(struct sop_space *s,
	int (*fn)(void *arg, uint64_t id, uint64_t live, unsigned k), void *arg);
/* For fsck, commit lock held: references taken since are in the SHARED store afterwards; the
 * account of a segment, the references of a blob, are what was met. A checkpoint makes it last. */
int sop_space_settle_references(struct sop_space *s, struct sop_err *e);
void sop_space_correct_live(struct sop_space *s, uint64_t id, uint64_t live);
int sop_space_correct_references(
	struct sop_space *s, const struct sop_blobref *ref, uint32_t count, struct sop_err *e);
/* Bytes: what is given back of a segment is pages of this size. */
#define SOP_SPACE_PAGE 4096u
/* Nothing is dead in the page that begins there. */
int sop_space_forget_dead(struct sop_space *s, const struct sop_blobref *page, struct sop_err *e);
/* Calls fn for each blob freed but not given back. Commit lock held. */
int sop_space_each_pending(
	struct sop_space *s, int (*fn)(void *arg, const struct sop_blobref *ref), void *arg);

/* ---- write set (wset.c) -------------------------------------------------------------------- */

enum sop_seen { SOP_SEEN_NOTHING, SOP_SEEN_ABSENT, SOP_SEEN_PRESENT };
enum sop_write { SOP_WRITE_NONE, SOP_WRITE_PUT, SOP_WRITE_DEL, SOP_WRITE_PATCH };

/* What a transaction did with one key. */
struct sop_wentry {
	uint64_t store;
	const void *key;
	uint32_t klen;
	uint8_t seen;		 /* enum sop_seen: must still hold at commit */
	uint8_t write;		 /* enum sop_write */
	bool fresh;		 /* PUT of an item that did not exist before */
	bool numbered;		 /* PUT in a store with duplicates: the key ends with a number */
	uint32_t shape;		 /* PUT: of the keying that made the key, or 0 */
	bool keep_value;	 /* PUT, DEL: the value moves elsewhere in this transaction */
	uint64_t version;	 /* seen PRESENT: with this version */
	struct sop_item *item;	 /* PUT: the record; else what was read, if kept */
	struct sop_value *value; /* the open value whose writes go into this item */
	unsigned attr_mask;	 /* PATCH, PUT: set at commit */
	struct sop_attr attr;
	struct sop_xattr_patch *xattr; /* changes to extended attributes, newest first */
	/* commit's own, see resolve.c */
	struct sop_plan *plan;
	const void *unnumbered;	   /* the key before it was numbered; NULL: it has not been */
	struct sop_wentry *next[]; /* skip list */
};

struct sop_xattr_patch {
	struct sop_xattr_patch *next;
	const char *name;
	const void *val; /* NULL: remove */
	uint32_t len;
};

struct sop_arena {
	struct sop_arena_chunk *chunk;
	size_t used;
};
void *sop_arena_alloc(struct sop_arena *a, size_t len); /* 8-aligned; NULL: no memory */
void *sop_arena_copy(struct sop_arena *a, const void *p, size_t len);
void sop_arena_release(struct sop_arena *a);

#define SOP_WSET_LEVELS 18
struct sop_wset {
	struct sop_wentry *head[SOP_WSET_LEVELS];
	unsigned levels;
	uint64_t rng;
	size_t count;
	/* What get gave out last, and the links of the last entries up to it. */
	struct sop_wentry *last;
	struct sop_wentry **path[SOP_WSET_LEVELS];
};
struct sop_wentry *sop_wset_find(struct sop_wset *w, uint64_t store, const void *key, size_t klen);
/* The first entry with (store, key) >= the given one. */
struct sop_wentry *sop_wset_seek(struct sop_wset *w, uint64_t store, const void *key, size_t klen);
/* Found or made; NULL: no memory. */
struct sop_wentry *sop_wset_get(
	struct sop_wset *w, struct sop_arena *a, uint64_t store, const void *key, size_t klen);
static inline struct sop_wentry *sop_wset_first(const struct sop_wset *w)
{
	return w->head[0];
}

/* ---- transaction (txn.c) ------------------------------------------------------------------- */

struct sop_scanned { /* a range that was read, or (counted) the number of items alone */
	struct sop_scanned *next;
	uint64_t store;
	bool counted;
	uint64_t count; /* as committed, without the transaction's own */
	struct sop_range range;
};

struct sop_dropped { /* a store created or removed, or (set) given other options */
	struct sop_dropped *next;
	uint64_t store;
	bool create, set;
	bool shape; /* set: the store must be empty */
	const void *options;
	uint32_t options_len;
	const void *was; /* set: as they were seen */
	uint32_t was_len;
	struct sop_keying *keying; /* of options */
};

struct sop_hook { /* to be called after the commit */
	struct sop_hook *next;
	void (*fn)(void *arg, uint64_t lsn);
	void *arg;
};

struct sop_txn {
	struct sop_volume *v;
	enum sop_txn_mode mode;
	bool latest; /* the shared handle of sop_volume_latest */
	bool prepared;
	bool pinned;
	uint64_t lsn; /* snapshot, or SOP_LSN_LATEST */
	uint64_t deadline_ms;
	uint64_t
		grant; /* not 0: it was written under locks between mounters granted from this on */
	struct sop_arena arena;
	struct sop_wset wset;
	struct sop_scanned *scanned;
	struct sop_dropped *stores;
	struct sop_value *values; /* open in it */
	uint64_t prepared_id;
	struct sop_hook *hooks;
	char *note;		   /* shown while it is prepared; or NULL */
	uint64_t key_store;	   /* whose keying was used last, 0: none */
	struct sop_keying *keying; /* it, counted */
	size_t bytes;		   /* about what its record will take */
};

/* The entry of a key as the transaction sees it: its own write, else the tree's. decode: the item
 * is decoded into *it (pointing into `buf`, SOP_ITEM_BYTES_MAX bytes). -ENOENT. No read is
 * recorded. */
int sop_txn_item(struct sop_txn *t, uint64_t store, const void *key, size_t klen,
	struct sop_item *it, uint8_t *buf, struct sop_err *e);
/* The same through a link: *store and key are those of the entry that holds the inode, key in kbuf.
 */
struct sop_place {
	uint64_t store;
	const void *key;
	size_t klen;
	uint8_t master[SOP_MASTER_KEY];
	bool linked; /* found through a link; its own place is where it was looked for */
};
/* kb: as sop_name_resolve() gave it; an item of the same key with another name is not there. NULL:
 * by the tree's key. */
int sop_txn_inode(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_place *place, struct sop_item *it, uint8_t *buf, struct sop_err *e);
/* A store's keys, counted; *out NULL: bytes, unique. -ENOENT. */
int sop_txn_keying(struct sop_txn *t, uint64_t store, struct sop_keying **out, struct sop_err *e);
void sop_txn_forget_keying(struct sop_txn *t);
/* The store as this transaction makes it, or NULL. */
struct sop_dropped *sop_txn_made(struct sop_txn *t, uint64_t store);
/* Note what was read, so that commit checks it. */
int sop_txn_saw(struct sop_txn *t, uint64_t store, const void *key, size_t klen,
	const struct sop_item *it /* NULL: absent */, struct sop_err *e);
struct sop_wentry *sop_txn_entry(
	struct sop_txn *t, uint64_t store, const void *key, size_t klen, struct sop_err *e);
/* Decoded item copied into the transaction's memory. */
struct sop_item *sop_txn_keep(struct sop_txn *t, const struct sop_item *it);
int sop_txn_writable(struct sop_txn *t, struct sop_err *e);
/* A store's state with the transaction's own changes to its count. */
int sop_txn_state(struct sop_txn *t, uint64_t store, struct sop_state_view *out, struct sop_err *e);
/* sop_scan with the texts that go with keys. The range recorded as read ends where fn ended the
 * scan. */
enum sop_scan_flags {
	SOP_SCAN_FULL = 1,  /* attributes of links too */
	SOP_SCAN_QUIET = 2, /* not recorded as read */
};
typedef int (*sop_txn_scan_fn)(void *arg, const void *key, size_t klen, const char *text,
	size_t text_len, const struct sop_attr *attr);
int sop_txn_scan(struct sop_txn *t, uint64_t store, const struct sop_range *range, unsigned flags,
	sop_txn_scan_fn fn, void *arg, struct sop_err *e);
/* All of a store in order, without the first (descending: the last) `skip` items. */
int sop_txn_scan_from(struct sop_txn *t, uint64_t store, uint64_t skip, bool descending,
	sop_txn_scan_fn fn, void *arg, struct sop_err *e);
/* Note a range that was read. */
int sop_txn_scanned(
	struct sop_txn *t, uint64_t store, const struct sop_range *range, struct sop_err *e);
/* How values of a store are written. 0, 0 for one that is not there. */
void sop_txn_classes(struct sop_txn *t, uint64_t store, uint8_t *profile, uint8_t *value_class);
int sop_lookup_ino(struct sop_txn *t, uint64_t ino, struct sop_attr *out, struct sop_err *e);
/* An entry of a tree, as it is, or decoded, at an LSN. buf: SOP_ITEM_BYTES_MAX bytes. */
int sop_tree_record(struct sop_volume *v, const struct sop_tree *tree, uint64_t lsn,
	const void *key, size_t klen, uint8_t *buf, size_t *len, struct sop_err *e);
int sop_tree_item(struct sop_volume *v, uint64_t store, uint64_t lsn, const void *key, size_t klen,
	struct sop_item *it, uint8_t *buf, struct sop_err *e);
/* Attributes under a mask onto others; a plain item gets file attributes by it. */
void sop_attr_merge(struct sop_attr *a, bool *plain, const struct sop_attr *p, unsigned mask);
void sop_txn_free(struct sop_txn *t); /* ends pins and values; abandons what was not committed */
struct timespec sop_now(struct sop_volume *v);

/* ---- values (value.c, clip.c) -------------------------------------------------------------- */

/* Pins that keep blobs of other items alive, to which a value or a clip refers. */
struct sop_loan {
	uint64_t ino, lsn;
};
struct sop_loans {
	struct sop_loan *loan;
	size_t n, cap;
};
/* Pinned there already. -ENOMEM. */
int sop_loans_add(struct sop_loans *l, struct sop_pins *p, uint64_t ino, uint64_t lsn);
void sop_loans_release(struct sop_loans *l, struct sop_pins *p);

struct sop_value {
	struct sop_txn *t;
	struct sop_value *next;	  /* in t->values */
	struct sop_wentry *entry; /* writing: where its writes will go; NULL: nowhere */
	unsigned flags;
	bool open;		      /* not closed by its user yet */
	bool own;		      /* opened in the latest handle: has a memory of its own */
	bool depends;		      /* what was seen of it decides what is written */
	bool changed;		      /* anything written */
	uint8_t profile, value_class; /* of its store */
	bool fixed;	      /* the size was set: it does not depend on the committed one */
	struct sop_item base; /* as opened */
	uint8_t *base_mem;    /* what base points into */
	uint64_t lsn;	      /* at which extents of a tree are read */
	bool pinned, pinned_tree;
	uint64_t size, opened_size;
	uint64_t written;    /* where the own writes end: the size is no less, whatever it was */
	uint64_t limit;	     /* the committed value counts below this only */
	struct sop_imap map; /* written, by offset */
	struct sop_imap app; /* appended, from 0 at whatever the end will be */
	uint64_t app_len;
	size_t counted;		/* of v->value_bytes */
	struct sop_loans loans; /* of what map has SHARED */
	bool carry; /* truncated so far that what stays is less than what goes: see resolve.c */
	struct sop_lock lock; /* VALUE: the window of extents (readers come in parallel) */
	struct sop_extent *window;
	uint32_t n_window;
	uint64_t window_from, window_to;
};

/* From off on, the run of one kind that it lies in. */
enum sop_run_kind { SOP_RUN_HOLE, SOP_RUN_STORED /* in a committed blob */, SOP_RUN_OWN };
struct sop_value_run {
	enum sop_run_kind kind;
	uint64_t end;
	struct sop_blobref ref; /* STORED, with blob_off: where off is in it */
	uint32_t blob_off;
};
/* off is below the size. */
int sop_value_run(struct sop_value *x, uint64_t off, struct sop_value_run *out, struct sop_err *e);
/* Appended bytes take their place in this view: from now on the session depends on it. */
int sop_value_settle_appends(struct sop_value *x, struct sop_err *e);
/* Write what is large to the disks, outside of any lock, before the transaction queues for commit.
 */
int sop_value_settle(struct sop_value *x, struct sop_err *e);
/* What was appended becomes what was written, from offset `end` on. */
int sop_value_place_appends(struct sop_value *x, uint64_t end, struct sop_err *e);
/* The opposite: len bytes that were placed at `end` are appended ones again. */
int sop_value_lift_appends(struct sop_value *x, uint64_t end, uint64_t len, struct sop_err *e);
void sop_value_drop(struct sop_value *x);   /* free; abandons blobs not committed */
void sop_value_unlink(struct sop_value *x); /* its item has been removed by its own transaction */
void sop_value_entry(struct sop_value *x, struct sop_wentry *w); /* its item moved within it */
/* The whole value of an entry just put. */
int sop_value_whole(
	struct sop_txn *t, struct sop_wentry *w, const void *val, size_t len, struct sop_err *e);

/* ---- names (names.c) ----------------------------------------------------------------------- */

/* -ENOENT: one of the volume's own, which are not there for who uses it. */
int sop_store_check(uint64_t store, struct sop_err *e);
/* The public calls take names as they are shown; a typed store's tree has encoded keys. Replaces
 * the name by the tree's key, in kb, which also has the text that goes with a JSON map (else
 * text_len is 0). making: of an item to be made; -EINVAL when it is no key of the store. Else
 * -ENOENT then. */
int sop_name_resolve(struct sop_txn *t, struct sop_name *name, struct sop_keybuf *kb, bool making,
	struct sop_err *e);
/* The same from a typed key; *keying counted. The number of a duplicate is not put. */
int sop_key_resolve(struct sop_txn *t, uint64_t store, const struct sop_key *key,
	struct sop_keybuf *kb, struct sop_keying **keying, bool making, struct sop_err *e);
/* Is it the item of this name? Of the maps that agree in the index one is there, and the tree's key
 * does not say which. */
bool sop_name_is(const struct sop_item *it, const struct sop_keybuf *kb);
/* The public calls by the tree's key. The transaction is writable where it must be. Where kb may be
 * NULL: see sop_txn_inode(). */
int sop_at_lookup(struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e);
int sop_at_absent(struct sop_txn *t, struct sop_name name, struct sop_err *e); /* 0 or -EEXIST */
/* ino not 0: it is known that the key is free, and this is the item's inode number. */
int sop_at_add(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, uint64_t ino, struct sop_err *e);
int sop_at_update(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, struct sop_err *e);
int sop_at_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e);
int sop_at_rekey(
	struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, struct sop_err *e);
int sop_at_get(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, void **val,
	size_t *len, struct sop_err *e);
int sop_at_value_open(struct sop_value **out, struct sop_txn *t, struct sop_name name,
	const struct sop_keybuf *kb, unsigned flags, struct sop_err *e);

/* ---- extended attributes (names.c) --------------------------------------------------------- */

/* The committed set, as bytes; *own: to be freed, or NULL. */
int sop_xattrs_load(struct sop_volume *v, const struct sop_item *it, const uint8_t **p, size_t *len,
	void **own, struct sop_err *e);
int sop_xattrs_apply(const uint8_t *p, size_t len, struct sop_xattr_patch *patch, uint8_t **out,
	size_t *out_len, struct sop_err *e);

/* ---- commit (commit.c, resolve.c, apply.c) ------------------------------------------------- */

struct sop_buf {
	uint8_t *p;
	size_t len, cap;
	bool failed; /* memory ran out on the way */
};
void *sop_buf_grow(struct sop_buf *b, size_t len);
void sop_buf_release(struct sop_buf *b);
void sop_buf_op(struct sop_buf *b, enum sop_op_type type, unsigned flags, uint64_t store,
	const void *key, size_t klen, const void *val, size_t vlen);
void sop_buf_ref(
	struct sop_buf *b, enum sop_op_type type, uint64_t scope, const struct sop_blobref *ref);

/* A transaction on its way: small blobs to write, then operations. */
struct sop_puts {
	struct sop_blob_put *put;
	size_t n, cap;
};

/* Validate and plan: fills puts with what must be written first. SOP_ECONFLICT and other errors end
 * the transaction. Commit lock held. Once more, where others have committed since it was planned:
 * what was planned is forgotten, and its blobs are the caller's. */
int sop_resolve_plan(struct sop_txn *t, struct sop_puts *puts, struct sop_err *e);
/* With puts[].ref known: the operations. lsn: the transaction's own. whole: they are to hold for
 * whatever is there when they are done. */
int sop_resolve_emit(struct sop_txn *t, const struct sop_puts *puts, uint64_t lsn, uint64_t time_ns,
	bool whole, struct sop_buf *ops, struct sop_err *e);
/* The operations are committed: their blobs belong to the trees now. */
void sop_resolve_done(struct sop_txn *t);
int sop_txn_validate(struct sop_txn *t, struct sop_err *e);

/* ---- prepared transactions (prepared.c) ---------------------------------------------------- */

struct sop_prepared;
/* The operations of t, as LSN `id`, become those that prepare it: its references are
 * taken, all else goes into the PREPARED store. Commit lock held, as in the others. */
int sop_prepared_wrap(
	struct sop_txn *t, uint64_t id, uint64_t time_ns, struct sop_buf *ops, struct sop_err *e);
/* It is committed: others that would conflict are refused from now on. */
int sop_prepared_note(struct sop_txn *t, struct sop_err *e);
/* SOP_ECONFLICT when t needs what a prepared transaction holds. */
int sop_prepared_check(struct sop_txn *t, struct sop_err *e);
int sop_prepared_resolve(
	struct sop_volume *v, uint64_t id, bool commit, uint64_t *lsn, struct sop_err *e);
/* Recovery: those that a crash left. */
int sop_prepared_load(struct sop_volume *v, struct sop_err *e);
void sop_prepared_forget(struct sop_volume *v);
/* Calls fn for each reference that a prepared transaction has taken. Commit lock held. */
int sop_prepared_each_blob(struct sop_volume *v,
	int (*fn)(void *arg, const struct sop_blobref *ref), void *arg, struct sop_err *e);

/* What is told of an operation on an entry of a directory or of MASTER: store, ino and key. False:
 * nothing. */
bool sop_event_of(struct sop_event *out, bool put, uint64_t store, const uint8_t *key, size_t klen,
	const uint8_t *val, size_t vlen);
/* Apply the operations of one record. prefault first, for each record of the group; then begin;
 * then run each; then end. The commit lock is held. */
int sop_apply_prefault(struct sop_volume *v, const void *ops, size_t len, struct sop_err *e);
void sop_apply_begin(struct sop_volume *v, uint64_t lsn);
int sop_apply_run(struct sop_volume *v, const void *ops, size_t len, uint64_t lsn, uint64_t time_ns,
	struct sop_err *e);
void sop_apply_end(struct sop_volume *v);
/* Between begin and end: one entry of a system store. val NULL: remove it. */
int sop_apply_system(struct sop_volume *v, uint64_t store, const void *key, size_t klen,
	const void *val, size_t vlen, struct sop_err *e);
/* Calls fn for each op; checks all bounds. SOP_ECORRUPT. */
int sop_ops_each(const void *ops, size_t len,
	int (*fn)(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
		const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen),
	void *arg, struct sop_err *e);

/* A commit made by the engine itself, under the commit lock. */
int sop_commit_locked(struct sop_volume *v, const struct sop_buf *ops, struct sop_err *e);
/* One record without blobs, under the commit lock, not in a shared volume. */
int sop_commit_append(struct sop_volume *v, const struct sop_record_in *in, struct sop_err *e);

/* ---- barrier.c ----------------------------------------------------------------------------- */

/* Everything applied so far is on the media afterwards. Shared by those who wait at once.
 * sop_barrier_mark: and a BARRIER record that says so, too. */
int sop_barrier(struct sop_volume *v, uint64_t lsn, struct sop_err *e);
/* The same for somebody who waits: the next commits are prepared for more of that kind. */
int sop_barrier_wait(struct sop_volume *v, uint64_t lsn, struct sop_err *e);
int sop_barrier_mark(struct sop_volume *v, struct sop_err *e);
void sop_barrier_marked(struct sop_volume *v, uint64_t lsn);
/* All that was written to journal and segments, by calls that have returned, side by side. */
int sop_barrier_sync(struct sop_volume *v, struct sop_err *e);

/* ---- checkpoint.c, recover.c, reap.c ------------------------------------------------------- */

int sop_checkpoint_run(struct sop_volume *v, bool clean, struct sop_err *e);
/* Dirty nodes or journal have grown so far that one is worth its cost now. */
bool sop_checkpoint_worth(struct sop_volume *v, const struct sop_nodes_stat *s);
/* One, if dirty nodes still take more than this when it is our turn. */
int sop_checkpoint_relieve(struct sop_volume *v, size_t bytes, struct sop_err *e);
int sop_recover(struct sop_volume *v, struct sop_err *e);
void sop_volume_kick(struct sop_volume *v); /* background work is due now */
/* Names (paths, as far as they can be found) of those who refer to these blobs, in a snapshot; ref
 * is sorted on the way (refs.c). */
int sop_refs_name(struct sop_volume *v, struct sop_blobref *ref, size_t n,
	void (*fn)(void *arg, const char *name, uint64_t off, uint64_t len), void *arg,
	struct sop_err *e);
/* Which of these blobs (sorted on the way) hold a node that somebody may need: the registry names
 * it, a reader may still see it, or a checkpoint in doubt has written it. fn, of each, with its
 * handle where that is known, or 0. Under no lock. */
int sop_refs_nodes(struct sop_volume *v, struct sop_blobref *ref, size_t n,
	void (*fn)(void *arg, uint64_t handle), void *arg, struct sop_err *e);
/* Empty doomed stores a little. *more: there is work left, also behind one that failed. */
int sop_reap(struct sop_volume *v, bool *more, struct sop_err *e);

/* ---- the volume (volume.c) ----------------------------------------------------------------- */

struct sop_commit_req;

struct sop_volume {
	struct sop_open_opts opts;
	const struct sop_log *log;
	const struct sop_clock *clock;
	struct sop_members *mem;
	struct sop_iopool *io;
	struct sop_segments *seg;
	struct sop_pins *pins;
	struct sop_registry *reg;
	struct sop_nodes *nodes;
	struct sop_journal *journal;
	struct sop_stores *stores;
	struct sop_space *space;
	struct sop_mender *mender; /* NULL: mounted read-only */
	struct sop_shared *shared; /* NULL: the volume is not shared; see shared.h */
	uint64_t
		chain_end; /* the checkpoint's: the first slot not in it, from when it was shared */
	struct sop_coordination *coordination; /* NULL: none; see coordinate.h */
	struct sop_txn latest;

	struct sop_lock commit;		/* COMMIT: one at a time validates, appends, applies */
	uint64_t lsn_next;		/* under commit */
	_Atomic uint64_t barrier_noted; /* changed under commit: highest BARRIER record appended */
	_Atomic uint64_t
		barrier_marked; /* highest whose record is itself on the media, or checkpoint */
	_Atomic int dead; /* changed under commit: why no commit is taken any more, 0: healthy */
	_Atomic uint64_t next_ino;

	struct sop_lock queue_lock; /* LEAF: commits waiting for a leader */
	struct sop_commit_req *queue_head, *queue_tail;
	bool leading;
	struct sop_prepared *prepared; /* under commit */
	uint64_t reap_after;	       /* under commit: the trees up to here have had their turn */

	_Atomic uint64_t waited_lsn; /* newest when somebody last waited for the media; 0: never */
	struct sop_lock barrier;     /* LEAF: the fields below; see barrier.c */
	pthread_cond_t barrier_cond; /* a round is over */
	pthread_cond_t barrier_come; /* so many are there as the next round waits for */
	bool barrier_running;
	unsigned barrier_waiting;  /* who will be served by the next round of syncs */
	unsigned barrier_expected; /* so many may come for it */
	uint64_t barrier_rounds;   /* begun */
	uint64_t barrier_ns;	   /* what the last round took */
	uint64_t durable_lsn;

	struct sop_lock ckpt_lock;	    /* VOLUME: one checkpoint at a time */
	_Atomic uint64_t ckpt_ms, ckpt_lsn; /* changed under it; ms 0: none yet */
	struct sop_blobref *doubt; /* under it: nodes of checkpoints whose publication failed */
	size_t n_doubt;

	struct sop_lock bg_lock; /* LEAF */
	pthread_cond_t bg_cond;
	pthread_t bg_thread;
	bool bg_started, bg_stop, bg_kick;

	_Atomic uint64_t items;	       /* names in all directories */
	_Atomic uint64_t journal_used; /* bytes that a replay would read, as of the last append */
	_Atomic size_t value_bytes;    /* what values being written have in memory */
	_Atomic uint64_t commits, conflicts, rolled_back, failures;
	char name[64];
	bool segments_learned; /* the table could not be read: accounts are too high */

	struct sop_event_ring *events;
};

#endif
