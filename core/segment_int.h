/* Private to the blob module (segment*.c, blob_read.c, blob_write.c): segments, their shard files,
 * and calls on disks with a bound on the wait.
 *
 * s->lock (rank SEGMENTS) covers the table, the open segments and the cache of open files. It is
 * never held across I/O. Segments and shard files are counted: whoever works on one outside of the
 * lock holds a reference, so that neither remove nor eviction closes a file that is in use. */
#ifndef SOP_SEGMENT_INT_H
#define SOP_SEGMENT_INT_H

#include <stdatomic.h>

#include "core/blob.h"
#include "core/ec.h"
#include "core/lock.h"

/* --- shape of a fragment -----------------------------------------------------------------------
 */

#define SOP_FRAG_STRIDE (SOP_BLOCK_BYTES + (uint32_t)sizeof(struct le32))

struct sop_frag_shape {
	uint32_t slice; /* bytes of data in each shard */
	uint32_t rows;	/* blocks of each shard: block r of all shards is row r */
	uint32_t bytes; /* of the fragment */
};

static inline struct sop_frag_shape sop_frag_shape(uint32_t len, unsigned k)
{
	struct sop_frag_shape f;

	f.slice = (uint32_t)sop_round_up(sop_div_up(len, k), SOP_SLICE_ALIGN);
	f.rows = (uint32_t)sop_div_up(f.slice, SOP_BLOCK_BYTES);
	f.bytes = (uint32_t)sop_round_up(
		sizeof(struct sop_disk_fragment) + f.slice + (uint64_t)f.rows * sizeof(struct le32),
		8);
	return f;
}

/* Bytes of data in a block of row r. */
static inline uint32_t sop_frag_block(const struct sop_frag_shape *f, uint32_t r)
{
	return r + 1 < f->rows ? SOP_BLOCK_BYTES : f->slice - r * SOP_BLOCK_BYTES;
}

void sop_frag_header(struct sop_disk_fragment *h, const struct sop_segment_info *info,
	const struct sop_blobref *ref, uint8_t kind, unsigned shard);

/* What the checksum of a block starts from: the part that all blocks of one fragment share, and
 * its end. */
uint32_t sop_frag_seed_base(
	const struct sop_segment_info *info, const struct sop_blobref *ref, unsigned shard);
uint32_t sop_frag_seed_block(uint32_t base, uint32_t block);

/* --- segments ----------------------------------------------------------------------------------
 */

struct sop_shard_file {
	struct sop_file *file;
	unsigned refs; /* one is the slot's */
	unsigned shard;
	struct segment *seg; /* while it is in seg->file[shard]; else NULL */
	bool writable;
	struct sop_shard_file *newer, *older; /* in the slot: order of use */
};

#define SOP_WRITTEN_SETS 4

struct segment {
	struct segment *hash_next;
	struct sop_segment_info info;
	const struct sop_ec *ec;
	unsigned n; /* k + m */
	unsigned refs;
	bool in_table;
	bool open;	    /* the current one of a stream: its files stay open */
	bool ours;	    /* made by this mount: info.end is exact */
	bool made;	    /* by this mount, files and all */
	uint32_t absent;    /* shards without a file since creation */
	uint32_t awaited;   /* those of them whose disk was not there */
	uint32_t missing;   /* shards whose file was not found: tried last */
	uint32_t dirty;	    /* shards written to since their last fdatasync was begun */
	uint32_t new_names; /* shards whose name in the folder has not been synced */
	uint32_t unsynced;  /* shards an fdatasync failed on: what it covered may be lost */
	/* The sets of shards that the appends not yet synced reached; usually one. */
	uint32_t written[SOP_WRITTEN_SETS];
	unsigned n_written;
	struct segment *dirty_next;
	bool on_dirty_list;
	struct sop_shard_file *file[SOP_EC_MAX];
	unsigned busy; /* appends and punches under way */
	/* All places below were written once, with zeros at least; only a guide. While `filling`,
	 * an append writes zeros above the end: no place is taken there. */
	uint64_t filled;
	bool filling;
	struct sop_mending *mending; /* NULL: it is not being mended */
};

