/* What this process has done to its disks since it began, all volumes together: for those who
 * measure. Any thread. */
#ifndef SOP_WRITTEN_H
#define SOP_WRITTEN_H

#include <stdint.h>

struct sop_written {
	uint64_t writes; /* calls */
	uint64_t bytes;
	uint64_t syncs; /* calls, of files and of folders */
};

struct sop_written sop_written(void);

/* For those who write: one write of so many bytes; one sync. */
void sop_written_note(uint64_t n);
void sop_written_note_sync(void);

#endif
