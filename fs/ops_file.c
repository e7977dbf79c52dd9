#include "fs/ops.h"

#include <fcntl.h>

#include "fs/locks.h"
#include "fs/stream.h"

/* The reply's count has 32 bits. */
#define COPY_MAX ((size_t)1 << 30)

struct opening {
	struct sopfs *f;
	fuse_req_t req;
	struct fuse_file_info fi;
	struct sopfs_handle *handle;
};

/* Nobody has it open any more. What is left is committed before the next holder of its locks, those
 * of its description or taken by a descriptor that sends no FLUSH, is let in. */
static void let_go(struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes)
{
	bool of_ctl = h->text || h->stream;

	if (!of_ctl)
		sopfs_handle_leave(f, h, notes);
	sopfs_lock_drop_handle(f, h->view->item, h);
	sopfs_lock_release_quiet(f, h);
	if (of_ctl)
		sopfs_handle_free(f, h);
	else
		sopfs_handle_end(f, h);
}

static void reply_open(struct sopfs *f, fuse_req_t req, struct fuse_file_info *fi)
{
	struct sopfs_notes notes = {0};

	/* Interrupted: no RELEASE will come. */
	if (fuse_reply_open(req, fi) == -ENOENT) {
		let_go(f, sopfs_handle_of(fi), &notes);
		sopfs_notify_later(f, &notes);
	}
}

static void opening_done(void *arg)
{
	struct opening *o = arg;

	reply_open(o->f, o->req, &o->fi);
	free(o);
}

/* Pages of the file that the open shares with others are on their way out of the kernel, since
 * another mounter has changed it. Were the kernel told after this is answered, it might throw away
 * the size that the first read asks for. */
static bool is_dropping(struct sopfs *f, const struct sopfs_handle *h)
{
	bool dropping;

	if (!f->shared || !sopfs_handle_direct(h))
		return false;
	pthread_mutex_lock(&f->lock);
	dropping = h->view->item->dropping;
	pthread_mutex_unlock(&f->lock);
	return dropping;
}

static void opening_told(void *arg)
{
	struct opening *o = arg;
	struct sopfs_notes none = {0};

	if (is_dropping(o->f, o->handle))
		sopfs_notify_dropped(o->f, &none, opening_done, o);
	else
		opening_done(o);
}

void sopfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_notes notes = {0};
	struct sopfs_opened opened;
	struct sop_err e = {0};
	struct opening *o;
	int rc = sopfs_open(f, &who, sopfs_view_of(f, ino), fi->flags, &opened, &notes, &e);

	if (rc) {
		sopfs_notify_later(f, &notes);
		sopfs_reply_rc(f, req, rc, &e);
		return;
	}
	fi->fh = (uintptr_t)opened.handle;
	fi->keep_cache = opened.keep_cache;
	fi->direct_io = opened.handle->text || opened.handle->stream ||
			sopfs_session_unpaged(opened.handle->session);
	fi->nonseekable = opened.handle->stream != NULL;
	fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY && !(fi->flags & O_TRUNC) &&
		      sopfs_lock_quiet(f, opened.handle);
	o = notes.first || is_dropping(f, opened.handle) ? malloc(sizeof(*o)) : NULL;
	if (!o) {
		sopfs_notify_later(f, &notes);
		reply_open(f, req, fi);
		return;
	}
	*o = (struct opening){f, req, *fi, opened.handle};
	sopfs_notify(f, &notes, opening_told, o);
}

void sopfs_op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_view *dir = sopfs_view_of(f, parent);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct fuse_entry_param p = {0};
	struct sopfs_notes notes = {0};
	struct sopfs_opened opened;
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};
	int rc;

	rc = sopfs_is_ctl(dir)
		     ? -EPERM
		     : sopfs_create(f, &who, dir->item, name, mode, fi->flags, &entry, &opened, &e);
	if (rc) {
		sopfs_reply_rc(f, req, rc, &e);
		return;
	}
	sopfs_entry_param(f, &entry, &p);
	/* This inode is the session's own: what changes its attributes comes through it. But that
	 * one who may read comes to the end of the file must be seen. */
	p.attr_timeout = (opened.handle->session && opened.handle->session->reads) || f->shared
				 ? 0
				 : SOPFS_CACHE_SECONDS;
	fi->fh = (uintptr_t)opened.handle;
	fi->keep_cache = 1;
	fi->direct_io = sopfs_session_unpaged(opened.handle->session);
	if (fuse_reply_create(req, &p, fi) == -ENOENT) {
		let_go(f, opened.handle, &notes);
		sopfs_notify_later(f, &notes);
		sopfs_forget(f, entry.view, 1);
	}
	sopfs_prune(f);
}

void sopfs_op_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_handle *h = sopfs_handle_of(fi);
	sop_autofree char *buf = NULL;
	struct sop_err e = {0};
	ssize_t n;

	if (h->stream) {
		sopfs_stream_read(h->stream, req, size, fi->flags & O_NONBLOCK);
		return;
	}
	buf = malloc(size ? size : 1);
	if (!buf) {
		n = -ENOMEM;
	} else if (h->text) {
		size_t at = SOP_MIN((size_t)off, h->text_len);

		n = (ssize_t)SOP_MIN(size, h->text_len - at);
		memcpy(buf, h->text + at, (size_t)n);
	} else {
		sopfs_note_paged(sopfs_view_of(f, ino));
		n = sopfs_read(f, h, buf, size, (uint64_t)off, &e);
	}
	if (n < 0)
		sopfs_reply_rc(f, req, (int)n, &e);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

