/* Locks of a mounter, as its front keeps them: see coord.h.
 *
 * What is held here is what the server is asked for again when it has forgotten. The invariant:
 * once a request has been answered, the server holds for us what is noted here, or more
 * ("doubtful"); never less, but by the loss of the session. So what shrinks is noted before the
 * request is sent, and what grows after it was answered. A request whose answer was lost, or came
 * when nobody waited any more, leaves its object doubtful, and the thread brings the server's mind
 * in line. Requests for one object go one at a time. */
#include <fcntl.h>

#include "core/clock.h"
#include "core/coord_front.h"
#include "core/patience.h"

static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(NULL);
}

/* ---- objects; c->lock held ---- */

static struct coord_object **slot_of(struct sop_coord *c, uint64_t object)
{
	struct coord_object **at = &c->object[(object * 0x9e3779b97f4a7c15u) >> 56];

	while (*at && (*at)->object != object)
		at = &(*at)->next;
	return at;
}

static struct coord_object *object_get(struct sop_coord *c, uint64_t object)
{
	struct coord_object **at = slot_of(c, object), *o = *at;

	if (!o) {
		o = calloc(1, sizeof(*o));
		if (!o)
			return NULL;
		o->object = object;
		*at = o;
	}
	o->users++;
	return o;
}

static void object_free(struct coord_object *o)
{
	free(o->held.list);
	free(o->waits);
	free(o);
}

static void object_put(struct sop_coord *c, struct coord_object *o)
{
	struct coord_object **at;

	if (--o->users || o->held.count || o->wait_count || o->doubt)
		return;
	at = slot_of(c, o->object);
	*at = o->next;
	object_free(o);
}

void sop_coord_locks_free(struct sop_coord *c)
{
	for (size_t i = 0; i < BUCKETS; i++)
		while (c->object[i]) {
			struct coord_object *o = c->object[i];

			c->object[i] = o->next;
			object_free(o);
		}
}

/* ---- who waits; c->lock held ---- */

static bool same_owner(const struct sop_coord_lock *a, const struct sop_coord_lock *b)
{
	return a->owner == b->owner && a->whole == b->whole;
}

static void waits_remove(struct coord_object *o, const struct sop_coord_lock *l)
{
	for (size_t i = 0; i < o->wait_count;)
		if (sop_coord_same_wait(&o->waits[i], l))
			o->waits[i] = o->waits[--o->wait_count];
		else
			i++;
}

static int waits_add(struct coord_object *o, const struct sop_coord_lock *l)
{
	waits_remove(o, l);
	if (o->wait_count == o->wait_room) {
		size_t room = o->wait_room * 2 + 4;
		struct sop_coord_lock *w = reallocarray(o->waits, room, sizeof(*w));

		if (!w)
			return -ENOMEM;
		o->waits = w;
		o->wait_room = room;
	}
	o->waits[o->wait_count++] = *l;
	return 0;
}

/* The server may have more of ours than is noted. */
static void doubt(struct sop_coord *c, struct coord_object *o)
{
	o->doubt = ++c->doubts;
	c->locks_due = true;
	pthread_cond_signal(&c->due);
}

static void tell_waiting(struct sop_coord *c, struct coord_object *o)
{
	o->heard++;
	o->tell = o->wait_count != 0;
	c->locks_due |= o->tell;
	pthread_cond_broadcast(&c->changed);
	pthread_cond_signal(&c->due);
}

void sop_coord_tell_all_waiting(struct sop_coord *c)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct coord_object *o = c->object[i]; o; o = o->next)
			tell_waiting(c, o);
}

void sop_coord_heard_unlocked(struct sop_coord *c, uint64_t object)
{
	struct coord_object *o;

	SOP_LOCK_GUARD(&c->lock);
	o = *slot_of(c, object);
	if (o)
		tell_waiting(c, o);
}

/* ---- one request ---- */

/* What the owner holds for writing within a range that it wants for reading becomes that before it
 * is asked. */
static int note_downgrade(struct coord_object *o, const struct sop_coord_lock *l)
{
	uint64_t first = l->whole ? 0 : l->start, last = l->whole ? UINT64_MAX : l->end;

	for (size_t i = 0; i < o->held.count; i++) {
		struct sop_coord_lock k = o->held.list[i].lock;

		if (!same_owner(&k, l) || k.type != F_WRLCK || k.end < first || k.start > last)
			continue;
		k.type = F_RDLCK;
		k.start = SOP_MAX(k.start, first);
		k.end = SOP_MIN(k.end, last);
		if (sop_coord_locks_put(&o->held, 0, &k))
			return -ENOMEM;
		i = (size_t)-1; /* the list has changed */
	}
	return 0;
}

