#include "core/shared.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "core/chain.h"
#include "core/coordinate.h"

/* A mounter's place in the chain is `next`. It applies slot after slot, as recovery applies journal
 * records, and proposes at the first that is empty.
 *
 * A crash at any point leaves a chain that others go on with: what this mounter had in a slot
 * counts if it was, or comes to be, decided; all else of it is garbage in segments of its own. */

#define EPOCH_BITS   32 /* of the base; above: the number of the mounter */
#define MOUNTS_MAX   4095u
#define INO_RANGE    ((uint64_t)1 << 28) /* inode numbers that a mounter may give out */
#define CLAIM_BYTES  256
#define INLINE_TRIES 3

struct sop_shared {
	struct sop_chain *chain;
	uint64_t next; /* slot */
	uint64_t base; /* slot of the BASE that we go by; 0: none met yet */
	uint64_t base_epoch;
	unsigned mounts;	       /* since */
	uint64_t ino_next;	       /* nobody has been given this one, nor any above */
	uint64_t ino_end;	       /* of our own range; 0: no range, we are alone */
	struct sop_chain_record ahead; /* what the slot behind was seen to hold; slot 0: nothing */
	bool look;		       /* mounted read-only: change nothing */
	bool halfway;		       /* what the slot holds is applied in part */
	_Atomic bool live;	       /* others may be there */
};

bool sop_shared_live(const struct sop_volume *v)
{
	return v->shared && v->shared->live;
}

int sop_shared_refuse(const struct sop_volume *v, const char *what, struct sop_err *e)
{
	return sop_shared_live(v)
		       ? sop_say(e, -EOPNOTSUPP,
				 "%s is not possible while the volume is mounted shared", what)
		       : 0;
}

uint64_t sop_shared_slot(const struct sop_volume *v)
{
	return v->shared ? v->shared->next : v->chain_end;
}

uint64_t sop_shared_base(const struct sop_volume *v)
{
	return v->shared ? v->shared->base : 0;
}

static int dead(struct sop_volume *v, int rc, const struct sop_err *e)
{
	v->dead = rc;
	sop_log(v->log, SOP_LOG_ERROR, "shared", "op=follow slot=%" PRIu64 " code=%s: %s",
		v->shared->next, sop_err_name(rc), e ? e->text : "");
	return rc;
}

/* ---- applying ---- */

void sop_shared_batch_txn(
	struct sop_buf *b, uint64_t lsn, uint64_t time_ns, const void *ops, size_t len)
{
	const struct sop_disk_commit_txn h = {.lsn = le64_make(lsn),
		.time_ns = le64_make(time_ns),
		.len = le32_make((uint32_t)len)};
	size_t all = sop_round_up(sizeof(h) + len, 8);
	uint8_t *p = len > UINT32_MAX ? NULL : sop_buf_grow(b, all);

	if (!p) {
		b->failed = true;
		return;
	}
	memset(p, 0, all);
	memcpy(p, &h, sizeof(h));
	memcpy(p + sizeof(h), ops, len);
}

void sop_shared_published(struct sop_volume *v, uint64_t lsn)
{
	v->lsn_next = lsn + 1;
	sop_pins_publish(v->pins, lsn);
	sop_event_ring_show(v->events);
	sop_lock(&v->barrier);
	v->durable_lsn = SOP_MAX(v->durable_lsn, lsn);
	sop_unlock(&v->barrier);
	sop_barrier_marked(v, lsn);
}

static int apply_txn(struct sop_volume *v, const struct sop_slot_txn *t, struct sop_err *e)
{
	int rc = sop_apply_prefault(v, t->ops, t->len, e);

	if (rc)
		return rc;
	v->shared->halfway = true;
	sop_event_ring_begin(v->events, t->lsn);
	sop_apply_begin(v, t->lsn);
	rc = sop_apply_run(v, t->ops, t->len, t->lsn, t->time_ns, e);
	sop_apply_end(v);
	if (!rc)
		sop_shared_published(v, t->lsn);
	return rc;
}

static int apply_batch(struct sop_volume *v, const struct sop_chain_record *r, struct sop_err *e)
{
	const uint8_t *p = r->payload;
	size_t left = r->len;
	int rc = 0;

	while (left && !rc) {
		struct sop_slot_txn t;

		if (sop_slot_batch_next(&t, &p, &left) || t.lsn != v->lsn_next)
			return sop_fail(e, SOP_ECORRUPT, "transaction in a slot");
		rc = apply_txn(v, &t, e);
	}
	return rc;
}

