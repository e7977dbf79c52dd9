/* Reads of one batch on one ring, from the owner's thread: all are submitted at once, then the
 * owner waits in the kernel. A device that hangs holds up the request inside the kernel, not the
 * thread.
 *
 * A ring with requests under way when the owner leaves is put aside with a reference to the batch.
 * Later runs look at the rings put aside, and reuse those that have come to an end. */
#include "core/io_internal.h"

#include <liburing.h>

#define DEPTH	  64
#define RINGS_MAX 64
#define RETRIES	  16

struct ring {
	struct ring *next;
	struct io_uring io;
	struct sop_batch *batch; /* held, while it is put aside */
	unsigned in_flight;
	unsigned retries;
	bool broken; /* holds requests that could not be submitted: not to be used again */
};

struct sop_uring {
	struct sop_lock lock;
	struct ring *idle;  /* under lock */
	struct ring *aside; /* under lock */
	unsigned rings;	    /* under lock */
	bool any_aside;	    /* under lock */
};

/* Rings whose requests hang in a device when the pool goes. Their memory must stay; a list keeps
 * leak checkers informed. */
static _Atomic(struct ring *) left_behind;

static struct ring *ring_new(void)
{
	struct ring *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	if (io_uring_queue_init(DEPTH, &r->io, 0)) {
		free(r);
		return NULL;
	}
	/* Waits with a bound need it; kernels without it (before 5.11) get threads. */
	if (!(r->io.features & IORING_FEAT_EXT_ARG)) {
		io_uring_queue_exit(&r->io);
		free(r);
		return NULL;
	}
	return r;
}

static void ring_free(struct ring *r)
{
	io_uring_queue_exit(&r->io);
	free(r);
}

struct sop_uring *sop_uring_new(void)
{
	struct sop_uring *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->idle = ring_new();
	if (!u->idle) {
		free(u);
		return NULL;
	}
	u->rings = 1;
	sop_lock_init(&u->lock, SOP_RANK_IO, "uring");
	return u;
}

static struct ring *ring_get(struct sop_uring *u)
{
	struct ring *r;

	sop_lock(&u->lock);
	r = u->idle;
	if (r)
		u->idle = r->next;
	else if (u->rings < RINGS_MAX)
		u->rings++;
	else {
		sop_unlock(&u->lock);
		return NULL;
	}
	sop_unlock(&u->lock);
	if (!r)
		r = ring_new();
	if (!r) {
		sop_lock(&u->lock);
		u->rings--;
		sop_unlock(&u->lock);
		return NULL;
	}
	r->retries = 0;
	return r;
}

/* Nothing is in flight on r. */
static void ring_put(struct sop_uring *u, struct ring *r)
{
	bool keep = !r->broken;

	sop_lock(&u->lock);
	if (keep) {
		r->next = u->idle;
		u->idle = r;
	} else {
		u->rings--;
	}
	sop_unlock(&u->lock);
	if (!keep)
		ring_free(r);
}

/* Drop what has ended on a ring put aside; true when that was all. */
static bool ring_drain(struct ring *r)
{
	struct io_uring_cqe *cqe;

	while (r->in_flight && !io_uring_peek_cqe(&r->io, &cqe)) {
		io_uring_cqe_seen(&r->io, cqe);
		r->in_flight--;
	}
	return !r->in_flight;
}

static void put_aside(struct sop_uring *u, struct ring *r)
{
	sop_lock(&u->lock);
	r->next = u->aside;
	u->aside = r;
	sop_unlock(&u->lock);
}

/* Bring back rings that have come to an end. */
static void reap(struct sop_uring *u)
{
	struct ring *all, *r;

	sop_lock(&u->lock);
	all = u->aside;
	u->aside = NULL;
	sop_unlock(&u->lock);
	while ((r = all)) {
		all = r->next;
		if (ring_drain(r)) {
			sop_batch_put(r->batch);
			r->batch = NULL;
			ring_put(u, r);
		} else {
			put_aside(u, r);
		}
	}
}

static struct __kernel_timespec timespec_of(uint64_t ms)
{
	return (struct __kernel_timespec){
		.tv_sec = (long long)(ms / 1000), .tv_nsec = (long long)(ms % 1000) * 1000000};
}

void sop_uring_free(struct sop_uring *u, unsigned wait_ms)
{
	uint64_t until = sop_io_now_ms() + wait_ms;
	struct ring *r;

	while ((r = u->aside)) {
		u->aside = r->next;
		while (!ring_drain(r)) {
			uint64_t now = sop_io_now_ms();
			struct __kernel_timespec ts;
			struct io_uring_cqe *cqe;

			if (now >= until)
				break;
			ts = timespec_of(until - now);
			/* The loop looks at what there is and at the time: the result adds nothing.
			 */
			(void)io_uring_wait_cqe_timeout(&r->io, &cqe, &ts);
		}
		if (r->in_flight) {
			r->next = atomic_load(&left_behind);
			while (!atomic_compare_exchange_weak(&left_behind, &r->next, r))
				;
			continue;
		}
		sop_batch_put(r->batch);
		ring_free(r);
	}
	while ((r = u->idle)) {
		u->idle = r->next;
		ring_free(r);
	}
	sop_lock_release(&u->lock);
	free(u);
}

