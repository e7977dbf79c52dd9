/* The node cache. See node_cache.h for the states of a version.
 *
 * Why old versions are safe to drop: a reader pins only what is published, and the published LSN
 * never goes back. So the LSNs that can be pinned from now on are those from the published one on;
 * a version seen in [from, to) is needed while a pin lies in there or the published LSN does. The
 * published LSN is read first: a pin taken after that look is not below it, one taken before is
 * found.
 *
 * Why a load cannot bring back the past: the node is in the hash table, marked as loading, before
 * the registry is asked where it lies, and cannot leave the table while it is. If a writer loads
 * and changes it meanwhile, the version that waited for this load is no longer waiting, and what
 * was read is thrown away. The blob read stays on the disks because the reader pins the published
 * LSN before it looks.
 *
 * Nothing here touches the disks but the callbacks; a crash loses the dirty versions, which replay
 * of the journal makes again. */
#include "core/node_cache.h"

#define BUCKETS_FIRST 1024u
#define SWEEP	      32u  /* nodes with old versions looked at by a write */
#define EVICT_STEPS   256u /* versions looked at by a load */
#define BATCH	      128u /* nodes a checkpoint marks written before it lets others in */

enum on { ON_NONE, ON_CLOCK, ON_DIRTY };

static _Thread_local const struct sop_nodes *inside;

bool sop_nodes_inside(const struct sop_nodes *n)
{
	return inside == n;
}

static void must(int rc)
{
	assert(rc == 0);
	(void)rc;
}

/* ---- lists --------------------------------------------------------------------------------------
 */

static void link_init(struct link *l)
{
	l->prev = l;
	l->next = l;
}

static bool link_empty(const struct link *l)
{
	return l->next == l;
}

