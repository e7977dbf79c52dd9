/* The tests of the rank check need a build with SOP_DEBUG_LOCKS, and are skipped without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "core/clock.h"
#include "core/lock.h"

#define THREADS 4
#define ROUNDS	20000

struct shared {
	struct sop_lock lock;
	pthread_cond_t changed;
	long value;
	bool flag;
};

static void shared_init(struct shared *s)
{
	memset(s, 0, sizeof(*s));
	sop_lock_init(&s->lock, SOP_RANK_LEAF, "shared");
	sop_cond_init(&s->changed);
}

static void shared_release(struct shared *s)
{
	pthread_cond_destroy(&s->changed);
	sop_lock_release(&s->lock);
}

static void *count_up(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < ROUNDS; i++) {
		SOP_LOCK_GUARD(&s->lock);
		s->value++;
	}
	return NULL;
}

static void threads_exclude_each_other(void **state)
{
	struct shared s;
	pthread_t t[THREADS];

	(void)state;
	shared_init(&s);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, count_up, &s), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(s.value, THREADS * ROUNDS);
	shared_release(&s);
}

static int leave_early(struct shared *s, bool early)
{
	SOP_LOCK_GUARD(&s->lock);
	if (early)
		return 1;
	s->value++;
	return 2;
}

static void a_guard_lets_go_at_every_way_out(void **state)
{
	struct shared s;

	(void)state;
	shared_init(&s);
	assert_int_equal(leave_early(&s, true), 1);
	assert_int_equal(pthread_mutex_trylock(&s.lock.mutex), 0);
	pthread_mutex_unlock(&s.lock.mutex);
	assert_int_equal(leave_early(&s, false), 2);
	assert_int_equal(pthread_mutex_trylock(&s.lock.mutex), 0);
	pthread_mutex_unlock(&s.lock.mutex);
	shared_release(&s);
}

static void *set_flag(void *arg)
{
	struct shared *s = arg;

	sop_lock(&s->lock);
	s->flag = true;
	sop_unlock(&s->lock);
	pthread_cond_signal(&s->changed);
	return NULL;
}

static void a_wait_ends_with_the_event(void **state)
{
	struct shared s;
	pthread_t t;

	(void)state;
	shared_init(&s);
	sop_lock(&s.lock);
	assert_int_equal(pthread_create(&t, NULL, set_flag, &s), 0);
	while (!s.flag)
		assert_true(sop_cond_wait(&s.changed, &s.lock, -1));
	sop_unlock(&s.lock);
	pthread_join(t, NULL);
	shared_release(&s);
}

static void a_wait_ends_with_its_bound_and_holds_the_lock_again(void **state)
{
	const struct sop_clock *c = &sop_clock_system;
	uint64_t begin = c->monotonic_ms(c->ctx);
	struct shared s;

	(void)state;
	shared_init(&s);
	sop_lock(&s.lock);
	while (sop_cond_wait(&s.changed, &s.lock, 20))
		;
	assert_true(c->monotonic_ms(c->ctx) - begin >= 19);
	assert_int_equal(pthread_mutex_trylock(&s.lock.mutex), EBUSY);
	sop_unlock(&s.lock);
	shared_release(&s);
}

static void the_system_clocks_go_on(void **state)
{
	const struct sop_clock *c = &sop_clock_system;
	uint64_t mono = c->monotonic_ms(c->ctx);

	(void)state;
	assert_true(c->wall_ns(c->ctx) > (uint64_t)1600000000 * 1000000000);
	assert_true(c->monotonic_ms(c->ctx) >= mono);
}

static struct sop_lock outer, inner, inner_too;

static void take_in_rising_rank(void)
{
	sop_lock(&outer);
	sop_lock(&inner);
	sop_unlock(&outer); /* any order */
	sop_unlock(&inner);
	sop_lock(&outer);
	sop_unlock(&outer);
}

#ifdef SOP_DEBUG_LOCKS

static void take_in_falling_rank(void)
{
	sop_lock(&inner);
	sop_lock(&outer);
}

static void take_two_of_one_rank(void)
{
	sop_lock(&inner);
	sop_lock(&inner_too);
}

static void drop_what_is_not_held(void)
{
	sop_lock(&inner);
	pthread_mutex_lock(&outer.mutex);
	sop_unlock(&outer);
}

static void wait_with_an_inner_lock(void)
{
	pthread_cond_t c;

	sop_cond_init(&c);
	sop_lock(&outer);
	sop_lock(&inner);
	sop_cond_wait(&c, &outer, 1);
}

/* The signal fn ends with in a process of its own, 0 when it comes back; what it says goes to text.
 */
static int run_apart(void (*fn)(void), char *text, size_t len)
{
	int fds[2], status = 0;
	size_t got = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = {0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		dup2(fds[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (got < len - 1 && (n = read(fds[0], text + got, len - 1 - got)) > 0)
		got += (size_t)n;
	text[got] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void a_lock_out_of_order_aborts_with_both_names(void **state)
{
	char text[4096];

	(void)state;
	assert_int_equal(run_apart(take_in_rising_rank, text, sizeof(text)), 0);
	assert_int_equal(run_apart(take_in_falling_rank, text, sizeof(text)), SIGABRT);
	assert_non_null(strstr(text, "the-outer"));
	assert_non_null(strstr(text, "the-inner"));
	assert_int_equal(run_apart(take_two_of_one_rank, text, sizeof(text)), SIGABRT);
	assert_non_null(strstr(text, "the-inner"));
	assert_non_null(strstr(text, "its-twin"));
	assert_int_equal(run_apart(drop_what_is_not_held, text, sizeof(text)), SIGABRT);
	assert_int_equal(run_apart(wait_with_an_inner_lock, text, sizeof(text)), SIGABRT);
}

#else

static void a_lock_out_of_order_aborts_with_both_names(void **state)
{
	(void)state;
	take_in_rising_rank();
	skip();
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_exclude_each_other),
		cmocka_unit_test(a_guard_lets_go_at_every_way_out),
		cmocka_unit_test(a_wait_ends_with_the_event),
		cmocka_unit_test(a_wait_ends_with_its_bound_and_holds_the_lock_again),
		cmocka_unit_test(the_system_clocks_go_on),
		cmocka_unit_test(a_lock_out_of_order_aborts_with_both_names),
	};

	sop_lock_init(&outer, SOP_RANK_JOURNAL, "the-outer");
	sop_lock_init(&inner, SOP_RANK_SPACE, "the-inner");
	sop_lock_init(&inner_too, SOP_RANK_SPACE, "its-twin");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
