/* From a write set to operations.
 *
 * plan: under the commit lock, each entry is checked against the newest state, and the bytes a
 * session still has in memory are divided: one short run stays inline in the item, the rest become
 * blobs. emit: with the blobs' addresses known, the new records and the changes of extents are
 * written down.
 *
 * Every extent is one reference to its blob. An old extent that a write cuts in two needs one
 * reference more; one that vanishes gives one back; shortening changes nothing. */
#include "core/edit.h"
#include "core/engine.h"

#include <sys/stat.h>

#define EDIT_SAVES 64 /* bytes at least, that a change is written instead of a record */

/* Of the committed inline run, what has joined a session's bytes. */
struct absorbed {
	struct absorbed *next;
	uint64_t off, len;
};

/* What plan found and emit needs, for one entry. */
struct sop_plan {
	bool there;	      /* the tree has an entry now */
	bool nothing;	      /* nothing is to be done after all */
	struct sop_item *old; /* it, when there, and as the tree has it */
	const uint8_t *raw;
	size_t raw_len;
	struct sop_item *base; /* the record to start from: the put one, or old */
	uint64_t size;
	struct sop_imap_entry *run; /* the interval that stays inline */
	/* What was done to the value's maps, to be undone */
	struct absorbed *absorbed;
	uint64_t placed_at, placed_len; /* of what was appended */
	size_t put_first;		/* of its blobs in the puts, in the order of the map */
	size_t put_xattr;		/* SIZE_MAX: none */
	uint8_t *xattrs;
	uint32_t xattrs_len;
	bool xattr_changed;
};

static int puts_add(
	struct sop_puts *p, const void *data, uint32_t len, uint8_t profile, struct sop_err *e)
{
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 32;
		struct sop_blob_put *q = realloc(p->put, cap * sizeof(*q));

		if (!q)
			return sop_fail(e, -ENOMEM, "blobs to write");
		p->put = q;
		p->cap = cap;
	}
	p->put[p->n++] = (struct sop_blob_put){
		.data = data, .len = len, .kind = SOP_BLOB_DATA, .profile = profile};
	return 0;
}

/* ---- validation ---- */

static int conflict(struct sop_err *e, const char *what)
{
	return sop_fail(e, SOP_ECONFLICT, "%s", what);
}

/* A store that this transaction makes. */
static bool creates(const struct sop_txn *t, uint64_t store)
{
	for (const struct sop_dropped *d = t->stores; d; d = d->next)
		if (d->store == store && d->create)
			return true;
	return false;
}

/* The newest entry of a key, kept in the transaction's memory, if there is one. */
static int newest(
	struct sop_txn *t, const struct sop_wentry *w, struct sop_plan *p, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_state_view view;
	struct sop_item it;
	int rc;

	if (creates(t, w->store))
		return 0;
	rc = sop_stores_view(t->v->stores, w->store, SOP_LSN_LATEST, &view, e);
	if (!rc)
		rc = sop_tree_record(
			t->v, &view.tree, SOP_LSN_LATEST, w->key, w->klen, buf, &p->raw_len, e);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	p->raw = sop_arena_copy(&t->arena, buf, p->raw_len);
	if (!p->raw)
		return sop_fail(e, -ENOMEM, "commit");
	rc = sop_item_decode(&it, p->raw, p->raw_len, e);
	if (rc)
		return rc;
	p->old = sop_arena_copy(&t->arena, &it, sop_item_bytes(&it));
	p->there = p->old != NULL;
	return p->there ? 0 : sop_fail(e, -ENOMEM, "commit");
}

struct digest {
	uint64_t h;
	struct sop_err *e;
};

static int digest_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct digest *d = arg;
	struct sop_attr a;
	bool link;
	int rc = sop_item_decode_attr(&a, &link, val, vlen, d->e);

	if (rc)
		return rc;
	/* The version stands for the record. */
	for (size_t i = 0; i < klen; i++)
		d->h = (d->h ^ ((const uint8_t *)key)[i]) * 0x100000001b3ull;
	d->h = (d->h ^ a.version ^ (a.ino << 20)) * 0x9E3779B97F4A7C15ull;
	d->h ^= d->h >> 29;
	return 0;
}

static int range_digest(struct sop_txn *t, const struct sop_scanned *s, uint64_t lsn, uint64_t *h,
	uint64_t *changed, struct sop_err *e)
{
	struct digest d = {0x1234567, e};
	struct sop_state_view view;
	int rc = sop_stores_view(t->v->stores, s->store, lsn, &view, e);

	*changed = 0;
	*h = 0;
	if (rc == -ENOENT)
		return 0;
	if (rc)
		return rc;
	*changed = view.at.lsn;
	rc = sop_tree_scan(t->v->nodes, &view.tree, lsn, &s->range, digest_entry, &d, e);
	*h = d.h;
	return rc;
}

static int check_ranges(struct sop_txn *t, struct sop_err *e)
{
	for (struct sop_scanned *s = t->scanned; s; s = s->next) {
		struct sop_state_view now;
		uint64_t before, after, changed;
		int rc;

		if (creates(t, s->store))
			continue;
		rc = sop_stores_view(t->v->stores, s->store, SOP_LSN_LATEST, &now, e);

		/* Nothing was put or removed in the store since the snapshot. */
		if (!rc && now.at.lsn <= t->lsn)
			continue;
		if (rc && rc != -ENOENT)
			return rc;
		if (s->counted) {
			if (rc || now.at.count != s->count)
				return conflict(e, "the number of items of a store has changed");
			continue;
		}
		rc = range_digest(t, s, t->lsn, &before, &changed, e);
		if (!rc)
			rc = range_digest(t, s, SOP_LSN_LATEST, &after, &changed, e);
		if (rc)
			return rc;
		if (before != after)
			return conflict(e, "a range that was read has changed");
	}
	return 0;
}

