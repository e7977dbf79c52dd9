/* The simulated disk itself: what a power cut may leave, and that it does leave it. What it has in
 * common with a real folder is in test_disk.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <pthread.h>

#include "tests/lib/simdisk.h"

#define D0 "/d0"
#define D1 "/d1"

static int setup(void **state)
{
	struct sim *s = sim_new(42);

	sim_add_disk(s, D0, 0);
	sim_add_disk(s, D1, 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	sim_free(*state);
	return 0;
}

static struct sop_file *make(struct sop_disk *d, const char *path)
{
	struct sop_file *f = NULL;

	assert_int_equal(d->ops->file_open(&f, d, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	return f;
}

static ssize_t put_bytes(struct sop_file *f, const void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

	return f->ops->pwritev(f, &iov, 1, off);
}

static ssize_t put(struct sop_file *f, const char *text, uint64_t off)
{
	return put_bytes(f, text, strlen(text), off);
}

static void done(struct sop_file *f)
{
	f->ops->file_close(f);
}

/* A file that survives, with this content. */
static void make_durable(struct sop_disk *d, const char *path, const char *text)
{
	struct sop_file *f = make(d, path);

	assert_int_equal(put(f, text, 0), strlen(text));
	assert_int_equal(f->ops->datasync(f), 0);
	done(f);
	assert_int_equal(d->ops->syncdir(d, ""), 0);
}

/* The content as text, or "(none)"; static memory. */
static const char *content(struct sim *s, const char *disk, const char *path)
{
	static char text[64];
	int rc;

	memset(text, 0, sizeof(text));
	for (size_t len = sizeof(text) - 1;; len--) {
		rc = sim_peek(s, disk, path, 0, text, len);
		if (!rc || rc != -EINVAL || !len)
			break;
	}
	return rc == -ENOENT ? "(none)" : text;
}

static void what_is_synced_survives_and_the_rest_does_not(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f;

	make_durable(d, "a", "synced");
	f = make(d, "a");
	put(f, "UNSYNC", 0);
	f->ops->truncate(f, 100);
	done(f);
	done(make(d, "b"));
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "a"), "synced");
	assert_string_equal(content(s, D0, "b"), "(none)");
}

static void a_process_crash_loses_nothing_written(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f = make(d, "a");

	put(f, "written", 0);
	done(f);
	assert_int_equal(d->ops->mkdir(d, "dir"), 0);
	done(make(d, "dir/b"));
	sim_power_on(s, SIM_KEEP_ALL, 0);
	assert_string_equal(content(s, D0, "a"), "written");
	assert_string_equal(content(s, D0, "dir/b"), "");
	/* And is durable from then on. */
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "a"), "written");
}

static void a_file_synced_without_its_name_is_not_there(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f = make(d, "a");

	put(f, "synced", 0);
	assert_int_equal(f->ops->datasync(f), 0);
	done(f);
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "a"), "(none)");
}

static void a_directory_needs_its_own_name_synced(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);

	d->ops->mkdir(d, "dir");
	done(make(d, "dir/a"));
	d->ops->syncdir(d, "dir");
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_int_equal(d->ops->list(d, "dir", NULL, NULL), -ENOENT);
	d->ops->mkdir(d, "dir");
	done(make(d, "dir/a"));
	d->ops->syncdir(d, "dir");
	d->ops->syncdir(d, "");
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "dir/a"), "");
}

/* Which of some outcomes come up over many draws. */
#define DRAWS 400

static void unsynced_names_are_there_or_not_one_by_one(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	unsigned seen[4] = {0};

	make_durable(d, "gone", "x");
	done(make(d, "new"));
	d->ops->unlink(d, "gone");
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 1);
		unsigned at = 0;

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		at += strcmp(content(c, D0, "new"), "(none)") != 0;
		at += strcmp(content(c, D0, "gone"), "(none)") != 0 ? 2 : 0;
		seen[at]++;
		sim_free(c);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(seen[i] > DRAWS / 20);
}

