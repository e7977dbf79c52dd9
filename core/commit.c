/* Commit: validate, append, apply, publish; many transactions at a time.
 *
 * Whoever finds no leader leads: takes what is queued as one group, writes all blobs and records of
 * the group in one batch of I/O, applies them together and wakes the others. Within a group no
 * transaction depends on another: one that would (it touches a key an earlier one writes) waits for
 * the next.
 *
 * Blobs and journal are written at the same time and in no order: a record whose blobs did not
 * reach the media does not verify after a power cut, and recovery ends the history before it. When
 * the blobs cannot be written at all, the record's place in the journal is written over.
 *
 * A crash: before the batch, nothing; in it, a record that verifies with its blobs counts though
 * nobody was told, else not; after it, the record counts. */
#include "core/coordinate.h"
#include "core/shared.h"

#define GROUP_MAX    64
#define GROUP_BYTES  (4u << 20)
#define ENTRIES_MAX  256 /* larger ones go alone */
#define WRITE_TRIES  3
#define MARKS	     2048u
#define SLOT_TRIES   256 /* places in the chain lost to others, before it is a conflict */
#define FILL_COMMITS 64	 /* since somebody waited for the media */
#define FILL_ROOM    (64u << 20)
#define LOST	     1			  /* the place in the chain has gone to another mounter */
#define LATER	     SOP_COORDINATE_LATER /* no lease to place it under, for now */

struct sop_commit_req {
	struct sop_txn *t;
	struct sop_commit_req *next;
	struct sop_err err;
	int rc;
	bool answered; /* under the queue's lock */
	pthread_cond_t cond;
	uint64_t lsn;
	bool prepare; /* its operations are kept, not done */
	struct sop_puts puts;
	struct sop_buf ops;
};

/* ---- what a group touches ---- */

struct marks {
	uint64_t slot[MARKS];
	size_t n;
};

/* DROPPED: or made, or its options set. */
enum mark_kind { MARK_KEY, MARK_TOUCHED, MARK_DROPPED };

static uint64_t mark_of(enum mark_kind kind, uint64_t store, const uint8_t *key, size_t klen)
{
	uint64_t h = (store + 1) * 0x9E3779B97F4A7C15ull + (uint64_t)kind;

	for (size_t i = 0; i < klen; i++)
		h = (h ^ key[i]) * 0x100000001b3ull;
	h ^= h >> 32;
	return h | 1;
}

static bool marked(const struct marks *m, uint64_t h)
{
	for (size_t i = h % MARKS; m->slot[i]; i = (i + 1) % MARKS)
		if (m->slot[i] == h)
			return true;
	return false;
}

static void mark(struct marks *m, uint64_t h)
{
	size_t i = h % MARKS;

	while (m->slot[i] && m->slot[i] != h)
		i = (i + 1) % MARKS;
	m->n += !m->slot[i];
	m->slot[i] = h;
}

/* Duplicates of one key are numbered at commit: whoever puts one, marks the key without the number.
 */
static uint64_t mark_key(const struct sop_wentry *w)
{
	return mark_of(
		MARK_KEY, w->store, w->key, w->klen - (w->numbered ? SOP_DUPLICATE_BYTES : 0));
}

/* Does t depend on what is marked? Two that only share a hash wait without need; that is all. */
static bool depends(const struct marks *m, const struct sop_txn *t)
{
	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0])
		if (marked(m, mark_of(MARK_KEY, w->store, w->key, w->klen)) ||
			(w->numbered && marked(m, mark_key(w))) ||
			marked(m, mark_of(MARK_DROPPED, w->store, NULL, 0)))
			return true;
	for (const struct sop_scanned *s = t->scanned; s; s = s->next)
		if (marked(m, mark_of(MARK_TOUCHED, s->store, NULL, 0)))
			return true;
	for (const struct sop_dropped *d = t->stores; d; d = d->next)
		if (marked(m, mark_of(MARK_TOUCHED, d->store, NULL, 0)) ||
			marked(m, mark_of(MARK_DROPPED, d->store, NULL, 0)))
			return true;
	return false;
}

