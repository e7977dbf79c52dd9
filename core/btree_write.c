/* Changes of B-trees: put, delete, leaf load balancing, repair. Reading is btree.c's.
 *
 * A put that does not fit splits from the leaf upwards. All that can fail (clones, new nodes,
 * handles, memory for what moves) comes first, level by level, into n->split[]; then the pages are
 * changed, which cannot fail. The preparation leaves at most clones and roomier pages of the same
 * content. A delete removes nodes that became empty in the same two steps; merging small neighbours
 * afterwards is an improvement that may be left undone when memory is short, and so is giving to a
 * neighbour before a split. */
#include "core/node_cache.h"

#define NODE_BYTES_DEFAULT 16384u
#define NODE_BYTES_MAX	   (1u << 20) /* packed, and far below SOP_BLOB_MAX with one more entry */

/* An inner node is split at its middle only into nodes of at least this many children, so that
 * trees stay flat whatever the bounds are. (At its end one child begins a node: more are coming.)
 */
#define INNER_MIN 2u

static size_t bound_bytes(const struct sop_tree *t)
{
	return t->node_bytes ? SOP_MIN(t->node_bytes, NODE_BYTES_MAX) : NODE_BYTES_DEFAULT;
}

/* ---- writing: the way down ---- */

struct step {
	struct node *node;
	unsigned slot;	 /* of the child; in the leaf: what search says */
	struct bounds b; /* around the node; holds while nothing above it is changed */
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
	struct bounds b = {0};
	int level = -1;

