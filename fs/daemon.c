/* The process: see daemon.h. What is here is global, as a process is. */
#include "fs/daemon.h"

#include "fs/rate.h"
#include "fs/systemd.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>

static int report_fd = -1;

static struct {
	pthread_mutex_t lock;
	bool starting, foreground;
	bool journal; /* try it: in the background, or where systemd would read our stderr */
	int fd;	      /* of log=, or -1 */
	char name[64];
	/* under lock; a disk that fails fails for every request: the log must not fill another */
	struct sopfs_rate rate;
	void (*tap)(void *arg, enum sop_log_level level, const char *module, const char *line);
	void *tap_arg; /* under lock, as is tap */
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .starting = true, .fd = -1};

int sopfs_exit_code(int rc)
{
	switch (rc) {
	case 0:
		return SOPFS_EXIT_OK;
	case -EACCES:
	case -EPERM:
		return SOPFS_EXIT_USAGE;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
	case -EAGAIN:
		return SOPFS_EXIT_SYSTEM;
	default:
		return SOPFS_EXIT_FAILED;
	}
}

/* ---- birth and report --------------------------------------------------------------------------
 */

static volatile sig_atomic_t interrupted;

static void note_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

/* The parent: nothing but waiting. A keyboard interrupt reaches the child as well, which gives up.
 */
