/* The write set: a skip list of keys in tree order, in the transaction's own memory. */
#include "core/engine.h"

struct sop_arena_chunk {
	struct sop_arena_chunk *next;
	size_t size;
	max_align_t mem[];
};

void *sop_arena_alloc(struct sop_arena *a, size_t len)
{
	void *p;

	len = (len + 15) & ~(size_t)15;
	if (!a->chunk || a->chunk->size - a->used < len) {
		size_t size = a->chunk ? SOP_MIN(2 * a->chunk->size, (size_t)256 << 10) : 2048;
		struct sop_arena_chunk *c;

		size = SOP_MAX(size, len);
		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		c->size = size;
		c->next = a->chunk;
		a->chunk = c;
		a->used = 0;
	}
	p = (uint8_t *)a->chunk->mem + a->used;
	a->used += len;
	return p;
}

void *sop_arena_copy(struct sop_arena *a, const void *src, size_t len)
{
	void *p = sop_arena_alloc(a, len ? len : 1);

	if (p && len)
		memcpy(p, src, len);
	return p;
}

void sop_arena_release(struct sop_arena *a)
{
	while (a->chunk) {
		struct sop_arena_chunk *c = a->chunk;

		a->chunk = c->next;
		free(c);
	}
	a->used = 0;
}

static int entry_cmp(const struct sop_wentry *x, uint64_t store, const void *key, size_t klen)
{
	if (x->store != store)
		return x->store < store ? -1 : 1;
	return sop_bytes_cmp(x->key, x->klen, key, klen);
}

/* Links of the last entries before the key, per level, in path; the first not before it is
 * returned. */
static struct sop_wentry *descend(
	struct sop_wset *w, uint64_t store, const void *key, size_t klen, struct sop_wentry ***path)
{
	struct sop_wentry **links = w->head;
	struct sop_wentry *at = NULL;

	for (unsigned l = w->levels; l-- > 0;) {
		const struct sop_wentry *stop = at; /* not before the key, as the level above saw */

		while (links[l] != stop && entry_cmp(links[l], store, key, klen) < 0)
			links = links[l]->next;
		at = links[l];
		if (path)
			path[l] = links;
	}
	return at;
}

/* Most calls go to the entry that was used last, or to the place behind it. True: *at is the first
 * entry not before the key. */
static bool near_last(const struct sop_wset *w, uint64_t store, const void *key, size_t klen,
	struct sop_wentry **at)
{
	int c = w->last ? entry_cmp(w->last, store, key, klen) : 1;

	if (c >= 0) {
		*at = w->last;
		return !c;
	}
	*at = w->last->next[0];
	return !*at || entry_cmp(*at, store, key, klen) >= 0;
}

struct sop_wentry *sop_wset_seek(struct sop_wset *w, uint64_t store, const void *key, size_t klen)
{
	return descend(w, store, key, klen, NULL);
}

struct sop_wentry *sop_wset_find(struct sop_wset *w, uint64_t store, const void *key, size_t klen)
{
	struct sop_wentry *x;

	if (!near_last(w, store, key, klen, &x))
		x = descend(w, store, key, klen, NULL);
	return x && !entry_cmp(x, store, key, klen) ? x : NULL;
}

/* x is the first entry behind the links of w->path: they become those of the entries up to x. */
static struct sop_wentry *use(struct sop_wset *w, struct sop_wentry *x)
{
	for (unsigned l = 0; l < w->levels && w->path[l][l] == x; l++)
		w->path[l] = x->next;
	w->last = x;
	return x;
}

struct sop_wentry *sop_wset_get(
	struct sop_wset *w, struct sop_arena *a, uint64_t store, const void *key, size_t klen)
{
	struct sop_wentry *x;
	unsigned levels = 1;

	if (!near_last(w, store, key, klen, &x)) {
		w->last = NULL;
		x = descend(w, store, key, klen, w->path);
	}
	if (x && x == w->last)
		return x;
	if (x && !entry_cmp(x, store, key, klen))
		return use(w, x);
	if (!w->rng)
		w->rng = 0x9E3779B97F4A7C15ull;
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	while (levels < SOP_WSET_LEVELS && (w->rng >> (2 * levels) & 3) == 0)
		levels++;
	x = sop_arena_alloc(a, sizeof(*x) + levels * sizeof(x->next[0]));
	if (!x)
		return NULL;
	memset(x, 0, sizeof(*x));
	x->store = store;
	x->key = sop_arena_copy(a, key, klen);
	x->klen = (uint32_t)klen;
	if (!x->key)
		return NULL;
	while (w->levels < levels)
		w->path[w->levels++] = w->head;
	for (unsigned l = 0; l < levels; l++) {
		x->next[l] = w->path[l][l];
		w->path[l][l] = x;
	}
	w->count++;
	return use(w, x);
}
