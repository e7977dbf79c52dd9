#include "fs/locks.h"

#include <fcntl.h>
#include <time.h>

#include "fs/closer.h"
#include "fs/inode.h"
#include "fs/session.h"

/* A lock that is in the way of who may not wait: how long its RELEASE is waited for, where there is
 * reason to think that it is coming. */
#define RELEASE_TRIES 20
#define RELEASE_MS    1
#define FLUSHED_MS    2000

struct sopfs_locks {
	struct sopfs_lock *list; /* by owner unordered; of one owner and kind none overlap */
	size_t count, room;
	/* Some have ended here without a word: who waits for them is to be let in, and the server
	 * of a shared volume told whose they were. */
	bool ended;
	uint64_t gone[8];
	unsigned n_gone;
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

static bool conflicts(const struct sopfs_lock *k, const struct sopfs_lock *want)
{
	return k->whole == want->whole && k->owner != want->owner && k->end >= want->start &&
	       k->start <= want->end && (k->type == F_WRLCK || want->type == F_WRLCK);
}

bool sopfs_locks_blocked(
	const struct sopfs_locks *l, const struct sopfs_lock *want, struct sopfs_lock *by)
{
	const struct sopfs_lock *first = NULL;

	if (want->type == F_UNLCK)
		return false;
	for (size_t i = 0; i < l->count; i++) {
		const struct sopfs_lock *k = &l->list[i];

		if (conflicts(k, want) && (!first || k->start < first->start))
			first = k;
		if (first && !by)
			return true;
	}
	if (first)
		*by = *first;
	return first != NULL;
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

/* All byte ranges of one owner. */
static bool drop_ranges(struct sopfs_locks *l, uint64_t owner)
{
	size_t before = l->count;

	for (size_t i = 0; i < l->count;) {
		if (!l->list[i].whole && l->list[i].owner == owner)
			take_out(l, i);
		else
			i++;
	}
	return l->count < before;
}

void sopfs_locks_drop_handle(struct sopfs_locks *l, const struct sopfs_handle *handle)
{
	for (size_t i = 0; i < l->count;) {
		if (l->list[i].handle != handle) {
			i++;
		} else if (l->list[i].whole) {
			take_out(l, i);
		} else {
			drop_ranges(l, l->list[i].owner);
			i = 0;
		}
	}
}

/* ---- waiting ---- */

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

/* An fcntl lock on a file that has quiet descriptors: if its process has some, they are noted
 * when it is granted. */
static void note_quiet(struct sopfs_item *item, struct sopfs_lock *lock)
{
	unsigned n;

	lock->fds = 0;
	if (!item->quiet || lock->whole || lock->type == F_UNLCK ||
		sopfs_closer_lock_kind(lock->tid) == SOPFS_LOCK_OFD)
		return;
	n = sopfs_closer_list(lock->tid, item->ino, lock->fd, SOPFS_LOCK_FDS);
	lock->fds = (uint8_t)SOP_MIN(n, (unsigned)SOPFS_LOCK_FDS);
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
		note_quiet(item, &w->lock);
		w->rc = sopfs_locks_put(item->locks, &w->lock);
		*p = w->next;
		w->queued = false;
		w->next = NULL;
		*end = w;
		end = &w->next;
	}
	return ready;
}

static void add(struct sopfs_waiter **list, struct sopfs_waiter *more)
{
	while (*list)
		list = &(*list)->next;
	*list = more;
}

static void finish(struct sopfs_waiter *w)
{
	while (w) {
		struct sopfs_waiter *next = w->next;

		w->done(w->arg, w->rc);
		w = next;
	}
}

/* ---- descriptors that send no FLUSH; locks_lock held ---- */

static bool closed(const struct sopfs_item *item, const struct sopfs_lock *k)
{
	int process = sopfs_closer_process(k->pid);

	for (unsigned i = 0; i < k->fds; i++)
		if (sopfs_closer_closed(process, k->fd[i], item->ino))
			return true;
	return false;
}

/* Are locks those of other mounters too? In a transaction over many files they are its own. */
static bool is_far(const struct sopfs *f)
{
	return !f->world && sop_volume_coordinated(f->v);
}

/* Locks whose process has closed a descriptor of the file since, without a word. */
static bool drop_closed(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_locks *l = item->locks;
	bool any = false;

	for (size_t i = 0; i < l->count;) {
		if (l->list[i].fds && l->n_gone < SOP_ARRAY_LEN(l->gone) &&
			closed(item, &l->list[i])) {
			if (is_far(f))
				l->gone[l->n_gone++] = l->list[i].owner;
			l->ended = any = drop_ranges(l, l->list[i].owner);
			i = 0;
		} else {
			i++;
		}
	}
	return any;
}

static bool blocked_by_quiet(const struct sopfs_item *item, const struct sopfs_lock *want)
{
	for (size_t i = 0; i < item->locks->count; i++)
		if (item->locks->list[i].fds && conflicts(&item->locks->list[i], want))
			return true;
	return false;
}

bool sopfs_lock_quiet(struct sopfs *f, struct sopfs_handle *h)
{
	struct sopfs_item *item = h->view->item;

	pthread_mutex_lock(&f->locks_lock);
	h->quiet = !item->locks;
	item->quiet += h->quiet;
	pthread_mutex_unlock(&f->locks_lock);
	return h->quiet;
}

void sopfs_lock_release_quiet(struct sopfs *f, struct sopfs_handle *h)
{
	if (!h->quiet)
		return;
	pthread_mutex_lock(&f->locks_lock);
	h->quiet = false;
	h->view->item->quiet--;
	pthread_mutex_unlock(&f->locks_lock);
}

/* ---- deadlocks; locks_lock held ---- */

/* Does whoever holds what is in the way of `want` wait for `owner`, by way of others or not? Who
 * waits by a lock of a description may be let in by another thread of its own process: that is no
 * deadlock, and is looked at only where it would be one. */
static bool waits_for(struct sopfs *f, const struct sopfs_item *item, const struct sopfs_lock *want,
	uint64_t owner, unsigned round)
{
	for (size_t i = 0; i < item->locks->count; i++) {
		const struct sopfs_lock *k = &item->locks->list[i];

		if (!conflicts(k, want))
			continue;
		if (k->owner == owner)
			return true;
		for (struct sopfs_waiter *w = f->waiters; w; w = w->next) {
			if (w->lock.owner != k->owner || w->lock.whole || w->round == round)
				continue;
			w->round = round;
			if (waits_for(f, w->item, &w->lock, owner, round) &&
				sopfs_closer_lock_kind(w->lock.tid) != SOPFS_LOCK_OFD)
				return true;
		}
	}
	return false;
}

static bool deadlock(struct sopfs *f, const struct sopfs_item *item, const struct sopfs_lock *want)
{
	bool any = false;

	/* Of the waiters of all that stand in the way; `want` itself is not among them yet. */
	if (want->whole)
		return false;
	f->locks_round++;
	for (struct sopfs_waiter *w = f->waiters; w && !any; w = w->next)
		any = !w->lock.whole;
	return any && waits_for(f, item, want, want->owner, f->locks_round) &&
	       sopfs_closer_lock_kind(want->tid) != SOPFS_LOCK_OFD;
}

/* ---- set and get ---- */

/* What follows from locks that have ended without a word. No lock held. */
static void follow_ended(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_waiter *ready = NULL;
	uint64_t gone[SOP_ARRAY_LEN(item->locks->gone)];
	unsigned n = 0;

	pthread_mutex_lock(&f->locks_lock);
	if (item->locks && item->locks->ended) {
		item->locks->ended = false;
		ready = wake(f, item);
		n = item->locks->n_gone;
		memcpy(gone, item->locks->gone, sizeof(gone));
		item->locks->n_gone = 0;
	}
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
	while (n)
		sopfs_far_drop(f, item->ino, gone[--n], false);
}

static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(sop_clock_system.ctx);
}

