/* The locks of one object: see coord_own.h. Of one session, owner and kind, none overlap. */
#include <fcntl.h>

#include "core/coord_own.h"

/* A lock of flock(2) is of the whole. */
static uint64_t first_of(const struct sop_coord_lock *l)
{
	return l->whole ? 0 : l->start;
}

static uint64_t last_of(const struct sop_coord_lock *l)
{
	return l->whole ? UINT64_MAX : l->end;
}

static bool overlap(const struct sop_coord_lock *a, const struct sop_coord_lock *b)
{
	return a->whole == b->whole && last_of(a) >= first_of(b) && first_of(a) <= last_of(b);
}

static bool mine(const struct sop_coord_holder *h, uint64_t session, const struct sop_coord_lock *l)
{
	return h->session == session && h->lock.owner == l->owner && h->lock.whole == l->whole;
}

bool sop_coord_lock_conflicts(
	const struct sop_coord_holder *h, uint64_t session, const struct sop_coord_lock *want)
{
	return want->type != F_UNLCK && !mine(h, session, want) && overlap(&h->lock, want) &&
	       (h->lock.type == F_WRLCK || want->type == F_WRLCK);
}

const struct sop_coord_holder *sop_coord_locks_blocked(
	const struct sop_coord_locks *l, uint64_t session, const struct sop_coord_lock *want)
{
	const struct sop_coord_holder *first = NULL;

	for (size_t i = 0; i < l->count; i++) {
		const struct sop_coord_holder *h = &l->list[i];

		if (sop_coord_lock_conflicts(h, session, want) &&
			(!first || first_of(&h->lock) < first_of(&first->lock)))
			first = h;
	}
	return first;
}

static void take_out(struct sop_coord_locks *l, size_t i)
{
	l->list[i] = l->list[--l->count];
}

/* What of lock i lies outside [start, end] stays: at most two pieces, the second of which is added.
 */
static void cut(struct sop_coord_locks *l, size_t i, uint64_t start, uint64_t end)
{
	struct sop_coord_holder *h = &l->list[i];
	bool before = first_of(&h->lock)<start, after = last_of(&h->lock)> end;

	if (before && after) {
		l->list[l->count] = *h;
		l->list[l->count++].lock.start = end + 1;
	}
	if (before)
		h->lock.end = start - 1;
	else if (after)
		h->lock.start = end + 1;
	else
		take_out(l, i);
}

/* Do they touch, so that one lock can stand for both? */
static bool touch(const struct sop_coord_lock *a, const struct sop_coord_lock *b)
{
	return (a->end != UINT64_MAX && a->end + 1 == b->start) ||
	       (b->end != UINT64_MAX && b->end + 1 == a->start);
}

static int room_for(struct sop_coord_locks *l, size_t more)
{
	size_t room = SOP_MAX(l->room * 2, l->count + more);
	struct sop_coord_holder *list;

	if (l->count + more <= l->room)
		return 0;
	list = reallocarray(l->list, room, sizeof(*list));
	if (!list)
		return -ENOMEM;
	l->list = list;
	l->room = room;
	return 0;
}

int sop_coord_locks_put(
	struct sop_coord_locks *l, uint64_t session, const struct sop_coord_lock *lock)
{
	struct sop_coord_holder put = {.session = session, .lock = *lock};

	put.lock.waits = false;
	put.lock.start = first_of(lock);
	put.lock.end = last_of(lock);
	/* One piece more at most: only a lock that the range lies within is cut in two, and then it
	 * is the only one. */
	if (room_for(l, 2))
		return -ENOMEM;
	for (size_t i = 0; i < l->count;) {
		size_t count = l->count;

		if (mine(&l->list[i], session, lock) && overlap(&l->list[i].lock, lock))
			cut(l, i, put.lock.start, put.lock.end);
		if (l->count >= count)
			i++;
	}
	if (lock->type == F_UNLCK)
		return 0;
	for (size_t i = 0; i < l->count;) {
		const struct sop_coord_holder *h = &l->list[i];

		if (!mine(h, session, lock) || h->lock.type != lock->type ||
			!touch(&h->lock, &put.lock)) {
			i++;
			continue;
		}
		put.lock.start = SOP_MIN(put.lock.start, h->lock.start);
		put.lock.end = SOP_MAX(put.lock.end, h->lock.end);
		take_out(l, i);
	}
	l->list[l->count++] = put;
	return 0;
}

bool sop_coord_locks_drop(struct sop_coord_locks *l, uint64_t session)
{
	size_t count = l->count;

	for (size_t i = 0; i < l->count;)
		if (l->list[i].session == session)
			take_out(l, i);
		else
			i++;
	return l->count != count;
}

bool sop_coord_same_wait(const struct sop_coord_lock *a, const struct sop_coord_lock *b)
{
	return a->owner == b->owner && a->whole == b->whole && a->type == b->type &&
	       (a->whole || (a->start == b->start && a->end == b->end));
}
