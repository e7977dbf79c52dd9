/* Who gets which version, where requests of several processes cross: by the order of the requests,
 * as a kernel would send them, and with real processes behind them, as the daemon looks at these.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "fs/names.h"
#include "fs/sopfs.h"
#include "fs/views.h"
#include "tests/lib/fixture.h"

struct mount;

/* What happens while a request looks the file up (linked with --wrap). */
static void (*meanwhile)(struct mount *m);
static struct mount *meanwhile_of;

int __real_sop_lookup(
	struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e);
int __wrap_sop_lookup(
	struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e);

int __wrap_sop_lookup(
	struct sop_txn *t, struct sop_name name, struct sop_attr *out, struct sop_err *e)
{
	void (*happens)(struct mount * m) = meanwhile;

	meanwhile = NULL;
	if (happens)
		happens(meanwhile_of);
	return __real_sop_lookup(t, name, out, e);
}

struct mount {
	struct fixture x;
	struct sopfs *f;
	int opener, stranger; /* processes that do nothing themselves */
};

static int process(void)
{
	int pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static int start(void **state, bool shared)
{
	static struct mount m;
	const struct sopfs_opts o = {0};

	m = (struct mount){0};
	if (shared)
		fixture_init_shared(&m.x, 2, 1);
	else
		fixture_init(&m.x, 1, 0, 48 << 20);
	/* No space comes back behind a test that has filled the volume. */
	m.x.opts.no_threads = !shared;
	fixture_ok(&m.x, fixture_open(&m.x));
	fixture_ok(&m.x, fixture_upsert(&m.x, SOP_ROOT, "file", "0123456789", 10, false));
	fixture_ok(&m.x, sopfs_new(&m.f, m.x.v, &o, &m.x.e));
	m.opener = process();
	m.stranger = process();
	*state = &m;
	return 0;
}

static int setup(void **state)
{
	return start(state, false);
}

static int setup_shared(void **state)
{
	return start(state, true);
}

static int teardown(void **state)
{
	struct mount *m = *state;

	kill(m->opener, SIGKILL);
	kill(m->stranger, SIGKILL);
	while (wait(NULL) > 0)
		;
	sopfs_free(m->f);
	fixture_settle(&m->x);
	fixture_release(&m->x);
	return 0;
}

/* The nodeid that the kernel has for the name now. */
static struct sopfs_view *walk(struct mount *m, int tid)
{
	struct sopfs_entry entry = {0};

	fixture_ok(&m->x, sopfs_lookup(m->f, tid, m->f->root, "file", &entry, &m->x.e));
	return entry.view;
}

static struct sopfs_handle *open_at(struct mount *m, int tid, struct sopfs_view *v, int flags)
{
	const struct sopfs_caller who = {.tid = tid};
	struct sopfs_opened out = {0};
	struct sopfs_notes notes = {0};

	fixture_ok(&m->x, sopfs_open(m->f, &who, v, flags, &out, &notes, &m->x.e));
	sopfs_notify_later(m->f, &notes);
	return out.handle;
}

static void close_by(struct mount *m, int tid, struct sopfs_handle *h)
{
	struct sopfs_notes notes = {0};

	fixture_ok(&m->x, sopfs_flush(m->f, h, tid, false, &notes, &m->x.e));
	sopfs_release(m->f, h, &notes);
	sopfs_notify_later(m->f, &notes);
}

static int truncate_at(struct mount *m, int tid, struct sopfs_view *v, uint64_t size)
{
	const struct sopfs_caller who = {.tid = tid};
	struct sopfs_notes notes = {0};
	int rc = sopfs_set_size(m->f, &who, v, NULL, size, &notes, &m->x.e);

	sopfs_notify_later(m->f, &notes);
	return rc;
}

static int stat_at(struct mount *m, int tid, struct sopfs_view *v, uint64_t *size)
{
	struct sopfs_notes notes = {0};
	struct sop_attr a = {0};
	bool cache;
	int rc = sopfs_getattr(m->f, tid, v, NULL, &a, &cache, &notes, &m->x.e);

	sopfs_notify_later(m->f, &notes);
	*size = a.size;
	return rc;
}

static uint64_t committed_size(struct mount *m)
{
	struct sop_attr a;

	fixture_ok(&m->x, sop_lookup(m->f->latest, SOP_NAME(SOP_ROOT, "file"), &a, &m->x.e));
	return a.size;
}

/* A stat that met a session leaves a reservation, and the truncation that comes next meets another:
 * by a path that was walked before. */
static void a_truncation_by_path_is_no_part_of_the_session_that_it_meets(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *first, *again;
	struct sopfs_handle *h;
	uint64_t size;

	first = walk(m, m->opener);
	h = open_at(m, m->opener, first, O_WRONLY);
	assert_int_equal(stat_at(m, m->stranger, first, &size), -ESTALE);
	again = walk(m, m->stranger);
	assert_ptr_not_equal(again, first);
	assert_int_equal(stat_at(m, m->stranger, again, &size), 0);
	assert_int_equal(size, 10);
	close_by(m, m->opener, h);

	first = walk(m, m->opener);
	h = open_at(m, m->opener, first, O_WRONLY);
	assert_int_equal(truncate_at(m, m->stranger, first, 5), -ESTALE);
	again = walk(m, m->stranger);
	assert_int_equal(truncate_at(m, m->stranger, again, 5), 0);
	assert_int_equal(committed_size(m), 5);
	assert_int_equal(truncate_at(m, m->stranger, walk(m, m->stranger), 4), 0);
	close_by(m, m->opener, h);
	assert_int_equal(committed_size(m), 4);
	assert_int_equal(stat_at(m, m->stranger, walk(m, m->stranger), &size), 0);
	assert_int_equal(size, 4);
}

/* A descriptor's entry in /proc leads to the session without a look-up, whoever asks: the kernel
 * takes the size that it is told for that of the session's pages. */
static void a_session_shows_no_other_size_than_its_own(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener);
	struct sopfs_handle *h = open_at(m, m->opener, v, O_RDWR);
	struct sopfs_notes notes = {0};
	uint64_t size;

	fixture_ok(&m->x, sopfs_session_truncate(m->f, h, 5000, &notes, &m->x.e));
	sopfs_notify_later(m->f, &notes);
	assert_int_equal(stat_at(m, m->stranger, v, &size), -ESTALE);
	assert_int_equal(stat_at(m, m->stranger, v, &size), 0);
	assert_int_equal(size, 5000);
	assert_int_equal(committed_size(m), 10);
	close_by(m, m->opener, h);
	assert_int_equal(committed_size(m), 5000);
}

