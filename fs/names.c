#include "fs/names.h"

#include <linux/fs.h>
#include <sched.h>

#include "fs/attic.h"
#include "fs/posix.h"
#include "fs/worlds.h"

int sopfs_txn(struct sopfs *f, sopfs_txn_fn fn, void *arg, struct sop_err *e)
{
	int rc = SOP_ECONFLICT;

	if (f->world)
		return sopfs_world_change(f, fn, arg, e);
	for (unsigned i = 0; rc == SOP_ECONFLICT && i < SOPFS_TRIES; i++) {
		struct sop_txn *t;

		if (i > 3)
			sched_yield();
		rc = sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, e);
		if (rc)
			return rc;
		rc = fn(t, arg, e);
		if (rc < 0)
			sop_txn_rollback(t);
		else
			rc = sop_txn_commit(t, sopfs_commit_flags(f), e);
	}
	return rc;
}

void sopfs_note_unsynced(struct sopfs *f, struct sopfs_notes *n, struct sopfs_item *dir,
	const char *name, const struct sopfs_item *item)
{
	pthread_mutex_lock(&f->lock);
	sopfs_note_name(f, n, dir->ino, name, strlen(name));
	sopfs_note_attrs(f, n, dir, NULL);
	for (struct sopfs_view *v = dir->views; v; v = v->next)
		sopfs_note_data(f, n, v); /* its list */
	if (item)
		sopfs_note_attrs(f, n, item, NULL);
	pthread_mutex_unlock(&f->lock);
}

/* ---- what a name stands for ---- */

struct found {
	struct sopfs_item *item; /* referenced; NULL when nobody knows it but the tree */
	struct sop_attr attr;	 /* committed ones */
	bool there, provisional;
};

static void found_put(struct sopfs *f, struct found *w)
{
	sopfs_item_put(f, w->item);
	w->item = NULL;
}

static int find(struct sopfs *f, struct sopfs_item *dir, const char *name, struct found *w,
	struct sop_err *e)
{
	size_t len = strlen(name);
	int rc;

	memset(w, 0, sizeof(*w));
	if (len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	pthread_mutex_lock(&f->lock);
	w->item = sopfs_overlay_find(f, dir->ino, name, len);
	if (w->item) {
		sopfs_item_ref(w->item);
		w->attr = *w->item->last;
		w->there = w->provisional = true;
	}
	pthread_mutex_unlock(&f->lock);
	if (w->item)
		return 0;
	rc = sop_lookup(f->latest, (struct sop_name){dir->ino, name, len}, &w->attr, e);
	if (rc)
		return rc;
	w->there = true;
	pthread_mutex_lock(&f->lock);
	w->item = sopfs_item_find(f, w->attr.ino);
	if (w->item)
		sopfs_item_ref(w->item);
	pthread_mutex_unlock(&f->lock);
	return 0;
}

/* Between the look and the lock its session may have committed it, or gone. item.lock held. */
static bool still_so(struct sopfs *f, const struct found *w)
{
	bool so;

	if (!w->item)
		return true;
	pthread_mutex_lock(&f->lock);
	so = (w->item->provisional != NULL) == w->provisional;
	pthread_mutex_unlock(&f->lock);
	return so;
}

static void lock_two(struct sopfs_item *a, struct sopfs_item *b)
{
	if (a && b && a > b) {
		struct sopfs_item *c = a;

		a = b;
		b = c;
	}
	if (a)
		pthread_mutex_lock(&a->lock);
	if (b && b != a)
		pthread_mutex_lock(&b->lock);
}

static void unlock_two(struct sopfs_item *a, struct sopfs_item *b)
{
	if (a)
		pthread_mutex_unlock(&a->lock);
	if (b && b != a)
		pthread_mutex_unlock(&b->lock);
}

/* ---- sessions of an item whose name changes; item.lock held ---- */

int sopfs_each_session(
	struct sopfs *f, struct sopfs_item *item, sopfs_session_fn fn, void *arg, struct sop_err *e)
{
	sop_autofree struct sopfs_session **list = NULL;
	size_t n = 0, i = 0;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	for (struct sopfs_session *s = item->sessions; s; s = s->next)
		n++;
	if (item->orphan)
		n++;
	list = n ? malloc(n * sizeof(struct sopfs_session *)) : NULL;
	if (list) {
		for (struct sopfs_session *s = item->sessions; s; s = s->next)
			list[i++] = s;
		if (item->orphan)
			list[i] = item->orphan;
		for (i = 0; i < n; i++)
			list[i]->refs++;
	}
	pthread_mutex_unlock(&f->lock);
	if (n && !list)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		pthread_mutex_lock(&list[i]->lock);
		if (!rc)
			rc = fn(f, list[i], arg, e);
		pthread_mutex_unlock(&list[i]->lock);
		sopfs_session_put(f, list[i]);
	}
	return rc;
}

