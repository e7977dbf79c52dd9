/* How a batch runs on the pool.
 *
 * A batch that wants threads stands in the pool's queue with the number it still wants. A thread
 * takes a batch, does requests of it as long as there are any that nobody has begun, and comes
 * back. So a SERIAL batch wants one thread and a PARALLEL one as many as it has requests, and "the
 * rest is taken over" means to want more.
 *
 * The owner sleeps until what it needs has ended. When it gives up, it takes the batch out of the
 * queue and marks all requests as begun: nothing starts any more, and what is under way holds the
 * batch (its memory) and the files by references. A thread that hangs in a device is lost to the
 * pool; when threads hang and a batch waits for one, the pool grows beyond its bound by the number
 * that hang. */
#include "core/io_internal.h"

#include <stdio.h>
#include <time.h>

/* A SERIAL batch without progress for so long hands what it has not begun to other threads. */
#define SLOW_MS 25
/* A thread in one request for longer than this does not count against the bound. */
#define HANGS_MS	 1000
#define HANGING_MAX	 512
#define FREE_BATCHES_MAX 64
#define STACK_BYTES	 ((size_t)256 << 10)

struct worker {
	struct worker *next, *prev; /* under pool->lock */
	_Atomic uint64_t since_ms;  /* when its request began; 0: none runs */
};

/* References: the owner, each thread, each batch. */
struct sop_iopool {
	atomic_uint refs;
	bool is_inline;
	unsigned threads_max;
	struct sop_uring *uring; /* NULL: threads do it all */
	struct sop_iomem mem;

	struct sop_lock lock;
	pthread_cond_t work;
	pthread_cond_t gone;			   /* the last thread went */
	struct sop_batch *queue_head, *queue_tail; /* under lock */
	unsigned wanted;			   /* under lock: sum over the queue */
	unsigned threads, idle;			   /* under lock */
	struct worker *workers;			   /* under lock */
	bool stop;				   /* under lock */
	struct sop_batch *free_batches;		   /* under lock */
	unsigned free_batches_n;		   /* under lock */
};

uint64_t sop_io_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* --- one request --------------------------------------------------------------------------------
 */

static int transfer_result(ssize_t n, uint64_t len_bytes, int short_rc)
{
	if (n < 0)
		return (int)n;
	return (uint64_t)n == len_bytes ? 0 : short_rc;
}

static int execute(struct sop_request *r)
{
	struct sop_file *f = r->file;
	int rc;

	switch (r->op) {
	case SOP_IO_READ:
	case SOP_IO_READ_ON:
		/* A ring that had to give up may have brought some of it. */
		rc = transfer_result(f->ops->preadv(f, r->iov, r->iovcnt, r->off + r->done_bytes),
			r->len_bytes - r->done_bytes, -ENODATA);
		if (!rc && r->op == SOP_IO_READ_ON && f->ops->read_ahead)
			f->ops->read_ahead(f, r->off + r->len_bytes, r->len_bytes);
		return rc;
	case SOP_IO_WRITE:
	case SOP_IO_WRITE_OUT:
		rc = transfer_result(
			f->ops->pwritev(f, r->iov, r->iovcnt, r->off), r->len_bytes, -EIO);
		if (!rc && r->op == SOP_IO_WRITE_OUT && f->ops->write_out)
			f->ops->write_out(f, r->off, r->len_bytes);
		return rc;
	case SOP_IO_DATASYNC:
		return f->ops->datasync(f);
	}
	return -EINVAL;
}

/* Is what the owner waits for there? Under b->lock. */
static bool is_finished(const struct sop_batch *b)
{
	return b->ended == b->n || (b->early && b->need && b->ok >= b->need);
}

void sop_request_end(struct sop_batch *b, unsigned index, int rc)
{
	bool finished;

	/* A code that is no error would count as success and then not be one. */
	if (rc > 0)
		rc = -EIO;
	atomic_store_explicit(&b->requests[index].rc, rc, memory_order_release);
	sop_lock(&b->lock);
	b->ended++;
	b->ok += rc == 0;
	finished = is_finished(b);
	sop_unlock(&b->lock);
	/* The caller holds the batch, so the condition is still there. */
	if (finished)
		pthread_cond_signal(&b->finished);
}

