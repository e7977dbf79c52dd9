/* Healing at mount: disks that were away have missed writes. Their registry replicas are copied
 * anew, the shards they missed are rebuilt from the others; only then do they count again.
 *
 * A replica: under the checkpoint and commit locks nothing changes, so registry, checkpoint and
 * journal are copied as they are, synced, and then the labels say that it is current. A crash on
 * the way leaves it not current: it is copied again. Shards: every live blob of a segment with
 * stale shards is verified and what is bad is written anew; when all of it has been synced the
 * segment is no longer stale. A crash on the way: it is done again. */
#include "core/engine.h"

#include <stdio.h>

#define COPY_BYTES (1u << 20)

/* ---- replicas ---- */

struct names {
	char **name;
	size_t n, cap;
};

static int names_add(void *arg, const char *name)
{
	struct names *l = arg;

	if (sop_disk_is_temp(name))
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 16;
		char **p = realloc(l->name, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->name = p;
		l->cap = cap;
	}
	l->name[l->n] = strdup(name);
	return l->name[l->n] ? (int)(l->n++, 0) : -ENOMEM;
}

static void names_release(struct names *l)
{
	while (l->n)
		free(l->name[--l->n]);
	free(l->name);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

static int copy_bytes(struct sop_file *to, struct sop_file *from, uint8_t *buf)
{
	uint64_t size, off;
	int rc = from->ops->size(from, &size);

	/* Holes stay holes: registry files are mostly that. */
	if (!rc)
		rc = to->ops->truncate(to, 0);
	if (!rc)
		rc = to->ops->truncate(to, size);
	for (off = 0; off < size && !rc; off += COPY_BYTES) {
		struct iovec iov = {buf, (size_t)SOP_MIN((uint64_t)COPY_BYTES, size - off)};
		ssize_t n = from->ops->preadv(from, &iov, 1, off);

		if (n != (ssize_t)iov.iov_len)
			return n < 0 ? (int)n : -EIO;
		if (all_zero(buf, iov.iov_len))
			continue;
		n = to->ops->pwritev(to, &iov, 1, off);
		if (n < 0)
			rc = (int)n;
	}
	return rc ? rc : to->ops->datasync(to);
}

static int copy_file(struct sop_disk *to, struct sop_disk *from, const char *path, uint8_t *buf)
{
	struct sop_file *in, *out;
	int rc = from->ops->file_open(&in, from, path, SOP_OPEN_READ);

	if (rc)
		return rc;
	rc = to->ops->file_open(&out, to, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE);
	if (!rc) {
		rc = copy_bytes(out, in, buf);
		to->ops->file_close(out);
	}
	from->ops->file_close(in);
	return rc;
}

static int each_name(struct sop_disk *d, const char *dir, struct names *l)
{
	int rc = d->ops->list(d, dir, names_add, l);

	return rc == -ENOENT ? 0 : rc;
}

/* Make `dir` of one disk what it is on another. */
static int copy_directory(struct sop_disk *to, struct sop_disk *from, const char *dir, uint8_t *buf)
{
	struct names old = {0}, now = {0};
	char path[512];
	int rc = to->ops->mkdir(to, dir);

	if (!rc)
		rc = each_name(to, dir, &old);
	for (size_t i = 0; i < old.n && !rc; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, old.name[i]);
		rc = to->ops->unlink(to, path);
	}
	if (!rc)
		rc = each_name(from, dir, &now);
	for (size_t i = 0; i < now.n && !rc; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, now.name[i]);
		rc = copy_file(to, from, path, buf);
	}
	if (!rc)
		rc = to->ops->syncdir(to, dir);
	names_release(&old);
	names_release(&now);
	return rc;
}

static int copy_replica(struct sop_disk *to, struct sop_disk *from, struct sop_err *e)
{
	sop_autofree uint8_t *buf = sop_alloc_aligned(COPY_BYTES);
	sop_autofree void *ckpt = NULL;
	size_t len;
	int rc;

	if (!buf)
		return sop_fail(e, -ENOMEM, "healing a replica");
	rc = copy_directory(to, from, SOP_PATH_REGISTRY, buf);
	if (!rc)
		rc = copy_directory(to, from, SOP_PATH_JOURNAL, buf);
	if (rc)
		return sop_fail(e, rc, "healing the replica on %s", to->name);
	rc = sop_disk_read_file(from, SOP_PATH_CHECKPOINT, &ckpt, &len, (size_t)1 << 31, e);
	if (!rc)
		rc = sop_disk_publish(to, SOP_PATH_CHECKPOINT, ckpt, len, e);
	return rc;
}

