/* The journal: the totally ordered log of committed transactions, one copy on every registry
 * replica.
 *
 * Appending: records are framed here (lsn, chain of checksums, epoch) and written by the caller's
 * batch, together with the blobs they name; nothing waits for the media. When the batch has run,
 * finish says whether it counts: written on at least one current replica (a replica that failed has
 * been set aside by sop_members_event, which marks it stale before finish returns). When it does
 * not count, the append position is as before, and the same LSNs are used again.
 *
 * Durability: sync() makes everything finished before it durable (fdatasync of the current file on
 * all replicas; the caller has synced, or syncs at the same time, the segments); a BARRIER record
 * appended later tells recovery so.
 *
 * Files hold up to file_bytes; rotate() starts the next one (the checkpoint's freeze point); trim()
 * lets go of the files before a number: they are kept for reuse by renaming, up to a few, so that
 * steady writing overwrites blocks that exist and fdatasync stays cheap.
 *
 * Threads: the holder of the commit lock, except sync (any; under no lock). */
#ifndef SOP_JOURNAL_H
#define SOP_JOURNAL_H

#include "core/io.h"
#include "core/members.h"

struct sop_journal;

struct sop_journal_opts {
	uint64_t file_bytes; /* 0: 64 MiB; preallocated in steps */
};

/* Start a new file `number` on all current replicas: what recovery (or mkfs) left is not appended
 * to. lsn_next: LSN of the first transaction; chain: prev_crc of the first record. */
int sop_journal_new(struct sop_journal **out, struct sop_members *mem, struct sop_iopool *io,
	const struct sop_journal_opts *o, uint64_t number, uint64_t lsn_next, uint32_t chain,
	struct sop_err *e);
void sop_journal_free(struct sop_journal *j); /* closes; no sync */

struct sop_record_in {
	uint8_t type; /* enum sop_record_type */
	uint64_t lsn; /* TXN: must be the next; BARRIER: see format.h */
	uint64_t time_ns, next_ino;
	const void *payload; /* copied (framed into batch memory) */
	size_t payload_len;
};

/* Frame n records and add their writes to b (one per replica; run it with need 0). One append at a
 * time. -ENOSPC or -EIO when no replica can take them; after an error b must not be run. What does
 * not fit into the current file goes into the next, as after rotate(); a record larger than
 * file_bytes makes its file grow. fill_bytes: when the place was never written before, write so
 * many zeros behind it as well (at most SOP_IO_ZEROS): then the next appends cost their syncs
 * nothing but the bytes, and the file systems no commit of their own. */
int sop_journal_prepare(struct sop_journal *j, const struct sop_record_in *in, size_t n,
	uint32_t fill_bytes, struct sop_batch *b, struct sop_err *e);
int sop_journal_finish(struct sop_journal *j, struct sop_err *e);
/* No replica is left. What was appended last may be on some of them all the same. */
bool sop_journal_dead(struct sop_journal *j);
/* As if never prepared, run or not: what may be on the disks is cut off, durably (this is slow).
 * When it was run, and the blobs failed: forget, which also looks at the results, so that a replica
 * on which the write failed, or may still be under way, is set aside. Both before sop_batch_put().
 * A failed finish does the same by itself. */
void sop_journal_abandon(struct sop_journal *j);
void sop_journal_forget(struct sop_journal *j);

int sop_journal_sync(struct sop_journal *j, struct sop_err *e);

/* Close the current file and go on in the next. *number: of the new file; *chain: its first
 * prev_crc. -ENOSPC: a replica is full, and the current file goes on; with `needed` that is so only
 * when all are, and a full one among others is set aside. */
int sop_journal_rotate(
	struct sop_journal *j, bool needed, uint64_t *number, uint32_t *chain, struct sop_err *e);
/* Files with a lower number are no longer needed. */
void sop_journal_trim(struct sop_journal *j, uint64_t number);
/* The files not yet trimmed, oldest first, and what counts of each: malloc'ed (NULL: not wanted, or
 * no memory). last, unless NULL: the current one. The number. */
struct sop_journal_span {
	uint64_t number, bytes;
};
size_t sop_journal_spans(
	struct sop_journal *j, struct sop_journal_span **out, struct sop_journal_span *last);
uint64_t sop_journal_bytes(
	struct sop_journal *j); /* in files not yet trimmed: what replay would read */

/* --- recovery ----------------------------------------------------------------------------------
 */

struct sop_record_out {
	uint8_t type;
	uint64_t lsn, epoch, time_ns, next_ino;
	const void *payload;
	size_t payload_len;
};

struct sop_journal_end {
	uint64_t lsn;	      /* of the last transaction accepted; the given lsn when none */
	uint32_t chain;	      /* crc of the last record accepted */
	uint64_t number;      /* of the last file looked at */
	uint64_t barrier_lsn; /* highest BARRIER seen */
	uint64_t records, bytes;
};

/* Read the chain that starts in file `number` with prev_crc `chain` and first LSN lsn + 1, over as
 * many files as there are. Of all members with the REGISTRY role whose replica is current, the
 * longest valid chain counts. fn is called for each TXN in order, with `durable` true when a
 * BARRIER that covers it exists (on any current replica); a return of 1 from fn ends the chain
 * before this record for good (its blobs do not verify); a negative one is an error. Torn tails,
 * old records of recycled files and garbage end the chain. A chain that ends before a barrier it
 * should reach is SOP_ELOST, said so. */
enum sop_replay_flags {
	SOP_REPLAY_BEGUN = 1, /* file `number` was on the media: SOP_ELOST when no replica has it */
	SOP_REPLAY_PART =
		2, /* go on with what is left, though more was on the media (fsck, when told) */
};
int sop_journal_replay(struct sop_members *mem, uint64_t number, uint64_t lsn, uint32_t chain,
	unsigned flags, int (*fn)(void *arg, const struct sop_record_out *r, bool durable),
	void *arg, struct sop_journal_end *end, struct sop_err *e);

/* How far the chain goes on one member alone; for fsck. end->barrier_lsn above end->lsn: it has
 * lost a part of what was on the media. off: in the last file of the chain, behind its last record.
 */
int sop_journal_reach(struct sop_members *mem, unsigned member, uint64_t number, uint64_t lsn,
	uint32_t chain, struct sop_journal_end *end, uint64_t *off, struct sop_err *e);

/* Is file `number` on this disk of a member whole up to `bytes`, which is the end of a record?
 * SOP_ECORRUPT: it is not. The disk need not be one of a current replica. */
int sop_journal_verify(struct sop_members *mem, unsigned member, struct sop_disk *d,
	uint64_t number, uint64_t bytes, unsigned timeout_ms, struct sop_err *e);

/* Pure: check one framed record at raw (at most `avail` bytes). 0: whole; -EAGAIN: more bytes
 * needed; SOP_ECORRUPT: not a record of this chain. */
int sop_record_check(const void *raw, size_t avail, uint32_t prev_crc, struct sop_record_out *out,
	uint32_t *crc, size_t *len, struct sop_err *e);

#endif
