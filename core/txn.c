/* A transaction: what it read, what it means to write, and how it sees the volume meanwhile.
 *
 * Reads of a WRITE or READ transaction come from its snapshot and are recorded; SESSION reads come
 * from the newest state and are recorded; the latest handle and NO_CHECK record nothing. A key's
 * own write comes before the tree's. */
#include "core/engine.h"

#include <sys/stat.h>

#define TIMEOUT_DEFAULT_MS (15u * 60 * 1000)
#define TIMEOUT_MAX_MS	   (60u * 60 * 1000)

int sop_txn_begin(
	struct sop_txn **out, struct sop_volume *v, const struct sop_txn_opts *o, struct sop_err *e)
{
	static const struct sop_txn_opts none;
	struct sop_txn *t;
	unsigned ms;
	int rc;

	*out = NULL;
	if (!o)
		o = &none;
	if ((unsigned)o->mode > SOP_TXN_SESSION)
		return sop_say(e, -EINVAL, "transaction: mode %u", (unsigned)o->mode);
	if (o->timeout_ms > TIMEOUT_MAX_MS && o->timeout_ms != SOP_TXN_UNBOUNDED)
		return sop_say(e, -EINVAL, "transaction: longest commit time is 60 minutes");
	if (v->opts.read_only && (o->mode == SOP_TXN_WRITE || o->mode == SOP_TXN_SESSION))
		return sop_fail(e, -EROFS, "volume %s", v->name);
	/* Reads go on when too few replicas answer, on what is known. */
	(void)sop_volume_catch_up(v, NULL);
	t = calloc(1, sizeof(*t));
	if (!t)
		return sop_fail(e, -ENOMEM, "transaction");
	if (o->note && !(t->note = strdup(o->note))) {
		free(t);
		return sop_fail(e, -ENOMEM, "transaction");
	}
	t->v = v;
	t->mode = o->mode;
	ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_DEFAULT_MS;
	/* A session lives as long as its file is open; it holds nothing that others wait for. */
	t->deadline_ms =
		(t->mode == SOP_TXN_SESSION && !o->timeout_ms) || o->timeout_ms == SOP_TXN_UNBOUNDED
			? UINT64_MAX
			: v->clock->monotonic_ms(v->clock->ctx) + ms;
	t->lsn = SOP_LSN_LATEST;
	if (t->mode != SOP_TXN_SESSION) {
		rc = sop_pins_get(v->pins, SOP_PIN_ALL, &t->lsn);
		if (rc) {
			free(t->note);
			free(t);
			return sop_fail(e, rc, "snapshot");
		}
		t->pinned = true;
	}
	*out = t;
	return 0;
}

void sop_txn_free(struct sop_txn *t)
{
	while (t->values)
		sop_value_drop(t->values);
	if (t->pinned)
		sop_pins_put(t->v->pins, SOP_PIN_ALL, t->lsn);
	sop_txn_forget_keying(t);
	while (t->hooks) {
		struct sop_hook *h = t->hooks;

		t->hooks = h->next;
		free(h);
	}
	sop_arena_release(&t->arena);
	free(t->note);
	free(t);
}

struct sop_dropped *sop_txn_made(struct sop_txn *t, uint64_t store)
{
	for (struct sop_dropped *d = t->stores; d; d = d->next)
		if (d->store == store && (d->create || d->set))
			return d;
	return NULL;
}

void sop_txn_forget_keying(struct sop_txn *t)
{
	sop_keying_put(t->keying);
	t->keying = NULL;
	t->key_store = 0;
}

int sop_txn_keying(struct sop_txn *t, uint64_t store, struct sop_keying **out, struct sop_err *e)
{
	const struct sop_dropped *made;
	int rc;

	*out = NULL;
	if (t->latest) /* shared between threads: it keeps nothing */
		return sop_stores_keying(t->v->stores, store, out, e);
	/* A JSON store without an index may have got one from another transaction meanwhile. */
	if (t->key_store != store ||
		(t->keying && t->keying->type == SOP_KEY_JSON && !t->keying->n_fields)) {
		sop_txn_forget_keying(t);
		made = sop_txn_made(t, store);
		if (made)
			rc = sop_keying_new(&t->keying, made->options, made->options_len, e);
		else
			rc = sop_stores_keying(t->v->stores, store, &t->keying, e);
		if (rc)
			return rc;
		t->key_store = store;
	}
	*out = sop_keying_get(t->keying);
	return 0;
}

