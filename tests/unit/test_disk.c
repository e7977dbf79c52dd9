/* The same tests on a real folder and on the simulated disk: what they agree on is what the engine
 * may rely on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/disk.h"
#include "tests/lib/simdisk.h"

/* For the loop over short transfers, and closes that hang, which no file system gives on demand:
 * the statics once more. */
static atomic_bool hangs;
static atomic_uint waited;
static sem_t answer;

static int close_or_hang(int fd)
{
	if (atomic_load(&hangs))
		sem_wait(&answer);
	return close(fd);
}

static int wait_for(pthread_t thread, void **out, const struct timespec *end)
{
	(void)end;
	atomic_fetch_add(&waited, 1);
	return atomic_load(&hangs) ? ETIMEDOUT : pthread_join(thread, out);
}

#define close(fd)			       close_or_hang(fd)
#define pthread_timedjoin_np(thread, out, end) wait_for(thread, out, end)
int open_folder_again(struct sop_disk **out, const char *path, struct sop_err *e);
#define sop_disk_open_folder open_folder_again
#include "core/disk_folder.c"
#undef sop_disk_open_folder
#undef close
#undef pthread_timedjoin_np

struct fixture {
	struct sop_disk *d;
	struct sim *sim; /* NULL: a real folder */
	char path[64];
};

static int setup_sim(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	if (!x)
		return -1;
	x->sim = sim_new(1);
	snprintf(x->path, sizeof(x->path), "/disk");
	sim_add_disk(x->sim, x->path, 0);
	*state = x;
	return sim_open_disk(x->sim, &x->d, x->path, NULL);
}

static int setup_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct fixture *x = calloc(1, sizeof(*x));

	if (!x)
		return -1;
	snprintf(x->path, sizeof(x->path), "%.40s/test_disk.XXXXXX", tmp ? tmp : "/tmp");
	*state = x;
	if (!mkdtemp(x->path))
		return -1;
	return sop_disk_open_folder(&x->d, x->path, NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	sop_disk_close(x->d);
	if (x->sim)
		sim_free(x->sim);
	else
		nftw(x->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(x);
	return 0;
}

static struct sop_file *must_open(struct sop_disk *d, const char *path, int flags)
{
	struct sop_file *f = NULL;

	assert_int_equal(d->ops->file_open(&f, d, path, flags), 0);
	return f;
}

static struct sop_file *make(struct sop_disk *d, const char *path)
{
	return must_open(d, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE);
}

static ssize_t put(struct sop_file *f, const char *text, uint64_t off)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

	return f->ops->pwritev(f, &iov, 1, off);
}

static ssize_t get(struct sop_file *f, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};

	return f->ops->preadv(f, &iov, 1, off);
}

static uint64_t size_of(struct sop_file *f)
{
	uint64_t size = UINT64_MAX;

	assert_int_equal(f->ops->size(f, &size), 0);
	return size;
}

static void done(struct sop_file *f)
{
	f->ops->file_close(f);
}

static void what_was_written_is_read(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[16];

	assert_int_equal(put(f, "hello", 0), 5);
	assert_int_equal(get(f, buf, 5, 0), 5);
	assert_memory_equal(buf, "hello", 5);
	done(f);
	f = must_open(x->d, "a", SOP_OPEN_READ);
	assert_int_equal(get(f, buf, 2, 3), 2);
	assert_memory_equal(buf, "lo", 2);
	assert_int_equal(size_of(f), 5);
	assert_int_equal(f->ops->datasync(f), 0);
	done(f);
}

static void a_read_is_short_at_the_end_of_the_file(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[16];

	put(f, "hello", 0);
	assert_int_equal(get(f, buf, 16, 0), 5);
	assert_int_equal(get(f, buf, 16, 4), 1);
	assert_int_equal(get(f, buf, 16, 5), 0);
	assert_int_equal(get(f, buf, 16, 1000000), 0);
	done(f);
}

