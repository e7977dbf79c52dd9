/* Follows a commit that was made elsewhere than in the requests of this mount. See foreign.h.
 *
 * What is locked cannot be renamed, removed or committed by others meanwhile, so what is found out
 * before the commit still holds after it. An item that becomes known only while the commit is under
 * way may have been looked up in the old state; it is seen to afterwards, and until then it is as
 * one that was opened just before. Names that the kernel looks up meanwhile are invalidated behind
 * the look-up, as that holds the directory's lock. */
#include "fs/foreign.h"

#include "fs/attic.h"
#include "fs/names.h"
#include "fs/posix.h"

/* A name that comes, goes, or stands for something else; or another of its key. */
struct change {
	uint64_t store, before, after;
	size_t len;
	char *key;  /* the tree's */
	bool typed; /* the name is another */
};

/* An inode that is changed, or whose names are. */
struct touched {
	uint64_t ino;
	bool gone;	 /* it will have no name any more */
	bool taken, put; /* its record is taken from where it lies; lies somewhere afterwards */
	bool named;	 /* names of it change */
	struct sopfs_item *item; /* referenced and locked, if it is known */
	struct sop_attr was;
	bool have_was, new_attic;
	struct sopfs_session *orphan;
};

struct sopfs_foreign {
	struct sopfs *f;
	struct sop_txn *t; /* until its commit */
	struct change *change;
	size_t changes, change_cap;
	struct touched *touched;
	size_t n, cap;
	struct sopfs_item **locked; /* by address */
	size_t n_locked;
	uint64_t typed_store; /* the last one asked for */
	bool typed;
	struct sopfs_notes notes;
};

/* ---- gathering ---------------------------------------------------------------------------------
 */

static void *room(void *list, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? 2 * *cap : 64;
	void *q;

	if (n < *cap)
		return list;
	q = realloc(list, want * size);
	if (q)
		*cap = want;
	return q;
}

static int touch(struct sopfs_foreign *x, uint64_t ino, bool taken, bool put, bool named)
{
	struct touched *list;

	if (!ino)
		return 0;
	list = room(x->touched, x->n, &x->cap, sizeof(*list));
	if (!list)
		return -ENOMEM;
	x->touched = list;
	list[x->n++] = (struct touched){.ino = ino, .taken = taken, .put = put, .named = named};
	return 0;
}

/* Called by sop_txn_changes: must not call the library. */
static int gather(void *arg, const struct sop_txn_change *c)
{
	struct sopfs_foreign *x = arg;
	bool same = c->before.ino == c->after.ino;
	struct change *list;
	int rc = touch(x, c->before.ino, c->before.record && !same, c->after.record && same,
		c->store && !same);

	if (!rc && !same)
		rc = touch(x, c->after.ino, false, c->after.record, c->store != 0);
	if (rc || !c->store)
		return rc;
	list = room(x->change, x->changes, &x->change_cap, sizeof(*list));
	if (!list)
		return -ENOMEM;
	x->change = list;
	list += x->changes;
	*list = (struct change){
		.store = c->store, .before = c->before.ino, .after = c->after.ino, .len = c->klen};
	list->key = malloc(c->klen + 1);
	if (!list->key)
		return -ENOMEM;
	memcpy(list->key, c->key, c->klen);
	list->key[c->klen] = 0;
	x->changes++;
	return 0;
}

