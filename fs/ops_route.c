/* The table of requests. Each is carried out for the mount, or for the transaction over many files
 * that its nodeid belongs to (worlds.h), whose lock is held meanwhile. */
#include "fs/ctl.h"
#include "fs/ops.h"
#include "fs/requests.h"

static struct sopfs_view *mounts_view(fuse_req_t req, fuse_ino_t ino)
{
	return ino & SOPFS_WORLD_BIT ? NULL : sopfs_view_of(fuse_req_userdata(req), ino);
}

/* False: the request has been answered. The file that holds a transaction does what ops_txn.c says,
 * and no more. */
static bool enter(fuse_req_t req, fuse_ino_t ino)
{
	const struct sopfs_view *v = mounts_view(req, ino);
	int rc = v && sopfs_is_hold(v) ? -EPERM : sopfs_world_enter(ino, false);

	if (rc)
		fuse_reply_err(req, -rc);
	return rc == 0;
}

/* A name is made. That of .sop is taken in a mirror as it is in the mount. */
static bool enter_for(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (!enter(req, parent))
		return false;
	if (sopfs_world_current && strcmp(name, SOPFS_CTL_NAME) == 0 &&
		sopfs_view_of(NULL, parent)->item == sopfs_world_fs(sopfs_world_current)->root) {
		sopfs_world_leave();
		fuse_reply_err(req, EPERM);
		return false;
	}
	return true;
}

/* Nothing reaches from one transaction into another, or into the mount; nor into a file that holds
 * one. */
static bool enter_both(fuse_req_t req, fuse_ino_t one, fuse_ino_t other)
{
	const struct sopfs_view *v = mounts_view(req, other);

	if (sopfs_world_of(one) == sopfs_world_of(other) && !(v && sopfs_is_hold(v)))
		return enter(req, one);
	fuse_reply_err(req, v && sopfs_is_hold(v) ? EPERM : EXDEV);
	return false;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (sopfs_txn_lookup(req, parent, name) || !enter(req, parent))
		return;
	sopfs_op_lookup(req, parent, name);
	sopfs_world_leave();
}

static void forget(struct sopfs *f, fuse_ino_t ino, uint64_t n)
{
	const struct sopfs_view *v = sopfs_view_of(f, ino);

	if (ino & SOPFS_WORLD_BIT || sopfs_is_hold(v))
		sopfs_world_forget(ino, n);
	else
		sopfs_forget(f, sopfs_view_of(f, ino), n);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	forget(fuse_req_userdata(req), ino, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sop_attr a;

	if (!sopfs_world_enter(ino, false)) {
		sopfs_op_getattr(req, ino, fi);
		sopfs_world_leave();
		return;
	}
	(void)sopfs_world_enter(ino, true);
	if (sopfs_world_root_left(ino, &a))
		sopfs_reply_attr(sopfs_of(req), req, &a, false);
	else
		fuse_reply_err(req, ESTALE);
	sopfs_world_leave();
}

static void op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_setattr(req, ino, st, to_set, fi);
	sopfs_world_leave();
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	if (!enter(req, ino))
		return;
	sopfs_op_readlink(req, ino);
	sopfs_world_leave();
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	if (!enter_for(req, parent, name))
		return;
	sopfs_op_mknod(req, parent, name, mode, rdev);
	sopfs_world_leave();
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	if (sopfs_txn_mkdir(req, parent, name) || !enter_for(req, parent, name))
		return;
	sopfs_op_mkdir(req, parent, name, mode);
	sopfs_world_leave();
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	if (!enter_for(req, parent, name))
		return;
	sopfs_op_symlink(req, target, parent, name);
	sopfs_world_leave();
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (!enter(req, parent))
		return;
	sopfs_op_unlink(req, parent, name);
	sopfs_world_leave();
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (sopfs_txn_rmdir(req, parent, name) || !enter(req, parent))
		return;
	sopfs_op_rmdir(req, parent, name);
	sopfs_world_leave();
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name, unsigned flags)
{
	if (sopfs_world_of(parent) != sopfs_world_of(to_parent)) {
		fuse_reply_err(req, EXDEV);
		return;
	}
	if (sopfs_txn_rename(req, parent, name, to_parent, to_name) ||
		!enter_for(req, to_parent, to_name))
		return;
	sopfs_op_rename(req, parent, name, to_parent, to_name, flags);
	sopfs_world_leave();
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	if (sopfs_world_of(ino) != sopfs_world_of(parent)) {
		fuse_reply_err(req, EXDEV);
		return;
	}
	if (!enter_for(req, parent, name))
		return;
	sopfs_op_link(req, ino, parent, name);
	sopfs_world_leave();
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_open(req, ino, fi);
	sopfs_world_leave();
}