/* --- threads ------------------------------------------------------------------------------------
 */

static void pool_put(struct sop_iopool *p)
{
	if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return;
	while (p->free_batches) {
		struct sop_batch *b = p->free_batches;

		p->free_batches = b->next_free;
		pthread_cond_destroy(&b->finished);
		sop_lock_release(&b->lock);
		free(b);
	}
	sop_iomem_release(&p->mem);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->gone);
	sop_lock_release(&p->lock);
	free(p);
}

/* Under p->lock. */
static void queue_remove(struct sop_iopool *p, struct sop_batch *b)
{
	*(b->queue_prev ? &b->queue_prev->queue_next : &p->queue_head) = b->queue_next;
	*(b->queue_next ? &b->queue_next->queue_prev : &p->queue_tail) = b->queue_prev;
	p->wanted -= b->wanted;
	b->wanted = 0;
}

/* Under p->lock. */
static void queue_append(struct sop_iopool *p, struct sop_batch *b, unsigned wanted)
{
	if (!b->wanted) {
		b->queue_next = NULL;
		b->queue_prev = p->queue_tail;
		*(p->queue_tail ? &p->queue_tail->queue_next : &p->queue_head) = b;
		p->queue_tail = b;
	}
	b->wanted += wanted;
	p->wanted += wanted;
}

/* A batch that wants a thread, held; NULL when the pool stops. Under p->lock. */
static struct sop_batch *queue_take(struct sop_iopool *p)
{
	struct sop_batch *b;

	while (!p->queue_head) {
		if (p->stop)
			return NULL;
		p->idle++;
		sop_cond_wait(&p->work, &p->lock, -1);
		p->idle--;
	}
	b = p->queue_head;
	if (b->wanted == 1) {
		queue_remove(p, b);
	} else {
		b->wanted--;
		p->wanted--;
	}
	sop_batch_get(b);
	return b;
}

/* Do requests that nobody has begun until there are none. */
static void work_on(struct sop_batch *b, struct worker *w)
{
	unsigned i;

	while ((i = atomic_fetch_add_explicit(&b->next, 1, memory_order_acq_rel)) < b->n) {
		int rc;

		atomic_store_explicit(&w->since_ms, sop_io_now_ms(), memory_order_relaxed);
		rc = execute(&b->requests[i]);
		atomic_store_explicit(&w->since_ms, 0, memory_order_relaxed);
		sop_request_end(b, i, rc);
	}
}

static void *thread_main(void *arg)
{
	struct sop_iopool *p = arg;
	struct worker w = {0};
	struct sop_batch *b;

	sop_lock(&p->lock);
	w.next = p->workers;
	if (w.next)
		w.next->prev = &w;
	p->workers = &w;
	while ((b = queue_take(p))) {
		sop_unlock(&p->lock);
		work_on(b, &w);
		sop_batch_put(b);
		sop_lock(&p->lock);
	}
	*(w.prev ? &w.prev->next : &p->workers) = w.next;
	if (w.next)
		w.next->prev = w.prev;
	if (--p->threads == 0)
		pthread_cond_broadcast(&p->gone);
	sop_unlock(&p->lock);
	pool_put(p);
	return NULL;
}

/* Start a thread that p->threads already counts. */
static int start_thread(struct sop_iopool *p)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc = pthread_attr_init(&attr);

	if (!rc) {
		atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		pthread_attr_setstacksize(&attr, STACK_BYTES);
		rc = pthread_create(&thread, &attr, thread_main, p);
		pthread_attr_destroy(&attr);
	}
	if (!rc)
		return 0;
	/* The others do the work, later; the first thread is made with the pool. */
	sop_lock(&p->lock);
	if (--p->threads == 0)
		pthread_cond_broadcast(&p->gone);
	sop_unlock(&p->lock);
	pool_put(p);
	return -rc;
}

/* How many threads to start for what the queue wants, counted as started. Under p->lock. */
static unsigned count_missing(struct sop_iopool *p, unsigned hanging)
{
	unsigned max = p->threads_max + hanging, n;

	if (p->wanted <= p->idle || p->threads >= max)
		return 0;
	n = SOP_MIN(p->wanted - p->idle, max - p->threads);
	p->threads += n;
	return n;
}