	path->depth = 0;
	for (;;) {
		struct step *s = &path->step[path->depth++];
		const struct sop_page *p;
		int rc = sop_nodes_get(n, handle, &s->node, e);

		s->b = b;
		if (!rc)
			rc = sop_node_place(page_of(s), t, level, e);
		if (!rc)
			rc = sop_node_prove(s->node->newest, &b, e);
		if (rc)
			return rc;
		p = page_of(s);
		level = (int)sop_page_level(p);
		if (!level) {
			s->slot = sop_page_search(p, key, klen, &path->exact);
			break;
		}
		s->slot = sop_page_child_slot(p, key, klen);
		sop_node_bounds(&b, p, s->slot);
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

/* The length of the shortest start of `right` that is above `left`, which is less than it. */
static size_t separator_len(
	const uint8_t *left, size_t left_len, const uint8_t *right, size_t right_len)
{
	size_t same = 0;

	while (same < left_len && same < right_len && left[same] == right[same])
		same++;
	return SOP_MIN(same + 1, right_len);
}

/* The shortest key that is above the left side's last and not above the right side's first. */
static void choose_separator(struct split *s)
{
	const uint8_t *left, *right;
	size_t left_len, right_len;

	right = key_after(s, s->from, &right_len);
	s->slen = right_len;
	if (!sop_page_level(s->node->newest->page)) {
		left = key_after(s, s->from - 1, &left_len);
		s->slen = separator_len(left, left_len, right, right_len);
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

/* ---- leaf load balancing ---- */

/* A child when it is in memory, and as it should be: who was loaded and found to be damaged is not
 * mixed with others, for then they could not be read either, or he seemed to be well. */
static struct node *sound_child(
	struct sop_nodes *n, const struct sop_tree *t, const struct step *up, unsigned slot)
{
	const struct sop_page *p = page_of(up);
	struct node *node = sop_nodes_find(n, sop_page_child(p, slot));
	struct bounds b = up->b;

	if (!node || !node->newest->page ||
		sop_node_place(node->newest->page, t, (int)sop_page_level(p) - 1, NULL))
		return NULL;
	sop_node_bounds(&b, p, slot);
	return sop_node_prove(node->newest, &b, NULL) ? NULL : node;
}

/* Two leaves side by side, as one row of entries. */
static const void *row_key(
	const struct sop_page *left, const struct sop_page *right, unsigned i, size_t *klen)
{
	unsigned n = sop_page_count(left);

	return i < n ? sop_page_key(left, i, klen) : sop_page_key(right, i - n, klen);
}

static size_t row_size(const struct sop_page *left, const struct sop_page *right, unsigned i)
{
	unsigned n = sop_page_count(left);

	return i < n ? sop_page_entry_bytes(left, i) : sop_page_entry_bytes(right, i - n);
}

/* How many of the row are the left leaf's, for both to be about as large; 0: one would be too
 * large. */
static unsigned deal_at(
	const struct sop_tree *t, const struct sop_page *left, const struct sop_page *right)
{
	unsigned count = sop_page_count(left) + sop_page_count(right), n = 0;
	size_t head = sizeof(struct sop_disk_node);
	size_t all = sop_page_bytes(left) + sop_page_bytes(right) - 2 * head, bytes = 0;

	while (n + 1 < count && (!n || 2 * bytes < all))
		bytes += row_size(left, right, n++);
	if (head + bytes > bound_bytes(t) || head + all - bytes > bound_bytes(t) ||
		(t->slot_length && (n > t->slot_length || count - n > t->slot_length)))
		return 0;
	return n;
}

/* A leaf takes from its neighbour when an eighth of it is free: less would soon be asked for again.
 */
static bool has_room(const struct sop_tree *t, const struct sop_page *p)
{
	if (sop_page_bytes(p) > bound_bytes(t) - bound_bytes(t) / 8)
		return false;
	return !t->slot_length ||
	       sop_page_count(p) + SOP_MAX(t->slot_length / 8, 1u) <= t->slot_length;
}

/* The separator between the children at slot - 1 and slot becomes this one. */
static int replace_separator(
	struct sop_page **parent, unsigned slot, const uint8_t *sep, size_t slen)
{
	struct le64 child = le64_make(sop_page_child(*parent, slot));

	if (sop_page_reserve(parent, sop_page_entry_size(slen, sizeof(child)), 1))
		return -ENOMEM;
	sop_page_delete(*parent, slot);
	sure(sop_page_insert(parent, slot, sep, slen, &child, sizeof(child)));
	return 0;
}

/* Deal out the entries of the leaves at slot - 1 and slot below up anew. False: left undone. */
static bool deal(
	struct sop_nodes *n, const struct sop_tree *t, const struct step *up, unsigned slot)
{
	struct node *parent = up->node;
	struct node *left = sound_child(n, t, up, slot - 1);
	struct node *right = sound_child(n, t, up, slot);
	struct version *lv, *rv, *pv;
	uint8_t sep[SOP_KEY_MAX];
	const void *low, *high;
	size_t low_len, high_len, slen, was;
	unsigned at;
	int rc;

	if (!left || !right || left == right)
		return false;
	at = deal_at(t, left->newest->page, right->newest->page);
	if (!at)
		return false;
	low = row_key(left->newest->page, right->newest->page, at - 1, &low_len);
	high = row_key(left->newest->page, right->newest->page, at, &high_len);
	slen = separator_len(low, low_len, high, high_len);
	memcpy(sep, high, slen);
	/* A longer separator must not make the parent too large. */
	sop_page_key(parent->newest->page, slot, &was);
	if (slen > was && sop_page_bytes(parent->newest->page) + slen - was > bound_bytes(t))
		return false;
	if (sop_nodes_writable(n, parent, &pv, NULL) || sop_nodes_writable(n, left, &lv, NULL) ||
		sop_nodes_writable(n, right, &rv, NULL))
		return false;
	sop_nodes_uncount(n, pv);
	sop_nodes_uncount(n, lv);
	sop_nodes_uncount(n, rv);
	rc = sop_page_reserve(&pv->page, sop_page_entry_size(slen, sizeof(struct le64)), 1);
	if (!rc)
		rc = sop_page_deal(&lv->page, &rv->page, at);
	if (!rc)
		sure(replace_separator(&pv->page, slot, sep, slen));
	sop_nodes_recount(n, pv);
	sop_nodes_recount(n, lv);
	sop_nodes_recount(n, rv);
	return !rc;
}

/* The leaf at the end of path is full: give a neighbour with room, when it is in memory, a part of
 * its entries. False: left undone. */
static bool balance(struct sop_nodes *n, const struct sop_tree *t, const struct path *path)
{
	const struct step *up;
	const struct node *side;

	if (path->depth < 2)
		return false;
	up = &path->step[path->depth - 2];
	side = up->slot ? sound_child(n, t, up, up->slot - 1) : NULL;
	if (side && has_room(t, side->newest->page) && deal(n, t, up, up->slot))
		return true;
	side = up->slot + 1 < sop_page_count(page_of(up)) ? sound_child(n, t, up, up->slot + 1)
							  : NULL;
	return side && has_room(t, side->newest->page) && deal(n, t, up, up->slot + 1);
}

static void aim(struct split *s, const struct path *path, const void *key, size_t klen,
	const void *val, size_t vlen)
{
	/* Not all of it: the separator's room need not be cleared. */
	s->node = path->step[path->depth - 1].node;
	s->slot = path->step[path->depth - 1].slot;
	s->key = key;
	s->klen = klen;
	s->val = val;
	s->vlen = vlen;
	s->exact = path->exact;
	s->right = NULL;
	s->left = NULL;
	s->top = NULL;
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
	aim(s, &path, key, klen, val, vlen);
	if (must_split(t, s) && t->balance && balance(n, t, &path)) {
		rc = find_path(n, t, key, klen, &path, e);
		if (rc)
			return rc;
		aim(s, &path, key, klen, val, vlen);
	}
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

static bool fit_together(const struct sop_tree *t, const struct sop_page *left,
	const struct sop_page *right, size_t slen)
{
	size_t bytes = sop_page_bytes(left) + sop_page_bytes(right) + slen;
	size_t count = sop_page_count(left) + sop_page_count(right);
	uint32_t spare = t->balance ? 8 : 4;

	/* Room must be left, for else the next insert parts them again. */
	if (t->slot_length && count > t->slot_length - t->slot_length / spare)
		return false;
	return bytes <= bound_bytes(t) - bound_bytes(t) / spare;
}

/* Move all of the child at `slot` below up to the one before it. False: left undone. */
static bool merge_left(
	struct sop_nodes *n, const struct sop_tree *t, const struct step *up, unsigned slot)
{
	struct node *parent = up->node;
	struct node *left = sound_child(n, t, up, slot - 1);
	struct node *right = sound_child(n, t, up, slot);
	struct version *lv, *pv, *spare;
	uint8_t sep[SOP_KEY_MAX];
	const void *key;
	size_t slen;
	int rc;

	if (!left || !right || left == right)
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
static bool lower_root(struct sop_nodes *n, const struct sop_tree *t, const struct step *top)
{
	struct node *root = top->node;
	const struct sop_page *p = root->newest->page;
	struct sop_page *page;
	struct version *v, *spare;
	struct node *child;

	if (!sop_page_level(p) || sop_page_count(p) != 1)
		return false;
	child = sound_child(n, t, top, 0);
	if (!child || sop_nodes_writable(n, root, &v, NULL))
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
		const struct step *up = &path->step[i - 1];
		bool merged = false;

		if (!is_small(t, path->step[i].node->newest->page))
			break;
		if (up->slot)
			merged = merge_left(n, t, up, up->slot);
		if (!merged && up->slot + 1 < sop_page_count(page_of(up)))
			merged = merge_left(n, t, up, up->slot + 1);
		if (!merged)
			break;
	}
	while (lower_root(n, t, &path->step[0]))
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
	uint64_t at = t->root;
	unsigned first = 0;
	bool met = false;
	int level = -1, rc;

	assert(sop_nodes_inside(n));
	/* The last place on the way that names it: of two, one above the other, the upper one may
	 * be where it belongs. */
	for (;;) {
		struct step *s = &path.step[path.depth];
		struct sop_err why = {0};

		if (at == handle) {
			met = true;
			first = path.depth;
		}
		rc = sop_nodes_get(n, at, &s->node, &why);
		if (!rc)
			rc = sop_node_place(page_of(s), t, level, &why);
		if (rc == -ENOMEM || (rc && !met))
			return sop_say(e, rc, "%s", why.text);
		if (rc || !sop_page_level(page_of(s)) || path.depth + 1 == SOP_DEPTH_MAX)
			break;
		s->slot = sop_page_child_slot(page_of(s), key, klen);
		at = sop_page_child(page_of(s), s->slot);
		level = (int)sop_page_level(page_of(s)) - 1;
		path.depth++;
	}
	if (!met)
		return sop_fail(e, -ENOENT, "node %llu", (unsigned long long)handle);
	path.depth = first;
	while (first && sop_page_count(page_of(&path.step[first - 1])) == 1)
		first--;
	return del_nodes(n, t, &path, first, e);
}
