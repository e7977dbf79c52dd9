/* What a Redis server says: the answer to a script, as words with NULs between them; a message; and
 * the URL that says where it is, which a mount option gives. The first byte says which of them. */
#include "core/coord_own.h"
#include "tests/fuzz/fuzz.h"

#define WORDS 64

static void answer(enum sop_coord_op op, const char *text, size_t len)
{
	struct sop_coord_request r = {.op = op, .lock = {.object = 7}};
	const char *word[WORDS];
	size_t n = 0;
	int rc;

	for (size_t at = 0; at < len && n < WORDS; at += strlen(text + at) + 1)
		word[n++] = text + at;
	rc = sop_coord_decode(&r, word, n);
	if (rc > 0 || (!rc && r.expired_count > n) || r.member_count > n)
		abort();
	for (size_t i = 0; i < r.member_count; i++)
		if (!memchr(r.member[i].host, 0, sizeof(r.member[i].host)) ||
			!memchr(r.member[i].where, 0, sizeof(r.member[i].where)))
			abort();
	free(r.expired);
	free(r.member);
}

static void url(const char *text)
{
	struct sop_coord_url u;
	struct sop_err e = {0};
	char shown[SOP_COORD_TEXT];

	if (sop_coord_url_parse(&u, text, &e))
		return;
	sop_coord_url_show(&u, shown);
	if (!memchr(shown, 0, sizeof(shown)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = (char *)fuzz_block(data, size, size + 1);
	uint64_t tip, next, object;

	if (size && data[0] < SOP_COORD_OPS)
		answer((enum sop_coord_op)data[0], text + 1, size - 1);
	else if (size && data[0] == 'm')
		(void)sop_coord_decode_message(text + 1, &tip, &next, &object);
	else if (size)
		url(text + 1);
	free(text);
	return 0;
}