static int check_seen(struct sop_txn *t, const struct sop_wentry *w, const struct sop_item *now,
	bool there, struct sop_err *e)
{
	if (w->seen == SOP_SEEN_ABSENT && there)
		return conflict(e, "an item has appeared that was not there");
	if (w->seen == SOP_SEEN_PRESENT && !there)
		return conflict(e, "an item that was read is gone");
	if (w->seen == SOP_SEEN_PRESENT && now->attr.version != w->version)
		return conflict(e, "an item that was read has changed");
	(void)t;
	return 0;
}

/* Options to be set: what was seen is still so, or another has set the same. */
static int check_options(struct sop_txn *t, const struct sop_dropped *d, struct sop_err *e)
{
	sop_autofree void *now = NULL;
	struct sop_state_view view;
	uint32_t len;
	/* The options of one that is gone stay for those who see it still. */
	int rc = sop_stores_view(t->v->stores, d->store, SOP_LSN_LATEST, &view, e);

	if (!rc)
		rc = sop_stores_options(t->v->stores, d->store, &now, &len, e);
	if (rc)
		return rc == -ENOENT ? conflict(e, "a store has been removed") : rc;
	if (d->shape && view.at.count)
		return conflict(e, "a store that was empty is not");
	if ((len == d->was_len && !memcmp(now ? now : "", d->was, len)) ||
		(len == d->options_len && !memcmp(now ? now : "", d->options, len)))
		return 0;
	return conflict(e, "the options of a store have been changed");
}

/* A store that a put goes to must be there, and one that is removed empty, now. */
static int check_stores(struct sop_txn *t, struct sop_err *e)
{
	for (struct sop_dropped *d = t->stores; d; d = d->next) {
		struct sop_state_view view;
		uint64_t own = 0;
		int rc;

		if (d->set) {
			rc = check_options(t, d, e);
			if (rc)
				return rc;
			continue;
		}
		if (d->create || creates(t, d->store))
			continue;
		rc = sop_stores_view(t->v->stores, d->store, SOP_LSN_LATEST, &view, e);
		if (rc)
			return rc == -ENOENT ? conflict(e, "a store has been removed") : rc;
		for (struct sop_wentry *w = sop_wset_seek(&t->wset, d->store, "", 0);
			w && w->store == d->store; w = w->next[0])
			own += w->write == SOP_WRITE_DEL && !w->fresh;
		if (view.at.count > own)
			return conflict(e, "a store that was empty is not");
	}
	return 0;
}

static int check_target(struct sop_txn *t, const struct sop_wentry *w, struct sop_err *e)
{
	struct sop_state_view view;
	int rc;

	if (w->store < SOP_STORE_ROOT || creates(t, w->store))
		return 0;
	rc = sop_stores_view(t->v->stores, w->store, SOP_LSN_LATEST, &view, e);
	if (!rc && view.shape != w->shape && !sop_txn_made(t, w->store))
		rc = conflict(e, "the keys of a store are of another type by now");
	return rc;
}

int sop_txn_validate(struct sop_txn *t, struct sop_err *e)
{
	int rc = check_ranges(t, e);

	for (struct sop_wentry *w = sop_wset_first(&t->wset); w && !rc; w = w->next[0]) {
		uint8_t buf[SOP_ITEM_BYTES_MAX];
		struct sop_item now;
		bool there;

		if (w->seen == SOP_SEEN_NOTHING)
			continue;
		rc = sop_tree_item(t->v, w->store, SOP_LSN_LATEST, w->key, w->klen, &now, buf, e);
		there = !rc;
		if (!rc || rc == -ENOENT)
			rc = check_seen(t, w, &now, there, e);
	}
	return rc;
}

/* ---- plan ---- */

/* The committed inline run, where the session has not written over it, joins the session's bytes.
 */
static int absorb_run(struct sop_txn *t, struct sop_value *x, struct sop_plan *p, struct sop_err *e)
{
	const struct sop_item *old = p->base;
	uint64_t at = old->run_off, end = SOP_MIN(old->run_off + old->run_len, x->limit);

	while (old->run_len && at < end) {
		const struct sop_imap_entry *i = x->map.count ? sop_imap_at(&x->map, at) : NULL;
		uint64_t stop = i ? SOP_MIN(SOP_MAX(i->off, at), end) : end;
		struct absorbed *a;

		if (i && i->off <= at) {
			at = i->off + i->len;
			continue;
		}
		a = sop_arena_alloc(&t->arena, sizeof(*a));
		if (!a || sop_imap_write(&x->map, at,
				  (const uint8_t *)old->run + (at - old->run_off), stop - at))
			return sop_fail(e, -ENOMEM, "inline bytes");
		*a = (struct absorbed){p->absorbed, at, stop - at};
		p->absorbed = a;
		at = stop;
	}
	return 0;
}

static int plan_value(struct sop_txn *t, struct sop_value *x, struct sop_plan *p,
	struct sop_puts *puts, struct sop_err *e)
{
	const struct sop_item *b = p->base;
	uint64_t end, len = x->app_len;
	int rc;

	if (!x->changed)
		return 0;
	/* With a fixed size nothing of the committed one counts. */
	end = x->fixed ? x->size - x->app_len : SOP_MAX(b->attr.size, x->written);
	if (sop_add_over(&p->size, end, x->app_len) || p->size > INT64_MAX)
		return sop_fail(e, -EFBIG, "append");
	/* Appended bytes go to the end as it is now. */
	rc = sop_value_place_appends(x, end, e);
	if (rc)
		return rc;
	p->placed_at = end;
	p->placed_len = len;
	rc = absorb_run(t, x, p, e);
	if (rc)
		return rc;
	/* The last run in memory stays inline when it is short: small files, and the tail of logs.
	 */
	for (struct sop_imap_entry *i = sop_imap_at(&x->map, 0); i; i = sop_imap_next(&x->map, i))
		if (i->kind == SOP_IMAP_MEM)
			p->run = i;
	if (p->run && (p->run->len > SOP_INLINE_MAX || x->value_class > SOP_VALUE_SMALL))
		p->run = NULL;
	if (x->value_class == SOP_VALUE_SMALL && p->size > SOP_INLINE_MAX)
		return sop_say(e, -EFBIG, "values of this store are small: at most %d bytes",
			SOP_INLINE_MAX);
	p->put_first = puts->n;
	for (struct sop_imap_entry *i = sop_imap_at(&x->map, 0); i && !rc;
		i = sop_imap_next(&x->map, i))
		if (i->kind == SOP_IMAP_MEM && i != p->run)
			rc = puts_add(puts, i->mem, (uint32_t)i->len, x->profile, e);
	return rc;
}

