/* Prepared transactions: committed but for the last word.
 *
 * To prepare is a commit like any other, of other operations: the blobs are allocated and referred
 * to, and what the transaction would have done, with what it depends on, is put into the PREPARED
 * store. That is applied or taken back by a second commit. In between, nobody may commit what would
 * make it wrong: its keys and ranges are kept in memory, and read back from the store at mount.
 *
 * The operations stay right as long as nobody changes the entries they were made from: all of these
 * are keys that the transaction holds. Records carry the LSN of the prepare as their version: it is
 * new, and nobody else's.
 *
 * A crash: before the first record, nothing was prepared; after it, the transaction is there, held,
 * to be resolved; the second record does all of it or nothing. */
#include "core/ec.h"
#include "core/engine.h"

#define PART_KEY 12

struct sop_prepared {
	struct sop_prepared *next;
	uint64_t id, time_ns, items;
	const char *note;
	struct sop_arena arena;
	struct sop_wset wset; /* keys alone: write, numbered */
	struct sop_scanned *scanned;
};

static void prepared_free(struct sop_prepared *p)
{
	if (!p)
		return;
	sop_arena_release(&p->arena);
	free(p);
}

/* ---- as bytes ---- */

static void part_key(uint8_t key[PART_KEY], uint64_t id, uint32_t part)
{
	uint32_t be = htobe32(part);

	be64_put(key, id);
	memcpy(key + 8, &be, 4);
}

static void add_bytes(struct sop_buf *b, const void *p, size_t len)
{
	void *to = sop_buf_grow(b, len);

	if (to && len)
		memcpy(to, p, len);
}

static uint32_t add_locks(struct sop_buf *b, const struct sop_txn *t)
{
	uint32_t n = 0;

	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0], n++) {
		struct sop_disk_lock l = {.store = le64_make(w->store),
			.key_len = le16_make((uint16_t)w->klen),
			.flags = (uint8_t)((w->write != SOP_WRITE_NONE) | (w->numbered ? 2 : 0))};

		add_bytes(b, &l, sizeof(l));
		add_bytes(b, w->key, w->klen);
	}
	/* A store whose options are set has to be there for that: held by a key that is none. */
	for (const struct sop_dropped *d = t->stores; d; d = d->next) {
		const struct sop_disk_lock l = {.store = le64_make(d->store)};

		if (!d->set)
			continue;
		add_bytes(b, &l, sizeof(l));
		n++;
	}
	return n;
}

static uint32_t add_ranges(struct sop_buf *b, const struct sop_txn *t)
{
	uint32_t n = 0;

	for (const struct sop_scanned *s = t->scanned; s; s = s->next, n++) {
		const struct sop_range *r = &s->range;
		struct sop_disk_range d = {.store = le64_make(s->store),
			.from_len = le16_make((uint16_t)(r->from ? r->from_len : 0)),
			.to_len = le16_make((uint16_t)(r->to ? r->to_len : 0))};

		d.flags = (uint8_t)((r->from ? SOP_RANGE_FROM : 0) | (r->to ? SOP_RANGE_TO : 0) |
				    (r->from_exclusive ? SOP_RANGE_FROM_EXCLUSIVE : 0) |
				    (r->to_exclusive ? SOP_RANGE_TO_EXCLUSIVE : 0) |
				    (r->descending ? SOP_RANGE_DESCENDING : 0) |
				    (s->counted ? SOP_RANGE_COUNT : 0));
		add_bytes(b, &d, sizeof(d));
		if (r->from)
			add_bytes(b, r->from, r->from_len);
		if (r->to)
			add_bytes(b, r->to, r->to_len);
	}
	/* What is removed or gets another shape is empty, and has to stay so. */
	for (const struct sop_dropped *d = t->stores; d; d = d->next) {
		const struct sop_disk_range r = {
			.store = le64_make(d->store), .flags = SOP_RANGE_COUNT};

		if (d->create || (d->set && !d->shape))
			continue;
		add_bytes(b, &r, sizeof(r));
		n++;
	}
	return n;
}

struct reader {
	const uint8_t *p;
	size_t len;
	bool bad;
};

static const uint8_t *get(struct reader *r, size_t len)
{
	const uint8_t *p = r->p;

	if (r->len < len || r->bad) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	r->len -= len;
	return p;
}

