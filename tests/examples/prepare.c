/* The first half of a transaction in two phases: everything is checked and on the media, and the
 * program ends. 'sopctl txn' shows it then, and commits it or rolls it back. Prints its number.
 *
 *     prepare [-n COUNT] STORE KEY VALUE DIR...
 *
 * An empty VALUE: the item is removed. COUNT: as many items, KEY1, KEY2, ... with VALUE and a
 * newline. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/sop.h"

static int write_one(
	struct sop_txn *t, const char *path, const char *key, const char *value, struct sop_err *e)
{
	uint64_t store;
	int rc = sop_store_at(t, path, 0, NULL, &store, e);

	if (rc)
		return rc;
	return *value ? sop_upsert(t, SOP_NAME(store, key), value, strlen(value), e)
		      : sop_remove(t, SOP_NAME(store, key), e);
}

static int write_many(struct sop_txn *t, unsigned long count, const char *path, const char *key,
	const char *value, struct sop_err *e)
{
	char name[256], line[256];
	int rc = 0;

	snprintf(line, sizeof(line), "%s\n", value);
	for (unsigned long i = 1; i <= count && !rc; i++) {
		snprintf(name, sizeof(name), "%s%lu", key, i);
		rc = write_one(t, path, name, line, e);
	}
	return rc;
}

int main(int argc, char **argv)
{
	struct sop_txn_opts o = {.mode = SOP_TXN_WRITE, .note = "half of a transfer"};
	unsigned long count = 0;
	struct sop_err e = {0};
	struct sop_volume *v;
	struct sop_txn *t;
	int rc;

	if (argc > 2 && !strcmp(argv[1], "-n")) {
		count = strtoul(argv[2], NULL, 10);
		argv += 2;
		argc -= 2;
	}
	if (argc < 5) {
		fprintf(stderr, "usage: prepare [-n COUNT] STORE KEY VALUE DIR...\n");
		return 2;
	}
	rc = sop_volume_open(&v, (const char *const *)(argv + 4), (size_t)argc - 4, NULL, &e);
	if (rc) {
		fprintf(stderr, "prepare: %s\n", e.text);
		return 1;
	}
	rc = sop_txn_begin(&t, v, &o, &e);
	if (!rc) {
		rc = count ? write_many(t, count, argv[1], argv[2], argv[3], &e)
			   : write_one(t, argv[1], argv[2], argv[3], &e);
		if (!rc)
			rc = sop_txn_prepare(t, &e);
		if (!rc)
			printf("%" PRIu64 "\n", sop_txn_id(t));
		if (rc)
			sop_txn_rollback(t);
	}
	if (!rc) {
		/* Whatever ends the program now, the transaction stays. */
		fflush(stdout);
		_exit(0);
	}
	fprintf(stderr, "prepare: %s\n", e.text);
	sop_volume_close(v, NULL);
	return 1;
}
