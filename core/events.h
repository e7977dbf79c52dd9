/* What commits did, for those who want to follow it. Part of the public face: core/sop.h includes it.
 *
 * A ring in memory of the last SOP_EVENTS changes, filled by whoever applies a commit while somebody
 * follows; with nobody there it costs one look at a counter. A follower has a position of his own and
 * holds nobody up: one who falls behind the ring is told how many changes he has missed. What he
 * gets is committed, in the order of the commits; it need not be durable yet. */
#ifndef SOP_EVENTS_H
#define SOP_EVENTS_H

#include <time.h>

#include "core/err.h"

#define SOP_EVENTS     8192u
#define SOP_EVENT_KEY  255

struct sop_volume;
struct sop_events;

enum sop_change {
	SOP_CHANGE_CREATED,
	SOP_CHANGE_CHANGED, /* value or attributes, or the name stands for another item now */
	SOP_CHANGE_REMOVED,
};
const char *sop_change_name(enum sop_change change); /* "created", "changed", "removed" */

struct sop_event {
	uint64_t missed; /* changes that came before this one and are lost to this follower */
	uint64_t lsn;
	struct timespec time; /* of the commit */
	enum sop_change change;
	bool more;      /* the next event is of the same commit */
	uint64_t store; /* 0: the item has several names or is a directory, and no name of it changed */
	uint64_t ino;   /* 0: not known (removed) */
	size_t key_len; /* of longer ones (of libsop alone) key holds the beginning */
	uint8_t key[SOP_EVENT_KEY];
};

/* Follow what is committed from now on. At most SOP_FOLLOWERS at a time: -EMFILE. Close it before the
 * volume. */
#define SOP_FOLLOWERS 64
int sop_events_open(struct sop_events **out, struct sop_volume *v, struct sop_err *e);
void sop_events_close(struct sop_events *x);
/* 1: *out is the next; 0: there is none yet. Never waits. One thread at a time. */
int sop_events_next(struct sop_events *x, struct sop_event *out);
/* fn is called, from whoever commits, each time there is something new for followers: it must be brief and
 * call nothing here. Set it before the first sop_events_open(). */
void sop_events_notify(struct sop_volume *v, void (*fn)(void *arg), void *arg);

#endif
