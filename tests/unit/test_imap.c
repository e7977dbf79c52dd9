/* The map of intervals: compared with an array that holds what each byte is. The module is included
 * here, so that its allocations can be counted and refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static long memory = -1; /* allocations that still succeed, then all fail; -1: all do */

static bool refused(void)
{
	if (!memory)
		return true;
	memory -= memory > 0;
	return false;
}

static void *test_alloc(void *p, size_t n)
{
	return refused() ? NULL : realloc(p, n);
}

static void *test_zalloc(size_t n, size_t size)
{
	return refused() ? NULL : calloc(n, size);
}

#include "core/base.h"
#define malloc(n)	test_alloc(NULL, n)
#define realloc(p, n)	test_alloc(p, n)
#define calloc(n, size) test_zalloc(n, size)
#include "core/imap.c"
#undef malloc
#undef realloc
#undef calloc

#define SPACE 4096
#define BLOBS 20000

static uint64_t next_random(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static size_t below(uint64_t *s, size_t n)
{
	return (size_t)(next_random(s) % n);
}

enum what { NOTHING, ZERO, MEM, BLOB, SHARED };

struct byte {
	enum what what;
	uint8_t value;	   /* MEM */
	uint32_t blob, at; /* BLOB, SHARED: which, and which of its bytes */
};

struct model {
	struct byte byte[SPACE];
	uint32_t blobs;
	uint32_t left[BLOBS]; /* bytes of each blob that the map should still refer to */
	bool dropped[BLOBS];  /* told by the map */
	unsigned drops;
};

static void count_drop(void *arg, const struct sop_blobref *ref)
{
	struct model *m = arg;

	assert_true(ref->nonce < m->blobs);
	assert_false(m->dropped[ref->nonce]);
	m->dropped[ref->nonce] = true;
	m->drops++;
}

static struct sop_blobref blob_of(uint32_t n, uint32_t len)
{
	return (struct sop_blobref){.segment = 1, .off = n * 8, .len = len, .nonce = n};
}

static void model_set(
	struct model *m, uint64_t off, uint64_t len, struct byte b, const uint8_t *data)
{
	for (uint64_t i = off; i < off + len; i++) {
		if (m->byte[i].what == BLOB)
			m->left[m->byte[i].blob]--;
		m->byte[i] = b;
		if (data)
			m->byte[i].value = data[i - off];
		if (b.what == BLOB) {
			m->byte[i].at = b.at + (uint32_t)(i - off);
			m->left[b.blob]++;
		} else if (b.what == SHARED) {
			m->byte[i].at = b.at + (uint32_t)(i - off);
		}
	}
}

static void check_entry(const struct model *m, const struct sop_imap_entry *x)
{
	for (uint64_t i = 0; i < x->len; i++) {
		const struct byte *b = &m->byte[x->off + i];

		switch (x->kind) {
		case SOP_IMAP_MEM:
			assert_int_equal(b->what, MEM);
			assert_int_equal(b->value, x->mem[i]);
			break;
		case SOP_IMAP_BLOB:
		case SOP_IMAP_SHARED:
			assert_int_equal(b->what, x->kind == SOP_IMAP_BLOB ? BLOB : SHARED);
			assert_int_equal(b->blob, x->ref.nonce);
			assert_int_equal(b->at, x->blob_off + i);
			break;
		case SOP_IMAP_ZERO:
			assert_int_equal(b->what, ZERO);
			break;
		}
	}
}

/* All intervals, in order, are what the model has, and between them is nothing. */
static void check(const struct sop_imap *map, const struct model *m)
{
	size_t count = 0, mem = 0;
	uint64_t at = 0;

	for (const struct sop_imap_entry *x = sop_imap_at(map, 0); x; x = sop_imap_next(map, x)) {
		assert_true(x->off >= at && x->len > 0 && x->off + x->len <= SPACE);
		for (; at < x->off; at++)
			assert_int_equal(m->byte[at].what, NOTHING);
		check_entry(m, x);
		at = x->off + x->len;
		count++;
		mem += x->kind == SOP_IMAP_MEM ? x->len : 0;
	}
	assert_int_equal(sop_imap_end(map), at);
	for (; at < SPACE; at++)
		assert_int_equal(m->byte[at].what, NOTHING);
	assert_int_equal(map->count, count);
	assert_true(map->mem_bytes >= mem);
	assert_true(mem || !map->mem_bytes);
	for (uint32_t i = 0; i < m->blobs; i++)
		assert_int_equal(m->dropped[i], m->left[i] == 0);
}

/* A run of memory that has been written out. */
static void store_one(struct sop_imap *map, struct model *m, uint64_t off)
{
	struct sop_imap_entry *x = sop_imap_at(map, off);
	struct sop_blobref ref;

	while (x && x->kind != SOP_IMAP_MEM)
		x = sop_imap_next(map, x);
	if (!x || m->blobs == BLOBS)
		return;
	ref = blob_of(m->blobs++, (uint32_t)x->len);
	model_set(m, x->off, x->len, (struct byte){.what = BLOB, .blob = ref.nonce}, NULL);
	sop_imap_stored(map, x, &ref);
}

static void random_change(struct sop_imap *map, struct model *m, uint64_t *s)
{
	uint8_t data[SPACE];
	uint64_t off = below(s, SPACE), len = 1 + below(s, below(s, 8) ? 40 : 1500);
	struct sop_blobref ref;
	uint32_t blob_off;

	len = SOP_MIN(len, SPACE - off);
	switch (below(s, 13)) {
	case 12: /* never told of */
		blob_off = (uint32_t)below(s, 100);
		ref = blob_of((uint32_t)below(s, BLOBS), (uint32_t)len + 100);
		model_set(m, off, len,
			(struct byte){.what = SHARED, .blob = ref.nonce, .at = blob_off}, NULL);
		assert_int_equal(sop_imap_set_shared(map, off, (uint32_t)len, &ref, blob_off), 0);
		break;
	case 0:
		model_set(m, off, len, (struct byte){.what = ZERO}, NULL);
		assert_int_equal(sop_imap_set_zero(map, off, len), 0);
		break;
	case 1:
		model_set(m, off, len, (struct byte){.what = NOTHING}, NULL);
		assert_int_equal(sop_imap_remove(map, off, len), 0);
		break;
	case 2:
	case 3:
		assert_true(m->blobs < BLOBS);
		blob_off = (uint32_t)below(s, 100);
		ref = blob_of(m->blobs++, (uint32_t)len + 100);
		model_set(m, off, len,
			(struct byte){.what = BLOB, .blob = ref.nonce, .at = blob_off}, NULL);
		assert_int_equal(sop_imap_set_blob(map, off, (uint32_t)len, &ref, blob_off), 0);
		break;
	case 4:
		store_one(map, m, off);
		break;
	case 5: /* cut off the end, as truncate does */
		if (below(s, 4) || off >= sop_imap_end(map))
			break;
		model_set(m, off, SPACE - off, (struct byte){.what = NOTHING}, NULL);
		assert_int_equal(sop_imap_remove(map, off, sop_imap_end(map) - off), 0);
		break;
	default:
		for (uint64_t i = 0; i < len; i++)
			data[i] = (uint8_t)next_random(s);
		model_set(m, off, len, (struct byte){.what = MEM}, data);
		assert_int_equal(sop_imap_write(map, off, data, len), 0);
		break;
	}
}

static void random_changes_are_the_same_in_map_and_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct model *m = calloc(1, sizeof(*m));
		struct sop_imap map;
		uint64_t s = seed;

		assert_non_null(m);
		print_message("seed %lu\n", seed);
		sop_imap_init(&map, count_drop, m);
		for (unsigned i = 0; i < 2000; i++) {
			random_change(&map, m, &s);
			if (i % 16 == 0 || i < 200)
				check(&map, m);
		}
		check(&map, m);
		for (unsigned i = 0; i < 200; i++) {
			uint64_t off = below(&s, SPACE);
			const struct sop_imap_entry *x = sop_imap_at(&map, off);

			if (m->byte[off].what != NOTHING)
				assert_true(x && x->off <= off);
			else
				assert_true(!x || x->off > off);
			assert_true(!x || x->off + x->len > off);
		}
		sop_imap_release(&map);
		assert_int_equal(map.count, 0);
		assert_int_equal(map.mem_bytes, 0);
		assert_null(sop_imap_at(&map, 0));
		assert_int_equal(m->drops, m->blobs);
		free(m);
	}
}

