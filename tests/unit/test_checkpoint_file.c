/* The checkpoint file: what the codec refuses, and that a crash or a failing replica leaves the old
 * checkpoint or the new one. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/checkpoint_file.h"
#include "core/ec.h"
#include "core/format_volume.h"
#include "tests/lib/gate.h"
#include "tests/lib/simdisk.h"

static const struct sop_uuid volume = {{1, 2, 3}};

static struct sop_blobref ref_of(uint64_t n)
{
	return (struct sop_blobref){n << 20 | 1, n * 4096, (uint32_t)n + 100, (uint32_t)n * 7 + 1};
}

static struct sop_checkpoint example(uint64_t epoch, uint64_t lsn, size_t n)
{
	struct sop_checkpoint c = {
		.epoch = epoch,
		.lsn = lsn,
		.journal = lsn + 5,
		.chain = 0xdeadbeef,
		.clean = lsn & 1,
		.master_root = 17,
		.master_count = 18,
		.next_ino = 19,
		.next_handle = 20,
		.free_handle = 21,
		.time_ns = UINT64_MAX - 1,
		.n_flips = n,
		.n_uncommitted = 2 * n,
		.n_pending = 3 * n,
	};

	c.flips = calloc(c.n_flips + 1, sizeof(*c.flips));
	c.uncommitted = calloc(c.n_uncommitted + 1, sizeof(*c.uncommitted));
	c.pending = calloc(c.n_pending + 1, sizeof(*c.pending));
	assert_true(c.flips && c.uncommitted && c.pending);
	for (size_t i = 0; i < c.n_flips; i++)
		c.flips[i] = (struct sop_flip){i + 1, ref_of(i), ref_of(i + 1000)};
	for (size_t i = 0; i < c.n_uncommitted; i++)
		c.uncommitted[i] = ref_of(i + 2000);
	for (size_t i = 0; i < c.n_pending; i++)
		c.pending[i] = (struct sop_pending_free){i, ref_of(i + 3000)};
	return c;
}

static void assert_ref(const struct sop_blobref *a, const struct sop_blobref *b)
{
	assert_int_equal(a->segment, b->segment);
	assert_int_equal(a->off, b->off);
	assert_int_equal(a->len, b->len);
	assert_int_equal(a->nonce, b->nonce);
}

static void assert_same(const struct sop_checkpoint *a, const struct sop_checkpoint *b)
{
	assert_int_equal(a->epoch, b->epoch);
	assert_int_equal(a->lsn, b->lsn);
	assert_int_equal(a->journal, b->journal);
	assert_int_equal(a->chain, b->chain);
	assert_int_equal(a->clean, b->clean);
	assert_int_equal(a->master_root, b->master_root);
	assert_int_equal(a->master_count, b->master_count);
	assert_int_equal(a->next_ino, b->next_ino);
	assert_int_equal(a->next_handle, b->next_handle);
	assert_int_equal(a->free_handle, b->free_handle);
	assert_int_equal(a->time_ns, b->time_ns);
	assert_int_equal(a->n_flips, b->n_flips);
	assert_int_equal(a->n_uncommitted, b->n_uncommitted);
	assert_int_equal(a->n_pending, b->n_pending);
	for (size_t i = 0; i < a->n_flips; i++) {
		assert_int_equal(a->flips[i].handle, b->flips[i].handle);
		assert_ref(&a->flips[i].to, &b->flips[i].to);
		assert_ref(&a->flips[i].from, &b->flips[i].from);
	}
	for (size_t i = 0; i < a->n_uncommitted; i++)
		assert_ref(&a->uncommitted[i], &b->uncommitted[i]);
	for (size_t i = 0; i < a->n_pending; i++) {
		assert_int_equal(a->pending[i].lsn, b->pending[i].lsn);
		assert_ref(&a->pending[i].ref, &b->pending[i].ref);
	}
}

static uint8_t *encoded(size_t *len, size_t n)
{
	struct sop_checkpoint c = example(3, 40, n);
	struct sop_err e = {0};
	void *raw;

	assert_int_equal(sop_checkpoint_encode(&raw, len, &c, &volume, &e), 0);
	sop_checkpoint_release(&c);
	return raw;
}

/* Make the checksum right again after a change on purpose. */
static void seal(uint8_t *raw, size_t len)
{
	struct sop_disk_checkpoint *h = (struct sop_disk_checkpoint *)raw;

	h->crc = le32_make(0);
	h->crc = le32_make(sop_crc32c(0, raw, len));
}

