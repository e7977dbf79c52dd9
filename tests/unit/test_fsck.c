/* Volumes that contradict themselves: what fsck tells, and that it makes them agree. (Damage to
 * bytes: test_damage.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/engine.h"
#include "core/node_cache.h"
#include "tests/lib/fixture.h"

static struct fixture f;

struct told {
	unsigned count[SOP_FOUND_STATES];
	char text[4096];
};

static void told(void *ctx, const struct sop_finding *x)
{
	struct told *t = ctx;
	size_t at = strlen(t->text);

	t->count[x->state]++;
	if (x->len)
		snprintf(t->text + at, sizeof(t->text) - at, "%s: %llu+%llu: %s\n", x->object,
			(unsigned long long)x->off, (unsigned long long)x->len, x->what);
	else
		snprintf(t->text + at, sizeof(t->text) - at, "%s: %s\n", x->object, x->what);
}

static struct told fsck(bool repair, bool discard)
{
	struct sop_fsck_report r;
	struct told t = {0};
	const struct sop_fsck_opts o = {.repair = repair,
		.discard_lost = discard,
		.found = told,
		.ctx = &t,
		.open_disk = sim_open_disk,
		.open_disk_ctx = f.sim};

	if (sop_fsck(f.paths, f.disks, &o, &r, &f.e))
		fail_msg("fsck: %s", f.e.text);
	return t;
}

static uint64_t store_a, store_b;
static uint8_t value[20000];

static int setup(void **state)
{
	struct sop_txn *t;

	(void)state;
	fixture_init(&f, 2, 1, 0);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_store(&f, "a", &store_a));
	fixture_ok(&f, fixture_store(&f, "a/b", &store_b));
	fill_random(value, sizeof(value), 1);
	fixture_ok(&f, fixture_upsert(&f, store_b, "file", value, sizeof(value), false));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "other", "text", 4, false));
	t = fixture_begin(&f, SOP_TXN_WRITE);
	fixture_ok(&f,
		sop_link(t, SOP_NAME(store_b, "file"), SOP_NAME(SOP_ROOT, "second"), NULL, &f.e));
	fixture_ok(&f, sop_txn_commit(t, 0, &f.e));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_release(&f);
	return 0;
}

static void commit_raw(struct sop_buf *ops)
{
	sop_lock(&f.v->commit);
	fixture_ok(&f, sop_commit_locked(f.v, ops, &f.e));
	sop_unlock(&f.v->commit);
	sop_buf_release(ops);
}

static void drop(uint64_t store, const char *key, unsigned flags)
{
	struct sop_buf ops = {0};

	sop_buf_op(&ops, SOP_OP_DEL, flags, store, key, strlen(key), NULL, 0);
	commit_raw(&ops);
}

static void put_link(uint64_t store, const char *key, uint64_t ino)
{
	struct sop_item link = {.link = true};
	uint8_t raw[SOP_ITEM_BYTES_MAX];
	struct sop_buf ops = {0};
	int len;

	link.attr.ino = ino;
	link.attr.mode = S_IFDIR;
	link.attr.version = f.v->lsn_next;
	len = sop_item_encode(raw, &link);
	assert_true(len > 0);
	sop_buf_op(&ops, SOP_OP_PUT, SOP_OPF_SUBDIR, store, key, strlen(key), raw, (size_t)len);
	commit_raw(&ops);
}

static uint64_t ino_of(uint64_t store, const char *key)
{
	struct sop_attr a;

	fixture_ok(&f, sop_lookup(sop_volume_latest(f.v), SOP_NAME(store, key), &a, &f.e));
	return a.ino;
}

static void set_nlink(uint64_t ino, uint32_t nlink)
{
	uint8_t key[SOP_MASTER_KEY], raw[SOP_ITEM_BYTES_MAX], buf[SOP_ITEM_BYTES_MAX];
	struct sop_buf ops = {0};
	struct sop_item it;
	int len;

	sop_master_key(key, ino, 'i');
	fixture_ok(&f, sop_tree_item(f.v, SOP_STORE_MASTER, SOP_LSN_LATEST, key, sizeof(key), &it,
			       buf, &f.e));
	it.attr.nlink = nlink;
	len = sop_item_encode(raw, &it);
	assert_true(len > 0);
	sop_buf_op(&ops, SOP_OP_PUT, SOP_OPF_QUIET, SOP_STORE_MASTER, key, sizeof(key), raw,
		(size_t)len);
	commit_raw(&ops);
}

static void lose_inode(uint64_t ino)
{
	uint8_t key[SOP_MASTER_KEY];
	struct sop_buf ops = {0};

	sop_master_key(key, ino, 'i');
	sop_buf_op(&ops, SOP_OP_DEL, SOP_OPF_QUIET, SOP_STORE_MASTER, key, sizeof(key), NULL, 0);
	commit_raw(&ops);
}

static void says(const struct told *t, const char *text)
{
	if (!strstr(t->text, text))
		fail_msg("fsck does not say '%s' but:\n%s", text, t->text);
}

/* fsck -n tells this and changes nothing; -y puts it right; then the volume is whole, and open. */
static void is_put_right(const char *text)
{
	struct told t;

	fixture_ok(&f, fixture_close(&f));
	t = fsck(false, false);
	says(&t, text);
	assert_true(t.count[SOP_FOUND_FIXABLE] > 0);
	assert_int_equal(t.count[SOP_FOUND_LOST], 0);
	t = fsck(true, false);
	says(&t, text);
	assert_true(t.count[SOP_FOUND_FIXED] > 0);
	assert_int_equal(t.count[SOP_FOUND_FIXABLE] + t.count[SOP_FOUND_HELP], 0);
	t = fsck(false, false);
	assert_string_equal(t.text, "");
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
}

