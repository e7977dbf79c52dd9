/* Batches on the three kinds of pool, and devices that hang: files of the test's own that wait at a
 * gate until the test opens it, and pipes, at which io_uring waits in the same way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <liburing.h>
#include <limits.h>
#include <pthread.h>
#include <time.h>

#include "core/io.h"
#include "tests/lib/simdisk.h"

#define LONG_MS 60000u
#define SOME_MS 1500u /* in which a request begins, and one that does not hang ends */

static const enum sop_io_how hows[] = {SOP_IO_SERIAL, SOP_IO_PARALLEL};

/* --- files that hang --- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
	unsigned waiting; /* calls at the gate now */
	unsigned calls;	  /* calls so far */
	unsigned closed;  /* files closed for good */
};

static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0, 0, 0};

static uint64_t gated_off; /* of the last read */

struct gated {
	struct sop_file file;
	bool waits; /* at the gate */
	int rc;	    /* what calls end with, if not 0 */
};

static int pass(struct sop_file *f)
{
	struct gated *g = (struct gated *)f;

	pthread_mutex_lock(&gate.lock);
	gate.calls++;
	gate.waiting++;
	pthread_cond_broadcast(&gate.changed);
	while (g->waits && !gate.open)
		pthread_cond_wait(&gate.changed, &gate.lock);
	gate.waiting--;
	pthread_mutex_unlock(&gate.lock);
	return g->rc;
}

static ssize_t gated_preadv(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	ssize_t n = 0;
	int rc = pass(f);

	gated_off = off;
	if (rc)
		return rc;
	/* The memory must be there, however late this is. */
	for (int i = 0; i < iovcnt; i++) {
		memset(iov[i].iov_base, 'r', iov[i].iov_len);
		n += (ssize_t)iov[i].iov_len;
	}
	return n;
}

static ssize_t gated_pwritev(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	ssize_t n = 0;
	int rc = pass(f);

	(void)off;
	for (int i = 0; i < iovcnt; i++)
		n += (ssize_t)iov[i].iov_len;
	return rc ? rc : n;
}

static int gated_datasync(struct sop_file *f)
{
	return pass(f);
}

