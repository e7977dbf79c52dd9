/* contradict FOLDER:FOLDER... VERB [ARGUMENT]...: makes a volume that is not mounted contradict
 * itself. It is written by the engine, with every checksum right: only what it says is wrong. A
 * PATH is from the root of the volume, as "docs/report". What the verbs do stands with each in the
 * table at the end. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/engine.h"
#include "core/node_cache.h"

static uint64_t wall_ns(void *ctx)
{
	(void)ctx;
	return 1700000001ull * 1000000000;
}

static uint64_t monotonic_ms(void *ctx)
{
	(void)ctx;
	return 1000;
}

static const struct sop_clock still = {.wall_ns = wall_ns, .monotonic_ms = monotonic_ms};
static struct sop_volume *v;
static struct sop_err e;

static void die(const char *what)
{
	fprintf(stderr, "contradict: %s: %s\n", what, e.text);
	exit(1);
}

static void ok(int rc, const char *what)
{
	if (rc < 0)
		die(what);
}

/* ---- where things are ---- */

struct at {
	uint64_t store; /* the directory it is in */
	const char *key;
	size_t klen;
	struct sop_attr attr;
};

static struct at find(const char *path, bool there)
{
	struct at a = {.store = SOP_ROOT, .key = path};

	for (;;) {
		size_t len = strcspn(a.key, "/");
		struct sop_name name = {a.store, a.key, len};

		a.klen = len;
		if (a.key[len] || there)
			ok(sop_lookup(sop_volume_latest(v), name, &a.attr, &e), path);
		if (!a.key[len])
			return a;
		a.store = a.attr.ino;
		a.key += len + 1;
	}
}

static uint64_t store_of(const char *path)
{
	return *path ? find(path, true).attr.ino : SOP_ROOT;
}

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

/* ---- records ---- */

static void commit(struct sop_buf *ops)
{
	sop_lock(&v->commit);
	ok(sop_commit_locked(v, ops, &e), "commit");
	sop_unlock(&v->commit);
	sop_buf_release(ops);
}

struct held {
	uint64_t store;
	const void *key;
	size_t klen;
	uint8_t inode_key[SOP_MASTER_KEY], buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
};

static void get(struct held *h, uint64_t store, const void *key, size_t klen)
{
	h->store = store;
	h->key = key;
	h->klen = klen;
	ok(sop_tree_item(v, store, SOP_LSN_LATEST, key, klen, &h->it, h->buf, &e), "item");
}

static void get_inode(struct held *h, uint64_t ino)
{
	sop_master_key(h->inode_key, ino, 'i');
	get(h, SOP_STORE_MASTER, h->inode_key, sizeof(h->inode_key));
}

/* The record of a file, under its name or in the index. */
static void get_file(struct held *h, const char *path)
{
	struct at a = find(path, true);

	get(h, a.store, a.key, a.klen);
	if (h->it.link)
		get_inode(h, a.attr.ino);
	if (!h->it.extents && !h->it.tree && !S_ISDIR(h->it.attr.mode))
		die("it has no extents");
}

static void put(const struct held *h, unsigned flags)
{
	uint8_t raw[SOP_ITEM_BYTES_MAX];
	struct sop_buf ops = {0};
	int len = sop_item_encode(raw, &h->it);

	ok(len, "item");
	sop_buf_op(&ops, SOP_OP_PUT, flags, h->store, h->key, h->klen, raw, (size_t)len);
	commit(&ops);
}

static void drop(uint64_t store, const void *key, size_t klen, unsigned flags)
{
	struct sop_buf ops = {0};

	sop_buf_op(&ops, SOP_OP_DEL, flags, store, key, klen, NULL, 0);
	commit(&ops);
}

/* Nothing wrong by itself: as a mount would do it. */
static void removed(char **arg)
{
	struct at a = find(arg[0], true);
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e), "begin");
	ok(sop_remove(t, (struct sop_name){a.store, a.key, a.klen}, &e), arg[0]);
	ok(sop_txn_commit(t, SOP_COMMIT_DURABLE, &e), "commit");
	ok(sop_volume_checkpoint(v, &e), "checkpoint");
	ok(sop_volume_tick(v, &e), "tick");
}

static void removed_dir(char **arg)
{
	struct at a = find(arg[0], true);
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e), "begin");
	ok(sop_store_remove(t, (struct sop_name){a.store, a.key, a.klen}, &e), arg[0]);
	ok(sop_txn_commit(t, SOP_COMMIT_DURABLE, &e), "commit");
}