static void mark_all(struct marks *m, const struct sop_txn *t)
{
	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0]) {
		if (w->write == SOP_WRITE_NONE)
			continue;
		mark(m, mark_of(MARK_KEY, w->store, w->key, w->klen));
		if (w->numbered)
			mark(m, mark_key(w));
		mark(m, mark_of(MARK_TOUCHED, w->store, NULL, 0));
	}
	for (const struct sop_dropped *d = t->stores; d; d = d->next)
		mark(m, mark_of(MARK_DROPPED, d->store, NULL, 0));
}

/* ---- a group ---- */

struct group {
	struct sop_commit_req *req[GROUP_MAX];
	size_t n;
	struct sop_blob_put *puts; /* of all, by profile and then in order */
	size_t n_puts;
	struct sop_append *append[SOP_PROFILES_MAX]; /* under way, one to a profile */
	uint32_t fill_bytes;			     /* zeros behind what is appended */
};

static void req_fail(struct sop_commit_req *r, int rc)
{
	r->rc = rc;
	r->err.code = rc;
}

static bool lock_lost(const struct sop_commit_req *r)
{
	return r->t->grant && sop_coordinate_grant_lost(r->t->v, r->t->grant);
}

static int plan_req(struct sop_commit_req *r)
{
	struct sop_volume *v = r->t->v;
	int rc = 0;

	if (v->dead)
		rc = sop_fail(
			&r->err, SOP_EDEAD, "volume %s: since: %s", v->name, sop_err_text(v->dead));
	else if (v->clock->monotonic_ms(v->clock->ctx) > r->t->deadline_ms)
		rc = sop_fail(&r->err, SOP_ETIMEOUT, "transaction");
	else if (lock_lost(r))
		rc = sop_say(&r->err, SOP_ECONFLICT,
			"a lock it was written under has been lost: this mount was not heard of "
			"for a lease");
	if (!rc && v->prepared)
		rc = sop_prepared_check(r->t, &r->err);
	if (!rc)
		rc = sop_resolve_plan(r->t, &r->puts, &r->err);
	return rc;
}

/* Take from the queue what can be committed together; those that fail at once are answered. */
static void group_fill(struct group *g, struct sop_commit_req **queue, struct marks *m)
{
	bool alone = !(*queue)->next; /* the common case: nobody to compare it with */
	size_t bytes = 0;

	g->n = 0;
	m->n = 0;
	if (!alone)
		memset(m->slot, 0, sizeof(m->slot));
	while (*queue && g->n < GROUP_MAX && bytes < GROUP_BYTES) {
		struct sop_commit_req *r = *queue;
		/* What is prepared is held from then on: nobody may be in its group. */
		bool large = r->prepare || r->t->wset.count > ENTRIES_MAX;
		int rc;

		if (g->n && (large || m->n + 4 * r->t->wset.count > MARKS / 2 || depends(m, r->t)))
			break;
		*queue = r->next;
		rc = plan_req(r);
		if (rc) {
			req_fail(r, rc);
			continue;
		}
		g->req[g->n++] = r;
		bytes += r->t->bytes;
		if (large)
			break;
		if (!alone)
			mark_all(m, r->t);
	}
}

/* Calls fn with each put of the group and its place in g->puts. */
static void each_put(
	struct group *g, void (*fn)(struct sop_blob_put *own, struct sop_blob_put *all))
{
	size_t at = 0;

	for (unsigned p = 0; p < SOP_PROFILES_MAX && at < g->n_puts; p++)
		for (size_t i = 0; i < g->n; i++)
			for (size_t k = 0; k < g->req[i]->puts.n; k++)
				if (g->req[i]->puts.put[k].profile == p)
					fn(&g->req[i]->puts.put[k], &g->puts[at++]);
}

static void put_take(struct sop_blob_put *own, struct sop_blob_put *all)
{
	*all = *own;
}

static void put_give(struct sop_blob_put *own, struct sop_blob_put *all)
{
	*own = *all;
}

static int group_puts(struct group *g)
{
	/* Anew at each attempt: a transaction may have left the group at the one before. */
	free(g->puts);
	g->puts = NULL;
	g->n_puts = 0;
	for (size_t i = 0; i < g->n; i++)
		g->n_puts += g->req[i]->puts.n;
	if (!g->n_puts)
		return 0;
	g->puts = calloc(g->n_puts, sizeof(*g->puts));
	if (!g->puts)
		return -ENOMEM;
	each_put(g, put_take);
	return 0;
}

