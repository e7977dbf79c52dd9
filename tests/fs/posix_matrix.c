/* posix_matrix DIR: every call that takes a path, with every kind of path, by root, by an ordinary
 * user, by one with a supplementary group, and by nobody: what it returns and what it leaves is
 * printed, a line each. Two file systems are alike when they give the same lines; the test compares
 * with ext4. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- who ---- */

struct user {
	const char *name;
	uid_t uid;
	gid_t gid, group; /* group: a supplementary one, or 0 */
};

static const struct user users[] = {
	{"root", 0, 0, 0},
	{"user", 1000, 1000, 0},
	{"member", 1001, 1001, 2000},
	{"nobody", 65534, 65534, 0},
};

static void become(const struct user *u)
{
	if (setresuid(0, 0, 0) || setgroups(u->group ? 1 : 0, &u->group) ||
		setresgid(u->gid, u->gid, 0) || setresuid(u->uid, u->uid, 0))
		die("becoming another user");
}

/* ---- what is there: made anew where a call has changed it ---- */

struct thing {
	const char *path;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	const char *text; /* content, target */
};

static const struct thing things[] = {
	{"f", S_IFREG | 0644, 0, 0, "hello"},
	{"fw", S_IFREG | 0666, 0, 0, "hello"},
	{"fx", S_IFREG | 0755, 0, 0, "hello"},
	{"own", S_IFREG | 0600, 1000, 1000, "hello"},
	{"d", S_IFDIR | 0755, 0, 0, NULL},
	{"full", S_IFDIR | 0755, 0, 0, NULL},
	{"full/x", S_IFREG | 0644, 0, 0, ""},
	{"mine", S_IFDIR | 0755, 1000, 1000, NULL},
	{"mine/a", S_IFREG | 0644, 0, 0, "hello"},
	{"mine/s", S_IFDIR | 0755, 0, 0, NULL},
	{"noexec", S_IFDIR | 0666, 0, 0, NULL},
	{"noexec/a", S_IFREG | 0666, 0, 0, "hello"},
	{"ro", S_IFDIR | 0555, 0, 0, NULL},
	{"ro/a", S_IFREG | 0666, 0, 0, "hello"},
	{"ro/s", S_IFDIR | 0777, 0, 0, NULL},
	{"sticky", S_IFDIR | 01777, 0, 0, NULL},
	{"sticky/r", S_IFREG | 0666, 0, 0, "hello"},
	{"sticky/m", S_IFREG | 0666, 1000, 1000, "hello"},
	{"sticky/rd", S_IFDIR | 0777, 0, 0, NULL},
	{"sticky/md", S_IFDIR | 0777, 1000, 1000, NULL},
	{"grp", S_IFDIR | 0770, 0, 2000, NULL},
	{"grp/a", S_IFREG | 0660, 0, 2000, "hello"},
	{"sgid", S_IFDIR | 02777, 0, 2000, NULL},
	{"suid", S_IFREG | 06777, 1000, 2000, "hello"},
	{"l", S_IFLNK | 0777, 0, 0, "f"},
	{"ld", S_IFLNK | 0777, 0, 0, "d"},
	{"lm", S_IFLNK | 0777, 0, 0, "missing"},
	{"ll", S_IFLNK | 0777, 0, 0, "ll"},
	{"l1", S_IFLNK | 0777, 0, 0, "l2"},
	{"l2", S_IFLNK | 0777, 0, 0, "l1"},
	{"fifo", S_IFIFO | 0666, 0, 0, NULL},
	{"sock", S_IFSOCK | 0666, 0, 0, NULL},
};

static char name255[256], name256[257], path_long[4200], path_fits[4200];