static void gated_close(struct sop_file *f)
{
	if (!sop_file_put(f))
		return;
	if (f->fd >= 0)
		close(f->fd);
	free(f);
	pthread_mutex_lock(&gate.lock);
	gate.closed++;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

static const struct sop_disk_ops gated_ops = {
	.file_close = gated_close,
	.preadv = gated_preadv,
	.pwritev = gated_pwritev,
	.datasync = gated_datasync,
};

static struct sop_file *gated_new(bool waits, int rc)
{
	struct gated *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	g->file.ops = &gated_ops;
	g->file.fd = -1;
	g->waits = waits;
	g->rc = rc;
	return &g->file;
}

static void done(struct sop_file *f)
{
	f->ops->file_close(f);
}

static void gate_reset(void)
{
	pthread_mutex_lock(&gate.lock);
	gate.open = false;
	gate.calls = 0;
	gate.closed = 0;
	pthread_mutex_unlock(&gate.lock);
}

static void gate_open(void)
{
	pthread_mutex_lock(&gate.lock);
	gate.open = true;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

/* Wait for a number at the gate to be reached; the test as a whole has a bound. */
static void gate_wait(const unsigned *number, unsigned value)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	pthread_mutex_lock(&gate.lock);
	while (*number < value)
		assert_int_equal(pthread_cond_timedwait(&gate.changed, &gate.lock, &until), 0);
	pthread_mutex_unlock(&gate.lock);
}

static unsigned gate_number(const unsigned *number)
{
	unsigned value;

	pthread_mutex_lock(&gate.lock);
	value = *number;
	pthread_mutex_unlock(&gate.lock);
	return value;
}

/* --- pools and files --- */

struct fixture {
	struct sop_iopool *pool;
	struct sop_disk *disk; /* a real folder */
	char path[64];
};

enum kind { INLINE, THREADS, URING };

static struct sop_iopool *pool_of(enum kind kind, unsigned threads_max)
{
	struct sop_iopool_opts o = {
		.disks = 4, .threads_max = threads_max, .no_uring = kind == THREADS};
	struct sop_iopool *p = NULL;

	if (kind == INLINE)
		assert_int_equal(sop_iopool_new_inline(&p, NULL), 0);
	else
		assert_int_equal(sop_iopool_new(&p, &o, NULL), 0);
	return p;
}

static int setup(void **state, enum kind kind)
{
	const char *tmp = getenv("TMPDIR");
	struct fixture *x = calloc(1, sizeof(*x));

	if (!x)
		return -1;
	gate_reset();
	snprintf(x->path, sizeof(x->path), "%.40s/test_io.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(x->path) || sop_disk_open_folder(&x->disk, x->path, NULL))
		return -1;
	x->pool = pool_of(kind, 0);
	*state = x;
	return 0;
}

static int setup_inline(void **state)
{
	return setup(state, INLINE);
}

static int setup_threads(void **state)
{
	return setup(state, THREADS);
}

static int setup_uring(void **state)
{
	return setup(state, URING);
}

static int unlink_one(void *arg, const char *name)
{
	struct sop_disk *d = arg;

	return d->ops->unlink(d, name);
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	gate_open();
	sop_iopool_free(x->pool, LONG_MS);
	x->disk->ops->list(x->disk, "", unlink_one, x->disk);
	sop_disk_close(x->disk);
	rmdir(x->path);
	free(x);
	return 0;
}

static struct sop_file *make(struct sop_disk *d, const char *path)
{
	struct sop_file *f = NULL;

	assert_int_equal(d->ops->file_open(&f, d, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	return f;
}

/* Add a request on len bytes of the batch's own memory, filled with c; the memory. */
static uint8_t *add(
	struct sop_batch *b, enum sop_io_op op, struct sop_file *f, size_t len, int c, uint64_t off)
{
	uint8_t *buf = sop_batch_alloc(b, len);
	struct iovec iov = {.iov_base = buf, .iov_len = len};

	assert_non_null(buf);
	memset(buf, c, len);
	assert_true(sop_batch_add(b, op, f, &iov, 1, off) >= 0);
	return buf;
}

static void expect_bytes(const uint8_t *buf, int c, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], c);
}

/* --- what every pool does --- */

static void what_a_batch_wrote_another_reads(void **state)
{
	enum { FILES = 5, LEN = 10000 };
	struct fixture *x = *state;
	struct sop_file *f[FILES];
	uint8_t *buf[FILES];
	struct sop_batch *b;

	for (unsigned k = 0; k < SOP_ARRAY_LEN(hows); k++) {
		enum sop_io_how how = hows[k];
		b = sop_batch_new(x->pool);
		for (int i = 0; i < FILES; i++) {
			char name[16];

			snprintf(name, sizeof(name), "f%d", i);
			f[i] = make(x->disk, name);
			add(b, SOP_IO_WRITE, f[i], LEN, 'a' + i + (int)how, 100);
			assert_int_equal(
				sop_batch_add(b, SOP_IO_DATASYNC, f[i], NULL, 0, 0), 2 * i + 1);
		}
		assert_int_equal(sop_batch_run(b, how, 0, LONG_MS), 2 * FILES);
		sop_batch_put(b);
		b = sop_batch_new(x->pool);
		for (int i = 0; i < FILES; i++)
			buf[i] = add(b, SOP_IO_READ, f[i], LEN, 0, 100);
		assert_int_equal(sop_batch_run(b, how, 0, 0), FILES);
		for (int i = 0; i < FILES; i++) {
			assert_int_equal(sop_batch_result(b, i), 0);
			expect_bytes(buf[i], 'a' + i + (int)how, LEN);
			done(f[i]);
		}
		sop_batch_put(b);
	}
}

static void a_short_read_is_an_error_of_its_request_alone(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->disk, "f"), *bad = gated_new(false, -ENOSPC);
	struct sop_batch *b = sop_batch_new(x->pool);

	add(b, SOP_IO_WRITE, f, 100, 'x', 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 0, LONG_MS), 1);
	sop_batch_put(b);
	for (unsigned k = 0; k < SOP_ARRAY_LEN(hows); k++) {
		enum sop_io_how how = hows[k];
		b = sop_batch_new(x->pool);
		add(b, SOP_IO_READ, f, 100, 0, 0);
		add(b, SOP_IO_READ, f, 101, 0, 0);
		add(b, SOP_IO_READ, f, 10, 0, 5000);
		if (how == SOP_IO_SERIAL)
			add(b, SOP_IO_WRITE, bad, 10, 0, 0);
		assert_int_equal(sop_batch_run(b, how, 0, LONG_MS), 1);
		assert_int_equal(sop_batch_result(b, 0), 0);
		assert_int_equal(sop_batch_result(b, 1), -ENODATA);
		assert_int_equal(sop_batch_result(b, 2), -ENODATA);
		if (how == SOP_IO_SERIAL)
			assert_int_equal(sop_batch_result(b, 3), -ENOSPC);
		sop_batch_put(b);
	}
	done(f);
	done(bad);
	/* A pool thread may hold the batch a moment longer than the owner. */
	gate_wait(&gate.closed, 1);
}