int sopfs_session_keep(struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e)
{
	return s->dead || atomic_load(&s->live) ? 0 : sopfs_session_begin(f, s, false, arg, e);
}

/* The last name goes: who has it open for writing must hold its value from now on. */
static int keep_open(struct sopfs *f, struct sopfs_item *item, struct sop_name name,
	struct sopfs_notes *notes, struct sop_err *e)
{
	int rc;

	if (!item)
		return 0;
	rc = sopfs_attic_keep(f, item, f->latest, name, e);
	if (rc || item->type != S_IFREG)
		return rc;
	rc = sopfs_each_session(f, item, sopfs_session_keep, notes, e);
	return rc ? rc : sopfs_direct_orphan(f, item, e);
}

static int move_one(struct sopfs *f, struct sopfs_session *s, void *arg, struct sop_err *e)
{
	const struct sopfs_where *w = arg;

	(void)f;
	/* What has several names lies by its number already. */
	if (!s->value || s->creating || (w && w->self))
		return 0;
	/* A session whose value cannot follow would commit to a name that is not its own. */
	if (sop_value_moved(
		    s->value, w ? sopfs_where_name(w) : (struct sop_name){SOP_ROOT, NULL, 0}))
		return sop_fail(e, -EIO, "inode %llu: session cannot follow its name",
			(unsigned long long)s->item->ino);
	return 0;
}

int sopfs_follow_names(struct sopfs *f, struct sopfs_item *item, struct sop_err *e)
{
	struct sopfs_where w;
	bool there;

	if (item->type != S_IFREG)
		return 0;
	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	pthread_mutex_unlock(&f->lock);
	return sopfs_each_session(f, item, move_one, there ? &w : NULL, e);
}

/* A name is gone from the tree; attr: as it was before. */
static void name_gone(struct sopfs *f, struct sopfs_item *item, const struct sop_attr *attr,
	struct sopfs_item *dir, const char *name)
{
	struct sop_attr *last = malloc(sizeof(*last));

	pthread_mutex_lock(&f->lock);
	sopfs_name_remove(item, dir->ino, name, strlen(name));
	if (S_ISDIR(item->type) || attr->nlink <= 1)
		item->nameless = true;
	if (!item->names && last) {
		*last = *attr;
		last->nlink = item->nameless ? 0 : attr->nlink - 1;
		last->ctime = sopfs_now();
		free(item->last);
		item->last = last;
		last = NULL;
	}
	pthread_mutex_unlock(&f->lock);
	free(last);
}

/* A name that was never committed is removed; its session goes on without. item.lock held. */
static int provisional_gone(struct sopfs *f, struct sopfs_item *item, struct sop_err *e)
{
	struct sopfs_session *s = item->provisional;
	const struct sopfs_alias *a = item->names;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (s->has_xattr && s->txn)
		rc = sopfs_attic_keep(
			f, item, s->txn, (struct sop_name){a->store, a->text, a->len}, e);
	pthread_mutex_unlock(&s->lock);
	if (rc)
		return rc;
	pthread_mutex_lock(&f->lock);
	sopfs_overlay_remove(f, item);
	sopfs_name_remove(item, item->names->store, item->names->text, item->names->len);
	item->provisional = NULL;
	item->nameless = true;
	item->last->nlink = 0;
	pthread_mutex_unlock(&f->lock);
	return 0;
}

/* ---- making ---- */

struct make_call {
	struct sop_name name;
	const struct sop_attr *init;
	const char *target;
	struct sopfs_inherit lists;
};

static int make_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct make_call *c = arg;
	int rc;

	if (S_ISDIR(c->init->mode))
		rc = sop_store_create(t, c->name, c->init, NULL, NULL, e);
	else
		rc = sop_create(
			t, c->name, c->init, c->target, c->target ? strlen(c->target) : 0, NULL, e);
	return rc ? rc : sopfs_inherit_apply(t, c->name, &c->lists, e);
}

