#include "fs/ops.h"

#include <fcntl.h>
#include <sys/file.h>

#include "fs/locks.h"

struct locking {
	struct sopfs *f;
	fuse_req_t req;
	struct sopfs_handle *handle;
	struct sopfs_waiter *waiter;
	struct sop_err e;
	int rc;
};

static void locking_reply(void *arg)
{
	struct locking *k = arg;

	sopfs_reply_rc(k->f, k->req, k->rc, &k->e);
	free(k);
}

/* What others changed before is seen by who is answered here, see companion.h. */
static void locking_done(struct locking *k, struct sopfs_notes *notes)
{
	if (atomic_load(&k->f->companions))
		sopfs_notify_in_order(k->f, notes, locking_reply, k);
	else
		sopfs_notify(k->f, notes, locking_reply, k);
}

/* Granted: who holds the lock sees the newest version, and no older page of it. */
static void granted(struct locking *k)
{
	struct sopfs_notes notes = {0};

	if (!k->rc)
		k->rc = sopfs_session_refresh(k->f, k->handle, &notes, &k->e);
	locking_done(k, &notes);
}

static void interrupted(fuse_req_t req, void *arg)
{
	struct locking *k = arg;

	(void)req;
	sopfs_lock_interrupt(k->f, k->waiter);
}

/* Called without any lock, by whoever let it in or gave it up. */
static void waited(void *arg, int rc)
{
	struct locking *k = arg;

	/* Given up by an interrupt, the request's own lock is held around us, and it needs no more.
	 */
	if (!k->waiter->in_interrupt)
		fuse_req_interrupt_func(k->req, NULL, NULL);
	sopfs_waiter_free(k->waiter);
	k->waiter = NULL;
	k->rc = rc;
	granted(k);
}

static void set_lock(fuse_req_t req, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_lock *lock, bool wait)
{
	struct sopfs *f = sopfs_of(req);
	struct locking *k = calloc(1, sizeof(*k));
	int rc = 0;

	if (k && wait)
		k->waiter = sopfs_waiter_new(waited, k);
	if (!k || (wait && !k->waiter)) {
		free(k);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	k->f = f;
	k->req = req;
	k->handle = h;
	lock->tid = fuse_req_ctx(req)->pid;
	/* What was written under a lock that lets others in now is there for them. */
	if (lock->type == F_RDLCK && sopfs_lock_has(f, v->item, lock, true)) {
		struct sopfs_notes notes = {0};

		rc = sopfs_session_unlock(f, h, &notes, &k->e);
		sopfs_notify_later(f, &notes);
		if (rc) {
			k->rc = rc;
			sopfs_waiter_free(k->waiter);
			locking_reply(k);
			return;
		}
	}
	if (lock->type == F_UNLCK) {
		struct sopfs_notes notes = {0};

		/* What was written under it is there for the next holder. */
		rc = sopfs_session_unlock(f, h, &notes, &k->e);
		k->rc = sopfs_lock_set(f, v->item, lock, NULL);
		k->rc = k->rc ? k->rc : rc;
		sopfs_waiter_free(k->waiter);
		locking_done(k, &notes);
		return;
	}
	if (wait)
		fuse_req_interrupt_func(req, interrupted, k);
	rc = sopfs_lock_set(f, v->item, lock, k->waiter);
	if (rc == -EINPROGRESS)
		return;
	if (wait)
		fuse_req_interrupt_func(req, NULL, NULL);
	sopfs_waiter_free(k->waiter);
	k->waiter = NULL;
	k->rc = rc;
	granted(k);
}

static void from_flock(
	const struct fuse_file_info *fi, const struct flock *lock, struct sopfs_lock *out)
{
	memset(out, 0, sizeof(*out));
	out->start = (uint64_t)lock->l_start;
	out->end = lock->l_len ? (uint64_t)lock->l_start + (uint64_t)lock->l_len - 1 : INT64_MAX;
	out->owner = fi->lock_owner;
	out->handle = sopfs_handle_of(fi);
	out->pid = lock->l_pid;
	out->type = lock->l_type;
}

void sopfs_op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct sopfs *f = sopfs_of(req);
	struct sopfs_lock want, by;

	from_flock(fi, lock, &want);
	lock->l_type = F_UNLCK;
	if (sopfs_lock_get(f, sopfs_view_of(f, ino)->item, &want, &by)) {
		lock->l_type = by.type;
		lock->l_whence = SEEK_SET;
		lock->l_start = (off_t)by.start;
		lock->l_len = by.end >= INT64_MAX ? 0 : (off_t)(by.end - by.start + 1);
		lock->l_pid = by.pid;
	}
	fuse_reply_lock(req, lock);
}

void sopfs_op_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct sopfs_lock want;

	from_flock(fi, lock, &want);
	set_lock(req, sopfs_view_of(sopfs_of(req), ino), sopfs_handle_of(fi), &want, sleep);
}

void sopfs_op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct sopfs_lock want = {.end = UINT64_MAX,
		.owner = fi->lock_owner,
		.handle = sopfs_handle_of(fi),
		.pid = fuse_req_ctx(req)->pid,
		.whole = true};

	switch (op & ~LOCK_NB) {
	case LOCK_SH:
		want.type = F_RDLCK;
		break;
	case LOCK_EX:
		want.type = F_WRLCK;
		break;
	case LOCK_UN:
		want.type = F_UNLCK;
		break;
	default:
		fuse_reply_err(req, EINVAL);
		return;
	}
	set_lock(req, sopfs_view_of(sopfs_of(req), ino), sopfs_handle_of(fi), &want,
		!(op & LOCK_NB));
}
