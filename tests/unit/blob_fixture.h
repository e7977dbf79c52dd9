/* A volume on simulated disks, for the tests of blobs and segments. */
#ifndef TESTS_BLOB_FIXTURE_H
#define TESTS_BLOB_FIXTURE_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/format_volume.h"
#include "core/blob.h"
#include "core/ec.h"
#include "core/segment_int.h"
#include "tests/lib/simdisk.h"

#define SEED      20240611u
#define DISKS_MAX 16

struct volume {
	struct sim *sim;
	struct sop_members *mem;
	struct sop_iopool *io;
	struct sop_segments *segs;
	unsigned disks;
	bool threads;         /* a pool with threads */
	unsigned timeout_ms;
	char path[DISKS_MAX][16];
};

static inline uint64_t test_rand(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void test_fill(void *buf, size_t len, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
	uint8_t *p = buf;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = test_rand(&x);

		memcpy(p + i, &v, SOP_MIN(len - i, sizeof(v)));
	}
}

/* The simulated disk has everything in its page cache; these have nothing there. */
static inline ssize_t cold_preadv_cached(
	struct sop_file *f, const struct iovec *iov, int iovcnt, uint64_t off)
{
	(void)f;
	(void)iov;
	(void)iovcnt;
	(void)off;
	return -EAGAIN;
}

static struct sop_disk_ops cold_ops;

static inline int open_cold(void *sim, struct sop_disk **out, const char *path, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, path, e);

	if (rc)
		return rc;
	if (!cold_ops.preadv) {
		cold_ops = *(*out)->ops;
		cold_ops.preadv_cached = cold_preadv_cached;
	}
	(*out)->ops = &cold_ops;
	return 0;
}

static inline void assert_ok(int rc, const struct sop_err *e)
{
	if (rc)
		fail_msg("%d: %s", rc, e->text);
}

static inline void volume_open_as(struct volume *v, bool cold)
{
	const char *paths[DISKS_MAX];
	struct sop_err e = {0};
	struct sop_members_opts o = {.degraded = true,
		.disk_timeout_ms = v->timeout_ms,
		.clock = &sop_clock_system,
		.open_disk = cold ? open_cold : sim_open_disk,
		.open_disk_ctx = v->sim};
	struct sop_iopool_opts po = {.disks = v->disks, .no_uring = true};

	for (unsigned i = 0; i < v->disks; i++)
		paths[i] = v->path[i];
	assert_ok(sop_members_open(&v->mem, paths, v->disks, &o, &e), &e);
	if (v->threads)
		assert_ok(sop_iopool_new(&v->io, &po, &e), &e);
	else
		assert_ok(sop_iopool_new_inline(&v->io, &e), &e);
	assert_ok(sop_segments_new(&v->segs, v->mem, v->io, sop_members_epoch(v->mem), &e), &e);
}

static inline void volume_open(struct volume *v)
{
	volume_open_as(v, false);
}

static inline void volume_close(struct volume *v)
{
	sop_segments_free(v->segs);
	sop_iopool_free(v->io, 5000);
	sop_members_close(v->mem);
}

static inline void volume_format(struct volume *v, unsigned disks, unsigned k, unsigned m)
{
	const char *paths[DISKS_MAX];
	struct sop_err e = {0};
	struct sop_format_opts o = {.k = k,
		.m = m,
		.force = true, /* all on one machine */
		.clock = &sop_clock_system,
		.open_disk = sim_open_disk};

	v->disks = disks;
	for (unsigned i = 0; i < disks; i++) {
		snprintf(v->path[i], sizeof(v->path[i]), "/d%u", i);
		paths[i] = v->path[i];
		sim_add_disk(v->sim, v->path[i], 0);
	}
	o.open_disk_ctx = v->sim;
	assert_ok(sop_format(paths, disks, &o, NULL, &e), &e);
}

/* disks folders, profile k+m, everything on the caller's thread. */
static inline void volume_new(struct volume *v, unsigned disks, unsigned k, unsigned m)
{
	memset(v, 0, sizeof(*v));
	v->sim = sim_new(SEED);
	volume_format(v, disks, k, m);
	volume_open(v);
}

static inline void volume_free(struct volume *v)
{
	volume_close(v);
	sim_free(v->sim);
}

/* As after a crash of the process or the machine. */
static inline void volume_cut(struct volume *v, enum sim_keep keep, uint64_t choice)
{
	sim_power_on(v->sim, keep, choice);
	volume_close(v);
	volume_open(v);
}

static inline struct sop_blobref put_one(struct volume *v, enum sop_stream stream, const void *data,
	uint32_t len)
{
	struct sop_blob_put put = {.data = data, .len = len, .kind = SOP_BLOB_DATA};
	struct sop_err e = {0};

	assert_ok(sop_segments_put(v->segs, 0, stream, &put, 1, &e), &e);
	return put.ref;
}

/* The blob whose data is test_fill(len, seed). */
static inline struct sop_blobref put_seed(struct volume *v, uint32_t len, uint64_t seed)
{
	uint8_t *data = malloc(len);
	struct sop_blobref ref;

	assert_non_null(data);
	test_fill(data, len, seed);
	ref = put_one(v, SOP_STREAM_SMALL, data, len);
	free(data);
	return ref;
}

/* Read it all: 0 and the right bytes, or a code. Wrong bytes fail the test. */
static inline int get_seed(struct volume *v, const struct sop_blobref *ref, uint64_t seed)
{
	uint8_t *want = malloc(ref->len), *got = malloc(ref->len);
	struct sop_err e = {0};
	int rc;

	assert_non_null(want);
	assert_non_null(got);
	test_fill(want, ref->len, seed);
	rc = sop_blob_read(v->segs, ref, got, ref->len, 0, &e);
	if (!rc)
		assert_memory_equal(want, got, ref->len);
	free(want);
	free(got);
	return rc;
}

static inline struct sop_segment_info info_of(struct volume *v, uint64_t id)
{
	struct sop_segment_info info;
	struct sop_err e = {0};

	assert_ok(sop_segments_info(v->segs, id, &info, &e), &e);
	return info;
}

static inline const char *shard_name(uint64_t id, unsigned shard)
{
	static char name[64];

	snprintf(name, sizeof(name), "segments/%02x/%016" PRIx64 ".%u", (unsigned)(id & 0xff), id,
		shard);
	return name;
}

static inline const char *shard_disk(struct volume *v, uint64_t id, unsigned shard)
{
	return v->path[info_of(v, id).disks[shard]];
}

#endif