static void submit_read(struct ring *ring, struct sop_batch *b, unsigned index)
{
	struct sop_request *r = &b->requests[index];
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->io);

	/* There is an entry for each request in flight. */
	assert(sqe);
	io_uring_prep_readv(sqe, r->file->fd, r->iov, (unsigned)r->iovcnt, r->off + r->done_bytes);
	io_uring_sqe_set_data64(sqe, index);
	ring->in_flight++;
}

/* Skip n bytes at the front of the request's vector. */
static void skip_bytes(struct sop_request *r, size_t n)
{
	r->done_bytes += n;
	while (r->iovcnt && n >= r->iov[0].iov_len) {
		n -= r->iov[0].iov_len;
		r->iov++;
		r->iovcnt--;
	}
	if (n) {
		r->iov[0].iov_base = (uint8_t *)r->iov[0].iov_base + n;
		r->iov[0].iov_len -= n;
	}
}

static void end_read(struct ring *ring, struct sop_batch *b, unsigned index, int res)
{
	struct sop_request *r = &b->requests[index];

	ring->in_flight--;
	if ((res == -EAGAIN || res == -EINTR) && ring->retries < RETRIES) {
		ring->retries++;
		submit_read(ring, b, index);
		return;
	}
	if (res < 0) {
		sop_request_end(b, index, res);
		return;
	}
	skip_bytes(r, (size_t)res);
	if (r->done_bytes >= r->len_bytes)
		sop_request_end(b, index, 0);
	else if (!res)
		sop_request_end(b, index, -ENODATA); /* the end of the file */
	else
		submit_read(ring, b, index);
}

static bool end_some(struct ring *ring, struct sop_batch *b)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	while (!io_uring_peek_cqe(&ring->io, &cqe)) {
		unsigned index = (unsigned)io_uring_cqe_get_data64(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&ring->io, cqe);
		end_read(ring, b, index, res);
		any = true;
	}
	return any;
}

/* How many completions the owner still needs, at most those in flight; 0: it has what it needs.
 * Only this thread ends requests of the batch. */
static unsigned still_needed(struct ring *ring, struct sop_batch *b, unsigned next)
{
	if (b->ended == b->n || (b->need && b->ok >= b->need))
		return 0;
	if (next < b->n)
		return 1;
	return b->need ? SOP_MIN(b->need - b->ok, ring->in_flight) : ring->in_flight;
}

/* Wait for n completions. False: the time is over. */
static bool wait_some(struct ring *ring, unsigned n, struct sop_patience *patience)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts;
	uint64_t ms;
	int rc;

	if (!patience) {
		rc = io_uring_wait_cqe_nr(&ring->io, &cqe, n);
	} else {
		ms = sop_patience_slice(patience);
		if (!ms)
			return false;
		ts = timespec_of(ms);
		rc = io_uring_wait_cqes(&ring->io, &cqe, n, &ts, NULL);
	}
	/* Interrupted: look again. Out of time: the caller looks at the clock after what has ended.
	 */
	return !rc || rc == -EINTR || rc == -ETIME || rc == -EAGAIN;
}

/* Hand to the kernel what is prepared. 0, or why nothing of it went. */
static int submit_some(struct ring *ring)
{
	int rc;

	if (!io_uring_sq_ready(&ring->io))
		return 0;
	rc = io_uring_submit(&ring->io);
	return rc > 0 ? 0 : rc ? rc : -EAGAIN;
}

/* The kernel takes nothing and has nothing of ours: the requests not yet ended fail. */
static void fail_rest(struct sop_batch *b, int rc)
{
	for (unsigned i = 0; i < b->n; i++)
		if (atomic_load_explicit(&b->requests[i].rc, memory_order_relaxed) ==
			SOP_REQUEST_PENDING)
			sop_request_end(b, i, rc);
}

/* True when it ran to its end, whatever that was; false when nothing was begun. patience: NULL for
 * no bound. */
static bool run_on(struct ring *ring, struct sop_batch *b, struct sop_patience *patience)
{
	unsigned next = 0;

	for (;;) {
		unsigned n;
		int rc;

		while (next < b->n && ring->in_flight < DEPTH)
			submit_read(ring, b, next++);
		rc = submit_some(ring);
		if (rc && ring->in_flight == io_uring_sq_ready(&ring->io)) {
			if (!b->ended)
				return false;
			fail_rest(b, rc);
			return true;
		}
		if (end_some(ring, b))
			continue;
		n = still_needed(ring, b, next);
		n = SOP_MIN(n, ring->in_flight - io_uring_sq_ready(&ring->io));
		if (!n || !wait_some(ring, n, patience))
			return true;
	}
}

bool sop_uring_run(struct sop_uring *u, struct sop_batch *b, unsigned timeout_ms)
{
	struct sop_patience patience = sop_patience(timeout_ms);
	struct ring *ring;
	unsigned waiting;
	bool ran;

	reap(u);
	ring = ring_get(u);
	if (!ring)
		return false;
	ran = run_on(ring, b, timeout_ms ? &patience : NULL);
	/* What the kernel did not take has not begun, and must not. */
	waiting = io_uring_sq_ready(&ring->io);
	ring->broken |= waiting != 0;
	ring->in_flight -= waiting;
	if (!ring->in_flight) {
		ring_put(u, ring);
		return ran;
	}
	sop_batch_get(b);
	ring->batch = b;
	put_aside(u, ring);
	return ran;
}