void sopfs_lock_flushed(struct sopfs *f, struct sopfs_handle *h)
{
	if (!h->view->item->locks)
		return;
	pthread_mutex_lock(&f->locks_lock);
	h->flushed_ms = now_ms();
	pthread_mutex_unlock(&f->locks_lock);
}

/* May the lock's description have been closed, and its RELEASE not have come? locks_lock held. */
static bool going(const struct sopfs_item *item, const struct sopfs_lock *k)
{
	if (k->handle->flushed_ms && now_ms() - k->handle->flushed_ms < FLUSHED_MS)
		return true;
	return k->handle->quiet && k->pid > 0 &&
	       sopfs_closer_descriptors(sopfs_closer_process(k->pid), item->ino, -1) == 0;
}

static bool blocked(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_lock *by)
{
	if (!sopfs_locks_blocked(item->locks, lock, by))
		return false;
	return !drop_closed(f, item) || sopfs_locks_blocked(item->locks, lock, by);
}

/* Nobody waits here: what is on its way out may take a moment. */
static bool blocked_now(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock)
{
	const struct timespec moment = {.tv_nsec = RELEASE_MS * 1000000L};
	struct sopfs_lock by;
	unsigned i;

	for (i = 0; blocked(f, item, lock, &by); i++) {
		if (i == RELEASE_TRIES || (i && !by.handle) || !going(item, &by))
			break;
		pthread_mutex_unlock(&f->locks_lock);
		nanosleep(&moment, NULL);
		pthread_mutex_lock(&f->locks_lock);
	}
	if (i == RELEASE_TRIES && sopfs_locks_blocked(item->locks, lock, &by))
		by.handle->flushed_ms = 0; /* others have it open: not again */
	return sopfs_locks_blocked(item->locks, lock, NULL);
}

