/* What can be done to names: create, remove, rename, link, attributes, extended attributes, plain
 * items, stores. Each call only fills the transaction's write set; commit resolves it. */
#include "core/engine.h"

#include <sys/stat.h>

#define LINKS_MAX  65000u
#define XATTR_MAX  65536u
#define XATTRS_MAX (1u << 20)

uint64_t sop_ino_new(struct sop_volume *v)
{
	return v->next_ino++;
}

static int check_name(struct sop_name name, struct sop_err *e)
{
	if (!name.key)
		return sop_say(e, -EINVAL, "a key is needed");
	if (name.len > SOP_KEY_MAX)
		return sop_fail(e, -ENAMETOOLONG, "key of %zu bytes", name.len);
	return 0;
}

int sop_store_check(uint64_t store, struct sop_err *e)
{
	return store < SOP_STORE_ROOT
		       ? sop_fail(e, -ENOENT, "store %llu", (unsigned long long)store)
		       : 0;
}

/* The store must be there when the transaction commits: reading its state now is not enough, so the
 * inode of the directory is part of the read set (its removal is what would change it). */
static int need_store(struct sop_txn *t, uint64_t store, struct sop_err *e)
{
	struct sop_state_view view;
	int rc = sop_store_check(store, e);

	if (rc)
		return rc;
	for (const struct sop_dropped *d = t->stores; d; d = d->next)
		if (d->store == store && !d->set)
			return d->create ? 0
					 : sop_fail(e, -ENOENT, "store %llu",
						   (unsigned long long)store);
	return sop_stores_view(t->v->stores, store, t->lsn, &view, e);
}

static struct sop_wentry *put(struct sop_txn *t, uint64_t store, const void *key, size_t klen,
	const struct sop_item *it, bool fresh, struct sop_err *e)
{
	struct sop_wentry *w = sop_txn_entry(t, store, key, klen, e);
	struct sop_keying *k;

	if (!w)
		return NULL;
	/* The keying used last may be another store's: a rename has two. */
	if (store >= SOP_STORE_ROOT && t->key_store != store) {
		if (sop_txn_keying(t, store, &k, e))
			return NULL;
		sop_keying_put(k);
	}
	w->item = sop_txn_keep(t, it);
	if (!w->item) {
		sop_fail(e, -ENOMEM, "write set");
		return NULL;
	}
	/* An open value's writes are in the value, and come in at commit. */
	w->item->attr.size = it->record_size;
	w->item->attr.bytes = it->record_bytes;
	/* Put again after a removal in the same transaction: the tree's entry is still there. */
	w->fresh = w->write == SOP_WRITE_DEL   ? w->fresh
		   : w->write == SOP_WRITE_PUT ? w->fresh
					       : fresh;
	w->write = SOP_WRITE_PUT;
	w->attr_mask = 0;
	w->numbered = t->key_store == store && t->keying && t->keying->duplicates;
	w->shape = t->key_store == store && t->keying ? t->keying->shape : 0;
	t->bytes += klen + SOP_INLINE_MAX / 8;
	return w;
}

static int del(struct sop_txn *t, uint64_t store, const void *key, size_t klen, bool keep_value,
	struct sop_err *e)
{
	struct sop_wentry *w = sop_txn_entry(t, store, key, klen, e);

	if (!w)
		return -ENOMEM;
	if (w->value) {
		sop_value_unlink(w->value);
		w->value = NULL;
	}
	/* fresh stays: a name made and removed in one transaction was never in the tree. */
	w->fresh = w->write == SOP_WRITE_PUT && w->fresh;
	w->write = SOP_WRITE_DEL;
	/* Once something has moved off this key, commit looks whether its value is still in use. */
	w->keep_value |= keep_value;
	w->item = NULL;
	w->xattr = NULL;
	w->attr_mask = 0;
	t->bytes += klen + sizeof(struct sop_disk_op); /* more than nothing, whatever the key */
	return 0;
}

/* Look, and note what was seen. */
static int look(struct sop_txn *t, struct sop_name name, struct sop_item *it, uint8_t *buf,
	struct sop_err *e)
{
	int rc = sop_txn_item(t, name.store, name.key, name.len, it, buf, e);
	int saw;

	if (rc && rc != -ENOENT)
		return rc;
	saw = sop_txn_saw(t, name.store, name.key, name.len, rc ? NULL : it, e);
	return saw ? saw : rc;
}

static int look_absent(struct sop_txn *t, struct sop_name name, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc = look(t, name, &it, buf, e);

	if (!rc)
		return sop_fail(e, -EEXIST, "item");
	return rc == -ENOENT ? 0 : rc;
}

/* ---- keys of typed stores ---- */

/* The JSON store has had no key yet: this one's fields become its index, for good. */
static int first_index(
	struct sop_txn *t, uint64_t store, const char *text, size_t len, struct sop_err *e)
{
	sop_autofree char *buf = malloc(SOP_STORE_INFO_BYTES);
	sop_autofree struct sop_keying *k = calloc(1, sizeof(*k));
	sop_autofree void *own = NULL;
	struct sop_dropped *made = sop_txn_made(t, store), *d;
	const void *was, *raw;
	struct sop_store_opts o;
	uint32_t was_len, raw_len;
	int rc;

	if (!buf || !k)
		return sop_fail(e, -ENOMEM, "index");
	rc = sop_json_first(k, text, len, e);
	if (!rc && !made)
		rc = sop_stores_options(t->v->stores, store, &own, &was_len, e);
	if (rc)
		return rc;
	was = made ? made->options : own;
	was_len = made ? made->options_len : was_len;
	rc = sop_options_decode(&o, was, was_len, buf, SOP_STORE_INFO_BYTES, e);
	o.index = k->field;
	o.n_index = k->n_fields;
	if (!rc)
		rc = sop_options_encode(&t->arena, &o, &raw, &raw_len, e);
	if (rc)
		return rc;
	if (made) {
		made->options = raw;
		made->options_len = raw_len;
	} else {
		d = sop_arena_alloc(&t->arena, sizeof(*d));
		was = d ? sop_arena_copy(&t->arena, was, was_len) : NULL;
		if (!was)
			return sop_fail(e, -ENOMEM, "write set");
		*d = (struct sop_dropped){.next = t->stores,
			.store = store,
			.set = true,
			.options = raw,
			.options_len = raw_len,
			.was = was,
			.was_len = was_len};
		t->stores = d;
	}
	sop_txn_forget_keying(t);
	return 0;
}

