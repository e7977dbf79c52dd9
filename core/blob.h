/* Blobs and the segments they lie in.
 *
 * A blob is up to SOP_BLOB_MAX bytes, written once and never changed, erasure coded over the k+m
 * shard files of a segment. Small ones are packed: one append carries many. Reads verify every
 * block before its bytes are used, and rebuild from parity what is missing, late or wrong.
 *
 * This module knows shard files and health; it does not know who refers to a blob (core/space.h).
 *
 * Threads: any. An append reserves its place under a short lock and writes outside of it.
 *
 * A write succeeds when at least k shards of every blob (all k+m, less disks already set aside) are
 * written, and every disk that lacks one has been set aside: a disk that fails is reported
 * (sop_members_event), the segment is sealed and its shard marked stale, and the next append picks
 * another segment without that disk. */
#ifndef SOP_BLOB_H
#define SOP_BLOB_H

#include "core/format.h"
#include "core/io.h"
#include "core/members.h"

struct sop_blobref {
	uint64_t segment; /* 0: none */
	uint64_t off;
	uint32_t len;
	uint32_t nonce;
};

static inline struct sop_disk_blobref sop_blobref_encode(const struct sop_blobref *r)
{
	return (struct sop_disk_blobref){
		le64_make(r->segment), le64_make(r->off), le32_make(r->len), le32_make(r->nonce)};
}

static inline struct sop_blobref sop_blobref_decode(const struct sop_disk_blobref *d)
{
	return (struct sop_blobref){
		le64_get(d->segment), le64_get(d->off), le32_get(d->len), le32_get(d->nonce)};
}

static inline bool sop_blobref_equal(const struct sop_blobref *a, const struct sop_blobref *b)
{
	return a->segment == b->segment && a->off == b->off && a->len == b->len &&
	       a->nonce == b->nonce;
}

struct sop_segments;

struct sop_segment_info {
	uint64_t id;
	uint8_t k, m, stream;
	bool sealed;
	bool no_repair; /* of a profile that is so: what reads find bad, scrub alone writes anew */
	bool lengths;	/* checksums know the length of their blob; all segments made now are so */
	uint32_t stale; /* bit i: shard i has missed writes */
	/* In memory alone. Bit i: since this mount began, shard i has been read where it lies, from
	 * end to end, and there was nothing to write anew. */
	uint32_t read_back;
	uint64_t end; /* append offset */
	uint16_t disks[SOP_EC_MAX];
};

/* Segment ids are (epoch << 20 | n), n = 1, 2, ...: never given out twice. */
#define SOP_SEGMENT_NUMBER_BITS 20
int sop_segments_new(struct sop_segments **out, struct sop_members *mem, struct sop_iopool *io,
	uint64_t epoch, struct sop_err *e);
/* For tests: how long shard files grow, SOP_SEGMENT_BYTES at most. Before anything is written. */
void sop_segments_set_bytes(struct sop_segments *s, uint64_t bytes);
/* Segments to be made are numbered by another epoch; those that are open are sealed. */
void sop_segments_set_epoch(struct sop_segments *s, uint64_t epoch);
void sop_segments_free(struct sop_segments *s); /* closes files; no sync */

/* --- writing ---------------------------------------------------------------------------------- */

struct sop_blob_put {
	const void *data;	/* must stay until finish */
	uint32_t len;		/* 1..SOP_BLOB_MAX */
	uint8_t kind;		/* enum sop_blob_kind */
	uint8_t profile;	/* the caller's: an append goes to one profile */
	struct sop_blobref ref; /* out */
};

/* One append of many blobs to one stream, in three steps, so that a commit can run it in one batch
 * with the journal's write. prepare: reserves, encodes, adds the requests to b (shards interleave
 * data and checksums; memory from b). finish: looks at the results. On failure the reserved place
 * is garbage (the caller need not free it: the refs were never given to space) and the call may be
 * made again with a new batch: it goes to another segment. -ENOSPC: no k+m disks with room.
 * profile: index into the label's profiles. All puts together may be larger than one segment: the
 * append is split. fill_bytes: as in sop_journal_prepare(); until finish or abandon
 * no place is given out behind this append, so the caller asks for no other meanwhile. */
