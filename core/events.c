/* The ring: see events.h. It is there while somebody follows.
 *
 * Changes are put in while a commit is applied, and shown when it is published: nobody hears of
 * what nobody can see. The commit lock keeps writers apart; the ring's own lock is held for a copy.
 */
#include "core/events_own.h"

#include <stdatomic.h>

#include "core/engine.h"

struct sop_event_ring {
	struct sop_lock lock;	 /* LEAF */
	struct sop_event *event; /* under lock: SOP_EVENTS of them, or NULL */
	uint64_t put, shown;	 /* under lock: how many there ever were */
	atomic_uint followers;
	_Atomic uint64_t begun; /* the highest LSN that is or was being applied */
	void (*notify)(void *arg);
	void *notify_arg;
};

struct sop_events {
	struct sop_event_ring *r;
	uint64_t at;	/* the number of the next */
	uint64_t first; /* LSN: what was begun before is not told, as it would be told in part */
};

const char *sop_change_name(enum sop_change change)
{
	static const char *const names[] = {"created", "changed", "removed"};

	return (size_t)change < SOP_ARRAY_LEN(names) ? names[change] : "?";
}

struct sop_event_ring *sop_event_ring_new(void)
{
	struct sop_event_ring *r = calloc(1, sizeof(*r));

	if (r)
		sop_lock_init(&r->lock, SOP_RANK_LEAF, "events");
	return r;
}

void sop_event_ring_free(struct sop_event_ring *r)
{
	if (!r)
		return;
	assert(!r->followers);
	sop_lock_release(&r->lock);
	free(r->event);
	free(r);
}

bool sop_event_ring_wanted(const struct sop_event_ring *r)
{
	return r->followers != 0;
}

void sop_event_ring_begin(struct sop_event_ring *r, uint64_t lsn)
{
	r->begun = lsn;
}

void sop_event_ring_put(struct sop_event_ring *r, const struct sop_event *event)
{
	SOP_LOCK_GUARD(&r->lock);
	if (r->event)
		r->event[r->put++ % SOP_EVENTS] = *event;
}

void sop_event_ring_show(struct sop_event_ring *r)
{
	bool news;

	if (!r->followers)
		return;
	sop_lock(&r->lock);
	news = r->shown != r->put;
	r->shown = r->put;
	sop_unlock(&r->lock);
	if (news && r->notify)
		r->notify(r->notify_arg);
}

void sop_events_notify(struct sop_volume *v, void (*fn)(void *arg), void *arg)
{
	v->events->notify = fn;
	v->events->notify_arg = arg;
}

int sop_events_open(struct sop_events **out, struct sop_volume *v, struct sop_err *e)
{
	struct sop_event_ring *r = v->events;
	struct sop_events *x = calloc(1, sizeof(*x));

	*out = NULL;
	if (!x)
		return sop_fail(e, -ENOMEM, "events");
	sop_lock(&r->lock);
	if (r->followers >= SOP_FOLLOWERS) {
		sop_unlock(&r->lock);
		free(x);
		return sop_say(e, -EMFILE, "%u follow the events already", SOP_FOLLOWERS);
	}
	if (!r->event)
		r->event = malloc(SOP_EVENTS * sizeof(*r->event));
	if (r->event) {
		/* In this order, and in the other in sop_event_ring_begin(): a commit that begins
		 * after the look finds us. */
		r->followers++;
		*x = (struct sop_events){r, r->put, r->begun + 1};
	}
	sop_unlock(&r->lock);
	if (!x->r) {
		free(x);
		return sop_fail(e, -ENOMEM, "events");
	}
	*out = x;
	return 0;
}

void sop_events_close(struct sop_events *x)
{
	struct sop_event *unused = NULL;

	if (!x)
		return;
	sop_lock(&x->r->lock);
	if (--x->r->followers == 0) {
		unused = x->r->event;
		x->r->event = NULL;
	}
	sop_unlock(&x->r->lock);
	free(unused);
	free(x);
}

int sop_events_next(struct sop_events *x, struct sop_event *out)
{
	struct sop_event_ring *r = x->r;
	uint64_t missed = 0;

	SOP_LOCK_GUARD(&r->lock);
	if (r->put - x->at > SOP_EVENTS) {
		missed = r->put - x->at - SOP_EVENTS;
		x->at += missed;
	}
	while (x->at < r->shown && r->event[x->at % SOP_EVENTS].lsn < x->first)
		x->at++;
	/* What has overtaken him may be of a commit that is not published yet. */
	if (x->at >= r->shown) {
		x->at -= missed;
		return 0;
	}
	*out = r->event[x->at++ % SOP_EVENTS];
	out->missed = missed;
	out->more = x->at < r->shown && r->event[x->at % SOP_EVENTS].lsn == out->lsn;
	return 1;
}
