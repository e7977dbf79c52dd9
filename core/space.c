/* Who pays for which bytes of the shard files.
 *
 * Every byte of a segment below its end is one of: live (a committed blob), uncommitted (written by
 * a session that has not ended), pending (freed, but perhaps still seen, or not yet known to be
 * freed on the media), dead. Dead whole pages are punched out; a page that is dead in part is
 * counted in the DEAD store until all of it is. A sealed segment without live bytes is removed.
 *
 * Invariant: nothing is given back before a BARRIER on the media covers the transaction that freed
 * it, and no pin of its scope is older than it. The transaction alone is not enough: past the last
 * barrier recovery verifies the blobs of every record, and would end the history before the record
 * that allocated what a later one freed.
 *
 * A crash: the trees come back as of the checkpoint, the replayed records free and allocate again,
 * and the checkpoint's lists name what was uncommitted or pending then. Giving back is idempotent:
 * addresses are never used twice. What sessions wrote after the checkpoint and did not commit lies
 * beyond the recorded end of a segment, between the blobs that the replayed records name: settle()
 * finds it. */
#include "core/shared.h"

#define BUCKETS	  1024u
#define LOOKED_AT 16384u /* pending frees, in one go */

struct seg {
	struct seg *next;
	uint64_t id, live;
	uint64_t uncommitted; /* blobs */
	unsigned k, shards;
	uint32_t stale;		    /* as recorded */
	uint16_t disks[SOP_EC_MAX]; /* as recorded */
	bool dirty;		    /* differs from the table */
	bool recorded;		    /* is in the table */
	uint8_t stream;
	uint64_t reach;	       /* no blob that is known of ends beyond */
	uint64_t settled;      /* mount: all below is accounted for */
	struct span *replayed; /* mount: allocations at or beyond `settled` */
	size_t n_replayed, cap_replayed;
};

struct span {
	uint64_t off, len;
};

struct small { /* an entry of the uncommitted set, or of the reference deltas */
	struct small *next;
	struct sop_blobref ref;
	int64_t delta;
};

struct pending {
	uint64_t lsn;  /* SOP_LSN_GARBAGE: it was never live */
	uint64_t born; /* of a node: by the checkpoint of this LSN, 0: before this mount */
	uint64_t scope;
	struct sop_blobref ref;
};

struct sop_space {
	struct sop_volume *v;
	struct sop_lock lock;
	pthread_rwlock_t
		placing; /* shared: taking places; exclusive: a checkpoint notes which are taken */
	struct seg *seg[BUCKETS];
	uint64_t segments, live_bytes, pending_bytes;
	struct small **uncommitted, **deltas;
	size_t n_uncommitted, n_deltas;
	/* Those below `kept` stay, as far as the pass that is under way has come; those from
	 * `looked` on have not been looked at in it. Between them is nothing. */
	struct pending *pending;
	size_t kept, looked, n_pending, cap_pending;
	uint64_t written[2], written_at; /* data bytes in this second and the one before */
	/* Segments that are empty: their files stay, as holes, until a checkpoint without them is
	 * published, since recovery from the one before goes through them again. Under commit. */
	uint64_t *emptied;
	size_t n_emptied, cap_emptied, n_emptied_flushed;
	uint64_t table_epoch; /* of the mount that wrote the table as loaded */
	bool replaying;
};

static size_t hash_ref(const struct sop_blobref *r)
{
	return (size_t)(((r->segment * 31 + (r->off >> 3)) * 0x9E3779B97F4A7C15ull) >> 40) %
	       BUCKETS;
}

static size_t hash_id(uint64_t id)
{
	return (size_t)((id * 0x9E3779B97F4A7C15ull) >> 40) % BUCKETS;
}

struct sop_space *sop_space_new(struct sop_volume *v)
{
	struct sop_space *s = calloc(1, sizeof(*s));
	pthread_rwlockattr_t attr;

	if (!s)
		return NULL;
	s->uncommitted = calloc(BUCKETS, sizeof(struct small *));
	s->deltas = calloc(BUCKETS, sizeof(struct small *));
	s->v = v;
	sop_lock_init(&s->lock, SOP_RANK_SPACE, "space");
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&s->placing, &attr);
	pthread_rwlockattr_destroy(&attr);
	if (s->uncommitted && s->deltas)
		return s;
	sop_space_free(s);
	return NULL;
}

static void smalls_clear(struct small **set)
{
	for (size_t b = 0; set && b < BUCKETS; b++)
		while (set[b]) {
			struct small *x = set[b];

			set[b] = x->next;
			free(x);
		}
}

static void smalls_free(struct small **set)
{
	smalls_clear(set);
	free(set);
}

void sop_space_free(struct sop_space *s)
{
	if (!s)
		return;
	for (size_t b = 0; b < BUCKETS; b++)
		while (s->seg[b]) {
			struct seg *g = s->seg[b];

			s->seg[b] = g->next;
			free(g->replayed);
			free(g);
		}
	smalls_free(s->uncommitted);
	smalls_free(s->deltas);
	free(s->pending);
	free(s->emptied);
	pthread_rwlock_destroy(&s->placing);
	sop_lock_release(&s->lock);
	free(s);
}

/* ---- segments ---- */

static struct seg *seg_find(const struct sop_space *s, uint64_t id)
{
	struct seg *g = s->seg[hash_id(id)];

	while (g && g->id != id)
		g = g->next;
	return g;
}

static int seg_add(struct sop_space *s, const struct sop_segment_info *info, struct seg **out,
	struct sop_err *e)
{
	struct seg *g = calloc(1, sizeof(*g));

	if (!g)
		return sop_fail(e, -ENOMEM, "segment account");
	g->id = info->id;
	g->k = info->k;
	g->shards = (unsigned)info->k + info->m;
	g->stream = info->stream;
	g->settled = g->reach = SOP_SHARD_HEADER;
	g->next = s->seg[hash_id(g->id)];
	s->seg[hash_id(g->id)] = g;
	s->segments++;
	*out = g;
	return 0;
}

/* Under the lock. A segment not met before is known to the segments module, or by its shard
 * headers. */
static int seg_get(struct sop_space *s, uint64_t id, struct seg **out, struct sop_err *e)
{
	struct sop_segment_info info;
	int rc;

	*out = seg_find(s, id);
	if (*out)
		return 0;
	rc = sop_segments_info(s->v->seg, id, &info, e);
	return rc ? rc : seg_add(s, &info, out, e);
}

/* Nobody refers to anything in it, or may come to; except who is at an append: what that takes is
 * noted before it ends. */
static bool empty(const struct seg *g)
{
	return !g->live && !g->uncommitted;
}

static void seg_forget(struct sop_space *s, struct seg *g)
{
	struct seg **p = &s->seg[hash_id(g->id)];

	while (*p != g)
		p = &(*p)->next;
	*p = g->next;
	free(g->replayed);
	free(g);
	s->segments--;
}

bool sop_space_knows(struct sop_space *s, uint64_t id)
{
	SOP_LOCK_GUARD(&s->lock);

	return seg_find(s, id) != NULL;
}

