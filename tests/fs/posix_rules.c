/* posix_rules DIR: what calls do beyond their errors: times, owners and modes of what is new,
 * set-ID bits, access lists, names of open files, extended attributes, limits. A line each; two
 * file systems are alike when they give the same lines. The test compares with ext4. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

/* "label: 3", "label: ENOENT" */
static long __attribute__((format(printf, 2, 3))) say(long rc, const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (rc < 0)
		printf(": %s\n", strerrorname_np(err));
	else
		printf(": %ld\n", rc);
	return rc;
}

static void become(uid_t uid, gid_t gid, gid_t group)
{
	if (setresuid(0, 0, 0) || setgroups(group ? 1 : 0, &group) || setresgid(gid, gid, 0) ||
		setresuid(uid, uid, 0))
		die("becoming another user");
}

static void root(void)
{
	become(0, 0, 0);
}

static void put(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fchmod(fd, mode) ||
		close(fd))
		die(path);
}

static void show(const char *label, const char *path)
{
	struct stat st;

	printf("%s: ", label);
	if (lstat(path, &st))
		printf("%s\n", strerrorname_np(errno));
	else if (S_ISDIR(st.st_mode))
		printf("%o %u:%u links %lu\n", st.st_mode, st.st_uid, st.st_gid,
			(unsigned long)st.st_nlink);
	else
		printf("%o %u:%u links %lu size %lld rdev %x\n", st.st_mode, st.st_uid, st.st_gid,
			(unsigned long)st.st_nlink, (long long)st.st_size, (unsigned)st.st_rdev);
}

static void show_fd(const char *label, int fd)
{
	struct stat st;

	printf("%s: ", label);
	if (fstat(fd, &st))
		printf("%s\n", strerrorname_np(errno));
	else
		printf("%o %u:%u links %lu size %lld\n", st.st_mode, st.st_uid, st.st_gid,
			(unsigned long)st.st_nlink,
			S_ISDIR(st.st_mode) ? 0 : (long long)st.st_size);
}

/* ---- times ---- */

struct times {
	bool there;
	mode_t mode;
	uint64_t ino;
	struct timespec a, m, c, b;
};

static struct times times_of(const char *path)
{
	struct times t = {0};
	struct statx x;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &x))
		return t;
	t.there = true;
	t.mode = x.stx_mode;
	t.ino = x.stx_ino;
	t.a = (struct timespec){x.stx_atime.tv_sec, x.stx_atime.tv_nsec};
	t.m = (struct timespec){x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec};
	t.c = (struct timespec){x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec};
	if (x.stx_mask & STATX_BTIME)
		t.b = (struct timespec){x.stx_btime.tv_sec, x.stx_btime.tv_nsec};
	return t;
}

static bool same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Until what is done now has another time than what was done before, by the coarse clock too. */
static void next_tick(void)
{
	struct timespec a, b;

	for (int i = 0; i < 2; i++) {
		clock_gettime(CLOCK_REALTIME_COARSE, &a);
		do
			clock_gettime(CLOCK_REALTIME_COARSE, &b);
		while (same(a, b));
	}
}

static const char *const watched[] = {
	"t/p", "t/p/f", "t/p/g", "t/q", "t/q/h", "t/p/sub", "t/q/x", "t/p/l"};
static struct times before[COUNT(watched)];

static void times_setup(void)
{
	const struct timespec old[2] = {{1000000000, 1}, {1000000001, 2}};

	if (system("rm -rf t") || mkdir("t", 0755) || mkdir("t/p", 0755) || mkdir("t/q", 0755) ||
		mkdir("t/p/sub", 0755))
		die("t");
	put("t/p/f", "hello", 0644);
	put("t/q/h", "other", 0644);
	if (link("t/p/f", "t/p/g") || symlink("f", "t/p/l"))
		die("t/p/g");
	for (size_t i = 0; i < COUNT(watched); i++)
		utimensat(AT_FDCWD, watched[i], old, AT_SYMLINK_NOFOLLOW);
	next_tick();
	for (size_t i = 0; i < COUNT(watched); i++)
		before[i] = times_of(watched[i]);
	next_tick();
}

static void times_say(const char *what, long rc)
{
	struct timespec now;

	printf("times of %s = %s:", what, rc < 0 ? strerrorname_np(errno) : "ok");
	clock_gettime(CLOCK_REALTIME, &now);
	for (size_t i = 0; i < COUNT(watched); i++) {
		struct times t = times_of(watched[i]);

		if (t.there != before[i].there) {
			printf(" %s %s", watched[i] + 2, t.there ? "new" : "gone");
			if (!t.there)
				continue;
			/* All four within this second or so, born now, and the same. */
			printf("%s%s", now.tv_sec - t.c.tv_sec < 5 ? "" : " ctime old",
				now.tv_sec - t.b.tv_sec < 5 ? "" : " btime old");
			if (!S_ISDIR(t.mode) && same(t.a, t.m) && same(t.m, t.c) && same(t.c, t.b))
				printf(" equal");
			continue;
		}
		if (!t.there)
			continue;
		if (same(t.a, before[i].a) && same(t.m, before[i].m) && same(t.c, before[i].c) &&
			same(t.b, before[i].b))
			continue;
		/* Another file there was born at another time, or within one tick. */
		if (t.ino != before[i].ino)
			t.b = before[i].b;
		printf(" %s %s%s%s%s", watched[i] + 2, same(t.a, before[i].a) ? "-" : "a",
			same(t.m, before[i].m) ? "-" : "m", same(t.c, before[i].c) ? "-" : "c",
			same(t.b, before[i].b) ? "-" : "b");
		if (!same(t.c, before[i].c) && t.c.tv_sec < before[i].c.tv_sec)
			printf(" ctime back");
	}
	printf("\n");
}

#define TIMES(what)                                                                                \
	do {                                                                                       \
		times_setup();                                                                     \
		times_say(#what, (long)(what));                                                    \
	} while (0)

static int wr(const char *path, int flags, const char *text)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		return -1;
	if (write(fd, text, strlen(text)) < 0)
		return -1;
	return close(fd);
}

static int rd(const char *path)
{
	char buf[16];
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, buf, sizeof(buf)) < 0)
		return -1;
	return close(fd);
}

