/* Making an open volume whole again, in rounds: walk, put right, walk again until nothing is left
 * to do.
 *
 * What is lost goes first, when that is wanted, then trees are put in order, then names and inodes
 * are made to agree, and only when all is reached and agrees are counts and accounts corrected by
 * what was met. A volume some of which could not be reached keeps its accounts: what was not met
 * may still be wanted.
 *
 * Names and items change by ordinary commits. Counts, accounts and nodes let go of have no record
 * in the journal: each round begins with a checkpoint, which makes what the round before did last.
 * A crash leaves a volume that is as wrong as it was, or less. */
#include <stdio.h>
#include <sys/stat.h>

#include "core/fsck_own.h"
#include "core/salvage.h"

#define ROUNDS	   12
#define LOST_FOUND "lost+found"

struct repair {
	struct sop_volume *v;
	const struct sop_fsck_opts *o;
	struct sop_check *c;
	struct sop_err *e;
	bool changed; /* in this round */
	bool any;
	uint64_t ordered; /* the store whose tree has been put in order last */
	bool moved;	  /* a directory of a circle has been moved: the others may hang on it */
};

/* ---- commits ---- */

/* rc: how putting them together went; the operations are let go of in any case. */
static int commit(struct repair *r, struct sop_buf *ops, int rc)
{
	if (!rc) {
		sop_lock(&r->v->commit);
		rc = sop_commit_locked(r->v, ops, r->e);
		sop_unlock(&r->v->commit);
		r->changed = r->changed || !rc;
	}
	sop_buf_release(ops);
	return rc;
}

static int drop_entry(struct repair *r, uint64_t store, const void *key, size_t klen, bool dir)
{
	struct sop_buf ops = {0};

	sop_buf_op(&ops, SOP_OP_DEL,
		(dir ? SOP_OPF_SUBDIR : 0) | (store < SOP_STORE_ROOT ? SOP_OPF_QUIET : 0), store,
		key, klen, NULL, 0);
	return commit(r, &ops, 0);
}

static int drop_name(void *arg, uint64_t store, const void *key, size_t klen, bool dir)
{
	return drop_entry(arg, store, key, klen, dir);
}

struct held {
	struct sop_item it;
	uint8_t buf[SOP_ITEM_BYTES_MAX];
};

static int item_get(struct repair *r, uint64_t store, const void *key, size_t klen, struct held *h)
{
	return sop_tree_item(r->v, store, SOP_LSN_LATEST, key, klen, &h->it, h->buf, r->e);
}

static int inode_get(struct repair *r, uint64_t ino, struct held *h)
{
	uint8_t key[SOP_MASTER_KEY];

	sop_master_key(key, ino, 'i');
	return item_get(r, SOP_STORE_MASTER, key, sizeof(key), h);
}

/* An inode that no name leads to any more. */
static int remove_nameless(struct repair *r, uint64_t ino)
{
	sop_autofree struct held *h = malloc(sizeof(*h));
	struct le64 owner = le64_make(ino);
	struct sop_buf ops = {0};
	uint8_t key[SOP_MASTER_KEY], tree[8];
	int rc = h ? inode_get(r, ino, h) : sop_fail(r->e, -ENOMEM, "repair");

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	for (uint32_t i = 0; i < h->it.extents; i++)
		sop_buf_ref(&ops, SOP_OP_FREE, ino, &h->it.extent[i].ref);
	if (h->it.xattr_blob.segment)
		sop_buf_ref(&ops, SOP_OP_FREE, ino, &h->it.xattr_blob);
	be64_put(tree, h->it.tree);
	if (h->it.tree)
		sop_buf_op(&ops, SOP_OP_PUT, SOP_OPF_QUIET, SOP_STORE_DOOMED, tree, sizeof(tree),
			&owner, sizeof(owner));
	sop_master_key(key, ino, 'i');
	sop_buf_op(&ops, SOP_OP_DEL, SOP_OPF_QUIET, SOP_STORE_MASTER, key, sizeof(key), NULL, 0);
	return commit(r, &ops, 0);
}

/* An item with all its names; its extents are given back, those in a tree later. Of an inode of
 * MASTER some names may be in what cannot be read, so its own count is not to be relied on. */
