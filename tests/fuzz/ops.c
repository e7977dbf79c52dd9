/* Operations, with the items that they put: the payload of a journal record, or of a shared volume
 * the register of a slot, with the transactions of its batch. A register says itself which slot it
 * is of; elsewhere the name of its file does. An image names who is there. */
#include "core/engine.h"
#include "core/roster.h"
#include "core/slot_record.h"
#include "tests/fuzz/fuzz.h"

static int each(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct sop_item it;
	struct sop_extent x;
	struct sop_err e = {0};

	(void)arg;
	(void)flags;
	(void)sop_crc32c(0, key, klen);
	(void)sop_crc32c(0, val, vlen);
	if (type == SOP_OP_STORE_NEW && vlen)
		(void)sop_store_options_check(val, vlen, &e);
	if (type != SOP_OP_PUT)
		return 0;
	(void)sop_extent_decode(&x, key, klen, val, vlen, &e);
	(void)sop_item_decode(&it, val, vlen, &e);
	return store == 0;
}

static void batch(const struct sop_chain_record *r)
{
	const uint8_t *at = r->payload;
	size_t left = r->len;
	struct sop_slot_txn t;
	struct sop_err e = {0};

	while (left && !sop_slot_batch_next(&t, &at, &left)) {
		if (at + left != (const uint8_t *)r->payload + r->len)
			abort();
		(void)sop_ops_each(t.ops, t.len, each, NULL, &e);
	}
}

/* What was taken over is what is written again. */
static void roster(const struct sop_chain_record *r)
{
	struct sop_roster x = {0}, y = {0};
	struct sop_image image;
	void *again;
	size_t len;

	if (!sop_roster_decode_image(&image, r->payload, r->len) &&
		!sop_roster_decode(&x, r->payload, r->len)) {
		if (sop_roster_encode(&again, &len, &x, &image) || len != r->len ||
			sop_roster_decode(&y, again, len) || x.n != y.n ||
			(x.n && memcmp(x.mounter, y.mounter, x.n * sizeof(*x.mounter)) != 0))
			abort();
		free(again);
	}
	sop_roster_release(&x);
	sop_roster_release(&y);
}

static void record(uint8_t *raw, size_t size)
{
	struct sop_disk_commit h, again;
	struct sop_chain_record r;
	struct sop_uuid volume;

	memcpy(&h, raw, sizeof(h));
	h.payload = le32_make((uint32_t)(size - sizeof(h)));
	h.payload_crc = le32_make(sop_crc32c(0, raw + sizeof(h), size - sizeof(h)));
	memset(h.pad, 0, sizeof(h.pad));
	memcpy(raw, &h, sizeof(h));
	fuzz_seal(raw, sizeof(h), offsetof(struct sop_disk_commit, crc));
	memcpy(volume.b, h.volume_uuid, sizeof(volume.b));
	if (sop_slot_record_decode(&r, raw, size, &volume, le64_get(h.slot)))
		return;
	sop_slot_header_encode(&again, &r, &volume);
	if (memcmp(&again, raw, sizeof(again)) != 0)
		abort();
	if (r.type == SOP_SLOT_BATCH)
		batch(&r);
	else if (r.type == SOP_SLOT_IMAGE)
		roster(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, size);
	struct sop_err e = {0};

	if (size >= sizeof(struct sop_disk_commit) && !memcmp(raw, SOP_SLOT_MAGIC, 8))
		record(raw, size);
	else
		(void)sop_ops_each(raw, size, each, NULL, &e);
	free(raw);
	return 0;
}
