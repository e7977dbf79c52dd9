/* Operations: how they are written down, and how they change the trees. Recovery and normal commits
 * come through the same code. */
#include "core/edit.h"
#include "core/engine.h"

/* ---- buffers ---- */

void *sop_buf_grow(struct sop_buf *b, size_t len)
{
	void *p;

	if (b->cap - b->len < len) {
		size_t cap = SOP_MAX(SOP_MAX(b->cap * 2, b->len + len), (size_t)512);
		uint8_t *q = b->failed ? NULL : realloc(b->p, cap);

		if (!q) {
			b->failed = true;
			return NULL;
		}
		b->p = q;
		b->cap = cap;
	}
	p = b->p + b->len;
	b->len += len;
	return p;
}

void sop_buf_release(struct sop_buf *b)
{
	free(b->p);
	*b = (struct sop_buf){0};
}

void sop_buf_op(struct sop_buf *b, enum sop_op_type type, unsigned flags, uint64_t store,
	const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_disk_op op = {.type = (uint8_t)type,
		.flags = (uint8_t)flags,
		.key_len = le16_make((uint16_t)klen),
		.value_len = le32_make((uint32_t)vlen),
		.store = le64_make(store)};
	uint8_t *p = sop_buf_grow(b, sizeof(op) + klen + vlen);

	if (!p)
		return;
	memcpy(p, &op, sizeof(op));
	if (klen)
		memcpy(p + sizeof(op), key, klen);
	if (vlen)
		memcpy(p + sizeof(op) + klen, val, vlen);
}

void sop_buf_ref(
	struct sop_buf *b, enum sop_op_type type, uint64_t scope, const struct sop_blobref *ref)
{
	struct sop_disk_blobref raw = sop_blobref_encode(ref);

	sop_buf_op(b, type, 0, scope, &raw, sizeof(raw), NULL, 0);
}

int sop_ops_each(const void *ops, size_t len,
	int (*fn)(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
		const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen),
	void *arg, struct sop_err *e)
{
	const uint8_t *p = ops;
	int rc = 0;

	while (len && !rc) {
		struct sop_disk_op op;
		size_t klen, vlen;

		if (len < sizeof(op))
			return sop_fail(e, SOP_ECORRUPT, "journal operation");
		memcpy(&op, p, sizeof(op));
		klen = le16_get(op.key_len);
		vlen = le32_get(op.value_len);
		if (op.type < SOP_OP_PUT || op.type > SOP_OP_EDIT)
			return sop_fail(e, SOP_ECORRUPT,
				"journal operation of type %u, which there is not in format %d",
				op.type, SOP_FORMAT_VERSION);
		if (len - sizeof(op) < klen || len - sizeof(op) - klen < vlen)
			return sop_fail(e, SOP_ECORRUPT, "journal operation");
		rc = fn(arg, op.type, op.flags, le64_get(op.store), p + sizeof(op), klen,
			p + sizeof(op) + klen, vlen);
		p += sizeof(op) + klen + vlen;
		len -= sizeof(op) + klen + vlen;
	}
	return rc;
}

/* ---- applying ---- */

struct run {
	struct sop_volume *v;
	uint64_t lsn;
	struct timespec time;
	struct sop_err *e;
};

static int no_store(struct run *r, uint64_t store)
{
	return sop_fail(r->e, SOP_ECORRUPT, "operation on store %llu, which is not there",
		(unsigned long long)store);
}

/* What an EDIT makes of the record under this key of the tree; its length. fsck goes on with what
 * is left of a volume that has lost a part: there a change that does not fit is left out, and said
 * when it would be applied; a record that is to get another key gets it as it is. 0: nothing is
 * there. */
