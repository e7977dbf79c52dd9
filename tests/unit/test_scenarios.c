/* What programs do with stores, each on simulated disks and on folders, alone and by sixteen
 * threads at once. At the end of each: what was acknowledged is there, the count is right, the
 * volume checks clean, and nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/lib/world.h"

/* A store of the actor's own. */
static uint64_t own_store(struct actor *a, const struct sop_store_opts *o)
{
	char path[32];

	snprintf(path, sizeof(path), "own%u", a->id);
	return actor_store(a, path, o);
}

static int upsert(struct actor *a, struct sop_txn *t, uint64_t store, int64_t key, const char *val)
{
	struct sop_key k = sop_key_int(key);

	return sop_kv_upsert(t, store, &k, val, strlen(val), &a->e);
}

/* The committed value of a key is this (NULL: it is not there). */
static bool holds(struct actor *a, uint64_t store, int64_t key, const char *val)
{
	struct sop_key k = sop_key_int(key);
	void *got;
	size_t len;
	int rc = sop_kv_get(sop_volume_latest(a->w->f.v), store, &k, 0, &got, &len, &a->e);
	bool same = val ? !rc && len == strlen(val) && !memcmp(got, val, len) : rc == -ENOENT;

	free(got);
	return same;
}

static const struct sop_store_opts ints = {.key_type = SOP_KEY_INT64, .slot_length = 500};

static uint64_t filled(struct actor *a, const struct sop_store_opts *o, int64_t n)
{
	uint64_t store = own_store(a, o);
	struct sop_txn *t = store ? actor_begin(a, SOP_TXN_WRITE) : NULL;

	for (int64_t i = 0; t && i < n; i++)
		if (!fine(a, upsert(a, t, store, i, "old"), "fill"))
			break;
	return t && fine(a, sop_txn_commit(t, 0, &a->e), "fill") ? store : 0;
}

/* ---- two transactions ---- */

static void one_item_updated_twice(struct actor *a)
{
	uint64_t store = filled(a, &ints, 10);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE), *u = actor_begin(a, SOP_TXN_WRITE);
	struct sop_key k = sop_key_int(3);

	fine(a, sop_kv_update(t, store, &k, 0, "first", 5, &a->e), "update");
	fine(a, sop_kv_update(u, store, &k, 0, "second", 6, &a->e), "update");
	fine(a, sop_txn_commit(t, 0, &a->e), "first commit");
	need(a, sop_txn_commit(u, 0, &a->e) == SOP_ECONFLICT, "the second is refused");
	need(a, holds(a, store, 3, "first"), "the first's value stands");
	need(a, actor_count(a, store) == 10, "count");
}

static void two_items_of_one_node_updated(struct actor *a)
{
	uint64_t store = filled(a, &ints, 10);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE), *u = actor_begin(a, SOP_TXN_WRITE);
	struct sop_key k = sop_key_int(3), l = sop_key_int(4);

	fine(a, sop_kv_update(t, store, &k, 0, "first", 5, &a->e), "update");
	fine(a, sop_kv_update(u, store, &l, 0, "second", 6, &a->e), "update");
	fine(a, sop_txn_commit(t, 0, &a->e), "first commit");
	fine(a, sop_txn_commit(u, 0, &a->e), "second commit");
	need(a, holds(a, store, 3, "first") && holds(a, store, 4, "second"), "both are there");
}

static void a_reader_of_what_another_writes(struct actor *a)
{
	uint64_t store = filled(a, &ints, 10);

	for (unsigned same = 0; same < 2; same++) {
		struct sop_txn *r = actor_begin(a, SOP_TXN_READ),
			       *w = actor_begin(a, SOP_TXN_WRITE);
		struct sop_key k = sop_key_int(5), l = sop_key_int(same ? 5 : 6);
		void *val;
		size_t len;

		fine(a, sop_kv_get(r, store, &k, 0, &val, &len, &a->e), "read");
		free(val);
		fine(a, sop_kv_update(w, store, &l, 0, "new", 3, &a->e), "update");
		fine(a, sop_txn_commit(w, 0, &a->e), "the writer's commit");
		need(a, sop_txn_commit(r, 0, &a->e) == (same ? SOP_ECONFLICT : 0),
			same ? "the reader of the same item is refused"
			     : "the reader of another item is not");
	}
	need(a, holds(a, store, 5, "new") && holds(a, store, 6, "new"), "values");
}

