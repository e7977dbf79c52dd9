/* Members: who is believed, who is missed, who is set aside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/format_volume.h"
#include "core/lock.h"
#include "core/members.h"
#include "tests/lib/simdisk.h"

#define SEED 0x5eed4e3bu

static const char *const paths[] = {"/d1", "/d2", "/d3", "/d4", "/d5", "/d6", "/d7", "/d8"};

/* --- a machine whose folders can be mounted elsewhere, and whose writes can hang --- */

struct rig {
	struct sim *sim;
	struct {
		const char *path, *disk; /* opening path gives this simulated disk; NULL: nothing */
	} alias[8];
	unsigned aliases;
	char log[8192];
	struct sop_log sink;
	uint64_t now_ms;
	struct sop_clock clock;
};

static uint64_t rig_wall(void *ctx)
{
	(void)ctx;
	return 1700000000ull * 1000000000;
}

static uint64_t rig_monotonic(void *ctx)
{
	return __atomic_load_n(&((struct rig *)ctx)->now_ms, __ATOMIC_RELAXED);
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void rig_log(void *ctx, enum sop_log_level level, const char *module, const char *line)
{
	struct rig *r = ctx;
	size_t at;

	(void)level;
	(void)module;
	pthread_mutex_lock(&log_lock);
	at = strlen(r->log);
	snprintf(r->log + at, sizeof(r->log) - at, "%s\n", line);
	pthread_mutex_unlock(&log_lock);
}

static int rig_open(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e)
{
	struct rig *r = ctx;
	const char *disk = path;
	int rc;

	for (unsigned i = 0; i < r->aliases; i++)
		if (strcmp(r->alias[i].path, path) == 0)
			disk = r->alias[i].disk;
	if (!disk)
		return sop_fail(e, -ENOENT, "%s", path);
	rc = sim_open_disk(r->sim, out, disk, e);
	if (!rc && disk != path) {
		free((*out)->name);
		(*out)->name = strdup(path);
	}
	return rc;
}

static void rig_alias(struct rig *r, const char *path, const char *disk)
{
	for (unsigned i = 0; i < r->aliases; i++) {
		if (strcmp(r->alias[i].path, path) == 0) {
			r->alias[i].disk = disk;
			return;
		}
	}
	r->alias[r->aliases].path = path;
	r->alias[r->aliases++].disk = disk;
}

static struct rig *rig_of(struct sim *s)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->sim = s;
	r->sink = (struct sop_log){.sink = rig_log, .ctx = r, .max_level = SOP_LOG_DEBUG};
	r->clock = (struct sop_clock){rig_wall, rig_monotonic, r};
	r->now_ms = 5000;
	return r;
}

/* n disks of 64 MiB made into a volume k+m (0+0: the default). */
static struct rig *rig_new(unsigned n, unsigned k, unsigned m)
{
	struct rig *r = rig_of(sim_new(SEED));
	struct sop_format_opts o = {.name = "tank", .k = k, .m = m, .open_disk = sim_open_disk};

	o.open_disk_ctx = r->sim;
	for (unsigned i = 0; i < n; i++)
		sim_add_disk(r->sim, paths[i], 64 << 20);
	assert_int_equal(sop_format(paths, n, &o, NULL, NULL), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	sim_free(r->sim);
	free(r);
}

static struct sop_members_opts opts(struct rig *r)
{
	struct sop_members_opts o = {
		.log = &r->sink, .clock = &r->clock, .open_disk = rig_open, .open_disk_ctx = r};

	return o;
}

static int try_open(
	struct rig *r, const char *const *list, size_t n, struct sop_members **m, struct sop_err *e)
{
	struct sop_members_opts o = opts(r);

	return sop_members_open(m, list, n, &o, e);
}

static struct sop_members *must_open(struct rig *r)
{
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	if (try_open(r, paths, 1, &m, &e) && try_open(r, paths + 1, 1, &m, &e) &&
		try_open(r, paths + 2, 1, &m, &e))
		fail_msg("does not open: %s", e.text);
	return m;
}

static struct sop_members *must_open_degraded(struct rig *r, const char *path)
{
	struct sop_members_opts o = opts(r);
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	o.degraded = true;
	if (sop_members_open(&m, &path, 1, &o, &e))
		fail_msg("does not open: %s", e.text);
	return m;
}

static void expect_refusal(
	struct rig *r, const char *const *list, size_t n, int want, const char *text)
{
	struct sop_members *m = NULL;
	struct sop_err e = {0};
	int rc = try_open(r, list, n, &m, &e);

	if (rc != want || !strstr(e.text, text) || m)
		fail_msg("got %d \"%s\", not %d \"%s\"", rc, e.text, want, text);
}

static struct sop_label *label_on(struct rig *r, const char *disk)
{
	struct sop_label *l = calloc(1, sizeof(*l));
	struct sop_disk *d;

	assert_int_equal(sim_open_disk(r->sim, &d, disk, NULL), 0);
	assert_int_equal(sop_label_load(l, d, NULL), 0);
	sop_disk_close(d);
	return l;
}

static void put_label(struct rig *r, const char *disk, const struct sop_label *l)
{
	struct sop_disk *d;

	assert_int_equal(sim_open_disk(r->sim, &d, disk, NULL), 0);
	assert_int_equal(sop_label_store(d, l, NULL), 0);
	sop_disk_close(d);
}

static uint64_t generation_on(struct rig *r, const char *disk)
{
	struct sop_label *l = label_on(r, disk);
	uint64_t generation = l->generation;

	free(l);
	return generation;
}

static struct sop_member member_on(struct rig *r, const char *disk, unsigned i)
{
	struct sop_label *l = label_on(r, disk);
	struct sop_member who = l->member[i];

	free(l);
	return who;
}

static unsigned replicas(struct sop_members *m)
{
	unsigned idx[SOP_MEMBERS_MAX], mask = 0, n = sop_members_replicas(m, idx);

	for (unsigned i = 0; i < n; i++)
		mask |= 1u << idx[i];
	return mask;
}

static unsigned present(struct sop_members *m)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < sop_members_count(m); i++)
		if (sop_members_disk(m, i))
			mask |= 1u << i;
	return mask;
}

/* --- opening --------------------------------------------------------------- */

static void any_one_member_finds_all_others(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);

	(void)unused;
	for (unsigned i = 0; i < 4; i++) {
		struct sop_members *m = NULL;

		assert_int_equal(try_open(r, paths + i, 1, &m, NULL), 0);
		assert_int_equal(present(m), 0xf);
		assert_int_equal(replicas(m), 0x7);
		assert_int_equal(sop_members_epoch(m), 2 + i);
		/* Of 30 s: what is left is for the labels. */
		assert_int_equal(sop_members_timeout_ms(m), 20000);
		for (unsigned j = 0; j < 4; j++)
			assert_int_equal(generation_on(r, paths[j]), 2 + i);
		sop_members_close(m);
	}
	rig_free(r);
}

static void a_member_that_moved_is_taken_and_its_new_path_stored(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	static const char *const list[] = {"/d1", "/new/d3"};
	struct sop_members *m = NULL;

	(void)unused;
	rig_alias(r, "/d3", NULL);
	rig_alias(r, "/new/d3", "/d3");
	assert_int_equal(try_open(r, list, 2, &m, NULL), 0);
	assert_int_equal(present(m), 0xf);
	assert_string_equal(sop_members_label(m)->member[2].path, "/new/d3");
	sop_members_close(m);
	assert_string_equal(member_on(r, "/d2", 2).path, "/new/d3");
	m = must_open(r); /* by /d1 alone */
	assert_int_equal(present(m), 0xf);
	sop_members_close(m);
	rig_free(r);
}

