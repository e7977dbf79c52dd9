/* Trees against a plain array: random changes, reads at the latest state and at pinned snapshots,
 * checkpoints that succeed or fail, a cache of next to nothing; then each allocation and each
 * callback made to fail in turn.
 *
 * The modules under test are included here, so that their allocations can be counted and refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static long fail_after = -1; /* allocations or calls that still succeed; -1: all do */
static bool fail_on;	     /* after the first failure all fail */
static unsigned refused;

static bool must_fail(void)
{
	if (fail_after < 0)
		return false;
	if (fail_after) {
		fail_after--;
		return false;
	}
	if (!fail_on)
		fail_after = -1;
	refused++;
	return true;
}

static void *test_alloc(size_t n)
{
	return must_fail() ? NULL : malloc(n);
}

static void *test_zalloc(size_t n, size_t size)
{
	return must_fail() ? NULL : calloc(n, size);
}

#include "core/base.h"
#define malloc(n)	test_alloc(n)
#define calloc(n, size) test_zalloc(n, size)
#include "core/btree.c"
#include "core/btree_write.c"
#include "core/node.c"
#include "core/node_cache.c"
#undef malloc
#undef calloc

static uint64_t rng;

static uint64_t draw(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* ---- the world under the trees: blobs, a registry, handles ---- */

#define HANDLES 60000u
#define TREES	5u
#define KEYS	700u
#define PINS	5u

struct blob {
	void *bytes; /* NULL: given back */
	uint32_t len;
};

struct freed {
	uint64_t lsn, store, blob;
};

enum handle_state { HANDLE_FREE, HANDLE_USED, HANDLE_RELEASED };

struct pinned {
	bool used;
	uint64_t scope, lsn;
	uint64_t root[TREES];
	uint32_t val[TREES][KEYS];
};

struct world {
	struct sop_nodes *n;
	struct sop_pins *pins;
	uint64_t lsn;
	struct sop_tree tree[TREES];
	uint32_t val[TREES][KEYS]; /* the model: 0 none, else which value a key has */
	uint32_t next_val;
	struct pinned published, pin[PINS];

	struct blob *blob;
	uint64_t blobs, blobs_cap;
	struct freed *freed;
	size_t n_freed, cap_freed;
	struct sop_blobref at[HANDLES]; /* the registry */
	uint8_t state[HANDLES];
	uint64_t next_handle;

	struct sop_frozen *frozen;
	size_t n_frozen;
	uint64_t frozen_lsn;
	bool freezing;
	uint64_t looked_for; /* when this handle is, others do then(w), once */
	void (*then)(struct world *w);
	bool meddle;  /* others change things while a reader loads a node */
	bool loading; /* that is so now: a load here might wait for that one for ever */
	void **copy;  /* of the frozen pages, to see that they do not change */
};

static void meddle(struct world *w);

static int world_locate(void *ctx, uint64_t handle, struct sop_blobref *ref, struct sop_err *e)
{
	struct world *w = ctx;

	if (must_fail())
		return sop_fail(e, -EIO, "registry");
	assert_true(handle && handle < HANDLES);
	if (handle == w->looked_for) {
		w->looked_for = 0;
		w->then(w);
	}
	meddle(w);
	*ref = w->at[handle];
	return ref->segment ? 0 : -ENOENT;
}

static int world_load(void *ctx, const struct sop_blobref *ref, void **buf, struct sop_err *e)
{
	struct world *w = ctx;

	if (must_fail())
		return sop_fail(e, -EIO, "blob");
	meddle(w);
	assert_true(ref->off < w->blobs);
	/* Nothing may be read that has been given back. */
	assert_non_null(w->blob[ref->off].bytes);
	assert_int_equal(ref->len, w->blob[ref->off].len);
	*buf = malloc(ref->len);
	assert_non_null(*buf);
	memcpy(*buf, w->blob[ref->off].bytes, ref->len);
	meddle(w);
	return 0;
}

static int world_handle_alloc(void *ctx, uint64_t *handle, struct sop_err *e)
{
	struct world *w = ctx;

	if (must_fail())
		return sop_fail(e, -EIO, "handle");
	/* Reuse as soon as possible: that is what could go wrong. */
	for (uint64_t h = 1; h < w->next_handle; h++)
		if (w->state[h] == HANDLE_FREE) {
			w->state[h] = HANDLE_USED;
			*handle = h;
			return 0;
		}
	assert_true(w->next_handle < HANDLES);
	*handle = w->next_handle++;
	w->state[*handle] = HANDLE_USED;
	return 0;
}

static void world_handle_release(void *ctx, uint64_t handle)
{
	struct world *w = ctx;

	assert_int_equal(w->state[handle], HANDLE_USED);
	assert_int_equal(w->at[handle].segment, 0);
	w->state[handle] = HANDLE_RELEASED;
}

static const struct sop_nodes_ops world_ops = {
	.locate = world_locate,
	.load = world_load,
	.handle_alloc = world_handle_alloc,
	.handle_release = world_handle_release,
};

static void world_mount(struct world *w, size_t cache_bytes)
{
	struct sop_nodes_opts o = {
		.cache_bytes = cache_bytes, .ops = &world_ops, .ctx = w, .pins = w->pins};

	assert_int_equal(sop_nodes_new(&w->n, &o, NULL), 0);
}

static struct world *world_new(size_t cache_bytes)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->pins = sop_pins_new();
	assert_non_null(w->pins);
	w->next_handle = 1;
	w->tree[0] = (struct sop_tree){.store = 20, .node_bytes = 4096};
	w->tree[1] = (struct sop_tree){.store = 21, .node_bytes = 4096, .slot_length = 4};
	w->tree[2] = (struct sop_tree){.store = 22, .node_bytes = 16384};
	w->tree[3] = (struct sop_tree){
		.store = 23, .node_bytes = 4096, .slot_length = 10, .balance = true};
	w->tree[4] = (struct sop_tree){.store = 24, .node_bytes = 4096, .balance = true};
	world_mount(w, cache_bytes);
	return w;
}

static void world_free(struct world *w)
{
	sop_nodes_free(w->n);
	for (unsigned i = 0; i < PINS; i++)
		if (w->pin[i].used)
			sop_pins_put(w->pins, w->pin[i].scope, w->pin[i].lsn);
	sop_pins_free(w->pins);
	for (uint64_t b = 0; b < w->blobs; b++)
		free(w->blob[b].bytes);
	free(w->blob);
	free(w->freed);
	free(w);
}

static struct sop_blobref blob_write(struct world *w, void *bytes, uint32_t len)
{
	if (w->blobs == w->blobs_cap) {
		w->blobs_cap = w->blobs_cap ? 2 * w->blobs_cap : 1024;
		w->blob = realloc(w->blob, w->blobs_cap * sizeof(w->blob[0]));
		assert_non_null(w->blob);
	}
	w->blob[w->blobs] = (struct blob){bytes, len};
	return (struct sop_blobref){.segment = 1, .off = w->blobs++, .len = len, .nonce = 7};
}