/* Under s->lock: info.disks changes when a shard is moved; who reads it without the lock gets the
 * old member or the new one. */
static inline unsigned sop_segment_disk(const struct segment *seg, unsigned shard)
{
	return __atomic_load_n(&seg->info.disks[shard], __ATOMIC_RELAXED);
}
static inline void sop_segment_disk_set(struct segment *seg, unsigned shard, unsigned member)
{
	__atomic_store_n(&seg->info.disks[shard], (uint16_t)member, __ATOMIC_RELAXED);
}

/* Holes punched while a segment is mended. */
struct sop_mending {
	struct sop_range64 *hole;
	size_t n, cap;
};
void sop_segment_busy_end(struct sop_segments *s, struct segment *seg);
/* The same, of an append with place->fill. */
void sop_segment_fill_end(struct sop_segments *s, struct segment *seg);

struct sop_codec {
	struct sop_codec *next;
	struct sop_ec *ec;
};

struct sop_open_segment {
	struct segment *seg;
	bool creating; /* by some thread, outside of the lock; the others wait */
};

#define SOP_SEGMENT_BUCKETS 4096

struct sop_segments {
	struct sop_members *mem;
	struct sop_iopool *io;
	uint64_t epoch;
	uint64_t segment_bytes; /* a shard file is closed when it has grown to this */
	struct sop_lock lock;
	pthread_cond_t changed;
	/* all below: under lock */
	uint64_t next;
	struct segment *bucket[SOP_SEGMENT_BUCKETS];
	struct sop_open_segment open[SOP_PROFILES_MAX][SOP_STREAMS];
	struct sop_codec *codecs;
	struct sop_shard_file *newest, *oldest;
	unsigned n_files, files_max;
	bool real; /* files are real ones: calls on several disks may run side by side */
	void (*on_bad)(void *ctx, const struct sop_blobref *ref); /* set before others use it */
	void *on_bad_ctx;
	struct segment *dirty;
	uint64_t syncs_begun, syncs_done;
	bool sync_running;
	/* By member: bit XX: the name segments/XX is known to be on the media, as of this stay. */
	uint64_t named[SOP_MEMBERS_MAX][4], named_stay[SOP_MEMBERS_MAX];
	/* Slow disks, by member. Milliseconds of the monotonic clock; 0: answers in time. */
	_Atomic uint64_t late_since[SOP_MEMBERS_MAX];
	_Atomic uint64_t probe_at[SOP_MEMBERS_MAX];
};

/* Find a segment, on the disks if need be; the caller has a reference. -ENOENT. */
int sop_segment_get(struct segment **out, struct sop_segments *s, uint64_t id, struct sop_err *e);
void sop_segment_put(struct sop_segments *s, struct segment *seg);
/* Under s->lock; NULL: not in the table. */
struct segment *sop_segment_find_locked(struct sop_segments *s, uint64_t id);

/* A new segment in the table; the caller has a reference. -EEXIST. */
int sop_segment_insert(struct segment **out, struct sop_segments *s,
	const struct sop_segment_info *info, struct sop_err *e);

/* A place for the first *fit of the puts in an open segment, and the files to write. */
struct sop_segment_place {
	struct segment *seg; /* a reference */
	uint64_t off, bytes;
	uint32_t fill; /* zeros to write behind them, to all shards */
	size_t fit;
	uint32_t present; /* shards to write; files[] holds references */
	struct sop_shard_file *file[SOP_EC_MAX];
};
int sop_segment_reserve(struct sop_segment_place *out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, const struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_err *e);
/* An append to the shards `tried` has ended, well on those in `ok`; because of those in
 * `unrecorded` it does not count, and they lack nothing. */
void sop_segment_wrote(struct sop_segments *s, struct segment *seg, uint32_t tried, uint32_t ok,
	uint32_t unrecorded);
