#define FUSE_USE_VERSION 312
#include "fs/workers.h"

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "fs/channel.h"

#define NUDGE_MS 20 /* a worker may just be between two steps */

struct worker {
	struct workers *all;
	struct worker *next;
	pthread_t thread;
	struct fuse_buf request;
	bool held; /* its request has ended on another thread. Under all->lock */
};

/* References: who waits for the end, and each worker. */
struct workers {
	struct fuse_session *session;
	struct sop_volume *volume;
	atomic_uint refs;
	unsigned max;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under the lock. */
	struct worker *first;
	unsigned threads, idle; /* without those that are held */
	unsigned calls;		/* requests under way */
	bool over;
	int rc;
};

static void put(struct workers *w)
{
	if (atomic_fetch_sub(&w->refs, 1) != 1)
		return;
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static void *worker_main(void *arg);

/* Under w->lock. */
static int start(struct workers *w)
{
	struct worker *x = calloc(1, sizeof(*x));
	pthread_attr_t attr;
	int rc;

	if (!x)
		return -ENOMEM;
	x->all = w;
	rc = -pthread_attr_init(&attr);
	if (!rc) {
		atomic_fetch_add(&w->refs, 1);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		rc = -pthread_create(&x->thread, &attr, worker_main, x);
		pthread_attr_destroy(&attr);
		if (rc)
			atomic_fetch_sub(&w->refs, 1);
	}
	if (rc) {
		free(x);
		return rc;
	}
	x->next = w->first;
	w->first = x;
	w->threads++;
	w->idle++;
	return 0;
}

/* Somebody must read the next request. Should no thread be had, the next one to be free does. Under
 * w->lock. */
static void start_another(struct workers *w)
{
	if (!w->idle && !w->over && w->threads < w->max)
		(void)start(w);
}

static uint32_t opcode_of(const struct fuse_buf *request)
{
	struct fuse_in_header head;

	memcpy(&head, request->mem, sizeof(head));
	return head.opcode;
}

/* Many come at once, and each is done at once: no reason for another thread. */
static bool is_forget(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

static bool may_commit(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_SETATTR:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_CREATE:
	case FUSE_WRITE:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_RELEASE:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_FALLOCATE:
		return true;
	default:
		return false;
	}
}

static void begin_call(struct workers *w, bool forget)
{
	pthread_mutex_lock(&w->lock);
	w->calls++;
	w->idle--;
	if (!forget)
		start_another(w);
	pthread_mutex_unlock(&w->lock);
}

static __attribute__((noinline)) void end_call(struct worker *x)
{
	struct workers *w = x->all;

	pthread_mutex_lock(&w->lock);
	w->calls--;
	x->held = !pthread_equal(x->thread, pthread_self());
	if (x->held) {
		w->threads--;
		start_another(w);
	} else {
		w->idle++;
	}
	if (w->over)
		pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* May end on another thread. */
static void serve(void *arg)
{
	struct worker *x = arg;

	fuse_session_process_buf(x->all->session, &x->request);
	end_call(x);
}

/* True: the thread goes on. One that was held up is back, and perhaps not needed any more. */
static bool is_wanted(struct worker *x)
{
	struct workers *w = x->all;
	bool wanted = true;

	pthread_mutex_lock(&w->lock);
	if (x->held) {
		wanted = !w->over && w->threads < w->max;
		w->threads += wanted;
		w->idle += wanted;
		x->held = !wanted;
	}
	pthread_mutex_unlock(&w->lock);
	return wanted;
}

static int read_and_serve(struct worker *x)
{
	struct workers *w = x->all;
	int n;

	while (!fuse_session_exited(w->session)) {
		n = fuse_session_receive_buf(w->session, &x->request);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			return n;
		begin_call(w, is_forget(opcode_of(&x->request)));
		if (may_commit(opcode_of(&x->request)))
			sop_volume_call(w->volume, serve, x);
		else
			serve(x);
		if (!is_wanted(x))
			break;
	}
	return 0;
}

static void *worker_main(void *arg)
{
	struct worker *x = arg, **p;
	struct workers *w = x->all;
	int rc = read_and_serve(x);

	pthread_mutex_lock(&w->lock);
	for (p = &w->first; *p != x; p = &(*p)->next)
		;
	*p = x->next;
	if (!x->held) {
		w->threads--;
		w->idle--;
		w->over = true;
		w->rc = w->rc ? w->rc : rc;
		fuse_session_exit(w->session);
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	free(x->request.mem);
	free(x);
	put(w);
	return NULL;
}

/* The session is over. Who waits for a request is told, until nobody does. Under w->lock. */
static void wait_for_all(struct workers *w)
{
	while (w->threads || w->calls) {
		struct timespec until;

		for (struct worker *x = w->first; x; x = x->next)
			if (!x->held)
				pthread_kill(x->thread, SOPFS_STOP_SIGNAL);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += NUDGE_MS * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&w->changed, &w->lock, &until);
	}
}

int sopfs_workers_run(struct fuse_session *se, struct sop_volume *v, unsigned threads_max)
{
	struct workers *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;
	int rc;

	if (!w)
		return -ENOMEM;
	w->session = se;
	w->volume = v;
	w->max = threads_max;
	atomic_init(&w->refs, 1);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_lock(&w->lock);
	rc = start(w);
	while (!rc && !w->over)
		pthread_cond_wait(&w->changed, &w->lock);
	wait_for_all(w);
	rc = rc ? rc : w->rc;
	pthread_mutex_unlock(&w->lock);
	fuse_session_reset(se);
	put(w);
	return rc;
}