/* Given up at the n-th time it is asked whether to go on. */
struct given_up {
	struct told t; /* first: it is what told() is told */
	unsigned left;
};

static bool give_up(void *ctx)
{
	struct given_up *g = ctx;

	return g->left && !--g->left;
}

/* What has been repaired is not called so before it has been looked at again. */
static void a_repair_given_up_anywhere_calls_nothing_fixed(void **state)
{
	struct sim *sim = f.sim;
	unsigned n = 0;
	int rc;

	(void)state;
	drop(store_b, "file", 0);
	drop(SOP_ROOT, "second", 0);
	fixture_ok(&f, fixture_close(&f));
	do {
		struct given_up g = {.left = ++n};
		const struct sop_fsck_opts o = {.repair = true,
			.found = told,
			.stop = give_up,
			.ctx = &g,
			.open_disk = sim_open_disk,
			.open_disk_ctx = f.sim = sim_clone(sim, n)};
		struct sop_fsck_report r;

		rc = sop_fsck(f.paths, f.disks, &o, &r, &f.e);
		if (rc == -ECANCELED && g.t.count[SOP_FOUND_FIXED])
			fail_msg("given up at %u: %s", n, g.t.text);
		if (!rc)
			assert_true(g.t.count[SOP_FOUND_FIXED] > 0);
		else
			assert_int_equal(rc, -ECANCELED);
		sim_free(f.sim);
	} while (rc);
	assert_true(n > 3);
	f.sim = sim;
	f.opts.open_disk_ctx = sim;
	fixture_ok(&f, fixture_open(&f));
}

static uint64_t lost_found(void)
{
	return ino_of(SOP_ROOT, "lost+found");
}

static void a_file_without_a_name_gets_one_in_lost_found(void **state)
{
	uint64_t ino = ino_of(store_b, "file");
	char name[32];

	(void)state;
	drop(store_b, "file", 0);
	drop(SOP_ROOT, "second", 0);
	is_put_right("no name leads to it");
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)ino);
	assert_int_equal(fixture_has(&f, lost_found(), name, value, sizeof(value)), 1);
}

static void a_directory_without_a_name_gets_one_in_lost_found(void **state)
{
	char name[32];

	(void)state;
	drop(store_a, "b", SOP_OPF_SUBDIR);
	is_put_right("no name leads to it");
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)store_b);
	assert_true(ino_of(lost_found(), name) == store_b);
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
}

static void a_circle_of_directories_is_opened(void **state)
{
	(void)state;
	drop(SOP_ROOT, "a", SOP_OPF_SUBDIR);
	put_link(store_b, "a", store_a);
	is_put_right("a directory that lies in itself");
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
}

