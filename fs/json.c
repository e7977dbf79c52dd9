#include "fs/json.h"

#include <stdio.h>

#include "core/base.h"

static int set_hex(json_t *j, const char *key, const uint8_t *bytes, size_t len)
{
	sop_autofree char *hex = malloc(2 * len + 1), *name = NULL;

	if (!hex || asprintf(&name, "%s_hex", key) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	hex[2 * len] = '\0';
	return json_object_set_new(j, name, json_string(hex)) ? -ENOMEM : 0;
}

int sopfs_json_bytes(json_t *j, const char *key, const void *bytes, size_t len)
{
	json_t *text = len && memchr(bytes, 0, len) ? NULL : json_stringn(bytes, len);

	if (!text)
		return set_hex(j, key, bytes, len);
	return json_object_set_new(j, key, text) ? -ENOMEM : 0;
}
