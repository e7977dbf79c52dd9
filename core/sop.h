/* libsop: transactions over B-trees of items, erasure coded over several disk folders.
 *
 *     struct sop_err e = {0};
 *     struct sop_volume *v;
 *     struct sop_txn *t;
 *
 *     sop_volume_open(&v, paths, n, &(struct sop_open_opts){0}, &e);
 *     sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e);
 *     sop_store_at(t, "barstoreec", SOP_STORE_CREATE, NULL, &store, &e);
 *     sop_add(t, SOP_NAME(store, "1"), "foo", 3, &e);
 *     sop_txn_commit(t, SOP_COMMIT_DURABLE, &e);
 *
 * A volume holds stores; a store is a B-tree of items, and nests: a store is itself an item of type
 * directory in its parent. An item is a key, attributes, extended attributes and a value of any
 * size.
 *
 * Errors: 0, a count, or a negative code (core/err.h); `e` may be NULL. Ownership: what a call
 * hands out is freed by the call named beside it; buffers given in may be reused when the call
 * returns. Threads: a volume from any number of threads; a transaction, value or cursor from one at
 * a time. Nothing here exits, aborts on bad input, touches signals or keeps global state. */
#ifndef SOP_H
#define SOP_H

#include <time.h>

#include "core/admin.h"
#include "core/clock.h"
#include "core/err.h"
#include "core/events.h"
#include "core/format_volume.h"
#include "core/fsck.h"
#include "core/id.h"
#include "core/key.h"
#include "core/log.h"
#include "core/mounters.h"
#include "core/peek.h"
#include "core/range.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sop_volume;
struct sop_txn;
struct sop_value;
struct sop_cursor;
struct sop_disk;

/* ---- volume --------------------------------------------------------------------------------- */

struct sop_open_opts {
	size_t cache_bytes;  /* nodes in memory; 0: 256 MiB */
	size_t buffer_bytes; /* values written and not committed, in memory, all together: beyond,
				each goes to the disks early; 0: 64 MiB */
	unsigned commit_ms;  /* committed is on the media at the latest after this; 0: 1,000 */
	unsigned checkpoint_ms;	  /* 0: 30,000 */
	uint64_t journal_bytes;	  /* checkpoint when the journal holds this much; 0: 64 MiB */
	unsigned disk_timeout_ms; /* 0: 30,000 */
	unsigned wait_ms; /* for members that are not there yet, before going on without them */
	bool read_only;
	bool degraded;	     /* accept half or fewer of the labels */
	bool exclusive;	     /* be alone, though the volume is shared (for fsck) */
	bool part_journal;   /* fsck: go on with what is left of a journal that has lost a part */
	bool learn_segments; /* fsck: a table of segments that cannot be read is made anew from
				shard files */
	bool durable;	     /* every commit waits for the media */
	bool no_repair;	     /* bad shards that reads meet are not written anew */
	/* A shared volume: where its mounters meet (core/coord.h says which URLs), NULL: nowhere;
	 * the lease of each (0: 10,000), what becomes of commits without one, and where this one is
	 * mounted, for lists. Of another volume: -EINVAL. */
	const char *redis, *redis_password_file, *mounted_at;
	unsigned lease_ms;
	enum sop_ondown ondown;
	const struct sop_log *log;     /* NULL: silent; must outlive the volume */
	const struct sop_clock *clock; /* NULL: the system's */
	/* For tests: where disks come from, I/O on the caller's thread, no background thread (then
	 * sop_volume_tick does its work), and how long a shard file grows (0: 256 MiB; the largest
	 * blob has to fit). */
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	unsigned fill_bytes; /* zeros written ahead while somebody waits for syncs; 0: 512 KiB */
	bool inline_io;
	bool no_threads;
	uint64_t segment_bytes;
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total); /* recovery */
	void *progress_ctx;
};

/* Locks, recovers, starts. paths: at least one member folder. SOP_EINUSE, SOP_EDISKS, SOP_EFOREIGN,
 * SOP_ENOTVOLUME, SOP_ELOST. The message names object, trouble and remedy. */
int sop_volume_open(struct sop_volume **out, const char *const *paths, size_t n,
	const struct sop_open_opts *o, struct sop_err *e);
/* Everything committed is made durable; open transactions must have ended. The volume is gone
 * afterwards even when an error is returned. */