static void a_gap_reads_as_zeros(void **state)
{
	static const char zeros[1000];
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[1000];

	put(f, "end", 10000);
	assert_int_equal(size_of(f), 10003);
	assert_int_equal(get(f, buf, 1000, 5000), 1000);
	assert_memory_equal(buf, zeros, 1000);
	done(f);
}

/* More parts than one system call takes, some empty. */
static void a_vector_of_many_parts_is_whole(void **state)
{
	enum { MANY = 2500, PIECE = 7 };
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	struct iovec *iov = calloc(MANY, sizeof(*iov));
	uint8_t *out = malloc((size_t)MANY * PIECE), *in = calloc(MANY, PIECE);
	size_t total = 0;

	for (size_t i = 0; i < (size_t)MANY * PIECE; i++)
		out[i] = (uint8_t)(i * 31 + i / 256);
	for (size_t i = 0; i < MANY; i++) {
		iov[i].iov_base = out + total;
		iov[i].iov_len = i % PIECE;
		total += iov[i].iov_len;
	}
	assert_int_equal(f->ops->pwritev(f, iov, MANY, 3), total);
	assert_int_equal(size_of(f), 3 + total);
	for (size_t i = 0; i < MANY; i++)
		iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
	assert_int_equal(f->ops->preadv(f, iov, MANY, 3), total);
	assert_memory_equal(in, out, total);
	memset(in, 0, total);
	assert_int_equal(f->ops->preadv(f, iov, MANY, 10), total - 7);
	assert_memory_equal(in, out + 7, total - 7);
	free(iov);
	free(in);
	free(out);
	done(f);
}

static void a_transfer_of_nothing_is_nothing(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	struct iovec iov[3] = {{0}};

	assert_int_equal(f->ops->pwritev(f, iov, 3, 100), 0);
	assert_int_equal(f->ops->pwritev(f, iov, 0, 100), 0);
	assert_int_equal(f->ops->preadv(f, iov, 3, 0), 0);
	assert_int_equal(size_of(f), 0);
	done(f);
}

static void an_offset_out_of_range_is_an_error(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[4];

	assert_true(put(f, "x", UINT64_MAX - 1) < 0);
	assert_true(put(f, "x", (uint64_t)INT64_MAX + 1) < 0);
	assert_true(get(f, buf, 4, UINT64_MAX - 1) < 0);
	assert_true(f->ops->allocate(f, UINT64_MAX - 4, 8) < 0);
	assert_true(f->ops->truncate(f, UINT64_MAX) < 0);
	assert_int_equal(size_of(f), 0);
	done(f);
}

static void open_flags_are_obeyed(void **state)
{
	struct fixture *x = *state;
	const struct sop_disk_ops *ops = x->d->ops;
	struct sop_file *f;

	assert_int_equal(ops->file_open(&f, x->d, "a", SOP_OPEN_READ), -ENOENT);
	assert_int_equal(ops->file_open(&f, x->d, "a", SOP_OPEN_WRITE), -ENOENT);
	assert_int_equal(
		ops->file_open(&f, x->d, "no/a", SOP_OPEN_WRITE | SOP_OPEN_CREATE), -ENOENT);
	f = must_open(x->d, "a", SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL);
	assert_int_equal(put(f, "old", 0), 3);
	done(f);
	assert_int_equal(
		ops->file_open(&f, x->d, "a", SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL),
		-EEXIST);
	f = make(x->d, "a"); /* not cut off */
	assert_int_equal(size_of(f), 3);
	done(f);
	f = must_open(x->d, "a", SOP_OPEN_READ);
	assert_true(put(f, "new", 0) < 0);
	done(f);
	assert_int_equal(ops->mkdir(x->d, "dir"), 0);
	assert_int_equal(ops->file_open(&f, x->d, "dir", SOP_OPEN_READ), -EISDIR);
	assert_int_equal(ops->file_open(&f, x->d, "a/b", SOP_OPEN_READ), -ENOTDIR);
}

