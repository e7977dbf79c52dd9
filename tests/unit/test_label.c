/* Labels: what the codec refuses, and that one copy of two is always whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/ec.h"
#include "core/label.h"
#include "tests/lib/simdisk.h"

static struct sop_uuid uuid_of(uint8_t first)
{
	struct sop_uuid id = {{first, 1, 2, 3}};

	return id;
}

static struct sop_label *example(uint64_t generation)
{
	struct sop_label *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->volume_uuid = uuid_of(100);
	l->disk_uuid = uuid_of(2);
	l->generation = generation;
	l->created_ns = 1234567890123456789u;
	l->index = 1;
	l->members = 3;
	l->profiles = 2;
	l->flags = SOP_LABEL_SHARED;
	l->hashmod = 250;
	l->node_bytes = 16384;
	strcpy(l->name, "tank");
	l->profile[0] = (struct sop_profile){.name = "default", .k = 2, .m = 1};
	l->profile[1] = (struct sop_profile){.name = "fast", .k = 1, .m = 1, .flags = 1};
	l->profile[1].disks[0] = 0x3;
	for (unsigned i = 0; i < 3; i++) {
		l->member[i].uuid = uuid_of((uint8_t)(i + 1));
		l->member[i].role = SOP_ROLE_DATA | SOP_ROLE_REGISTRY;
		l->member[i].state = (uint8_t)i;
		l->member[i].current_since = i;
		/* Labels of two generations differ in more than one sector. */
		snprintf(l->member[i].path, sizeof(l->member[i].path), "/data/%lu/d%u",
			(unsigned long)generation, i);
	}
	return l;
}

static struct sop_disk_label *encoded(const struct sop_label *l)
{
	struct sop_disk_label *raw = malloc(SOP_LABEL_SIZE);

	assert_non_null(raw);
	sop_label_encode(raw, l);
	return raw;
}

static void seal(struct sop_disk_label *raw)
{
	raw->crc = le32_make(0);
	raw->crc = le32_make(sop_crc32c(0, raw, sizeof(*raw)));
}

static int decode(const void *raw, size_t len, struct sop_err *e)
{
	/* A copy of its own of just len bytes, so that the sanitizer sees a read past them. */
	void *copy = malloc(len ? len : 1);
	struct sop_label *l = malloc(sizeof(*l));
	int rc;

	memcpy(copy, raw, len);
	rc = sop_label_decode(l, copy, len, e);
	free(copy);
	free(l);
	return rc;
}

static void decode_gives_back_what_encode_took(void **unused)
{
	struct sop_label *l = example(7), *back = malloc(sizeof(*back));
	struct sop_disk_label *raw;

	(void)unused;
	l->ro_compat = 5;
	raw = encoded(l);
	assert_int_equal(sop_label_decode(back, raw, SOP_LABEL_SIZE, NULL), 0);
	assert_memory_equal(back, l, sizeof(*l));
	free(raw);
	free(l);
	free(back);
}

static void any_changed_bit_is_noticed(void **unused)
{
	struct sop_label *l = example(7);
	struct sop_disk_label *raw = encoded(l);
	uint8_t *p = (uint8_t *)raw;

	(void)unused;
	for (size_t at = 0; at < SOP_LABEL_SIZE; at += at < 1600 ? 1 : 61) {
		p[at] ^= 0x10;
		assert_int_not_equal(decode(raw, SOP_LABEL_SIZE, NULL), 0);
		p[at] ^= 0x10;
	}
	assert_int_equal(decode(raw, SOP_LABEL_SIZE, NULL), 0);
	free(raw);
	free(l);
}

static void short_input_is_refused(void **unused)
{
	struct sop_label *l = example(7);
	struct sop_disk_label *raw = encoded(l);

	(void)unused;
	for (size_t len = 0; len < 8; len++)
		assert_int_equal(decode(raw, len, NULL), SOP_ENOTVOLUME);
	for (size_t len = 8; len < SOP_LABEL_SIZE; len += 409)
		assert_int_equal(decode(raw, len, NULL), SOP_ECORRUPT);
	free(raw);
	free(l);
}