static void a_rename_is_old_or_new_and_never_both_or_none(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	unsigned old = 0, new = 0;

	d->ops->mkdir(d, "dir");
	make_durable(d, "name", "old");
	make_durable(d, "temp", "new");
	make_durable(d, "moving", "m");
	d->ops->syncdir(d, "dir");
	assert_int_equal(d->ops->rename(d, "temp", "name"), 0);
	assert_int_equal(d->ops->rename(d, "moving", "dir/moved"), 0);
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 1);

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		if (strcmp(content(c, D0, "name"), "new") == 0) {
			new ++;
			assert_string_equal(content(c, D0, "temp"), "(none)");
		} else {
			old++;
			assert_string_equal(content(c, D0, "name"), "old");
			assert_string_equal(content(c, D0, "temp"), "new");
		}
		/* Over two directories, too. */
		assert_int_equal(strcmp(content(c, D0, "moving"), "m") == 0,
			strcmp(content(c, D0, "dir/moved"), "(none)") == 0);
		sim_free(c);
	}
	assert_true(old > DRAWS / 20 && new > DRAWS / 20);
}

enum { SECTORS = 8 };

static void unsynced_writes_are_torn_at_sectors(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f = make(d, "a");
	uint8_t old[SECTORS * 512], new[SECTORS * 512], got[SECTORS * 512];
	unsigned none = 0, all = 0, some = 0;

	memset(old, 1, sizeof(old));
	memset(new, 2, sizeof(new));
	put_bytes(f, old, sizeof(old), 0);
	f->ops->datasync(f);
	d->ops->syncdir(d, "");
	put_bytes(f, new, sizeof(new), 0);
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 7);
		unsigned of_new = 0;

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		assert_int_equal(sim_peek(c, D0, "a", 0, got, sizeof(got)), 0);
		for (size_t k = 0; k < SECTORS; k++) {
			bool is_new = got[k * 512] == 2;

			assert_memory_equal(got + k * 512, (is_new ? new : old) + k * 512, 512);
			of_new += is_new;
		}
		none += of_new == 0;
		all += of_new == SECTORS;
		some += of_new > 0 && of_new < SECTORS;
		sim_free(c);
	}
	assert_true(none > DRAWS / 20 && all > DRAWS / 20 && some > DRAWS / 20);
	done(f);
}

static void later_writes_survive_without_earlier_ones(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f;
	unsigned seen[4] = {0};

	make_durable(d, "a", "..");
	f = make(d, "a");
	put(f, "1", 0);
	put(f, "2", 1);
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 3);
		const char *text;

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		text = content(c, D0, "a");
		assert_int_equal(strlen(text), 2);
		seen[(text[0] == '1') + 2 * (text[1] == '2')]++;
		sim_free(c);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(seen[i] > DRAWS / 20);
	done(f);
}

struct sizes {
	uint64_t size;
};

static void note_size(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct sizes *out = arg;

	(void)allocated;
	assert_string_equal(file, "a");
	out->size = size;
}

static void a_size_survives_with_and_without_its_data(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f;
	unsigned grown_with = 0, grown_without = 0, as_it_was = 0;

	make_durable(d, "a", "old");
	f = make(d, "a");
	put(f, "new", 3);
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 5);
		struct sizes now = {0};
		char buf[6];

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		sim_each_file(c, D0, note_size, &now);
		if (now.size == 3) {
			as_it_was++;
		} else {
			assert_int_equal(now.size, 6);
			assert_int_equal(sim_peek(c, D0, "a", 0, buf, 6), 0);
			grown_with += memcmp(buf, "oldnew", 6) == 0;
			grown_without += memcmp(buf, "old\0\0\0", 6) == 0;
		}
		sim_free(c);
	}
	assert_int_equal(as_it_was + grown_with + grown_without, DRAWS);
	assert_true(as_it_was > DRAWS / 20 && grown_with > DRAWS / 20);
	assert_true(grown_without > DRAWS / 20);
	done(f);
}

static void what_is_synced_survives_every_draw(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f;

	d->ops->mkdir(d, "dir");
	d->ops->syncdir(d, "");
	f = make(d, "dir/a");
	put(f, "abcdef", 0);
	f->ops->datasync(f);
	d->ops->syncdir(d, "dir");
	put(f, "!", 2000);
	f->ops->punch(f, 1000, 10);
	done(f);
	done(make(d, "dir/b"));
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 1);
		char buf[6];

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		assert_int_equal(sim_peek(c, D0, "dir/a", 0, buf, 6), 0);
		assert_memory_equal(buf, "abcdef", 6);
		sim_free(c);
	}
}

