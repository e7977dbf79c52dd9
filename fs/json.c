#include "fs/json.h"

#include <stdio.h>

#include "core/base.h"
#include "core/hex.h"

static int set_hex(json_t *j, const char *key, const uint8_t *bytes, size_t len)
{
	sop_autofree char *hex = sop_hex_encode(bytes, len), *name = NULL;

	if (!hex || asprintf(&name, "%s_hex", key) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	return json_object_set_new(j, name, json_string(hex)) ? -ENOMEM : 0;
}

int sopfs_json_bytes(json_t *j, const char *key, const void *bytes, size_t len)
{
	json_t *text = len && memchr(bytes, 0, len) ? NULL : json_stringn(bytes, len);

	if (!text)
		return set_hex(j, key, bytes, len);
	return json_object_set_new(j, key, text) ? -ENOMEM : 0;
}

char *sopfs_json_bytes_text(const json_t *j, const char *key)
{
	const json_t *text = json_object_get(j, key);
	char name[64], *out;
	size_t len;

	if (json_is_string(text))
		return strdup(json_string_value(text));
	snprintf(name, sizeof(name), "%s_hex", key);
	text = json_object_get(j, name);
	if (!json_is_string(text))
		return NULL;
	out = sop_hex_decode(json_string_value(text), json_string_length(text), &len);
	if (out && strlen(out) == len)
		return out;
	free(out);
	return NULL;
}
