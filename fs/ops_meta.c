#include "fs/ops.h"

#include <sys/statvfs.h>

#include "fs/posix.h"

#define STATFS_BLOCK 4096u

struct after {
	struct sopfs *f;
	fuse_req_t req;
	int rc;
	struct sop_err e;
};

static void after_done(void *arg)
{
	struct after *a = arg;

	sopfs_reply_rc(a->f, a->req, a->rc, &a->e);
	free(a);
}

void sopfs_reply_after(
	struct sopfs *f, fuse_req_t req, struct sopfs_notes *notes, int rc, const struct sop_err *e)
{
	struct after *a = notes->first ? malloc(sizeof(*a)) : NULL;

	if (!a) {
		sopfs_notify_later(f, notes);
		sopfs_reply_rc(f, req, rc, e);
		return;
	}
	*a = (struct after){f, req, rc, *e};
	sopfs_notify(f, notes, after_done, a);
}

void sopfs_op_init(void *userdata, struct fuse_conn_info *conn)
{
	const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
				FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_READDIRPLUS |
				FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
				FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA |
				FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;
	const struct sopfs *f = userdata;

	/* Left out: AUTO_INVAL_DATA (nodeids are versions), HANDLE_KILLPRIV (its second form, which
	 * libfuse does not know, is set in the reply: channel.c), splice (no gain), WRITEBACK_CACHE
	 * (hides the writer). */
	conn->want = conn->capable & wanted;
	if (f->o.no_acl)
		conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
	conn->max_write = 1024 * 1024;
	conn->max_readahead = conn->max_readahead ? conn->max_readahead : 1024 * 1024;
	conn->time_gran = 1;
}

void sopfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};
	int rc = sopfs_lookup(
		f, fuse_req_ctx(req)->pid, sopfs_view_of(f, parent)->item, name, &entry, &e);

	if (rc == -ENOENT && sopfs_is_ctl(sopfs_view_of(f, parent))) {
		fuse_reply_err(req, ENOENT); /* it may come without this kernel's doing */
	} else if (rc == -ENOENT) {
		/* That it is not there may be kept too: names come by this kernel, or it is
		 * told (control_stores.c). */
		struct fuse_entry_param none = {
			.entry_timeout = sopfs_may_cache(f) ? SOPFS_CACHE_SECONDS : 0};

		fuse_reply_entry(req, &none);
	} else if (rc) {
		sopfs_reply_rc(f, req, rc, &e);
	} else {
		sopfs_reply_entry(f, req, &entry);
	}
}

struct looking {
	struct sopfs *f;
	fuse_req_t req;
	struct sop_attr a;
	bool cache;
};

static void looking_done(void *arg)
{
	struct looking *l = arg;

	sopfs_reply_attr(l->f, l->req, &l->a, l->cache);
	free(l);
}

bool sopfs_must_be_told(const struct sopfs *f, const struct sopfs_notes *notes)
{
	return f->shared && notes->first;
}

/* False: not needed, or no memory. */
static bool reply_when_told(struct sopfs *f, fuse_req_t req, const struct sop_attr *a, bool cache,
	struct sopfs_notes *notes)
{
	struct looking *l = sopfs_must_be_told(f, notes) ? malloc(sizeof(*l)) : NULL;

	if (!l)
		return false;
	*l = (struct looking){f, req, *a, cache};
	sopfs_notify_dropped(f, notes, looking_done, l);
	return true;
}

/* tid: see sopfs_getattr(). */
static void reply_getattr(
	struct sopfs *f, fuse_req_t req, int tid, struct sopfs_view *v, struct sopfs_handle *h)
{
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	struct sop_attr a;
	bool cache;
	int rc = sopfs_getattr(f, tid, v, h, &a, &cache, &notes, &e);

	if (!rc && reply_when_told(f, req, &a, cache, &notes))
		return;
	sopfs_notify_later(f, &notes);
	if (rc)
		sopfs_reply_rc(f, req, rc, &e);
	else
		sopfs_reply_attr(f, req, &a, cache);
}

void sopfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);

	reply_getattr(f, req, fuse_req_ctx(req)->pid, sopfs_view_of(f, ino), sopfs_handle_of(fi));
}

static unsigned setattr_mask(const struct stat *st, int to_set, struct sop_attr *a)
{
	struct timespec now = sopfs_now();
	unsigned mask = 0;

	memset(a, 0, sizeof(*a));
	a->mode = st->st_mode;
	a->uid = st->st_uid;
	a->gid = st->st_gid;
	a->atime = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : st->st_atim;
	a->mtime = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : st->st_mtim;
	a->ctime = now;
	if (to_set & FUSE_SET_ATTR_MODE)
		mask |= SOP_ATTR_MODE;
	if (to_set & FUSE_SET_ATTR_UID)
		mask |= SOP_ATTR_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		mask |= SOP_ATTR_GID;
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		mask |= SOP_ATTR_ATIME;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		mask |= SOP_ATTR_MTIME;
	/* Nothing at all is a chown to what it is. */
	return mask || !to_set ? mask | SOP_ATTR_CTIME : 0;
}

