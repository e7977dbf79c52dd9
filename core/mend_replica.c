/* Bringing a replica up to date while the volume is used.
 *
 *   1. registry files are copied; commits and checkpoints go on. Files that a checkpoint changes
 *      meanwhile are noted
 *   2. checkpoints are held off. Those files are copied again; the journal goes on in a new file,
 *      and all before it, which does not change any more, is copied, and so is the checkpoint
 *      file. All of it is synced
 *   3. commits, which may have gone on in further files, are held off. What the journal has got
 *      since is copied and synced, and a round of labels calls the replica current. The next append
 *      begins a file that it has, too
 *
 * What is copied is right. Any of the current replicas may be damaged, or have lost a write,
 * without anybody knowing: so each block of the registry is that of the replica where it is newest
 * and whole, a journal file has to verify to the end of what counts, and the checkpoint is the
 * newest there is. Only replicas that are current when a file is begun are read: they have all that
 * was written so far, and what is written later is copied later.
 *
 * A crash before the labels say so leaves a replica that nobody believes. The disk that is healed
 * gets a short bound in step 3: it holds up everybody. */
#include "core/mend.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/errand.h"
#include "core/journal_file.h"
#include "core/registry_block.h"

#define COPY_BYTES (128u * SOP_REGISTRY_PAIR)
#define SHORT_MS   2000u
#define ROUNDS_MAX 4
#define NAMES_MAX  65536u

/* ---- calls with a bound ----
 *
 * One that was given up may go on when its disk is back and is healed again, or has been. So none
 * takes a step that hurts then behind another one that may hang. */

enum what { OPEN, LIST, UNLINK, MKDIR, TRUNCATE, SYNC, SYNCDIR, STAGE, NAME };

struct call {
	struct sop_errand errand;
	enum what what;
	struct sop_disk *disk, *held; /* held until it has run */
	struct sop_file *file;	      /* so, too */
	char path[96];
	int flags;
	uint64_t len; /* TRUNCATE: to be; OPEN: as it is */
	void *buf;    /* STAGE */
	size_t buf_len;
	char temp[SOP_TEMP_PATH]; /* of STAGE, for NAME */
	struct sop_file *opened;
	uint32_t *number; /* LIST: of registry files */
	size_t n, cap;
	int rc;
};

static void registry_path(char *path, size_t size, uint32_t number)
{
	snprintf(path, size, "%s/%08" PRIx32, SOP_PATH_REGISTRY, number);
}

/* Only names that we would write ourselves are ours. */
static int add_name(void *arg, const char *name)
{
	struct call *c = arg;
	char own[16];
	uint32_t number;

	if (sscanf(name, "%" SCNx32, &number) != 1)
		return 0;
	snprintf(own, sizeof(own), "%08" PRIx32, number);
	if (strcmp(own, name))
		return 0;
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 64;
		void *p = reallocarray(c->number, cap, sizeof(c->number[0]));

		if (!p || cap > NAMES_MAX)
			return -ENOMEM;
		c->number = p;
		c->cap = cap;
	}
	c->number[c->n++] = number;
	return 0;
}

static int run_open(struct call *c)
{
	int rc = c->disk->ops->file_open(&c->opened, c->disk, c->path, c->flags);

	if (rc) {
		c->opened = NULL;
		return rc == -ENOENT && !(c->flags & SOP_OPEN_CREATE) ? 0 : rc;
	}
	return c->opened->ops->size(c->opened, &c->len);
}

static void call_run(struct sop_errand *x)
{
	struct call *c = (struct call *)x;
	struct sop_disk *d = c->disk;

	switch (c->what) {
	case OPEN:
		c->rc = run_open(c);
		break;
	case LIST:
		c->rc = d->ops->list(d, c->path, add_name, c);
		if (c->rc == -ENOENT)
			c->rc = 0;
		break;
	case UNLINK:
		c->rc = d->ops->unlink(d, c->path);
		if (c->rc == -ENOENT)
			c->rc = 0;
		break;
	case MKDIR:
		c->rc = d->ops->mkdir(d, c->path);
		break;
	case TRUNCATE:
		c->rc = c->file->ops->truncate(c->file, c->len);
		break;
	case SYNC:
		c->rc = c->file->ops->datasync(c->file);
		break;
	case SYNCDIR:
		c->rc = d->ops->syncdir(d, c->path);
		break;
	case STAGE:
		c->rc = sop_disk_stage(d, c->path, c->buf, c->buf_len, c->temp, NULL);
		break;
	case NAME:
		c->rc = sop_disk_name(d, c->temp, c->path, NULL);
		break;
	}
	if (c->file)
		c->file->ops->file_close(c->file);
	c->file = NULL;
	sop_disk_close(c->held);
	c->held = NULL;
}