static int bad(struct sop_err *e)
{
	return sop_fail(e, SOP_ECORRUPT, "a prepared transaction");
}

static int take_locks(struct sop_prepared *p, struct reader *r, uint32_t n, struct sop_err *e)
{
	while (n--) {
		struct sop_disk_lock l;
		const uint8_t *d = get(r, sizeof(l)), *key;
		struct sop_wentry *w;

		if (!d)
			return bad(e);
		memcpy(&l, d, sizeof(l));
		key = get(r, le16_get(l.key_len));
		if (!key || l.flags & ~3u || ((l.flags & 2) && le16_get(l.key_len) < 8))
			return bad(e);
		w = sop_wset_get(&p->wset, &p->arena, le64_get(l.store), key, le16_get(l.key_len));
		if (!w)
			return sop_fail(e, -ENOMEM, "prepared transaction");
		w->write = l.flags & 1 ? SOP_WRITE_PUT : SOP_WRITE_NONE;
		w->numbered = l.flags & 2;
		p->items += (l.flags & 1) && le64_get(l.store) >= SOP_STORE_ROOT;
	}
	return 0;
}

static int take_ranges(struct sop_prepared *p, struct reader *r, uint32_t n, struct sop_err *e)
{
	while (n--) {
		struct sop_disk_range d;
		const uint8_t *raw = get(r, sizeof(d)), *from, *to;
		struct sop_scanned *s;

		if (!raw)
			return bad(e);
		memcpy(&d, raw, sizeof(d));
		from = get(r, le16_get(d.from_len));
		to = get(r, le16_get(d.to_len));
		if (!from || !to)
			return bad(e);
		s = sop_arena_alloc(&p->arena, sizeof(*s));
		if (!s)
			return sop_fail(e, -ENOMEM, "prepared transaction");
		*s = (struct sop_scanned){.next = p->scanned,
			.store = le64_get(d.store),
			.counted = d.flags & SOP_RANGE_COUNT};
		s->range = (struct sop_range){.from_len = le16_get(d.from_len),
			.to_len = le16_get(d.to_len),
			.from_exclusive = d.flags & SOP_RANGE_FROM_EXCLUSIVE,
			.to_exclusive = d.flags & SOP_RANGE_TO_EXCLUSIVE,
			.descending = d.flags & SOP_RANGE_DESCENDING};
		if (d.flags & SOP_RANGE_FROM)
			s->range.from = sop_arena_copy(&p->arena, from, le16_get(d.from_len));
		if (d.flags & SOP_RANGE_TO)
			s->range.to = sop_arena_copy(&p->arena, to, le16_get(d.to_len));
		if ((d.flags & SOP_RANGE_FROM && !s->range.from) ||
			(d.flags & SOP_RANGE_TO && !s->range.to))
			return sop_fail(e, -ENOMEM, "prepared transaction");
		p->scanned = s;
	}
	return 0;
}

/* ops, ops_len: where its operations lie in raw. out may be NULL. */
static int decode(struct sop_prepared **out, uint64_t id, uint8_t *raw, size_t len,
	const uint8_t **ops, size_t *ops_len, struct sop_err *e)
{
	struct sop_prepared *p = calloc(1, sizeof(*p));
	struct reader r = {raw, len, false};
	struct sop_disk_prepared h;
	const uint8_t *d = get(&r, sizeof(h)), *note;
	uint32_t crc;
	char *copy;
	int rc = 0;

	if (!p)
		return sop_fail(e, -ENOMEM, "prepared transaction");
	p->id = id;
	if (!d) {
		rc = bad(e);
		goto out;
	}
	memcpy(&h, d, sizeof(h));
	crc = le32_get(h.crc);
	memset(raw + offsetof(struct sop_disk_prepared, crc), 0, sizeof(h.crc));
	if (memcmp(h.magic, SOP_PREPARED_MAGIC, sizeof(h.magic)) || le32_get(h.version) != 1 ||
		sop_crc32c(0, raw, len) != crc) {
		rc = bad(e);
		goto out;
	}
	memcpy(raw + offsetof(struct sop_disk_prepared, crc), &h.crc, sizeof(h.crc));
	p->time_ns = le64_get(h.time_ns);
	note = get(&r, le32_get(h.note_len));
	copy = note ? sop_arena_alloc(&p->arena, le32_get(h.note_len) + 1) : NULL;
	if (!copy) {
		rc = note ? sop_fail(e, -ENOMEM, "prepared transaction") : bad(e);
		goto out;
	}
	memcpy(copy, note, le32_get(h.note_len));
	copy[le32_get(h.note_len)] = 0;
	p->note = copy;
	rc = take_locks(p, &r, le32_get(h.locks), e);
	if (!rc)
		rc = take_ranges(p, &r, le32_get(h.ranges), e);
	if (!rc && r.len != le32_get(h.ops_len))
		rc = bad(e);
	*ops = r.p;
	*ops_len = r.len;
out:
	if (!rc && out)
		*out = p;
	else
		prepared_free(p);
	return rc;
}

