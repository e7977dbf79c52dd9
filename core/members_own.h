/* What the files of the members module share. For core/members*.c and core/format_volume.c alone.
 */
#ifndef SOP_MEMBERS_OWN_H
#define SOP_MEMBERS_OWN_H

#include <stdatomic.h>

#include "core/errand.h"
#include "core/lock.h"
#include "core/members.h"

#define SOP_CLAIM_TEXT 256

/* An open member folder. Counted, since a call that hangs in the device outlives the wait for it.
 */
struct sop_attached {
	atomic_int refs;
	struct sop_disk *disk;
	struct sop_file *lock_file; /* locked, or NULL */
	atomic_bool storing;	    /* a label store is under way, perhaps hung: no second one */

	struct sop_lock lock; /* LEAF; covers what follows */
	bool looking;	      /* a look at the space is under way */
	bool unlabelled;      /* the last look found no label: the folder has been deleted */
	bool seen;
	uint64_t look_ms; /* monotonic, when the last look began */
	uint64_t seen_ms; /* when the look began that `space` comes from */
	struct sop_disk_space space;
};

struct sop_attached *sop_attached_new(
	struct sop_disk *d); /* owns d; NULL: no memory, d is closed */
struct sop_attached *sop_attached_get(struct sop_attached *a);
void sop_attached_put(struct sop_attached *a); /* NULL is fine */

struct sop_slot {
	struct sop_attached *at; /* NULL: absent */
	bool aside;
	char reason[SOP_MEMBER_REASON];
	uint64_t seen_ns; /* wall clock, of the last answer before it was set aside */
	uint64_t repaired_bytes;
	struct sop_errand *hung; /* a visit that has not come back: no second one */
	uint64_t retry_ms;	 /* monotonic: when it may be tried again */
	unsigned retry_wait_ms;	 /* 0: has not failed lately */
	uint64_t back_ms;	 /* when it was taken in again */
	uint64_t returns;	 /* how often that was */
	uint64_t errors_ms;	 /* since when `errors` are counted */
	unsigned errors;	 /* reads that failed since */
	uint64_t aside_seq;	 /* the change that set it aside */
	bool noted;		 /* that it has been set back: its shards are stale */
	uint64_t stored;	 /* generation of the last label it took in this mount; 0: none */
	uint64_t read_errors, write_errors, checksum_errors;
	bool full;
	uint64_t full_ms;   /* when a write met no space */
	uint64_t full_free; /* free bytes at the first look after that; UINT64_MAX: no look yet */
};

struct sop_retired {
	struct sop_retired *next;
	struct sop_attached *at;
};

struct sop_members {
	bool read_only, threads;
	_Atomic bool joined; /* others may be there: the labels stay as they are */
	bool opening;	     /* nothing is built on the labels yet */
	unsigned timeout_ms; /* of opening: what the user gave */
	/* A request may meet a hung disk in a call, and then in the round of labels that sets it,
	 * or another one, aside: both together stay below timeout_ms. */
	unsigned call_ms, label_ms;
	const struct sop_log *log;
	const struct sop_clock *clock;
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	char claim[SOP_CLAIM_TEXT]; /* what we wrote into the lock files */
	struct sop_label given;	    /* as of open, for sop_members_label() */
	uint64_t epoch;
	_Atomic unsigned count; /* of members; grows when one is added */

	/* The disk to use for a member, or NULL: read without the lock. */
	_Atomic(struct sop_disk *) usable[SOP_MEMBERS_MAX];

	struct sop_lock lock; /* LEAF; covers what follows; never held across I/O */
	pthread_cond_t settled;
	struct sop_label label;
	struct sop_slot slot[SOP_MEMBERS_MAX];
	unsigned
		leaving; /* 1 + the member of which is asked whether all goes on without it; or 0 */
	bool storing;	 /* a round of label stores is under way */
	bool reopening;	 /* sop_members_online, or a change of membership, is at work */
	uint64_t change_seq;	     /* rises with each change of label */
	uint64_t stored_seq;	     /* the change that the last finished round stored */
	struct sop_retired *retired; /* replaced, but open until close */
};

