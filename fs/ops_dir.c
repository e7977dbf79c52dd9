#include "fs/ops.h"

#include <stdio.h>

#include "fs/ctl.h"
#include "fs/dir.h"
#include "fs/range_view.h"

/* Bytes of an entry beside its name, as the kernel lays them out. */
#define DIRENT_FIXED	 24u
#define DIRENTPLUS_FIXED 152u

struct dir_handle {
	pthread_mutex_t lock;
	unsigned epoch; /* what is listed was read at */
	struct sopfs_listing *listing;
};

void sopfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir_handle *d = calloc(1, sizeof(*d));
	struct sopfs *f = sopfs_of(req);

	sopfs_catch_up(f);
	if (d)
		d->listing = sopfs_listing_new();
	if (!d || !d->listing) {
		free(d);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_init(&d->lock, NULL);
	fi->fh = (uintptr_t)d;
	/* What lies under .sop changes without the kernel's knowing, or in a shared volume. */
	fi->cache_readdir = fi->keep_cache =
		!sopfs_is_ctl(sopfs_view_of(f, ino)) && sopfs_may_cache(f);
	/* Its list is in its pages. */
	sopfs_note_paged(sopfs_view_of(f, ino));
	if (fuse_reply_open(req, fi) == -ENOENT) {
		sopfs_listing_free(d->listing);
		pthread_mutex_destroy(&d->lock);
		free(d);
	}
}

void sopfs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir_handle *d = (struct dir_handle *)(uintptr_t)fi->fh;

	(void)ino;
	sopfs_listing_free(d->listing);
	pthread_mutex_destroy(&d->lock);
	free(d);
	fuse_reply_err(req, 0);
}

void sopfs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sop_err e = {0};

	(void)ino;
	(void)datasync;
	(void)fi;
	sopfs_reply_rc(f, req, f->world ? 0 : sop_volume_sync(f->v, &e), &e);
}

/* The entry's nodeid, with its look-up counted; what cannot be had without waiting stays 0, and the
 * kernel looks it up when it needs it. */
static void plus_entry(struct sopfs *f, struct sopfs_item *dir, const struct sopfs_dirent *d,
	unsigned epoch, struct fuse_entry_param *p)
{
	struct sopfs_entry entry = {0};

	memset(p, 0, sizeof(*p));
	sopfs_stat_of(&d->attr, &p->attr);
	if (!dir || d->cookie <= SOPFS_COOKIE_DOTDOT ||
		sopfs_entry_of(f, dir, d->name, d->len, &d->attr, epoch, &entry))
		return;
	sopfs_entry_param(f, &entry, p);
}

/* Lets go of d->lock before it replies: once the caller has its answer it may close the directory,
 * and d is gone. */
static void reply_listing(struct sopfs *f, fuse_req_t req, struct sopfs_item *dir,
	struct dir_handle *d_held, size_t size, bool plus, bool look_up)
{
	struct sopfs_listing *l = d_held->listing;
	sop_autofree char *buf = malloc(size);
	size_t n = sopfs_listing_count(l), used = 0;
	sop_autofree struct sopfs_view **views = plus ? calloc(n + 1, sizeof(*views)) : NULL;

	if (!buf || (plus && !views)) {
		pthread_mutex_unlock(&d_held->lock);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const struct sopfs_dirent *d = sopfs_listing_at(l, i);
		struct fuse_entry_param p;

		if (plus) {
			plus_entry(f, look_up ? dir : NULL, d, d_held->epoch, &p);
			views[i] = p.ino ? sopfs_view_of(f, p.ino) : NULL;
			used += fuse_add_direntry_plus(
				req, buf + used, size - used, d->name, &p, (off_t)d->cookie);
		} else {
			sopfs_stat_of(&d->attr, &p.attr);
			used += fuse_add_direntry(
				req, buf + used, size - used, d->name, &p.attr, (off_t)d->cookie);
		}
	}
	assert(used <= size);
	pthread_mutex_unlock(&d_held->lock);
	if (fuse_reply_buf(req, buf, used) == -ENOENT && plus)
		for (size_t i = 0; i < n; i++)
			if (views[i])
				sopfs_forget(f, views[i], 1);
	for (size_t i = 0; plus && i < n; i++)
		sopfs_prune(f);
}