static void call_release(struct sop_errand *x)
{
	struct call *c = (struct call *)x;

	sop_disk_close(c->held);
	if (c->opened)
		c->opened->ops->file_close(c->opened);
	free(c->buf);
	free(c->number);
	free(c);
}

struct heal {
	struct sop_volume *v;
	unsigned member;
	uint64_t stay;
	struct sop_disk *to;
	unsigned wait_ms;
	struct sop_err *e;
};

/* A replica that has what is wanted. */
struct origin {
	unsigned member;
	struct sop_disk *disk;
	struct sop_file *file; /* NULL: it has no such file */
	uint64_t size;
};

static unsigned origins(struct heal *h, struct origin *o)
{
	unsigned idx[SOP_MEMBERS_MAX], all = sop_members_replicas(h->v->mem, idx), n = 0;

	for (unsigned i = 0; i < all; i++) {
		struct sop_disk *d = sop_members_disk(h->v->mem, idx[i]);

		if (d && idx[i] != h->member)
			o[n++] = (struct origin){.member = idx[i], .disk = d};
	}
	return n;
}

static int no_origin(struct heal *h)
{
	return sop_fail(h->e, -EIO, "%s: no replica to copy from", h->to->name);
}

static void origins_close(struct origin *o, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (o[i].file)
			o[i].file->ops->file_close(o[i].file);
}

static struct call *call_new(
	enum what what, struct sop_disk *d, struct sop_file *f, const char *path)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	sop_errand_init(&c->errand, call_run, call_release);
	c->what = what;
	c->disk = c->held = d;
	sop_disk_get(d);
	c->file = f;
	if (f)
		sop_file_get(f);
	snprintf(c->path, sizeof(c->path), "%s", path ? path : "");
	return c;
}

/* Trouble is the disk's, and told to its health. from: the disk that is read; NULL: it is the one
 * that is healed. */
static int told(struct heal *h, const struct origin *from, const char *what, int rc)
{
	if (!rc || rc == -ENOMEM)
		return rc;
	sop_members_event(h->v->mem, from ? from->member : h->member,
		from ? SOP_EVENT_READ : SOP_EVENT_WRITE, rc);
	return sop_fail(h->e, rc, "%s: %s", from ? from->disk->name : h->to->name,
		what[0] ? what : "copy of the replica");
}

static int call_wait(struct heal *h, struct call *c, const struct origin *from)
{
	struct sop_errand *x = &c->errand;

	sop_errands_run(&x, 1, !h->v->opts.inline_io, h->wait_ms);
	return told(h, from, c->path, x->finished ? c->rc : -ETIMEDOUT);
}

/* On the disk that is healed. */
static int simple(
	struct heal *h, enum what what, struct sop_file *f, const char *path, uint64_t len)
{
	struct call *c = call_new(what, h->to, f, path);
	int rc;

	if (!c)
		return -ENOMEM;
	c->len = len;
	rc = call_wait(h, c, NULL);
	sop_errand_put(&c->errand);
	return rc;
}

static int open_file(struct heal *h, const struct origin *from, const char *path, int flags,
	struct sop_file **out, uint64_t *size)
{
	struct call *c = call_new(OPEN, from ? from->disk : h->to, NULL, path);
	int rc;

	if (!c)
		return -ENOMEM;
	c->flags = flags;
	rc = call_wait(h, c, from);
	if (!rc) {
		*out = c->opened;
		*size = c->len;
		c->opened = NULL;
	}
	sop_errand_put(&c->errand);
	return rc;
}