static int make(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, dev_t rdev, const char *target, struct sopfs_entry *out,
	struct sop_err *e)
{
	struct make_call call = {.name = SOP_NAME(dir->ino, name), .target = target};
	struct sopfs_notes notes = {0};
	struct sop_attr init;
	bool taken;
	int rc;

	if (call.name.len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	pthread_mutex_lock(&f->lock);
	taken = sopfs_overlay_find(f, dir->ino, name, call.name.len);
	pthread_mutex_unlock(&f->lock);
	if (taken)
		return -EEXIST;
	rc = sopfs_new_attr(f, who, dir, mode, &init, &call.lists, e);
	if (!rc) {
		init.rdev = rdev;
		call.init = &init;
		rc = sopfs_txn(f, make_txn, &call, e);
	}
	sopfs_inherit_release(&call.lists);
	if (rc == SOP_EUNSYNCED)
		sopfs_note_unsynced(f, &notes, dir, name, NULL);
	sopfs_notify_later(f, &notes);
	return rc ? rc : sopfs_lookup(f, who->tid, dir, name, out, e);
}

int sopfs_mknod(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, dev_t rdev, const char *target, struct sopfs_entry *out,
	struct sop_err *e)
{
	return make(f, who, dir, name, mode, rdev, target, out, e);
}

int sopfs_mkdir(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *dir,
	const char *name, mode_t mode, struct sopfs_entry *out, struct sop_err *e)
{
	return make(f, who, dir, name, S_IFDIR | (mode & 07777), 0, NULL, out, e);
}

/* ---- removing ---- */

/* Does the name still stand for what we have found? The kernel keeps others from changing it, but
 * not commits that come by foreign.h (foreign: there have been some). */
static int check_found(struct sop_txn *t, struct sop_name name, const struct found *w, bool foreign,
	struct sop_err *e)
{
	struct sop_attr a;
	int rc;

	if (!foreign || !w->there || w->provisional)
		return 0;
	rc = sop_lookup(t, name, &a, e);
	return rc == -ENOENT || (!rc && a.ino != w->attr.ino) ? -EAGAIN : rc;
}

struct remove_call {
	struct sop_name name;
	const struct found *w;
	bool foreign;
};

static int remove_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct remove_call *c = arg;
	int rc = check_found(t, c->name, c->w, c->foreign, e);

	if (rc)
		return rc;
	return S_ISDIR(c->w->attr.mode) ? sop_store_remove(t, c->name, e)
					: sop_remove(t, c->name, e);
}

static bool any_foreign(struct sopfs *f)
{
	return atomic_load(&f->foreign_epoch) != 0;
}

/* item.lock held, which keeps commits by foreign.h from the item: what is found out here stays so.
 */
static int unlink_found(struct sopfs *f, struct found *w, struct sopfs_item *dir, const char *name,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct remove_call call = {SOP_NAME(dir->ino, name), w, any_foreign(f)};
	int rc, follow;

	if (S_ISDIR(w->attr.mode))
		return -EISDIR;
	if (!still_so(f, w))
		return -EAGAIN;
	if (w->provisional)
		return provisional_gone(f, w->item, e);
	rc = check_found(f->latest, call.name, w, call.foreign, e);
	if (!rc && w->attr.nlink <= 1)
		rc = keep_open(f, w->item, call.name, notes, e);
	if (!rc)
		rc = sopfs_txn(f, remove_txn, &call, e);
	if (rc == SOP_EUNSYNCED)
		sopfs_note_unsynced(f, notes, dir, name, w->item);
	if (!sopfs_stands(rc) || !w->item)
		return rc;
	name_gone(f, w->item, &w->attr, dir, name);
	follow = sopfs_follow_names(f, w->item, rc ? NULL : e);
	return rc ? rc : follow;
}

static int rmdir_found(struct sopfs *f, struct found *w, struct sopfs_item *dir, const char *name,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct remove_call call = {SOP_NAME(dir->ino, name), w, any_foreign(f)};
	bool full;
	int rc;

	pthread_mutex_lock(&f->lock);
	full = sopfs_overlay_has_store(f, w->attr.ino);
	pthread_mutex_unlock(&f->lock);
	if (!S_ISDIR(w->attr.mode))
		return -ENOTDIR;
	if (full)
		return -ENOTEMPTY;
	rc = sopfs_txn(f, remove_txn, &call, e);
	if (rc == SOP_EUNSYNCED)
		sopfs_note_unsynced(f, notes, dir, name, w->item);
	if (sopfs_stands(rc) && w->item)
		name_gone(f, w->item, &w->attr, dir, name);
	return rc;
}