/* The error is no news to the batch: it waits for the threads there are. */
static void start_threads(struct sop_iopool *p, unsigned n)
{
	while (n--)
		(void)start_thread(p);
}

static void want_threads(struct sop_batch *b, unsigned n)
{
	struct sop_iopool *p = b->pool;
	unsigned wake, start;

	sop_lock(&p->lock);
	queue_append(p, b, n);
	wake = SOP_MIN(n, p->idle);
	start = count_missing(p, 0);
	sop_unlock(&p->lock);
	while (wake--)
		pthread_cond_signal(&p->work);
	start_threads(p, start);
}

/* A batch has waited for a while: when it waits for a thread because threads hang, start others. */
static void replace_hanging(struct sop_batch *b)
{
	struct sop_iopool *p = b->pool;
	uint64_t now = sop_io_now_ms();
	unsigned hanging = 0, start = 0;

	sop_lock(&p->lock);
	if (b->wanted) {
		for (struct worker *w = p->workers; w; w = w->next) {
			uint64_t since = atomic_load_explicit(&w->since_ms, memory_order_relaxed);

			hanging += since && since + HANGS_MS <= now;
		}
		start = count_missing(p, SOP_MIN(hanging, HANGING_MAX));
	}
	sop_unlock(&p->lock);
	start_threads(p, start);
}

/* --- pools --------------------------------------------------------------------------------------
 */

static struct sop_iopool *pool_alloc(void)
{
	struct sop_iopool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	sop_iomem_init(&p->mem);
	sop_lock_init(&p->lock, SOP_RANK_IO, "iopool");
	sop_cond_init(&p->work);
	sop_cond_init(&p->gone);
	return p;
}

int sop_iopool_new_inline(struct sop_iopool **out, struct sop_err *e)
{
	struct sop_iopool *p = pool_alloc();

	if (!p)
		return sop_fail(e, -ENOMEM, "I/O pool");
	p->is_inline = true;
	*out = p;
	return 0;
}

int sop_iopool_new(struct sop_iopool **out, const struct sop_iopool_opts *o, struct sop_err *e)
{
	struct sop_iopool *p = pool_alloc();
	int rc;

	if (!p)
		return sop_fail(e, -ENOMEM, "I/O pool");
	p->threads_max = o->threads_max ? o->threads_max : 2 * o->disks + 4;
	p->threads = 1;
	rc = start_thread(p);
	if (rc) {
		pool_put(p);
		return sop_fail(e, rc, "I/O pool: first thread");
	}
	if (!o->no_uring)
		p->uring = sop_uring_new();
	*out = p;
	return 0;
}

void sop_iopool_free(struct sop_iopool *p, unsigned wait_ms)
{
	uint64_t until = sop_io_now_ms() + wait_ms, now;

	if (!p)
		return;
	sop_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	while (p->threads && (now = sop_io_now_ms()) < until)
		sop_cond_wait(&p->gone, &p->lock, (long)(until - now));
	sop_unlock(&p->lock);
	if (p->uring) {
		now = sop_io_now_ms();
		sop_uring_free(p->uring, now < until ? (unsigned)(until - now) : 0);
	}
	pool_put(p);
}

void sop_iopool_bulk_begin(struct sop_iopool *p)
{
	sop_iomem_bulk_begin(&p->mem);
}

void sop_iopool_bulk_end(struct sop_iopool *p)
{
	sop_iomem_bulk_end(&p->mem);
}

/* --- batches ------------------------------------------------------------------------------------
 */

static struct sop_batch *batch_alloc(void)
{
	struct sop_batch *b = sop_alloc_aligned(sizeof(*b));

	if (!b)
		return NULL;
	/* The requests and the room are filled as they are used. */
	memset(b, 0, offsetof(struct sop_batch, first));
	sop_lock_init(&b->lock, SOP_RANK_IO, "batch");
	sop_cond_init(&b->finished);
	return b;
}

struct sop_batch *sop_batch_new(struct sop_iopool *p)
{
	struct sop_batch *b;

