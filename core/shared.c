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

#define EPOCH_BITS   32			 /* of the base; above: the number of the mounter */
#define INO_RANGE    ((uint64_t)1 << 28) /* inode numbers that a mounter may give out */
#define CLAIM_BYTES  256
#define IMAGE_SLOTS  1024 /* behind the newest image, before the next is made */
#define LEAVE_TRIES  64
#define INLINE_TRIES 3

struct sop_shared {
	struct sop_chain *chain;
	uint64_t next; /* slot */
	uint64_t base; /* slot of the BASE that we go by; 0: none met yet */
	uint64_t base_epoch;
	struct sop_roster roster;
	struct sop_image start; /* what this mounter has begun with */
	uint64_t who;
	uint32_t number;  /* of our MOUNT; 0: none yet */
	uint64_t trimmed; /* all below has been let go of by us */
	uint64_t journal; /* of the base: what replaying it begins with */
	uint32_t journal_chain;
	uint64_t image_ms, image_bytes; /* when the newest image was met; of slots since */
	uint64_t ino_next;		/* nobody has been given this one, nor any above */
	uint64_t ino_end;		/* of our own range; 0: no range, we are alone */
	struct sop_chain_record ahead;	/* what the slot behind was seen to hold; slot 0: nothing */
	bool look;			/* mounted read-only: change nothing */
	bool halfway;			/* what the slot holds is applied in part */
	_Atomic bool live;		/* others may be there */
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

static int each_txn(struct sop_volume *v, const struct sop_chain_record *r,
	int (*fn)(struct sop_volume *v, const struct sop_slot_txn *t, struct sop_err *e),
	uint64_t *last, struct sop_err *e)
{
	const uint8_t *p = r->payload;
	size_t left = r->len;
	int rc = 0;

	*last = v->lsn_next - 1;
	while (left && !rc) {
		struct sop_slot_txn t;

		if (sop_slot_batch_next(&t, &p, &left) || t.lsn != *last + 1)
			return sop_fail(e, SOP_ECORRUPT, "transaction in a slot");
		*last = t.lsn;
		rc = fn(v, &t, e);
	}
	return rc;
}

static int prefault_txn(struct sop_volume *v, const struct sop_slot_txn *t, struct sop_err *e)
{
	return sop_apply_prefault(v, t->ops, t->len, e);
}

static int apply_txn(struct sop_volume *v, const struct sop_slot_txn *t, struct sop_err *e)
{
	return sop_apply_run(v, t->ops, t->len, t->lsn, t->time_ns, e);
}

/* As who has committed it: no transaction of a group depends on another, and what has to be read
 * from the disks is before any of it is applied. */
static int apply_batch(struct sop_volume *v, const struct sop_chain_record *r, struct sop_err *e)
{
	uint64_t last;
	int rc = each_txn(v, r, prefault_txn, &last, e);

	if (rc || last < v->lsn_next)
		return rc;
	v->shared->halfway = true;
	sop_event_ring_begin(v->events, last);
	sop_apply_begin(v, last);
	rc = each_txn(v, r, apply_txn, &last, e);
	sop_apply_end(v);
	if (!rc)
		sop_shared_published(v, last);
	return rc;
}

static uint64_t now_ms(const struct sop_volume *v)
{
	return v->clock->monotonic_ms(v->clock->ctx);
}

static int apply_mount(struct sop_volume *v, uint64_t who)
{
	struct sop_shared *s = v->shared;
	int rc = s->roster.known ? sop_roster_mount(&s->roster, who, v->lsn_next - 1) : 0;

	if (!rc)
		s->ino_next += INO_RANGE;
	return rc;
}

/* Who began behind it learns from it who is there. */
static int apply_image(struct sop_volume *v, const struct sop_chain_record *r)
{
	struct sop_shared *s = v->shared;
	struct sop_image image;
	int rc = sop_roster_decode_image(&image, r->payload, r->len);

	image.who = r->id.who;
	if (!rc && !s->roster.known && image.slot == s->start.slot && image.who == s->start.who)
		rc = sop_roster_decode(&s->roster, r->payload, r->len);
	if (rc || !s->roster.known)
		return rc;
	sop_roster_image(&s->roster, &image);
	s->image_ms = now_ms(v);
	s->image_bytes = 0;
	return 0;
}

static int apply_seen(struct sop_shared *s, const struct sop_chain_record *r)
{
	struct sop_disk_seen d;

	if (r->len != sizeof(d))
		return SOP_ECORRUPT;
	memcpy(&d, r->payload, sizeof(d));
	sop_roster_seen(&s->roster, r->id.who, le64_get(d.slot), le64_get(d.pin));
	return 0;
}

static int apply_fence(struct sop_volume *v, const struct sop_chain_record *r, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	struct sop_disk_fence d;

	if (r->len != sizeof(d))
		return SOP_ECORRUPT;
	memcpy(&d, r->payload, sizeof(d));
	if (s->live && le64_get(d.who) == s->who)
		return sop_say(e, SOP_EINUSE,
			"volume %s: this mounter was taken for dead; mount it again", v->name);
	sop_roster_gone(&s->roster, le64_get(d.who));
	return 0;
}

/* A record of somebody else, or of ours from before this mount; or one of ours that is no batch. */
static int apply_record(struct sop_volume *v, const struct sop_chain_record *r, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc = SOP_ECORRUPT;

	if (r->type != SOP_SLOT_BASE && s->base && r->base != s->base)
		return sop_say(e, SOP_ECORRUPT,
			"slot %" PRIu64 " goes by another base than the ones before", r->slot);
	s->ino_next = SOP_MAX(s->ino_next, r->next_ino);
	switch ((enum sop_slot_type)r->type) {
	case SOP_SLOT_BATCH:
		s->image_bytes += r->len;
		return apply_batch(v, r, e);
	case SOP_SLOT_BASE:
		/* Whoever placed it found nobody here: we were taken for dead, and what we refer to
		 * may have been given back. */
		if (s->live)
			return sop_say(e, SOP_EINUSE,
				"volume %s: another mounter has taken it over; mount it again",
				v->name);
		s->base = r->slot;
		s->base_epoch = r->epoch;
		return 0;
	case SOP_SLOT_MOUNT:
		rc = apply_mount(v, r->id.who);
		break;
	case SOP_SLOT_IMAGE:
		rc = apply_image(v, r);
		break;
	case SOP_SLOT_SEEN:
		rc = apply_seen(s, r);
		break;
	case SOP_SLOT_LEAVE:
		sop_roster_gone(&s->roster, r->id.who);
		rc = 0;
		break;
	case SOP_SLOT_FENCE:
		rc = apply_fence(v, r, e);
		if (rc == SOP_EINUSE)
			return rc;
		break;
	case SOP_SLOT_NIL:
		break;
	}
	return rc ? sop_fail(e, rc, "slot %" PRIu64, r->slot) : 0;
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

/* Too few replicas, or no memory to look: nothing is known, and nothing is wrong. Nor is there when
 * what a record changes cannot be read now, and nothing of it is applied. */
static bool for_now(const struct sop_shared *s, int rc)
{
	if (s->halfway)
		return rc == -ENOMEM && !s->live;
	return rc == SOP_EDISKS || rc == -ENOSPC || rc == -ENOMEM || rc == SOP_ELOST ||
	       rc == -EIO || rc == -ETIMEDOUT || rc == SOP_ETIMEOUT;
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
	return for_now(s, rc) ? rc : dead(v, rc, &why);
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
	s->image_bytes += len;
	return 0;
}

/* One that is no batch takes effect here too. 1: the slot is another's. */
static int place(struct sop_volume *v, enum sop_slot_type type, const void *payload, size_t len,
	struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	const struct sop_chain_record r = {.id.who = s->who,
		.slot = s->next,
		.base = s->base,
		.type = (uint8_t)type,
		.payload = payload,
		.len = len};
	int rc = sop_shared_place(v, type, payload, len, e);

	if (!rc)
		rc = apply_record(v, &r, e);
	return rc < 0 && v->shared->next > r.slot ? dead(v, rc, e) : rc;
}

/* ---- opening ---- */

/* The image comes behind the newest base, if there is one: its slots below are gone. */
static int load_image(struct sop_volume *v, struct sop_checkpoint *c, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	char path[SOP_CHAIN_PATH];
	struct sop_checkpoint image;
	struct sop_image floor;
	int rc = sop_chain_floor(s->chain, &floor, e);

	s->start = (struct sop_image){.slot = c->slot, .lsn = c->lsn};
	if (rc || !floor.who || floor.slot <= c->slot)
		return rc;
	sop_chain_image_path(path, &floor);
	rc = sop_checkpoint_load_image(&image, v->mem, path, e);
	if (rc)
		return rc;
	s->start = (struct sop_image){.slot = image.slot, .lsn = image.lsn, .who = floor.who};
	sop_checkpoint_release(c);
	*c = image;
	return image.slot == floor.slot ? 0 : sop_fail(e, SOP_ECORRUPT, "%s", path);
}

int sop_shared_begin(struct sop_volume *v, struct sop_checkpoint *c, struct sop_err *e)
{
	struct sop_shared *s = calloc(1, sizeof(*s));
	bool joined = sop_members_joined(v->mem);
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "volume");
	v->shared = s;
	s->look = v->opts.read_only;
	rc = sop_chain_new(&s->chain, v->mem, v->opts.inline_io, !joined && !s->look, e);
	if (!rc && !s->look && !v->opts.exclusive)
		rc = sop_chain_probe(s->chain, e);
	if (!rc)
		rc = load_image(v, c, e);
	if (rc)
		return rc;
	s->who = sop_chain_who(s->chain);
	s->next = SOP_MAX(c->slot, (uint64_t)1);
	s->journal = c->journal;
	s->journal_chain = c->chain;
	s->image_ms = now_ms(v);
	sop_roster_begin(&s->roster, &s->start, !joined || !s->start.who);
	if (joined) {
		/* The labels may be newer than the base: a disk failed in recovery. */
		s->base = c->base;
		s->base_epoch = c->epoch;
	}
	return 0;
}

int sop_shared_open(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc;

	s->ino_next = v->next_ino;
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
	v->next_ino = SOP_MAX((uint64_t)v->next_ino, s->ino_next);
	return 0;
}

/* Its place in the roster is told by the slot of its MOUNT: others, who apply that, have the same
 * floor there. Had they gone on to another image, the nodes of ours might be gone. */
static int place_mount(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	char claim[CLAIM_BYTES];
	int rc;

	sop_members_own_claim(v->mem, claim, sizeof(claim));
	do {
		rc = sop_shared_follow(v, e);
		if (rc)
			return rc;
		if (!s->roster.known)
			return sop_say(e, SOP_ECORRUPT,
				"the image of slot %" PRIu64 " is not in the chain", s->start.slot);
		if (s->roster.floor.slot != s->start.slot) {
			rc = sop_chain_trim(s->chain, &s->roster.floor, false, e);
			return rc ? rc : sop_fail(e, -ESTALE, "slot %" PRIu64, s->start.slot);
		}
		if (s->roster.mounts >= SOP_ROSTER_MOUNTS)
			return sop_say(e, -EMFILE,
				"the volume has been mounted too often since somebody was alone in "
				"it; unmount it everywhere, and mount it again");
		rc = place(v, SOP_SLOT_MOUNT, claim, strlen(claim), e);
	} while (rc == 1);
	return rc;
}

int sop_shared_enter(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc = sop_members_joined(v->mem) ? 0 : sop_members_share(v->mem, e);

	if (!rc)
		rc = sop_chain_enter(s->chain, e);
	if (rc)
		return rc;
	s->live = true;
	s->ino_end = UINT64_MAX; /* what others give out is theirs: no high mark in our records */
	sop_lock(&v->commit);
	rc = place_mount(v, e);
	if (!rc) {
		s->number = s->roster.mounts;
		v->next_ino = s->ino_next - INO_RANGE;
		s->ino_end = s->ino_next;
		s->trimmed = s->start.slot;
		v->ckpt_lsn = s->start.lsn;
		sop_segments_set_epoch(v->seg, (uint64_t)s->number << EPOCH_BITS | s->base_epoch);
	}
	sop_unlock(&v->commit);
	return rc;
}

bool sop_shared_moved(struct sop_volume *v)
{
	struct sop_image floor;

	return v->shared && v->shared->chain && sop_members_joined(v->mem) &&
	       !sop_chain_floor(v->shared->chain, &floor, NULL) &&
	       floor.slot > v->shared->start.slot;
}

void sop_shared_leave(struct sop_volume *v)
{
	struct sop_err e = {0};
	int rc = 1;

	if (!sop_shared_live(v))
		return;
	SOP_LOCK_GUARD(&v->commit);
	for (unsigned i = 0; i < LEAVE_TRIES && rc == 1; i++) {
		rc = sop_shared_follow(v, &e);
		if (!rc)
			rc = place(v, SOP_SLOT_LEAVE, NULL, 0, &e);
	}
	/* It counts as killed. */
	if (rc)
		sop_log(v->log, SOP_LOG_INFO, "shared", "op=leave code=%s: %s", sop_err_name(rc),
			e.text);
}

void sop_shared_free(struct sop_volume *v)
{
	if (v->shared) {
		sop_chain_free(v->shared->chain);
		sop_roster_release(&v->shared->roster);
	}
	free(v->shared);
	v->shared = NULL;
}

static int trim(struct sop_volume *v, const struct sop_image *floor, bool alone)
{
	struct sop_err e = {0};
	int rc = sop_chain_trim(v->shared->chain, floor, alone, &e);

	if (rc)
		sop_log(v->log, SOP_LOG_WARNING, "shared", "op=trim code=%s: %s",
			sop_err_name(e.code), e.text);
	return rc;
}

void sop_shared_based(struct sop_volume *v, const struct sop_checkpoint *c)
{
	struct sop_shared *s = v->shared;

	s->start = (struct sop_image){.slot = c->slot, .lsn = c->lsn};
	s->journal = c->journal;
	s->journal_chain = c->chain;
	sop_roster_begin(&s->roster, &s->start, true);
	(void)trim(v, &s->start, true);
}

/* ---- images ---- */

static uint32_t number_of(uint64_t segment)
{
	return (uint32_t)(segment >> SOP_SEGMENT_NUMBER_BITS >> EPOCH_BITS);
}

enum sop_segment_whose sop_shared_whose(const struct sop_volume *v, uint64_t segment)
{
	const struct sop_shared *s = v->shared;
	uint32_t base = (uint32_t)(segment >> SOP_SEGMENT_NUMBER_BITS);

