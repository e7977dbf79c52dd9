/* Requests of .sop/txn and .sop/commit: beginning a transaction over many files, and ending it. See
 * worlds.h. */
#include <linux/fs.h>
#include <stdio.h>

#include "fs/ops.h"

static struct sopfs *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static bool is_dir(struct sopfs *f, fuse_ino_t ino, const struct sopfs_item *dir)
{
	return !(ino & SOPFS_WORLD_BIT) && ino != 1 && sopfs_view_of(f, ino)->item == dir;
}

static bool is_hold(struct sopfs *f, fuse_ino_t ino)
{
	return !(ino & SOPFS_WORLD_BIT) && sopfs_is_hold(sopfs_view_of(f, ino));
}

/* The length of NAME in NAME.hold; 0: it is none. */
static size_t held_name(const char *name)
{
	size_t len = strlen(name), suffix = strlen(SOPFS_HOLD_SUFFIX);

	return len > suffix && strcmp(name + len - suffix, SOPFS_HOLD_SUFFIX) == 0 ? len - suffix
										   : 0;
}

static void fill(
	const struct sopfs *fs, const struct sopfs_entry *entry, struct fuse_entry_param *p)
{
	memset(p, 0, sizeof(*p));
	p->ino = sopfs_view_nodeid(fs, entry->view);
	p->generation = entry->view->generation;
	sopfs_stat_of(&entry->attr, &p->attr);
	/* The name is looked up each time, as it is not everybody's; what is below is the mirror's
	 * own. */
}

/* A mirror has ended: the kernel lets go of what it knows below its name, and so do we. Behind the
 * reply, as the kernel holds the directory until then. */
static void forget_mirror(struct sopfs *f, const struct sopfs_item *dir, const char *name)
{
	struct sopfs_notes notes = {0};

	sopfs_note_entry(&notes, sopfs_view_nodeid(f, &dir->view0), name);
	sopfs_notify_later(f, &notes);
}

/* w is put. */
static void reply_mirror(fuse_req_t req, struct sopfs_world *w)
{
	struct fuse_entry_param p;
	struct sopfs_entry entry = {0};
	struct sop_err e = {0};
	int rc = sopfs_world_entry(w, &entry, &e);

	if (rc) {
		sopfs_reply_rc(mount_of(req), req, rc == -ESTALE ? -ENOENT : rc, &e);
	} else {
		fill(sopfs_world_fs(w), &entry, &p);
		if (fuse_reply_entry(req, &p) == -ENOENT)
			sopfs_world_forget(p.ino, 1);
	}
	sopfs_world_put(w);
}

bool sopfs_txn_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = mount_of(req);
	struct sopfs_world *w;

	if (!is_dir(f, parent, f->txn_dir))
		return false;
	w = sopfs_world_find(f, fuse_req_ctx(req)->uid, name);
	if (w)
		reply_mirror(req, w);
	else
		fuse_reply_err(req, ENOENT);
	return true;
}

bool sopfs_txn_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = mount_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	struct sopfs_world *w;
	struct sop_err e = {0};
	int rc;

	if (!is_dir(f, parent, f->txn_dir))
		return false;
	rc = held_name(name) ? -EINVAL : sopfs_world_begin(f, &who, name, false, &w, &e);
	if (rc)
		sopfs_reply_rc(f, req, rc, &e);
	else
		reply_mirror(req, w);
	return true;
}

bool sopfs_txn_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct sopfs *f = mount_of(req);
	struct sopfs_world *w;

	if (!is_dir(f, parent, f->txn_dir))
		return false;
	w = sopfs_world_find(f, fuse_req_ctx(req)->uid, name);
	if (w) {
		sopfs_world_rollback(w);
		sopfs_world_put(w);
	}
	fuse_reply_err(req, w ? 0 : ENOENT);
	return true;
}

/* A request that commits, answered when that is done. */
struct ending {
	fuse_req_t req;
	size_t written; /* to the file that holds it; 0: renamed */
	const struct sopfs_item *dir;
	char name[SOPFS_NAME_MAX + 1]; /* in dir, where the kernel will have the mirror */
};

static void reply_ended(void *arg, struct sopfs_world *w, int rc, const struct sop_err *e)
{
	struct ending *x = arg;
	struct sopfs *f = mount_of(x->req);

	(void)w;
	if (rc || !x->written)
		sopfs_reply_rc(f, x->req, rc, e);
	else
		fuse_reply_write(x->req, x->written);
	if (sopfs_stands(rc))
		forget_mirror(f, x->dir, x->name);
	free(x);
}

static void commit(fuse_req_t req, struct sopfs_world *w, size_t written,
	const struct sopfs_item *dir, const char *name)
{
	struct ending *x = malloc(sizeof(*x));
	int rc = -ENOMEM;

	if (x) {
		*x = (struct ending){req, written, dir, ""};
		snprintf(x->name, sizeof(x->name), "%s", name);
		rc = sopfs_world_commit(w, reply_ended, x);
	}
	if (!rc)
		return;
	free(x);
	fuse_reply_err(req, -rc);
}