/* A repair has written to this shard, by this file. False: it does not count, for the disk has
 * gone, or was taken in anew, or the shard has been moved meanwhile. */
bool sop_segment_mended(
	struct sop_segments *s, struct segment *seg, const struct sop_shard_file *f);

/* --- shard files -------------------------------------------------------------------------------
 */

/* Open the files of the shards in mask (bounded). rc[i]: 0 and a reference in files[i], or -errno:
 * -ENODEV when the disk is absent, -ENOENT when the file is. */
void sop_shard_files_get(struct sop_segments *s, struct segment *seg, uint32_t mask, bool write,
	struct sop_shard_file **files, int *rc);
/* Only those that are open already; the mask of them. */
uint32_t sop_shard_files_cached(
	struct sop_segments *s, struct segment *seg, uint32_t mask, struct sop_shard_file **files);
void sop_shard_file_put(struct sop_segments *s, struct sop_shard_file *f); /* NULL is fine */
void sop_shard_files_put(struct sop_segments *s, uint32_t mask, struct sop_shard_file **files);
/* Make the shard files of a segment that is not in use yet. failed: shards that could not be made.
 */
int sop_shard_files_create(struct sop_segments *s, struct segment *seg, uint32_t shards,
	uint32_t *failed, struct sop_err *e);
/* The file of one shard for writing, made or given a header anew where that does not verify. */
int sop_shard_file_mend(
	struct sop_segments *s, struct segment *seg, unsigned shard, struct sop_shard_file **out);
/* A target for mending: the file of one shard on `member`, which need not be (yet) the one it lies
 * on; with the header that says so. keep: what is in it stays; else it begins empty. The caller
 * closes it. */
int sop_shard_file_at(struct sop_segments *s, struct segment *seg, unsigned shard, unsigned member,
	bool keep, struct sop_file **out);
/* Punch these ranges of it; then it, and its name, are on the media. */
int sop_shard_file_settle(struct sop_segments *s, struct segment *seg, unsigned shard,
	unsigned member, struct sop_file *f, const struct sop_range64 *gap, size_t n);
/* The sizes of open files. */
void sop_shard_files_sizes(struct sop_segments *s, struct segment *seg, uint32_t mask,
	struct sop_shard_file **files, uint64_t *size, int *rc);
/* Under s->lock: take the open file of a shard out of its slot. The caller gets a reference, or
 * NULL. */
struct sop_shard_file *sop_shard_file_take(
	struct sop_segments *s, struct segment *seg, unsigned shard);
/* Under s->lock: the files that these shards were written through, for a sync. NULL where none is
 * open for writing; -ENODEV where it is of a disk that is gone, or has been taken in anew: a sync
 * of the file opened again would say nothing of what was written through that one. */
void sop_shard_files_dirty(struct sop_segments *s, struct segment *seg, uint32_t mask,
	struct sop_shard_file **files, int *rc);
/* Cut them off at the segment's end. False: not all of them; a late one may be yet. */
bool sop_shard_files_cut(struct sop_segments *s, struct segment *seg);
/* Sync the folders that name the shards in mask; failed: those that were not. -ENOMEM: none was
 * tried. */
int sop_shard_names_sync(
	struct sop_segments *s, struct segment *seg, uint32_t mask, uint32_t *failed);
/* Take all files out of the slots of a segment. */
void sop_shard_files_drop(struct sop_segments *s, struct segment *seg);
/* Remove the files of a segment; seg: NULL when it is not known. Missing ones are fine. */
int sop_segment_unlink(struct sop_segments *s, uint64_t id, struct segment *seg, struct sop_err *e);
/* What the headers on the disks say of a segment; -ENOENT. */
int sop_shard_lookup(
	struct sop_segments *s, uint64_t id, struct sop_segment_info *out, struct sop_err *e);

void sop_shard_header_encode(struct sop_disk_shard *raw, const struct sop_uuid *volume,
	const struct sop_segment_info *info, unsigned shard, uint64_t created_ns);
