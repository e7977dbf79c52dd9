/* What goes wrong under a program: disks that fail, power that goes, programs that end between the
 * two phases of a commit. And what the system that this one is modelled on gets wrong, each so that
 * it would be noticed here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/engine.h"
#include "tests/lib/world.h"

static const struct sop_store_opts ints = {.key_type = SOP_KEY_INT64, .slot_length = 500};

static struct actor one(struct world *w)
{
	return (struct actor){.w = w, .rng = 1};
}

static int put(struct sop_txn *t, uint64_t store, int64_t key, const void *val, size_t len,
	struct sop_err *e)
{
	struct sop_key k = sop_key_int(key);

	return sop_kv_upsert(t, store, &k, val, len, e);
}

static int put_one(
	struct world *w, uint64_t store, int64_t key, const void *val, size_t len, unsigned flags)
{
	struct sop_txn *t = fixture_begin(&w->f, SOP_TXN_WRITE);
	int rc = put(t, store, key, val, len, &w->f.e);

	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, flags, &w->f.e);
}

/* 1: there, with these bytes; 0: not there; fails the test on other bytes. */
static int has(struct world *w, uint64_t store, int64_t key, const void *val, size_t len)
{
	struct sop_key k = sop_key_int(key);
	void *got;
	size_t n;
	int rc = sop_kv_get(sop_volume_latest(w->f.v), store, &k, 0, &got, &n, &w->f.e);

	if (rc == -ENOENT)
		return 0;
	fixture_ok(&w->f, rc);
	assert_int_equal(n, len);
	assert_memory_equal(got, val, len);
	free(got);
	return 1;
}

static uint64_t count(struct world *w, uint64_t store)
{
	uint64_t n;

	fixture_ok(&w->f, sop_count(sop_volume_latest(w->f.v), store, &n, &w->f.e));
	return n;
}

static void power_cut(struct world *w)
{
	sim_power_on(w->f.sim, SIM_KEEP_SYNCED_ONLY, 1);
	sop_volume_close(w->f.v, NULL);
	w->f.v = NULL;
	world_open(w);
}

/* ---- disks ---- */

static void three_of_four_shard_writes_fail(void **state)
{
	static uint8_t big[50000];
	struct world w;
	struct actor a;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 2, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	fixture_ok(&w.f, put_one(&w, store, 1, "old", 3, SOP_COMMIT_DURABLE));
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(w.f.sim, w.path[i], 0, -EIO, -EIO);
	assert_true(put_one(&w, store, 1, big, sizeof(big), 0) < 0);
	assert_true(put_one(&w, store, 2, big, sizeof(big), 0) < 0);
	assert_int_equal(has(&w, store, 1, "old", 3), 1);
	assert_int_equal(has(&w, store, 2, "", 0), 0);
	assert_int_equal(count(&w, store), 1);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(w.f.sim, w.path[i], 0, 0, 0);
	sop_volume_close(w.f.v, NULL);
	w.f.v = NULL;
	world_open(&w);
	assert_int_equal(has(&w, store, 1, "old", 3), 1);
	assert_int_equal(has(&w, store, 2, "", 0), 0);
	fixture_ok(&w.f, put_one(&w, store, 2, "new", 3, 0));
	world_settle(&w);
	world_release(&w);
}

struct writers {
	uint64_t store;
	unsigned round;
	_Atomic unsigned acked;
};

static void write_meanwhile(struct actor *a)
{
	struct writers *c = a->arg;

	for (unsigned i = 0; i < 20; i++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
		int64_t key = (int64_t)(c->round * 100000 + a->id * 1000 + i);
		uint8_t val[3000];

		fill_random(val, sizeof(val), (uint64_t)key);
		fine(a, put(t, c->store, key, val, sizeof(val), &a->e), "put");
		if (fine(a, sop_txn_commit(t, 0, &a->e), "commit"))
			atomic_fetch_add(&c->acked, 1);
	}
}

static void all_intact(struct world *w, const struct writers *c, unsigned rounds, unsigned threads)
{
	for (unsigned r = 0; r < rounds; r++)
		for (unsigned id = 0; id < threads; id++)
			for (unsigned i = 0; i < 20; i++) {
				int64_t key = (int64_t)(r * 100000 + id * 1000 + i);
				uint8_t val[3000];

				fill_random(val, sizeof(val), (uint64_t)key);
				assert_int_equal(has(w, c->store, key, val, sizeof(val)), 1);
			}
	assert_int_equal(count(w, c->store), c->acked);
}

/* A disk fails, writes go on, it is back; then another does the same. */
static void failover(bool folders, unsigned threads)
{
	struct writers c = {0};
	struct world w;
	struct actor a;

	world_init(&w, folders, 2, 2, 0);
	a = one(&w);
	c.store = actor_store(&a, "s", &ints);
	for (unsigned round = 0; round < 3; round++) {
		c.round = round;
		if (round)
			fixture_ok(
				&w.f, sop_disk_offline(w.f.v, round == 1 ? "d1" : "d3", 0, &w.f.e));
		world_run(&w, threads, write_meanwhile, &c);
		all_intact(&w, &c, round + 1, threads);
		if (round)
			fixture_ok(&w.f,
				sop_disk_online(w.f.v, round == 1 ? "d1" : "d3", NULL, &w.f.e));
		world_close(&w); /* and it goes on healing at the next mount */
		world_open(&w);
		all_intact(&w, &c, round + 1, threads);
	}
	world_settle(&w);
	world_release(&w);
}