static void truncate_cuts_and_extends_with_zeros(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[8];

	put(f, "abcdefgh", 0);
	assert_int_equal(f->ops->truncate(f, 3), 0);
	assert_int_equal(size_of(f), 3);
	assert_int_equal(f->ops->truncate(f, 8), 0);
	assert_int_equal(get(f, buf, 8, 0), 8);
	assert_memory_equal(buf, "abc\0\0\0\0\0", 8);
	done(f);
}

static void allocate_grows_and_keeps_what_is_there(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[4];

	put(f, "data", 0);
	assert_int_equal(f->ops->allocate(f, 0, 100000), 0);
	assert_int_equal(size_of(f), 100000);
	assert_int_equal(f->ops->allocate(f, 50000, 10), 0);
	assert_int_equal(f->ops->allocate(f, 500000, 0), 0);
	assert_int_equal(size_of(f), 100000);
	get(f, buf, 4, 0);
	assert_memory_equal(buf, "data", 4);
	get(f, buf, 4, 99996);
	assert_memory_equal(buf, "\0\0\0\0", 4);
	done(f);
}

static void punch_makes_zeros_and_keeps_the_size(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[20000], all[20000];
	int rc;

	memset(all, 'x', sizeof(all));
	for (size_t i = 0; i < sizeof(all); i += 4) {
		struct iovec iov = {.iov_base = all + i, .iov_len = 4};

		assert_int_equal(f->ops->pwritev(f, &iov, 1, i), 4);
	}
	rc = f->ops->punch(f, 1000, 15000);
	if (rc == -EOPNOTSUPP) {
		done(f);
		skip();
	}
	assert_int_equal(rc, 0);
	memset(all + 1000, 0, 15000);
	assert_int_equal(size_of(f), sizeof(all));
	assert_int_equal(get(f, buf, sizeof(buf), 0), sizeof(buf));
	assert_memory_equal(buf, all, sizeof(buf));
	/* Beyond the end, too, the size stays. */
	assert_int_equal(f->ops->punch(f, 16384, 100000), 0);
	assert_int_equal(f->ops->punch(f, 0, 0), 0);
	assert_int_equal(size_of(f), sizeof(all));
	done(f);
}

static void a_cached_read_is_right_or_refused(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[8] = "";
	struct iovec iov = {.iov_base = buf, .iov_len = 5};
	ssize_t n;

	put(f, "hello", 0);
	n = f->ops->preadv_cached(f, &iov, 1, 0);
	assert_true(n == 5 || n == -EAGAIN);
	if (n == 5)
		assert_memory_equal(buf, "hello", 5);
	done(f);
}

static void a_lock_is_exclusive_until_the_close(void **state)
{
	struct fixture *x = *state;
	struct sop_file *a = make(x->d, "lock"), *b = make(x->d, "lock"), *other = make(x->d, "o");

	assert_int_equal(a->ops->lock(a), 0);
	assert_int_equal(a->ops->lock(a), 0);
	assert_int_equal(b->ops->lock(b), -EAGAIN);
	assert_int_equal(other->ops->lock(other), 0);
	done(a);
	assert_int_equal(b->ops->lock(b), 0);
	done(b);
	done(other);
}

static void a_file_held_stays_open_over_a_close(void **state)
{
	struct fixture *x = *state;
	struct sop_file *a = make(x->d, "a"), *b;

	assert_int_equal(a->ops->lock(a), 0);
	sop_file_get(a);
	done(a);
	assert_int_equal(put(a, "still", 0), 5);
	b = make(x->d, "a");
	assert_int_equal(b->ops->lock(b), -EAGAIN);
	done(a);
	assert_int_equal(b->ops->lock(b), 0);
	assert_int_equal(size_of(b), 5);
	done(b);
}

