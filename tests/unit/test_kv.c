/* Items by typed keys, one call at a time: duplicates and their ids, keys of a wrong type, batches,
 * cursors over changes, what a prepared transaction holds, options that come back. On one thread,
 * so that each case is always the same; test_scenarios.c has the same calls under sixteen. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/fixture.h"

static int setup(void **state)
{
	return fixture_setup(state, 2, 1);
}

static uint64_t store_with(struct fixture *f, const char *path, const struct sop_store_opts *o)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	uint64_t store;

	fixture_ok(f, sop_store_at(t, path, SOP_STORE_CREATE, o, &store, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	return store;
}

static uint64_t count(struct fixture *f, uint64_t store)
{
	uint64_t n;

	fixture_ok(f, sop_count(sop_volume_latest(f->v), store, &n, &f->e));
	return n;
}

/* Commit one int item of a store of ints (val NULL: its removal). 0 or a code. */
static int change(struct fixture *f, uint64_t store, int64_t key, const char *val)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_key k = sop_key_int(key);
	int rc = val ? sop_kv_upsert(t, store, &k, val, strlen(val), &f->e)
		     : sop_kv_remove(t, store, &k, 0, &f->e);

	if (!rc)
		return sop_txn_commit(t, 0, &f->e);
	sop_txn_rollback(t);
	return rc;
}

static const struct sop_store_opts ints = {.key_type = SOP_KEY_INT64};

static void assert_value(struct fixture *f, struct sop_txn *t, uint64_t store,
	const struct sop_key *key, uint64_t id, const char *want)
{
	void *val;
	size_t len;

	fixture_ok(f, sop_kv_get(t, store, key, id, &val, &len, &f->e));
	assert_int_equal(len, strlen(want));
	assert_memory_equal(val, want, len);
	free(val);
}

/* ---- ids ---- */

/* Ids are given when items are added, places among duplicates when they are committed: here one is
 * before the other by the first, and behind it by the second. */
static void duplicates_are_found_by_id_in_whatever_order_they_were_committed(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_STRING, .duplicates = true};
	struct sop_key k = sop_key_string("k"), next = sop_key_string("k0");
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o), id[8], other;
	struct sop_txn *t[8];
	char text[2] = "0";

	for (unsigned i = 0; i < 8; i++, text[0]++) {
		t[i] = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_kv_add(t[i], store, &k, text, 1, &id[i], &f->e));
	}
	for (unsigned i = 8; i-- > 0;) /* blind: none conflicts with another */
		fixture_ok(f, sop_txn_commit(t[i], 0, &f->e));
	t[0] = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_kv_add(t[0], store, &next, "n", 1, &other, &f->e));
	fixture_ok(f, sop_txn_commit(t[0], 0, &f->e));
	t[0] = fixture_begin(f, SOP_TXN_READ);
	assert_value(f, t[0], store, &k, 0, "7");
	for (unsigned i = 0; i < 8; i++) {
		text[0] = (char)('0' + i);
		assert_value(f, t[0], store, &k, id[i], text);
	}
	assert_int_equal(sop_kv_find(t[0], store, &k, other, NULL, &f->e), -ENOENT);
	assert_int_equal(sop_kv_find(t[0], store, &k, id[7] + 1000, NULL, &f->e), -ENOENT);
	assert_int_equal(sop_kv_find(t[0], store, &k, 1, NULL, &f->e), -ENOENT);
	fixture_ok(f, sop_txn_commit(t[0], 0, &f->e));
	/* One goes: the others are who they were. */
	t[0] = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_kv_remove(t[0], store, &k, id[3], &f->e));
	fixture_ok(f, sop_kv_update(t[0], store, &k, id[0], "x", 1, &f->e));
	fixture_ok(f, sop_txn_commit(t[0], 0, &f->e));
	assert_int_equal(
		sop_kv_find(sop_volume_latest(f->v), store, &k, id[3], NULL, &f->e), -ENOENT);
	assert_value(f, sop_volume_latest(f->v), store, &k, id[0], "x");
	assert_value(f, sop_volume_latest(f->v), store, &k, id[1], "1");
	assert_int_equal(count(f, store), 8);
	fixture_settle(f);
}

/* Who looks for one by its id and does not find it depends on its absence, too. */
static void an_absent_id_is_in_the_read_set(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .duplicates = true};
	struct sop_key k = sop_key_int(5), k2 = sop_key_int(6);
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o), id;
	struct sop_txn *t, *u;

	for (unsigned i = 0; i < 2; i++) {
		t = fixture_begin(f, SOP_TXN_WRITE);
		u = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_kv_add(u, store, &k, "x", 1, &id, &f->e));
		assert_int_equal(
			sop_kv_find(t, store, &k, i ? 0 : id, NULL, &f->e), i ? 0 : -ENOENT);
		fixture_ok(f, sop_kv_add(t, store, &k2, "y", 1, NULL, &f->e));
		fixture_ok(f, sop_txn_commit(u, 0, &f->e));
		/* The first of a key is the first, whatever comes behind it. */
		assert_int_equal(sop_txn_commit(t, 0, &f->e), i ? 0 : SOP_ECONFLICT);
	}
}

