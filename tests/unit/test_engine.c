/* The engine's public face, end to end, on simulated disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/lib/fixture.h"

static int setup(void **state)
{
	return fixture_setup(state, 2, 2);
}

static void an_item_is_read_back_after_reopening(void **state)
{
	struct fixture *f = *state;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "a/b", &store));
	fixture_ok(f, fixture_upsert(f, store, "1", "foo", 3, true));
	assert_int_equal(fixture_has(f, store, "1", "foo", 3), 1);
	fixture_reopen(f);
	assert_int_equal(fixture_has(f, store, "1", "foo", 3), 1);
	assert_int_equal(fixture_has(f, store, "2", "foo", 3), 0);
	fixture_check(f, true);
}

static void values_of_all_sizes_survive_and_go(void **state)
{
	static const size_t sizes[] = {0, 1, 2047, 2048, 2049, 4096, 65535, 65536, 65537, 262144,
		(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5000000, 40 << 20};
	struct fixture *f = *state;
	uint8_t *buf = malloc(40 << 20);
	uint64_t store;
	char key[32];

	fixture_ok(f, fixture_store(f, "s", &store));
	for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++) {
		fill_random(buf, sizes[i], i);
		snprintf(key, sizeof(key), "k%zu", i);
		fixture_ok(f, fixture_upsert(f, store, key, buf, sizes[i], false));
	}
	fixture_reopen(f);
	for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++) {
		fill_random(buf, sizes[i], i);
		snprintf(key, sizeof(key), "k%zu", i);
		assert_int_equal(fixture_has(f, store, key, buf, sizes[i]), 1);
	}
	fixture_check(f, true);
	for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++) {
		snprintf(key, sizeof(key), "k%zu", i);
		fixture_ok(f, fixture_remove(f, store, key));
	}
	fixture_check(f, true);
	fixture_reopen(f);
	fixture_check(f, true);
	{
		struct sop_volume_stat s;

		sop_volume_stat(f->v, &s);
		assert_int_equal(s.items, 1); /* the store itself */
		assert_true(s.live_bytes < 1 << 20);
	}
	free(buf);
}

static void an_uncommitted_transaction_is_seen_by_itself_alone(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	struct sop_attr a;
	uint64_t store, n;
	void *v;
	size_t len;

	fixture_ok(f, fixture_store(f, "s", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_add(t, SOP_NAME(store, "x"), "1", 1, &f->e));
	assert_int_equal(sop_add(t, SOP_NAME(store, "x"), "1", 1, &f->e), -EEXIST);
	fixture_ok(f, sop_get(t, SOP_NAME(store, "x"), &v, &len, &f->e));
	free(v);
	fixture_ok(f, sop_count(t, store, &n, &f->e));
	assert_int_equal(n, 1);
	assert_int_equal(
		sop_lookup(sop_volume_latest(f->v), SOP_NAME(store, "x"), &a, &f->e), -ENOENT);
	sop_txn_rollback(t);
	assert_int_equal(fixture_has(f, store, "x", "1", 1), 0);
	fixture_check(f, true);
}

static void the_first_of_two_updates_wins(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *a, *b;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0", 1, false));
	a = fixture_begin(f, SOP_TXN_WRITE);
	b = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_update(a, SOP_NAME(store, "x"), "a", 1, &f->e));
	fixture_ok(f, sop_update(b, SOP_NAME(store, "x"), "b", 1, &f->e));
	fixture_ok(f, sop_txn_commit(a, 0, &f->e));
	assert_int_equal(sop_txn_commit(b, 0, &f->e), SOP_ECONFLICT);
	assert_int_equal(fixture_has(f, store, "x", "a", 1), 1);
	fixture_check(f, true);
}

