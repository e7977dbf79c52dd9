/* Locks of one item: ranges that split, join and conflict; compared with an array of bytes. And who
 * waits for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fs/locks.h"
#include "fs/session.h"

#define BYTES  40
#define OWNERS 3

static struct sopfs_lock lock(uint64_t owner, short type, uint64_t start, uint64_t end)
{
	return (struct sopfs_lock){.owner = owner, .type = type, .start = start, .end = end};
}

static void random_locks_agree_with_a_map_of_bytes(void **state)
{
	struct sopfs_locks *l = sopfs_locks_new();
	short map[OWNERS][BYTES];
	unsigned seed = 4711;

	(void)state;
	for (int o = 0; o < OWNERS; o++)
		for (int b = 0; b < BYTES; b++)
			map[o][b] = F_UNLCK;
	for (int step = 0; step < 20000; step++) {
		const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
		unsigned a, b, o, t;
		bool blocked = false;
		struct sopfs_lock want;

		seed = seed * 1103515245u + 12345u;
		a = (seed >> 8) % BYTES;
		seed = seed * 1103515245u + 12345u;
		b = a + (seed >> 8) % (BYTES - a);
		seed = seed * 1103515245u + 12345u;
		o = (seed >> 8) % OWNERS;
		t = (seed >> 16) % 3;
		want = lock(o, types[t], a, b);
		for (unsigned other = 0; other < OWNERS; other++)
			for (unsigned i = a; other != o && i <= b; i++)
				blocked = blocked ||
					  (types[t] == F_WRLCK && map[other][i] != F_UNLCK) ||
					  (types[t] == F_RDLCK && map[other][i] == F_WRLCK);
		assert_int_equal(sopfs_locks_blocked(l, &want, NULL), blocked);
		if (blocked)
			continue;
		assert_int_equal(sopfs_locks_put(l, &want), 0);
		for (unsigned i = a; i <= b; i++)
			map[o][i] = types[t];
	}
	for (uint64_t o = 0; o < OWNERS; o++) {
		struct sopfs_lock all = lock(o, F_UNLCK, 0, UINT64_MAX);

		assert_int_equal(sopfs_locks_put(l, &all), 0);
	}
	assert_int_equal(sopfs_locks_count(l), 0);
	sopfs_locks_free(l);
}

static void neighbours_of_one_kind_are_one_lock(void **state)
{
	struct sopfs_locks *l = sopfs_locks_new();

	(void)state;
	for (uint64_t i = 0; i < 100; i++) {
		struct sopfs_lock one = lock(1, F_WRLCK, i * 10, i * 10 + 9);

		assert_int_equal(sopfs_locks_put(l, &one), 0);
	}
	assert_int_equal(sopfs_locks_count(l), 1);
	sopfs_locks_free(l);
}

static void flock_and_fcntl_do_not_see_each_other(void **state)
{
	struct sopfs_locks *l = sopfs_locks_new();
	struct sopfs_lock whole = lock(1, F_WRLCK, 0, UINT64_MAX), range = lock(2, F_WRLCK, 0, 9),
			  by;

	(void)state;
	whole.whole = true;
	assert_int_equal(sopfs_locks_put(l, &whole), 0);
	assert_false(sopfs_locks_blocked(l, &range, NULL));
	range.whole = true;
	assert_true(sopfs_locks_blocked(l, &range, &by));
	assert_int_equal(by.owner, 1);
	sopfs_locks_free(l);
}

static void what_was_taken_by_a_handle_goes_with_it(void **state)
{
	struct sopfs_locks *l = sopfs_locks_new();
	struct sopfs_lock a = lock(1, F_RDLCK, 0, 9), b = lock(1, F_RDLCK, 20, 29),
			  c = lock(2, F_RDLCK, 0, 9), d = lock(2, F_RDLCK, 0, UINT64_MAX);
	char handles[2];
	struct sopfs_handle *x = (void *)&handles[0], *y = (void *)&handles[1];

	(void)state;
	/* With an fcntl lock all of its owner go; of flock that of the handle alone. */
	a.handle = x;
	b.handle = c.handle = y;
	d.handle = x;
	d.whole = true;
	assert_int_equal(sopfs_locks_put(l, &a), 0);
	assert_int_equal(sopfs_locks_put(l, &b), 0);
	assert_int_equal(sopfs_locks_put(l, &c), 0);
	assert_int_equal(sopfs_locks_put(l, &d), 0);
	sopfs_locks_drop_handle(l, x);
	assert_int_equal(sopfs_locks_count(l), 1);
	a.owner = 3;
	a.type = F_WRLCK;
	assert_true(sopfs_locks_blocked(l, &a, &b));
	assert_int_equal(b.owner, 2);
	sopfs_locks_free(l);
}