static void apply_base(struct sop_shared *s, const struct sop_chain_record *r)
{
	s->base = r->slot;
	s->base_epoch = r->epoch;
	s->mounts = 0;
}

static void apply_mount(struct sop_shared *s)
{
	s->mounts++;
	s->ino_next += INO_RANGE;
}

/* A record of somebody else, or of ours from before this mount. */
static int apply_record(struct sop_volume *v, const struct sop_chain_record *r, struct sop_err *e)
{
	struct sop_shared *s = v->shared;

	if (r->type != SOP_SLOT_BASE && s->base && r->base != s->base)
		return sop_say(e, SOP_ECORRUPT,
			"slot %" PRIu64 " goes by another base than the ones before", r->slot);
	s->ino_next = SOP_MAX(s->ino_next, r->next_ino);
	switch ((enum sop_slot_type)r->type) {
	case SOP_SLOT_BATCH:
		return apply_batch(v, r, e);
	case SOP_SLOT_BASE:
		/* Whoever placed it found nobody here: we were taken for dead, and what we refer to
		 * may have been given back. */
		if (s->live)
			return sop_say(e, SOP_EINUSE,
				"volume %s: another mounter has taken it over; mount it again",
				v->name);
		apply_base(s, r);
		return 0;
	case SOP_SLOT_MOUNT:
		apply_mount(s);
		return 0;
	case SOP_SLOT_NIL:
		break;
	}
	return sop_fail(e, SOP_ECORRUPT, "slot %" PRIu64, r->slot);
}

/* The record of the next slot, for good: 1; or 0: nothing is there. Where somebody has begun the
 * slot behind it, looking is enough. The last one may have to be finished, and made durable. */
static int next_record(struct sop_volume *v, struct sop_chain_record *r, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	bool begun;
	int rc = 1;

	if (s->ahead.slot == s->next)
		*r = s->ahead;
	else
		rc = sop_chain_look(s->chain, s->next, r, &begun, e);
	s->ahead.slot = 0;
	if (rc == 1) {
		int behind = sop_chain_look(s->chain, s->next + 1, &s->ahead, &begun, NULL);

		if (behind != 1)
			s->ahead.slot = 0;
		if (begun)
			return 1;
	}
	if (rc != 1 && rc != SOP_EDISKS)
		return rc;
	return s->look ? rc : sop_chain_settle(s->chain, s->next, r, e);
}

static int follow(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	struct sop_chain_record r;
	int rc;

	s->ahead.slot = 0;
	while ((rc = next_record(v, &r, e)) == 1) {
		rc = apply_record(v, &r, e);
		if (rc)
			return rc;
		s->next++;
		s->halfway = false;
	}
	return rc;
}

int sop_shared_follow(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	struct sop_err why = {0};
	int rc;

	if (v->dead)
		return sop_fail(e, SOP_EDEAD, "volume %s", v->name);
	rc = follow(v, &why);
	if (!rc && s->next > 1)
		sop_coordinate_applied(v, s->next - 1);
	if (!rc)
		return 0;
	if (e)
		*e = why;
	/* Too few replicas now, or no memory to look: nothing is known, and nothing is wrong. */
	if (rc == SOP_EDISKS || rc == -ENOSPC || (rc == -ENOMEM && (!s->live || !s->halfway)))
		return rc;
	return dead(v, rc, &why);
}

/* ---- placing ---- */

/* A record that may be in the slot already: until that is known nothing else may happen. */
static int insist(struct sop_volume *v, struct sop_chain_record *in, struct sop_chain_record *out,
	bool *own, struct sop_err *e)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	uint64_t until = v->clock->monotonic_ms(v->clock->ctx) + sop_members_timeout_ms(v->mem);
	bool once = false, placed;
	int rc;

	for (unsigned tries = 1;; tries++) {
		rc = sop_chain_propose(v->shared->chain, in, out, own, &placed, e);
		once = once || placed;
		if (rc == 1 || !once)
			return rc;
		/* (Of inline I/O nothing is under way that time would bring to its end.) */
		if (rc == -ESTALE || rc == SOP_ECORRUPT ||
			(v->opts.inline_io && tries == INLINE_TRIES) ||
			v->clock->monotonic_ms(v->clock->ctx) >= until)
			return dead(v, SOP_EDEAD, e);
		if (!v->opts.inline_io)
			nanosleep(&pause, NULL);
	}
}

