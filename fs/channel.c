/* Mounting, and reading and writing requests.
 *
 * libfuse up to 3.16 never asks for FUSE_PARALLEL_DIROPS: lookups in one directory then wait for
 * each other. So the session works over fuse_session_custom_io() on a descriptor of ours, and the
 * one reply to INIT gets the missing bits on its way out, if the kernel has offered them. With a
 * libfuse that sets them itself nothing changes.
 *
 * The way down: unmounting makes read(2) fail with ENODEV in every worker, and the loop ends. When
 * that must not wait for open files, a worker is made to see the same ENODEV: sopfs_channel_stop()
 * sets a flag and interrupts whichever worker is in read(2). Nothing but workers takes that signal.
 */
#define FUSE_USE_VERSION 312
#include "fs/channel.h"
#include "core/mountpoint.h"
#include "fs/fdpass.h"
#include "fs/messenger.h"
#include "fs/mountinfo.h"
#include "fs/requests.h"
#include "fs/sopfs.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define READAHEAD_KIB 1024

struct sopfs_channel {
	char *mountpoint;
	bool direct; /* by mount(2), not by fusermount3 */
	unsigned major, minor;
};

/* Of the one channel there is: libfuse hands our I/O functions the session's user data, not ours.
 */
static struct sopfs_messenger *messenger;			/* set before the loop */
static void (*answer_statx)(void *, int, const void *, size_t); /* set before the loop */
static atomic_bool stopping;
static atomic_bool init_done;
static uint32_t offered_flags, offered_flags2; /* written before, read after the INIT request */

/* ---- requests and replies ----------------------------------------------------------------------
 */

/* Words of struct fuse_init_out: flags is 3, flags2 is 8. */
void sopfs_init_complete(uint32_t reply[16], uint32_t flags, uint32_t flags2)
{
	/* HANDLE_KILLPRIV_V2: that a write takes set-ID bits and capabilities away is our doing
	 * (sopfs_drop_privileges()), and the kernel need not ask for an attribute before each. */
	uint32_t want = (FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2) & flags;
	uint32_t want2 = (uint32_t)((1ull << 36) >> 32) & flags2; /* FUSE_DIRECT_IO_ALLOW_MMAP */

	reply[3] |= want;
	/* The kernel looks at flags2 only beside FUSE_INIT_EXT. */
	if (want2 && (flags & FUSE_INIT_EXT)) {
		reply[3] |= FUSE_INIT_EXT;
		reply[8] |= want2;
	}
}

static void note_offer(const void *request, size_t len)
{
	struct fuse_in_header head;
	struct fuse_init_in in = {0};

	if (len < sizeof(head) + offsetof(struct fuse_init_in, flags2))
		return;
	memcpy(&head, request, sizeof(head));
	if (head.opcode != FUSE_INIT)
		return;
	memcpy(&in, (const char *)request + sizeof(head), SOP_MIN(sizeof(in), len - sizeof(head)));
	offered_flags = in.flags;
	offered_flags2 = (in.flags & FUSE_INIT_EXT) ? in.flags2 : 0;
}

/* Workers take the signal, and no other thread: all are born with it blocked. */
static void take_stop_signal(void)
{
	static _Thread_local bool taken;
	sigset_t set;

	if (taken)
		return;
	sigemptyset(&set);
	sigaddset(&set, SOPFS_STOP_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	taken = true;
}

static void no_op(int signal_number)
{
	(void)signal_number;
}

/* O_TMPFILE came after the libfuse of Debian 12, which refuses it. Request and reply are those of
 * CREATE, and the name is "/", which no CREATE has: by that the handler knows. */
static void tmpfile_as_create(void *request)
{
	const uint32_t tmpfile = 51, create = FUSE_CREATE;
	char *opcode = (char *)request + offsetof(struct fuse_in_header, opcode);

	if (memcmp(opcode, &tmpfile, sizeof(tmpfile)) == 0)
		memcpy(opcode, &create, sizeof(create));
}

/* STATX is younger still; libfuse says ENOSYS to it, once and for all. */
static bool is_statx(const void *request, ssize_t len)
{
	const uint32_t statx = 52;

	return len >= (ssize_t)sizeof(struct fuse_in_header) &&
	       memcmp((const char *)request + offsetof(struct fuse_in_header, opcode), &statx,
		       sizeof(statx)) == 0;
}

void sopfs_channel_answer(int fd, uint64_t unique, int error, const void *body, size_t len)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len), .error = -error, .unique = unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {(void *)(uintptr_t)body, len}};

	/* It fails when whoever asked has gone. */
	(void)!writev(fd, iov, 2);
}