static void failover_alone(void **state)
{
	(void)state;
	failover(false, 1);
	failover(true, 1);
}

static void failover_by_sixteen_threads(void **state)
{
	(void)state;
	failover(false, 16);
	failover(true, 16);
}

/* Metadata survives as many losses as data: any two of four. */
static void any_two_disks_may_go(void **state)
{
	(void)state;
	for (unsigned x = 0; x < 4; x++)
		for (unsigned y = x + 1; y < 4; y++) {
			static uint8_t val[5000];
			struct world w;
			struct actor a;
			uint64_t store;

			world_init(&w, false, 2, 2, 0);
			a = one(&w);
			store = actor_store(&a, "s", &ints);
			fill_random(val, sizeof(val), x * 4 + y);
			fixture_ok(
				&w.f, put_one(&w, store, 1, val, sizeof(val), SOP_COMMIT_DURABLE));
			world_close(&w);
			sim_disk_gone(w.f.sim, w.path[x], true);
			sim_disk_gone(w.f.sim, w.path[y], true);
			w.f.opts.degraded = true; /* half of the labels are here */
			world_open(&w);
			assert_int_equal(has(&w, store, 1, val, sizeof(val)), 1);
			fixture_ok(&w.f, put_one(&w, store, 2, val, sizeof(val), 0));
			assert_int_equal(count(&w, store), 2);
			world_close(&w);
			sim_disk_gone(w.f.sim, w.path[x], false);
			sim_disk_gone(w.f.sim, w.path[y], false);
			world_open(&w);
			assert_int_equal(has(&w, store, 2, val, sizeof(val)), 1);
			world_release(&w);
		}
}

struct shard_files {
	struct world *w;
	unsigned disk;
	int what; /* 0 rot, 1 cut off, 2 empty */
};

static void spoil(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct shard_files *s = arg;
	uint8_t rot[64];

	(void)allocated;
	if (strncmp(file, "segments/", 9))
		return;
	fill_random(rot, sizeof(rot), size);
	if (s->what == 1)
		sim_set_size(s->w->f.sim, s->w->path[s->disk], file, 5000);
	else if (s->what == 2)
		sim_set_size(s->w->f.sim, s->w->path[s->disk], file, 0);
	for (uint64_t at = 4096; at < size && !s->what; at += 512)
		sim_poke(s->w->f.sim, s->w->path[s->disk], file, at, rot, sizeof(rot));
}

/* Two shards gone and one corrupt: an error, and never other bytes. A shard that is short or empty
 * is a bad shard. An empty value is a value. */
static void bad_shards_are_never_believed(void **state)
{
	static uint8_t val[60000];

	(void)state;
	for (int what = 0; what < 3; what++)
		for (unsigned gone = 0; gone < 3; gone++) {
			struct shard_files s = {.disk = 0, .what = what};
			struct sop_key k = sop_key_int(1);
			struct world w;
			struct actor a;
			uint64_t store;
			void *got;
			size_t n;
			int rc;

			world_init(&w, false, 2, 2, 0);
			s.w = &w;
			a = one(&w);
			store = actor_store(&a, "s", &ints);
			fill_random(val, sizeof(val), gone);
			fixture_ok(&w.f, put_one(&w, store, 1, val, sizeof(val), 0));
			fixture_ok(&w.f, put_one(&w, store, 2, "", 0, SOP_COMMIT_DURABLE));
			assert_int_equal(has(&w, store, 2, "", 0), 1);
			sim_each_file(w.f.sim, w.path[0], spoil, &s);
			for (unsigned i = 0; i < gone; i++)
				sim_disk_gone(w.f.sim, w.path[1 + i], true);
			rc = sop_kv_get(sop_volume_latest(w.f.v), store, &k, 0, &got, &n, &w.f.e);
			if (gone < 2) {
				fixture_ok(&w.f, rc);
				assert_int_equal(n, sizeof(val));
				assert_memory_equal(got, val, n);
			} else {
				assert_true(rc < 0);
				assert_null(got);
			}
			free(got);
			world_release(&w);
		}
}

/* ---- power ---- */

/* Committed durably is on the media; a leaf can be written at once after a crash. */
static void what_is_durable_survives_a_power_cut(void **state)
{
	struct world w;
	struct actor a;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 2, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	for (int64_t i = 0; i < 50; i++)
		fixture_ok(&w.f, put_one(&w, store, i, &i, sizeof(i), SOP_COMMIT_DURABLE));
	power_cut(&w);
	for (int64_t i = 0; i < 50; i++) {
		assert_int_equal(has(&w, store, i, &i, sizeof(i)), 1);
		fixture_ok(&w.f, put_one(&w, store, i, "after", 5, 0));
	}
	assert_int_equal(count(&w, store), 50);
	world_settle(&w);
	world_release(&w);
}

/* ---- two phases ---- */

static int note_id(void *arg, const struct sop_txn_prepared *p)
{
	uint64_t *id = arg;

	assert_string_equal(p->note, "with the other database");
	assert_true(p->items >= 3);
	assert_true(p->time_ns != 0);
	*id = p->id;
	return 0;
}

/* Handles of programs that have ended: nobody may use them, and nobody frees them. (Volatile: what
 * is never read would not be kept, and they were lost.) */
static struct sop_txn *volatile ended[4];
static unsigned n_ended;

