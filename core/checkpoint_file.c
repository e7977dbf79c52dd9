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
	return sop_crc32c_own(raw, len, offsetof(struct sop_disk_checkpoint, crc));
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
	h->slot = le64_make(c->slot);
	h->base = le64_make(c->base);
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
	c.slot = le64_get(h->slot);
	c.base = le64_get(h->base);
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

/* One half of the publication on one replica. */
struct half {
	struct sop_errand errand;
	struct image *image; /* of the first */
	void (*run)(struct half *h);
	struct sop_disk *disk, *held; /* held until it has run */
	char path[SOP_TEMP_PATH];
	char temp[SOP_TEMP_PATH];
	struct sop_err err; /* code 0: done */
};

static void stage_run(struct half *h)
{
	h->err.code =
		sop_disk_stage(h->disk, h->path, h->image->raw, h->image->len, h->temp, &h->err);
}

static void name_run(struct half *h)
{
	h->err.code = sop_disk_name(h->disk, h->temp, h->path, &h->err);
}

static void unstage_run(struct half *h)
{
	sop_disk_unstage(h->disk, h->temp);
}

static void half_run(struct sop_errand *x)
{
	struct half *h = (struct half *)x;

	h->run(h);
	sop_disk_close(h->held);
	h->held = NULL;
}

static void half_release(struct sop_errand *x)
{
	struct half *h = (struct half *)x;

	sop_disk_close(h->held);
	if (h->image)
		image_put(h->image);
	free(h);
}

static struct sop_errand *half_new(struct image *m, struct sop_disk *d, const char *path,
	void (*run)(struct half *h), const char *temp)
{
	struct half *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	sop_errand_init(&h->errand, half_run, half_release);
	if (m)
		atomic_fetch_add(&m->refs, 1);
	h->image = m;
	h->run = run;
	h->disk = h->held = d;
	sop_disk_get(d);
	strcpy(h->path, path);
	if (temp)
		strcpy(h->temp, temp);
	return &h->errand;
}

/* A replica on the way to the new checkpoint. */
struct taker {
	unsigned member;
	struct sop_errand *stage, *name;
	int result;
};

struct store {
	struct sop_members *mem;
	const char *path;
	struct image *image;
	struct taker taker[SOP_MEMBERS_MAX];
	unsigned n;
	struct sop_err last; /* of the last that failed */
};

static bool is_full(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT;
}

static void take_result(struct store *s, struct taker *t, const struct sop_errand *x)
{
	const struct half *h = (const struct half *)x;

	if (!x->finished)
		t->result = sop_fail(&s->last, -ETIMEDOUT, "%s/%s", h->disk->name, h->path);
	else
		t->result = h->err.code;
	if (x->finished && h->err.code)
		s->last = h->err;
}

/* All at once when the image is large; a small one costs two syncs each, and goes one after
 * another. */
static void run_halves(struct store *s, struct sop_errand *const *list, size_t n)
{
	unsigned ms = sop_members_timeout_ms(s->mem);

	if (s->image->len >= PARALLEL_BYTES) {
		sop_errands_run(list, n, true, ms);
		return;
	}
	for (size_t i = 0; i < n; i++)
		sop_errands_run(list + i, 1, true, ms);
}

/* Both halves are made before the first runs: no memory is wanted once something has begun. */
static int store_new(struct store *s, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(s->mem, idx);

	for (unsigned i = 0; i < n; i++) {
		struct sop_disk *d = sop_members_disk(s->mem, idx[i]);
		struct taker *t = &s->taker[s->n];

		if (!d) /* set aside a moment ago */
			continue;
		t->member = idx[i];
		s->n++;
		t->stage = half_new(s->image, d, s->path, stage_run, NULL);
		t->name = half_new(NULL, d, s->path, name_run, NULL);
		if (!t->stage || !t->name)
			return sop_fail(e, -ENOMEM, "checkpoint");
	}
	return 0;
}

static void store_release(struct store *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		sop_errand_put(s->taker[i].stage);
		sop_errand_put(s->taker[i].name);
	}
}

/* The content. How many have it; *full: how many have no room. */
static unsigned stage_all(struct store *s, unsigned *full)
{
	struct sop_errand *list[SOP_MEMBERS_MAX] = {0};
	unsigned good = 0;

	for (unsigned i = 0; i < s->n; i++)
		list[i] = s->taker[i].stage;
	run_halves(s, list, s->n);
	*full = 0;
	for (unsigned i = 0; i < s->n; i++) {
		struct taker *t = &s->taker[i];

		take_result(s, t, t->stage);
		good += !t->result;
		*full += is_full(t->result);
	}
	return good;
}