struct sop_append; /* the state between; freed by finish or abandon */
int sop_segments_prepare(struct sop_append **out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_batch *b, struct sop_err *e);
int sop_segments_finish(struct sop_append *a, struct sop_err *e);
/* Instead of finish, when the batch was not run. NULL is fine. */
void sop_segments_abandon(struct sop_append *a);

/* The three in one, with retries on other segments. */
int sop_segments_put(struct sop_segments *s, unsigned profile, enum sop_stream stream,
	struct sop_blob_put *puts, size_t n, struct sop_err *e);

/* Everything that finish reported before this call started is on the media (fdatasync of dirty
 * shard files, in parallel; new files' directories too) when it returns. Fails only when some blob
 * would be left with fewer than k synced shards; a disk that fails is set aside. */
int sop_segments_sync(struct sop_segments *s, struct sop_err *e);

/* --- reading ---------------------------------------------------------------------------------- */

/* Read [off, off+len) of the blob. Touches the data shards that hold the range; on trouble, k
 * others. SOP_ELOST: fewer than k good shards; -EINVAL: range outside of the blob; SOP_ECORRUPT:
 * ref is not one. */
int sop_blob_read(struct sop_segments *s, const struct sop_blobref *ref, void *buf, size_t len,
	uint64_t off, struct sop_err *e);

/* An error that says nothing about a blob: something of ours was wanting. */
static inline bool sop_blob_untold(int rc)
{
	return rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE;
}

/* Verify all k+m shards. good: bit i = shard i verifies, or was repaired. 0 when the blob can be
 * read (of each block row at least k shards verify), else SOP_ELOST; SOP_EDISKS, -EIO, ...: it
 * cannot, but no shard that should be right is wrong, so that disks which are missing or cannot be
 * read may have it; SOP_ECORRUPT: there is a blob, but not as long as ref says, or ref is not one.
 * repair: write the bad shards anew in place (where the disk is online; a missing
 * file is made), fsynced by the next sync. A shard that cannot be written is reported and stays out
 * of good: no error, unless it is an untold one. */
int sop_blob_verify(struct sop_segments *s, const struct sop_blobref *ref, bool repair,
	uint32_t *good, struct sop_err *e);

/* Bytes each of the k+m shard files spends on a blob of len bytes under a k-profile: header, slice,
 * checksums, padding to 8. */
uint64_t sop_blob_shard_bytes(uint32_t len, unsigned k);

/* --- segments --------------------------------------------------------------------------------- */

/* fn is called for each blob of which a read has met a shard that is bad and could be written anew.
 */
void sop_segments_on_bad(
	struct sop_segments *s, void (*fn)(void *ctx, const struct sop_blobref *ref), void *ctx);
/* Tell the module about segments from the stored table (mount). */
int sop_segments_add(
	struct sop_segments *s, const struct sop_segment_info *info, struct sop_err *e);
/* -ENOENT when it is not known: then its shard headers are looked for on the disks. */
int sop_segments_info(
	struct sop_segments *s, uint64_t id, struct sop_segment_info *out, struct sop_err *e);
/* The same, of those in memory alone: never waits. */
int sop_segments_peek(struct sop_segments *s, uint64_t id, struct sop_segment_info *out);
void sop_segments_seal(struct sop_segments *s, uint64_t id);
/* Is it sealed, and has every append to it ended? Nothing comes to it any more then. */
bool sop_segments_ended(struct sop_segments *s, uint64_t id);
/* Give back the zeros that were written behind the ends of open segments. No append is under way. A
 * segment that cannot be cut is sealed. */
void sop_segments_cut(struct sop_segments *s);
/* Of a segment that may have been written after its entry in the table: its shards on members that
 * are behind (sop_members_behind) count as stale from now on. */
