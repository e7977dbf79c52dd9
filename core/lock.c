#include "core/lock.h"

#include <stdio.h>
#include <time.h>

#ifdef SOP_DEBUG_LOCKS

/* What this thread holds, outermost first. The ranks rise strictly, so there is room for each rank
 * once. */
static _Thread_local const struct sop_lock *held[SOP_RANK_LEAF];
static _Thread_local size_t held_count;

static void __attribute__((noreturn))
wrong(const char *what, const struct sop_lock *l, const struct sop_lock *other)
{
	fprintf(stderr, "lock %s (rank %d): %s %s (rank %d)\n", l->name, (int)l->rank, what,
		other ? other->name : "nothing", other ? (int)other->rank : 0);
	abort();
}

static void note_take(const struct sop_lock *l)
{
	if (held_count && held[held_count - 1]->rank >= l->rank)
		wrong("taken while the thread holds", l, held[held_count - 1]);
	held[held_count++] = l;
}

static void note_drop(const struct sop_lock *l)
{
	size_t i = held_count;

	while (i && held[i - 1] != l)
		i--;
	if (!i)
		wrong("dropped, but the thread holds", l, NULL);
	memmove(&held[i - 1], &held[i], (held_count - i) * sizeof(held[0]));
	held_count--;
}

/* Waking up takes the lock again: that is out of order if a lock of a higher rank is held. */
static void note_wait(const struct sop_lock *l)
{
	if (!held_count || held[held_count - 1] != l)
		wrong("waited with, but the innermost lock is", l,
			held_count ? held[held_count - 1] : NULL);
}

#else

static void note_take(const struct sop_lock *l)
{
	(void)l;
}

static void note_drop(const struct sop_lock *l)
{
	(void)l;
}

static void note_wait(const struct sop_lock *l)
{
	(void)l;
}

#endif

/* These calls fail only on misuse: a lock not initialised, or not held. */
static void must(int rc)
{
	assert(rc == 0);
	(void)rc;
}

void sop_lock_init(struct sop_lock *l, enum sop_lock_rank rank, const char *name)
{
	must(pthread_mutex_init(&l->mutex, NULL));
	l->rank = rank;
	l->name = name;
}

void sop_lock_release(struct sop_lock *l)
{
	must(pthread_mutex_destroy(&l->mutex));
}

void sop_lock(struct sop_lock *l)
{
	note_take(l);
	must(pthread_mutex_lock(&l->mutex));
}

void sop_unlock(struct sop_lock *l)
{
	note_drop(l);
	must(pthread_mutex_unlock(&l->mutex));
}

uint64_t sop_monotonic_ns(void)
{
	struct timespec t;

	must(clock_gettime(CLOCK_MONOTONIC, &t));
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void sop_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(c, &attr));
	must(pthread_condattr_destroy(&attr));
}

bool sop_cond_wait_until(pthread_cond_t *c, struct sop_lock *l, uint64_t monotonic_ns)
{
	struct timespec until = {.tv_sec = (time_t)(monotonic_ns / 1000000000u),
		.tv_nsec = (long)(monotonic_ns % 1000000000u)};
	int rc;

	note_wait(l);
	rc = pthread_cond_timedwait(c, &l->mutex, &until);
	if (rc == ETIMEDOUT)
		return false;
	must(rc);
	return true;
}

bool sop_cond_wait(pthread_cond_t *c, struct sop_lock *l, long wait_ms)
{
	if (wait_ms >= 0)
		return sop_cond_wait_until(c, l, sop_monotonic_ns() + (uint64_t)wait_ms * 1000000u);
	note_wait(l);
	must(pthread_cond_wait(c, &l->mutex));
	return true;
}