static void an_empty_batch_is_nothing(void **state)
{
	struct fixture *x = *state;
	struct sop_batch *b = sop_batch_new(x->pool);

	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, LONG_MS), 0);
	sop_batch_put(b);
	b = sop_batch_new(x->pool);
	sop_batch_put(b); /* never run */
	sop_batch_put(NULL);
}

/* More than the first array, than one ring and than one system call take. */
static void a_batch_of_many_requests_is_whole(void **state)
{
	enum { MANY = 300, PARTS = 20 };
	struct fixture *x = *state;
	struct sop_file *f = make(x->disk, "f");

	for (unsigned k = 0; k < SOP_ARRAY_LEN(hows); k++) {
		enum sop_io_how how = hows[k];
		struct sop_batch *b = sop_batch_new(x->pool);
		uint8_t *buf[MANY];

		for (int i = 0; i < MANY; i++)
			add(b, SOP_IO_WRITE, f, PARTS * 8, i + (int)how, (uint64_t)i * PARTS * 8);
		assert_int_equal(sop_batch_run(b, how, 0, LONG_MS), MANY);
		sop_batch_put(b);
		b = sop_batch_new(x->pool);
		for (int i = 0; i < MANY; i++) {
			struct iovec iov[PARTS];

			buf[i] = sop_batch_alloc(b, PARTS * 8);
			for (size_t part = 0; part < PARTS; part++)
				iov[part] =
					(struct iovec){.iov_base = buf[i] + part * 8, .iov_len = 8};
			assert_int_equal(sop_batch_add(b, SOP_IO_READ, f, iov, PARTS,
						 (uint64_t)i * PARTS * 8),
				i);
		}
		assert_int_equal(sop_batch_run(b, how, 0, LONG_MS), MANY);
		for (int i = 0; i < MANY; i++)
			expect_bytes(buf[i], (uint8_t)(i + (int)how), PARTS * 8);
		sop_batch_put(b);
	}
	done(f);
}

static void memory_is_aligned_apart_and_reused(void **state)
{
	static const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 5000, 16384, 20000, 33000, 100,
		200000, 1u << 20, (1u << 20) + 100, 3, 8u << 20, (8u << 20) + 1, 30000, 30000};
	struct fixture *x = *state;

	for (int round = 0; round < 3; round++) {
		struct sop_batch *b = sop_batch_new(x->pool);
		uint8_t *buf[SOP_ARRAY_LEN(sizes)];

		for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++) {
			buf[i] = sop_batch_alloc(b, sizes[i]);
			assert_non_null(buf[i]);
			assert_int_equal((uintptr_t)buf[i] % 64, 0);
			memset(buf[i], (int)i + 1, sizes[i]);
		}
		for (size_t i = 0; i < SOP_ARRAY_LEN(sizes); i++)
			expect_bytes(buf[i], (int)i + 1, sizes[i]);
		assert_null(sop_batch_alloc(b, SIZE_MAX - 10));
		sop_batch_put(b);
	}
}

static void a_batch_lives_without_its_owner_having_the_files(void **state)
{
	struct fixture *x = *state;
	struct sop_file *f = make(x->disk, "f");
	struct sop_batch *b = sop_batch_new(x->pool);

	add(b, SOP_IO_WRITE, f, 10, 'x', 0);
	done(f);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 0, LONG_MS), 1);
	sop_batch_put(b);
}

struct hammer {
	struct fixture *x;
	struct sop_file *f;
	int c;
};

