/* Healing, replacing, adding, removing, scrub, on simulated disks: what they leave when the machine
 * stops at any step, and when disks fail, fill or rot meanwhile. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/blob.h"
#include "core/ec.h"
#include "core/format.h"
#include "core/format_volume.h"
#include "core/mend.h"
#include "core/registry_block.h"
#include "tests/lib/fixture.h"

#define ITEMS 12
#define LARGE ((size_t)1500000)

static uint8_t *content;

/* One in so many, where each takes long (under valgrind). */
static unsigned one_in(void)
{
	return getenv("SMALL") ? 5 : 1;
}

/* Item i has this length; its bytes begin at content + i. */
static size_t length_of(unsigned i)
{
	static const size_t len[] = {5, 900, 5000, 40000, LARGE, 100};

	return len[i % SOP_ARRAY_LEN(len)];
}

static uint64_t the_store(struct fixture *f)
{
	uint64_t store;

	fixture_ok(f, fixture_store(f, "s", &store));
	return store;
}

static void put_items(struct fixture *f, const char *prefix)
{
	uint64_t store = the_store(f);
	char key[32];

	for (unsigned i = 0; i < ITEMS; i++) {
		snprintf(key, sizeof(key), "%s%u", prefix, i);
		fixture_ok(f, fixture_upsert(f, store, key, content + i, length_of(i), i % 3 == 0));
	}
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
}

static void check_items(struct fixture *f, const char *prefix)
{
	uint64_t store = the_store(f);
	char key[32];

	for (unsigned i = 0; i < ITEMS; i++) {
		snprintf(key, sizeof(key), "%s%u", prefix, i);
		assert_int_equal(fixture_has(f, store, key, content + i, length_of(i)), 1);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	content = content ? content : malloc(LARGE + ITEMS);
	if (!f || !content)
		return -1;
	fill_random(content, LARGE + ITEMS, 3);
	fixture_init(f, 2, 2, 0);
	sim_add_disk(f->sim, "/new", 0);
	sim_add_disk(f->sim, "/small", 1 << 20);
	f->opts.degraded = true;
	fixture_ok(f, fixture_open(f));
	put_items(f, "a");
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	put_items(f, "b");
	*state = f;
	return 0;
}

static bool disk_named(struct fixture *f, const char *path, struct sop_volume_disk *out)
{
	for (unsigned n = 0; sop_volume_disk(f->v, n, out); n++)
		if (!strcmp(out->path, path))
			return true;
	return false;
}

static void count_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)file;
	(void)size;
	(void)allocated;
	++*(unsigned *)arg;
}

static unsigned files_on(struct fixture *f, const char *path)
{
	unsigned n = 0;

	sim_each_file(f->sim, path, count_file, &n);
	return n;
}

static void tick(struct fixture *f)
{
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
}

/* ---- how it goes when nothing happens ---- */

static void a_replaced_disk_is_let_go_and_the_new_one_has_all(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;
	struct sop_task t;

	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	assert_true(disk_named(f, "/d1", &d));
	assert_int_equal(d.state, SOP_DISK_REPLACING);
	put_items(f, "c");
	tick(f);
	assert_false(disk_named(f, "/d1", &d));
	assert_true(disk_named(f, "/new", &d));
	assert_int_equal(d.state, SOP_DISK_ONLINE);
	assert_true(d.current);
	assert_int_equal(files_on(f, "/d1"), 0);
	assert_true(sop_volume_task(f->v, 0, &t));
	assert_int_equal(t.kind, SOP_TASK_REPLACE);
	assert_int_equal(t.state, SOP_TASK_FINISHED);
	check_items(f, "a");
	check_items(f, "c");
	fixture_check(f, true);
	fixture_ok(f, fixture_close(f));
	/* The new one is found by what the others say, and any two are enough. */
	sim_disk_gone(f->sim, "/d2", true);
	sim_disk_gone(f->sim, "/d4", true);
	f->paths[0] = "/d3";
	fixture_ok(f, fixture_open(f));
	check_items(f, "a");
	check_items(f, "b");
	check_items(f, "c");
}

static void a_removed_disk_leaves_its_shards_to_the_others(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	assert_int_equal(sop_disk_remove(f->v, "d2", 0, &f->e), SOP_EDISKS);
	fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
	fixture_ok(f, sop_disk_remove(f->v, "d2", SOP_ADMIN_DRY_RUN, &f->e));
	fixture_ok(f, sop_disk_remove(f->v, "d2", 0, &f->e));
	tick(f);
	assert_false(disk_named(f, "/d2", &d));
	assert_int_equal(files_on(f, "/d2"), 0);
	/* Its replica of the registry has an heir. */
	unsigned replicas = 0;
	for (unsigned n = 0; sop_volume_disk(f->v, n, &d); n++)
		replicas += d.registry && d.current;
	assert_int_equal(replicas, 3);
	put_items(f, "c");
	fixture_check(f, true);
	fixture_ok(f, fixture_close(f));
	sim_disk_gone(f->sim, "/d1", true);
	sim_disk_gone(f->sim, "/d3", true);
	f->paths[0] = "/d4";
	fixture_ok(f, fixture_open(f));
	check_items(f, "a");
	check_items(f, "b");
	check_items(f, "c");
	/* It can come again. */
	fixture_ok(f, sop_disk_add(f->v, "/d2", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	assert_true(disk_named(f, "/d2", &d));
}

static void a_dead_disk_is_replaced_from_the_others(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	sim_disk_gone(f->sim, "/d1", true);
	put_items(f, "c");
	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	assert_false(disk_named(f, "/d1", &d));
	fixture_check(f, true);
	fixture_ok(f, fixture_close(f));
	/* The old one comes back, and is ignored. */
	sim_disk_gone(f->sim, "/d1", false);
	f->paths[1] = "/new";
	fixture_ok(f, fixture_open(f));
	assert_false(disk_named(f, "/d1", &d));
	check_items(f, "c");
	fixture_check(f, true);
}

/* Nobody else has what it holds: the copy is read back by itself. */
static void the_only_disk_can_be_replaced(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_release(f);
	fixture_init(f, 1, 0, 0);
	sim_add_disk(f->sim, "/new", 0);
	fixture_ok(f, fixture_open(f));
	put_items(f, "a");
	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	put_items(f, "b");
	tick(f);
	assert_false(disk_named(f, "/d1", &d));
	assert_int_equal(files_on(f, "/d1"), 0);
	f->paths[0] = "/new";
	fixture_reopen(f);
	check_items(f, "a");
	check_items(f, "b");
	fixture_check(f, true);
}

static void a_cancelled_replacement_goes_on_with_both_disks(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_replace(f->v, "d3", "/new", SOP_ADMIN_FORCE, &f->e));
	fixture_ok(f, sop_disk_cancel(f->v, "d3", &f->e));
	assert_int_equal(sop_disk_cancel(f->v, "d3", &f->e), -ENOENT);
	tick(f);
	assert_true(disk_named(f, "/d3", &d));
	assert_int_equal(d.state, SOP_DISK_ONLINE);
	assert_true(disk_named(f, "/new", &d));
	put_items(f, "c");
	check_items(f, "a");
	fixture_check(f, true);
}

/* ---- cancelled while it goes on ---- */

#define MOVED	    6
#define MOVED_BYTES ((size_t)300000)

struct cancel {
	struct fixture *f;
	uint64_t crash; /* so many steps later the machine stops; 0: the old disk is full */
	bool done;
};

static void count_shard(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)size;
	(void)allocated;
	*(unsigned *)arg += !strncmp(file, "segments/", 9);
}

static unsigned shards_on(struct fixture *f, const char *path)
{
	unsigned n = 0;

	sim_each_file(f->sim, path, count_shard, &n);
	return n;
}

/* When the third shard is begun on the new disk. */
static void cancel_at_third(void *arg)
{
	struct cancel *c = arg;

	if (c->done || shards_on(c->f, "/new") < 3)
		return;
	c->done = true;
	fixture_ok(c->f, sop_disk_cancel(c->f->v, "d1", &c->f->e));
	if (c->crash) {
		sim_crash_at(c->f->sim, sim_steps(c->f->sim) + c->crash);
		return;
	}
	sim_disk_resize(c->f->sim, "/d1", sim_allocated(c->f->sim, "/d1"));
}

struct both {
	struct fixture *f;
	unsigned n;
};

static void count_both(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct both *b = arg;
	uint8_t byte;

	(void)size;
	(void)allocated;
	b->n += !strncmp(file, "segments/", 9) && !sim_peek(b->f->sim, "/d1", file, 0, &byte, 1);
}

/* Shards that have been moved, and whose old files are still there. */
static unsigned in_both_places(struct fixture *f)
{
	struct both b = {.f = f};

	sim_each_file(f->sim, "/new", count_both, &b);
	return b.n;
}

static void check_moved(struct fixture *f)
{
	uint64_t store = the_store(f);
	char key[32];

	for (unsigned i = 0; i < MOVED; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(fixture_has(f, store, key, content + i, MOVED_BYTES), 1);
	}
}

/* False: the machine did not stop. */
static bool cancel_and_stop(const struct fixture *base, uint64_t n, enum sim_keep keep)
{
	struct fixture f = *base;
	struct cancel c = {.f = &f, .crash = n};
	bool crashed;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	sim_watch(f.sim, cancel_at_third, &c);
	(void)sop_disk_replace(f.v, "d1", "/new", SOP_ADMIN_FORCE, NULL);
	(void)sop_volume_tick(f.v, NULL);
	assert_true(c.done);
	(void)sop_volume_tick(f.v, NULL);
	sim_watch(f.sim, NULL, NULL);
	crashed = sim_crashed(f.sim);
	sim_crash_at(f.sim, 0);
	if (!crashed && n) {
		check_moved(&f);
		fixture_check(&f, true);
		assert_int_equal(in_both_places(&f), 0);
	}
	sop_volume_close(f.v, NULL);
	f.v = NULL;
	sim_power_on(f.sim, keep, n);
	sim_disk_resize(f.sim, "/d1", 0);
	f.paths[f.disks++] = "/new";
	if (fixture_open(&f))
		fail_msg("step %llu: %s", (unsigned long long)n, f.e.text);
	check_moved(&f);
	assert_int_equal(in_both_places(&f), 0);
	fixture_check(&f, true);
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return crashed;
}

/* A volume of one disk, and items to be moved to /new. */
static void begin_moved(struct fixture *f)
{
	uint64_t store;
	char key[32];

	fixture_release(f);
	fixture_init(f, 1, 0, 0);
	sim_add_disk(f->sim, "/new", 0);
	f->opts.degraded = true;
	f->opts.segment_bytes = 400000; /* each item has its own */
	fixture_ok(f, fixture_open(f));
	store = the_store(f);
	for (unsigned i = 0; i < MOVED; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, content + i, MOVED_BYTES, true));
	}
}

