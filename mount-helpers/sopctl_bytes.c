/* Bytes out of JSON, which holds text. */
#include <stdio.h>

#include "core/hex.h"
#include "mount-helpers/sopctl.h"

static int base64_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* With or without the = at its end. */
static char *of_base64(const char *text, size_t text_len, size_t *len)
{
	char *out = malloc(text_len + 1);
	unsigned bits = 0, held = 0;

	while (text_len && text[text_len - 1] == '=')
		text_len--;
	*len = 0;
	for (size_t i = 0; out && i < text_len; i++) {
		int digit = base64_digit(text[i]);

		if (digit < 0) {
			free(out);
			return NULL;
		}
		held = held << 6 | (unsigned)digit;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[(*len)++] = (char)(held >> bits & 255);
		}
	}
	if (out)
		out[*len] = '\0';
	return out;
}

char *sopctl_bytes(const json_t *j, const char *key, size_t *len)
{
	static const struct {
		const char *suffix;
		char *(*decode)(const char *text, size_t text_len, size_t *len);
	} forms[] = {{"_hex", sop_hex_decode}, {"_base64", of_base64}};
	const json_t *text = json_object_get(j, key);
	char name[64], *out;

	if (json_is_string(text)) {
		*len = json_string_length(text);
		out = malloc(*len + 1);
		if (out)
			memcpy(out, json_string_value(text), *len + 1);
		return out;
	}
	for (size_t i = 0; !text && i < SOP_ARRAY_LEN(forms); i++) {
		snprintf(name, sizeof(name), "%s%s", key, forms[i].suffix);
		text = json_object_get(j, name);
		if (json_is_string(text))
			return forms[i].decode(
				json_string_value(text), json_string_length(text), len);
	}
	return NULL;
}

void sopctl_set_text(json_t *j, const char *key, const char *text)
{
	sop_autofree char *hex = NULL;
	char name[64];

	if (!json_object_set_new(j, key, json_string(text)))
		return;
	hex = sop_hex_encode(text, strlen(text));
	snprintf(name, sizeof(name), "%s_hex", key);
	json_object_set_new(j, name, hex ? json_string(hex) : NULL);
}
