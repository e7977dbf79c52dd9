/* One slot, run to its end. The happy path, in one round and with nobody else there:
 *
 *   READ all (nothing there), STAGE all, LINK the arbiter's, SYNC it, LINK the others', SYNC those,
 *   FLOOR of all: decided.
 *
 * A loser finds a value in READ or at the arbiter, and goes on with that one instead of its own, as
 * one who helps: whoever placed it may be dead. When the arbiter does not answer, or its register
 * or too many others are NIL, the round is abandoned: NIL is put wherever nothing is, until a
 * majority of registers is taken. Then nothing can become decided in it that has not been seen, and
 * the next round begins.
 *
 * An operation that was not answered may be carried out at any time later. So nothing is concluded
 * from a register of a replica that does not answer: it counts neither as empty nor as taken. */
#include "core/slots.h"

#define RESTARTS 4

enum phase {
	READ,
	STAGE,	 /* the candidate, on all that answer */
	ARBITER, /* link there; the value is the round's from now on, or another is */
	ARBITER_READ,
	ARBITER_SYNC,
	VALUE_STAGE, /* the value, where it may still be linked */
	LINK,
	NIL_STAGE,
	NIL_LINK,
	FILL_READ, /* registers that turned out to be taken */
	SYNC,
	FLOOR,
	FLOOR_EMPTY,
};

static uint32_t everyone(const struct sop_slot_run *r)
{
	return (uint32_t)((1u << r->replicas) - 1);
}

static uint32_t arbiter(const struct sop_slot_run *r)
{
	return 1u << ((r->slot + r->round) % r->replicas);
}

static bool majority(const struct sop_slot_run *r, uint32_t mask)
{
	return __builtin_popcount(mask) >= r->majority;
}

static void end(struct sop_slot_run *r, enum sop_slot_outcome outcome)
{
	r->outcome = (uint8_t)outcome;
	r->waiting = 0;
}

/* ---- going from phase to phase. An empty mask is served at once. ---- */

static void go(struct sop_slot_run *r, enum phase phase, enum sop_slot_op op, uint32_t mask,
	struct sop_slot_id value);
static void served(struct sop_slot_run *r);

static void begin_round(struct sop_slot_run *r)
{
	r->abandoning = r->has_value = false;
	r->empty = r->nil = r->taken = r->synced = r->kept = 0;
	r->staged = r->staged_nil = 0;
	go(r, READ, SOP_SLOT_READ, everyone(r), (struct sop_slot_id){0});
}

static void next_round(struct sop_slot_run *r)
{
	if (r->round + 1 == SOP_SLOT_ROUNDS) {
		end(r, SOP_SLOT_DOUBT);
		return;
	}
	r->round++;
	begin_round(r);
}

/* What was seen is not so any more: a replica has lost power before it was durable. */
static void start_over(struct sop_slot_run *r)
{
	if (++r->restarts > RESTARTS) {
		end(r, r->differs ? SOP_SLOT_BROKEN : SOP_SLOT_DOUBT);
		return;
	}
	r->round = 0;
	r->has_candidate = r->differs = r->lost = false;
	begin_round(r);
}

static void abandon(struct sop_slot_run *r)
{
	r->abandoning = true;
	go(r, NIL_STAGE, SOP_SLOT_STAGE, everyone(r) & ~(r->nil | r->taken),
		(struct sop_slot_id){0});
}

static void sync_round(struct sop_slot_run *r)
{
	uint32_t mask = r->taken | (r->abandoning ? r->nil : 0);

	go(r, SYNC, SOP_SLOT_SYNC, mask & ~r->synced, (struct sop_slot_id){0});
}

/* The value is known: to the other replicas with it, once the arbiter has it durably. */
static void spread(struct sop_slot_run *r)
{
	uint32_t at = r->taken & arbiter(r) & ~r->synced;

	if (at)
		go(r, ARBITER_SYNC, SOP_SLOT_SYNC, at, (struct sop_slot_id){0});
	else
		go(r, VALUE_STAGE, SOP_SLOT_STAGE, r->empty & ~r->staged, r->value);
}

