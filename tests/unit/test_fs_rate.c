/* Storms of lines to the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/rate.h"

static unsigned passed(struct sopfs_rate *r, time_t now, const char *module, unsigned n)
{
	unsigned told, out = 0;

	for (unsigned i = 0; i < n; i++)
		out += sopfs_rate_pass(r, now, 0, module, &told);
	return out;
}

static void a_storm_is_cut_and_counted(void **state)
{
	struct sopfs_rate r = {0};
	unsigned told;

	(void)state;
	assert_int_equal(passed(&r, 100, "session", SOPFS_RATE_LINES), SOPFS_RATE_LINES);
	assert_int_equal(passed(&r, 100, "session", 5000), 0);
	/* Told with the next line that goes out, once; and the allowance is whole again. */
	assert_true(sopfs_rate_pass(&r, 101, 0, "session", &told));
	assert_int_equal(told, 5000);
	assert_true(sopfs_rate_pass(&r, 102, 0, "session", &told));
	assert_int_equal(told, 0);
	assert_int_equal(passed(&r, 103, "session", 5000), SOPFS_RATE_LINES);
}

static void other_lines_pass_in_a_storm(void **state)
{
	struct sopfs_rate r = {0};
	unsigned told;

	(void)state;
	(void)passed(&r, 7, "session", 5000);
	assert_true(sopfs_rate_pass(&r, 7, 0, "disk", &told));
	assert_true(sopfs_rate_pass(&r, 7, 1, "session", &told));
}

static void what_is_left_out_last_can_be_told_at_the_end(void **state)
{
	struct sopfs_rate r = {0};

	(void)state;
	(void)passed(&r, 7, "session", SOPFS_RATE_LINES + 3);
	assert_int_equal(sopfs_rate_rest(&r), 3);
	assert_int_equal(sopfs_rate_rest(&r), 0);
}

/* A clock that is set back must not silence the log. */
static void a_clock_that_is_set_back_begins_anew(void **state)
{
	struct sopfs_rate r = {0};

	(void)state;
	(void)passed(&r, 1000, "session", 5000);
	assert_int_equal(passed(&r, 10, "session", 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_storm_is_cut_and_counted),
		cmocka_unit_test(other_lines_pass_in_a_storm),
		cmocka_unit_test(what_is_left_out_last_can_be_told_at_the_end),
		cmocka_unit_test(a_clock_that_is_set_back_begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