static void enqueue(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter)
{
	struct sopfs_waiter **p = &f->waiters;

	waiter->item = item;
	waiter->lock = *lock;
	waiter->queued = true;
	while (*p)
		p = &(*p)->next;
	*p = waiter;
	if (blocked_by_quiet(item, lock))
		sopfs_ticker_poll(f);
}

bool sopfs_near_blocked(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock)
{
	bool is = false;

	pthread_mutex_lock(&f->locks_lock);
	if (item->locks)
		is = blocked_now(f, item, lock);
	pthread_mutex_unlock(&f->locks_lock);
	follow_ended(f, item);
	return is;
}

bool sopfs_near_holds(const struct sopfs_item *item, const struct sopfs_session *s)
{
	for (size_t i = 0; item->locks && i < item->locks->count; i++)
		if (item->locks->list[i].handle->session == s)
			return true;
	return false;
}

int sopfs_lock_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter)
{
	return is_far(f) ? sopfs_far_set(f, item, lock, waiter)
			 : sopfs_near_set(f, item, lock, waiter);
}

int sopfs_near_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *given,
	struct sopfs_waiter *waiter)
{
	struct sopfs_waiter *ready = NULL;
	struct sopfs_lock lock = *given;
	int rc;

	pthread_mutex_lock(&f->locks_lock);
	if (!locks_of(item)) {
		pthread_mutex_unlock(&f->locks_lock);
		return -ENOMEM;
	}
	if (item->quiet)
		drop_closed(f, item);
	/* flock gives up what it has before it waits for something else: two that turn a shared
	 * lock into an exclusive one get it one after the other. */
	if (lock.whole && lock.type != F_UNLCK && sopfs_locks_blocked(item->locks, &lock, NULL)) {
		struct sopfs_lock none = lock;

		none.type = F_UNLCK;
		(void)sopfs_locks_put(item->locks, &none);
		ready = wake(f, item);
	}
	if (waiter ? !blocked(f, item, &lock, NULL) : !blocked_now(f, item, &lock)) {
		note_quiet(item, &lock);
		rc = sopfs_locks_put(item->locks, &lock);
	} else if (!waiter) {
		rc = -EAGAIN;
	} else if (waiter->interrupted) {
		rc = -EINTR;
	} else if (deadlock(f, item, &lock)) {
		rc = -EDEADLK;
	} else {
		enqueue(f, item, &lock, waiter);
		rc = -EINPROGRESS;
	}
	/* A range given back, or a write lock turned into a read lock, may let others in. */
	if (!rc || item->locks->ended)
		add(&ready, wake(f, item));
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
	/* One that waits may have been answered, and all be gone. */
	if (rc != -EINPROGRESS)
		follow_ended(f, item);
	return rc;
}

void sopfs_lock_poll(struct sopfs *f)
{
	struct sopfs_waiter *ready = NULL;
	bool more = false;

	pthread_mutex_lock(&f->locks_lock);
	for (struct sopfs_waiter *w = f->waiters; w; w = w->next) {
		if (!blocked_by_quiet(w->item, &w->lock))
			continue;
		more = true;
		if (!drop_closed(f, w->item))
			continue;
		ready = wake(f, w->item);
		break; /* the list is another now; the rest has its turn */
	}
	if (more)
		sopfs_ticker_poll(f);
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
	sopfs_far_poll(f);
}

