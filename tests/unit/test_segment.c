#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/blob_fixture.h"

static uint64_t end_of(struct volume *v, uint64_t id)
{
	struct sop_err e = {0};
	uint64_t end = 0;

	assert_ok(sop_segments_file_end(v->segs, id, &end, &e), &e);
	return end;
}

/* --- what is known of a segment --- */

static void an_unknown_segment_is_learned_from_its_files(void **state)
{
	struct sop_segment_info before, info;
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 6, 3, 2);
	ref = put_seed(&v, 7777, 1);
	before = info_of(&v, ref.segment);
	assert_int_equal(before.id, sop_members_epoch(v.mem) << 20 | 1);
	assert_false(before.sealed);
	assert_int_equal(before.end, 4096 + sop_blob_shard_bytes(7777, 3));
	assert_int_equal(end_of(&v, ref.segment), before.end);
	volume_close(&v);
	volume_open(&v);
	assert_int_equal(sop_segments_info(v.segs, ref.segment + 1, &info, &e), -ENOENT);
	assert_int_equal(sop_segments_info(v.segs, 0, &info, &e), -ENOENT);
	info = info_of(&v, ref.segment);
	assert_true(info.sealed);
	assert_int_equal(info.k, 3);
	assert_int_equal(info.m, 2);
	assert_int_equal(info.stream, SOP_STREAM_SMALL);
	assert_int_equal(info.end, before.end);
	assert_memory_equal(info.disks, before.disks, 5 * sizeof(info.disks[0]));
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	/* The stored table may come later, and must agree. */
	assert_ok(sop_segments_add(v.segs, &before, &e), &e);
	/* A shard that has been moved is where the table says; another shape is damage. */
	before.disks[0]++;
	assert_ok(sop_segments_add(v.segs, &before, &e), &e);
	assert_int_equal(info_of(&v, ref.segment).disks[0], before.disks[0]);
	before.k = 2;
	before.m = 3;
	assert_int_equal(sop_segments_add(v.segs, &before, &e), SOP_ECORRUPT);
	volume_free(&v);
}

static void a_table_entry_that_cannot_be_is_refused(void **state)
{
	struct sop_segment_info good = {.id = 5, .k = 2, .m = 1, .end = 4096, .disks = {0, 1, 2}},
				bad;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 3, 2, 1);
	bad = good;
	bad.k = 0;
	assert_int_equal(sop_segments_add(v.segs, &bad, &e), SOP_ECORRUPT);
	bad = good;
	bad.m = 31;
	assert_int_equal(sop_segments_add(v.segs, &bad, &e), SOP_ECORRUPT);
	bad = good;
	bad.end = SOP_SEGMENT_BYTES + 8ULL;
	assert_int_equal(sop_segments_add(v.segs, &bad, &e), SOP_ECORRUPT);
	bad = good;
	bad.disks[2] = SOP_MEMBERS_MAX;
	assert_int_equal(sop_segments_add(v.segs, &bad, &e), SOP_ECORRUPT);
	bad = good;
	bad.stream = SOP_STREAMS;
	assert_int_equal(sop_segments_add(v.segs, &bad, &e), SOP_ECORRUPT);
	assert_ok(sop_segments_add(v.segs, &good, &e), &e);
	volume_free(&v);
}

static void header_decode_takes_back_what_encode_made_and_nothing_else(void **state)
{
	struct sop_segment_info info = {.id = 0x123456789abcdef0,
					.k = 2,
					.m = 2,
					.stream = SOP_STREAM_BULK,
					.no_repair = true,
					.disks = {3, 1, 4, 0}},
				out;
	struct sop_uuid volume = {{1, 2, 3}}, other = {{1, 2, 4}};
	struct sop_disk_shard raw, bad;
	uint64_t x = SEED;

	(void)state;
	sop_shard_header_encode(&raw, &volume, &info, 2, 77);
	assert_int_equal(sop_shard_header_decode(&out, &raw, &volume, info.id, 2, 4, NULL), 0);
	assert_int_equal(out.k, 2);
	assert_memory_equal(out.disks, info.disks, sizeof(out.disks));
	assert_true(out.no_repair);
	assert_int_equal(
		sop_shard_header_decode(&out, &raw, &other, info.id, 2, 4, NULL), SOP_EFOREIGN);
	assert_int_equal(sop_shard_header_decode(&out, &raw, &volume, info.id + 1, 2, 4, NULL),
		SOP_ECORRUPT);
	assert_int_equal(
		sop_shard_header_decode(&out, &raw, &volume, info.id, 1, 4, NULL), SOP_ECORRUPT);
	assert_int_equal(
		sop_shard_header_decode(&out, &raw, &volume, info.id, 2, 1, NULL), SOP_ECORRUPT);
	for (unsigned i = 0; i < 2000; i++) {
		bad = raw;
		((uint8_t *)&bad)[test_rand(&x) % sizeof(bad)] ^=
			(uint8_t)(1u << (test_rand(&x) % 8));
		assert_int_not_equal(
			sop_shard_header_decode(&out, &bad, &volume, info.id, 2, 4, NULL), 0);
	}
	/* Whole by its checksum, and still not one that can be. */
	info.disks[2] = 4;
	info.disks[0] = SOP_MEMBERS_MAX;
	sop_shard_header_encode(&bad, &volume, &info, 2, 77);
	assert_int_equal(
		sop_shard_header_decode(&out, &bad, &volume, info.id, 2, 4, NULL), SOP_ECORRUPT);
}

/* --- open segments --- */

