/* A treap of intervals by offset, with a priority stream of its own (so a run can be repeated).
 * Every change first cuts what straddles its borders, then works on whole intervals. Only the piece
 * behind its end takes memory. */
#include "core/imap.h"

#define MEM_FIRST 4096u

struct blob { /* a blob set once, and the intervals left of it */
	struct sop_blobref ref;
	size_t intervals;
};

struct node {
	struct node *left,
		*right; /* these and e.off, e.len are all that a search touches: one line */
	uint64_t priority;
	struct sop_imap_entry e;
	uint8_t *base; /* MEM: malloc'ed; e.mem is the same */
	size_t room;   /* bytes of base */
	struct blob *blob;
};

static struct node *node_of(struct sop_imap_entry *x)
{
	return (struct node *)(void *)((char *)x - offsetof(struct node, e));
}

void sop_imap_init(
	struct sop_imap *m, void (*drop)(void *arg, const struct sop_blobref *ref), void *arg)
{
	*m = (struct sop_imap){.rng = 0x2545F4914F6CDD1Dull, .drop = drop, .arg = arg};
}

static uint64_t next_priority(struct sop_imap *m)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return m->rng;
}

static uint64_t end_of(const struct node *n)
{
	return n->e.off + n->e.len;
}

/* ---- the treap ---- */

/* a: all that begin before off; b: the rest. */
static void split(struct node *n, uint64_t off, struct node **a, struct node **b)
{
	while (n) {
		if (n->e.off < off) {
			*a = n;
			a = &n->right;
			n = n->right;
		} else {
			*b = n;
			b = &n->left;
			n = n->left;
		}
	}
	*a = *b = NULL;
}

static struct node *join(struct node *a, struct node *b)
{
	struct node *root = NULL, **p = &root;

	while (a && b) {
		if (a->priority > b->priority) {
			*p = a;
			p = &a->right;
			a = a->right;
		} else {
			*p = b;
			p = &b->left;
			b = b->left;
		}
	}
	*p = a ? a : b;
	return root;
}

static void insert(struct sop_imap *m, struct node *n)
{
	struct node **p = (struct node **)&m->root;

	n->priority = next_priority(m);
	while (*p && (*p)->priority >= n->priority)
		p = n->e.off < (*p)->e.off ? &(*p)->left : &(*p)->right;
	split(*p, n->e.off, &n->left, &n->right);
	*p = n;
	m->count++;
}

/* Free one interval; `keep`: its blob is somebody else's now. */
static void node_free(struct sop_imap *m, struct node *n, bool keep)
{
	m->mem_bytes -= n->room;
	if (n->blob && --n->blob->intervals == 0) {
		if (!keep && m->drop)
			m->drop(m->arg, &n->blob->ref);
		free(n->blob);
	}
	free(n->base);
	free(n);
	m->count--;
}

static void tree_free(struct sop_imap *m, struct node *n, bool keep)
{
	/* Turned into a list on the way, so that no depth needs a stack. */
	while (n) {
		struct node *left = n->left;

		if (left) {
			n->left = left->right;
			left->right = n;
			n = left;
			continue;
		}
		left = n->right;
		node_free(m, n, keep);
		n = left;
	}
}

void sop_imap_release(struct sop_imap *m)
{
	tree_free(m, m->root, false);
	m->root = NULL;
}

void sop_imap_forget(struct sop_imap *m)
{
	tree_free(m, m->root, true);
	m->root = NULL;
}

/* ---- looking ---- */

struct sop_imap_entry *sop_imap_at(const struct sop_imap *m, uint64_t off)
{
	struct node *n = m->root, *best = NULL;

	while (n) {
		if (end_of(n) > off) {
			best = n;
			n = n->left;
		} else {
			n = n->right;
		}
	}
	return best ? &best->e : NULL;
}

struct sop_imap_entry *sop_imap_next(const struct sop_imap *m, const struct sop_imap_entry *x)
{
	return sop_imap_at(m, x->off + x->len);
}

uint64_t sop_imap_end(const struct sop_imap *m)
{
	const struct node *n = m->root;

	while (n && n->right)
		n = n->right;
	return n ? end_of(n) : 0;
}

/* The interval that covers off with something on both sides of it, or NULL. */
static struct node *straddling(const struct sop_imap *m, uint64_t off)
{
	struct sop_imap_entry *x = sop_imap_at(m, off);

