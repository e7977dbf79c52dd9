/* Money goes from a store to another, by many threads at once: one transaction over both, tried
 * again when another was faster. Not a cent is lost.
 *
 *     transfer DIR... */
#include <pthread.h>
#include <stdio.h>

#include "core/sop.h"

#define ACCOUNTS  4
#define THREADS	  4
#define TRANSFERS 100

struct bank {
	struct sop_volume *v;
	uint64_t giro, savings;
};

static int read_cents(struct sop_txn *t, uint64_t store, const struct sop_key *key, long *cents,
	struct sop_err *e)
{
	void *val;
	size_t len;
	int rc = sop_kv_get(t, store, key, 0, &val, &len, e);

	if (rc)
		return rc;
	*cents = strtol(val, NULL, 10);
	free(val);
	return 0;
}

static int write_cents(
	struct sop_txn *t, uint64_t store, const struct sop_key *key, long cents, struct sop_err *e)
{
	char text[24];

	return sop_kv_upsert(
		t, store, key, text, (size_t)snprintf(text, sizeof(text), "%ld", cents), e);
}

static int open_accounts(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct sop_store_opts o = {.key_type = SOP_KEY_INT64};
	struct bank *b = arg;
	int rc = sop_store_at(t, "bank/giro", SOP_STORE_CREATE, &o, &b->giro, e);

	if (!rc)
		rc = sop_store_at(t, "bank/savings", SOP_STORE_CREATE, &o, &b->savings, e);
	for (int64_t i = 0; i < ACCOUNTS && !rc; i++) {
		struct sop_key key = sop_key_int(i);

		rc = write_cents(t, b->giro, &key, 100000, e);
		if (!rc)
			rc = write_cents(t, b->savings, &key, 0, e);
	}
	return rc;
}

struct order {
	struct bank *b;
	int64_t from, to;
	long cents;
};

static int transfer(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct order *o = arg;
	struct sop_key from = sop_key_int(o->from), to = sop_key_int(o->to);
	long a, b;
	int rc = read_cents(t, o->b->giro, &from, &a, e);

	if (!rc)
		rc = read_cents(t, o->b->savings, &to, &b, e);
	if (!rc)
		rc = write_cents(t, o->b->giro, &from, a - o->cents, e);
	return rc ? rc : write_cents(t, o->b->savings, &to, b + o->cents, e);
}

static void *clerk(void *arg)
{
	struct bank *b = arg;

	for (int i = 0; i < TRANSFERS; i++) {
		struct order o = {b, i % ACCOUNTS, (i + 1) % ACCOUNTS, i};
		struct sop_err e = {0};

		if (sop_txn_run(b->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 1000, 0,
			    transfer, &o, &e)) {
			fprintf(stderr, "transfer: %s\n", e.text);
			return b;
		}
	}
	return NULL;
}

/* All of it in one snapshot. */
static int sum(struct bank *b, long *total, struct sop_err *e)
{
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, b->v, &(struct sop_txn_opts){.mode = SOP_TXN_NO_CHECK}, e);

	*total = 0;
	for (int64_t i = 0; i < ACCOUNTS && !rc; i++) {
		struct sop_key key = sop_key_int(i);
		long x = 0, y = 0;

		rc = read_cents(t, b->giro, &key, &x, e);
		if (!rc)
			rc = read_cents(t, b->savings, &key, &y, e);
		*total += x + y;
	}
	sop_txn_rollback(t);
	return rc;
}

int main(int argc, char **argv)
{
	struct sop_err e = {0};
	struct bank b = {0};
	pthread_t thread[THREADS];
	void *failed = NULL, *one;
	long total = 0;
	int rc = argc < 2 ? -EINVAL
			  : sop_volume_open(&b.v, (const char *const *)(argv + 1), (size_t)argc - 1,
				    NULL, &e);

	if (rc) {
		fprintf(stderr, "transfer: %s\n", argc < 2 ? "usage: transfer DIR..." : e.text);
		return argc < 2 ? 2 : 1;
	}
	rc = sop_txn_run(
		b.v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0, open_accounts, &b, &e);
	for (int i = 0; i < THREADS && !rc; i++)
		rc = -pthread_create(&thread[i], NULL, clerk, &b);
	for (int i = 0; i < THREADS && !rc; i++) {
		pthread_join(thread[i], &one);
		failed = one ? one : failed;
	}
	if (!rc)
		rc = failed ? -EIO : sum(&b, &total, &e);
	if (!rc)
		printf("%d transfers, %ld cents in all\n", THREADS * TRANSFERS, total);
	else
		fprintf(stderr, "transfer: %s\n", e.text);
	if (sop_volume_close(b.v, &e))
		rc = -EIO;
	return rc ? 1 : 0;
}
