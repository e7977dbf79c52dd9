/* The daemon shows its settings as the attribute sop.options of the root (fs/ops_xattr.c), in the
 * form of sopfs_options_dump(). The words of the remount are applied to those, and the two lists
 * compared. */
#include "fs/remount.h"

#include "fs/mountinfo.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/xattr.h>

#define SETTINGS_MAX 65536

static int read_settings(struct sopfs_options *now, const char *dir, struct sop_err *e)
{
	sop_autofree char *text = malloc(SETTINGS_MAX);
	char *save = NULL, *line, *eq;
	ssize_t n;
	int rc = 0;

	if (!text)
		return sop_fail(e, -ENOMEM, "%s", dir);
	n = getxattr(dir, "sop.options", text, SETTINGS_MAX - 1);
	if (n < 0)
		return sop_fail(e, -errno, "%s: the settings of its daemon", dir);
	text[n] = '\0';
	for (line = strtok_r(text, "\n", &save); line && !rc; line = strtok_r(NULL, "\n", &save)) {
		eq = strstr(line, " = ");
		if (!eq || !strncmp(line, "source ", 7))
			continue;
		*eq = '\0';
		rc = sopfs_options_set(now, line, eq + 3, e);
	}
	return rc;
}

static bool may_change(const char *line)
{
	static const char *const can[] = {"ro ", "nosuid ", "nodev ", "noexec "};
	size_t i;

	for (i = 0; i < SOP_ARRAY_LEN(can); i++)
		if (!strncmp(line, can[i], strlen(can[i])))
			return true;
	return false;
}

/* The first line that differs and must not. */
static int compare(const char *dir, char *was, char *is, struct sop_err *e)
{
	char *save_was = NULL, *save_is = NULL;
	char *a = strtok_r(was, "\n", &save_was), *b = strtok_r(is, "\n", &save_is);

	while (a && b) {
		if (strcmp(a, b) && !may_change(a))
			return sop_say(e, -EINVAL,
				"%s: \"%s\" cannot change while it is mounted (it is \"%s\"); "
				"umount "
				"it and mount it again",
				dir, b, a);
		a = strtok_r(NULL, "\n", &save_was);
		b = strtok_r(NULL, "\n", &save_is);
	}
	return 0;
}

static int sync_all(const char *dir, struct sop_err *e)
{
	sop_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		return sop_fail(e, -errno, "%s: writing out", dir);
	return 0;
}

static int change(const char *dir, const struct sopfs_options *now,
	const struct sopfs_options *then, struct sop_err *e)
{
	unsigned long flags = then->mount_flags | MS_REMOUNT;
	int rc;

	if (now->volume.read_only && !then->volume.read_only)
		return sop_say(e, -EROFS,
			"%s: was mounted read-only, so its daemon cannot write; umount it and "
			"mount "
			"it again",
			dir);
	if (then->volume.read_only) {
		flags |= MS_RDONLY;
		rc = now->volume.read_only ? 0 : sync_all(dir, e);
		if (rc)
			return rc;
	}
	if (!mount("none", dir, NULL, flags, NULL))
		return 0;
	if (errno == EBUSY)
		return sop_say(e, -EBUSY,
			"%s: files are open for writing; close them, then remount it read-only",
			dir);
	return sop_fail(e, -errno, "%s: remount", dir);
}

int sopfs_remount(const struct sopfs_options *o, struct sop_err *e)
{
	sop_autofree char *dir = realpath(o->mountpoint, NULL), *was = NULL, *is = NULL;
	struct sopfs_options now, then;
	struct sopfs_mount m;
	int rc;

	if (!dir)
		return sop_fail(e, -errno, "%s", o->mountpoint);
	rc = sopfs_mount_at(&m, dir, e);
	if (rc < 0)
		return rc;
	if (!rc || strcmp(m.type, SOPFS_MOUNT_TYPE))
		return sop_say(e, -EINVAL, "%s: no sopfs is mounted there", o->mountpoint);
	sopfs_options_init(&now);
	sopfs_options_init(&then);
	then.sloppy = o->sloppy;
	rc = read_settings(&now, dir, e);
	if (!rc)
		rc = read_settings(&then, dir, e);
	if (!rc && o->lists)
		rc = sopfs_options_list(&then, o->lists, e);
	if (!rc) {
		was = sopfs_options_dump(&now);
		is = sopfs_options_dump(&then);
		rc = was && is ? compare(o->mountpoint, was, is, e)
			       : sop_fail(e, -ENOMEM, "%s", o->mountpoint);
	}
	if (!rc)
		rc = change(dir, &now, &then, e);
	sopfs_options_release(&now);
	sopfs_options_release(&then);
	return rc;
}