static uint8_t profile_of(struct sop_txn *t, uint64_t store)
{
	uint8_t profile, value_class;

	sop_txn_classes(t, store, &profile, &value_class);
	return profile;
}

static int plan_xattrs(struct sop_txn *t, struct sop_wentry *w, struct sop_plan *p,
	struct sop_puts *puts, struct sop_err *e)
{
	const uint8_t *set;
	size_t len;
	uint8_t *out;
	void *own;
	int rc = sop_xattrs_load(t->v, p->base, &set, &len, &own, e);

	if (rc)
		return rc;
	rc = sop_xattrs_apply(set, len, w->xattr, &out, &len, e);
	free(own);
	if (rc)
		return rc;
	p->xattrs = sop_arena_copy(&t->arena, out, len);
	p->xattrs_len = (uint32_t)len;
	p->xattr_changed = true;
	free(out);
	if (!p->xattrs)
		return sop_fail(e, -ENOMEM, "extended attributes");
	if (len <= SOP_XATTR_INLINE)
		return 0;
	p->put_xattr = puts->n;
	return puts_add(puts, p->xattrs, p->xattrs_len, profile_of(t, w->store), e);
}

/* ---- numbers of duplicates ---- */

static int last_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)val;
	(void)vlen;
	*(uint64_t *)arg = sop_duplicate_number(key, klen);
	return 1;
}

/* An item added among duplicates is the last of its key: it gets the next number now. `before`: the
 * last one put before it in the write set, which may be of the same key. */
static int number_entry(
	struct sop_txn *t, struct sop_wentry *w, const struct sop_wentry *before, struct sop_err *e)
{
	size_t base = w->klen - SOP_DUPLICATE_BYTES;
	struct sop_state_view view;
	uint8_t key[SOP_KEY_MAX];
	uint64_t last = 0;
	int rc = 0;

	if (!w->numbered || !(sop_duplicate_number(w->key, w->klen) & SOP_DUPLICATE_OWN))
		return 0;
	memcpy(key, w->key, w->klen);
	if (!creates(t, w->store)) {
		struct sop_range r = {.from = key,
			.from_len = w->klen,
			.to = w->key,
			.to_len = base,
			.descending = true};

		be64_put(key + base, SOP_DUPLICATE_OWN - 1);
		rc = sop_stores_view(t->v->stores, w->store, SOP_LSN_LATEST, &view, e);
		if (!rc)
			rc = sop_tree_scan(
				t->v->nodes, &view.tree, SOP_LSN_LATEST, &r, last_entry, &last, e);
		if (rc < 0)
			return rc;
	}
	if (before && before->store == w->store && before->klen == w->klen &&
		!memcmp(before->key, w->key, base))
		last = SOP_MAX(last, sop_duplicate_number(before->key, before->klen));
	be64_put(key + base, last + 1);
	w->unnumbered = w->key;
	w->key = sop_arena_copy(&t->arena, key, w->klen);
	return w->key ? 0 : sop_fail(e, -ENOMEM, "commit");
}

static int plan_entry(
	struct sop_txn *t, struct sop_wentry *w, struct sop_puts *puts, struct sop_err *e)
{
	struct sop_plan *p;
	int rc;

	if (w->write == SOP_WRITE_NONE && w->seen == SOP_SEEN_NOTHING)
		return 0;
	p = w->plan = sop_arena_alloc(&t->arena, sizeof(*p));
	if (!p)
		return sop_fail(e, -ENOMEM, "commit");
	memset(p, 0, sizeof(*p));
	p->put_xattr = SIZE_MAX;
	rc = newest(t, w, p, e);
	if (!rc)
		rc = check_seen(t, w, p->old, p->there, e);
	if (rc)
		return rc;
	switch ((enum sop_write)w->write) {
	case SOP_WRITE_NONE:
		return 0;
	case SOP_WRITE_DEL:
		p->nothing = !p->there;
		return 0;
	case SOP_WRITE_PUT:
		rc = check_target(t, w, e);
		p->base = w->item;
		break;
	case SOP_WRITE_PATCH:
		if (!p->there || (w->value && p->old->attr.ino != w->value->base.attr.ino) ||
			(w->attr_mask && w->attr.ino && p->old->attr.ino != w->attr.ino))
			return sop_fail(e, -ENOENT, "the item is gone");
		/* It got a second name meanwhile: its inode lies elsewhere, only a link is left
		 * here. */
		if (p->old->link)
			return conflict(e, "the item has been linked and lies elsewhere now");
		p->base = p->old;
		break;
	}
	if (!rc && w->value && w->value->depends && !(w->write == SOP_WRITE_PUT && w->fresh) &&
		w->value->base.attr.value_version != p->base->attr.value_version)
		rc = conflict(e, "the value has changed since it was read");
	if (!rc && w->xattr)
		rc = plan_xattrs(t, w, p, puts, e);
	if (!rc && w->value)
		rc = plan_value(t, w->value, p, puts, e);
	return rc;
}

/* ---- plan once more ---- */

