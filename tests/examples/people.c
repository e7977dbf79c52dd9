/* A store whose keys are JSON maps, ordered by country and then by age, the oldest first; the name
 * is carried along. Prints one page of it, and everybody from one country.
 *
 *     people DIR... */
#include <stdio.h>

#include "core/sop.h"

static const char *const people[][2] = {
	{"{\"country\":\"se\",\"age\":61,\"name\":\"Astrid\"}", "reads"},
	{"{\"country\":\"de\",\"age\":30,\"name\":\"Emil\"}", "sails"},
	{"{\"country\":\"de\",\"age\":72,\"name\":\"Pauline\"}", "paints"},
	{"{\"country\":\"at\",\"age\":19,\"name\":\"Franz\"}", "skis"},
	{"{\"country\":\"de\",\"age\":45.5,\"name\":\"Ottilie\"}", "cooks"},
};

static int fill(struct sop_txn *t, void *arg, struct sop_err *e)
{
	const struct sop_index_field index[] = {
		{"country", false, SOP_FIELD_STRING}, {"age", true, SOP_FIELD_NUMBER}};
	const struct sop_store_opts o = {.key_type = SOP_KEY_JSON, .index = index, .n_index = 2};
	uint64_t *store = arg;
	int rc = sop_store_at(t, "people", SOP_STORE_CREATE, &o, store, e);

	for (size_t i = 0; i < SOP_ARRAY_LEN(people) && !rc; i++) {
		struct sop_key key = sop_key_json(people[i][0]);

		rc = sop_kv_upsert(t, *store, &key, people[i][1], strlen(people[i][1]), e);
	}
	return rc;
}

static int print(void *arg, const struct sop_kv_item *item)
{
	(void)arg;
	printf("%s: %.*s\n", (const char *)item->key.p, (int)item->len, (const char *)item->val);
	return 0;
}

static int show(struct sop_volume *v, uint64_t store, struct sop_err *e)
{
	struct sop_key germans = sop_key_json("{\"country\":\"de\",\"age\":1000}"), key;
	struct sop_cursor *c;
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_READ}, e);

	if (rc)
		return rc;
	puts("the first two:");
	rc = sop_kv_page(t, store, 0, 2, SOP_PAGE_VALUES, print, NULL, e);
	if (rc >= 0)
		rc = sop_cursor_open(&c, t, store, e);
	if (!rc) {
		puts("from Germany:");
		for (rc = sop_cursor_seek_key(c, &germans, false, e); rc == 1;
			rc = sop_cursor_next(c, e)) {
			rc = sop_cursor_typed(c, &key, e);
			if (rc || !strstr(key.p, "\"country\":\"de\""))
				break;
			puts(key.p);
		}
		sop_cursor_close(c);
	}
	if (rc < 0) {
		sop_txn_rollback(t);
		return rc;
	}
	return sop_txn_commit(t, 0, e);
}

int main(int argc, char **argv)
{
	struct sop_err e = {0};
	struct sop_volume *v;
	uint64_t store;
	int rc = argc < 2 ? -EINVAL
			  : sop_volume_open(&v, (const char *const *)(argv + 1), (size_t)argc - 1,
				    NULL, &e);

	if (rc) {
		fprintf(stderr, "people: %s\n", argc < 2 ? "usage: people DIR..." : e.text);
		return argc < 2 ? 2 : 1;
	}
	rc = sop_txn_run(v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0, fill, &store, &e);
	if (!rc)
		rc = show(v, store, &e);
	if (rc)
		fprintf(stderr, "people: %s\n", e.text);
	if (sop_volume_close(v, &e))
		rc = -EIO;
	return rc ? 1 : 0;
}