static int remove_item(struct repair *r, uint64_t store, const void *key, size_t klen, uint64_t ino)
{
	struct sop_txn *t;
	int rc;

	if (store == SOP_STORE_MASTER) {
		rc = sop_check_each_name(r->c, ino, drop_name, r);
		return rc ? rc : remove_nameless(r, ino);
	}
	rc = sop_txn_begin(&t, r->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, r->e);
	if (rc)
		return rc;
	rc = sop_remove(t, (struct sop_name){store, key, klen}, r->e);
	if (rc) {
		sop_txn_rollback(t);
		return rc == -ENOENT ? 0 : rc; /* it went with another finding of it */
	}
	rc = sop_txn_commit(t, 0, r->e);
	r->changed = r->changed || !rc;
	return rc;
}

/* ---- inodes ---- */

static int op_item(struct repair *r, struct sop_buf *ops, uint64_t store, const void *key,
	size_t klen, struct sop_item *it, unsigned flags)
{
	uint8_t raw[SOP_ITEM_BYTES_MAX];
	int rc;

	it->attr.version = r->v->lsn_next;
	rc = sop_item_encode(raw, it);
	if (rc < 0)
		return sop_fail(r->e, rc, "repair of an item");
	sop_buf_op(ops, SOP_OP_PUT, flags, store, key, klen, raw, (size_t)rc);
	return 0;
}

/* Change of the inode `ino` of MASTER: number of names, or (a directory) the parent. */
static int op_inode(
	struct repair *r, struct sop_buf *ops, uint64_t ino, struct held *h, uint64_t value)
{
	uint8_t key[SOP_MASTER_KEY];

	sop_master_key(key, ino, 'i');
	if (S_ISDIR(h->it.attr.mode))
		h->it.attr.rdev = value;
	else
		h->it.attr.nlink = (uint32_t)value;
	return op_item(r, ops, SOP_STORE_MASTER, key, sizeof(key), &h->it, SOP_OPF_QUIET);
}

static int set_inode(struct repair *r, uint64_t ino, uint64_t value)
{
	sop_autofree struct held *h = malloc(sizeof(*h));
	struct sop_buf ops = {0};
	int rc = h ? inode_get(r, ino, h) : sop_fail(r->e, -ENOMEM, "repair");

	if (!rc)
		rc = op_inode(r, &ops, ino, h, value);
	return commit(r, &ops, rc);
}

static int lost_found(struct repair *r, uint64_t *store)
{
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, r->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, r->e);

	if (rc)
		return rc;
	rc = sop_store_at(t, LOST_FOUND, SOP_STORE_CREATE, NULL, store, r->e);
	if (rc) {
		sop_txn_rollback(t);
		return sop_wrap(r->e, rc, "/" LOST_FOUND);
	}
	return sop_txn_commit(t, 0, r->e);
}

/* A name in lost+found. A directory of a circle loses the one it has. */
static int adopt(struct repair *r, const struct sop_check_record *rec)
{
	sop_autofree struct held *h = malloc(sizeof(*h));
	struct sop_item link = {.link = true};
	struct sop_buf ops = {0};
	uint64_t store = 0;
	char name[32];
	bool dir;
	int rc = h ? inode_get(r, rec->ino, h) : sop_fail(r->e, -ENOMEM, "repair");

	if (rc || (rec->key && r->moved))
		return rc;
	rc = lost_found(r, &store);
	if (rc)
		return rc;
	dir = S_ISDIR(h->it.attr.mode);
	if (rec->key)
		sop_buf_op(&ops, SOP_OP_DEL, dir ? SOP_OPF_SUBDIR : 0, rec->store, rec->key,
			rec->klen, NULL, 0);
	r->moved = r->moved || rec->key;
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)rec->ino);
	link.attr.ino = rec->ino;
	link.attr.mode = h->it.attr.mode & S_IFMT;
	rc = op_item(r, &ops, store, name, strlen(name), &link, dir ? SOP_OPF_SUBDIR : 0);
	if (!rc)
		rc = op_inode(r, &ops, rec->ino, h, dir ? store : 1);
	return commit(r, &ops, rc);
}

struct extra {
	struct repair *r;
	uint64_t parent;
	bool kept;
};

static int drop_extra(void *arg, uint64_t store, const void *key, size_t klen, bool dir)
{
	struct extra *x = arg;

	if (store == x->parent && !x->kept) {
		x->kept = true;
		return 0;
	}
	return drop_entry(x->r, store, key, klen, dir);
}

static int is_in(void *arg, uint64_t store, const void *key, size_t klen, bool dir)
{
	const uint64_t *parent = arg;

	(void)key;
	(void)klen;
	(void)dir;
	return store == *parent;
}

