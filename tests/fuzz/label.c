#include "core/label.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, SOP_LABEL_SIZE), *again;
	static struct sop_label a, b;
	struct sop_err e = {0};

	fuzz_seal(raw, SOP_LABEL_SIZE, offsetof(struct sop_disk_label, crc));
	if (!sop_label_decode(&a, raw, SOP_LABEL_SIZE, &e)) {
		again = fuzz_block(NULL, 0, SOP_LABEL_SIZE);
		sop_label_encode(again, &a);
		if (sop_label_decode(&b, again, SOP_LABEL_SIZE, &e))
			abort();
		free(again);
	}
	(void)sop_label_decode(&a, raw, SOP_MIN(size, (size_t)SOP_LABEL_SIZE), &e);
	free(raw);
	return 0;
}