static void group_refs(struct group *g)
{
	each_put(g, put_give);
}

static void abandon_puts(struct sop_volume *v, const struct sop_puts *p)
{
	for (size_t i = 0; i < p->n; i++)
		sop_space_abandon(v->space, &p->put[i].ref);
}

static void group_abandon(struct sop_volume *v, struct group *g)
{
	for (size_t i = 0; i < g->n; i++)
		abandon_puts(v, &g->req[i]->puts);
}

/* Operations of each, and their nodes in memory: after this only memory can fail the apply. One
 * that cannot is answered and leaves the group. */
static void group_emit(struct sop_volume *v, struct group *g, uint64_t time_ns)
{
	size_t kept = 0;

	for (size_t i = 0; i < g->n; i++) {
		struct sop_commit_req *r = g->req[i];
		int rc;

		r->lsn = v->lsn_next + kept;
		r->ops.len = 0;
		r->ops.failed = false;
		rc = sop_resolve_emit(
			r->t, &r->puts, r->lsn, time_ns, r->prepare, &r->ops, &r->err);
		if (!rc && r->prepare)
			rc = sop_prepared_wrap(r->t, r->lsn, time_ns, &r->ops, &r->err);
		if (!rc)
			rc = sop_apply_prefault(v, r->ops.p, r->ops.len, &r->err);
		if (!rc) {
			g->req[kept++] = r;
			continue;
		}
		abandon_puts(v, &r->puts);
		req_fail(r, rc);
	}
	g->n = kept;
}

static int journal_write(struct sop_volume *v, struct group *g, uint64_t time_ns,
	struct sop_batch *b, uint64_t *noted, struct sop_err *e)
{
	struct sop_record_in in[GROUP_MAX + 1];
	uint64_t durable;
	size_t n = 0;

	sop_lock(&v->barrier);
	durable = v->durable_lsn;
	sop_unlock(&v->barrier);
	*noted = v->barrier_noted;
	if (durable > v->barrier_noted) {
		*noted = durable;
		in[n++] = (struct sop_record_in){.type = SOP_RECORD_BARRIER,
			.lsn = durable,
			.time_ns = time_ns,
			.next_ino = v->next_ino};
	}
	for (size_t i = 0; i < g->n; i++)
		in[n++] = (struct sop_record_in){.type = SOP_RECORD_TXN,
			.lsn = g->req[i]->lsn,
			.time_ns = time_ns,
			.next_ino = v->next_ino,
			.payload = g->req[i]->ops.p,
			.payload_len = g->req[i]->ops.len};
	return sop_journal_prepare(v->journal, in, n, g->fill_bytes, b, e);
}

static void appends_abandon(struct group *g)
{
	for (unsigned p = 0; p < SOP_PROFILES_MAX; p++) {
		sop_segments_abandon(g->append[p]);
		g->append[p] = NULL;
	}
}

static int appends_finish(struct group *g, struct sop_err *e)
{
	int rc = 0;

	for (unsigned p = 0; p < SOP_PROFILES_MAX; p++) {
		int one = g->append[p] ? sop_segments_finish(g->append[p], rc ? NULL : e) : 0;

		g->append[p] = NULL;
		rc = rc ? rc : one;
	}
	return rc;
}

/* Places for all blobs, each profile's in segments of its own. On failure none is left. */
static int appends_prepare(
	struct sop_volume *v, struct group *g, struct sop_batch *b, struct sop_err *e)
{
	int rc = 0;

	for (size_t at = 0, n; at < g->n_puts && !rc; at += n) {
		unsigned p = g->puts[at].profile;

		for (n = 1; at + n < g->n_puts && g->puts[at + n].profile == p; n++)
			;
		/* While one fills, no other place is waited for. */
		rc = sop_space_prepare(&g->append[p], v->space, p, SOP_STREAM_SMALL, g->puts + at,
			n, at + n == g->n_puts ? g->fill_bytes : 0, b, e);
		if (!rc)
			continue;
		g->append[p] = NULL;
		for (size_t i = 0; i < at; i++)
			sop_space_abandon(v->space, &g->puts[i].ref);
		appends_abandon(g);
	}
	return rc;
}