static void the_lock_in_the_way_that_begins_first_is_named(void **state)
{
	struct sopfs_locks *l = sopfs_locks_new();
	struct sopfs_lock a = lock(1, F_WRLCK, 30, 39), b = lock(1, F_RDLCK, 10, 19),
			  want = lock(2, F_WRLCK, 0, 99), by;

	(void)state;
	assert_int_equal(sopfs_locks_put(l, &a), 0);
	assert_int_equal(sopfs_locks_put(l, &b), 0);
	assert_true(sopfs_locks_blocked(l, &want, &by));
	assert_int_equal(by.start, 10);
	want.type = F_RDLCK;
	assert_true(sopfs_locks_blocked(l, &want, &by));
	assert_int_equal(by.start, 30);
	sopfs_locks_free(l);
}

/* ---- waiting ---- */

struct mount {
	struct sopfs f;
	struct sopfs_item item;
	struct sopfs_handle handle[2];
	char world; /* locks are the mount's own */
};

static int mount_setup(void **state)
{
	struct mount *m = calloc(1, sizeof(*m));

	m->f.world = (void *)&m->world;
	pthread_mutex_init(&m->f.locks_lock, NULL);
	*state = m;
	return 0;
}

static int mount_teardown(void **state)
{
	struct mount *m = *state;

	pthread_mutex_destroy(&m->f.locks_lock);
	sopfs_locks_free(m->item.locks);
	free(m);
	return 0;
}

static struct sopfs_lock by_handle(
	struct mount *m, unsigned handle, uint64_t owner, short type, uint64_t start, uint64_t end)
{
	struct sopfs_lock l = lock(owner, type, start, end);

	l.handle = &m->handle[handle];
	return l;
}

struct waiting {
	struct mount *m;
	struct sopfs_waiter *waiter;
	struct waiting *interrupts; /* once it is let in itself */
	int rc, calls;
};

static void waiting_done(void *arg, int rc)
{
	struct waiting *x = arg;

	x->rc = rc;
	x->calls++;
	if (x->interrupts)
		sopfs_lock_interrupt(&x->m->f, x->interrupts->waiter);
}

static void waits(struct waiting *x, struct mount *m, const struct sopfs_lock *want)
{
	*x = (struct waiting){.m = m};
	x->waiter = sopfs_waiter_new(waiting_done, x);
	assert_non_null(x->waiter);
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, want, x->waiter), -EINPROGRESS);
}

/* A signal that comes when the lock has been granted comes too late: it is held, and who was let in
 * along with it is told so. */
static void an_interrupt_of_who_has_been_let_in_changes_nothing(void **state)
{
	struct mount *m = *state;
	struct sopfs_lock l = by_handle(m, 0, 1, F_WRLCK, 0, 9);
	struct waiting x[3];

	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct sopfs_lock want = by_handle(m, 1, 2 + i, F_RDLCK, 0, 9);

		waits(&x[i], m, &want);
	}
	x[0].interrupts = &x[1];
	l.type = F_UNLCK;
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(x[i].calls, 1);
		assert_int_equal(x[i].rc, 0);
		sopfs_waiter_free(x[i].waiter);
	}
	assert_int_equal(sopfs_locks_count(m->item.locks), 3);
}