static void newer_format_is_refused_by_its_number(void **unused)
{
	struct sop_label *l = example(7);
	struct sop_disk_label *raw = encoded(l);
	struct sop_err e = {0};

	(void)unused;
	raw->version = le32_make(9);
	seal(raw);
	assert_int_equal(decode(raw, SOP_LABEL_SIZE, &e), SOP_EVERSION);
	assert_non_null(strstr(e.text, "format version 9"));
	raw->version = le32_make(SOP_FORMAT_VERSION);
	raw->incompat = le64_make(1ULL << 40);
	seal(raw);
	assert_int_equal(decode(raw, SOP_LABEL_SIZE, &e), SOP_EVERSION);
	assert_non_null(strstr(e.text, "0x10000000000"));
	raw->incompat = le64_make(0);
	raw->version = le32_make(0);
	seal(raw);
	assert_int_equal(decode(raw, SOP_LABEL_SIZE, &e), SOP_ECORRUPT);
	free(raw);
	free(l);
}

static void bad_magic(struct sop_disk_label *r)
{
	r->magic[3] = 'x';
}
static void too_many_members(struct sop_disk_label *r)
{
	r->members = le16_make(SOP_MEMBERS_MAX + 1);
}
static void index_past_members(struct sop_disk_label *r)
{
	r->index = le16_make(3);
}
static void too_many_profiles(struct sop_disk_label *r)
{
	r->profiles = le16_make(SOP_PROFILES_MAX + 1);
}
static void no_profile(struct sop_disk_label *r)
{
	r->profiles = le16_make(0);
}
static void profile_without_data(struct sop_disk_label *r)
{
	r->profile[1].k = 0;
}
static void profile_too_wide(struct sop_disk_label *r)
{
	r->profile[1].k = 200;
	r->profile[1].m = 100;
}
static void endless_volume_name(struct sop_disk_label *r)
{
	memset(r->name, 'a', sizeof(r->name));
}
static void endless_profile_name(struct sop_disk_label *r)
{
	memset(r->profile[0].name, 'a', sizeof(r->profile[0].name));
}
static void endless_path(struct sop_disk_label *r)
{
	memset(r->member[2].path, 'a', sizeof(r->member[2].path));
}
static void unknown_role(struct sop_disk_label *r)
{
	r->member[2].role = 4;
}
static void unknown_state(struct sop_disk_label *r)
{
	r->member[2].state = 4;
}
static void current_in_the_future(struct sop_disk_label *r)
{
	r->member[2].current_since = le64_make(8);
}
static void slot_of_another_disk(struct sop_disk_label *r)
{
	r->disk_uuid[0]++;
}
static void no_generation(struct sop_disk_label *r)
{
	r->generation = le64_make(0);
}
static void no_hashmod(struct sop_disk_label *r)
{
	r->hashmod = le32_make(0);
}
static void no_node_bytes(struct sop_disk_label *r)
{
	r->node_bytes = le32_make(0);
}

static void impossible_content_is_refused(void **unused)
{
	static void (*const damage[])(struct sop_disk_label * r) = {bad_magic, too_many_members,
		index_past_members, too_many_profiles, no_profile, profile_without_data,
		profile_too_wide, endless_volume_name, endless_profile_name, endless_path,
		unknown_role, unknown_state, current_in_the_future, slot_of_another_disk,
		no_generation, no_hashmod, no_node_bytes};
	struct sop_label *l = example(7);

	(void)unused;
	for (size_t i = 0; i < SOP_ARRAY_LEN(damage); i++) {
		struct sop_disk_label *raw = encoded(l);
		struct sop_err e = {0};
		int rc;

		damage[i](raw);
		seal(raw);
		rc = decode(raw, SOP_LABEL_SIZE, &e);
		if (rc != (i ? SOP_ECORRUPT : SOP_ENOTVOLUME))
			fail_msg("case %zu: %d %s", i, rc, e.text);
		free(raw);
	}
	free(l);
}