/* Right before a slot is tried. LATER; LOST: a lock of one of them has gone, as a slot would. */
static int may_place(struct sop_volume *v, const struct group *g, struct sop_err *e)
{
	int rc = sop_coordinate_may_commit(v, e);

	for (size_t i = 0; i < g->n && !rc; i++)
		rc = lock_lost(g->req[i]) ? LOST : 0;
	return rc;
}

/* The operations of all, in the next slot of a shared volume: whoever finds them there may rely on
 * what they name. LOST, LATER. */
static int group_place(struct sop_volume *v, struct group *g, uint64_t time_ns, struct sop_err *e)
{
	struct sop_buf b = {0};
	int rc = sop_segments_sync(v->seg, e);

	for (size_t i = 0; i < g->n && !rc; i++)
		sop_shared_batch_txn(
			&b, g->req[i]->lsn, time_ns, g->req[i]->ops.p, g->req[i]->ops.len);
	if (!rc && b.failed)
		rc = sop_fail(e, -ENOMEM, "commit");
	if (!rc)
		rc = may_place(v, g, e);
	if (!rc)
		rc = sop_shared_place(v, SOP_SLOT_BATCH, b.p, b.len, e);
	sop_buf_release(&b);
	return rc;
}

/* A place in a file that was never written costs its sync a commit of the disk's own file system,
 * several times as dear as the bytes. So while somebody waits for syncs, places are written ahead,
 * with zeros. Not where room is short. */
static uint32_t fill_bytes(struct sop_volume *v)
{
	uint64_t waited = v->waited_lsn;

	if (!waited || v->lsn_next - waited > FILL_COMMITS || v->shared)
		return 0;
	return sop_space_check(v->space, 0, FILL_ROOM, NULL) ? 0 : v->opts.fill_bytes;
}

/* What an append has given. When no disk takes any more, the volume has failed: the record may lie
 * on one all the same, and the next mount decides whether it counts. Until then nothing is
 * committed, or given back, that would contradict it. */
static int appended(struct sop_volume *v, int rc)
{
	if (rc && !v->dead && sop_journal_dead(v->journal)) {
		v->dead = rc;
		sop_log(v->log, SOP_LOG_ERROR, "commit",
			"op=append code=%s: no disk takes the journal any more; mount again when "
			"the cause is gone",
			sop_err_name(rc));
	}
	return rc;
}

/* Blobs and records in one batch. -EAGAIN: the blobs failed, another place may do. LOST, LATER. */
static int group_write(struct sop_volume *v, struct group *g, uint64_t time_ns, struct sop_err *e)
{
	struct sop_batch *b = sop_batch_new(v->io);
	uint64_t noted;
	int rc, blobs;

	if (!b)
		return sop_fail(e, -ENOMEM, "commit");
	g->fill_bytes = fill_bytes(v);
	rc = appends_prepare(v, g, b, e);
	if (rc) {
		sop_batch_put(b);
		return rc;
	}
	group_refs(g);
	group_emit(v, g, time_ns);
	if (!g->n) {
		appends_abandon(g);
		sop_batch_put(b);
		return 0;
	}
	rc = v->shared ? 0 : appended(v, journal_write(v, g, time_ns, b, &noted, e));
	if (rc) {
		appends_abandon(g);
		group_abandon(v, g);
		sop_batch_put(b);
		return rc;
	}
	sop_batch_run(b, SOP_IO_SERIAL, 0, sop_members_timeout_ms(v->mem));
	blobs = appends_finish(g, e);
	if (blobs) {
		if (!v->shared)
			sop_journal_forget(v->journal);
		group_abandon(v, g);
		rc = -EAGAIN;
	} else if (v->shared) {
		rc = group_place(v, g, time_ns, e);
		/* Of a volume that is dead now nobody knows: the blobs may be wanted. */
		if (rc && !v->dead)
			group_abandon(v, g);
	} else {
		rc = appended(v, sop_journal_finish(v->journal, e));
		if (!rc)
			v->barrier_noted = noted;
		else if (!v->dead)
			group_abandon(v, g);
	}
	sop_batch_put(b);
	return rc;
}

