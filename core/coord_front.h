/* The front of coordination: what coord.c and coord_hold.c share. Private to them. */
#ifndef SOP_COORD_FRONT_H
#define SOP_COORD_FRONT_H

#include "core/coord_own.h"

#define BUCKETS 256

/* An object with locks of this mounter, or with somebody waiting for one. All under c->lock. */
struct coord_object {
	struct coord_object *next;
	uint64_t object;
	struct sop_coord_locks held; /* session 0 */
	struct sop_coord_lock *waits;
	size_t wait_count, wait_room;
	uint64_t heard; /* counts what may have made room */
	unsigned users; /* calls that are at it */
	bool busy;	/* a request is under way: one at a time, so that answers come in order */
	uint64_t doubt; /* not 0: the server may have more of ours than we hold; the serial number
			   of the last reason */
	bool tell;	/* events.unlocked is due */
};

struct sop_coord {
	struct sop_coord_options opt;
	char *url, *password_file, *host, *where;
	char server[SOP_COORD_TEXT];
	const struct sop_coord_backend *backend;
	void *data;
	struct sop_lock lock; /* LEAF */
	pthread_cond_t changed;
	pthread_cond_t due; /* wakes the thread */
	pthread_t thread;
	/* under lock, all that follows */
	bool stop, killed, stopped, in_event;
	unsigned calls;
	bool connected, joining, joined, away, told_up;
	uint64_t since_ms;
	char trouble[SOP_ERR_TEXT];
	uint64_t generation, session, proposal;
	bool list_due;
	bool refused;	   /* JOIN was, and why is in trouble */
	uint64_t good_ms;  /* boot time just before the last renewal that was granted was sent */
	uint64_t renew_ms; /* when the next is due */
	uint64_t asked_ms; /* when the renewal or join that is under way was sent; 0: none is */
	uint64_t tip, told_tip, applied, pin;
	uint64_t told_session;
	bool broken; /* since the last session was told */
	bool turn_here;
	uint64_t tip_asked, tip_answered; /* requests, numbered as they were sent */
	bool tip_flying;
	uint64_t grant_high, grants_lost;
	uint64_t young_ms; /* boot time when those refused for the generation's youth may ask again;
			      0 */
	uint64_t *expired;
	size_t expired_count;
	struct sop_coord_member *member; /* as last listed, and when */
	size_t member_count;
	uint64_t member_ms;
	uint64_t round_trips, renewals, connections;
	struct coord_object *object[BUCKETS];
	uint64_t doubts;  /* serial number */
	uint64_t sync_ms; /* not before */
	bool locks_due;
};

uint64_t sop_coord_boot_ms(const struct sop_coord *c);

/* A request, zeroed but for these; one reference. NULL: no memory. */
struct sop_coord_request *sop_coord_request_new(struct sop_coord *c, enum sop_coord_op op);
void sop_coord_request_put(struct sop_coord_request *r); /* c->lock held */
/* Send and wait, again after a loss of the connection or session, within wait_ms. Calls are counted
 * in between, so that close() waits. */
int sop_coord_call(struct sop_coord_request *r, struct sop_err *e);
int sop_coord_call_locked(struct sop_coord_request *r);
void sop_coord_end_call(struct sop_coord *c);
int sop_coord_explain(
	struct sop_coord *c, const struct sop_coord_request *r, int rc, struct sop_err *e);
/* Send, not waiting; the reference goes along. c->lock is held, and let go meanwhile. */
void sop_coord_send(struct sop_coord_request *r);
/* c->lock held: what the thread has to do for locks; true: it let go of the lock, look again. */
bool sop_coord_locks_work(struct sop_coord *c);
/* c->lock held: the locks for a JOIN; the session is new (broken: they are lost). */
int sop_coord_locks_claim(struct sop_coord *c, struct sop_coord_lock **out, size_t *count);
void sop_coord_locks_joined(struct sop_coord *c, uint64_t doubts, bool broken);
void sop_coord_locks_free(struct sop_coord *c);
void sop_coord_tell_all_waiting(struct sop_coord *c);

#endif
