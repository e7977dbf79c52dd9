#include "fs/memory.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>

/* What is in use cannot be given back: it has to grow by so much until the next try. */
#define GROWTH ((size_t)8 << 20)

/* 0: not known. */
static size_t resident(void)
{
	sop_autoclose int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	unsigned long long pages = 0;
	char text[128];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[SOP_MAX(n, 0)] = 0;
	if (sscanf(text, "%*u %llu", &pages) != 1)
		return 0;
	return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

void sopfs_memory_settle(struct sopfs *f)
{
	if (!f->o.resident_max || resident() <= SOP_MAX(f->o.resident_max, f->settled + GROWTH))
		return;
	malloc_trim(0);
	f->settled = resident();
}