static void each_stream_has_a_segment_of_its_own_and_keeps_it(void **state)
{
	struct sop_blobref a[SOP_STREAMS], b;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < SOP_STREAMS; i++) {
		a[i] = put_one(&v, (enum sop_stream)i, "abc", 3);
		b = put_one(&v, (enum sop_stream)i, "abc", 3);
		assert_int_equal(a[i].segment, b.segment);
		assert_int_equal(a[i].off, 4096);
		assert_int_equal(b.off, 4096 + sop_blob_shard_bytes(3, 2));
		assert_int_equal(info_of(&v, b.segment).stream, i);
	}
	assert_true(a[0].segment != a[1].segment && a[1].segment != a[2].segment);
	sop_segments_seal(v.segs, a[0].segment);
	b = put_one(&v, SOP_STREAM_NODES, "abc", 3);
	assert_true(b.segment != a[0].segment);
	volume_free(&v);
}

/* Its true end is a guess, whatever the table says. */
static void a_segment_of_an_earlier_mount_is_not_appended_to(void **state)
{
	struct sop_segment_info info;
	struct sop_blobref a, b, c;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	a = put_seed(&v, 5000, 1);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	info = info_of(&v, a.segment);
	b = put_seed(&v, 5000, 2);
	assert_int_equal(b.segment, a.segment);
	volume_close(&v);
	volume_open(&v);
	assert_false(info.sealed);
	assert_ok(sop_segments_add(v.segs, &info, &e), &e);
	c = put_seed(&v, 5000, 3);
	assert_true(c.segment != a.segment);
	assert_int_equal(get_seed(&v, &a, 1), 0);
	assert_int_equal(get_seed(&v, &b, 2), 0); /* though it lies beyond the end in the table */
	assert_int_equal(get_seed(&v, &c, 3), 0);
	volume_free(&v);
}

struct surveyor {
	struct volume *v;
	atomic_bool stop;
	int rc;
};

static void *survey_all_the_time(void *arg)
{
	struct surveyor *x = arg;
	unsigned kept;

	while (!x->stop && !x->rc)
		for (unsigned i = 0; i < x->v->disks; i++)
			x->rc = x->rc ? x->rc : sop_segments_survey(x->v->segs, i, &kept, NULL);
	return NULL;
}

/* A disk's files are listed while others come: what is younger than the list is not missing. */
static void a_segment_that_is_being_made_misses_nothing(void **state)
{
	struct sop_blobref ref[200];
	struct surveyor x = {0};
	struct volume v = {.threads = true};
	struct sop_err e = {0};
	pthread_t thread;

	(void)state;
	volume_new(&v, 4, 2, 2);
	x.v = &v;
	assert_int_equal(pthread_create(&thread, NULL, survey_all_the_time, &x), 0);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(ref); i++) {
		ref[i] = put_seed(&v, 3000, i);
		sop_segments_seal(v.segs, ref[i].segment);
		assert_ok(sop_segments_sync(v.segs, &e), &e); /* else too many stay open */
	}
	x.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(x.rc, 0);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(ref); i++) {
		assert_int_equal(info_of(&v, ref[i].segment).stale, 0);
		assert_int_equal(get_seed(&v, &ref[i], i), 0);
	}
	volume_free(&v);
}

/* An append with zeros behind it, run and finished. */
static struct sop_blobref put_filled(struct volume *v, struct sop_blob_put *puts, size_t n)
{
	struct sop_batch *b = sop_batch_new(v->io);
	struct sop_append *a = NULL;
	struct sop_err e = {0};

	assert_non_null(b);
	assert_ok(sop_segments_prepare(&a, v->segs, 0, SOP_STREAM_SMALL, puts, n, 5000, b, &e), &e);
	sop_batch_run(b, SOP_IO_SERIAL, 0, 0);
	assert_ok(sop_segments_finish(a, &e), &e);
	sop_batch_put(b);
	return puts[0].ref;
}

static void append_larger_than_the_room(bool filled)
{
	static uint8_t data[40000];
	struct sop_blob_put puts[12];
	struct sop_segment_info info;
	struct sop_blobref a;
	struct sop_err e = {0};
	struct volume v;
	unsigned in_first = 0;
	uint64_t limit;

	volume_new(&v, 4, 2, 2);
	/* Room for five of the blobs below, behind the first one. */
	limit = SOP_SHARD_HEADER + sop_blob_shard_bytes(5000, 2) +
		5 * sop_blob_shard_bytes(40000, 2) + 1000;
	sop_segments_set_bytes(v.segs, limit);
	a = put_seed(&v, 5000, 1);
	test_fill(data, sizeof(data), 3);
	for (unsigned i = 0; i < 12; i++)
		puts[i] = (struct sop_blob_put){
			.data = data, .len = sizeof(data), .kind = SOP_BLOB_DATA};
	if (filled)
		put_filled(&v, puts, 12);
	else
		assert_ok(sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, puts, 12, &e), &e);
	for (unsigned i = 0; i < 12; i++) {
		in_first += puts[i].ref.segment == a.segment;
		assert_int_equal(get_seed(&v, &puts[i].ref, 3), 0);
	}
	assert_int_equal(in_first, 5);
	info = info_of(&v, a.segment);
	assert_true(info.sealed);
	assert_true(info.end <= limit);
	assert_true(end_of(&v, a.segment) <= limit);
	volume_free(&v);
}

static void an_append_larger_than_the_room_goes_on_in_a_new_segment(void **state)
{
	(void)state;
	append_larger_than_the_room(false);
	append_larger_than_the_room(true);
}

