/* SOURCE as users write it, lists, NAME.conf; %XX; names of mount points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "core/hex.h"
#include "core/mountpoint.h"
#include "core/source.h"

static struct sop_paths got;
static struct sop_err e;

static int forget(void **state)
{
	(void)state;
	sop_paths_release(&got);
	e = (struct sop_err){0};
	return 0;
}

static void assert_paths(const char *a, const char *b, const char *c)
{
	const char *const want[] = {a, b, c};

	for (size_t i = 0; i < 3; i++) {
		if (!want[i])
			assert_true(got.n <= i);
		else if (i >= got.n)
			fail_msg("%zu names, \"%s\" is missing", got.n, want[i]);
		else
			assert_string_equal(got.path[i], want[i]);
	}
}

static void a_backslash_takes_the_meaning_only_from_what_has_one(void **state)
{
	(void)state;
	assert_int_equal(sop_source_folders(&got, "/a\\:b:/c\\\\d:/e\\f", &e), 0);
	assert_paths("/a:b", "/c\\d", "/e\\f");
	sop_paths_release(&got);
	assert_int_equal(sop_source_folders(&got, "/x\\*:/y\\?\\[:/z\\", &e), 0);
	assert_paths("/x*", "/y?[", "/z\\");
	sop_paths_release(&got);
	assert_int_equal(sop_list_split(&got, "a\\,b,c\\\\,d\\:e", ',', &e), 0);
	assert_paths("a,b", "c\\", "d\\:e");
}

static void empty_entries_are_nothing_in_a_source_and_wrong_in_a_list(void **state)
{
	(void)state;
	assert_int_equal(sop_source_folders(&got, "::/a::/b:", &e), 0);
	assert_paths("/a", "/b", NULL);
	sop_paths_release(&got);
	assert_int_equal(sop_source_folders(&got, "", &e), 0);
	assert_paths(NULL, NULL, NULL);
	assert_int_equal(sop_list_split(&got, "a,,b", ',', &e), -EINVAL);
	sop_paths_release(&got);
	assert_int_equal(sop_list_split(&got, "", ',', &e), -EINVAL);
	sop_paths_release(&got);
	assert_int_equal(sop_list_split(&got, "a,", ',', &e), -EINVAL);
}

/* ---- NAME.conf ---- */

static char dir[] = "/tmp/sopfs-source.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) && !setenv("SOPFS_CONFIG_DIR", dir, 1) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/tank.conf", dir);
	remove(path);
	return rmdir(dir);
}

