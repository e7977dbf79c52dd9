/* Making a volume: what is refused before the first write, what is written, what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/checkpoint_file.h"
#include "core/format_volume.h"
#include "core/members.h"
#include "tests/lib/simdisk.h"

static const char *const paths[] = {"/d1", "/d2", "/d3", "/d4", "/d5", "/d6", "/d7", "/d8"};

static struct sim *machine(unsigned n)
{
	struct sim *s = sim_new(n);

	for (unsigned i = 0; i < n; i++)
		sim_add_disk(s, paths[i], 64 << 20);
	return s;
}

static struct sop_format_opts opts(struct sim *s)
{
	struct sop_format_opts o = {.name = "tank", .open_disk = sim_open_disk, .open_disk_ctx = s};

	return o;
}

static struct sop_disk *open_one(struct sim *s, unsigned i)
{
	struct sop_disk *d;

	assert_int_equal(sim_open_disk(s, &d, paths[i], NULL), 0);
	return d;
}

static void put_file(struct sim *s, unsigned i, const char *path)
{
	struct sop_disk *d = open_one(s, i);

	assert_int_equal(sop_disk_publish(d, path, "x", 1, NULL), 0);
	sop_disk_close(d);
}

static bool has_file(struct sim *s, unsigned i, const char *path)
{
	struct sop_disk *d = open_one(s, i);
	struct sop_file *f;
	int rc = d->ops->file_open(&f, d, path, SOP_OPEN_READ);

	if (!rc)
		f->ops->file_close(f);
	sop_disk_close(d);
	return !rc;
}

static bool has_checkpoint_of(struct sim *s, unsigned i, const struct sop_uuid *volume)
{
	struct sop_disk *d = open_one(s, i);
	struct sop_checkpoint c = {0};
	void *raw = NULL;
	size_t len;
	int rc = sop_disk_read_file(d, SOP_PATH_CHECKPOINT, &raw, &len, 4096, NULL);

	if (!rc)
		rc = sop_checkpoint_decode(&c, raw, len, volume, NULL);
	if (!rc)
		sop_checkpoint_release(&c);
	free(raw);
	sop_disk_close(d);
	return !rc;
}

static int note(void *arg, const char *name)
{
	strcat(arg, name);
	strcat(arg, " ");
	return 0;
}

static void expect_error(int rc, int want, const struct sop_err *e, const char *text)
{
	if (rc != want || !strstr(e->text, text))
		fail_msg("got %d \"%s\", not %d \"%s\"", rc, e->text, want, text);
}

static struct sop_members *open_volume(struct sim *s, unsigned n, struct sop_err *e)
{
	struct sop_members_opts o = {.open_disk = sim_open_disk, .open_disk_ctx = s};
	struct sop_members *m;

	return sop_members_open(&m, paths, n, &o, e) ? NULL : m;
}

static void default_profile_follows_the_number_of_disks(void **unused)
{
	static const unsigned want[][2] = {{1, 0}, {1, 1}, {2, 1}, {2, 2}, {3, 2}, {4, 2}, {4, 2}};

	(void)unused;
	for (unsigned n = 1; n <= SOP_ARRAY_LEN(want); n++) {
		unsigned k, m;

		sop_format_profile(n, &k, &m);
		assert_int_equal(k, want[n - 1][0]);
		assert_int_equal(m, want[n - 1][1]);
	}
}

static void format_makes_labels_directories_and_an_empty_checkpoint(void **unused)
{
	struct sim *s = machine(4);
	struct sop_format_opts o = opts(s);
	struct sop_label *made = calloc(1, sizeof(*made)), *l = calloc(1, sizeof(*l));
	struct sop_format_report report;

	(void)unused;
	o.report = &report;
	assert_int_equal(sop_format(paths, 4, &o, made, NULL), 0);
	assert_int_equal(made->members, 4);
	assert_int_equal(made->generation, 1);
	assert_string_equal(made->name, "tank");
	assert_int_equal(made->profile[0].k, 2);
	assert_int_equal(made->profile[0].m, 2);
	assert_int_equal(made->hashmod, 250);
	for (unsigned i = 0; i < 4; i++) {
		struct sop_disk *d = open_one(s, i);
		struct sop_checkpoint c;
		char names[256] = "";
		void *raw;
		size_t len;

		assert_int_equal(sop_label_load(l, d, NULL), 0);
		assert_int_equal(l->index, i);
		assert_true(sop_uuid_equal(&l->volume_uuid, &made->volume_uuid));
		assert_string_equal(l->member[i].path, paths[i]);
		assert_int_equal(l->member[i].role,
			SOP_ROLE_DATA | (i < 3 ? SOP_ROLE_REGISTRY : 0)); /* m + 1 replicas */
		assert_int_equal(l->member[i].current_since, 1);
		assert_int_equal(d->ops->list(d, "", note, names), 0);
		assert_true(strstr(names, "segments") && strstr(names, "lock"));
		assert_int_equal(strstr(names, "journal") && strstr(names, "registry"), i < 3);
		if (i < 3) {
			assert_int_equal(
				sop_disk_read_file(d, SOP_PATH_CHECKPOINT, &raw, &len, 4096, NULL),
				0);
			assert_int_equal(
				sop_checkpoint_decode(&c, raw, len, &made->volume_uuid, NULL), 0);
			assert_true(c.clean);
			assert_int_equal(c.epoch, 1);
			assert_int_equal(c.lsn, 0);
			assert_int_equal(c.journal, 1);
			assert_int_equal(c.chain, 0);
			assert_int_equal(c.next_ino, SOP_INO_FIRST);
			assert_int_equal(c.next_handle, 1);
			assert_int_equal(c.free_handle, 0);
			assert_int_equal(c.n_flips + c.n_pending + c.n_uncommitted, 0);
			sop_checkpoint_release(&c);
			free(raw);
		}
		sop_disk_close(d);
	}
	assert_int_equal(report.disks, 4);
	assert_int_equal(report.replicas, 3);
	assert_int_equal(report.total_bytes, 2ull * (64 << 20));
	assert_false(report.one_device);
	assert_false(report.overwrote);
	free(made);
	free(l);
	sim_free(s);
}

