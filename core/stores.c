/* States of stores: root, counts, times. The newest lies in memory while it is dirty or in use; the
 * master store holds what the last checkpoint flushed. Older versions are kept while a pin sees
 * them.
 *
 * A crash loses what is in memory: replaying the journal makes it again. */
#include "core/engine.h"

#define BUCKETS	   16384u
#define CLEAN_KEPT 16384u

struct sop_state_older {
	struct sop_state_version at;
	struct sop_state_older *older;
};

struct sop_stores {
	struct sop_volume *v;
	struct sop_lock lock;
	struct sop_state *bucket[BUCKETS];
	struct sop_state *dirty;
	_Atomic size_t dirty_count;
	uint64_t generation; /* rises when states are forgotten: a load begun before may be stale */
	size_t count, forget_at; /* when there are so many, a load makes room */
};

struct sop_stores *sop_stores_new(struct sop_volume *v)
{
	struct sop_stores *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->v = v;
	s->forget_at = 2 * CLEAN_KEPT;
	sop_lock_init(&s->lock, SOP_RANK_STORES, "stores");
	return s;
}

static void state_free(struct sop_state *st)
{
	while (st->older) {
		struct sop_state_older *o = st->older;

		st->older = o->older;
		free(o);
	}
	sop_keying_put(st->keying);
	free(st->options);
	free(st);
}

void sop_stores_free(struct sop_stores *s)
{
	if (!s)
		return;
	for (unsigned b = 0; b < BUCKETS; b++)
		while (s->bucket[b]) {
			struct sop_state *st = s->bucket[b];

			s->bucket[b] = st->hash_next;
			state_free(st);
		}
	sop_lock_release(&s->lock);
	free(s);
}

static unsigned bucket_of(uint64_t id)
{
	return (unsigned)((id * 0x9E3779B97F4A7C15ull) >> 52) % BUCKETS;
}

static struct sop_state *find(struct sop_stores *s, uint64_t id)
{
	struct sop_state *st = s->bucket[bucket_of(id)];

	while (st && st->id != id)
		st = st->hash_next;
	return st;
}

static void insert(struct sop_stores *s, struct sop_state *st)
{
	struct sop_state **b = &s->bucket[bucket_of(st->id)];

	st->hash_next = *b;
	*b = st;
	s->count++;
}

size_t sop_stores_count(struct sop_stores *s)
{
	SOP_LOCK_GUARD(&s->lock);
	return s->count;
}

/* With the version before, which one just made has, and what the heap adds. */
size_t sop_stores_dirty_bytes(const struct sop_stores *s)
{
	return s->dirty_count *
	       (sizeof(struct sop_state) + sizeof(struct sop_state_older) + 2 * sizeof(void *));
}

static void dirty_add(struct sop_stores *s, struct sop_state *st)
{
	st->dirty = true;
	st->dirty_next = s->dirty;
	s->dirty = st;
	s->dirty_count++;
}

struct sop_tree sop_state_tree(const struct sop_state *st)
{
	return (struct sop_tree){.store = st->id,
		.root = st->now.root,
		.node_bytes = st->node_bytes,
		.slot_length = st->slot_length,
		.cache = st->cache_class,
		.balance = st->balance};
}

/* Take over options, checked before. -ENOMEM leaves the state as it was. */
static int state_options(
	struct sop_stores *s, struct sop_state *st, const void *options, uint32_t len)
{
	const struct sop_label *label = sop_members_label(s->v->mem);
	struct sop_disk_store_options o = {0};
	struct sop_keying *keying = NULL;
	void *copy = NULL;

	if (len) {
		copy = malloc(len);
		if (!copy || sop_keying_new(&keying, options, len, NULL)) {
			free(copy);
			return -ENOMEM;
		}
		memcpy(copy, options, len);
		memcpy(&o, options, sizeof(o));
	}
	free(st->options);
	sop_keying_put(st->keying);
	st->options = copy;
	st->options_len = len;
	st->keying = keying;
	st->node_bytes = le32_get(o.node_bytes) ? le32_get(o.node_bytes) : label->node_bytes;
	st->slot_length = le32_get(o.slot_length);
	st->balance = o.flags & SOP_OPTION_BALANCE;
	st->value_class = o.value_class;
	st->cache_class = o.cache_class; /* as enum sop_tree_cache */
	st->profile = (uint8_t)sop_profile_of(
		s->v, len ? (const char *)copy + sizeof(o) : "", o.profile_len);
	return 0;
}

