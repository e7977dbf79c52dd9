/* The payload of a journal record: operations, with the items that they put. */
#include "core/engine.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *raw = fuzz_block(data, size, size);
	struct sop_err e = {0};

	(void)sop_ops_each(raw, size, each, NULL, &e);
	free(raw);
	return 0;
}