int sop_volume_close(struct sop_volume *v, struct sop_err *e);

/* A shared volume: everything that other mounters had committed when this was called is there when
 * it returns (a new transaction does it by itself). SOP_EDISKS: too few registry replicas answer.
 * Else nothing is done. */
int sop_volume_catch_up(struct sop_volume *v, struct sop_err *e);

/* All commits so far are on the media when it returns. */
int sop_volume_sync(struct sop_volume *v, struct sop_err *e);
int sop_volume_checkpoint(struct sop_volume *v, struct sop_err *e);
/* From now on several machines mount it at once, or one again; nothing when it is so. The volume
 * has been opened with `exclusive`, and is to be closed next. -EBUSY, -EINVAL: it cannot be, and
 * why. After another error it is one or the other, and whole. */
int sop_volume_share(struct sop_volume *v, bool on, struct sop_err *e);
/* Background work that is due: barrier, checkpoint, giving back space, emptying dropped stores. */
int sop_volume_tick(struct sop_volume *v, struct sop_err *e);

struct sop_volume_stat {
	struct sop_uuid uuid;
	char name[64];
	unsigned k, m, disks, disks_online;
	bool read_only, degraded, failed;
	bool shared; /* others may have it mounted too */
	/* Of data that can be stored, after parity and reserve; as sop_store_room() has it of the
	 * root store. */
	uint64_t total_bytes, free_bytes;
	uint64_t items; /* names in all directories */
	uint64_t lsn, durable_lsn;
	uint64_t commits, conflicts, rolled_back, failures;
	uint64_t live_bytes, pending_bytes; /* stored data and nodes; freed but still pinned */
	uint64_t segments, journal_bytes;
	uint64_t cache_bytes, dirty_bytes;
};
/* From memory; never waits on a disk. */
void sop_volume_stat(struct sop_volume *v, struct sop_volume_stat *out);
/* How much data can be stored in the values of a store, with the erasure code profile they are
 * written with: on empty disks, and now, without the reserve. Stores of other profiles draw on the
 * same room, at their own price. Of a store not met since the mount began the volume's `default`
 * profile is taken. Never waits on a disk. */
void sop_store_room(
	struct sop_volume *v, uint64_t store, uint64_t *total_bytes, uint64_t *free_bytes);

struct sop_check_report {
	uint64_t stores, items, nodes, blobs, blob_bytes; /* met */
	uint64_t errors;				  /* found; each was reported */
	uint64_t leaked_bytes;				  /* live by account, met by nobody */
};
/* Walk everything and verify it: trees, extents, references, accounts; `data` verifies all shards
 * too. report is called with a sentence for each thing found. For tests and fsck; commits wait
 * meanwhile. */
int sop_volume_check(struct sop_volume *v, bool data, void (*report)(void *arg, const char *line),
	void *arg, struct sop_check_report *out, struct sop_err *e);

/* Making one (mkfs): core/format_volume.h. */

/* ---- erasure code profiles -----------------------------------------------------------------
 * Named by stores: how many data and parity shards, on which disks. Number 0 is `default`: of what
 * names no other, and of all directories. They are never changed nor removed. */

struct sop_profile_opts {
	const char *name;
	unsigned k, m;
	bool no_repair;		  /* bad shards that reads meet are left to scrub */
	const char *const *disks; /* names ("d1"), paths or UUIDs; n_disks 0: all */
	size_t n_disks;
};
/* On the labels when it returns. -EEXIST; -EINVAL: too few disks, or registry replicas for its m;
 * SOP_EDISKS: disks are away that every mount would need for it. */
int sop_profile_add(struct sop_volume *v, const struct sop_profile_opts *o, struct sop_err *e);

struct sop_profile_info {
	char name[24];
	unsigned k, m;
	bool repair;
	bool chosen; /* on these disks; else on all, and those to come */
	unsigned disks;
	uint8_t disk[128];		  /* their indexes, as of sop_volume_disk */
	uint64_t total_bytes, free_bytes; /* of data in values written so; without the reserve */
};
/* Profile n of 0, 1, ...; false beyond the last. */
bool sop_profile_get(struct sop_volume *v, unsigned n, struct sop_profile_info *out);

/* ---- transactions --------------------------------------------------------------------------- */