	if (!sop_shared_live(v) || !number_of(segment) || base != s->base_epoch)
		return SOP_SEGMENT_OLD;
	return number_of(segment) == s->number ? SOP_SEGMENT_OWN : SOP_SEGMENT_OTHERS;
}

void sop_shared_note(const struct sop_volume *v, struct sop_checkpoint *c)
{
	const struct sop_shared *s = v->shared;

	c->slot = sop_shared_slot(v);
	if (!s)
		return;
	c->base = s->base;
	if (!s->live)
		return;
	c->epoch = s->base_epoch;
	c->next_ino = s->ino_next;
	c->journal = s->journal;
	c->chain = s->journal_chain;
}

bool sop_shared_unchanged(const struct sop_volume *v)
{
	return v->lsn_next - 1 <= v->shared->start.lsn;
}

bool sop_shared_may_image(const struct sop_volume *v)
{
	return sop_roster_may_image(&v->shared->roster, v->shared->next) &&
	       v->lsn_next - 1 > v->shared->roster.newest.lsn;
}

/* Those who entered first do it, as long as they do it. */
bool sop_shared_image_due(struct sop_volume *v)
{
	struct sop_shared *s = v->shared;
	uint64_t late;

	SOP_LOCK_GUARD(&v->commit);
	late = 1 + sop_roster_rank(&s->roster, s->who);
	return sop_shared_may_image(v) &&
	       (s->next - s->roster.newest.slot >= late * IMAGE_SLOTS ||
		       s->image_bytes >= late * v->opts.journal_bytes ||
		       now_ms(v) - s->image_ms >= late * v->opts.checkpoint_ms);
}

static int place_image(struct sop_volume *v, const struct sop_image *image, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc;

	do {
		sop_autofree void *raw = NULL;
		size_t len;

		rc = sop_shared_follow(v, e);
		if (rc || !sop_roster_may_image(&s->roster, image->slot))
			return rc;
		rc = sop_roster_encode(&raw, &len, &s->roster, image);
		rc = rc ? sop_fail(e, rc, "image") : place(v, SOP_SLOT_IMAGE, raw, len, e);
	} while (rc == 1);
	return rc;
}

/* A crash, or another's image in between, leaves a file that goes with the slots below some floor.
 */
int sop_shared_publish(struct sop_volume *v, const struct sop_checkpoint *c, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	const struct sop_image image = {.slot = c->slot, .lsn = c->lsn, .who = s->who};
	char path[SOP_CHAIN_PATH];
	int rc;

	sop_chain_image_path(path, &image);
	rc = sop_checkpoint_store_image(v->mem, path, c, e);
	sop_lock(&v->commit);
	s->image_ms = now_ms(v);
	if (!rc)
		rc = place_image(v, &image, e);
	sop_unlock(&v->commit);
	return rc;
}

/* The others wait for it: that this one knows of the newest image, and what its readers need. */
static int tell_seen(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	const struct sop_mounted *m = sop_roster_find(&s->roster, s->who);
	uint64_t pin = sop_pins_oldest(v->pins);
	struct sop_disk_seen d;

	if (!m || (m->seen == s->roster.newest.slot &&
			  (m->pin >= s->roster.newest.lsn || pin < s->roster.newest.lsn)))
		return 0;
	d = (struct sop_disk_seen){le64_make(s->roster.newest.slot), le64_make(pin)};
	return place(v, SOP_SLOT_SEEN, &d, sizeof(d), e);
}

/* Those that the others wait for, and that have ended. */
static int fence_dead(struct sop_volume *v, struct sop_err *e)
{
	const struct sop_roster *r = &v->shared->roster;
	size_t i = 0;
	int rc = 0;

	while (i < r->n && !rc) {
		const struct sop_mounted *m = &r->mounter[i];
		struct sop_disk_fence d = {le64_make(m->who)};

		if (m->seen < r->newest.slot && m->who != v->shared->who &&
			sop_chain_dead(v->shared->chain, m->who))
			rc = place(v, SOP_SLOT_FENCE, &d, sizeof(d), e); /* it is gone then */
		else
			i++;
	}
	return rc;
}

struct left {
	struct sop_volume *v;
	struct sop_err *e;
};

/* What a mounter of this base has written that is gone: nodes, when no image is made of them; and
 * what it had not committed anything of. */
static int remove_left(void *arg, uint64_t id)
{
	struct left *l = arg;

	if (sop_shared_whose(l->v, id) != SOP_SEGMENT_OTHERS ||
		sop_roster_needs(&l->v->shared->roster, number_of(id)) ||
		sop_space_knows(l->v->space, id))
		return 0;
	return sop_segments_remove(l->v->seg, id, l->e);
}

static int let_go(struct sop_volume *v, struct sop_err *e)
{
	struct sop_shared *s = v->shared;
	int rc;

	if (s->roster.floor.slot <= s->trimmed || trim(v, &s->roster.floor, false))
		return 0;
	rc = sop_segments_scan(v->seg, remove_left, &(struct left){v, e}, e);
	if (!rc)
		s->trimmed = s->roster.floor.slot;
	return rc;
}

int sop_shared_tick(struct sop_volume *v, struct sop_err *e)
{
	int rc;

	SOP_LOCK_GUARD(&v->commit);
	rc = v->dead ? 0 : sop_shared_follow(v, e);
	if (rc || v->dead)
		return rc;
	rc = tell_seen(v, e);
	if (!rc)
		rc = fence_dead(v, e);
	if (!rc)
		rc = let_go(v, e);
	/* A slot that another had: next time. */
	return rc == 1 ? 0 : rc;
}

uint64_t sop_shared_pin(const struct sop_volume *v)
{
	return sop_roster_pin(&v->shared->roster);
}

bool sop_shared_imaged(const struct sop_volume *v, uint64_t from, uint64_t to)
{
	return sop_roster_imaged(&v->shared->roster, from, to);
}

/* ---- catching up ---- */

int sop_volume_catch_up(struct sop_volume *v, struct sop_err *e)
{
	if (!sop_shared_live(v))
		return 0;
	SOP_LOCK_GUARD(&v->commit);
	return v->dead ? 0 : sop_shared_follow(v, e);
}