static void the_newest_label_says_who_belongs(void **unused)
{
	struct rig *r = rig_new(3, 0, 0);
	struct sop_label *l = label_on(r, "/d3");
	struct sop_members *m = NULL;

	(void)unused;
	/* The hint is an old label, which still looks for d2 where it is not any more. */
	l->generation = 5;
	strcpy(l->member[1].path, "/new/d2");
	put_label(r, "/d3", l);
	l->index = 1;
	l->disk_uuid = l->member[1].uuid;
	put_label(r, "/d2", l);
	rig_alias(r, "/d2", NULL);
	rig_alias(r, "/new/d2", "/d2");
	assert_int_equal(try_open(r, paths, 1, &m, NULL), 0);
	assert_int_equal(present(m), 0x7);
	assert_int_equal(sop_members_epoch(m), 6);
	sop_members_close(m);
	free(l);
	rig_free(r);
}

static void labels_of_two_volumes_are_both_named(void **unused)
{
	struct rig *r = rig_new(2, 0, 0);
	struct sop_format_opts o = {.name = "pool", .open_disk = sim_open_disk};
	static const char *const list[] = {"/d1", "/d5"};

	(void)unused;
	o.open_disk_ctx = r->sim;
	sim_add_disk(r->sim, "/d5", 0);
	assert_int_equal(sop_format(&list[1], 1, &o, NULL, NULL), 0);
	expect_refusal(r, list, 2, SOP_EFOREIGN, "(label \"tank\"), but /d5 is of volume");
	expect_refusal(r, list, 2, SOP_EFOREIGN, "(label \"pool\")");
	assert_int_equal(generation_on(r, "/d1"), 1);
	rig_free(r);
}

static void a_drive_that_serves_another_volume_now_is_missing(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_format_opts o = {.name = "pool", .force = true, .open_disk = sim_open_disk};
	struct sop_members *m;

	(void)unused;
	o.open_disk_ctx = r->sim;
	assert_int_equal(sop_format(paths + 3, 1, &o, NULL, NULL), 0);
	m = must_open(r);
	assert_int_equal(present(m), 0x7);
	sop_members_close(m);
	assert_int_equal(generation_on(r, "/d4"), 1);
	rig_free(r);
}

static void absent_members_up_to_parity_are_recorded_and_come_back_stale(void **unused)
{
	struct rig *r = rig_new(5, 3, 2);
	struct sop_members *m;

	(void)unused;
	sim_disk_gone(r->sim, "/d2", true);
	sim_disk_gone(r->sim, "/d5", true);
	m = must_open(r);
	assert_int_equal(present(m), 0xd);
	assert_int_equal(replicas(m), 0x5);
	assert_non_null(strstr(r->log, "path=/d2 code=ENODEV: absent"));
	sop_members_close(m);
	assert_int_equal(member_on(r, "/d1", 1).state, SOP_MEMBER_OFFLINE);
	assert_int_equal(member_on(r, "/d1", 1).current_since, 0);
	assert_int_equal(member_on(r, "/d1", 4).state, SOP_MEMBER_OFFLINE);

	sim_disk_gone(r->sim, "/d2", false);
	sim_disk_gone(r->sim, "/d5", false);
	m = must_open(r);
	assert_int_equal(present(m), 0x1f);
	assert_int_equal(replicas(m), 0x5);
	assert_int_equal(member_on(r, "/d1", 1).state, SOP_MEMBER_ONLINE);
	assert_int_equal(sop_members_replica_current(m, 1, sop_members_stay(m, 1), NULL), 0);
	assert_int_equal(replicas(m), 0x7);
	assert_int_equal(member_on(r, "/d3", 1).current_since, generation_on(r, "/d3"));
	sop_members_close(m);
	m = must_open(r);
	assert_int_equal(replicas(m), 0x7);
	sop_members_close(m);
	rig_free(r);
}

static void half_of_the_labels_need_degraded(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m;

	(void)unused;
	sim_disk_gone(r->sim, "/d3", true);
	sim_disk_gone(r->sim, "/d4", true);
	expect_refusal(r, paths, 1, SOP_EDISKS, "only 2 of 4 disks are here");
	expect_refusal(r, paths, 1, SOP_EDISKS, "-o degraded");
	expect_refusal(r, paths, 1, SOP_EDISKS, "/d3, /d4");
	assert_int_equal(generation_on(r, "/d1"), 1);
	m = must_open_degraded(r, "/d1");
	assert_int_equal(present(m), 0x3);
	sop_members_close(m);
	rig_free(r);
}

static void more_missing_than_parity_need_degraded(void **unused)
{
	struct rig *r = rig_new(7, 2, 1);
	struct sop_members *m;

	(void)unused;
	sim_disk_gone(r->sim, "/d6", true);
	sim_disk_gone(r->sim, "/d7", true);
	expect_refusal(r, paths, 1, SOP_EDISKS, "more disks are missing than parity makes up for");
	m = must_open_degraded(r, "/d1");
	sop_members_close(m);
	rig_free(r);
}

static void fewer_than_k_are_refused_even_degraded(void **unused)
{
	struct rig *r = rig_new(4, 3, 1);
	struct sop_members_opts o = opts(r);
	struct sop_members *m;
	struct sop_err e = {0};

	(void)unused;
	sim_disk_gone(r->sim, "/d3", true);
	sim_disk_gone(r->sim, "/d4", true);
	o.degraded = true;
	for (unsigned ro = 0; ro < 2; ro++) {
		o.read_only = ro;
		assert_int_equal(sop_members_open(&m, paths, 1, &o, &e), SOP_EDISKS);
		assert_non_null(strstr(e.text, "2 of 4 disks of profile default are here, but 3+1 "
					       "needs 3; missing: /d3, /d4"));
	}
	rig_free(r);
}

/* Three mirrors. d1 drops out, then d2, and d3 goes on alone: d1 and d2 together are a majority by
 * count, but not of those that were in use last as far as they know. */
static void old_labels_are_no_majority_though_many(void **unused)
{
	struct rig *r = rig_new(3, 1, 2);
	struct sop_members *m = must_open(r);

	(void)unused;
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0x4);
	sop_members_close(m);
	sim_disk_gone(r->sim, "/d3", true);
	expect_refusal(r, paths, 1, SOP_EDISKS, "the others may hold newer data");
	sim_disk_gone(r->sim, "/d3", false);
	m = must_open(r);
	assert_int_equal(present(m), 0x7);
	assert_int_equal(replicas(m), 0x4);
	sop_members_close(m);
	rig_free(r);
}

static void a_disk_set_back_to_an_old_state_is_not_believed(void **unused)
{
	struct rig *r = rig_new(3, 0, 0);
	struct sop_label *old;
	struct sop_members *m;

	(void)unused;
	sop_members_close(must_open(r));
	old = label_on(r, "/d2");
	sop_members_close(must_open(r));
	sop_members_close(must_open(r));
	assert_int_equal(sim_remove(r->sim, "/d2", SOP_PATH_LABEL0), 0);
	assert_int_equal(sim_remove(r->sim, "/d2", SOP_PATH_LABEL1), 0);
	put_label(r, "/d2", old);
	m = must_open(r);
	assert_int_equal(present(m), 0x7);
	assert_int_equal(replicas(m), 0x1);
	assert_non_null(strstr(r->log, "path=/d2 generation=2 newest=4: an old state"));
	sop_members_close(m);
	free(old);
	rig_free(r);
}

/* Two mounts gave out one generation: the first, cut off, stored it on d1 alone. */
static void labels_of_one_generation_that_differ_are_merged_to_the_less_trusting(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_label *l = label_on(r, "/d1");
	struct sop_members *m;

	(void)unused;
	l->generation = 2;
	put_label(r, "/d1", l);
	rig_alias(r, "/d1", NULL);
	assert_int_equal(try_open(r, paths + 1, 1, &m, NULL), 0);
	assert_int_equal(sop_members_epoch(m), 2);
	sop_members_close(m);
	rig_alias(r, "/d1", "/d1");
	m = must_open(r);
	assert_int_equal(present(m), 0xf);
	assert_int_equal(replicas(m), 0x6);
	sop_members_close(m);
	free(l);
	rig_free(r);
}

