/* The front of coordination: see coord.h.
 *
 * One session at a time, of one generation. Its thread asks for a session when the backend has a
 * connection, renews the lease, and calls events; calls of other threads wait for the session, send
 * a request, and wait for the answer, all within wait_ms.
 *
 *   away --connected()--> asking (JOIN) --answered--> joined --cut()--> (connecting) --away()-->
 * away
 *
 * The lease counts from before the request was sent that granted it: the server counts from when it
 * got it, which is later, so that what is over there is over here, whatever the delays were. An
 * answer that says -ESTALE means that the server knows no such session or generation: a new one is
 * asked for, under a new id.
 *
 * What fails: a server that does not answer is found by whoever waits, or by the renewal, and the
 * connection is dropped ("suspect"); what was under way has then been done or not. Requests that
 * may be done twice are sent again; of locks see coord_hold.c. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "core/coord_front.h"
#include "core/patience.h"

static uint64_t clock_ms(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

uint64_t sop_coord_boot_ms(const struct sop_coord *c)
{
	return c->opt.boot_ms ? c->opt.boot_ms(c->opt.boot_arg) : clock_ms(CLOCK_BOOTTIME);
}

void *sop_coord_data(struct sop_coord *c)
{
	return c->data;
}

void sop_coord_set_data(struct sop_coord *c, void *data)
{
	c->data = data;
}

const struct sop_coord_options *sop_coord_opts(const struct sop_coord *c)
{
	return &c->opt;
}

/* ---- requests ---- */

struct sop_coord_request *sop_coord_request_new(struct sop_coord *c, enum sop_coord_op op)
{
	struct sop_coord_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->c = c;
	r->op = op;
	r->refs = 1;
	sop_cond_init(&r->over);
	return r;
}

/* What an answer has brought. */
static void forget_answer(struct sop_coord_request *r)
{
	free(r->member);
	free(r->expired);
	r->member = NULL;
	r->expired = NULL;
	r->member_count = r->expired_count = 0;
	r->trouble[0] = 0;
	r->got = r->got_tip = r->got_session = r->got_grant = r->lost = r->wait_ms = 0;
	r->mine = r->done = false;
	memset(&r->by, 0, sizeof(r->by));
}

void sop_coord_request_put(struct sop_coord_request *r)
{
	if (!r || --r->refs)
		return;
	forget_answer(r);
	free(r->claims);
	pthread_cond_destroy(&r->over);
	free(r);
}

void sop_coord_answer(struct sop_coord_request *r)
{
	struct sop_coord *c = r->c;

	SOP_LOCK_GUARD(&c->lock);
	if (r->rc == -ESTALE && r->session == c->session && r->generation == c->generation)
		c->joined = false;
	if (r->then)
		r->then(c, r);
	r->done = true;
	pthread_cond_broadcast(&r->over);
	pthread_cond_broadcast(&c->changed);
	pthread_cond_signal(&c->due);
	sop_coord_request_put(r);
}

void sop_coord_send(struct sop_coord_request *r)
{
	struct sop_coord *c = r->c;

	r->generation = c->generation;
	r->session = c->session;
	r->sent_ms = sop_coord_boot_ms(c);
	r->sent = true;
	c->round_trips++;
	sop_unlock(&c->lock);
	c->backend->submit(c, r);
	sop_lock(&c->lock);
}

/* c->lock held: until there is a session, and why there is none. */
static int wait_joined(struct sop_coord *c, struct sop_patience *patience)
{
	while (!c->joined) {
		uint64_t ms;

		if (c->stop)
			return -ECANCELED;
		if (c->away)
			return -ENOTCONN;
		ms = sop_patience_slice(patience);
		if (!ms)
			return SOP_ETIMEOUT;
		sop_cond_wait(&c->changed, &c->lock, (long)ms);
	}
	return 0;
}

/* c->lock held. Waits for r, which has been sent; when it does not come, it is left to itself. */
static int wait_done(struct sop_coord_request *r, struct sop_patience *patience)
{
	struct sop_coord *c = r->c;

	while (!r->done) {
		uint64_t ms = sop_patience_slice(patience);

		if (!ms) {
			r->unclaimed = true;
			return SOP_ETIMEOUT;
		}
		sop_cond_wait(&r->over, &c->lock, (long)ms);
	}
	return r->rc;
}

