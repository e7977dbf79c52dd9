#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <ftw.h>
#include <liburing.h>
#include <sys/stat.h>

#include "core/format_volume.h"
#include "tests/lib/world.h"

static void make_folders(struct world *w, unsigned k, unsigned m)
{
	struct sop_format_opts fo = {.k = k, .m = m, .force = true};
	const char *tmp = getenv("TMPDIR");

	snprintf(w->root, sizeof(w->root), "%s/sopworld.XXXXXX",
		tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(w->root));
	for (unsigned i = 0; i < w->disks; i++) {
		snprintf(w->path[i], sizeof(w->path[i]), "%s/d%u", w->root, i + 1);
		w->paths[i] = w->path[i];
		assert_int_equal(mkdir(w->path[i], 0700), 0);
	}
	if (sop_format(w->paths, w->disks, &fo, NULL, &w->f.e))
		fail_msg("format: %s", w->f.e.text);
	w->f.opts = (struct sop_open_opts){.cache_bytes = 16 << 20};
}

static void make_sim(struct world *w, unsigned k, unsigned m)
{
	struct sop_format_opts fo = {.k = k, .m = m, .force = true, .open_disk = sim_open_disk};

	w->f.sim = sim_new(1);
	for (unsigned i = 0; i < w->disks; i++) {
		snprintf(w->path[i], sizeof(w->path[i]), "/d%u", i + 1);
		w->paths[i] = w->path[i];
		sim_add_disk(w->f.sim, w->path[i], 0);
	}
	fo.open_disk_ctx = w->f.sim;
	if (sop_format(w->paths, w->disks, &fo, NULL, &w->f.e))
		fail_msg("format: %s", w->f.e.text);
	w->f.opts = (struct sop_open_opts){
		.open_disk = sim_open_disk, .open_disk_ctx = w->f.sim, .cache_bytes = 16 << 20};
}

/* NO_URING=1: threads read instead, as in a kernel without it. Valgrind does not see what the
 * kernel has put there, and calls it never set. */
int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	struct io_uring_params p = {.flags = flags};

	return getenv("NO_URING") ? -ENOSYS : io_uring_queue_init_params(entries, ring, &p);
}

void world_open(struct world *w)
{
	memset(&w->f.e, 0, sizeof(w->f.e));
	if (sop_volume_open(&w->f.v, w->paths, w->disks, &w->f.opts, &w->f.e))
		fail_msg("open: %s", w->f.e.text);
}

void world_close(struct world *w)
{
	fixture_ok(&w->f, fixture_close(&w->f));
}

void world_init(struct world *w, bool folders, unsigned k, unsigned m, unsigned more)
{
	memset(w, 0, sizeof(*w));
	w->folders = folders;
	w->disks = k + m + more;
	assert_true(w->disks <= WORLD_DISKS);
	if (folders)
		make_folders(w, k, m);
	else
		make_sim(w, k, m);
	w->f.opts.clock = &fixture_clock;
	world_open(w);
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *ftw)
{
	(void)st;
	(void)what;
	(void)ftw;
	return remove(path);
}

void world_release(struct world *w)
{
	if (w->f.v)
		sop_volume_close(w->f.v, NULL);
	w->f.v = NULL;
	if (w->folders)
		nftw(w->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	else
		sim_free(w->f.sim);
}

static void report(void *arg, const char *line)
{
	(void)arg;
	print_error("check: %s\n", line);
}

/* Disks that have missed something are brought up to date in the background. */
static bool healing(struct world *w)
{
	struct sop_volume_disk d;

	for (unsigned i = 0; sop_volume_disk(w->f.v, i, &d); i++)
		if (d.state == SOP_DISK_HEALING)
			return true;
	return false;
}

void world_settle(struct world *w)
{
	struct sop_check_report r;
	int rc = 0;

	for (unsigned i = 0; i < 6000 && healing(w); i++)
		usleep(10000);
	if (healing(w)) {
		struct sop_task task;

		for (unsigned i = 0; sop_volume_task(w->f.v, i, &task); i++)
			print_error("%s of disk %d: %s, %llu of %llu bytes: %s\n",
				sop_task_kind_name(task.kind), task.disk,
				sop_task_state_name(task.state),
				(unsigned long long)task.bytes_done,
				(unsigned long long)task.bytes_total, task.message);
		fail_msg("healing does not end");
	}

	for (unsigned i = 0; i < 3 && !rc; i++)
		rc = sop_volume_tick(w->f.v, &w->f.e);
	if (!rc)
		rc = sop_volume_check(w->f.v, true, report, NULL, &r, &w->f.e);
	fixture_ok(&w->f, rc);
	assert_int_equal(r.errors, 0);
	assert_int_equal(r.leaked_bytes, 0);
}

bool need(struct actor *a, bool what, const char *text)
{
	if (!what && !atomic_fetch_add(&a->w->wrong, 1))
		fprintf(stderr, "actor %u: %s (last message: %s)\n", a->id, text, a->e.text);
	return what;
}

bool fine(struct actor *a, int rc, const char *text)
{
	if (rc < 0 && !atomic_fetch_add(&a->w->wrong, 1))
		fprintf(stderr, "actor %u: %s: %s: %s\n", a->id, text, sop_err_name(rc), a->e.text);
	return rc >= 0;
}

struct sop_txn *actor_begin(struct actor *a, enum sop_txn_mode mode)
{
	/* However slow the machine is. */
	const struct sop_txn_opts o = {.mode = mode, .timeout_ms = SOP_TXN_UNBOUNDED};
	struct sop_txn *t = NULL;

	fine(a, sop_txn_begin(&t, a->w->f.v, &o, &a->e), "begin");
	return t;
}

struct make {
	const char *path;
	const struct sop_store_opts *o;
	uint64_t store;
};

static int make_store(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct make *m = arg;

	return sop_store_at(t, m->path, SOP_STORE_CREATE, m->o, &m->store, e);
}

uint64_t actor_store(struct actor *a, const char *path, const struct sop_store_opts *o)
{
	struct make m = {path, o, 0};

	return fine(a,
		       sop_txn_run(a->w->f.v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 200, 0,
			       make_store, &m, &a->e),
		       path)
		       ? m.store
		       : 0;
}

uint64_t actor_count(struct actor *a, uint64_t store)
{
	uint64_t n = UINT64_MAX;

	fine(a, sop_count(sop_volume_latest(a->w->f.v), store, &n, &a->e), "count");
	return n;
}

struct seat {
	struct actor a;
	void (*fn)(struct actor *a);
	pthread_t thread;
};

static void *seat_run(void *arg)
{
	struct seat *s = arg;

	s->fn(&s->a);
	return NULL;
}

void world_run(struct world *w, unsigned n, void (*fn)(struct actor *a), void *arg)
{
	struct seat s[WORLD_THREADS];

	assert_true(n <= WORLD_THREADS);
	memset(s, 0, sizeof(s));
	for (unsigned i = 0; i < n; i++) {
		s[i].a = (struct actor){.w = w, .id = i, .rng = i + 1, .arg = arg};
		s[i].fn = fn;
		assert_int_equal(pthread_create(&s[i].thread, NULL, seat_run, &s[i]), 0);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(s[i].thread, NULL);
	assert_int_equal(w->wrong, 0);
}
