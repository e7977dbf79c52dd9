/* The checkpoint file: header, flips, uncommitted ranges, pending frees, in this order, with one
 * checksum over all of it. It is published whole by rename, so a crash leaves the old one or the
 * new one on each replica; recovery takes the newest whole one, and the journal is trimmed only
 * after every replica that is still current has the new one. */
#include "core/checkpoint_file.h"

#include <stdatomic.h>

#include "core/ec.h"
#include "core/errand.h"
#include "core/format.h"

/* What load is willing to read. store refuses to write more, so that no checkpoint is ever
 * published that cannot be read back. Some 19 million flips. */
#define CHECKPOINT_MAX (1ULL << 30)

/* From this size on replicas are written in parallel. */
#define PARALLEL_BYTES (256u << 10)

enum checkpoint_flags { FLAG_CLEAN = 1 };

void sop_checkpoint_release(struct sop_checkpoint *c)
{
	free(c->flips);
	free(c->uncommitted);
	free(c->pending);
	*c = (struct sop_checkpoint){0};
}

static uint32_t file_crc(const void *raw, size_t len)
{
	const uint8_t zero[4] = {0};
	const size_t at = offsetof(struct sop_disk_checkpoint, crc);
	const uint8_t *p = raw;
	uint32_t crc;

	crc = sop_crc32c(0, p, at);
	crc = sop_crc32c(crc, zero, sizeof(zero));
	return sop_crc32c(crc, p + at + sizeof(zero), len - at - sizeof(zero));
}

/* Size of a file with these counts; true when it is over the bound. */
static bool file_len(uint64_t *len, uint64_t flips, uint64_t uncommitted, uint64_t pending)
{
	uint64_t part;

	*len = sizeof(struct sop_disk_checkpoint);
	if (sop_mul_over(&part, flips, sizeof(struct sop_disk_flip)) ||
		sop_add_over(len, *len, part))
		return true;
	if (sop_mul_over(&part, uncommitted, sizeof(struct sop_disk_uncommitted)) ||
		sop_add_over(len, *len, part))
		return true;
	if (sop_mul_over(&part, pending, sizeof(struct sop_disk_pending)) ||
		sop_add_over(len, *len, part))
		return true;
	return *len > CHECKPOINT_MAX;
}

static void encode_header(struct sop_disk_checkpoint *h, const struct sop_checkpoint *c,
	const struct sop_uuid *volume)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, SOP_CHECKPOINT_MAGIC, sizeof(h->magic));
	h->version = le32_make(SOP_FORMAT_VERSION);
	memcpy(h->volume_uuid, volume->b, sizeof(h->volume_uuid));
	h->epoch = le64_make(c->epoch);
	h->lsn = le64_make(c->lsn);
	h->journal = le64_make(c->journal);
	h->chain = le32_make(c->chain);
	h->flags = le32_make(c->clean ? FLAG_CLEAN : 0);
	h->master_root = le64_make(c->master_root);
	h->master_count = le64_make(c->master_count);
	h->next_ino = le64_make(c->next_ino);
	h->next_handle = le64_make(c->next_handle);
	h->free_handle = le64_make(c->free_handle);
	h->time_ns = le64_make(c->time_ns);
	h->items = le64_make(c->items);
	h->flips = le64_make(c->n_flips);
	h->uncommitted = le64_make(c->n_uncommitted);
	h->pending = le64_make(c->n_pending);
}

int sop_checkpoint_encode(void **raw, size_t *len, const struct sop_checkpoint *c,
	const struct sop_uuid *volume, struct sop_err *e)
{
	struct sop_disk_checkpoint *h;
	struct sop_disk_uncommitted *u;
	struct sop_disk_pending *p;
	struct sop_disk_flip *f;
	uint64_t bytes;

	if (file_len(&bytes, c->n_flips, c->n_uncommitted, c->n_pending))
		return sop_fail(e, -EFBIG, "checkpoint of %zu flips, %zu uncommitted, %zu pending",
			c->n_flips, c->n_uncommitted, c->n_pending);
	h = malloc(bytes);
	if (!h)
		return sop_fail(e, -ENOMEM, "checkpoint buffer");
	encode_header(h, c, volume);
	f = (struct sop_disk_flip *)(h + 1);
	for (size_t i = 0; i < c->n_flips; i++, f++) {
		f->handle = le64_make(c->flips[i].handle);
		f->to = sop_blobref_encode(&c->flips[i].to);
		f->from = sop_blobref_encode(&c->flips[i].from);
	}
	u = (struct sop_disk_uncommitted *)f;
	for (size_t i = 0; i < c->n_uncommitted; i++, u++)
		u->ref = sop_blobref_encode(&c->uncommitted[i]);
	p = (struct sop_disk_pending *)u;
	for (size_t i = 0; i < c->n_pending; i++, p++) {
		p->lsn = le64_make(c->pending[i].lsn);
		p->ref = sop_blobref_encode(&c->pending[i].ref);
	}
	h->crc = le32_make(file_crc(h, bytes));
	*raw = h;
	*len = bytes;
	return 0;
}

