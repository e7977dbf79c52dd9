#include "fs/rate.h"

#include <string.h>

/* Two kinds that share a place share its allowance; that is all. */
static unsigned kind_of(unsigned level, const char *module)
{
	unsigned h = level + 1;

	for (; *module; module++)
		h = h * 31 + (unsigned char)*module;
	return h % SOPFS_RATE_KINDS;
}

bool sopfs_rate_pass(
	struct sopfs_rate *r, time_t now, unsigned level, const char *module, unsigned *told)
{
	*told = 0;
	if (now != r->second) {
		r->second = now;
		memset(r->lines, 0, sizeof(r->lines));
		*told = sopfs_rate_rest(r);
	}
	if (++r->lines[kind_of(level, module)] <= SOPFS_RATE_LINES)
		return true;
	r->left_out++;
	return false;
}

unsigned sopfs_rate_rest(struct sopfs_rate *r)
{
	unsigned n = r->left_out;

	r->left_out = 0;
	return n;
}
