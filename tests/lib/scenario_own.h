/* What the files of the scenario share. */
#ifndef TESTS_SCENARIO_OWN_H
#define TESTS_SCENARIO_OWN_H

#include "tests/lib/scenario.h"

struct run {
	struct fixture *f;
	struct sop_txn *t;
	struct sop_err *e;
	uint64_t salt;
};

/* A store's number, by its name in the root. */
int scenario_store_of(struct run *r, const char *name, uint64_t *store);

/* scenario_keys.c: a store of integers with duplicates, one of JSON maps; operations on them. */
int scenario_fill_keys(struct run *r);
int scenario_keys_add(struct run *r);
int scenario_keys_change(struct run *r);
int scenario_keys_walk(struct run *r);
int scenario_keys_options(struct run *r);
int scenario_keys_profile(struct fixture *f);

#endif