static int with_fd(const char *path, int how, long x)
{
	int fd = open(path, O_RDWR), rc = -1;
	char *map;

	if (fd < 0)
		return -1;
	switch (how) {
	case 't':
		rc = ftruncate(fd, x);
		break;
	case 'c':
		rc = fchmod(fd, (mode_t)x);
		break;
	case 'o':
		rc = fchown(fd, (uid_t)x, (gid_t)-1);
		break;
	case 'a':
		rc = fallocate(fd, 0, 0, x);
		break;
	case 'k':
		rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, x);
		break;
	case 'p':
		rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, x);
		break;
	case 'm':
		map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			break;
		map[0] = 'x';
		rc = msync(map, 4096, MS_SYNC);
		munmap(map, 4096);
		break;
	case 'z':
		rc = (int)write(fd, "", 0);
		break;
	case 'u':
		rc = futimens(fd, NULL);
		break;
	case 'w': {
		const struct timespec set[2] = {{0, UTIME_OMIT}, {1234567890, 123456789}};

		/* Times set by hand after a write stay. */
		rc = pwrite(fd, "w", 1, 0) == 1 ? futimens(fd, set) : -1;
		break;
	}
	default:
		break;
	}
	if (close(fd))
		return -1;
	return rc;
}

static int list(const char *path)
{
	DIR *d = opendir(path);

	if (!d)
		return -1;
	while (readdir(d))
		;
	return closedir(d);
}

static int utime_parts(const char *path, long a, long m)
{
	const struct timespec t[2] = {{5, a}, {6, m}};

	return utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW);
}

static int copy_range(const char *from, const char *to)
{
	int a = open(from, O_RDONLY), b = open(to, O_WRONLY), rc;

	rc = (int)copy_file_range(a, NULL, b, NULL, 3, 0);
	close(a);
	return close(b) ? -1 : rc;
}

static void check_times(void)
{
	TIMES(wr("t/q/x", O_WRONLY | O_CREAT | O_EXCL, ""));
	TIMES(wr("t/p/f", O_WRONLY | O_CREAT, ""));
	TIMES(wr("t/p/f", O_WRONLY | O_TRUNC, ""));
	TIMES(wr("t/p/f", O_WRONLY, "x"));
	TIMES(wr("t/p/f", O_WRONLY | O_APPEND, "x"));
	TIMES(with_fd("t/p/f", 'z', 0));
	TIMES(rd("t/p/f"));
	TIMES(list("t/p"));
	TIMES(truncate("t/p/f", 5));
	TIMES(truncate("t/p/f", 3));
	TIMES(truncate("t/p/f", 7));
	TIMES(with_fd("t/p/f", 't', 5));
	TIMES(with_fd("t/p/f", 't', 3));
	TIMES(with_fd("t/p/f", 't', 7));
	TIMES(with_fd("t/p/f", 'a', 3));
	TIMES(with_fd("t/p/f", 'a', 9));
	TIMES(with_fd("t/p/f", 'k', 9));
	TIMES(with_fd("t/p/f", 'p', 3));
	TIMES(with_fd("t/p/f", 'm', 0));
	TIMES(with_fd("t/p/f", 'u', 0));
	TIMES(with_fd("t/p/f", 'w', 0));
	TIMES(chmod("t/p/f", 0644));
	TIMES(chmod("t/p/f", 0600));
	TIMES(with_fd("t/p/f", 'c', 0640));
	TIMES(chmod("t/p", 0700));
	TIMES(chown("t/p/f", (uid_t)-1, (gid_t)-1));
	TIMES(chown("t/p/f", 1, (gid_t)-1));
	TIMES(with_fd("t/p/f", 'o', 1));
	TIMES(lchown("t/p/l", 1, 1));
	TIMES(link("t/p/f", "t/q/x"));
	TIMES(link("t/p/f", "t/q/h"));
	TIMES(unlink("t/p/g"));
	TIMES(unlink("t/q/h"));
	TIMES(rename("t/p/f", "t/p/new"));
	TIMES(rename("t/p/f", "t/p/g"));
	TIMES(rename("t/p/f", "t/q/x"));
	TIMES(rename("t/p/f", "t/q/h"));
	TIMES(rename("t/q/h", "t/p/f"));
	TIMES(rename("t/p/sub", "t/q/x"));
	TIMES(rename("t/p/sub", "t/p/other"));
	TIMES(renameat2(AT_FDCWD, "t/p/f", AT_FDCWD, "t/q/h", RENAME_EXCHANGE));
	TIMES(renameat2(AT_FDCWD, "t/p/sub", AT_FDCWD, "t/q/h", RENAME_EXCHANGE));
	TIMES(renameat2(AT_FDCWD, "t/p/f", AT_FDCWD, "t/q/h", RENAME_NOREPLACE));
	TIMES(mkdir("t/q/x", 0755));
	TIMES(mkdir("t/q/h", 0755));
	TIMES(rmdir("t/p/sub"));
	TIMES(rmdir("t/p"));
	TIMES(symlink("any", "t/q/x"));
	TIMES(mkfifo("t/q/x", 0644));
	TIMES(mknod("t/q/x", S_IFREG | 0644, 0));
	TIMES(mknod("t/q/x", S_IFCHR | 0644, makedev(1, 3)));
	TIMES(utimensat(AT_FDCWD, "t/p/f", NULL, 0));
	TIMES(utime_parts("t/p/f", 7, 8));
	TIMES(utime_parts("t/p/f", UTIME_OMIT, 8));
	TIMES(utime_parts("t/p/f", 7, UTIME_OMIT));
	TIMES(utime_parts("t/p/f", UTIME_NOW, UTIME_OMIT));
	TIMES(utime_parts("t/p/f", UTIME_OMIT, UTIME_NOW));
	TIMES(utime_parts("t/p/f", UTIME_OMIT, UTIME_OMIT));
	TIMES(utime_parts("t/p/l", 7, 8));
	TIMES(utime_parts("t/p", 7, 8));
	TIMES(setxattr("t/p/f", "user.a", "1", 1, 0));
	TIMES(setxattr("t/p/f", "user.a", "1", 1, XATTR_REPLACE));
	TIMES(removexattr("t/p/f", "user.a"));
	TIMES(setxattr("t/p", "user.a", "1", 1, 0));
	TIMES(copy_range("t/p/f", "t/q/h"));
	TIMES(access("t/p/f", R_OK));
	TIMES(readlink("t/p/l", (char[8]){0}, 8));
}