static int by_ino(const void *a, const void *b)
{
	const struct touched *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static int by_address(const void *a, const void *b)
{
	struct sopfs_item *const *x = a, *const *y = b;

	return (*x > *y) - (*x < *y);
}

/* One entry for each inode. */
static void merge(struct sopfs_foreign *x)
{
	size_t kept = 0;

	if (x->n)
		qsort(x->touched, x->n, sizeof(*x->touched), by_ino);
	for (size_t i = 0; i < x->n; i++) {
		struct touched *t = &x->touched[i], *last = kept ? &x->touched[kept - 1] : NULL;

		if (!last || last->ino != t->ino) {
			x->touched[kept++] = *t;
			continue;
		}
		last->taken |= t->taken;
		last->put |= t->put;
		last->named |= t->named;
	}
	x->n = kept;
	for (size_t i = 0; i < kept; i++)
		x->touched[i].gone = x->touched[i].taken && !x->touched[i].put;
}

static struct touched *touched_of(struct sopfs_foreign *x, uint64_t ino)
{
	const struct touched key = {.ino = ino};

	return x->n && ino ? bsearch(&key, x->touched, x->n, sizeof(key), by_ino) : NULL;
}

/* Are the names of this store other than its keys? */
static bool is_typed(struct sopfs_foreign *x, uint64_t store)
{
	struct sop_store_opts o = {0};
	sop_autofree char *buf = NULL;

	if (store == x->typed_store)
		return x->typed;
	buf = malloc(SOP_STORE_INFO_BYTES);
	x->typed_store = store;
	/* What cannot be found out is taken for typed, which is right of any. */
	x->typed =
		!buf ||
		(sop_store_info(x->t, store, &o, buf, SOP_STORE_INFO_BYTES, NULL) &&
			sop_store_info(x->f->latest, store, &o, buf, SOP_STORE_INFO_BYTES, NULL)) ||
		o.key_type != SOP_KEY_BYTES || o.duplicates;
	return x->typed;
}

/* What changes inodes alone goes from the list of names; but in a typed store two names may be one
 * key, and an item may have got the other. */
static void names_only(struct sopfs_foreign *x)
{
	size_t kept = 0;

	for (size_t i = 0; i < x->changes; i++) {
		struct change *c = &x->change[i];

		c->typed = is_typed(x, c->store);
		if (c->before == c->after && c->typed)
			touched_of(x, c->after)->named = true;
		if (c->before != c->after || c->typed)
			x->change[kept++] = *c;
		else
			free(c->key);
	}
	x->changes = kept;
}

/* ---- before ------------------------------------------------------------------------------------
 */

struct shown {
	bool there;
	char name[SOPFS_NAME_MAX + 1];
	size_t len;
};

static int show(void *arg, const struct sop_listed *l)
{
	struct shown *s = arg;

	if (l->name_len > SOPFS_NAME_MAX)
		return 0;
	s->there = true;
	s->len = l->name_len;
	memcpy(s->name, l->name, l->name_len);
	s->name[s->len] = 0;
	return 0;
}

/* The name that directories show for a key, if this transaction has one. */
static bool name_of(struct sop_txn *t, const struct change *c, struct shown *s)
{
	const struct sop_range one = {
		.from = c->key, .from_len = c->len, .to = c->key, .to_len = c->len};

	s->there = false;
	if (!c->typed && c->len <= SOPFS_NAME_MAX) {
		s->there = true;
		s->len = c->len;
		memcpy(s->name, c->key, c->len + 1);
	} else if (sop_list(t, c->store, &one, false, show, s, NULL)) {
		s->there = false;
	}
	return s->there;
}

/* Names that sessions are making are theirs. */
static int collisions(struct sopfs_foreign *x, struct sop_err *e)
{
	struct sopfs *f = x->f;
	struct shown s;
	bool taken;

	if (!atomic_load(&f->overlay_count))
		return 0;
	for (size_t i = 0; i < x->changes; i++) {
		const struct change *c = &x->change[i];

		if (!c->after || !name_of(x->t, c, &s))
			continue;
		pthread_mutex_lock(&f->lock);
		taken = sopfs_overlay_find(f, c->store, s.name, s.len);
		pthread_mutex_unlock(&f->lock);
		if (taken)
			return sop_fail(e, SOP_ECONFLICT,
				"\"%s\" is just being made by somebody else", s.name);
	}
	for (size_t i = 0; i < x->n; i++) {
		if (!x->touched[i].gone)
			continue;
		pthread_mutex_lock(&f->lock);
		taken = sopfs_overlay_has_store(f, x->touched[i].ino);
		pthread_mutex_unlock(&f->lock);
		if (taken)
			return sop_fail(e, SOP_ECONFLICT,
				"a file is just being made in a directory that is to be removed");
	}
	return 0;
}

static int lock_items(struct sopfs_foreign *x, struct sop_err *e)
{
	int rc;

	x->locked = malloc((x->n + 1) * sizeof(struct sopfs_item *));
	if (!x->locked)
		return sop_fail(e, -ENOMEM, "commit");
	rc = collisions(x, e);
	pthread_mutex_lock(&x->f->lock);
	for (size_t i = 0; i < x->n && !rc; i++) {
		struct sopfs_item *item = sopfs_item_find(x->f, x->touched[i].ino);

		x->touched[i].item = item;
		if (!item)
			continue;
		sopfs_item_ref(item);
		x->locked[x->n_locked++] = item;
	}
	pthread_mutex_unlock(&x->f->lock);
	if (x->n_locked)
		qsort(x->locked, x->n_locked, sizeof(struct sopfs_item *), by_address);
	for (size_t i = 0; i < x->n_locked; i++)
		pthread_mutex_lock(&x->locked[i]->lock);
	return rc;
}

/* Who has it open goes on with what is there now. */
static int keep(
	struct sopfs_foreign *x, struct touched *t, struct sopfs_notes *notes, struct sop_err *e)
{
	struct sopfs *f = x->f;
	struct sopfs_item *item = t->item;
	struct sopfs_where w;
	struct sop_name name = SOP_SELF(item->ino);
	bool there;
	int rc;

	pthread_mutex_lock(&f->lock);
	there = item->type == S_IFDIR || sopfs_item_where(item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!there)
		return 0; /* without a name here already */
	if (item->type != S_IFDIR)
		name = sopfs_where_name(&w);
	rc = sop_lookup(f->latest, name, &t->was, e);
	if (rc || t->was.ino != item->ino)
		return rc == -ENOENT ? 0 : rc; /* the commit will conflict */
	t->have_was = true;
	if (!t->gone || item->type == S_IFDIR)
		return 0;
	t->new_attic = !item->attic;
	rc = sopfs_attic_keep(f, item, f->latest, name, e);
	if (!rc)
		rc = sopfs_each_session(f, item, sopfs_session_keep, notes, e);
	return rc ? rc : sopfs_direct_orphan_new(f, item, &t->orphan, e);
}

static void unlock_items(struct sopfs_foreign *x)
{
	for (size_t i = 0; i < x->n_locked; i++)
		pthread_mutex_unlock(&x->locked[i]->lock);
	pthread_mutex_lock(&x->f->lock);
	for (size_t i = 0; i < x->n_locked; i++)
		sopfs_item_unref(x->f, x->locked[i]);
	pthread_mutex_unlock(&x->f->lock);
	x->n_locked = 0;
}

/* As if nothing had been about to go. */
static void undo(struct sopfs_foreign *x)
{
	for (size_t i = 0; i < x->n; i++) {
		struct touched *t = &x->touched[i];

		if (t->orphan)
			sopfs_session_put(x->f, t->orphan);
		if (t->new_attic) {
			sop_txn_rollback(t->item->attic);
			t->item->attic = NULL;
		}
	}
}

int sopfs_foreign_begin(struct sopfs_foreign *x, struct sop_err *e)
{
	int rc = lock_items(x, e);

	for (size_t i = 0; i < x->n && !rc; i++)
		if (x->touched[i].item && (x->touched[i].gone || x->touched[i].named))
			rc = keep(x, &x->touched[i], &x->notes, e);
	if (rc)
		sopfs_foreign_end(x, false);
	return rc;
}

/* ---- after -------------------------------------------------------------------------------------
 */

/* Of a typed key that has gone the name is not known: all that is known of the inode is looked at.
 */
static void drop_stale_names(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_where w;
	struct sop_attr a;
	bool more = true;

	while (more) {
		pthread_mutex_lock(&f->lock);
		more = sopfs_item_where(item, &w) && !w.self;
		pthread_mutex_unlock(&f->lock);
		if (!more || (sop_lookup(f->latest, sopfs_where_name(&w), &a, NULL) == 0 &&
				     a.ino == item->ino))
			return;
		pthread_mutex_lock(&f->lock);
		sopfs_name_remove(item, w.store, w.text, w.len);
		pthread_mutex_unlock(&f->lock);
	}
}

static void names_gone(struct sopfs_foreign *x)
{
	struct sopfs *f = x->f;

	for (size_t i = 0; i < x->changes; i++) {
		const struct change *c = &x->change[i];
		const struct touched *t = touched_of(x, c->before);

		if (!t || !t->item)
			continue;
		if (c->typed) {
			drop_stale_names(f, t->item);
			continue;
		}
		pthread_mutex_lock(&f->lock);
		sopfs_name_remove(t->item, c->store, c->key, c->len);
		pthread_mutex_unlock(&f->lock);
	}
}

static void names_come(struct sopfs_foreign *x)
{
	struct sopfs *f = x->f;

	for (size_t i = 0; i < x->changes; i++) {
		const struct change *c = &x->change[i];
		const struct touched *t = touched_of(x, c->after);
		struct shown s;

		if (!t || !t->item || !name_of(f->latest, c, &s))
			continue;
		/* Without memory for it, it is as one whose name we never knew. With it, what it
		 * was when it lost the last one that we knew is out of date. */
		pthread_mutex_lock(&f->lock);
		if (!sopfs_name_add(t->item, c->store, s.name, s.len) && !t->item->provisional) {
			free(t->item->last);
			t->item->last = NULL;
		}
		pthread_mutex_unlock(&f->lock);
	}
}

/* Nobody finds it by a name we know: what it was is what is shown of it. */
static void nameless(struct sopfs *f, struct touched *t)
{
	struct sopfs_item *item = t->item;
	struct sop_attr *last = t->have_was ? malloc(sizeof(*last)) : NULL;

	if (last) {
		*last = t->was;
		last->nlink = t->gone ? 0 : SOP_MAX(last->nlink, 2u) - 1;
		last->ctime = sopfs_now();
	}
	pthread_mutex_lock(&f->lock);
	item->nameless = item->nameless || t->gone;
	if (!item->names && last) {
		free(item->last);
		item->last = last;
		last = NULL;
	}
	pthread_mutex_unlock(&f->lock);
	free(last);
	if (t->orphan)
		sopfs_direct_orphan_set(f, item, t->orphan);
	t->orphan = NULL;
}

/* item.lock held. */
static void newer_version(struct sopfs *f, struct sopfs_item *item, struct sopfs_notes *notes)
{
	struct sopfs_where w;
	struct sop_attr a;
	bool there, newer;

	pthread_mutex_lock(&f->lock);
	there = sopfs_item_where(item, &w);
	pthread_mutex_unlock(&f->lock);
	if (!there || sop_lookup(f->latest, sopfs_where_name(&w), &a, NULL) || a.ino != item->ino)
		return;
	pthread_mutex_lock(&f->lock);
	newer = a.value_version != item->version;
	pthread_mutex_unlock(&f->lock);
	if (newer)
		sopfs_superseded(f, item, NULL, a.value_version, notes);
}

static void follow(struct sopfs_foreign *x, struct touched *t, struct sopfs_notes *notes)
{
	struct sopfs *f = x->f;
	struct sopfs_item *item = t->item;
	struct sop_err e = {0};
	bool lost;

	pthread_mutex_lock(&f->lock);
	lost = t->gone || (t->named && !item->names);
	pthread_mutex_unlock(&f->lock);
	if (lost)
		nameless(f, t);
	/* A session that cannot follow fails at its commit, and says so there. */
	if (item->type == S_IFREG) {
		if (sopfs_follow_names(f, item, &e))
			sop_log(f->o.log, SOP_LOG_WARNING, "fs", "op=commit inode=%llu code=%s: %s",
				(unsigned long long)item->ino, sop_err_name(e.code), e.text);
		newer_version(f, item, notes);
	}
	pthread_mutex_lock(&f->lock);
	if (item->type == S_IFDIR)
		item->default_acl = 0;
	sopfs_note_attrs(f, notes, item, NULL);
	pthread_mutex_unlock(&f->lock);
}

static void note_directory(struct sopfs *f, struct sopfs_item *dir, struct sopfs_notes *notes)
{
	sopfs_note_attrs(f, notes, dir, NULL);
	for (struct sopfs_view *v = dir->views; v; v = v->next)
		if (v->nlookup)
			sopfs_note_data(f, notes, v);
}

static void note_names(struct sopfs_foreign *x, struct sopfs_notes *notes)
{
	struct sopfs *f = x->f;
	uint64_t last = 0;

	for (size_t i = 0; i < x->changes; i++) {
		const struct change *c = &x->change[i];
		struct sopfs_item *dir;
		struct shown s;
		bool there = name_of(f->latest, c, &s);

		pthread_mutex_lock(&f->lock);
		dir = sopfs_item_find(f, c->store);
		if (dir && there)
			sopfs_note_name(f, notes, c->store, s.name, s.len);
		else if (dir)
			sopfs_note_names(f, notes, dir); /* with its entry all below it go */
		if (dir && c->store != last)
			note_directory(f, dir, notes);
		pthread_mutex_unlock(&f->lock);
		last = c->store;
	}
}

/* Those who became known while the commit was under way. */
static void latecomers(struct sopfs_foreign *x, struct sopfs_notes *notes)
{
	struct sopfs *f = x->f;

	for (size_t i = 0; i < x->n; i++) {
		struct touched *t = &x->touched[i];
		struct sopfs_item *item = t->item;

		if (item)
			continue;
		pthread_mutex_lock(&f->lock);
		item = sopfs_item_find(f, t->ino);
		if (item)
			sopfs_item_ref(item);
		pthread_mutex_unlock(&f->lock);
		if (!item)
			continue;
		pthread_mutex_lock(&item->lock);
		drop_stale_names(f, item);
		pthread_mutex_lock(&f->lock);
		if (t->gone && !item->names)
			item->nameless = true;
		pthread_mutex_unlock(&f->lock);
		if (item->type == S_IFREG)
			newer_version(f, item, notes);
		pthread_mutex_lock(&f->lock);
		sopfs_note_attrs(f, notes, item, NULL);
		pthread_mutex_unlock(&f->lock);
		pthread_mutex_unlock(&item->lock);
		sopfs_item_put(f, item);
	}
}

void sopfs_foreign_end(struct sopfs_foreign *x, bool committed)
{
	struct sopfs *f = x->f;

	if (!committed) {
		undo(x);
		unlock_items(x);
		return;
	}
	/* Who has looked before the commit and has yet to tell us, looks again. */
	atomic_fetch_add(&f->foreign_epoch, 1);
	names_gone(x);
	names_come(x);
	for (size_t i = 0; i < x->n; i++)
		if (x->touched[i].item)
			follow(x, &x->touched[i], &x->notes);
	/* Directories may have moved, or inherit another session=. */
	atomic_fetch_add(&f->session_epoch, 1);
	unlock_items(x);
	latecomers(x, &x->notes);
	note_names(x, &x->notes);
}

/* What the kernel has of what is about to change. */
static void note_all(struct sopfs_foreign *x)
{
	struct sopfs *f = x->f;

	note_names(x, &x->notes);
	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < x->n; i++) {
		const struct sopfs_item *item = sopfs_item_find(f, x->touched[i].ino);

		if (!item)
			continue;
		/* A directory's nodeid stays, and with its name the kernel would take away what is
		 * mounted below. */
		if (item->type != S_IFDIR)
			sopfs_note_names(f, &x->notes, item);
		sopfs_note_attrs(f, &x->notes, item, NULL);
	}
	pthread_mutex_unlock(&f->lock);
}

int sopfs_foreign_new(
	struct sopfs_foreign **out, struct sopfs *f, struct sop_txn *t, struct sop_err *e)
{
	struct sopfs_foreign *x = calloc(1, sizeof(*x));
	int rc;

	*out = x;
	if (!x)
		return sop_fail(e, -ENOMEM, "commit");
	x->f = f;
	x->t = t;
	atomic_fetch_add(&f->foreign_busy, 1);
	rc = sop_txn_changes(t, gather, x, e);
	if (rc)
		return rc;
	merge(x);
	names_only(x);
	return 0;
}

void sopfs_foreign_tell(struct sopfs_foreign *x)
{
	note_all(x);
	sopfs_notify_here(x->f, &x->notes);
}

void sopfs_foreign_free(struct sopfs_foreign *x)
{
	if (!x)
		return;
	sopfs_notify_here(x->f, &x->notes);
	atomic_fetch_sub(&x->f->foreign_busy, 1);
	for (size_t i = 0; i < x->changes; i++)
		free(x->change[i].key);
	free(x->change);
	free(x->touched);
	free(x->locked);
	free(x);
}
