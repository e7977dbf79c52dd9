/* The member folders of a volume: opened by their labels, locked, watched.
 *
 * Opening: every path given is a hint; the newest label says who belongs, and members it names are
 * looked for at their last known paths too. The lock file of each is locked and filled with a claim
 * (host, boot id, pid, time) that the error message of a second opener quotes.
 *
 * Threads: any, after open. Health is a few words under a leaf lock. */
#ifndef SOP_MEMBERS_H
#define SOP_MEMBERS_H

#include "core/clock.h"
#include "core/io.h"
#include "core/label.h"
#include "core/log.h"

struct sop_members;

enum sop_member_event { SOP_EVENT_READ, SOP_EVENT_WRITE, SOP_EVENT_CHECKSUM };

struct sop_members_opts {
	bool read_only;		  /* take no lock, write nothing */
	bool degraded;		  /* accept half or fewer of the labels */
	bool no_lock;		  /* for read-only inspection of a mounted volume */
	bool exclusive;		  /* be alone, though the volume is shared */
	unsigned disk_timeout_ms; /* 0: a default of 30,000 */
	unsigned wait_ms; /* for members that are absent: looked for again and again this long */
	void (*progress)(
		void *ctx, const char *what, uint64_t done, uint64_t total); /* meanwhile */
	void *progress_ctx;
	const struct sop_log *log; /* may be NULL */
	const struct sop_clock *clock;
	/* Opens a folder by path; NULL: sop_disk_open_folder. Tests give simulated disks. */
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	/* With open_disk everything is done on the caller's thread, in order and without a bound
	 * (deterministic), unless this is set. Without open_disk threads are always used. */
	bool threads;
};

/* SOP_EDISKS: too few members for the worst profile, or half or fewer labels without o->degraded;
 * SOP_EFOREIGN: labels of two volumes among paths (names both); SOP_EINUSE: locked (quotes the
 * claim). A folder given by name that has no label is an error of its own, naming the folder,
 * unless a member was there when last seen: then it is an unmounted drive, and that member is
 * absent. On success and not read_only the generation has been raised and stored on every member
 * present: it is the epoch of this mount. Members absent get state OFFLINE and current_since 0 in
 * the labels; those that are back are ONLINE again, their replicas not current.
 *
 * Present must be: k members of each profile, in any case; with read_only false, a current replica;
 * and without o->degraded all but m of each profile, more than half of all members, and more than
 * half of those that the newest label found calls online (the others cannot have gone on alone).
 * -ENOMEM: no member has been called missing for that. */
int sop_members_open(struct sop_members **out, const char *const *paths, size_t n,
	const struct sop_members_opts *o, struct sop_err *e);
/* All that was written is on the media, and nothing more comes before close: an image of a member
 * that was taken before is older than its label may be from now on. */
void sop_members_part(struct sop_members *m);
/* Unlocks and closes; no sync. */
void sop_members_close(struct sop_members *m);

/* The label all agree on (index and disk_uuid are of no member). Stable pointers. Generation, and
 * state and current_since of members, are as of open: ask sop_members_status() and _replicas().
 * Members and profiles may be added at any time, and profiles get other disks: ask
 * sop_members_count(), _profiles() and _profile_get(). */
const struct sop_label *sop_members_label(const struct sop_members *m);

/* A shared volume: opening locks all members exclusively, and nobody else is there; or, when others
 * are, shared: then no label was, or will be, written. Who is alone lets others in by
 * sop_members_share(): from then on he writes no label either. SOP_EINUSE: somebody has been
 * quicker, open again. */
bool sop_members_joined(const struct sop_members *m);
void sop_members_own_claim(const struct sop_members *m, char *text, size_t size);
int sop_members_share(struct sop_members *m, struct sop_err *e);
uint64_t sop_members_epoch(const struct sop_members *m);
unsigned sop_members_count(const struct sop_members *m); /* slots, used or not */
unsigned sop_members_timeout_ms(const struct sop_members *m);
const struct sop_log *sop_members_log(const struct sop_members *m);
const struct sop_clock *sop_members_clock(const struct sop_members *m);

/* The disk in slot i, or NULL when it is absent or set aside. Valid until close (a disk set aside
 * stays open, so a pointer in use stays valid). */
struct sop_disk *sop_members_disk(struct sop_members *m, unsigned i);
/* The same, though it is set aside (for closing files, healing). */
struct sop_disk *sop_members_disk_any(struct sop_members *m, unsigned i);