int sop_key_resolve(struct sop_txn *t, uint64_t store, const struct sop_key *key,
	struct sop_keybuf *kb, struct sop_keying **keying, bool making, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	int rc = sop_store_check(store, e);

	if (!rc)
		rc = sop_txn_keying(t, store, &k, e);
	if (rc)
		return rc;
	if (k && k->type == SOP_KEY_JSON && key->type == SOP_KEY_JSON && !k->n_fields && making) {
		rc = first_index(t, store, key->p, key->len, e);
		sop_keying_put(k);
		k = NULL;
		if (!rc)
			rc = sop_txn_keying(t, store, &k, e);
	}
	if (!rc)
		rc = sop_key_encode(kb, k, key, e);
	*keying = rc ? NULL : sop_keying_get(k);
	return rc;
}

int sop_name_resolve(struct sop_txn *t, struct sop_name *name, struct sop_keybuf *kb, bool making,
	struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	int rc;

	kb->text_len = 0;
	if (!name->key)
		return 0;
	rc = sop_store_check(name->store, e);
	if (!rc)
		rc = sop_txn_keying(t, name->store, &k, e);
	/* A longer one is never there, whatever is committed: nothing that a read set must know. */
	if (!rc && !k && name->len > SOP_KEY_MAX)
		rc = sop_fail(e, -ENOENT, "item");
	if (rc || !k)
		return rc;
	if (making && k->type == SOP_KEY_JSON && !k->n_fields) {
		size_t len = name->len;

		while (len && ((const char *)name->key)[len - 1] != '}')
			len--;
		rc = first_index(t, name->store, name->key, len, e);
		sop_keying_put(k);
		k = NULL;
		if (!rc)
			rc = sop_txn_keying(t, name->store, &k, e);
	}
	if (!rc)
		rc = sop_key_name_encode(kb, k, name->key, name->len, e);
	/* What cannot be a name here is not there. */
	if (rc == -EINVAL && !making)
		rc = sop_fail(e, -ENOENT, "item");
	name->key = kb->key;
	name->len = kb->len;
	return rc;
}

bool sop_name_is(const struct sop_item *it, const struct sop_keybuf *kb)
{
	return it->text_len == kb->text_len &&
	       (!it->text_len || !memcmp(it->text, kb->text, it->text_len));
}

static void take_text(struct sop_item *it, const struct sop_keybuf *kb)
{
	it->text = kb->text_len ? kb->text : NULL;
	it->text_len = (uint32_t)kb->text_len;
}

/* kb NULL: by the tree's key. */
static int look_named(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_item *it, uint8_t *buf, struct sop_err *e)
{
	int rc = look(t, name, it, buf, e);

	return !rc && kb && !sop_name_is(it, kb) ? sop_fail(e, -ENOENT, "item") : rc;
}

/* ---- items ---- */

int sop_create(struct sop_txn *t, struct sop_name name, const struct sop_attr *init,
	const void *value, size_t len, struct sop_attr *out, struct sop_err *e)
{
	struct sop_item it = {0};
	struct sop_keybuf kb;
	struct sop_wentry *w;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(name, e);
	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, true, e);
	if (!rc && S_ISDIR(init->mode))
		rc = sop_fail(e, -EINVAL, "create of a store as an item");
	if (!rc)
		rc = need_store(t, name.store, e);
	if (!rc)
		rc = look_absent(t, name, e);
	if (rc)
		return rc;
	it.attr = *init;
	it.attr.ino = init->ino ? init->ino : sop_ino_new(t->v);
	it.attr.nlink = 1;
	it.attr.size = it.attr.bytes = 0;
	take_text(&it, &kb);
	w = put(t, name.store, name.key, name.len, &it, true, e);
	if (!w)
		return -ENOMEM;
	if (len) {
		rc = sop_value_whole(t, w, value, len, e);
		if (rc)
			return rc;
	}
	if (out) {
		*out = it.attr;
		out->size = len;
	}
	return 0;
}

/* One name less for an inode in the master store; the last one takes it away. */
static int unlink_inode(struct sop_txn *t, uint64_t ino, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it;
	int rc;

	sop_master_key(key, ino, 'i');
	rc = look(t, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &it, buf, e);
	if (rc)
		return rc;
	if (it.attr.nlink <= 1)
		return del(t, SOP_STORE_MASTER, key, sizeof(key), false, e);
	it.attr.nlink--;
	it.attr.ctime = sop_now(t->v);
	return put(t, SOP_STORE_MASTER, key, sizeof(key), &it, false, e) ? 0 : -ENOMEM;
}

static int remove_item(
	struct sop_txn *t, struct sop_name name, const struct sop_item *it, struct sop_err *e)
{
	int rc = 0;

	if (it->link)
		rc = unlink_inode(t, it->attr.ino, e);
	return rc ? rc : del(t, name.store, name.key, name.len, it->link, e);
}

static int remove_at(
	struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = look_named(t, name, kb, &it, buf, e);
	if (!rc && S_ISDIR(it.attr.mode))
		rc = sop_fail(e, -EISDIR, "item");
	return rc ? rc : remove_item(t, name, &it, e);
}

int sop_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = check_name(name, e);

	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, false, e);
	return rc ? rc : remove_at(t, name, &kb, e);
}

int sop_at_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e)
{
	return remove_at(t, name, NULL, e);
}

/* The same place, under another name: record, link and value go along. An open value of this
 * transaction moves with it. */