static void stores_folders_take_the_replicas(void **unused)
{
	struct sim *s = machine(5);
	struct sop_format_opts o = opts(s);
	static const char *const stores[] = {"/d5", "/d2"};
	struct sop_label *made = calloc(1, sizeof(*made));

	(void)unused;
	o.k = 2;
	o.m = 1;
	o.stores = stores;
	o.n_stores = 2;
	assert_int_equal(sop_format(paths, 3, &o, made, NULL), 0);
	assert_int_equal(made->members, 4);
	assert_int_equal(made->member[0].role, SOP_ROLE_DATA);
	assert_int_equal(made->member[1].role, SOP_ROLE_DATA | SOP_ROLE_REGISTRY);
	assert_int_equal(made->member[2].role, SOP_ROLE_DATA);
	assert_int_equal(made->member[3].role, SOP_ROLE_REGISTRY);
	assert_string_equal(made->member[3].path, "/d5");
	assert_true(has_file(s, 4, SOP_PATH_CHECKPOINT));
	assert_false(has_file(s, 0, SOP_PATH_CHECKPOINT));
	free(made);
	sim_free(s);
}

static void impossible_shapes_are_refused(void **unused)
{
	static const char *const twice[] = {"/d1", "/d2", "//d1/"};
	static const char *const one_store[] = {"/d1"};
	struct sim *s = machine(4);
	struct sop_format_opts o = opts(s);
	uint64_t before = sim_steps(s);
	struct sop_err e = {0};
	char name[80];

	(void)unused;
	o.k = 4, o.m = 2;
	expect_error(
		sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "4+2 needs 6 disks, 4 are given");
	o.k = 0, o.m = 2;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "erasure code 0+2");
	o.k = 30, o.m = 3;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "at most 32 shards");
	o = opts(s);
	expect_error(sop_format(paths, 0, &o, NULL, &e), -EINVAL, &e, "no folder");
	expect_error(sop_format(twice, 3, &o, NULL, &e), -EINVAL, &e, "/d1: is given twice");
	o.hashmod = 249;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "249: must be 250 to 750000");
	o.hashmod = 750001;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "must be 250 to 750000");
	o.hashmod = 0;
	o.name = "a/b";
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "label \"a/b\"");
	memset(name, 'a', sizeof(name));
	name[SOP_VOLUME_NAME] = '\0';
	o.name = name;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "longer than 63");
	o = opts(s);
	o.stores = one_store;
	o.n_stores = 1;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e, "3 are needed");
	assert_int_equal(sim_steps(s), before);
	sim_free(s);
}

