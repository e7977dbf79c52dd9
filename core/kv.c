/* Items by typed keys: single calls, batches, pages, lists.
 *
 * Each call encodes the key and goes on by the tree's. Among duplicates an item is found by its id,
 * which is its inode number; since the tree orders them by a number given at commit, and ids nearly
 * in the same order, a search by halves finds most, and a walk the rest. */
#include "core/engine.h"

#include <stdio.h>

/* ---- finding one among duplicates ---- */

struct probe {
	uint8_t key[SOP_KEY_MAX];
	size_t klen;
	uint64_t id;
	uint64_t want; /* 0: take the first */
	bool found;
};

static int probe_entry(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct probe *p = arg;

	(void)text;
	(void)text_len;
	if (p->want && attr->ino != p->want)
		return 0;
	memcpy(p->key, key, klen);
	p->klen = klen;
	p->id = attr->ino;
	p->found = true;
	return 1;
}

/* The first item of the key with a number from `number` on (want: the one with this id). */
static int probe(struct sop_txn *t, uint64_t store, const struct sop_keybuf *kb, uint64_t number,
	bool descending, unsigned flags, struct probe *p, struct sop_err *e)
{
	uint8_t low[SOP_KEY_MAX], high[SOP_KEY_MAX];
	size_t len = kb->base + SOP_DUPLICATE_BYTES;
	struct sop_range r = {.from_len = len, .to_len = len, .descending = descending};
	int rc;

	memcpy(low, kb->key, kb->base);
	memcpy(high, kb->key, kb->base);
	be64_put(low + kb->base, number);
	be64_put(high + kb->base, UINT64_MAX);
	r.from = descending ? high : low;
	r.to = descending ? low : high;
	p->found = false;
	rc = sop_txn_scan(t, store, &r, flags, probe_entry, p, e);
	return rc < 0 ? rc : 0;
}

static int find_id(struct sop_txn *t, uint64_t store, const struct sop_keybuf *kb, uint64_t id,
	struct probe *p, struct sop_err *e)
{
	uint64_t low = 0, high;
	int rc;

	p->want = 0;
	rc = probe(t, store, kb, 0, true, SOP_SCAN_QUIET, p, e);
	if (rc || !p->found || p->id == id)
		return rc;
	high = sop_duplicate_number(p->key, p->klen);
	while (low <= high) {
		uint64_t middle = low + (high - low) / 2;

		rc = probe(t, store, kb, middle, false, SOP_SCAN_QUIET, p, e);
		if (rc || (p->found && p->id == id))
			return rc;
		if (p->found && p->id < id) {
			low = sop_duplicate_number(p->key, p->klen) + 1;
		} else if (!middle) {
			break;
		} else {
			high = middle - 1;
		}
	}
	p->want = id;
	return probe(t, store, kb, 0, false, SOP_SCAN_QUIET, p, e);
}

/* Where the item is: name->key is the tree's, in kb. -ENOENT. */
static int place(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	struct sop_keybuf *kb, struct sop_name *name, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	struct probe p = {0};
	int rc = sop_key_resolve(t, store, key, kb, &k, false, e);

	*name = (struct sop_name){store, kb->key, kb->len};
	if (rc || !k || !k->duplicates)
		return rc;
	rc = id ? find_id(t, store, kb, id, &p, e) : probe(t, store, kb, 0, false, 0, &p, e);
	if (!rc && !p.found && id) /* the absence is what was seen */
		rc = probe(t, store, kb, 0, false, 0, &p, e);
	if (!rc && (!p.found || (id && p.id != id)))
		rc = sop_fail(e, -ENOENT, "item");
	if (rc)
		return rc;
	memcpy(kb->key, p.key, p.klen);
	kb->len = name->len = p.klen;
	return 0;
}

/* With an id given, in a store of unique keys, the item must have it. */
static int check_id(struct sop_txn *t, struct sop_name name, uint64_t id, struct sop_err *e)
{
	struct sop_attr a;
	int rc;

	if (!id)
		return 0;
	rc = sop_at_lookup(t, name, &a, e);
	return rc ? rc : a.ino == id ? 0 : sop_fail(e, -ENOENT, "item");
}

/* ---- single items ---- */