static void *hammer_main(void *arg)
{
	struct hammer *h = arg;

	for (int i = 0; i < 150; i++) {
		enum sop_io_how how = i % 2 ? SOP_IO_SERIAL : SOP_IO_PARALLEL;
		struct sop_batch *b = sop_batch_new(h->x->pool);
		uint8_t *buf[4];

		for (size_t k = 0; k < 4; k++)
			add(b, SOP_IO_WRITE, h->f, 3000, h->c, k * 3000);
		if (sop_batch_run(b, how, 0, LONG_MS) != 4)
			abort();
		sop_batch_put(b);
		b = sop_batch_new(h->x->pool);
		for (size_t k = 0; k < 4; k++)
			buf[k] = add(b, SOP_IO_READ, h->f, 3000, 0, k * 3000);
		if (sop_batch_run(b, how, (unsigned)i % 5, LONG_MS) < (i % 5 ? i % 5 : 4))
			abort();
		for (int k = 0; k < 4; k++)
			if (!sop_batch_result(b, k) && (buf[k][0] != h->c || buf[k][2999] != h->c))
				abort();
		sop_batch_put(b);
	}
	return NULL;
}

static void many_owners_share_a_pool(void **state)
{
	enum { OWNERS = 4 };
	struct fixture *x = *state;
	struct hammer h[OWNERS];
	pthread_t t[OWNERS];

	for (int i = 0; i < OWNERS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		h[i] = (struct hammer){.x = x, .f = make(x->disk, name), .c = 'A' + i};
		assert_int_equal(pthread_create(&t[i], NULL, hammer_main, &h[i]), 0);
	}
	for (int i = 0; i < OWNERS; i++) {
		pthread_join(t[i], NULL);
		done(h[i].f);
	}
}

/* --- inline --------------------------------------------------------------------------------------
 */

static void inline_does_all_in_order_on_this_thread(void **state)
{
	struct fixture *x = *state;
	struct sim *s = sim_new(1);
	struct sop_batch *b = sop_batch_new(x->pool);
	struct sop_file *f;

	sim_add_disk(s, "/d", 0);
	f = make(sim_disk(s, 0), "a");
	add(b, SOP_IO_WRITE, f, 1, '1', 0);
	add(b, SOP_IO_WRITE, f, 1, '2', 0);
	sop_batch_add(b, SOP_IO_DATASYNC, f, NULL, 0, 0);
	add(b, SOP_IO_WRITE, f, 1, '3', 0);
	/* The machine stops at the last; `need` does not keep it from running. */
	sim_crash_at(s, sim_steps(s) + 4);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 1, 1), 3);
	assert_int_equal(sop_batch_result(b, 2), 0);
	assert_int_equal(sop_batch_result(b, 3), -EIO);
	sop_batch_put(b);
	done(f);
	sim_free(s);
}

/* --- devices that hang --- */

static void need_is_enough_while_another_hangs(void **state)
{
	struct fixture *x = *state;
	struct sop_file *slow = gated_new(true, 0), *fast = gated_new(false, 0);
	struct sop_batch *b = sop_batch_new(x->pool);

	add(b, SOP_IO_READ, slow, 1000, 0, 0);
	add(b, SOP_IO_READ, fast, 1000, 0, 0);
	add(b, SOP_IO_READ, fast, 1000, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 2, 0), 2);
	assert_int_equal(sop_batch_result(b, 0), -ETIMEDOUT);
	assert_int_equal(sop_batch_result(b, 1), 0);
	/* What happens later does not change what the owner was told. */
	gate_wait(&gate.calls, 3);
	gate_open();
	done(slow);
	assert_int_equal(sop_batch_result(b, 0), -ETIMEDOUT);
	sop_batch_put(b);
	done(fast);
	gate_wait(&gate.closed, 2);
}

static void a_hung_request_keeps_its_memory_and_its_file(void **state)
{
	struct fixture *x = *state;
	struct sop_file *slow = gated_new(true, 0);
	struct sop_batch *b = sop_batch_new(x->pool);

	add(b, SOP_IO_READ, slow, 1u << 20, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, SOME_MS), 0);
	assert_int_equal(sop_batch_result(b, 0), -ETIMEDOUT);
	sop_batch_put(b);
	done(slow);
	gate_wait(&gate.waiting, 1);
	assert_int_equal(gate_number(&gate.closed), 0);
	gate_open(); /* it fills its buffer now */
	gate_wait(&gate.closed, 1);
}

