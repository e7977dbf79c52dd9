#include "core/hex.h"

int sop_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *sop_hex_encode(const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *in = bytes;
	char *out = malloc(2 * len + 1);

	for (size_t i = 0; out && i < len; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	if (out)
		out[2 * len] = '\0';
	return out;
}

char *sop_hex_decode(const char *text, size_t text_len, size_t *len)
{
	char *out = text_len % 2 == 0 ? malloc(text_len / 2 + 1) : NULL;

	*len = text_len / 2;
	for (size_t i = 0; out && i < *len; i++) {
		int high = sop_hex_digit(text[2 * i]), low = sop_hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			free(out);
			return NULL;
		}
		out[i] = (char)(high << 4 | low);
	}
	if (out)
		out[*len] = '\0';
	return out;
}

ssize_t sop_percent_decode(char *out, size_t size, const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (c == '%') {
			int high = i + 2 < len ? sop_hex_digit(text[i + 1]) : -1;
			int low = i + 2 < len ? sop_hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (n == size)
			return -ENAMETOOLONG;
		out[n++] = c;
	}
	return (ssize_t)n;
}
