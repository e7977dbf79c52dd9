#include "fs/views.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

#include "fs/acl.h"
#include "fs/closer.h"
#include "fs/companion.h"
#include "fs/ctl.h"
#include "fs/names.h"
#include "fs/posix.h"
#include "fs/range_view.h"
#include "fs/requests.h"
#include "fs/stream.h"

#define MARK_MS	       5000
#define RELEASE_YIELDS 32
#define ANCESTORS      8 /* of who opens a temporary file, as far as we look */

struct sopfs_mark {
	struct sopfs_mark *next;
	struct sopfs_item *item; /* holds a reference */
	struct sopfs_view *view; /* reserved for this thread; holds a mark */
	int tid;
	bool direct;	/* it goes to the committed nodeid: session=write */
	bool looked_up; /* and the look-up has come */
	uint64_t until_ms;
};

/* ---- marks: sopfs.lock held ---------------------------------------------------------------------
 */

static void mark_free(struct sopfs *f, struct sopfs_mark **p)
{
	struct sopfs_mark *m = *p;
	struct sopfs_item *item = m->item;

	*p = m->next;
	atomic_fetch_sub(&f->mark_count, 1);
	m->view->marks--;
	if (!m->view->session)
		m->view->kind = SOPFS_VIEW_OLD;
	sopfs_view_reap(f, m->view);
	free(m);
	sopfs_item_unref(f, item);
}

static struct sopfs_mark **mark_find(struct sopfs *f, int tid, const struct sopfs_item *item)
{
	struct sopfs_mark **p = &f->marks;

	if (!atomic_load(&f->mark_count))
		return NULL;
	while (*p) {
		if ((*p)->tid == tid && (*p)->item == item)
			return p;
		p = &(*p)->next;
	}
	return NULL;
}

static void marks_expire(struct sopfs *f, uint64_t now_ms)
{
	struct sopfs_mark **p = &f->marks;

	while (*p) {
		if ((*p)->until_ms < now_ms)
			mark_free(f, p);
		else
			p = &(*p)->next;
	}
}

/* -ESTALE, or why not. */
static int mark_add(struct sopfs *f, int tid, struct sopfs_item *item)
{
	uint64_t now = sop_clock_system.monotonic_ms(sop_clock_system.ctx);
	struct sopfs_mark *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	marks_expire(f, now);
	m->view = sopfs_view_add(f, item, SOPFS_VIEW_SESSION);
	if (!m->view) {
		free(m);
		return -ENOMEM;
	}
	m->view->marks++;
	sopfs_item_ref(item);
	m->item = item;
	m->tid = tid;
	m->until_ms = now + MARK_MS;
	m->next = f->marks;
	f->marks = m;
	atomic_fetch_add(&f->mark_count, 1);
	return -ESTALE;
}

void sopfs_marks_release(struct sopfs *f)
{
	while (f->marks)
		mark_free(f, &f->marks);
}

/* This thread has just been sent through ESTALE for this item, and cannot be again: it came by the
 * nodeid that was reserved for it, or without a look-up, as nothing it opens has a name (a
 * descriptor's entry in /proc). The mark is used up; one of an attempt that was given up is, too.
 */
static bool mark_take(struct sopfs *f, int tid, struct sopfs_view *v)
{
	struct sopfs_mark **p = mark_find(f, tid, v->item);
	bool second;

	if (!p)
		return false;
	second = (*p)->view == v || (*p)->direct || !(*p)->looked_up;
	mark_free(f, p);
	return second;
}

/* ---- what a look-up is answered with ----------------------------------------------------------
 *
 * A name that the kernel keeps must be taken back when its nodeid is stolen, upon which the kernel
 * asks for the directory's attributes too. A log that is opened, appended to, and closed would pay
 * for that each time. So the first look-up after a file was opened for writing does not let the
 * kernel keep the name, if the one before had served for that open alone; a second look-up does
 * again. From a kernel that has kept no name nothing needs to be taken back.
 *
 * Which files these are is remembered beside the items, as the kernel forgets an item whose name is
 * taken back when it is closed. A file that another drives out of its place costs what it always
 * did. */

static uint64_t *rewritten(struct sopfs *f, const struct sopfs_item *item)
{
	return &f->rewritten[item->ino % SOP_ARRAY_LEN(f->rewritten)];
}

/* sopfs.lock held: a name is given to the kernel, to be kept or not. */
static void name_given(struct sopfs *f, struct sopfs_item *item, struct sopfs_entry *out)
{
	out->fleeting = !item->lookups && *rewritten(f, item) == item->ino;
	item->lookups = item->lookups ? 2 : 1;
	item->kept = item->kept || (out->cache && !out->fleeting);
}

/* sopfs.lock held: the committed nodeid has become a session's. The notes are to be sent before the
 * open is answered. */
static void name_taken(struct sopfs *f, struct sopfs_item *item, struct sopfs_notes *notes)
{
	if (item->kept)
		sopfs_note_names(f, notes, item);
	item->kept = false;
	if (item->lookups < 2)
		*rewritten(f, item) = item->ino;
	else if (*rewritten(f, item) == item->ino)
		*rewritten(f, item) = 0;
	item->lookups = 0;
}

/* sopfs.lock held: what this thread is answered with, counted. */
static int view_for(struct sopfs *f, int tid, struct sopfs_item *item, struct sopfs_entry *out)
{
	struct sopfs_mark **p = mark_find(f, tid, item);

	out->view = p && !(*p)->direct ? (*p)->view : sopfs_view_current(f, item);
	if (p)
		(*p)->looked_up = true;
	if (!out->view)
		return -ENOMEM;
	/* What is reserved for it has no pages yet: its size is this one. */
	if (p && !(*p)->direct && !out->view->nlookup)
		out->view->version =
			item->provisional ? SOPFS_VERSION_EMPTY : out->attr.value_version;
	out->cache = !p && !item->provisional;
	out->view->nlookup++;
	name_given(f, item, out);
	return 0;
}

/* ---- look-up and attributes ---- */

/* Shows the newest version, whatever that is. sopfs.lock held. */
static bool is_live(const struct sopfs_view *v)
{
	return v->direct || (v->session && atomic_load(&v->session->live));
}

/* A commit of the item is between libsop and us, or has just passed: wait for it. */
static void wait_for_commit(struct sopfs_item *item)
{
	pthread_mutex_lock(&item->lock);
	pthread_mutex_unlock(&item->lock);
}

void sopfs_catch_up(struct sopfs *f)
{
	/* When too few disks answer, reads go on with what is known. */
	if (f->shared)
		(void)sop_volume_catch_up(f->v, NULL);
}

/* Of a shared volume: this version has come from another mounter, and none of ours is on its way.
 * What the kernel has of the one before is not looked at any more, but by those who have it open.
 * item.lock held. */
static void from_elsewhere(struct sopfs *f, struct sopfs_item *item, const struct sop_attr *a,
	struct sopfs_notes *notes)
{
	bool other;

	if (!f->shared || !S_ISREG(item->type))
		return;
	pthread_mutex_lock(&f->lock);
	other = a->ino == item->ino && !item->provisional && item->version != a->value_version;
	pthread_mutex_unlock(&f->lock);
	if (!other)
		return;
	sopfs_superseded(f, item, NULL, a->value_version, notes);
}