/* ---- preparing ---- */

static int refs_only(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	if (type == SOP_OP_ALLOC || type == SOP_OP_REF)
		sop_buf_op(arg, type, flags, store, key, klen, val, vlen);
	return 0;
}

int sop_prepared_wrap(
	struct sop_txn *t, uint64_t id, uint64_t time_ns, struct sop_buf *ops, struct sop_err *e)
{
	struct sop_disk_prepared h = {.version = le32_make(1), .time_ns = le64_make(time_ns)};
	struct sop_buf b = {0}, out = {0};
	size_t note = t->note ? strlen(t->note) : 0;
	uint8_t key[PART_KEY];
	int rc;

	memcpy(h.magic, SOP_PREPARED_MAGIC, sizeof(h.magic));
	h.note_len = le32_make((uint32_t)note);
	h.ops_len = le32_make((uint32_t)ops->len);
	add_bytes(&b, &h, sizeof(h));
	add_bytes(&b, t->note, note);
	h.locks = le32_make(add_locks(&b, t));
	h.ranges = le32_make(add_ranges(&b, t));
	add_bytes(&b, ops->p, ops->len);
	rc = b.failed ? sop_fail(e, -ENOMEM, "prepare") : 0;
	if (!rc && b.len > UINT32_MAX / 2)
		rc = sop_fail(e, -E2BIG, "prepare");
	if (!rc) {
		memcpy(b.p, &h, sizeof(h));
		h.crc = le32_make(sop_crc32c(0, b.p, b.len));
		memcpy(b.p, &h, sizeof(h));
		rc = sop_ops_each(ops->p, ops->len, refs_only, &out, e);
	}
	for (size_t at = 0; at < b.len && !rc; at += SOP_PREPARED_PART) {
		part_key(key, id, (uint32_t)(at / SOP_PREPARED_PART));
		sop_buf_op(&out, SOP_OP_PUT, SOP_OPF_QUIET, SOP_STORE_PREPARED, key, sizeof(key),
			b.p + at, SOP_MIN(b.len - at, (size_t)SOP_PREPARED_PART));
	}
	sop_buf_release(&b);
	if (!rc && out.failed)
		rc = sop_fail(e, -ENOMEM, "prepare");
	if (rc) {
		sop_buf_release(&out);
		return rc;
	}
	sop_buf_release(ops);
	*ops = out;
	t->prepared_id = id;
	return 0;
}

/* ---- reading back ---- */

struct parts {
	uint64_t id; /* of those gathered; 0: none yet */
	uint32_t next;
	struct sop_buf b;
	struct sop_volume *v;
	int (*fn)(void *arg, uint64_t id, uint8_t *raw, size_t len, struct sop_err *e);
	void *arg;
	struct sop_err *e;
};

/* One transaction's parts, or the first found when id is 0. Ends the scan behind them. */
static int gather_part(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct parts *p = arg;
	uint8_t want[PART_KEY];

	if (klen != PART_KEY)
		return bad(p->e);
	if (!p->id)
		p->id = be64_get(key);
	if (be64_get(key) != p->id)
		return 1;
	part_key(want, p->id, p->next++);
	if (memcmp(want, key, PART_KEY))
		return bad(p->e);
	add_bytes(&p->b, val, vlen);
	return p->b.failed ? -ENOMEM : 0;
}