struct rotting {
	struct fixture *f;
	bool cancels, done;
};

static void rot_new(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	static const char junk[64] = "junk";
	struct rotting *r = arg;

	(void)allocated;
	if (strncmp(file, "segments/", 9) || size < 100000)
		return;
	for (uint64_t at = 8192; at + sizeof(junk) < size; at += 4096)
		sim_poke(r->f->sim, "/new", file, at, junk, sizeof(junk));
}

/* When the third shard is begun on the new disk, those before it rot there. */
static void rot_at_third(void *arg)
{
	struct rotting *r = arg;

	if (r->done || shards_on(r->f, "/new") < 3)
		return;
	r->done = true;
	if (r->cancels)
		fixture_ok(r->f, sop_disk_cancel(r->f->v, "d1", &r->f->e));
	sim_each_file(r->f->sim, "/new", rot_new, r);
}

/* What the new disk does not give back is there as long as the old one has it: the old copy goes
 * when the new one has been read, also when all has been cancelled meanwhile. */
static void what_rots_where_it_was_moved_to_counts_where_it_was(void **state)
{
	struct fixture *f = *state;

	for (unsigned cancels = 0; cancels < 2; cancels++) {
		struct rotting r = {.f = f, .cancels = cancels};
		struct sop_volume_disk d;

		begin_moved(f);
		f->opts.clock = &fixture_clock;
		fixture_ok(f, fixture_close(f));
		fixture_ok(f, fixture_open(f));
		sim_watch(f->sim, rot_at_third, &r);
		fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
		for (unsigned i = 0; i < 4; i++) {
			fixture_ok(f, sop_volume_tick(f->v, &f->e));
			fixture_skipped_ms += 20000;
		}
		check_moved(f);
		sim_watch(f->sim, NULL, NULL);
		assert_true(r.done);
		assert_int_equal(disk_named(f, f->path[0], &d), cancels);
		assert_int_equal(in_both_places(f), 0);
		fixture_check(f, true);
		sim_power_on(f->sim, SIM_KEEP_SYNCED_ONLY, 1);
		sop_volume_close(f->v, NULL);
		f->paths[f->disks++] = "/new";
		fixture_ok(f, fixture_open(f));
		check_moved(f);
		fixture_check(f, true);
	}
}

static void a_cancelled_replacement_cut_anywhere_loses_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t n = 1;

	begin_moved(f);
	fixture_ok(f, fixture_close(f));
	(void)cancel_and_stop(f, 0, SIM_KEEP_ALL);
	for (; cancel_and_stop(f, n, SIM_KEEP_ALL); n += one_in())
		if (!cancel_and_stop(f, n, (enum sim_keep)(n % 4)))
			break;
	assert_true(n > 10);
	print_message("%llu steps\n", (unsigned long long)n);
	fixture_ok(f, fixture_open(f));
}

struct late {
	struct fixture *f;
	bool again;	 /* asked for once more, when something has been placed there */
	uint64_t newest; /* of the journal's files */
	unsigned shards; /* on d2 when it was cancelled */
	bool cancelled, placed;
};

static void find_newest(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	uint64_t number;

	(void)size;
	(void)allocated;
	if (!strncmp(file, "journal/0", 9) && sscanf(file, "journal/%" SCNx64, &number) == 1)
		*(uint64_t *)arg = SOP_MAX(*(uint64_t *)arg, number);
}

/* In the first checkpoint after something was moved, which is the last of the removal, before it
 * places its nodes. */
static void cancel_late(void *arg)
{
	struct late *l = arg;
	uint64_t newest = 0;

	if (l->cancelled) {
		if (l->placed || shards_on(l->f, "/d2") <= l->shards)
			return;
		l->placed = true;
		if (l->again)
			fixture_ok(l->f, sop_disk_remove(l->f->v, "d2", 0, &l->f->e));
		return;
	}
	sim_each_file(l->f->sim, "/d1", find_newest, &newest);
	if (shards_on(l->f, "/new") && newest > l->newest) {
		l->cancelled = true;
		l->shards = shards_on(l->f, "/d2");
		fixture_ok(l->f, sop_disk_cancel(l->f->v, "d2", &l->f->e));
	}
	l->newest = newest;
}

/* What is synced is there, also without any one disk. */
static void stop_and_check(struct fixture *f)
{
	static const char *const disks[] = {"", "/d1", "/d2", "/new"};

	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	for (unsigned i = 0; i < SOP_ARRAY_LEN(disks); i++) {
		struct fixture g = *f;

		g.v = NULL;
		g.sim = sim_clone(f->sim, i);
		g.opts.open_disk_ctx = g.sim;
		sim_power_on(g.sim, SIM_KEEP_SYNCED_ONLY, i);
		if (disks[i][0])
			sim_disk_gone(g.sim, disks[i], true);
		g.paths[g.disks++] = "/new";
		if (fixture_open(&g))
			fail_msg("without %s: %s", disks[i], g.e.text);
		check_items(&g, "a");
		fixture_check(&g, true);
		fixture_ok(&g, fixture_close(&g));
		sim_free(g.sim);
	}
}

/* True: something was placed on it after it was cancelled. */
static bool remove_and_cancel(const struct fixture *base, unsigned turn, bool again)
{
	struct fixture f = *base;
	struct late l = {.f = &f, .again = again};
	struct sop_volume_disk d;
	char key[8];

	f.v = NULL;
	f.sim = sim_clone(base->sim, turn);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	/* So many segments further, the next goes to others. */
	for (unsigned i = 0; i < turn; i++) {
		snprintf(key, sizeof(key), "t%u", i);
		fixture_ok(&f, fixture_upsert(&f, the_store(&f), key, content, LARGE, true));
	}
	fixture_ok(&f, sop_disk_add(f.v, "/new", SOP_ADMIN_FORCE, &f.e));
	fixture_ok(&f, sop_disk_remove(f.v, "d2", 0, &f.e));
	sim_watch(f.sim, cancel_late, &l);
	tick(&f);
	sim_watch(f.sim, NULL, NULL);
	assert_true(l.cancelled);
	if (!l.again || !l.placed) {
		assert_true(disk_named(&f, "/d2", &d));
		assert_int_equal(d.state, SOP_DISK_ONLINE);
	}
	stop_and_check(&f);
	tick(&f);
	assert_int_equal(disk_named(&f, "/d2", &d), !l.again || !l.placed);
	stop_and_check(&f);
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return l.placed;
}

static void a_removal_cancelled_in_its_last_step_is_cancelled(void **state)
{
	struct fixture *f = *state;
	unsigned placed = 0;

	fixture_release(f);
	fixture_init(f, 1, 1, 0);
	sim_add_disk(f->sim, "/new", 0);
	f->opts.degraded = true;
	f->opts.segment_bytes = 2000000;
	fixture_ok(f, fixture_open(f));
	put_items(f, "a");
	fixture_ok(f, fixture_close(f));
	for (unsigned i = 0; i < 8; i++)
		placed += remove_and_cancel(f, i / 2, i % 2);
	print_message("%u times something was placed there\n", placed);
	assert_true(placed > 0);
	fixture_ok(f, fixture_open(f));
}

static void offline_by_hand_stays_so_over_mounts(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_offline(f->v, "/d2", 0, &f->e));
	put_items(f, "c");
	tick(f);
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	tick(f);
	assert_true(disk_named(f, "/d2", &d));
	assert_int_equal(d.state, SOP_DISK_OFFLINE);
	check_items(f, "c");
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	tick(f);
	assert_true(disk_named(f, "/d2", &d));
	assert_int_equal(d.state, SOP_DISK_ONLINE);
	fixture_check(f, true);
}

/* ---- looked at while it changes ---- */

struct looker {
	struct sop_volume *v;
	atomic_bool stop;
	atomic_uint turns, wrong;
};

static void *look_on(void *arg)
{
	struct looker *l = arg;
	struct sop_profile_info p;

	while (!atomic_load(&l->stop)) {
		if (!sop_profile_get(l->v, 0, &p) || p.disks < 4 || p.disks > 5 || p.k != 2)
			l->wrong++;
		l->turns++;
	}
	return NULL;
}

/* Until the other thread has come round once more, whole. */
static void let_look(struct looker *l)
{
	unsigned from = l->turns;

	while (l->turns - from < 2)
		sched_yield();
}

static void a_profile_is_looked_at_while_its_disks_change(void **state)
{
	struct fixture *f = *state;
	struct looker l = {.v = f->v};
	struct sop_profile_info p;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, look_on, &l), 0);
	for (unsigned i = 0; i < 4; i++) {
		fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
		let_look(&l);
		fixture_ok(f, sop_disk_remove(f->v, "/new", 0, &f->e));
		tick(f);
		let_look(&l);
		/* One that has been removed does not count as the profile's. */
		assert_true(sop_profile_get(f->v, 0, &p));
		assert_int_equal(p.disks, 4);
	}
	l.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(l.wrong, 0);
}

/* ---- folders that will not do ---- */

static void a_folder_that_will_not_do_is_refused_by_name(void **state)
{
	struct fixture *f = *state;
	struct sop_format_opts fo = {
		.force = true, .open_disk = sim_open_disk, .open_disk_ctx = f->sim};
	const char *other[] = {"/other"};

	/* The same twice; one that is a member. */
	assert_int_equal(sop_disk_add(f->v, "/d3", SOP_ADMIN_FORCE, &f->e), -EEXIST);
	assert_non_null(strstr(f->e.text, "/d3"));
	assert_int_equal(sop_disk_replace(f->v, "d1", "/d1", SOP_ADMIN_FORCE, &f->e), -EEXIST);
	/* Of another volume. */
	sim_add_disk(f->sim, "/other", 0);
	fixture_ok(f, sop_format(other, 1, &fo, NULL, &f->e));
	assert_int_equal(sop_disk_add(f->v, "/other", 0, &f->e), SOP_EFOREIGN);
	assert_int_equal(sop_disk_online(f->v, "d1", NULL, &f->e), 0);
	fixture_ok(f, sop_disk_offline(f->v, "d2", 0, &f->e));
	assert_int_equal(sop_disk_online(f->v, "d2", "/other", &f->e), SOP_EFOREIGN);
	assert_int_equal(sop_disk_online(f->v, "d2", "/d3", &f->e), SOP_EFOREIGN);
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	/* Too small, and nothing there. */
	assert_int_equal(sop_disk_replace(f->v, "d1", "/small", SOP_ADMIN_FORCE, &f->e), -ENOSPC);
	assert_true(sop_disk_add(f->v, "/nowhere", 0, &f->e) < 0);
	/* No such disk. */
	assert_int_equal(sop_disk_remove(f->v, "d9", 0, &f->e), -ENOENT);
	/* All checks and nothing else. */
	fixture_ok(f,
		sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE | SOP_ADMIN_DRY_RUN, &f->e));
	assert_int_equal(files_on(f, "/new"), 0);
	tick(f);
	fixture_check(f, true);
}

