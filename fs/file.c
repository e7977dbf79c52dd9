/* Requests by handle: what a read, a write, a close does to a session. See session.h. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <time.h>

#include "fs/closer.h"
#include "fs/posix.h"
#include "fs/views.h"

ssize_t sopfs_apply(struct sop_value *value, const struct sopfs_op *op, struct sop_err *e)
{
	uint64_t end;
	int rc = 0;

	if (op->change == SOPFS_WRITE)
		return sop_value_write(value, op->buf, (size_t)op->len, op->off, e);
	if (op->change == SOPFS_COPY)
		return sop_clip_put(value, op->clip, op->off, e);
	if (op->change == SOPFS_SIZE) {
		if (op->kill_suid)
			sopfs_value_kill_suid(value);
		return sop_value_truncate(value, op->len, e);
	}
	if (sop_add_over(&end, op->off, op->len) || end > INT64_MAX)
		return -EFBIG;
	if (op->change == SOPFS_PUNCH || op->change == SOPFS_ZERO)
		rc = sop_value_punch(value, op->off, op->len, e);
	/* Space is not set aside: what is written goes elsewhere in any case. */
	if (!rc && !op->keep_size && end > sop_value_size(value))
		return sop_value_truncate(value, end, e);
	if (!rc) {
		/* A change by its name, though no byte is another. */
		const struct sop_attr now = {.mtime = sopfs_now(), .ctime = sopfs_now()};

		sop_value_setattr(value, &now, SOP_ATTR_MTIME | SOP_ATTR_CTIME);
	}
	return rc;
}

ssize_t sopfs_read(struct sopfs *f, struct sopfs_handle *h, void *buf, size_t len, uint64_t off,
	struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	struct sopfs_notes notes = {0};
	ssize_t n;

	if (sopfs_handle_direct(h))
		return sopfs_direct_read(f, h, buf, len, off, e);
	if (!s) {
		if (!h->snap->value)
			return 0;
		pthread_mutex_lock(&h->snap->lock);
		n = sop_value_read(h->snap->value, buf, len, off, e);
		pthread_mutex_unlock(&h->snap->lock);
		return n;
	}
	pthread_mutex_lock(&s->lock);
	n = sopfs_session_begin(f, s, false, &notes, e);
	if (!n) {
		n = sop_value_read(s->value, buf, len, off, e);
		s->ever_read = true;
	}
	pthread_mutex_unlock(&s->lock);
	sopfs_notify_later(f, &notes);
	return n == SOPFS_LIVE ? sopfs_direct_read(f, h, buf, len, off, e) : n;
}

/* Who has written, for when he is killed. Beyond a few, everybody is taken for a writer. */
static void remember_writer(struct sopfs_session *s, int tid)
{
	int process;

	if (tid <= 0 || tid == s->last_writer || tid == s->opener)
		return;
	s->last_writer = tid;
	process = sopfs_closer_process(tid);
	if (s->writer_count > SOPFS_WRITERS)
		return;
	for (unsigned i = 0; i < s->writer_count; i++)
		if (s->writers[i] == process)
			return;
	if (s->writer_count < SOPFS_WRITERS)
		s->writers[s->writer_count] = process;
	s->writer_count++;
}

static bool is_writer(const struct sopfs_session *s, int process)
{
	if (s->writer_count > SOPFS_WRITERS)
		return true;
	for (unsigned i = 0; i < s->writer_count; i++)
		if (s->writers[i] == process)
			return true;
	return false;
}

/* s.lock held. *tick: it is to be given to the ticker, without the lock. */
static ssize_t session_change_locked(struct sopfs *f, struct sopfs_session *s, int tid,
	const struct sopfs_op *op, bool *tick, struct sopfs_notes *notes, struct sop_err *e)
{
	ssize_t n = sopfs_session_begin(f, s, false, notes, e);

	if (!n)
		n = sopfs_apply(s->value, op, e);
	if (n >= 0) {
		s->changed = true;
		s->closed = s->closed && op->leftover;
		remember_writer(s, tid);
		s->set_mask &= ~(unsigned)SOP_ATTR_MTIME; /* set by hand, and older */
	}
	*tick = n >= 0 && s->append && !s->ticking;
	if (*tick)
		s->ticking = true;
	return n;
}

