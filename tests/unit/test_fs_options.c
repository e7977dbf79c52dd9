/* Options, SOURCE, the mount table, the reply to INIT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "core/human.h"
#include "fs/channel.h"
#include "fs/mountinfo.h"
#include "fs/options.h"

static bool short_of_memory;

/* In place of the C library's, by which getline() reads. */
ssize_t __getdelim(char **restrict line, size_t *restrict cap, int end, FILE *restrict f)
{
	if (short_of_memory) {
		errno = ENOMEM;
		return -1;
	}
	return getdelim(line, cap, end, f);
}

static struct sopfs_options o;
static struct sop_err e;

static int parse(const char *program, const char *a, const char *b, const char *c, const char *d)
{
	const char *given[] = {program, a, b, c, d};
	char *argv[6] = {NULL};
	int argc = 0, rc;

	sopfs_options_release(&o);
	memset(&e, 0, sizeof(e));
	for (; argc < 5 && given[argc]; argc++)
		argv[argc] = strdup(given[argc]);
	rc = sopfs_options_parse(&o, argc, argv, &e);
	while (argc)
		free(argv[--argc]);
	return rc;
}

static void sizes_have_binary_units(void **state)
{
	uint64_t n;

	(void)state;
	assert_int_equal(sop_human_parse_size(&n, "4096"), 0);
	assert_int_equal(n, 4096);
	assert_int_equal(sop_human_parse_size(&n, "64M"), 0);
	assert_int_equal(n, 64u << 20);
	assert_int_equal(sop_human_parse_size(&n, "1.5g"), 0);
	assert_int_equal(n, 3ull << 29);
	assert_int_equal(sop_human_parse_size(&n, "2TiB"), 0);
	assert_int_equal(n, 2ull << 40);
	assert_int_equal(sop_human_parse_size(&n, "0"), 0);
}

static void a_size_that_is_none_is_refused(void **state)
{
	static const char *const bad[] = {"", "M", "-1", "1X", "64MM", "1e3", "9999999999999T",
		" 1", "0x10", "1M ", "nan", "inf"};
	uint64_t n;

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++)
		assert_int_equal(sop_human_parse_size(&n, bad[i]), -EINVAL);
}

static void a_time_without_unit_is_seconds(void **state)
{
	unsigned ms;

	(void)state;
	assert_int_equal(sop_human_parse_time(&ms, "2"), 0);
	assert_int_equal(ms, 2000);
	assert_int_equal(sop_human_parse_time(&ms, "0.5"), 0);
	assert_int_equal(ms, 500);
	assert_int_equal(sop_human_parse_time(&ms, "250ms"), 0);
	assert_int_equal(ms, 250);
	assert_int_equal(sop_human_parse_time(&ms, "3s"), 0);
	assert_int_equal(ms, 3000);
	assert_int_equal(sop_human_parse_time(&ms, "1min"), 0);
	assert_int_equal(ms, 60000);
	assert_int_equal(sop_human_parse_time(&ms, "99999999999"), -EINVAL);
	assert_int_equal(sop_human_parse_time(&ms, "1y"), -EINVAL);
	assert_int_equal(sop_human_parse_time(&ms, "s"), -EINVAL);
}

static void options_set_what_they_say(void **state)
{
	(void)state;
	assert_int_equal(parse("sopfs", "-o",
				 "ro,degraded,cache=64M,commit=250ms,checkpoint=5,disk_timeout=2,"
				 "session=write,killed=commit,exit=rollback,append_commit=100ms,"
				 "journal=8M,durability=close,dev,noexec",
				 "/a:/b", "/mnt"),
		0);
	assert_true(o.volume.read_only && o.fs.read_only && o.volume.degraded);
	assert_int_equal(o.volume.cache_bytes + o.volume.buffer_bytes, 64u << 20);
	assert_int_equal(o.volume.commit_ms, 250);
	assert_int_equal(o.volume.checkpoint_ms, 5000);
	assert_int_equal(o.volume.disk_timeout_ms, 2000);
	assert_int_equal(o.volume.journal_bytes, 8u << 20);
	assert_true(o.fs.session_write && o.fs.killed_commit && o.fs.exit_rollback && o.fs.sync);
	assert_true(o.volume.durable);
	assert_int_equal(o.fs.append_commit_ms, 100);
	assert_int_equal(o.mount_flags, MS_NOSUID | MS_NOEXEC | MS_RDONLY);
	assert_int_equal(o.paths.n, 2);
	assert_string_equal(o.paths.path[1], "/b");
	assert_string_equal(o.mountpoint, "/mnt");
}