static int decode(const uint8_t *raw, size_t len)
{
	struct sop_checkpoint c = {0};
	struct sop_err e = {0};
	/* A block of exactly this size, so that a sanitizer sees what is read beyond. */
	void *copy = malloc(len ? len : 1);
	int rc;

	assert_non_null(copy);
	memcpy(copy, raw, len);
	rc = sop_checkpoint_decode(&c, copy, len, &volume, &e);
	free(copy);
	assert_int_equal(e.code, rc);
	sop_checkpoint_release(&c);
	return rc;
}

static void decode_gives_back_what_was_encoded(void **state)
{
	(void)state;
	for (size_t n = 0; n < 40; n += 13) {
		struct sop_checkpoint a = example(7, 100 + n, n), b = {0};
		struct sop_err e = {0};
		void *raw;
		size_t len;

		assert_int_equal(sop_checkpoint_encode(&raw, &len, &a, &volume, &e), 0);
		assert_int_equal(len, 256 + n * 56 + 2 * n * 24 + 3 * n * 32);
		assert_int_equal(sop_checkpoint_decode(&b, raw, len, &volume, &e), 0);
		assert_same(&a, &b);
		free(raw);
		sop_checkpoint_release(&a);
		sop_checkpoint_release(&b);
	}
}

static void decode_refuses_every_flipped_bit(void **state)
{
	size_t len;
	uint8_t *raw = encoded(&len, 3);

	(void)state;
	for (size_t bit = 0; bit < len * 8; bit++) {
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(decode(raw, len), SOP_ECORRUPT);
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(decode(raw, len), 0);
	free(raw);
}

static void decode_refuses_every_other_length(void **state)
{
	size_t len;
	uint8_t *raw = encoded(&len, 2);
	uint8_t *longer = calloc(1, len + 64);

	(void)state;
	assert_non_null(longer);
	for (size_t n = 0; n < len; n++)
		assert_int_equal(decode(raw, n), SOP_ECORRUPT);
	memcpy(longer, raw, len);
	assert_int_equal(decode(longer, len + 64), SOP_ECORRUPT);
	seal(longer, len + 64);
	assert_int_equal(decode(longer, len + 64), SOP_ECORRUPT);
	free(longer);
	free(raw);
}

static void decode_refuses_counts_that_do_not_fit(void **state)
{
	static const uint64_t wrong[] = {
		1, 4, UINT64_MAX, UINT64_MAX / 56 + 1, 1ull << 61, 1u << 30};
	size_t len;
	uint8_t *raw = encoded(&len, 2);
	struct sop_disk_checkpoint *h = (struct sop_disk_checkpoint *)raw;

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(wrong); i++) {
		struct le64 *count[] = {&h->flips, &h->uncommitted, &h->pending};

		for (size_t k = 0; k < 3; k++) {
			struct le64 right = *count[k];

			if (le64_get(right) == wrong[i])
				continue;
			*count[k] = le64_make(wrong[i]);
			seal(raw, len);
			assert_int_equal(decode(raw, len), SOP_ECORRUPT);
			*count[k] = right;
		}
	}
	seal(raw, len);
	assert_int_equal(decode(raw, len), 0);
	free(raw);
}

static void decode_refuses_newer_versions_and_other_volumes(void **state)
{
	size_t len;
	uint8_t *raw = encoded(&len, 1);
	struct sop_disk_checkpoint *h = (struct sop_disk_checkpoint *)raw;

	(void)state;
	h->version = le32_make(SOP_FORMAT_VERSION + 1);
	seal(raw, len);
	assert_int_equal(decode(raw, len), SOP_EVERSION);
	h->version = le32_make(SOP_FORMAT_VERSION);
	h->flags = le32_make(2);
	seal(raw, len);
	assert_int_equal(decode(raw, len), SOP_EVERSION);
	h->flags = le32_make(0);
	h->volume_uuid[5] ^= 1;
	seal(raw, len);
	assert_int_equal(decode(raw, len), SOP_EFOREIGN);
	free(raw);
}

/* --- on replicas -------------------------------------------------------------------------------
 */

static const char *const paths[] = {"d0", "d1", "d2"};

static struct sim *machine(void)
{
	struct sim *s = sim_new(1);
	struct sop_format_opts o = {.k = 1,
		.m = 2,
		.force = true,
		.clock = &sop_clock_system,
		.open_disk = sim_open_disk};
	struct sop_err e = {0};

	assert_non_null(s);
	o.open_disk_ctx = s;
	for (unsigned i = 0; i < 3; i++)
		sim_add_disk(s, paths[i], 0);
	if (sop_format(paths, 3, &o, NULL, &e))
		fail_msg("%s", e.text);
	return s;
}

static int try_mount(struct sop_members **m, struct sim *s, struct sop_err *e)
{
	const struct sop_members_opts o = {.clock = &sop_clock_system,
		.open_disk = sim_open_disk,
		.open_disk_ctx = s,
		.degraded = true};

	return sop_members_open(m, paths, 3, &o, e);
}

