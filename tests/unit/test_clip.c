/* Pieces of values copied by reference: the bytes, the space they take, and that what is shared
 * lives exactly as long as somebody refers to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/lib/fixture.h"

#define BIG (6u << 20)

static int setup(void **state)
{
	return fixture_setup(state, 2, 1);
}

static uint64_t live(struct fixture *f)
{
	struct sop_volume_stat s;

	sop_volume_stat(f->v, &s);
	return s.live_bytes;
}

/* Copy all it can of a piece, from one open value to another; the count. */
static uint64_t copy(struct fixture *f, struct sop_value *from, uint64_t off, uint64_t len,
	struct sop_value *to, uint64_t at)
{
	uint64_t done = 0;

	while (done < len) {
		struct sop_clip *c;
		uint64_t n;

		fixture_ok(f, sop_clip_take(&c, from, off + done, len - done, &f->e));
		n = sop_clip_len(c);
		if (n)
			assert_int_equal(sop_clip_put(to, c, at + done, &f->e), n);
		sop_clip_free(c);
		if (!n)
			break;
		done += n;
	}
	return done;
}

/* The committed bytes of one key as a piece of another, in a transaction. */
static uint64_t copy_key(struct fixture *f, uint64_t store, const char *from, uint64_t off,
	uint64_t len, const char *to, uint64_t at)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
	struct sop_value *x, *y;
	uint64_t n;

	fixture_ok(f, sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, from), 0, &f->e));
	fixture_ok(f, sop_value_open(&y, t, SOP_NAME(store, to), SOP_VALUE_WRITE, &f->e));
	n = copy(f, x, off, len, y, at);
	sop_value_close(x);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	return n;
}

static void a_copy_takes_no_space_and_outlives_its_source(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = malloc(BIG);
	uint64_t store, before;

	fill_random(bytes, BIG, 1);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "a", bytes, BIG, false));
	fixture_ok(f, fixture_upsert(f, store, "b", "", 0, false));
	fixture_settle(f);
	before = live(f);
	assert_int_equal(copy_key(f, store, "a", 0, UINT64_MAX / 4, "b", 0), BIG);
	fixture_settle(f);
	assert_true(live(f) < before + BIG / 8);
	assert_int_equal(fixture_has(f, store, "b", bytes, BIG), 1);
	fixture_ok(f, fixture_remove(f, store, "a"));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "b", bytes, BIG), 1);
	assert_true(live(f) >= before - BIG / 8);
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	assert_int_equal(fixture_has(f, store, "b", bytes, BIG), 1);
	fixture_ok(f, fixture_remove(f, store, "b"));
	fixture_settle(f);
	assert_true(live(f) < BIG / 8);
	free(bytes);
}

/* Between the look and the commit the source goes: only the loan keeps its blobs. */
static void a_source_removed_before_the_commit_is_kept_by_the_loan(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = malloc(BIG);
	struct sop_value *x, *y;
	struct sop_clip *c;
	struct sop_txn *t;
	uint64_t store;

	fill_random(bytes, BIG, 2);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "a", bytes, BIG, false));
	fixture_ok(f, fixture_upsert(f, store, "b", "", 0, false));
	fixture_ok(f, sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, "a"), 0, &f->e));
	fixture_ok(f, sop_clip_take(&c, x, 0, BIG, &f->e));
	sop_value_close(x);
	fixture_ok(f, fixture_remove(f, store, "a"));
	fixture_settle(f);
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&y, t, SOP_NAME(store, "b"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_clip_put(y, c, 0, &f->e), sop_clip_len(c));
	sop_clip_free(c);
	fixture_settle(f);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "b", bytes, BIG), 1);
	/* And one that is never committed keeps nothing. */
	fixture_ok(f, sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, "b"), 0, &f->e));
	fixture_ok(f, sop_clip_take(&c, x, 0, BIG, &f->e));
	sop_value_close(x);
	fixture_ok(f, fixture_remove(f, store, "b"));
	sop_clip_free(c);
	fixture_settle(f);
	assert_true(live(f) < BIG / 8);
	free(bytes);
}

