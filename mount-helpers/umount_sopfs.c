/* umount.sopfs: writes out, unmounts, and waits until the daemon has given the volume back.
 *
 * umount(8) runs it when the mount is in its table with helper=sopfs, or as umount.fuse.sopfs. The
 * kernel's umount(2) of a FUSE file system returns before the daemon has written out and unlocked;
 * whoever unplugs a drive next must know when it has. */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "core/mountpoint.h"
#include "core/sop.h"
#include "core/stdfds.h"
#include "mount-helpers/complain.h"

#define PROGRAM	      "umount.sopfs"
#define complain(...) ((void)tool_complain(PROGRAM, 0, __VA_ARGS__))
#define TYPE	      "fuse.sopfs"
#define HOLDERS_MAX   5
#define LINKS_MAX     8
#define REPORT_EVERY  10 /* seconds, when stderr is no terminal */
#define FORCE_S	      3	 /* by force, how long is waited at each point */

enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_INTERRUPTED = 8, EXIT_FAILED = 32 };

static const char usage[] =
	"usage: " PROGRAM " [-flnrv] [-N NAMESPACE] [-t TYPE] MOUNTPOINT\n"
	"Unmount a sopfs volume: write out, unmount, wait for the daemon to let go of the disks.\n"
	"umount(8) calls it.\n"
	"\n"
	"  -f             by force: calls under way fail, what is not committed is lost\n"
	"  -l             lazily: out of sight now, served until the last file is closed;\n"
	"                 does not wait\n"
	"  -r             read-only instead, if it is busy\n"
	"  -N NAMESPACE   in the mount namespace of this process, or of this path\n"
	"  -n, -t         accepted for umount(8)'s sake\n"
	"  -v             say what is done\n"
	"  -h, --help     print this\n"
	"  -V, --version  print the version\n";

struct args {
	const char *where;
	char *dir; /* canonical */
	const char *namespace;
	bool force, lazy, read_only, verbose;
};

static volatile sig_atomic_t interrupted;

static void note_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

/* ---- what is mounted ---------------------------------------------------------------------------
 */

/* The topmost mount at just this place is ours. */
static bool is_ours(const char *dir)
{
	static char line[65536]; /* of any list of folders */
	FILE *table = setmntent("/proc/self/mounts", "re");
	bool ours = false;
	struct mntent m;

	while (table && getmntent_r(table, &m, line, sizeof(line)))
		if (!strcmp(m.mnt_dir, dir))
			ours = !strcmp(m.mnt_type, TYPE);
	if (table)
		endmntent(table);
	return ours;
}

/* A link to a mount point, as umount(8) follows it. The last name is looked at as a link alone:
 * nothing is asked of what may be mounted there. */
