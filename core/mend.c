#include "core/mend.h"
#include "core/shared.h"

#include <stdio.h>

#define REPAIRS_MAX   256u
#define LOST_MAX      256u
#define SUSPECTS_MAX  (1u << 20) /* of a kind */
#define MANY_SUSPECTS 65536u	 /* worth a walk over all items by now */
#define HELD_MAX      1024u	 /* segments that a scrub goes back at most when it is cut */
#define TASKS_MAX     16u
#define TICK_MS	      1000
#define RETRY_MS      10000u /* work that could not be done is tried again after this */
#define ROUNDS_MAX    1000u

/* What a segment is asked about. */
struct seg {
	uint64_t id, live;
	bool recorded;
	struct sop_segment_info info;
	bool lossy; /* healed, and not all could be read */
};

struct segs {
	struct seg *seg;
	size_t n;
};

/* A task under way, or the last of its kind. */
struct work {
	struct sop_task t;
	bool used;
	uint64_t mark_bytes, mark_ms; /* where the rate is measured from */
};

enum scrub_state { SCRUB_NONE, SCRUB_RUNNING, SCRUB_PAUSED, SCRUB_FINISHED, SCRUB_STOPPED };

/* Fragments that nobody could read: perhaps of freed blobs. */
struct suspects {
	struct sop_blobref *ref;
	size_t n, cap;
};

enum { SUSPECT_DATA, SUSPECT_NODES, SUSPECT_KINDS };

struct sop_mender {
	struct sop_volume *v;
	struct sop_lock lock; /* LEAF; covers what follows */
	pthread_cond_t cond;
	pthread_t thread;
	bool started, stop, kick, at_once;
	struct sop_blobref repair[REPAIRS_MAX];
	size_t n_repair;
	struct sop_lost lost[LOST_MAX];
	size_t n_lost;
	struct work work[TASKS_MAX];
	uint64_t missing[SOP_MEMBERS_MAX];
	bool again[SOP_MEMBERS_MAX]; /* to be surveyed again */

	/* The scrub; changed by calls and by the thread. */
	enum scrub_state scrub;
	uint64_t rate, cursor; /* all segments up to the cursor are done */
	bool scrub_dirty;      /* differs from the record */
	unsigned begun;	       /* scrubs */
	uint64_t bucket_ms;    /* pace: when bucket_bytes were allowed from */
	uint64_t bucket_bytes;

	/* The thread's alone. */
	uint64_t replica_ms[SOP_MEMBERS_MAX];		 /* not before */
	uint64_t heal_ms, drain_ms, moves_ms, strays_ms; /* not before */
	bool moved; /* shards, and no checkpoint of this thread has said so since */
	uint64_t surveyed[SOP_MEMBERS_MAX]; /* the stay that was; 0: none */
	unsigned strays[SOP_MEMBERS_MAX];   /* that may not go yet, of who is not drained */
	unsigned this_scrub;		    /* which it is */
	struct suspects suspect[SUSPECT_KINDS];
	uint64_t untold; /* what counts as lost, and has not been counted */
};

/* On disk: how far a scrub has come. Under (be64 1, 't') in the master store. */
struct disk_scrub {
	uint8_t version; /* 1 */
	uint8_t state;	 /* enum scrub_state */
	uint8_t pad[6];
	struct le64 rate, cursor, started_ns, ended_ns, total, done, repaired, corrected,
		unrecoverable;
};

static uint64_t now_ms(const struct sop_mender *m)
{
	return m->v->clock->monotonic_ms(m->v->clock->ctx);
}

static struct timespec now(const struct sop_mender *m)
{
	return sop_now(m->v);
}

/* ---- life ---- */

struct sop_mender *sop_mender_new(struct sop_volume *v)
{
	struct sop_mender *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->v = v;
	sop_lock_init(&m->lock, SOP_RANK_LEAF, "mender");
	sop_cond_init(&m->cond);
	return m;
}

void sop_mender_free(struct sop_mender *m)
{
	if (!m)
		return;
	sop_mender_stop(m);
	pthread_cond_destroy(&m->cond);
	sop_lock_release(&m->lock);
	for (unsigned i = 0; i < SUSPECT_KINDS; i++)
		free(m->suspect[i].ref);
	free(m);
}

void sop_mender_kick(struct sop_mender *m)
{
	SOP_LOCK_GUARD(&m->lock);
	m->kick = true;
	pthread_cond_signal(&m->cond);
}

void sop_mender_retry(struct sop_mender *m)
{
	sop_lock(&m->lock);
	m->at_once = true;
	sop_unlock(&m->lock);
	sop_mender_kick(m);
}

void sop_mender_stop(struct sop_mender *m)
{
	bool started;

	sop_lock(&m->lock);
	m->stop = true;
	started = m->started;
	m->started = false;
	pthread_cond_broadcast(&m->cond);
	sop_unlock(&m->lock);
	if (started)
		pthread_join(m->thread, NULL);
}

void sop_mender_repair(void *ctx, const struct sop_blobref *ref)
{
	struct sop_mender *m = ctx;

	SOP_LOCK_GUARD(&m->lock);
	if (m->n_repair == REPAIRS_MAX) /* the next read or scrub will see it */
		return;
	for (size_t i = 0; i < m->n_repair; i++)
		if (m->repair[i].segment == ref->segment && m->repair[i].off == ref->off)
			return;
	m->repair[m->n_repair++] = *ref;
	m->kick = true;
	pthread_cond_signal(&m->cond);
}

/* ---- tasks ---- */

static bool is_over(const struct sop_task *t)
{
	return t->state >= SOP_TASK_FINISHED;
}

/* Under the lock. The one under way, or NULL. */
static struct work *running(struct sop_mender *m, enum sop_task_kind kind, int disk)
{
	for (size_t i = 0; i < TASKS_MAX; i++) {
		struct work *w = &m->work[i];

		if (w->used && w->t.kind == kind && !is_over(&w->t) &&
			(kind == SOP_TASK_HEAL || kind == SOP_TASK_SCRUB || w->t.disk == disk))
			return w;
	}
	return NULL;
}

/* Under the lock. Found, or begun: in a free place, or that of the last of its kind that has ended.
 */
static struct work *begin(struct sop_mender *m, enum sop_task_kind kind, int disk)
{
	struct work *w = running(m, kind, disk), *free_one = NULL;

	if (w)
		return w;
	for (size_t i = 0; i < TASKS_MAX; i++) {
		if (m->work[i].used && m->work[i].t.kind == kind && is_over(&m->work[i].t))
			w = &m->work[i];
		if (!m->work[i].used && !free_one)
			free_one = &m->work[i];
	}
	w = w ? w : free_one ? free_one : &m->work[0];
	*w = (struct work){.used = true,
		.mark_ms = now_ms(m),
		.t = {.kind = kind, .state = SOP_TASK_RUNNING, .disk = disk, .started = now(m)}};
	return w;
}

static void finish(struct sop_mender *m, enum sop_task_kind kind, int disk, enum sop_task_state how)
{
	struct sop_task t;
	struct work *w;

	sop_lock(&m->lock);
	w = running(m, kind, disk);
	if (!w) {
		sop_unlock(&m->lock);
		return;
	}
	w->t.state = how;
	w->t.ended = now(m);
	w->t.bytes_per_s = 0;
	w->t.message[0] = '\0';
	if (how == SOP_TASK_FINISHED)
		w->t.bytes_done = w->t.bytes_total;
	t = w->t;
	sop_unlock(&m->lock);
	sop_log(m->v->log, SOP_LOG_INFO, "mend",
		"op=%s disk=%d state=%s bytes=%llu repaired=%llu unrecoverable=%llu",
		sop_task_kind_name(kind), disk, sop_task_state_name(how),
		(unsigned long long)t.bytes_done, (unsigned long long)t.repaired_bytes,
		(unsigned long long)t.unrecoverable);
}