/* A new state with its shape; NULL: no memory. */
static struct sop_state *state_new(
	struct sop_stores *s, uint64_t id, const void *options, uint32_t len)
{
	struct sop_state *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	st->id = id;
	if (state_options(s, st, options, len)) {
		free(st);
		return NULL;
	}
	return st;
}

struct load {
	struct sop_stores *s;
	uint64_t id;
	struct sop_state *st;
	struct sop_err *e;
};

static int load_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct load *l = arg;
	struct sop_disk_store d;
	uint32_t len;
	int rc;

	(void)key;
	(void)klen;
	if (vlen < sizeof(d))
		return sop_fail(
			l->e, SOP_ECORRUPT, "state of store %llu", (unsigned long long)l->id);
	memcpy(&d, val, sizeof(d));
	len = le32_get(d.options_len);
	if (len != vlen - sizeof(d))
		return sop_fail(
			l->e, SOP_ECORRUPT, "state of store %llu", (unsigned long long)l->id);
	rc = len ? sop_store_options_check((const uint8_t *)val + sizeof(d), len, l->e) : 0;
	if (rc)
		return rc;
	l->st = state_new(l->s, l->id, (const uint8_t *)val + sizeof(d), len);
	if (!l->st)
		return sop_fail(l->e, -ENOMEM, "state of a store");
	l->st->now = (struct sop_state_version){
		.lsn = le64_get(d.lsn),
		.root = le64_get(d.root),
		.count = le64_get(d.count),
		.subdirs = le64_get(d.subdirs),
		.mtime = {(time_t)le64_get(d.mtime_s), (long)le32_get(d.mtime_ns)},
		.ctime = {(time_t)le64_get(d.ctime_s), (long)le32_get(d.ctime_ns)},
	};
	return 0;
}

/* Drop versions that no pin can see. `newer` is the LSN at which the version in hand was replaced.
 * The published version stays as well: it may be pinned at any moment until the next is published.
 */
static void prune(struct sop_stores *s, struct sop_state *st)
{
	uint64_t newer = st->now.lsn, published = sop_pins_published(s->v->pins);
	struct sop_state_older **p = &st->older;

	while (*p) {
		struct sop_state_older *o = *p;

		if ((o->at.lsn <= published && published < newer) ||
			sop_pins_between(s->v->pins, st->id, o->at.lsn, newer)) {
			newer = o->at.lsn;
			p = &o->older;
			continue;
		}
		*p = o->older;
		free(o);
	}
}

/* Clean states that nobody needs: none but this one, and none that the writer has loaded unless it
 * is he who forgets. What stays is looked at again when there are twice as many. */
static void forget(struct sop_stores *s, bool writer, const struct sop_state *but)
{
	s->generation++;
	for (unsigned b = 0; b < BUCKETS; b++) {
		struct sop_state **p = &s->bucket[b];

		while (*p) {
			struct sop_state *st = *p;

			if (st->older)
				prune(s, st);
			st->wanted = st->wanted && !writer;
			/* A store that is gone stays until its last reader is: older is set then.
			 */
			if (st->dirty || st->older || st->wanted || st == but ||
				st->id <= SOP_STORE_ROOT) {
				p = &st->hash_next;
				continue;
			}
			*p = st->hash_next;
			state_free(st);
			s->count--;
		}
	}
	s->forget_at = SOP_MAX(2 * s->count, 2 * (size_t)CLEAN_KEPT);
}

/* The state in memory, with the lock held on success and not on failure. */
static int find_or_load(
	struct sop_stores *s, uint64_t id, struct sop_state **out, struct sop_err *e)
{
	uint8_t key[SOP_MASTER_KEY];

	sop_master_key(key, id, 's');
	for (;;) {
		struct load l = {.s = s, .id = id, .e = e};
		struct sop_state *master;
		struct sop_tree tree;
		uint64_t generation;
		int rc;

		sop_lock(&s->lock);
		*out = find(s, id);
		if (*out)
			return 0;
		master = find(s, SOP_STORE_MASTER);
		if (!master || id == SOP_STORE_MASTER) {
			sop_unlock(&s->lock);
			return sop_fail(e, -ENOENT, "store %llu", (unsigned long long)id);
		}
		tree = sop_state_tree(master);
		generation = s->generation;
		sop_unlock(&s->lock);

		rc = sop_tree_find(
			s->v->nodes, &tree, SOP_LSN_LATEST, key, sizeof(key), load_entry, &l, e);
		if (rc)
			return rc == -ENOENT
				       ? sop_fail(e, rc, "store %llu", (unsigned long long)id)
				       : sop_wrap(e, rc, "store %llu", (unsigned long long)id);
		sop_lock(&s->lock);
		*out = find(s, id);
		if (*out) {
			state_free(l.st);
			return 0;
		}
		if (s->generation == generation) {
			insert(s, l.st);
			if (s->count >= s->forget_at)
				forget(s, false, l.st);
			*out = l.st;
			return 0;
		}
		sop_unlock(&s->lock);
		state_free(l.st);
	}
}