/* Checks in this order: what it is, whether it is whole, whether it is ours to read. */
static int check_header(const struct sop_disk_checkpoint *h, size_t len,
	const struct sop_uuid *volume, struct sop_err *e)
{
	uint64_t bytes;

	if (len < sizeof(*h) || memcmp(h->magic, SOP_CHECKPOINT_MAGIC, sizeof(h->magic)) != 0)
		return sop_fail(e, SOP_ECORRUPT, "checkpoint: no header");
	if (le32_get(h->crc) != file_crc(h, len))
		return sop_fail(e, SOP_ECORRUPT, "checkpoint: checksum");
	if (le32_get(h->version) != SOP_FORMAT_VERSION)
		return sop_fail(
			e, SOP_EVERSION, "checkpoint: version %u is needed", le32_get(h->version));
	if (memcmp(h->volume_uuid, volume->b, sizeof(h->volume_uuid)) != 0)
		return sop_fail(e, SOP_EFOREIGN, "checkpoint");
	if (le32_get(h->flags) & ~(uint32_t)FLAG_CLEAN)
		return sop_fail(
			e, SOP_EVERSION, "checkpoint: unknown flags %#x", le32_get(h->flags));
	if (file_len(&bytes, le64_get(h->flips), le64_get(h->uncommitted), le64_get(h->pending)) ||
		bytes != len)
		return sop_fail(
			e, SOP_ECORRUPT, "checkpoint: counts do not fit its %zu bytes", len);
	return 0;
}

/* An array for n entries; NULL for none is fine. The counts have been checked against the length of
 * the file, so n is small enough not to overflow. */
static int entries_new(void *out, uint64_t n, size_t size, struct sop_err *e)
{
	void *p = NULL;

	if (n) {
		p = calloc(n, size);
		if (!p)
			return sop_fail(
				e, -ENOMEM, "checkpoint: %llu entries", (unsigned long long)n);
	}
	memcpy(out, &p, sizeof(p));
	return 0;
}

int sop_checkpoint_decode(struct sop_checkpoint *out, const void *raw, size_t len,
	const struct sop_uuid *volume, struct sop_err *e)
{
	const struct sop_disk_checkpoint *h = raw;
	const struct sop_disk_uncommitted *u;
	const struct sop_disk_pending *p;
	const struct sop_disk_flip *f;
	struct sop_checkpoint c = {0};
	int rc;

	rc = check_header(h, len, volume, e);
	if (rc)
		return rc;
	c.epoch = le64_get(h->epoch);
	c.lsn = le64_get(h->lsn);
	c.journal = le64_get(h->journal);
	c.chain = le32_get(h->chain);
	c.clean = le32_get(h->flags) & FLAG_CLEAN;
	c.master_root = le64_get(h->master_root);
	c.master_count = le64_get(h->master_count);
	c.next_ino = le64_get(h->next_ino);
	c.next_handle = le64_get(h->next_handle);
	c.free_handle = le64_get(h->free_handle);
	c.time_ns = le64_get(h->time_ns);
	c.items = le64_get(h->items);
	c.n_flips = le64_get(h->flips);
	c.n_uncommitted = le64_get(h->uncommitted);
	c.n_pending = le64_get(h->pending);

	rc = entries_new(&c.flips, c.n_flips, sizeof(*c.flips), e);
	if (!rc)
		rc = entries_new(&c.uncommitted, c.n_uncommitted, sizeof(*c.uncommitted), e);
	if (!rc)
		rc = entries_new(&c.pending, c.n_pending, sizeof(*c.pending), e);
	if (rc) {
		sop_checkpoint_release(&c);
		return rc;
	}
	f = (const struct sop_disk_flip *)(h + 1);
	for (size_t i = 0; i < c.n_flips; i++, f++) {
		c.flips[i].handle = le64_get(f->handle);
		c.flips[i].to = sop_blobref_decode(&f->to);
		c.flips[i].from = sop_blobref_decode(&f->from);
	}
	u = (const struct sop_disk_uncommitted *)f;
	for (size_t i = 0; i < c.n_uncommitted; i++, u++)
		c.uncommitted[i] = sop_blobref_decode(&u->ref);
	p = (const struct sop_disk_pending *)u;
	for (size_t i = 0; i < c.n_pending; i++, p++) {
		c.pending[i].lsn = le64_get(p->lsn);
		c.pending[i].ref = sop_blobref_decode(&p->ref);
	}
	*out = c;
	return 0;
}