static int move_entry(struct sop_txn *t, struct sop_name from, struct sop_name to,
	const struct sop_item *it, bool to_fresh, struct sop_err *e)
{
	struct sop_wentry *w = sop_wset_find(&t->wset, from.store, from.key, from.len);
	struct sop_value *value = w ? w->value : NULL;
	struct sop_xattr_patch *xattr = w ? w->xattr : NULL;
	struct sop_wentry *n;

	if (w) {
		w->value = NULL;
		w->xattr = NULL;
	}
	n = put(t, to.store, to.key, to.len, it, to_fresh, e);
	if (!n)
		return -ENOMEM;
	n->value = value;
	n->xattr = xattr;
	/* Where the value comes from, should it be committed by somebody else meanwhile, is checked
	 * by the version seen at `from`. */
	if (value)
		sop_value_entry(value, n);
	return 0;
}

/* Is `store` equal to, or below, `top`? Follows the parents; each step is part of the read set. */
static int is_below(struct sop_txn *t, uint64_t store, uint64_t top, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it;

	while (store != SOP_ROOT) {
		int rc;

		if (store == top)
			return 1;
		sop_master_key(key, store, 'i');
		rc = look(t, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &it, buf, e);
		if (rc)
			return rc;
		store = it.attr.rdev; /* a directory keeps its parent there */
	}
	return top == SOP_ROOT;
}

static int set_parent(struct sop_txn *t, uint64_t dir, uint64_t parent, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it;
	int rc;

	sop_master_key(key, dir, 'i');
	rc = look(t, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &it, buf, e);
	if (rc)
		return rc;
	it.attr.rdev = parent;
	it.attr.ctime = sop_now(t->v);
	return put(t, SOP_STORE_MASTER, key, sizeof(key), &it, false, e) ? 0 : -ENOMEM;
}

static int remove_store(
	struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, struct sop_err *e);

static int check_replace(struct sop_txn *t, const struct sop_item *from, const struct sop_item *to,
	struct sop_err *e)
{
	uint64_t count;
	int rc;

	if (S_ISDIR(from->attr.mode) && !S_ISDIR(to->attr.mode))
		return sop_fail(e, -ENOTDIR, "target");
	if (!S_ISDIR(from->attr.mode) && S_ISDIR(to->attr.mode))
		return sop_fail(e, -EISDIR, "target");
	if (!S_ISDIR(to->attr.mode))
		return 0;
	rc = sop_count(t, to->attr.ino, &count, e);
	if (rc)
		return rc;
	return count ? sop_fail(e, -ENOTEMPTY, "target") : 0;
}

static int touch_moved(struct sop_txn *t, struct sop_item *it, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item inode;
	int rc;

	if (it->plain)
		return 0;
	if (!it->link) {
		it->attr.ctime = sop_now(t->v);
		return 0;
	}
	if (S_ISDIR(it->attr.mode))
		return 0;
	sop_master_key(key, it->attr.ino, 'i');
	rc = look(t, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &inode, buf, e);
	if (rc)
		return rc;
	inode.attr.ctime = sop_now(t->v);
	return put(t, SOP_STORE_MASTER, key, sizeof(key), &inode, false, e) ? 0 : -ENOMEM;
}

static int exchange(struct sop_txn *t, struct sop_name from, struct sop_name to, struct sop_item *a,
	struct sop_item *b, struct sop_err *e)
{
	struct sop_wentry *wa = sop_wset_find(&t->wset, from.store, from.key, from.len);
	struct sop_wentry *wb = sop_wset_find(&t->wset, to.store, to.key, to.len);
	struct sop_value *va = wa ? wa->value : NULL, *vb = wb ? wb->value : NULL;
	struct sop_xattr_patch *xa = wa ? wa->xattr : NULL, *xb = wb ? wb->xattr : NULL;
	int rc = touch_moved(t, a, e);

	if (!rc)
		rc = touch_moved(t, b, e);
	if (!rc && from.store != to.store && S_ISDIR(a->attr.mode))
		rc = set_parent(t, a->attr.ino, to.store, e);
	if (!rc && from.store != to.store && S_ISDIR(b->attr.mode))
		rc = set_parent(t, b->attr.ino, from.store, e);
	if (rc)
		return rc;
	wa = put(t, from.store, from.key, from.len, b, false, e);
	wb = put(t, to.store, to.key, to.len, a, false, e);
	if (!wa || !wb)
		return -ENOMEM;
	wa->keep_value = wb->keep_value = true;
	wa->value = vb;
	wb->value = va;
	wa->xattr = xb;
	wb->xattr = xa;
	if (va)
		sop_value_entry(va, wb);
	if (vb)
		sop_value_entry(vb, wa);
	return 0;
}

/* The record is put anew with another text of its key, which the tree orders the same. */
static int rekey_item(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	struct sop_item *it, struct sop_err *e)
{
	struct sop_wentry *w = sop_wset_find(&t->wset, name.store, name.key, name.len);

	take_text(it, kb);
	/* What was patched so far is in `it` already, but for an open value and its attributes. */
	if (w && w->write == SOP_WRITE_PATCH)
		return sop_say(e, -EBUSY, "the item has been changed in this transaction");
	return put(t, name.store, name.key, name.len, it, false, e) ? 0 : -ENOMEM;
}

/* There is none of the name `to`, but one of its key: the item itself, which gets the name, or
 * another, in the way. */
static int rename_twin(struct sop_txn *t, struct sop_name from, struct sop_name to,
	const struct sop_keybuf *to_kb, struct sop_item *it, unsigned flags, struct sop_err *e)
{
	int rc;

	if (flags & SOP_RENAME_EXCHANGE)
		return sop_fail(e, -ENOENT, "target");
	if (from.store != to.store || from.len != to.len || memcmp(from.key, to.key, to.len))
		return sop_fail(e, -EEXIST, "an item that the index takes for the target");
	rc = touch_moved(t, it, e);
	return rc ? rc : rekey_item(t, from, to_kb, it, e);
}

int sop_rename(struct sop_txn *t, struct sop_name from, struct sop_name to, unsigned flags,
	struct sop_err *e)
{
	uint8_t buf_a[SOP_ITEM_BYTES_MAX], buf_b[SOP_ITEM_BYTES_MAX];
	struct sop_keybuf from_kb, to_kb;
	struct sop_item a, b;
	int rc = sop_txn_writable(t, e), there;

