/* The work that is measured: prints "SECONDS COUNT" of one phase. Content is made from the file's
 * number and checked when read; a wrong byte ends it with exit code 1.
 *
 *     drive create  DIR COUNT SIZE [PROCESSES [sync]]    new files, written, (fsynced,) closed
 *     drive read    DIR COUNT SIZE [PROCESSES]
 *     drive stat    DIR COUNT
 *     drive list    DIR                                  names and attributes, as ls -l
 *     drive unlink  DIR COUNT
 *     drive write   FILE MIB                             a stream, in calls of 1 MiB
 *     drive rread   FILE MIB COUNT                       random 4 KiB reads
 *     drive sread   FILE MIB                             the stream again, checked
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)
#define PAGE  ((size_t)4096)

static char pattern[CHUNK];

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_pattern(void)
{
	uint64_t x = 88172645463325252u;
	size_t i;

	for (i = 0; i < CHUNK; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(pattern + i, &x, 8);
	}
}

/* Each page says which one it is: a page of another file or place is noticed. */
static void stamp(char *buf, size_t len, uint64_t id)
{
	size_t i;

	for (i = 0; i + 8 <= len; i += PAGE, id++)
		memcpy(buf + i, &id, 8);
}

static void check(const char *buf, size_t len, uint64_t id, const char *what)
{
	size_t i, n;

	for (i = 0; i < len; i += PAGE, id++) {
		n = len - i < PAGE ? len - i : PAGE;
		if ((n >= 8 && memcmp(buf + i, &id, 8)) ||
			(n > 8 && memcmp(buf + i + 8, pattern + i + 8, n - 8))) {
			fprintf(stderr, "%s: wrong content at byte %zu\n", what, i);
			exit(1);
		}
	}
}

struct job {
	const char *dir;
	unsigned long first, count;
	size_t size;
	bool sync;
};

static void create_files(const struct job *j)
{
	char *buf = malloc(j->size), name[4200];
	unsigned long i;
	int fd;

	memcpy(buf, pattern, j->size);
	for (i = j->first; i < j->first + j->count; i++) {
		stamp(buf, j->size, (uint64_t)i << 20);
		snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, buf, j->size) != (ssize_t)j->size)
			die(name);
		if (j->sync && fsync(fd))
			die(name);
		if (close(fd))
			die(name);
	}
	free(buf);
}

static void read_files(const struct job *j)
{
	char *buf = malloc(j->size + 1), name[4200];
	unsigned long i;
	int fd;

	for (i = j->first; i < j->first + j->count; i++) {
		snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
		fd = open(name, O_RDONLY);
		if (fd < 0)
			die(name);
		if (read(fd, buf, j->size + 1) != (ssize_t)j->size) {
			fprintf(stderr, "%s: wrong size\n", name);
			exit(1);
		}
		check(buf, j->size, (uint64_t)i << 20, name);
		close(fd);
	}
	free(buf);
}

static void stat_files(const struct job *j)
{
	char name[4200];
	struct stat st;
	unsigned long i;

	for (i = j->first; i < j->first + j->count; i++) {
		snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
		if (stat(name, &st))
			die(name);
	}
}

static void unlink_files(const struct job *j)
{
	char name[4200];
	unsigned long i;

	for (i = j->first; i < j->first + j->count; i++) {
		snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
		if (unlink(name))
			die(name);
	}
}