	return x && x->off < off ? node_of(x) : NULL;
}

/* ---- changing ---- */

/* Give back what a memory interval no longer uses, if it is much: else a few bytes left of each of
 * many buffers would hold them all. */
static void shrink(struct sop_imap *m, struct node *n)
{
	uint8_t *p;

	if (n->room < 2 * n->e.len + MEM_FIRST)
		return;
	p = realloc(n->base, n->e.len);
	if (!p)
		return;
	m->mem_bytes -= n->room - n->e.len;
	n->base = n->e.mem = p;
	n->room = n->e.len;
}

/* n ends at off, within it. */
static void shorten(struct sop_imap *m, struct node *n, uint64_t off)
{
	n->e.len = off - n->e.off;
	if (n->e.kind == SOP_IMAP_MEM)
		shrink(m, n);
}

/* Make off a border. */
static int cut_at(struct sop_imap *m, uint64_t off)
{
	struct node *n = straddling(m, off), *r;
	uint64_t left;

	if (!n)
		return 0;
	left = off - n->e.off;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->e = n->e;
	r->e.off = off;
	r->e.len = n->e.len - left;
	if (n->e.kind == SOP_IMAP_MEM) {
		r->base = malloc(r->e.len);
		if (!r->base) {
			free(r);
			return -ENOMEM;
		}
		memcpy(r->base, n->e.mem + left, r->e.len);
		r->e.mem = r->base;
		r->room = r->e.len;
		m->mem_bytes += r->room;
	} else if (n->e.kind != SOP_IMAP_ZERO) {
		r->e.blob_off += (uint32_t)left;
		r->blob = n->blob;
		if (r->blob)
			r->blob->intervals++;
	}
	shorten(m, n, off);
	insert(m, r);
	return 0;
}

int sop_imap_remove(struct sop_imap *m, uint64_t off, uint64_t len)
{
	struct node *n, *a, *mid, *b;

	if (!len)
		return 0;
	if (cut_at(m, off + len))
		return -ENOMEM;
	n = straddling(m, off);
	if (n)
		shorten(m, n, off);
	split(m->root, off, &a, &b);
	split(b, off + len, &mid, &b);
	tree_free(m, mid, false);
	m->root = join(a, b);
	return 0;
}

void sop_imap_cut(struct sop_imap *m, uint64_t off)
{
	/* Nothing lies behind all offsets: this cannot fail. */
	(void)!sop_imap_remove(m, off, UINT64_MAX - off);
}

static int set(struct sop_imap *m, struct node *n)
{
	if (sop_imap_remove(m, n->e.off, n->e.len))
		return -ENOMEM;
	insert(m, n);
	return 0;
}

/* An interval without bytes of its own. */
static int set_plain(struct sop_imap *m, const struct sop_imap_entry *e)
{
	struct node *n;

	if (!e->len)
		return 0;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->e = *e;
	if (!set(m, n))
		return 0;
	free(n);
	return -ENOMEM;
}

int sop_imap_set_zero(struct sop_imap *m, uint64_t off, uint64_t len)
{
	return set_plain(
		m, &(struct sop_imap_entry){.off = off, .len = len, .kind = SOP_IMAP_ZERO});
}

int sop_imap_set_shared(struct sop_imap *m, uint64_t off, uint32_t len,
	const struct sop_blobref *ref, uint32_t blob_off)
{
	return set_plain(m, &(struct sop_imap_entry){.off = off,
				    .len = len,
				    .kind = SOP_IMAP_SHARED,
				    .ref = *ref,
				    .blob_off = blob_off});
}

int sop_imap_set_blob(struct sop_imap *m, uint64_t off, uint32_t len, const struct sop_blobref *ref,
	uint32_t blob_off)
{
	struct node *n;

	if (!len)
		return 0;
	n = calloc(1, sizeof(*n));
	if (!n || !(n->blob = malloc(sizeof(*n->blob)))) {
		free(n);
		return -ENOMEM;
	}
	*n->blob = (struct blob){*ref, 1};
	n->e = (struct sop_imap_entry){
		.off = off, .len = len, .kind = SOP_IMAP_BLOB, .ref = *ref, .blob_off = blob_off};
	if (!set(m, n))
		return 0;
	free(n->blob);
	free(n);
	return -ENOMEM;
}