static void wait_for(struct sop_mender *m, enum sop_task_kind kind, int disk, const char *why)
{
	bool news = false;
	struct work *w;

	sop_lock(&m->lock);
	w = running(m, kind, disk);
	if (w) {
		news = strncmp(w->t.message, why, sizeof(w->t.message) - 1) != 0;
		w->t.state = SOP_TASK_WAITING;
		w->t.bytes_per_s = 0;
		snprintf(w->t.message, sizeof(w->t.message), "%.*s", (int)sizeof(w->t.message) - 1,
			why);
	}
	sop_unlock(&m->lock);
	if (news)
		sop_log(m->v->log, SOP_LOG_WARNING, "mend", "op=%s disk=%d: waits: %s",
			sop_task_kind_name(kind), disk, why);
}

/* Under the lock. */
static void advance(struct sop_mender *m, struct work *w, uint64_t bytes)
{
	uint64_t t = now_ms(m);

	w->t.bytes_done += bytes;
	if (t - w->mark_ms < 1000)
		return;
	w->t.bytes_per_s = (w->t.bytes_done - w->mark_bytes) * 1000 / (t - w->mark_ms);
	w->mark_bytes = w->t.bytes_done;
	w->mark_ms = t;
}

bool sop_volume_task(struct sop_volume *v, unsigned i, struct sop_task *out)
{
	struct sop_mender *m = v->mender;

	if (!m)
		return false;
	SOP_LOCK_GUARD(&m->lock);
	for (size_t k = 0; k < TASKS_MAX; k++)
		if (m->work[k].used && !i--) {
			*out = m->work[k].t;
			return true;
		}
	return false;
}

bool sop_volume_lost(struct sop_volume *v, unsigned i, struct sop_lost *out)
{
	struct sop_mender *m = v->mender;

	if (!m)
		return false;
	SOP_LOCK_GUARD(&m->lock);
	if (i >= m->n_lost)
		return false;
	*out = m->lost[i];
	return true;
}

void sop_mender_forget_lost(struct sop_mender *m)
{
	SOP_LOCK_GUARD(&m->lock);
	m->n_lost = 0;
}

void sop_mender_returned(struct sop_mender *m, unsigned i)
{
	sop_lock(&m->lock);
	m->again[i] = true;
	sop_unlock(&m->lock);
	sop_mender_kick(m);
}

void sop_mender_cancelled(struct sop_mender *m, unsigned i)
{
	finish(m, SOP_TASK_REPLACE, (int)i, SOP_TASK_STOPPED);
	finish(m, SOP_TASK_REMOVE, (int)i, SOP_TASK_STOPPED);
	sop_lock(&m->lock);
	m->missing[i] = 0;
	m->again[i] = true;
	sop_unlock(&m->lock);
	sop_mender_kick(m);
}

uint64_t sop_mender_missing(struct sop_mender *m, unsigned i)
{
	SOP_LOCK_GUARD(&m->lock);
	return m->missing[i];
}

/* ---- segments ---- */

struct listing {
	struct sop_mender *m;
	struct segs *s;
	size_t cap;
};

static int list_one(void *arg, const struct sop_space_seg *g)
{
	struct listing *l = arg;

	if (l->s->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 256;
		struct seg *p = realloc(l->s->seg, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->s->seg = p;
		l->cap = cap;
	}
	l->s->seg[l->s->n++] = (struct seg){.id = g->id, .live = g->live, .recorded = g->recorded};
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct seg *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static int list_segments(struct sop_mender *m, struct segs *s, struct sop_err *e)
{
	struct listing l = {.m = m, .s = s};
	size_t left = 0;
	int rc = sop_space_list(m->v->space, list_one, &l);

	if (rc)
		return sop_fail(e, rc, "list of segments");
	for (size_t i = 0; i < s->n; i++)
		if (!sop_segments_info(m->v->seg, s->seg[i].id, &s->seg[i].info, NULL))
			s->seg[left++] = s->seg[i];
	s->n = left;
	if (left)
		qsort(s->seg, left, sizeof(*s->seg), by_id);
	return 0;
}

/* What a segment's work reports to, between pieces. */
struct pace {
	struct sop_mender *m;
	enum sop_task_kind kind;
	int disk;	 /* the task's */
	unsigned target; /* member whose missing bytes get less; or SOP_MEMBERS_MAX */
	unsigned shards;
	uint64_t done, read, repaired, corrected;
	uint64_t found, rotten; /* of what has been mended last: bytes, fragments */
};

/* The rate of a scrub: sleep until what was read is allowed. Under the lock. */
static void hold_back(struct sop_mender *m, uint64_t bytes)
{
	uint64_t t = now_ms(m), due;

	if (!m->rate || m->v->opts.no_threads)
		return;
	m->bucket_bytes += bytes;
	due = m->bucket_ms + m->bucket_bytes * 1000 / m->rate;
	while (t < due && !m->stop && m->scrub == SCRUB_RUNNING) {
		sop_cond_wait(&m->cond, &m->lock, (long)SOP_MIN(due - t, (uint64_t)500));
		t = now_ms(m);
	}
	if (t > due + 1000) { /* what was not used is not saved up */
		m->bucket_ms = t;
		m->bucket_bytes = 0;
	}
}

static int pace(void *arg, const struct sop_mend_report *r)
{
	struct pace *p = arg;
	struct sop_mender *m = p->m;
	uint64_t read = r->read_bytes - p->read;
	uint64_t done = p->kind == SOP_TASK_SCRUB ? read : (r->done_bytes - p->done) * p->shards;
	struct work *w;

	SOP_LOCK_GUARD(&m->lock);
	w = running(m, p->kind, p->disk);
	if (w) {
		advance(m, w, done);
		w->t.repaired_bytes += (r->written_bytes + r->repaired_bytes) - p->repaired;
		w->t.corrected += r->corrected - p->corrected;
	}
	if (p->target < SOP_MEMBERS_MAX)
		m->missing[p->target] -= SOP_MIN(m->missing[p->target], done);
	p->done = r->done_bytes;
	p->read = r->read_bytes;
	p->repaired = r->written_bytes + r->repaired_bytes;
	p->corrected = r->corrected;
	if (p->kind == SOP_TASK_SCRUB) {
		hold_back(m, read);
		if (m->scrub != SCRUB_RUNNING || m->this_scrub != m->begun)
			return -ECANCELED;
	}
	return m->stop ? -ECANCELED : 0;
}

static bool stopping(struct sop_mender *m)
{
	SOP_LOCK_GUARD(&m->lock);
	return m->stop;
}

static void lost_more(struct sop_mender *m, enum sop_task_kind kind, int disk, uint64_t n)
{
	struct work *w;

	SOP_LOCK_GUARD(&m->lock);
	w = running(m, kind, disk);
	if (w && (kind != SOP_TASK_SCRUB || m->this_scrub == m->begun))
		w->t.unrecoverable += n;
}

static bool note_suspect(struct suspects *s, const struct sop_blobref *ref)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct sop_blobref *more =
			cap > SUSPECTS_MAX ? NULL : reallocarray(s->ref, cap, sizeof(*more));

		if (!more)
			return false;
		s->ref = more;
		s->cap = cap;
	}
	s->ref[s->n++] = *ref;
	return true;
}