/* An entry of a directory gets a number of its own: those of the index have been met before. */
static int renumber(struct repair *r, const struct sop_check_record *rec)
{
	sop_autofree struct held *h = malloc(sizeof(*h));
	struct sop_buf ops = {0};
	int rc = h ? item_get(r, rec->store, rec->key, rec->klen, h)
		   : sop_fail(r->e, -ENOMEM, "repair");

	if (rc || h->it.attr.ino != rec->ino)
		return rc;
	h->it.attr.ino = sop_ino_new(r->v);
	rc = op_item(r, &ops, rec->store, rec->key, rec->klen, &h->it, SOP_OPF_QUIET);
	return commit(r, &ops, rc);
}

/* A directory gets an inode, for its owner's eyes alone until somebody says whose it is. */
static int make_inode(struct repair *r, const struct sop_check_record *rec)
{
	struct sop_item it = {.attr = {.ino = rec->ino,
				      .mode = S_IFDIR | 0700,
				      .nlink = 1,
				      .rdev = rec->store,
				      .mtime = sop_now(r->v)}};
	uint8_t key[SOP_MASTER_KEY];
	struct sop_buf ops = {0};
	int rc;

	it.attr.atime = it.attr.ctime = it.attr.btime = it.attr.mtime;
	sop_master_key(key, rec->ino, 'i');
	rc = op_item(r, &ops, SOP_STORE_MASTER, key, sizeof(key), &it, SOP_OPF_QUIET);
	return commit(r, &ops, rc);
}

/* Files: the names there are count. A directory has one, in the parent that it names. */
static int fix_links(struct repair *r, const struct sop_check_record *rec)
{
	struct extra x = {.r = r, .parent = sop_check_parent(r->c, rec->ino)};
	sop_autofree struct held *h = malloc(sizeof(*h));
	int rc = h ? inode_get(r, rec->ino, h) : sop_fail(r->e, -ENOMEM, "repair");

	if (rc)
		return rc;
	if (!S_ISDIR(h->it.attr.mode))
		return set_inode(r, rec->ino, rec->want);
	/* When it names a parent that does not know it, the first name found stands for it. */
	if (!sop_check_each_name(r->c, rec->ino, is_in, &x.parent))
		x.parent = rec->store;
	return sop_check_each_name(r->c, rec->ino, drop_extra, &x);
}

/* ---- what is lost ---- */

/* Let go of a node that cannot be read. */
static int prune(struct repair *r, const struct sop_check_record *rec)
{
	struct sop_volume *v = r->v;
	struct sop_state *st;
	struct sop_tree tree;
	int rc;

	sop_lock(&v->commit);
	rc = sop_stores_load(v->stores, rec->store, &st, r->e);
	if (!rc) {
		sop_apply_begin(v, v->lsn_next - 1);
		tree = sop_state_tree(st);
		rc = sop_tree_prune(v->nodes, &tree, rec->handle, rec->key ? rec->key : "",
			rec->key ? rec->klen : 0, r->e);
		if (!rc)
			rc = sop_stores_change(v->stores, st, v->lsn_next - 1, r->e);
		if (!rc)
			st->now.root = tree.root;
		sop_apply_end(v);
	}
	sop_unlock(&v->commit);
	r->changed = r->changed || !rc;
	return rc == -ENOENT ? 0 : rc;
}

static int discard_item(struct repair *r, const struct sop_check_record *rec)
{
	if (!rec->key)
		return 0;
	return remove_item(r, rec->store, rec->key, rec->klen, rec->ino);
}

static int discard_xattrs(struct repair *r, const struct sop_check_record *rec)
{
	sop_autofree struct held *h = malloc(sizeof(*h));
	struct sop_buf ops = {0};
	int rc = h ? item_get(r, rec->store, rec->key, rec->klen, h)
		   : sop_fail(r->e, -ENOMEM, "repair");

	if (rc)
		return rc;
	sop_buf_ref(&ops, SOP_OP_FREE, h->it.attr.ino, &h->it.xattr_blob);
	h->it.xattr_blob = (struct sop_blobref){0};
	h->it.xattrs_len = 0;
	rc = op_item(r, &ops, rec->store, rec->key, rec->klen, &h->it, SOP_OPF_QUIET);
	return commit(r, &ops, rc);
}