	sop_lock(&p->lock);
	b = p->free_batches;
	if (b) {
		p->free_batches = b->next_free;
		p->free_batches_n--;
	}
	sop_unlock(&p->lock);
	if (!b)
		b = batch_alloc();
	if (!b)
		return NULL;
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	b->pool = p;
	atomic_store_explicit(&b->refs, 1, memory_order_relaxed);
	b->requests = b->first;
	b->n = 0;
	b->capacity = SOP_BATCH_FIRST;
	b->need = 0;
	b->ran = b->awaited = false;
	b->n_held = 0;
	atomic_store_explicit(&b->next, 0, memory_order_relaxed);
	b->ended = b->ok = 0;
	b->early = false;
	b->room = b->first_room;
	b->room_bytes = sizeof(b->first_room);
	return b;
}

void sop_batch_put(struct sop_batch *b)
{
	struct sop_iopool *p;
	bool keep;

	if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	assert(!b->awaited);
	p = b->pool;
	for (unsigned i = 0; i < b->n_held; i++)
		sop_batch_put(b->held[i]);
	for (unsigned i = 0; i < b->n; i++)
		b->requests[i].file->ops->file_close(b->requests[i].file);
	if (b->requests != b->first)
		free(b->requests);
	while (b->buffers) {
		struct sop_iobuf *buf = b->buffers;

		b->buffers = buf->next;
		sop_iomem_put(&p->mem, buf);
	}
	sop_lock(&p->lock);
	keep = p->free_batches_n < FREE_BATCHES_MAX;
	if (keep) {
		b->next_free = p->free_batches;
		p->free_batches = b;
		p->free_batches_n++;
	}
	sop_unlock(&p->lock);
	if (!keep) {
		pthread_cond_destroy(&b->finished);
		sop_lock_release(&b->lock);
		free(b);
	}
	pool_put(p);
}

void *sop_batch_alloc(struct sop_batch *b, size_t len_bytes)
{
	struct sop_iobuf *buf;
	uint64_t len;
	void *out;

	if (sop_add_over(&len, len_bytes, 63) || len > PTRDIFF_MAX)
		return NULL;
	len = len / 64 * 64;
	if (len <= b->room_bytes) {
		out = b->room;
		b->room += len;
		b->room_bytes -= len;
		return out;
	}
	buf = sop_iomem_get(&b->pool->mem, len);
	if (!buf)
		return NULL;
	buf->next = b->buffers;
	b->buffers = buf;
	/* What a small piece leaves of a new block is room for the next ones. */
	if (buf->len_bytes - len > b->room_bytes) {
		b->room = (uint8_t *)buf->data + len;
		b->room_bytes = buf->len_bytes - len;
	}
	return buf->data;
}

void *sop_io_zeros(void)
{
	static uint8_t zeros[SOP_IO_ZEROS];

	return zeros;
}

/* Room for one request more. */
static bool batch_grow(struct sop_batch *b)
{
	struct sop_request *grown;
	size_t len_bytes = b->n * sizeof(grown[0]);

	if (b->n < b->capacity)
		return true;
	/* An index is an int. */
	if (b->capacity > INT32_MAX / 2)
		return false;
	grown = malloc(2 * len_bytes);
	if (!grown)
		return false;
	memcpy(grown, b->requests, len_bytes);
	if (b->requests != b->first)
		free(b->requests);
	b->requests = grown;
	b->capacity *= 2;
	return true;
}

int sop_batch_add(struct sop_batch *b, enum sop_io_op op, struct sop_file *f,
	const struct iovec *iov, int iovcnt, uint64_t off)
{
	struct sop_request *r;
	struct iovec *copy = NULL;

	assert(!b->ran && iovcnt >= 0);
	if (iovcnt) {
		copy = sop_batch_alloc(b, (size_t)iovcnt * sizeof(*iov));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, iov, (size_t)iovcnt * sizeof(*iov));
	}
	if (!batch_grow(b))
		return -ENOMEM;
	r = &b->requests[b->n];
	r->op = op;
	r->file = f;
	r->iov = copy;
	r->iovcnt = iovcnt;
	r->off = off;
	r->len_bytes = 0;
	for (int i = 0; i < iovcnt; i++)
		r->len_bytes += iov[i].iov_len;
	r->done_bytes = 0;
	atomic_init(&r->rc, SOP_REQUEST_PENDING);
	r->result = -EINPROGRESS;
	sop_file_get(f);
	return (int)b->n++;
}