static void rename_replaces(void **state)
{
	struct fixture *x = *state;
	const struct sop_disk_ops *ops = x->d->ops;
	struct sop_file *f, *old;
	char buf[4];

	f = make(x->d, "new");
	put(f, "new", 0);
	done(f);
	old = make(x->d, "name");
	put(old, "old", 0);
	assert_int_equal(ops->rename(x->d, "new", "name"), 0);
	assert_int_equal(ops->file_open(&f, x->d, "new", SOP_OPEN_READ), -ENOENT);
	f = must_open(x->d, "name", SOP_OPEN_READ);
	assert_int_equal(get(f, buf, 4, 0), 3);
	assert_memory_equal(buf, "new", 3);
	done(f);
	assert_int_equal(get(old, buf, 4, 0), 3); /* open files stay as they are */
	assert_memory_equal(buf, "old", 3);
	done(old);
	assert_int_equal(ops->rename(x->d, "new", "name"), -ENOENT);
	assert_int_equal(ops->rename(x->d, "name", "no/name"), -ENOENT);
	assert_int_equal(ops->mkdir(x->d, "dir"), 0);
	assert_int_equal(ops->rename(x->d, "name", "dir/name"), 0);
	done(must_open(x->d, "dir/name", SOP_OPEN_READ));
}

static void link_makes_a_second_name_and_never_replaces(void **state)
{
	struct fixture *x = *state;
	const struct sop_disk_ops *ops = x->d->ops;
	struct sop_file *f = make(x->d, "a");

	put(f, "text", 0);
	done(f);
	assert_int_equal(ops->link(x->d, "a", "b"), 0);
	assert_int_equal(ops->link(x->d, "a", "b"), -EEXIST);
	assert_int_equal(ops->link(x->d, "no", "c"), -ENOENT);
	assert_int_equal(ops->unlink(x->d, "a"), 0);
	assert_int_equal(ops->unlink(x->d, "a"), -ENOENT);
	f = must_open(x->d, "b", SOP_OPEN_READ);
	assert_int_equal(size_of(f), 4);
	done(f);
}

static void an_unlinked_file_lives_until_its_close(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	char buf[4];

	put(f, "text", 0);
	assert_int_equal(x->d->ops->unlink(x->d, "a"), 0);
	assert_int_equal(get(f, buf, 4, 0), 4);
	assert_memory_equal(buf, "text", 4);
	done(f);
}

static int collect(void *arg, const char *name)
{
	char *out = arg;

	/* Sorted by insertion of single letters. */
	assert_int_equal(strlen(name), 1);
	out[(unsigned char)name[0] - 'a'] = name[0];
	return 0;
}

static int stop_at_once(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return -ECANCELED;
}

static void directories_are_made_listed_and_synced(void **state)
{
	struct fixture *x = *state;
	const struct sop_disk_ops *ops = x->d->ops;
	char names[4] = "...";
	int calls = 0;

	assert_int_equal(ops->mkdir(x->d, "d"), 0);
	assert_int_equal(ops->mkdir(x->d, "d"), 0);
	assert_int_equal(ops->mkdir(x->d, "no/d"), -ENOENT);
	done(make(x->d, "d/a"));
	done(make(x->d, "d/b"));
	assert_int_equal(ops->mkdir(x->d, "d/c"), 0);
	assert_int_equal(ops->mkdir(x->d, "d/a"), -ENOTDIR);
	assert_int_equal(ops->list(x->d, "d", collect, names), 0);
	assert_string_equal(names, "abc");
	assert_int_equal(ops->list(x->d, "d", stop_at_once, &calls), -ECANCELED);
	assert_int_equal(calls, 1);
	assert_int_equal(ops->list(x->d, "d/c", stop_at_once, &calls), 0);
	memset(names, '.', 3);
	assert_int_equal(ops->list(x->d, "", stop_at_once, &calls), -ECANCELED);
	assert_int_equal(ops->list(x->d, "no", collect, names), -ENOENT);
	assert_int_equal(ops->list(x->d, "d/a", collect, names), -ENOTDIR);
	assert_int_equal(ops->syncdir(x->d, ""), 0);
	assert_int_equal(ops->syncdir(x->d, "d"), 0);
	assert_int_equal(ops->syncdir(x->d, "no"), -ENOENT);
	assert_int_equal(ops->syncdir(x->d, "d/a"), -ENOTDIR);
}

