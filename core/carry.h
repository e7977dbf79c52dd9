/* Calls that can go on without their thread.
 *
 * A thread that writes to a disk is at the disk's mercy: when the disk hangs, so does the thread,
 * and neither a signal nor a bound frees it. Therefore batches run on a pool's threads (io.h), and
 * each costs two changes of thread, which is more than the small writes of a commit themselves. A
 * carried call does such writes on its own thread: it runs on a stack of its own, and when the
 * thread does not come back from a write in a short while, another thread goes on with the call
 * where it was, as if the batch had been handed over from the beginning, with its bounds.
 *
 * So a call may end on another thread than it began on. What it takes before a batch and uses after
 * it must not belong to a thread: mutexes are fine (glibc's default kind may be unlocked by
 * anybody), a thread-local variable is not; sop_carry_stay() is for calls that need one. */
#ifndef SOP_CARRY_H
#define SOP_CARRY_H

#include "core/base.h"

struct sop_carriers;
struct sop_batch;

/* NULL: no memory. Free them when no call is under way, save on threads that hang. */
struct sop_carriers *sop_carriers_new(void);
void sop_carriers_free(struct sop_carriers *a);

/* Call fn(arg), and come back when it has ended and this thread is free: later than that, when the
 * thread hangs. Any thread; without memory, and in builds for sanitizers, it is a plain call. */
void sop_carry(struct sop_carriers *a, void (*fn)(void *arg), void *arg);

/* From here on the call under way stays on its thread. */
void sop_carry_stay(void);

/* For io.c: let the thread of this call work on b. False: there is none, nothing was begun. Else
 * the batch has been worked on to its last request, or has been left to others to see to; perhaps
 * on another thread. */
bool sop_carry_batch(struct sop_batch *b);

#endif