void sop_txn_rollback(struct sop_txn *t)
{
	if (!t || t->latest)
		return;
	if (t->prepared) {
		struct sop_err e = {0};

		/* What cannot be taken back now stays prepared, to be resolved by number. */
		if (sop_prepared_resolve(t->v, t->prepared_id, false, NULL, &e) &&
			e.code != -ENOENT)
			sop_log(t->v->log, SOP_LOG_ERROR, "txn", "op=rollback id=%llu code=%s: %s",
				(unsigned long long)t->prepared_id, sop_err_name(e.code), e.text);
	} else {
		t->v->rolled_back++;
	}
	sop_txn_free(t);
}

uint64_t sop_txn_lsn(const struct sop_txn *t)
{
	return t->lsn == SOP_LSN_LATEST ? sop_pins_published(t->v->pins) : t->lsn;
}

struct sop_volume *sop_txn_volume(const struct sop_txn *t)
{
	return t->v;
}

struct timespec sop_now(struct sop_volume *v)
{
	uint64_t ns = v->clock->wall_ns(v->clock->ctx);

	return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

int sop_txn_writable(struct sop_txn *t, struct sop_err *e)
{
	if (t->latest || t->mode == SOP_TXN_READ || t->mode == SOP_TXN_NO_CHECK)
		return sop_say(e, -EROFS, "this transaction only reads");
	if (t->prepared)
		return sop_say(e, -EBUSY, "this transaction is prepared: commit or roll back");
	return 0;
}

struct sop_item *sop_txn_keep(struct sop_txn *t, const struct sop_item *it)
{
	struct sop_item *k = sop_arena_copy(&t->arena, it, sop_item_bytes(it));

	if (!k)
		return NULL;
	if (it->run_len && !(k->run = sop_arena_copy(&t->arena, it->run, it->run_len)))
		return NULL;
	if (it->xattrs_len && !(k->xattrs = sop_arena_copy(&t->arena, it->xattrs, it->xattrs_len)))
		return NULL;
	if (it->text_len && !(k->text = sop_arena_copy(&t->arena, it->text, it->text_len)))
		return NULL;
	return k;
}

struct found {
	uint8_t *buf;
	size_t len;
};

static int found_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct found *f = arg;

	(void)key;
	(void)klen;
	if (vlen > SOP_ITEM_BYTES_MAX)
		return SOP_ECORRUPT;
	memcpy(f->buf, val, vlen);
	f->len = vlen;
	return 0;
}

int sop_tree_record(struct sop_volume *v, const struct sop_tree *tree, uint64_t lsn,
	const void *key, size_t klen, uint8_t *buf, size_t *len, struct sop_err *e)
{
	struct found f = {.buf = buf};
	int rc = sop_tree_find(v->nodes, tree, lsn, key, klen, found_entry, &f, e);

	*len = f.len;
	return rc;
}

static int tree_item(struct sop_volume *v, uint64_t store, uint64_t lsn, const void *key,
	size_t klen, struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	struct sop_state_view view;
	size_t len;
	int rc = sop_stores_view(v->stores, store, lsn, &view, e);

	if (!rc)
		rc = sop_tree_record(v, &view.tree, lsn, key, klen, buf, &len, e);
	return rc ? rc : sop_item_decode(it, buf, len, e);
}

/* A tree that becomes empty loses its root, and who has just looked where that is finds nothing
 * there. So what is published is looked at then: what is wrong in that is damage. */
int sop_tree_item(struct sop_volume *v, uint64_t store, uint64_t lsn, const void *key, size_t klen,
	struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	int rc = tree_item(v, store, lsn, key, klen, it, buf, e);
	uint64_t pin;

	if (rc != SOP_ECORRUPT || lsn != SOP_LSN_LATEST)
		return rc;
	rc = sop_pins_get(v->pins, SOP_PIN_ALL, &pin);
	if (rc)
		return sop_fail(e, rc, "pin");
	rc = tree_item(v, store, pin, key, klen, it, buf, e);
	sop_pins_put(v->pins, SOP_PIN_ALL, pin);
	return rc;
}