/* Every second piece of it: so each is an extent. */
static void holes(char **arg)
{
	struct at a = find(arg[0], false);
	struct sop_name at = {a.store, a.key, a.klen};
	static char buf[3000];
	struct sop_value *x;
	struct sop_txn *t;

	memset(buf, 'h', sizeof(buf));
	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e), "begin");
	ok(sop_add(t, at, NULL, 0, &e), arg[0]);
	ok(sop_value_open(&x, t, at, SOP_VALUE_WRITE, &e), arg[0]);
	for (uint64_t i = 0; i < number(arg[1]); i++)
		ok(sop_value_write(x, buf, sizeof(buf), i * 8192, &e) < 0 ? -1 : 0, arg[0]);
	sop_value_close(x);
	ok(sop_txn_commit(t, SOP_COMMIT_DURABLE, &e), "commit");
}

static void nlink(char **arg)
{
	struct held h;

	get_inode(&h, find(arg[0], true).attr.ino);
	h.it.attr.nlink = (uint32_t)number(arg[1]);
	put(&h, SOP_OPF_QUIET);
}

static void parent(char **arg)
{
	struct held h;

	get_inode(&h, store_of(arg[0]));
	h.it.attr.rdev = store_of(arg[1]);
	put(&h, SOP_OPF_QUIET);
}

static void unname(char **arg)
{
	struct at a = find(arg[0], true);

	drop(a.store, a.key, a.klen, S_ISDIR(a.attr.mode) ? SOP_OPF_SUBDIR : 0);
}

static void name(char **arg)
{
	struct at a = find(arg[0], false), of = find(arg[1], true);
	struct held h = {.store = a.store, .key = a.key, .klen = a.klen};

	h.it.link = true;
	h.it.attr.ino = of.attr.ino;
	h.it.attr.mode = of.attr.mode;
	h.it.attr.version = v->lsn_next;
	put(&h, S_ISDIR(of.attr.mode) ? SOP_OPF_SUBDIR : 0);
}

static void lose(char **arg)
{
	uint8_t key[SOP_MASTER_KEY];

	sop_master_key(key, find(arg[0], true).attr.ino, 'i');
	drop(SOP_STORE_MASTER, key, sizeof(key), SOP_OPF_QUIET);
}

static void bloblen(char **arg)
{
	struct held h;

	get_file(&h, arg[0]);
	h.it.extent[0].ref.len = (uint32_t)(h.it.extent[0].ref.len + number(arg[1]));
	put(&h, SOP_OPF_QUIET);
}

static void shorter(char **arg)
{
	uint32_t less = (uint32_t)number(arg[1]);
	struct held h;

	get_file(&h, arg[0]);
	h.it.attr.size -= less;
	h.it.attr.bytes -= less;
	h.it.extent[0].len -= less;
	h.it.extent[0].ref.len -= less;
	put(&h, SOP_OPF_QUIET);
}

static void bloboff(char **arg)
{
	struct held h;

	get_file(&h, arg[0]);
	h.it.extent[0].ref.off = number(arg[1]);
	put(&h, SOP_OPF_QUIET);
}

static void twin(char **arg)
{
	struct held h;

	get_file(&h, arg[0]);
	h.it.attr.ino = find(arg[1], true).attr.ino;
	put(&h, SOP_OPF_QUIET);
}

static void share(char **arg)
{
	struct held h, of;

	get_file(&h, arg[0]);
	get_file(&of, arg[1]);
	h.it.extents = of.it.extents;
	memcpy(h.it.extent, of.it.extent, sizeof(of.it.extent));
	h.it.attr.size = of.it.attr.size;
	h.it.attr.bytes = of.it.attr.bytes;
	put(&h, SOP_OPF_QUIET);
}

/* ---- counts and accounts ---- */

static void count(char **arg)
{
	sop_lock(&v->commit);
	ok(sop_stores_correct(v->stores, store_of(arg[0]), number(arg[1]), number(arg[2]), &e),
		"count");
	sop_unlock(&v->commit);
}

static void items(char **arg)
{
	v->items = number(arg[0]);
}

static void next_ino(char **arg)
{
	v->next_ino = number(arg[0]);
}

static void refs(char **arg)
{
	struct held h;

	get_file(&h, arg[0]);
	sop_lock(&v->commit);
	ok(sop_space_correct_references(
		   v->space, &h.it.extent[0].ref, (uint32_t)number(arg[1]), &e),
		"references");
	sop_unlock(&v->commit);
}

