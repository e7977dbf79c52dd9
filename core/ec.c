#include "core/ec.h"

#include <isa-l.h>
#include <limits.h>

/* The coding matrix has k + m rows of k coefficients: the identity, then a Cauchy matrix
 * c[i][j] = 1 / (i xor j) with i = k..k+m-1 and j = 0..k-1. The two index sets do not meet, so
 * every square part of it inverts, and with it every choice of k rows of the whole. For k = 1 the
 * row is scaled to 1 (which keeps that property), so that parity is a plain copy.
 *
 * isa-l takes its sources and tables through pointers without const and lengths as int: long
 * buffers go through in pieces. */

/* k * m is largest, 256, where both are half of SOP_EC_MAX; isa-l wants 32 bytes a coefficient. */
#define COEFFS_MAX  (SOP_EC_MAX / 2 * (SOP_EC_MAX / 2))
#define TABLE_BYTES (32 * COEFFS_MAX)
#define PIECE_BYTES (1 << 30)

struct sop_ec {
	unsigned k, m;
	uint8_t matrix[SOP_EC_MAX * SOP_EC_MAX]; /* rows of k */
	uint8_t tables[TABLE_BYTES];		 /* for encoding: rows k..k+m-1 */
};

static uint8_t *unconst(const void *p)
{
	return (uint8_t *)(uintptr_t)p;
}

int sop_ec_new(struct sop_ec **out, unsigned k, unsigned m, struct sop_err *e)
{
	struct sop_ec *c;

	*out = NULL;
	if (k < 1 || k > SOP_EC_MAX || m > SOP_EC_MAX - k)
		return sop_say(e, -EINVAL,
			"erasure code %u+%u: needs at least 1 data shard and at most %d shards in "
			"all",
			k, m, SOP_EC_MAX);
	c = calloc(1, sizeof(*c));
	if (!c)
		return sop_fail(e, -ENOMEM, "erasure code %u+%u", k, m);
	c->k = k;
	c->m = m;
	gf_gen_cauchy1_matrix(c->matrix, (int)(k + m), (int)k);
	if (k == 1)
		memset(c->matrix, 1, k + m);
	if (m)
		ec_init_tables((int)k, (int)m, &c->matrix[k * k], c->tables);
	*out = c;
	return 0;
}

void sop_ec_free(struct sop_ec *c)
{
	free(c);
}

unsigned sop_ec_k(const struct sop_ec *c)
{
	return c->k;
}

unsigned sop_ec_m(const struct sop_ec *c)
{
	return c->m;
}

/* dst[0..rows-1] = the tables' rows times src[0..k-1], len bytes each. */
static void multiply(unsigned k, unsigned rows, const uint8_t *tables, size_t len,
	const void *const *src, void *const *dst)
{
	uint8_t *from[SOP_EC_MAX], *to[SOP_EC_MAX];

	for (size_t off = 0; off < len; off += PIECE_BYTES) {
		size_t piece = SOP_MIN(len - off, (size_t)PIECE_BYTES);

		for (unsigned i = 0; i < k; i++)
			from[i] = unconst(src[i]) + off;
		for (unsigned i = 0; i < rows; i++)
			to[i] = (uint8_t *)dst[i] + off;
		ec_encode_data((int)piece, (int)k, (int)rows, unconst(tables), from, to);
	}
}

void sop_ec_encode(const struct sop_ec *c, size_t len, const void *const *data, void *const *parity)
{
	if (!c->m || !len)
		return;
	if (c->k == 1) {
		for (unsigned i = 0; i < c->m; i++)
			memcpy(parity[i], data[0], len);
		return;
	}
	multiply(c->k, c->m, c->tables, len, data, parity);
}

/* The row that makes shard `want` out of the sources, given the inverse of the sources' rows: for a
 * data shard a row of the inverse itself, for parity its coding row times the inverse. */
static void row_of(const struct sop_ec *c, const uint8_t *inverse, unsigned want, uint8_t *row)
{
	if (want < c->k) {
		memcpy(row, &inverse[want * c->k], c->k);
		return;
	}
	for (unsigned j = 0; j < c->k; j++) {
		row[j] = 0;
		for (unsigned i = 0; i < c->k; i++)
			row[j] ^= gf_mul(c->matrix[want * c->k + i], inverse[i * c->k + j]);
	}
}

int sop_ec_rebuild(const struct sop_ec *c, size_t len, void *const *shard, uint32_t have,
	uint32_t want, struct sop_err *e)
{
	unsigned n = c->k + c->m, sources = 0, rows = 0;
	uint32_t all = n == 32 ? UINT32_MAX : (1u << n) - 1;
	uint8_t square[SOP_EC_MAX * SOP_EC_MAX], inverse[SOP_EC_MAX * SOP_EC_MAX];
	uint8_t coeffs[COEFFS_MAX], tables[TABLE_BYTES];
	const void *src[SOP_EC_MAX];
	void *dst[SOP_EC_MAX];

	have &= all;
	want &= all & ~have;
	if ((unsigned)__builtin_popcount(have) < c->k)
		return sop_say(e, SOP_ELOST, "%d shards are left, %u are needed",
			__builtin_popcount(have), c->k);
	if (!want || !len)
		return 0;
	for (unsigned i = 0; i < n && sources < c->k; i++) {
		if (!(have & 1u << i))
			continue;
		memcpy(&square[sources * c->k], &c->matrix[i * c->k], c->k);
		src[sources++] = shard[i];
	}
	if (c->k == 1) {
		for (unsigned i = 0; i < n; i++)
			if (want & 1u << i)
				memcpy(shard[i], src[0], len);
		return 0;
	}
	/* Cannot happen with this matrix; a wrong answer here would be silent damage. */
	if (gf_invert_matrix(square, inverse, (int)c->k))
		return sop_say(e, SOP_ELOST, "shards %#x cannot be solved for %#x", have, want);
	for (unsigned i = 0; i < n; i++) {
		if (!(want & 1u << i))
			continue;
		row_of(c, inverse, i, &coeffs[rows * c->k]);
		dst[rows++] = shard[i];
	}
	ec_init_tables((int)c->k, (int)rows, coeffs, tables);
	multiply(c->k, rows, tables, len, src, dst);
	return 0;
}

uint32_t sop_crc32c(uint32_t crc, const void *buf, size_t len)
{
	uint8_t *p = unconst(buf);

	/* isa-l's function neither starts nor ends with the complement that CRC32C has. */
	crc = ~crc;
	while (len) {
		size_t piece = SOP_MIN(len, (size_t)PIECE_BYTES);

		crc = crc32_iscsi(p, (int)piece, crc);
		p += piece;
		len -= piece;
	}
	return ~crc;
}

uint32_t sop_crc32c_own(const void *raw, size_t len, size_t at)
{
	const uint8_t zero[4] = {0};
	const uint8_t *p = raw;
	uint32_t crc = sop_crc32c(0, p, at);

	crc = sop_crc32c(crc, zero, sizeof(zero));
	return sop_crc32c(crc, p + at + sizeof(zero), len - at - sizeof(zero));
}
