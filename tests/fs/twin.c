/* twin SEED COUNT DIR DIR: the same random operations on two directories, one on the file system
 * under test, one on a file system that is trusted: each call must give the same result, the same
 * errno, the same bytes. Every file is closed before the next operation, so that sessions and POSIX
 * agree.
 *
 * It keeps no state but the trees: it may be run again on the same pair, after a remount or a
 * crash. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAMES	  6
#define DEPTH_MAX 3
#define IO_MAX	  300000
#define SIZE_MAX_ 600000

static uint64_t rng;
static int root[2];
static unsigned long step;
static char trace[1024];

static uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static void __attribute__((noreturn, format(printf, 1, 2))) differ(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "operation %lu: %s: ", step, trace);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void note(const char *op, const char *a, const char *b, long x, long y)
{
	snprintf(trace, sizeof(trace), "%s %s %s %ld %ld", op, a, b, x, y);
}

static void agree(const long rc[2], const int err[2])
{
	if (rc[0] != rc[1])
		differ("returns %ld (%s), should return %ld (%s)", rc[0],
			rc[0] < 0 ? strerror(err[0]) : "-", rc[1],
			rc[1] < 0 ? strerror(err[1]) : "-");
	if (rc[0] < 0 && err[0] != err[1])
		differ("fails with %s, should fail with %s", strerror(err[0]), strerror(err[1]));
}

static void random_path(char *out, size_t size)
{
	unsigned depth = 1 + (unsigned)rnd(DEPTH_MAX), i;
	size_t used = 0;

	for (i = 0; i < depth; i++)
		used += (size_t)snprintf(
			out + used, size - used, "%sn%u", i ? "/" : "", (unsigned)rnd(NAMES));
}

/* Both do it; results agree. The result is 0, a count, or -1. */
#define BOTH(call)                                                                                 \
	do {                                                                                       \
		long rc_[2];                                                                       \
		int err_[2];                                                                       \
		for (int w = 0; w < 2; w++) {                                                      \
			errno = 0;                                                                 \
			rc_[w] = (long)(call);                                                     \
			err_[w] = errno;                                                           \
		}                                                                                  \
		agree(rc_, err_);                                                                  \
	} while (0)

static char data[IO_MAX], got[2][SIZE_MAX_ + 1];

static long write_at(int w, const char *path, int flags, size_t len, off_t off)
{
	int fd = openat(root[w], path, flags, 0644), err = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	n = flags & O_APPEND ? write(fd, data, len) : pwrite(fd, data, len, off);
	err = errno;
	if (close(fd)) {
		err = errno;
		n = -1;
	}
	errno = err;
	return (long)n;
}

/* Several writes, a truncation and a read of its own in one session. */
static long session(int w, const char *path, uint64_t seed)
{
	int fd = openat(root[w], path, O_RDWR | O_NOFOLLOW), i;
	uint64_t save = rng;
	long sum = 0;

	if (fd < 0)
		return -1;
	rng = seed;
	for (i = 0; i < 5; i++) {
		size_t len = (size_t)rnd(20000);
		off_t off = (off_t)rnd(SIZE_MAX_ - 20000);
		ssize_t n;

		switch (rnd(4)) {
		case 0:
			if (ftruncate(fd, off))
				sum = -1;
			break;
		case 1:
			memset(got[w], 0, len);
			n = pread(fd, got[w], len, off);
			for (ssize_t j = 0; j < n; j++)
				sum = (sum * 31 + (unsigned char)got[w][j]) & 0xffffff;
			sum += n;
			break;
		default:
			if (pwrite(fd, data, len, off) != (ssize_t)len)
				sum = -1;
			break;
		}
	}
	rng = save;
	if (rnd(2)) {
		struct stat st;

		if (fstat(fd, &st))
			sum = -1;
		sum += (long)st.st_size;
	}
	rng = save;
	if (close(fd))
		return -1;
	return sum;
}

static void do_write(const char *path)
{
	static const int flags[] = {O_WRONLY | O_CREAT, O_WRONLY | O_CREAT | O_EXCL, O_WRONLY,
		O_WRONLY | O_TRUNC, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_APPEND,
		O_RDWR | O_CREAT};
	int f = flags[rnd(sizeof(flags) / sizeof(flags[0]))];
	size_t len = rnd(3) ? (size_t)rnd(5000) : (size_t)rnd(IO_MAX), i;
	off_t off = rnd(3) ? 0 : (off_t)rnd(SIZE_MAX_ - IO_MAX);
	uint64_t word = rnd(UINT64_MAX);

	for (i = 0; i < len; i++)
		data[i] = (char)(word >> (i % 8 * 8)) ^ (char)(i >> 8);
	note("write", path, "", (long)len, (long)off);
	BOTH(write_at(w, path, f, len, off));
}

static long read_all(int w, const char *path)
{
	int fd = openat(root[w], path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, got[w], sizeof(got[w]));
	if (close(fd))
		return -1;
	return (long)n;
}

static void do_read(const char *path)
{
	long rc[2];
	int err[2], w;

	note("read", path, "", 0, 0);
	for (w = 0; w < 2; w++) {
		errno = 0;
		rc[w] = read_all(w, path);
		err[w] = errno;
	}
	agree(rc, err);
	if (rc[0] > 0 && memcmp(got[0], got[1], (size_t)rc[0]))
		differ("other bytes are read");
}