/* Paths to give to a call; what does not exist is in `extra` too, to be removed. */
static const struct {
	const char *path, *shown;
} paths[] = {
	{"", NULL},
	{".", NULL},
	{"..", NULL},
	{"/", NULL},
	{"f", NULL},
	{"f/", NULL},
	{"f/.", NULL},
	{"f/x", NULL},
	{"fw", NULL},
	{"fx", NULL},
	{"own", NULL},
	{"d", NULL},
	{"d/", NULL},
	{"d/.", NULL},
	{"d/..", NULL},
	{"d/new", NULL},
	{"full", NULL},
	{"missing", NULL},
	{"missing/", NULL},
	{"missing/x", NULL},
	{"l", NULL},
	{"l/", NULL},
	{"ld", NULL},
	{"ld/", NULL},
	{"ld/new", NULL},
	{"lm", NULL},
	{"lm/", NULL},
	{"ll", NULL},
	{"ll/x", NULL},
	{"l1", NULL},
	{"noexec/a", NULL},
	{"noexec/new", NULL},
	{"ro/a", NULL},
	{"ro/s", NULL},
	{"ro/new", NULL},
	{"mine", NULL},
	{"mine/a", NULL},
	{"mine/s", NULL},
	{"mine/new", NULL},
	{"sticky/r", NULL},
	{"sticky/m", NULL},
	{"sticky/rd", NULL},
	{"sticky/md", NULL},
	{"sticky/new", NULL},
	{"grp/a", NULL},
	{"grp/new", NULL},
	{"sgid/new", NULL},
	{"suid", NULL},
	{"fifo", NULL},
	{"sock", NULL},
	{name255, "NAME255"},
	{name256, "NAME256"},
	{path_fits, "PATH4095"},
	{path_long, "PATH4096"},
};

static const char *const extra[] = {"missing", "d/new", "noexec/new", "ro/new", "mine/new",
	"sticky/new", "grp/new", "sgid/new", name255, "other", "sticky/other", "mine/other", "f~"};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void remove_any(const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS))
		die(path);
}

static bool is_as_it_should_be(const struct thing *t)
{
	char target[64];
	struct stat st;
	ssize_t n;

	if (lstat(t->path, &st))
		return false;
	if (st.st_mode != t->mode || st.st_uid != t->uid || st.st_gid != t->gid)
		return false;
	if (!S_ISDIR(t->mode) && st.st_nlink != 1)
		return false;
	if (S_ISREG(t->mode) && st.st_size != (off_t)strlen(t->text))
		return false;
	if (!S_ISLNK(t->mode))
		return true;
	n = readlink(t->path, target, sizeof(target));
	return n == (ssize_t)strlen(t->text) && !memcmp(target, t->text, (size_t)n);
}

static void make(const struct thing *t)
{
	int fd, rc = 0;
	struct stat st;

	if (!lstat(t->path, &st) && !(S_ISDIR(st.st_mode) && S_ISDIR(t->mode)))
		remove_any(t->path);
	if (S_ISDIR(t->mode)) {
		rc = mkdir(t->path, 0700) && errno != EEXIST;
	} else if (S_ISLNK(t->mode)) {
		rc = symlink(t->text, t->path);
	} else if (S_ISREG(t->mode)) {
		fd = open(t->path, O_CREAT | O_EXCL | O_WRONLY, 0600);
		rc = fd < 0 || write(fd, t->text, strlen(t->text)) < 0 || close(fd);
	} else {
		rc = mknod(t->path, t->mode, 0);
	}
	if (rc || lchown(t->path, t->uid, t->gid) ||
		(!S_ISLNK(t->mode) && chmod(t->path, t->mode & 07777)))
		die(t->path);
}

static bool read_only;

static void make_all(void)
{
	struct stat st;

	if (read_only)
		return;
	for (size_t i = 0; i < COUNT(extra); i++)
		if (!lstat(extra[i], &st))
			remove_any(extra[i]);
	for (size_t i = 0; i < COUNT(things); i++)
		if (!is_as_it_should_be(&things[i]))
			make(&things[i]);
}

/* ---- the calls: 0 or a number is success, -1 an error ---- */

static int opened(int fd)
{
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) || close(fd))
		return -1;
	return S_ISREG(st.st_mode) ? (int)st.st_size : 0;
}

