/* Values as streams: what was committed, and over it what this session has written.
 *
 * A write goes to memory; large or many ones go on to the disks as blobs at once, so that a
 * session's memory is bounded whatever it writes. The committed value is never changed: commit
 * (resolve.c) cuts its extents where the session wrote and puts the new ones in.
 *
 * A crash before commit leaves blobs nobody refers to; space.c finds them. */
#include "core/engine.h"

#include <sys/stat.h>

#define DIRECT_MIN                                                                                 \
	(256u << 10) /* a write this large goes to the disks without a stop in memory              \
		      */
#define BLOB_BYTES	(1u << 20)   /* data in one blob of a stream */
#define MEMORY_MAX	(1u << 20)   /* bytes of a session in memory before they are written out */
#define BIG_MAX		(128u << 10) /* the same where values are meant to be big */
#define BULK_MIN	(64u << 10)  /* shorter runs are packed with the commit */
#define PRESSED_MAX	(16u << 10)  /* the same while all of them together have too many */
#define WINDOW		64u
#define PUTS_MAX	64u
#define BYTES_LOOKED_UP 64u  /* intervals */
#define CARRY_MIN	512u /* extents */

static void blob_dropped(void *arg, const struct sop_blobref *ref)
{
	struct sop_value *x = arg;

	sop_space_abandon(x->t->v->space, ref);
}

static struct sop_value *value_new(struct sop_txn *t, unsigned flags)
{
	struct sop_value *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->t = t;
	x->flags = flags;
	x->open = true;
	x->lsn = t->lsn;
	x->limit = UINT64_MAX;
	sop_lock_init(&x->lock, SOP_RANK_VALUE, "value");
	sop_imap_init(&x->map, blob_dropped, x);
	sop_imap_init(&x->app, blob_dropped, x);
	return x;
}

static void unpin(struct sop_value *x)
{
	struct sop_pins *p = x->t->v->pins;

	if (x->pinned)
		sop_pins_put(p, x->base.attr.ino, x->lsn);
	if (x->pinned_tree)
		sop_pins_put(p, x->base.tree, x->lsn);
	x->pinned = x->pinned_tree = false;
}

static void count_memory(struct sop_value *x)
{
	size_t now = x->map.mem_bytes + x->app.mem_bytes;

	if (now != x->counted)
		atomic_fetch_add(&x->t->v->value_bytes, now - x->counted);
	x->counted = now;
}

static void value_free(struct sop_value *x)
{
	atomic_fetch_sub(&x->t->v->value_bytes, x->counted);
	unpin(x);
	sop_loans_release(&x->loans, x->t->v->pins);
	sop_imap_release(&x->map);
	sop_imap_release(&x->app);
	sop_lock_release(&x->lock);
	free(x->window);
	free(x->base_mem);
	free(x);
}

void sop_value_drop(struct sop_value *x)
{
	struct sop_value **p = &x->t->values;

	while (*p && *p != x)
		p = &(*p)->next;
	if (*p)
		*p = x->next;
	value_free(x);
}

void sop_value_close(struct sop_value *x)
{
	if (!x)
		return;
	x->open = false;
	if (x->own)
		value_free(x);
	else if (!x->entry && !(x->flags & SOP_VALUE_WRITE))
		sop_value_drop(x);
}

void sop_value_unlink(struct sop_value *x)
{
	x->entry = NULL;
}

void sop_value_entry(struct sop_value *x, struct sop_wentry *w)
{
	x->entry = w;
	w->value = x;
}

/* ---- opening ---- */

/* Without a snapshot: pin the item's blobs and its extent tree, then make sure that what was read
 * is what was pinned. */
static int open_newest(struct sop_value *x, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_place *place, struct sop_err *e)
{
	struct sop_volume *v = x->t->v;

	for (unsigned attempt = 0;; attempt++) {
		uint64_t ino, lsn;
		int rc = sop_txn_inode(x->t, name, kb, place, &x->base, x->base_mem, e);

		if (rc)
			return rc;
		ino = x->base.attr.ino;
		rc = sop_pins_get(v->pins, ino, &x->lsn);
		if (rc)
			return sop_fail(e, rc, "pin");
		x->pinned = true;
		if (x->base.tree) {
			rc = sop_pins_get(v->pins, x->base.tree, &lsn);
			if (rc)
				return sop_fail(e, rc, "pin");
			/* Both pins at one LSN, the older: it holds what the newer would. */
			if (lsn != x->lsn) {
				sop_pins_put(v->pins, x->base.tree, lsn);
				unpin(x);
				continue;
			}
			x->pinned_tree = true;
		}
		{
			uint64_t version = x->base.attr.version, tree = x->base.tree;

			rc = sop_txn_inode(x->t, name, kb, place, &x->base, x->base_mem, e);
			if (!rc && x->base.attr.version == version && x->base.attr.ino == ino &&
				x->base.tree == tree && version <= x->lsn)
				return 0;
			x->base.attr.ino = ino;
			x->base.tree = tree;
		}
		unpin(x);
		if (rc)
			return rc;
		if (attempt > 16)
			sched_yield();
	}
}