static int group_apply(struct sop_volume *v, struct group *g, uint64_t time_ns, struct sop_err *e)
{
	uint64_t last = g->req[g->n - 1]->lsn;
	int rc = 0;

	sop_event_ring_begin(v->events, last);
	sop_apply_begin(v, last);
	for (size_t i = 0; i < g->n && !rc; i++)
		rc = sop_apply_run(
			v, g->req[i]->ops.p, g->req[i]->ops.len, g->req[i]->lsn, time_ns, e);
	sop_apply_end(v);
	if (rc) {
		/* On the journal and not in memory: only recovery can bring the two together. */
		v->dead = rc;
		sop_log(v->log, SOP_LOG_ERROR, "commit", "op=apply lsn=%llu code=%s: %s",
			(unsigned long long)last, sop_err_name(rc), e->text);
		return rc;
	}
	if (v->shared) {
		sop_shared_published(v, last);
		return 0;
	}
	v->lsn_next = last + 1;
	v->journal_used = sop_journal_bytes(v->journal);
	sop_pins_publish(v->pins, last);
	sop_event_ring_show(v->events);
	return 0;
}

static void group_commit(struct sop_volume *v, struct group *g);

static void group_split(struct sop_volume *v, struct group *g)
{
	struct group *one = calloc(1, sizeof(*one));

	for (size_t i = 0; i < g->n; i++) {
		struct sop_commit_req *r = g->req[i];

		if (!one || v->dead) {
			req_fail(r, sop_fail(&r->err, v->dead ? SOP_EDEAD : -ENOMEM, "commit"));
			continue;
		}
		one->req[0] = r;
		one->n = 1;
		group_commit(v, one);
	}
	free(one);
	free(g->puts);
	g->puts = NULL;
}

/* Blobs that cannot be written are tried in other places. LOST, LATER. */
static int group_try(struct sop_volume *v, struct group *g, uint64_t time_ns, struct sop_err *e)
{
	int rc = 0;

	for (unsigned attempt = 0; !rc && g->n && attempt < WRITE_TRIES; attempt++) {
		rc = group_puts(g);
		if (rc)
			break;
		rc = group_write(v, g, time_ns, e);
		if (rc != -EAGAIN)
			break;
		if (attempt + 1 < WRITE_TRIES)
			rc = 0;
	}
	return rc != -EAGAIN ? rc : e->code == -EAGAIN || !e->code ? -EIO : e->code;
}

/* Another mounter was quicker, or a lock was lost: what others committed is applied, and each of
 * the group has to hold against it. Those that do not leave the group. */
static int group_again(struct sop_volume *v, struct group *g, struct sop_err *e)
{
	size_t kept = 0;
	int rc = sop_shared_follow(v, e);

	for (size_t i = 0; i < g->n && !rc; i++) {
		struct sop_commit_req *r = g->req[i];
		int own = plan_req(r);

		if (own)
			req_fail(r, own);
		else
			g->req[kept++] = r;
	}
	if (!rc)
		g->n = kept;
	return rc;
}

static void group_commit(struct sop_volume *v, struct group *g)
{
	uint64_t time_ns = v->clock->wall_ns(v->clock->ctx);
	struct sop_err e = {0};
	int rc = group_try(v, g, time_ns, &e);

	for (unsigned i = 0; rc == LOST; i++) {
		rc = i < SLOT_TRIES ? group_again(v, g, &e)
				    : sop_fail(&e, SOP_ECONFLICT, "others commit all the time");
		if (!rc)
			rc = group_try(v, g, time_ns, &e);
	}
	/* No room for all of them: each by itself, so that a remove does not fail for its company.
	 */
	if (rc == -ENOSPC && g->n > 1) {
		group_split(v, g);
		return;
	}
	if (!rc && g->n)
		rc = group_apply(v, g, time_ns, &e);
	for (size_t i = 0; i < g->n; i++) {
		struct sop_commit_req *r = g->req[i];

		if (rc) {
			r->err = e;
			req_fail(r, rc);
		} else {
			sop_resolve_done(r->t);
			if (r->prepare && (r->rc = sop_prepared_note(r->t, &r->err)))
				req_fail(r, r->rc);
			v->commits += !r->prepare;
		}
	}
	free(g->puts);
	g->puts = NULL;
}

