#include "tests/unit/blob_fixture.h"

static const struct {
	unsigned k, m;
} profiles[] = {{1, 0}, {1, 1}, {1, 2}, {2, 0}, {2, 1}, {2, 2}, {3, 2}, {4, 2}, {5, 3}, {8, 4}};

/* Of one blob: what its fragments look like on the disks. */
struct frags {
	struct sop_blobref ref;
	unsigned n;
	uint64_t bytes;
	uint8_t *saved[SOP_EC_MAX];
	uint64_t size[SOP_EC_MAX];
};

static void size_cb(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct {
		const char *name;
		uint64_t size;
	} *want = arg;

	(void)allocated;
	if (!strcmp(file, want->name))
		want->size = size;
}

static uint64_t file_size(struct volume *v, uint64_t id, unsigned shard)
{
	struct {
		const char *name;
		uint64_t size;
	} want = {shard_name(id, shard), 0};

	sim_each_file(v->sim, shard_disk(v, id, shard), size_cb, &want);
	return want.size;
}

static void frags_save(struct volume *v, struct frags *f, const struct sop_blobref *ref)
{
	struct sop_segment_info info = info_of(v, ref->segment);

	memset(f, 0, sizeof(*f));
	f->ref = *ref;
	f->n = (unsigned)info.k + info.m;
	f->bytes = sop_blob_shard_bytes(ref->len, info.k);
	for (unsigned i = 0; i < f->n; i++) {
		f->saved[i] = malloc(f->bytes);
		assert_non_null(f->saved[i]);
		f->size[i] = file_size(v, ref->segment, i);
		assert_int_equal(
			sim_peek(v->sim, shard_disk(v, ref->segment, i),
				shard_name(ref->segment, i), ref->off, f->saved[i], f->bytes),
			0);
	}
}

static void poke(struct volume *v, const struct frags *f, unsigned shard, uint64_t at,
	const void *data, size_t len)
{
	assert_int_equal(sim_poke(v->sim, shard_disk(v, f->ref.segment, shard),
				 shard_name(f->ref.segment, shard), f->ref.off + at, data, len),
		0);
}

static void frags_restore(struct volume *v, struct frags *f)
{
	for (unsigned i = 0; i < f->n; i++) {
		assert_int_equal(sim_set_size(v->sim, shard_disk(v, f->ref.segment, i),
					 shard_name(f->ref.segment, i), f->size[i]),
			0);
		poke(v, f, i, 0, f->saved[i], f->bytes);
	}
}

static void frags_free(struct frags *f)
{
	for (unsigned i = 0; i < f->n; i++)
		free(f->saved[i]);
}

enum damage { GONE, GARBAGE, TRUNCATED, SWAPPED, ZEROED, DAMAGES };

static void do_damage(struct volume *v, const struct frags *f, unsigned shard, enum damage how)
{
	const char *disk = shard_disk(v, f->ref.segment, shard);
	uint8_t *buf = calloc(1, f->bytes);

	assert_non_null(buf);
	switch (how) {
	case GONE:
		sim_disk_error(v->sim, disk, -EIO, 0, 0);
		break;
	case GARBAGE:
		test_fill(buf, f->bytes, shard + 99);
		poke(v, f, shard, 0, buf, f->bytes);
		break;
	case TRUNCATED:
		assert_int_equal(sim_set_size(v->sim, disk, shard_name(f->ref.segment, shard),
					 f->ref.off + 50),
			0);
		break;
	case SWAPPED:
		poke(v, f, shard, 0, f->saved[(shard + 1) % f->n], f->bytes);
		break;
	case ZEROED:
		poke(v, f, shard, 0, buf, f->bytes);
		break;
	case DAMAGES:
		break;
	}
	free(buf);
}

static void heal_errors(struct volume *v)
{
	for (unsigned i = 0; i < v->disks; i++)
		sim_disk_error(v->sim, v->path[i], 0, 0, 0);
}

/* --- */

static void shard_bytes_hold_header_blocks_and_sums(void **state)
{
	(void)state;
	assert_int_equal(sop_blob_shard_bytes(1, 1), 112); /* 40 + 64 + 4, to 8 */
	assert_int_equal(sop_blob_shard_bytes(64, 4), 112);
	assert_int_equal(sop_blob_shard_bytes(4096, 1), 40 + 4096 + 4 + 4);
	assert_int_equal(sop_blob_shard_bytes(4097, 1), 40 + 4096 + 64 + 8);
	assert_int_equal(sop_blob_shard_bytes(1 << 20, 2), 40 + 128 * 4100);
	for (uint32_t len = 1; len < 100000; len += 37)
		assert_int_equal(sop_blob_shard_bytes(len, 3) % 8, 0);
}