struct writing {
	fuse_req_t req;
	struct sopfs_item *item;
	size_t count;
};

static void writing_done(void *arg)
{
	struct writing *w = arg;

	atomic_store(&w->item->telling, false);
	fuse_reply_write(w->req, w->count);
	free(w);
}

/* Who shares the file by another nodeid (companion.h) must not find the bytes of before in its
 * pages when this has been answered. False: it has not, and will not be. */
static bool reply_shared_write(struct sopfs *f, fuse_req_t req, struct sopfs_item *item,
	const char *buf, size_t count, uint64_t end, struct sopfs_notes *notes)
{
	struct writing *w = malloc(sizeof(*w));
	struct sop_attr a;

	if (!w)
		return false;
	if (!count || sopfs_item_attr(f, item, &a, NULL) || a.size != end)
		end = 0;
	*w = (struct writing){req, item, count};
	if (sopfs_notify_pages(f, notes, item, end, end ? buf[count - 1] : 0, writing_done, w))
		return true;
	free(w);
	return false;
}

void sopfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	struct sopfs_handle *h = sopfs_handle_of(fi);
	bool direct = sopfs_handle_direct(h);
	ssize_t n = 0;

	if (!sopfs_session_unpaged(h->session))
		sopfs_note_paged(sopfs_view_of(f, ino));
	/* What a mapping has changed is written later, by nobody in particular. */
	if (!fi->writepage)
		n = sopfs_drop_privileges(req, sopfs_view_of(f, ino), h, &notes, &e);
	if (!n)
		n = sopfs_write(f, h, fi->writepage ? 0 : ctx->pid, ctx->uid, buf, size,
			(uint64_t)off, &notes, &e);
	if (n >= 0 && direct && notes.first &&
		reply_shared_write(
			f, req, h->view->item, buf, (size_t)n, (uint64_t)off + (size_t)n, &notes))
		return;
	/* The kernel holds the file's lock and may hold its pages while it waits for us. */
	sopfs_notify_later(f, &notes);
	if (n < 0)
		sopfs_reply_rc(f, req, (int)n, &e);
	else
		fuse_reply_write(req, (size_t)n);
}

void sopfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct sopfs_lock all = {.end = UINT64_MAX, .owner = fi->lock_owner};
	struct sopfs *f = sopfs_of(req);
	struct sopfs_item *item = sopfs_view_of(f, ino)->item;
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	/* A close takes all locks of its process with it: after the commit, so that the next holder
	 * sees what was written under them. */
	bool locked = sopfs_lock_has(f, item, &all, true);
	int rc = sopfs_flush(f, sopfs_handle_of(fi), fuse_req_ctx(req)->pid, locked, &notes, &e);

	sopfs_lock_flushed(f, sopfs_handle_of(fi));
	if (fi->lock_owner)
		sopfs_lock_drop_owner(f, sopfs_handle_of(fi), fi->lock_owner);
	sopfs_reply_after(f, req, &notes, rc, &e);
}

void sopfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	int rc = sopfs_fsync(f, sopfs_handle_of(fi), &notes, &e);

	(void)ino;
	(void)datasync;
	sopfs_reply_after(f, req, &notes, rc, &e);
}

void sopfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_handle *h = sopfs_handle_of(fi);
	struct sopfs_notes notes = {0};
	struct sop_err none = {0};

	(void)ino;
	let_go(f, h, &notes);
	sopfs_reply_after(f, req, &notes, 0, &none);
}

void sopfs_op_lseek(
	fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_handle *h = sopfs_handle_of(fi);
	struct sop_err e = {0};
	int64_t n = -EINVAL; /* also for files of .sop, as for those of /proc */

	(void)ino;
	if (off < 0)
		n = -ENXIO;
	else if ((whence == SEEK_DATA || whence == SEEK_HOLE) && !h->text && !h->stream)
		n = sopfs_seek(f, h, (uint64_t)off, whence == SEEK_HOLE, &e);
	if (n < 0)
		sopfs_reply_rc(f, req, (int)n, &e);
	else
		fuse_reply_lseek(req, n);
}

void sopfs_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	int rc = -EINVAL;

	if (off >= 0 && len > 0)
		rc = sopfs_fallocate(
			f, sopfs_handle_of(fi), mode, (uint64_t)off, (uint64_t)len, &notes, &e);
	if (!rc)
		rc = sopfs_drop_privileges(
			req, sopfs_view_of(f, ino), sopfs_handle_of(fi), &notes, &e);
	sopfs_notify_later(f, &notes);
	sopfs_reply_rc(f, req, rc, &e);
}

void sopfs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
	struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
	struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_handle *in = sopfs_handle_of(fi_in);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	ssize_t n = -EINVAL;

	(void)ino_in;
	if (in->text || in->stream)
		n = -EOPNOTSUPP; /* of .sop: the kernel copies */
	else if (!flags && off_in >= 0 && off_out >= 0)
		n = sopfs_drop_privileges(
			req, sopfs_view_of(f, ino_out), sopfs_handle_of(fi_out), &notes, &e);
	if (!n)
		n = sopfs_copy(f, in, (uint64_t)off_in, sopfs_handle_of(fi_out), (uint64_t)off_out,
			SOP_MIN(len, COPY_MAX), fuse_req_ctx(req)->pid, &notes, &e);
	sopfs_notify_later(f, &notes);
	if (n < 0)
		sopfs_reply_rc(f, req, (int)n, &e);
	else
		fuse_reply_write(req, (size_t)n);
}
