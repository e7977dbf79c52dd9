/* The engine again: what several steps in one transaction, failed writes and concurrent sessions do
 * to values. Each test is about one way in which bytes could be lost. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/scenario.h"

static int setup(void **state)
{
	return fixture_setup(state, 2, 1);
}

#define BIG 20000u
static uint8_t one[BIG], two[BIG];

static uint64_t two_files(struct fixture *f)
{
	const struct sop_attr init = {.mode = S_IFREG | 0600};
	struct sop_txn *t;
	uint64_t store;

	fill_random(one, BIG, 1);
	fill_random(two, BIG, 2);
	fixture_ok(f, fixture_store(f, "s", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_create(t, SOP_NAME(store, "a"), &init, one, BIG, NULL, &f->e));
	fixture_ok(f, sop_create(t, SOP_NAME(store, "b"), &init, two, BIG, NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	return store;
}

static void a_name_made_again_and_removed_leaves_the_moved_value(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_rename(t, SOP_NAME(store, "a"), SOP_NAME(store, "c"), 0, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(store, "a"), "x", 1, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "a"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "a", "", 0), 0);
	assert_int_equal(fixture_has(f, store, "c", one, BIG), 1);
}

/* No write has told of it: the first thing asked of the disk is to give space back. */
static void a_disk_that_fails_to_give_space_back_is_set_aside(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_volume_disk d;

	fixture_ok(f, fixture_remove(f, store, "a"));
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	sim_disk_gone(f->sim, f->path[2], true);
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	assert_true(sop_volume_disk(f->v, 2, &d));
	assert_int_equal(d.state, SOP_DISK_FAILED);
	assert_int_equal(fixture_has(f, store, "b", two, BIG), 1);
}

static void an_exchange_and_a_removal_free_the_right_value(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_rename(t, SOP_NAME(store, "a"), SOP_NAME(store, "b"), SOP_RENAME_EXCHANGE,
			      &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "b"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "a", two, BIG), 1);
	assert_int_equal(fixture_has(f, store, "b", "", 0), 0);
}

static void a_value_moved_and_removed_in_one_transaction_is_freed(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	/* Over an existing one, and there and back. */
	fixture_ok(f, sop_rename(t, SOP_NAME(store, "a"), SOP_NAME(store, "b"), 0, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(store, "b"), SOP_NAME(store, "c"), 0, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(store, "c"), SOP_NAME(store, "a"), 0, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "a"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f); /* finds the leak */
}

static void a_file_linked_and_unlinked_twice_in_one_transaction_is_freed(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_link(t, SOP_NAME(store, "a"), SOP_NAME(store, "c"), NULL, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "a"), &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "c"), &f->e));
	fixture_ok(f, sop_link(t, SOP_NAME(store, "b"), SOP_NAME(store, "c"), NULL, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "b"), &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_settle(f);
	assert_int_equal(fixture_has(f, store, "c", two, BIG), 1);
}

static void an_attribute_set_before_a_rename_goes_along(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE), *latest = sop_volume_latest(f->v);
	char buf[8];

	fixture_ok(f, sop_xattr_set(t, SOP_NAME(store, "a"), "user.x", "1", 1, 0, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(store, "a"), SOP_NAME(store, "c"), 0, &f->e));
	fixture_ok(f, sop_xattr_set(t, SOP_NAME(store, "b"), "user.y", "2", 1, 0, &f->e));
	fixture_ok(f, sop_link(t, SOP_NAME(store, "b"), SOP_NAME(store, "d"), NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(
		sop_xattr_get(latest, SOP_NAME(store, "c"), "user.x", buf, sizeof(buf), &f->e), 1);
	assert_int_equal(
		sop_xattr_get(latest, SOP_NAME(store, "d"), "user.y", buf, sizeof(buf), &f->e), 1);
	fixture_check(f, true);
}

static void a_new_file_does_not_inherit_attributes_of_a_removed_one(void **state)
{
	struct fixture *f = *state;
	const struct sop_attr init = {.mode = S_IFREG | 0600};
	uint64_t store = two_files(f);
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	char buf[8];

	fixture_ok(f, sop_xattr_set(t, SOP_NAME(store, "a"), "user.x", "1", 1, 0, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "a"), &f->e));
	fixture_ok(f, sop_create(t, SOP_NAME(store, "a"), &init, NULL, 0, NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(sop_xattr_get(sop_volume_latest(f->v), SOP_NAME(store, "a"), "user.x", buf,
				 sizeof(buf), &f->e),
		-ENODATA);
}

static void a_write_to_a_file_that_was_linked_meanwhile_is_not_lost(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *w = fixture_begin(f, SOP_TXN_SESSION),
		       *l = fixture_begin(f, SOP_TXN_SESSION);
	struct sop_value *x;

	fixture_ok(f, sop_value_open(&x, w, SOP_NAME(store, "a"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_value_write(x, two, BIG, 0, &f->e), BIG);
	fixture_ok(f, sop_link(l, SOP_NAME(store, "a"), SOP_NAME(store, "c"), NULL, &f->e));
	fixture_ok(f, sop_txn_commit(l, 0, &f->e));
	/* Told of the move it lands; not told, it says so. */
	assert_int_equal(sop_txn_commit(w, 0, &f->e), SOP_ECONFLICT);
	assert_int_equal(fixture_has(f, store, "c", one, BIG), 1);
	fixture_settle(f);

	w = fixture_begin(f, SOP_TXN_SESSION);
	l = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, w, SOP_NAME(store, "b"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_value_write(x, one, BIG, 0, &f->e), BIG);
	fixture_ok(f, sop_link(l, SOP_NAME(store, "b"), SOP_NAME(store, "d"), NULL, &f->e));
	fixture_ok(f, sop_txn_commit(l, 0, &f->e));
	fixture_ok(f, sop_value_moved(x, SOP_NAME(store, "d")));
	fixture_ok(f, sop_txn_commit(w, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "b", one, BIG), 1);
	fixture_settle(f);
}

static void a_mode_is_not_given_to_another_file_of_the_same_name(void **state)
{
	struct fixture *f = *state;
	uint64_t store = two_files(f);
	struct sop_txn *a = fixture_begin(f, SOP_TXN_SESSION),
		       *r = fixture_begin(f, SOP_TXN_SESSION);
	struct sop_attr attr = {.mode = 0777};

	fixture_ok(f, sop_setattr(a, SOP_NAME(store, "a"), &attr, SOP_ATTR_MODE, &f->e));
	assert_int_equal(sop_setattr(a, SOP_NAME(store, "a"), &attr,
				 SOP_ATTR_MODE | SOP_ATTR_SAME_INO, &f->e),
		-ESTALE);
	fixture_ok(f, sop_rename(r, SOP_NAME(store, "b"), SOP_NAME(store, "a"), 0, &f->e));
	fixture_ok(f, sop_txn_commit(r, 0, &f->e));
	assert_int_equal(sop_txn_commit(a, 0, &f->e), -ENOENT);
	fixture_ok(f, sop_lookup(sop_volume_latest(f->v), SOP_NAME(store, "a"), &attr, &f->e));
	assert_int_equal(attr.mode, S_IFREG | 0600);
}

static void writes_fail(struct fixture *f, int rc)
{
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], 0, rc, 0);
}

static void a_failed_append_leaves_nothing_behind_the_end(void **state)
{
	static uint8_t chunk[200 << 10];
	struct fixture *f = *state;
	uint64_t store = two_files(f), size = 0;
	struct sop_txn *t;
	struct sop_value *x;
	struct sop_attr a;

	for (unsigned append = 0; append < 2; append++) {
		unsigned flags = SOP_VALUE_WRITE | (append ? SOP_VALUE_APPEND : SOP_VALUE_TRUNC);
		ssize_t n = 0;
		void *val;
		size_t len;

		fill_random(chunk, sizeof(chunk), 3);
		t = fixture_begin(f, SOP_TXN_SESSION);
		fixture_ok(f,
			sop_value_open(&x, t, SOP_NAME(store, append ? "b" : "a"), flags, &f->e));
		size = append ? BIG : 0;
		writes_fail(f, -ENOSPC);
		/* Memory takes the first ones. */
		for (unsigned i = 0; i < 64; i++) {
			n = sop_value_write(x, chunk, sizeof(chunk), size, &f->e);
			if (n < 0)
				break;
			size += (uint64_t)n;
		}
		assert_int_equal(n, -ENOSPC);
		writes_fail(f, 0);
		fixture_skipped_ms += 60000; /* a disk that was full is tried again */
		assert_int_equal(sop_value_write(x, "end", 3, size, &f->e), 3);
		size += 3;
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		fixture_ok(f, sop_lookup(sop_volume_latest(f->v),
				      SOP_NAME(store, append ? "b" : "a"), &a, &f->e));
		assert_int_equal(a.size, size);
		fixture_ok(f, sop_get(sop_volume_latest(f->v), SOP_NAME(store, append ? "b" : "a"),
				      &val, &len, &f->e));
		assert_int_equal(len, size);
		assert_memory_equal((uint8_t *)val + len - 3, "end", 3);
		free(val);
		fixture_check(f, true);
	}
	fixture_settle(f);
}

static void a_write_after_an_append_of_the_same_session_keeps_both(void **state)
{
	struct fixture *f = *state;
	uint64_t store;
	struct sop_txn *t;
	struct sop_value *x;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "0123", 4, false));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	assert_int_equal(sop_value_write(x, "abcd", 4, 0, &f->e), 4);
	sop_value_close(x);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	assert_int_equal(sop_value_write(x, "XYZW", 4, 6, &f->e), 4);
	sop_value_close(x);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, store, "x", "0123abXYZW", 10), 1);
	fixture_check(f, true);
}

