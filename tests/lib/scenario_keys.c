/* The alphabet's operations with typed keys, cursors, pages, options of a store and profiles. */
#include <stdio.h>

#include "tests/lib/scenario_own.h"

#define KEPT 6 /* items at the beginning, each twice where that may be */

static struct sop_key map_of(char buf[64], int64_t n, const char *word)
{
	snprintf(buf, 64, "{\"n\":%lld,\"word\":\"%s\"}", (long long)n, word);
	return sop_key_json(buf);
}

int scenario_fill_keys(struct run *r)
{
	static const struct sop_index_field by_n = {.name = "n", .type = SOP_FIELD_NUMBER};
	const struct sop_store_opts ints = {
		.key_type = SOP_KEY_INT64, .duplicates = true, .slot_length = 4};
	const struct sop_store_opts maps = {
		.key_type = SOP_KEY_JSON, .index = &by_n, .n_index = 1, .note = "maps"};
	uint64_t s, j;
	char buf[64];
	int rc = sop_store_at(r->t, "ints", SOP_STORE_CREATE, &ints, &s, r->e);

	if (!rc)
		rc = sop_store_at(r->t, "maps", SOP_STORE_CREATE, &maps, &j, r->e);
	for (int64_t i = 0; i < KEPT && !rc; i++) {
		struct sop_key key = sop_key_int(i), map = map_of(buf, i, "old");

		for (unsigned twice = 0; twice < 2 && !rc; twice++)
			rc = sop_kv_add(r->t, s, &key, "value", 5, NULL, r->e);
		if (!rc)
			rc = sop_kv_add(r->t, j, &map, "map", 3, NULL, r->e);
	}
	return rc;
}

/* Each way of adding; one value goes to a blob. */
int scenario_keys_add(struct run *r)
{
	static uint8_t large[9000];
	struct sop_key two = sop_key_int(2), none = sop_key_int(-5), map;
	struct sop_kv batch[3] = {{.key = sop_key_int(100), .val = "a", .len = 1},
		{.key = sop_key_int(100), .val = "b", .len = 1},
		{.key = sop_key_int(101), .val = large, .len = sizeof(large)}};
	uint64_t s, j;
	size_t done;
	char buf[64];
	int rc = scenario_store_of(r, "ints", &s);

	fill_random(large, sizeof(large), r->salt);
	if (!rc)
		rc = scenario_store_of(r, "maps", &j);
	if (!rc)
		rc = sop_kv_add(r->t, s, &two, "more", 4, NULL, r->e);
	if (!rc)
		rc = sop_kv_add_if_absent(r->t, s, &none, "new", 3, NULL, r->e);
	if (rc == 1)
		rc = sop_kv_batch(r->t, s, SOP_KV_ADD, batch, SOP_ARRAY_LEN(batch), &done, r->e);
	map = map_of(buf, (int64_t)(r->salt % 4), "upserted");
	if (!rc)
		rc = sop_kv_upsert(r->t, j, &map, large, 3000, r->e);
	return rc;
}

int scenario_keys_change(struct run *r)
{
	struct sop_key one = sop_key_int(1), three = sop_key_int(3), map, to;
	char buf[64], buf_to[64];
	struct sop_attr a;
	void *val = NULL;
	uint64_t s, j;
	size_t len;
	int rc = scenario_store_of(r, "ints", &s);

	if (!rc)
		rc = scenario_store_of(r, "maps", &j);
	if (!rc)
		rc = sop_kv_find(r->t, s, &one, 0, &a, r->e);
	if (!rc)
		rc = sop_kv_update(r->t, s, &one, a.ino, "changed", 7, r->e);
	if (!rc)
		rc = sop_kv_remove(r->t, s, &three, 0, r->e);
	map = map_of(buf, 4, "old");
	to = map_of(buf_to, 4, "new");
	if (!rc)
		rc = sop_kv_get(r->t, j, &map, 0, &val, &len, r->e);
	free(val);
	return rc ? rc : sop_kv_rekey(r->t, j, &map, 0, &to, r->e);
}

static int look(void *arg, const struct sop_kv_item *item)
{
	(void)item;
	++*(unsigned *)arg;
	return 0;
}

static int walk(struct run *r, struct sop_cursor *c)
{
	struct sop_key four = sop_key_int(4), at;
	void *val = NULL;
	size_t len;
	int rc = sop_cursor_seek_key(c, &four, false, r->e);

	if (rc == 1)
		rc = sop_cursor_get(c, &val, &len, r->e);
	free(val);
	if (!rc)
		rc = sop_cursor_typed(c, &at, r->e);
	if (!rc)
		rc = sop_cursor_update(c, "by cursor", 9, r->e);
	if (!rc)
		rc = sop_cursor_next(c, r->e);
	if (rc == 1)
		rc = sop_cursor_remove(c, r->e);
	if (!rc)
		rc = sop_cursor_last(c, r->e);
	if (rc == 1)
		rc = sop_cursor_prev(c, r->e);
	return rc < 0 ? rc : 0;
}

int scenario_keys_walk(struct run *r)
{
	struct sop_cursor *c;
	unsigned seen = 0;
	uint64_t s, n;
	int rc = scenario_store_of(r, "ints", &s);

	if (!rc)
		rc = sop_count(r->t, s, &n, r->e);
	if (!rc)
		rc = sop_kv_page(r->t, s, 1, 5, SOP_PAGE_VALUES, look, &seen, r->e);
	if (rc < 0)
		return rc;
	rc = sop_cursor_open(&c, r->t, s, r->e);
	if (rc)
		return rc;
	rc = walk(r, c);
	sop_cursor_close(c);
	return rc;
}

int scenario_keys_options(struct run *r)
{
	struct sop_store_opts o, had;
	char buf[SOP_STORE_INFO_BYTES];
	uint64_t j;
	int rc = scenario_store_of(r, "maps", &j);

	if (!rc)
		rc = sop_store_info(r->t, j, &had, buf, sizeof(buf), r->e);
	if (rc)
		return rc;
	o = (struct sop_store_opts){.note = "changed", .cache_class = SOP_CACHE_HOT};
	return sop_store_set(r->t, j, &o, SOP_STORE_NOTE | SOP_STORE_CACHE, r->e);
}

int scenario_keys_profile(struct fixture *f)
{
	struct sop_profile_opts o = {.name = "second"};
	struct sop_volume_stat st;

	/* As many may be missing as before. */
	sop_volume_stat(f->v, &st);
	o.k = st.k;
	o.m = st.m;
	return sop_profile_add(f->v, &o, &f->e);
}
