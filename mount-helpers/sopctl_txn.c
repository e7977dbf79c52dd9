/* txn: a command as one transaction over all files that it changes; and transactions that programs
 * have prepared.
 *
 * The daemon gives the command a mirror of the mount (fs/worlds.h), which is held by a file that
 * this program keeps open: whatever becomes of us, its close ends the transaction. The command
 * finds the mirror where the mount is, in a mount namespace of its own. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mount-helpers/sopctl.h"

#define RETRY_MAX  1000
#define NAME_BYTES 64

/* ---- prepared ones -----------------------------------------------------------------------------
 */

static int list_prepared(const struct sopctl_args *a, struct sopctl_volume *v)
{
	int rc;
	json_t *answer = sopctl_ask(
		v, json_pack("{s:s, s:s}", "verb", "txn", "action", "list"), SOPCTL_SOON_MS, &rc);
	json_t *p;
	size_t i;

	if (!rc && !a->json)
		printf("%20s  %-27s %8s  %s\n", "ID", "PREPARED", "ITEMS", "NOTE");
	json_array_foreach(json_object_get(answer, "transactions"), i, p)
	{
		sop_autofree char *note = strdup(sopctl_text(p, "note"));

		if (a->json)
			sopctl_print_json(p);
		else
			printf("%20llu  %-27s %8llu  %s\n",
				(unsigned long long)sopctl_number(p, "id"),
				sopctl_text(p, "prepared"),
				(unsigned long long)sopctl_number(p, "items"),
				note ? sopctl_clean(note) : "");
	}
	json_decref(answer);
	return rc;
}

static int run_prepared(const struct sopctl_args *a)
{
	bool list = strcmp(a->word[0], "list") == 0, commit = strcmp(a->word[0], "commit") == 0;
	struct sopctl_volume v;
	uint64_t id = 0;
	int rc;

	if (a->words != (list ? 2 : 3))
		return sopctl_fail(
			SOPCTL_USAGE, "txn list VOLUME, or txn commit|rollback VOLUME ID");
	if (!list && !sopctl_digits(a->word[2], INT64_MAX, '\0', &id))
		return sopctl_fail(SOPCTL_USAGE,
			"%s: must be the number of a transaction; 'sopctl txn list' shows them",
			a->word[2]);
	rc = sopctl_find(&v, a->word[1], false, true);
	if (!rc && list) {
		rc = list_prepared(a, &v);
	} else if (!rc) {
		json_decref(sopctl_ask(&v,
			json_pack("{s:s, s:s, s:I}", "verb", "txn", "action", a->word[0], "id",
				(json_int_t)id),
			SOPCTL_LONG_MS, &rc));
		if (!rc && !a->json)
			printf("%s: transaction %llu is %s\n", sopctl_name(&v),
				(unsigned long long)id, commit ? "committed" : "rolled back");
	}
	sopctl_close(&v);
	return rc;
}

/* ---- a command ---------------------------------------------------------------------------------
 */

struct command {
	char *mount; /* where the mount is */
	char **argv;
	char name[NAME_BYTES]; /* of the transaction */
	int hold;
	struct sigaction on_int, on_quit, on_child; /* as we found them */
	sigset_t mask;
};

/* What run_command() waits for: the command's end, and what is handed on to it. */
static void waited_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

/* The terminal tells the command itself; what is sent to us alone is kept for it, also while there
 * is none just now. Whoever ignores the ends of his children has not asked us to. */
static void set_signals(struct command *c)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN}, standard = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigaction(SIGINT, &ignore, &c->on_int);
	sigaction(SIGQUIT, &ignore, &c->on_quit);
	sigaction(SIGCHLD, &standard, &c->on_child);
	waited_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &c->mask);
}

/* The command finds them as we did. */
static void reset_signals(const struct command *c)
{
	sigaction(SIGINT, &c->on_int, NULL);
	sigaction(SIGQUIT, &c->on_quit, NULL);
	sigaction(SIGCHLD, &c->on_child, NULL);
	sigprocmask(SIG_SETMASK, &c->mask, NULL);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

	if (fd >= 0)
		close(fd);
	return n < 0 ? -1 : 0;
}