/* The parts of the first transaction from `id` on (exact: of that one). 1 found, 0 none. */
static int gather(struct sop_volume *v, uint64_t id, bool exact, struct parts *p, struct sop_err *e)
{
	struct sop_state_view view;
	struct sop_range r = {0};
	uint8_t key[PART_KEY];
	int rc = sop_stores_view(v->stores, SOP_STORE_PREPARED, SOP_LSN_LATEST, &view, e);

	*p = (struct parts){.id = exact ? id : 0, .e = e};
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	part_key(key, id, 0);
	r.from = key;
	r.from_len = sizeof(key);
	rc = sop_tree_scan(v->nodes, &view.tree, SOP_LSN_LATEST, &r, gather_part, p, e);
	if (rc < 0) {
		sop_buf_release(&p->b);
		return sop_wrap(e, rc, "prepared transactions");
	}
	return p->next > 0;
}

static int each(struct sop_volume *v,
	int (*fn)(void *arg, uint64_t id, uint8_t *raw, size_t len, struct sop_err *e), void *arg,
	struct sop_err *e)
{
	uint64_t from = 1;
	int rc;

	do {
		struct parts p;

		rc = gather(v, from, false, &p, e);
		if (rc <= 0)
			return rc;
		rc = fn(arg, p.id, p.b.p, p.b.len, e);
		from = p.id + 1;
		sop_buf_release(&p.b);
	} while (!rc);
	return rc;
}

static int load_one(void *arg, uint64_t id, uint8_t *raw, size_t len, struct sop_err *e)
{
	struct sop_volume *v = arg;
	struct sop_prepared *p, **at = &v->prepared;
	const uint8_t *ops;
	size_t ops_len;
	int rc = decode(&p, id, raw, len, &ops, &ops_len, e);

	if (rc)
		return sop_wrap(e, rc, "number %llu", (unsigned long long)id);
	while (*at)
		at = &(*at)->next;
	*at = p;
	return 0;
}

int sop_prepared_load(struct sop_volume *v, struct sop_err *e)
{
	return each(v, load_one, v, e);
}

void sop_prepared_forget(struct sop_volume *v)
{
	while (v->prepared) {
		struct sop_prepared *p = v->prepared;

		v->prepared = p->next;
		prepared_free(p);
	}
}

struct blobs {
	int (*fn)(void *arg, const struct sop_blobref *ref);
	void *arg;
};

static int blob_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct blobs *b = arg;
	struct sop_disk_blobref raw;
	struct sop_blobref ref;

	(void)flags;
	(void)store;
	(void)val;
	(void)vlen;
	if ((type != SOP_OP_ALLOC && type != SOP_OP_REF) || klen != sizeof(raw))
		return 0;
	memcpy(&raw, key, sizeof(raw));
	ref = sop_blobref_decode(&raw);
	return b->fn(b->arg, &ref);
}

static int blobs_one(void *arg, uint64_t id, uint8_t *raw, size_t len, struct sop_err *e)
{
	const uint8_t *ops;
	size_t ops_len;
	int rc = decode(NULL, id, raw, len, &ops, &ops_len, e);

	return rc ? rc : sop_ops_each(ops, ops_len, blob_op, arg, e);
}

int sop_prepared_each_blob(struct sop_volume *v,
	int (*fn)(void *arg, const struct sop_blobref *ref), void *arg, struct sop_err *e)
{
	struct blobs b = {fn, arg};

	return each(v, blobs_one, &b, e);
}

/* ---- who may not commit meanwhile ---- */

static bool in_range(const struct sop_scanned *s, const struct sop_wentry *w)
{
	const struct sop_range *r = &s->range;
	int c;

	if (w->store != s->store)
		return false;
	if (s->counted)
		return true;
	if (r->from) {
		c = sop_bytes_cmp(w->key, w->klen, r->from, r->from_len);
		c = r->descending ? -c : c;
		if (c < 0 || (!c && r->from_exclusive))
			return false;
	}
	if (r->to) {
		c = sop_bytes_cmp(w->key, w->klen, r->to, r->to_len);
		c = r->descending ? -c : c;
		if (c > 0 || (!c && r->to_exclusive))
			return false;
	}
	return true;
}

static bool scans_meet(const struct sop_scanned *scanned, const struct sop_wset *writes)
{
	for (const struct sop_scanned *s = scanned; s; s = s->next)
		for (const struct sop_wentry *w = sop_wset_first(writes); w; w = w->next[0])
			if (w->write != SOP_WRITE_NONE && in_range(s, w))
				return true;
	return false;
}

