/* The commit chain on the member folders: core/slots.h with real registers, files in slots/ of each
 * member with the role REGISTRY. Who wants to know why it is so: core/SHARED.md.
 *
 * Each replica has a thread of its own for the calls on it, so that they run at once, and one that
 * hangs costs the disk timeout once: it is not asked again before it has come back. One call at a
 * time (the holder of the commit lock). */
#ifndef SOP_CHAIN_H
#define SOP_CHAIN_H

#include "core/members.h"
#include "core/roster.h"
#include "core/slot_record.h"

struct sop_chain;

/* make: the folder slots/ is made where it is missing. Threads are used unless `inline_io`. */
int sop_chain_new(struct sop_chain **out, struct sop_members *mem, bool inline_io, bool make,
	struct sop_err *e);
void sop_chain_free(struct sop_chain *c); /* NULL is fine */

/* Do the file systems below do what all of this rests on? A link(2) that fails when the name is
 * there, a lock that two cannot have. -EOPNOTSUPP: one does not, and which folder. Those that do
 * not answer are not asked. */
int sop_chain_probe(struct sop_chain *c, struct sop_err *e);

/* The payload of a record that comes out of a call is the chain's, until the second call after.
 *
 * What is in the slot: 1 and *out, or 0: nothing is. -ESTALE: it has been let go of. SOP_EDISKS:
 * too few replicas answer. SOP_ECORRUPT. */
int sop_chain_settle(
	struct sop_chain *c, uint64_t slot, struct sop_chain_record *out, struct sop_err *e);
/* The same, changing nothing: SOP_EDISKS too when it is not decided yet, and what it says is
 * perhaps not on the media yet. Unless `begun` says of the slot behind it that somebody has tried
 * to place something there: he had made sure of this one before. */
int sop_chain_look(struct sop_chain *c, uint64_t slot, struct sop_chain_record *out, bool *begun,
	struct sop_err *e);

/* Put the record there, or learn which one is: 1, *out, and *own whether it is this one. Errors as
 * above; *placed: it may be there all the same, now or later, and the call is to be repeated with
 * r->id. */
int sop_chain_propose(struct sop_chain *c, struct sop_chain_record *r, struct sop_chain_record *out,
	bool *own, bool *placed, struct sop_err *e);

/* Slots below the image's are needed by nobody, nor are images of lower ones; alone: nor is what
 * others may have left. 0 when a majority of replicas says so. */
int sop_chain_trim(
	struct sop_chain *c, const struct sop_image *floor, bool alone, struct sop_err *e);
/* The highest that anybody has trimmed to, slot 0: nobody has; lsn stays 0. SOP_EDISKS. */
int sop_chain_floor(struct sop_chain *c, struct sop_image *floor, struct sop_err *e);
/* An image's file, in the folder of each replica. */
#define SOP_CHAIN_PATH 64
void sop_chain_image_path(char path[SOP_CHAIN_PATH], const struct sop_image *image);

/* This mounter, in all its records: random. */
uint64_t sop_chain_who(const struct sop_chain *c);
/* From now until the chain is freed, or the process ends, others can see that it lives. */
int sop_chain_enter(struct sop_chain *c, struct sop_err *e);
/* Has it ended? False too when that is not known. */
bool sop_chain_dead(struct sop_chain *c, uint64_t who);

#endif