/* Misses, ranges and counts are read as much as items are. */
static void what_is_not_there_is_read_too(struct actor *a)
{
	uint64_t store = filled(a, &ints, 10);

	for (unsigned what = 0; what < 5; what++) {
		struct sop_txn *r = actor_begin(a, SOP_TXN_WRITE), *w;
		struct sop_key k = sop_key_int(100 + what), from = sop_key_int(50);
		struct sop_cursor *c = NULL;
		uint64_t n;
		int rc = 0;

		if (what == 0)
			rc = sop_kv_find(r, store, &k, 0, NULL, &a->e) == -ENOENT ? 0 : -EIO;
		if (what == 1)
			rc = sop_count(r, store, &n, &a->e);
		if (what >= 2) {
			fine(a, sop_cursor_open(&c, r, store, &a->e), "cursor");
			rc = what == 4 ? sop_cursor_first(c, &a->e)
				       : sop_cursor_seek_key(c, &from, what == 3, &a->e);
			/* Descending from 50 sees 9 and nothing above; the first is 0. */
			sop_cursor_close(c);
		}
		fine(a, rc, "look");
		fine(a, upsert(a, r, store, 1, "depends"), "write");
		w = actor_begin(a, SOP_TXN_WRITE);
		fine(a, upsert(a, w, store, 100 + what, "phantom"), "phantom");
		fine(a, sop_txn_commit(w, 0, &a->e), "phantom's commit");
		rc = sop_txn_commit(r, 0, &a->e);
		need(a, rc == (what < 3 ? SOP_ECONFLICT : 0),
			what < 3 ? "a phantom is a conflict" : "what was not looked at is none");
	}
	need(a, actor_count(a, store) == 15, "count");
}

/* ---- many at once, in one store ---- */

struct crowd {
	uint64_t store;
	bool duplicates;
	_Atomic unsigned committed, refused;
};

/* Into a new store that has no node yet, and, when keys are JSON, no index. */
static void first_commit(struct actor *a)
{
	struct crowd *c = a->arg;
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);

	for (unsigned i = 0; i < 20; i++) {
		char text[64];
		struct sop_key k;

		snprintf(text, sizeof(text), "{\"actor\":%u,\"n\":%u}", a->id, i);
		k = sop_key_json(text);
		fine(a, sop_kv_add(t, c->store, &k, text, k.len, NULL, &a->e), "add");
	}
	if (fine(a, sop_txn_commit(t, 0, &a->e), "one of the first commits"))
		atomic_fetch_add(&c->committed, 1);
}

/* All add the same keys. */
static void same_keys(struct actor *a)
{
	struct crowd *c = a->arg;
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
	int rc = 0;

	for (int64_t i = 0; i < 20 && !rc; i++) {
		struct sop_key k = sop_key_int(i);

		rc = sop_kv_add(t, c->store, &k, &a->id, sizeof(a->id), NULL, &a->e);
	}
	if (rc)
		sop_txn_rollback(t);
	else
		rc = sop_txn_commit(t, 0, &a->e);
	if (!rc)
		atomic_fetch_add(&c->committed, 1);
	else if (need(a, !c->duplicates && (rc == SOP_ECONFLICT || rc == -EEXIST),
			 "refused rightly"))
		atomic_fetch_add(&c->refused, 1);
}

static void parallel_commits(struct world *w, unsigned threads)
{
	struct actor a = {.w = w};
	struct crowd c = {0};

	c.store = actor_store(&a, "first", &(struct sop_store_opts){.key_type = SOP_KEY_JSON});
	world_run(w, threads, first_commit, &c);
	assert_int_equal(actor_count(&a, c.store), 20 * threads);
	for (unsigned d = 0; d < 2; d++) {
		struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .duplicates = d};

		memset(&c, 0, sizeof(c));
		c.duplicates = d;
		c.store = actor_store(&a, d ? "dups" : "unique", &o);
		world_run(w, SOP_MAX(threads, 3u), same_keys, &c);
		assert_int_equal(c.committed, d ? SOP_MAX(threads, 3u) : 1);
		assert_int_equal(actor_count(&a, c.store), 20 * c.committed);
	}
}