static void round_trips_for_profiles_and_lengths(void **state)
{
	static const uint32_t fixed[] = {
		1, 63, 64, 65, 4095, 4096, 4097, 70000, 1 << 20, SOP_BLOB_MAX};

	(void)state;
	for (size_t p = 0; p < SOP_ARRAY_LEN(profiles); p++) {
		unsigned k = profiles[p].k, m = profiles[p].m;
		uint32_t lens[SOP_ARRAY_LEN(fixed) + 3];
		struct sop_blobref refs[SOP_ARRAY_LEN(lens)];
		struct volume v;

		memcpy(lens, fixed, sizeof(fixed));
		for (uint32_t i = 0; i < 3; i++)
			lens[SOP_ARRAY_LEN(fixed) + i] = k * 4096 - 1 + i;
		volume_new(&v, k + m, k, m);
		for (size_t i = 0; i < SOP_ARRAY_LEN(lens); i++)
			refs[i] = put_seed(&v, lens[i], i + 1);
		for (size_t i = 0; i < SOP_ARRAY_LEN(lens); i++)
			assert_int_equal(get_seed(&v, &refs[i], i + 1), 0);
		volume_free(&v);
	}
}

static void check_part(struct volume *v, const struct sop_blobref *ref, const uint8_t *data,
	uint64_t off, size_t len)
{
	uint8_t *got = malloc(len + 1);
	struct sop_err e = {0};

	assert_non_null(got);
	got[len] = 0x5a;
	assert_ok(sop_blob_read(v->segs, ref, got, len, off, &e), &e);
	assert_memory_equal(got, data + off, len);
	assert_int_equal(got[len], 0x5a);
	free(got);
}

static void any_part_can_be_read(bool cold, unsigned lost)
{
	static const uint32_t lens[] = {100, 5000, 33333, 300000};
	uint64_t x = SEED;

	for (size_t l = 0; l < SOP_ARRAY_LEN(lens); l++) {
		uint32_t len = lens[l];
		uint8_t *data = malloc(len);
		struct sop_blobref ref;
		struct volume v;

		assert_non_null(data);
		test_fill(data, len, l);
		volume_new(&v, 5, 3, 2);
		ref = put_one(&v, SOP_STREAM_BULK, data, len);
		volume_close(&v);
		volume_open_as(&v, cold);
		for (unsigned i = 0; i < lost; i++)
			sim_disk_error(v.sim, shard_disk(&v, ref.segment, i), -EIO, 0, 0);
		check_part(&v, &ref, data, 0, 0);
		check_part(&v, &ref, data, len, 0);
		check_part(&v, &ref, data, len - 1, 1);
		for (unsigned i = 0; i < 150; i++) {
			uint64_t off = test_rand(&x) % len;
			size_t most = len - off;

			if (i % 2)
				most = SOP_MIN(most, (size_t)9000);
			check_part(&v, &ref, data, off, test_rand(&x) % (most + 1));
		}
		volume_free(&v);
		free(data);
	}
}

static void parts_are_read_from_the_page_cache(void **state)
{
	(void)state;
	any_part_can_be_read(false, 0);
}

static void parts_are_read_from_the_disks(void **state)
{
	(void)state;
	any_part_can_be_read(true, 0);
}

static void parts_are_rebuilt(void **state)
{
	(void)state;
	any_part_can_be_read(true, 1);
	any_part_can_be_read(false, 2);
}

static void check_damage(unsigned k, unsigned m, uint32_t len, enum damage how)
{
	unsigned n = k + m;
	uint32_t with_data = 0; /* a short blob has none in its last slices */
	struct sop_blobref ref;
	struct frags f;
	struct volume v;

	for (unsigned i = 0; i < k; i++)
		if (i * sop_frag_shape(len, k).slice < len)
			with_data |= 1u << i;
	volume_new(&v, n, k, m);
	put_seed(&v, 10000, 5);
	ref = put_seed(&v, len, 6);
	frags_save(&v, &f, &ref);
	for (uint32_t set = 0; set < 1u << n; set++) {
		unsigned bad = (unsigned)__builtin_popcount(set);
		int rc;

		if (bad > m + 1)
			continue;
		SOP_EACH_BIT(i, set)
		do_damage(&v, &f, i, how);
		rc = get_seed(&v, &ref, 6);
		assert_int_equal(rc, bad <= m || !(set & with_data) ? 0 : SOP_ELOST);
		heal_errors(&v);
		frags_restore(&v, &f);
	}
	assert_int_equal(get_seed(&v, &ref, 6), 0);
	frags_free(&f);
	volume_free(&v);
}

static void any_m_bad_shards_are_survived_and_more_are_not_hidden(void **state)
{
	static const struct {
		unsigned k, m;
		uint32_t len;
	} cases[] = {
		{1, 0, 5000}, {1, 2, 300}, {2, 1, 9001}, {2, 2, 50000}, {4, 2, 40}, {4, 2, 99999}};

	(void)state;
	for (size_t c = 0; c < SOP_ARRAY_LEN(cases); c++)
		for (enum damage how = 0; how < DAMAGES; how++)
			if (how != SWAPPED || cases[c].k + cases[c].m > 1)
				check_damage(cases[c].k, cases[c].m, cases[c].len, how);
}

