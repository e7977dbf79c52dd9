/* A member folder that fails as it is told: a FUSE file system that passes everything on to a
 * folder, but for what a file asks of it:
 *
 *     faulty_folder BACKING MODE-FILE MOUNTPOINT
 *
 * The file holds words; without it, or without words in it, nothing fails.
 *
 *     hang        no request is answered any more until the word is gone
 *     eio-read    reads of files give EIO
 *     eio-write   writes, and what else changes a file or a name
 *     eio-fsync   syncs of files and folders
 *     enospc      writes that make a file longer, and new files
 *     erofs       all that changes anything
 *     no-link     there are no hard links
 *     no-lock     whoever wants a lock has it
 *     after=N     ... and that only from the N-th request on that reads, changes or syncs
 *     rate=N      nothing fails, but all that is read and written takes its turn at N MiB/s
 *
 * MODE-FILE.hit appears when the first request has failed so, or hangs.
 *
 * Runs in the background. Requests that hang are waited for by the kernel as those of a dead device
 * are: not even SIGKILL gets a process out of them. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static int backing;
static const char *mode_path;
static char hit_path[4096];

enum fault {
	HANG = 1,
	EIO_READ = 2,
	EIO_WRITE = 4,
	EIO_FSYNC = 8,
	FULL = 16,
	READ_ONLY = 32,
	NO_LINK = 64,
	NO_LOCK = 128
};

#define MODE_TEXT 128

/* What the file says; "" when it is not there. */
static void read_mode(char text[MODE_TEXT])
{
	int fd = open(mode_path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, MODE_TEXT - 1);

	text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

/* The number behind a word like "after=", or 0. */
static unsigned long number_in(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at ? strtoul(at + strlen(word), NULL, 10) : 0;
}

static unsigned mode(unsigned long *after)
{
	static const char *const word[] = {"hang", "eio-read", "eio-write", "eio-fsync", "enospc",
		"erofs", "no-link", "no-lock"};
	char text[MODE_TEXT];
	unsigned m = 0;

	read_mode(text);
	for (unsigned i = 0; i < sizeof(word) / sizeof(word[0]); i++)
		m |= strstr(text, word[i]) ? 1u << i : 0;
	*after = number_in(text, "after=");
	return m;
}

/* The faults that strike now. */
static unsigned faults(bool counts)
{
	static atomic_ulong met;
	unsigned long after;
	unsigned m = mode(&after);

	if (!m) {
		atomic_store(&met, 0);
		return 0;
	}
	if (counts ? atomic_fetch_add(&met, 1) + 1 < after : atomic_load(&met) < after)
		return 0;
	return m;
}

static int struck(int rc)
{
	int fd = open(hit_path, O_WRONLY | O_CREAT, 0600);

	if (fd >= 0)
		close(fd);
	return rc;
}

enum what { LOOK, READ, CHANGE, GROW, SYNC };

/* Wait for the turn of so many bytes, as of one that is behind all asked for before. */
static void take_turn(size_t bytes)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t free_ns;
	struct timespec now, until;
	char text[MODE_TEXT];
	unsigned long rate;
	uint64_t ns;

	read_mode(text);
	rate = number_in(text, "rate=");
	if (!rate)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	pthread_mutex_lock(&lock);
	free_ns = free_ns > ns ? free_ns : ns;
	free_ns += bytes * 1000000000u / (rate << 20);
	until.tv_sec = (time_t)(free_ns / 1000000000u);
	until.tv_nsec = (long)(free_ns % 1000000000u);
	pthread_mutex_unlock(&lock);
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* What becomes of a request: 0, or -errno. */
static int gate(enum what what)
{
	unsigned m = faults(what != LOOK);

	while (m & HANG) {
		struck(0);
		usleep(20000);
		m = faults(false);
	}
	if ((what == READ && m & EIO_READ) || (what == SYNC && m & EIO_FSYNC))
		return struck(-EIO);
	if (what != CHANGE && what != GROW)
		return 0;
	if (m & READ_ONLY)
		return struck(-EROFS);
	if (m & EIO_WRITE)
		return struck(-EIO);
	return what == GROW && m & FULL ? struck(-ENOSPC) : 0;
}

static const char *at(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int result(int rc)
{
	return rc < 0 ? -errno : rc;
}

static int ff_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	gate(LOOK);
	if (fi)
		return result(fstat((int)fi->fh, st));
	return result(fstatat(backing, at(path), st, AT_SYMLINK_NOFOLLOW));
}

static int open_at(const char *path, int flags, mode_t perm, struct fuse_file_info *fi)
{
	int fd = openat(backing, at(path), flags & ~(O_APPEND | O_DIRECT), perm);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	fi->direct_io = 1; /* reads are not answered from the kernel's memory either */
	return 0;
}

static int ff_open(const char *path, struct fuse_file_info *fi)
{
	int rc = gate((fi->flags & O_ACCMODE) == O_RDONLY ? LOOK : CHANGE);

	return rc ? rc : open_at(path, fi->flags, 0, fi);
}

static int ff_create(const char *path, mode_t perm, struct fuse_file_info *fi)
{
	int rc = gate(GROW);

	return rc ? rc : open_at(path, fi->flags | O_CREAT, perm, fi);
}

static int ff_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	int rc = gate(READ);

	(void)path;
	take_turn(len);
	return rc ? rc : result((int)pread((int)fi->fh, buf, len, off));
}