static void without_a_current_replica_nothing_is_opened_or_written(void **unused)
{
	struct rig *r = rig_new(4, 2, 2);
	struct sop_members_opts o = opts(r);
	struct sop_members *m = must_open(r);
	struct sop_err e = {0};

	(void)unused;
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	sop_members_event(m, 2, SOP_EVENT_WRITE, -EIO);
	sop_members_close(m); /* d1 alone is current now */
	sim_disk_gone(r->sim, "/d1", true);
	o.degraded = true;
	assert_int_equal(sop_members_open(&m, paths + 1, 1, &o, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "current copy of the registry; missing: /d1"));
	sim_disk_gone(r->sim, "/d1", false);
	m = must_open(r);
	assert_int_equal(replicas(m), 0x1);
	sop_members_close(m);
	rig_free(r);
}

static void a_folder_given_that_has_no_label_is_named(void **unused)
{
	struct rig *r = rig_new(2, 0, 0);
	static const char *const list[] = {"/d1", "/other"}, *const gone[] = {"/d1", "/gone"};

	(void)unused;
	sim_add_disk(r->sim, "/other", 0);
	expect_refusal(r, list, 2, SOP_ENOTVOLUME, "/other: holds no sopfs label");
	expect_refusal(r, list + 1, 1, SOP_ENOTVOLUME, "/other: holds no sopfs label");
	expect_refusal(r, gone, 2, -ENOENT, "/gone");
	expect_refusal(r, NULL, 0, -EINVAL, "no member folder");
	rig_free(r);
}

static void count_names(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	(void)file;
	(void)size;
	(void)allocated;
	++*(unsigned *)arg;
}

static void the_mount_point_of_an_absent_drive_is_never_written(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = NULL;
	unsigned files = 0;

	(void)unused;
	sim_add_disk(r->sim, "/empty", 0);
	rig_alias(r, "/d2", "/empty");
	/* All four are given, as in fstab. */
	assert_int_equal(try_open(r, paths, 4, &m, NULL), 0);
	assert_int_equal(present(m), 0xd);
	assert_int_equal(sop_members_online(m, 1, NULL, NULL), SOP_ENOTVOLUME);
	sop_members_close(m);
	sim_each_file(r->sim, "/empty", count_names, &files);
	assert_int_equal(files, 0);
	rig_free(r);
}

static void a_second_opener_is_told_who_has_it(void **unused)
{
	struct rig *r = rig_new(3, 0, 0);
	struct sop_members *m = must_open(r), *second;
	struct sop_members_opts o = opts(r);
	char pid[64];
	uint64_t steps;

	(void)unused;
	snprintf(pid, sizeof(pid), "pid=%ld time=2023-11-14T22:13:20Z", (long)getpid());
	for (unsigned i = 0; i < 3; i++) {
		expect_refusal(r, paths + i, 1, SOP_EINUSE, "/d1: is in use (host=");
		expect_refusal(r, paths + i, 1, SOP_EINUSE, pid);
	}
	steps = sim_steps(r->sim);
	o.read_only = true;
	assert_int_equal(sop_members_open(&second, paths, 1, &o, NULL), 0);
	assert_int_equal(sop_members_epoch(second), sop_members_epoch(m));
	assert_int_equal(present(second), 0x7);
	sop_members_event(second, 0, SOP_EVENT_WRITE, -EIO);
	sop_members_close(second);
	assert_int_equal(sim_steps(r->sim), steps);
	sop_members_close(m);
	sop_members_close(must_open(r));
	rig_free(r);
}

/* Just before our first lock somebody else opens and closes the volume. */
static struct {
	struct sop_disk_ops ops;
	const struct sop_disk_ops *real;
	struct rig *rig;
	uint64_t epoch; /* of the other's mount */
} intruder;

static int intruder_lock(struct sop_file *f)
{
	if (!intruder.epoch) {
		struct sop_members *m = must_open(intruder.rig);

		intruder.epoch = sop_members_epoch(m);
		sop_members_close(m);
	}
	return intruder.real->lock(f);
}

/* The simulated machine calls a file's operations through the file, which has its own table. */
static int intruder_file_open(
	struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	int rc = intruder.real->file_open(out, d, path, flags);

	if (!rc)
		(*out)->ops = &intruder.ops;
	return rc;
}

static int intruder_open(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = rig_open(ctx, out, path, e);

	if (!rc) {
		intruder.real = (*out)->ops;
		intruder.ops = *intruder.real;
		intruder.ops.lock = intruder_lock;
		intruder.ops.file_open = intruder_file_open;
		(*out)->ops = &intruder.ops;
	}
	return rc;
}

static void a_mount_between_reading_and_locking_is_noticed(void **unused)
{
	struct rig *r = rig_new(3, 0, 0);
	struct sop_members_opts o = opts(r);
	struct sop_members *m = NULL;

	(void)unused;
	intruder.rig = r;
	o.open_disk = intruder_open;
	assert_int_equal(sop_members_open(&m, paths, 1, &o, NULL), 0);
	assert_int_equal(intruder.epoch, 2);
	assert_int_equal(sop_members_epoch(m), 3);
	assert_int_equal(present(m), 0x7);
	sop_members_close(m);
	rig_free(r);
}

static void features_that_are_not_known_are_respected(void **unused)
{
	struct rig *r = rig_new(2, 0, 0);
	struct sop_members_opts o = opts(r);
	struct sop_label *l = label_on(r, "/d1");
	struct sop_members *m;

	(void)unused;
	l->generation = 2;
	l->ro_compat = 4;
	put_label(r, "/d1", l);
	expect_refusal(r, paths, 1, SOP_EVERSION, "uses features 0x4");
	o.read_only = true;
	assert_int_equal(sop_members_open(&m, paths, 1, &o, NULL), 0);
	sop_members_close(m);
	l->generation = 3;
	l->incompat = 8;
	put_label(r, "/d1", l);
	expect_refusal(r, paths + 1, 1, SOP_EVERSION, "/d1: uses features 0x8");
	free(l);
	rig_free(r);
}

static void the_same_member_by_two_paths_counts_once(void **unused)
{
	struct rig *r = rig_new(2, 0, 0);
	static const char *const list[] = {"/bind/d1", "/d1", "/d2", "/d2/"};
	struct sop_members *m = NULL;

	(void)unused;
	rig_alias(r, "/bind/d1", "/d1");
	assert_int_equal(try_open(r, list, 4, &m, NULL), 0);
	assert_int_equal(present(m), 0x3);
	sop_members_close(m);
	rig_free(r);
}

/* --- crashes and failures while opening ------------------------------------ */

/* Cut two opens in a row at each pair of steps. Then, with any one disk gone, the volume opens, and
 * no replica that is there has lost its standing: nothing was written without it. */
static void cut_off_opens_cost_no_replica(void **unused)
{
	bool crashed = true;

	(void)unused;
	for (uint64_t first = 1; crashed; first++) {
		for (uint64_t second = 1; second < 40; second += 5) {
			struct rig *r = rig_new(4, 0, 0);
			uint64_t at[] = {first, second};

			for (unsigned i = 0; i < 2; i++) {
				struct sop_members *m = NULL;

				sim_crash_at(r->sim, sim_steps(r->sim) + at[i]);
				if (!try_open(r, paths, 1, &m, NULL))
					sop_members_close(m);
				if (!i)
					crashed = sim_crashed(r->sim);
				sim_power_on(r->sim, SIM_KEEP_RANDOM, first * 64 + second);
			}
			for (unsigned gone = 0; gone <= 4; gone++) {
				struct rig *c = rig_of(sim_clone(r->sim, 1));
				struct sop_members *m;
				unsigned here = 0xf;

				if (gone < 4) {
					sim_disk_gone(c->sim, paths[gone], true);
					here &= ~(1u << gone);
				}
				m = must_open(c);
				assert_int_equal(present(m), here);
				if (replicas(m) != (here & 0x7))
					fail_msg("cut at %lu, %lu; without %u: replicas %x\n%s",
						(unsigned long)first, (unsigned long)second, gone,
						replicas(m), c->log);
				sop_members_close(m);
				rig_free(c);
			}
			rig_free(r);
		}
	}
}