static void lead(struct sop_volume *v, struct sop_commit_req *queue)
{
	struct group *g = calloc(1, sizeof(*g));
	struct marks *m = malloc(sizeof(*m));
	uint64_t slot, end;

	sop_coordinate_turn(v);
	sop_lock(&v->commit);
	slot = sop_shared_slot(v);
	/* What cannot be looked at now shows when the slot is placed. */
	if (v->shared)
		(void)sop_shared_follow(v, NULL);
	while (queue) {
		if (!g || !m) {
			req_fail(queue, sop_fail(&queue->err, -ENOMEM, "commit"));
			queue = queue->next;
			continue;
		}
		group_fill(g, &queue, m);
		if (g->n)
			group_commit(v, g);
	}
	end = sop_shared_slot(v);
	if (end > 1)
		sop_coordinate_applied(v, end - 1);
	sop_unlock(&v->commit);
	sop_coordinate_placed(v, end > slot ? end - 1 : 0);
	free(g);
	free(m);
}

/* Queue, and lead or wait. A leader serves what is queued when it starts, itself included, and
 * hands over: no caller works for others without end. */
static void commit_queued(struct sop_volume *v, struct sop_commit_req *r)
{
	struct sop_commit_req *list;

	sop_lock(&v->queue_lock);
	if (v->queue_tail)
		v->queue_tail->next = r;
	else
		v->queue_head = r;
	v->queue_tail = r;
	while (!r->answered && v->leading)
		sop_cond_wait(&r->cond, &v->queue_lock, -1);
	if (!r->answered) {
		v->leading = true;
		list = v->queue_head;
		v->queue_head = v->queue_tail = NULL;
		sop_unlock(&v->queue_lock);
		lead(v, list);
		sop_lock(&v->queue_lock);
		v->leading = false;
		for (struct sop_commit_req *x = list; x; x = x->next) {
			x->answered = true;
			if (x != r)
				pthread_cond_signal(&x->cond);
		}
		if (v->queue_head)
			pthread_cond_signal(&v->queue_head->cond);
	}
	sop_unlock(&v->queue_lock);
}

/* ---- the public calls ---- */

static bool writes(const struct sop_txn *t)
{
	if (t->stores)
		return true;
	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0])
		if (w->write != SOP_WRITE_NONE)
			return true;
	return false;
}

static int commit_reads(struct sop_txn *t, struct sop_err *e)
{
	int rc;

	if (t->mode == SOP_TXN_NO_CHECK || t->mode == SOP_TXN_SESSION)
		return 0;
	SOP_LOCK_GUARD(&t->v->commit);
	rc = sop_txn_validate(t, e);
	return rc;
}

/* More dirty nodes, and versions of them that a checkpoint is writing, than the cache can hold for
 * long: whoever makes more, helps. */
static int throttle(struct sop_volume *v, struct sop_err *e)
{
	struct sop_nodes_stat s;

	sop_nodes_stat(v->nodes, &s);
	if (s.dirty_bytes + s.old_version_bytes + sop_stores_dirty_bytes(v->stores) >
		v->opts.cache_bytes / 3)
		return sop_checkpoint_relieve(v, v->opts.cache_bytes / 3, e);
	if (sop_checkpoint_worth(v, &s))
		sop_volume_kick(v);
	return 0;
}

static bool removes_only(const struct sop_txn *t)
{
	for (const struct sop_wentry *w = sop_wset_first(&t->wset); w; w = w->next[0]) {
		if (w->write == SOP_WRITE_PUT && w->fresh)
			return false;
		for (const struct sop_xattr_patch *p = w->xattr; p; p = p->next)
			if (p->val)
				return false;
	}
	return !t->values;
}

/* LATER. */
static int commit_once(struct sop_txn *t, bool prepare, uint64_t *lsn, struct sop_err *e)
{
	struct sop_commit_req r = {.t = t, .prepare = prepare};

	sop_cond_init(&r.cond);
	commit_queued(t->v, &r);
	pthread_cond_destroy(&r.cond);
	sop_buf_release(&r.ops);
	free(r.puts.put);
	if (!r.rc)
		*lsn = r.lsn;
	else if (e)
		*e = r.err;
	return r.rc;
}