int sop_coord_call_locked(struct sop_coord_request *r)
{
	struct sop_coord *c = r->c;
	struct sop_patience patience = sop_patience(c->opt.wait_ms);
	int rc;

	for (;;) {
		rc = wait_joined(c, &patience);
		if (rc)
			return rc;
		forget_answer(r);
		r->refs++;
		sop_coord_send(r);
		rc = wait_done(r, &patience);
		if (rc == SOP_ETIMEOUT) {
			sop_unlock(&c->lock);
			c->backend->suspect(c, "does not answer");
			sop_lock(&c->lock);
		}
		if ((rc != -ESTALE && rc != -ENOTCONN) || r->once || !sop_patience_slice(&patience))
			return rc;
	}
}

int sop_coord_explain(
	struct sop_coord *c, const struct sop_coord_request *r, int rc, struct sop_err *e)
{
	if (rc == SOP_ETIMEOUT)
		return sop_fail(e, rc, "%s: no answer within %u ms", c->server, c->opt.wait_ms);
	if (rc == -ENOTCONN && c->trouble[0])
		return sop_say(e, rc, "%s", c->trouble);
	if (rc == -EIO && r && r->done && r->trouble[0])
		return sop_say(e, rc, "%s: %s", c->server, r->trouble);
	return rc ? sop_fail(e, rc, "%s", c->server) : 0;
}

void sop_coord_end_call(struct sop_coord *c)
{
	if (!--c->calls && c->stop)
		pthread_cond_broadcast(&c->changed);
}

int sop_coord_call(struct sop_coord_request *r, struct sop_err *e)
{
	struct sop_coord *c = r->c;
	int rc;

	SOP_LOCK_GUARD(&c->lock);
	c->calls++;
	rc = sop_coord_explain(c, r, sop_coord_call_locked(r), e);
	sop_coord_end_call(c);
	return rc;
}

/* Call and let go of it. */
static int call_once(struct sop_coord *c, struct sop_coord_request *r, struct sop_err *e)
{
	int rc = sop_coord_call(r, e);

	SOP_LOCK_GUARD(&c->lock);
	sop_coord_request_put(r);
	return rc;
}

static int no_memory(struct sop_err *e)
{
	return sop_fail(e, -ENOMEM, "coordination");
}

/* ---- what backends say ---- */

static void raise_tip(struct sop_coord *c, uint64_t tip)
{
	if (tip <= c->tip)
		return;
	c->tip = tip;
	pthread_cond_signal(&c->due);
}

void sop_coord_heard_tip(struct sop_coord *c, uint64_t tip, uint64_t next)
{
	SOP_LOCK_GUARD(&c->lock);
	raise_tip(c, tip);
	if (next && next == c->session) {
		c->turn_here = true;
		pthread_cond_broadcast(&c->changed);
	}
}

void sop_coord_heard_settled(struct sop_coord *c)
{
	SOP_LOCK_GUARD(&c->lock);
	sop_coord_tell_all_waiting(c);
}

void sop_coord_connected(struct sop_coord *c)
{
	SOP_LOCK_GUARD(&c->lock);
	c->connected = true;
	c->joining = c->joined = false;
	c->connections++;
	pthread_cond_signal(&c->due);
}

void sop_coord_cut(struct sop_coord *c)
{
	SOP_LOCK_GUARD(&c->lock);
	c->connected = c->joined = false;
	pthread_cond_broadcast(&c->changed);
}

void sop_coord_away(struct sop_coord *c, const char *fmt, ...)
{
	va_list ap;

	SOP_LOCK_GUARD(&c->lock);
	c->connected = c->joined = false;
	va_start(ap, fmt);
	vsnprintf(c->trouble, sizeof(c->trouble), fmt, ap);
	va_end(ap);
	if (!c->away) {
		c->away = true;
		c->since_ms = sop_coord_boot_ms(c);
	}
	pthread_cond_broadcast(&c->changed);
	pthread_cond_signal(&c->due);
}

/* ---- session ---- */