/* Seconds that ext4 can keep, and what lies at its edges. */
static void check_time_values(void)
{
	static const int64_t s[] = {-2147483647, -1, 0, 1, 2147483647, 2147483648, 4294967295,
		4294967296, 6442450943, 8589934592, 10737418240, 15032385534};

	put("when", "", 0644);
	for (size_t i = 0; i < COUNT(s); i++) {
		const struct timespec t[2] = {{s[i], 999999999}, {s[i], 1}};
		struct stat st;
		int fd;

		say(utimensat(AT_FDCWD, "when", t, 0), "time %lld", (long long)s[i]);
		/* Not from the kernel's memory. */
		fd = open("when", O_RDWR);
		close(fd);
		if (stat("when", &st))
			die("when");
		printf(" is %lld.%09ld %lld.%09ld\n", (long long)st.st_atim.tv_sec,
			st.st_atim.tv_nsec, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	}
}

#define ACL_HEAD		 "\2\0\0\0"
#define ACL_ENTRY(tag, perm, id) tag "\0" perm "\0" id
#define NO_ID			 "\xff\xff\xff\xff"

/* user::rwx user:1234:rw- group::r-x mask::rwx other::--- */
static const char acl[] = ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY("\2", "\6", "\xd2\4\0\0")
	ACL_ENTRY("\4", "\5", NO_ID) ACL_ENTRY("\x10", "\7", NO_ID) ACL_ENTRY("\x20", "\0", NO_ID);
static const char acl_short[] = ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY("\4", "\5", NO_ID)
	ACL_ENTRY("\x20", "\1", NO_ID);
/* Wrong ones: unsorted, twice, no mask, a bad tag, an entry too many bytes. */
static const char acl_order[] = ACL_HEAD ACL_ENTRY("\4", "\5", NO_ID) ACL_ENTRY("\1", "\7", NO_ID)
	ACL_ENTRY("\x20", "\1", NO_ID);
static const char acl_twice[] = ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY("\1", "\7", NO_ID)
	ACL_ENTRY("\4", "\5", NO_ID) ACL_ENTRY("\x20", "\1", NO_ID);
static const char acl_no_mask[] = ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY(
	"\2", "\6", "\xd2\4\0\0") ACL_ENTRY("\4", "\5", NO_ID) ACL_ENTRY("\x20", "\1", NO_ID);
static const char acl_tag[] = ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY("\4", "\5", NO_ID)
	ACL_ENTRY("\x21", "\1", NO_ID);
static const char acl_perm[] = ACL_HEAD ACL_ENTRY("\1", "\x17", NO_ID) ACL_ENTRY("\4", "\5", NO_ID)
	ACL_ENTRY("\x20", "\1", NO_ID);
static const char acl_version[] = "\3\0\0\0" ACL_ENTRY("\1", "\7", NO_ID)
	ACL_ENTRY("\4", "\5", NO_ID) ACL_ENTRY("\x20", "\1", NO_ID);
static const char acl_users[] =
	ACL_HEAD ACL_ENTRY("\1", "\7", NO_ID) ACL_ENTRY("\2", "\6", "\xd3\4\0\0")
		ACL_ENTRY("\2", "\6", "\xd2\4\0\0") ACL_ENTRY("\4", "\5", NO_ID)
			ACL_ENTRY("\x10", "\7", NO_ID) ACL_ENTRY("\x20", "\0", NO_ID);
#define ACL_A "system.posix_acl_access"
#define ACL_D "system.posix_acl_default"

static void show_acl(const char *label, const char *path, const char *which)
{
	unsigned char buf[256];
	ssize_t n = getxattr(path, which, buf, sizeof(buf));

	printf("%s %s: ", label, which + 17);
	if (n < 0)
		printf("%s", strerrorname_np(errno));
	for (ssize_t i = 0; i < n; i++)
		printf("%02x", buf[i]);
	printf("\n");
}

/* ---- owners, modes ---- */

static const char *const kinds[] = {
	"open", "creat", "mkdir", "mkfifo", "mknod", "symlink", "tmpfile"};

static void make_kind(size_t k, const char *dir, mode_t mode)
{
	char path[128], shown[160];
	int fd = -1;
	long rc = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, kinds[k]);
	switch (k) {
	case 0:
		rc = fd = open(path, O_CREAT | O_EXCL | O_RDWR, mode);
		break;
	case 1:
		rc = fd = creat(path, mode);
		break;
	case 2:
		rc = mkdir(path, mode);
		break;
	case 3:
		rc = mkfifo(path, mode);
		break;
	case 4:
		rc = mknod(path, S_IFREG | mode, 0);
		break;
	case 5:
		rc = symlink("x", path);
		break;
	default:
		rc = fd = open(dir, O_TMPFILE | O_RDWR, mode);
		if (fd >= 0) {
			snprintf(shown, sizeof(shown), "/proc/self/fd/%d", fd);
			rc = linkat(AT_FDCWD, shown, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
		}
		break;
	}
	if (fd >= 0)
		close(fd);
	if (rc < 0) {
		say(-1, "making %s %o", path, mode);
		return;
	}
	snprintf(shown, sizeof(shown), "made %s %o", path, mode);
	show(shown, path);
	if (!strcmp(dir, "listed") && k != 5) {
		show_acl(shown, path, ACL_A);
		show_acl(shown, path, ACL_D);
	}
	if (remove(path))
		die(path);
}

static void check_new(void)
{
	static const mode_t modes[] = {0, 0777, 0666, 0644, 01777, 02777, 04777, 06755, 02644};
	static const mode_t umasks[] = {0, 022, 077, 0777};
	static const char *const dirs[] = {"plain", "sgid", "listed"};
	static const struct {
		uid_t uid;
		gid_t gid, group;
	} who[] = {{0, 0, 0}, {1000, 1000, 0}, {1000, 1000, 2000}};

	umask(0);
	for (size_t i = 0; i < COUNT(dirs); i++)
		if (mkdir(dirs[i], 0777) || chmod(dirs[i], 0777))
			die(dirs[i]);
	if (chown("sgid", 0, 2000) || chmod("sgid", 02777) ||
		setxattr("listed", ACL_D, acl, sizeof(acl) - 1, 0))
		die("directories");
	for (size_t w = 0; w < COUNT(who); w++) {
		for (size_t d = 0; d < COUNT(dirs); d++) {
			for (size_t u = 0; u < COUNT(umasks); u++) {
				printf("as %u:%u+%u umask %o\n", who[w].uid, who[w].gid,
					who[w].group, umasks[u]);
				umask(umasks[u]);
				become(who[w].uid, who[w].gid, who[w].group);
				for (size_t m = 0; m < COUNT(modes); m++)
					for (size_t k = 0; k < COUNT(kinds); k++)
						make_kind(k, dirs[d], modes[m]);
				root();
				umask(0);
			}
		}
	}
	umask(022);
}

static void check_acl(void)
{
	static const struct {
		const char *name, *list;
		size_t len;
	} bad[] = {{"order", acl_order, sizeof(acl_order) - 1},
		{"twice", acl_twice, sizeof(acl_twice) - 1},
		{"no mask", acl_no_mask, sizeof(acl_no_mask) - 1},
		{"tag", acl_tag, sizeof(acl_tag) - 1}, {"perm", acl_perm, sizeof(acl_perm) - 1},
		{"version", acl_version, sizeof(acl_version) - 1},
		{"users out of order", acl_users, sizeof(acl_users) - 1}, {"cut", acl, 10},
		{"head", acl, 4}, {"nothing", acl, 0}, {"tiny", acl, 3}};
	char buf[128];

	mkdir("a", 0755);
	put("a/f", "text", 0644);
	symlink("f", "a/l");
	mkfifo("a/p", 0644);
	for (size_t i = 0; i < COUNT(bad); i++) {
		say(setxattr("a/f", ACL_A, bad[i].list, bad[i].len, 0), "list: %s", bad[i].name);
		show("list: mode then", "a/f");
		show_acl("list: then", "a/f", ACL_A);
		say(setxattr("a", ACL_D, bad[i].list, bad[i].len, 0), "default list: %s",
			bad[i].name);
		show_acl("list: then", "a", ACL_D);
		chmod("a/f", 0644);
		removexattr("a/f", ACL_A);
		removexattr("a", ACL_D);
	}
	say(setxattr("a/f", ACL_A, acl, sizeof(acl) - 1, 0), "list on a file");
	show("list on a file: mode", "a/f");
	show_acl("list on a file", "a/f", ACL_A);
	say(getxattr("a/f", ACL_A, buf, 3), "list, no room");
	say(getxattr("a/f", ACL_A, NULL, 0), "list, its size");
	say(listxattr("a/f", buf, sizeof(buf)), "names with a list");
	say(setxattr("a/f", ACL_A, acl, sizeof(acl) - 1, XATTR_CREATE), "list, CREATE");
	say(setxattr("a/f", ACL_A, acl, sizeof(acl) - 1, XATTR_REPLACE), "list, REPLACE");
	chmod("a/f", 0600);
	show_acl("list after chmod 600", "a/f", ACL_A);
	chmod("a/f", 04751);
	show_acl("list after chmod 4751", "a/f", ACL_A);
	show("mode", "a/f");
	say(setxattr("a/f", ACL_A, acl_short, sizeof(acl_short) - 1, 0), "short list");
	show_acl("short list", "a/f", ACL_A);
	show("short list: mode", "a/f");
	say(listxattr("a/f", NULL, 0), "names with a short list");
	say(removexattr("a/f", ACL_A), "remove what is not there");
	say(setxattr("a/f", ACL_D, acl, sizeof(acl) - 1, 0), "default list on a file");
	say(removexattr("a/f", ACL_D), "remove a default list from a file");
	say(getxattr("a/f", ACL_D, buf, sizeof(buf)), "default list of a file");
	say(lsetxattr("a/l", ACL_A, acl, sizeof(acl) - 1, 0), "list on a symlink");
	say(setxattr("a/p", ACL_A, acl, sizeof(acl) - 1, 0), "list on a fifo");
	say(setxattr("a", ACL_D, acl_short, sizeof(acl_short) - 1, 0), "short default list");
	show_acl("short default list", "a", ACL_D);
	say(listxattr("a", NULL, 0), "names of a directory with a default list");
	mkdir("a/d", 0777);
	put("a/g", "x", 0666);
	show("inherited", "a/d");
	show_acl("inherited", "a/d", ACL_A);
	show_acl("inherited", "a/d", ACL_D);
	show_acl("inherited", "a/g", ACL_A);
	setxattr("a", ACL_D, acl, sizeof(acl) - 1, 0);
	mkdir("a/e", 0750);
	close(open("a/h", O_CREAT | O_WRONLY, 0666));
	mkfifo("a/q", 0666);
	mknod("a/n", S_IFREG | 0640, 0);
	symlink("x", "a/m");
	for (size_t i = 0; i < 5; i++) {
		static const char *const p[] = {"a/e", "a/h", "a/q", "a/n", "a/m"};

		show(p[i], p[i]);
		if (i < 4)
			show_acl(p[i], p[i], ACL_A);
	}
	show_acl("a/e", "a/e", ACL_D);
	say(removexattr("a", ACL_D), "remove the default list");
	say(removexattr("a", ACL_D), "once more");
	say(setxattr("a", ACL_D, NULL, 0, 0), "an empty default list");
	/* Who may. */
	chown("a/f", 1000, 1000);
	become(1001, 1001, 0);
	say(setxattr("a/f", ACL_A, acl, sizeof(acl) - 1, 0), "another's list");
	say(removexattr("a/f", ACL_A), "another's list removed");
	root();
	chown("a/f", 1000, 2000);
	chmod("a/f", 02755);
	become(1000, 1000, 0);
	say(setxattr("a/f", ACL_A, acl, sizeof(acl) - 1, 0), "one's own, of a group one is not in");
	show("set-group-ID then", "a/f");
	root();
	become(1234, 99, 0);
	say(access("a/f", R_OK | W_OK), "who is named may read and write");
	say(access("a/f", X_OK), "but not run");
	root();
	become(1235, 99, 0);
	say(access("a/f", R_OK), "another may not");
	root();
	/* A list of many. */
	{
		static char big[4 + 8 * 600];
		size_t n = 4;

		memcpy(big, acl, 12);
		n = 12;
		for (unsigned i = 0; i < 400; i++, n += 8) {
			const uint32_t id = 5000 + i;

			memcpy(big + n, "\2\0\6\0", 4);
			memcpy(big + n + 4, &id, 4);
		}
		memcpy(big + n, acl + 20, 24);
		say(setxattr("a/f", ACL_A, big, n + 24, 0), "a list of 400 users");
		say(getxattr("a/f", ACL_A, NULL, 0), "its size");
	}
}

/* ---- set-ID bits and capabilities ---- */

static const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};