static void look_at_floors(struct sop_slot_run *r, enum phase phase, uint32_t mask)
{
	r->kept = 0;
	go(r, phase, SOP_SLOT_FLOOR, mask, (struct sop_slot_id){0});
}

static void after_look(struct sop_slot_run *r)
{
	if (majority(r, r->taken))
		look_at_floors(r, FLOOR, r->taken);
	else if (r->taken || !majority(r, r->empty | r->nil))
		end(r, SOP_SLOT_DOUBT);
	else if (r->nil)
		next_round(r);
	else
		look_at_floors(r, FLOOR_EMPTY, r->empty);
}

static void after_read(struct sop_slot_run *r)
{
	if (r->mode == SOP_SLOT_LOOK) {
		after_look(r);
	} else if (r->has_value) {
		spread(r);
	} else if (!majority(r, r->empty | r->nil)) {
		end(r, SOP_SLOT_DOUBT);
	} else if (!r->has_candidate && r->mode != SOP_SLOT_PROPOSE) {
		/* A later round has begun only when a majority of this one is taken: one at least
		 * of those that answered would be. */
		if (r->nil)
			next_round(r);
		else
			look_at_floors(r, FLOOR_EMPTY, r->empty);
	} else {
		if (!r->has_candidate)
			r->candidate = r->own;
		if (r->empty & arbiter(r) && !majority(r, r->nil))
			go(r, STAGE, SOP_SLOT_STAGE, r->empty, r->candidate);
		else
			abandon(r);
	}
}

/* Nothing was found; and nothing had been let go of. */
static void judge_empty(struct sop_slot_run *r)
{
	end(r, majority(r, r->empty & r->kept) ? SOP_SLOT_EMPTY : SOP_SLOT_DOUBT);
}

static void judge(struct sop_slot_run *r)
{
	uint32_t sure = r->mode == SOP_SLOT_LOOK ? r->kept : r->synced & r->kept;

	if (r->differs || r->lost)
		start_over(r);
	else if (r->has_value && majority(r, r->taken & sure)) {
		end(r, SOP_SLOT_DECIDED);
	} else if (r->mode == SOP_SLOT_LOOK) {
		end(r, SOP_SLOT_DOUBT);
	} else if (!r->abandoning) {
		abandon(r);
	} else if (!majority(r, (r->taken | r->nil) & sure)) {
		end(r, SOP_SLOT_DOUBT);
	} else {
		if (r->has_value) {
			r->has_candidate = true;
			r->candidate = r->value;
		}
		next_round(r);
	}
}

/* All of the mask have answered. */
static void served(struct sop_slot_run *r)
{
	/* Two values in one round: a sleeper has put his where another had been and was let go of.
	 * The floors say so; if they do not, somebody has changed registers. */
	if (r->differs && r->phase != FLOOR) {
		look_at_floors(r, FLOOR, everyone(r));
		return;
	}
	switch ((enum phase)r->phase) {
	case READ:
		after_read(r);
		return;
	case STAGE:
		/* Half-placed records are a burden to all; with no room for it, it is refused. */
		if (!majority(r, r->staged | r->nil))
			end(r, SOP_SLOT_DOUBT);
		else if (r->staged & arbiter(r))
			go(r, ARBITER, SOP_SLOT_LINK, arbiter(r), r->candidate);
		else
			abandon(r);
		return;
	case ARBITER:
		if (r->said_exists)
			go(r, ARBITER_READ, SOP_SLOT_READ, arbiter(r), (struct sop_slot_id){0});
		else if (r->taken & arbiter(r))
			spread(r);
		else
			abandon(r);
		return;
	case ARBITER_READ:
	case ARBITER_SYNC:
		if (r->taken & arbiter(r) && (r->phase == ARBITER_READ || r->synced & arbiter(r)))
			spread(r);
		else
			abandon(r);
		return;
	case VALUE_STAGE:
		go(r, LINK, SOP_SLOT_LINK, r->empty & r->staged, r->value);
		return;
	case NIL_STAGE:
		go(r, NIL_LINK, SOP_SLOT_LINK, r->staged_nil, (struct sop_slot_id){0});
		return;
	case LINK:
	case NIL_LINK:
		go(r, FILL_READ, SOP_SLOT_READ, r->said_exists, (struct sop_slot_id){0});
		return;
	case FILL_READ:
		sync_round(r);
		return;
	case SYNC: {
		uint32_t mask = r->taken | (r->abandoning ? r->nil : 0);

		look_at_floors(r, FLOOR, mask & r->synced);
		return;
	}
	case FLOOR:
		judge(r);
		return;
	case FLOOR_EMPTY:
		judge_empty(r);
		return;
	}
}

