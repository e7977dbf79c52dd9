/* Between the front of coordination (coord.c: the session, its lease, what it holds, waiting) and
 * what it talks to (coord_local.c, coord_redis.c). Private to core.
 *
 * A backend carries requests to where the volume's memory is, in the order they are submitted, and
 * carries messages back. It keeps nothing of its own that a session depends on. */
#ifndef SOP_COORD_OWN_H
#define SOP_COORD_OWN_H

#include "core/coord.h"
#include "core/lock.h"

enum sop_coord_op {
	SOP_COORD_JOIN,	 /* hello, and a session: the one there is, or a new one */
	SOP_COORD_RENEW, /* lease, progress; who has run out */
	SOP_COORD_LEAVE, /* end `target`: oneself, or one that has run out */
	SOP_COORD_LIST,
	SOP_COORD_TIP,
	SOP_COORD_RESERVE,
	SOP_COORD_PUBLISH, /* tip 0: the turn alone */
	SOP_COORD_PINS,
	SOP_COORD_LOCK,
	SOP_COORD_TEST,
	SOP_COORD_FORGET,
	SOP_COORD_SYNC, /* of what the session holds on an object, nothing but the claims stays */
	SOP_COORD_ALONE,
	SOP_COORD_OPS
};

/* The answers of a backend besides 0:
 *   -ESTALE    another generation, or no such session: join again
 *   -ENOTCONN  the connection was lost on the way: it may have been done or not
 *   -EAGAIN    LOCK, PINS, LEAVE: not now
 *   -EDEADLK, -ENOMEM, -EIO (with a text) */
struct sop_coord_request {
	enum sop_coord_op op;
	struct sop_coord *c;
	/* asked; generation and session are put in when it is submitted */
	uint64_t generation, session;
	uint64_t target;	    /* LEAVE; JOIN: the new session's id, and a new generation's */
	uint64_t tip;		    /* PUBLISH, JOIN: what was seen */
	uint64_t applied, pin;	    /* JOIN, RENEW */
	uint64_t grant;		    /* JOIN: the highest seen */
	struct sop_coord_lock lock; /* LOCK, TEST, FORGET, SYNC (the object) */
	struct sop_coord_lock *claims; /* JOIN, SYNC */
	size_t claim_count;
	/* answered */
	int rc;
	char trouble[160]; /* with -EIO */
	uint64_t got; /* JOIN: the generation. PINS: the pin. LOCK: the grant. TIP, RENEW, RESERVE:
			 the tip */
	uint64_t got_tip, got_session, got_grant; /* JOIN */
	uint64_t lost;				  /* JOIN, SYNC: claims that were not granted */
	bool mine; /* RESERVE: the turn is here; LOCK: refused because the generation is young */
	uint64_t wait_ms;		 /* then: for how long */
	struct sop_coord_holder by;	 /* LOCK, TEST */
	struct sop_coord_member *member; /* LIST */
	size_t member_count;
	uint64_t *expired; /* RENEW */
	size_t expired_count;
	/* the front's */
	uint64_t sent_ms;
	int refs; /* under c->lock */
	uint64_t doubts;
	bool done, unclaimed, sent;
	bool once;  /* not sent again by itself */
	bool keeps; /* JOIN: the lease was good, and all that is held is claimed */
	pthread_cond_t over;
	void (*then)(struct sop_coord *c, struct sop_coord_request *r); /* c->lock held */
	/* the backend's */
	struct sop_coord_request *next;
	int step;
};

struct sop_coord_backend {
	/* c->opt and c->log are set. Sets c->backend_data. May call sop_coord_connected() later,
	 * from any thread. */
	int (*open)(struct sop_coord *c, struct sop_err *e);
	/* No request is outstanding afterwards and nothing is called: what was, has been answered
	 * -ENOTCONN. */
	void (*close)(struct sop_coord *c);
	/* Answers by sop_coord_answer(), here or later; no lock held. */
	void (*submit)(struct sop_coord *c, struct sop_coord_request *r);
	/* A renewal has gone unanswered for wait_ms: the connection is no good. */
	void (*suspect)(struct sop_coord *c, const char *why);
};
extern const struct sop_coord_backend sop_coord_local, sop_coord_redis;