static void a_slow_request_does_not_delay_the_others_of_a_serial_batch(void **state)
{
	struct fixture *x = *state;
	struct sop_file *slow = gated_new(true, 0), *fast = gated_new(false, 0);
	struct sop_batch *b = sop_batch_new(x->pool);

	add(b, SOP_IO_WRITE, fast, 10, 0, 0);
	add(b, SOP_IO_WRITE, slow, 10, 0, 0);
	add(b, SOP_IO_WRITE, fast, 10, 0, 0);
	add(b, SOP_IO_WRITE, fast, 10, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 3, 0), 3);
	assert_int_equal(sop_batch_result(b, 1), -ETIMEDOUT);
	assert_int_equal(sop_batch_result(b, 3), 0);
	sop_batch_put(b);
	done(slow);
	done(fast);
	gate_open();
	gate_wait(&gate.closed, 2);
}

static void serial_does_all_that_is_fast_whatever_is_needed(void **state)
{
	struct fixture *x = *state;
	struct sop_file *fast = gated_new(false, 0);
	struct sop_batch *b = sop_batch_new(x->pool);

	for (int i = 0; i < 5; i++)
		add(b, SOP_IO_WRITE, fast, 10, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 1, 0), 5);
	sop_batch_put(b);
	done(fast);
}

static void *run_to_the_end(void *arg)
{
	(void)sop_batch_run(arg, SOP_IO_PARALLEL, 0, LONG_MS);
	return NULL;
}

static void what_has_not_begun_at_the_end_never_begins(void **state)
{
	struct fixture *x = *state;
	struct sop_iopool *one = pool_of(THREADS, 1);
	struct sop_file *slow = gated_new(true, 0), *never = gated_new(false, 0);
	struct sop_batch *first = sop_batch_new(one), *b = sop_batch_new(one);
	pthread_t t;

	(void)x;
	/* The only thread hangs, and not for so long yet that there would be another. */
	add(first, SOP_IO_WRITE, slow, 10, 0, 0);
	assert_int_equal(pthread_create(&t, NULL, run_to_the_end, first), 0);
	gate_wait(&gate.waiting, 1);
	add(b, SOP_IO_WRITE, never, 10, 0, 0);
	add(b, SOP_IO_WRITE, never, 10, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, 20), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sop_batch_result(b, i), -ETIMEDOUT);
	sop_batch_put(b);
	gate_open();
	pthread_join(t, NULL);
	assert_int_equal(sop_batch_result(first, 0), 0);
	sop_batch_put(first);
	done(slow);
	done(never);
	sop_iopool_free(one, LONG_MS);
	assert_int_equal(gate_number(&gate.calls), 1);
	assert_int_equal(gate_number(&gate.closed), 2);
}

static void hanging_threads_are_replaced_when_others_wait(void **state)
{
	struct fixture *x = *state;
	struct sop_iopool *two = pool_of(THREADS, 2);
	struct sop_file *slow = gated_new(true, 0), *fast = gated_new(false, 0);
	struct sop_batch *b;

	(void)x;
	/* Both threads of the pool hang. */
	b = sop_batch_new(two);
	add(b, SOP_IO_WRITE, slow, 10, 0, 0);
	add(b, SOP_IO_WRITE, slow, 10, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, SOME_MS), 0);
	sop_batch_put(b);
	gate_wait(&gate.waiting, 2);
	b = sop_batch_new(two);
	add(b, SOP_IO_WRITE, fast, 10, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 0, 0), 1);
	sop_batch_put(b);
	gate_open();
	sop_iopool_free(two, LONG_MS);
	done(slow);
	done(fast);
}

static void a_pool_goes_while_a_thread_of_it_hangs(void **state)
{
	struct fixture *x = *state;
	struct sop_iopool *p = pool_of(THREADS, 0);
	struct sop_file *slow = gated_new(true, 0);
	struct sop_batch *b = sop_batch_new(p);

	(void)x;
	add(b, SOP_IO_READ, slow, 100000, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, SOME_MS), 0);
	sop_batch_put(b);
	done(slow);
	gate_wait(&gate.waiting, 1);
	sop_iopool_free(p, 20);
	assert_int_equal(gate_number(&gate.closed), 0);
	gate_open();
	gate_wait(&gate.closed, 1);
}