static void blob_free_later(struct world *w, uint64_t lsn, uint64_t store, uint64_t blob)
{
	if (w->n_freed == w->cap_freed) {
		w->cap_freed = w->cap_freed ? 2 * w->cap_freed : 1024;
		w->freed = realloc(w->freed, w->cap_freed * sizeof(w->freed[0]));
		assert_non_null(w->freed);
	}
	w->freed[w->n_freed++] = (struct freed){lsn, store, blob};
}

/* Give back what no pin can need. */
static void blobs_reclaim(struct world *w)
{
	size_t kept = 0;

	for (size_t i = 0; i < w->n_freed; i++) {
		struct freed f = w->freed[i];

		if (sop_pins_published(w->pins) < f.lsn ||
			sop_pins_between(w->pins, f.store, 0, f.lsn)) {
			w->freed[kept++] = f;
			continue;
		}
		free(w->blob[f.blob].bytes);
		w->blob[f.blob].bytes = NULL;
	}
	w->n_freed = kept;
}

/* ---- keys and values ---- */

static uint8_t key_bytes[KEYS][SOP_KEY_MAX];
static size_t key_len[KEYS];

/* In order by their number: groups that share long prefixes, numbers, some of the largest size. */
static void make_keys(void)
{
	for (unsigned k = 0; k < KEYS; k++) {
		uint8_t *p = key_bytes[k];
		size_t n = 1;

		p[0] = (uint8_t)(k / 100);
		if (k / 100 % 3 == 1) {
			memset(p + n, 'p', 40);
			n += 40;
		}
		be64_put(p + n, k);
		n += 8;
		if (k % 3 == 0)
			p[n++] = 'x';
		if (k % 61 == 0) {
			memset(p + n, 'l', SOP_KEY_MAX - n);
			n = SOP_KEY_MAX;
		}
		key_len[k] = n;
		if (k)
			assert_true(sop_bytes_cmp(p, n, key_bytes[k - 1], key_len[k - 1]) > 0);
	}
	key_len[0] = 0; /* the lowest key there is */
}

static unsigned key_number(const void *key, size_t klen)
{
	unsigned low = 0, high = KEYS;

	while (high - low > 1) {
		unsigned mid = (low + high) / 2;

		if (sop_bytes_cmp(key, klen, key_bytes[mid], key_len[mid]) < 0)
			high = mid;
		else
			low = mid;
	}
	assert_int_equal(klen, key_len[low]);
	assert_memory_equal(key, key_bytes[low], klen);
	return low;
}

static size_t value_make(uint8_t *buf, uint32_t val)
{
	uint64_t x = val * 0x9E3779B97F4A7C15u;
	size_t len =
		x >> 56 < 4 ? (size_t)(x >> 20) % (SOP_VALUE_MAX + 1) : 4 + (size_t)(x >> 20) % 90;

	len = SOP_MAX(len, (size_t)4);
	memset(buf, (int)(val & 0xff), len);
	memcpy(buf, &val, 4);
	return len;
}

static uint32_t value_number(const void *val, size_t vlen)
{
	uint8_t want[SOP_VALUE_MAX];
	uint32_t number;

	assert_true(vlen >= 4);
	memcpy(&number, val, 4);
	assert_int_equal(vlen, value_make(want, number));
	assert_memory_equal(val, want, vlen);
	return number;
}

/* ---- reading against the model ---- */

static int note_value(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)key_number(key, klen);
	*(uint32_t *)arg = value_number(val, vlen);
	return 0;
}

static void assert_finds(
	struct world *w, const struct sop_tree *t, uint64_t lsn, unsigned k, uint32_t want)
{
	uint32_t got = 0;
	int rc = sop_tree_find(w->n, t, lsn, key_bytes[k], key_len[k], note_value, &got, NULL);

	assert_int_equal(rc, want ? 0 : -ENOENT);
	assert_int_equal(got, want);
}

struct scan_arg {
	const uint32_t *val;
	int next; /* key expected or later */
	int step; /* 1 or -1 */
	int last; /* no key beyond this one */
	int stop; /* entries until the callback ends the scan, -1: never */
};

static int scan_next(struct scan_arg *a)
{
	while (a->next >= 0 && a->next < (int)KEYS && !a->val[a->next])
		a->next += a->step;
	return a->next;
}

static int note_scan(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct scan_arg *a = arg;
	int k = scan_next(a);

	assert_int_equal(key_number(key, klen), k);
	assert_true(a->step > 0 ? k <= a->last : k >= a->last);
	assert_int_equal(value_number(val, vlen), a->val[k]);
	a->next += a->step;
	return a->stop > 0 && --a->stop == 0 ? 42 : 0;
}

static void assert_scan(struct world *w, const struct sop_tree *t, uint64_t lsn,
	const uint32_t *val, const struct sop_range *r, struct scan_arg *a)
{
	int stop = a->stop;
	int rc = sop_tree_scan(w->n, t, lsn, r, note_scan, a, NULL);

	if (stop > 0 && !a->stop) {
		assert_int_equal(rc, 42);
		return;
	}
	assert_int_equal(rc, 0);
	a->val = val;
	scan_next(a);
	assert_true(a->step > 0 ? a->next > a->last : a->next < a->last);
}

static void assert_scans_all(
	struct world *w, const struct sop_tree *t, uint64_t lsn, const uint32_t *val)
{
	struct scan_arg up = {.val = val, .next = 0, .step = 1, .last = KEYS - 1, .stop = -1};
	struct scan_arg down = {.val = val, .next = KEYS - 1, .step = -1, .stop = -1};

	assert_scan(w, t, lsn, val, &(struct sop_range){0}, &up);
	assert_scan(w, t, lsn, val, &(struct sop_range){.descending = true}, &down);
}

static void scan_random_range(
	struct world *w, const struct sop_tree *t, uint64_t lsn, const uint32_t *val)
{
	int from = (int)draw(KEYS), to = (int)draw(KEYS);
	struct sop_range r = {.from_exclusive = draw(2), .to_exclusive = draw(2)};
	struct scan_arg a = {.val = val, .step = 1, .stop = draw(3) ? -1 : 1 + (int)draw(20)};

	r.descending = draw(2);
	if (r.descending ? from < to : from > to) {
		int x = from;

		from = to;
		to = x;
	}
	if (r.descending)
		a.step = -1;
	a.next = from;
	a.last = to;
	r.from = key_bytes[from];
	r.from_len = key_len[from];
	r.to = key_bytes[to];
	r.to_len = key_len[to];
	if (r.from_exclusive)
		a.next += a.step;
	if (r.to_exclusive)
		a.last -= a.step;
	assert_scan(w, t, lsn, val, &r, &a);
}

static uint8_t reached[HANDLES];

static int note_handle(void *arg, uint64_t handle)
{
	struct world *w = arg;

	assert_int_equal(reached[handle], 0);
	reached[handle] = 1;
	if (w)
		assert_int_equal(w->state[handle], HANDLE_USED);
	return 0;
}

static void assert_whole(struct world *w)
{
	struct sop_err e = {0};

	memset(reached, 0, sizeof(reached));
	for (unsigned i = 0; i < TREES; i++) {
		if (sop_tree_check(w->n, &w->tree[i], SOP_LSN_LATEST, note_handle, w, &e))
			fail_msg("%s", e.text);
		assert_scans_all(w, &w->tree[i], SOP_LSN_LATEST, w->val[i]);
	}
}

