/* session=write: every write is its own transaction, every read sees the newest state, as on an
 * ordinary filesystem. All handles use the committed nodeid; its pages are the kernel's own to keep
 * coherent, since nothing changes but by it. Also what changes an item in one transaction elsewhere
 * (truncate by path). */
#include <fcntl.h>

#include "fs/names.h"
#include "fs/views.h"

struct change_call {
	struct sop_name name;
	uint64_t ino;
	const struct sopfs_op *op;
	bool append;
	uint64_t base; /* the value version that was changed */
	ssize_t count;
};

static int change_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct change_call *c = arg;
	struct sop_value *value;
	struct sop_attr a;
	int rc = sop_value_open(
		&value, t, c->name, SOP_VALUE_WRITE | (c->append ? SOP_VALUE_APPEND : 0), e);

	if (rc)
		return rc;
	sop_value_attr(value, &a);
	c->base = a.value_version;
	if (a.ino != c->ino)
		rc = sop_fail(
			e, -ESTALE, "inode %llu has another name", (unsigned long long)c->ino);
	c->count = rc ? rc : sopfs_apply(value, c->op, e);
	sop_value_close(value);
	return c->count < 0 ? (int)c->count : 0;
}

static bool where_of(struct sopfs *f, struct sopfs_item *item, struct sopfs_where *w)
{
	bool there;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, w);
	pthread_mutex_unlock(&f->lock);
	return there;
}

/* Referenced: who comes by a path has no handle that it would last as long as. */
static struct sopfs_session *orphan_get(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_session *o;

	pthread_mutex_lock(&f->lock);
	o = item->orphan;
	if (o)
		o->refs++;
	pthread_mutex_unlock(&f->lock);
	return o;
}

static ssize_t change_orphan(
	struct sopfs *f, struct sopfs_session *o, const struct sopfs_op *op, struct sop_err *e)
{
	ssize_t n;

	pthread_mutex_lock(&o->lock);
	n = o->value ? sopfs_apply(o->value, op, e) : -EIO;
	pthread_mutex_unlock(&o->lock);
	sopfs_session_put(f, o);
	return n;
}

/* item.lock held. This is the newest version, whoever has made it. A change can fail and be in
 * effect, when what failed came behind its commit: the wait for the media (-o sync), or the look at
 * what was made. 0: it cannot be read. */
static void found_newest(struct sopfs *f, struct sopfs_item *item, uint64_t version)
{
	struct sopfs_notes notes = {0};
	bool same;

	pthread_mutex_lock(&f->lock);
	same = item->version == version;
	pthread_mutex_unlock(&f->lock);
	if (same)
		return;
	sopfs_superseded(f, item, NULL, version, &notes);
	sopfs_notify_later(f, &notes);
}

ssize_t sopfs_change_now(struct sopfs *f, struct sopfs_item *item, bool append,
	const struct sopfs_op *op, uint64_t *version, struct sop_err *e)
{
	/* In a world appends go to the end as it is now, as nobody else is in it. */
	struct change_call call = {.ino = item->ino, .op = op, .append = append && !f->world};
	struct sopfs_op at_end;
	struct sopfs_where w;
	struct sop_attr a;
	struct sopfs_session *orphan = orphan_get(f, item);
	int rc, seen;

	if (orphan)
		return change_orphan(f, orphan, op, e);
	if (!where_of(f, item, &w))
		return -ESTALE;
	call.name = sopfs_where_name(&w);
	if (append && f->world) {
		rc = sop_lookup(f->latest, call.name, &a, e);
		if (rc)
			return rc;
		at_end = *op;
		at_end.off = a.size;
		call.op = &at_end;
	}
	rc = sopfs_name_lost(f, sopfs_txn(f, change_txn, &call, e));
	/* Another mounter has changed it since we looked: the pages written through lack that. */
	if (!rc && f->shared)
		found_newest(f, item, call.base);
	seen = sop_lookup(f->latest, call.name, &a, rc ? NULL : e);
	if (!seen && a.ino != item->ino)
		seen = -ESTALE;
	if (rc || seen) {
		found_newest(f, item, seen ? 0 : a.value_version);
		return rc ? rc : sopfs_name_lost(f, seen);
	}
	*version = a.value_version;
	return call.count;
}

int sopfs_truncate_now(struct sopfs *f, struct sopfs_item *item, uint64_t size, uint64_t *version,
	struct sop_err *e)
{
	struct sopfs_op op = {.change = SOPFS_SIZE, .len = size};

	return (int)sopfs_change_now(f, item, false, &op, version, e);
}

/* The newest version, opened again when it has changed. h->direct_lock held. */
static int newest(struct sopfs *f, struct sopfs_handle *h, struct sop_err *e)
{
	struct sopfs_item *item = h->view->item;
	uint64_t version;
	int rc = -EAGAIN;

	pthread_mutex_lock(&f->lock);
	version = item->version;
	pthread_mutex_unlock(&f->lock);
	if (h->snap && h->snap->attr.value_version == version)
		return 0;
	if (h->snap)
		sopfs_snap_free(h->snap);
	h->snap = NULL;
	for (unsigned i = 0; rc == -EAGAIN && i < SOPFS_TRIES; i++)
		rc = sopfs_snap_new(f, item, &h->snap, e);
	return rc == -EAGAIN ? -ESTALE : rc;
}

