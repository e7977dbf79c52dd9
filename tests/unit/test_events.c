/* Following commits: whole, in order, nothing twice, and what is missed is said. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/lib/fixture.h"

static int setup(void **state)
{
	return fixture_setup(state, 1, 1);
}

static struct sop_events *follow(struct fixture *f)
{
	struct sop_events *x;

	fixture_ok(f, sop_events_open(&x, f->v, &f->e));
	return x;
}

static void assert_next(
	struct sop_events *x, enum sop_change change, uint64_t store, const char *key, bool more)
{
	struct sop_event event;

	assert_int_equal(sop_events_next(x, &event), 1);
	assert_int_equal(event.missed, 0);
	assert_int_equal(event.change, change);
	assert_int_equal(event.store, store);
	assert_int_equal(event.key_len, strlen(key));
	assert_memory_equal(event.key, key, strlen(key));
	assert_int_equal(event.more, more);
}

static void assert_none(struct sop_events *x)
{
	struct sop_event event;

	assert_int_equal(sop_events_next(x, &event), 0);
}

static void changes_come_whole_and_in_order(void **state)
{
	struct fixture *f = *state;
	struct sop_events *x;
	struct sop_txn *t;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "before", "x", 1, false));
	x = follow(f);
	assert_none(x);
	fixture_ok(f, fixture_upsert(f, store, "a", "1", 1, false));
	fixture_ok(f, fixture_upsert(f, store, "a", "2", 1, false));
	fixture_ok(f, fixture_remove(f, store, "before"));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_add(t, SOP_NAME(store, "b"), "x", 1, &f->e));
	fixture_ok(f, sop_add(t, SOP_NAME(store, "c"), "x", 1, &f->e));
	assert_next(x, SOP_CHANGE_CREATED, store, "a", false);
	assert_next(x, SOP_CHANGE_CHANGED, store, "a", false);
	assert_next(x, SOP_CHANGE_REMOVED, store, "before", false);
	assert_none(x); /* not committed */
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_next(x, SOP_CHANGE_CREATED, store, "b", true);
	assert_next(x, SOP_CHANGE_CREATED, store, "c", false);
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_add(t, SOP_NAME(store, "d"), "x", 1, &f->e));
	sop_txn_rollback(t);
	assert_none(x);
	sop_events_close(x);
}

static void who_falls_behind_is_told_how_far(void **state)
{
	struct fixture *f = *state;
	struct sop_events *x, *y;
	struct sop_event event;
	const unsigned n = SOP_EVENTS + 100;
	struct sop_txn *t;
	uint64_t store;
	char key[16];

	fixture_ok(f, fixture_store(f, "s", &store));
	x = follow(f);
	fixture_ok(f, fixture_upsert(f, store, "first", "x", 1, false));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "%06u", i);
		fixture_ok(f, sop_add(t, SOP_NAME(store, key), "x", 1, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	y = follow(f);
	assert_int_equal(sop_events_next(x, &event), 1);
	assert_int_equal(event.missed, 101);
	assert_memory_equal(event.key, "000100", 6);
	for (unsigned i = 101; i < n; i++) {
		assert_true(event.more);
		assert_int_equal(sop_events_next(x, &event), 1);
		assert_int_equal(event.missed, 0);
	}
	assert_false(event.more);
	assert_none(x);
	assert_none(y);
	fixture_ok(f, fixture_upsert(f, store, "last", "x", 1, false));
	assert_next(x, SOP_CHANGE_CREATED, store, "last", false);
	assert_next(y, SOP_CHANGE_CREATED, store, "last", false);
	sop_events_close(x);
	sop_events_close(y);
}

static void there_is_a_bound_to_followers(void **state)
{
	struct sop_events *x[SOP_FOLLOWERS], *more;
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOP_FOLLOWERS; i++)
		x[i] = follow(f);
	assert_int_equal(sop_events_open(&more, f->v, NULL), -EMFILE);
	for (unsigned i = 0; i < SOP_FOLLOWERS; i++)
		sop_events_close(x[i]);
	sop_events_close(follow(f));
}

#define COMMITS	  200
#define KEYS	  100
#define FOLLOWERS 40

static atomic_bool ended;

static void *commits(void *arg)
{
	struct fixture *f = arg;
	const char *failed = NULL;
	uint64_t store = 0;

	for (unsigned i = 0; !failed && i < COMMITS; i++) {
		struct sop_txn *t;
		char key[8];

		if (sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, NULL)) {
			failed = "begin";
			break;
		}
		if (sop_store_at(t, "s", 0, NULL, &store, NULL))
			failed = "store";
		for (unsigned k = 0; !failed && k < KEYS; k++) {
			snprintf(key, sizeof(key), "%03u", k);
			if (sop_upsert(t, SOP_NAME(store, key), &i, sizeof(i), NULL))
				failed = "write";
		}
		if (sop_txn_commit(t, 0, NULL))
			failed = "commit";
	}
	ended = true;
	return (void *)(uintptr_t)failed;
}

/* Who begins in the middle of a commit sees none of it or all. */
static void nobody_sees_half_a_commit(void **state)
{
	struct fixture *f = *state;
	struct sop_events *keeper = follow(f); /* the ring stays */
	struct sop_events *turn[FOLLOWERS] = {NULL};
	struct sop_event event;
	pthread_t thread;
	uint64_t store;
	void *failed;

	fixture_ok(f, fixture_store(f, "s", &store));
	assert_int_equal(pthread_create(&thread, NULL, commits, f), 0);
	/* Followers come and go all the time; the first that each gets is the first of a commit. */
	for (unsigned i = 0; !ended || i % FOLLOWERS; i++) {
		struct sop_events **x = &turn[i % FOLLOWERS];

		if (*x && sop_events_next(*x, &event) && !event.missed) {
			assert_memory_equal(event.key, "000", 3);
			for (unsigned k = 1; k < KEYS; k++) {
				assert_true(event.more);
				assert_int_equal(sop_events_next(*x, &event), 1);
			}
			assert_false(event.more);
		}
		sop_events_close(*x);
		*x = ended ? NULL : follow(f);
	}
	for (unsigned i = 0; i < FOLLOWERS; i++)
		sop_events_close(turn[i]);
	pthread_join(thread, &failed);
	sop_events_close(keeper);
	if (failed)
		fail_msg("%s", (const char *)failed);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(changes_come_whole_and_in_order),
		T(who_falls_behind_is_told_how_far),
		T(there_is_a_bound_to_followers),
		T(nobody_sees_half_a_commit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