int sop_kv_add(struct sop_txn *t, uint64_t store, const struct sop_key *key, const void *val,
	size_t len, uint64_t *id, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	struct sop_keybuf kb;
	struct sop_name name = {store, kb.key, 0};
	uint64_t ino;
	int rc = sop_txn_writable(t, e);

	kb.text_len = 0;
	if (!rc)
		rc = sop_key_resolve(t, store, key, &kb, &k, true, e);
	if (rc)
		return rc;
	ino = sop_ino_new(t->v);
	if (k && k->duplicates) {
		rc = sop_keybuf_number(&kb, SOP_DUPLICATE_OWN | ino, e);
		name.len = kb.len;
		return rc ? rc : (id ? *id = ino : 0, sop_at_add(t, name, &kb, val, len, ino, e));
	}
	name.len = kb.len;
	rc = sop_at_absent(t, name, e);
	if (!rc)
		rc = sop_at_add(t, name, &kb, val, len, ino, e);
	if (!rc && id)
		*id = ino;
	return rc;
}

int sop_kv_add_if_absent(struct sop_txn *t, uint64_t store, const struct sop_key *key,
	const void *val, size_t len, uint64_t *id, struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	int rc = place(t, store, key, 0, &kb, &name, e);
	struct sop_attr a;

	if (!rc)
		rc = sop_at_lookup(t, name, &a, e);
	if (!rc)
		return 0;
	if (rc != -ENOENT)
		return rc;
	rc = sop_kv_add(t, store, key, val, len, id, e);
	return rc ? rc : 1;
}

int sop_kv_update(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	const void *val, size_t len, struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = place(t, store, key, id, &kb, &name, e);
	if (!rc)
		rc = check_id(t, name, id, e);
	return rc ? rc : sop_at_update(t, name, NULL, val, len, e);
}

int sop_kv_upsert(struct sop_txn *t, uint64_t store, const struct sop_key *key, const void *val,
	size_t len, struct sop_err *e)
{
	int rc = sop_kv_update(t, store, key, 0, val, len, e);

	return rc == -ENOENT ? sop_kv_add(t, store, key, val, len, NULL, e) : rc;
}

int sop_kv_remove(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = place(t, store, key, id, &kb, &name, e);
	if (!rc)
		rc = check_id(t, name, id, e);
	return rc ? rc : sop_at_remove(t, name, e);
}

int sop_kv_rekey(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	const struct sop_key *to, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	struct sop_keybuf kb, other;
	struct sop_name name;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = place(t, store, key, id, &kb, &name, e);
	if (!rc)
		rc = check_id(t, name, id, e);
	if (!rc)
		rc = sop_key_resolve(t, store, to, &other, &k, false, e);
	if (rc)
		return rc;
	if (other.base != kb.base || memcmp(other.key, kb.key, kb.base))
		return sop_say(e, -EINVAL,
			"the new key has another place in the order: remove the item and add it");
	return sop_at_rekey(t, name, &other, e);
}

int sop_kv_find(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	struct sop_attr *out, struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	struct sop_attr a;
	int rc = place(t, store, key, id, &kb, &name, e);

	if (!rc)
		rc = sop_at_lookup(t, name, &a, e);
	if (!rc && id && a.ino != id)
		rc = sop_fail(e, -ENOENT, "item");
	if (!rc && out)
		*out = a;
	return rc;
}

int sop_kv_get(struct sop_txn *t, uint64_t store, const struct sop_key *key, uint64_t id,
	void **val, size_t *len, struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	int rc = place(t, store, key, id, &kb, &name, e);

	*val = NULL;
	*len = 0;
	if (!rc)
		rc = check_id(t, name, id, e);
	return rc ? rc : sop_at_get(t, name, NULL, val, len, e);
}

int sop_kv_open(struct sop_value **out, struct sop_txn *t, uint64_t store,
	const struct sop_key *key, uint64_t id, unsigned flags, struct sop_err *e)
{
	struct sop_keybuf kb;
	struct sop_name name;
	int rc = place(t, store, key, id, &kb, &name, e);

	*out = NULL;
	if (!rc)
		rc = check_id(t, name, id, e);
	return rc ? rc : sop_at_value_open(out, t, name, NULL, flags, e);
}

/* ---- batches ---- */

static int batch_one(
	struct sop_txn *t, uint64_t store, enum sop_kv_op op, struct sop_kv *kv, struct sop_err *e)
{
	switch (op) {
	case SOP_KV_ADD:
		return sop_kv_add(t, store, &kv->key, kv->val, kv->len, &kv->id, e);
	case SOP_KV_ADD_IF_ABSENT:
		return sop_kv_add_if_absent(t, store, &kv->key, kv->val, kv->len, &kv->id, e);
	case SOP_KV_UPDATE:
		return sop_kv_update(t, store, &kv->key, kv->id, kv->val, kv->len, e);
	case SOP_KV_UPSERT:
		return sop_kv_upsert(t, store, &kv->key, kv->val, kv->len, e);
	case SOP_KV_REMOVE:
		return sop_kv_remove(t, store, &kv->key, kv->id, e);
	}
	return sop_fail(e, -EINVAL, "operation %d", (int)op);
}