/* ---- trouble on the way ---- */

static void a_disk_lost_while_another_is_replaced_is_survived(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	sim_disk_gone(f->sim, "/d2", true);
	put_items(f, "c");
	tick(f);
	check_items(f, "a");
	check_items(f, "c");
	assert_false(disk_named(f, "/d1", &d));
	sim_disk_gone(f->sim, "/d2", false);
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	tick(f);
	fixture_check(f, true);
}

/* What was freed while a disk was away stays on it, and on nobody else. Then there are too few
 * shards of it to rebuild another disk's from; but nobody wants it. */
static void what_was_freed_while_a_disk_was_away_is_not_wanted_back(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;
	uint64_t store;

	fixture_ok(f, fixture_store(f, "many", &store));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 600; i++) {
			char key[32];

			snprintf(key, sizeof(key), "%06u", i);
			fixture_ok(
				f, fixture_upsert(f, store, key, content + i + round, 150, false));
		}
		fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
		tick(f);
		if (!round)
			fixture_ok(f, sop_disk_offline(f->v, "d2", 0, &f->e));
	}
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	tick(f);
	sim_disk_gone(f->sim, "/d4", true);
	put_items(f, "c");
	fixture_ok(f, sop_disk_replace(f->v, "d4", "/new", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	assert_false(disk_named(f, "/d4", &d));
	check_items(f, "a");
	check_items(f, "c");
	fixture_check(f, true);
}

static void the_new_disk_lost_while_it_takes_over_loses_nothing(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	sim_fail_io(f->sim, 60, -EIO, false);
	(void)sop_volume_tick(f->v, NULL);
	sim_disk_gone(f->sim, "/new", true);
	put_items(f, "c");
	(void)sop_volume_tick(f->v, NULL);
	check_items(f, "a");
	check_items(f, "b");
	check_items(f, "c");
	sim_disk_gone(f->sim, "/new", false);
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	tick(f);
	assert_false(disk_named(f, "/d1", &d));
	check_items(f, "c");
	fixture_check(f, true);
}

struct rotter {
	struct fixture *f;
	const char *disk;
	uint64_t seed;
	unsigned done;
};

static void rot_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct rotter *r = arg;
	uint8_t junk[16];

	(void)allocated;
	if (strncmp(file, "segments/", 9) || size < 20000)
		return;
	fill_random(junk, sizeof(junk), r->seed);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t off = 5000 + next_random(&r->seed) % (size - 6000);

		sim_poke(r->f->sim, r->disk, file, off, junk, sizeof(junk));
		r->done++;
	}
}

static void rot_all(struct fixture *f, const char *disk)
{
	struct rotter r = {f, disk, 7, 0};

	sim_each_file(f->sim, disk, rot_file, &r);
	assert_true(r.done > 0);
}

/* ---- what a crash cuts short ---- */

static uint64_t checksum_errors(struct fixture *f)
{
	struct sop_volume_disk d;
	uint64_t sum = 0;

	for (unsigned n = 0; sop_volume_disk(f->v, n, &d); n++)
		sum += d.checksum_errors;
	return sum;
}

/* The program is killed at step n of a write; what it had written stays. The number of fragments
 * that a scrub then writes anew. */
static uint64_t cut_and_scrub(struct fixture *base, uint64_t n, size_t len)
{
	struct fixture f = *base;
	struct sop_task t = {0};
	uint64_t store;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	store = the_store(&f);
	/* The same segments hold something that is committed: they stay. */
	fixture_ok(&f, fixture_upsert(&f, store, "whole", content, LARGE, true));
	fixture_ok(&f, fixture_upsert(&f, store, "small", content, 5000, true));
	sim_crash_at(f.sim, sim_steps(f.sim) + n);
	(void)fixture_upsert(&f, store, "cut", content, len, true);
	sop_volume_close(f.v, NULL);
	f.v = NULL;
	sim_power_on(f.sim, SIM_KEEP_ALL, n);
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, sop_scrub_start(f.v, 0, &f.e));
	tick(&f);
	for (unsigned i = 0; sop_volume_task(f.v, i, &t) && t.kind != SOP_TASK_SCRUB; i++)
		;
	if (checksum_errors(&f))
		fail_msg("step %llu: counted as errors of disks", (unsigned long long)n);
	check_items(&f, "a");
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return t.corrected;
}

static void what_a_kill_cuts_short_is_no_error_of_a_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t written = 0;

	tick(f);
	fixture_ok(f, fixture_close(f));
	/* A large value and a small one take turns. */
	for (uint64_t n = 0; n < 60; n++)
		written += cut_and_scrub(f, n / 2 + 1, n % 2 ? LARGE : 5000);
	assert_true(written > 0);
	fixture_ok(f, fixture_open(f));
}

/* ---- a removal goes on after the machine stopped ---- */

struct strays {
	struct rotter r;
	unsigned files;
};

/* What lies on d2 too has been moved from there. */
static void rot_moved(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct strays *s = arg;
	uint8_t byte;

	if (sim_peek(s->r.f->sim, "/d2", file, 0, &byte, 1))
		return;
	s->files += !strncmp(file, "segments/", 9) && size >= 20000;
	rot_file(&s->r, file, size, allocated);
}

static bool is_wrong(struct fixture *f)
{
	struct sop_volume_disk d;

	return disk_named(f, "/new", &d) && d.checksum_errors;
}

/* True: what had been moved when the machine stopped had rotted, and that was seen. */
static bool remove_and_rot(struct fixture *base, uint64_t n, bool *over)
{
	struct strays s = {.r = {.disk = "/new", .seed = n}};
	struct fixture f = *base;
	struct sop_volume_disk d;
	struct sop_label label;
	bool seen, let_go;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	s.r.f = &f;
	fixture_ok(&f, fixture_open(&f));
	sim_crash_at(f.sim, sim_steps(f.sim) + n);
	(void)sop_disk_remove(f.v, "d2", 0, NULL);
	(void)sop_volume_tick(f.v, NULL);
	*over = !sim_crashed(f.sim);
	sop_volume_close(f.v, NULL);
	f.v = NULL;
	sim_power_on(f.sim, SIM_KEEP_ALL, n);
	/* The first that is told. */
	fixture_ok(&f, sop_label_load(&label, sim_disk(f.sim, 0), &f.e));
	let_go = label.member[1].state == SOP_MEMBER_REMOVED;
	sim_each_file(f.sim, "/new", rot_moved, &s);
	fixture_ok(&f, fixture_open(&f));
	(void)sop_disk_remove(f.v, "d2", 0, NULL);
	tick(&f);
	assert_false(disk_named(&f, "/d2", &d));
	seen = is_wrong(&f);
	/* It is right where it lies now, without anybody else. */
	fixture_ok(&f, sop_volume_clear(f.v, NULL, &f.e));
	fixture_ok(&f, sop_scrub_start(f.v, 0, &f.e));
	tick(&f);
	if (is_wrong(&f) && !let_go)
		fail_msg("step %llu: d2 was let go, and what came from it is wrong",
			(unsigned long long)n);
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return seen && s.files;
}

static void what_moved_before_a_restart_is_read_back_before_its_old_copy_goes(void **state)
{
	struct fixture *f = *state;
	unsigned seen = 0, points = getenv("LONG") ? 2000 : 120;
	uint64_t n, steps = 1;
	bool over = false;

	fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	fixture_ok(f, fixture_close(f));
	for (; !over; steps *= 2)
		seen += remove_and_rot(f, steps, &over);
	over = false;
	for (n = steps / 8; !over; n += steps / points + 1)
		seen += remove_and_rot(f, n, &over);
	print_message("%u of them after a move had been recorded\n", seen);
	assert_true(seen > 0);
	fixture_ok(f, fixture_open(f));
}

/* What lies on no disk but /new and d2 to d4 was written there: nothing of it
 * verifies on /new any more, and on the others there is nothing. */
static void lose_it(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	static const uint8_t nothing[64];
	struct strays *s = arg;
	struct sim *sim = s->r.f->sim;
	char other[80];
	uint8_t byte;

	(void)allocated;
	if (strncmp(file, "segments/", 9) || size < LARGE / 4 ||
		!sim_peek(sim, "/d1", file, 0, &byte, 1))
		return;
	s->files++;
	snprintf(other, sizeof(other), "%s", file);
	for (uint64_t off = SOP_SHARD_HEADER; off < size; off += sizeof(nothing)) {
		for (unsigned i = 2; i <= 4; i++)
			for (unsigned shard = 0; shard < 4; shard++) {
				char disk[] = {'/', 'd', (char)('0' + i), '\0'};

				other[strlen(other) - 1] = (char)('0' + shard);
				if (!sim_peek(sim, disk, other, off, &byte, 1))
					sim_poke(sim, disk, other, off, nothing,
						SOP_MIN(size - off, sizeof(nothing)));
			}
		if (off / sizeof(nothing) % 64 != 32 || sim_peek(sim, "/new", file, off, &byte, 1))
			continue;
		byte ^= 0x5a;
		sim_poke(sim, "/new", file, off, &byte, 1);
	}
}

static void what_was_never_moved_stays_on_the_new_disk(void **state)
{
	struct fixture *f = *state;
	struct strays s = {.r = {.f = f}};
	struct sop_volume_disk d;
	struct sop_task t;

	fixture_reopen(f); /* what comes is written to new segments */
	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	put_items(f, "c");
	sim_each_file(f->sim, "/new", lose_it, &s);
	assert_true(s.files > 0);
	tick(f);
	assert_false(disk_named(f, "/d1", &d));
	assert_true(sop_volume_task(f->v, 0, &t));
	assert_int_equal(t.kind, SOP_TASK_REPLACE);
	assert_int_equal(t.state, SOP_TASK_FINISHED);
	assert_true(t.unrecoverable > 0);
	check_items(f, "a");
}

/* ---- profiles without repair on read ---- */

#define SHARD_FILES 64

