/* I/O in batches, with a bound on the wait.
 *
 * A batch is a list of reads, writes and syncs on files of several disks. It runs on a pool of
 * threads (or io_uring for reads), never on the caller's, so that a device that hangs holds up a
 * pool thread and not the request: when the bound comes, sop_batch_run() returns, unfinished
 * requests say -ETIMEDOUT, and the batch with all its memory lives on until the device lets go.
 * Therefore every buffer handed to a batch must come from sop_batch_alloc() (or outlive the
 * process).
 *
 * How a batch runs:
 *   SOP_IO_SERIAL    one thread does all, one after another: cheapest for small page-cache writes.
 *                    When one request takes longer than a short while, the rest is taken over by
 *                    other threads, so that one slow disk does not delay the others.
 *   SOP_IO_PARALLEL  all at once: cold reads, syncs, large writes.
 *
 * A pool in inline mode (sop_iopool_new_inline, for simulated disks) does everything on the
 * caller's thread in the order added: deterministic. One pool a volume; batches: any thread, one
 * owner each. */
#ifndef SOP_IO_H
#define SOP_IO_H

#include "core/disk.h"

/* WRITE_OUT: a write that the disk begins to write out at once. READ_ON: a read after which the
 * disk begins to fetch as much of what follows. */
enum sop_io_op { SOP_IO_READ, SOP_IO_READ_ON, SOP_IO_WRITE, SOP_IO_WRITE_OUT, SOP_IO_DATASYNC };
enum sop_io_how { SOP_IO_SERIAL, SOP_IO_PARALLEL };

struct sop_iopool;
struct sop_batch;

struct sop_iopool_opts {
	unsigned threads_max; /* 0: a default from the number of disks */
	unsigned disks;
	bool no_uring;
};

int sop_iopool_new(struct sop_iopool **out, const struct sop_iopool_opts *o, struct sop_err *e);
int sop_iopool_new_inline(struct sop_iopool **out, struct sop_err *e);
/* Waits for what runs, at most wait_ms; threads that hang in a device are left behind. */
void sop_iopool_free(struct sop_iopool *p, unsigned wait_ms);

/* Between begin and end large buffers are kept for the next batch in greater number. */
void sop_iopool_bulk_begin(struct sop_iopool *p);
void sop_iopool_bulk_end(struct sop_iopool *p);

/* NULL when memory is short. */
struct sop_batch *sop_batch_new(struct sop_iopool *p);
void sop_batch_put(struct sop_batch *b); /* the owner lets go; NULL is fine */

/* Memory that lives as long as the batch; 64-byte aligned; large ones are pooled. NULL: no memory.
 */
void *sop_batch_alloc(struct sop_batch *b, size_t len_bytes);

/* So many zeros, to be written from: iovecs know no const. */
#define SOP_IO_ZEROS (512u << 10)
void *sop_io_zeros(void);

/* Add a request; returns its index (0, 1, ...) or -ENOMEM. iov is copied; the data is not. */
int sop_batch_add(struct sop_batch *b, enum sop_io_op op, struct sop_file *f,
	const struct iovec *iov, int iovcnt, uint64_t off);

/* Run what was added. Returns as soon as `need` requests have succeeded (need 0: all must end), or
 * none is left running, or timeout_ms passed (0: no bound). The number that succeeded. Runs once.
 * SERIAL looks at `need` only once a request is slow: what is fast is done to the last. A request
 * that has not begun when this returns never begins. One that has may still end, and a write still
 * reach the disk; its file stays open under the hood though it is closed meanwhile. */
int sop_batch_run(struct sop_batch *b, enum sop_io_how how, unsigned need, unsigned timeout_ms);

/* Run in two halves, all in parallel: the caller does something else meanwhile. A batch that was
 * started is waited for before its owner lets go. */
void sop_batch_start(struct sop_batch *b);
int sop_batch_wait(struct sop_batch *b, unsigned timeout_ms);

#define SOP_BATCH_HOLDS 2
/* What `of` owns stays as long as requests of b may use it. At most SOP_BATCH_HOLDS for each b;
 * `of` holds nobody itself. */
void sop_batch_hold(struct sop_batch *b, struct sop_batch *of);

/* After the run: 0, or -errno (-ENODATA: a read past the end; -ETIMEDOUT: not finished). */
int sop_batch_result(const struct sop_batch *b, int index);

#endif