static int remove_name(struct sopfs *f, struct sopfs_item *dir, const char *name,
	int (*fn)(struct sopfs *f, struct found *w, struct sopfs_item *dir, const char *name,
		struct sopfs_notes *notes, struct sop_err *e),
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct found w;
	int rc = -EAGAIN;

	for (unsigned i = 0; rc == -EAGAIN && i < SOPFS_TRIES; i++) {
		rc = find(f, dir, name, &w, e);
		if (rc)
			return rc;
		lock_two(w.item, NULL);
		rc = fn(f, &w, dir, name, notes, e);
		unlock_two(w.item, NULL);
		found_put(f, &w);
	}
	return rc;
}

int sopfs_unlink(struct sopfs *f, struct sopfs_item *dir, const char *name,
	struct sopfs_notes *notes, struct sop_err *e)
{
	return remove_name(f, dir, name, unlink_found, notes, e);
}

int sopfs_rmdir(struct sopfs *f, struct sopfs_item *dir, const char *name, struct sop_err *e)
{
	struct sopfs_notes notes = {0};
	int rc = remove_name(f, dir, name, rmdir_found, &notes, e);

	sopfs_notify_later(f, &notes);
	return rc;
}

/* ---- renaming ---- */

struct rename_call {
	struct sop_name from, to;
	unsigned flags;		   /* SOP_RENAME_* */
	struct sop_attr *whiteout; /* takes the old name's place; or NULL */
	const struct found *src, *dst;
	bool foreign;
};

static int rename_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct rename_call *c = arg;
	int rc = check_found(t, c->from, c->src, c->foreign, e);

	if (!rc)
		rc = check_found(t, c->to, c->dst, c->foreign, e);
	if (!rc)
		rc = sop_rename(t, c->from, c->to, c->flags, e);
	if (rc < 0 || !c->whiteout)
		return rc;
	return sop_create(t, c->from, c->whiteout, NULL, 0, NULL, e);
}

/* The name operation goes into the session's transaction, which is committed with it. item.lock and
 * s.lock held. */
static int commit_with(struct sopfs *f, struct sopfs_session *s, sopfs_txn_fn fn, void *arg,
	struct sopfs_notes *notes, struct sop_err *e)
{
	int rc = fn(s->txn, arg, e);

	if (rc < 0)
		return rc;
	rc = sopfs_session_commit_txn(f, s, e);
	if (!sopfs_stands(rc))
		sopfs_session_failed(f, s, rc, e, notes);
	return rc;
}

/* The item has its new name, in the tree and here. */
static void name_moved(struct sopfs *f, struct sopfs_item *item, struct sopfs_item *from_dir,
	const char *from, struct sopfs_item *to_dir, const char *to)
{
	pthread_mutex_lock(&f->lock);
	if (item->provisional) {
		sopfs_overlay_remove(f, item);
		item->provisional = NULL;
	}
	/* Should there be no memory for the new name, the item is as one whose name we never knew:
	 * its next look-up brings it back. */
	sopfs_name_remove(item, from_dir->ino, from, strlen(from));
	(void)sopfs_name_add(item, to_dir->ino, to, strlen(to));
	/* A directory elsewhere may inherit another session=, and what lies below it. */
	if (item->type == S_IFDIR)
		atomic_fetch_add(&f->session_epoch, 1);
	pthread_mutex_unlock(&f->lock);
}

struct rename {
	struct sopfs_item *from_dir, *to_dir;
	const char *from, *to;
	unsigned flags; /* RENAME_* */
	const struct sopfs_caller *who;
	struct found src, dst;
};

static void rename_names(struct sopfs *f, struct rename *r)
{
	if (r->flags & RENAME_EXCHANGE) {
		if (r->src.item)
			name_moved(f, r->src.item, r->from_dir, r->from, r->to_dir, r->to);
		if (r->dst.item)
			name_moved(f, r->dst.item, r->to_dir, r->to, r->from_dir, r->from);
		return;
	}
	if (r->dst.there && r->dst.provisional)
		(void)provisional_gone(f, r->dst.item, NULL); /* it is gone in any case */
	else if (r->dst.there && r->dst.item)
		name_gone(f, r->dst.item, &r->dst.attr, r->to_dir, r->to);
	if (r->src.item)
		name_moved(f, r->src.item, r->from_dir, r->from, r->to_dir, r->to);
}

