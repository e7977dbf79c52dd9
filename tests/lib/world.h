/* A volume for scenarios: on a simulated machine or on real folders, with the same face. */
#ifndef TESTS_WORLD_H
#define TESTS_WORLD_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/lib/fixture.h"

#define WORLD_DISKS   8
#define WORLD_THREADS 16

struct world {
	bool folders;
	struct fixture f; /* simulated; its v is the volume in both cases */
	char root[64];	  /* folders: below it */
	char path[WORLD_DISKS][96];
	const char *paths[WORLD_DISKS];
	unsigned disks;
	_Atomic unsigned wrong;
};

/* k+m disks and `more`, formatted and opened, with threads of its own. */
void world_init(struct world *w, bool folders, unsigned k, unsigned m, unsigned more);
void world_close(struct world *w);
void world_open(struct world *w);
void world_release(struct world *w);
/* Everything given back, then checked down to the bytes: no error, nothing leaked. */
void world_settle(struct world *w);

/* One thread of a scenario. What goes wrong is told, and ends the test after the join. */
struct actor {
	struct world *w;
	unsigned id;
	struct sop_err e;
	uint64_t rng;
	void *arg;
};

/* Runs fn as n actors, each on a thread of its own, and fails the test when something was wrong. */
void world_run(struct world *w, unsigned n, void (*fn)(struct actor *a), void *arg);
/* False, and told, unless what holds. */
bool need(struct actor *a, bool what, const char *text);
bool fine(struct actor *a, int rc, const char *text); /* rc is not negative */

struct sop_txn *actor_begin(struct actor *a, enum sop_txn_mode mode); /* NULL: told */
/* By path, made when it is not there, in a transaction of its own that is tried again. 0: told. */
uint64_t actor_store(struct actor *a, const char *path, const struct sop_store_opts *o);
uint64_t actor_count(struct actor *a, uint64_t store);

#endif
