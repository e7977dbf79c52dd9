/* B-trees: reading, changing, checking. Nodes in memory are node_cache.c's.
 *
 * Reading goes down from the root under the shared lock. When a node is not in memory the lock is
 * dropped, the node loaded, and the way begins again at the root: nothing is remembered over the
 * gap but a key. A scan does one leaf at a time under the lock; the separators met on the way down
 * say where the next leaf begins, so that there is no need for links between leaves, and a leaf
 * that splits or goes away between two steps changes nothing for the scan.
 *
 * A put that does not fit splits from the leaf upwards. All that can fail (clones, new nodes,
 * handles, memory for what moves) comes first, level by level, into n->split[]; then the pages are
 * changed, which cannot fail. The preparation leaves at most clones and roomier pages of the same
 * content. A delete removes nodes that became empty in the same two steps; merging small neighbours
 * afterwards is an improvement that may be left undone when memory is short. */
#include "core/node_cache.h"

#define NODE_BYTES_DEFAULT 16384u
#define NODE_BYTES_MAX	   (1u << 20) /* packed, and far below SOP_BLOB_MAX with one more entry */

/* An inner node is split only into nodes of at least this many children, so that trees stay flat
 * whatever the bounds are. */
#define INNER_MIN 2u

static size_t bound_bytes(const struct sop_tree *t)
{
	return t->node_bytes ? SOP_MIN(t->node_bytes, NODE_BYTES_MAX) : NODE_BYTES_DEFAULT;
}

static int corrupt(struct sop_err *e, uint64_t handle, const char *what)
{
	return sop_fail(e, SOP_ECORRUPT, "node %llu: %s", (unsigned long long)handle, what);
}