/* Its bytes or size are no more what they were. A plain item of libsop has no times. */
static void changed(struct sop_value *x)
{
	const struct sop_wentry *w = x->entry;
	bool plain = w && w->write == SOP_WRITE_PUT ? w->item->plain : x->base.plain;
	struct sop_attr now;

	x->changed = true;
	if (plain)
		return;
	now.mtime = now.ctime = sop_now(x->t->v);
	sop_value_setattr(x, &now, SOP_ATTR_MTIME | SOP_ATTR_CTIME);
}

static void begin_empty(struct sop_value *x)
{
	x->limit = 0;
	x->fixed = true;
	x->size = 0;
	changed(x);
}

int sop_value_open(struct sop_value **out, struct sop_txn *t, struct sop_name name, unsigned flags,
	struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_name_resolve(t, &name, &kb, false, e);

	*out = NULL;
	return rc ? rc : sop_at_value_open(out, t, name, &kb, flags, e);
}

int sop_at_value_open(struct sop_value **out, struct sop_txn *t, struct sop_name name,
	const struct sop_keybuf *kb, unsigned flags, struct sop_err *e)
{
	struct sop_wentry *w = NULL;
	struct sop_place place;
	struct sop_value *x;
	int rc = flags & SOP_VALUE_WRITE ? sop_txn_writable(t, e) : 0;

	*out = NULL;
	if (rc)
		return rc;
	x = value_new(t, flags);
	if (!x || !(x->base_mem = malloc(SOP_ITEM_BYTES_MAX))) {
		if (x)
			value_free(x);
		return sop_fail(e, -ENOMEM, "value");
	}
	x->own = t->latest;
	if (!t->latest && t->wset.count) {
		rc = sop_txn_inode(t, name, kb, &place, &x->base, x->base_mem, e);
		w = rc ? NULL : sop_wset_find(&t->wset, place.store, place.key, place.klen);
		if (w && w->value) { /* its writes so far are in the transaction: go on with them */
			struct sop_value *there = w->value;

			value_free(x);
			if (there->open)
				return sop_say(e, -EBUSY, "the value is open in this transaction");
			there->open = true;
			there->flags = flags | SOP_VALUE_WRITE;
			if (flags & SOP_VALUE_TRUNC)
				rc = sop_value_truncate(there, 0, e);
			*out = rc ? NULL : there;
			return rc;
		}
	}
	if (w && w->write == SOP_WRITE_PUT && w->fresh)
		rc = 0; /* made by this transaction: nothing below to pin */
	else if (t->lsn == SOP_LSN_LATEST)
		rc = open_newest(x, name, kb, &place, e);
	else
		rc = sop_txn_inode(t, name, kb, &place, &x->base, x->base_mem, e);
	if (!rc && S_ISDIR(x->base.attr.mode))
		rc = sop_fail(e, -EISDIR, "value");
	if (!rc && !(flags & SOP_VALUE_WRITE) && !t->latest)
		rc = sop_txn_saw(t, place.store, place.key, place.klen, &x->base, e);
	if (!rc && flags & SOP_VALUE_WRITE) {
		w = sop_txn_entry(t, place.store, place.key, place.klen, e);
		rc = w ? 0 : -ENOMEM;
	}
	if (rc) {
		value_free(x);
		return rc;
	}
	x->size = x->opened_size = x->base.attr.size;
	if (flags & SOP_VALUE_WRITE) {
		if (w->write == SOP_WRITE_NONE)
			w->write = SOP_WRITE_PATCH;
		sop_txn_classes(t, place.store, &x->profile, &x->value_class);
		sop_value_entry(x, w);
		if (flags & SOP_VALUE_TRUNC)
			begin_empty(x);
		t->bytes += 512;
	}
	if (!x->own) {
		x->next = t->values;
		t->values = x;
	}
	*out = x;
	return 0;
}

int sop_value_whole(
	struct sop_txn *t, struct sop_wentry *w, const void *val, size_t len, struct sop_err *e)
{
	uint8_t profile, value_class;
	struct sop_value *x;
	ssize_t n;

