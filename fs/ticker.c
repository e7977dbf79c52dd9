/* Append sessions are committed at the latest append_commit= after a write, so that logs show and
 * survive. All wait equally long, so the queue is in order of their time. Between them locks are
 * looked at that may have ended without a word, and memory is given back. */
#include <time.h>

#include "fs/locks.h"
#include "fs/memory.h"
#include "fs/session.h"

#define POLL_MS 100

struct sopfs_ticker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sopfs_session *first, **tail;
	uint64_t poll_ms; /* when locks are to be looked at; 0: not */
	bool settle;	  /* the memory */
	bool stop;
};

static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(sop_clock_system.ctx);
}

static void commit_due(struct sopfs *f, struct sopfs_session *s)
{
	struct sopfs_notes notes = {0};
	struct sopfs_item *item;

	pthread_mutex_lock(&f->lock);
	item = s->item;
	if (item)
		sopfs_item_ref(item);
	pthread_mutex_unlock(&f->lock);
	if (item) {
		pthread_mutex_lock(&item->lock);
		pthread_mutex_lock(&s->lock);
		s->ticking = false;
		/* It may have ended while we waited. */
		if (s->item && s->changed)
			(void)sopfs_session_commit(f, s, &notes, NULL); /* told at close */
		pthread_mutex_unlock(&s->lock);
		pthread_mutex_unlock(&item->lock);
		sopfs_item_put(f, item);
	}
	sopfs_notify(f, &notes, NULL, NULL);
	sopfs_session_put(f, s);
}

static void wait_until(struct sopfs_ticker *q, uint64_t due_ms)
{
	struct timespec ts = {
		.tv_sec = (time_t)(due_ms / 1000), .tv_nsec = (long)(due_ms % 1000) * 1000000};

	pthread_cond_timedwait(&q->wake, &q->lock, &ts);
}

static void *ticker_main(void *arg)
{
	struct sopfs *f = arg;
	struct sopfs_ticker *q = f->ticker;

	pthread_mutex_lock(&q->lock);
	while (!q->stop) {
		struct sopfs_session *s = q->first;
		uint64_t now = now_ms();

		if (q->poll_ms && q->poll_ms <= now) {
			q->poll_ms = 0;
			pthread_mutex_unlock(&q->lock);
			sopfs_lock_poll(f);
			pthread_mutex_lock(&q->lock);
		} else if (q->settle) {
			q->settle = false;
			pthread_mutex_unlock(&q->lock);
			sopfs_memory_settle(f);
			pthread_mutex_lock(&q->lock);
		} else if (!s && !q->poll_ms) {
			pthread_cond_wait(&q->wake, &q->lock);
		} else if (!s || s->due_ms > now) {
			wait_until(q, s && (!q->poll_ms || s->due_ms < q->poll_ms) ? s->due_ms
										   : q->poll_ms);
		} else {
			q->first = s->tick_next;
			if (!q->first)
				q->tail = &q->first;
			pthread_mutex_unlock(&q->lock);
			commit_due(f, s);
			pthread_mutex_lock(&q->lock);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

int sopfs_ticker_start(struct sopfs *f, struct sop_err *e)
{
	struct sopfs_ticker *q = calloc(1, sizeof(*q));
	pthread_condattr_t attr;
	int rc;

	if (!q)
		return sop_fail(e, -ENOMEM, "ticker");
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->wake, &attr);
	pthread_condattr_destroy(&attr);
	q->tail = &q->first;
	f->ticker = q;
	rc = pthread_create(&q->thread, NULL, ticker_main, f);
	if (rc) {
		free(q);
		f->ticker = NULL;
		return sop_fail(e, -rc, "ticker thread");
	}
	return 0;
}

void sopfs_ticker_stop(struct sopfs *f)
{
	struct sopfs_ticker *q = f->ticker;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	while (q->first) {
		struct sopfs_session *s = q->first;

		q->first = s->tick_next;
		sopfs_session_put(f, s);
	}
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	free(q);
	f->ticker = NULL;
}

/* The session is marked as ticking already, by whoever calls this once for it. */
void sopfs_ticker_add(struct sopfs *f, struct sopfs_session *s)
{
	struct sopfs_ticker *q = f->ticker;

	pthread_mutex_lock(&f->lock);
	s->refs++;
	pthread_mutex_unlock(&f->lock);
	pthread_mutex_lock(&q->lock);
	s->due_ms = now_ms() + f->o.append_commit_ms;
	s->tick_next = NULL;
	*q->tail = s;
	q->tail = &s->tick_next;
	if (q->first == s)
		pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

static void poll_in(struct sopfs *f, uint64_t ms)
{
	struct sopfs_ticker *q = f->ticker;
	uint64_t due;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	due = now_ms() + ms;
	if (!q->poll_ms || due < q->poll_ms) {
		q->poll_ms = due;
		pthread_cond_signal(&q->wake);
	}
	pthread_mutex_unlock(&q->lock);
}

void sopfs_ticker_poll(struct sopfs *f)
{
	poll_in(f, POLL_MS);
}

void sopfs_ticker_poll_now(struct sopfs *f)
{
	poll_in(f, 0);
}

void sopfs_ticker_settle(struct sopfs *f)
{
	struct sopfs_ticker *q = f->ticker;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->settle = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}