/* Shard files with large values, one byte of each disk's gone bad in another place. */
struct shard_files {
	struct fixture *f;
	unsigned disk;
	struct shard_file {
		char name[80];
		unsigned disk;
		uint64_t off;
		uint8_t was, bad;
	} file[SHARD_FILES];
	size_t n;
};

static bool has_file(const struct shard_files *l, unsigned disk, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->file[i].disk == disk && !strcmp(l->file[i].name, name))
			return true;
	return false;
}

static void list_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct shard_files *l = arg;

	(void)allocated;
	if (strncmp(file, "segments/", 9) || size < LARGE / 4 || has_file(l, l->disk, file))
		return;
	assert_true(l->n < SHARD_FILES);
	l->file[l->n] = (struct shard_file){.disk = l->disk, .off = size * (l->disk + 1) / 5};
	snprintf(l->file[l->n].name, sizeof(l->file[l->n].name), "%s", file);
	l->n++;
}

static void list_files(struct shard_files *l)
{
	for (l->disk = 0; l->disk < l->f->disks; l->disk++)
		sim_each_file(l->f->sim, l->f->path[l->disk], list_file, l);
}

static void rot_files(struct shard_files *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct shard_file *x = &l->file[i];
		const char *disk = l->f->path[x->disk];

		assert_int_equal(sim_peek(l->f->sim, disk, x->name, x->off, &x->was, 1), 0);
		x->bad = x->was ^ 0x5a;
		assert_int_equal(sim_poke(l->f->sim, disk, x->name, x->off, &x->bad, 1), 0);
	}
}

/* How many of the files from `first` on are as they were before they rotted. */
static unsigned mended(const struct shard_files *l, size_t first, size_t end)
{
	unsigned n = 0;

	for (size_t i = first; i < end; i++) {
		const struct shard_file *x = &l->file[i];
		uint8_t b;

		assert_int_equal(
			sim_peek(l->f->sim, l->f->path[x->disk], x->name, x->off, &b, 1), 0);
		assert_true(b == x->was || b == x->bad);
		n += b == x->was;
	}
	return n;
}

static void what_reads_find_bad_is_left_to_scrub_where_a_profile_says_so(void **state)
{
	const struct sop_profile_opts p = {.name = "kept", .k = 2, .m = 2, .no_repair = true};
	struct fixture *f = *state;
	struct shard_files l = {.f = f};
	uint64_t store;
	size_t others;

	list_files(&l);
	others = l.n;
	assert_true(others > 0);
	fixture_ok(f, sop_profile_add(f->v, &p, &f->e));
	fixture_ok(f, fixture_store(f, "kept", &store)); /* the name is the profile's */
	fixture_ok(f, fixture_upsert(f, store, "first", content, LARGE, true));
	list_files(&l);
	assert_true(l.n > others);
	/* What the next mount makes is of the same kind, and so is what a crash leaves. */
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_upsert(f, store, "second", content + 1, LARGE, true));
	sim_power_on(f->sim, SIM_KEEP_SYNCED_ONLY, 1);
	(void)sop_volume_close(f->v, NULL);
	fixture_ok(f, fixture_open(f));
	list_files(&l);
	rot_files(&l);
	check_items(f, "a");
	check_items(f, "b");
	assert_int_equal(fixture_has(f, store, "first", content, LARGE), 1);
	assert_int_equal(fixture_has(f, store, "second", content + 1, LARGE), 1);
	tick(f);
	assert_true(mended(&l, 0, others) > 0);
	assert_int_equal(mended(&l, others, l.n), 0);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	tick(f);
	assert_int_equal(mended(&l, 0, l.n), l.n);
	fixture_check(f, true);
}

static void rot_met_while_a_disk_is_rebuilt_is_rebuilt_too(void **state)
{
	struct fixture *f = *state;

	tick(f);
	sim_disk_gone(f->sim, "/d1", true);
	put_items(f, "c");
	rot_all(f, "/d3");
	fixture_ok(f, sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	check_items(f, "a");
	check_items(f, "c");
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	tick(f);
	fixture_check(f, true);
}

static void healing_waits_for_room_and_goes_on(void **state)
{
	struct fixture *f = *state;
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_offline(f->v, "d4", 0, &f->e));
	put_items(f, "c");
	sim_disk_resize(f->sim, "/d4", sim_allocated(f->sim, "/d4") + 200000);
	fixture_ok(f, sop_disk_online(f->v, "d4", NULL, &f->e));
	(void)sop_volume_tick(f->v, NULL);
	assert_true(disk_named(f, "/d4", &d));
	assert_int_not_equal(d.state, SOP_DISK_ONLINE);
	check_items(f, "c");
	sim_disk_resize(f->sim, "/d4", 0);
	fixture_reopen(f);
	tick(f);
	assert_true(disk_named(f, "/d4", &d));
	assert_int_equal(d.state, SOP_DISK_ONLINE);
	fixture_check(f, true);
}

static void a_shard_file_that_vanished_is_rebuilt(void **state)
{
	struct fixture *f = *state;
	unsigned before;

	tick(f);
	fixture_ok(f, fixture_close(f));
	before = files_on(f, "/d2");
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_close(f));
	/* As if the folder had been set back to an early state: nothing of it is there. */
	for (unsigned i = 0; i < 400; i++) {
		char file[64];

		for (unsigned shard = 0; shard < 4; shard++)
			for (unsigned epoch = 1; epoch < 8; epoch++) {
				snprintf(file, sizeof(file), "segments/%02x/%016llx.%u", i & 0xff,
					(unsigned long long)epoch << 20 | i, shard);
				(void)sim_remove(f->sim, "/d2", file);
			}
	}
	assert_true(files_on(f, "/d2") < before);
	fixture_ok(f, fixture_open(f));
	tick(f);
	fixture_check(f, true);
}

/* ---- scrub ---- */

static void scrub_repairs_and_says_what_is_lost(void **state)
{
	struct fixture *f = *state;
	struct sop_task t = {0};
	struct sop_lost lost;

	tick(f);
	rot_all(f, "/d2");
	rot_all(f, "/d4");
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	assert_int_equal(sop_scrub_start(f->v, 0, &f->e), -EALREADY);
	tick(f);
	for (unsigned i = 0; sop_volume_task(f->v, i, &t) && t.kind != SOP_TASK_SCRUB; i++)
		;
	assert_int_equal(t.kind, SOP_TASK_SCRUB);
	assert_int_equal(t.state, SOP_TASK_FINISHED);
	assert_true(t.corrected > 0);
	assert_int_equal(t.unrecoverable, 0);
	assert_false(sop_volume_lost(f->v, 0, &lost));
	fixture_check(f, true);
}

static void scrub_is_remembered_by_the_next_mount(void **state)
{
	struct fixture *f = *state;
	struct sop_task t = {0};

	assert_int_equal(sop_scrub_resume(f->v, &f->e), -ENOENT);
	fixture_ok(f, sop_scrub_start(f->v, 1000, &f->e));
	fixture_ok(f, sop_scrub_pause(f->v, &f->e));
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	assert_true(sop_volume_task(f->v, 0, &t));
	assert_int_equal(t.state, SOP_TASK_PAUSED);
	fixture_ok(f, sop_scrub_resume(f->v, &f->e));
	tick(f);
	assert_true(sop_volume_task(f->v, 0, &t));
	assert_int_equal(t.state, SOP_TASK_FINISHED);
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
	assert_true(sop_volume_task(f->v, 0, &t));
	assert_int_equal(t.state, SOP_TASK_FINISHED);
	fixture_check(f, true);
}

static int note_place(void *arg, const struct sop_extent_layout *x)
{
	*(struct sop_extent_layout *)arg = *x;
	return 0;
}

static struct sop_task task_of(struct fixture *f, enum sop_task_kind kind)
{
	struct sop_task t = {0};

	for (unsigned i = 0; sop_volume_task(f->v, i, &t) && t.kind != kind; i++)
		;
	assert_int_equal(t.kind, kind);
	return t;
}

static struct sop_task scrub_task(struct fixture *f)
{
	return task_of(f, SOP_TASK_SCRUB);
}

/* A volume on one disk, with segments of one large value each. */
static void one_disk(struct fixture *f, uint64_t segment_bytes)
{
	fixture_release(f);
	fixture_init(f, 1, 0, 0);
	f->opts.segment_bytes = segment_bytes;
	fixture_ok(f, fixture_open(f));
}

static uint64_t put_large(struct fixture *f, unsigned n)
{
	uint64_t store = the_store(f);
	char key[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "large%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, content + i, 300000, true));
	}
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	return store;
}

/* What is on the new disk alone, and is not synced, may be gone: that it is, the new disk tells,
 * which has missed nothing since it joined. */
static void the_power_may_be_cut_while_the_only_disk_is_replaced(void **state)
{
	struct fixture *base = *state;
	uint64_t store;

	one_disk(base, 0);
	sim_add_disk(base->sim, "/new", 0);
	store = put_large(base, 1);
	fixture_reopen(base); /* what comes is written to new segments */
	fixture_ok(base, sop_disk_replace(base->v, "d1", "/new", SOP_ADMIN_FORCE, &base->e));
	fixture_ok(base, fixture_upsert(base, store, "synced", content, 9000, true));
	fixture_ok(base, sop_volume_sync(base->v, &base->e));
	fixture_ok(base, fixture_upsert(base, store, "late", content, 9000, false));
	for (uint64_t n = 1; n <= 60; n++) {
		struct fixture f = *base;

		f.v = NULL;
		f.sim = sim_clone(base->sim, n);
		f.opts.open_disk_ctx = f.sim;
		sim_power_on(f.sim, SIM_KEEP_RANDOM, n);
		if (fixture_open(&f))
			fail_msg("choice %llu: %s", (unsigned long long)n, f.e.text);
		assert_int_equal(fixture_has(&f, store, "synced", content, 9000), 1);
		fixture_check(&f, true);
		fixture_ok(&f, fixture_close(&f));
		sim_free(f.sim);
	}
}

static struct sop_extent_layout place_of(struct fixture *f, uint64_t store, const char *key)
{
	struct sop_extent_layout x = {0};

	fixture_ok(f, sop_value_layout(sop_volume_latest(f->v), SOP_NAME(store, key), false,
			      note_place, &x, &f->e));
	return x;
}

static void rot_shard(struct fixture *f, const struct sop_extent_layout *x, unsigned shard)
{
	uint8_t junk[16];
	char file[64];

	fill_random(junk, sizeof(junk), 5);
	snprintf(file, sizeof(file), "segments/%02x/%016llx.%u", (unsigned)(x->segment & 0xff),
		(unsigned long long)x->segment, shard);
	assert_int_equal(sim_poke(f->sim, f->path[x->disk[shard]], file, x->segment_off + 100, junk,
				 sizeof(junk)),
		0);
}