/* The value's bytes as they were before they were divided against what was the newest state then:
 * appended ones have no place, the inline run is not among them. */
static int undo_value(struct sop_value *x, struct sop_plan *p, struct sop_err *e)
{
	int rc;

	for (; p->absorbed; p->absorbed = p->absorbed->next)
		if (sop_imap_remove(&x->map, p->absorbed->off, p->absorbed->len))
			return sop_fail(e, -ENOMEM, "inline bytes");
	rc = sop_value_lift_appends(x, p->placed_at, p->placed_len, e);
	if (!rc)
		p->placed_len = 0;
	return rc;
}

static int undo_plan(struct sop_txn *t, struct sop_err *e)
{
	int rc = 0;

	for (struct sop_wentry *w = sop_wset_first(&t->wset); w && !rc; w = w->next[0]) {
		if (w->unnumbered)
			w->key = w->unnumbered;
		w->unnumbered = NULL;
		if (w->plan && w->value)
			rc = undo_value(w->value, w->plan, e);
		w->plan = rc ? w->plan : NULL;
	}
	return rc;
}

int sop_resolve_plan(struct sop_txn *t, struct sop_puts *puts, struct sop_err *e)
{
	int rc = undo_plan(t, e);

	puts->n = 0;
	if (!rc)
		rc = check_ranges(t, e);
	if (!rc)
		rc = check_stores(t, e);
	for (struct sop_wentry *w = sop_wset_first(&t->wset), *before = NULL; w && !rc;
		w = w->next[0]) {
		rc = number_entry(t, w, before, e);
		if (!rc)
			rc = plan_entry(t, w, puts, e);
		if (w->numbered && w->write == SOP_WRITE_PUT)
			before = w;
	}
	return rc;
}

/* ---- emit: extents ---- */

struct cut {
	uint64_t from, to;
};

struct edit {
	struct sop_volume *v;
	const struct sop_item *old; /* whose extents are cut; NULL: none */
	uint64_t scope;
	uint8_t profile;
	struct sop_buf *ops;
	struct sop_err *e;
	/* result: pieces that stay, and new extents; and the keys of old ones that vanish */
	struct sop_extent *keep;
	size_t n_keep, cap_keep;
	uint64_t *gone;
	size_t n_gone, cap_gone;
	uint64_t removed; /* bytes cut out */
	bool failed;
};

static void keep_add(struct edit *d, const struct sop_extent *x)
{
	if (d->n_keep == d->cap_keep) {
		size_t cap = d->cap_keep ? 2 * d->cap_keep : 32;
		struct sop_extent *p = realloc(d->keep, cap * sizeof(*p));

		if (!p) {
			d->failed = true;
			return;
		}
		d->keep = p;
		d->cap_keep = cap;
	}
	d->keep[d->n_keep++] = *x;
}

static void gone_add(struct edit *d, uint64_t off)
{
	if (d->n_gone == d->cap_gone) {
		size_t cap = d->cap_gone ? 2 * d->cap_gone : 32;
		uint64_t *p = realloc(d->gone, cap * sizeof(*p));

		if (!p) {
			d->failed = true;
			return;
		}
		d->gone = p;
		d->cap_gone = cap;
	}
	d->gone[d->n_gone++] = off;
}

struct gather {
	struct edit *d;
	struct sop_extent *x;
	size_t n, cap;
	uint64_t after; /* offsets up to this have been dealt with; with `any` false: none */
	bool any;
};

static void gather_add(struct gather *g, const struct sop_extent *x)
{
	if (g->any && x->off <= g->after)
		return;
	if (g->n == g->cap) {
		size_t cap = g->cap ? 2 * g->cap : 32;
		struct sop_extent *p = realloc(g->x, cap * sizeof(*p));

		if (!p) {
			g->d->failed = true;
			return;
		}
		g->x = p;
		g->cap = cap;
	}
	g->x[g->n++] = *x;
}

static int gather_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct gather *g = arg;
	struct sop_extent x;
	int rc = sop_extent_decode(&x, key, klen, val, vlen, g->d->e);

	if (!rc)
		gather_add(g, &x);
	return rc;
}

/* The same for one extent only: that ends the scan. */
static int first_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	int rc = gather_entry(arg, key, klen, val, vlen);

	return rc ? rc : 1;
}

/* Old extents that overlap [from, to), in order, each once over all calls. */
static int gather(struct gather *g, uint64_t from, uint64_t to)
{
	struct edit *d = g->d;
	struct sop_state_view view;
	struct sop_range r;
	uint8_t a[8], b[8];
	int rc;

	g->n = 0;
	if (!d->old)
		return 0;
	if (!d->old->tree) {
		for (uint32_t i = 0; i < d->old->extents; i++)
			if (d->old->extent[i].off < to &&
				d->old->extent[i].off + d->old->extent[i].len > from)
				gather_add(g, &d->old->extent[i]);
		return 0;
	}
	rc = sop_stores_view(d->v->stores, d->old->tree, SOP_LSN_LATEST, &view, d->e);
	if (rc)
		return rc;
	be64_put(a, from);
	be64_put(b, to);
	r = (struct sop_range){
		.from = a, .from_len = 8, .from_exclusive = true, .descending = true};
	r.from_exclusive = true;
	if (from) {
		rc = sop_tree_scan(
			d->v->nodes, &view.tree, SOP_LSN_LATEST, &r, first_entry, g, d->e);
		if (rc < 0)
			return rc;
		if (g->n && g->x[0].off + g->x[0].len <= from)
			g->n = 0;
	}
	r = (struct sop_range){
		.from = a, .from_len = 8, .to = b, .to_len = 8, .to_exclusive = true};
	rc = sop_tree_scan(d->v->nodes, &view.tree, SOP_LSN_LATEST, &r, gather_entry, g, d->e);
	return rc < 0 ? rc : 0;
}

static struct sop_extent part(const struct sop_extent *x, uint64_t from, uint64_t to)
{
	struct sop_extent p = *x;