static void on_locked(
	struct sop_coord *c, struct coord_object *o, const struct sop_coord_request *r)
{
	o->busy = false;
	if (r->rc == -EAGAIN && r->mine)
		c->young_ms = sop_coord_boot_ms(c) + r->wait_ms + 1;
	/* A refusal leaves things as they were, but what was noted as shrunk has not. */
	if (r->rc && (r->lock.type != F_WRLCK || (r->rc != -EAGAIN && r->rc != -EDEADLK)))
		doubt(c, o);
	if (r->rc || r->lock.type == F_UNLCK)
		return;
	/* Granted: to nobody who still waits, or too much to be noted. */
	c->grant_high = SOP_MAX(c->grant_high, r->got);
	if (r->unclaimed || sop_coord_locks_put(&o->held, 0, &r->lock))
		doubt(c, o);
}

/* Nobody may wait for it any more, and so nothing else hold the object. */
static void on_lock_answered(struct sop_coord *c, struct sop_coord_request *r)
{
	struct coord_object *o = *slot_of(c, r->lock.object);

	on_locked(c, o, r);
	object_put(c, o);
}

/* c->lock held: the object is ours alone. */
static int take_object(struct sop_coord *c, struct coord_object *o)
{
	struct sop_patience patience = sop_patience(c->opt.wait_ms);

	while (o->busy) {
		uint64_t ms = sop_patience_slice(&patience);

		if (c->stop)
			return -ECANCELED;
		if (!ms)
			return SOP_ETIMEOUT;
		sop_cond_wait(&c->changed, &c->lock, (long)ms);
	}
	o->busy = true;
	return 0;
}

/* What has to be noted before it is asked. */
static int note_before(struct coord_object *o, const struct sop_coord_lock *l)
{
	if (l->type == F_UNLCK)
		return sop_coord_locks_put(&o->held, 0, l);
	return l->type == F_RDLCK ? note_downgrade(o, l) : 0;
}

/* c->lock held. One try. */
static int try_lock(struct sop_coord *c, struct coord_object *o, const struct sop_coord_lock *l,
	uint64_t *grant, struct sop_coord_holder *by, uint64_t *young_ms)
{
	struct sop_coord_request *r;
	int rc = take_object(c, o);

	if (rc) {
		/* Its turn has not come, but it is over here. */
		if (l->type == F_UNLCK && !note_before(o, l))
			doubt(c, o);
		return rc;
	}
	rc = note_before(o, l);
	r = rc ? NULL : sop_coord_request_new(c, SOP_COORD_LOCK);
	if (!r) {
		o->busy = false;
		return -ENOMEM;
	}
	r->lock = *l;
	r->then = on_lock_answered;
	r->once = true;
	o->users++; /* the answer's */
	rc = sop_coord_call_locked(r);
	if (!r->sent) {
		/* What it took away here is still there. */
		o->users--;
		o->busy = false;
		if (l->type != F_WRLCK)
			doubt(c, o);
		pthread_cond_broadcast(&c->changed);
	}
	if (!rc && grant)
		*grant = r->got;
	if (by)
		*by = r->by;
	*young_ms = rc == -EAGAIN && r->mine ? r->wait_ms + 1 : 0;
	sop_coord_request_put(r);
	return rc;
}

/* c->lock held: until the object may have been unlocked, or young_ms (0: no matter) or the bound
 * has passed. */
static void await_room(struct sop_coord *c, const struct coord_object *o, uint64_t heard,
	uint64_t young_ms, uint64_t until)
{
	if (young_ms)
		until = SOP_MIN(until, now_ms() + young_ms);
	while (o->heard == heard && !c->stop) {
		uint64_t now = now_ms();

		if (now >= until)
			return;
		sop_cond_wait(&c->changed, &c->lock, (long)(until - now));
	}
}

/* c->lock held. */
static void send_forget(struct sop_coord *c, const struct sop_coord_lock *l)
{
	struct sop_coord_request *r = c->joined ? sop_coord_request_new(c, SOP_COORD_FORGET) : NULL;

	if (!r)
		return; /* it is told once too often, or ends with the session */
	r->lock = *l;
	sop_coord_send(r);
}

static int lock_waiting(struct sop_coord *c, struct coord_object *o, const struct sop_coord_lock *l,
	unsigned wait_ms, uint64_t *grant, struct sop_coord_holder *by)
{
	uint64_t start = now_ms(), call_until = start + c->opt.wait_ms;
	struct sop_coord_lock want = *l;
	int rc;

	want.waits = (l->waits || wait_ms) && l->type != F_UNLCK;
	if (want.waits && waits_add(o, &want))
		return -ENOMEM;
	for (;;) {
		uint64_t heard = o->heard, young_ms, now;

		rc = try_lock(c, o, &want, grant, by, &young_ms);
		now = now_ms();
		if ((rc == -ESTALE || (rc == -ENOTCONN && !c->away)) && now < call_until &&
			!c->stop)
			continue;
		if (rc != -EAGAIN || now >= start + wait_ms || c->stop)
			break;
		await_room(c, o, heard, young_ms, start + wait_ms);
	}
	if (want.waits && (rc != -EAGAIN || !l->waits))
		waits_remove(o, l);
	if (rc == -EAGAIN && want.waits && !l->waits)
		send_forget(c, l);
	return rc;
}

static bool well_formed(const struct sop_coord_lock *l)
{
	return (l->type == F_RDLCK || l->type == F_WRLCK || l->type == F_UNLCK) &&
	       (l->whole || l->start <= l->end);
}