static void suspect(void *arg, const struct sop_blobref *ref, uint8_t kind)
{
	struct pace *p = arg;
	struct sop_mender *m = p->m;

	/* Without room to find out whether anybody refers to it, it counts. */
	m->untold += !note_suspect(
		&m->suspect[kind == SOP_BLOB_DATA ? SUSPECT_DATA : SUSPECT_NODES], ref);
}

static size_t suspects(const struct sop_mender *m)
{
	return m->suspect[SUSPECT_DATA].n + m->suspect[SUSPECT_NODES].n + m->untold;
}

static void count_name(void *arg, const char *name, uint64_t off, uint64_t len)
{
	(void)name;
	(void)off;
	(void)len;
	++*(uint64_t *)arg;
}

static void count_node(void *arg, uint64_t handle)
{
	(void)handle;
	++*(uint64_t *)arg;
}

/* How many there were, to look at the later ones alone, or to forget them. */
struct mark {
	size_t n[SUSPECT_KINDS];
	uint64_t untold;
};

static struct mark suspects_so_far(const struct sop_mender *m)
{
	return (struct mark){.n = {m->suspect[SUSPECT_DATA].n, m->suspect[SUSPECT_NODES].n},
		.untold = m->untold};
}

static void forget_since(struct sop_mender *m, const struct mark *had)
{
	for (unsigned of = 0; of < SUSPECT_KINDS; of++)
		m->suspect[of].n = had->n[of];
	m->untold = had->untold;
}

/* Does anybody refer to a later one, for all that is known? */
static bool in_use(struct sop_mender *m, const struct mark *had)
{
	const struct suspects *data = &m->suspect[SUSPECT_DATA],
			      *nodes = &m->suspect[SUSPECT_NODES];
	size_t d = had->n[SUSPECT_DATA], k = had->n[SUSPECT_NODES];
	uint64_t found = 0;

	if (m->untold > had->untold)
		return true;
	if (nodes->n > k &&
		sop_refs_nodes(m->v, nodes->ref + k, nodes->n - k, count_node, &found, NULL))
		return true;
	if (!found && data->n > d &&
		sop_refs_name(m->v, data->ref + d, data->n - d, count_name, &found, NULL))
		return true;
	return found != 0;
}

struct naming {
	struct sop_mender *m;
	enum sop_task_kind kind;
	uint64_t found;
};

/* A blob that is in use and cannot be read. */
static void name_lost(void *arg, const char *name, uint64_t off, uint64_t len)
{
	struct naming *n = arg;
	struct sop_mender *m = n->m;

	n->found++;
	sop_log(m->v->log, SOP_LOG_ERROR, "mend",
		"op=%s off=%llu len=%llu code=SOP_ELOST: %s: cannot be read",
		sop_task_kind_name(n->kind), (unsigned long long)off, (unsigned long long)len,
		name);
	SOP_LOCK_GUARD(&m->lock);
	for (size_t i = 0; i < m->n_lost; i++)
		if (m->lost[i].off == off && !strcmp(m->lost[i].name, name)) {
			m->lost[i].when = now(m);
			return;
		}
	if (m->n_lost < LOST_MAX) {
		struct sop_lost *l = &m->lost[m->n_lost++];

		*l = (struct sop_lost){.off = off, .len = len, .when = now(m)};
		snprintf(l->name, sizeof(l->name), "%s", name);
	}
}

/* One that is free already, and only still seen by a reader, has no handle. */
static void name_node(void *arg, uint64_t handle)
{
	char name[64];

	if (!handle)
		return;
	snprintf(name, sizeof(name), "node %llu of the directories' trees",
		(unsigned long long)handle);
	name_lost(arg, name, 0, 0);
}

/* Those that somebody refers to are named; the number of them. Where that cannot be found out, all
 * of them count. */
static uint64_t name_suspects(struct sop_mender *m, unsigned of, enum sop_task_kind kind)
{
	struct suspects *s = &m->suspect[of];
	struct naming n = {m, kind, 0};
	struct sop_err e = {0};
	int rc = 0;

	if (s->n)
		rc = of == SUSPECT_NODES ? sop_refs_nodes(m->v, s->ref, s->n, name_node, &n, &e)
					 : sop_refs_name(m->v, s->ref, s->n, name_lost, &n, &e);
	if (rc)
		sop_log(m->v->log, SOP_LOG_ERROR, "mend",
			"op=%s fragments=%zu code=%s: cannot be read, nor who needs them: %s",
			sop_task_kind_name(kind), s->n, sop_err_name(rc), e.text);
	return rc ? SOP_MAX(n.found, (uint64_t)s->n) : n.found;
}

static void resolve_suspects(struct sop_mender *m, enum sop_task_kind kind, int disk)
{
	uint64_t lost = m->untold;

	for (unsigned of = 0; of < SUSPECT_KINDS; of++)
		lost += name_suspects(m, of, kind);
	if (lost)
		lost_more(m, kind, disk, lost);
	forget_since(m, &(struct mark){.untold = 0});
}

/* Of what is healed or moved. When an unmount cuts the work, finding out who needs them would hold
 * that up: what was moved is read back by the next mount, what was healed is healed once more. */
static void tell_lost(struct sop_mender *m, enum sop_task_kind kind, int disk)
{
	if (!stopping(m))
		resolve_suspects(m, kind, disk);
	else if (suspects(m))
		sop_log(m->v->log, SOP_LOG_WARNING, "mend",
			"op=%s fragments=%zu: cannot be read; the next mount will tell who needs "
			"them",
			sop_task_kind_name(kind), suspects(m));
}

/* The shards of a segment are written anew (or verified and mended, where they are). */
static int mend_shards(struct sop_mender *m, const struct seg *g, uint32_t shards,
	const uint16_t *to, struct pace *p, struct sop_err *e)
{
	struct mark had = suspects_so_far(m);
	struct sop_mend_report r;
	struct sop_mend_opts o = {
		.shards = shards, .to = to, .pace = pace, .lost = suspect, .arg = p};
	int rc;

	p->m = m;
	p->shards = (unsigned)__builtin_popcount(shards);
	rc = sop_segment_mend(m->v->seg, g->id, &o, &r, e);
	/* What cannot be read now may be of blobs that nobody has any more. */
	if (rc == SOP_EDISKS && r.lost && !in_use(m, &had)) {
		o.ignore_lost = true;
		forget_since(m, &had);
		p->done = p->read = p->repaired = p->corrected = 0;
		rc = sop_segment_mend(m->v->seg, g->id, &o, &r, e);
	}
	if (rc) { /* it is to be done again */
		forget_since(m, &had);
		return rc;
	}
	p->found = r.found_bytes;
	p->rotten = r.rotten;
	if (suspects(m) > MANY_SUSPECTS)
		resolve_suspects(m, p->kind, p->disk);
	if (!to)
		for (unsigned i = 0; i < SOP_EC_MAX; i++)
			if (shards >> i & 1)
				sop_members_repaired(m->v->mem, g->info.disks[i], r.written_bytes);
	return 0;
}

/* ---- watch ---- */

/* Do the media say where the shards lie that were moved? Else the next mount looks for them where
 * they lay before. */
static bool moves_recorded(struct sop_mender *m)
{
	struct sop_err e = {0};

	if (!m->moved)
		return true;
	if (now_ms(m) < m->moves_ms)
		return false;
	if (!sop_checkpoint_run(m->v, false, &e)) {
		m->moved = false;
		return true;
	}
	m->moves_ms = now_ms(m) + RETRY_MS;
	sop_log(m->v->log, SOP_LOG_WARNING, "mend",
		"op=survey code=%s: what was moved stays in both places: %s", sop_err_name(e.code),
		e.text);
	return false;
}

