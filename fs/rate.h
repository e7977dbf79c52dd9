/* How many lines a second go to the log. Each kind of line, by its level and module, has its own
 * allowance, so that a storm of one does not hide the others. */
#ifndef SOPFS_RATE_H
#define SOPFS_RATE_H

#include <stdbool.h>
#include <time.h>

#define SOPFS_RATE_LINES 100 /* of one kind, in a second */
#define SOPFS_RATE_KINDS 64

struct sopfs_rate {
	time_t second;
	unsigned lines[SOPFS_RATE_KINDS];
	unsigned left_out; /* and not told yet */
};

/* May this line go out now? If so, *told is how many were left out in an earlier second, to be said
 * first. */
bool sopfs_rate_pass(
	struct sopfs_rate *r, time_t now, unsigned level, const char *module, unsigned *told);
/* How many are still to be told of, at the end. */
unsigned sopfs_rate_rest(struct sopfs_rate *r);

#endif
