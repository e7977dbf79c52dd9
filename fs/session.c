#include "fs/session.h"

#include <fcntl.h>
#include <time.h>

#include "fs/closer.h"
#include "fs/names.h"
#include "fs/posix.h"
#include "fs/recent.h"
#include "fs/views.h"

struct sopfs_session *sopfs_session_new(
	struct sopfs *f, struct sopfs_item *item, int process, int flags)
{
	struct sopfs_session *s = calloc(1, sizeof(*s));

	(void)f;
	if (!s)
		return NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->item = item;
	s->opener = process;
	s->refs = 1;
	s->flags = flags;
	s->append = (flags & O_APPEND) != 0;
	s->reads = (flags & O_ACCMODE) != O_WRONLY;
	return s;
}

void sopfs_session_put(struct sopfs *f, struct sopfs_session *s)
{
	bool last;

	pthread_mutex_lock(&f->lock);
	last = --s->refs == 0;
	pthread_mutex_unlock(&f->lock);
	if (!last)
		return;
	sop_txn_rollback(s->txn);
	pthread_mutex_destroy(&s->lock);
	free(s->hidden);
	free(s);
}

static int open_value(struct sopfs *f, struct sopfs_session *s, unsigned flags, struct sop_err *e)
{
	struct sop_attr a;
	struct sopfs_where w;
	bool there;
	int rc;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(s->item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!there)
		return sop_fail(
			e, -ESTALE, "inode %llu has no name", (unsigned long long)s->item->ino);
	rc = sop_txn_begin(&s->txn, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, e);
	if (rc)
		return rc;
	rc = sop_value_open(&s->value, s->txn, sopfs_where_name(&w), flags, e);
	if (!rc) {
		sop_value_attr(s->value, &a);
		s->base = a.value_version;
		if (a.ino == s->item->ino)
			return 0;
		rc = -ENOENT;
	}
	sop_txn_rollback(s->txn);
	s->txn = NULL;
	s->value = NULL;
	return rc == -ENOENT ? -EAGAIN : rc;
}

int sopfs_session_begin(struct sopfs *f, struct sopfs_session *s, bool truncate,
	struct sopfs_notes *notes, struct sop_err *e)
{
	int rc = -EAGAIN;

	if (!s->item)
		return -ESTALE;
	if (s->dead)
		return s->dead;
	if (atomic_load(&s->live))
		return SOPFS_LIVE;
	if (s->txn)
		return 0;
	atomic_store(&s->idle, false);
	/* A rename between our look and the open makes it fail once; the name is right after that.
	 */
	for (unsigned i = 0; rc == -EAGAIN && i < SOPFS_TRIES; i++)
		rc = open_value(f, s,
			SOP_VALUE_WRITE | (truncate ? SOP_VALUE_TRUNC : 0) |
				(s->append ? SOP_VALUE_APPEND : 0),
			e);
	if (rc)
		return rc == -EAGAIN ? -ESTALE : rc;
	s->truncating = s->blind_all = truncate;
	if (s->ever_read && !truncate)
		sop_value_depend(s->value);
	if (!s->view)
		return 0;
	/* The kernel must not show pages of another version, nor let pages be read that it has kept
	 * from the last transaction of a session whose reads have to be seen. */
	pthread_mutex_lock(&f->lock);
	if (notes && (s->view->version != s->base || (s->reads && !s->ever_read)))
		sopfs_note_data(f, notes, s->view);
	if (truncate)
		s->view->version = s->base; /* the kernel empties it itself */
	else
		sopfs_view_shows(s->view, s->base);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

/* item.lock held: the newest value version, after a commit. */
static int newest_version(
	struct sopfs *f, struct sopfs_item *item, uint64_t *version, struct sop_err *e)
{
	struct sopfs_where w;
	struct sop_attr a;
	bool there;
	int rc;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!there)
		return -ESTALE;
	rc = sop_lookup(f->latest, sopfs_where_name(&w), &a, e);
	if (!rc && a.ino != item->ino)
		rc = -ESTALE;
	if (!rc)
		*version = a.value_version;
	return rc;
}

static void forget_provisional(struct sopfs *f, struct sopfs_item *item)
{
	pthread_mutex_lock(&f->lock);
	if (item->provisional && !item->nameless)
		sopfs_overlay_remove(f, item);
	item->provisional = NULL;
	free(item->last);
	item->last = NULL;
	pthread_mutex_unlock(&f->lock);
}

