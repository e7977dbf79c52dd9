/* The engine from many threads, on full disks, and with every single I/O failing once. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/fixture.h"

#define THREADS 8
#define SHARED	16

/* Threads collect what is wrong; only the test's own thread may fail the test. */
struct crowd {
	struct fixture *f;
	uint64_t store;
	_Atomic unsigned wrong, stop, acked[SHARED];
	unsigned rounds;
};

struct worker {
	struct crowd *c;
	pthread_t thread;
	unsigned id;
	bool there[4096]; /* own items that were acknowledged */
};

static void wrong(struct crowd *c, const char *what, int rc, const struct sop_err *e)
{
	if (!atomic_fetch_add(&c->wrong, 1))
		fprintf(stderr, "%s: %d: %s\n", what, rc, e->text);
}

/* Values whose length and bytes follow from the key: small, inline and in blobs. */
static size_t value_of(uint8_t *buf, unsigned id, unsigned i)
{
	static const size_t sizes[] = {3, 100, 2048, 3000, 20000};
	size_t len = sizes[(id + i) % SOP_ARRAY_LEN(sizes)];

	fill_random(buf, len, id * 100000ull + i);
	return len;
}

/* One more in a shared counter; 0, or SOP_ECONFLICT. */
static int count_up(struct crowd *c, unsigned n, bool durable, struct sop_err *e)
{
	struct sop_txn *t;
	char key[32], text[32];
	void *val;
	size_t len;
	int rc = sop_txn_begin(&t, c->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, e);

	if (rc)
		return rc;
	snprintf(key, sizeof(key), "shared%u", n);
	rc = sop_get(t, SOP_NAME(c->store, key), &val, &len, e);
	if (!rc) {
		snprintf(text, sizeof(text), "%lu", strtoul(val, NULL, 10) + 1);
		free(val);
		rc = sop_update(t, SOP_NAME(c->store, key), text, strlen(text), e);
	}
	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, durable ? SOP_COMMIT_DURABLE : 0, e);
}

static void *write_items(void *arg)
{
	struct worker *w = arg;
	struct crowd *c = w->c;
	uint8_t *buf = malloc(20000);

	for (unsigned i = 0; i < c->rounds; i++) {
		struct sop_err e = {0};
		struct sop_txn *t;
		char key[32];
		size_t len = value_of(buf, w->id, i);
		int rc = sop_txn_begin(
			&t, c->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &e);

		snprintf(key, sizeof(key), "own%u.%u", w->id, i);
		if (!rc) {
			rc = sop_upsert(t, SOP_NAME(c->store, key), buf, len, &e);
			rc = rc ? (sop_txn_rollback(t), rc)
				: sop_txn_commit(t, i % 16 == 0 ? SOP_COMMIT_DURABLE : 0, &e);
		}
		if (rc)
			wrong(c, "own item", rc, &e);
		else
			w->there[i] = true;
		if (i % 5 == 4) { /* every fifth goes again */
			snprintf(key, sizeof(key), "own%u.%u", w->id, i - 2);
			rc = sop_txn_begin(
				&t, c->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &e);
			if (!rc) {
				rc = sop_remove(t, SOP_NAME(c->store, key), &e);
				rc = rc ? (sop_txn_rollback(t), rc) : sop_txn_commit(t, 0, &e);
			}
			if (rc)
				wrong(c, "removal", rc, &e);
			else
				w->there[i - 2] = false;
		}
		rc = count_up(c, (w->id + i) % SHARED, i % 16 == 8, &e);
		if (!rc)
			atomic_fetch_add(&c->acked[(w->id + i) % SHARED], 1);
		else if (rc != SOP_ECONFLICT)
			wrong(c, "shared item", rc, &e);
	}
	free(buf);
	return NULL;
}

static int count_one(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	(void)key;
	(void)klen;
	(void)attr;
	++*(uint64_t *)arg;
	return 0;
}