/* ---- memory ---- */

/* Room for len bytes. The first buffer is as long as what is written: most are never added to. */
static int mem_room(struct sop_imap *m, struct node *n, size_t len)
{
	size_t room = len;
	uint8_t *p;

	if (n->base && n->room >= len)
		return 0;
	if (n->base) {
		room = SOP_MAX(2 * n->room, (size_t)MEM_FIRST);
		room = SOP_MAX(SOP_MIN(room, (size_t)SOP_IMAP_MEM_MAX), len);
	}
	p = realloc(n->base, room);
	if (!p)
		return -ENOMEM;
	m->mem_bytes += room - n->room;
	n->base = n->e.mem = p;
	n->room = room;
	return 0;
}

/* Join a memory interval with the one that begins where it ends. Not joining costs nothing but
 * size. */
static void join_next(struct sop_imap *m, struct node *n)
{
	struct sop_imap_entry *x = sop_imap_at(m, end_of(n));
	uint64_t len;

	if (!x || x->kind != SOP_IMAP_MEM || x->off != end_of(n) ||
		n->e.len + x->len > SOP_IMAP_MEM_MAX || mem_room(m, n, n->e.len + x->len))
		return;
	len = x->len;
	memcpy(n->e.mem + n->e.len, x->mem, len);
	/* Whole intervals only: this cannot fail. */
	(void)!sop_imap_remove(m, x->off, len);
	n->e.len += len;
}

/* Write into, or on from, the memory interval n, which covers or ends at off. */
static int write_into(
	struct sop_imap *m, struct node *n, uint64_t off, const uint8_t *data, size_t len)
{
	size_t at = (size_t)(off - n->e.off);

	if (mem_room(m, n, at + len))
		return -ENOMEM;
	if (at + len > n->e.len) {
		uint64_t more = at + len - n->e.len;

		if (sop_imap_remove(m, end_of(n), more))
			return -ENOMEM;
		n->e.len += more;
	}
	memcpy(n->e.mem + at, data, len);
	join_next(m, n);
	return 0;
}

static int write_new(struct sop_imap *m, uint64_t off, const uint8_t *data, size_t len)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n || mem_room(m, n, len) || sop_imap_remove(m, off, len)) {
		if (n) {
			m->mem_bytes -= n->room;
			free(n->base);
		}
		free(n);
		return -ENOMEM;
	}
	n->e.off = off;
	n->e.len = len;
	n->e.kind = SOP_IMAP_MEM;
	memcpy(n->e.mem, data, len);
	insert(m, n);
	join_next(m, n);
	return 0;
}

int sop_imap_write(struct sop_imap *m, uint64_t off, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		struct sop_imap_entry *x = off ? sop_imap_at(m, off - 1) : sop_imap_at(m, 0);
		size_t n = SOP_MIN(len, (size_t)SOP_IMAP_MEM_MAX);
		int rc;

		if (x && x->kind == SOP_IMAP_MEM && x->off <= off && x->off + x->len >= off &&
			off - x->off < SOP_IMAP_MEM_MAX) {
			n = SOP_MIN(len, (size_t)(SOP_IMAP_MEM_MAX - (off - x->off)));
			rc = write_into(m, node_of(x), off, p, n);
		} else {
			x = sop_imap_at(m, off);
			if (x && x->kind == SOP_IMAP_MEM && x->off == off) {
				rc = write_into(m, node_of(x), off, p, n);
			} else {
				rc = write_new(m, off, p, n);
			}
		}
		if (rc)
			return rc;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

void sop_imap_stored(struct sop_imap *m, struct sop_imap_entry *x, const struct sop_blobref *ref)
{
	struct node *n = node_of(x);
	struct blob *b = malloc(sizeof(*b));

	/* Without memory the bytes stay where they are; the blob goes back. */
	if (!b) {
		if (m->drop)
			m->drop(m->arg, ref);
		return;
	}
	*b = (struct blob){*ref, 1};
	m->mem_bytes -= n->room;
	free(n->base);
	n->base = NULL;
	n->room = 0;
	n->blob = b;
	x->mem = NULL;
	x->kind = SOP_IMAP_BLOB;
	x->ref = *ref;
	x->blob_off = 0;
}
