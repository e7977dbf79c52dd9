/* Bringing a replica up to date while the volume is used.
 *
 *   1. registry files are copied; commits and checkpoints go on. Files that a checkpoint changes
 *      meanwhile are noted
 *   2. checkpoints are held off. Those files are copied again; the journal goes on in a new file,
 *      and all before it, which does not change any more, is copied, and so is the checkpoint
 *      file. All of it is synced
 *   3. commits are held off. What the newest journal file has by now is copied and synced, and a
 *      round of labels calls the replica current. The next append begins a file that it has, too
 *
 * A crash before the labels say so leaves a replica that nobody believes. The disk that is healed
 * gets a short bound in step 3: it holds up everybody. */
#include "core/mend.h"

#include <stdio.h>

#include "core/errand.h"

#define COPY_BYTES (1u << 20)
#define SHORT_MS   2000u
#define ROUNDS_MAX 4
#define NAMES_MAX  65536u

/* ---- calls with a bound ---- */

enum what { OPEN, LIST, UNLINK, MKDIR, TRUNCATE, SYNC, SYNCDIR, SIZE, PUBLISH, READ_WHOLE };

struct call {
	struct sop_errand errand;
	enum what what;
	struct sop_disk *disk;
	struct sop_file *file; /* held */
	char path[96];
	int flags;
	uint64_t len;
	void *buf; /* PUBLISH, READ_WHOLE */
	size_t buf_len;
	struct sop_file *opened;
	char (*name)[24];
	size_t n, cap;
	int rc;
};

static int add_name(void *arg, const char *name)
{
	struct call *c = arg;

	if (sop_disk_is_temp(name) || strlen(name) >= sizeof(c->name[0]))
		return 0;
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 64;
		void *p = reallocarray(c->name, cap, sizeof(c->name[0]));

		if (!p || cap > NAMES_MAX)
			return -ENOMEM;
		c->name = p;
		c->cap = cap;
	}
	strcpy(c->name[c->n++], name);
	return 0;
}

static void call_run(struct sop_errand *x)
{
	struct call *c = (struct call *)x;
	struct sop_disk *d = c->disk;

	switch (c->what) {
	case OPEN:
		c->rc = d->ops->file_open(&c->opened, d, c->path, c->flags);
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
		c->rc = c->file->ops->truncate(c->file, 0);
		if (!c->rc)
			c->rc = c->file->ops->truncate(c->file, c->len);
		break;
	case SYNC:
		c->rc = c->file->ops->datasync(c->file);
		break;
	case SYNCDIR:
		c->rc = d->ops->syncdir(d, c->path);
		break;
	case SIZE:
		c->rc = c->file->ops->size(c->file, &c->len);
		break;
	case PUBLISH:
		c->rc = sop_disk_publish(d, c->path, c->buf, c->buf_len, NULL);
		break;
	case READ_WHOLE:
		c->rc = sop_disk_read_file(d, c->path, &c->buf, &c->buf_len, c->len, NULL);
		break;
	}
	if (c->file)
		c->file->ops->file_close(c->file);
	c->file = NULL;
}

static void call_release(struct sop_errand *x)
{
	struct call *c = (struct call *)x;

	if (c->opened)
		c->opened->ops->file_close(c->opened);
	free(c->buf);
	free(c->name);
	free(c);
}

struct heal {
	struct sop_volume *v;
	unsigned member, source;
	uint64_t stay;
	struct sop_disk *to, *from;
	unsigned wait_ms;
	struct sop_err *e;
};

static struct call *call_new(
	enum what what, struct sop_disk *d, struct sop_file *f, const char *path)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	sop_errand_init(&c->errand, call_run, call_release);
	c->what = what;
	c->disk = d;
	c->file = f;
	if (f)
		sop_file_get(f);
	snprintf(c->path, sizeof(c->path), "%s", path ? path : "");
	return c;
}

/* Trouble is the disk's, and told to its health. */
static int call_wait(struct heal *h, struct call *c, struct sop_disk *d)
{
	struct sop_errand *x = &c->errand;
	int rc;

	sop_errands_run(&x, 1, !h->v->opts.inline_io, h->wait_ms);
	rc = x->finished ? c->rc : -ETIMEDOUT;
	if (!rc || rc == -ENOMEM)
		return rc;
	sop_members_event(h->v->mem, d == h->to ? h->member : h->source,
		d == h->to ? SOP_EVENT_WRITE : SOP_EVENT_READ, rc);
	return sop_fail(h->e, rc, "%s: %s", d->name, c->path[0] ? c->path : "copy of the replica");
}

static int simple(struct heal *h, enum what what, struct sop_disk *d, struct sop_file *f,
	const char *path, uint64_t len)
{
	struct call *c = call_new(what, d, f, path);
	int rc;

	if (!c)
		return -ENOMEM;
	c->len = len;
	rc = call_wait(h, c, d);
	sop_errand_put(&c->errand);
	return rc;
}