static void updates_of_different_items_both_succeed(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *a, *b;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0", 1, false));
	fixture_ok(f, fixture_upsert(f, store, "y", "0", 1, false));
	a = fixture_begin(f, SOP_TXN_WRITE);
	b = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_update(a, SOP_NAME(store, "x"), "a", 1, &f->e));
	fixture_ok(f, sop_update(b, SOP_NAME(store, "y"), "b", 1, &f->e));
	fixture_ok(f, sop_txn_commit(a, 0, &f->e));
	fixture_ok(f, sop_txn_commit(b, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "a", 1), 1);
	assert_int_equal(fixture_has(f, store, "y", "b", 1), 1);
}

static int count_items(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	(void)key;
	(void)klen;
	(void)attr;
	++*(unsigned *)arg;
	return 0;
}

static void a_reader_of_a_range_fails_when_a_phantom_came(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *r;
	uint64_t store;
	unsigned n = 0;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "b", "0", 1, false));
	r = fixture_begin(f, SOP_TXN_READ);
	fixture_ok(
		f, sop_scan(r, store,
			   &(struct sop_range){.from = "a", .from_len = 1, .to = "c", .to_len = 1},
			   false, count_items, &n, &f->e));
	assert_int_equal(n, 1);
	fixture_ok(f, fixture_upsert(f, store, "bb", "0", 1, false));
	n = 0;
	/* The snapshot stays what it was. */
	fixture_ok(f, sop_scan(r, store, NULL, false, count_items, &n, &f->e));
	assert_int_equal(n, 1);
	assert_int_equal(sop_txn_commit(r, 0, &f->e), SOP_ECONFLICT);

	r = fixture_begin(f, SOP_TXN_READ);
	n = 0;
	fixture_ok(
		f, sop_scan(r, store,
			   &(struct sop_range){.from = "a", .from_len = 1, .to = "c", .to_len = 1},
			   false, count_items, &n, &f->e));
	fixture_ok(f, fixture_upsert(f, store, "zz", "0", 1, false));
	fixture_ok(f, sop_txn_commit(r, 0, &f->e));
}

static void a_value_keeps_the_version_it_opened(void **state)
{
	static const size_t sizes[] = {1, 4096, (1 << 20) + 1, 40 << 20};
	struct fixture *f = *state;
	uint8_t *old = malloc(40 << 20), *now = malloc(40 << 20), *got = malloc(40 << 20);
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++) {
		struct sop_value *x;

		fill_random(old, sizes[i], 1);
		fill_random(now, sizes[i], 2);
		fixture_ok(f, fixture_upsert(f, store, "x", old, sizes[i], false));
		fixture_ok(f, sop_value_open(
				      &x, sop_volume_latest(f->v), SOP_NAME(store, "x"), 0, &f->e));
		for (unsigned round = 0; round < 3; round++) {
			fixture_ok(f,
				fixture_upsert(f, store, "x", now, sizes[i] / (round + 1), false));
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
			fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
			memset(got, 0, sizes[i]);
			assert_int_equal(sop_value_read(x, got, sizes[i], 0, &f->e), sizes[i]);
			assert_memory_equal(got, old, sizes[i]);
		}
		fixture_ok(f, fixture_remove(f, store, "x"));
		fixture_ok(f, sop_volume_tick(f->v, &f->e));
		assert_int_equal(sop_value_read(x, got, sizes[i], 0, &f->e), sizes[i]);
		assert_memory_equal(got, old, sizes[i]);
		sop_value_close(x);
		fixture_check(f, true);
	}
	free(old);
	free(now);
	free(got);
}

