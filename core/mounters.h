/* The mounters of a shared volume that meet at a Redis server: who they are, and locks between
 * them. Part of the public face. Without redis in struct sop_open_opts there is no coordination:
 * the calls say -EOPNOTSUPP. */
#ifndef SOP_MOUNTERS_H
#define SOP_MOUNTERS_H

#include "core/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sop_volume;
struct sop_txn;

#define SOP_COORD_TEXT 64

/* What becomes of commits while the server is away for longer than two thirds of a lease. Reads go
 * on. */
enum sop_ondown {
	SOP_ONDOWN_BLOCK, /* they wait for it, as long as their transaction may take */
	SOP_ONDOWN_RO,	  /* -EROFS */
	SOP_ONDOWN_EIO,	  /* -EIO */
};

struct sop_coord_member {
	uint64_t session;
	char host[SOP_COORD_TEXT], where[256];
	int64_t pid;
	uint64_t age_ms;  /* since it joined */
	int64_t lease_ms; /* that is left; negative: run out, and not revoked yet */
	uint64_t applied; /* the slot it had come to when it renewed; behind the tip by what it lags
			   */
	uint64_t pin;	  /* see sop_coord_progress() */
	uint64_t locks;	  /* how many objects it holds locks on */
	bool me;
};

struct sop_coord_lock {
	uint64_t object;     /* an inode number */
	uint64_t owner;	     /* within this mounter */
	uint64_t start, end; /* bytes, both included; UINT64_MAX: to the end */
	short type;	     /* F_RDLCK, F_WRLCK, F_UNLCK */
	bool whole;	     /* flock(2): its own kind, start and end are not looked at */
	bool waits;	     /* when refused: wants to be told, and counts for deadlocks (fcntl) */
	int32_t pid;
};
struct sop_coord_holder {
	uint64_t session; /* 0: nobody; a new generation waits for its mounters */
	struct sop_coord_lock lock;
};

struct sop_coord_state {
	bool up;
	uint64_t for_ms;	    /* that it has been so */
	uint64_t generation;	    /* 0: none yet */
	uint64_t round_trips;	    /* requests sent, renewals too */
	uint64_t renewals;	    /* of them */
	uint64_t connections;	    /* made */
	char trouble[SOP_ERR_TEXT]; /* why it is not up; "" when it is */
};

/* Is it a URL of a server, without a password (which others would see)? -EINVAL, with what it looks
 * like. */
int sop_redis_url_check(const char *url, struct sop_err *e);

/* Is there coordination? Any thread, as all of these. */
bool sop_volume_coordinated(const struct sop_volume *v);
/* All mounters, this one too, by session, as they were some seconds ago; free(*out). Waits for
 * nobody. */
int sop_volume_mounters(
	struct sop_volume *v, struct sop_coord_member **out, size_t *count, struct sop_err *e);
/* The server, without secrets, and how it is; waits for nobody. server is SOP_COORD_TEXT long. */
void sop_volume_coordination(struct sop_volume *v, char *server, struct sop_coord_state *out);
/* The newest slot that is known of, and the last that is applied here. */
void sop_volume_slots(struct sop_volume *v, uint64_t *tip, uint64_t *applied);

/* Locks between mounters: as sop_coord_lock() and its like in core/coord.h say. Each waits for the
 * server, 2 s at most, and wait_ms for who is in the way. */
int sop_volume_lock(struct sop_volume *v, const struct sop_coord_lock *l, unsigned wait_ms,
	uint64_t *grant, struct sop_coord_holder *by, struct sop_err *e);
int sop_volume_lock_test(struct sop_volume *v, const struct sop_coord_lock *l,
	struct sop_coord_holder *by, struct sop_err *e);
void sop_volume_lock_forget(struct sop_volume *v, const struct sop_coord_lock *l);
/* t is written under locks that were granted from `grant` on: when one of them has been lost by its
 * commit, that is refused with SOP_ECONFLICT. */
void sop_txn_under(struct sop_txn *t, uint64_t grant);
/* fn is called when what was in the way of a lock that `waits` may be gone: from a thread of its
 * own, under a lock; it must not wait, and not call the engine. NULL: no more, also when one was
 * under way. */
void sop_volume_on_unlocked(
	struct sop_volume *v, void (*fn)(void *arg, uint64_t object), void *arg);

#ifdef __cplusplus
}
#endif

#endif
