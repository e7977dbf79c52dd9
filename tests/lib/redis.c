#include "tests/lib/redis.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"

#define OPTIONS	     16
#define TRIES	     30000 /* minutes: the machine may be busy */
#define TRY_EVERY_MS 10

static void give_up(const struct test_redis *r, const char *what)
{
	char command[160];

	fprintf(stderr, "redis-server: %s\n", what);
	snprintf(command, sizeof(command), "tail -n 20 %s/log >&2", r->dir);
	if (system(command))
		fprintf(stderr, "(no log)\n");
	abort();
}

bool test_redis_there(void)
{
	return system("command -v redis-server >/dev/null 2>&1") == 0;
}

/* A port that is free now. */
static int free_port(const struct test_redis *r)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	sop_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) ||
		getsockname(fd, (struct sockaddr *)&a, &len))
		give_up(r, "no free port");
	return ntohs(a.sin_port);
}

static int dial_tcp(const struct test_redis *r)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)r->port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int dial(const struct test_redis *r)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd;

	if (r->sentinel)
		return dial_tcp(r);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->socket);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static bool answers(const struct test_redis *r)
{
	sop_autoclose int fd = dial(r);
	char c;

	/* An error is an answer too: a password may be wanted. */
	return fd >= 0 && write(fd, "PING\r\n", 6) == 6 && read(fd, &c, 1) == 1;
}

static void run(struct test_redis *r, const char *const *argv)
{
	r->pid = fork();
	if (r->pid < 0)
		give_up(r, "fork");
	if (!r->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	for (int i = 0; i < TRIES && !answers(r); i++) {
		const struct timespec t = {.tv_nsec = TRY_EVERY_MS * 1000000};
		int status;

		if (waitpid(r->pid, &status, WNOHANG) == r->pid)
			give_up(r, "has ended");
		nanosleep(&t, NULL);
	}
	if (!answers(r))
		give_up(r, "does not answer");
}

static void launch(struct test_redis *r)
{
	char port[16], log[96];
	const char *argv[32] = {"redis-server", "--port", port, "--bind", "127.0.0.1",
		"--unixsocket", r->socket, "--dir", r->dir, "--logfile", log, "--save", "",
		"--appendonly", "no"};
	size_t n = 0;

	snprintf(port, sizeof(port), "%d", r->port);
	snprintf(log, sizeof(log), "%s/log", r->dir);
	while (argv[n])
		n++;
	for (size_t i = 0; r->more && r->more[i] && i < OPTIONS; i++)
		argv[n++] = r->more[i];
	run(r, argv);
}

static void make_dir(struct test_redis *r)
{
	memset(r, 0, sizeof(*r));
	snprintf(r->dir, sizeof(r->dir), "%s/sopredis.XXXXXX",
		getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 30 ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(r->dir))
		give_up(r, "no temporary folder");
}

void test_sentinel_start(struct test_redis *r, int master_port)
{
	char conf[96];
	const char *argv[] = {"redis-server", conf, "--sentinel", NULL};
	FILE *f;

	make_dir(r);
	r->sentinel = true;
	r->port = free_port(r);
	snprintf(r->url, sizeof(r->url), "sentinel://127.0.0.1:%d/tank", r->port);
	snprintf(conf, sizeof(conf), "%s/conf", r->dir);
	f = fopen(conf, "w");
	if (!f)
		give_up(r, "no configuration");
	fprintf(f,
		"port %d\nbind 127.0.0.1\ndir %s\nlogfile %s/log\n"
		"sentinel monitor tank 127.0.0.1 %d 1\nsentinel down-after-milliseconds tank 500\n"
		"sentinel failover-timeout tank 3000\n",
		r->port, r->dir, r->dir, master_port);
	fclose(f);
	run(r, argv);
}

void test_redis_start(struct test_redis *r, bool tcp, const char *const *more)
{
	make_dir(r);
	snprintf(r->socket, sizeof(r->socket), "%s/redis.sock", r->dir);
	snprintf(r->url, sizeof(r->url), "unix://%s", r->socket);
	r->port = tcp ? free_port(r) : 0;
	r->more = more;
	launch(r);
}

void test_redis_kill(struct test_redis *r)
{
	if (r->pid > 0) {
		kill(r->pid, SIGKILL);
		waitpid(r->pid, NULL, 0);
	}
	r->pid = 0;
}

void test_redis_again(struct test_redis *r)
{
	unlink(r->socket);
	launch(r);
}

void test_redis_pause(struct test_redis *r, bool paused)
{
	kill(r->pid, paused ? SIGSTOP : SIGCONT);
}

void test_redis_end(struct test_redis *r)
{
	char command[160];

	test_redis_kill(r);
	snprintf(command, sizeof(command), "rm -rf %s", r->dir);
	if (system(command))
		fprintf(stderr, "%s stays\n", r->dir);
}

const char *test_redis_do(struct test_redis *r, const char *command)
{
	static char answer[512];
	sop_autoclose int fd = dial(r);
	char line[512];
	size_t n = 0;

	snprintf(line, sizeof(line), "%s\r\n", command);
	if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		give_up(r, "takes no command");
	while (n < sizeof(answer) - 1 && read(fd, answer + n, 1) == 1 && answer[n] != '\n')
		n++;
	answer[n] = 0;
	answer[strcspn(answer, "\r")] = 0;
	return answer;
}