static void shard_files_removed_while_mounted_or_not(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 100000, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sim_remove(v.sim, shard_disk(&v, ref.segment, i),
					 shard_name(ref.segment, i)),
			0);
	volume_close(&v);
	volume_open(&v);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	assert_int_equal(
		sim_remove(v.sim, shard_disk(&v, ref.segment, 2), shard_name(ref.segment, 2)), 0);
	volume_close(&v);
	volume_open(&v);
	assert_int_equal(get_seed(&v, &ref, 1), SOP_ELOST);
	volume_free(&v);
}

struct exchange {
	struct volume *v;
	const struct sop_blobref *ref;
	unsigned member;
	bool reopen, done;
};

/* The disk goes while something is being written to it, and comes back as another mount of it, so
 * that the lock taken before is not there. */
static void exchange(void *arg)
{
	struct exchange *x = arg;
	struct sop_err e = {0};

	if (x->done)
		return;
	x->done = true;
	assert_ok(sop_members_offline(x->v->mem, x->member, &e), &e);
	assert_int_equal(sim_remove(x->v->sim, x->v->path[x->member], SOP_PATH_LOCK), 0);
	assert_ok(sop_members_online(x->v->mem, x->member, NULL, &e), &e);
	if (x->reopen)
		assert_int_equal(get_seed(x->v, x->ref, 3), 0);
}

static void a_repair_does_not_count_when_its_disk_went_and_came_back_meanwhile(void **state)
{
	(void)state;
	for (unsigned reopen = 0; reopen < 2; reopen++) {
		struct exchange x = {.reopen = reopen};
		struct sop_blobref ref;
		struct sop_err e = {0};
		struct volume v;
		struct frags f;
		uint32_t good;

		volume_new(&v, 4, 2, 2);
		ref = put_seed(&v, 20000, 3);
		assert_ok(sop_segments_sync(v.segs, &e), &e);
		sop_segments_seal(v.segs, ref.segment);
		frags_save(&v, &f, &ref);
		poke(&v, &f, 0, 1000, "x!", 2);
		x.v = &v;
		x.ref = &ref;
		x.member = info_of(&v, ref.segment).disks[0];
		sim_watch(v.sim, exchange, &x);
		assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
		sim_watch(v.sim, NULL, NULL);
		assert_true(x.done);
		assert_int_equal(good, 14);
		assert_ok(sop_segments_sync(v.segs, &e), &e);
		assert_false(info_of(&v, ref.segment).stale & ~1u);
		assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
		assert_int_equal(good, 15);
		frags_free(&f);
		volume_free(&v);
	}
}

/* Each row of blocks has its own k good ones. */
static void damage_in_different_rows_of_all_shards_is_survived(void **state)
{
	struct sop_blobref ref;
	struct frags f;
	struct volume v;
	uint32_t good = 0;
	struct sop_err e = {0};

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 16 * 4096, 3); /* 8 rows */
	frags_save(&v, &f, &ref);
	for (unsigned r = 0; r < 8; r++)
		for (unsigned i = 0; i < 2; i++)
			poke(&v, &f, (r + i) % 4, 40 + r * 4100 + 17, "x!", 2);
	assert_int_equal(get_seed(&v, &ref, 3), 0);
	assert_int_equal(sop_blob_verify(v.segs, &ref, false, &good, &e), 0);
	assert_int_equal(good, 0);
	assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
	assert_int_equal(good, 15);
	for (unsigned i = 0; i < 4; i++) {
		uint8_t *now = malloc(f.bytes);

		assert_non_null(now);
		assert_int_equal(sim_peek(v.sim, shard_disk(&v, ref.segment, i),
					 shard_name(ref.segment, i), ref.off, now, f.bytes),
			0);
		assert_memory_equal(now, f.saved[i], f.bytes);
		free(now);
	}
	frags_free(&f);
	volume_free(&v);
}

static void bit_flips_never_give_wrong_bytes(void **state)
{
	uint64_t x = SEED + 1;
	struct sop_blobref ref;
	struct frags f;
	struct volume v;
	unsigned lost = 0;

	(void)state;
	print_message("seed %u\n", SEED + 1);
	volume_new(&v, 5, 3, 2);
	ref = put_seed(&v, 30000, 4);
	frags_save(&v, &f, &ref);
	for (unsigned round = 0; round < 400; round++) {
		unsigned flips = 1 + (unsigned)(test_rand(&x) % 40);
		uint32_t hit = 0;
		int rc;

		for (unsigned i = 0; i < flips; i++) {
			unsigned shard = (unsigned)(test_rand(&x) % f.n);
			uint64_t at = test_rand(&x) % f.bytes;
			uint8_t byte = f.saved[shard][at] ^ (uint8_t)(1u << (test_rand(&x) % 8));

			poke(&v, &f, shard, at, &byte, 1);
			hit |= 1u << shard;
		}
		rc = get_seed(&v, &ref, 4);
		if (__builtin_popcount(hit) <= 2)
			assert_int_equal(rc, 0);
		else if (rc)
			assert_int_equal(rc, SOP_ELOST);
		lost += rc != 0;
		frags_restore(&v, &f);
	}
	assert_in_range(lost, 1, 399);
	frags_free(&f);
	volume_free(&v);
}