enum sop_txn_mode {
	SOP_TXN_WRITE,	  /* serializable: everything read is checked at commit */
	SOP_TXN_READ,	  /* reads one snapshot; commit checks what was read; writes are refused */
	SOP_TXN_NO_CHECK, /* reads one snapshot; nothing is recorded or checked; writes are refused
			   */
	SOP_TXN_SESSION,  /* writes; reads the newest state at each call, checked at commit if it
			     writes, instead of a snapshot: for short or single-item transactions
			     that must not hold space. What it changes it changes by the inode it
			     has found: a name that was not there, or leads elsewhere by then, it
			     does not depend on */
};

/* No longest time: for who sees to it that the transaction ends. Until then the space that others
 * free meanwhile is kept. */
#define SOP_TXN_UNBOUNDED 0xffffffffu

struct sop_txn_opts {
	enum sop_txn_mode mode;
	unsigned timeout_ms; /* commit fails with SOP_ETIMEOUT after this, at most 60 minutes; 0: 15
				minutes, for a SESSION no bound; SOP_TXN_UNBOUNDED */
	const char *note;    /* what it is, for who finds it prepared; or NULL */
};

/* A handle that reads the newest committed state at each call; never commits, never freed. */
struct sop_txn *sop_volume_latest(struct sop_volume *v);

int sop_txn_begin(struct sop_txn **out, struct sop_volume *v, const struct sop_txn_opts *o,
	struct sop_err *e);

enum sop_commit_flags { SOP_COMMIT_DURABLE = 1 };
/* Ends and frees the transaction, whatever it returns. SOP_ECONFLICT: something it depends on was
 * committed by another: nothing done, try again. Other errors: nothing done, but for one case:
 * SOP_COMMIT_DURABLE (and the option durable of the volume) commits first and then waits for the
 * media. When that wait fails, SOP_EUNSYNCED, the transaction stands: all see it, and it survives
 * the end of the process; power loss it survives once a later sop_volume_sync has returned 0.
 * Functions of sop_txn_on_commit have been called then, and in no other case of an error. When no
 * disk takes the record any more, the volume has failed (SOP_EDEAD from then on): nobody sees the
 * transaction, but a later mount may find it on a disk, whole, and keep it. Values
 * opened in it are closed by it (sop_value_close must not be called any more). */
int sop_txn_commit(struct sop_txn *t, unsigned flags, struct sop_err *e);
void sop_txn_rollback(struct sop_txn *t); /* NULL is fine */
/* Two-phase use, with another database: everything that can fail has been done and checked, and is
 * on the media. Then commit or rollback, by this handle or, after a crash of the program or the
 * machine, by number: until then the transaction stays in the volume, and other commits that would
 * conflict with it are refused (SOP_ECONFLICT). It has no longest time any more, and takes no more
 * writes; values opened in it are not to be used. On an error it is as before, to be rolled back.
 */
int sop_txn_prepare(struct sop_txn *t, struct sop_err *e);
uint64_t sop_txn_id(const struct sop_txn *t); /* its number once prepared, else 0 */

struct sop_txn_prepared {
	uint64_t id;
	uint64_t time_ns; /* wall clock, when it was prepared */
	uint64_t items;	  /* that it writes */
	const char *note; /* sop_txn_opts.note, or "" */
};
/* Calls fn with each prepared transaction, oldest first; fn must not call the library. */
int sop_prepared_list(struct sop_volume *v, int (*fn)(void *arg, const struct sop_txn_prepared *p),
	void *arg, struct sop_err *e);
/* Calls fn with what its commit will tell followers of (core/events.h): store, ino and key of each
 * item it writes; what it makes is "changed" here, too. fn's result when not 0. -ENOENT. */
int sop_prepared_items(struct sop_volume *v, uint64_t id,
	int (*fn)(void *arg, const struct sop_event *x), void *arg, struct sop_err *e);
/* -ENOENT: there is none of this number (any more). flags: enum sop_commit_flags; SOP_EUNSYNCED. */
int sop_prepared_commit(struct sop_volume *v, uint64_t id, unsigned flags, struct sop_err *e);
int sop_prepared_rollback(struct sop_volume *v, uint64_t id, struct sop_err *e);

/* After the commit, before sop_txn_commit returns, with the LSN: whenever the transaction stands;
 * not when it fails or is rolled back, nor when a prepared transaction is committed by number. In
 * the order given. fn may use the library, but not t. -ENOMEM. */
