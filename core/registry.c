/* The registry: look-ups, handles and their chain, applying the flips of a checkpoint. How blocks
 * lie on the replicas is registry_block.c's.
 *
 * The chain of free handles. On disk it runs through the slots, from the head in the checkpoint's
 * header. In memory its first part, all that was freed in this mount, is an array (`chain`, the
 * head at its end); behind it the chain goes on at `below`, a handle whose slot says the next.
 * Entries of the array are written by the next checkpoint; one that has not been (or whose
 * checkpoint failed) is written again by the one after. Taking a handle writes nothing: its slot is
 * overwritten by the checkpoint that writes its node, and a crash before that goes back to a header
 * whose chain still has it.
 *
 * A slot on the chain that cannot be read, or is not free, ends the chain: its handles are given
 * up, a few numbers out of 2^64, rather than one in use given out again. */
#include "core/registry.h"

#include "core/lock.h"
#include "core/registry_block.h"

#define CACHE_BLOCKS 256u
#define WINDOW	     256u  /* blocks read, changed and written at a time */
#define CHAIN_KEPT   4096u /* entries of the chain kept in memory though they are on disk */
#define TRIES	     8u	   /* of a look-up that meets writes under way */

struct cached {
	bool valid;
	struct sop_regplace at;
	uint8_t raw[SOP_REGISTRY_BLOCK];
};

struct chained {
	uint64_t handle;
	bool applied; /* its slot on disk says so */
};

/* What stands instead of a slot of the files. */
struct overlaid {
	uint64_t handle;
	struct sop_blobref to;
	uint64_t lsn; /* of the checkpoint; 0: of before this mount */
};

struct sop_registry {
	struct sop_regblocks *blocks;
	struct sop_members *mem;
	struct sop_iopool *io;
	uint32_t hashmod;

	struct sop_lock lock; /* REGISTRY; everything below; not held across I/O */
	pthread_cond_t changed;
	bool busy;	 /* an apply or a repair is under way */
	bool writing;	 /* an apply is writing blocks: a reader may see half of one */
	bool settled;	 /* the first apply has been made */
	uint64_t writes; /* rises with each apply: what was read before may be old */

	uint64_t known; /* as of mount: every lower handle has been written, as a node or as free */
	uint64_t next_handle;
	struct chained *chain;
	size_t chain_n, chain_cap;
	uint64_t below;
	uint64_t *released;
	size_t released_n, released_cap;

	bool tracking;
	uint32_t *touched; /* files written by applies while tracking */
	size_t touched_n, touched_cap;

	bool read_only;		  /* set before others use it */
	struct overlaid *overlay; /* sorted by handle; replaced as a whole */
	size_t overlay_n;

	struct cached *cache; /* CACHE_BLOCKS of them */
};

int sop_registry_new(struct sop_registry **out, struct sop_members *mem, struct sop_iopool *io,
	uint32_t hashmod, uint64_t next_handle, uint64_t free_handle, struct sop_err *e)
{
	struct sop_registry *r = calloc(1, sizeof(*r));
	int rc;

	*out = NULL;
	if (!r)
		return sop_fail(e, -ENOMEM, "registry");
	if (!hashmod) {
		free(r);
		return sop_fail(e, -EINVAL, "registry: hash-mod 0");
	}
	r->cache = calloc(CACHE_BLOCKS, sizeof(*r->cache));
	rc = r->cache ? sop_regblocks_new(&r->blocks, mem, io, hashmod, e)
		      : sop_fail(e, -ENOMEM, "registry");
	if (rc) {
		free(r->cache);
		free(r);
		return rc;
	}
	r->mem = mem;
	r->io = io;
	r->hashmod = hashmod;
	r->next_handle = SOP_MAX(next_handle, (uint64_t)1);
	r->known = r->next_handle;
	r->below = free_handle;
	sop_lock_init(&r->lock, SOP_RANK_REGISTRY, "registry");
	sop_cond_init(&r->changed);
	*out = r;
	return 0;
}

void sop_registry_free(struct sop_registry *r)
{
	if (!r)
		return;
	sop_regblocks_free(r->blocks);
	pthread_cond_destroy(&r->changed);
	sop_lock_release(&r->lock);
	free(r->chain);
	free(r->released);
	free(r->overlay);
	free(r->touched);
	free(r->cache);
	free(r);
}