/* How a patch of attributes shows before it is committed. */
static void attr_patch(struct sop_attr *a, const struct sop_attr *p, unsigned mask)
{
	if (mask & SOP_ATTR_MODE)
		a->mode = (a->mode & (uint32_t)S_IFMT) | (p->mode & ~(uint32_t)S_IFMT);
	if (mask & SOP_ATTR_UID)
		a->uid = p->uid;
	if (mask & SOP_ATTR_GID)
		a->gid = p->gid;
	if (mask & SOP_ATTR_ATIME)
		a->atime = p->atime;
	if (mask & SOP_ATTR_MTIME)
		a->mtime = p->mtime;
	if (mask & SOP_ATTR_CTIME)
		a->ctime = p->ctime;
	if (mask & SOP_ATTR_BTIME)
		a->btime = p->btime;
	if (mask & SOP_ATTR_FLAGS)
		a->flags = p->flags;
}

void sop_attr_merge(struct sop_attr *a, bool *plain, const struct sop_attr *p, unsigned mask)
{
	if (mask && *plain) {
		*plain = false;
		a->mode = S_IFREG | 0644;
		a->nlink = 1;
	}
	attr_patch(a, p, mask);
}

static int item_at(struct sop_txn *t, uint64_t lsn, uint64_t store, const void *key, size_t klen,
	struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	struct sop_wentry *w = t->wset.count ? sop_wset_find(&t->wset, store, key, klen) : NULL;
	int rc;

	if (w && w->write == SOP_WRITE_DEL)
		return sop_fail(e, -ENOENT, "item");
	if (w && w->write == SOP_WRITE_PUT) {
		sop_item_copy(it, w->item);
		it->record_size = it->attr.size;
		it->record_bytes = it->attr.bytes;
	} else {
		rc = sop_tree_item(t->v, store, lsn, key, klen, it, buf, e);
		if (rc)
			return rc;
	}
	if (w && w->attr_mask)
		sop_attr_merge(&it->attr, &it->plain, &w->attr, w->attr_mask);
	if (w && w->value) {
		it->attr.size = sop_value_size(w->value);
		it->attr.bytes = sop_value_bytes(w->value);
	}
	return 0;
}

int sop_txn_item(struct sop_txn *t, uint64_t store, const void *key, size_t klen,
	struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	return item_at(t, t->lsn, store, key, klen, it, buf, e);
}

/* A name leads to an inode that is not there: the volume contradicts itself, or (without a
 * snapshot) a commit is under way, whose changes come into sight one after the other. So what is
 * published is looked at then, where both are there or neither is. */
static int inode_missing(struct sop_err *e, uint64_t ino)
{
	return sop_fail(
		e, SOP_ECORRUPT, "the name is there, inode %llu is not", (unsigned long long)ino);
}

static int look_for_inode(struct sop_txn *t, uint64_t lsn, struct sop_name name,
	const struct sop_keybuf *kb, struct sop_place *place, struct sop_item *it, uint8_t *buf,
	struct sop_err *e)
{
	int rc;

	place->linked = !name.key;
	if (name.key) {
		place->store = name.store;
		place->key = name.key;
		place->klen = name.len;
		rc = item_at(t, lsn, name.store, name.key, name.len, it, buf, e);
		/* Who is told that it is not there, or where it lies, may go by that. */
		if (t->pinned && (rc == -ENOENT || (!rc && it->link)) &&
			sop_txn_saw(t, name.store, name.key, name.len, rc ? NULL : it, e))
			return -ENOMEM;
		if (!rc && kb && !sop_name_is(it, kb))
			rc = sop_txn_saw(t, name.store, name.key, name.len, it, e)
				     ? -ENOMEM
				     : sop_fail(e, -ENOENT, "item");
		if (rc || !it->link)
			return rc;
		place->linked = true;
		sop_master_key(place->master, it->attr.ino, 'i');
	} else {
		sop_master_key(place->master, name.store, 'i');
	}
	place->store = SOP_STORE_MASTER;
	place->key = place->master;
	place->klen = SOP_MASTER_KEY;
	return item_at(t, lsn, place->store, place->key, place->klen, it, buf, e);
}

static bool removed_here(struct sop_txn *t, const struct sop_place *place)
{
	const struct sop_wentry *w =
		t->wset.count ? sop_wset_find(&t->wset, place->store, place->key, place->klen)
			      : NULL;

	return w && w->write == SOP_WRITE_DEL;
}

