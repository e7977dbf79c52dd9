/* A real redis-server for a test, in a temporary folder of its own, gone with the test. */
#ifndef TESTS_LIB_REDIS_H
#define TESTS_LIB_REDIS_H

#include <stdbool.h>
#include <sys/types.h>

struct test_redis {
	char dir[64];
	char socket[96];
	char url[128]; /* by the socket */
	int port;      /* on loopback too; 0: not */
	pid_t pid;
	bool sentinel;
	const char *const *more; /* options, kept for a restart; ended by NULL */
};

bool test_redis_there(void); /* is the program? */
/* Each fails the test, with the server's log, when the server does not come or does not answer.
 * more may be NULL; it outlives the server. */
void test_redis_start(struct test_redis *r, bool tcp, const char *const *more);
/* A sentinel that watches the master on this port under the name "tank"; it alone decides. */
void test_sentinel_start(struct test_redis *r, int master_port);
void test_redis_kill(struct test_redis *r);		  /* SIGKILL, and gone */
void test_redis_again(struct test_redis *r);		  /* empty, in the same place */
void test_redis_pause(struct test_redis *r, bool paused); /* SIGSTOP, SIGCONT */
void test_redis_end(struct test_redis *r);
/* One command of plain words; the first line of the answer, in a buffer of the next call. */
const char *test_redis_do(struct test_redis *r, const char *command);

#endif