static bool lease_over(const struct sop_coord *c, unsigned thirds)
{
	return !c->session ||
	       sop_coord_boot_ms(c) - c->good_ms >= (uint64_t)c->opt.lease_ms * thirds / 3;
}

uint64_t sop_coord_session(struct sop_coord *c)
{
	SOP_LOCK_GUARD(&c->lock);
	return c->session;
}

bool sop_coord_may_commit(struct sop_coord *c, uint64_t session)
{
	SOP_LOCK_GUARD(&c->lock);
	return session && session == c->session && !lease_over(c, 2);
}

bool sop_coord_grant_lost(struct sop_coord *c, uint64_t grant)
{
	SOP_LOCK_GUARD(&c->lock);
	return grant <= c->grants_lost;
}

static void note_renewed(struct sop_coord *c, const struct sop_coord_request *r)
{
	c->good_ms = SOP_MAX(c->good_ms, r->sent_ms);
	c->renew_ms = r->sent_ms + c->opt.lease_ms * 3 / 10;
}

/* Locks are kept over a change of session when the server has forgotten all sessions while ours was
 * good: then a new generation grants them to nobody else. In the same one, ours has been revoked.
 */
static bool keeps_locks(const struct sop_coord *c, const struct sop_coord_request *r)
{
	return r->keeps && !r->lost && r->got != c->generation;
}

static void on_joined(struct sop_coord *c, struct sop_coord_request *r)
{
	bool same, broken;

	c->joining = false;
	c->asked_ms = 0;
	if (r->rc == -EIO) {
		c->refused = true;
		snprintf(c->trouble, sizeof(c->trouble), "%s: %s", c->server, r->trouble);
	}
	if (r->rc || !c->connected)
		return;
	same = c->session == r->got_session && c->generation == r->got;
	broken = !same && c->session && !keeps_locks(c, r);
	c->grant_high = SOP_MAX(c->grant_high, r->got_grant);
	if (broken)
		c->grants_lost = c->grant_high;
	if (!same)
		sop_coord_locks_joined(c, r->doubts, broken);
	c->locks_due = true;
	c->broken |= broken; /* until it is told */
	c->generation = r->got;
	c->session = r->got_session;
	c->proposal = 0;
	c->good_ms = same ? SOP_MAX(c->good_ms, r->sent_ms) : r->sent_ms;
	c->renew_ms = r->sent_ms + c->opt.lease_ms * 3 / 10;
	c->joined = true;
	c->list_due = true;
	c->turn_here = false;
	c->trouble[0] = 0;
	if (c->away)
		c->since_ms = sop_coord_boot_ms(c);
	c->away = false;
	raise_tip(c, r->got_tip);
	/* What was said while there was no connection has not been heard. */
	sop_coord_tell_all_waiting(c);
}

/* c->lock held. False: no memory. */
static bool ask_join(struct sop_coord *c)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_JOIN);

	if (!r)
		return false;
	/* The same until it is answered, so that an answer that was lost leaves no second session
	 * behind. */
	while (!c->proposal)
		sop_random(&c->proposal, sizeof(c->proposal));
	r->target = c->proposal;
	r->tip = c->tip;
	r->applied = c->applied;
	r->pin = c->pin;
	r->grant = c->grant_high;
	r->keeps = !lease_over(c, 3);
	r->doubts = c->doubts;
	if (r->keeps && sop_coord_locks_claim(c, &r->claims, &r->claim_count)) {
		sop_coord_request_put(r);
		return false;
	}
	r->then = on_joined;
	c->joining = true;
	c->asked_ms = now_ms();
	sop_coord_send(r);
	return true;
}

static void keep_expired(struct sop_coord *c, const struct sop_coord_request *r)
{
	if (!r->expired_count || c->expired_count)
		return; /* they are said again with the next renewal */
	c->expired = malloc(r->expired_count * sizeof(*c->expired));
	if (!c->expired)
		return;
	memcpy(c->expired, r->expired, r->expired_count * sizeof(*c->expired));
	c->expired_count = r->expired_count;
}

