#include "fs/posix.h"

#include <time.h>

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

int sopfs_new_attr(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	mode_t mode, struct sop_attr *out, struct sop_err *e)
{
	struct sop_attr up;
	int rc = sopfs_item_attr(f, dir, &up, e);

	if (rc)
		return rc == -ESTALE ? -ENOENT : rc;
	if (up.nlink == 0)
		return -ENOENT; /* removed, and somebody is still in it */
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

/* The kernel's form: le32 version 2, then entries of le16 tag, le16 permissions, le32 id. */
int sopfs_acl_mode(const void *acl, size_t len, mode_t *bits)
{
	enum { USER_OBJ = 0x01, GROUP_OBJ = 0x04, MASK = 0x10, OTHER = 0x20 };
	const uint8_t *p = acl;
	unsigned seen = 0, user = 0, group = 0, mask = 0, other = 0, more = 0;

	if (len < 4 || (len - 4) % 8 || p[0] != 2 || p[1] || p[2] || p[3])
		return -EINVAL;
	for (p += 4, len -= 4; len; p += 8, len -= 8) {
		unsigned tag = p[0] | (unsigned)p[1] << 8, perm = p[2] & 7u;

		if (tag == USER_OBJ)
			user = perm;
		else if (tag == GROUP_OBJ)
			group = perm;
		else if (tag == MASK)
			mask = perm;
		else if (tag == OTHER)
			other = perm;
		else
			more++;
		seen |= tag;
	}
	if ((seen & (USER_OBJ | GROUP_OBJ | OTHER)) != (USER_OBJ | GROUP_OBJ | OTHER))
		return -EINVAL;
	if (seen & MASK)
		group = mask;
	*bits = (mode_t)(user << 6 | group << 3 | other);
	return !more && !(seen & MASK);
}
