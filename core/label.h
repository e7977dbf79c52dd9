/* The label of a member folder: who it is and who else belongs to the volume. Pure codec, plus load
 * and store on a disk. Two copies, written one after the other, each fsynced: one is always whole.
 */
#ifndef SOP_LABEL_H
#define SOP_LABEL_H

#include "core/disk.h"
#include "core/format.h"
#include "core/id.h"

struct sop_member {
	struct sop_uuid uuid;
	uint8_t role;  /* enum sop_member_role bits; 0: unused slot */
	uint8_t state; /* enum sop_member_state */
	uint8_t flags; /* enum sop_member_flags */
	uint16_t to;   /* DRAINING: 1 + the member that takes its content; 0: the others */
	uint64_t current_since;
	char path[SOP_MEMBER_PATH];
};

#define SOP_PROFILE_NO_REPAIR 1 /* flags */

struct sop_profile {
	char name[SOP_PROFILE_NAME];
	uint8_t k, m, flags;
	uint8_t disks[SOP_PROFILE_DISKS];
};

struct sop_label {
	struct sop_uuid volume_uuid;
	struct sop_uuid disk_uuid;
	uint64_t incompat, ro_compat;
	uint64_t generation;
	uint64_t created_ns;
	uint16_t index;
	uint16_t members;
	uint16_t profiles;
	uint16_t flags;
	uint32_t hashmod;
	uint32_t node_bytes;
	char name[SOP_VOLUME_NAME];
	struct sop_profile profile[SOP_PROFILES_MAX];
	struct sop_member member[SOP_MEMBERS_MAX];
};

/* raw: SOP_LABEL_SIZE bytes. decode: SOP_ENOTVOLUME (no magic), SOP_EVERSION (newer; says which
 * version is needed), SOP_ECORRUPT. Never reads past raw; checks every count, index and string end.
 */
void sop_label_encode(void *raw, const struct sop_label *l);
int sop_label_decode(struct sop_label *out, const void *raw, size_t len, struct sop_err *e);

/* One of the two copies, as it is. */
struct sop_label_copy {
	int rc;	  /* of reading or decoding it; -ENOENT: not there */
	bool crc; /* its checksum holds */
	struct sop_label label;
	struct sop_err e;
};
#define SOP_LABEL_COPIES 2
const char *sop_label_path(unsigned which);
void sop_label_copy_load(struct sop_label_copy *out, struct sop_disk *d, unsigned which);

/* The newer whole copy of the two. SOP_ENOTVOLUME when neither file is there. */
int sop_label_load(struct sop_label *out, struct sop_disk *d, struct sop_err *e);
/* How many of the two copies are not whole. */
unsigned sop_label_bad_copies(struct sop_disk *d);
int sop_label_store(struct sop_disk *d, const struct sop_label *l, struct sop_err *e);

#endif
