/* Administering a volume while it is used: its disks, the work in the background (heal, replace, remove,
 * scrub), what was lost, where space goes, where a value lies. Part of the public face: core/sop.h
 * includes it.
 *
 * Calls that start work check everything first, return, and leave the work to the background: it goes on
 * over remounts and crashes. What only looks (disk, task, lost, space) answers from memory and never
 * waits for a disk. Any thread.
 *
 * A disk is named by its name ("d1", as status prints it), by its path, or by its UUID or the beginning
 * of it (at least four digits, when only one disk has it). */
#ifndef SOP_ADMIN_H
#define SOP_ADMIN_H

#include <time.h>

#include "core/err.h"
#include "core/id.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sop_volume;
struct sop_txn;
struct sop_name;

/* ---- disks ----------------------------------------------------------------------------------- */

enum sop_disk_state {
	SOP_DISK_ONLINE,
	SOP_DISK_OFFLINE,   /* by hand: stays so until sop_disk_online() */
	SOP_DISK_MISSING,   /* was not there at mount; looked for again now and then */
	SOP_DISK_FAILED,    /* errors, or no answer; tried again now and then */
	SOP_DISK_HEALING,   /* there, but what it missed is still being rebuilt */
	SOP_DISK_REPLACING, /* its content goes to another folder */
	SOP_DISK_REMOVING,  /* its content goes to the other disks */
};
const char *sop_disk_state_name(enum sop_disk_state state); /* "ONLINE", ... */

#define SOP_DISK_PATH 208

struct sop_volume_disk {
	unsigned index; /* in the label */
	char name[12];  /* "d1": index + 1 */
	enum sop_disk_state state;
	char path[SOP_DISK_PATH]; /* where it is, or was last */
	struct sop_uuid uuid;
	uint64_t generation;  /* of the label it has, as far as is known */
	bool present;         /* open, and used for reads */
	bool data, registry;  /* what it holds */
	bool current;         /* registry: its replica is up to date */
	int target;           /* REPLACING: index of the new disk; else -1 */
	char reason[160];     /* of FAILED, MISSING: the last trouble; else "" */
	struct timespec last_seen; /* real time of the last answer; 0: not since the mount */
	uint64_t read_errors, write_errors, checksum_errors;
	uint64_t repaired_bytes;           /* written anew since the mount */
	uint64_t total_bytes, free_bytes;  /* of the file system it lies on */
	uint64_t used_bytes;               /* by this volume's shards, about */
	uint64_t missing_bytes;            /* HEALING, REPLACING, REMOVING: still to be written, about */
};
/* Disk number n in use, counted from 0; false beyond the last. (out->index may have gaps.) */
bool sop_volume_disk(struct sop_volume *v, unsigned n, struct sop_volume_disk *out);

enum sop_admin_flags {
	SOP_ADMIN_FORCE = 1,   /* take a folder that is not empty, or on a device in use already */
	SOP_ADMIN_DRY_RUN = 2, /* check everything, do nothing */
	SOP_ADMIN_DATA = 4,    /* add: for data alone, no replica of the registry */
};

/* Stop using a disk, until it is put online again. SOP_EDISKS: the volume cannot do without it. flags: DRY_RUN. */
int sop_disk_offline(struct sop_volume *v, const char *which, unsigned flags, struct sop_err *e);
/* Use it again: at path, or (NULL) where it was last. What it missed is healed. SOP_EFOREIGN: not this
 * volume's, or another disk of it. */
int sop_disk_online(struct sop_volume *v, const char *which, const char *path, struct sop_err *e);
/* Its content goes to a new folder, from it or, where it cannot be read, rebuilt from the others; when
 * all of it is there and verified, the old disk is no longer a member. -ENOTEMPTY, -EEXIST (a member
 * already), SOP_EFOREIGN (of another volume), -ENOSPC (too small), -EXDEV (device in use already). */
int sop_disk_replace(struct sop_volume *v, const char *which, const char *path, unsigned flags,
	struct sop_err *e);
/* A further disk: new segments use it from now on. Errors as for replace. */
int sop_disk_add(struct sop_volume *v, const char *path, unsigned flags, struct sop_err *e);
/* Its content goes to the other disks, then it is no longer a member. SOP_EDISKS: too few would be left;
 * -ENOSPC: the others have no room. */
int sop_disk_remove(struct sop_volume *v, const char *which, unsigned flags, struct sop_err *e);
/* End a replacement or removal that is under way: what has moved stays where it is, and the disk is used
 * again. -ENOENT: none is. */