int sop_stores_view(struct sop_stores *s, uint64_t id, uint64_t lsn, struct sop_state_view *out,
	struct sop_err *e)
{
	const struct sop_state_version *at;
	struct sop_state *st;
	int rc = find_or_load(s, id, &st, e);

	if (rc)
		return rc;
	at = &st->now;
	for (struct sop_state_older *o = st->older; at && at->lsn > lsn; o = o->older) {
		at = o ? &o->at : NULL;
		if (!o)
			break;
	}
	if (!at || at->gone) {
		sop_unlock(&s->lock);
		return sop_fail(e, -ENOENT, "store %llu", (unsigned long long)id);
	}
	out->tree = sop_state_tree(st);
	out->tree.root = at->root;
	out->at = *at;
	out->profile = st->profile;
	out->value_class = st->value_class;
	out->typed = st->keying != NULL;
	out->shape = st->keying ? st->keying->shape : 0;
	sop_unlock(&s->lock);
	return 0;
}

int sop_stores_keying(struct sop_stores *s, uint64_t id, struct sop_keying **out, struct sop_err *e)
{
	struct sop_state *st;
	int rc = find_or_load(s, id, &st, e);

	*out = NULL;
	if (rc)
		return rc;
	*out = sop_keying_get(st->keying);
	sop_unlock(&s->lock);
	return 0;
}

int sop_stores_options(
	struct sop_stores *s, uint64_t id, void **options, uint32_t *len, struct sop_err *e)
{
	struct sop_state *st;
	int rc = find_or_load(s, id, &st, e);

	*options = NULL;
	*len = 0;
	if (rc)
		return rc;
	if (st->options_len && !(*options = malloc(st->options_len)))
		rc = sop_fail(e, -ENOMEM, "store options");
	if (*options) {
		memcpy(*options, st->options, st->options_len);
		*len = st->options_len;
	}
	sop_unlock(&s->lock);
	return rc;
}

unsigned sop_stores_profile(struct sop_stores *s, uint64_t id)
{
	struct sop_state *st;

	SOP_LOCK_GUARD(&s->lock);
	st = find(s, id);
	return st ? st->profile : 0;
}

int sop_stores_set(struct sop_stores *s, struct sop_state *st, const void *options, uint32_t len,
	struct sop_err *e)
{
	return state_options(s, st, options, len) ? sop_fail(e, -ENOMEM, "store options") : 0;
}

int sop_stores_load(struct sop_stores *s, uint64_t id, struct sop_state **out, struct sop_err *e)
{
	int rc = find_or_load(s, id, out, e);

	if (rc)
		return rc;
	(*out)->wanted = true;
	sop_unlock(&s->lock);
	return 0;
}

struct sop_state *sop_stores_get(struct sop_stores *s, uint64_t id)
{
	return find(s, id);
}

void sop_stores_begin(struct sop_stores *s)
{
	sop_lock(&s->lock);
}

void sop_stores_end(struct sop_stores *s)
{
	sop_unlock(&s->lock);
}

int sop_stores_change(struct sop_stores *s, struct sop_state *st, uint64_t lsn, struct sop_err *e)
{
	if (st->now.lsn < lsn) {
		struct sop_state_older *o = malloc(sizeof(*o));

		if (!o)
			return sop_fail(e, -ENOMEM, "version of a store");
		o->at = st->now;
		o->older = st->older;
		st->older = o;
	}
	st->now.lsn = SOP_MAX(lsn, st->now.lsn);
	if (st->older)
		prune(s, st);
	if (!st->dirty)
		dirty_add(s, st);
	return 0;
}

