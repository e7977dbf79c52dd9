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

struct sop_members_opts {
	bool read_only;            /* take no lock, write nothing */
	bool degraded;             /* accept half or fewer of the labels */
	bool no_lock;              /* for read-only inspection of a mounted volume */
	unsigned disk_timeout_ms;  /* 0: a default of 30,000 */
	unsigned wait_ms;          /* for members that are absent: looked for again and again this long */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total); /* meanwhile */
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
 * SOP_EFOREIGN: labels of two volumes among paths (names both); SOP_EINUSE: locked (quotes the claim).
 * A folder given by name that has no label is an error of its own, naming the folder, unless a member
 * was there when last seen: then it is an unmounted drive, and that member is absent. On success and
 * not read_only the generation has been raised and stored on every member present: it is the epoch of
 * this mount. Members absent get state OFFLINE and current_since 0 in the labels; those that are back
 * are ONLINE again, their replicas not current.
 *
 * Present must be: k members of each profile, in any case; with read_only false, a current replica;
 * and without o->degraded all but m of each profile, more than half of all members, and more than
 * half of those that the newest label found calls online (the others cannot have gone on alone). */
int sop_members_open(struct sop_members **out, const char *const *paths, size_t n,
	const struct sop_members_opts *o, struct sop_err *e);
/* Unlocks and closes; no sync. */
void sop_members_close(struct sop_members *m);

/* The label all agree on (index and disk_uuid are of no member). Stable pointers. Generation, and state
 * and current_since of members, are as of open: ask sop_members_status() and _replicas(). */
const struct sop_label *sop_members_label(const struct sop_members *m);
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

/* What a read or write on member i met. Errors on reads are counted; on writes, syncs and timeouts the
 * member is set aside: state OFFLINE, current_since 0, the generation raised and stored on the others
 * before the call returns (so that nothing committed without this member can be followed by believing
 * it). The last current replica keeps its current_since: without it nothing more is committed, so it
 * stays the one to believe. ENOSPC and EDQUOT only mark the member full: a writer whose replica missed
 * something for want of room must report EIO. Checksum errors: op "checksum", counted alone.
 * Waits for label writes, at most a few times the disk timeout; hold no lock of rank LEAF. */
enum sop_member_event { SOP_EVENT_READ, SOP_EVENT_WRITE, SOP_EVENT_CHECKSUM };
void sop_members_event(struct sop_members *m, unsigned i, enum sop_member_event what, int rc);

/* Members with the REGISTRY role whose replica is current. Fills idx (SOP_MEMBERS_MAX), returns n. */
unsigned sop_members_replicas(struct sop_members *m, unsigned *idx);
/* Has member i missed writes since it was current last: is its replica not to be believed, and may its
 * shards of segments that were written since be stale, without a record of it? */
bool sop_members_behind(struct sop_members *m, unsigned i);
/* It is so no more: its replica, if it has that role, is healed, and the segment table on the media says
 * which of its shards are stale. Raises and stores the generation. */
int sop_members_replica_current(struct sop_members *m, unsigned i, struct sop_err *e);

/* Take member i in again: it was set aside or absent, and answers now. Opens it at path (NULL: the last
 * known), checks label and lock. Its replica is current only if nothing was committed without it.
 * -EBUSY: a call on it still hangs. */
int sop_members_online(struct sop_members *m, unsigned i, const char *path, struct sop_err *e);
/* Set member i aside on request. SOP_EDISKS: the volume cannot do without it. */
int sop_members_offline(struct sop_members *m, unsigned i, struct sop_err *e);

/* Pick k+m members with the DATA role for a new segment of a profile: online, not full, most free
 * space first, spread; parity rotates with `rotate`. Fewer than k+m but at least k online: the rest of
 * disks[] is filled with absent members (degraded; bit set in *absent). -ENOSPC, SOP_EDISKS. */
int sop_members_place(struct sop_members *m, unsigned profile, uint64_t rotate, uint16_t *disks,
	uint32_t *absent, struct sop_err *e);

struct sop_member_status {
	bool present;
	uint8_t role, state;
	uint64_t read_errors, write_errors, checksum_errors;
	uint64_t total_bytes, free_bytes; /* as of the last look, at most some seconds ago */
	const char *path;
};
void sop_members_status(struct sop_members *m, unsigned i, struct sop_member_status *out);
void sop_members_clear(struct sop_members *m, unsigned i); /* error counters to 0 */

/* The same for figures at hand, pure: how many bytes can be stored k+m on n disks with these free bytes.
 * Disks with the same device share its room: what they have is divided among them. */
uint64_t sop_members_room(const struct sop_disk_space *disks, size_t n, unsigned k, unsigned m,
	bool total);

/* Largest number of bytes a profile can still take, after parity, over members with unequal room, by
 * statfs figures at most a second old (never waits on a disk that hangs). total: on empty disks. */
void sop_members_capacity(struct sop_members *m, unsigned profile, uint64_t *total_bytes,
	uint64_t *free_bytes);

#endif
