#define FUSE_USE_VERSION 312
#include "fs/reply.h"

#include <fuse3/fuse_lowlevel.h>

#define BLOCK_SIZE (128 * 1024)

int sopfs_errno(int rc)
{
	return rc < 0 ? sop_err_errno(rc) : 0;
}

/* Codes of our own and I/O errors name a trouble of the volume; the others are a program's
 * business. An I/O error without a word is none of the volume's: a session that was rolled back,
 * which was told when it happened, gives it to all who use it on. */
static void log_trouble(struct sopfs *f, int rc, const struct sop_err *e)
{
	if ((rc > -5000 && rc != -EIO) || rc == SOP_ECONFLICT)
		return;
	if (rc == -EIO && !(e && e->text[0]))
		return;
	sop_log(f->o.log, SOP_LOG_ERROR, "fs", "code=%s: %s", sop_err_name(rc),
		e && e->text[0] ? e->text : sop_err_text(rc));
}

int sopfs_trouble(struct sopfs *f, int rc, const struct sop_err *e)
{
	log_trouble(f, rc, e);
	return sopfs_errno(rc);
}

void sopfs_reply_rc(struct sopfs *f, struct fuse_req *req, int rc, const struct sop_err *e)
{
	fuse_reply_err(req, sopfs_trouble(f, rc, e));
}

void sopfs_stat_of(const struct sop_attr *a, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = a->ino;
	st->st_mode = a->mode;
	st->st_nlink = a->nlink;
	st->st_uid = a->uid;
	st->st_gid = a->gid;
	st->st_rdev = a->rdev;
	st->st_size = (off_t)a->size;
	st->st_blksize = BLOCK_SIZE;
	st->st_blocks = (blkcnt_t)sop_div_up(a->bytes, 512);
	st->st_atim = a->atime;
	st->st_mtim = a->mtime;
	st->st_ctim = a->ctime;
	/* Plain items of libsop have no type, directories no size. */
	if (!(a->mode & S_IFMT))
		st->st_mode = S_IFREG | (a->mode ? a->mode & 07777 : 0644);
	if (S_ISDIR(st->st_mode)) {
		st->st_size = 4096;
		st->st_blocks = 0;
	}
}

void sopfs_entry_param(struct sopfs *f, const struct sopfs_entry *entry, struct fuse_entry_param *p)
{
	p->ino = sopfs_view_nodeid(f, entry->view);
	p->generation = entry->view->generation;
	sopfs_stat_of(&entry->attr, &p->attr);
	p->attr_timeout = entry->cache && sopfs_may_cache(f) ? SOPFS_CACHE_SECONDS : 0;
	p->entry_timeout = entry->fleeting ? 0 : p->attr_timeout;
}

void sopfs_reply_entry(struct sopfs *f, struct fuse_req *req, struct sopfs_entry *entry)
{
	struct fuse_entry_param p = {0};

	sopfs_entry_param(f, entry, &p);
	/* A reply that does not reach the kernel leaves no reference there. */
	if (fuse_reply_entry(req, &p) == -ENOENT)
		sopfs_forget(f, entry->view, 1);
	sopfs_prune(f);
}

void sopfs_reply_attr(struct sopfs *f, struct fuse_req *req, const struct sop_attr *a, bool cache)
{
	struct stat st;

	sopfs_stat_of(a, &st);
	fuse_reply_attr(req, &st, cache && sopfs_may_cache(f) ? SOPFS_CACHE_SECONDS : 0);
}
