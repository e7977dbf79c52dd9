/* A simulated disk on which calls hang until they are let go, and of which is counted how often it
 * was closed: for what a call that was given up still needs of it. One for a program. Any thread.
 */
#ifndef SOP_TEST_GATE_H
#define SOP_TEST_GATE_H

#include "core/disk.h"

/* As sim_open_disk, whose context this takes, for sop_members_opts.open_disk. */
int gate_open_disk(void *sim, struct sop_disk **out, const char *path, struct sop_err *e);
/* From now on these calls hang on the disk of this name: renames, or opening files whose path
 * begins so (NULL: no open does). The strings must outlive it. */
void gate_hang(const char *disk, bool renames, const char *opens);
/* The closes of that disk count from here. */
void gate_count(void);
/* Lets go of what hangs, and waits for the disk's close; how often it had been closed before. */
unsigned gate_let_go(void);

#endif
