#include "core/members_own.h"

/* Where new segments go, and how much room there is.
 *
 * Figures come from statfs, at most a second old, asked for on threads of their own: a disk that
 * hangs costs one short wait, then its last figures are used until it answers. */

#define FRESH_MS     20	   /* as good as asked for now */
#define LOOK_WAIT_MS 100   /* a disk that answers later keeps its old figures for this call */
#define FULL_MS	     30000 /* a full disk is tried again after this, whatever statfs says (quotas) */
#define FULL_GROWTH  (32ULL << 20)
#define ROOM_MIN     65536 /* less is as good as nothing: a shard file has a header and a tail */
#define BUCKETS	     32	   /* disks whose free space differs by less than a part of it take turns */

/* --- statfs ---------------------------------------------------------------- */

struct look {
	struct sop_errand errand;
	struct sop_attached *at;
};

/* A folder that somebody has deleted takes writes to files that are open, which nobody will ever
 * find: its label tells. */
static bool has_label(struct sop_disk *d)
{
	struct sop_file *f;
	int rc = d->ops->file_open(&f, d, SOP_PATH_LABEL0, SOP_OPEN_READ);

	if (!rc)
		f->ops->file_close(f);
	return rc != -ENOENT;
}

static void look_run(struct sop_errand *x)
{
	struct sop_attached *a = ((struct look *)x)->at;
	struct sop_disk_space space;
	int rc = a->disk->ops->space(a->disk, &space);
	bool unlabelled = !rc && !has_label(a->disk);

	SOP_LOCK_GUARD(&a->lock);
	a->looking = false;
	a->unlabelled = unlabelled;
	if (rc) /* the old figures stay; an error here shows in reads and writes soon enough */
		return;
	a->space = space;
	a->seen = true;
	a->seen_ms = a->look_ms;
}

static void look_release(struct sop_errand *x)
{
	struct look *l = (struct look *)x;

	sop_attached_put(l->at);
	free(l);
}

static struct look *look_new(struct sop_attached *a, uint64_t now_ms, uint64_t age_ms)
{
	struct look *l;

	SOP_LOCK_GUARD(&a->lock);
	if (a->looking || (a->seen && now_ms - a->seen_ms < age_ms && now_ms >= a->seen_ms))
		return NULL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	sop_errand_init(&l->errand, look_run, look_release);
	l->at = sop_attached_get(a);
	a->looking = true;
	a->look_ms = now_ms;
	return l;
}

void sop_members_look(struct sop_attached *const *list, size_t n, uint64_t now_ms, uint64_t age_ms,
	bool threads, unsigned wait_ms)
{
	struct sop_errand *errands[SOP_MEMBERS_MAX];
	size_t count = 0;

	assert(n <= SOP_MEMBERS_MAX);
	for (size_t i = 0; i < n; i++) {
		struct look *l = list[i] ? look_new(list[i], now_ms, age_ms) : NULL;

		if (l)
			errands[count++] = &l->errand;
	}
	if (!count)
		return;
	sop_errands_run(errands, count, threads, wait_ms);
	for (size_t i = 0; i < count; i++)
		sop_errand_put(errands[i]);
}

/* What is known of each member now; seen false: nothing. */
struct view {
	bool usable, seen, full, eligible, online;
	struct sop_disk_space space;
	uint64_t seen_ms;
};

/* A disk that met the end of its space is full until it has clearly more, or for a while. */
static bool still_full(struct sop_slot *s, const struct view *v, uint64_t now_ms)
{
	uint64_t growth = SOP_MIN(FULL_GROWTH, v->space.total_bytes / 64 + 1);

	if (!s->full)
		return false;
	if (now_ms - s->full_ms >= FULL_MS) {
		s->full = false;
	} else if (v->seen && v->seen_ms >= s->full_ms) {
		if (s->full_free == UINT64_MAX)
			s->full_free = v->space.free_bytes;
		else if (v->space.free_bytes >= s->full_free + growth)
			s->full = false;
		else
			s->full_free = SOP_MIN(s->full_free, v->space.free_bytes);
	}
	return s->full;
}

static unsigned view_members(
	struct sop_members *m, const struct sop_profile *p, uint64_t age_ms, struct view *view)
{
	struct sop_attached *at[SOP_MEMBERS_MAX] = {NULL}, *look[SOP_MEMBERS_MAX] = {NULL};
	uint64_t now_ms = m->clock->monotonic_ms(m->clock->ctx);
	unsigned n;

	sop_lock(&m->lock);
	n = m->label.members;
	for (unsigned i = 0; i < n; i++) {
		at[i] = m->slot[i].at; /* open until m is closed */
		view[i] = (struct view){.usable = atomic_load(&m->usable[i]) != NULL,
			.eligible = sop_members_profile_has(&m->label, p, i),
			.online = m->label.member[i].state == SOP_MEMBER_ONLINE};
		if (view[i].usable)
			look[i] = at[i];
	}
	sop_unlock(&m->lock);
	sop_members_look(look, n, now_ms, age_ms, m->threads, LOOK_WAIT_MS);
	for (unsigned i = 0; i < n; i++) {
		if (!at[i])
			continue;
		sop_lock(&at[i]->lock);
		view[i].seen = at[i]->seen;
		view[i].space = at[i]->space;
		view[i].seen_ms = at[i]->seen_ms;
		sop_unlock(&at[i]->lock);
	}
	sop_lock(&m->lock);
	for (unsigned i = 0; i < n; i++)
		view[i].full = still_full(&m->slot[i], &view[i], now_ms) ||
			       (view[i].seen && view[i].space.free_bytes < ROOM_MIN);
	sop_unlock(&m->lock);
	return n;
}