/* Writers of keys of their own in one store: every acknowledged item is there. */
static void distinct_keys(struct actor *a)
{
	struct crowd *c = a->arg;

	for (unsigned i = 0; i < 60; i++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
		int64_t key = (int64_t)(i * 1000 + a->id);

		fine(a, upsert(a, t, c->store, key, "x"), "upsert");
		if (i % 3 == 2) /* and a neighbour's goes, that was acknowledged before */
			fine(a,
				sop_kv_remove(t, c->store,
					(struct sop_key[]){sop_key_int(key - 1000)}, 0, &a->e),
				"remove");
		if (fine(a, sop_txn_commit(t, 0, &a->e), "a commit that touches nobody else's"))
			atomic_fetch_add(&c->committed, 1);
	}
	for (unsigned i = 0; i < 60; i++)
		need(a, holds(a, c->store, (int64_t)(i * 1000 + a->id), i % 3 == 1 ? NULL : "x"),
			"what was acknowledged");
}

static void distinct_writers(struct world *w, unsigned threads)
{
	struct actor a = {.w = w};
	struct crowd c = {0};

	c.store = actor_store(&a, "shared",
		&(struct sop_store_opts){.key_type = SOP_KEY_INT64, .slot_length = 4});
	world_run(w, threads, distinct_keys, &c);
	assert_int_equal(actor_count(&a, c.store), 40 * threads);
}

static void create_and_commit_or_roll_back(struct actor *a)
{
	for (unsigned i = 0; i < 20; i++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
		char path[32];
		uint64_t store;
		int rc;

		snprintf(path, sizeof(path), "p%u.%u", a->id, i);
		rc = sop_store_at(t, path, SOP_STORE_CREATE, &ints, &store, &a->e);
		for (int64_t k = 0; k < 10 && !rc; k++)
			rc = upsert(a, t, store, k, path);
		fine(a, rc, path);
		if (i % 2)
			sop_txn_rollback(t);
		else
			fine(a, sop_txn_commit(t, 0, &a->e), "commit of a new store");
		rc = sop_store_at(sop_volume_latest(a->w->f.v), path, 0, NULL, &store, &a->e);
		need(a, rc == (i % 2 ? -ENOENT : 0), "there when committed, else not");
		if (!(i % 2))
			need(a, actor_count(a, store) == 10, "its items");
	}
}

/* ---- keys ---- */

static void keys_are_changed_where_their_order_stays(struct actor *a)
{
	struct sop_index_field index[] = {{"id", false, SOP_FIELD_NUMBER}};
	struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = index, .n_index = 1};
	uint64_t store = own_store(a, &o);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE), *u;
	struct sop_key k1 = sop_key_json("{\"id\":1,\"n\":\"a\"}"),
		       k2 = sop_key_json("{\"id\":2,\"n\":\"b\"}"),
		       new1 = sop_key_json("{\"id\":1,\"n\":\"A\"}"),
		       new2 = sop_key_json("{\"id\":2,\"n\":\"B\"}"),
		       other = sop_key_json("{\"id\":3}"), got;
	struct sop_cursor *c;

	fine(a, sop_kv_add(t, store, &k1, "one", 3, NULL, &a->e), "add");
	fine(a, sop_kv_add(t, store, &k2, "two", 3, NULL, &a->e), "add");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	/* Of different items. */
	t = actor_begin(a, SOP_TXN_WRITE);
	u = actor_begin(a, SOP_TXN_WRITE);
	need(a, sop_kv_rekey(t, store, &k1, 0, &other, &a->e) == -EINVAL, "another place");
	fine(a, sop_kv_rekey(t, store, &k1, 0, &new1, &a->e), "rekey");
	fine(a, sop_kv_rekey(u, store, &k2, 0, &new2, &a->e), "rekey");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	fine(a, sop_txn_commit(u, 0, &a->e), "commit");
	/* Of the same item. */
	t = actor_begin(a, SOP_TXN_WRITE);
	u = actor_begin(a, SOP_TXN_WRITE);
	fine(a, sop_kv_rekey(t, store, &new1, 0, &k1, &a->e), "rekey");
	fine(a, sop_kv_rekey(u, store, &new1, 0, &new1, &a->e), "rekey");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	need(a, sop_txn_commit(u, 0, &a->e) == SOP_ECONFLICT, "the second is refused");
	t = actor_begin(a, SOP_TXN_READ);
	fine(a, sop_cursor_open(&c, t, store, &a->e), "cursor");
	need(a, sop_cursor_first(c, &a->e) == 1, "first");
	fine(a, sop_cursor_typed(c, &got, &a->e), "key");
	need(a, !strcmp(got.p, "{\"id\":1,\"n\":\"a\"}"), "the key as changed last");
	need(a, sop_cursor_next(c, &a->e) == 1, "next");
	fine(a, sop_cursor_typed(c, &got, &a->e), "key");
	need(a, !strcmp(got.p, "{\"id\":2,\"n\":\"B\"}"), "the other key");
	need(a, sop_cursor_next(c, &a->e) == 0, "the end");
	sop_cursor_close(c);
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
}

