/* What every file uses: attributes, cleanup, checked arithmetic. No I/O, no allocation policy. */
#ifndef SOP_BASE_H
#define SOP_BASE_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define SOP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SOP_MUST_CHECK	      __attribute__((warn_unused_result))

#define SOP_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define SOP_MIN(a, b)	 ((a) < (b) ? (a) : (b))
#define SOP_MAX(a, b)	 ((a) > (b) ? (a) : (b))

static inline void sop_autofree_p(void *p)
{
	free(*(void **)p);
}
#define sop_autofree __attribute__((cleanup(sop_autofree_p)))

static inline void sop_autoclose_p(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define sop_autoclose __attribute__((cleanup(sop_autoclose_p)))

/* Checked arithmetic: true when the result does not fit. */
static inline bool sop_add_over(uint64_t *out, uint64_t a, uint64_t b)
{
	return __builtin_add_overflow(a, b, out);
}

static inline bool sop_mul_over(uint64_t *out, uint64_t a, uint64_t b)
{
	return __builtin_mul_overflow(a, b, out);
}

static inline uint64_t sop_div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* Round up to a multiple; the caller has checked that it cannot overflow. */
static inline uint64_t sop_round_up(uint64_t a, uint64_t multiple)
{
	return sop_div_up(a, multiple) * multiple;
}

static inline bool sop_all_zero(const void *bytes, size_t len)
{
	const uint8_t *p = (const uint8_t *)bytes;

	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* Memory aligned for isa-l and O_DIRECT; free() it. NULL when there is none. */
static inline void *sop_alloc_aligned(size_t len_bytes)
{
	void *p = NULL;

	return posix_memalign(&p, 4096, len_bytes ? len_bytes : 1) ? NULL : p;
}

/* Compare two byte strings in memcmp order, a shorter prefix first. Keys are short: 8 bytes at a
 * time, as numbers, are quicker than a call. */
static inline int sop_bytes_cmp(const void *a, size_t alen, const void *b, size_t blen)
{
	const uint8_t *p = (const uint8_t *)a, *q = (const uint8_t *)b;
	size_t n = SOP_MIN(alen, blen);
	int c = 0;

	for (size_t at = 0; n - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
		uint64_t x, y;

		memcpy(&x, p + at, sizeof(x));
		memcpy(&y, q + at, sizeof(y));
		if (x != y)
			return be64toh(x) < be64toh(y) ? -1 : 1;
	}
	for (size_t at = n & ~(sizeof(uint64_t) - 1); at < n && !c; at++)
		c = (int)p[at] - (int)q[at];
	return c ? c : (alen > blen) - (alen < blen);
}

#endif