static uint64_t prepare(
	struct world *w, uint64_t store, uint64_t dups, const uint8_t *big, size_t len)
{
	struct sop_txn_opts o = {.mode = SOP_TXN_WRITE, .note = "with the other database"};
	struct sop_key d = sop_key_string("d");
	struct sop_txn *t;
	uint64_t id;

	fixture_ok(&w->f, sop_txn_begin(&t, w->f.v, &o, &w->f.e));
	fixture_ok(&w->f, put(t, store, 1, "new", 3, &w->f.e));
	fixture_ok(&w->f, put(t, store, 2, big, len, &w->f.e));
	fixture_ok(&w->f, sop_kv_add(t, dups, &d, "x", 1, NULL, &w->f.e));
	fixture_ok(&w->f, sop_txn_prepare(t, &w->f.e));
	id = sop_txn_id(t);
	assert_true(id != 0);
	/* The program ends here: nobody commits, nobody rolls back. */
	ended[n_ended++] = t;
	return id;
}

struct written {
	uint64_t store, dups;
	unsigned in_store, in_dups, others;
};

static int note_written(void *arg, const struct sop_event *x)
{
	struct written *n = arg;

	if (x->store == n->store && x->ino && x->key_len == 8)
		n->in_store++;
	else if (x->store == n->dups && x->ino)
		n->in_dups++;
	else
		n->others++;
	return 0;
}

static void a_prepared_transaction_survives_and_is_resolved_by_number(void **state)
{
	static uint8_t big[1 << 20];

	(void)state;
	fill_random(big, sizeof(big), 7);
	for (unsigned commit = 0; commit < 2; commit++) {
		struct sop_key d = sop_key_string("d");
		uint64_t store, dups, id, found = 0;
		struct written n;
		struct world w;
		struct actor a;
		struct sop_txn *t;

		world_init(&w, false, 2, 2, 0);
		a = one(&w);
		store = actor_store(&a, "s", &ints);
		dups = actor_store(&a, "d",
			&(struct sop_store_opts){.key_type = SOP_KEY_STRING, .duplicates = true});
		fixture_ok(&w.f, put_one(&w, store, 1, "old", 3, 0));
		fixture_ok(&w.f, put_one(&w, store, 9, "old", 3, 0));
		id = prepare(&w, store, dups, big, sizeof(big));
		power_cut(&w);
		assert_int_equal(count(&w, store), 2);
		assert_int_equal(has(&w, store, 1, "old", 3), 1);
		fixture_ok(&w.f, sop_prepared_list(w.f.v, note_id, &found, &w.f.e));
		assert_true(found == id);
		n = (struct written){store, dups, 0, 0, 0};
		fixture_ok(&w.f, sop_prepared_items(w.f.v, id, note_written, &n, &w.f.e));
		assert_true(n.in_store == 2 && n.in_dups == 1 && !n.others);
		assert_int_equal(
			sop_prepared_items(w.f.v, id + 1, note_written, &n, &w.f.e), -ENOENT);
		/* It still holds what it needs: its keys, the next duplicate, and no more. */
		assert_int_equal(put_one(&w, store, 1, "mine", 4, 0), SOP_ECONFLICT);
		fixture_ok(&w.f, put_one(&w, store, 9, "mine", 4, 0));
		t = fixture_begin(&w.f, SOP_TXN_WRITE);
		fixture_ok(&w.f, sop_kv_add(t, dups, &d, "y", 1, NULL, &w.f.e));
		assert_int_equal(sop_txn_commit(t, 0, &w.f.e), SOP_ECONFLICT);
		fixture_check(&w.f, true); /* its blobs are accounted for */
		world_close(&w);
		world_open(&w);
		if (commit)
			fixture_ok(
				&w.f, sop_prepared_commit(w.f.v, id, SOP_COMMIT_DURABLE, &w.f.e));
		else
			fixture_ok(&w.f, sop_prepared_rollback(w.f.v, id, &w.f.e));
		assert_int_equal(sop_prepared_commit(w.f.v, id, 0, &w.f.e), -ENOENT);
		if (commit)
			power_cut(&w);
		assert_int_equal(count(&w, store), commit ? 3 : 2);
		assert_int_equal(count(&w, dups), commit);
		assert_int_equal(has(&w, store, 2, big, sizeof(big)), (int)commit);
		assert_int_equal(has(&w, store, 1, commit ? "new" : "old", 3), 1);
		fixture_ok(&w.f, put_one(&w, store, 1, "mine", 4, 0));
		world_settle(&w);
		world_release(&w);
	}
}