static ssize_t session_change(struct sopfs *f, struct sopfs_session *s, int tid,
	const struct sopfs_op *op, struct sopfs_notes *notes, struct sop_err *e)
{
	bool tick;
	ssize_t n;

	pthread_mutex_lock(&s->lock);
	n = session_change_locked(f, s, tid, op, &tick, notes, e);
	pthread_mutex_unlock(&s->lock);
	if (tick)
		sopfs_ticker_add(f, s);
	return n;
}

static ssize_t change(struct sopfs *f, struct sopfs_handle *h, int tid, const struct sopfs_op *op,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = h->view->item;
	uint64_t version = 0;
	ssize_t n;

	if (h->session && !sopfs_handle_direct(h)) {
		n = session_change(f, h->session, tid, op, notes, e);
		if (n != SOPFS_LIVE)
			return n;
	}
	if (!sopfs_handle_direct(h))
		return -EBADF;
	pthread_mutex_lock(&item->lock);
	n = sopfs_change_now(
		f, item, (h->flags & O_APPEND) && op->change == SOPFS_WRITE, op, &version, e);
	if (n >= 0 && version)
		sopfs_superseded(f, item, h->view, version, notes);
	pthread_mutex_unlock(&item->lock);
	return n;
}

ssize_t sopfs_write(struct sopfs *f, struct sopfs_handle *h, int tid, uid_t uid, const void *buf,
	size_t len, uint64_t off, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_op op = {
		.change = SOPFS_WRITE, .buf = buf, .off = off, .len = len, .leftover = tid == 0};

	(void)uid; /* the kernel itself asks for suid bits to be cleared */
	return change(f, h, tid, &op, notes, e);
}

int sopfs_session_truncate(struct sopfs *f, struct sopfs_handle *h, uint64_t size,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_op op = {.change = SOPFS_SIZE, .len = size};

	return (int)change(f, h, 0, &op, notes, e);
}

int sopfs_session_resize(struct sopfs *f, struct sopfs_view *v, struct sopfs_session *s,
	uint64_t size, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_handle by_view = {.view = v, .session = s};
	struct sopfs_op op = {.change = SOPFS_SIZE, .len = size};
	bool tick;
	int rc;

	pthread_mutex_lock(&v->item->lock);
	pthread_mutex_lock(&s->lock);
	op.leftover = s->closed;
	rc = (int)session_change_locked(f, s, 0, &op, &tick, notes, e);
	if (!rc && op.leftover) {
		rc = sopfs_session_commit(f, s, notes, e);
		s->told = s->told || rc;
	}
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&v->item->lock);
	if (tick)
		sopfs_ticker_add(f, s);
	return rc == SOPFS_LIVE ? sopfs_session_truncate(f, &by_view, size, notes, e) : rc;
}

/* Space is not set aside, but what cannot fit at all is refused. Bytes that are there already need
 * no more room. */
static int room_for(
	struct sopfs *f, struct sopfs_handle *h, uint64_t off, uint64_t len, struct sop_err *e)
{
	struct sop_volume_stat s;
	uint64_t end = off + len, missing = len;

	sop_volume_stat(f->v, &s);
	while (off < end && missing > s.free_bytes) {
		int64_t data = sopfs_seek(f, h, off, false, e), hole;

		if (data < 0 || (uint64_t)data >= end)
			break;
		hole = sopfs_seek(f, h, (uint64_t)data, true, e);
		if (hole < 0)
			break;
		off = (uint64_t)hole;
		missing -= SOP_MIN(off, end) - (uint64_t)data;
	}
	return missing > s.free_bytes ? sop_say(e, -ENOSPC, "no space left on the volume") : 0;
}

int sopfs_fallocate(struct sopfs *f, struct sopfs_handle *h, int mode, uint64_t off, uint64_t len,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_op op = {.off = off, .len = len, .keep_size = mode & FALLOC_FL_KEEP_SIZE};

	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		op.change = SOPFS_ALLOCATE;
		break;
	case FALLOC_FL_PUNCH_HOLE:
		if (!op.keep_size)
			return -EOPNOTSUPP;
		op.change = SOPFS_PUNCH;
		break;
	case FALLOC_FL_ZERO_RANGE:
		op.change = SOPFS_ZERO;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (op.change == SOPFS_ALLOCATE) {
		int rc = room_for(f, h, off, len, e);

		if (rc)
			return rc;
	}
	return (int)change(f, h, 0, &op, notes, e);
}