static void an_extent_that_could_not_be_looked_up_is_not_a_hole(void **state)
{
	enum { EXTENTS = 3000, STEP = 8192, LEN = 3000 };
	struct fixture *f = *state;
	uint8_t buf[LEN], want[LEN];
	struct sop_txn *t;
	struct sop_value *x;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "x", "", 0, false));
	fill_random(want, LEN, 7);
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	for (uint64_t i = 0; i < EXTENTS; i++)
		assert_int_equal(sop_value_write(x, want, LEN, i * STEP, &f->e), LEN);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f)); /* with an empty cache */
	fixture_ok(f, sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, "x"), 0, &f->e));
	assert_int_equal(sop_value_read(x, buf, LEN, 0, &f->e), LEN);
	assert_memory_equal(buf, want, LEN);
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], -EIO, 0, 0);
	assert_true(sop_value_read(x, buf, LEN, (uint64_t)(EXTENTS - 1) * STEP, &f->e) < 0);
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], 0, 0, 0);
	{
		ssize_t n = sop_value_read(x, buf, LEN, STEP, &f->e);

		/* Its disks may have been set aside by now: an error is right, zeros are not. */
		if (n >= 0) {
			assert_int_equal(n, LEN);
			assert_memory_equal(buf, want, LEN);
		}
	}
	sop_value_close(x);
}

/* Each write of a checkpoint fails once; then what it left is given back, and the machine stops. */
static void a_failed_checkpoint_takes_nothing_with_it(void **state)
{
	unsigned failed = 0;
	bool more = true;

	(void)state;
	for (uint64_t n = 1; more; n++) {
		static struct fixture f;
		struct sop_txn *t;
		uint64_t store, at;
		char key[32];

		fixture_init(&f, 1, 0, 0);
		f.opts.clock = &fixture_clock;
		fixture_ok(&f, fixture_open(&f));
		fixture_ok(&f, fixture_store(&f, "s", &store));
		/* Nodes of many pages, so that giving them back makes holes. */
		t = fixture_begin(&f, SOP_TXN_SESSION);
		for (unsigned i = 0; i < 1000; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			fixture_ok(&f, sop_upsert(t, SOP_NAME(store, key), one, 100, &f.e));
		}
		fixture_ok(&f, sop_txn_commit(t, 0, &f.e));
		fixture_ok(&f, sop_volume_sync(f.v, &f.e));
		at = sim_steps(f.sim) + n;
		sim_fail_step(f.sim, at, -EIO);
		failed += sop_volume_checkpoint(f.v, &f.e) != 0;
		more = sim_steps(f.sim) >= at;
		sim_fail_step(f.sim, 0, 0);
		/* Errors are fine here: a disk may have been set aside. */
		(void)!sop_volume_tick(f.v, &f.e);
		(void)!sop_volume_tick(f.v, &f.e);
		sim_crash_at(f.sim, sim_steps(f.sim) + 1);
		(void)!fixture_close(&f);
		sim_power_on(f.sim, SIM_KEEP_ALL, 1);
		if (fixture_open(&f))
			fail_msg("step %llu: %s", (unsigned long long)n, f.e.text);
		for (unsigned i = 0; i < 1000; i++) {
			snprintf(key, sizeof(key), "k%u", i);
			if (fixture_has(&f, store, key, one, 100) != 1)
				fail_msg("step %llu: %s is gone", (unsigned long long)n, key);
		}
		fixture_check(&f, true);
		fixture_release(&f);
	}
	print_message("%u checkpoints failed\n", failed);
	assert_true(failed > 4);
}

#define PIECES 3000u
#define PIECE  4096u

