/* The registry: handles and places come back as written, whatever one replica, or a crash in the
 * middle of an apply, has made of the blocks.
 *
 * The module is included here, so that its allocations can be made to fail. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static long fail_after = -1; /* allocations that still succeed; -1: all do */

static bool must_fail(void)
{
	return fail_after >= 0 && fail_after-- == 0;
}

static void *refuse_alloc(size_t n)
{
	return must_fail() ? NULL : malloc(n);
}

static void *refuse_zalloc(size_t n, size_t size)
{
	return must_fail() ? NULL : calloc(n, size);
}

static void *refuse_realloc(void *p, size_t n)
{
	return must_fail() ? NULL : realloc(p, n);
}

#include "core/base.h"
#include "core/format_volume.h"
#define malloc(n)	refuse_alloc(n)
#define calloc(n, size) refuse_zalloc(n, size)
#define realloc(p, n)	refuse_realloc(p, n)
#include "core/registry.c"
#include "core/registry_block.c"
#undef malloc
#undef calloc
#undef realloc

#include "tests/lib/gate.h"
#include "tests/lib/simdisk.h"

#define HASHMOD	 250u
#define PER_FILE ((uint64_t)HASHMOD * SOP_REGISTRY_SLOTS)

static const char *const paths[] = {"/d1", "/d2", "/d3"};
static uint64_t rng = 1;