struct late {
	struct mount *m;
	struct sopfs_view *v;
	int rc;
};

static void *truncate_late(void *arg)
{
	struct late *l = arg;

	l->rc = truncate_at(l->m, l->m->stranger, l->v, 4);
	return NULL;
}

static void wait_for_handle(struct mount *m, const struct sopfs_view *v)
{
	bool there = false;

	while (!there) {
		pthread_mutex_lock(&m->f->lock);
		there = v->handles > 0;
		pthread_mutex_unlock(&m->f->lock);
		sched_yield();
	}
}

/* A truncation has been let in, and before its turn comes another commits: the pages that the
 * nodeid has had are of neither of the two versions. */
static void a_nodeid_with_pages_of_an_older_version_does_not_become_the_committed_one(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener), *old;
	struct sopfs_handle *w = open_at(m, m->opener, v, O_WRONLY), *r;
	struct late late = {.m = m};
	struct sopfs_notes notes = {0};
	pthread_t thread;
	char buf[20];

	assert_int_equal(sopfs_write(m->f, w, m->opener, 0, "newer", 5, 0, &notes, &m->x.e), 5);
	late.v = old = walk(m, m->stranger);
	r = open_at(m, m->stranger, old, O_RDONLY);
	sopfs_note_paged(old);
	assert_int_equal(sopfs_read(m->f, r, buf, sizeof(buf), 0, &m->x.e), 10);
	close_by(m, m->stranger, r);

	pthread_mutex_lock(&old->item->lock);
	assert_int_equal(pthread_create(&thread, NULL, truncate_late, &late), 0);
	wait_for_handle(m, old);
	pthread_mutex_lock(&w->session->lock);
	fixture_ok(&m->x, sopfs_session_commit(m->f, w->session, &notes, &m->x.e));
	pthread_mutex_unlock(&w->session->lock);
	pthread_mutex_unlock(&old->item->lock);
	pthread_join(thread, NULL);
	sopfs_notify_later(m->f, &notes);

	assert_int_equal(late.rc, 0);
	assert_int_equal(committed_size(m), 4);
	assert_ptr_not_equal(walk(m, m->opener), old);
	close_by(m, m->opener, w);
}

