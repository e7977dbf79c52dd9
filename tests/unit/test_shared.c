/* Two mounters of one shared volume, in one process, on simulated disks, step by step: what one
 * commits while the other is at a given point of its own commit. tests/model/shared.c has the
 * processes. */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "core/coordinate.h"
#include "core/format.h"
#include "core/format_volume.h"
#include "core/shared.h"
#include "tests/lib/fixture.h"
#include "tests/lib/redis.h"

#define DISKS 4

struct pair {
	struct sim *sim;
	char path[DISKS][8];
	const char *paths[DISKS];
	struct sop_open_opts opts;
	struct sop_volume *a, *b;
	uint64_t store;
	struct sop_err e;
};

static struct pair p;

/* ---- what happens in front of the next commit's first link ---- */

static struct sop_disk_ops ops;
static const struct sop_disk_ops *real;
static void (*meanwhile)(void);
static void (*_Atomic before_blobs)(
	void); /* in front of the next write to a file, blobs as a rule */
static bool no_checkpoint;
static const char *no_checkpoint_on; /* this disk takes none */
static bool no_image;
static bool no_room_for_images; /* on d1 and d2 */
static bool no_floor_sync;
static bool live_locks_unseen; /* a lock of one that lives is given to another */
static bool locks_lost;	       /* the lock service has forgotten who holds what */
static int link_rc;	       /* not 0: what link(2) says */
static bool links_replace;

static int hooked_link(struct sop_disk *d, const char *from, const char *to)
{
	void (*fn)(void) = meanwhile;

	meanwhile = NULL;
	if (fn)
		fn();
	if (link_rc)
		return link_rc;
	if (links_replace)
		(void)real->unlink(d, to);
	return real->link(d, from, to);
}

static ssize_t hooked_pwritev(struct sop_file *f, const struct iovec *iov, int n, uint64_t off)
{
	void (*fn)(void) = atomic_exchange(&before_blobs, NULL);

	if (fn)
		fn();
	return real->pwritev(f, iov, n, off);
}

static int hooked_rename(struct sop_disk *d, const char *from, const char *to)
{
	if (no_checkpoint && !strcmp(to, SOP_PATH_CHECKPOINT))
		return -EIO;
	if (no_checkpoint_on && !strcmp(to, SOP_PATH_CHECKPOINT) &&
		!strcmp(d->name, no_checkpoint_on))
		return -EIO;
	if (no_image && !strncmp(to, "slots/image.", 12))
		return -EIO;
	return real->rename(d, from, to);
}

static int hooked_syncdir(struct sop_disk *d, const char *path)
{
	return no_floor_sync && !strcmp(path, SOP_PATH_FLOORS) ? -EIO : real->syncdir(d, path);
}

static int hooked_lock(struct sop_file *f)
{
	return locks_lost ? 0 : real->lock(f);
}

static atomic_bool hangs; /* the next list of the slots of d3, until it is false */
static atomic_bool in_hang;

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 1000000};

	nanosleep(&t, NULL);
}

static int hooked_list(
	struct sop_disk *d, const char *path, int (*fn)(void *arg, const char *name), void *arg)
{
	bool once = !strcmp(d->name, "/d3") && !strcmp(path, SOP_PATH_SLOTS) && hangs &&
		    !atomic_exchange(&in_hang, true);

	while (once && hangs)
		nap();
	return real->list(d, path, fn, arg);
}

static void (*sharing)(void); /* in front of the next lock that is shared */
static void (*raising)(void); /* in front of the next floor */

static int hooked_lock_shared(struct sop_file *f)
{
	void (*fn)(void) = sharing;

	sharing = NULL;
	if (fn)
		fn();
	return locks_lost ? 0 : real->lock_shared(f);
}

static int given_lock(struct sop_file *f)
{
	(void)f;
	return 0;
}

static int hooked_open(struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	static struct sop_disk_ops generous;
	void (*fn)(void) = raising;
	int rc;

	if (fn && !strncmp(path, SOP_PATH_FLOORS "/", strlen(SOP_PATH_FLOORS "/"))) {
		raising = NULL;
		fn();
	}
	if (no_room_for_images && flags & SOP_OPEN_CREATE && !strncmp(path, "slots/image.", 12) &&
		strcmp(d->name, "/d3"))
		return -ENOSPC;
	rc = real->file_open(out, d, path, flags);
	if (rc)
		return rc;
	generous = ops;
	generous.lock = given_lock;
	(*out)->ops = live_locks_unseen && !strncmp(path, "slots/live.", 11) ? &generous : &ops;
	return 0;
}

static int hooked_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (rc)
		return rc;
	real = (*out)->ops;
	ops = *real;
	ops.link = hooked_link;
	ops.pwritev = hooked_pwritev;
	ops.rename = hooked_rename;
	ops.syncdir = hooked_syncdir;
	ops.list = hooked_list;
	ops.lock = hooked_lock;
	ops.lock_shared = hooked_lock_shared;
	ops.file_open = hooked_open;
	(*out)->ops = &ops;
	return 0;
}

/* ---- calls ---- */

static void ok(int rc)
{
	if (rc < 0)
		fail_msg("%s (%d)", p.e.text, rc);
}

static int open_one(struct sop_volume **v)
{
	return sop_volume_open(v, p.paths, DISKS, &p.opts, &p.e);
}

static struct sop_txn *begin(struct sop_volume *v, enum sop_txn_mode mode)
{
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = mode}, &p.e));
	return t;
}

static int put(struct sop_volume *v, const char *key, const char *val)
{
	struct sop_txn *t = begin(v, SOP_TXN_WRITE);

	ok(sop_upsert(t, SOP_NAME(p.store, key), val, strlen(val), &p.e));
	return sop_txn_commit(t, 0, &p.e);
}

static void expect(struct sop_volume *v, const char *key, const char *val)
{
	struct sop_txn *t = begin(v, SOP_TXN_READ);
	void *got = NULL;
	size_t len = 0;
	int rc = sop_get(t, SOP_NAME(p.store, key), &got, &len, &p.e);

	if (!val) {
		assert_int_equal(rc, -ENOENT);
	} else {
		ok(rc);
		assert_int_equal(len, strlen(val));
		assert_memory_equal(got, val, len);
	}
	free(got);
	sop_txn_rollback(t);
}

static void expect_both(const char *key, const char *val)
{
	expect(p.a, key, val);
	expect(p.b, key, val);
}