static void one_choice_is_one_outcome(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f = make(d, "a");
	uint8_t buf[5000], a[5000], b[5000];

	memset(buf, 'x', sizeof(buf));
	put_bytes(f, buf, sizeof(buf), 0);
	done(f);
	for (uint64_t i = 0; i < 50; i++) {
		struct sim *c1 = sim_clone(s, 9), *c2 = sim_clone(s, 9);
		int rc1, rc2;

		memset(a, 0, sizeof(a));
		memset(b, 0, sizeof(b));
		sim_power_on(c1, SIM_KEEP_RANDOM, i);
		sim_power_on(c2, SIM_KEEP_RANDOM, i);
		rc1 = sim_peek(c1, D0, "a", 0, a, sizeof(a));
		rc2 = sim_peek(c2, D0, "a", 0, b, sizeof(b));
		assert_int_equal(rc1, rc2);
		assert_memory_equal(a, b, sizeof(a));
		sim_free(c1);
		sim_free(c2);
	}
}

static void handles_are_invalid_after_a_power_cut(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0), *opened;
	struct sop_file *f, *g;
	uint64_t size;
	char buf[1];
	struct iovec iov = {.iov_base = buf, .iov_len = 1};

	assert_int_equal(sim_open_disk(s, &opened, D0, NULL), 0);
	make_durable(d, "a", "x");
	f = make(opened, "a");
	assert_int_equal(f->ops->lock(f), 0);
	sim_power_on(s, SIM_KEEP_ALL, 0);
	assert_int_equal(put(f, "y", 0), -EIO);
	assert_int_equal(f->ops->preadv(f, &iov, 1, 0), -EIO);
	assert_int_equal(f->ops->size(f, &size), -EIO);
	assert_int_equal(f->ops->datasync(f), -EIO);
	assert_int_equal(opened->ops->mkdir(opened, "d"), -EIO);
	/* The test's own disk goes on, and the lock is free. */
	g = make(d, "a");
	assert_int_equal(g->ops->lock(g), 0);
	done(f);
	assert_int_equal(g->ops->size(g, &size), 0);
	done(g);
	sop_disk_close(opened);
}

static void at_the_crash_step_everything_stops(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0), *other = sim_disk(s, 1), *opened;
	struct sop_file *f, *g;
	char buf[2];
	struct iovec iov = {.iov_base = buf, .iov_len = 1};

	make_durable(d, "a", "x");
	f = make(d, "a");
	sim_crash_at(s, sim_steps(s) + 2);
	assert_int_equal(put(f, "1", 0), 1);
	assert_false(sim_crashed(s));
	assert_int_equal(f->ops->datasync(f), -EIO);
	assert_true(sim_crashed(s));
	assert_int_equal(f->ops->preadv(f, &iov, 1, 0), -EIO);
	assert_int_equal(other->ops->file_open(&g, other, "a", SOP_OPEN_READ), -EIO);
	assert_int_equal(other->ops->mkdir(other, "d"), -EIO);
	assert_int_equal(sim_open_disk(s, &opened, D1, NULL), -EIO);
	done(f);
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_false(sim_crashed(s));
	/* The sync at which it stopped did nothing. */
	assert_string_equal(content(s, D0, "a"), "x");
}

static void the_write_under_way_may_reach_the_disk(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f;
	unsigned old = 0, new = 0;

	make_durable(d, "a", "x");
	f = make(d, "a");
	sim_crash_at(s, sim_steps(s) + 1);
	assert_int_equal(put(f, "y", 0), -EIO);
	for (uint64_t i = 0; i < DRAWS; i++) {
		struct sim *c = sim_clone(s, 1);

		sim_power_on(c, SIM_KEEP_RANDOM, i);
		old += strcmp(content(c, D0, "a"), "x") == 0;
		new += strcmp(content(c, D0, "a"), "y") == 0;
		sim_free(c);
	}
	assert_int_equal(old + new, DRAWS);
	assert_true(old > DRAWS / 20 && new > DRAWS / 20);
	done(f);
}

static void a_failing_step_fails_once_and_changes_nothing(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_file *f = make(d, "a");

	put(f, "x", 0);
	sim_fail_step(s, sim_steps(s) + 1, -ENOSPC);
	assert_int_equal(put(f, "y", 0), -ENOSPC);
	assert_string_equal(content(s, D0, "a"), "x");
	assert_int_equal(put(f, "y", 0), 1);
	assert_string_equal(content(s, D0, "a"), "y");
	sim_fail_step(s, sim_steps(s) + 1, -EIO);
	assert_int_equal(f->ops->datasync(f), -EIO);
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "a"), "(none)");
	done(f);
}