/* ---- where a handle is ---- */

static bool place_of(const struct sop_registry *r, uint64_t handle, struct sop_regplace *at)
{
	uint64_t block = handle / SOP_REGISTRY_SLOTS;

	at->block = (uint32_t)(block % r->hashmod);
	block /= r->hashmod;
	at->file = (uint32_t)block;
	return block <= UINT32_MAX;
}

static bool same_place(struct sop_regplace a, struct sop_regplace b)
{
	return a.file == b.file && a.block == b.block;
}

static struct sop_disk_slot *slot_of(void *raw, uint64_t handle)
{
	struct sop_disk_registry_block *b = raw;

	return &b->slot[handle % SOP_REGISTRY_SLOTS];
}

/* ---- the cache: under the lock ---- */

static struct cached *cache_slot(struct sop_registry *r, struct sop_regplace at)
{
	return &r->cache[(at.file * 7u + at.block) % CACHE_BLOCKS];
}

static bool cache_get(struct sop_registry *r, struct sop_regplace at, void *raw)
{
	struct cached *c = cache_slot(r, at);

	if (!c->valid || !same_place(c->at, at))
		return false;
	memcpy(raw, c->raw, sizeof(c->raw));
	return true;
}

static void cache_put(struct sop_registry *r, struct sop_regplace at, const void *raw)
{
	struct cached *c = cache_slot(r, at);

	c->valid = true;
	c->at = at;
	memcpy(c->raw, raw, sizeof(c->raw));
}

/* ---- look-ups ---- */

static bool take_busy(struct sop_registry *r, bool wait)
{
	while (r->busy && wait)
		sop_cond_wait(&r->changed, &r->lock, -1);
	if (r->busy)
		return false;
	r->busy = true;
	return true;
}

static void end_busy(struct sop_registry *r)
{
	r->busy = false;
	pthread_cond_broadcast(&r->changed);
}

/* Some replica's copy is bad while another's is good. An apply under way would be in the way: then
 * the next look-up that meets it will see to it; a scrub waits. The copies that stay bad. */
static unsigned repair(
	struct sop_registry *r, struct sop_regplace at, enum sop_regrepair why, unsigned *mended)
{
	struct sop_regwrite w;
	unsigned left;
	bool mine, wrote = false;

	sop_lock(&r->lock);
	mine = take_busy(r, why == SOP_REPAIR_SCRUB);
	sop_unlock(&r->lock);
	if (!mine)
		return 0;
	left = sop_regblocks_repair(r->blocks, at, why, &wrote, mended);
	if (wrote)
		(void)sop_regblocks_begin(r->blocks, &w, &at.file, 1, NULL);
	sop_lock(&r->lock);
	end_busy(r);
	sop_unlock(&r->lock);
	return left;
}

/* Under the lock: the first at or behind the handle. */
static const struct overlaid *overlay_find(const struct sop_registry *r, uint64_t handle)
{
	size_t low = 0, high = r->overlay_n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->overlay[mid].handle < handle)
			low = mid + 1;
		else
			high = mid;
	}
	return low < r->overlay_n ? &r->overlay[low] : NULL;
}

/* A block that the overlay's checkpoint may have been writing when the machine stopped. */
static bool overlay_touches(struct sop_registry *r, uint64_t handle)
{
	const struct overlaid *f;

	SOP_LOCK_GUARD(&r->lock);
	f = overlay_find(r, handle / SOP_REGISTRY_SLOTS * SOP_REGISTRY_SLOTS);
	return f && f->handle / SOP_REGISTRY_SLOTS == handle / SOP_REGISTRY_SLOTS;
}

bool sop_registry_overlaid(
	struct sop_registry *r, uint64_t handle, struct sop_blobref *ref, uint64_t *lsn)
{
	const struct overlaid *f;

	SOP_LOCK_GUARD(&r->lock);
	f = overlay_find(r, handle);
	if (!f || f->handle != handle)
		return false;
	*ref = f->to;
	*lsn = f->lsn;
	return true;
}

