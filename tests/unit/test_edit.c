#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/ec.h"
#include "core/edit.h"
#include "core/format.h"
#include "tests/lib/fixture.h"

#define ROUNDS 4000

static uint8_t run[SOP_INLINE_MAX], xattrs[SOP_XATTR_INLINE];

static struct sop_item log_of(uint32_t len)
{
	struct sop_item it = {.run = run, .run_len = len};

	it.attr = (struct sop_attr){.ino = 40,
		.version = 7,
		.value_version = 7,
		.size = len,
		.bytes = len,
		.mode = S_IFREG | 0644,
		.uid = 1000,
		.gid = 1000,
		.nlink = 1};
	it.attr.mtime = (struct timespec){1700000000, 500000000};
	it.attr.atime = it.attr.ctime = it.attr.btime = it.attr.mtime;
	return it;
}

/* Another state of the same item: some of its fields drawn anew. */
static void redraw(struct sop_item *it, uint64_t *rng)
{
	uint64_t x = next_random(rng);

	it->attr.ino = 40;
	it->attr.version++;
	it->plain = !(x & 7);
	if (x & 8)
		it->attr.mtime = it->attr.ctime = (struct timespec){(time_t)(x >> 34), 7};
	if (x & 16)
		it->attr.mode = S_IFREG | (uint32_t)(x >> 50 & 0777);
	if (x & 32) {
		it->run_len = (uint32_t)(next_random(rng) % (SOP_INLINE_MAX + 1));
		it->run_off = next_random(rng) % 1000;
	}
	if (x & 64) {
		run[next_random(rng) % sizeof(run)] ^= 1;
		it->attr.value_version = it->attr.version;
	}
	if (x & 128)
		it->xattrs_len = (uint32_t)(next_random(rng) % 300);
	if (x & 256) {
		it->extents = (uint32_t)(next_random(rng) % 5);
		for (uint32_t i = 0; i < it->extents; i++)
			it->extent[i] = (struct sop_extent){.off = i * 5000,
				.len = 4000,
				.ref = {.segment = 9,
					.off = 4096 + 8 * i,
					.len = 4000,
					.nonce = i}};
	}
	if (x & 512)
		it->tree = it->tree || it->extents ? 0 : 77;
	if (it->tree)
		it->extents = 0;
	it->attr.size = it->run_off + it->run_len + 100000;
	it->attr.bytes = it->run_len;
	if (!it->run_len)
		it->run_off = 0;
}

static void what_was_encoded_gives_the_same_bytes(void **state)
{
	uint8_t from[SOP_ITEM_BYTES_MAX], rec[SOP_ITEM_BYTES_MAX], got[SOP_ITEM_BYTES_MAX];
	uint8_t raw[2 * SOP_ITEM_BYTES_MAX];
	const struct sop_edit places[] = {{0}, {.store = 99, .key = run, .key_len = 5}};
	struct sop_item it = log_of(500);
	uint64_t rng = 11;

	(void)state;
	fill_random(run, sizeof(run), 1);
	fill_random(xattrs, sizeof(xattrs), 2);
	it.xattrs = xattrs;
	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct sop_edit *to = &places[i & 1];
		int a = sop_item_encode(from, &it), b;
		struct sop_edit x;
		size_t n;

		redraw(&it, &rng);
		b = sop_item_encode(rec, &it);
		assert_true(a > 0 && b > 0);
		n = sop_edit_encode(raw, sizeof(raw), to, from, (size_t)a, rec, (size_t)b);
		assert_true(n > 0);
		/* Where it does not fit, nothing comes of it. */
		assert_int_equal(
			sop_edit_encode(raw, n - 1, to, from, (size_t)a, rec, (size_t)b), 0);
		assert_int_equal(sop_edit_encode(raw, n, to, from, (size_t)a, rec, (size_t)b), n);
		assert_int_equal(sop_edit_decode(&x, raw, n, NULL), 0);
		assert_int_equal(x.key_len, to->key_len);
		if (x.key_len) {
			assert_int_equal(x.store, to->store);
			assert_memory_equal(x.key, to->key, x.key_len);
		}
		assert_int_equal(sop_edit_apply(got, &x, from, (size_t)a, NULL), b);
		assert_memory_equal(got, rec, (size_t)b);
	}
}

/* The length of the edit that makes b of a. */
static size_t costs(const struct sop_item *a, const struct sop_item *b)
{
	uint8_t from[SOP_ITEM_BYTES_MAX], rec[SOP_ITEM_BYTES_MAX], raw[SOP_ITEM_BYTES_MAX];
	int m = sop_item_encode(from, a), n = sop_item_encode(rec, b);

	assert_true(m > 0 && n > 0);
	return sop_edit_encode(
		raw, sizeof(raw), &(struct sop_edit){0}, from, (size_t)m, rec, (size_t)n);
}