static void steps_count_what_changes_something(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	uint64_t base = sim_steps(s), size;
	struct sop_file *f = make(d, "a"), *g;
	char buf[1];
	struct iovec iov = {.iov_base = buf, .iov_len = 1};
	struct sim_counts counts;

	assert_int_equal(sim_steps(s), base + 1);
	g = make(d, "a"); /* is there */
	done(g);
	f->ops->preadv(f, &iov, 1, 0);
	f->ops->size(f, &size);
	f->ops->lock(f);
	assert_int_equal(sim_steps(s), base + 1);
	put(f, "x", 0);
	f->ops->datasync(f);
	f->ops->truncate(f, 10);
	f->ops->allocate(f, 0, 20);
	f->ops->punch(f, 0, 5);
	d->ops->mkdir(d, "d");
	d->ops->link(d, "a", "b");
	d->ops->rename(d, "b", "c");
	d->ops->unlink(d, "c");
	d->ops->syncdir(d, "");
	assert_int_equal(sim_steps(s), base + 11);
	counts = sim_take_counts(s);
	assert_int_equal(counts.creates, 1);
	assert_int_equal(counts.reads, 1);
	assert_int_equal(counts.read_bytes, 1);
	assert_int_equal(counts.writes, 1);
	assert_int_equal(counts.write_bytes, 1);
	assert_int_equal(counts.syncs, 2);
	assert_int_equal(counts.others, 7);
	assert_int_equal(sim_take_counts(s).others, 0);
	done(f);
}

static void faults_are_of_one_disk(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0), *other = sim_disk(s, 1), *opened;
	struct sop_file *f = make(d, "a"), *g = make(other, "a");
	char buf[1];
	struct iovec iov = {.iov_base = buf, .iov_len = 1};

	put(f, "x", 0);
	sim_disk_error(s, D0, -EIO, -ENOSPC, -ENODEV);
	assert_int_equal(f->ops->preadv(f, &iov, 1, 0), -EIO);
	assert_int_equal(f->ops->preadv_cached(f, &iov, 1, 0), -EAGAIN);
	assert_int_equal(put(f, "y", 0), -ENOSPC);
	assert_int_equal(f->ops->datasync(f), -ENODEV);
	assert_int_equal(put(g, "y", 0), 1);
	sim_disk_error(s, D0, 0, 0, 0);
	sim_disk_gone(s, D0, true);
	assert_int_equal(put(f, "y", 0), -EIO);
	assert_int_equal(sim_open_disk(s, &opened, D0, NULL), -EIO);
	assert_int_equal(sim_open_disk(s, &opened, "/none", NULL), -ENOENT);
	sim_disk_gone(s, D0, false);
	assert_int_equal(put(f, "z", 0), 1);
	done(f);
	done(g);
}

static void a_full_disk_refuses_and_deletes_make_room(void **state)
{
	enum { KIB = 1024 };
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	struct sop_disk_space space;
	struct sop_file *f = make(d, "a"), *g = make(d, "b");

	sim_disk_resize(s, D0, 16 * KIB);
	assert_int_equal(f->ops->allocate(f, 0, 12 * KIB), 0);
	assert_int_equal(put(f, "in what is allocated", 5000), 20);
	assert_int_equal(g->ops->allocate(g, 0, 8 * KIB), -ENOSPC);
	assert_int_equal(put(g, "x", 0), 1);
	assert_int_equal(put(g, "x", 4096), -ENOSPC);
	assert_int_equal(put(g, "y", 1), 1);
	assert_int_equal(d->ops->space(d, &space), 0);
	assert_int_equal(space.free_bytes, 0);
	assert_int_equal(space.total_bytes, 16 * KIB);
	f->ops->punch(f, 0, 8192);
	assert_int_equal(sim_allocated(s, D0), 8 * KIB);
	assert_int_equal(put(g, "x", 4096), 1);
	d->ops->unlink(d, "a");
	assert_int_equal(sim_allocated(s, D0), 12 * KIB); /* still open */
	done(f);
	assert_int_equal(sim_allocated(s, D0), 8 * KIB);
	done(g);
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_int_equal(sim_allocated(s, D0), 0);
}