static int ff_write(
	const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct stat st;
	int rc;

	(void)path;
	if (fstat((int)fi->fh, &st))
		return -errno;
	rc = gate(off + (off_t)len > st.st_size ? GROW : CHANGE);
	take_turn(len);
	return rc ? rc : result((int)pwrite((int)fi->fh, buf, len, off));
}

static int ff_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	int rc = gate(SYNC);

	(void)path;
	(void)datasync;
	return rc ? rc : result(fdatasync((int)fi->fh));
}

static int ff_flush(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	return gate(LOOK);
}

static int ff_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int ff_truncate(const char *path, off_t len, struct fuse_file_info *fi)
{
	int rc = gate(CHANGE), fd;

	if (rc)
		return rc;
	if (fi)
		return result(ftruncate((int)fi->fh, len));
	fd = openat(backing, at(path), O_WRONLY);
	if (fd < 0)
		return -errno;
	rc = result(ftruncate(fd, len));
	close(fd);
	return rc;
}

static int ff_fallocate(const char *path, int how, off_t off, off_t len, struct fuse_file_info *fi)
{
	int rc = gate(CHANGE);

	(void)path;
	return rc ? rc : result(fallocate((int)fi->fh, how, off, len));
}

static int ff_unlink(const char *path)
{
	int rc = gate(CHANGE);

	return rc ? rc : result(unlinkat(backing, at(path), 0));
}

static int ff_link(const char *from, const char *to)
{
	int rc = gate(CHANGE);

	if (rc)
		return rc;
	return faults(false) & NO_LINK ? struck(-EPERM)
				       : result(linkat(backing, at(from), backing, at(to), 0));
}

static int ff_flock(const char *path, struct fuse_file_info *fi, int how)
{
	(void)path;
	gate(LOOK);
	return faults(false) & NO_LOCK ? struck(0) : result(flock((int)fi->fh, how));
}

static int ff_mkdir(const char *path, mode_t perm)
{
	int rc = gate(GROW);

	return rc ? rc : result(mkdirat(backing, at(path), perm));
}

static int ff_rename(const char *from, const char *to, unsigned flags)
{
	int rc = gate(CHANGE);

	if (rc)
		return rc;
	return flags ? -EINVAL : result(renameat(backing, at(from), backing, at(to)));
}

static int ff_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
	struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct dirent *e;
	DIR *d;
	int fd;

	(void)off;
	(void)fi;
	(void)flags;
	gate(LOOK);
	fd = openat(backing, at(path), O_RDONLY | O_DIRECTORY);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return -errno;
	while ((e = readdir(d)))
		if (fill(buf, e->d_name, NULL, 0, 0))
			break;
	closedir(d);
	return 0;
}

static int ff_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	(void)fi;
	return gate(SYNC);
}

static int ff_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	gate(LOOK);
	return result(fstatvfs(backing, st));
}

/* Nothing is answered from the kernel's memory of names: who looks is asked here. */
static void *ff_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	(void)conn;
	cfg->entry_timeout = 0;
	cfg->attr_timeout = 0;
	cfg->negative_timeout = 0;
	cfg->hard_remove = 1;
	return NULL;
}

static const struct fuse_operations ops = {
	.init = ff_init,
	.getattr = ff_getattr,
	.open = ff_open,
	.create = ff_create,
	.read = ff_read,
	.write = ff_write,
	.fsync = ff_fsync,
	.flush = ff_flush,
	.release = ff_release,
	.truncate = ff_truncate,
	.fallocate = ff_fallocate,
	.unlink = ff_unlink,
	.link = ff_link,
	.flock = ff_flock,
	.mkdir = ff_mkdir,
	.rename = ff_rename,
	.readdir = ff_readdir,
	.fsyncdir = ff_fsyncdir,
	.statfs = ff_statfs,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0], argc == 4 ? argv[3] : NULL, NULL};

	if (argc != 4) {
		fprintf(stderr, "usage: %s BACKING MODE-FILE MOUNTPOINT\n", argv[0]);
		return 2;
	}
	mode_path = argv[2];
	snprintf(hit_path, sizeof(hit_path), "%s.hit", mode_path);
	backing = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (backing < 0) {
		perror(argv[1]);
		return 1;
	}
	return fuse_main(2, args, &ops, NULL);
}