/* Cut at every step of prepare and commit: before, held or done, and never anything else. */
static void a_power_cut_at_any_step_of_two_phases(void **state)
{
	static uint8_t big[30000];
	bool seen[3] = {false};
	uint64_t steps;

	(void)state;
	fill_random(big, sizeof(big), 8);
	for (uint64_t cut = 0;; cut++) {
		uint64_t store, dups, id = 0, found = 0;
		struct world w;
		struct actor a;

		world_init(&w, false, 2, 1, 0);
		world_close(&w);
		w.f.opts.inline_io = w.f.opts.no_threads = true;
		world_open(&w);
		a = one(&w);
		store = actor_store(&a, "s", &ints);
		dups = actor_store(&a, "d",
			&(struct sop_store_opts){.key_type = SOP_KEY_STRING, .duplicates = true});
		fixture_ok(&w.f, put_one(&w, store, 1, "old", 3, SOP_COMMIT_DURABLE));
		steps = sim_steps(w.f.sim);
		sim_crash_at(w.f.sim, steps + 1 + cut);
		{
			struct sop_txn_opts o = {
				.mode = SOP_TXN_WRITE, .note = "with the other database"};
			struct sop_key d = sop_key_string("d");
			struct sop_txn *t;
			int rc;

			fixture_ok(&w.f, sop_txn_begin(&t, w.f.v, &o, &w.f.e));
			fixture_ok(&w.f, put(t, store, 1, "new", 3, &w.f.e));
			fixture_ok(&w.f, put(t, store, 2, big, sizeof(big), &w.f.e));
			fixture_ok(&w.f, sop_kv_add(t, dups, &d, "x", 1, NULL, &w.f.e));
			rc = sop_txn_prepare(t, &w.f.e);
			if (rc) {
				sop_txn_rollback(t);
			} else {
				id = sop_txn_id(t);
				(void)sop_txn_commit(t, SOP_COMMIT_DURABLE, &w.f.e);
			}
		}
		if (!sim_crashed(w.f.sim)) {
			world_release(&w);
			assert_true(cut > 5);
			break;
		}
		sim_power_on(w.f.sim, SIM_KEEP_RANDOM, cut);
		sop_volume_close(w.f.v, NULL);
		w.f.v = NULL;
		world_open(&w);
		fixture_ok(&w.f, sop_prepared_list(w.f.v, note_id, &found, &w.f.e));
		if (found) {
			assert_int_equal(has(&w, store, 1, "old", 3), 1);
			assert_int_equal(count(&w, store), 1);
			fixture_ok(&w.f, sop_prepared_commit(w.f.v, found, 0, &w.f.e));
			seen[1] = true;
		}
		if (found || count(&w, store) == 2) {
			assert_int_equal(has(&w, store, 1, "new", 3), 1);
			assert_int_equal(has(&w, store, 2, big, sizeof(big)), 1);
			assert_int_equal(count(&w, dups), 1);
			seen[2] |= !found;
		} else {
			/* Prepared was on the media: it cannot be gone. */
			assert_true(!id);
			assert_int_equal(has(&w, store, 1, "old", 3), 1);
			assert_int_equal(count(&w, dups), 0);
			seen[0] = true;
		}
		world_settle(&w);
		world_release(&w);
	}
	assert_true(seen[0] && seen[1] && seen[2]);
}

/* ---- what the model gets wrong ---- */

/* The key taken away is the one meant, wherever it lies in the tree, while its neighbours change.
 */
static void the_right_key_is_removed(void **state)
{
	enum { N = 600 };
	struct world w;
	struct actor a;
	uint64_t store, rng = 5;
	bool there[N];
	unsigned left = N;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	store = actor_store(
		&a, "s", &(struct sop_store_opts){.key_type = SOP_KEY_INT64, .slot_length = 4});
	for (int64_t i = 0; i < N; i++) {
		fixture_ok(&w.f, put_one(&w, store, i, &i, sizeof(i), 0));
		there[i] = true;
	}
	while (left > N / 4) {
		unsigned x = (unsigned)(next_random(&rng) % (N - 1));
		struct sop_txn *t = fixture_begin(&w.f, SOP_TXN_WRITE);
		struct sop_key k = sop_key_int(x);
		int64_t same = x + 1;

		fixture_ok(&w.f, there[x] ? sop_kv_remove(t, store, &k, 0, &w.f.e) : 0);
		if (there[x + 1])
			fixture_ok(&w.f, put(t, store, same, &same, sizeof(same), &w.f.e));
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
		left -= there[x];
		there[x] = false;
	}
	for (int64_t i = 0; i < N; i++)
		assert_int_equal(has(&w, store, i, &i, sizeof(i)), there[i]);
	assert_int_equal(count(&w, store), left);
	world_settle(&w);
	world_release(&w);
}

/* A big value is stored once, and a transaction that only removes gives its space back. */
static void big_values_are_stored_once(void **state)
{
	static uint8_t big[4 << 20];
	struct sop_volume_stat before, after;
	struct sop_key k = sop_key_int(1);
	struct sop_txn *t;
	struct world w;
	struct actor a;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 2, 0);
	a = one(&w);
	store = actor_store(&a, "s",
		&(struct sop_store_opts){.key_type = SOP_KEY_INT64, .value_class = SOP_VALUE_BIG});
	world_settle(&w);
	sop_volume_stat(w.f.v, &before);
	fill_random(big, sizeof(big), 3);
	fixture_ok(&w.f, put_one(&w, store, 1, big, sizeof(big), 0));
	sop_volume_stat(w.f.v, &after);
	assert_true(after.live_bytes - before.live_bytes < sizeof(big) * 2 * 102 / 100);
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	fixture_ok(&w.f, sop_kv_remove(t, store, &k, 0, &w.f.e));
	fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	world_settle(&w);
	sop_volume_stat(w.f.v, &after);
	assert_true(after.live_bytes < before.live_bytes + 200000);
	world_release(&w);
}

