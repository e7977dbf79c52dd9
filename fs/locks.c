#include "fs/locks.h"

#include <fcntl.h>

#include "fs/inode.h"

struct sopfs_locks {
	struct sopfs_lock *list; /* by owner unordered; of one owner and kind none overlap */
	size_t count, room;
};

struct sopfs_locks *sopfs_locks_new(void)
{
	return calloc(1, sizeof(struct sopfs_locks));
}

void sopfs_locks_free(struct sopfs_locks *l)
{
	if (l)
		free(l->list);
	free(l);
}

size_t sopfs_locks_count(const struct sopfs_locks *l)
{
	return l->count;
}

bool sopfs_locks_blocked(
	const struct sopfs_locks *l, const struct sopfs_lock *want, struct sopfs_lock *by)
{
	if (want->type == F_UNLCK)
		return false;
	for (size_t i = 0; i < l->count; i++) {
		const struct sopfs_lock *k = &l->list[i];

		if (k->whole != want->whole || k->owner == want->owner || k->end < want->start ||
			k->start > want->end)
			continue;
		if (k->type == F_RDLCK && want->type == F_RDLCK)
			continue;
		if (by)
			*by = *k;
		return true;
	}
	return false;
}

static void take_out(struct sopfs_locks *l, size_t i)
{
	l->list[i] = l->list[--l->count];
}

/* What of lock k lies outside [start, end] stays: at most two pieces, the second of which is added.
 */
static void cut(struct sopfs_locks *l, size_t i, uint64_t start, uint64_t end)
{
	struct sopfs_lock k = l->list[i];

	if (k.start < start && k.end > end) {
		l->list[l->count] = k;
		l->list[l->count++].start = end + 1;
		l->list[i].end = start - 1;
	} else if (k.start < start) {
		l->list[i].end = start - 1;
	} else if (k.end > end) {
		l->list[i].start = end + 1;
	} else {
		take_out(l, i);
	}
}

int sopfs_locks_put(struct sopfs_locks *l, const struct sopfs_lock *lock)
{
	struct sopfs_lock mine = *lock;

	/* At most one piece more from a cut, and the lock itself. */
	if (l->count + 2 > l->room) {
		size_t room = SOP_MAX(l->room * 2, l->count + 8);
		struct sopfs_lock *list = realloc(l->list, room * sizeof(*list));

		if (!list)
			return -ENOMEM;
		l->list = list;
		l->room = room;
	}
	for (size_t i = 0; i < l->count;) {
		struct sopfs_lock *k = &l->list[i];
		size_t before = l->count;

		if (k->whole != mine.whole || k->owner != mine.owner || k->end < lock->start ||
			k->start > lock->end) {
			i++;
			continue;
		}
		cut(l, i, lock->start, lock->end);
		if (l->count >= before)
			i++;
	}
	if (mine.type == F_UNLCK)
		return 0;
	/* Join with neighbours of the same kind. */
	for (size_t i = 0; i < l->count;) {
		struct sopfs_lock *k = &l->list[i];

		if (k->whole == mine.whole && k->owner == mine.owner && k->type == mine.type &&
			k->handle == mine.handle &&
			((k->end != UINT64_MAX && k->end + 1 == mine.start) ||
				(mine.end != UINT64_MAX && mine.end + 1 == k->start))) {
			mine.start = SOP_MIN(mine.start, k->start);
			mine.end = SOP_MAX(mine.end, k->end);
			take_out(l, i);
		} else {
			i++;
		}
	}
	l->list[l->count++] = mine;
	return 0;
}

void sopfs_locks_drop_handle(struct sopfs_locks *l, const void *handle)
{
	for (size_t i = 0; i < l->count;) {
		if (l->list[i].handle == handle)
			take_out(l, i);
		else
			i++;
	}
}

/* ---- waiting ---- */

struct sopfs_waiter {
	struct sopfs_waiter *next;
	struct sopfs_item *item;
	struct sopfs_lock lock;
	void (*done)(void *arg, int rc);
	void *arg;
	bool queued, interrupted;
	int rc;
};