static uint64_t draw(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* ---- a volume of some registry replicas ---------------------------------------------------------
 */

struct rig {
	struct sim *sim;
	unsigned n;
	bool threads, gated;
	struct sop_members *mem;
	struct sop_iopool *io;
	struct sop_registry *r;
	uint64_t next, head;
};

static void rig_mount(struct rig *g)
{
	struct sop_members_opts o = {.degraded = true,
		.disk_timeout_ms = g->gated ? 2000 : 20000,
		.clock = &sop_clock_system,
		.open_disk = g->gated ? gate_open_disk : sim_open_disk,
		.open_disk_ctx = g->sim};
	struct sop_iopool_opts po = {.disks = g->n};
	struct sop_err e = {0};

	if (sop_members_open(&g->mem, paths, g->n, &o, &e))
		fail_msg("%s", e.text);
	if (g->threads)
		assert_int_equal(sop_iopool_new(&g->io, &po, &e), 0);
	else
		assert_int_equal(sop_iopool_new_inline(&g->io, &e), 0);
	if (sop_registry_new(&g->r, g->mem, g->io, HASHMOD, g->next, g->head, &e))
		fail_msg("%s", e.text);
}

static void rig_unmount(struct rig *g)
{
	sop_registry_free(g->r);
	sop_iopool_free(g->io, 1000);
	sop_members_close(g->mem);
	g->r = NULL;
}

static void rig_remount(struct rig *g)
{
	rig_unmount(g);
	rig_mount(g);
}

/* n disks, each with a replica. */
static struct rig rig_new(unsigned n)
{
	struct rig g = {.sim = sim_new(1), .n = n, .next = 1};
	struct sop_format_opts f = {.k = 1,
		.m = n - 1,
		.stores = paths,
		.n_stores = n,
		.clock = &sop_clock_system,
		.open_disk = sim_open_disk,
		.open_disk_ctx = g.sim};
	struct sop_err e = {0};

	for (unsigned i = 0; i < n; i++)
		sim_add_disk(g.sim, paths[i], 0);
	if (sop_format(paths, n, &f, NULL, &e))
		fail_msg("%s", e.text);
	rig_mount(&g);
	return g;
}

static void rig_free(struct rig *g)
{
	if (g->r)
		rig_unmount(g);
	sim_free(g->sim);
}

static struct sop_blobref ref_of(uint64_t handle, uint64_t version)
{
	return (struct sop_blobref){.segment = version << 20 | 1,
		.off = handle * 8,
		.len = 4000,
		.nonce = (uint32_t)(handle * 7 + version)};
}

static struct sop_flip flip_of(uint64_t handle, uint64_t version)
{
	return (struct sop_flip){.handle = handle,
		.to = version ? ref_of(handle, version) : (struct sop_blobref){0}};
}

static void apply_range(struct rig *g, uint64_t from, uint64_t count, uint64_t version)
{
	struct sop_flip *f = calloc(count, sizeof(*f));
	struct sop_err e = {0};

	assert_non_null(f);
	for (uint64_t i = 0; i < count; i++)
		f[i] = flip_of(from + i, version);
	if (sop_registry_apply(g->r, f, count, version, &e))
		fail_msg("%s", e.text);
	free(f);
}

static void assert_at(struct rig *g, uint64_t handle, uint64_t version)
{
	struct sop_blobref ref, want = ref_of(handle, version);
	struct sop_err e = {0};
	int rc = sop_registry_lookup(g->r, handle, &ref, &e);

	if (!version) {
		assert_int_equal(rc, -ENOENT);
		return;
	}
	if (rc)
		fail_msg("%s", e.text);
	assert_int_equal(ref.segment, want.segment);
	assert_int_equal(ref.off, want.off);
	assert_int_equal(ref.len, want.len);
	assert_int_equal(ref.nonce, want.nonce);
}

static const char *file_name(uint64_t handle)
{
	static char name[40];

	snprintf(name, sizeof(name), "registry/%08x", (unsigned)(handle / PER_FILE));
	return name;
}

static uint64_t pair_at(uint64_t handle)
{
	return handle / SOP_REGISTRY_SLOTS % HASHMOD * SOP_REGISTRY_PAIR;
}

/* Both places of the handle's block. */
static void damage(struct rig *g, unsigned disk, uint64_t handle)
{
	uint8_t junk[64];

	for (unsigned i = 0; i < 2; i++) {
		uint64_t off = pair_at(handle) + i * SOP_REGISTRY_BLOCK + 1000;

		assert_int_equal(
			sim_peek(g->sim, paths[disk], file_name(handle), off, junk, 64), 0);
		for (unsigned j = 0; j < sizeof(junk); j++)
			junk[j] ^= 0x5a;
		assert_int_equal(
			sim_poke(g->sim, paths[disk], file_name(handle), off, junk, 64), 0);
	}
}

static void assert_replicas_equal(struct rig *g, uint64_t handle)
{
	uint8_t a[SOP_REGISTRY_PAIR], b[SOP_REGISTRY_PAIR];

	assert_int_equal(
		sim_peek(g->sim, paths[0], file_name(handle), pair_at(handle), a, sizeof(a)), 0);
	for (unsigned i = 1; i < g->n; i++) {
		assert_int_equal(sim_peek(g->sim, paths[i], file_name(handle), pair_at(handle), b,
					 sizeof(b)),
			0);
		assert_memory_equal(a, b, sizeof(a));
	}
}

/* ---- the codec ---- */

static void block_check_refuses_every_changed_byte_and_every_other_place(void **state)
{
	struct rig g = rig_new(1);
	struct sop_uuid volume = sop_members_label(g.mem)->volume_uuid;
	struct sop_uuid other = {{1}};
	uint8_t raw[SOP_REGISTRY_BLOCK], zero[SOP_REGISTRY_BLOCK] = {0};

	(void)state;
	apply_range(&g, PER_FILE + 126 * 3, 100, 5);
	assert_int_equal(sim_peek(g.sim, "/d1", "registry/00000001",
				 3 * SOP_REGISTRY_PAIR + SOP_REGISTRY_BLOCK, raw, sizeof(raw)),
		0);
	assert_int_equal(sop_registry_block_check(raw, &volume, 1, 3, NULL), 0);
	assert_int_equal(sop_registry_block_check(raw, &volume, 1, 4, NULL), SOP_ECORRUPT);
	assert_int_equal(sop_registry_block_check(raw, &volume, 0, 3, NULL), SOP_ECORRUPT);
	assert_int_equal(sop_registry_block_check(raw, &other, 1, 3, NULL), SOP_ECORRUPT);
	for (size_t i = 0; i < sizeof(raw); i++) {
		raw[i] ^= (uint8_t)(1 + draw(255));
		assert_int_equal(sop_registry_block_check(raw, &volume, 1, 3, NULL), SOP_ECORRUPT);
		assert_int_equal(
			sim_peek(g.sim, "/d1", "registry/00000001",
				3 * SOP_REGISTRY_PAIR + SOP_REGISTRY_BLOCK + i, &raw[i], 1),
			0);
	}
	assert_int_equal(sop_registry_block_check(zero, &volume, 1, 3, NULL), 0);
	zero[4095] = 1;
	assert_int_equal(sop_registry_block_check(zero, &volume, 1, 3, NULL), SOP_ECORRUPT);
	rig_free(&g);
}

/* ---- reading and applying ---- */

static void lookup_finds_what_apply_wrote_after_a_remount_too(void **state)
{
	struct rig g = rig_new(2);

	(void)state;
	assert_at(&g, 0, 0);
	assert_at(&g, 17, 0);
	apply_range(&g, 1, 300, 1);
	apply_range(&g, PER_FILE - 50, 100, 2);
	apply_range(&g, 100, 10, 3);
	apply_range(&g, 105, 1, 0);
	for (unsigned round = 0; round < 2; round++) {
		assert_at(&g, 1, 1);
		assert_at(&g, 300, 1);
		assert_at(&g, 301, 0);
		assert_at(&g, 100, 3);
		assert_at(&g, 105, 0);
		assert_at(&g, 109, 3);
		assert_at(&g, 110, 1);
		assert_at(&g, PER_FILE - 50, 2);
		assert_at(&g, PER_FILE + 49, 2);
		assert_at(&g, PER_FILE + 50, 0);
		assert_at(&g, 40 * PER_FILE, 0);
		rig_remount(&g);
	}
	assert_replicas_equal(&g, 1);
	assert_replicas_equal(&g, PER_FILE);
	rig_free(&g);
}

static void registry_is_like_an_array(void **state)
{
	enum { HANDLES = 70000, ROUNDS = 40 };
	static uint32_t model[HANDLES];
	struct rig g = rig_new(3);
	struct sop_flip *f = calloc(3000, sizeof(*f));

	(void)state;
	print_message("seed %llu\n", (unsigned long long)rng);
	assert_non_null(f);
	memset(model, 0, sizeof(model));
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		size_t n = (size_t)draw(3000);

		for (size_t i = 0; i < n; i++) {
			uint64_t h = 1 + draw(round % 2 ? HANDLES - 1 : 2000);

			f[i] = flip_of(h, draw(5) ? round : 0);
			model[h] = f[i].to.segment ? round : 0;
		}
		assert_int_equal(sop_registry_apply(g.r, f, n, round, NULL), 0);
		/* Again: harmless. */
		if (!draw(4))
			assert_int_equal(sop_registry_apply(g.r, f, n, round, NULL), 0);
		if (!draw(4))
			rig_remount(&g);
		for (unsigned i = 0; i < 1000; i++) {
			uint64_t h = 1 + draw(HANDLES - 1);

			assert_at(&g, h, model[h]);
		}
	}
	for (uint64_t h = 1; h < HANDLES; h++)
		assert_at(&g, h, model[h]);
	free(f);
	rig_free(&g);
}

static void apply_syncs_before_it_returns(void **state)
{
	struct rig g = rig_new(2);

	(void)state;
	apply_range(&g, 1, 1000, 1);
	apply_range(&g, PER_FILE + 1, 5, 1);
	rig_unmount(&g);
	sim_power_on(g.sim, SIM_KEEP_SYNCED_ONLY, 0);
	rig_mount(&g);
	assert_at(&g, 1, 1);
	assert_at(&g, 1000, 1);
	assert_at(&g, PER_FILE + 5, 1);
	rig_free(&g);
}