	sop_txn_classes(t, w->store, &profile, &value_class);
	if (value_class == SOP_VALUE_SMALL && len > SOP_INLINE_MAX)
		return sop_say(e, -EFBIG, "values of this store are small: at most %d bytes",
			SOP_INLINE_MAX);
	if (!len || (len <= SOP_INLINE_MAX && value_class <= SOP_VALUE_SMALL)) {
		w->item->run_off = 0;
		w->item->run_len = (uint32_t)len;
		w->item->run = sop_arena_copy(&t->arena, val, len);
		w->item->attr.size = w->item->attr.bytes = len;
		return w->item->run ? 0 : sop_fail(e, -ENOMEM, "value");
	}
	x = value_new(t, SOP_VALUE_WRITE | SOP_VALUE_TRUNC);
	if (!x)
		return sop_fail(e, -ENOMEM, "value");
	x->base.attr = w->item->attr;
	x->profile = profile;
	x->value_class = value_class;
	begin_empty(x);
	x->next = t->values;
	t->values = x;
	sop_value_entry(x, w);
	n = sop_value_write(x, val, len, 0, e);
	x->open = false;
	return n < 0 ? (int)n : 0;
}

/* ---- the committed extents ---- */

struct fill {
	struct sop_value *x;
	uint32_t n;
	struct sop_err *e;
};

static int window_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct fill *f = arg;
	int rc = sop_extent_decode(&f->x->window[f->n], key, klen, val, vlen, f->e);

	return rc ? rc : ++f->n == WINDOW;
}

static int floor_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)val;
	(void)vlen;
	if (klen != 8)
		return SOP_ECORRUPT;
	memcpy(arg, key, 8);
	return 1;
}

/* Load the extents from the one that covers off, or the first behind it. Under x->lock, which is
 * about this value alone: held across the look-up, so that parallel readers share it. */
static int window_load(struct sop_value *x, uint64_t off, struct sop_err *e)
{
	struct sop_volume *v = x->t->v;
	struct fill f = {.x = x, .e = e};
	struct sop_state_view view;
	struct sop_range r = {0};
	uint8_t key[8], start[8];
	int rc;

	if (!x->window && !(x->window = malloc(WINDOW * sizeof(*x->window))))
		return sop_fail(e, -ENOMEM, "extents");
	/* Until it is loaded the window covers nothing: what could not be read must not look like a
	 * hole. */
	x->n_window = 0;
	x->window_from = x->window_to = 0;
	rc = sop_stores_view(v->stores, x->base.tree, x->lsn, &view, e);
	if (rc)
		return rc;
	be64_put(key, off);
	r = (struct sop_range){.from = key, .from_len = 8, .descending = true};
	rc = sop_tree_scan(v->nodes, &view.tree, x->lsn, &r, floor_entry, start, e);
	if (rc < 0)
		return rc;
	r = (struct sop_range){.from = rc ? start : key, .from_len = 8};
	rc = sop_tree_scan(v->nodes, &view.tree, x->lsn, &r, window_entry, &f, e);
	if (rc < 0)
		return rc;
	x->n_window = f.n;
	x->window_from = off;
	x->window_to = rc ? x->window[f.n - 1].off + x->window[f.n - 1].len : UINT64_MAX;
	return 0;
}

/* The committed extent that covers off, or the next one behind it. 1 found, 0 none. */
static int extent_at(struct sop_value *x, uint64_t off, struct sop_extent *out, struct sop_err *e)
{
	const struct sop_item *b = &x->base;
	const struct sop_extent *list = b->extent;
	uint32_t n = b->extents;
	int rc = 0;

	if (b->tree) {
		sop_lock(&x->lock);
		if (!x->window || off < x->window_from || off >= x->window_to)
			rc = window_load(x, off, e);
		list = x->window;
		n = rc ? 0 : x->n_window;
	}
	for (uint32_t i = 0; i < n && !rc; i++)
		if (list[i].off + list[i].len > off) {
			*out = list[i];
			rc = 1;
		}
	if (b->tree)
		sop_unlock(&x->lock);
	return rc;
}