static void a_ref_with_another_nonce_place_or_length_gives_nothing(void **state)
{
	struct sop_blobref a, b, bad;
	uint8_t buf[8000];
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	a = put_seed(&v, 8000, 1);
	b = put_seed(&v, 8000, 1);
	assert_true(a.off != b.off);
	bad = a;
	bad.nonce ^= 1;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 8000, 0, &e), SOP_ELOST);
	bad = a;
	bad.off = b.off;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 8000, 0, &e), SOP_ELOST);
	bad = a;
	bad.segment += 1 << 20;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 8000, 0, &e), SOP_ELOST);
	bad = a;
	bad.segment = 0;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, 0, &e), SOP_ECORRUPT);
	bad = a;
	bad.len = SOP_BLOB_MAX + 1;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, 0, &e), SOP_ECORRUPT);
	bad = a;
	bad.off = 4;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, 0, &e), SOP_ECORRUPT);
	bad.off = UINT64_MAX - 7;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, 0, &e), SOP_ECORRUPT);
	bad.off = b.off + 8000;
	assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, 0, &e), SOP_ECORRUPT);
	assert_int_equal(sop_blob_read(v.segs, &a, buf, 2, 7999, &e), -EINVAL);
	assert_int_equal(sop_blob_read(v.segs, &a, buf, SIZE_MAX, 1, &e), -EINVAL);
	assert_int_equal(sop_blob_read(v.segs, &a, buf, 1, UINT64_MAX, &e), -EINVAL);
	volume_free(&v);
}

/* The address alone is wrong: every byte on the disks is right. */
static void check_lengths(unsigned k, unsigned m, uint32_t len, bool cold)
{
	static const int off[] = {-70000, -4096, -4000, -64, -1, 1, 63, 64, 4096, 8192, 100000};
	uint8_t *buf = malloc(len + 100000), *data = malloc(len);
	struct sop_blobref ref, bad;
	struct sop_err e = {0};
	uint32_t good;
	struct volume v;

	assert_non_null(buf);
	assert_non_null(data);
	test_fill(data, len, 1);
	volume_new(&v, k + m, k, m);
	ref = put_seed(&v, len, 1);
	volume_close(&v);
	volume_open_as(&v, cold);
	for (size_t i = 0; i < SOP_ARRAY_LEN(off); i++) {
		if (off[i] < 0 && (uint32_t)-off[i] >= len)
			continue;
		bad = ref;
		bad.len += (uint32_t)off[i];
		assert_int_equal(sop_blob_read(v.segs, &bad, buf, bad.len, 0, &e), SOP_ELOST);
		for (uint32_t at = 0; at < bad.len; at += 4096)
			assert_int_equal(sop_blob_read(v.segs, &bad, buf, 1, at, &e), SOP_ELOST);
		assert_int_equal(sop_blob_verify(v.segs, &bad, true, &good, &e), SOP_ECORRUPT);
	}
	assert_ok(sop_blob_read(v.segs, &ref, buf, len, 0, &e), &e);
	assert_memory_equal(buf, data, len);
	free(data);
	free(buf);
	volume_free(&v);
}

static void a_ref_with_another_length_gives_an_error_and_no_bytes(void **state)
{
	(void)state;
	for (unsigned cold = 0; cold < 2; cold++) {
		check_lengths(1, 0, 5000, cold);
		check_lengths(1, 1, 100000, cold);
		check_lengths(2, 2, 4000, cold);
		check_lengths(2, 2, 100000, cold);
		check_lengths(4, 2, 200000, cold);
	}
}

/* Put into each shard file, with checksums that do not know the length, what is there with ones
 * that do. */
static void make_old(struct volume *v, const struct sop_blobref *ref)
{
	struct sop_segment_info info = info_of(v, ref->segment);
	struct sop_frag_shape shape = sop_frag_shape(ref->len, info.k);
	uint8_t block[SOP_FRAG_STRIDE];
	struct sop_disk_shard raw;

	info.lengths = false;
	for (unsigned i = 0; i < (unsigned)info.k + info.m; i++) {
		const char *disk = shard_disk(v, ref->segment, i);
		const char *name = shard_name(ref->segment, i);
		uint32_t base = sop_frag_seed_base(&info, ref, i);
		struct sop_uuid volume;

		assert_int_equal(sim_peek(v->sim, disk, name, 0, &raw, sizeof(raw)), 0);
		memcpy(volume.b, raw.volume_uuid, sizeof(volume.b));
		sop_shard_header_encode(&raw, &volume, &info, i, le64_get(raw.created_ns));
		assert_int_equal(sim_poke(v->sim, disk, name, 0, &raw, sizeof(raw)), 0);
		for (uint32_t r = 0; r < shape.rows; r++) {
			uint64_t at = ref->off + sizeof(struct sop_disk_fragment) +
				      (uint64_t)r * SOP_FRAG_STRIDE;
			uint32_t len = sop_frag_block(&shape, r);
			struct le32 sum;

			assert_int_equal(sim_peek(v->sim, disk, name, at, block, len), 0);
			sum = le32_make(sop_crc32c(sop_frag_seed_block(base, r), block, len));
			assert_int_equal(
				sim_poke(v->sim, disk, name, at + len, &sum, sizeof(sum)), 0);
		}
	}
}

