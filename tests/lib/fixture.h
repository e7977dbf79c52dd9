/* A volume on a simulated machine, for tests of the engine. */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include "core/members.h"
#include "core/sop.h"
#include "tests/lib/simdisk.h"

#define FIXTURE_DISKS 8

struct fixture {
	struct sim *sim;
	unsigned disks;
	char path[FIXTURE_DISKS][16];
	const char *paths[FIXTURE_DISKS];
	struct sop_open_opts opts;
	struct sop_volume *v;
	struct sop_err e;
};

/* k+m disks of `bytes` each (0: no bound), formatted; not opened. */
void fixture_init(struct fixture *f, unsigned k, unsigned m, uint64_t bytes);
/* The same, as mkfs --shared makes it. */
void fixture_init_shared(struct fixture *f, unsigned k, unsigned m);
void fixture_release(struct fixture *f); /* closes what is open, without looking at errors */
/* 0 or a code; f->e has the message. */
int fixture_open(struct fixture *f);
int fixture_close(struct fixture *f);
void fixture_reopen(struct fixture *f);
/* For cmocka: *state is a fixture of k+m disks that is open, with the clock of below; and its end.
 */
int fixture_setup(void **state, unsigned k, unsigned m);
int fixture_teardown(void **state);
/* Give back what can be given back, so that a blob freed by mistake is lost for good; then check.
 */
void fixture_settle(struct fixture *f);
/* Check the volume: fails the test with what was found. */
void fixture_check(struct fixture *f, bool data);

/* Fails the test with the fixture's message unless rc is 0. */
void fixture_ok(struct fixture *f, int rc);
struct sop_txn *fixture_begin(struct fixture *f, enum sop_txn_mode mode);
/* The system's clock, and what a test lets pass beside it. */
extern const struct sop_clock fixture_clock;
extern _Atomic uint64_t fixture_skipped_ms; /* the background looks at the clock, too */

/* One-call transactions for tests: 0 or a code. */
int fixture_store(struct fixture *f, const char *path, uint64_t *store);
int fixture_upsert(struct fixture *f, uint64_t store, const char *key, const void *val, size_t len,
	bool durable);
int fixture_remove(struct fixture *f, uint64_t store, const char *key);
/* 1: there with this value; 0: not there; fails the test on errors. */
int fixture_has(struct fixture *f, uint64_t store, const char *key, const void *val, size_t len);

/* Bytes that depend on a seed alone. */
void fill_random(void *buf, size_t len, uint64_t seed);
uint64_t next_random(uint64_t *state);

#endif