/* An apply that the machine cut has reached one of two replicas. The recovery that does it again
 * leaves both whole: the one that was behind serves alone afterwards. */
static void recovery_brings_a_replica_that_is_behind_up_to_date(void **state)
{
	struct rig g = rig_new(2);
	uint8_t old[SOP_REGISTRY_PAIR];
	struct sop_member_status s;
	struct sop_blobref ref;
	struct sop_flip f[5];
	struct sop_err e;

	(void)state;
	apply_range(&g, 1, 100, 1);
	apply_range(&g, 1, 100, 2);
	assert_int_equal(
		sim_peek(g.sim, paths[1], file_name(10), pair_at(10), old, sizeof(old)), 0);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(f); i++)
		f[i] = flip_of(10 + i, 3);
	assert_int_equal(sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 3, &e), 0);
	rig_unmount(&g);
	assert_int_equal(
		sim_poke(g.sim, paths[1], file_name(10), pair_at(10), old, sizeof(old)), 0);
	rig_mount(&g);
	assert_int_equal(sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 3, &e), 0);
	assert_replicas_equal(&g, 10);
	sop_members_status(g.mem, 1, &s);
	assert_int_equal(s.checksum_errors, 0);
	rig_unmount(&g);
	sim_disk_gone(g.sim, paths[0], true);
	rig_mount(&g);
	g.r->settled = true;
	assert_int_equal(sop_registry_lookup(g.r, 50, &ref, &e), 0);
	assert_at(&g, 10, 3);
	assert_at(&g, 50, 2);
	rig_free(&g);
}

/* ---- one replica is bad ---- */

static void lookup_takes_another_replica_and_repairs_the_bad_one(void **state)
{
	(void)state;
	for (unsigned bad = 0; bad < 2; bad++) {
		struct rig g = rig_new(2);
		struct sop_member_status s;

		apply_range(&g, 1, 200, 1);
		apply_range(&g, 1, 200, 2);
		rig_unmount(&g);
		damage(&g, bad, 5);
		rig_mount(&g);
		g.r->blocks->prefer = bad;
		assert_at(&g, 5, 2);
		assert_replicas_equal(&g, 5);
		sop_members_status(g.mem, bad, &s);
		assert_int_equal(s.checksum_errors, 1);
		assert_int_equal(s.state, SOP_MEMBER_ONLINE);
		rig_free(&g);
	}
}

/* The newest version of a block has rotted on one replica: the older one beside it is not believed.
 */
static void lookup_does_not_fall_back_to_an_older_version(void **state)
{
	struct rig g = rig_new(2);
	uint8_t junk[16] = {1};

	(void)state;
	apply_range(&g, 1, 10, 1);
	apply_range(&g, 1, 10, 2); /* sequence number 2: the first place */
	rig_unmount(&g);
	assert_int_equal(sim_poke(g.sim, paths[0], file_name(1), 200, junk, sizeof(junk)), 0);
	rig_mount(&g);
	assert_at(&g, 1, 2);
	rig_unmount(&g);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(
			sim_poke(g.sim, paths[i], file_name(1), 200, junk, sizeof(junk)), 0);
	rig_mount(&g);
	assert_int_equal(sop_registry_lookup(g.r, 1, &(struct sop_blobref){0}, NULL), SOP_ELOST);
	rig_free(&g);
}

static void lookup_takes_a_replica_that_has_the_block_over_one_that_lost_the_file(void **state)
{
	struct rig g = rig_new(2);

	(void)state;
	apply_range(&g, 1, 10, 1);
	rig_unmount(&g);
	assert_int_equal(sim_remove(g.sim, paths[0], file_name(1)), 0);
	rig_mount(&g);
	assert_at(&g, 5, 1);
	assert_at(&g, 11, 0);
	assert_replicas_equal(&g, 5);
	rig_unmount(&g);
	assert_int_equal(sim_set_size(g.sim, paths[1], file_name(1), 0), 0);
	rig_mount(&g);
	assert_at(&g, 5, 1);
	apply_range(&g, 6, 1, 2);
	assert_at(&g, 5, 1);
	rig_free(&g);
}

static void lookup_says_lost_when_a_block_is_bad_everywhere_and_reads_the_others(void **state)
{
	struct rig g = rig_new(3);
	struct sop_blobref ref;
	struct sop_err e = {0};

	(void)state;
	apply_range(&g, 1, 500, 1);
	rig_unmount(&g);
	for (unsigned i = 0; i < 3; i++)
		damage(&g, i, 5);
	rig_mount(&g);
	assert_int_equal(sop_registry_lookup(g.r, 5, &ref, &e), SOP_ELOST);
	assert_non_null(strstr(e.text, "handle 5"));
	assert_int_equal(sop_registry_lookup(g.r, 125, &ref, NULL), SOP_ELOST);
	assert_at(&g, 126, 1);
	assert_at(&g, 500, 1);
	/* Only the apply of a mount may start from what is in doubt; there is nothing here at all.
	 */
	assert_int_equal(
		sop_registry_apply(g.r, &(struct sop_flip){.handle = 5}, 1, 2, NULL), SOP_ELOST);
	rig_free(&g);
}

static void lookup_reads_on_when_a_replica_gives_errors(void **state)
{
	struct rig g = rig_new(2);
	struct sop_member_status s;

	(void)state;
	apply_range(&g, 1, 10, 1);
	rig_remount(&g);
	g.r->blocks->prefer = 0;
	sim_disk_error(g.sim, paths[0], -EIO, 0, 0);
	assert_at(&g, 1, 1);
	sop_members_status(g.mem, 0, &s);
	assert_true(s.read_errors > 0);
	rig_free(&g);
}