static struct sop_tree tree_at(const struct world *w, const struct pinned *p, unsigned i)
{
	struct sop_tree t = w->tree[i];

	t.root = p->root[i];
	return t;
}

static bool pin_covers(const struct world *w, const struct pinned *p, unsigned tree)
{
	return p->used && (p->scope == SOP_PIN_ALL || p->scope == w->tree[tree].store);
}

static void assert_pinned(struct world *w, const struct pinned *p)
{
	for (unsigned i = 0; i < TREES; i++) {
		struct sop_tree t = tree_at(w, p, i);

		if (!pin_covers(w, p, i))
			continue;
		memset(reached, 0, sizeof(reached));
		assert_int_equal(sop_tree_check(w->n, &t, p->lsn, note_handle, NULL, NULL), 0);
		assert_scans_all(w, &t, p->lsn, p->val[i]);
	}
}

/* ---- changing ---- */

static int put(struct world *w, unsigned i, unsigned k, uint32_t val, struct sop_err *e)
{
	uint8_t buf[SOP_VALUE_MAX];
	size_t len = value_make(buf, val);
	bool was;
	int rc = sop_tree_put(w->n, &w->tree[i], key_bytes[k], key_len[k], buf, len, &was, e);

	if (!rc) {
		assert_int_equal(was, w->val[i][k] != 0);
		w->val[i][k] = val;
	}
	return rc;
}

static int del(struct world *w, unsigned i, unsigned k, struct sop_err *e)
{
	bool was;
	int rc = sop_tree_del(w->n, &w->tree[i], key_bytes[k], key_len[k], &was, e);

	if (!rc) {
		assert_int_equal(was, w->val[i][k] != 0);
		w->val[i][k] = 0;
	}
	return rc;
}

static void publish(struct world *w)
{
	sop_pins_publish(w->pins, w->lsn);
	w->published.lsn = w->lsn;
	memcpy(w->published.val, w->val, sizeof(w->val));
	for (unsigned i = 0; i < TREES; i++)
		w->published.root[i] = w->tree[i].root;
}

/* A transaction of some changes; now and then prefaulted, with a find in the midst. */
static void change(struct world *w)
{
	unsigned i = (unsigned)draw(TREES), k = (unsigned)draw(KEYS), n = 1 + (unsigned)draw(6);
	unsigned kind = (unsigned)draw(8);
	bool prefault = !w->loading && draw(2);

	if (!draw(40))
		n = 60;
	if (!draw(150)) {
		/* Nearly everything goes. */
		sop_nodes_write_begin(w->n, ++w->lsn);
		for (unsigned j = 0; j < KEYS; j++)
			if (draw(100))
				assert_int_equal(del(w, i, j, NULL), 0);
		sop_nodes_write_end(w->n);
	}
	for (unsigned j = 0; prefault && j < n; j++)
		assert_int_equal(sop_tree_prefault(w->n, &w->tree[i], key_bytes[(k + j) % KEYS],
					 key_len[(k + j) % KEYS], draw(2), NULL),
			0);
	sop_nodes_write_begin(w->n, ++w->lsn);
	while (n--) {
		if (draw(10) < (w->lsn / 500 % 2 ? 3 : 7)) {
			assert_int_equal(put(w, i, k, ++w->next_val, NULL), 0);
		} else {
			assert_int_equal(del(w, i, k, NULL), 0);
		}
		if (!draw(8))
			assert_finds(w, &w->tree[i], SOP_LSN_LATEST, k, w->val[i][k]);
		k = kind == 0  ? (unsigned)draw(KEYS)
		    : kind < 5 ? (k + 1) % KEYS
			       : (k + KEYS - 1) % KEYS;
	}
	sop_nodes_write_end(w->n);
	if (draw(4))
		publish(w);
}

/* ---- checkpoints ---- */

static void checkpoint_start(struct world *w)
{
	if (w->freezing)
		return;
	w->frozen_lsn = w->lsn;
	assert_int_equal(sop_nodes_freeze(w->n, w->lsn, &w->frozen, &w->n_frozen, NULL), 0);
	w->copy = calloc(w->n_frozen + 1, sizeof(void *));
	assert_non_null(w->copy);
	for (size_t i = 0; i < w->n_frozen; i++) {
		struct sop_frozen *f = &w->frozen[i];

		assert_int_equal(f->from.segment, w->at[f->handle].segment);
		assert_int_equal(f->from.off, w->at[f->handle].off);
		if (!f->page) {
			assert_true(f->from.segment);
			continue;
		}
		w->copy[i] = malloc(sop_page_bytes(f->page));
		assert_non_null(w->copy[i]);
		sop_page_encode(f->page, w->copy[i], f->node_lsn, f->root);
	}
	w->freezing = true;
}

static void checkpoint_end(struct world *w, bool ok)
{
	if (!w->freezing)
		return;
	for (size_t i = 0; i < w->n_frozen; i++) {
		struct sop_frozen *f = &w->frozen[i];
		uint32_t len = f->page ? (uint32_t)sop_page_bytes(f->page) : 0;
		void *now = malloc(len + 1u);

		assert_non_null(now);
		if (f->page) {
			sop_page_encode(f->page, now, f->node_lsn, f->root);
			assert_memory_equal(now, w->copy[i], len);
		}
		free(w->copy[i]);
		if (!ok) {
			free(now);
			continue;
		}
		if (f->page)
			f->to = blob_write(w, now, len);
		else
			free(now);
		if (f->from.segment)
			blob_free_later(w, w->frozen_lsn, f->store, f->from.off);
		w->at[f->handle] = f->to;
	}
	free(w->copy);
	if (ok) {
		sop_nodes_written(w->n, w->frozen, w->n_frozen);
		/* The chain of the next checkpoint. */
		for (uint64_t h = 1; h < w->next_handle; h++)
			if (w->state[h] == HANDLE_RELEASED)
				w->state[h] = HANDLE_FREE;
	} else {
		sop_nodes_thaw(w->n, w->frozen, w->n_frozen);
	}
	w->freezing = false;
	blobs_reclaim(w);
}

static void pin_toggle(struct world *w)
{
	struct pinned *p = &w->pin[draw(PINS)];

	if (p->used) {
		assert_pinned(w, p);
		sop_pins_put(w->pins, p->scope, p->lsn);
		p->used = false;
		blobs_reclaim(w);
		return;
	}
	*p = w->published;
	p->scope = draw(2) ? SOP_PIN_ALL : w->tree[draw(TREES)].store;
	assert_int_equal(sop_pins_get(w->pins, p->scope, &p->lsn), 0);
	assert_int_equal(p->lsn, w->published.lsn);
	p->used = true;
}

/* What the writer and the checkpointer may do while a reader, without a lock, loads a node. */
static void meddle(struct world *w)
{
	if (!w->meddle || draw(3))
		return;
	w->meddle = false;
	w->loading = true;
	switch (draw(4)) {
	case 0:
		checkpoint_start(w);
		break;
	case 1:
		checkpoint_end(w, draw(4) != 0);
		break;
	default:
		change(w);
		break;
	}
	w->loading = false;
	w->meddle = true;
}