/* Every other piece is a hole, so each is an extent. */
static void many_pieces(struct fixture *f, uint64_t store, uint8_t *model)
{
	const struct sop_attr init = {.mode = S_IFREG | 0600};
	struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
	struct sop_value *x;

	fixture_ok(f, sop_create(t, SOP_NAME(store, "x"), &init, NULL, 0, NULL, &f->e));
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
	for (uint64_t i = 0; i < PIECES; i++) {
		fill_random(model + i * 2 * PIECE, PIECE, i);
		assert_int_equal(
			sop_value_write(x, model + i * 2 * PIECE, PIECE, i * 2 * PIECE, &f->e),
			PIECE);
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

static uint64_t stored(struct fixture *f, uint64_t store)
{
	struct sop_attr a;

	fixture_ok(f, sop_lookup(sop_volume_latest(f->v), SOP_NAME(store, "x"), &a, &f->e));
	return a.bytes;
}

static uint64_t journal(struct fixture *f)
{
	struct sop_volume_stat s;

	sop_volume_stat(f->v, &s);
	return s.journal_bytes;
}

/* The record of a truncation is as long as what stays or what goes, whichever is less; readers of
 * the old version see all of it; growing again shows zeros; nothing leaks, also over a crash. */
static void a_truncated_tree_is_cut_or_carried_whichever_is_less(void **state)
{
	static const uint64_t stays[] = {3, 100, 600, 2900};
	struct fixture *f = *state;
	uint8_t *model = calloc(PIECES, 2 * PIECE), *old = malloc(PIECES * 2 * PIECE);
	uint8_t *got = malloc(PIECES * 2 * PIECE);
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	for (unsigned i = 0; i < SOP_ARRAY_LEN(stays); i++) {
		uint64_t size = stays[i] * 2 * PIECE + 100, before;
		struct sop_value *x, *reader;
		struct sop_txn *t;

		memset(model, 0, PIECES * 2 * PIECE);
		many_pieces(f, store, model);
		fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
		fixture_ok(f, sop_value_open(&reader, sop_volume_latest(f->v), SOP_NAME(store, "x"),
				      0, &f->e));
		before = journal(f);
		t = fixture_begin(f, SOP_TXN_SESSION);
		fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
		memcpy(old, model, PIECES * 2 * PIECE);
		/* With writes below it: in a hole, over the middle of a piece. */
		fill_random(model + PIECE, 100, 77);
		fill_random(model + 2 * PIECE + 1000, 5000, 78);
		assert_int_equal(sop_value_write(x, model + PIECE, 100, PIECE, &f->e), 100);
		fixture_ok(f, sop_value_truncate(x, size, &f->e));
		assert_int_equal(
			sop_value_write(x, model + 2 * PIECE + 1000, 5000, 2 * PIECE + 1000, &f->e),
			5000);
		fixture_ok(f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f->e));
		assert_true(journal(f) - before < 110000);
		assert_int_equal(fixture_has(f, store, "x", model, size), 1);
		assert_int_equal(stored(f, store), stays[i] * PIECE + 100 + 100 + 5000 - 3096);
		if (i % 2) { /* the machine stops before anything of it is worked off */
			sop_value_close(reader);
			sim_crash_at(f->sim, sim_steps(f->sim) + 1);
			sop_volume_close(f->v, NULL);
			f->v = NULL;
			sim_crash_at(f->sim, 0);
			sim_power_on(f->sim, SIM_KEEP_SYNCED_ONLY, 1);
			fixture_ok(f, fixture_open(f));
		} else {
			fixture_settle(f);
			assert_int_equal(sop_value_read(reader, got, PIECES * 2 * PIECE, 0, &f->e),
				(PIECES * 2 - 1) * PIECE);
			assert_memory_equal(got, old, (PIECES * 2 - 1) * PIECE);
			sop_value_close(reader);
		}
		memset(model + size, 0, PIECES * 2 * PIECE - size);
		t = fixture_begin(f, SOP_TXN_SESSION);
		fixture_ok(f, sop_value_open(&x, t, SOP_NAME(store, "x"), SOP_VALUE_WRITE, &f->e));
		fixture_ok(f, sop_value_truncate(x, PIECES * 2 * PIECE, &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_int_equal(fixture_has(f, store, "x", model, PIECES * 2 * PIECE), 1);
		fixture_settle(f);
		fixture_ok(f, fixture_remove(f, store, "x"));
		fixture_settle(f);
	}
	free(model);
	free(old);
	free(got);
}

/* ---- a commit that cannot be made durable ---- */

static void count_call(void *arg, uint64_t lsn)
{
	unsigned *calls = arg;

	assert_true(lsn > 0);
	++*calls;
}

/* Every sync fails from its own wait on: the transaction stands, and its hooks are told so. */
static void a_commit_that_cannot_be_made_durable_stands(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	unsigned calls = 0;

	fixture_ok(f, fixture_upsert(f, SOP_ROOT, "before", "x", 1, true));
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], 0, 0, -EIO);
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_upsert(t, SOP_NAME(SOP_ROOT, "k"), "new", 3, &f->e));
	fixture_ok(f, sop_txn_on_commit(t, count_call, &calls, &f->e));
	assert_int_equal(sop_txn_commit(t, SOP_COMMIT_DURABLE, &f->e), SOP_EUNSYNCED);
	assert_non_null(strstr(f->e.text, "making commits durable"));
	assert_int_equal(calls, 1);
	assert_int_equal(fixture_has(f, SOP_ROOT, "k", "new", 3), 1);
	/* One that is refused is not told of. */
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_txn_on_commit(t, count_call, &calls, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(SOP_ROOT, "other"), "1", 1, &f->e));
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_error(f->sim, f->path[i], 0, -EIO, -EIO);
	assert_true(sop_txn_commit(t, 0, &f->e) < 0);
	assert_int_equal(calls, 1);
}

/* ---- disks that fill up in a checkpoint ---- */

struct filling {
	struct fixture *f;
	unsigned disk; /* FIXTURE_DISKS: all of them */
	uint64_t left; /* steps until then; 0: has happened */
};

static void fill_up(void *arg)
{
	struct filling *x = arg;

	if (!x->left || --x->left)
		return;
	for (unsigned i = 0; i < x->f->disks; i++)
		if (x->disk == i || x->disk == FIXTURE_DISKS)
			sim_disk_resize(
				x->f->sim, x->f->path[i], sim_allocated(x->f->sim, x->f->path[i]));
}

/* A tree of hundreds of nodes: the checkpoint needs blocks of the registry that were never written.
 */