/* A file that is to be so long, and is all holes. */
static int make_file(struct heal *h, const char *path, uint64_t size, struct sop_file **out)
{
	uint64_t was;
	int rc = open_file(h, NULL, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE, out, &was);

	if (!rc)
		rc = simple(h, TRUNCATE, *out, path, 0);
	return rc ? rc : simple(h, TRUNCATE, *out, path, size);
}

/* ---- files ---- */

/* len bytes of the batch's memory. Holes stay holes: registry files are mostly that. */
static int write_piece(struct heal *h, struct sop_batch *b, struct sop_file *f, void *buf,
	size_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	int at;

	if (sop_all_zero(buf, len))
		return 0;
	at = sop_batch_add(b, SOP_IO_WRITE, f, &iov, 1, off);
	if (at < 0)
		return at;
	sop_batch_run(b, SOP_IO_PARALLEL, 0, h->wait_ms);
	return told(h, NULL, "", sop_batch_result(b, at));
}

/* ---- the registry ---- */

struct copying {
	struct heal *h;
	uint32_t number;
	struct origin from[SOP_MEMBERS_MAX];
	unsigned n;
	bool failed; /* some replica does not tell what it has */
	struct sop_file *out;
};

/* What each replica has of [off, off + len), zeros where its file ends; the number of those that
 * answered. */
static int read_pairs(struct copying *c, struct sop_batch *b, uint64_t off, size_t len,
	const uint8_t **have, bool *failed)
{
	uint8_t *buf[SOP_MEMBERS_MAX];
	int at[SOP_MEMBERS_MAX], n = 0;

	for (unsigned i = 0; i < c->n; i++) {
		struct origin *o = &c->from[i];
		struct iovec iov;

		buf[i] = sop_batch_alloc(b, len);
		if (!buf[i])
			return -ENOMEM;
		memset(buf[i], 0, len);
		at[i] = -1;
		if (!o->file || off >= o->size)
			continue;
		iov = (struct iovec){buf[i], (size_t)SOP_MIN((uint64_t)len, o->size - off)};
		at[i] = sop_batch_add(b, SOP_IO_READ, o->file, &iov, 1, off);
		if (at[i] < 0)
			return at[i];
	}
	sop_batch_run(b, SOP_IO_PARALLEL, 0, c->h->wait_ms);
	for (unsigned i = 0; i < c->n; i++) {
		int rc = at[i] < 0 ? 0 : told(c->h, &c->from[i], "", sop_batch_result(b, at[i]));

		if (rc == -ENOMEM)
			return rc;
		if (rc)
			*failed = true;
		else
			have[n++] = buf[i];
	}
	return n ? n : -EIO;
}

/* The blocks of [off, off+len), by way of one batch for the reads and one for the write, since any
 * of them may hang. */
static int copy_pairs(struct copying *c, uint64_t off, size_t len)
{
	struct heal *h = c->h;
	const struct sop_uuid *volume = &sop_members_label(h->v->mem)->volume_uuid;
	struct sop_batch *in = sop_batch_new(h->v->io), *out = sop_batch_new(h->v->io);
	uint8_t *copy = out ? sop_batch_alloc(out, len) : NULL;
	const uint8_t *have[SOP_MEMBERS_MAX], *pair[SOP_MEMBERS_MAX];
	bool failed = c->failed;
	int n = in && copy ? read_pairs(c, in, off, len, have, &failed) : -ENOMEM;
	int rc = SOP_MIN(n, 0);

	for (size_t p = 0; p < len && !rc; p += SOP_REGISTRY_PAIR) {
		struct sop_regplace at = {c->number, (uint32_t)((off + p) / SOP_REGISTRY_PAIR)};
		bool whole;
		int best;

		for (int i = 0; i < n; i++)
			pair[i] = have[i] + p;
		best = sop_regpair_pick(volume, at, pair, (unsigned)n, &whole);
		if (best < 0)
			memset(copy + p, 0, SOP_REGISTRY_PAIR);
		else if (whole || !failed)
			memcpy(copy + p, pair[best], SOP_REGISTRY_PAIR);
		else
			rc = sop_fail(h->e, -EIO,
				"registry %08" PRIx32 " block %" PRIu32
				": not whole on the replicas that answer",
				at.file, at.block);
	}
	if (!rc)
		rc = write_piece(h, out, c->out, copy, len, off);
	sop_batch_put(in);
	sop_batch_put(out);
	return rc;
}