static void one_failing_step_does_not_keep_the_volume_from_opening(void **unused)
{
	bool reached = true;

	(void)unused;
	for (uint64_t step = 1; reached; step++) {
		struct rig *r = rig_new(4, 0, 0);
		uint64_t first = sim_steps(r->sim);
		struct sop_members *m = NULL;
		unsigned there;

		sim_fail_step(r->sim, first + step, -EIO);
		assert_int_equal(try_open(r, paths, 1, &m, NULL), 0);
		reached = sim_steps(r->sim) - first >= step;
		there = present(m);
		assert_true(__builtin_popcount(there) >= (reached ? 3 : 4));
		assert_int_equal(replicas(m), there & 0x7);
		/* Whoever was set aside is on record with the others. */
		for (unsigned i = 0; i < 4; i++)
			for (unsigned j = 0; j < 4; j++)
				if (there & 1u << j && !(there & 1u << i))
					assert_int_equal(member_on(r, paths[j], i).state,
						SOP_MEMBER_OFFLINE);
		sop_members_close(m);
		m = must_open(r);
		assert_int_equal(present(m), 0xf);
		assert_int_equal(replicas(m), there & 0x7);
		sop_members_close(m);
		rig_free(r);
	}
}

static void a_disk_that_cannot_be_written_is_done_without(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m;
	struct sop_member_status st;

	(void)unused;
	sim_disk_error(r->sim, "/d3", 0, -EROFS, -EROFS);
	m = must_open(r);
	assert_int_equal(present(m), 0xb);
	assert_int_equal(replicas(m), 0x3);
	/* It is known why before anybody has tried again. */
	sop_members_status(m, 2, &st);
	assert_non_null(strstr(st.reason, "/d3"));
	assert_non_null(strstr(st.reason, "Read-only file system"));
	sop_members_close(m);
	rig_free(r);
}

/* --- events ---------------------------------------------------------------- */

static void a_write_error_sets_the_member_aside_on_record(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);
	struct sop_member_status st;

	(void)unused;
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_null(sop_members_disk(m, 1));
	assert_non_null(sop_members_disk_any(m, 1));
	assert_int_equal(replicas(m), 0x5);
	sop_members_status(m, 1, &st);
	assert_false(st.present);
	assert_int_equal(st.state, SOP_MEMBER_OFFLINE);
	assert_int_equal(st.write_errors, 1);
	assert_int_equal(st.role, SOP_ROLE_DATA | SOP_ROLE_REGISTRY);
	assert_string_equal(st.path, "/d2");
	assert_non_null(strstr(r->log, "op=write disk=1 path=/d2 code=EIO: set aside"));
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(generation_on(r, paths[i]), i == 1 ? 2 : 3);
		if (i == 1)
			continue;
		assert_int_equal(member_on(r, paths[i], 1).state, SOP_MEMBER_OFFLINE);
		assert_int_equal(member_on(r, paths[i], 1).current_since, 0);
	}
	assert_int_equal(sop_members_epoch(m), 2);
	/* Once is enough. */
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(generation_on(r, "/d1"), 3);
	sop_members_close(m);
	rig_free(r);
}

static void read_errors_are_counted_and_timeouts_set_aside(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);
	struct sop_member_status st;

	(void)unused;
	sop_members_event(m, 1, SOP_EVENT_READ, -EIO);
	sop_members_event(m, 1, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
	sop_members_event(m, 1, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -ENOSPC);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EDQUOT);
	sop_members_status(m, 1, &st);
	assert_true(st.present);
	assert_int_equal(st.read_errors, 1);
	assert_int_equal(st.checksum_errors, 2);
	assert_int_equal(st.write_errors, 0);
	assert_int_equal(generation_on(r, "/d1"), 2);
	sop_members_event(m, 1, SOP_EVENT_READ, -ETIMEDOUT);
	assert_null(sop_members_disk(m, 1));
	sop_members_event(m, 3, SOP_EVENT_WRITE, SOP_ETIMEOUT);
	assert_null(sop_members_disk(m, 3));
	assert_int_equal(generation_on(r, "/d1"), 4);
	sop_members_close(m);
	rig_free(r);
}

static void a_member_that_does_not_take_the_label_is_set_aside_too(void **unused)
{
	struct rig *r = rig_new(5, 2, 2);
	struct sop_members *m = must_open(r);

	(void)unused;
	sim_disk_error(r->sim, "/d3", 0, -EIO, -EIO);
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0x1a);
	assert_int_equal(member_on(r, "/d4", 0).state, SOP_MEMBER_OFFLINE);
	assert_int_equal(member_on(r, "/d4", 2).state, SOP_MEMBER_OFFLINE);
	assert_int_equal(member_on(r, "/d5", 2).current_since, 0);
	assert_non_null(strstr(r->log, "op=label disk=2 path=/d3 code=EIO"));
	sop_members_close(m);
	rig_free(r);
}

static void the_last_current_replica_stays_the_one_to_believe(void **unused)
{
	struct rig *r = rig_new(4, 2, 2);
	struct sop_members *m = must_open(r);

	(void)unused;
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	sop_members_event(m, 2, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(replicas(m), 0x2);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(replicas(m), 0);
	assert_int_equal(member_on(r, "/d4", 1).state, SOP_MEMBER_OFFLINE);
	assert_int_not_equal(member_on(r, "/d4", 1).current_since, 0);
	sop_members_close(m);
	m = must_open_degraded(r, "/d4");
	assert_int_equal(present(m), 0xf);
	assert_int_equal(replicas(m), 0x2);
	sop_members_close(m);
	rig_free(r);
}

static void all_disks_failing_ends_without_hanging(void **unused)
{
	struct rig *r = rig_new(3, 0, 0);
	struct sop_members *m = must_open(r);
	uint16_t disks[SOP_EC_MAX];
	uint32_t absent;
	struct sop_err e = {0};

	(void)unused;
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(r->sim, paths[i], -EIO, -EIO, -EIO);
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0);
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, &e), SOP_EDISKS);
	assert_int_not_equal(sop_members_replica_current(m, 0, sop_members_stay(m, 0), &e), 0);
	sop_members_close(m);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(r->sim, paths[i], 0, 0, 0);
	sop_members_close(must_open(r));
	rig_free(r);
}

static void a_member_comes_back_online_with_a_stale_replica(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m;
	struct sop_err e = {0};

	(void)unused;
	sim_disk_gone(r->sim, "/d1", true);
	m = must_open(r);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0xc);

	/* Set aside: the folder is locked by ourselves. */
	assert_int_equal(sop_members_online(m, 1, NULL, &e), 0);
	assert_int_equal(present(m), 0xe);
	assert_int_equal(replicas(m), 0x4);
	assert_int_equal(generation_on(r, "/d2"), generation_on(r, "/d3"));
	assert_int_equal(member_on(r, "/d3", 1).state, SOP_MEMBER_ONLINE);

	/* Absent at open, and somewhere else now. */
	assert_int_equal(sop_members_online(m, 0, NULL, &e), -EIO);
	sim_disk_gone(r->sim, "/d1", false);
	assert_int_equal(sop_members_online(m, 0, "/d4", &e), SOP_EFOREIGN);
	rig_alias(r, "/d1", NULL);
	rig_alias(r, "/new/d1", "/d1");
	assert_int_equal(sop_members_online(m, 0, NULL, &e), -ENOENT);
	assert_int_equal(sop_members_online(m, 0, "/new/d1", &e), 0);
	assert_int_equal(present(m), 0xf);
	assert_int_equal(replicas(m), 0x4);
	assert_string_equal(member_on(r, "/d3", 0).path, "/new/d1");
	assert_int_equal(sop_members_replica_current(m, 0, sop_members_stay(m, 0), &e), 0);
	assert_int_equal(replicas(m), 0x5);
	sop_members_close(m);
	m = must_open(r);
	assert_int_equal(present(m), 0xf);
	assert_int_equal(replicas(m), 0x5);
	sop_members_close(m);
	rig_free(r);
}