static void an_id_must_be_the_items_own(void **state)
{
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &ints), id;
	struct sop_key k = sop_key_int(1);
	struct sop_value *x;
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	void *val;
	size_t len;

	fixture_ok(f, sop_kv_add(t, store, &k, "one", 3, &id, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	assert_int_equal(sop_kv_update(t, store, &k, id + 1, "x", 1, &f->e), -ENOENT);
	assert_int_equal(sop_kv_remove(t, store, &k, id + 1, &f->e), -ENOENT);
	assert_int_equal(sop_kv_find(t, store, &k, id + 1, NULL, &f->e), -ENOENT);
	assert_int_equal(sop_kv_get(t, store, &k, id + 1, &val, &len, &f->e), -ENOENT);
	assert_int_equal(sop_kv_open(&x, t, store, &k, id + 1, 0, &f->e), -ENOENT);
	fixture_ok(f, sop_kv_update(t, store, &k, id, "two", 3, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_value(f, sop_volume_latest(f->v), store, &k, id, "two");
	/* A new item of the same key is another one. */
	fixture_ok(f, change(f, store, 1, NULL));
	fixture_ok(f, change(f, store, 1, "again"));
	assert_int_equal(sop_kv_find(sop_volume_latest(f->v), store, &k, id, NULL, &f->e), -ENOENT);
}

/* ---- keys ---- */

static int never(void *arg, const struct sop_kv_item *item)
{
	(void)arg;
	(void)item;
	return -EPROTO;
}

static void a_key_of_the_wrong_type_is_an_error_in_every_call(void **state)
{
	static const enum sop_key_type types[] = {
		SOP_KEY_BYTES, SOP_KEY_STRING, SOP_KEY_INT64, SOP_KEY_FLOAT64, SOP_KEY_JSON};
	struct fixture *f = *state;
	char path[2] = "a";

	for (size_t i = 0; i < SOP_ARRAY_LEN(types); i++, path[0]++) {
		const struct sop_store_opts o = {.key_type = types[i]};
		uint64_t store = store_with(f, path, &o);
		struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
		struct sop_cursor *c;
		struct sop_value *x;
		void *val;
		size_t len;

		fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
		for (size_t j = 0; j < SOP_ARRAY_LEN(types); j++) {
			struct sop_key k = sop_key_of(types[j], 0, 0, "{\"a\":0}", 7);
			struct sop_kv kv = {.key = k, .val = "x", .len = 1};
			size_t done = 9;

			if (i == j)
				continue;
			assert_int_equal(sop_kv_add(t, store, &k, "x", 1, NULL, &f->e), -EINVAL);
			assert_int_equal(
				sop_kv_add_if_absent(t, store, &k, "x", 1, NULL, &f->e), -EINVAL);
			assert_int_equal(sop_kv_update(t, store, &k, 0, "x", 1, &f->e), -EINVAL);
			assert_int_equal(sop_kv_upsert(t, store, &k, "x", 1, &f->e), -EINVAL);
			assert_int_equal(sop_kv_remove(t, store, &k, 0, &f->e), -EINVAL);
			assert_int_equal(sop_kv_rekey(t, store, &k, 0, &k, &f->e), -EINVAL);
			assert_int_equal(sop_kv_find(t, store, &k, 0, NULL, &f->e), -EINVAL);
			assert_int_equal(sop_kv_get(t, store, &k, 0, &val, &len, &f->e), -EINVAL);
			assert_int_equal(sop_kv_open(&x, t, store, &k, 0, 0, &f->e), -EINVAL);
			assert_int_equal(
				sop_kv_batch(t, store, SOP_KV_ADD, &kv, 1, &done, &f->e), -EINVAL);
			assert_int_equal(done, 0);
			assert_int_equal(sop_cursor_find(c, &k, 0, &f->e), -EINVAL);
			assert_int_equal(sop_cursor_seek_key(c, &k, false, &f->e), -EINVAL);
		}
		assert_int_equal(sop_kv_page(t, store, 0, 9, 0, never, NULL, &f->e), 0);
		sop_cursor_close(c);
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_int_equal(count(f, store), 0);
	}
}

static void minus_zero_is_zero_and_nan_is_one_key_below_all(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_FLOAT64};
	static const double order[] = {NAN, -INFINITY, -1.5, -5e-324, 0.0, 5e-324, 2, INFINITY};
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o);
	struct sop_key zero = sop_key_float(-0.0), nan = sop_key_float(-NAN), got;
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_cursor *c;

	for (size_t i = SOP_ARRAY_LEN(order); i-- > 0;) {
		struct sop_key k = sop_key_float(order[i]);

		fixture_ok(f, sop_kv_add(t, store, &k, "x", 1, NULL, &f->e));
	}
	assert_int_equal(sop_kv_add(t, store, &zero, "x", 1, NULL, &f->e), -EEXIST);
	assert_int_equal(sop_kv_add(t, store, &nan, "x", 1, NULL, &f->e), -EEXIST);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_READ);
	fixture_ok(f, sop_kv_find(t, store, &zero, 0, NULL, &f->e));
	fixture_ok(f, sop_kv_find(t, store, &nan, 0, NULL, &f->e));
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	for (size_t i = 0; i < SOP_ARRAY_LEN(order); i++) {
		assert_int_equal(i ? sop_cursor_next(c, &f->e) : sop_cursor_first(c, &f->e), 1);
		fixture_ok(f, sop_cursor_typed(c, &got, &f->e));
		assert_true(i ? got.f == order[i] && !signbit(got.f + 0.0) == (order[i] >= 0)
			      : isnan(got.f));
	}
	assert_int_equal(sop_cursor_next(c, &f->e), 0);
	sop_cursor_close(c);
	sop_txn_rollback(t);
}

