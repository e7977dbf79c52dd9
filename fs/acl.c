#include "fs/acl.h"

#include <endian.h>

#define VERSION	      2u
#define TAG_USER_OBJ  0x01
#define TAG_USER      0x02
#define TAG_GROUP_OBJ 0x04
#define TAG_GROUP     0x08
#define TAG_MASK      0x10
#define TAG_OTHER     0x20

struct entry {
	uint16_t tag, perm;
	uint32_t id;
};

static size_t count(size_t len)
{
	return (len - 4) / 8;
}

static struct entry entry_get(const void *raw, size_t i)
{
	const uint8_t *p = (const uint8_t *)raw + 4 + i * 8;
	struct entry x;

	memcpy(&x, p, sizeof(x));
	x.tag = le16toh(x.tag);
	x.perm = le16toh(x.perm);
	x.id = le32toh(x.id);
	return x;
}

static void perm_put(void *raw, size_t i, mode_t perm)
{
	uint16_t le = htole16((uint16_t)perm);

	memcpy((uint8_t *)raw + 4 + i * 8 + 2, &le, sizeof(le));
}

int sopfs_acl_check(const void *raw, size_t len)
{
	unsigned user = 0, group = 0, other = 0, mask = 0, named = 0;
	uint32_t version;

	if (len < 4 || (len - 4) % 8)
		return -EINVAL;
	memcpy(&version, raw, sizeof(version));
	if (le32toh(version) != VERSION)
		return -EINVAL;
	for (size_t i = 0; i < count(len); i++) {
		struct entry x = entry_get(raw, i);

		if (x.perm & ~7)
			return -EINVAL;
		user += x.tag == TAG_USER_OBJ;
		group += x.tag == TAG_GROUP_OBJ;
		other += x.tag == TAG_OTHER;
		mask += x.tag == TAG_MASK;
		named += x.tag == TAG_USER || x.tag == TAG_GROUP;
	}
	if (user != 1 || group != 1 || other != 1 || mask > 1 || (named && !mask) ||
		count(len) != user + group + other + mask + named)
		return -EINVAL;
	return 0;
}

/* Which bits of the mode an entry is; with a mask, it stands for the group's. -1: none. */
static int shift_of(const void *raw, size_t len, size_t i)
{
	struct entry x = entry_get(raw, i);
	bool mask = false;

	for (size_t k = 0; k < count(len); k++)
		mask = mask || entry_get(raw, k).tag == TAG_MASK;
	if (x.tag == TAG_USER_OBJ)
		return 6;
	if (x.tag == (mask ? TAG_MASK : TAG_GROUP_OBJ))
		return 3;
	return x.tag == TAG_OTHER ? 0 : -1;
}

mode_t sopfs_acl_mode(const void *raw, size_t len, mode_t mode)
{
	mode &= ~(mode_t)0777;
	for (size_t i = 0; i < count(len); i++) {
		int shift = shift_of(raw, len, i);

		if (shift >= 0)
			mode |= (mode_t)entry_get(raw, i).perm << shift;
	}
	return mode;
}

bool sopfs_acl_is_mode(const void *raw, size_t len)
{
	(void)raw;
	return count(len) == 3;
}

void sopfs_acl_set_mode(void *raw, size_t len, mode_t mode)
{
	for (size_t i = 0; i < count(len); i++) {
		int shift = shift_of(raw, len, i);

		if (shift >= 0)
			perm_put(raw, i, mode >> shift & 7);
	}
}

mode_t sopfs_acl_inherit(void *raw, size_t len, mode_t mode)
{
	for (size_t i = 0; i < count(len); i++) {
		int shift = shift_of(raw, len, i);

		if (shift >= 0)
			perm_put(raw, i, entry_get(raw, i).perm & (mode >> shift & 7));
	}
	return sopfs_acl_mode(raw, len, mode);
}