static void segments_whose_checksums_do_not_know_lengths_are_read_and_repaired(void **state)
{
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct volume v;
	struct frags f;
	uint32_t good;

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 100000, 1);
	make_old(&v, &ref);
	volume_close(&v);
	volume_open(&v);
	assert_false(info_of(&v, ref.segment).lengths);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	frags_save(&v, &f, &ref);
	poke(&v, &f, 0, 1000, "x!", 2);
	assert_int_equal(
		sim_remove(v.sim, shard_disk(&v, ref.segment, 1), shard_name(ref.segment, 1)), 0);
	volume_close(&v);
	volume_open(&v);
	assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
	assert_int_equal(good, 15);
	for (unsigned i = 2; i < 4; i++)
		poke(&v, &f, i, 1000, "x!", 2);
	volume_close(&v);
	volume_open(&v);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	frags_free(&f);
	volume_free(&v);
}

static void a_block_of_another_blob_in_its_place_is_noticed(void **state)
{
	uint8_t *data = calloc(1, 8 * 4096);
	struct sop_blobref a, b;
	struct frags fa, fb;
	struct volume v;
	uint8_t got[4096];
	struct sop_err e = {0};

	(void)state;
	assert_non_null(data);
	volume_new(&v, 1, 1, 0);
	/* The same data in every block: only place and nonce tell them apart. */
	a = put_one(&v, SOP_STREAM_SMALL, data, 8 * 4096);
	b = put_one(&v, SOP_STREAM_SMALL, data, 8 * 4096);
	frags_save(&v, &fa, &a);
	frags_save(&v, &fb, &b);
	poke(&v, &fa, 0, 40, fb.saved[0] + 40, 4100);
	poke(&v, &fa, 0, 40 + 4100, fa.saved[0] + 40 + 2 * 4100, 4100);
	assert_int_equal(sop_blob_read(v.segs, &a, got, 4096, 0, &e), SOP_ELOST);
	assert_int_equal(sop_blob_read(v.segs, &a, got, 4096, 4096, &e), SOP_ELOST);
	assert_int_equal(sop_blob_read(v.segs, &a, got, 4096, 2 * 4096, &e), 0);
	frags_free(&fa);
	frags_free(&fb);
	free(data);
	volume_free(&v);
}

static void bad_puts_are_refused(void **state)
{
	struct sop_blob_put put = {.data = "x", .len = 0, .kind = SOP_BLOB_DATA};
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 2, 1, 1);
	assert_int_equal(sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, &put, 1, &e), -EINVAL);
	put.len = SOP_BLOB_MAX + 1;
	assert_int_equal(sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, &put, 1, &e), -EINVAL);
	put.len = 1;
	assert_int_equal(sop_segments_put(v.segs, 7, SOP_STREAM_SMALL, &put, 1, &e), -EINVAL);
	assert_int_equal(sop_segments_put(v.segs, 0, SOP_STREAMS, &put, 1, &e), -EINVAL);
	volume_free(&v);
}

/* --- what it costs --- */

static void an_append_of_many_small_blobs_is_one_write_a_shard(void **state)
{
	static uint8_t data[50][3000];
	struct sop_blob_put puts[50];
	struct sim_counts c;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 6, 4, 2);
	put_seed(&v, 100, 1);
	for (size_t i = 0; i < 50; i++) {
		test_fill(data[i], sizeof(data[i]), i);
		puts[i] = (struct sop_blob_put){
			.data = data[i], .len = (uint32_t)(1 + i * 60), .kind = SOP_BLOB_NODE};
	}
	sim_take_counts(v.sim);
	assert_ok(sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, puts, 50, &e), &e);
	c = sim_take_counts(v.sim);
	assert_int_equal(c.writes, 6);
	assert_int_equal(c.reads + c.syncs + c.creates + c.others, 0);
	for (size_t i = 0; i < 50; i++)
		check_part(&v, &puts[i].ref, data[i], 0, puts[i].len);
	/* A large one too. */
	sim_take_counts(v.sim);
	put_seed(&v, SOP_BLOB_MAX, 2);
	assert_int_equal(sim_take_counts(v.sim).writes, 6);
	volume_free(&v);
}