void sopfs_session_committed(struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes)
{
	struct sopfs_item *item = s->item;
	uint64_t version = 0;
	bool clean, goes_on;

	pthread_mutex_lock(&f->lock);
	clean = s->blind_all || (item->version == s->base && !(s->view && s->view->unsized));
	pthread_mutex_unlock(&f->lock);
	s->txn = NULL;
	s->value = NULL;
	if (s->creating) {
		forget_provisional(f, item);
		item->nameless = false;
	}
	/* A version we cannot read is none: nothing is kept of the pages, and the next look-up
	 * tells. A later one is another mounter's, and not what the pages show. */
	if (newest_version(f, item, &version, NULL) || version > s->lsn)
		clean = false;
	sopfs_superseded(f, item, NULL, version, notes);
	pthread_mutex_lock(&f->lock);
	goes_on = s->ever_read && s->handles;
	if (s->view) {
		/* Appends are not in the pages that were there before; those that were never there
		 * are of no other version. */
		bool paged = sopfs_session_unpaged(s) && sopfs_view_paged(s->view);

		s->view->version = clean && !paged ? version : 0;
		if (clean)
			s->view->unsized = false;
		if (!clean || sopfs_session_unpaged(s))
			sopfs_note_data(f, notes, s->view);
	}
	pthread_mutex_unlock(&f->lock);
	s->creating = s->truncating = s->changed = s->blind_all = false;
	s->set_mask = 0;
	atomic_fetch_add(&f->committed, 1);
	atomic_store(&s->idle, true);
	if (goes_on)
		(void)sopfs_session_begin(
			f, s, false, notes, NULL); /* should it fail, its next use does */
}

/* It has been removed, and not just lost from sight, as by a rename of another mounter: then its
 * commit says that it is gone. */
static bool is_nameless(struct sopfs *f, const struct sopfs_item *item)
{
	struct sopfs_where w;
	bool nameless;

	pthread_mutex_lock(&f->lock);
	nameless = !sopfs_item_where(item, &w) && (item->nameless || item->last);
	pthread_mutex_unlock(&f->lock);
	return nameless;
}

static void note_lsn(void *arg, uint64_t lsn)
{
	*(uint64_t *)arg = lsn;
}

int sopfs_session_commit_txn(struct sopfs *f, struct sopfs_session *s, struct sop_err *e)
{
	struct sop_txn *txn = s->txn;
	int rc = sop_txn_on_commit(txn, note_lsn, &s->lsn, e);

	s->txn = NULL;
	s->value = NULL;
	if (rc) {
		sop_txn_rollback(txn);
		return rc;
	}
	sop_txn_under(txn, atomic_load(&s->grant));
	return sop_txn_commit(txn, sopfs_commit_flags(f), e);
}

int sopfs_session_commit(
	struct sopfs *f, struct sopfs_session *s, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sop_err own = {0};
	int rc;

	if (s->dead)
		return s->dead;
	/* Nobody will ever find it again, but its session goes on with what it has. */
	if (!sopfs_session_pending(s) || !s->txn || is_nameless(f, s->item))
		return 0;
	e = e ? e : &own;
	rc = sopfs_session_commit_txn(f, s, e);
	if (sopfs_stands(rc))
		sopfs_session_committed(f, s, notes);
	else
		sopfs_session_failed(f, s, rc, e, notes);
	return rc;
}

void sopfs_session_failed(struct sopfs *f, struct sopfs_session *s, int rc, const struct sop_err *e,
	struct sopfs_notes *notes)
{
	atomic_fetch_add(rc == SOP_ECONFLICT ? &f->conflicts : &f->failed, 1);
	sopfs_session_rollback(f, s, rc, e->text[0] ? e->text : sop_err_text(rc), notes);
}

void sopfs_session_rollback(struct sopfs *f, struct sopfs_session *s, int why, const char *reason,
	struct sopfs_notes *notes)
{
	struct sopfs_item *item = s->item;

