/* prefix run DIR SEED LOG: changes a few files, one commit each, until something fails; notes each
 * in LOG before it begins (B n), when close() has returned (A n), and when fsync() has (S n).
 * prefix verify DIR SEED LOG [closed]: DIR holds exactly what the first n changes make, for an n
 * from the last S (closed: the last A) to the last B. The changes follow from the seed alone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES		 8
#define SIZE_MAX_OF_FILE 200000u

struct file {
	bool there;
	size_t len;
	uint8_t data[SIZE_MAX_OF_FILE];
};

static struct file model[FILES];
static uint8_t buf[SIZE_MAX_OF_FILE + 1];

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9E3779B97F4A7C15ull;

	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
	return x ^ (x >> 31);
}

enum kind { PUT, APPEND, OVERWRITE, RENAME, REMOVE };

struct change {
	enum kind kind;
	unsigned a, b;
	size_t off, len;
	uint64_t fill;
	bool sync;
};

static void fill(uint8_t *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(next_random(&seed) >> 11);
}

/* Change n, as it follows from the seed and the state before. */
static struct change change_at(uint64_t seed, unsigned long n)
{
	static const size_t sizes[] = {1, 100, 1000, 3000, 5000, 20000, 60000};
	uint64_t rng = seed * 1000003 + n;
	struct change c = {.kind = (enum kind)(next_random(&rng) % 5),
		.a = (unsigned)(next_random(&rng) % FILES),
		.len = sizes[next_random(&rng) % 7],
		.fill = next_random(&rng),
		.sync = next_random(&rng) % 4 == 0};

	c.b = (c.a + 1 + (unsigned)(next_random(&rng) % (FILES - 1))) % FILES;
	if (!model[c.a].there)
		c.kind = PUT;
	if (c.kind == APPEND && model[c.a].len + c.len > SIZE_MAX_OF_FILE)
		c.kind = PUT;
	if (c.kind == OVERWRITE) {
		c.off = model[c.a].len ? next_random(&rng) % model[c.a].len : 0;
		if (c.off + c.len > SIZE_MAX_OF_FILE)
			c.len = SIZE_MAX_OF_FILE - c.off;
	}
	if (c.kind == RENAME || c.kind == REMOVE)
		c.sync = false;
	return c;
}

static void apply(const struct change *c)
{
	struct file *f = &model[c->a];

	switch (c->kind) {
	case PUT:
		f->there = true;
		f->len = c->len;
		fill(f->data, c->len, c->fill);
		break;
	case APPEND:
		fill(f->data + f->len, c->len, c->fill);
		f->len += c->len;
		break;
	case OVERWRITE:
		fill(f->data + c->off, c->len, c->fill);
		if (f->len < c->off + c->len)
			f->len = c->off + c->len;
		break;
	case RENAME:
		model[c->b] = *f;
		f->there = false;
		break;
	case REMOVE:
		f->there = false;
		break;
	}
}

static bool write_file(int dir, const char *name, const struct change *c)
{
	int flags = c->kind == PUT ? O_CREAT | O_TRUNC : c->kind == APPEND ? O_APPEND : 0;
	int fd = openat(dir, name, O_WRONLY | flags, 0644);
	bool ok = fd >= 0;

	fill(buf, c->len, c->fill);
	for (size_t at = 0; ok && at < c->len;) {
		ssize_t n = c->kind == OVERWRITE
				    ? pwrite(fd, buf + at, c->len - at, (off_t)(c->off + at))
				    : write(fd, buf + at, c->len - at);

		ok = n > 0;
		at += ok ? (size_t)n : 0;
	}
	if (ok && c->sync)
		ok = !fsync(fd);
	if (fd >= 0 && close(fd))
		ok = false;
	return ok;
}

static int run(const char *dir_name, uint64_t seed, const char *log_name)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY);
	int log = open(log_name, O_WRONLY | O_CREAT | O_APPEND, 0644);
	char a[16], b[16];

	if (dir < 0 || log < 0) {
		perror("prefix");
		return 2;
	}
	for (unsigned long n = 1;; n++) {
		struct change c = change_at(seed, n);
		bool ok;

		snprintf(a, sizeof(a), "f%u", c.a);
		snprintf(b, sizeof(b), "f%u", c.b);
		dprintf(log, "B %lu\n", n);
		if (c.kind == RENAME)
			ok = !renameat(dir, a, dir, b);
		else if (c.kind == REMOVE)
			ok = !unlinkat(dir, a, 0);
		else
			ok = write_file(dir, a, &c);
		if (!ok)
			return 0;
		apply(&c);
		dprintf(log, "A %lu\n", n);
		if (c.sync)
			dprintf(log, "S %lu\n", n);
	}
}

static bool same_file(int dir, unsigned i)
{
	char name[16];
	size_t len = 0;
	ssize_t n;
	int fd;

	snprintf(name, sizeof(name), "f%u", i);
	fd = openat(dir, name, O_RDONLY);
	if (fd < 0)
		return errno == ENOENT && !model[i].there;
	while ((n = read(fd, buf + len, sizeof(buf) - len)) > 0)
		len += (size_t)n;
	close(fd);
	if (n < 0) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		exit(1);
	}
	return model[i].there && len == model[i].len && !memcmp(buf, model[i].data, len);
}

static int verify(const char *dir_name, uint64_t seed, const char *log_name, bool closed)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY);
	FILE *log = fopen(log_name, "r");
	unsigned long begun = 0, acked = 0, synced = 0, n, least;
	char what;

	if (dir < 0 || !log) {
		perror("prefix");
		return 2;
	}
	while (fscanf(log, " %c %lu", &what, &n) == 2)
		*(what == 'B' ? &begun : what == 'A' ? &acked : &synced) = n;
	fclose(log);
	least = closed ? acked : synced;
	for (n = 0;; n++) {
		bool same = n >= least;
		struct change c;

		for (unsigned i = 0; i < FILES && same; i++)
			same = same_file(dir, i);
		if (same) {
			printf("prefix: %lu of %lu changes are there; %lu were closed, %lu "
			       "synced\n",
				n, begun, acked, synced);
			return 0;
		}
		if (n >= begun)
			break;
		c = change_at(seed, n + 1);
		apply(&c);
	}
	fprintf(stderr, "prefix: no state from %lu to %lu is there (closed %lu, synced %lu)\n",
		least, begun, acked, synced);
	return 1;
}

static int push(const char *path, const struct stat *st, int type, struct FTW *at)
{
	int fd = type == FTW_F ? open(path, O_RDONLY) : -1;

	(void)st;
	(void)at;
	if (fd >= 0) {
		(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
		close(fd);
	}
	return 0;
}

/* Until killed: what is dirty goes to the device, without a flush, as memory pressure does it. */
static void stir(char **dirs)
{
	for (;;)
		for (char **d = dirs; *d; d++)
			(void)nftw(*d, push, 16, FTW_PHYS);
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "stir"))
		stir(argv + 2);
	if (argc == 5 && !strcmp(argv[1], "run"))
		return run(argv[2], strtoull(argv[3], NULL, 10), argv[4]);
	if ((argc == 5 || argc == 6) && !strcmp(argv[1], "verify"))
		return verify(argv[2], strtoull(argv[3], NULL, 10), argv[4], argc == 6);
	fprintf(stderr, "usage: prefix run DIR SEED LOG | prefix verify DIR SEED LOG [closed] | "
			"prefix stir DIR...\n");
	return 2;
}
