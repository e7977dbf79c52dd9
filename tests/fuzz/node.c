#include "core/node.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, size), *again;
	struct le32 bytes = le32_make((uint32_t)size);
	struct sop_page *page;
	struct sop_err e = {0};
	uint64_t lsn;

	if (size >= sizeof(struct sop_disk_node))
		memcpy(raw + offsetof(struct sop_disk_node, bytes), &bytes, sizeof(bytes));
	if (!sop_page_decode(&page, raw, size, &lsn, &e)) {
		if (sop_page_bytes(page) != size)
			abort();
		again = fuzz_block(NULL, 0, size);
		sop_page_encode(page, again, lsn,
			((const struct sop_disk_node *)(const void *)raw)->flags & 1);
		/* Padding apart, it is the same. */
		if (memcmp(again, raw, offsetof(struct sop_disk_node, pad)) ||
			memcmp(again + sizeof(struct sop_disk_node),
				raw + sizeof(struct sop_disk_node),
				size - sizeof(struct sop_disk_node)))
			abort();
		free(again);
		sop_page_free(page);
	}
	free(raw);
	return 0;
}