static void link_del(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static void link_add_tail(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static struct version *version_of(struct link *l)
{
	return (struct version *)(void *)((char *)l - offsetof(struct version, link));
}

static struct node *node_of_olds(struct link *l)
{
	return (struct node *)(void *)((char *)l - offsetof(struct node, olds));
}

/* ---- versions -----------------------------------------------------------------------------------
 */

void sop_nodes_uncount(struct sop_nodes *n, struct version *v)
{
	size_t bytes = sizeof(*v) + (v->page ? sop_page_memory(v->page) : 0);

	n->memory_bytes -= bytes;
	if (v->superseded)
		n->old_bytes -= bytes;
	else if (v->dirty)
		n->dirty_bytes -= bytes;
	if (v->on == ON_CLOCK)
		n->clock_count--;
	else if (v->on == ON_DIRTY)
		n->dirty_count--;
	if (v->on != ON_NONE)
		link_del(&v->link);
	v->on = ON_NONE;
}

void sop_nodes_recount(struct sop_nodes *n, struct version *v)
{
	size_t bytes = sizeof(*v) + (v->page ? sop_page_memory(v->page) : 0);

	n->memory_bytes += bytes;
	if (v->superseded)
		n->old_bytes += bytes;
	else if (v->dirty)
		n->dirty_bytes += bytes; /* what a checkpoint would make clean */
	if (v->dirty && !v->frozen && !v->superseded) {
		v->on = ON_DIRTY;
		n->dirty_count++;
		link_add_tail(&n->dirty, &v->link);
	} else if (!v->dirty && v->page) {
		v->on = ON_CLOCK;
		n->clock_count++;
		link_add_tail(&n->clock, &v->link);
	}
}

/* Not counted, not linked. */
static struct version *version_new(struct node *node)
{
	struct version *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	link_init(&v->link);
	v->node = node;
	return v;
}

static void version_drop(struct sop_nodes *n, struct version *v)
{
	sop_nodes_uncount(n, v);
	sop_page_free(v->page);
	free(v);
}

/* The list of nodes with something old. */
static void olds_add(struct sop_nodes *n, struct node *node)
{
	if (!link_empty(&node->olds))
		return;
	link_add_tail(&n->olds, &node->olds);
	n->olds_count++;
}

static void olds_del(struct sop_nodes *n, struct node *node)
{
	if (link_empty(&node->olds))
		return;
	link_del(&node->olds);
	n->olds_count--;
}

/* Put v before the newest version of node, which it supersedes. */
static void version_push(struct sop_nodes *n, struct node *node, struct version *v)
{
	struct version *old = node->newest;

	sop_nodes_uncount(n, old);
	old->superseded = true;
	sop_nodes_recount(n, old);
	v->older = old;
	node->newest = v;
	sop_nodes_recount(n, v);
	olds_add(n, node);
	n->olds_new++;
}

/* May any reader, now or later, look at what lies between from and to? */
static bool seen(const struct sop_nodes *n, uint64_t store, uint64_t from, uint64_t to)
{
	uint64_t published = sop_pins_published(n->pins);

	return (from <= published && published < to) || sop_pins_between(n->pins, store, from, to);
}

/* ---- the table ----------------------------------------------------------------------------------
 */

static size_t bucket_of(const struct sop_nodes *n, uint64_t handle)
{
	return (size_t)((handle * 0x9E3779B97F4A7C15u) >> 20) & (n->buckets - 1);
}

struct node *sop_nodes_find(struct sop_nodes *n, uint64_t handle)
{
	struct node *node = n->bucket[bucket_of(n, handle)];

	while (node && node->handle != handle)
		node = node->hash_next;
	return node;
}

/* Twice the buckets. Without memory for them the chains grow longer, nothing else. */
static void table_grow(struct sop_nodes *n)
{
	size_t old = n->buckets;
	struct node **from = n->bucket;
	struct node **to = calloc(2 * old, sizeof(struct node *));

	if (!to)
		return;
	n->bucket = to;
	n->buckets = 2 * old;
	for (size_t i = 0; i < old; i++)
		while (from[i]) {
			struct node *node = from[i];
			struct node **b = &to[bucket_of(n, node->handle)];

			from[i] = node->hash_next;
			node->hash_next = *b;
			*b = node;
		}
	n->memory_bytes += old * sizeof(struct node *);
	free(from);
}

static struct node *node_new(uint64_t handle)
{
	struct node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->handle = handle;
	link_init(&node->olds);
	node->newest = version_new(node);
	if (!node->newest) {
		free(node);
		return NULL;
	}
	return node;
}

static void table_insert(struct sop_nodes *n, struct node *node)
{
	struct node **b;

	if (n->count >= 2 * n->buckets)
		table_grow(n);
	b = &n->bucket[bucket_of(n, node->handle)];
	node->hash_next = *b;
	*b = node;
	n->count++;
	n->memory_bytes += sizeof(*node);
}

/* The node leaves the table with its only version. */
static void node_drop(struct sop_nodes *n, struct node *node)
{
	struct node **p = &n->bucket[bucket_of(n, node->handle)];

	assert(!node->newest->older);
	while (*p != node)
		p = &(*p)->hash_next;
	*p = node->hash_next;
	n->count--;
	n->memory_bytes -= sizeof(*node);
	olds_del(n, node);
	version_drop(n, node->newest);
	free(node);
}

static bool node_busy(const struct node *node)
{
	return node->loading || atomic_load_explicit(&node->users, memory_order_acquire);
}

/* After versions changed their state: let go of what need not be kept of the node, which may be
 * all. */
static void node_settle(struct sop_nodes *n, struct node *node)
{
	struct version *v = node->newest;
	uint64_t handle = node->handle;

	if (v->older)
		return; /* on the list of olds since it was pushed */
	if (v->tombstone) {
		/* What a checkpoint has on disk, or is about to have, must be flipped first. */
		if (v->frozen || (v->dirty && node->blob.segment))
			return;
		if (node_busy(node)) {
			olds_add(n, node);
			return;
		}
		node_drop(n, node);
		n->ops->handle_release(n->ctx, handle);
		return;
	}
	olds_del(n, node);
	if (!v->page && !v->dirty && !v->unknown && !node_busy(node))
		node_drop(n, node);
}

/* Drop the old versions that nobody can see, then settle. */
static void node_prune(struct sop_nodes *n, struct node *node)
{
	struct version *newer = node->newest;
	struct version **p = &newer->older;

	while (*p) {
		struct version *v = *p;

		if (!v->frozen && !seen(n, node->store, v->lsn, newer->lsn)) {
			*p = v->older;
			version_drop(n, v);
		} else {
			newer = v;
			p = &v->older;
		}
	}
	node_settle(n, node);
}

/* Look at up to max nodes that have something old, in turn. */
static void sweep(struct sop_nodes *n, size_t max)
{
	max = SOP_MIN(max, n->olds_count);
	while (max-- && !link_empty(&n->olds)) {
		struct link *l = n->olds.next;

		link_del(l);
		link_add_tail(&n->olds, l);
		node_prune(n, node_of_olds(l));
	}
}

static void evict(struct sop_nodes *n, size_t steps)
{
	if (n->memory_bytes <= n->cache_bytes)
		return;
	sweep(n, SWEEP);
	while (n->memory_bytes > n->cache_bytes && !link_empty(&n->clock) && steps--) {
		struct version *v = version_of(n->clock.next);
		struct node *node = v->node;
		uint8_t chances = atomic_load_explicit(&v->touched, memory_order_relaxed);

		sop_nodes_uncount(n, v);
		if (chances || node_busy(node) || node->kept == n->writing) {
			atomic_store_explicit(&v->touched, (uint8_t)(chances - (chances > 0)),
				memory_order_relaxed);
			sop_nodes_recount(n, v);
			continue;
		}
		sop_page_free(v->page);
		v->page = NULL;
		sop_nodes_recount(n, v);
		n->evictions++;
		node_settle(n, node);
	}
}

/* ---- loading ------------------------------------------------------------------------------------
 */

/* Read and decode; ref is asked for when it is not known. */
static int load_page(struct sop_nodes *n, uint64_t handle, bool unknown, struct sop_blobref *ref,
	struct sop_page **page, uint64_t *lsn, struct sop_err *e)
{
	sop_autofree void *buf = NULL;
	int rc = unknown ? n->ops->locate(n->ctx, handle, ref, e) : 0;

	if (!rc)
		rc = n->ops->load(n->ctx, ref, &buf, e);
	if (!rc)
		rc = sop_page_decode(page, buf, ref->len, lsn, e);
	if (!rc && sop_page_handle(*page) != handle) {
		rc = sop_fail(e, SOP_ECORRUPT, "is node %llu",
			(unsigned long long)sop_page_handle(*page));
		sop_page_free(*page);
		*page = NULL;
	}
	/* A handle that a tree names must be somewhere. */
	if (rc == -ENOENT)
		rc = sop_fail(e, SOP_ECORRUPT, "is not in the registry");
	return rc ? sop_wrap(e, rc, "node %llu", (unsigned long long)handle) : 0;
}

/* The version that a load of ref (or the first load) was for, if it still waits for it. */
static struct version *find_waiting(struct node *node, bool unknown, const struct sop_blobref *ref)
{
	for (struct version *v = node->newest; v; v = v->older) {
		if (v->page || v->tombstone || v->dirty || v->unknown != unknown)
			continue;
		if (unknown || sop_blobref_equal(&v->ref, ref))
			return v;
	}
	return NULL;
}

/* -SOP_ECORRUPT: the page is not the version that was known to lie there. Takes the page on
 * success. */
static int install(struct sop_nodes *n, struct version *v, struct sop_page *page, uint64_t lsn,
	const struct sop_blobref *ref, struct sop_err *e)
{
	struct node *node = v->node;

	if (!v->unknown && lsn != v->lsn)
		return sop_fail(e, SOP_ECORRUPT, "node %llu is of lsn %llu, not %llu",
			(unsigned long long)node->handle, (unsigned long long)lsn,
			(unsigned long long)v->lsn);
	sop_nodes_uncount(n, v);
	v->page = page;
	if (v->unknown) {
		v->unknown = false;
		v->lsn = lsn;
		v->ref = *ref;
		node->blob = *ref;
		node->store = sop_page_store(page);
	}
	atomic_store_explicit(&v->touched, 1, memory_order_relaxed);
	atomic_store_explicit(&v->proven, 0, memory_order_relaxed);
	sop_nodes_recount(n, v);
	return 0;
}

/* Found, or made as a place for a first load. NULL: no memory. */
static struct node *find_or_expect(struct sop_nodes *n, uint64_t handle)
{
	struct node *node = sop_nodes_find(n, handle);

	if (node)
		return node;
	node = node_new(handle);
	if (!node)
		return NULL;
	node->newest->unknown = true;
	table_insert(n, node);
	sop_nodes_recount(n, node->newest);
	return node;
}

/* A load failed. After a first one nothing is known of the node. */
static void load_failed(struct sop_nodes *n, struct node *node)
{
	if (!node->newest->unknown)
		node_settle(n, node);
	else if (!node_busy(node))
		node_drop(n, node);
}

static struct version *visible(struct node *node, uint64_t lsn)
{
	struct version *v = node->newest;

	while (v && v->lsn > lsn)
		v = v->older;
	return v;
}

/* On the writer's thread, under its lock: no other thread can change anything meanwhile. */
static int load_here(struct sop_nodes *n, uint64_t handle, uint64_t lsn, struct sop_err *e)
{
	struct node *node = find_or_expect(n, handle);
	struct sop_page *page = NULL;
	struct sop_blobref ref;
	struct version *v;
	uint64_t page_lsn;
	int rc;

	if (!node)
		return sop_fail(e, -ENOMEM, "node %llu", (unsigned long long)handle);
	v = visible(node, lsn);
	if (!v || v->page || v->tombstone)
		return 0;
	atomic_fetch_add_explicit(&n->misses, 1, memory_order_relaxed);
	ref = v->ref;
	rc = load_page(n, handle, v->unknown, &ref, &page, &page_lsn, e);
	if (!rc) {
		rc = install(n, v, page, page_lsn, &ref, e);
		if (rc)
			sop_page_free(page);
	}
	if (rc)
		load_failed(n, node);
	return rc;
}

static void wait_for_load(struct sop_nodes *n)
{
	uint64_t seen_loads;

	/* The load under way cannot end before this thread lets go of the rwlock. */
	sop_lock(&n->load_lock);
	seen_loads = n->loads_done;
	must(pthread_rwlock_unlock(&n->lock));
	while (n->loads_done == seen_loads)
		sop_cond_wait(&n->load_cond, &n->load_lock, -1);
	sop_unlock(&n->load_lock);
}

static void load_ended(struct sop_nodes *n)
{
	sop_lock(&n->load_lock);
	n->loads_done++;
	must(pthread_cond_broadcast(&n->load_cond));
	sop_unlock(&n->load_lock);
}

static void hold(struct reader *r, struct node *node)
{
	if (r->held_count == SOP_ARRAY_LEN(r->held))
		return; /* a path that long means it changed all the time: go on without */
	atomic_fetch_add_explicit(&node->users, 1, memory_order_relaxed);
	r->held[r->held_count++] = node;
}

/* Second half of a reader's load: rc and page are what came of it. */
static int load_end(struct reader *r, struct node *node, bool unknown,
	const struct sop_blobref *ref, struct sop_page *page, uint64_t page_lsn, int rc,
	struct sop_err *e)
{
	struct sop_nodes *n = r->n;
	struct version *v;

	must(pthread_rwlock_wrlock(&n->lock));
	node->loading = false;
	v = find_waiting(node, unknown, ref);
	if (!v)
		rc = 0; /* another life of the node, or another load was first */
	else if (!rc)
		rc = install(n, v, page, page_lsn, ref, e);
	if (rc || !v)
		sop_page_free(page);
	if (rc)
		load_failed(n, node);
	else if (v)
		hold(r, node);
	if (!rc && !v)
		node_settle(n, node);
	evict(n, EVICT_STEPS);
	must(pthread_rwlock_unlock(&n->lock));
	load_ended(n);
	return rc;
}

static int load_shared(struct reader *r, uint64_t handle, struct sop_err *e)
{
	struct sop_nodes *n = r->n;
	struct sop_page *page = NULL;
	struct sop_blobref ref;
	struct version *v;
	struct node *node;
	uint64_t page_lsn = 0;
	bool unknown;
	int rc;

	must(pthread_rwlock_wrlock(&n->lock));
	node = find_or_expect(n, handle);
	if (!node) {
		must(pthread_rwlock_unlock(&n->lock));
		return sop_fail(e, -ENOMEM, "node %llu", (unsigned long long)handle);
	}
	v = visible(node, r->lsn);
	if (!v || v->page || v->tombstone) {
		must(pthread_rwlock_unlock(&n->lock));
		return 0;
	}
	if (node->loading) {
		wait_for_load(n);
		return 0;
	}
	node->loading = true;
	ref = v->ref;
	unknown = v->unknown;
	must(pthread_rwlock_unlock(&n->lock));

	atomic_fetch_add_explicit(&n->misses, 1, memory_order_relaxed);
	rc = load_page(n, handle, unknown, &ref, &page, &page_lsn, e);
	return load_end(r, node, unknown, &ref, page, page_lsn, rc, e);
}

/* ---- readers ------------------------------------------------------------------------------------
 */

void sop_reader_init(struct reader *r, struct sop_nodes *n, uint64_t lsn)
{
	r->n = n;
	r->lsn = lsn;
	r->inside = sop_nodes_inside(n);
	r->keep = false;
	r->held_count = 0;
	r->missing = 0;
	r->failed = 0;
	r->met = 0;
	r->chances = 1;
}

void sop_reader_release(struct reader *r)
{
	/* Once users is 0 the node may be gone: it is not touched after that. */
	for (unsigned i = 0; i < r->held_count; i++)
		atomic_fetch_sub_explicit(&r->held[i]->users, 1, memory_order_release);
	r->held_count = 0;
	if (r->met)
		atomic_fetch_add_explicit(&r->n->hits, r->met, memory_order_relaxed);
	r->met = 0;
}

void sop_reader_lock(struct reader *r)
{
	if (!r->inside)
		must(pthread_rwlock_rdlock(&r->n->lock));
}

void sop_reader_unlock(struct reader *r)
{
	if (!r->inside)
		must(pthread_rwlock_unlock(&r->n->lock));
}

enum sop_see sop_reader_page(struct reader *r, uint64_t handle, struct version **version)
{
	struct node *node = sop_nodes_find(r->n, handle);
	struct version *v;

	r->missing = handle;
	if (!node)
		return SOP_SEE_LOAD;
	v = visible(node, r->lsn);
	if (!v || v->tombstone)
		return SOP_SEE_NOTHING;
	if (!v->page)
		return SOP_SEE_LOAD;
	r->met++;
	if (atomic_load_explicit(&v->touched, memory_order_relaxed) != r->chances)
		atomic_store_explicit(&v->touched, r->chances, memory_order_relaxed);
	if (r->keep)
		atomic_store_explicit(&node->kept,
			atomic_load_explicit(&r->n->writing, memory_order_relaxed),
			memory_order_relaxed);
	*version = v;
	return SOP_SEE_PAGE;
}

int sop_reader_load(struct reader *r, struct sop_err *e)
{
	uint64_t handle = r->missing;
	uint64_t lsn;
	int rc;

	if (r->inside)
		return load_here(r->n, handle, r->lsn, e);
	/* A reader of the latest state has no pin: what it finds might be freed while it reads it.
	 */
	rc = sop_pins_get(r->n->pins, SOP_PIN_ALL, &lsn);
	if (rc)
		return sop_fail(e, rc, "pin for node %llu", (unsigned long long)handle);
	rc = load_shared(r, handle, e);
	sop_pins_put(r->n->pins, SOP_PIN_ALL, lsn);
	if (!rc) {
		r->failed = 0;
		return 0;
	}
	/* A node removed while this reader held no lock is not there any more; then the way from
	 * the root does not lead to it again. */
	if (rc == -ENOMEM || r->failed == handle)
		return rc;
	r->failed = handle;
	return 0;
}

/* ---- the writer ---------------------------------------------------------------------------------
 */

int sop_nodes_get(struct sop_nodes *n, uint64_t handle, struct node **out, struct sop_err *e)
{
	struct node *node = sop_nodes_find(n, handle);
	int rc;

	if (!node || (!node->newest->page && !node->newest->tombstone)) {
		rc = load_here(n, handle, SOP_LSN_LATEST, e);
		if (rc)
			return rc;
		node = sop_nodes_find(n, handle);
	}
	if (node->newest->tombstone)
		return sop_fail(
			e, SOP_ECORRUPT, "node %llu has been removed", (unsigned long long)handle);
	*out = node;
	return 0;
}

/* May the newest version be changed where it is? */
static bool in_place(const struct sop_nodes *n, const struct node *node)
{
	const struct version *v = node->newest;

	return !v->frozen && (v->lsn == n->lsn || !seen(n, node->store, v->lsn, n->lsn));
}

int sop_nodes_writable(
	struct sop_nodes *n, struct node *node, struct version **out, struct sop_err *e)
{
	struct version *v = node->newest;

	*out = v;
	if (v->dirty && !v->frozen && v->lsn == n->lsn)
		return 0;
	if (in_place(n, node)) {
		sop_nodes_uncount(n, v);
		v->dirty = true;
		v->lsn = n->lsn;
		v->ref = (struct sop_blobref){0};
		sop_nodes_recount(n, v);
		return 0;
	}
	v = version_new(node);
	if (!v)
		return sop_fail(e, -ENOMEM, "node %llu", (unsigned long long)node->handle);
	v->page = sop_page_clone(node->newest->page);
	if (!v->page) {
		free(v);
		return sop_fail(e, -ENOMEM, "node %llu", (unsigned long long)node->handle);
	}
	v->lsn = n->lsn;
	v->dirty = true;
	version_push(n, node, v);
	*out = v;
	return 0;
}

int sop_nodes_prepare(struct sop_nodes *n, uint64_t store, unsigned level, size_t room,
	struct node **out, struct sop_err *e)
{
	struct node *node, *there;
	uint64_t handle;
	int rc = n->ops->handle_alloc(n->ctx, &handle, e);

	if (rc)
		return sop_wrap(e, rc, "handle for a new node");
	there = sop_nodes_find(n, handle);
	if (there && !there->newest->unknown)
		return sop_fail(e, SOP_ECORRUPT, "handle %llu is in use already",
			(unsigned long long)handle);
	node = node_new(handle);
	if (node)
		node->newest->page = sop_page_new(handle, store, level, room);
	if (!node || !node->newest->page) {
		if (node) {
			free(node->newest);
			free(node);
		}
		n->ops->handle_release(n->ctx, handle);
		return sop_fail(e, -ENOMEM, "new node");
	}
	node->store = store;
	node->newest->lsn = n->lsn;
	node->newest->dirty = true;
	*out = node;
	return 0;
}

void sop_nodes_discard(struct sop_nodes *n, struct node *node)
{
	uint64_t handle;

	if (!node)
		return;
	handle = node->handle;
	sop_page_free(node->newest->page);
	free(node->newest);
	free(node);
	n->ops->handle_release(n->ctx, handle);
}

struct node *sop_nodes_attach(struct sop_nodes *n, struct node *node)
{
	struct node *there = sop_nodes_find(n, node->handle);

	if (!there) {
		table_insert(n, node);
		sop_nodes_recount(n, node->newest);
		return node;
	}
	/* A reader that came too late still tries to load what the handle meant before. It holds a
	 * pointer to that struct, so the new life moves in there. */
	assert(there->newest->unknown && !there->newest->older);
	version_drop(n, there->newest);
	there->newest = node->newest;
	there->newest->node = there;
	there->store = node->store;
	there->root = node->root;
	there->blob = (struct sop_blobref){0};
	free(node);
	sop_nodes_recount(n, there->newest);
	return there;
}

int sop_nodes_remove_prepare(
	struct sop_nodes *n, const struct node *node, struct version **spare, struct sop_err *e)
{
	*spare = NULL;
	if (in_place(n, node))
		return 0;
	*spare = version_new(NULL);
	if (!*spare)
		return sop_fail(
			e, -ENOMEM, "removal of node %llu", (unsigned long long)node->handle);
	return 0;
}

void sop_nodes_remove(struct sop_nodes *n, struct node *node, struct version *spare)
{
	struct version *v = spare ? spare : node->newest;

	if (!spare) {
		sop_nodes_uncount(n, v);
		sop_page_free(v->page);
		v->page = NULL;
		v->ref = (struct sop_blobref){0};
	}
	v->node = node;
	v->lsn = n->lsn;
	v->dirty = true;
	v->tombstone = true;
	if (spare)
		version_push(n, node, v);
	else
		sop_nodes_recount(n, v);
	node_settle(n, node);
}

void sop_nodes_write_begin(struct sop_nodes *n, uint64_t lsn)
{
	must(pthread_rwlock_wrlock(&n->lock));
	assert(lsn >= n->lsn);
	n->lsn = lsn;
	n->outer = inside;
	inside = n;
	/* What the last writes replaced is likely out of sight by now. Looking at a few more than
	 * were added keeps up, however many a long-lived pin holds. */
	sweep(n, SWEEP + 2 * n->olds_new);
	n->olds_new = 0;
}

void sop_nodes_write_end(struct sop_nodes *n)
{
	assert(inside == n);
	inside = n->outer;
	atomic_fetch_add_explicit(&n->writing, 1, memory_order_relaxed);
	evict(n, EVICT_STEPS);
	must(pthread_rwlock_unlock(&n->lock));
}

/* ---- checkpoint ---------------------------------------------------------------------------------
 */

/* Removed nodes of which no checkpoint knows need no flip. */
static void settle_unborn(struct sop_nodes *n)
{
	struct link *l = n->dirty.next;

	while (l != &n->dirty) {
		struct version *v = version_of(l);

		l = l->next;
		if (!v->tombstone || v->node->blob.segment)
			continue;
		sop_nodes_uncount(n, v);
		v->dirty = false;
		sop_nodes_recount(n, v);
		node_settle(n, v->node);
	}
}

static struct sop_frozen frozen_of(const struct version *v)
{
	return (struct sop_frozen){
		.handle = v->node->handle,
		.store = v->node->store,
		.page = v->page,
		.node_lsn = v->lsn,
		.root = v->node->root,
		.from = v->node->blob,
	};
}

int sop_nodes_freeze(struct sop_nodes *n, uint64_t lsn, struct sop_frozen **list, size_t *count,
	struct sop_err *e)
{
	struct sop_frozen *f;
	size_t i = 0;

	*list = NULL;
	*count = 0;
	must(pthread_rwlock_wrlock(&n->lock));
	assert(!n->freezing && lsn >= n->lsn);
	settle_unborn(n);
	f = calloc(n->dirty_count + 1, sizeof(*f));
	if (!f) {
		must(pthread_rwlock_unlock(&n->lock));
		return sop_fail(e, -ENOMEM, "list of changed nodes");
	}
	while (!link_empty(&n->dirty)) {
		struct version *v = version_of(n->dirty.next);

		sop_nodes_uncount(n, v);
		v->frozen = true;
		sop_nodes_recount(n, v);
		f[i++] = frozen_of(v);
	}
	n->freezing = true;
	must(pthread_rwlock_unlock(&n->lock));
	*list = f;
	*count = i;
	return 0;
}

static int by_handle(const void *a, const void *b)
{
	const struct sop_frozen *x = a, *y = b;

	return (x->handle > y->handle) - (x->handle < y->handle);
}

int sop_nodes_changed(
	struct sop_nodes *n, struct sop_frozen **list, size_t *count, struct sop_err *e)
{
	struct sop_frozen *f;
	size_t i = 0;

	*list = NULL;
	*count = 0;
	must(pthread_rwlock_rdlock(&n->lock));
	f = calloc(n->dirty_count + 1, sizeof(*f));
	for (struct link *l = n->dirty.next; f && l != &n->dirty; l = l->next)
		f[i++] = frozen_of(version_of(l));
	must(pthread_rwlock_unlock(&n->lock));
	if (!f)
		return sop_fail(e, -ENOMEM, "list of changed nodes");
	qsort(f, i, sizeof(*f), by_handle);
	*list = f;
	*count = i;
	return 0;
}

/* One frozen version becomes clean (to: where it lies) or dirty again (NULL). */
static void unfreeze(struct sop_nodes *n, const struct sop_frozen *f, bool written)
{
	struct node *node = sop_nodes_find(n, f->handle);
	struct version *v;

	assert(node);
	v = node->newest;
	while (v && !v->frozen)
		v = v->older;
	assert(v && v->page == f->page);
	sop_nodes_uncount(n, v);
	v->frozen = false;
	if (written) {
		v->dirty = false;
		v->ref = v->page ? f->to : (struct sop_blobref){0};
		node->blob = v->ref;
	}
	sop_nodes_recount(n, v);
	node_prune(n, node);
}

static void end_freeze(struct sop_nodes *n, struct sop_frozen *list, size_t count, bool written)
{
	for (size_t i = 0; i < count;) {
		size_t end = SOP_MIN(count, i + BATCH);

		must(pthread_rwlock_wrlock(&n->lock));
		for (; i < end; i++)
			unfreeze(n, &list[i], written);
		evict(n, EVICT_STEPS);
		must(pthread_rwlock_unlock(&n->lock));
	}
	must(pthread_rwlock_wrlock(&n->lock));
	n->freezing = false;
	sweep(n, SWEEP);
	evict(n, 2 * n->clock_count);
	must(pthread_rwlock_unlock(&n->lock));
	free(list);
}

void sop_nodes_written(struct sop_nodes *n, struct sop_frozen *list, size_t count)
{
	end_freeze(n, list, count, true);
}

void sop_nodes_thaw(struct sop_nodes *n, struct sop_frozen *list, size_t count)
{
	end_freeze(n, list, count, false);
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

int sop_nodes_new(struct sop_nodes **out, const struct sop_nodes_opts *o, struct sop_err *e)
{
	struct sop_nodes *n = calloc(1, sizeof(*n));
	pthread_rwlockattr_t attr;

	*out = NULL;
	if (n)
		n->bucket = calloc(BUCKETS_FIRST, sizeof(struct node *));
	if (!n || !n->bucket) {
		free(n);
		return sop_fail(e, -ENOMEM, "node cache");
	}
	n->ops = o->ops;
	n->ctx = o->ctx;
	n->pins = o->pins;
	n->cache_bytes = o->cache_bytes;
	n->buckets = BUCKETS_FIRST;
	n->memory_bytes = sizeof(*n) + BUCKETS_FIRST * sizeof(struct node *);
	n->writing = 1;
	link_init(&n->clock);
	link_init(&n->dirty);
	link_init(&n->olds);
	/* Readers that follow each other closely must not keep the writer out. */
	must(pthread_rwlockattr_init(&attr));
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	must(pthread_rwlock_init(&n->lock, &attr));
	must(pthread_rwlockattr_destroy(&attr));
	sop_lock_init(&n->load_lock, SOP_RANK_LEAF, "node loads");
	sop_cond_init(&n->load_cond);
	*out = n;
	return 0;
}

void sop_nodes_free(struct sop_nodes *n)
{
	if (!n)
		return;
	for (size_t b = 0; b < n->buckets; b++)
		while (n->bucket[b]) {
			struct node *node = n->bucket[b];

			n->bucket[b] = node->hash_next;
			while (node->newest) {
				struct version *v = node->newest;

				node->newest = v->older;
				sop_page_free(v->page);
				free(v);
			}
			free(node);
		}
	free(n->bucket);
	must(pthread_cond_destroy(&n->load_cond));
	sop_lock_release(&n->load_lock);
	must(pthread_rwlock_destroy(&n->lock));
	free(n);
}

void sop_nodes_stat(struct sop_nodes *n, struct sop_nodes_stat *out)
{
	bool own = !sop_nodes_inside(n);

	if (own)
		must(pthread_rwlock_rdlock(&n->lock));
	*out = (struct sop_nodes_stat){
		.memory_bytes = n->memory_bytes,
		.dirty_bytes = n->dirty_bytes,
		.old_version_bytes = n->old_bytes,
		.nodes = n->count,
		.hits = n->hits,
		.misses = n->misses,
		.evictions = n->evictions,
	};
	if (own)
		must(pthread_rwlock_unlock(&n->lock));
}