static void apply_goes_on_without_a_replica_that_fails_and_ends_with_the_last(void **state)
{
	struct rig g = rig_new(2);
	unsigned idx[SOP_MEMBERS_MAX];
	struct sop_flip f = flip_of(3, 3);

	(void)state;
	apply_range(&g, 1, 10, 1);
	sim_disk_error(g.sim, paths[0], 0, 0, -EIO);
	apply_range(&g, 1, 10, 2);
	assert_int_equal(sop_members_replicas(g.mem, idx), 1);
	assert_int_equal(idx[0], 1);
	assert_at(&g, 1, 2);
	sim_disk_error(g.sim, paths[1], 0, -ENOSPC, 0);
	assert_int_equal(sop_registry_apply(g.r, &f, 1, 3, NULL), -EIO);
	rig_free(&g);
}

static void apply_fails_when_the_last_replica_cannot_be_synced(void **state)
{
	struct sop_flip f = flip_of(3, 3);

	(void)state;
	for (unsigned made = 0; made < 2; made++) {
		struct rig g = rig_new(1);

		if (made)
			apply_range(&g, 1, 10, 1);
		sim_disk_error(g.sim, paths[0], 0, 0, -EIO);
		assert_int_equal(sop_registry_apply(g.r, &f, 1, 3, NULL), -EIO);
		rig_free(&g);
	}
}

/* Each operation on a disk fails in turn. What apply says it has done must be there on all replicas
 * that are still current. */
static void apply_survives_each_single_failure(void **state)
{
	unsigned failures = 0;

	(void)state;
	for (uint64_t step = 1;; step++) {
		struct rig g = rig_new(2);
		uint64_t before;
		unsigned idx[SOP_MEMBERS_MAX], left;

		apply_range(&g, 1, 300, 1);
		before = sim_steps(g.sim);
		sim_fail_step(g.sim, before + step, -EIO);
		apply_range(&g, 100, PER_FILE - 1000, 2);
		left = sop_members_replicas(g.mem, idx);
		sim_fail_step(g.sim, 0, 0);
		failures += left == 1;
		for (unsigned i = 0; i < left; i++) {
			g.r->blocks->prefer = idx[i];
			memset(g.r->cache, 0, CACHE_BLOCKS * sizeof(*g.r->cache));
			assert_at(&g, 1, 1);
			assert_at(&g, 100, 2);
			assert_at(&g, PER_FILE - 901, 2);
		}
		rig_free(&g);
		if (left == 2)
			break;
		if (step > 40) /* the many block writes are all alike */
			step += 37;
	}
	assert_true(failures > 10);
}

/* ---- a crash in the middle ---- */

static const enum sim_keep keeps[] = {SIM_KEEP_SYNCED_ONLY, SIM_KEEP_RANDOM, SIM_KEEP_RANDOM,
	SIM_KEEP_RANDOM, SIM_KEEP_RANDOM, SIM_KEEP_ALL};

/* The machine stops at each step of an apply. Mounted again, the flips are applied again (now and
 * then after a second crash): then every handle is where it should be, those between the changed
 * ones too. */
static void crash_at_each_step(unsigned replicas)
{
	struct sop_flip f[40];
	unsigned crashes = 0;
	bool done = false;

	for (unsigned i = 0; i < SOP_ARRAY_LEN(f); i++)
		f[i] = flip_of(i < 30 ? 2 + 23 * i : PER_FILE + 400 * i, i % 7 ? 9 : 0);
	for (uint64_t step = 1; !done; step++)
		for (unsigned k = 0; k < SOP_ARRAY_LEN(keeps); k++) {
			struct rig g = rig_new(replicas);

			apply_range(&g, 1, 800, 1);
			apply_range(&g, 1, 400, 2);
			sim_crash_at(g.sim, sim_steps(g.sim) + step);
			(void)sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL);
			done = !sim_crashed(g.sim);
			crashes += !done;
			rig_unmount(&g);
			sim_power_on(g.sim, keeps[k], step * 100 + k);
			rig_mount(&g);
			if (k % 2) {
				sim_crash_at(g.sim, sim_steps(g.sim) + 1 + draw(60));
				(void)sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL);
				rig_unmount(&g);
				sim_power_on(g.sim, keeps[k], draw(UINT32_MAX));
				rig_mount(&g);
			}
			assert_int_equal(sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL), 0);
			for (uint64_t h = 1; h <= 800; h++) {
				uint64_t want = h <= 400 ? 2 : 1;

				for (unsigned i = 0; i < 30; i++)
					if (f[i].handle == h)
						want = f[i].to.segment ? 9 : 0;
				assert_at(&g, h, want);
			}
			assert_at(&g, f[39].handle, 9);
			rig_free(&g);
		}
	assert_true(crashes > 50);
}

static void apply_again_after_a_crash_at_each_step_loses_nothing_on_one_replica(void **state)
{
	(void)state;
	crash_at_each_step(1);
}

static void apply_again_after_a_crash_at_each_step_loses_nothing_on_two_replicas(void **state)
{
	(void)state;
	crash_at_each_step(2);
}

/* The daemon dies in the middle of an apply, so that what it wrote is in the page cache alone; the
 * next one is in the middle of applying again when the power goes. */
static void apply_again_after_the_daemon_and_then_the_machine_stopped_loses_nothing(void **state)
{
	struct sop_flip f[30];
	unsigned crashes = 0;

	(void)state;
	for (unsigned i = 0; i < SOP_ARRAY_LEN(f); i++)
		f[i] = flip_of(2 + 23 * i, 9);
	for (uint64_t step = 1; step < 9; step++)
		for (uint64_t again = 1; again < 24; again++) {
			struct rig g = rig_new(1);

			apply_range(&g, 1, 800, 1);
			apply_range(&g, 1, 800, 2);
			sim_fail_step(g.sim, sim_steps(g.sim) + step, -EIO);
			(void)sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL);
			sim_fail_step(g.sim, 0, 0);
			rig_remount(&g);
			sim_crash_at(g.sim, sim_steps(g.sim) + again);
			(void)sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL);
			crashes += sim_crashed(g.sim);
			rig_unmount(&g);
			sim_power_on(g.sim, again % 3 ? SIM_KEEP_RANDOM : SIM_KEEP_SYNCED_ONLY,
				again * 31 + step);
			rig_mount(&g);
			assert_int_equal(sop_registry_apply(g.r, f, SOP_ARRAY_LEN(f), 9, NULL), 0);
			for (uint64_t h = 1; h <= 800; h++)
				assert_at(&g, h, h % 23 == 2 && h <= f[29].handle ? 9 : 2);
			rig_free(&g);
		}
	assert_true(crashes > 20);
}