static void do_stat(const char *path)
{
	struct stat st[2];
	long rc[2];
	int err[2], w;

	note("stat", path, "", 0, 0);
	for (w = 0; w < 2; w++) {
		rc[w] = fstatat(root[w], path, &st[w], AT_SYMLINK_NOFOLLOW);
		err[w] = errno;
	}
	agree(rc, err);
	if (rc[0])
		return;
	if (st[0].st_mode != st[1].st_mode)
		differ("mode %o, should be %o", st[0].st_mode, st[1].st_mode);
	if (S_ISDIR(st[0].st_mode))
		return;
	if (st[0].st_size != st[1].st_size || st[0].st_nlink != st[1].st_nlink)
		differ("size %ld, links %ld; should be %ld, %ld", (long)st[0].st_size,
			(long)st[0].st_nlink, (long)st[1].st_size, (long)st[1].st_nlink);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static long list(int w, const char *path, char names[][32], size_t max)
{
	int fd = openat(root[w], path, O_RDONLY | O_DIRECTORY);
	struct dirent *d;
	size_t n = 0;
	DIR *dir;

	if (fd < 0)
		return -1;
	dir = fdopendir(fd);
	if (!dir)
		return -1;
	while ((d = readdir(dir)) && n < max)
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			snprintf(names[n++], 32, "%.28s%d", d->d_name, d->d_type);
	closedir(dir);
	qsort(names, n, 32, by_name);
	return (long)n;
}

static void do_list(const char *path)
{
	static char names[2][64][32];
	long rc[2], i;
	int err[2], w;

	note("readdir", path, "", 0, 0);
	for (w = 0; w < 2; w++) {
		rc[w] = list(w, path, names[w], 64);
		err[w] = errno;
	}
	agree(rc, err);
	for (i = 0; i < rc[0]; i++)
		if (strcmp(names[0][i], names[1][i]))
			differ("has %s, should have %s", names[0][i], names[1][i]);
}

static long attribute(int w, const char *path, uint64_t what, uint64_t value)
{
	char full[512], buf[64], name[32];
	ssize_t n;

	snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", root[w], path);
	snprintf(name, sizeof(name), "user.a%u", (unsigned)(value % 3));
	snprintf(buf, sizeof(buf), "value %u", (unsigned)(value % 1000));
	switch (what % 3) {
	case 0:
		return setxattr(full, name, buf, strlen(buf), 0);
	case 1:
		return removexattr(full, name);
	default:
		n = getxattr(full, name, buf, sizeof(buf));
		return n < 0 ? -1 : (long)n * 256 + buf[n - 1];
	}
}

static void do_times(const char *path)
{
	const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
		{.tv_sec = (time_t)rnd(2000000000), .tv_nsec = (long)rnd(1000000000)}};
	struct stat st;

	note("utimens", path, "", 0, 0);
	BOTH(utimensat(root[w], path, t, AT_SYMLINK_NOFOLLOW));
	if (!fstatat(root[0], path, &st, AT_SYMLINK_NOFOLLOW) &&
		(st.st_mtim.tv_sec != t[1].tv_sec || st.st_mtim.tv_nsec != t[1].tv_nsec))
		differ("mtime was not set");
}

static void one(void)
{
	char a[64], b[64];
	uint64_t x, y;

	random_path(a, sizeof(a));
	random_path(b, sizeof(b));
	x = rnd(100000);
	y = rnd(UINT64_MAX) | 1;
	switch (rnd(24)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		do_write(a);
		break;
	case 5:
	case 6:
		do_read(a);
		break;
	case 7:
		do_stat(a);
		break;
	case 8:
		do_list(a);
		break;
	case 9:
	case 10:
		note("mkdir", a, "", 0, 0);
		BOTH(mkdirat(root[w], a, 0755));
		break;
	case 11:
		note("rmdir", a, "", 0, 0);
		BOTH(unlinkat(root[w], a, AT_REMOVEDIR));
		break;
	case 12:
	case 13:
		note("unlink", a, "", 0, 0);
		BOTH(unlinkat(root[w], a, 0));
		break;
	case 14:
	case 15:
		note("rename", a, b, 0, 0);
		BOTH(renameat(root[w], a, root[w], b));
		break;
	case 16:
		note("rename, flags", a, b, (long)(1 + x % 2), 0);
		BOTH(renameat2(root[w], a, root[w], b, 1 + (unsigned)x % 2));
		break;
	case 17:
		note("link", a, b, 0, 0);
		BOTH(linkat(root[w], a, root[w], b, 0));
		break;
	case 18:
		note("symlink", b, a, 0, 0);
		BOTH(symlinkat(b, root[w], a));
		break;
	case 19:
		note("chmod", a, "", (long)(x & 0777), 0);
		BOTH(fchmodat(root[w], a, (mode_t)(x & 0777) | 0700, 0));
		break;
	case 20: {
		char full[512];

		note("truncate", a, "", (long)(x * 3), 0);
		BOTH((snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", root[w], a),
			truncate(full, (off_t)x * 3)));
		break;
	}
	case 21:
		note("xattr", a, "", (long)(x % 3), 0);
		BOTH(attribute(w, a, x, y));
		break;
	case 22:
		do_times(a);
		break;
	default:
		note("session", a, "", 0, 0);
		BOTH(session(w, a, y));
		break;
	}
}

int main(int argc, char **argv)
{
	unsigned long count;

	if (argc != 5) {
		fprintf(stderr, "usage: twin SEED COUNT DIR REFERENCE-DIR\n");
		return 2;
	}
	rng = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
	count = strtoul(argv[2], NULL, 10);
	root[0] = open(argv[3], O_RDONLY | O_DIRECTORY);
	root[1] = open(argv[4], O_RDONLY | O_DIRECTORY);
	if (root[0] < 0 || root[1] < 0) {
		perror("twin");
		return 2;
	}
	for (step = 0; step < count; step++)
		one();
	return 0;
}