static void holes_stay_holes_and_bytes_of_a_session_are_copied(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	struct sop_value *x, *y;
	struct sop_clip *c;
	uint64_t store;
	uint8_t *want = calloc(1, 1 << 20);

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "a", "", 0, false));
	fixture_ok(f, fixture_upsert(f, store, "b", "", 0, false));
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "a"), SOP_VALUE_WRITE, &f->e));
	fixture_ok(f, sop_value_open(&y, t, SOP_NAME(store, "b"), SOP_VALUE_WRITE, &f->e));
	memcpy(want, "begin", 5);
	memcpy(want + 500000, "middle", 6);
	assert_int_equal(sop_value_write(x, "begin", 5, 0, &f->e), 5);
	assert_int_equal(sop_value_write(x, "middle", 6, 500000, &f->e), 6);
	fixture_ok(f, sop_value_truncate(x, 1 << 20, &f->e));
	assert_int_equal(sop_value_write(y, want + 5, 400, 100, &f->e), 400);
	assert_int_equal(copy(f, x, 0, 1 << 20, y, 0), 1 << 20);
	assert_int_equal(sop_value_seek(y, 5, false, &f->e), 500000);
	fixture_ok(f, sop_clip_take(&c, x, 1 << 20, 5, &f->e));
	assert_int_equal(sop_clip_len(c), 0);
	assert_int_equal(sop_clip_put(y, c, 0, &f->e), 0);
	sop_clip_free(c);
	sop_value_close(x);
	sop_value_close(y);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "a", want, 1 << 20), 1);
	assert_int_equal(fixture_has(f, store, "b", want, 1 << 20), 1);
	free(want);
}

/* Several keys, pieces copied between and within them, overwritten, cut, removed; readers of old
 * versions stay open on the way. */
static void shared_values_are_what_arrays_would_be(void **state)
{
	enum { KEYS = 4, SIZE = 2 << 20 };
	struct fixture *f = *state;
	uint8_t *model[KEYS], *old_model = malloc(SIZE), *got = malloc(SIZE);
	uint64_t size[KEYS] = {0}, old_size = 0, store, seed = 20261125;
	static const char *const name[KEYS] = {"k0", "k1", "k2", "k3"};
	struct sop_value *old = NULL;

	print_message("seed %llu\n", (unsigned long long)seed);
	fixture_ok(f, fixture_store(f, "s", &store));
	for (unsigned k = 0; k < KEYS; k++) {
		model[k] = calloc(1, SIZE);
		fixture_ok(f, fixture_upsert(f, store, name[k], "", 0, false));
	}
	for (unsigned round = 0; round < 300; round++) {
		unsigned k = (unsigned)(next_random(&seed) % KEYS), from;
		static const uint64_t scale[] = {300, 20000, 200000, 1 << 20};
		struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
		bool lost = next_random(&seed) % 8 == 0;
		struct sop_value *x, *y;
		uint8_t *saved = malloc(SIZE);
		uint64_t saved_size = size[k];

		memcpy(saved, model[k], SIZE);
		fixture_ok(
			f, sop_value_open(&x, t, SOP_NAME(store, name[k]), SOP_VALUE_WRITE, &f->e));
		for (unsigned op = 1 + (unsigned)(next_random(&seed) % 4); op-- > 0;) {
			uint64_t len = next_random(&seed) % scale[next_random(&seed) % 4] + 1;
			uint64_t off = next_random(&seed) % (SIZE / 2), at, n;

			switch (next_random(&seed) % 6) {
			case 0:
				fill_random(got, len, seed);
				assert_int_equal(sop_value_write(x, got, len, off, &f->e), len);
				memcpy(model[k] + off, got, len);
				size[k] = SOP_MAX(size[k], off + len);
				break;
			case 1:
				fixture_ok(f, sop_value_truncate(x, off, &f->e));
				if (off < size[k])
					memset(model[k] + off, 0, size[k] - off);
				size[k] = off;
				break;
			case 2:
				fixture_ok(f, sop_value_punch(x, off, len, &f->e));
				if (off < size[k])
					memset(model[k] + off, 0, SOP_MIN(len, size[k] - off));
				break;
			default: /* from another one as committed, or from this as it is now */
				from = (unsigned)(next_random(&seed) % KEYS);
				at = next_random(&seed) % (SIZE / 2);
				len = at < size[from] ? SOP_MIN(len, size[from] - at) : 0;
				if (from == k && off < at + len && at < off + len)
					break;
				if (from == k) {
					n = copy(f, x, at, len, x, off);
				} else {
					fixture_ok(
						f, sop_value_open(&y, sop_volume_latest(f->v),
							   SOP_NAME(store, name[from]), 0, &f->e));
					n = copy(f, y, at, len, x, off);
					sop_value_close(y);
				}
				assert_int_equal(n, len);
				memcpy(got, model[from] + at, n);
				memcpy(model[k] + off, got, n);
				if (n)
					size[k] = SOP_MAX(size[k], off + n);
				break;
			}
		}
		assert_int_equal(sop_value_read(x, got, SIZE, 0, &f->e), size[k]);
		assert_memory_equal(got, model[k], size[k]);
		if (lost) {
			sop_txn_rollback(t);
			memcpy(model[k], saved, SIZE);
			size[k] = saved_size;
		} else {
			fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		}
		free(saved);
		if (next_random(&seed) % 16 == 0) {
			fixture_ok(f, fixture_remove(f, store, name[k]));
			fixture_ok(f, fixture_upsert(f, store, name[k], "", 0, false));
			memset(model[k], 0, SIZE);
			size[k] = 0;
		}
		if (old && next_random(&seed) % 12 == 0) {
			assert_int_equal(sop_value_read(old, got, SIZE, 0, &f->e), old_size);
			assert_memory_equal(got, old_model, old_size);
			sop_value_close(old);
			old = NULL;
		}
		if (!old) {
			k = (unsigned)(next_random(&seed) % KEYS);
			fixture_ok(f, sop_value_open(&old, sop_volume_latest(f->v),
					      SOP_NAME(store, name[k]), 0, &f->e));
			memcpy(old_model, model[k], SIZE);
			old_size = size[k];
		}
		if (next_random(&seed) % 6 == 0)
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
		if (next_random(&seed) % 20 == 0)
			fixture_settle(f);
		if (next_random(&seed) % 40 == 0) {
			sop_value_close(old);
			old = NULL;
			fixture_ok(f, fixture_close(f));
			fixture_ok(f, fixture_open(f));
		}
		for (k = 0; k < KEYS && round % 5 == 0; k++)
			assert_int_equal(fixture_has(f, store, name[k], model[k], size[k]), 1);
	}
	sop_value_close(old);
	for (unsigned k = 0; k < KEYS; k++) {
		assert_int_equal(fixture_has(f, store, name[k], model[k], size[k]), 1);
		fixture_ok(f, fixture_remove(f, store, name[k]));
		free(model[k]);
	}
	fixture_settle(f);
	assert_true(live(f) < 1 << 20);
	free(old_model);
	free(got);
}

