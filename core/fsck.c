/* fsck: looks at a volume from its labels up, repairs, and looks again.
 *
 * A look goes from what is needed first to what is needed last: labels, the replicas of journal,
 * checkpoint and registry, then (the volume opened read-only, its journal replayed in memory)
 * trees, names, blobs and accounts. It writes nothing.
 *
 * What was wrong counts as put right when the look after the repair does not find it any more.
 *
 * Beside a mounter. Nothing stops him, so one look may meet a state between two. What is told is
 * what two looks in a row found, word by word: between them the volume has been read from its
 * newest checkpoint anew, so a blob that was freed and punched meanwhile is not referred to any
 * more, and a tree that changed is another. While checkpoints come faster than looks, what was
 * found in trees and accounts is not told at all, and that is said. */
#include <stdarg.h>
#include <stdio.h>

#include "core/fsck_own.h"
#include "core/members_check.h"

#define LOOKS 4 /* at a volume that moves */

/* ---- findings ---- */

static char *keep(struct found_list *l, const char *text)
{
	char *s = strdup(text ? text : "");

	l->failed |= !s;
	return s;
}

void sop_found_add(struct found_list *l, const struct sop_finding *f, bool steady)
{
	struct found *x;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;

		x = realloc(l->f, cap * sizeof(*x));
		if (!x) {
			l->failed = true;
			return;
		}
		l->f = x;
		l->cap = cap;
	}
	x = &l->f[l->n++];
	*x = (struct found){.state = f->state,
		.object = keep(l, f->object),
		.what = keep(l, f->what),
		.next = keep(l, f->next),
		.off = f->off,
		.len = f->len,
		.steady = steady};
}

void sop_found_say(struct found_list *l, enum sop_found state, const char *object, const char *next,
	const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	sop_found_add(l,
		&(struct sop_finding){.state = state, .object = object, .what = what, .next = next},
		true);
}

void sop_found_release(struct found_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->f[i].object);
		free(l->f[i].what);
		free(l->f[i].next);
	}
	free(l->f);
	*l = (struct found_list){0};
}

static bool same(const struct found *a, const struct found *b)
{
	return a->off == b->off && a->len == b->len && !strcmp(a->object, b->object) &&
	       !strcmp(a->what, b->what);
}

static bool is_in(const struct found_list *l, const struct found *f)
{
	for (size_t i = 0; i < l->n; i++)
		if (same(&l->f[i], f))
			return true;
	return false;
}

static bool any(const struct found_list *l, enum sop_found state)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->f[i].state == state)
			return true;
	return false;
}

/* ---- a look ---- */

struct fsck {
	const struct sop_fsck_opts *o;
	const char *const *paths; /* as given */
	size_t n;
	struct sop_fsck_report *r;
	struct sop_err *e;
};

struct look {
	struct found_list l;
	struct replica_look rep;
	struct sop_label_check *labels;
	const char *paths[SOP_MEMBERS_MAX]; /* of the members that are there */
	size_t n;
	uint64_t epoch, lsn; /* of the checkpoint afterwards */
	bool trees;	     /* they have been looked at */
};

static void look_release(struct look *k)
{
	sop_found_release(&k->l);
	sop_label_check_free(k->labels);
	*k = (struct look){0};
}

static void label_found(void *ctx, const struct sop_finding *f)
{
	sop_found_add(ctx, f, true);
}

static void name_volume(struct fsck *f, const struct sop_label *l)
{
	if (l->name[0])
		snprintf(f->r->name, sizeof(f->r->name), "%s", l->name);
	else
		sop_uuid_format(f->r->name, &l->volume_uuid);
}

static int look_at_labels(struct fsck *f, struct look *k)
{
	const struct sop_label_check_opts o = {
		.timeout_ms = f->o->disk_timeout_ms ? f->o->disk_timeout_ms : 30000,
		.open_disk = f->o->open_disk,
		.open_disk_ctx = f->o->open_disk_ctx,
		.found = label_found,
		.ctx = &k->l};
	int rc = sop_label_check(&k->labels, f->paths, f->n, &o, f->e);

	if (rc)
		return rc;
	k->n = sop_label_check_paths(k->labels, k->paths);
	snprintf(f->r->user, sizeof(f->r->user), "%s", sop_label_check_claim(k->labels));
	name_volume(f, sop_label_check_newest(k->labels));
	return 0;
}