void sop_segments_distrust(struct sop_segments *s, uint64_t id);
/* These shards (bits) are to be written anew, or once more. */
void sop_segments_stale(struct sop_segments *s, uint64_t id, uint32_t shards);
/* A blob has been read on these shards (bits) that no sync is known to have reached: the next one
 * does, as if they had just been written. */
void sop_segments_cached(struct sop_segments *s, uint64_t id, uint32_t shards);
/* Mend a sealed segment as a whole (one that is not is sealed first): see segment_mend.c. */
struct sop_mend_report {
	uint64_t done_bytes; /* of each shard file, walked */
	uint64_t read_bytes, written_bytes;
	uint64_t found_bytes;	 /* of each shard file, in fragments that can be read */
	uint64_t corrected;	 /* fragments of shards that were bad and are right now */
	uint64_t repaired_bytes; /* of these, when verifying */
	uint64_t bad;		 /* that stayed so */
	uint64_t lost;		 /* fragments with fewer than k good shards; of freed blobs, too */
	uint64_t rotten;	 /* of these, with bytes that nobody has written */
	uint32_t here;		 /* shards that have a file where they lie, at the beginning */
	bool nowhere;		 /* all disks were asked, and none has a file of it */
};
struct sop_mend_opts {
	uint32_t shards; /* written anew; in place only where it is bad */
	const uint16_t
		*to; /* by shard: the member it is to lie on; NULL: all stay where they are */
	bool verify; /* instead: verify all shards, mend what is bad (unless no_repair) */
	bool no_repair;
	/* What cannot be read is known not to be in use; else, while disks are missing that may
	 * have it, the work is not called done. */
	bool ignore_lost;
	/* Between pieces; what it returns (not 0) ends the work. */
	int (*pace)(void *arg, const struct sop_mend_report *so_far);
	void (*lost)(void *arg, const struct sop_blobref *ref, uint8_t kind);
	void *arg;
};
/* 0: the shards are written, synced, not stale any more, and lie where they were to go (the files
 * where they lay before are still there). SOP_EDISKS: too few shards can be read now. */
int sop_segment_mend(struct sop_segments *s, uint64_t id, const struct sop_mend_opts *o,
	struct sop_mend_report *r, struct sop_err *e);
/* The shards of which member i has no file, though the segment says so, become stale; files of
 * segments that lie elsewhere by now are removed, unless it is being drained: a checkpoint has to
 * say so before. *kept: those that stay because they have not been read back where they lie now.
 * For a disk that is back, and at mount for all. */
int sop_segments_survey(struct sop_segments *s, unsigned member, unsigned *kept, struct sop_err *e);
/* The shard lies on this member: the one from which it was moved, and where its file is as it was,
 * or the one to which. proven: it has been read there. */
void sop_segments_place(
	struct sop_segments *s, uint64_t id, unsigned shard, unsigned member, bool proven);

/* Calls fn for each segment of which the member still has a shard's file though that shard lies
 * elsewhere by now, and has not been read back there: a move, of this mount or one before, whose
 * old copy is not to go yet. shards: these. What fn returns (not 0) ends it. */
int sop_segments_unproven(struct sop_segments *s, unsigned member,
	int (*fn)(void *arg, const struct sop_segment_info *info, uint32_t shards), void *arg,
	struct sop_err *e);

struct sop_range64 {
	uint64_t off, len;
};

/* Give these ranges of every shard file back to the file systems (whole 4 KiB pages of them). */
int sop_segments_punch(struct sop_segments *s, uint64_t id, const struct sop_range64 *range,
	size_t n, struct sop_err *e);
/* Remove all shard files of a segment. Missing ones are fine. */
int sop_segments_remove(struct sop_segments *s, uint64_t id, struct sop_err *e);
/* Calls fn for each segment id that has a shard file on some disk; it may remove the segment. */
int sop_segments_scan(
	struct sop_segments *s, int (*fn)(void *arg, uint64_t id), void *arg, struct sop_err *e);
/* Size of the longest shard file of a segment: nothing lies beyond. */
int sop_segments_file_end(struct sop_segments *s, uint64_t id, uint64_t *end, struct sop_err *e);

#endif