static void a_second_name_of_a_directory_goes(void **state)
{
	struct sop_attr a;

	(void)state;
	put_link(SOP_ROOT, "again", store_b);
	is_put_right("counts 1 names and has 2");
	assert_int_equal(
		sop_lookup(sop_volume_latest(f.v), SOP_NAME(SOP_ROOT, "again"), &a, NULL), -ENOENT);
	assert_true(ino_of(store_a, "b") == store_b);
}

static void a_directory_that_names_another_parent_is_told_where_it_lies(void **state)
{
	(void)state;
	drop(store_a, "b", SOP_OPF_SUBDIR);
	put_link(SOP_ROOT, "moved", store_b);
	is_put_right("as its parent and lies in");
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
}

static void a_wrong_number_of_names_is_corrected(void **state)
{
	struct sop_attr a;

	(void)state;
	set_nlink(ino_of(store_b, "file"), 7);
	is_put_right("counts 7 names and has 2");
	fixture_ok(&f, sop_lookup(sop_volume_latest(f.v), SOP_NAME(store_b, "file"), &a, &f.e));
	assert_int_equal(a.nlink, 2);
}

static void wrong_counts_are_corrected(void **state)
{
	(void)state;
	sop_lock(&f.v->commit);
	fixture_ok(&f, sop_stores_correct(f.v->stores, SOP_ROOT, 40, 9, &f.e));
	f.v->items += 3;
	sop_unlock(&f.v->commit);
	is_put_right("counts 40 entries and has 3");
}

static uint64_t some_segment;
static int first_segment(void *arg, uint64_t id, uint64_t live, unsigned k)
{
	(void)arg;
	(void)k;
	if (live)
		some_segment = id;
	return 0;
}

static void wrong_accounts_are_corrected(void **state)
{
	(void)state;
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	sop_lock(&f.v->commit);
	sop_space_each(f.v->space, first_segment, NULL);
	sop_space_correct_live(f.v->space, some_segment, 1 << 20);
	fixture_ok(&f,
		sop_space_correct_references(f.v->space,
			&(struct sop_blobref){.segment = some_segment, .off = 1 << 20, .len = 9}, 3,
			&f.e));
	sop_unlock(&f.v->commit);
	is_put_right("are live by account");
}

static void a_name_without_an_inode_is_lost_and_stays_until_it_may_go(void **state)
{
	struct told t;
	struct sop_attr a;

	(void)state;
	lose_inode(ino_of(store_b, "file"));
	fixture_ok(&f, fixture_close(&f));
	t = fsck(true, false);
	says(&t, "/second: the name is there, inode");
	says(&t, "/a/b/file: the name is there, inode");
	assert_int_equal(t.count[SOP_FOUND_LOST], 2);
	assert_int_equal(t.count[SOP_FOUND_FIXED], 0);
	t = fsck(true, true);
	assert_int_equal(t.count[SOP_FOUND_DISCARDED], 2);
	assert_int_equal(t.count[SOP_FOUND_LOST], 0);
	t = fsck(false, false);
	assert_string_equal(t.text, "");
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
	assert_int_equal(
		sop_lookup(sop_volume_latest(f.v), SOP_NAME(store_b, "file"), &a, NULL), -ENOENT);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "other", "text", 4), 1);
}

struct biggest {
	char file[64];
	uint64_t size;
};

static void keep_biggest(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct biggest *b = arg;

	(void)allocated;
	if (strncmp(file, "segments/", 9) != 0 || size <= b->size)
		return;
	snprintf(b->file, sizeof(b->file), "%s", file);
	b->size = size;
}