/* Take the results as they are now, for good. The number that succeeded. */
static int settle(struct sop_batch *b)
{
	int ok = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct sop_request *r = &b->requests[i];
		int rc = atomic_load_explicit(&r->rc, memory_order_acquire);

		r->result = rc == SOP_REQUEST_PENDING ? -ETIMEDOUT : rc;
		ok += rc == 0;
	}
	return ok;
}

/* Nothing begins from here on. */
static void withdraw(struct sop_batch *b)
{
	struct sop_iopool *p = b->pool;

	atomic_store_explicit(&b->next, b->n, memory_order_release);
	sop_lock(&p->lock);
	if (b->wanted)
		queue_remove(p, b);
	sop_unlock(&p->lock);
}

/* Another 25 ms without a request ending: see to it that the rest gets on. */
static void help_slow(struct sop_batch *b)
{
	unsigned next = atomic_load_explicit(&b->next, memory_order_acquire);
	bool first = !b->early;

	sop_lock(&b->lock);
	b->early = true;
	sop_unlock(&b->lock);
	if (first && next < b->n)
		want_threads(b, b->n - next);
	else
		replace_hanging(b);
}

static void wait_for(struct sop_batch *b, unsigned timeout_ms)
{
	struct sop_patience patience = sop_patience(timeout_ms);
	unsigned seen = 0;

	sop_lock(&b->lock);
	while (!is_finished(b)) {
		long wait_ms = SLOW_MS;
		bool idle;

		if (timeout_ms) {
			uint64_t slice = sop_patience_slice(&patience);

			if (!slice)
				break;
			wait_ms = (long)SOP_MIN(slice, (uint64_t)SLOW_MS);
		}
		idle = !sop_cond_wait(&b->finished, &b->lock, wait_ms) && b->ended == seen;
		seen = b->ended;
		if (idle && !is_finished(b)) {
			sop_unlock(&b->lock);
			help_slow(b);
			sop_lock(&b->lock);
		}
	}
	sop_unlock(&b->lock);
}

static bool fits_uring(const struct sop_batch *b)
{
	if (!b->pool->uring)
		return false;
	for (unsigned i = 0; i < b->n; i++)
		if (b->requests[i].op != SOP_IO_READ || b->requests[i].file->fd < 0)
			return false;
	return true;
}

static void run_inline(struct sop_batch *b)
{
	for (unsigned i = 0; i < b->n; i++)
		sop_request_end(b, i, execute(&b->requests[i]));
}

int sop_batch_run(struct sop_batch *b, enum sop_io_how how, unsigned need, unsigned timeout_ms)
{
	assert(!b->ran);
	b->ran = true;
	b->need = need;
	b->early = how == SOP_IO_PARALLEL;
	if (!b->n)
		return 0;
	if (b->pool->is_inline) {
		run_inline(b);
		return settle(b);
	}
	if (how == SOP_IO_PARALLEL && fits_uring(b) && sop_uring_run(b->pool->uring, b, timeout_ms))
		return settle(b);
	want_threads(b, how == SOP_IO_PARALLEL ? b->n : 1);
	wait_for(b, timeout_ms);
	withdraw(b);
	return settle(b);
}

void sop_batch_start(struct sop_batch *b)
{
	assert(!b->ran);
	b->ran = b->awaited = true;
	b->need = 0;
	b->early = true;
	if (b->pool->is_inline)
		run_inline(b);
	else if (b->n)
		want_threads(b, b->n);
}

int sop_batch_wait(struct sop_batch *b, unsigned timeout_ms)
{
	assert(b->awaited);
	b->awaited = false;
	if (b->n && !b->pool->is_inline) {
		wait_for(b, timeout_ms);
		withdraw(b);
	}
	return settle(b);
}

void sop_batch_hold(struct sop_batch *b, struct sop_batch *of)
{
	assert(!b->ran && b->n_held < SOP_BATCH_HOLDS && !of->n_held);
	sop_batch_get(of);
	b->held[b->n_held++] = of;
}

int sop_batch_result(const struct sop_batch *b, int index)
{
	assert(b->ran && index >= 0 && (unsigned)index < b->n);
	return b->requests[index].result;
}
