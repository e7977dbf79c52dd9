#include "fs/requests.h"

#include <linux/fuse.h>
#include <stdatomic.h>
#include <string.h>

#include "core/base.h"

#define OPCODES 64

/* Kinds that <linux/fuse.h> of older systems does not name have their numbers here. */
static const char *const names[OPCODES] = {
	[FUSE_LOOKUP] = "LOOKUP",
	[FUSE_GETATTR] = "GETATTR",
	[FUSE_SETATTR] = "SETATTR",
	[FUSE_READLINK] = "READLINK",
	[FUSE_SYMLINK] = "SYMLINK",
	[FUSE_MKNOD] = "MKNOD",
	[FUSE_MKDIR] = "MKDIR",
	[FUSE_UNLINK] = "UNLINK",
	[FUSE_RMDIR] = "RMDIR",
	[FUSE_RENAME] = "RENAME",
	[FUSE_LINK] = "LINK",
	[FUSE_OPEN] = "OPEN",
	[FUSE_READ] = "READ",
	[FUSE_WRITE] = "WRITE",
	[FUSE_STATFS] = "STATFS",
	[FUSE_RELEASE] = "RELEASE",
	[FUSE_FSYNC] = "FSYNC",
	[FUSE_SETXATTR] = "SETXATTR",
	[FUSE_GETXATTR] = "GETXATTR",
	[FUSE_LISTXATTR] = "LISTXATTR",
	[FUSE_REMOVEXATTR] = "REMOVEXATTR",
	[FUSE_FLUSH] = "FLUSH",
	[FUSE_INIT] = "INIT",
	[FUSE_OPENDIR] = "OPENDIR",
	[FUSE_READDIR] = "READDIR",
	[FUSE_RELEASEDIR] = "RELEASEDIR",
	[FUSE_FSYNCDIR] = "FSYNCDIR",
	[FUSE_GETLK] = "GETLK",
	[FUSE_SETLK] = "SETLK",
	[FUSE_SETLKW] = "SETLKW",
	[FUSE_ACCESS] = "ACCESS",
	[FUSE_CREATE] = "CREATE",
	[FUSE_INTERRUPT] = "INTERRUPT",
	[FUSE_IOCTL] = "IOCTL",
	[FUSE_POLL] = "POLL",
	[FUSE_FALLOCATE] = "FALLOCATE",
	[FUSE_READDIRPLUS] = "READDIRPLUS",
	[FUSE_RENAME2] = "RENAME2",
	[FUSE_LSEEK] = "LSEEK",
	[FUSE_COPY_FILE_RANGE] = "COPY_FILE_RANGE",
	[51] = "TMPFILE",
	[52] = "STATX",
};

static atomic_ullong counts[OPCODES];
static atomic_ullong released;

void sopfs_request_note(const void *request, size_t len_bytes)
{
	uint32_t opcode;

	if (len_bytes < sizeof(struct fuse_in_header))
		return;
	memcpy(&opcode, (const char *)request + offsetof(struct fuse_in_header, opcode),
		sizeof(opcode));
	if (opcode < OPCODES)
		atomic_fetch_add_explicit(&counts[opcode], 1, memory_order_relaxed);
}

void sopfs_request_released(void)
{
	atomic_fetch_add(&released, 1);
}

bool sopfs_requests_releasing(void)
{
	return atomic_load(&counts[FUSE_RELEASE]) != atomic_load(&released);
}

json_t *sopfs_requests_json(void)
{
	json_t *out = json_object();
	json_int_t total = 0;

	for (size_t i = 0; out && i < OPCODES; i++) {
		json_int_t n = (json_int_t)atomic_load_explicit(&counts[i], memory_order_relaxed);

		if (!names[i])
			continue;
		total += n;
		if (json_object_set_new(out, names[i], json_integer(n))) {
			json_decref(out);
			return NULL;
		}
	}
	if (out && json_object_set_new(out, "total", json_integer(total))) {
		json_decref(out);
		return NULL;
	}
	return out;
}