/* A write in the middle cuts an extent in two: both are of one blob. */
static void a_lost_blob_is_told_of_each_range_that_refers_to_it(void **state)
{
	static uint8_t big[400000];
	struct sop_value *x;
	struct sop_txn *t;
	struct told what;

	(void)state;
	fill_random(big, sizeof(big), 2);
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "big", big, sizeof(big), true));
	t = fixture_begin(&f, SOP_TXN_SESSION);
	fixture_ok(&f, sop_value_open(&x, t, SOP_NAME(SOP_ROOT, "big"), SOP_VALUE_WRITE, &f.e));
	assert_int_equal(sop_value_write(x, "middle", 6, 200000, &f.e), 6);
	fixture_ok(&f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f.e));
	fixture_ok(&f, fixture_close(&f));
	for (unsigned i = 0; i < 2; i++) {
		struct biggest b = {.size = 0};

		sim_each_file(f.sim, f.path[i], keep_biggest, &b);
		sim_remove(f.sim, f.path[i], b.file);
	}
	what = fsck(false, false);
	assert_true(strstr(what.text, "/big: 0+") && strstr(what.text, "/big: 200006+"));
	assert_true(!strstr(what.text, "/big: 200000+"));
}

static void a_look_writes_nothing_and_a_volume_in_use_is_not_repaired(void **state)
{
	struct sop_fsck_report r;
	struct sim_counts now;
	struct told t;

	(void)state;
	sim_take_counts(f.sim);
	t = fsck(false, false);
	now = sim_take_counts(f.sim);
	assert_string_equal(t.text, "");
	assert_int_equal(now.writes + now.syncs + now.creates, 0);
	assert_int_equal(
		sop_fsck(f.paths, f.disks,
			&(struct sop_fsck_opts){
				.repair = true, .open_disk = sim_open_disk, .open_disk_ctx = f.sim},
			&r, &f.e),
		SOP_EINUSE);
}

/* Cut off in the last label of all there is nothing to repair: the next mount writes it anew. */
static bool only_a_cut_label(const char *text)
{
	return strstr(text, "its writing was cut off") &&
	       strchr(text, '\n') == text + strlen(text) - 1;
}

static void start_over(struct sim *start, uint64_t seed)
{
	struct sim *was = f.sim;

	f.sim = sim_clone(start, seed);
	sim_free(was);
	f.opts.open_disk_ctx = f.sim;
}

/* A repair is cut off at one step in so many, and made again. */
static void repair_cut_anywhere(
	struct sim *start, uint64_t steps, unsigned stride, void (*holds)(void))
{
	print_message("%llu steps\n", (unsigned long long)steps);
	for (uint64_t i = 1; i <= steps; i += getenv("LONG") ? 1 : stride) {
		struct sop_fsck_report r;
		struct told t;

		start_over(start, i);
		sim_crash_at(f.sim, sim_steps(f.sim) + i);
		sop_fsck(f.paths, f.disks,
			&(struct sop_fsck_opts){
				.repair = true, .open_disk = sim_open_disk, .open_disk_ctx = f.sim},
			&r, NULL);
		sim_power_on(f.sim, SIM_KEEP_RANDOM, i);
		fsck(true, false);
		t = fsck(false, false);
		if (t.text[0] && !only_a_cut_label(t.text))
			fail_msg("step %llu: %s", (unsigned long long)i, t.text);
		holds();
	}
}

static void files_are_there(void)
{
	fixture_ok(&f, fixture_open(&f));
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "second", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "other", "text", 4), 1);
	fixture_ok(&f, fixture_close(&f));
}

/* A repair that is cut off at any step can be made again, and loses nothing. */
static void a_crash_in_a_repair_at_any_step_costs_nothing(void **state)
{
	struct sim *start;
	uint64_t steps, first;

	(void)state;
	set_nlink(ino_of(store_b, "file"), 7);
	drop(SOP_ROOT, "a", SOP_OPF_SUBDIR);
	fixture_ok(&f, fixture_close(&f));
	sim_remove(f.sim, f.path[0], "checkpoint");
	sim_remove(f.sim, f.path[1], "checkpoint");
	sim_remove(f.sim, f.path[0], "registry/00000000");
	sim_remove(f.sim, f.path[1], "registry/00000000");
	start = sim_clone(f.sim, 1);
	first = sim_steps(f.sim);
	fsck(true, false);
	steps = sim_steps(f.sim) - first;
	assert_true(steps > 50);
	repair_cut_anywhere(start, steps, 7, files_are_there);
	sim_free(start);
}