/* ---- one replica is not sure, and the other does not answer ---- */

/* The newer of the two versions of the block of handle 1 is torn on d1, and whole on d2. */
static struct rig doubtful(void)
{
	struct rig g = rig_new(2);
	uint8_t junk[64];

	apply_range(&g, 1, 300, 1);
	apply_range(&g, 1, 300, 2);
	g.next = 301;
	rig_remount(&g);
	memset(junk, 0x5a, sizeof(junk));
	assert_int_equal(
		sim_poke(g.sim, "/d1", file_name(1), pair_at(1) + 1000, junk, sizeof(junk)), 0);
	return g;
}

static unsigned replicas_of(struct rig *g)
{
	unsigned idx[SOP_MEMBERS_MAX];

	return sop_members_replicas(g->mem, idx);
}

static int apply_one(struct rig *g, uint64_t handle, uint64_t version)
{
	struct sop_flip f = flip_of(handle, version);

	return sop_registry_apply(g->r, &f, 1, version, NULL);
}

static bool on_second(void *arg, unsigned disk)
{
	(void)arg;
	return disk == 1;
}

/* The n-th I/O on d2 fails, for each n; stays: and all later ones. */
static void doubt_and_errors(bool stays)
{
	unsigned reads = 0;
	bool failed = true;

	for (unsigned n = 1; failed; n++) {
		struct rig g = doubtful();
		int rc;

		sim_fail_io(g.sim, n, -EIO, stays);
		sim_choose_io(g.sim, on_second, NULL);
		rc = apply_one(&g, 5, 3);
		failed = sim_io_failed(g.sim);
		sim_fail_io(g.sim, 0, 0, false);
		sim_disk_error(g.sim, "/d2", 0, 0, 0);
		/* A write that fails costs the replica, but it has been heard before. */
		if (failed && replicas_of(&g) == 2) {
			reads++;
			assert_int_equal(rc, stays ? -EIO : 0);
		}
		assert_int_equal(apply_one(&g, 5, 3), 0);
		assert_at(&g, 1, 2);
		assert_at(&g, 5, 3);
		rig_free(&g);
	}
	assert_in_range(reads, 1, 100);
}

static void doubt_at_mount_asks_again_where_a_read_failed_once(void **state)
{
	(void)state;
	doubt_and_errors(false);
}

static void doubt_at_mount_waits_for_a_replica_that_cannot_be_read(void **state)
{
	(void)state;
	doubt_and_errors(true);
}

/* What another replica may have is not lost. */
static void a_look_up_in_doubt_waits_for_a_replica_that_cannot_be_read(void **state)
{
	struct rig g = doubtful();
	struct sop_blobref ref;
	struct sop_err e;

	(void)state;
	sim_disk_error(g.sim, "/d2", -EIO, 0, 0);
	assert_int_equal(sop_registry_lookup(g.r, 1, &ref, &e), -EIO);
	assert_non_null(strstr(e.text, "another one cannot be read"));
	sim_disk_error(g.sim, "/d2", 0, 0, 0);
	assert_int_equal(replicas_of(&g), 2);
	assert_at(&g, 1, 2);
	rig_free(&g);
}

static void a_block_that_has_vanished_is_not_begun_anew(void **state)
{
	static const uint8_t zeros[SOP_REGISTRY_PAIR];
	struct rig g = rig_new(2);

	(void)state;
	apply_range(&g, 1, 300, 1);
	g.next = 301;
	rig_remount(&g);
	assert_int_equal(apply_one(&g, 299, 2), 0);
	assert_int_equal(sim_poke(g.sim, "/d1", file_name(1), pair_at(1), zeros, sizeof(zeros)), 0);
	sim_disk_error(g.sim, "/d2", -EIO, 0, 0);
	assert_int_not_equal(apply_one(&g, 5, 3), 0);
	sim_disk_error(g.sim, "/d2", 0, 0, 0);
	rig_remount(&g);
	assert_int_equal(apply_one(&g, 5, 3), 0);
	assert_at(&g, 1, 1);
	assert_at(&g, 5, 3);
	rig_free(&g);
}

static void overlay_answers_for_flips_that_cannot_be_applied(void **state)
{
	struct rig g = rig_new(1);
	struct sop_flip f[3] = {flip_of(5, 9), flip_of(7, 0), flip_of(5, 10)};
	uint8_t junk[16] = {1}, now[16];

	(void)state;
	apply_range(&g, 1, 130, 1);
	apply_range(&g, 1, 130, 2); /* the first place */
	rig_unmount(&g);
	/* As a crash leaves it that tore the next write, in the second place. */
	assert_int_equal(
		sim_poke(g.sim, paths[0], file_name(1), SOP_REGISTRY_BLOCK + 200, junk, 16), 0);
	rig_mount(&g);
	assert_int_equal(sop_registry_lookup(g.r, 6, &(struct sop_blobref){0}, NULL), SOP_ELOST);
	assert_int_equal(sop_registry_overlay(g.r, f, 3, NULL), 0);
	assert_at(&g, 5, 10);
	assert_at(&g, 7, 0);
	assert_at(&g, 6, 2);
	assert_at(&g, 127, 2);
	assert_int_equal(
		sim_peek(g.sim, paths[0], file_name(1), SOP_REGISTRY_BLOCK + 200, now, 16), 0);
	assert_memory_equal(junk, now, 16);
	rig_free(&g);
}