/* The block of a handle as of the last apply. */
static int read_block(
	struct sop_registry *r, struct sop_regplace at, bool lenient, void *raw, struct sop_err *e)
{
	for (unsigned i = 0;; i++) {
		bool damaged = false, settled;
		uint64_t writes;
		int rc;

		sop_lock(&r->lock);
		if (cache_get(r, at, raw)) {
			sop_unlock(&r->lock);
			return 0;
		}
		writes = r->writes;
		settled = !r->writing;
		sop_unlock(&r->lock);

		rc = sop_regblocks_read(r->blocks, at, lenient, raw, &damaged, e);

		sop_lock(&r->lock);
		settled = settled && !r->writing && r->writes == writes;
		if (settled && !rc)
			cache_put(r, at, raw);
		/* What looks bad may be a block that is being written: look again afterwards. (One
		 * that is whole is right, in the version before or after.) */
		if (!settled && rc && i < TRIES) {
			while (r->writing)
				sop_cond_wait(&r->changed, &r->lock, -1);
			sop_unlock(&r->lock);
			continue;
		}
		sop_unlock(&r->lock);
		if (!rc && damaged && settled && !r->read_only)
			(void)repair(r, at, SOP_REPAIR_MET, NULL);
		return rc;
	}
}

static bool is_empty(const void *raw)
{
	const struct sop_disk_registry_block *b = raw;

	return !le32_get(b->magic);
}

int sop_registry_lookup(
	struct sop_registry *r, uint64_t handle, struct sop_blobref *ref, struct sop_err *e)
{
	_Alignas(8) uint8_t raw[SOP_REGISTRY_BLOCK];
	struct sop_regplace at;
	bool lenient = false;
	uint64_t lsn;
	int rc;

	if (!sop_registry_overlaid(r, handle, ref, &lsn)) {
		if (!handle || !place_of(r, handle, &at))
			return sop_fail(e, -ENOENT, "handle %llu", (unsigned long long)handle);
		lenient = overlay_touches(r, handle);
		rc = read_block(r, at, lenient, raw, e);
		if (rc)
			return sop_wrap(e, rc, "handle %llu", (unsigned long long)handle);
		*ref = sop_blobref_decode(&slot_of(raw, handle)->ref);
		/* Nothing where something has been written: gone on all replicas, and not free. */
		if (!ref->segment && handle < r->known && is_empty(raw))
			return sop_fail(e, SOP_ELOST,
				"registry: the block of handle %llu is missing on every replica",
				(unsigned long long)handle);
	}
	return ref->segment ? 0 : sop_fail(e, -ENOENT, "handle %llu", (unsigned long long)handle);
}

/* ---- handles ---- */

/* The next free handle after `handle`, which is on the chain on disk. */
static int read_next(struct sop_registry *r, uint64_t handle, uint64_t *next, struct sop_err *e)
{
	uint8_t raw[SOP_REGISTRY_BLOCK];
	struct sop_blobref ref;
	struct sop_regplace at;
	uint64_t lsn;
	int rc;

	if (!sop_registry_overlaid(r, handle, &ref, &lsn)) {
		if (!place_of(r, handle, &at))
			return sop_fail(
				e, SOP_ECORRUPT, "free handle %llu", (unsigned long long)handle);
		rc = read_block(r, at, overlay_touches(r, handle), raw, e);
		if (rc)
			return rc;
		ref = sop_blobref_decode(&slot_of(raw, handle)->ref);
	}
	if (ref.segment || ref.off == handle)
		return sop_fail(
			e, SOP_ECORRUPT, "handle %llu is not free", (unsigned long long)handle);
	*next = ref.off;
	return 0;
}

/* Under the lock: a handle that was freed in this mount, or one never used. */
static bool alloc_here(struct sop_registry *r, uint64_t *handle)
{
	if (r->chain_n) {
		*handle = r->chain[--r->chain_n].handle;
		return true;
	}
	if (r->below && r->below < r->next_handle)
		return false;
	r->below = 0;
	*handle = r->next_handle++;
	return true;
}