/* --- on a disk ------------------------------------------------------------- */

struct bench {
	struct sim *sim;
	struct sop_disk *disk;
};

static struct bench bench_new(uint64_t seed)
{
	struct bench b = {.sim = sim_new(seed)};

	sim_add_disk(b.sim, "/d1", 0);
	assert_int_equal(sim_open_disk(b.sim, &b.disk, "/d1", NULL), 0);
	return b;
}

static void bench_free(struct bench *b)
{
	sop_disk_close(b->disk);
	sim_free(b->sim);
}

static void store(struct sop_disk *d, uint64_t generation)
{
	struct sop_label *l = example(generation);

	assert_int_equal(sop_label_store(d, l, NULL), 0);
	free(l);
}

/* The generation loaded, or the error. */
static int64_t load(struct sop_disk *d, struct sop_err *e)
{
	struct sop_label *l = calloc(1, sizeof(*l));
	int rc = sop_label_load(l, d, e);
	int64_t generation = (int64_t)l->generation;

	free(l);
	return rc ? rc : generation;
}

static void poke_label(struct bench *b, const char *file, const struct sop_label *l)
{
	struct sop_disk_label *raw = encoded(l);

	assert_int_equal(sim_poke(b->sim, "/d1", file, 0, raw, SOP_LABEL_SIZE), 0);
	free(raw);
}

static void label_load_takes_the_newer_whole_copy(void **unused)
{
	static const char *const file[] = {SOP_PATH_LABEL0, SOP_PATH_LABEL1};
	static const uint8_t junk[512] = {1};

	(void)unused;
	for (unsigned newer = 0; newer < 2; newer++) {
		struct bench b = bench_new(1);
		struct sop_label *nine = example(9);

		store(b.disk, 8);
		assert_int_equal(load(b.disk, NULL), 8);
		poke_label(&b, file[newer], nine);
		assert_int_equal(load(b.disk, NULL), 9);
		assert_int_equal(sim_poke(b.sim, "/d1", file[newer], 2048, junk, sizeof(junk)), 0);
		assert_int_equal(load(b.disk, NULL), 8);
		assert_int_equal(sim_remove(b.sim, "/d1", file[newer]), 0);
		assert_int_equal(load(b.disk, NULL), 8);
		assert_int_equal(sim_set_size(b.sim, "/d1", file[!newer], 100), 0);
		assert_int_equal(load(b.disk, NULL), SOP_ECORRUPT);
		assert_int_equal(sim_remove(b.sim, "/d1", file[!newer]), 0);
		assert_int_equal(load(b.disk, NULL), SOP_ENOTVOLUME);
		free(nine);
		bench_free(&b);
	}
}

static void label_load_says_which_folder_has_none(void **unused)
{
	struct bench b = bench_new(1);
	struct sop_err e = {0};

	(void)unused;
	assert_int_equal(load(b.disk, &e), SOP_ENOTVOLUME);
	assert_string_equal(e.text, "/d1: holds no sopfs label");
	bench_free(&b);
}

static void a_whole_newer_format_beats_an_old_copy(void **unused)
{
	struct bench b = bench_new(1);
	struct sop_label *l = example(9);
	struct sop_disk_label *raw = encoded(l);
	struct sop_err e = {0};

	(void)unused;
	store(b.disk, 10);
	raw->version = le32_make(2);
	seal(raw);
	assert_int_equal(sim_poke(b.sim, "/d1", SOP_PATH_LABEL1, 0, raw, SOP_LABEL_SIZE), 0);
	assert_int_equal(load(b.disk, &e), SOP_EVERSION);
	assert_non_null(strstr(e.text, "/d1: has format version 2"));
	/* A torn one may say anything. */
	raw->tail[0] ^= 1;
	assert_int_equal(sim_poke(b.sim, "/d1", SOP_PATH_LABEL1, 0, raw, SOP_LABEL_SIZE), 0);
	assert_int_equal(load(b.disk, NULL), 10);
	free(raw);
	free(l);
	bench_free(&b);
}

