#include "fs/closer.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define PF_EXITING	0x4ul
#define STAT_FLAGS	9
#define STAT_EXIT_CODE	52
#define DESCRIPTORS_MAX 4096
#define CLIENTS		64
#define ASLEEP_TRIES	100

bool sopfs_closer_statm_empty(const char *text, size_t len)
{
	bool digit = false;

	for (size_t i = 0; i < len; i++) {
		if (text[i] >= '1' && text[i] <= '9')
			return false;
		digit = digit || text[i] == '0';
	}
	return digit;
}

bool sopfs_closer_parse_stat(const char *text, size_t len, unsigned long *flags, int *exit_code)
{
	sop_autofree char *copy = malloc(len + 1);
	char *p, *end;

	if (!copy)
		return false;
	memcpy(copy, text, len);
	copy[len] = 0;
	/* Field 2 is the command in parentheses and may hold anything, parentheses too. */
	p = strrchr(copy, ')');
	if (!p)
		return false;
	p++;
	for (int field = 3; field <= STAT_EXIT_CODE; field++) {
		unsigned long n;

		while (*p == ' ')
			p++;
		if (!*p || *p == '\n')
			return false;
		if (field == 3) {
			p++; /* the state, a letter */
			continue;
		}
		errno = 0;
		n = strtoul(p, &end, 10); /* negative ones wrap, and are none of ours */
		if (end == p)
			return false;
		if (field == STAT_FLAGS)
			*flags = n;
		if (field == STAT_EXIT_CODE)
			*exit_code = (int)n;
		p = end;
	}
	return true;
}

/* The statm files of the last clients stay open: reading an open one costs a fifth. One of a thread
 * that is gone gives ESRCH even if its number was given out again. */
static struct client {
	pthread_mutex_t lock;
	int tid, fd, process; /* tid 0: none; process 0: not known yet */
} clients[CLIENTS] = {[0 ... CLIENTS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static ssize_t statm_open_read(struct client *c, int tid, char *buf, size_t size)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/statm", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (c->tid)
		close(c->fd);
	c->tid = tid;
	c->fd = fd;
	c->process = 0;
	return pread(fd, buf, size, 0);
}

/* c->lock held: what c knows is of this thread if something is returned. */
static ssize_t statm_read(struct client *c, int tid, char *buf, size_t size)
{
	ssize_t n = c->tid == tid ? pread(c->fd, buf, size, 0) : 0;

	return n > 0 ? n : statm_open_read(c, tid, buf, size);
}

static ssize_t read_all(const char *path, char *buf, size_t size)
{
	sop_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : read(fd, buf, size);
}

/* c->lock held: of the thread whose statm has just been read. */
static int process_of(struct client *c)
{
	char buf[1024], path[32], *line;
	int process;
	ssize_t n;

	if (c->process)
		return c->process;
	snprintf(path, sizeof(path), "/proc/%d/status", c->tid);
	n = read_all(path, buf, sizeof(buf) - 1);
	if (n <= 0)
		return c->tid;
	buf[n] = 0;
	line = strstr(buf, "\nTgid:");
	process = line ? (int)strtol(line + 6, NULL, 10) : 0;
	if (process <= 0)
		return c->tid;
	c->process = process;
	return process;
}

/* Its statm as text, and its process; 0 or less: it is gone. */
static ssize_t client_look(int tid, char *buf, size_t size, int *process)
{
	struct client *c = &clients[(unsigned)tid % CLIENTS];
	ssize_t n;

	pthread_mutex_lock(&c->lock);
	n = statm_read(c, tid, buf, size);
	*process = n > 0 ? process_of(c) : tid;
	pthread_mutex_unlock(&c->lock);
	return n;
}

int sopfs_closer_parent(int process)
{
	char buf[1024], path[32], *line;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/status", process);
	n = process > 0 ? read_all(path, buf, sizeof(buf) - 1) : -1;
	if (n <= 0)
		return 0;
	buf[n] = 0;
	line = strstr(buf, "\nPPid:");
	return line ? SOP_MAX(0, (int)strtol(line + 6, NULL, 10)) : 0;
}

int sopfs_closer_process(int tid)
{
	char buf[256];
	int process;

	if (tid <= 0)
		return 0;
	(void)client_look(tid, buf, sizeof(buf), &process);
	return process;
}

void sopfs_closer_look(int tid, struct sopfs_closer *out)
{
	char buf[1024], path[32];
	unsigned long flags = 0;
	int code = 0;
	ssize_t n;

	*out = (struct sopfs_closer){.process = SOP_MAX(tid, 0)};
	if (tid <= 0)
		return;
	n = client_look(tid, buf, sizeof(buf), &out->process);
	if (n <= 0)
		return;
	if (!sopfs_closer_statm_empty(buf, (size_t)n))
		return;
	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	n = read_all(path, buf, sizeof(buf));
	if (n <= 0 || !sopfs_closer_parse_stat(buf, (size_t)n, &flags, &code))
		return;
	if (!(flags & PF_EXITING))
		return;
	out->exiting = true;
	out->signal = code & 0x7f;
	out->killed = out->signal != 0;
	out->status = (code >> 8) & 0xff;
}

/* fdinfo names the inode. It may be one of another filesystem that has the same number: type and
 * device decide, as far as they can, by a statx that answers from the kernel's inode and never asks
 * us. Ours has no device behind it (major 0); which of those it is need not be known, as a wrong
 * "yes" only delays a commit to the last close. */
static bool descriptor_is(int dir, const char *name, uint64_t ino, int access)
{
	char path[280], text[256];
	struct statx sx;
	char *line;
	int at;
	ssize_t n;

	snprintf(path, sizeof(path), "../fdinfo/%s", name);
	at = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (at < 0)
		return false;
	n = read(at, text, sizeof(text) - 1);
	close(at);
	if (n <= 0)
		return false;
	text[n] = 0;
	line = strstr(text, "\nino:");
	if (!line || strtoull(line + 5, NULL, 10) != ino)
		return false;
	line = strstr(text, "\nflags:");
	if (access >= 0 && line && (int)(strtoul(line + 7, NULL, 8) & O_ACCMODE) != access)
		return false;
	if (statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &sx))
		return false;
	return S_ISREG(sx.stx_mode) && sx.stx_dev_major == 0;
}