/* Ten gigabytes, most of them a hole: what is changed is what is written. */
static void a_change_in_a_huge_value_writes_what_it_changes(void **state)
{
	const uint64_t size = 10ull << 30;
	struct sop_key k = sop_key_int(1);
	struct sim_counts c;
	struct sop_value *x;
	struct sop_txn *t;
	char buf[8] = "";
	struct world w;
	struct actor a;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 2, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	fixture_ok(&w.f, put_one(&w, store, 1, "begin", 5, 0));
	for (unsigned i = 0; i < 3; i++) {
		t = fixture_begin(&w.f, SOP_TXN_WRITE);
		fixture_ok(&w.f, sop_kv_open(&x, t, store, &k, 0, SOP_VALUE_WRITE, &w.f.e));
		if (!i)
			fixture_ok(&w.f, sop_value_truncate(x, size, &w.f.e));
		else
			assert_int_equal(
				sop_value_write(x, "middle", 6, size / 2 + i * 3, &w.f.e), 6);
		sop_value_close(x);
		(void)sim_take_counts(w.f.sim);
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
		c = sim_take_counts(w.f.sim);
		assert_true(c.write_bytes < 64 << 10);
	}
	fixture_ok(&w.f, sop_kv_open(&x, sop_volume_latest(w.f.v), store, &k, 0, 0, &w.f.e));
	assert_int_equal(sop_value_size(x), size);
	assert_int_equal(sop_value_read(x, buf, 5, size / 2 + 4, &w.f.e), 5);
	assert_memory_equal(buf, "idmid", 5);
	sop_value_close(x);
	world_settle(&w);
	world_release(&w);
}

/* A transaction that has slept past its longest time is refused, whoever has been there meanwhile
 * or not. */
static void too_late_is_refused(void **state)
{
	struct world w;
	struct actor a;
	struct sop_txn *t;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	fixture_ok(&w.f, sop_txn_begin(&t, w.f.v,
				 &(struct sop_txn_opts){.mode = SOP_TXN_WRITE, .timeout_ms = 60000},
				 &w.f.e));
	fixture_ok(&w.f, put(t, store, 1, "late", 4, &w.f.e));
	fixture_skipped_ms += 61000;
	assert_int_equal(sop_txn_commit(t, 0, &w.f.e), SOP_ETIMEOUT);
	assert_int_equal(has(&w, store, 1, "", 0), 0);
	assert_int_equal(sop_txn_begin(&t, w.f.v,
				 &(struct sop_txn_opts){.timeout_ms = 61 * 60 * 1000}, &w.f.e),
		-EINVAL);
	world_settle(&w);
	world_release(&w);
}

struct bank {
	uint64_t store[2];
	_Atomic unsigned stop, sums;
};

static void pay(struct actor *a)
{
	struct bank *b = a->arg;

	for (unsigned i = 0; i < 60; i++) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_WRITE);
		struct sop_key k = sop_key_int(a->id);
		int64_t *v[2];
		size_t n;
		int rc = 0;

		for (unsigned s = 0; s < 2 && !rc; s++)
			rc = sop_kv_get(t, b->store[s], &k, 0, (void **)&v[s], &n, &a->e);
		if (!fine(a, rc, "get"))
			return;
		v[0][0] -= 1;
		v[1][0] += 1;
		for (unsigned s = 0; s < 2; s++) {
			fine(a, sop_kv_update(t, b->store[s], &k, 0, v[s], n, &a->e), "update");
			free(v[s]);
		}
		fine(a, sop_txn_commit(t, 0, &a->e), "commit");
	}
	b->stop++;
}

/* A commit over many nodes and two stores is never seen in part. */
static void audit(struct actor *a)
{
	struct bank *b = a->arg;

	if (a->id < 8) {
		pay(a);
		return;
	}
	while (b->stop < 8) {
		struct sop_txn *t = actor_begin(a, SOP_TXN_NO_CHECK);
		int64_t sum = 0, *v;
		size_t n;

		for (int64_t i = 0; i < 8; i++)
			for (unsigned s = 0; s < 2; s++) {
				struct sop_key k = sop_key_int(i);

				if (!fine(a,
					    sop_kv_get(
						    t, b->store[s], &k, 0, (void **)&v, &n, &a->e),
					    "get"))
					break;
				sum += *v;
				free(v);
			}
		sop_txn_rollback(t);
		need(a, sum == 8 * 1000, "the sum is the same in every snapshot");
		b->sums++;
	}
}

static void a_commit_is_seen_whole(void **state)
{
	struct bank b = {0};
	struct world w;
	struct actor a;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	for (unsigned s = 0; s < 2; s++) {
		b.store[s] = actor_store(&a, s ? "b" : "a",
			&(struct sop_store_opts){.key_type = SOP_KEY_INT64, .slot_length = 2});
		for (int64_t i = 0, cents = s ? 0 : 1000; i < 8; i++)
			fixture_ok(&w.f, put_one(&w, b.store[s], i, &cents, sizeof(cents), 0));
	}
	world_run(&w, 12, audit, &b);
	assert_true(b.sums > 0);
	world_settle(&w);
	world_release(&w);
}

/* One small commit is one append to each replica of the journal: no file made, no sync, few bytes.
 */