int sop_kv_batch(struct sop_txn *t, uint64_t store, enum sop_kv_op op, struct sop_kv *kv, size_t n,
	size_t *done, struct sop_err *e)
{
	size_t i;
	int rc = 0;

	for (i = 0; i < n && rc >= 0; i++)
		rc = batch_one(t, store, op, &kv[i], e);
	if (done)
		*done = rc < 0 ? i - 1 : i;
	return rc < 0 ? sop_wrap(e, rc, "item %zu of %zu", i - 1, n) : 0;
}

/* ---- pages and lists ---- */

struct page {
	struct sop_txn *t;
	uint64_t store, left;
	struct sop_keying *k;
	bool values;
	int given, result;
	int (*fn)(void *arg, const struct sop_kv_item *item);
	void *arg;
	struct sop_err *e;
	char text[SOP_KEY_TEXT_MAX + 1];
};

static int page_entry(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct page *p = arg;
	struct sop_kv_item item = {.id = attr->ino, .attr = attr};
	void *val = NULL;

	p->result = sop_key_decode(&item.key, p->k, key, klen, text, text_len, p->text, p->e);
	if (!p->result && p->values)
		p->result = sop_at_get(
			p->t, (struct sop_name){p->store, key, klen}, NULL, &val, &item.len, p->e);
	item.val = val;
	if (!p->result)
		p->result = p->fn(p->arg, &item);
	free(val);
	if (p->result)
		return 1;
	p->given++;
	return --p->left == 0;
}

int sop_kv_page(struct sop_txn *t, uint64_t store, uint64_t offset, uint64_t count, unsigned flags,
	int (*fn)(void *arg, const struct sop_kv_item *item), void *arg, struct sop_err *e)
{
	struct page p = {.t = t,
		.store = store,
		.left = SOP_MIN(count, (uint64_t)INT32_MAX),
		.values = flags & SOP_PAGE_VALUES,
		.fn = fn,
		.arg = arg,
		.e = e};
	int rc = sop_txn_keying(t, store, &p.k, e);

	if (!rc && p.left)
		rc = sop_txn_scan_from(
			t, store, offset, flags & SOP_PAGE_DESCENDING, page_entry, &p, e);
	sop_keying_put(p.k);
	return rc < 0 ? rc : p.result ? p.result : p.given;
}

struct list {
	struct sop_keying *k;
	sop_list_fn fn;
	void *arg;
	struct sop_err *e;
	char name[SOP_KEY_NAME_MAX];
};

static int list_entry(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct list *l = arg;
	struct sop_listed x = {key, klen, key, klen, attr};
	int n;

	if (l->k) {
		n = sop_key_name(l->name, l->k, key, klen, text, text_len, l->e);
		if (n < 0)
			return n;
		x.name = l->name;
		x.name_len = (size_t)n;
	}
	return l->fn(l->arg, &x);
}

int sop_list(struct sop_txn *t, uint64_t store, const struct sop_range *range, bool full,
	sop_list_fn fn, void *arg, struct sop_err *e)
{
	struct list l = {.fn = fn, .arg = arg, .e = e};
	int rc = sop_txn_keying(t, store, &l.k, e);

	if (!rc)
		rc = sop_txn_scan(t, store, range, full ? SOP_SCAN_FULL : 0, list_entry, &l, e);
	sop_keying_put(l.k);
	return rc;
}

int sop_name_key(
	struct sop_txn *t, struct sop_name name, void *key, size_t *klen, struct sop_err *e)
{
	struct sop_keybuf kb;
	sop_autokeying struct sop_keying *k = NULL;
	int rc = name.len > SOP_KEY_MAX ? sop_fail(e, -ENAMETOOLONG, "key")
					: sop_txn_keying(t, name.store, &k, e);

	if (!rc && k)
		rc = sop_key_name_encode(&kb, k, name.key, name.len, e);
	if (rc)
		return rc;
	*klen = k ? kb.len : name.len;
	memcpy(key, k ? kb.key : name.key, *klen);
	return 0;
}
