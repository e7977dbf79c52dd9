/* Trees under threads: one writer, a checkpointer, readers at the latest state and at snapshots,
 * over a cache too small for the tree. Every transaction writes its number to a set of keys all
 * over the tree, so a reader that sees two numbers has seen half of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/btree.h"

#define HANDLES 4096u
#define BLOBS	(1u << 20)
#define MARKS	12u   /* keys that every transaction writes */
#define FILLER	3000u /* keys in between */
#define TXNS	1500u
#define STORE	33u

struct shared {
	pthread_mutex_t lock; /* everything down to `stop` */
	void *blob[BLOBS];
	uint32_t len[BLOBS];
	uint64_t blobs;
	struct sop_blobref at[HANDLES];
	uint8_t used[HANDLES]; /* 1 in use, 2 released */
	struct {
		uint64_t lsn, blob;
	} freed[BLOBS];
	size_t n_freed;

	struct sop_nodes *n;
	struct sop_pins *pins;
	pthread_mutex_t commit; /* the tree's root, the LSN */
	struct sop_tree tree;
	uint64_t lsn;
	_Atomic bool stop;
	_Atomic unsigned bad, reads;
};

static int locate(void *ctx, uint64_t handle, struct sop_blobref *ref, struct sop_err *e)
{
	struct shared *s = ctx;

	(void)e;
	pthread_mutex_lock(&s->lock);
	*ref = s->at[handle];
	pthread_mutex_unlock(&s->lock);
	return ref->segment ? 0 : -ENOENT;
}

static int load(void *ctx, const struct sop_blobref *ref, void **buf, struct sop_err *e)
{
	struct shared *s = ctx;

	pthread_mutex_lock(&s->lock);
	*buf = s->blob[ref->off] ? malloc(ref->len) : NULL;
	if (*buf)
		memcpy(*buf, s->blob[ref->off], ref->len);
	pthread_mutex_unlock(&s->lock);
	return *buf ? 0 : sop_fail(e, SOP_ELOST, "blob");
}

static int handle_alloc(void *ctx, uint64_t *handle, struct sop_err *e)
{
	struct shared *s = ctx;

	pthread_mutex_lock(&s->lock);
	*handle = 1;
	while (*handle < HANDLES && s->used[*handle])
		++*handle;
	if (*handle < HANDLES)
		s->used[*handle] = 1;
	pthread_mutex_unlock(&s->lock);
	return *handle < HANDLES ? 0 : sop_fail(e, -ENOSPC, "handles");
}

static void handle_release(void *ctx, uint64_t handle)
{
	struct shared *s = ctx;

	pthread_mutex_lock(&s->lock);
	s->used[handle] = 2;
	pthread_mutex_unlock(&s->lock);
}

static const struct sop_nodes_ops ops = {locate, load, handle_alloc, handle_release};

static void complain(struct shared *s, const char *what, uint64_t a, uint64_t b)
{
	if (atomic_fetch_add(&s->bad, 1) < 5)
		fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)a,
			(unsigned long long)b);
}

/* ---- the writer and the checkpointer ---- */

static void mark_key(uint8_t *key, unsigned i)
{
	be64_put(key, (uint64_t)i * (FILLER / MARKS) * 10 + 5);
}

static void put(struct shared *s, const uint8_t *key, uint64_t number, size_t len)
{
	uint8_t val[200] = {0};
	bool was;

	memcpy(val, &number, sizeof(number));
	if (sop_tree_put(s->n, &s->tree, key, 8, val, len, &was, NULL))
		complain(s, "put", number, 0);
}

/* Filler comes and goes, so that nodes split, merge and vanish. */
static void write_txn(struct shared *s, uint64_t seed)
{
	uint64_t first = seed * 40503u % FILLER;
	uint8_t key[8];
	bool was;

	pthread_mutex_lock(&s->commit);
	for (unsigned i = 0; i < MARKS; i++) {
		mark_key(key, i);
		if (sop_tree_prefault(s->n, &s->tree, key, 8, false, NULL))
			complain(s, "prefault", i, 0);
	}
	sop_nodes_write_begin(s->n, ++s->lsn);
	for (unsigned i = 0; i < MARKS; i++) {
		mark_key(key, i);
		put(s, key, s->lsn, 16);
	}
	for (uint64_t i = first; i < first + 30; i++) {
		be64_put(key, i % FILLER * 10);
		if (seed / 100 % 2) {
			if (sop_tree_del(s->n, &s->tree, key, 8, &was, NULL))
				complain(s, "del", i, 0);
		} else {
			put(s, key, s->lsn, 16 + i % 180);
		}
	}
	sop_nodes_write_end(s->n);
	sop_pins_publish(s->pins, s->lsn);
	pthread_mutex_unlock(&s->commit);
}

static void *write_all(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; i < TXNS; i++)
		write_txn(s, i);
	atomic_store(&s->stop, true);
	return NULL;
}

static void reclaim(struct shared *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n_freed; i++) {
		if (sop_pins_between(s->pins, STORE, 0, s->freed[i].lsn)) {
			s->freed[kept++] = s->freed[i];
			continue;
		}
		free(s->blob[s->freed[i].blob]);
		s->blob[s->freed[i].blob] = NULL;
	}
	s->n_freed = kept;
}

