/* Embedded coordination: handles of one process that name the same volume meet in a hub, which is
 * what a server is to mounters of several machines, and follows the same rules (core/lua/). A
 * request is answered within the call that submits it; messages go to all handles under the hub's
 * lock. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "core/coord_own.h"

struct session {
	struct sop_coord_member m; /* m.lease_ms and m.age_ms are made when they are asked for */
	uint64_t joined_ms, until_ms;
};

struct waiter {
	uint64_t session;
	struct sop_coord_lock lock;
};

struct object {
	struct object *next;
	uint64_t object;
	struct sop_coord_locks held;
	struct waiter *wait;
	size_t wait_count, wait_room;
};

struct hub {
	struct hub *next;
	struct sop_uuid volume;
	size_t refs; /* under hubs_lock */
	struct sop_lock lock;
	/* under lock */
	struct sop_coord **handle;
	size_t handle_count, handle_room;
	uint64_t generation, grant, tip;
	uint64_t young_ms; /* until then nothing new is granted */
	uint64_t pause_ms; /* until then nobody is revoked */
	uint64_t beat_ms;  /* when somebody last renewed */
	struct session *session;
	size_t session_count, session_room;
	struct object *object;
	uint64_t turn, turn_ms; /* whose it is, until when */
	uint64_t *queue;	/* sessions */
	size_t queue_count, queue_room;
};

static pthread_mutex_t hubs_lock = PTHREAD_MUTEX_INITIALIZER;
static struct hub *hubs;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Room for one more in an array. */
static int grow(void **list, size_t count, size_t *room, size_t size)
{
	size_t more = *room * 2 + 4;
	void *p;

	if (count < *room)
		return 0;
	p = reallocarray(*list, more, size);
	if (!p)
		return -ENOMEM;
	*list = p;
	*room = more;
	return 0;
}

/* ---- messages ---- */

static void say_tip(struct hub *h)
{
	for (size_t i = 0; i < h->handle_count; i++)
		sop_coord_heard_tip(h->handle[i], h->tip, h->turn);
}

static void say_unlocked(struct hub *h, const struct object *o)
{
	if (!o->wait_count)
		return;
	for (size_t i = 0; i < h->handle_count; i++)
		sop_coord_heard_unlocked(h->handle[i], o->object);
}

/* ---- sessions ---- */

static struct session *find(struct hub *h, uint64_t session)
{
	for (size_t i = 0; session && i < h->session_count; i++)
		if (h->session[i].m.session == session)
			return &h->session[i];
	return NULL;
}

static void drop_waits(struct object *o, uint64_t session)
{
	for (size_t i = 0; i < o->wait_count;)
		if (o->wait[i].session == session)
			o->wait[i] = o->wait[--o->wait_count];
		else
			i++;
}

static void drop_locks(struct hub *h, uint64_t session)
{
	for (struct object *o = h->object; o; o = o->next) {
		drop_waits(o, session);
		if (sop_coord_locks_drop(&o->held, session))
			say_unlocked(h, o);
	}
}

static void free_objects(struct hub *h, bool all)
{
	for (struct object **at = &h->object, *o; (o = *at);) {
		if (!all && (o->held.count || o->wait_count)) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		free(o->held.list);
		free(o->wait);
		free(o);
	}
}

/* Whoever is next has the turn. */
static void next_turn(struct hub *h, uint64_t now, unsigned hold_ms)
{
	h->turn = 0;
	while (h->queue_count && !h->turn) {
		if (find(h, h->queue[0]))
			h->turn = h->queue[0];
		memmove(h->queue, h->queue + 1, --h->queue_count * sizeof(*h->queue));
	}
	h->turn_ms = now + hold_ms;
}

static void leave_queue(struct hub *h, uint64_t session)
{
	for (size_t i = 0; i < h->queue_count;)
		if (h->queue[i] == session)
			memmove(h->queue + i, h->queue + i + 1,
				(--h->queue_count - i) * sizeof(*h->queue));
		else
			i++;
}