static void root_of(struct sop_blobref *ref, uint64_t store)
{
	struct sop_state_view view;

	fixture_ok(&f, sop_stores_view(f.v->stores, store, SOP_LSN_LATEST, &view, &f.e));
	fixture_ok(&f, sop_registry_lookup(f.v->reg, view.tree.root, ref, &f.e));
}

/* The first key of the root of the store's tree, a leaf, comes last. */
static void disorder(uint64_t store)
{
	struct sop_state_view view;
	uint8_t key[64], val[SOP_VALUE_MAX];
	size_t klen, vlen;
	const void *at;
	struct node *node;
	struct version *x;

	fixture_ok(&f, sop_stores_view(f.v->stores, store, SOP_LSN_LATEST, &view, &f.e));
	sop_lock(&f.v->commit);
	sop_nodes_write_begin(f.v->nodes, f.v->lsn_next - 1);
	fixture_ok(&f, sop_nodes_get(f.v->nodes, view.tree.root, &node, &f.e));
	fixture_ok(&f, sop_nodes_writable(f.v->nodes, node, &x, &f.e));
	sop_nodes_uncount(f.v->nodes, x);
	at = sop_page_key(x->page, 0, &klen);
	assert_true(klen <= sizeof(key) && !sop_page_level(x->page));
	memcpy(key, at, klen);
	at = sop_page_value(x->page, 0, &vlen);
	memcpy(val, at, vlen);
	sop_page_delete(x->page, 0);
	assert_int_equal(
		sop_page_insert(&x->page, sop_page_count(x->page), key, klen, val, vlen), 0);
	sop_nodes_recount(f.v->nodes, x);
	sop_nodes_write_end(f.v->nodes);
	sop_unlock(&f.v->commit);
}

static void all_in_order(void)
{
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, store_b, "one", "1", 1), 1);
	assert_int_equal(fixture_has(&f, store_b, "two", value, 3000), 1);
	fixture_ok(&f, fixture_close(&f));
}

/* Of the entries that are put elsewhere none is in the journal: a crash leaves all of them where
 * they were, or none. */
static void a_leaf_out_of_order_is_put_in_order_and_a_crash_costs_nothing(void **state)
{
	struct sim *start;
	uint64_t steps;
	struct told t;

	(void)state;
	fixture_ok(&f, fixture_upsert(&f, store_b, "one", "1", 1, false));
	fixture_ok(&f, fixture_upsert(&f, store_b, "two", value, 3000, false));
	disorder(store_b);
	fixture_ok(&f, fixture_close(&f));
	start = sim_clone(f.sim, 1);
	steps = sim_steps(f.sim);
	t = fsck(true, false);
	steps = sim_steps(f.sim) - steps;
	says(&t, "cannot be used, but what is in it can be read");
	assert_int_equal(t.count[SOP_FOUND_FIXED], 1);
	assert_int_equal(t.count[SOP_FOUND_LOST] + t.count[SOP_FOUND_FIXABLE], 0);
	repair_cut_anywhere(start, steps, 5, all_in_order);
	sim_free(start);
}

/* Spoil a blob on all disks. */
static void lose_blob(const struct sop_blobref *ref)
{
	uint8_t junk[64];
	unsigned hit = 0;
	char path[64];

	memset(junk, 0xa5, sizeof(junk));
	for (unsigned d = 0; d < f.disks; d++)
		for (unsigned shard = 0; shard < f.disks; shard++) {
			snprintf(path, sizeof(path), "segments/%02x/%016llx.%u",
				(unsigned)(ref->segment & 0xff), (unsigned long long)ref->segment,
				shard);
			hit += !sim_poke(f.sim, f.path[d], path, ref->off + 40, junk, sizeof(junk));
		}
	assert_int_equal(hit, f.disks);
}

/* Attributes that take a blob of their own: of a directory, too, they are counted, looked at, and
 * given up alone. */
