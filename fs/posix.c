#include "fs/posix.h"

#include <time.h>

#include "fs/acl.h"

struct timespec sopfs_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now;
}

mode_t sopfs_mode_without_suid(mode_t mode)
{
	mode &= ~(mode_t)S_ISUID;
	/* Without group execution the bit means mandatory locking, and stays. */
	if (mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

static int acl_read(struct sop_txn *t, struct sop_name name, const char *attr, void **out,
	size_t *len, struct sop_err *e)
{
	ssize_t n = sop_xattr_get(t, name, attr, NULL, 0, e);
	void *raw;

	*out = NULL;
	*len = 0;
	if (n == -ENODATA)
		return 0;
	if (n < 0)
		return (int)n;
	raw = malloc((size_t)n + 1);
	if (!raw)
		return -ENOMEM;
	n = sop_xattr_get(t, name, attr, raw, (size_t)n, e);
	if (n < 0 || sopfs_acl_check(raw, (size_t)n)) {
		free(raw);
		/* Changed between the two looks, or not a list: as if there was none. */
		return n < 0 && n != -ENODATA && n != -ERANGE ? (int)n : 0;
	}
	*out = raw;
	*len = (size_t)n;
	return 0;
}

int sopfs_acl_after_chmod(struct sop_txn *t, struct sop_name name, mode_t mode, void **out,
	size_t *len, struct sop_err *e)
{
	int rc = acl_read(t, name, SOPFS_ACL_ACCESS, out, len, e);

	if (!rc && *out)
		sopfs_acl_set_mode(*out, *len, mode);
	return rc;
}

/* dir's default list, if it has one: narrowed by the mode in lists->access, as it is in fallback.
 */
static int inherit(struct sopfs *f, struct sopfs_item *dir, mode_t *mode,
	struct sopfs_inherit *lists, struct sop_err *e)
{
	unsigned epoch = atomic_load(&f->foreign_epoch);
	uint8_t has;
	int rc;

	pthread_mutex_lock(&f->lock);
	has = f->shared ? 0 : dir->default_acl; /* another mounter may have set one */
	pthread_mutex_unlock(&f->lock);
	if (has == 1)
		return 0;
	rc = acl_read(
		f->latest, SOP_SELF(dir->ino), SOPFS_ACL_DEFAULT, &lists->fallback, &lists->len, e);
	if (rc)
		return rc;
	if (!has) {
		/* The kernel lets nobody set one while something is made here; but a commit may
		 * have come by foreign.h. */
		pthread_mutex_lock(&f->lock);
		if (epoch == atomic_load(&f->foreign_epoch))
			dir->default_acl = lists->fallback ? 2 : 1;
		pthread_mutex_unlock(&f->lock);
	}
	if (!lists->fallback)
		return 0;
	lists->access = malloc(lists->len);
	if (!lists->access)
		return -ENOMEM;
	memcpy(lists->access, lists->fallback, lists->len);
	*mode = sopfs_acl_inherit(lists->access, lists->len, *mode);
	return 0;
}

int sopfs_inherit_apply(struct sop_txn *t, struct sop_name name, const struct sopfs_inherit *lists,
	struct sop_err *e)
{
	int rc = 0;

	if (lists->access && !sopfs_acl_is_mode(lists->access, lists->len))
		rc = sop_xattr_set(t, name, SOPFS_ACL_ACCESS, lists->access, lists->len, 0, e);
	if (!rc && lists->fallback)
		rc = sop_xattr_set(t, name, SOPFS_ACL_DEFAULT, lists->fallback, lists->len, 0, e);
	return rc;
}

void sopfs_inherit_release(struct sopfs_inherit *lists)
{
	free(lists->access);
	free(lists->fallback);
	*lists = (struct sopfs_inherit){0};
}

int sopfs_new_attr(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	mode_t mode, struct sop_attr *out, struct sopfs_inherit *lists, struct sop_err *e)
{
	struct sop_attr up;
	int rc;

	*lists = (struct sopfs_inherit){0};
	rc = sopfs_item_attr(f, dir, &up, e);
	if (rc)
		return rc == -ESTALE ? -ENOENT : rc;
	if (up.nlink == 0)
		return -ENOENT; /* removed, and somebody is still in it */
	if (!S_ISLNK(mode)) {
		rc = inherit(f, dir, &mode, lists, e);
		if (rc)
			return rc;
		if (!lists->fallback)
			mode &= ~(who->umask & 0777);
		else if (!S_ISDIR(mode)) {
			free(lists->fallback);
			lists->fallback = NULL;
		}
	}
	memset(out, 0, sizeof(*out));
	out->mode = mode;
	out->uid = who->uid;
	out->gid = who->gid;
	if (up.mode & S_ISGID) {
		out->gid = up.gid;
		if (S_ISDIR(mode))
			out->mode |= S_ISGID;
	}
	out->nlink = S_ISDIR(mode) ? 2 : 1;
	out->atime = out->mtime = out->ctime = out->btime = sopfs_now();
	return 0;
}

int sopfs_copy_xattrs(struct sop_txn *to, struct sop_name to_name, struct sop_txn *from,
	struct sop_name from_name, struct sop_err *e)
{
	ssize_t n = sop_xattr_list(from, from_name, NULL, 0, e);
	sop_autofree char *names = NULL, *val = NULL;
	int rc = 0;

	if (n <= 0)
		return (int)n;
	names = malloc((size_t)n);
	val = malloc(SOPFS_XATTR_MAX);
	if (!names || !val)
		return -ENOMEM;
	n = sop_xattr_list(from, from_name, names, (size_t)n, e);
	if (n < 0)
		return (int)n;
	for (const char *p = names; !rc && p < names + n; p += strlen(p) + 1) {
		ssize_t len = sop_xattr_get(from, from_name, p, val, SOPFS_XATTR_MAX, e);

		rc = len < 0 ? (int)len : sop_xattr_set(to, to_name, p, val, (size_t)len, 0, e);
	}
	return rc;
}

void sopfs_value_kill_suid(struct sop_value *value)
{
	struct sop_attr a;
	mode_t mode;

	sop_value_attr(value, &a);
	mode = sopfs_mode_without_suid(a.mode);
	if (mode == a.mode)
		return;
	a.mode = mode;
	sop_value_setattr(value, &a, SOP_ATTR_MODE);
}

int sopfs_kill_suid(
	struct sopfs *f, const struct sopfs_caller *who, struct sopfs_session *s, struct sop_err *e)
{
	struct sop_attr a;
	mode_t mode;
	int rc;

	if (who->uid == 0)
		return 0;
	rc = sopfs_item_attr(f, s->item, &a, e);
	if (rc)
		return rc;
	mode = sopfs_mode_without_suid(a.mode);
	if (mode != a.mode) {
		a.mode = mode;
		sop_value_setattr(s->value, &a, SOP_ATTR_MODE);
	}
	return 0;
}