static void op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	if (sopfs_txn_create(req, parent, name, fi) || !enter_for(req, parent, name))
		return;
	sopfs_op_create(req, parent, name, mode, fi);
	sopfs_world_leave();
}

static void op_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (sopfs_txn_read(req, ino, size, off) || !enter(req, ino))
		return;
	sopfs_op_read(req, ino, size, off, fi);
	sopfs_world_leave();
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	if (sopfs_txn_write(req, ino, buf, size) || !enter(req, ino))
		return;
	sopfs_op_write(req, ino, buf, size, off, fi);
	sopfs_world_leave();
}

/* Nothing is written by a close in a mirror: only what has been rolled back has an error to tell.
 */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct sopfs_view *v = mounts_view(req, ino);
	int rc;

	if (v && sopfs_is_hold(v)) {
		fuse_reply_err(req, 0);
		return;
	}
	(void)sopfs_world_enter(ino, true);
	rc = sopfs_world_current ? sopfs_world_ended(sopfs_world_current) : 0;
	if (rc)
		fuse_reply_err(req, ESTALE);
	else
		sopfs_op_flush(req, ino, fi);
	sopfs_world_leave();
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_fsync(req, ino, datasync, fi);
	sopfs_world_leave();
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!sopfs_txn_release(req, ino)) {
		(void)sopfs_world_enter(ino, true);
		sopfs_op_release(req, ino, fi);
		sopfs_world_leave();
	}
	sopfs_request_released();
}

static void op_lseek(
	fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_lseek(req, ino, off, whence, fi);
	sopfs_world_leave();
}

static void op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_fallocate(req, ino, mode, off, len, fi);
	sopfs_world_leave();
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
	struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
	struct fuse_file_info *fi_out, size_t len, int flags)
{
	if (!enter_both(req, ino_in, ino_out))
		return;
	sopfs_op_copy_file_range(req, ino_in, off_in, fi_in, ino_out, off_out, fi_out, len, flags);
	sopfs_world_leave();
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_opendir(req, ino, fi);
	sopfs_world_leave();
}

static void op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (sopfs_txn_readdir(req, ino, size, off, false) || !enter(req, ino))
		return;
	sopfs_op_readdir(req, ino, size, off, fi);
	sopfs_world_leave();
}

static void op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	if (sopfs_txn_readdir(req, ino, size, off, true) || !enter(req, ino))
		return;
	sopfs_op_readdirplus(req, ino, size, off, fi);
	sopfs_world_leave();
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)sopfs_world_enter(ino, true);
	sopfs_op_releasedir(req, ino, fi);
	sopfs_world_leave();
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	if (!enter(req, ino))
		return;
	sopfs_op_fsyncdir(req, ino, datasync, fi);
	sopfs_world_leave();
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (!enter(req, ino))
		return;
	sopfs_op_getxattr(req, ino, name, size);
	sopfs_world_leave();
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (!enter(req, ino))
		return;
	sopfs_op_listxattr(req, ino, size);
	sopfs_world_leave();
}

static void op_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *val, size_t len, int flags)
{
	if (!enter(req, ino))
		return;
	sopfs_op_setxattr(req, ino, name, val, len, flags);
	sopfs_world_leave();
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	if (!enter(req, ino))
		return;
	sopfs_op_removexattr(req, ino, name);
	sopfs_world_leave();
}

static void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	if (!enter(req, ino))
		return;
	sopfs_op_getlk(req, ino, fi, lock);
	sopfs_world_leave();
}

static void op_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	if (!enter(req, ino))
		return;
	sopfs_op_setlk(req, ino, fi, lock, sleep);
	sopfs_world_leave();
}

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	if (!enter(req, ino))
		return;
	sopfs_op_flock(req, ino, fi, op);
	sopfs_world_leave();
}

const struct fuse_lowlevel_ops sopfs_ops = {
	.init = sopfs_op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.statfs = sopfs_op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.link = op_link,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.release = op_release,
	.lseek = op_lseek,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
	.getlk = op_getlk,
	.setlk = op_setlk,
	.flock = op_flock,
};
