/* What fuzz targets share. A target is one decoder; a checksum that would keep every mutation out
 * is made right first, since it keeps out bit rot and not whoever writes to the disk. What is
 * accepted is encoded again and must decode to the same. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "core/base.h"
#include "core/ec.h"
#include "core/err.h"
#include "core/le.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input in a block of its own of `want` bytes, zeros behind it, so that reading past it is
 * seen. free() it. */
static inline uint8_t *fuzz_block(const uint8_t *data, size_t size, size_t want)
{
	uint8_t *p = calloc(1, want ? want : 1);

	if (!p)
		abort();
	if (data && size && want)
		memcpy(p, data, SOP_MIN(size, want));
	return p;
}

/* Put the checksum of the whole, taken with its own field as zero, at `at`. */
static inline void fuzz_seal(uint8_t *p, size_t len, size_t at)
{
	struct le32 crc = le32_make(0);

	if (len < at + sizeof(crc))
		return;
	memcpy(p + at, &crc, sizeof(crc));
	crc = le32_make(sop_crc32c(0, p, len));
	memcpy(p + at, &crc, sizeof(crc));
}

#endif