static void a_small_commit_costs_little(void **state)
{
	struct sim_counts c;
	struct world w;
	struct actor a;
	uint64_t store;

	(void)state;
	world_init(&w, false, 2, 2, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	world_close(&w);
	w.f.opts.no_threads = true;
	world_open(&w);
	fixture_ok(&w.f, put_one(&w, store, 0, "x", 1, 0));
	(void)sim_take_counts(w.f.sim);
	for (int64_t i = 1; i <= 100; i++)
		fixture_ok(&w.f, put_one(&w, store, i, "x", 1, 0));
	c = sim_take_counts(w.f.sim);
	assert_int_equal(c.writes, 300);
	assert_int_equal(c.creates, 0);
	assert_int_equal(c.syncs, 0);
	assert_true(c.write_bytes < 300 * 512);
	world_settle(&w);
	world_release(&w);
}

/* ---- profiles ---- */

/* Two profiles on different disks of one volume: what one is written to, the other's disks do not
 * get; and each bears the losses it was made for. */
static void several_profiles_over_different_disks(void **state)
{
	static uint8_t big[200000];
	const char *mirrors[] = {"d5", "d6"};
	struct sop_profile_opts p = {
		.name = "mirror", .k = 1, .m = 1, .disks = mirrors, .n_disks = 2};
	struct sop_profile_opts many = {.name = "many", .k = 5, .m = 2};
	struct sop_profile_info info;
	struct sop_store_opts o = ints, has_o;
	char buf[SOP_STORE_INFO_BYTES];
	uint64_t plain, mirror, named, before[6];
	struct world w;
	struct actor a;
	struct sop_txn *t;

	(void)state;
	world_init(&w, false, 2, 2, 2);
	a = one(&w);
	fixture_ok(&w.f, sop_profile_add(w.f.v, &p, &w.f.e));
	assert_int_equal(sop_profile_add(w.f.v, &p, &w.f.e), -EEXIST);
	assert_int_equal(sop_profile_add(w.f.v, &many, &w.f.e), -EINVAL);
	p.name = "far";
	p.no_repair = true;
	fixture_ok(&w.f, sop_profile_add(w.f.v, &p, &w.f.e));
	world_close(&w); /* they are on the labels */
	world_open(&w);
	assert_true(sop_profile_get(w.f.v, 1, &info));
	assert_string_equal(info.name, "mirror");
	assert_true(info.k == 1 && info.m == 1 && info.repair && info.disks == 2 &&
		    info.disk[0] == 4 && info.disk[1] == 5);
	assert_true(sop_profile_get(w.f.v, 2, &info) && !info.repair);
	assert_false(sop_profile_get(w.f.v, 3, &info));
	o.profile = "mirror";
	mirror = actor_store(&a, "m", &o);
	o.profile = NULL;
	named = actor_store(&a, "far", &o);
	plain = actor_store(&a, "plain", &o);
	fixture_ok(&w.f,
		sop_store_info(sop_volume_latest(w.f.v), named, &has_o, buf, sizeof(buf), &w.f.e));
	assert_string_equal(has_o.profile, "far");
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	o.profile = "none";
	assert_int_equal(sop_store_at(t, "n", SOP_STORE_CREATE, &o, &plain, &w.f.e), -ENOENT);
	sop_txn_rollback(t);
	o.profile = NULL;
	plain = actor_store(&a, "plain", &o);
	world_settle(&w);
	for (unsigned i = 0; i < 6; i++)
		before[i] = sim_allocated(w.f.sim, w.path[i]);
	fill_random(big, sizeof(big), 1);
	/* Both in one transaction: two appends of different shape in one commit. */
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	fixture_ok(&w.f, put(t, mirror, 1, big, sizeof(big), &w.f.e));
	fixture_ok(&w.f, put(t, mirror, 2, big, 3000, &w.f.e));
	fixture_ok(&w.f, put(t, plain, 1, big, 5000, &w.f.e));
	fixture_ok(&w.f, put(t, named, 1, "far", 3, &w.f.e));
	fixture_ok(&w.f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &w.f.e));
	world_settle(&w);
	for (unsigned i = 4; i < 6; i++)
		assert_true(sim_allocated(w.f.sim, w.path[i]) - before[i] >= sizeof(big));
	for (unsigned i = 0; i < 4; i++)
		assert_true(sim_allocated(w.f.sim, w.path[i]) < before[i] + sizeof(big));
	assert_int_equal(has(&w, mirror, 1, big, sizeof(big)), 1);
	world_close(&w);
	sim_disk_gone(w.f.sim, w.path[5], true);
	world_open(&w);
	assert_int_equal(has(&w, mirror, 1, big, sizeof(big)), 1);
	assert_int_equal(has(&w, mirror, 2, big, 3000), 1);
	assert_int_equal(has(&w, plain, 1, big, 5000), 1);
	assert_int_equal(has(&w, named, 1, "far", 3), 1);
	world_release(&w);
}

static void values_go_where_their_class_says(void **state)
{
	static uint8_t big[3000];
	struct world w;
	struct actor a;
	uint64_t small, medium;
	struct sop_volume_stat before, after;
	struct sop_store_opts o = ints;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	o.value_class = SOP_VALUE_SMALL;
	small = actor_store(&a, "small", &o);
	o.value_class = SOP_VALUE_MEDIUM;
	medium = actor_store(&a, "medium", &o);
	sop_volume_stat(w.f.v, &before);
	fixture_ok(&w.f, put_one(&w, small, 1, big, 2048, 0));
	assert_int_equal(put_one(&w, small, 2, big, 2049, 0), -EFBIG);
	sop_volume_stat(w.f.v, &after);
	assert_int_equal(
		after.live_bytes, before.live_bytes); /* in the journal, and then in a node */
	fixture_ok(&w.f, put_one(&w, medium, 1, "m", 1, 0));
	sop_volume_stat(w.f.v, &after);
	assert_true(after.live_bytes > before.live_bytes);
	assert_int_equal(has(&w, medium, 1, "m", 1), 1);
	world_settle(&w);
	world_release(&w);
}