static void attributes_of_a_directory_are_counted_and_given_up_without_it(void **state)
{
	uint8_t key[SOP_MASTER_KEY], buf[SOP_ITEM_BYTES_MAX], was[5000], is[5000];
	struct sop_item it;
	struct sop_txn *t;
	struct told what;

	(void)state;
	fill_random(was, sizeof(was), 3);
	t = fixture_begin(&f, SOP_TXN_WRITE);
	fixture_ok(&f, sop_xattr_set(t, SOP_SELF(store_b), "user.x", was, sizeof(was), 0, &f.e));
	fixture_ok(&f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f.e));
	fixture_ok(&f, fixture_close(&f));
	what = fsck(true, false);
	assert_string_equal(what.text, "");
	fixture_ok(&f, fixture_open(&f));
	fixture_settle(&f);
	assert_int_equal(sop_xattr_get(sop_volume_latest(f.v), SOP_SELF(store_b), "user.x", is,
				 sizeof(is), &f.e),
		sizeof(is));
	assert_memory_equal(is, was, sizeof(is));
	sop_master_key(key, store_b, 'i');
	fixture_ok(&f, sop_tree_item(f.v, SOP_STORE_MASTER, SOP_LSN_LATEST, key, sizeof(key), &it,
			       buf, &f.e));
	fixture_ok(&f, fixture_close(&f));
	lose_blob(&it.xattr_blob);
	what = fsck(true, false);
	assert_int_equal(what.count[SOP_FOUND_LOST], 1);
	what = fsck(true, true);
	assert_int_equal(what.count[SOP_FOUND_DISCARDED], 1);
	what = fsck(false, false);
	assert_string_equal(what.text, "");
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
	assert_int_equal(sop_xattr_get(sop_volume_latest(f.v), SOP_SELF(store_b), "user.x", is,
				 sizeof(is), NULL),
		-ENODATA);
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
}

/* The extent tree of one removed file cannot be read: those of others are emptied all the same. */
static void a_removed_file_that_cannot_be_read_holds_up_no_other(void **state)
{
	static const char *const name[] = {"x", "y", "z"};
	uint64_t tree[3];
	struct sop_blobref ref;
	struct sop_state_view view;
	struct sop_check_report r;
	struct told what;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct sop_txn *t = fixture_begin(&f, SOP_TXN_SESSION);
		uint8_t buf[SOP_ITEM_BYTES_MAX];
		struct sop_item it;
		struct sop_value *x;

		fixture_ok(&f, sop_upsert(t, SOP_NAME(SOP_ROOT, name[i]), "", 0, &f.e));
		fixture_ok(&f, sop_txn_commit(t, 0, &f.e));
		t = fixture_begin(&f, SOP_TXN_SESSION);
		fixture_ok(&f,
			sop_value_open(&x, t, SOP_NAME(SOP_ROOT, name[i]), SOP_VALUE_WRITE, &f.e));
		for (unsigned k = 0; k < 40; k++)
			assert_int_equal(sop_value_write(x, value, 3000, k * 10000, &f.e), 3000);
		fixture_ok(&f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f.e));
		fixture_ok(&f,
			sop_tree_item(f.v, SOP_ROOT, SOP_LSN_LATEST, name[i], 1, &it, buf, &f.e));
		tree[i] = it.tree;
		assert_true(tree[i]);
	}
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	root_of(&ref, tree[0]);
	fixture_reopen(&f); /* no node is in memory */
	lose_blob(&ref);
	for (unsigned i = 0; i < 2; i++)
		fixture_ok(&f, fixture_remove(&f, SOP_ROOT, name[i]));
	assert_true(sop_volume_tick(f.v, &f.e) != 0);
	assert_int_equal(
		sop_stores_view(f.v->stores, tree[1], SOP_LSN_LATEST, &view, NULL), -ENOENT);
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, name[2]));
	assert_true(sop_volume_tick(f.v, &f.e) != 0);
	assert_int_equal(
		sop_stores_view(f.v->stores, tree[2], SOP_LSN_LATEST, &view, NULL), -ENOENT);
	fixture_ok(&f, sop_volume_check(f.v, true, NULL, NULL, &r, &f.e));
	assert_true(r.errors > 0);
	(void)fixture_close(&f);
	what = fsck(true, true);
	assert_true(what.count[SOP_FOUND_DISCARDED] > 0);
	what = fsck(false, false);
	assert_string_equal(what.text, "");
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
}