static bool keys_meet(const struct sop_wset *a, const struct sop_wset *b)
{
	const struct sop_wentry *x = sop_wset_first(a), *y = sop_wset_first(b);

	while (x && y) {
		int c = x->store != y->store ? (x->store < y->store ? -1 : 1)
					     : sop_bytes_cmp(x->key, x->klen, y->key, y->klen);

		if (!c && (x->write != SOP_WRITE_NONE || y->write != SOP_WRITE_NONE))
			return true;
		if (c <= 0)
			x = x->next[0];
		else
			y = y->next[0];
	}
	return false;
}

/* Duplicates of one key: the next number is the prepared one's. */
static bool numbers_meet(const struct sop_wset *a, struct sop_wset *b)
{
	for (const struct sop_wentry *x = sop_wset_first(a); x; x = x->next[0]) {
		const struct sop_wentry *y;
		size_t base;

		if (!x->numbered || x->write != SOP_WRITE_PUT)
			continue;
		base = x->klen - SOP_DUPLICATE_BYTES;
		for (y = sop_wset_seek(b, x->store, x->key, base);
			y && y->store == x->store && y->klen >= base &&
			!memcmp(y->key, x->key, base);
			y = y->next[0])
			if (y->numbered && y->klen == x->klen && y->write == SOP_WRITE_PUT)
				return true;
	}
	return false;
}

/* A store set or removed, and what is held of it. */
static bool stores_meet(const struct sop_txn *t, struct sop_prepared *p)
{
	for (const struct sop_dropped *d = t->stores; d; d = d->next) {
		const struct sop_wentry *w =
			d->create ? NULL : sop_wset_seek(&p->wset, d->store, "", 0);

		if (w && w->store == d->store)
			return true;
	}
	return false;
}

int sop_prepared_check(struct sop_txn *t, struct sop_err *e)
{
	for (struct sop_prepared *p = t->v->prepared; p; p = p->next)
		if (keys_meet(&t->wset, &p->wset) || numbers_meet(&t->wset, &p->wset) ||
			scans_meet(t->scanned, &p->wset) || scans_meet(p->scanned, &t->wset) ||
			stores_meet(t, p))
			return sop_fail(e, SOP_ECONFLICT,
				"prepared transaction %llu holds what this one needs",
				(unsigned long long)p->id);
	return 0;
}

/* ---- resolving ---- */

struct redo {
	struct sop_buf *out;
	bool commit;
};

static int redo_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct redo *r = arg;

	if (type == SOP_OP_ALLOC || type == SOP_OP_REF) {
		if (!r->commit)
			sop_buf_op(r->out, SOP_OP_FREE, 0, 0, key, klen, NULL, 0);
	} else if (r->commit) {
		sop_buf_op(r->out, type, flags, store, key, klen, val, vlen);
	}
	return 0;
}

static int resolve_locked(struct sop_volume *v, uint64_t id, bool commit, struct sop_err *e)
{
	struct sop_buf out = {0};
	struct redo r = {&out, commit};
	struct parts p;
	const uint8_t *ops;
	size_t ops_len;
	int rc = gather(v, id, true, &p, e);

	if (rc < 0)
		return rc;
	if (!rc)
		return sop_fail(e, -ENOENT, "prepared transaction %llu", (unsigned long long)id);
	rc = decode(NULL, id, p.b.p, p.b.len, &ops, &ops_len, e);
	if (!rc)
		rc = sop_ops_each(ops, ops_len, redo_op, &r, e);
	for (uint32_t part = 0; part < p.next && !rc; part++) {
		uint8_t key[PART_KEY];

		part_key(key, id, part);
		sop_buf_op(&out, SOP_OP_DEL, SOP_OPF_QUIET, SOP_STORE_PREPARED, key, sizeof(key),
			NULL, 0);
	}
	if (!rc)
		rc = sop_commit_locked(v, &out, e);
	sop_buf_release(&out);
	sop_buf_release(&p.b);
	return rc;
}

