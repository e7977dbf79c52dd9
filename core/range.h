/* A range of keys, as scans take it. */
#ifndef SOP_RANGE_H
#define SOP_RANGE_H

#include "core/base.h"

struct sop_range {
	const void *from; /* NULL: from the first (descending: the last) key */
	size_t from_len;
	bool from_exclusive;
	const void *to; /* NULL: to the end */
	size_t to_len;
	bool to_exclusive;
	bool descending; /* then from >= to */
};

#endif