/* It stands, whatever comes of this. */
static int made_durable(struct sop_volume *v, uint64_t lsn, struct sop_err *e)
{
	if (!sop_barrier_wait(v, lsn, e))
		return 0;
	if (e)
		e->code = SOP_EUNSYNCED; /* the text says the rest */
	return SOP_EUNSYNCED;
}

static int commit_writes(
	struct sop_txn *t, unsigned flags, bool prepare, uint64_t *lsn, struct sop_err *e)
{
	struct sop_volume *v = t->v;
	int rc;

	for (struct sop_value *x = t->values; x; x = x->next) {
		rc = x->entry ? sop_value_settle(x, e) : 0;
		if (rc)
			return rc;
	}
	/* What only takes away is never refused: the reserve is for it. */
	rc = removes_only(t) && !prepare ? 0 : sop_space_check(v->space, 0, t->bytes, e);
	if (rc)
		return rc;
	rc = throttle(v, e);
	if (rc)
		return rc;
	/* A lease that ends before the slot is tried sends it back to the gate. */
	do {
		rc = sop_coordinate_gate(v, t->deadline_ms, e);
		if (!rc)
			rc = commit_once(t, prepare, lsn, e);
	} while (rc == LATER);
	if (rc)
		return rc;
	if (prepare)
		return sop_barrier_wait(v, *lsn, e);
	return flags & SOP_COMMIT_DURABLE || v->opts.durable ? made_durable(v, *lsn, e) : 0;
}

/* *lsn is set when the transaction stands: also when it could not be made durable then. */
static int commit_prepared(struct sop_txn *t, unsigned flags, uint64_t *lsn, struct sop_err *e)
{
	uint64_t own;
	int rc = sop_coordinate_gate(t->v, t->deadline_ms, e);

	if (!rc)
		rc = sop_prepared_resolve(t->v, t->prepared_id, true, &own, e);
	if (!rc)
		*lsn = own;
	if (!rc && (flags & SOP_COMMIT_DURABLE || t->v->opts.durable))
		rc = made_durable(t->v, *lsn, e);
	return rc;
}

int sop_txn_commit(struct sop_txn *t, unsigned flags, struct sop_err *e)
{
	struct sop_volume *v = t->v;
	struct sop_hook *hooks = t->hooks;
	uint64_t lsn = 0;
	int rc;

	if (t->latest)
		return sop_say(e, -EINVAL, "this handle has nothing to commit");
	if (t->prepared)
		rc = commit_prepared(t, flags, &lsn, e);
	else if (writes(t))
		rc = commit_writes(t, flags, false, &lsn, e);
	else
		rc = commit_reads(t, e);
	if (!rc && !lsn)
		lsn = sop_txn_lsn(t);
	if (rc == SOP_ECONFLICT)
		v->conflicts++;
	else if (rc)
		v->failures++;
	t->hooks = NULL;
	sop_txn_free(t);
	while (hooks) {
		struct sop_hook *h = hooks;

		hooks = h->next;
		if (!rc || lsn)
			h->fn(h->arg, lsn);
		free(h);
	}
	return rc;
}

int sop_txn_prepare(struct sop_txn *t, struct sop_err *e)
{
	uint64_t lsn;
	int rc = sop_txn_writable(t, e);

	if (!rc && t->v->shared)
		rc = sop_say(e, -EOPNOTSUPP, "a shared volume takes no prepared transactions");
	if (!rc)
		rc = commit_writes(t, SOP_COMMIT_DURABLE, true, &lsn, e);
	return rc;
}

uint64_t sop_txn_id(const struct sop_txn *t)
{
	return t->prepared ? t->prepared_id : 0;
}

int sop_txn_on_commit(
	struct sop_txn *t, void (*fn)(void *arg, uint64_t lsn), void *arg, struct sop_err *e)
{
	struct sop_hook *h, **at = &t->hooks;

