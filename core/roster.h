/* Who has a shared volume mounted, and what he may still need: as the chain of slots says it, and
 * nothing else. Every mounter applies the same records in the same order, so all come to the same
 * roster at the same slot; what follows from it ("nobody needs the slots below", "nobody sees what
 * was freed up to this LSN") stays true for ever, whoever finds it, and however late he acts on it.
 *
 *   image     the checkpoint of one mounter, brought to all replicas as a file of its own that is
 *             never changed: where a mounter that enters begins. The first is the base.
 *   newest    the last image that was placed in the chain
 *   floor     the last that all who are there have seen: who enters begins at it, the slots below
 * it are needed by nobody pin       of a mounter: none of its readers looks at anything older, now
 * or later
 *
 * Pure: no I/O, no clock. The caller (shared.c) holds the commit lock. */
#ifndef SOP_ROSTER_H
#define SOP_ROSTER_H

#include "core/base.h"

#define SOP_ROSTER_MOUNTS 4095u /* MOUNT records behind one base, at most */

struct sop_image {
	uint64_t slot;	 /* the first that is not in it */
	uint64_t lsn;	 /* the last that is */
	uint64_t who;	 /* made it; 0: it is the base */
	uint32_t number; /* his */
};

struct sop_mounted {
	uint64_t who;
	uint64_t
		image; /* LSN of the one it began with: it may read its nodes as long as it lives */
	uint32_t maker; /* of that: his number */
	uint64_t seen;	/* slot of the newest image that it knows of */
	uint64_t pin;
	uint32_t number; /* of its MOUNT record */
};

struct sop_roster {
	struct sop_image floor, newest;
	struct sop_mounted *mounter; /* those that are there, in the order of their numbers */
	size_t n, cap;
	uint32_t mounts; /* MOUNT records since the base */
	bool known;	 /* false: behind an image, and its record has not been met yet */
};

void sop_roster_release(struct sop_roster *r);
/* Begin behind an image. known: it is the base, or nobody is asked about (alone, a look). */
void sop_roster_begin(struct sop_roster *r, const struct sop_image *image, bool known);

/* What a record does. -ENOMEM. lsn: the last one before it. */
int sop_roster_mount(struct sop_roster *r, uint64_t who, uint64_t lsn);
void sop_roster_seen(struct sop_roster *r, uint64_t who, uint64_t slot, uint64_t pin);
/* One that has left, or is fenced. */
void sop_roster_gone(struct sop_roster *r, uint64_t who);
/* May an image of this slot be placed now? Only one that is newer than the newest, and when that
 * has become the floor. */
bool sop_roster_may_image(const struct sop_roster *r, uint64_t slot);
void sop_roster_image(struct sop_roster *r, const struct sop_image *image);

/* NULL: is not there. */
const struct sop_mounted *sop_roster_find(const struct sop_roster *r, uint64_t who);
/* How many of those who are there entered before it. */
size_t sop_roster_rank(const struct sop_roster *r, uint64_t who);
/* No reader of anybody looks at anything older. 0: not known. */
uint64_t sop_roster_pin(const struct sop_roster *r);
/* May anybody, now or later, read an image whose LSN is from `from` to `to`? */
bool sop_roster_imaged(const struct sop_roster *r, uint64_t from, uint64_t to);

/* Is the mounter of this number there, or may anybody read an image of his? One that is not met yet
 * may have entered, and committed, in the slots that follow. */
bool sop_roster_needs(const struct sop_roster *r, uint32_t number);

/* As it goes into the record of an image, for those who begin behind that. *raw malloc'ed. decode:
 * SOP_ECORRUPT, and r as it was. */
int sop_roster_encode(
	void **raw, size_t *len, const struct sop_roster *r, const struct sop_image *image);
int sop_roster_decode_image(struct sop_image *out, const void *raw, size_t len);
int sop_roster_decode(struct sop_roster *r, const void *raw, size_t len);

#endif