	if (s->dead)
		return;
	sopfs_recent_add(f, item, why, reason);
	sop_txn_rollback(s->txn);
	s->txn = NULL;
	s->value = NULL;
	s->dead = why;
	pthread_mutex_lock(&f->lock);
	if (item->provisional == s) {
		sopfs_note_names(f, notes, item);
		if (!item->nameless)
			sopfs_overlay_remove(f, item);
		item->provisional = NULL;
		item->nameless = true;
		item->last->nlink = 0;
	}
	if (s->view) {
		s->view->version = 0;
		sopfs_note_data(f, notes, s->view);
	}
	pthread_mutex_unlock(&f->lock);
	s->creating = s->truncating = s->changed = false;
	s->set_mask = 0;
	atomic_fetch_add(&f->rolled_back, 1);
}

/* ---- materialising ---- */

struct materialise_call {
	struct sop_name name;
	const struct sop_attr *attr;
	struct sop_txn *from; /* whose extended attributes go with it */
};

static int materialise_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct materialise_call *c = arg;
	int rc = sop_create(t, c->name, c->attr, NULL, 0, NULL, e);

	return rc ? rc : sopfs_copy_xattrs(t, c->name, c->from, c->name, e);
}

/* What the creator has written goes into a transaction that finds the item there, and takes effect
 * on what others will have committed until then: over it, or behind it, or, with O_TRUNC, in its
 * place. s.lock held. */
static int carry_over(struct sopfs *f, struct sopfs_session *s, struct sop_err *e)
{
	struct sop_txn *old = s->txn;
	struct sop_value *value = s->value;
	int rc = 0;

	s->txn = NULL;
	s->value = NULL;
	s->creating = false;
	if (s->changed || s->flags & O_TRUNC) {
		rc = sopfs_session_begin(f, s, s->flags & O_TRUNC, NULL, e);
		if (!rc)
			sop_value_move(s->value, value);
	} else {
		s->blind_all = s->truncating = false;
		/* It goes on seeing what it has opened: nothing. */
		if (s->reads || s->ever_read)
			rc = sopfs_session_begin(f, s, false, NULL, e);
	}
	sop_txn_rollback(old);
	return rc;
}

int sopfs_materialise(struct sopfs *f, struct sopfs_item *item, struct sop_err *e)
{
	struct sopfs_session *s = item->provisional;
	struct materialise_call call;
	struct sop_attr attr;
	struct sopfs_where w;
	struct sopfs_notes notes = {0};
	struct sop_err own = {0};
	uint64_t version;
	bool there;
	int rc, unsynced = 0;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->lock);
	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	attr = *item->last;
	pthread_mutex_unlock(&f->lock);
	rc = there ? 0 : -ESTALE;
	if (!rc) {
		call = (struct materialise_call){sopfs_where_name(&w), &attr, s->txn};
		rc = sopfs_txn(f, materialise_txn, &call, e);
	}
	if (rc == SOP_EUNSYNCED) {
		unsynced = rc;
		rc = 0;
	}
	if (!rc)
		rc = newest_version(f, item, &version, e);
	if (!rc) {
		forget_provisional(f, item);
		pthread_mutex_lock(&f->lock);
		item->version = version;
		if (item->current)
			item->current->version = version;
		if (s->view)
			s->view->version = version;
		pthread_mutex_unlock(&f->lock);
		/* Its creator's trouble is not that of who made us do this. */
		rc = carry_over(f, s, &own);
		if (rc) {
			sopfs_session_failed(f, s, rc, &own, &notes);
			rc = 0;
			sopfs_notify_later(f, &notes);
		} else {
			s->base = version;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return rc ? rc : unsynced;
}

/* ---- whose is it ---- */

/* While item.lock is held none leaves the list, and those that come are put in front. */
struct sopfs_session *sopfs_session_of_process(struct sopfs *f, struct sopfs_item *item, int tid)
{
	int process = sopfs_closer_process(tid);
	struct sopfs_session *s;

	pthread_mutex_lock(&f->lock);
	s = item->sessions;
	pthread_mutex_unlock(&f->lock);
	for (; s; s = s->next) {
		if (s->opener != process)
			continue;
		pthread_mutex_lock(&s->lock);
		if (!s->dead && s->txn && sopfs_session_pending(s)) {
			pthread_mutex_lock(&f->lock);
			s->refs++;
			pthread_mutex_unlock(&f->lock);
			return s;
		}
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}
