/* The first thing one does with libsop: make a store "barstoreec" on four folders (2 data + 2
 * parity shards) whose keys are numbers, add item 1 = "foo", commit, read it back.
 *
 *     mkfs.sopfs -f --ec 2+2 d1 d2 d3 d4
 *     barstore d1 d2 d3 d4 */
#include <stdio.h>

#include "core/sop.h"

static int fail(const char *what, const struct sop_err *e)
{
	fprintf(stderr, "barstore: %s: %s\n", what, e->text);
	return 1;
}

static int add(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64};
	struct sop_key one = sop_key_int(1);
	uint64_t store;
	int rc = sop_store_at(t, "barstoreec", SOP_STORE_CREATE, &o, &store, e);

	(void)arg;
	return rc ? rc : sop_kv_upsert(t, store, &one, "foo", 3, e);
}

static int show(struct sop_volume *v, struct sop_err *e)
{
	struct sop_key one = sop_key_int(1);
	struct sop_txn *t;
	uint64_t store, count;
	size_t len;
	void *value = NULL;
	int rc = sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_READ}, e);

	if (rc)
		return rc;
	rc = sop_store_at(t, "barstoreec", 0, NULL, &store, e);
	if (!rc)
		rc = sop_count(t, store, &count, e);
	if (!rc)
		rc = sop_kv_get(t, store, &one, 0, &value, &len, e);
	if (!rc)
		printf("barstoreec: %llu item, 1 = %s\n", (unsigned long long)count, (char *)value);
	free(value);
	if (rc) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, 0, e);
}

int main(int argc, char **argv)
{
	struct sop_err e = {0};
	struct sop_volume *v;
	int rc;

	if (argc < 2) {
		fprintf(stderr, "usage: barstore DIR...\n");
		return 2;
	}
	rc = sop_volume_open(&v, (const char *const *)(argv + 1), (size_t)argc - 1, NULL, &e);
	if (rc)
		return fail("open", &e);
	rc = sop_txn_run(v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, SOP_COMMIT_DURABLE,
		add, NULL, &e);
	if (!rc)
		rc = show(v, &e);
	if (rc)
		fail("transaction", &e);
	if (sop_volume_close(v, &e))
		return fail("close", &e);
	return rc ? 1 : 0;
}
