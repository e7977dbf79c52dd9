/* A process that was stopped for longer than it waits for its disks takes the answers that came
 * meanwhile; one whose disk never answers goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "core/errand.h"
#include "core/patience.h"

#define TIMEOUT_MS 1600u

struct answer {
	struct sop_errand errand;
	int from; /* a pipe; -1: never */
};

static void answer_run(struct sop_errand *x)
{
	struct answer *a = (struct answer *)x;
	char c;

	if (a->from < 0)
		for (;;)
			pause();
	while (read(a->from, &c, 1) != 1)
		;
	usleep(200 * 1000); /* it stood still as well, and has a little left to do */
}

static void answer_release(struct sop_errand *x)
{
	free(x);
}

/* Did the answer come in time? */
static bool ask(int from)
{
	struct answer *a = calloc(1, sizeof(*a));
	struct sop_errand *x = &a->errand;
	bool came;

	a->from = from;
	sop_errand_init(x, answer_run, answer_release);
	sop_errands_run(&x, 1, true, TIMEOUT_MS);
	came = x->finished;
	sop_errand_put(x);
	return came;
}

static void what_came_while_it_stood_still_counts(void **state)
{
	int answer[2], status;
	siginfo_t info;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(answer), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		_exit(ask(answer[0]) ? 0 : 1);
	}
	usleep(100 * 1000); /* it may have begun to wait: either way it has to end well */
	kill(pid, SIGSTOP);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WSTOPPED), 0);
	usleep(2 * TIMEOUT_MS * 1000);
	assert_int_equal(write(answer[1], "x", 1), 1);
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(answer[0]);
	close(answer[1]);
}

static void who_never_answers_is_not_waited_for_longer(void **state)
{
	(void)state;
	assert_false(ask(-1));
}

static void time_that_passes_counts_and_no_more_than_a_slice(void **state)
{
	struct sop_patience p = sop_patience(0);
	unsigned slices = 0;

	(void)state;
	assert_int_equal(sop_patience_slice(&p), 0);
	/* None is longer than is left, and they come to an end. */
	p = sop_patience(100);
	for (uint64_t ms, left = 100; (ms = sop_patience_slice(&p)); slices++) {
		assert_true(ms <= p.left_ms && p.left_ms <= left);
		left = p.left_ms;
		usleep(20 * 1000); /* longer than a slice: it counts as one */
	}
	assert_int_equal(slices, 100 / 7 + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_that_passes_counts_and_no_more_than_a_slice),
		cmocka_unit_test(what_came_while_it_stood_still_counts),
		cmocka_unit_test(who_never_answers_is_not_waited_for_longer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