static ssize_t channel_read(int fd, void *buf, size_t len, void *userdata)
{
	ssize_t n;

	take_stop_signal();
	for (;;) {
		if (atomic_load_explicit(&stopping, memory_order_relaxed)) {
			errno = ENODEV;
			return -1;
		}
		n = read(fd, buf, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n > 0)
			sopfs_request_note(buf, (size_t)n);
		if (!answer_statx || !is_statx(buf, n))
			break;
		answer_statx(userdata, fd, buf, (size_t)n);
	}
	if (n > 0 && !atomic_load_explicit(&init_done, memory_order_relaxed))
		note_offer(buf, (size_t)n);
	if (n >= (ssize_t)sizeof(struct fuse_in_header))
		tmpfile_as_create(buf);
	return n;
}

/* A notification for which the kernel may have to wait for a lock: of a directory, or of pages. */
static bool may_sleep(const struct iovec *iov, int count)
{
	struct fuse_notify_inval_inode_out inode;
	struct fuse_out_header head;

	if (iov[0].iov_len < sizeof(head))
		return false;
	memcpy(&head, iov[0].iov_base, sizeof(head));
	if (head.unique)
		return false; /* an answer */
	if (head.error != FUSE_NOTIFY_INVAL_INODE || count < 2 || iov[1].iov_len < sizeof(inode))
		return true;
	memcpy(&inode, iov[1].iov_base, sizeof(inode));
	return inode.off >= 0;
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	uint32_t reply[16];
	struct iovec copy[2];
	ssize_t n;

	(void)userdata;
	static_assert(sizeof(reply) == sizeof(struct fuse_init_out), "INIT reply");
	if (may_sleep(iov, count) && sopfs_messenger_send(messenger, iov, count, &n))
		return n;
	if (atomic_load_explicit(&init_done, memory_order_relaxed) || count != 2 ||
		iov[1].iov_len != sizeof(reply))
		return writev(fd, iov, count);
	/* The kernel sends nothing before INIT is answered, so the first reply of this size is it.
	 */
	memcpy(reply, iov[1].iov_base, sizeof(reply));
	sopfs_init_complete(reply, offered_flags, offered_flags2);
	copy[0] = iov[0];
	copy[1] = (struct iovec){.iov_base = reply, .iov_len = sizeof(reply)};
	atomic_store(&init_done, true);
	n = writev(fd, copy, 2);
	return n;
}

int sopfs_channel_notify(struct fuse_session *se, struct iovec *iov, int count)
{
	return channel_writev(fuse_session_fd(se), iov, count, NULL) < 0 ? -errno : 0;
}

/* ---- mounting ----------------------------------------------------------------------------------
 */

static int mount_direct(
	int *out, const char *mountpoint, const struct sopfs_channel_opts *o, struct sop_err *e)
{
	sop_autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char data[256];
	struct stat st;
	int rc;

	if (fd < 0) {
		rc = -errno;
		if (rc == -ENOENT || rc == -ENODEV || rc == -ENXIO)
			return sop_say(e, rc,
				"/dev/fuse is missing; load the kernel module: modprobe fuse");
		return sop_fail(e, rc, "/dev/fuse");
	}
	if (stat(mountpoint, &st))
		return sop_fail(e, -errno, "%s", mountpoint);
	snprintf(data, sizeof(data),
		"fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions%s", fd,
		st.st_mode & S_IFMT, getuid(), getgid(), o->allow_other ? ",allow_other" : "");
	if (mount(o->source, mountpoint, SOPFS_MOUNT_TYPE, o->mount_flags, data))
		return sop_fail(e, -errno, "%s: mount", mountpoint);
	*out = fd;
	fd = -1;
	return 0;
}