struct collected {
	char text[64][64];
	unsigned n;
};

static int collect(void *arg, const struct sop_kv_item *item)
{
	struct collected *c = arg;

	snprintf(c->text[c->n++], sizeof(c->text[0]), "%.*s", (int)item->key.len,
		(const char *)item->key.p);
	return 0;
}

static void json_keys_by_two_addresses(struct actor *a)
{
	struct sop_index_field index[] = {
		{"address1", true, SOP_FIELD_STRING}, {"address2", false, SOP_FIELD_STRING}};
	struct sop_store_opts o = {
		.key_type = SOP_KEY_JSON, .index = index, .n_index = 2, .slot_length = 3};
	uint64_t store = own_store(a, &o);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
	struct collected c = {.n = 0};

	/* Given in a scattered order, with a field that is carried along. */
	for (unsigned i = 0; i < 25; i++) {
		unsigned x = i * 7 % 25;
		char text[64];
		struct sop_key k;

		snprintf(text, sizeof(text), "{\"address2\":\"%c\",\"address1\":\"%c\",\"z\":%u}",
			'a' + x % 5, 'A' + x / 5, x);
		k = sop_key_json(text);
		fine(a, sop_kv_add(t, store, &k, text, strlen(text), NULL, &a->e), "add");
	}
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	t = actor_begin(a, SOP_TXN_READ);
	for (unsigned at = 0; at < 30; at += 10) /* the last page is a half one */
		need(a,
			sop_kv_page(t, store, at, 10, 0, collect, &c, &a->e) ==
				(int)SOP_MIN(10u, 25 - at),
			"a page");
	need(a, sop_kv_page(t, store, 25, 10, 0, collect, &c, &a->e) == 0, "past the edge");
	for (unsigned i = 0; i < 25; i++) {
		char want[64];

		snprintf(want, sizeof(want), "{\"address1\":\"%c\",\"address2\":\"%c\",\"z\":%u}",
			'E' - i / 5, 'a' + i % 5, (4 - i / 5) * 5 + i % 5);
		need(a, c.n == 25 && !strcmp(c.text[i], want), "address1 falls, address2 rises");
	}
	c.n = 0;
	need(a, sop_kv_page(t, store, 20, 10, SOP_PAGE_DESCENDING, collect, &c, &a->e) == 5,
		"the last page backward");
	need(a, !strcmp(c.text[4], "{\"address1\":\"E\",\"address2\":\"a\",\"z\":20}"),
		"the first");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
}

