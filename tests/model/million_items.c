/* One store with very many items, by libsop on real folders: insert, look up, scan in order,
 * delete; the memory stays under the cache and 64 MiB; the volume checks clean. LONG=1: a million
 * items. */
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "core/sop.h"

#define CACHE (64u << 20)
#define GROUP 1000
#define RUN   50

static struct sop_err e;

static void die(const char *what)
{
	fprintf(stderr, "million_items: %s: %s\n", what, e.text);
	exit(1);
}

static void ok(int rc, const char *what)
{
	if (rc)
		die(what);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static long memory_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	long kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmHWM:", 6))
			kib = strtol(line + 6, NULL, 10);
	if (f)
		fclose(f);
	return kib;
}

static void key_of(char key[16], unsigned i)
{
	snprintf(key, 16, "%09u", i);
}

/* The k-th key: runs of RUN neighbours, the runs all over the store. n is a multiple of GROUP, and
 * 7919 is prime to n / RUN. */
static unsigned scattered(unsigned k, unsigned n)
{
	return (unsigned)((uint64_t)(k / RUN) * 7919 % (n / RUN)) * RUN + k % RUN;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double lap(struct sop_volume *v, const char *what, unsigned n, double since)
{
	struct sop_volume_stat s;
	double now = seconds();

	sop_volume_stat(v, &s);
	printf("         cache %llu KiB, of it dirty %llu KiB\n",
		(unsigned long long)s.cache_bytes >> 10, (unsigned long long)s.dirty_bytes >> 10);
	printf("%-8s %8.0f a second, %ld KiB resident at most\n", what, n / (now - since),
		memory_kib());
	return now;
}

struct order {
	unsigned n;
	bool bad;
};

static int in_order(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	struct order *o = arg;
	char want[16];

	(void)attr;
	key_of(want, o->n++);
	o->bad = o->bad || klen != 9 || memcmp(key, want, 9) != 0;
	return 0;
}

static struct sop_txn *begin(struct sop_volume *v, enum sop_txn_mode mode)
{
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = mode}, &e), "begin");
	return t;
}

static void run(struct sop_volume *v, unsigned n)
{
	struct sop_check_report report;
	struct order o = {0};
	uint64_t store, count;
	struct sop_txn *t;
	double at;
	char key[16];

	t = begin(v, SOP_TXN_WRITE);
	ok(sop_store_at(t, "many", SOP_STORE_CREATE, NULL, &store, &e), "store");
	ok(sop_txn_commit(t, 0, &e), "commit");
	at = seconds();
	for (unsigned i = 0; i < n; i += GROUP) {
		t = begin(v, SOP_TXN_WRITE);
		for (unsigned k = i; k < i + GROUP; k++) {
			key_of(key, scattered(k, n));
			ok(sop_add(t, SOP_NAME(store, key), key, 9, &e), "add");
		}
		ok(sop_txn_commit(t, 0, &e), "commit");
	}
	at = lap(v, "insert", n, at);
	for (unsigned i = 0; i < n; i++) {
		unsigned k = (unsigned)((uint64_t)i * 104729 % n);
		size_t len;
		void *val;

		key_of(key, k);
		ok(sop_get(sop_volume_latest(v), SOP_NAME(store, key), &val, &len, &e), "get");
		if (len != 9 || memcmp(val, key, 9))
			die("a wrong value");
		free(val);
	}
	at = lap(v, "look up", n, at);
	t = begin(v, SOP_TXN_NO_CHECK);
	ok(sop_scan(t, store, NULL, false, in_order, &o, &e), "scan");
	ok(sop_count(t, store, &count, &e), "count");
	if (o.n != n || o.bad || count != n)
		die("the scan is not all items in order");
	ok(sop_txn_commit(t, 0, &e), "commit");
	at = lap(v, "scan", n, at);
	for (unsigned i = 0; i < n; i += GROUP) {
		t = begin(v, SOP_TXN_WRITE);
		for (unsigned k = i; k < i + GROUP; k++) {
			key_of(key, scattered(k, n));
			ok(sop_remove(t, SOP_NAME(store, key), &e), "remove");
		}
		ok(sop_txn_commit(t, 0, &e), "commit");
	}
	lap(v, "delete", n, at);
	ok(sop_volume_check(v, false, NULL, NULL, &report, &e), "check");
	if (report.errors || report.items != 1)
		die("the volume does not check clean");
}

int main(int argc, char **argv)
{
	bool sanitized = false;
	unsigned n = getenv("LONG") && *getenv("LONG") ? 1000000 : 100000;
	char base[] = "/tmp/sopfs-million.XXXXXX", disk[4][64];
	const char *paths[4];
	struct sop_format_opts fo = {.k = 2, .m = 2, .force = true};
	struct sop_open_opts oo = {.cache_bytes = CACHE};
	struct sop_volume *v;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	sanitized = true;
	n = 20000;
#endif
	if (argc > 1)
		n = (unsigned)strtoul(argv[1], NULL, 10) / GROUP * GROUP;
	if (!mkdtemp(base))
		die("temporary folder");
	for (unsigned i = 0; i < 4; i++) {
		snprintf(disk[i], sizeof(disk[i]), "%s/d%u", base, i);
		mkdir(disk[i], 0700);
		paths[i] = disk[i];
	}
	ok(sop_format(paths, 4, &fo, NULL, &e), "format");
	ok(sop_volume_open(&v, paths, 4, &oo, &e), "open");
	run(v, n);
	ok(sop_volume_close(v, &e), "close");
	nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	if (!sanitized && memory_kib() > (long)(CACHE >> 10) + (64 << 10))
		die("more memory than the cache and 64 MiB");
	puts("passed");
	return 0;
}