int sop_txn_on_commit(
	struct sop_txn *t, void (*fn)(void *arg, uint64_t lsn), void *arg, struct sop_err *e);

/* What a WRITE transaction means to change, as it is now, in no order that matters. */
struct sop_txn_change {
	uint64_t store; /* the name's; 0: of an inode with several names, or of a directory's own
			   attributes */
	const void *
		key; /* the tree's, see sop_listed; of a duplicate to be added without its number */
	size_t klen;
	/* What is there in the snapshot, and what will be. ino 0: nothing. record: the inode itself
	 * lies there, and goes with it; else it is a name of one that lies elsewhere. */
	struct {
		uint64_t ino;
		uint32_t mode; /* type */
		bool record;
	} before, after;
};
/* fn must not call the library; its non-zero result ends it and is returned. */
int sop_txn_changes(struct sop_txn *t, int (*fn)(void *arg, const struct sop_txn_change *c),
	void *arg, struct sop_err *e);

/* Begin, fn, commit; again from the start when it lost against another, up to `tries` times (0:
 * 16), with random pauses that grow. fn returning non-zero rolls back and is returned.
 * SOP_ECONFLICT after the last. */
int sop_txn_run(struct sop_volume *v, const struct sop_txn_opts *o, unsigned tries, unsigned flags,
	int (*fn)(struct sop_txn *t, void *arg, struct sop_err *e), void *arg, struct sop_err *e);
uint64_t sop_txn_lsn(const struct sop_txn *t); /* its snapshot */
struct sop_volume *sop_txn_volume(const struct sop_txn *t);

/* ---- names and attributes ------------------------------------------------------------------- */

#define SOP_ROOT 16u /* the root store */

/* An item by its store and key; a store itself (its directory's attributes) by key NULL. In a store
 * with typed keys the key is its name (core/key.h): "-17", "1.5", "{\"a\":1}", "name#2"; a name
 * that cannot be one is -EINVAL where an item is made, else -ENOENT. JSON maps that agree in the
 * index are one key with one name: by another, none is looked up, read, changed, removed, moved or
 * linked (-ENOENT), nor made (-EEXIST). By typed keys: see sop_kv_add() and the others. */
struct sop_name {
	uint64_t store;
	const void *key;
	size_t len;
};
#define SOP_NAME(store, text) ((struct sop_name){(store), (text), strlen(text)})
#define SOP_SELF(store)	      ((struct sop_name){(store), NULL, 0})

struct sop_attr {
	uint64_t ino;  /* also the item's id; for a directory: its store */
	uint32_t mode; /* type and permissions; type 0: a plain item of libsop (shown as a file) */
	uint32_t uid, gid;
	uint32_t nlink;
	uint64_t rdev;
	uint64_t size;
	uint64_t bytes; /* of it, stored (holes not counted) */
	struct timespec atime, mtime, ctime, btime;
	uint64_t version;	/* LSN of the last change to the item */
	uint64_t value_version; /* LSN of the last change to its value */
	uint32_t flags;		/* the caller's, kept */
	uint64_t count;		/* directories: items */
};

/* All of these: -ENOENT when there is no such item or store. What a look-up says of how many items
 * a directory has, and of its times, commit does not check: else it would conflict with all who
 * make a name in it. sop_count() is for that. */
int sop_lookup(struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e);

/* fn must not call the library. Its non-zero result ends the scan and is returned. */
typedef int (*sop_item_fn)(void *arg, const void *key, size_t klen, const struct sop_attr *attr);
/* -ENAMETOOLONG: an end of the range is longer than any key. attr of entries that are directories
 * or have several names carries ino, mode's type and nothing else unless full is set (then each
 * costs a look-up). */
int sop_scan(struct sop_txn *t, uint64_t store, const struct sop_range *range, bool full,
	sop_item_fn fn, void *arg, struct sop_err *e);
int sop_count(struct sop_txn *t, uint64_t store, uint64_t *count, struct sop_err *e);

