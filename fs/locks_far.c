/* Locks between the mounters of a shared volume: see locks.h.
 *
 * Who waits is asked for again when the server says that something was unlocked, by the ticker's
 * thread. What is unlocked between the refusal and the queueing is not missed: a waiter is in the
 * list before the server is asked. */
#include <fcntl.h>

#include "fs/closer.h"
#include "fs/inode.h"
#include "fs/locks.h"
#include "fs/session.h"

#include <time.h>

#define YOUNG_TRIES 400 /* of 50 ms */

static struct sop_coord_lock far_lock(uint64_t ino, const struct sopfs_lock *l, bool waits)
{
	return (struct sop_coord_lock){.object = ino,
		.owner = l->owner,
		.start = l->start,
		.end = l->end,
		.type = l->type,
		.whole = l->whole,
		.waits = waits,
		.pid = l->pid};
}

/* Somebody who does not wait wants to know whether anybody is in the way, which a server that has
 * just forgotten everything cannot say before all mounters had the time of a lease to come back. */
static int ask_server(
	struct sopfs *f, const struct sop_coord_lock *l, uint64_t *grant, struct sop_err *e)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	struct sop_coord_holder by = {0};
	int rc = sop_volume_lock(f->v, l, 0, grant, &by, e);

	for (unsigned i = 0; rc == -EAGAIN && !by.session && !l->waits && i < YOUNG_TRIES; i++) {
		nanosleep(&pause, NULL);
		rc = sop_volume_lock(f->v, l, 0, grant, &by, e);
	}
	return rc;
}

/* What is written through the session from now on is written under it, too. */
static void granted(struct sopfs *f, struct sopfs_session *s, uint64_t grant)
{
	pthread_mutex_lock(&f->locks_lock);
	if (!atomic_load(&s->grant))
		atomic_store(&s->grant, grant);
	pthread_mutex_unlock(&f->locks_lock);
}

/* The server, and then here. -EAGAIN: somebody is in the way. */
static int ask(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock, bool waits)
{
	struct sop_coord_lock l = far_lock(item->ino, lock, waits);
	struct sop_err e = {0};
	uint64_t grant = 0;
	int rc = ask_server(f, &l, &grant, &e);

	if (rc == -EAGAIN || rc == -ENOMEM || rc == -EDEADLK)
		return rc;
	if (rc) {
		sop_log(f->o.log, SOP_LOG_WARNING, "locks", "ino=%llu code=%s: %s",
			(unsigned long long)item->ino, sop_err_name(rc), e.text);
		return -ENOLCK;
	}
	rc = sopfs_near_set(f, item, lock, NULL);
	if (rc) {
		l.type = F_UNLCK;
		(void)sop_volume_lock(f->v, &l, 0, NULL, NULL, NULL);
	} else if (lock->handle && lock->handle->session) {
		granted(f, lock->handle->session, grant);
	}
	return rc;
}

static int unlock(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock)
{
	struct sop_coord_lock l = far_lock(item->ino, lock, false);
	struct sopfs_session *s = lock->handle ? lock->handle->session : NULL;
	int rc = sopfs_near_set(f, item, lock, NULL);

	/* What was written under it has been committed before. */
	if (s) {
		pthread_mutex_lock(&f->locks_lock);
		if (!sopfs_near_holds(item, s))
			atomic_store(&s->grant, 0);
		pthread_mutex_unlock(&f->locks_lock);
	}
	/* When the server cannot be told, it is as soon as it can. */
	(void)sop_volume_lock(f->v, &l, 0, NULL, NULL, NULL);
	return rc;
}

/* flock gives up what it has when it does not get something else, before it waits for that: two
 * that turn a shared lock into an exclusive one get it one after the other. */
static void give_up(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock)
{
	struct sopfs_lock none = *lock;

	if (!lock->whole || !sopfs_lock_has(f, item, lock, false))
		return;
	none.type = F_UNLCK;
	(void)unlock(f, item, &none);
}

/* ---- the list of those who wait; locks_lock held ---- */

static void put_in(struct sopfs *f, struct sopfs_waiter *w)
{
	struct sopfs_waiter **p = &f->far_waiters;

	while (*p)
		p = &(*p)->next;
	w->next = NULL;
	w->queued = true;
	*p = w;
}

static void take_out(struct sopfs *f, struct sopfs_waiter *w)
{
	struct sopfs_waiter **p = &f->far_waiters;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	w->next = NULL;
	w->queued = false;
}

/* The server has noted that it waits. No lock held. */
static void forget(struct sopfs *f, const struct sopfs_waiter *w)
{
	struct sop_coord_lock l = far_lock(w->item->ino, &w->lock, false);

	sop_volume_lock_forget(f->v, &l);
}

/* A waiter in the list, marked as asking: -EINPROGRESS, and it waits on; or what has become of it.
 */