static void a_second_opener_with_other_options_is_refused(struct actor *a)
{
	char path[32], *buf = malloc(SOP_STORE_INFO_BYTES);
	struct sop_index_field index[] = {
		{"x", true, SOP_FIELD_ANY}, {"y z", false, SOP_FIELD_BOOL}};
	struct sop_store_opts o = {.key_type = SOP_KEY_JSON,
		.index = index,
		.n_index = 2,
		.slot_length = 77,
		.note = "of the second kind",
		.duplicates = true,
		.balance = true,
		.value_class = SOP_VALUE_MEDIUM,
		.cache_class = SOP_CACHE_HOT};
	struct sop_store_opts has, others[7];
	struct sop_txn *t;
	uint64_t store;

	snprintf(path, sizeof(path), "deep%u/er/down", a->id);
	store = actor_store(a, path, &o);
	need(a, actor_store(a, path, &o) == store, "the same again");
	for (unsigned i = 0; i < SOP_ARRAY_LEN(others); i++)
		others[i] = o;
	others[0].key_type = SOP_KEY_STRING;
	others[0].n_index = 0;
	others[1].n_index = 1;
	others[2].slot_length = 78;
	others[3].note = "of another";
	others[4].duplicates = false;
	others[5].value_class = SOP_VALUE_BIG;
	others[6].profile = "default2";
	for (unsigned i = 0; i < SOP_ARRAY_LEN(others); i++) {
		t = actor_begin(a, SOP_TXN_WRITE);
		need(a,
			sop_store_at(t, path, SOP_STORE_CREATE, &others[i], &store, &a->e) ==
				-EINVAL,
			"refused");
		need(a, strstr(a->e.text, "fixed when a store is made") != NULL, "and told why");
		sop_txn_rollback(t);
	}
	fine(a,
		sop_store_info(sop_volume_latest(a->w->f.v), store, &has, buf, SOP_STORE_INFO_BYTES,
			&a->e),
		"options");
	need(a,
		has.key_type == SOP_KEY_JSON && has.n_index == 2 && has.slot_length == 77 &&
			has.duplicates && has.balance && has.value_class == SOP_VALUE_MEDIUM &&
			has.cache_class == SOP_CACHE_HOT &&
			!strcmp(has.note, "of the second kind") &&
			!strcmp(has.index[0].name, "x") && has.index[0].descending &&
			!strcmp(has.index[1].name, "y z") && has.index[1].type == SOP_FIELD_BOOL,
		"read back as given");
	t = actor_begin(a, SOP_TXN_WRITE);
	has.note = "new";
	fine(a, sop_store_set(t, store, &has, SOP_STORE_NOTE, &a->e), "set");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	fine(a,
		sop_store_info(sop_volume_latest(a->w->f.v), store, &has, buf, SOP_STORE_INFO_BYTES,
			&a->e),
		"options");
	need(a, !strcmp(has.note, "new") && has.slot_length == 77, "what may change, changed");
	free(buf);
}