/* plus: entries without a nodeid, to be looked up when they are needed. */
static void reply_ctl_listing(fuse_req_t req, off_t off, size_t size, bool plus)
{
	static const struct {
		const char *name;
		uint64_t ino;
	} dirs[] = {{SOPFS_RANGE_NAME, SOPFS_RANGE_INO}, {SOPFS_TXN_NAME, SOPFS_TXN_INO},
		{SOPFS_COMMIT_NAME, SOPFS_COMMIT_INO}};
	char buf[2048];
	size_t used = 0, need = 0, files = 0;

	while (sopfs_ctl_name((unsigned)files, &(uint64_t){0}))
		files++;
	size = SOP_MIN(size, sizeof(buf));
	for (size_t i = (size_t)off; i < files + SOP_ARRAY_LEN(dirs); i++) {
		struct fuse_entry_param p = {.attr.st_mode = i < files ? S_IFREG : S_IFDIR};
		const char *name;

		if (i < files) {
			name = sopfs_ctl_name((unsigned)i, &p.attr.st_ino);
		} else {
			name = dirs[i - files].name;
			p.attr.st_ino = dirs[i - files].ino;
		}
		need = plus ? fuse_add_direntry_plus(
				      req, buf + used, size - used, name, &p, (off_t)i + 1)
			    : fuse_add_direntry(
				      req, buf + used, size - used, name, &p.attr, (off_t)i + 1);
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
	struct fuse_file_info *fi, bool plus)
{
	struct dir_handle *d = (struct dir_handle *)(uintptr_t)fi->fh;
	struct sopfs *f = sopfs_of(req);
	struct sopfs_item *dir = sopfs_view_of(f, ino)->item;
	struct sopfs_listing_opts opts = {
		.size = size, .fixed = plus ? DIRENTPLUS_FIXED : DIRENT_FIXED, .full = plus};
	bool range = sopfs_is_range(dir);
	struct sop_err e = {0};
	int rc;

	if (range) {
		dir = sopfs_range_store(dir, &opts.within, &opts.plain);
		/* The kernel looks the entries up by itself: they are not what the store's are. */
		opts.full = false;
	} else if (sopfs_is_ctl(&dir->view0)) {
		reply_ctl_listing(req, off, size, plus);
		return;
	}
	pthread_mutex_lock(&d->lock);
	d->epoch = atomic_load(&f->foreign_epoch);
	rc = sopfs_listing_read(f, d->listing, dir, (uint64_t)off, &opts, &e);
	if (!rc) {
		reply_listing(f, req, dir, d, size, plus, !range);
		return;
	}
	pthread_mutex_unlock(&d->lock);
	sopfs_reply_rc(f, req, rc, &e);
}

void sopfs_op_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_directory(req, ino, size, off, fi, false);
}

void sopfs_op_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_directory(req, ino, size, off, fi, true);
}

/* ---- names ---- */

/* NULL: the request has been answered, and is no more. */
static struct sopfs_item *directory(struct sopfs *f, fuse_req_t req, fuse_ino_t ino)
{
	struct sopfs_view *v = sopfs_view_of(f, ino);

	if (!sopfs_is_ctl(v))
		return v->item;
	fuse_reply_err(req, EPERM);
	return NULL;
}

static void reply_made(
	struct sopfs *f, fuse_req_t req, int rc, struct sopfs_entry *entry, const struct sop_err *e)
{
	if (rc)
		sopfs_reply_rc(f, req, rc, e);
	else
		sopfs_reply_entry(f, req, entry);
}

void sopfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};

	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	if (dir)
		reply_made(f, req, sopfs_mknod(f, &who, dir, name, mode, rdev, NULL, &entry, &e),
			&entry, &e);
}

void sopfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};

	if (dir)
		reply_made(f, req, sopfs_mkdir(f, &who, dir, name, mode, &entry, &e), &entry, &e);
}

void sopfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};

	if (dir)
		reply_made(f, req,
			sopfs_mknod(f, &who, dir, name, S_IFLNK | 0777, 0, target, &entry, &e),
			&entry, &e);
}

void sopfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	int rc;

	if (!dir)
		return;
	rc = sopfs_unlink(f, dir, name, &notes, &e);
	sopfs_notify_later(f, &notes);
	sopfs_reply_rc(f, req, rc, &e);
}

void sopfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sop_err e = {0};

	if (dir)
		sopfs_reply_rc(f, req, sopfs_rmdir(f, dir, name, &e), &e);
}

void sopfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name, unsigned flags)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_item *from = directory(f, req, parent), *to;
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	int rc;

	to = from ? directory(f, req, to_parent) : NULL;
	if (!to)
		return;
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		rc = -EINVAL;
	else
		rc = sopfs_rename(f, &who, from, name, to, to_name, flags, &notes, &e);
	sopfs_notify_later(f, &notes);
	sopfs_reply_rc(f, req, rc, &e);
}

void sopfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_item *dir = directory(f, req, parent);
	struct sopfs_view *v = sopfs_view_of(f, ino);
	struct sopfs_notes notes = {0};
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};
	int rc;

	if (!dir)
		return;
	rc = sopfs_is_ctl(v)
		     ? -EPERM
		     : sopfs_link(f, fuse_req_ctx(req)->pid, v, dir, name, &entry, &notes, &e);
	sopfs_notify_later(f, &notes);
	reply_made(f, req, rc, &entry, &e);
}
