/* B-trees: reading, checking. Nodes in memory are node_cache.c's, changes btree_write.c's.
 *
 * Reading goes down from the root under the shared lock. When a node is not in memory the lock is
 * dropped, the node loaded, and the way begins again at the root: nothing is remembered over the
 * gap but a key. A scan does one leaf at a time under the lock; the separators met on the way down
 * say where the next leaf begins, so that there is no need for links between leaves, and a leaf
 * that splits or goes away between two steps changes nothing for the scan. */
#include "core/node_cache.h"

int sop_node_corrupt(struct sop_err *e, uint64_t handle, const char *what)
{
	return sop_fail(e, SOP_ECORRUPT, "node %llu: %s", (unsigned long long)handle, what);
}

/* Does the page belong where it was met? level: -1 for a root, else the one it must have. */
int sop_node_place(const struct sop_page *p, const struct sop_tree *t, int level, struct sop_err *e)
{
	if (sop_page_store(p) != t->store)
		return sop_node_corrupt(e, sop_page_handle(p), "belongs to another store");
	if (level < 0 ? sop_page_level(p) >= SOP_DEPTH_MAX : (int)sop_page_level(p) != level)
		return sop_node_corrupt(e, sop_page_handle(p), "has a wrong level");
	if (sop_page_level(p) && !sop_page_count(p))
		return sop_node_corrupt(e, sop_page_handle(p), "is empty");
	return 0;
}

void sop_node_bounds(struct bounds *b, const struct sop_page *p, unsigned slot)
{
	if (slot)
		b->low = sop_page_key(p, slot, &b->low_len);
	if (slot + 1 < sop_page_count(p))
		b->high = sop_page_key(p, slot + 1, &b->high_len);
	b->place = sop_page_handle(p) << 20 | (slot + 1);
}

int sop_node_prove(struct version *v, const struct bounds *b, struct sop_err *e)
{
	const struct sop_page *p = v->page;
	unsigned first = sop_page_level(p) ? 1 : 0; /* the first key of an inner page is empty */
	unsigned count = sop_page_count(p);
	const void *key;
	size_t klen;

	if (atomic_load_explicit(&v->proven, memory_order_relaxed) == b->place)
		return 0;
	if (b->low && first < count) {
		key = sop_page_key(p, first, &klen);
		if (sop_bytes_cmp(key, klen, b->low, b->low_len) < 0)
			return sop_node_corrupt(e, sop_page_handle(p), "has a key below its range");
	}
	if (b->high && first < count) {
		key = sop_page_key(p, count - 1, &klen);
		if (sop_bytes_cmp(key, klen, b->high, b->high_len) >= 0)
			return sop_node_corrupt(e, sop_page_handle(p), "has a key above its range");
	}
	atomic_store_explicit(&v->proven, b->place, memory_order_relaxed);
	return 0;
}

