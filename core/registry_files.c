/* Files of the registry: opening and making them, the table of those that are open, and the room
 * for what a checkpoint is going to write.
 *
 * Room. Once a checkpoint is published its flips must reach every replica that is to stay one, so a
 * disk that turns out to be full then costs its replica. Hence the blocks' room is taken before,
 * where it can still be refused. On a file system that cannot take room ahead (or copies on write)
 * the write is what tells, as for any other error. A crash leaves zeros where nothing was: those
 * are empty blocks, as holes are. */
#include "core/registry_files.h"

#include <stdio.h>

#include "core/errand.h"

static uint64_t file_bytes(const struct sop_regblocks *b)
{
	return (uint64_t)b->hashmod * SOP_REGISTRY_PAIR;
}

/* Opening may hang in the device: it runs as an errand. */
struct opening {
	struct sop_errand errand;
	struct sop_disk *disk; /* held until it has run */
	char path[32];
	bool create;
	uint64_t full;
	struct sop_file *f;
	uint64_t size;
	bool made;
	int rc;
};

static void open_file(struct opening *o)
{
	int flags = o->create ? SOP_OPEN_WRITE : SOP_OPEN_READ;

	o->rc = o->disk->ops->file_open(&o->f, o->disk, o->path, flags);
	if (o->rc == -ENOENT && o->create) {
		o->made = true;
		o->rc = o->disk->ops->file_open(
			&o->f, o->disk, o->path, SOP_OPEN_WRITE | SOP_OPEN_CREATE);
	}
	if (o->rc == -ENOENT && o->create) { /* somebody has removed the folder */
		o->rc = o->disk->ops->mkdir(o->disk, SOP_PATH_REGISTRY);
		if (!o->rc)
			o->rc = o->disk->ops->syncdir(o->disk, "");
		if (!o->rc)
			o->rc = o->disk->ops->file_open(
				&o->f, o->disk, o->path, SOP_OPEN_WRITE | SOP_OPEN_CREATE);
	}
	if (o->rc) {
		o->f = NULL;
		return;
	}
	o->rc = o->f->ops->size(o->f, &o->size);
	if (!o->rc && o->create && o->size < o->full) {
		o->rc = o->f->ops->truncate(o->f, o->full);
		o->size = o->full;
	}
}

static void opening_run(struct sop_errand *x)
{
	struct opening *o = (struct opening *)x;

	open_file(o);
	sop_disk_close(o->disk);
}

static void opening_release(struct sop_errand *x)
{
	struct opening *o = (struct opening *)x;

	if (o->f)
		o->f->ops->file_close(o->f);
	free(o);
}

static struct sop_regfile **bucket_of(struct sop_regblocks *b, unsigned member, uint32_t file)
{
	return &b->bucket[(file * 31u + member) % SOP_REGFILE_BUCKETS];
}

/* Under the lock. A file of a disk that has been replaced does not count any more. */
static struct sop_regfile *table_find(struct sop_regblocks *b, unsigned member, uint32_t file,
	const struct sop_disk *d, bool write)
{
	struct sop_regfile **p = bucket_of(b, member, file);

	while (*p) {
		struct sop_regfile *r = *p;

		if (r->member != member || r->file != file) {
			p = &r->next;
			continue;
		}
		if (r->f->disk == d && (r->writable || !write))
			return r;
		*p = r->next;
		r->next = b->retired;
		b->retired = r;
	}
	return NULL;
}

int sop_regfile_get(struct sop_regblocks *b, unsigned member, uint32_t file, bool create,
	struct sop_regfile **out)
{
	struct sop_disk *d = sop_members_disk(b->mem, member);
	struct sop_regfile *r;
	struct opening *o;
	int rc;