static uint64_t reads_for(struct volume *v, const struct sop_blobref *ref, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len);
	struct sop_err e = {0};

	assert_non_null(buf);
	sim_take_counts(v->sim);
	assert_ok(sop_blob_read(v->segs, ref, buf, len, off, &e), &e);
	free(buf);
	return sim_take_counts(v->sim).reads;
}

static void cold_reads_touch_no_more_shards_than_needed(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	volume_new(&v, 6, 4, 2);
	ref = put_seed(&v, 1 << 20, 1);
	volume_close(&v);
	volume_open_as(&v, true);
	reads_for(&v, &ref, 0, 1 << 20); /* learns of the segment, opens the files */
	assert_int_equal(reads_for(&v, &ref, 8192, 4096), 1);
	assert_int_equal(reads_for(&v, &ref, (1 << 18) + 100, 10000), 1);
	assert_int_equal(reads_for(&v, &ref, (1 << 18) - 100, 200), 2);
	assert_int_equal(reads_for(&v, &ref, 0, 1 << 20), 4);
	/* A shard that is known to be gone costs k, not k and a retry. */
	sim_disk_gone(v.sim, shard_disk(&v, ref.segment, 1), true);
	sop_members_event(v.mem, info_of(&v, ref.segment).disks[1], SOP_EVENT_WRITE, -EIO);
	assert_null(sop_members_disk(v.mem, info_of(&v, ref.segment).disks[1]));
	assert_int_equal(reads_for(&v, &ref, 1 << 18, 4096), 4);
	assert_int_equal(reads_for(&v, &ref, 0, 1 << 20), 4);
	assert_int_equal(reads_for(&v, &ref, 0, 4096), 1);
	volume_free(&v);
}

static void cached_reads_ask_no_disk(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 1 << 20, 1);
	assert_int_equal(reads_for(&v, &ref, 0, 1 << 20), 0);
	volume_free(&v);
}

/* --- failing disks --- */

static void a_disk_that_fails_in_an_append_is_left_out(void **state)
{
	struct sop_blobref a, b, c;
	struct sop_segment_info info;
	unsigned member;
	struct volume v;

	(void)state;
	volume_new(&v, 5, 2, 2);
	a = put_seed(&v, 20000, 1);
	info = info_of(&v, a.segment);
	member = info.disks[1];
	sim_disk_error(v.sim, v.path[member], 0, -EIO, 0);
	b = put_seed(&v, 20000, 2);
	assert_int_equal(b.segment, a.segment);
	info = info_of(&v, b.segment);
	assert_true(info.sealed);
	assert_int_equal(info.stale, 2);
	assert_null(sop_members_disk(v.mem, member));
	c = put_seed(&v, 20000, 3);
	assert_true(c.segment != a.segment);
	info = info_of(&v, c.segment);
	assert_int_equal(info.stale, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_not_equal(info.disks[i], member);
	assert_int_equal(get_seed(&v, &a, 1), 0);
	assert_int_equal(get_seed(&v, &b, 2), 0);
	assert_int_equal(get_seed(&v, &c, 3), 0);
	volume_free(&v);
}

static void appends_go_on_degraded_down_to_k_disks(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_blobref refs[3];
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < 3; i++) {
		if (i)
			sim_disk_error(v.sim, v.path[i], 0, -EIO, 0);
		refs[i] = put_seed(&v, 5000, i);
		refs[i] = put_seed(&v, 5000, i);
		assert_int_equal(__builtin_popcount(info_of(&v, refs[i].segment).stale), (int)i);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(get_seed(&v, &refs[i], i), 0);
	sim_disk_error(v.sim, v.path[3], 0, -EIO, 0);
	assert_int_not_equal(sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, &put, 1, &e), 0);
	volume_free(&v);
}

static void a_full_volume_says_so_and_keeps_what_it_has(void **state)
{
	struct sop_blobref refs[200];
	uint8_t *data = malloc(100000);
	struct sop_err e = {0};
	struct volume v;
	size_t n = 0;
	int rc = 0;

	(void)state;
	assert_non_null(data);
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < 4; i++)
		sim_disk_resize(v.sim, v.path[i], (2u << 20) + i * 100000);
	while (!rc && n < 200) {
		struct sop_blob_put put = {.data = data, .len = 100000, .kind = SOP_BLOB_DATA};

		test_fill(data, 100000, n);
		rc = sop_segments_put(v.segs, 0, SOP_STREAM_BULK, &put, 1, &e);
		if (!rc)
			refs[n++] = put.ref;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_in_range(n, 30, 60);
	for (unsigned i = 0; i < 4; i++)
		assert_non_null(sop_members_disk(v.mem, i));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(get_seed(&v, &refs[i], i), 0);
	free(data);
	volume_free(&v);
}