int sop_registry_alloc(struct sop_registry *r, uint64_t *handle, struct sop_err *e)
{
	for (;;) {
		uint64_t head, next = 0;
		struct sop_err why = {0};
		bool done;
		int rc;

		sop_lock(&r->lock);
		done = alloc_here(r, handle);
		head = r->below;
		sop_unlock(&r->lock);
		if (done)
			return 0;
		rc = read_next(r, head, &next, &why);
		if (rc == -ENOMEM)
			return sop_fail(e, rc, "handle");
		sop_lock(&r->lock);
		if (r->chain_n || r->below != head) {
			sop_unlock(&r->lock);
			continue; /* a checkpoint has put others before it meanwhile */
		}
		if (rc) {
			/* Late or lost: what follows is unknown, and a new number costs nothing. */
			r->below = 0;
			*handle = r->next_handle++;
		} else {
			r->below = next;
			*handle = head;
		}
		sop_unlock(&r->lock);
		if (rc)
			sop_log(sop_members_log(r->mem), SOP_LOG_WARNING, "registry",
				"op=alloc handle=%llu code=%s: chain of free handles given up: %s",
				(unsigned long long)head, sop_err_name(rc), why.text);
		return 0;
	}
}

/* Room for n more elements of `size` bytes in *p. */
static int grow(void *p, size_t *cap, size_t n, size_t more, size_t size)
{
	void *old, *new;
	size_t want = *cap ? *cap : 64;

	if (n + more <= *cap)
		return 0;
	while (want < n + more)
		want *= 2;
	memcpy(&old, p, sizeof(old));
	new = realloc(old, want * size);
	if (!new)
		return -ENOMEM;
	memcpy(p, &new, sizeof(new));
	*cap = want;
	return 0;
}

void sop_registry_release(struct sop_registry *r, uint64_t handle)
{
	SOP_LOCK_GUARD(&r->lock);

	/* Without memory to note it the number is never used again: that harms nobody. */
	if (grow(&r->released, &r->released_cap, r->released_n, 1, sizeof(*r->released)))
		return;
	r->released[r->released_n++] = handle;
}

static int by_handle_down(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x < y) - (x > y);
}

/* Under the lock: what the disks have of the chain need not all be in memory. */
static void chain_trim(struct sop_registry *r)
{
	size_t cut = 0;

	if (r->chain_n <= CHAIN_KEPT)
		return;
	while (cut < r->chain_n - CHAIN_KEPT && r->chain[cut].applied)
		cut++;
	if (!cut)
		return;
	r->below = r->chain[cut - 1].handle;
	r->chain_n -= cut;
	memmove(r->chain, r->chain + cut, r->chain_n * sizeof(*r->chain));
}

int sop_registry_chain(struct sop_registry *r, struct sop_flip **flips, size_t *n,
	uint64_t *next_handle, uint64_t *free_handle, struct sop_err *e)
{
	struct sop_flip *grown;
	size_t want = 0;

	SOP_LOCK_GUARD(&r->lock);
	for (size_t i = 0; i < r->chain_n; i++)
		want += !r->chain[i].applied;
	want += r->released_n;
	grown = realloc(*flips, (*n + want + 1) * sizeof(**flips));
	if (grown)
		*flips = grown;
	if (!grown || grow(&r->chain, &r->chain_cap, r->chain_n, r->released_n, sizeof(*r->chain)))
		return sop_fail(e, -ENOMEM, "chain of free handles");
	/* The lowest are taken first: registry and trees stay dense. */
	if (r->released_n)
		qsort(r->released, r->released_n, sizeof(*r->released), by_handle_down);
	for (size_t i = 0; i < r->released_n; i++)
		r->chain[r->chain_n++] = (struct chained){r->released[i], false};
	r->released_n = 0;
	for (size_t i = 0; i < r->chain_n; i++) {
		struct sop_flip *f = &grown[*n];

		if (r->chain[i].applied)
			continue;
		*f = (struct sop_flip){.handle = r->chain[i].handle};
		f->to.off = i ? r->chain[i - 1].handle : r->below;
		++*n;
	}
	*next_handle = r->next_handle;
	*free_handle = r->chain_n ? r->chain[r->chain_n - 1].handle : r->below;
	return 0;
}

/* ---- copying a replica ---- */

void sop_registry_track(struct sop_registry *r, bool on)
{
	SOP_LOCK_GUARD(&r->lock);
	r->tracking = on;
	r->touched_n = 0;
}

int sop_registry_touched(struct sop_registry *r, uint32_t **file, size_t *n)
{
	SOP_LOCK_GUARD(&r->lock);
	*n = r->touched_n;
	*file = r->touched;
	r->touched = NULL;
	r->touched_n = r->touched_cap = 0;
	return 0;
}