static void a_degraded_segment_is_left_when_its_disk_is_back(void **state)
{
	struct sop_blobref a, b, c;
	struct sop_segment_info info;
	struct sop_mend_report r;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	volume_close(&v);
	sim_disk_gone(v.sim, "/d2", true);
	volume_open(&v);
	a = put_seed(&v, 60000, 1);
	b = put_seed(&v, 60000, 2);
	assert_int_equal(a.segment, b.segment);
	info = info_of(&v, a.segment);
	assert_int_equal(__builtin_popcount(info.stale), 1);
	assert_int_equal(info.disks[__builtin_ctz(info.stale)], 2);
	sim_disk_gone(v.sim, "/d2", false);
	assert_ok(sop_members_online(v.mem, 2, NULL, &e), &e);
	c = put_seed(&v, 60000, 3);
	assert_true(c.segment != a.segment);
	assert_int_equal(info_of(&v, c.segment).stale, 0);
	/* What was missed is repaired in place; the file did not even exist. */
	for (unsigned i = 0; i < 2; i++) {
		uint32_t good = 0;

		assert_ok(sop_blob_verify(v.segs, i ? &b : &a, true, &good, &e), &e);
		assert_int_equal(good, 15);
	}
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	assert_ok(sop_segment_mend(
			  v.segs, a.segment, &(struct sop_mend_opts){.shards = info.stale}, &r, &e),
		&e);
	assert_int_equal(info_of(&v, a.segment).stale, 0);
	sim_disk_error(v.sim, "/d0", -EIO, 0, 0);
	sim_disk_error(v.sim, "/d1", -EIO, 0, 0);
	assert_int_equal(get_seed(&v, &a, 1), 0);
	assert_int_equal(get_seed(&v, &b, 2), 0);
	volume_free(&v);
}

static void an_abandoned_append_leaves_only_a_gap(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_append *a = NULL;
	struct sop_blobref x, y;
	struct sop_err e = {0};
	struct sop_batch *b;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	x = put_seed(&v, 900, 1);
	b = sop_batch_new(v.io);
	assert_non_null(b);
	assert_ok(sop_segments_prepare(&a, v.segs, 0, SOP_STREAM_SMALL, &put, 1, 0, b, &e), &e);
	sop_segments_abandon(a);
	sop_batch_put(b);
	y = put_seed(&v, 900, 2);
	assert_int_equal(x.segment, y.segment);
	assert_true(y.off > put.ref.off);
	assert_int_equal(get_seed(&v, &x, 1), 0);
	assert_int_equal(get_seed(&v, &y, 2), 0);
	volume_free(&v);
}

static void zeros_written_ahead_take_no_place_and_are_cut_off(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_segment_info info;
	struct sop_blobref x, y;
	uint64_t filled;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	x = put_filled(&v, &put, 1);
	filled = end_of(&v, x.segment);
	assert_int_equal(filled, info_of(&v, x.segment).end + 5000);
	/* Within them nothing grows; beyond, there are new ones. */
	x = put_filled(&v, &put, 1);
	assert_int_equal(end_of(&v, x.segment), filled);
	y = put_seed(&v, 20000, 2);
	x = put_filled(&v, &put, 1);
	info = info_of(&v, x.segment);
	assert_int_equal(end_of(&v, x.segment), info.end + 5000);
	assert_int_equal(y.segment, x.segment);
	sop_segments_cut(v.segs);
	assert_int_equal(end_of(&v, x.segment), info.end);
	assert_int_equal(get_seed(&v, &y, 2), 0);
	x = put_seed(&v, 900, 3);
	assert_int_equal(x.segment, y.segment);
	assert_int_equal(get_seed(&v, &y, 2), 0);
	assert_int_equal(get_seed(&v, &x, 3), 0);
	volume_free(&v);
}

static void a_segment_that_cannot_be_cut_is_left(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_blobref x, y;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	x = put_filled(&v, &put, 1);
	sim_disk_error(v.sim, "/d1", 0, -EIO, 0);
	sop_segments_cut(v.segs);
	sim_disk_error(v.sim, "/d1", 0, 0, 0);
	y = put_seed(&v, 900, 3);
	assert_true(x.segment != y.segment);
	assert_int_equal(get_seed(&v, &y, 3), 0);
	volume_free(&v);
}

struct later {
	struct volume *v;
	struct sop_blobref ref;
	atomic_bool done;
};

static void *put_later(void *arg)
{
	struct later *l = arg;

	l->ref = put_seed(l->v, 900, 2);
	atomic_store(&l->done, true);
	return NULL;
}

/* What another thread appends meanwhile must not be written before the zeros in its place. It
 * waits, which cannot be seen; that it has not is what some time is given for. */
static void nobody_writes_where_zeros_are_about_to_come(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_append *a = NULL;
	struct sop_err e = {0};
	struct sop_batch *b;
	struct later l = {0};
	struct volume v;
	pthread_t t;

	(void)state;
	volume_new(&v, 4, 2, 2);
	b = sop_batch_new(v.io);
	assert_non_null(b);
	assert_ok(sop_segments_prepare(&a, v.segs, 0, SOP_STREAM_SMALL, &put, 1, 5000, b, &e), &e);
	l.v = &v;
	assert_int_equal(pthread_create(&t, NULL, put_later, &l), 0);
	for (int i = 0; i < 200 && !atomic_load(&l.done); i++)
		usleep(1000);
	sop_batch_run(b, SOP_IO_SERIAL, 0, 0);
	assert_ok(sop_segments_finish(a, &e), &e);
	pthread_join(t, NULL);
	sop_batch_put(b);
	assert_int_equal(l.ref.segment, put.ref.segment);
	assert_int_equal(get_seed(&v, &l.ref, 2), 0);
	volume_free(&v);
}

static void a_disk_set_aside_while_an_append_runs_is_not_believed(void **state)
{
	struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
	struct sop_append *a = NULL;
	struct sop_segment_info info;
	struct sop_err e = {0};
	struct sop_batch *b;
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	b = sop_batch_new(v.io);
	assert_non_null(b);
	assert_ok(sop_segments_prepare(&a, v.segs, 0, SOP_STREAM_SMALL, &put, 1, 0, b, &e), &e);
	info = info_of(&v, put.ref.segment);
	assert_int_equal(sop_batch_run(b, SOP_IO_SERIAL, 0, 0), 4);
	sop_members_event(v.mem, info.disks[1], SOP_EVENT_WRITE, -EIO);
	assert_ok(sop_segments_finish(a, &e), &e);
	sop_batch_put(b);
	info = info_of(&v, put.ref.segment);
	assert_int_equal(info.stale, 2);
	assert_true(info.sealed);
	volume_free(&v);
}