bool sopfs_lock_has(
	struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *range, bool write)
{
	bool found = false;

	if (!item->locks)
		return false;
	pthread_mutex_lock(&f->locks_lock);
	for (size_t i = 0; i < item->locks->count && !found; i++) {
		const struct sopfs_lock *k = &item->locks->list[i];

		found = k->owner == range->owner && k->whole == range->whole &&
			(k->type == F_WRLCK || !write) && k->end >= range->start &&
			k->start <= range->end;
	}
	pthread_mutex_unlock(&f->locks_lock);
	return found;
}

void sopfs_lock_interrupt(struct sopfs *f, struct sopfs_waiter *w)
{
	struct sopfs_waiter **p;
	bool was_queued;

	if (is_far(f)) {
		sopfs_far_interrupt(f, w);
		return;
	}
	pthread_mutex_lock(&f->locks_lock);
	was_queued = w->queued;
	w->interrupted = true;
	w->in_interrupt = was_queued;
	if (was_queued) {
		for (p = &f->waiters; *p != w; p = &(*p)->next)
			;
		*p = w->next;
		w->queued = false;
	}
	pthread_mutex_unlock(&f->locks_lock);
	if (was_queued)
		w->done(w->arg, -EINTR);
}

bool sopfs_lock_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by)
{
	bool found = false;

	pthread_mutex_lock(&f->locks_lock);
	if (item->locks)
		found = blocked(f, item, want, by);
	pthread_mutex_unlock(&f->locks_lock);
	follow_ended(f, item);
	return found || (is_far(f) && sopfs_far_get(f, item, want, by));
}

void sopfs_lock_drop_owner(struct sopfs *f, struct sopfs_handle *handle, uint64_t owner)
{
	const struct sopfs_lock all = {
		.end = UINT64_MAX, .owner = owner, .handle = handle, .type = F_UNLCK};
	struct sopfs_item *item = handle->view->item;

	if (!item->locks)
		return;
	/* Unlocking everything never needs memory twice over: without it the locks go by their
	 * handle. */
	(void)sopfs_lock_set(f, item, &all, NULL);
}

/* Takes out what one owner has by way of the handle, of one kind; false: nothing. */
static bool take_first(struct sopfs *f, struct sopfs_item *item, const struct sopfs_handle *handle,
	struct sopfs_lock *first)
{
	struct sopfs_locks *l = item->locks;
	size_t i = 0;
	bool any;

	pthread_mutex_lock(&f->locks_lock);
	while (i < l->count && l->list[i].handle != handle)
		i++;
	any = i < l->count;
	if (any)
		*first = l->list[i];
	for (i = 0; any && i < l->count;)
		if (l->list[i].owner == first->owner && l->list[i].whole == first->whole)
			take_out(l, i);
		else
			i++;
	pthread_mutex_unlock(&f->locks_lock);
	return any;
}

void sopfs_lock_drop_handle(struct sopfs *f, struct sopfs_item *item, struct sopfs_handle *handle)
{
	struct sopfs_waiter *ready;
	struct sopfs_lock first;

	if (!item->locks)
		return;
	while (is_far(f) && take_first(f, item, handle, &first))
		sopfs_far_drop(f, item->ino, first.owner, first.whole);
	pthread_mutex_lock(&f->locks_lock);
	sopfs_locks_drop_handle(item->locks, handle);
	if (handle->quiet)
		drop_closed(f, item);
	ready = wake(f, item);
	pthread_mutex_unlock(&f->locks_lock);
	finish(ready);
	follow_ended(f, item);
}

void sopfs_lock_stop(struct sopfs *f)
{
	struct sopfs_waiter *left;

	pthread_mutex_lock(&f->locks_lock);
	left = f->waiters;
	add(&left, f->far_waiters);
	f->waiters = f->far_waiters = NULL;
	for (struct sopfs_waiter *w = left; w; w = w->next) {
		w->queued = false;
		w->rc = -ENODEV;
	}
	pthread_mutex_unlock(&f->locks_lock);
	finish(left);
}
