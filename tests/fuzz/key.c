/* Options of a store with the index in them, an index as text, and keys by name and as in a tree.
 * Input: key type and whether there are duplicates, the length of an index, the index, a key. */
#include "core/engine.h"
#include "core/keying.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

static void want(bool ok)
{
	if (!ok)
		abort();
}

/* Text that is accepted is written again, and reads back the same. */
static void index_text(const char *text)
{
	struct sop_index_field f[SOP_INDEX_FIELDS], g[SOP_INDEX_FIELDS];
	char buf[300], again[2048], buf2[2048];
	struct sop_err e = {0};
	int n = sop_index_parse(f, SOP_INDEX_FIELDS, text, buf, sizeof(buf), &e), len;

	if (n < 0)
		return;
	len = sop_index_format(again, sizeof(again), f, (size_t)n);
	want(len > 0 && (size_t)len < sizeof(again));
	want(sop_index_parse(g, SOP_INDEX_FIELDS, again, buf2, sizeof(buf2), &e) == n);
	for (int i = 0; i < n; i++)
		want(!strcmp(f[i].name, g[i].name) && f[i].descending == g[i].descending &&
			f[i].type == g[i].type);
}

/* The name of a key is the key's: it leads back to the same bytes. */
static void name_of(const struct sop_keying *k, const struct sop_keybuf *b)
{
	char name[SOP_KEY_NAME_MAX];
	struct sop_keybuf again;
	struct sop_err e = {0};
	int n = sop_key_name(
		name, k, b->key, b->len, b->text_len ? b->text : NULL, b->text_len, &e);

	want(n >= 0);
	if (!k)
		return;
	if (sop_key_name_encode(&again, k, name, (size_t)n, &e))
		return; /* a key that no name can have: "." */
	want(again.len == b->len && !memcmp(again.key, b->key, b->len));
	want(again.text_len == b->text_len && !memcmp(again.text, b->text, b->text_len));
}

static void keys(const struct sop_keying *k, const uint8_t *p, size_t len)
{
	char text[SOP_KEY_TEXT_MAX + 1], name[SOP_KEY_NAME_MAX];
	struct sop_keybuf b = {0};
	struct sop_key key = {0};
	struct sop_err e = {0};

	if (k && !sop_key_name_encode(&b, k, (const char *)p, len, &e))
		name_of(k, &b);
	key.type = k ? k->type : SOP_KEY_BYTES;
	key.p = p;
	key.len = len;
	if (key.type != SOP_KEY_INT64 && key.type != SOP_KEY_FLOAT64 &&
		!sop_key_encode(&b, k, &key, &e) &&
		(!k || !k->duplicates || !sop_keybuf_number(&b, 1, &e)))
		name_of(k, &b);
	/* Whatever a tree holds. */
	(void)sop_key_decode(&key, k, p, len, NULL, 0, text, &e);
	(void)sop_key_name(name, k, p, len, NULL, 0, &e);
	(void)sop_key_name(name, k, p, len, text, 0, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sop_disk_store_options o = {.version = 1};
	sop_autokeying struct sop_keying *k = NULL;
	struct sop_err e = {0};
	size_t n, len;
	uint8_t *raw;

	if (size < 2)
		return 0;
	o.key_type = data[0] & 7;
	o.flags = data[0] >> 3 & 1;
	n = SOP_MIN((size_t)data[1], size - 2);
	o.index_len = le16_make((uint16_t)n);
	len = sizeof(o) + n;
	raw = fuzz_block(NULL, 0, len + 1);
	memcpy(raw, &o, sizeof(o));
	memcpy(raw + sizeof(o), data + 2, n);
	index_text((const char *)raw + sizeof(o));
	if (!sop_store_options_check(raw, len, &e) && !sop_keying_new(&k, raw, len, &e)) {
		uint8_t *key = fuzz_block(data + 2 + n, size - 2 - n, size - 2 - n);

		/* A map without an index gets one from its first key. */
		if (!k || k->type != SOP_KEY_JSON || k->n_fields ||
			!sop_json_first(k, (const char *)key, size - 2 - n, &e))
			keys(k, key, size - 2 - n);
		free(key);
	}
	free(raw);
	return 0;
}
