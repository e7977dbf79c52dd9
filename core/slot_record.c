#include "core/slot_record.h"

#include "core/ec.h"

static uint32_t commit_crc(const struct sop_disk_commit *h)
{
	return sop_crc32c_own(h, sizeof(*h), offsetof(struct sop_disk_commit, crc));
}

void sop_slot_header_encode(struct sop_disk_commit *out, const struct sop_chain_record *r,
	const struct sop_uuid *volume)
{
	*out = (struct sop_disk_commit){.version = le32_make(SOP_FORMAT_VERSION),
		.slot = le64_make(r->slot),
		.who = le64_make(r->id.who),
		.seq = le64_make(r->id.seq),
		.epoch = le64_make(r->epoch),
		.base = le64_make(r->base),
		.next_ino = le64_make(r->next_ino),
		.payload = le32_make((uint32_t)r->len),
		.payload_crc = le32_make(sop_crc32c(0, r->payload, r->len)),
		.type = r->type};
	memcpy(out->magic, SOP_SLOT_MAGIC, sizeof(out->magic));
	memcpy(out->volume_uuid, volume->b, sizeof(out->volume_uuid));
	out->crc = le32_make(commit_crc(out));
}

int sop_slot_header_decode(struct sop_chain_record *r, const struct sop_disk_commit *h,
	const struct sop_uuid *volume, uint64_t slot)
{
	if (memcmp(h->magic, SOP_SLOT_MAGIC, sizeof(h->magic)) != 0 ||
		le32_get(h->version) != SOP_FORMAT_VERSION || le32_get(h->crc) != commit_crc(h) ||
		memcmp(h->volume_uuid, volume->b, sizeof(h->volume_uuid)) != 0 ||
		le64_get(h->slot) != slot || h->type > SOP_SLOT_FENCE)
		return SOP_ECORRUPT;
	*r = (struct sop_chain_record){.id = {le64_get(h->who), le64_get(h->seq)},
		.slot = slot,
		.epoch = le64_get(h->epoch),
		.base = le64_get(h->base),
		.next_ino = le64_get(h->next_ino),
		.type = h->type,
		.len = le32_get(h->payload)};
	return (r->type == SOP_SLOT_NIL) == (!r->id.who && !r->id.seq) &&
			       r->len <= SOP_SLOT_RECORD_MAX
		       ? 0
		       : SOP_ECORRUPT;
}

int sop_slot_record_decode(struct sop_chain_record *r, const void *raw, size_t len,
	const struct sop_uuid *volume, uint64_t slot)
{
	struct sop_disk_commit h;
	int rc;

	if (len < sizeof(h))
		return SOP_ECORRUPT;
	memcpy(&h, raw, sizeof(h));
	rc = sop_slot_header_decode(r, &h, volume, slot);
	if (rc)
		return rc;
	r->payload = (const uint8_t *)raw + sizeof(h);
	return r->len == len - sizeof(h) &&
			       le32_get(h.payload_crc) == sop_crc32c(0, r->payload, r->len)
		       ? 0
		       : SOP_ECORRUPT;
}

int sop_slot_batch_next(struct sop_slot_txn *out, const uint8_t **at, size_t *left)
{
	struct sop_disk_commit_txn h;
	size_t all;

	if (*left < sizeof(h))
		return SOP_ECORRUPT;
	memcpy(&h, *at, sizeof(h));
	all = sop_round_up(sizeof(h) + le32_get(h.len), 8);
	if (all > *left)
		return SOP_ECORRUPT;
	*out = (struct sop_slot_txn){.lsn = le64_get(h.lsn),
		.time_ns = le64_get(h.time_ns),
		.ops = *at + sizeof(h),
		.len = le32_get(h.len)};
	*at += all;
	*left -= all;
	return 0;
}