static void a_member_that_does_not_answer_stays_aside(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);

	(void)unused;
	sim_disk_error(r->sim, "/d2", 0, -EIO, -EIO);
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(sop_members_online(m, 1, NULL, NULL), -EIO);
	assert_int_equal(present(m), 0xd);
	assert_int_equal(member_on(r, "/d1", 1).state, SOP_MEMBER_OFFLINE);
	sop_members_close(m);
	rig_free(r);
}

static void offline_on_request_keeps_what_is_needed(void **unused)
{
	struct rig *r = rig_new(3, 2, 1);
	struct sop_members *m = must_open(r);
	struct sop_err e = {0};

	(void)unused;
	assert_int_equal(sop_members_may_go(m, 0, &e), 0);
	assert_int_equal(sop_members_may_go(m, 1, &e), 0); /* nothing has been done */
	assert_int_equal(sop_members_offline(m, 0, &e), 0);
	assert_int_equal(sop_members_may_go(m, 1, &e), SOP_EDISKS);
	assert_int_equal(present(m), 0x6);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_OFFLINE);
	assert_int_equal(sop_members_offline(m, 1, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "/d2: is needed"));
	assert_int_equal(present(m), 0x6);
	sop_members_close(m);
	rig_free(r);
}

static void offline_on_request_keeps_what_parity_does_not_make_up_for(void **unused)
{
	struct rig *r = rig_new(6, 2, 1);
	struct sop_members *m = must_open(r);
	struct sop_err e = {0};

	(void)unused;
	/* Four disks would be enough to write on, but some blobs have two shards on the other two.
	 */
	assert_int_equal(sop_members_offline(m, 4, &e), 0);
	assert_int_equal(sop_members_offline(m, 5, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "/d6: is needed"));
	assert_int_equal(present(m), 0x2f);
	sop_members_close(m);
	rig_free(r);
}

/* Nothing was wrong with any disk, and the one that is believed may be the worse. */
static void a_mount_that_memory_is_short_for_misses_no_disk(void **unused)
{
	bool failed = true;

	(void)unused;
	for (unsigned n = 1; failed; n++) {
		struct rig *r = rig_new(3, 2, 1);
		struct sop_members *m = NULL;
		int rc;

		sim_fail_io(r->sim, n, -ENOMEM, false);
		rc = try_open(r, paths, 3, &m, NULL);
		failed = sim_io_failed(r->sim);
		sim_fail_io(r->sim, 0, 0, false);
		assert_true(rc == -ENOMEM || (!rc && present(m) == 0x7));
		sop_members_close(m);
		m = must_open(r);
		assert_int_equal(present(m), 0x7);
		assert_int_equal(replicas(m), 0x3);
		sop_members_close(m);
		rig_free(r);
	}
}

/* Where it would stay: the next mount has nothing to go on with, though every disk is well. */
static void offline_on_request_keeps_a_failed_disk_that_holds_the_last_replica(void **unused)
{
	struct rig *r = rig_new(3, 2, 1);
	struct sop_members *m = must_open(r);
	struct sop_member_set back;
	struct sop_err e = {0};

	(void)unused;
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(r->sim, paths[i], 0, -EIO, -EIO);
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0);
	assert_int_equal(sop_members_may_go(m, 1, &e), SOP_EDISKS);
	assert_int_equal(sop_members_offline(m, 1, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "/d2: is needed"));
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(r->sim, paths[i], 0, 0, 0);
	assert_true(sop_members_watch(m, true, &back));
	assert_int_equal(present(m), 0x7);
	sop_members_close(m);
	m = must_open(r);
	assert_int_equal(replicas(m), 0x2);
	sop_members_close(m);
	rig_free(r);
}

static void offline_on_request_keeps_a_failed_disk_whose_shards_are_needed(void **unused)
{
	struct rig *r = rig_new(3, 2, 1);
	struct sop_members *m = must_open(r);
	struct sop_member_set back;
	struct sop_err e = {0};

	(void)unused;
	sop_members_event(m, 2, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(sop_members_offline(m, 2, &e), 0);
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(sop_members_offline(m, 0, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "/d1: is needed"));
	assert_true(sop_members_watch(m, true, &back));
	assert_int_equal(present(m), 0x3); /* by hand, and not by hand */
	sop_members_close(m);
	m = must_open(r);
	assert_int_equal(present(m), 0x3);
	sop_members_close(m);
	rig_free(r);
}

/* What it would do without is not yet written off: the next mount may have other disks. */
static void a_mount_that_lacks_a_disk_that_is_offline_by_hand_writes_nothing(void **unused)
{
	struct rig *r = rig_new(3, 2, 1);
	struct sop_members_opts o = opts(r);
	struct sop_members *m = must_open(r);
	struct sop_err e = {0};
	uint64_t generation;

	(void)unused;
	assert_int_equal(sop_members_offline(m, 2, &e), 0);
	sop_members_close(m);
	generation = generation_on(r, "/d2");
	sim_disk_gone(r->sim, "/d1", true);
	o.degraded = true;
	assert_int_equal(sop_members_open(&m, paths, 3, &o, &e), SOP_EDISKS);
	assert_int_equal(generation_on(r, "/d2"), generation);
	assert_int_not_equal(member_on(r, "/d2", 0).current_since, 0);
	o.read_only = true;
	assert_int_equal(sop_members_open(&m, paths, 3, &o, &e), 0);
	assert_int_equal(present(m), 0x6);
	sop_members_close(m);
	rig_free(r);
}

/* Each profile needs as many disks as it has data shards at every mount: those that are away now
 * may be so then. */
static void a_profile_that_needs_a_disk_that_is_away_is_refused(void **unused)
{
	const struct sop_profile wide = {.name = "wide", .k = 3},
				 same = {.name = "same", .k = 2, .m = 1};
	struct sop_err e = {0};

	(void)unused;
	for (unsigned by_hand = 0; by_hand < 2; by_hand++) {
		struct rig *r = rig_new(3, 2, 1);
		struct sop_members *m = must_open(r);

		if (by_hand)
			assert_int_equal(sop_members_offline(m, 2, &e), 0);
		else
			sop_members_event(m, 2, SOP_EVENT_WRITE, -EIO);
		assert_int_equal(sop_members_profile_add(m, &wide, &e), SOP_EDISKS);
		assert_int_equal(sop_members_profiles(m), 1);
		assert_int_equal(sop_members_profile_add(m, &same, &e), 0);
		assert_int_equal(sop_members_profiles(m), 2);
		sop_members_close(m);
		sim_disk_gone(r->sim, "/d3", !by_hand);
		m = must_open(r);
		assert_int_equal(present(m), 0x3);
		sim_disk_gone(r->sim, "/d3", false);
		assert_int_equal(sop_members_online(m, 2, NULL, &e), 0);
		assert_int_equal(sop_members_profile_add(m, &wide, &e), 0);
		sop_members_close(m);
		rig_free(r);
	}
}

/* A crash leaves both or neither: asked for again there is not one replica more than before. */
static void who_leaves_and_its_heir_are_told_in_one_round(void **unused)
{
	struct rig *r = rig_new(4, 2, 1);
	struct sop_members *m = must_open(r);
	uint64_t generation = generation_on(r, "/d2");

	(void)unused;
	assert_int_equal(member_on(r, "/d2", 3).role, SOP_ROLE_DATA);
	assert_int_equal(sop_members_drain(m, 0, 3, NULL), 0);
	assert_int_equal(generation_on(r, "/d2"), generation + 1);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_DRAINING);
	assert_int_equal(member_on(r, "/d2", 3).role, SOP_ROLE_DATA | SOP_ROLE_REGISTRY);
	assert_int_equal(member_on(r, "/d2", 3).current_since, 0);
	sop_members_close(m);
	rig_free(r);
}