static void on_renewed(struct sop_coord *c, struct sop_coord_request *r)
{
	c->asked_ms = 0;
	if (r->rc || r->session != c->session)
		return;
	note_renewed(c, r);
	raise_tip(c, r->got);
	keep_expired(c, r);
	c->list_due = true;
}

/* With each renewal, for those who want a list without waiting. */
static void on_listed(struct sop_coord *c, struct sop_coord_request *r)
{
	if (r->rc)
		return;
	free(c->member);
	c->member = r->member;
	c->member_count = r->member_count;
	c->member_ms = sop_coord_boot_ms(c);
	r->member = NULL;
}

/* c->lock held. */
static void ask_list(struct sop_coord *c)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_LIST);

	c->list_due = false;
	if (!r)
		return;
	r->then = on_listed;
	c->renewals++;
	sop_coord_send(r);
}

/* c->lock held. */
static void ask_renewal(struct sop_coord *c)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_RENEW);

	c->renew_ms = sop_coord_boot_ms(c) + c->opt.lease_ms * 3 / 10;
	if (!r)
		return;
	r->applied = c->applied;
	r->pin = c->pin;
	r->then = on_renewed;
	c->renewals++;
	c->asked_ms = now_ms();
	sop_coord_send(r);
}

void sop_coord_progress(struct sop_coord *c, uint64_t applied, uint64_t pin)
{
	SOP_LOCK_GUARD(&c->lock);
	c->applied = SOP_MAX(c->applied, applied);
	c->pin = SOP_MAX(c->pin, SOP_MIN(pin, c->applied));
}

int sop_coord_list(
	struct sop_coord *c, struct sop_coord_member **out, size_t *count, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_LIST);
	int rc;

	if (!r)
		return no_memory(e);
	rc = sop_coord_call(r, e);
	SOP_LOCK_GUARD(&c->lock);
	if (!rc) {
		*out = r->member;
		*count = r->member_count;
		r->member = NULL;
		for (size_t i = 0; i < *count; i++)
			(*out)[i].me = (*out)[i].session == c->session;
	}
	sop_coord_request_put(r);
	return rc;
}

int sop_coord_list_seen(
	struct sop_coord *c, struct sop_coord_member **out, size_t *count, struct sop_err *e)
{
	uint64_t since;

	SOP_LOCK_GUARD(&c->lock);
	*out = calloc(c->member_count + 1, sizeof(**out));
	if (!*out)
		return no_memory(e);
	*count = c->member_count;
	since = sop_coord_boot_ms(c) - c->member_ms;
	for (size_t i = 0; i < *count; i++) {
		struct sop_coord_member *m = &(*out)[i];

		*m = c->member[i];
		m->me = m->session == c->session;
		m->age_ms += since;
		m->lease_ms -= (int64_t)since;
	}
	return 0;
}

int sop_coord_revoke(struct sop_coord *c, uint64_t session, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_LEAVE);
	int rc;

	if (!r)
		return no_memory(e);
	r->target = session;
	rc = call_once(c, r, e);
	return rc == -EAGAIN ? sop_fail(e, -EBUSY, "session %016llx has not run out",
				       (unsigned long long)session)
			     : rc;
}

int sop_coord_alone(struct sop_coord *c, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_ALONE);

	return r ? call_once(c, r, e) : no_memory(e);
}

int sop_coord_pins_min(struct sop_coord *c, uint64_t *pin, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_PINS);
	int rc;

	if (!r)
		return no_memory(e);
	rc = sop_coord_call(r, e);
	SOP_LOCK_GUARD(&c->lock);
	if (!rc)
		*pin = r->got;
	sop_coord_request_put(r);
	return rc;
}

/* ---- the chain ---- */

uint64_t sop_coord_tip_seen(struct sop_coord *c)
{
	SOP_LOCK_GUARD(&c->lock);
	return c->tip;
}

static void on_tip(struct sop_coord *c, struct sop_coord_request *r)
{
	if (!r->rc)
		raise_tip(c, r->got);
}

/* Who comes while a request is under way waits for the next, and all of them share it: the one
 * under way may have been answered before they came. c->lock held. */
