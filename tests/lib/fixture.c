#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/format_volume.h"
#include "tests/lib/fixture.h"

uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9E3779B97F4A7C15ull;

	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
	return x ^ (x >> 31);
}

void fill_random(void *buf, size_t len, uint64_t seed)
{
	uint8_t *p = buf;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = next_random(&seed);

		memcpy(p + i, &x, SOP_MIN((size_t)8, len - i));
	}
}

static void init(struct fixture *f, unsigned k, unsigned m, uint64_t bytes, bool shared)
{
	struct sop_format_opts fo = {
		.k = k, .m = m, .shared = shared, .force = true, .open_disk = sim_open_disk};
	int rc;

	memset(f, 0, sizeof(*f));
	f->sim = sim_new(1);
	f->disks = k + m;
	assert_true(f->disks <= FIXTURE_DISKS);
	for (unsigned i = 0; i < f->disks; i++) {
		snprintf(f->path[i], sizeof(f->path[i]), "/d%u", i + 1);
		f->paths[i] = f->path[i];
		sim_add_disk(f->sim, f->path[i], bytes);
	}
	fo.open_disk_ctx = f->sim;
	rc = sop_format(f->paths, f->disks, &fo, NULL, &f->e);
	if (rc)
		fail_msg("format: %s", f->e.text);
	f->opts = (struct sop_open_opts){.open_disk = sim_open_disk,
		.open_disk_ctx = f->sim,
		.inline_io = true,
		.no_threads = true,
		.fill_bytes = 4096,
		.cache_bytes = 8 << 20};
}

void fixture_init(struct fixture *f, unsigned k, unsigned m, uint64_t bytes)
{
	init(f, k, m, bytes, false);
}

void fixture_init_shared(struct fixture *f, unsigned k, unsigned m)
{
	init(f, k, m, 0, true);
}

void fixture_release(struct fixture *f)
{
	if (f->v)
		sop_volume_close(f->v, NULL);
	f->v = NULL;
	sim_free(f->sim);
}

int fixture_open(struct fixture *f)
{
	memset(&f->e, 0, sizeof(f->e));
	return sop_volume_open(&f->v, f->paths, f->disks, &f->opts, &f->e);
}

int fixture_close(struct fixture *f)
{
	int rc = sop_volume_close(f->v, &f->e);

	f->v = NULL;
	return rc;
}

void fixture_reopen(struct fixture *f)
{
	fixture_ok(f, fixture_close(f));
	fixture_ok(f, fixture_open(f));
}

int fixture_setup(void **state, unsigned k, unsigned m)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!f)
		return -1;
	fixture_init(f, k, m, 0);
	f->opts.clock = &fixture_clock;
	fixture_ok(f, fixture_open(f));
	return 0;
}

int fixture_teardown(void **state)
{
	fixture_release(*state);
	free(*state);
	return 0;
}

void fixture_settle(struct fixture *f)
{
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	fixture_ok(f, sop_volume_tick(f->v, &f->e));
	fixture_check(f, true);
}

static void report(void *arg, const char *line)
{
	(void)arg;
	print_error("check: %s\n", line);
}

void fixture_check(struct fixture *f, bool data)
{
	struct sop_check_report r;
	int rc = sop_volume_check(f->v, data, report, NULL, &r, &f->e);

	if (rc)
		fail_msg("check: %s", f->e.text);
	assert_int_equal(r.errors, 0);
}

int fixture_store(struct fixture *f, const char *path, uint64_t *store)
{
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &f->e);

	if (rc)
		return rc;
	rc = sop_store_at(t, path, SOP_STORE_CREATE, NULL, store, &f->e);
	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, 0, &f->e);
}

int fixture_upsert(struct fixture *f, uint64_t store, const char *key, const void *val, size_t len,
	bool durable)
{
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &f->e);

	if (rc)
		return rc;
	rc = sop_upsert(t, SOP_NAME(store, key), val, len, &f->e);
	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, durable ? SOP_COMMIT_DURABLE : 0, &f->e);
}

int fixture_remove(struct fixture *f, uint64_t store, const char *key)
{
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &f->e);

	if (rc)
		return rc;
	rc = sop_remove(t, SOP_NAME(store, key), &f->e);
	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, 0, &f->e);
}

int fixture_has(struct fixture *f, uint64_t store, const char *key, const void *val, size_t len)
{
	void *got;
	size_t got_len;
	int rc = sop_get(sop_volume_latest(f->v), SOP_NAME(store, key), &got, &got_len, &f->e);

	if (rc == -ENOENT)
		return 0;
	if (rc)
		fail_msg("get %s: %s", key, f->e.text);
	rc = got_len == len && !memcmp(got, val, len);
	free(got);
	if (!rc)
		fail_msg("%s: %zu bytes that are not the expected %zu", key, got_len, len);
	return 1;
}

void fixture_ok(struct fixture *f, int rc)
{
	if (rc)
		fail_msg("%d: %s", rc, f->e.text);
}

struct sop_txn *fixture_begin(struct fixture *f, enum sop_txn_mode mode)
{
	struct sop_txn *t;

	fixture_ok(f, sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = mode}, &f->e));
	return t;
}

_Atomic uint64_t fixture_skipped_ms;

static uint64_t wall_ns(void *ctx)
{
	(void)ctx;
	return sop_clock_system.wall_ns(sop_clock_system.ctx) + fixture_skipped_ms * 1000000;
}

static uint64_t monotonic_ms(void *ctx)
{
	(void)ctx;
	return sop_clock_system.monotonic_ms(sop_clock_system.ctx) + fixture_skipped_ms;
}

const struct sop_clock fixture_clock = {.wall_ns = wall_ns, .monotonic_ms = monotonic_ms};
