/* What io.c and io_uring.c share. No other file includes this. */
#ifndef SOP_IO_INTERNAL_H
#define SOP_IO_INTERNAL_H

#include <stdatomic.h>

#include "core/io.h"
#include "core/io_mem.h"
#include "core/lock.h"
#include "core/patience.h"

struct sop_uring;

#define SOP_REQUEST_PENDING 1 /* no result is positive */
#define SOP_BATCH_FIRST	    16
#define SOP_BATCH_ROOM	    (16u << 10)

struct sop_request {
	enum sop_io_op op;
	int iovcnt;
	struct sop_file *file; /* held */
	struct iovec *iov;     /* in the batch's memory */
	uint64_t off;
	uint64_t len_bytes;
	uint64_t done_bytes; /* io_uring: what earlier, short reads brought */
	atomic_int rc;	     /* as it ends; may change after the run has returned */
	int result;	     /* the owner's: as it was when the run returned */
};

/* References: the owner, each pool thread at work on it, and a ring that still has requests of it.
 */
struct sop_batch {
	struct sop_iopool *pool; /* held */
	struct sop_batch *next_free;
	atomic_uint refs;

	/* The owner's alone until the run; constant then. */
	struct sop_request *requests;
	unsigned n, capacity;
	unsigned need;
	bool ran;
	bool awaited; /* started, and not waited for */
	struct sop_batch *held[SOP_BATCH_HOLDS];
	unsigned n_held;

	/* The lowest request nobody has begun. Whoever adds one to it does that request; n or more:
	 * none is left. */
	atomic_uint next;

	struct sop_lock lock;
	pthread_cond_t finished;
	unsigned ended, ok; /* under lock */
	bool early;	    /* under lock: `need` counts */

	/* Under pool->lock: the place in the queue, and how many more threads are wanted. */
	struct sop_batch *queue_next, *queue_prev;
	unsigned wanted;

	struct sop_iobuf *buffers;
	uint8_t *room; /* of the block in use */
	size_t room_bytes;
	struct sop_request first[SOP_BATCH_FIRST];
	_Alignas(64) uint8_t first_room[SOP_BATCH_ROOM];
};

/* A reference more; the owner's sop_batch_put() drops one, whoever calls it. */
static inline void sop_batch_get(struct sop_batch *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
}

/* A request has ended: note it, and wake the owner if that was what it waits for. */
void sop_request_end(struct sop_batch *b, unsigned index, int rc);

uint64_t sop_io_now_ms(void);

/* Rings, kept for the next batch. NULL when the kernel has no io_uring, or not for us. */
struct sop_uring *sop_uring_new(void);
/* Waits up to wait_ms for the requests of batches that were left. */
void sop_uring_free(struct sop_uring *u, unsigned wait_ms);
/* Run reads on real descriptors. False: nothing was begun, there is no ring. */
bool sop_uring_run(struct sop_uring *u, struct sop_batch *b, unsigned timeout_ms);

#endif