static void duplicates_by_key_and_id(struct actor *a)
{
	struct sop_store_opts o = {
		.key_type = SOP_KEY_STRING, .duplicates = true, .slot_length = 4};
	uint64_t store = own_store(a, &o), id[6], ino;
	struct sop_key k = sop_key_string("k"), ka = sop_key_string("ka"),
		       none = sop_key_string("j");
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
	struct sop_attr at;
	struct sop_cursor *c;
	void *val;
	size_t len;
	char text[2] = "0";

	fine(a, sop_kv_add(t, store, &ka, "x", 1, NULL, &a->e), "add");
	for (unsigned i = 0; i < 3; i++, text[0]++)
		fine(a, sop_kv_add(t, store, &k, text, 1, &id[i], &a->e), "add");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	t = actor_begin(a, SOP_TXN_WRITE);
	for (unsigned i = 3; i < 6; i++, text[0]++)
		fine(a, sop_kv_add(t, store, &k, text, 1, &id[i], &a->e), "add");
	/* Found before the commit, committed ones and its own. */
	for (unsigned i = 0; i < 6; i++) {
		fine(a, sop_kv_get(t, store, &k, id[i], &val, &len, &a->e), "get by id");
		need(a, val && *(char *)val == '0' + (char)i, "the one with this id");
		free(val);
	}
	fine(a, sop_kv_remove(t, store, &k, id[1], &a->e), "remove a committed one");
	fine(a, sop_kv_remove(t, store, &k, id[4], &a->e), "remove one of its own");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	t = actor_begin(a, SOP_TXN_READ);
	need(a, sop_kv_find(t, store, &none, 0, NULL, &a->e) == -ENOENT, "no such key");
	need(a, sop_kv_find(t, store, &k, id[1], NULL, &a->e) == -ENOENT, "no such id");
	fine(a, sop_kv_find(t, store, &k, 0, &at, &a->e), "the first");
	need(a, at.ino == id[0], "is the one added first");
	fine(a, sop_cursor_open(&c, t, store, &a->e), "cursor");
	need(a, sop_cursor_find(c, &k, id[3], &a->e) == 1, "cursor by id");
	need(a, sop_cursor_prev(c, &a->e) == 1 && sop_cursor_attr(c)->ino == id[2], "previous");
	need(a, sop_cursor_find(c, &none, 0, &a->e) == 0 && sop_cursor_attr(c)->ino == id[0],
		"the nearest after");
	/* In the order of insertion, and by the names that directories show. */
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	sop_cursor_close(c);
	/* Of six, numbers 1, 3, 4 are left, and the last one, which got 5 since its own neighbour
	 * was removed before the commit. */
	{
		static const unsigned left[] = {0, 2, 3, 5}, number[] = {1, 3, 4, 5};

		for (unsigned i = 0; i < 4; i++) {
			char name[16] = "k";

			if (i)
				snprintf(name, sizeof(name), "k%c%u", '#', number[i]);
			if (fine(a,
				    sop_lookup(sop_volume_latest(a->w->f.v), SOP_NAME(store, name),
					    &at, &a->e),
				    name))
				need(a, at.ino == id[left[i]], "the name shows its number");
		}
	}
	ino = id[5];
	t = actor_begin(a, SOP_TXN_WRITE);
	fine(a, sop_kv_update(t, store, &k, ino, "last", 4, &a->e), "update by id");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	need(a, actor_count(a, store) == 5, "count");
}

/* ---- volume ---- */

static void mixed_batches(struct actor *a)
{
	enum { N = 2000, BATCH = 200 };
	uint64_t store = own_store(a, &ints);
	bool *there = calloc(N, sizeof(*there));
	struct sop_kv kv[BATCH];
	uint64_t count = 0;
	size_t done;

	for (unsigned round = 0; round < N / BATCH; round++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);

		for (unsigned i = 0; i < BATCH; i++)
			kv[i] = (struct sop_kv){
				.key = sop_key_int((int64_t)((round * BATCH + i) * 7 % N)),
				.val = "v",
				.len = 1};
		fine(a, sop_kv_batch(t, store, SOP_KV_ADD, kv, BATCH, &done, &a->e), "add");
		need(a, done == BATCH, "all of them");
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
		for (unsigned i = 0; i < BATCH; i++)
			there[kv[i].key.i] = true;
	}
	need(a, actor_count(a, store) == N, "count after adding");
	/* A batch says which item failed. */
	{
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);

		for (unsigned i = 0; i < 5; i++)
			kv[i].key = sop_key_int(i == 3 ? 5 : N + i);
		need(a, sop_kv_batch(t, store, SOP_KV_ADD, kv, 5, &done, &a->e) == -EEXIST,
			"one is there already");
		need(a, done == 3 && strstr(a->e.text, "item 3 of 5"), "which one");
		sop_txn_rollback(t);
	}
	for (unsigned round = 0; round < 10; round++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);

		for (unsigned i = 0; i < BATCH; i++) {
			unsigned x = (unsigned)(next_random(&a->rng) % N);
			struct sop_key k = sop_key_int(x);

			if (there[x] && next_random(&a->rng) % 2)
				fine(a, sop_kv_update(t, store, &k, 0, "w", 1, &a->e), "update");
			else if (there[x])
				fine(a, sop_kv_remove(t, store, &k, 0, &a->e), "remove"),
					there[x] = false;
			else
				fine(a, sop_kv_add(t, store, &k, "x", 1, NULL, &a->e), "add"),
					there[x] = true;
		}
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	}
	for (unsigned x = 0; x < N; x++) {
		struct sop_key k = sop_key_int(x);
		int rc = sop_kv_find(sop_volume_latest(a->w->f.v), store, &k, 0, NULL, &a->e);

		count += there[x];
		need(a, rc == (there[x] ? 0 : -ENOENT), "the survivors, and no other");
	}
	need(a, actor_count(a, store) == count, "count after removing");
	free(there);
}