static void many_nodes(struct fixture *f)
{
	const struct sop_store_opts slots = {.slot_length = 4};
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_attr made;
	char key[16];

	fixture_ok(f, sop_store_create(t, SOP_NAME(SOP_ROOT, "s"), NULL, &slots, &made, &f->e));
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		fixture_ok(f, sop_upsert(t, SOP_NAME(made.ino, key), one, 10, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
}

/* One round: the disk(s) fill up at step n. False: the checkpoint has not so many steps. */
static bool fill_in_checkpoint(unsigned k, unsigned m, unsigned disk, uint64_t n, unsigned *refused)
{
	static struct fixture f;
	struct filling x = {.f = &f, .disk = disk, .left = n};
	struct sop_volume_stat st;
	int rc;

	fixture_init(&f, k, m, 0);
	f.opts.clock = &fixture_clock;
	f.opts.cache_bytes = 64u << 20; /* so that the checkpoint can wait */
	fixture_ok(&f, fixture_open(&f));
	many_nodes(&f);
	sim_watch(f.sim, fill_up, &x);
	rc = sop_volume_checkpoint(f.v, &f.e);
	sim_watch(f.sim, NULL, NULL);
	if (rc && rc != -ENOSPC)
		fail_msg("step %llu: not ENOSPC: %s", (unsigned long long)n, f.e.text);
	*refused += rc != 0;
	sop_volume_stat(f.v, &st);
	if (st.failed || st.disks_online != f.disks)
		fail_msg("step %llu: a disk that is full was set aside", (unsigned long long)n);
	for (unsigned i = 0; i < f.disks; i++)
		sim_disk_resize(f.sim, f.path[i], 0);
	fixture_skipped_ms += 60000;
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	fixture_settle(&f);
	fixture_release(&f);
	return !x.left;
}

static void a_disk_that_fills_up_in_a_checkpoint_refuses_it_and_stays_a_replica(void **state)
{
	static const struct {
		unsigned k, m, disk;
	} with[] = {{1, 0, FIXTURE_DISKS}, {2, 1, FIXTURE_DISKS}, {2, 1, 0}, {2, 1, 1}};
	unsigned refused;

	(void)state;
	for (unsigned i = 0; i < SOP_ARRAY_LEN(with); i++) {
		refused = 0;
		for (uint64_t n = 1;
			fill_in_checkpoint(with[i].k, with[i].m, with[i].disk, n, &refused);)
			n++;
		print_message(
			"%u+%u disk %u: %u refused\n", with[i].k, with[i].m, with[i].disk, refused);
		assert_true(refused);
	}
}

/* ---- a check while commits never pause: each look at the clock is followed by one ---- */

static struct {
	struct fixture *f;
	pthread_t thread;
	uint64_t store;
	unsigned commits;
	bool inside;
} busy;

#define CROWD 400u /* entries that take several nodes */

/* On the media, and no barrier says so yet; then the power goes. */
static uint64_t durable_then_power_cut(struct fixture *f)
{
	uint64_t store;

	fill_random(one, BIG, 1);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "a", one, BIG, true));
	sim_power_on(f->sim, SIM_KEEP_SYNCED_ONLY, 1);
	sop_volume_close(f->v, NULL);
	f->v = NULL;
	return store;
}

/* The program dies and the machine does not: the next mount finds in the page cache what no sync
 * has reached. Once that has been synced it outlives a power cut. */
static void what_a_dead_program_left_in_the_cache_is_synced(void **state)
{
	struct fixture f;
	uint64_t store;

	(void)state;
	fixture_init(&f, 1, 1, 0);
	fixture_ok(&f, fixture_open(&f));
	fill_random(one, BIG, 1);
	fixture_ok(&f, fixture_store(&f, "s", &store));
	fixture_ok(&f, fixture_upsert(&f, store, "a", one, BIG, false));
	sim_power_on(f.sim, SIM_KEEP_CACHED, 1);
	sop_volume_close(f.v, NULL);
	fixture_ok(&f, fixture_open(&f));
	assert_int_equal(fixture_has(&f, store, "a", one, BIG), 1);
	fixture_ok(&f, sop_volume_sync(f.v, &f.e));
	sim_power_on(f.sim, SIM_KEEP_SYNCED_ONLY, 1);
	sop_volume_close(f.v, NULL);
	fixture_ok(&f, fixture_open(&f));
	assert_int_equal(fixture_has(&f, store, "a", one, BIG), 1);
	fixture_check(&f, true);
	fixture_release(&f);
}

static void add_allocated(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)size;
	*(uint64_t *)arg += strncmp(file, "segments/", 9) ? 0 : allocated;
}

/* A session writes into a segment that is in no checkpoint yet, and another commits there; then the
 * program dies. What the session has written is given back. */
static void what_a_killed_session_wrote_into_a_young_segment_is_given_back(void **state)
{
	enum { MUCH = 1000000, TIMES = 8 };
	struct fixture f;
	struct sop_value *v;
	uint64_t store, used = 0;
	struct sop_txn *t;
	uint8_t *piece = malloc(MUCH);

	(void)state;
	fixture_init(&f, 1, 0, 0);
	fixture_ok(&f, fixture_open(&f));
	fill_random(piece, MUCH, 1);
	fixture_ok(&f, fixture_store(&f, "s", &store));
	fixture_ok(&f, fixture_upsert(&f, store, "a", piece, MUCH, true));
	t = fixture_begin(&f, SOP_TXN_SESSION);
	fixture_ok(&f, sop_create(t, SOP_NAME(store, "u"), &(struct sop_attr){.mode = 0100644},
			       NULL, 0, NULL, &f.e));
	fixture_ok(&f, sop_value_open(&v, t, SOP_NAME(store, "u"), SOP_VALUE_WRITE, &f.e));
	for (uint64_t i = 0; i < TIMES; i++)
		assert_true(sop_value_write(v, piece, MUCH, i * MUCH, &f.e) >= 0);
	fixture_ok(&f, fixture_upsert(&f, store, "b", piece, MUCH, true));
	sim_power_on(f.sim, SIM_KEEP_CACHED, 1);
	sop_value_close(v);
	sop_txn_rollback(t);
	sop_volume_close(f.v, NULL);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, sop_volume_tick(f.v, &f.e));
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	sim_each_file(f.sim, f.path[0], add_allocated, &used);
	assert_in_range(used, 2 * MUCH, 4 * MUCH);
	assert_int_equal(fixture_has(&f, store, "a", piece, MUCH), 1);
	assert_int_equal(fixture_has(&f, store, "b", piece, MUCH), 1);
	fixture_check(&f, true);
	fixture_release(&f);
	free(piece);
}

/* What cannot be read just now is not what was never written: a mount that cannot tell fails, and
 * the next one finds all. */
static void an_error_of_the_moment_in_recovery_ends_no_history(void **state)
{
	(void)state;
	/* One error where there is no parity; a disk that fails from then on where there is. */
	for (unsigned m = 0; m < 2; m++) {
		struct fixture f, g;
		uint64_t store;
		bool hit = true;

		fixture_init(&f, m + 1, m, 0);
		f.opts.journal_bytes = 64 << 10; /* small machines to copy */
		fixture_ok(&f, fixture_open(&f));
		store = durable_then_power_cut(&f);
		for (unsigned n = 1; hit; n++) {
			scenario_clone(&g, &f, f.sim, n);
			sim_fail_io(g.sim, n, -EIO, m);
			if (fixture_open(&g))
				g.v = NULL;
			hit = sim_io_failed(g.sim);
			sim_fail_io(g.sim, 0, 0, false);
			for (unsigned i = 0; i < g.disks; i++)
				sim_disk_error(g.sim, g.path[i], 0, 0, 0);
			if (!g.v)
				fixture_ok(&g, fixture_open(&g));
			assert_int_equal(fixture_has(&g, store, "a", one, BIG), 1);
			fixture_release(&g);
		}
		fixture_release(&f);
	}
}

/* One disk missed the last commits, another is late at the next mount: what is here cannot say
 * whether they were on the media. */