static int read_base(struct sop_value *x, uint8_t *buf, size_t len, uint64_t off, struct sop_err *e)
{
	const struct sop_item *b = &x->base;
	uint64_t end = SOP_MIN(off + len, SOP_MIN(x->limit, b->attr.size));
	uint64_t at = off;

	while (at < end) {
		struct sop_extent ext;
		uint64_t stop;
		int rc = extent_at(x, at, &ext, e);

		if (rc < 0)
			return rc;
		stop = rc ? SOP_MIN(ext.off, end) : end;
		if (stop > at) {
			memset(buf + (at - off), 0, stop - at);
			at = stop;
			continue;
		}
		stop = SOP_MIN(ext.off + ext.len, end);
		rc = sop_blob_read(x->t->v->seg, &ext.ref, buf + (at - off), stop - at,
			ext.blob_off + (at - ext.off), e);
		if (rc)
			return sop_wrap(e, rc, "inode %llu at %llu",
				(unsigned long long)b->attr.ino, (unsigned long long)at);
		at = stop;
	}
	if (at < off + len)
		memset(buf + (at - off), 0, off + len - at);
	/* The inline run lies over holes of the extents. */
	if (b->run_len && off < b->run_off + b->run_len && off + len > b->run_off) {
		uint64_t from = SOP_MAX(off, b->run_off);
		uint64_t to = SOP_MIN(SOP_MIN(off + len, b->run_off + b->run_len), x->limit);

		if (from < to)
			memcpy(buf + (from - off), (const uint8_t *)b->run + (from - b->run_off),
				to - from);
	}
	return 0;
}

/* ---- the session's view ---- */

static int read_entry(struct sop_value *x, const struct sop_imap_entry *i, uint8_t *buf, size_t len,
	uint64_t off, struct sop_err *e)
{
	uint64_t at = off - i->off;

	switch (i->kind) {
	case SOP_IMAP_MEM:
		memcpy(buf, i->mem + at, len);
		return 0;
	case SOP_IMAP_ZERO:
		memset(buf, 0, len);
		return 0;
	case SOP_IMAP_BLOB:
	case SOP_IMAP_SHARED:
		return sop_blob_read(x->t->v->seg, &i->ref, buf, len, i->blob_off + at, e);
	}
	return -EINVAL;
}

/* [off, off+len) of a map, what is not in it from the committed value (or zeros). */
static int read_map(struct sop_value *x, const struct sop_imap *m, bool base, uint8_t *buf,
	size_t len, uint64_t off, struct sop_err *e)
{
	while (len) {
		const struct sop_imap_entry *i = m->count ? sop_imap_at(m, off) : NULL;
		size_t n = len;
		int rc;

		if (i && i->off <= off) {
			n = (size_t)SOP_MIN((uint64_t)n, i->off + i->len - off);
			rc = read_entry(x, i, buf, n, off, e);
		} else {
			if (i)
				n = (size_t)SOP_MIN((uint64_t)n, i->off - off);
			rc = 0;
			if (base)
				rc = read_base(x, buf, n, off, e);
			else
				memset(buf, 0, n);
		}
		if (rc)
			return rc;
		buf += n;
		off += n;
		len -= n;
	}
	return 0;
}

ssize_t sop_value_read(struct sop_value *x, void *buf, size_t len, uint64_t off, struct sop_err *e)
{
	uint64_t app_at = x->size - x->app_len; /* where this view has its appended bytes */
	size_t n, head;
	int rc;

	if (x->flags & SOP_VALUE_WRITE)
		x->depends = true;
	if (off >= x->size || !len)
		return 0;
	n = (size_t)SOP_MIN((uint64_t)len, x->size - off);
	head = off < app_at ? (size_t)SOP_MIN((uint64_t)n, app_at - off) : 0;
	rc = read_map(x, &x->map, true, buf, head, off, e);
	if (!rc && head < n)
		rc = read_map(
			x, &x->app, false, (uint8_t *)buf + head, n - head, off + head - app_at, e);
	return rc ? rc : (ssize_t)n;
}

/* Write runs of memory of at least min bytes to the disks as blobs. */
static int write_out(struct sop_value *x, struct sop_imap *m, size_t min, struct sop_err *e)
{
	struct sop_imap_entry *i = m->count ? sop_imap_at(m, 0) : NULL;

	while (i) {
		struct sop_imap_entry *entry[PUTS_MAX];
		struct sop_blob_put put[PUTS_MAX];
		size_t n = 0, bytes = 0;
		int rc;

		for (; i && n < PUTS_MAX && bytes < 4 * BLOB_BYTES; i = sop_imap_next(m, i)) {
			if (i->kind != SOP_IMAP_MEM || i->len < min)
				continue;
			put[n] = (struct sop_blob_put){
				.data = i->mem, .len = (uint32_t)i->len, .kind = SOP_BLOB_DATA};
			entry[n++] = i;
			bytes += i->len;
		}
		if (!n)
			break;
		rc = sop_space_check(x->t->v->space, x->profile, bytes, e);
		if (!rc)
			rc = sop_space_put(x->t->v->space, x->profile,
				bytes / n >= BULK_MIN ? SOP_STREAM_BULK : SOP_STREAM_SMALL, put, n,
				e);
		if (rc)
			return rc;
		while (n--)
			sop_imap_stored(m, entry[n], &put[n].ref);
	}
	return 0;
}