static void end_session(struct hub *h, uint64_t session, uint64_t now, unsigned hold_ms)
{
	struct session *s = find(h, session);

	if (!s)
		return;
	drop_locks(h, session);
	*s = h->session[--h->session_count];
	leave_queue(h, session);
	if (h->turn == session) {
		next_turn(h, now, hold_ms);
		say_tip(h);
	}
	free_objects(h, false);
}

/* When nobody has renewed for a good part of a lease it was not they who failed, but the machine
 * they meet on: all are given a lease's time. */
static void beat(struct hub *h, uint64_t now, unsigned lease_ms)
{
	if (h->beat_ms && now - h->beat_ms > (uint64_t)lease_ms * 6 / 10)
		h->pause_ms = now + lease_ms;
	h->beat_ms = now;
}

static bool run_out(const struct hub *h, const struct session *s, uint64_t now)
{
	return s->until_ms <= now && h->pause_ms <= now;
}

/* ---- what is asked ---- */

static struct object *object_of(struct hub *h, uint64_t object, bool make)
{
	struct object *o = h->object;

	while (o && o->object != object)
		o = o->next;
	if (o || !make)
		return o;
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->object = object;
	o->next = h->object;
	h->object = o;
	return o;
}

static int claim(struct hub *h, uint64_t session, const struct sop_coord_lock *l, uint64_t *lost)
{
	struct object *o = object_of(h, l->object, true);

	if (!o)
		return -ENOMEM;
	if (sop_coord_locks_blocked(&o->held, session, l)) {
		++*lost;
		return 0;
	}
	return sop_coord_locks_put(&o->held, session, l);
}

static int new_session(struct hub *h, const struct sop_coord_request *r,
	const struct sop_coord_options *opt, uint64_t now)
{
	struct session *s = find(h, r->target);

	if (s)
		return 0;
	if (grow((void **)&h->session, h->session_count, &h->session_room, sizeof(*h->session)))
		return -ENOMEM;
	s = &h->session[h->session_count++];
	memset(s, 0, sizeof(*s));
	s->m.session = r->target;
	snprintf(s->m.host, sizeof(s->m.host), "%s", opt->host);
	snprintf(s->m.where, sizeof(s->m.where), "%s", opt->where);
	s->m.pid = getpid();
	s->joined_ms = now;
	return 0;
}

static void renew(
	struct session *s, const struct sop_coord_request *r, unsigned lease_ms, uint64_t now)
{
	s->until_ms = now + lease_ms;
	s->m.applied = r->applied;
	s->m.pin = r->pin;
}

static int join(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	const struct sop_coord_options *opt = sop_coord_opts(r->c);
	struct session *s;
	int rc = 0;

	beat(h, now, opt->lease_ms);
	if (!h->generation) {
		h->generation = r->target;
		h->young_ms = now + opt->lease_ms;
	}
	s = r->generation == h->generation ? find(h, r->session) : NULL;
	if (!s) {
		rc = new_session(h, r, opt, now);
		if (rc)
			return rc;
		drop_locks(h, r->target);
		/* In the generation that the caller knows its session has been revoked: others may
		 * have had its locks since. */
		for (size_t i = 0; i < r->claim_count && !rc && r->generation != h->generation; i++)
			rc = claim(h, r->target, &r->claims[i], &r->lost);
		if (r->lost)
			drop_locks(h, r->target);
		s = find(h, r->target);
	}
	renew(s, r, opt->lease_ms, now);
	h->grant = SOP_MAX(h->grant, r->grant);
	if (r->tip > h->tip) {
		h->tip = r->tip;
		say_tip(h);
	}
	r->got = h->generation;
	r->got_session = s->m.session;
	r->got_tip = h->tip;
	r->got_grant = h->grant;
	return rc;
}