static void rot_value(struct fixture *f, uint64_t store, const char *key)
{
	struct sop_extent_layout x = place_of(f, store, key);

	rot_shard(f, &x, 0);
}

static bool stop_mender(void *arg, unsigned disk)
{
	struct fixture *f = arg;

	(void)disk;
	sop_mender_stop(f->v->mender);
	return true;
}

/* The volume is unmounted at the n-th access to its disk while a scrub is under way, and the next
 * mount goes on with it. False: the scrub was over before. */
static bool cut_scrub(struct fixture *base, uint64_t n)
{
	struct fixture f = *base;
	struct sop_task t;
	bool cut;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, sop_scrub_start(f.v, 0, &f.e));
	sim_fail_io(f.sim, n, 0, false);
	sim_choose_io(f.sim, stop_mender, &f);
	tick(&f);
	cut = sim_io_failed(f.sim);
	sim_fail_io(f.sim, 0, 0, false);
	fixture_reopen(&f);
	tick(&f);
	t = scrub_task(&f);
	if (t.state != SOP_TASK_FINISHED || t.unrecoverable != 1)
		fail_msg("cut at access %llu: %s, %llu lost", (unsigned long long)n,
			sop_task_state_name(t.state), (unsigned long long)t.unrecoverable);
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return cut;
}

static void a_scrub_that_is_cut_tells_what_it_had_found(void **state)
{
	struct fixture *f = *state;
	uint64_t store, n = 1;

	one_disk(f, 400000);
	store = put_large(f, 6);
	rot_value(f, store, "large0");
	fixture_ok(f, fixture_close(f));
	while (cut_scrub(f, n))
		n += one_in();
	print_message("%llu accesses\n", (unsigned long long)n);
	assert_true(n > 6);
	fixture_ok(f, fixture_open(f));
}

