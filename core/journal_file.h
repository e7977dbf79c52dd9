/* Journal files on one disk: names, header, records, and the calls that touch names, each with a
 * bound on the wait. For journal.c and journal_replay.c only. */
#ifndef SOP_JOURNAL_FILE_H
#define SOP_JOURNAL_FILE_H

#include "core/disk.h"
#include "core/format.h"
#include "core/id.h"

#define SOP_JOURNAL_SPARES 2  /* trimmed files kept per replica, as journal/spare.N */
#define SOP_JOURNAL_NAME   48 /* bytes of a path, with the ending NUL */

void sop_journal_path(char path[SOP_JOURNAL_NAME], uint64_t number);
void sop_journal_spare_path(char path[SOP_JOURNAL_NAME], unsigned spare);

struct sop_journal_header {
	struct sop_uuid volume;
	uint64_t number, epoch, first_lsn;
	uint64_t salt; /* random, SOP_JOURNAL_SALT_BITS of it; */
	uint32_t chain;
};

/* Each record repeats its file's salt, above a counter of attempts: nobody who only chooses
 * what is in a payload can put a record there. */
#define SOP_JOURNAL_SALT_BITS 48

static inline uint64_t sop_journal_record_salt(const struct sop_disk_record *h)
{
	return le64_get(h->salt) >> (64 - SOP_JOURNAL_SALT_BITS);
}

void sop_journal_header_encode(struct sop_disk_journal *h, const struct sop_journal_header *in);
/* SOP_ECORRUPT, SOP_EVERSION. raw: SOP_JOURNAL_HEADER bytes. */
int sop_journal_header_decode(struct sop_journal_header *out, const void *raw, struct sop_err *e);

/* What a journal folder holds. */
struct sop_journal_names {
	uint64_t *number; /* rising; malloc'ed */
	size_t n;
	uint32_t spares; /* bit i: spare.i is there */
};

/* All of these return 0 or -errno; -ETIMEDOUT: the disk did not answer within timeout_ms. A folder
 * that is missing is empty. */
int sop_journal_list(struct sop_journal_names *out, struct sop_disk *d, unsigned timeout_ms);
int sop_journal_rename(struct sop_disk *d, const char *from, const char *to, unsigned timeout_ms);
int sop_journal_unlink(struct sop_disk *d, const char *path, unsigned timeout_ms); /* missing: 0 */
int sop_journal_syncdir(struct sop_disk *d, unsigned timeout_ms);
int sop_journal_allocate(struct sop_file *f, uint64_t off, uint64_t len, unsigned timeout_ms);
int sop_journal_truncate(struct sop_file *f, uint64_t len, unsigned timeout_ms);
int sop_journal_open(struct sop_file **out, uint64_t *size, struct sop_disk *d, const char *path,
	int flags, unsigned timeout_ms);
/* Make file `number` with this header: of *file, an open spare with the path `spare`, or a new one
 * (spare NULL), which *file is set to. Nothing is synced. A file in the way is replaced. */
int sop_journal_start(struct sop_file **file, struct sop_disk *d, const char *spare,
	const struct sop_journal_header *h, unsigned timeout_ms);
/* Up to len bytes at off; *buf (malloc'ed, len bytes) is replaced by NULL on a timeout, for then it
 * belongs to the call that hangs. The number of bytes read, or -errno. */
ssize_t sop_journal_read(
	struct sop_file *f, void **buf, size_t len, uint64_t off, unsigned timeout_ms);

#endif