static int ask_waiting(struct sopfs *f, struct sopfs_waiter *w)
{
	bool again;
	int rc;

	do {
		bool polls = sopfs_near_blocked(f, w->item, &w->lock);

		rc = ask(f, w->item, &w->lock, true);
		/* A lock of a description waits on, but the server does not note that it does. */
		if (rc == -EDEADLK && sopfs_closer_lock_kind(w->lock.tid) == SOPFS_LOCK_OFD) {
			polls = true;
			rc = -EAGAIN;
		}
		if (rc == -EAGAIN)
			give_up(f, w->item, &w->lock);
		pthread_mutex_lock(&f->locks_lock);
		again = rc == -EAGAIN && w->again;
		w->again = false;
		/* One here that is on its way out goes without a word to the server's knowledge of
		 * ours. */
		w->polls = polls;
		if (!again && rc == -EAGAIN && !w->interrupted) {
			w->asking = false;
			pthread_mutex_unlock(&f->locks_lock);
			if (polls)
				sopfs_ticker_poll(f);
			return -EINPROGRESS;
		}
		again = again && !w->interrupted;
		if (!again)
			take_out(f, w);
		pthread_mutex_unlock(&f->locks_lock);
	} while (again);
	if (rc != -EAGAIN)
		return rc;
	forget(f, w);
	return -EINTR;
}

int sopfs_far_set(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *lock,
	struct sopfs_waiter *waiter)
{
	if (lock->type == F_UNLCK)
		return unlock(f, item, lock);
	if (!waiter) {
		int rc = sopfs_near_blocked(f, item, lock) ? -EAGAIN : ask(f, item, lock, false);

		if (rc == -EAGAIN)
			give_up(f, item, lock);
		return rc;
	}
	pthread_mutex_lock(&f->locks_lock);
	if (waiter->interrupted) {
		pthread_mutex_unlock(&f->locks_lock);
		return -EINTR;
	}
	waiter->item = item;
	waiter->lock = *lock;
	waiter->asking = true;
	put_in(f, waiter);
	pthread_mutex_unlock(&f->locks_lock);
	return ask_waiting(f, waiter);
}

void sopfs_far_drop(struct sopfs *f, uint64_t ino, uint64_t owner, bool whole)
{
	const struct sopfs_lock all = {
		.end = UINT64_MAX, .owner = owner, .type = F_UNLCK, .whole = whole};
	struct sop_coord_lock l = far_lock(ino, &all, false);

	(void)sop_volume_lock(f->v, &l, 0, NULL, NULL, NULL);
}

bool sopfs_far_get(struct sopfs *f, struct sopfs_item *item, const struct sopfs_lock *want,
	struct sopfs_lock *by)
{
	struct sop_coord_lock l = far_lock(item->ino, want, false);
	struct sop_coord_holder h;

	if (sop_volume_lock_test(f->v, &l, &h, NULL) || h.lock.type == F_UNLCK)
		return false;
	*by = (struct sopfs_lock){.start = h.lock.start,
		.end = h.lock.end,
		.owner = h.lock.owner,
		.pid = -1,
		.type = h.lock.type,
		.whole = h.lock.whole};
	return true;
}

/* ---- asking again ---- */

/* Coordination's thread. */
static void on_unlocked(void *arg, uint64_t object)
{
	struct sopfs *f = arg;
	bool any = false;

	pthread_mutex_lock(&f->locks_lock);
	for (struct sopfs_waiter *w = f->far_waiters; w; w = w->next)
		if (w->item->ino == object)
			any = w->again = true;
	pthread_mutex_unlock(&f->locks_lock);
	if (any)
		sopfs_ticker_poll_now(f);
}

void sopfs_far_start(struct sopfs *f)
{
	sop_volume_on_unlocked(f->v, on_unlocked, f);
}

void sopfs_far_stop(struct sopfs *f)
{
	sop_volume_on_unlocked(f->v, NULL, NULL);
}

/* One whose turn it is, marked as asking; NULL: none. */
static struct sopfs_waiter *next_due(struct sopfs *f)
{
	struct sopfs_waiter *w;

	pthread_mutex_lock(&f->locks_lock);
	for (w = f->far_waiters; w; w = w->next)
		if (!w->asking && w->again)
			break;
	if (w) {
		w->asking = true;
		w->again = false;
	}
	pthread_mutex_unlock(&f->locks_lock);
	return w;
}

void sopfs_far_poll(struct sopfs *f)
{
	struct sopfs_waiter *w;

	pthread_mutex_lock(&f->locks_lock);
	for (w = f->far_waiters; w; w = w->next)
		w->again |= w->polls;
	pthread_mutex_unlock(&f->locks_lock);
	while ((w = next_due(f))) {
		int rc = ask_waiting(f, w);

		if (rc != -EINPROGRESS)
			w->done(w->arg, rc);
	}
}

void sopfs_far_interrupt(struct sopfs *f, struct sopfs_waiter *w)
{
	bool waiting;

	pthread_mutex_lock(&f->locks_lock);
	w->interrupted = true;
	waiting = w->queued && !w->asking;
	w->in_interrupt = waiting;
	if (waiting)
		take_out(f, w);
	pthread_mutex_unlock(&f->locks_lock);
	if (!waiting)
		return; /* whoever asks for it sees that it was */
	forget(f, w);
	w->done(w->arg, -EINTR);
}