/* A step that met trouble on several members reports each by note, which sets it aside in memory,
 * and then all by event: one round of label stores serves all, and waits for none of them. */
void sop_members_note(struct sop_members *m, unsigned i, enum sop_member_event what, int rc);

/* What a read or write on member i met. Errors on reads are counted; on writes, syncs and timeouts
 * the member is set aside: state OFFLINE, current_since 0, the generation raised and stored on the
 * others before the call returns (so that nothing committed without this member can be followed by
 * believing it). The last current replica keeps its current_since: without it nothing more is
 * committed, so it stays the one to believe. ENOSPC and EDQUOT only mark the member full: a writer
 * whose replica missed something for want of room must report EIO. Checksum errors: op "checksum",
 * counted alone. Waits for label writes, at most a few times the disk timeout; hold no lock of rank
 * LEAF. */
void sop_members_event(struct sop_members *m, unsigned i, enum sop_member_event what, int rc);
/* Would parity still make up for all that is away, were these away too? By index. */
bool sop_members_can_spare(struct sop_members *m, const bool *more);

/* Members with the REGISTRY role whose replica is current. Fills idx (SOP_MEMBERS_MAX), returns n.
 */
unsigned sop_members_replicas(struct sop_members *m, unsigned *idx);
/* Has member i missed writes since it was current last: is its replica not to be believed, and may
 * its shards of segments that were written since be stale, without a record of it? */
bool sop_members_behind(struct sop_members *m, unsigned i);
/* Has it been set back to an old state? Then none of its shards is to be believed, whatever the
 * segment table says, until sop_members_replica_current(). */
bool sop_members_set_back(struct sop_members *m, unsigned i);
/* All of its shards are stale, in memory: what the next checkpoint records. */
void sop_members_set_back_noted(struct sop_members *m, unsigned i);
/* Which stay of member i this is, from 1 on: another one each time it is taken in again. */
uint64_t sop_members_stay(struct sop_members *m, unsigned i);
/* It is so no more: its replica, if it has that role, is healed, and the segment table on the media
 * says which of its shards are stale. Both was done in this stay: what it missed between two is in
 * neither (-EAGAIN). Raises and stores the generation. */
int sop_members_replica_current(
	struct sop_members *m, unsigned i, uint64_t stay, struct sop_err *e);

/* Take member i in again: it was set aside or absent, and answers now. Opens it at path (NULL: the
 * last known), checks label and lock. Its replica is current only if nothing was committed without
 * it. -EBUSY: a call on it still hangs. */
int sop_members_online(struct sop_members *m, unsigned i, const char *path, struct sop_err *e);
/* Set member i aside on request, or leave it so that has failed or is missing; it stays so over
 * mounts. SOP_EDISKS: the volume cannot do without. */
int sop_members_offline(struct sop_members *m, unsigned i, struct sop_err *e);
/* Could it? As sop_members_offline(), and nothing is done. */
int sop_members_may_go(struct sop_members *m, unsigned i, struct sop_err *e);
/* Look after them: one whose folder has been deleted is set aside; those that failed or were
 * missing are tried again when it is time (at once: now). The mask, by member, of those that are
 * back. */
struct sop_member_set {
	uint64_t bits[SOP_MEMBERS_MAX / 64];
};
bool sop_members_watch(struct sop_members *m, bool at_once, struct sop_member_set *back);

/* --- changes of membership ----------------------------------------------------------------------
 */

enum sop_members_add_flags { SOP_MEMBERS_FORCE = 1, SOP_MEMBERS_DRY_RUN = 2 };
/* Make the folder at path a member. *member: its index. See sop_disk_replace() for the errors.
 * min_bytes: the file system must have that much free. replaces: the member whose content goes to
 * it, so that nothing new goes there from now on; or -1. The crash in between leaves a folder with
 * a label that nobody else knows: it is no member, and nobody is replaced. */
int sop_members_add(struct sop_members *m, const char *path, uint8_t role, int replaces,
	unsigned flags, uint64_t min_bytes, unsigned *member, struct sop_err *e);
/* Nothing new goes to member i from now on: its content goes to the others. -EALREADY: it does so
 * already; -ENOENT: it is no member any more. In the same round of labels the heir (-1: none) gets
 * the REGISTRY role: its replica is not current yet. */
