#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/err.h"
#include "core/log.h"

static void fail_says_object_trouble_and_meaning(void **state)
{
	struct sop_err e = {0};

	(void)state;
	assert_int_equal(sop_fail(&e, -ENOENT, "disk d%d: label", 1), -ENOENT);
	assert_int_equal(e.code, -ENOENT);
	assert_string_equal(e.text, "disk d1: label: No such file or directory");
}

static void say_leaves_the_message_alone(void **state)
{
	struct sop_err e = {0};

	(void)state;
	assert_int_equal(sop_say(&e, SOP_EFOREIGN, "/srv/d2: belongs to another"), SOP_EFOREIGN);
	assert_int_equal(e.code, SOP_EFOREIGN);
	assert_string_equal(e.text, "/srv/d2: belongs to another");
}

static void wrap_puts_the_place_before_the_message(void **state)
{
	struct sop_err e = {0};

	(void)state;
	sop_fail(&e, SOP_ECORRUPT, "label");
	assert_int_equal(sop_wrap(&e, SOP_ECORRUPT, "disk %s", "d1"), SOP_ECORRUPT);
	assert_string_equal(e.text, "disk d1: label: a checksum or structure does not verify");
}

static void wrap_may_change_the_code_and_keeps_the_text(void **state)
{
	struct sop_err e = {0};

	(void)state;
	sop_say(&e, -EIO, "shard 3 unreadable");
	assert_int_equal(sop_wrap(&e, SOP_ELOST, "blob"), SOP_ELOST);
	assert_int_equal(e.code, SOP_ELOST);
	assert_string_equal(e.text, "blob: shard 3 unreadable");
}

static void wrap_without_a_message_gives_the_meaning(void **state)
{
	struct sop_err e = {0};

	(void)state;
	sop_wrap(&e, -EIO, "disk d1");
	assert_string_equal(e.text, "disk d1: Input/output error");
}

static void a_message_may_quote_the_one_before(void **state)
{
	struct sop_err e = {0};

	(void)state;
	sop_say(&e, -EIO, "first");
	sop_say(&e, -EIO, "again (%s)", e.text);
	assert_string_equal(e.text, "again (first)");
	sop_wrap(&e, -EIO, "<%s>", e.text);
	assert_string_equal(e.text, "<again (first)>: again (first)");
}

static void a_long_place_does_not_push_out_what_failed(void **state)
{
	struct sop_err e = {0};
	char place[2 * SOP_ERR_TEXT];

	(void)state;
	memset(place, 'x', sizeof(place) - 1);
	place[sizeof(place) - 1] = '\0';
	sop_fail(&e, -ENOSPC, "%s", place);
	assert_int_equal(strlen(e.text), SOP_ERR_TEXT - 1);
	assert_non_null(strstr(e.text, ": No space left on device"));
	for (int i = 0; i < 3; i++)
		sop_wrap(&e, -ENOSPC, "%s", place);
	assert_int_equal(strlen(e.text), SOP_ERR_TEXT - 1);
	assert_non_null(strstr(e.text, ": No space left on device"));
}

static void without_a_struct_the_code_comes_back(void **state)
{
	(void)state;
	assert_int_equal(sop_fail(NULL, -EIO, "%d", 1), -EIO);
	assert_int_equal(sop_say(NULL, SOP_EDEAD, "x"), SOP_EDEAD);
	assert_int_equal(sop_wrap(NULL, SOP_ELOST, "x"), SOP_ELOST);
}

static void every_code_has_a_name_a_text_and_an_errno(void **state)
{
	static const int codes[] = {
#define X(name, value, number, text) value,
		SOP_ERRORS(X)
#undef X
	};

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(codes); i++) {
		assert_true(strncmp(sop_err_name(codes[i]), "SOP_E", 5) == 0);
		assert_true(strlen(sop_err_text(codes[i])) > 5);
		assert_true(sop_err_errno(codes[i]) > 0);
	}
	assert_string_equal(sop_err_name(SOP_ELOST), "SOP_ELOST");
	assert_int_equal(sop_err_errno(SOP_EDEAD), EROFS);
	assert_string_equal(sop_err_name(-ENOENT), "ENOENT");
	assert_int_equal(sop_err_errno(-ENOENT), ENOENT);
}

static void what_is_no_code_is_still_answered(void **state)
{
	(void)state;
	assert_string_equal(sop_err_name(0), "OK");
	assert_int_equal(sop_err_errno(0), 0);
	assert_string_equal(sop_err_name(-99999), "EUNKNOWN");
	assert_string_equal(sop_err_text(-99999), "unknown error");
	assert_int_equal(sop_err_errno(-99999), EIO);
	assert_int_equal(sop_err_errno(INT32_MIN), EIO);
}

struct lines {
	int n;
	enum sop_log_level level;
	char module[32], line[2048];
};

static void collect(void *ctx, enum sop_log_level level, const char *module, const char *line)
{
	struct lines *l = ctx;

	l->n++;
	l->level = level;
	snprintf(l->module, sizeof(l->module), "%s", module);
	snprintf(l->line, sizeof(l->line), "%s", line);
}

static void a_log_line_reaches_the_sink_when_its_level_is_on(void **state)
{
	struct lines l = {0};
	struct sop_log log = {.sink = collect, .ctx = &l, .max_level = SOP_LOG_INFO};

	(void)state;
	sop_log(&log, SOP_LOG_DEBUG, "blob", "no");
	assert_int_equal(l.n, 0);
	sop_log(&log, SOP_LOG_WARNING, "blob", "disk=%d", 2);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.level, SOP_LOG_WARNING);
	assert_string_equal(l.module, "blob");
	assert_string_equal(l.line, "disk=2");
	sop_log(NULL, SOP_LOG_ERROR, "blob", "nobody listens");
}

static void an_event_is_one_line_whatever_it_quotes(void **state)
{
	struct lines l = {0};
	struct sop_log log = {.sink = collect, .ctx = &l, .max_level = SOP_LOG_DEBUG};
	char name[4000];

	(void)state;
	sop_log(&log, SOP_LOG_INFO, "x", "name=%s", "a\nfaked\x1b[0m");
	assert_string_equal(l.line, "name=a?faked?[0m");
	memset(name, 'y', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	sop_log(&log, SOP_LOG_INFO, "x", "%s", name);
	assert_int_equal(strlen(l.line), 1023);
	assert_string_equal(l.line + 1020, "...");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fail_says_object_trouble_and_meaning),
		cmocka_unit_test(say_leaves_the_message_alone),
		cmocka_unit_test(wrap_puts_the_place_before_the_message),
		cmocka_unit_test(wrap_may_change_the_code_and_keeps_the_text),
		cmocka_unit_test(wrap_without_a_message_gives_the_meaning),
		cmocka_unit_test(a_message_may_quote_the_one_before),
		cmocka_unit_test(a_long_place_does_not_push_out_what_failed),
		cmocka_unit_test(without_a_struct_the_code_comes_back),
		cmocka_unit_test(every_code_has_a_name_a_text_and_an_errno),
		cmocka_unit_test(what_is_no_code_is_still_answered),
		cmocka_unit_test(a_log_line_reaches_the_sink_when_its_level_is_on),
		cmocka_unit_test(an_event_is_one_line_whatever_it_quotes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