static void a_folder_that_is_not_empty_needs_force(void **unused)
{
	struct sim *s = machine(2);
	struct sop_format_opts o = opts(s);
	struct sop_err e = {0};
	uint64_t before;

	(void)unused;
	put_file(s, 1, "letters");
	before = sim_steps(s);
	expect_error(sop_format(paths, 2, &o, NULL, &e), -ENOTEMPTY, &e,
		"/d2: is not empty (holds \"letters\"); -f");
	assert_int_equal(sim_steps(s), before);
	o.force = true;
	assert_int_equal(sop_format(paths, 2, &o, NULL, &e), 0);
	assert_true(has_file(s, 1, "letters"));
	sim_free(s);
}

static void lost_and_found_does_not_make_a_folder_non_empty(void **unused)
{
	struct sim *s = machine(2);
	struct sop_format_opts o = opts(s);
	struct sop_disk *d = open_one(s, 0);

	(void)unused;
	assert_int_equal(d->ops->mkdir(d, "lost+found"), 0);
	sop_disk_close(d);
	assert_int_equal(sop_format(paths, 2, &o, NULL, NULL), 0);
	sim_free(s);
}

static void a_member_of_another_volume_is_named_and_needs_force(void **unused)
{
	struct sim *s = machine(3);
	struct sop_format_opts o = opts(s);
	struct sop_label *made = calloc(1, sizeof(*made));
	struct sop_err e = {0};
	char uuid[SOP_UUID_TEXT], text[160];
	uint64_t before;
	struct sop_members *m;

	(void)unused;
	assert_int_equal(sop_format(&paths[1], 2, &o, made, NULL), 0);
	before = sim_steps(s);
	snprintf(text, sizeof(text), "/d2: belongs to volume %s (label \"tank\"); -f overwrites it",
		sop_uuid_format(uuid, &made->volume_uuid));
	o.name = "pool";
	expect_error(sop_format(paths, 3, &o, NULL, &e), -EEXIST, &e, text);
	assert_int_equal(sim_steps(s), before);

	/* What the old volume left in its directories must be gone; what was not its own stays. */
	put_file(s, 1, "letters");
	for (unsigned i = 1; i < 3; i++) {
		struct sop_disk *d = open_one(s, i);

		assert_int_equal(d->ops->mkdir(d, "segments/01"), 0);
		sop_disk_close(d);
		put_file(s, i, "segments/01/0000000000100001.0");
		put_file(s, i, "journal/0000000000000001");
		put_file(s, i, "registry/00000000");
	}
	o.force = true;
	assert_int_equal(sop_format(paths, 3, &o, made, &e), 0);
	assert_true(has_file(s, 1, "letters"));
	for (unsigned i = 1; i < 3; i++) {
		assert_false(has_file(s, i, "segments/01/0000000000100001.0"));
		assert_false(has_file(s, i, "journal/0000000000000001"));
		assert_false(has_file(s, i, "registry/00000000"));
		/* d3 is no replica of the new volume (2+1: two of them). */
		assert_int_equal(has_file(s, i, "checkpoint"), i < 2);
	}
	m = open_volume(s, 3, &e);
	assert_non_null(m);
	assert_string_equal(sop_members_label(m)->name, "pool");
	sop_members_close(m);
	free(made);
	sim_free(s);
}

/* When the second folder is looked at, another makes a volume of the first, and is done. */
static int open_while_another_formats(
	void *ctx, struct sop_disk **out, const char *path, struct sop_err *e)
{
	struct sop_format_opts o = opts(ctx);

	o.name = "other";
	if (strcmp(path, paths[1]) == 0)
		assert_int_equal(sop_format(paths, 1, &o, NULL, e), 0);
	return sim_open_disk(ctx, out, path, e);
}