int sop_prepared_note(struct sop_txn *t, struct sop_err *e)
{
	struct parts p;
	int rc = gather(t->v, t->prepared_id, true, &p, e);

	if (rc == 1)
		rc = load_one(t->v, p.id, p.b.p, p.b.len, e);
	else if (!rc)
		rc = bad(e);
	sop_buf_release(&p.b);
	/* Without a note in memory nobody would be held off. What cannot be rolled back either
	 * would be there at the next mount, over whatever was committed by then: so nothing is. */
	if (rc && resolve_locked(t->v, t->prepared_id, false, NULL)) {
		t->v->dead = rc;
		sop_log(t->v->log, SOP_LOG_ERROR, "commit",
			"op=prepare id=%llu code=%s: stands, and is held by nobody",
			(unsigned long long)t->prepared_id, sop_err_name(rc));
	}
	t->prepared = !rc;
	return rc;
}

int sop_prepared_resolve(
	struct sop_volume *v, uint64_t id, bool commit, uint64_t *lsn, struct sop_err *e)
{
	struct sop_prepared **p;
	int rc;

	if (v->opts.read_only)
		return sop_fail(e, -EROFS, "volume %s", v->name);
	SOP_LOCK_GUARD(&v->commit);
	rc = resolve_locked(v, id, commit, e);
	if (rc)
		return rc;
	if (lsn)
		*lsn = v->lsn_next - 1;
	for (p = &v->prepared; *p && (*p)->id != id; p = &(*p)->next)
		;
	if (*p) {
		struct sop_prepared *gone = *p;

		*p = gone->next;
		prepared_free(gone);
	}
	if (commit)
		v->commits++;
	else
		v->rolled_back++;
	return 0;
}

/* ---- the public calls ---- */

int sop_prepared_list(struct sop_volume *v, int (*fn)(void *arg, const struct sop_txn_prepared *p),
	void *arg, struct sop_err *e)
{
	int rc = 0;

	(void)e;
	SOP_LOCK_GUARD(&v->commit);
	for (const struct sop_prepared *p = v->prepared; p && !rc; p = p->next) {
		struct sop_txn_prepared out = {p->id, p->time_ns, p->items, p->note};

		rc = fn(arg, &out);
	}
	return rc;
}

struct items {
	int (*fn)(void *arg, const struct sop_event *x);
	void *arg;
};

static int item_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	const struct items *i = arg;
	struct sop_event x = {0};

	if ((type != SOP_OP_PUT && type != SOP_OP_DEL) ||
		(store != SOP_STORE_MASTER && (store < SOP_STORE_ROOT || flags & SOP_OPF_QUIET)))
		return 0;
	x.change = type == SOP_OP_DEL ? SOP_CHANGE_REMOVED : SOP_CHANGE_CHANGED;
	return sop_event_of(&x, type == SOP_OP_PUT, store, key, klen, val, vlen) ? i->fn(i->arg, &x)
										 : 0;
}

int sop_prepared_items(struct sop_volume *v, uint64_t id,
	int (*fn)(void *arg, const struct sop_event *x), void *arg, struct sop_err *e)
{
	struct items items = {fn, arg};
	const uint8_t *ops;
	size_t ops_len;
	struct parts p;
	int rc;

	sop_lock(&v->commit);
	rc = gather(v, id, true, &p, e);
	sop_unlock(&v->commit);
	if (!rc)
		return sop_fail(e, -ENOENT, "prepared transaction %llu", (unsigned long long)id);
	if (rc < 0)
		return rc;
	rc = decode(NULL, id, p.b.p, p.b.len, &ops, &ops_len, e);
	if (!rc)
		rc = sop_ops_each(ops, ops_len, item_op, &items, e);
	sop_buf_release(&p.b);
	return rc;
}

int sop_prepared_commit(struct sop_volume *v, uint64_t id, unsigned flags, struct sop_err *e)
{
	uint64_t lsn;
	int rc = sop_prepared_resolve(v, id, true, &lsn, e);

	if (!rc && (flags & SOP_COMMIT_DURABLE || v->opts.durable) && sop_barrier(v, lsn, e)) {
		rc = SOP_EUNSYNCED;
		if (e)
			e->code = rc;
	}
	return rc;
}

int sop_prepared_rollback(struct sop_volume *v, uint64_t id, struct sop_err *e)
{
	return sop_prepared_resolve(v, id, false, NULL, e);
}