enum sop_attr_mask {
	SOP_ATTR_MODE = 1, /* permission bits; the type stays */
	SOP_ATTR_UID = 2,
	SOP_ATTR_GID = 4,
	SOP_ATTR_ATIME = 8,
	SOP_ATTR_MTIME = 16,
	SOP_ATTR_CTIME = 32,
	SOP_ATTR_FLAGS = 64,
	SOP_ATTR_BTIME = 128,
	SOP_ATTR_SAME_INO = 256, /* sets nothing: -ESTALE if the name is not a->ino's */
};
/* Blind: applies to the item as it is at commit; conflicts with nothing but its removal. */
int sop_setattr(struct sop_txn *t, struct sop_name name, const struct sop_attr *a, unsigned mask,
	struct sop_err *e);

enum sop_xattr_flags { SOP_XATTR_CREATE = 1, SOP_XATTR_REPLACE = 2 };
/* get: the length, also when size is 0; -ERANGE when buf is too small; -ENODATA. list: names, each
 * ended by NUL, the same way. set: -EEXIST, -ENODATA by flags, -E2BIG over 64 KiB. */
ssize_t sop_xattr_get(struct sop_txn *t, struct sop_name name, const char *attr, void *buf,
	size_t size, struct sop_err *e);
ssize_t sop_xattr_list(
	struct sop_txn *t, struct sop_name name, char *buf, size_t size, struct sop_err *e);
int sop_xattr_set(struct sop_txn *t, struct sop_name name, const char *attr, const void *val,
	size_t len, unsigned flags, struct sop_err *e);
int sop_xattr_remove(struct sop_txn *t, struct sop_name name, const char *attr, struct sop_err *e);

/* ---- items ---------------------------------------------------------------------------------- */

/* A new inode number, never given out before and never again. */
uint64_t sop_ino_new(struct sop_volume *v);

/* A file, symlink (value: its target) or special file. init: mode with type, uid, gid, rdev, times;
 * ino 0: a new one. -EEXIST; -EINVAL for a directory. out may be NULL. */
int sop_create(struct sop_txn *t, struct sop_name name, const struct sop_attr *init,
	const void *value, size_t len, struct sop_attr *out, struct sop_err *e);
/* Remove a name; the item goes with its last one. -EISDIR for a store. */
int sop_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e);

enum sop_rename_flags { SOP_RENAME_NOREPLACE = 1, SOP_RENAME_EXCHANGE = 2 };
/* Within and across stores, of items and stores; replaces as rename(2) does. -EINVAL: a store into
 * itself or below. The caller checks types and emptiness no further: -ENOTDIR, -EISDIR, -ENOTEMPTY.
 */
int sop_rename(struct sop_txn *t, struct sop_name from, struct sop_name to, unsigned flags,
	struct sop_err *e);
/* One more name for an item. -EPERM for a store, -EMLINK over 65,000. */
int sop_link(struct sop_txn *t, struct sop_name from, struct sop_name to, struct sop_attr *out,
	struct sop_err *e);

/* Plain items: a key and bytes. add: -EEXIST. update: -ENOENT. */
int sop_add(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e);
int sop_add_if_absent(struct sop_txn *t, struct sop_name name, const void *val, size_t len,
	struct sop_err *e); /* 1 added, 0 there already */
int sop_update(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e);
int sop_upsert(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e);
/* The whole value: *val malloc'ed (never NULL, one NUL behind the end). */
int sop_get(struct sop_txn *t, struct sop_name name, void **val, size_t *len, struct sop_err *e);

/* ---- stores --------------------------------------------------------------------------------- */

/* Where values live. small: in the node, at most 2,048 bytes (-EFBIG beyond); medium: in a blob of
 * their own, written at commit; big: the same, written while the transaction runs. */
enum sop_value_class { SOP_VALUE_AUTO, SOP_VALUE_SMALL, SOP_VALUE_MEDIUM, SOP_VALUE_BIG };
/* hot: nodes stay in memory when others go; cold: they go first. */
enum sop_cache_class { SOP_CACHE_NORMAL, SOP_CACHE_HOT, SOP_CACHE_COLD };
const char *sop_value_class_name(enum sop_value_class c); /* "auto", "small", "medium", "big" */
const char *sop_cache_class_name(enum sop_cache_class c); /* "normal", "hot", "cold" */

/* All zero is a directory as mkdir makes it. Fixed when the store is made, but for note, session
 * and cache_class. */
