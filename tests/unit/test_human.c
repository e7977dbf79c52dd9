/* Figures as people read them, at their edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/human.h"

static char t[SOP_HUMAN_TEXT];

static void sizes_carry_into_the_next_unit(void **state)
{
	(void)state;
	assert_string_equal(sop_human_size(t, 0), "0 B");
	assert_string_equal(sop_human_size(t, 1023), "1023 B");
	assert_string_equal(sop_human_size(t, 1024), "1.00 KiB");
	assert_string_equal(sop_human_size(t, 1048575), "1.00 MiB");
	assert_string_equal(sop_human_size(t, 412ull << 20), "412 MiB");
	assert_string_equal(sop_human_size(t, UINT64_MAX), "16.00 EiB");
	assert_string_equal(sop_human_brief(t, 1023), "1023B");
	assert_string_equal(sop_human_brief(t, 1536), "1.5K");
	assert_string_equal(sop_human_brief(t, 1023ull << 30), "1.0T");
	assert_string_equal(sop_human_brief(t, 76ull << 30), "76G");
	assert_string_equal(sop_human_brief(t, UINT64_MAX), "16E");
}

static void counts_have_commas(void **state)
{
	(void)state;
	assert_string_equal(sop_human_count(t, 0), "0");
	assert_string_equal(sop_human_count(t, 999), "999");
	assert_string_equal(sop_human_count(t, 1000), "1,000");
	assert_string_equal(sop_human_count(t, 1204331), "1,204,331");
	assert_string_equal(sop_human_count(t, UINT64_MAX), "18,446,744,073,709,551,615");
}

static void times(void **state)
{
	(void)state;
	assert_string_equal(sop_human_clock(t, 5), "0:05");
	assert_string_equal(sop_human_clock(t, 4782), "1:19:42");
	assert_string_equal(sop_human_duration(t, 59), "59s");
	assert_string_equal(sop_human_duration(t, 61), "1m 1s");
	assert_string_equal(sop_human_duration(t, 1047600), "12d 3h");
	assert_string_equal(sop_human_clock(t, UINT64_MAX), "5124095576030431:00:15");
	assert_string_equal(sop_human_rfc3339(t, (struct timespec){1795341928, 123456}),
		"2026-11-22T10:05:28.000123Z");
	assert_string_equal(
		sop_human_rfc3339(t, (struct timespec){0, 0}), "1970-01-01T00:00:00.000000Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_carry_into_the_next_unit),
		cmocka_unit_test(counts_have_commas),
		cmocka_unit_test(times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