static void it_holds_what_changes_and_a_few_bytes_more(void **state)
{
	uint8_t other[SOP_INLINE_MAX];
	struct sop_item a = log_of(1900), b = log_of(1964), c = log_of(1900);

	(void)state;
	fill_random(run, sizeof(run), 1);
	b.attr.version = b.attr.value_version = 1000000;
	b.attr.mtime = b.attr.ctime = (struct timespec){1700000100, 123456789};
	assert_in_range(costs(&a, &b), 64, 64 + 90);
	/* Written over in the middle. */
	memcpy(other, run, sizeof(other));
	for (unsigned i = 900; i < 964; i++)
		other[i] ^= 0xff;
	c.run = other;
	c.attr = b.attr;
	c.attr.size = c.attr.bytes = 1900;
	assert_in_range(costs(&a, &c), 64, 64 + 90);
	/* Attributes alone. */
	c.run = run;
	assert_in_range(costs(&a, &c), 20, 90);
}

static void refused(const struct sop_edit *x, const void *from, size_t len, const char *text)
{
	uint8_t got[SOP_ITEM_BYTES_MAX];
	struct sop_err e = {0};

	assert_int_equal(sop_edit_apply(got, x, from, len, &e), SOP_ECORRUPT);
	if (!strstr(e.text, text))
		fail_msg("not '%s' but: %s", text, e.text);
}

static void any_other_record_is_refused(void **state)
{
	uint8_t from[SOP_ITEM_BYTES_MAX], rec[SOP_ITEM_BYTES_MAX], other[SOP_ITEM_BYTES_MAX];
	uint8_t raw[SOP_ITEM_BYTES_MAX], got[SOP_ITEM_BYTES_MAX];
	struct sop_item a = log_of(300), b = log_of(364);
	int m, n, k;
	size_t len;
	struct sop_edit x;

	(void)state;
	fill_random(run, sizeof(run), 1);
	b.attr.version = 8;
	m = sop_item_encode(from, &a);
	n = sop_item_encode(rec, &b);
	len = sop_edit_encode(
		raw, sizeof(raw), &(struct sop_edit){0}, from, (size_t)m, rec, (size_t)n);
	assert_int_equal(sop_edit_decode(&x, raw, len, NULL), 0);
	assert_int_equal(sop_edit_apply(got, &x, from, (size_t)m, NULL), n);
	/* Twice: the second time it finds what it made. */
	refused(&x, got, (size_t)n, "of which version 8 is there");
	/* The right version, and any bit of it different. */
	for (unsigned bit = 0; bit < (unsigned)m * 8; bit++) {
		struct sop_err e = {0};

		memcpy(other, from, (size_t)m);
		other[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(sop_edit_apply(got, &x, other, (size_t)m, &e), SOP_ECORRUPT);
	}
	a.run_len = 299;
	k = sop_item_encode(other, &a);
	refused(&x, other, (size_t)k, "which has other bytes");
	a = log_of(300);
	a.attr.ino = 41;
	k = sop_item_encode(other, &a);
	refused(&x, other, (size_t)k, "which has other bytes");
	refused(&x, from, 0, "item record");
}

static void no_edit_is_made_between_two_items(void **state)
{
	struct sop_item a = log_of(300), b = log_of(300), link = {.link = true};

	(void)state;
	b.attr.ino = 41;
	assert_int_equal(costs(&a, &b), 0);
	link.attr = (struct sop_attr){.ino = 40, .version = 8, .mode = S_IFREG};
	assert_int_equal(costs(&a, &link), 0);
}

/* What is cut off or changed anywhere is refused, or makes a record of the same item; it is never
 * read or written beyond its ends (a sanitizer sees that). */
static void a_damaged_one_is_refused_or_makes_a_record(void **state)
{
	uint8_t from[SOP_ITEM_BYTES_MAX], rec[SOP_ITEM_BYTES_MAX], raw[SOP_ITEM_BYTES_MAX];
	struct sop_item a = log_of(300), b = log_of(364);
	const struct sop_edit to = {.store = 5, .key = run, .key_len = 9};
	int m, n;
	size_t len;

	(void)state;
	fill_random(run, sizeof(run), 1);
	b.attr.version = 8;
	m = sop_item_encode(from, &a);
	n = sop_item_encode(rec, &b);
	len = sop_edit_encode(raw, sizeof(raw), &to, from, (size_t)m, rec, (size_t)n);
	assert_true(len > 0);
	for (size_t i = 0; i < len * 9; i++) {
		size_t cut = i < len ? i : len;
		uint8_t *own = malloc(cut + 1), *got = malloc(SOP_ITEM_BYTES_MAX);
		struct sop_item it;
		struct sop_edit x;

		memcpy(own, raw, cut);
		if (i >= len)
			own[(i - len) / 8] ^= (uint8_t)(1u << (i - len) % 8);
		if (!sop_edit_decode(&x, own, cut, NULL)) {
			int rc = sop_edit_apply(got, &x, from, (size_t)m, NULL);

			if (rc >= 0) {
				assert_int_equal(sop_item_decode(&it, got, (size_t)rc, NULL), 0);
				assert_int_equal(it.attr.ino, 40);
			} else {
				assert_int_equal(rc, SOP_ECORRUPT);
			}
		}
		free(own);
		free(got);
	}
}

/* Steps that would go beyond the record, or make one that is too long. */
static void steps_beyond_either_record_are_refused(void **state)
{
	static const struct {
		uint16_t keep, drop, add;
	} bad[] = {{0xffff, 0, 0}, {1, 0xffff, 0}, {400, 0, 0}, {0, 0, 1}, {10, 395, 0}};
	uint8_t from[SOP_ITEM_BYTES_MAX];
	struct sop_item a = log_of(300);
	int m;

	(void)state;
	fill_random(run, sizeof(run), 1);
	m = sop_item_encode(from, &a);
	assert_in_range(m, 320, 399);
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++) {
		struct sop_disk_edit_step s = {
			le16_make(bad[i].keep), le16_make(bad[i].drop), le16_make(bad[i].add)};
		struct sop_edit x = {.version = 7,
			.crc = sop_crc32c(0, from, (size_t)m),
			.len = (uint32_t)m,
			.steps = (const uint8_t *)&s,
			.steps_len = sizeof(s)};

		refused(&x, from, (size_t)m, "change of a record");
	}
	{
		uint8_t steps[sizeof(struct sop_disk_edit_step) + SOP_ITEM_BYTES_MAX] = {0};
		struct sop_disk_edit_step s = {
			le16_make(0), le16_make(0), le16_make(SOP_ITEM_BYTES_MAX)};
		struct sop_edit x = {.version = 7,
			.crc = sop_crc32c(0, from, (size_t)m),
			.len = (uint32_t)m,
			.steps = steps,
			.steps_len = sizeof(steps)};

		memcpy(steps, &s, sizeof(s));
		refused(&x, from, (size_t)m, "change of a record");
	}
}