	if (!rc)
		rc = check_name(from, e);
	if (!rc)
		rc = check_name(to, e);
	if (!rc && flags & ~(unsigned)(SOP_RENAME_NOREPLACE | SOP_RENAME_EXCHANGE))
		rc = sop_fail(e, -EINVAL, "rename flags");
	if (!rc)
		rc = need_store(t, to.store, e);
	if (!rc)
		rc = sop_name_resolve(t, &from, &from_kb, false, e);
	if (!rc)
		rc = sop_name_resolve(t, &to, &to_kb, true, e);
	if (!rc)
		rc = look_named(t, from, &from_kb, &a, buf_a, e);
	if (rc)
		return rc;
	there = look(t, to, &b, buf_b, e);
	if (there && there != -ENOENT)
		return there;
	if (!there && !sop_name_is(&b, &to_kb))
		return rename_twin(t, from, to, &to_kb, &a, flags, e);
	if (there && flags & SOP_RENAME_EXCHANGE)
		return sop_fail(e, -ENOENT, "target");
	if (!there && flags & SOP_RENAME_NOREPLACE)
		return sop_fail(e, -EEXIST, "target");
	if (S_ISDIR(a.attr.mode) && (rc = is_below(t, to.store, a.attr.ino, e)))
		return rc < 0 ? rc : sop_fail(e, -EINVAL, "a directory into itself");
	if (!there && flags & SOP_RENAME_EXCHANGE && S_ISDIR(b.attr.mode) &&
		(rc = is_below(t, from.store, b.attr.ino, e)))
		return rc < 0 ? rc : sop_fail(e, -EINVAL, "a directory into itself");
	/* Two names of one inode: rename(2) does nothing. */
	if (!there && a.attr.ino == b.attr.ino)
		return 0;
	take_text(&a, &to_kb);
	if (flags & SOP_RENAME_EXCHANGE) {
		take_text(&b, &from_kb);
		return exchange(t, from, to, &a, &b, e);
	}
	if (!there) {
		rc = check_replace(t, &a, &b, e);
		if (!rc)
			rc = S_ISDIR(b.attr.mode) ? remove_store(t, to, &to_kb, e)
						  : remove_item(t, to, &b, e);
	}
	if (!rc)
		rc = touch_moved(t, &a, e);
	if (!rc && from.store != to.store && S_ISDIR(a.attr.mode))
		rc = set_parent(t, a.attr.ino, to.store, e);
	if (!rc)
		rc = move_entry(t, from, to, &a, there != 0, e);
	return rc ? rc : del(t, from.store, from.key, from.len, true, e);
}

int sop_link(struct sop_txn *t, struct sop_name from, struct sop_name to, struct sop_attr *out,
	struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it, name = {0};
	struct sop_keybuf from_kb, to_kb;
	struct sop_wentry *w;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(from, e);
	if (!rc)
		rc = check_name(to, e);
	if (!rc)
		rc = need_store(t, to.store, e);
	if (!rc)
		rc = sop_name_resolve(t, &from, &from_kb, false, e);
	if (!rc)
		rc = sop_name_resolve(t, &to, &to_kb, true, e);
	if (!rc)
		rc = look_named(t, from, &from_kb, &it, buf, e);
	if (!rc && S_ISDIR(it.attr.mode))
		rc = sop_fail(e, -EPERM, "a second name for a directory");
	if (!rc)
		rc = look_absent(t, to, e);
	if (rc)
		return rc;
	name.link = true;
	name.attr.ino = it.attr.ino;
	name.attr.mode = it.attr.mode & S_IFMT ? it.attr.mode & S_IFMT : S_IFREG;
	sop_master_key(key, it.attr.ino, 'i');
	if (it.link) {
		rc = look(t, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &it, buf, e);
		if (rc)
			return rc;
		if (it.attr.nlink >= LINKS_MAX)
			return sop_fail(e, -EMLINK, "item");
	} else {
		/* The inode moves to the master store; both names refer to it from now on. */
		sop_attr_merge(&it.attr, &it.plain, &it.attr, SOP_ATTR_FLAGS);
		it.text_len = 0;
		rc = move_entry(t, from, (struct sop_name){SOP_STORE_MASTER, key, sizeof(key)}, &it,
			true, e);
		if (rc)
			return rc;
		take_text(&name, &from_kb);
		w = put(t, from.store, from.key, from.len, &name, false, e);
		if (!w)
			return -ENOMEM;
		w->keep_value = true;
	}
	it.attr.nlink++;
	it.attr.ctime = sop_now(t->v);
	w = put(t, SOP_STORE_MASTER, key, sizeof(key), &it, false, e);
	take_text(&name, &to_kb);
	if (!w || !put(t, to.store, to.key, to.len, &name, true, e))
		return -ENOMEM;
	if (out)
		*out = it.attr;
	return 0;
}

/* ---- attributes ---- */

int sop_setattr(struct sop_txn *t, struct sop_name name, const struct sop_attr *a, unsigned mask,
	struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_place place;
	struct sop_keybuf kb;
	struct sop_wentry *w;
	struct sop_item it;
	bool plain;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, false, e);
	if (!rc)
		rc = sop_txn_inode(t, name, &kb, &place, &it, buf, e);
	if (rc)
		return rc;
	if (mask & SOP_ATTR_SAME_INO && a->ino != it.attr.ino)
		return sop_fail(
			e, -ESTALE, "inode %llu has another name", (unsigned long long)a->ino);
	w = sop_txn_entry(t, place.store, place.key, place.klen, e);
	if (!w)
		return -ENOMEM;
	if (w->write == SOP_WRITE_NONE)
		w->write = SOP_WRITE_PATCH;
	plain = false; /* a patch has no type of its own to give */
	mask &= ~(unsigned)SOP_ATTR_SAME_INO;
	sop_attr_merge(&w->attr, &plain, a, mask);
	w->attr.ino = it.attr.ino; /* the patch is meant for this one */
	w->attr_mask |= mask;
	t->bytes += 128;
	return 0;
}

