/* What befalls a reader in the midst of a call: others take the tree away, or there is no memory.
 * The modules under test are included here, so that it can be made to happen there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/fixture.h"

static bool no_memory;
static void (*meanwhile)(void);

static void *grow(struct sop_buf *b, size_t len)
{
	if (!no_memory)
		return sop_buf_grow(b, len);
	b->failed = true;
	return NULL;
}

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
#define sop_buf_grow grow
#include "core/cursor.c"
#undef sop_buf_grow

static struct fixture *f;
static uint64_t store;

static int setup(void **state)
{
	int rc = fixture_setup(state, 2, 1);

	f = *state;
	no_memory = false;
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

static void a_cursor_says_when_there_is_no_memory(void **state)
{
	const struct sop_index_field index = {.name = "a"};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = &index, .n_index = 1};
	struct sop_key k = sop_key_json("{\"a\":1,\"b\":2}"), got;
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	struct sop_cursor *c;

	(void)state;
	fixture_ok(f, sop_store_at(t, "s", SOP_STORE_CREATE, &o, &store, &f->e));
	fixture_ok(f, sop_kv_add(t, store, &k, "x", 1, NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	t = fixture_begin(f, SOP_TXN_READ);
	fixture_ok(f, sop_cursor_open(&c, t, store, &f->e));
	f->e = (struct sop_err){0};
	no_memory = true;
	assert_int_equal(sop_cursor_first(c, &f->e), -ENOMEM);
	assert_int_equal(f->e.code, -ENOMEM);
	assert_non_null(strstr(f->e.text, "cursor"));
	no_memory = false;
	assert_int_equal(sop_cursor_first(c, &f->e), 1);
	fixture_ok(f, sop_cursor_typed(c, &got, &f->e));
	assert_int_equal(got.len, k.len);
	assert_memory_equal(got.p, k.p, k.len);
	sop_cursor_close(c);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(a_page_of_a_store_that_becomes_empty_has_no_items),
		T(a_cursor_says_when_there_is_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
