/* How fast libsop is, in the shape of the benchmark of the system it is modelled on: many small
 * pairs of strings in one transaction, inserted, read and deleted, by slot length; and beside it,
 * one commit an item, and a cold cache. Prints figures with their ratio to those measured of that
 * system on two cores, without erasure code and fsync: 38, 73 and 31 thousand a second. Each by the
 * clock, and by the processor time of the whole process, which other processes do not change.
 *
 *     libsop FOLDER [MILLIONS]      MILLIONS: also that many items at once */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/sop.h"

#define MODEL_INSERT 38000.0
#define MODEL_READ   73000.0
#define MODEL_DELETE 31000.0

static const char *paths[4];

struct spent { /* seconds */
	double wall, cpu;
};

static double clock_s(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct spent now(void)
{
	return (struct spent){clock_s(CLOCK_MONOTONIC), clock_s(CLOCK_PROCESS_CPUTIME_ID)};
}

static struct spent since(struct spent start)
{
	struct spent end = now();

	return (struct spent){end.wall - start.wall, end.cpu - start.cpu};
}

static void must(int rc, const char *what, const struct sop_err *e)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "libsop: %s: %s\n", what, e->text);
	exit(1);
}

static struct sop_volume *open_volume(void)
{
	struct sop_err e = {0};
	struct sop_volume *v;

	must(sop_volume_open(&v, paths, 4, NULL, &e), "open", &e);
	return v;
}

static struct sop_key key_of(char text[24], uint64_t i)
{
	snprintf(text, 24, "key%012llu", (unsigned long long)i);
	return sop_key_string(text);
}

enum what { INSERT, READ, DELETE };

static struct spent all_in_one(struct sop_volume *v, uint64_t store, uint64_t from, uint64_t n,
	enum what what, unsigned flags)
{
	struct sop_err e = {0};
	struct spent start = now();
	struct sop_txn *t;

	must(sop_txn_begin(&t, v,
		     &(struct sop_txn_opts){.mode = what == READ ? SOP_TXN_READ : SOP_TXN_WRITE},
		     &e),
		"begin", &e);
	for (uint64_t i = from; i < from + n; i++) {
		char text[24];
		struct sop_key k = key_of(text, i);
		void *val;
		size_t len;
		int rc = 0;

		if (what == INSERT)
			rc = sop_kv_add(t, store, &k, text, k.len, NULL, &e);
		else if (what == READ && !(rc = sop_kv_get(t, store, &k, 0, &val, &len, &e)))
			free(val);
		else if (what == DELETE)
			rc = sop_kv_remove(t, store, &k, 0, &e);
		must(rc, "item", &e);
	}
	must(sop_txn_commit(t, flags, &e), "commit", &e);
	return since(start);
}

static uint64_t make_store(struct sop_volume *v, const char *name, unsigned slots)
{
	struct sop_store_opts o = {.key_type = SOP_KEY_STRING, .slot_length = slots};
	struct sop_err e = {0};
	struct sop_txn *t;
	uint64_t store;

	must(sop_txn_begin(&t, v, NULL, &e), "begin", &e);
	must(sop_store_at(t, name, SOP_STORE_CREATE, &o, &store, &e), "store", &e);
	must(sop_txn_commit(t, 0, &e), "commit", &e);
	return store;
}

static void rate(const char *what, uint64_t n, struct spent s, double model)
{
	printf("  %-8s %10.0f/s", what, (double)n / s.wall);
	if (model > 0)
		printf("  %5.1f x", (double)n / s.wall / model);
	printf("  %10.0f/s of processor time", (double)n / s.cpu);
	if (model > 0)
		printf("  %5.1f x", (double)n / s.cpu / model);
	putchar('\n');
}

static void memory(struct sop_volume *v)
{
	struct sop_volume_stat st;
	struct rusage r;

	sop_volume_stat(v, &st);
	getrusage(RUSAGE_SELF, &r);
	printf("  memory: %ld MiB at most so far, %zu MiB of nodes in the cache\n",
		r.ru_maxrss / 1024, (size_t)(st.cache_bytes >> 20));
}

static void model_shape(struct sop_volume *v, uint64_t n, unsigned slots)
{
	char name[40];
	uint64_t store;

	snprintf(name, sizeof(name), "s%u.%llu", slots, (unsigned long long)n);
	store = make_store(v, name, slots);
	printf("%llu items, slot length %u, one transaction each:\n", (unsigned long long)n, slots);
	rate("insert", n, all_in_one(v, store, 0, n, INSERT, 0), MODEL_INSERT);
	rate("read", n, all_in_one(v, store, 0, n, READ, 0), MODEL_READ);
	rate("delete", n, all_in_one(v, store, 0, n, DELETE, 0), MODEL_DELETE);
}

static void one_by_one(struct sop_volume *v, uint64_t n, unsigned flags)
{
	uint64_t store = make_store(v, flags ? "durable" : "relaxed", 2000);
	struct spent start = now();

	for (uint64_t i = 0; i < n; i++)
		all_in_one(v, store, i, 1, INSERT, flags);
	printf("%llu items, one commit each, %s:\n", (unsigned long long)n,
		flags ? "durable" : "relaxed");
	rate("insert", n, since(start), 0);
}

static void cold(struct sop_volume **v, uint64_t n)
{
	uint64_t store = make_store(*v, "cold", 2000);
	struct sop_err e = {0};

	all_in_one(*v, store, 0, n, INSERT, 0);
	must(sop_volume_close(*v, &e), "close", &e);
	*v = open_volume();
	printf("%llu items, cold cache:\n", (unsigned long long)n);
	rate("read", n, all_in_one(*v, store, 0, n, READ, 0), MODEL_READ);
}

static void many(struct sop_volume *v, uint64_t n)
{
	enum { STEP = 100000 };
	static const char *const names[] = {"insert", "read", "delete"};
	static const double model[] = {MODEL_INSERT, MODEL_READ, MODEL_DELETE};
	uint64_t store = make_store(v, "many", 2000);

	printf("%llu items, %d a transaction:\n", (unsigned long long)n, STEP);
	for (int what = INSERT; what <= DELETE; what++) {
		struct spent start = now();

		for (uint64_t i = 0; i < n; i += STEP)
			all_in_one(v, store, i, STEP, (enum what)what, 0);
		rate(names[what], n, since(start), model[what]);
	}
	memory(v);
}

int main(int argc, char **argv)
{
	static const unsigned slots[] = {1000, 2000, 4000};
	struct sop_format_opts fo = {.k = 2, .m = 2, .force = true};
	static char path[4][4096];
	struct sop_err e = {0};
	struct sop_volume *v;

	if (argc < 2) {
		fprintf(stderr, "usage: libsop FOLDER [MILLIONS]\n");
		return 2;
	}
	for (int i = 0; i < 4; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/d%d", argv[1], i + 1);
		paths[i] = path[i];
		mkdir(path[i], 0700);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	must(sop_format(paths, 4, &fo, NULL, &e), "format", &e);
	v = open_volume();
	for (uint64_t n = 10000; n <= 100000; n *= 10)
		for (size_t i = 0; i < SOP_ARRAY_LEN(slots); i++)
			model_shape(v, n, slots[i]);
	one_by_one(v, 20000, 0);
	one_by_one(v, 200, SOP_COMMIT_DURABLE);
	cold(&v, 100000);
	many(v, 1000000);
	if (argc > 2)
		many(v, (uint64_t)atoi(argv[2]) * 1000000);
	must(sop_volume_close(v, &e), "close", &e);
	return 0;
}
