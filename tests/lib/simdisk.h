/* A simulated disk in memory behind the disk vtable: faults, delays, lost un-synced writes.
 *
 * A struct sim is one machine: any number of disks (folders), one counter of operations over all of
 * them, one random stream from a seed. Operations that change something (write, datasync, truncate,
 * allocate, punch, rename, link, unlink, mkdir, create, syncdir) are "steps", counted from 1: a
 * crash or a fault can be put at any step. Locks are dropped by a crash. Thread-safe (one big
 * lock). */
#ifndef TESTS_SIMDISK_H
#define TESTS_SIMDISK_H

#include <limits.h>

#include "core/disk.h"
#include "core/io.h"

struct sim;

struct sim *sim_new(uint64_t seed);
/* The machine goes with the last disk that is open: a read that was given up as late may still be
 * under way in a thread of the engine. */
void sim_free(struct sim *s);

/* Make a folder with this path; bytes: room on it (ENOSPC beyond), 0 = no bound. */
void sim_add_disk(struct sim *s, const char *path, uint64_t bytes);
/* For struct sop_members_opts and sop_format_opts .open_disk, ctx = the sim. Any number of times.
 */
int sim_open_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e);
/* The n-th added disk, as one opened sop_disk of the test's own (freed with the sim). */
struct sop_disk *sim_disk(struct sim *s, unsigned n);

/* --- faults ------------------------------------------------------------------------------------
 */
void sim_disk_gone(struct sim *s, const char *path, bool gone); /* open fails, all I/O is EIO */
void sim_disk_error(struct sim *s, const char *path, int read_rc, int write_rc, int sync_rc);
/* Every I/O sleeps that long, about; SIM_HANGS: for ever. What sleeps ends when less is asked for.
 */
#define SIM_HANGS UINT_MAX
void sim_disk_delay(struct sim *s, const char *path, unsigned ms);
void sim_disk_resize(struct sim *s, const char *path, uint64_t bytes);
void sim_fail_step(struct sim *s, uint64_t step, int rc); /* that step fails, once; 0: none */
/* The n-th I/O from now on, reads counted too, fails (0: none); stays: and all later ones of its
 * disk. With -ENOSPC only what may take room counts. */
void sim_fail_io(struct sim *s, uint64_t n, int rc, bool stays);
/* But the first from there on for which `here` says so, told the disk. Until the next
 * sim_fail_io(). */
void sim_choose_io(struct sim *s, bool (*here)(void *arg, unsigned disk), void *arg);
bool sim_io_failed(struct sim *s);
/* fn is called at every step, when the machine is as sim_crash_at() would have stopped it there:
 * with the change of this step done and not synced, a sync not begun. It may clone, and set faults.
 * For I/O on one thread. */
void sim_watch(struct sim *s, void (*fn)(void *arg), void *arg);
/* A broken program: syncs of files (names: of directories) whose path begins with `what` are not
 * done, or only when something that begins with `until` is synced. Once a sim; clones are honest.
 */
void sim_lie(struct sim *s, const char *what, bool names, const char *until);
/* At this step the machine stops: it and all later operations of every kind give -EIO, until
 * sim_power_on(). 0: never. */
void sim_crash_at(struct sim *s, uint64_t step);
bool sim_crashed(struct sim *s);
uint64_t sim_steps(struct sim *s);
/* After a crash (or any time: then it is a power cut now): what is left is drawn from what POSIX
 * allows, by `choice` (a seed of its own): any subset of un-synced writes, torn at 512 bytes; sizes
 * with or without data; names not synced there or not (a rename: old or new; a file synced whose
 * name was not: there or not). All handles are invalid afterwards (their calls give -EIO). */
enum sim_keep {
	SIM_KEEP_SYNCED_ONLY,
	SIM_KEEP_ALL,	 /* everything had reached the media */
	SIM_KEEP_CACHED, /* the program alone has died: all is there, synced or not as it was */
	SIM_KEEP_RANDOM,
	SIM_KEEP_MIXED, /* each disk one of these */
};
void sim_power_on(struct sim *s, enum sim_keep keep, uint64_t choice);
/* A copy of the whole machine, as it is now, without handles and faults. */
struct sim *sim_clone(struct sim *s, uint64_t seed);

/* --- looking and damaging ----------------------------------------------------------------------
 */
/* Calls fn with every file of a disk ("segments/01/....0"). */
void sim_each_file(struct sim *s, const char *path,
	void (*fn)(void *arg, const char *file, uint64_t size, uint64_t allocated), void *arg);
int sim_peek(
	struct sim *s, const char *disk, const char *file, uint64_t off, void *buf, size_t len);
int sim_poke(struct sim *s, const char *disk, const char *file, uint64_t off, const void *buf,
	size_t len);
int sim_set_size(struct sim *s, const char *disk, const char *file, uint64_t size);
int sim_remove(struct sim *s, const char *disk, const char *file);
uint64_t sim_allocated(
	struct sim *s, const char *path); /* bytes in use, holes not counted, 4 KiB pages */

/* Counts since the last call, for tests of "how much I/O does this cost". */
struct sim_counts {
	uint64_t reads, writes, syncs, read_bytes, write_bytes, creates, others;
};
struct sim_counts sim_take_counts(struct sim *s);

#endif