static int tip_locked(struct sop_coord *c)
{
	struct sop_patience patience = sop_patience(c->opt.wait_ms);
	uint64_t wanted = c->tip_asked + 1, ms;
	int rc = 0;

	while (c->tip_answered < wanted && !rc) {
		struct sop_coord_request *r;
		uint64_t mine;

		if (c->tip_flying) {
			ms = sop_patience_slice(&patience);
			if (!ms)
				return SOP_ETIMEOUT;
			sop_cond_wait(&c->changed, &c->lock, (long)ms);
			continue;
		}
		r = sop_coord_request_new(c, SOP_COORD_TIP);
		if (!r)
			return -ENOMEM;
		mine = ++c->tip_asked;
		c->tip_flying = true;
		r->then = on_tip;
		rc = sop_coord_call_locked(r);
		sop_coord_request_put(r);
		c->tip_flying = false;
		if (!rc)
			c->tip_answered = mine;
		pthread_cond_broadcast(&c->changed);
	}
	return rc;
}

int sop_coord_tip(struct sop_coord *c, uint64_t *tip, struct sop_err *e)
{
	int rc;

	SOP_LOCK_GUARD(&c->lock);
	c->calls++;
	rc = sop_coord_explain(c, NULL, tip_locked(c), e);
	*tip = c->tip;
	sop_coord_end_call(c);
	return rc;
}

static void on_reserved(struct sop_coord *c, struct sop_coord_request *r)
{
	if (r->rc)
		return;
	raise_tip(c, r->got);
	if (r->mine)
		c->turn_here = true;
}

int sop_coord_reserve(struct sop_coord *c, struct sop_coord_turn *turn, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_RESERVE);
	struct sop_patience patience;
	uint64_t ms;
	int rc;

	if (!r)
		return no_memory(e);
	r->then = on_reserved;
	SOP_LOCK_GUARD(&c->lock);
	c->calls++;
	c->turn_here = false;
	rc = sop_coord_explain(c, r, sop_coord_call_locked(r), e);
	patience = sop_patience(c->opt.hold_ms);
	while (!rc && !c->turn_here && c->joined && !c->stop &&
		(ms = sop_patience_slice(&patience)))
		sop_cond_wait(&c->changed, &c->lock, (long)ms);
	turn->tip = c->tip;
	turn->mine = c->turn_here;
	sop_coord_request_put(r);
	sop_coord_end_call(c);
	return rc;
}

int sop_coord_publish(struct sop_coord *c, uint64_t tip, struct sop_err *e)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_PUBLISH);

	if (!r)
		return no_memory(e);
	r->tip = tip;
	sop_lock(&c->lock);
	raise_tip(c, tip);
	c->turn_here = false;
	sop_unlock(&c->lock);
	return call_once(c, r, e);
}

void sop_coord_yield(struct sop_coord *c)
{
	struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_PUBLISH);

	if (!r)
		return; /* the turn ends by itself */
	SOP_LOCK_GUARD(&c->lock);
	c->turn_here = false;
	if (c->joined)
		sop_coord_send(r);
	else
		sop_coord_request_put(r);
}

/* ---- the thread ---- */

/* c->lock held, and let go while an event is called; true: one was. */
static bool tell(struct sop_coord *c)
{
	const struct sop_coord_events *on = &c->opt.on;
	bool up = c->joined, unbroken = !c->broken;
	uint64_t session = c->session, tip = c->tip;

	if (up != c->told_up && (up || c->away)) {
		c->told_up = up;
		sop_unlock(&c->lock);
		sop_log(c->opt.log, up ? SOP_LOG_INFO : SOP_LOG_WARNING, "coord", "server=%s: %s",
			c->server, up ? "answers" : "is away");
		if (on->state)
			on->state(on->arg, up);
	} else if (session != c->told_session) {
		c->told_session = session;
		c->broken = false;
		sop_unlock(&c->lock);
		if (on->session)
			on->session(on->arg, session, unbroken);
	} else if (tip != c->told_tip) {
		c->told_tip = tip;
		sop_unlock(&c->lock);
		if (on->tip)
			on->tip(on->arg, tip);
	} else {
		return false;
	}
	sop_lock(&c->lock);
	return true;
}

