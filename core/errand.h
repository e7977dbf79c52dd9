/* Calls that may hang, made on threads of their own and waited for with a bound.
 *
 * For the rare calls on a disk that are not reads, writes or syncs of files (those go through
 * core/io.h): opening a member folder, locking it, storing its label, asking for its free space.
 *
 * An errand owns everything its run() touches, because run() may go on long after the wait is over:
 * it is counted, and release() frees it when both its thread and its owner have let go. The caller
 * holds no lock of rank LEAF.
 *
 * A call that hangs holds up what comes to the same file or folder after it, as the kernel has it;
 * a call that has not been made yet does not. By the time run() goes on its disk may be back, and
 * healed. So a rename, an unlink or a truncation comes first in its errand, and not behind another
 * call. */
#ifndef SOP_ERRAND_H
#define SOP_ERRAND_H

#include "core/base.h"

struct sop_errand_group;

/* Embedded first in the caller's own struct. */
struct sop_errand {
	void (*run)(struct sop_errand *self);
	void (*release)(struct sop_errand *self);
	bool finished; /* the owner's: run() has returned; only then may its results be looked at */
	/* errand.c's own */
	struct sop_errand_group *group;
	bool done;
	int refs;
};

/* Fill in a zeroed errand: one reference, the owner's. */
void sop_errand_init(struct sop_errand *x, void (*run)(struct sop_errand *self),
	void (*release)(struct sop_errand *self));

/* Run all at once, each on a thread, and wait until all have ended or timeout_ms passed. With
 * on_threads false they run here, one after another, without a bound. Once for each errand. */
void sop_errands_run(
	struct sop_errand *const *list, size_t n, bool on_threads, unsigned timeout_ms);

/* Has run() returned since? For who keeps one that did not end in time, so as not to send another
 * to the same place. */
bool sop_errand_over(struct sop_errand *x);

/* The owner lets go; NULL is fine. */
void sop_errand_put(struct sop_errand *x);

#endif
