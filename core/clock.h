/* Time, as a vtable so that tests drive it. Any thread. */
#ifndef SOP_CLOCK_H
#define SOP_CLOCK_H

#include "core/base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sop_clock {
	uint64_t (*wall_ns)(void *ctx);      /* CLOCK_REALTIME, for timestamps users see */
	uint64_t (*monotonic_ms)(void *ctx); /* CLOCK_MONOTONIC, for intervals */
	void *ctx;
};

extern const struct sop_clock sop_clock_system;

#ifdef __cplusplus
}
#endif

#endif
