/* bench: how fast a directory is, on a volume or elsewhere, by the same few things done there. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "core/human.h"
#include "mount-helpers/sopctl.h"

#define CHUNK	    ((size_t)1 << 20)
#define SMALL	    4096
#define FILES	    1000
#define SYNCS	    100
#define SIZE_BYTES  ((uint64_t)256 << 20)
#define FOLDER_NAME "sopctl-bench.XXXXXX"

struct bench {
	int dir; /* of our own, below the one that is measured */
	uint64_t size;
	char *buf; /* CHUNK random bytes */
	char failed[128];
};

static volatile sig_atomic_t stop;

static void note_stop(int signal_number)
{
	(void)signal_number;
	stop = 1;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool fails(struct bench *b, const char *what)
{
	snprintf(b->failed, sizeof(b->failed), "%s: %s", what,
		stop ? "interrupted" : strerror(errno));
	return false;
}

static bool write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR && !stop)
			continue;
		if (n <= 0)
			return false;
		buf += n;
		len -= (size_t)n;
	}
	return !stop;
}

/* Written, made durable, closed. */
static bool write_large(struct bench *b)
{
	int fd = openat(b->dir, "large", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	bool good = fd >= 0;

	for (uint64_t done = 0; good && done < b->size; done += CHUNK)
		good = write_all(fd, b->buf, (size_t)SOP_MIN((uint64_t)CHUNK, b->size - done));
	good = good && !fsync(fd);
	if (fd >= 0 && close(fd))
		good = false;
	return good || fails(b, "writing");
}

static bool read_large(struct bench *b)
{
	int fd = openat(b->dir, "large", O_RDONLY | O_CLOEXEC);
	sop_autofree char *buf = malloc(CHUNK);
	uint64_t done = 0;
	ssize_t n = 1;

	/* Not from the kernel's memory, as far as it heeds that. */
	if (fd >= 0)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	while (fd >= 0 && buf && n > 0 && !stop) {
		n = read(fd, buf, CHUNK);
		done += n > 0 ? (uint64_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	return (done == b->size && !stop) || fails(b, "reading");
}

static bool small_file(struct bench *b, unsigned i, bool sync)
{
	char name[16];
	bool good;
	int fd;

	snprintf(name, sizeof(name), "%c%u", sync ? 's' : 'f', i);
	fd = openat(b->dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	good = fd >= 0 && write_all(fd, b->buf, SMALL) && (!sync || !fsync(fd));
	if (fd >= 0 && close(fd))
		good = false;
	return good || fails(b, name);
}

static bool create_files(struct bench *b)
{
	bool good = true;

	for (unsigned i = 0; i < FILES && good; i++)
		good = small_file(b, i, false);
	return good;
}

static bool sync_files(struct bench *b)
{
	bool good = true;

	for (unsigned i = 0; i < SYNCS && good; i++)
		good = small_file(b, i, true);
	return good;
}

static bool remove_files(struct bench *b)
{
	int copy = openat(b->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *e;
	bool good = d != NULL;

	if (!d && copy >= 0)
		close(copy);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && unlinkat(b->dir, e->d_name, 0))
			good = false;
	if (d)
		closedir(d);
	return good || fails(b, "removing");
}

static const struct step {
	const char *key, *text;
	bool (*run)(struct bench *b);
	unsigned count; /* of what it does; 0: bytes */
} steps[] = {
	{"write_bytes_per_second", "sequential write, with its fsync", write_large, 0},
	{"read_bytes_per_second", "sequential read", read_large, 0},
	{"create_per_second", "new files of 4 KiB", create_files, FILES},
	{"fsync_per_second", "new files of 4 KiB, each with fsync", sync_files, SYNCS},
	{"remove_per_second", "files removed", remove_files, FILES + SYNCS + 1},
};

static bool measure(struct bench *b, const struct sopctl_args *a)
{
	json_t *out = json_pack("{s:I}", "size_bytes", (json_int_t)b->size);
	bool good = true;

	for (size_t i = 0; i < SOP_ARRAY_LEN(steps) && good; i++) {
		const struct step *s = &steps[i];
		double from = now_s(), rate;
		char size[SOP_HUMAN_TEXT];

		good = s->run(b);
		rate = (s->count ? (double)s->count : (double)b->size) / (now_s() - from + 1e-9);
		if (!good)
			break;
		json_object_set_new(out, s->key, json_integer((json_int_t)rate));
		if (!a->json && s->count)
			printf("%-38s %12.0f /s\n", s->text, rate);
		else if (!a->json)
			printf("%-38s %12s/s\n", s->text, sop_human_size(size, (uint64_t)rate));
		fflush(stdout);
	}
	if (good && a->json)
		sopctl_print_json(out);
	json_decref(out);
	return good;
}

static int prepare(struct bench *b, const char *folder, const struct sopctl_args *a)
{
	struct statvfs st;

	b->size = SIZE_BYTES;
	if (a->size && (sop_human_parse_size(&b->size, a->size) || !b->size))
		return sopctl_fail(SOPCTL_USAGE, "--size=%s: must be a size, as 64M", a->size);
	if (statvfs(folder, &st))
		return sopctl_fail(SOPCTL_FAILURE, "%s: %s", folder, strerror(errno));
	/* It must not fill what others write to. */
	if (b->size > (uint64_t)st.f_bavail * st.f_frsize / 2)
		return sopctl_fail(SOPCTL_FAILURE,
			"%s: less than twice as much as is to be written is free; --size takes "
			"less",
			folder);
	b->buf = malloc(CHUNK);
	if (!b->buf)
		return sopctl_fail(SOPCTL_FAILURE, "out of memory");
	/* Nothing below can make less of it. */
	for (size_t i = 0; i < CHUNK; i += 256)
		if (getrandom(b->buf + i, 256, 0) != 256)
			return sopctl_fail(SOPCTL_FAILURE, "random numbers: %s", strerror(errno));
	return 0;
}

static int run_bench(const struct sopctl_args *a)
{
	const struct sigaction noted = {.sa_handler = note_stop};
	struct bench b = {.dir = -1};
	sop_autofree char *folder = NULL;
	int rc = prepare(&b, a->word[0], a);
	bool good;

	if (!rc && asprintf(&folder, "%s/" FOLDER_NAME, a->word[0]) < 0)
		rc = sopctl_fail(SOPCTL_FAILURE, "out of memory");
	sigaction(SIGINT, &noted, NULL);
	sigaction(SIGTERM, &noted, NULL);
	if (!rc && !mkdtemp(folder))
		rc = sopctl_fail(errno == EACCES ? SOPCTL_PERMISSION : SOPCTL_FAILURE, "%s: %s",
			a->word[0], strerror(errno));
	if (!rc) {
		b.dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		good = b.dir >= 0 ? measure(&b, a) : fails(&b, folder);
		/* Whatever has happened, it leaves nothing. */
		if (b.dir >= 0)
			(void)remove_files(&(struct bench){.dir = b.dir});
		if (rmdir(folder))
			rc = sopctl_fail(SOPCTL_FAILURE, "%s: %s", folder, strerror(errno));
		if (!good)
			rc = sopctl_fail(SOPCTL_FAILURE, "%s: %s", a->word[0], b.failed);
	}
	if (b.dir >= 0)
		close(b.dir);
	free(b.buf);
	return rc;
}

const struct sopctl_verb sopctl_bench_verbs[] = {
	{"bench", "DIRECTORY", "Measure how fast a directory is written, read and filled",
		"json size", 1, 1,
		"In a folder of its own, which it removes. DIRECTORY may lie anywhere: the same on "
		"the bare disk\ntells what the volume costs. Nothing else should be at work.\n",
		run_bench},
	{0},
};