struct sop_store_opts {
	uint32_t slot_length; /* items a node holds at most, 2..20,000; 0: by size alone */
	uint32_t node_bytes;  /* 4,096..262,144; 0: the volume's, or what slot_length wants */
	uint8_t session;      /* 0 inherited, 1 close, 2 write */
	const char
		*profile; /* EC profile; NULL: the one of the store's own name, or else `default` */
	const char *note; /* description, up to 4,096 bytes, or NULL */
	enum sop_key_type key_type;
	const struct sop_index_field
		*index; /* JSON; none: the first key's fields, sorted by name */
	unsigned n_index;
	bool duplicates; /* keys need not be unique */
	/* Leaf load balancing: a full leaf gives of its items to a neighbour in memory that has
	 * room, before it splits (items that come in any order then fill leaves to four fifths, not
	 * two thirds), and one that is half empty joins a neighbour (else one that is three
	 * quarters empty). */
	bool balance;
	enum sop_value_class value_class;
	enum sop_cache_class cache_class;
};
#define SOP_STORE_INFO_BYTES 8192

/* A directory. init: mode, uid, gid, times; NULL: 0755, root, now. -EEXIST; -ENOENT: no such
 * profile. */
int sop_store_create(struct sop_txn *t, struct sop_name name, const struct sop_attr *init,
	const struct sop_store_opts *o, struct sop_attr *out, struct sop_err *e);
/* -ENOTDIR, -ENOTEMPTY. */
int sop_store_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e);
/* By path from the root: "a/b/c". flags SOP_STORE_CREATE: make what is missing (o for the last).
 * With o, a store that is there must have what o asks for beyond the defaults, and o's key type and
 * uniqueness in any case: else -EINVAL, and which it has not. */
enum sop_store_flags { SOP_STORE_CREATE = 1 };
int sop_store_at(struct sop_txn *t, const char *path, unsigned flags,
	const struct sop_store_opts *o, uint64_t *store, struct sop_err *e);
/* As created. Strings and index point into buf (SOP_STORE_INFO_BYTES is enough for all). -ERANGE.
 */
int sop_store_info(struct sop_txn *t, uint64_t store, struct sop_store_opts *o, char *buf,
	size_t size, struct sop_err *e);
/* Change what may change; SHAPE, all the rest, while the store is empty: -ENOTEMPTY. */
enum sop_store_mask {
	SOP_STORE_NOTE = 1,
	SOP_STORE_SESSION = 2,
	SOP_STORE_CACHE = 4,
	SOP_STORE_SHAPE = 8,
};
int sop_store_set(struct sop_txn *t, uint64_t store, const struct sop_store_opts *o, unsigned mask,
	struct sop_err *e);

/* ---- values, as streams --------------------------------------------------------------------
 * A value opened for writing is a private view: what was committed (or nothing, with TRUNC) and its
 * own writes, of any size: large writes go to the disks as they come, the rest at commit. It takes
 * effect with its transaction. In a SESSION transaction, or one handle per item in any other:
 *   - never read: range writes, truncations and appends apply to the item as it is at commit, and
 *     conflict with nothing but its removal;
 *   - read (sop_value_read, or sop_value_depend): conflicts when the value changed since it was
 * opened. Opened in the latest handle (read only), it keeps the version it opened until closed. */
enum sop_value_flags {
	SOP_VALUE_WRITE = 1,
	SOP_VALUE_TRUNC = 2,  /* begins empty; replaces whatever is there at commit */
	SOP_VALUE_APPEND = 4, /* every write goes to the end as it is at commit */
};

int sop_value_open(struct sop_value **out, struct sop_txn *t, struct sop_name name, unsigned flags,
	struct sop_err *e);
void sop_value_close(struct sop_value *x); /* before its transaction ends: its writes stay in it */

/* Counts; a read at or past the end gives 0. -EFBIG past 2^63-1. */
ssize_t sop_value_read(struct sop_value *x, void *buf, size_t len, uint64_t off, struct sop_err *e);
ssize_t sop_value_write(
	struct sop_value *x, const void *buf, size_t len, uint64_t off, struct sop_err *e);
int sop_value_truncate(struct sop_value *x, uint64_t size, struct sop_err *e);
/* Make [off, off+len) a hole, as far as the value goes by this view; the size stays. What others
 * append meanwhile is no part of it (sop_value_depend() if it has to be). */