/* Whoever empties it may not have heard yet that it is to stay. */
static void only_who_is_drained_leaves(void **unused)
{
	struct rig *r = rig_new(4, 2, 1);
	struct sop_members *m = must_open(r);

	(void)unused;
	assert_int_equal(sop_members_drain(m, 0, 3, NULL), 0);
	assert_int_equal(sop_members_undrain(m, 0, NULL), 0);
	assert_int_equal(sop_members_undrain(m, 0, NULL), -ENOENT);
	assert_int_equal(sop_members_remove(m, 0, NULL), -ECANCELED);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_ONLINE);
	assert_int_equal(present(m), 0xf);
	assert_int_equal(sop_members_drain(m, 0, 3, NULL), 0);
	assert_int_equal(sop_members_remove(m, 0, NULL), 0);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_REMOVED);
	assert_int_equal(sop_members_undrain(m, 0, NULL), -ENOENT);
	sop_members_close(m);
	rig_free(r);
}

/* Two may ask for it at the same time; the second may come when all is done. */
static void who_is_drained_or_gone_is_not_drained_again(void **unused)
{
	struct rig *r = rig_new(4, 2, 1);
	struct sop_members *m = must_open(r);
	unsigned j;

	(void)unused;
	sim_add_disk(r->sim, "/new", 0);
	assert_int_equal(sop_members_drain(m, 0, 3, NULL), 0);
	assert_int_equal(sop_members_drain(m, 0, 2, NULL), -EALREADY);
	assert_int_equal(member_on(r, "/d2", 2).role, SOP_ROLE_DATA);
	assert_int_equal(sop_members_add(m, "/new", SOP_ROLE_DATA, 0, 0, 0, &j, NULL), -EALREADY);
	assert_int_equal(sop_members_remove(m, 0, NULL), 0);
	assert_int_equal(sop_members_drain(m, 0, 2, NULL), -ENOENT);
	assert_int_equal(sop_members_add(m, "/new", SOP_ROLE_DATA, 0, 0, 0, &j, NULL), -ENOENT);
	assert_int_equal(sop_members_count(m), 4);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_REMOVED);
	assert_int_equal(sop_members_offline(m, 3, NULL), 0);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_REMOVED);
	sop_members_close(m);
	rig_free(r);
}

struct meanwhile {
	struct sop_members *m;
	bool done;
};

static void remove_meanwhile(void *arg)
{
	struct meanwhile *x = arg;

	if (x->done)
		return;
	x->done = true;
	assert_int_equal(sop_members_drain(x->m, 0, 3, NULL), 0);
	assert_int_equal(sop_members_remove(x->m, 0, NULL), 0);
}

static void who_was_removed_while_its_replacement_was_made_stays_so(void **unused)
{
	struct rig *r = rig_new(4, 2, 1);
	struct meanwhile x = {.m = must_open(r)};
	unsigned j;

	(void)unused;
	sim_add_disk(r->sim, "/new", 0);
	sim_watch(r->sim, remove_meanwhile, &x);
	assert_int_equal(sop_members_add(x.m, "/new", SOP_ROLE_DATA, 0, 0, 0, &j, NULL), -ENOENT);
	sim_watch(r->sim, NULL, NULL);
	assert_true(x.done);
	assert_int_equal(sop_members_count(x.m), 4);
	assert_int_equal(member_on(r, "/d2", 0).state, SOP_MEMBER_REMOVED);
	/* The folder that it has begun with can be given again. */
	assert_int_equal(sop_members_add(x.m, "/new", SOP_ROLE_DATA, 1, 0, 0, &j, NULL), 0);
	assert_int_equal(j, 4);
	sop_members_close(x.m);
	rig_free(r);
}

struct taken {
	struct rig *r;
	bool done;
};

static void make_meanwhile(void *arg)
{
	static const char *const path = "/new";
	struct taken *x = arg;
	struct sop_format_opts o = {.name = "other",
		.k = 1,
		.force = true,
		.open_disk = sim_open_disk,
		.open_disk_ctx = x->r->sim};

	if (x->done)
		return;
	x->done = true;
	assert_int_equal(sop_format(&path, 1, &o, NULL, NULL), 0);
}

static void a_folder_that_another_takes_before_it_is_locked_stays_its(void **unused)
{
	struct rig *r = rig_new(3, 2, 1);
	struct taken x = {.r = r};
	struct sop_members *m = must_open(r);
	struct sop_err e = {0};
	struct sop_label l;
	struct sop_disk *d;
	unsigned j;

	(void)unused;
	sim_add_disk(r->sim, "/new", 0);
	sim_watch(r->sim, make_meanwhile, &x);
	assert_int_equal(sop_members_add(m, "/new", SOP_ROLE_DATA, -1, 0, 0, &j, &e), -EBUSY);
	sim_watch(r->sim, NULL, NULL);
	assert_true(x.done);
	assert_string_equal(e.text,
		"/new: another has just made something else of it; look at it, and try again");
	assert_int_equal(sim_open_disk(r->sim, &d, "/new", NULL), 0);
	assert_int_equal(sop_label_load(&l, d, NULL), 0);
	assert_string_equal(l.name, "other");
	sop_disk_close(d);
	assert_int_equal(
		sop_members_add(m, "/new", SOP_ROLE_DATA, -1, 0, 0, &j, NULL), SOP_EFOREIGN);
	assert_int_equal(
		sop_members_add(m, "/new", SOP_ROLE_DATA, -1, SOP_MEMBERS_FORCE, 0, &j, NULL), 0);
	sop_members_close(m);
	rig_free(r);
}

/* --- placing and room ------------------------------------------------------ */

static void place_takes_k_plus_m_and_rotates_the_shards(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);
	unsigned first = 0;

	(void)unused;
	for (uint64_t rotate = 0; rotate < 4; rotate++) {
		uint16_t disks[SOP_EC_MAX];
		uint32_t absent = 9;
		unsigned set = 0;

		assert_int_equal(sop_members_place(m, 0, rotate, disks, &absent, NULL), 0);
		assert_int_equal(absent, 0);
		for (unsigned s = 0; s < 4; s++)
			set |= 1u << disks[s];
		assert_int_equal(set, 0xf);
		first |= 1u << disks[0];
	}
	assert_int_equal(first, 0xf);
	sop_members_close(m);
	rig_free(r);
}

static void place_prefers_free_disks_and_lets_equal_ones_take_turns(void **unused)
{
	struct rig *r = rig_new(8, 2, 1);
	struct sop_members *m;
	unsigned used[8] = {0};

	(void)unused;
	sim_disk_resize(r->sim, "/d7", 8 << 20);
	sim_disk_resize(r->sim, "/d8", 8 << 20);
	m = must_open(r);
	for (uint64_t rotate = 0; rotate < 80; rotate++) {
		uint16_t disks[SOP_EC_MAX];
		uint32_t absent;

		assert_int_equal(sop_members_place(m, 0, rotate, disks, &absent, NULL), 0);
		for (unsigned s = 0; s < 3; s++)
			used[disks[s]]++;
	}
	for (unsigned i = 0; i < 6; i++)
		assert_in_range(used[i], 20, 80);
	assert_int_equal(used[6] + used[7], 0);
	sop_members_close(m);
	rig_free(r);
}

static void place_goes_on_with_absent_disks_down_to_k(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);
	uint16_t disks[SOP_EC_MAX];
	uint32_t absent;
	struct sop_err e = {0};

	(void)unused;
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	sop_members_event(m, 3, SOP_EVENT_WRITE, -EIO);
	for (uint64_t rotate = 0; rotate < 4; rotate++) {
		unsigned set = 0;

		assert_int_equal(sop_members_place(m, 0, rotate, disks, &absent, NULL), 0);
		for (unsigned s = 0; s < 4; s++) {
			set |= 1u << disks[s];
			assert_int_equal(absent >> s & 1, disks[s] == 1 || disks[s] == 3);
		}
		assert_int_equal(set, 0xf);
	}
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, &e), SOP_EDISKS);
	assert_non_null(strstr(e.text, "1 disks are online, 2 are needed"));
	sop_members_close(m);
	rig_free(r);
}