static int count_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	uint64_t *left = arg;

	(void)key;
	(void)klen;
	(void)val;
	(void)vlen;
	return --*left == 0;
}

/* Has the tree `most` extents or more from `from` up to `to`? 1, 0 or an error. */
static int has_extents(
	struct sop_value *x, uint64_t from, uint64_t to, uint64_t most, struct sop_err *e)
{
	struct sop_volume *v = x->t->v;
	struct sop_state_view view;
	uint8_t a[8], b[8];
	struct sop_range r = {.from = a, .from_len = 8, .to = b, .to_len = 8, .to_exclusive = true};
	int rc = sop_stores_view(v->stores, x->base.tree, x->lsn, &view, e);

	be64_put(a, from);
	be64_put(b, to);
	return rc ? rc : sop_tree_scan(v->nodes, &view.tree, x->lsn, &r, count_entry, &most, e);
}

/* A truncated tree is cut, or what stays of it is carried to a new one, whichever is less: counted
 * here, as far as it takes, without the commit lock. */
static int choose_carry(struct sop_value *x, struct sop_err *e)
{
	int rc;

	x->carry = false;
	if (!x->base.tree || !x->limit || x->limit >= x->base.attr.size)
		return 0;
	for (uint64_t most = CARRY_MIN;; most *= 4) {
		rc = has_extents(x, x->limit, UINT64_MAX, most, e);
		if (rc <= 0)
			return rc;
		rc = has_extents(x, 0, x->limit, most, e);
		if (rc <= 0) {
			x->carry = !rc;
			return rc;
		}
	}
}

int sop_value_settle(struct sop_value *x, struct sop_err *e)
{
	int rc = x->map.mem_bytes >= BULK_MIN ? write_out(x, &x->map, BULK_MIN, e) : 0;

	if (!rc && x->app.mem_bytes >= BULK_MIN)
		rc = write_out(x, &x->app, BULK_MIN, e);
	count_memory(x);
	return rc ? rc : choose_carry(x, e);
}

/* What one may have in memory. Beyond their common bound each writes out what is more than a
 * little: then what others hold, who write no more, stays the only excess. */
static size_t memory_max(const struct sop_value *x)
{
	const struct sop_volume *v = x->t->v;

	if (atomic_load(&v->value_bytes) >= v->opts.buffer_bytes)
		return PRESSED_MAX;
	return x->value_class == SOP_VALUE_BIG ? BIG_MAX : MEMORY_MAX;
}

static int write_direct(struct sop_value *x, struct sop_imap *m, const uint8_t *buf, size_t len,
	uint64_t off, struct sop_err *e)
{
	int rc = sop_space_check(x->t->v->space, x->profile, len, e);

	while (len && !rc) {
		struct sop_blob_put put = {.data = buf,
			.len = (uint32_t)SOP_MIN(len, (size_t)BLOB_BYTES),
			.kind = SOP_BLOB_DATA};

		rc = sop_space_put(x->t->v->space, x->profile, SOP_STREAM_BULK, &put, 1, e);
		if (!rc && sop_imap_set_blob(m, off, put.len, &put.ref, 0)) {
			sop_space_abandon(x->t->v->space, &put.ref);
			rc = sop_fail(e, -ENOMEM, "extent");
		}
		buf += put.len;
		off += put.len;
		len -= put.len;
	}
	return rc;
}

static int write_map(struct sop_value *x, struct sop_imap *m, const void *buf, size_t len,
	uint64_t off, struct sop_err *e)
{
	int rc;

	if (len >= DIRECT_MIN)
		return write_direct(x, m, buf, len, off, e);
	rc = sop_imap_write(m, off, buf, len);
	if (rc)
		return sop_fail(e, rc, "write buffer");
	return m->mem_bytes >= memory_max(x) ? write_out(x, m, 1, e) : 0;
}

/* A write that failed half way: nothing of it may lie beyond the size, where commit would take it
 * for part of the value. What it has put over earlier bytes of the session stays. */
static void write_failed(struct sop_value *x, uint64_t off)
{
	if (x->flags & SOP_VALUE_APPEND) {
		sop_imap_cut(&x->app, x->app_len);
		return;
	}
	if (off < x->size)
		x->changed = true;
	sop_imap_cut(&x->map, x->size);
}