static void an_interrupted_wait_is_none(void **state)
{
	struct mount *m = *state;
	struct sopfs_lock l = by_handle(m, 0, 1, F_WRLCK, 0, 9),
			  want = by_handle(m, 1, 2, F_WRLCK, 5, 5);
	struct waiting x, y;

	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	waits(&x, m, &want);
	want.owner = 3;
	waits(&y, m, &want);
	sopfs_lock_interrupt(&m->f, x.waiter);
	assert_int_equal(x.calls, 1);
	assert_int_equal(x.rc, -EINTR);
	l.type = F_UNLCK;
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	assert_int_equal(x.calls, 1);
	assert_int_equal(y.calls, 1);
	assert_int_equal(y.rc, 0);
	assert_int_equal(sopfs_locks_count(m->item.locks), 1);
	sopfs_waiter_free(x.waiter);
	sopfs_waiter_free(y.waiter);
}

/* A process closes a descriptor whose close is not told. Whoever finds that out, and whatever he
 * was after, lets in who waits for its lock. */
static void who_finds_out_that_a_lock_has_ended_lets_others_in(void **state)
{
	struct mount *m = *state;
	struct sopfs_lock quiet = by_handle(m, 0, 1, F_WRLCK, 0, 9),
			  loud = by_handle(m, 1, 2, F_WRLCK, 20, 29),
			  want = by_handle(m, 1, 3, F_WRLCK, 0, 9), by;
	struct waiting x;
	struct stat st;

	for (unsigned how = 0; how < 2; how++) {
		int fd = memfd_create("quiet", MFD_CLOEXEC);

		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		m->item.ino = st.st_ino;
		m->item.quiet = 1;
		quiet.pid = quiet.tid = getpid();
		assert_int_equal(sopfs_lock_set(&m->f, &m->item, &quiet, NULL), 0);
		assert_int_equal(sopfs_lock_set(&m->f, &m->item, &loud, NULL), 0);
		waits(&x, m, &want);
		close(fd);
		loud.owner = 4;
		if (how)
			assert_true(sopfs_lock_get(&m->f, &m->item, &loud, &by));
		else
			assert_int_equal(sopfs_lock_set(&m->f, &m->item, &loud, NULL), -EAGAIN);
		loud.owner = 2;
		assert_int_equal(x.calls, 1);
		assert_int_equal(x.rc, 0);
		sopfs_waiter_free(x.waiter);
		sopfs_lock_drop_handle(&m->f, &m->item, &m->handle[0]);
		sopfs_lock_drop_handle(&m->f, &m->item, &m->handle[1]);
		assert_int_equal(sopfs_locks_count(m->item.locks), 0);
	}
}

/* A descriptor whose close is not told is closed while its process waits: that is none of a lock
 * that it has got since. */
static void a_close_during_the_wait_takes_nothing_away(void **state)
{
	struct mount *m = *state;
	struct sopfs_lock l = by_handle(m, 0, 1, F_WRLCK, 0, 9),
			  want = by_handle(m, 1, 2, F_WRLCK, 0, 9);
	int fd = memfd_create("quiet", MFD_CLOEXEC), copy = dup(fd);
	struct waiting x;
	struct stat st;

	assert_true(fd >= 0 && copy >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	m->item.ino = st.st_ino;
	m->item.quiet = 1;
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	want.pid = want.tid = getpid();
	waits(&x, m, &want);
	close(copy);
	l.type = F_UNLCK;
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	assert_int_equal(x.calls, 1);
	l.type = F_WRLCK;
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), -EAGAIN);
	/* But a later close is. */
	close(fd);
	assert_int_equal(sopfs_lock_set(&m->f, &m->item, &l, NULL), 0);
	sopfs_waiter_free(x.waiter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_locks_agree_with_a_map_of_bytes),
		cmocka_unit_test(neighbours_of_one_kind_are_one_lock),
		cmocka_unit_test(flock_and_fcntl_do_not_see_each_other),
		cmocka_unit_test(what_was_taken_by_a_handle_goes_with_it),
		cmocka_unit_test(the_lock_in_the_way_that_begins_first_is_named),
		cmocka_unit_test_setup_teardown(an_interrupt_of_who_has_been_let_in_changes_nothing,
			mount_setup, mount_teardown),
		cmocka_unit_test_setup_teardown(
			an_interrupted_wait_is_none, mount_setup, mount_teardown),
		cmocka_unit_test_setup_teardown(
			a_close_during_the_wait_takes_nothing_away, mount_setup, mount_teardown),
		cmocka_unit_test_setup_teardown(who_finds_out_that_a_lock_has_ended_lets_others_in,
			mount_setup, mount_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