/* ---- reading -------------------------------------------------------------------------------
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
	struct node *node;
	const struct sop_page *leaf;
	struct bounds b;
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

	w->b = (struct bounds){0};
	if (!handle)
		return -ENOENT;
	r->chances = t->cache == SOP_TREE_HOT ? 4 : t->cache == SOP_TREE_COLD ? 0 : 1;
	for (;;) {
		const struct sop_page *p;
		struct version *v = NULL;
		unsigned slot;
		int rc;

		switch (sop_reader_page(r, handle, &v)) {
		case SOP_SEE_LOAD:
			return WAY_LOAD;
		case SOP_SEE_NOTHING:
			/* A root made later, or removed meanwhile: no entry either way. */
			if (level < 0)
				return -ENOENT;
			return sop_node_corrupt(e, handle, "has no version as of its parent");
		case SOP_SEE_PAGE:
			break;
		}
		p = v->page;
		rc = sop_node_place(p, t, level, e);
		if (!rc)
			rc = sop_node_prove(v, &w->b, e);
		if (rc)
			return rc;
		level = (int)sop_page_level(p);
		if (!level) {
			w->node = v->node;
			w->leaf = p;
			return 0;
		}
		slot = pick_child(p, at);
		sop_node_bounds(&w->b, p, slot);
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
	*end = !w->b.high || beyond(s->range, w->b.high, w->b.high_len);
	if (!*end) {
		memcpy(s->key, w->b.high, w->b.high_len);
		s->at = (struct place){.key = s->key, .klen = w->b.high_len};
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
	*end = !w->b.low || (s->range->to && sop_bytes_cmp(w->b.low, w->b.low_len, s->range->to,
						     s->range->to_len) <= 0);
	if (!*end) {
		memcpy(s->key, w->b.low, w->b.low_len);
		s->at = (struct place){.key = s->key, .klen = w->b.low_len, .below = true};
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

int sop_tree_skip(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn, uint64_t skip,
	bool descending, uint8_t *key, size_t *klen, struct sop_err *e)
{
	struct place at = {.key = "", .last = descending};
	uint8_t next[SOP_KEY_MAX]; /* what at.key points to after the first leaf */
	struct reader r;
	int rc;

	sop_reader_init(&r, n, lsn);
	do {
		unsigned from = 0, count = 0;
		struct way w;
		bool exact;

		rc = lock_leaf(&r, t, &at, &w, e);
		/* A leaf that has got entries of the one before meanwhile has some that were
		 * counted. */
		if (!rc) {
			count = sop_page_count(w.leaf);
			from = at.last ? count : sop_page_search(w.leaf, at.key, at.klen, &exact);
			count = descending ? from : count - from;
		}
		if (!rc && skip < count) {
			unsigned slot =
				descending ? from - 1 - (unsigned)skip : from + (unsigned)skip;
			const void *found = sop_page_key(w.leaf, slot, klen);

			memcpy(key, found, *klen);
			rc = 1;
		} else if (!rc) {
			const void *edge = descending ? w.b.low : w.b.high;
			size_t len = descending ? w.b.low_len : w.b.high_len;

			skip -= count;
			rc = edge ? 0 : -ENOENT;
			if (edge) {
				memcpy(next, edge, len);
				at = (struct place){.key = next, .klen = len, .below = descending};
			}
		}
		sop_reader_unlock(&r);
		sop_reader_release(&r);
	} while (!rc);
	return rc == -ENOENT ? 0 : rc;
}

/* Does the write that is prepared leave nothing of the leaf? */
static bool goes(const struct reader *r, const struct way *w)
{
	return w->node->doomed_by == r->n->writing && w->node->doomed >= sop_page_count(w->leaf);
}

/* The leaf that stays next to one that goes, before or behind it: what comes there is one's. */
static int prefault_beside(
	struct reader *r, const struct sop_tree *t, struct place at, bool down, struct sop_err *e)
{
	uint8_t next[SOP_KEY_MAX];
	bool more;
	int rc;

	do {
		const void *edge = NULL;
		size_t len = 0;
		struct way w;

		rc = lock_leaf(r, t, &at, &w, e);
		if (!rc && goes(r, &w)) {
			edge = down ? w.b.low : w.b.high;
			len = down ? w.b.low_len : w.b.high_len;
		}
		more = edge != NULL;
		if (more) {
			memcpy(next, edge, len);
			at = (struct place){.key = next, .klen = len, .below = down};
		}
		sop_reader_unlock(r);
		sop_reader_release(r);
	} while (more);
	return rc;
}

int sop_tree_prefault(struct sop_nodes *n, const struct sop_tree *t, const void *key, size_t klen,
	bool del, struct sop_err *e)
{
	struct place at = {.key = key, .klen = klen};
	struct reader r;
	struct way w;
	bool beside;
	int rc;

	sop_reader_init(&r, n, SOP_LSN_LATEST);
	r.keep = true;
	rc = lock_leaf(&r, t, &at, &w, e);
	beside = !rc && goes(&r, &w);
	if (!rc && del) {
		w.node->doomed = w.node->doomed_by == n->writing ? w.node->doomed + 1 : 1;
		w.node->doomed_by = n->writing;
	}
	sop_reader_unlock(&r);
	sop_reader_release(&r);
	if (beside)
		rc = prefault_beside(&r, t, at, true, e);
	if (beside && !rc)
		rc = prefault_beside(&r, t, at, false, e);
	return rc == -ENOENT ? 0 : rc;
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
		struct version *v = NULL;
		enum sop_see see;
		int rc;

		sop_reader_lock(&c->r);
		see = sop_reader_page(&c->r, handle, &v);
		*copy = see == SOP_SEE_PAGE ? sop_page_clone(v->page) : NULL;
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
				return sop_node_corrupt(e, sop_page_handle(p), "has a key first");
			continue;
		}
		if (before && sop_bytes_cmp(before, before_len, key, klen) >= 0)
			return sop_node_corrupt(e, sop_page_handle(p), "keys are out of order");
		if (in->from && sop_bytes_cmp(key, klen, in->from, in->from_len) < 0)
			return sop_node_corrupt(e, sop_page_handle(p), "has a key below its range");
		if (in->to && sop_bytes_cmp(key, klen, in->to, in->to_len) >= 0)
			return sop_node_corrupt(e, sop_page_handle(p), "has a key above its range");
		before = key;
		before_len = klen;
	}
	return sop_page_count(p) ? 0 : sop_node_corrupt(e, sop_page_handle(p), "is empty");
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
				       : sop_node_corrupt(e, handle, "lies too deep");

	sop_reader_release(&c->r);
	if (rc == -ENOENT && level < 0 && !c->visit->bad)
		return 0;
	if (rc == -ENOENT)
		rc = sop_node_corrupt(e, handle, "has no version as of its parent");
	if (!rc)
		rc = sop_node_place(p, c->t, level, e);
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