/* What a handle reads, as a clip. */
static int take_clip(struct sopfs *f, struct sopfs_handle *h, struct sop_clip **out, uint64_t off,
	uint64_t len, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	int rc;

	*out = NULL;
	if (sopfs_handle_direct(h))
		return sopfs_direct_clip(f, h, out, off, len, e);
	if (!s) {
		if (!h->snap->value)
			return 0;
		pthread_mutex_lock(&h->snap->lock);
		rc = sop_clip_take(out, h->snap->value, off, len, e);
		pthread_mutex_unlock(&h->snap->lock);
		return rc;
	}
	pthread_mutex_lock(&s->lock);
	rc = sopfs_session_begin(f, s, false, notes, e);
	if (!rc) {
		rc = sop_clip_take(out, s->value, off, len, e);
		s->ever_read = true;
	}
	pthread_mutex_unlock(&s->lock);
	return rc == SOPFS_LIVE ? sopfs_direct_clip(f, h, out, off, len, e) : rc;
}

ssize_t sopfs_copy(struct sopfs *f, struct sopfs_handle *in, uint64_t off_in,
	struct sopfs_handle *out, uint64_t off_out, uint64_t len, int tid,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_op op = {.change = SOPFS_COPY, .off = off_out};
	struct sop_clip *clip;
	ssize_t n = take_clip(f, in, &clip, off_in, len, notes, e);

	if (!n && clip && sop_clip_len(clip)) {
		op.clip = clip;
		n = change(f, out, tid, &op, notes, e);
	}
	sop_clip_free(clip);
	return n;
}

int64_t sopfs_seek(
	struct sopfs *f, struct sopfs_handle *h, uint64_t off, bool hole, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	struct sopfs_notes notes = {0};
	int64_t n;

	if (sopfs_handle_direct(h))
		return sopfs_direct_seek(f, h, off, hole, e);
	if (!s) {
		if (!h->snap->value)
			return -ENXIO;
		pthread_mutex_lock(&h->snap->lock);
		n = sop_value_seek(h->snap->value, off, hole, e);
		pthread_mutex_unlock(&h->snap->lock);
		return n;
	}
	pthread_mutex_lock(&s->lock);
	n = sopfs_session_begin(f, s, false, &notes, e);
	if (!n) {
		if (sopfs_session_sees(s)) {
			s->ever_read = true;
			sop_value_depend(s->value);
		}
		n = sop_value_seek(s->value, off, hole, e);
	}
	pthread_mutex_unlock(&s->lock);
	sopfs_notify_later(f, &notes);
	return n == SOPFS_LIVE ? sopfs_direct_seek(f, h, off, hole, e) : n;
}

static int commit(
	struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = s->item;
	int rc;

	pthread_mutex_lock(&item->lock);
	pthread_mutex_lock(&s->lock);
	rc = sopfs_session_commit(f, s, notes, e);
	s->told = s->told || rc;
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&item->lock);
	return rc;
}

static void rollback(
	struct sopfs *f, struct sopfs_session *s, const char *reason, struct sopfs_notes *notes)
{
	struct sopfs_item *item = s->item;

	pthread_mutex_lock(&item->lock);
	pthread_mutex_lock(&s->lock);
	sopfs_session_rollback(f, s, -EIO, reason, notes);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&item->lock);
}

static int tell(struct sopfs_session *s, int dead)
{
	pthread_mutex_lock(&s->lock);
	s->told = true;
	pthread_mutex_unlock(&s->lock);
	return dead;
}

/* Does the process that opened the session hold a descriptor of it? What can be seen are
 * descriptors of the file; those of its other sessions, one at least of each, are none of this one.
 */
static bool opener_holds(struct sopfs *f, struct sopfs_session *s)
{
	int count = sopfs_closer_descriptors(s->opener, s->item->ino, s->flags & O_ACCMODE);

	if (count <= 0)
		return false;
	pthread_mutex_lock(&f->lock);
	for (struct sopfs_session *t = s->item->sessions; t; t = t->next)
		count -= t != s && t->opener == s->opener && t->handles &&
			 (t->flags & O_ACCMODE) == (s->flags & O_ACCMODE);
	pthread_mutex_unlock(&f->lock);
	return count > 0;
}

