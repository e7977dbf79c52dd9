/* The work that is measured: prints "SECONDS COUNT P50 P99" of one phase, the last two in
 * microseconds (0: not an operation at a time). Content is made from the file's number and checked
 * when read; a wrong byte ends it with exit code 1.
 *
 *     drive create    DIR COUNT SIZE [PROCESSES [sync|lazy [GENERATION]]]
 *                                                        new files, written, (fsynced,) closed
 *     drive overwrite DIR COUNT SIZE [PROCESSES [sync|lazy [GENERATION]]]
 *     drive read      DIR COUNT SIZE [PROCESSES [lazy [GENERATION]]]
 *     drive stat      DIR COUNT
 *     drive rename    DIR COUNT                          each to another name and back: 2 * COUNT
 *     drive unlink    DIR COUNT
 *     drive list      DIR [COUNT]                        names and attributes, as ls -l
 *     drive names     DIR [COUNT]                        names alone
 *     drive append    FILE COUNT                         open, a line, close
 *     drive appended  FILE COUNT                         the lines, checked
 *     drive write     FILE MIB [sync]                    a stream, in calls of 1 MiB
 *     drive sread     FILE MIB                           the stream again, checked
 *     drive rread     FILE MIB COUNT                     random 4 KiB reads, checked
 *     drive rwrite    FILE MIB COUNT                     random 4 KiB writes and one fsync
 *     drive rcheck    FILE MIB COUNT                     what rwrite wrote
 *     drive dirs      DIR COUNT                          empty directories, 1000 to a folder
 *     drive tree      DIR COUNT                          files as of sources; every 16th has
 * "needle"
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
	uint64_t generation; /* of the content */
};

static float *took_us; /* by file number, shared by all processes */

static uint64_t content_id(const struct job *j, unsigned long file)
{
	return (uint64_t)file << 20 ^ j->generation << 60;
}

/* xorshift: the same sequence every time. */
static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void write_file(const struct job *j, const char *name, const char *buf, int flags)
{
	int fd = open(name, O_WRONLY | flags, 0644);

	if (fd < 0 || write(fd, buf, j->size) != (ssize_t)j->size)
		die(name);
	if (j->sync && fsync(fd))
		die(name);
	if (close(fd))
		die(name);
}

static void write_files(const struct job *j, int flags)
{
	char *buf = malloc(j->size), name[4200];
	unsigned long i;
	double start;

	memcpy(buf, pattern, j->size);
	for (i = j->first; i < j->first + j->count; i++) {
		stamp(buf, j->size, content_id(j, i));
		snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
		start = now();
		write_file(j, name, buf, flags);
		took_us[i] = (float)((now() - start) * 1e6);
	}
	free(buf);
}

static void create_files(const struct job *j)
{
	write_files(j, O_CREAT | O_EXCL);
}

