/* Each scope that has pins has a small sorted array of LSNs with counts, mostly of one or two.
 * Scopes are found by a hash table; the scope of everything stands apart, since every question asks
 * it too. One lock covers all: a pin is of what is published at that moment, and who asks what may
 * go sees it. */
#include "core/pins.h"

#include <stdatomic.h>

#define FIRST_PINS	2
#define FIRST_BUCKETS	64
#define FREE_SCOPES_MAX 256

struct pin {
	uint64_t lsn;
	uint64_t count; /* > 0 */
};

struct scope {
	struct scope *next;
	uint64_t id;
	struct pin *pins; /* sorted by LSN; first, until that is too small */
	size_t n, capacity;
	struct pin first[FIRST_PINS];
};

struct sop_pins {
	struct sop_lock lock;
	struct scope all;	/* under lock, as the next five */
	struct scope **buckets; /* of scopes with n > 0 */
	size_t n_buckets;	/* a power of two */
	size_t n_scopes;
	struct scope *spare; /* scopes come and go with every file opened */
	size_t n_spare;
	_Atomic uint64_t published; /* changed under lock */
};

/* --- one scope ----------------------------------------------------------------------------------
 */

static void scope_init(struct scope *s, uint64_t id)
{
	s->next = NULL;
	s->id = id;
	s->pins = s->first;
	s->n = 0;
	s->capacity = FIRST_PINS;
}

static void scope_release(struct scope *s)
{
	if (s->pins != s->first)
		free(s->pins);
}

static bool scope_grow(struct scope *s)
{
	uint64_t len_bytes;
	struct pin *grown;

	if (sop_mul_over(&len_bytes, s->capacity, 2 * sizeof(s->pins[0])))
		return false;
	grown = malloc(len_bytes);
	if (!grown)
		return false;
	memcpy(grown, s->pins, s->n * sizeof(s->pins[0]));
	scope_release(s);
	s->pins = grown;
	s->capacity *= 2;
	return true;
}