	p.blob_off += (uint32_t)(from - x->off);
	p.off = from;
	p.len = (uint32_t)(to - from);
	return p;
}

/* Cut [a, b) out of one extent. The part left of it is kept; true: there is one right of it, in
 * *rest. */
static bool cut_one(
	struct edit *d, const struct sop_extent *x, uint64_t a, uint64_t b, struct sop_extent *rest)
{
	uint64_t end = x->off + x->len;
	bool left = x->off<a, right = end> b;

	d->removed += SOP_MIN(end, b) - SOP_MAX(x->off, a);
	if (!left && !right)
		sop_buf_ref(d->ops, SOP_OP_FREE, d->scope, &x->ref);
	else if (left && right)
		sop_buf_ref(d->ops, SOP_OP_REF, 0, &x->ref);
	if (left) {
		struct sop_extent l = part(x, x->off, a);

		keep_add(d, &l);
	}
	if (right)
		*rest = part(x, b, end);
	return right;
}

/* Cut the ranges out of the old extents. What is left of each is kept; its references are settled.
 */
static int cut_out(struct edit *d, const struct cut *cuts, size_t n)
{
	struct gather g = {.d = d};
	struct sop_extent carry = {
		0}; /* the right rest of the extent cut last: later cuts may meet it */
	bool carrying = false;
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		uint64_t a = cuts[i].from, b = cuts[i].to;

		if (carrying && carry.off + carry.len <= a) {
			keep_add(d, &carry);
			carrying = false;
		}
		rc = gather(&g, a, b);
		if (!rc && carrying) {
			struct sop_extent x = carry;

			carrying = cut_one(d, &x, a, b, &carry);
		}
		for (size_t j = 0; j < g.n && !rc; j++) {
			gone_add(d, g.x[j].off);
			g.after = g.x[j].off;
			g.any = true;
			if (cut_one(d, &g.x[j], a, b, &carry))
				carrying = true;
		}
	}
	if (carrying)
		keep_add(d, &carry);
	free(g.x);
	return rc ? rc : d->failed ? sop_fail(d->e, -ENOMEM, "extents") : 0;
}

/* Free all that a value refers to. */
static void free_value(struct sop_buf *ops, const struct sop_item *old)
{
	struct le64 scope = le64_make(old->attr.ino);

	for (uint32_t i = 0; i < old->extents; i++)
		sop_buf_ref(ops, SOP_OP_FREE, old->attr.ino, &old->extent[i].ref);
	if (old->tree) {
		uint8_t key[8];

		be64_put(key, old->tree);
		sop_buf_op(ops, SOP_OP_PUT, SOP_OPF_QUIET, SOP_STORE_DOOMED, key, sizeof(key),
			&scope, sizeof(scope));
	}
}

/* A tree for extents: its nodes are coded as the value is. */
static int new_tree(struct edit *d, uint64_t tree)
{
	const struct sop_store_opts o = {
		.profile = sop_members_label(d->v->mem)->profile[d->profile].name};
	struct sop_arena a = {0};
	const void *raw = NULL;
	uint32_t len = 0;
	int rc = d->profile ? sop_options_encode(&a, &o, &raw, &len, d->e) : 0;

	if (!rc)
		sop_buf_op(d->ops, SOP_OP_STORE_NEW, 0, tree, NULL, 0, raw, len);
	sop_arena_release(&a);
	return rc;
}

struct carry {
	struct edit *d;
	const struct cut *cut; /* the first that may meet the next extent, and those behind it */
	size_t n;
	uint64_t bytes; /* of what stays */
};

/* What the cuts leave of one extent, each piece with a reference of its own. */
static int carry_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct carry *c = arg;
	struct sop_extent x;
	uint64_t at, end;
	int rc = sop_extent_decode(&x, key, klen, val, vlen, c->d->e);

	if (rc)
		return rc;
	end = x.off + x.len;
	for (at = x.off; at < end;) {
		uint64_t to = end;

		while (c->n && c->cut->to <= at) {
			c->cut++;
			c->n--;
		}
		if (c->n && c->cut->from <= at) {
			at = SOP_MIN(c->cut->to, end);
			continue;
		}
		if (c->n)
			to = SOP_MIN(to, c->cut->from);
		x = part(&x, at, to);
		sop_buf_ref(c->d->ops, SOP_OP_REF, 0, &x.ref);
		keep_add(c->d, &x);
		c->bytes += x.len;
		/* x is the piece now: the next one is cut out of the rest of the extent. */
		x.blob_off += x.len;
		x.off = at = to;
	}
	return 0;
}

/* A truncation that takes most of a tree: what stays gets a tree of its own, and the old one is
 * emptied in the background, so that the record is as long as the lesser of the two. The last cut
 * goes on without end. */
static int carry_out(struct edit *d, const struct cut *cuts, size_t n, uint64_t *bytes)
{
	struct carry c = {.d = d, .cut = cuts, .n = n};
	struct sop_state_view view;
	uint8_t to[8];
	struct sop_range r = {.to = to, .to_len = 8, .to_exclusive = true};
	int rc = sop_stores_view(d->v->stores, d->old->tree, SOP_LSN_LATEST, &view, d->e);

	be64_put(to, cuts[n - 1].from);
	if (!rc)
		rc = sop_tree_scan(
			d->v->nodes, &view.tree, SOP_LSN_LATEST, &r, carry_entry, &c, d->e);
	free_value(d->ops, d->old);
	d->old = NULL;
	*bytes = c.bytes;
	return rc < 0 ? rc : d->failed ? sop_fail(d->e, -ENOMEM, "extents") : 0;
}