/* --- io_uring: a pipe is a device that answers when the test writes to it --- */

static struct sop_file *pipe_file(int *write_end)
{
	struct sop_file *f = gated_new(false, 0);
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	f->fd = fds[0];
	*write_end = fds[1];
	return f;
}

/* Without io_uring the gated read answers, which fills with 'r': tell them apart. */
static bool has_uring(struct fixture *x)
{
	struct sop_batch *b = sop_batch_new(x->pool);
	int end;
	struct sop_file *f = pipe_file(&end);
	uint8_t *buf;
	bool has;

	assert_int_equal(write(end, "u", 1), 1);
	buf = add(b, SOP_IO_READ, f, 1, 0, 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, LONG_MS), 1);
	has = buf[0] == 'u';
	sop_batch_put(b);
	done(f);
	close(end);
	return has;
}

static void ring_reads_that_come_in_pieces_are_put_together(void **state)
{
	struct fixture *x = *state;
	struct sop_batch *b;
	struct sop_file *f;
	struct iovec iov[4];
	uint8_t *buf;
	int end;

	if (!has_uring(x))
		skip();
	f = pipe_file(&end);
	b = sop_batch_new(x->pool);
	buf = sop_batch_alloc(b, 6);
	iov[0] = (struct iovec){.iov_base = buf, .iov_len = 2};
	iov[1] = (struct iovec){.iov_base = buf + 2, .iov_len = 0};
	iov[2] = (struct iovec){.iov_base = buf + 2, .iov_len = 3};
	iov[3] = (struct iovec){.iov_base = buf + 5, .iov_len = 1};
	sop_batch_add(b, SOP_IO_READ, f, iov, 4, 0);
	/* The pipe gives what it has: the rest comes with the end of the file, which is an error.
	 */
	assert_int_equal(write(end, "abc", 3), 3);
	close(end);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, LONG_MS), 0);
	assert_int_equal(sop_batch_result(b, 0), -ENODATA);
	assert_memory_equal(buf, "abc", 3);
	sop_batch_put(b);
	done(f);
}

static unsigned submits_left = UINT_MAX; /* then the kernel takes no more */

/* In place of the library's. */
int io_uring_submit(struct io_uring *ring)
{
	static int (*real)(struct io_uring * ring);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit");
	if (!submits_left)
		return -EAGAIN;
	submits_left--;
	return real(ring);
}

/* A pool's thread goes on where the ring had to leave it. */
static void a_read_cut_short_on_a_ring_is_ended_by_a_thread(void **state)
{
	struct fixture *x = *state;
	struct sop_batch *b;
	struct sop_file *f;
	uint8_t *buf;
	int end;

	if (!has_uring(x))
		skip();
	f = pipe_file(&end);
	b = sop_batch_new(x->pool);
	buf = add(b, SOP_IO_READ, f, 6, 0, 100);
	assert_int_equal(write(end, "abc", 3), 3);
	submits_left = 1;
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, LONG_MS), 1);
	submits_left = UINT_MAX;
	assert_int_equal(sop_batch_result(b, 0), 0);
	assert_memory_equal(buf, "abcrrr", 6);
	assert_int_equal(gated_off, 103);
	sop_batch_put(b);
	done(f);
	close(end);
}

static void *write_rest(void *arg)
{
	/* Some way into the read or before: the outcome is the same. */
	if (write(*(int *)arg, "cdef", 4) != 4)
		abort();
	return NULL;
}

static void ring_reads_wait_for_the_rest(void **state)
{
	struct fixture *x = *state;
	struct sop_batch *b;
	struct sop_file *f;
	pthread_t t;
	uint8_t *buf;
	int end;

	if (!has_uring(x))
		skip();
	f = pipe_file(&end);
	b = sop_batch_new(x->pool);
	buf = add(b, SOP_IO_READ, f, 6, 0, 0);
	assert_int_equal(write(end, "ab", 2), 2);
	assert_int_equal(pthread_create(&t, NULL, write_rest, &end), 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, 0), 1);
	assert_memory_equal(buf, "abcdef", 6);
	pthread_join(t, NULL);
	sop_batch_put(b);
	done(f);
	close(end);
}

