/* Operations, with the items that they put: the payload of a journal record, or of a shared volume
 * the register of a slot, with the transactions of its batch. A register says itself which slot it
 * is of; elsewhere the name of its file does. An image names who is there. */
#include "core/edit.h"
#include "core/engine.h"
#include "core/roster.h"
#include "core/slot_record.h"
#include "tests/fuzz/fuzz.h"

/* The last item met. */
struct last {
	uint8_t rec[SOP_ITEM_BYTES_MAX];
	size_t len;
};

/* What changes the one into the other is found, and changes it into that. */
static void change(const struct last *from, const uint8_t *rec, size_t len)
{
	const struct sop_edit to = {.store = 7, .key = rec, .key_len = len & 15};
	uint8_t raw[2 * SOP_ITEM_BYTES_MAX], got[SOP_ITEM_BYTES_MAX];
	size_t n = sop_edit_encode(raw, sizeof(raw), &to, from->rec, from->len, rec, len);
	struct sop_edit x;

	if (n && (sop_edit_decode(&x, raw, n, NULL) ||
			 sop_edit_apply(got, &x, from->rec, from->len, NULL) != (int)len ||
			 memcmp(got, rec, len) != 0))
		abort();
}

/* As if it were made for the last item. */
static void edit(struct last *last, const uint8_t *val, size_t vlen)
{
	uint8_t got[SOP_ITEM_BYTES_MAX];
	struct sop_edit x;
	struct sop_item it;
	int n;

	if (sop_edit_decode(&x, val, vlen, NULL) ||
		sop_item_decode(&it, last->rec, last->len, NULL))
		return;
	(void)sop_crc32c(0, x.key, x.key_len);
	if (sop_edit_apply(got, &x, last->rec, last->len, NULL) >= 0 &&
		x.version != it.attr.version)
		abort();
	x.version = it.attr.version;
	x.len = (uint32_t)last->len;
	x.crc = sop_crc32c(0, last->rec, last->len);
	n = sop_edit_apply(got, &x, last->rec, last->len, NULL);
	if (n < 0)
		return;
	if (sop_item_decode(&it, got, (size_t)n, NULL))
		abort();
	change(last, got, (size_t)n);
	memcpy(last->rec, got, (size_t)n);
	last->len = (size_t)n;
}

static int each(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct last *last = arg;
	struct sop_item it;
	struct sop_extent x;
	struct sop_err e = {0};

	(void)flags;
	(void)sop_crc32c(0, key, klen);
	(void)sop_crc32c(0, val, vlen);
	if (type == SOP_OP_STORE_NEW && vlen)
		(void)sop_store_options_check(val, vlen, &e);
	if (type == SOP_OP_EDIT)
		edit(last, val, vlen);
	if (type != SOP_OP_PUT)
		return 0;
	(void)sop_extent_decode(&x, key, klen, val, vlen, &e);
	if (!sop_item_decode(&it, val, vlen, &e) && vlen <= sizeof(last->rec)) {
		change(last, val, vlen);
		memcpy(last->rec, val, vlen);
		last->len = vlen;
	}
	return store == 0;
}

static void batch(const struct sop_chain_record *r)
{
	const uint8_t *at = r->payload;
	size_t left = r->len;
	struct sop_slot_txn t;
	struct last last = {.len = 0};
	struct sop_err e = {0};

	while (left && !sop_slot_batch_next(&t, &at, &left)) {
		if (at + left != (const uint8_t *)r->payload + r->len)
			abort();
		(void)sop_ops_each(t.ops, t.len, each, &last, &e);
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
	struct last last = {.len = 0};
	struct sop_err e = {0};

	if (size >= sizeof(struct sop_disk_commit) && !memcmp(raw, SOP_SLOT_MAGIC, 8))
		record(raw, size);
	else
		(void)sop_ops_each(raw, size, each, &last, &e);
	free(raw);
	return 0;
}