static void read_something(struct world *w)
{
	const struct pinned *p = &w->pin[draw(PINS)];
	unsigned i = (unsigned)draw(TREES), k = (unsigned)draw(KEYS);

	if (draw(2) && pin_covers(w, p, i)) {
		struct sop_tree t = tree_at(w, p, i);

		w->meddle = draw(2);
		assert_finds(w, &t, p->lsn, k, p->val[i][k]);
		scan_random_range(w, &t, p->lsn, p->val[i]);
		w->meddle = false;
	} else {
		uint32_t got = 0;
		int rc;

		w->meddle = draw(2);
		rc = sop_tree_find(w->n, &w->tree[i], SOP_LSN_LATEST, key_bytes[k], key_len[k],
			note_value, &got, NULL);
		w->meddle = false;
		assert_int_equal(rc, w->val[i][k] ? 0 : -ENOENT);
		assert_int_equal(got, w->val[i][k]);
		scan_random_range(w, &w->tree[i], SOP_LSN_LATEST, w->val[i]);
	}
}

static void drop_pins(struct world *w)
{
	for (unsigned i = 0; i < PINS; i++)
		if (w->pin[i].used) {
			assert_pinned(w, &w->pin[i]);
			sop_pins_put(w->pins, w->pin[i].scope, w->pin[i].lsn);
			w->pin[i].used = false;
		}
}

static void checkpoint_all(struct world *w)
{
	publish(w);
	checkpoint_end(w, true);
	checkpoint_start(w);
	checkpoint_end(w, true);
}

/* Everything goes: no node, blob or handle may be left over. */
static void empty_all(struct world *w)
{
	struct sop_nodes_stat s;
	uint64_t used = 0;

	drop_pins(w);
	for (unsigned i = 0; i < TREES; i++) {
		sop_nodes_write_begin(w->n, ++w->lsn);
		for (unsigned k = 0; k < KEYS; k++)
			assert_int_equal(del(w, i, k, NULL), 0);
		sop_nodes_write_end(w->n);
		assert_int_equal(w->tree[i].root, 0);
	}
	checkpoint_all(w);
	for (unsigned i = 0; i < 200; i++) {
		/* Writes sweep away what is old. */
		sop_nodes_write_begin(w->n, ++w->lsn);
		sop_nodes_write_end(w->n);
	}
	sop_nodes_stat(w->n, &s);
	assert_int_equal(s.nodes, 0);
	assert_int_equal(s.dirty_bytes, 0);
	assert_int_equal(s.old_version_bytes, 0);
	for (uint64_t h = 1; h < w->next_handle; h++) {
		used += w->state[h] == HANDLE_USED;
		assert_int_equal(w->at[h].segment, 0);
	}
	assert_int_equal(used, 0);
	blobs_reclaim(w);
	for (uint64_t b = 0; b < w->blobs; b++)
		assert_null(w->blob[b].bytes);
}

static void model_run(uint64_t seed, size_t cache_bytes, unsigned steps)
{
	struct world *w;

	print_message("seed %llu cache %zu\n", (unsigned long long)seed, cache_bytes);
	rng = seed;
	w = world_new(cache_bytes);
	publish(w);
	for (unsigned i = 0; i < steps; i++) {
		switch (draw(24)) {
		case 0:
			checkpoint_start(w);
			break;
		case 1:
			checkpoint_end(w, draw(4) != 0);
			break;
		case 2:
		case 3:
			pin_toggle(w);
			break;
		case 4:
		case 5:
		case 6:
		case 7:
			read_something(w);
			break;
		default:
			change(w);
			break;
		}
		if (i % 512 == 0)
			assert_whole(w);
	}
	assert_whole(w);
	drop_pins(w);

	/* What a mount after the last checkpoint would see. */
	checkpoint_all(w);
	sop_nodes_free(w->n);
	for (uint64_t h = 1; h < w->next_handle; h++)
		if (w->state[h] == HANDLE_USED && !w->at[h].segment)
			w->state[h] = HANDLE_FREE;
	world_mount(w, cache_bytes);
	assert_whole(w);
	empty_all(w);
	world_free(w);
}

static void tree_is_like_an_array_with_a_cache_of_nothing(void **state)
{
	(void)state;
	model_run(4711, 0, 4500);
}

static void tree_is_like_an_array_with_a_small_cache(void **state)
{
	(void)state;
	model_run(99, 200000, 4500);
}

static void tree_is_like_an_array_with_everything_in_memory(void **state)
{
	(void)state;
	model_run(31337, SIZE_MAX, 4500);
}

/* ---- shape ---- */

static int count_handle(void *arg, uint64_t handle)
{
	(void)handle;
	++*(unsigned *)arg;
	return 0;
}

static unsigned count_nodes(struct world *w, const struct sop_tree *t)
{
	unsigned count = 0;

	assert_int_equal(sop_tree_check(w->n, t, SOP_LSN_LATEST, count_handle, &count, NULL), 0);
	return count;
}

static void fill_numbers(struct world *w, struct sop_tree *t, unsigned count, int order)
{
	uint8_t key[8], val[24] = {0};
	bool was;

	sop_nodes_write_begin(w->n, ++w->lsn);
	for (unsigned i = 0; i < count; i++) {
		unsigned k = order > 0 ? i : order < 0 ? count - i : i * 7919u % count;

		be64_put(key, k);
		assert_int_equal(sop_tree_put(w->n, t, key, 8, val, sizeof(val), &was, NULL), 0);
	}
	sop_nodes_write_end(w->n);
}

static void tree_is_packed_by_ascending_and_descending_loads(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	unsigned least = 20000 * 38 / (16384 - 64) + 1;

	(void)state;
	fill_numbers(w, &w->tree[2], 20000, 1);
	assert_in_range(count_nodes(w, &w->tree[2]), least, least + least / 16 + 2);
	world_free(w);
	w = world_new(SIZE_MAX);
	fill_numbers(w, &w->tree[2], 20000, -1);
	assert_in_range(count_nodes(w, &w->tree[2]), least, least + least / 16 + 2);
	world_free(w);
	w = world_new(SIZE_MAX);
	fill_numbers(w, &w->tree[2], 20001, 0);
	assert_in_range(count_nodes(w, &w->tree[2]), least, least * 2);
	world_free(w);
}

/* ---- leaf load balancing ---- */

#define FILL_ITEMS 20000u

enum fill_order { FILL_UP, FILL_DOWN, FILL_SHUFFLED };

struct fill {
	unsigned slot_length;
	bool balance;
	enum fill_order order;
	unsigned stay; /* of 100: the others are removed again, in any order */
};

static void shuffle(uint32_t *key, unsigned n)
{
	for (unsigned i = n; i > 1; i--) {
		unsigned j = (unsigned)draw(i);
		uint32_t k = key[i - 1];

		key[i - 1] = key[j];
		key[j] = k;
	}
}

