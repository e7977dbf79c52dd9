/* A small volume with one of everything, and an alphabet of operations on it, for tests that run
 * all short sequences of operations against crashes and faults. An operation commits at most one
 * transaction; the state after it is known by a digest of all that the public face shows. */
#ifndef TESTS_SCENARIO_H
#define TESTS_SCENARIO_H

#include <stdio.h>

#include "tests/lib/fixture.h"

#define SCENARIO_SPARE	 "/spare"    /* a disk of the machine that is no member */
#define SCENARIO_JOURNAL (16u << 10) /* of a journal file: some operations fill one */

enum scenario_flags {
	SCENARIO_DURABLE = 1,  /* commit so */
	SCENARIO_NO_FAULTS = 2 /* operations that take disks away do nothing */
};

/* Format k+m disks and fill them: small and large values, an extent tree, names, attributes, a
 * store of small nodes. Closed afterwards. clock: NULL: the system's. */
void scenario_make(struct fixture *f, unsigned k, unsigned m, const struct sop_clock *clock);
/* The same on a volume made to be shared. */
void scenario_make_shared(struct fixture *f, unsigned k, unsigned m, const struct sop_clock *clock);
/* The machine of f, copied: to be opened with g. Release g with fixture_release(). */
void scenario_clone(struct fixture *g, const struct fixture *f, struct sim *sim, uint64_t seed);

/* Open it, giving the folders that have a label: members come and go. */
int scenario_open(struct fixture *f);
/* An open shared volume becomes that of one mounter, who scrubs it: what a disk has missed is
 * written anew by nobody while others may be there. */
int scenario_scrub_alone(struct fixture *f);
/* fsck of the volume, which is not open. What is found and no mere note is told to stderr when
 * tell says so. */
int scenario_fsck(struct fixture *f, bool repair, bool tell, struct sop_fsck_report *out);

unsigned scenario_ops(void);
const char *scenario_name(unsigned op);
bool scenario_is_txn(unsigned op);	  /* else it is something done to the volume */
bool scenario_is_fault(unsigned op);	  /* what SCENARIO_NO_FAULTS leaves out */
bool scenario_changes_disks(unsigned op); /* replaces, adds, removes... */
int scenario_find(const char *name);	  /* -1: there is none */

/* Run one on the opened volume. `salt` decides what is written. A code from -1 to -4095 is the
 * answer to an operation whose object is not there (any more), or an I/O error: the caller knows
 * what to expect. */
int scenario_run(struct fixture *f, unsigned op, uint64_t salt, unsigned flags);
/* Is this what an operation answers when earlier ones have taken its object away? */
bool scenario_refused(int rc);

/* Of everything that users can see. text: also as lines, for people (NULL: no). 0 or a code. */
int scenario_digest(struct fixture *f, uint64_t *out, FILE *text);

#endif