static int receive_fd(int *out, int sock, struct sop_err *e)
{
	int rc = sopfs_fd_receive(out, sock);

	if (rc < 0)
		return sop_fail(e, rc, "fusermount3");
	if (!rc)
		return sop_say(
			e, -EPERM, "fusermount3 refused to mount (its own message is above)");
	return 0;
}

extern char **environ;

/* Runs fusermount3 with args; env, when not NULL, is added to its environment. */
static int fusermount_start(pid_t *pid, char *const args[], char *env, struct sop_err *e)
{
	sop_autofree char **all = NULL;
	size_t n = 0, i;
	int rc;

	while (environ[n])
		n++;
	all = calloc(n + 2, sizeof(*all));
	if (!all)
		return sop_fail(e, -ENOMEM, "fusermount3");
	for (i = 0; i < n; i++)
		all[i] = environ[i];
	all[n] = env;
	rc = posix_spawnp(pid, "fusermount3", NULL, NULL, args, all);
	if (rc == ENOENT)
		return sop_say(e, -ENOENT, "fusermount3 is missing; install the package fuse3");
	return rc ? sop_fail(e, -rc, "fusermount3") : 0;
}

static int fusermount_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBUSY;
}

/* libfuse's option parser takes a backslash before a comma, and before itself. */
static char *escape_commas(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1), *p = out;

	if (!out)
		return NULL;
	for (; *text; text++) {
		if (*text == ',' || *text == '\\')
			*p++ = '\\';
		*p++ = *text;
	}
	*p = '\0';
	return out;
}