static void suid_setup(mode_t mode)
{
	unlink("s");
	put("s", "text", 0600);
	if (chown("s", 1000, 2000) || chmod("s", mode) ||
		setxattr("s", "security.capability", capability, sizeof(capability), 0))
		die("s");
}

static void suid_say(const char *what, mode_t mode, uid_t as)
{
	struct stat st;

	if (stat("s", &st))
		die("s");
	printf("%s of %o as %u: %o, capability %s\n", what, mode, as, st.st_mode & 07777,
		getxattr("s", "security.capability", NULL, 0) < 0 ? "gone" : "kept");
}

static int write_kept(const char *path)
{
	int fd = open(path, O_RDWR), rc = pwrite(fd, "x", 1, 0) != 1;
	char *map;

	close(fd);
	if (rc)
		return -1;
	fd = open(path, O_RDWR);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	map[1] = 'y';
	munmap(map, 4096);
	return close(fd);
}

static void check_suid(void)
{
	static const mode_t modes[] = {06777, 04755, 02755, 02745, 06666, 02767};
	static const uid_t ids[] = {0, 1000};

	for (size_t m = 0; m < COUNT(modes); m++) {
		for (size_t i = 0; i < COUNT(ids); i++) {
			mode_t mode = modes[m];
			uid_t as = ids[i];
#define SUID(what)                                                                                 \
	do {                                                                                       \
		suid_setup(mode);                                                                  \
		become(as, as, as ? 2000 : 0);                                                     \
		say((long)(what), #what);                                                          \
		root();                                                                            \
		suid_say(#what, mode, as);                                                         \
	} while (0)
			SUID(wr("s", O_WRONLY, "x"));
			SUID(wr("s", O_WRONLY, ""));
			SUID(wr("s", O_WRONLY | O_APPEND, "x"));
			SUID(wr("s", O_WRONLY | O_TRUNC, ""));
			SUID(wr("s", O_WRONLY | O_TRUNC, "x"));
			SUID(write_kept("s"));
			SUID(truncate("s", 1));
			SUID(truncate("s", 4));
			SUID(with_fd("s", 't', 2));
			SUID(with_fd("s", 'a', 10));
			SUID(with_fd("s", 'p', 2));
			SUID(chown("s", (uid_t)-1, (gid_t)-1));
			SUID(chown("s", 1000, (gid_t)-1));
			SUID(chown("s", (uid_t)-1, 2000));
			SUID(chmod("s", mode));
			SUID(link("s", "s2"));
			unlink("s2");
			SUID(setxattr("s", "user.x", "", 0, 0));
			SUID(utimensat(AT_FDCWD, "s", NULL, 0));
			SUID(copy_range("when", "s"));
		}
	}
	mkdir("sd", 0755);
	chown("sd", 1000, 2000);
	chmod("sd", 06777);
	chown("sd", 1001, 2000);
	show("a directory keeps its set-ID bits over chown", "sd");
}

/* ---- names of open files ---- */

static int link_fd(int fd, const char *to, bool empty)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return empty ? linkat(fd, "", AT_FDCWD, to, AT_EMPTY_PATH)
		     : linkat(AT_FDCWD, path, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
}

static long reopen(int fd, int flags)
{
	char path[64], buf[16] = "";
	long n;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, flags);
	if (r < 0)
		return -1;
	if ((flags & O_ACCMODE) == O_WRONLY)
		n = pwrite(r, "re", 2, 0);
	else
		n = pread(r, buf, 15, 0);
	close(r);
	return n;
}

static void check_open_names(void)
{
	char path[64];
	int fd, fd2;

	mkdir("o", 0777);
	put("o/f", "text", 0644);
	say(setxattr("o/f", "user.early", "kept", 4, 0), "an attribute");
	fd = open("o/f", O_RDWR);
	fd2 = open("o/f", O_RDONLY);
	say(unlink("o/f"), "unlink an open file");
	show_fd("open, unlinked", fd);
	show_fd("open to read, unlinked", fd2);
	say(pwrite(fd, "12345", 5, 2), "write it");
	show_fd("then", fd);
	say(fchmod(fd, 0600), "fchmod");
	say(fchown(fd, 1000, 1000), "fchown");
	show_fd("then", fd);
	say(ftruncate(fd, 3), "ftruncate");
	say(fsync(fd), "fsync");
	say(fgetxattr(fd, "user.early", path, sizeof(path)), "its attribute");
	say(fgetxattr(fd2, "user.early", path, sizeof(path)), "by the other");
	say(fsetxattr(fd, "user.late", "1", 1, 0), "fsetxattr");
	say(fsetxattr(fd, "user.late", "1", 1, XATTR_CREATE), "fsetxattr CREATE");
	say(fgetxattr(fd, "user.late", path, sizeof(path)), "fgetxattr");
	say(flistxattr(fd, NULL, 0), "flistxattr");
	say(fremovexattr(fd, "user.late"), "fremovexattr");
	say(flistxattr(fd2, NULL, 0), "flistxattr by the other");
	say(fsetxattr(fd, ACL_A, acl, sizeof(acl) - 1, 0), "a list");
	show_fd("then", fd);
	say(fchmod(fd, 0600), "fchmod");
	say(link_fd(fd, "o/again", false), "link it by /proc");
	say(link_fd(fd, "o/again", true), "link it by AT_EMPTY_PATH");
	say(reopen(fd, O_RDONLY), "reopen to read");
	say(reopen(fd, O_WRONLY), "reopen to write");
	say(reopen(fd, O_RDWR), "reopen for both");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	say(truncate(path, 1), "truncate by /proc");
	show_fd("then", fd);
	say(chmod(path, 0640), "chmod by /proc");
	show_fd("then", fd);
	close(fd);
	close(fd2);
	/* By descriptor of a file that has a name. */
	put("o/f", "text", 0644);
	fd = open("o/f", O_RDONLY);
	say(link_fd(fd, "o/g", false), "link an open file by /proc");
	say(link_fd(fd, "o/h", true), "link an open file by AT_EMPTY_PATH");
	show("it has", "o/g");
	say(fchmod(fd, 0611), "fchmod by a reader");
	say(unlink("o/f"), "unlink the first");
	show_fd("then", fd);
	show("and", "o/g");
	say(link_fd(fd, "o/f", false), "link it again");
	show("then", "o/f");
	say(unlink("o/g") | unlink("o/h"), "others");
	say(rename("o/f", "o/k"), "rename it");
	show_fd("then", fd);
	close(fd);
	/* O_PATH. */
	fd = open("o/k", O_PATH);
	show_fd("O_PATH", fd);
	say(fchmod(fd, 0600), "fchmod of O_PATH");
	say(link_fd(fd, "o/p", false), "link by O_PATH");
	say(reopen(fd, O_RDONLY), "reopen O_PATH to read");
	say(reopen(fd, O_RDWR), "reopen O_PATH for both");
	unlink("o/p");
	unlink("o/k");
	show_fd("O_PATH, unlinked", fd);
	close(fd);
	/* O_TMPFILE. */
	umask(027);
	fd = open("o", O_TMPFILE | O_RDWR, 0666);
	umask(022);
	show_fd("a file without a name", fd);
	say(write(fd, "tmp", 3), "write");
	say(fsetxattr(fd, "user.t", "1", 1, 0), "fsetxattr");
	say(fchown(fd, 5, 6), "fchown");
	say(reopen(fd, O_RDONLY), "reopen to read");
	say(reopen(fd, O_RDWR), "reopen for both");
	say(link_fd(fd, "o/t", false), "its first name");
	show("then", "o/t");
	show_fd("then", fd);
	say(link_fd(fd, "o/t2", true), "its second");
	say(link_fd(fd, "o/t", false), "one that is taken");
	say(write(fd, "more", 4), "write more");
	close(fd);
	show("then", "o/t2");
	say(getxattr("o/t", "user.t", path, sizeof(path)), "its attribute");
	unlink("o/t");
	unlink("o/t2");
	fd = open("o", O_TMPFILE | O_WRONLY | O_EXCL, 0600);
	say(link_fd(fd, "o/t", false), "O_TMPFILE|O_EXCL cannot have a name");
	close(fd);
	fd = open("o", O_TMPFILE | O_RDWR, 0600);
	say(link_fd(fd, "o/t", false), "a name");
	say(unlink("o/t"), "taken away again");
	say(link_fd(fd, "o/t", false), "and given again");
	show_fd("then", fd);
	say(pwrite(fd, "x", 1, 10), "write");
	show_fd("then", fd);
	close(fd);
	unlink("o/t");
	/* Replaced while open. */
	put("o/a", "aaa", 0644);
	put("o/b", "bb", 0644);
	fd = open("o/b", O_RDWR);
	say(rename("o/a", "o/b"), "rename over an open file");
	show_fd("then", fd);
	show("and", "o/b");
	say(write(fd, "x", 1), "write the replaced one");
	close(fd);
	show("still", "o/b");
	/* Directories. */
	mkdir("o/d", 0755);
	fd = open("o/d", O_RDONLY | O_DIRECTORY);
	say(rmdir("o/d"), "rmdir an open directory");
	show_fd("then", fd);
	say(openat(fd, "x", O_CREAT | O_RDWR, 0600), "create in it");
	say(mkdirat(fd, "x", 0700), "mkdir in it");
	say(symlinkat("x", fd, "x"), "symlink in it");
	say(mknodat(fd, "x", S_IFREG | 0600, 0), "mknod in it");
	say(linkat(AT_FDCWD, "o/b", fd, "x", 0), "link into it");
	say(renameat(AT_FDCWD, "o/b", fd, "x"), "rename into it");
	say(openat(fd, "x", O_RDONLY), "open in it");
	say(openat(fd, ".", O_RDONLY) < 0 ? -1 : 0, "open itself");
	say(openat(fd, ".", O_TMPFILE | O_RDWR, 0600) < 0 ? 1 : 0, "no O_TMPFILE in it");
	say(fchmod(fd, 0700), "fchmod");
	show_fd("then", fd);
	close(fd);
	fd = open("o", O_RDONLY);
	mkdir("o/d", 0755);
	say(fchdir(fd), "fchdir");
	rmdir("d");
	put("d", "now a file", 0644);
	say(chdir("d"), "chdir to a file");
	say(chdir(".."), "back");
	close(fd);
}

/* ---- a file that has just been made, and is not closed yet ---- */

static int fresh(const char *path)
{
	int fd;

	unlink(path);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0640);
	if (fd < 0 || write(fd, "fresh", 5) != 5)
		die(path);
	return fd;
}