/* A record of a system store, as a checkpoint would write it. */
static void system_put(uint64_t store, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_state *st;

	sop_lock(&v->commit);
	ok(sop_stores_load(v->stores, store, &st, &e), "system store");
	sop_apply_begin(v, v->lsn_next - 1);
	ok(sop_apply_system(v, store, key, klen, val, vlen, &e), "system store");
	sop_apply_end(v);
	sop_unlock(&v->commit);
}

static int copy_segment(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)key;
	(void)klen;
	memcpy(arg, val, SOP_MIN(vlen, sizeof(struct sop_disk_segment)));
	return 0;
}

/* In the table alone: the mount that does this goes by the right one. */
static void live(char **arg)
{
	struct sop_disk_segment d = {0};
	struct sop_state_view view;
	uint8_t key[8];
	struct held h;

	get_file(&h, arg[0]);
	be64_put(key, h.it.extent[0].ref.segment);
	ok(sop_stores_view(v->stores, SOP_STORE_SEGMENTS, SOP_LSN_LATEST, &view, &e), "table");
	ok(sop_tree_find(
		   v->nodes, &view.tree, SOP_LSN_LATEST, key, sizeof(key), copy_segment, &d, &e),
		"table");
	d.live = le64_make(
		arg[1][0] == '+' ? le64_get(d.live) + number(arg[1] + 1) : number(arg[1]));
	system_put(SOP_STORE_SEGMENTS, key, sizeof(key), &d, sizeof(d));
}

static void dead(char **arg)
{
	struct le16 bytes = le16_make((uint16_t)number(arg[1]));
	uint8_t key[16];
	struct held h;

	get_file(&h, arg[0]);
	be64_put(key, h.it.extent[0].ref.segment);
	be64_put(key + 8, h.it.extent[0].ref.off / 4096);
	system_put(SOP_STORE_DEAD, key, sizeof(key), &bytes, sizeof(bytes));
}

/* ---- nodes ---- */

static uint64_t root, other_root; /* of the trees of the directories named */

/* A directory's, or that of a file's extents. */
static uint64_t root_of(const char *path)
{
	struct sop_state_view view;
	uint64_t store = store_of(path);
	struct held h;

	if (*path && !S_ISDIR(find(path, true).attr.mode)) {
		get_file(&h, path);
		store = h.it.tree;
	}
	ok(sop_stores_view(v->stores, store, SOP_LSN_LATEST, &view, &e), "tree");
	return view.tree.root;
}

/* The page that the next checkpoint will write, to be changed; its inside is not looked at. */
static struct version *edit(uint64_t handle)
{
	struct node *node;
	struct version *x;

	ok(sop_nodes_get(v->nodes, handle, &node, &e), "node");
	ok(sop_nodes_writable(v->nodes, node, &x, &e), "node");
	sop_nodes_uncount(v->nodes, x);
	return x;
}

static void edited(struct version *x)
{
	sop_nodes_recount(v->nodes, x);
}

static struct sop_page *look(uint64_t handle)
{
	struct node *node;

	ok(sop_nodes_get(v->nodes, handle, &node, &e), "node");
	return node->newest->page;
}

/* The leaf at this place under the root, which is above leaves. */
static uint64_t leaf(unsigned slot)
{
	struct sop_page *p = look(root);

	if (sop_page_level(p) != 1 || sop_page_count(p) < 3)
		die("its tree is not of two levels, with three leaves");
	return sop_page_child(p, slot);
}

struct entry {
	uint8_t key[SOP_KEY_MAX], val[SOP_VALUE_MAX];
	size_t klen, vlen;
};

static void take(struct sop_page *p, unsigned slot, struct entry *x)
{
	const void *key = sop_page_key(p, slot, &x->klen);
	const void *val = sop_page_value(p, slot, &x->vlen);

	memcpy(x->key, key, x->klen);
	memcpy(x->val, val, x->vlen);
	sop_page_delete(p, slot);
}

static void insert(struct version *x, unsigned slot, const struct entry *n)
{
	ok(sop_page_insert(&x->page, slot, n->key, n->klen, n->val, n->vlen), "entry");
}

static void order(char **arg)
{
	struct version *x = edit(leaf(1));
	struct entry n;

	(void)arg;
	take(x->page, 3, &n);
	insert(x, 5, &n);
	edited(x);
}

static void astray(char **arg)
{
	struct version *x = edit(leaf(1));
	struct entry n;

	(void)arg;
	take(x->page, 7, &n);
	edited(x);
	x = edit(leaf(0));
	insert(x, sop_page_count(x->page), &n);
	edited(x);
}