/* --- sync --- */

static void what_finished_before_a_sync_survives_a_power_cut(void **state)
{
	(void)state;
	for (uint64_t choice = 0; choice < 10; choice++) {
		struct sop_blobref refs[12];
		struct sop_err e = {0};
		struct volume v;

		volume_new(&v, 5, 2, 2);
		for (unsigned i = 0; i < 12; i++) {
			uint8_t *data = malloc(30000);

			assert_non_null(data);
			test_fill(data, 30000, i);
			refs[i] = put_one(&v, (enum sop_stream)(i % 3), data, 30000);
			free(data);
			if (i == 4 || i == 8)
				assert_ok(sop_segments_sync(v.segs, &e), &e);
		}
		volume_cut(&v, choice ? SIM_KEEP_RANDOM : SIM_KEEP_SYNCED_ONLY, choice);
		for (unsigned i = 0; i < 12; i++) {
			int rc = get_seed(&v, &refs[i], i);

			if (i <= 8)
				assert_int_equal(rc, 0);
			else
				assert_true(!rc || rc == SOP_ELOST || rc == SOP_ECORRUPT);
		}
		volume_free(&v);
	}
}

static void a_sync_costs_one_datasync_a_dirty_shard(void **state)
{
	struct sim_counts c;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	put_seed(&v, 100, 1);
	sim_take_counts(v.sim);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	c = sim_take_counts(v.sim);
	assert_int_equal(c.syncs, 12); /* four files, their folders, the names of these */
	put_seed(&v, 100, 1);
	put_seed(&v, 100, 2);
	sim_take_counts(v.sim);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	assert_int_equal(sim_take_counts(v.sim).syncs, 4);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	assert_int_equal(sim_take_counts(v.sim).syncs, 0);
	volume_free(&v);
}

static void a_sync_fails_only_when_fewer_than_k_shards_are_left(void **state)
{
	struct sop_segment_info info;
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 40000, 1);
	info = info_of(&v, ref.segment);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_error(v.sim, v.path[info.disks[i]], 0, 0, -EIO);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	assert_int_equal(info_of(&v, ref.segment).stale, 3);
	assert_true(info_of(&v, ref.segment).sealed);
	assert_null(sop_members_disk(v.mem, info.disks[0]));
	volume_cut(&v, SIM_KEEP_SYNCED_ONLY, 1);
	assert_int_equal(get_seed(&v, &ref, 1), 0);
	volume_free(&v);

	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, 40000, 1);
	info = info_of(&v, ref.segment);
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(v.sim, v.path[info.disks[i]], 0, 0, -EIO);
	assert_int_equal(sop_segments_sync(v.segs, &e), SOP_ELOST);
	/* A second fdatasync may say that all is well: it is not. */
	for (unsigned i = 0; i < 3; i++)
		sim_disk_error(v.sim, v.path[info.disks[i]], 0, 0, 0);
	assert_int_equal(sop_segments_sync(v.segs, &e), SOP_ELOST);
	volume_free(&v);
}

/* Shards that were written, and those that were synced, must have k in common. */
static void a_sync_looks_at_what_each_append_reached(void **state)
{
	struct sop_segment_info info;
	struct sop_blobref a, b;
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	a = put_seed(&v, 40000, 1);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	info = info_of(&v, a.segment);
	/* b reaches 0 and 1 alone. */
	sim_disk_error(v.sim, v.path[info.disks[2]], 0, -EIO, 0);
	sim_disk_error(v.sim, v.path[info.disks[3]], 0, -EIO, 0);
	b = put_seed(&v, 40000, 2);
	assert_int_equal(b.segment, a.segment);
	assert_int_equal(info_of(&v, b.segment).stale, 12);
	sim_disk_error(v.sim, v.path[info.disks[1]], 0, 0, -EIO);
	assert_int_equal(sop_segments_sync(v.segs, &e), SOP_ELOST);
	volume_free(&v);
}

static void write_to_a_disk_that_goes_and_comes_back(bool read)
{
	struct sop_segment_info info;
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct sop_disk *before;
	struct volume v;

	volume_new(&v, 2, 1, 1);
	ref = put_seed(&v, 40000, 1);
	info = info_of(&v, ref.segment);
	before = sop_members_disk(v.mem, info.disks[0]);
	sop_members_event(v.mem, info.disks[0], SOP_EVENT_WRITE, -EIO);
	/* Mounted anew: our lock on it is gone. */
	assert_int_equal(sim_remove(v.sim, v.path[info.disks[0]], SOP_PATH_LOCK), 0);
	assert_ok(sop_members_online(v.mem, info.disks[0], NULL, &e), &e);
	assert_ptr_not_equal(sop_members_disk(v.mem, info.disks[0]), before);
	if (read) /* opens the file anew */
		assert_int_equal(get_seed(&v, &ref, 1), 0);
	sim_disk_error(v.sim, v.path[info.disks[1]], 0, 0, -EIO);
	assert_int_equal(sop_segments_sync(v.segs, &e), SOP_ELOST);
	assert_int_equal(info_of(&v, ref.segment).stale, 3);
	volume_free(&v);
}

static void writes_to_a_disk_that_went_and_came_back_do_not_count_as_synced(void **state)
{
	(void)state;
	write_to_a_disk_that_goes_and_comes_back(true);
	write_to_a_disk_that_goes_and_comes_back(false);
}

/* A folder with the volume's label and nothing else, in place of a disk: put back to a state of
 * before the first segment. */
static void put_back(struct volume *v, unsigned member)
{
	struct sop_err e = {0};
	static struct sop_label label;
	struct sop_disk *d;

	sim_add_disk(v->sim, "/old", 0);
	assert_ok(sim_open_disk(v->sim, &d, v->path[member], &e), &e);
	assert_ok(sop_label_load(&label, d, &e), &e);
	sop_disk_close(d);
	assert_ok(sim_open_disk(v->sim, &d, "/old", &e), &e);
	assert_ok(sop_label_store(d, &label, &e), &e);
	sop_disk_close(d);
	sop_members_event(v->mem, member, SOP_EVENT_WRITE, -EIO);
	assert_ok(sop_members_online(v->mem, member, "/old", &e), &e);
}