static void open_opts(const struct fsck *f, struct sop_open_opts *oo, bool write)
{
	*oo = (struct sop_open_opts){.read_only = !write,
		.exclusive = true,
		.degraded = true,
		.part_journal = write && f->o->discard_lost,
		.learn_segments = true,
		.no_threads = true,
		.disk_timeout_ms = f->o->disk_timeout_ms,
		.log = f->o->log,
		.inline_io = f->o->open_disk != NULL,
		.open_disk = f->o->open_disk,
		.open_disk_ctx = f->o->open_disk_ctx,
		.progress = f->o->progress,
		.progress_ctx = f->o->ctx};
}

/* learned: the accounts of segments are not as anybody has recorded them. */
static void take_records(struct look *k, const struct sop_check *c, bool learned)
{
	char path[4096], what[768];

	if (learned)
		sop_found_say(&k->l, SOP_FOUND_FIXABLE, "(table of segments)", "",
			"it cannot be read; it is made anew from the shard files");
	for (size_t i = 0; i < sop_check_count(c); i++) {
		const struct sop_check_record *rec = sop_check_record(c, i);
		struct sop_finding x = {.object = path,
			.what = what,
			.next = "",
			.off = rec->off,
			.len = rec->len,
			.state = sop_check_lost(rec->kind) ? SOP_FOUND_LOST : SOP_FOUND_FIXABLE};

		if (learned && rec->kind == SOP_CHECK_ACCOUNT)
			continue;
		sop_check_path(c, rec, path, sizeof(path));
		sop_check_what(c, rec, what, sizeof(what));
		sop_found_add(&k->l, &x,
			rec->kind == SOP_CHECK_SHARDS || rec->kind == SOP_CHECK_DATA ||
				rec->kind == SOP_CHECK_XATTRS);
	}
}

static int walk(struct fsck *f, struct look *k, struct sop_volume *v, bool data)
{
	const struct sop_check_opts o = {.nodes = true,
		.data = data,
		.progress = f->o->progress,
		.stop = f->o->stop,
		.ctx = f->o->ctx};
	const struct sop_check_report *r;
	struct sop_check *c;
	int rc;

	sop_lock(&v->ckpt_lock);
	sop_lock(&v->commit);
	rc = sop_check_run(&c, v, &o, f->e);
	sop_unlock(&v->commit);
	sop_unlock(&v->ckpt_lock);
	if (rc)
		return rc;
	r = sop_check_report(c);
	f->r->stores = r->stores;
	f->r->items = r->items;
	f->r->nodes = r->nodes;
	f->r->blobs = r->blobs;
	f->r->blob_bytes = r->blob_bytes;
	take_records(k, c, v->segments_learned);
	sop_check_free(c);
	k->trees = true;
	return 0;
}

/* Can what keeps the volume from being opened be made anew from the tree nodes? */
static bool rebuildable(const struct look *k)
{
	return k->rep.registry_lost || k->rep.no_checkpoint;
}

/* What keeps it from being opened is lost. What to do: --discard-lost makes up for a journal, and
 * for nothing else of what a mount needs. */
static const char *next_of_lost(const struct fsck *f, const struct look *k)
{
	struct sop_open_opts oo;
	struct sop_volume *v;

	open_opts(f, &oo, false);
	oo.part_journal = true;
	if (!sop_volume_open(&v, k->paths, k->n, &oo, NULL)) {
		sop_volume_close(v, NULL);
		return "";
	}
	return "bring back missing disks and check again; without them nothing in this volume can "
	       "be found any more: restore a backup to a new one";
}

/* With all disks there it is the last commit of a shared volume, cut off between them: who may
 * write settles it. */
static bool undecided(const struct look *k, int rc)
{
	return rc == SOP_EDISKS && sop_label_check_newest(k->labels)->flags & SOP_LABEL_SHARED &&
	       !sop_label_check_missing(k->labels);
}

static int look_at_trees(struct fsck *f, struct look *k, bool data)
{
	struct sop_open_opts oo;
	struct sop_volume *v;
	struct sop_err why = {0};
	struct sop_checkpoint c = {0};
	int rc;

	open_opts(f, &oo, false);
	rc = sop_volume_open(&v, k->paths, k->n, &oo, &why);
	if (rc == -ENOMEM || rc == -ECANCELED || rc == SOP_EVERSION)
		return sop_say(f->e, rc, "%s", why.text);
	if (rc) {
		struct sop_finding x = {.object = "(volume)", .what = why.text, .next = ""};

		x.state = rebuildable(k) || undecided(k, rc) ? SOP_FOUND_FIXABLE
			  : rc == SOP_EDISKS		     ? SOP_FOUND_HELP
							     : SOP_FOUND_LOST;
		if (x.state == SOP_FOUND_LOST)
			x.next = next_of_lost(f, k);
		sop_found_add(&k->l, &x, false);
		return 0;
	}
	rc = walk(f, k, v, data);
	if (!rc && !sop_checkpoint_load(&c, v->mem, NULL)) {
		k->epoch = c.epoch;
		k->lsn = c.lsn;
		sop_checkpoint_release(&c);
	}
	sop_volume_close(v, NULL);
	return rc;
}

