/* A disk: one member folder, seen through a vtable, so that tests put a simulated disk underneath.
 *
 * Calls here are synchronous and may hang as long as the device does; whatever must be bounded goes
 * through core/io.h. Paths are relative to the folder, with '/' between parts. Any thread; two
 * calls on one file at overlapping ranges are the caller's business. Return 0, a count, or -errno.
 */
#ifndef SOP_DISK_H
#define SOP_DISK_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "core/err.h"

enum sop_open_flags {
	SOP_OPEN_READ = 0,
	SOP_OPEN_WRITE = 1,  /* read and write */
	SOP_OPEN_CREATE = 2, /* make it if it is not there */
	SOP_OPEN_EXCL = 4,   /* with CREATE: -EEXIST if it is */
};

struct sop_disk_space {
	uint64_t total_bytes;
	uint64_t free_bytes; /* what an ordinary user may still write */
	uint64_t device;     /* st_dev: two members with one value share a device */
};

struct sop_disk;
struct sop_file;

struct sop_disk_ops {
	void (*close)(struct sop_disk *d);
	int (*file_open)(struct sop_file **out, struct sop_disk *d, const char *path, int flags);
	void (*file_close)(struct sop_file *f); /* the caller lets go; see sop_file_get() */
	/* Whole or -errno for writes; a short count at end of file for reads. */
	ssize_t (*preadv)(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off);
	ssize_t (*pwritev)(struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off);
	/* Like preadv, but -EAGAIN rather than wait for the device. May always say -EAGAIN. */
	ssize_t (*preadv_cached)(
		struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off);
	int (*datasync)(struct sop_file *f);
	/* Optional (NULL): hints. Begin to fetch what will be read there; begin to write out what
	 * was written there; forget what is in memory of a file that has been synced, so that reads
	 * ask the medium. */
	void (*read_ahead)(struct sop_file *f, uint64_t off, uint64_t len_bytes);
	void (*write_out)(struct sop_file *f, uint64_t off, uint64_t len_bytes);
	void (*forget)(struct sop_file *f);
	int (*size)(struct sop_file *f, uint64_t *len_bytes);
	int (*truncate)(struct sop_file *f, uint64_t len_bytes);
	int (*allocate)(struct sop_file *f, uint64_t off, uint64_t len_bytes); /* grows the file */
	int (*punch)(struct sop_file *f, uint64_t off, uint64_t len_bytes);    /* keeps the size */
	int (*lock)(struct sop_file *f); /* exclusive until close; -EAGAIN when another has it */
	/* Shared until close, also instead of exclusive (then another may get in between, and
	 * -EAGAIN leaves no lock). */
	int (*lock_shared)(struct sop_file *f);
	int (*rename)(struct sop_disk *d, const char *from, const char *to);
	int (*link)(struct sop_disk *d, const char *from, const char *to); /* -EEXIST */
	int (*unlink)(struct sop_disk *d, const char *path);
	int (*mkdir)(struct sop_disk *d, const char *path);   /* 0 when it is there already */
	int (*syncdir)(struct sop_disk *d, const char *path); /* "" is the folder itself */
	/* Calls fn for every name but "." and ".."; a negative result of fn ends it. */
	int (*list)(struct sop_disk *d, const char *path, int (*fn)(void *arg, const char *name),
		void *arg);
	int (*space)(struct sop_disk *d, struct sop_disk_space *out);
};

/* Implementations embed these first, zeroed. */
struct sop_disk {
	const struct sop_disk_ops *ops;
	char *name; /* for messages: the folder's path */
	atomic_uint extra_refs;
};

struct sop_file {
	const struct sop_disk_ops *ops;
	struct sop_disk *disk;
	int fd; /* a real descriptor for io_uring, or -1 */
	atomic_uint extra_refs;
};

/* Hold f until one more file_close(): a request that hangs in a device outlives the owner's close,
 * and its descriptor may not become another file's meanwhile. An implementation of file_close
 * starts with `if (!sop_file_put(f)) return;`. A file holds on to its disk in the same way. */
static inline void sop_file_get(struct sop_file *f)
{
	atomic_fetch_add_explicit(&f->extra_refs, 1, memory_order_relaxed);
}

/* True when the caller was the last to hold f, and is to free it. */
static inline bool sop_file_put(struct sop_file *f)
{
	return atomic_fetch_sub_explicit(&f->extra_refs, 1, memory_order_acq_rel) == 0;
}

/* The folder at path. -ENOENT, -ENOTDIR, -EACCES. Holds a directory descriptor, so that a folder
 * renamed away stays reachable and a new one under its name is not mistaken for it. */
int sop_disk_open_folder(struct sop_disk **out, const char *path, struct sop_err *e);
void sop_disk_close(struct sop_disk *d); /* NULL is fine */
/* Hold d until one more sop_disk_close(): a call that hangs in it, and has more to do there,
 * outlives the owner's close. */
static inline void sop_disk_get(struct sop_disk *d)
{
	atomic_fetch_add_explicit(&d->extra_refs, 1, memory_order_relaxed);
}

/* Small whole files. Reading: the file must be at most max_bytes; *buf is malloc'ed. */
int sop_disk_read_file(struct sop_disk *d, const char *path, void **buf, size_t *len_bytes,
	size_t max_bytes, struct sop_err *e);
/* Temp, write, fsync, rename, fsync directory: after a crash the old or the new one, whole. On an
 * error it is the old one, or (only the last sync failed) perhaps the new one, not yet durable. */
int sop_disk_publish(
	struct sop_disk *d, const char *path, const void *buf, size_t len_bytes, struct sop_err *e);
/* The two halves of it. stage: a temporary file with the content, synced; its path goes to temp.
 * name: it takes its name, and the folder is synced. unstage: it is removed, best effort. A crash
 * before name has begun leaves the old file, for certain. */
#define SOP_TEMP_PATH 512
int sop_disk_stage(struct sop_disk *d, const char *path, const void *buf, size_t len_bytes,
	char temp[SOP_TEMP_PATH], struct sop_err *e);
int sop_disk_name(struct sop_disk *d, const char *temp, const char *path, struct sop_err *e);
void sop_disk_unstage(struct sop_disk *d, const char *temp);
/* Is this the name of a temporary file of path? A crash may leave one, of no use to anybody. */
bool sop_disk_is_temp(const char *name, const char *path);

#endif
