/* looks SEED APPENDS FILE [live]: processes append to one file by short sessions, of which some
 * overlap, others look at it, by stat and by reading: whatever close() has committed before the
 * look began is there. How much that is, is counted in shared memory, after each close. live: of
 * session=write, where a reader sees what comes while it reads. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define APPENDERS 3
#define LOOKERS	  2
#define LONGEST	  20000

static struct {
	atomic_ullong closed, looks;
	atomic_uint at_work;
} * shared;
static char text[LONGEST];
static bool live;

static void check(const char *what, unsigned long long is, unsigned long long least)
{
	if (is >= least)
		return;
	printf("%s: %llu bytes, closed were %llu\n", what, is, least);
	exit(1);
}

static void no(const char *what)
{
	perror(what);
	exit(1);
}

static void append(const char *name, size_t len)
{
	int fd = open(name, O_WRONLY | O_APPEND | O_CREAT, 0644);

	if (fd < 0 || write(fd, text, len) != (ssize_t)len || close(fd))
		no("append");
	atomic_fetch_add(&shared->closed, len);
}

static void read_all(const char *name)
{
	unsigned long long least = atomic_load(&shared->closed), len = 0;
	static char buf[1 << 16];
	struct stat st;
	ssize_t n;
	int fd = open(name, O_RDONLY);

	if (fd < 0 || fstat(fd, &st))
		no("open");
	check("fstat", (unsigned long long)st.st_size, least);
	for (len = least - least % sizeof(buf); (n = pread(fd, buf, sizeof(buf), (off_t)len)) > 0;)
		len += (unsigned long long)n;
	if (n < 0 || close(fd))
		no("read");
	check("read", len, least);
	if (!live && len != (unsigned long long)st.st_size) {
		printf("fstat: %llu bytes, read were %llu\n", (unsigned long long)st.st_size, len);
		exit(1);
	}
}

static void look(const char *name)
{
	while (atomic_load(&shared->at_work)) {
		unsigned long long least = atomic_load(&shared->closed);
		struct stat st;

		if (stat(name, &st))
			no("stat");
		check("stat", (unsigned long long)st.st_size, least);
		if (rand() % 100 == 0)
			read_all(name);
		atomic_fetch_add(&shared->looks, 1);
	}
}

int main(int argc, char **argv)
{
	unsigned seed = argc > 3 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
	unsigned appends = argc > 3 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	int status, bad = 0;
	struct stat st;

	live = argc == 5;
	if (!appends) {
		fprintf(stderr, "usage: looks SEED APPENDS FILE [live]\n");
		return 2;
	}
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		no("mmap");
	append(argv[3], 1);
	atomic_store(&shared->at_work, APPENDERS);
	for (unsigned i = 0; i < APPENDERS + LOOKERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			no("fork");
		if (pid)
			continue;
		srand(seed + i);
		for (unsigned k = 0; i < APPENDERS && k < appends; k++)
			append(argv[3], 1 + (size_t)rand() % (rand() % 8 ? 50 : LONGEST));
		if (i < APPENDERS)
			atomic_fetch_sub(&shared->at_work, 1);
		else
			look(argv[3]);
		exit(0);
	}
	/* One that failed lets the others end. */
	while (wait(&status) > 0) {
		bad |= status;
		if (status)
			atomic_store(&shared->at_work, 0);
	}
	if (stat(argv[3], &st))
		no("stat");
	check("stat at the end", (unsigned long long)st.st_size, atomic_load(&shared->closed));
	if ((unsigned long long)st.st_size != atomic_load(&shared->closed))
		bad = 1;
	printf("%llu bytes, %llu looks\n", atomic_load(&shared->closed),
		atomic_load(&shared->looks));
	return bad ? 1 : 0;
}