static int look_once(struct fsck *f, struct look *k, bool trees, bool data)
{
	int rc;

	memset(k, 0, sizeof(*k));
	rc = look_at_labels(f, k);
	if (!rc && k->n)
		rc = sop_fsck_replicas(k->paths, k->n, f->o, &k->l, &k->rep, f->e);
	/* Where the registry is to be made anew, it would seem that all is lost. */
	if (!rc && k->n && !k->rep.registry_lost &&
		(trees || !k->rep.clean || any(&k->l, SOP_FOUND_FIXABLE)))
		rc = look_at_trees(f, k, data);
	if (!rc && k->l.failed)
		rc = sop_fail(f->e, -ENOMEM, "check");
	f->r->clean = k->rep.clean;
	f->r->quick = !k->trees && k->rep.clean;
	return rc;
}

/* ---- telling ---- */

static void tell(struct fsck *f, const struct found *x, enum sop_found state)
{
	f->r->found[state]++;
	if (f->o->found)
		f->o->found(f->o->ctx, &(struct sop_finding){.state = state,
					       .object = x->object,
					       .off = x->off,
					       .len = x->len,
					       .what = x->what,
					       .next = x->next});
}

static void tell_all(struct fsck *f, const struct found_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		tell(f, &l->f[i], l->f[i].state);
}

/* ---- beside a mounter ---- */

/* Has the checkpoint stood still from before the look to its end? */
static bool stood_still(const struct look *k)
{
	return !k->trees || (k->epoch == k->rep.epoch && k->lsn == k->rep.lsn);
}

static bool certain(const struct look *before, const struct look *k, const struct found *x)
{
	return is_in(&before->l, x) && (x->steady || (stood_still(before) && stood_still(k) &&
							     before->rep.epoch == k->rep.epoch &&
							     before->rep.lsn == k->rep.lsn));
}

static int look_twice(struct fsck *f)
{
	struct look before, now;
	bool left = true;
	int rc = look_once(f, &before, !f->o->quick, !f->o->no_data);

	for (unsigned i = 1; !rc && i < LOOKS && left; i++) {
		rc = look_once(f, &now, true, !f->o->no_data);
		if (rc) {
			look_release(&now);
			break;
		}
		left = false;
		for (size_t k = 0; k < now.l.n; k++)
			left = left || (i + 1 < LOOKS && is_in(&before.l, &now.l.f[k]) &&
					       !certain(&before, &now, &now.l.f[k]));
		if (left) {
			look_release(&before);
			before = now;
			continue;
		}
		for (size_t k = 0; k < now.l.n; k++)
			if (certain(&before, &now, &now.l.f[k]))
				tell(f, &now.l.f[k], now.l.f[k].state);
			else if (is_in(&before.l, &now.l.f[k]))
				f->r->unsteady = true;
		look_release(&now);
	}
	look_release(&before);
	return rc;
}

static int look_only(struct fsck *f)
{
	struct look k;
	int rc = look_once(f, &k, !f->o->quick, !f->o->no_data);

	/* A claim may be left from a crash: then two looks find the same. */
	if (!rc && k.l.n && f->r->user[0]) {
		look_release(&k);
		return look_twice(f);
	}
	tell_all(f, &k.l);
	look_release(&k);
	return rc;
}

/* ---- repairing ---- */

static int open_and_repair(struct fsck *f, struct look *k)
{
	struct sop_open_opts oo;
	struct sop_volume *v;
	bool changed = false;
	int rc;

	open_opts(f, &oo, true);
	/* Only what has been found lost before is given up, and not what cannot be read just now.
	 */
	oo.part_journal = oo.part_journal && any(&k->l, SOP_FOUND_LOST);
	rc = sop_volume_open(&v, k->paths, k->n, &oo, f->e);
	if (rc)
		return rc;
	rc = sop_registry_repair_all(v->reg, f->e);
	if (!rc)
		rc = sop_repair(v, f->o, &changed, f->e);
	if (rc)
		sop_volume_close(v, NULL);
	else
		rc = sop_volume_close(v, f->e);
	return rc;
}