int sop_disk_cancel(struct sop_volume *v, const char *which, struct sop_err *e);

/* ---- work in the background -------------------------------------------------------------------- */

/* Verify everything: shards, replicas, labels; repair what is bad. rate: bytes read in a second, 0: no
 * bound. -EALREADY: one is under way (a paused one goes on by resume). Progress outlives the mount. */
int sop_scrub_start(struct sop_volume *v, uint64_t rate_bytes_per_s, struct sop_err *e);
int sop_scrub_pause(struct sop_volume *v, struct sop_err *e);  /* -ENOENT: none is running */
int sop_scrub_resume(struct sop_volume *v, struct sop_err *e); /* -ENOENT: none is paused */
int sop_scrub_stop(struct sop_volume *v, struct sop_err *e);   /* -ENOENT: none is there */

enum sop_task_kind { SOP_TASK_SCRUB, SOP_TASK_HEAL, SOP_TASK_REPLACE, SOP_TASK_REMOVE };
enum sop_task_state {
	SOP_TASK_RUNNING,
	SOP_TASK_PAUSED,   /* by hand */
	SOP_TASK_WAITING,  /* for a disk, or for room: message says for what */
	SOP_TASK_FINISHED,
	SOP_TASK_STOPPED,  /* by hand */
	SOP_TASK_FAILED,
};
const char *sop_task_kind_name(enum sop_task_kind kind);    /* "scrub", ... */
const char *sop_task_state_name(enum sop_task_state state); /* "running", ... */

struct sop_task {
	enum sop_task_kind kind;
	enum sop_task_state state;
	int disk;                     /* index of the disk that is worked on; -1: all */
	char target[SOP_DISK_PATH];   /* replace: the new folder */
	struct timespec started, ended; /* real time; ended 0: not yet */
	uint64_t bytes_total, bytes_done;
	uint64_t bytes_per_s;         /* lately */
	uint64_t repaired_bytes;
	uint64_t corrected, unrecoverable; /* errors */
	char message[160];            /* what it waits for, or why it failed; else "" */
};
/* Task i of 0, 1, ...: those under way, and the last of each kind that has ended. False beyond. */
bool sop_volume_task(struct sop_volume *v, unsigned i, struct sop_task *out);

/* A range that was found unreadable: too few good shards. */
struct sop_lost {
	char name[256];    /* path of the file, when known; else what it is */
	uint64_t off, len; /* bytes of the value; len 0: all of it */
	struct timespec when;
};
bool sop_volume_lost(struct sop_volume *v, unsigned i, struct sop_lost *out);

/* Set the error counters of a disk (NULL: of all) to 0; with NULL forget the lost ranges too. */
int sop_volume_clear(struct sop_volume *v, const char *which, struct sop_err *e);

/* ---- space ------------------------------------------------------------------------------------- */

/* Bytes on the disks, from memory. */
struct sop_volume_space {
	uint64_t data;     /* shards of files' bytes, without parity */
	uint64_t parity;   /* what redundancy adds, of data and nodes */
	uint64_t metadata; /* nodes (without parity), registry, journal */
	uint64_t pinned;   /* freed, but readers still see it or no checkpoint has passed */
	uint64_t reserve;  /* kept for deletes and metadata */
	uint64_t free;     /* of data that can still be stored, after parity and reserve */
	uint64_t total;    /* of data, on empty disks */
};
void sop_volume_space(struct sop_volume *v, struct sop_volume_space *out);

/* ---- where a value lies ------------------------------------------------------------------------ */

enum sop_shard_state { SOP_SHARD_UNKNOWN, SOP_SHARD_OK, SOP_SHARD_MISSING, SOP_SHARD_CORRUPT };

struct sop_extent_layout {
	uint64_t off, len;   /* of the value */
	bool is_inline;      /* in the item's record: none of what follows */
	uint64_t segment;
	uint64_t segment_off; /* of the fragments in the shard files */
	unsigned k, m;
	unsigned disk[32];              /* of shard 0 .. k+m-1 */
	enum sop_shard_state state[32]; /* UNKNOWN unless verified or known to be missing */
};

/* fn for each extent in order; its non-zero result ends it and is returned. verify: read and check
 * all shards. fn must not call the library. -ENOENT. */
int sop_value_layout(struct sop_txn *t, struct sop_name name, bool verify,
	int (*fn)(void *arg, const struct sop_extent_layout *x), void *arg, struct sop_err *e);

#ifdef __cplusplus
}
#endif

#endif