struct leaves {
	struct world *w;
	unsigned count;
};

static int count_leaf(void *arg, uint64_t handle)
{
	struct leaves *l = arg;
	const struct node *node = sop_nodes_find(l->w->n, handle);

	l->count += !sop_page_level(node->newest->page);
	return 0;
}

/* Entries in the leaves, of 100 that there is room for. */
static unsigned filled(struct fill f)
{
	sop_autofree uint32_t *order = malloc(FILL_ITEMS * sizeof(*order));
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree *t = &w->tree[2];
	struct leaves l = {w, 0};
	unsigned left = FILL_ITEMS, room;
	uint8_t key[8], val[24] = {0};
	bool was;

	assert_non_null(order);
	rng = 20260;
	for (unsigned i = 0; i < FILL_ITEMS; i++)
		order[i] = f.order == FILL_DOWN ? FILL_ITEMS - i : i;
	if (f.order == FILL_SHUFFLED)
		shuffle(order, FILL_ITEMS);
	t->slot_length = f.slot_length;
	t->balance = f.balance;
	sop_nodes_write_begin(w->n, ++w->lsn);
	for (unsigned i = 0; i < FILL_ITEMS; i++) {
		be64_put(key, order[i]);
		assert_int_equal(sop_tree_put(w->n, t, key, 8, val, sizeof(val), &was, NULL), 0);
	}
	shuffle(order, FILL_ITEMS);
	while (left > (uint64_t)FILL_ITEMS * f.stay / 100) {
		be64_put(key, order[--left]);
		assert_int_equal(sop_tree_del(w->n, t, key, 8, &was, NULL), 0);
		assert_true(was);
	}
	sop_nodes_write_end(w->n);
	assert_int_equal(sop_tree_check(w->n, t, SOP_LSN_LATEST, count_leaf, &l, NULL), 0);
	room = f.slot_length ? f.slot_length
			     : (16384 - (unsigned)sizeof(struct sop_disk_node)) / 38;
	room = 100 * left / (l.count * room);
	world_free(w);
	return room;
}

static void balanced_leaves_are_fuller(void **state)
{
	static const unsigned slots[] = {0, 8, 50, 400};

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(slots); i++) {
		unsigned s = slots[i];

		/* Loads in order leave full leaves, balanced or not. */
		for (int b = 0; b < 2; b++) {
			assert_in_range(filled((struct fill){s, b, FILL_UP, 100}), 97, 100);
			assert_in_range(filled((struct fill){s, b, FILL_DOWN, 100}), 97, 100);
		}
		/* In any order, a full leaf gives to its neighbours before it splits... */
		assert_in_range(filled((struct fill){s, true, FILL_SHUFFLED, 100}), 79, 90);
		assert_in_range(filled((struct fill){s, false, FILL_SHUFFLED, 100}), 60, 78);
		/* ...and one that is half empty joins one of them. */
		for (int o = FILL_UP; o <= FILL_SHUFFLED; o++) {
			enum fill_order order = (enum fill_order)o;

			assert_in_range(filled((struct fill){s, true, order, 60}), 55, 70);
			assert_in_range(filled((struct fill){s, true, order, 20}), 55, 70);
			assert_in_range(filled((struct fill){s, false, order, 20}), 35, 50);
		}
	}
}

static int check_bound(void *arg, uint64_t handle)
{
	const struct world *w = arg;
	const struct sop_page *p = sop_nodes_find(w->n, handle)->newest->page;

	if (sop_page_count(p) >= 4)
		assert_in_range(sop_page_bytes(p), 0, 4096);
	return 0;
}

/* Entries that go to a neighbour change the separator in the parent, which may become longer. */
static void balanced_nodes_stay_within_their_bound(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree *t = &w->tree[4];
	uint8_t key[1000], val[300] = {0};
	bool was;

	(void)state;
	rng = 7;
	sop_nodes_write_begin(w->n, ++w->lsn);
	for (unsigned i = 0; i < 3000; i++) {
		unsigned k = (unsigned)draw(4096);
		size_t len = 1;

		/* Some neighbours differ in the first byte, others behind 600 that are alike. */
		key[0] = (uint8_t)(k >> 6);
		if (k & 32) {
			memset(key + 1, 'p', 600);
			len = 601;
		}
		key[len++] = (uint8_t)k;
		assert_int_equal(
			sop_tree_put(w->n, t, key, len, val, draw(sizeof(val)), &was, NULL), 0);
		if (i % 50 == 0)
			assert_int_equal(
				sop_tree_check(w->n, t, SOP_LSN_LATEST, check_bound, w, NULL), 0);
	}
	sop_nodes_write_end(w->n);
	assert_int_equal(sop_tree_check(w->n, t, SOP_LSN_LATEST, check_bound, w, NULL), 0);
	world_free(w);
}

static void tree_shrinks_when_most_entries_are_deleted(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree *t = &w->tree[2];
	uint8_t key[8];
	bool was;

	(void)state;
	fill_numbers(w, t, 20000, 1);
	sop_nodes_write_begin(w->n, ++w->lsn);
	for (unsigned i = 0; i < 20000; i++) {
		be64_put(key, i);
		if (i % 50)
			assert_int_equal(sop_tree_del(w->n, t, key, 8, &was, NULL), 0);
	}
	sop_nodes_write_end(w->n);
	assert_in_range(count_nodes(w, t), 1, 6);
	checkpoint_all(w);
	sop_nodes_free(w->n);
	world_mount(w, 0);
	assert_in_range(count_nodes(w, t), 1, 6);
	world_free(w);
}

static void tree_put_refuses_entries_that_are_too_large(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	uint8_t buf[SOP_VALUE_MAX + 1] = {0};
	bool was;

	(void)state;
	sop_nodes_write_begin(w->n, ++w->lsn);
	assert_int_equal(
		sop_tree_put(w->n, &w->tree[0], buf, SOP_KEY_MAX + 1, buf, 1, &was, NULL), -EINVAL);
	assert_int_equal(
		sop_tree_put(w->n, &w->tree[0], buf, 1, buf, SOP_VALUE_MAX + 1, &was, NULL),
		-EINVAL);
	assert_int_equal(w->tree[0].root, 0);
	sop_nodes_write_end(w->n);
	world_free(w);
}

/* A reader that was long on its way from a parent to a child that is gone tries to load it just
 * when its handle gets a new life. */
static void new_node_takes_the_place_of_a_load_that_came_too_late(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_blobref ref = {0};
	struct node *node;
	struct reader r;

	(void)state;
	sop_reader_init(&r, w->n, SOP_LSN_LATEST);
	node = find_or_expect(w->n, w->next_handle);
	assert_non_null(node);
	node->loading = true;
	sop_nodes_write_begin(w->n, ++w->lsn);
	assert_int_equal(put(w, 0, 5, 1, NULL), 0);
	sop_nodes_write_end(w->n);
	assert_int_equal(w->tree[0].root, node->handle);
	assert_int_equal(load_end(&r, node, true, &ref, NULL, 0, -ENOENT, NULL), 0);
	assert_finds(w, &w->tree[0], SOP_LSN_LATEST, 5, 1);
	w->val[0][5] = 1;
	empty_all(w);
	world_free(w);
}