/* What the tree cannot check, as it does not know of one of the two. */
static int rename_check(const struct rename *r)
{
	if (!r->dst.there)
		return r->flags & RENAME_EXCHANGE ? -ENOENT : 0;
	if (r->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (r->flags & RENAME_EXCHANGE)
		return 0;
	if (S_ISDIR(r->src.attr.mode) && !S_ISDIR(r->dst.attr.mode))
		return -ENOTDIR;
	if (!S_ISDIR(r->src.attr.mode) && S_ISDIR(r->dst.attr.mode))
		return -EISDIR;
	return 0;
}

/* Both items' locks held. */
static int rename_found(
	struct sopfs *f, struct rename *r, struct sopfs_notes *notes, struct sop_err *e)
{
	struct rename_call call = {.from = SOP_NAME(r->from_dir->ino, r->from),
		.to = SOP_NAME(r->to_dir->ino, r->to),
		.src = &r->src,
		.dst = &r->dst,
		.foreign = any_foreign(f)};
	struct sopfs_session *s = NULL;
	struct sopfs_inherit none;
	struct sop_attr whiteout;
	int rc = rename_check(r), follow;

	if (r->flags & RENAME_NOREPLACE)
		call.flags |= SOP_RENAME_NOREPLACE;
	if (r->flags & RENAME_EXCHANGE)
		call.flags |= SOP_RENAME_EXCHANGE;
	if (!rc && r->flags & RENAME_WHITEOUT) {
		/* A device 0:0 without permissions: "there is nothing", to overlayfs. */
		rc = sopfs_new_attr(f, r->who, r->from_dir, S_IFCHR, &whiteout, &none, e);
		sopfs_inherit_release(&none);
		whiteout.mode = S_IFCHR;
		call.whiteout = &whiteout;
	}

	if (!rc)
		rc = check_found(f->latest, call.from, &r->src, call.foreign, e);
	if (!rc)
		rc = check_found(f->latest, call.to, &r->dst, call.foreign, e);
	if (!rc && r->dst.provisional && (r->flags & RENAME_EXCHANGE)) {
		rc = sopfs_materialise(f, r->dst.item, e);
		r->dst.provisional = false;
	}
	if (!rc && r->dst.there && !r->dst.provisional && !(r->flags & RENAME_EXCHANGE) &&
		r->dst.attr.nlink <= 1)
		rc = keep_open(f, r->dst.item, call.to, notes, e);
	if (!rc && r->src.item && r->src.item->type == S_IFREG)
		s = sopfs_session_of_process(f, r->src.item, r->who->tid);
	if (!rc && !s && r->src.provisional)
		rc = sopfs_materialise(f, r->src.item, e);
	if (!rc)
		rc = s ? commit_with(f, s, rename_txn, &call, notes, e)
		       : sopfs_txn(f, rename_txn, &call, e);
	if (sopfs_stands(rc)) {
		rename_names(f, r);
		if (s)
			sopfs_session_committed(f, s, notes);
	}
	if (rc == SOP_EUNSYNCED) {
		sopfs_note_unsynced(f, notes, r->from_dir, r->from, r->src.item);
		sopfs_note_unsynced(f, notes, r->to_dir, r->to, r->dst.item);
	}
	if (s) {
		pthread_mutex_unlock(&s->lock);
		sopfs_session_put(f, s);
	}
	follow = sopfs_stands(rc) && r->src.item ? sopfs_follow_names(f, r->src.item, e) : 0;
	if (!follow && sopfs_stands(rc) && r->dst.item)
		follow = sopfs_follow_names(f, r->dst.item, e);
	return follow ? follow : rc;
}

int sopfs_rename(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_item *from_dir,
	const char *from, struct sopfs_item *to_dir, const char *to, unsigned flags,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct rename r = {.from_dir = from_dir,
		.to_dir = to_dir,
		.from = from,
		.to = to,
		.flags = flags,
		.who = who};
	int rc = -EAGAIN;
	bool full = false;

	for (unsigned i = 0; rc == -EAGAIN && i < SOPFS_TRIES; i++) {
		rc = find(f, from_dir, from, &r.src, e);
		if (rc)
			return rc;
		rc = find(f, to_dir, to, &r.dst, e);
		if (rc == -ENOENT)
			rc = 0;
		if (rc) {
			found_put(f, &r.src);
			return rc;
		}
		if (r.dst.there) {
			pthread_mutex_lock(&f->lock);
			full = !(flags & RENAME_EXCHANGE) &&
			       sopfs_overlay_has_store(f, r.dst.attr.ino);
			pthread_mutex_unlock(&f->lock);
		}
		lock_two(r.src.item, r.dst.item);
		if (r.dst.there && r.src.attr.ino == r.dst.attr.ino)
			rc = 0; /* two names of one item: nothing is to be done */
		else if (full)
			rc = -ENOTEMPTY;
		else if (still_so(f, &r.src) && still_so(f, &r.dst))
			rc = rename_found(f, &r, notes, e);
		else
			rc = -EAGAIN;
		unlock_two(r.src.item, r.dst.item);
		found_put(f, &r.src);
		found_put(f, &r.dst);
	}
	return rc;
}

/* ---- links ---- */

struct link_call {
	struct sop_name from, to;
	uint64_t ino;
	bool hidden; /* an unnamed file gets its first name */
};

static int link_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct link_call *c = arg;
	struct sop_attr a;
	int rc;

	if (c->hidden)
		return sop_rename(t, c->from, c->to, SOP_RENAME_NOREPLACE, e);
	rc = sop_link(t, c->from, c->to, &a, e);
	return !rc && a.ino != c->ino ? -ESTALE : rc;
}