bool sopfs_txn_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
	const char *to_name)
{
	struct sopfs *f = mount_of(req);
	struct sopfs_world *w;
	bool below = is_dir(f, to_parent, f->commit_dir);

	if (!is_dir(f, parent, f->txn_dir))
		return false;
	if (!below && !(is_dir(f, to_parent, f->ctl) && strcmp(to_name, SOPFS_COMMIT_NAME) == 0)) {
		fuse_reply_err(req, EPERM);
		return true;
	}
	w = sopfs_world_find(f, fuse_req_ctx(req)->uid, name);
	if (w) {
		commit(req, w, 0, below ? f->commit_dir : f->ctl, to_name);
		sopfs_world_put(w);
	} else {
		fuse_reply_err(req, ENOENT);
	}
	return true;
}

/* The file that holds a transaction, open. */
bool sopfs_txn_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_file_info *fi)
{
	struct sopfs *f = mount_of(req);
	struct sopfs_caller who = sopfs_caller_of(req);
	char base[SOPFS_NAME_MAX + 1];
	struct fuse_entry_param p;
	struct sopfs_entry entry = {0};
	struct sopfs_world *w;
	struct sop_err e = {0};
	size_t len = held_name(name);
	int rc = -EPERM;

	if (!is_dir(f, parent, f->txn_dir))
		return false;
	if (len && len <= SOPFS_NAME_MAX) {
		memcpy(base, name, len);
		base[len] = 0;
		rc = sopfs_world_begin(f, &who, base, true, &w, &e);
	}
	if (rc) {
		sopfs_reply_rc(f, req, rc, &e);
		return true;
	}
	sopfs_world_hold_entry(w, &entry);
	sopfs_world_held(w, 1);
	fill(f, &entry, &p);
	fi->direct_io = 1;
	fi->fh = 0;
	if (fuse_reply_create(req, &p, fi) == -ENOENT) {
		sopfs_world_held(w, -1);
		sopfs_world_forget(p.ino, 1);
	}
	sopfs_world_put(w);
	return true;
}

bool sopfs_txn_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct sopfs *f = mount_of(req);
	const struct fuse_entry_param p = {.attr = {.st_mode = S_IFDIR, .st_ino = SOP_ROOT}};
	char buf[4096], name[SOPFS_NAME_MAX + 1];
	size_t used = 0, need;
	uint64_t number = (uint64_t)off;
	uid_t uid = fuse_req_ctx(req)->uid;

	if (!is_dir(f, ino, f->txn_dir) && !is_dir(f, ino, f->commit_dir))
		return false;
	size = SOP_MIN(size, sizeof(buf));
	while (is_dir(f, ino, f->txn_dir) && sopfs_world_next(f, uid, &number, name)) {
		need = plus ? fuse_add_direntry_plus(
				      req, buf + used, size - used, name, &p, (off_t)number)
			    : fuse_add_direntry(
				      req, buf + used, size - used, name, &p.attr, (off_t)number);
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
	return true;
}

bool sopfs_txn_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off)
{
	struct sopfs *f = mount_of(req);
	char buf[1024];
	size_t n;

	if (!is_hold(f, ino))
		return false;
	n = sopfs_world_message(sopfs_world_of_hold(sopfs_view_of(f, ino)), buf,
		SOP_MIN(size, sizeof(buf)), (uint64_t)off);
	fuse_reply_buf(req, buf, n);
	return true;
}

/* What ends it is written to the file that holds it. */
bool sopfs_txn_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size)
{
	static const char word[] = "commit";
	const size_t len = sizeof(word) - 1;
	struct sopfs *f = mount_of(req);
	struct sopfs_world *w;

	if (!is_hold(f, ino))
		return false;
	w = sopfs_world_of_hold(sopfs_view_of(f, ino));
	if ((size == len || (size == len + 1 && buf[len] == '\n')) && !memcmp(buf, word, len))
		commit(req, w, size, f->txn_dir, sopfs_world_text(w));
	else
		fuse_reply_err(req, EINVAL);
	return true;
}

bool sopfs_txn_release(fuse_req_t req, fuse_ino_t ino)
{
	struct sopfs *f = mount_of(req);
	char name[SOPFS_NAME_MAX + 1];
	struct sopfs_world *w;

	if (!is_hold(f, ino))
		return false;
	w = sopfs_world_of_hold(sopfs_view_of(f, ino));
	snprintf(name, sizeof(name), "%s", sopfs_world_text(w));
	sopfs_world_held(w, -1);
	fuse_reply_err(req, 0);
	forget_mirror(f, f->txn_dir, name);
	return true;
}