/* A snapshot says the same twice, and its count is the number of its items. */
static void *read_snapshots(void *arg)
{
	struct worker *w = arg;
	struct crowd *c = w->c;

	while (!c->stop) {
		struct sop_err e = {0};
		uint64_t n[2] = {0}, count = 0;
		struct sop_txn *t;
		int rc = sop_txn_begin(
			&t, c->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_NO_CHECK}, &e);

		for (unsigned i = 0; i < 2 && !rc; i++)
			rc = sop_scan(t, c->store, NULL, false, count_one, &n[i], &e);
		if (!rc)
			rc = sop_count(t, c->store, &count, &e);
		if (rc || n[0] != n[1] || n[0] != count)
			wrong(c, "snapshot", rc, &e);
		for (unsigned i = 0; i < SHARED && !rc; i++) {
			void *val;
			size_t len;
			char key[32];

			snprintf(key, sizeof(key), "shared%u", i);
			rc = sop_get(i & 1 ? t : sop_volume_latest(c->f->v),
				SOP_NAME(c->store, key), &val, &len, &e);
			if (rc)
				wrong(c, "shared item of a snapshot", rc, &e);
			else
				free(val);
		}
		if (t)
			sop_txn_rollback(t);
		if (sop_volume_checkpoint(c->f->v, &e))
			wrong(c, "checkpoint", e.code, &e);
		{
			struct sop_volume_stat s;

			sop_volume_stat(c->f->v, &s);
			if (s.failed)
				wrong(c, "volume", 0, &e);
		}
	}
	return NULL;
}

static void verify_crowd(struct crowd *c, struct worker *w)
{
	uint64_t expected = SHARED, count;
	uint8_t *buf = malloc(20000);
	char key[32], text[32];

	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned n = 0; n < c->rounds; n++) {
			size_t len = value_of(buf, i, n);

			snprintf(key, sizeof(key), "own%u.%u", i, n);
			assert_int_equal(fixture_has(c->f, c->store, key, buf, len), w[i].there[n]);
			expected += w[i].there[n];
		}
	for (unsigned i = 0; i < SHARED; i++) {
		snprintf(key, sizeof(key), "shared%u", i);
		snprintf(text, sizeof(text), "%u", c->acked[i]);
		assert_int_equal(fixture_has(c->f, c->store, key, text, strlen(text)), 1);
	}
	assert_int_equal(sop_count(sop_volume_latest(c->f->v), c->store, &count, &c->f->e), 0);
	assert_int_equal(count, expected);
	fixture_check(c->f, true);
	free(buf);
}

static void many_threads_commit_and_nothing_is_lost(void **state)
{
	static struct fixture f;
	static struct worker w[THREADS + 2];
	struct crowd c = {.f = &f, .rounds = 100};

	(void)state;
	fixture_init(&f, 2, 1, 0);
	f.opts.inline_io = false;
	f.opts.no_threads = false;
	f.opts.commit_ms = 20;
	if (fixture_open(&f))
		fail_msg("open: %s", f.e.text);
	assert_int_equal(fixture_store(&f, "s", &c.store), 0);
	for (unsigned i = 0; i < SHARED; i++) {
		char key[32];

		snprintf(key, sizeof(key), "shared%u", i);
		assert_int_equal(fixture_upsert(&f, c.store, key, "0", 1, false), 0);
	}
	for (unsigned i = 0; i < THREADS + 2; i++) {
		w[i].c = &c;
		w[i].id = i;
		assert_int_equal(pthread_create(&w[i].thread, NULL,
					 i < THREADS ? write_items : read_snapshots, &w[i]),
			0);
	}
	for (unsigned i = 0; i < THREADS + 2; i++) {
		if (i == THREADS)
			c.stop = 1;
		pthread_join(w[i].thread, NULL);
	}
	assert_int_equal(c.wrong, 0);
	verify_crowd(&c, w);
	if (fixture_close(&f) || fixture_open(&f))
		fail_msg("%s", f.e.text);
	verify_crowd(&c, w);
	fixture_release(&f);
}

/* ---- rounds of syncs ---- */

/* The test plays the round that runs when the others come. */
static void begin_round(struct sop_volume *v)
{
	SOP_LOCK_GUARD(&v->barrier);

	v->barrier_running = true;
}

static void end_round(struct sop_volume *v, bool served)
{
	SOP_LOCK_GUARD(&v->barrier);

	if (served)
		v->durable_lsn = sop_pins_published(v->pins);
	v->barrier_running = false;
	pthread_cond_broadcast(&v->barrier_cond);
}

static unsigned waiting(struct sop_volume *v)
{
	SOP_LOCK_GUARD(&v->barrier);

	return v->barrier_waiting;
}