enum sopfs_lock_kind sopfs_closer_parse_syscall(const char *text)
{
	unsigned long number, fd, command;

	if (sscanf(text, "%lu %lx %lx", &number, &fd, &command) != 3 || number != SYS_fcntl)
		return SOPFS_LOCK_UNKNOWN;
	return command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK
		       ? SOPFS_LOCK_OFD
		       : SOPFS_LOCK_POSIX;
}

/* /proc/TID/syscall waits for an execve of the process; but a thread that waits for us in fcntl is
 * not in execve, and another thread of it that is goes on only when this one has ended. */
enum sopfs_lock_kind sopfs_closer_lock_kind(int tid)
{
	char path[32], text[256];

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	for (unsigned i = 0; tid > 0 && i < ASLEEP_TRIES; i++) {
		ssize_t n = read_all(path, text, sizeof(text) - 1);

		if (n <= 0)
			break;
		text[n] = 0;
		/* Its request is here, and it has not gone to sleep yet. */
		if (strncmp(text, "running", 7))
			return sopfs_closer_parse_syscall(text);
		sched_yield();
	}
	return SOPFS_LOCK_UNKNOWN;
}

unsigned sopfs_closer_list(int tid, uint64_t ino, int *fd, unsigned max)
{
	char path[32];
	struct dirent *d;
	unsigned n = 0, seen = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", tid);
	dir = tid > 0 ? opendir(path) : NULL;
	if (!dir)
		return 0;
	while (seen++ <= DESCRIPTORS_MAX && (d = readdir(dir))) {
		if (!isdigit((unsigned char)d->d_name[0]) ||
			!descriptor_is(dirfd(dir), d->d_name, ino, -1))
			continue;
		if (n < max)
			fd[n] = (int)strtol(d->d_name, NULL, 10);
		n++;
	}
	closedir(dir);
	return n;
}

static bool thread_closed(int tasks, const char *tid, const char *fd, uint64_t ino)
{
	char path[32];
	sop_autoclose int dir = -1;

	snprintf(path, sizeof(path), "%.20s/fd", tid);
	dir = openat(tasks, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT;
	errno = 0; /* what cannot be looked at is not known to be closed */
	return !descriptor_is(dir, fd, ino, -1) && (!errno || errno == ENOENT);
}

/* Of its threads any may have it: the first, by whose number the process goes, may have ended. */
bool sopfs_closer_closed(int process, int fd, uint64_t ino)
{
	char path[32], name[16];
	struct dirent *d;
	bool closed = true;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", process);
	tasks = opendir(path);
	if (!tasks)
		return errno == ENOENT;
	snprintf(name, sizeof(name), "%d", fd);
	while (closed && (d = readdir(tasks)))
		closed = !isdigit((unsigned char)d->d_name[0]) ||
			 thread_closed(dirfd(tasks), d->d_name, name, ino);
	closedir(tasks);
	return closed;
}

int sopfs_closer_descriptors(int process, uint64_t ino, int access)
{
	char path[32];
	struct dirent *d;
	unsigned seen = 0;
	int count = 0;
	DIR *dir;

	if (process <= 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/fd", process);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -1;
	while ((d = readdir(dir))) {
		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		if (++seen > DESCRIPTORS_MAX) {
			count = INT_MAX;
			break;
		}
		count += descriptor_is(dirfd(dir), d->d_name, ino, access);
	}
	closedir(dir);
	return count;
}