/* ---- sets of blobs ---- */

static struct small **small_find(struct small **set, const struct sop_blobref *ref)
{
	struct small **p = &set[hash_ref(ref)];

	while (*p && ((*p)->ref.segment != ref->segment || (*p)->ref.off != ref->off))
		p = &(*p)->next;
	return p;
}

static bool uncommitted_take(struct sop_space *s, const struct sop_blobref *ref)
{
	struct small **p = small_find(s->uncommitted, ref), *x = *p;
	struct seg *g = seg_find(s, ref->segment);

	if (!x)
		return false;
	*p = x->next;
	free(x);
	s->n_uncommitted--;
	if (g && g->uncommitted)
		g->uncommitted--;
	return true;
}

int sop_space_reserve(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e)
{
	struct small *x = calloc(1, sizeof(*x));
	struct small **p;
	struct seg *g;
	int rc;

	if (!x)
		return sop_fail(e, -ENOMEM, "reserved space");
	x->ref = *ref;
	SOP_LOCK_GUARD(&s->lock);
	/* The segment enters the account with its first blob, committed or not: the checkpoint must
	 * record how far it is accounted for. */
	rc = seg_get(s, ref->segment, &g, e);
	if (rc) {
		free(x);
		return rc;
	}
	p = small_find(s->uncommitted, ref);
	x->next = *p;
	*p = x;
	s->n_uncommitted++;
	g->uncommitted++;
	return 0;
}

static int pending_put(struct sop_space *s, const struct pending *p)
{
	if (s->n_pending == s->cap_pending) {
		size_t cap = s->cap_pending ? 2 * s->cap_pending : 256;
		struct pending *all = realloc(s->pending, cap * sizeof(*all));

		if (!all)
			return -ENOMEM;
		s->pending = all;
		s->cap_pending = cap;
	}
	s->pending[s->n_pending++] = *p;
	s->pending_bytes += p->ref.len;
	return 0;
}

static int pending_add(
	struct sop_space *s, uint64_t lsn, uint64_t scope, const struct sop_blobref *ref)
{
	return pending_put(s, &(struct pending){.lsn = lsn, .scope = scope, .ref = *ref});
}

void sop_space_abandon(struct sop_space *s, const struct sop_blobref *ref)
{
	SOP_LOCK_GUARD(&s->lock);

	if (!uncommitted_take(s, ref))
		return;
	/* Without memory for it the place stays taken until its segment goes: a leak fsck finds. */
	if (pending_add(s, SOP_LSN_GARBAGE, 0, ref))
		sop_log(s->v->log, SOP_LOG_WARNING, "space",
			"op=abandon code=ENOMEM: %u bytes leak", ref->len);
}

int sop_space_alloc(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e)
{
	struct seg *g;
	uint64_t bytes;
	int rc;

	SOP_LOCK_GUARD(&s->lock);
	rc = seg_get(s, ref->segment, &g, e);
	if (rc)
		return sop_wrap(e, rc, "account of segment %llx", (unsigned long long)ref->segment);
	bytes = sop_blob_shard_bytes(ref->len, g->k);
	uncommitted_take(s, ref);
	g->live += bytes;
	g->reach = SOP_MAX(g->reach, ref->off + bytes);
	g->dirty = true;
	s->live_bytes += bytes * g->shards;
	if (s->replaying && ref->off >= g->settled) {
		if (g->n_replayed == g->cap_replayed) {
			size_t cap = g->cap_replayed ? 2 * g->cap_replayed : 64;
			struct span *p = realloc(g->replayed, cap * sizeof(*p));

			if (!p)
				return sop_fail(e, -ENOMEM, "replayed allocations");
			g->replayed = p;
			g->cap_replayed = cap;
		}
		g->replayed[g->n_replayed++] = (struct span){ref->off, bytes};
	}
	return 0;
}

int sop_space_free_later(struct sop_space *s, uint64_t lsn, uint64_t scope,
	const struct sop_blobref *ref, struct sop_err *e)
{
	SOP_LOCK_GUARD(&s->lock);

	return pending_add(s, lsn, scope, ref) ? sop_fail(e, -ENOMEM, "pending frees") : 0;
}

int sop_space_free_node(struct sop_space *s, uint64_t born, uint64_t lsn, uint64_t scope,
	const struct sop_blobref *ref, struct sop_err *e)
{
	const struct pending p = {.lsn = lsn, .born = born, .scope = scope, .ref = *ref};

	SOP_LOCK_GUARD(&s->lock);
	return pending_put(s, &p) ? sop_fail(e, -ENOMEM, "pending frees") : 0;
}

int sop_space_ref(struct sop_space *s, const struct sop_blobref *ref, struct sop_err *e)
{
	struct small **p, *x;

	SOP_LOCK_GUARD(&s->lock);
	p = small_find(s->deltas, ref);
	if (!*p) {
		x = calloc(1, sizeof(*x));
		if (!x)
			return sop_fail(e, -ENOMEM, "reference count");
		x->ref = *ref;
		*p = x;
		s->n_deltas++;
	}
	(*p)->delta++;
	return 0;
}

/* ---- changes to system stores, gathered first, made together ---- */

struct change {
	uint64_t store;
	uint8_t key[16];
	uint8_t klen;
	uint8_t vlen; /* 0: delete */
	uint8_t val[sizeof(struct sop_disk_segment)];
};

struct changes {
	struct change *c;
	size_t n, cap;
	bool failed;
};

static void change_add(struct changes *cs, uint64_t store, const void *key, size_t klen,
	const void *val, size_t vlen)
{
	struct change *c;

	if (cs->n == cs->cap) {
		size_t cap = cs->cap ? 2 * cs->cap : 64;

		c = realloc(cs->c, cap * sizeof(*c));
		if (!c) {
			cs->failed = true;
			return;
		}
		cs->c = c;
		cs->cap = cap;
	}
	c = &cs->c[cs->n++];
	c->store = store;
	c->klen = (uint8_t)klen;
	c->vlen = (uint8_t)vlen;
	memcpy(c->key, key, klen);
	if (vlen)
		memcpy(c->val, val, vlen);
}

/* Commit lock held. The changes are derived state: no journal record, a crash makes them again. All
 * of them, from the last checkpoint on: were some of them in the next one, what they count would be
 * counted twice, and a block be punched that is not all dead. So once one has failed there is no
 * checkpoint any more. */
static int changes_apply(struct sop_volume *v, struct changes *cs, struct sop_err *e)
{
	int rc = cs->failed ? sop_fail(e, -ENOMEM, "space accounts") : 0;

	for (size_t i = 0; i < cs->n && !rc; i++) {
		struct sop_state *st;
		struct sop_tree t;

		rc = sop_stores_load(v->stores, cs->c[i].store, &st, e);
		if (rc)
			break;
		t = sop_state_tree(st);
		rc = sop_tree_prefault(
			v->nodes, &t, cs->c[i].key, cs->c[i].klen, !cs->c[i].vlen, e);
	}
	if (rc || !cs->n)
		return rc;
	sop_apply_begin(v, v->lsn_next - 1);
	for (size_t i = 0; i < cs->n && !rc; i++) {
		const struct change *c = &cs->c[i];

		rc = sop_apply_system(
			v, c->store, c->key, c->klen, c->vlen ? c->val : NULL, c->vlen, e);
	}
	sop_apply_end(v);
	if (rc) {
		v->dead = rc;
		sop_log(v->log, SOP_LOG_ERROR, "space", "op=account code=%s: %s", sop_err_name(rc),
			sop_err_text(rc));
	}
	return rc;
}

