/* Coordination of the mounters of one shared volume: what makes shared mode fast, never what makes
 * it right. The chain of commit slots on the disks decides; all that is known here can be lost at
 * any moment (a server killed, emptied, failed over, cut off) and is made anew from the disks and
 * the mounters.
 *
 * Two kinds behind one face: embedded (handles of one process that name the same volume meet in its
 * memory), and a Redis server. Both pass the same tests.
 *
 * What each piece of it may be believed for:
 *
 *   tip        a lower bound: that slot has been committed. The newest there is as well, if every
 * commit was published before it was acknowledged, and the generation is one whose beginning was
 * followed by a look at the disks (events.session says when a look is due). turn       nothing: who
 * has it tries a slot without a race, who has not may try too. session    others do not revoke it
 * before its lease has run out on the server; may_commit() turns false at two thirds of it, counted
 * here from before the renewal was sent. pins       the lowest a live session may read: nothing at
 * or past it is freed. locks      nobody else is granted a lock in conflict while the session
 * lasts, and over a loss of the server's memory: a new generation grants nothing but what was held
 * until each mounter had the time of a lease to claim it. A server that fails over while the old
 * one still answers somebody can grant the same lock twice; the disks then find the conflict of
 * what is committed, if there is one.
 *
 * A generation is the time over which the server's memory is whole: it ends when that is emptied,
 * or another server, one started again, or a promoted replica answers. Its sessions end with it.
 *
 * Threads: any, for each call. Calls wait at most options.wait_ms for the server (and what they
 * say), and return SOP_ETIMEOUT when it did not answer, or -ENOTCONN at once while it is known to
 * be away; those marked [no wait] touch memory alone. Events are called on the layer's own thread,
 * one at a time, and make no calls that wait. Times are CLOCK_BOOTTIME here, and the server's own
 * on the server: the wall clock of a mounter is never asked. */
#ifndef SOP_COORD_H
#define SOP_COORD_H

#include "core/err.h"
#include "core/id.h"
#include "core/log.h"
#include "core/mounters.h"

struct sop_coord;

#define SOP_COORD_LEASE_MS                                                                         \
	10000 /* renewed at three tenths of it, good for commits until two thirds */
#define SOP_COORD_WAIT_MS 2000
#define SOP_COORD_HOLD_MS 500 /* a turn is not waited for longer */

struct sop_coord_events {
	/* The tip is now this slot, published by anybody. It never goes back. */
	void (*tip)(void *arg, uint64_t tip);
	/* The session is now `id`; 0: there is none (its lease ran out here, or it was revoked).
	 * What was published before may be forgotten: look at the disks once before tip() is
	 * believed again. unbroken: the lease had not run out here, and every lock has been claimed
	 * under the new session. */
	void (*session)(void *arg, uint64_t id, bool unbroken);
	/* The lease of another mounter has run out: fence it on the disks, then sop_coord_revoke()
	 * it, from another thread. Said again until somebody has. NULL: it is revoked at once. */
	void (*expired)(void *arg, uint64_t session);
	/* What was in the way of a lock that was asked for with `waits` may be gone: ask again. */
	void (*unlocked)(void *arg, uint64_t object);
	/* The server answers, or no longer does. */
	void (*state)(void *arg, bool up);
	void *arg;
};

/* Copied. Zeroed is good: embedded, with the defaults. */
struct sop_coord_options {
	struct sop_uuid volume;
	/* redis://[user@]host[:port][/db], rediss:// (TLS, where the build has it),
	 * unix:///path/to.sock[?db=N], or sentinel://host[:port][+host[:port]...]/name[/db]; NULL:
	 * embedded. A password in it is taken, but password_file (its first line; not readable by
	 * others) keeps it from where URLs are seen. */
	const char *url;
	const char *password_file;
	const char *host,
		*where; /* of this mounter, for lists; NULL: the machine's name, nothing */
	unsigned lease_ms, wait_ms,
		hold_ms; /* 0: the defaults above. All mounters of a volume have one lease_ms */
	uint64_t (*boot_ms)(void *arg); /* NULL: CLOCK_BOOTTIME */
	void *boot_arg;
	struct sop_coord_events on;
	const struct sop_log *log; /* NULL, or outlives the handle */
};

/* -EINVAL: the URL or its password file, with the reason. A server that is away is no error: it is
 * tried again by itself, with growing pauses of up to 2 s. The first answer is waited for wait_ms;
 * see sop_coord_state(). */
int sop_coord_open(struct sop_coord **out, const struct sop_coord_options *o, struct sop_err *e);
/* Leaves: the session ends, its locks are free. Waits for calls of other threads to return, and for
 * an event that is being called. NULL is fine. */