/* Every step of an append and a sync fails once. */
static void any_single_failing_step_is_survived(void **state)
{
	(void)state;
	for (uint64_t n = 1;; n++) {
		struct sop_blobref refs[3];
		struct sop_err e = {0};
		struct volume v;
		uint64_t first;
		bool done;

		volume_new(&v, 4, 2, 2);
		first = sim_steps(v.sim);
		sim_fail_step(v.sim, first + n, -EIO);
		refs[0] = put_seed(&v, 50000, 0);
		refs[1] = put_seed(&v, 100, 1);
		assert_ok(sop_segments_sync(v.segs, &e), &e);
		refs[2] = put_seed(&v, 9000, 2);
		assert_ok(sop_segments_sync(v.segs, &e), &e);
		done = sim_steps(v.sim) < first + n;
		sim_fail_step(v.sim, 0, 0);
		volume_cut(&v, SIM_KEEP_SYNCED_ONLY, n);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(get_seed(&v, &refs[i], i), 0);
		volume_free(&v);
		if (done)
			break;
	}
}

/* --- verify and repair --- */

static void verify_names_the_bad_shards_and_repair_rewrites_them(void **state)
{
	uint32_t good = 0;
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct frags f;
	struct volume v;

	(void)state;
	volume_new(&v, 5, 3, 2);
	put_seed(&v, 3000, 1);
	ref = put_seed(&v, 100000, 2);
	put_seed(&v, 3000, 3);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	frags_save(&v, &f, &ref);
	assert_ok(sop_blob_verify(v.segs, &ref, false, &good, &e), &e);
	assert_int_equal(good, 31);
	poke(&v, &f, 0, 9, "X", 1);		/* the header alone */
	poke(&v, &f, 4, f.bytes - 20, "XX", 2); /* the last block */
	assert_ok(sop_blob_verify(v.segs, &ref, false, &good, &e), &e);
	assert_int_equal(good, 14);
	assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
	assert_int_equal(good, 31);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	volume_cut(&v, SIM_KEEP_SYNCED_ONLY, 1);
	assert_ok(sop_blob_verify(v.segs, &ref, false, &good, &e), &e);
	assert_int_equal(good, 31);
	for (unsigned i = 0; i < 3; i++)
		do_damage(&v, &f, i, ZEROED);
	assert_int_equal(sop_blob_verify(v.segs, &ref, true, &good, &e), SOP_ELOST);
	assert_int_equal(good, 24);
	frags_free(&f);
	volume_free(&v);
}

static void repair_makes_a_missing_shard_file_anew(void **state)
{
	struct sop_blobref refs[3];
	struct sop_segment_info info;
	uint32_t good = 0;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < 3; i++)
		refs[i] = put_seed(&v, 40000, i);
	info = info_of(&v, refs[0].segment);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	volume_close(&v);
	assert_int_equal(sim_remove(v.sim, v.path[info.disks[0]], shard_name(info.id, 0)), 0);
	assert_int_equal(sim_remove(v.sim, v.path[info.disks[3]], shard_name(info.id, 3)), 0);
	volume_open(&v);
	for (unsigned i = 0; i < 3; i++) {
		assert_ok(sop_blob_verify(v.segs, &refs[i], true, &good, &e), &e);
		assert_int_equal(good, 15);
	}
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	/* The new ones alone, after a power cut; found by their new headers. */
	volume_cut(&v, SIM_KEEP_SYNCED_ONLY, 2);
	volume_close(&v);
	assert_int_equal(sim_remove(v.sim, v.path[info.disks[1]], shard_name(info.id, 1)), 0);
	assert_int_equal(sim_remove(v.sim, v.path[info.disks[2]], shard_name(info.id, 2)), 0);
	volume_open(&v);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(get_seed(&v, &refs[i], i), 0);
	volume_free(&v);
}

/* --- threads --- */

#define THREADS 4
#define ROUNDS	60

struct job {
	struct volume *v;
	unsigned number;
	struct sop_blobref refs[ROUNDS];
	int rc;
};

static void *job_main(void *arg)
{
	struct job *j = arg;
	static const uint32_t lens[] = {100, 4096, 30000, 300000};

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t len = lens[(i + j->number) % 4];
		uint64_t seed = j->number * 1000 + i;
		uint8_t *data = malloc(2 * (size_t)len);
		struct sop_blob_put put = {.data = data, .len = len, .kind = SOP_BLOB_DATA};
		int rc;

		if (!data) {
			j->rc = -ENOMEM;
			break;
		}
		test_fill(data, len, seed);
		rc = sop_segments_put(j->v->segs, 0, (enum sop_stream)(i % 3), &put, 1, NULL);
		j->refs[i] = put.ref;
		if (!rc && i % 8 == 0)
			rc = sop_segments_sync(j->v->segs, NULL);
		if (!rc)
			rc = sop_blob_read(j->v->segs, &put.ref, data + len, len, 0, NULL);
		if (!rc && memcmp(data, data + len, len))
			rc = SOP_ECORRUPT;
		free(data);
		if (rc && !j->rc)
			j->rc = rc;
	}
	return NULL;
}