static int open_file(
	struct heal *h, struct sop_disk *d, const char *path, int flags, struct sop_file **out)
{
	struct call *c = call_new(OPEN, d, NULL, path);
	int rc;

	if (!c)
		return -ENOMEM;
	c->flags = flags;
	rc = call_wait(h, c, d);
	if (!rc) {
		*out = c->opened;
		c->opened = NULL;
	}
	sop_errand_put(&c->errand);
	return rc;
}

static int file_size(struct heal *h, struct sop_file *f, uint64_t *len)
{
	struct call *c = call_new(SIZE, f->disk, f, NULL);
	int rc;

	if (!c)
		return -ENOMEM;
	rc = call_wait(h, c, f->disk);
	if (!rc)
		*len = c->len;
	sop_errand_put(&c->errand);
	return rc;
}

/* ---- files ---- */

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

static int transfer(struct heal *h, enum sop_io_op op, struct sop_batch *b, struct sop_file *f,
	void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	int at = sop_batch_add(b, op, f, &iov, 1, off), rc;

	if (at < 0)
		return at;
	sop_batch_run(b, SOP_IO_PARALLEL, 0, h->wait_ms);
	rc = sop_batch_result(b, at);
	if (!rc || rc == -ENOMEM)
		return rc;
	sop_members_event(h->v->mem, op == SOP_IO_WRITE ? h->member : h->source,
		op == SOP_IO_WRITE ? SOP_EVENT_WRITE : SOP_EVENT_READ, rc);
	return sop_fail(h->e, rc, "%s: copy of the replica", f->disk->name);
}

/* [off, off+len), by way of one batch for the read and one for the write, since either may hang. */
static int copy_piece(
	struct heal *h, struct sop_file *to, struct sop_file *from, uint64_t off, size_t len)
{
	struct sop_batch *in = sop_batch_new(h->v->io), *out = sop_batch_new(h->v->io);
	void *buf = in ? sop_batch_alloc(in, len) : NULL;
	void *copy = out ? sop_batch_alloc(out, len) : NULL;
	int rc = buf && copy ? 0 : -ENOMEM;

	if (!rc)
		rc = transfer(h, SOP_IO_READ, in, from, buf, len, off);
	/* Holes stay holes: registry files are mostly that. */
	if (!rc && !all_zero(buf, len)) {
		memcpy(copy, buf, len);
		rc = transfer(h, SOP_IO_WRITE, out, to, copy, len, off);
	}
	sop_batch_put(in);
	sop_batch_put(out);
	return rc;
}

/* The first `bytes` of a file (all of it when that is 0), synced. */
static int copy_file(struct heal *h, const char *path, uint64_t bytes)
{
	struct sop_file *in = NULL, *out = NULL;
	uint64_t size = 0;
	int rc = open_file(h, h->from, path, SOP_OPEN_READ, &in);

	if (!rc)
		rc = file_size(h, in, &size);
	if (!rc)
		rc = open_file(h, h->to, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE, &out);
	if (bytes)
		size = SOP_MIN(size, bytes);
	if (!rc)
		rc = simple(h, TRUNCATE, h->to, out, path, size);
	for (uint64_t off = 0; off < size && !rc; off += COPY_BYTES)
		rc = copy_piece(h, out, in, off, (size_t)SOP_MIN((uint64_t)COPY_BYTES, size - off));
	if (!rc)
		rc = simple(h, SYNC, h->to, out, path, 0);
	if (in)
		in->ops->file_close(in);
	if (out)
		out->ops->file_close(out);
	return rc;
}

static int list_names(struct heal *h, struct sop_disk *d, const char *dir, struct call **out)
{
	struct call *c = call_new(LIST, d, NULL, dir);
	int rc = c ? call_wait(h, c, d) : -ENOMEM;

	if (rc && c)
		sop_errand_put(&c->errand);
	else
		*out = c;
	return rc;
}

static bool has_name(const struct call *c, const char *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (!strcmp(c->name[i], name))
			return true;
	return false;
}

/* All registry files of the source; what it does not have goes. */
static int copy_registry(struct heal *h)
{
	struct call *old = NULL, *now = NULL;
	char path[96];
	int rc = list_names(h, h->to, SOP_PATH_REGISTRY, &old);

	if (!rc)
		rc = list_names(h, h->from, SOP_PATH_REGISTRY, &now);
	for (size_t i = 0; !rc && i < old->n; i++) {
		snprintf(path, sizeof(path), "%s/%s", SOP_PATH_REGISTRY, old->name[i]);
		if (!has_name(now, old->name[i]))
			rc = simple(h, UNLINK, h->to, NULL, path, 0);
	}
	for (size_t i = 0; !rc && i < now->n; i++) {
		snprintf(path, sizeof(path), "%s/%s", SOP_PATH_REGISTRY, now->name[i]);
		rc = copy_file(h, path, 0);
	}
	if (old)
		sop_errand_put(&old->errand);
	if (now)
		sop_errand_put(&now->errand);
	return rc;
}