/* The ranges a session wrote, joined where they touch, and everything from its limit on. */
static int cut_list(const struct sop_value *x, struct cut **out, size_t *n, struct sop_err *e)
{
	struct cut *c = malloc((x->map.count + 2) * sizeof(*c));
	uint64_t limit = x->limit;

	*n = 0;
	*out = c;
	if (!c)
		return sop_fail(e, -ENOMEM, "extents");
	for (const struct sop_imap_entry *i = sop_imap_at(&x->map, 0); i;
		i = sop_imap_next(&x->map, i)) {
		uint64_t end = i->off + i->len;

		if (end > limit)
			break;
		if (*n && c[*n - 1].to == i->off)
			c[*n - 1].to = end;
		else
			c[(*n)++] = (struct cut){i->off, end};
	}
	if (limit != UINT64_MAX) {
		/* An interval that straddles the limit is covered by this one and its own start. */
		const struct sop_imap_entry *i = x->map.count ? sop_imap_at(&x->map, limit) : NULL;
		uint64_t from = i && i->off < limit ? i->off : limit;

		if (*n && c[*n - 1].to == from)
			c[*n - 1].to = UINT64_MAX;
		else
			c[(*n)++] = (struct cut){from, UINT64_MAX};
	}
	return 0;
}

static int extent_order(const void *a, const void *b)
{
	const struct sop_extent *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static int ref_order(const void *a, const void *b)
{
	const struct sop_blobref *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

/* The session's own intervals as extents; their blobs are allocated, those met twice referred to,
 * and so are those that others have allocated: the session's loans keep them until this is applied.
 */
static int add_new(struct edit *d, const struct sop_value *x, const struct sop_plan *p,
	const struct sop_puts *puts, uint64_t *added)
{
	struct sop_blobref *refs = malloc((x->map.count + 1) * sizeof(*refs));
	size_t put = p->put_first, n = 0;

	if (!refs)
		return sop_fail(d->e, -ENOMEM, "extents");
	for (const struct sop_imap_entry *i = sop_imap_at(&x->map, 0); i;
		i = sop_imap_next(&x->map, i)) {
		struct sop_extent ext = {.off = i->off, .len = (uint32_t)i->len};

		if (i->kind == SOP_IMAP_ZERO || i == p->run)
			continue;
		if (i->kind == SOP_IMAP_MEM) {
			ext.ref = puts->put[put++].ref;
		} else {
			ext.ref = i->ref;
			ext.blob_off = i->blob_off;
		}
		if (i->kind == SOP_IMAP_SHARED)
			sop_buf_ref(d->ops, SOP_OP_REF, 0, &ext.ref);
		else
			refs[n++] = ext.ref;
		*added += i->len;
		keep_add(d, &ext);
	}
	if (n)
		qsort(refs, n, sizeof(*refs), ref_order);
	for (size_t k = 0; k < n; k++)
		sop_buf_ref(d->ops,
			k && !ref_order(&refs[k - 1], &refs[k]) ? SOP_OP_REF : SOP_OP_ALLOC, 0,
			&refs[k]);
	free(refs);
	return d->failed ? sop_fail(d->e, -ENOMEM, "extents") : 0;
}

static void emit_extent(struct sop_buf *ops, uint64_t tree, const struct sop_extent *x)
{
	struct sop_disk_extent raw = sop_extent_encode(x);
	uint8_t key[8];

	be64_put(key, x->off);
	sop_buf_op(ops, SOP_OP_PUT, SOP_OPF_QUIET, tree, key, sizeof(key), &raw, sizeof(raw));
}

/* Put the edited extents into the new record, or its tree. */
static int store_extents(struct edit *d, struct sop_item *it, bool had_tree)
{
	int rc;

	/* The unchanged old extents of a short list stay beside the pieces. */
	if (!had_tree && d->old)
		for (uint32_t i = 0; i < d->old->extents; i++) {
			bool cut = false;

			for (size_t k = 0; k < d->n_gone && !cut; k++)
				cut = d->gone[k] == d->old->extent[i].off;
			if (!cut)
				keep_add(d, &d->old->extent[i]);
		}
	if (d->failed)
		return sop_fail(d->e, -ENOMEM, "extents");
	if (!had_tree) {
		if (d->n_keep)
			qsort(d->keep, d->n_keep, sizeof(*d->keep), extent_order);
		it->extents = 0;
		it->tree = 0;
		if (d->n_keep <= SOP_EXTENTS_INLINE) {
			for (size_t i = 0; i < d->n_keep; i++)
				it->extent[it->extents++] = d->keep[i];
			return 0;
		}
		it->tree = sop_ino_new(d->v);
		rc = new_tree(d, it->tree);
		if (rc)
			return rc;
	}
	for (size_t i = 0; i < d->n_gone && had_tree; i++) {
		uint8_t key[8];
		bool again = false;

		for (size_t k = 0; k < d->n_keep && !again && d->n_gone < 64; k++)
			again = d->keep[k].off == d->gone[i];
		be64_put(key, d->gone[i]);
		if (!again)
			sop_buf_op(d->ops, SOP_OP_DEL, SOP_OPF_QUIET, it->tree, key, sizeof(key),
				NULL, 0);
	}
	for (size_t i = 0; i < d->n_keep; i++)
		emit_extent(d->ops, it->tree, &d->keep[i]);
	return 0;
}

static int emit_value(struct sop_txn *t, struct sop_wentry *w, const struct sop_puts *puts,
	struct sop_item *it, struct sop_buf *ops, struct sop_err *e)
{
	struct sop_value *x = w->value;
	struct sop_plan *p = w->plan;
	const struct sop_item *old = p->base;
	bool whole = x->limit == 0; /* nothing of the old value is left */
	/* As it was counted, if it has not changed since. */
	bool carry = x->carry && old->tree == x->base.tree &&
		     old->attr.value_version == x->base.attr.value_version;
	struct edit d = {
		.v = t->v, .scope = old->attr.ino, .profile = x->profile, .ops = ops, .e = e};
	struct cut *cuts = NULL;
	uint64_t added = 0, carried = 0;
	size_t n;
	int rc = 0;

	if (whole) {
		if (old->extents || old->tree)
			free_value(ops, old);
	} else {
		d.old = old;
		rc = cut_list(x, &cuts, &n, e);
		if (!rc && carry)
			rc = carry_out(&d, cuts, n, &carried);
		else if (!rc)
			rc = cut_out(&d, cuts, n);
	}
	if (!rc)
		rc = add_new(&d, x, p, puts, &added);
	if (!rc)
		rc = store_extents(&d, it, !whole && !carry && old->tree);
	free(cuts);
	free(d.keep);
	free(d.gone);
	if (rc)
		return rc;
	it->run_off = p->run ? p->run->off : 0;
	it->run_len = p->run ? (uint32_t)p->run->len : 0;
	it->run = p->run ? p->run->mem : NULL;
	it->attr.size = p->size;
	it->attr.bytes = added + carried + it->run_len;
	if (!whole && !carry)
		it->attr.bytes +=
			old->attr.bytes - SOP_MIN(old->attr.bytes, old->run_len + d.removed);
	return 0;
}

/* ---- emit: what has moved ---- */

/* An inode, and the key that it leaves. */
struct left {
	uint64_t ino;
	const struct sop_wentry *w;
};

/* The inodes that the transaction puts somewhere, sorted; gathered when something has moved. A
 * value is freed at the key it leaves only when its inode is at none of the keys the transaction
 * leaves behind. left: keys that are removed or become links, with the inodes that were there. */
struct moved {
	uint64_t *ino;
	size_t n;
	struct left *left;
	size_t n_left;
};

static int ino_order(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int moved_gather(struct moved *m, const struct sop_txn *t, struct sop_err *e)
{
	bool any = false;

	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w && !any; w = w->next[0])
		any = w->keep_value;
	if (!any)
		return 0;
	m->ino = malloc(t->wset.count * sizeof(*m->ino));
	m->left = malloc(t->wset.count * sizeof(*m->left));
	if (!m->ino || !m->left)
		return sop_fail(e, -ENOMEM, "commit");
	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0]) {
		if (w->write == SOP_WRITE_PUT && !w->item->link)
			m->ino[m->n++] = w->item->attr.ino;
		if (w->keep_value &&
			(w->write == SOP_WRITE_DEL ||
				(w->write == SOP_WRITE_PUT && w->item->link)) &&
			w->plan->there && !w->plan->old->link)
			m->left[m->n_left++] = (struct left){w->plan->old->attr.ino, w};
	}
	if (m->n)
		qsort(m->ino, m->n, sizeof(*m->ino), ino_order);
	/* The number is the first field of both. */
	if (m->n_left)
		qsort(m->left, m->n_left, sizeof(*m->left), ino_order);
	return 0;
}