struct value_out {
	uint8_t *buf;
	size_t len;
};

static int copy_value(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct value_out *o = arg;

	(void)key;
	(void)klen;
	if (vlen != o->len)
		return SOP_ECORRUPT;
	memcpy(o->buf, val, vlen);
	return 0;
}

/* 1 found, 0 not there. */
static int system_get(struct sop_volume *v, uint64_t store, const void *key, size_t klen, void *val,
	size_t vlen, struct sop_err *e)
{
	struct value_out o = {val, vlen};
	struct sop_state_view view;
	int rc = sop_stores_view(v->stores, store, SOP_LSN_LATEST, &view, e);

	if (!rc)
		rc = sop_tree_find(
			v->nodes, &view.tree, SOP_LSN_LATEST, key, klen, copy_value, &o, e);
	return rc == -ENOENT ? 0 : rc ? sop_wrap(e, rc, "system store %u", (unsigned)store) : 1;
}

static void ref_key(uint8_t key[16], uint64_t segment, uint64_t off)
{
	be64_put(key, segment);
	be64_put(key + 8, off);
}

/* References of a blob: 1 when it is in no account. */
static int shared_get(
	struct sop_volume *v, const struct sop_blobref *ref, uint32_t *count, struct sop_err *e)
{
	struct le32 n;
	uint8_t key[16];
	int rc;

	ref_key(key, ref->segment, ref->off);
	rc = system_get(v, SOP_STORE_SHARED, key, sizeof(key), &n, sizeof(n), e);
	*count = rc == 1 ? le32_get(n) : 1;
	return rc < 0 ? rc : 0;
}

static void shared_set(struct changes *cs, const struct sop_blobref *ref, uint32_t count)
{
	struct le32 n = le32_make(count);
	uint8_t key[16];

	ref_key(key, ref->segment, ref->off);
	change_add(cs, SOP_STORE_SHARED, key, sizeof(key), &n, count > 1 ? sizeof(n) : 0);
}

/* Bring the SHARED store up to date with references taken since. Commit lock held. */
static int deltas_apply(struct sop_space *s, struct sop_err *e)
{
	struct changes cs = {0};
	int rc = 0;

	if (!s->n_deltas)
		return 0;
	for (size_t b = 0; b < BUCKETS && !rc; b++)
		for (struct small *x = s->deltas[b]; x && !rc; x = x->next) {
			uint32_t count;

			rc = shared_get(s->v, &x->ref, &count, e);
			if (!rc)
				shared_set(&cs, &x->ref, (uint32_t)(count + (uint64_t)x->delta));
		}
	if (!rc)
		rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	if (rc)
		return rc;
	smalls_clear(s->deltas);
	s->n_deltas = 0;
	return 0;
}

/* ---- giving back ---- */

struct garbage {
	uint64_t segment, off, len;
	bool forget; /* all of the segment is dead, and its records go */
};

static int garbage_order(const void *a, const void *b)
{
	const struct garbage *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

/* In order, so that those of one segment follow each other. */
struct punches {
	struct punched {
		uint64_t segment;
		struct sop_range64 range;
	} * p;
	size_t n, cap;
	bool failed;
};

static void punch_add(struct punches *ps, uint64_t segment, uint64_t off, uint64_t len)
{
	struct punched *last = ps->n ? &ps->p[ps->n - 1] : NULL;

	if (!len)
		return;
	if (last && last->segment == segment && last->range.off + last->range.len == off) {
		last->range.len += len;
		return;
	}
	if (ps->n == ps->cap) {
		size_t cap = ps->cap ? 2 * ps->cap : 64;
		struct punched *p = realloc(ps->p, cap * sizeof(*p));

		if (!p) {
			ps->failed = true;
			return;
		}
		ps->p = p;
		ps->cap = cap;
	}
	ps->p[ps->n++] = (struct punched){segment, {off, len}};
}

/* All of a segment in one call. */
static int punch_all(struct sop_space *s, const struct punches *ps, struct sop_err *e)
{
	sop_autofree struct sop_range64 *range = malloc((ps->n + 1) * sizeof(*range));
	int rc = range ? 0 : sop_fail(e, -ENOMEM, "reclaim");

	for (size_t i = 0, n; i < ps->n && !rc; i += n) {
		for (n = 0; i + n < ps->n && ps->p[i + n].segment == ps->p[i].segment; n++)
			range[n] = ps->p[i + n].range;
		rc = sop_segments_punch(s->v->seg, ps->p[i].segment, range, n, e);
	}
	return rc;
}

/* Pages at the ends of dead ranges, until the next page or segment comes. */
struct page_sum {
	uint64_t segment, page;
	uint32_t dead; /* 0: none gathered */
};

static int page_close(struct sop_volume *v, struct page_sum *sum, struct changes *cs,
	struct punches *ps, struct sop_err *e)
{
	struct le16 before;
	uint8_t key[16];
	uint32_t dead;
	int rc;

	if (!sum->dead)
		return 0;
	ref_key(key, sum->segment, sum->page);
	rc = system_get(v, SOP_STORE_DEAD, key, sizeof(key), &before, sizeof(before), e);
	if (rc < 0)
		return rc;
	dead = sum->dead + (rc ? le16_get(before) : 0);
	if (dead >= SOP_SPACE_PAGE) {
		if (dead == SOP_SPACE_PAGE)
			punch_add(ps, sum->segment, sum->page * SOP_SPACE_PAGE, SOP_SPACE_PAGE);
		else /* what was counted before was not all dead: who knows what else is there */
			sop_log(v->log, SOP_LOG_ERROR, "space",
				"op=reclaim segment=%016llx off=%llu code=SOP_ECORRUPT: more bytes "
				"of a page are dead than it has; it is kept: run fsck.sopfs",
				(unsigned long long)sum->segment,
				(unsigned long long)(sum->page * SOP_SPACE_PAGE));
		if (rc)
			change_add(cs, SOP_STORE_DEAD, key, sizeof(key), NULL, 0);
	} else {
		struct le16 now = le16_make((uint16_t)dead);

		change_add(cs, SOP_STORE_DEAD, key, sizeof(key), &now, sizeof(now));
	}
	sum->dead = 0;
	return 0;
}

static int page_part(struct sop_volume *v, struct page_sum *sum, uint64_t segment, uint64_t page,
	uint64_t bytes, struct changes *cs, struct punches *ps, struct sop_err *e)
{
	int rc = 0;

	if (!bytes)
		return 0;
	if (sum->dead && (sum->segment != segment || sum->page != page))
		rc = page_close(v, sum, cs, ps, e);
	sum->segment = segment;
	sum->page = page;
	sum->dead += (uint32_t)bytes;
	return rc;
}

/* Sorted ranges of one or more segments become holes and counts of partly dead pages. */
static int account_dead(struct sop_volume *v, const struct garbage *g, size_t n, struct changes *cs,
	struct punches *ps, struct sop_err *e)
{
	struct page_sum sum = {0};
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		uint64_t end = g[i].off + g[i].len;
		uint64_t first = sop_div_up(g[i].off, SOP_SPACE_PAGE), last = end / SOP_SPACE_PAGE;

		if (first > last) { /* inside one page */
			rc = page_part(v, &sum, g[i].segment, last, g[i].len, cs, ps, e);
			continue;
		}
		rc = page_part(v, &sum, g[i].segment, first - 1, first * SOP_SPACE_PAGE - g[i].off,
			cs, ps, e);
		if (!rc && last > first) {
			rc = page_close(v, &sum, cs, ps, e);
			punch_add(ps, g[i].segment, first * SOP_SPACE_PAGE,
				(last - first) * SOP_SPACE_PAGE);
		}
		if (!rc)
			rc = page_part(v, &sum, g[i].segment, last, end - last * SOP_SPACE_PAGE, cs,
				ps, e);
	}
	if (!rc)
		rc = page_close(v, &sum, cs, ps, e);
	return rc;
}