/* The kernel thinks that the file ends where its own append did. */
static void an_append_behind_those_of_others_leaves_no_committed_nodeid(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener);
	struct sopfs_handle *a = open_at(m, m->opener, v, O_WRONLY | O_APPEND), *b;
	struct sopfs_notes notes = {0};

	assert_int_equal(sopfs_write(m->f, a, m->opener, 0, "a", 1, 10, &notes, &m->x.e), 1);
	close_by(m, m->opener, a);
	assert_ptr_equal(walk(m, m->opener), v);

	a = open_at(m, m->opener, v, O_WRONLY | O_APPEND);
	assert_int_equal(sopfs_write(m->f, a, m->opener, 0, "a", 1, 11, &notes, &m->x.e), 1);
	b = open_at(m, m->stranger, walk(m, m->stranger), O_WRONLY | O_APPEND);
	assert_int_equal(sopfs_write(m->f, b, m->stranger, 0, "b", 1, 11, &notes, &m->x.e), 1);
	close_by(m, m->stranger, b);
	close_by(m, m->opener, a);
	sopfs_notify_later(m->f, &notes);
	assert_int_equal(committed_size(m), 13);
	assert_ptr_not_equal(walk(m, m->opener), v);
}

/* Of the nodeid reserved for a second writer the kernel has heard one size, and when he opens it
 * the file has another: it stays his alone. If nothing came in between it becomes the committed
 * one. */
static void a_nodeid_of_another_size_than_was_told_does_not_become_the_committed_one(void **state)
{
	for (int between = 0; between < 2; between++) {
		struct mount *m = *state;
		struct sopfs_handle *r = open_at(m, m->opener, walk(m, m->opener), O_RDONLY), *w;
		struct sopfs_view *first = walk(m, m->opener), *v;
		struct sopfs_notes notes = {0};
		const struct sopfs_caller who = {.tid = m->stranger};
		struct sopfs_opened out;

		assert_int_equal(
			sopfs_open(m->f, &who, first, O_WRONLY, &out, &notes, &m->x.e), -ESTALE);
		v = walk(m, m->stranger);
		for (int rc = -ESTALE; between && rc;) {
			rc = truncate_at(m, m->opener, walk(m, m->opener), 20);
			assert_true(!rc || rc == -ESTALE);
		}
		w = open_at(m, m->stranger, v, O_WRONLY);
		sopfs_note_paged(v);
		assert_int_equal(
			sopfs_write(m->f, w, m->stranger, 0, "newer", 5, 0, &notes, &m->x.e), 5);
		close_by(m, m->stranger, w);
		sopfs_notify_later(m->f, &notes);
		assert_int_equal(walk(m, m->stranger) == v, !between);
		close_by(m, m->opener, r);
	}
}

static struct sopfs_handle *opened;

static void one_opens_it_and_another_commits(struct mount *m)
{
	struct sopfs_handle *other;
	struct sopfs_notes notes = {0};

	opened = open_at(m, m->opener, walk(m, m->opener), O_RDWR);
	other = open_at(m, m->stranger, walk(m, m->stranger), O_WRONLY);
	fixture_ok(&m->x, sopfs_session_truncate(m->f, other, 20, &notes, &m->x.e));
	sopfs_notify_later(m->f, &notes);
	close_by(m, m->stranger, other);
}