/* Is it the end of a process that takes back what the session has written? Says why. */
static bool takes_back(struct sopfs *f, const struct sopfs_session *s,
	const struct sopfs_closer *who, char *reason, size_t size)
{
	bool opener = who->process == s->opener;

	if (who->killed && !f->o.killed_commit && (opener || is_writer(s, who->process))) {
		snprintf(reason, size, "process %d was killed by signal %d", who->process,
			who->signal);
		return true;
	}
	if (who->exiting && who->status && f->o.exit_rollback && opener) {
		snprintf(reason, size, "process %d exited with code %d", who->process, who->status);
		return true;
	}
	return false;
}

/* See "Who is closing?" in closer.h; what follows from it is the table in SEMANTICS.md. Where
 * written data decides, nothing but statm is read; the scan for other copies of the descriptor is
 * made only where it decides. */
int sopfs_flush(struct sopfs *f, struct sopfs_handle *h, int tid, bool locked,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	struct sopfs_closer who;
	bool pending, changed;
	char reason[80];
	int dead, rc;

	/* A reader that shares a session has changed nothing; one that has emptied or made the file
	 * has. */
	if (!s || ((h->flags & O_ACCMODE) == O_RDONLY && !(h->flags & (O_TRUNC | O_CREAT))))
		return 0;
	pthread_mutex_lock(&s->lock);
	pending = sopfs_session_pending(s);
	changed = s->changed;
	dead = s->told ? 0 : s->dead;
	s->closed = s->closed || !pending;
	pthread_mutex_unlock(&s->lock);
	if (!dead && !pending)
		return 0;
	sopfs_closer_look(tid, &who);
	if (dead)
		return who.killed ? 0 : tell(s, dead);
	if (takes_back(f, s, &who, reason, sizeof(reason))) {
		rollback(f, s, reason, notes);
		return 0;
	}
	if (who.process == s->opener) {
		if (!changed && !who.exiting && opener_holds(f, s))
			return 0;
	} else if (!(changed && (s->append || (locked && !who.killed))) && opener_holds(f, s)) {
		return 0;
	}
	rc = commit(f, s, notes, e);
	pthread_mutex_lock(&s->lock);
	s->closed = !sopfs_session_pending(s);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* What comes after it is on top of the version it has committed: a change by others in between is a
 * conflict for who depends on it, as it would be for a session that begins now. */
static int commit_and_go_on(
	struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = s->item;
	int rc;

	pthread_mutex_lock(&item->lock);
	pthread_mutex_lock(&s->lock);
	rc = sopfs_session_commit(f, s, notes, e);
	s->told = s->told || rc;
	/* Committed it is; should it not begin again now, the next use of it tells. */
	if (!rc && s->reads)
		(void)sopfs_session_begin(f, s, false, notes, NULL);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&item->lock);
	return rc;
}

int sopfs_fsync(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	bool pending;

	if (s) {
		pthread_mutex_lock(&s->lock);
		pending = s->dead || sopfs_session_pending(s);
		pthread_mutex_unlock(&s->lock);
		if (pending) {
			int rc = commit_and_go_on(f, s, notes, e);

			if (rc)
				return rc;
		}
	}
	/* What a world has done is on the media when it is committed. */
	return f->world ? 0 : sop_volume_sync(f->v, e);
}

/* The last handle is closed: what is left is committed, and the nodeid of a session whose version
 * is the newest becomes the committed one, its pages still warm. */
static void session_end(struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes)
{
	struct sopfs_item *item = s->item;
	struct sopfs_view *v = s->view;
	struct sopfs_session **p;

	pthread_mutex_lock(&item->lock);
	pthread_mutex_lock(&s->lock);
	(void)sopfs_session_commit(f, s, notes, NULL); /* logged and counted there */
	/* Who waits for s->lock, and came by the nodeid, is to find that it has ended. */
	pthread_mutex_lock(&f->lock);
	for (p = &item->sessions; *p != s; p = &(*p)->next)
		;
	*p = s->next;
	if (item->provisional == s)
		item->provisional = NULL; /* it has lost its name: nothing to create */
	s->item = NULL;
	s->view = NULL;
	v->session = NULL;
	if (!s->dead && !item->current && !item->nameless && v->version &&
		v->version == item->version) {
		sopfs_view_becomes_current(item, v);
	} else {
		v->kind = SOPFS_VIEW_OLD;
	}
	pthread_mutex_unlock(&f->lock);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&item->lock);
	atomic_fetch_sub(&f->sessions_open, 1);
}