static void place_replaces_an_absent_disk_by_a_spare_one(void **unused)
{
	struct rig *r = rig_new(5, 2, 2);
	struct sop_members *m = must_open(r);
	uint16_t disks[SOP_EC_MAX];
	uint32_t absent;

	(void)unused;
	sop_members_event(m, 1, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(sop_members_place(m, 0, 3, disks, &absent, NULL), 0);
	assert_int_equal(absent, 0);
	for (unsigned s = 0; s < 4; s++)
		assert_int_not_equal(disks[s], 1);
	sop_members_close(m);
	rig_free(r);
}

static void place_passes_by_full_disks_until_they_have_room_again(void **unused)
{
	struct rig *r = rig_new(4, 2, 1);
	struct sop_members *m = must_open(r);
	uint16_t disks[SOP_EC_MAX];
	uint32_t absent;

	(void)unused;
	sop_members_event(m, 2, SOP_EVENT_WRITE, -ENOSPC);
	for (uint64_t rotate = 0; rotate < 6; rotate++) {
		assert_int_equal(sop_members_place(m, 0, rotate, disks, &absent, NULL), 0);
		for (unsigned s = 0; s < 3; s++)
			assert_int_not_equal(disks[s], 2);
	}
	/* Less redundancy than asked for is no way out of a full disk. */
	sop_members_event(m, 3, SOP_EVENT_WRITE, -ENOSPC);
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, NULL), -ENOSPC);
	/* Two looks, a second apart: with no change it stays full, with more room it does not. */
	r->now_ms += 2000;
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, NULL), -ENOSPC);
	sim_disk_resize(r->sim, "/d4", 96 << 20);
	r->now_ms += 2000;
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, NULL), 0);
	/* And whatever statfs says, it is tried again some time. */
	sop_members_event(m, 3, SOP_EVENT_WRITE, -ENOSPC);
	r->now_ms += 31000;
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, NULL), 0);
	sim_disk_resize(r->sim, "/d3", 1 << 16);
	sim_disk_resize(r->sim, "/d4", 1 << 16);
	r->now_ms += 2000;
	assert_int_equal(sop_members_place(m, 0, 0, disks, &absent, NULL), -ENOSPC);
	sop_members_close(m);
	rig_free(r);
}

static uint64_t rng = SEED;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 8) % below;
}

static void room_is_the_largest_that_fits(void **unused)
{
	(void)unused;
	print_message("seed %#x\n", SEED);
	for (int round = 0; round < 3000; round++) {
		struct sop_disk_space d[8];
		unsigned n = 1 + (unsigned)rnd(8), k = 1 + (unsigned)rnd(4), m = (unsigned)rnd(3);
		unsigned width = SOP_MIN(k + m, n);
		uint64_t shard = 0;

		for (unsigned i = 0; i < n; i++)
			d[i] = (struct sop_disk_space){1000, rnd(rnd(2) ? 200 : 20), 10 + i};
		for (uint64_t t = 1; t <= 2000 && n >= k; t++) { /* by trial */
			uint64_t sum = 0;

			for (unsigned i = 0; i < n; i++)
				sum += SOP_MIN(d[i].free_bytes, t);
			if (sum >= t * width)
				shard = t;
		}
		if (sop_members_room(d, n, k, m, false) != shard * k)
			fail_msg("n=%u %u+%u: %lu, not %lu", n, k, m,
				(unsigned long)sop_members_room(d, n, k, m, false),
				(unsigned long)(shard * k));
	}
}

static void disks_on_one_device_share_its_room(void **unused)
{
	struct sop_disk_space d[4];

	(void)unused;
	for (unsigned i = 0; i < 4; i++)
		d[i] = (struct sop_disk_space){1000, 800, 5};
	assert_int_equal(sop_members_room(d, 4, 2, 2, true), 500);
	assert_int_equal(sop_members_room(d, 4, 2, 2, false), 400);
	d[3].device = 6;
	assert_int_equal(sop_members_room(d, 4, 2, 2, false), 2 * 266);
	d[0].free_bytes = d[3].free_bytes = UINT64_MAX;
	d[0].device = 7;
	assert_true(sop_members_room(d, 4, 1, 0, false) > UINT64_MAX / 2);
}

static void capacity_is_refreshed_once_a_second(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members *m = must_open(r);
	uint64_t total, left, left2;

	(void)unused;
	sop_members_capacity(m, 0, &total, &left);
	assert_int_equal(total, 128 << 20);
	assert_in_range(left, 126 << 20, 128 << 20);
	sim_disk_resize(r->sim, "/d2", 32 << 20);
	r->now_ms += 999;
	sop_members_capacity(m, 0, &total, &left2);
	assert_int_equal(left2, left);
	r->now_ms += 2;
	sop_members_capacity(m, 0, &total, &left2);
	assert_int_equal(total, 64 << 20);
	assert_in_range(left2, 62 << 20, 64 << 20);
	/* A disk set aside takes nothing, but what it holds still counts. */
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	sop_members_capacity(m, 0, &total, &left2);
	assert_int_equal(total, 64 << 20);
	assert_in_range(left2, 62 << 20, 64 << 20);
	sop_members_close(m);
	rig_free(r);
}

/* --- threads --------------------------------------------------------------- */

/* Calls on one path hang until the gate is opened; open folders are counted. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	const char *hangs; /* this path */
	int open;
	struct sop_disk_ops ops;
	const struct sop_disk_ops *real;
	struct rig *rig;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void gate_pass(const char *path)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.hangs && strcmp(gate.hangs, path) == 0)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