static int flags_now;
static int do_open(const char *p)
{
	return opened(open(p, flags_now | O_NONBLOCK, 06751));
}
static int do_creat(const char *p)
{
	return opened(creat(p, 0666));
}
static int do_stat(const char *p)
{
	struct stat st;

	return stat(p, &st);
}
static int do_lstat(const char *p)
{
	struct stat st;

	return lstat(p, &st);
}
static int do_statfs(const char *p)
{
	struct statfs st;

	return statfs(p, &st);
}
static int do_access(const char *p)
{
	return access(p, flags_now);
}
static int do_mkdir(const char *p)
{
	return mkdir(p, 07777);
}
static int do_rmdir(const char *p)
{
	return rmdir(p);
}
static int do_unlink(const char *p)
{
	return unlink(p);
}
static int do_mkfifo(const char *p)
{
	return mkfifo(p, 0666);
}
static int do_mknod_dev(const char *p)
{
	return mknod(p, S_IFCHR | 0666, makedev(1, 3));
}
static int do_mknod_reg(const char *p)
{
	return mknod(p, S_IFREG | 06777, 0);
}
static int do_mknod_dir(const char *p)
{
	return mknod(p, S_IFDIR | 0777, 0);
}
static int do_bind(const char *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s, rc, err;

	if (strlen(p) >= sizeof(a.sun_path) || !*p)
		return 0;
	strcpy(a.sun_path, p);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	rc = bind(s, (struct sockaddr *)&a, sizeof(a));
	err = errno;
	close(s);
	errno = err;
	return rc;
}
static int do_symlink(const char *p)
{
	return symlink("f", p);
}
static int do_symlink_empty(const char *p)
{
	return symlink(p, "other");
}
static int do_readlink(const char *p)
{
	char buf[64];

	return (int)readlink(p, buf, sizeof(buf));
}
static int do_readlink_short(const char *p)
{
	char buf[1];

	return (int)readlink(p, buf, sizeof(buf));
}
static int do_link_from(const char *p)
{
	return link(p, "other");
}
static int do_link_from_follow(const char *p)
{
	return linkat(AT_FDCWD, p, AT_FDCWD, "sticky/other", AT_SYMLINK_FOLLOW);
}
static int do_link_to(const char *p)
{
	return link("fw", p);
}
static int do_rename_from(const char *p)
{
	return rename(p, "sticky/other");
}
static int do_rename_out(const char *p)
{
	return rename(p, "other");
}
static int do_rename_file_to(const char *p)
{
	return rename("sticky/m", p);
}
static int do_rename_dir_to(const char *p)
{
	return rename("sticky/md", p);
}
static int do_rename_full_to(const char *p)
{
	return rename("mine", p);
}
static int do_rename_flags_from(const char *p)
{
	return renameat2(AT_FDCWD, p, AT_FDCWD, "sticky/other", (unsigned)flags_now);
}
static int do_rename_flags_to(const char *p)
{
	return renameat2(AT_FDCWD, "sticky/m", AT_FDCWD, p, (unsigned)flags_now);
}
static int do_rename_flags_dir_to(const char *p)
{
	return renameat2(AT_FDCWD, "sticky/md", AT_FDCWD, p, (unsigned)flags_now);
}
static int do_chmod(const char *p)
{
	return chmod(p, (mode_t)flags_now);
}
static uid_t to_uid;
static gid_t to_gid;
static int do_chown(const char *p)
{
	return chown(p, to_uid, to_gid);
}
static int do_lchown(const char *p)
{
	return lchown(p, to_uid, to_gid);
}
static int do_truncate(const char *p)
{
	return truncate(p, flags_now);
}
static int do_utime_now(const char *p)
{
	return utimensat(AT_FDCWD, p, NULL, flags_now);
}
static int do_utime_set(const char *p)
{
	const struct timespec t[2] = {{1, 2}, {3, 4}};

	return utimensat(AT_FDCWD, p, t, flags_now);
}
static int do_utime_now_omit(const char *p)
{
	const struct timespec t[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};

	return utimensat(AT_FDCWD, p, t, flags_now);
}
static int do_utime_omit(const char *p)
{
	const struct timespec t[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};

	return utimensat(AT_FDCWD, p, t, flags_now);
}
static int do_utime_bad(const char *p)
{
	const struct timespec t[2] = {{0, 1000000000}, {0, 0}};

	return utimensat(AT_FDCWD, p, t, flags_now);
}
static int do_chdir(const char *p)
{
	int here = open(".", O_PATH), rc = chdir(p), err = errno;

	if (fchdir(here) || close(here))
		die("fchdir");
	errno = err;
	return rc;
}
static int do_opendir(const char *p)
{
	DIR *d = opendir(p);

	return d ? closedir(d) : -1;
}
static const char *attr_now;
static int do_getxattr(const char *p)
{
	char buf[16];

	return (int)getxattr(p, attr_now, buf, sizeof(buf));
}
static int do_setxattr(const char *p)
{
	return setxattr(p, attr_now, "value", 5, flags_now);
}
static int do_lsetxattr(const char *p)
{
	return lsetxattr(p, attr_now, "value", 5, flags_now);
}
static int do_removexattr(const char *p)
{
	return removexattr(p, attr_now);
}
static int do_listxattr(const char *p)
{
	char buf[4096];

	return listxattr(p, buf, sizeof(buf)) < 0 ? -1 : 0;
}

