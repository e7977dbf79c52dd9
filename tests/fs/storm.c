/* storm write DIR ID ROUND DONE-FILE: creates files and rewrites one, until the mount dies under
 * it. A line goes to DONE-FILE when close() has returned 0, and not before: that file must be
 * there, whole. storm verify DIR DONE-FILE...: everything noted is there, whole, not older; nothing
 * else is torn.
 *
 * Content follows from the file's name and number. A shell cannot do this: its redirections do not
 * look at what close() says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE_LIMIT 80000

static char want[SIZE_LIMIT], have[SIZE_LIMIT + 1];

/* "NAME NUMBER\n" over and over, its length by the number. */
static size_t content(const char *name, unsigned long round, unsigned long n)
{
	size_t len = 1 + (n * 7919 + round * 131) % 70000, used = 0;

	if (n % 3)
		len = len % 3000 + 100;
	while (used < len)
		used += (size_t)snprintf(
			want + used, sizeof(want) - used, "%s %lu %lu\n", name, round, n);
	return used;
}

static bool put(int dir, const char *name, unsigned long round, unsigned long n)
{
	size_t len = content(name, round, n), at;
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	bool ok = fd >= 0;
	ssize_t w;

	for (at = 0; ok && at < len; at += (size_t)w) {
		w = write(fd, want + at, len - at);
		if (w <= 0)
			ok = false;
	}
	if (fd >= 0 && close(fd))
		ok = false;
	return ok;
}

static int write_storm(
	const char *dir_name, const char *id, unsigned long round, const char *done_name)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY);
	int done = open(done_name, O_WRONLY | O_CREAT | O_APPEND, 0644);
	char name[64], same[64];
	unsigned long n;

	if (dir < 0 || done < 0) {
		perror("storm");
		return 2;
	}
	snprintf(same, sizeof(same), "same.%s", id);
	for (n = 0;; n++) {
		snprintf(name, sizeof(name), "r%lu.w%s.%lu", round, id, n);
		if (!put(dir, name, round, n))
			return 0;
		dprintf(done, "%s %lu %lu\n", name, round, n);
		if (!put(dir, same, round, n))
			return 0;
		dprintf(done, "%s %lu %lu\n", same, round, n);
	}
}

/* 0: whole, and *round and *n say which version; 1: not there; 2: torn. */
static int look(int dir, const char *name, unsigned long *round, unsigned long *n)
{
	int fd = openat(dir, name, O_RDONLY);
	size_t used = 0, len;
	char inner[300];
	ssize_t r;

	if (fd < 0)
		return errno == ENOENT ? 1 : 2;
	while ((r = read(fd, have + used, SIZE_LIMIT - used)) > 0)
		used += (size_t)r;
	close(fd);
	have[used] = '\0';
	if (r < 0 || sscanf(have, "%299s %lu %lu", inner, round, n) != 3 || strcmp(inner, name))
		return 2;
	len = content(name, *round, *n);
	return len == used && !memcmp(want, have, len) ? 0 : 2;
}

static int verify_done(int dir, const char *done_name, unsigned long *checked)
{
	FILE *f = fopen(done_name, "r");
	unsigned long round, n, r, v, last_round = 0, last_n = 0;
	char name[300], same[300] = "";
	int bad = 0, rc;

	if (!f)
		return 0; /* it noted nothing before the end */
	while (fscanf(f, "%299s %lu %lu", name, &round, &n) == 3) {
		(*checked)++;
		if (!strncmp(name, "same.", 5)) {
			strcpy(same, name);
			last_round = round;
			last_n = n;
			continue;
		}
		rc = look(dir, name, &r, &v);
		if (rc || r != round || v != n) {
			fprintf(stderr, "%s was closed, and is %s\n", name,
				rc == 1 ? "gone"
				: rc	? "torn"
					: "another version");
			bad = 1;
		}
	}
	fclose(f);
	if (same[0]) {
		rc = look(dir, same, &r, &v);
		if (rc || r < last_round || (r == last_round && v < last_n)) {
			fprintf(stderr, "%s: version %lu %lu was closed; %s %lu %lu is there\n",
				same, last_round, last_n,
				rc == 2 ? "torn"
				: rc	? "nothing"
					: "whole",
				r, v);
			bad = 1;
		}
	}
	return bad;
}

static int verify(const char *dir_name, char *const *done, int count)
{
	int dir = open(dir_name, O_RDONLY | O_DIRECTORY), bad = 0, i;
	unsigned long checked = 0, names = 0, round, n;
	struct dirent *e;
	DIR *d;

	if (dir < 0)
		return 2;
	for (i = 0; i < count; i++)
		bad |= verify_done(dir, done[i], &checked);
	d = fdopendir(dup(dir));
	if (!d)
		return 2;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		names++;
		if (look(dir, e->d_name, &round, &n)) {
			fprintf(stderr, "%s is torn\n", e->d_name);
			bad = 1;
		}
	}
	closedir(d);
	close(dir);
	printf("%lu closes were noted, %lu names are there\n", checked, names);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "write"))
		return write_storm(argv[2], argv[3], strtoul(argv[4], NULL, 10), argv[5]);
	if (argc > 3 && !strcmp(argv[1], "verify"))
		return verify(argv[2], argv + 3, argc - 3);
	fprintf(stderr, "usage: storm write DIR ID ROUND DONE | storm verify DIR DONE...\n");
	return 2;
}