static int discard_record(struct repair *r, const struct sop_check_record *rec)
{
	uint8_t key[8];
	int rc;

	if (rec->in == rec->store || !rec->key)
		return rec->key ? drop_entry(r, rec->in, rec->key, rec->klen, false) : 0;
	/* An entry of an item's extent tree: the item goes, and the entry, which cannot be worked
	 * off with the others. */
	rc = remove_item(r, rec->store, rec->key, rec->klen, rec->ino);
	be64_put(key, rec->off);
	return rc ? rc : drop_entry(r, rec->in, key, sizeof(key), false);
}

static int discard_state(struct repair *r, const struct sop_check_record *rec)
{
	uint8_t key[SOP_MASTER_KEY];
	int rc;

	if (rec->item_store) /* an extent tree: there is nothing to work off */
		return drop_entry(r, rec->item_store, rec->item_key, rec->item_klen, false);
	sop_master_key(key, rec->store, 's');
	rc = drop_entry(r, SOP_STORE_MASTER, key, sizeof(key), false);
	if (rc)
		return rc;
	sop_master_key(key, rec->store, 'i');
	rc = drop_entry(r, SOP_STORE_MASTER, key, sizeof(key), false);
	if (!rc)
		rc = drop_entry(r, SOP_STORE_DOOMED, key, 8, false);
	return rc ? rc : sop_check_each_name(r->c, rec->store, drop_name, r);
}

static int discard_node(struct repair *r, const struct sop_check_record *rec)
{
	int rc = 0;

	/* The item first: without the node its bytes would read as zeros. */
	if (rec->item_store)
		rc = remove_item(r, rec->item_store, rec->item_key, rec->item_klen, rec->ino);
	return rc ? rc : prune(r, rec);
}

static int discard_names(struct repair *r, const struct sop_check_record *rec)
{
	return sop_check_each_name(r->c, rec->ino, drop_name, r);
}

/* ---- trees out of order ---- */

/* Entries, one behind the other: key length, value length, key, value. */
static int gather(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	size_t lens[2] = {klen, vlen};
	uint8_t *p = sop_buf_grow(arg, sizeof(lens) + klen + vlen);

	if (!p)
		return -ENOMEM;
	memcpy(p, lens, sizeof(lens));
	memcpy(p + sizeof(lens), key, klen);
	memcpy(p + sizeof(lens) + klen, val, vlen);
	return 0;
}

static int is_there(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)arg;
	(void)key;
	(void)klen;
	(void)val;
	(void)vlen;
	return 1;
}

/* Each goes where it belongs, unless its key is there. */
static int put_back(struct repair *r, struct sop_tree *tree, const struct sop_buf *entries)
{
	const uint8_t *p = entries->p, *end = entries->p + entries->len;

	while (p < end) {
		const uint8_t *key = p + 2 * sizeof(size_t);
		size_t lens[2];
		bool was;
		int rc;

		memcpy(lens, p, sizeof(lens));
		rc = sop_tree_find(
			r->v->nodes, tree, SOP_LSN_LATEST, key, lens[0], is_there, NULL, r->e);
		if (rc == -ENOENT)
			rc = sop_tree_put(r->v->nodes, tree, key, lens[0], key + lens[0], lens[1],
				&was, r->e);
		if (rc < 0)
			return rc;
		p = key + lens[0] + lens[1];
	}
	return 0;
}

/* All leaves of a tree that are out of order at once, since the entries of one may belong in
 * another. None of it is in the journal: the next checkpoint has all of it, or none. */
static int reorder(struct repair *r, uint64_t store, const struct sop_buf *entries)
{
	struct sop_volume *v = r->v;
	struct sop_state *st;
	struct sop_tree tree;
	int rc;

	sop_lock(&v->commit);
	rc = sop_stores_load(v->stores, store, &st, r->e);
	if (rc) {
		sop_unlock(&v->commit);
		return rc;
	}
	sop_apply_begin(v, v->lsn_next - 1);
	tree = sop_state_tree(st);
	for (size_t i = 0; i < sop_check_count(r->c) && !rc; i++) {
		const struct sop_check_record *rec = sop_check_record(r->c, i);

		if (rec->kind == SOP_CHECK_SHAPE && rec->store == store)
			rc = sop_tree_prune(v->nodes, &tree, rec->handle, rec->key ? rec->key : "",
				rec->key ? rec->klen : 0, r->e);
	}
	if (!rc)
		rc = put_back(r, &tree, entries);
	if (!rc)
		rc = sop_stores_change(v->stores, st, v->lsn_next - 1, r->e);
	if (!rc)
		st->now.root = tree.root;
	sop_apply_end(v);
	if (rc)
		v->dead = rc; /* no checkpoint of a half of it */
	sop_unlock(&v->commit);
	r->changed = r->changed || !rc;
	return rc;
}