/* So that a copy made meanwhile is made again. */
static int note_touched(struct sop_registry *r, const uint32_t *file, size_t n)
{
	SOP_LOCK_GUARD(&r->lock);
	for (size_t i = 0; r->tracking && i < n; i++) {
		size_t k = 0;

		while (k < r->touched_n && r->touched[k] != file[i])
			k++;
		if (k < r->touched_n)
			continue;
		if (grow(&r->touched, &r->touched_cap, r->touched_n, 1, sizeof(*r->touched)))
			return -ENOMEM;
		r->touched[r->touched_n++] = file[i];
	}
	return 0;
}

void sop_registry_forget(struct sop_registry *r, unsigned member)
{
	sop_regblocks_forget(r->blocks, member);
}

unsigned sop_registry_scrub(struct sop_registry *r, uint32_t file, uint32_t block, unsigned *mended)
{
	return repair(r, (struct sop_regplace){file, block}, SOP_REPAIR_SCRUB, mended);
}

uint32_t sop_registry_files(struct sop_registry *r)
{
	SOP_LOCK_GUARD(&r->lock);
	return (uint32_t)(r->next_handle / SOP_REGISTRY_SLOTS / r->hashmod) + 1;
}

uint64_t sop_registry_bytes(struct sop_registry *r)
{
	SOP_LOCK_GUARD(&r->lock);
	return sop_div_up(r->next_handle, SOP_REGISTRY_SLOTS) * SOP_REGISTRY_PAIR;
}

/* ---- applying flips ---- */

struct sorted {
	const struct sop_flip *flip;
};

/* By handle; the later of two for one handle comes later. */
static int by_flip(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;

	if (x->flip->handle != y->flip->handle)
		return x->flip->handle < y->flip->handle ? -1 : 1;
	return (x->flip > y->flip) - (x->flip < y->flip);
}

/* What one apply works with. */
struct job {
	struct sop_registry *r;
	struct sorted *flip;
	size_t n;
	uint64_t lsn;
	bool lenient;
	uint32_t *file; /* touched, in rising order */
	size_t files;
	struct sop_regwrite write;
};

static int job_prepare(struct job *j, const struct sop_flip *flips, struct sop_err *e)
{
	struct sop_regplace at;

	j->flip = malloc(j->n * sizeof(*j->flip));
	j->file = malloc(j->n * sizeof(*j->file));
	if (!j->flip || !j->file)
		return sop_fail(e, -ENOMEM, "registry: %zu flips", j->n);
	for (size_t i = 0; i < j->n; i++) {
		j->flip[i].flip = &flips[i];
		if (!flips[i].handle || !place_of(j->r, flips[i].handle, &at))
			return sop_fail(e, -EINVAL, "registry: flip of handle %llu",
				(unsigned long long)flips[i].handle);
	}
	qsort(j->flip, j->n, sizeof(*j->flip), by_flip);
	for (size_t i = 0; i < j->n; i++) {
		place_of(j->r, j->flip[i].flip->handle, &at);
		if (!j->files || j->file[j->files - 1] != at.file)
			j->file[j->files++] = at.file;
	}
	return 0;
}

/* Fill at[] with the blocks of the flips from `first` on, at most WINDOW; *last: the flip after. */
static size_t window_places(
	const struct job *j, size_t first, size_t *last, struct sop_regplace *at)
{
	size_t n = 0, i;

	for (i = first; i < j->n; i++) {
		struct sop_regplace one;

		place_of(j->r, j->flip[i].flip->handle, &one);
		if (n && same_place(at[n - 1], one))
			continue;
		if (n == WINDOW)
			break;
		at[n++] = one;
	}
	*last = i;
	return n;
}

/* Their present content, from the cache or the disks. */
static int window_read(
	struct job *j, const struct sop_regplace *at, size_t n, void **raw, struct sop_err *e)
{
	struct sop_registry *r = j->r;
	void *wanted[WINDOW];
	bool any = false, wrote = false;
	int rc;

	sop_lock(&r->lock);
	for (size_t i = 0; i < n; i++) {
		wanted[i] = cache_get(r, at[i], raw[i]) ? NULL : raw[i];
		any |= wanted[i] != NULL;
	}
	sop_unlock(&r->lock);
	if (!any)
		return 0;
	rc = sop_regblocks_read_many(r->blocks, at, n, j->lenient, wanted, &wrote, e);
	return rc || !wrote ? rc : sop_regblocks_sync(r->blocks, &j->write, e);
}

