/* States of stores: those that changed wait in memory for a checkpoint, others come and go; neither
 * is without bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/fixture.h"

#define CACHE (8u << 20)
#define MANY  40000u /* more than are kept, and more than CACHE has room for until a checkpoint */
#define GROUP 100u
#define KEPT  34000u

static uint64_t id[MANY];

static void make_many(struct fixture *f)
{
	char name[16];

	for (unsigned i = 0; i < MANY;) {
		struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
		struct sop_attr a;

		for (unsigned end = i + GROUP; i < end; i++) {
			snprintf(name, sizeof(name), "d%06u", i);
			fixture_ok(f, sop_store_create(
					      t, SOP_NAME(SOP_ROOT, name), NULL, NULL, &a, &f->e));
			id[i] = a.ino;
		}
		fixture_ok(f, sop_txn_commit(t, 0, &f->e));
		assert_true(sop_stores_dirty_bytes(f->v->stores) <= CACHE / 3 + GROUP * 512);
	}
}

static uint64_t count_of(struct fixture *f, unsigned i)
{
	uint64_t n;

	fixture_ok(f, sop_count(sop_volume_latest(f->v), id[i], &n, &f->e));
	return n;
}

static int setup(void **state)
{
	int rc = fixture_setup(state, 1, 0);
	struct fixture *f = *state;

	if (rc)
		return rc;
	f->opts.cache_bytes = CACHE;
	fixture_reopen(f);
	return 0;
}

static void new_stores_wait_for_no_checkpoint_longer_than_the_cache_allows(void **state)
{
	make_many(*state);
	fixture_settle(*state);
}

/* With a writer among the readers, whose stores must be neither forgotten nor read as they were. */
static void stores_that_readers_saw_are_forgotten(void **state)
{
	struct fixture *f = *state;

	make_many(f);
	fixture_reopen(f);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(count_of(f, i), 0);
		if (i % 100 == 0)
			fixture_ok(f, fixture_upsert(f, id[i], "x", "y", 1, false));
		if (i == 2000)
			fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	}
	assert_true(sop_stores_count(f->v->stores) < KEPT);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(count_of(f, i), i % 100 == 0);
	assert_true(sop_stores_count(f->v->stores) < KEPT);
	fixture_settle(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
		TEST(new_stores_wait_for_no_checkpoint_longer_than_the_cache_allows),
		TEST(stores_that_readers_saw_are_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