void sop_coord_close(struct sop_coord *c);

/* [no wait] What the URL says, without its secrets, for status and logs; text is SOP_COORD_TEXT
 * long. */
void sop_coord_server(const struct sop_coord *c, char *text);

/* ---- sessions ---- */

/* [no wait] Random, never used again; 0: none now. A session that is lost is never revived. */
uint64_t sop_coord_session(struct sop_coord *c);

/* [no wait] Is `session` this handle's still, and renewed less than two thirds of a lease ago?
 * Asked last before a slot is tried. It says nothing of what happens after it has returned: the
 * slot does. */
bool sop_coord_may_commit(struct sop_coord *c, uint64_t session);

/* All of them, this one too, by session; free(*out). */
int sop_coord_list(
	struct sop_coord *c, struct sop_coord_member **out, size_t *count, struct sop_err *e);

/* [no wait] The same as they were at the last renewal; none before that. */
int sop_coord_list_seen(
	struct sop_coord *c, struct sop_coord_member **out, size_t *count, struct sop_err *e);

/* End another's session, whose lease has run out; its locks are free. -EBUSY: it has not run out,
 * or mounters are given time because none of them could renew. 0 too when there is no such session.
 */
int sop_coord_revoke(struct sop_coord *c, uint64_t session, struct sop_err *e);

/* ---- the chain ---- */

/* The tip as the server knows it after this call began; one round trip, shared by calls that come
 * together. */
int sop_coord_tip(struct sop_coord *c, uint64_t *tip, struct sop_err *e);
/* [no wait] The highest seen here; 0: none. */
uint64_t sop_coord_tip_seen(struct sop_coord *c);

struct sop_coord_turn {
	uint64_t tip; /* when the turn came */
	bool mine;    /* false: somebody holds on to it; go and try, the slot decides */
};
/* One round trip, and a wait of at most hold_ms for those who came before. Whoever has the turn has
 * it until publish() or yield(), or for hold_ms. One turn per handle: its committers take turns
 * among themselves. */
int sop_coord_reserve(struct sop_coord *c, struct sop_coord_turn *turn, struct sop_err *e);
/* Slot `tip` has been committed: all hear of it, and the next has the turn. One round trip. A
 * commit is acknowledged when this has returned 0, or it is sure by other means that nobody
 * believes an older tip. */
int sop_coord_publish(struct sop_coord *c, uint64_t tip, struct sop_err *e);
/* [no wait] The turn is given up without a commit. */
void sop_coord_yield(struct sop_coord *c);

/* ---- what is read ---- */

/* [no wait] This mounter has applied all up to `applied`, and none of its readers needs anything
 * older than `pin`, now or later (so pin <= applied). Both only grow; told with the next renewal,
 * which is early enough. */
void sop_coord_progress(struct sop_coord *c, uint64_t applied, uint64_t pin);
/* The lowest pin of all sessions. -EAGAIN: not known until all have had the time to join. */
int sop_coord_pins_min(struct sop_coord *c, uint64_t *pin, struct sop_err *e);

/* ---- locks ---- */

/* Set, change or (F_UNLCK) remove, splitting and joining ranges as fcntl(2) does. grant: grows with
 * each lock that is granted on this volume, for sop_coord_grant_lost(); may be NULL, as may `by`,
 * which says who was in the way. wait_ms: how long to wait for that to go, 0: not at all. -EAGAIN:
 * still held. -EDEADLK. What F_UNLCK removes is forgotten here even when the server could not be
 * told, and not claimed again. */
int sop_coord_lock(struct sop_coord *c, const struct sop_coord_lock *l, unsigned wait_ms,
	uint64_t *grant, struct sop_coord_holder *by, struct sop_err *e);
/* The lock that would be in the way (F_GETLK): 0 and by->lock.type F_UNLCK when none is. */
int sop_coord_lock_test(struct sop_coord *c, const struct sop_coord_lock *l,
	struct sop_coord_holder *by, struct sop_err *e);
/* [no wait] The owner waits no longer. */
void sop_coord_lock_forget(struct sop_coord *c, const struct sop_coord_lock *l);
/* [no wait] Has a lock of this handle been lost that was granted at or after `grant`? Asked for the
 * commit of what was written under locks: `grant` is of the first of them. */
bool sop_coord_grant_lost(struct sop_coord *c, uint64_t grant);
/* There is no other mounter, the disks say: a new generation need not wait for any. */
int sop_coord_alone(struct sop_coord *c, struct sop_err *e);

/* ---- state ---- */

/* [no wait] */
void sop_coord_state(struct sop_coord *c, struct sop_coord_state *out);

#endif
