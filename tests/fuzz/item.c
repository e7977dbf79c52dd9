#include "core/item.h"
#include "tests/fuzz/fuzz.h"

static void same(const struct sop_item *it)
{
	uint8_t a[SOP_ITEM_BYTES_MAX], b[SOP_ITEM_BYTES_MAX];
	struct sop_item again;
	struct sop_err e = {0};
	int n = sop_item_encode(a, it), m;

	if (n < 0) /* a decoder takes longer forms of numbers than the encoder makes, and no more */
		return;
	if (sop_item_decode(&again, a, (size_t)n, &e))
		abort();
	m = sop_item_encode(b, &again);
	if (n != m || memcmp(a, b, (size_t)n))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, size);
	struct sop_item it;
	struct sop_attr attr;
	struct sop_err e = {0};
	bool link;
	int whole = sop_item_decode(&it, raw, size, &e);

	/* The short way takes all that the long one does. */
	if (sop_item_decode_attr(&attr, &link, raw, size, &e) && !whole)
		abort();
	if (!whole)
		same(&it);
	free(raw);
	return 0;
}