	if (t->latest)
		return sop_say(e, -EINVAL, "this handle has nothing to commit");
	h = malloc(sizeof(*h));
	if (!h)
		return sop_fail(e, -ENOMEM, "commit hook");
	*h = (struct sop_hook){NULL, fn, arg};
	while (*at)
		at = &(*at)->next;
	*at = h;
	return 0;
}

int sop_txn_run(struct sop_volume *v, const struct sop_txn_opts *o, unsigned tries, unsigned flags,
	int (*fn)(struct sop_txn *t, void *arg, struct sop_err *e), void *arg, struct sop_err *e)
{
	unsigned pause_us = 100;
	int rc = SOP_ECONFLICT;

	tries = tries ? tries : 16;
	for (unsigned i = 0; i < tries && rc == SOP_ECONFLICT; i++) {
		struct sop_txn *t;

		if (i) {
			uint64_t x = v->clock->wall_ns(v->clock->ctx) * 0x9E3779B97F4A7C15ull;

			usleep((useconds_t)(pause_us / 2 + (x >> 32) % pause_us));
			pause_us = SOP_MIN(2 * pause_us, 50000u);
		}
		rc = sop_txn_begin(&t, v, o, e);
		if (rc)
			return rc;
		rc = fn(t, arg, e);
		if (rc)
			sop_txn_rollback(t);
		else
			rc = sop_txn_commit(t, flags, e);
	}
	return rc;
}

/* ---- the engine's own commits ---- */

int sop_commit_append(struct sop_volume *v, const struct sop_record_in *in, struct sop_err *e)
{
	struct sop_batch *b = sop_batch_new(v->io);
	int rc;

	if (!b)
		return sop_fail(e, -ENOMEM, "journal");
	rc = sop_journal_prepare(v->journal, in, 1, 0, b, e);
	if (!rc) {
		sop_batch_run(b, SOP_IO_SERIAL, 0, sop_members_timeout_ms(v->mem));
		rc = sop_journal_finish(v->journal, e);
	}
	rc = appended(v, rc);
	sop_batch_put(b);
	v->journal_used = sop_journal_bytes(v->journal);
	return rc;
}

/* The same in a slot, for who is alone: what it says was made against the newest state, and nobody
 * can have the slot. */
static int place_one(struct sop_volume *v, const struct sop_record_in *in, struct sop_err *e)
{
	struct sop_buf b = {0};
	int rc = sop_shared_refuse(v, "a commit of the engine's own", e);

	if (rc)
		return rc;
	sop_shared_batch_txn(&b, in->lsn, in->time_ns, in->payload, in->payload_len);
	rc = b.failed ? sop_fail(e, -ENOMEM, "commit")
		      : sop_shared_place(v, SOP_SLOT_BATCH, b.p, b.len, e);
	sop_buf_release(&b);
	return rc == LOST ? sop_say(e, SOP_EINUSE, "another mounter has taken the volume over")
			  : rc;
}

int sop_commit_locked(struct sop_volume *v, const struct sop_buf *ops, struct sop_err *e)
{
	uint64_t time_ns = v->clock->wall_ns(v->clock->ctx), lsn = v->lsn_next;
	struct sop_record_in in = {.type = SOP_RECORD_TXN,
		.lsn = lsn,
		.time_ns = time_ns,
		.next_ino = v->next_ino,
		.payload = ops->p,
		.payload_len = ops->len};
	int rc;

	if (v->dead)
		return sop_fail(e, SOP_EDEAD, "volume %s", v->name);
	if (ops->failed)
		return sop_fail(e, -ENOMEM, "journal record");
	rc = sop_apply_prefault(v, ops->p, ops->len, e);
	if (rc)
		return rc;
	rc = v->shared ? place_one(v, &in, e) : sop_commit_append(v, &in, e);
	if (rc)
		return rc;
	sop_event_ring_begin(v->events, lsn);
	sop_apply_begin(v, lsn);
	rc = sop_apply_run(v, ops->p, ops->len, lsn, time_ns, e);
	sop_apply_end(v);
	if (rc) {
		v->dead = rc;
		return rc;
	}
	if (v->shared) {
		sop_shared_published(v, lsn);
		return 0;
	}
	v->lsn_next = lsn + 1;
	sop_pins_publish(v->pins, lsn);
	sop_event_ring_show(v->events);
	return 0;
}
