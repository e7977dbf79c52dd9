/* How a call changes threads.
 *
 * The call runs on a stack of its own (ucontext). For a batch it steps back to the stack of its
 * thread, which does the requests and steps in again. While the thread does them, the call stands
 * on a list, and whoever takes it off the list has it: its thread, when the requests are done; or
 * the watcher, who looks every 25 ms and takes what is at the same request as the last time, for a
 * new thread that steps into it. A thread that was away for long may find the call on the list
 * again, left there by another: it may take that as well. So a call is kept as long as threads that
 * hang may come back to it. */
#include "core/carry.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "core/io_internal.h"

#define LOOK_MS	    25
#define STACK_BYTES ((size_t)1 << 20) /* touched as far as it is used */
#define GUARD_BYTES ((size_t)64 << 10)
#define QUIET_LOOKS 40 /* without a turn between them: then the watcher sleeps */

struct call {
	struct sop_carriers *all;
	struct call *next_spare;
	void *stack;
	ucontext_t inside, thread; /* of the call; of the thread that stepped into it */
	void (*fn)(void *arg);
	void *arg;
	struct sop_batch *batch; /* why it stepped back; NULL: it has ended */
	bool stays;
	/* Under all->lock. */
	struct call *next, *prev; /* on the list */
	bool listed, ended;
	uint64_t turn;	    /* which time it is that it stands there, of all calls */
	uint64_t seen_turn; /* where it was when the watcher looked */
	unsigned seen_begun;
};

/* References: the owner, and each thread that has stepped into a call. */
struct sop_carriers {
	atomic_uint refs;
	struct sop_lock lock;
	pthread_cond_t wake;  /* the watcher */
	pthread_cond_t ended; /* a call, elsewhere than on its first thread */
	struct call *first;
	struct call *spare;
	uint64_t turns;
	bool watched, asleep, stop;
	pthread_t watcher;
};

static _Thread_local struct call *here;

/* Apart, so that no compiler keeps the variable's address over a change of threads. */
static __attribute__((noinline)) struct call *current(void)
{
	return here;
}

static __attribute__((noinline)) void set_current(struct call *c)
{
	here = c;
}

/* ---- stacks, references ---- */

static void call_free(struct call *c)
{
	if (!c)
		return;
	if (c->stack)
		munmap(c->stack, STACK_BYTES);
	free(c);
}

static void carriers_get(struct sop_carriers *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
}

static void carriers_put(struct sop_carriers *a)
{
	if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	while (a->spare) {
		struct call *c = a->spare;

		a->spare = c->next_spare;
		call_free(c);
	}
	pthread_cond_destroy(&a->wake);
	pthread_cond_destroy(&a->ended);
	sop_lock_release(&a->lock);
	free(a);
}

/* The outermost frame of the stack: one call after the other. */
static void outermost(void)
{
	for (;;) {
		struct call *c = current();

		c->fn(c->arg);
		c->batch = NULL;
		swapcontext(&c->inside, &c->thread);
	}
}

static int stack_init(struct call *c)
{
	void *p = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	c->stack = p;
	if (mprotect(p, GUARD_BYTES, PROT_NONE) || getcontext(&c->inside))
		return -ENOMEM;
	c->inside.uc_stack.ss_sp = p;
	c->inside.uc_stack.ss_size = STACK_BYTES;
	c->inside.uc_link = NULL;
	makecontext(&c->inside, outermost, 0);
	return 0;
}

static struct call *call_new(struct sop_carriers *a)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->all = a;
	if (!stack_init(c))
		return c;
	call_free(c);
	return NULL;
}

static struct call *call_get(struct sop_carriers *a)
{
	struct call *c;

	sop_lock(&a->lock);
	c = a->spare;
	if (c)
		a->spare = c->next_spare;
	sop_unlock(&a->lock);
	return c ? c : call_new(a);
}

static void call_put(struct call *c)
{
	SOP_LOCK_GUARD(&c->all->lock);
	c->next_spare = c->all->spare;
	c->all->spare = c;
}

/* ---- the list: under a->lock ---- */

static void list(struct call *c)
{
	struct sop_carriers *a = c->all;

	c->prev = NULL;
	c->next = a->first;
	if (c->next)
		c->next->prev = c;
	a->first = c;
	c->listed = true;
	c->turn = ++a->turns;
}

static void unlist(struct call *c)
{
	*(c->prev ? &c->prev->next : &c->all->first) = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->listed = false;
}

/* ---- on a thread ---- */