static int in_child(int (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		int rc = fn();

		_exit(rc ? errno : 0);
	}
	waitpid(pid, &status, 0);
	errno = WEXITSTATUS(status);
	return errno ? -1 : 0;
}

static int child_chmod(void)
{
	return chmod("n/f", 0604);
}
static int child_rename(void)
{
	return rename("n/f", "n/g");
}
static int child_link(void)
{
	return link("n/f", "n/g");
}
static int child_unlink(void)
{
	return unlink("n/f");
}
static int child_replace(void)
{
	put("n/o", "other", 0600);
	return rename("n/o", "n/f");
}
static int child_setxattr(void)
{
	return setxattr("n/f", "user.c", "child", 5, 0);
}
static int child_excl(void)
{
	return open("n/f", O_CREAT | O_EXCL | O_WRONLY, 0600) < 0;
}
static int child_open(void)
{
	int fd = open("n/f", O_RDONLY);

	return fd < 0 || close(fd);
}
static int child_exchange(void)
{
	put("n/o", "other", 0600);
	return renameat2(AT_FDCWD, "n/o", AT_FDCWD, "n/f", RENAME_EXCHANGE);
}
static int child_times(void)
{
	const struct timespec t[2] = {{100, 1}, {200, 2}};

	return utimensat(AT_FDCWD, "n/f", t, 0);
}
static int child_acl(void)
{
	return setxattr("n/f", ACL_A, acl, sizeof(acl) - 1, 0);
}
static int child_rmdir(void)
{
	return rmdir("n");
}