static int do_renew(struct hub *h, struct sop_coord_request *r, struct session *s, uint64_t now)
{
	unsigned lease_ms = sop_coord_opts(r->c)->lease_ms;

	beat(h, now, lease_ms);
	renew(s, r, lease_ms, now);
	r->got = h->tip;
	r->expired = reallocarray(NULL, h->session_count, sizeof(*r->expired));
	if (!r->expired)
		return 0; /* with the next renewal */
	for (size_t i = 0; i < h->session_count; i++)
		if (run_out(h, &h->session[i], now))
			r->expired[r->expired_count++] = h->session[i].m.session;
	return 0;
}

static int leave(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	const struct sop_coord_options *opt = sop_coord_opts(r->c);
	const struct session *s = find(h, r->target);

	if (r->target != r->session)
		beat(h, now, opt->lease_ms);
	if (s && r->target != r->session && !run_out(h, s, now))
		return -EAGAIN;
	end_session(h, r->target, now, opt->hold_ms);
	return 0;
}

static int by_session(const void *a, const void *b)
{
	const struct sop_coord_member *x = a, *y = b;

	return (x->session > y->session) - (x->session < y->session);
}

static int list(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	r->member = calloc(h->session_count, sizeof(*r->member));
	if (!r->member)
		return -ENOMEM;
	for (size_t i = 0; i < h->session_count; i++) {
		const struct session *s = &h->session[i];
		struct sop_coord_member *m = &r->member[r->member_count++];

		*m = s->m;
		m->age_ms = now - s->joined_ms;
		m->lease_ms = (int64_t)s->until_ms - (int64_t)now;
		for (const struct object *o = h->object; o; o = o->next) {
			size_t k = 0;

			while (k < o->held.count && o->held.list[k].session != m->session)
				k++;
			m->locks += k < o->held.count;
		}
	}
	qsort(r->member, r->member_count, sizeof(*r->member), by_session);
	return 0;
}

static int reserve(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	unsigned hold_ms = sop_coord_opts(r->c)->hold_ms;

	if (h->turn && (now >= h->turn_ms || !find(h, h->turn))) {
		next_turn(h, now, hold_ms);
		if (h->turn && h->turn != r->session)
			say_tip(h);
	}
	r->got = h->tip;
	if (!h->turn || h->turn == r->session) {
		leave_queue(h, r->session);
		h->turn = r->session;
		h->turn_ms = now + hold_ms;
		r->mine = true;
		return 0;
	}
	leave_queue(h, r->session);
	if (grow((void **)&h->queue, h->queue_count, &h->queue_room, sizeof(*h->queue)))
		return -ENOMEM;
	h->queue[h->queue_count++] = r->session;
	return 0;
}

static int publish(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	bool news = r->tip > h->tip;

	h->tip = SOP_MAX(h->tip, r->tip);
	leave_queue(h, r->session);
	if (h->turn == r->session) {
		next_turn(h, now, sop_coord_opts(r->c)->hold_ms);
		news = news || h->turn;
	}
	if (news)
		say_tip(h);
	return 0;
}

static int pins(const struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	if (now < h->young_ms)
		return -EAGAIN;
	r->got = UINT64_MAX;
	for (size_t i = 0; i < h->session_count; i++)
		r->got = SOP_MIN(r->got, h->session[i].m.pin);
	return 0;
}

/* Does who stands in the way of `want` wait, over others or not, for somebody with this session and
 * owner? steps bounds the search; beyond it there is no deadlock that could be told. */
static bool waits_for(const struct hub *h, const struct sop_coord_holder *me, uint64_t session,
	const struct sop_coord_lock *want, unsigned depth, unsigned *steps)
{
	const struct object *o = h->object;

	while (o && o->object != want->object)
		o = o->next;
	if (!o || !depth)
		return false;
	for (size_t i = 0; i < o->held.count; i++) {
		const struct sop_coord_holder *k = &o->held.list[i];

		if (!sop_coord_lock_conflicts(k, session, want))
			continue;
		if (k->session == me->session && k->lock.owner == me->lock.owner)
			return true;
		for (const struct object *p = h->object; p; p = p->next)
			for (size_t j = 0; j < p->wait_count; j++) {
				const struct waiter *w = &p->wait[j];

				if (!*steps || !--*steps)
					return false;
				if (w->session == k->session && w->lock.owner == k->lock.owner &&
					!w->lock.whole &&
					waits_for(h, me, w->session, &w->lock, depth - 1, steps))
					return true;
			}
	}
	return false;
}