/* Those that an apply has written since they were copied. */
static int copy_touched(struct heal *h, bool *any)
{
	uint32_t *file = NULL;
	size_t n = 0;
	char path[96];
	int rc = sop_registry_touched(h->v->reg, &file, &n);

	*any = n > 0;
	for (size_t i = 0; i < n && !rc; i++) {
		snprintf(path, sizeof(path), "%s/%08x", SOP_PATH_REGISTRY, file[i]);
		rc = copy_file(h, path, 0);
	}
	free(file);
	return rc;
}

static int copy_checkpoint(struct heal *h)
{
	struct call *in = call_new(READ_WHOLE, h->from, NULL, SOP_PATH_CHECKPOINT), *out = NULL;
	int rc = -ENOMEM;

	if (in) {
		in->len = (size_t)1 << 30;
		rc = call_wait(h, in, h->from);
	}
	if (!rc)
		out = call_new(PUBLISH, h->to, NULL, SOP_PATH_CHECKPOINT);
	if (!rc && !out)
		rc = -ENOMEM;
	if (!rc) {
		out->buf = in->buf;
		out->buf_len = in->buf_len;
		in->buf = NULL;
		rc = call_wait(h, out, h->to);
	}
	if (in)
		sop_errand_put(&in->errand);
	if (out)
		sop_errand_put(&out->errand);
	return rc;
}

static int copy_journal(struct heal *h, uint64_t number, uint64_t bytes)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/%016llx", SOP_PATH_JOURNAL, (unsigned long long)number);
	return copy_file(h, path, bytes);
}

/* ---- the steps ---- */

static int prepare(struct heal *h)
{
	int rc = simple(h, MKDIR, h->to, NULL, SOP_PATH_REGISTRY, 0);

	if (!rc)
		rc = simple(h, MKDIR, h->to, NULL, SOP_PATH_JOURNAL, 0);
	return rc ? rc : simple(h, SYNCDIR, h->to, NULL, "", 0);
}

/* Commit lock not held; checkpoints are held off. */
static int copy_closed(struct heal *h, struct sop_journal_span *span, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = copy_journal(h, span[i].number, span[i].bytes);
	if (!rc)
		rc = copy_checkpoint(h);
	if (!rc)
		rc = simple(h, SYNCDIR, h->to, NULL, SOP_PATH_REGISTRY, 0);
	return rc;
}

/* The commit lock is held. */
static int complete(struct heal *h)
{
	struct sop_volume *v = h->v;
	struct sop_journal_span last;
	int rc;

	h->wait_ms = SOP_MIN(h->wait_ms, SHORT_MS);
	sop_journal_spans(v->journal, NULL, &last);
	rc = copy_journal(h, last.number, last.bytes);
	if (!rc)
		rc = simple(h, SYNCDIR, h->to, NULL, SOP_PATH_JOURNAL, 0);
	if (rc)
		return rc;
	sop_registry_forget(v->reg, h->member);
	return sop_members_replica_current(v->mem, h->member, h->stay, h->e);
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
	if (rc)
		return rc;
	sop_lock(&v->commit);
	rc = complete(h);
	sop_unlock(&v->commit);
	return rc;
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
	unsigned current[SOP_MEMBERS_MAX], n = sop_members_replicas(v->mem, current);
	struct heal h = {.v = v,
		.member = i,
		.stay = stay,
		.to = sop_members_disk(v->mem, i),
		.wait_ms = sop_members_timeout_ms(v->mem),
		.e = e};
	int rc = -EIO;

	if (!h.to)
		return sop_say(e, -ENODEV, "d%u is not here", i + 1);
	sop_registry_track(v->reg, true);
	for (unsigned j = 0; j < n && rc; j++) {
		h.source = current[j];
		h.from = sop_members_disk(v->mem, h.source);
		h.wait_ms = sop_members_timeout_ms(v->mem);
		if (!h.from || h.source == i)
			continue;
		rc = heal(&h);
		/* Another source is of no use when it is the target that fails. */
		if (sop_members_disk(v->mem, i) != h.to || rc == -ENOSPC || rc == -ENOMEM ||
			rc == -EAGAIN)
			break;
	}
	sop_registry_track(v->reg, false);
	if (rc == -ENOMEM)
		return sop_fail(e, rc, "healing a replica");
	if (rc && e && !e->text[0])
		return sop_fail(e, rc, "healing a replica");
	if (!rc)
		sop_log(v->log, SOP_LOG_INFO, "mend", "op=replica disk=%u: up to date", i);
	return rc;
}
