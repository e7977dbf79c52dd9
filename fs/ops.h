/* The handlers of requests: unpack, call, reply exactly once. Grouped by file; the table is in
 * ops_route.c, which hands requests of .sop/txn to ops_txn.c, and makes sopfs_of() what they are
 * about. */
#ifndef SOPFS_OPS_H
#define SOPFS_OPS_H

#define FUSE_USE_VERSION 312

#include <fuse3/fuse_lowlevel.h>

#include "fs/names.h"
#include "fs/reply.h"
#include "fs/worlds.h"

static inline struct sopfs *sopfs_of(fuse_req_t req)
{
	return sopfs_world_current ? sopfs_world_fs(sopfs_world_current) : fuse_req_userdata(req);
}

static inline struct sopfs_caller sopfs_caller_of(fuse_req_t req)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);

	return (struct sopfs_caller){c->pid, c->uid, c->gid, c->umask};
}

static inline struct sopfs_handle *sopfs_handle_of(const struct fuse_file_info *fi)
{
	return fi ? (struct sopfs_handle *)(uintptr_t)fi->fh : NULL;
}

/* Reply with rc once the notes are delivered. */
void sopfs_reply_after(struct sopfs *f, fuse_req_t req, struct sopfs_notes *notes, int rc,
	const struct sop_err *e);
/* Of a look at attributes: what another mounter has changed is not in the pages, and must not be
 * looked for there once it is known from the answer that it is there. Nor may a note about it come
 * later: the kernel would throw away the size that the next read asks for. */
bool sopfs_must_be_told(const struct sopfs *f, const struct sopfs_notes *notes);

/* ops_meta.c */
void sopfs_op_init(void *userdata, struct fuse_conn_info *conn);
void sopfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void sopfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void sopfs_op_readlink(fuse_req_t req, fuse_ino_t ino);
void sopfs_op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_txn.c: of the mount's .sop/txn and .sop/commit. True: the request is one of theirs, and has
 * been answered. */
bool sopfs_txn_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
bool sopfs_txn_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name);
bool sopfs_txn_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
bool sopfs_txn_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name);
bool sopfs_txn_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_file_info *fi);
bool sopfs_txn_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus);
bool sopfs_txn_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off);
bool sopfs_txn_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size);
bool sopfs_txn_release(fuse_req_t req, fuse_ino_t ino);

/* ops_dir.c */
void sopfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void sopfs_op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void sopfs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void sopfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void sopfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void sopfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void sopfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void sopfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void sopfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name, unsigned flags);
void sopfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);

/* ops_file.c */
void sopfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	struct fuse_file_info *fi);
void sopfs_op_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void sopfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi);
void sopfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void sopfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void sopfs_op_lseek(
	fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void sopfs_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void sopfs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
	struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
	struct fuse_file_info *fi_out, size_t len, int flags);

/* ops_xattr.c */
void sopfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void sopfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void sopfs_op_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *val, size_t len, int flags);
void sopfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* What a write takes away: set-ID bits, when it is an ordinary user's, and capabilities. The kernel
 * leaves it to us (FUSE_HANDLE_KILLPRIV_V2), and asks for no attributes before each write. h may be
 * NULL. */
int sopfs_drop_privileges(fuse_req_t req, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_notes *notes, struct sop_err *e);
/* After a file has got set-ID bits or capabilities. */
void sopfs_privileges_granted(void);
/* The mode that is left after a change by this caller: a chown, or an ordinary user's write. */
mode_t sopfs_mode_taken(fuse_req_t req, const struct sop_attr *a);

/* ops_lock.c */
void sopfs_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void sopfs_op_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
void sopfs_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

#endif