/* What the call has stepped back for. False: it has been taken meanwhile. */
static bool work(struct call *c)
{
	struct sop_carriers *a = c->all;
	struct sop_batch *b = c->batch;
	bool mine;

	sop_batch_get(b);
	sop_lock(&a->lock);
	list(c);
	if (a->asleep)
		pthread_cond_signal(&a->wake);
	sop_unlock(&a->lock);
	sop_batch_work(b);
	sop_lock(&a->lock);
	mine = c->listed;
	if (mine)
		unlist(c);
	sop_unlock(&a->lock);
	sop_batch_put(b);
	return mine;
}

/* True: the call has ended, on this thread. */
static bool go_on(struct call *c)
{
	do {
		set_current(c);
		swapcontext(&c->thread, &c->inside);
		set_current(NULL);
		if (!c->batch)
			return true;
	} while (work(c));
	return false;
}

static void *other_thread(void *arg)
{
	struct call *c = arg;
	struct sop_carriers *a = c->all;

	if (go_on(c)) {
		sop_lock(&a->lock);
		c->ended = true;
		pthread_cond_broadcast(&a->ended);
		sop_unlock(&a->lock);
	}
	carriers_put(a);
	return NULL;
}

/* ---- the watcher ---- */

/* Let another thread go on with it; when none can be had, at the next look. Under a->lock. */
static void take(struct call *c)
{
	pthread_attr_t attr;
	pthread_t thread;

	if (pthread_attr_init(&attr))
		return;
	unlist(c);
	carriers_get(c->all);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, (size_t)256 << 10);
	if (pthread_create(&thread, &attr, other_thread, c)) {
		list(c);
		carriers_put(c->all); /* not the last one */
	}
	pthread_attr_destroy(&attr);
}

static void look(struct sop_carriers *a)
{
	struct call *next;

	for (struct call *c = a->first; c; c = next) {
		unsigned at = sop_batch_begun(c->batch);

		next = c->next;
		if (c->seen_turn == c->turn && c->seen_begun == at)
			take(c);
		c->seen_turn = c->turn;
		c->seen_begun = at;
	}
}

static void *watch(void *arg)
{
	struct sop_carriers *a = arg;
	uint64_t turns = 0;
	unsigned quiet = 0;

	pthread_setname_np(pthread_self(), "sop-watcher");
	sop_lock(&a->lock);
	while (!a->stop) {
		a->asleep = quiet >= QUIET_LOOKS && !a->first;
		sop_cond_wait(&a->wake, &a->lock, a->asleep ? -1 : LOOK_MS);
		quiet = a->turns == turns ? quiet + 1 : 0;
		turns = a->turns;
		look(a);
	}
	sop_unlock(&a->lock);
	return NULL;
}

/* ---- the calls of the header ---- */

struct sop_carriers *sop_carriers_new(void)
{
	struct sop_carriers *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	atomic_init(&a->refs, 1);
	sop_lock_init(&a->lock, SOP_RANK_LEAF, "carriers");
	sop_cond_init(&a->wake);
	sop_cond_init(&a->ended);
	return a;
}

void sop_carriers_free(struct sop_carriers *a)
{
	if (!a)
		return;
	sop_lock(&a->lock);
	a->stop = true;
	pthread_cond_signal(&a->wake);
	sop_unlock(&a->lock);
	if (a->watched)
		pthread_join(a->watcher, NULL);
	carriers_put(a);
}

/* They follow a thread's stack, not a call's. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SOP_DEBUG_LOCKS)
#define PLAIN_CALLS true
#else
#define PLAIN_CALLS false
#endif

/* The watcher comes with the first call. */
static bool is_watched(struct sop_carriers *a)
{
	SOP_LOCK_GUARD(&a->lock);
	if (!a->watched)
		a->watched = pthread_create(&a->watcher, NULL, watch, a) == 0;
	return a->watched;
}

void sop_carry(struct sop_carriers *a, void (*fn)(void *arg), void *arg)
{
	struct call *c = PLAIN_CALLS || current() || !a || !is_watched(a) ? NULL : call_get(a);

	if (!c) {
		fn(arg);
		return;
	}
	carriers_get(a);
	c->fn = fn;
	c->arg = arg;
	c->stays = c->ended = false;
	if (!go_on(c)) {
		sop_lock(&a->lock);
		while (!c->ended)
			sop_cond_wait(&a->ended, &a->lock, -1);
		sop_unlock(&a->lock);
	}
	call_put(c);
	carriers_put(a);
}

void sop_carry_stay(void)
{
	struct call *c = current();

	if (c)
		c->stays = true;
}

bool sop_carry_batch(struct sop_batch *b)
{
	struct call *c = current();

	if (!c || c->stays)
		return false;
	c->batch = b;
	swapcontext(&c->inside, &c->thread);
	return true;
}
