/* A big value, written as a stream and changed in the middle: what a change writes is what it
 * changes.
 *
 *     film MEGABYTES DIR... */
#include <inttypes.h>
#include <stdio.h>

#include "core/sop.h"

#define PIECE (1u << 20)

struct film {
	uint64_t store;
	unsigned megabytes;
	char *piece;
};

static int shoot(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct sop_store_opts o = {
		.key_type = SOP_KEY_STRING, .value_class = SOP_VALUE_BIG, .note = "films"};
	struct sop_key key = sop_key_string("metropolis");
	struct film *f = arg;
	struct sop_value *x;
	int rc = sop_store_at(t, "films", SOP_STORE_CREATE, &o, &f->store, e);

	if (!rc)
		rc = sop_kv_upsert(t, f->store, &key, "", 0, e);
	if (!rc)
		rc = sop_kv_open(&x, t, f->store, &key, 0, SOP_VALUE_WRITE | SOP_VALUE_TRUNC, e);
	if (rc)
		return rc;
	for (unsigned i = 0; i < f->megabytes && rc >= 0; i++) {
		memset(f->piece, 'a' + (int)(i % 26), PIECE);
		rc = (int)sop_value_write(x, f->piece, PIECE, (uint64_t)i * PIECE, e);
	}
	sop_value_close(x);
	return rc < 0 ? rc : 0;
}

static int cut(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct sop_key key = sop_key_string("metropolis");
	struct film *f = arg;
	struct sop_value *x;
	int rc = sop_kv_open(&x, t, f->store, &key, 0, SOP_VALUE_WRITE, e);

	if (rc)
		return rc;
	rc = (int)sop_value_write(x, "CUT", 3, (uint64_t)f->megabytes * PIECE / 2, e);
	sop_value_close(x);
	return rc < 0 ? rc : 0;
}

static int show(struct sop_volume *v, struct film *f, struct sop_err *e)
{
	struct sop_key key = sop_key_string("metropolis");
	struct sop_value *x;
	char text[8] = "";
	int rc = sop_kv_open(&x, sop_volume_latest(v), f->store, &key, 0, 0, e);

	if (rc)
		return rc;
	rc = (int)sop_value_read(x, text, 5, (uint64_t)f->megabytes * PIECE / 2 - 1, e);
	printf("metropolis: %" PRIu64 " bytes, in the middle: %s\n", sop_value_size(x), text);
	sop_value_close(x);
	return rc < 0 ? rc : 0;
}

int main(int argc, char **argv)
{
	const struct sop_txn_opts write = {.mode = SOP_TXN_WRITE};
	struct film f = {
		.megabytes = argc > 1 ? (unsigned)atoi(argv[1]) : 0, .piece = malloc(PIECE)};
	struct sop_volume_stat before, after;
	struct sop_err e = {0};
	struct sop_volume *v;
	int rc;

	if (argc < 3 || !f.megabytes || !f.piece) {
		fprintf(stderr, "usage: film MEGABYTES DIR...\n");
		return 2;
	}
	rc = sop_volume_open(&v, (const char *const *)(argv + 2), (size_t)argc - 2, NULL, &e);
	if (rc) {
		fprintf(stderr, "film: %s\n", e.text);
		return 1;
	}
	rc = sop_txn_run(v, &write, 0, 0, shoot, &f, &e);
	sop_volume_stat(v, &before);
	if (!rc)
		rc = sop_txn_run(v, &write, 0, 0, cut, &f, &e);
	sop_volume_stat(v, &after);
	if (!rc)
		rc = show(v, &f, &e);
	printf("the cut stored less than 64 KiB: %s\n",
		after.live_bytes - before.live_bytes < 65536 ? "yes" : "no");
	if (rc)
		fprintf(stderr, "film: %s\n", e.text);
	if (sop_volume_close(v, &e))
		rc = -EIO;
	free(f.piece);
	return rc ? 1 : 0;
}