int sop_value_punch(struct sop_value *x, uint64_t off, uint64_t len, struct sop_err *e);
/* Next data (hole false) or hole at or after off; -ENXIO past the end. */
int64_t sop_value_seek(struct sop_value *x, uint64_t off, bool hole, struct sop_err *e);

/* A piece of a value, to be put into others. What is stored goes by reference and takes no space
 * again; holes stay holes; short runs and what is not committed are copied. It keeps what it refers
 * to, so free it soon. take: as much of [off, off+len) as one clip holds, and of a value with bytes
 * there at least one; a session depends on what it takes, as if it had read it. put: a count, as of
 * a write; not for APPEND. Any transaction of the volume, as often as wanted. */
struct sop_clip;
int sop_clip_take(
	struct sop_clip **out, struct sop_value *x, uint64_t off, uint64_t len, struct sop_err *e);
uint64_t sop_clip_len(const struct sop_clip *c); /* 0: off is at or past the end */
ssize_t sop_clip_put(
	struct sop_value *x, const struct sop_clip *c, uint64_t off, struct sop_err *e);
void sop_clip_free(struct sop_clip *c);

/* All that has been written to `from`, a value that its transaction makes, goes to `to`, just
 * opened in another one and of the same item by now, as if it had been written there: what has been
 * cut off, made a hole of or looked at counts too. `from` is as it was when it was made. */
void sop_value_move(struct sop_value *to, struct sop_value *from);
uint64_t sop_value_size(const struct sop_value *x); /* looks without depending */
uint64_t sop_value_bytes(struct sop_value *x);	    /* of it, stored: without holes */
void sop_value_depend(struct sop_value *x); /* what was seen of it decides what is written */
bool sop_value_dirty(const struct sop_value *x);
/* The attributes as opened, with the view's own size; times: mtime moves with writes. */
void sop_value_attr(struct sop_value *x, struct sop_attr *out);
/* The item lies elsewhere now (it was renamed by a transaction of its own); key NULL: it has no
 * name any more, and the writes will go nowhere at commit, without error. */
int sop_value_moved(struct sop_value *x, struct sop_name name);
/* With the commit, also set these (mtime of a utimens on the open file, mode after a write...). */
void sop_value_setattr(struct sop_value *x, const struct sop_attr *a, unsigned mask);

/* ---- items by typed keys -------------------------------------------------------------------
 * In a store of any key type, with keys of its type (core/key.h); another type is -EINVAL. An item
 * has an id, its inode number, given when it is added and never again to another. In a store with
 * duplicates id says which of a key; 0 is the first. Adding a duplicate depends on nothing. */

/* -EEXIST when keys are unique. id may be NULL. */
int sop_kv_add(struct sop_txn *t, uint64_t store, const struct sop_key *key, const void *val,
	size_t len, uint64_t *id, struct sop_err *e);
/* 1 added, 0 there already (with duplicates too: any of the key). */
int sop_kv_add_if_absent(struct sop_txn *t, uint64_t store, const struct sop_key *key,
	const void *val, size_t len, uint64_t *id, struct sop_err *e);
int sop_kv_update(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	const void *val, size_t len, struct sop_err *e); /* -ENOENT */
int sop_kv_upsert(struct sop_txn *t, uint64_t store, const struct sop_key *key, const void *val,
	size_t len, struct sop_err *e);
int sop_kv_remove(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	struct sop_err *e);
/* Another key with the same place in the order: of JSON maps, what is not in the index. */
int sop_kv_rekey(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	const struct sop_key *to, struct sop_err *e);
/* out may be NULL; out->ino is the id. -ENOENT: then its absence is in the read set. */
int sop_kv_find(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	struct sop_attr *out, struct sop_err *e);
/* As sop_get() and sop_value_open(). */
int sop_kv_get(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	void **val, size_t *len, struct sop_err *e);
int sop_kv_open(struct sop_value **out, struct sop_txn *t, uint64_t store,
	const struct sop_key *key, uint64_t id, unsigned flags, struct sop_err *e);

struct sop_kv {
	struct sop_key key;
	uint64_t id; /* update, remove: which; add: out */
	const void *val;
	size_t len;
};
enum sop_kv_op { SOP_KV_ADD, SOP_KV_ADD_IF_ABSENT, SOP_KV_UPDATE, SOP_KV_UPSERT, SOP_KV_REMOVE };
/* One after the other, up to the first that fails. *done (may be NULL): how many are done, which is
 * also the number of the one that failed; the message says it too. Those before it stay in the
 * transaction. */