/* What it refers to lies nowhere else. */
static void a_clip_is_of_its_own_volume(void **state)
{
	struct fixture *f = *state, other;
	struct sop_value *x, *y;
	uint64_t store, there;
	struct sop_clip *c;
	struct sop_txn *t;

	fixture_init(&other, 2, 1, 0);
	fixture_ok(&other, fixture_open(&other));
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(&other, fixture_store(&other, "s", &there));
	fixture_ok(f, fixture_upsert(f, store, "a", "abc", 3, false));
	fixture_ok(&other, fixture_upsert(&other, there, "a", "xyz", 3, false));
	fixture_ok(f, sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, "a"), 0, &f->e));
	fixture_ok(f, sop_clip_take(&c, x, 0, 3, &f->e));
	t = fixture_begin(&other, SOP_TXN_WRITE);
	fixture_ok(&other, sop_value_open(&y, t, SOP_NAME(there, "a"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_clip_put(y, c, 0, &f->e), -EXDEV);
	sop_clip_free(c);
	sop_value_close(x);
	fixture_ok(&other, sop_txn_commit(t, 0, &other.e));
	assert_int_equal(fixture_has(&other, there, "a", "xyz", 3), 1);
	fixture_release(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_copy_takes_no_space_and_outlives_its_source, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_source_removed_before_the_commit_is_kept_by_the_loan, setup,
			fixture_teardown),
		cmocka_unit_test_setup_teardown(holes_stay_holes_and_bytes_of_a_session_are_copied,
			setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			a_clip_is_of_its_own_volume, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(
			shared_values_are_what_arrays_would_be, setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