void sop_members_status(struct sop_members *m, unsigned i, struct sop_member_status *out)
{
	struct sop_attached *a;

	memset(out, 0, sizeof(*out));
	assert(i < sop_members_count(m));
	sop_lock(&m->lock);
	a = m->slot[i].at;
	out->present = atomic_load(&m->usable[i]) != NULL;
	out->role = m->label.member[i].role;
	out->state = m->label.member[i].state;
	out->read_errors = m->slot[i].read_errors;
	out->write_errors = m->slot[i].write_errors;
	out->checksum_errors = m->slot[i].checksum_errors;
	out->repaired_bytes = m->slot[i].repaired_bytes;
	out->missing = !a;
	out->by_hand = m->label.member[i].flags & SOP_MEMBER_BY_HAND;
	out->current = m->label.member[i].current_since != 0;
	out->to = (int)m->label.member[i].to - 1;
	out->uuid = m->label.member[i].uuid;
	out->generation = m->label.generation;
	out->seen_ns = m->slot[i].seen_ns;
	memcpy(out->reason, m->slot[i].reason, sizeof(out->reason));
	out->path = a ? a->disk->name : m->given.member[i].path;
	sop_unlock(&m->lock);
	if (!a)
		return;
	if (out->present)
		sop_members_look(&a, 1, m->clock->monotonic_ms(m->clock->ctx), SOP_LOOK_MS,
			m->threads, LOOK_WAIT_MS);
	sop_lock(&a->lock);
	out->total_bytes = a->space.total_bytes;
	out->free_bytes = a->space.free_bytes;
	sop_unlock(&a->lock);
}

/* --- capacity -------------------------------------------------------------- */

static int by_size_descending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x < y) - (x > y);
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return sop_add_over(&sum, a, b) ? UINT64_MAX : sum;
}

/* The largest T (bytes of each shard, over all segments) with sum of min(room, T) >= T * width. The
 * sum is the least, over j, of j * T + the room of all but the j largest: so T is the least of
 * their rooms divided by width - j. */
static uint64_t shard_room(uint64_t *room, size_t n, unsigned width)
{
	uint64_t best = UINT64_MAX, rest = 0;
	size_t i = n;

	qsort(room, n, sizeof(*room), by_size_descending);
	while (i > width - 1)
		rest = add_saturated(rest, room[--i]);
	for (;; rest = add_saturated(rest, room[--i])) { /* rest: of all but the i largest */
		best = SOP_MIN(best, rest / (width - i));
		if (!i)
			return best;
	}
}

uint64_t sop_members_room(
	const struct sop_disk_space *disks, size_t n, unsigned k, unsigned m, bool total)
{
	uint64_t room[SOP_MEMBERS_MAX], bytes;
	unsigned width = (unsigned)SOP_MIN((size_t)k + m, n);

	assert(n <= SOP_MEMBERS_MAX && k);
	/* With fewer disks than k+m, but k, writes go on with fewer shards. */
	if (width < k)
		return 0;
	for (size_t i = 0; i < n; i++) {
		unsigned sharing = 0;

		for (size_t j = 0; j < n; j++)
			sharing += disks[j].device == disks[i].device;
		room[i] = (total ? disks[i].total_bytes : disks[i].free_bytes) / sharing;
	}
	return sop_mul_over(&bytes, shard_room(room, n, width), k) ? UINT64_MAX : bytes;
}

static bool capacity(struct sop_members *m, unsigned profile, uint64_t age_ms,
	uint64_t *total_bytes, uint64_t *free_bytes)
{
	struct view view[SOP_MEMBERS_MAX];
	struct sop_disk_space all[SOP_MEMBERS_MAX], usable[SOP_MEMBERS_MAX];
	const struct sop_profile *p = &m->given.profile[profile];
	uint64_t now_ms = m->clock->monotonic_ms(m->clock->ctx);
	size_t n_all = 0, n_usable = 0;
	bool all_fresh = true;
	unsigned n;

	assert(profile < sop_members_profiles(m));
	n = view_members(m, p, age_ms, view);
	for (unsigned i = 0; i < n; i++) {
		if (!view[i].eligible || !view[i].seen)
			continue;
		all[n_all++] = view[i].space;
		if (!view[i].usable || !view[i].online)
			continue;
		usable[n_usable++] = view[i].space;
		all_fresh = all_fresh && view[i].seen_ms + age_ms >= now_ms;
	}
	*total_bytes = sop_members_room(all, n_all, p->k, p->m, true);
	*free_bytes = sop_members_room(usable, n_usable, p->k, p->m, false);
	*free_bytes = SOP_MIN(*free_bytes, *total_bytes);
	return all_fresh;
}