static uint64_t nodes_of(bool balance)
{
	struct sop_store_opts o = {
		.key_type = SOP_KEY_INT64, .slot_length = 20, .balance = balance};
	struct sop_check_report r;
	uint64_t store, rng = 11;
	struct world w;
	struct actor a;

	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	store = actor_store(&a, "s", &o);
	for (unsigned i = 0; i < 40; i++) {
		struct sop_txn *t = fixture_begin(&w.f, SOP_TXN_WRITE);

		for (unsigned j = 0; j < 100; j++)
			fixture_ok(&w.f, put(t, store, (int64_t)next_random(&rng), "x", 1, &w.f.e));
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	}
	assert_int_equal(count(&w, store), 4000);
	/* And two of three go again. */
	rng = 11;
	for (unsigned i = 0; i < 40; i++) {
		struct sop_txn *t = fixture_begin(&w.f, SOP_TXN_WRITE);

		for (unsigned j = 0; j < 100; j++) {
			struct sop_key k = sop_key_int((int64_t)next_random(&rng));

			fixture_ok(&w.f, j % 3 ? sop_kv_remove(t, store, &k, 0, &w.f.e) : 0);
		}
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	}
	world_settle(&w);
	fixture_ok(&w.f, sop_volume_check(w.f.v, false, NULL, NULL, &r, &w.f.e));
	assert_int_equal(r.errors, 0);
	world_release(&w);
	return r.nodes;
}

static void balanced_leaves_are_fewer(void **state)
{
	uint64_t plain = nodes_of(false), balanced = nodes_of(true);

	(void)state;
	if (balanced >= plain)
		fail_msg("%llu nodes balanced, %llu not", (unsigned long long)balanced,
			(unsigned long long)plain);
}

/* A small store is read, then a large one of more than the memory: how many items of the small one
 * can still be read when there is no disk any more? */
static unsigned kept_in_memory(enum sop_cache_class small_class, enum sop_cache_class large_class)
{
	struct sop_store_opts o = {.key_type = SOP_KEY_INT64, .cache_class = small_class};
	uint64_t small, large;
	char val[1000] = "";
	unsigned kept = 0;
	struct world w;
	struct actor a;

	world_init(&w, false, 1, 0, 0);
	a = one(&w);
	small = actor_store(&a, "small", &o);
	o.cache_class = large_class;
	large = actor_store(&a, "large", &o);
	for (int64_t i = 0; i < 20; i++) {
		struct sop_txn *t = fixture_begin(&w.f, SOP_TXN_WRITE);

		for (int64_t j = 0; j < 500; j++) {
			if (i < 1)
				fixture_ok(&w.f, put(t, small, j, val, sizeof(val), &w.f.e));
			fixture_ok(&w.f, put(t, large, i * 500 + j, val, sizeof(val), &w.f.e));
		}
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	}
	world_close(&w);
	w.f.opts.cache_bytes = 4 << 20;
	w.f.opts.no_threads = true;
	world_open(&w);
	for (int64_t i = 0; i < 500; i++)
		assert_int_equal(has(&w, small, i, val, sizeof(val)), 1);
	for (int64_t i = 0; i < 10000; i++)
		assert_int_equal(has(&w, large, i, val, sizeof(val)), 1);
	sim_disk_gone(w.f.sim, w.path[0], true);
	for (int64_t i = 0; i < 500; i++) {
		struct sop_key k = sop_key_int(i);
		void *got;
		size_t n;

		kept += !sop_kv_get(sop_volume_latest(w.f.v), small, &k, 0, &got, &n, NULL);
		free(got);
	}
	world_release(&w);
	return kept;
}

static void a_cold_store_leaves_the_memory_to_a_hot_one(void **state)
{
	(void)state;
	assert_int_equal(kept_in_memory(SOP_CACHE_HOT, SOP_CACHE_COLD), 500);
	assert_in_range(kept_in_memory(SOP_CACHE_NORMAL, SOP_CACHE_NORMAL), 0, 100);
	assert_in_range(kept_in_memory(SOP_CACHE_COLD, SOP_CACHE_HOT), 0, 100);
}

/* ---- the rest ---- */

static void note_hook(void *arg, uint64_t lsn)
{
	uint64_t *last = arg;

	assert_true(lsn > *last);
	*last = lsn;
}

static int lose_twice(struct sop_txn *t, void *arg, struct sop_err *e)
{
	unsigned *tries = arg;

	(void)t;
	return ++*tries < 3 ? sop_fail(e, SOP_ECONFLICT, "made up") : 0;
}

static int never(struct sop_txn *t, void *arg, struct sop_err *e)
{
	(void)t;
	++*(unsigned *)arg;
	return sop_fail(e, SOP_ECONFLICT, "made up");
}

static void hooks_and_retries(void **state)
{
	struct sop_txn_opts o = {.mode = SOP_TXN_WRITE};
	uint64_t last = 0, was, store;
	unsigned tries = 0;
	struct sop_txn *t;
	struct world w;
	struct actor a;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	store = actor_store(&a, "s", &ints);
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	fixture_ok(&w.f, sop_txn_on_commit(t, note_hook, &last, &w.f.e));
	fixture_ok(&w.f, put(t, store, 1, "x", 1, &w.f.e));
	fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	assert_true(last > 0);
	was = last;
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	fixture_ok(&w.f, sop_txn_on_commit(t, note_hook, &last, &w.f.e));
	fixture_ok(&w.f, put(t, store, 1, "y", 1, &w.f.e));
	sop_txn_rollback(t);
	assert_true(last == was);
	fixture_ok(&w.f, sop_txn_run(w.f.v, &o, 0, 0, lose_twice, &tries, &w.f.e));
	assert_int_equal(tries, 3);
	tries = 0;
	assert_int_equal(sop_txn_run(w.f.v, &o, 4, 0, never, &tries, &w.f.e), SOP_ECONFLICT);
	assert_int_equal(tries, 4);
	world_settle(&w);
	world_release(&w);
}

