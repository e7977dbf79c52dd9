#include "core/checkpoint_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, size);
	const struct sop_disk_checkpoint *h = (const void *)raw;
	struct sop_checkpoint a, b;
	struct sop_uuid volume = {{0}};
	struct sop_err e = {0};
	size_t len;
	void *again;

	fuzz_seal(raw, size, offsetof(struct sop_disk_checkpoint, crc));
	if (size >= sizeof(*h))
		memcpy(volume.b, h->volume_uuid, sizeof(volume.b));
	if (!sop_checkpoint_decode(&a, raw, size, &volume, &e)) {
		if (sop_checkpoint_encode(&again, &len, &a, &volume, &e) || len != size ||
			sop_checkpoint_decode(&b, again, len, &volume, &e))
			abort();
		sop_checkpoint_release(&a);
		sop_checkpoint_release(&b);
		free(again);
	}
	free(raw);
	return 0;
}