static void a_disk_put_back_to_an_old_state_gets_its_folders_anew(void **state)
{
	struct sop_blobref ref;
	struct sop_err e = {0};
	struct volume v;
	uint32_t good;
	char byte;

	(void)state;
	volume_new(&v, 2, 1, 1);
	ref = put_seed(&v, 40000, 1);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	put_back(&v, info_of(&v, ref.segment).disks[0]);
	assert_ok(sop_blob_verify(v.segs, &ref, true, &good, &e), &e);
	assert_int_equal(good, 3);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	sim_power_on(v.sim, SIM_KEEP_SYNCED_ONLY, 1);
	assert_int_equal(sim_peek(v.sim, "/old", shard_name(ref.segment, 0), 0, &byte, 1), 0);
	volume_free(&v);
}

/* --- mending --- */

#define ALL 7u

/* An append that reaches shard 2 alone, so that nobody has it. */
static void put_in_vain(struct volume *v, const struct sop_segment_info *at)
{
	static uint8_t data[60000];
	struct sop_blob_put put = {.data = data, .len = sizeof(data), .kind = SOP_BLOB_DATA};
	struct sop_batch *b = sop_batch_new(v->io);
	struct sop_append *a = NULL;
	struct sop_err e = {0};

	assert_non_null(b);
	test_fill(data, sizeof(data), 9);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_error(v->sim, v->path[at->disks[i]], 0, -EIO, 0);
	assert_ok(sop_segments_prepare(&a, v->segs, 0, SOP_STREAM_SMALL, &put, 1, 0, b, &e), &e);
	assert_int_equal(put.ref.segment, at->id);
	sop_batch_run(b, SOP_IO_SERIAL, 0, 0);
	assert_int_not_equal(sop_segments_finish(a, &e), 0);
	sop_batch_put(b);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_error(v->sim, v->path[at->disks[i]], 0, 0, 0);
}

/* A blob of 2+1 that is well, in a segment of which shards 0 and 1 have missed something; the files
 * of `gone` are not there. Mounted anew. */
static struct sop_blobref missed_by_two(struct volume *v, uint32_t gone)
{
	struct sop_segment_info info;
	struct sop_blobref ref;
	struct sop_err e = {0};

	volume_new(v, 4, 2, 1);
	ref = put_seed(v, 600000, 1);
	assert_ok(sop_segments_sync(v->segs, &e), &e);
	info = info_of(v, ref.segment);
	put_in_vain(v, &info);
	info = info_of(v, ref.segment);
	assert_int_equal(info.stale, 3);
	volume_close(v);
	SOP_EACH_BIT(i, gone)
	assert_int_equal(sim_remove(v->sim, v->path[info.disks[i]], shard_name(info.id, i)), 0);
	volume_open(v);
	for (unsigned i = 0; i < 2; i++)
		assert_ok(sop_members_online(v->mem, info.disks[i], NULL, &e), &e);
	assert_ok(sop_segments_add(v->segs, &info, &e), &e);
	return ref;
}

/* Shards are mended, in place or (to >= 0) on another member. */
static void mend(struct volume *v, uint64_t id, uint32_t shards, int to, bool ignore_lost)
{
	struct sop_segment_info info = info_of(v, id);
	struct sop_mend_opts o = {.shards = shards, .ignore_lost = ignore_lost};
	struct sop_mend_report r;
	struct sop_err e = {0};

	if (to >= 0) {
		SOP_EACH_BIT(i, shards)
		info.disks[i] = (uint16_t)to;
		o.to = info.disks;
	}
	assert_ok(sop_segment_mend(v->segs, id, &o, &r, &e), &e);
	assert_int_equal(info_of(v, id).stale & shards, 0);
}

/* The member that has nothing of the segment. */
static int spare(struct volume *v, uint64_t id)
{
	struct sop_segment_info info = info_of(v, id);

	return 0 + 1 + 2 + 3 - info.disks[0] - info.disks[1] - info.disks[2];
}

static void is_whole(struct volume *v, const struct sop_blobref *ref)
{
	struct sop_err e = {0};
	uint32_t good = 0;

	assert_int_equal(info_of(v, ref->segment).stale, 0);
	assert_ok(sop_blob_verify(v->segs, ref, false, &good, &e), &e);
	assert_int_equal(good, ALL);
	assert_int_equal(get_seed(v, ref, 1), 0);
}

static void shards_that_missed_something_mend_each_other(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	/* Both at once: with the files of both, and where one has to be made anew. */
	for (uint32_t gone = 0; gone < 3; gone++) {
		ref = missed_by_two(&v, gone);
		mend(&v, ref.segment, 3, -1, false);
		is_whole(&v, &ref);
		volume_free(&v);
	}
}

/* What is to be moved is read where it lies, and so is what has missed something. */
static void a_shard_that_moves_mends_one_that_missed_something(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	/* x moves; of the two others one has missed something, or both have. */
	for (unsigned x = 0; x < 3; x++) {
		uint32_t rest = 3u & ~(1u << x);

		for (uint32_t gone = 0; gone < 3; gone++) {
			ref = missed_by_two(&v, gone);
			mend(&v, ref.segment, rest, -1, false);
			mend(&v, ref.segment, 1u << x, spare(&v, ref.segment), false);
			is_whole(&v, &ref);
			volume_free(&v);

			ref = missed_by_two(&v, gone);
			mend(&v, ref.segment, 1u << x, spare(&v, ref.segment), false);
			mend(&v, ref.segment, rest, -1, false);
			is_whole(&v, &ref);
			volume_free(&v);
		}
	}
}