static void blind_writes_and_appends_never_conflict(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *a, *b;
	struct sop_value *x, *y;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0123456789", 10, false));
	a = fixture_begin(f, SOP_TXN_SESSION);
	b = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, a, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	fixture_ok(f, sop_value_open(&y, b, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_value_write(x, "AB", 2, 1, &f->e), 2);
	assert_int_equal(sop_value_write(y, "CD", 2, 6, &f->e), 2);
	fixture_ok(f, sop_txn_commit(a, 0, &f->e));
	fixture_ok(f, sop_txn_commit(b, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "0AB345CD89", 10), 1);

	a = fixture_begin(f, SOP_TXN_SESSION);
	b = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, a, SOP_NAME(store, "x"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	fixture_ok(f, sop_value_open(&y, b, SOP_NAME(store, "x"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	assert_int_equal(sop_value_write(x, "one", 3, 0, &f->e), 3);
	assert_int_equal(sop_value_write(y, "two", 3, 0, &f->e), 3);
	fixture_ok(f, sop_txn_commit(b, 0, &f->e));
	fixture_ok(f, sop_txn_commit(a, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "0AB345CD89twoone", 16), 1);

	/* One that read does conflict. */
	a = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, a, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	{
		char c;

		assert_int_equal(sop_value_read(x, &c, 1, 0, &f->e), 1);
	}
	assert_int_equal(sop_value_write(x, "Z", 1, 0, &f->e), 1);
	fixture_ok(f, fixture_upsert(f, store, "x", "new", 3, false));
	assert_int_equal(sop_txn_commit(a, 0, &f->e), SOP_ECONFLICT);
	assert_int_equal(fixture_has(f, store, "x", "new", 3), 1);
	fixture_check(f, true);
}

static void prepared_transactions_hold_their_items(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *p;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0", 1, false));
	p = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_update(p, SOP_NAME(store, "x"), "p", 1, &f->e));
	fixture_ok(f, sop_txn_prepare(p, &f->e));
	assert_int_equal(fixture_upsert(f, store, "x", "1", 1, false), SOP_ECONFLICT);
	fixture_ok(f, fixture_upsert(f, store, "y", "1", 1, false));
	fixture_ok(f, sop_txn_commit(p, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "p", 1), 1);
	p = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_update(p, SOP_NAME(store, "x"), "q", 1, &f->e));
	fixture_ok(f, sop_txn_prepare(p, &f->e));
	sop_txn_rollback(p);
	fixture_ok(f, fixture_upsert(f, store, "x", "1", 1, false));
	assert_int_equal(fixture_has(f, store, "x", "1", 1), 1);
}

static void names_links_and_renames(void **state)
{
	struct fixture *f = *state;
	struct sop_attr init = {.mode = S_IFREG | 0640}, a;
	uint64_t d, sub, n;
	struct sop_txn *t;

	fixture_ok(f, fixture_store(f, "d", &d));
	fixture_ok(f, fixture_store(f, "d/sub", &sub));
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_create(t, SOP_NAME(d, "f"), &init, "hello", 5, &a, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_link(t, SOP_NAME(d, "f"), SOP_NAME(sub, "g"), &a, &f->e));
	assert_int_equal(a.nlink, 2);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_check(f, true);
	assert_int_equal(fixture_has(f, d, "f", "hello", 5), 1);
	assert_int_equal(fixture_has(f, sub, "g", "hello", 5), 1);
	fixture_ok(f, fixture_upsert(f, sub, "g", "changed", 7, false));
	assert_int_equal(fixture_has(f, d, "f", "changed", 7), 1);
	fixture_ok(f, fixture_remove(f, d, "f"));
	fixture_ok(f, sop_lookup(sop_volume_latest(f->v), SOP_NAME(sub, "g"), &a, &f->e));
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.mode, S_IFREG | 0640);
	/* A directory cannot go below itself; a full one is not replaced. */
	t = fixture_begin(f, SOP_TXN_SESSION);
	assert_int_equal(
		sop_rename(t, SOP_NAME(SOP_ROOT, "d"), SOP_NAME(sub, "x"), 0, &f->e), -EINVAL);
	assert_int_equal(sop_store_remove(t, SOP_NAME(d, "sub"), &f->e), -ENOTEMPTY);
	fixture_ok(f, sop_rename(t, SOP_NAME(sub, "g"), SOP_NAME(SOP_ROOT, "top"), 0, &f->e));
	fixture_ok(f, sop_store_remove(t, SOP_NAME(d, "sub"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, SOP_ROOT, "top", "changed", 7), 1);
	fixture_ok(f, sop_count(sop_volume_latest(f->v), d, &n, &f->e));
	assert_int_equal(n, 0);
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_create(t, SOP_NAME(d, "other"), &init, "o", 1, &a, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_rename(t, SOP_NAME(SOP_ROOT, "top"), SOP_NAME(d, "other"),
			      SOP_RENAME_EXCHANGE, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, d, "other", "changed", 7), 1);
	assert_int_equal(fixture_has(f, SOP_ROOT, "top", "o", 1), 1);
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_rename(t, SOP_NAME(d, "other"), SOP_NAME(SOP_ROOT, "top"), 0, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, SOP_ROOT, "top", "changed", 7), 1);
	fixture_check(f, true);
	fixture_reopen(f);
	assert_int_equal(fixture_has(f, SOP_ROOT, "top", "changed", 7), 1);
	fixture_check(f, true);
}

static void extended_attributes_small_and_large(void **state)
{
	struct fixture *f = *state;
	uint8_t *big = malloc(60000), *got = malloc(60000);
	struct sop_txn *t;
	uint64_t store;
	char list[64];

	fill_random(big, 60000, 5);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0", 1, false));
	for (unsigned i = 0; i < 2; i++) {
		t = fixture_begin(f, SOP_TXN_SESSION);
		fixture_ok(f, sop_xattr_set(t, SOP_NAME(store, "x"), "user.a", "1", 1, 0, &f->e));
		fixture_ok(f,
			sop_xattr_set(t, SOP_NAME(store, "x"), "user.big", big, 60000, 0, &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	}
	fixture_reopen(f);
	assert_int_equal(sop_xattr_get(sop_volume_latest(f->v), SOP_NAME(store, "x"), "user.big",
				 got, 60000, &f->e),
		60000);
	assert_memory_equal(got, big, 60000);
	assert_int_equal(sop_xattr_list(sop_volume_latest(f->v), SOP_NAME(store, "x"), list,
				 sizeof(list), &f->e),
		16);
	fixture_check(f, true);
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_xattr_remove(t, SOP_NAME(store, "x"), "user.big", &f->e));
	assert_int_equal(sop_xattr_remove(t, SOP_NAME(store, "x"), "user.none", &f->e), -ENODATA);
	assert_int_equal(
		sop_xattr_set(t, SOP_NAME(store, "x"), "user.a", "2", 1, SOP_XATTR_CREATE, &f->e),
		-EEXIST);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "0", 1), 1);
	fixture_check(f, true);
	free(big);
	free(got);
}

static void cursors_go_both_ways_and_see_own_writes(void **state)
{
	struct fixture *f = *state;
	struct sop_cursor *c;
	struct sop_txn *t;
	uint64_t store;
	char key[16];
	size_t len;
	unsigned n = 0;

	fixture_ok(f, fixture_store(f, "s", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < 1000; i += 2) {
		snprintf(key, sizeof(key), "%04u", i);
		fixture_ok(f, sop_add(t, SOP_NAME(store, key), key, 4, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 1; i < 1000; i += 2) {
		snprintf(key, sizeof(key), "%04u", i);
		fixture_ok(f, sop_add(t, SOP_NAME(store, key), key, 4, &f->e));
	}
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "0500"), &f->e));
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	for (int rc = sop_cursor_first(c, &f->e); rc == 1; rc = sop_cursor_next(c, &f->e), n++) {
		if (n == 500)
			n++;
		snprintf(key, sizeof(key), "%04u", n);
		assert_memory_equal(sop_cursor_key(c, &len), key, 4);
	}
	assert_int_equal(n, 1000);
	for (int rc = sop_cursor_last(c, &f->e); rc == 1; rc = sop_cursor_prev(c, &f->e)) {
		n--;
		if (n == 500)
			n--;
		snprintf(key, sizeof(key), "%04u", n);
		assert_memory_equal(sop_cursor_key(c, &len), key, 4);
	}
	assert_int_equal(n, 0);
	sop_cursor_close(c);
	n = 0;
	assert_int_equal(sop_page_items(t, store, 990, 20, false, count_items, &n, &f->e), 9);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_check(f, true);
}

struct first_key {
	char key[8];
	unsigned n;
};

static int note_first(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	struct first_key *x = arg;

	(void)attr;
	if (!x->n++)
		snprintf(x->key, sizeof(x->key), "%.*s", (int)klen, (const char *)key);
	return 0;
}

static void assert_page(struct fixture *f, struct sop_txn *t, uint64_t store, uint64_t offset,
	bool descending, const char *first)
{
	struct first_key x = {.n = 0};

	assert_int_equal(sop_page_items(t, store, offset, 5, descending, note_first, &x, &f->e), 5);
	assert_int_equal(x.n, 5);
	assert_string_equal(x.key, first);
}

static void pages_depend_on_what_they_skip_and_not_on_what_follows(void **state)
{
	struct fixture *f = *state;
	uint64_t store, other;
	struct sop_txn *t;
	char key[8];

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_store(f, "o", &other));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(key, sizeof(key), "%04u", i);
		fixture_ok(f, sop_add(t, SOP_NAME(store, key), "x", 1, &f->e));
	}
	assert_page(f, t, store, 1500, false, "1500"); /* its own, none of them in the tree */
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	/* Something behind the page goes, then something before it. */
	for (unsigned i = 0; i < 2; i++) {
		t = fixture_begin(f, SOP_TXN_WRITE);
		assert_page(f, t, store, 1500, false, "1500");
		fixture_ok(f, sop_add(t, SOP_NAME(other, i ? "1" : "0"), "x", 1, &f->e));
		fixture_ok(f, fixture_remove(f, store, i ? "0003" : "1505"));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), i ? SOP_ECONFLICT : 0);
	}
	/* 1,998 are left. Own writes before the page move it. */
	t = fixture_begin(f, SOP_TXN_WRITE);
	assert_page(f, t, store, 1500, false, "1501");
	assert_page(f, t, store, 3, true, "1996");
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "0000"), &f->e));
	assert_page(f, t, store, 1500, false, "1502");
	fixture_ok(f, sop_add(t, SOP_NAME(store, "0000a"), "x", 1, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(store, "1999a"), "x", 1, &f->e));
	assert_page(f, t, store, 1500, false, "1501");
	assert_page(f, t, store, 3, true, "1997");
	assert_int_equal(sop_page_items(t, store, 1999, 5, false, note_first,
				 &(struct first_key){.n = 0}, &f->e),
		0);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(sop_page_items(sop_volume_latest(f->v), store, 1998, 5, true, note_first,
				 &(struct first_key){.n = 0}, &f->e),
		1);
	fixture_check(f, true);
}