/* The kernel takes what a stat by an older path is told for the size of the session's pages. */
static void a_stat_that_a_session_overtakes_tells_nothing_of_others_commits(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener);
	uint64_t size;

	meanwhile_of = m;
	meanwhile = one_opens_it_and_another_commits;
	assert_int_equal(stat_at(m, m->stranger, v, &size), -ESTALE);
	assert_ptr_equal(opened->view, v);
	assert_int_equal(committed_size(m), 20);
	assert_int_equal(stat_at(m, m->opener, v, &size), 0);
	assert_int_equal(size, 10);
	close_by(m, m->opener, opened);
}

/* Others have committed since it began, and its own commit fails for want of space. */
static void what_failed_to_commit_is_not_taken_for_what_others_have_committed(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener);
	struct sopfs_handle *w = open_at(m, m->opener, v, O_WRONLY | O_TRUNC), *other;
	struct sopfs_notes notes = {0};
	static char fill[65536];
	unsigned n = 0;
	char key[16];
	int rc = 0;

	sopfs_note_paged(v);
	assert_int_equal(sopfs_write(m->f, w, m->opener, 0, "never was", 9, 0, &notes, &m->x.e), 9);
	other = open_at(m, m->stranger, walk(m, m->stranger), O_WRONLY);
	assert_int_equal(
		sopfs_write(m->f, other, m->stranger, 0, "newer", 5, 0, &notes, &m->x.e), 5);
	close_by(m, m->stranger, other);
	while (!rc) {
		snprintf(key, sizeof(key), "%u", n++);
		fill_random(fill, sizeof(fill), n);
		rc = fixture_upsert(&m->x, SOP_ROOT, key, fill, sizeof(fill), false);
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(sopfs_flush(m->f, w, m->opener, false, &notes, &m->x.e), -ENOSPC);
	assert_int_equal(sopfs_fsync(m->f, w, &notes, &m->x.e), -ENOSPC);
	sopfs_release(m->f, w, &notes);
	sopfs_notify_later(m->f, &notes);
	assert_int_equal(committed_size(m), 10);
	assert_ptr_not_equal(walk(m, m->opener), v);
}

/* Another mounter of the volume writes the file, and this one hears of it. */
static void write_elsewhere(void *arg, uint64_t lsn)
{
	struct mount *m = arg;
	const struct sop_txn_opts o = {.mode = SOP_TXN_WRITE};
	struct sop_volume *other;
	struct sop_txn *t;

	(void)lsn;
	fixture_ok(&m->x, sop_volume_open(&other, m->x.paths, m->x.disks, &m->x.opts, &m->x.e));
	fixture_ok(&m->x, sop_txn_begin(&t, other, &o, &m->x.e));
	fixture_ok(&m->x, sop_upsert(t, SOP_NAME(SOP_ROOT, "file"), "theirs", 6, &m->x.e));
	fixture_ok(&m->x, sop_txn_commit(t, 0, &m->x.e));
	fixture_ok(&m->x, sop_volume_close(other, &m->x.e));
	fixture_ok(&m->x, sop_volume_catch_up(m->x.v, &m->x.e));
}

static void what_others_commit_behind_it_is_not_taken_for_ones_own(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v = walk(m, m->opener);
	struct sopfs_handle *w = open_at(m, m->opener, v, O_WRONLY | O_TRUNC);
	struct sopfs_notes notes = {0};

	sopfs_note_paged(v);
	assert_int_equal(sopfs_write(m->f, w, m->opener, 0, "mine", 4, 0, &notes, &m->x.e), 4);
	fixture_ok(&m->x, sop_txn_on_commit(w->session->txn, write_elsewhere, m, &m->x.e));
	close_by(m, m->opener, w);
	assert_int_equal(committed_size(m), 6);
	assert_ptr_not_equal(walk(m, m->stranger), v);
}

static void wait_for(void *arg)
{
	sem_wait(arg);
}

static void wake(void *arg)
{
	sem_post(arg);
}

static struct sopfs_notes look_at(struct mount *m, struct sopfs_handle *h, uint64_t *size)
{
	struct sopfs_notes notes = {0};
	struct sop_attr a;
	bool cache;

	fixture_ok(&m->x, sopfs_getattr(m->f, m->opener, h->view, h, &a, &cache, &notes, &m->x.e));
	*size = a.size;
	return notes;
}

