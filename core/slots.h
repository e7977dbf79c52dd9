/* The commit chain of a shared volume: which record is in slot n, agreed on by any number of
 * mounters that know nothing of each other, over write-once registers on the registry replicas.
 *
 * Slot n has rounds 0, 1, ...; each replica has one register for each slot and round: a file that
 * comes into being whole, by an exclusive link, and is never changed (chain.c). Round r of slot n
 * has an arbiter, replica (n + r) % replicas. Rules (why they suffice: core/SHARED.md):
 *
 * - One value: a register other than the arbiter's gets a value only after the arbiter's of the
 *   round has it, durably. So a round has one value, or NIL (nobody's), at most.
 * - Bound by the past: the arbiter's register of round r > 0 gets a value only after a majority
 *   of the registers of each round before are taken, durably; it is the value of the highest
 *   round before that was seen to have one, or free when none has.
 * - Decided: the round's value, durably in a majority of its registers, on replicas that had not
 *   let go of the slot (their floor is not above it) when looked at after that.
 *
 * This is the state machine alone: it asks for operations on replicas, gets answers, and ends. It
 * does no I/O and can be copied: tests/model/slots.c drives this very code through every
 * interleaving. The caller carries out what next() wants, on all replicas of the mask at once or in
 * any order, and answers for each. A run may be given up at any point, and another begun: every
 * step is harmless to repeat. One thread at a time. */
#ifndef SOP_SLOTS_H
#define SOP_SLOTS_H

#include "core/base.h"

#define SOP_SLOT_REPLICAS 16 /* at most */
#define SOP_SLOT_ROUNDS	  64 /* tried in one run */

/* Names a record: who made it (random, not 0), and which of his. Zeros are NIL. */
struct sop_slot_id {
	uint64_t who, seq;
};

static inline bool sop_slot_id_equal(struct sop_slot_id a, struct sop_slot_id b)
{
	return a.who == b.who && a.seq == b.seq;
}

enum sop_slot_op {
	SOP_SLOT_READ,	/* the register; answer 0 and its value, or -ENOENT: not taken */
	SOP_SLOT_STAGE, /* have the record `value` ready there, durably, to be linked */
	SOP_SLOT_LINK,	/* it becomes the register, if that is not taken: else -EEXIST */
	SOP_SLOT_SYNC,	/* make the register durable, and then read it: answer as for READ */
	SOP_SLOT_FLOOR, /* answer 0 and the floor: slots below it are let go of */
};

struct sop_slot_want {
	enum sop_slot_op op;
	uint32_t mask; /* of replicas */
	uint64_t slot;
	unsigned round;
	struct sop_slot_id value; /* STAGE, LINK */
};

/* rc: as above; any other negative: the replica does not answer, and may have done it or do it
 * later. */
struct sop_slot_answer {
	int rc;
	struct sop_slot_id value;
	uint64_t floor;
};

enum sop_slot_outcome {
	SOP_SLOT_RUNNING,
	SOP_SLOT_EMPTY,	  /* no value is decided, nor can one be that somebody was told of; not when
			     proposing */
	SOP_SLOT_DECIDED, /* run->value is in the slot, for ever */
	SOP_SLOT_STALE,	 /* decided and let go of long ago: whoever sees this is behind a checkpoint
			  */
	SOP_SLOT_DOUBT,	 /* too few replicas answer; run->placed: the own value may be in the slot
			    yet */
	SOP_SLOT_BROKEN, /* two values in one round, again and again: registers were changed */
};

enum sop_slot_mode {
	SOP_SLOT_LOOK,	  /* change nothing: a value that is not decided yet counts as DOUBT */
	SOP_SLOT_SETTLE,  /* finish what others have begun; nothing begun is EMPTY */
	SOP_SLOT_PROPOSE, /* and if the slot is free, `own` */
};

struct sop_slot_run {
	/* Fixed by begin. */
	uint64_t slot;
	struct sop_slot_id own;
	uint8_t replicas, majority, mode;
	/* Where it is. */
	uint8_t phase, outcome, round;
	bool abandoning;    /* the round is being closed to all but what is in it */
	bool has_value;	    /* this round's is known */
	bool has_candidate; /* of the rounds before */
	bool differs;	    /* registers of this round have two values */
	bool lost;	    /* one that was seen is not there any more */
	uint8_t restarts;
	bool placed; /* the own value may be in a register: after DOUBT it may count yet */
	struct sop_slot_id value, candidate;
	/* Masks of replicas, about this round. */
	uint32_t empty, nil,
		taken;	       /* what the register was seen to have: nothing, NIL, the value */
	uint32_t synced, kept; /* taken or nil: durable; and the floor looked at since */
	uint32_t staged, staged_nil; /* the candidate or value; NIL */
	uint32_t waiting, said_exists;
	struct sop_slot_want want;
};

/* own: with PROPOSE. replicas: 1 to SOP_SLOT_REPLICAS. */
void sop_slot_begin(struct sop_slot_run *r, unsigned replicas, uint64_t slot,
	enum sop_slot_mode mode, struct sop_slot_id own);
/* What is wanted now, or NULL: it has ended, r->outcome says how. Answers come until mask is
 * served. */
const struct sop_slot_want *sop_slot_next(const struct sop_slot_run *r);
/* Has anything been seen in a register of the slot? */
static inline bool sop_slot_begun(const struct sop_slot_run *r)
{
	return r->round || r->taken || r->nil;
}
/* The answer of one replica of the mask, once each, as long as next() is not NULL. */
void sop_slot_answer(struct sop_slot_run *r, unsigned replica, const struct sop_slot_answer *a);

#endif