static void check_fresh(void)
{
	static const struct {
		const char *name;
		int (*fn)(void);
	} what[] = {{"chmod", child_chmod}, {"rename", child_rename}, {"link", child_link},
		{"unlink", child_unlink}, {"replace", child_replace}, {"setxattr", child_setxattr},
		{"O_EXCL", child_excl}, {"open", child_open}, {"exchange", child_exchange},
		{"utimensat", child_times}, {"access list", child_acl}, {"rmdir", child_rmdir}};

	for (size_t i = 0; i < COUNT(what) * 2; i++) {
		bool other = i >= COUNT(what);
		size_t k = i % COUNT(what);
		char buf[64];
		struct stat st;
		int fd;

		if (system("rm -rf n") || mkdir("n", 0755))
			die("n");
		fd = fresh("n/f");
		say(other ? in_child(what[k].fn) : what[k].fn(), "%s of a file just made, by %s",
			what[k].name, other ? "another" : "its maker");
		say(write(fd, "more", 4), "write more");
		show_fd("open", fd);
		say(pread(fd, buf, sizeof(buf), 0), "read");
		say(fgetxattr(fd, "user.c", buf, sizeof(buf)), "attribute");
		say(fchmod(fd, 0611), "fchmod");
		say(fsetxattr(fd, "user.d", "d", 1, 0), "fsetxattr");
		close(fd);
		show("then", "n/f");
		show("other", "n/g");
		say(getxattr("n/f", "user.c", buf, sizeof(buf)), "its attribute");
		say(getxattr("n/f", "user.d", buf, sizeof(buf)), "the other");
		show_acl("list", "n/f", ACL_A);
		/* Times by hand are older than what was written after them. */
		say(!stat("n/f", &st) && st.st_mtim.tv_sec == 200, "the time is kept");
	}
}

/* ---- extended attributes ---- */