static void overwrite_files(const struct job *j)
{
	write_files(j, O_TRUNC);
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
		check(buf, j->size, content_id(j, i), name);
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

static void rename_files(const struct job *j)
{
	char name[4200], other[4200];
	unsigned long i, back;

	for (back = 0; back < 2; back++) {
		for (i = j->first; i < j->first + j->count; i++) {
			snprintf(name, sizeof(name), "%s/f%08lu", j->dir, i);
			snprintf(other, sizeof(other), "%s/renamed-%08lu", j->dir, i);
			if (rename(back ? other : name, back ? name : other))
				die(name);
		}
	}
}

static unsigned long list_dir(const char *dir, bool attributes)
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
		if (attributes && fstatat(dirfd(h), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			die(d->d_name);
		n++;
	}
	closedir(h);
	return n;
}

#define LINE 64

static void make_line(char line[LINE + 1], unsigned long i)
{
	snprintf(line, LINE + 1, "%010lu %-*s\n", i, LINE - 12, "a line of a log");
}

static void append_lines(const char *file, unsigned long count)
{
	char line[LINE + 1];
	unsigned long i;
	double start;
	int fd;

	for (i = 0; i < count; i++) {
		make_line(line, i);
		start = now();
		fd = open(file, O_WRONLY | O_APPEND | O_CREAT, 0644);
		if (fd < 0 || write(fd, line, LINE) != LINE || close(fd))
			die(file);
		took_us[i] = (float)((now() - start) * 1e6);
	}
}

static void check_lines(const char *file, unsigned long count)
{
	char line[LINE + 1], want[LINE + 1];
	FILE *f = fopen(file, "r");
	unsigned long i;

	if (!f)
		die(file);
	for (i = 0; i < count; i++) {
		make_line(want, i);
		if (fread(line, LINE, 1, f) != 1 || memcmp(line, want, LINE)) {
			fprintf(stderr, "%s: wrong line %lu\n", file, i);
			exit(1);
		}
	}
	if (fgetc(f) != EOF) {
		fprintf(stderr, "%s: longer than it should be\n", file);
		exit(1);
	}
	fclose(f);
}

static void write_stream(const char *file, unsigned long mib, bool sync)
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
	if (sync && fsync(fd))
		die(file);
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

/* Random pages of a stream: read and checked; or written, with another mark; or those read. */
enum touch { TOUCH_READ, TOUCH_WRITE, TOUCH_CHECK };

static void touch_page(int fd, const char *file, uint64_t page, enum touch how)
{
	uint64_t mark = how == TOUCH_READ ? page : ~page;
	const char *rest = pattern + page * PAGE % CHUNK + 8;
	char buf[4096];

	if (how == TOUCH_WRITE) {
		memcpy(buf, &mark, 8);
		memcpy(buf + 8, rest, PAGE - 8);
		if (pwrite(fd, buf, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
			die(file);
		return;
	}
	if (pread(fd, buf, PAGE, (off_t)(page * PAGE)) != (ssize_t)PAGE)
		die(file);
	if (memcmp(buf, &mark, 8) || memcmp(buf + 8, rest, PAGE - 8)) {
		fprintf(stderr, "%s: wrong content\n", file);
		exit(1);
	}
}

static void touch_random(const char *file, unsigned long mib, unsigned long count, enum touch how)
{
	uint64_t pages = (uint64_t)mib * (CHUNK / PAGE), x = 0x2545f4914f6cdd1du;
	unsigned long i;
	int fd = open(file, how == TOUCH_WRITE ? O_WRONLY : O_RDONLY);

	if (fd < 0)
		die(file);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (i = 0; i < count; i++)
		touch_page(fd, file, next_random(&x) % pages, how);
	if (how == TOUCH_WRITE && fsync(fd))
		die(file);
	if (close(fd))
		die(file);
}

static void make_dirs(const char *dir, unsigned long count)
{
	unsigned long i;
	char name[4200];

	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s/d%04lu", dir, i / 1000);
		if (i % 1000 == 0 && mkdir(name, 0755))
			die(name);
		snprintf(name, sizeof(name), "%s/d%04lu/d%03lu", dir, i / 1000, i % 1000);
		if (mkdir(name, 0755))
			die(name);
	}
}

/* Text of 200 bytes to 64 KiB, small ones far more often, 25 files to a folder. */
static void make_tree(const char *dir, unsigned long count)
{
	static const char *const words[] = {"static", "int", "return", "struct", "if", "while",
		"buffer", "length", "(void)", "0;", "{\n", "}\n", "/* why */", "&&", "sizeof"};
	uint64_t x = 0x9e3779b97f4a7c15u;
	unsigned long i;
	char name[4200];
	size_t left;
	FILE *f;

	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s/d%04lu", dir, i / 25);
		if (i % 25 == 0 && mkdir(name, 0755))
			die(name);
		snprintf(name, sizeof(name), "%s/d%04lu/file%05lu.c", dir, i / 25, i);
		f = fopen(name, "wx");
		if (!f)
			die(name);
		if (i % 16 == 0)
			fputs("needle\n", f);
		left = (size_t)200 << next_random(&x) % 9;
		left = left / 2 + next_random(&x) % left;
		while (left > 16)
			left -= (size_t)fprintf(f, "%s ",
				words[next_random(&x) % (sizeof(words) / sizeof(words[0]))]);
		if (fputc('\n', f) == EOF || fclose(f))
			die(name);
	}
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

static int by_value(const void *a, const void *b)
{
	float x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/* One of the verbs that go through the files of a folder. */
static bool run_files(const char *verb, const struct job *j, unsigned long processes)
{
	static const struct {
		const char *verb;
		void (*work)(const struct job *j);
	} all[] = {{"create", create_files}, {"overwrite", overwrite_files}, {"read", read_files},
		{"stat", stat_files}, {"rename", rename_files}, {"unlink", unlink_files}};
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(verb, all[i].verb))
			continue;
		spread(j, processes, all[i].work);
		return true;
	}
	return false;
}

/* How many operations it was; 0: no such verb. */
static unsigned long run_other(const char *verb, int argc, char **argv)
{
	unsigned long n = number(argc, argv, 3, 0), count = number(argc, argv, 4, 1000);
	const char *path = argv[2];

	if (!strcmp(verb, "list") || !strcmp(verb, "names")) {
		count = list_dir(path, verb[0] == 'l');
		if (n && count != n) {
			fprintf(stderr, "%s: %lu names, not %lu\n", path, count, n);
			exit(1);
		}
		return count;
	}
	if (!strcmp(verb, "append"))
		append_lines(path, n);
	else if (!strcmp(verb, "appended"))
		check_lines(path, n);
	else if (!strcmp(verb, "write"))
		write_stream(path, n, argc > 4);
	else if (!strcmp(verb, "sread"))
		read_stream(path, n);
	else if (!strcmp(verb, "dirs"))
		make_dirs(path, n);
	else if (!strcmp(verb, "tree"))
		make_tree(path, n);
	else
		n = 0;
	if (n)
		return n;
	n = number(argc, argv, 3, 0);
	if (!strcmp(verb, "rread"))
		touch_random(path, n, count, TOUCH_READ);
	else if (!strcmp(verb, "rwrite"))
		touch_random(path, n, count, TOUCH_WRITE);
	else if (!strcmp(verb, "rcheck"))
		touch_random(path, n, count, TOUCH_CHECK);
	else
		return 0;
	return count;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";
	unsigned long count = number(argc, argv, 3, 0);
	struct job j = {.dir = argc > 2 ? argv[2] : "",
		.count = count,
		.size = number(argc, argv, 4, PAGE),
		.sync = argc > 6 && !strcmp(argv[6], "sync"),
		.generation = number(argc, argv, 7, 0)};
	float p50 = 0, p99 = 0;
	double start;

	make_pattern();
	took_us = mmap(NULL, (count + 1) * sizeof(*took_us), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (took_us == MAP_FAILED || argc < 3 || j.size > CHUNK) {
		fprintf(stderr, "drive: see its source for the verbs\n");
		return 2;
	}
	start = now();
	if (run_files(verb, &j, number(argc, argv, 5, 1)))
		count *= strcmp(verb, "rename") ? 1 : 2;
	else
		count = run_other(verb, argc, argv);
	start = now() - start;
	if (!count) {
		fprintf(stderr, "drive: see its source for the verbs\n");
		return 2;
	}
	if (took_us[0] > 0) {
		qsort(took_us, count, sizeof(*took_us), by_value);
		p50 = took_us[count / 2];
		p99 = took_us[count * 99 / 100];
	}
	printf("%.6f %lu %.1f %.1f\n", start, count, (double)p50, (double)p99);
	return 0;
}