/* A chown takes set-ID bits away, also root's; older kernels say so themselves, by a mode. A change
 * of nothing is a chown(-1, -1), or what the kernel sends before a write, and the two look alike:
 * root, whose writes leave the bits, and who is not the owner, and might not write at all, change
 * nothing by it. */
static int chown_mode(fuse_req_t req, struct sopfs_view *v, struct sopfs_handle *h, int to_set,
	struct sop_attr *a, unsigned *mask, struct sopfs_notes *notes, struct sop_err *e)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	struct sop_attr now;
	bool cache;
	int rc;

	if (v->item->type != S_IFREG || to_set & FUSE_SET_ATTR_MODE ||
		(to_set && !(to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))))
		return 0;
	rc = sopfs_getattr(sopfs_of(req), 0, v, h, &now, &cache, notes, e);
	if (rc || (!to_set && (!uid || uid != now.uid)))
		return rc;
	a->mode = sopfs_mode_taken(req, &now);
	if (a->mode != now.mode)
		*mask |= SOP_ATTR_MODE;
	return 0;
}

void sopfs_op_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_view *v = sopfs_view_of(f, ino);
	struct sopfs_handle *h = sopfs_handle_of(fi);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	struct sop_attr a;
	unsigned mask;
	int rc = 0;

	if (sopfs_is_ctl(v)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	mask = setattr_mask(st, to_set, &a);
	if (to_set & FUSE_SET_ATTR_SIZE) {
		rc = st->st_size < 0
			     ? -EINVAL
			     : sopfs_set_size(f, &who, v, h, (uint64_t)st->st_size, &notes, &e);
		/* A truncation brings its own times. */
		if (!(to_set & FUSE_SET_ATTR_MTIME))
			mask &= ~(unsigned)SOP_ATTR_MTIME;
		if (mask == SOP_ATTR_CTIME)
			mask = 0;
		if (!rc && !(to_set & FUSE_SET_ATTR_MODE))
			rc = sopfs_drop_privileges(req, v, h, &notes, &e);
	}
	if (!rc)
		rc = chown_mode(req, v, h, to_set, &a, &mask, &notes, &e);
	if (!rc && mask)
		rc = sopfs_setattr(f, who.tid, v, &a, mask, &notes, &e);
	if (to_set & FUSE_SET_ATTR_MODE && st->st_mode & (S_ISUID | S_ISGID))
		sopfs_privileges_granted();
	sopfs_notify_later(f, &notes);
	if (rc)
		sopfs_reply_rc(f, req, rc, &e);
	else
		reply_getattr(f, req, 0, v, NULL);
}

void sopfs_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct sopfs *f = sopfs_of(req);
	sop_autofree char *target = NULL;
	struct sop_err e = {0};
	int rc;

	/* The kernel keeps it in a page. */
	sopfs_note_paged(sopfs_view_of(f, ino));
	rc = sopfs_readlink(f, sopfs_view_of(f, ino), &target, &e);

	if (rc)
		sopfs_reply_rc(f, req, rc, &e);
	else
		fuse_reply_readlink(req, target);
}

/* The directory that a nodeid is or lies in. */
static uint64_t directory_of(const struct sopfs_view *view)
{
	struct sopfs_item *item = view->item;
	struct sopfs_where w;
	uint64_t dir = SOP_ROOT;

	if (sopfs_is_ctl(view))
		return SOP_ROOT;
	if (S_ISDIR(item->type))
		return item->ino;
	pthread_mutex_lock(&item->fs->lock);
	if (sopfs_item_where(item, &w) && !w.self)
		dir = w.store;
	pthread_mutex_unlock(&item->fs->lock);
	return dir;
}

/* Directories differ in how much fits: each may have an erasure code profile of its own. */
void sopfs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct sopfs *f = sopfs_of(req);
	struct sop_volume_stat s;
	struct statvfs st = {0};
	uint64_t total, left;

	sop_volume_stat(f->v, &s);
	sop_store_room(f->v, directory_of(sopfs_view_of(f, ino)), &total, &left);
	st.f_bsize = st.f_frsize = STATFS_BLOCK;
	st.f_blocks = total / STATFS_BLOCK;
	st.f_bfree = st.f_bavail = left / STATFS_BLOCK;
	/* There is no table of inodes: each takes space, so that many more fit at most. */
	st.f_ffree = st.f_favail = st.f_bavail;
	st.f_files = s.items + st.f_ffree;
	st.f_namemax = SOPFS_NAME_MAX;
	fuse_reply_statfs(req, &st);
}