static void *write_durably(void *arg)
{
	struct worker *w = arg;
	struct sop_err e = {0};
	struct sop_txn *t;
	char key[32];
	int rc = sop_txn_begin(&t, w->c->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &e);

	snprintf(key, sizeof(key), "durable%u", w->id);
	if (!rc) {
		rc = sop_upsert(t, SOP_NAME(w->c->store, key), key, strlen(key), &e);
		rc = rc ? (sop_txn_rollback(t), rc) : sop_txn_commit(t, SOP_COMMIT_DURABLE, &e);
	}
	if (rc)
		wrong(w->c, "durable item", rc, &e);
	return NULL;
}

/* So many commit, and wait for the media while a round runs. */
static void start_waiting(struct crowd *c, struct worker *w)
{
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.c = c, .id = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, write_durably, &w[i]), 0);
	}
	while (waiting(c->f->v) < THREADS && !c->wrong)
		sched_yield();
}

static void join_all(struct worker *w)
{
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
}

/* A crowd waits while a round runs, which was enough for it or not. The number of rounds it takes.
 */
static uint64_t rounds_of_a_crowd(struct fixture *f, bool enough)
{
	static struct worker w[THREADS];
	struct crowd c = {.f = f};
	uint64_t rounds;

	fixture_init(f, 2, 2, 0);
	f->opts.inline_io = false;
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, fixture_store(f, "s", &c.store));
	rounds = f->v->barrier_rounds;
	begin_round(f->v);
	start_waiting(&c, w);
	end_round(f->v, enough);
	join_all(w);
	assert_int_equal(c.wrong, 0);
	return f->v->barrier_rounds - rounds;
}

static void those_who_wait_for_the_media_share_the_next_round(void **state)
{
	static struct fixture f;

	(void)state;
	assert_int_equal(rounds_of_a_crowd(&f, false), 1);
	assert_int_equal(f.v->durable_lsn, sop_pins_published(f.v->pins));
	/* As many may come again, and nobody is there any more. */
	assert_int_equal(f.v->barrier_expected, THREADS);
	assert_int_equal(f.v->barrier_waiting, 0);
	fixture_ok(&f, fixture_close(&f));
	fixture_release(&f);
}

static void who_is_served_by_a_round_that_ran_before_is_not_waited_for(void **state)
{
	static struct fixture f;

	(void)state;
	assert_int_equal(rounds_of_a_crowd(&f, true), 0);
	assert_int_equal(f.v->barrier_waiting, 0);
	fixture_release(&f);
}

/* ---- a name of several, and its inode ---- */

enum { LINK_ROUNDS = 4000 };

struct linker {
	struct fixture *f;
	uint64_t store;
	atomic_bool done;
	_Atomic int wrong;
};

static int link_step(struct linker *l, unsigned step, struct sop_err *e)
{
	const struct sop_attr init = {.mode = S_IFREG | 0644, .nlink = 1};
	struct sop_name a = SOP_NAME(l->store, "a"), b = SOP_NAME(l->store, "b");
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, l->f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, e);

	if (rc)
		return rc;
	if (step == 0)
		rc = sop_create(t, a, &init, NULL, 0, NULL, e);
	else if (step == 1)
		rc = sop_link(t, a, b, NULL, e);
	else
		rc = sop_remove(t, step == 2 ? b : a, e);
	if (!rc)
		return sop_txn_commit(t, 0, e);
	sop_txn_rollback(t);
	return rc;
}

static int any_name(void *arg, const struct sop_listed *listed)
{
	(void)arg;
	(void)listed;
	return 0;
}

static void *list_links(void *arg)
{
	struct linker *l = arg;

	while (!atomic_load(&l->done)) {
		int rc = sop_list(
			sop_volume_latest(l->f->v), l->store, NULL, true, any_name, NULL, NULL);

		if (rc)
			atomic_store(&l->wrong, rc);
	}
	return NULL;
}

static void *look_at_links(void *arg)
{
	struct linker *l = arg;
	struct sop_attr attr;

	while (!atomic_load(&l->done)) {
		int rc = sop_lookup(
			sop_volume_latest(l->f->v), SOP_NAME(l->store, "a"), &attr, NULL);

		if (rc && rc != -ENOENT)
			atomic_store(&l->wrong, rc);
	}
	return NULL;
}