static void check_xattr(void)
{
	static char big[70000], names[4096], val[70000];
	char name[300];
	long n;
	size_t i;

	memset(big, 'v', sizeof(big));
	put("x", "text", 0644);
	say(setxattr("x", "user.empty", "", 0, 0), "empty value");
	say(getxattr("x", "user.empty", val, 10), "its size");
	say(getxattr("x", "user.empty", NULL, 0), "its size again");
	say(setxattr("x", "user.a", "12345", 5, XATTR_CREATE), "CREATE");
	say(setxattr("x", "user.a", "12345", 5, XATTR_CREATE), "CREATE again");
	say(setxattr("x", "user.a", "123", 3, XATTR_REPLACE), "REPLACE");
	say(setxattr("x", "user.b", "123", 3, XATTR_REPLACE), "REPLACE what is not there");
	say(setxattr("x", "user.b", "123", 3, XATTR_REPLACE | XATTR_CREATE), "both");
	say(setxattr("x", "user.a", "123", 3, XATTR_REPLACE | XATTR_CREATE), "both, there");
	say(setxattr("x", "user.b", "123", 3, 4), "a flag there is not");
	say(getxattr("x", "user.a", val, 2), "no room");
	say(getxattr("x", "user.a", val, 3), "just room");
	say(getxattr("x", "user.none", val, 3), "none");
	say(getxattr("x", "user.A", val, 3), "case matters");
	say(getxattr("x", "", val, 3), "no name");
	say(getxattr("x", "user", val, 3), "a family alone");
	say(getxattr("x", "user.", val, 3), "a family and a dot");
	say(setxattr("x", "user", "1", 1, 0), "set a family alone");
	say(setxattr("x", "user.", "1", 1, 0), "set a family and a dot");
	say(setxattr("x", "trusted.", "1", 1, 0), "set trusted.");
	say(setxattr("x", "security.", "1", 1, 0), "set security.");
	say(setxattr("x", "", "1", 1, 0), "set no name");
	say(setxattr("x", "system.x", "1", 1, 0), "set system.x");
	say(setxattr("x", "other.x", "1", 1, 0), "set another family");
	say(setxattr("x", "os2.x", "1", 1, 0), "set os2.");
	say(removexattr("x", "other.x"), "remove of another family");
	say(removexattr("x", "user."), "remove user.");
	say(getxattr("x", "other.x", val, 3), "get of another family");
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = 0;
	say(setxattr("x", name, "long", 4, 0), "a name of 255");
	say(getxattr("x", name, val, 10), "get it");
	say(removexattr("x", name), "remove it");
	name[255] = 'n';
	name[256] = 0;
	say(setxattr("x", name, "long", 4, 0), "a name of 256");
	say(getxattr("x", name, val, 10), "get it");
	say(setxattr("x", "user.big", big, 65537, 0), "a value over 64 KiB");
	say(setxattr("x", "user.mid", big, 3000, 0), "a value of 3000");
	say(getxattr("x", "user.mid", val, sizeof(val)), "get it");
	say(memcmp(val, big, 3000), "the same");
	say(setxattr("x", "user.mid", big, 10, 0), "shrunk");
	say(getxattr("x", "user.mid", val, sizeof(val)), "get it");
	say(removexattr("x", "user.mid"), "remove it");
	say(removexattr("x", "user.mid"), "remove it again");
	/* By the hundred. */
	put("x2", "text", 0644);
	for (i = 0, n = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "user.n%zu", i);
		n += setxattr("x2", name, name, strlen(name), 0) == 0;
	}
	say(n, "a hundred names");
	say(listxattr("x2", NULL, 0), "their list");
	say(listxattr("x2", names, 100), "no room for it");
	n = listxattr("x2", names, sizeof(names));
	say(n, "room for it");
	for (i = 0, n = 0; i < 100; i += 3) {
		snprintf(name, sizeof(name), "user.n%zu", i);
		n += removexattr("x2", name) == 0;
	}
	say(n, "every third removed");
	for (i = 0, n = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "user.n%zu", i);
		n += getxattr("x2", name, val, sizeof(val)) == (ssize_t)strlen(name) &&
		     !memcmp(val, name, strlen(name));
	}
	say(n, "the others are there");
	say(rename("x2", "x3"), "rename");
	say(listxattr("x3", NULL, 0), "names after it");
	link("x3", "x4");
	say(listxattr("x4", NULL, 0), "names by another link");
	unlink("x3");
	say(listxattr("x4", NULL, 0), "and without the first");
	put("x5", "over", 0644);
	rename("x5", "x4");
	say(listxattr("x4", NULL, 0), "gone with what was replaced");
	/* Who may; where. */
	symlink("x", "xl");
	mkfifo("xp", 0666);
	mkdir("xd", 0755);
	mkdir("xt", 01777);
	chmod("xt", 01777);
	say(lsetxattr("xl", "user.a", "1", 1, 0), "user. on a symlink");
	say(lsetxattr("xl", "trusted.a", "1", 1, 0), "trusted. on a symlink");
	say(lsetxattr("xl", "security.a", "1", 1, 0), "security. on a symlink");
	say(lgetxattr("xl", "trusted.a", val, 10), "get it");
	say(llistxattr("xl", NULL, 0), "list it");
	say(setxattr("xp", "user.a", "1", 1, 0), "user. on a fifo");
	say(setxattr("xp", "trusted.a", "1", 1, 0), "trusted. on a fifo");
	say(setxattr("xd", "user.a", "1", 1, 0), "user. on a directory");
	say(setxattr("x", "trusted.a", "1", 1, 0), "trusted. on a file");
	say(setxattr("x", "security.a", "1", 1, 0), "security. on a file");
	say(listxattr("x", NULL, 0), "names, as root");
	become(1000, 1000, 0);
	say(listxattr("x", NULL, 0), "names, as another");
	say(getxattr("x", "trusted.a", val, 10), "trusted., as another");
	say(getxattr("x", "security.a", val, 10), "security., as another");
	say(getxattr("x", "user.a", val, 10), "user., as another");
	say(setxattr("x", "user.a", "1", 1, 0), "set user., as another");
	say(setxattr("x", "trusted.a", "1", 1, 0), "set trusted., as another");
	say(setxattr("x", "security.a", "1", 1, 0), "set security., as another");
	say(removexattr("x", "trusted.a"), "remove trusted., as another");
	say(setxattr("xt", "user.a", "1", 1, 0), "user. on another's sticky directory");
	root();
	chmod("x", 0600);
	become(1000, 1000, 0);
	say(getxattr("x", "user.a", val, 10), "user. without permission to read");
	say(listxattr("x", val, sizeof(val)), "names without permission to read");
	root();
}

/* ---- limits and the rest ---- */

