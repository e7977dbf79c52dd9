#include "core/journal_file.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/ec.h"
#include "core/errand.h"
#include "core/journal.h"

#define SPARE_PREFIX "spare."

void sop_journal_path(char path[SOP_JOURNAL_NAME], uint64_t number)
{
	int n = snprintf(path, SOP_JOURNAL_NAME, SOP_PATH_JOURNAL "/%016" PRIx64, number);

	assert(n > 0 && n < SOP_JOURNAL_NAME);
}

void sop_journal_spare_path(char path[SOP_JOURNAL_NAME], unsigned spare)
{
	int n = snprintf(path, SOP_JOURNAL_NAME, SOP_PATH_JOURNAL "/" SPARE_PREFIX "%u", spare);

	assert(n > 0 && n < SOP_JOURNAL_NAME);
}

/* --- codecs ----------------------------------------------------------------------------------- */

void sop_journal_header_encode(struct sop_disk_journal *h, const struct sop_journal_header *in)
{

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, SOP_JOURNAL_MAGIC, sizeof(h->magic));
	h->version = le32_make(SOP_FORMAT_VERSION);
	memcpy(h->volume_uuid, in->volume.b, sizeof(h->volume_uuid));
	h->number = le64_make(in->number);
	h->epoch = le64_make(in->epoch);
	h->first_lsn = le64_make(in->first_lsn);
	h->chain = le32_make(in->chain);
	h->salt = le64_make(in->salt);
	h->crc = le32_make(sop_crc32c_own(h, sizeof(*h), offsetof(struct sop_disk_journal, crc)));
}

int sop_journal_header_decode(struct sop_journal_header *out, const void *raw, struct sop_err *e)
{
	const struct sop_disk_journal *h = raw;

	if (memcmp(h->magic, SOP_JOURNAL_MAGIC, sizeof(h->magic)) != 0)
		return sop_fail(e, SOP_ECORRUPT, "journal header: magic");
	if (le32_get(h->crc) !=
		sop_crc32c_own(h, sizeof(*h), offsetof(struct sop_disk_journal, crc)))
		return sop_fail(e, SOP_ECORRUPT, "journal header: checksum");
	if (le32_get(h->version) != SOP_FORMAT_VERSION)
		return sop_fail(
			e, SOP_EVERSION, "journal: version %u is needed", le32_get(h->version));
	memcpy(out->volume.b, h->volume_uuid, sizeof(out->volume.b));
	out->number = le64_get(h->number);
	out->epoch = le64_get(h->epoch);
	out->first_lsn = le64_get(h->first_lsn);
	out->chain = le32_get(h->chain);
	out->salt = le64_get(h->salt);
	return 0;
}

int sop_record_check(const void *raw, size_t avail, uint32_t prev_crc, struct sop_record_out *out,
	uint32_t *crc, size_t *len, struct sop_err *e)
{
	const struct sop_disk_record *h = raw;
	size_t bytes, payload;

	*len = sizeof(*h);
	if (avail < sizeof(*h))
		return -EAGAIN;
	/* What needs no more than the header is checked before more is asked for, so that garbage
	 * does not make the caller read what its length field says. */
	if (le32_get(h->magic) != SOP_RECORD_MAGIC)
		return sop_fail(e, SOP_ECORRUPT, "journal record: magic");
	if (le32_get(h->prev_crc) != prev_crc)
		return sop_fail(e, SOP_ECORRUPT, "journal record: does not follow the one before");
	bytes = le32_get(h->len);
	payload = le32_get(h->payload);
	if (bytes != sop_round_up(sizeof(*h) + payload, 8))
		return sop_fail(e, SOP_ECORRUPT, "journal record: length");
	if (h->type != SOP_RECORD_TXN && h->type != SOP_RECORD_BARRIER)
		return sop_fail(e, SOP_ECORRUPT, "journal record: type %u", h->type);
	*len = bytes;
	if (avail < bytes)
		return -EAGAIN;
	if (le32_get(h->crc) != sop_crc32c_own(h, bytes, offsetof(struct sop_disk_record, crc)))
		return sop_fail(e, SOP_ECORRUPT, "journal record: checksum");
	*crc = le32_get(h->crc);
	out->type = h->type;
	out->lsn = le64_get(h->lsn);
	out->epoch = le64_get(h->epoch);
	out->time_ns = le64_get(h->time_ns);
	out->next_ino = le64_get(h->next_ino);
	out->payload = h + 1;
	out->payload_len = payload;
	return 0;
}

