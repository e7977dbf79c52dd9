#include "core/errand.h"

#include <pthread.h>

#include "core/lock.h"
#include "core/patience.h"

/* The errands of one run share a group: its lock covers `done` and `refs` of each. The group goes
 * with its last errand. */
struct sop_errand_group {
	struct sop_lock lock;
	pthread_cond_t ended;
	size_t waiting; /* errands that have not ended */
	size_t refs;	/* errands that exist */
};

void sop_errand_init(struct sop_errand *x, void (*run)(struct sop_errand *self),
	void (*release)(struct sop_errand *self))
{
	*x = (struct sop_errand){.run = run, .release = release, .refs = 1};
}

void sop_errand_put(struct sop_errand *x)
{
	struct sop_errand_group *g;
	bool last, last_of_group;

	if (!x)
		return;
	g = x->group;
	if (!g) { /* never run on a thread: nobody else knows it */
		x->release(x);
		return;
	}
	sop_lock(&g->lock);
	last = --x->refs == 0;
	last_of_group = last && --g->refs == 0;
	sop_unlock(&g->lock);
	if (last)
		x->release(x);
	if (last_of_group) {
		pthread_cond_destroy(&g->ended);
		sop_lock_release(&g->lock);
		free(g);
	}
}

bool sop_errand_over(struct sop_errand *x)
{
	if (!x->group)
		return x->finished;
	SOP_LOCK_GUARD(&x->group->lock);
	return x->done;
}

static void *errand_thread(void *arg)
{
	struct sop_errand *x = arg;
	struct sop_errand_group *g = x->group;

	x->run(x);
	sop_lock(&g->lock);
	x->done = true;
	if (--g->waiting == 0)
		pthread_cond_broadcast(&g->ended);
	sop_unlock(&g->lock);
	sop_errand_put(x);
	return NULL;
}

/* With no thread to be had the errand runs here: late perhaps, but a healthy disk must not be taken
 * for a dead one because memory is short. */
static void start(struct sop_errand *x, const pthread_attr_t *attr)
{
	pthread_t thread;

	if (pthread_create(&thread, attr, errand_thread, x) != 0)
		errand_thread(x);
}

static void wait_for(struct sop_errand_group *g, unsigned timeout_ms)
{
	struct sop_patience p = sop_patience(timeout_ms);
	uint64_t ms;

	while (g->waiting && (ms = sop_patience_slice(&p)))
		sop_cond_wait(&g->ended, &g->lock, (long)ms);
}

static struct sop_errand_group *group_new(struct sop_errand *const *list, size_t n)
{
	struct sop_errand_group *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	sop_lock_init(&g->lock, SOP_RANK_LEAF, "errands");
	sop_cond_init(&g->ended);
	g->waiting = g->refs = n;
	for (size_t i = 0; i < n; i++) {
		list[i]->group = g;
		list[i]->refs = 2; /* its owner's and its thread's */
	}
	return g;
}

void sop_errands_run(struct sop_errand *const *list, size_t n, bool on_threads, unsigned timeout_ms)
{
	struct sop_errand_group *g = on_threads && n ? group_new(list, n) : NULL;
	pthread_attr_t attr;

	if (!g) {
		for (size_t i = 0; i < n; i++) {
			list[i]->run(list[i]);
			list[i]->finished = true;
		}
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (size_t i = 0; i < n; i++)
		start(list[i], &attr);
	pthread_attr_destroy(&attr);
	sop_lock(&g->lock);
	wait_for(g, timeout_ms);
	for (size_t i = 0; i < n; i++)
		list[i]->finished = list[i]->done;
	sop_unlock(&g->lock);
}
