/* Who is closing: the pure parts, and what /proc says of ourselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "fs/closer.h"

static void statm_of_a_thread_without_memory_is_all_zeros(void **state)
{
	(void)state;
	assert_true(sopfs_closer_statm_empty("0 0 0 0 0 0 0\n", 14));
	assert_false(sopfs_closer_statm_empty("100 0 0 0 0 0 0\n", 16));
	assert_false(sopfs_closer_statm_empty("0 0 0 0 0 0 7\n", 14));
	assert_false(sopfs_closer_statm_empty("", 0));
}

static void stat_is_read_past_a_command_with_parentheses_and_spaces(void **state)
{
	char text[1024];
	unsigned long flags = 0;
	int code = 0, n;

	(void)state;
	n = snprintf(text, sizeof(text), "12 (a) b ( 4 c)) R 1 2 3 4 5 4194308");
	for (int field = 10; field <= 51; field++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " %d", field == 20 ? -1 : field);
	n += snprintf(text + n, sizeof(text) - (size_t)n, " 9\n");
	assert_true(sopfs_closer_parse_stat(text, (size_t)n, &flags, &code));
	assert_int_equal(flags, 4194308);
	assert_int_equal(code, 9);
}

static void a_stat_that_is_cut_short_is_not_understood(void **state)
{
	unsigned long flags;
	int code;

	(void)state;
	assert_false(sopfs_closer_parse_stat("12 (a) R 1 2 3", 14, &flags, &code));
	assert_false(sopfs_closer_parse_stat("12 a R", 6, &flags, &code));
	assert_false(sopfs_closer_parse_stat("", 0, &flags, &code));
}

static void a_living_thread_is_closing_by_itself(void **state)
{
	struct sopfs_closer who;

	(void)state;
	for (int i = 0; i < 3; i++) { /* the second look is by the file kept open */
		sopfs_closer_look(getpid(), &who);
		assert_false(who.exiting);
		assert_false(who.killed);
	}
	sopfs_closer_look(0, &who);
	assert_false(who.exiting);
}

static void *process_of_myself(void *unused)
{
	int tid = (int)syscall(SYS_gettid);

	(void)unused;
	assert_int_not_equal(tid, getpid());
	return (void *)(intptr_t)sopfs_closer_process(tid);
}

static void a_thread_is_known_to_be_of_its_process(void **state)
{
	pthread_t thread;
	void *process;

	(void)state;
	assert_int_equal(sopfs_closer_process(getpid()), getpid());
	assert_int_equal(sopfs_closer_process(0), 0);
	assert_int_equal(sopfs_closer_process(getppid()), getppid());
	assert_int_equal(pthread_create(&thread, NULL, process_of_myself, NULL), 0);
	pthread_join(thread, &process);
	assert_int_equal((intptr_t)process, getpid());
}

static void descriptors_held_are_seen_until_they_are_closed(void **state)
{
	struct stat st;
	int fd;

	(void)state;
	/* Files of a mount have no device behind them; those of a memory file system have none
	 * either. */
	fd = (int)syscall(SYS_memfd_create, "held", 0u);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(sopfs_closer_descriptors(getpid(), st.st_ino, -1), 1);
	close(fd);
	assert_int_equal(sopfs_closer_descriptors(getpid(), st.st_ino, -1), 0);
	assert_true(sopfs_closer_descriptors(0, st.st_ino, -1) < 0);
}

static void a_lock_asked_for_is_known_by_its_system_call(void **state)
{
	char text[128];
	struct {
		long number;
		int command;
		enum sopfs_lock_kind kind;
	} c[] = {{SYS_fcntl, F_SETLKW, SOPFS_LOCK_POSIX}, {SYS_fcntl, F_SETLK, SOPFS_LOCK_POSIX},
		{SYS_fcntl, F_OFD_SETLKW, SOPFS_LOCK_OFD}, {SYS_fcntl, F_OFD_SETLK, SOPFS_LOCK_OFD},
		{SYS_flock, F_OFD_SETLK, SOPFS_LOCK_UNKNOWN}};

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(c); i++) {
		snprintf(text, sizeof(text), "%ld 0x3 0x%x 0x7ffd 0x0 0x0 0x0 0x7ffd10 0x7f20\n",
			c[i].number, (unsigned)c[i].command);
		assert_int_equal(sopfs_closer_parse_syscall(text), c[i].kind);
	}
	assert_int_equal(sopfs_closer_parse_syscall("running\n"), SOPFS_LOCK_UNKNOWN);
	assert_int_equal(sopfs_closer_parse_syscall(""), SOPFS_LOCK_UNKNOWN);
	assert_int_equal(sopfs_closer_lock_kind(0), SOPFS_LOCK_UNKNOWN);
}

static void descriptors_are_listed_and_their_close_is_seen(void **state)
{
	struct stat st;
	int fd, copy, list[2] = {-1, -1};

	(void)state;
	fd = (int)syscall(SYS_memfd_create, "held", 0u);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	copy = dup(fd);
	assert_int_equal(sopfs_closer_list(getpid(), st.st_ino, list, 2), 2);
	assert_true((list[0] == fd && list[1] == copy) || (list[0] == copy && list[1] == fd));
	assert_int_equal(sopfs_closer_list(getpid(), st.st_ino, list, 1), 2);
	close(copy);
	assert_true(sopfs_closer_closed(getpid(), copy, st.st_ino));
	assert_false(sopfs_closer_closed(getpid(), fd, st.st_ino));
	close(fd);
	assert_int_equal(sopfs_closer_list(getpid(), st.st_ino, list, 2), 0);
}

/* Without room for one more descriptor, for two, ... */
static void what_cannot_be_looked_at_is_not_known_to_be_closed(void **state)
{
	struct rlimit was, low;
	struct stat st;
	int fd = (int)syscall(SYS_memfd_create, "held", 0u);
	bool closed[8];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = was;
	for (unsigned room = 0; room < SOP_ARRAY_LEN(closed); room++) {
		low.rlim_cur = (rlim_t)fd + 1 + room;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
		closed[room] = sopfs_closer_closed(getpid(), fd, st.st_ino);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	}
	for (unsigned room = 0; room < SOP_ARRAY_LEN(closed); room++)
		assert_false(closed[room]);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statm_of_a_thread_without_memory_is_all_zeros),
		cmocka_unit_test(stat_is_read_past_a_command_with_parentheses_and_spaces),
		cmocka_unit_test(a_stat_that_is_cut_short_is_not_understood),
		cmocka_unit_test(a_living_thread_is_closing_by_itself),
		cmocka_unit_test(a_thread_is_known_to_be_of_its_process),
		cmocka_unit_test(descriptors_held_are_seen_until_they_are_closed),
		cmocka_unit_test(a_lock_asked_for_is_known_by_its_system_call),
		cmocka_unit_test(descriptors_are_listed_and_their_close_is_seen),
		cmocka_unit_test(what_cannot_be_looked_at_is_not_known_to_be_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