/* --- calls with a bound ----------------------------------------------------------------------- */

/* Everything a call uses, so that it can be left behind. It holds `file` and the disk. */
struct op {
	struct sop_errand errand;
	int (*fn)(struct op *o);
	int rc; /* of fn */
	struct sop_disk *disk;
	struct sop_disk *held; /* disk, where no file holds it, until fn has returned */
	struct sop_file *file;
	bool makes_file; /* file is what fn leaves to the caller */
	char from[SOP_JOURNAL_NAME], to[SOP_JOURNAL_NAME];
	int flags;
	uint64_t off, len;
	void *buf;
	ssize_t got;
	struct sop_journal_names names;
	struct sop_disk_journal header;
};

static void let_go_of_file(struct op *o)
{
	if (o->file)
		o->file->ops->file_close(o->file);
	o->file = NULL;
}

static void let_go_of_disk(struct op *o)
{
	sop_disk_close(o->held);
	o->held = NULL;
}

static void op_release(struct sop_errand *x)
{
	struct op *o = (struct op *)x;

	let_go_of_file(o);
	let_go_of_disk(o);
	free(o->buf);
	free(o->names.number);
	free(o);
}

static void op_thread(struct sop_errand *x)
{
	struct op *o = (struct op *)x;

	o->rc = o->fn(o);
	/* Files are let go of here and not in release, which may run long after the caller has
	 * gone on, and closed the disk. What stays is a result for the caller to take. */
	if (!o->makes_file || o->rc)
		let_go_of_file(o);
	let_go_of_disk(o);
}

static struct op *op_new(struct sop_disk *d, struct sop_file *f, int (*fn)(struct op *o))
{
	struct op *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	sop_errand_init(&o->errand, op_thread, op_release);
	o->fn = fn;
	o->disk = d;
	o->file = f;
	if (f) {
		sop_file_get(f);
	} else {
		o->held = d;
		sop_disk_get(d);
	}
	return o;
}

static void set_path(char *to, const char *from)
{
	size_t len = strlen(from);

	assert(len < SOP_JOURNAL_NAME);
	memcpy(to, from, len + 1);
}

/* What fn returned. -ETIMEDOUT: it may still run, and nothing that it fills in may be touched. */
static int op_wait(struct op *o, unsigned timeout_ms)
{
	struct sop_errand *x = &o->errand;

	sop_errands_run(&x, 1, true, timeout_ms);
	return x->finished ? o->rc : -ETIMEDOUT;
}

static int op_run(struct op *o, unsigned timeout_ms)
{
	int rc = op_wait(o, timeout_ms);

	sop_errand_put(&o->errand);
	return rc;
}

static int names_add(struct sop_journal_names *n, uint64_t number)
{
	/* Doubled whenever it is a power of two. */
	if (!(n->n & (n->n - 1))) {
		uint64_t *p = reallocarray(n->number, n->n ? 2 * n->n : 1, sizeof(*p));

		if (!p)
			return -ENOMEM;
		n->number = p;
	}
	n->number[n->n++] = number;
	return 0;
}