static void survey(struct sop_mender *m)
{
	sop_lock(&m->lock);
	for (unsigned i = 0; i < SOP_MEMBERS_MAX; i++)
		if (m->again[i])
			m->surveyed[i] = m->again[i] = false;
	sop_unlock(&m->lock);
	for (unsigned i = 0; i < sop_members_count(m->v->mem); i++) {
		uint64_t stay = sop_members_stay(m->v->mem, i);
		struct sop_member_status s;
		unsigned kept;

		sop_members_status(m->v->mem, i, &s);
		if (!s.present || !(s.role & SOP_ROLE_DATA) || m->surveyed[i] == stay)
			continue;
		/* It removes what lies elsewhere by now, unless the disk is still drained: that may
		 * have been cancelled. */
		if (!moves_recorded(m))
			return;
		if (sop_segments_survey(m->v->seg, i, &kept, NULL))
			continue;
		m->surveyed[i] = stay;
		m->strays[i] = kept;
	}
}

static bool watch(struct sop_mender *m)
{
	struct sop_member_set back;
	bool at_once, any;

	sop_lock(&m->lock);
	at_once = m->at_once;
	m->at_once = false;
	sop_unlock(&m->lock);
	any = sop_members_watch(m->v->mem, at_once, &back);
	for (unsigned i = 0; i < SOP_MEMBERS_MAX; i++)
		if (!sop_members_disk(m->v->mem, i) || back.bits[i / 64] >> (i % 64) & 1)
			m->replica_ms[i] = 0;
	survey(m);
	if (any)
		m->heal_ms = m->drain_ms = m->strays_ms = 0;
	return any;
}

/* ---- repair on read ---- */

static bool repairs(struct sop_mender *m)
{
	struct sop_blobref ref;
	bool any = false;

	for (;;) {
		uint32_t good;

		sop_lock(&m->lock);
		any = any || m->n_repair;
		if (!m->n_repair || m->stop) {
			sop_unlock(&m->lock);
			return any;
		}
		ref = m->repair[--m->n_repair];
		sop_unlock(&m->lock);
		/* It logs what it does; what is lost was told to the reader. */
		(void)sop_blob_verify(m->v->seg, &ref, true, &good, NULL);
	}
}

/* ---- what is missing ---- */

static uint32_t stale_here(struct sop_mender *m, const struct sop_segment_info *info)
{
	uint32_t here = 0;

	for (unsigned i = 0; i < (unsigned)info->k + info->m; i++) {
		struct sop_member_status s;

		if (!(info->stale >> i & 1))
			continue;
		sop_members_status(m->v->mem, info->disks[i], &s);
		if (s.present && s.state == SOP_MEMBER_ONLINE)
			here |= 1u << i;
	}
	return here;
}

/* What is to be done, noted for status. The shares of all disks; *disk: the one, -1: several. */
static uint64_t heal_total(struct sop_mender *m, const struct segs *s, int *disk)
{
	uint64_t missing[SOP_MEMBERS_MAX] = {0}, total = 0;

	*disk = -2;
	for (size_t i = 0; i < s->n; i++) {
		const struct sop_segment_info *info = &s->seg[i].info;
		uint32_t here = stale_here(m, info);

		for (unsigned k = 0; k < SOP_EC_MAX; k++) {
			if (!(here >> k & 1))
				continue;
			total += info->end;
			missing[info->disks[k]] += info->end;
			*disk = *disk == -2 || *disk == info->disks[k] ? info->disks[k] : -1;
		}
	}
	SOP_LOCK_GUARD(&m->lock);
	memcpy(m->missing, missing, sizeof(missing));
	return total;
}

/* A disk whose replica is current counts as healing by this alone: it must be known before. */
static void note_missing(struct sop_mender *m)
{
	struct segs s = {0};
	int disk;

	if (!list_segments(m, &s, NULL))
		(void)heal_total(m, &s, &disk);
	free(s.seg);
}

/* ---- replicas ---- */

/* One that is here and behind: the table on the media must say what its shards lack, then its
 * replica is brought up to date. True: something was done. */
static bool replicas(struct sop_mender *m)
{
	struct sop_volume *v = m->v;
	bool any = false;

	for (unsigned i = 0; i < sop_members_count(v->mem) && !stopping(m); i++) {
		uint64_t stay = sop_members_stay(v->mem, i);
		struct sop_member_status s;
		struct sop_err e = {0};
		int rc;

		sop_members_status(v->mem, i, &s);
		if (!s.present || !s.role || s.current || now_ms(m) < m->replica_ms[i] ||
			(s.role & SOP_ROLE_DATA && m->surveyed[i] != stay))
			continue;
		note_missing(m);
		rc = sop_checkpoint_run(v, false, &e);
		if (!rc)
			rc = s.role & SOP_ROLE_REGISTRY
				     ? sop_mend_replica(v, i, stay, &e)
				     : sop_members_replica_current(v->mem, i, stay, &e);
		any = any || !rc;
		if (!rc)
			continue;
		m->replica_ms[i] = now_ms(m) + RETRY_MS;
		sop_log(v->log, SOP_LOG_WARNING, "mend", "op=replica disk=%u code=%s: %s", i,
			sop_err_name(rc), e.text);
	}
	return any;
}

/* ---- heal ---- */

/* The unmount has come before it was told what could not be healed (or just then): the next mount
 * will not know but from these. */
static void heal_again(struct sop_mender *m, const struct segs *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->seg[i].lossy)
			sop_segments_stale(m->v->seg, s->seg[i].id, s->seg[i].info.stale);
}

static bool heal(struct sop_mender *m, struct sop_err *e)
{
	struct segs s = {0};
	uint64_t total;
	bool failed = false;
	struct work *w;
	int disk;
	int rc = now_ms(m) < m->heal_ms ? 1 : list_segments(m, &s, e);

	if (rc)
		return false;
	total = heal_total(m, &s, &disk);
	if (!total) {
		free(s.seg);
		finish(m, SOP_TASK_HEAL, -1, SOP_TASK_FINISHED);
		return false;
	}
	sop_lock(&m->lock);
	w = begin(m, SOP_TASK_HEAL, disk);
	w->t.state = SOP_TASK_RUNNING;
	w->t.disk = disk;
	w->t.message[0] = '\0';
	w->t.bytes_total = w->t.bytes_done + total;
	sop_unlock(&m->lock);
	for (size_t i = 0; i < s.n && !stopping(m); i++) {
		uint32_t shards = stale_here(m, &s.seg[i].info);
		struct pace p = {.kind = SOP_TASK_HEAL,
			.disk = disk,
			.target = disk >= 0 ? (unsigned)disk : SOP_MEMBERS_MAX};
		size_t had = suspects(m);

		if (!shards)
			continue;
		rc = mend_shards(m, &s.seg[i], shards, NULL, &p, e);
		s.seg[i].lossy = !rc && suspects(m) != had;
		if (!rc || rc == -ENOENT)
			continue;
		failed = true;
		if (rc == -ECANCELED)
			break;
		wait_for(m, SOP_TASK_HEAL, disk, e->text);
		if (rc == -ENOSPC || rc == -ENOMEM)
			break;
	}
	tell_lost(m, SOP_TASK_HEAL, disk);
	if (stopping(m))
		heal_again(m, &s);
	free(s.seg);
	if (failed)
		m->heal_ms = now_ms(m) + RETRY_MS;
	else if (!stopping(m)) /* the next mount goes on with what is left */
		finish(m, SOP_TASK_HEAL, -1, SOP_TASK_FINISHED);
	return !failed;
}

/* ---- drain ---- */

/* The shard of the segment on a member, or -1. */
static int shard_on(const struct sop_segment_info *info, unsigned member)
{
	for (unsigned i = 0; i < (unsigned)info->k + info->m; i++)
		if (info->disks[i] == member)
			return (int)i;
	return -1;
}