/* Index of the first pin with an LSN >= lsn, or n. New pins are mostly of the newest LSN. */
static size_t scope_find(const struct scope *s, uint64_t lsn)
{
	size_t low = 0, high = s->n;

	if (high && s->pins[high - 1].lsn < lsn)
		return high;
	if (high > 1 && s->pins[high - 2].lsn < lsn)
		return high - 1;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->pins[mid].lsn < lsn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool scope_has(const struct scope *s, uint64_t lsn)
{
	size_t i = scope_find(s, lsn);

	return i < s->n && s->pins[i].lsn == lsn;
}

static int scope_add(struct scope *s, uint64_t lsn)
{
	size_t i = scope_find(s, lsn);

	if (i == s->n || s->pins[i].lsn != lsn) {
		if (s->n == s->capacity && !scope_grow(s))
			return -ENOMEM;
		memmove(&s->pins[i + 1], &s->pins[i], (s->n - i) * sizeof(s->pins[0]));
		s->pins[i] = (struct pin){.lsn = lsn};
		s->n++;
	}
	s->pins[i].count++;
	return 0;
}

static void scope_drop(struct scope *s, uint64_t lsn)
{
	size_t i = scope_find(s, lsn);

	assert(i < s->n && s->pins[i].lsn == lsn); /* put of what is not pinned */
	if (--s->pins[i].count)
		return;
	memmove(&s->pins[i], &s->pins[i + 1], (s->n - i - 1) * sizeof(s->pins[0]));
	s->n--;
}

static bool scope_between(const struct scope *s, uint64_t from, uint64_t to)
{
	size_t i = scope_find(s, from);

	return i < s->n && s->pins[i].lsn < to;
}

static uint64_t scope_newest(const struct scope *s)
{
	return s->n ? s->pins[s->n - 1].lsn : 0;
}

/* --- all scopes, under the lock -----------------------------------------------------------------
 */

static struct scope **bucket_of(struct scope **buckets, size_t n, uint64_t id)
{
	uint64_t h = id * 0x9e3779b97f4a7c15u;

	return &buckets[(h >> 32) & (n - 1)];
}

/* The link that points to the scope, or to NULL at the end of its chain. */
static struct scope **link_to(const struct sop_pins *p, uint64_t id)
{
	struct scope **link = bucket_of(p->buckets, p->n_buckets, id);

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

/* NULL when the scope has no pins. */
static struct scope *find_scope(struct sop_pins *p, uint64_t id)
{
	return id == SOP_PIN_ALL ? &p->all : *link_to(p, id);
}

/* More buckets when the chains get long. Without memory for it they stay long. */
static void grow_buckets(struct sop_pins *p)
{
	size_t n = 2 * p->n_buckets;
	struct scope **buckets;

	if (p->n_scopes < p->n_buckets)
		return;
	buckets = calloc(n, sizeof(buckets[0]));
	if (!buckets)
		return;
	for (size_t i = 0; i < p->n_buckets; i++) {
		while (p->buckets[i]) {
			struct scope *s = p->buckets[i], **to = bucket_of(buckets, n, s->id);

			p->buckets[i] = s->next;
			s->next = *to;
			*to = s;
		}
	}
	free(p->buckets);
	p->buckets = buckets;
	p->n_buckets = n;
}

static int add_pin(struct sop_pins *p, uint64_t id, uint64_t lsn)
{
	struct scope *s = find_scope(p, id), **link;
	int rc;

	if (s)
		return scope_add(s, lsn);
	s = p->spare;
	if (s) {
		p->spare = s->next;
		p->n_spare--;
	} else {
		s = malloc(sizeof(*s));
		if (!s)
			return -ENOMEM;
	}
	scope_init(s, id);
	rc = scope_add(s, lsn); /* there is room for the first */
	assert(!rc);
	grow_buckets(p);
	link = bucket_of(p->buckets, p->n_buckets, id);
	s->next = *link;
	*link = s;
	p->n_scopes++;
	return rc;
}

static void drop_scope(struct sop_pins *p, uint64_t id)
{
	struct scope **link = link_to(p, id), *s = *link;

	*link = s->next;
	p->n_scopes--;
	scope_release(s);
	if (p->n_spare >= FREE_SCOPES_MAX) {
		free(s);
		return;
	}
	s->next = p->spare;
	p->spare = s;
	p->n_spare++;
}

/* --- the face -----------------------------------------------------------------------------------
 */

struct sop_pins *sop_pins_new(void)
{
	struct sop_pins *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->n_buckets = FIRST_BUCKETS;
	p->buckets = calloc(p->n_buckets, sizeof(p->buckets[0]));
	if (!p->buckets) {
		free(p);
		return NULL;
	}
	scope_init(&p->all, SOP_PIN_ALL);
	sop_lock_init(&p->lock, SOP_RANK_PINS, "pins");
	return p;
}

static void free_chain(struct scope *s)
{
	while (s) {
		struct scope *next = s->next;

		free(s);
		s = next;
	}
}

void sop_pins_free(struct sop_pins *p)
{
	if (!p)
		return;
	/* Pins still there are of readers that are gone with the volume. */
	for (size_t i = 0; i < p->n_buckets; i++) {
		for (struct scope *s = p->buckets[i]; s; s = s->next)
			scope_release(s);
		free_chain(p->buckets[i]);
	}
	free_chain(p->spare);
	scope_release(&p->all);
	free(p->buckets);
	sop_lock_release(&p->lock);
	free(p);
}

void sop_pins_publish(struct sop_pins *p, uint64_t lsn)
{
	SOP_LOCK_GUARD(&p->lock);
	/* Never back: a reader must not see less than the one before it. */
	if (lsn > atomic_load_explicit(&p->published, memory_order_relaxed))
		atomic_store_explicit(&p->published, lsn, memory_order_release);
}

uint64_t sop_pins_published(struct sop_pins *p)
{
	return atomic_load_explicit(&p->published, memory_order_acquire);
}

int sop_pins_get(struct sop_pins *p, uint64_t scope, uint64_t *lsn)
{
	uint64_t published;
	int rc;

	SOP_LOCK_GUARD(&p->lock);
	published = atomic_load_explicit(&p->published, memory_order_relaxed);
	rc = add_pin(p, scope, published);
	if (!rc)
		*lsn = published;
	return rc;
}

int sop_pins_again(struct sop_pins *p, uint64_t scope, uint64_t lsn)
{
	struct scope *s;

	SOP_LOCK_GUARD(&p->lock);
	s = find_scope(p, scope);
	/* What nobody has pinned may be gone already. */
	assert((s && scope_has(s, lsn)) || scope_has(&p->all, lsn));
	return add_pin(p, scope, lsn);
}

void sop_pins_put(struct sop_pins *p, uint64_t scope, uint64_t lsn)
{
	struct scope *s;

	SOP_LOCK_GUARD(&p->lock);
	s = find_scope(p, scope);
	assert(s);
	scope_drop(s, lsn);
	if (!s->n && s != &p->all)
		drop_scope(p, scope);
}

bool sop_pins_between(struct sop_pins *p, uint64_t scope, uint64_t from, uint64_t to)
{
	struct scope *s;

	SOP_LOCK_GUARD(&p->lock);
	if (scope_between(&p->all, from, to))
		return true;
	s = find_scope(p, scope);
	return s && scope_between(s, from, to);
}

uint64_t sop_pins_newest(struct sop_pins *p, uint64_t scope)
{
	struct scope *s;
	uint64_t newest;

	SOP_LOCK_GUARD(&p->lock);
	newest = scope_newest(&p->all);
	s = find_scope(p, scope);
	return s ? SOP_MAX(newest, scope_newest(s)) : newest;
}

uint64_t sop_pins_oldest(struct sop_pins *p)
{
	uint64_t oldest;

	SOP_LOCK_GUARD(&p->lock);
	oldest = atomic_load_explicit(&p->published, memory_order_relaxed);
	if (p->all.n)
		oldest = SOP_MIN(oldest, p->all.pins[0].lsn);
	for (size_t i = 0; i < p->n_buckets; i++)
		for (const struct scope *s = p->buckets[i]; s; s = s->next)
			oldest = SOP_MIN(oldest, s->pins[0].lsn);
	return oldest;
}