/* ---- handles ---- */

struct checkpoint {
	struct sop_flip *f;
	size_t n;
};

static struct checkpoint chain(struct rig *g)
{
	struct checkpoint c = {0};

	assert_int_equal(sop_registry_chain(g->r, &c.f, &c.n, &g->next, &g->head, NULL), 0);
	return c;
}

static void publish(struct rig *g, struct checkpoint *c, uint64_t lsn)
{
	assert_int_equal(sop_registry_apply(g->r, c->f, c->n, lsn, NULL), 0);
	free(c->f);
}

static uint64_t alloc(struct rig *g)
{
	uint64_t h = 0;

	assert_int_equal(sop_registry_alloc(g->r, &h, NULL), 0);
	assert_true(h);
	return h;
}

static void handles_come_back_from_the_chain_after_a_remount(void **state)
{
	struct rig g = rig_new(2);
	struct checkpoint c;

	(void)state;
	for (uint64_t i = 1; i <= 500; i++)
		assert_int_equal(alloc(&g), i);
	for (uint64_t i = 1; i <= 500; i += 2)
		sop_registry_release(g.r, i);
	/* Not before they are chained. */
	assert_int_equal(alloc(&g), 501);
	c = chain(&g);
	assert_int_equal(c.n, 250);
	assert_int_equal(g.head, 1);
	assert_int_equal(g.next, 502);
	publish(&g, &c, 1);
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t i = 1; i <= 500; i += 2)
			assert_int_equal(alloc(&g), i);
		assert_int_equal(alloc(&g), 502);
		rig_remount(&g); /* nothing was published since: as if never taken */
	}
	for (uint64_t i = 1; i <= 99; i += 2)
		assert_int_equal(alloc(&g), i);
	sop_registry_release(g.r, 4);
	c = chain(&g);
	assert_int_equal(c.n, 1);
	assert_int_equal(g.head, 4);
	publish(&g, &c, 2);
	rig_remount(&g);
	assert_int_equal(alloc(&g), 4);
	assert_int_equal(alloc(&g), 101);
	rig_free(&g);
}

static void chain_of_a_failed_checkpoint_is_written_by_the_next(void **state)
{
	struct rig g = rig_new(1);
	struct checkpoint c;

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		alloc(&g);
	sop_registry_release(g.r, 3);
	sop_registry_release(g.r, 6);
	c = chain(&g);
	free(c.f); /* the checkpoint failed */
	assert_int_equal(alloc(&g), 3);
	sop_registry_release(g.r, 8);
	c = chain(&g);
	assert_int_equal(c.n, 2);
	publish(&g, &c, 2);
	c = chain(&g);
	assert_int_equal(c.n, 0);
	free(c.f);
	rig_remount(&g);
	assert_int_equal(alloc(&g), 8);
	assert_int_equal(alloc(&g), 6);
	assert_int_equal(alloc(&g), 11);
	rig_free(&g);
}

static void alloc_never_gives_a_handle_in_use(void **state)
{
	enum { HANDLES = 40000, LIKELY = 12000 };
	static uint8_t used[HANDLES];	/* as the trees see it */
	static uint8_t stored[HANDLES]; /* the same as of the last checkpoint */
	struct rig g = rig_new(1);
	uint64_t lsn = 0;

	(void)state;
	memset(used, 0, sizeof(used));
	memset(stored, 0, sizeof(stored));
	rng = 77;
	for (unsigned round = 0; round < 60; round++) {
		struct checkpoint c;
		unsigned n = (unsigned)draw(6000);

		for (unsigned i = 0; i < n; i++) {
			if (!draw(round % 10 < 5 ? 2 : 5)) {
				uint64_t h = alloc(&g);

				assert_true(h < HANDLES);
				assert_int_equal(used[h], 0);
				used[h] = 1;
			} else {
				uint64_t h = 1 + draw(LIKELY);

				if (used[h] == 1) {
					used[h] = 2; /* until the next chain */
					sop_registry_release(g.r, h);
				}
			}
		}
		c = chain(&g);
		if (!draw(4)) {
			free(c.f); /* failed */
		} else {
			c.f = realloc(c.f, (c.n + HANDLES) * sizeof(*c.f));
			assert_non_null(c.f);
			for (uint64_t h = 1; h < HANDLES; h++)
				if (used[h] == 1 && !stored[h])
					c.f[c.n++] = flip_of(h, 1);
			publish(&g, &c, ++lsn);
			for (uint64_t h = 0; h < HANDLES; h++)
				stored[h] = used[h] == 1;
		}
		for (uint64_t h = 0; h < HANDLES; h++)
			if (used[h] == 2)
				used[h] = 0;
		if (round % 7 == 6) {
			/* Published all, then mounted anew. */
			c = chain(&g);
			c.f = realloc(c.f, (c.n + HANDLES) * sizeof(*c.f));
			assert_non_null(c.f);
			for (uint64_t h = 1; h < HANDLES; h++)
				if (used[h] == 1)
					c.f[c.n++] = flip_of(h, 1);
			publish(&g, &c, ++lsn);
			memcpy(stored, used, sizeof(used));
			rig_remount(&g);
			assert_int_equal(sop_registry_apply(g.r, NULL, 0, lsn, NULL), 0);
		}
	}
	rig_free(&g);
}

static void alloc_gives_up_a_chain_it_cannot_believe(void **state)
{
	struct rig g = rig_new(1);
	struct checkpoint c;

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		alloc(&g);
	sop_registry_release(g.r, 3);
	sop_registry_release(g.r, 200);
	c = chain(&g);
	publish(&g, &c, 1);
	apply_range(&g, 200, 1, 2); /* in use after all */
	rig_remount(&g);
	assert_int_equal(alloc(&g), 3);
	assert_int_equal(alloc(&g), 301);
	assert_int_equal(alloc(&g), 302);
	rig_unmount(&g);
	damage(&g, 0, 3);
	rig_mount(&g);
	assert_int_equal(alloc(&g), 301);
	rig_free(&g);
}

