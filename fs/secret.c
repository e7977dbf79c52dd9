#include "fs/secret.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CREDENTIAL "redis_password"
#define VARIABLE   "SOPFS_REDIS_PASSWORD"

static int from_credentials(struct sopfs_options *o, struct sop_err *e)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");

	if (!dir)
		return 0;
	if (asprintf(&o->secret, "%s/" CREDENTIAL, dir) < 0) {
		o->secret = NULL;
		return sop_fail(e, -ENOMEM, CREDENTIAL);
	}
	if (!access(o->secret, F_OK))
		return 0;
	free(o->secret);
	o->secret = NULL;
	return 0;
}

/* Into a file without a name: the engine reads it again at each connection, and the environment of
 * a process can be looked at in /proc. */
static int from_environment(struct sopfs_options *o, struct sop_err *e)
{
	char *text = getenv(VARIABLE);
	size_t len = text ? strlen(text) : 0;
	int fd, rc = 0;

	if (!len)
		return 0;
	fd = memfd_create("sopfs", MFD_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0600) || write(fd, text, len) != (ssize_t)len)
		rc = sop_fail(e, -errno, VARIABLE);
	if (!rc && asprintf(&o->secret, "/proc/self/fd/%d", fd) < 0) {
		o->secret = NULL;
		rc = sop_fail(e, -ENOMEM, VARIABLE);
	}
	if (rc && fd >= 0)
		close(fd);
	return rc;
}

/* Also when it is not needed: whoever has set it does not want it shown. */
static void wipe_environment(void)
{
	char *text = getenv(VARIABLE);

	if (text)
		explicit_bzero(text, strlen(text));
	unsetenv(VARIABLE);
}

static int find(struct sopfs_options *o, struct sop_err *e)
{
	int rc;

	if (!o->redis || o->redis_password_file)
		return 0;
	rc = from_credentials(o, e);
	if (!rc && !o->secret)
		rc = from_environment(o, e);
	if (!rc && o->secret)
		o->volume.redis_password_file = o->secret;
	return rc;
}

int sopfs_secret_find(struct sopfs_options *o, struct sop_err *e)
{
	int rc = find(o, e);

	wipe_environment();
	return rc;
}