struct dead_keys {
	struct changes *cs;
};

static int dead_key(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct dead_keys *d = arg;

	(void)val;
	(void)vlen;
	change_add(d->cs, SOP_STORE_DEAD, key, klen, NULL, 0);
	return 0;
}

/* All of a segment is dead: its records go; then, when that has succeeded, the caller forgets it
 * and removes its files. */
static int segment_records_drop(
	struct sop_volume *v, uint64_t id, struct changes *cs, struct sop_err *e)
{
	struct dead_keys d = {cs};
	uint8_t from[16], to[16];
	struct sop_range range = {.from = from, .from_len = 16, .to = to, .to_len = 16};
	struct sop_state_view view;
	int rc = sop_stores_view(v->stores, SOP_STORE_DEAD, SOP_LSN_LATEST, &view, e);

	ref_key(from, id, 0);
	ref_key(to, id, UINT64_MAX);
	if (!rc)
		rc = sop_tree_scan(v->nodes, &view.tree, SOP_LSN_LATEST, &range, dead_key, &d, e);
	be64_put(from, id);
	change_add(cs, SOP_STORE_SEGMENTS, from, 8, NULL, 0);
	return rc;
}

/* One reference less. *dead: that was the last one. */
static int drop_reference(struct sop_space *s, const struct pending *p, struct changes *cs,
	bool *dead, struct sop_err *e)
{
	uint32_t count;
	int rc;

	*dead = true;
	if (p->lsn == SOP_LSN_GARBAGE)
		return 0;
	rc = shared_get(s->v, &p->ref, &count, e);
	if (rc)
		return rc;
	*dead = count <= 1;
	if (!*dead) {
		shared_set(cs, &p->ref, count - 1);
		/* The next one of the same blob in this round must see it. */
		rc = changes_apply(s->v, cs, e);
		cs->n = 0;
	}
	return rc;
}

static bool node_of(
	const struct sop_space *s, const struct pending *p, enum sop_segment_whose whose)
{
	const struct seg *g = seg_find(s, p->ref.segment);

	return g && g->stream == SOP_STREAM_NODES &&
	       sop_shared_whose(s->v, p->ref.segment) == whose;
}

/* Nor does any other mounter need it, now or later. Nodes of this one are in its images alone; two
 * checkpoints may have the same LSN. Those of the base are in the images of all; what this mounter
 * has put in their place says nothing of the others: they wait for who is alone. Those of another
 * go from our accounts, and no farther. */
static bool others_let_go(const struct sop_space *s, const struct pending *p)
{
	if (node_of(s, p, SOP_SEGMENT_OTHERS))
		return true;
	if (node_of(s, p, SOP_SEGMENT_OLD))
		return false;
	if (node_of(s, p, SOP_SEGMENT_OWN))
		return !sop_shared_imaged(s->v, p->born, p->lsn);
	return p->lsn <= sop_shared_pin(s->v);
}

static bool runnable(struct sop_space *s, const struct pending *p, uint64_t durable)
{
	if (p->lsn == SOP_LSN_GARBAGE)
		return true;
	return p->lsn <= durable && !sop_pins_between(s->v->pins, p->scope, 0, p->lsn) &&
	       (!sop_shared_live(s->v) || others_let_go(s, p));
}

/* The pass that is under way ends here: all that is pending lies together. */
static void pass_end(struct sop_space *s)
{
	size_t rest = s->n_pending - s->looked;

	if (s->looked > s->kept && rest)
		memmove(s->pending + s->kept, s->pending + s->looked, rest * sizeof(*s->pending));
	s->n_pending = s->kept + rest;
	s->kept = s->looked = 0;
}

/* Take up to max entries that can go from the list, keeping the order of the rest. A pass over all
 * of it takes as many calls as it needs: each holds up the others for a moment only, and no entry
 * is looked at twice. *left: it is not over. */
static size_t take_runnable(struct sop_space *s, struct pending *out, size_t max, bool *left)
{
	uint64_t durable = s->v->barrier_marked;
	size_t n = 0;

	SOP_LOCK_GUARD(&s->lock);
	for (size_t i = 0; i < LOOKED_AT && n < max && s->looked < s->n_pending; i++) {
		const struct pending *p = &s->pending[s->looked++];

		if (runnable(s, p, durable)) {
			out[n++] = *p;
			s->pending_bytes -= p->ref.len;
		} else {
			s->pending[s->kept++] = *p;
		}
	}
	*left = s->looked < s->n_pending;
	if (!*left)
		pass_end(s);
	return n;
}

/* What is live in a segment of which more has been freed than was, by its account: nobody knows
 * what else is there, so its files stay until fsck has counted. */
#define KEPT 1u

static void live_less(struct sop_space *s, struct seg *g, uint64_t bytes)
{
	uint64_t left = bytes > g->live ? KEPT : g->live - bytes;

	if (bytes > g->live && g->live != KEPT)
		sop_log(s->v->log, SOP_LOG_ERROR, "space",
			"op=reclaim segment=%016llx code=SOP_ECORRUPT: more bytes are freed than "
			"were live by its account; it is kept: run fsck.sopfs",
			(unsigned long long)g->id);
	s->live_bytes -= SOP_MIN((g->live - SOP_MIN(g->live, left)) * g->shards, s->live_bytes);
	g->live = left;
	g->dirty = true;
}