int sop_txn_inode(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_place *place, struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	int rc = look_for_inode(t, t->lsn, name, kb, place, it, buf, e);
	uint64_t lsn;

	if (rc != -ENOENT || !name.key || !place->linked || removed_here(t, place))
		return rc;
	if (t->lsn == SOP_LSN_LATEST) {
		rc = sop_pins_get(t->v->pins, SOP_PIN_ALL, &lsn);
		if (rc)
			return sop_fail(e, rc, "pin");
		rc = look_for_inode(t, lsn, name, kb, place, it, buf, e);
		sop_pins_put(t->v->pins, SOP_PIN_ALL, lsn);
		if (rc != -ENOENT || !place->linked)
			return rc;
	}
	return inode_missing(e, be64_get(place->master));
}

struct sop_wentry *sop_txn_entry(
	struct sop_txn *t, uint64_t store, const void *key, size_t klen, struct sop_err *e)
{
	struct sop_wentry *w = sop_wset_get(&t->wset, &t->arena, store, key, klen);

	if (!w)
		sop_fail(e, -ENOMEM, "write set");
	return w;
}

int sop_txn_saw(struct sop_txn *t, uint64_t store, const void *key, size_t klen,
	const struct sop_item *it, struct sop_err *e)
{
	struct sop_wentry *w;

	if (t->latest || t->mode == SOP_TXN_NO_CHECK)
		return 0;
	w = sop_txn_entry(t, store, key, klen, e);
	if (!w)
		return -ENOMEM;
	/* The first look counts; one's own writes are not seen from outside. */
	if (w->seen != SOP_SEEN_NOTHING || w->write == SOP_WRITE_PUT || w->write == SOP_WRITE_DEL)
		return 0;
	w->seen = it ? SOP_SEEN_PRESENT : SOP_SEEN_ABSENT;
	w->version = it ? it->attr.version : 0;
	return 0;
}

/* ---- reading ---- */

/* A directory's times and counts live with its store. */
static int directory_attr(struct sop_txn *t, struct sop_attr *a, struct sop_err *e)
{
	struct sop_state_view view;
	uint64_t count, subdirs;
	struct timespec mtime, ctime;
	int rc = sop_txn_state(t, a->ino, &view, e);

	if (rc)
		return rc;
	count = view.at.count;
	subdirs = view.at.subdirs;
	mtime = view.at.mtime;
	ctime = view.at.ctime;
	a->count = count;
	a->nlink = (uint32_t)SOP_MIN(subdirs + 2, (uint64_t)UINT32_MAX);
	a->size = count;
	if (view.at.lsn && (mtime.tv_sec || mtime.tv_nsec))
		a->mtime = mtime;
	if (ctime.tv_sec > a->ctime.tv_sec ||
		(ctime.tv_sec == a->ctime.tv_sec && ctime.tv_nsec > a->ctime.tv_nsec))
		a->ctime = ctime;
	return 0;
}

int sop_txn_state(struct sop_txn *t, uint64_t store, struct sop_state_view *out, struct sop_err *e)
{
	int rc;

	for (struct sop_dropped *d = t->stores; d; d = d->next) {
		if (d->store != store)
			continue;
		if (d->set)
			continue;
		if (!d->create)
			return sop_fail(e, -ENOENT, "store %llu", (unsigned long long)store);
		memset(out, 0, sizeof(*out));
		out->tree.store = store;
		rc = 0;
		goto own;
	}
	rc = sop_stores_view(t->v->stores, store, t->lsn, out, e);
	if (rc)
		return rc;
own:
	if (!t->wset.count || store < SOP_STORE_ROOT)
		return 0;
	/* Counts as the transaction's own writes will leave them. */
	for (struct sop_wentry *w = sop_wset_seek(&t->wset, store, "", 0); w && w->store == store;
		w = w->next[0]) {
		if (w->write == SOP_WRITE_PUT && w->fresh)
			out->at.count++;
		else if (w->write == SOP_WRITE_DEL && !w->fresh)
			out->at.count -= out->at.count > 0;
	}
	return rc;
}

static void finish_attr(struct sop_attr *a, bool plain)
{
	if (plain && !a->nlink)
		a->nlink = 1;
}

struct attr_out {
	struct sop_attr *a;
	bool link;
	struct sop_err *e;
};

static int attr_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct attr_out *o = arg;

	(void)key;
	(void)klen;
	return sop_item_decode_attr(o->a, &o->link, val, vlen, o->e);
}

