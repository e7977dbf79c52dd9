/* What befalls a reader in the midst of a call: others take the tree away. The module under test is
 * included here, so that it can be made to happen there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/fixture.h"

static void (*meanwhile)(void);

static int skip_late(struct sop_nodes *n, const struct sop_tree *t, uint64_t lsn, uint64_t skip,
	bool descending, uint8_t *key, size_t *klen, struct sop_err *e)
{
	void (*then)(void) = meanwhile;

	meanwhile = NULL;
	if (then)
		then();
	return sop_tree_skip(n, t, lsn, skip, descending, key, klen, e);
}

#define sop_tree_skip skip_late
#include "core/txn.c"
#undef sop_tree_skip

static struct fixture *f;
static uint64_t store;

static int setup(void **state)
{
	int rc = fixture_setup(state, 2, 1);

	f = *state;
	meanwhile = NULL;
	return rc;
}

static uint64_t root_of(uint64_t id)
{
	struct sop_state_view view;

	fixture_ok(f, sop_stores_view(f->v->stores, id, SOP_LSN_LATEST, &view, &f->e));
	return view.tree.root;
}

/* The store becomes empty, and its root's handle another tree's. */
static void take_the_root(void)
{
	uint64_t root = root_of(store), other;
	char name[16];

	fixture_ok(f, fixture_remove(f, store, "a"));
	fixture_ok(f, fixture_remove(f, store, "b"));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%u", i);
		fixture_ok(f, fixture_store(f, name, &other));
		fixture_ok(f, fixture_upsert(f, other, "x", "1", 1, false));
		if (root_of(other) == root)
			return;
	}
	fail_msg("node %llu is not used again", (unsigned long long)root);
}

static int count_item(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	(void)key;
	(void)klen;
	(void)attr;
	++*(unsigned *)arg;
	return 0;
}

static void a_page_of_a_store_that_becomes_empty_has_no_items(void **state)
{
	unsigned given = 0;

	(void)state;
	fixture_ok(f, fixture_store(f, "s", &store));
	fixture_ok(f, fixture_upsert(f, store, "a", "1", 1, false));
	fixture_ok(f, fixture_upsert(f, store, "b", "1", 1, false));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	meanwhile = take_the_root;
	assert_int_equal(sop_page_items(sop_volume_latest(f->v), store, 1, 10, false, count_item,
				 &given, &f->e),
		0);
	assert_null(meanwhile);
	assert_int_equal(given, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(a_page_of_a_store_that_becomes_empty_has_no_items),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