static int copy_registry_file(struct heal *h, uint32_t number)
{
	struct copying c = {.h = h, .number = number};
	uint64_t full = (uint64_t)sop_members_label(h->v->mem)->hashmod * SOP_REGISTRY_PAIR;
	uint64_t size = 0;
	char path[96];
	unsigned n = origins(h, c.from), left = 0;
	int rc = 0;

	registry_path(path, sizeof(path), number);
	for (unsigned i = 0; i < n && rc != -ENOMEM; i++) {
		struct origin o = c.from[i];

		rc = open_file(h, &o, path, SOP_OPEN_READ, &o.file, &o.size);
		c.failed = c.failed || rc;
		if (rc)
			continue;
		c.from[left++] = o;
		size = SOP_MAX(size, o.size);
	}
	c.n = left;
	if (rc != -ENOMEM)
		rc = left ? 0 : no_origin(h);
	if (!rc)
		rc = make_file(h, path, full, &c.out);
	size = SOP_MIN(sop_round_up(size, SOP_REGISTRY_PAIR), full);
	for (uint64_t off = 0; off < size && !rc; off += COPY_BYTES)
		rc = copy_pairs(&c, off, (size_t)SOP_MIN((uint64_t)COPY_BYTES, size - off));
	if (!rc)
		rc = simple(h, SYNC, c.out, path, 0);
	origins_close(c.from, left);
	if (c.out)
		c.out->ops->file_close(c.out);
	return rc;
}

static int list_files(struct heal *h, const struct origin *from, struct call **out)
{
	struct call *c = call_new(LIST, from ? from->disk : h->to, NULL, SOP_PATH_REGISTRY);
	int rc = c ? call_wait(h, c, from) : -ENOMEM;

	if (rc && c)
		sop_errand_put(&c->errand);
	else
		*out = c;
	return rc;
}

static bool has_number(const struct call *c, uint32_t number)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->number[i] == number)
			return true;
	return false;
}

/* The files that any replica has, in *all, which begins empty. */
static int list_all(struct heal *h, struct call *all)
{
	struct origin from[SOP_MEMBERS_MAX];
	unsigned n = origins(h, from), listed = 0;
	int rc = 0;

	for (unsigned i = 0; i < n && rc != -ENOMEM; i++) {
		struct call *one = NULL;
		char name[16];

		rc = list_files(h, &from[i], &one);
		if (rc)
			continue;
		listed++;
		for (size_t k = 0; k < one->n && !rc; k++) {
			snprintf(name, sizeof(name), "%08" PRIx32, one->number[k]);
			if (!has_number(all, one->number[k]))
				rc = add_name(all, name);
		}
		sop_errand_put(&one->errand);
	}
	if (rc == -ENOMEM)
		return rc;
	return listed ? 0 : no_origin(h);
}

/* All registry files; what no replica has goes. */
static int copy_registry(struct heal *h)
{
	struct call *all = call_new(LIST, h->to, NULL, NULL), *old = NULL;
	char path[96];
	int rc = all ? list_all(h, all) : -ENOMEM;

	if (!rc)
		rc = list_files(h, NULL, &old);
	for (size_t i = 0; !rc && i < old->n; i++) {
		registry_path(path, sizeof(path), old->number[i]);
		if (!has_number(all, old->number[i]))
			rc = simple(h, UNLINK, NULL, path, 0);
	}
	for (size_t i = 0; !rc && i < all->n; i++)
		rc = copy_registry_file(h, all->number[i]);
	if (old)
		sop_errand_put(&old->errand);
	if (all)
		sop_errand_put(&all->errand);
	return rc;
}

/* Those that an apply has written since they were copied. */
static int copy_touched(struct heal *h, bool *any)
{
	uint32_t *file = NULL;
	size_t n = 0;
	int rc = sop_registry_touched(h->v->reg, &file, &n);

	*any = n > 0;
	for (size_t i = 0; i < n && !rc; i++)
		rc = copy_registry_file(h, file[i]);
	free(file);
	return rc;
}

/* ---- checkpoint and journal ---- */