/* The encoded file, shared by the errands that publish it: one may hang in its device and end long
 * after the store has returned. */
struct image {
	atomic_uint refs;
	size_t len;
	void *raw;
};

static void image_put(struct image *m)
{
	if (atomic_fetch_sub(&m->refs, 1) != 1)
		return;
	free(m->raw);
	free(m);
}

static int image_new(struct image **out, const struct sop_checkpoint *c,
	const struct sop_uuid *volume, struct sop_err *e)
{
	struct image *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return sop_fail(e, -ENOMEM, "checkpoint");
	atomic_init(&m->refs, 1);
	rc = sop_checkpoint_encode(&m->raw, &m->len, c, volume, e);
	if (rc) {
		free(m);
		return rc;
	}
	*out = m;
	return 0;
}

struct publication {
	struct sop_errand errand;
	struct image *image;
	struct sop_disk *disk;
	struct sop_err err; /* code 0: published */
};

static void publication_run(struct sop_errand *x)
{
	struct publication *p = (struct publication *)x;
	int rc;

	rc = sop_disk_publish(p->disk, SOP_PATH_CHECKPOINT, p->image->raw, p->image->len, &p->err);
	p->err.code = rc;
}

static void publication_release(struct sop_errand *x)
{
	struct publication *p = (struct publication *)x;

	image_put(p->image);
	free(p);
}

static struct sop_errand *publication_new(struct image *m, struct sop_disk *d)
{
	struct publication *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	sop_errand_init(&p->errand, publication_run, publication_release);
	atomic_fetch_add(&m->refs, 1);
	p->image = m;
	p->disk = d;
	return &p->errand;
}

/* All at once when the image is large; a small one costs two syncs each, and goes one after
 * another. */
static void publish(struct sop_errand *const *list, size_t n, size_t len, unsigned timeout_ms)
{
	if (len >= PARALLEL_BYTES) {
		sop_errands_run(list, n, true, timeout_ms);
		return;
	}
	for (size_t i = 0; i < n; i++)
		sop_errands_run(list + i, 1, true, timeout_ms);
}

/* The result of one. The message of the last failure stays in last. */
static int published(const struct sop_errand *x, struct sop_err *last)
{
	const struct publication *p = (const struct publication *)x;

	if (!x->finished)
		return sop_fail(last, -ETIMEDOUT, "%s/%s", p->disk->name, SOP_PATH_CHECKPOINT);
	if (p->err.code)
		*last = p->err;
	return p->err.code;
}

static int store_on(struct sop_members *mem, struct image *m, const unsigned *idx, unsigned n,
	struct sop_err *e)
{
	struct sop_errand *list[SOP_MEMBERS_MAX] = {0};
	unsigned member[SOP_MEMBERS_MAX], used = 0, done = 0;
	int result[SOP_MEMBERS_MAX];
	struct sop_err last = {0};
	int rc = 0;

	for (unsigned i = 0; i < n; i++) {
		struct sop_disk *d = sop_members_disk(mem, idx[i]);

		if (!d) /* set aside a moment ago */
			continue;
		list[used] = publication_new(m, d);
		if (!list[used]) {
			rc = sop_fail(e, -ENOMEM, "checkpoint");
			goto out;
		}
		member[used++] = idx[i];
	}
	publish(list, used, m->len, sop_members_timeout_ms(mem));
	for (unsigned i = 0; i < used; i++) {
		result[i] = published(list[i], &last);
		/* Set aside for something else meanwhile: its copy will not be believed. */
		if (!result[i] && sop_members_disk(mem, member[i]))
			done++;
	}
	/* A replica left behind with an older checkpoint must not be believed once the journal is
	 * trimmed, so a full disk is set aside here as well. When no replica took it, nothing will
	 * be trimmed, and all stay as they are. */
	for (unsigned i = 0; i < used && done; i++) {
		if (!result[i])
			continue;
		if (result[i] == -ENOSPC)
			sop_members_event(mem, member[i], SOP_EVENT_WRITE, -ENOSPC);
		sop_members_event(
			mem, member[i], SOP_EVENT_WRITE, result[i] == -ENOSPC ? -EIO : result[i]);
	}
	if (!done && !last.code)
		rc = sop_fail(e, -EIO, "checkpoint: no registry replica is left");
	else if (!done)
		rc = sop_say(e, last.code, "checkpoint: %s", last.text);
out:
	for (unsigned i = 0; i < used; i++)
		sop_errand_put(list[i]);
	return rc;
}