static void filled_and_emptied_again_and_again(struct actor *a)
{
	struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .slot_length = 8};
	uint64_t store = own_store(a, &o);
	char big[3000];

	memset(big, 'b', sizeof(big));
	for (unsigned round = 0; round < 100; round++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
		struct sop_cursor *c;

		for (int64_t i = 0; i < 30; i++) {
			struct sop_key k = sop_key_int(i);

			fine(a, sop_kv_add(t, store, &k, big, i % 5 ? 3 : sizeof(big), NULL, &a->e),
				"add");
		}
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
		t = actor_begin(a, SOP_TXN_WRITE);
		fine(a, sop_cursor_open(&c, t, store, &a->e), "cursor");
		for (int rc = sop_cursor_first(c, &a->e); rc == 1; rc = sop_cursor_next(c, &a->e))
			fine(a, sop_cursor_remove(c, &a->e), "remove");
		sop_cursor_close(c);
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	}
	need(a, actor_count(a, store) == 0, "empty");
}

/* ---- two phases ---- */

static void prepared_and_rolled_back(struct actor *a)
{
	uint64_t store = filled(a, &ints, 10);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE), *u;
	char big[5000] = {0};
	struct sop_key k = sop_key_int(77);

	fine(a, upsert(a, t, store, 50, "new"), "upsert");
	fine(a, upsert(a, t, store, 3, "changed"), "upsert");
	fine(a, sop_kv_add(t, store, &k, big, sizeof(big), NULL, &a->e), "add a blob");
	fine(a, sop_txn_prepare(t, &a->e), "prepare");
	need(a, sop_txn_id(t) != 0, "it has a number");
	need(a, actor_count(a, store) == 10 && holds(a, store, 3, "old"), "nothing is seen of it");
	/* Others may not touch what it holds, and may all else. */
	u = actor_begin(a, SOP_TXN_WRITE);
	fine(a, upsert(a, u, store, 3, "mine"), "upsert");
	need(a, sop_txn_commit(u, 0, &a->e) == SOP_ECONFLICT, "held");
	u = actor_begin(a, SOP_TXN_WRITE);
	fine(a, upsert(a, u, store, 4, "mine"), "upsert");
	fine(a, sop_txn_commit(u, 0, &a->e), "not held");
	sop_txn_rollback(t);
	need(a, actor_count(a, store) == 10 && holds(a, store, 3, "old"), "as before");
	/* And once more, to the end. */
	t = actor_begin(a, SOP_TXN_WRITE);
	fine(a, upsert(a, t, store, 50, "new"), "upsert");
	fine(a, sop_kv_add(t, store, &k, big, sizeof(big), NULL, &a->e), "add a blob");
	fine(a, sop_txn_prepare(t, &a->e), "prepare");
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	need(a, actor_count(a, store) == 12 && holds(a, store, 50, "new"), "all of it");
}

/* ---- big values ---- */

#define BIG 300000u

