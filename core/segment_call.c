/* Calls on disks with a bound on the wait.
 *
 * A device that hangs would hold up whoever opens or removes a file on it. So such calls run on a
 * detached thread, which shares the list of calls with the caller; the last of the two frees it. A
 * call that comes to its bound is marked LATE, and its thread, once the device lets go of it,
 * disposes of the result and ends; the calls behind it are taken over by a new thread. They are
 * rare (a segment is hundreds of megabytes), so that making a thread each time costs nothing that
 * can be measured. */
#include "core/segment_int.h"

#include "core/patience.h"

#define STACK_BYTES (256u << 10)

struct sop_calls *sop_calls_new(size_t n)
{
	struct sop_calls *c = calloc(1, sizeof(*c) + n * sizeof(c->call[0]));

	if (!c)
		return NULL;
	sop_lock_init(&c->lock, SOP_RANK_LEAF, "calls");
	sop_cond_init(&c->changed);
	c->refs = 1;
	c->n = n;
	return c;
}

static void let_go(struct sop_call *call)
{
	if (call->file)
		call->file->ops->file_close(call->file);
	sop_disk_close(call->held);
	call->file = NULL;
	call->held = NULL;
}

static void calls_free(struct sop_calls *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->call[i].ids);
		free(c->call[i].range);
		let_go(&c->call[i]);
	}
	pthread_cond_destroy(&c->changed);
	sop_lock_release(&c->lock);
	free(c);
}

void sop_calls_put(struct sop_calls *c)
{
	unsigned left;

	if (!c)
		return;
	sop_lock(&c->lock);
	left = --c->refs;
	sop_unlock(&c->lock);
	if (!left)
		calls_free(c);
}

/* Take calls until none is left or one of ours was given up. */
static void work(struct sop_calls *c)
{
	bool late = false;

	sop_lock(&c->lock);
	while (!late && c->next < c->n) {
		struct sop_call *call = &c->call[c->next++];
		int rc;

		if (call->state == SOP_CALL_LATE)
			continue;
		call->state = SOP_CALL_RUNS;
		sop_unlock(&c->lock);
		rc = call->disk ? call->fn(call) : -ENODEV;
		/* Before the caller goes on: it may be about to close the disks. */
		let_go(call);
		sop_lock(&c->lock);
		late = call->state == SOP_CALL_LATE;
		if (!late) {
			call->rc = rc;
			call->state = SOP_CALL_DONE;
			pthread_cond_broadcast(&c->changed);
		} else if (!rc && call->opened) {
			call->opened->ops->file_close(call->opened);
		}
	}
	sop_unlock(&c->lock);
}

static void *thread_main(void *arg)
{
	work(arg);
	sop_calls_put(arg);
	return NULL;
}

static bool thread_start(struct sop_calls *c)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool ok;

	sop_lock(&c->lock);
	c->refs++;
	sop_unlock(&c->lock);
	ok = !pthread_attr_init(&attr);
	if (ok) {
		ok = !pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) &&
		     !pthread_attr_setstacksize(&attr, STACK_BYTES) &&
		     !pthread_create(&thread, &attr, thread_main, c);
		pthread_attr_destroy(&attr);
	}
	if (!ok)
		sop_calls_put(c);
	return ok;
}

/* True when it ended in time. */
static bool wait_for(struct sop_calls *c, struct sop_call *call, struct sop_patience *p)
{
	uint64_t ms;
	bool done;

	sop_lock(&c->lock);
	while (call->state != SOP_CALL_DONE && (ms = sop_patience_slice(p)))
		sop_cond_wait(&c->changed, &c->lock, (long)ms);
	done = call->state == SOP_CALL_DONE;
	if (!done) {
		/* One that no thread got to is withdrawn the same way. */
		call->state = SOP_CALL_LATE;
		call->rc = -ETIMEDOUT;
	}
	sop_unlock(&c->lock);
	return done;
}

void sop_calls_run(struct sop_calls *c, bool parallel, unsigned wait_ms)
{
	struct sop_patience p;
	size_t threads = 0;

	if (!c->n)
		return;
	for (size_t i = 0; i < c->n; i++) {
		c->call[i].held = c->call[i].disk;
		if (c->call[i].held)
			sop_disk_get(c->call[i].held);
	}
	while (threads < (parallel ? c->n : 1) && thread_start(c))
		threads++;
	/* Without a single thread to be had, an unbounded call is better than none. */
	if (!threads)
		work(c);
	p = sop_patience(wait_ms);
	for (size_t i = 0; i < c->n; i++) {
		/* Those that were begun at once have had the same time. */
		if (threads < c->n)
			p = sop_patience(wait_ms);
		if (wait_for(c, &c->call[i], &p))
			continue;
		if (!thread_start(c))
			work(c);
	}
}
