/* The erasure code against a slow multiplication in GF(2^8), and every way to lose shards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/ec.h"

#define SEED 0x5eed0ec1u

static uint64_t state = SEED;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void fill(void *p, size_t len)
{
	uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)(rnd() >> 11);
}

/* GF(2^8) modulo x^8+x^4+x^3+x^2+1, bit by bit: the field, independent of isa-l's tables. */
static uint8_t slow_mul(uint8_t a, uint8_t b)
{
	unsigned r = 0, x = a;

	for (int i = 0; i < 8; i++, x <<= 1)
		if (b & 1 << i)
			r ^= x;
	for (int i = 15; i >= 8; i--)
		if (r & 1u << i)
			r ^= 0x11du << (i - 8);
	return (uint8_t)r;
}

static uint8_t slow_inv(uint8_t a)
{
	for (unsigned b = 1; b < 256; b++)
		if (slow_mul(a, (uint8_t)b) == 1)
			return (uint8_t)b;
	fail_msg("%u has no inverse", a);
	return 0;
}

struct stripe {
	unsigned n;
	size_t len;
	uint8_t *memory[SOP_EC_MAX];
	void *shard[SOP_EC_MAX]; /* at odd addresses when shift is 1 */
};

static void stripe_new(struct stripe *s, unsigned n, size_t len, size_t shift)
{
	s->n = n;
	s->len = len;
	for (unsigned i = 0; i < n; i++) {
		/* Exactly the bytes asked for, so that the address sanitizer sees one too many. */
		s->memory[i] = malloc(len + shift ? len + shift : 1);
		assert_non_null(s->memory[i]);
		s->shard[i] = s->memory[i] + shift;
		fill(s->shard[i], len);
	}
}

static void stripe_free(struct stripe *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->memory[i]);
}

static void encode(const struct sop_ec *c, struct stripe *s)
{
	const void *data[SOP_EC_MAX];

	for (unsigned i = 0; i < sop_ec_k(c); i++)
		data[i] = s->shard[i];
	sop_ec_encode(c, s->len, data, &s->shard[sop_ec_k(c)]);
}

/* Rebuild `want` from `have` in buffers that hold garbage wherever the code must not look. */
static void check_rebuild(
	const struct sop_ec *c, const struct stripe *s, uint32_t have, uint32_t want)
{
	struct stripe t;
	struct sop_err e = {0};

	stripe_new(&t, s->n, s->len, 0);
	for (unsigned i = 0; i < s->n; i++)
		if (have & 1u << i)
			memcpy(t.shard[i], s->shard[i], s->len);
	for (unsigned i = 0; i < s->n; i++) /* neither: may be absent */
		if (!((have | want) & 1u << i)) {
			free(t.memory[i]);
			t.memory[i] = NULL;
			t.shard[i] = NULL;
		}
	assert_int_equal(sop_ec_rebuild(c, s->len, t.shard, have, want, &e), 0);
	for (unsigned i = 0; i < s->n; i++)
		if ((have | want) & 1u << i && memcmp(t.shard[i], s->shard[i], s->len) != 0)
			fail_msg("k=%u m=%u len=%zu have=%#x want=%#x: shard %u is wrong",
				sop_ec_k(c), sop_ec_m(c), s->len, have, want, i);
	stripe_free(&t);
}

static void encode_agrees_with_slow_arithmetic(void **unused)
{
	static const unsigned profiles[][2] = {{2, 1}, {2, 2}, {3, 2}, {4, 2}, {10, 4}, {16, 16}};

	(void)unused;
	for (size_t p = 0; p < SOP_ARRAY_LEN(profiles); p++) {
		unsigned k = profiles[p][0], m = profiles[p][1];
		struct sop_ec *c;
		struct stripe s;

		assert_int_equal(sop_ec_new(&c, k, m, NULL), 0);
		stripe_new(&s, k + m, 157, 0);
		encode(c, &s);
		for (unsigned i = k; i < k + m; i++) {
			for (size_t b = 0; b < s.len; b++) {
				uint8_t sum = 0;

				for (unsigned j = 0; j < k; j++)
					sum ^= slow_mul(slow_inv((uint8_t)(i ^ j)),
						((uint8_t *)s.shard[j])[b]);
				assert_int_equal(((uint8_t *)s.shard[i])[b], sum);
			}
		}
		stripe_free(&s);
		sop_ec_free(c);
	}
}

static void mirror_parity_is_the_data(void **unused)
{
	(void)unused;
	for (unsigned m = 1; m <= 3; m++) {
		struct sop_ec *c;
		struct stripe s;

		assert_int_equal(sop_ec_new(&c, 1, m, NULL), 0);
		stripe_new(&s, 1 + m, 333, 0);
		encode(c, &s);
		for (unsigned i = 1; i <= m; i++)
			assert_memory_equal(s.shard[i], s.shard[0], s.len);
		stripe_free(&s);
		sop_ec_free(c);
	}
}