int sop_stores_create(struct sop_stores *s, uint64_t id, const void *options, uint32_t len,
	uint64_t lsn, struct timespec time, struct sop_err *e)
{
	struct sop_state *st = find(s, id);

	if (st)
		return sop_fail(
			e, SOP_ECORRUPT, "store %llu is created twice", (unsigned long long)id);
	st = state_new(s, id, options, len);
	if (!st)
		return sop_fail(e, -ENOMEM, "state of a store");
	/* A pin older than its birth must not see it: an empty past that says so. */
	st->older = calloc(1, sizeof(*st->older));
	if (!st->older) {
		state_free(st);
		return sop_fail(e, -ENOMEM, "state of a store");
	}
	st->older->at.gone = true;
	st->now.lsn = lsn;
	st->now.mtime = st->now.ctime = time;
	insert(s, st);
	dirty_add(s, st);
	return 0;
}

static int flush_one(struct sop_stores *s, struct sop_state *st, struct sop_tree *master,
	uint64_t *count, struct sop_err *e)
{
	uint8_t key[SOP_MASTER_KEY];
	struct sop_disk_store d = {
		.root = le64_make(st->now.root),
		.count = le64_make(st->now.count),
		.subdirs = le64_make(st->now.subdirs),
		.lsn = le64_make(st->now.lsn),
		.mtime_s = le64_make((uint64_t)st->now.mtime.tv_sec),
		.ctime_s = le64_make((uint64_t)st->now.ctime.tv_sec),
		.mtime_ns = le32_make((uint32_t)st->now.mtime.tv_nsec),
		.ctime_ns = le32_make((uint32_t)st->now.ctime.tv_nsec),
		.options_len = le32_make(st->options_len),
	};
	sop_autofree uint8_t *val = NULL;
	bool was;
	int rc;

	sop_master_key(key, st->id, 's');
	if (st->now.gone) {
		rc = sop_tree_del(s->v->nodes, master, key, sizeof(key), &was, e);
		*count -= !rc && was;
		return rc;
	}
	val = malloc(sizeof(d) + st->options_len);
	if (!val)
		return sop_fail(e, -ENOMEM, "state of a store");
	memcpy(val, &d, sizeof(d));
	if (st->options_len)
		memcpy(val + sizeof(d), st->options, st->options_len);
	rc = sop_tree_put(
		s->v->nodes, master, key, sizeof(key), val, sizeof(d) + st->options_len, &was, e);
	*count += !rc && !was;
	return rc;
}

int sop_stores_flush(struct sop_stores *s, uint64_t lsn, struct sop_err *e)
{
	struct sop_state *master, *st;
	struct sop_tree tree;
	int rc = 0;

	sop_lock(&s->lock);
	master = find(s, SOP_STORE_MASTER);
	sop_unlock(&s->lock);
	/* Writers are held off by the commit lock; loads by readers only add clean states. */
	for (st = s->dirty; st && !rc; st = st->dirty_next) {
		uint8_t key[SOP_MASTER_KEY];

		sop_master_key(key, st->id, 's');
		tree = sop_state_tree(master);
		if (st != master)
			rc = sop_tree_prefault(
				s->v->nodes, &tree, key, sizeof(key), st->now.gone, e);
	}
	if (rc)
		return rc;
	sop_lock(&s->lock);
	tree = sop_state_tree(master);
	sop_nodes_write_begin(s->v->nodes, lsn);
	while (!rc && s->dirty) {
		st = s->dirty;
		if (st != master)
			rc = flush_one(s, st, &tree, &master->now.count, e);
		if (rc)
			break;
		s->dirty = st->dirty_next;
		s->dirty_count--;
		st->dirty_next = NULL;
		st->dirty = false;
	}
	master->now.root = tree.root;
	sop_nodes_write_end(s->v->nodes);
	sop_unlock(&s->lock);
	return rc;
}

void sop_stores_trim(struct sop_stores *s)
{
	SOP_LOCK_GUARD(&s->lock);

	if (s->count > CLEAN_KEPT)
		forget(s, true, NULL);
}

int sop_stores_correct(
	struct sop_stores *s, uint64_t id, uint64_t count, uint64_t subdirs, struct sop_err *e)
{
	struct sop_state *st;
	int rc = find_or_load(s, id, &st, e);

	if (rc)
		return rc;
	rc = sop_stores_change(s, st, s->v->lsn_next - 1, e);
	if (!rc) {
		st->now.count = count;
		st->now.subdirs = subdirs;
	}
	sop_unlock(&s->lock);
	return rc;
}