static void forget_drops_nothing(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct sop_imap map;
	uint64_t s = 77;
	unsigned drops;

	(void)state;
	assert_non_null(m);
	sop_imap_init(&map, count_drop, m);
	for (unsigned i = 0; i < 500; i++)
		random_change(&map, m, &s);
	drops = m->drops;
	sop_imap_forget(&map);
	assert_int_equal(m->drops, drops);
	assert_int_equal(map.count, 0);
	assert_int_equal(map.mem_bytes, 0);
	assert_int_equal(sop_imap_end(&map), 0);
	/* And it can be used again. */
	assert_int_equal(sop_imap_write(&map, 5, "abc", 3), 0);
	assert_int_equal(sop_imap_end(&map), 8);
	sop_imap_release(&map);
	free(m);
}

static void a_blob_cut_in_the_middle_is_dropped_with_its_last_piece(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct sop_blobref ref = blob_of(0, 100);
	struct sop_imap_entry *x;
	struct sop_imap map;

	(void)state;
	assert_non_null(m);
	m->blobs = 1;
	sop_imap_init(&map, count_drop, m);
	assert_int_equal(sop_imap_set_blob(&map, 1000, 100, &ref, 0), 0);
	assert_int_equal(sop_imap_write(&map, 1040, "0123456789", 10), 0);
	assert_int_equal(map.count, 3);
	x = sop_imap_at(&map, 1050);
	assert_int_equal(x->off, 1050);
	assert_int_equal(x->blob_off, 50);
	assert_int_equal(sop_imap_remove(&map, 0, 1045), 0);
	assert_int_equal(m->drops, 0);
	assert_int_equal(sop_imap_set_zero(&map, 1045, 1000), 0);
	assert_int_equal(m->drops, 1);
	sop_imap_release(&map);
	assert_int_equal(m->drops, 1);
	free(m);
}