static void forget(struct object *o, uint64_t session, const struct sop_coord_lock *l)
{
	for (size_t i = 0; i < o->wait_count;) {
		const struct waiter *w = &o->wait[i];

		if (w->session == session && sop_coord_same_wait(&w->lock, l))
			o->wait[i] = o->wait[--o->wait_count];
		else
			i++;
	}
}

static int refuse(struct hub *h, struct sop_coord_request *r, struct object *o,
	const struct sop_coord_holder *by)
{
	const struct sop_coord_holder me = {.session = r->session, .lock = r->lock};
	unsigned steps = 10000;

	r->by = *by;
	r->by.lock.object = r->lock.object;
	if (!r->lock.waits)
		return -EAGAIN;
	if (!r->lock.whole && waits_for(h, &me, r->session, &r->lock, 32, &steps))
		return -EDEADLK;
	if (grow((void **)&o->wait, o->wait_count, &o->wait_room, sizeof(*o->wait)))
		return -ENOMEM;
	o->wait[o->wait_count++] = (struct waiter){.session = r->session, .lock = r->lock};
	return -EAGAIN;
}

static bool young(const struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	if (now >= h->young_ms || r->lock.type == F_UNLCK)
		return false;
	r->mine = true;
	r->wait_ms = h->young_ms - now;
	return true;
}

static int lock(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	struct object *o = object_of(h, r->lock.object, true);
	const struct sop_coord_holder *by;
	int rc;

	if (!o)
		return -ENOMEM;
	if (young(h, r, now))
		return -EAGAIN;
	forget(o, r->session, &r->lock);
	by = sop_coord_locks_blocked(&o->held, r->session, &r->lock);
	if (by)
		return refuse(h, r, o, by);
	rc = sop_coord_locks_put(&o->held, r->session, &r->lock);
	if (rc)
		return rc;
	r->got = r->lock.type == F_UNLCK ? 0 : ++h->grant;
	if (r->lock.type != F_WRLCK)
		say_unlocked(h, o);
	return 0;
}

static int test(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	const struct object *o = object_of(h, r->lock.object, false);
	const struct sop_coord_holder *by =
		o ? sop_coord_locks_blocked(&o->held, r->session, &r->lock) : NULL;

	if (by) {
		r->by = *by;
		r->by.lock.object = r->lock.object;
	}
	return !by && young(h, r, now) ? -EAGAIN : 0;
}

static int sync_object(struct hub *h, struct sop_coord_request *r)
{
	struct object *o = object_of(h, r->lock.object, true);
	int rc = 0;

	if (!o)
		return -ENOMEM;
	sop_coord_locks_drop(&o->held, r->session);
	for (size_t i = 0; i < r->claim_count && !rc; i++)
		rc = claim(h, r->session, &r->claims[i], &r->lost);
	if (r->lost)
		sop_coord_locks_drop(&o->held, r->session);
	say_unlocked(h, o);
	return rc;
}

static int answer(struct hub *h, struct sop_coord_request *r, uint64_t now)
{
	struct session *s;
	struct object *o;

	if (r->op == SOP_COORD_JOIN)
		return join(h, r, now);
	s = r->generation == h->generation ? find(h, r->session) : NULL;
	if (!s)
		return -ESTALE;
	switch (r->op) {
	case SOP_COORD_RENEW:
		return do_renew(h, r, s, now);
	case SOP_COORD_LEAVE:
		return leave(h, r, now);
	case SOP_COORD_LIST:
		return list(h, r, now);
	case SOP_COORD_TIP:
		r->got = h->tip;
		return 0;
	case SOP_COORD_RESERVE:
		return reserve(h, r, now);
	case SOP_COORD_PUBLISH:
		return publish(h, r, now);
	case SOP_COORD_PINS:
		return pins(h, r, now);
	case SOP_COORD_LOCK:
		return lock(h, r, now);
	case SOP_COORD_TEST:
		return test(h, r, now);
	case SOP_COORD_FORGET:
		o = object_of(h, r->lock.object, false);
		if (o)
			forget(o, r->session, &r->lock);
		return 0;
	case SOP_COORD_SYNC:
		return sync_object(h, r);
	case SOP_COORD_ALONE:
		h->young_ms = 0;
		for (size_t i = 0; i < h->handle_count; i++)
			sop_coord_heard_settled(h->handle[i]);
		return 0;
	case SOP_COORD_JOIN:
	case SOP_COORD_OPS:
	default:
		return -EINVAL;
	}
}