static char *find(const char *where)
{
	char *dir = sop_mountpoint_name(where);
	char target[4096];

	for (int links = 0; dir && !is_ours(dir) && links < LINKS_MAX; links++) {
		ssize_t n = readlink(dir, target, sizeof(target) - 1);
		sop_autofree char *next = NULL;

		if (n <= 0)
			break;
		target[n] = '\0';
		if (asprintf(&next, "%.*s%s",
			    target[0] == '/' ? 0 : (int)(strrchr(dir, '/') + 1 - dir), dir,
			    target) < 0)
			next = NULL;
		free(dir);
		dir = next ? sop_mountpoint_name(next) : NULL;
	}
	return dir;
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

static void show(const char *what, unsigned seconds)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r" PROGRAM ": %s, %u s \033[K", what, seconds);
	else if (seconds % REPORT_EVERY == 0)
		complain("%s, %u s", what, seconds);
}

/* Until the process has ended. 0, -EINTR, or, after most_s unless that is 0, -ETIMEDOUT. */
static int wait_end(int pidfd, const char *what, unsigned most_s)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	unsigned seconds = 0;
	int n = 0;

	while (!interrupted && (!most_s || seconds < most_s) && (n = poll(&p, 1, 1000)) <= 0)
		if (!n)
			show(what, ++seconds);
	if (seconds && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return interrupted ? -EINTR : n > 0 ? 0 : -ETIMEDOUT;
}

/* What the daemon is asked, in a child: it may take a while, or for ever, which no signal but
 * SIGKILL ends; and the user hears of it. What it gave, or -EINTR, or -ETIMEDOUT (see wait_end()).
 */
static long in_child(
	long (*ask)(const char *dir), const char *dir, const char *what, unsigned most_s)
{
	long *answer = mmap(
		NULL, sizeof(*answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = answer == MAP_FAILED ? -1 : fork();
	int pidfd;
	long rc;

	if (!pid) {
		*answer = -EIO; /* should it be killed */
		*answer = ask(dir);
		_exit(0);
	}
	pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	rc = pidfd < 0 ? -errno : wait_end(pidfd, what, most_s);
	if (pidfd >= 0)
		close(pidfd);
	if (rc && pid > 0)
		kill(pid, SIGKILL);
	if (!rc)
		rc = *answer;
	if (answer != MAP_FAILED)
		munmap(answer, sizeof(*answer));
	return rc;
}

/* The process that serves it; 0: it is dead already. */
static long ask_daemon(const char *dir)
{
	char text[32] = "";
	ssize_t n = getxattr(dir, "sop.daemon", text, sizeof(text) - 1);

	return n > 0 ? strtol(text, NULL, 10) : 0;
}

/* fsync of the root makes every commit so far durable. */
static long ask_sync(const char *dir)
{
	sop_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) ? -errno : 0;
}

/* ---- who keeps it busy -------------------------------------------------------------------------
 */

static bool below(const char *target, const char *dir)
{
	size_t len = strlen(dir);

	return !strncmp(target, dir, len) && (!target[len] || target[len] == '/');
}

static bool link_is_below(int at, const char *name, const char *dir)
{
	char target[4096];
	ssize_t n = readlinkat(at, name, target, sizeof(target) - 1);

	if (n <= 0)
		return false;
	target[n] = '\0';
	return below(target, dir);
}

static bool any_link_below(int proc, const char *sub, const char *dir)
{
	int fd = openat(proc, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	bool found = false;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && (entry = readdir(d)))
		found = link_is_below(fd, entry->d_name, dir);
	closedir(d);
	return found;
}

static void read_name(int proc, char *name, size_t size)
{
	sop_autoclose int fd = openat(proc, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, name, size - 1);

	name[n > 0 ? n : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
}

static void name_holders(const char *dir)
{
	DIR *all = opendir("/proc");
	struct dirent *entry;
	unsigned found = 0;
	char name[64];

	while (all && (entry = readdir(all))) {
		sop_autoclose int proc = -1;

		/* Who runs this there is told of his shell. */
		if (entry->d_name[strspn(entry->d_name, "0123456789")] ||
			strtol(entry->d_name, NULL, 10) == getpid())
			continue;
		proc = openat(dirfd(all), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0 ||
			!(link_is_below(proc, "cwd", dir) || link_is_below(proc, "root", dir) ||
				link_is_below(proc, "exe", dir) ||
				any_link_below(proc, "fd", dir) ||
				any_link_below(proc, "map_files", dir)))
			continue;
		if (++found > HOLDERS_MAX)
			continue;
		read_name(proc, name, sizeof(name));
		fprintf(stderr, "  held by process %s (%s)\n", entry->d_name, name);
	}
	if (found > HOLDERS_MAX)
		fprintf(stderr, "  and by %u more\n", found - HOLDERS_MAX);
	if (all)
		closedir(all);
}

/* ---- unmounting --------------------------------------------------------------------------------
 */

static int remount_read_only(const struct args *a)
{
	struct statvfs st;

	/* What else holds of it stays: the two have the same numbers for it. */
	if (statvfs(a->dir, &st) ||
		mount("none", a->dir, NULL,
			MS_REMOUNT | MS_RDONLY | (st.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)),
			NULL)) {
		complain("%s: busy, and not to be made read-only: %s", a->where, strerror(errno));
		return EXIT_FAILED;
	}
	complain("%s: busy; it is read-only now", a->where);
	return EXIT_OK;
}

static int detach(const struct args *a)
{
	int flags = UMOUNT_NOFOLLOW | (a->force ? MNT_FORCE : 0) | (a->lazy ? MNT_DETACH : 0);
	int rc = umount2(a->dir, flags);

	/* Whose calls have just been made to fail is on his way out; what we have asked, too. */
	for (int i = 0; rc && errno == EBUSY && a->force && i < FORCE_S * 10; i++) {
		usleep(100000);
		rc = umount2(a->dir, flags);
	}
	if (!rc)
		return EXIT_OK;
	if (errno == EPERM) {
		complain("%s: only root may unmount it this way; an own mount is taken down by "
			 "fusermount3 -u %s",
			a->where, a->where);
		return EXIT_USAGE;
	}
	if (errno != EBUSY) {
		complain("%s: %s", a->where, strerror(errno));
		return EXIT_FAILED;
	}
	if (a->read_only)
		return remount_read_only(a);
	complain("%s: is busy; close what is open there, or umount -l", a->where);
	name_holders(a->dir);
	return EXIT_FAILED;
}

/* All that was committed is on the disks. What to exit with, if it is not. */
static int write_out(const struct args *a)
{
	long rc;

	if (a->verbose)
		complain("%s: writing out", a->where);
	rc = in_child(ask_sync, a->dir, "writing out", 0);
	if (rc == -EINTR)
		return EXIT_INTERRUPTED;
	if (!rc)
		return EXIT_OK;
	complain("%s: writing out: %s; what was committed last may be missing when it is mounted "
		 "again: see the log",
		a->where, strerror((int)-rc));
	return EXIT_SYSTEM;
}

static int unmount(const struct args *a)
{
	/* Out of sight lazily, nothing is asked; by force, nothing is waited for. */
	long pid = a->lazy ? 0
			   : in_child(ask_daemon, a->dir, "waiting for its daemon",
				     a->force ? FORCE_S : 0);
	/* -1: dead already, or not to be seen from here. */
	sop_autoclose int daemon = pid > 1 ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
	int code = EXIT_OK, rc;

	if (pid == -EINTR)
		return EXIT_INTERRUPTED;
	if (pid < 0 && !a->force) {
		complain("%s: %s", a->where, strerror((int)-pid));
		return EXIT_SYSTEM;
	}
	if (daemon >= 0 && !a->force)
		code = write_out(a);
	/* Staying would write out nothing either, and keep the disks from being mended. */
	if (code == EXIT_INTERRUPTED)
		return code;
	rc = detach(a);
	if (rc)
		return rc;
	if (is_ours(a->dir)) /* read-only now, or another lies below */
		return code;
	if (a->verbose)
		complain("%s: unmounted", a->where);
	if (pid < 0) {
		complain("%s: is unmounted, but its daemon did not answer: leave the disks where "
			 "they are until it has ended",
			a->where);
		return EXIT_SYSTEM;
	}
	if (daemon < 0)
		return code;
	if (wait_end(daemon, "unmounted; its daemon is writing out", 0)) {
		complain("%s: is unmounted, but its daemon has not ended: leave the disks where "
			 "they "
			 "are until it has",
			a->where);
		return EXIT_INTERRUPTED;
	}
	return code;
}

/* -1: go on; else the exit code. */
static int parse(struct args *a, int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "flnrvN:t:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			a->force = true;
			break;
		case 'l':
			a->lazy = true;
			break;
		case 'r':
			a->read_only = true;
			break;
		case 'v':
			a->verbose = true;
			break;
		case 'N':
			a->namespace = optarg;
			break;
		case 'n':
		case 't':
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_OK;
		case 'V':
			puts(PROGRAM " (sopfs) " SOPFS_VERSION);
			return EXIT_OK;
		default:
			return tool_misused(PROGRAM, EXIT_USAGE);
		}
	}
	if (argc - optind != 1) {
		complain(argc == optind ? "no mount point was given" : "give one mount point");
		return tool_misused(PROGRAM, EXIT_USAGE);
	}
	a->where = argv[optind];
	return -1;
}

int main(int argc, char **argv)
{
	const struct sigaction note = {.sa_handler = note_interrupt};
	struct sop_err e = {0};
	struct args a = {0};
	int rc;

	sop_stdfds_take();
	rc = parse(&a, argc, argv);
	if (rc < 0) {
		rc = sop_namespace_enter(a.namespace, &e) ? EXIT_SYSTEM : EXIT_OK;
		if (rc)
			complain("%s", e.text);
		a.dir = rc ? NULL : find(a.where);
		if (!rc && (!a.dir || !is_ours(a.dir))) {
			complain("%s: no sopfs is mounted there", a.where);
			rc = EXIT_FAILED;
		}
		if (!rc) {
			sigaction(SIGINT, &note, NULL);
			sigaction(SIGTERM, &note, NULL);
			rc = unmount(&a);
		}
	}
	free(a.dir);
	return rc;
}