static int edited(struct run *r, const struct sop_edit *x, const struct sop_tree *tree,
	const uint8_t *key, size_t klen, uint8_t *rec)
{
	bool part = r->v->opts.part_journal && !r->v->journal;
	uint8_t base[SOP_ITEM_BYTES_MAX];
	size_t len = 0;
	int rc = sop_tree_record(r->v, tree, SOP_LSN_LATEST, key, klen, base, &len, r->e);

	if (rc == -ENOENT)
		rc = sop_fail(r->e, SOP_ECORRUPT,
			"a change of version %llu of an item that is not there",
			(unsigned long long)x->version);
	else if (!rc)
		rc = sop_edit_apply(rec, x, base, len, r->e);
	if (rc != SOP_ECORRUPT || !part)
		return rc;
	if (r->lsn)
		sop_log(r->v->log, SOP_LOG_ERROR, "recover",
			"op=edit lsn=%llu store=%llu code=%s: left out: %s",
			(unsigned long long)r->lsn, (unsigned long long)tree->store,
			sop_err_name(rc), r->e ? r->e->text : "");
	memcpy(rec, base, len);
	return (int)len;
}

/* The store of an operation, in memory afterwards; *st NULL: an operation before this one makes it.
 * No record with one that is gone is written to the journal: it could never be applied. */
static int prefault_store(struct run *r, uint64_t store, struct sop_state **st)
{
	int rc = sop_stores_load(r->v->stores, store, st, r->e);

	if (rc)
		*st = NULL;
	else if ((*st)->now.gone)
		rc = no_store(r, store);
	return rc == -ENOENT ? 0 : rc;
}

/* What it changes is in memory afterwards, and fits: no record that does not is written to the
 * journal. */
static int prefault_edit(struct run *r, uint64_t store, const uint8_t *key, size_t klen,
	const uint8_t *val, size_t vlen)
{
	uint8_t rec[SOP_ITEM_BYTES_MAX];
	struct sop_state *st;
	struct sop_tree tree;
	struct sop_edit x;
	int rc = sop_edit_decode(&x, val, vlen, r->e);

	if (rc)
		return rc;
	if (x.key_len) {
		store = x.store;
		key = x.key;
		klen = x.key_len;
	}
	rc = prefault_store(r, store, &st);
	if (rc || !st)
		return rc ? rc : no_store(r, store);
	tree = sop_state_tree(st);
	rc = sop_tree_prefault(r->v->nodes, &tree, key, klen, false, r->e);
	if (!rc)
		rc = edited(r, &x, &tree, key, klen, rec);
	return SOP_MIN(rc, 0);
}

static int prefault_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct run *r = arg;
	struct sop_segment_info info;
	struct sop_disk_blobref raw;
	struct sop_state *st;
	struct sop_tree tree;
	int rc;

	(void)flags;
	(void)val;
	(void)vlen;
	switch (type) {
	case SOP_OP_EDIT:
		rc = prefault_edit(r, store, key, klen, val, vlen);
		if (rc)
			return rc;
		__attribute__((fallthrough));
	case SOP_OP_PUT:
	case SOP_OP_DEL:
		rc = prefault_store(r, store, &st);
		if (rc || !st)
			return rc;
		tree = sop_state_tree(st);
		return sop_tree_prefault(r->v->nodes, &tree, key, klen, type == SOP_OP_DEL, r->e);
	case SOP_OP_STORE_SET:
		rc = vlen ? sop_store_options_check(val, vlen, r->e) : 0;
		if (rc)
			return rc;
		__attribute__((fallthrough));
	case SOP_OP_STORE_DROP:
	case SOP_OP_STORE_TIME:
		return prefault_store(r, store, &st);
	case SOP_OP_ALLOC: /* its segment's shape may have to be read from a disk */
		if (klen != sizeof(raw))
			return sop_fail(r->e, SOP_ECORRUPT, "journal operation");
		memcpy(&raw, key, sizeof(raw));
		return sop_segments_info(r->v->seg, le64_get(raw.segment), &info, r->e);
	case SOP_OP_REF:
	case SOP_OP_FREE:
		return klen == sizeof(raw) ? 0 : sop_fail(r->e, SOP_ECORRUPT, "journal operation");
	case SOP_OP_STORE_NEW:
		return vlen ? sop_store_options_check(val, vlen, r->e) : 0;
	}
	return sop_fail(r->e, SOP_ECORRUPT, "journal operation");
}

