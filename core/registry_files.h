/* Files of the registry on its replicas: opened once, kept open. Private to registry_block.c and
 * registry_files.c.
 *
 * Threads: any; the flags of a file are for whoever writes, one at a time. */
#ifndef SOP_REGISTRY_FILES_H
#define SOP_REGISTRY_FILES_H

#include "core/lock.h"
#include "core/registry_block.h"

struct sop_regfile {
	struct sop_regfile *next;
	unsigned member;
	uint32_t file;
	struct sop_file *f;
	uint64_t size; /* as of opening */
	bool writable;
	bool unsynced; /* what was written is perhaps not on the media: by us, or before we opened
			  it */
	bool unnamed;  /* its name in the folder is not synced */
	uint8_t *reserved; /* bit b: block b has its room; NULL: none known */
};

#define SOP_REGFILE_BUCKETS 256u

struct sop_regblocks {
	struct sop_members *mem;
	struct sop_iopool *io;
	uint32_t hashmod;
	struct sop_uuid volume;
	struct sop_lock lock; /* REGISTRY; the table of files, prefer */
	struct sop_regfile *bucket[SOP_REGFILE_BUCKETS];
	struct sop_regfile *retired; /* replaced after their disk was, open until the end */
	unsigned prefer;	     /* the member that answered last */
	uint64_t shun_until[SOP_MEMBERS_MAX]; /* came late: monotonic ms */
};

/* The open file of a member; -ENOENT when it is not there (create: it is made then). */
int sop_regfile_get(struct sop_regblocks *b, unsigned member, uint32_t file, bool create,
	struct sop_regfile **out);

static inline uint64_t sop_regplace_offset(struct sop_regplace at)
{
	return (uint64_t)at.block * SOP_REGISTRY_PAIR;
}

#endif