static void __attribute__((noreturn)) wait_for_report(int fd, pid_t child)
{
	const struct sigaction note = {.sa_handler = note_interrupt};
	unsigned char code;
	int status = 0;
	ssize_t n;

	sigaction(SIGINT, &note, NULL);
	sigaction(SIGTERM, &note, NULL);
	do {
		n = read(fd, &code, 1);
		if (interrupted)
			kill(child, SIGTERM);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(code);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (interrupted)
		_exit(SOPFS_EXIT_INTERRUPTED);
	if (WIFEXITED(status) && WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "sopfs: the daemon died while mounting (%s %d); nothing is mounted\n",
		WIFSIGNALED(status) ? "signal" : "exit code",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	_exit(SOPFS_EXIT_INTERNAL);
}

/* What whoever called had open: a lock that it waits to give back, the end of a pipe. What is ours
 * closes on exec, and only what does not has come to us by one. */
static void close_inherited(void)
{
	DIR *all = opendir("/proc/self/fd");
	const struct dirent *d;

	while (all && (d = readdir(all))) {
		int fd = atoi(d->d_name), flags = fd > STDERR_FILENO ? fcntl(fd, F_GETFD) : -1;

		if (flags >= 0 && !(flags & FD_CLOEXEC))
			close(fd);
	}
	if (all)
		closedir(all);
}

int sopfs_daemon_start(bool foreground, struct sop_err *e)
{
	int pipe_fd[2];
	pid_t pid;

	if (foreground)
		return 0;
	if (pipe2(pipe_fd, O_CLOEXEC))
		return sop_fail(e, -errno, "pipe");
	pid = fork();
	if (pid < 0) {
		close(pipe_fd[0]);
		close(pipe_fd[1]);
		return sop_fail(e, -errno, "fork");
	}
	if (pid) {
		close(pipe_fd[1]);
		wait_for_report(pipe_fd[0], pid);
	}
	close(pipe_fd[0]);
	report_fd = pipe_fd[1];
	close_inherited();
	return 0;
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/"))
		return;
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	/* Last words, of an assertion for one, have a reader if there is a file. */
	dup2(out.fd >= 0 ? out.fd : null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

void sopfs_daemon_report(int exit_code)
{
	unsigned char code = (unsigned char)exit_code;
	ssize_t n;

	pthread_mutex_lock(&out.lock);
	out.starting = false;
	pthread_mutex_unlock(&out.lock);
	if (report_fd < 0)
		return;
	/* stdio first: whoever reads our stderr to its end must not wait for the daemon's. */
	if (!exit_code)
		leave_terminal();
	do {
		n = write(report_fd, &code, 1);
	} while (n < 0 && errno == EINTR);
	close(report_fd);
	report_fd = -1;
}

/* ---- other programs ----------------------------------------------------------------------------
 */

int sopfs_run(const char *const *args)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	char *argv[16] = {NULL};
	int status = 0, rc = 0;
	sigset_t none;
	size_t n;
	pid_t pid;

	for (n = 0; args[n] && !rc; n++) {
		argv[n] = n < SOP_ARRAY_LEN(argv) - 1 ? strdup(args[n]) : NULL;
		rc = argv[n] ? 0 : -ENOMEM;
	}
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
	if (!rc)
		rc = -posix_spawnp(&pid, argv[0], &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	while (n)
		free(argv[--n]);
	while (!rc && waitpid(pid, &status, 0) < 0)
		rc = errno == EINTR ? 0 : -errno;
	if (rc)
		return rc;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

/* ---- log ---------------------------------------------------------------------------------------
 */

static int priority(enum sop_log_level level)
{
	static const int of[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	return of[level];
}

static void put(enum sop_log_level level, const char *module, const char *line)
{
	bool to_stderr = out.foreground || (out.starting && level <= SOP_LOG_WARNING);
	bool sent = false;
	char stamp[32] = "";
	struct tm tm;
	time_t now = time(NULL);

	if (out.journal && out.fd < 0)
		sent = sopfs_journal_send(priority(level), out.name, module, line);
	if (to_stderr && !(sent && out.foreground))
		fprintf(stderr, "sopfs[%s] %s %s: %s\n", out.name, sop_log_level_name(level),
			module, line);
	if (out.fd >= 0) {
		if (gmtime_r(&now, &tm))
			strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
		dprintf(out.fd, "%s sopfs[%s] %s %s: %s\n", stamp, out.name,
			sop_log_level_name(level), module, line);
	} else if (!out.foreground && !sent) {
		syslog(priority(level), "sopfs[%s] %s %s: %s", out.name, sop_log_level_name(level),
			module, line);
	}
}

static void put_left_out(unsigned n)
{
	char note[64];

	if (!n)
		return;
	snprintf(note, sizeof(note), "%u lines were left out", n);
	put(SOP_LOG_WARNING, "log", note);
}

static void sink(void *ctx, enum sop_log_level level, const char *module, const char *line)
{
	unsigned told;

	(void)ctx;
	pthread_mutex_lock(&out.lock);
	if (sopfs_rate_pass(&out.rate, time(NULL), level, module, &told)) {
		put_left_out(told);
		put(level, module, line);
		if (out.tap)
			out.tap(out.tap_arg, level, module, line);
	}
	pthread_mutex_unlock(&out.lock);
}

void sopfs_log_finish(void)
{
	pthread_mutex_lock(&out.lock);
	put_left_out(sopfs_rate_rest(&out.rate));
	pthread_mutex_unlock(&out.lock);
}

static struct sop_log the_log = {.sink = sink, .max_level = SOP_LOG_INFO};

const struct sop_log *sopfs_log(void)
{
	return &the_log;
}

void sopfs_log_tap(
	void (*fn)(void *arg, enum sop_log_level level, const char *module, const char *line),
	void *arg)
{
	pthread_mutex_lock(&out.lock);
	out.tap = fn;
	out.tap_arg = arg;
	pthread_mutex_unlock(&out.lock);
}

void sopfs_log_name(const char *name)
{
	pthread_mutex_lock(&out.lock);
	snprintf(out.name, sizeof(out.name), "%s", name);
	pthread_mutex_unlock(&out.lock);
}

int sopfs_log_open(bool foreground, bool debug, const char *file, struct sop_err *e)
{
	out.foreground = foreground;
	out.journal = !foreground || getenv("JOURNAL_STREAM");
	if (debug)
		the_log.max_level = SOP_LOG_DEBUG;
	if (file) {
		out.fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
		if (out.fd < 0)
			return sop_fail(e, -errno, "log=%s", file);
	} else if (!foreground) {
		openlog("sopfs", LOG_PID, LOG_DAEMON);
	}
	return 0;
}