	*out = NULL;
	if (!d)
		return -ENODEV;
	sop_lock(&b->lock);
	*out = table_find(b, member, file, d, create);
	sop_unlock(&b->lock);
	if (*out)
		return 0;
	r = calloc(1, sizeof(*r));
	o = calloc(1, sizeof(*o));
	if (!r || !o) {
		free(r);
		free(o);
		return -ENOMEM;
	}
	sop_errand_init(&o->errand, opening_run, opening_release);
	o->disk = d;
	sop_disk_get(d);
	o->create = create;
	o->full = file_bytes(b);
	snprintf(o->path, sizeof(o->path), "%s/%08x", SOP_PATH_REGISTRY, file);
	sop_errands_run(
		&(struct sop_errand *){&o->errand}, 1, true, sop_members_timeout_ms(b->mem));
	rc = o->errand.finished ? o->rc : -ETIMEDOUT;
	if (rc) {
		free(r);
		sop_errand_put(&o->errand);
		return rc;
	}
	*r = (struct sop_regfile){.member = member,
		.file = file,
		.f = o->f,
		.size = o->size,
		.writable = create,
		.unsynced = true,
		.unnamed = create};
	o->f = NULL;
	sop_errand_put(&o->errand);
	sop_lock(&b->lock);
	*out = table_find(b, member, file, d, create);
	if (*out) { /* another thread was first */
		r->next = b->retired;
		b->retired = r;
	} else {
		r->next = *bucket_of(b, member, file);
		*bucket_of(b, member, file) = r;
		*out = r;
	}
	sop_unlock(&b->lock);
	return 0;
}

void sop_regblocks_forget(struct sop_regblocks *b, unsigned member)
{
	SOP_LOCK_GUARD(&b->lock);
	for (unsigned i = 0; i < SOP_REGFILE_BUCKETS; i++) {
		struct sop_regfile **p = &b->bucket[i];

		while (*p) {
			struct sop_regfile *r = *p;

			if (r->member != member) {
				p = &r->next;
				continue;
			}
			*p = r->next;
			r->next = b->retired;
			b->retired = r;
		}
	}
}

static void files_close(struct sop_regfile *r)
{
	while (r) {
		struct sop_regfile *next = r->next;

		r->f->ops->file_close(r->f);
		free(r->reserved);
		free(r);
		r = next;
	}
}

int sop_regblocks_new(struct sop_regblocks **out, struct sop_members *mem, struct sop_iopool *io,
	uint32_t hashmod, struct sop_err *e)
{
	struct sop_regblocks *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (!b)
		return sop_fail(e, -ENOMEM, "registry");
	b->mem = mem;
	b->io = io;
	b->hashmod = hashmod;
	b->volume = sop_members_label(mem)->volume_uuid;
	sop_lock_init(&b->lock, SOP_RANK_REGISTRY, "registry files");
	*out = b;
	return 0;
}

void sop_regblocks_free(struct sop_regblocks *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < SOP_REGFILE_BUCKETS; i++)
		files_close(b->bucket[i]);
	files_close(b->retired);
	sop_lock_release(&b->lock);
	free(b);
}
/* ---- room ---- */

/* What one replica is asked for: runs of blocks, in files that are held open. */
struct reserving {
	struct sop_errand errand;
	size_t n;
	int rc;
	struct {
		struct sop_file *f;
		uint64_t off, len;
	} run[];
};

static void reserving_run(struct sop_errand *x)
{
	struct reserving *r = (struct reserving *)x;

	for (size_t i = 0; i < r->n && !r->rc; i++)
		r->rc = r->run[i].f->ops->allocate(r->run[i].f, r->run[i].off, r->run[i].len);
}

static void reserving_release(struct sop_errand *x)
{
	struct reserving *r = (struct reserving *)x;

	for (size_t i = 0; i < r->n; i++)
		r->run[i].f->ops->file_close(r->run[i].f);
	free(r);
}

static bool has_room(const struct sop_regfile *f, uint32_t block)
{
	return f->reserved && f->reserved[block / 8] >> block % 8 & 1;
}