static void files_are_found_from_another_working_directory_too(void **state)
{
	char here[4096], want[4200], *text;

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(
		parse("sopfs", "-o", "redis=redis://h,redis_password_file=secret,log=x/log", "/a",
			"/mnt"),
		0);
	snprintf(want, sizeof(want), "%s/secret", here);
	assert_string_equal(o.volume.redis_password_file, want);
	snprintf(want, sizeof(want), "%s/x/log", here);
	assert_string_equal(o.log_file, want);
	text = sopfs_options_dump(&o);
	assert_non_null(strstr(text, want));
	free(text);
	assert_string_equal(o.redis, "redis://h");
}

static void redis_is_told_without_its_password(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(parse("sopfs", "-o",
				 "redis=sentinel://a+b:7/tank,redis_password_file=/etc/secret,"
				 "ondown=eio,lease=20",
				 "/a", "/mnt"),
		0);
	assert_string_equal(o.volume.redis, "sentinel://a+b:7/tank");
	assert_string_equal(o.volume.redis_password_file, "/etc/secret");
	assert_string_equal(o.volume.mounted_at, "/mnt");
	assert_int_equal(o.volume.ondown, SOP_ONDOWN_EIO);
	assert_int_equal(o.volume.lease_ms, 20000);
	text = sopfs_options_dump(&o);
	assert_non_null(strstr(text, "ondown = eio\n"));
	assert_non_null(strstr(text, "redis_password_file = /etc/secret\n"));
	assert_non_null(strstr(text, "lease = 20s\n"));
	free(text);
	assert_int_equal(parse("sopfs", "/a", "/mnt", NULL, NULL), 0);
	assert_int_equal(o.volume.ondown, SOP_ONDOWN_BLOCK);
	assert_null(o.volume.redis);
	assert_int_equal(parse("sopfs", "-o", "redis=redis://:open@h", "/a", "/mnt"), -EINVAL);
	assert_int_equal(sop_redis_url_check("redis://joe:open@h", &e), -EINVAL);
	assert_non_null(strstr(e.text, "redis_password_file="));
	assert_null(strstr(e.text, "open"));
	assert_int_equal(parse("sopfs", "-o", "redis=localhost", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-o", "redis_password_file=/x", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-o", "ondown=wait", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-o", "lease=500ms", "/a", "/mnt"), -EINVAL);
}

static void the_later_option_wins(void **state)
{
	(void)state;
	assert_int_equal(
		parse("sopfs", "-oro,session=write", "-orw,session=close", "/a", "/mnt"), 0);
	assert_false(o.volume.read_only || o.fs.session_write);
}

static void options_may_come_after_the_words(void **state)
{
	(void)state;
	assert_int_equal(parse("sopfs", "/a", "/mnt", "-o", "ro"), 0);
	assert_true(o.volume.read_only);
	assert_int_equal(parse("sopfs", "/a", "-f", "/mnt", NULL), 0);
	assert_true(o.foreground);
}

static void what_mount_8_passes_is_stripped(void **state)
{
	(void)state;
	assert_int_equal(
		parse("sopfs", "-o",
			"rw,defaults,auto,noauto,user,users,nouser,owner,group,nofail,_netdev,"
			"comment=x,x-systemd.automount,X-mount.mkdir,helper=sopfs,uhelper=u,"
			"noatime",
			"/a", "/mnt"),
		0);
}

static void an_unknown_option_is_refused_by_name(void **state)
{
	(void)state;
	assert_int_equal(parse("sopfs", "-o", "ro,colour=blue", "/a", "/mnt"), -EINVAL);
	assert_non_null(strstr(e.text, "colour=blue"));
	assert_int_equal(parse("sopfs", "-o", "rox", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-o", "session=no", "/a", "/mnt"), -EINVAL);
	assert_non_null(strstr(e.text, "session=close or session=write"));
	assert_int_equal(parse("sopfs", "-o", "cache=1K", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-o", "commit=0", "/a", "/mnt"), -EINVAL);
	assert_int_equal(parse("sopfs", "-x", "/a", "/mnt", NULL), -EINVAL);
}

static void words_that_are_missing_or_too_many_are_refused(void **state)
{
	(void)state;
	assert_int_equal(parse("sopfs", NULL, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse("sopfs", "/a", NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse("sopfs", "/a", "/b", "/c", NULL), -EINVAL);
	assert_int_equal(parse("sopfs", ":", "/mnt", NULL, NULL), -EINVAL);
}

static void as_mount_helper_f_means_fake_and_s_sloppy(void **state)
{
	(void)state;
	assert_int_equal(parse("/sbin/mount.sopfs", "/a", "/mnt", "-sfnv", "-orw,colour=blue"), 0);
	assert_true(o.fake && o.sloppy);
	assert_false(o.foreground);
}

static void a_colon_in_a_name_is_escaped(void **state)
{
	(void)state;
	assert_int_equal(parse("sopfs", "/a\\:b:/c\\\\d", "/mnt", NULL, NULL), 0);
	assert_int_equal(o.paths.n, 2);
	assert_string_equal(o.paths.path[0], "/a:b");
	assert_string_equal(o.paths.path[1], "/c\\d");
}

static void patterns_are_expanded(void **state)
{
	char dir[] = "/tmp/sopfs-options.XXXXXX", path[128];

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (int i = 1; i <= 3; i++) {
		snprintf(path, sizeof(path), "%s/d%d", dir, i);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	snprintf(path, sizeof(path), "%s/d*", dir);
	assert_int_equal(parse("sopfs", path, "/mnt", NULL, NULL), 0);
	assert_int_equal(o.paths.n, 3);
	snprintf(path, sizeof(path), "%s/e*", dir);
	assert_int_equal(parse("sopfs", path, "/mnt", NULL, NULL), -ENOENT);
	for (int i = 1; i <= 3; i++) {
		snprintf(path, sizeof(path), "%s/d%d", dir, i);
		rmdir(path);
	}
	rmdir(dir);
}

static void names_in_the_mount_table_are_unescaped(void **state)
{
	char text[] = "/a\\040b\\011c\\134d\\0401\\9";
	struct sopfs_mount m;

	(void)state;
	sopfs_mountinfo_unescape(text);
	assert_string_equal(text, "/a b\tc\\d 1\\9");
	assert_int_equal(sopfs_mount_at(&m, "/proc", NULL), 1);
	assert_string_equal(m.type, "proc");
	assert_int_equal(sopfs_mount_at(&m, "/no/such/mount", NULL), 0);
	short_of_memory = true;
	assert_int_equal(sopfs_mount_at(&m, "/proc", NULL), -ENOMEM);
	short_of_memory = false;
}

static void the_init_reply_gets_what_the_kernel_offers_and_no_more(void **state)
{
	uint32_t reply[16] = {7, 38, 0, FUSE_ASYNC_READ};

	(void)state;
	sopfs_init_complete(reply, FUSE_ASYNC_READ, 0);
	assert_int_equal(reply[3], FUSE_ASYNC_READ);
	sopfs_init_complete(
		reply, FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT, 0x10);
	assert_int_equal(reply[3],
		FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT);
	assert_int_equal(reply[8], 0x10);
}

static int release(void **state)
{
	(void)state;
	sopfs_options_release(&o);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_binary_units),
		cmocka_unit_test(a_size_that_is_none_is_refused),
		cmocka_unit_test(a_time_without_unit_is_seconds),
		cmocka_unit_test(options_set_what_they_say),
		cmocka_unit_test(files_are_found_from_another_working_directory_too),
		cmocka_unit_test(redis_is_told_without_its_password),
		cmocka_unit_test(the_later_option_wins),
		cmocka_unit_test(options_may_come_after_the_words),
		cmocka_unit_test(what_mount_8_passes_is_stripped),
		cmocka_unit_test(an_unknown_option_is_refused_by_name),
		cmocka_unit_test(words_that_are_missing_or_too_many_are_refused),
		cmocka_unit_test(as_mount_helper_f_means_fake_and_s_sloppy),
		cmocka_unit_test(a_colon_in_a_name_is_escaped),
		cmocka_unit_test(patterns_are_expanded),
		cmocka_unit_test(names_in_the_mount_table_are_unescaped),
		cmocka_unit_test(the_init_reply_gets_what_the_kernel_offers_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
