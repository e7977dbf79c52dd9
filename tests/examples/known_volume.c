/* known_volume [--torn] FOLDER...: fills a fresh volume with a tree that is the same every time, by
 * a clock that stands still. --torn: ends as a killed process would, with its last commits in the
 * journal alone. --look: says instead what of that tree cannot be read, and nothing when all can,
 * and what is in lost+found.
 * Exit code 1: something else was read than was written. */
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

static void item_name(char key[32], unsigned i)
{
	snprintf(key, 32, "item %04u", i);
}

static void put_many(struct sop_volume *v)
{
	struct sop_txn *t = begin(v);
	uint64_t store;
	char key[32];

	ok(sop_store_at(t, "many", SOP_STORE_CREATE, NULL, &store, &e), "many");
	for (unsigned i = 0; i < MANY; i++) {
		item_name(key, i);
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

/* ---- looking ---- */

static bool wrong;

static void say(const char *dir, const char *key, const char *what)
{
	printf("/%s%s%s: %s\n", dir ? dir : "", dir ? "/" : "", key, what);
}

static void look_at(
	struct sop_volume *v, const char *dir, const char *key, const void *want, size_t len)
{
	uint64_t store = SOP_ROOT;
	size_t got_len = 0;
	void *got = NULL;
	int rc = dir ? sop_store_at(sop_volume_latest(v), dir, 0, NULL, &store, &e) : 0;

	if (!rc)
		rc = sop_get(sop_volume_latest(v), SOP_NAME(store, key), &got, &got_len, &e);
	if (rc < 0) {
		say(dir, key, rc == -ENOENT ? "is not there" : e.text);
	} else if (got_len != len || memcmp(got, want, len) != 0) {
		say(dir, key, "WRONG");
		wrong = true;
	}
	free(got);
}

static void look(struct sop_volume *v, const char *dir, const char *key, size_t len, unsigned seed)
{
	static char buf[600000];

	fill(buf, len, seed);
	look_at(v, dir, key, buf, len);
}

static void look_one_by_one(struct sop_volume *v)
{
	unsigned bad = 0;
	char key[32];

	for (unsigned i = 0; i < MANY; i++) {
		uint64_t store;
		size_t len = 0;
		void *got = NULL;
		int rc = sop_store_at(sop_volume_latest(v), "many", 0, NULL, &store, &e);

		item_name(key, i);
		if (rc >= 0)
			rc = sop_get(sop_volume_latest(v), SOP_NAME(store, key), &got, &len, &e);
		if (rc < 0 && !bad++)
			say("many", key, rc == -ENOENT ? "is not there" : e.text);
		if (rc >= 0 && (len != strlen(key) || memcmp(got, key, len) != 0)) {
			say("many", key, "WRONG");
			wrong = true;
		}
		free(got);
	}
	if (bad)
		printf("/many: %u of %u cannot be read\n", bad, MANY);
}

/* A listing may end in an error; what it gives before is of the volume, each once and in order. */
static void list_many(struct sop_volume *v)
{
	unsigned n = 0, next = 0;
	struct sop_cursor *c = NULL;
	struct sop_txn *t;
	uint64_t store;
	int rc;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_READ}, &e), "begin");
	rc = sop_store_at(t, "many", 0, NULL, &store, &e);
	if (!rc)
		rc = sop_cursor_open(&c, t, store, &e);
	for (rc = rc < 0 ? rc : sop_cursor_first(c, &e); rc > 0; rc = sop_cursor_next(c, &e), n++) {
		char key[32] = "";
		size_t len;
		const void *got = sop_cursor_key(c, &len);

		while (next < MANY && (strlen(key) != len || memcmp(got, key, len) != 0))
			item_name(key, next++);
		if (strlen(key) == len && !memcmp(got, key, len))
			continue;
		printf("/many: listed WRONG: %.*s\n", (int)len, (const char *)got);
		wrong = true;
		break;
	}
	if (rc < 0)
		printf("/many: listed %u: %s\n", n, rc == -ENOENT ? "is not there" : e.text);
	else if (!wrong && n != MANY)
		printf("/many: listed %u\n", n);
	sop_cursor_close(c);
	sop_txn_rollback(t);
}

static bool has(struct sop_volume *v, const char *dir, const char *key, size_t len, unsigned seed)
{
	static char want[9000];
	uint64_t store;
	size_t got_len = 0;
	void *got = NULL;
	bool same;

	fill(want, len, seed);
	if (sop_store_at(sop_volume_latest(v), dir, 0, NULL, &store, &e) ||
		sop_get(sop_volume_latest(v), SOP_NAME(store, key), &got, &got_len, &e) < 0)
		return false;
	same = got_len == len && !memcmp(got, want, len);
	free(got);
	return same;
}

/* What fsck has given a name there, and what is in it. */
static void look_at_found(struct sop_volume *v)
{
	struct sop_cursor *c = NULL;
	struct sop_txn *t;
	uint64_t store;
	int rc;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_READ}, &e), "begin");
	rc = sop_store_at(t, "lost+found", 0, NULL, &store, &e);
	if (!rc)
		rc = sop_cursor_open(&c, t, store, &e);
	for (rc = rc < 0 ? rc : sop_cursor_first(c, &e); rc > 0; rc = sop_cursor_next(c, &e)) {
		char name[64], dir[128], below[192];
		size_t len;
		const void *key = sop_cursor_key(c, &len);

		snprintf(name, sizeof(name), "%.*s", (int)len, (const char *)key);
		snprintf(dir, sizeof(dir), "lost+found/%s", name);
		snprintf(below, sizeof(below), "%s/old", dir);
		printf("/%s:%s%s%s%s\n", dir, has(v, "lost+found", name, 9000, 2) ? " report" : "",
			has(v, dir, "report", 9000, 2) ? " with report" : "",
			has(v, dir, "letter", 40, 3) ? " with letter" : "",
			has(v, below, "letter", 40, 3) ? " with old/letter" : "");
	}
	sop_cursor_close(c);
	sop_txn_rollback(t);
}

static int look_at_all(const char *const *paths, size_t n)
{
	const struct sop_open_opts o = {.no_threads = true, .read_only = true, .clock = &still};
	struct sop_volume *v;

	if (sop_volume_open(&v, paths, n, &o, &e) < 0) {
		printf("does not open: %s\n", e.text);
		return 0;
	}
	look(v, NULL, "note", 200, 1);
	look(v, "docs", "report", 9000, 2);
	look(v, NULL, "link", 9000, 2);
	look(v, "docs/old", "letter", 40, 3);
	look(v, NULL, "film", 600000, 4);
	look(v, NULL, "last", 3000, 5);
	look_one_by_one(v);
	list_many(v);
	look_at_found(v);
	ok(sop_volume_close(v, &e), "close");
	return wrong;
}

int main(int argc, char **argv)
{
	bool torn = argc > 1 && !strcmp(argv[1], "--torn");
	bool looks = argc > 1 && !strcmp(argv[1], "--look");
	const struct sop_open_opts o = {.no_threads = true, .clock = &still};
	struct sop_volume *v;

	argv += 1 + (torn || looks);
	argc -= 1 + (torn || looks);
	if (argc < 1) {
		fprintf(stderr, "usage: known_volume [--torn | --look] FOLDER...\n");
		return 2;
	}
	if (looks)
		return look_at_all((const char *const *)argv, (size_t)argc);
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