#define READ_BACK_MAX 3u /* times that what is found wrong is written anew, and read again */

/* What was written to a disk, and is not as it was written. */
static void count_wrong(
	struct sop_mender *m, const struct sop_segment_info *info, unsigned shard, uint64_t wrong)
{
	unsigned disk = info->disks[shard];

	if (!wrong)
		return;
	sop_log(m->v->log, SOP_LOG_WARNING, "mend",
		"op=read-back segment=%016llx disk=%u fragments=%llu code=SOP_ECORRUPT: not what "
		"was "
		"written there, written anew",
		(unsigned long long)info->id, disk, (unsigned long long)wrong);
	for (uint64_t k = 0; k < wrong; k++)
		sop_members_event(m->v->mem, disk, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
}

static bool draining(struct sop_mender *m, unsigned i)
{
	struct sop_member_status s;

	sop_members_status(m->v->mem, i, &s);
	return s.state == SOP_MEMBER_DRAINING && !stopping(m);
}

/* The file that the move of a shard has left on `from`, if it has, is there more in it? 1: the
 * shard lies there again, and the media say so: the new file may be begun anew. */
static int fall_back(struct sop_mender *m, const struct sop_segment_info *at, unsigned shard,
	unsigned from, const struct pace *p, struct sop_err *e)
{
	struct sop_mend_opts o = {.verify = true, .no_repair = true};
	struct sop_mend_report old;
	int rc;

	if (!sop_members_disk(m->v->mem, from))
		return 0;
	sop_segments_place(m->v->seg, at->id, shard, from, false);
	rc = sop_segment_mend(m->v->seg, at->id, &o, &old, e);
	if (!rc && old.here >> shard & 1 && old.rotten < p->rotten && old.found_bytes >= p->found) {
		rc = sop_checkpoint_run(m->v, false, e);
		if (!rc) {
			sop_log(m->v->log, SOP_LOG_WARNING, "mend",
				"op=read-back segment=%016llx disk=%u: has less than what it was "
				"moved from, which counts again",
				(unsigned long long)at->id, at->disks[shard]);
			return 1;
		}
	}
	sop_segments_place(m->v->seg, at->id, shard, at->disks[shard], false);
	return rc && old.nowhere ? 0 : rc;
}

/* Read a shard where it lies now; what is wrong with it is mended, and read again. What cannot be
 * mended, and can be read on the member that it was moved from, lies there again. */
static int read_back(struct sop_mender *m, const struct seg *g, unsigned shard, unsigned from,
	struct pace *p, struct sop_err *e)
{
	struct sop_segment_info at;
	int rc = sop_segments_info(m->v->seg, g->id, &at, NULL);

	for (unsigned i = 0; i < READ_BACK_MAX && !rc; i++) {
		struct mark had = suspects_so_far(m);

		p->done = p->read = p->repaired = p->corrected = 0;
		rc = mend_shards(m, g, 1u << shard, NULL, p, e);
		if (rc)
			break;
		count_wrong(m, &at, shard, p->corrected);
		if (p->rotten) {
			rc = fall_back(m, &at, shard, from, p, e);
			if (rc > 0) {
				forget_since(m, &had);
				/* Where it is not to be moved again, the new file is the stray one.
				 */
				if (!draining(m, from))
					m->surveyed[at.disks[shard]] = 0;
				break;
			}
			if (rc)
				return rc;
			/* It has all that there was. */
			sop_segments_place(m->v->seg, at.id, shard, at.disks[shard], true);
		}
		rc = sop_segments_info(m->v->seg, g->id, &at, NULL);
		if (!rc && at.read_back >> shard & 1)
			return 0;
	}
	if (rc < 0) /* -ENOENT: nobody has the segment any more */
		return rc == -ENOENT ? 0 : rc;
	return sop_say(e, -EIO, "segment %016llx: d%u does not give back what is written to it",
		(unsigned long long)g->id, at.disks[shard] + 1u);
}

static int move_one(struct sop_mender *m, const struct seg *g, unsigned i, int to,
	enum sop_task_kind kind, struct sop_err *e)
{
	int shard = shard_on(&g->info, i), rc;
	unsigned n = (unsigned)g->info.k + g->info.m;
	struct pace p = {.kind = kind, .disk = (int)i, .target = i};
	uint16_t goal[SOP_EC_MAX], one;

	memcpy(goal, g->info.disks, sizeof(goal));
	if (to >= 0 && shard_on(&g->info, (unsigned)to) < 0) {
		one = (uint16_t)to;
	} else {
		rc = sop_members_place_one(m->v->mem, g->info.disks, n, &one, e);
		if (rc)
			return rc;
	}
	goal[shard] = one;
	m->moved = true;
	rc = mend_shards(m, g, 1u << shard, goal, &p, e);
	/* Where content goes to one new disk, all of it is read back at the end. */
	if (rc || one == to)
		return rc;
	p = (struct pace){.kind = kind, .disk = (int)i, .target = SOP_MEMBERS_MAX};
	return read_back(m, g, (unsigned)shard, i, &p, e);
}

/* Shards to be read back. */
struct proving {
	struct segs s;
	unsigned *shard; /* of each */
	size_t cap;
	int to; /* what lies there is listed by itself */
};

static int add_proof(struct proving *p, const struct sop_segment_info *info, unsigned shard)
{
	if (p->s.n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 256;
		struct seg *seg = reallocarray(p->s.seg, cap, sizeof(*seg));
		unsigned *more = seg ? reallocarray(p->shard, cap, sizeof(*more)) : NULL;

		p->s.seg = seg ? seg : p->s.seg;
		p->shard = more ? more : p->shard;
		if (!more)
			return -ENOMEM;
		p->cap = cap;
	}
	p->shard[p->s.n] = shard;
	p->s.seg[p->s.n++] = (struct seg){.id = info->id, .info = *info};
	return 0;
}

static int add_unproven(void *arg, const struct sop_segment_info *info, uint32_t shards)
{
	struct proving *p = arg;
	int rc = 0;

	for (unsigned i = 0; i < SOP_EC_MAX && !rc; i++)
		if (shards >> i & 1 && info->disks[i] != p->to)
			rc = add_proof(p, info, i);
	return rc;
}

/* What is to be read back before disk i may be let go: all that lies on the one that replaces it
 * (to, or -1), and what moved elsewhere, also before a restart: of that its own files tell. When it
 * is not here, there is no copy to let go; when it is replaced because it does not even say what it
 * has, what lies on the new one tells enough. */
static int list_unproven(struct sop_mender *m, unsigned i, struct proving *p, struct sop_err *e)
{
	int to = p->to;
	struct segs all = {0};
	int rc = sop_members_disk(m->v->mem, i)
			 ? sop_segments_unproven(m->v->seg, i, add_unproven, p, e)
			 : 0;

	if (rc && to < 0)
		return sop_wrap(e, rc, "to go on without its copies, take it offline");
	rc = rc == -ENOMEM ? rc : 0;
	if (!rc && to >= 0)
		rc = list_segments(m, &all, e);
	for (size_t k = 0; k < all.n && !rc; k++) {
		const struct sop_segment_info *info = &all.seg[k].info;
		int shard = shard_on(info, (unsigned)to);

		if (shard >= 0 && !(info->read_back >> shard & 1))
			rc = add_proof(p, info, (unsigned)shard);
	}
	free(all.seg);
	return rc;
}

static void prove_begin(
	struct sop_mender *m, unsigned i, enum sop_task_kind kind, const struct proving *p)
{
	uint64_t bytes = 0;
	struct work *w;

