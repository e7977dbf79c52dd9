/* The syncs of journal.h and blob.h in steps, so that one batch carries both.
 *
 * begin waits for a sync of the same kind that runs, and adds its fdatasyncs to b. Then the batch
 * is run, and end called soon after: others wait for it. Who begins both begins the journal's
 * first. A batch of which a begin has failed is not run: it may hold fdatasyncs that nobody asks
 * for their errors, which are told once. What the syncs cover, and their errors: as those of
 * sop_journal_sync() and sop_segments_sync(). Any thread; no lock is held. */
#ifndef SOP_SYNC_H
#define SOP_SYNC_H

#include "core/blob.h"
#include "core/journal.h"

struct sop_journal_syncing;
struct sop_segments_syncing;

int sop_journal_sync_begin(struct sop_journal_syncing **out, struct sop_journal *j,
	struct sop_batch *b, struct sop_err *e);
int sop_journal_sync_end(struct sop_journal_syncing *s, struct sop_err *e);
void sop_journal_sync_cancel(struct sop_journal_syncing *s); /* begun, and the batch not run */

/* *out NULL: another's sync, which began after this call, has covered it. end takes NULL. */
int sop_segments_sync_begin(struct sop_segments_syncing **out, struct sop_segments *s,
	struct sop_batch *b, struct sop_err *e);
int sop_segments_sync_end(struct sop_segments_syncing *x, struct sop_err *e);

#endif