/* What is looked up goes, with its inode, and with the tree it was the last of. */
static void what_goes_while_it_is_looked_for_is_no_damage(void **state)
{
	static struct fixture f;
	struct linker l = {.f = &f};
	pthread_t thread[2];
	int rc = 0;

	(void)state;
	fixture_init(&f, 1, 0, 256 << 20);
	if (fixture_open(&f))
		fail_msg("open: %s", f.e.text);
	assert_int_equal(fixture_store(&f, "s", &l.store), 0);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(thread); i++)
		assert_int_equal(
			pthread_create(&thread[i], NULL, i ? list_links : look_at_links, &l), 0);
	for (unsigned i = 0; i < LINK_ROUNDS * 4 && !rc; i++)
		rc = link_step(&l, i % 4, &f.e);
	atomic_store(&l.done, true);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(thread); i++)
		pthread_join(thread[i], NULL);
	if (rc)
		fail_msg("%s", f.e.text);
	assert_int_equal(l.wrong, 0);
	fixture_release(&f);
}

/* ---- full disks ---- */

/* Put items of 64 KiB until there is no room; how many are there. */
static unsigned fill_up(struct fixture *f, uint64_t store, uint8_t *buf)
{
	for (unsigned i = 0;; i++) {
		char key[32];
		int rc;

		assert_true(i < 100000);
		fill_random(buf, 65536, i);
		snprintf(key, sizeof(key), "k%u", i);
		fixture_skipped_ms += 1500; /* figures of the disks are looked at again */
		rc = fixture_upsert(f, store, key, buf, 65536, false);
		if (rc == -ENOSPC)
			return i;
		if (rc)
			fail_msg("%s: %d: %s", key, rc, f->e.text);
		if (i % 64 == 63 && sop_volume_tick(f->v, &f->e))
			fail_msg("tick: %s", f->e.text);
	}
}

/* What is added to an item takes room as well, and what is taken from it none. */
static int attribute(struct fixture *f, uint64_t store, const char *key, const void *val)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);

	if (val)
		fixture_ok(
			f, sop_xattr_set(t, SOP_NAME(store, key), "user.x", val, 65536, 0, &f->e));
	else
		fixture_ok(f, sop_xattr_remove(t, SOP_NAME(store, key), "user.x", &f->e));
	return sop_txn_commit(t, 0, &f->e);
}

static void a_full_volume_keeps_what_it_has_and_lets_removes_through(void **state)
{
	static struct fixture f;
	uint8_t *buf = calloc(1, 65536);
	unsigned first, again;
	uint64_t store;
	char key[32];

	(void)state;
	fixture_init(&f, 2, 1, getenv("SMALL") ? 64 << 20 : 160 << 20);
	f.opts.clock = &fixture_clock;
	if (fixture_open(&f))
		fail_msg("open: %s", f.e.text);
	assert_int_equal(fixture_store(&f, "s", &store), 0);
	assert_int_equal(fixture_upsert(&f, SOP_ROOT, "early", "x", 1, false), 0);
	assert_int_equal(attribute(&f, SOP_ROOT, "early", buf), 0);
	first = fill_up(&f, store, buf);
	assert_int_equal(attribute(&f, store, "k0", buf), -ENOSPC);
	assert_int_equal(attribute(&f, SOP_ROOT, "early", NULL), 0);
	print_message("%u items of 64 KiB fit\n", first);
	assert_true(first > 100);
	for (unsigned i = 0; i < first; i++) {
		fill_random(buf, 65536, i);
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(fixture_has(&f, store, key, buf, 65536), 1);
	}
	for (unsigned i = 0; i < first; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		if (fixture_remove(&f, store, key))
			fail_msg("remove %s: %s", key, f.e.text);
	}
	fixture_skipped_ms += 60000;
	if (sop_volume_tick(f.v, &f.e) || sop_volume_checkpoint(f.v, &f.e) ||
		sop_volume_tick(f.v, &f.e))
		fail_msg("tick: %s", f.e.text);
	fixture_skipped_ms += 60000;
	fixture_check(&f, true);
	again = fill_up(&f, store, buf);
	print_message("and %u the second time\n", again);
	assert_true(again >= first - first / 10);
	fixture_check(&f, true);
	if (fixture_close(&f))
		fail_msg("close: %s", f.e.text);
	if (fixture_open(&f))
		fail_msg("open: %s", f.e.text);
	for (unsigned i = 0; i < again; i++) {
		fill_random(buf, 65536, i);
		snprintf(key, sizeof(key), "k%u", i);
		assert_int_equal(fixture_has(&f, store, key, buf, 65536), 1);
	}
	fixture_check(&f, false);
	fixture_release(&f);
	free(buf);
}