/* Without memory to note it, it is asked again. */
static void note_room(struct sop_regblocks *b, struct sop_regfile *f, uint32_t block)
{
	if (!f->reserved)
		f->reserved = calloc(1, sop_div_up(b->hashmod, 8));
	if (f->reserved)
		f->reserved[block / 8] = (uint8_t)(f->reserved[block / 8] | 1u << block % 8);
}

/* The runs that have no room yet; *out NULL: all have. */
static int reserving_new(struct reserving **out, struct sop_regblocks *b, unsigned member,
	const struct sop_regplace *at, size_t n)
{
	struct reserving *r = calloc(1, sizeof(*r) + n * sizeof(r->run[0]));
	int rc = r ? 0 : -ENOMEM;

	*out = NULL;
	for (size_t i = 0; !rc && i < n; i++) {
		uint64_t off = sop_regplace_offset(at[i]);
		struct sop_regfile *f;

		rc = sop_regfile_get(b, member, at[i].file, true, &f);
		if (rc || has_room(f, at[i].block))
			continue;
		if (r->n && r->run[r->n - 1].f == f->f &&
			r->run[r->n - 1].off + r->run[r->n - 1].len == off) {
			r->run[r->n - 1].len += SOP_REGISTRY_PAIR;
			continue;
		}
		sop_file_get(f->f);
		r->run[r->n].f = f->f;
		r->run[r->n].off = off;
		r->run[r->n++].len = SOP_REGISTRY_PAIR;
	}
	if (r)
		sop_errand_init(&r->errand, reserving_run, reserving_release);
	if (!rc && r->n)
		*out = r;
	else if (r)
		sop_errand_put(&r->errand);
	return rc;
}

/* 0, or what the replica answered. */
static int reserve_on(
	struct sop_regblocks *b, unsigned member, const struct sop_regplace *at, size_t n)
{
	struct reserving *r;
	int rc = reserving_new(&r, b, member, at, n);

	if (rc || !r)
		return rc;
	sop_errands_run(
		&(struct sop_errand *){&r->errand}, 1, true, sop_members_timeout_ms(b->mem));
	rc = r->errand.finished ? r->rc : -ETIMEDOUT;
	sop_errand_put(&r->errand);
	for (size_t i = 0; i < n && !rc; i++) {
		struct sop_regfile *f;

		rc = sop_regfile_get(b, member, at[i].file, true, &f);
		if (!rc)
			note_room(b, f, at[i].block);
	}
	return rc;
}

int sop_regblocks_reserve(struct sop_regblocks *b, const struct sop_regplace *at, size_t n,
	bool needed, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], replicas = sop_members_replicas(b->mem, idx);
	unsigned full = SOP_MEMBERS_MAX, good = 0;
	bool is_full[SOP_MEMBERS_MAX] = {0};
	int result[SOP_MEMBERS_MAX];

	for (unsigned i = 0; i < replicas; i++) {
		result[i] = reserve_on(b, idx[i], at, n);
		if (result[i] == -ENOMEM)
			return sop_fail(e, -ENOMEM, "registry: room for %zu blocks", n);
		good += !result[i];
		if (result[i] == -ENOSPC || result[i] == -EDQUOT)
			is_full[idx[full = i]] = true;
		if (result[i])
			sop_members_event(b->mem, idx[i], SOP_EVENT_WRITE, result[i]);
	}
	if (full < replicas && !(good && needed && sop_members_can_spare(b->mem, is_full)))
		return sop_say(e, -ENOSPC, "registry: no space left on disk %s",
			sop_members_disk_any(b->mem, idx[full])->name);
	for (unsigned i = 0; i < replicas; i++)
		if (result[i] == -ENOSPC || result[i] == -EDQUOT)
			sop_members_event(b->mem, idx[i], SOP_EVENT_WRITE, -EIO);
	return good ? 0 : sop_fail(e, -EIO, "registry: no replica is left");
}