int sop_checkpoint_store(struct sop_members *mem, const struct sop_checkpoint *c, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(mem, idx);
	struct image *m = NULL;
	int rc;

	rc = image_new(&m, c, &sop_members_label(mem)->volume_uuid, e);
	if (rc)
		return rc;
	rc = store_on(mem, m, idx, n, e);
	image_put(m);
	return rc;
}

bool sop_checkpoint_newer(const struct sop_checkpoint *a, const struct sop_checkpoint *b)
{
	return a->epoch != b->epoch ? a->epoch > b->epoch : a->lsn > b->lsn;
}

struct reading {
	struct sop_errand errand;
	struct sop_disk *disk;
	void *raw;
	size_t len;
	struct sop_err err; /* code 0: read */
};

static void reading_run(struct sop_errand *x)
{
	struct reading *r = (struct reading *)x;
	int rc;

	rc = sop_disk_read_file(
		r->disk, SOP_PATH_CHECKPOINT, &r->raw, &r->len, CHECKPOINT_MAX, &r->err);
	r->err.code = rc;
}

static void reading_release(struct sop_errand *x)
{
	struct reading *r = (struct reading *)x;

	free(r->raw);
	free(r);
}

/* *raw malloc'ed. */
static int read_bounded(
	void **raw, size_t *len, struct sop_disk *d, unsigned timeout_ms, struct sop_err *e)
{
	struct reading *r = calloc(1, sizeof(*r));
	struct sop_errand *x = (struct sop_errand *)r;
	int rc = 0;

	if (!r)
		return sop_fail(e, -ENOMEM, "checkpoint");
	sop_errand_init(x, reading_run, reading_release);
	r->disk = d;
	sop_errands_run(&x, 1, true, timeout_ms);
	if (!x->finished) {
		rc = sop_fail(e, -ETIMEDOUT, "%s/%s", d->name, SOP_PATH_CHECKPOINT);
	} else if (r->err.code) {
		rc = sop_say(e, r->err.code, "%s", r->err.text);
	} else {
		*raw = r->raw;
		*len = r->len;
		r->raw = NULL;
	}
	sop_errand_put(x);
	return rc;
}

int sop_checkpoint_load_one(
	struct sop_checkpoint *out, struct sop_members *mem, unsigned member, struct sop_err *e)
{
	struct sop_disk *d = sop_members_disk(mem, member);
	sop_autofree void *raw = NULL;
	size_t len = 0;
	int rc;

	if (!d)
		return sop_fail(e, -EIO, "checkpoint: member %u is absent", member);
	rc = read_bounded(&raw, &len, d, sop_members_timeout_ms(mem), e);
	if (rc) {
		sop_members_event(mem, member, SOP_EVENT_READ, rc);
		return rc;
	}
	rc = sop_checkpoint_decode(out, raw, len, &sop_members_label(mem)->volume_uuid, e);
	if (rc == SOP_ECORRUPT)
		sop_members_event(mem, member, SOP_EVENT_CHECKSUM, rc);
	return rc ? sop_wrap(e, rc, "disk %s", d->name) : 0;
}

int sop_checkpoint_load(struct sop_checkpoint *out, struct sop_members *mem, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(mem, idx);
	struct sop_checkpoint best = {0}, c;
	struct sop_err last = {0};
	bool found = false;

	for (unsigned i = 0; i < n; i++) {
		int rc = sop_checkpoint_load_one(&c, mem, idx[i], &last);

		/* Memory may be there next time, and a newer program can read what is newer: an
		 * older checkpoint of another replica must not be taken instead. */
		if (rc == -ENOMEM || rc == SOP_EVERSION) {
			sop_checkpoint_release(&best);
			return sop_say(e, rc, "%s", last.text);
		}
		if (rc)
			continue;
		if (!found || sop_checkpoint_newer(&c, &best)) {
			sop_checkpoint_release(&best);
			best = c;
			found = true;
		} else {
			sop_checkpoint_release(&c);
		}
	}
	if (!found)
		return sop_fail(e, SOP_ELOST,
			"checkpoint: not whole on any of %u current replicas%s%s", n,
			last.code ? ": " : "", last.text);
	*out = best;
	return 0;
}