static int lookup_txn(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_attr *out, struct sop_err *e);

/* By the name that is shown, which in a JSON store says more than the tree's key. */
static int lookup_typed(
	struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_name_resolve(t, &name, &kb, false, e);

	return rc ? rc : lookup_txn(t, name, &kb, out, e);
}

/* The common case, without copying the record: latest handle, attributes alone. What looks like
 * damage is looked at again the long way, as a commit may be under way. */
static int lookup_latest(struct sop_txn *t, struct sop_name name, bool tree_key,
	struct sop_attr *out, struct sop_err *e)
{
	uint8_t master[SOP_MASTER_KEY];
	struct attr_out o = {.a = out, .link = true, .e = e};
	struct sop_state_view view;
	int rc;

	if (name.key) {
		rc = sop_stores_view(t->v->stores, name.store, t->lsn, &view, e);
		if (!rc && view.typed && !tree_key)
			return lookup_typed(t, name, out, e);
		if (!rc)
			rc = sop_tree_find(t->v->nodes, &view.tree, t->lsn, name.key, name.len,
				attr_entry, &o, e);
		if (rc == SOP_ECORRUPT)
			return lookup_txn(t, name, NULL, out, e);
		if (rc || !o.link)
			return rc;
		sop_master_key(master, out->ino, 'i');
	} else {
		sop_master_key(master, name.store, 'i');
	}
	rc = sop_stores_view(t->v->stores, SOP_STORE_MASTER, t->lsn, &view, e);
	if (!rc)
		rc = sop_tree_find(
			t->v->nodes, &view.tree, t->lsn, master, sizeof(master), attr_entry, &o, e);
	if ((rc == -ENOENT && name.key) || rc == SOP_ECORRUPT)
		return lookup_txn(t, name, NULL, out, e);
	return !rc && S_ISDIR(out->mode) ? directory_attr(t, out, e) : rc;
}

int sop_lookup(struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e)
{
	if (t->latest)
		return lookup_latest(t, name, false, out, e);
	return name.key ? lookup_typed(t, name, out, e) : lookup_txn(t, name, NULL, out, e);
}

int sop_at_lookup(struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e)
{
	return t->latest ? lookup_latest(t, name, true, out, e) : lookup_txn(t, name, NULL, out, e);
}

/* kb not NULL: an item whose key has another text is another one. */
static int lookup_txn(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_attr *out, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_place place;
	struct sop_item it;
	int rc;

	if (name.key) {
		rc = sop_txn_item(t, name.store, name.key, name.len, &it, buf, e);
		if (!rc || rc == -ENOENT) {
			int saw =
				sop_txn_saw(t, name.store, name.key, name.len, rc ? NULL : &it, e);

			if (saw)
				return saw;
		}
		if (!rc && kb && !sop_name_is(&it, kb))
			rc = sop_fail(e, -ENOENT, "item");
		if (rc)
			return rc;
		if (!it.link)
			goto out;
	}
	rc = sop_txn_inode(t, name, NULL, &place, &it, buf, e);
	if (!rc)
		rc = sop_txn_saw(t, place.store, place.key, place.klen, &it, e);
	if (rc)
		return rc;
out:
	*out = it.attr;
	finish_attr(out, it.plain);
	return S_ISDIR(out->mode) ? directory_attr(t, out, e) : 0;
}

static struct sop_scanned *scanned_add(struct sop_txn *t, uint64_t store, struct sop_err *e)
{
	struct sop_scanned *s = sop_arena_alloc(&t->arena, sizeof(*s));

	if (!s) {
		sop_fail(e, -ENOMEM, "read set");
		return NULL;
	}
	*s = (struct sop_scanned){.next = t->scanned, .store = store};
	t->scanned = s;
	return s;
}

int sop_count(struct sop_txn *t, uint64_t store, uint64_t *count, struct sop_err *e)
{
	struct sop_state_view view;
	struct sop_scanned *s;
	int rc = sop_txn_state(t, store, &view, e);

	if (rc)
		return rc;
	*count = view.at.count;
	if (!t->pinned || t->mode == SOP_TXN_NO_CHECK)
		return 0;
	/* The number is what was read: it must be the same at commit, whatever it counts. */
	s = scanned_add(t, store, e);
	if (!s)
		return -ENOMEM;
	s->counted = true;
	rc = sop_stores_view(t->v->stores, store, t->lsn, &view, e);
	s->count = rc ? 0 : view.at.count;
	return rc == -ENOENT ? 0 : rc; /* the transaction's own: nobody else can change it */
}