static unsigned long list_dir(const char *dir)
{
	unsigned long n = 0;
	struct dirent *d;
	struct stat st;
	DIR *h = opendir(dir);

	if (!h)
		die(dir);
	while ((d = readdir(h))) {
		if (d->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(h), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			die(d->d_name);
		n++;
	}
	closedir(h);
	return n;
}

static void write_stream(const char *file, unsigned long mib)
{
	char *buf = malloc(CHUNK);
	unsigned long i;
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		die(file);
	memcpy(buf, pattern, CHUNK);
	for (i = 0; i < mib; i++) {
		stamp(buf, CHUNK, (uint64_t)i * (CHUNK / PAGE));
		if (write(fd, buf, CHUNK) != (ssize_t)CHUNK)
			die(file);
	}
	if (close(fd))
		die(file);
	free(buf);
}

static void read_stream(const char *file, unsigned long mib)
{
	char *buf = malloc(CHUNK);
	unsigned long i;
	size_t have;
	ssize_t n;
	int fd = open(file, O_RDONLY);

	if (fd < 0)
		die(file);
	for (i = 0; i < mib; i++) {
		for (have = 0; have < CHUNK; have += (size_t)n) {
			n = read(fd, buf + have, CHUNK - have);
			if (n <= 0)
				die(file);
		}
		check(buf, CHUNK, (uint64_t)i * (CHUNK / PAGE), file);
	}
	if (read(fd, buf, 1) != 0)
		die("longer than it should be");
	close(fd);
	free(buf);
}

static void read_random(const char *file, unsigned long mib, unsigned long count)
{
	uint64_t pages = (uint64_t)mib * (CHUNK / PAGE), x = 0x2545f4914f6cdd1du, page;
	char buf[4096];
	unsigned long i;
	int fd = open(file, O_RDONLY);

	if (fd < 0)
		die(file);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (i = 0; i < count; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		page = x % pages;
		if (pread(fd, buf, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
			die(file);
		if (memcmp(buf, &page, 8) ||
			memcmp(buf + 8, pattern + page * PAGE % CHUNK + 8, PAGE - 8)) {
			fprintf(stderr, "%s: wrong content\n", file);
			exit(1);
		}
	}
	close(fd);
}

/* The job divided over processes, each with files of its own. */
static void spread(const struct job *j, unsigned long processes, void (*work)(const struct job *))
{
	struct job part = *j;
	unsigned long i;
	int status, bad = 0;

	if (processes <= 1) {
		work(j);
		return;
	}
	for (i = 0; i < processes; i++) {
		part.first = j->count * i / processes;
		part.count = j->count * (i + 1) / processes - part.first;
		switch (fork()) {
		case -1:
			die("fork");
		case 0:
			work(&part);
			_exit(0);
		default:
			break;
		}
	}
	while (wait(&status) > 0)
		bad |= status;
	if (bad)
		exit(1);
}

static unsigned long number(int argc, char **argv, int i, unsigned long otherwise)
{
	return i < argc ? strtoul(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";
	unsigned long count = number(argc, argv, 3, 0), processes = number(argc, argv, 5, 1);
	struct job j = {.dir = argc > 2 ? argv[2] : "",
		.count = count,
		.size = number(argc, argv, 4, PAGE),
		.sync = argc > 6};
	double start;

	make_pattern();
	if (j.size > CHUNK) {
		fprintf(stderr, "drive: SIZE is at most %zu\n", CHUNK);
		return 2;
	}
	start = now();
	if (!strcmp(verb, "create")) {
		spread(&j, processes, create_files);
	} else if (!strcmp(verb, "read")) {
		spread(&j, processes, read_files);
	} else if (!strcmp(verb, "stat")) {
		stat_files(&j);
	} else if (!strcmp(verb, "unlink")) {
		unlink_files(&j);
	} else if (!strcmp(verb, "list")) {
		count = list_dir(argv[2]);
	} else if (!strcmp(verb, "write")) {
		write_stream(argv[2], count);
	} else if (!strcmp(verb, "sread")) {
		read_stream(argv[2], count);
	} else if (!strcmp(verb, "rread")) {
		read_random(argv[2], count, number(argc, argv, 4, 1000));
		count = number(argc, argv, 4, 1000);
	} else {
		fprintf(stderr, "drive: see its source for the verbs\n");
		return 2;
	}
	printf("%.6f %lu\n", now() - start, count);
	return 0;
}