static void window_change(
	const struct job *j, size_t first, size_t last, const struct sop_regplace *at, void **raw)
{
	size_t b = 0;

	for (size_t i = first; i < last; i++) {
		const struct sop_flip *f = j->flip[i].flip;
		struct sop_disk_registry_block *block;
		struct sop_regplace one;

		place_of(j->r, f->handle, &one);
		while (!same_place(at[b], one))
			b++;
		block = raw[b];
		block->lsn = le64_make(j->lsn);
		*slot_of(block, f->handle) = (struct sop_disk_slot){
			.ref = sop_blobref_encode(&f->to),
			.lsn = le64_make(j->lsn),
		};
	}
}

/* Nothing where handles that the flips do not name were written before is a loss: at mount no first
 * write that was cut, and later no block to begin anew, over what another replica may have. */
static int window_whole(const struct job *j, size_t first, size_t last,
	const struct sop_regplace *at, size_t n, void *const *raw, struct sop_err *e)
{
	const struct sop_registry *r = j->r;
	size_t i = first;

	for (size_t b = 0; b < n; b++) {
		uint64_t low =
			((uint64_t)at[b].file * r->hashmod + at[b].block) * SOP_REGISTRY_SLOTS;
		uint64_t high = SOP_MIN(low + SOP_REGISTRY_SLOTS, r->known), named = 0;

		for (uint64_t before = 0;
			i < last && j->flip[i].flip->handle < low + SOP_REGISTRY_SLOTS;
			before = j->flip[i++].flip->handle)
			named +=
				j->flip[i].flip->handle != before && j->flip[i].flip->handle < high;
		low = SOP_MAX(low, (uint64_t)1);
		if (is_empty(raw[b]) && high > low && named < high - low)
			return sop_fail(e, SOP_ELOST,
				"block %u of file %08x is missing on every replica; fsck.sopfs "
				"makes it anew from the tree nodes",
				at[b].block, at[b].file);
	}
	return 0;
}

/* Memory for n blocks; the caller puts the batch. */
static int window_memory(
	struct sop_registry *r, size_t n, struct sop_batch **batch, void **raw, struct sop_err *e)
{
	uint8_t *mem;

	*batch = sop_batch_new(r->io);
	mem = *batch ? sop_batch_alloc(*batch, n * SOP_REGISTRY_BLOCK) : NULL;
	if (!mem)
		return sop_fail(e, -ENOMEM, "registry: %zu blocks", n);
	for (size_t i = 0; i < n; i++)
		raw[i] = mem + i * SOP_REGISTRY_BLOCK;
	return 0;
}

/* A replica that cannot be opened, synced or written is set aside, and would not be heard any more
 * where another one is in doubt. So all blocks are looked at, and what is in doubt is settled,
 * before that. */
static int hear_all(struct job *j, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX];
	size_t next = 0;
	int rc = 0;

	if (sop_members_replicas(j->r->mem, idx) < 2)
		return 0;
	while (!rc && next < j->n) {
		struct sop_regplace at[WINDOW];
		struct sop_batch *batch;
		void *raw[WINDOW];
		size_t n = window_places(j, next, &next, at);
		bool wrote;

		rc = window_memory(j->r, n, &batch, raw, e);
		if (!rc)
			rc = sop_regblocks_read_many(
				j->r->blocks, at, n, j->lenient, raw, &wrote, e);
		sop_batch_put(batch);
	}
	return rc;
}

static int window_apply(struct job *j, size_t first, size_t *last, struct sop_err *e)
{
	struct sop_registry *r = j->r;
	struct sop_regplace at[WINDOW];
	struct sop_batch *batch;
	void *raw[WINDOW];
	size_t n = window_places(j, first, last, at);
	int rc = window_memory(r, n, &batch, raw, e);

	if (!rc)
		rc = window_read(j, at, n, raw, e);
	if (!rc)
		rc = window_whole(j, first, *last, at, n, raw, e);
	if (!rc) {
		window_change(j, first, *last, at, raw);
		rc = sop_regblocks_write(r->blocks, &j->write, at, n, raw, batch, e);
	}
	if (!rc) {
		sop_lock(&r->lock);
		for (size_t i = 0; i < n; i++)
			cache_put(r, at[i], raw[i]);
		sop_unlock(&r->lock);
	}
	sop_batch_put(batch);
	return rc;
}