static void a_history_that_a_late_disk_knows_is_not_ended_without_it(void **state)
{
	struct fixture f;
	uint64_t store;

	(void)state;
	fixture_init(&f, 3, 1, 0);
	fixture_ok(&f, fixture_open(&f));
	sim_disk_gone(f.sim, f.path[3], true);
	store = durable_then_power_cut(&f);
	sim_disk_gone(f.sim, f.path[3], false);
	sim_disk_gone(f.sim, f.path[2], true);
	for (unsigned degraded = 0; degraded < 2; degraded++) {
		f.opts.degraded = degraded;
		assert_int_equal(fixture_open(&f), SOP_ELOST);
		assert_non_null(strstr(f.e.text, "--discard-lost"));
	}
	sim_disk_gone(f.sim, f.path[2], false);
	fixture_ok(&f, fixture_open(&f));
	assert_int_equal(fixture_has(&f, store, "a", one, BIG), 1);
	fixture_settle(&f);
	fixture_release(&f);
}

/* What a disk lacks is in no record: either it is set aside, which the labels say, or nothing
 * counts that it lacks. */
static void what_a_full_disk_lacks_is_known_after_a_crash(void **state)
{
	(void)state;
	for (unsigned sync = 0; sync < 2; sync++) {
		struct fixture f;
		uint64_t store;
		int rc;

		fixture_init(&f, 2, 1, 0);
		f.opts.clock = &fixture_clock;
		fixture_ok(&f, fixture_open(&f));
		store = two_files(&f);
		fixture_ok(&f, sop_volume_sync(f.v, &f.e));
		sim_disk_error(f.sim, f.path[2], 0, sync ? 0 : -ENOSPC, sync ? -ENOSPC : 0);
		rc = fixture_upsert(&f, store, "c", one, BIG, true);
		assert_true(!rc || rc == -ENOSPC);
		sim_disk_error(f.sim, f.path[2], 0, 0, 0);
		/* A barrier covers it: recovery does not look at its blobs. */
		fixture_ok(&f, fixture_upsert(&f, store, "d", "x", 1, true));
		sim_power_on(f.sim, SIM_KEEP_SYNCED_ONLY, 1);
		sop_volume_close(f.v, NULL);
		fixture_ok(&f, fixture_open(&f));
		assert_int_equal(fixture_has(&f, store, "c", one, BIG), !rc);
		assert_int_equal(fixture_has(&f, store, "d", "x", 1), 1);
		fixture_skipped_ms += 60000; /* a disk that was full is tried again */
		fixture_settle(&f);
		fixture_release(&f);
	}
}

/* Nodes come and go: a crowd enters a store, and leaves it in the next. */
static void commit_one(void)
{
	bool enter = busy.commits++ % 2 == 0;
	struct sop_txn *t;

	busy.inside = true;
	t = fixture_begin(busy.f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < CROWD; i++) {
		char name[40];

		snprintf(name, sizeof(name), "one of a crowd of many, number %u", i);
		if (enter)
			fixture_ok(
				busy.f, sop_add(t, SOP_NAME(busy.store, name), "x", 1, &busy.f->e));
		else
			fixture_ok(busy.f, sop_remove(t, SOP_NAME(busy.store, name), &busy.f->e));
	}
	fixture_ok(busy.f, sop_txn_commit(t, 0, &busy.f->e));
	busy.inside = false;
}

static uint64_t busy_ms(void *ctx)
{
	(void)ctx;
	if (busy.f && !busy.inside && pthread_equal(pthread_self(), busy.thread))
		commit_one();
	return fixture_clock.monotonic_ms(NULL);
}

static uint64_t busy_ns(void *ctx)
{
	(void)ctx;
	return fixture_clock.wall_ns(NULL);
}

static void a_check_during_commits_that_never_pause_finds_nothing(void **state)
{
	static const struct sop_clock clock = {.wall_ns = busy_ns, .monotonic_ms = busy_ms};
	struct fixture *f = *state;
	struct sop_check_report r;

	busy.thread = pthread_self();
	fixture_ok(f, fixture_close(f));
	f->opts.clock = &clock;
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_store(f, "s", &busy.store));
	for (unsigned i = 0; i < 4; i++) {
		unsigned before = busy.commits;

		busy.f = f;
		fixture_ok(f, sop_volume_check(f->v, i % 2, NULL, NULL, &r, &f->e));
		busy.f = NULL;
		assert_true(busy.commits > before);
		assert_int_equal(r.errors, 0);
		assert_int_equal(r.leaked_bytes, 0);
		busy.f = f;
		if (i == 1) /* the crowd enters behind a checkpoint, or leaves behind it */
			commit_one();
		busy.f = NULL;
	}
}

/* ---- options of a store, and others at once ---- */

static void set_note(struct fixture *f, struct sop_txn *t, uint64_t store)
{
	const struct sop_store_opts o = {.note = "x"};

	fixture_ok(f, sop_store_set(t, store, &o, SOP_STORE_NOTE, &f->e));
}

static int remove_store(struct fixture *f, const char *name)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_store_remove(t, SOP_NAME(SOP_ROOT, name), &f->e));
	return sop_txn_commit(t, 0, &f->e);
}

static void options_of_a_store_that_is_removed_meanwhile_conflict(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	set_note(f, t, store);
	fixture_ok(f, remove_store(f, "s"));
	assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_reopen(f);
	fixture_settle(f);
}