static void sequential_writes_make_buffers_of_the_largest_size(void **state)
{
	const size_t total = 3 * SOP_IMAP_MEM_MAX + 5000;
	uint8_t *want = malloc(total);
	struct sop_imap map;
	size_t at = 0;
	uint64_t s = 4;

	(void)state;
	assert_non_null(want);
	for (size_t i = 0; i < total; i++)
		want[i] = (uint8_t)next_random(&s);
	sop_imap_init(&map, NULL, NULL);
	while (at < total) {
		size_t n = SOP_MIN(1 + below(&s, 3000), total - at);

		assert_int_equal(sop_imap_write(&map, 100 + at, want + at, n), 0);
		at += n;
	}
	assert_int_equal(map.count, 4);
	at = 0;
	for (const struct sop_imap_entry *x = sop_imap_at(&map, 0); x; x = sop_imap_next(&map, x)) {
		assert_int_equal(x->off, 100 + at);
		assert_true(x->len == SOP_IMAP_MEM_MAX || at + x->len == total);
		assert_memory_equal(x->mem, want + at, x->len);
		at += x->len;
	}
	assert_int_equal(at, total);
	sop_imap_release(&map);

	/* One long write, then a hole filled between two short ones. */
	assert_int_equal(sop_imap_write(&map, 0, want, total), 0);
	assert_int_equal(map.count, 4);
	assert_int_equal(sop_imap_remove(&map, 0, total), 0);
	assert_int_equal(map.count, 0);
	assert_int_equal(sop_imap_write(&map, 0, want, 10), 0);
	assert_int_equal(sop_imap_write(&map, 20, want + 20, 10), 0);
	assert_int_equal(map.count, 2);
	assert_int_equal(sop_imap_write(&map, 10, want + 10, 10), 0);
	assert_int_equal(map.count, 1);
	assert_memory_equal(sop_imap_at(&map, 0)->mem, want, 30);
	sop_imap_release(&map);
	free(want);
}

static void what_is_cut_away_gives_its_memory_back(void **state)
{
	uint8_t *data = calloc(1, SOP_IMAP_MEM_MAX);
	struct sop_imap map;

	(void)state;
	assert_non_null(data);
	sop_imap_init(&map, NULL, NULL);
	for (uint64_t i = 0; i < 20; i++) {
		assert_int_equal(
			sop_imap_write(&map, 2 * i * SOP_IMAP_MEM_MAX, data, SOP_IMAP_MEM_MAX), 0);
		assert_int_equal(
			sop_imap_remove(&map, 2 * i * SOP_IMAP_MEM_MAX + 1, SOP_IMAP_MEM_MAX), 0);
		/* Small writes far from each other do not take a page each. */
		assert_int_equal(sop_imap_write(&map, (2 * i + 1) * SOP_IMAP_MEM_MAX, data, 1), 0);
	}
	assert_int_equal(map.count, 40);
	assert_true(map.mem_bytes < 20 * 8192);
	sop_imap_release(&map);
	free(data);
}

static void positions_near_the_end_of_all_files_work(void **state)
{
	const uint64_t far = INT64_MAX;
	struct sop_blobref ref = blob_of(1, 50);
	struct sop_imap map;

	(void)state;
	sop_imap_init(&map, NULL, NULL);
	assert_int_equal(sop_imap_set_zero(&map, 0, far), 0);
	assert_int_equal(sop_imap_write(&map, far - 3, "abc", 3), 0);
	assert_int_equal(sop_imap_set_blob(&map, far - 100, 50, &ref, 0), 0);
	assert_int_equal(map.count, 4);
	assert_int_equal(sop_imap_end(&map), far);
	assert_int_equal(sop_imap_at(&map, far - 1)->kind, SOP_IMAP_MEM);
	assert_null(sop_imap_at(&map, far));
	assert_int_equal(sop_imap_remove(&map, 5, far - 5), 0);
	assert_int_equal(sop_imap_end(&map), 5);
	assert_int_equal(sop_imap_write(&map, 3, "", 0), 0);
	assert_int_equal(sop_imap_set_zero(&map, 2, 0), 0);
	assert_int_equal(map.count, 1);
	sop_imap_release(&map);
}