static void chain_keeps_a_bounded_part_in_memory(void **state)
{
	struct rig g = rig_new(1);
	struct checkpoint c;

	(void)state;
	for (unsigned i = 0; i < 20000; i++)
		alloc(&g);
	for (uint64_t h = 1; h <= 20000; h++)
		sop_registry_release(g.r, h);
	c = chain(&g);
	publish(&g, &c, 1);
	assert_in_range(g.r->chain_n, 1, CHAIN_KEPT);
	for (uint64_t h = 1; h <= 20000; h++)
		assert_int_equal(alloc(&g), h);
	assert_int_equal(alloc(&g), 20001);
	rig_free(&g);
}

/* ---- memory, threads ---- */

static void each_failed_allocation_is_an_error_and_the_call_works_when_repeated(void **state)
{
	struct rig g = rig_new(2);
	struct sop_flip *f = calloc(600, sizeof(*f));
	unsigned failures = 0;

	(void)state;
	assert_non_null(f);
	apply_range(&g, 1, 900, 1);
	for (unsigned i = 0; i < 600; i++)
		f[i] = flip_of(1 + i * 97, 2);
	for (long n = 0, rc = -1; rc; n++) {
		rig_remount(&g);
		fail_after = n;
		rc = sop_registry_apply(g.r, f, 600, 2, NULL);
		fail_after = -1;
		assert_true(rc == 0 || rc == -ENOMEM);
		failures += rc != 0;
	}
	for (unsigned i = 0; i < 600; i++)
		assert_at(&g, f[i].handle, 2);
	assert_at(&g, 2, 1);
	for (long n = 0, rc = -1; rc; n++) {
		struct sop_blobref ref;

		rig_remount(&g);
		fail_after = n;
		rc = sop_registry_lookup(g.r, 2, &ref, NULL);
		fail_after = -1;
		assert_true(rc == 0 || rc == -ENOMEM);
		failures += rc != 0;
	}
	sop_registry_release(g.r, 5);
	for (long n = 0, rc = -1; rc; n++) {
		struct checkpoint c = {0};

		fail_after = n;
		rc = sop_registry_chain(g.r, &c.f, &c.n, &g.next, &g.head, NULL);
		fail_after = -1;
		if (!rc)
			assert_int_equal(c.n, 1);
		failures += rc != 0;
		free(c.f);
	}
	assert_true(failures > 8);
	free(f);
	rig_free(&g);
}

struct reading {
	struct rig *g;
	uint64_t handles;
	_Atomic bool stop;
	_Atomic unsigned bad, reads;
	_Atomic uint64_t low; /* of what may be read */
};

static void *read_all(void *arg)
{
	struct reading *a = arg;
	uint64_t x = 88172645463325252u;

	while (!atomic_load(&a->stop)) {
		struct sop_blobref ref;
		uint64_t low = atomic_load(&a->low), version, h;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		h = 1 + x % a->handles;
		if (sop_registry_lookup(a->g->r, h, &ref, NULL)) {
			atomic_fetch_add(&a->bad, 1);
			continue;
		}
		version = ref.segment >> 20;
		if (ref.off != h * 8 || version < low || version > atomic_load(&a->low) + 1)
			atomic_fetch_add(&a->bad, 1);
		atomic_fetch_add(&a->reads, 1);
	}
	return NULL;
}

static void lookups_are_right_while_an_apply_goes_on(void **state)
{
	struct rig g = rig_new(2);
	/* SMALL=1: as many as a run under valgrind has time for. */
	struct reading a = {.g = &g, .handles = getenv("SMALL") ? 3000 : 60000};
	struct sop_flip *f = calloc(a.handles, sizeof(*f));
	pthread_t thread[2];

	(void)state;
	assert_non_null(f);
	g.threads = true;
	rig_remount(&g);
	apply_range(&g, 1, a.handles, 1);
	a.low = 1;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_all, &a), 0);
	for (uint64_t version = 2; version < 8; version++) {
		for (uint64_t h = 1; h <= a.handles; h++)
			f[h - 1] = flip_of(h, version);
		assert_int_equal(sop_registry_apply(g.r, f, a.handles, version, NULL), 0);
		atomic_store(&a.low, version);
	}
	while (atomic_load(&a.reads) < 100 && !atomic_load(&a.bad))
		sched_yield();
	atomic_store(&a.stop, true);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(a.bad, 0);
	free(f);
	rig_free(&g);
}

static void *read_one(void *arg)
{
	struct rig *g = arg;
	struct sop_blobref ref;

	return sop_registry_lookup(g->r, 5, &ref, NULL) ? arg : NULL;
}

/* The lookup sees a block half written: it waits for the apply, instead of calling it lost. */
static void lookup_looks_again_at_a_block_that_was_being_written(void **state)
{
	struct rig g = rig_new(1);
	uint8_t good[64], junk[64] = {9};
	uint64_t off = SOP_REGISTRY_BLOCK + 1000; /* the second place: that of the first write */
	pthread_t thread;
	void *failed;

	(void)state;
	apply_range(&g, 1, 10, 1);
	rig_remount(&g);
	assert_int_equal(sim_peek(g.sim, paths[0], file_name(5), off, good, 64), 0);
	assert_int_equal(sim_poke(g.sim, paths[0], file_name(5), off, junk, 64), 0);
	sim_disk_delay(g.sim, paths[0], 1); /* not from the page cache: it is counted */
	g.r->writing = true;
	(void)sim_take_counts(g.sim);
	assert_int_equal(pthread_create(&thread, NULL, read_one, &g), 0);
	while (!sim_take_counts(g.sim).reads)
		sched_yield();
	sop_lock(&g.r->lock);
	assert_int_equal(sim_poke(g.sim, paths[0], file_name(5), off, good, 64), 0);
	g.r->writing = false;
	g.r->writes++;
	pthread_cond_broadcast(&g.r->changed);
	sop_unlock(&g.r->lock);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	rig_free(&g);
}