ssize_t sop_value_write(
	struct sop_value *x, const void *buf, size_t len, uint64_t off, struct sop_err *e)
{
	uint64_t end;
	int rc = 0;

	if (!(x->flags & SOP_VALUE_WRITE))
		return sop_say(e, -EBADF, "the value is open for reading only");
	if (!len)
		return 0;
	if (x->flags & SOP_VALUE_APPEND)
		off = x->size;
	if (sop_add_over(&end, off, len) || end > INT64_MAX)
		return sop_fail(e, -EFBIG, "write at %llu", (unsigned long long)off);
	if (x->flags & SOP_VALUE_APPEND) {
		rc = write_map(x, &x->app, buf, len, x->app_len, e);
		if (!rc)
			x->app_len += len;
	} else {
		/* Appended before, without a place of their own yet: this write is about this view.
		 */
		if (x->app_len)
			rc = sop_value_settle_appends(x, e);
		if (!rc)
			rc = write_map(x, &x->map, buf, len, off, e);
		if (!rc)
			x->written = SOP_MAX(x->written, end);
	}
	count_memory(x);
	if (rc) {
		write_failed(x, off);
		return rc;
	}
	x->size = SOP_MAX(x->size, end);
	changed(x);
	return (ssize_t)len;
}

/* [from, from + len) of one map into another, at `to`. The blobs are in both then. */
static int copy_range(
	struct sop_imap *out, uint64_t to, const struct sop_imap *in, uint64_t from, uint64_t len)
{
	int rc = 0;

	for (const struct sop_imap_entry *i = sop_imap_at(in, from);
		i && i->off < from + len && !rc; i = sop_imap_next(in, i)) {
		uint64_t at = SOP_MAX(i->off, from), end = SOP_MIN(i->off + i->len, from + len);

		if (i->kind == SOP_IMAP_MEM)
			rc = sop_imap_write(
				out, to + (at - from), i->mem + (at - i->off), end - at);
		else
			rc = sop_imap_set_blob(out, to + (at - from), (uint32_t)(end - at), &i->ref,
				i->blob_off + (uint32_t)(at - i->off));
	}
	return rc;
}

/* Let go of a range whose blobs are in another map as well. */
static int remove_copied(struct sop_imap *m, uint64_t off, uint64_t len)
{
	void (*drop)(void *arg, const struct sop_blobref *ref) = m->drop;
	int rc;

	m->drop = NULL;
	rc = sop_imap_remove(m, off, len);
	m->drop = drop;
	return rc;
}

int sop_value_place_appends(struct sop_value *x, uint64_t end, struct sop_err *e)
{
	int rc;

	if (!x->app_len)
		return 0;
	rc = copy_range(&x->map, end, &x->app, 0, x->app_len);
	if (rc) {
		/* Before `end` nothing has changed, and from there on nothing was: this takes no
		 * memory. */
		(void)remove_copied(&x->map, end, x->app_len);
		return sop_fail(e, rc, "appended bytes");
	}
	sop_imap_forget(&x->app);
	x->app_len = 0;
	return 0;
}

int sop_value_lift_appends(struct sop_value *x, uint64_t end, uint64_t len, struct sop_err *e)
{
	int rc;

	if (!len)
		return 0;
	rc = copy_range(&x->app, 0, &x->map, end, len);
	if (!rc)
		rc = remove_copied(&x->map, end, len);
	if (rc) {
		sop_imap_forget(&x->app);
		return sop_fail(e, rc, "appended bytes");
	}
	x->app_len = len;
	return 0;
}

/* Appended bytes take their place in this view: from now on the session depends on it. */
int sop_value_settle_appends(struct sop_value *x, struct sop_err *e)
{
	bool any = x->app_len > 0;
	int rc = sop_value_place_appends(x, x->size - x->app_len, e);

	if (!rc && any) {
		x->depends = true;
		x->written = SOP_MAX(x->written, x->size);
	}
	return rc;
}

int sop_value_truncate(struct sop_value *x, uint64_t size, struct sop_err *e)
{
	int rc;

	if (!(x->flags & SOP_VALUE_WRITE))
		return sop_say(e, -EBADF, "the value is open for reading only");
	if (size > INT64_MAX)
		return sop_fail(e, -EFBIG, "truncate");
	rc = sop_value_settle_appends(x, e);
	if (rc)
		return rc;
	sop_imap_cut(&x->map, size);
	count_memory(x);
	x->limit = SOP_MIN(x->limit, size);
	x->written = SOP_MIN(x->written, size);
	x->size = size;
	x->fixed = true;
	changed(x);
	return 0;
}

