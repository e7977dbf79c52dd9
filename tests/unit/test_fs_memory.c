/* What the allocator keeps is given back where the daemon would grow beyond what it may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "fs/memory.h"

#define PIECES 40000u
#define BYTES  2000u /* of each */
#define KEPT   64u   /* each so many'th holds the end of the heap where it is */

static size_t resident_kib(void)
{
	FILE *in = fopen("/proc/self/status", "r");
	char line[200];
	size_t kib = 0;

	assert_non_null(in);
	while (!kib && fgets(line, sizeof(line), in))
		if (sscanf(line, "VmRSS: %zu", &kib) != 1)
			kib = 0;
	fclose(in);
	assert_true(kib > 0);
	return kib;
}

static void what_is_free_is_given_back_beyond_the_bound_alone(void **state)
{
	static char *piece[PIECES];
	static struct sopfs f;
	size_t full;

	(void)state;
	if (!mallinfo2().arena)
		skip(); /* another allocator: a sanitizer's */
	for (unsigned i = 0; i < PIECES; i++) {
		piece[i] = malloc(BYTES);
		assert_non_null(piece[i]);
		memset(piece[i], 1, BYTES);
	}
	for (unsigned i = 0; i < PIECES; i++)
		if (i % KEPT != KEPT - 1)
			free(piece[i]);
	full = resident_kib();
	assert_true(full > PIECES / 1024u * BYTES);
	f.o.resident_max = (full + 1024) * 1024;
	sopfs_memory_settle(&f);
	assert_true(resident_kib() > full - 1024);
	f.o.resident_max = 1;
	sopfs_memory_settle(&f);
	assert_true(resident_kib() < full - PIECES / 1024u * BYTES / 2);
	/* Little has come since: the next time nothing is tried. */
	assert_true(f.settled && f.settled / 1024 < full);
	for (unsigned i = KEPT - 1; i < PIECES; i += KEPT)
		free(piece[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_free_is_given_back_beyond_the_bound_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