static int reclaim_locked(struct sop_space *s, struct pending *run, size_t n, struct punches *ps,
	uint64_t *remove, size_t *n_remove, struct sop_err *e)
{
	sop_autofree struct garbage *g = calloc(n + 1, sizeof(*g));
	struct changes cs = {0};
	size_t ng = 0, from = 0;
	int rc = g ? deltas_apply(s, e) : sop_fail(e, -ENOMEM, "reclaim");

	for (size_t i = 0; i < n && !rc; i++) {
		struct seg *sg;
		bool dead;
		uint64_t bytes;

		rc = drop_reference(s, &run[i], &cs, &dead, e);
		if (rc)
			break;
		SOP_LOCK_GUARD(&s->lock);
		sg = dead ? seg_find(s, run[i].ref.segment) : NULL;
		if (!sg) { /* else: removed whole before a crash, freed again by the replay */
			run[i].ref.segment = 0;
			continue;
		}
		bytes = sop_blob_shard_bytes(run[i].ref.len, sg->k);
		if (run[i].lsn != SOP_LSN_GARBAGE)
			live_less(s, sg, bytes);
		run[i].lsn = SOP_LSN_GARBAGE; /* its reference is gone, whatever happens below */
		g[ng++] = (struct garbage){
			.segment = run[i].ref.segment, .off = run[i].ref.off, .len = bytes};
	}
	if (ng)
		qsort(g, ng, sizeof(*g), garbage_order);
	for (size_t i = 0; i < ng && !rc; i = from) {
		bool ended = sop_segments_ended(s->v->seg, g[i].segment), gone, foreign;
		struct seg *sg;

		for (from = i; from < ng && g[from].segment == g[i].segment; from++)
			;
		sop_lock(&s->lock);
		sg = seg_find(s, g[i].segment);
		foreign = sg && sg->stream == SOP_STREAM_NODES &&
			  sop_shared_whose(s->v, sg->id) == SOP_SEGMENT_OTHERS;
		/* Another may be writing to it: who is alone removes it. */
		gone = sg && empty(sg) && ended && !sop_shared_live(s->v);
		g[i].forget = gone || (foreign && empty(sg));
		sop_unlock(&s->lock);
		if (g[i].forget)
			rc = segment_records_drop(s->v, g[i].segment, &cs, e);
		if (gone) {
			remove[(*n_remove)++] = g[i].segment;
		} else if (!foreign) {
			rc = account_dead(s->v, g + i, from - i, &cs, ps, e);
		}
	}
	if (!rc)
		rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	SOP_LOCK_GUARD(&s->lock);
	for (size_t i = 0; i < ng && !rc; i++)
		if (g[i].forget)
			seg_forget(s, seg_find(s, g[i].segment));
	if (rc) { /* what has not been given back waits for the next round */
		for (size_t i = 0; i < n; i++)
			if (run[i].ref.segment && pending_put(s, &run[i]))
				break;
		ps->n = *n_remove = 0;
	}
	return rc;
}

static int emptied_add(struct sop_space *s, uint64_t id, struct sop_err *e)
{
	if (s->n_emptied == s->cap_emptied) {
		size_t cap = s->cap_emptied ? 2 * s->cap_emptied : 16;
		uint64_t *p = realloc(s->emptied, cap * sizeof(*p));

		if (!p)
			return sop_fail(e, -ENOMEM, "emptied segments");
		s->emptied = p;
		s->cap_emptied = cap;
	}
	s->emptied[s->n_emptied++] = id;
	return 0;
}

/* Give back what an empty segment takes up; its files and headers stay for now. */
static int hollow(struct sop_space *s, uint64_t id, struct sop_err *e)
{
	struct sop_range64 all = {.off = SOP_SHARD_HEADER};
	uint64_t end;
	int rc = sop_segments_file_end(s->v->seg, id, &end, e);

	if (rc == -ENOENT)
		return 0;
	if (rc || end <= SOP_SHARD_HEADER)
		return rc;
	all.len = end - SOP_SHARD_HEADER;
	return sop_segments_punch(s->v->seg, id, &all, 1, e);
}

/* Segments that lost their last blob before they were sealed: at most max of them. */
static int sweep_locked(
	struct sop_space *s, uint64_t *remove, size_t *n, size_t max, struct sop_err *e)
{
	struct changes cs = {0};
	size_t first = *n;
	int rc = 0;

	sop_lock(&s->lock);
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = s->seg[b]; g && *n < max; g = g->next) {
			/* In this order: an append that has ended has been noted. */
			if (sop_segments_ended(s->v->seg, g->id) && empty(g))
				remove[(*n)++] = g->id;
		}
	sop_unlock(&s->lock);
	for (size_t i = first; i < *n && !rc; i++)
		rc = segment_records_drop(s->v, remove[i], &cs, e);
	if (!rc)
		rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	SOP_LOCK_GUARD(&s->lock);
	for (size_t i = first; i < *n && !rc; i++)
		seg_forget(s, seg_find(s, remove[i]));
	*n = rc ? first : *n;
	return rc;
}

static void first_error(int *rc, int next)
{
	if (!*rc)
		*rc = next;
}

int sop_space_reclaim(struct sop_space *s, size_t max, bool *left, struct sop_err *e)
{
	sop_autofree struct pending *run = calloc(max, sizeof(*run));
	sop_autofree uint64_t *remove = calloc(max, sizeof(*remove));
	struct punches ps = {0};
	size_t n, n_remove = 0;
	int rc = 0;

	if (!run || !remove)
		return sop_fail(e, -ENOMEM, "reclaim");
	sop_lock(&s->v->commit);
	n = take_runnable(s, run, max, left);
	if (n)
		rc = reclaim_locked(s, run, n, &ps, remove, &n_remove, e);
	if (!rc && !*left && !sop_shared_live(s->v))
		rc = sweep_locked(s, remove, &n_remove, max, e);
	/* What has gone from the accounts is given back, whatever has not. */
	for (size_t i = 0; i < n_remove; i++)
		first_error(&rc, emptied_add(s, remove[i], rc ? NULL : e));
	sop_unlock(&s->v->commit);
	if (ps.failed && !rc)
		rc = sop_fail(e, -ENOMEM, "reclaim");
	/* Outside of the commit lock: punching is slow. The checkpoint, which would forget that
	 * these are to be punched, is held off by the caller. */
	first_error(&rc, punch_all(s, &ps, rc ? NULL : e));
	for (size_t i = 0; i < n_remove; i++)
		first_error(&rc, hollow(s, remove[i], rc ? NULL : e));
	free(ps.p);
	return rc;
}

int sop_space_published(struct sop_space *s, struct sop_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < s->n_emptied_flushed && !rc; i++)
		rc = sop_segments_remove(s->v->seg, s->emptied[i], e);
	s->n_emptied -= s->n_emptied_flushed;
	if (s->n_emptied)
		memmove(s->emptied, s->emptied + s->n_emptied_flushed,
			s->n_emptied * sizeof(*s->emptied));
	s->n_emptied_flushed = 0;
	return rc;
}

/* Count what is written now, and say how much was in the last one to two seconds: the disks' own
 * figures are up to a second old, and the reserve must not be overrun meanwhile. */
static uint64_t recently_written(struct sop_space *s, uint64_t bytes)
{
	uint64_t now = s->v->clock->monotonic_ms(s->v->clock->ctx) / 1000;

	SOP_LOCK_GUARD(&s->lock);
	if (now != s->written_at) {
		s->written[1] = now == s->written_at + 1 ? s->written[0] : 0;
		s->written[0] = 0;
		s->written_at = now;
	}
	s->written[0] += bytes;
	return s->written[0] + s->written[1];
}