int sop_txn_scanned(
	struct sop_txn *t, uint64_t store, const struct sop_range *range, struct sop_err *e)
{
	struct sop_scanned *s;

	if (!t->pinned || t->mode == SOP_TXN_NO_CHECK)
		return 0;
	s = scanned_add(t, store, e);
	if (!s)
		return -ENOMEM;
	s->range = *range;
	if ((range->from &&
		    !(s->range.from = sop_arena_copy(&t->arena, range->from, range->from_len))) ||
		(range->to && !(s->range.to = sop_arena_copy(&t->arena, range->to, range->to_len))))
		return sop_fail(e, -ENOMEM, "read set");
	return 0;
}

void sop_txn_classes(struct sop_txn *t, uint64_t store, uint8_t *profile, uint8_t *value_class)
{
	const struct sop_dropped *made;
	struct sop_disk_store_options o;
	struct sop_state_view view;

	*profile = *value_class = 0;
	if (store < SOP_STORE_ROOT)
		return;
	made = sop_txn_made(t, store);
	if (made && made->options_len) {
		memcpy(&o, made->options, sizeof(o));
		*value_class = o.value_class;
		*profile = (uint8_t)sop_profile_of(
			t->v, (const char *)made->options + sizeof(o), o.profile_len);
	} else if (!made && !sop_stores_view(t->v->stores, store, SOP_LSN_LATEST, &view, NULL)) {
		*profile = view.profile;
		*value_class = view.value_class;
	}
}

/* ---- scans: the tree's entries and the transaction's own, merged ---- */

struct scan {
	struct sop_txn *t;
	uint64_t store;
	const struct sop_range *range;
	bool full;
	sop_txn_scan_fn fn;
	void *arg;
	struct sop_err *e;
	struct sop_buf texts; /* of the portion */
	/* the last key given out: what lies behind it has not been seen */
	uint8_t given[SOP_KEY_MAX];
	size_t given_len;
	bool any;
	uint64_t skip; /* items not to be given out, but seen */
	uint8_t resume[SOP_KEY_MAX];
	/* full: links are looked up outside of the tree's lock, in portions */
	struct scan_entry *portion;
	size_t n, cap; /* read, and how many to read: first few, then more */
};

struct scan_entry {
	struct sop_attr attr;
	bool link;
	uint16_t klen;
	uint16_t text_len;
	size_t text; /* offset */
	uint8_t key[SOP_KEY_MAX];
};

#define PORTION	      64
#define PORTION_FIRST 8

static int portion_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct scan *s = arg;
	struct scan_entry *x = &s->portion[s->n];
	const char *text;
	uint16_t text_len;
	int rc = sop_item_decode_attr(&x->attr, &x->link, val, vlen, s->e);

	if (rc)
		return rc;
	if (klen > SOP_KEY_MAX)
		return sop_fail(s->e, SOP_ECORRUPT, "key of %zu bytes", klen);
	x->klen = (uint16_t)klen;
	memcpy(x->key, key, klen);
	rc = sop_item_text(val, vlen, &text, &text_len, s->e);
	if (rc)
		return rc;
	x->text_len = text_len;
	x->text = s->texts.len;
	if (text_len) {
		void *p = sop_buf_grow(&s->texts, text_len);

		if (!p)
			return sop_fail(s->e, -ENOMEM, "scan");
		memcpy(p, text, text_len);
	}
	return ++s->n == s->cap;
}

/* -1: a before b in the direction of the scan. */
static int scan_cmp(const struct scan *s, const void *a, size_t alen, const void *b, size_t blen)
{
	int c = sop_bytes_cmp(a, alen, b, blen);

	return s->range->descending ? -c : c;
}

static int emit(struct scan *s, const void *key, size_t klen, struct sop_attr *a, bool link,
	const char *text, size_t text_len)
{
	if (link && s->full) {
		int rc = sop_lookup_ino(s->t, a->ino, a, s->e);

		if (rc == -ENOENT) /* removed since the portion was read */
			return 0;
		if (rc)
			return rc;
	}
	if (!a->nlink)
		a->nlink = 1;
	memcpy(s->given, key, klen);
	s->given_len = klen;
	s->any = true;
	if (s->skip) {
		s->skip--;
		return 0;
	}
	return s->fn(s->arg, key, klen, text, text_len, a);
}

