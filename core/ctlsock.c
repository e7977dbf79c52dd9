#include "core/ctlsock.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

static bool format(char *out, size_t size, const char *parent)
{
	int n = snprintf(out, size, "%s/sopfs", parent);

	return n > 0 && (size_t)n < size;
}

static bool of_user(char *out, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char parent[64];

	if (runtime && runtime[0] == '/')
		return format(out, size, runtime);
	snprintf(parent, sizeof(parent), "/run/user/%u", (unsigned)geteuid());
	return format(out, size, parent);
}

bool sop_ctl_folder(char *out, size_t size, unsigned i)
{
	const char *set = getenv("SOPFS_RUN_DIR");

	if (set && set[0] == '/') {
		int n = snprintf(out, size, "%s", set);

		return i == 0 && n > 0 && (size_t)n < size;
	}
	if (geteuid() == 0)
		return i == 0 && format(out, size, "/run");
	if (i == 0)
		return of_user(out, size);
	return i == 1 && format(out, size, "/run");
}

int sop_ctl_folder_open(const char *path, bool create, struct sop_err *e)
{
	struct stat st;
	int fd;

	/* Others must be able to reach root's: what they may do is decided by who they are. */
	if (create && mkdir(path, geteuid() == 0 ? 0755 : 0700) && errno != EEXIST)
		return sop_fail(e, -errno, "%s", path);
	fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return sop_fail(e, -errno, "%s", path);
	if (fstat(fd, &st) || (st.st_uid != 0 && st.st_uid != geteuid()) ||
		(create && st.st_uid != geteuid()) || st.st_mode & 022) {
		close(fd);
		return sop_say(e, -EPERM,
			"%s: must be a folder of this user's that nobody else can write to; remove "
			"it, or chmod go-w",
			path);
	}
	return fd;
}

int sop_ctl_address(struct sockaddr_un *out, int folder, const char *name)
{
	int n;

	memset(out, 0, sizeof(*out));
	out->sun_family = AF_UNIX;
	n = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", folder, name);
	return n > 0 && (size_t)n < sizeof(out->sun_path) ? 0 : -ENAMETOOLONG;
}
