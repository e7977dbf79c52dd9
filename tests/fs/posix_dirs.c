/* posix_dirs DIR COUNT: directories that are read while they change. Any POSIX file system passes:
 * an entry that is there throughout comes exactly once, from every position, with buffers of every
 * size. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define STABLE 500
#define BIG    "large"

static atomic_bool stop;

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (errno %s)\n", strerrorname_np(err));
	exit(1);
}

/* prefix and number are its name */
static void make(const char *prefix, unsigned i)
{
	char path[128];

	snprintf(path, sizeof(path), "%s%04u", prefix, i);
	if (mknod(path, S_IFREG | 0600, 0))
		fail("%s", path);
}

/* Stable entries are s0000 .. ; all others come and go. -1: another, else its number. */
static int stable(const char *name)
{
	return name[0] == 's' ? atoi(name + 1) : -1;
}

/* ---- others at work ---- */

static void *churn(void *arg)
{
	uint64_t x = (uint64_t)(uintptr_t)arg * 7919 + 1;

	for (unsigned k = 0; !stop; k++) {
		char a[64], b[64];

		x = x * 6364136223846793005u + 1442695040888963407u;
		snprintf(a, sizeof(a), "d/?%04u.%u", (unsigned)(x >> 33) % STABLE,
			(unsigned)(x >> 50) % 5);
		/* Beside the stable ones, which begin with s. */
		a[2] = (x >> 20) % 2 ? 'r' : 't';
		snprintf(b, sizeof(b), "d/x%u", (unsigned)(x >> 40) % 50);
		switch (k % 4) {
		case 0:
			close(open(a, O_CREAT | O_WRONLY, 0600));
			break;
		case 1:
			rename(a, b);
			break;
		case 2:
			unlink(a);
			break;
		default:
			unlink(b);
			break;
		}
	}
	return NULL;
}

static void check_positions(void)
{
	static long at[STABLE + 60000];
	static int next[STABLE + 60000];
	static bool seen[STABLE];
	size_t n = 0;
	struct dirent *e;
	DIR *d = opendir("d");

	if (!d)
		fail("opendir");
	memset(seen, 0, sizeof(seen));
	for (;;) {
		at[n] = telldir(d);
		errno = 0;
		e = readdir(d);
		if (!e)
			break;
		next[n] = stable(e->d_name);
		if (next[n] >= 0) {
			if (seen[next[n]])
				fail("%s comes twice", e->d_name);
			seen[next[n]] = true;
		}
		n++;
	}
	if (errno)
		fail("readdir");
	for (unsigned i = 0; i < STABLE; i++)
		if (!seen[i])
			fail("s%04u does not come", i);
	/* From every position, the same stable entry comes next. */
	for (size_t i = 0; i < n; i++) {
		size_t k = i;

		while (k < n && next[k] < 0)
			k++;
		seekdir(d, at[i]);
		do {
			errno = 0;
			e = readdir(d);
		} while (e && stable(e->d_name) < 0);
		if (k < n && (!e || stable(e->d_name) != next[k]))
			fail("after seekdir to position %zu: %s, want s%04d", i,
				e ? e->d_name : "the end", next[k]);
	}
	rewinddir(d);
	n = 0;
	while ((e = readdir(d)))
		n += stable(e->d_name) >= 0;
	if (n != STABLE)
		fail("after rewinddir: %zu of %d", n, STABLE);
	closedir(d);
}

/* getdents with a buffer of this size, as long as it takes. */
static void check_buffer(size_t size)
{
	static bool seen[STABLE];
	char buf[1024];
	int fd = open("d", O_RDONLY | O_DIRECTORY);
	unsigned count = 0;
	long n;

	memset(seen, 0, sizeof(seen));
	while ((n = syscall(SYS_getdents64, fd, buf, size)) > 0) {
		for (long off = 0; off < n;) {
			uint16_t len;
			int i;

			memcpy(&len, buf + off + 16, sizeof(len));
			i = stable(buf + off + 19);
			if (i >= 0 && seen[i])
				fail("buffer of %zu: s%04d comes twice", size, i);
			if (i >= 0) {
				seen[i] = true;
				count++;
			}
			off += len;
		}
	}
	close(fd);
	/* The longest name here has 8 bytes: 19 + 8 + 1, rounded up. */
	if (n < 0 && size < 32 && errno == EINVAL)
		return;
	if (n < 0 || count != STABLE)
		fail("buffer of %zu: %u of %d", size, count, STABLE);
}

static void while_it_changes(void)
{
	pthread_t t[2];

	if (mkdir("d", 0755))
		fail("d");
	for (unsigned i = 0; i < STABLE; i++)
		make("d/s", i);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, churn, (void *)(i + 1));
	for (unsigned i = 0; i < 2; i++)
		check_positions();
	for (size_t size = 24; size < 1024; size = size < 64 ? size + 8 : size * 2)
		check_buffer(size);
	stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* ---- types ---- */