static int setup(void **state)
{
	struct sop_format_opts fo = {
		.k = 2, .m = 1, .shared = true, .force = true, .open_disk = sim_open_disk};
	struct sop_txn *t;

	(void)state;
	memset(&p, 0, sizeof(p));
	meanwhile = raising = NULL;
	hangs = in_hang = false;
	before_blobs = NULL;
	locks_lost = no_checkpoint = no_image = links_replace = false;
	no_room_for_images = no_floor_sync = false;
	no_checkpoint_on = NULL;
	link_rc = 0;
	p.sim = sim_new(1);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(p.path[i], sizeof(p.path[i]), "/d%u", i + 1);
		p.paths[i] = p.path[i];
		sim_add_disk(p.sim, p.path[i], 0);
	}
	fo.open_disk_ctx = p.sim;
	ok(sop_format(p.paths, DISKS, &fo, NULL, &p.e));
	p.opts = (struct sop_open_opts){.open_disk = hooked_disk,
		.open_disk_ctx = p.sim,
		.inline_io = true,
		.no_threads = true,
		.cache_bytes = 8 << 20};
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	t = begin(p.a, SOP_TXN_WRITE);
	ok(sop_store_at(t, "s", SOP_STORE_CREATE, NULL, &p.store, &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
	return 0;
}

static void close_both(void)
{
	if (p.a)
		sop_volume_close(p.a, NULL);
	if (p.b)
		sop_volume_close(p.b, NULL);
	p.a = p.b = NULL;
}

static int teardown(void **state)
{
	(void)state;
	close_both();
	sim_free(p.sim);
	return 0;
}

static void say(void *arg, const char *line)
{
	(void)arg;
	print_error("check: %s\n", line);
}

/* Both find the volume in order, what the disks do not have yet included. Everybody leaves; one who
 * is alone finds it so, too. */
static void check_whole(void)
{
	struct sop_check_report r;
	struct sop_volume *v;

	ok(sop_volume_check(p.a, true, say, NULL, &r, &p.e));
	assert_int_equal(r.errors, 0);
	ok(sop_volume_check(p.b, true, say, NULL, &r, &p.e));
	assert_int_equal(r.errors, 0);
	close_both();
	p.opts.exclusive = true;
	ok(open_one(&v));
	ok(sop_volume_check(v, true, say, NULL, &r, &p.e));
	assert_int_equal(r.errors, 0);
	ok(sop_volume_close(v, &p.e));
	p.opts.exclusive = false;
	ok(open_one(&p.a));
	ok(open_one(&p.b));
}

/* ---- tests ---- */

static void what_one_commits_the_other_sees(void **state)
{
	(void)state;
	ok(put(p.a, "x", "of a"));
	expect_both("x", "of a");
	ok(put(p.b, "x", "of b"));
	expect_both("x", "of b");
	check_whole();
	expect_both("x", "of b");
}

static void b_puts_x(void)
{
	ok(put(p.b, "x", "of b"));
}

static void of_two_that_update_what_they_read_the_second_is_refused(void **state)
{
	struct sop_txn *t;
	void *val;
	size_t len;

	(void)state;
	ok(put(p.a, "x", "before"));
	t = begin(p.a, SOP_TXN_WRITE);
	ok(sop_get(t, SOP_NAME(p.store, "x"), &val, &len, &p.e));
	free(val);
	ok(sop_update(t, SOP_NAME(p.store, "x"), "of a", 4, &p.e));
	meanwhile = b_puts_x;
	assert_int_equal(sop_txn_commit(t, 0, &p.e), SOP_ECONFLICT);
	assert_null(meanwhile);
	expect_both("x", "of b");
	/* The same when only something read has changed. */
	t = begin(p.a, SOP_TXN_WRITE);
	ok(sop_get(t, SOP_NAME(p.store, "x"), &val, &len, &p.e));
	free(val);
	ok(sop_add(t, SOP_NAME(p.store, "y"), "of a", 4, &p.e));
	meanwhile = b_puts_x;
	assert_int_equal(sop_txn_commit(t, 0, &p.e), SOP_ECONFLICT);
	expect_both("y", NULL);
	check_whole();
}

static void a_lost_slot_is_no_conflict_when_nothing_read_has_changed(void **state)
{
	struct sop_txn *t = begin(p.a, SOP_TXN_WRITE);

	(void)state;
	ok(sop_add(t, SOP_NAME(p.store, "y"), "of a", 4, &p.e));
	meanwhile = b_puts_x;
	ok(sop_txn_commit(t, 0, &p.e));
	assert_null(meanwhile);
	expect_both("x", "of b");
	expect_both("y", "of a");
	check_whole();
	expect_both("y", "of a");
}

static void b_adds_y(void)
{
	struct sop_txn *t = begin(p.b, SOP_TXN_WRITE);

	ok(sop_add(t, SOP_NAME(p.store, "y"), "of b", 4, &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
}

static void a_name_is_made_by_one_of_two(void **state)
{
	struct sop_txn *t = begin(p.a, SOP_TXN_WRITE);

	(void)state;
	ok(sop_add(t, SOP_NAME(p.store, "y"), "of a", 4, &p.e));
	meanwhile = b_adds_y;
	assert_int_equal(sop_txn_commit(t, 0, &p.e), SOP_ECONFLICT);
	expect_both("y", "of b");
	check_whole();
}

/* ---- values as streams ---- */

static uint8_t big[60000];

static void append(struct sop_volume *v, const void *bytes, size_t len, struct sop_txn **t)
{
	struct sop_value *x;

	*t = begin(v, SOP_TXN_SESSION);
	ok(sop_value_open(
		&x, *t, SOP_NAME(p.store, "log"), SOP_VALUE_WRITE | SOP_VALUE_APPEND, &p.e));
	assert_int_equal(sop_value_write(x, bytes, len, 0, &p.e), len);
}

static void b_appends(void)
{
	struct sop_txn *t;

	append(p.b, "B", 1, &t);
	ok(sop_txn_commit(t, 0, &p.e));
}

/* An append that was planned for an end that is none any more goes to the new one. */
static void appends_never_conflict(void **state)
{
	struct sop_txn *t;

	(void)state;
	ok(put(p.a, "log", "-"));
	append(p.a, "A", 1, &t);
	meanwhile = b_appends;
	ok(sop_txn_commit(t, 0, &p.e));
	assert_null(meanwhile);
	expect_both("log", "-BA");
	/* One after the other as well. */
	append(p.a, "A", 1, &t);
	b_appends();
	ok(sop_txn_commit(t, 0, &p.e));
	expect_both("log", "-BABA");
	check_whole();
	expect_both("log", "-BABA");
}

static uint8_t large[3 << 20];

static void b_appends_much(void)
{
	struct sop_txn *t;

	append(p.b, large, 70001, &t);
	ok(sop_txn_commit(t, 0, &p.e));
}

/* What a is about to add is in memory, inline or for blobs, or on the disks already; what b has
 * added is inline or not. Slot after slot is lost. */
static void appends_of_all_sizes_find_the_end_anew(void **state)
{
	static const size_t size[] = {1, 900, 5000, 70000, sizeof(large)};
	static void (*const by_b[])(void) = {b_appends, b_appends_much};

	(void)state;
	fill_random(large, sizeof(large), 23);
	for (size_t i = 0; i < 2 * SOP_ARRAY_LEN(size); i++) {
		size_t own = size[i / 2], other = i % 2 ? 70001 : 1, len;
		const uint8_t *others = i % 2 ? large : (const uint8_t *)"B";
		struct sop_txn *t;
		uint8_t *val;

		ok(put(p.a, "log", "-"));
		append(p.a, large, own, &t);
		meanwhile = by_b[i % 2];
		ok(sop_txn_commit(t, 0, &p.e));
		t = begin(p.b, SOP_TXN_READ);
		ok(sop_get(t, SOP_NAME(p.store, "log"), (void **)&val, &len, &p.e));
		assert_int_equal(len, 1 + other + own);
		assert_memory_equal(val, "-", 1);
		assert_memory_equal(val + 1, others, other);
		assert_memory_equal(val + 1 + other, large, own);
		free(val);
		sop_txn_rollback(t);
	}
	check_whole();
}

static void b_puts_log(void)
{
	ok(put(p.b, "log", "BBBBBBBB"));
}

/* Bytes written here and there, without a look at what was there: what they leave is the newest. */
static void what_was_written_blindly_is_laid_over_the_newest(void **state)
{
	struct sop_txn *t = begin(p.a, SOP_TXN_SESSION);
	struct sop_value *x;

	(void)state;
	ok(put(p.a, "log", "0123456789"));
	ok(sop_value_open(&x, t, SOP_NAME(p.store, "log"), SOP_VALUE_WRITE, &p.e));
	assert_int_equal(sop_value_write(x, "xy", 2, 3, &p.e), 2);
	meanwhile = b_appends;
	ok(sop_txn_commit(t, 0, &p.e));
	assert_null(meanwhile);
	expect_both("log", "012xy56789B");
	/* Not over what is another item by now. */
	t = begin(p.a, SOP_TXN_SESSION);
	ok(sop_value_open(&x, t, SOP_NAME(p.store, "log"), SOP_VALUE_WRITE, &p.e));
	assert_int_equal(sop_value_read(x, big, 4, 0, &p.e), 4);
	assert_int_equal(sop_value_write(x, "xy", 2, 0, &p.e), 2);
	meanwhile = b_puts_log;
	assert_int_equal(sop_txn_commit(t, 0, &p.e), SOP_ECONFLICT);
	expect_both("log", "BBBBBBBB");
	check_whole();
}

static void blobs_of_one_are_read_by_the_other_and_by_who_is_alone(void **state)
{
	struct sop_txn *t;
	void *val;
	size_t len;

	(void)state;
	fill_random(big, sizeof(big), 7);
	ok(put(p.a, "log", ""));
	append(p.a, big, sizeof(big), &t);
	meanwhile = b_puts_x; /* and written again, for another slot */
	ok(sop_txn_commit(t, 0, &p.e));
	for (unsigned i = 0; i < 2; i++) {
		t = begin(p.b, SOP_TXN_READ);
		ok(sop_get(t, SOP_NAME(p.store, "log"), &val, &len, &p.e));
		assert_int_equal(len, sizeof(big));
		assert_memory_equal(val, big, len);
		free(val);
		sop_txn_rollback(t);
		check_whole();
	}
}

/* ---- numbers ---- */

static uint64_t inode_of(struct sop_volume *v, const char *key)
{
	struct sop_txn *t = begin(v, SOP_TXN_READ);
	struct sop_attr a;

	ok(sop_lookup(t, SOP_NAME(p.store, key), &a, &p.e));
	sop_txn_rollback(t);
	return a.ino;
}

static void inode_numbers_are_given_out_once(void **state)
{
	uint64_t ino[8];

	(void)state;
	ok(put(p.a, "1", ""));
	ok(put(p.b, "2", ""));
	ok(put(p.a, "3", ""));
	close_both();
	ok(open_one(&p.b));
	ok(open_one(&p.a));
	ok(put(p.a, "4", ""));
	ok(put(p.b, "5", ""));
	check_whole();
	ok(put(p.a, "6", ""));
	ok(put(p.b, "7", ""));
	for (unsigned i = 1; i <= 7; i++) {
		char key[2] = {(char)('0' + i), 0};

		ino[i] = inode_of(p.a, key);
		for (unsigned k = 1; k < i; k++)
			assert_true(ino[i] != ino[k]);
	}
}

static uint64_t duplicates_store(void)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .duplicates = true};
	struct sop_txn *t = begin(p.a, SOP_TXN_WRITE);
	uint64_t store;

	ok(sop_store_at(t, "d", SOP_STORE_CREATE, &o, &store, &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
	return store;
}

static uint64_t dups;

static void add_dup(struct sop_volume *v, struct sop_txn **t)
{
	const struct sop_key key = {.type = SOP_KEY_INT64, .i = 5};

	*t = begin(v, SOP_TXN_WRITE);
	ok(sop_kv_add(*t, dups, &key, "v", 1, NULL, &p.e));
}

static void b_adds_a_duplicate(void)
{
	struct sop_txn *t;

	add_dup(p.b, &t);
	ok(sop_txn_commit(t, 0, &p.e));
}

static void duplicates_added_at_once_are_all_there(void **state)
{
	struct sop_txn *t;
	uint64_t n;

	(void)state;
	dups = duplicates_store();
	add_dup(p.a, &t);
	meanwhile = b_adds_a_duplicate;
	ok(sop_txn_commit(t, 0, &p.e));
	assert_null(meanwhile);
	t = begin(p.b, SOP_TXN_READ);
	ok(sop_count(t, dups, &n, &p.e));
	sop_txn_rollback(t);
	assert_int_equal(n, 2);
	check_whole();
}

/* ---- failures ---- */

static void put_big(struct sop_volume *v, const char *key, uint64_t seed)
{
	struct sop_txn *t = begin(v, SOP_TXN_WRITE);

	fill_random(big, sizeof(big), seed);
	ok(sop_upsert(t, SOP_NAME(p.store, key), big, sizeof(big), &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
}

static void fill_many(struct sop_volume *v, unsigned from, unsigned to)
{
	static uint8_t bytes[1500];

	for (unsigned i = from; i < to; i += 50) {
		struct sop_txn *t = begin(v, SOP_TXN_WRITE);

		for (unsigned k = i; k < i + 50; k++) {
			char key[200];

			snprintf(key, sizeof(key), "%0150u", k * 7919 % 100000);
			fill_random(bytes, sizeof(bytes), k);
			ok(sop_upsert(t, SOP_NAME(p.store, key), bytes, sizeof(bytes), &p.e));
		}
		ok(sop_txn_commit(t, 0, &p.e));
	}
}

static void expect_many(struct sop_volume *v, unsigned to)
{
	static uint8_t bytes[1500];
	struct sop_txn *t = begin(v, SOP_TXN_READ);

	for (unsigned k = 0; k < to; k += 37) {
		char key[200];
		void *got;
		size_t len;

		snprintf(key, sizeof(key), "%0150u", k * 7919 % 100000);
		fill_random(bytes, sizeof(bytes), k);
		ok(sop_get(t, SOP_NAME(p.store, key), &got, &len, &p.e));
		assert_int_equal(len, sizeof(bytes));
		assert_memory_equal(got, bytes, len);
		free(got);
	}
	sop_txn_rollback(t);
}

static void with_one_replica_away_commits_go_on_and_with_two_they_are_refused(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	sim_disk_gone(p.sim, "/d2", true);
	ok(put(p.a, "x", "2"));
	expect_both("x", "2");
	ok(put(p.b, "x", "3"));
	expect_both("x", "3");
	sim_disk_gone(p.sim, "/d3", true);
	assert_int_equal(put(p.a, "x", "4"), SOP_EDISKS);
	expect(p.a, "x", "3");
	/* Refused, and not in doubt: it goes on when they are back. */
	sim_disk_gone(p.sim, "/d3", false);
	sim_disk_gone(p.sim, "/d2", false);
	expect_both("x", "3");
	ok(put(p.b, "x", "5"));
	expect_both("x", "5");
	check_whole();
	expect_both("x", "5");
}

/* And a mount of those few, which cannot be, changes nothing: the others are as good as before. */
static void a_mount_with_too_few_replicas_leaves_no_trace(void **state)
{
	struct sop_volume *v;

	(void)state;
	ok(put(p.a, "x", "1"));
	close_both();
	sim_disk_gone(p.sim, "/d1", true);
	sim_disk_gone(p.sim, "/d2", true);
	p.opts.degraded = true;
	assert_int_equal(open_one(&v), SOP_EDISKS);
	assert_non_null(strstr(p.e.text, "registry"));
	p.opts.degraded = false;
	sim_disk_gone(p.sim, "/d1", false);
	sim_disk_gone(p.sim, "/d2", false);
	/* Those that were away are not taken for old: one that was there may go now. */
	sim_disk_gone(p.sim, "/d3", true);
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	expect_both("x", "1");
	close_both();
	sim_disk_gone(p.sim, "/d3", false);
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	check_whole();
}

static int same_owners(void *arg, uint64_t id)
{
	unsigned *own = arg;

	if (sop_shared_whose(p.a, id) == SOP_SEGMENT_OWN) {
		assert_int_equal(sop_shared_whose(p.b, id), SOP_SEGMENT_OTHERS);
		++*own;
	}
	if (sop_shared_whose(p.b, id) == SOP_SEGMENT_OWN) {
		assert_int_equal(sop_shared_whose(p.a, id), SOP_SEGMENT_OTHERS);
		++*own;
	}
	return 0;
}

/* A disk fails while who is alone recovers, and the labels say so: they are newer than its epoch.
 */
static void a_label_round_in_recovery_leaves_one_base(void **state)
{
	unsigned own = 0;

	(void)state;
	ok(put(p.a, "x", "1"));
	close_both();
	no_checkpoint_on = "/d2";
	ok(open_one(&p.a));
	no_checkpoint_on = NULL;
	ok(open_one(&p.b));
	put_big(p.a, "a", 1);
	put_big(p.b, "b", 2);
	expect_both("x", "1");
	ok(sop_segments_scan(p.a->seg, same_owners, &own, &p.e));
	assert_true(own >= 2);
	check_whole();
}

/* Of all disks, those included that are not used. */
static void a_disk_that_is_offline_by_hand_keeps_nobody_out(void **state)
{
	struct sop_volume *v;

	(void)state;
	ok(put(p.a, "x", "1"));
	close_both();
	p.opts.exclusive = true;
	ok(open_one(&v));
	ok(sop_disk_offline(v, "d4", 0, &p.e));
	ok(sop_volume_close(v, &p.e));
	p.opts.exclusive = false;
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	expect_both("x", "1");
	ok(put(p.b, "x", "2"));
	expect_both("x", "2");
}

/* What the others have committed names nodes on disks that are away, for now, for this mounter. */
static void who_cannot_follow_now_goes_on_when_the_disks_are_back(void **state)
{
	(void)state;
	p.opts.segment_bytes = 1 << 20;
	close_both();
	ok(open_one(&p.a));
	fill_many(p.a, 0, 6000);
	close_both();
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	fill_many(p.a, 0, 6000);
	sim_disk_gone(p.sim, "/d1", true);
	sim_disk_gone(p.sim, "/d4", true);
	assert_true(sop_volume_tick(p.b, &p.e) < 0);
	sim_disk_gone(p.sim, "/d1", false);
	sim_disk_gone(p.sim, "/d4", false);
	ok(sop_volume_tick(p.b, &p.e));
	ok(put(p.b, "x", "2"));
	expect_both("x", "2");
	expect_many(p.b, 6000);
	check_whole();
}

static void a_full_replica_majority_refuses_and_a_full_one_does_not(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	sim_disk_resize(p.sim, "/d1", 1);
	ok(put(p.a, "x", "2"));
	expect_both("x", "2");
	sim_disk_resize(p.sim, "/d2", 1);
	assert_true(put(p.a, "x", "3") < 0);
	sim_disk_resize(p.sim, "/d1", 0);
	sim_disk_resize(p.sim, "/d2", 0);
	expect_both("x", "2");
	ok(put(p.b, "x", "4"));
	expect_both("x", "4");
}

static struct sop_volume *usurper;

static void another_takes_over(void)
{
	locks_lost = true;
	p.opts.exclusive = true;
	ok(open_one(&usurper));
}

/* The locks of a were lost, and somebody was alone meanwhile: nothing of a is accepted from then
 * on, even what was on its way. */
static void who_was_taken_for_dead_commits_no_more(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	expect_both("x", "1");
	meanwhile = another_takes_over;
	assert_true(put(p.a, "x", "2") < 0);
	assert_int_equal(put(p.a, "x", "3"), SOP_EDEAD);
	assert_int_equal(put(p.b, "x", "4"), SOP_EDEAD);
	expect(usurper, "x", "1");
	ok(sop_volume_close(usurper, &p.e));
	locks_lost = false;
	p.opts.exclusive = false;
	check_whole();
	expect_both("x", "1");
}

/* Every commit is on the media when it is acknowledged, with what it names. */
static void what_was_acknowledged_survives_a_power_cut(void **state)
{
	struct sop_txn *t;
	void *val;
	size_t len;

	(void)state;
	fill_random(big, sizeof(big), 9);
	for (unsigned i = 0; i < 3; i++) {
		char text[8];

		snprintf(text, sizeof(text), "%u", i);
		ok(put(p.a, "log", ""));
		append(i % 2 ? p.a : p.b, big, sizeof(big), &t);
		ok(sop_txn_commit(t, 0, &p.e));
		ok(put(i % 2 ? p.b : p.a, "x", text));
		sim_power_on(p.sim, SIM_KEEP_SYNCED_ONLY, i);
		close_both();
		ok(open_one(&p.a));
		ok(open_one(&p.b));
		expect_both("x", text);
		t = begin(p.b, SOP_TXN_READ);
		ok(sop_get(t, SOP_NAME(p.store, "log"), &val, &len, &p.e));
		assert_int_equal(len, sizeof(big));
		assert_memory_equal(val, big, len);
		free(val);
		sop_txn_rollback(t);
		check_whole();
	}
}

static void who_is_alone_gives_back_what_was_removed(void **state)
{
	struct sop_volume_stat s;
	struct sop_txn *t;

	(void)state;
	fill_random(big, sizeof(big), 11);
	ok(put(p.a, "log", ""));
	append(p.b, big, sizeof(big), &t);
	ok(sop_txn_commit(t, 0, &p.e));
	t = begin(p.a, SOP_TXN_WRITE);
	ok(sop_remove(t, SOP_NAME(p.store, "log"), &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
	sop_volume_stat(p.a, &s);
	assert_true(s.shared && s.pending_bytes >= sizeof(big));
	close_both();
	ok(open_one(&p.a));
	sop_volume_stat(p.a, &s);
	assert_true(s.pending_bytes < sizeof(big) && s.live_bytes < sizeof(big));
	ok(open_one(&p.b));
	check_whole();
}

/* Who took over has come as far as its BASE: that alone ends those before. */
static void who_meets_a_base_commits_no_more(void **state)
{
	struct sop_volume *v;

	(void)state;
	ok(put(p.a, "x", "1"));
	expect_both("x", "1");
	locks_lost = no_checkpoint = p.opts.exclusive = true;
	assert_true(open_one(&v) < 0);
	assert_true(put(p.a, "x", "2") < 0);
	assert_int_equal(put(p.b, "x", "3"), SOP_EDEAD);
	locks_lost = no_checkpoint = p.opts.exclusive = false;
	check_whole();
	expect_both("x", "1");
}

static void what_has_no_place_beside_others_is_refused(void **state)
{
	struct sop_volume *v;
	struct sop_txn *t = begin(p.a, SOP_TXN_WRITE);

	(void)state;
	ok(sop_add(t, SOP_NAME(p.store, "y"), "1", 1, &p.e));
	assert_int_equal(sop_txn_prepare(t, &p.e), -EOPNOTSUPP);
	sop_txn_rollback(t);
	assert_int_equal(sop_disk_offline(p.a, "d4", 0, &p.e), -EOPNOTSUPP);
	assert_int_equal(sop_scrub_start(p.a, 0, &p.e), -EOPNOTSUPP);
	/* fsck is alone, or not at all. */
	p.opts.exclusive = true;
	assert_int_equal(open_one(&v), SOP_EINUSE);
	p.opts.exclusive = false;
}

static void refused(const char *why)
{
	struct sop_volume *v;

	assert_int_equal(open_one(&v), -EOPNOTSUPP);
	assert_non_null(strstr(p.e.text, why));
	assert_non_null(strstr(p.e.text, "/d1"));
	assert_non_null(strstr(p.e.text, "sopfs-shared(7)"));
}

/* By who comes first, and by who comes to others; and nothing is changed or left. */
static void a_file_system_without_links_or_locks_is_refused(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	for (unsigned i = 0; i < 2; i++) {
		link_rc = -EPERM;
		refused("no hard links");
		link_rc = 0;
		links_replace = true;
		refused("though the name is there");
		links_replace = false;
		locks_lost = true;
		refused("lets two have one lock");
		locks_lost = false;
		/* Who only looks needs neither. */
		if (i)
			continue;
		expect_both("x", "1");
		close_both();
	}
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	expect_both("x", "1");
	check_whole();
}

static void make_shared(bool on)
{
	struct sop_volume *v;

	p.opts.exclusive = true;
	ok(open_one(&v));
	ok(sop_volume_share(v, on, &p.e));
	ok(sop_volume_close(v, &p.e));
	p.opts.exclusive = false;
}

/* Back and forth: what was committed as the one is there as the other, also after a power cut; and
 * the chain goes on behind where it was, though floors and registers of before may stand. */
static void a_volume_is_made_one_of_one_machine_and_shared_again(void **state)
{
	struct sop_volume_stat s;
	struct sop_volume *v;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		char text[8];

		snprintf(text, sizeof(text), "%u", i);
		ok(put(p.b, "x", text));
		close_both();
		make_shared(false);
		make_shared(false); /* is no change */
		sim_power_on(p.sim, SIM_KEEP_SYNCED_ONLY, i);
		ok(open_one(&p.a));
		sop_volume_stat(p.a, &s);
		assert_false(s.shared);
		assert_int_equal(open_one(&v), SOP_EINUSE);
		expect(p.a, "x", text);
		ok(put(p.a, "y", text));
		ok(sop_volume_sync(p.a, &p.e));
		/* The journal is not empty when it becomes shared, once. */
		if (i == 1)
			no_checkpoint = true;
		sop_volume_close(p.a, NULL);
		no_checkpoint = false;
		make_shared(true);
		sim_power_on(p.sim, SIM_KEEP_SYNCED_ONLY, i);
		ok(open_one(&p.a));
		ok(open_one(&p.b));
		expect_both("x", text);
		expect_both("y", text);
		check_whole();
	}
}

/* The power goes at each step of it: it is one or the other, and whole. */
static void a_crash_while_it_is_made_shared_leaves_one_or_the_other(void **state)
{
	uint64_t cuts = 0;

	(void)state;
	ok(put(p.a, "x", "1"));
	close_both();
	for (unsigned on = 0; on < 2; on++) {
		bool crashed = true;

		for (uint64_t n = 1; crashed; n++) {
			struct sop_volume *v;

			make_shared(!on);
			p.opts.exclusive = true;
			ok(open_one(&v));
			sim_crash_at(p.sim, sim_steps(p.sim) + n);
			(void)sop_volume_share(v, on, &p.e);
			crashed = sim_crashed(p.sim);
			cuts += crashed;
			sim_power_on(p.sim, n % 2 ? SIM_KEEP_SYNCED_ONLY : SIM_KEEP_RANDOM, n);
			sop_volume_close(v, NULL);
			p.opts.exclusive = false;
			ok(open_one(&p.a));
			expect(p.a, "x", "1");
			ok(sop_volume_close(p.a, &p.e));
			p.a = NULL;
		}
	}
	assert_true(cuts > 10);
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	check_whole();
	expect_both("x", "1");
}

static void only_who_is_alone_makes_it_shared(void **state)
{
	(void)state;
	assert_int_equal(sop_volume_share(p.a, false, &p.e), -EINVAL);
	close_both();
	make_shared(false);
	ok(open_one(&p.a));
	assert_int_equal(sop_volume_share(p.a, true, &p.e), -EINVAL);
}

static void mkfs_gives_a_shared_volume_three_copies_of_the_registry(void **state)
{
	uint8_t raw[SOP_LABEL_SIZE];
	const struct sop_disk_label *l = (const struct sop_disk_label *)raw;
	unsigned n = 0;

	(void)state;
	assert_int_equal(sim_peek(p.sim, "/d1", "label.0", 0, raw, sizeof(raw)), 0);
	assert_int_equal(le16_get(l->flags), SOP_LABEL_SHARED);
	assert_int_equal(le64_get(l->incompat), SOP_INCOMPAT_SHARED);
	for (unsigned i = 0; i < DISKS; i++)
		n += (l->member[i].role & SOP_ROLE_REGISTRY) != 0;
	assert_int_equal(n, 3);
}

static void a_read_only_look_sees_what_was_committed(void **state)
{
	struct sop_volume *v;

	(void)state;
	ok(put(p.a, "x", "1"));
	ok(put(p.b, "x", "2"));
	p.opts.read_only = true;
	ok(open_one(&v));
	expect(v, "x", "2");
	ok(sop_volume_close(v, &p.e));
	close_both();
	ok(open_one(&v));
	expect(v, "x", "2");
	ok(sop_volume_close(v, &p.e));
	p.opts.read_only = false;
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	expect_both("x", "2");
}

/* ---- a lease that ends in the middle of a commit ---- */

#define LEASE_MS 600
#define BOUND_MS 120000

static struct test_redis server;
static atomic_bool asked, lapsed;
static uint64_t grant;

static unsigned lease_ms = LEASE_MS;

static int with_server(void **state)
{
	lease_ms = LEASE_MS;
	test_redis_start(&server, false, NULL);
	return setup(state);
}

static int without_server(void **state)
{
	int rc = teardown(state);

	test_redis_end(&server);
	return rc;
}

/* a goes by the server, and b without. */
static void coordinate_a(enum sop_ondown ondown)
{
	if (p.a)
		ok(sop_volume_close(p.a, &p.e));
	p.opts.redis = server.url;
	p.opts.lease_ms = lease_ms;
	p.opts.ondown = ondown;
	ok(open_one(&p.a));
	p.opts.redis = NULL;
}

static void nap_ms(unsigned ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		unsigned left_ = BOUND_MS / 2;                                                     \
		while (!(condition) && --left_)                                                    \
			nap_ms(2);                                                                 \
		assert_true(left_);                                                                \
	} while (0)

static bool sharing_seen;

static void server_is_not_young(void)
{
	static const char young[] = "EVAL \"return tonumber(redis.call('HGET', "
				    "redis.call('KEYS', '*:g')[1], 'young'))\" 0";

	assert_string_equal(test_redis_do(&server, young), ":0");
	sharing_seen = true;
}

static void the_lease_lapses(void)
{
	test_redis_pause(&server, true);
	WAIT_FOR(sop_coordinate_may_commit(p.a, NULL));
	lapsed = true;
}

struct commit {
	struct sop_txn *t;
	int rc;
	struct sop_err e;
	atomic_bool done;
};

static void *commit_thread(void *arg)
{
	struct commit *c = arg;

	c->rc = sop_txn_commit(c->t, 0, &c->e);
	c->done = true;
	return NULL;
}

/* Commit t on a; its lease lapses when it has passed the gate, and what `others` does comes before
 * the server answers again. Meanwhile a serves readers. */
static int lapse_in_commit(struct sop_txn *t, void (*others)(void))
{
	struct commit c = {.t = t};
	pthread_t thread;

	lapsed = false;
	before_blobs = the_lease_lapses;
	assert_int_equal(pthread_create(&thread, NULL, commit_thread, &c), 0);
	WAIT_FOR(lapsed);
	expect(p.a, "x", "before");
	others();
	expect(p.a, "x", "of b");
	test_redis_pause(&server, false);
	pthread_join(thread, NULL);
	p.e = c.e;
	return c.rc;
}

static void b_puts_x_and_appends(void)
{
	b_puts_x();
	b_appends();
}

static void a_commit_whose_lease_lapses_waits_and_goes_on(void **state)
{
	struct sop_txn *t;
	void *val;
	size_t len;

	(void)state;
	fill_random(big, sizeof(big), 31);
	coordinate_a(SOP_ONDOWN_BLOCK);
	ok(put(p.b, "log", ""));
	ok(put(p.b, "x", "before"));
	append(p.a, big, sizeof(big), &t);
	ok(lapse_in_commit(t, b_puts_x_and_appends));
	t = begin(p.b, SOP_TXN_READ);
	ok(sop_get(t, SOP_NAME(p.store, "log"), &val, &len, &p.e));
	assert_int_equal(len, 1 + sizeof(big));
	assert_memory_equal(val, "B", 1);
	assert_memory_equal((uint8_t *)val + 1, big, sizeof(big));
	free(val);
	sop_txn_rollback(t);
	check_whole();
}

static void what_has_changed_while_it_waited_is_a_conflict(void **state)
{
	struct sop_txn *t;
	void *val;
	size_t len;

	(void)state;
	coordinate_a(SOP_ONDOWN_BLOCK);
	ok(put(p.b, "log", ""));
	ok(put(p.b, "x", "before"));
	t = begin(p.a, SOP_TXN_WRITE);
	ok(sop_get(t, SOP_NAME(p.store, "x"), &val, &len, &p.e));
	free(val);
	ok(sop_update(t, SOP_NAME(p.store, "log"), big, sizeof(big), &p.e));
	assert_int_equal(lapse_in_commit(t, b_puts_x), SOP_ECONFLICT);
	expect_both("log", "");
	check_whole();
}

static int commit_much(uint32_t timeout_ms)
{
	struct sop_txn *t;

	ok(sop_txn_begin(&t, p.a,
		&(struct sop_txn_opts){.mode = SOP_TXN_WRITE, .timeout_ms = timeout_ms}, &p.e));
	ok(sop_upsert(t, SOP_NAME(p.store, "log"), big, sizeof(big), &p.e));
	return sop_txn_commit(t, 0, &p.e);
}

static void it_waits_as_long_as_the_transaction_may_take(void **state)
{
	(void)state;
	coordinate_a(SOP_ONDOWN_BLOCK);
	the_lease_lapses();
	assert_int_equal(commit_much(1), SOP_ETIMEOUT);
	test_redis_pause(&server, false);
	ok(commit_much(0));
	check_whole();
}

static void or_is_refused_where_the_mount_says_so(void **state)
{
	static const struct {
		enum sop_ondown how;
		int rc;
	} say[] = {{SOP_ONDOWN_RO, -EROFS}, {SOP_ONDOWN_EIO, -EIO}};

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(say); i++) {
		coordinate_a(say[i].how);
		lapsed = false;
		before_blobs = the_lease_lapses;
		/* A slow machine may have lost its lease before it came to the blobs. */
		do
			assert_int_equal(commit_much(0), say[i].rc);
		while (!lapsed);
		assert_non_null(strstr(p.e.text, "no lease to commit under"));
		test_redis_pause(&server, false);
		WAIT_FOR(!commit_much(0));
	}
	check_whole();
}

/* While nobody else can come in: another could have locks from before the server was emptied. */
static void who_is_alone_says_so_before_he_lets_others_in(void **state)
{
	const struct sop_coord_lock l = {.object = 7, .owner = 1, .type = F_WRLCK, .whole = true};

	(void)state;
	close_both();
	/* A generation that is young for longer than any test. */
	lease_ms = BOUND_MS * 10;
	sharing = server_is_not_young;
	sharing_seen = false;
	coordinate_a(SOP_ONDOWN_BLOCK);
	assert_true(sharing_seen);
	WAIT_FOR(!sop_volume_lock(p.a, &l, 0, &grant, NULL, &p.e));
	/* Whoever comes to others knows nothing of what they hold. */
	ok(open_one(&p.b));
	ok(sop_volume_close(p.a, &p.e));
	p.a = NULL;
	assert_string_equal(test_redis_do(&server, "FLUSHALL"), "+OK");
	coordinate_a(SOP_ONDOWN_BLOCK);
	WAIT_FOR(sop_volume_lock(p.a, &l, 0, &grant, NULL, &p.e) == -EAGAIN);
	lease_ms = LEASE_MS;
}

static void the_locks_are_to_be_lost(void)
{
	asked = true;
	WAIT_FOR(lapsed);
}

static void lose_the_locks(void)
{
	test_redis_kill(&server);
	WAIT_FOR(sop_coordinate_may_commit(p.a, NULL));
	nap_ms(LEASE_MS);
	test_redis_again(&server);
	WAIT_FOR(sop_coordinate_grant_lost(p.a, grant));
	lapsed = true;
}

/* An append of a under a lock that it takes first. The server may be away for a moment. */
static struct sop_txn *append_under_lock(const void *bytes, size_t len)
{
	const struct sop_coord_lock l = {.object = 7, .owner = 1, .type = F_WRLCK, .whole = true};
	struct sop_txn *t;

	WAIT_FOR(!sop_volume_lock(p.a, &l, BOUND_MS, &grant, NULL, &p.e));
	append(p.a, bytes, len, &t);
	sop_txn_under(t, grant);
	return t;
}

/* Another may have had the lock meanwhile. */
static void what_was_written_under_a_lock_that_is_lost_is_refused(void **state)
{
	int rc;

	(void)state;
	coordinate_a(SOP_ONDOWN_BLOCK);
	ok(put(p.b, "log", "-"));
	lapsed = asked = false;
	/* A slow machine may have lost it before the blobs: refused then, too. */
	while (!lapsed) {
		struct commit c = {.t = append_under_lock(big, sizeof(big))};
		pthread_t thread;

		before_blobs = the_locks_are_to_be_lost;
		assert_int_equal(pthread_create(&thread, NULL, commit_thread, &c), 0);
		WAIT_FOR(asked || c.done);
		if (asked)
			lose_the_locks();
		pthread_join(thread, NULL);
		assert_int_equal(c.rc, SOP_ECONFLICT);
		assert_non_null(strstr(c.e.text, "lock"));
	}
	expect_both("log", "-");
	while ((rc = sop_txn_commit(append_under_lock("A", 1), 0, &p.e)))
		assert_int_equal(rc, SOP_ECONFLICT);
	expect_both("log", "-A");
	check_whole();
}

/* ---- images: what goes on while others are there ---- */

static void tick_both(void)
{
	for (unsigned i = 0; i < 3; i++) {
		ok(sop_volume_tick(p.a, &p.e));
		ok(sop_volume_tick(p.b, &p.e));
	}
}

static void remove_key(struct sop_volume *v, const char *key)
{
	struct sop_txn *t = begin(v, SOP_TXN_WRITE);

	ok(sop_remove(t, SOP_NAME(p.store, key), &p.e));
	ok(sop_txn_commit(t, 0, &p.e));
}

static void expect_big(struct sop_txn *t, const char *key, uint64_t seed)
{
	void *got;
	size_t len;

	fill_random(big, sizeof(big), seed);
	ok(sop_get(t, SOP_NAME(p.store, key), &got, &len, &p.e));
	assert_int_equal(len, sizeof(big));
	assert_memory_equal(got, big, len);
	free(got);
}

struct found {
	const char *what;
	unsigned n;
};

static void count_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct found *f = arg;

	(void)size;
	(void)allocated;
	f->n += !strncmp(file, f->what, strlen(f->what));
}

static unsigned files_on(const char *disk, const char *what)
{
	struct found f = {.what = what};

	sim_each_file(p.sim, disk, count_file, &f);
	return f.n;
}

static unsigned files(const char *what)
{
	return files_on("/d1", what);
}

static uint64_t allocated(void)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < DISKS; i++)
		bytes += sim_allocated(p.sim, p.path[i]);
	return bytes;
}

/* More changes than memory holds, of one who commits and of one who follows; and a reader of before
 * sees what was before. */
static void changes_need_no_memory_for_all_of_them(void **state)
{
	struct sop_volume_stat a, b;
	struct sop_txn *t;

	(void)state;
	fill_many(p.a, 0, 200);
	t = begin(p.b, SOP_TXN_READ);
	for (unsigned i = 0; i < 5; i++) {
		fill_many(p.a, 200 + i * 2000, 200 + (i + 1) * 2000);
		ok(sop_volume_tick(p.b, &p.e));
		sop_volume_stat(p.a, &a);
		sop_volume_stat(p.b, &b);
		assert_true(a.dirty_bytes <= p.opts.cache_bytes / 2);
		assert_true(b.dirty_bytes <= p.opts.cache_bytes / 2);
	}
	{
		uint64_t n;

		ok(sop_count(t, p.store, &n, &p.e));
		assert_int_equal(n, 200);
	}
	sop_txn_rollback(t);
	expect_many(p.a, 10200);
	expect_many(p.b, 10200);
	check_whole();
	expect_many(p.b, 10200);
}

/* Everybody knows of an image: the slots before it go, and who enters begins with it. */
static void who_enters_applies_the_slots_behind_the_image_alone(void **state)
{
	struct sop_volume *c;

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		ok(put(i % 2 ? p.a : p.b, "x", i % 2 ? "of a" : "of b"));
	assert_true(files("slots/commit.") >= 50);
	ok(sop_volume_checkpoint(p.a, &p.e));
	/* b does not know of it yet. */
	ok(sop_volume_tick(p.a, &p.e));
	assert_true(files("slots/commit.") >= 50);
	tick_both();
	assert_int_equal(files("slots/image."), 1);
	assert_true(files("slots/commit.") <= 4); /* it, and two that have seen it */
	ok(put(p.b, "y", "behind"));
	ok(open_one(&c));
	expect(c, "x", "of a");
	expect(c, "y", "behind");
	ok(put(c, "z", "of c"));
	expect_both("z", "of c");
	/* The next image is of who has begun with another's, which is gone. */
	ok(sop_volume_close(p.a, &p.e));
	p.a = c;
	ok(sop_volume_checkpoint(p.a, &p.e));
	tick_both();
	assert_int_equal(files("slots/image."), 1);
	ok(open_one(&c));
	expect(c, "z", "of c");
	ok(sop_volume_close(c, &p.e));
	check_whole();
	assert_int_equal(files("slots/image."), 0);
	expect_both("x", "of a");
}

/* The image that c has begun with is let go of, with its nodes, before c is in the roster. */
static void the_others_go_on_twice(void)
{
	for (unsigned i = 0; i < 2; i++) {
		fill_many(p.a, 0, 2000);
		ok(sop_volume_checkpoint(p.a, &p.e));
		tick_both();
	}
}

static void who_enters_while_the_others_go_on_begins_anew(void **state)
{
	struct sop_volume *c;

	(void)state;
	fill_many(p.a, 0, 2000);
	ok(sop_volume_checkpoint(p.a, &p.e));
	tick_both();
	meanwhile = the_others_go_on_twice;
	ok(open_one(&c));
	assert_null(meanwhile);
	expect_many(c, 2000);
	ok(put(c, "x", "of c"));
	expect_both("x", "of c");
	ok(sop_volume_close(c, &p.e));
	check_whole();
}

static struct sop_volume *entered;

static void another_enters_and_commits(void)
{
	ok(open_one(&entered));
	put_big(entered, "big", 7);
}

/* Who lets go of slots has not met the MOUNT of one who enters meanwhile. */
static void what_one_who_enters_writes_is_nobodys_garbage(void **state)
{
	struct sop_txn *t;

	(void)state;
	ok(put(p.a, "x", "1"));
	ok(sop_volume_checkpoint(p.a, &p.e));
	raising = another_enters_and_commits;
	tick_both();
	assert_null(raising);
	t = begin(entered, SOP_TXN_READ);
	expect_big(t, "big", 7);
	sop_txn_rollback(t);
	t = begin(p.b, SOP_TXN_READ);
	expect_big(t, "big", 7);
	sop_txn_rollback(t);
	ok(sop_volume_close(entered, &p.e));
	check_whole();
}

static void what_was_removed_is_given_back_while_others_are_there(void **state)
{
	struct sop_volume_stat s;
	uint64_t before;
	struct sop_txn *t;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		put_big(i % 2 ? p.a : p.b, key, i);
	}
	t = begin(p.b, SOP_TXN_READ);
	expect_big(t, "3", 3);
	for (unsigned i = 0; i < 19; i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		remove_key(p.a, key);
	}
	before = allocated();
	ok(sop_volume_checkpoint(p.a, &p.e));
	tick_both();
	/* A reader of b needs all of it. */
	sop_volume_stat(p.a, &s);
	assert_true(s.pending_bytes >= 19 * sizeof(big));
	for (unsigned i = 0; i < 19; i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		expect_big(t, key, i);
	}
	sop_txn_rollback(t);
	tick_both();
	sop_volume_stat(p.a, &s);
	assert_true(s.pending_bytes < sizeof(big));
	sop_volume_stat(p.b, &s);
	assert_true(s.pending_bytes < sizeof(big));
	assert_true(allocated() + 19 * sizeof(big) < before);
	t = begin(p.b, SOP_TXN_READ);
	expect_big(t, "19", 19);
	sop_txn_rollback(t);
	check_whole();
}

/* An image that too few replicas take is none, and no harm. */
static void an_image_that_cannot_be_written_is_none(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	no_image = true;
	assert_true(sop_volume_checkpoint(p.a, &p.e) < 0);
	no_image = false;
	tick_both();
	ok(put(p.b, "x", "2"));
	expect_both("x", "2");
	ok(sop_volume_checkpoint(p.b, &p.e));
	tick_both();
	expect_both("x", "2");
	check_whole();
}

/* Where one replica has room and the others have none, each try is to leave it as it was. */
static void an_image_for_which_there_is_no_room_leaves_nothing(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	no_room_for_images = true;
	assert_int_equal(sop_volume_checkpoint(p.a, &p.e), -ENOSPC);
	no_room_for_images = false;
	assert_int_equal(files_on("/d3", "slots/image."), 0);
	ok(sop_volume_checkpoint(p.a, &p.e));
	tick_both();
	expect_both("x", "1");
	check_whole();
}

/* The floor was made, and its name may not be on the media: whoever finds it there, this one or
 * another, is not to remove what lies below before it is. */
static void a_floor_is_on_the_media_before_slots_go(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	ok(sop_volume_checkpoint(p.a, &p.e));
	no_floor_sync = true;
	tick_both();
	no_floor_sync = false;
	tick_both();
	assert_true(files("slots/commit.") <= 4);
	ok(put(p.b, "x", "2")); /* syncs the folder of the slots */
	sim_power_on(p.sim, SIM_KEEP_SYNCED_ONLY, 1);
	close_both();
	ok(open_one(&p.a));
	ok(open_one(&p.b));
	expect_both("x", "2");
	check_whole();
}

/* A disk hangs while who is alone removes what others left there, and goes on when others are in.
 */
static void what_others_bring_survives_a_late_removal(void **state)
{
	unsigned lives, commits, left = 20000;

	(void)state;
	ok(put(p.a, "x", "1"));
	close_both();
	hangs = true;
	p.opts.inline_io = false;
	p.opts.disk_timeout_ms = 1000;
	ok(open_one(&p.a));
	assert_true(in_hang);
	p.opts.inline_io = true;
	ok(open_one(&p.b));
	lives = files_on("/d3", "slots/live.");
	commits = files_on("/d3", "slots/commit.");
	assert_int_equal(lives, 1);
	hangs = false;
	/* It is done when d3 has a part in commits again. */
	do
		ok(put(p.a, "x", "2"));
	while (files_on("/d3", "slots/commit.") <= commits && --left);
	assert_true(left);
	assert_int_equal(files_on("/d3", "slots/live."), lives);
	expect_both("x", "2");
}

/* ---- who is gone ---- */

static void who_is_dead_holds_up_nobody(void **state)
{
	(void)state;
	ok(put(p.a, "x", "1"));
	ok(put(p.b, "y", "1"));
	/* b is there, and says nothing: no fence, and no floor. */
	ok(sop_volume_checkpoint(p.a, &p.e));
	for (unsigned i = 0; i < 5; i++)
		ok(sop_volume_tick(p.a, &p.e));
	assert_true(files("slots/commit.") > 4);
	/* It has ended, as far as a can see. */
	live_locks_unseen = true;
	ok(sop_volume_tick(p.a, &p.e));
	live_locks_unseen = false;
	assert_true(files("slots/commit.") <= 4);
	/* It had not. */
	assert_true(put(p.b, "x", "2") < 0);
	assert_int_equal(put(p.b, "x", "3"), SOP_EDEAD);
	expect(p.a, "x", "1");
	ok(put(p.a, "x", "4"));
	check_whole();
	expect_both("x", "4");
}

int main(void)
{
	const struct CMUnitTest with_redis[] = {
#define R(name) cmocka_unit_test_setup_teardown(name, with_server, without_server)
		R(a_commit_whose_lease_lapses_waits_and_goes_on),
		R(what_has_changed_while_it_waited_is_a_conflict),
		R(it_waits_as_long_as_the_transaction_may_take),
		R(or_is_refused_where_the_mount_says_so),
		R(who_is_alone_says_so_before_he_lets_others_in),
		R(what_was_written_under_a_lock_that_is_lost_is_refused),
	};
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(what_one_commits_the_other_sees),
		T(of_two_that_update_what_they_read_the_second_is_refused),
		T(a_lost_slot_is_no_conflict_when_nothing_read_has_changed),
		T(a_name_is_made_by_one_of_two),
		T(appends_never_conflict),
		T(appends_of_all_sizes_find_the_end_anew),
		T(what_was_written_blindly_is_laid_over_the_newest),
		T(blobs_of_one_are_read_by_the_other_and_by_who_is_alone),
		T(inode_numbers_are_given_out_once),
		T(duplicates_added_at_once_are_all_there),
		T(with_one_replica_away_commits_go_on_and_with_two_they_are_refused),
		T(a_mount_with_too_few_replicas_leaves_no_trace),
		T(a_disk_that_is_offline_by_hand_keeps_nobody_out),
		T(a_label_round_in_recovery_leaves_one_base),
		T(who_cannot_follow_now_goes_on_when_the_disks_are_back),
		T(a_full_replica_majority_refuses_and_a_full_one_does_not),
		T(who_was_taken_for_dead_commits_no_more),
		T(what_was_acknowledged_survives_a_power_cut),
		T(who_is_alone_gives_back_what_was_removed),
		T(who_meets_a_base_commits_no_more),
		T(what_has_no_place_beside_others_is_refused),
		T(a_file_system_without_links_or_locks_is_refused),
		T(a_volume_is_made_one_of_one_machine_and_shared_again),
		T(a_crash_while_it_is_made_shared_leaves_one_or_the_other),
		T(only_who_is_alone_makes_it_shared),
		T(mkfs_gives_a_shared_volume_three_copies_of_the_registry),
		T(a_read_only_look_sees_what_was_committed),
		T(changes_need_no_memory_for_all_of_them),
		T(who_enters_applies_the_slots_behind_the_image_alone),
		T(who_enters_while_the_others_go_on_begins_anew),
		T(what_one_who_enters_writes_is_nobodys_garbage),
		T(what_was_removed_is_given_back_while_others_are_there),
		T(an_image_that_cannot_be_written_is_none),
		T(an_image_for_which_there_is_no_room_leaves_nothing),
		T(a_floor_is_on_the_media_before_slots_go),
		T(what_others_bring_survives_a_late_removal),
		T(who_is_dead_holds_up_nobody),
	};

	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	if (test_redis_there())
		return cmocka_run_group_tests(with_redis, NULL, NULL) || rc;
	printf("shared: redis-server is not installed: not tested with it\n");
	return rc;
}