/* The one in DISK-FORMAT.md. */
static void the_example_of_the_format_is_what_is_written(void **state)
{
	static const uint8_t want[] = {0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xeb, 0x18,
		0x23, 0x5f, 0x22, 0x00, 0x00, 0x00, 0x03, 0x00, 0x1a, 0x00, 0x1a, 0x00, 0x09, 0x09,
		0x0c, 0x0c, 0xa4, 0x83, 0x02, 0xe8, 0x07, 0xe8, 0x07, 0x01, 0x00, 0x00, 0x80, 0xc4,
		0x9f, 0xd5, 0x0c, 0x80, 0xca, 0xb5, 0xee, 0x01, 0x00, 0x0c, 0x05, 0x00, 0x00, 0x00,
		0x07, 0x00, 0x2c, 0x20, 0x77, 0x6f, 0x72, 0x6c, 0x64};
	uint8_t from[SOP_ITEM_BYTES_MAX], rec[SOP_ITEM_BYTES_MAX], raw[SOP_ITEM_BYTES_MAX];
	struct sop_item a = log_of(5), b = log_of(12);
	int m, n;
	size_t len;

	(void)state;
	memcpy(run, "hello, world", 12);
	b.attr.version = b.attr.value_version = 9;
	m = sop_item_encode(from, &a);
	n = sop_item_encode(rec, &b);
	len = sop_edit_encode(
		raw, sizeof(raw), &(struct sop_edit){0}, from, (size_t)m, rec, (size_t)n);
	if (len != sizeof(want) || memcmp(raw, want, len) != 0) {
		for (size_t i = 0; i < len; i++)
			print_error("%02x ", raw[i]);
		fail_msg("%zu bytes", len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_encoded_gives_the_same_bytes),
		cmocka_unit_test(it_holds_what_changes_and_a_few_bytes_more),
		cmocka_unit_test(any_other_record_is_refused),
		cmocka_unit_test(no_edit_is_made_between_two_items),
		cmocka_unit_test(a_damaged_one_is_refused_or_makes_a_record),
		cmocka_unit_test(steps_beyond_either_record_are_refused),
		cmocka_unit_test(the_example_of_the_format_is_what_is_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