/* c->lock held, and let go meanwhile. */
static bool handle_expired(struct sop_coord *c)
{
	uint64_t session;

	if (!c->expired_count)
		return false;
	session = c->expired[--c->expired_count];
	if (!c->expired_count) {
		free(c->expired);
		c->expired = NULL;
	}
	if (c->opt.on.expired) {
		sop_unlock(&c->lock);
		c->opt.on.expired(c->opt.on.arg, session);
		sop_lock(&c->lock);
	} else if (c->joined) {
		struct sop_coord_request *r = sop_coord_request_new(c, SOP_COORD_LEAVE);

		if (r) {
			r->target = session;
			sop_coord_send(r);
		}
	}
	return true;
}

/* c->lock held, and let go meanwhile; true: something was done. */
static bool keep_session(struct sop_coord *c)
{
	if (!c->connected || c->stopped)
		return false;
	if (c->refused || (c->asked_ms && now_ms() - c->asked_ms >= c->opt.wait_ms)) {
		char why[sizeof(c->trouble)];

		snprintf(why, sizeof(why), "%s", c->refused ? c->trouble : "does not answer");
		c->asked_ms = 0;
		c->refused = false;
		sop_unlock(&c->lock);
		c->backend->suspect(c, why);
		sop_lock(&c->lock);
		return true;
	}
	if (c->asked_ms)
		return false;
	if (!c->joined && !c->joining)
		return ask_join(c);
	if (c->joined && sop_coord_boot_ms(c) >= c->renew_ms) {
		ask_renewal(c);
		return true;
	}
	if (c->joined && c->list_due) {
		ask_list(c);
		return true;
	}
	return false;
}

/* How long until there is something to do that nobody will wake the thread for. */
static long idle_ms(const struct sop_coord *c)
{
	uint64_t boot = sop_coord_boot_ms(c), next = c->opt.lease_ms, now = now_ms();

	if (c->asked_ms)
		next = c->asked_ms + c->opt.wait_ms > now ? c->asked_ms + c->opt.wait_ms - now : 1;
	if (c->connected && !c->joined && !c->joining)
		next = 10; /* there was no memory */
	if (c->joined && !c->stopped)
		next = SOP_MIN(next, c->renew_ms > boot ? c->renew_ms - boot : 1);
	if (c->young_ms)
		next = SOP_MIN(next, c->young_ms > boot ? c->young_ms - boot : 1);
	return (long)next;
}

static void *run(void *arg)
{
	struct sop_coord *c = arg;

	SOP_LOCK_GUARD(&c->lock);
	while (!c->stop) {
		if (c->young_ms && sop_coord_boot_ms(c) >= c->young_ms) {
			c->young_ms = 0;
			sop_coord_tell_all_waiting(c);
		}
		if (keep_session(c) || tell(c) || handle_expired(c) || sop_coord_locks_work(c))
			continue;
		sop_cond_wait(&c->due, &c->lock, idle_ms(c));
	}
	return NULL;
}

/* ---- open and close ---- */

static void release(struct sop_coord *c)
{
	sop_coord_locks_free(c);
	pthread_cond_destroy(&c->changed);
	pthread_cond_destroy(&c->due);
	sop_lock_release(&c->lock);
	free(c->expired);
	free(c->member);
	free(c->url);
	free(c->password_file);
	free(c->host);
	free(c->where);
	free(c);
}

/* The copies of what the caller's options point to; NULL stays NULL. */
static int copy_text(char **copy, const char **field)
{
	if (!*field)
		return 0;
	*copy = strdup(*field);
	*field = *copy;
	return *copy ? 0 : -ENOMEM;
}

static int take_options(struct sop_coord *c, const struct sop_coord_options *o)
{
	char host[SOP_COORD_TEXT] = "";

	c->opt = *o;
	if (!c->opt.host) {
		if (gethostname(host, sizeof(host) - 1))
			snprintf(host, sizeof(host), "unknown");
		c->opt.host = host;
	}
	if (!c->opt.where)
		c->opt.where = "";
	if (!c->opt.lease_ms)
		c->opt.lease_ms = SOP_COORD_LEASE_MS;
	if (!c->opt.wait_ms)
		c->opt.wait_ms = SOP_COORD_WAIT_MS;
	if (!c->opt.hold_ms)
		c->opt.hold_ms = SOP_COORD_HOLD_MS;
	if (copy_text(&c->url, &c->opt.url) ||
		copy_text(&c->password_file, &c->opt.password_file) ||
		copy_text(&c->host, &c->opt.host) || copy_text(&c->where, &c->opt.where))
		return -ENOMEM;
	c->backend = c->opt.url ? &sop_coord_redis : &sop_coord_local;
	return 0;
}