static void every_loss_of_every_small_profile_is_rebuilt(void **unused)
{
	static const size_t lens[] = {1, 31, 64, 100, 4096};

	(void)unused;
	for (unsigned k = 1; k <= 4; k++) {
		for (unsigned m = 0; m <= 2; m++) {
			struct sop_ec *c;
			uint32_t all = (1u << (k + m)) - 1;

			assert_int_equal(sop_ec_new(&c, k, m, NULL), 0);
			for (size_t l = 0; l < SOP_ARRAY_LEN(lens); l++) {
				struct stripe s;

				stripe_new(&s, k + m, lens[l], 0);
				encode(c, &s);
				for (uint32_t have = 0; have <= all; have++) {
					if ((unsigned)__builtin_popcount(have) < k)
						continue;
					/* Each subset of what is lost, and all at once. */
					for (uint32_t want = 0; want <= all; want++)
						if (!(want & have))
							check_rebuild(c, &s, have, want);
				}
				stripe_free(&s);
			}
			sop_ec_free(c);
		}
	}
}

static void random_losses_of_large_profiles_are_rebuilt(void **unused)
{
	(void)unused;
	print_message("seed %#x\n", SEED);
	for (int round = 0; round < 600; round++) {
		unsigned k = 1 + (unsigned)(rnd() % SOP_EC_MAX);
		unsigned m = (unsigned)(rnd() % (SOP_EC_MAX - k + 1));
		struct sop_ec *c;
		struct stripe s;
		uint32_t have = k + m == 32 ? UINT32_MAX : (1u << (k + m)) - 1;

		assert_int_equal(sop_ec_new(&c, k, m, NULL), 0);
		stripe_new(&s, k + m, (size_t)(rnd() % 700), (size_t)(rnd() % 2));
		encode(c, &s);
		for (unsigned lost = 0; lost < m;) {
			uint32_t bit = 1u << rnd() % (k + m);

			if (have & bit) {
				have &= ~bit;
				lost++;
			}
		}
		check_rebuild(
			c, &s, have, ~have & (k + m == 32 ? UINT32_MAX : (1u << (k + m)) - 1));
		stripe_free(&s);
		sop_ec_free(c);
	}
}

static void too_few_shards_are_refused(void **unused)
{
	struct sop_ec *c;
	struct stripe s;
	struct sop_err e = {0};

	(void)unused;
	assert_int_equal(sop_ec_new(&c, 4, 2, NULL), 0);
	stripe_new(&s, 6, 64, 0);
	assert_int_equal(sop_ec_rebuild(c, 64, s.shard, 0x7, 0x8, &e), SOP_ELOST);
	assert_non_null(strstr(e.text, "3 shards are left, 4 are needed"));
	/* Bits beyond k+m are of no shard. */
	assert_int_equal(sop_ec_rebuild(c, 64, s.shard, 0x7 | 0xffffffc0u, 0x8, &e), SOP_ELOST);
	stripe_free(&s);
	sop_ec_free(c);
}

static void shards_that_are_there_are_left_alone(void **unused)
{
	struct sop_ec *c;
	struct stripe s;
	uint8_t before[64];

	(void)unused;
	assert_int_equal(sop_ec_new(&c, 2, 1, NULL), 0);
	stripe_new(&s, 3, 64, 0);
	memcpy(before, s.shard[2], 64); /* garbage, not the parity of the others */
	assert_int_equal(sop_ec_rebuild(c, 64, s.shard, 0x7, 0x4, NULL), 0);
	assert_memory_equal(s.shard[2], before, 64);
	stripe_free(&s);
	sop_ec_free(c);
}

static void impossible_profiles_are_refused(void **unused)
{
	static const unsigned bad[][2] = {{0, 0}, {0, 3}, {33, 0}, {32, 1}, {1, 32}, {17, 16},
		{UINT32_MAX, 2}, {2, UINT32_MAX}};
	struct sop_ec *c;

	(void)unused;
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++) {
		struct sop_err e = {0};

		assert_int_equal(sop_ec_new(&c, bad[i][0], bad[i][1], &e), -EINVAL);
		assert_null(c);
		assert_non_null(strstr(e.text, "erasure code"));
	}
	assert_int_equal(sop_ec_new(&c, 32, 0, NULL), 0);
	assert_int_equal(sop_ec_k(c), 32);
	assert_int_equal(sop_ec_m(c), 0);
	sop_ec_free(c);
}

static uint32_t slow_crc32c(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0u;

	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void crc32c_is_castagnoli_and_continues(void **unused)
{
	uint8_t buf[777];

	(void)unused;
	/* The check value of the catalogue of CRC algorithms, and RFC 3720 B.4. */
	assert_int_equal(sop_crc32c(0, "123456789", 9), 0xe3069283u);
	memset(buf, 0, 32);
	assert_int_equal(sop_crc32c(0, buf, 32), 0x8a9136aau);
	assert_int_equal(sop_crc32c(0, buf, 0), 0);
	fill(buf, sizeof(buf));
	for (size_t cut = 0; cut <= sizeof(buf); cut += 7)
		assert_int_equal(sop_crc32c(sop_crc32c(0, buf, cut), buf + cut, sizeof(buf) - cut),
			slow_crc32c(buf, sizeof(buf)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encode_agrees_with_slow_arithmetic),
		cmocka_unit_test(mirror_parity_is_the_data),
		cmocka_unit_test(every_loss_of_every_small_profile_is_rebuilt),
		cmocka_unit_test(random_losses_of_large_profiles_are_rebuilt),
		cmocka_unit_test(too_few_shards_are_refused),
		cmocka_unit_test(shards_that_are_there_are_left_alone),
		cmocka_unit_test(impossible_profiles_are_refused),
		cmocka_unit_test(crc32c_is_castagnoli_and_continues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