/* Blocks of the registry that later checkpoints, and recovery, do not write anew. */
static void put_stores(struct fixture *f, const char *prefix)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	for (unsigned i = 0; i < 400; i++) {
		struct sop_attr made;
		char key[16] = "";

		snprintf(key, sizeof(key), "%s%u", prefix, i);
		fixture_ok(
			f, sop_store_create(t, SOP_NAME(SOP_ROOT, key), NULL, NULL, &made, &f->e));
		fixture_ok(f, sop_upsert(t, SOP_NAME(made.ino, "k"), key, sizeof(key), &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
}

static void is_told_as_lost(struct fixture *f, enum sop_task_kind kind, const char *name)
{
	struct sop_task t = task_of(f, kind);
	struct sop_lost lost;

	assert_int_equal(t.state, SOP_TASK_FINISHED);
	assert_int_equal(t.unrecoverable, 1);
	assert_true(sop_volume_lost(f->v, 0, &lost));
	assert_string_equal(lost.name, name);
	assert_false(sop_volume_lost(f->v, 1, &lost));
}

static void what_cannot_be_healed_is_told(void **state)
{
	struct fixture *f = *state;
	struct sop_extent_layout x;
	unsigned rotten = 0;
	uint64_t store;

	fixture_ok(f, sop_disk_offline(f->v, "d3", 0, &f->e));
	store = put_large(f, 2);
	x = place_of(f, store, "large1");
	/* What is freed is nobody's loss. */
	fixture_ok(f, fixture_upsert(f, store, "freed", content, 300000, true));
	for (unsigned i = 0; i < 4 && rotten < 2; i++) {
		struct sop_extent_layout y = place_of(f, store, "freed");

		if (x.disk[i] != 2) {
			rot_shard(f, &x, i);
			rotten++;
		}
		if (y.disk[i] != 2)
			rot_shard(f, &y, i);
	}
	fixture_ok(f, fixture_remove(f, store, "freed"));
	fixture_ok(f, sop_disk_online(f->v, "d3", NULL, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	is_told_as_lost(f, SOP_TASK_HEAL, "/s/large1");
}

static bool names_large1(struct fixture *f)
{
	struct sop_lost lost;

	return sop_volume_lost(f->v, 0, &lost) && !strcmp(lost.name, "/s/large1");
}

struct cutting {
	struct fixture *f;
	uint64_t left; /* accesses */
};

static bool stop_in_heal(void *arg, unsigned disk)
{
	struct cutting *c = arg;
	struct sop_task t;

	for (unsigned i = 0; sop_volume_task(c->f->v, i, &t); i++)
		if (t.kind == SOP_TASK_HEAL && t.state == SOP_TASK_RUNNING && !--c->left)
			return stop_mender(c->f, disk);
	return false;
}

/* The volume is unmounted at the n-th access to its disks while it heals. False: that had ended. */
static bool cut_heal(struct fixture *base, uint64_t n, unsigned *later)
{
	struct fixture f = *base;
	struct cutting c = {&f, n};
	bool cut, told;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	fixture_ok(&f, sop_disk_online(f.v, "d3", NULL, &f.e));
	sim_fail_io(f.sim, 1, 0, false);
	sim_choose_io(f.sim, stop_in_heal, &c);
	tick(&f);
	cut = !c.left;
	sim_fail_io(f.sim, 0, 0, false);
	told = names_large1(&f);
	fixture_reopen(&f);
	fixture_ok(&f, sop_mend_all(f.v, &f.e));
	*later += !told;
	if (!told && !names_large1(&f))
		fail_msg("cut at access %llu: nobody tells what is lost", (unsigned long long)n);
	fixture_ok(&f, fixture_close(&f));
	sim_free(f.sim);
	return cut;
}

static void a_heal_that_is_cut_tells_what_it_had_found(void **state)
{
	struct fixture *f = *state;
	struct sop_extent_layout x;
	unsigned rotten = 0, later = 0;
	uint64_t store, n = 1;

	fixture_ok(f, sop_disk_offline(f->v, "d3", 0, &f->e));
	store = put_large(f, 2);
	x = place_of(f, store, "large1");
	for (unsigned i = 0; i < 4 && rotten < 2; i++)
		if (x.disk[i] != 2) {
			rot_shard(f, &x, i);
			rotten++;
		}
	fixture_ok(f, fixture_close(f));
	while (cut_heal(f, n, &later))
		n++;
	print_message(
		"%llu accesses, told by the next mount %u times\n", (unsigned long long)n, later);
	assert_true(later > 6);
	fixture_ok(f, fixture_open(f));
}

static void what_cannot_be_moved_is_told(void **state)
{
	struct fixture *f = *state;
	uint64_t store;

	for (unsigned remove = 0; remove < 2; remove++) {
		one_disk(f, 400000);
		sim_add_disk(f->sim, "/new", 0);
		store = put_large(f, 3);
		rot_value(f, store, "large1");
		if (remove)
			fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
		fixture_ok(
			f, remove ? sop_disk_remove(f->v, "d1", 0, &f->e)
				  : sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, &f->e));
		tick(f);
		is_told_as_lost(f, remove ? SOP_TASK_REMOVE : SOP_TASK_REPLACE, "/s/large1");
	}
}

/* The registry of d2, where it is not that of d1. With rot: first it is made to be, wherever there
 * is something. */
struct registry {
	struct fixture *f;
	bool rot;
	unsigned files, wrong;
};

static void look_at_registry(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	uint8_t one[SOP_REGISTRY_PAIR], other[SOP_REGISTRY_PAIR], zero[SOP_REGISTRY_PAIR] = {0};
	uint8_t junk[SOP_REGISTRY_PAIR];
	struct registry *r = arg;

	(void)allocated;
	if (strncmp(file, "registry/", 9))
		return;
	r->files++;
	memset(junk, 0xa5, sizeof(junk));
	for (uint64_t off = 0; off + sizeof(one) <= size; off += sizeof(one)) {
		assert_int_equal(sim_peek(r->f->sim, "/d1", file, off, one, sizeof(one)), 0);
		if (r->rot && memcmp(one, zero, sizeof(one)))
			assert_int_equal(
				sim_poke(r->f->sim, "/d2", file, off, junk, sizeof(junk)), 0);
		assert_int_equal(sim_peek(r->f->sim, "/d2", file, off, other, sizeof(other)), 0);
		r->wrong += memcmp(one, other, sizeof(one)) != 0;
	}
}

static unsigned registry_wrong(struct fixture *f, bool rot)
{
	struct registry r = {.f = f, .rot = rot};

	sim_each_file(f->sim, "/d1", look_at_registry, &r);
	assert_int_equal(r.files, 2);
	return r.wrong;
}

/* Two replicas of a registry of two files. */
static void two_replicas(struct fixture *f)
{
	struct sop_err e = {0};
	uint64_t handle = 0;

	fixture_release(f);
	fixture_init(f, 1, 1, 0);
	fixture_ok(f, fixture_open(f));
	put_stores(f, "m");
	while (handle < (uint64_t)sop_members_label(f->v->mem)->hashmod * SOP_REGISTRY_SLOTS)
		fixture_ok(f, sop_registry_alloc(f->v->reg, &handle, &e));
	put_stores(f, "n");
}

static void a_scrub_counts_the_copies_of_the_registry_that_it_mends(void **state)
{
	struct fixture *f = *state;
	unsigned wrong;

	two_replicas(f);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	wrong = registry_wrong(f, true);
	assert_true(wrong > 2);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
	assert_int_equal(registry_wrong(f, false), 0);
	/* Some of them may be met, and mended, by somebody else. */
	assert_in_range(scrub_task(f).corrected, 2, wrong);
	assert_int_equal(scrub_task(f).unrecoverable, 0);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	assert_int_equal(scrub_task(f).corrected, 0);
}

static void a_scrub_counts_the_shards_that_it_cannot_write(void **state)
{
	struct fixture *f = *state;
	struct sop_extent_layout x;
	uint64_t store;
	bool there = false;
	char key[16];

	fixture_release(f);
	fixture_init(f, 2, 1, 0);
	sim_add_disk(f->sim, "/new", 0);
	snprintf(f->path[3], sizeof(f->path[3]), "/new");
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
	fixture_reopen(f); /* what comes is written to new segments */
	store = put_large(f, 4);
	/* A shard on the new one, without which there are three disks still. */
	for (unsigned k = 0; k < 4 && !there; k++) {
		snprintf(key, sizeof(key), "large%u", k);
		x = place_of(f, store, key);
		for (unsigned i = 0; i < 3 && !there; i++)
			if (x.disk[i] == 3) {
				rot_shard(f, &x, i);
				there = true;
			}
	}
	assert_true(there);
	for (unsigned full = 2; full--;) {
		sim_disk_error(f->sim, "/new", 0, full ? -ENOSPC : 0, 0);
		fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
		fixture_ok(f, sop_mend_all(f->v, &f->e));
		assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
		assert_int_equal(scrub_task(f).unrecoverable, full);
		assert_int_equal(scrub_task(f).corrected, !full);
	}
}

static void all_refuse(struct fixture *f, int rc)
{
	static const char *const path[] = {"/d1", "/d2", "/d3", "/d4", "/new"};

	for (size_t i = 0; i < SOP_ARRAY_LEN(path); i++)
		sim_disk_error(f->sim, path[i], 0, rc, rc);
}

static void refuse_when_removed(void *arg)
{
	struct fixture *f = arg;
	struct sop_member_status s;

	sop_members_status(f->v->mem, 0, &s);
	if (s.state == SOP_MEMBER_REMOVED)
		all_refuse(f, -EIO);
}

static void a_removal_that_no_label_can_tell_of_is_not_under_way_for_ever(void **state)
{
	struct fixture *f = *state;

	sim_add_disk(f->sim, "/new", 0);
	fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
	fixture_ok(f, sop_disk_remove(f->v, "d1", 0, &f->e));
	sim_watch(f->sim, refuse_when_removed, f);
	tick(f);
	sim_watch(f->sim, NULL, NULL);
	assert_int_equal(task_of(f, SOP_TASK_REMOVE).state, SOP_TASK_STOPPED);
	(void)fixture_close(f);
	all_refuse(f, 0);
	fixture_ok(f, fixture_open(f));
}

static bool pause_scrub(void *arg, unsigned disk)
{
	struct fixture *f = arg;

	(void)disk;
	(void)sop_scrub_pause(f->v, NULL);
	return true;
}

static void a_scrub_paused_anywhere_has_not_finished(void **state)
{
	struct fixture *f = *state;
	unsigned paused = 0;
	bool met = true;

	two_replicas(f);
	for (uint64_t n = 1; met; n += 31 * one_in()) {
		bool running;

		assert_true(registry_wrong(f, true) > 2);
		fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
		sim_fail_io(f->sim, n, 0, false);
		sim_choose_io(f->sim, pause_scrub, f);
		tick(f);
		met = sim_io_failed(f->sim);
		sim_fail_io(f->sim, 0, 0, false);
		running = !sop_scrub_resume(f->v, NULL);
		paused += running;
		if (running == (scrub_task(f).state == SOP_TASK_FINISHED))
			fail_msg("paused at access %llu: %s", (unsigned long long)n,
				sop_task_state_name(scrub_task(f).state));
		tick(f);
		assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
		assert_int_equal(scrub_task(f).unrecoverable, 0);
		assert_int_equal(registry_wrong(f, false), 0);
	}
	print_message("paused %u times\n", paused);
	assert_true(paused > 10 / one_in());
}

static void a_scrub_cut_anywhere_sees_to_the_whole_registry(void **state)
{
	struct fixture *base = *state;
	bool met = true;

	two_replicas(base);
	fixture_ok(base, fixture_close(base));
	for (uint64_t n = 1; met; n += 57 * one_in()) {
		struct fixture f = *base;

		f.sim = sim_clone(base->sim, n);
		f.opts.open_disk_ctx = f.sim;
		fixture_ok(&f, fixture_open(&f));
		assert_true(registry_wrong(&f, true) > 2);
		fixture_ok(&f, sop_scrub_start(f.v, 0, &f.e));
		sim_fail_io(f.sim, n, 0, false);
		sim_choose_io(f.sim, stop_mender, &f);
		tick(&f);
		met = sim_io_failed(f.sim);
		sim_fail_io(f.sim, 0, 0, false);
		fixture_reopen(&f);
		tick(&f);
		assert_int_equal(scrub_task(&f).state, SOP_TASK_FINISHED);
		if (registry_wrong(&f, false))
			fail_msg("cut at access %llu: %u blocks stay bad", (unsigned long long)n,
				registry_wrong(&f, false));
		fixture_ok(&f, fixture_close(&f));
		sim_free(f.sim);
	}
	fixture_ok(base, fixture_open(base));
}

static void a_scrub_counts_what_is_wrong_with_metadata_and_stays_so(void **state)
{
	static const uint8_t junk[1000] = "rotten";
	struct fixture *f = *state;
	uint64_t room;

	two_replicas(f);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sim_poke(f->sim, f->path[i], "registry/00000000",
					 2 * SOP_REGISTRY_PAIR, junk, sizeof(junk)),
			0);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	tick(f);
	assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
	assert_int_equal(scrub_task(f).unrecoverable, 1);
	/* No room for a checkpoint. */
	room = sim_allocated(f->sim, "/d2");
	sim_disk_resize(f->sim, "/d2", room);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
	assert_int_equal(scrub_task(f).unrecoverable, 2);
	sim_disk_resize(f->sim, "/d2", 0);
}

static bool scrub_anew(void *arg, unsigned disk)
{
	struct fixture *f = arg;

	(void)disk;
	if (!sop_scrub_stop(f->v, NULL))
		fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	return true;
}

static void a_scrub_begun_anew_does_not_go_on_with_the_one_before(void **state)
{
	struct fixture *f = *state;
	uint64_t store, n = 0;
	bool met = true;

	one_disk(f, 400000);
	store = put_large(f, 6);
	rot_value(f, store, "large0");
	while (met) {
		fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
		sim_fail_io(f->sim, ++n, 0, false);
		sim_choose_io(f->sim, scrub_anew, f);
		tick(f);
		met = sim_io_failed(f->sim);
		sim_fail_io(f->sim, 0, 0, false);
		tick(f);
		if (scrub_task(f).state != SOP_TASK_FINISHED || scrub_task(f).unrecoverable != 1)
			fail_msg("anew at access %llu: %s, %llu lost", (unsigned long long)n,
				sop_task_state_name(scrub_task(f).state),
				(unsigned long long)scrub_task(f).unrecoverable);
	}
	assert_true(n > 6);
}

/* What the segments of the first disk have of a kind. */
struct rot_kind {
	struct fixture *f;
	uint8_t kind;
	unsigned n;
};

static void rot_kind(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	static const uint8_t junk[16] = "rotten";
	struct rot_kind *r = arg;
	struct sop_disk_fragment h;

	(void)allocated;
	if (strncmp(file, "segments/", 9))
		return;
	for (uint64_t off = 0; off + 4096 <= size; off += 8) {
		assert_int_equal(sim_peek(r->f->sim, "/d1", file, off, &h, sizeof(h)), 0);
		if (le32_get(h.magic) != SOP_FRAG_MAGIC || le64_get(h.off) != off ||
			h.kind != r->kind)
			continue;
		off += sizeof(h);
		assert_int_equal(sim_poke(r->f->sim, "/d1", file, off, junk, sizeof(junk)), 0);
		r->n++;
	}
}

static void rot_registry(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	static const uint8_t junk[16] = "rotten";
	struct fixture *f = arg;

	(void)allocated;
	for (uint64_t off = 0; !strncmp(file, "registry/", 9) && off < size; off += 512)
		assert_int_equal(sim_poke(f->sim, "/d1", file, off, junk, sizeof(junk)), 0);
}

static void what_nobody_can_tell_of_counts_as_lost(void **state)
{
	struct fixture *f = *state;
	struct rot_kind r = {f, SOP_BLOB_NODE, 0};
	struct sop_lost lost;
	uint64_t store;

	one_disk(f, 0);
	store = put_large(f, 1);
	put_stores(f, "m");
	fixture_reopen(f);
	fixture_check(f, false); /* from here on it has what it needs in memory */
	rot_value(f, store, "large0");
	sim_each_file(f->sim, "/d1", rot_kind, &r);
	assert_true(r.n > 0);
	/* Who needs a node is told by the registry. */
	sim_each_file(f->sim, "/d1", rot_registry, f);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	fixture_ok(f, sop_mend_all(f->v, &f->e));
	assert_true(scrub_task(f).unrecoverable > r.n);
	assert_true(sop_volume_lost(f->v, 0, &lost));
	assert_string_equal(lost.name, "/s/large0");
}

#define MANY 5000u

static void a_scrub_counts_all_that_is_lost_however_many(void **state)
{
	struct fixture *f = *state;
	struct sop_txn *t;
	uint64_t store;
	char key[32];

	one_disk(f, 0);
	store = the_store(f);
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "%u", i);
		fixture_ok(f, sop_upsert(t, SOP_NAME(store, key), content + i, 5000, &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "%u", i);
		rot_value(f, store, key);
	}
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	tick(f);
	assert_int_equal(scrub_task(f).state, SOP_TASK_FINISHED);
	assert_int_equal(scrub_task(f).unrecoverable, MANY);
}

#define FAKE_LEN 200000u

/* A value that will lie at `off` of the segment, full of headers that are right for where they will
 * lie, and tell of a fragment that reaches over all that follows. */
static void fill_fake(uint8_t *data, uint64_t segment, uint64_t off)
{
	uint32_t slice = 100032, at = 0;

	fill_random(data, FAKE_LEN, 9);
	while (at + 64 < slice) {
		uint64_t place = off + 40 + at / 4096 * 4100 + at % 4096;
		struct sop_disk_fragment h = {.magic = le32_make(SOP_FRAG_MAGIC),
			.segment = le64_make(segment),
			.off = le64_make(place),
			.len = le32_make(120000),
			.nonce = le32_make(1),
			.k = 2,
			.m = 2,
			.kind = SOP_BLOB_DATA,
			.slice = le32_make(60032)}; /* 120000 / 2, to a multiple of 64 */

		if (place % 8 || at % 4096 > 4096 - sizeof(h)) {
			at += 4;
			continue;
		}
		h.crc = le32_make(sop_crc32c(0, &h.segment, sizeof(h) - 8));
		memcpy(data + at, &h, sizeof(h));
		at += 40;
	}
}

static void bytes_that_look_like_fragments_hide_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t store = the_store(f), bytes;
	uint8_t *fake = malloc(FAKE_LEN);
	struct sop_extent_layout x = {0}, y = {0};
	struct sop_volume_disk d;
	char key[32];

	assert_non_null(fake);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "probe%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, content, FAKE_LEN, false));
		fixture_ok(f, sop_value_layout(sop_volume_latest(f->v), SOP_NAME(store, key), false,
				      note_place, &x, &f->e));
		bytes = sop_blob_shard_bytes(FAKE_LEN, 2);
		fill_fake(fake, x.segment, x.segment_off + bytes);
		snprintf(key, sizeof(key), "fake%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, fake, FAKE_LEN, false));
		fixture_ok(f, sop_value_layout(sop_volume_latest(f->v), SOP_NAME(store, key), false,
				      note_place, &y, &f->e));
		assert_int_equal(y.segment, x.segment);
		assert_int_equal(y.segment_off, x.segment_off + bytes);
		snprintf(key, sizeof(key), "true%u", i);
		fixture_ok(f, fixture_upsert(f, store, key, content + i, 60000, false));
	}
	for (unsigned i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "fake%u", i);
		fixture_ok(f, fixture_remove(f, store, key));
	}
	tick(f);
	fixture_ok(f, sop_disk_offline(f->v, "d2", 0, &f->e));
	fixture_ok(f, fixture_upsert(f, store, "more", content, 60000, true));
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	tick(f);
	fixture_check(f, true);
	/* Shard 0, which has the headers, stays. */
	snprintf(key, sizeof(key), "/d%u", y.disk[1] + 1);
	sim_disk_gone(f->sim, key, true);
	fixture_ok(f, sop_disk_replace(f->v, key, "/new", SOP_ADMIN_FORCE, &f->e));
	tick(f);
	assert_false(disk_named(f, key, &d));
	fixture_check(f, true);
	fixture_ok(f, sop_scrub_start(f->v, 0, &f->e));
	tick(f);
	free(fake);
}