/* A value against an array, by random writes, truncations, holes, appends, sessions, reopenings. */
static void a_value_is_what_an_array_would_be(void **state)
{
	enum { SIZE = 3 << 20 };
	struct fixture *f = *state;
	uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE), *got = malloc(SIZE);
	uint64_t store, size = 0, seed = 20261123;

	print_message("seed %llu\n", (unsigned long long)seed);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "", 0, false));
	for (unsigned round = 0; round < 400; round++) {
		bool append = next_random(&seed) % 4 == 0, lost = next_random(&seed) % 6 == 0;
		struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
		uint8_t *saved = NULL;
		uint64_t saved_size = size;
		struct sop_value *x;

		if (lost) {
			saved = malloc(SIZE);
			memcpy(saved, model, SIZE);
		}
		fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"),
				      SOP_VALUE_WRITE | (append ? SOP_VALUE_APPEND : 0), &f->e));
		for (unsigned op = (unsigned)(next_random(&seed) % 12); op-- > 0;) {
			static const uint64_t scale[] = {16, 3000, 70000, 600000};
			uint64_t len = next_random(&seed) % scale[next_random(&seed) % 4] + 1;
			uint64_t off = append ? size : next_random(&seed) % (SIZE / 2);

			switch (append ? 0 : next_random(&seed) % 5) {
			case 0:
			case 1:
			case 2:
				if (off + len > SIZE)
					break;
				fill_random(buf, len, seed);
				assert_int_equal(sop_value_write(x, buf, len, off, &f->e), len);
				memcpy(model + off, buf, len);
				size = SOP_MAX(size, off + len);
				break;
			case 3:
				fixture_ok(f, sop_value_truncate(x, off, &f->e));
				if (off < size)
					memset(model + off, 0, size - off);
				size = off;
				break;
			case 4:
				fixture_ok(f, sop_value_punch(x, off, len, &f->e));
				if (off < size)
					memset(model + off, 0, SOP_MIN(len, size - off));
				break;
			}
			if (next_random(&seed) % 3 == 0) {
				memset(got, 1, SIZE);
				assert_int_equal(sop_value_read(x, got, SIZE, 0, &f->e), size);
				assert_memory_equal(got, model, size);
			}
		}
		if (lost) {
			sop_txn_rollback(t);
			memcpy(model, saved, SIZE);
			size = saved_size;
			free(saved);
		} else {
			fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		}
		assert_int_equal(fixture_has(f, store, "x", model, size), 1);
		if (next_random(&seed) % 8 == 0)
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
		if (next_random(&seed) % 40 == 0)
			fixture_reopen(f);
		if (next_random(&seed) % 20 == 0)
			fixture_check(f, true);
	}
	fixture_check(f, true);
	free(model);
	free(buf);
	free(got);
}