static int copy_checkpoint(struct heal *h)
{
	struct sop_members *mem = h->v->mem;
	struct call *stage = call_new(STAGE, h->to, NULL, SOP_PATH_CHECKPOINT);
	struct call *name = call_new(NAME, h->to, NULL, SOP_PATH_CHECKPOINT);
	struct sop_checkpoint c = {0};
	int rc = stage && name ? sop_checkpoint_load(&c, mem, h->e) : -ENOMEM;

	if (!rc)
		rc = sop_checkpoint_encode(&stage->buf, &stage->buf_len, &c,
			&sop_members_label(mem)->volume_uuid, h->e);
	if (!rc)
		rc = call_wait(h, stage, NULL);
	if (!rc) {
		memcpy(name->temp, stage->temp, sizeof(name->temp));
		rc = call_wait(h, name, NULL);
	}
	sop_checkpoint_release(&c);
	if (stage)
		sop_errand_put(&stage->errand);
	if (name)
		sop_errand_put(&name->errand);
	return rc;
}

static int copy_piece(
	struct heal *h, const struct origin *from, struct sop_file *to, uint64_t off, size_t len)
{
	struct sop_batch *in = sop_batch_new(h->v->io), *out = sop_batch_new(h->v->io);
	struct iovec iov = {in ? sop_batch_alloc(in, len) : NULL, len};
	void *copy = out ? sop_batch_alloc(out, len) : NULL;
	int rc = iov.iov_base && copy ? sop_batch_add(in, SOP_IO_READ, from->file, &iov, 1, off)
				      : -ENOMEM;

	if (rc >= 0) {
		sop_batch_run(in, SOP_IO_PARALLEL, 0, h->wait_ms);
		rc = told(h, from, "", sop_batch_result(in, rc));
	}
	if (!rc) {
		memcpy(copy, iov.iov_base, len);
		rc = write_piece(h, out, to, copy, len, off);
	}
	sop_batch_put(in);
	sop_batch_put(out);
	return rc;
}

/* The first `bytes` of a file, synced. */
static int copy_from(struct heal *h, struct origin *from, const char *path, uint64_t bytes)
{
	struct sop_file *out = NULL;
	int rc = open_file(h, from, path, SOP_OPEN_READ, &from->file, &from->size);

	if (!rc && (!from->file || from->size < bytes))
		rc = sop_fail(h->e, SOP_ECORRUPT, "%s: %s: is cut off", from->disk->name, path);
	if (!rc)
		rc = make_file(h, path, bytes, &out);
	for (uint64_t off = 0; off < bytes && !rc; off += COPY_BYTES)
		rc = copy_piece(
			h, from, out, off, (size_t)SOP_MIN((uint64_t)COPY_BYTES, bytes - off));
	if (!rc)
		rc = simple(h, SYNC, out, path, 0);
	origins_close(from, 1);
	if (out)
		out->ops->file_close(out);
	return rc;
}

/* From the first replica of which it is right. */
static int copy_journal(struct heal *h, uint64_t number, uint64_t bytes)
{
	struct sop_members *mem = h->v->mem;
	struct origin from[SOP_MEMBERS_MAX];
	unsigned n = origins(h, from);
	char path[SOP_JOURNAL_NAME];
	int rc = n ? SOP_ECORRUPT : no_origin(h);

	sop_journal_path(path, number);
	for (unsigned i = 0; i < n && rc; i++) {
		rc = copy_from(h, &from[i], path, bytes);
		if (!rc)
			rc = sop_journal_verify(
				mem, h->member, h->to, number, bytes, h->wait_ms, h->e);
		/* Another source is of no use when it is the target that fails. */
		if (!rc || rc == -ENOMEM || rc == -ENOSPC || rc == -EDQUOT ||
			sop_members_disk(mem, h->member) != h->to)
			break;
		if (rc == SOP_ECORRUPT)
			sop_members_event(mem, from[i].member, SOP_EVENT_CHECKSUM, rc);
	}
	return rc;
}

/* ---- the steps ---- */

static int prepare(struct heal *h)
{
	int rc = simple(h, MKDIR, NULL, SOP_PATH_REGISTRY, 0);

	if (!rc)
		rc = simple(h, MKDIR, NULL, SOP_PATH_JOURNAL, 0);
	return rc ? rc : simple(h, SYNCDIR, NULL, "", 0);
}