static void reader_end(struct sopfs *f, struct sopfs_handle *h)
{
	struct sopfs_snap *snap = NULL;

	pthread_mutex_lock(&f->lock);
	for (struct sopfs_handle **p = &h->view->first; *p; p = &(*p)->next) {
		if (*p != h)
			continue;
		*p = h->next;
		h->view->readers--;
		if (--h->snap->refs == 0)
			snap = h->snap;
		break;
	}
	pthread_mutex_unlock(&f->lock);
	if (snap)
		sopfs_snap_free(snap);
}

void sopfs_handle_leave(struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes)
{
	struct sopfs_session *s = h->session;
	bool direct, last;

	/* A session that becomes live counts the handles it has then. */
	pthread_mutex_lock(&f->lock);
	direct = sopfs_handle_direct(h);
	last = s && --s->handles == 0;
	pthread_mutex_unlock(&f->lock);
	if (direct)
		sopfs_direct_release(f, h);
	if (s) {
		if (last)
			session_end(f, s, notes);
		sopfs_session_put(f, s);
	} else if (!h->direct) {
		reader_end(f, h);
	}
}

void sopfs_handle_end(struct sopfs *f, struct sopfs_handle *h)
{
	struct sopfs_view *v = h->view;

	if (h->companion)
		atomic_fetch_sub(&f->companions, 1);
	pthread_mutex_lock(&f->lock);
	v->handles--;
	sopfs_view_reap(f, v);
	pthread_mutex_unlock(&f->lock);
	sopfs_handle_free(f, h);
}

void sopfs_release(struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes)
{
	sopfs_handle_leave(f, h, notes);
	sopfs_handle_end(f, h);
}

/* The mount has ended under an open file. What was written since its last close was never closed,
 * and who wrote it has been told so by the calls that failed: it is rolled back. But appends are
 * whole each by itself; and what a mapping has written after the close is a leftover of an ordinary
 * end, its RELEASE lost with the mount. */
static void end_by_force(struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes)
{
	bool whole;

	pthread_mutex_lock(&s->lock);
	whole = s->closed || s->append || !sopfs_session_pending(s) || f->o.killed_commit;
	pthread_mutex_unlock(&s->lock);
	if (!whole)
		rollback(f, s, "the mount ended before it was closed", notes);
}

void sopfs_handles_finish(struct sopfs *f)
{
	struct sopfs_notes notes = {0};

	while (f->handles) {
		struct sopfs_handle *h = f->handles;

		if (h->text || h->stream) {
			sopfs_handle_free(f, h);
			continue;
		}
		if (h->session && h->session->item)
			end_by_force(f, h->session, &notes);
		sopfs_release(f, h, &notes);
		sopfs_notify_later(f, &notes);
	}
}

int sopfs_session_refresh(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	struct sopfs_item *item = h->view->item;
	struct sopfs_where w;
	uint64_t newest;
	bool nameless;
	int rc = 0;

	/* Who had the lock before may be another mounter. */
	if (f->shared) {
		sopfs_catch_up(f);
		sopfs_come_to_rest(f, item, notes);
	}
	if (!s)
		return 0;
	pthread_mutex_lock(&s->lock);
	pthread_mutex_lock(&f->lock);
	newest = item->version;
	nameless = !sopfs_item_where(item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!s->dead && !atomic_load(&s->live) && !sopfs_session_pending(s) && !nameless &&
		(!s->txn || s->base != newest)) {
		sop_txn_rollback(s->txn);
		s->txn = NULL;
		s->value = NULL;
		rc = sopfs_session_begin(f, s, false, notes, e);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int sopfs_session_unlock(
	struct sopfs *f, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s = h->session;
	bool changed;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->lock);
	changed = s->changed && !s->dead;
	pthread_mutex_unlock(&s->lock);
	return changed ? commit(f, s, notes, e) : 0;
}
