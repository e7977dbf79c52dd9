#include "core/id.h"

#include <stdio.h>
#include <sys/random.h>

#include "core/hex.h"

/* 0, or -errno when the kernel has no random bytes to give. */
static int random_bytes(void *buf, size_t len_bytes)
{
	uint8_t *p = buf;

	while (len_bytes) {
		ssize_t got = getrandom(p, len_bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		p += got;
		len_bytes -= (size_t)got;
	}
	return 0;
}

void sop_random(void *buf, size_t len_bytes)
{
	/* getrandom() with a valid buffer fails on kernels without the call alone, and those are
	 * too old for everything else here. Going on with predictable bytes would be worse than to
	 * stop. */
	if (random_bytes(buf, len_bytes))
		abort();
}

int sop_uuid_new(struct sop_uuid *out, struct sop_err *e)
{
	int rc = random_bytes(out->b, sizeof(out->b));

	if (rc)
		return sop_fail(e, rc, "random bytes for a UUID");
	out->b[6] = (uint8_t)((out->b[6] & 0x0f) | 0x40); /* version 4 */
	out->b[8] = (uint8_t)((out->b[8] & 0x3f) | 0x80); /* RFC 4122 variant */
	return 0;
}

/* A dash stands before bytes 4, 6, 8 and 10. */
static bool dash_before(size_t byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

char *sop_uuid_format(char *text, const struct sop_uuid *id)
{
	static const char digits[] = "0123456789abcdef";
	char *p = text;

	for (size_t i = 0; i < sizeof(id->b); i++) {
		if (dash_before(i))
			*p++ = '-';
		*p++ = digits[id->b[i] >> 4];
		*p++ = digits[id->b[i] & 15];
	}
	*p = '\0';
	return text;
}

int sop_uuid_parse(struct sop_uuid *out, const char *text)
{
	struct sop_uuid id;

	for (size_t i = 0; i < sizeof(id.b); i++) {
		int high, low;

		if (dash_before(i) && *text++ != '-')
			return -EINVAL;
		high = sop_hex_digit(text[0]);
		low = high < 0 ? -1 : sop_hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		id.b[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	*out = id;
	return 0;
}

bool sop_uuid_equal(const struct sop_uuid *a, const struct sop_uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