static void add_segment_bytes(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)size;
	if (!strncmp(file, "segments/", 9))
		*(uint64_t *)arg += allocated;
}

static uint64_t segment_bytes(struct fixture *f)
{
	uint64_t bytes = 0;

	sim_each_file(f->sim, "/d1", add_segment_bytes, &bytes);
	return bytes;
}

static void add_shard_size(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)allocated;
	if (!strncmp(file, "segments/", 9))
		*(uint64_t *)arg += size;
}

static uint64_t shard_sizes(struct fixture *f)
{
	uint64_t size = 0;

	sim_each_file(f->sim, "/d1", add_shard_size, &size);
	return size;
}

/* While commits are waited for, places in the files are written ahead, with zeros: cut off when the
 * volume is closed, and garbage after a crash. */
static void places_written_ahead_are_given_back(void **state)
{
	struct fixture *f = *state;
	uint64_t full;
	uint8_t value[5000];
	uint64_t store;
	char key[8];

	fixture_ok(f, fixture_store(f, "s", &store));
	fill_random(value, sizeof(value), 1);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(key, sizeof(key), "%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, value, sizeof(value), true));
	}
	full = shard_sizes(f);
	fixture_ok(f, fixture_close(f));
	assert_true(shard_sizes(f) < full);
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "again", value, sizeof(value), true));
	fixture_ok(f, fixture_upsert(f, store, "more", value, sizeof(value), true));
	fixture_check(f, true);
	sim_power_on(f->sim, SIM_KEEP_CACHED, 1); /* the process dies */
	(void)fixture_close(f);
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_store(f, "s", &store));
	assert_int_equal(fixture_has(f, store, "more", value, sizeof(value)), 1);
	fixture_check(f, true);
}