static int copy_spans(struct heal *h, const struct sop_journal_span *span, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = copy_journal(h, span[i].number, span[i].bytes);
	return rc;
}

/* Commit lock not held; checkpoints are held off. */
static int copy_closed(struct heal *h, const struct sop_journal_span *span, size_t n)
{
	int rc = copy_spans(h, span, n);

	if (!rc)
		rc = copy_checkpoint(h);
	if (!rc)
		rc = simple(h, SYNCDIR, NULL, SOP_PATH_REGISTRY, 0);
	return rc;
}

/* The commit lock is held. */
static int complete(struct heal *h, const struct sop_journal_span *span, size_t n)
{
	struct sop_volume *v = h->v;
	int rc;

	h->wait_ms = SOP_MIN(h->wait_ms, SHORT_MS);
	rc = copy_spans(h, span, n);
	if (!rc)
		rc = simple(h, SYNCDIR, NULL, SOP_PATH_JOURNAL, 0);
	if (rc)
		return rc;
	sop_registry_forget(v->reg, h->member);
	return sop_members_replica_current(v->mem, h->member, h->stay, h->e);
}

/* From the file `number` on, which was begun when those before were listed. Commits have filled it
 * meanwhile, and perhaps others: they wait for no more of these than can be helped. */
static int catch_up(struct heal *h, uint64_t number)
{
	struct sop_volume *v = h->v;

	for (unsigned round = 0;; round++) {
		struct sop_journal_span *span = NULL;
		size_t n, old = 0;
		bool last;
		int rc = 0;

		sop_lock(&v->commit);
		n = sop_journal_spans(v->journal, &span, NULL);
		while (span && span[old].number < number)
			old++;
		last = span && (n - old == 1 || round == ROUNDS_MAX);
		if (last)
			rc = complete(h, span + old, n - old);
		sop_unlock(&v->commit);
		if (!span)
			return -ENOMEM;
		if (!last) {
			rc = copy_spans(h, span + old, n - 1 - old);
			number = span[n - 1].number;
		}
		free(span);
		if (rc || last)
			return rc;
	}
}

static int finish(struct heal *h)
{
	struct sop_volume *v = h->v;
	struct sop_journal_span *span = NULL;
	uint64_t number;
	uint32_t chain;
	size_t n = 0;
	bool any;
	int rc = copy_touched(h, &any);

	if (rc)
		return rc;
	sop_lock(&v->commit);
	rc = v->dead ? sop_fail(h->e, SOP_EDEAD, "volume %s", v->name)
		     : sop_journal_rotate(v->journal, true, &number, &chain, h->e);
	if (!rc)
		n = sop_journal_spans(v->journal, &span, NULL);
	if (!rc && !span)
		rc = -ENOMEM;
	sop_unlock(&v->commit);
	/* All but the one just begun. */
	if (!rc)
		rc = copy_closed(h, span, n - 1);
	free(span);
	return rc ? rc : catch_up(h, number);
}

static int heal(struct heal *h)
{
	bool any = true;
	int rc = prepare(h);

	if (!rc)
		rc = copy_registry(h);
	for (unsigned i = 0; !rc && any && i < ROUNDS_MAX; i++)
		rc = copy_touched(h, &any);
	if (rc)
		return rc;
	sop_lock(&h->v->ckpt_lock);
	rc = finish(h);
	sop_unlock(&h->v->ckpt_lock);
	return rc;
}

int sop_mend_replica(struct sop_volume *v, unsigned i, uint64_t stay, struct sop_err *e)
{
	struct heal h = {.v = v,
		.member = i,
		.stay = stay,
		.to = sop_members_disk(v->mem, i),
		.wait_ms = sop_members_timeout_ms(v->mem),
		.e = e};
	int rc;

	if (!h.to)
		return sop_say(e, -ENODEV, "d%u is not here", i + 1);
	sop_registry_track(v->reg, true);
	rc = heal(&h);
	sop_registry_track(v->reg, false);
	if (rc == -ENOMEM || (rc && e && !e->text[0]))
		return sop_fail(e, rc, "healing a replica");
	if (!rc)
		sop_log(v->log, SOP_LOG_INFO, "mend", "op=replica disk=%u: up to date", i);
	return rc;
}