/* Does what the tree has at this key live on elsewhere? */
static bool lives_on(const struct moved *m, const struct sop_wentry *w)
{
	return w->keep_value && m->n &&
	       bsearch(&w->plan->old->attr.ino, m->ino, m->n, sizeof(*m->ino), ino_order);
}

/* Where an inode was that is put at w now, if it is still there when that is done; or NULL. */
static const struct sop_wentry *left_behind(
	const struct moved *m, const struct sop_wentry *w, uint64_t ino)
{
	const struct left *l =
		m->n_left ? bsearch(&ino, m->left, m->n_left, sizeof(*m->left), ino_order) : NULL;

	return l && (l->w->write == SOP_WRITE_DEL || w->store < l->w->store) ? l->w : NULL;
}

/* ---- emit: records ---- */

/* A record, or what changes of the one that the inode has: no operation before this one touches
 * that. from: where that is, NULL: nowhere. */
static void emit_record(struct sop_buf *ops, const struct sop_wentry *w,
	const struct sop_wentry *from, unsigned flags, const uint8_t *raw, size_t len)
{
	uint8_t edit[SOP_ITEM_BYTES_MAX];
	struct sop_edit to = {0};
	size_t n = 0;

	if (from && from != w)
		to = (struct sop_edit){
			.store = from->store, .key = from->key, .key_len = from->klen};
	if (from && len > 2 * EDIT_SAVES)
		n = sop_edit_encode(edit, len - EDIT_SAVES, &to, from->plan->raw,
			from->plan->raw_len, raw, len);
	if (n)
		sop_buf_op(ops, SOP_OP_EDIT, flags, w->store, w->key, w->klen, edit, n);
	else
		sop_buf_op(ops, SOP_OP_PUT, flags, w->store, w->key, w->klen, raw, len);
}

static int emit_put(struct sop_txn *t, struct sop_wentry *w, const struct moved *moved,
	const struct sop_puts *puts, uint64_t lsn, uint64_t time_ns, bool whole,
	struct sop_buf *ops, struct sop_err *e)
{
	uint8_t raw[SOP_ITEM_BYTES_MAX];
	struct sop_plan *p = w->plan;
	const struct sop_wentry *from;
	struct sop_item it;
	bool value = w->value && w->value->changed, same;
	unsigned flags = 0;
	int rc;