struct sopfs_waiter *sopfs_waiter_new(void (*done)(void *arg, int rc), void *arg)
{
	struct sopfs_waiter *w = calloc(1, sizeof(*w));

	if (w) {
		w->done = done;
		w->arg = arg;
	}
	return w;
}

void sopfs_waiter_free(struct sopfs_waiter *w)
{
	free(w);
}

static struct sopfs_locks *locks_of(struct sopfs_item *item)
{
	if (!item->locks)
		item->locks = sopfs_locks_new();
	return item->locks;
}

/* The waiters of the item that nothing stops now, in the order they came. locks_lock held; the list
 * is called by `finish` without it. */
static struct sopfs_waiter *wake(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_waiter *ready = NULL, **end = &ready;

	for (struct sopfs_waiter **p = &f->waiters; *p;) {
		struct sopfs_waiter *w = *p;

		if (w->item != item || sopfs_locks_blocked(item->locks, &w->lock, NULL)) {
			p = &w->next;
			continue;
		}
		w->rc = sopfs_locks_put(item->locks, &w->lock);
		*p = w->next;
		w->queued = false;
		w->next = NULL;
		*end = w;
		end = &w->next;
	}
	return ready;
}

static void finish(struct sopfs_waiter *w)
{
	while (w) {
		struct sopfs_waiter *next = w->next;

		w->done(w->arg, w->rc);
		w = next;
	}
}

int sopfs_lock_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter)
{
	struct sopfs_waiter *ready = NULL, **p;
	struct sopfs_locks *l;
	int rc;

	pthread_mutex_lock(&f->locks_lock);
	l = locks_of(item);
	if (!l) {
		rc = -ENOMEM;
	} else if (!sopfs_locks_blocked(l, lock, NULL)) {
		rc = sopfs_locks_put(l, lock);
		/* A range given back, or a write lock turned into a read lock, may let others in.
		 */
		if (!rc)
			ready = wake(f, item);
	} else if (!waiter) {
		rc = -EAGAIN;
	} else if (waiter->interrupted) {
		rc = -EINTR;
	} else {
		waiter->item = item;
		waiter->lock = *lock;
		waiter->queued = true;
		for (p = &f->waiters; *p; p = &(*p)->next)
			;
		*p = waiter;
		rc = -EINPROGRESS;
	}
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
	return rc;
}

void sopfs_lock_interrupt(struct sopfs *f, struct sopfs_waiter *w)
{
	bool was_queued;

	pthread_mutex_lock(&f->locks_lock);
	was_queued = w->queued;
	w->interrupted = true;
	for (struct sopfs_waiter **p = &f->waiters; was_queued && *p; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			break;
		}
	}
	w->queued = false;
	w->next = NULL;
	w->rc = -EINTR;
	pthread_mutex_unlock(&f->locks_lock);
	if (was_queued)
		w->done(w->arg, -EINTR);
}

bool sopfs_lock_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by)
{
	bool blocked = false;

	pthread_mutex_lock(&f->locks_lock);
	if (item->locks)
		blocked = sopfs_locks_blocked(item->locks, want, by);
	pthread_mutex_unlock(&f->locks_lock);
	return blocked;
}

void sopfs_lock_drop_owner(struct sopfs *f, struct sopfs_item *item, uint64_t owner, bool whole)
{
	struct sopfs_lock all = {
		.end = UINT64_MAX, .owner = owner, .type = F_UNLCK, .whole = whole};

	if (!item->locks)
		return;
	/* Unlocking everything never needs memory twice over: without it the locks go by their
	 * handle. */
	(void)sopfs_lock_set(f, item, &all, NULL);
}

void sopfs_lock_drop_handle(struct sopfs *f, struct sopfs_item *item, const void *handle)
{
	struct sopfs_waiter *ready;

	if (!item->locks)
		return;
	pthread_mutex_lock(&f->locks_lock);
	sopfs_locks_drop_handle(item->locks, handle);
	ready = wake(f, item);
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
}