static void put_file(struct fixture *f, unsigned disk, const char *name)
{
	struct sop_disk *d;
	struct sop_file *file;

	fixture_ok(f, sim_open_disk(f->sim, &d, f->path[disk], &f->e));
	assert_int_equal(d->ops->file_open(&file, d, name, SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	d->ops->file_close(file);
	sop_disk_close(d);
}

static bool has_file(struct fixture *f, unsigned disk, const char *name)
{
	return sim_peek(f->sim, f->path[disk], name, 0, NULL, 0) == 0;
}

/* A crash leaves a checkpoint that was being written. Names that are like it are somebody's. */
static void what_a_crash_left_of_a_checkpoint_is_removed_by_who_writes(void **state)
{
	static const char temp[] = "checkpoint.0123456789abcdef.tmp",
			  mine[] = "checkpoint.mine.tmp";
	struct fixture *f = *state;

	fixture_ok(f, fixture_close(f));
	/* The two that have the registry. */
	for (unsigned i = 0; i < 2; i++) {
		put_file(f, i, temp);
		put_file(f, i, mine);
	}
	for (unsigned ro = 2; ro--;) {
		f->opts.read_only = ro;
		fixture_ok(f, fixture_open(f));
		fixture_ok(f, fixture_close(f));
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(has_file(f, i, temp), ro);
			assert_true(has_file(f, i, mine));
		}
	}
	fixture_ok(f, fixture_open(f));
}

struct committer {
	pthread_t thread;
	struct sop_txn *t;
	int rc;
};

static void *commit_it(void *arg)
{
	struct committer *c = arg;

	c->rc = sop_txn_commit(c->t, 0, NULL);
	return NULL;
}

/* In the queue of those who wait for a leader, who waits for the test. */
static unsigned queued(struct sop_volume *v)
{
	unsigned n = 0;

	SOP_LOCK_GUARD(&v->queue_lock);
	n += v->queue_head != NULL;
	n += v->queue_head != v->queue_tail;
	return v->leading ? n : UINT_MAX;
}

static void commit_behind(struct fixture *f, struct committer *c, unsigned there)
{
	assert_int_equal(pthread_create(&c->thread, NULL, commit_it, c), 0);
	while (queued(f->v) != there)
		sched_yield();
}

/* What they commit is looked at by the same leader, a's first. */
static void commit_together(struct fixture *f, struct committer *a, struct committer *b)
{
	struct committer leader = {.t = fixture_begin(f, SOP_TXN_WRITE)};

	fixture_ok(f, sop_upsert(leader.t, SOP_NAME(SOP_ROOT, "l"), "x", 1, &f->e));
	sop_lock(&f->v->commit);
	commit_behind(f, &leader, 0);
	commit_behind(f, a, 1);
	commit_behind(f, b, 2);
	sop_unlock(&f->v->commit);
	pthread_join(leader.thread, NULL);
	pthread_join(a->thread, NULL);
	pthread_join(b->thread, NULL);
	fixture_ok(f, leader.rc);
	fixture_ok(f, a->rc);
}

/* Of two stores, since by their hashes those with an even number looked as if they conflicted. */
static void two_of_a_group_that_set_options_conflict(void **state)
{
	struct fixture *f = *state;
	char buf[SOP_STORE_INFO_BYTES];

	for (unsigned i = 0; i < 2; i++) {
		const struct sop_store_opts o = {.session = 1};
		struct committer a = {.t = fixture_begin(f, SOP_TXN_WRITE)}, b = {0};
		struct sop_store_opts has;
		uint64_t store;

		fixture_ok(
			f, sop_store_at(a.t, i ? "t" : "s", SOP_STORE_CREATE, NULL, &store, &f->e));
		fixture_ok(f, sop_txn_commit(a.t, 0, &f->e));
		a.t = fixture_begin(f, SOP_TXN_WRITE);
		b.t = fixture_begin(f, SOP_TXN_WRITE);
		set_note(f, a.t, store);
		fixture_ok(f, sop_store_set(b.t, store, &o, SOP_STORE_SESSION, &f->e));
		commit_together(f, &a, &b);
		assert_int_equal(b.rc, SOP_ECONFLICT);
		fixture_ok(f, sop_store_info(sop_volume_latest(f->v), store, &has, buf, sizeof(buf),
				      &f->e));
		assert_string_equal(has.note, "x");
		assert_int_equal(has.session, 0);
		(void)sop_ino_new(f->v);
	}
}

static void a_group_does_not_set_options_of_a_store_that_it_removes(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		struct committer a = {0}, b = {0};
		uint64_t store;

		fixture_ok(f, fixture_store(f, "s", &store));
		a.t = fixture_begin(f, SOP_TXN_WRITE);
		b.t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_store_remove(a.t, SOP_NAME(SOP_ROOT, "s"), &f->e));
		set_note(f, b.t, store);
		commit_together(f, &a, &b);
		assert_int_equal(b.rc, SOP_ECONFLICT);
		(void)sop_ino_new(f->v);
	}
	fixture_reopen(f);
	fixture_settle(f);
}

/* ---- what is not there, and what is cut off meanwhile ---- */

static int open_for_writing(struct sop_txn *t, struct sop_name name)
{
	struct sop_value *x;

	return sop_value_open(&x, t, name, SOP_VALUE_WRITE, NULL);
}

/* Whoever finds no item to change may make up his mind by that, as who looks. */
static void an_item_that_was_not_there_to_be_changed_conflicts_with_one_made(void **state)
{
	const struct sop_attr mode = {.mode = 0600};
	struct fixture *f = *state;
	char buf[8];

	for (unsigned i = 0; i < 5; i++) {
		const struct sop_name a = SOP_NAME(SOP_ROOT, "a");
		struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
		ssize_t rc[] = {i == 0	 ? sop_setattr(t, a, &mode, SOP_ATTR_MODE, NULL)
				: i == 1 ? sop_xattr_set(t, a, "user.x", "1", 1, 0, NULL)
				: i == 2 ? sop_xattr_get(t, a, "user.x", buf, sizeof(buf), NULL)
				: i == 3 ? open_for_writing(t, a)
					 : sop_xattr_remove(t, a, "user.x", NULL)};

		assert_int_equal(rc[0], -ENOENT);
		fixture_ok(f, sop_upsert(t, SOP_NAME(SOP_ROOT, "b"), "x", 1, &f->e));
		fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", "x", 1, false));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
		fixture_ok(f, fixture_remove(f, SOP_ROOT, "a"));
	}
}

static ssize_t change(struct sop_txn *t, struct sop_name n, unsigned how)
{
	const struct sop_attr mode = {.mode = 0600};

	return how == 0	  ? sop_setattr(t, n, &mode, SOP_ATTR_MODE, NULL)
	       : how == 1 ? sop_xattr_set(t, n, "user.x", "1", 1, 0, NULL)
			  : open_for_writing(t, n);
}

/* What is changed lies elsewhere, and stays when the name goes: the name counts all the same. A
 * session's change goes to what it has found, as that of a descriptor. */
static void a_name_by_which_an_inode_was_changed_conflicts_with_its_removal(void **state)
{
	const struct sop_name a = SOP_NAME(SOP_ROOT, "a"), b = SOP_NAME(SOP_ROOT, "b");
	struct fixture *f = *state;

	for (unsigned i = 0; i < 6; i++) {
		struct sop_txn *t;

		fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", "x", 1, false));
		t = fixture_begin(f, SOP_TXN_WRITE);
		fixture_ok(f, sop_link(t, a, b, NULL, &f->e));
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		t = fixture_begin(f, i < 3 ? SOP_TXN_WRITE : SOP_TXN_SESSION);
		assert_int_equal(change(t, a, i % 3), 0);
		fixture_ok(f, sop_upsert(t, SOP_NAME(SOP_ROOT, "c"), "x", 1, &f->e));
		fixture_ok(f, fixture_remove(f, SOP_ROOT, "a"));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), i < 3 ? SOP_ECONFLICT : 0);
		fixture_ok(f, fixture_remove(f, SOP_ROOT, "b"));
	}
	fixture_check(f, true);
}

static void a_directory_that_was_in_the_way_of_a_value_conflicts_with_a_file_in_its_place(
	void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	uint64_t store;

	for (unsigned i = 0; i < 2; i++) {
		struct sop_value *x;

		fixture_ok(f, fixture_store(f, "d", &store));
		t = fixture_begin(f, SOP_TXN_WRITE);
		assert_int_equal(sop_value_open(&x, t, SOP_NAME(SOP_ROOT, "d"),
					 i ? SOP_VALUE_WRITE : 0, &f->e),
			-EISDIR);
		fixture_ok(f, sop_upsert(t, SOP_NAME(SOP_ROOT, "b"), "x", 1, &f->e));
		fixture_ok(f, remove_store(f, "d"));
		fixture_ok(f, fixture_upsert(f, SOP_ROOT, "d", "x", 1, false));
		assert_int_equal(sop_txn_commit(t, 0, &f->e), SOP_ECONFLICT);
		fixture_ok(f, fixture_remove(f, SOP_ROOT, "d"));
	}
}