/* item.lock held. */
static int link_item(struct sopfs *f, int tid, struct sopfs_view *v, struct link_call *call,
	struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs_item *item = v->item;
	struct sopfs_session *s = NULL;
	struct sopfs_where w;
	bool there;
	int rc = 0, more = 0;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	if (!there && v->session && v->session->hidden) {
		w = *v->session->hidden;
		call->hidden = true;
		s = v->session;
		s->refs++;
	}
	pthread_mutex_unlock(&f->lock);
	if ((!there && !call->hidden) || w.self)
		return -ENOENT;
	call->from = sopfs_where_name(&w);
	if (s)
		pthread_mutex_lock(&s->lock);
	else if (item->type == S_IFREG)
		s = sopfs_session_of_process(f, item, tid);
	if (s && call->hidden && s->dead)
		rc = s->dead;
	else if (!s && item->provisional)
		rc = sopfs_materialise(f, item, e);
	if (!rc)
		rc = s ? commit_with(f, s, link_txn, call, notes, e)
		       : sopfs_txn(f, link_txn, call, e);
	if (sopfs_stands(rc)) {
		pthread_mutex_lock(&f->lock);
		if (call->hidden) {
			item->nameless = false;
			free(s->hidden);
			s->hidden = NULL;
		}
		more = item->provisional
			       ? 0
			       : sopfs_name_add(item, call->to.store, call->to.key, call->to.len);
		pthread_mutex_unlock(&f->lock);
		if (s)
			sopfs_session_committed(f, s, notes);
	}
	if (s) {
		pthread_mutex_unlock(&s->lock);
		sopfs_session_put(f, s);
	}
	/* With its second name the inode has moved to a place of its own. */
	if (sopfs_stands(rc) && !more)
		more = sopfs_follow_names(f, item, e);
	return more ? more : rc;
}

int sopfs_link(struct sopfs *f, int tid, struct sopfs_view *v, struct sopfs_item *dir,
	const char *name, struct sopfs_entry *out, struct sopfs_notes *notes, struct sop_err *e)
{
	struct link_call call = {.to = SOP_NAME(dir->ino, name), .ino = v->item->ino};
	struct sopfs_item *taken;
	int rc;

	if (call.to.len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	pthread_mutex_lock(&f->lock);
	taken = sopfs_overlay_find(f, dir->ino, name, call.to.len);
	pthread_mutex_unlock(&f->lock);
	if (taken)
		return -EEXIST;
	pthread_mutex_lock(&v->item->lock);
	rc = link_item(f, tid, v, &call, notes, e);
	pthread_mutex_unlock(&v->item->lock);
	if (rc == SOP_EUNSYNCED)
		sopfs_note_unsynced(f, notes, dir, name, v->item);
	return rc ? rc : sopfs_lookup(f, tid, dir, name, out, e);
}

int sopfs_readlink(struct sopfs *f, struct sopfs_view *v, char **target, struct sop_err *e)
{
	struct sopfs_where w;
	size_t len;
	void *val;
	bool there;
	int rc;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(v->item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!there)
		return -ENOENT;
	if (v->item->type != S_IFLNK)
		return -EINVAL;
	rc = sop_get(f->latest, sopfs_where_name(&w), &val, &len, e);
	if (!rc)
		*target = val;
	return rc;
}