/* A part of the tree is lost: some of what is to be put back may belong there. */
static bool lacks_nodes(const struct repair *r, uint64_t store)
{
	for (size_t i = 0; i < sop_check_count(r->c); i++) {
		const struct sop_check_record *rec = sop_check_record(r->c, i);

		if (rec->kind == SOP_CHECK_NODE && rec->store == store)
			return true;
	}
	return false;
}

static int fix_order(struct repair *r, const struct sop_check_record *rec)
{
	struct sop_buf entries = {0};
	int rc = 0;

	if (rec->store == r->ordered || lacks_nodes(r, rec->store))
		return 0;
	r->ordered = rec->store;
	for (size_t i = 0; i < sop_check_count(r->c) && !rc; i++) {
		const struct sop_check_record *x = sop_check_record(r->c, i);

		if (x->kind == SOP_CHECK_SHAPE && x->store == rec->store)
			rc = sop_salvage_each(r->v, x->store, x->handle, gather, &entries, r->e);
	}
	if (!rc)
		rc = reorder(r, rec->store, &entries);
	sop_buf_release(&entries);
	return rc;
}

/* ---- a round ---- */

static int fix_parent(struct repair *r, const struct sop_check_record *rec)
{
	return set_inode(r, rec->ino, rec->want);
}

static int correct_state(struct repair *r, const struct sop_check_record *rec)
{
	struct sop_state *st;
	bool count = rec->kind == SOP_CHECK_COUNT;
	int rc;

	sop_lock(&r->v->commit);
	rc = sop_stores_load(r->v->stores, rec->store, &st, r->e);
	if (!rc)
		rc = sop_stores_correct(r->v->stores, rec->store, count ? rec->want : st->now.count,
			count ? st->now.subdirs : rec->want, r->e);
	sop_unlock(&r->v->commit);
	return rc;
}

static int correct_references(struct repair *r, const struct sop_check_record *rec)
{
	int rc;

	sop_lock(&r->v->commit);
	rc = sop_space_correct_references(
		r->v->space, &rec->ref, (uint32_t)SOP_MIN(rec->want, (uint64_t)UINT32_MAX), r->e);
	sop_unlock(&r->v->commit);
	return rc;
}

static int correct_items(struct repair *r, const struct sop_check_record *rec)
{
	r->v->items = rec->want;
	return 0;
}

static int correct_account(struct repair *r, const struct sop_check_record *rec)
{
	sop_lock(&r->v->commit);
	sop_space_correct_live(r->v->space, rec->ref.segment, rec->want);
	sop_unlock(&r->v->commit);
	return 0;
}

/* Without a count nothing of the page is given back before its segment is. */
static int correct_dead(struct repair *r, const struct sop_check_record *rec)
{
	int rc;

	sop_lock(&r->v->commit);
	rc = sop_space_forget_dead(r->v->space, &rec->ref, r->e);
	sop_unlock(&r->v->commit);
	return rc;
}

static int correct_next(struct repair *r, const struct sop_check_record *rec)
{
	r->v->next_ino = SOP_MAX((uint64_t)r->v->next_ino, rec->want);
	return 0;
}

typedef int (*fix_fn)(struct repair *r, const struct sop_check_record *rec);

/* What is done about each kind of thing, in steps: the next one begins in a round in which
 * the one before had nothing to do. */
static const fix_fn discards[SOP_CHECK_KINDS] = {
	[SOP_CHECK_DATA] = discard_item,
	[SOP_CHECK_XATTRS] = discard_xattrs,
	[SOP_CHECK_NODE] = discard_node,
	[SOP_CHECK_RECORD] = discard_record,
	[SOP_CHECK_STATE] = discard_state,
	[SOP_CHECK_DANGLING] = discard_names,
	[SOP_CHECK_EXTENT] = discard_item,
	[SOP_CHECK_PLACE] = discard_item,
};
/* Before anything else: what is made on the way gets a number. */
static const fix_fn numbers[SOP_CHECK_KINDS] = {
	[SOP_CHECK_NEXT] = correct_next,
};
static const fix_fn shapes[SOP_CHECK_KINDS] = {
	[SOP_CHECK_SHAPE] = fix_order,
};
static const fix_fn names[SOP_CHECK_KINDS] = {
	[SOP_CHECK_TWIN] = renumber,
	[SOP_CHECK_NO_INODE] = make_inode,
	[SOP_CHECK_ORPHAN] = adopt,
	[SOP_CHECK_LINKS] = fix_links,
	[SOP_CHECK_PARENT] = fix_parent,
};
static const fix_fn counts[SOP_CHECK_KINDS] = {
	[SOP_CHECK_COUNT] = correct_state,
	[SOP_CHECK_SUBDIRS] = correct_state,
	[SOP_CHECK_ITEMS] = correct_items,
	[SOP_CHECK_REFS] = correct_references,
	[SOP_CHECK_ACCOUNT] = correct_account,
	[SOP_CHECK_DEAD] = correct_dead,
};