static void filled_and_emptied_a_hundred_times_nothing_leaks(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_stat s;
	uint64_t store, first = 0, used = 0;
	uint8_t buf[5000];
	char key[16];

	fill_random(buf, sizeof(buf), 3);
	fixture_ok(f, fixture_store(f, "s", &store));
	for (unsigned round = 0; round < 100; round++) {
		struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

		for (unsigned i = 0; i < 100; i++) {
			snprintf(key, sizeof(key), "%u", i);
			fixture_ok(f, sop_add(t, SOP_NAME(store, key), buf, i * 50, &f->e));
		}
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		t = fixture_begin(f, SOP_TXN_WRITE);
		for (unsigned i = 0; i < 100; i++) {
			snprintf(key, sizeof(key), "%u", i);
			fixture_ok(f, sop_remove(t, SOP_NAME(store, key), &f->e));
		}
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		if (round % 10 == 9) {
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
			fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
			sop_volume_stat(f->v, &s);
			if (!first) {
				first = s.live_bytes;
				used = segment_bytes(f);
			}
			assert_true(s.live_bytes <= first + 65536);
			assert_true(segment_bytes(f) <= used + (1 << 20));
		}
	}
	fixture_check(f, true);
}

static void appended_bytes_stay_in_place_when_the_name_changes(void **state)
{
	struct fixture *f = *state;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	for (unsigned how = 0; how < 2; how++) {
		struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
		struct sop_value *x;
		struct sop_attr a;

		fixture_ok(f, fixture_upsert(f, store, "x", "q1", 2, false));
		fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"),
				      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
		assert_int_equal(sop_value_write(x, "2", 1, 0, &f->e), 1);
		if (how)
			fixture_ok(f,
				sop_link(t, SOP_NAME(store, "x"), SOP_NAME(store, "y"), &a, &f->e));
		else
			fixture_ok(f, sop_rename(t, SOP_NAME(store, "x"), SOP_NAME(store, "y"), 0,
					      &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_int_equal(fixture_has(f, store, "y", "q12", 3), 1);
		fixture_ok(f, fixture_remove(f, store, "y"));
		fixture_check(f, true);
	}
}

static uint64_t fake_ms;

static uint64_t fake_monotonic(void *ctx)
{
	(void)ctx;
	return fake_ms;
}

static uint64_t fake_wall(void *ctx)
{
	(void)ctx;
	return fake_ms * 1000000 + 1;
}

static void a_transaction_has_its_longest_time_and_a_session_none(void **state)
{
	struct sop_clock clock = {fake_wall, fake_monotonic, NULL};
	struct fixture *f = *state;
	struct sop_txn *t, *s;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_close(f));
	fake_ms = 1000;
	f->opts.clock = &clock;
	fixture_ok(f, fixture_open(f));
	t = fixture_begin(f, SOP_TXN_WRITE);
	s = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_add(t, SOP_NAME(store, "t"), "1", 1, &f->e));
	fixture_ok(f, sop_add(s, SOP_NAME(store, "s"), "1", 1, &f->e));
	fake_ms += 16 * 60 * 1000;
	assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ETIMEOUT);
	fixture_ok(f, sop_txn_commit(s, 0, &f->e));
	fixture_ok(f, sop_txn_begin(&t, f->v,
			      &(struct sop_txn_opts){.timeout_ms = SOP_TXN_UNBOUNDED}, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(store, "u"), "1", 1, &f->e));
	fake_ms += 61 * 60 * 1000;
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "u", "1", 1), 1);
	assert_int_equal(fixture_has(f, store, "t", "1", 1), 0);
	assert_int_equal(fixture_has(f, store, "s", "1", 1), 1);
	assert_int_equal(
		sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.timeout_ms = 3600001}, &f->e),
		-EINVAL);
	fixture_ok(f, fixture_close(f));
	f->opts.clock = NULL;
	fixture_ok(f, fixture_open(f));
}