static void a_shard_that_missed_something_waits_for_no_disk_that_is_replaced(void **state)
{
	struct sop_blobref ref;
	struct volume v;

	(void)state;
	/* The disk of x answers no more. What was written in vain may be on it, for all that is
	 * known: but nobody wants it. */
	for (unsigned x = 0; x < 3; x++) {
		uint32_t rest = 3u & ~(1u << x);

		ref = missed_by_two(&v, 0);
		sim_disk_gone(v.sim, shard_disk(&v, ref.segment, x), true);
		mend(&v, ref.segment, rest, -1, true);
		mend(&v, ref.segment, 1u << x, spare(&v, ref.segment), true);
		is_whole(&v, &ref);
		volume_free(&v);
	}
}

/* Of a blob two shards are gone, one has zeros where it ought to have something, and the last one,
 * which has missed something for all that is known, has a bad block: too few know what is in use
 * for anything of it to be given back as a hole that it had not heard of. */
static void what_is_left_of_a_shard_is_no_hole_because_one_other_has_nothing(void **state)
{
	static const uint8_t zeros[65536];
	struct sop_segment_info info;
	struct sop_mend_report r;
	struct sop_blobref ref;
	struct sop_err e = {0};
	uint8_t want[60000], got[4096], bad[16];
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	ref = put_seed(&v, sizeof(want), 1);
	test_fill(want, sizeof(want), 1);
	assert_ok(sop_segments_sync(v.segs, &e), &e);
	info = info_of(&v, ref.segment);
	info.stale = 1;
	volume_close(&v);
	for (unsigned i = 1; i < 3; i++)
		assert_int_equal(
			sim_remove(v.sim, v.path[info.disks[i]], shard_name(info.id, i)), 0);
	assert_int_equal(sim_poke(v.sim, v.path[info.disks[3]], shard_name(info.id, 3),
				 ref.off + 4096, zeros, info.end - ref.off - 4096),
		0);
	memset(bad, 0x5a, sizeof(bad));
	assert_int_equal(sim_poke(v.sim, v.path[info.disks[0]], shard_name(info.id, 0),
				 ref.off + 1000, bad, sizeof(bad)),
		0);
	volume_open(&v);
	assert_ok(sop_segments_add(v.segs, &info, &e), &e);
	assert_ok(sop_blob_read(v.segs, &ref, got, sizeof(got), 12288, &e), &e);
	assert_memory_equal(got, want + 12288, sizeof(got));
	assert_ok(
		sop_segment_mend(v.segs, ref.segment, &(struct sop_mend_opts){.shards = 1}, &r, &e),
		&e);
	assert_int_equal(r.lost, 1);
	assert_ok(sop_blob_read(v.segs, &ref, got, sizeof(got), 12288, &e), &e);
	assert_memory_equal(got, want + 12288, sizeof(got));
	volume_free(&v);
}

/* --- space and files --- */

static uint64_t allocated(struct volume *v)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < v->disks; i++)
		sum += sim_allocated(v->sim, v->path[i]);
	return sum;
}

static int punch(struct volume *v, uint64_t segment, uint64_t off, uint64_t len, struct sop_err *e)
{
	return sop_segments_punch(v->segs, segment, &(struct sop_range64){off, len}, 1, e);
}

static void punch_gives_back_whole_pages_and_hurts_no_neighbour(void **state)
{
	struct sop_blobref refs[3];
	struct sop_err e = {0};
	struct volume v;
	uint64_t before;

	(void)state;
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < 3; i++)
		refs[i] = put_seed(&v, 200001, i);
	before = allocated(&v);
	assert_ok(punch(&v, refs[1].segment, refs[1].off, sop_blob_shard_bytes(200001, 2), &e), &e);
	assert_in_range(before - allocated(&v), 4 * 92000, 4 * 101000);
	assert_int_equal(get_seed(&v, &refs[0], 0), 0);
	assert_int_equal(get_seed(&v, &refs[1], 1), SOP_ELOST);
	assert_int_equal(get_seed(&v, &refs[2], 2), 0);
	assert_ok(punch(&v, refs[1].segment, refs[2].off + 1, 4095, &e), &e);
	assert_int_equal(get_seed(&v, &refs[2], 2), 0);
	assert_int_equal(punch(&v, refs[1].segment, 0, 8192, &e), -EINVAL);
	assert_int_equal(punch(&v, refs[1].segment, 8192, UINT64_MAX, &e), -EINVAL);
	volume_free(&v);
}

/* More of them than go out in one call; every other blob is hit. */
static void punch_takes_many_ranges(void **state)
{
	struct sop_range64 range[150];
	struct sop_blobref refs[300];
	struct sop_err e = {0};
	struct volume v;
	uint64_t before;

	(void)state;
	volume_new(&v, 4, 2, 2);
	for (unsigned i = 0; i < 300; i++)
		refs[i] = put_seed(&v, 20001, i);
	for (unsigned i = 0; i < 150; i++)
		range[i] = (struct sop_range64){refs[2 * i].off, sop_blob_shard_bytes(20001, 2)};
	before = allocated(&v);
	assert_ok(sop_segments_punch(v.segs, refs[0].segment, range, 150, &e), &e);
	assert_in_range(before - allocated(&v), 150 * 4 * 4096, 150 * 4 * 12288);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(get_seed(&v, &refs[i], i), i % 2 ? 0 : SOP_ELOST);
	volume_free(&v);
}

struct freeing {
	struct volume *v;
	const struct sop_blobref *ref;
	unsigned reached; /* so many disks */
	bool done;
};

/* Between pieces: a blob is freed, and what gives its pages back has not come to all disks yet. */
static int free_in_part(void *arg, const struct sop_mend_report *so_far)
{
	struct freeing *x = arg;
	struct sop_err e = {0};

	(void)so_far;
	if (x->done)
		return 0;
	x->done = true;
	for (unsigned i = x->reached; i < 4; i++)
		sim_disk_error(x->v->sim, x->v->path[i], 0, -ENODEV, 0);
	assert_ok(
		punch(x->v, x->ref->segment, x->ref->off, sop_blob_shard_bytes(200001, 2), &e), &e);
	for (unsigned i = x->reached; i < 4; i++)
		sim_disk_error(x->v->sim, x->v->path[i], 0, 0, 0);
	return 0;
}