static int show_server(struct sop_coord *c, struct sop_err *e)
{
	struct sop_coord_url u;
	int rc;

	if (!c->opt.url) {
		snprintf(c->server, sizeof(c->server), "embedded");
		return 0;
	}
	rc = sop_coord_url_parse(&u, c->opt.url, e);
	if (!rc)
		sop_coord_url_show(&u, c->server);
	explicit_bzero(&u, sizeof(u));
	return rc;
}

void sop_coord_server(const struct sop_coord *c, char *text)
{
	memcpy(text, c->server, sizeof(c->server));
}

int sop_coord_open(struct sop_coord **out, const struct sop_coord_options *o, struct sop_err *e)
{
	struct sop_coord *c = calloc(1, sizeof(*c));
	struct sop_patience patience;
	int rc;

	if (!c)
		return no_memory(e);
	sop_lock_init(&c->lock, SOP_RANK_LEAF, "coord");
	sop_cond_init(&c->changed);
	sop_cond_init(&c->due);
	rc = take_options(c, o);
	if (rc)
		rc = no_memory(e);
	else
		rc = show_server(c, e);
	if (rc) {
		release(c);
		return rc;
	}
	c->since_ms = sop_coord_boot_ms(c);
	rc = c->backend->open(c, e);
	if (rc) {
		release(c);
		return rc;
	}
	rc = pthread_create(&c->thread, NULL, run, c);
	if (rc) {
		c->backend->close(c);
		release(c);
		return sop_fail(e, -rc, "coordination: thread");
	}
	patience = sop_patience(c->opt.wait_ms);
	sop_lock(&c->lock);
	(void)wait_joined(c, &patience); /* the state says how it went */
	sop_unlock(&c->lock);
	*out = c;
	return 0;
}

/* c->lock held, and let go meanwhile. Says goodbye, when there is somebody to hear it. */
static void leave(struct sop_coord *c)
{
	struct sop_patience patience = sop_patience(c->opt.wait_ms);
	struct sop_coord_request *r;

	if (!c->joined || c->killed || !(r = sop_coord_request_new(c, SOP_COORD_LEAVE)))
		return;
	r->target = c->session;
	r->refs++;
	sop_coord_send(r);
	(void)wait_done(r, &patience);
	sop_coord_request_put(r);
}

void sop_coord_close(struct sop_coord *c)
{
	if (!c)
		return;
	sop_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->changed);
	pthread_cond_signal(&c->due);
	while (c->calls)
		sop_cond_wait(&c->changed, &c->lock, -1);
	sop_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	sop_lock(&c->lock);
	leave(c);
	sop_unlock(&c->lock);
	c->backend->close(c);
	release(c);
}

void sop_coord_kill(struct sop_coord *c)
{
	sop_lock(&c->lock);
	c->killed = true;
	sop_unlock(&c->lock);
	sop_coord_close(c);
}

void sop_coord_stop(struct sop_coord *c, bool stopped)
{
	SOP_LOCK_GUARD(&c->lock);
	c->stopped = stopped;
	pthread_cond_signal(&c->due);
}

void sop_coord_state(struct sop_coord *c, struct sop_coord_state *out)
{
	SOP_LOCK_GUARD(&c->lock);
	memset(out, 0, sizeof(*out));
	out->up = c->joined;
	out->for_ms = sop_coord_boot_ms(c) - c->since_ms;
	out->generation = c->generation;
	out->round_trips = c->round_trips;
	out->renewals = c->renewals;
	out->connections = c->connections;
	if (!c->joined)
		snprintf(out->trouble, sizeof(out->trouble), "%s",
			c->trouble[0] ? c->trouble : "no answer yet");
}