static void space_is_plausible(void **state)
{
	struct fixture *x = *state;
	struct sop_disk_space space = {0};

	assert_int_equal(x->d->ops->space(x->d, &space), 0);
	assert_true(space.total_bytes > 0);
	assert_true(space.free_bytes <= space.total_bytes);
	assert_true(space.device > 0);
}

static void publish_makes_and_replaces_and_leaves_no_other_file(void **state)
{
	struct fixture *x = *state;
	struct sop_err e = {0};
	void *buf = NULL;
	size_t len = 0;
	char names[4] = "...";

	assert_int_equal(x->d->ops->mkdir(x->d, "d"), 0);
	assert_int_equal(sop_disk_publish(x->d, "d/a", "first", 5, &e), 0);
	assert_int_equal(sop_disk_publish(x->d, "d/a", "2nd", 3, &e), 0);
	assert_int_equal(sop_disk_publish(x->d, "d/b", "", 0, &e), 0);
	assert_int_equal(sop_disk_read_file(x->d, "d/a", &buf, &len, 3, &e), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(buf, "2nd", 3);
	free(buf);
	assert_int_equal(sop_disk_read_file(x->d, "d/b", &buf, &len, 0, &e), 0);
	assert_int_equal(len, 0);
	free(buf);
	assert_int_equal(x->d->ops->list(x->d, "d", collect, names), 0);
	assert_string_equal(names, "ab.");
}

static void errors_of_small_files_name_the_disk_and_the_file(void **state)
{
	struct fixture *x = *state;
	struct sop_err e = {0};
	void *buf = NULL;
	size_t len = 0;
	char expect[128], name[600];

	assert_int_equal(sop_disk_read_file(x->d, "a", &buf, &len, 10, &e), -ENOENT);
	snprintf(expect, sizeof(expect), "%s/a: No such file or directory", x->path);
	assert_string_equal(e.text, expect);
	assert_int_equal(sop_disk_publish(x->d, "a", "elevenbytes", 11, &e), 0);
	assert_int_equal(sop_disk_read_file(x->d, "a", &buf, &len, 10, &e), -EFBIG);
	snprintf(expect, sizeof(expect), "%s/a: read: File too large", x->path);
	assert_string_equal(e.text, expect);
	assert_null(buf);
	assert_int_equal(sop_disk_publish(x->d, "no/a", "x", 1, &e), -ENOENT);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(sop_disk_publish(x->d, name, "x", 1, &e), -ENAMETOOLONG);
}

static void temporary_names_are_known(void **state)
{
	(void)state;
	assert_true(sop_disk_is_temp("label.0.0123456789abcdef.tmp", "label.0"));
	assert_false(sop_disk_is_temp("label.0.0123456789abcdef.tmp", "label"));
	assert_false(sop_disk_is_temp("label.0.0123456789abcdef.tmp", "label.1"));
	assert_false(sop_disk_is_temp("label.0", "label.0"));
	assert_false(sop_disk_is_temp("label.0.tmp", "label.0"));
	assert_false(sop_disk_is_temp("label.0.mine.tmp", "label.0"));
	assert_false(sop_disk_is_temp("label.0.0123456789abcde.tmp", "label.0"));
	assert_false(sop_disk_is_temp("label.0.0123456789abcdef0.tmp", "label.0"));
	assert_false(sop_disk_is_temp("label.0.0123456789abcdef.tmp.", "label.0"));
	assert_false(sop_disk_is_temp("label.0.0123456789ABCDEF.tmp", "label.0"));
}

/* --- real folders alone -------------------------------------------------------------------------
 */

static void open_folder_says_what_is_wrong(void **state)
{
	struct fixture *x = *state;
	struct sop_disk *d;
	struct sop_err e = {0};
	char path[100];

	snprintf(path, sizeof(path), "%s/none", x->path);
	assert_int_equal(sop_disk_open_folder(&d, path, &e), -ENOENT);
	assert_non_null(strstr(e.text, path));
	done(make(x->d, "none"));
	assert_int_equal(sop_disk_open_folder(&d, path, &e), -ENOTDIR);
	sop_disk_close(NULL);
}

static void a_folder_renamed_away_is_still_the_one(void **state)
{
	struct fixture *x = *state;
	char from[80], to[80];
	struct sop_disk *d;

	snprintf(from, sizeof(from), "%s/member", x->path);
	snprintf(to, sizeof(to), "%s/moved", x->path);
	assert_int_equal(mkdir(from, 0700), 0);
	assert_int_equal(sop_disk_open_folder(&d, from, NULL), 0);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(mkdir(from, 0700), 0);
	done(make(d, "file"));
	done(must_open(x->d, "moved/file", SOP_OPEN_READ));
	sop_disk_close(d);
}

static void what_is_no_regular_file_is_not_opened(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f;
	char path[80], target[80];

	snprintf(path, sizeof(path), "%s/fifo", x->path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(x->d->ops->file_open(&f, x->d, "fifo", SOP_OPEN_WRITE), -EINVAL);
	done(make(x->d, "file"));
	snprintf(target, sizeof(target), "%s/file", x->path);
	snprintf(path, sizeof(path), "%s/link", x->path);
	assert_int_equal(symlink(target, path), 0);
	assert_int_equal(x->d->ops->file_open(&f, x->d, "link", SOP_OPEN_WRITE), -ELOOP);
}

static void files_are_closed_on_exec_and_block(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");

	assert_true(f->fd >= 0);
	assert_true(fcntl(f->fd, F_GETFD) & FD_CLOEXEC);
	assert_false(fcntl(f->fd, F_GETFL) & O_NONBLOCK);
	done(f);
}

static uint8_t medium[1000];
static int medium_calls;

/* Moves five bytes at most, and is interrupted every third time. */
static ssize_t short_write(int fd, const struct iovec *iov, int iovcnt, off_t off)
{
	size_t left = 5;

	(void)fd;
	if (++medium_calls % 3 == 0) {
		errno = EINTR;
		return -1;
	}
	for (int i = 0; i < iovcnt && left; i++) {
		size_t n = SOP_MIN(left, iov[i].iov_len);

		memcpy(medium + off, iov[i].iov_base, n);
		off += (off_t)n;
		left -= n;
	}
	return (ssize_t)(5 - left);
}

static void short_transfers_are_put_together(void **state)
{
	enum { SHORT_PARTS = 40 };
	struct iovec iov[SHORT_PARTS];
	uint8_t data[1000];
	size_t total = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i + 1);
	for (size_t i = 0; i < SHORT_PARTS; i++) {
		iov[i] = (struct iovec){.iov_base = data + total, .iov_len = i % 23};
		total += i % 23;
	}
	memset(medium, 0, sizeof(medium));
	assert_int_equal(transfer(short_write, -1, iov, SHORT_PARTS, 7), total);
	assert_memory_equal(medium + 7, data, total);
	assert_int_equal(medium[7 + total], 0);
}

/* The first call writes up to the limit, in the middle of the second part; the next one fails. */
static void a_write_cut_short_is_continued_and_then_an_error(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	struct rlimit before, limit;
	char one[4000], two[4000];
	struct iovec iov[2] = {{one, sizeof(one)}, {two, sizeof(two)}};
	ssize_t n;

	memset(one, '1', sizeof(one));
	memset(two, '2', sizeof(two));
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = 6000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	n = f->ops->pwritev(f, iov, 2, 0);
	setrlimit(RLIMIT_FSIZE, &before);
	signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(n, -EFBIG);
	assert_int_equal(size_of(f), 6000);
	assert_int_equal(get(f, one, 4000, 4000), 2000);
	assert_memory_equal(one, two, 2000);
	done(f);
}

static void allocate_takes_room_and_punch_gives_it_back(void **state)
{
	enum { MIB = 1 << 20 };
	struct fixture *x = *state;
	struct sop_file *f = make(x->d, "a");
	struct stat st;
	blkcnt_t before;

	assert_int_equal(f->ops->allocate(f, 0, MIB), 0);
	assert_int_equal(fstat(f->fd, &st), 0);
	before = st.st_blocks;
	if (before * 512 < MIB) {
		done(f);
		skip(); /* a file system that cannot */
	}
	if (f->ops->punch(f, 0, MIB / 2) == -EOPNOTSUPP) {
		done(f);
		skip();
	}
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_true(st.st_blocks <= before - MIB / 2 / 512);
	done(f);
}

#define BOTH(name)                                                                                 \
	{#name " (folder)", name, setup_folder, teardown, NULL},                                   \
	{                                                                                          \
#name " (simulated)", name, setup_sim, teardown, NULL                              \
	}
#define FOLDER(name) cmocka_unit_test_setup_teardown(name, setup_folder, teardown)

/* On a server that hung once and answers again, locks go with the close again. */
static void closes_are_waited_for_once_a_slow_one_has_ended(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f[3];
	struct sop_disk *d;

	assert_int_equal(open_folder_again(&d, x->path, NULL), 0);
	folder_of(d)->waits = true;
	for (unsigned i = 0; i < SOP_ARRAY_LEN(f); i++)
		assert_int_equal(
			d->ops->file_open(&f[i], d, "f", SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	assert_int_equal(sem_init(&answer, 0, 0), 0);
	atomic_store(&hangs, true);
	d->ops->file_close(f[0]);
	assert_int_equal(atomic_load(&waited), 1);
	d->ops->file_close(f[1]);
	assert_int_equal(atomic_load(&waited), 1);
	atomic_store(&hangs, false);
	sem_post(&answer);
	sem_post(&answer);
	while (atomic_load(&folder_of(d)->refs) != 2)
		sched_yield();
	d->ops->file_close(f[2]);
	assert_int_equal(atomic_load(&waited), 2);
	assert_int_equal(atomic_load(&folder_of(d)->refs), 1);
	sop_disk_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(what_was_written_is_read),
		BOTH(a_read_is_short_at_the_end_of_the_file),
		BOTH(a_gap_reads_as_zeros),
		BOTH(a_vector_of_many_parts_is_whole),
		BOTH(a_transfer_of_nothing_is_nothing),
		BOTH(an_offset_out_of_range_is_an_error),
		BOTH(open_flags_are_obeyed),
		BOTH(truncate_cuts_and_extends_with_zeros),
		BOTH(allocate_grows_and_keeps_what_is_there),
		BOTH(punch_makes_zeros_and_keeps_the_size),
		BOTH(a_cached_read_is_right_or_refused),
		BOTH(a_lock_is_exclusive_until_the_close),
		BOTH(a_file_held_stays_open_over_a_close),
		BOTH(rename_replaces),
		BOTH(link_makes_a_second_name_and_never_replaces),
		BOTH(an_unlinked_file_lives_until_its_close),
		BOTH(directories_are_made_listed_and_synced),
		BOTH(space_is_plausible),
		BOTH(publish_makes_and_replaces_and_leaves_no_other_file),
		BOTH(errors_of_small_files_name_the_disk_and_the_file),
		cmocka_unit_test(temporary_names_are_known),
		FOLDER(open_folder_says_what_is_wrong),
		FOLDER(a_folder_renamed_away_is_still_the_one),
		FOLDER(what_is_no_regular_file_is_not_opened),
		FOLDER(files_are_closed_on_exec_and_block),
		cmocka_unit_test(short_transfers_are_put_together),
		FOLDER(a_write_cut_short_is_continued_and_then_an_error),
		FOLDER(allocate_takes_room_and_punch_gives_it_back),
		FOLDER(closes_are_waited_for_once_a_slow_one_has_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