static void check_limits(void)
{
	static char text[5000];
	char name[300], buf[5000];
	struct statvfs v;
	unsigned i;
	int fd;

	memset(text, 'a', sizeof(text));
	text[4095] = 0;
	say(symlink(text, "l4095"), "a symlink of 4095");
	show("it", "l4095");
	say(readlink("l4095", buf, sizeof(buf)), "read");
	say(memcmp(buf, text, 4095), "the same");
	text[4095] = 'a';
	text[4096] = 0;
	say(symlink(text, "l4096"), "a symlink of 4096");
	for (i = 1; i < 256; i++) {
		snprintf(name, sizeof(name), "n%cn", (char)i);
		fd = i == '/' ? 0 : open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
		if (fd < 0)
			say(fd, "a name with byte %u", i);
		if (fd > 0)
			close(fd);
		if (fd > 0 && unlink(name))
			die(name);
	}
	memset(name, 0xff, 255);
	name[255] = 0;
	say(mkdir(name, 0755), "a name of 255 bytes ff");
	say(rmdir(name), "removed");
	for (i = 0; i < 41; i++) {
		snprintf(name, sizeof(name), "chain%u", i);
		snprintf(buf, sizeof(buf), i ? "chain%u" : "x", i - 1);
		if (symlink(buf, name))
			die(name);
	}
	say(access("chain39", F_OK), "40 symlinks");
	say(access("chain40", F_OK), "41 symlinks");
	say(statvfs(".", &v), "statvfs");
	say((long)v.f_namemax, "the longest name");
	/* Deep. */
	fd = open(".", O_RDONLY);
	for (i = 0; i < 300 && !mkdir("deep-directory", 0755) && !chdir("deep-directory"); i++)
		;
	say(i, "directories deep");
	say(getcwd(buf, 4097) ? 0 : -1, "getcwd, too long");
	while (i-- && !chdir(".."))
		if (rmdir("deep-directory"))
			die("deep-directory");
	if (fchdir(fd))
		die("fchdir");
	close(fd);
	/* Links of directories. */
	mkdir("many", 0755);
	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "many/%u", i);
		mkdir(name, 0755);
	}
	show("with 100 subdirectories", "many");
	rename("many/1", "one");
	show("with 99", "many");
	say(rename("one", "many/2"), "over an empty one");
	show("still 99", "many");
	say(rename("many", "many/3/4"), "into itself");
	say(rename("many/3", "many"), "a child over its parent");
	say(rename("many", "many"), "over itself");
	say(renameat2(AT_FDCWD, "many", AT_FDCWD, "many", RENAME_NOREPLACE), "itself, NOREPLACE");
	say(renameat2(AT_FDCWD, "many", AT_FDCWD, "many", RENAME_EXCHANGE), "itself, EXCHANGE");
	say(renameat2(AT_FDCWD, "many", AT_FDCWD, "many/3", RENAME_EXCHANGE),
		"exchange with a child");
	say(renameat2(AT_FDCWD, "many/3", AT_FDCWD, "many", RENAME_EXCHANGE),
		"exchange with a parent");
	put("lk", "l", 0644);
	link("lk", "lk2");
	say(rename("lk", "lk2"), "two names of one file");
	show("both stay", "lk2");
	say(renameat2(AT_FDCWD, "lk", AT_FDCWD, "lk2", RENAME_EXCHANGE), "exchange them");
	say(renameat2(AT_FDCWD, "lk", AT_FDCWD, "lk2", RENAME_NOREPLACE), "NOREPLACE");
	/* Whiteouts. */
	put("wh", "w", 0644);
	say(renameat2(AT_FDCWD, "wh", AT_FDCWD, "wh2", RENAME_WHITEOUT), "WHITEOUT");
	show("in its place", "wh");
	show("moved", "wh2");
	put("wh3", "three", 0644);
	say(renameat2(AT_FDCWD, "wh2", AT_FDCWD, "wh3", RENAME_WHITEOUT), "WHITEOUT over a file");
	show("in its place", "wh2");
	show("moved", "wh3");
	mkdir("wd", 0755);
	say(renameat2(AT_FDCWD, "wd", AT_FDCWD, "wd2", RENAME_WHITEOUT), "WHITEOUT of a directory");
	show("in its place", "wd");
	show("moved", "wd2");
	say(renameat2(AT_FDCWD, "wd2", AT_FDCWD, "wd3", RENAME_WHITEOUT | RENAME_NOREPLACE),
		"WHITEOUT|NOREPLACE");
	say(renameat2(AT_FDCWD, "wd3", AT_FDCWD, "wh3", RENAME_WHITEOUT | RENAME_EXCHANGE),
		"WHITEOUT|EXCHANGE");
	become(1000, 1000, 0);
	say(renameat2(AT_FDCWD, "plain/x", AT_FDCWD, "plain/y", RENAME_WHITEOUT),
		"WHITEOUT, of nothing");
	root();
	chmod("plain", 0777);
	become(1000, 1000, 0);
	put("plain/w", "w", 0644);
	say(renameat2(AT_FDCWD, "plain/w", AT_FDCWD, "plain/v", RENAME_WHITEOUT),
		"WHITEOUT by a user");
	show("in its place", "plain/w");
	root();
}

static void check_emlink(unsigned most)
{
	char name[64];
	unsigned i;

	mkdir("ml", 0755);
	put("ml/f", "x", 0644);
	for (i = 1; i < most + 10; i++) {
		snprintf(name, sizeof(name), "ml/%u", i);
		if (link("ml/f", name))
			break;
	}
	say(-1, "too many links");
	show("it has", "ml/f");
}

static void check_exec(void)
{
	pid_t pid;
	int fd, status, go[2];

	if (system("cp /bin/sleep prog && chmod 755 prog"))
		die("prog");
	if (pipe(go))
		die("pipe");
	pid = fork();
	if (!pid) {
		dup2(go[0], 0);
		close(go[1]);
		execl("./prog", "prog", "1000", (char *)NULL);
		_exit(126);
	}
	/* Until it runs. */
	for (;;) {
		char exe[64], target[300];
		ssize_t n;

		snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
		n = readlink(exe, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		if (n > 5 && !strcmp(target + n - 5, "/prog"))
			break;
	}
	say(open("prog", O_WRONLY), "open a running program to write");
	say(open("prog", O_RDWR | O_TRUNC), "to truncate");
	say(truncate("prog", 0), "truncate it");
	fd = open("prog", O_RDONLY);
	say(fd < 0 ? -1 : 0, "to read");
	close(fd);
	say(chmod("prog", 0700), "chmod it");
	say(rename("prog", "prog2"), "rename it");
	say(unlink("prog2"), "unlink it");
	kill(pid, 9);
	waitpid(pid, &status, 0);
	put("script", "#!/bin/sh\nexit 7\n", 0755);
	pid = fork();
	if (!pid) {
		execl("./script", "script", (char *)NULL);
		_exit(126);
	}
	waitpid(pid, &status, 0);
	say(WEXITSTATUS(status), "a script");
	chmod("script", 0644);
	say(execl("./script", "script", (char *)NULL), "a script without permission");
	say(execl("./plain", "plain", (char *)NULL), "a directory");
}

static const struct {
	const char *name;
	void (*fn)(void);
} sections[] = {
	{"times", check_times},
	{"values", check_time_values},
	{"new", check_new},
	{"acl", check_acl},
	{"suid", check_suid},
	{"names", check_open_names},
	{"fresh", check_fresh},
	{"xattr", check_xattr},
	{"limits", check_limits},
	{"exec", check_exec},
};

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) || mkdir("r", 0755) || chdir("r"))
		die(argc < 2 ? "usage: posix_rules DIR [SECTION|LINKS]" : argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	if (argc > 2 && atoi(argv[2])) {
		check_emlink((unsigned)atoi(argv[2]));
		return 0;
	}
	for (size_t i = 0; i < COUNT(sections); i++)
		if (argc < 3 || !strcmp(argv[2], sections[i].name))
			sections[i].fn();
	return 0;
}