/* What backends call; no lock of rank LEAF held. */
void sop_coord_connected(struct sop_coord *c); /* JOIN may be asked */
void sop_coord_cut(struct sop_coord *c);       /* the connection is lost, tried again at once */
void sop_coord_away(struct sop_coord *c, const char *fmt, ...)
	SOP_PRINTF(2, 3); /* and could not be made */
void sop_coord_answer(struct sop_coord_request *r);
/* Messages. next: the session that has the turn now; 0: nobody. */
void sop_coord_heard_tip(struct sop_coord *c, uint64_t tip, uint64_t next);
void sop_coord_heard_unlocked(struct sop_coord *c, uint64_t object);
void sop_coord_heard_settled(struct sop_coord *c); /* the generation is young no longer */
void *sop_coord_data(struct sop_coord *c);
void sop_coord_set_data(struct sop_coord *c, void *data);
const struct sop_coord_options *sop_coord_opts(const struct sop_coord *c);

/* ---- locks of one object, by session and owner: embedded memory, and what the front holds ---- */
struct sop_coord_locks {
	struct sop_coord_holder *list;
	size_t count, room;
};
/* The one in the way that begins first. */
const struct sop_coord_holder *sop_coord_locks_blocked(
	const struct sop_coord_locks *l, uint64_t session, const struct sop_coord_lock *want);
/* Is it the same that waits? One owner may wait for several: threads of a process. */
bool sop_coord_same_wait(const struct sop_coord_lock *a, const struct sop_coord_lock *b);
/* -ENOMEM: nothing done. */
int sop_coord_locks_put(
	struct sop_coord_locks *l, uint64_t session, const struct sop_coord_lock *lock);
/* All of the session; true: there were some. */
bool sop_coord_locks_drop(struct sop_coord_locks *l, uint64_t session);
bool sop_coord_lock_conflicts(
	const struct sop_coord_holder *h, uint64_t session, const struct sop_coord_lock *want);

/* ---- redis: pure ---- */

/* The arguments of a script (core/lua/), and what it returned. */
struct sop_coord_words {
	char *buf;
	size_t len, room;
	size_t *at; /* where each begins in buf */
	size_t count, at_room;
	bool bad; /* there was no memory */
};
void sop_coord_words_free(struct sop_coord_words *w);
void sop_coord_words_add(struct sop_coord_words *w, const char *text);
/* "join", "renew", ...: a script has the same name. */
const char *sop_coord_op_script(enum sop_coord_op op);
void sop_coord_encode(struct sop_coord_words *w, const struct sop_coord_request *r);
/* Fills in the answer. -EIO: not what a script returns. */
int sop_coord_decode(struct sop_coord_request *r, const char *const *text, size_t count);
/* Of a message. next and object as in sop_coord_heard_*(); 't', 'u', 'y' (settled), or 0: nothing
 * known. */
char sop_coord_decode_message(const char *text, uint64_t *tip, uint64_t *next, uint64_t *object);

enum sop_coord_scheme { SOP_COORD_TCP, SOP_COORD_TLS, SOP_COORD_UNIX, SOP_COORD_SENTINEL };
#define SOP_COORD_PEERS 8
struct sop_coord_peer {
	char host[256];
	int port;
};
struct sop_coord_url {
	enum sop_coord_scheme scheme;
	struct sop_coord_peer peer[SOP_COORD_PEERS];
	size_t peers;
	char path[108]; /* of a socket */
	char name[64];	/* of what sentinels watch */
	char user[64], password[256];
	char ca[256]; /* TLS: the certificates that are trusted; "": the system's */
	int db;
};
int sop_coord_url_parse(struct sop_coord_url *out, const char *url, struct sop_err *e);
/* Without secrets. */
void sop_coord_url_show(const struct sop_coord_url *u, char *text);

/* ---- for tests ---- */
/* As if the process were killed (the handle is gone, nothing was said) or stopped (nothing is
 * renewed). */
void sop_coord_kill(struct sop_coord *c);
void sop_coord_stop(struct sop_coord *c, bool stopped);
/* As FLUSHALL is to a server. */
void sop_coord_local_empty(const struct sop_uuid *volume);

#endif
