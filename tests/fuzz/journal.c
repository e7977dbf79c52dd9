/* A journal file: its header, then records, each made to follow the one before. */
#include "core/journal.h"
#include "core/journal_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *head = fuzz_block(data, size, SOP_JOURNAL_HEADER), *p, *raw;
	struct sop_journal_header h;
	struct sop_record_out rec;
	struct sop_err e = {0};
	uint32_t chain = 0;
	size_t left, len;

	fuzz_seal(head, SOP_JOURNAL_HEADER, offsetof(struct sop_disk_journal, crc));
	if (!sop_journal_header_decode(&h, head, &e))
		chain = h.chain;
	free(head);
	/* The header is short in the corpus: its tail is zeros. */
	left = size > 128 ? size - 128 : 0;
	raw = p = fuzz_block(data + size - left, left, left);
	while (left) {
		struct sop_disk_record *r = (struct sop_disk_record *)p;

		if (left >= sizeof(*r)) {
			r->magic = le32_make(SOP_RECORD_MAGIC);
			r->prev_crc = le32_make(chain);
			len = le32_get(r->len);
			if (len >= sizeof(*r) && len <= left)
				fuzz_seal(p, len, offsetof(struct sop_disk_record, crc));
		}
		if (sop_record_check(p, left, chain, &rec, &chain, &len, &e))
			break;
		/* The payload is where it says, and all of it can be read. */
		(void)sop_crc32c(0, rec.payload, rec.payload_len);
		p += len;
		left -= len;
	}
	free(raw);
	return 0;
}
