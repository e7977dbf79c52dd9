/* What changes of a record, and what it changes from: the value of an operation EDIT. A small
 * change of an item with a long inline run so costs the journal the change and not the run.
 *
 * It holds for one record alone, which its length, version and checksum name: applied to any other
 * it is refused, and applied to that one it gives the same bytes always. Pure: no state, any
 * thread. */
#ifndef SOP_EDIT_H
#define SOP_EDIT_H

#include "core/item.h"

struct sop_edit {
	uint64_t version; /* of the record that it applies to */
	uint32_t crc, len;
	/* Where that lies, when not under the operation's own key: key_len is 0 then. */
	uint64_t store;
	const uint8_t *key;
	size_t key_len;
	const uint8_t *steps;
	size_t steps_len;
};

/* From one record of an item to another. to->key_len 0: under the same key; of `to` the place alone
 * counts. At most `room` bytes; the number, 0: it does not fit, or one of them is no record. */
size_t sop_edit_encode(uint8_t *raw, size_t room, const struct sop_edit *to, const void *from,
	size_t from_len, const void *rec, size_t rec_len);
/* key and steps point into raw. SOP_ECORRUPT. */
int sop_edit_decode(struct sop_edit *x, const void *raw, size_t len, struct sop_err *e);
/* The new record, of SOP_ITEM_BYTES_MAX bytes at most; its length. SOP_ECORRUPT: `from` is not the
 * record that it was made for, or what comes out is none. */
int sop_edit_apply(
	uint8_t *rec, const struct sop_edit *x, const void *from, size_t len, struct sop_err *e);

#endif