	for (size_t k = 0; k < p->s.n; k++)
		bytes += p->s.seg[k].info.end;
	SOP_LOCK_GUARD(&m->lock);
	w = running(m, kind, (int)i);
	if (!w || !p->s.n)
		return;
	w->t.bytes_total = w->t.bytes_done + bytes;
	snprintf(w->t.message, sizeof(w->t.message), "reading back what was moved");
}

/* 0: each of them lies where it was moved to. What does not give back what was written there is no
 * reason to leave the others, which may lie on `from` again by that. */
static int read_all_back(struct sop_mender *m, const struct proving *p, unsigned from,
	enum sop_task_kind kind, struct sop_err *e)
{
	bool drained = draining(m, from);
	int rc = 0;

	for (size_t k = 0; k < p->s.n && !stopping(m); k++) {
		struct pace pace = {.kind = kind, .disk = (int)from, .target = SOP_MEMBERS_MAX};
		int one;

		if (drained && !draining(m, from))
			break;
		one = read_back(m, &p->s.seg[k], p->shard[k], from, &pace, e);
		rc = one ? one : rc;
		if (one && one != -EIO)
			break;
	}
	return rc;
}

/* Nothing of disk i goes before what has become of it has been read where it lies now. */
static int prove(struct sop_mender *m, unsigned i, int to, struct sop_err *e)
{
	enum sop_task_kind kind = to >= 0 ? SOP_TASK_REPLACE : SOP_TASK_REMOVE;
	struct proving p = {.to = to};
	int rc = list_unproven(m, i, &p, e);

	if (!rc) {
		prove_begin(m, i, kind, &p);
		rc = read_all_back(m, &p, i, kind, e);
	}
	free(p.s.seg);
	free(p.shard);
	return rc;
}

/* What a removal or replacement that was cancelled has moved is still on the disk as well: it goes
 * when it has been read where it lies now. True: something was done. */
static bool prove_strays(struct sop_mender *m, struct sop_err *e)
{
	bool any = false;

	for (unsigned i = 0; i < sop_members_count(m->v->mem) && !stopping(m); i++) {
		struct proving p = {.to = -1};
		int rc;

		if (!m->strays[i] || now_ms(m) < m->strays_ms || draining(m, i))
			continue;
		rc = sop_members_disk(m->v->mem, i)
			     ? sop_segments_unproven(m->v->seg, i, add_unproven, &p, e)
			     : -ENODEV;
		if (!rc)
			rc = read_all_back(m, &p, i, SOP_TASK_HEAL, e);
		free(p.s.seg);
		free(p.shard);
		tell_lost(m, SOP_TASK_HEAL, (int)i);
		if (rc) {
			m->strays_ms = now_ms(m) + RETRY_MS;
			continue;
		}
		m->strays[i] = 0;
		m->surveyed[i] = 0; /* once more, to let them go */
		any = true;
	}
	return any;
}

/* All replicas that are to take over have done so. */
static bool replicas_ready(struct sop_mender *m, unsigned i, int to)
{
	struct sop_member_status s;
	unsigned current = 0;

	if (to >= 0) {
		sop_members_status(m->v->mem, (unsigned)to, &s);
		return s.current;
	}
	for (unsigned k = 0; k < sop_members_count(m->v->mem); k++) {
		sop_members_status(m->v->mem, k, &s);
		if (k == i || !s.present || !(s.role & SOP_ROLE_REGISTRY))
			continue;
		if (!s.current)
			return false;
		current++;
	}
	return current > 0;
}

static uint64_t bytes_on(const struct segs *s, unsigned i)
{
	uint64_t bytes = 0;

	for (size_t k = 0; k < s->n; k++)
		if (shard_on(&s->seg[k].info, i) >= 0)
			bytes += s->seg[k].info.end;
	return bytes;
}

static void drain_begin(struct sop_mender *m, unsigned i, int to, const struct segs *s)
{
	enum sop_task_kind kind = to >= 0 ? SOP_TASK_REPLACE : SOP_TASK_REMOVE;
	struct sop_member_status target = {0};
	uint64_t left = bytes_on(s, i);
	struct work *w;

	if (to >= 0)
		sop_members_status(m->v->mem, (unsigned)to, &target);
	SOP_LOCK_GUARD(&m->lock);
	w = begin(m, kind, (int)i);
	w->t.state = SOP_TASK_RUNNING;
	w->t.message[0] = '\0';
	if (target.path)
		snprintf(w->t.target, sizeof(w->t.target), "%s", target.path);
	/* Once to be written, once to be read back. */
	w->t.bytes_total =
		w->t.bytes_done + left + (to >= 0 ? bytes_on(s, (unsigned)to) + left : left);
	m->missing[i] = left;
}

/* -EAGAIN: something has been placed there, or appended to, meanwhile. */
static int all_moved(struct sop_mender *m, unsigned i, struct sop_err *e)
{
	struct segs s = {0};
	int rc = list_segments(m, &s, e);

	if (!rc && bytes_on(&s, i))
		rc = -EAGAIN;
	free(s.seg);
	return rc;
}

static int drain_one(struct sop_mender *m, unsigned i, int to, struct sop_err *e)
{
	enum sop_task_kind kind = to >= 0 ? SOP_TASK_REPLACE : SOP_TASK_REMOVE;
	bool unrecorded = false;
	struct segs s = {0};
	int rc = list_segments(m, &s, e);

	if (rc)
		return rc;
	drain_begin(m, i, to, &s);
	/* Recovery learns of a segment that no checkpoint has recorded from its headers, which say
	 * where it was made: such a one is not moved. */
	for (size_t k = 0; k < s.n; k++) {
		bool on = shard_on(&s.seg[k].info, i) >= 0;

		if (on)
			sop_segments_seal(m->v->seg, s.seg[k].id);
		unrecorded = unrecorded || (on && !s.seg[k].recorded);
	}
	if (unrecorded)
		rc = sop_checkpoint_run(m->v, false, e);
	for (size_t k = 0; k < s.n && !rc && draining(m, i); k++) {
		if (shard_on(&s.seg[k].info, i) < 0)
			continue;
		rc = move_one(m, &s.seg[k], i, to, kind, e);
		if (rc == -ENOENT)
			rc = 0;
	}
	free(s.seg);
	if (rc || !draining(m, i))
		return rc ? rc : -ECANCELED;
	rc = all_moved(m, i, e);
	if (!rc)
		rc = prove(m, i, to, e);
	if (!rc && !replicas_ready(m, i, to))
		rc = sop_say(e, -EAGAIN, "the registry's replica is not copied yet");
	if (!rc && !draining(m, i))
		rc = -ECANCELED;
	/* From here on recovery does not look for anything there. */
	if (!rc)
		rc = sop_checkpoint_run(m->v, false, e);
	/* Draining was cancelled and asked for again meanwhile; or a segment was placed before it
	 * began, and is listed only now: the checkpoint has waited for all that were being placed.
	 */
	if (!rc)
		rc = all_moved(m, i, e);
	return rc ? rc : sop_members_remove(m->v->mem, i, e);
}

/* Nobody goes on with it in this mount. Who cancels it says so himself. */
static void drain_ended(
	struct sop_mender *m, enum sop_task_kind kind, int disk, int rc, const struct sop_err *e)
{
	if (rc != -ECANCELED)
		sop_log(m->v->log, SOP_LOG_WARNING, "mend", "op=%s disk=%d code=%s: %s",
			sop_task_kind_name(kind), disk, sop_err_name(rc), e->text);
	finish(m, kind, disk, SOP_TASK_STOPPED);
}

/* True: more can be done at once. */
static bool drain(struct sop_mender *m, struct sop_err *e)
{
	bool any = false;

	if (now_ms(m) < m->drain_ms)
		return false;
	for (unsigned i = 0; i < sop_members_count(m->v->mem) && !stopping(m); i++) {
		struct sop_member_status s;
		enum sop_task_kind kind;
		int rc;

		sop_members_status(m->v->mem, i, &s);
		if (s.state != SOP_MEMBER_DRAINING)
			continue;
		kind = s.to >= 0 ? SOP_TASK_REPLACE : SOP_TASK_REMOVE;
		e->text[0] = '\0';
		rc = drain_one(m, i, s.to, e);
		tell_lost(m, kind, (int)i);
		any = any || !rc;
		if (!rc) {
			finish(m, kind, (int)i, SOP_TASK_FINISHED);
			continue;
		}
		if (!draining(m, i)) {
			/* Cancelled; or gone, though not on the labels of others. */
			if (!stopping(m))
				drain_ended(m, kind, (int)i, rc, e);
			continue;
		}
		wait_for(m, kind, (int)i, e->text[0] ? e->text : "segments that are being written");
		m->drain_ms = now_ms(m) + (rc == -EAGAIN ? 100 : RETRY_MS);
	}
	return any;
}

/* ---- scrub ---- */

static int scrub_segment(struct sop_mender *m, const struct seg *g, struct sop_err *e)
{
	struct pace p = {
		.m = m, .kind = SOP_TASK_SCRUB, .disk = -1, .target = SOP_MEMBERS_MAX, .shards = 1};
	struct sop_mend_report r;
	struct sop_mend_opts o = {.verify = true, .pace = pace, .lost = suspect, .arg = &p};

	int rc = sop_segment_mend(m->v->seg, g->id, &o, &r, e);

	/* Shards that could not be written anew, on a disk that is full for one. */
	if (!rc && r.bad)
		lost_more(m, SOP_TASK_SCRUB, -1, r.bad);
	return rc;
}

static void scrub_end(struct sop_mender *m)
{
	bool ends;

	sop_lock(&m->lock);
	ends = m->this_scrub == m->begun && m->scrub == SCRUB_RUNNING;
	if (ends)
		m->scrub = SCRUB_FINISHED;
	m->scrub_dirty = true;
	sop_unlock(&m->lock);
	if (ends)
		finish(m, SOP_TASK_SCRUB, -1, SOP_TASK_FINISHED);
}

/* The one that it began with: another begins at the beginning. */
static bool scrubbing(struct sop_mender *m)
{
	SOP_LOCK_GUARD(&m->lock);
	return m->scrub == SCRUB_RUNNING && !m->stop && m->this_scrub == m->begun;
}

/* Copies of labels, or of blocks of the registry. */
static void corrected_more(struct sop_mender *m, unsigned n)
{
	struct work *w;

	SOP_LOCK_GUARD(&m->lock);
	w = running(m, SOP_TASK_SCRUB, -1);
	if (w && m->this_scrub == m->begun)
		w->t.corrected += n;
}

/* False: it was cut, and begins again when the scrub goes on. */
static bool scrub_metadata(struct sop_mender *m)
{
	uint32_t files = sop_registry_files(m->v->reg);
	uint32_t hashmod = sop_members_label(m->v->mem)->hashmod;
	struct sop_err e = {0};
	uint64_t left = 0;

	corrected_more(m, sop_members_scrub_labels(m->v->mem));
	for (uint32_t f = 0; f < files; f++)
		for (uint32_t b = 0; b < hashmod; b++) {
			unsigned mended = 0;

			if (!scrubbing(m))
				return false;
			left += sop_registry_scrub(m->v->reg, f, b, &mended);
			corrected_more(m, mended);
		}
	/* Journal and checkpoint are written anew, on all replicas. */
	if (sop_checkpoint_run(m->v, false, &e)) {
		left++;
		sop_log(m->v->log, SOP_LOG_WARNING, "mend", "op=scrub code=%s: %s",
			sop_err_name(e.code), e.text);
	}
	if (left)
		lost_more(m, SOP_TASK_SCRUB, -1, left);
	return true;
}

/* All up to `at` is done, and told. */
static void scrub_done(struct sop_mender *m, uint64_t at)
{
	SOP_LOCK_GUARD(&m->lock);
	if (m->this_scrub != m->begun)
		return;
	m->cursor = at;
	m->scrub_dirty = true;
}

static bool scrub(struct sop_mender *m, struct sop_err *e)
{
	struct segs s = {0};
	uint64_t total = 0, cursor, at;
	unsigned held = 0;
	struct work *w;
	int rc;

	sop_lock(&m->lock);
	m->this_scrub = m->begun;
	sop_unlock(&m->lock);
	if (!scrubbing(m))
		return false;
	rc = list_segments(m, &s, e);
	if (rc)
		return false;
	sop_lock(&m->lock);
	cursor = at = m->cursor;
	for (size_t i = 0; i < s.n; i++)
		if (s.seg[i].id > cursor)
			total += s.seg[i].info.end * ((unsigned)s.seg[i].info.k + s.seg[i].info.m);
	w = begin(m, SOP_TASK_SCRUB, -1);
	w->t.state = SOP_TASK_RUNNING;
	w->t.bytes_total = w->t.bytes_done + total;
	m->bucket_ms = now_ms(m);
	m->bucket_bytes = 0;
	sop_unlock(&m->lock);
	for (size_t i = 0; i < s.n && scrubbing(m); i++) {
		if (s.seg[i].id <= cursor)
			continue;
		rc = scrub_segment(m, &s.seg[i], e);
		if (rc == -ECANCELED)
			break;
		if (rc && rc != -ENOENT) {
			sop_log(m->v->log, SOP_LOG_WARNING, "mend",
				"op=scrub segment=%016llx code=%s: %s",
				(unsigned long long)s.seg[i].id, sop_err_name(rc), e->text);
			m->untold++;
		}
		at = s.seg[i].id;
		/* Cut by an unmount or a crash, it goes on before what has not been told. */
		held = suspects(m) ? held + 1 : 0;
		if (held == HELD_MAX || suspects(m) > MANY_SUSPECTS) {
			resolve_suspects(m, SOP_TASK_SCRUB, -1);
			held = 0;
		}
		if (!suspects(m))
			scrub_done(m, at);
	}
	free(s.seg);
	/* What was found so far is named also when it goes on later. */
	if (!stopping(m)) {
		resolve_suspects(m, SOP_TASK_SCRUB, -1);
		scrub_done(m, at);
	}
	if (!scrubbing(m))
		return false;
	if (!scrub_metadata(m))
		return false;
	scrub_end(m);
	return true;
}

static int no_mender(struct sop_volume *v, struct sop_err *e)
{
	return v->opts.read_only ? sop_say(e, -EROFS, "volume %s: mounted read-only", v->name)
				 : sop_shared_refuse(v, "a scrub", e);
}

int sop_scrub_start(struct sop_volume *v, uint64_t rate_bytes_per_s, struct sop_err *e)
{
	struct sop_mender *m = v->mender;
	struct work *w;
	int rc = no_mender(v, e);

	if (rc)
		return rc;
	SOP_LOCK_GUARD(&m->lock);
	if (m->scrub == SCRUB_RUNNING || m->scrub == SCRUB_PAUSED)
		return sop_say(e, -EALREADY, "a scrub is %s already",
			m->scrub == SCRUB_RUNNING ? "running" : "paused");
	m->scrub = SCRUB_RUNNING;
	m->rate = rate_bytes_per_s;
	m->cursor = 0;
	m->begun++;
	m->scrub_dirty = true;
	w = begin(m, SOP_TASK_SCRUB, -1);
	w->t.state = SOP_TASK_RUNNING;
	m->kick = true;
	pthread_cond_broadcast(&m->cond);
	return 0;
}

/* Under no lock. From one of two states to another. */
static int scrub_change(struct sop_volume *v, enum scrub_state from, enum scrub_state or_from,
	enum scrub_state to, enum sop_task_state shown, const char *none, struct sop_err *e)
{
	struct sop_mender *m = v->mender;
	struct work *w;
	int rc = no_mender(v, e);