void sopfs_come_to_rest(struct sopfs *f, struct sopfs_item *item, struct sopfs_notes *notes)
{
	struct sopfs_where w;
	struct sop_attr a;
	bool there;

	pthread_mutex_lock(&item->lock);
	if (f->shared) {
		pthread_mutex_lock(&f->lock);
		there = sopfs_item_where(item, &w);
		pthread_mutex_unlock(&f->lock);
		if (there && !sop_lookup(f->latest, sopfs_where_name(&w), &a, NULL))
			from_elsewhere(f, item, &a, notes);
	}
	pthread_mutex_unlock(&item->lock);
}

static int lookup_overlay(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	size_t len, struct sopfs_entry *out)
{
	struct sopfs_item *item;
	int rc = -ENOENT;

	if (!atomic_load(&f->overlay_count))
		return rc;
	pthread_mutex_lock(&f->lock);
	item = sopfs_overlay_find(f, dir->ino, name, len);
	if (item) {
		out->attr = *item->last;
		rc = view_for(f, tid, item, out);
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* A file has been written and closed, and the RELEASE by which its nodeid becomes the committed one
 * is under way: the kernel sends it before the close returns, but another worker may have it. Who
 * looks the name up now finds the same nodeid, and its pages, if he lets it pass. sopfs.lock held.
 */
static bool being_released(const struct sopfs_item *item)
{
	return !item->current && item->sessions && atomic_load(&item->sessions->idle) &&
	       item->sessions->handles <= 1 && sopfs_requests_releasing();
}

/* Found in the committed tree. held: an item whose lock is held, or NULL. -EAGAIN: it has to be
 * looked up again, with the lock of *busy held, which is its item, referenced: a commit is under
 * way, or it has lost the name meanwhile (the kernel asks about names that it has without the lock
 * of their directory). */
static int lookup_found(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	size_t len, unsigned epoch, const struct sopfs_item *held, struct sopfs_entry *out,
	struct sopfs_item **busy)
{
	struct sopfs_item *item;
	bool again = false;
	int rc = -ENOMEM;

	pthread_mutex_lock(&f->lock);
	item = sopfs_item_obtain(f, out->attr.ino, out->attr.mode);
	if (!item)
		goto out;
	sopfs_item_ref(item);
	for (unsigned i = 0; i < RELEASE_YIELDS && !held && being_released(item); i++) {
		pthread_mutex_unlock(&f->lock);
		sched_yield();
		pthread_mutex_lock(&f->lock);
		again = true;
	}
	if (item != held && item->views && !sopfs_name_known(item, dir->ino, name, len))
		again = true;
	if (item->version && item->version != out->attr.value_version)
		again = true;
	if (again || item->provisional || epoch != atomic_load(&f->foreign_epoch)) {
		*busy = item;
		rc = -EAGAIN;
		goto out;
	}
	if (item->type == S_IFREG)
		item->version = out->attr.value_version;
	rc = sopfs_name_add(item, dir->ino, name, len);
	if (!rc) {
		/* A name that we did not know: it is not lost after all. */
		if (item->last && !item->provisional) {
			free(item->last);
			item->last = NULL;
		}
		item->nameless = false;
		rc = view_for(f, tid, item, out);
		if (!rc && item->type == S_IFDIR && atomic_load(&f->overlay_count))
			out->cache = !sopfs_overlay_has_store(f, item->ino);
	}
	sopfs_item_unref(f, item);
out:
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* held: an item whose lock is held, or NULL. */
static int lookup_once(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	size_t len, struct sopfs_item *held, struct sopfs_entry *out, struct sopfs_item **busy,
	struct sop_err *e)
{
	unsigned epoch = atomic_load(&f->foreign_epoch);
	struct sopfs_notes notes = {0};
	int rc = lookup_overlay(f, tid, dir, name, len, out);

	if (rc != -ENOENT)
		return rc;
	rc = sop_lookup(f->latest, (struct sop_name){dir->ino, name, len}, &out->attr, e);
	if (rc)
		return rc;
	if (held) {
		from_elsewhere(f, held, &out->attr, &notes);
		sopfs_notify_later(f, &notes);
	}
	return lookup_found(f, tid, dir, name, len, epoch, held, out, busy);
}

int sopfs_lookup(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	struct sopfs_entry *out, struct sop_err *e)
{
	size_t len = strlen(name);
	struct sopfs_item *held, *busy = NULL;
	int rc;

	if (len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (sopfs_range_has(f, dir, name))
		return sopfs_range_lookup(f, tid, dir, name, out, e);
	if (sopfs_ctl_lookup(f, dir, name, out))
		return out->view ? 0 : -ENOENT;
	sopfs_catch_up(f);
	for (unsigned i = 0; i < SOPFS_TRIES; i++) {
		held = busy;
		busy = NULL;
		if (held)
			pthread_mutex_lock(&held->lock);
		rc = lookup_once(f, tid, dir, name, len, held, out, &busy, e);
		if (held)
			pthread_mutex_unlock(&held->lock);
		sopfs_item_put(f, held);
		if (rc != -EAGAIN)
			return rc;
	}
	sopfs_item_put(f, busy);
	return sop_say(e, -EIO, "inode %llu: its version does not come to rest",
		(unsigned long long)out->attr.ino);
}

int sopfs_entry_of(struct sopfs *f, struct sopfs_item *dir, const char *name, size_t len,
	const struct sop_attr *attr, unsigned epoch, struct sopfs_entry *out)
{
	struct sopfs_item *busy = NULL;
	bool own;
	int rc;

	pthread_mutex_lock(&f->lock);
	own = sopfs_overlay_find(f, dir->ino, name, len) != NULL;
	pthread_mutex_unlock(&f->lock);
	if (own)
		return -EAGAIN;
	out->attr = *attr;
	rc = lookup_found(f, 0, dir, name, len, epoch, NULL, out, &busy);
	sopfs_item_put(f, busy);
	return rc;
}

void sopfs_forget(struct sopfs *f, struct sopfs_view *v, uint64_t n)
{
	if (sopfs_is_range(v->item)) {
		sopfs_range_forget(f, v, n);
		return;
	}
	if (v->item == f->root || sopfs_is_ctl(v))
		return;
	pthread_mutex_lock(&f->lock);
	assert(v->nlookup >= n);
	v->nlookup -= n;
	sopfs_view_reap(f, v);
	pthread_mutex_unlock(&f->lock);
}

/* Another mounter has renamed or removed it: this name is not the item's any more. */
static void forget_name(struct sopfs *f, struct sopfs_item *item, const struct sopfs_where *w)
{
	struct sop_attr a;

	pthread_mutex_lock(&item->lock);
	if (sop_lookup(f->latest, sopfs_where_name(w), &a, NULL) || a.ino != item->ino) {
		pthread_mutex_lock(&f->lock);
		if (!item->last)
			sopfs_name_remove(item, w->store, w->text, w->len);
		pthread_mutex_unlock(&f->lock);
	}
	pthread_mutex_unlock(&item->lock);
}

int sopfs_item_attr(struct sopfs *f, struct sopfs_item *item, struct sop_attr *a, struct sop_err *e)
{
	struct sopfs_where w;
	int rc = -ENOENT;

	for (unsigned i = 0; i < SOPFS_TRIES; i++) {
		bool there;

		pthread_mutex_lock(&f->lock);
		there = sopfs_item_where(item, &w);
		if (item->last && !(there && w.self)) {
			*a = *item->last;
			pthread_mutex_unlock(&f->lock);
			return 0;
		}
		if (item->type != S_IFDIR && !there) {
			pthread_mutex_unlock(&f->lock);
			return sop_fail(e, -ESTALE, "inode %llu", (unsigned long long)item->ino);
		}
		pthread_mutex_unlock(&f->lock);
		rc = sop_lookup(f->latest,
			item->type == S_IFDIR ? SOP_SELF(item->ino) : sopfs_where_name(&w), a, e);
		/* Renamed or removed since we looked: look again, behind whoever did it. */
		if (rc == -ENOENT || (!rc && a->ino != item->ino)) {
			rc = -ENOENT;
			if (f->shared && item->type != S_IFDIR)
				forget_name(f, item, &w);
			else
				wait_for_commit(item);
			continue;
		}
		return rc;
	}
	return rc;
}

/* False: it is idle, and shows what is committed. */
static bool session_attr(struct sopfs *f, struct sopfs_session *s, bool depend, struct sop_attr *a)
{
	struct sopfs_notes notes = {0};
	struct sop_attr mine;
	bool open;

	pthread_mutex_lock(&s->lock);
	/* Its end is looked for: that is a use of it, as a read is. A note that overtakes the
	 * answer makes the kernel throw that away; of what this mount has committed all are told
	 * already.
	 */
	if (depend && !s->append && !s->dead)
		(void)sopfs_session_begin(f, s, false, f->shared ? &notes : NULL, NULL);
	open = s->value != NULL;
	if (open) {
		sop_value_attr(s->value, &mine);
		a->size = sop_value_size(s->value);
		a->bytes = sop_value_bytes(s->value);
		if (s->changed || s->truncating) {
			a->mtime = mine.mtime;
			a->ctime = mine.ctime;
		}
		if (s->set_mask & SOP_ATTR_ATIME)
			a->atime = s->set.atime;
		if (s->set_mask & SOP_ATTR_MTIME)
			a->mtime = s->set.mtime;
		if (depend && sopfs_session_sees(s) && !s->append) {
			s->ever_read = true;
			sop_value_depend(s->value);
		}
	}
	pthread_mutex_unlock(&s->lock);
	sopfs_notify_later(f, &notes);
	return open;
}

/* A path that was walked before the session took this nodeid leads here too, and must not see what
 * is in it. Whoever asks by descriptor has opened it, or holds it: the kernel walks the path again
 * for the others. */
static bool is_stranger(const struct sopfs_session *s, uint64_t ino, int tid)
{
	int process = sopfs_closer_process(tid);

	return process && process != s->opener && sopfs_closer_descriptors(process, ino, -1) == 0;
}

/* A reader's version, seen through any handle of the view that has one. */
static bool snapshot_attr(struct sopfs *f, struct sopfs_view *v, struct sop_attr *a)
{
	struct sopfs_handle *h;

	pthread_mutex_lock(&f->lock);
	h = v->first;
	if (h) {
		a->size = h->snap->attr.size;
		a->bytes = h->snap->attr.bytes;
		a->mtime = h->snap->attr.mtime;
	}
	pthread_mutex_unlock(&f->lock);
	return h != NULL;
}

/* Removed by another mounter while it is open here. */
static int gone_attr(struct sopfs *f, struct sopfs_view *v, struct sop_attr *a, int rc)
{
	if (!f->shared || rc != -ESTALE)
		return rc;
	pthread_mutex_lock(&f->lock);
	if (v->first) {
		*a = v->first->snap->attr;
		a->nlink = 0;
		rc = 0;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* -ESTALE: to the committed version, by way of a new look-up. 0: it has just been sent there, and
 * came back: it has no name to look up (a descriptor's entry in /proc). */
static int turn_away(struct sopfs *f, struct sopfs_view *v, int tid)
{
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	if (!mark_take(f, tid, v))
		rc = mark_add(f, tid, v->item);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* By a nodeid that was a session's; by NULL: one that was not. sopfs.lock held. */
static bool is_anothers(const struct sopfs_view *v, const struct sopfs_session *s)
{
	return v->session != s && !(s && s == v->item->orphan);
}

/* Of a session, which is put. -EAGAIN: the nodeid is not its any more, and of other sizes than its
 * own the pages of who has it now know nothing. met: who asks has been sent away, and came back. */
static int attr_by_session(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_session *s,
	const struct sopfs_handle *handle, struct sop_attr *a, bool *met, struct sop_err *e)
{
	bool orphan;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	orphan = s == v->item->orphan;
	pthread_mutex_unlock(&f->lock);
	if (!orphan && !handle && !*met && is_stranger(s, v->item->ino, tid)) {
		rc = turn_away(f, v, tid);
		*met = true;
	}
	if (!rc)
		rc = sopfs_item_attr(f, v->item, a, e);
	/* The kernel takes it for the end of the session's pages, whoever asks: of another size
	 * what a mapping has written would go. */
	if (!rc && !session_attr(f, s, handle && handle->session == s, a))
		rc = sopfs_item_attr(f, v->item, a, e);
	pthread_mutex_lock(&f->lock);
	if (!rc && is_anothers(v, s))
		rc = -EAGAIN;
	pthread_mutex_unlock(&f->lock);
	sopfs_session_put(f, s);
	return rc;
}

/* What another mounter has changed may be known since a write or a look-up, by which the pages are
 * dropped only later. Who looks now does not wait for what is on its way from elsewhere, but asks
 * for it too. And where the file ends the kernel does not take from the answer then; if the last
 * byte cannot be read, it asks for the size again when it needs it. */
static void note_dropping(
	struct sopfs *f, struct sopfs_view *v, const struct sop_attr *a, struct sopfs_notes *notes)
{
	bool any;
	char last;

	pthread_mutex_lock(&f->lock);
	if (v->item->dropping && is_live(v) && !notes->first)
		sopfs_note_data(f, notes, v);
	any = f->shared && is_live(v) && notes->first;
	pthread_mutex_unlock(&f->lock);
	if (!any || !sopfs_direct_last(f, v->item, a, &last))
		return;
	pthread_mutex_lock(&f->lock);
	sopfs_note_end(f, notes, v, a->size, last);
	pthread_mutex_unlock(&f->lock);
}

/* As for those that are opened with session=write: what has become as these (companion.h). */
static void look_at_live(
	struct sopfs *f, struct sopfs_view *v, const struct sop_attr *a, struct sopfs_notes *notes)
{
	bool live;

	pthread_mutex_lock(&f->lock);
	live = f->shared && is_live(v) && !v->item->orphan;
	pthread_mutex_unlock(&f->lock);
	if (!live)
		return;
	sopfs_come_to_rest(f, v->item, notes);
	note_dropping(f, v, a, notes);
}

int sopfs_getattr(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_handle *handle,
	struct sop_attr *a, bool *cache, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	struct sopfs_session *s;
	enum sopfs_view_kind kind;
	struct sopfs_where w;
	bool current, there, stale, moved, met = false;
	int rc;

	*cache = true;
	if (sopfs_is_ctl(v)) {
		*cache = false;
		return sopfs_is_range(item) ? sopfs_range_attr(f, item, a, e)
					    : sopfs_ctl_attr(v, a);
	}
	sopfs_catch_up(f);
	if (item->type != S_IFREG) {
		rc = sopfs_item_attr(f, item, a, e);
		if (!rc && item->type == S_IFDIR && atomic_load(&f->overlay_count)) {
			pthread_mutex_lock(&f->lock);
			*cache = !sopfs_overlay_has_store(f, item->ino);
			pthread_mutex_unlock(&f->lock);
		}
		return rc;
	}
	for (unsigned i = 0; i < SOPFS_TRIES; i++) {
		pthread_mutex_lock(&f->lock);
		s = v->session ? v->session : v->direct ? item->orphan : NULL;
		if (s)
			s->refs++;
		pthread_mutex_unlock(&f->lock);
		if (s) {
			*cache = false;
			rc = attr_by_session(f, tid, v, s, handle, a, &met, e);
			if (rc == -EAGAIN)
				continue;
			if (!rc)
				look_at_live(f, v, a, notes);
			return rc;
		}
		rc = sopfs_item_attr(f, item, a, e);
		if (rc) {
			*cache = false;
			return gone_attr(f, v, a, rc);
		}
		pthread_mutex_lock(&f->lock);
		moved = is_anothers(v, NULL);
		kind = v->kind;
		there = !item->last || sopfs_item_where(item, &w);
		current = kind == SOPFS_VIEW_COMMITTED && !item->provisional && there &&
			  v->version == a->value_version;
		/* Another mounter has changed it: the pages lack that. */
		stale = f->shared && v->direct && there && item->version != a->value_version;
		if (kind == SOPFS_VIEW_COMMITTED && v->direct && there && !stale)
			v->version = item->version = a->value_version;
		pthread_mutex_unlock(&f->lock);
		if (moved)
			continue;
		if (current) {
			note_dropping(f, v, a, notes);
			return 0;
		}
		if (kind != SOPFS_VIEW_COMMITTED || (v->direct && !stale) || a->nlink == 0 ||
			v->version == SOPFS_VERSION_EMPTY)
			break;
		sopfs_come_to_rest(f, item, notes);
	}
	*cache = false;
	snapshot_attr(f, v, a);
	note_dropping(f, v, a, notes);
	return 0;
}

static void attr_merge(struct sop_attr *to, const struct sop_attr *a, unsigned mask)
{
	if (mask & SOP_ATTR_MODE)
		to->mode = (to->mode & S_IFMT) | (a->mode & 07777);
	if (mask & SOP_ATTR_UID)
		to->uid = a->uid;
	if (mask & SOP_ATTR_GID)
		to->gid = a->gid;
	if (mask & SOP_ATTR_ATIME)
		to->atime = a->atime;
	if (mask & SOP_ATTR_MTIME)
		to->mtime = a->mtime;
	if (mask & SOP_ATTR_CTIME)
		to->ctime = a->ctime;
}

struct setattr_call {
	struct sop_name name;
	struct sop_attr a;
	unsigned mask;
	void *acl; /* to go with the mode */
	size_t acl_len;
};

static int setattr_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct setattr_call *c = arg;
	int rc = sop_setattr(t, c->name, &c->a, c->mask | SOP_ATTR_SAME_INO, e);

	if (!rc && c->acl)
		rc = sop_xattr_set(t, c->name, SOPFS_ACL_ACCESS, c->acl, c->acl_len, 0, e);
	return rc;
}

struct times_call {
	const struct sop_attr *a;
	unsigned mask;
	const struct sopfs_session *mine; /* who asks has it open; or NULL */
	bool later; /* its commit sets them, and nobody else needs to see them before */
};

/* Times set by hand stay with who is writing: his commit would otherwise set its own. s.lock held.
 */
static int session_set_times(struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e)
{
	struct times_call *c = arg;

	(void)f;
	(void)e;
	if (!s->value || !sopfs_session_pending(s))
		return 0;
	attr_merge(&s->set, c->a, c->mask);
	s->set_mask |= c->mask;
	sop_value_setattr(s->value, c->a, c->mask);
	c->later = c->later || (s == c->mine && !s->closed);
	return 0;
}

/* item.lock held. */
static int setattr_locked(struct sopfs *f, int tid, struct sopfs_view *v, const struct sop_attr *a,
	unsigned mask, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	struct sopfs_session *s; /* cannot end while item.lock is held */
	struct setattr_call call = {.a = *a, .mask = mask};
	struct times_call times = {.a = a, .mask = mask & (SOP_ATTR_ATIME | SOP_ATTR_MTIME)};
	struct sop_txn *t = NULL;
	struct sopfs_where w;
	bool there, own, lost; /* lost: to another mounter, and its name with it */
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	s = item->provisional ? item->provisional : v->session;
	there = item->type == S_IFDIR || sopfs_item_where(item, &w);
	if (item->type == S_IFDIR && item->nameless)
		there = false;
	/* It is in one session's transaction alone: not committed, or a file that has no name yet.
	 */
	own = item->provisional;
	if (!there && s && s->hidden) {
		w = *s->hidden;
		there = own = true;
	}
	lost = !there && !item->last;
	pthread_mutex_unlock(&f->lock);
	if (lost)
		return -ESTALE;
	call.a.ino = item->ino;
	if (times.mask) {
		/* A path that was walked before leads here too: as in sopfs_getattr. */
		if (s && !is_stranger(s, item->ino, tid))
			times.mine = s;
		rc = sopfs_each_session(f, item, session_set_times, &times, e);
		if (rc)
			return rc;
	}
	if (there && !own && times.later)
		call.mask &= ~times.mask;
	if (s)
		pthread_mutex_lock(&s->lock);
	if (own && !s->txn)
		there = false; /* rolled back */
	if (there) {
		call.name = item->type == S_IFDIR ? SOP_SELF(item->ino) : sopfs_where_name(&w);
		t = own ? s->txn : f->latest;
		if (mask & SOP_ATTR_MODE && (!own || s->has_xattr))
			rc = sopfs_acl_after_chmod(
				t, call.name, a->mode, &call.acl, &call.acl_len, e);
	}
	if (!rc && own && there)
		rc = setattr_txn(t, &call, e);
	if (s)
		pthread_mutex_unlock(&s->lock);
	if (!rc && there && !own)
		rc = sopfs_txn(f, setattr_txn, &call, e);
	rc = sopfs_name_lost(f, rc);
	free(call.acl);
	if (sopfs_stands(rc)) {
		pthread_mutex_lock(&f->lock);
		if (item->last)
			attr_merge(item->last, a, mask);
		pthread_mutex_unlock(&f->lock);
	}
	return rc;
}

int sopfs_setattr(struct sopfs *f, int tid, struct sopfs_view *v, const struct sop_attr *a,
	unsigned mask, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	int rc;

	pthread_mutex_lock(&item->lock);
	rc = setattr_locked(f, tid, v, a, mask, e);
	pthread_mutex_unlock(&item->lock);
	if (sopfs_stands(rc)) {
		pthread_mutex_lock(&f->lock);
		sopfs_note_attrs(f, notes, item, rc ? NULL : v);
		pthread_mutex_unlock(&f->lock);
	}
	return rc;
}

void sopfs_superseded(struct sopfs *f, struct sopfs_item *item, struct sopfs_view *mine,
	uint64_t version, struct sopfs_notes *notes)
{
	struct sopfs_view *old;

	pthread_mutex_lock(&f->lock);
	item->version = version;
	old = item->current;
	/* By what is on its way to be told others show the version before. */
	if (item->untold) {
		sopfs_note_names(f, notes, item);
		for (struct sopfs_view *v = item->views; v; v = v->next)
			if (v != mine && v->nlookup && v->untold)
				sopfs_note_attr(f, notes, v);
	}
	/* A version that nobody knows is no nodeid's: the next look-up makes one for what it finds.
	 */
	if (old && old != mine && (!old->direct || !version)) {
		sopfs_note_untold(f, notes, old);
		old->kind = SOPFS_VIEW_OLD;
		item->current = NULL;
		if (old->nlookup) {
			sopfs_note_names(f, notes, item);
			sopfs_note_attr(f, notes, old);
		}
		sopfs_view_reap(f, old);
	}
	for (struct sopfs_view *v = item->views; v; v = v->next) {
		/* A session that is idle goes on from here, with nothing of what it had before. */
		bool idle = v->session && atomic_load(&v->session->idle);

		if (v == mine && is_live(v))
			v->version = version;
		if (v == mine || (!idle && !is_live(v)))
			continue;
		v->version = idle ? 0 : version;
		sopfs_note_data(f, notes, v);
	}
	pthread_mutex_unlock(&f->lock);
}

/* ---- truncate ---- */

/* May the thread change what this nodeid shows? sopfs.lock held. 0, -ESTALE with a reservation
 * made. */
static int claim(struct sopfs *f, int tid, struct sopfs_view *v)
{
	struct sopfs_item *item = v->item;

	if (mark_take(f, tid, v))
		return 0;
	if (v->kind == SOPFS_VIEW_COMMITTED && !v->readers && !v->marks && !v->direct)
		return 0;
	return mark_add(f, tid, item);
}

/* item.lock held: may the nodeid show the version that a truncation has made? Not if it shows
 * another than was truncated, to those who read by it, or in pages that the kernel has kept. */
static bool shows_newest(struct sopfs *f, const struct sopfs_view *v, unsigned pins)
{
	bool newest;

	pthread_mutex_lock(&f->lock);
	newest = v->readers == pins && !v->session &&
		 (v == v->item->current || !sopfs_view_paged(v));
	pthread_mutex_unlock(&f->lock);
	return newest;
}

static int set_size_by_path(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	uint64_t size, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	uint64_t version = 0;
	unsigned pins = 0;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	v->handles++;
	if (!item->nameless && !(v == item->current && v->direct)) {
		rc = claim(f, who->tid, v);
		pins = !rc;
	}
	v->readers += pins; /* nobody steals it meanwhile */
	pthread_mutex_unlock(&f->lock);
	if (!rc) {
		bool mine;

		pthread_mutex_lock(&item->lock);
		rc = sopfs_materialise(f, item, e);
		if (!rc)
			rc = sopfs_truncate_now(f, item, size, &version, e);
		mine = shows_newest(f, v, pins);
		if (!rc)
			sopfs_superseded(f, item, mine ? v : NULL, version, notes);
		if (!rc && mine) {
			pthread_mutex_lock(&f->lock);
			v->version = version;
			v->unsized = false; /* the answer tells it, and this one is taken */
			if (!item->current) {
				sopfs_view_becomes_current(item, v);
			} else if (item->current != v) {
				v->kind = SOPFS_VIEW_OLD;
			}
			pthread_mutex_unlock(&f->lock);
		}
		pthread_mutex_unlock(&item->lock);
	}
	pthread_mutex_lock(&f->lock);
	v->readers -= pins;
	v->handles--;
	sopfs_view_reap(f, v);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int sopfs_set_size(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	struct sopfs_handle *handle, uint64_t size, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_session *s;
	bool ended = false;
	int rc = 0;

	if (v->item->type != S_IFREG)
		return -EINVAL;
	if (handle && (handle->session || handle->direct))
		return sopfs_session_truncate(f, handle, size, notes, e);
	pthread_mutex_lock(&f->lock);
	s = v->session;
	if (s)
		s->refs++;
	pthread_mutex_unlock(&f->lock);
	if (s) {
		/* A path that was walked before leads here too, and is not for the session. But an
		 * overlayfs, which walks none again, sets the size of what it has made so. */
		if (is_stranger(s, v->item->ino, who->tid))
			rc = turn_away(f, v, who->tid);
		/* truncate() of /proc/self/fd/N, where N is a session's. */
		if (!rc) {
			rc = sopfs_session_resize(f, v, s, size, notes, e);
			/* It has ended meanwhile, and takes no change any more. */
			ended = rc == -ESTALE;
		}
		sopfs_session_put(f, s);
		if (!ended)
			return rc;
	}
	return set_size_by_path(f, who, v, size, notes, e);
}

/* ---- open ---- */

bool sopfs_dir_direct(struct sopfs *f, struct sopfs_item *dir)
{
	struct sop_store_opts o = {0};
	struct sopfs_item *up = NULL;
	unsigned epoch;
	uint8_t mode;

	if (f->o.session_write)
		return true;
	epoch = atomic_load(&f->session_epoch);
	pthread_mutex_lock(&f->lock);
	/* Of a shared volume another mounter may have changed it. */
	mode = dir->session_epoch == epoch && !f->shared ? dir->session_mode : 0;
	if (!mode && dir->names)
		up = sopfs_item_find(f, dir->names->store);
	if (up)
		sopfs_item_ref(up);
	pthread_mutex_unlock(&f->lock);
	if (!mode) {
		sop_autofree char *buf = malloc(SOP_STORE_INFO_BYTES);

		/* What cannot be read is as if nothing was set: the default is the safer of the
		 * two. */
		if (buf && sop_store_info(
				   f->latest, dir->ino, &o, buf, SOP_STORE_INFO_BYTES, NULL) == 0)
			mode = o.session;
		if (!mode)
			mode = up && sopfs_dir_direct(f, up) ? 2 : 1;
		pthread_mutex_lock(&f->lock);
		dir->session_mode = mode;
		dir->session_epoch = epoch;
		pthread_mutex_unlock(&f->lock);
	}
	sopfs_item_put(f, up);
	return mode == 2;
}

static bool is_direct(struct sopfs *f, const struct sopfs_where *w)
{
	struct sopfs_item *dir;
	bool direct;

	if (f->o.session_write)
		return true;
	pthread_mutex_lock(&f->lock);
	dir = sopfs_item_find(f, w->store);
	if (dir)
		sopfs_item_ref(dir);
	pthread_mutex_unlock(&f->lock);
	direct = dir && sopfs_dir_direct(f, dir);
	sopfs_item_put(f, dir);
	return direct || sopfs_is_companion(f, w->store, w->text, w->len) ||
	       sopfs_has_companion(f, w->store, w->text, w->len);
}

struct sopfs_handle *sopfs_handle_new(struct sopfs *f, struct sopfs_view *v, int flags)
{
	struct sopfs_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->view = v;
	h->flags = flags;
	pthread_mutex_init(&h->direct_lock, NULL);
	pthread_mutex_lock(&f->lock);
	h->all_next = f->handles;
	if (f->handles)
		f->handles->all_prev = h;
	f->handles = h;
	pthread_mutex_unlock(&f->lock);
	return h;
}

void sopfs_handle_free(struct sopfs *f, struct sopfs_handle *h)
{
	pthread_mutex_lock(&f->lock);
	if (h->all_prev)
		h->all_prev->all_next = h->all_next;
	else
		f->handles = h->all_next;
	if (h->all_next)
		h->all_next->all_prev = h->all_prev;
	pthread_mutex_unlock(&f->lock);
	pthread_mutex_destroy(&h->direct_lock);
	sopfs_stream_close(h->stream);
	free(h->text);
	free(h);
}

/* sopfs.lock held: the handle is one of the view's readers. */
static void reader_add(struct sopfs_handle *h, struct sopfs_snap *snap)
{
	h->snap = snap;
	snap->refs++;
	h->next = h->view->first;
	h->view->first = h;
}

/* The newest version, in a snapshot of its own. -EAGAIN: the name has moved meanwhile. */
int sopfs_snap_new(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_snap **out, struct sop_err *e)
{
	struct sopfs_snap *snap = calloc(1, sizeof(*snap));
	struct sopfs_where w;
	bool there, empty;
	int rc = 0;

	if (!snap)
		return -ENOMEM;
	pthread_mutex_init(&snap->lock, NULL);
	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	empty = item->provisional != NULL;
	if (empty) {
		snap->attr = *item->last;
		snap->attr.value_version = SOPFS_VERSION_EMPTY;
	}
	pthread_mutex_unlock(&f->lock);
	if (!there)
		rc = -ESTALE;
	else if (!empty)
		rc = sop_value_open(&snap->value, f->latest, sopfs_where_name(&w), 0, e);
	if (!rc && !empty) {
		sop_value_attr(snap->value, &snap->attr);
		if (snap->attr.ino != item->ino) {
			sop_value_close(snap->value);
			rc = -ENOENT;
		}
	}
	if (rc) {
		pthread_mutex_destroy(&snap->lock);
		free(snap);
		return rc == -ENOENT ? -EAGAIN : rc;
	}
	*out = snap;
	return 0;
}

void sopfs_snap_free(struct sopfs_snap *snap)
{
	if (snap->value)
		sop_value_close(snap->value);
	pthread_mutex_destroy(&snap->lock);
	free(snap);
}

/* sopfs.lock held: one handle more of a session that is there. */
static void session_share(struct sopfs_session *s, struct sopfs_handle *h)
{
	h->session = s;
	s->handles++;
	s->refs++;
	if (atomic_load(&s->live))
		s->item->direct++;
}

/* A nodeid that is not the committed one's is opened for reading a second time: it has no name (a
 * descriptor's entry in /proc), or moves too fast. sopfs.lock held; true: done. */
static bool open_shared(struct sopfs_view *v, struct sopfs_handle *h)
{
	if (v->session && v->session->handles) {
		session_share(v->session, h);
		return true;
	}
	if (!v->first)
		return false;
	reader_add(h, v->first->snap);
	v->readers++;
	return true;
}

/* mkstemp makes files that are opened again by name, by their own process (git, for the packs that
 * it receives) or by a child that it hands the name to. To these a file made with O_EXCL and O_RDWR
 * shows what has been written: that is committed when they open it for reading. */
static void commit_temporary(
	struct sopfs *f, int tid, struct sopfs_item *item, struct sopfs_notes *notes)
{
	struct sopfs_session *s = NULL;
	int process;
	bool any = false;

	pthread_mutex_lock(&f->lock);
	for (s = item->sessions; s && !any; s = s->next)
		any = s->temporary;
	pthread_mutex_unlock(&f->lock);
	if (!any)
		return;
	s = NULL;
	process = sopfs_closer_process(tid);
	pthread_mutex_lock(&item->lock);
	for (unsigned i = 0; i < ANCESTORS && process > 1 && !s; i++) {
		s = sopfs_session_of_process(f, item, process);
		process = sopfs_closer_parent(process);
	}
	if (s) {
		/* Its error is told to who writes: at its close. */
		if (s->temporary && s->changed)
			(void)sopfs_session_commit(f, s, notes, NULL);
		pthread_mutex_unlock(&s->lock);
		sopfs_session_put(f, s);
	}
	pthread_mutex_unlock(&item->lock);
}

static int open_read(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_handle *h,
	bool *keep_cache, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	struct sopfs_snap *snap = NULL;
	bool current, again, strange;
	int rc;

	commit_temporary(f, tid, item, notes);
	pthread_mutex_lock(&f->lock);
	strange = v->session && mark_find(f, tid, item);
	pthread_mutex_unlock(&f->lock);
	if (strange && sopfs_closer_descriptors(sopfs_closer_process(tid), item->ino, -1) == 0)
		return -ESTALE;
	for (unsigned i = 0; i < SOPFS_TRIES; i++) {
		pthread_mutex_lock(&f->lock);
		current = v == item->current && !v->direct;
		again = false;
		if (!current || item->nameless) {
			again = mark_take(f, tid, v) || item->nameless;
			if (again && open_shared(v, h)) {
				pthread_mutex_unlock(&f->lock);
				return 0;
			}
			if (!again) {
				rc = mark_add(f, tid, item);
				pthread_mutex_unlock(&f->lock);
				return rc;
			}
		}
		v->readers++; /* nobody steals it meanwhile */
		pthread_mutex_unlock(&f->lock);
		rc = sopfs_snap_new(f, item, &snap, e);
		pthread_mutex_lock(&f->lock);
		if (!rc && v == item->current && !v->direct &&
			snap->attr.value_version == v->version) {
			if (atomic_load(&f->mark_count))
				(void)mark_take(f, tid, v);
			reader_add(h, snap);
			pthread_mutex_unlock(&f->lock);
			return 0;
		}
		if (!rc && again) {
			/* Its pages and size are of some other version: the kernel drops them. */
			sopfs_view_shows(v, snap->attr.value_version);
			sopfs_note_attr(f, notes, v);
			*keep_cache = false;
			reader_add(h, snap);
			pthread_mutex_unlock(&f->lock);
			return 0;
		}
		v->readers--;
		pthread_mutex_unlock(&f->lock);
		if (!rc)
			sopfs_snap_free(snap);
		else if (rc != -EAGAIN)
			return rc;
		sopfs_come_to_rest(f, item, notes);
	}
	return sop_say(e, -EIO, "inode %llu: its version does not come to rest",
		(unsigned long long)item->ino);
}

/* The view is the new session's. sopfs.lock held. */
static void session_attach(struct sopfs_item *item, struct sopfs_view *v, struct sopfs_session *s,
	struct sopfs_handle *h)
{
	if (item->current == v)
		item->current = NULL;
	v->kind = SOPFS_VIEW_SESSION;
	v->session = s;
	s->view = v;
	s->handles = 1;
	s->next = item->sessions;
	item->sessions = s;
	h->session = s;
}

/* sopfs.lock held. 0: h is set up, with a new session (*fresh, *stolen: of a nodeid that others may
 * have a name for) or with one that is there. */
static int claim_for_session(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_session *s, bool *fresh, bool *stolen, struct sopfs_notes *notes)
{
	struct sopfs_item *item = v->item;
	int rc;

	*fresh = *stolen = false;
	if (v->session) {
		/* Of somebody else, by a name that has moved on; or of its own, by way of /proc. */
		if (!v->session->handles || !mark_take(f, tid, v))
			return mark_add(f, tid, item);
		session_share(v->session, h);
		return 0;
	}
	rc = item->nameless ? 0 : claim(f, tid, v);
	/* Without a name it can be no other nodeid, and this one shows its version to who reads. */
	if (!rc && v->readers)
		rc = -ESTALE;
	if (rc)
		return rc;
	*fresh = true;
	*stolen = item->current == v;
	if (*stolen)
		sopfs_note_untold(f, notes, v);
	session_attach(item, v, s, h);
	return 0;
}

static int open_write(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	int flags, struct sopfs_handle *h, bool *keep_cache, struct sopfs_notes *notes,
	struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	struct sopfs_session *s;
	bool fresh, stolen, others, trunc = (flags & O_TRUNC) != 0;
	uint64_t shown;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	others = item->provisional && !v->session;
	pthread_mutex_unlock(&f->lock);
	if (others) {
		pthread_mutex_lock(&item->lock);
		rc = sopfs_materialise(f, item, e);
		pthread_mutex_unlock(&item->lock);
		if (rc)
			return rc;
	}
	s = sopfs_session_new(f, item, sopfs_closer_process(who->tid), flags);
	if (!s)
		return -ENOMEM;
	pthread_mutex_lock(&s->lock);
	pthread_mutex_lock(&f->lock);
	rc = claim_for_session(f, who->tid, v, h, s, &fresh, &stolen, notes);
	shown = v->version;
	pthread_mutex_unlock(&f->lock);
	if (rc || !fresh) {
		s->item = NULL;
		pthread_mutex_unlock(&s->lock);
		sopfs_session_put(f, s);
		if (rc || !trunc)
			return rc;
		rc = sopfs_session_truncate(f, h, 0, notes, e);
		if (rc)
			sopfs_handle_leave(f, h, notes);
		return rc;
	}
	atomic_fetch_add(&f->sessions_open, 1);
	rc = sopfs_session_begin(f, s, trunc, NULL, e);
	if (!rc && trunc)
		rc = sopfs_kill_suid(f, who, s, e);
	pthread_mutex_unlock(&s->lock);
	if (rc) {
		/* Others may be at it already, by the nodeid. */
		sopfs_handle_leave(f, h, notes);
		if (rc == -EAGAIN || rc == -ENOENT)
			rc = -ESTALE;
		return rc;
	}
	pthread_mutex_lock(&f->lock);
	/* The pages of a stolen nodeid stay if they are those of the version the session begins on.
	 */
	*keep_cache = shown == s->base;
	if (stolen) {
		name_taken(f, item, notes);
		sopfs_note_attr(f, notes, v);
	}
	pthread_mutex_unlock(&f->lock);
	/* What it reads must be seen here, or a conflict would not be. */
	if (s->reads)
		*keep_cache = false;
	return 0;
}

/* All handles with session=write use the committed nodeid. When snapshots are read by it, another
 * takes its place, and the kernel looks that up. sopfs.lock held. */
static int claim_direct(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_handle *h,
	struct sopfs_notes *notes)
{
	struct sopfs_item *item = v->item;
	bool again = mark_take(f, tid, v);
	int rc;

	if (again && v != item->current && open_shared(v, h))
		return 0;
	if (again || item->nameless || (v == item->current && !v->readers)) {
		/* What it has shown may be of any version. */
		if (v != item->current && !is_live(v))
			sopfs_note_data(f, notes, v);
		h->direct = true;
		v->direct++;
		item->direct++;
		return 0;
	}
	if (v == item->current) {
		sopfs_note_untold(f, notes, v);
		v->kind = SOPFS_VIEW_OLD;
		item->current = NULL;
		sopfs_note_names(f, notes, item);
		sopfs_note_attr(f, notes, v);
	}
	rc = mark_add(f, tid, item);
	if (rc == -ESTALE)
		f->marks->direct = true;
	return rc;
}

static int open_direct(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	int flags, struct sopfs_handle *h, struct sopfs_notes *notes, struct sop_err *e)
{
	const struct sopfs_op op = {.change = SOPFS_SIZE, .kill_suid = who->uid != 0};
	struct sopfs_item *item = v->item;
	uint64_t version = 0;
	int rc;

	pthread_mutex_lock(&item->lock);
	rc = sopfs_materialise(f, item, e);
	if (!rc) {
		pthread_mutex_lock(&f->lock);
		rc = claim_direct(f, who->tid, v, h, notes);
		pthread_mutex_unlock(&f->lock);
	}
	if (!rc && h->direct && (flags & O_TRUNC)) {
		rc = (int)sopfs_change_now(f, item, false, &op, &version, e);
		if (!rc && version)
			sopfs_superseded(f, item, v, version, notes);
		if (rc) {
			sopfs_direct_release(f, h);
		} else if (op.kill_suid) {
			pthread_mutex_lock(&f->lock);
			sopfs_note_attrs(f, notes, item, NULL);
			pthread_mutex_unlock(&f->lock);
		}
	}
	pthread_mutex_unlock(&item->lock);
	return rc;
}

/* By a name or without one: does it see every write at once? */
static int open_regular(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v,
	int flags, struct sopfs_handle *h, struct sopfs_opened *out, struct sopfs_notes *notes,
	struct sop_err *e)
{
	struct sopfs_where w;
	bool there, direct, own;
	int rc;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(v->item, &w) && !w.self;
	direct = !there && v->direct;
	/* What was made without a name is its session's until it is closed. */
	own = v->session != NULL;
	pthread_mutex_unlock(&f->lock);
	if (direct || (there && !own && is_direct(f, &w))) {
		rc = open_direct(f, who, v, flags, h, notes, e);
		/* Of what another mounter has changed the pages may not be dropped yet. */
		out->keep_cache = !f->shared;
		if (!rc && there && sopfs_is_companion(f, w.store, w.text, w.len))
			sopfs_companion_opened(f, h, w.store, w.text, w.len, notes);
		return rc;
	}
	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
		return open_write(f, who, v, flags, h, &out->keep_cache, notes, e);
	return open_read(f, who->tid, v, h, &out->keep_cache, notes, e);
}

int sopfs_open(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v, int flags,
	struct sopfs_opened *out, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_handle *h;
	bool write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	int rc;

	if (v->item->type != S_IFREG)
		return -EISDIR;
	if (sopfs_is_ctl(v))
		return write ? -EACCES : sopfs_ctl_open(f, who, v, flags, out, e);
	if (write && f->o.read_only)
		return -EROFS;
	h = sopfs_handle_new(f, v, flags);
	if (!h)
		return -ENOMEM;
	pthread_mutex_lock(&f->lock);
	v->handles++;
	pthread_mutex_unlock(&f->lock);
	out->keep_cache = true;
	rc = open_regular(f, who, v, flags, h, out, notes, e);
	if (rc) {
		pthread_mutex_lock(&f->lock);
		v->handles--;
		sopfs_view_reap(f, v);
		pthread_mutex_unlock(&f->lock);
		sopfs_handle_free(f, h);
		return rc;
	}
	out->handle = h;
	return 0;
}

/* ---- create ---- */

/* Item, name and view of a file that was made in the transaction of s (NULL: committed already). */
static int create_item(struct sopfs *f, struct sopfs_item *dir, const char *name,
	const struct sop_attr *a, struct sopfs_session *s, struct sopfs_handle *h, bool hidden,
	struct sopfs_entry *entry)
{
	struct sopfs_item *item = sopfs_item_obtain(f, a->ino, S_IFREG);
	struct sopfs_view *v;

	if (!item)
		return -ENOMEM;
	v = sopfs_view_add(f, item, s ? SOPFS_VIEW_SESSION : SOPFS_VIEW_COMMITTED);
	if (!v)
		return -ENOMEM;
	if (!hidden && sopfs_name_add(item, dir->ino, name, strlen(name)))
		goto no_memory;
	if (s) {
		item->last = malloc(sizeof(*item->last));
		if (!item->last)
			goto no_memory;
		*item->last = *a;
		item->nameless = hidden;
		if (hidden)
			item->last->nlink = 0;
		s->item = item;
		session_attach(item, v, s, h);
		if (!hidden) {
			item->provisional = s;
			sopfs_overlay_add(f, item);
		}
	} else {
		item->version = v->version = a->value_version;
		sopfs_view_becomes_current(item, v);
		item->direct++;
		v->direct++;
	}
	v->nlookup = 1;
	v->handles = 1;
	h->view = v;
	entry->view = v;
	entry->attr = item->last ? *item->last : *a;
	entry->cache = !s;
	name_given(f, item, entry);
	return 0;
no_memory:
	sopfs_view_reap(f, v);
	return -ENOMEM;
}

struct create_call {
	struct sop_name name;
	const struct sop_attr *init;
	const struct sopfs_inherit *lists;
	struct sop_attr made;
};

static int create_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct create_call *c = arg;

	int rc = sop_create(t, c->name, c->init, NULL, 0, &c->made, e);

	return rc ? rc : sopfs_inherit_apply(t, c->name, c->lists, e);
}

static int create_direct(struct sopfs *f, struct sopfs_item *dir, const char *name,
	struct sop_attr *init, const struct sopfs_inherit *lists, struct sopfs_handle *h,
	struct sopfs_entry *entry, struct sop_err *e)
{
	struct create_call call = {.name = SOP_NAME(dir->ino, name), .init = init, .lists = lists};
	struct sopfs_notes notes = {0};
	int rc = sopfs_txn(f, create_txn, &call, e);

	if (rc == SOP_EUNSYNCED)
		sopfs_note_unsynced(f, &notes, dir, name, NULL);
	sopfs_notify_later(f, &notes);
	/* The version is the commit's, so the item has to be looked at again. */
	if (!rc)
		rc = sop_lookup(f->latest, call.name, &call.made, e);
	if (rc)
		return rc;
	h->direct = true;
	pthread_mutex_lock(&f->lock);
	rc = create_item(f, dir, name, &call.made, NULL, h, false, entry);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static int create_session(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, int flags, struct sop_attr *init, const struct sopfs_inherit *lists,
	struct sopfs_handle *h, struct sopfs_entry *entry, struct sop_err *e)
{
	struct sopfs_session *s = sopfs_session_new(f, NULL, sopfs_closer_process(who->tid), flags);
	bool hidden = strcmp(name, "/") == 0; /* O_TMPFILE, as the kernel names it */
	struct sop_attr made;
	char temporary[64];
	int rc;

	if (!s)
		return -ENOMEM;
	init->ino = sop_ino_new(f->v);
	if (hidden) {
		snprintf(temporary, sizeof(temporary), ".sop-unnamed-%llu",
			(unsigned long long)init->ino);
		name = temporary;
		s->hidden = calloc(1, sizeof(*s->hidden));
		if (!s->hidden) {
			sopfs_session_put(f, s);
			return -ENOMEM;
		}
		s->hidden->store = dir->ino;
		s->hidden->len = strlen(name);
		memcpy(s->hidden->text, name, s->hidden->len + 1);
	}
	rc = sop_txn_begin(&s->txn, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, e);
	if (!rc)
		rc = sop_create(s->txn, SOP_NAME(dir->ino, name), init, NULL, 0, &made, e);
	if (rc == -EINVAL && hidden)
		rc = -EOPNOTSUPP; /* no key of the store: programs then make one with a name */
	if (!rc && lists->access) {
		rc = sopfs_inherit_apply(s->txn, SOP_NAME(dir->ino, name), lists, e);
		s->has_xattr = true;
	}
	if (!rc)
		rc = sop_value_open(&s->value, s->txn, SOP_NAME(dir->ino, name),
			SOP_VALUE_WRITE | (s->append ? SOP_VALUE_APPEND : 0), e);
	s->creating = s->blind_all = true;
	s->temporary = (flags & O_EXCL) && (flags & O_ACCMODE) == O_RDWR;
	if (!rc) {
		pthread_mutex_lock(&f->lock);
		rc = sopfs_overlay_find(f, dir->ino, name, strlen(name)) ? -EEXIST : 0;
		if (!rc)
			rc = create_item(f, dir, name, &made, s, h, hidden, entry);
		pthread_mutex_unlock(&f->lock);
	}
	if (rc) {
		s->item = NULL;
		sopfs_session_put(f, s);
		return rc;
	}
	atomic_fetch_add(&f->sessions_open, 1);
	return 0;
}

/* Who asks for a name that nobody else has must be told so now, and of the other mounters only a
 * commit can tell. */
static int claim_name(
	struct sopfs *f, struct sopfs_item *item, struct sopfs_handle *h, struct sop_err *e)
{
	struct sopfs_notes notes = {0};
	int rc;

	pthread_mutex_lock(&item->lock);
	rc = sopfs_materialise(f, item, e);
	if (rc && h->session) {
		pthread_mutex_lock(&h->session->lock);
		sopfs_session_failed(f, h->session, rc, e, &notes);
		pthread_mutex_unlock(&h->session->lock);
	}
	pthread_mutex_unlock(&item->lock);
	sopfs_notify_later(f, &notes);
	return rc == SOP_ECONFLICT ? -EEXIST : rc;
}

int sopfs_create(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, int flags, struct sopfs_entry *entry,
	struct sopfs_opened *out, struct sop_err *e)
{
	struct sopfs_notes notes = {0};
	struct sopfs_inherit lists;
	struct sopfs_handle *h;
	struct sop_attr init;
	bool companion;
	int rc;

	if (strlen(name) > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (f->o.read_only)
		return -EROFS;
	if (f->world && strcmp(name, "/") == 0)
		return -EOPNOTSUPP; /* O_TMPFILE: programs then make one with a name */
	rc = sopfs_new_attr(f, who, dir, S_IFREG | (mode & 07777), &init, &lists, e);
	h = rc ? NULL : sopfs_handle_new(f, NULL, flags);
	if (!h) {
		sopfs_inherit_release(&lists);
		return rc ? rc : -ENOMEM;
	}
	companion = sopfs_is_companion(f, dir->ino, name, strlen(name));
	if (companion || (strcmp(name, "/") && sopfs_dir_direct(f, dir)))
		rc = create_direct(f, dir, name, &init, &lists, h, entry, e);
	else
		rc = create_session(f, who, dir, name, flags, &init, &lists, h, entry, e);
	sopfs_inherit_release(&lists);
	if (rc) {
		sopfs_handle_free(f, h);
		/* The kernel's knowledge that it is not there was out of date: it looks again. */
		return rc == -EEXIST && !(flags & O_EXCL) ? -ESTALE : rc;
	}
	if (companion) {
		sopfs_companion_opened(f, h, dir->ino, name, strlen(name), &notes);
		sopfs_notify_later(f, &notes);
	}
	if (f->shared && flags & O_EXCL) {
		rc = claim_name(f, entry->view->item, h, e);
		if (rc) {
			sopfs_release(f, h, &notes);
			sopfs_notify_later(f, &notes);
			sopfs_forget(f, entry->view, 1);
			return rc;
		}
	}
	out->handle = h;
	out->keep_cache = true;
	return 0;
}