static void level(char **arg)
{
	struct version *x = edit(root);

	(void)arg;
	sop_page_set_level(x->page, sop_page_level(x->page) + 1);
	edited(x);
}

static void child(unsigned slot, uint64_t handle)
{
	struct version *x = edit(root);
	struct le64 to = le64_make(handle);

	ok(sop_page_replace(&x->page, slot, &to, sizeof(to)), "child");
	edited(x);
}

static void twice(char **arg)
{
	(void)arg;
	child(2, leaf(1));
}

static void itself(char **arg)
{
	(void)arg;
	child(1, root);
}

static void foreign(char **arg)
{
	(void)arg;
	child(1, other_root);
}

static void nowhere(char **arg)
{
	(void)arg;
	child(1, 30000);
}

/* ---- */

static const struct verb {
	const char *name;
	int args;
	bool node; /* between the beginning and the end of a change of nodes */
	void (*fn)(char **arg);
} verbs[] = {
	{"remove", 1, false, removed},	  /* PATH */
	{"rmdir", 1, false, removed_dir}, /* PATH */
	{"holes", 2, false, holes},	  /* PATH N: a file of N extents, with holes in between */
	{"nlink", 2, false, nlink},	  /* PATH N: it counts N names */
	{"parent", 2, false, parent},	/* PATH PATH: the directory names this one as its parent */
	{"unname", 1, false, unname},	/* PATH: the name goes, and nothing else */
	{"name", 2, false, name},	/* PATH PATH: one more name of the second */
	{"lose", 1, false, lose},	/* PATH: the inode goes, the names stay */
	{"bloblen", 2, false, bloblen}, /* PATH N: its first blob is said to be longer by N */
	{"bloboff", 2, false, bloboff}, /* PATH N: its first blob is said to lie at N */
	{"shorter", 2, false, shorter}, /* PATH N: it and its blob are said to be shorter by N */
	{"twin", 2, false, twin},	/* PATH PATH: it has the second's inode number */
	{"share", 2, false, share},	/* PATH PATH: it refers to the second's blobs */
	{"count", 3, false, count}, /* PATH N M: the directory counts N entries, M directories */
	{"items", 1, false, items}, /* N: the volume counts N names */
	{"next_ino", 1, false, next_ino}, /* N: the next inode number to be given out */
	{"live", 2, false, live},	  /* PATH [+]N: bytes live in the segment of its blob */
	{"refs", 2, false, refs},	  /* PATH N: references of its blob */
	{"dead", 2, false, dead},	  /* PATH N: dead bytes of the page where its blob begins */
	{"order", 1, true, order},	  /* PATH: two keys in its second leaf change places */
	{"astray", 1, true, astray},	  /* PATH: an entry of its second leaf goes to the first */
	{"level", 1, true, level},	  /* PATH: the root of its tree is on a higher level */
	{"twice", 1, true, twice},	  /* PATH: its third leaf is the second once more */
	{"itself", 1, true, itself},	  /* PATH: its second leaf is the root */
	{"foreign", 2, true, foreign}, /* PATH PATH: its second leaf is the root of the other's */
	{"nowhere", 1, true, nowhere}, /* PATH: its second leaf is a node that there is not */
};

static void run(const struct verb *verb, char **arg)
{
	if (!verb->node) {
		verb->fn(arg);
		return;
	}
	root = root_of(arg[0]);
	if (verb->args > 1)
		other_root = root_of(arg[1]);
	sop_lock(&v->commit);
	sop_nodes_write_begin(v->nodes, v->lsn_next - 1);
	verb->fn(arg);
	sop_nodes_write_end(v->nodes);
	sop_unlock(&v->commit);
}

int main(int argc, char **argv)
{
	const struct sop_open_opts o = {.no_threads = true, .exclusive = true, .clock = &still};
	const char *paths[SOP_MEMBERS_MAX];
	size_t n = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: contradict FOLDER:FOLDER... VERB [ARGUMENT]...\n");
		return 2;
	}
	for (char *p = strtok(argv[1], ":"); p && n < SOP_MEMBERS_MAX; p = strtok(NULL, ":"))
		paths[n++] = p;
	ok(sop_volume_open(&v, paths, n, &o, &e), "open");
	for (size_t i = 0; i < SOP_ARRAY_LEN(verbs); i++)
		if (!strcmp(argv[2], verbs[i].name) && argc == 3 + verbs[i].args) {
			run(&verbs[i], argv + 3);
			ok(sop_volume_close(v, &e), "close");
			return 0;
		}
	fprintf(stderr, "contradict: no verb '%s' with %d arguments\n", argv[2], argc - 3);
	return 2;
}