static void submit(struct sop_coord *c, struct sop_coord_request *r)
{
	struct hub *h = sop_coord_data(c);

	sop_lock(&h->lock);
	r->rc = answer(h, r, now_ms());
	free_objects(h, false);
	sop_unlock(&h->lock);
	sop_coord_answer(r);
}

static void suspect(struct sop_coord *c, const char *why)
{
	(void)c; /* answers come at once */
	(void)why;
}

/* ---- hubs ---- */

static struct hub *hub_of(const struct sop_uuid *volume)
{
	struct hub *h = hubs;

	while (h && !sop_uuid_equal(&h->volume, volume))
		h = h->next;
	return h;
}

static struct hub *hub_get(const struct sop_uuid *volume)
{
	struct hub *h;

	pthread_mutex_lock(&hubs_lock);
	h = hub_of(volume);
	if (!h) {
		h = calloc(1, sizeof(*h));
		if (h) {
			h->volume = *volume;
			sop_lock_init(&h->lock, SOP_RANK_COORD, "coord hub");
			h->next = hubs;
			hubs = h;
		}
	}
	if (h)
		h->refs++;
	pthread_mutex_unlock(&hubs_lock);
	return h;
}

static void hub_put(struct hub *h)
{
	struct hub **at = &hubs;

	pthread_mutex_lock(&hubs_lock);
	if (!--h->refs) {
		while (*at != h)
			at = &(*at)->next;
		*at = h->next;
		free_objects(h, true);
		free(h->handle);
		free(h->session);
		free(h->queue);
		sop_lock_release(&h->lock);
		free(h);
	}
	pthread_mutex_unlock(&hubs_lock);
}

static int local_open(struct sop_coord *c, struct sop_err *e)
{
	struct hub *h = hub_get(&sop_coord_opts(c)->volume);
	int rc;

	if (!h)
		return sop_fail(e, -ENOMEM, "coordination");
	sop_lock(&h->lock);
	rc = grow((void **)&h->handle, h->handle_count, &h->handle_room, sizeof(*h->handle));
	if (!rc)
		h->handle[h->handle_count++] = c;
	sop_unlock(&h->lock);
	if (rc) {
		hub_put(h);
		return sop_fail(e, rc, "coordination");
	}
	sop_coord_set_data(c, h);
	sop_coord_connected(c);
	return 0;
}

static void local_close(struct sop_coord *c)
{
	struct hub *h = sop_coord_data(c);

	sop_lock(&h->lock);
	for (size_t i = 0; i < h->handle_count; i++)
		if (h->handle[i] == c)
			h->handle[i--] = h->handle[--h->handle_count];
	sop_unlock(&h->lock);
	hub_put(h);
}

void sop_coord_local_empty(const struct sop_uuid *volume)
{
	struct hub *h;

	pthread_mutex_lock(&hubs_lock);
	h = hub_of(volume);
	pthread_mutex_unlock(&hubs_lock);
	if (!h)
		return;
	SOP_LOCK_GUARD(&h->lock);
	h->generation = h->grant = h->tip = h->turn = h->beat_ms = h->pause_ms = h->young_ms = 0;
	h->session_count = h->queue_count = 0;
	free_objects(h, true);
}

const struct sop_coord_backend sop_coord_local = {
	.open = local_open, .close = local_close, .submit = submit, .suspect = suspect};