static bool has_room(uint64_t total, uint64_t avail, uint64_t bytes)
{
	uint64_t reserve = sop_space_reserve_bytes(total);

	return avail >= reserve && avail - reserve >= bytes;
}

int sop_space_check(struct sop_space *s, unsigned profile, uint64_t bytes, struct sop_err *e)
{
	uint64_t total, avail, recent;

	sop_members_capacity(s->v->mem, profile, &total, &avail);
	recent = recently_written(s, 0);
	if (has_room(total, avail - SOP_MIN(avail, recent), bytes))
		return 0;
	/* What was written lately may be in the figures already: the disks know. */
	if (sop_members_capacity_now(s->v->mem, profile, &total, &avail) &&
		has_room(total, avail, bytes))
		return 0;
	return sop_say(e, -ENOSPC, "no space left on the volume");
}

uint64_t sop_space_reserve_bytes(uint64_t total)
{
	return SOP_MIN(total / 20, (uint64_t)64 << 20);
}

/* ---- writing blobs ---- */

#define PUT_TRIES 4

int sop_space_prepare(struct sop_append **out, struct sop_space *s, unsigned profile,
	enum sop_stream stream, struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_batch *b, struct sop_err *e)
{
	uint64_t bytes = 0;
	int rc;

	/* Taken and noted in one, so that a checkpoint knows of every place below the ends it
	 * records. */
	pthread_rwlock_rdlock(&s->placing);
	rc = sop_segments_prepare(out, s->v->seg, profile, stream, puts, n, fill_bytes, b, e);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = sop_space_reserve(s, &puts[i].ref, e);
		if (!rc)
			continue;
		while (i--)
			sop_space_abandon(s, &puts[i].ref);
		sop_segments_abandon(*out);
		break;
	}
	pthread_rwlock_unlock(&s->placing);
	for (size_t i = 0; i < n && !rc; i++)
		bytes += puts[i].len;
	recently_written(s, bytes);
	return rc;
}

int sop_space_put(struct sop_space *s, unsigned profile, enum sop_stream stream,
	struct sop_blob_put *puts, size_t n, struct sop_err *e)
{
	int rc = 0;

	for (unsigned attempt = 0; attempt < PUT_TRIES; attempt++) {
		struct sop_batch *b = sop_batch_new(s->v->io);
		struct sop_append *a;
		bool placed;

		if (!b)
			return sop_fail(e, -ENOMEM, "write of %zu blobs", n);
		rc = sop_space_prepare(&a, s, profile, stream, puts, n, 0, b, e);
		placed = !rc;
		if (placed) {
			sop_batch_run(b,
				stream == SOP_STREAM_BULK ? SOP_IO_PARALLEL : SOP_IO_SERIAL, 0,
				sop_members_timeout_ms(s->v->mem));
			rc = sop_segments_finish(a, e);
			if (rc)
				for (size_t i = 0; i < n; i++)
					sop_space_abandon(s, &puts[i].ref);
		}
		sop_batch_put(b);
		/* A disk that turned out to be full is not chosen again. */
		if (rc != -EIO && rc != -ETIMEDOUT && rc != SOP_ETIMEOUT &&
			!(rc == -ENOSPC && placed))
			break;
	}
	return rc;
}

/* ---- checkpoint and mount ---- */

static int flush_segment(struct sop_space *s, struct seg *g, struct changes *cs, struct sop_err *e)
{
	struct sop_segment_info info;
	struct sop_disk_segment d = {0};
	uint8_t key[8];
	int rc = sop_segments_info(s->v->seg, g->id, &info, e);

	if (rc)
		return rc;
	/* Of what its mounter has written and not committed nothing is known here: whoever is alone
	 * looks for it behind the last that is. */
	if (sop_shared_whose(s->v, g->id) == SOP_SEGMENT_OTHERS) {
		info.sealed = false;
		info.end = g->reach;
	}
	d.k = info.k;
	d.m = info.m;
	d.stream = info.stream;
	d.flags = (uint8_t)((info.sealed ? SOP_SEGMENT_SEALED : 0) |
			    (info.no_repair ? SOP_SEGMENT_NO_REPAIR : 0) |
			    (info.lengths ? SOP_SEGMENT_LENGTHS : 0));
	d.stale = le32_make(info.stale);
	d.end = le64_make(info.end);
	d.live = le64_make(g->live);
	for (unsigned i = 0; i < SOP_EC_MAX; i++)
		d.disks[i] = le16_make(info.disks[i]);
	be64_put(key, g->id);
	change_add(cs, SOP_STORE_SEGMENTS, key, sizeof(key), &d, sizeof(d));
	g->recorded = true;
	g->stale = info.stale;
	memcpy(g->disks, info.disks, sizeof(g->disks));
	/* An open one changes by appends that this account does not see. */
	g->dirty = !info.sealed;
	return 0;
}

/* A sealed segment changes in this alone: a disk missed a write or a sync, or was healed; a shard
 * was moved. */
static bool shards_changed(struct sop_space *s, const struct seg *g)
{
	struct sop_segment_info info;

	return !sop_segments_info(s->v->seg, g->id, &info, NULL) &&
	       (info.stale != g->stale || memcmp(info.disks, g->disks, sizeof(g->disks)) != 0);
}

static int flush_lists(struct sop_space *s, struct sop_checkpoint *c, struct sop_err *e)
{
	size_t n = 0;

	pass_end(s);
	c->uncommitted = calloc(s->n_uncommitted + 1, sizeof(*c->uncommitted));
	c->pending = calloc(s->n_pending + 1, sizeof(*c->pending));
	if (!c->uncommitted || !c->pending)
		return sop_fail(e, -ENOMEM, "checkpoint lists");
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct small *x = s->uncommitted[b]; x; x = x->next)
			c->uncommitted[n++] = x->ref;
	c->n_uncommitted = n;
	for (size_t i = 0; i < s->n_pending; i++)
		c->pending[i] = (struct sop_pending_free){s->pending[i].lsn, s->pending[i].ref};
	c->n_pending = s->n_pending;
	return 0;
}

int sop_space_flush(struct sop_space *s, struct sop_checkpoint *c, struct sop_err *e)
{
	struct changes cs = {0};
	int rc = deltas_apply(s, e);

	if (rc)
		return rc;
	s->n_emptied_flushed = s->n_emptied;
	pthread_rwlock_wrlock(&s->placing);
	sop_lock(&s->lock);
	for (size_t b = 0; b < BUCKETS && !rc; b++)
		for (struct seg *g = s->seg[b]; g && !rc; g = g->next)
			if (g->dirty || !g->recorded || shards_changed(s, g))
				rc = flush_segment(s, g, &cs, e);
	if (!rc)
		rc = flush_lists(s, c, e);
	sop_unlock(&s->lock);
	pthread_rwlock_unlock(&s->placing);
	if (!rc)
		rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	if (rc) {
		/* What was noted as recorded may not be: the next checkpoint writes all of them,
		 * for a segment that the table does not know is removed at mount. */
		SOP_LOCK_GUARD(&s->lock);
		for (size_t b = 0; b < BUCKETS; b++)
			for (struct seg *g = s->seg[b]; g; g = g->next)
				g->dirty = true;
	}
	return rc;
}