/* Nobody has it, and nobody gets it. */
static void unstage_all(struct store *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		const struct taker *t = &s->taker[i];
		const struct half *h = (const struct half *)t->stage;
		struct sop_errand *x =
			t->result ? NULL : half_new(NULL, h->disk, s->path, unstage_run, h->temp);

		if (is_full(t->result))
			sop_members_event(s->mem, t->member, SOP_EVENT_WRITE, -ENOSPC);
		if (x)
			sop_errands_run(&x, 1, true, sop_members_timeout_ms(s->mem));
		sop_errand_put(x);
	}
}

/* The names, of what is staged. How many have it now. */
static unsigned name_all(struct store *s)
{
	struct sop_errand *list[SOP_MEMBERS_MAX] = {0};
	struct taker *of[SOP_MEMBERS_MAX];
	unsigned n = 0, done = 0;

	for (unsigned i = 0; i < s->n; i++) {
		struct taker *t = &s->taker[i];

		if (t->result)
			continue;
		strcpy(((struct half *)t->name)->temp, ((const struct half *)t->stage)->temp);
		of[n] = t;
		list[n++] = t->name;
	}
	run_halves(s, list, n);
	for (unsigned i = 0; i < n; i++) {
		take_result(s, of[i], of[i]->name);
		/* Set aside for something else meanwhile: its copy will not be believed. */
		done += !of[i]->result && sop_members_disk(s->mem, of[i]->member);
	}
	return done;
}

static bool can_spare_full(const struct store *s)
{
	bool more[SOP_MEMBERS_MAX] = {0};

	for (unsigned i = 0; i < s->n; i++)
		more[s->taker[i].member] = is_full(s->taker[i].result);
	return sop_members_can_spare(s->mem, more);
}

static int store_run(struct store *s, bool needed, bool *in_doubt, struct sop_err *e)
{
	unsigned full, good = stage_all(s, &full), done = 0;

	if (full && !(good && needed && can_spare_full(s))) {
		unstage_all(s);
		return sop_say(e, -ENOSPC, "checkpoint: no space left: %s", s->last.text);
	}
	if (good) {
		done = name_all(s);
		*in_doubt = !done;
	}
	/* A replica left behind with an older checkpoint must not be believed once the journal is
	 * trimmed, so a full disk is set aside here as well. When no replica took it, nothing will
	 * be trimmed, and all stay as they are. */
	for (unsigned i = 0; i < s->n && done; i++) {
		int rc = s->taker[i].result;

		if (is_full(rc))
			sop_members_event(s->mem, s->taker[i].member, SOP_EVENT_WRITE, -ENOSPC);
		if (rc)
			sop_members_event(s->mem, s->taker[i].member, SOP_EVENT_WRITE,
				is_full(rc) ? -EIO : rc);
	}
	if (done)
		return 0;
	return s->last.code ? sop_say(e, s->last.code, "checkpoint: %s", s->last.text)
			    : sop_fail(e, -EIO, "checkpoint: no registry replica is left");
}

int sop_checkpoint_store(struct sop_members *mem, const struct sop_checkpoint *c, bool needed,
	bool *in_doubt, struct sop_err *e)
{
	sop_autofree struct store *s = calloc(1, sizeof(*s));
	bool doubt = false;
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "checkpoint");
	s->mem = mem;
	s->path = SOP_PATH_CHECKPOINT;
	rc = image_new(&s->image, c, &sop_members_label(mem)->volume_uuid, e);
	if (!rc)
		rc = store_new(s, e);
	if (!rc)
		rc = store_run(s, needed, &doubt, e);
	store_release(s);
	if (s->image)
		image_put(s->image);
	if (in_doubt)
		*in_doubt = doubt;
	return rc;
}

/* Replicas by the label, there or not. */
static unsigned replicas_of(struct sop_members *mem)
{
	const struct sop_label *l = sop_members_label(mem);
	unsigned n = 0;

	for (unsigned i = 0; i < l->members; i++)
		n += l->member[i].role & SOP_ROLE_REGISTRY &&
		     l->member[i].state != SOP_MEMBER_REMOVED;
	return n;
}

int sop_checkpoint_store_image(struct sop_members *mem, const char *path,
	const struct sop_checkpoint *c, struct sop_err *e)
{
	sop_autofree struct store *s = calloc(1, sizeof(*s));
	unsigned full = 0, taken = 0, of = replicas_of(mem);
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "image");
	s->mem = mem;
	s->path = path;
	rc = image_new(&s->image, c, &sop_members_label(mem)->volume_uuid, e);
	if (!rc)
		rc = store_new(s, e);
	if (!rc)
		taken = stage_all(s, &full);
	if (!rc && 2 * taken > of)
		taken = name_all(s);
	else if (!rc)
		unstage_all(s);
	if (!rc && 2 * taken <= of)
		rc = sop_say(e, full ? -ENOSPC : SOP_EDISKS,
			"too few of %u replicas take an image: %s", of, s->last.text);
	store_release(s);
	if (s->image)
		image_put(s->image);
	return rc;
}