static struct sop_members *mounted(struct sim *s)
{
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	if (try_mount(&m, s, &e))
		fail_msg("%s", e.text);
	return m;
}

static int store(struct sop_members *m, uint64_t epoch, uint64_t lsn)
{
	struct sop_checkpoint c = example(epoch, lsn, 5);
	struct sop_err e = {0};
	int rc = sop_checkpoint_store(m, &c, true, NULL, &e);

	assert_int_equal(e.code, rc);
	sop_checkpoint_release(&c);
	return rc;
}

static int load(struct sop_members *m, uint64_t *lsn)
{
	struct sop_checkpoint c = {0};
	struct sop_err e = {0};
	int rc = sop_checkpoint_load(&c, m, &e);

	*lsn = c.lsn;
	sop_checkpoint_release(&c);
	return rc;
}

static unsigned replicas(struct sop_members *m)
{
	unsigned idx[SOP_MEMBERS_MAX];

	return sop_members_replicas(m, idx);
}

static void put_on(
	struct sop_members *m, struct sim *s, unsigned disk, uint64_t epoch, uint64_t lsn)
{
	struct sop_checkpoint c = example(epoch, lsn, 1);
	struct sop_err e = {0};
	size_t len;
	void *raw;

	assert_int_equal(
		sop_checkpoint_encode(&raw, &len, &c, &sop_members_label(m)->volume_uuid, &e), 0);
	assert_int_equal(sop_disk_publish(sim_disk(s, disk), SOP_PATH_CHECKPOINT, raw, len, &e), 0);
	free(raw);
	sop_checkpoint_release(&c);
}

static void load_takes_the_highest_epoch_and_then_the_highest_lsn(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	uint64_t lsn;

	(void)state;
	put_on(m, s, 0, 5, 100);
	put_on(m, s, 1, 6, 90);
	put_on(m, s, 2, 6, 95);
	assert_int_equal(load(m, &lsn), 0);
	assert_int_equal(lsn, 95);
	sop_members_close(m);
	sim_free(s);
}

static void load_passes_over_damaged_copies_and_says_when_none_is_left(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	struct sop_member_status status;
	uint8_t byte;
	uint64_t lsn;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(load(m, &lsn), 0);
		assert_int_equal(lsn, 10);
		sim_peek(s, paths[i], SOP_PATH_CHECKPOINT, 300, &byte, 1);
		byte ^= 1;
		sim_poke(s, paths[i], SOP_PATH_CHECKPOINT, 300, &byte, 1);
	}
	assert_int_equal(load(m, &lsn), SOP_ELOST);
	sop_members_status(m, 0, &status);
	assert_true(status.checksum_errors > 0);
	sop_members_close(m);
	sim_free(s);
}

static void load_does_not_take_an_older_one_instead_of_one_it_cannot_understand(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	struct sop_err e = {0};
	uint64_t lsn;
	size_t len;
	void *raw;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	assert_int_equal(
		sop_disk_read_file(sim_disk(s, 2), SOP_PATH_CHECKPOINT, &raw, &len, 1u << 20, &e),
		0);
	((struct sop_disk_checkpoint *)raw)->version = le32_make(9);
	seal(raw, len);
	sim_poke(s, paths[2], SOP_PATH_CHECKPOINT, 0, raw, len);
	free(raw);
	assert_int_equal(load(m, &lsn), SOP_EVERSION);
	sop_members_close(m);
	sim_free(s);
}

static void store_sets_a_failing_replica_aside_for_good(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	uint64_t lsn;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	sim_disk_error(s, "d1", 0, -EIO, 0);
	assert_int_equal(store(m, 1, 20), 0);
	assert_int_equal(replicas(m), 2);
	sop_members_close(m);

	/* The replica that missed it is back, alone with the news lost: it must not be believed. */
	sim_disk_error(s, "d1", 0, 0, 0);
	m = mounted(s);
	assert_int_equal(replicas(m), 2);
	assert_int_equal(load(m, &lsn), 0);
	assert_int_equal(lsn, 20);
	sim_remove(s, "d0", SOP_PATH_CHECKPOINT);
	sim_remove(s, "d2", SOP_PATH_CHECKPOINT);
	assert_int_equal(load(m, &lsn), SOP_ELOST);
	sop_members_close(m);
	sim_free(s);
}