static struct sopfs_session *orphan_of(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_session *o;

	pthread_mutex_lock(&f->lock);
	o = item->orphan;
	pthread_mutex_unlock(&f->lock);
	return o;
}

/* Reads into buf, takes a clip, or seeks. */
static int64_t look(struct sop_value *value, void *buf, struct sop_clip **clip, uint64_t len,
	uint64_t off, bool hole, struct sop_err *e)
{
	if (buf)
		return value ? sop_value_read(value, buf, (size_t)len, off, e) : -EIO;
	if (clip)
		return value ? sop_clip_take(clip, value, off, len, e) : -EIO;
	return value ? sop_value_seek(value, off, hole, e) : -ENXIO;
}

/* A world's newest state is its transaction's, where a value is open for one call at a time. */
static int64_t world_look(struct sopfs *f, struct sopfs_handle *h, void *buf,
	struct sop_clip **clip, uint64_t len, uint64_t off, bool hole, struct sop_err *e)
{
	struct sop_value *value;
	struct sopfs_where w;
	int64_t n;

	if (!where_of(f, h->view->item, &w))
		return -ESTALE;
	n = sop_value_open(&value, f->latest, sopfs_where_name(&w), 0, e);
	if (n)
		return n;
	n = look(value, buf, clip, len, off, hole, e);
	sop_value_close(value);
	return n;
}

static int64_t direct_look(struct sopfs *f, struct sopfs_handle *h, void *buf,
	struct sop_clip **clip, uint64_t len, uint64_t off, bool hole, struct sop_err *e)
{
	struct sopfs_session *o = orphan_of(f, h->view->item);
	pthread_mutex_t *lock = o ? &o->lock : &h->direct_lock;
	int64_t n = 0;

	if (!o && f->world)
		return world_look(f, h, buf, clip, len, off, hole, e);
	pthread_mutex_lock(lock);
	if (!o)
		n = newest(f, h, e);
	if (!n)
		n = look(o ? o->value : h->snap->value, buf, clip, len, off, hole, e);
	pthread_mutex_unlock(lock);
	return n;
}

ssize_t sopfs_direct_read(struct sopfs *f, struct sopfs_handle *h, void *buf, size_t len,
	uint64_t off, struct sop_err *e)
{
	return (ssize_t)direct_look(f, h, buf, NULL, len, off, false, e);
}

int sopfs_direct_clip(struct sopfs *f, struct sopfs_handle *h, struct sop_clip **clip, uint64_t off,
	uint64_t len, struct sop_err *e)
{
	return (int)direct_look(f, h, NULL, clip, len, off, false, e);
}

int64_t sopfs_direct_seek(
	struct sopfs *f, struct sopfs_handle *h, uint64_t off, bool hole, struct sop_err *e)
{
	return direct_look(f, h, NULL, NULL, 0, off, hole, e);
}

/* A world's value outlives its name in the world's own transaction, and ends with it. */
static int world_orphan(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_session *o, struct sop_err *e)
{
	struct sopfs_where w;

	if (!where_of(f, item, &w))
		return -ESTALE;
	return sop_value_open(&o->value, f->latest, sopfs_where_name(&w), SOP_VALUE_WRITE, e);
}

int sopfs_direct_orphan_new(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_session **out, struct sop_err *e)
{
	struct sopfs_session *o;
	int rc;

	*out = NULL;
	if (!item->direct || item->orphan)
		return 0;
	o = sopfs_session_new(f, item, 0, O_RDWR);
	if (!o)
		return -ENOMEM;
	rc = f->world ? world_orphan(f, item, o, e) : sopfs_session_begin(f, o, false, NULL, e);
	if (rc)
		sopfs_session_put(f, o);
	else
		*out = o;
	return rc;
}

void sopfs_direct_orphan_set(struct sopfs *f, struct sopfs_item *item, struct sopfs_session *o)
{
	pthread_mutex_lock(&f->lock);
	item->orphan = o;
	pthread_mutex_unlock(&f->lock);
}

int sopfs_direct_orphan(struct sopfs *f, struct sopfs_item *item, struct sop_err *e)
{
	struct sopfs_session *o;
	int rc = sopfs_direct_orphan_new(f, item, &o, e);

	if (o)
		sopfs_direct_orphan_set(f, item, o);
	return rc;
}

bool sopfs_direct_last(
	struct sopfs *f, struct sopfs_item *item, const struct sop_attr *a, char *last)
{
	struct sopfs_snap *snap;
	bool there;

	if (!a->size || sopfs_snap_new(f, item, &snap, NULL))
		return false;
	there = snap->value && snap->attr.size == a->size &&
		sop_value_read(snap->value, last, 1, a->size - 1, NULL) == 1;
	sopfs_snap_free(snap);
	return there;
}

void sopfs_direct_release(struct sopfs *f, struct sopfs_handle *h)
{
	struct sopfs_item *item = h->view->item;
	struct sopfs_session *o = NULL;

	pthread_mutex_lock(&f->lock);
	if (h->direct)
		h->view->direct--;
	if (--item->direct == 0) {
		o = item->orphan;
		item->orphan = NULL;
	}
	pthread_mutex_unlock(&f->lock);
	if (o)
		sopfs_session_put(f, o);
	if (h->snap)
		sopfs_snap_free(h->snap);
	h->snap = NULL;
}