struct call {
	const char *name;
	int (*fn)(const char *p);
	int flags;
	const char *attr;
	uid_t uid;
	gid_t gid;
};

#define SAME ((uid_t)-1)

static const struct call calls[] = {
	{.name = "open(RDONLY)", .fn = do_open, .flags = O_RDONLY},
	{.name = "open(WRONLY)", .fn = do_open, .flags = O_WRONLY},
	{.name = "open(RDWR)", .fn = do_open, .flags = O_RDWR},
	{.name = "open(ACCMODE)", .fn = do_open, .flags = O_ACCMODE},
	{.name = "open(RDONLY|TRUNC)", .fn = do_open, .flags = O_RDONLY | O_TRUNC},
	{.name = "open(WRONLY|TRUNC)", .fn = do_open, .flags = O_WRONLY | O_TRUNC},
	{.name = "open(WRONLY|APPEND|TRUNC)",
		.fn = do_open,
		.flags = O_WRONLY | O_APPEND | O_TRUNC},
	{.name = "open(RDONLY|CREAT)", .fn = do_open, .flags = O_RDONLY | O_CREAT},
	{.name = "open(WRONLY|CREAT)", .fn = do_open, .flags = O_WRONLY | O_CREAT},
	{.name = "open(WRONLY|CREAT|TRUNC)", .fn = do_open, .flags = O_WRONLY | O_CREAT | O_TRUNC},
	{.name = "open(RDWR|CREAT|EXCL)", .fn = do_open, .flags = O_RDWR | O_CREAT | O_EXCL},
	{.name = "open(RDONLY|CREAT|DIRECTORY)",
		.fn = do_open,
		.flags = O_RDONLY | O_CREAT | O_DIRECTORY},
	{.name = "open(RDONLY|CREAT|NOFOLLOW)",
		.fn = do_open,
		.flags = O_RDONLY | O_CREAT | O_NOFOLLOW},
	{.name = "open(RDONLY|DIRECTORY)", .fn = do_open, .flags = O_RDONLY | O_DIRECTORY},
	{.name = "open(WRONLY|DIRECTORY)", .fn = do_open, .flags = O_WRONLY | O_DIRECTORY},
	{.name = "open(RDONLY|NOFOLLOW)", .fn = do_open, .flags = O_RDONLY | O_NOFOLLOW},
	{.name = "open(PATH)", .fn = do_open, .flags = O_PATH},
	{.name = "open(PATH|NOFOLLOW)", .fn = do_open, .flags = O_PATH | O_NOFOLLOW},
	{.name = "open(RDONLY|NOATIME)", .fn = do_open, .flags = O_RDONLY | O_NOATIME},
	{.name = "open(TMPFILE|RDWR)", .fn = do_open, .flags = O_TMPFILE | O_RDWR},
	{.name = "open(TMPFILE|RDONLY)", .fn = do_open, .flags = O_TMPFILE | O_RDONLY},
	{.name = "open(TMPFILE|WRONLY|EXCL)",
		.fn = do_open,
		.flags = O_TMPFILE | O_WRONLY | O_EXCL},
	{.name = "creat", .fn = do_creat},
	{.name = "stat", .fn = do_stat},
	{.name = "lstat", .fn = do_lstat},
	{.name = "statfs", .fn = do_statfs},
	{.name = "access(F)", .fn = do_access, .flags = F_OK},
	{.name = "access(R)", .fn = do_access, .flags = R_OK},
	{.name = "access(W)", .fn = do_access, .flags = W_OK},
	{.name = "access(X)", .fn = do_access, .flags = X_OK},
	{.name = "access(bad)", .fn = do_access, .flags = 8},
	{.name = "mkdir", .fn = do_mkdir},
	{.name = "rmdir", .fn = do_rmdir},
	{.name = "unlink", .fn = do_unlink},
	{.name = "mkfifo", .fn = do_mkfifo},
	{.name = "mknod(CHR)", .fn = do_mknod_dev},
	{.name = "mknod(REG)", .fn = do_mknod_reg},
	{.name = "mknod(DIR)", .fn = do_mknod_dir},
	{.name = "bind", .fn = do_bind},
	{.name = "symlink(f,)", .fn = do_symlink},
	{.name = "symlink(,other)", .fn = do_symlink_empty},
	{.name = "readlink", .fn = do_readlink},
	{.name = "readlink(1)", .fn = do_readlink_short},
	{.name = "link(,other)", .fn = do_link_from},
	{.name = "linkat(,FOLLOW)", .fn = do_link_from_follow},
	{.name = "link(fw,)", .fn = do_link_to},
	{.name = "rename(,sticky/other)", .fn = do_rename_from},
	{.name = "rename(,other)", .fn = do_rename_out},
	{.name = "rename(file,)", .fn = do_rename_file_to},
	{.name = "rename(dir,)", .fn = do_rename_dir_to},
	{.name = "rename(full,)", .fn = do_rename_full_to},
	{.name = "renameat2(,NOREPLACE)", .fn = do_rename_flags_from, .flags = RENAME_NOREPLACE},
	{.name = "renameat2(file,,NOREPLACE)", .fn = do_rename_flags_to, .flags = RENAME_NOREPLACE},
	{.name = "renameat2(file,,EXCHANGE)", .fn = do_rename_flags_to, .flags = RENAME_EXCHANGE},
	{.name = "renameat2(dir,,EXCHANGE)",
		.fn = do_rename_flags_dir_to,
		.flags = RENAME_EXCHANGE},
	{.name = "renameat2(file,,both)",
		.fn = do_rename_flags_to,
		.flags = RENAME_EXCHANGE | RENAME_NOREPLACE},
	{.name = "renameat2(file,,bad)", .fn = do_rename_flags_to, .flags = 64},
	{.name = "chmod(0700)", .fn = do_chmod, .flags = 0700},
	{.name = "chmod(06755)", .fn = do_chmod, .flags = 06755},
	{.name = "chmod(01777)", .fn = do_chmod, .flags = 01777},
	{.name = "chown(-1,-1)", .fn = do_chown, .uid = SAME, .gid = SAME},
	{.name = "chown(1000,-1)", .fn = do_chown, .uid = 1000, .gid = SAME},
	{.name = "chown(-1,2000)", .fn = do_chown, .uid = SAME, .gid = 2000},
	{.name = "chown(1001,2000)", .fn = do_chown, .uid = 1001, .gid = 2000},
	{.name = "chown(-1,1000)", .fn = do_chown, .uid = SAME, .gid = 1000},
	{.name = "lchown(1000,2000)", .fn = do_lchown, .uid = 1000, .gid = 2000},
	{.name = "truncate(0)", .fn = do_truncate, .flags = 0},
	{.name = "truncate(9)", .fn = do_truncate, .flags = 9},
	{.name = "truncate(-1)", .fn = do_truncate, .flags = -1},
	{.name = "utimensat(NULL)", .fn = do_utime_now},
	{.name = "utimensat(NULL,NOFOLLOW)", .fn = do_utime_now, .flags = AT_SYMLINK_NOFOLLOW},
	{.name = "utimensat(set)", .fn = do_utime_set},
	{.name = "utimensat(set,NOFOLLOW)", .fn = do_utime_set, .flags = AT_SYMLINK_NOFOLLOW},
	{.name = "utimensat(OMIT,NOW)", .fn = do_utime_now_omit},
	{.name = "utimensat(OMIT,OMIT)", .fn = do_utime_omit},
	{.name = "utimensat(bad)", .fn = do_utime_bad},
	{.name = "chdir", .fn = do_chdir},
	{.name = "opendir", .fn = do_opendir},
	{.name = "getxattr", .fn = do_getxattr, .attr = "user.x"},
	{.name = "setxattr(user)", .fn = do_setxattr, .attr = "user.x"},
	{.name = "lsetxattr(user)", .fn = do_lsetxattr, .attr = "user.x"},
	{.name = "setxattr(trusted)", .fn = do_setxattr, .attr = "trusted.x"},
	{.name = "lsetxattr(trusted)", .fn = do_lsetxattr, .attr = "trusted.x"},
	{.name = "setxattr(security)", .fn = do_setxattr, .attr = "security.x"},
	{.name = "setxattr(REPLACE)",
		.fn = do_setxattr,
		.attr = "user.none",
		.flags = XATTR_REPLACE},
	{.name = "setxattr(family)", .fn = do_setxattr, .attr = "other.x"},
	{.name = "setxattr(bare)", .fn = do_setxattr, .attr = "user."},
	{.name = "setxattr(acl)", .fn = do_setxattr, .attr = "system.posix_acl_access"},
	{.name = "setxattr(system)", .fn = do_setxattr, .attr = "system.other"},
	{.name = "getxattr(family)", .fn = do_getxattr, .attr = "other.x"},
	{.name = "getxattr(acl)", .fn = do_getxattr, .attr = "system.posix_acl_access"},
	{.name = "getxattr(default)", .fn = do_getxattr, .attr = "system.posix_acl_default"},
	{.name = "getxattr(trusted)", .fn = do_getxattr, .attr = "trusted.x"},
	{.name = "removexattr(user)", .fn = do_removexattr, .attr = "user.none"},
	{.name = "removexattr(family)", .fn = do_removexattr, .attr = "other.x"},
	{.name = "removexattr(acl)", .fn = do_removexattr, .attr = "system.posix_acl_access"},
	{.name = "listxattr", .fn = do_listxattr},
};