static void map_move(struct sop_imap *to, struct sop_imap *from)
{
	void *arg = to->arg;

	*to = *from;
	to->arg = arg;
	sop_imap_init(from, from->drop, from->arg);
}

void sop_value_move(struct sop_value *to, struct sop_value *from)
{
	assert(!to->map.count && !to->app.count && !to->loans.n);
	map_move(&to->map, &from->map);
	map_move(&to->app, &from->app);
	to->app_len = from->app_len;
	to->loans = from->loans;
	to->limit = SOP_MIN(to->limit, from->limit);
	to->fixed |= from->fixed;
	to->written = from->written;
	to->size = to->fixed ? from->size - from->app_len : SOP_MAX(to->size, to->written);
	to->size += to->app_len;
	to->depends |= from->depends;
	/* What he has looked at was empty; somebody may have been quicker since than our opening.
	 */
	if (to->depends && to->base.attr.size)
		to->base.attr.value_version = 0;
	if (from->changed)
		changed(to);
	from->app_len = 0;
	from->loans = (struct sop_loans){0};
	from->limit = UINT64_MAX;
	from->size = from->written = 0;
	from->fixed = from->depends = from->changed = false;
	count_memory(to);
	count_memory(from);
}

int sop_value_punch(struct sop_value *x, uint64_t off, uint64_t len, struct sop_err *e)
{
	int rc;

	if (!(x->flags & SOP_VALUE_WRITE))
		return sop_say(e, -EBADF, "the value is open for reading only");
	if (off >= x->size || !len)
		return 0;
	rc = sop_value_settle_appends(x, e);
	if (!rc && sop_imap_set_zero(&x->map, off, SOP_MIN(len, x->size - off)))
		rc = sop_fail(e, -ENOMEM, "write buffer");
	if (!rc)
		changed(x);
	return rc;
}

/* ---- data and holes ---- */

int sop_value_run(struct sop_value *x, uint64_t off, struct sop_value_run *out, struct sop_err *e)
{
	uint64_t app_at = x->size - x->app_len;
	const struct sop_item *b = &x->base;
	const struct sop_imap_entry *i;
	struct sop_extent ext;
	int rc;

	*out = (struct sop_value_run){.kind = SOP_RUN_HOLE, .end = app_at};
	if (off >= app_at) {
		out->kind = SOP_RUN_OWN;
		out->end = x->size;
		return 0;
	}
	i = x->map.count ? sop_imap_at(&x->map, off) : NULL;
	if (i && i->off <= off) {
		out->end = i->off + i->len;
		if (i->kind == SOP_IMAP_SHARED) {
			out->kind = SOP_RUN_STORED;
			out->ref = i->ref;
			out->blob_off = i->blob_off + (uint32_t)(off - i->off);
		} else if (i->kind != SOP_IMAP_ZERO) {
			out->kind = SOP_RUN_OWN;
		}
		return 0;
	}
	if (i)
		out->end = SOP_MIN(out->end, i->off);
	if (off >= SOP_MIN(x->limit, b->attr.size))
		return 0;
	out->end = SOP_MIN(out->end, x->limit);
	if (b->run_len && off >= b->run_off && off < b->run_off + b->run_len) {
		out->end = SOP_MIN(out->end, b->run_off + b->run_len);
		out->kind = SOP_RUN_OWN;
		return 0;
	}
	if (b->run_len && off < b->run_off)
		out->end = SOP_MIN(out->end, b->run_off);
	rc = extent_at(x, off, &ext, e);
	if (rc == 1 && ext.off <= off) {
		out->kind = SOP_RUN_STORED;
		out->end = SOP_MIN(out->end, ext.off + ext.len);
		out->ref = ext.ref;
		out->blob_off = ext.blob_off + (uint32_t)(off - ext.off);
	} else if (rc == 1) {
		out->end = SOP_MIN(out->end, ext.off);
	}
	return rc < 0 ? rc : 0;
}

int64_t sop_value_seek(struct sop_value *x, uint64_t off, bool hole, struct sop_err *e)
{
	if (off >= x->size)
		return sop_fail(e, -ENXIO, "seek");
	while (off < x->size) {
		struct sop_value_run run;
		int rc = sop_value_run(x, off, &run, e);

		if (rc)
			return rc;
		if ((run.kind != SOP_RUN_HOLE) != hole)
			return (int64_t)off;
		off = run.end;
	}
	return hole ? (int64_t)x->size : sop_fail(e, -ENXIO, "seek");
}

/* ---- the rest ---- */