void sop_members_capacity(
	struct sop_members *m, unsigned profile, uint64_t *total_bytes, uint64_t *free_bytes)
{
	(void)capacity(m, profile, SOP_LOOK_MS, total_bytes, free_bytes);
}

bool sop_members_capacity_now(
	struct sop_members *m, unsigned profile, uint64_t *total_bytes, uint64_t *free_bytes)
{
	return capacity(m, profile, FRESH_MS, total_bytes, free_bytes);
}

/* --- placing --------------------------------------------------------------- */

/* The candidate to take next: one whose device is used least, then by free space in coarse steps,
 * so that equal disks take turns by `rotate`. */
static unsigned pick(
	const struct view *view, unsigned n, const bool *taken, uint64_t step, uint64_t rotate)
{
	unsigned best = n, best_sharing = 0;
	uint64_t best_bucket = 0;

	for (unsigned j = 0; j < n; j++) {
		unsigned i = (unsigned)((j + rotate) % n), sharing = 0;
		uint64_t bucket = view[i].space.free_bytes / step;

		if (taken[i] || !view[i].eligible || !view[i].usable || !view[i].online ||
			view[i].full)
			continue;
		for (unsigned o = 0; o < n; o++)
			sharing += taken[o] && view[o].space.device == view[i].space.device;
		if (best == n || sharing < best_sharing ||
			(sharing == best_sharing && bucket > best_bucket)) {
			best = i;
			best_sharing = sharing;
			best_bucket = bucket;
		}
	}
	return best;
}

int sop_members_place(struct sop_members *m, unsigned profile, uint64_t rotate, uint16_t *disks,
	uint32_t *absent, struct sop_err *e)
{
	const struct sop_profile *p = &m->given.profile[profile];
	unsigned width = p->k + p->m, n, online = 0, roomy = 0, chosen = 0, set[SOP_EC_MAX],
		 count = 0;
	struct view view[SOP_MEMBERS_MAX];
	bool taken[SOP_MEMBERS_MAX] = {false};
	uint64_t most = 0;

	assert(profile < sop_members_profiles(m) && p->k);
	*absent = 0;
	n = view_members(m, p, SOP_LOOK_MS, view);
	for (unsigned i = 0; i < n; i++) {
		if (!view[i].eligible || !view[i].usable || !view[i].online)
			continue;
		online++;
		if (view[i].full)
			continue;
		roomy++;
		most = SOP_MAX(most, view[i].space.free_bytes);
	}
	if (online < p->k)
		return sop_say(e, SOP_EDISKS,
			"profile %s (%u+%u): %u disks are online, %u are needed", p->name, p->k,
			p->m, online, p->k);
	/* A full disk is no reason to store with less redundancy than was asked for; an absent one
	 * is: then there is no choice. */
	if (roomy < SOP_MIN(width, online))
		return sop_say(e, -ENOSPC, "profile %s (%u+%u): %u disks have room, %u are needed",
			p->name, p->k, p->m, roomy, SOP_MIN(width, online));
	for (; chosen < width && chosen < roomy; chosen++)
		taken[pick(view, n, taken, most / BUCKETS + 1, rotate)] = true;
	for (unsigned i = 0; i < n && chosen < width; i++) {
		if (view[i].eligible && !view[i].usable) {
			taken[i] = true;
			chosen++;
		}
	}
	if (chosen < width)
		return sop_say(e, SOP_EDISKS, "profile %s (%u+%u) has only %u disks", p->name, p->k,
			p->m, chosen);
	for (unsigned i = 0; i < n; i++)
		if (taken[i])
			set[count++] = i;
	for (unsigned s = 0; s < width; s++) {
		unsigned i = set[(s + rotate) % width];

		disks[s] = (uint16_t)i;
		if (!view[i].usable)
			*absent |= 1u << s;
	}
	return 0;
}

int sop_members_place_one(struct sop_members *m, const uint16_t *taken_by, unsigned n_taken,
	uint16_t *out, struct sop_err *e)
{
	static const struct sop_profile any = {.k = 1}; /* every DATA member */
	struct view view[SOP_MEMBERS_MAX];
	bool taken[SOP_MEMBERS_MAX] = {false};
	unsigned n = view_members(m, &any, SOP_LOOK_MS, view), best, online = 0;
	uint64_t most = 0;

	for (unsigned i = 0; i < n_taken; i++)
		taken[taken_by[i]] = true;
	for (unsigned i = 0; i < n; i++) {
		if (taken[i] || !view[i].eligible || !view[i].usable || !view[i].online)
			continue;
		online++;
		if (!view[i].full)
			most = SOP_MAX(most, view[i].space.free_bytes);
	}
	best = pick(view, n, taken, most / BUCKETS + 1, 0);
	if (best == n)
		return online ? sop_say(e, -ENOSPC, "the other disks have no room")
			      : sop_say(e, SOP_EDISKS, "there is no other disk for a shard");
	*out = (uint16_t)best;
	return 0;
}