static void checkpoint(struct shared *s, bool ok)
{
	struct sop_frozen *f;
	uint64_t lsn;
	size_t count;

	pthread_mutex_lock(&s->commit);
	lsn = s->lsn;
	if (sop_nodes_freeze(s->n, lsn, &f, &count, NULL))
		abort();
	/* Handles released before now may be given out again. */
	pthread_mutex_lock(&s->lock);
	for (unsigned h = 0; h < HANDLES; h++)
		if (s->used[h] == 2)
			s->used[h] = 0;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->commit);
	if (!ok) {
		sop_nodes_thaw(s->n, f, count);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		size_t len = f[i].page ? sop_page_bytes(f[i].page) : 0;
		void *raw = len ? malloc(len) : NULL;

		if (raw)
			sop_page_encode(f[i].page, raw, f[i].node_lsn, f[i].root);
		pthread_mutex_lock(&s->lock);
		if (s->blobs == BLOBS)
			abort();
		if (raw) {
			f[i].to = (struct sop_blobref){1, s->blobs, (uint32_t)len, 1};
			s->len[s->blobs] = (uint32_t)len;
			s->blob[s->blobs++] = raw;
		}
		pthread_mutex_unlock(&s->lock);
	}
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < count; i++) {
		s->at[f[i].handle] = f[i].to;
		if (f[i].from.segment) {
			s->freed[s->n_freed].lsn = lsn;
			s->freed[s->n_freed++].blob = f[i].from.off;
		}
	}
	pthread_mutex_unlock(&s->lock);
	sop_nodes_written(s->n, f, count);
	pthread_mutex_lock(&s->lock);
	reclaim(s);
	pthread_mutex_unlock(&s->lock);
}

static void *checkpoint_all(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; !atomic_load(&s->stop); i++)
		checkpoint(s, i % 5 != 4);
	return NULL;
}

/* ---- readers ---- */

static int get_number(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	(void)key;
	(void)klen;
	(void)vlen;
	memcpy(arg, val, sizeof(uint64_t));
	return 0;
}

static void read_snapshot(struct shared *s, unsigned round)
{
	struct sop_tree t;
	uint64_t lsn, first = 0;

	if (sop_pins_get(s->pins, STORE, &lsn))
		abort();
	pthread_mutex_lock(&s->commit);
	t = s->tree; /* never empty, so that its root stays */
	pthread_mutex_unlock(&s->commit);
	for (unsigned i = 0; i < MARKS; i++) {
		uint64_t number = 0;
		uint8_t key[8];
		struct sop_err e = {0};

		mark_key(key, (i + round) % MARKS);
		if (sop_tree_find(s->n, &t, lsn, key, 8, get_number, &number, &e)) {
			fprintf(stderr, "%s\n", e.text);
			complain(s, "find", lsn, i);
		}
		if (!i)
			first = number;
		if (number != first || number > lsn)
			complain(s, "half a transaction", first, number);
	}
	sop_pins_put(s->pins, STORE, lsn);
}

struct order {
	struct shared *s;
	uint64_t last, count;
	bool descending;
};

static int check_order(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct order *o = arg;
	uint64_t k = be64_get(key);

	(void)klen;
	(void)val;
	(void)vlen;
	if (o->count++ && (o->descending ? k >= o->last : k <= o->last))
		complain(o->s, "out of order", o->last, k);
	o->last = k;
	return 0;
}

static void read_latest(struct shared *s, bool descending)
{
	struct order o = {.s = s, .descending = descending};
	struct sop_range all = {.descending = descending};
	struct sop_err e = {0};
	struct sop_tree t;
	uint64_t before, number = 0;
	uint8_t key[8];

	pthread_mutex_lock(&s->commit);
	t = s->tree;
	before = s->lsn;
	pthread_mutex_unlock(&s->commit);
	mark_key(key, 3);
	if (sop_tree_find(s->n, &t, SOP_LSN_LATEST, key, 8, get_number, &number, &e) ||
		number < before) {
		fprintf(stderr, "%s\n", e.text);
		complain(s, "latest", before, number);
	}
	if (sop_tree_scan(s->n, &t, SOP_LSN_LATEST, &all, check_order, &o, &e)) {
		fprintf(stderr, "%s\n", e.text);
		complain(s, "scan", 0, 0);
	}
	if (o.count < MARKS)
		complain(s, "scan lost something", o.count, 0);
}

static void *read_all(void *arg)
{
	struct shared *s = arg;

	for (unsigned i = 0; !atomic_load(&s->stop); i++) {
		read_snapshot(s, i);
		if (i % 4 == 0)
			read_latest(s, i % 8);
		atomic_fetch_add(&s->reads, 1);
	}
	return NULL;
}

static void readers_see_whole_transactions_while_all_else_goes_on(void **state)
{
	struct shared *s = calloc(1, sizeof(*s));
	struct sop_nodes_opts o = {.cache_bytes = 40000, .ops = &ops, .ctx = s};
	pthread_t thread[5];

	(void)state;
	assert_non_null(s);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->commit, NULL);
	s->pins = sop_pins_new();
	assert_non_null(s->pins);
	s->tree = (struct sop_tree){.store = STORE, .node_bytes = 4096};
	o.pins = s->pins;
	assert_int_equal(sop_nodes_new(&s->n, &o, NULL), 0);
	write_txn(s, 0);
	assert_int_equal(pthread_create(&thread[0], NULL, read_all, s), 0);
	assert_int_equal(pthread_create(&thread[1], NULL, read_all, s), 0);
	assert_int_equal(pthread_create(&thread[2], NULL, read_all, s), 0);
	assert_int_equal(pthread_create(&thread[3], NULL, checkpoint_all, s), 0);
	assert_int_equal(pthread_create(&thread[4], NULL, write_all, s), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(s->bad, 0);
	assert_true(s->reads > 0);
	assert_int_equal(sop_tree_check(s->n, &s->tree, SOP_LSN_LATEST, NULL, NULL, NULL), 0);
	sop_nodes_free(s->n);
	sop_pins_free(s->pins);
	for (uint64_t b = 0; b < s->blobs; b++)
		free(s->blob[b]);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_see_whole_transactions_while_all_else_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