static void holds_what_it_held(void)
{
	fixture_ok(&f, fixture_open(&f));
	fixture_check(&f, true);
	assert_int_equal(fixture_has(&f, store_b, "file", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "late", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "other", "text", 4), 0);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "early", value, 9000), 0);
	/* Space is given and taken as ever. */
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "more", value, sizeof(value), true));
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "late"));
	fixture_ok(&f, sop_volume_tick(f.v, &f.e));
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	fixture_ok(&f, sop_volume_tick(f.v, &f.e));
	fixture_check(&f, true);
	assert_int_equal(fixture_has(&f, SOP_ROOT, "more", value, sizeof(value)), 1);
	fixture_ok(&f, fixture_close(&f));
}

/* With a journal behind the last checkpoint that takes and frees space; and with a repair that is
 * cut off at any step. */
static void a_lost_table_of_segments_is_made_anew_from_the_shard_files(void **state)
{
	struct sop_blobref ref, other;
	struct sim *start;
	uint64_t steps;
	struct told t;

	(void)state;
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "early", value, 9000, true));
	fixture_ok(&f, sop_volume_checkpoint(f.v, &f.e));
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "other"));
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "early"));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "late", value, sizeof(value), true));
	root_of(&ref, SOP_STORE_SEGMENTS);
	root_of(&other, store_a);
	sim_crash_at(f.sim, sim_steps(f.sim) + 1);
	(void)!fixture_close(&f);
	sim_power_on(f.sim, SIM_KEEP_SYNCED_ONLY, 1);
	lose_blob(&ref);
	assert_int_equal(fixture_open(&f), SOP_ELOST);
	t = fsck(false, false);
	says(&t, "(table of segments): it cannot be read");
	assert_int_equal(t.count[SOP_FOUND_LOST], 0);
	start = sim_clone(f.sim, 1);
	steps = sim_steps(f.sim);
	t = fsck(true, false);
	steps = sim_steps(f.sim) - steps;
	assert_int_equal(t.count[SOP_FOUND_FIXED], 1);
	assert_int_equal(t.count[SOP_FOUND_LOST], 0);
	t = fsck(false, false);
	assert_string_equal(t.text, "");
	holds_what_it_held();
	repair_cut_anywhere(start, steps, 5, holds_what_it_held);
	/* What cannot be reached hides what is wanted: then nothing is given back. */
	start_over(start, 1);
	lose_blob(&other);
	t = fsck(true, false);
	assert_int_equal(t.count[SOP_FOUND_LOST], 1);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_remove(&f, SOP_ROOT, "late"));
	fixture_ok(&f, sop_volume_sync(f.v, &f.e));
	fixture_ok(&f, sop_volume_tick(f.v, &f.e));
	fixture_ok(&f, sop_volume_tick(f.v, &f.e));
	assert_int_equal(fixture_has(&f, SOP_ROOT, "second", value, sizeof(value)), 1);
	sim_free(start);
}

/* What is in a slot on too few disks is no commit yet, and no damage either: whoever may write
 * settles it. */
static void a_commit_of_a_shared_volume_that_was_cut_off_is_settled(void **state)
{
	unsigned cut = 0;
	struct sim *start;

	(void)state;
	fixture_release(&f);
	fixture_init_shared(&f, 2, 1);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_upsert(&f, SOP_ROOT, "x", "old", 3, true));
	fixture_ok(&f, fixture_close(&f));
	start = sim_clone(f.sim, 1);
	for (uint64_t i = 1;; i++) {
		bool crashed;
		struct told t;

		start_over(start, i);
		fixture_ok(&f, fixture_open(&f));
		sim_crash_at(f.sim, sim_steps(f.sim) + i);
		(void)fixture_upsert(&f, SOP_ROOT, "y", "new", 3, true);
		crashed = sim_crashed(f.sim);
		sim_power_on(f.sim, SIM_KEEP_ALL, i);
		sop_volume_close(f.v, NULL);
		f.v = NULL;
		t = fsck(false, false);
		if (t.count[SOP_FOUND_HELP] || t.count[SOP_FOUND_LOST])
			fail_msg("step %llu: %s", (unsigned long long)i, t.text);
		cut += !!strstr(t.text, "a commit was cut off");
		t = fsck(true, false);
		if (t.count[SOP_FOUND_FIXABLE] || t.count[SOP_FOUND_HELP] ||
			t.count[SOP_FOUND_LOST])
			fail_msg("step %llu: %s", (unsigned long long)i, t.text);
		t = fsck(false, false);
		assert_string_equal(t.text, "");
		fixture_ok(&f, fixture_open(&f));
		assert_int_equal(fixture_has(&f, SOP_ROOT, "x", "old", 3), 1);
		assert_true(fixture_has(&f, SOP_ROOT, "y", "new", 3) || crashed);
		fixture_ok(&f, fixture_close(&f));
		if (!crashed)
			break;
	}
	assert_true(cut);
	sim_free(start);
}

