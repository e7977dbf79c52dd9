/* Systematic Reed-Solomon over GF(2^8), by isa-l: pure computation on memory.
 *
 * Shards 0..k-1 are the data, k..k+m-1 parity, from a Cauchy matrix, every k rows of which invert
 * (Bloemer et al., "An XOR-based erasure-resilient coding scheme", 1995). 1+m is mirroring, k+0 plain
 * striping. A codec is read-only after creation: any thread. */
#ifndef SOP_EC_H
#define SOP_EC_H

#include "core/err.h"
#include "core/format.h"

struct sop_ec;

/* 1 <= k, 0 <= m, k + m <= SOP_EC_MAX; else -EINVAL. */
int sop_ec_new(struct sop_ec **out, unsigned k, unsigned m, struct sop_err *e);
void sop_ec_free(struct sop_ec *c);
unsigned sop_ec_k(const struct sop_ec *c);
unsigned sop_ec_m(const struct sop_ec *c);

/* Fill parity[0..m-1] from data[0..k-1], len bytes each (any length, any alignment). */
void sop_ec_encode(const struct sop_ec *c, size_t len, const void *const *data, void *const *parity);

/* Rebuild the shards named in the bit mask `want` from those in `have` (verified by the caller;
 * at least k, the lowest k are used). shard[0..k+m-1] are buffers of len bytes, needed where have or
 * want has the bit. SOP_ELOST: fewer than k in have. */
int sop_ec_rebuild(const struct sop_ec *c, size_t len, void *const *shard, uint32_t have,
	uint32_t want, struct sop_err *e);

/* CRC32C (Castagnoli), crc of what came before or 0. */
uint32_t sop_crc32c(uint32_t crc, const void *buf, size_t len);
/* Of what holds its own CRC, a le32 at offset `at`, which counts as zero. */
uint32_t sop_crc32c_own(const void *raw, size_t len, size_t at);

#endif