static void a_volume_made_meanwhile_is_not_overwritten(void **unused)
{
	struct sim *s = machine(2);
	struct sop_format_opts o = opts(s);
	struct sop_err e = {0};
	struct sop_members *m;

	(void)unused;
	o.open_disk = open_while_another_formats;
	expect_error(sop_format(paths, 2, &o, NULL, &e), -EEXIST, &e, "(label \"other\")");
	m = open_volume(s, 1, &e);
	assert_non_null(m);
	assert_string_equal(sop_members_label(m)->name, "other");
	sop_members_close(m);
	sim_free(s);
}

static void a_mounted_volume_is_not_overwritten_even_by_force(void **unused)
{
	struct sim *s = machine(2);
	struct sop_format_opts o = opts(s);
	struct sop_err e = {0};
	struct sop_members *m;
	uint64_t before;

	(void)unused;
	assert_int_equal(sop_format(paths, 2, &o, NULL, NULL), 0);
	m = open_volume(s, 2, &e);
	assert_non_null(m);
	before = sim_steps(s);
	o.force = true;
	expect_error(sop_format(paths, 2, &o, NULL, &e), SOP_EINUSE, &e, "/d1: is in use (host=");
	assert_int_equal(sim_steps(s), before);
	sop_members_close(m);
	assert_int_equal(sop_format(paths, 2, &o, NULL, &e), 0);
	sim_free(s);
}

/* The simulated disks, all on one device. */
static struct sop_disk_ops shared_ops;
static int (*sim_space_of)(struct sop_disk *d, struct sop_disk_space *out);

static int shared_space(struct sop_disk *d, struct sop_disk_space *out)
{
	int rc = sim_space_of(d, out);

	out->device = 77;
	return rc;
}

static int open_shared(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (!rc) {
		shared_ops = *(*out)->ops;
		sim_space_of = (*out)->ops->space;
		shared_ops.space = shared_space;
		(*out)->ops = &shared_ops;
	}
	return rc;
}

static void two_folders_on_one_device_need_force(void **unused)
{
	struct sim *s = machine(4);
	struct sop_format_opts o = opts(s);
	struct sop_format_report report;
	struct sop_err e = {0};

	(void)unused;
	o.open_disk = open_shared;
	o.report = &report;
	expect_error(sop_format(paths, 4, &o, NULL, &e), -EINVAL, &e,
		"/d2: is on the same device as /d1");
	o.force = true;
	assert_int_equal(sop_format(paths, 4, &o, NULL, &e), 0);
	assert_true(report.one_device);
	/* One device of 64 MiB: half of it after 2+2, not twice as much as there is. */
	assert_int_equal(report.total_bytes, 32 << 20);
	o.open_disk = sim_open_disk;
	sim_free(s);
}

static void a_dry_run_checks_all_and_writes_nothing(void **unused)
{
	struct sim *s = machine(3);
	struct sop_format_opts o = opts(s);
	struct sop_format_report report;
	struct sop_err e = {0};
	uint64_t before = sim_steps(s);

	(void)unused;
	o.dry_run = true;
	o.report = &report;
	assert_int_equal(sop_format(paths, 3, &o, NULL, &e), 0);
	assert_int_equal(report.k, 2);
	assert_int_equal(sim_steps(s), before);
	assert_null(open_volume(s, 3, &e));
	assert_int_equal(e.code, SOP_ENOTVOLUME);
	put_file(s, 2, "x");
	expect_error(sop_format(paths, 3, &o, NULL, &e), -ENOTEMPTY, &e, "/d3: is not empty");
	sim_free(s);
}

static void a_folder_that_is_not_there_is_named(void **unused)
{
	struct sim *s = machine(2);
	struct sop_format_opts o = opts(s);
	struct sop_err e = {0};
	uint64_t before = sim_steps(s);

	(void)unused;
	assert_int_not_equal(sop_format(paths, 3, &o, NULL, &e), 0);
	assert_non_null(strstr(e.text, "/d3"));
	assert_int_equal(sim_steps(s), before);
	sim_free(s);
}