static void check_types(void)
{
	static const struct {
		const char *name;
		unsigned char type;
	} want[] = {{"reg", DT_REG}, {"dir", DT_DIR}, {"lnk", DT_LNK}, {"fifo", DT_FIFO},
		{"sock", DT_SOCK}, {"chr", DT_CHR}, {"blk", DT_BLK}, {"hard", DT_REG},
		{"open", DT_REG}};
	struct dirent *e;
	unsigned found = 0;
	int fd;
	DIR *d;

	mkdir("t", 0755);
	mkdir("t/dir", 0755);
	fd = open("t/open", O_CREAT | O_WRONLY, 0600);
	if (mknod("t/reg", S_IFREG, 0) || symlink("x", "t/lnk") || mkfifo("t/fifo", 0600) ||
		mknod("t/sock", S_IFSOCK, 0) || link("t/reg", "t/hard") || fd < 0)
		fail("types");
	/* Devices need privilege. */
	if (mknod("t/chr", S_IFCHR, 0x103) || mknod("t/blk", S_IFBLK, 0x701))
		found += 2;
	d = opendir("t");
	while ((e = readdir(d))) {
		struct stat st;

		if (e->d_name[0] == '.' && e->d_type != DT_DIR)
			fail("type of %s is %d", e->d_name, e->d_type);
		for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
			if (strcmp(want[i].name, e->d_name))
				continue;
			found++;
			if (e->d_type != want[i].type)
				fail("type of %s is %d", e->d_name, e->d_type);
			if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
				st.st_ino != e->d_ino)
				fail("inode number of %s", e->d_name);
		}
	}
	closedir(d);
	close(fd);
	if (found != sizeof(want) / sizeof(want[0]))
		fail("%u types", found);
}

/* ---- removal while reading ---- */

static void check_removal(void)
{
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	mkdir("u", 0755);
	for (unsigned i = 0; i < 2000; i++)
		make("u/f", i);
	d = opendir("u");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0))
			fail("unlink of %s, which was just listed", e->d_name);
		n++;
	}
	closedir(d);
	if (n != 2000)
		fail("%u of 2000 were there to remove", n);
	if (rmdir("u"))
		fail("rmdir of what has been emptied");
}

static void *walk(void *arg)
{
	unsigned *rounds = arg;

	while (!stop) {
		DIR *top = opendir("w");
		struct dirent *e, *f;

		if (!top && errno == ENOENT)
			continue;
		if (!top)
			fail("opendir w");
		for (errno = 0; (e = readdir(top)); errno = 0) {
			int fd = openat(dirfd(top), e->d_name, O_RDONLY | O_DIRECTORY);
			DIR *d = fd < 0 ? NULL : fdopendir(fd);

			if (!d) {
				if (errno != ENOENT && errno != ENOTDIR)
					fail("opening %s", e->d_name);
				continue;
			}
			for (errno = 0; (f = readdir(d)); errno = 0)
				;
			if (errno)
				fail("reading %s while it goes", e->d_name);
			closedir(d);
		}
		if (errno)
			fail("reading w while it goes");
		closedir(top);
		++*rounds;
	}
	return NULL;
}

/* rm -rf of a tree that others walk through: neither of them fails. */
static void check_rm(void)
{
	unsigned rounds = 0;
	pthread_t t;

	stop = false;
	pthread_create(&t, NULL, walk, &rounds);
	for (unsigned r = 0; r < 2; r++) {
		mkdir("w", 0755);
		for (unsigned i = 0; i < 30; i++) {
			char path[64];

			snprintf(path, sizeof(path), "w/%u", i);
			mkdir(path, 0755);
			snprintf(path, sizeof(path), "w/%u/", i);
			for (unsigned k = 0; k < 40; k++)
				make(path, k);
		}
		if (system("rm -rf w"))
			fail("rm -rf");
	}
	stop = true;
	pthread_join(t, NULL);
}

/* ---- a large one ---- */

static void check_large(unsigned count)
{
	struct dirent *e;
	struct stat st;
	unsigned n = 0;
	char path[64];
	DIR *d;

	mkdir(BIG, 0755);
	for (unsigned i = 0; i < count; i++)
		make(BIG "/entry-", i);
	d = opendir(BIG);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	if (n != count)
		fail("%u entries listed, of %u", n, count);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(path, sizeof(path), BIG "/entry-%04u", i * 7919 % count);
		if (stat(path, &st))
			fail("%s", path);
	}
	snprintf(path, sizeof(path), BIG "/entry-%04u", count);
	if (!stat(path, &st) || errno != ENOENT)
		fail("%s is there", path);
	if (rmdir(BIG) != -1 || errno != ENOTEMPTY)
		fail("rmdir of a full one");
}

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[1])) {
		fprintf(stderr, "usage: posix_dirs DIR COUNT\n");
		return 2;
	}
	while_it_changes();
	check_types();
	check_removal();
	check_rm();
	check_large((unsigned)atoi(argv[2]));
	return 0;
}