int sop_shared_place(struct sop_volume *v, enum sop_slot_type type, const void *payload, size_t len,
	struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	struct sop_chain_record r = {.slot = s->next,
		.type = (uint8_t)type,
		.epoch = type == SOP_SLOT_BASE ? s->base_epoch : 0,
		.base = type == SOP_SLOT_BASE ? s->next : s->base,
		.payload = payload,
		.len = len};
	struct sop_chain_record winner;
	bool own;
	int rc;

	if (s->ino_end && v->next_ino > s->ino_end)
		return dead(v, sop_say(e, SOP_EDEAD, "no inode number is left; mount again"), e);
	if (!s->ino_end)
		r.next_ino = s->ino_next = SOP_MAX(s->ino_next, v->next_ino);
	rc = insist(v, &r, &winner, &own, e);
	if (rc == -ESTALE || rc == SOP_ECORRUPT)
		return dead(v, rc, e);
	if (rc != 1)
		return rc;
	if (!own)
		return 1;
	s->next++;
	return 0;
}

/* ---- opening ---- */

int sop_shared_open(struct sop_volume *v, uint64_t slot, uint64_t base, struct sop_err *e)
{
	struct sop_shared *s = calloc(1, sizeof(*s));
	bool joined = sop_members_joined(v->mem);
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "volume");
	v->shared = s;
	s->next = SOP_MAX(slot, (uint64_t)1);
	s->look = v->opts.read_only;
	s->ino_next = v->next_ino;
	if (joined) {
		s->base = base;
		s->base_epoch = sop_members_epoch(v->mem);
	}
	rc = sop_chain_new(&s->chain, v->mem, v->opts.inline_io, !joined && !v->opts.read_only, e);
	if (!rc && !v->opts.read_only && !v->opts.exclusive)
		rc = sop_chain_probe(s->chain, e);
	if (rc)
		return rc;
	sop_lock(&v->commit);
	rc = sop_shared_follow(v, e);
	sop_unlock(&v->commit);
	v->next_ino = SOP_MAX((uint64_t)v->next_ino, s->ino_next);
	return rc;
}

int sop_shared_take_over(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc;

	if (sop_members_epoch(v->mem) >> EPOCH_BITS)
		return sop_say(e, -EOVERFLOW, "the volume has been mounted too often to be shared");
	do {
		rc = sop_shared_follow(v, e);
		if (rc)
			return rc;
		s->base_epoch = sop_members_epoch(v->mem);
		rc = sop_shared_place(v, SOP_SLOT_BASE, NULL, 0, e);
	} while (rc == 1);
	if (rc)
		return rc;
	s->base = s->next - 1;
	s->mounts = 0;
	v->next_ino = SOP_MAX((uint64_t)v->next_ino, s->ino_next);
	return 0;
}

int sop_shared_enter(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	char claim[CLAIM_BYTES];
	uint64_t from;
	int rc = sop_members_joined(v->mem) ? 0 : sop_members_share(v->mem, e);

	if (rc)
		return rc;
	sop_members_own_claim(v->mem, claim, sizeof(claim));
	s->live = true;
	s->ino_end = UINT64_MAX; /* what others give out is theirs: no high mark in our records */
	sop_lock(&v->commit);
	do {
		rc = sop_shared_follow(v, e);
		from = s->ino_next;
		if (!rc && s->mounts >= MOUNTS_MAX)
			rc = sop_say(e, -EMFILE,
				"the volume has been mounted too often since somebody was alone in "
				"it; unmount it everywhere, and mount it again");
		if (!rc)
			rc = sop_shared_place(v, SOP_SLOT_MOUNT, claim, strlen(claim), e);
	} while (rc == 1);
	if (!rc) {
		apply_mount(s);
		v->next_ino = from;
		s->ino_end = from + INO_RANGE;
		sop_segments_set_epoch(v->seg, (uint64_t)s->mounts << EPOCH_BITS | s->base_epoch);
	}
	sop_unlock(&v->commit);
	return rc;
}

void sop_shared_free(struct sop_volume *v)
{
	if (v->shared)
		sop_chain_free(v->shared->chain);
	free(v->shared);
	v->shared = NULL;
}

void sop_shared_trim(struct sop_volume *v, uint64_t slot)
{
	struct sop_err e = {0};

	if (sop_chain_trim(v->shared->chain, slot, true, &e))
		sop_log(v->log, SOP_LOG_WARNING, "shared", "op=trim code=%s: %s",
			sop_err_name(e.code), e.text);
}

/* ---- catching up ---- */

int sop_volume_catch_up(struct sop_volume *v, struct sop_err *e)
{
	if (!sop_shared_live(v))
		return 0;
	SOP_LOCK_GUARD(&v->commit);
	return v->dead ? 0 : sop_shared_follow(v, e);
}