static void what_is_freed_while_it_is_verified_is_no_damage(void **state)
{
	(void)state;
	for (unsigned reached = 1; reached < 4; reached++) {
		struct sop_blobref refs[60];
		struct sop_mend_report r = {0};
		struct sop_err e = {0};
		struct volume v;
		struct freeing x = {.v = &v, .ref = &refs[55], .reached = reached};
		const struct sop_mend_opts o = {.verify = true, .pace = free_in_part, .arg = &x};
		uint64_t before;

		volume_new(&v, 4, 2, 2);
		for (unsigned i = 0; i < 60; i++)
			refs[i] = put_seed(&v, 200001, i);
		assert_int_equal(refs[0].segment, refs[59].segment);
		before = allocated(&v);
		assert_ok(sop_segment_mend(v.segs, refs[0].segment, &o, &r, &e), &e);
		assert_true(x.done);
		assert_true(allocated(&v) < before);
		assert_int_equal(r.lost, 0);
		assert_int_equal(r.corrected, 0);
		assert_int_equal(r.bad, 0);
		volume_free(&v);
	}
}

static int collect_id(void *arg, uint64_t id)
{
	uint64_t *ids = arg;

	assert_true(ids[0] < 10);
	ids[++ids[0]] = id;
	return 0;
}

static void scan_names_each_segment_once_and_remove_removes_it(void **state)
{
	uint64_t ids[11] = {0}, one;
	struct sop_err e = {0};
	struct sop_segment_info info;
	struct volume v;
	uint64_t before;

	(void)state;
	volume_new(&v, 5, 2, 2);
	before = allocated(&v);
	for (unsigned i = 0; i < 3; i++)
		put_one(&v, (enum sop_stream)i, "abc", 3);
	assert_ok(sop_segments_scan(v.segs, collect_id, ids, &e), &e);
	assert_int_equal(ids[0], 3);
	assert_true(ids[1] < ids[2] && ids[2] < ids[3]);
	one = ids[1];
	/* Known and open; then known to nobody, without a good header, one file missing. */
	assert_ok(sop_segments_remove(v.segs, one, &e), &e);
	assert_int_equal(sop_segments_info(v.segs, one, &info, &e), -ENOENT);
	put_one(&v, SOP_STREAM_NODES, "abc", 3);
	info = info_of(&v, ids[2]);
	volume_close(&v);
	for (unsigned i = 0; i < 4; i++)
		sim_poke(v.sim, v.path[info.disks[i]], shard_name(ids[2], i), 20, "bad", 3);
	sim_remove(v.sim, v.path[info.disks[2]], shard_name(ids[2], 2));
	volume_open(&v);
	assert_ok(sop_segments_remove(v.segs, ids[2], &e), &e);
	assert_ok(sop_segments_remove(v.segs, ids[2], &e), &e);
	memset(ids, 0, sizeof(ids));
	assert_ok(sop_segments_scan(v.segs, collect_id, ids, &e), &e);
	assert_int_equal(ids[0], 2);
	for (unsigned i = 1; i <= 2; i++)
		assert_ok(sop_segments_remove(v.segs, ids[i], &e), &e);
	assert_int_equal(allocated(&v), before);
	volume_free(&v);
}

static void a_file_in_the_way_is_not_hurt(void **state)
{
	struct sop_blobref a, b;
	struct sop_segment_info info;
	struct sop_err e = {0};
	struct volume v;
	uint64_t epoch;

	(void)state;
	volume_new(&v, 4, 2, 2);
	a = put_seed(&v, 5000, 1);
	epoch = sop_members_epoch(v.mem);
	/* A second engine with the same epoch gives out the same ids. */
	sop_segments_free(v.segs);
	assert_ok(sop_segments_new(&v.segs, v.mem, v.io, epoch, &e), &e);
	b = put_seed(&v, 5000, 2);
	assert_true(a.segment != b.segment);
	assert_int_equal(get_seed(&v, &a, 1), 0);
	assert_int_equal(get_seed(&v, &b, 2), 0);
	info = info_of(&v, a.segment);
	assert_int_equal(info.stale, 0);
	volume_free(&v);
}

static void open_files_are_bounded(void **state)
{
	struct sop_blobref refs[40];
	struct sop_err e = {0};
	struct volume v;

	(void)state;
	volume_new(&v, 4, 2, 2);
	v.segs->files_max = 20;
	for (unsigned i = 0; i < 40; i++) {
		refs[i] = put_seed(&v, 5000, i);
		sop_segments_seal(v.segs, refs[i].segment);
		if (i % 4 == 3)
			assert_ok(sop_segments_sync(v.segs, &e), &e);
	}
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 40; i++) {
			assert_int_equal(get_seed(&v, &refs[i], i), 0);
			assert_in_range(v.segs->n_files, 1, 20);
		}
	volume_free(&v);
}

/* Each single step fails: an append still works or says why, and what was there stays. */
static void a_segment_can_be_made_though_any_step_fails(void **state)
{
	(void)state;
	for (uint64_t n = 1;; n++) {
		struct sop_blob_put put = {.data = "abc", .len = 3, .kind = SOP_BLOB_DATA};
		struct sop_err e = {0};
		struct volume v;
		uint64_t first;
		bool done;
		char got[3];
		int rc;

		volume_new(&v, 2, 2, 0);
		first = sim_steps(v.sim);
		sim_fail_step(v.sim, first + n, n % 2 ? -EIO : -ENOSPC);
		rc = sop_segments_put(v.segs, 0, SOP_STREAM_SMALL, &put, 1, &e);
		done = sim_steps(v.sim) < first + n;
		if (!rc) {
			assert_ok(sop_blob_read(v.segs, &put.ref, got, 3, 0, &e), &e);
			assert_memory_equal(got, "abc", 3);
		} else {
			assert_true(e.text[0] != 0);
		}
		volume_free(&v);
		if (done) {
			assert_int_equal(rc, 0);
			break;
		}
	}
}