static void copies_of_different_disks_are_refused(void **unused)
{
	struct bench b = bench_new(1);
	struct sop_label *l = example(9);

	(void)unused;
	store(b.disk, 10);
	l->volume_uuid = uuid_of(101);
	poke_label(&b, SOP_PATH_LABEL1, l);
	assert_int_equal(load(b.disk, NULL), SOP_ECORRUPT);
	free(l);
	bench_free(&b);
}

/* Cut a store of generation 10 over 9 at each step, from four beginnings: both copies whole, the
 * first damaged, the second damaged, the second older. After each, generation 9 or 10 loads, and
 * the next can be stored. */
static void begin(struct bench *b, unsigned from)
{
	static const char *const spoilt[] = {NULL, SOP_PATH_LABEL0, SOP_PATH_LABEL1};
	static const uint8_t junk[512] = {1};

	store(b->disk, 9);
	if (from == 3) {
		struct sop_label *old = example(8);

		poke_label(b, SOP_PATH_LABEL1, old);
		free(old);
	} else if (spoilt[from]) {
		assert_int_equal(
			sim_poke(b->sim, "/d1", spoilt[from], 1024, junk, sizeof(junk)), 0);
	}
}

static void a_crash_at_any_step_leaves_a_whole_label(void **unused)
{
	bool saw_old = false, saw_new = false;

	(void)unused;
	for (unsigned from = 0; from < 4; from++) {
		bool crashed = true;

		for (uint64_t step = 1; crashed; step++) {
			for (uint64_t choice = 0; choice < 12 && crashed; choice++) {
				struct bench b = bench_new(step);
				struct sop_label *l = example(10);
				int64_t got;
				int rc;

				begin(&b, from);
				sim_crash_at(b.sim, sim_steps(b.sim) + step);
				rc = sop_label_store(b.disk, l, NULL);
				crashed = sim_crashed(b.sim);
				assert_int_equal(rc, crashed ? -EIO : 0);
				sop_disk_close(b.disk);
				sim_power_on(b.sim, SIM_KEEP_RANDOM, choice);
				assert_int_equal(sim_open_disk(b.sim, &b.disk, "/d1", NULL), 0);
				got = load(b.disk, NULL);
				if (got != 10 && (got != 9 || !crashed))
					fail_msg("from %u step %lu choice %lu: %ld", from,
						(unsigned long)step, (unsigned long)choice,
						(long)got);
				saw_old = saw_old || got == 9;
				saw_new = saw_new || (crashed && got == 10);
				store(b.disk, 11);
				assert_int_equal(load(b.disk, NULL), 11);
				free(l);
				bench_free(&b);
			}
		}
	}
	assert_true(saw_old && saw_new);
}

/* The same for the very first store: nothing, or the label. */
static void a_crash_in_the_first_store_leaves_none_or_the_label(void **unused)
{
	(void)unused;
	for (uint64_t step = 1;; step++) {
		bool crashed = true;

		for (uint64_t choice = 0; choice < 12 && crashed; choice++) {
			struct bench b = bench_new(step);
			struct sop_label *l = example(9);
			int64_t got;

			sim_crash_at(b.sim, sim_steps(b.sim) + step);
			(void)sop_label_store(b.disk, l, NULL);
			crashed = sim_crashed(b.sim);
			sop_disk_close(b.disk);
			sim_power_on(b.sim, SIM_KEEP_RANDOM, choice);
			assert_int_equal(sim_open_disk(b.sim, &b.disk, "/d1", NULL), 0);
			got = load(b.disk, NULL);
			if (!crashed)
				assert_int_equal(got, 9);
			else if (got != 9 && got != SOP_ENOTVOLUME && got != SOP_ECORRUPT)
				fail_msg("step %lu choice %lu: %ld", (unsigned long)step,
					(unsigned long)choice, (long)got);
			free(l);
			bench_free(&b);
		}
		if (!crashed)
			break;
	}
}