static void a_clone_goes_its_own_way(void **state)
{
	struct sim *s = *state, *c;
	struct sop_disk *d = sim_disk(s, 0), *cd;
	struct sop_file *f;

	make_durable(d, "a", "both");
	f = make(d, "a");
	put(f, "un", 0);
	c = sim_clone(s, 1);
	cd = sim_disk(c, 0);
	put(f, "ORIG", 0);
	done(f);
	assert_string_equal(content(c, D0, "a"), "unth");
	f = make(cd, "a");
	put(f, "CLONE", 0);
	done(f);
	d->ops->unlink(d, "a");
	assert_string_equal(content(c, D0, "a"), "CLONE");
	assert_int_equal(sim_allocated(c, D0), 4096);
	sim_power_on(c, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(c, D0, "a"), "both");
	sim_power_on(s, SIM_KEEP_SYNCED_ONLY, 0);
	assert_string_equal(content(s, D0, "a"), "both");
	sim_free(c);
}

static void damage_stays_over_a_power_cut(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);

	make_durable(d, "a", "abcdef");
	make_durable(d, "b", "abcdef");
	make_durable(d, "c", "abcdef");
	assert_int_equal(sim_poke(s, D0, "a", 2, "X", 1), 0);
	assert_int_equal(sim_poke(s, D0, "a", 6, "X", 1), -EINVAL);
	assert_int_equal(sim_set_size(s, D0, "b", 3), 0);
	assert_int_equal(sim_remove(s, D0, "c"), 0);
	assert_int_equal(sim_poke(s, D0, "c", 0, "X", 1), -ENOENT);
	done(make(d, "never synced"));
	assert_int_equal(sim_remove(s, D0, "never synced"), 0);
	sim_power_on(s, SIM_KEEP_RANDOM, 1);
	assert_string_equal(content(s, D0, "a"), "abXdef");
	assert_string_equal(content(s, D0, "b"), "abc");
	assert_string_equal(content(s, D0, "c"), "(none)");
	assert_string_equal(content(s, D0, "never synced"), "(none)");
}

/* --- sop_disk_publish() at every step ----------------------------------------------------------
 */

static bool is_old_or_new(const char *text)
{
	return strcmp(text, "old") == 0 || strcmp(text, "new one") == 0;
}

static void publish_cut_at_any_step_leaves_the_old_or_the_new(void **state)
{
	struct sim *s = *state;
	unsigned old = 0, new = 0;
	uint64_t step;

	make_durable(sim_disk(s, 0), "label", "old");
	for (step = 1;; step++) {
		struct sim *c = sim_clone(s, 1);
		int rc;

		sim_crash_at(c, step);
		rc = sop_disk_publish(sim_disk(c, 0), "label", "new one", 7, NULL);
		if (!rc)
			assert_false(sim_crashed(c));
		else
			assert_int_equal(rc, -EIO);
		for (uint64_t i = 0; i < 60; i++) {
			struct sim *cut = sim_clone(c, 1);
			const char *text;

			sim_power_on(cut,
				i == 0	 ? SIM_KEEP_ALL
				: i == 1 ? SIM_KEEP_SYNCED_ONLY
					 : SIM_KEEP_RANDOM,
				i);
			text = content(cut, D0, "label");
			assert_true(is_old_or_new(text));
			if (!rc)
				assert_string_equal(text, "new one");
			old += text[0] == 'o';
			new += text[0] == 'n';
			sim_free(cut);
		}
		sim_free(c);
		if (!rc)
			break;
	}
	/* create, write, datasync, rename, syncdir */
	assert_int_equal(step, 6);
	assert_true(old > 50 && new > 50);
}

static int count_temps(void *arg, const char *name)
{
	*(int *)arg += sop_disk_is_temp(name, "label");
	return 0;
}

static void publish_with_any_step_failing_is_an_error_and_clean(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	uint64_t n;
	int rc = -1;

	make_durable(d, "label", "old");
	for (n = 1; rc; n++) {
		struct sop_err e = {0};
		int temps = 0;

		sim_fail_step(s, sim_steps(s) + n, -ENOSPC);
		rc = sop_disk_publish(d, "label", "new one", 7, &e);
		sim_fail_step(s, 0, 0);
		if (rc) {
			assert_int_equal(rc, -ENOSPC);
			assert_non_null(strstr(e.text, D0 "/label"));
		}
		assert_int_equal(d->ops->list(d, "", count_temps, &temps), 0);
		assert_int_equal(temps, 0);
		assert_string_equal(content(s, D0, "label"), n < 5 ? "old" : "new one");
	}
	assert_int_equal(n, 7);
}

/* --- threads and speed ---------------------------------------------------------------------------
 */