static void a_rekey_keeps_the_place_in_the_order(void **state)
{
	const struct sop_index_field index[] = {{"id", true, SOP_FIELD_NUMBER}};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = index, .n_index = 1};
	struct sop_key a = sop_key_json("{\"id\":1,\"n\":\"a\"}"),
		       b = sop_key_json("{\"id\":1,\"n\":\"b\"}"),
		       far = sop_key_json("{\"id\":2,\"n\":\"a\"}");
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_key got;
	struct sop_cursor *c;

	fixture_ok(f, sop_kv_add(t, store, &a, "x", 1, NULL, &f->e));
	assert_int_equal(sop_kv_rekey(t, store, &a, 0, &far, &f->e), -EINVAL);
	fixture_ok(f, sop_kv_rekey(t, store, &a, 0, &b, &f->e));
	fixture_ok(f, sop_kv_add(t, store, &far, "y", 1, NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_READ);
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	assert_int_equal(sop_cursor_first(c, &f->e), 1); /* id falls */
	fixture_ok(f, sop_cursor_typed(c, &got, &f->e));
	assert_memory_equal(got.p, far.p, far.len);
	assert_int_equal(sop_cursor_next(c, &f->e), 1);
	fixture_ok(f, sop_cursor_typed(c, &got, &f->e));
	assert_memory_equal(got.p, b.p, b.len);
	sop_cursor_close(c);
	sop_txn_rollback(t);
}

/* ---- pages and batches ---- */

static int sum_keys(void *arg, const struct sop_kv_item *item)
{
	*(int64_t *)arg = *(int64_t *)arg * 10 + item->key.i;
	return item->key.i == 9 ? -EPROTO : 0;
}

static void a_page_has_as_many_items_as_asked_for(void **state)
{
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &ints);
	struct sop_txn *latest = sop_volume_latest(f->v);

	for (int64_t i = 1; i <= 9; i++)
		fixture_ok(f, change(f, store, i, "x"));
	for (uint64_t count = 0; count < 5; count++) {
		static const int64_t want[] = {0, 3, 34, 345, 3456}, down[] = {0, 7, 76, 765, 7654};
		int64_t sum = 0;

		assert_int_equal(
			sop_kv_page(latest, store, 2, count, 0, sum_keys, &sum, &f->e), count);
		assert_int_equal(sum, want[count]);
		sum = 0;
		assert_int_equal(sop_kv_page(latest, store, 2, count, SOP_PAGE_DESCENDING, sum_keys,
					 &sum, &f->e),
			count);
		assert_int_equal(sum, down[count]);
	}
	/* What the callback says ends it. */
	assert_int_equal(
		sop_kv_page(latest, store, 7, 9, 0, sum_keys, &(int64_t){0}, &f->e), -EPROTO);
}

static void a_batch_says_which_item_failed(void **state)
{
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &ints);
	struct sop_kv kv[5];
	struct sop_txn *t;
	size_t done;

	fixture_ok(f, change(f, store, 3, "there"));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (int64_t i = 0; i < 5; i++)
		kv[i] = (struct sop_kv){.key = sop_key_int(i + 1), .val = "new", .len = 3};
	assert_int_equal(sop_kv_batch(t, store, SOP_KV_ADD, kv, 5, &done, &f->e), -EEXIST);
	assert_int_equal(done, 2); /* and number 2 is the one */
	assert_non_null(strstr(f->e.text, "item 2 of 5"));
	assert_true(kv[0].id && kv[1].id > kv[0].id);
	/* Those before it stay. */
	fixture_ok(f, sop_kv_batch(t, store, SOP_KV_ADD_IF_ABSENT, kv, 5, &done, &f->e));
	assert_int_equal(done, 5);
	assert_int_equal(sop_kv_batch(t, store, (enum sop_kv_op)99, kv, 1, &done, &f->e), -EINVAL);
	kv[4].key = sop_key_int(99);
	assert_int_equal(sop_kv_batch(t, store, SOP_KV_UPDATE, kv + 3, 2, &done, &f->e), -ENOENT);
	assert_int_equal(done, 1);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(count(f, store), 5);
	assert_value(f, sop_volume_latest(f->v), store,
		&(struct sop_key){.type = SOP_KEY_INT64, .i = 3}, 0, "there");
}

/* ---- cursors ---- */

static void assert_at(struct fixture *f, struct sop_cursor *c, int rc, int64_t key)
{
	struct sop_key got;

	assert_int_equal(rc, 1);
	fixture_ok(f, sop_cursor_typed(c, &got, &f->e));
	assert_int_equal(got.i, key);
}