static void gate_set(const char *hangs)
{
	pthread_mutex_lock(&gate.lock);
	gate.hangs = hangs;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

/* A visit that was given up may only begin now, on a machine that is that slow: what it uses stays
 * to the end of the process. */
static void rig_leave(struct rig *r)
{
	static struct rig *volatile left[8]; /* or the compiler takes them for used by nobody */
	static unsigned n;

	assert_true(n < SOP_ARRAY_LEN(left));
	left[n++] = r;
}

static void gate_wait_closed(void)
{
	pthread_mutex_lock(&gate.lock);
	while (gate.open)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

static ssize_t gate_pwritev(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	gate_pass(f->disk->name);
	return gate.real->pwritev(f, iov, iovcnt, off);
}

static int gate_space(struct sop_disk *d, struct sop_disk_space *out)
{
	gate_pass(d->name);
	return gate.real->space(d, out);
}

static void gate_close(struct sop_disk *d)
{
	gate.real->close(d);
	pthread_mutex_lock(&gate.lock);
	gate.open--;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

static int gate_open(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc;

	gate_pass(path);
	rc = rig_open(ctx, out, path, e);
	if (rc)
		return rc;
	pthread_mutex_lock(&gate.lock);
	if (!gate.real) {
		gate.real = (*out)->ops;
		gate.ops = *gate.real;
		gate.ops.close = gate_close;
		gate.ops.pwritev = gate_pwritev;
		gate.ops.space = gate_space;
	}
	(*out)->ops = &gate.ops;
	gate.open++;
	pthread_mutex_unlock(&gate.lock);
	return 0;
}

static struct sop_members_opts threaded(struct rig *r)
{
	struct sop_members_opts o = opts(r);

	o.open_disk = gate_open;
	o.threads = true;
	o.disk_timeout_ms = 2000; /* disks that do not hang answer in that time */
	return o;
}

static void a_disk_that_hangs_at_open_is_done_without(void **unused)
{
	struct rig *r = rig_new(4, 0, 0);
	struct sop_members_opts o = threaded(r);
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	(void)unused;
	gate_set("/d2");
	if (sop_members_open(&m, paths, 4, &o, &e))
		fail_msg("%s", e.text);
	assert_int_equal(present(m), 0xd);
	assert_int_equal(sop_members_online(m, 1, NULL, &e), -ETIMEDOUT);
	gate_set(NULL);
	/* The visit that hung has to come back before there is another. */
	for (unsigned i = 0; sop_members_online(m, 1, NULL, &e) == -EBUSY && i < 60000; i++)
		usleep(1000);
	assert_int_equal(present(m), 0xf);
	assert_int_equal(replicas(m), 0x5);
	sop_members_close(m);
	gate_wait_closed();
	rig_leave(r);
}

static void a_disk_that_hangs_in_a_label_write_is_set_aside_in_time(void **unused)
{
	struct rig *r = rig_new(5, 2, 2);
	struct sop_members_opts o = threaded(r);
	struct sop_members *m = NULL;
	uint64_t total, left;
	struct sop_err e = {0};

	(void)unused;
	assert_int_equal(sop_members_open(&m, paths, 1, &o, NULL), 0);
	assert_int_equal(present(m), 0x1f);
	gate_set("/d2");
	sop_members_event(m, 0, SOP_EVENT_WRITE, -EIO);
	assert_int_equal(present(m), 0x1c);
	assert_int_equal(member_on(r, "/d3", 1).state, SOP_MEMBER_OFFLINE);
	/* The write that hangs may yet happen: until it has, no newer label goes there. */
	assert_int_equal(sop_members_online(m, 1, NULL, &e), -EBUSY);
	gate_set("/d3");
	r->now_ms += 5000;
	sop_members_capacity(m, 0, &total, &left); /* its figures are of the last look */
	assert_int_not_equal(left, 0);
	gate_set(NULL);
	for (unsigned i = 0; sop_members_online(m, 1, NULL, &e) == -EBUSY && i < 60000; i++)
		usleep(1000);
	assert_int_equal(present(m), 0x1e);
	assert_int_equal(generation_on(r, "/d2"), generation_on(r, "/d3"));
	sop_members_close(m);
	gate_wait_closed();
	rig_leave(r);
}

static struct sop_members *crowd;

static void *crowd_thread(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, idx[SOP_MEMBERS_MAX];

	for (unsigned i = 0; i < 60; i++) {
		uint16_t disks[SOP_EC_MAX];
		uint32_t absent;
		struct sop_member_status st;
		uint64_t total, left;

		sop_members_replicas(crowd, idx);
		(void)sop_members_place(crowd, 0, i, disks, &absent, NULL);
		sop_members_status(crowd, i % 8, &st);
		sop_members_capacity(crowd, 0, &total, &left);
		sop_members_event(crowd, i % 8, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
		if (i % 20 == me)
			sop_members_event(crowd, me + 2, SOP_EVENT_WRITE, -EIO);
		if (i % 20 == me + 10)
			(void)sop_members_online(crowd, me + 2, NULL, NULL);
		assert_non_null(sop_members_disk(crowd, 0));
	}
	return NULL;
}

static void many_threads_agree_in_the_end(void **unused)
{
	struct rig *r = rig_new(8, 4, 2);
	struct sop_members_opts o = threaded(r);
	pthread_t t[4];
	struct sop_label *l;

	(void)unused;
	o.disk_timeout_ms = 20000;
	assert_int_equal(sop_members_open(&crowd, paths, 1, &o, NULL), 0);
	for (uintptr_t i = 0; i < SOP_ARRAY_LEN(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, crowd_thread, (void *)i), 0);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(t); i++)
		pthread_join(t[i], NULL);
	/* What each member's label says is what we hold to be true. */
	l = label_on(r, "/d1");
	for (unsigned i = 0; i < 8; i++) {
		struct sop_member_status st;

		sop_members_status(crowd, i, &st);
		assert_int_equal(st.checksum_errors, 4 * (i < 4 ? 8 : 7));
		assert_int_equal(l->member[i].state, st.state);
		assert_int_equal(st.present, st.state == SOP_MEMBER_ONLINE);
		if (st.present)
			assert_int_equal(generation_on(r, paths[i]), l->generation);
	}
	free(l);
	sop_members_close(crowd);
	gate_wait_closed();
	rig_leave(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_one_member_finds_all_others),
		cmocka_unit_test(a_member_that_moved_is_taken_and_its_new_path_stored),
		cmocka_unit_test(the_newest_label_says_who_belongs),
		cmocka_unit_test(labels_of_two_volumes_are_both_named),
		cmocka_unit_test(a_drive_that_serves_another_volume_now_is_missing),
		cmocka_unit_test(absent_members_up_to_parity_are_recorded_and_come_back_stale),
		cmocka_unit_test(half_of_the_labels_need_degraded),
		cmocka_unit_test(more_missing_than_parity_need_degraded),
		cmocka_unit_test(fewer_than_k_are_refused_even_degraded),
		cmocka_unit_test(old_labels_are_no_majority_though_many),
		cmocka_unit_test(a_disk_set_back_to_an_old_state_is_not_believed),
		cmocka_unit_test(
			labels_of_one_generation_that_differ_are_merged_to_the_less_trusting),
		cmocka_unit_test(without_a_current_replica_nothing_is_opened_or_written),
		cmocka_unit_test(a_folder_given_that_has_no_label_is_named),
		cmocka_unit_test(the_mount_point_of_an_absent_drive_is_never_written),
		cmocka_unit_test(a_second_opener_is_told_who_has_it),
		cmocka_unit_test(a_mount_between_reading_and_locking_is_noticed),
		cmocka_unit_test(features_that_are_not_known_are_respected),
		cmocka_unit_test(the_same_member_by_two_paths_counts_once),
		cmocka_unit_test(cut_off_opens_cost_no_replica),
		cmocka_unit_test(one_failing_step_does_not_keep_the_volume_from_opening),
		cmocka_unit_test(a_disk_that_cannot_be_written_is_done_without),
		cmocka_unit_test(a_write_error_sets_the_member_aside_on_record),
		cmocka_unit_test(read_errors_are_counted_and_timeouts_set_aside),
		cmocka_unit_test(a_member_that_does_not_take_the_label_is_set_aside_too),
		cmocka_unit_test(the_last_current_replica_stays_the_one_to_believe),
		cmocka_unit_test(all_disks_failing_ends_without_hanging),
		cmocka_unit_test(a_member_comes_back_online_with_a_stale_replica),
		cmocka_unit_test(a_member_that_does_not_answer_stays_aside),
		cmocka_unit_test(offline_on_request_keeps_what_is_needed),
		cmocka_unit_test(offline_on_request_keeps_what_parity_does_not_make_up_for),
		cmocka_unit_test(a_mount_that_memory_is_short_for_misses_no_disk),
		cmocka_unit_test(
			offline_on_request_keeps_a_failed_disk_that_holds_the_last_replica),
		cmocka_unit_test(offline_on_request_keeps_a_failed_disk_whose_shards_are_needed),
		cmocka_unit_test(a_mount_that_lacks_a_disk_that_is_offline_by_hand_writes_nothing),
		cmocka_unit_test(a_profile_that_needs_a_disk_that_is_away_is_refused),
		cmocka_unit_test(who_leaves_and_its_heir_are_told_in_one_round),
		cmocka_unit_test(only_who_is_drained_leaves),
		cmocka_unit_test(who_is_drained_or_gone_is_not_drained_again),
		cmocka_unit_test(who_was_removed_while_its_replacement_was_made_stays_so),
		cmocka_unit_test(a_folder_that_another_takes_before_it_is_locked_stays_its),
		cmocka_unit_test(place_takes_k_plus_m_and_rotates_the_shards),
		cmocka_unit_test(place_prefers_free_disks_and_lets_equal_ones_take_turns),
		cmocka_unit_test(place_goes_on_with_absent_disks_down_to_k),
		cmocka_unit_test(place_replaces_an_absent_disk_by_a_spare_one),
		cmocka_unit_test(place_passes_by_full_disks_until_they_have_room_again),
		cmocka_unit_test(room_is_the_largest_that_fits),
		cmocka_unit_test(disks_on_one_device_share_its_room),
		cmocka_unit_test(capacity_is_refreshed_once_a_second),
		cmocka_unit_test(a_disk_that_hangs_at_open_is_done_without),
		cmocka_unit_test(a_disk_that_hangs_in_a_label_write_is_set_aside_in_time),
		cmocka_unit_test(many_threads_agree_in_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