static struct sop_value *session(struct fixture *f, struct sop_txn **t, const char *key)
{
	struct sop_value *x;

	*t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, *t, SOP_NAME(SOP_ROOT, key), SOP_VALUE_WRITE, &f->e));
	return x;
}

/* A hole is no write: it does not bring back the size that another has cut. */
static void a_hole_leaves_the_size_to_those_who_write(void **state)
{
	struct fixture *f = *state;
	struct sop_value *x, *y;
	struct sop_txn *t, *u;

	fill_random(one, BIG, 1);
	fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", one, BIG, false));
	x = session(f, &t, "a");
	y = session(f, &u, "a");
	fixture_ok(f, sop_value_punch(x, 100, BIG - 100, &f->e));
	fixture_ok(f, sop_value_truncate(y, 50, &f->e));
	fixture_ok(f, sop_txn_commit(u, 0, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(fixture_has(f, SOP_ROOT, "a", one, 50), 1);
	/* What was written does, though a hole is made of it. */
	x = session(f, &t, "a");
	assert_int_equal(sop_value_write(x, one + 50, 9950, 50, &f->e), 9950);
	fixture_ok(f, sop_value_punch(x, 9000, 9000, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	memset(one + 9000, 0, 1000);
	assert_int_equal(fixture_has(f, SOP_ROOT, "a", one, 10000), 1);
	/* Appended bytes that have got their place are written as well. */
	fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", one, 500, false));
	t = fixture_begin(f, SOP_TXN_SESSION);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(SOP_ROOT, "a"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	assert_int_equal(sop_value_write(x, one + 500, 500, 0, &f->e), 500);
	fixture_ok(f, sop_value_punch(x, 700, 9000, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	memset(one + 700, 0, 300);
	assert_int_equal(fixture_has(f, SOP_ROOT, "a", one, 1000), 1);
	fixture_check(f, true);
}

/* ---- what is freed, and not given back yet ---- */

#define FREED 40000u

struct freed {
	uint8_t times[FREED];
	unsigned n;
};

static struct sop_blobref freed_ref(unsigned i)
{
	return (struct sop_blobref){.segment = 77777, .off = 4096 * (i + 1), .len = 4000};
}

static int freed_met(void *arg, const struct sop_blobref *ref)
{
	struct freed *d = arg;

	if (ref->segment != 77777)
		return 0;
	d->times[ref->off / 4096 - 1]++;
	d->n++;
	return 0;
}

/* Those that somebody may still see are all there, each once; of the others all but `gone`, or
 * more: the volume has freed something of its own. */
static void kept_are_there(struct fixture *f, unsigned added, unsigned gone)
{
	struct freed d = {.n = 0};

	sop_lock(&f->v->commit);
	fixture_ok(f, sop_space_each_pending(f->v->space, freed_met, &d));
	sop_unlock(&f->v->commit);
	assert_in_range(d.n, added - gone, added);
	for (unsigned i = 0; i < added; i++)
		assert_true(d.times[i] == 1 || (i % 2 && !d.times[i]));
}

static bool reclaim(struct fixture *f, size_t max)
{
	bool left;

	sop_lock(&f->v->ckpt_lock);
	fixture_ok(f, sop_space_reclaim(f->v->space, max, &left, &f->e));
	sop_unlock(&f->v->ckpt_lock);
	return left;
}

/* Every other one is of an inode that is pinned. Blobs of a segment that is gone: only the list
 * matters. */
static void many_freed_blobs_are_looked_at_a_part_at_a_time_and_none_is_lost(void **state)
{
	struct fixture *f = *state;
	unsigned calls = 0;
	uint64_t lsn, pin;

	fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", "x", 1, true));
	fixture_settle(f);
	fixture_ok(f, sop_pins_get(f->v->pins, 99999, &pin) ? -ENOMEM : 0);
	fixture_ok(f, fixture_upsert(f, SOP_ROOT, "a", "y", 1, true));
	fixture_settle(f);
	lsn = f->v->lsn_next - 1;
	for (unsigned i = 0; i < FREED; i++) {
		const struct sop_blobref ref = freed_ref(i);

		if (i == FREED / 2) {
			/* In the middle of a pass: somebody looks, a checkpoint lists them. */
			assert_true(reclaim(f, 100));
			kept_are_there(f, i, 100);
			assert_true(reclaim(f, 100));
			fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
			assert_true(reclaim(f, 100));
		}
		fixture_ok(
			f, sop_space_free_later(f->v->space, lsn, i % 2 ? 0 : 99999, &ref, &f->e));
	}
	kept_are_there(f, FREED, 300);
	while (reclaim(f, 512))
		calls++;
	assert_true(calls <= FREED / 2 / 512 + FREED / 16384);
	kept_are_there(f, FREED, FREED / 2);
	for (calls = 0; reclaim(f, 512);)
		calls++;
	assert_true(calls <= 2);
	kept_are_there(f, FREED, FREED / 2);
	sop_pins_put(f->v->pins, 99999, pin);
	while (reclaim(f, 512))
		;
	kept_are_there(f, 0, 0);
	fixture_settle(f);
}

/* ---- what is given back while an append takes its places ---- */

static struct sop_disk_ops roll_ops;
static const struct sop_disk_ops *roll_real;
static struct fixture *rolling;

/* An append goes on in a new segment: the one before is sealed, and what the append has taken there
 * is in no account yet. */
static int roll_open(struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	struct fixture *f = rolling;

	if (f && flags & SOP_OPEN_CREATE && !strncmp(path, SOP_PATH_SEGMENTS "/", 9)) {
		rolling = NULL;
		while (reclaim(f, 512))
			;
	}
	return roll_real->file_open(out, d, path, flags);
}

static int roll_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (rc)
		return rc;
	roll_real = (*out)->ops;
	roll_ops = *roll_real;
	roll_ops.file_open = roll_open;
	(*out)->ops = &roll_ops;
	return 0;
}

#define RUN (100u << 10)

/* Runs of a value with holes between them, written out by one append. */
static void write_runs(struct fixture *f, const char *key, unsigned n, const uint8_t *bytes)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_SESSION);
	struct sop_value *x;

	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(SOP_ROOT, key), SOP_VALUE_WRITE, &f->e));
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(sop_value_write(x, bytes, RUN, 2 * i * RUN, &f->e), RUN);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

static void a_segment_that_an_append_has_just_left_is_not_empty(void **state)
{
	static uint8_t bytes[RUN], got[RUN];
	struct sop_txn *t;
	struct sop_value *x;
	struct fixture f;

	(void)state;
	fill_random(bytes, sizeof(bytes), 5);
	fixture_init(&f, 1, 0, 0);
	f.opts.segment_bytes = 1 << 20;
	f.opts.open_disk = roll_disk;
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "a", "", 0, true));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "b", "", 0, true));
	write_runs(&f, "a", 1, bytes);
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "a"));
	fixture_settle(&f);
	rolling = &f;
	write_runs(&f, "b", 11, bytes);
	assert_null(rolling);
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	t = fixture_begin(&f, SOP_TXN_READ);
	fixture_ok(&f, sop_value_open(&x, t, SOP_NAME(SOP_ROOT, "b"), 0, &f.e));
	for (unsigned i = 0; i < 11; i++) {
		assert_int_equal(sop_value_read(x, got, RUN, 2 * i * RUN, &f.e), RUN);
		assert_memory_equal(got, bytes, RUN);
	}
	sop_txn_rollback(t);
	fixture_settle(&f);
	fixture_release(&f);
}

