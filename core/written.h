/* What this process has done to its disks since it began, all volumes together: for those who
 * measure. Any thread. */
#ifndef SOP_WRITTEN_H
#define SOP_WRITTEN_H

#include <stdint.h>

struct sop_written {
	uint64_t writes; /* calls */
	uint64_t bytes;
	uint64_t syncs;	 /* calls, of files and of folders */
	uint64_t handed; /* batches of those that other threads did, while one waited */
};

struct sop_written sop_written(void);

/* For those who write: one write of so many bytes; one sync; one batch handed over. */
void sop_written_note(uint64_t n);
void sop_written_note_sync(void);
void sop_written_note_handed(void);

#endif
