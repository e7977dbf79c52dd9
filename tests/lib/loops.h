/* Failure loops: an operation runs again and again, and each time one thing more goes well before
 * one fails: an allocation, an I/O (once, or the disk is gone from then on), a write on a full
 * disk. What a program of such loops has in common with the next: the faults, the rounds, its
 * arguments, and the processes that share the loops out. For programs that link libsop-failing.a.
 *
 * What is asked for from the same place again (the same calls lead to it, and it goes to the same
 * disk) fails the first time alone in all variants of an operation; with LONG=1 every time. */
#ifndef TESTS_LOOPS_H
#define TESTS_LOOPS_H

#include "tests/lib/fixture.h"

enum loop_mode {
	NO_MEMORY,
	NO_MEMORY_STAYS,
	IO_ONCE,
	IO_STAYS,
	NO_SPACE_ONCE,
	FULL, /* full from the n-th step on */
	LOOP_MODES
};

struct loops;

struct loop {
	const struct loops *of;
	enum loop_mode mode;
	unsigned config, op;
	bool variant;	 /* the other one of two */
	unsigned long n; /* what fails */
	struct fixture base,
		f;    /* the volume at the beginning, closed; and the round's copy of it */
	int rc_clean; /* what the operation answers when nothing fails */
	uint64_t before, after; /* what there is then: of the program */
	struct places *places;
	unsigned long countdown;
};

struct loops {
	const char *name;
	unsigned n_configs, n_ops;
	const char *(*config)(unsigned config);
	const char *(*op)(unsigned op);
	/* Make the volume that all loops of a configuration and mode begin with. */
	void (*make)(struct fixture *base, unsigned config, enum loop_mode mode);
	/* Is there such a loop, and, unless long_run, is it worth its time? */
	bool (*has)(enum loop_mode mode, unsigned config, unsigned op, bool variant, bool long_run);
	unsigned stride[LOOP_MODES];	 /* unless LONG=1: one place in so many; 0: each */
	void (*measure)(struct loop *l); /* nothing fails */
	bool (*round)(struct loop *l);	 /* false: the fault did not come up any more */
};

int loops_main(const struct loops *what, int argc, char **argv);

_Noreturn void loop_die(struct loop *l, const char *what, int rc);
/* The round's copy of the base, opened. */
void loop_begin(struct loop *l);
void loop_open(struct loop *l, const char *what); /* what: the sentence when it fails */
/* From here on the n-th fails; up to here, and whether it has come to that. */
void loop_arm(struct loop *l);
bool loop_disarm(struct loop *l);
/* Disks are well again and have room, and a minute has passed. */
void loop_mend(struct loop *l);
void loop_pass_ms(unsigned ms);
void loop_check(struct loop *l, bool data); /* clean, or die */
uint64_t loop_digest(struct loop *l);	    /* of what users see, or die */
/* Failed closed: by its own word, or since disks without which nothing can be read are set aside.
 */
bool loop_dead(struct loop *l);
/* A small commit goes through, or the volume says that it has failed; then it closes. Ends the
 * round. */
void loop_end(struct loop *l);

/* Stands, so that a state that is reached twice is the same; time passes in loop_mend() alone. */
extern const struct sop_clock loop_clock;

#endif