static void write_conf(const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/tank.conf", dir);
	remove(path);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static char seen[256];

static int note(void *arg, const char *key, const char *value, struct sop_err *err)
{
	size_t n = strlen(seen);

	(void)arg;
	snprintf(seen + n, sizeof(seen) - n, "[%s|%s]", key, value);
	return strcmp(key, "bad") ? 0 : sop_say(err, -EINVAL, "is bad");
}

static void settings_are_given_and_the_source_is_found(void **state)
{
	char *list = NULL;

	(void)state;
	write_conf(
		"# a comment\n\n  cache = 64M \nsource=/old\nnote = a = b\n\tsource = /a b:/c\n");
	seen[0] = '\0';
	assert_int_equal(sop_source_config(&list, "tank", note, NULL, &e), 0);
	assert_string_equal(list, "/a b:/c");
	assert_string_equal(seen, "[cache|64M][note|a = b]");
	free(list);
	assert_int_equal(sop_source_find(&got, "tank", &e), 0);
	assert_paths("/a b", "/c", NULL);
}

static void what_is_wrong_in_it_is_told_by_line(void **state)
{
	char *list = NULL, want[128];

	(void)state;
	write_conf("source = /a\nbad = x\n");
	assert_int_equal(sop_source_config(&list, "tank", note, NULL, &e), -EINVAL);
	assert_null(list);
	snprintf(want, sizeof(want), "%s/tank.conf:2: is bad", dir);
	assert_string_equal(e.text, want);
	write_conf("cache = 64M\n");
	e = (struct sop_err){0};
	assert_int_equal(sop_source_find(&got, "tank", &e), -EINVAL);
	assert_non_null(strstr(e.text, "says no source"));
	/* Who only looks for the folders is not kept from them by a setting he does not read. */
	write_conf("no setting\nsource = /a\n");
	assert_int_equal(sop_source_config(&list, "tank", note, NULL, &e), -EINVAL);
	assert_int_equal(sop_source_find(&got, "tank", &e), 0);
	assert_paths("/a", NULL, NULL);
}

static void one_that_cannot_be_read_is_not_one_without_a_source(void **state)
{
	char path[128], *list = NULL;

	(void)state;
	snprintf(path, sizeof(path), "%s/tank.conf", dir);
	remove(path);
	assert_int_equal(mkdir(path, 0700), 0); /* it opens, and each read fails */
	assert_int_equal(sop_source_config(&list, "tank", NULL, NULL, &e), -EISDIR);
	assert_non_null(strstr(e.text, "tank.conf"));
	assert_int_equal(sop_source_find(&got, "tank", &e), -EISDIR);
	assert_int_equal(got.n, 0);
}

static void a_word_that_is_no_name_or_has_no_file_is_a_folder(void **state)
{
	static const char *const words[] = {"no-such", "./tank", "tank:x", ".tank", ""};
	char *list = NULL;

	(void)state;
	write_conf("source = /a\n");
	for (size_t i = 0; i < SOP_ARRAY_LEN(words); i++) {
		assert_int_equal(sop_source_config(&list, words[i], NULL, NULL, &e), 0);
		assert_null(list);
	}
	assert_int_equal(sop_source_find(&got, "no-such", &e), 0);
	assert_paths("no-such", NULL, NULL);
}

/* ---- %XX ---- */

static ssize_t decode(char *out, size_t size, const char *text)
{
	return sop_percent_decode(out, size, text, strlen(text));
}

static void percent_signs_stand_for_bytes(void **state)
{
	char out[8];

	(void)state;
	assert_int_equal(decode(out, 8, "a%2F%ffb"), 4);
	assert_memory_equal(out,
		"a/\xff"
		"b",
		4);
	assert_int_equal(decode(out, 8, "%00"), 1);
	assert_int_equal(out[0], 0);
	assert_int_equal(decode(out, 8, ""), 0);
	assert_int_equal(decode(out, 8, "%"), -EINVAL);
	assert_int_equal(decode(out, 8, "%4"), -EINVAL);
	assert_int_equal(decode(out, 8, "%4g"), -EINVAL);
	assert_int_equal(decode(out, 3, "%41%42%43"), 3);
	assert_int_equal(decode(out, 2, "%41%42%43"), -ENAMETOOLONG);
}

/* ---- mount points ---- */

static void assert_name(const char *path, const char *want)
{
	char *name = sop_mountpoint_name(path);

	assert_non_null(name);
	assert_string_equal(name, want);
	free(name);
}

static void a_mount_point_is_named_without_looking_at_it(void **state)
{
	char cwd[256], want[512];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_name("/no-such-mount", "/no-such-mount");
	assert_name("/proc/../no-such//", "/no-such");
	assert_name("/proc/self/..", "/proc");
	assert_name("/", "/");
	assert_name(".", cwd);
	snprintf(want, sizeof(want), "%s/no-such", strcmp(cwd, "/") ? cwd : "");
	assert_name("no-such", want);
	assert_name("./no-such", want);
	assert_null(sop_mountpoint_name("/no-such-folder/mount"));
}

static void a_namespace_that_is_not_there_is_named(void **state)
{
	(void)state;
	assert_int_equal(sop_namespace_enter(NULL, &e), 0);
	assert_int_equal(sop_namespace_enter("/no/such/namespace", &e), -ENOENT);
	assert_non_null(strstr(e.text, "/no/such/namespace: mount namespace"));
	assert_int_equal(sop_namespace_enter("999999999999", &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			a_backslash_takes_the_meaning_only_from_what_has_one, forget),
		cmocka_unit_test_teardown(
			empty_entries_are_nothing_in_a_source_and_wrong_in_a_list, forget),
		cmocka_unit_test_teardown(settings_are_given_and_the_source_is_found, forget),
		cmocka_unit_test_teardown(what_is_wrong_in_it_is_told_by_line, forget),
		cmocka_unit_test_teardown(
			one_that_cannot_be_read_is_not_one_without_a_source, forget),
		cmocka_unit_test_teardown(
			a_word_that_is_no_name_or_has_no_file_is_a_folder, forget),
		cmocka_unit_test(percent_signs_stand_for_bytes),
		cmocka_unit_test(a_mount_point_is_named_without_looking_at_it),
		cmocka_unit_test_teardown(a_namespace_that_is_not_there_is_named, forget),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