/* Bring the label on the media up to change `seq`, in rounds. Returns when it is, or no member is
 * left to store on (-EIO). Called without the lock. */
int sop_members_store_labels(struct sop_members *m, uint64_t seq, struct sop_err *e);

/* Under the lock: the label of member i as it is to be stored now. */
void sop_members_label_for(struct sop_label *out, const struct sop_members *m, unsigned i);

/* It may have missed something: neither its replica nor its shards are believed unheard. */
static inline void sop_member_missed(struct sop_member *who)
{
	who->current_since = 0;
	who->flags &= (uint8_t)~SOP_MEMBER_WHOLE;
}

/* See core/format_volume.c: files of an old volume must not be met by another. */
int sop_members_wipe_labels(struct sop_disk *d);
int sop_members_wipe_content(struct sop_disk *d);
/* Of a folder without a label: a directory of these names that has something in it and no lock file
 * beside it was never a member's, and is not to be wiped. -ENOTEMPTY says so. */
int sop_members_check_wipe(struct sop_disk *d, struct sop_err *e);

/* Is there enough to go on? See sop_members_open(). Under the lock, or before m is shared. */
int sop_members_check_quorum(const struct sop_members *m, bool degraded, struct sop_err *e);

/* Are more disks of a profile away than its parity makes up for? Then some of its data may be out
 * of reach. */
bool sop_members_beyond_parity(const struct sop_members *m);

const char *sop_members_volume_text(char *text, size_t size, const struct sop_label *l);

#define SOP_LOOK_MS 1000 /* figures of that age are asked for again, as a rule */

/* Look at the space of these folders (NULLs are skipped), those whose figures are as old as age_ms;
 * wait for the answers at most wait_ms. A folder that still owes an answer is not asked again. */
void sop_members_look(struct sop_attached *const *list, size_t n, uint64_t now_ms, uint64_t age_ms,
	bool threads, unsigned wait_ms);

/* Lock the folder's lock file and put the claim in it. SOP_EINUSE with the other's claim in its
 * text. create false: a folder without a lock file is not in use, and gets none. */
int sop_members_lock(struct sop_attached *a, const char *claim, bool create, struct sop_err *e);
/* The same with a shared lock, and without a claim. */
int sop_members_lock_shared(struct sop_attached *a, struct sop_err *e);
void sop_members_claim(char *claim, size_t size, const struct sop_clock *clock);

/* A folder's path as labels keep it: absolute, without double or trailing slashes. -ENAMETOOLONG.
 */
int sop_members_path(char *out, const char *path, bool real);

/* Open a folder, load its label, look at its space. */
struct sop_visit {
	struct sop_errand errand;
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	char *path;
	struct sop_attached *at; /* when rc is 0 */
	struct sop_label label;
	int rc;
	struct sop_err e;
};

struct sop_visit *sop_members_visit_new(const struct sop_members_opts *o, const char *path);

/* Lock a folder and read its label again. */
struct sop_claim {
	struct sop_errand errand;
	struct sop_attached *at;
	bool shared;
	char text[SOP_CLAIM_TEXT];
	struct sop_label label;
	int rc;
	struct sop_err e;
};

struct sop_claim *sop_members_claim_new(struct sop_attached *at, const char *text);

/* Set aside, or missing, by the labels: what it holds may be stale. */
static inline bool sop_members_away(const struct sop_member *who)
{
	return who->state == SOP_MEMBER_OFFLINE || who->flags & SOP_MEMBER_AWAY;
}

static inline bool sop_members_is(const struct sop_member *who)
{
	return who->role && who->state != SOP_MEMBER_REMOVED;
}

int sop_members_open_folder(struct sop_disk **out, const char *path,
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e),
	void *ctx, struct sop_err *e);

#endif
