/* Databases whose processes share memory beside the file: NAME-shm is mapped by all of them,
 * NAME-wal is the log it is an index of (SQLite in WAL mode). What one process writes there another
 * sees at once, without lock or close, so such files are session=write wherever they lie, as long
 * as there is a NAME; and so is NAME itself from when one of them is opened.
 *
 * A session of NAME that began before becomes live: from then on it writes and reads the newest
 * version, by its own nodeid, whose pages are dropped whenever another changes the file: before a
 * write is answered, unless another write to the file waits for that just then; otherwise after it.
 * Who takes or gives back a lock is answered behind all of it, so that what the locks protect is
 * seen. Locks alone would not do: SQLite looks at the shared memory once more when it has its lock,
 * and reads from NAME what it says is there. */
#ifndef SOPFS_COMPANION_H
#define SOPFS_COMPANION_H

#include "fs/views.h"

/* Is this the name of one? */
bool sopfs_is_companion(struct sopfs *f, uint64_t store, const char *name, size_t len);
/* Is one of this file's open? */
bool sopfs_has_companion(struct sopfs *f, uint64_t store, const char *name, size_t len);
/* One has been opened by h, which counts it until it is released. No lock held. */
void sopfs_companion_opened(struct sopfs *f, struct sopfs_handle *h, uint64_t store,
	const char *name, size_t len, struct sopfs_notes *notes);

#endif
