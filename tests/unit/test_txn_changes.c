/* What a transaction says that it will change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/lib/fixture.h"

static int setup(void **state)
{
	return fixture_setup(state, 2, 1);
}

static uint64_t two_files(struct fixture *f)
{
	const struct sop_attr init = {.mode = S_IFREG | 0600};
	struct sop_txn *t;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_create(t, SOP_NAME(store, "a"), &init, "one", 3, NULL, &f->e));
	fixture_ok(f, sop_create(t, SOP_NAME(store, "b"), &init, "two", 3, NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	return store;
}

struct changes {
	char text[1024];
	uint64_t a, b; /* inode numbers */
};

static const char *who(const struct changes *c, uint64_t ino)
{
	return !ino ? "-" : ino == c->a ? "A" : ino == c->b ? "B" : "new";
}

static int one_change(void *arg, const struct sop_txn_change *x)
{
	struct changes *c = arg;
	size_t n = strlen(c->text);

	snprintf(c->text + n, sizeof(c->text) - n, "%.*s:%s%s>%s%s ", (int)x->klen,
		x->store ? (const char *)x->key : "", who(c, x->before.ino),
		x->before.record ? "!" : "", who(c, x->after.ino), x->after.record ? "!" : "");
	return 0;
}

/* Names, inodes, and where the inodes themselves lie (!), before and after. */
static void what_a_transaction_changes_can_be_listed(void **state)
{
	struct fixture *f = *state;
	const struct sop_attr init = {.mode = S_IFREG | 0600};
	struct changes c = {0};
	uint64_t store = two_files(f);
	struct sop_attr attr;
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	fixture_ok(f, sop_lookup(t, SOP_NAME(store, "a"), &attr, &f->e));
	c.a = attr.ino;
	fixture_ok(f, sop_lookup(t, SOP_NAME(store, "b"), &attr, &f->e));
	c.b = attr.ino;
	assert_int_equal(sop_txn_changes(t, one_change, &c, &f->e), 0);
	assert_string_equal(c.text, "");

	fixture_ok(f, sop_rename(t, SOP_NAME(store, "a"), SOP_NAME(store, "moved"), 0, &f->e));
	fixture_ok(f, sop_link(t, SOP_NAME(store, "b"), SOP_NAME(store, "second"), NULL, &f->e));
	fixture_ok(f, sop_create(t, SOP_NAME(store, "n"), &init, NULL, 0, NULL, &f->e));
	fixture_ok(f, sop_create(t, SOP_NAME(store, "x"), &init, NULL, 0, NULL, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "x"), &f->e));
	fixture_ok(f, sop_txn_changes(t, one_change, &c, &f->e));
	/* B's inode has moved away from its name; what was made and removed is nothing. */
	assert_string_equal(c.text, ":->B! a:A!>- b:B!>B moved:->A! n:->new! second:->B ");
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));

	c.text[0] = 0;
	t = fixture_begin(f, SOP_TXN_WRITE);
	attr.mode = 0640;
	fixture_ok(f, sop_setattr(t, SOP_NAME(store, "moved"), &attr, SOP_ATTR_MODE, &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "b"), &f->e));
	fixture_ok(f, sop_remove(t, SOP_NAME(store, "second"), &f->e));
	fixture_ok(f, sop_txn_changes(t, one_change, &c, &f->e));
	assert_string_equal(c.text, ":B!>- b:B>- moved:A!>A! second:B>- ");
	sop_txn_rollback(t);

	t = fixture_begin(f, SOP_TXN_SESSION);
	assert_int_equal(sop_txn_changes(t, one_change, &c, &f->e), -EINVAL);
	sop_txn_rollback(t);
	t = fixture_begin(f, SOP_TXN_READ);
	assert_int_equal(sop_txn_changes(t, one_change, &c, &f->e), -EROFS);
	sop_txn_rollback(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			what_a_transaction_changes_can_be_listed, setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
