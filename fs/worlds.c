#include "fs/worlds.h"

#include <signal.h>
#include <stdio.h>

#include "fs/ctl.h"
#include "fs/foreign.h"
#include "fs/recent.h"

#define BY_HAND_MS (60u * 60 * 1000) /* the longest time of one without a hold file */
#define MESSAGE	   640

struct sopfs_world {
	struct sopfs_world *next; /* the mount's lock */
	struct sopfs *mount;
	struct sopfs *fs;
	pthread_mutex_t lock; /* one request at a time; outside of all locks of mount and fs */
	/* under lock: */
	bool ended;
	int why;    /* ended: 0 committed, or about to be */
	int doomed; /* a change failed half-way: what the commit will fail with */
	char message[MESSAGE];
	/* under the mount's lock: */
	unsigned users; /* requests and others that look at it */
	uint64_t root_lookups, hold_lookups;
	unsigned hold_handles;
	bool listed;		 /* in the directory */
	struct sopfs_item *hold; /* or NULL */
	struct sop_attr root;	 /* of the mirror, when it has ended; under lock */
	uid_t owner;
	uint64_t number; /* in the list it falls: where a listing stands */
	char name[SOPFS_NAME_MAX + 1];
};

_Thread_local struct sopfs_world *sopfs_world_current;

struct sopfs *sopfs_world_fs(struct sopfs_world *w)
{
	return w->fs;
}

