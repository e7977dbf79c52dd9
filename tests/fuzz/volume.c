/* A whole volume, damaged: each 8 bytes of input change some bytes of a file of one disk. It opens
 * and is read, or is refused; nothing else. */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/scenario.h"

#include <stdio.h>

struct pick {
	unsigned left;
	char file[64];
	uint64_t size;
};

static void take(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct pick *p = arg;

	(void)allocated;
	if (!size || strlen(file) >= sizeof(p->file) || p->left-- != 0)
		return;
	strcpy(p->file, file);
	p->size = size;
}

static void damage(struct fixture *f, const uint8_t *in)
{
	const char *disk = f->path[in[0] % f->disks];
	struct pick p = {.left = in[1] % 16};
	uint64_t off = (uint64_t)in[2] | (uint64_t)in[3] << 8 | (uint64_t)(in[4] & 7) << 16;

	sim_each_file(f->sim, disk, take, &p);
	if (!p.file[0])
		return;
	if (in[4] >= 0xf8)
		sim_set_size(f->sim, disk, p.file, off % (p.size + 100));
	else
		sim_poke(f->sim, disk, p.file, off % p.size, in + 5,
			SOP_MIN((uint64_t)3, p.size - off % p.size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fixture base;
	struct fixture f;
	uint64_t h;

	if (!base.sim)
		scenario_make(&base, 1, 1, NULL);
	scenario_clone(&f, &base, base.sim, 1);
	for (size_t i = 0; i + 8 <= SOP_MIN(size, (size_t)256); i += 8)
		damage(&f, data + i);
	if (!fixture_open(&f)) {
		(void)scenario_digest(&f, &h, NULL);
		(void)scenario_run(&f, (unsigned)size % scenario_ops(), 3, 0);
	}
	fixture_release(&f);
	return 0;
}