static void big_values(struct actor *a)
{
	struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .value_class = SOP_VALUE_BIG};
	uint64_t store = own_store(a, &o);
	uint8_t *want = malloc(2 * BIG), *buf = malloc(2 * BIG);
	struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
	struct sop_value *x = NULL;
	void *got;
	size_t len = BIG, n;

	fill_random(want, 2 * BIG, a->id);
	for (int64_t i = 0; i < 6; i++) {
		struct sop_key k = sop_key_int(i);

		fine(a, sop_kv_add(t, store, &k, want, BIG, NULL, &a->e), "add");
	}
	fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	for (int64_t i = 1; i < 6; i++) {
		struct sop_key k = sop_key_int(i);

		/* A transaction that does nothing but remove. */
		t = actor_begin(a, SOP_TXN_WRITE);
		fine(a, sop_kv_remove(t, store, &k, 0, &a->e), "remove");
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	}
	need(a, actor_count(a, store) == 1, "one is left");
	for (unsigned step = 0; step < 4; step++) {
		struct sop_key k = sop_key_int(0);

		t = actor_begin(a, SOP_TXN_WRITE);
		fine(a, sop_kv_open(&x, t, store, &k, 0, SOP_VALUE_WRITE, &a->e), "open");
		if (step == 0) { /* a part in the middle */
			memset(want + 100000, 'm', 5000);
			fine(a, (int)sop_value_write(x, want + 100000, 5000, 100000, &a->e),
				"write");
		} else if (step == 1) { /* shrunk */
			len = 123456;
			fine(a, sop_value_truncate(x, len, &a->e), "shrink");
		} else if (step == 2) { /* extended */
			fill_random(want + len, BIG, step);
			fine(a, (int)sop_value_write(x, want + len, BIG, len, &a->e), "extend");
			len += BIG;
		} else { /* one byte, at the very end */
			want[len - 1] ^= 1;
			fine(a, (int)sop_value_write(x, want + len - 1, 1, len - 1, &a->e),
				"write");
		}
		sop_value_close(x);
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
		fine(a, sop_kv_get(sop_volume_latest(a->w->f.v), store, &k, 0, &got, &n, &a->e),
			"get");
		need(a, n == len && !memcmp(got, want, len), "the value as it should be");
		free(got);
	}
	free(want);
	free(buf);
}

/* ---- the frame ---- */

struct scenario {
	const char *name;
	void (*actor)(struct actor *a);			  /* one, or many side by side */
	void (*whole)(struct world *w, unsigned threads); /* or: makes its own threads */
};

static const struct scenario scenarios[] = {
	{"one item updated twice", one_item_updated_twice, NULL},
	{"two items of one node updated", two_items_of_one_node_updated, NULL},
	{"a reader of what another writes", a_reader_of_what_another_writes, NULL},
	{"what is not there is read too", what_is_not_there_is_read_too, NULL},
	{"parallel commits", NULL, parallel_commits},
	{"writers of distinct keys", NULL, distinct_writers},
	{"create and commit or roll back", create_and_commit_or_roll_back, NULL},
	{"keys are changed where their order stays", keys_are_changed_where_their_order_stays,
		NULL},
	{"JSON keys by two addresses", json_keys_by_two_addresses, NULL},
	{"a second opener with other options", a_second_opener_with_other_options_is_refused, NULL},
	{"duplicates by key and id", duplicates_by_key_and_id, NULL},
	{"mixed batches", mixed_batches, NULL},
	{"filled and emptied again and again", filled_and_emptied_again_and_again, NULL},
	{"prepared and rolled back", prepared_and_rolled_back, NULL},
	{"big values", big_values, NULL},
};

static void run_all(bool folders, unsigned threads)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(scenarios); i++) {
		struct world w;

		print_message("  %s\n", scenarios[i].name);
		world_init(&w, folders, 2, 2, 0);
		if (scenarios[i].actor)
			world_run(&w, threads, scenarios[i].actor, NULL);
		else
			scenarios[i].whole(&w, threads);
		assert_int_equal(w.wrong, 0);
		world_settle(&w);
		/* And it is so after a remount. */
		world_close(&w);
		world_open(&w);
		world_settle(&w);
		world_release(&w);
	}
}

static void on_simulated_disks_alone(void **state)
{
	(void)state;
	run_all(false, 1);
}

static void on_simulated_disks_by_sixteen_threads(void **state)
{
	(void)state;
	run_all(false, 16);
}

static void on_folders_alone(void **state)
{
	(void)state;
	run_all(true, 1);
}

static void on_folders_by_sixteen_threads(void **state)
{
	(void)state;
	run_all(true, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_simulated_disks_alone),
		cmocka_unit_test(on_simulated_disks_by_sixteen_threads),
		cmocka_unit_test(on_folders_alone),
		cmocka_unit_test(on_folders_by_sixteen_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