/* Mounts of our own; who is not root needs a user namespace for it, in which he is who he was. */
static int leave_namespace(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[64];

	if (!unshare(CLONE_NEWNS))
		return 0;
	if (errno != EPERM || unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return sopctl_fail(SOPCTL_PERMISSION,
			"a mount namespace: %s; without root, this needs user namespaces to be "
			"allowed",
			strerror(errno));
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	if (write_file("/proc/self/setgroups", "deny") || write_file("/proc/self/gid_map", map))
		return sopctl_fail(SOPCTL_FAILURE, "/proc/self/gid_map: %s", strerror(errno));
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	if (write_file("/proc/self/uid_map", map))
		return sopctl_fail(SOPCTL_FAILURE, "/proc/self/uid_map: %s", strerror(errno));
	return 0;
}

/* In the child. From here on the mount is the mirror, for it and its children alone. */
static int enter_mirror(const struct command *c)
{
	sop_autofree char *cwd = getcwd(NULL, 0), *mirror = NULL;
	int rc;

	if (!cwd)
		return sopctl_fail(SOPCTL_FAILURE, "working directory: %s", strerror(errno));
	if (asprintf(&mirror, "%s/.sop/txn/%s", c->mount, c->name) < 0)
		return sopctl_fail(SOPCTL_FAILURE, "out of memory");
	rc = leave_namespace();
	if (rc)
		return rc;
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return sopctl_fail(SOPCTL_PERMISSION,
			"a mount namespace: %s; without root, this needs user namespaces to be "
			"allowed to mount",
			strerror(errno));
	if (mount(mirror, c->mount, NULL, MS_BIND, NULL))
		return sopctl_fail(SOPCTL_FAILURE, "%s: mounting the transaction: %s", c->mount,
			strerror(errno));
	/* Where we stand may be below the mount: then it is another place now. */
	if (chdir(cwd))
		return sopctl_fail(SOPCTL_FAILURE, "%s: %s", cwd, strerror(errno));
	return 0;
}

static _Noreturn void run_child(const struct command *c, pid_t parent)
{
	int rc;

	/* The command must not outlive who would tell what came of it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(SOPCTL_FAILURE);
	reset_signals(c);
	rc = enter_mirror(c);
	if (rc)
		_exit(rc);
	execvp(c->argv[0], c->argv);
	rc = errno == ENOENT ? 127 : 126; /* as shells say it */
	sopctl_fail(rc, "%s: %s", c->argv[0], strerror(errno));
	_exit(rc);
}

/* The status of waitpid(2), or -1. Until that has told of its end the number is the command's. */
static int run_command(const struct command *c)
{
	pid_t parent = getpid(), pid = fork(), ended;
	int status, number;
	sigset_t set;

	if (pid == 0)
		run_child(c, parent);
	if (pid < 0)
		return -1;
	waited_signals(&set);
	while (!(ended = waitpid(pid, &status, WNOHANG))) {
		number = sigwaitinfo(&set, NULL);
		if (number > 0 && number != SIGCHLD)
			kill(pid, number);
	}
	return ended < 0 ? -1 : status;
}

/* Is what is mounted there the mirror of a transaction? */
static bool is_mirror(const char *path)
{
	sop_autofree char *line = NULL;
	size_t size = 0;
	bool mirror = false;
	FILE *in = fopen("/proc/self/mountinfo", "re");

	while (in && getline(&line, &size, in) > 0) {
		sop_autofree char *root = NULL, *at = NULL;

		if (sscanf(line, "%*d %*d %*s %ms %ms", &root, &at) == 2 && strcmp(at, path) == 0)
			mirror = strncmp(root, "/.sop/txn/", 10) == 0; /* the last one counts */
	}
	if (in)
		fclose(in);
	return mirror;
}

static int begin(struct command *c)
{
	sop_autofree char *path = NULL;
	unsigned long long random[2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return sopctl_fail(SOPCTL_FAILURE, "random numbers: %s", strerror(errno));
	/* Nobody else finds it by its name. */
	snprintf(c->name, sizeof(c->name), "sopctl-%016llx%016llx", random[0], random[1]);
	if (asprintf(&path, "%s/.sop/txn/%s.hold", c->mount, c->name) < 0)
		return sopctl_fail(SOPCTL_FAILURE, "out of memory");
	c->hold = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (c->hold >= 0)
		return 0;
	if (errno == ENOENT && is_mirror(c->mount))
		return sopctl_fail(SOPCTL_USAGE,
			"%s: this is a transaction already, and they do not nest", c->mount);
	if (errno == ENOENT || errno == ENOTDIR)
		return sopctl_fail(
			SOPCTL_NO_VOLUME, "%s: no sopfs volume is mounted there", c->mount);
	if (errno == EMFILE)
		return sopctl_fail(SOPCTL_FAILURE, "%s: too many transactions at once", c->mount);
	return sopctl_fail(errno == EACCES || errno == EPERM ? SOPCTL_PERMISSION : SOPCTL_FAILURE,
		"%s: %s", c->mount, strerror(errno));
}

static int commit(const struct command *c)
{
	char why[640];
	ssize_t n;
	int err;

	if (write(c->hold, "commit", 6) == 6)
		return 0;
	err = errno;
	n = pread(c->hold, why, sizeof(why) - 1, 0);
	why[n > 0 ? n : 0] = '\0';
	return sopctl_fail(err == EBUSY ? SOPCTL_AGAIN : SOPCTL_FAILURE, "%s: %s", c->mount,
		n > 0 ? sopctl_clean(why) : strerror(err));
}

static int attempt(struct command *c)
{
	int rc = begin(c), status;

	if (rc)
		return rc;
	status = run_command(c);
	if (status < 0)
		rc = sopctl_fail(SOPCTL_FAILURE, "%s: %s", c->argv[0], strerror(errno));
	else if (WIFSIGNALED(status))
		rc = 128 + WTERMSIG(status);
	else
		rc = WEXITSTATUS(status) ? WEXITSTATUS(status) : commit(c);
	close(c->hold);
	return rc;
}

/* The longer, the more often it has lost. */
static void pause_before(uint64_t retry)
{
	unsigned most_ms = 10u << SOP_MIN(retry, (uint64_t)6), ms = 0;

	if (getrandom(&ms, sizeof(ms), 0) == sizeof(ms))
		ms %= most_ms;
	nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static char *mount_of(const char *word, int *code)
{
	struct sopctl_volume v;
	char *out = NULL;

	*code = 0;
	if (strchr(word, '/') || strcmp(word, ".") == 0) {
		out = realpath(word, NULL);
		if (!out)
			*code = sopctl_fail(SOPCTL_NO_VOLUME, "%s: %s", word, strerror(errno));
		return out;
	}
	*code = sopctl_find(&v, word, false, true);
	if (!*code) {
		out = strdup(sopctl_text(json_object_get(v.hello, "mount"), "point"));
		if (!out)
			*code = sopctl_fail(SOPCTL_FAILURE, "out of memory");
	}
	sopctl_close(&v);
	return out;
}

static int run_in_txn(const struct sopctl_args *a)
{
	struct command c = {.argv = a->word + 1};
	uint64_t retries = 0;
	int rc;

	if (a->retry && !sopctl_digits(a->retry, RETRY_MAX, '\0', &retries))
		return sopctl_fail(
			SOPCTL_USAGE, "--retry=%s: must be a number up to %d", a->retry, RETRY_MAX);
	c.mount = mount_of(a->word[0], &rc);
	if (!c.mount)
		return rc;
	set_signals(&c);
	rc = attempt(&c);
	for (uint64_t i = 0; i < retries && rc == SOPCTL_AGAIN; i++) {
		pause_before(i);
		rc = attempt(&c);
	}
	free(c.mount);
	return rc;
}

static int run_txn(const struct sopctl_args *a)
{
	static const char *const verbs[] = {"list", "commit", "rollback"};

	for (size_t i = 0; i < SOP_ARRAY_LEN(verbs); i++) {
		if (strcmp(a->word[0], verbs[i]) != 0)
			continue;
		if (a->retry)
			return sopctl_fail(SOPCTL_USAGE, "--retry goes with a command");
		return run_prepared(a);
	}
	if (a->json)
		return sopctl_fail(SOPCTL_USAGE, "--json goes with list, commit and rollback");
	return run_in_txn(a);
}

const struct sopctl_verb sopctl_txn_verbs[] = {
	{"txn", "MOUNT [--retry N] -- COMMAND... | list VOLUME | commit|rollback VOLUME ID",
		"Run a command as one transaction; end those that programs have prepared",
		"json retry", 2, INT_MAX,
		"The command, and all it starts, sees MOUNT as it was when it began, and changes "
		"it "
		"for nobody else.\nWhen it exits with 0, all its changes are committed at once, "
		"durably; when it fails or is killed,\nnothing has happened. When another has "
		"changed what it has looked at: exit code 75, nothing done.\n\n"
		"One that a program has prepared stays, over crashes too, until it is ended by its "
		"program or by this;\nwhat conflicts with it is refused meanwhile. Ask the other "
		"side of it (its note tells) which of both\nit has to be.\n",
		run_txn},
	{0},
};