/* ---- extended attributes ---- */

struct xattr {
	const char *name;
	const uint8_t *val;
	uint32_t len;
	const uint8_t *next;
};

/* The attribute at p; false at the end or where the set is not well formed. */
static bool xattr_at(struct xattr *x, const uint8_t *p, const uint8_t *end)
{
	const uint8_t *nul = p < end ? memchr(p, 0, (size_t)(end - p)) : NULL;
	struct le32 len;

	if (!nul || end - nul - 1 < 4)
		return false;
	memcpy(&len, nul + 1, 4);
	x->name = (const char *)p;
	x->len = le32_get(len);
	x->val = nul + 5;
	if ((size_t)(end - x->val) < x->len)
		return false;
	x->next = x->val + x->len;
	return true;
}

/* The committed set, as bytes; *own: malloc'ed when it came from a blob. */
int sop_xattrs_load(struct sop_volume *v, const struct sop_item *it, const uint8_t **p, size_t *len,
	void **own, struct sop_err *e)
{
	int rc;

	*own = NULL;
	*p = it->xattrs;
	*len = it->xattrs_len;
	if (!it->xattr_blob.segment)
		return 0;
	*len = it->xattr_blob.len;
	*own = malloc(*len);
	if (!*own)
		return sop_fail(e, -ENOMEM, "extended attributes");
	rc = sop_blob_read(v->seg, &it->xattr_blob, *own, *len, 0, e);
	if (rc) {
		free(*own);
		*own = NULL;
		return rc;
	}
	*p = *own;
	return 0;
}

static struct sop_xattr_patch *patch_find(struct sop_xattr_patch *p, const char *name)
{
	while (p && strcmp(p->name, name))
		p = p->next;
	return p;
}

/* A set with a patch applied: *out malloc'ed, *len bytes. Names in order of age. */
int sop_xattrs_apply(const uint8_t *p, size_t len, struct sop_xattr_patch *patch, uint8_t **out,
	size_t *out_len, struct sop_err *e)
{
	const uint8_t *end = len ? p + len : p;
	struct xattr x;
	size_t cap = len, n = 0;
	uint8_t *o;

	for (struct sop_xattr_patch *q = patch; q; q = q->next)
		cap += strlen(q->name) + 5 + q->len;
	if (cap > XATTRS_MAX)
		return sop_fail(e, -ENOSPC, "extended attributes");
	o = malloc(cap + 1);
	if (!o)
		return sop_fail(e, -ENOMEM, "extended attributes");
	for (; len && xattr_at(&x, p, end); p = x.next)
		if (!patch_find(patch, x.name)) {
			memcpy(o + n, p, (size_t)(x.next - p));
			n += (size_t)(x.next - p);
		}
	for (struct sop_xattr_patch *q = patch; q; q = q->next) {
		struct le32 l = le32_make(q->len);
		size_t name = strlen(q->name) + 1;

		if (!q->val || patch_find(patch, q->name) != q) /* an older one of the same name */
			continue;
		memcpy(o + n, q->name, name);
		memcpy(o + n + name, &l, 4);
		if (q->len)
			memcpy(o + n + name + 4, q->val, q->len);
		n += name + 4 + q->len;
	}
	*out = o;
	*out_len = n;
	return 0;
}

/* The set as this transaction sees it. */
static int xattrs_view(struct sop_txn *t, struct sop_name name, struct sop_keybuf *kb,
	struct sop_place *place, uint8_t **set, size_t *len, uint64_t *ino, bool saw,
	struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_wentry *w;
	struct sop_item it;
	const uint8_t *p;
	void *own;
	int rc = sop_name_resolve(t, &name, kb, false, e);

	if (!rc)
		rc = sop_txn_inode(t, name, kb, place, &it, buf, e);

	if (!rc && saw)
		rc = sop_txn_saw(t, place->store, place->key, place->klen, &it, e);
	if (!rc)
		rc = sop_xattrs_load(t->v, &it, &p, len, &own, e);
	if (rc)
		return rc;
	w = t->wset.count ? sop_wset_find(&t->wset, place->store, place->key, place->klen) : NULL;
	rc = sop_xattrs_apply(p, *len, w ? w->xattr : NULL, set, len, e);
	*ino = it.attr.ino;
	free(own);
	return rc;
}

ssize_t sop_xattr_get(struct sop_txn *t, struct sop_name name, const char *attr, void *buf,
	size_t size, struct sop_err *e)
{
	sop_autofree uint8_t *set = NULL;
	struct sop_keybuf kb; /* what place refers to */
	struct sop_place place;
	struct xattr x;
	size_t len;
	uint64_t ino;
	int rc = xattrs_view(t, name, &kb, &place, &set, &len, &ino, true, e);

	if (rc)
		return rc;
	for (const uint8_t *p = set; xattr_at(&x, p, set + len); p = x.next) {
		if (strcmp(x.name, attr))
			continue;
		if (size && size < x.len)
			return sop_fail(e, -ERANGE, "extended attribute");
		if (size && x.len)
			memcpy(buf, x.val, x.len);
		return (ssize_t)x.len;
	}
	return sop_fail(e, -ENODATA, "extended attribute");
}

ssize_t sop_xattr_list(
	struct sop_txn *t, struct sop_name name, char *buf, size_t size, struct sop_err *e)
{
	sop_autofree uint8_t *set = NULL;
	struct sop_keybuf kb; /* what place refers to */
	struct sop_place place;
	struct xattr x;
	size_t len, n = 0;
	uint64_t ino;
	int rc = xattrs_view(t, name, &kb, &place, &set, &len, &ino, true, e);

	if (rc)
		return rc;
	for (const uint8_t *p = set; xattr_at(&x, p, set + len); p = x.next) {
		size_t l = strlen(x.name) + 1;

		if (size && size - n < l)
			return sop_fail(e, -ERANGE, "extended attributes");
		if (size)
			memcpy(buf + n, x.name, l);
		n += l;
	}
	return (ssize_t)n;
}