int sop_members_drain(struct sop_members *m, unsigned i, int heir, struct sop_err *e);
/* It stays. -ENOENT: it is not being drained, or is gone already. */
int sop_members_undrain(struct sop_members *m, unsigned i, struct sop_err *e);
/* It is no member any more: it was drained, and nothing of the volume lies on it. Its label goes
 * first, then (best effort) what else it holds of ours. -ECANCELED: it is not drained any more.
 * -EAGAIN: who takes over is not ready. */
int sop_members_remove(struct sop_members *m, unsigned i, struct sop_err *e);
/* The member that takes one more shard of a segment, which lies on n members already: online, with
 * room, a DATA member. -ENOSPC, SOP_EDISKS. */
int sop_members_place_one(
	struct sop_members *m, const uint16_t *taken, unsigned n, uint16_t *out, struct sop_err *e);
/* Verify both copies of each label, and write them anew where one is bad. The number that was. */
unsigned sop_members_scrub_labels(struct sop_members *m);

/* Is it of several machines, or of one? Who is alone in it says so. */
int sop_members_set_shared(struct sop_members *m, bool on, struct sop_err *e);

/* One more erasure code profile, from now on. -EEXIST, -ENOSPC; -EINVAL: it cannot be, and why;
 * SOP_EDISKS: the volume could not be opened with it, as some of its disks are away. */
int sop_members_profile_add(struct sop_members *m, const struct sop_profile *p, struct sop_err *e);
/* How many there are; those below that number never change, but for their disks. */
unsigned sop_members_profiles(const struct sop_members *m);
/* Profile n as it is now, and the members it may use: fills disk (SOP_MEMBERS_MAX), returns how
 * many. */
unsigned sop_members_profile_get(
	struct sop_members *m, unsigned n, struct sop_profile *out, uint8_t *disk);
/* May member i be used by it? */
bool sop_members_profile_has(const struct sop_label *l, const struct sop_profile *p, unsigned i);
int sop_members_profile_check(
	const struct sop_label *l, const struct sop_profile *p, struct sop_err *e);

/* Pick k+m members with the DATA role for a new segment of a profile: online, not full, most free
 * space first, spread; parity rotates with `rotate`. Fewer than k+m but at least k online: the rest
 * of disks[] is filled with absent members (degraded; bit set in *absent). -ENOSPC, SOP_EDISKS. */
int sop_members_place(struct sop_members *m, unsigned profile, uint64_t rotate, uint16_t *disks,
	uint32_t *absent, struct sop_err *e);

#define SOP_MEMBER_REASON 160

struct sop_member_status {
	bool present;
	bool missing; /* not seen since open */
	bool by_hand; /* offline on request */
	bool current; /* its replica is */
	uint8_t role, state;
	int to; /* DRAINING: where its content goes; -1: to the others */
	struct sop_uuid uuid;
	uint64_t generation;
	uint64_t read_errors, write_errors, checksum_errors, repaired_bytes;
	uint64_t total_bytes, free_bytes; /* as of the last look, at most some seconds ago */
	uint64_t seen_ns;		  /* wall clock: last answer; 0: none */
	char reason[SOP_MEMBER_REASON];	  /* why it is not present */
	const char *path;
};
void sop_members_status(struct sop_members *m, unsigned i, struct sop_member_status *out);
void sop_members_clear(struct sop_members *m, unsigned i); /* error counters to 0 */
void sop_members_repaired(struct sop_members *m, unsigned i, uint64_t bytes); /* written anew */

/* The same for figures at hand, pure: how many bytes can be stored k+m on n disks with these free
 * bytes. Disks with the same device share its room: what they have is divided among them. */
uint64_t sop_members_room(
	const struct sop_disk_space *disks, size_t n, unsigned k, unsigned m, bool total);

/* Largest number of bytes a profile can still take, after parity, over members with unequal room,
 * by statfs figures at most a second old (never waits on a disk that hangs). total: on empty disks.
 */
void sop_members_capacity(
	struct sop_members *m, unsigned profile, uint64_t *total_bytes, uint64_t *free_bytes);
/* The same by what the disks say now. false: one has not answered within a moment, or others are
 * asking it; its figures may be a second old. */
bool sop_members_capacity_now(
	struct sop_members *m, unsigned profile, uint64_t *total_bytes, uint64_t *free_bytes);

#endif