/* Cut it at each step, over fresh folders and over an old volume. What is left opens as the new
 * volume, as the old one, or not at all; and it can be made again. */
static void a_crash_at_any_step_can_be_made_good_by_force(void **unused)
{
	static const struct sop_uuid old = {{1}}, new = {{2}};
	unsigned opened_new = 0, refused = 0;

	(void)unused;
	for (unsigned over = 0; over < 2; over++) {
		bool crashed = true;

		for (uint64_t step = 1; crashed; step++) {
			for (uint64_t choice = 0; choice < 3; choice++) {
				struct sim *s = machine(3);
				struct sop_format_opts o = opts(s);
				struct sop_err e = {0};
				struct sop_members *m;
				bool made;

				o.force = true;
				o.uuid = &old;
				if (over)
					assert_int_equal(sop_format(paths, 3, &o, NULL, NULL), 0);
				o.uuid = &new;
				sim_crash_at(s, sim_steps(s) + step);
				made = sop_format(paths, 3, &o, NULL, &e) == 0;
				crashed = sim_crashed(s);
				assert_true(made || crashed);
				sim_power_on(s, SIM_KEEP_RANDOM, choice);
				m = open_volume(s, 3, &e);
				if (m) {
					bool is_new = sop_uuid_equal(
						&sop_members_label(m)->volume_uuid, &new);

					opened_new += is_new && crashed;
					assert_true(is_new || (over && !made));
					/* Whoever has a label has what belongs to it. */
					for (unsigned i = 0; i < 2; i++)
						if (sop_members_disk(m, i))
							assert_true(has_checkpoint_of(
								s, i, is_new ? &new : &old));
					sop_members_close(m);
				}
				refused += !m;
				assert_true(m || !made);
				assert_int_equal(sop_format(paths, 3, &o, NULL, &e), 0);
				m = open_volume(s, 3, &e);
				assert_non_null(m);
				sop_members_close(m);
				sim_free(s);
			}
		}
	}
	assert_true(opened_new && refused);
}

static void every_failing_step_is_reported_with_its_folder(void **unused)
{
	bool failed = true;

	(void)unused;
	for (uint64_t step = 1; failed; step++) {
		struct sim *s = machine(3);
		struct sop_format_opts o = opts(s);
		struct sop_err e = {0};
		uint64_t first = sim_steps(s);
		struct sop_members *m;

		sim_fail_step(s, first + step, -EIO);
		failed = sop_format(paths, 3, &o, NULL, &e) != 0;
		if (failed && (e.code != -EIO || strncmp(e.text, "/d", 2) != 0))
			fail_msg("step %lu: %s", (unsigned long)step, e.text);
		if (!failed) {
			/* Ended before this step, or it failed where it does not matter (the
			 * claim). */
			failed = sim_steps(s) - first >= step;
			m = open_volume(s, 3, &e);
			assert_non_null(m);
			sop_members_close(m);
		}
		sim_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_profile_follows_the_number_of_disks),
		cmocka_unit_test(format_makes_labels_directories_and_an_empty_checkpoint),
		cmocka_unit_test(stores_folders_take_the_replicas),
		cmocka_unit_test(impossible_shapes_are_refused),
		cmocka_unit_test(a_folder_that_is_not_empty_needs_force),
		cmocka_unit_test(lost_and_found_does_not_make_a_folder_non_empty),
		cmocka_unit_test(a_member_of_another_volume_is_named_and_needs_force),
		cmocka_unit_test(a_volume_made_meanwhile_is_not_overwritten),
		cmocka_unit_test(a_mounted_volume_is_not_overwritten_even_by_force),
		cmocka_unit_test(two_folders_on_one_device_need_force),
		cmocka_unit_test(a_dry_run_checks_all_and_writes_nothing),
		cmocka_unit_test(a_folder_that_is_not_there_is_named),
		cmocka_unit_test(a_crash_at_any_step_can_be_made_good_by_force),
		cmocka_unit_test(every_failing_step_is_reported_with_its_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