/* A repair ends what has been begun: afterwards none of the folders given is a member any more. */
static void the_only_disk_may_be_replaced_by_a_repair(void **state)
{
	struct told t;

	(void)state;
	fixture_release(&f);
	fixture_init(&f, 1, 0, 0);
	sim_add_disk(f.sim, "/new", 0);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, fixture_store(&f, "a", &store_a));
	fixture_ok(&f, fixture_upsert(&f, store_a, "file", value, sizeof(value), true));
	fixture_ok(&f, sop_disk_replace(f.v, "d1", "/new", SOP_ADMIN_FORCE, &f.e));
	fixture_ok(&f, fixture_upsert(&f, store_a, "other", "text", 4, true));
	sim_power_on(f.sim, SIM_KEEP_ALL, 1);
	(void)sop_volume_close(f.v, NULL);
	f.v = NULL;
	t = fsck(true, false);
	assert_true(t.count[SOP_FOUND_FIXED] > 0);
	assert_int_equal(t.count[SOP_FOUND_LOST], 0);
	assert_int_equal(t.count[SOP_FOUND_FIXABLE], 0);
	f.paths[0] = "/new";
	t = fsck(false, false);
	assert_int_equal(t.count[SOP_FOUND_FIXABLE] + t.count[SOP_FOUND_HELP], 0);
	fixture_ok(&f, fixture_open(&f));
	assert_int_equal(fixture_has(&f, store_a, "file", value, sizeof(value)), 1);
	assert_int_equal(fixture_has(&f, store_a, "other", "text", 4), 1);
	fixture_check(&f, true);
}

/* What keeps a volume from being opened is told by its name, and not as a want of memory. */
static void a_segment_that_the_accounts_want_and_nobody_has_is_named(void **state)
{
	struct sop_blobref ref = {.segment = 12345ull << 20 | 7, .off = 4096, .len = 100};
	struct sop_checkpoint c = {.uncommitted = &ref, .n_uncommitted = 1};
	struct sop_space *s = sop_space_new(f.v);

	(void)state;
	assert_non_null(s);
	assert_int_equal(sop_space_load(s, &c, &f.e), -ENOENT);
	assert_non_null(strstr(f.e.text, "0000000303900007"));
	sop_space_free(s);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_repair_given_up_anywhere_calls_nothing_fixed),
		T(a_file_without_a_name_gets_one_in_lost_found),
		T(a_directory_without_a_name_gets_one_in_lost_found),
		T(a_circle_of_directories_is_opened),
		T(a_second_name_of_a_directory_goes),
		T(a_directory_that_names_another_parent_is_told_where_it_lies),
		T(a_wrong_number_of_names_is_corrected),
		T(wrong_counts_are_corrected),
		T(wrong_accounts_are_corrected),
		T(a_name_without_an_inode_is_lost_and_stays_until_it_may_go),
		T(a_lost_blob_is_told_of_each_range_that_refers_to_it),
		T(attributes_of_a_directory_are_counted_and_given_up_without_it),
		T(a_removed_file_that_cannot_be_read_holds_up_no_other),
		T(a_look_writes_nothing_and_a_volume_in_use_is_not_repaired),
		T(a_crash_in_a_repair_at_any_step_costs_nothing),
		T(a_leaf_out_of_order_is_put_in_order_and_a_crash_costs_nothing),
		T(a_lost_table_of_segments_is_made_anew_from_the_shard_files),
		T(a_commit_of_a_shared_volume_that_was_cut_off_is_settled),
		T(the_only_disk_may_be_replaced_by_a_repair),
		T(a_segment_that_the_accounts_want_and_nobody_has_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