struct load {
	struct sop_space *s;
	struct sop_err *e;
};

static int load_segment(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct load *l = arg;
	struct sop_segment_info info = {0};
	struct sop_disk_segment d;
	struct seg *g;
	int rc;

	if (klen != 8 || vlen != sizeof(d))
		return sop_fail(l->e, SOP_ECORRUPT, "segment table");
	memcpy(&d, val, sizeof(d));
	info.id = be64_get(key);
	info.k = d.k;
	info.m = d.m;
	info.stream = d.stream;
	info.sealed = d.flags & SOP_SEGMENT_SEALED;
	info.no_repair = d.flags & SOP_SEGMENT_NO_REPAIR;
	info.lengths = d.flags & SOP_SEGMENT_LENGTHS;
	info.stale = le32_get(d.stale);
	info.end = le64_get(d.end);
	for (unsigned i = 0; i < SOP_EC_MAX; i++)
		info.disks[i] = le16_get(d.disks[i]);
	if (!d.k || d.k + d.m > SOP_EC_MAX || d.stream >= SOP_STREAMS ||
		info.end < SOP_SHARD_HEADER)
		return sop_fail(l->e, SOP_ECORRUPT, "segment table");
	rc = sop_segments_add(l->s->v->seg, &info, l->e);
	if (!rc)
		rc = seg_add(l->s, &info, &g, l->e);
	if (rc)
		return rc;
	g->live = le64_get(d.live);
	g->stale = info.stale;
	memcpy(g->disks, info.disks, sizeof(g->disks));
	g->recorded = true;
	g->dirty = !info.sealed;
	g->settled = g->reach = info.end;
	l->s->live_bytes += g->live * g->shards;
	return 0;
}

static int learn_one(void *arg, uint64_t id)
{
	const struct load *l = arg;
	struct sop_segment_info info;
	struct seg *g;
	int rc;

	if (seg_find(l->s, id))
		return 0;
	/* Files without a header that verifies: of no use to anybody, and removed as such. */
	rc = sop_segments_info(l->s->v->seg, id, &info, NULL);
	if (rc)
		return rc == -ENOMEM ? rc : 0;
	rc = seg_add(l->s, &info, &g, l->e);
	if (rc)
		return rc;
	/* All of it: an account that is too high gives nothing back that is wanted. */
	g->live = info.end - SOP_SHARD_HEADER;
	g->stale = info.stale;
	memcpy(g->disks, info.disks, sizeof(g->disks));
	g->settled = g->reach = info.end;
	l->s->live_bytes += g->live * g->shards;
	return 0;
}

/* A part of the table is lost: what can be read of it counts, the other segments are as their files
 * show them, and the next checkpoint writes a new table. What the old one's nodes took up is found
 * by a check, as a leak. */
static int learn_segments(struct load *l, const struct sop_checkpoint *c)
{
	struct sop_volume *v = l->s->v;
	struct sop_state *table;
	int rc = sop_stores_load(v->stores, SOP_STORE_SEGMENTS, &table, l->e);

	if (!rc) {
		sop_stores_begin(v->stores);
		rc = sop_stores_change(v->stores, table, c->lsn, l->e);
		if (!rc)
			table->now.root = table->now.count = 0;
		sop_stores_end(v->stores);
	}
	if (!rc)
		rc = sop_segments_scan(v->seg, learn_one, l, l->e);
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = l->s->seg[b]; g; g = g->next)
			g->dirty = true;
	v->segments_learned = true;
	return rc;
}

int sop_space_load(struct sop_space *s, const struct sop_checkpoint *c, struct sop_err *e)
{
	struct load l = {s, e};
	struct sop_range all = {0};
	struct sop_state_view view;
	int rc = sop_stores_view(s->v->stores, SOP_STORE_SEGMENTS, SOP_LSN_LATEST, &view, e);

	s->table_epoch = c->epoch;
	if (!rc)
		rc = sop_tree_scan(
			s->v->nodes, &view.tree, SOP_LSN_LATEST, &all, load_segment, &l, e);
	if (rc && rc != -ENOMEM && s->v->opts.learn_segments)
		rc = learn_segments(&l, c);
	/* From here on allocations are noted: settle() must know them. */
	s->replaying = true;
	for (size_t i = 0; i < c->n_uncommitted && !rc; i++)
		rc = sop_space_reserve(s, &c->uncommitted[i], e);
	for (size_t i = 0; i < c->n_pending && !rc; i++)
		rc = sop_space_free_later(s, c->pending[i].lsn, 0, &c->pending[i].ref, e);
	/* What the checkpoint itself wrote and freed is not in its own image. (From where it goes
	 * to: an earlier one did.) */
	for (size_t i = 0; i < c->n_flips && !rc; i++) {
		if (sop_blobref_equal(&c->flips[i].to, &c->flips[i].from))
			continue;
		if (c->flips[i].to.segment)
			rc = sop_space_alloc(s, &c->flips[i].to, e);
		if (!rc && c->flips[i].from.segment)
			rc = sop_space_free_later(s, c->lsn, 0, &c->flips[i].from, e);
	}
	return rc;
}

static int span_order(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static int garbage_pend(struct sop_space *s, uint64_t segment, uint64_t off, uint64_t len,
	struct changes *cs, struct punches *ps, struct sop_err *e)
{
	struct garbage g = {.segment = segment, .off = off, .len = len};

	return len ? account_dead(s->v, &g, 1, cs, ps, e) : 0;
}

/* What lies beyond the recorded end and was named by no record is garbage. */
static int settle_segment(struct sop_space *s, struct seg *g, struct changes *cs,
	struct punches *ps, struct sop_err *e)
{
	uint64_t at = g->settled, end = 0;
	int rc = sop_segments_file_end(s->v->seg, g->id, &end, NULL);

	/* Nodes of a mounter that is gone: others may have removed them. */
	if (rc == -ENOENT)
		rc = 0;
	if (rc)
		return sop_fail(e, rc, "segment %016llx: size", (unsigned long long)g->id);
	if (g->n_replayed)
		qsort(g->replayed, g->n_replayed, sizeof(*g->replayed), span_order);
	for (size_t i = 0; i < g->n_replayed && !rc; i++) {
		if (g->replayed[i].off > at)
			rc = garbage_pend(s, g->id, at, g->replayed[i].off - at, cs, ps, e);
		at = SOP_MAX(at, g->replayed[i].off + g->replayed[i].len);
	}
	if (!rc && end > at)
		rc = garbage_pend(s, g->id, at, end - at, cs, ps, e);
	free(g->replayed);
	g->replayed = NULL;
	g->n_replayed = g->cap_replayed = 0;
	return rc;
}

/* Of which nobody knows: made by sessions that never committed anything in it. */
static int remove_orphan(void *arg, uint64_t id)
{
	const struct load *l = arg;

	return seg_find(l->s, id) ? 0 : sop_segments_remove(l->s->v->seg, id, l->e);
}

void sop_space_leave_unsettled(struct sop_space *s)
{
	SOP_LOCK_GUARD(&s->lock);

	s->replaying = false;
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = s->seg[b]; g; g = g->next) {
			free(g->replayed);
			g->replayed = NULL;
			g->n_replayed = g->cap_replayed = 0;
		}
}