/* A file that fills more than one segment goes, its segments with it; then the machine stops before
 * the next checkpoint: the journal still goes through what is gone. */
static void segments_emptied_since_the_checkpoint_do_not_stop_recovery(void **state)
{
	struct fixture *f = *state;
	size_t len = 16 << 20;
	uint8_t *buf = malloc(len);
	uint64_t store;

	fill_random(buf, len, 9);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "keep", "kept", 4, true));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	for (unsigned round = 0; round < 40; round++) /* 640 MiB: a segment holds 512 */
		fixture_ok(f, fixture_upsert(f, store, "big", buf, len, false));
	fixture_ok(f, fixture_remove(f, store, "big"));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	assert_true(segment_bytes(f) < 64 << 20);
	sim_power_on(f->sim, SIM_KEEP_CACHED, 1); /* the process dies */
	sop_volume_close(f->v, NULL);
	fixture_ok(f, fixture_open(f));
	assert_int_equal(fixture_has(f, store, "keep", "kept", 4), 1);
	assert_int_equal(fixture_has(f, store, "big", "", 0), 0);
	fixture_check(f, true);
	free(buf);
}

/* Two of four disks are away while it is written; they come back, and the other two go. */
static void disks_that_were_away_are_healed_before_they_count(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = malloc(3 << 20);
	uint64_t store;
	char key[16];

	fill_random(buf, 3 << 20, 4);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "before", buf, 100000, true));
	f->opts.degraded = true;
	for (unsigned turn = 0; turn < 4; turn++) {
		unsigned away = turn % 2 ? 2 : 0;

		fixture_ok(f, fixture_close(f));
		sim_disk_gone(f->sim, f->path[away], true);
		sim_disk_gone(f->sim, f->path[away + 1], true);
		fixture_ok(f, fixture_open(f));
		assert_int_equal(fixture_has(f, store, "before", buf, 100000), 1);
		for (unsigned i = 0; i < turn; i++) {
			snprintf(key, sizeof(key), "in%u", i);
			assert_int_equal(fixture_has(f, store, key, buf, 3 << 20), 1);
		}
		snprintf(key, sizeof(key), "in%u", turn);
		fixture_ok(f, fixture_upsert(f, store, key, buf, 3 << 20, true));
		fixture_ok(f, fixture_close(f));
		sim_disk_gone(f->sim, f->path[away], false);
		sim_disk_gone(f->sim, f->path[away + 1], false);
		fixture_ok(f, fixture_open(f));
		fixture_check(f, true); /* all shards of all blobs verify again */
	}
	free(buf);
}