static int names_fill(void *arg, const char *name)
{
	struct sop_journal_names *n = arg;
	char path[SOP_JOURNAL_NAME];
	const char *base = path + strlen(SOP_PATH_JOURNAL "/");
	uint64_t number;

	/* Only names that we would write ourselves are ours. */
	if (sscanf(name, "%" SCNx64, &number) == 1) {
		sop_journal_path(path, number);
		if (!strcmp(base, name))
			return names_add(n, number);
	}
	for (unsigned i = 0; i < 32; i++) {
		sop_journal_spare_path(path, i);
		if (!strcmp(base, name))
			n->spares |= 1u << i;
	}
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static int run_list(struct op *o)
{
	int rc = o->disk->ops->list(o->disk, SOP_PATH_JOURNAL, names_fill, &o->names);

	if (rc == -ENOENT)
		rc = 0;
	if (!rc && o->names.n)
		qsort(o->names.number, o->names.n, sizeof(*o->names.number), by_number);
	return rc;
}

int sop_journal_list(struct sop_journal_names *out, struct sop_disk *d, unsigned timeout_ms)
{
	struct op *o = op_new(d, NULL, run_list);
	int rc;

	*out = (struct sop_journal_names){0};
	if (!o)
		return -ENOMEM;
	rc = op_wait(o, timeout_ms);
	if (!rc) {
		*out = o->names;
		o->names.number = NULL;
	}
	sop_errand_put(&o->errand);
	return rc;
}

static int run_rename(struct op *o)
{
	return o->disk->ops->rename(o->disk, o->from, o->to);
}

int sop_journal_rename(struct sop_disk *d, const char *from, const char *to, unsigned timeout_ms)
{
	struct op *o = op_new(d, NULL, run_rename);

	if (!o)
		return -ENOMEM;
	set_path(o->from, from);
	set_path(o->to, to);
	return op_run(o, timeout_ms);
}

static int run_unlink(struct op *o)
{
	int rc = o->disk->ops->unlink(o->disk, o->from);

	return rc == -ENOENT ? 0 : rc;
}

int sop_journal_unlink(struct sop_disk *d, const char *path, unsigned timeout_ms)
{
	struct op *o = op_new(d, NULL, run_unlink);

	if (!o)
		return -ENOMEM;
	set_path(o->from, path);
	return op_run(o, timeout_ms);
}

static int run_syncdir(struct op *o)
{
	return o->disk->ops->syncdir(o->disk, SOP_PATH_JOURNAL);
}

int sop_journal_syncdir(struct sop_disk *d, unsigned timeout_ms)
{
	struct op *o = op_new(d, NULL, run_syncdir);

	return o ? op_run(o, timeout_ms) : -ENOMEM;
}

static int run_allocate(struct op *o)
{
	return o->file->ops->allocate(o->file, o->off, o->len);
}

int sop_journal_allocate(struct sop_file *f, uint64_t off, uint64_t len, unsigned timeout_ms)
{
	struct op *o = op_new(f->disk, f, run_allocate);

	if (!o)
		return -ENOMEM;
	o->off = off;
	o->len = len;
	return op_run(o, timeout_ms);
}

static int run_truncate(struct op *o)
{
	return o->file->ops->truncate(o->file, o->len);
}

int sop_journal_truncate(struct sop_file *f, uint64_t len, unsigned timeout_ms)
{
	struct op *o = op_new(f->disk, f, run_truncate);

	if (!o)
		return -ENOMEM;
	o->len = len;
	return op_run(o, timeout_ms);
}

static int run_open(struct op *o)
{
	struct sop_file *f;
	int rc = o->disk->ops->file_open(&f, o->disk, o->from, o->flags);

	if (rc)
		return rc;
	o->file = f;
	return f->ops->size(f, &o->len);
}

int sop_journal_open(struct sop_file **out, uint64_t *size, struct sop_disk *d, const char *path,
	int flags, unsigned timeout_ms)
{
	struct op *o = op_new(d, NULL, run_open);
	int rc;

	if (!o)
		return -ENOMEM;
	set_path(o->from, path);
	o->flags = flags;
	o->makes_file = true;
	rc = op_wait(o, timeout_ms);
	if (!rc) {
		*out = o->file;
		*size = o->len;
		o->file = NULL;
	}
	sop_errand_put(&o->errand);
	return rc;
}

static int open_new(struct op *o)
{
	const int flags = SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL;
	struct sop_disk *d = o->disk;
	int rc;

	rc = d->ops->file_open(&o->file, d, o->to, flags);
	/* mkfs makes the folder; it may be missing on a replica made anew. */
	if (rc == -ENOENT) {
		rc = d->ops->mkdir(d, SOP_PATH_JOURNAL);
		if (!rc)
			rc = d->ops->syncdir(d, "");
		if (!rc)
			rc = d->ops->file_open(&o->file, d, o->to, flags);
	}
	if (rc)
		o->file = NULL;
	return rc;
}

/* Header first, then the name. None of it is synced here, and the media may see it in any order: a
 * name without its header is not accepted by replay (number, first LSN and chain would be others),
 * a header without its name is not looked at, and old records do not have the header's epoch or do
 * not follow it. Nothing in the file counts as durable before sync() has synced file and folder.
 *
 * A name is changed by a call of its own: one that was given up, and goes on when its disk is back
 * and has been healed, must not put its file in the place of the one that is there by then. */
static int run_start(struct op *o)
{
	struct iovec iov = {.iov_base = &o->header, .iov_len = sizeof(o->header)};
	ssize_t put;
	int rc;

	if (!o->file) {
		rc = open_new(o);
		if (rc)
			return rc;
	}
	put = o->file->ops->pwritev(o->file, &iov, 1, 0);
	return put < 0 ? (int)put : 0;
}

/* In the spare, or in a new file. -EEXIST: one is in the way. */
static int start_once(struct sop_file **file, struct sop_disk *d, const char *spare,
	const struct sop_journal_header *h, unsigned timeout_ms)
{
	struct op *o = op_new(d, spare ? *file : NULL, run_start);
	int rc;

	if (!o)
		return -ENOMEM;
	o->makes_file = !spare;
	sop_journal_path(o->to, h->number);
	sop_journal_header_encode(&o->header, h);
	rc = op_wait(o, timeout_ms);
	if (!rc && !spare) {
		*file = o->file;
		o->file = NULL;
	}
	sop_errand_put(&o->errand);
	return rc;
}

int sop_journal_start(struct sop_file **file, struct sop_disk *d, const char *spare,
	const struct sop_journal_header *h, unsigned timeout_ms)
{
	char path[SOP_JOURNAL_NAME];
	int rc = start_once(file, d, spare, h, timeout_ms);

	sop_journal_path(path, h->number);
	if (!rc && spare)
		return sop_journal_rename(d, spare, path, timeout_ms);
	if (rc != -EEXIST)
		return rc;
	rc = sop_journal_unlink(d, path, timeout_ms);
	return rc ? rc : start_once(file, d, spare, h, timeout_ms);
}

static int run_read(struct op *o)
{
	struct iovec iov = {.iov_base = o->buf, .iov_len = o->len};

	o->got = o->file->ops->preadv(o->file, &iov, 1, o->off);
	return o->got < 0 ? (int)o->got : 0;
}

ssize_t sop_journal_read(
	struct sop_file *f, void **buf, size_t len, uint64_t off, unsigned timeout_ms)
{
	struct op *o = op_new(f->disk, f, run_read);
	ssize_t got;
	int rc;

	if (!o)
		return -ENOMEM;
	o->buf = *buf;
	o->len = len;
	o->off = off;
	rc = op_wait(o, timeout_ms);
	if (rc == -ETIMEDOUT) {
		/* The device itself may have said so, but then the buffer is as well let go. */
		*buf = NULL;
		got = rc;
	} else {
		got = rc ? rc : o->got;
		o->buf = NULL;
	}
	sop_errand_put(&o->errand);
	return got;
}