int sop_coord_lock(struct sop_coord *c, const struct sop_coord_lock *l, unsigned wait_ms,
	uint64_t *grant, struct sop_coord_holder *by, struct sop_err *e)
{
	struct coord_object *o;
	int rc;

	if (!well_formed(l))
		return sop_fail(e, -EINVAL, "lock");
	SOP_LOCK_GUARD(&c->lock);
	c->calls++;
	o = object_get(c, l->object);
	rc = o ? lock_waiting(c, o, l, wait_ms, grant, by) : -ENOMEM;
	if (o)
		object_put(c, o);
	sop_coord_end_call(c);
	return sop_coord_explain(c, NULL, rc, e);
}

int sop_coord_lock_test(struct sop_coord *c, const struct sop_coord_lock *l,
	struct sop_coord_holder *by, struct sop_err *e)
{
	struct sop_coord_request *r;
	int rc;

	if (!well_formed(l))
		return sop_fail(e, -EINVAL, "lock");
	r = sop_coord_request_new(c, SOP_COORD_TEST);
	if (!r)
		return sop_fail(e, -ENOMEM, "coordination");
	r->lock = *l;
	rc = sop_coord_call(r, e);
	*by = r->by;
	if (!by->session)
		by->lock.type = F_UNLCK;
	SOP_LOCK_GUARD(&c->lock);
	sop_coord_request_put(r);
	return rc;
}

void sop_coord_lock_forget(struct sop_coord *c, const struct sop_coord_lock *l)
{
	struct coord_object *o;

	SOP_LOCK_GUARD(&c->lock);
	o = *slot_of(c, l->object);
	if (!o)
		return;
	o->users++;
	waits_remove(o, l);
	send_forget(c, l);
	object_put(c, o);
}

/* ---- a new session; c->lock held ---- */

static int copy_held(const struct coord_object *o, struct sop_coord_lock *out)
{
	for (size_t i = 0; i < o->held.count; i++) {
		out[i] = o->held.list[i].lock;
		out[i].object = o->object;
	}
	return (int)o->held.count;
}

int sop_coord_locks_claim(struct sop_coord *c, struct sop_coord_lock **out, size_t *count)
{
	size_t n = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		for (const struct coord_object *o = c->object[i]; o; o = o->next)
			n += o->held.count;
	*out = reallocarray(NULL, n + 1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	*count = 0;
	for (size_t i = 0; i < BUCKETS; i++)
		for (const struct coord_object *o = c->object[i]; o; o = o->next)
			*count += (size_t)copy_held(o, *out + *count);
	return 0;
}

/* The server holds what was claimed when the doubts were `doubts`, or nothing. */
void sop_coord_locks_joined(struct sop_coord *c, uint64_t doubts, bool broken)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct coord_object **at = &c->object[i], *o; (o = *at);) {
			if (broken)
				o->held.count = 0;
			if (o->doubt <= doubts)
				o->doubt = 0;
			if (o->users || o->held.count || o->wait_count || o->doubt) {
				at = &o->next;
				continue;
			}
			*at = o->next;
			object_free(o);
		}
	c->locks_due = true;
}

/* ---- the thread's part; c->lock held, and let go meanwhile ---- */

static void on_synced(struct sop_coord *c, struct sop_coord_request *r)
{
	struct coord_object *o = *slot_of(c, r->lock.object);

	o->busy = false;
	if (!r->rc && o->doubt == r->tip)
		o->doubt = 0;
	if (r->rc)
		c->sync_ms = r->sent_ms + c->opt.lease_ms / 10;
	if (!r->rc && r->lost) {
		o->held.count = 0;
		c->grants_lost = c->grant_high;
	}
	object_put(c, o);
}

/* False: no memory. */
static bool sync_object(struct sop_coord *c, struct coord_object *o)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_SYNC);

	if (r)
		r->claims = reallocarray(NULL, o->held.count + 1, sizeof(*r->claims));
	if (!r || !r->claims) {
		sop_coord_request_put(r);
		c->sync_ms = sop_coord_boot_ms(c) + c->opt.lease_ms / 10;
		return false;
	}
	r->lock.object = o->object;
	r->claim_count = (size_t)copy_held(o, r->claims);
	r->tip = o->doubt;
	r->then = on_synced;
	o->users++;
	o->busy = true;
	sop_coord_send(r);
	return true;
}

bool sop_coord_locks_work(struct sop_coord *c)
{
	bool may_sync = c->joined && sop_coord_boot_ms(c) >= c->sync_ms, left = false;

	if (!c->locks_due)
		return false;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct coord_object *o = c->object[i]; o; o = o->next) {
			if (o->tell && c->opt.on.unlocked) {
				uint64_t object = o->object;

				o->tell = false;
				sop_unlock(&c->lock);
				c->opt.on.unlocked(c->opt.on.arg, object);
				sop_lock(&c->lock);
				return true;
			}
			if (o->doubt && !o->busy && may_sync)
				return sync_object(c, o);
			left |= o->doubt != 0;
		}
	c->locks_due = left;
	return false;
}