static int drop_temp(void *arg, const char *name)
{
	if (sop_disk_is_temp(name, SOP_PATH_CHECKPOINT))
		sop_disk_unstage(arg, name);
	return 0;
}

static void tidy_run(struct half *h)
{
	(void)h->disk->ops->list(h->disk, "", drop_temp, h->disk);
}

void sop_checkpoint_tidy(struct sop_members *mem)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(mem, idx), k = 0;
	struct sop_errand *list[SOP_MEMBERS_MAX];

	for (unsigned i = 0; i < n; i++) {
		struct sop_disk *d = sop_members_disk(mem, idx[i]);

		list[k] = d ? half_new(NULL, d, SOP_PATH_CHECKPOINT, tidy_run, NULL) : NULL;
		k += list[k] != NULL;
	}
	sop_errands_run(list, k, true, sop_members_timeout_ms(mem));
	while (k)
		sop_errand_put(list[--k]);
}

bool sop_checkpoint_newer(const struct sop_checkpoint *a, const struct sop_checkpoint *b)
{
	return a->epoch != b->epoch ? a->epoch > b->epoch : a->lsn > b->lsn;
}

struct reading {
	struct sop_errand errand;
	struct sop_disk *disk; /* held until it has run */
	char path[SOP_TEMP_PATH];
	void *raw;
	size_t len;
	struct sop_err err; /* code 0: read */
};

static void reading_run(struct sop_errand *x)
{
	struct reading *r = (struct reading *)x;
	int rc;

	rc = sop_disk_read_file(r->disk, r->path, &r->raw, &r->len, CHECKPOINT_MAX, &r->err);
	r->err.code = rc;
	sop_disk_close(r->disk);
}

static void reading_release(struct sop_errand *x)
{
	struct reading *r = (struct reading *)x;

	free(r->raw);
	free(r);
}

/* *raw malloc'ed. */
static int read_bounded(void **raw, size_t *len, struct sop_disk *d, const char *path,
	unsigned timeout_ms, struct sop_err *e)
{
	struct reading *r = calloc(1, sizeof(*r));
	struct sop_errand *x = (struct sop_errand *)r;
	int rc = 0;

	if (!r)
		return sop_fail(e, -ENOMEM, "checkpoint");
	sop_errand_init(x, reading_run, reading_release);
	r->disk = d;
	sop_disk_get(d);
	strcpy(r->path, path);
	sop_errands_run(&x, 1, true, timeout_ms);
	if (!x->finished) {
		rc = sop_fail(e, -ETIMEDOUT, "%s/%s", d->name, path);
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

static int load_one(struct sop_checkpoint *out, struct sop_members *mem, unsigned member,
	const char *path, struct sop_err *e)
{
	struct sop_disk *d = sop_members_disk(mem, member);
	sop_autofree void *raw = NULL;
	size_t len = 0;
	int rc;

	if (!d)
		return sop_fail(e, -EIO, "checkpoint: member %u is absent", member);
	rc = read_bounded(&raw, &len, d, path, sop_members_timeout_ms(mem), e);
	if (rc) {
		/* An image need not be on all replicas. */
		if (rc != -ENOENT || !strcmp(path, SOP_PATH_CHECKPOINT))
			sop_members_event(mem, member, SOP_EVENT_READ, rc);
		return rc;
	}
	rc = sop_checkpoint_decode(out, raw, len, &sop_members_label(mem)->volume_uuid, e);
	if (rc == SOP_ECORRUPT)
		sop_members_event(mem, member, SOP_EVENT_CHECKSUM, rc);
	return rc ? sop_wrap(e, rc, "disk %s", d->name) : 0;
}

int sop_checkpoint_load_one(
	struct sop_checkpoint *out, struct sop_members *mem, unsigned member, struct sop_err *e)
{
	return load_one(out, mem, member, SOP_PATH_CHECKPOINT, e);
}

int sop_checkpoint_load_image(
	struct sop_checkpoint *out, struct sop_members *mem, const char *path, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(mem, idx);
	int rc = -ENODEV;

	for (unsigned i = 0; i < n && rc && rc != -ENOMEM && rc != SOP_EVERSION; i++)
		rc = load_one(out, mem, idx[i], path, e);
	return rc == -ENODEV ? sop_fail(e, SOP_ELOST, "%s: no replica is there", path) : rc;
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
