/* The first half of a transaction in two phases: everything is checked and on the media, and the
 * program ends. 'sopctl txn' shows it then, and commits it or rolls it back. Prints its number.
 *
 *     prepare STORE KEY VALUE DIR...     (an empty VALUE: the item is removed) */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/sop.h"

int main(int argc, char **argv)
{
	struct sop_txn_opts o = {.mode = SOP_TXN_WRITE, .note = "half of a transfer"};
	struct sop_err e = {0};
	struct sop_volume *v;
	struct sop_txn *t;
	uint64_t store;
	int rc;

	if (argc < 5) {
		fprintf(stderr, "usage: prepare STORE KEY VALUE DIR...\n");
		return 2;
	}
	rc = sop_volume_open(&v, (const char *const *)(argv + 4), (size_t)argc - 4, NULL, &e);
	if (rc) {
		fprintf(stderr, "prepare: %s\n", e.text);
		return 1;
	}
	rc = sop_txn_begin(&t, v, &o, &e);
	if (!rc) {
		rc = sop_store_at(t, argv[1], 0, NULL, &store, &e);
		if (!rc)
			rc = *argv[3] ? sop_upsert(t, SOP_NAME(store, argv[2]), argv[3],
						strlen(argv[3]), &e)
				      : sop_remove(t, SOP_NAME(store, argv[2]), &e);
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