/* --- calls with a bound --- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open, passed;
};
static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false};

static int call_hangs(struct sop_call *c)
{
	pthread_mutex_lock(&gate.lock);
	while (!gate.open)
		pthread_cond_wait(&gate.changed, &gate.lock);
	c->value = 1;
	gate.passed = true;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
	return 0;
}

static int call_answers(struct sop_call *c)
{
	c->value = 42;
	return -ENOTTY;
}

static void calls_behind_one_that_hangs_are_made(void **state)
{
	(void)state;
	for (unsigned parallel = 0; parallel < 2; parallel++) {
		static struct sop_disk disk; /* outlives the call that hangs */
		struct sop_calls *c = sop_calls_new(4);

		assert_non_null(c);
		gate.open = gate.passed = false;
		for (unsigned i = 0; i < 4; i++) {
			c->call[i].fn = i == 1 ? call_hangs : call_answers;
			c->call[i].disk = i == 3 ? NULL : &disk;
		}
		sop_calls_run(c, parallel, 50);
		assert_int_equal(c->call[0].rc, -ENOTTY);
		assert_int_equal(c->call[1].rc, -ETIMEDOUT);
		assert_int_equal(c->call[2].rc, -ENOTTY);
		assert_int_equal(c->call[2].value, 42);
		assert_int_equal(c->call[3].rc, -ENODEV);
		sop_calls_put(c);
		pthread_mutex_lock(&gate.lock);
		gate.open = true;
		pthread_cond_broadcast(&gate.changed);
		while (!gate.passed)
			pthread_cond_wait(&gate.changed, &gate.lock);
		pthread_mutex_unlock(&gate.lock);
	}
}

static bool closed; /* under gate.lock */

static void note_close(struct sop_disk *d)
{
	(void)d;
	pthread_mutex_lock(&gate.lock);
	closed = true;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

/* The volume may be closed meanwhile: what the call has yet to do, it does to a disk that is there.
 */
static void a_disk_stays_open_as_long_as_a_call_hangs_in_it(void **state)
{
	static const struct sop_disk_ops ops = {.close = note_close};
	static struct sop_disk disk = {.ops = &ops};
	struct sop_calls *c = sop_calls_new(1);
	bool early;

	(void)state;
	assert_non_null(c);
	gate.open = gate.passed = closed = false;
	c->call[0].fn = call_hangs;
	c->call[0].disk = &disk;
	sop_calls_run(c, true, 50);
	assert_int_equal(c->call[0].rc, -ETIMEDOUT);
	sop_calls_put(c);
	sop_disk_close(&disk);
	pthread_mutex_lock(&gate.lock);
	early = closed;
	gate.open = true;
	pthread_cond_broadcast(&gate.changed);
	while (!gate.passed || !closed)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
	assert_false(early);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unknown_segment_is_learned_from_its_files),
		cmocka_unit_test(a_table_entry_that_cannot_be_is_refused),
		cmocka_unit_test(header_decode_takes_back_what_encode_made_and_nothing_else),
		cmocka_unit_test(each_stream_has_a_segment_of_its_own_and_keeps_it),
		cmocka_unit_test(a_segment_of_an_earlier_mount_is_not_appended_to),
		cmocka_unit_test(a_segment_that_is_being_made_misses_nothing),
		cmocka_unit_test(an_append_larger_than_the_room_goes_on_in_a_new_segment),
		cmocka_unit_test(a_degraded_segment_is_left_when_its_disk_is_back),
		cmocka_unit_test(an_abandoned_append_leaves_only_a_gap),
		cmocka_unit_test(zeros_written_ahead_take_no_place_and_are_cut_off),
		cmocka_unit_test(a_segment_that_cannot_be_cut_is_left),
		cmocka_unit_test(nobody_writes_where_zeros_are_about_to_come),
		cmocka_unit_test(a_disk_set_aside_while_an_append_runs_is_not_believed),
		cmocka_unit_test(what_finished_before_a_sync_survives_a_power_cut),
		cmocka_unit_test(a_sync_costs_one_datasync_a_dirty_shard),
		cmocka_unit_test(a_sync_fails_only_when_fewer_than_k_shards_are_left),
		cmocka_unit_test(a_sync_looks_at_what_each_append_reached),
		cmocka_unit_test(writes_to_a_disk_that_went_and_came_back_do_not_count_as_synced),
		cmocka_unit_test(a_disk_put_back_to_an_old_state_gets_its_folders_anew),
		cmocka_unit_test(shards_that_missed_something_mend_each_other),
		cmocka_unit_test(a_shard_that_moves_mends_one_that_missed_something),
		cmocka_unit_test(a_shard_that_missed_something_waits_for_no_disk_that_is_replaced),
		cmocka_unit_test(what_is_left_of_a_shard_is_no_hole_because_one_other_has_nothing),
		cmocka_unit_test(punch_gives_back_whole_pages_and_hurts_no_neighbour),
		cmocka_unit_test(punch_takes_many_ranges),
		cmocka_unit_test(what_is_freed_while_it_is_verified_is_no_damage),
		cmocka_unit_test(scan_names_each_segment_once_and_remove_removes_it),
		cmocka_unit_test(a_file_in_the_way_is_not_hurt),
		cmocka_unit_test(open_files_are_bounded),
		cmocka_unit_test(a_segment_can_be_made_though_any_step_fails),
		cmocka_unit_test(calls_behind_one_that_hangs_are_made),
		cmocka_unit_test(a_disk_stays_open_as_long_as_a_call_hangs_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