static int fix_each(struct repair *r, const fix_fn *fix)
{
	int rc = 0;

	for (size_t i = 0; i < sop_check_count(r->c) && !rc; i++) {
		const struct sop_check_record *rec = sop_check_record(r->c, i);

		if (!fix[rec->kind])
			continue;
		rc = fix[rec->kind](r, rec);
		r->changed = r->changed || (fix == counts && !rc);
	}
	return rc;
}

static int look(struct repair *r, bool data)
{
	struct sop_check_opts o = {.nodes = true,
		.data = data,
		.repair = true,
		.progress = r->o->progress,
		.stop = r->o->stop,
		.ctx = r->o->ctx};
	struct sop_volume *v = r->v;
	bool more = true;
	int rc = 0;

	/* What the round before took from trees is in no journal: first it is made to last, for
	 * what is reaped goes by it. */
	rc = sop_checkpoint_run(v, false, r->e);
	if (rc)
		return rc;
	/* What is dropped may be among what cannot be read: then it stays for now. */
	while (more)
		(void)sop_reap(v, &more, NULL);
	rc = sop_checkpoint_run(v, false, r->e);
	if (rc)
		return rc;
	sop_lock(&v->ckpt_lock);
	sop_lock(&v->commit);
	rc = sop_check_run(&r->c, v, &o, r->e);
	sop_unlock(&v->commit);
	sop_unlock(&v->ckpt_lock);
	return rc;
}

/* What cannot be read while a disk is set aside may be all there when it answers again. fsck asks
 * before it begins whether all disks are here (force: without them); one may have failed since. */
static int nothing_may_come_back(struct repair *r)
{
	struct sop_members *mem = r->v->mem;
	bool loses = false;

	for (size_t i = 0; i < sop_check_count(r->c); i++)
		loses = loses || discards[sop_check_record(r->c, i)->kind];
	for (unsigned i = 0; loses && !r->o->force && i < sop_members_count(mem); i++) {
		struct sop_member_status s;

		sop_members_status(mem, i, &s);
		if (!s.present && s.state != SOP_MEMBER_REMOVED)
			return sop_say(r->e, SOP_EDISKS,
				"nothing is discarded while a disk is set aside, which may have "
				"what seems lost: "
				"%s (%s); run it again, or with -f when the disk is gone for good",
				s.path, s.reason);
	}
	return 0;
}

static int round_of(struct repair *r)
{
	int rc;

	r->changed = r->moved = false;
	r->ordered = 0;
	rc = fix_each(r, numbers);
	if (!rc && r->o->discard_lost)
		rc = nothing_may_come_back(r);
	if (!rc && r->o->discard_lost)
		rc = fix_each(r, discards);
	if (!rc && !r->changed)
		rc = fix_each(r, shapes);
	if (rc || r->changed || !sop_check_complete(r->c))
		return rc;
	rc = fix_each(r, names);
	if (!rc && !r->changed)
		rc = fix_each(r, counts);
	return rc;
}

int sop_repair(
	struct sop_volume *v, const struct sop_fsck_opts *o, bool *changed, struct sop_err *e)
{
	struct repair r = {.v = v, .o = o, .e = e};
	int rc = 0;

	*changed = false;
	for (unsigned i = 0; i < ROUNDS && !rc; i++) {
		rc = look(&r, !i && !o->no_data);
		if (rc)
			break;
		for (size_t k = 0; k < sop_check_count(r.c); k++)
			*changed |= sop_check_record(r.c, k)->repaired;
		rc = round_of(&r);
		sop_check_free(r.c);
		r.c = NULL;
		*changed |= r.changed;
		if (!r.changed)
			break;
	}
	if (!rc)
		rc = sop_volume_checkpoint(v, e);
	return rc ? sop_wrap(e, rc, "repair") : 0;
}