	sop_item_copy(&it, p->base);
	same = p->there && p->old->attr.ino == it.attr.ino;
	/* The name is taken over from another inode: what was there goes, unless it has moved. */
	if (p->there && !same && !p->old->link && !lives_on(moved, w)) {
		free_value(ops, p->old);
		if (p->old->xattr_blob.segment)
			sop_buf_ref(ops, SOP_OP_FREE, p->old->attr.ino, &p->old->xattr_blob);
	}
	if (value) {
		rc = emit_value(t, w, puts, &it, ops, e);
		if (rc)
			return rc;
	}
	if (p->xattr_changed) {
		if (it.xattr_blob.segment)
			sop_buf_ref(ops, SOP_OP_FREE, it.attr.ino, &it.xattr_blob);
		it.xattr_blob = (struct sop_blobref){0};
		it.xattrs = p->put_xattr == SIZE_MAX ? p->xattrs : NULL;
		it.xattrs_len = p->put_xattr == SIZE_MAX ? p->xattrs_len : 0;
		if (p->put_xattr != SIZE_MAX) {
			it.xattr_blob = puts->put[p->put_xattr].ref;
			sop_buf_ref(ops, SOP_OP_ALLOC, 0, &it.xattr_blob);
		}
	}
	if (w->attr_mask)
		sop_attr_merge(&it.attr, &it.plain, &w->attr, w->attr_mask);
	/* Nobody has seen the change before: who looked an hour ago, when it was written but not
	 * committed, must find the ctime newer than his look (incremental backups go by that). */
	if (value && w->attr_mask & SOP_ATTR_CTIME)
		it.attr.ctime = (struct timespec){
			(time_t)(time_ns / 1000000000u), (long)(time_ns % 1000000000u)};
	it.attr.version = lsn;
	if (value || !same)
		it.attr.value_version =
			value || !it.attr.value_version ? lsn : it.attr.value_version;
	rc = sop_item_encode(raw, &it);
	if (rc < 0)
		return sop_fail(e, rc, "item record");
	if (S_ISDIR(it.attr.mode) && it.link)
		flags |= SOP_OPF_SUBDIR;
	if (p->there && !same) {
		/* Another item takes the name: the store's counts see one go and one come. */
		sop_buf_op(ops, SOP_OP_DEL,
			S_ISDIR(p->old->attr.mode) && p->old->link ? SOP_OPF_SUBDIR : 0, w->store,
			w->key, w->klen, NULL, 0);
	} else if (p->there) {
		flags &= ~(unsigned)SOP_OPF_SUBDIR;
	}
	from = same ? w : left_behind(moved, w, it.attr.ino);
	emit_record(ops, w, whole ? NULL : from, flags, raw, (size_t)rc);
	if (w->store == SOP_STORE_MASTER && S_ISDIR(it.attr.mode) &&
		w->attr_mask & (SOP_ATTR_MTIME | SOP_ATTR_CTIME)) {
		uint8_t times[24];
		bool m = w->attr_mask & SOP_ATTR_MTIME;
		struct le64 ms = le64_make((uint64_t)it.attr.mtime.tv_sec);
		struct le64 cs = le64_make((uint64_t)it.attr.ctime.tv_sec);
		struct le32 mn = le32_make(m ? (uint32_t)it.attr.mtime.tv_nsec : UINT32_MAX);
		struct le32 cn = le32_make((uint32_t)it.attr.ctime.tv_nsec);

		memcpy(times, &ms, 8);
		memcpy(times + 8, &mn, 4);
		memcpy(times + 12, &cs, 8);
		memcpy(times + 20, &cn, 4);
		sop_buf_op(ops, SOP_OP_STORE_TIME, 0, it.attr.ino, NULL, 0, times, sizeof(times));
	}
	return 0;
}

static void emit_del(struct sop_wentry *w, const struct moved *moved, struct sop_buf *ops)
{
	struct sop_plan *p = w->plan;

	if (p->nothing)
		return;
	if (!p->old->link && !lives_on(moved, w)) {
		free_value(ops, p->old);
		if (p->old->xattr_blob.segment)
			sop_buf_ref(ops, SOP_OP_FREE, p->old->attr.ino, &p->old->xattr_blob);
	}
	sop_buf_op(ops, SOP_OP_DEL, p->old->link && S_ISDIR(p->old->attr.mode) ? SOP_OPF_SUBDIR : 0,
		w->store, w->key, w->klen, NULL, 0);
}

int sop_resolve_emit(struct sop_txn *t, const struct sop_puts *puts, uint64_t lsn, uint64_t time_ns,
	bool whole, struct sop_buf *ops, struct sop_err *e)
{
	struct moved m = {0};
	int rc = moved_gather(&m, t, e);

	for (struct sop_dropped *d = t->stores; d; d = d->next)
		if (d->set)
			sop_buf_op(ops, SOP_OP_STORE_SET, 0, d->store, NULL, 0, d->options,
				d->options_len);
		else if (d->create)
			sop_buf_op(ops, SOP_OP_STORE_NEW, 0, d->store, NULL, 0, d->options,
				d->options_len);
	for (struct sop_wentry *w = sop_wset_first(&t->wset); w && !rc; w = w->next[0]) {
		switch ((enum sop_write)w->write) {
		case SOP_WRITE_NONE:
			break;
		case SOP_WRITE_DEL:
			if (w->plan->nothing || !lives_on(&m, w))
				emit_del(w, &m, ops);
			break;
		case SOP_WRITE_PUT:
		case SOP_WRITE_PATCH:
			rc = emit_put(t, w, &m, puts, lsn, time_ns, whole, ops, e);
			break;
		}
	}
	/* What has moved leaves its old key when it is at the new one: that says what changes of
	 * it. */
	for (struct sop_wentry *w = sop_wset_first(&t->wset); w && !rc; w = w->next[0])
		if (w->write == SOP_WRITE_DEL && !w->plan->nothing && lives_on(&m, w))
			emit_del(w, &m, ops);
	for (struct sop_dropped *d = t->stores; d; d = d->next)
		if (!d->create && !d->set)
			sop_buf_op(ops, SOP_OP_STORE_DROP, 0, d->store, NULL, 0, NULL, 0);
	free(m.ino);
	free(m.left);
	return rc ? rc : ops->failed ? sop_fail(e, -ENOMEM, "journal record") : 0;
}

void sop_resolve_done(struct sop_txn *t)
{
	for (struct sop_value *x = t->values; x; x = x->next) {
		if (!x->entry)
			continue;
		sop_imap_forget(&x->map);
		sop_imap_forget(&x->app);
	}
}
