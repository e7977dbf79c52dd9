/* Little-endian integers for on-disk structs: bytes, so no padding and no accidental arithmetic. */
#ifndef SOP_LE_H
#define SOP_LE_H

#include <endian.h>

#include "core/base.h"

struct le16 {
	uint8_t b[2];
};
struct le32 {
	uint8_t b[4];
};
struct le64 {
	uint8_t b[8];
};

#define SOP_LE(bits)                                                                               \
	static inline uint##bits##_t le##bits##_get(struct le##bits v)                             \
	{                                                                                          \
		uint##bits##_t x;                                                                  \
		memcpy(&x, v.b, sizeof(x));                                                        \
		return le##bits##toh(x);                                                           \
	}                                                                                          \
	static inline struct le##bits le##bits##_make(uint##bits##_t x)                            \
	{                                                                                          \
		struct le##bits v;                                                                 \
		x = htole##bits(x);                                                                \
		memcpy(v.b, &x, sizeof(x));                                                        \
		return v;                                                                          \
	}
SOP_LE(16)
SOP_LE(32)
SOP_LE(64)
#undef SOP_LE

/* Big-endian 64-bit keys, so that memcmp orders them as numbers. */
static inline void be64_put(void *p, uint64_t x)
{
	x = htobe64(x);
	memcpy(p, &x, sizeof(x));
}

static inline uint64_t be64_get(const void *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof(x));
	return be64toh(x);
}

#endif