/* ---- a replica is copied, and something happens ---- */

/* What happens in the moment that d3 has a file of the registry again; and the machine as it is
 * when the labels call the replica there current. */
struct meanwhile {
	struct fixture *f;
	void (*what)(struct fixture *f);
	bool copied, over;
	struct sim *then;
};

static void find_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct meanwhile *m = arg;

	(void)size;
	(void)allocated;
	m->copied = m->copied || !strcmp(file, "registry/00000000");
}

static bool called_current(struct fixture *f, unsigned member)
{
	static uint8_t raw[SOP_LABEL_SIZE];
	struct sop_label l;

	assert_int_equal(sim_peek(f->sim, "/d4", SOP_PATH_LABEL1, 0, raw, sizeof(raw)), 0);
	return !sop_label_decode(&l, raw, sizeof(raw), NULL) && l.member[member].current_since;
}

static void at_step(void *arg)
{
	struct meanwhile *m = arg;

	if (m->over && !m->then && called_current(m->f, 2))
		m->then = sim_clone(m->f->sim, 1);
	if (m->over)
		return;
	m->copied = false;
	sim_each_file(m->f->sim, "/d3", find_file, m);
	m->over = m->copied;
	if (m->over)
		m->what(m->f);
}

/* *g: a volume like f, not open, on that machine, whose processes are gone. */
static void as_it_is(const struct fixture *f, struct sim *machine, struct fixture *g)
{
	*g = *f;
	g->v = NULL;
	g->sim = machine;
	g->opts.open_disk_ctx = machine;
	sim_power_on(machine, SIM_KEEP_ALL, 1);
}

/* d3 missed something, is back, and is healed while that happens. *g: the machine as it was when
 * its replica counted again. */
static void heal_while(struct fixture *f, void (*what)(struct fixture *f), struct fixture *g)
{
	struct meanwhile m = {.f = f, .what = what};
	struct sop_volume_disk d;

	fixture_ok(f, sop_disk_offline(f->v, "d3", 0, &f->e));
	put_items(f, "b");
	sim_remove(f->sim, "/d3", "registry/00000000");
	fixture_ok(f, sop_disk_online(f->v, "d3", NULL, &f->e));
	put_items(f, "c");
	sim_watch(f->sim, at_step, &m);
	tick(f);
	tick(f);
	sim_watch(f->sim, NULL, NULL);
	assert_true(disk_named(f, "/d3", &d));
	assert_true(d.current);
	assert_non_null(m.then);
	as_it_is(f, m.then, g);
}

static void be_away(struct fixture *f)
{
	put_items(f, "d");
	/* It misses nodes, in the middle of a segment that it has: its file is there, not whole. */
	sim_disk_error(f->sim, "/d3", 0, -EIO, -EIO);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	sim_disk_error(f->sim, "/d3", 0, 0, 0);
	fixture_ok(f, sop_disk_online(f->v, "d3", NULL, &f->e));
}

static void a_disk_that_was_away_while_it_was_healed_is_not_taken_for_healed(void **state)
{
	struct fixture *f = *state, g;
	struct sop_volume_disk d;

	heal_while(f, be_away, &g);
	check_items(f, "d");
	fixture_check(f, true);
	/* What it lacks is on record, and healed. */
	fixture_ok(&g, fixture_open(&g));
	assert_true(disk_named(&g, "/d3", &d));
	assert_true(d.current);
	check_items(&g, "d");
	fixture_check(&g, true);
	fixture_ok(&g, fixture_close(&g));
	sim_free(g.sim);
}

struct names {
	char name[64][64];
	unsigned n;
};

static void note_replica(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct names *x = arg;

	(void)size;
	(void)allocated;
	if (strncmp(file, "registry/", 9) && strncmp(file, "journal/", 8) &&
		strcmp(file, SOP_PATH_CHECKPOINT))
		return;
	assert_in_range(x->n, 0, SOP_ARRAY_LEN(x->name) - 1);
	snprintf(x->name[x->n++], sizeof(x->name[0]), "%s", file);
}

/* With nothing left of a disk's replica, but its shards. */
static void lose_replica(struct fixture *f, const char *disk)
{
	struct names x = {.n = 0};

	sim_each_file(f->sim, disk, note_replica, &x);
	for (unsigned i = 0; i < x.n; i++)
		sim_remove(f->sim, disk, x.name[i]);
}

/* All is there with nothing but the replica of d3. Frees the machine. */
static void only_third(struct fixture *g)
{
	lose_replica(g, "/d1");
	lose_replica(g, "/d2");
	fixture_ok(g, fixture_open(g));
	check_items(g, "a");
	check_items(g, "b");
	check_items(g, "c");
	check_items(g, "d");
	fixture_check(g, true);
	fixture_ok(g, fixture_close(g));
	sim_free(g->sim);
}

/* What the first disk has of its newest journal file, or of another file, is spoiled. */
static void spoil(struct fixture *f, const char *begins, bool cut)
{
	struct names x = {.n = 0};
	const char *found = NULL;
	uint8_t junk[512];
	bool any = false;

	memset(junk, 0xa5, sizeof(junk));
	sim_each_file(f->sim, "/d1", note_replica, &x);
	for (unsigned i = 0; i < x.n; i++)
		if (!strncmp(x.name[i], begins, strlen(begins)) &&
			(!found || strcmp(x.name[i], found) > 0))
			found = x.name[i];
	assert_non_null(found);
	if (cut) {
		assert_int_equal(sim_set_size(f->sim, "/d1", found, 0), 0);
		return;
	}
	/* Wherever there is something. */
	for (uint64_t off = 4096; off < 65536; off += 4096) {
		uint8_t was[512];

		if (sim_peek(f->sim, "/d1", found, off, was, sizeof(was)) || !was[0])
			continue;
		assert_int_equal(sim_poke(f->sim, "/d1", found, off, junk, sizeof(junk)), 0);
		any = true;
	}
	if (!any)
		assert_int_equal(sim_poke(f->sim, "/d1", found, 64, junk, 16), 0);
}

static void registry_rots(struct fixture *f)
{
	put_items(f, "d");
	spoil(f, "registry/", false);
}

static void registry_is_cut(struct fixture *f)
{
	put_items(f, "d");
	spoil(f, "registry/", true);
}

static void journal_rots(struct fixture *f)
{
	put_items(f, "d");
	spoil(f, "journal/0", false);
}

static void journal_is_cut(struct fixture *f)
{
	put_items(f, "d");
	spoil(f, "journal/0", true);
}

static void checkpoint_rots(struct fixture *f)
{
	put_items(f, "d");
	spoil(f, SOP_PATH_CHECKPOINT, false);
}

/* It misses a checkpoint, and is read as before. */
static void first_is_set_aside(struct fixture *f)
{
	put_items(f, "d");
	sim_disk_error(f->sim, "/d1", 0, -EIO, -EIO);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	sim_disk_error(f->sim, "/d1", 0, 0, 0);
}

static void a_replica_is_copied_from_what_is_right(void **state)
{
	static const struct {
		const char *name;
		void (*what)(struct fixture *f);
	} cases[] = {
		{"registry rots", registry_rots},
		{"registry is cut", registry_is_cut},
		{"journal rots", journal_rots},
		{"journal is cut", journal_is_cut},
		{"checkpoint rots", checkpoint_rots},
		{"the first is set aside", first_is_set_aside},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOP_ARRAY_LEN(cases); i++) {
		struct fixture g;

		print_message("%s\n", cases[i].name);
		if (i) {
			fixture_teardown(state);
			setup(state);
			f = *state;
		}
		put_stores(f, "m");
		heal_while(f, cases[i].what, &g);
		only_third(&g);
	}
}

/* The first step on d3 that finds a checkpoint on its way there hangs until it is let go. */
struct hang {
	struct fixture *f;
	bool met;
	atomic_bool begun, over, gone;
};

static void find_temp(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct hang *h = arg;

	(void)size;
	(void)allocated;
	h->met = h->met || sop_disk_is_temp(file, SOP_PATH_CHECKPOINT);
}

static void hang_at_temp(void *arg)
{
	struct hang *h = arg;

	if (atomic_load(&h->begun))
		return;
	sim_each_file(h->f->sim, "/d3", find_temp, h);
	if (!h->met)
		return;
	atomic_store(&h->begun, true);
	while (!atomic_load(&h->over))
		usleep(1000);
	atomic_store(&h->gone, true);
}

static void a_checkpoint_that_comes_too_late_does_not_take_the_newer_ones_place(void **state)
{
	struct fixture *f = *state;
	struct hang h = {.f = f};
	struct sop_volume_disk d;
	struct fixture g;

	fixture_ok(f, fixture_close(f));
	f->opts.inline_io = false;
	f->opts.no_threads = true;
	f->opts.disk_timeout_ms = 2000; /* what does not hang answers in that time */
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, sop_disk_offline(f->v, "d3", 0, &f->e));
	put_items(f, "b");
	fixture_ok(f, sop_disk_online(f->v, "d3", NULL, &f->e));
	sim_watch(f->sim, hang_at_temp, &h);
	tick(f);
	assert_true(atomic_load(&h.begun));
	assert_true(disk_named(f, "/d3", &d));
	assert_false(d.current);
	/* It answers again, but for that call, and is healed. */
	fixture_ok(f, sop_disk_online(f->v, "d3", NULL, &f->e));
	tick(f);
	assert_true(disk_named(f, "/d3", &d));
	assert_true(d.current);
	put_items(f, "c");
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	put_items(f, "d");
	atomic_store(&h.over, true);
	/* What it does then it does at once. */
	for (unsigned i = 0; i < 200 || !atomic_load(&h.gone); i++)
		usleep(1000);
	sim_watch(f->sim, NULL, NULL);
	as_it_is(f, sim_clone(f->sim, 1), &g);
	only_third(&g);
}