static int xattr_change(struct sop_txn *t, struct sop_name name, const char *attr, const void *val,
	size_t len, unsigned flags, struct sop_err *e)
{
	sop_autofree uint8_t *set = NULL;
	struct sop_xattr_patch *q;
	struct sop_keybuf kb;
	struct sop_place place;
	struct sop_wentry *w;
	struct xattr x;
	size_t set_len;
	uint64_t ino = 0;
	bool there = false;
	int rc = sop_txn_writable(t, e);

	if (!rc && (!*attr || strlen(attr) > 255))
		rc = sop_fail(e, -ERANGE, "name of an extended attribute");
	if (!rc && len > XATTR_MAX)
		rc = sop_fail(e, -E2BIG, "extended attribute of %zu bytes", len);
	/* Only what depends on the set as it is makes the transaction depend on it. */
	if (!rc)
		rc = xattrs_view(t, name, &kb, &place, &set, &set_len, &ino, flags != 0 || !val, e);
	if (rc)
		return rc;
	for (const uint8_t *p = set; !there && xattr_at(&x, p, set + set_len); p = x.next)
		there = !strcmp(x.name, attr);
	if (there && flags & SOP_XATTR_CREATE)
		return sop_fail(e, -EEXIST, "extended attribute");
	if (!there && (flags & SOP_XATTR_REPLACE || !val))
		return sop_fail(e, -ENODATA, "extended attribute");
	w = sop_txn_entry(t, place.store, place.key, place.klen, e);
	if (w)
		w->attr.ino = ino;
	q = sop_arena_alloc(&t->arena, sizeof(*q));
	if (!w || !q)
		return sop_fail(e, -ENOMEM, "extended attribute");
	q->name = sop_arena_copy(&t->arena, attr, strlen(attr) + 1);
	q->val = val ? sop_arena_copy(&t->arena, val, len) : NULL;
	q->len = val ? (uint32_t)len : 0;
	if (!q->name || (val && !q->val))
		return sop_fail(e, -ENOMEM, "extended attribute");
	q->next = w->xattr;
	w->xattr = q;
	if (w->write == SOP_WRITE_NONE)
		w->write = SOP_WRITE_PATCH;
	w->attr.ctime = sop_now(t->v);
	w->attr_mask |= SOP_ATTR_CTIME;
	t->bytes += len + 128;
	return 0;
}

int sop_xattr_set(struct sop_txn *t, struct sop_name name, const char *attr, const void *val,
	size_t len, unsigned flags, struct sop_err *e)
{
	return xattr_change(t, name, attr, val ? val : "", len, flags, e);
}

int sop_xattr_remove(struct sop_txn *t, struct sop_name name, const char *attr, struct sop_err *e)
{
	return xattr_change(t, name, attr, NULL, 0, 0, e);
}

/* ---- plain items ---- */

static int put_plain(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, uint64_t ino, struct sop_err *e)
{
	struct sop_item it = {.plain = true};
	struct sop_wentry *w;

	it.attr.ino = ino ? ino : sop_ino_new(t->v);
	take_text(&it, kb);
	w = put(t, name.store, name.key, name.len, &it, true, e);
	return w ? sop_value_whole(t, w, val, len, e) : -ENOMEM;
}

/* Replace the value of what is there. */
static int replace_value(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, struct sop_err *e)
{
	struct sop_value *x;
	int rc = sop_at_value_open(&x, t, name, kb, SOP_VALUE_WRITE | SOP_VALUE_TRUNC, e);
	ssize_t n;

	if (rc)
		return rc;
	n = len ? sop_value_write(x, val, len, 0, e) : 0;
	sop_value_close(x);
	return n < 0 ? (int)n : 0;
}

int sop_at_absent(struct sop_txn *t, struct sop_name name, struct sop_err *e)
{
	return look_absent(t, name, e);
}

int sop_at_add(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, uint64_t ino, struct sop_err *e)
{
	int rc = need_store(t, name.store, e);

	/* A number of its own comes with the commit: nobody else can have it. */
	if (!rc && !ino)
		rc = look_absent(t, name, e);
	return rc ? rc : put_plain(t, name, kb, val, len, ino, e);
}

int sop_add(struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(name, e);
	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, true, e);
	return rc ? rc : sop_at_add(t, name, &kb, val, len, 0, e);
}

int sop_add_if_absent(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e)
{
	int rc = sop_add(t, name, val, len, e);

	return rc == -EEXIST ? 0 : rc ? rc : 1;
}

int sop_at_update(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	const void *val, size_t len, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc = look_named(t, name, kb, &it, buf, e);

	if (!rc && S_ISDIR(it.attr.mode))
		rc = sop_fail(e, -EISDIR, "item");
	return rc ? rc : replace_value(t, name, kb, val, len, e);
}

int sop_update(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(name, e);
	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, false, e);
	return rc ? rc : sop_at_update(t, name, &kb, val, len, e);
}

int sop_upsert(
	struct sop_txn *t, struct sop_name name, const void *val, size_t len, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(name, e);
	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, true, e);
	if (!rc)
		rc = sop_at_update(t, name, &kb, val, len, e);
	return rc == -ENOENT ? sop_at_add(t, name, &kb, val, len, 0, e) : rc;
}

int sop_at_rekey(
	struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc = look(t, name, &it, buf, e);

	return rc ? rc : rekey_item(t, name, kb, &it, e);
}

/* A value that lies whole in its record: the common case. 1: done; 0: it does not. */
static int get_inline(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb,
	void **val, size_t *len, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	const struct sop_wentry *w =
		t->wset.count ? sop_wset_find(&t->wset, name.store, name.key, name.len) : NULL;
	struct sop_item it = {0};
	uint8_t *p;
	int rc = w && w->value ? 1 : sop_txn_item(t, name.store, name.key, name.len, &it, buf, e);

	if (rc || (kb && !sop_name_is(&it, kb)) || it.link || it.extents || it.tree || it.run_off ||
		it.run_len != it.attr.size || S_ISDIR(it.attr.mode))
		return 0;
	rc = sop_txn_saw(t, name.store, name.key, name.len, &it, e);
	p = rc ? NULL : malloc(it.run_len + 1);
	if (!p)
		return rc ? rc : sop_fail(e, -ENOMEM, "value of %u bytes", it.run_len);
	if (it.run_len)
		memcpy(p, it.run, it.run_len);
	p[it.run_len] = 0;
	*val = p;
	*len = it.run_len;
	return 1;
}