static int mount_fusermount(
	int *out, const char *mountpoint, const struct sopfs_channel_opts *o, struct sop_err *e)
{
	sop_autofree char *source = escape_commas(o->source), *opts = NULL,
			  *where = strdup(mountpoint);
	char name[] = "fusermount3", dash_o[] = "-o", dashes[] = "--", env[32];
	sop_autoclose int ours = -1;
	int sock[2], rc;
	pid_t pid;

	if (!source || !where ||
		asprintf(&opts, "fsname=%s,subtype=sopfs,default_permissions%s%s%s", source,
			o->allow_other ? ",allow_other" : "",
			o->mount_flags & MS_RDONLY ? ",ro" : "",
			o->mount_flags & MS_NOEXEC ? ",noexec" : "") < 0) {
		opts = NULL;
		return sop_fail(e, -ENOMEM, "%s", mountpoint);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		return sop_fail(e, -errno, "socketpair");
	ours = sock[0];
	fcntl(sock[1], F_SETFD, 0);
	snprintf(env, sizeof(env), "_FUSE_COMMFD=%d", sock[1]);
	rc = fusermount_start(&pid, (char *[]){name, dash_o, opts, dashes, where, NULL}, env, e);
	close(sock[1]);
	if (rc)
		return rc;
	rc = receive_fd(out, ours, e);
	fusermount_wait(pid);
	return rc;
}

int sopfs_channel_open(struct sopfs_channel **out, struct fuse_session *se, const char *mountpoint,
	const struct sopfs_channel_opts *o, struct sop_err *e)
{
	static const struct fuse_custom_io io = {.writev = channel_writev, .read = channel_read};
	const struct sigaction interrupt = {.sa_handler = no_op}; /* and no SA_RESTART */
	struct sopfs_channel *c = calloc(1, sizeof(*c));
	struct sopfs_mount m;
	int fd = -1, rc;

	if (strlen(o->source) >= PATH_MAX) {
		free(c);
		return sop_say(e, -E2BIG,
			"SOURCE is longer than the kernel takes (%d bytes); name fewer folders, "
			"any one "
			"of them will do, or a NAME.conf",
			PATH_MAX - 1);
	}
	sigaction(SOPFS_STOP_SIGNAL, &interrupt, NULL);
	if (!c || !(c->mountpoint = strdup(mountpoint))) {
		free(c);
		return sop_fail(e, -ENOMEM, "%s", mountpoint);
	}
	c->direct = geteuid() == 0;
	rc = c->direct ? mount_direct(&fd, mountpoint, o, e)
		       : mount_fusermount(&fd, mountpoint, o, e);
	if (rc)
		goto fail;
	rc = fuse_session_custom_io(se, &io, fd);
	if (rc) {
		close(fd);
		rc = sop_fail(e, rc < 0 ? rc : -EINVAL, "%s: libfuse session", mountpoint);
		goto detach;
	}
	/* From here on the mount is told from others at the same place by its device number. */
	rc = sopfs_mount_at(&m, mountpoint, e);
	if (rc <= 0) {
		rc = rc ? rc
			: sop_say(e, -EIO,
				  "%s: mounted, but not to be found in /proc/self/mountinfo",
				  mountpoint);
		goto detach;
	}
	c->major = m.major;
	c->minor = m.minor;
	answer_statx = o->statx;
	/* Without it (no /dev/fuse of our own to open) notifications are written from here. */
	if (o->messenger && !sopfs_messenger_attach(o->messenger, fd, NULL))
		messenger = o->messenger;
	*out = c;
	return 0;
detach:
	if (c->direct)
		umount2(mountpoint, MNT_DETACH);
fail:
	free(c->mountpoint);
	free(c);
	return rc;
}

static void set_readahead(const struct sopfs_channel *c)
{
	char path[96], text[16];
	sop_autoclose int fd = -1;
	int len;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", c->major, c->minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return; /* not root, or no sysfs here: the kernel's 128 KiB stay, which is slower
			   alone */
	len = snprintf(text, sizeof(text), "%d", READAHEAD_KIB);
	if (write(fd, text, (size_t)len) != len)
		return;
}

int sopfs_channel_ready(struct sopfs_channel *c, struct sop_err *e)
{
	struct stat st;

	if (stat(c->mountpoint, &st))
		return sop_fail(e, -errno, "%s: first request", c->mountpoint);
	set_readahead(c);
	return 0;
}

/* ---- unmounting --------------------------------------------------------------------------------
 */

static int detach(const char *mountpoint, bool direct, bool lazy, struct sop_err *e)
{
	char name[] = "fusermount3", flags[] = "-uqz", dashes[] = "--";
	sop_autofree char *where = NULL;
	pid_t pid;
	int rc;

	if (direct) {
		if (!umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
			return 0;
		rc = -errno;
		return rc == -EINVAL ? 0 : sop_fail(e, rc, "%s: umount", mountpoint);
	}
	where = strdup(mountpoint);
	if (!where)
		return sop_fail(e, -ENOMEM, "%s", mountpoint);
	if (!lazy)
		flags[3] = '\0';
	rc = fusermount_start(&pid, (char *[]){name, flags, dashes, where, NULL}, NULL, e);
	if (!rc && fusermount_wait(pid))
		rc = sop_fail(e, -EBUSY, "%s: umount", mountpoint);
	return rc;
}

int sopfs_channel_unmount(struct sopfs_channel *c, bool lazy, struct sop_err *e)
{
	struct sopfs_mount m;
	int rc = sopfs_mount_at(&m, c->mountpoint, e);

	/* Gone already, or another file system lies over it: then it is not ours to take away. */
	if (rc <= 0 || m.major != c->major || m.minor != c->minor)
		return rc < 0 ? rc : 0;
	return detach(c->mountpoint, c->direct, lazy, e);
}

void sopfs_channel_stop(struct sopfs_channel *c)
{
	(void)c;
	atomic_store(&stopping, true);
	kill(getpid(), SOPFS_STOP_SIGNAL);
}

void sopfs_channel_close(struct sopfs_channel *c)
{
	if (!c)
		return;
	sopfs_channel_unmount(c, true, NULL);
	free(c->mountpoint);
	free(c);
}

/* ---- the mount point ---------------------------------------------------------------------------
 */

/* "Transport endpoint is not connected": a daemon that died left it. */
static int replace_dead(char **canonical, const char *path, struct sop_err *e)
{
	sop_autofree char *name = sop_mountpoint_name(path);
	struct sopfs_mount m;
	int rc;

	if (!name)
		return sop_fail(e, -ENOTCONN, "%s", path);
	rc = sopfs_mount_at(&m, name, e);
	if (rc < 0)
		return rc;
	if (!rc || strcmp(m.type, SOPFS_MOUNT_TYPE))
		return sop_say(e, -EBUSY,
			"%s: a dead mount%s%s lies there that is not ours; take it away with "
			"umount -l %s",
			path, rc ? " of type " : "", rc ? m.type : "", path);
	rc = detach(name, geteuid() == 0, true, e);
	/* Another may lie below it. */
	return rc ? rc : sopfs_mountpoint_check(canonical, path, e);
}

/* Is the process that a member's claim names gone, or a zombie? */
static bool claimant_is_dead(const char *source)
{
	sop_autofree char *path = NULL;
	char text[256] = "", stat_text[256] = "";
	const char *p;
	FILE *f;
	long pid;

	if (asprintf(&path, "%.*s/lock", (int)strcspn(source, ":"), source) < 0)
		return false;
	f = fopen(path, "re");
	if (!f)
		return false;
	(void)!fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	p = strstr(text, "pid=");
	pid = p ? strtol(p + 4, NULL, 10) : 0;
	if (pid <= 0)
		return false;
	snprintf(stat_text, sizeof(stat_text), "/proc/%ld/stat", pid);
	f = fopen(stat_text, "re");
	if (!f)
		return errno == ENOENT;
	(void)!fread(stat_text, 1, sizeof(stat_text) - 1, f);
	fclose(f);
	stat_text[sizeof(stat_text) - 1] = '\0';
	p = strrchr(stat_text, ')');
	return p && p[1] == ' ' && p[2] == 'Z';
}

/* A daemon killed while the kernel made one of its threads wait for a directory (to forget a name)
 * leaves a connection that neither answers nor breaks, and every call on the mount hangs. Ending it
 * by force sets all free; what follows then finds an ordinary dead mount. Before any call on the
 * mount point. */
static void free_hung(const char *mountpoint)
{
	sop_autofree char *name = sop_mountpoint_name(mountpoint);
	struct sopfs_mount m;

	if (name && geteuid() == 0 && sopfs_mount_at(&m, name, NULL) == 1 &&
		!strcmp(m.type, SOPFS_MOUNT_TYPE) && claimant_is_dead(m.source))
		umount2(name, MNT_FORCE | UMOUNT_NOFOLLOW);
}

int sopfs_mountpoint_check(char **canonical, const char *mountpoint, struct sop_err *e)
{
	sop_autofree char *name = NULL;
	struct sopfs_mount m;
	struct statfs dead;
	struct stat st;
	int rc;

	free_hung(mountpoint);
	name = realpath(mountpoint, NULL);
	/* statfs always asks the daemon; the attributes of a dead mount's root may be remembered.
	 */
	if (!name || stat(name, &st) || statfs(name, &dead)) {
		rc = -errno;
		/* The latter: it has died while it was asked. */
		if (rc == -ENOTCONN || rc == -ECONNABORTED)
			return replace_dead(canonical, mountpoint, e);
		if (rc == -ENOENT)
			return sop_say(e, rc,
				"%s: the mount point does not exist; make it with mkdir",
				mountpoint);
		return sop_fail(e, rc, "%s: mount point", mountpoint);
	}
	if (!S_ISDIR(st.st_mode))
		return sop_say(e, -ENOTDIR, "%s: the mount point is not a directory; give one",
			mountpoint);
	rc = sopfs_mount_at(&m, name, e);
	if (rc < 0)
		return rc;
	if (rc && !strcmp(m.type, SOPFS_MOUNT_TYPE))
		return sop_say(e, -EBUSY,
			"%s: %s is mounted here already; umount %s first, or mount elsewhere",
			mountpoint, m.source, mountpoint);
	*canonical = name;
	name = NULL;
	return 0;
}