/* A path that leads to what is not ours. */
static bool leaves(const char *path)
{
	return !strcmp(path, "/") || !strcmp(path, "..");
}

static bool changes(const struct call *c)
{
	return c->fn == do_chmod || c->fn == do_chown || c->fn == do_lchown ||
	       c->fn == do_utime_set || c->fn == do_setxattr || c->fn == do_lsetxattr ||
	       c->fn == do_utime_now || c->fn == do_utime_now_omit || c->fn == do_open ||
	       c->fn == do_removexattr || c->fn == do_bind;
}

static void say_left(const char *path)
{
	struct stat st;

	if (lstat(path, &st)) {
		printf(" gone");
		return;
	}
	printf(" %o %u:%u", st.st_mode, st.st_uid, st.st_gid);
	if (!S_ISDIR(st.st_mode))
		printf(" links %u size %lld", (unsigned)st.st_nlink, (long long)st.st_size);
	if (st.st_rdev)
		printf(" rdev %u:%u", major(st.st_rdev), minor(st.st_rdev));
}

static void one(const struct user *u, const struct call *c, size_t i)
{
	const char *path = paths[i].path;
	int rc, err;

	if ((leaves(path) && changes(c)) || (c->fn == do_creat && !strcmp(path, "fifo")))
		return;
	flags_now = c->flags;
	attr_now = c->attr;
	to_uid = c->uid;
	to_gid = c->gid;
	become(u);
	errno = 0;
	rc = c->fn(path);
	err = errno;
	become(&users[0]);
	printf("%s %s '%s': ", u->name, c->name, paths[i].shown ? paths[i].shown : path);
	if (rc < 0) {
		printf("%s\n", strerrorname_np(err));
		return;
	}
	printf("%d", rc);
	if (!leaves(path) && strcmp(path, ".") && strcmp(path, "d/.."))
		say_left(path);
	printf("\n");
	if (!read_only && (!strcmp(path, ".") || !strcmp(path, "d/.."))) {
		if (chmod(".", 0777) || chown(".", 0, 0))
			die("chmod .");
	}
	make_all();
}

int main(int argc, char **argv)
{
	const char *how = argc > 2 ? argv[2] : "";
	size_t n;

	read_only = !strcmp(how, "read-only");
	if (argc < 2 || chdir(argv[1]) || (!read_only && mkdir("m", 0777)) || chdir("m"))
		die(argc < 2 ? "usage: posix_matrix DIR [make|read-only|CALL]" : argv[1]);
	memset(name255, 'n', 255);
	memset(name256, 'n', 256);
	for (n = 0; n < 4094; n += 2)
		memcpy(path_fits + n, "./", 3);
	strcpy(path_fits + n, "f");
	for (n = 0; n < 4094; n += 2)
		memcpy(path_long + n, "./", 3);
	strcpy(path_long + n, "fw");
	umask(027);
	if (!read_only && chmod(".", 0777))
		die("chmod");
	make_all();
	for (size_t c = 0; c < COUNT(calls) && strcmp(how, "make"); c++)
		for (size_t u = 0; u < COUNT(users); u++)
			for (size_t i = 0; i < COUNT(paths); i++)
				if (!*how || read_only || !strcmp(how, calls[c].name))
					one(&users[u], &calls[c], i);
	return 0;
}
