#include "core/segment_int.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, sizeof(struct sop_disk_shard));
	const struct sop_disk_shard *h = (const void *)raw;
	struct sop_segment_info info;
	struct sop_uuid volume;
	struct sop_err e = {0};

	fuzz_seal(raw, sizeof(*h), offsetof(struct sop_disk_shard, crc));
	memcpy(volume.b, h->volume_uuid, sizeof(volume.b));
	if (!sop_shard_header_decode(&info, h, &volume, le64_get(h->segment), h->shard,
		    le16_get(h->disks[h->shard % SOP_EC_MAX]), &e) &&
		(!info.k || info.k + info.m > SOP_EC_MAX))
		abort();
	free(raw);
	return 0;
}
