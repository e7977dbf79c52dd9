/* The bytes of commit slots: records, and the transactions in a batch (DISK-FORMAT.md, section
 * 24). Pure: what is given is checked, and nothing else is touched. SOP_ECORRUPT: it is not
 * what it should be, or is of another volume or slot. */
#ifndef SOP_SLOT_RECORD_H
#define SOP_SLOT_RECORD_H

#include "core/format.h"
#include "core/id.h"
#include "core/slots.h"

#define SOP_SLOT_RECORD_MAX (1u << 30) /* bytes of a payload */

/* payload: the caller's going in; points into what was decoded coming out. */
struct sop_chain_record {
	struct sop_slot_id
		id; /* going in: zeros, or what the call before with the same record gave */
	uint64_t slot, epoch, base, next_ino;
	uint8_t type; /* enum sop_slot_type */
	const void *payload;
	size_t len;
};

/* The header alone; the payload follows it. r->len is SOP_SLOT_RECORD_MAX at most. */
void sop_slot_header_encode(struct sop_disk_commit *out, const struct sop_chain_record *r,
	const struct sop_uuid *volume);
/* The header alone, of a file whose payload is not looked at: r->payload is NULL. */
int sop_slot_header_decode(struct sop_chain_record *r, const struct sop_disk_commit *h,
	const struct sop_uuid *volume, uint64_t slot);
/* The whole file of a register. */
int sop_slot_record_decode(struct sop_chain_record *r, const void *raw, size_t len,
	const struct sop_uuid *volume, uint64_t slot);

struct sop_slot_txn {
	uint64_t lsn, time_ns;
	const void *ops; /* as sop_ops_each() takes them */
	uint32_t len;
};
/* The transaction that *at begins with; *at and *left (not 0) move on to the next. */
int sop_slot_batch_next(struct sop_slot_txn *out, const uint8_t **at, size_t *left);

#endif