static int stop_with_seven(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)arg;
	(void)key;
	(void)klen;
	(void)val;
	(void)vlen;
	return 7;
}

static void assert_rank(struct world *w, const struct sop_tree *t, unsigned count, unsigned skip)
{
	uint8_t key[SOP_KEY_MAX];
	size_t klen = 0;

	for (int down = 0; down < 2; down++) {
		int rc = sop_tree_skip(w->n, t, SOP_LSN_LATEST, skip, down, key, &klen, NULL);

		assert_int_equal(rc, skip < count);
		if (rc) {
			assert_int_equal(klen, 8);
			assert_int_equal(be64_get(key), down ? count - 1 - skip : skip);
		}
	}
}

static void tree_skip_finds_the_entry_of_each_rank(void **state)
{
	struct world *w = world_new(0);
	struct sop_tree *t = &w->tree[0];

	(void)state;
	assert_rank(w, t, 0, 0);
	fill_numbers(w, t, 3001, 0);
	checkpoint_all(w); /* read from the disks, with a cache of nothing */
	for (unsigned i = 0; i < 3003; i += i < 200 || i > 2990 ? 1 : 37)
		assert_rank(w, t, 3001, i);
	assert_rank(w, t, 3001, UINT32_MAX);
	world_free(w);
}

static uint64_t child_of_root(struct world *w, const struct sop_tree *t, unsigned slot)
{
	return sop_page_child(sop_nodes_find(w->n, t->root)->newest->page, slot);
}

/* The number that parts the child of the root at slot from the one before it. */
static uint64_t number_before(struct world *w, const struct sop_tree *t, unsigned slot)
{
	uint8_t key[8] = {0};
	struct bounds b = {0};

	sop_node_bounds(&b, sop_nodes_find(w->n, t->root)->newest->page, slot);
	assert_in_range(b.low_len, 1, 8);
	memcpy(key, b.low, b.low_len);
	return be64_get(key);
}

static void put_number(struct world *w, struct sop_tree *t, uint64_t k, size_t klen)
{
	uint8_t key[9] = {0}, val[24] = {0};
	bool was;

	be64_put(key, k);
	assert_int_equal(sop_tree_put(w->n, t, key, klen, val, sizeof(val), &was, NULL), 0);
}

static void del_number(struct world *w, struct sop_tree *t, uint64_t k)
{
	uint8_t key[8];
	bool was;

	be64_put(key, k);
	assert_int_equal(sop_tree_del(w->n, t, key, 8, &was, NULL), 0);
	assert_true(was);
}

static void del_numbers(
	struct world *w, struct sop_tree *t, uint64_t k, uint64_t end, unsigned step)
{
	sop_nodes_write_begin(w->n, ++w->lsn);
	for (; k < end; k += step)
		del_number(w, t, k);
	sop_nodes_write_end(w->n);
}

#define ROW 1000u

static struct {
	bool down;
	unsigned nodes;
	uint64_t outer; /* parts the first leaf on the way from the second */
} shift;

/* Nearly all of the first leaf goes, which then joins the second. */
static void shift_leaves(struct world *w)
{
	struct sop_tree *t = &w->tree[0];

	sop_nodes_write_begin(w->n, ++w->lsn);
	put_number(
		w, t, shift.down ? shift.outer - 1 : shift.outer + 1, 8); /* it is in memory now */
	sop_nodes_write_end(w->n);
	if (shift.down)
		del_numbers(w, t, shift.outer + 16, ROW, 1);
	else
		del_numbers(w, t, 0, shift.outer - 16, 1);
	assert_int_equal(count_nodes(w, t), shift.nodes - 1);
}

/* What was counted in a leaf that others change then is not counted again in the next. */
static void skip_while_leaves_shift(bool down)
{
	struct world *w = world_new(0);
	struct sop_tree *t = &w->tree[0];
	uint64_t want, left = 300, inner, low, high;
	uint8_t key[SOP_KEY_MAX];
	unsigned leaves;
	size_t klen;

	fill_numbers(w, t, ROW, 1);
	leaves = sop_page_count(sop_nodes_find(w->n, t->root)->newest->page);
	shift.down = down;
	shift.outer = number_before(w, t, down ? leaves - 1 : 1);
	inner = number_before(w, t, down ? leaves - 2 : 2);
	low = SOP_MIN(shift.outer, inner);
	high = SOP_MAX(shift.outer, inner);
	del_numbers(w, t, low, high, 2); /* the second is half full */
	shift.nodes = count_nodes(w, t);
	w->looked_for = child_of_root(w, t, down ? leaves - 2 : 1);
	for (want = down ? ROW - 1 : 0;; want = down ? want - 1 : want + 1) {
		if (want >= low && want < high && (want - low) % 2 == 0)
			continue;
		if (!left--)
			break;
	}
	checkpoint_all(w);
	sop_nodes_free(w->n);
	world_mount(w, 0);
	w->then = shift_leaves;
	assert_int_equal(sop_tree_skip(w->n, t, SOP_LSN_LATEST, 300, down, key, &klen, NULL), 1);
	assert_int_equal(w->looked_for, 0);
	assert_int_equal(be64_get(key), want);
	world_free(w);
}

static void tree_skip_counts_each_entry_once_while_leaves_change(void **state)
{
	(void)state;
	skip_while_leaves_shift(false);
	skip_while_leaves_shift(true);
}

static void tree_find_returns_what_the_callback_returns(void **state)
{
	struct world *w = world_new(SIZE_MAX);

	(void)state;
	sop_nodes_write_begin(w->n, ++w->lsn);
	assert_int_equal(put(w, 0, 5, 1, NULL), 0);
	sop_nodes_write_end(w->n);
	assert_int_equal(sop_tree_find(w->n, &w->tree[0], SOP_LSN_LATEST, key_bytes[5], key_len[5],
				 stop_with_seven, NULL, NULL),
		7);
	world_free(w);
}

/* The write that comes between a pin and the publication of its LSN must not change what is pinned.
 */
static void tree_keeps_what_is_pinned_between_a_write_and_its_publication(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree t;
	uint64_t lsn;

	(void)state;
	sop_nodes_write_begin(w->n, ++w->lsn);
	assert_int_equal(put(w, 0, 5, 1, NULL), 0);
	sop_nodes_write_end(w->n);
	publish(w);
	t = w->tree[0];
	sop_nodes_write_begin(w->n, ++w->lsn);
	assert_int_equal(put(w, 0, 5, 2, NULL), 0);
	sop_nodes_write_end(w->n);
	assert_int_equal(sop_pins_get(w->pins, SOP_PIN_ALL, &lsn), 0);
	publish(w);
	assert_finds(w, &t, lsn, 5, 1);
	assert_finds(w, &t, SOP_LSN_LATEST, 5, 2);
	sop_pins_put(w->pins, SOP_PIN_ALL, lsn);
	world_free(w);
}

