#include "core/patience.h"

#include "core/clock.h"

#define SLICES 16u

/* Never 0. */
static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(sop_clock_system.ctx) + 1;
}

struct sop_patience sop_patience(uint64_t timeout_ms)
{
	return (struct sop_patience){
		.left_ms = timeout_ms, .slice_ms = sop_div_up(timeout_ms, SLICES)};
}

uint64_t sop_patience_slice(struct sop_patience *p)
{
	uint64_t now = now_ms();

	if (p->since_ms)
		p->left_ms -= SOP_MIN(now - p->since_ms, SOP_MIN(p->left_ms, p->slice_ms));
	p->since_ms = now;
	return SOP_MIN(p->left_ms, p->slice_ms);
}