/* A cursor reads ahead; what its own transaction does meanwhile must show all the same. */
static void cursors_go_on_over_the_changes_of_their_transaction(void **state)
{
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &ints);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_cursor *c;
	struct sop_key k;
	void *val;
	size_t len;

	for (int64_t i = 0; i < 600; i += 2) {
		k = sop_key_int(i);
		fixture_ok(f, sop_kv_add(t, store, &k, "x", 1, NULL, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	assert_at(f, c, sop_cursor_first(c, &f->e), 0);
	assert_at(f, c, sop_cursor_next(c, &f->e), 2);
	k = sop_key_int(3);
	fixture_ok(f, sop_kv_add(t, store, &k, "own", 3, NULL, &f->e));
	k = sop_key_int(4);
	fixture_ok(f, sop_kv_remove(t, store, &k, 0, &f->e));
	assert_at(f, c, sop_cursor_next(c, &f->e), 3);
	assert_at(f, c, sop_cursor_next(c, &f->e), 6);
	fixture_ok(f, sop_cursor_remove(c, &f->e)); /* where it stands */
	assert_at(f, c, sop_cursor_next(c, &f->e), 8);
	assert_at(f, c, sop_cursor_prev(c, &f->e), 3);
	fixture_ok(f, sop_cursor_update(c, "changed", 7, &f->e));
	fixture_ok(f, sop_cursor_get(c, &val, &len, &f->e));
	assert_int_equal(len, 7);
	free(val);
	/* Seeks: on a key, between two, beyond the ends, both ways. */
	k = sop_key_int(100);
	assert_at(f, c, sop_cursor_seek_key(c, &k, false, &f->e), 100);
	assert_at(f, c, sop_cursor_seek_key(c, &k, true, &f->e), 100);
	k = sop_key_int(101);
	assert_at(f, c, sop_cursor_seek_key(c, &k, false, &f->e), 102);
	assert_at(f, c, sop_cursor_seek_key(c, &k, true, &f->e), 100);
	assert_at(f, c, sop_cursor_prev(c, &f->e), 98);
	assert_int_equal(sop_cursor_find(c, &k, 0, &f->e), 0);
	assert_at(f, c, 1, 102); /* the first after it */
	k = sop_key_int(598);
	assert_int_equal(sop_cursor_find(c, &k, 0, &f->e), 1);
	assert_int_equal(sop_cursor_next(c, &f->e), 0);
	k = sop_key_int(599);
	assert_int_equal(sop_cursor_find(c, &k, 0, &f->e), 0);
	assert_null(sop_cursor_key(c, &len));
	assert_int_equal(sop_cursor_seek_key(c, &k, false, &f->e), 0);
	/* All of it, through many portions. */
	len = 0;
	for (int rc = sop_cursor_last(c, &f->e); rc == 1; rc = sop_cursor_prev(c, &f->e))
		len++;
	assert_int_equal(len, 299);
	sop_cursor_close(c);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(count(f, store), 299);
}

static void a_cursor_does_not_come_to_a_key_of_no_bytes_that_was_removed(void **state)
{
	struct fixture *f = *state;
	uint64_t s = store_with(f, "s", NULL);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_cursor *c;

	fixture_ok(f, sop_add(t, SOP_NAME(s, ""), "", 0, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(s, "b"), "", 0, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_cursor_open(&c, t, s, &f->e));
	assert_int_equal(sop_cursor_last(c, &f->e), 1);
	fixture_ok(f, sop_remove(t, SOP_NAME(s, ""), &f->e));
	assert_int_equal(sop_cursor_prev(c, &f->e), 0);
	sop_cursor_close(c);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

/* A value that is open grows without a change of the transaction's set of writes. */
static void a_cursor_shows_the_size_that_an_open_value_has_by_now(void **state)
{
	struct fixture *f = *state;
	uint64_t s = store_with(f, "s", NULL);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_cursor *c;
	struct sop_value *x;

	fixture_ok(f, sop_add(t, SOP_NAME(s, "a"), "", 0, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(s, "b"), "", 0, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(s, "c"), "", 0, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(s, "b"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_value_write(x, "123456", 6, 0, &f->e), 6);
	fixture_ok(f, sop_cursor_open(&c, t, s, &f->e));
	assert_int_equal(sop_cursor_first(c, &f->e), 1);
	assert_int_equal(sop_value_write(x, "789012345", 9, 6, &f->e), 9);
	assert_int_equal(sop_cursor_next(c, &f->e), 1);
	assert_int_equal(sop_cursor_attr(c)->size, 15);
	assert_int_equal(sop_cursor_next(c, &f->e), 1);
	assert_int_equal(sop_value_truncate(x, 2, &f->e), 0);
	assert_int_equal(sop_cursor_prev(c, &f->e), 1);
	assert_int_equal(sop_cursor_attr(c)->size, 2);
	sop_cursor_close(c);
	sop_value_close(x);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

static void assert_named(struct fixture *f, uint64_t store, const char *name, const char *want)
{
	struct sop_attr a;

	assert_int_equal(sop_lookup(sop_volume_latest(f->v), SOP_NAME(store, name), &a, &f->e),
		want ? 0 : -ENOENT);
	if (want)
		assert_int_equal(fixture_has(f, store, name, want, strlen(want)), 1);
}

/* Two names that agree in the index are one key: by the other one nothing is moved, replaced or
 * removed; but an item can get it. */
static void by_the_name_of_a_twin_nothing_is_moved_or_removed(void **state)
{
	static const char a1[] = "{\"a\":1,\"b\":1}", a2[] = "{\"a\":1,\"b\":2}",
			  c3[] = "{\"a\":3,\"b\":3}";
	const struct sop_index_field index = {.name = "a"};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = &index, .n_index = 1};
	struct fixture *f = *state;
	uint64_t s = store_with(f, "s", &o);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_add(t, SOP_NAME(s, a1), "one", 3, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(s, c3), "three", 5, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	assert_int_equal(sop_rename(t, SOP_NAME(s, c3), SOP_NAME(s, a2), 0, &f->e), -EEXIST);
	assert_int_equal(
		sop_rename(t, SOP_NAME(s, c3), SOP_NAME(s, a2), SOP_RENAME_EXCHANGE, &f->e),
		-ENOENT);
	assert_int_equal(
		sop_rename(t, SOP_NAME(s, a1), SOP_NAME(s, a2), SOP_RENAME_EXCHANGE, &f->e),
		-ENOENT);
	assert_int_equal(sop_rename(t, SOP_NAME(s, a2), SOP_NAME(s, c3), 0, &f->e), -ENOENT);
	assert_int_equal(
		sop_link(t, SOP_NAME(s, a2), SOP_NAME(SOP_ROOT, "l"), NULL, &f->e), -ENOENT);
	assert_int_equal(sop_remove(t, SOP_NAME(s, a2), &f->e), -ENOENT);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_named(f, s, a1, "one");
	assert_named(f, s, a2, NULL);
	assert_named(f, s, c3, "three");
	for (unsigned i = 0; i < 4; i++) {
		unsigned flags = i & 1 ? SOP_RENAME_NOREPLACE : 0;

		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_rename(t, SOP_NAME(s, i & 1 ? a2 : a1),
				      SOP_NAME(s, i & 1 ? a1 : a2), flags, &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_named(f, s, i & 1 ? a2 : a1, NULL);
		assert_named(f, s, i & 1 ? a1 : a2, "one");
	}
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_rename(t, SOP_NAME(s, c3), SOP_NAME(s, a1), 0, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_named(f, s, a1, "three");
	assert_int_equal(count(f, s), 1);
	fixture_check(f, true);
}

/* Nor is the value of the other one read, written or given attributes by it. */
static void by_the_name_of_a_twin_no_value_is_read_or_written(void **state)
{
	static const char a1[] = "{\"a\":1,\"b\":1}", a2[] = "{\"a\":1,\"b\":2}";
	const struct sop_index_field index = {.name = "a"};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = &index, .n_index = 1};
	const struct sop_attr mode = {.mode = 0600};
	struct fixture *f = *state;
	uint64_t s = store_with(f, "s", &o);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_value *x;
	void *val;
	size_t len;

	fixture_ok(f, sop_add(t, SOP_NAME(s, a1), "one", 3, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	for (unsigned i = 0; i < 2; i++) { /* by the latest handle, and by a snapshot */
		t = i ? fixture_begin(f, SOP_TXN_READ) : sop_volume_latest(f->v);
		assert_int_equal(sop_get(t, SOP_NAME(s, a2), &val, &len, &f->e), -ENOENT);
		assert_null(val);
		assert_int_equal(sop_value_open(&x, t, SOP_NAME(s, a2), 0, &f->e), -ENOENT);
		assert_null(x);
		assert_int_equal(sop_xattr_list(t, SOP_NAME(s, a2), NULL, 0, &f->e), -ENOENT);
		if (i)
			fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	}
	/* With the item as it is committed, put by the transaction itself, and open in it. */
	for (unsigned i = 0; i < 3; i++) {
		struct sop_value *open = NULL;

		t = fixture_begin(f, SOP_TXN_WRITE);
		if (i == 1) {
			fixture_ok(f, sop_remove(t, SOP_NAME(s, a1), &f->e));
			fixture_ok(f, sop_add(t, SOP_NAME(s, a1), "one", 3, &f->e));
		}
		if (i == 2) {
			fixture_ok(f,
				sop_value_open(&open, t, SOP_NAME(s, a1), SOP_VALUE_WRITE, &f->e));
			sop_value_close(open);
		}
		assert_int_equal(sop_get(t, SOP_NAME(s, a2), &val, &len, &f->e), -ENOENT);
		assert_int_equal(sop_update(t, SOP_NAME(s, a2), "two", 3, &f->e), -ENOENT);
		assert_int_equal(sop_upsert(t, SOP_NAME(s, a2), "two", 3, &f->e), -EEXIST);
		assert_int_equal(
			sop_value_open(&x, t, SOP_NAME(s, a2), SOP_VALUE_WRITE, &f->e), -ENOENT);
		assert_int_equal(
			sop_setattr(t, SOP_NAME(s, a2), &mode, SOP_ATTR_MODE, &f->e), -ENOENT);
		assert_int_equal(
			sop_xattr_set(t, SOP_NAME(s, a2), "user.a", "b", 1, 0, &f->e), -ENOENT);
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_named(f, s, a1, "one");
		assert_named(f, s, a2, NULL);
	}
	/* What was not there by that name is what a commit goes by. */
	t = fixture_begin(f, SOP_TXN_WRITE);
	assert_int_equal(sop_get(t, SOP_NAME(s, a2), &val, &len, &f->e), -ENOENT);
	fixture_ok(f, sop_add(t, SOP_NAME(SOP_ROOT, "none"), "", 0, &f->e));
	fixture_ok(f, fixture_upsert(f, s, a1, "1", 1, false));
	assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_update(t, SOP_NAME(s, a1), "uno", 3, &f->e));
	fixture_ok(f, sop_upsert(t, SOP_NAME(s, "{\"a\":2}"), "two", 3, &f->e));
	fixture_ok(f, sop_upsert(t, SOP_NAME(s, "{\"a\":2}"), "due", 3, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_named(f, s, a1, "uno");
	assert_named(f, s, "{\"a\":2}", "due");
	fixture_check(f, true);
}

static void fail_reads(struct fixture *f, int rc)
{
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], rc, 0, 0);
}

/* A store that is larger than what one look at the disk brings; each key has a text of its own. */
static void a_cursor_stands_where_it_was_after_an_error(void **state)
{
	const struct sop_index_field index = {.name = "a"};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = &index, .n_index = 1};
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	unsigned met = 0, errors = 0;
	struct sop_cursor *c;
	struct sop_key k;
	char text[64];
	int rc;

	for (unsigned i = 0; i < 2000; i++) {
		snprintf(text, sizeof(text), "{\"a\":%u,\"b\":%u}", i, i % 7);
		k = sop_key_json(text);
		fixture_ok(f, sop_kv_add(t, store, &k, "x", 1, NULL, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_reopen(f);
	t = fixture_begin(f, SOP_TXN_READ);
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	rc = sop_cursor_first(c, &f->e);
	while (rc) {
		if (rc < 0) {
			errors++;
			fail_reads(f, 0);
		} else if (++met % 100 == 0) {
			fail_reads(f, -EIO);
		}
		snprintf(text, sizeof(text), "{\"a\":%u,\"b\":%u}", met - 1, (met - 1) % 7);
		fixture_ok(f, sop_cursor_typed(c, &k, &f->e));
		assert_int_equal(k.len, strlen(text));
		assert_memory_equal(k.p, text, k.len);
		rc = sop_cursor_next(c, &f->e);
	}
	assert_int_equal(met, 2000);
	assert_true(errors > 1);
	fail_reads(f, 0);
	sop_cursor_close(c);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

/* The items of a leaf go, and another comes in their place, which a neighbour takes then: one that
 * is not in memory and cannot be read. */
static void an_item_in_the_place_of_others_beside_what_cannot_be_read_is_refused(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .slot_length = 8};
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", &o);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_key k;
	size_t len;
	void *val;

	for (int i = 0; i < 200; i++) {
		k = sop_key_int(10 * i);
		fixture_ok(f, sop_kv_add(t, store, &k, "x", 1, NULL, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_reopen(f);
	for (int i = 80; i < 88; i++) {
		k = sop_key_int(10 * i);
		fixture_ok(f, sop_kv_get(sop_volume_latest(f->v), store, &k, 0, &val, &len, &f->e));
		free(val);
	}
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (int i = 80; i < 88; i++) {
		k = sop_key_int(10 * i);
		fixture_ok(f, sop_kv_remove(t, store, &k, 0, &f->e));
	}
	k = sop_key_int(875);
	fixture_ok(f, sop_kv_add(t, store, &k, "y", 1, NULL, &f->e));
	fail_reads(f, -EIO);
	assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ELOST);
	fail_reads(f, 0);
	assert_int_equal(count(f, store), 200);
	fixture_ok(f, fixture_upsert(f, store_with(f, "other", NULL), "x", "1", 1, false));
}

static void a_mode_that_is_none_is_refused(void **state)
{
	const struct sop_txn_opts o = {.mode = (enum sop_txn_mode)(SOP_TXN_SESSION + 1)};
	struct fixture *f = *state;
	struct sop_txn *t;

	assert_int_equal(sop_txn_begin(&t, f->v, &o, &f->e), -EINVAL);
	assert_null(t);
}

/* ---- what a prepared transaction holds ---- */

static int stop_at_once(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	(void)arg;
	(void)key;
	(void)klen;
	(void)attr;
	return 0;
}

static void a_prepared_transaction_holds_what_it_read_and_wrote(void **state)
{
	struct fixture *f = *state;
	uint64_t read = store_with(f, "read", &ints), wrote = store_with(f, "wrote", &ints), n;
	uint64_t counted = store_with(f, "counted", &ints),
		 free_store = store_with(f, "free", &ints);
	struct sop_key low = sop_key_int(10), k;
	struct sop_store_opts note = {.key_type = SOP_KEY_INT64, .note = "x"};
	struct sop_txn *p, *t;
	struct sop_cursor *c;

	for (int64_t i = 0; i < 40; i += 2)
		fixture_ok(f, change(f, read, i, "x"));
	fixture_ok(f, change(f, wrote, 5, "x"));
	for (unsigned down = 0; down < 2; down++) {
		p = fixture_begin(f, SOP_TXN_WRITE);
		/* From 10 to 20, in this direction or the other. */
		k = sop_key_int(down ? 20 : 10);
		fixture_ok(f, sop_cursor_open(&c, p, read, &f->e));
		assert_int_equal(sop_cursor_seek_key(c, &k, down, &f->e), 1);
		for (unsigned i = 0; i < 5; i++)
			assert_int_equal(
				down ? sop_cursor_prev(c, &f->e) : sop_cursor_next(c, &f->e), 1);
		sop_cursor_close(c);
		fixture_ok(f, sop_count(p, counted, &n, &f->e));
		k = sop_key_int(100 + down);
		fixture_ok(f, sop_kv_add(p, wrote, &k, "p", 1, NULL, &f->e));
		fixture_ok(f, sop_txn_prepare(p, &f->e));
		/* What it read stays as it read it; the rest is free. */
		assert_int_equal(change(f, read, 10, NULL), SOP_ECONFLICT);
		assert_int_equal(change(f, read, 15, "phantom"), SOP_ECONFLICT);
		assert_int_equal(change(f, read, 20, "x"), SOP_ECONFLICT);
		fixture_ok(f, change(f, read, down ? 38 : 0, "x"));
		assert_int_equal(change(f, counted, 1, "x"), SOP_ECONFLICT);
		fixture_ok(f, change(f, free_store, 1, "x"));
		/* What it wrote nobody may read, nor change... */
		assert_int_equal(change(f, wrote, 100 + down, "mine"), SOP_ECONFLICT);
		fixture_ok(f, change(f, wrote, 5, "mine"));
		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_scan(t, wrote, NULL, false, stop_at_once, NULL, &f->e));
		fixture_ok(f, sop_kv_upsert(t, free_store, &low, "x", 1, &f->e));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_count(t, wrote, &n, &f->e));
		fixture_ok(f, sop_kv_upsert(t, free_store, &low, "x", 1, &f->e));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
		/* ...and its store stays as it is. */
		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_store_set(t, wrote, &note, SOP_STORE_NOTE, &f->e));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
		if (down) {
			sop_txn_rollback(p);
			assert_int_equal(count(f, wrote), 2);
		} else {
			fixture_ok(f, sop_txn_commit(p, 0, &f->e));
			assert_int_equal(count(f, wrote), 2);
		}
		/* Nothing is held any more. */
		fixture_ok(f, change(f, read, 10, "x"));
		fixture_ok(f, change(f, wrote, 100, "mine"));
	}
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_store_set(t, wrote, &note, SOP_STORE_NOTE, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
}

/* Of stores that it sets or removes, though it has neither looked at nor written what is in them;
 * after a remount too. */
static int change_store(struct fixture *f, const char *name, uint64_t store, const char *note)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .note = note};
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	if (note)
		fixture_ok(f, sop_store_set(t, store, &o, SOP_STORE_NOTE, &f->e));
	else
		fixture_ok(f, sop_store_remove(t, SOP_NAME(SOP_ROOT, name), &f->e));
	return sop_txn_commit(t, 0, &f->e);
}

static void a_prepared_transaction_holds_stores_that_it_sets_and_removes(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_STRING, .note = "prepared"};
	struct fixture *f = *state;
	char buf[SOP_STORE_INFO_BYTES];
	struct sop_store_opts has;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t note = store_with(f, "note", &ints), gone = store_with(f, "gone", &ints);
		uint64_t shape = store_with(f, "shape", &ints), id;
		struct sop_txn *p = fixture_begin(f, i & 1 ? SOP_TXN_SESSION : SOP_TXN_WRITE);

		fixture_ok(f, sop_store_set(p, note, &o, SOP_STORE_NOTE, &f->e));
		fixture_ok(f, sop_store_set(p, shape, &o, SOP_STORE_SHAPE, &f->e));
		fixture_ok(f, sop_store_remove(p, SOP_NAME(SOP_ROOT, "gone"), &f->e));
		fixture_ok(f, sop_txn_prepare(p, &f->e));
		id = sop_txn_id(p);
		if (i & 2) {
			sop_txn_free(p);
			fixture_reopen(f);
		}
		assert_int_equal(change_store(f, "note", note, NULL), SOP_ECONFLICT);
		assert_int_equal(change_store(f, "note", note, "mine"), SOP_ECONFLICT);
		assert_int_equal(change_store(f, "shape", shape, NULL), SOP_ECONFLICT);
		assert_int_equal(change(f, shape, 1, "x"), SOP_ECONFLICT);
		assert_int_equal(change(f, gone, 1, "x"), SOP_ECONFLICT);
		assert_int_equal(change_store(f, "gone", gone, NULL), SOP_ECONFLICT);
		fixture_ok(f, change(f, note, 1, "x"));
		fixture_ok(f, i & 2 ? sop_prepared_commit(f->v, id, 0, &f->e)
				    : sop_txn_commit(p, 0, &f->e));
		fixture_reopen(f);
		fixture_ok(f, sop_store_info(sop_volume_latest(f->v), note, &has, buf, sizeof(buf),
				      &f->e));
		assert_string_equal(has.note, "prepared");
		fixture_ok(f, change(f, note, 1, NULL));
		fixture_ok(f, change_store(f, "note", note, NULL));
		fixture_ok(f, change_store(f, "shape", shape, NULL));
	}
	fixture_settle(f);
}

/* Below the root's number are the volume's own stores: a wrong number must not break it. */
static void the_volumes_own_stores_are_not_to_be_had(void **state)
{
	const struct sop_store_opts o = {.note = "mine"};
	struct fixture *f = *state;
	uint64_t dir = store_with(f, "s", NULL);
	struct sop_key bytes = sop_key_bytes("k", 1);
	uint8_t inode[SOP_MASTER_KEY];

	sop_master_key(inode, dir, 'i');
	for (uint64_t store = 0; store < SOP_ROOT; store++) {
		struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
		struct sop_name name = {store, inode, sizeof(inode)}, mine = SOP_NAME(dir, "mine");
		struct sop_cursor *c;
		struct sop_value *x;
		struct sop_attr a = {0};
		void *val;
		size_t len;

		fixture_ok(f, sop_add(t, mine, "1", 1, &f->e));
		assert_int_equal(sop_add(t, SOP_NAME(store, "k"), "x", 1, &f->e), -ENOENT);
		assert_int_equal(sop_upsert(t, name, "x", 1, &f->e), -ENOENT);
		assert_int_equal(sop_remove(t, name, &f->e), -ENOENT);
		assert_int_equal(sop_get(t, name, &val, &len, &f->e), -ENOENT);
		assert_int_equal(sop_setattr(t, name, &a, SOP_ATTR_MODE, &f->e), -ENOENT);
		assert_int_equal(sop_value_open(&x, t, name, SOP_VALUE_WRITE, &f->e), -ENOENT);
		assert_int_equal(sop_create(t, name, &a, NULL, 0, NULL, &f->e), -ENOENT);
		assert_int_equal(sop_rename(t, mine, SOP_NAME(store, "k"), 0, &f->e), -ENOENT);
		assert_int_equal(sop_link(t, mine, SOP_NAME(store, "k"), NULL, &f->e), -ENOENT);
		assert_int_equal(sop_store_create(t, SOP_NAME(store, "k"), NULL, NULL, NULL, &f->e),
			-ENOENT);
		assert_int_equal(sop_store_remove(t, name, &f->e), -ENOENT);
		assert_int_equal(sop_store_set(t, store, &o, SOP_STORE_NOTE, &f->e), -ENOENT);
		assert_int_equal(sop_kv_add(t, store, &bytes, "x", 1, NULL, &f->e), -ENOENT);
		assert_int_equal(sop_kv_upsert(t, store, &bytes, "x", 1, &f->e), -ENOENT);
		assert_int_equal(sop_kv_remove(t, store, &bytes, 0, &f->e), -ENOENT);
		assert_int_equal(sop_cursor_open(&c, t, store, &f->e), -ENOENT);
		fixture_ok(f, sop_remove(t, mine, &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	}
	fixture_check(f, true);
}

static int no_item(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	(void)arg;
	(void)key;
	(void)klen;
	(void)attr;
	fail();
	return 0;
}

/* What is longer than any key is not there, whoever adds what: a look for it is nothing to be
 * remembered. */
static void a_look_for_a_key_that_is_too_long_can_be_prepared(void **state)
{
	static char longest[70000];
	const struct sop_range from = {.from = longest, .from_len = sizeof(longest)},
			       to = {.to = longest, .to_len = SOP_KEY_MAX + 1};
	struct fixture *f = *state;
	uint64_t store = store_with(f, "s", NULL);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_value *x;
	struct sop_attr a;
	void *val;
	size_t len;

	memset(longest, 'k', sizeof(longest));
	for (unsigned i = 0; i < 2; i++) {
		struct sop_name name = {store, longest, i ? sizeof(longest) : SOP_KEY_MAX + 1};

		assert_int_equal(sop_lookup(t, name, &a, &f->e), -ENOENT);
		assert_int_equal(sop_get(t, name, &val, &len, &f->e), -ENOENT);
		assert_int_equal(sop_value_open(&x, t, name, 0, &f->e), -ENOENT);
		assert_int_equal(sop_setattr(t, name, &a, SOP_ATTR_MODE, &f->e), -ENOENT);
	}
	assert_int_equal(sop_scan(t, store, &from, false, no_item, NULL, &f->e), -ENAMETOOLONG);
	assert_int_equal(sop_scan(t, store, &to, false, no_item, NULL, &f->e), -ENAMETOOLONG);
	fixture_ok(f, sop_add(t, SOP_NAME(store, "a"), "1", 1, &f->e));
	fixture_ok(f, sop_txn_prepare(t, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(count(f, store), 1);
	fixture_reopen(f);
	assert_int_equal(count(f, store), 1);
	fixture_check(f, false);
}

/* ---- stores ---- */

static void options_come_back_after_a_remount_and_a_removed_store_does_not(void **state)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64,
		.duplicates = true,
		.balance = true,
		.slot_length = 33,
		.node_bytes = 8192,
		.value_class = SOP_VALUE_MEDIUM,
		.cache_class = SOP_CACHE_HOT,
		.note = "kept"};
	struct fixture *f = *state;
	uint64_t plain = store_with(f, "b", &ints);
	uint64_t store = store_with(f, "a/s", &o), gone = store_with(f, "gone", &ints), n;
	char *buf = malloc(SOP_STORE_INFO_BYTES);
	struct sop_store_opts has;
	struct sop_txn *reader, *t;

	fixture_ok(f, change(f, gone, 1, "x"));
	fixture_ok(f, change(f, gone, 1, NULL));
	reader = fixture_begin(f, SOP_TXN_READ);
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_store_remove(t, SOP_NAME(SOP_ROOT, "gone"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	/* It is there for who saw it, and for nobody else. */
	fixture_ok(f, sop_count(reader, gone, &n, &f->e));
	assert_int_equal(sop_count(sop_volume_latest(f->v), gone, &n, &f->e), -ENOENT);
	assert_int_equal(change(f, gone, 1, "x"), -ENOENT);
	sop_txn_rollback(reader);
	fixture_ok(f, change(f, store, 7, "x"));
	for (unsigned i = 0; i < 2; i++) {
		fixture_ok(f, sop_store_info(sop_volume_latest(f->v), store, &has, buf,
				      SOP_STORE_INFO_BYTES, &f->e));
		assert_true(has.key_type == o.key_type && has.duplicates && has.balance &&
			    has.slot_length == 33 && has.node_bytes == 8192 &&
			    has.value_class == o.value_class && has.cache_class == o.cache_class);
		assert_string_equal(has.note, "kept");
		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_store_at(t, "a/s", SOP_STORE_CREATE, &o, &n, &f->e));
		assert_int_equal(n, store);
		assert_int_equal(sop_store_at(t, "a/s", 0,
					 &(struct sop_store_opts){.key_type = SOP_KEY_INT64,
						 .duplicates = true,
						 .slot_length = 34},
					 &n, &f->e),
			-EINVAL);
		assert_non_null(strstr(f->e.text, "slot"));
		assert_int_equal(sop_store_at(t, "a/s", 0, &ints, &n, &f->e), -EINVAL);
		assert_int_equal(sop_store_at(t, "b", 0,
					 &(struct sop_store_opts){
						 .key_type = SOP_KEY_INT64, .balance = true},
					 &n, &f->e),
			-EINVAL);
		sop_txn_rollback(t);
		fixture_reopen(f);
	}
	assert_int_equal(count(f, store), 1);
	assert_int_equal(count(f, plain), 0);
	assert_int_equal(sop_count(sop_volume_latest(f->v), gone, &n, &f->e), -ENOENT);
	fixture_settle(f);
	free(buf);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(duplicates_are_found_by_id_in_whatever_order_they_were_committed),
		T(an_absent_id_is_in_the_read_set),
		T(an_id_must_be_the_items_own),
		T(a_key_of_the_wrong_type_is_an_error_in_every_call),
		T(minus_zero_is_zero_and_nan_is_one_key_below_all),
		T(a_rekey_keeps_the_place_in_the_order),
		T(a_page_has_as_many_items_as_asked_for),
		T(a_batch_says_which_item_failed),
		T(cursors_go_on_over_the_changes_of_their_transaction),
		T(a_cursor_does_not_come_to_a_key_of_no_bytes_that_was_removed),
		T(a_cursor_shows_the_size_that_an_open_value_has_by_now),
		T(by_the_name_of_a_twin_nothing_is_moved_or_removed),
		T(by_the_name_of_a_twin_no_value_is_read_or_written),
		T(a_cursor_stands_where_it_was_after_an_error),
		T(an_item_in_the_place_of_others_beside_what_cannot_be_read_is_refused),
		T(a_mode_that_is_none_is_refused),
		T(a_prepared_transaction_holds_what_it_read_and_wrote),
		T(a_prepared_transaction_holds_stores_that_it_sets_and_removes),
		T(a_look_for_a_key_that_is_too_long_can_be_prepared),
		T(the_volumes_own_stores_are_not_to_be_had),
		T(options_come_back_after_a_remount_and_a_removed_store_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