/* ---- each I/O fails once ---- */

#define STEPS 12

/* A short life of a volume; what must be there, and what may be. */
static void live(struct fixture *f, uint64_t store, bool *must, bool *may, uint8_t *buf)
{
	for (unsigned i = 0; i < STEPS; i++) {
		size_t len = value_of(buf, 9, i);
		char key[32];
		int rc;

		snprintf(key, sizeof(key), "k%u", i);
		rc = fixture_upsert(f, store, key, buf, len, i % 3 == 0);
		must[i] = !rc;
		may[i] = true;
		if (i % 4 == 3) {
			snprintf(key, sizeof(key), "k%u", i - 1);
			rc = fixture_remove(f, store, key);
			if (!rc)
				must[i - 1] = may[i - 1] = false;
			else
				must[i - 1] = false;
		}
		if (i == STEPS / 2)
			sop_volume_checkpoint(f->v, &f->e);
		if (i % 5 == 4)
			sop_volume_tick(f->v, &f->e);
	}
}

static void one_failure(uint64_t n, int rc, unsigned k, unsigned m, bool *more)
{
	static struct fixture f;
	bool must[STEPS] = {0}, may[STEPS] = {0};
	uint8_t *buf = malloc(20000);
	struct sop_check_report r;
	uint64_t store, at;

	fixture_init(&f, k, m, 0);
	if (fixture_open(&f))
		fail_msg("open: %s", f.e.text);
	assert_int_equal(fixture_store(&f, "s", &store), 0);
	at = sim_steps(f.sim) + n;
	sim_fail_step(f.sim, at, rc);
	live(&f, store, must, may, buf);
	fixture_close(&f);
	*more = sim_steps(f.sim) >= at;
	sim_fail_step(f.sim, 0, 0);
	if (fixture_open(&f))
		fail_msg("step %llu: open: %s", (unsigned long long)n, f.e.text);
	for (unsigned i = 0; i < STEPS; i++) {
		size_t len = value_of(buf, 9, i);
		char key[32];
		int there;

		snprintf(key, sizeof(key), "k%u", i);
		there = fixture_has(&f, store, key, buf, len);
		if ((must[i] && !there) || (!may[i] && there))
			fail_msg("step %llu (%d), %u+%u: %s is %s", (unsigned long long)n, rc, k, m,
				key, there ? "there" : "not there");
	}
	/* A shard that missed a write is healed elsewhere: only what all of them say counts here.
	 */
	if (sop_volume_check(f.v, false, NULL, NULL, &r, &f.e) || r.errors) {
		fixture_check(&f, false);
		fail_msg("step %llu (%d), %u+%u: check", (unsigned long long)n, rc, k, m);
	}
	fixture_release(&f);
	free(buf);
}

static void any_single_failure_is_an_error_or_is_survived(void **state)
{
	static const int codes[] = {-EIO, -ENOSPC};
	const unsigned stride =
		getenv("SMALL") ? 7 : 1; /* where time is short: under a sanitizer */

	(void)state;
	for (unsigned c = 0; c < SOP_ARRAY_LEN(codes); c++)
		for (unsigned m = 0; m < 2; m++) {
			bool more = true;
			uint64_t n;

			for (n = 1; more; n += stride)
				one_failure(n, codes[c], m ? 2 : 1, m, &more);
			print_message("%u+%u, %d: up to step %llu\n", m ? 2 : 1, m, codes[c],
				(unsigned long long)n);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_threads_commit_and_nothing_is_lost),
		cmocka_unit_test(those_who_wait_for_the_media_share_the_next_round),
		cmocka_unit_test(who_is_served_by_a_round_that_ran_before_is_not_waited_for),
		cmocka_unit_test(what_goes_while_it_is_looked_for_is_no_damage),
		cmocka_unit_test(a_full_volume_keeps_what_it_has_and_lets_removes_through),
		cmocka_unit_test(any_single_failure_is_an_error_or_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