int sop_apply_prefault(struct sop_volume *v, const void *ops, size_t len, struct sop_err *e)
{
	struct run r = {.v = v, .e = e};

	return sop_ops_each(ops, len, prefault_op, &r, e);
}

void sop_apply_begin(struct sop_volume *v, uint64_t lsn)
{
	sop_stores_begin(v->stores);
	sop_nodes_write_begin(v->nodes, lsn);
}

void sop_apply_end(struct sop_volume *v)
{
	sop_nodes_write_end(v->nodes);
	sop_stores_end(v->stores);
}

static int state_there(struct run *r, uint64_t store, struct sop_state **st)
{
	*st = sop_stores_get(r->v->stores, store);
	return !*st || (*st)->now.gone ? no_store(r, store) : 0;
}

static int state_of(struct run *r, uint64_t store, struct sop_state **st)
{
	int rc = state_there(r, store, st);

	return rc ? rc : sop_stores_change(r->v->stores, *st, r->lsn, r->e);
}

bool sop_event_of(struct sop_event *out, bool put, uint64_t store, const uint8_t *key, size_t klen,
	const uint8_t *val, size_t vlen)
{
	struct sop_attr a;
	bool link;

	if (store == SOP_STORE_MASTER && (klen != SOP_MASTER_KEY || key[klen - 1] != 'i'))
		return false;
	if (put && !sop_item_decode_attr(&a, &link, val, vlen, NULL))
		out->ino = a.ino;
	if (store == SOP_STORE_MASTER) {
		out->ino = be64_get(key);
	} else {
		out->store = store;
		out->key_len = klen;
		memcpy(out->key, key, SOP_MIN(klen, sizeof(out->key)));
	}
	return true;
}

/* For those who follow: a name of a directory, or an inode that is no name's alone. was: it was
 * there. */
static void tell(struct run *r, bool put, bool was, uint64_t store, const uint8_t *key, size_t klen,
	const uint8_t *val, size_t vlen)
{
	struct sop_event event = {.lsn = r->lsn, .time = r->time};

	if ((store == SOP_STORE_MASTER && (!put || !was)) ||
		!sop_event_of(&event, put, store, key, klen, val, vlen))
		return;
	event.change = !put ? SOP_CHANGE_REMOVED : was ? SOP_CHANGE_CHANGED : SOP_CHANGE_CREATED;
	sop_event_ring_put(r->v->events, &event);
}

static int apply_entry(struct run *r, bool put, unsigned flags, uint64_t store, const uint8_t *key,
	size_t klen, const uint8_t *val, size_t vlen)
{
	bool name = store >= SOP_STORE_ROOT && !(flags & SOP_OPF_QUIET), was;
	struct sop_state *st;
	struct sop_tree tree;
	int rc = state_of(r, store, &st);

	if (rc)
		return rc;
	tree = sop_state_tree(st);
	if (put)
		rc = sop_tree_put(r->v->nodes, &tree, key, klen, val, vlen, &was, r->e);
	else
		rc = sop_tree_del(r->v->nodes, &tree, key, klen, &was, r->e);
	if (rc)
		return rc;
	if ((name || store == SOP_STORE_MASTER) && sop_event_ring_wanted(r->v->events))
		tell(r, put, was, store, key, klen, val, vlen);
	st->now.root = tree.root;
	if (put && !was) {
		st->now.count++;
		st->now.subdirs += (flags & SOP_OPF_SUBDIR) != 0;
		r->v->items += name;
	} else if (!put && was) {
		st->now.count -= st->now.count > 0;
		st->now.subdirs -= (flags & SOP_OPF_SUBDIR) && st->now.subdirs;
		r->v->items -= name && r->v->items;
	}
	if (name && put != was)
		st->now.mtime = st->now.ctime = r->time;
	return 0;
}

static int apply_edit(struct run *r, unsigned flags, uint64_t store, const uint8_t *key,
	size_t klen, const uint8_t *val, size_t vlen)
{
	uint8_t rec[SOP_ITEM_BYTES_MAX];
	struct sop_state *st;
	struct sop_tree tree;
	struct sop_edit x;
	int rc = sop_edit_decode(&x, val, vlen, r->e);

	if (!rc)
		rc = state_there(r, x.key_len ? x.store : store, &st);
	if (rc)
		return rc;
	tree = sop_state_tree(st);
	rc = edited(r, &x, &tree, x.key_len ? x.key : key, x.key_len ? x.key_len : klen, rec);
	return rc <= 0 ? rc : apply_entry(r, true, flags, store, key, klen, rec, (size_t)rc);
}