int sop_lookup_ino(struct sop_txn *t, uint64_t ino, struct sop_attr *out, struct sop_err *e)
{
	return sop_lookup(t, SOP_SELF(ino), out, e);
}

/* The own entries of the range, in the scan's order, as an array. */
static int own_entries(struct scan *s, struct sop_wentry ***out, size_t *n)
{
	const struct sop_range *r = s->range;
	const void *low = r->descending ? r->to : r->from;
	size_t low_len = r->descending ? r->to_len : r->from_len;
	size_t cap = 0;

	*out = NULL;
	*n = 0;
	if (!s->t->wset.count)
		return 0;
	for (struct sop_wentry *w =
			sop_wset_seek(&s->t->wset, s->store, low ? low : "", low ? low_len : 0);
		w && w->store == s->store; w = w->next[0]) {
		int c;

		if (w->write != SOP_WRITE_PUT && w->write != SOP_WRITE_DEL && !w->attr_mask &&
			!w->value)
			continue;
		if (r->from) {
			c = scan_cmp(s, w->key, w->klen, r->from, r->from_len);
			if (c < 0 || (!c && r->from_exclusive)) {
				if (r->descending)
					break;
				continue;
			}
		}
		if (r->to) {
			c = scan_cmp(s, w->key, w->klen, r->to, r->to_len);
			if (c > 0 || (!c && r->to_exclusive)) {
				if (!r->descending)
					break;
				continue;
			}
		}
		if (*n == cap) {
			struct sop_wentry **p =
				realloc(*out, (cap = cap ? 2 * cap : 64) * sizeof(*p));

			if (!p)
				return sop_fail(s->e, -ENOMEM, "scan");
			*out = p;
		}
		(*out)[(*n)++] = w;
	}
	if (r->descending)
		for (size_t i = 0; i < *n / 2; i++) {
			struct sop_wentry *w = (*out)[i];

			(*out)[i] = (*out)[*n - 1 - i];
			(*out)[*n - 1 - i] = w;
		}
	return 0;
}

static int emit_own(struct scan *s, struct sop_wentry *w)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc;

	if (w->write == SOP_WRITE_DEL)
		return 0;
	rc = sop_txn_item(s->t, w->store, w->key, w->klen, &it, buf, s->e);
	return rc == -ENOENT ? 0
	       : rc	     ? rc
			     : emit(s, w->key, w->klen, &it.attr, it.link, it.text, it.text_len);
}

/* As many as there is room for. */
static int read_portion(
	struct scan *s, const struct sop_tree *tree, uint64_t lsn, struct sop_range *r)
{
	s->n = 0;
	s->texts.len = 0;
	return sop_tree_scan(s->t->v->nodes, tree, lsn, r, portion_entry, s, s->e);
}

/* 1: r begins behind what is skipped. 0: there is no more than that. */
static int skip_items(
	struct scan *s, const struct sop_tree *tree, uint64_t lsn, struct sop_range *r)
{
	r->from = s->resume;
	return sop_tree_skip(
		s->t->v->nodes, tree, lsn, s->skip, r->descending, s->resume, &r->from_len, s->e);
}

/* Looked at again as in sop_tree_item. */
static int look(struct scan *s, const struct sop_tree *tree, struct sop_range *r,
	int (*fn)(struct scan *s, const struct sop_tree *tree, uint64_t lsn, struct sop_range *r))
{
	struct sop_volume *v = s->t->v;
	struct sop_state_view view;
	uint64_t pin;
	int rc = fn(s, tree, s->t->lsn, r);

	if (rc != SOP_ECORRUPT || s->t->lsn != SOP_LSN_LATEST)
		return rc;
	rc = sop_pins_get(v->pins, SOP_PIN_ALL, &pin);
	if (rc)
		return sop_fail(s->e, rc, "pin");
	rc = sop_stores_view(v->stores, s->store, pin, &view, s->e);
	if (!rc)
		rc = fn(s, &view.tree, pin, r);
	sop_pins_put(v->pins, SOP_PIN_ALL, pin);
	return rc;
}

static int scan_run(
	struct scan *s, const struct sop_state_view *view, struct sop_wentry **own, size_t n_own)
{
	struct sop_range r = *s->range;
	size_t at = 0;
	int rc;