static void prefault_keeps_nodes_until_the_write_ends(void **state)
{
	struct world *w = world_new(0);
	struct sop_nodes_stat before, after;

	(void)state;
	fill_numbers(w, &w->tree[2], 3000, 1);
	checkpoint_all(w);
	for (unsigned k = 0; k < 3000; k += 100) {
		uint8_t key[8];

		be64_put(key, k);
		assert_int_equal(sop_tree_prefault(w->n, &w->tree[2], key, 8, false, NULL), 0);
	}
	sop_nodes_stat(w->n, &before);
	fill_numbers(w, &w->tree[2], 3000, 1);
	sop_nodes_stat(w->n, &after);
	assert_int_equal(before.misses, after.misses);
	world_free(w);
}

/* Leaves go whole, and something comes in their place: in none of the ways a neighbour is read
 * when it is taken over, for it was before. */
static void prefault_loads_what_takes_over_from_leaves_that_go(void **state)
{
	(void)state;
	for (unsigned at = 0; at < 8; at++)
		for (unsigned leaves = 1; leaves < 3; leaves++) {
			struct world *w = world_new(0);
			struct sop_tree *t = &w->tree[0];
			uint64_t first, end, come;
			struct sop_nodes_stat before, after;
			uint8_t key[9] = {0};

			fill_numbers(w, t, ROW, 1);
			first = at ? number_before(w, t, at) : 0;
			end = number_before(w, t, at + leaves);
			come = first + at * (end - first) / 8;
			checkpoint_all(w);
			sop_nodes_free(w->n);
			world_mount(w, 0);
			for (uint64_t k = first; k < end; k++) {
				be64_put(key, k);
				assert_int_equal(sop_tree_prefault(w->n, t, key, 8, true, NULL), 0);
			}
			be64_put(key, come);
			assert_int_equal(sop_tree_prefault(w->n, t, key, 9, false, NULL), 0);
			sop_nodes_stat(w->n, &before);
			sop_nodes_write_begin(w->n, ++w->lsn);
			for (uint64_t k = first; k < end; k++)
				del_number(w, t, k);
			put_number(w, t, come, 9);
			sop_nodes_write_end(w->n);
			sop_nodes_stat(w->n, &after);
			assert_int_equal(before.misses, after.misses);
			world_free(w);
		}
}

static void nodes_stay_within_the_cache_when_they_are_clean(void **state)
{
	struct world *w = world_new(300000);
	struct sop_nodes_stat s;

	(void)state;
	fill_numbers(w, &w->tree[2], 60000, 1);
	checkpoint_all(w);
	sop_nodes_stat(w->n, &s);
	assert_in_range(s.memory_bytes, 1, 300000);
	assert_int_equal(s.dirty_bytes, 0);
	assert_int_equal(count_nodes(w, &w->tree[2]) > 100, 1);
	sop_nodes_stat(w->n, &s);
	assert_in_range(s.memory_bytes, 1, 300000 + 40000);
	assert_true(s.evictions > 100);
	world_free(w);
}

/* ---- failures ---- */

/* A world with old versions, clean, dirty and frozen nodes, most of them not in memory. */
static struct world *world_in_use(size_t cache_bytes)
{
	struct world *w = world_new(cache_bytes);

	rng = 5;
	publish(w);
	for (unsigned i = 0; i < 300; i++) {
		change(w);
		if (i == 200)
			checkpoint_all(w);
		if (i == 250 || i == 290)
			pin_toggle(w);
		if (i == 280)
			checkpoint_start(w);
	}
	publish(w);
	return w;
}

/* Each n-th allocation or callback fails, for a series of changes; after each failure the tree is
 * as before, and the change passes when repeated. */
static void each_failure_of_changes(size_t cache_bytes, bool deletes)
{
	struct world *w = world_in_use(cache_bytes);
	unsigned failures = 0;

	for (unsigned j = 0; j < 160; j++) {
		unsigned i = j % TREES, k = deletes ? j * 11 % KEYS : j * 4 % KEYS;
		uint32_t val = ++w->next_val;
		long n = 0;
		int rc;

		w->lsn++;
		do {
			/* Deletes can do without what merging needs: look behind the first failure.
			 */
			fail_after = n ? n - 1 : j % 3 ? 0 : (long)draw(12);
			n++;
			sop_nodes_write_begin(w->n, w->lsn);
			rc = deletes ? del(w, i, k, NULL) : put(w, i, k, val, NULL);
			sop_nodes_write_end(w->n);
			fail_after = -1;
			if (rc) {
				assert_true(rc == -ENOMEM || rc == -EIO);
				failures++;
				assert_finds(w, &w->tree[i], SOP_LSN_LATEST, k, w->val[i][k]);
				if (failures % 7 == 0)
					assert_whole(w);
			}
		} while (rc);
		if (j % 16 == 0)
			publish(w);
	}
	assert_true(failures > 30);
	assert_whole(w);
	for (unsigned i = 0; i < PINS; i++)
		if (w->pin[i].used)
			assert_pinned(w, &w->pin[i]);
	empty_all(w);
	world_free(w);
}

static void tree_is_as_before_after_each_failure_of_a_put(void **state)
{
	(void)state;
	each_failure_of_changes(SIZE_MAX, false);
	each_failure_of_changes(0, false);
}

static void tree_is_as_before_after_each_failure_of_a_delete(void **state)
{
	(void)state;
	each_failure_of_changes(SIZE_MAX, true);
	each_failure_of_changes(0, true);
}

static void reads_pass_on_each_failure_and_work_afterwards(void **state)
{
	struct world *w = world_in_use(0);
	unsigned failures = 0;

	(void)state;
	for (unsigned j = 0; j < 40; j++) {
		unsigned i = j % TREES, k = j * 17 % KEYS;
		long n = 0;
		int rc;

		do {
			uint32_t got = 0;

			/* A reader tries a node twice: only a lasting failure is an error. */
			refused = 0;
			fail_on = n % 2 != 0;
			fail_after = n++ / 2;
			rc = sop_tree_find(w->n, &w->tree[i], SOP_LSN_LATEST, key_bytes[k],
				key_len[k], note_value, &got, NULL);
			assert_true(rc == 0 || rc == -ENOENT || rc == -EIO || rc == -ENOMEM);
			if (!rc || rc == -ENOENT)
				assert_int_equal(got, w->val[i][k]);
			else
				failures++;
		} while (refused);
		fail_after = -1;
		assert_finds(w, &w->tree[i], SOP_LSN_LATEST, k, w->val[i][k]);
		fail_on = true;
		n = 0;
		do {
			refused = 0;
			fail_after = n++;
			rc = sop_tree_prefault(
				w->n, &w->tree[i], key_bytes[k], key_len[k], false, NULL);
			assert_int_equal(rc != 0, refused != 0);
			failures += rc != 0;
		} while (rc);
		fail_after = -1;
		fail_on = false;
	}
	assert_true(failures > 20);
	assert_whole(w);
	empty_all(w);
	world_free(w);
}

static int locate_nothing(void *ctx, uint64_t handle, struct sop_blobref *ref, struct sop_err *e)
{
	(void)ctx;
	(void)ref;
	return sop_fail(e, SOP_ELOST, "handle %llu", (unsigned long long)handle);
}

