/* A member folder that stops answering: a FUSE file system that passes everything on to a folder,
 * until a file appears; then no request is answered any more until that file is gone.
 *
 *     hung_folder BACKING GATE MOUNTPOINT
 *
 * Runs in the background. Requests that have come in are waited for by the kernel as those of a
 * dead device are: not even SIGKILL gets a process out of them. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int backing;
static const char *gate_path;

static void gate(void)
{
	while (access(gate_path, F_OK) == 0)
		usleep(20000);
}

static const char *at(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int result(int rc)
{
	return rc < 0 ? -errno : rc;
}

static int hf_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	gate();
	if (fi)
		return result(fstat((int)fi->fh, st));
	return result(fstatat(backing, at(path), st, AT_SYMLINK_NOFOLLOW));
}

static int open_at(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
	int fd = openat(backing, at(path), flags & ~(O_APPEND | O_DIRECT), mode);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int hf_open(const char *path, struct fuse_file_info *fi)
{
	gate();
	return open_at(path, fi->flags, 0, fi);
}

static int hf_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	gate();
	return open_at(path, fi->flags | O_CREAT, mode, fi);
}

static int hf_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	gate();
	return result((int)pread((int)fi->fh, buf, len, off));
}

static int hf_write(
	const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	gate();
	return result((int)pwrite((int)fi->fh, buf, len, off));
}

static int hf_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	gate();
	return result(fdatasync((int)fi->fh));
}

static int hf_flush(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	gate();
	return 0;
}

static int hf_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	close((int)fi->fh);
	return 0;
}

static int hf_truncate(const char *path, off_t len, struct fuse_file_info *fi)
{
	int fd, rc;

	gate();
	if (fi)
		return result(ftruncate((int)fi->fh, len));
	fd = openat(backing, at(path), O_WRONLY);
	if (fd < 0)
		return -errno;
	rc = result(ftruncate(fd, len));
	close(fd);
	return rc;
}

static int hf_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	(void)path;
	gate();
	return result(fallocate((int)fi->fh, mode, off, len));
}

static int hf_unlink(const char *path)
{
	gate();
	return result(unlinkat(backing, at(path), 0));
}

static int hf_mkdir(const char *path, mode_t mode)
{
	gate();
	return result(mkdirat(backing, at(path), mode));
}

static int hf_rename(const char *from, const char *to, unsigned flags)
{
	gate();
	return flags ? -EINVAL : result(renameat(backing, at(from), backing, at(to)));
}

static int hf_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
	struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct dirent *e;
	DIR *d;
	int fd;

	(void)off;
	(void)fi;
	(void)flags;
	gate();
	fd = openat(backing, at(path), O_RDONLY | O_DIRECTORY);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return -errno;
	while ((e = readdir(d)))
		if (fill(buf, e->d_name, NULL, 0, 0))
			break;
	closedir(d);
	return 0;
}

static int hf_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path;
	(void)datasync;
	(void)fi;
	gate();
	return 0;
}

static int hf_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	gate();
	return result(fstatvfs(backing, st));
}

/* Nothing is answered from the kernel's memory of names: who looks meets the gate. */
static void *hf_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	(void)conn;
	cfg->entry_timeout = 0;
	cfg->attr_timeout = 0;
	cfg->negative_timeout = 0;
	cfg->hard_remove = 1;
	return NULL;
}

static const struct fuse_operations ops = {
	.init = hf_init,
	.getattr = hf_getattr,
	.open = hf_open,
	.create = hf_create,
	.read = hf_read,
	.write = hf_write,
	.fsync = hf_fsync,
	.flush = hf_flush,
	.release = hf_release,
	.truncate = hf_truncate,
	.fallocate = hf_fallocate,
	.unlink = hf_unlink,
	.mkdir = hf_mkdir,
	.rename = hf_rename,
	.readdir = hf_readdir,
	.fsyncdir = hf_fsyncdir,
	.statfs = hf_statfs,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0], argc == 4 ? argv[3] : NULL, NULL};

	if (argc != 4) {
		fprintf(stderr, "usage: %s BACKING GATE MOUNTPOINT\n", argv[0]);
		return 2;
	}
	gate_path = argv[2];
	backing = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (backing < 0) {
		perror(argv[1]);
		return 1;
	}
	return fuse_main(2, args, &ops, NULL);
}