int sop_at_get(struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, void **val,
	size_t *len, struct sop_err *e)
{
	struct sop_value *x;
	uint64_t size;
	uint8_t *p;
	ssize_t n;
	int rc;

	*val = NULL;
	*len = 0;
	rc = get_inline(t, name, kb, val, len, e);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = sop_at_value_open(&x, t, name, kb, 0, e);
	if (rc)
		return rc;
	size = sop_value_size(x);
	p = size < SIZE_MAX / 2 ? malloc(size + 1) : NULL;
	if (!p) {
		sop_value_close(x);
		return sop_fail(e, -ENOMEM, "value of %llu bytes", (unsigned long long)size);
	}
	n = sop_value_read(x, p, size, 0, e);
	sop_value_close(x);
	if (n < 0) {
		free(p);
		return (int)n;
	}
	p[n] = 0;
	*val = p;
	*len = (size_t)n;
	return 0;
}

int sop_get(struct sop_txn *t, struct sop_name name, void **val, size_t *len, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = sop_name_resolve(t, &name, &kb, false, e);

	*val = NULL;
	*len = 0;
	return rc ? rc : sop_at_get(t, name, &kb, val, len, e);
}

/* ---- stores ---- */

static int note_store(struct sop_txn *t, uint64_t store, bool create, const void *options,
	uint32_t len, struct sop_err *e)
{
	struct sop_dropped *d = sop_arena_alloc(&t->arena, sizeof(*d));

	if (!d)
		return sop_fail(e, -ENOMEM, "write set");
	*d = (struct sop_dropped){.next = t->stores,
		.store = store,
		.create = create,
		.options = options,
		.options_len = len};
	t->stores = d;
	return 0;
}

/* The profile that a new store gets: what is asked for, or the one of its own name, or the default.
 */
static int choose_profile(struct sop_txn *t, struct sop_name name, struct sop_store_opts *o,
	char own[SOP_PROFILE_NAME], struct sop_err *e)
{
	unsigned profile;

	if (o->profile)
		return sop_profile_find(t->v, o->profile, &profile, e);
	if (name.len && name.len < SOP_PROFILE_NAME && sop_profile_of(t->v, name.key, name.len)) {
		memcpy(own, name.key, name.len);
		own[name.len] = 0;
		o->profile = own;
	}
	return 0;
}

int sop_store_create(struct sop_txn *t, struct sop_name name, const struct sop_attr *init,
	const struct sop_store_opts *o, struct sop_attr *out, struct sop_err *e)
{
	static const struct sop_store_opts none;
	struct sop_store_opts given = o ? *o : none;
	char own[SOP_PROFILE_NAME];
	uint8_t key[SOP_MASTER_KEY];
	struct sop_item inode = {0}, link = {.link = true};
	struct sop_keybuf kb;
	const void *options;
	uint32_t options_len;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = check_name(name, e);
	if (!rc)
		rc = need_store(t, name.store, e);
	if (!rc)
		rc = choose_profile(t, name, &given, own, e);
	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, true, e);
	if (!rc)
		rc = look_absent(t, name, e);
	if (!rc)
		rc = sop_options_encode(
			&t->arena, o || given.profile ? &given : NULL, &options, &options_len, e);
	if (rc)
		return rc;
	if (init) {
		inode.attr = *init;
	} else {
		inode.attr.mode = 0755;
		inode.attr.mtime = sop_now(t->v);
		inode.attr.atime = inode.attr.ctime = inode.attr.btime = inode.attr.mtime;
	}
	inode.attr.mode = (uint32_t)S_IFDIR | (inode.attr.mode & ~(uint32_t)S_IFMT);
	inode.attr.ino = sop_ino_new(t->v);
	inode.attr.nlink = 1;
	inode.attr.rdev = name.store; /* the parent */
	inode.attr.size = inode.attr.bytes = 0;
	link.attr.ino = inode.attr.ino;
	link.attr.mode = S_IFDIR;
	take_text(&link, &kb);
	sop_master_key(key, inode.attr.ino, 'i');
	if (!put(t, name.store, name.key, name.len, &link, true, e) ||
		!put(t, SOP_STORE_MASTER, key, sizeof(key), &inode, true, e))
		return -ENOMEM;
	if (out) {
		*out = inode.attr;
		out->rdev = 0;
		out->nlink = 2;
	}
	return note_store(t, inode.attr.ino, true, options, options_len, e);
}

int sop_store_remove(struct sop_txn *t, struct sop_name name, struct sop_err *e)
{
	struct sop_keybuf kb;
	int rc = check_name(name, e);

	if (!rc)
		rc = sop_name_resolve(t, &name, &kb, false, e);
	return rc ? rc : remove_store(t, name, &kb, e);
}

static int any_entry(void *arg, const struct sop_listed *x)
{
	(void)arg;
	(void)x;
	return 1;
}

/* By its count, and, where there is a tree, by what is in it: a record that drops a store with
 * entries could never be applied, and the volume not be opened again. */
static int check_empty(struct sop_txn *t, uint64_t store, struct sop_err *e)
{
	const struct sop_range all = {0};
	struct sop_state_view view;
	uint64_t count;
	int rc = sop_count(t, store, &count, e);

	if (!rc && count)
		return sop_fail(e, -ENOTEMPTY, "store");
	if (!rc)
		rc = sop_txn_state(t, store, &view, e);
	if (!rc && view.tree.root)
		rc = sop_list(t, store, &all, false, any_entry, NULL, e);
	return rc > 0 ? sop_fail(e, -ENOTEMPTY, "store") : rc;
}