	if (rc)
		return rc;
	SOP_LOCK_GUARD(&m->lock);
	if (m->scrub != from && m->scrub != or_from)
		return sop_say(e, -ENOENT, "%s", none);
	m->scrub = to;
	m->scrub_dirty = true;
	w = running(m, SOP_TASK_SCRUB, -1);
	if (w) {
		w->t.state = shown;
		w->t.bytes_per_s = 0;
		if (is_over(&w->t))
			w->t.ended = now(m);
	}
	m->kick = true;
	pthread_cond_broadcast(&m->cond);
	return 0;
}

int sop_scrub_pause(struct sop_volume *v, struct sop_err *e)
{
	return scrub_change(v, SCRUB_RUNNING, SCRUB_RUNNING, SCRUB_PAUSED, SOP_TASK_PAUSED,
		"no scrub is running", e);
}

int sop_scrub_resume(struct sop_volume *v, struct sop_err *e)
{
	return scrub_change(v, SCRUB_PAUSED, SCRUB_PAUSED, SCRUB_RUNNING, SOP_TASK_RUNNING,
		"no scrub is paused", e);
}

int sop_scrub_stop(struct sop_volume *v, struct sop_err *e)
{
	return scrub_change(v, SCRUB_RUNNING, SCRUB_PAUSED, SCRUB_STOPPED, SOP_TASK_STOPPED,
		"there is no scrub", e);
}

/* ---- the record of the scrub ---- */

#define SCRUB_ID 1u

static uint64_t ns_of(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct timespec time_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

static struct work *last_scrub(struct sop_mender *m)
{
	for (size_t i = 0; i < TASKS_MAX; i++)
		if (m->work[i].used && m->work[i].t.kind == SOP_TASK_SCRUB)
			return &m->work[i];
	return NULL;
}

int sop_mender_flush(struct sop_mender *m, struct sop_err *e)
{
	struct disk_scrub d = {.version = 1};
	uint8_t key[SOP_MASTER_KEY];
	struct sop_volume *v;
	struct sop_state *st;
	struct sop_tree t;
	struct work *w;
	int rc;

	if (!m)
		return 0;
	v = m->v;
	sop_lock(&m->lock);
	w = last_scrub(m);
	if (!m->scrub_dirty || !w) {
		sop_unlock(&m->lock);
		return 0;
	}
	m->scrub_dirty = false;
	d.state = (uint8_t)m->scrub;
	d.rate = le64_make(m->rate);
	d.cursor = le64_make(m->cursor);
	d.started_ns = le64_make(ns_of(w->t.started));
	d.ended_ns = le64_make(ns_of(w->t.ended));
	d.total = le64_make(w->t.bytes_total);
	d.done = le64_make(w->t.bytes_done);
	d.repaired = le64_make(w->t.repaired_bytes);
	d.corrected = le64_make(w->t.corrected);
	d.unrecoverable = le64_make(w->t.unrecoverable);
	sop_unlock(&m->lock);
	sop_master_key(key, SCRUB_ID, 't');
	rc = sop_stores_load(v->stores, SOP_STORE_MASTER, &st, e);
	if (rc)
		return rc;
	t = sop_state_tree(st);
	rc = sop_tree_prefault(v->nodes, &t, key, sizeof(key), false, e);
	if (rc)
		return rc;
	sop_apply_begin(v, v->lsn_next - 1);
	rc = sop_apply_system(v, SOP_STORE_MASTER, key, sizeof(key), &d, sizeof(d), e);
	sop_apply_end(v);
	return rc;
}

static int take_record(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_mender *m = arg;
	struct disk_scrub d;
	struct work *w;

	(void)key;
	(void)klen;
	if (vlen != sizeof(d))
		return 0;
	memcpy(&d, val, sizeof(d));
	if (d.version != 1 || d.state > SCRUB_STOPPED)
		return 0;
	SOP_LOCK_GUARD(&m->lock);
	m->scrub = (enum scrub_state)d.state;
	m->rate = le64_get(d.rate);
	m->cursor = le64_get(d.cursor);
	w = begin(m, SOP_TASK_SCRUB, -1);
	w->t.started = time_of(le64_get(d.started_ns));
	w->t.ended = time_of(le64_get(d.ended_ns));
	w->t.bytes_total = le64_get(d.total);
	w->t.bytes_done = le64_get(d.done);
	w->t.repaired_bytes = le64_get(d.repaired);
	w->t.corrected = le64_get(d.corrected);
	w->t.unrecoverable = le64_get(d.unrecoverable);
	w->mark_bytes = w->t.bytes_done;
	w->t.state = m->scrub == SCRUB_RUNNING	  ? SOP_TASK_RUNNING
		     : m->scrub == SCRUB_PAUSED	  ? SOP_TASK_PAUSED
		     : m->scrub == SCRUB_FINISHED ? SOP_TASK_FINISHED
						  : SOP_TASK_STOPPED;
	return 0;
}

int sop_mender_load(struct sop_mender *m, struct sop_err *e)
{
	struct sop_volume *v = m->v;
	struct sop_state_view view;
	uint8_t key[SOP_MASTER_KEY];
	int rc = sop_stores_view(v->stores, SOP_STORE_MASTER, SOP_LSN_LATEST, &view, e);

	note_missing(m);
	sop_master_key(key, SCRUB_ID, 't');
	if (!rc)
		rc = sop_tree_find(
			v->nodes, &view.tree, SOP_LSN_LATEST, key, sizeof(key), take_record, m, e);
	return rc == -ENOENT ? 0 : rc;
}

/* ---- the thread ---- */

/* One round; true: there may be more to do at once. */
static bool round_once(struct sop_mender *m)
{
	struct sop_err e = {0};
	bool more = watch(m);

	if (m->v->dead)
		return false;
	more = repairs(m) || more;
	more = replicas(m) || more;
	more = heal(m, &e) || more;
	more = drain(m, &e) || more;
	more = prove_strays(m, &e) || more;
	more = scrub(m, &e) || more;
	return more;
}

static void *mender_main(void *arg)
{
	struct sop_mender *m = arg;

	pthread_setname_np(pthread_self(), "sop-mender");
	sop_lock(&m->lock);
	while (!m->stop) {
		bool more;

		m->kick = false;
		sop_unlock(&m->lock);
		more = round_once(m);
		sop_lock(&m->lock);
		if (!more && !m->kick && !m->stop)
			sop_cond_wait(&m->cond, &m->lock, TICK_MS);
	}
	sop_unlock(&m->lock);
	return NULL;
}

int sop_mender_start(struct sop_mender *m, struct sop_err *e)
{
	int rc = pthread_create(&m->thread, NULL, mender_main, m);

	if (rc)
		return sop_fail(e, -rc, "thread for healing");
	m->started = true;
	return 0;
}

int sop_mend_all(struct sop_volume *v, struct sop_err *e)
{
	struct sop_mender *m = v->mender;

	(void)e;
	if (!m || v->opts.read_only)
		return 0;
	m->heal_ms = m->drain_ms = m->moves_ms = m->strays_ms = 0;
	memset(m->replica_ms, 0, sizeof(m->replica_ms));
	for (unsigned i = 0; i < ROUNDS_MAX && round_once(m); i++)
		;
	return 0;
}