static bool is_in(const unsigned *list, unsigned n, unsigned i)
{
	for (unsigned k = 0; k < n; k++)
		if (list[k] == i)
			return true;
	return false;
}

static int heal_replicas(struct sop_volume *v, struct sop_err *e)
{
	unsigned current[SOP_MEMBERS_MAX], n = sop_members_replicas(v->mem, current);
	int rc = 0;

	for (unsigned i = 0; i < sop_members_count(v->mem) && n && !rc; i++) {
		struct sop_member_status s;
		struct sop_disk *to = sop_members_disk(v->mem, i);

		sop_members_status(v->mem, i, &s);
		if (!to || !(s.role & SOP_ROLE_REGISTRY) || is_in(current, n, i))
			continue;
		rc = copy_replica(to, sop_members_disk(v->mem, current[0]), e);
		if (rc == -ENOSPC || rc == -EIO) {
			/* It stays what it was; the volume works without it. */
			sop_log(v->log, SOP_LOG_WARNING, "heal", "op=replica disk=%u code=%s: %s",
				i, sop_err_name(rc), e->text);
			rc = 0;
			continue;
		}
		if (!rc)
			rc = sop_members_replica_current(v->mem, i, e);
		if (!rc)
			sop_log(v->log, SOP_LOG_INFO, "heal", "op=replica disk=%u: current again",
				i);
	}
	return rc;
}

/* ---- shards ---- */

struct stale_list {
	struct sop_volume *v;
	struct sop_heal_segment *seg;
	size_t n, cap;
};

/* The stale shards of a segment whose disks are here. */
static int stale_segment(void *arg, uint64_t id, uint64_t live, unsigned k)
{
	struct stale_list *l = arg;
	struct sop_segment_info info;
	uint32_t here = 0;

	(void)live;
	(void)k;
	if (sop_segments_info(l->v->seg, id, &info, NULL) || !info.stale)
		return 0;
	for (unsigned s = 0; s < (unsigned)info.k + info.m; s++)
		if (info.stale & 1u << s && sop_members_disk(l->v->mem, info.disks[s]))
			here |= 1u << s;
	if (!here)
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct sop_heal_segment *p = realloc(l->seg, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->seg = p;
		l->cap = cap;
	}
	l->seg[l->n++] = (struct sop_heal_segment){.id = id, .shards = here};
	return 0;
}

static int heal_shards(struct sop_volume *v, struct sop_err *e)
{
	struct stale_list l = {.v = v};
	int rc = sop_space_each(v->space, stale_segment, &l);

	if (rc)
		rc = sop_fail(e, rc, "healing");
	if (!rc && l.n) {
		if (v->opts.progress)
			v->opts.progress(v->opts.progress_ctx, "healing segments", 0, l.n);
		rc = sop_check_heal(v, l.seg, l.n, e);
		if (!rc)
			rc = sop_segments_sync(v->seg, e);
		for (size_t i = 0; i < l.n && !rc; i++) {
			uint32_t done = l.seg[i].shards & ~l.seg[i].failed;

			if (done)
				sop_segments_healed(v->seg, l.seg[i].id, done);
		}
		if (!rc)
			sop_log(v->log, SOP_LOG_INFO, "heal",
				"op=shards segments=%zu: rebuilt what was missed", l.n);
	}
	free(l.seg);
	return rc;
}

/* Members without a replica: the checkpoint of this recovery has recorded which of their shards are
 * stale, so that a later crash cannot make anybody forget it. */
static int record_data_members(struct sop_volume *v, struct sop_err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < sop_members_count(v->mem) && !rc; i++) {
		struct sop_member_status s;

		sop_members_status(v->mem, i, &s);
		if (sop_members_disk(v->mem, i) && s.role == SOP_ROLE_DATA &&
			sop_members_behind(v->mem, i))
			rc = sop_members_replica_current(v->mem, i, e);
	}
	return rc;
}

int sop_heal(struct sop_volume *v, struct sop_err *e)
{
	int rc;

	sop_lock(&v->ckpt_lock);
	sop_lock(&v->commit);
	rc = record_data_members(v, e);
	if (!rc)
		rc = heal_shards(v, e);
	if (!rc)
		rc = heal_replicas(v, e);
	sop_unlock(&v->commit);
	sop_unlock(&v->ckpt_lock);
	return rc ? sop_wrap(e, rc, "healing") : 0;
}
