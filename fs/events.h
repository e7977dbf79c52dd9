/* Events, as lines of JSON, for those who follow: readers of .sop/events and clients of the control
 * socket. Three sources: what commits changed (core/events.h); sessions that came to nothing; the log's
 * lines from "info" up, and disks that changed their state. The last two are kept for a while
 * ("history"), the first is only told while somebody follows. */
#ifndef SOPFS_EVENTS_H
#define SOPFS_EVENTS_H

#include <jansson.h>

#include "fs/sopfs.h"

enum sopfs_event_kind {
	SOPFS_EVENT_COMMIT = 1,
	SOPFS_EVENT_SESSION = 2,
	SOPFS_EVENT_LOG = 4,
	SOPFS_EVENT_DISK = 8,
};
/* By name ("commit"); 0: there is none. */
unsigned sopfs_event_kind(const char *name);

struct sopfs_follower;

/* wake is called from another thread, without any lock of ours, when there may be something new: it
 * must not call sopfs_unfollow(). history: begin with what is kept. */
int sopfs_follow(struct sopfs_follower **out, struct sopfs *f, unsigned kinds, bool history,
	void (*wake)(void *arg), void *arg, struct sop_err *e);
/* When it has returned, wake is not called any more. */
void sopfs_unfollow(struct sopfs_follower *x);
/* Whole lines if they fit, else part of one, which is gone on with; 0: nothing is there yet. Never
 * waits. One thread at a time. */
size_t sopfs_follower_read(struct sopfs_follower *x, char *buf, size_t size);

/* Disks may have changed their state: look, soon. */
void sopfs_events_look(struct sopfs *f);
/* A line of the sources that are kept; takes the reference. "event" (its kind) and "time" are added. */
void sopfs_event_note(struct sopfs *f, enum sopfs_event_kind kind, json_t *event);

int sopfs_events_start(struct sopfs *f, struct sop_err *e);
void sopfs_events_stop(struct sopfs *f);

#endif
