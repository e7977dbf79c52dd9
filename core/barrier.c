/* Barriers: what was committed reaches the media.
 *
 * In rounds, one at a time. A round notes what is published, syncs all files that were written
 * since they were synced last, side by side, and then all that was noted is durable; who comes
 * meanwhile waits for the next. Invariant: whatever is published when a round begins was written
 * before by calls that have returned, so the round's syncs cover it, and durable_lsn says no more
 * than that.
 *
 * Whoever waits for the media mostly comes again as soon as he has what he waited for. A round that
 * began at once would serve one half of the callers while the other half waits for the next: twice
 * the syncs. So a round is held back until as many are there as took part in the last one or waited
 * for its end, though no longer than the last one took: who comes alone waits for nobody, and
 * whoever expects others in vain does so once. More than GATHER_MAX are not waited for: the others'
 * own work goes on while the disks are busy with these. */
#include "core/engine.h"
#include "core/sync.h"

#include <stdatomic.h>

#define GATHER_MAX 8u
#define GATHER_NS  (10u * 1000000u)

/* A record that reaches the media before its blobs does not verify there, so they need no order. */
int sop_barrier_sync(struct sop_volume *v, struct sop_err *e)
{
	struct sop_batch *b = sop_batch_new(v->io);
	struct sop_segments_syncing *seg;
	struct sop_journal_syncing *journal;
	int rc, one;

	if (!b)
		return sop_fail(e, -ENOMEM, "sync");
	rc = sop_journal_sync_begin(&journal, v->journal, b, e);
	if (rc)
		goto out;
	rc = sop_segments_sync_begin(&seg, v->seg, b, e);
	if (rc) {
		/* Some of its syncs may stand in the batch. They are not asked for: a disk tells
		 * its error once, and nobody would listen. */
		sop_journal_sync_cancel(journal);
		goto out;
	}
	sop_batch_run(b, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(v->mem));
	rc = sop_segments_sync_end(seg, e);
	one = sop_journal_sync_end(journal, rc ? NULL : e);
	rc = rc ? rc : one;
out:
	sop_batch_put(b);
	return rc;
}

/* So many are enough for a round. The barrier lock is held. */
static bool all_there(const struct sop_volume *v)
{
	return v->barrier_waiting >= SOP_MIN(v->barrier_expected, GATHER_MAX);
}

static void gather(struct sop_volume *v)
{
	uint64_t until = sop_monotonic_ns() + SOP_MIN(v->barrier_ns, GATHER_NS);

	while (!all_there(v) && sop_cond_wait_until(&v->barrier_come, &v->barrier, until))
		;
}

/* All that was published is written; who comes now waits for the next round. The barrier lock is
 * held, and let go for the syncs. */
static int run_round(struct sop_volume *v, struct sop_err *e)
{
	uint64_t begun, target, noted;
	unsigned served = v->barrier_waiting;
	int rc;

	v->barrier_waiting = 0;
	v->barrier_rounds++;
	sop_unlock(&v->barrier);
	begun = sop_monotonic_ns();
	target = sop_pins_published(v->pins);
	noted = v->barrier_noted;
	rc = sop_barrier_sync(v, e);
	if (!rc)
		sop_barrier_marked(v, noted);
	sop_lock(&v->barrier);
	if (!rc)
		v->durable_lsn = SOP_MAX(v->durable_lsn, target);
	v->barrier_ns = sop_monotonic_ns() - begun;
	v->barrier_expected = served + v->barrier_waiting;
	return rc;
}

/* The barrier lock is held. waits: he comes again. */
static int barrier(struct sop_volume *v, uint64_t lsn, bool waits, struct sop_err *e)
{
	uint64_t round = v->barrier_rounds;
	int rc;

	if (v->durable_lsn >= lsn)
		return 0;
	v->barrier_waiting += waits;
	if (all_there(v))
		pthread_cond_signal(&v->barrier_come);
	while (v->durable_lsn < lsn && v->barrier_running)
		sop_cond_wait(&v->barrier_cond, &v->barrier, -1);
	if (v->durable_lsn >= lsn) {
		/* The round that ran when he came was enough: the next is not to count on him. */
		v->barrier_waiting -= waits && round == v->barrier_rounds;
		return 0;
	}
	v->barrier_running = true;
	if (waits)
		gather(v);
	rc = run_round(v, e);
	v->barrier_running = false;
	pthread_cond_broadcast(&v->barrier_cond);
	return rc ? sop_wrap(e, rc, "making commits durable") : 0;
}

int sop_barrier(struct sop_volume *v, uint64_t lsn, struct sop_err *e)
{
	/* What is in a slot is on the media. */
	if (v->shared)
		return 0;
	SOP_LOCK_GUARD(&v->barrier);
	return barrier(v, lsn, false, e);
}

int sop_barrier_wait(struct sop_volume *v, uint64_t lsn, struct sop_err *e)
{
	v->waited_lsn = sop_pins_published(v->pins);
	if (v->shared)
		return 0;
	SOP_LOCK_GUARD(&v->barrier);
	return barrier(v, lsn, true, e);
}

int sop_barrier_mark(struct sop_volume *v, struct sop_err *e)
{
	struct sop_record_in in = {.type = SOP_RECORD_BARRIER};
	uint64_t noted;
	int rc = 0;

	if (v->shared)
		return 0;

	sop_lock(&v->barrier);
	in.lsn = v->durable_lsn;
	sop_unlock(&v->barrier);
	sop_lock(&v->commit);
	if (!v->dead && in.lsn > v->barrier_noted) {
		in.time_ns = v->clock->wall_ns(v->clock->ctx);
		in.next_ino = v->next_ino;
		rc = sop_commit_append(v, &in, e);
		if (!rc)
			v->barrier_noted = in.lsn;
	}
	noted = v->barrier_noted;
	sop_unlock(&v->commit);
	if (rc || noted <= v->barrier_marked)
		return rc;
	rc = sop_journal_sync(v->journal, e);
	if (!rc)
		sop_barrier_marked(v, noted);
	return rc;
}

void sop_barrier_marked(struct sop_volume *v, uint64_t lsn)
{
	uint64_t now = v->barrier_marked;

	while (now < lsn && !atomic_compare_exchange_weak(&v->barrier_marked, &now, lsn))
		;
}