	/* Own writes may lie among those to be skipped: then they are counted one by one. */
	if (s->skip && !n_own) {
		rc = look(s, &view->tree, &r, skip_items);
		if (rc <= 0)
			return rc;
		s->skip = 0;
	}
	s->cap = PORTION_FIRST;
	do {
		rc = look(s, &view->tree, &r, read_portion);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < s->n; i++) {
			struct scan_entry *x = &s->portion[i];
			int own_rc = 0, c = 1;

			while (at < n_own && !own_rc &&
				(c = scan_cmp(s, own[at]->key, own[at]->klen, x->key, x->klen)) <=
					0) {
				own_rc = emit_own(s, own[at++]);
				if (!c)
					break;
			}
			if (own_rc)
				return own_rc;
			if (!c)
				continue;
			own_rc = emit(s, x->key, x->klen, &x->attr, x->link,
				s->texts.p ? (const char *)s->texts.p + x->text : NULL,
				x->text_len);
			if (own_rc)
				return own_rc;
		}
		if (s->n) {
			struct scan_entry *x = &s->portion[s->n - 1];

			memcpy(s->resume, x->key, x->klen);
			r.from = s->resume;
			r.from_len = x->klen;
			r.from_exclusive = true;
		}
		s->cap = PORTION;
	} while (rc == 1);
	while (at < n_own) {
		rc = emit_own(s, own[at++]);
		if (rc)
			return rc;
	}
	return 0;
}

static int scan(struct sop_txn *t, uint64_t store, const struct sop_range *range, uint64_t skip,
	unsigned flags, sop_txn_scan_fn fn, void *arg, struct sop_err *e)
{
	static const struct sop_range all;
	struct scan s = {.t = t,
		.store = store,
		.range = range ? range : &all,
		.skip = skip,
		.full = flags & SOP_SCAN_FULL,
		.fn = fn,
		.arg = arg,
		.e = e};
	sop_autofree struct scan_entry *portion = malloc(PORTION * sizeof(*portion));
	sop_autofree struct sop_wentry **own = NULL;
	struct sop_state_view view;
	struct sop_range seen;
	size_t n_own;
	int rc = sop_txn_state(t, store, &view, e), saw;

	/* The read set holds both ends, and what is prepared has room for keys. */
	if (!rc && (s.range->from_len > SOP_KEY_MAX || s.range->to_len > SOP_KEY_MAX))
		return sop_fail(e, -ENAMETOOLONG, "range of keys");
	if (!portion)
		return sop_fail(e, -ENOMEM, "scan");
	s.portion = portion;
	if (!rc)
		rc = own_entries(&s, &own, &n_own);
	if (rc)
		return rc;
	rc = scan_run(&s, &view, own, n_own);
	sop_buf_release(&s.texts);
	if (flags & SOP_SCAN_QUIET)
		return rc;
	/* What was seen: to the end of the range, or to where it was left. */
	seen = *s.range;
	if (rc && s.any) {
		seen.to = s.given;
		seen.to_len = s.given_len;
		seen.to_exclusive = false;
	}
	saw = sop_txn_scanned(t, store, &seen, e);
	return saw ? saw : rc;
}

int sop_txn_scan(struct sop_txn *t, uint64_t store, const struct sop_range *range, unsigned flags,
	sop_txn_scan_fn fn, void *arg, struct sop_err *e)
{
	return scan(t, store, range, 0, flags, fn, arg, e);
}

int sop_txn_scan_from(struct sop_txn *t, uint64_t store, uint64_t skip, bool descending,
	sop_txn_scan_fn fn, void *arg, struct sop_err *e)
{
	const struct sop_range r = {.descending = descending};

	return scan(t, store, &r, skip, 0, fn, arg, e);
}

struct plain_scan {
	sop_item_fn fn;
	void *arg;
};

static int plain_entry(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct plain_scan *p = arg;

	(void)text;
	(void)text_len;
	return p->fn(p->arg, key, klen, attr);
}

int sop_scan(struct sop_txn *t, uint64_t store, const struct sop_range *range, bool full,
	sop_item_fn fn, void *arg, struct sop_err *e)
{
	struct plain_scan p = {fn, arg};

	return sop_txn_scan(t, store, range, full ? SOP_SCAN_FULL : 0, plain_entry, &p, e);
}