int sop_kv_batch(struct sop_txn *t, uint64_t store, enum sop_kv_op op, struct sop_kv *kv, size_t n,
	size_t *done, struct sop_err *e);

struct sop_kv_item {
	struct sop_key key; /* what it points to is gone after the call */
	uint64_t id;
	const struct sop_attr *attr;
	const void *val; /* with SOP_PAGE_VALUES, else NULL */
	size_t len;
};
enum sop_page_flags { SOP_PAGE_DESCENDING = 1, SOP_PAGE_VALUES = 2 };
/* Skip `offset` items, then call fn for at most `count`. The number given; fn's result when not 0.
 * What is skipped costs a look at each node, not at each item (unless the transaction itself has
 * written to the store): to go on behind a page far in, a cursor at its last key is cheaper still.
 * All that is skipped counts as read. */
int sop_kv_page(struct sop_txn *t, uint64_t store, uint64_t offset, uint64_t count, unsigned flags,
	int (*fn)(void *arg, const struct sop_kv_item *item), void *arg, struct sop_err *e);

/* A scan that gives names as well: what directories show. range is of the tree's keys. */
struct sop_listed {
	const void *key; /* the tree's: of the order, and for ranges */
	size_t klen;
	const char *name; /* not ended by NUL */
	size_t name_len;
	const struct sop_attr *attr; /* as of sop_scan */
};
typedef int (*sop_list_fn)(void *arg, const struct sop_listed *x);
int sop_list(struct sop_txn *t, uint64_t store, const struct sop_range *range, bool full,
	sop_list_fn fn, void *arg, struct sop_err *e);
/* The tree's key of a name, which need not be there. key: SOP_KEY_MAX bytes. -EINVAL: it cannot be
 * one. */
int sop_name_key(
	struct sop_txn *t, struct sop_name name, void *key, size_t *klen, struct sop_err *e);

/* ---- cursors -------------------------------------------------------------------------------- */

/* Of its transaction, which must not have ended; close is fine after that, too. */
int sop_cursor_open(struct sop_cursor **out, struct sop_txn *t, uint64_t store, struct sop_err *e);
void sop_cursor_close(struct sop_cursor *c);
/* 1: stands on an item; 0: there is none. seek: the first with key >= (or, descending, <=). After
 * an error of next or prev it stands where it was, after one of the others nowhere. */
int sop_cursor_first(struct sop_cursor *c, struct sop_err *e);
int sop_cursor_last(struct sop_cursor *c, struct sop_err *e);
int sop_cursor_seek(
	struct sop_cursor *c, const void *key, size_t len, bool descending, struct sop_err *e);
int sop_cursor_next(struct sop_cursor *c, struct sop_err *e);
int sop_cursor_prev(struct sop_cursor *c, struct sop_err *e);
const void *sop_cursor_key(const struct sop_cursor *c, size_t *len);
const struct sop_attr *sop_cursor_attr(const struct sop_cursor *c); /* its ino is the item's id */
/* By typed keys. find: 1 on the item; 0: on the first after it, or nowhere (sop_cursor_key is
 * NULL). */
int sop_cursor_find(
	struct sop_cursor *c, const struct sop_key *key, uint64_t id, struct sop_err *e);
int sop_cursor_seek_key(
	struct sop_cursor *c, const struct sop_key *key, bool descending, struct sop_err *e);
/* Until the next call on the cursor. */
int sop_cursor_typed(struct sop_cursor *c, struct sop_key *out, struct sop_err *e);
/* The item it stands on. After a removal the cursor stands where it was: next and prev go on from
 * there. */
int sop_cursor_get(struct sop_cursor *c, void **val, size_t *len, struct sop_err *e);
int sop_cursor_update(struct sop_cursor *c, const void *val, size_t len, struct sop_err *e);
int sop_cursor_remove(struct sop_cursor *c, struct sop_err *e);
/* Pages by the tree's keys, as of sop_kv_page(). The number. */
int sop_page_items(struct sop_txn *t, uint64_t store, uint64_t offset, uint64_t count,
	bool descending, sop_item_fn fn, void *arg, struct sop_err *e);

#ifdef __cplusplus
}
#endif

#endif
