/* known_volume [--torn] FOLDER...: fills a fresh volume with a tree that is the same every time, by
 * a clock that stands still. --torn: ends as a killed process would, with its last commits in the
 * journal alone. */
#include <stdio.h>

#include "core/sop.h"

#define MANY 1200

static uint64_t wall_ns(void *ctx)
{
	(void)ctx;
	return 1700000000ull * 1000000000;
}

static uint64_t monotonic_ms(void *ctx)
{
	(void)ctx;
	return 1000;
}

static const struct sop_clock still = {.wall_ns = wall_ns, .monotonic_ms = monotonic_ms};
static struct sop_err e;

static void ok(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "known_volume: %s: %s\n", what, e.text);
	exit(1);
}

static void fill(char *buf, size_t len, unsigned seed)
{
	uint32_t x = 2463534242u + seed;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		buf[i] = (char)(x >> 24);
	}
}

static struct sop_txn *begin(struct sop_volume *v)
{
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e), "begin");
	return t;
}

static void commit(struct sop_txn *t)
{
	ok(sop_txn_commit(t, SOP_COMMIT_DURABLE, &e), "commit");
}

static void put(struct sop_volume *v, const char *dir, const char *key, size_t len, unsigned seed)
{
	static char buf[600000];
	struct sop_txn *t = begin(v);
	uint64_t store = SOP_ROOT;

	fill(buf, len, seed);
	if (dir)
		ok(sop_store_at(t, dir, SOP_STORE_CREATE, NULL, &store, &e), dir);
	ok(sop_add(t, SOP_NAME(store, key), buf, len, &e), key);
	commit(t);
}

static void put_many(struct sop_volume *v)
{
	struct sop_txn *t = begin(v);
	uint64_t store;
	char key[32];

	ok(sop_store_at(t, "many", SOP_STORE_CREATE, NULL, &store, &e), "many");
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "item %04u", i);
		ok(sop_add(t, SOP_NAME(store, key), key, strlen(key), &e), key);
	}
	commit(t);
}

static void link_names(struct sop_volume *v)
{
	struct sop_txn *t = begin(v);
	struct sop_attr a;

	ok(sop_lookup(t, SOP_NAME(SOP_ROOT, "docs"), &a, &e), "docs");
	ok(sop_link(t, SOP_NAME(a.ino, "report"), SOP_NAME(SOP_ROOT, "link"), NULL, &e), "link");
	commit(t);
}

int main(int argc, char **argv)
{
	bool torn = argc > 1 && !strcmp(argv[1], "--torn");
	const struct sop_open_opts o = {.no_threads = true, .clock = &still};
	struct sop_volume *v;

	argv += 1 + torn;
	argc -= 1 + torn;
	if (argc < 1) {
		fprintf(stderr, "usage: known_volume [--torn] FOLDER...\n");
		return 2;
	}
	ok(sop_volume_open(&v, (const char *const *)argv, (size_t)argc, &o, &e), "open");
	put(v, NULL, "note", 200, 1);
	put(v, "docs", "report", 9000, 2);
	put(v, "docs/old", "letter", 40, 3);
	put(v, NULL, "film", 600000, 4);
	put_many(v);
	link_names(v);
	ok(sop_volume_checkpoint(v, &e), "checkpoint");
	put(v, NULL, "last", 3000, 5);
	if (torn)
		_exit(0);
	ok(sop_volume_close(v, &e), "close");
	return 0;
}