static void threads_append_read_and_sync_together(void **state)
{
	struct job jobs[THREADS] = {0};
	pthread_t threads[THREADS];
	struct sop_err e = {0};
	struct volume v = {.threads = true};

	(void)state;
	v.sim = sim_new(SEED);
	volume_format(&v, 5, 2, 2);
	volume_open_as(&v, true);
	for (unsigned i = 0; i < THREADS; i++) {
		jobs[i].v = &v;
		jobs[i].number = i;
		assert_int_equal(pthread_create(&threads[i], NULL, job_main, &jobs[i]), 0);
	}
	/* One disk fails on the way. */
	sim_disk_error(v.sim, v.path[2], 0, -EIO, 0);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(jobs[i].rc, 0);
	}
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	volume_cut(&v, SIM_KEEP_SYNCED_ONLY, 3);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned r = 0; r < ROUNDS; r++)
			assert_int_equal(get_seed(&v, &jobs[i].refs[r], i * 1000 + r), 0);
	volume_free(&v);
}

/* It hangs until the reads are through: whoever waited for it would not come back. */
static void a_slow_disk_does_not_hold_up_a_read(void **state)
{
	struct volume v = {.threads = true, .timeout_ms = 3600000};
	struct sop_blobref ref;
	unsigned member;

	(void)state;
	v.sim = sim_new(SEED);
	volume_format(&v, 4, 2, 2);
	volume_open_as(&v, true);
	ref = put_seed(&v, 50000, 1);
	member = info_of(&v, ref.segment).disks[0];
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	sim_disk_delay(v.sim, v.path[member], SIM_HANGS);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	assert_non_null(sop_members_disk(v.mem, member));
	sim_disk_delay(v.sim, v.path[member], 0);
	volume_free(&v);
}

static void a_disk_that_hangs_in_a_write_is_set_aside(void **state)
{
	struct volume v = {
		.threads = true, .timeout_ms = 3000}; /* the others answer in that time */
	struct sop_blobref a, b;
	unsigned member;

	(void)state;
	v.sim = sim_new(SEED);
	volume_format(&v, 5, 2, 2);
	volume_open(&v);
	a = put_seed(&v, 50000, 1);
	member = info_of(&v, a.segment).disks[2];
	sim_disk_delay(v.sim, v.path[member], SIM_HANGS);
	b = put_seed(&v, 50000, 2);
	sim_disk_delay(v.sim, v.path[member], 0);
	assert_null(sop_members_disk(v.mem, member));
	assert_int_equal(info_of(&v, b.segment).stale, 4);
	assert_int_equal(get_seed(&v, &a, 1), 0);
	assert_int_equal(get_seed(&v, &b, 2), 0);
	volume_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shard_bytes_hold_header_blocks_and_sums),
		cmocka_unit_test(round_trips_for_profiles_and_lengths),
		cmocka_unit_test(parts_are_read_from_the_page_cache),
		cmocka_unit_test(parts_are_read_from_the_disks),
		cmocka_unit_test(parts_are_rebuilt),
		cmocka_unit_test(any_m_bad_shards_are_survived_and_more_are_not_hidden),
		cmocka_unit_test(shard_files_removed_while_mounted_or_not),
		cmocka_unit_test(
			a_repair_does_not_count_when_its_disk_went_and_came_back_meanwhile),
		cmocka_unit_test(damage_in_different_rows_of_all_shards_is_survived),
		cmocka_unit_test(bit_flips_never_give_wrong_bytes),
		cmocka_unit_test(a_ref_with_another_nonce_place_or_length_gives_nothing),
		cmocka_unit_test(a_ref_with_another_length_gives_an_error_and_no_bytes),
		cmocka_unit_test(
			segments_whose_checksums_do_not_know_lengths_are_read_and_repaired),
		cmocka_unit_test(a_block_of_another_blob_in_its_place_is_noticed),
		cmocka_unit_test(bad_puts_are_refused),
		cmocka_unit_test(an_append_of_many_small_blobs_is_one_write_a_shard),
		cmocka_unit_test(cold_reads_touch_no_more_shards_than_needed),
		cmocka_unit_test(cached_reads_ask_no_disk),
		cmocka_unit_test(a_disk_that_fails_in_an_append_is_left_out),
		cmocka_unit_test(appends_go_on_degraded_down_to_k_disks),
		cmocka_unit_test(a_full_volume_says_so_and_keeps_what_it_has),
		cmocka_unit_test(any_single_failing_step_is_survived),
		cmocka_unit_test(verify_names_the_bad_shards_and_repair_rewrites_them),
		cmocka_unit_test(repair_makes_a_missing_shard_file_anew),
		cmocka_unit_test(threads_append_read_and_sync_together),
		cmocka_unit_test(a_slow_disk_does_not_hold_up_a_read),
		cmocka_unit_test(a_disk_that_hangs_in_a_write_is_set_aside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