int sop_space_settle(struct sop_space *s, struct sop_err *e)
{
	struct changes cs = {0};
	struct punches ps = {0};
	int rc;

	/* What a disk missed after the table was written is in no record: the segments of the mount
	 * before and of recoveries that were cut are those that it can be in. */
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = s->seg[b]; g; g = g->next)
			if (!g->recorded || g->id >> 20 >= s->table_epoch)
				sop_segments_distrust(s->v->seg, g->id);
	rc = sop_segments_scan(s->v->seg, remove_orphan, &(struct load){s, e}, e);
	for (size_t b = 0; b < BUCKETS && !rc; b++)
		for (struct seg *g = s->seg[b]; g && !rc; g = g->next) {
			struct sop_segment_info info;

			rc = sop_segments_info(s->v->seg, g->id, &info, e);
			/* One that no checkpoint has recorded was learned from its files, as
			 * sealed.
			 */
			if (!rc && (!info.sealed || !g->recorded)) {
				rc = settle_segment(s, g, &cs, &ps, e);
				sop_segments_seal(s->v->seg, g->id);
			}
		}
	s->replaying = false;
	/* The checkpoint's uncommitted ones that no record committed; those beyond the recorded end
	 * have just been dealt with. */
	for (size_t b = 0; b < BUCKETS && !rc; b++)
		while (s->uncommitted[b]) {
			struct small *x = s->uncommitted[b];
			struct seg *g = seg_find(s, x->ref.segment);

			if (g && x->ref.off < g->settled)
				rc = pending_add(s, SOP_LSN_GARBAGE, 0, &x->ref)
					     ? sop_fail(e, -ENOMEM, "garbage")
					     : 0;
			if (g)
				g->uncommitted = 0;
			s->uncommitted[b] = x->next;
			free(x);
			s->n_uncommitted--;
		}
	if (!rc)
		rc = changes_apply(s->v, &cs, e);
	if (!rc)
		rc = punch_all(s, &ps, e);
	free(cs.c);
	free(ps.p);
	return rc;
}

/* ---- figures ---- */

void sop_space_stat(struct sop_space *s, struct sop_space_stat *out)
{
	SOP_LOCK_GUARD(&s->lock);

	*out = (struct sop_space_stat){.live_bytes = s->live_bytes,
		.pending_bytes = s->pending_bytes,
		.segments = s->segments,
		.pending = s->n_pending - (s->looked - s->kept)};
}

int sop_space_each(struct sop_space *s,
	int (*fn)(void *arg, uint64_t id, uint64_t live, unsigned k), void *arg)
{
	int rc = 0;

	for (size_t b = 0; b < BUCKETS && !rc; b++)
		for (struct seg *g = s->seg[b]; g && !rc; g = g->next)
			rc = fn(arg, g->id, g->live, g->k);
	return rc;
}

int sop_space_each_pending(
	struct sop_space *s, int (*fn)(void *arg, const struct sop_blobref *ref), void *arg)
{
	struct pending p;
	bool more = true;
	int rc = 0;

	sop_lock(&s->lock);
	pass_end(s);
	sop_unlock(&s->lock);
	/* None is taken out without the commit lock, but sessions that end add to them. */
	for (size_t i = 0; more && !rc; i++) {
		sop_lock(&s->lock);
		more = i < s->n_pending;
		p = more ? s->pending[i] : (struct pending){.lsn = SOP_LSN_GARBAGE};
		sop_unlock(&s->lock);
		if (p.lsn != SOP_LSN_GARBAGE)
			rc = fn(arg, &p.ref);
	}
	return rc;
}

/* ---- fsck ---- */

int sop_space_settle_references(struct sop_space *s, struct sop_err *e)
{
	return deltas_apply(s, e);
}

void sop_space_correct_live(struct sop_space *s, uint64_t id, uint64_t live)
{
	SOP_LOCK_GUARD(&s->lock);
	struct seg *g = seg_find(s, id);

	if (!g)
		return;
	s->live_bytes -= SOP_MIN(g->live * g->shards, s->live_bytes);
	g->live = live;
	s->live_bytes += g->live * g->shards;
	g->dirty = true;
}

int sop_space_correct_references(
	struct sop_space *s, const struct sop_blobref *ref, uint32_t count, struct sop_err *e)
{
	struct changes cs = {0};
	int rc;

	shared_set(&cs, ref, count);
	rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	return rc;
}

int sop_space_forget_dead(struct sop_space *s, const struct sop_blobref *page, struct sop_err *e)
{
	struct changes cs = {0};
	uint8_t key[16];
	int rc;

	ref_key(key, page->segment, page->off / SOP_SPACE_PAGE);
	change_add(&cs, SOP_STORE_DEAD, key, sizeof(key), NULL, 0);
	rc = changes_apply(s->v, &cs, e);
	free(cs.c);
	return rc;
}

int sop_space_list(
	struct sop_space *s, int (*fn)(void *arg, const struct sop_space_seg *g), void *arg)
{
	struct sop_space_seg *list;
	size_t n = 0;
	int rc = 0;

	sop_lock(&s->lock);
	list = calloc(s->segments + 1, sizeof(*list));
	for (size_t b = 0; b < BUCKETS && list; b++)
		for (struct seg *g = s->seg[b]; g; g = g->next)
			list[n++] = (struct sop_space_seg){g->id, g->live, g->recorded};
	sop_unlock(&s->lock);
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n && !rc; i++)
		rc = fn(arg, &list[i]);
	free(list);
	return rc;
}

uint64_t sop_space_on(struct sop_space *s, unsigned member)
{
	uint64_t bytes = 0;

	SOP_LOCK_GUARD(&s->lock);
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = s->seg[b]; g; g = g->next) {
			struct sop_segment_info info;

			if (sop_segments_peek(s->v->seg, g->id, &info))
				continue;
			for (unsigned i = 0; i < g->shards; i++)
				bytes += info.disks[i] == member ? g->live + SOP_SHARD_HEADER : 0;
		}
	return bytes;
}

void sop_space_shares(struct sop_space *s, struct sop_space_shares *out)
{
	memset(out, 0, sizeof(*out));
	SOP_LOCK_GUARD(&s->lock);
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct seg *g = s->seg[b]; g; g = g->next) {
			struct sop_segment_info info;

			if (sop_segments_peek(s->v->seg, g->id, &info))
				continue;
			if (info.stream == SOP_STREAM_NODES)
				out->nodes += g->live * g->k;
			else
				out->data += g->live * g->k;
			out->parity += g->live * (g->shards - g->k);
		}
	out->pinned = s->pending_bytes;
	/* Pending blobs are live by account. */
	out->data -= SOP_MIN(out->data, out->pinned);
}
