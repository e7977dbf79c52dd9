/* A member folder on a real file system. Everything goes through the descriptor of the folder,
 * taken at open: the mount point may be covered or renamed later without a write going astray.
 * Links are not followed, and what is not a regular file is not opened. */
#include "core/disk.h"
#include "core/written.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>

#define FILE_MODE 0600
#define DIR_MODE  0700
/* A transfer that was cut short goes on with a copy of so many parts of the vector at a time. */
#define PARTS 16

struct folder {
	struct sop_disk disk;
	int dirfd;
	atomic_uint refs;  /* the opener, and each open file */
	bool waits;	   /* closing a file may wait for somebody: it is done aside */
	atomic_bool stuck; /* such a close has not ended in time: the next are not waited for until
			      one ends */
	/* Growing a file without fallocate() is two steps, and must not cut off what another
	 * thread appended between them. */
	pthread_mutex_t grow;
};

struct folder_file {
	struct sop_file file;
};

static struct folder *folder_of(struct sop_disk *d)
{
	return (struct folder *)d;
}

static int neg_errno(int rc)
{
	return rc < 0 ? -errno : 0;
}

/* "" is the folder itself. */
static const char *at(const char *path)
{
	assert(path[0] != '/');
	return path[0] ? path : ".";
}

static void folder_put(struct folder *d)
{
	if (atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(d->dirfd);
	pthread_mutex_destroy(&d->grow);
	free(d->disk.name);
	free(d);
}

static void folder_close(struct sop_disk *d)
{
	folder_put(folder_of(d));
}

/* --- files --------------------------------------------------------------------------------------
 */

/* The descriptor of a regular file, or -errno. */
static int open_regular(int dirfd, const char *path, int flags)
{
	struct stat st;
	int how = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	int fd, rc;

	how |= flags & SOP_OPEN_WRITE ? O_RDWR : O_RDONLY;
	if (flags & SOP_OPEN_CREATE)
		how |= O_CREAT;
	if (flags & SOP_OPEN_EXCL)
		how |= O_EXCL;
	do
		fd = openat(dirfd, path, how, FILE_MODE);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	rc = neg_errno(fstat(fd, &st));
	if (!rc && !S_ISREG(st.st_mode))
		rc = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	/* O_NONBLOCK kept the open from waiting on a FIFO. It has to go: io_uring would answer
	 * EAGAIN instead of reading. */
	if (!rc)
		rc = neg_errno(fcntl(fd, F_SETFL, 0));
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

static int folder_file_open(
	struct sop_file **out, struct sop_disk *disk, const char *path, int flags)
{
	struct folder *d = folder_of(disk);
	struct folder_file *f = calloc(1, sizeof(*f));
	int fd;

	if (!f)
		return -ENOMEM;
	fd = open_regular(d->dirfd, at(path), flags);
	if (fd < 0) {
		free(f);
		return fd;
	}
	f->file.ops = disk->ops;
	f->file.disk = disk;
	f->file.fd = fd;
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
	*out = &f->file;
	return 0;
}

#define CLOSE_MS 200

static void close_now(struct sop_file *f)
{
	struct folder *d = folder_of(f->disk);

	/* Whoever needed the data durable has called datasync; close() has nothing to add. */
	close(f->fd);
	atomic_store(&d->stuck, false);
	folder_put(d);
	free(f);
}

static void *close_thread(void *arg)
{
	close_now(arg);
	return NULL;
}

/* On FUSE, NFS and the like, close() asks the server, and may hang as long as that does. Locks that
 * the file holds go with it, so a short wait is worth it while the server answers. */
static void close_aside(struct folder *d, struct sop_file *f)
{
	struct timespec end;
	pthread_t thread;

	if (pthread_create(&thread, NULL, close_thread, f))
		return; /* it stays open: better than a request that hangs */
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_nsec += CLOSE_MS * 1000000L;
	end.tv_sec += end.tv_nsec / 1000000000L;
	end.tv_nsec %= 1000000000L;
	/* d is held: it is needed after the wait. */
	if (!atomic_load(&d->stuck) && !pthread_timedjoin_np(thread, NULL, &end))
		return;
	atomic_store(&d->stuck, true);
	pthread_detach(thread);
}

static void folder_file_close(struct sop_file *f)
{
	struct folder *d = folder_of(f->disk);

	if (!sop_file_put(f))
		return;
	if (!d->waits) {
		close_now(f);
		return;
	}
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
	close_aside(d, f);
	folder_put(d);
}

/* Move past n transferred bytes: *i is the part, *skip the bytes of it that are done. */
static void advance(const struct iovec *iov, int iovcnt, int *i, size_t *skip, size_t n)
{
	*skip += n;
	while (*i < iovcnt && *skip >= iov[*i].iov_len) {
		*skip -= iov[*i].iov_len;
		(*i)++;
	}
}

typedef ssize_t transfer_fn(int fd, const struct iovec *iov, int iovcnt, off_t off);

/* Transfer all, in as many calls as it takes. Ends early where a call moves nothing. */
static ssize_t transfer(transfer_fn *fn, int fd, const struct iovec *iov, int iovcnt, uint64_t off)
{
	size_t done = 0, skip = 0;
	int i = 0;

	advance(iov, iovcnt, &i, &skip, 0);
	while (i < iovcnt) {
		struct iovec parts[PARTS];
		const struct iovec *from = iov + i;
		int n = SOP_MIN(iovcnt - i, IOV_MAX);
		uint64_t pos;
		ssize_t r;

		if (skip) {
			n = SOP_MIN(n, PARTS);
			memcpy(parts, from, (size_t)n * sizeof(parts[0]));
			parts[0].iov_base = (char *)parts[0].iov_base + skip;
			parts[0].iov_len -= skip;
			from = parts;
		}
		if (sop_add_over(&pos, off, done) || pos > INT64_MAX)
			return -EINVAL;
		r = fn(fd, from, n, (off_t)pos);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
		advance(iov, iovcnt, &i, &skip, (size_t)r);
	}
	return (ssize_t)done;
}

static uint64_t iov_bytes(const struct iovec *iov, int iovcnt)
{
	uint64_t len = 0;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

static ssize_t folder_preadv(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	return transfer(preadv, f->fd, iov, iovcnt, off);
}

static ssize_t folder_pwritev(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	ssize_t n = transfer(pwritev, f->fd, iov, iovcnt, off);

	if (n >= 0 && (uint64_t)n != iov_bytes(iov, iovcnt))
		return -EIO; /* a write that moves nothing and gives no reason */
	if (n > 0)
		sop_written_note((uint64_t)n);
	return n;
}

static ssize_t folder_preadv_cached(
	struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	ssize_t n;

	if (iovcnt > IOV_MAX || off > INT64_MAX)
		return -EAGAIN;
	n = preadv2(f->fd, iov, iovcnt, (off_t)off, RWF_NOWAIT);
	if (n < 0)
		/* EAGAIN: not cached. EOPNOTSUPP, EINVAL, ENOSYS: the file system or kernel cannot
		 * tell. An error proper comes up again in the plain read. */
		return -EAGAIN;
	/* Short is the end of the file or the end of what is cached; only a plain read can tell. */
	return (uint64_t)n == iov_bytes(iov, iovcnt) ? n : -EAGAIN;
}

static int folder_datasync(struct sop_file *f)
{
	int rc;

	sop_written_note_sync();
	do
		rc = neg_errno(fdatasync(f->fd));
	while (rc == -EINTR);
	return rc;
}

static int folder_size(struct sop_file *f, uint64_t *len_bytes)
{
	struct stat st;
	int rc = neg_errno(fstat(f->fd, &st));

	if (!rc)
		*len_bytes = (uint64_t)st.st_size;
	return rc;
}

static int folder_truncate(struct sop_file *f, uint64_t len_bytes)
{
	int rc;

	if (len_bytes > INT64_MAX)
		return -EFBIG;
	do
		rc = neg_errno(ftruncate(f->fd, (off_t)len_bytes));
	while (rc == -EINTR);
	return rc;
}

static int do_fallocate(int fd, int mode, uint64_t off, uint64_t len_bytes)
{
	uint64_t end;
	int rc;

	if (sop_add_over(&end, off, len_bytes) || end > INT64_MAX)
		return -EFBIG;
	do
		rc = neg_errno(fallocate(fd, mode, (off_t)off, (off_t)len_bytes));
	while (rc == -EINTR);
	return rc;
}

static int folder_allocate(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	struct folder *d = folder_of(f->disk);
	uint64_t size;
	int rc;

	if (!len_bytes)
		return 0;
	rc = do_fallocate(f->fd, 0, off, len_bytes);
	if (rc != -EOPNOTSUPP && rc != -ENOSYS)
		return rc;
	/* A file system that cannot reserve room: the size grows, and a full disk shows at the
	 * write. */
	pthread_mutex_lock(&d->grow);
	rc = folder_size(f, &size);
	if (!rc && size < off + len_bytes)
		rc = folder_truncate(f, off + len_bytes);
	pthread_mutex_unlock(&d->grow);
	return rc;
}

static int folder_punch(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	if (!len_bytes)
		return 0;
	return do_fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len_bytes);
}

/* flock() belongs to the open file, as we need it (two openers in one process exclude each other),
 * and NFS and cluster file systems carry it to other machines. */
static int lock_as(struct sop_file *f, int how)
{
	int rc;

	do
		rc = neg_errno(flock(f->fd, how | LOCK_NB));
	while (rc == -EINTR);
	return rc == -EWOULDBLOCK ? -EAGAIN : rc;
}

static int folder_lock(struct sop_file *f)
{
	return lock_as(f, LOCK_EX);
}

static int folder_lock_shared(struct sop_file *f)
{
	return lock_as(f, LOCK_SH);
}

/* --- names --------------------------------------------------------------------------------------
 */

static int folder_rename(struct sop_disk *d, const char *from, const char *to)
{
	int dirfd = folder_of(d)->dirfd;

	return neg_errno(renameat(dirfd, at(from), dirfd, at(to)));
}

static int folder_link(struct sop_disk *d, const char *from, const char *to)
{
	int dirfd = folder_of(d)->dirfd;

	return neg_errno(linkat(dirfd, at(from), dirfd, at(to), 0));
}

static int folder_unlink(struct sop_disk *d, const char *path)
{
	return neg_errno(unlinkat(folder_of(d)->dirfd, at(path), 0));
}

static int folder_mkdir(struct sop_disk *d, const char *path)
{
	int dirfd = folder_of(d)->dirfd;
	struct stat st;
	int rc = neg_errno(mkdirat(dirfd, at(path), DIR_MODE));

	if (rc != -EEXIST)
		return rc;
	rc = neg_errno(fstatat(dirfd, at(path), &st, AT_SYMLINK_NOFOLLOW));
	if (rc)
		return rc;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* A descriptor of its own for a directory in the folder. */
static int open_dir(struct sop_disk *d, const char *path)
{
	int fd;

	do
		fd = openat(folder_of(d)->dirfd, at(path),
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int folder_syncdir(struct sop_disk *d, const char *path)
{
	sop_autoclose int fd = open_dir(d, path);
	int rc;

	if (fd < 0)
		return fd;
	sop_written_note_sync();
	do
		rc = neg_errno(fsync(fd));
	while (rc == -EINTR);
	return rc;
}

static int folder_list(
	struct sop_disk *d, const char *path, int (*fn)(void *arg, const char *name), void *arg)
{
	int fd = open_dir(d, path);
	DIR *dir;
	int rc = 0;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		rc = -errno;
		close(fd);
		return rc;
	}
	while (rc >= 0) {
		struct dirent *entry;

		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			rc = -errno;
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = fn(arg, entry->d_name);
	}
	closedir(dir);
	return SOP_MIN(rc, 0);
}

static uint64_t mul_saturate(uint64_t a, uint64_t b)
{
	uint64_t out;

	return sop_mul_over(&out, a, b) ? UINT64_MAX : out;
}

static int folder_space(struct sop_disk *d, struct sop_disk_space *out)
{
	struct statvfs vfs;
	struct stat st;
	int dirfd = folder_of(d)->dirfd;

	if (fstatvfs(dirfd, &vfs) || fstat(dirfd, &st))
		return -errno;
	out->total_bytes = mul_saturate(vfs.f_blocks, vfs.f_frsize);
	out->free_bytes = mul_saturate(vfs.f_bavail, vfs.f_frsize);
	out->device = st.st_dev;
	return 0;
}

/* A server is not asked twice for what it may answer from its own memory. */
static void folder_read_ahead(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	if (!folder_of(f->disk)->waits)
		(void)posix_fadvise(f->fd, (off_t)off, (off_t)len_bytes, POSIX_FADV_WILLNEED);
}

static void folder_write_out(struct sop_file *f, uint64_t off, uint64_t len_bytes)
{
	(void)sync_file_range(f->fd, (off_t)off, (off_t)len_bytes, SYNC_FILE_RANGE_WRITE);
}

static void folder_forget(struct sop_file *f)
{
	(void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static const struct sop_disk_ops folder_ops = {
	.close = folder_close,
	.file_open = folder_file_open,
	.file_close = folder_file_close,
	.preadv = folder_preadv,
	.pwritev = folder_pwritev,
	.preadv_cached = folder_preadv_cached,
	.datasync = folder_datasync,
	.read_ahead = folder_read_ahead,
	.write_out = folder_write_out,
	.forget = folder_forget,
	.size = folder_size,
	.truncate = folder_truncate,
	.allocate = folder_allocate,
	.punch = folder_punch,
	.lock = folder_lock,
	.lock_shared = folder_lock_shared,
	.rename = folder_rename,
	.link = folder_link,
	.unlink = folder_unlink,
	.mkdir = folder_mkdir,
	.syncdir = folder_syncdir,
	.list = folder_list,
	.space = folder_space,
};

#define MAGIC_FUSE 0x65735546
#define MAGIC_NFS  0x6969
#define MAGIC_CIFS 0xff534d42u
#define MAGIC_SMB2 0xfe534d42u
#define MAGIC_CEPH 0x00c36400

static bool asks_a_server(int fd)
{
	struct statfs st;
	unsigned type;

	if (fstatfs(fd, &st))
		return false;
	type = (unsigned)st.f_type;
	return type == MAGIC_FUSE || type == MAGIC_NFS || type == MAGIC_CIFS ||
	       type == MAGIC_SMB2 || type == MAGIC_CEPH;
}

int sop_disk_open_folder(struct sop_disk **out, const char *path, struct sop_err *e)
{
	struct folder *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return sop_fail(e, -ENOMEM, "%s", path);
	d->disk.ops = &folder_ops;
	d->disk.name = strdup(path);
	if (!d->disk.name) {
		free(d);
		return sop_fail(e, -ENOMEM, "%s", path);
	}
	d->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->dirfd < 0) {
		rc = -errno;
		free(d->disk.name);
		free(d);
		return sop_fail(e, rc, "%s", path);
	}
	d->waits = asks_a_server(d->dirfd);
	atomic_init(&d->stuck, false);
	pthread_mutex_init(&d->grow, NULL);
	atomic_init(&d->refs, 1);
	*out = &d->disk;
	return 0;
}