uint64_t sop_value_size(const struct sop_value *x)
{
	return x->size;
}

/* Stored bytes of the committed value in [from, to). What cannot be read counts for nothing. */
static uint64_t base_bytes(struct sop_value *x, uint64_t from, uint64_t to)
{
	const struct sop_item *b = &x->base;
	uint64_t bytes = 0, run_end = b->run_off + b->run_len;
	struct sop_extent ext;

	if (b->run_len && b->run_off < to && run_end > from)
		bytes += SOP_MIN(run_end, to) - SOP_MAX(b->run_off, from);
	while (from < to && (b->extents || b->tree) && extent_at(x, from, &ext, NULL) == 1 &&
		ext.off < to) {
		uint64_t end = SOP_MIN(ext.off + ext.len, to);

		bytes += end - SOP_MAX(ext.off, from);
		from = end;
	}
	return bytes;
}

/* Exact, but for large changes of large values: what a session has written over much of a tree of
 * extents, or cut off its end, is not looked up for a stat. */
uint64_t sop_value_bytes(struct sop_value *x)
{
	const struct sop_imap_entry *i = x->map.count ? sop_imap_at(&x->map, 0) : NULL;
	bool tree = x->base.tree != 0, exact = !tree || x->map.count <= BYTES_LOOKED_UP;
	uint64_t end = SOP_MIN(x->limit, x->base.attr.size), at = 0, own = 0, covered = 0;
	uint64_t kept = 0;

	for (; i; i = sop_imap_next(&x->map, i)) {
		uint64_t to = SOP_MIN(i->off + i->len, end);

		own += i->kind == SOP_IMAP_ZERO ? 0 : i->len;
		if (!tree && i->off > at)
			kept += base_bytes(x, at, SOP_MIN(i->off, end));
		else if (tree && exact && i->off < to)
			covered += base_bytes(x, i->off, to);
		at = SOP_MAX(at, to);
	}
	if (tree)
		kept = SOP_MIN(x->base.attr.bytes, end) -
		       SOP_MIN(covered, SOP_MIN(x->base.attr.bytes, end));
	else if (at < end)
		kept += base_bytes(x, at, end);
	return SOP_MIN(kept + own + x->app_len, x->size);
}

void sop_value_depend(struct sop_value *x)
{
	x->depends = true;
}

bool sop_value_dirty(const struct sop_value *x)
{
	return x->changed || (x->entry && x->entry->attr_mask);
}

void sop_value_attr(struct sop_value *x, struct sop_attr *out)
{
	bool plain = x->base.plain;

	*out = x->base.attr;
	if (x->entry && x->entry->write == SOP_WRITE_PUT)
		*out = x->entry->item->attr;
	if (x->entry && x->entry->attr_mask)
		sop_attr_merge(out, &plain, &x->entry->attr, x->entry->attr_mask);
	out->size = x->size;
	if (x->changed)
		out->bytes = sop_value_bytes(x);
	if (!out->nlink)
		out->nlink = 1;
}

int sop_value_moved(struct sop_value *x, struct sop_name name)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_wentry *old = x->entry, *w;
	struct sop_keybuf kb;
	struct sop_place place;
	struct sop_item it;
	int rc;

	if (!old)
		return 0;
	if (!name.key) {
		old->value = NULL;
		old->write = SOP_WRITE_NONE;
		old->attr_mask = 0;
		old->xattr = NULL;
		old->seen = SOP_SEEN_NOTHING;
		x->entry = NULL;
		return 0;
	}
	rc = sop_name_resolve(x->t, &name, &kb, false, NULL);
	if (!rc)
		rc = sop_txn_inode(x->t, name, &kb, &place, &it, buf, NULL);
	if (rc)
		return rc;
	w = sop_txn_entry(x->t, place.store, place.key, place.klen, NULL);
	if (!w)
		return -ENOMEM;
	if (w == old)
		return 0;
	w->write = SOP_WRITE_PATCH;
	w->attr = old->attr;
	w->attr_mask = old->attr_mask;
	w->xattr = old->xattr;
	old->value = NULL;
	old->write = SOP_WRITE_NONE;
	old->attr_mask = 0;
	old->xattr = NULL;
	old->seen = SOP_SEEN_NOTHING;
	sop_value_entry(x, w);
	return 0;
}

void sop_value_setattr(struct sop_value *x, const struct sop_attr *a, unsigned mask)
{
	bool plain = false;

	if (!x->entry)
		return;
	sop_attr_merge(&x->entry->attr, &plain, a, mask);
	x->entry->attr_mask |= mask;
}
