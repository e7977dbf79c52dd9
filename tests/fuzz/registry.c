#include "core/registry.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, SOP_REGISTRY_BLOCK);
	const struct sop_disk_registry_block *b = (const void *)raw;
	struct sop_uuid volume;
	struct sop_err e = {0};

	fuzz_seal(raw, SOP_REGISTRY_BLOCK, offsetof(struct sop_disk_registry_block, crc));
	memcpy(volume.b, b->volume_uuid, sizeof(volume.b));
	if (!sop_registry_block_check(raw, &volume, le32_get(b->file), le32_get(b->block), &e) &&
		!sop_registry_block_check(
			raw, &volume, le32_get(b->file) + 1, le32_get(b->block), &e))
		abort();
	free(raw);
	return 0;
}
