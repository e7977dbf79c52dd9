#include "core/mountpoint.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

char *sop_mountpoint_name(const char *path)
{
	sop_autofree char *copy = strdup(path), *parent = NULL;
	char *slash, *out = NULL;
	size_t len = strlen(path);

	if (!copy)
		return NULL;
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	/* No names of their own. */
	if (!strcmp(copy, "/") || !strcmp(slash ? slash + 1 : copy, ".") ||
		!strcmp(slash ? slash + 1 : copy, ".."))
		return realpath(copy, NULL);
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
	if (parent && asprintf(&out, "%s/%s", strcmp(parent, "/") ? parent : "",
			      slash ? slash + 1 : copy) < 0)
		out = NULL;
	return out;
}

bool sop_paths_overlap(const char *a, const char *b)
{
	/* All lies in "/". */
	size_t n = SOP_MIN(strcmp(a, "/") ? strlen(a) : 0, strcmp(b, "/") ? strlen(b) : 0);

	return strncmp(a, b, n) == 0 && (!a[n] || a[n] == '/') && (!b[n] || b[n] == '/');
}

int sop_namespace_enter(const char *name, struct sop_err *e)
{
	char path[64];
	sop_autoclose int fd = -1;

	if (!name)
		return 0;
	if (!name[strspn(name, "0123456789")]) {
		snprintf(path, sizeof(path), "/proc/%.20s/ns/mnt", name);
		name = path;
	}
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNS))
		return sop_fail(e, -errno, "%s: mount namespace", name);
	return 0;
}