/* Commits that go on while a replica is brought up to date, in further files of the journal. */
struct filling {
	struct fixture *f;
	uint64_t store, trigger;
	unsigned times, done;
	bool met;
};

static void find_file_to_fill(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct filling *x = arg;
	uint64_t number;

	(void)size;
	(void)allocated;
	if (!x->done)
		x->met = x->met || sop_disk_is_temp(file, SOP_PATH_CHECKPOINT);
	else if (!strncmp(file, "journal/0", 9) && sscanf(file, "journal/%" SCNx64, &number) == 1)
		x->met = x->met || number == x->trigger;
}

static void fill_files(struct filling *x, unsigned from)
{
	char key[16];

	for (unsigned i = from; i < from + 40; i++) {
		snprintf(key, sizeof(key), "x%u", i);
		fixture_ok(x->f, fixture_upsert(x->f, x->store, key, content + i, 2000, true));
	}
}

/* First when d2 gets its checkpoint, which is after the files so far were listed; then whenever it
 * gets the first of those that the time before began: commits are not held off then. */
static void fill_meanwhile(void *arg)
{
	struct filling *x = arg;
	uint64_t newest = 0;

	if (x->done == x->times)
		return;
	x->met = false;
	sim_each_file(x->f->sim, "/d2", find_file_to_fill, x);
	if (!x->met)
		return;
	sim_each_file(x->f->sim, "/d1", find_newest, &newest);
	x->trigger = newest;
	fill_files(x, 40 * x->done++);
}

static void heal_while_filling(struct fixture *f, unsigned times)
{
	struct filling x = {.f = f, .times = times};
	struct sop_volume_disk d;
	struct fixture g;
	char key[16];

	fixture_release(f);
	fixture_init(f, 1, 1, 0);
	f->opts.degraded = true;
	f->opts.journal_bytes = 65536;
	fixture_ok(f, fixture_open(f));
	x.store = the_store(f);
	fixture_ok(f, sop_disk_offline(f->v, "d2", 0, &f->e));
	fixture_ok(f, fixture_upsert(f, x.store, "b", "2", 1, true));
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	fixture_ok(f, sop_disk_online(f->v, "d2", NULL, &f->e));
	sim_watch(f->sim, fill_meanwhile, &x);
	tick(f);
	sim_watch(f->sim, NULL, NULL);
	assert_int_equal(x.done, times);
	assert_true(disk_named(f, "/d2", &d));
	assert_true(d.current);
	as_it_is(f, sim_clone(f->sim, 1), &g);
	sim_disk_gone(g.sim, "/d1", true);
	if (fixture_open(&g))
		fail_msg("filled %u times: %s", times, g.e.text);
	for (unsigned i = 0; i < 40 * times; i++) {
		snprintf(key, sizeof(key), "x%u", i);
		assert_int_equal(fixture_has(&g, x.store, key, content + i, 2000), 1);
	}
	fixture_check(&g, true);
	fixture_ok(&g, fixture_close(&g));
	sim_free(g.sim);
}

/* The last of these: as often as commits are let go on. */
static void a_replica_gets_all_files_of_the_journal_that_commits_begin_meanwhile(void **state)
{
	heal_while_filling(*state, 1);
	heal_while_filling(*state, 2);
	heal_while_filling(*state, 5);
}

/* ---- the machine stops ---- */

enum what { REPLACE, REMOVE, HEAL, ADD };

static void begin_work(struct fixture *f, enum what what)
{
	switch (what) {
	case REPLACE:
		(void)sop_disk_replace(f->v, "d1", "/new", SOP_ADMIN_FORCE, NULL);
		break;
	case REMOVE:
		(void)sop_disk_remove(f->v, "d2", 0, NULL);
		break;
	case HEAL:
		(void)sop_disk_online(f->v, "d3", NULL, NULL);
		break;
	case ADD:
		(void)sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, NULL);
		break;
	}
	(void)sop_volume_tick(f->v, NULL);
}

/* From the same state, stopped at step n of the work. False: it was done before. */
static bool stop_at(struct fixture *base, enum what what, uint64_t n)
{
	struct fixture f = *base;
	bool crashed;

	f.v = NULL;
	f.sim = sim_clone(base->sim, n);
	f.opts.open_disk_ctx = f.sim;
	fixture_ok(&f, fixture_open(&f));
	sim_crash_at(f.sim, sim_steps(f.sim) + n);
	begin_work(&f, what);
	crashed = sim_crashed(f.sim);
	sop_volume_close(f.v, NULL);
	f.v = NULL;
	sim_power_on(f.sim, (enum sim_keep)(n % 4), n);
	/* Given are those that the volume began with. */
	if (fixture_open(&f))
		fail_msg("step %llu: %s", (unsigned long long)n, f.e.text);
	check_items(&f, "a");
	check_items(&f, "b");
	/* What was begun and recorded goes on; what was not can be begun again. */
	tick(&f);
	begin_work(&f, what);
	tick(&f);
	check_items(&f, "a");
	fixture_check(&f, true);
	fixture_ok(&f, fixture_close(&f));
	/* And any two may go. */
	sim_disk_gone(f.sim, f.path[n % 4], true);
	sim_disk_gone(f.sim, f.path[(n + 1) % 4], true);
	if (fixture_open(&f) == 0) {
		check_items(&f, "a");
		check_items(&f, "b");
		(void)fixture_close(&f);
	} else if (what == HEAL) {
		fail_msg("step %llu: %s", (unsigned long long)n, f.e.text);
	}
	sim_free(f.sim);
	return crashed;
}

static void stop_at_each_step(struct fixture *f, enum what what, unsigned points)
{
	uint64_t n, steps = 1;

	if (what == REMOVE)
		fixture_ok(f, sop_disk_add(f->v, "/new", SOP_ADMIN_FORCE, &f->e));
	if (what == HEAL) {
		fixture_ok(f, sop_disk_offline(f->v, "d3", 0, &f->e));
		put_items(f, "b");
	}
	tick(f);
	fixture_ok(f, fixture_close(f));
	/* How many there are. */
	while (stop_at(f, what, steps * 2))
		steps *= 2;
	if (getenv("LONG"))
		points = (unsigned)steps * 2;
	points /= one_in();
	for (unsigned i = 0; i < points; i++) {
		n = 1 + (uint64_t)i * steps * 2 / points;
		if (!stop_at(f, what, n))
			break;
	}
	print_message("about %llu steps\n", (unsigned long long)steps * 2);
	fixture_ok(f, fixture_open(f));
}

static void a_replacement_cut_anywhere_goes_on(void **state)
{
	stop_at_each_step(*state, REPLACE, 60);
}

static void a_removal_cut_anywhere_goes_on(void **state)
{
	stop_at_each_step(*state, REMOVE, 60);
}

static void healing_cut_anywhere_goes_on(void **state)
{
	stop_at_each_step(*state, HEAL, 60);
}

static void an_addition_cut_anywhere_leaves_a_volume(void **state)
{
	stop_at_each_step(*state, ADD, 40);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(a_replaced_disk_is_let_go_and_the_new_one_has_all),
		T(a_removed_disk_leaves_its_shards_to_the_others),
		T(a_dead_disk_is_replaced_from_the_others),
		T(the_only_disk_can_be_replaced),
		T(a_cancelled_replacement_goes_on_with_both_disks),
		T(a_cancelled_replacement_cut_anywhere_loses_nothing),
		T(what_rots_where_it_was_moved_to_counts_where_it_was),
		T(a_removal_cancelled_in_its_last_step_is_cancelled),
		T(offline_by_hand_stays_so_over_mounts),
		T(a_profile_is_looked_at_while_its_disks_change),
		T(a_folder_that_will_not_do_is_refused_by_name),
		T(a_disk_lost_while_another_is_replaced_is_survived),
		T(what_was_freed_while_a_disk_was_away_is_not_wanted_back),
		T(the_new_disk_lost_while_it_takes_over_loses_nothing),
		T(what_reads_find_bad_is_left_to_scrub_where_a_profile_says_so),
		T(rot_met_while_a_disk_is_rebuilt_is_rebuilt_too),
		T(healing_waits_for_room_and_goes_on),
		T(a_shard_file_that_vanished_is_rebuilt),
		T(scrub_repairs_and_says_what_is_lost),
		T(scrub_is_remembered_by_the_next_mount),
		T(a_scrub_that_is_cut_tells_what_it_had_found),
		T(a_scrub_begun_anew_does_not_go_on_with_the_one_before),
		T(what_nobody_can_tell_of_counts_as_lost),
		T(what_cannot_be_healed_is_told),
		T(a_scrub_counts_the_copies_of_the_registry_that_it_mends),
		T(a_scrub_counts_the_shards_that_it_cannot_write),
		T(a_removal_that_no_label_can_tell_of_is_not_under_way_for_ever),
		T(a_heal_that_is_cut_tells_what_it_had_found),
		T(what_cannot_be_moved_is_told),
		T(a_scrub_paused_anywhere_has_not_finished),
		T(a_scrub_cut_anywhere_sees_to_the_whole_registry),
		T(a_scrub_counts_what_is_wrong_with_metadata_and_stays_so),
		T(a_scrub_counts_all_that_is_lost_however_many),
		T(what_a_kill_cuts_short_is_no_error_of_a_disk),
		T(bytes_that_look_like_fragments_hide_nothing),
		T(a_disk_that_was_away_while_it_was_healed_is_not_taken_for_healed),
		T(a_replica_is_copied_from_what_is_right),
		T(a_checkpoint_that_comes_too_late_does_not_take_the_newer_ones_place),
		T(a_replica_gets_all_files_of_the_journal_that_commits_begin_meanwhile),
		T(a_replacement_cut_anywhere_goes_on),
		T(a_removal_cut_anywhere_goes_on),
		T(what_moved_before_a_restart_is_read_back_before_its_old_copy_goes),
		T(what_was_never_moved_stays_on_the_new_disk),
		T(the_power_may_be_cut_while_the_only_disk_is_replaced),
		T(healing_cut_anywhere_goes_on),
		T(an_addition_cut_anywhere_leaves_a_volume),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