/* Under the lock: the chain's new entries are on disk. */
static void note_applied(struct job *j)
{
	struct sop_registry *r = j->r;

	for (size_t i = 0; i < r->chain_n; i++) {
		uint64_t handle = r->chain[i].handle;
		size_t low = 0, high = j->n;

		if (r->chain[i].applied)
			continue;
		while (low < high) { /* the last flip of that handle */
			size_t mid = low + (high - low) / 2;

			if (j->flip[mid].flip->handle <= handle)
				low = mid + 1;
			else
				high = mid;
		}
		if (low && j->flip[low - 1].flip->handle == handle &&
			!j->flip[low - 1].flip->to.segment)
			r->chain[i].applied = true;
	}
	chain_trim(r);
}

static int apply(struct job *j, struct sop_err *e)
{
	struct sop_registry *r = j->r;
	size_t at = 0;
	int rc = j->lenient ? hear_all(j, e) : 0;

	if (!rc)
		rc = sop_regblocks_begin(r->blocks, &j->write, j->file, j->files, e);
	if (!rc && note_touched(r, j->file, j->files))
		rc = sop_fail(e, -ENOMEM, "registry");
	if (rc)
		return rc;
	sop_lock(&r->lock);
	r->writing = true;
	sop_unlock(&r->lock);
	while (!rc && at < j->n)
		rc = window_apply(j, at, &at, e);
	sop_lock(&r->lock);
	r->writing = false;
	r->writes++;
	pthread_cond_broadcast(&r->changed);
	sop_unlock(&r->lock);
	/* Again, for a copy made in the middle. */
	if (!rc && note_touched(r, j->file, j->files))
		rc = sop_fail(e, -ENOMEM, "registry");
	return rc ? rc : sop_regblocks_end(r->blocks, &j->write, e);
}

int sop_registry_apply(struct sop_registry *r, const struct sop_flip *flips, size_t n, uint64_t lsn,
	struct sop_err *e)
{
	struct job j = {.r = r, .n = n, .lsn = lsn};
	int rc = 0;

	sop_lock(&r->lock);
	take_busy(r, true);
	j.lenient = !r->settled;
	sop_unlock(&r->lock);
	if (n)
		rc = job_prepare(&j, flips, e);
	if (!rc && n)
		rc = apply(&j, e);
	sop_lock(&r->lock);
	if (!rc) {
		r->settled = true;
		note_applied(&j);
	}
	end_busy(r);
	sop_unlock(&r->lock);
	free(j.flip);
	free(j.file);
	return rc ? sop_wrap(e, rc, "registry") : 0;
}

int sop_registry_reserve(struct sop_registry *r, const struct sop_flip *flips, size_t n,
	bool needed, struct sop_err *e)
{
	struct job j = {.r = r, .n = n};
	size_t next = 0;
	int rc;

	if (!n)
		return 0;
	rc = job_prepare(&j, flips, e);
	sop_lock(&r->lock);
	take_busy(r, true);
	sop_unlock(&r->lock);
	while (!rc && next < n) {
		struct sop_regplace at[WINDOW];
		size_t blocks = window_places(&j, next, &next, at);

		rc = sop_regblocks_reserve(r->blocks, at, blocks, needed, e);
	}
	sop_lock(&r->lock);
	end_busy(r);
	sop_unlock(&r->lock);
	free(j.flip);
	free(j.file);
	return rc;
}

/* ---- the overlay ---- */

/* Two sorted lists become one; of two entries for a handle that of b counts. */
static size_t overlay_merge(struct overlaid *out, const struct overlaid *a, size_t n_a,
	const struct overlaid *b, size_t n_b)
{
	size_t n = 0, i = 0, k = 0;

	while (i < n_a || k < n_b) {
		if (k == n_b || (i < n_a && a[i].handle < b[k].handle)) {
			out[n++] = a[i++];
			continue;
		}
		i += i < n_a && a[i].handle == b[k].handle;
		out[n++] = b[k++];
	}
	return n;
}