static void *write_own_file(void *arg)
{
	struct sop_file *f = arg;
	char buf[3000];

	memset(buf, 'z', sizeof(buf));
	for (uint64_t i = 0; i < 200; i++) {
		if (put_bytes(f, buf, sizeof(buf), i * 1000) != sizeof(buf))
			abort();
		if (i % 50 == 0 && f->ops->datasync(f))
			abort();
	}
	return NULL;
}

static void threads_share_a_machine_and_its_clones(void **state)
{
	struct sim *s = *state, *c;
	struct sop_file *f[3];
	pthread_t t[3];

	f[0] = make(sim_disk(s, 0), "a");
	put(f[0], "shared page", 0);
	c = sim_clone(s, 1);
	f[1] = make(sim_disk(s, 1), "b");
	f[2] = make(sim_disk(c, 0), "a");
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, write_own_file, f[i]), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		done(f[i]);
	}
	assert_int_equal(sim_allocated(s, D0), sim_allocated(c, D0));
	sim_free(c);
}

static void a_large_machine_is_cloned_and_cut_ten_thousand_times(void **state)
{
	struct sim *s = *state;
	struct sop_disk *d = sim_disk(s, 0);
	char name[32], page[4096];

	/* 40 files, each with 256 KiB written, one change each since the sync. */
	memset(page, 'p', sizeof(page));
	for (unsigned i = 0; i < 40; i++) {
		struct sop_file *f;

		snprintf(name, sizeof(name), "f%u", i);
		f = make(d, name);
		for (uint64_t k = 0; k < 64; k++)
			put_bytes(f, page, sizeof(page), k * sizeof(page));
		f->ops->datasync(f);
		put(f, "change", i * 4096);
		done(f);
	}
	d->ops->syncdir(d, "");
	for (uint64_t i = 0; i < 10000; i++) {
		struct sim *c = sim_clone(s, i);

		sim_power_on(c, i % 2 ? SIM_KEEP_RANDOM : SIM_KEEP_SYNCED_ONLY, i);
		sim_free(c);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* As a thread whose read was given up has it (whoever reads what was freed is told by ASan). */
static void the_machine_goes_with_the_last_disk_that_is_open(void **state)
{
	struct sim *s = sim_new(1);
	struct sop_disk *d;
	struct sop_file *f;
	char got[5] = "";
	struct iovec iov = {got, 4};

	(void)state;
	sim_add_disk(s, D0, 0);
	assert_int_equal(sim_open_disk(s, &d, D0, NULL), 0);
	f = make(d, "a");
	put(f, "text", 0);
	done(f);
	assert_int_equal(d->ops->file_open(&f, d, "a", SOP_OPEN_READ), 0);
	sim_free(s);
	assert_int_equal(f->ops->preadv(f, &iov, 1, 0), 4);
	assert_string_equal(got, "text");
	done(f);
	sop_disk_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_synced_survives_and_the_rest_does_not),
		TEST(the_machine_goes_with_the_last_disk_that_is_open),
		TEST(a_process_crash_loses_nothing_written),
		TEST(a_file_synced_without_its_name_is_not_there),
		TEST(a_directory_needs_its_own_name_synced),
		TEST(unsynced_names_are_there_or_not_one_by_one),
		TEST(a_rename_is_old_or_new_and_never_both_or_none),
		TEST(unsynced_writes_are_torn_at_sectors),
		TEST(later_writes_survive_without_earlier_ones),
		TEST(a_size_survives_with_and_without_its_data),
		TEST(what_is_synced_survives_every_draw),
		TEST(one_choice_is_one_outcome),
		TEST(handles_are_invalid_after_a_power_cut),
		TEST(at_the_crash_step_everything_stops),
		TEST(the_write_under_way_may_reach_the_disk),
		TEST(a_failing_step_fails_once_and_changes_nothing),
		TEST(steps_count_what_changes_something),
		TEST(faults_are_of_one_disk),
		TEST(a_full_disk_refuses_and_deletes_make_room),
		TEST(a_clone_goes_its_own_way),
		TEST(damage_stays_over_a_power_cut),
		TEST(publish_cut_at_any_step_leaves_the_old_or_the_new),
		TEST(publish_with_any_step_failing_is_an_error_and_clean),
		TEST(threads_share_a_machine_and_its_clones),
		TEST(a_large_machine_is_cloned_and_cut_ten_thousand_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