static int remove_store(
	struct sop_txn *t, struct sop_name name, const struct sop_keybuf *kb, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it;
	int rc = sop_txn_writable(t, e);

	if (!rc)
		rc = look_named(t, name, kb, &it, buf, e);
	if (!rc && !S_ISDIR(it.attr.mode))
		rc = sop_fail(e, -ENOTDIR, "item");
	if (!rc)
		rc = check_empty(t, it.attr.ino, e);
	if (!rc)
		rc = del(t, name.store, name.key, name.len, true, e);
	if (rc)
		return rc;
	sop_master_key(key, it.attr.ino, 'i');
	rc = del(t, SOP_STORE_MASTER, key, sizeof(key), false, e);
	return rc ? rc : note_store(t, it.attr.ino, false, NULL, 0, e);
}

/* The store's options as bytes, as the transaction sees them; *own: to be freed, or NULL. */
static int options_of(struct sop_txn *t, uint64_t store, const void **raw, uint32_t *len,
	void **own, struct sop_err *e)
{
	int rc;

	*own = NULL;
	for (const struct sop_dropped *d = t->stores; d; d = d->next)
		if (d->store == store && (d->create || d->set)) {
			*raw = d->options;
			*len = d->options_len;
			return 0;
		}
	rc = sop_stores_options(t->v->stores, store, own, len, e);
	*raw = *own;
	return rc;
}

static int match_store(
	struct sop_txn *t, uint64_t store, const struct sop_store_opts *o, struct sop_err *e)
{
	sop_autofree char *buf = malloc(SOP_STORE_INFO_BYTES);
	struct sop_store_opts has;
	int rc = buf ? sop_store_info(t, store, &has, buf, SOP_STORE_INFO_BYTES, e)
		     : sop_fail(e, -ENOMEM, "store options");

	return rc ? rc : sop_options_match(&has, o, e);
}

int sop_store_at(struct sop_txn *t, const char *path, unsigned flags,
	const struct sop_store_opts *o, uint64_t *store, struct sop_err *e)
{
	uint64_t at = SOP_ROOT;

	while (*path == '/')
		path++;
	while (*path) {
		size_t len = strcspn(path, "/");
		struct sop_name name = {at, path, len};
		const char *rest = path + len + strspn(path + len, "/");
		struct sop_attr a;
		int rc = sop_lookup(t, name, &a, e);

		if (rc == -ENOENT && flags & SOP_STORE_CREATE)
			rc = sop_store_create(t, name, NULL, *rest ? NULL : o, &a, e);
		else if (!rc && !S_ISDIR(a.mode))
			rc = sop_fail(e, -ENOTDIR, "item");
		else if (!rc && o && !*rest)
			rc = match_store(t, a.ino, o, e);
		if (rc)
			return sop_wrap(e, rc, "store %.*s", (int)SOP_MIN(len, (size_t)255), path);
		at = a.ino;
		path = rest;
	}
	*store = at;
	return 0;
}

int sop_store_info(struct sop_txn *t, uint64_t store, struct sop_store_opts *o, char *buf,
	size_t size, struct sop_err *e)
{
	sop_autofree void *own = NULL;
	const void *raw = NULL;
	uint32_t len;
	int rc;

	memset(o, 0, sizeof(*o));
	rc = options_of(t, store, &raw, &len, &own, e);
	return rc ? rc : sop_options_decode(o, raw, len, buf, size, e);
}

int sop_store_set(struct sop_txn *t, uint64_t store, const struct sop_store_opts *o, unsigned mask,
	struct sop_err *e)
{
	sop_autofree char *buf = malloc(SOP_STORE_INFO_BYTES);
	sop_autofree void *own = NULL;
	struct sop_dropped *made = sop_txn_made(t, store), *d;
	const void *was, *raw;
	uint32_t was_len, len;
	struct sop_store_opts now;
	int rc = sop_txn_writable(t, e);

	if (!rc && mask & ~(unsigned)(SOP_STORE_NOTE | SOP_STORE_SESSION | SOP_STORE_CACHE |
				      SOP_STORE_SHAPE))
		rc = sop_fail(e, -EINVAL, "store: what is to be set");
	if (!rc && !buf)
		rc = sop_fail(e, -ENOMEM, "store options");
	if (!rc)
		rc = need_store(t, store, e);
	if (!rc)
		rc = options_of(t, store, &was, &was_len, &own, e);
	if (!rc)
		rc = sop_options_decode(&now, was, was_len, buf, SOP_STORE_INFO_BYTES, e);
	if (rc)
		return rc;
	if (mask & SOP_STORE_SHAPE) {
		const struct sop_store_opts old = now;
		uint64_t count;
		unsigned profile;

		rc = sop_count(t, store, &count, e);
		if (!rc && count)
			rc = sop_say(e, -ENOTEMPTY, "the store has items: what shapes it is fixed");
		if (!rc && o->profile)
			rc = sop_profile_find(t->v, o->profile, &profile, e);
		if (rc)
			return rc;
		now = *o;
		now.note = old.note;
		now.session = old.session;
		now.cache_class = old.cache_class;
	}
	if (mask & SOP_STORE_NOTE)
		now.note = o->note;
	if (mask & SOP_STORE_SESSION)
		now.session = o->session;
	if (mask & SOP_STORE_CACHE)
		now.cache_class = o->cache_class;
	rc = sop_options_encode(&t->arena, &now, &raw, &len, e);
	if (rc)
		return rc;
	sop_txn_forget_keying(t);
	if (made) {
		made->options = raw;
		made->options_len = len;
		made->shape |= mask & SOP_STORE_SHAPE;
		return 0;
	}
	d = sop_arena_alloc(&t->arena, sizeof(*d));
	was = d ? sop_arena_copy(&t->arena, was ? was : "", was_len) : NULL;
	if (!was)
		return sop_fail(e, -ENOMEM, "write set");
	*d = (struct sop_dropped){.next = t->stores,
		.store = store,
		.set = true,
		.shape = mask & SOP_STORE_SHAPE,
		.options = raw,
		.options_len = len,
		.was = was,
		.was_len = was_len};
	t->stores = d;
	return 0;
}