/* Sorted, one for each handle: the last of the flips counts. */
static size_t overlay_sort(struct overlaid *out, struct sorted *sorted,
	const struct sop_flip *flips, size_t n, uint64_t lsn)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		sorted[i].flip = &flips[i];
	qsort(sorted, n, sizeof(*sorted), by_flip);
	for (size_t i = 0; i < n; i++) {
		const struct sop_flip *f = sorted[i].flip;

		kept -= kept && out[kept - 1].handle == f->handle;
		out[kept++] = (struct overlaid){f->handle, f->to, lsn};
	}
	return kept;
}

static int overlay_put(struct sop_registry *r, const struct sop_flip *flips, size_t n, uint64_t lsn,
	struct sop_err *e)
{
	struct sorted *sorted = malloc((n + 1) * sizeof(*sorted));
	struct overlaid *add = malloc((n + 1) * sizeof(*add));
	struct overlaid *all = malloc((r->overlay_n + n + 1) * sizeof(*all)), *old = NULL;
	int rc = sorted && add && all ? 0 : sop_fail(e, -ENOMEM, "registry: %zu flips", n);

	/* Nobody else changes it meanwhile. */
	if (!rc) {
		size_t n_add = overlay_sort(add, sorted, flips, n, lsn);
		size_t n_all = overlay_merge(all, r->overlay, r->overlay_n, add, n_add);

		sop_lock(&r->lock);
		old = r->overlay;
		r->overlay = all;
		r->overlay_n = n_all;
		sop_unlock(&r->lock);
		all = NULL;
	}
	free(sorted);
	free(add);
	free(all);
	free(old);
	return rc;
}

int sop_registry_overlay(
	struct sop_registry *r, const struct sop_flip *flips, size_t n, struct sop_err *e)
{
	r->read_only = true;
	return overlay_put(r, flips, n, 0, e);
}

int sop_registry_overlay_add(struct sop_registry *r, const struct sop_flip *flips, size_t n,
	uint64_t lsn, struct sop_err *e)
{
	struct job j = {.r = r, .n = n};
	int rc = n ? job_prepare(&j, flips, e) : 0;

	if (!rc)
		rc = overlay_put(r, flips, n, lsn, e);
	sop_lock(&r->lock);
	if (!rc)
		note_applied(&j);
	sop_unlock(&r->lock);
	free(j.flip);
	free(j.file);
	return rc;
}

int sop_registry_overlay_list(
	struct sop_registry *r, struct sop_flip **flips, size_t *n, struct sop_err *e)
{
	SOP_LOCK_GUARD(&r->lock);
	*flips = calloc(r->overlay_n + 1, sizeof(**flips));
	if (!*flips)
		return sop_fail(e, -ENOMEM, "registry: %zu flips", r->overlay_n);
	*n = r->overlay_n;
	for (size_t i = 0; i < r->overlay_n; i++)
		(*flips)[i] =
			(struct sop_flip){r->overlay[i].handle, r->overlay[i].to, r->overlay[i].to};
	return 0;
}

/* ---- fsck ---- */

static int repair_file(struct sop_registry *r, uint32_t file, uint32_t blocks, struct sop_err *e)
{
	struct sop_regwrite w = {0};
	bool wrote = false;
	int rc;

	for (uint32_t i = 0; i < blocks; i++)
		(void)sop_regblocks_repair(
			r->blocks, (struct sop_regplace){file, i}, SOP_REPAIR_MET, &wrote, NULL);
	rc = sop_regblocks_begin(r->blocks, &w, &file, 1, e);
	return rc ? rc : sop_regblocks_end(r->blocks, &w, e);
}

int sop_registry_repair_all(struct sop_registry *r, struct sop_err *e)
{
	uint64_t blocks;
	int rc = 0;

	sop_lock(&r->lock);
	take_busy(r, true);
	blocks = r->next_handle / SOP_REGISTRY_SLOTS + 1;
	sop_unlock(&r->lock);
	for (uint64_t i = 0; i < blocks && !rc; i += r->hashmod)
		rc = repair_file(r, (uint32_t)(i / r->hashmod),
			(uint32_t)SOP_MIN(blocks - i, (uint64_t)r->hashmod), e);
	sop_lock(&r->lock);
	end_busy(r);
	sop_unlock(&r->lock);
	return rc ? sop_wrap(e, rc, "registry") : 0;
}