static int put_right(struct fsck *f, struct look *k)
{
	int rc = sop_label_check_repair(k->labels, f->e);

	/* Now those that have a label again are members, too. */
	sop_label_check_free(k->labels);
	k->labels = NULL;
	if (!rc) {
		struct look again = {0};

		rc = look_at_labels(f, &again);
		sop_found_release(&again.l);
		k->labels = again.labels;
		k->n = again.n;
		memcpy(k->paths, again.paths, sizeof(k->paths));
	}
	if (!rc && rebuildable(k))
		rc = sop_rebuild(k->paths, k->n, f->o, f->e);
	return rc ? rc : open_and_repair(f, k);
}

/* What is lost hides what else may be there: names and accounts are not touched before. */
static void tell_left(struct fsck *f, struct look *now)
{
	bool lost = any(&now->l, SOP_FOUND_LOST);

	for (size_t i = 0; i < now->l.n; i++) {
		struct found x = now->l.f[i];
		char waits[] =
			"it waits for what is lost: bring back missing disks, or run it with "
			"--discard-lost";

		if (lost && x.state == SOP_FOUND_FIXABLE && !x.steady && !x.next[0])
			x.next = waits;
		tell(f, &x, x.state);
	}
}

static void tell_difference(struct fsck *f, const struct look *before, struct look *now)
{
	for (size_t i = 0; i < before->l.n; i++) {
		const struct found *x = &before->l.f[i];

		if (is_in(&now->l, x))
			continue;
		/* What is made up for by what there is loses nothing. */
		if (x->state == SOP_FOUND_LOST)
			tell(f, x, f->o->discard_lost ? SOP_FOUND_DISCARDED : SOP_FOUND_FIXED);
		else
			tell(f, x, x->state == SOP_FOUND_NOTE ? SOP_FOUND_NOTE : SOP_FOUND_FIXED);
	}
	tell_left(f, now);
}

static bool work_to_do(const struct fsck *f, const struct look *k)
{
	return any(&k->l, SOP_FOUND_FIXABLE) || (f->o->discard_lost && any(&k->l, SOP_FOUND_LOST));
}

/* Of a volume that somebody has, one look tells nothing that is certain: so this comes first. */
static int nobody_has_it(struct fsck *f)
{
	struct look k = {0};
	int rc = look_at_labels(f, &k);

	if (!rc)
		rc = sop_label_check_free_now(k.labels, f->e);
	look_release(&k);
	return rc;
}

/* What seems lost may be on a disk that is not here. */
static int nothing_may_come_back(struct fsck *f, const struct look *k)
{
	const char *path = sop_label_check_missing(k->labels);

	if (!f->o->discard_lost || f->o->force || !path || !any(&k->l, SOP_FOUND_LOST))
		return 0;
	return sop_say(f->e, SOP_EDISKS,
		"nothing is discarded while a disk is missing (%s), which may have what seems "
		"lost; -f as well when it is gone for good",
		path);
}

/* The replacing of a disk, or its removal, ends with the repair: those given may be no members any
 * more, and only the others tell of the volume. */
static int look_again(struct fsck *f, const struct look *before, struct look *now)
{
	sop_autofree const char **paths = reallocarray(NULL, f->n + before->n, sizeof(*paths));
	struct fsck all = *f;

	*now = (struct look){0};
	if (!paths)
		return sop_fail(f->e, -ENOMEM, "check");
	memcpy(paths, f->paths, f->n * sizeof(*paths));
	memcpy(paths + f->n, before->paths, before->n * sizeof(*paths));
	all.paths = paths;
	all.n += before->n;
	return look_once(&all, now, true, !f->o->no_data);
}

static int look_and_repair(struct fsck *f)
{
	struct look before, now;
	int rc = nobody_has_it(f);

	if (rc)
		return rc;
	rc = look_once(f, &before, !f->o->quick, !f->o->no_data);
	if (rc || !work_to_do(f, &before)) {
		tell_all(f, &before.l);
		look_release(&before);
		return rc;
	}
	rc = nothing_may_come_back(f, &before);
	if (!rc)
		rc = put_right(f, &before);
	if (rc) { /* what it has done shows in the next look, by whomever */
		tell_all(f, &before.l);
		look_release(&before);
		return rc;
	}
	rc = look_again(f, &before, &now);
	if (rc) /* what it has not come to may still be there */
		tell_all(f, &before.l);
	else
		tell_difference(f, &before, &now);
	look_release(&now);
	look_release(&before);
	return rc;
}

int sop_fsck(const char *const *paths, size_t n, const struct sop_fsck_opts *o,
	struct sop_fsck_report *out, struct sop_err *e)
{
	struct sop_err own = {0};
	struct fsck f = {.o = o, .paths = paths, .n = n, .r = out, .e = e ? e : &own};

	memset(out, 0, sizeof(*out));
	return o->repair ? look_and_repair(&f) : look_only(&f);
}