struct scrub {
	struct rig *g;
	atomic_bool over;
};

static void *scrub_one(void *arg)
{
	struct scrub *s = arg;

	assert_int_equal(sop_registry_scrub(s->g->r, 0, 0, NULL), 0);
	atomic_store(&s->over, true);
	return NULL;
}

static void scrub_waits_for_an_apply_under_way(void **state)
{
	struct rig g = rig_new(2);
	struct scrub s = {.g = &g};
	pthread_t thread;

	(void)state;
	apply_range(&g, 1, 10, 1);
	damage(&g, 1, 5);
	g.r->busy = true;
	assert_int_equal(pthread_create(&thread, NULL, scrub_one, &s), 0);
	/* One that does not wait is over by now. */
	for (unsigned i = 0; i < 100 && !atomic_load(&s.over); i++)
		usleep(1000);
	sop_lock(&g.r->lock);
	end_busy(g.r);
	sop_unlock(&g.r->lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_replicas_equal(&g, 5);
	rig_free(&g);
}

static void scrub_counts_the_copies_that_stay_bad(void **state)
{
	struct rig g = rig_new(3);

	(void)state;
	apply_range(&g, 1, 400, 1);
	damage(&g, 0, 5);
	damage(&g, 1, 5);
	damage(&g, 2, 5);
	damage(&g, 1, 300);
	damage(&g, 2, 300);
	assert_int_equal(sop_registry_scrub(g.r, 0, 0, NULL), 1);
	assert_int_equal(sop_registry_scrub(g.r, 0, 1, NULL), 0);
	sim_disk_error(g.sim, paths[2], 0, -EIO, 0);
	assert_int_equal(sop_registry_scrub(g.r, 0, 2, NULL), 1);
	sim_disk_error(g.sim, paths[2], 0, 0, 0);
	/* Never written. */
	assert_int_equal(sop_registry_scrub(g.r, 0, 100, NULL), 0);
	assert_int_equal(sop_registry_scrub(g.r, 7, 0, NULL), 0);
	rig_free(&g);
}

static void a_disk_stays_open_as_long_as_an_open_hangs_in_it(void **state)
{
	struct rig g = rig_new(2);
	struct sop_regfile *f;

	(void)state;
	rig_unmount(&g);
	g.gated = true;
	rig_mount(&g);
	gate_hang("/d2", false, SOP_PATH_REGISTRY "/");
	assert_int_equal(sop_regfile_get(g.r->blocks, 1, 0, true, &f), -ETIMEDOUT);
	gate_count();
	rig_unmount(&g);
	assert_int_equal(gate_let_go(), 0);
	rig_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(block_check_refuses_every_changed_byte_and_every_other_place),
		cmocka_unit_test(lookup_finds_what_apply_wrote_after_a_remount_too),
		cmocka_unit_test(registry_is_like_an_array),
		cmocka_unit_test(apply_syncs_before_it_returns),
		cmocka_unit_test(recovery_brings_a_replica_that_is_behind_up_to_date),
		cmocka_unit_test(lookup_takes_another_replica_and_repairs_the_bad_one),
		cmocka_unit_test(lookup_does_not_fall_back_to_an_older_version),
		cmocka_unit_test(
			lookup_takes_a_replica_that_has_the_block_over_one_that_lost_the_file),
		cmocka_unit_test(
			lookup_says_lost_when_a_block_is_bad_everywhere_and_reads_the_others),
		cmocka_unit_test(lookup_reads_on_when_a_replica_gives_errors),
		cmocka_unit_test(apply_goes_on_without_a_replica_that_fails_and_ends_with_the_last),
		cmocka_unit_test(apply_fails_when_the_last_replica_cannot_be_synced),
		cmocka_unit_test(apply_survives_each_single_failure),
		cmocka_unit_test(
			apply_again_after_a_crash_at_each_step_loses_nothing_on_one_replica),
		cmocka_unit_test(
			apply_again_after_a_crash_at_each_step_loses_nothing_on_two_replicas),
		cmocka_unit_test(
			apply_again_after_the_daemon_and_then_the_machine_stopped_loses_nothing),
		cmocka_unit_test(doubt_at_mount_waits_for_a_replica_that_cannot_be_read),
		cmocka_unit_test(doubt_at_mount_asks_again_where_a_read_failed_once),
		cmocka_unit_test(a_look_up_in_doubt_waits_for_a_replica_that_cannot_be_read),
		cmocka_unit_test(a_block_that_has_vanished_is_not_begun_anew),
		cmocka_unit_test(overlay_answers_for_flips_that_cannot_be_applied),
		cmocka_unit_test(handles_come_back_from_the_chain_after_a_remount),
		cmocka_unit_test(chain_of_a_failed_checkpoint_is_written_by_the_next),
		cmocka_unit_test(alloc_never_gives_a_handle_in_use),
		cmocka_unit_test(alloc_gives_up_a_chain_it_cannot_believe),
		cmocka_unit_test(chain_keeps_a_bounded_part_in_memory),
		cmocka_unit_test(
			each_failed_allocation_is_an_error_and_the_call_works_when_repeated),
		cmocka_unit_test(lookup_looks_again_at_a_block_that_was_being_written),
		cmocka_unit_test(lookups_are_right_while_an_apply_goes_on),
		cmocka_unit_test(scrub_waits_for_an_apply_under_way),
		cmocka_unit_test(scrub_counts_the_copies_that_stay_bad),
		cmocka_unit_test(a_disk_stays_open_as_long_as_an_open_hangs_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