static void store_sets_a_full_replica_aside_unless_all_are_full(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	uint64_t lsn;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_resize(s, paths[i], 1);
	assert_int_equal(store(m, 1, 20), -ENOSPC);
	assert_int_equal(replicas(m), 3);
	assert_int_equal(load(m, &lsn), 0);
	assert_int_equal(lsn, 10);
	sim_disk_resize(s, "d0", 0);
	sim_disk_resize(s, "d1", 0);
	assert_int_equal(store(m, 1, 30), 0);
	assert_int_equal(replicas(m), 2);
	assert_int_equal(load(m, &lsn), 0);
	assert_int_equal(lsn, 30);
	sop_members_close(m);
	sim_free(s);
}

static void store_that_fails_everywhere_sets_nobody_aside(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	uint64_t lsn;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(s, paths[i], 0, -EIO, 0);
	assert_int_equal(store(m, 1, 20), -EIO);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(s, paths[i], 0, 0, 0);
	assert_int_equal(replicas(m), 3);
	assert_int_equal(load(m, &lsn), 0);
	assert_int_equal(lsn, 10);
	sop_members_close(m);
	sim_free(s);
}

static void a_large_checkpoint_goes_to_all_replicas_at_once(void **state)
{
	struct sim *s = machine();
	struct sop_members *m = mounted(s);
	struct sop_checkpoint a = example(2, 77, 5000), b = {0};
	struct sop_err e = {0};

	(void)state;
	assert_int_equal(sop_checkpoint_store(m, &a, true, NULL, &e), 0);
	for (unsigned i = 0; i < 2; i++) {
		sim_remove(s, paths[i], SOP_PATH_CHECKPOINT);
		assert_int_equal(sop_checkpoint_load(&b, m, &e), 0);
		assert_same(&a, &b);
		sop_checkpoint_release(&b);
	}
	sop_checkpoint_release(&a);
	sop_members_close(m);
	sim_free(s);
}

static void a_crash_at_any_step_leaves_the_old_or_the_new_one(void **state)
{
	struct sim *base = machine();
	struct sop_members *m = mounted(base);
	bool went_through = false;

	(void)state;
	assert_int_equal(store(m, 1, 10), 0);
	sop_members_close(m);
	for (uint64_t step = 1; !went_through; step++) {
		for (uint64_t choice = 0; choice < 4; choice++) {
			struct sim *s = sim_clone(base, step);
			uint64_t lsn;
			int rc;

			m = mounted(s);
			sim_crash_at(s, sim_steps(s) + step);
			rc = store(m, 1, 20);
			went_through = !sim_crashed(s);
			sop_members_close(m);
			sim_power_on(s, (enum sim_keep)(choice % 3), choice);
			m = mounted(s);
			assert_int_equal(load(m, &lsn), 0);
			if (lsn != 20 && (lsn != 10 || went_through))
				fail_msg("step %lu choice %lu: LSN %lu, store said %d", step,
					choice, lsn, rc);
			sop_members_close(m);
			sim_free(s);
		}
	}
	sim_free(base);
}

/* --- a disk that hangs --- */

static void a_disk_stays_open_as_long_as_a_store_hangs_in_it(void **state)
{
	struct sim *s = machine();
	const struct sop_members_opts o = {.clock = &sop_clock_system,
		.open_disk = gate_open_disk,
		.open_disk_ctx = s,
		.threads = true,
		.disk_timeout_ms = 2000};
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	(void)state;
	assert_int_equal(sop_members_open(&m, paths, 3, &o, &e), 0);
	gate_hang("d1", true, NULL);
	assert_int_equal(store(m, 7, 50), 0);
	assert_int_equal(replicas(m), 2);
	gate_count();
	sop_members_close(m);
	assert_int_equal(gate_let_go(), 0);
	sim_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decode_gives_back_what_was_encoded),
		cmocka_unit_test(decode_refuses_every_flipped_bit),
		cmocka_unit_test(decode_refuses_every_other_length),
		cmocka_unit_test(decode_refuses_counts_that_do_not_fit),
		cmocka_unit_test(decode_refuses_newer_versions_and_other_volumes),
		cmocka_unit_test(load_takes_the_highest_epoch_and_then_the_highest_lsn),
		cmocka_unit_test(load_passes_over_damaged_copies_and_says_when_none_is_left),
		cmocka_unit_test(
			load_does_not_take_an_older_one_instead_of_one_it_cannot_understand),
		cmocka_unit_test(store_sets_a_failing_replica_aside_for_good),
		cmocka_unit_test(store_sets_a_full_replica_aside_unless_all_are_full),
		cmocka_unit_test(store_that_fails_everywhere_sets_nobody_aside),
		cmocka_unit_test(a_large_checkpoint_goes_to_all_replicas_at_once),
		cmocka_unit_test(a_crash_at_any_step_leaves_the_old_or_the_new_one),
		cmocka_unit_test(a_disk_stays_open_as_long_as_a_store_hangs_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