/* ---- a journal that no disk is known to have ---- */

static struct sop_disk_ops half_ops, half_journal;
static const struct sop_disk_ops *half_real;
static bool half_writes;

/* All of it is written, and an error is told. */
static ssize_t half_pwritev(struct sop_file *f, const struct iovec *iov, int n, uint64_t off)
{
	ssize_t rc = half_real->pwritev(f, iov, n, off);

	return half_writes ? -EIO : rc;
}

static int half_open(struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	int rc = half_real->file_open(out, d, path, flags);

	if (!rc)
		(*out)->ops = strncmp(path, "journal/", 8) ? &half_ops : &half_journal;
	return rc;
}

static int half_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (rc)
		return rc;
	half_real = (*out)->ops;
	half_ops = *half_real;
	half_ops.file_open = half_open;
	half_journal = half_ops;
	half_journal.pwritev = half_pwritev;
	(*out)->ops = &half_ops;
	return 0;
}

/* The next mount decides: until then nothing that it refers to is given back. */
static void a_commit_that_the_journal_has_on_no_disk_for_sure_ends_the_volume(void **state)
{
	struct fixture *f = *state, g;
	struct sop_volume_stat st;

	fill_random(one, BIG, 1);
	fixture_ok(f, fixture_close(f));
	f->opts.open_disk = half_disk;
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	half_writes = true;
	assert_int_equal(fixture_upsert(f, SOP_ROOT, "a", one, BIG, true), -EIO);
	half_writes = false;
	assert_int_equal(fixture_has(f, SOP_ROOT, "a", one, BIG), 0);
	sop_volume_stat(f->v, &st);
	assert_true(st.failed);
	assert_int_equal(fixture_upsert(f, SOP_ROOT, "b", one, BIG, true), SOP_EDEAD);
	for (unsigned i = 0; i < 3; i++)
		(void)sop_volume_tick(f->v, NULL);
	scenario_clone(&g, f, f->sim, 1);
	fixture_ok(&g, fixture_open(&g));
	assert_int_equal(fixture_has(&g, SOP_ROOT, "a", one, BIG), 1);
	fixture_settle(&g);
	fixture_release(&g);
}

/* ---- what an error keeps from being given back ---- */

/* The last blob of a segment goes, and what was counted of it cannot be read at that moment. */
static void a_segment_whose_records_cannot_be_read_at_first_is_not_forgotten(void **state)
{
	struct sop_check_report r;
	struct fixture f;

	(void)state;
	fixture_init(&f, 1, 0, 0);
	f.opts.clock = &fixture_clock;
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "a", one, BIG, true));
	for (unsigned i = 0; i < 2; i++) { /* sealed, and nothing else is to be given back */
		fixture_settle(&f);
		fixture_reopen(&f);
	}
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "a"));
	fixture_ok(&f, sop_volume_sync(f.v, &f.e));
	sim_disk_error(f.sim, f.path[0], -ENOMEM, 0, 0);
	assert_int_equal(sop_volume_tick(f.v, &f.e), -ENOMEM);
	sim_disk_error(f.sim, f.path[0], 0, 0, 0);
	fixture_settle(&f);
	for (unsigned i = 0; i < 2; i++) {
		fixture_ok(&f, sop_volume_check(f.v, true, NULL, NULL, &r, &f.e));
		assert_int_equal(r.errors, 0);
		assert_int_equal(r.leaked_bytes, 0);
		fixture_reopen(&f);
	}
	fixture_release(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
		TEST(a_name_made_again_and_removed_leaves_the_moved_value),
		TEST(a_disk_that_fails_to_give_space_back_is_set_aside),
		TEST(what_a_crash_left_of_a_checkpoint_is_removed_by_who_writes),
		TEST(an_exchange_and_a_removal_free_the_right_value),
		TEST(a_value_moved_and_removed_in_one_transaction_is_freed),
		TEST(a_file_linked_and_unlinked_twice_in_one_transaction_is_freed),
		TEST(an_attribute_set_before_a_rename_goes_along),
		TEST(a_new_file_does_not_inherit_attributes_of_a_removed_one),
		TEST(a_write_to_a_file_that_was_linked_meanwhile_is_not_lost),
		TEST(a_mode_is_not_given_to_another_file_of_the_same_name),
		TEST(a_failed_append_leaves_nothing_behind_the_end),
		TEST(a_write_after_an_append_of_the_same_session_keeps_both),
		TEST(an_extent_that_could_not_be_looked_up_is_not_a_hole),
		TEST(a_commit_that_cannot_be_made_durable_stands),
		TEST(a_check_during_commits_that_never_pause_finds_nothing),
		TEST(options_of_a_store_that_is_removed_meanwhile_conflict),
		TEST(an_item_that_was_not_there_to_be_changed_conflicts_with_one_made),
		TEST(a_name_by_which_an_inode_was_changed_conflicts_with_its_removal),
		TEST(a_directory_that_was_in_the_way_of_a_value_conflicts_with_a_file_in_its_place),
		TEST(a_commit_that_the_journal_has_on_no_disk_for_sure_ends_the_volume),
		cmocka_unit_test(a_segment_whose_records_cannot_be_read_at_first_is_not_forgotten),
		TEST(a_hole_leaves_the_size_to_those_who_write),
		TEST(many_freed_blobs_are_looked_at_a_part_at_a_time_and_none_is_lost),
		cmocka_unit_test(a_segment_that_an_append_has_just_left_is_not_empty),
		TEST(two_of_a_group_that_set_options_conflict),
		TEST(a_group_does_not_set_options_of_a_store_that_it_removes),
		cmocka_unit_test(an_error_of_the_moment_in_recovery_ends_no_history),
		cmocka_unit_test(a_history_that_a_late_disk_knows_is_not_ended_without_it),
		cmocka_unit_test(what_a_full_disk_lacks_is_known_after_a_crash),
		cmocka_unit_test(a_failed_checkpoint_takes_nothing_with_it),
		cmocka_unit_test(what_a_dead_program_left_in_the_cache_is_synced),
		cmocka_unit_test(what_a_killed_session_wrote_into_a_young_segment_is_given_back),
		cmocka_unit_test(
			a_disk_that_fills_up_in_a_checkpoint_refuses_it_and_stays_a_replica),
		cmocka_unit_test_setup_teardown(
			a_truncated_tree_is_cut_or_carried_whichever_is_less, setup,
			fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