/* Twenty thousand of one key: adding does not slow down, and each is found by its id. */
static void many_duplicates_of_one_key(void **state)
{
	enum { N = 20000 };
	struct sop_store_opts o = {.key_type = SOP_KEY_STRING, .duplicates = true};
	uint64_t store, *id = calloc(N, sizeof(*id));
	struct sop_key k = sop_key_string("the key");
	struct sop_txn *t;
	struct world w;
	struct actor a;

	(void)state;
	world_init(&w, false, 2, 1, 0);
	a = one(&w);
	store = actor_store(&a, "s", &o);
	for (unsigned i = 0; i < N; i += 1000) {
		t = fixture_begin(&w.f, SOP_TXN_WRITE);
		for (unsigned j = i; j < i + 1000; j++)
			fixture_ok(&w.f, sop_kv_add(t, store, &k, &j, sizeof(j), &id[j], &w.f.e));
		fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	}
	assert_int_equal(count(&w, store), N);
	for (unsigned i = 0; i < N; i += 997) {
		unsigned *v;
		size_t n;

		fixture_ok(&w.f, sop_kv_get(sop_volume_latest(w.f.v), store, &k, id[i], (void **)&v,
					 &n, &w.f.e));
		assert_int_equal(*v, i);
		free(v);
	}
	t = fixture_begin(&w.f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < 2000; i++)
		fixture_ok(&w.f, sop_kv_remove(t, store, &k, id[(i * 7) % N], &w.f.e));
	fixture_ok(&w.f, sop_txn_commit(t, 0, &w.f.e));
	assert_int_equal(count(&w, store), N - 2000);
	world_settle(&w);
	free(id);
	world_release(&w);
}

/* ---- a sync that lacks something of ours ---- */

static int note_segment(void *arg, const struct sop_extent_layout *x)
{
	*(uint64_t *)arg = x->segment;
	return 1;
}

/* After the death of a program what it had written is synced by files that are opened for it. When
 * there is no descriptor for one of them, none is synced: an error of another would be told to this
 * call alone, which does not listen, and not to the next. */
static void a_sync_that_cannot_begin_asks_no_disk(void **state)
{
	uint64_t store, segment = 0;
	struct fixture f;
	uint8_t *val = malloc(100000);
	struct sim_counts counts;

	(void)state;
	fixture_init(&f, 2, 1, 0);
	fixture_ok(&f, fixture_open(&f));
	fill_random(val, 100000, 1);
	fixture_ok(&f, fixture_store(&f, "s", &store));
	fixture_ok(&f, fixture_upsert(&f, store, "a", val, 100000, true));
	assert_int_equal(sop_value_layout(sop_volume_latest(f.v), SOP_NAME(store, "a"), false,
				 note_segment, &segment, &f.e),
		1);
	fixture_reopen(&f);
	sop_segments_cached(f.v->seg, segment, 7);
	fixture_ok(&f, fixture_upsert(&f, store, "b", val, 100000, false));
	sim_disk_error(f.sim, f.path[2], -EMFILE, 0, 0); /* reads: to open for writing is one */
	sim_take_counts(f.sim);
	assert_int_equal(sop_volume_sync(f.v, &f.e), -EMFILE);
	counts = sim_take_counts(f.sim);
	assert_int_equal(counts.syncs, 0);
	sim_disk_error(f.sim, f.path[2], 0, 0, 0);
	fixture_ok(&f, sop_volume_sync(f.v, &f.e));
	counts = sim_take_counts(f.sim);
	assert_true(counts.syncs > 6); /* both segments, and the journal */
	fixture_check(&f, true);
	free(val);
	fixture_release(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_of_four_shard_writes_fail),
		cmocka_unit_test(failover_alone),
		cmocka_unit_test(failover_by_sixteen_threads),
		cmocka_unit_test(any_two_disks_may_go),
		cmocka_unit_test(bad_shards_are_never_believed),
		cmocka_unit_test(what_is_durable_survives_a_power_cut),
		cmocka_unit_test(a_prepared_transaction_survives_and_is_resolved_by_number),
		cmocka_unit_test(a_power_cut_at_any_step_of_two_phases),
		cmocka_unit_test(the_right_key_is_removed),
		cmocka_unit_test(big_values_are_stored_once),
		cmocka_unit_test(a_change_in_a_huge_value_writes_what_it_changes),
		cmocka_unit_test(too_late_is_refused),
		cmocka_unit_test(a_commit_is_seen_whole),
		cmocka_unit_test(a_small_commit_costs_little),
		cmocka_unit_test(several_profiles_over_different_disks),
		cmocka_unit_test(values_go_where_their_class_says),
		cmocka_unit_test(balanced_leaves_are_fewer),
		cmocka_unit_test(a_cold_store_leaves_the_memory_to_a_hot_one),
		cmocka_unit_test(a_sync_that_cannot_begin_asks_no_disk),
		cmocka_unit_test(hooks_and_retries),
		cmocka_unit_test(many_duplicates_of_one_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