/* member: where it was found. SOP_EFOREIGN, SOP_EVERSION, SOP_ECORRUPT. Pure. */
int sop_shard_header_decode(struct sop_segment_info *out, const struct sop_disk_shard *raw,
	const struct sop_uuid *volume, uint64_t id, unsigned shard, unsigned member,
	struct sop_err *e);

/* Codes that say nothing about a disk: ours (memory, descriptors), or that the disk is gone
 * already. */
static inline bool sop_segment_blameless(int rc)
{
	return !rc || rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE || rc == -EAGAIN ||
	       rc == -EINTR || rc == -EINVAL || rc == -EOPNOTSUPP || rc == -ENODEV;
}
/* Before blame, for each disk that a step met trouble on: see sop_members_note(). */
static inline void sop_segment_note(
	struct sop_segments *s, unsigned member, enum sop_member_event what, int rc)
{
	if (!sop_segment_blameless(rc))
		sop_members_note(s->mem, member, what, rc);
}
static inline void sop_segment_blame(
	struct sop_segments *s, unsigned member, enum sop_member_event what, int rc)
{
	if (!sop_segment_blameless(rc))
		sop_members_event(s->mem, member, what, rc);
}

/* A sync has failed: what was to be written may be lost, and the next one would not say so. So the
 * disk is set aside, whatever the reason: one that is full is no better than one that is broken. */
static inline void sop_segment_unsynced(struct sop_segments *s, unsigned member, int rc)
{
	if (rc != -ENODEV) /* it has been */
		sop_members_event(s->mem, member, SOP_EVENT_WRITE,
			rc == -ENOSPC || rc == -EDQUOT || sop_segment_blameless(rc) ? -EIO : rc);
}

/* --- calls with a bound ---------------------------------------------------------------------
 * What batches do not offer (open, mkdir, unlink, list, ...) runs on a thread made for it. When the
 * bound comes, the call says -ETIMEDOUT and its memory stays with the thread until that comes back.
 */
struct sop_call {
	int (*fn)(struct sop_call *c);
	struct sop_disk *disk;
	unsigned member;
	int rc; /* out: what fn returned, or -ETIMEDOUT: then look at nothing else here */
	/* in, as fn needs them */
	uint64_t id, off, len;
	struct sop_range64 *range; /* freed with the calls */
	size_t n_ranges;
	unsigned shard;
	int flags;
	struct sop_file *file; /* held, and let go of when fn has returned */
	char path[64];
	struct sop_disk_shard header;
	struct sop_uuid volume;
	struct sop_disk *held; /* disk, from the run until fn has returned */
	/* out */
	struct sop_file *opened; /* closed by the thread when nobody waits any more */
	uint64_t value;
	uint64_t *ids; /* freed with the calls */
	size_t n_ids, room;
	struct sop_segment_info info;
	enum { SOP_CALL_WAITS, SOP_CALL_RUNS, SOP_CALL_DONE, SOP_CALL_LATE } state;
};

struct sop_calls {
	struct sop_lock lock;
	pthread_cond_t changed;
	unsigned refs;
	size_t n, next;
	struct sop_call call[];
};

struct sop_calls *sop_calls_new(size_t n); /* NULL: no memory */
/* Run all. Not parallel: strictly one after the other (those behind a late one go on without it);
 * wait_ms bounds each. In parallel, it bounds all of them together. */
void sop_calls_run(struct sop_calls *c, bool parallel, unsigned wait_ms);
void sop_calls_put(struct sop_calls *c); /* NULL is fine */

/* Bits of a mask, lowest first: SOP_EACH_BIT(i, mask). */
#define SOP_EACH_BIT(i, mask)                                                                      \
	for (uint32_t bits_##i = (mask), i = 0;                                                    \
		bits_##i && ((i = (uint32_t)__builtin_ctz(bits_##i)), true);                       \
		bits_##i &= bits_##i - 1)

static inline uint32_t sop_segment_all(const struct segment *seg)
{
	return seg->n >= 32 ? UINT32_MAX : (1u << seg->n) - 1;
}

#endif