static void a_volume_made_over_an_old_one_survives_a_power_cut(void **state)
{
	struct fixture *f = *state;
	struct sop_format_opts fo = {
		.k = 2, .m = 2, .force = true, .open_disk = sim_open_disk, .open_disk_ctx = f->sim};
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "old", 3, true));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	for (uint64_t choice = 0; choice < 40; choice++) {
		if (f->v)
			fixture_ok(f, fixture_close(f));
		fixture_ok(f, sop_format(f->paths, f->disks, &fo, NULL, &f->e));
		sim_power_on(f->sim, SIM_KEEP_RANDOM, choice);
		fixture_ok(f, fixture_open(f));
		assert_int_equal(fixture_has(f, SOP_ROOT, "s", "", 0), 0);
		fixture_check(f, true);
		fixture_ok(f, fixture_store(f, "s", &store));
		fixture_ok(f, fixture_upsert(f, store, "x", "old", 3, true));
		fixture_ok(f, sop_volume_tick(f->v, &f->e));
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(an_item_is_read_back_after_reopening),
		T(values_of_all_sizes_survive_and_go),
		T(an_uncommitted_transaction_is_seen_by_itself_alone),
		T(the_first_of_two_updates_wins),
		T(updates_of_different_items_both_succeed),
		T(a_reader_of_a_range_fails_when_a_phantom_came),
		T(a_value_keeps_the_version_it_opened),
		T(blind_writes_and_appends_never_conflict),
		T(prepared_transactions_hold_their_items),
		T(names_links_and_renames),
		T(extended_attributes_small_and_large),
		T(cursors_go_both_ways_and_see_own_writes),
		T(pages_depend_on_what_they_skip_and_not_on_what_follows),
		T(a_value_is_what_an_array_would_be),
		T(places_written_ahead_are_given_back),
		T(filled_and_emptied_a_hundred_times_nothing_leaks),
		T(a_transaction_has_its_longest_time_and_a_session_none),
		T(disks_that_were_away_are_healed_before_they_count),
		T(appended_bytes_stay_in_place_when_the_name_changes),
		T(segments_emptied_since_the_checkpoint_do_not_stop_recovery),
		T(a_volume_made_over_an_old_one_survives_a_power_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