static int apply_time(struct run *r, uint64_t store, const uint8_t *val, size_t vlen)
{
	struct sop_state *st;
	struct le64 ms, cs;
	struct le32 mn, cn;
	int rc = state_of(r, store, &st);

	if (rc)
		return rc;
	if (vlen != 24)
		return sop_fail(r->e, SOP_ECORRUPT, "journal operation");
	memcpy(&ms, val, 8);
	memcpy(&mn, val + 8, 4);
	memcpy(&cs, val + 12, 8);
	memcpy(&cn, val + 20, 4);
	if (le32_get(mn) != UINT32_MAX)
		st->now.mtime = (struct timespec){(time_t)le64_get(ms), (long)le32_get(mn)};
	st->now.ctime = (struct timespec){(time_t)le64_get(cs), (long)le32_get(cn)};
	return 0;
}

static int apply_drop(struct run *r, uint64_t store)
{
	struct sop_state *st;
	int rc = state_of(r, store, &st);

	if (rc)
		return rc;
	/* The tree decides: the count of one that has lost a node is too high. */
	if (st->now.root)
		return sop_fail(r->e, SOP_ECORRUPT, "store %llu is dropped with %llu items in it",
			(unsigned long long)store, (unsigned long long)st->now.count);
	st->now.gone = true;
	return 0;
}

static int apply_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct run *r = arg;
	struct sop_disk_blobref raw;
	struct sop_blobref ref;

	if (type == SOP_OP_ALLOC || type == SOP_OP_REF || type == SOP_OP_FREE) {
		memcpy(&raw, key, sizeof(raw));
		ref = sop_blobref_decode(&raw);
	}
	switch (type) {
	case SOP_OP_PUT:
		return apply_entry(r, true, flags, store, key, klen, val, vlen);
	case SOP_OP_DEL:
		return apply_entry(r, false, flags, store, key, klen, NULL, 0);
	case SOP_OP_EDIT:
		return apply_edit(r, flags, store, key, klen, val, vlen);
	case SOP_OP_ALLOC:
		return sop_space_alloc(r->v->space, &ref, r->e);
	case SOP_OP_REF:
		return sop_space_ref(r->v->space, &ref, r->e);
	case SOP_OP_FREE:
		return sop_space_free_later(r->v->space, r->lsn, store, &ref, r->e);
	case SOP_OP_STORE_NEW:
		return sop_stores_create(
			r->v->stores, store, val, (uint32_t)vlen, r->lsn, r->time, r->e);
	case SOP_OP_STORE_DROP:
		return apply_drop(r, store);
	case SOP_OP_STORE_TIME:
		return apply_time(r, store, val, vlen);
	case SOP_OP_STORE_SET: {
		struct sop_state *st;
		int rc = state_of(r, store, &st);

		return rc ? rc : sop_stores_set(r->v->stores, st, val, (uint32_t)vlen, r->e);
	}
	}
	return sop_fail(r->e, SOP_ECORRUPT, "journal operation");
}

int sop_apply_run(struct sop_volume *v, const void *ops, size_t len, uint64_t lsn, uint64_t time_ns,
	struct sop_err *e)
{
	struct run r = {.v = v,
		.lsn = lsn,
		.time = {(time_t)(time_ns / 1000000000u), (long)(time_ns % 1000000000u)},
		.e = e};

	return sop_ops_each(ops, len, apply_op, &r, e);
}

int sop_apply_system(struct sop_volume *v, uint64_t store, const void *key, size_t klen,
	const void *val, size_t vlen, struct sop_err *e)
{
	struct run r = {.v = v, .lsn = v->lsn_next - 1, .e = e};

	return apply_entry(&r, val != NULL, SOP_OPF_QUIET, store, key, klen, val, vlen);
}