static void every_failing_step_is_reported(void **unused)
{
	bool failed = true;

	(void)unused;
	for (uint64_t step = 1; failed; step++) {
		struct bench b = bench_new(step);
		struct sop_label *l = example(9);
		struct sop_err e = {0};
		uint64_t first = sim_steps(b.sim);

		sim_fail_step(b.sim, first + step, -ENOSPC);
		failed = sop_label_store(b.disk, l, &e) != 0;
		assert_int_equal(failed, sim_steps(b.sim) - first >= step);
		if (failed) {
			assert_int_equal(e.code, -ENOSPC);
			assert_non_null(strstr(e.text, "/d1: label."));
		}
		free(l);
		bench_free(&b);
	}
}

static void a_disk_that_gives_errors_is_not_called_unlabelled(void **unused)
{
	struct bench b = bench_new(1);
	struct sop_err e = {0};

	(void)unused;
	store(b.disk, 8);
	sim_disk_error(b.sim, "/d1", -EIO, 0, 0);
	assert_int_equal(load(b.disk, &e), -EIO);
	bench_free(&b);
}

/* It may be the newer one, or the only whole one: what is not known is not decided. */
static void a_copy_that_memory_was_short_for_is_not_passed_over(void **unused)
{
	static const char *const file[] = {SOP_PATH_LABEL0, SOP_PATH_LABEL1};
	bool failed = true;

	(void)unused;
	for (unsigned n = 1; failed; n++)
		for (unsigned newer = 0; newer < 2; newer++) {
			struct bench b = bench_new(n);
			struct sop_label *nine = example(9);
			int64_t got;

			store(b.disk, 8);
			poke_label(&b, file[newer], nine);
			sim_fail_io(b.sim, n, -ENOMEM, false);
			got = load(b.disk, NULL);
			failed = sim_io_failed(b.sim);
			assert_int_equal(got, failed ? -ENOMEM : 9);
			free(nine);
			bench_free(&b);
		}
}

static void a_label_is_not_stored_over_a_copy_that_could_not_be_read(void **unused)
{
	static const char *const file[] = {SOP_PATH_LABEL0, SOP_PATH_LABEL1};
	static const uint8_t junk[512] = {1};
	bool failed = true;

	(void)unused;
	for (unsigned n = 1; failed; n++)
		for (unsigned good = 0; good < 2; good++) {
			struct bench b = bench_new(n);
			struct sop_label *nine = example(9);
			int rc;

			store(b.disk, 8);
			sim_poke(b.sim, "/d1", file[!good], 2048, junk, sizeof(junk));
			sim_fail_io(b.sim, n, -ENOMEM, false);
			rc = sop_label_store(b.disk, nine, NULL);
			failed = sim_io_failed(b.sim);
			sim_fail_io(b.sim, 0, 0, false);
			assert_int_equal(rc, failed ? -ENOMEM : 0);
			assert_true(load(b.disk, NULL) >= 8);
			free(nine);
			bench_free(&b);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decode_gives_back_what_encode_took),
		cmocka_unit_test(any_changed_bit_is_noticed),
		cmocka_unit_test(short_input_is_refused),
		cmocka_unit_test(newer_format_is_refused_by_its_number),
		cmocka_unit_test(impossible_content_is_refused),
		cmocka_unit_test(label_load_takes_the_newer_whole_copy),
		cmocka_unit_test(label_load_says_which_folder_has_none),
		cmocka_unit_test(a_whole_newer_format_beats_an_old_copy),
		cmocka_unit_test(copies_of_different_disks_are_refused),
		cmocka_unit_test(a_crash_at_any_step_leaves_a_whole_label),
		cmocka_unit_test(a_crash_in_the_first_store_leaves_none_or_the_label),
		cmocka_unit_test(every_failing_step_is_reported),
		cmocka_unit_test(a_disk_that_gives_errors_is_not_called_unlabelled),
		cmocka_unit_test(a_copy_that_memory_was_short_for_is_not_passed_over),
		cmocka_unit_test(a_label_is_not_stored_over_a_copy_that_could_not_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