/* session=write: by a write of ours what another mounter has written became known, and the kernel
 * still has the pages of before. */
static void who_looks_waits_for_the_pages_that_a_write_has_found_old(void **state)
{
	struct mount *m = *state;
	struct sopfs_handle *h;
	struct sopfs_notes notes = {0};
	sem_t hold, held, seen;
	uint64_t size;
	bool waits, early;

	m->f->o.session_write = true;
	h = open_at(m, m->opener, walk(m, m->opener), O_RDWR);
	sopfs_note_paged(h->view);
	write_elsewhere(m, 0);
	assert_int_equal(sem_init(&hold, 0, 0) | sem_init(&held, 0, 0) | sem_init(&seen, 0, 0), 0);
	sopfs_notify_dropped(m->f, &notes, wake, &held); /* the thread that tells is held up */
	sopfs_notify_dropped(m->f, &notes, wait_for, &hold);
	sem_wait(&held);
	assert_int_equal(sopfs_write(m->f, h, m->opener, 0, "M", 1, 6, &notes, &m->x.e), 1);
	sopfs_notify_later(m->f, &notes);

	notes = look_at(m, h, &size);
	waits = notes.first;
	sopfs_notify_dropped(m->f, &notes, wake, &seen);
	early = sem_trywait(&seen) == 0;
	sem_post(&hold);
	sem_wait(&seen);
	assert_int_equal(size, 7);
	assert_true(waits && !early);
	assert_int_equal(h->view->item->dropping, 0);
	assert_null(look_at(m, h, &size).first);
	close_by(m, m->opener, h);
	sem_destroy(&hold);
	sem_destroy(&held);
	sem_destroy(&seen);
}

/* session=write, unlinked: its bytes are as good as those who have it open, and one that has come
 * by a descriptor's entry in /proc is none of them. */
static void who_changes_what_has_no_name_holds_on_to_it(void **state)
{
	struct mount *m = *state;
	struct sopfs_view *v;
	struct sopfs_handle *h;
	struct sopfs_session *orphan;
	struct sopfs_notes notes = {0};
	struct late late = {.m = m};
	unsigned refs = 0;
	pthread_t thread;

	m->f->o.session_write = true;
	late.v = v = walk(m, m->opener);
	h = open_at(m, m->opener, v, O_RDWR);
	fixture_ok(&m->x, sopfs_unlink(m->f, m->f->root, "file", &notes, &m->x.e));
	sopfs_notify_later(m->f, &notes);
	orphan = v->item->orphan;
	assert_non_null(orphan);

	pthread_mutex_lock(&orphan->lock);
	assert_int_equal(pthread_create(&thread, NULL, truncate_late, &late), 0);
	for (unsigned i = 0; refs < 2 && i < 2000; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		pthread_mutex_lock(&m->f->lock);
		refs = orphan->refs;
		pthread_mutex_unlock(&m->f->lock);
	}
	pthread_mutex_unlock(&orphan->lock);
	pthread_join(thread, NULL);
	assert_int_equal(refs, 2);
	assert_int_equal(late.rc, 0);
	close_by(m, m->opener, h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(a_truncation_by_path_is_no_part_of_the_session_that_it_meets),
		TEST(a_session_shows_no_other_size_than_its_own),
		TEST(a_nodeid_with_pages_of_an_older_version_does_not_become_the_committed_one),
		cmocka_unit_test_setup_teardown(
			what_others_commit_behind_it_is_not_taken_for_ones_own, setup_shared,
			teardown),
		cmocka_unit_test_setup_teardown(
			who_looks_waits_for_the_pages_that_a_write_has_found_old, setup_shared,
			teardown),
		TEST(who_changes_what_has_no_name_holds_on_to_it),
		TEST(what_failed_to_commit_is_not_taken_for_what_others_have_committed),
		TEST(a_stat_that_a_session_overtakes_tells_nothing_of_others_commits),
		TEST(an_append_behind_those_of_others_leaves_no_committed_nodeid),
		TEST(a_nodeid_of_another_size_than_was_told_does_not_become_the_committed_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