int sopfs_world_ended(const struct sopfs_world *w)
{
	return w->ended ? w->why : 0;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void fs_free(struct sopfs *fs)
{
	sopfs_ticker_stop(fs);
	sopfs_handles_finish(fs);
	pthread_mutex_lock(&fs->lock);
	sopfs_marks_release(fs);
	pthread_mutex_unlock(&fs->lock);
	sopfs_table_release(fs);
	pthread_mutex_destroy(&fs->locks_lock);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

static void world_free(struct sopfs_world *w)
{
	fs_free(w->fs);
	sopfs_ctl_item_free(w->hold);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* The state of a mount, but for what it has in common with that. */
static int fs_new(struct sopfs_world *w, struct sop_txn *t, struct sop_err *e)
{
	struct sopfs *f = w->mount, *fs = calloc(1, sizeof(*fs));
	int rc;

	if (!fs)
		return sop_fail(e, -ENOMEM, "transaction");
	fs->world = w;
	fs->v = f->v;
	fs->latest = t;
	fs->o = f->o;
	fs->o.session_write = true;
	fs->se = f->se;
	fs->notifier = f->notifier;
	fs->recent = f->recent;
	fs->started = f->started;
	pthread_mutex_init(&fs->lock, NULL);
	pthread_mutex_init(&fs->locks_lock, NULL);
	w->fs = fs;
	rc = sopfs_table_init(fs, e);
	return rc ? rc : sopfs_ticker_start(fs, e);
}

/* May go? The mount's lock held. */
static bool is_idle(struct sopfs_world *w)
{
	bool idle;

	if (w->users || w->listed || w->root_lookups || w->hold_lookups || w->hold_handles)
		return false;
	pthread_mutex_lock(&w->fs->lock);
	idle = w->fs->table_used == 1 && !w->fs->handles;
	pthread_mutex_unlock(&w->fs->lock);
	return idle;
}

static void unlink_world(struct sopfs_world *w)
{
	struct sopfs_world **p = &w->mount->worlds;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
}

static void get(struct sopfs_world *w)
{
	pthread_mutex_lock(&w->mount->lock);
	w->users++;
	pthread_mutex_unlock(&w->mount->lock);
}

void sopfs_world_put(struct sopfs_world *w)
{
	struct sopfs *f = w->mount;
	bool idle;

	pthread_mutex_lock(&f->lock);
	w->users--;
	idle = is_idle(w);
	if (idle)
		unlink_world(w);
	pthread_mutex_unlock(&f->lock);
	if (idle)
		world_free(w);
}

static void unlist(struct sopfs_world *w)
{
	pthread_mutex_lock(&w->mount->lock);
	w->listed = false;
	pthread_mutex_unlock(&w->mount->lock);
}

/* w->lock held. The mirror is shut: what is still open gets ESTALE. One whose commit by hand failed
 * stays to be seen, and to be asked again why, until it is removed. */
static void end(struct sopfs_world *w, int why)
{
	w->ended = true;
	w->why = why;
	w->fs->latest = NULL;
	if (!why || why == -ESTALE || w->hold)
		unlist(w);
}

static void roll_back(struct sopfs_world *w, int why, const char *reason)
{
	pthread_mutex_lock(&w->lock);
	if (!w->ended) {
		sop_txn_rollback(w->fs->latest);
		end(w, why);
		snprintf(w->message, sizeof(w->message), "%s", reason);
		atomic_fetch_add(&w->mount->rolled_back, 1);
	}
	pthread_mutex_unlock(&w->lock);
}

void sopfs_world_rollback(struct sopfs_world *w)
{
	roll_back(w, -ESTALE, "rolled back");
	unlist(w);
}

/* Of one user; all of them. The mount's lock held. */
static unsigned count(const struct sopfs *f, uid_t uid, bool all)
{
	unsigned n = 0;

	for (const struct sopfs_world *w = f->worlds; w; w = w->next)
		n += w->listed && (all || w->owner == uid);
	return n;
}

unsigned sopfs_worlds_count(struct sopfs *f)
{
	unsigned n;

	pthread_mutex_lock(&f->lock);
	n = count(f, 0, true);
	pthread_mutex_unlock(&f->lock);
	return n;
}

static bool may_know(const struct sopfs_world *w, uid_t uid)
{
	return w->listed && (w->owner == uid || sopfs_trusts(uid));
}

/* The mount's lock held. Names are taken, whoever may see them. */
static struct sopfs_world *by_name(struct sopfs *f, const char *name)
{
	struct sopfs_world *w = f->worlds;

	while (w && !(w->listed && strcmp(w->name, name) == 0))
		w = w->next;
	return w;
}

struct sopfs_world *sopfs_world_find(struct sopfs *f, uid_t uid, const char *name)
{
	struct sopfs_world *w;

	pthread_mutex_lock(&f->lock);
	w = by_name(f, name);
	if (w && !may_know(w, uid))
		w = NULL;
	if (w)
		w->users++;
	pthread_mutex_unlock(&f->lock);
	return w;
}

bool sopfs_world_next(struct sopfs *f, uid_t uid, uint64_t *number, char name[SOPFS_NAME_MAX + 1])
{
	const struct sopfs_world *next = NULL;

	pthread_mutex_lock(&f->lock);
	for (const struct sopfs_world *w = f->worlds; w && w->number > *number; w = w->next)
		if (may_know(w, uid))
			next = w;
	if (next) {
		*number = next->number;
		memcpy(name, next->name, sizeof(next->name));
	}
	pthread_mutex_unlock(&f->lock);
	return next != NULL;
}

static int enlist(struct sopfs *f, struct sopfs_world *w)
{
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	if (by_name(f, w->name))
		rc = -EEXIST;
	else if (count(f, 0, true) >= SOPFS_WORLDS_MAX ||
		 (!sopfs_trusts(w->owner) && count(f, w->owner, false) >= SOPFS_WORLDS_OF_ONE))
		rc = -EMFILE;
	if (!rc) {
		w->listed = true;
		w->users = 1;
		w->number = f->worlds ? f->worlds->number + 1 : 1;
		w->next = f->worlds;
		f->worlds = w;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int sopfs_world_begin(struct sopfs *f, const struct sopfs_caller *who, const char *name, bool held,
	struct sopfs_world **out, struct sop_err *e)
{
	const struct sop_txn_opts opts = {.mode = SOP_TXN_WRITE,
		.timeout_ms = held ? SOP_TXN_UNBOUNDED : BY_HAND_MS,
		.note = name};
	struct sopfs_world *w;
	struct sop_txn *t = NULL;
	size_t len = strlen(name);
	int rc = 0;

	*out = NULL;
	if (f->o.read_only)
		return -EROFS;
	if (!len || len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	w->mount = f;
	w->owner = who->uid;
	memcpy(w->name, name, len + 1);
	if (held)
		w->hold = sopfs_ctl_item(SOPFS_HOLD_INO, S_IFREG);
	rc = held && !w->hold ? -ENOMEM : sop_txn_begin(&t, f->v, &opts, e);
	if (!rc)
		rc = fs_new(w, t, e);
	if (!rc) {
		if (held)
			w->hold->fs = w->fs;
		/* Commits will come that do not pass the mount's requests. */
		atomic_fetch_add(&f->foreign_epoch, 1);
		rc = enlist(f, w);
	}
	if (!rc) {
		*out = w;
		return 0;
	}
	sop_txn_rollback(t);
	if (w->fs)
		fs_free(w->fs);
	sopfs_ctl_item_free(w->hold);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return rc;
}

int sopfs_worlds_start(struct sopfs *f, struct sop_err *e)
{
	f->txn_dir = sopfs_ctl_item(SOPFS_TXN_INO, S_IFDIR);
	f->commit_dir = sopfs_ctl_item(SOPFS_COMMIT_INO, S_IFDIR);
	return f->txn_dir && f->commit_dir ? 0 : sop_fail(e, -ENOMEM, ".sop/txn");
}

void sopfs_worlds_stop(struct sopfs *f)
{
	pthread_mutex_lock(&f->lock);
	while (f->committing)
		pthread_cond_wait(&f->committed_one, &f->lock);
	pthread_mutex_unlock(&f->lock);
	while (f->worlds) {
		struct sopfs_world *w = f->worlds;

		f->worlds = w->next;
		w->fs->se = NULL;
		sopfs_world_rollback(w);
		world_free(w);
	}
	sopfs_ctl_item_free(f->txn_dir);
	sopfs_ctl_item_free(f->commit_dir);
	f->txn_dir = f->commit_dir = NULL;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

struct sopfs_world *sopfs_world_of(uint64_t nodeid)
{
	if (!(nodeid & SOPFS_WORLD_BIT))
		return NULL;
	return sopfs_view_of(NULL, nodeid)->item->fs->world;
}

int sopfs_world_enter(uint64_t nodeid, bool any)
{
	struct sopfs_world *w = sopfs_world_of(nodeid);

	assert(!sopfs_world_current);
	if (!w)
		return 0;
	get(w);
	pthread_mutex_lock(&w->lock);
	if (w->ended && !any) {
		pthread_mutex_unlock(&w->lock);
		sopfs_world_put(w);
		return -ESTALE;
	}
	sopfs_world_current = w;
	return 0;
}

void sopfs_world_leave(void)
{
	struct sopfs_world *w = sopfs_world_current;

	if (!w)
		return;
	sopfs_world_current = NULL;
	pthread_mutex_unlock(&w->lock);
	sopfs_world_put(w);
}

bool sopfs_world_root_left(uint64_t nodeid, struct sop_attr *a)
{
	const struct sopfs_world *w = sopfs_world_current;

	if (!w || !w->ended || !w->root.ino || sopfs_view_of(NULL, nodeid)->item != w->fs->root)
		return false;
	*a = w->root;
	return true;
}

int sopfs_world_change(struct sopfs *f, sopfs_txn_fn fn, void *arg, struct sop_err *e)
{
	int rc = fn(f->latest, arg, e);

	/* What a program is told of by its errno has changed nothing; these can come anywhere. */
	if (rc == -ENOMEM || rc == -EIO || rc <= -5000)
		f->world->doomed = rc;
	return rc;
}

int sopfs_world_entry(struct sopfs_world *w, struct sopfs_entry *out, struct sop_err *e)
{
	int rc = -ESTALE;

	pthread_mutex_lock(&w->lock);
	if (!w->ended)
		rc = sopfs_item_attr(w->fs, w->fs->root, &out->attr, e);
	else if (w->root.ino)
		rc = 0;
	if (w->ended)
		out->attr = w->root;
	pthread_mutex_unlock(&w->lock);
	if (rc)
		return rc;
	out->view = w->fs->root->current;
	out->cache = false;
	pthread_mutex_lock(&w->mount->lock);
	w->root_lookups++;
	pthread_mutex_unlock(&w->mount->lock);
	return 0;
}

void sopfs_world_hold_entry(struct sopfs_world *w, struct sopfs_entry *out)
{
	out->view = &w->hold->view0;
	out->cache = false;
	(void)sopfs_ctl_attr(out->view, &out->attr);
	pthread_mutex_lock(&w->mount->lock);
	w->hold_lookups++;
	pthread_mutex_unlock(&w->mount->lock);
}

struct sopfs_world *sopfs_world_of_hold(const struct sopfs_view *v)
{
	return v->item->fs->world;
}

const char *sopfs_world_text(const struct sopfs_world *w)
{
	return w->name;
}

uid_t sopfs_world_owner(const struct sopfs_view *hold)
{
	return sopfs_world_of_hold(hold)->owner;
}

void sopfs_world_forget(uint64_t nodeid, uint64_t n)
{
	struct sopfs_view *v = sopfs_view_of(NULL, nodeid);
	struct sopfs_world *w = v->item->fs->world;
	bool hold = sopfs_is_hold(v);

	get(w);
	if (hold || v->item == w->fs->root) {
		pthread_mutex_lock(&w->mount->lock);
		if (hold)
			w->hold_lookups -= n;
		else
			w->root_lookups -= n;
		pthread_mutex_unlock(&w->mount->lock);
	} else {
		sopfs_forget(w->fs, v, n);
	}
	sopfs_world_put(w);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static void say(struct sopfs_world *w, int rc, const struct sop_err *e)
{
	const char *why = e->text[0] ? e->text : sop_err_text(rc);

	if (!rc)
		snprintf(w->message, sizeof(w->message), "committed");
	else if (sopfs_stands(rc))
		snprintf(w->message, sizeof(w->message), "%s: %s", sop_err_text(rc), why);
	else
		snprintf(w->message, sizeof(w->message), "nothing was changed: %s", why);
}

/* w->lock held, but while the kernel makes us wait, which it may do until others' requests are
 * answered: were all workers here in the meantime, to wait for the lock, nobody would. They find
 * that the world has ended. */
static int commit_txn(struct sopfs_world *w, struct sop_err *e)
{
	struct sop_txn *t = w->fs->latest;
	struct sopfs_foreign *x = NULL;
	int rc = w->doomed ? sop_fail(e, w->doomed, "a change in it failed half-way") : 0;

	if (!rc)
		rc = sopfs_foreign_new(&x, w->mount, t, e);
	if (!rc) {
		pthread_mutex_unlock(&w->lock);
		sopfs_foreign_tell(x);
		pthread_mutex_lock(&w->lock);
		rc = sopfs_foreign_begin(x, e);
	}
	if (rc) {
		sop_txn_rollback(t);
	} else {
		rc = sop_txn_commit(t, 0, e);
		sopfs_foreign_end(x, sopfs_stands(rc));
	}
	w->fs->latest = NULL;
	pthread_mutex_unlock(&w->lock);
	sopfs_foreign_free(x);
	/* Only now: it stands, whatever comes of this. */
	if (!rc && sop_volume_sync(w->mount->v, e))
		rc = SOP_EUNSYNCED;
	pthread_mutex_lock(&w->lock);
	return rc;
}

static int commit(struct sopfs_world *w, struct sop_err *e)
{
	struct sopfs *f = w->mount;
	int rc;

	(void)sopfs_item_attr(w->fs, w->fs->root, &w->root, NULL);
	w->ended = true;
	rc = commit_txn(w, e);
	end(w, sopfs_stands(rc) ? 0 : rc);
	say(w, rc, e);
	atomic_fetch_add(sopfs_stands(rc)      ? &f->committed
			 : rc == SOP_ECONFLICT ? &f->conflicts
					       : &f->failed,
		1);
	if (!sopfs_stands(rc))
		atomic_fetch_add(&f->rolled_back, 1);
	if (rc)
		sop_log(f->o.log, SOP_LOG_WARNING, "txn", "op=commit name=%s code=%s: %s", w->name,
			sop_err_name(rc), w->message);
	return rc;
}

struct committing {
	struct sopfs_world *w;
	void (*done)(void *arg, struct sopfs_world *w, int rc, const struct sop_err *e);
	void *arg;
};

static void *commit_main(void *arg)
{
	struct committing c = *(struct committing *)arg;
	struct sopfs *f = c.w->mount;
	struct sop_err e = {0};
	int rc;

	free(arg);
	pthread_mutex_lock(&c.w->lock);
	if (c.w->ended)
		rc = c.w->why ? sop_say(&e, c.w->why, "%s", c.w->message) : -ESTALE;
	else
		rc = commit(c.w, &e);
	pthread_mutex_unlock(&c.w->lock);
	c.done(c.arg, c.w, rc, &e);
	sopfs_world_put(c.w);
	pthread_mutex_lock(&f->lock);
	f->committing--;
	pthread_cond_broadcast(&f->committed_one);
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* Signals are others' to take. */
static int start_thread(void *(*fn)(void *arg), void *arg)
{
	sigset_t all, old;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		pthread_detach(thread);
	return -rc;
}

int sopfs_world_commit(struct sopfs_world *w,
	void (*done)(void *arg, struct sopfs_world *w, int rc, const struct sop_err *e), void *arg)
{
	struct committing *c = malloc(sizeof(*c));
	struct sopfs *f = w->mount;
	int rc;

	if (!c)
		return -ENOMEM;
	*c = (struct committing){w, done, arg};
	pthread_mutex_lock(&f->lock);
	f->committing++;
	w->users++;
	pthread_mutex_unlock(&f->lock);
	rc = start_thread(commit_main, c);
	if (!rc)
		return 0;
	free(c);
	pthread_mutex_lock(&f->lock);
	f->committing--;
	pthread_mutex_unlock(&f->lock);
	sopfs_world_put(w);
	return rc;
}

void sopfs_world_held(struct sopfs_world *w, int more)
{
	bool last;

	pthread_mutex_lock(&w->mount->lock);
	w->hold_handles += (unsigned)more;
	last = more < 0 && !w->hold_handles;
	pthread_mutex_unlock(&w->mount->lock);
	if (last)
		roll_back(w, -ESTALE, "rolled back: who held it has gone");
}

size_t sopfs_world_message(struct sopfs_world *w, char *buf, size_t size, uint64_t off)
{
	size_t len, n;

	pthread_mutex_lock(&w->lock);
	len = strlen(w->message);
	n = off < len ? SOP_MIN(size, len - (size_t)off) : 0;
	memcpy(buf, w->message + SOP_MIN((size_t)off, len), n);
	pthread_mutex_unlock(&w->lock);
	return n;
}