static void go(struct sop_slot_run *r, enum phase phase, enum sop_slot_op op, uint32_t mask,
	struct sop_slot_id value)
{
	r->phase = (uint8_t)phase;
	r->said_exists = 0;
	if (op == SOP_SLOT_LINK && mask && r->own.who && sop_slot_id_equal(value, r->own))
		r->placed = true;
	r->waiting = mask;
	r->want = (struct sop_slot_want){op, mask, r->slot, r->round, value};
	if (!mask)
		served(r);
}

/* ---- answers ---- */

/* The register of these replicas holds this. */
static void holds(struct sop_slot_run *r, uint32_t at, struct sop_slot_id value)
{
	r->empty &= ~at;
	if (!value.who && !value.seq) {
		r->nil |= at;
		return;
	}
	if (r->has_value && !sop_slot_id_equal(r->value, value)) {
		r->differs = true;
		return;
	}
	/* What was staged was the candidate; the winner is another, and has to be staged anew. */
	if (!r->has_value && !sop_slot_id_equal(r->candidate, value))
		r->staged = 0;
	r->has_value = true;
	r->value = value;
	r->taken |= at;
	if (r->own.who && sop_slot_id_equal(value, r->own))
		r->placed = true;
}

static bool holds_still(const struct sop_slot_run *r, uint32_t at, struct sop_slot_id value)
{
	return r->nil & at ? !value.who && !value.seq
			   : r->has_value && sop_slot_id_equal(r->value, value);
}

void sop_slot_answer(struct sop_slot_run *r, unsigned replica, const struct sop_slot_answer *a)
{
	uint32_t at = 1u << replica;

	assert(replica < r->replicas && r->waiting & at && r->outcome == SOP_SLOT_RUNNING);
	r->waiting &= ~at;
	switch (r->want.op) {
	case SOP_SLOT_READ:
		if (!a->rc)
			holds(r, at, a->value);
		else if (a->rc == -ENOENT)
			r->empty |= at;
		else
			r->empty &= ~at;
		break;
	case SOP_SLOT_STAGE:
		if (a->rc)
			break;
		if (r->phase == NIL_STAGE)
			r->staged_nil |= at;
		else
			r->staged |= at;
		break;
	case SOP_SLOT_LINK:
		if (!a->rc)
			holds(r, at, r->want.value);
		else if (a->rc == -EEXIST)
			r->said_exists |= at;
		/* Not answered: it may be taken now, or yet. */
		if (a->rc)
			r->empty &= ~at;
		break;
	case SOP_SLOT_SYNC:
		/* It may have been lost before it was durable. */
		if (!a->rc && holds_still(r, at, a->value))
			r->synced |= at;
		else if (!a->rc || a->rc == -ENOENT)
			r->lost = true;
		break;
	case SOP_SLOT_FLOOR:
		if (!a->rc && a->floor > r->slot)
			end(r, SOP_SLOT_STALE);
		else if (!a->rc)
			r->kept |= at;
		break;
	}
	if (!r->waiting && r->outcome == SOP_SLOT_RUNNING)
		served(r);
}

const struct sop_slot_want *sop_slot_next(const struct sop_slot_run *r)
{
	return r->outcome == SOP_SLOT_RUNNING ? &r->want : NULL;
}

void sop_slot_begin(struct sop_slot_run *r, unsigned replicas, uint64_t slot,
	enum sop_slot_mode mode, struct sop_slot_id own)
{
	assert(replicas && replicas <= SOP_SLOT_REPLICAS);
	memset(r, 0, sizeof(*r));
	r->slot = slot;
	r->own = own;
	r->replicas = (uint8_t)replicas;
	r->majority = (uint8_t)(replicas / 2 + 1);
	r->mode = (uint8_t)mode;
	begin_round(r);
}