/* Rising, falling and random order alike: a tree that loses its balance would take minutes. */
static void many_intervals_stay_cheap_in_any_order(void **state)
{
	const uint64_t n = 300000;
	struct sop_imap map;
	uint64_t s = 9;

	(void)state;
	for (unsigned order = 0; order < 3; order++) {
		sop_imap_init(&map, NULL, NULL);
		for (uint64_t i = 0; i < n; i++) {
			uint64_t k = order == 0 ? i : order == 1 ? n - i : below(&s, n);
			struct sop_blobref ref = blob_of((uint32_t)i, 4096);

			assert_int_equal(sop_imap_set_blob(&map, k * 8192, 4096, &ref, 0), 0);
		}
		assert_true(map.count > n / 2);
		for (uint64_t i = 0; i < n; i++) {
			const struct sop_imap_entry *x =
				sop_imap_at(&map, below(&s, n) * 8192 + 8191);

			assert_true(!x || x->kind == SOP_IMAP_BLOB);
		}
		sop_imap_release(&map);
	}
}

/* ---- without memory ---- */

static int change_anyhow(struct sop_imap *map, uint64_t off, uint64_t len, unsigned how)
{
	static const uint8_t data[SPACE];
	struct sop_blobref ref = blob_of(BLOBS - 1, (uint32_t)len);

	switch (how) {
	case 0:
		return sop_imap_write(map, off, data, len);
	case 1:
		return sop_imap_set_zero(map, off, len);
	case 2:
		return sop_imap_set_blob(map, off, (uint32_t)len, &ref, 0);
	case 3:
		return sop_imap_set_shared(map, off, (uint32_t)len, &ref, 0);
	default:
		return sop_imap_remove(map, off, len);
	}
}

static void a_change_without_memory_leaves_the_map_as_it_was(void **state)
{
	unsigned failures = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct model *m = calloc(1, sizeof(*m));
		uint64_t s = seed, off, len;
		struct sop_imap map;
		int rc;

		assert_non_null(m);
		sop_imap_init(&map, count_drop, m);
		for (unsigned i = 0; i < 60; i++)
			random_change(&map, m, &s);
		off = below(&s, SPACE);
		len = SOP_MIN(1 + below(&s, 400), SPACE - off);
		for (long n = 0;; n++) {
			memory = n;
			rc = change_anyhow(&map, off, len, (unsigned)(seed % 5));
			memory = -1;
			if (!rc)
				break;
			assert_int_equal(rc, -ENOMEM);
			check(&map, m);
			failures++;
		}
		sop_imap_forget(&map);
		free(m);
	}
	assert_true(failures > 200);
}

static void what_is_cut_off_the_end_takes_no_memory(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct model *m = calloc(1, sizeof(*m));
		struct sop_imap map;
		uint64_t s = seed, off;

		assert_non_null(m);
		sop_imap_init(&map, count_drop, m);
		for (unsigned i = 0; i < 60; i++)
			random_change(&map, m, &s);
		off = below(&s, SPACE);
		model_set(m, off, SPACE - off, (struct byte){.what = NOTHING}, NULL);
		memory = 0;
		if (seed % 2)
			sop_imap_cut(&map, off);
		else
			assert_int_equal(sop_imap_remove(&map, off, SPACE - off), 0);
		memory = -1;
		check(&map, m);
		sop_imap_release(&map);
		assert_int_equal(m->drops, m->blobs);
		free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_are_the_same_in_map_and_model),
		cmocka_unit_test(forget_drops_nothing),
		cmocka_unit_test(a_blob_cut_in_the_middle_is_dropped_with_its_last_piece),
		cmocka_unit_test(sequential_writes_make_buffers_of_the_largest_size),
		cmocka_unit_test(what_is_cut_away_gives_its_memory_back),
		cmocka_unit_test(a_change_without_memory_leaves_the_map_as_it_was),
		cmocka_unit_test(what_is_cut_off_the_end_takes_no_memory),
		cmocka_unit_test(positions_near_the_end_of_all_files_work),
		cmocka_unit_test(many_intervals_stay_cheap_in_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