static void reads_fail_for_good_when_a_node_is_lost(void **state)
{
	struct sop_nodes_ops ops = world_ops;
	struct world *w = world_new(SIZE_MAX);
	struct sop_err e = {0};
	uint32_t got;

	(void)state;
	fill_numbers(w, &w->tree[0], 1000, 1);
	checkpoint_all(w);
	sop_nodes_free(w->n);
	ops.locate = locate_nothing;
	world_mount(w, SIZE_MAX);
	w->n->ops = &ops;
	assert_int_equal(
		sop_tree_find(w->n, &w->tree[0], SOP_LSN_LATEST, "x", 1, note_value, &got, &e),
		SOP_ELOST);
	assert_non_null(strstr(e.text, "node "));
	w->n->ops = &world_ops;
	assert_int_equal(
		sop_tree_find(w->n, &w->tree[0], SOP_LSN_LATEST, "x", 1, note_value, &got, &e),
		-ENOENT);
	world_free(w);
}

static void reads_refuse_a_node_of_another_handle_or_store(void **state)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree t;
	uint32_t got;

	(void)state;
	fill_numbers(w, &w->tree[0], 10, 1);
	fill_numbers(w, &w->tree[2], 10, 1);
	checkpoint_all(w);
	t = w->tree[0];
	t.root = w->tree[2].root;
	assert_int_equal(sop_tree_find(w->n, &t, SOP_LSN_LATEST, "x", 1, note_value, &got, NULL),
		SOP_ECORRUPT);
	sop_nodes_free(w->n);
	world_mount(w, SIZE_MAX);
	w->at[w->tree[0].root] = w->at[w->tree[2].root];
	assert_int_equal(
		sop_tree_find(w->n, &w->tree[0], SOP_LSN_LATEST, "x", 1, note_value, &got, NULL),
		SOP_ECORRUPT);
	world_free(w);
}

/* What a writer that errs leaves: the node below the root at `slot` has a key below its range. */
static void damage_child(struct world *w, const struct sop_tree *t, unsigned slot)
{
	struct sop_blobref *at = &w->at[child_of_root(w, t, slot)];
	struct blob *b = &w->blob[at->off];
	struct sop_page *p;
	uint64_t lsn;

	assert_int_equal(sop_page_decode(&p, b->bytes, b->len, &lsn, NULL), 0);
	assert_int_equal(sop_page_insert(&p, 0, "", 0, "x", 1), 0);
	free(b->bytes);
	b->len = at->len = (uint32_t)sop_page_bytes(p);
	b->bytes = malloc(b->len);
	assert_non_null(b->bytes);
	sop_page_encode(p, b->bytes, lsn, false);
	sop_page_free(p);
}

static int find_number(struct world *w, const struct sop_tree *t, uint64_t k)
{
	uint8_t key[8];

	be64_put(key, k);
	return sop_tree_find(w->n, t, SOP_LSN_LATEST, key, 8, stop_with_seven, NULL, NULL);
}

/* Leaves of about a hundred numbers. The one with the second hundred is half full, and damaged; its
 * neighbours want to give to it, or to join it. */
static void beside_damage(bool balance, bool fill)
{
	struct world *w = world_new(SIZE_MAX);
	struct sop_tree *t = &w->tree[balance ? 4 : 0];
	uint64_t first, last;

	fill_numbers(w, t, 1000, 1);
	first = number_before(w, t, 2);
	last = number_before(w, t, 3) - 1;
	assert_in_range(last - first, 95, 120);
	del_numbers(w, t, first, last, 2);
	checkpoint_all(w);
	damage_child(w, t, 2);
	sop_nodes_free(w->n);
	world_mount(w, SIZE_MAX);
	assert_int_equal(find_number(w, t, last), SOP_ECORRUPT);

	if (fill) {
		sop_nodes_write_begin(w->n, ++w->lsn);
		for (uint64_t k = 1; k <= 90; k++) {
			put_number(w, t, last + k, 9);
			put_number(w, t, first - k, 9);
		}
		sop_nodes_write_end(w->n);
	} else {
		del_numbers(w, t, last + 1, last + 91, 1);
		del_numbers(w, t, first - 90, first, 1);
	}
	for (uint64_t k = 0; k < 1000; k++)
		if (fill ? k < first || k > last : k < first - 90 || k > last + 90)
			assert_int_equal(find_number(w, t, k), 7);
	assert_int_equal(find_number(w, t, last), SOP_ECORRUPT);
	world_free(w);
}

static void good_entries_are_not_mixed_with_those_of_a_damaged_neighbour(void **state)
{
	(void)state;
	beside_damage(false, false);
	beside_damage(true, false);
	beside_damage(true, true);
}

static void freeze_without_memory_changes_nothing(void **state)
{
	struct world *w = world_in_use(SIZE_MAX);
	struct sop_frozen *list;
	size_t count;

	(void)state;
	checkpoint_end(w, true);
	fail_after = 0;
	assert_int_equal(sop_nodes_freeze(w->n, w->lsn, &list, &count, NULL), -ENOMEM);
	fail_after = -1;
	assert_whole(w);
	checkpoint_all(w);
	assert_whole(w);
	empty_all(w);
	world_free(w);
}

static int setup(void **state)
{
	(void)state;
	make_keys();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tree_is_like_an_array_with_a_cache_of_nothing),
		cmocka_unit_test(tree_is_like_an_array_with_a_small_cache),
		cmocka_unit_test(tree_is_like_an_array_with_everything_in_memory),
		cmocka_unit_test(tree_is_packed_by_ascending_and_descending_loads),
		cmocka_unit_test(balanced_leaves_are_fuller),
		cmocka_unit_test(balanced_nodes_stay_within_their_bound),
		cmocka_unit_test(tree_shrinks_when_most_entries_are_deleted),
		cmocka_unit_test(tree_put_refuses_entries_that_are_too_large),
		cmocka_unit_test(new_node_takes_the_place_of_a_load_that_came_too_late),
		cmocka_unit_test(tree_skip_finds_the_entry_of_each_rank),
		cmocka_unit_test(tree_skip_counts_each_entry_once_while_leaves_change),
		cmocka_unit_test(tree_find_returns_what_the_callback_returns),
		cmocka_unit_test(tree_keeps_what_is_pinned_between_a_write_and_its_publication),
		cmocka_unit_test(prefault_keeps_nodes_until_the_write_ends),
		cmocka_unit_test(prefault_loads_what_takes_over_from_leaves_that_go),
		cmocka_unit_test(nodes_stay_within_the_cache_when_they_are_clean),
		cmocka_unit_test(tree_is_as_before_after_each_failure_of_a_put),
		cmocka_unit_test(tree_is_as_before_after_each_failure_of_a_delete),
		cmocka_unit_test(reads_pass_on_each_failure_and_work_afterwards),
		cmocka_unit_test(reads_fail_for_good_when_a_node_is_lost),
		cmocka_unit_test(reads_refuse_a_node_of_another_handle_or_store),
		cmocka_unit_test(good_entries_are_not_mixed_with_those_of_a_damaged_neighbour),
		cmocka_unit_test(freeze_without_memory_changes_nothing),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