/* Does the page belong where it was met? level: -1 for a root, else the one it must have. */
static int check_place(
	const struct sop_page *p, const struct sop_tree *t, int level, struct sop_err *e)
{
	if (sop_page_store(p) != t->store)
		return corrupt(e, sop_page_handle(p), "belongs to another store");
	if (level < 0 ? sop_page_level(p) >= SOP_DEPTH_MAX : (int)sop_page_level(p) != level)
		return corrupt(e, sop_page_handle(p), "has a wrong level");
	if (sop_page_level(p) && !sop_page_count(p))
		return corrupt(e, sop_page_handle(p), "is empty");
	return 0;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* Where a walk stands: at a key, or past the last one. */
struct place {
	const void *key;
	size_t klen;
	bool last;  /* behind all keys */
	bool below; /* the leaf with the keys less than key is meant */
};

/* A leaf met, and the separators around it; valid under the lock. */
struct way {
	const struct sop_page *leaf;
	const void *low, *high; /* NULL: none */
	size_t low_len, high_len;
};

static unsigned pick_child(const struct sop_page *p, const struct place *at)
{
	bool exact;
	unsigned slot;

	if (at->last)
		return sop_page_count(p) - 1;
	if (!at->below)
		return sop_page_child_slot(p, at->key, at->klen);
	slot = sop_page_search(p, at->key, at->klen, &exact);
	return slot ? slot - 1 : 0;
}

#define WAY_LOAD 1 /* a node must be loaded first */

/* Under the lock: go down to the leaf. -ENOENT: the tree is empty at that LSN. */
static int go_down(struct reader *r, const struct sop_tree *t, const struct place *at,
	struct way *w, struct sop_err *e)
{
	uint64_t handle = t->root;
	int level = -1;

	w->low = NULL;
	w->high = NULL;
	if (!handle)
		return -ENOENT;
	r->chances = t->cache == SOP_TREE_HOT ? 4 : t->cache == SOP_TREE_COLD ? 0 : 1;
	for (;;) {
		const struct sop_page *p = NULL;
		unsigned slot;
		int rc;

		switch (sop_reader_page(r, handle, &p)) {
		case SOP_SEE_LOAD:
			return WAY_LOAD;
		case SOP_SEE_NOTHING:
			/* A root made later, or removed meanwhile: no entry either way. */
			if (level < 0)
				return -ENOENT;
			return corrupt(e, handle, "has no version as of its parent");
		case SOP_SEE_PAGE:
			break;
		}
		rc = check_place(p, t, level, e);
		if (rc)
			return rc;
		level = (int)sop_page_level(p);
		if (!level) {
			w->leaf = p;
			return 0;
		}
		slot = pick_child(p, at);
		if (slot)
			w->low = sop_page_key(p, slot, &w->low_len);
		if (slot + 1 < sop_page_count(p))
			w->high = sop_page_key(p, slot + 1, &w->high_len);
		handle = sop_page_child(p, slot);
		level--;
	}
}

/* The same, loading what is missing. The lock is held on return, whatever the result. */
static int lock_leaf(struct reader *r, const struct sop_tree *t, const struct place *at,
	struct way *w, struct sop_err *e)
{
	for (;;) {
		int rc;

		sop_reader_lock(r);
		rc = go_down(r, t, at, w, e);
		if (rc != WAY_LOAD)
			return rc;
		sop_reader_unlock(r);
		rc = sop_reader_load(r, e);
		if (rc) {
			sop_reader_lock(r);
			return rc;
		}
	}
}

int sop_tree_find(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn, const void *key,
	size_t klen, sop_entry_fn fn, void *arg, struct sop_err *e)
{
	struct place at = {.key = key, .klen = klen};
	struct reader r;
	struct way w;
	int rc;

	sop_reader_init(&r, n, lsn);
	rc = lock_leaf(&r, t, &at, &w, e);
	if (!rc) {
		bool exact;
		unsigned slot = sop_page_search(w.leaf, key, klen, &exact);

		rc = -ENOENT;
		if (exact) {
			size_t stored_len, vlen;
			const void *stored = sop_page_key(w.leaf, slot, &stored_len);
			const void *val = sop_page_value(w.leaf, slot, &vlen);

			rc = fn(arg, stored, stored_len, val, vlen);
		}
	}
	sop_reader_unlock(&r);
	sop_reader_release(&r);
	return rc;
}

/* A scan: what is left of the range. */
struct scan {
	const struct sop_range *range;
	sop_entry_fn fn;
	void *arg;
	struct place at;
	bool exclusive;		  /* the entry with at's key itself is done or not wanted */
	uint8_t key[SOP_KEY_MAX]; /* at.key points here after the first leaf */
};

static bool beyond(const struct sop_range *range, const void *key, size_t klen)
{
	int c;

	if (!range->to)
		return false;
	c = sop_bytes_cmp(key, klen, range->to, range->to_len);
	if (range->descending)
		c = -c;
	return c > 0 || (c == 0 && range->to_exclusive);
}

static int scan_entry(struct scan *s, const struct sop_page *leaf, unsigned slot, bool *end)
{
	size_t klen, vlen;
	const void *key = sop_page_key(leaf, slot, &klen);
	const void *val = sop_page_value(leaf, slot, &vlen);
	int rc;

	if (beyond(s->range, key, klen)) {
		*end = true;
		return 0;
	}
	rc = s->fn(s->arg, key, klen, val, vlen);
	*end = rc != 0;
	return rc;
}

static int scan_up(struct scan *s, const struct way *w, bool *end)
{
	bool exact;
	unsigned i = sop_page_search(w->leaf, s->at.key, s->at.klen, &exact);
	int rc = 0;

	if (exact && s->exclusive)
		i++;
	while (!*end && i < sop_page_count(w->leaf))
		rc = scan_entry(s, w->leaf, i++, end);
	if (*end)
		return rc;
	*end = !w->high || beyond(s->range, w->high, w->high_len);
	if (!*end) {
		memcpy(s->key, w->high, w->high_len);
		s->at = (struct place){.key = s->key, .klen = w->high_len};
		s->exclusive = false;
	}
	return 0;
}

static int scan_down(struct scan *s, const struct way *w, bool *end)
{
	unsigned i = sop_page_count(w->leaf); /* one above the next entry */
	int rc = 0;

	if (!s->at.last) {
		bool exact;

		i = sop_page_search(w->leaf, s->at.key, s->at.klen, &exact);
		if (exact && !s->exclusive)
			i++;
	}
	while (!*end && i)
		rc = scan_entry(s, w->leaf, --i, end);
	if (*end)
		return rc;
	/* All that is left is less than low. */
	*end = !w->low || (s->range->to && sop_bytes_cmp(w->low, w->low_len, s->range->to,
						   s->range->to_len) <= 0);
	if (!*end) {
		memcpy(s->key, w->low, w->low_len);
		s->at = (struct place){.key = s->key, .klen = w->low_len, .below = true};
		s->exclusive = true;
	}
	return 0;
}

int sop_tree_scan(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	const struct sop_range *range, sop_entry_fn fn, void *arg, struct sop_err *e)
{
	struct scan s = {.range = range, .fn = fn, .arg = arg};
	struct reader r;
	bool end = false;
	int rc = 0;

	s.at = (struct place){.key = range->from ? range->from : "", .klen = range->from_len};
	if (!range->from) {
		s.at.klen = 0;
		s.at.last = range->descending;
	} else {
		s.exclusive = range->from_exclusive;
		s.at.below = range->descending && range->from_exclusive;
	}
	sop_reader_init(&r, n, lsn);
	while (!end && !rc) {
		struct way w;

		rc = lock_leaf(&r, t, &s.at, &w, e);
		if (!rc)
			rc = range->descending ? scan_down(&s, &w, &end) : scan_up(&s, &w, &end);
		else if (rc == -ENOENT) {
			rc = 0;
			end = true;
		}
		sop_reader_unlock(&r);
		sop_reader_release(&r);
	}
	return rc;
}

int sop_tree_prefault(struct sop_nodes *n, const struct sop_tree *t, const void *key, size_t klen,
	struct sop_err *e)
{
	struct place at = {.key = key, .klen = klen};
	struct reader r;
	struct way w;
	int rc;

	sop_reader_init(&r, n, SOP_LSN_LATEST);
	r.keep = true;
	rc = lock_leaf(&r, t, &at, &w, e);
	sop_reader_unlock(&r);
	sop_reader_release(&r);
	return rc == -ENOENT ? 0 : rc;
}

/* ---- writing: the way down ---- */

struct step {
	struct node *node;
	unsigned slot; /* of the child; in the leaf: what search says */
};

struct path {
	struct step step[SOP_DEPTH_MAX];
	unsigned depth; /* step[depth - 1] is the leaf */
	bool exact;	/* the key is in the leaf */
};

static struct sop_page *page_of(const struct step *s)
{
	return s->node->newest->page;
}

static int find_path(struct sop_nodes *n, const struct sop_tree *t, const void *key, size_t klen,
	struct path *path, struct sop_err *e)
{
	uint64_t handle = t->root;
	int level = -1;

	path->depth = 0;
	for (;;) {
		struct step *s = &path->step[path->depth++];
		const struct sop_page *p;
		int rc = sop_nodes_get(n, handle, &s->node, e);

		if (!rc)
			rc = check_place(page_of(s), t, level, e);
		if (rc)
			return rc;
		p = page_of(s);
		level = (int)sop_page_level(p);
		if (!level) {
			s->slot = sop_page_search(p, key, klen, &path->exact);
			break;
		}
		s->slot = sop_page_child_slot(p, key, klen);
		handle = sop_page_child(p, s->slot);
		level--;
	}
	path->step[0].node->root = true;
	return 0;
}

/* ---- putting ---- */

static int no_memory(struct sop_err *e, const struct sop_tree *t)
{
	return sop_fail(e, -ENOMEM, "store %llu: change of a node", (unsigned long long)t->store);
}

/* The first entry of an empty tree. */
static int plant(struct sop_nodes *n, struct sop_tree *t, const void *key, size_t klen,
	const void *val, size_t vlen, struct sop_err *e)
{
	struct node *node;
	int rc = sop_nodes_prepare(n, t->store, 0, sop_page_entry_size(klen, vlen) + 128, &node, e);

	if (rc)
		return rc;
	if (sop_page_insert(&node->newest->page, 0, key, klen, val, vlen)) {
		sop_nodes_discard(n, node);
		return no_memory(e, t);
	}
	node->root = true;
	t->root = sop_nodes_attach(n, node)->handle;
	return 0;
}

/* The entries of s->node's page with the new one in its place: what a split divides. */
static unsigned count_after(const struct split *s)
{
	return sop_page_count(s->node->newest->page) + (s->exact ? 0 : 1);
}

static size_t size_after(const struct split *s, unsigned i)
{
	const struct sop_page *p = s->node->newest->page;

	if (i == s->slot)
		return sop_page_entry_size(s->klen, s->vlen);
	return sop_page_entry_bytes(p, !s->exact && i > s->slot ? i - 1 : i);
}

static const void *key_after(const struct split *s, unsigned i, size_t *klen)
{
	const struct sop_page *p = s->node->newest->page;

	if (i == s->slot) {
		*klen = s->klen;
		return s->key;
	}
	return sop_page_key(p, !s->exact && i > s->slot ? i - 1 : i, klen);
}

static size_t bytes_after(const struct split *s)
{
	const struct sop_page *p = s->node->newest->page;

	return sop_page_bytes(p) + sop_page_entry_size(s->klen, s->vlen) -
	       (s->exact ? sop_page_entry_bytes(p, s->slot) : 0);
}

static bool must_split(const struct sop_tree *t, const struct split *s)
{
	unsigned count = count_after(s);
	unsigned least = sop_page_level(s->node->newest->page) ? 2 * INNER_MIN : 2;

	if (count < least)
		return false;
	return bytes_after(s) > bound_bytes(t) || (t->slot_length && count > t->slot_length);
}

/* Where to divide: at the end of an ascending run of inserts, at the start of a descending one,
 * else so that both sides are about as large. Sets s->from, and s->tail when the right side is the
 * new entry alone, so that the left page does not change. */
static void choose_split(struct split *s)
{
	const struct sop_page *p = s->node->newest->page;
	unsigned least = sop_page_level(p) ? INNER_MIN : 1;
	unsigned first = sop_page_level(p) ? 1 : 0; /* the lowest slot inner inserts go to */
	unsigned count = count_after(s);
	int run = s->exact ? 0 : sop_page_run(p, s->slot);
	size_t half = 0, left = 0;

	s->tail = run > 0 && s->slot == count - 1;
	if (s->tail) {
		s->from = count - 1;
		return;
	}
	if (run < 0 && s->slot == first) {
		s->from = first + 1;
		return;
	}
	half = bytes_after(s) - sizeof(struct sop_disk_node);
	half /= 2;
	for (s->from = 0; s->from < count - least; s->from++) {
		size_t size = size_after(s, s->from);

		if (s->from >= least && left + size / 2 >= half)
			break;
		left += size;
	}
}

/* The shortest key that is above the left side's last and not above the right side's first. */
static void choose_separator(struct split *s)
{
	const uint8_t *left, *right;
	size_t left_len, right_len, same = 0;

	right = key_after(s, s->from, &right_len);
	s->slen = right_len;
	if (!sop_page_level(s->node->newest->page)) {
		left = key_after(s, s->from - 1, &left_len);
		while (same < left_len && same < right_len && left[same] == right[same])
			same++;
		s->slen = SOP_MIN(same + 1, right_len);
	}
	memcpy(s->sep, right, s->slen);
}

/* Get all that the split of one level needs. s has node and entry; root: it is the tree's root. */
static int prepare_split(struct sop_nodes *n, const struct sop_tree *t, struct split *s, bool root,
	struct sop_err *e)
{
	size_t entry = sop_page_entry_size(s->klen, s->vlen);
	unsigned level = sop_page_level(s->node->newest->page);
	size_t room;
	int rc = 0;

	choose_split(s);
	choose_separator(s);
	if (s->tail) {
		room = SOP_MIN(bound_bytes(t), (size_t)NODE_BYTES_DEFAULT);
		room = SOP_MAX(entry, room + room / 8) + 512;
	} else {
		room = 64;
		for (unsigned i = s->from; i < count_after(s); i++)
			room += size_after(s, i) + sizeof(uint32_t);
		room += room / 4;
	}
	rc = sop_nodes_prepare(n, t->store, level, room, &s->right, e);
	if (!rc && root)
		rc = sop_nodes_prepare(n, t->store, level, 0, &s->left, e);
	if (!rc && root) {
		s->top = sop_page_new(s->node->handle, t->store, level + 1, 2 * SOP_KEY_MAX);
		if (!s->top)
			rc = no_memory(e, t);
	}
	s->version = NULL;
	if (!rc && (root || !s->tail))
		rc = sop_nodes_writable(n, s->node, &s->version, e);
	if (!rc && !s->tail) {
		sop_nodes_uncount(n, s->version);
		if (sop_page_reserve(&s->version->page, entry, s->exact ? 0 : 1))
			rc = no_memory(e, t);
		sop_nodes_recount(n, s->version);
	}
	if (!rc)
		s->child = le64_make(s->right->handle);
	return rc;
}

static void discard_split(struct sop_nodes *n, struct split *s)
{
	sop_nodes_discard(n, s->right);
	sop_nodes_discard(n, s->left);
	sop_page_free(s->top);
}

/* What was reserved cannot fail. */
static void sure(int rc)
{
	assert(rc == 0);
	(void)rc;
}

static void write_entry(struct split *s, struct sop_page **page, unsigned slot)
{
	if (s->exact)
		sure(sop_page_replace(page, slot, s->val, s->vlen));
	else
		sure(sop_page_insert(page, slot, s->key, s->klen, s->val, s->vlen));
}

/* The root's page goes to the node `left`; the root gets a page above both. */
static void lift_root(struct sop_nodes *n, struct split *s)
{
	struct le64 left = le64_make(s->left->handle);
	struct sop_page **unused = &s->left->newest->page;

	sop_page_free(*unused);
	*unused = s->version->page;
	sop_page_set_handle(*unused, s->left->handle);
	s->version->page = s->top;
	sure(sop_page_insert(&s->version->page, 0, "", 0, &left, sizeof(left)));
	sure(sop_page_insert(&s->version->page, 1, s->sep, s->slen, &s->child, sizeof(s->child)));
	sop_nodes_attach(n, s->left);
}

static void carry_out_split(struct sop_nodes *n, struct split *s)
{
	struct sop_page **right = &s->right->newest->page;

	if (s->version)
		sop_nodes_uncount(n, s->version);
	if (s->tail) {
		/* The first key of an inner page is empty: its separator has it. */
		if (sop_page_level(*right))
			s->klen = 0;
		write_entry(s, right, 0);
	} else {
		write_entry(s, &s->version->page, s->slot);
		sure(sop_page_split(s->version->page, right, s->from));
	}
	if (s->left)
		lift_root(n, s);
	if (s->version)
		sop_nodes_recount(n, s->version);
	sop_nodes_attach(n, s->right);
}

/* The level above the splits takes its entry without one. */
static int prepare_entry(
	struct sop_nodes *n, const struct sop_tree *t, struct split *s, struct sop_err *e)
{
	int rc = sop_nodes_writable(n, s->node, &s->version, e);

	if (rc)
		return rc;
	sop_nodes_uncount(n, s->version);
	if (sop_page_reserve(&s->version->page, sop_page_entry_size(s->klen, s->vlen), 1))
		rc = no_memory(e, t);
	sop_nodes_recount(n, s->version);
	return rc;
}

/* n->split[0] holds the leaf's entry, which does not fit. */
static int put_splitting(
	struct sop_nodes *n, const struct sop_tree *t, const struct path *path, struct sop_err *e)
{
	struct split *s = n->split;
	unsigned splits = 0;
	int rc;

	for (;;) {
		bool root = splits + 1 == path->depth;

		if (root && path->depth >= SOP_DEPTH_MAX)
			rc = sop_fail(e, -EFBIG, "store %llu: tree is too high",
				(unsigned long long)t->store);
		else
			rc = prepare_split(n, t, s, root, e);
		splits++;
		if (rc || root)
			break;
		/* The next level's entry is the separator and the right side's handle. */
		s[1] = (struct split){
			.node = path->step[path->depth - 1 - splits].node,
			.slot = path->step[path->depth - 1 - splits].slot + 1,
			.key = s->sep,
			.klen = s->slen,
			.val = &s->child,
			.vlen = sizeof(s->child),
		};
		s++;
		if (!must_split(t, s)) {
			rc = prepare_entry(n, t, s, e);
			break;
		}
	}
	for (unsigned i = 0; i < splits; i++) {
		if (rc)
			discard_split(n, &n->split[i]);
		else
			carry_out_split(n, &n->split[i]);
	}
	if (!rc && splits < path->depth) {
		sop_nodes_uncount(n, s->version);
		write_entry(s, &s->version->page, s->slot);
		sop_nodes_recount(n, s->version);
	}
	return rc;
}

int sop_tree_put(struct sop_nodes *n, struct sop_tree *t, const void *key, size_t klen,
	const void *val, size_t vlen, bool *was, struct sop_err *e)
{
	struct split *s = n->split;
	struct version *v;
	struct path path;
	int rc;

	assert(sop_nodes_inside(n));
	*was = false;
	if (klen > SOP_KEY_MAX || vlen > SOP_VALUE_MAX)
		return sop_fail(
			e, -EINVAL, "entry with a key of %zu and a value of %zu bytes", klen, vlen);
	if (!t->root)
		return plant(n, t, key, klen, val, vlen, e);
	rc = find_path(n, t, key, klen, &path, e);
	if (rc)
		return rc;
	/* Not all of it: the separator's room need not be cleared. */
	s->node = path.step[path.depth - 1].node;
	s->slot = path.step[path.depth - 1].slot;
	s->key = key;
	s->klen = klen;
	s->val = val;
	s->vlen = vlen;
	s->exact = path.exact;
	s->right = NULL;
	s->left = NULL;
	s->top = NULL;
	if (must_split(t, s)) {
		rc = put_splitting(n, t, &path, e);
	} else {
		rc = sop_nodes_writable(n, s->node, &v, e);
		if (rc)
			return rc;
		sop_nodes_uncount(n, v);
		if (path.exact)
			rc = sop_page_replace(&v->page, s->slot, val, vlen);
		else
			rc = sop_page_insert(&v->page, s->slot, key, klen, val, vlen);
		sop_nodes_recount(n, v);
		if (rc)
			rc = no_memory(e, t);
	}
	if (!rc)
		*was = path.exact;
	return rc;
}

/* ---- deleting ---- */

/* Remove the nodes of path from step `first` down, which have nothing but each other and the entry.
 */
static int del_nodes(struct sop_nodes *n, struct sop_tree *t, struct path *path, unsigned first,
	struct sop_err *e)
{
	struct version *spare[SOP_DEPTH_MAX] = {NULL};
	struct version *parent = NULL;
	int rc = 0;

	for (unsigned i = first; i < path->depth && !rc; i++)
		rc = sop_nodes_remove_prepare(n, path->step[i].node, &spare[i], e);
	if (!rc && first)
		rc = sop_nodes_writable(n, path->step[first - 1].node, &parent, e);
	if (rc) {
		for (unsigned i = first; i < path->depth; i++)
			free(spare[i]);
		return rc;
	}
	for (unsigned i = first; i < path->depth; i++)
		sop_nodes_remove(n, path->step[i].node, spare[i]);
	if (parent) {
		sop_nodes_uncount(n, parent);
		sop_page_delete(parent->page, path->step[first - 1].slot);
		sop_nodes_recount(n, parent);
	} else {
		t->root = 0;
	}
	path->depth = first;
	return 0;
}

static bool is_small(const struct sop_tree *t, const struct sop_page *p)
{
	if (sop_page_bytes(p) >= bound_bytes(t) / (t->balance ? 2 : 4))
		return false;
	if (t->balance)
		return !t->slot_length || sop_page_count(p) * 2 <= t->slot_length;
	return !t->slot_length || sop_page_count(p) * 4 <= t->slot_length;
}

/* The newest page of a child when it is in memory. */
static struct node *child_in_memory(
	struct sop_nodes *n, const struct sop_page *parent, unsigned slot)
{
	struct node *node = sop_nodes_find(n, sop_page_child(parent, slot));

	return node && node->newest->page ? node : NULL;
}

static bool fit_together(const struct sop_tree *t, const struct sop_page *left,
	const struct sop_page *right, size_t slen)
{
	size_t bytes = sop_page_bytes(left) + sop_page_bytes(right) + slen;
	size_t count = sop_page_count(left) + sop_page_count(right);

	if (sop_page_level(left) != sop_page_level(right) || sop_page_store(right) != t->store ||
		sop_page_store(left) != t->store)
		return false;
	if (t->slot_length && count > t->slot_length - t->slot_length / 4)
		return false;
	return bytes <= bound_bytes(t) - bound_bytes(t) / 4;
}

/* Move all of the child at `slot` of parent to the one before it. False: left undone. */
static bool merge_left(
	struct sop_nodes *n, const struct sop_tree *t, struct node *parent, unsigned slot)
{
	struct node *left = child_in_memory(n, parent->newest->page, slot - 1);
	struct node *right = child_in_memory(n, parent->newest->page, slot);
	struct version *lv, *pv, *spare;
	uint8_t sep[SOP_KEY_MAX];
	const void *key;
	size_t slen;
	int rc;

	if (!left || !right)
		return false;
	key = sop_page_key(parent->newest->page, slot, &slen);
	if (!fit_together(t, left->newest->page, right->newest->page, slen))
		return false;
	memcpy(sep, key, slen);
	if (sop_nodes_writable(n, parent, &pv, NULL) || sop_nodes_writable(n, left, &lv, NULL) ||
		sop_nodes_remove_prepare(n, right, &spare, NULL))
		return false;
	sop_nodes_uncount(n, lv);
	rc = sop_page_merge(&lv->page, right->newest->page, sep, slen);
	sop_nodes_recount(n, lv);
	if (rc) {
		free(spare);
		return false;
	}
	sop_nodes_remove(n, right, spare);
	sop_nodes_uncount(n, pv);
	sop_page_delete(pv->page, slot);
	sop_nodes_recount(n, pv);
	return true;
}

/* A root with one child takes over its content. False: left undone. */
static bool lower_root(struct sop_nodes *n, const struct sop_tree *t, struct node *root)
{
	const struct sop_page *p = root->newest->page;
	struct sop_page *page;
	struct version *v, *spare;
	struct node *child;

	if (!sop_page_level(p) || sop_page_count(p) != 1)
		return false;
	child = child_in_memory(n, p, 0);
	if (!child || sop_page_store(child->newest->page) != t->store ||
		sop_page_level(child->newest->page) + 1 != sop_page_level(p))
		return false;
	if (sop_nodes_writable(n, root, &v, NULL))
		return false;
	page = sop_page_clone(child->newest->page);
	if (!page || sop_nodes_remove_prepare(n, child, &spare, NULL)) {
		sop_page_free(page);
		return false;
	}
	sop_page_set_handle(page, root->handle);
	sop_nodes_uncount(n, v);
	sop_page_free(v->page);
	v->page = page;
	sop_nodes_recount(n, v);
	sop_nodes_remove(n, child, spare);
	return true;
}

/* After a delete: merge what has become small with a neighbour, from the bottom up. */
static void shrink(struct sop_nodes *n, const struct sop_tree *t, const struct path *path)
{
	for (unsigned i = path->depth - 1; i; i--) {
		struct node *parent = path->step[i - 1].node;
		const struct sop_page *p = parent->newest->page;
		unsigned slot = path->step[i - 1].slot;
		bool merged = false;

		if (!is_small(t, path->step[i].node->newest->page))
			break;
		if (slot)
			merged = merge_left(n, t, parent, slot);
		if (!merged && slot + 1 < sop_page_count(p))
			merged = merge_left(n, t, parent, slot + 1);
		if (!merged)
			break;
	}
	while (lower_root(n, t, path->step[0].node))
		;
}

int sop_tree_del(struct sop_nodes *n, struct sop_tree *t, const void *key, size_t klen, bool *was,
	struct sop_err *e)
{
	struct path path;
	struct step *leaf;
	struct version *v;
	unsigned first;
	int rc;

	assert(sop_nodes_inside(n));
	*was = false;
	if (!t->root)
		return 0;
	rc = find_path(n, t, key, klen, &path, e);
	if (rc || !path.exact)
		return rc;
	leaf = &path.step[path.depth - 1];
	first = path.depth;
	while (first && sop_page_count(page_of(&path.step[first - 1])) == 1)
		first--;
	if (first < path.depth) {
		rc = del_nodes(n, t, &path, first, e);
	} else {
		rc = sop_nodes_writable(n, leaf->node, &v, e);
		if (!rc) {
			sop_nodes_uncount(n, v);
			sop_page_delete(v->page, leaf->slot);
			sop_nodes_recount(n, v);
		}
	}
	if (rc)
		return rc;
	*was = true;
	if (path.depth)
		shrink(n, t, &path);
	return 0;
}

/* ---- repairing ---- */

int sop_tree_prune(struct sop_nodes *n, struct sop_tree *t, uint64_t handle, const void *key,
	size_t klen, struct sop_err *e)
{
	struct path path = {.depth = 0};
	unsigned first;

	assert(sop_nodes_inside(n));
	for (uint64_t at = t->root; at != handle;) {
		struct step *s = &path.step[path.depth++];
		int rc = sop_nodes_get(n, at, &s->node, e);

		if (rc)
			return rc;
		if (!sop_page_level(page_of(s)) || path.depth == SOP_DEPTH_MAX)
			return sop_fail(e, -ENOENT, "node %llu", (unsigned long long)handle);
		s->slot = sop_page_child_slot(page_of(s), key, klen);
		at = sop_page_child(page_of(s), s->slot);
	}
	first = path.depth;
	while (first && sop_page_count(page_of(&path.step[first - 1])) == 1)
		first--;
	return del_nodes(n, t, &path, first, e);
}

/* ---- checking ---- */

struct check {
	struct reader r;
	const struct sop_tree *t;
	const struct sop_tree_visitor *visit;
	void *arg;
	struct sop_err *e;
};

/* A copy of the page, so that the walk holds no lock. -ENOENT: nothing at that LSN. */
static int copy_page(struct check *c, uint64_t handle, struct sop_page **copy, struct sop_err *e)
{
	for (;;) {
		const struct sop_page *p = NULL;
		enum sop_see see;
		int rc;

		sop_reader_lock(&c->r);
		see = sop_reader_page(&c->r, handle, &p);
		*copy = see == SOP_SEE_PAGE ? sop_page_clone(p) : NULL;
		sop_reader_unlock(&c->r);
		if (see == SOP_SEE_NOTHING)
			return -ENOENT;
		if (see == SOP_SEE_PAGE)
			return *copy ? 0 : sop_fail(e, -ENOMEM, "copy of a node");
		rc = sop_reader_load(&c->r, e);
		if (rc)
			return rc;
	}
}

static int check_keys(const struct sop_page *p, const struct sop_range *in, struct sop_err *e)
{
	const void *before = NULL;
	size_t before_len = 0;

	for (unsigned i = 0; i < sop_page_count(p); i++) {
		size_t klen;
		const void *key = sop_page_key(p, i, &klen);

		if (sop_page_level(p) && !i) {
			if (klen)
				return corrupt(e, sop_page_handle(p), "has a key first");
			continue;
		}
		if (before && sop_bytes_cmp(before, before_len, key, klen) >= 0)
			return corrupt(e, sop_page_handle(p), "keys are out of order");
		if (in->from && sop_bytes_cmp(key, klen, in->from, in->from_len) < 0)
			return corrupt(e, sop_page_handle(p), "has a key below its range");
		if (in->to && sop_bytes_cmp(key, klen, in->to, in->to_len) >= 0)
			return corrupt(e, sop_page_handle(p), "has a key above its range");
		before = key;
		before_len = klen;
	}
	return sop_page_count(p) ? 0 : corrupt(e, sop_page_handle(p), "is empty");
}

static int check_entries(struct check *c, const struct sop_page *p)
{
	int rc = 0;

	for (unsigned i = 0; !rc && c->visit->entry && i < sop_page_count(p); i++) {
		size_t klen, vlen;
		const void *key = sop_page_key(p, i, &klen);
		const void *val = sop_page_value(p, i, &vlen);

		rc = c->visit->entry(c->arg, key, klen, val, vlen);
	}
	return rc;
}

static int check_node(
	struct check *c, uint64_t handle, int level, const struct sop_range *in, unsigned depth)
{
	struct sop_err own = {0}, *e = c->visit->bad ? &own : c->e;
	struct sop_page *p = NULL;
	int rc = depth < SOP_DEPTH_MAX ? copy_page(c, handle, &p, e)
				       : corrupt(e, handle, "lies too deep");

	sop_reader_release(&c->r);
	if (rc == -ENOENT && level < 0 && !c->visit->bad)
		return 0;
	if (rc == -ENOENT)
		rc = corrupt(e, handle, "has no version as of its parent");
	if (!rc)
		rc = check_place(p, c->t, level, e);
	if (!rc)
		rc = check_keys(p, in, e);
	if (rc) {
		sop_page_free(p);
		if (rc == -ENOMEM)
			return sop_fail(c->e, rc, "check of a tree");
		return c->visit->bad ? c->visit->bad(c->arg, handle, in, rc, e) : rc;
	}
	rc = c->visit->node ? c->visit->node(c->arg, handle) : 0;
	if (!rc && !sop_page_level(p))
		rc = check_entries(c, p);
	for (unsigned i = 0; !rc && sop_page_level(p) && i < sop_page_count(p); i++) {
		struct sop_range child = *in;

		if (i)
			child.from = sop_page_key(p, i, &child.from_len);
		if (i + 1 < sop_page_count(p)) {
			child.to = sop_page_key(p, i + 1, &child.to_len);
			child.to_exclusive = true;
		}
		rc = check_node(
			c, sop_page_child(p, i), (int)sop_page_level(p) - 1, &child, depth + 1);
	}
	sop_page_free(p);
	return rc;
}

int sop_tree_walk(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	const struct sop_tree_visitor *visit, void *arg, struct sop_err *e)
{
	struct check c = {.t = t, .visit = visit, .arg = arg, .e = e};
	struct sop_range all = {0};
	int rc;

	if (!t->root)
		return 0;
	sop_reader_init(&c.r, n, lsn);
	rc = check_node(&c, t->root, -1, &all, 0);
	return rc == SOP_ECORRUPT ? sop_wrap(e, rc, "store %llu", (unsigned long long)t->store)
				  : rc;
}

int sop_tree_check(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn,
	int (*fn)(void *arg, uint64_t handle), void *arg, struct sop_err *e)
{
	return sop_tree_walk(n, t, lsn, &(struct sop_tree_visitor){.node = fn}, arg, e);
}