static void a_ring_with_a_hung_read_is_put_aside_until_it_ends(void **state)
{
	struct fixture *x = *state;
	struct sop_file *slow, *fast = make(x->disk, "f");
	struct sop_batch *b;
	int end;

	if (!has_uring(x)) {
		done(fast);
		skip();
	}
	gate_reset();
	b = sop_batch_new(x->pool);
	add(b, SOP_IO_WRITE, fast, 10, 'x', 0);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 0, LONG_MS), 1);
	sop_batch_put(b);
	slow = pipe_file(&end);
	for (int round = 0; round < 3; round++) {
		/* Once by its bound, then by what is needed. */
		b = sop_batch_new(x->pool);
		add(b, SOP_IO_READ, slow, 1, 0, 0);
		add(b, SOP_IO_READ, fast, 10, 0, 0);
		assert_int_equal(
			sop_batch_run(b, SOP_IO_PARALLEL, round > 0, round ? 0 : SOME_MS), 1);
		assert_int_equal(sop_batch_result(b, 0), -ETIMEDOUT);
		assert_int_equal(sop_batch_result(b, 1), 0);
		sop_batch_put(b);
	}
	done(slow);
	assert_int_equal(gate_number(&gate.closed), 0);
	assert_int_equal(write(end, "zzz", 3), 3);
	/* The next runs find the rings done and let the file go. */
	for (int i = 0; i < 100000 && !gate_number(&gate.closed); i++) {
		b = sop_batch_new(x->pool);
		add(b, SOP_IO_READ, fast, 10, 0, 0);
		assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, LONG_MS), 1);
		sop_batch_put(b);
	}
	assert_int_equal(gate_number(&gate.closed), 1);
	close(end);
	done(fast);
}

static void a_pool_goes_while_a_ring_of_it_hangs(void **state)
{
	struct fixture *x = *state;
	struct sop_iopool *p;
	struct sop_file *slow;
	struct sop_batch *b;
	int end;

	if (!has_uring(x))
		skip();
	gate_reset();
	slow = pipe_file(&end);
	/* First a ring that ends within the wait, then one that does not. */
	for (int round = 0; round < 2; round++) {
		p = pool_of(URING, 0);
		b = sop_batch_new(p);
		add(b, SOP_IO_READ, slow, 1, 0, 0);
		assert_int_equal(sop_batch_run(b, SOP_IO_PARALLEL, 0, 20), 0);
		sop_batch_put(b);
		if (!round)
			assert_int_equal(write(end, "x", 1), 1);
		sop_iopool_free(p, round ? 20 : LONG_MS);
	}
	/* The last batch is left behind, and its file with it. */
	done(slow);
	assert_int_equal(gate_number(&gate.closed), 0);
	close(end);
}

#define WITH(how, name)                                                                            \
	{                                                                                          \
#name " (" #how ")", name, setup_##how, teardown, NULL                             \
	}
#define EACH(name) WITH(inline, name), WITH(threads, name), WITH(uring, name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(what_a_batch_wrote_another_reads),
		EACH(a_short_read_is_an_error_of_its_request_alone),
		EACH(an_empty_batch_is_nothing),
		EACH(a_batch_of_many_requests_is_whole),
		EACH(memory_is_aligned_apart_and_reused),
		EACH(a_batch_lives_without_its_owner_having_the_files),
		EACH(many_owners_share_a_pool),
		WITH(inline, inline_does_all_in_order_on_this_thread),
		WITH(threads, need_is_enough_while_another_hangs),
		WITH(threads, a_hung_request_keeps_its_memory_and_its_file),
		WITH(threads, a_slow_request_does_not_delay_the_others_of_a_serial_batch),
		WITH(threads, serial_does_all_that_is_fast_whatever_is_needed),
		WITH(threads, what_has_not_begun_at_the_end_never_begins),
		WITH(threads, hanging_threads_are_replaced_when_others_wait),
		WITH(threads, a_pool_goes_while_a_thread_of_it_hangs),
		WITH(uring, ring_reads_that_come_in_pieces_are_put_together),
		WITH(uring, ring_reads_wait_for_the_rest),
		WITH(uring, a_read_cut_short_on_a_ring_is_ended_by_a_thread),
		WITH(uring, a_ring_with_a_hung_read_is_put_aside_until_it_ends),
		WITH(uring, a_pool_goes_while_a_ring_of_it_hangs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
