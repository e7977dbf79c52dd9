/* One mount: made before the session loop, ended after it. */
#include "fs/ctl.h"
#include "fs/events.h"
#include "fs/locks.h"
#include "fs/names.h"
#include "fs/range_view.h"
#include "fs/recent.h"
#include "fs/worlds.h"

#include <time.h>

static void state_free(struct sopfs *f)
{
	sopfs_ticker_stop(f);
	sopfs_notifier_stop(f);
	sopfs_worlds_stop(f);
	sopfs_ranges_release(f);
	sopfs_ctl_stop(f);
	sopfs_events_stop(f);
	sopfs_recent_stop(f);
	sopfs_table_release(f);
	pthread_mutex_destroy(&f->locks_lock);
	pthread_cond_destroy(&f->committed_one);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

int sopfs_new(
	struct sopfs **out, struct sop_volume *v, const struct sopfs_opts *o, struct sop_err *e)
{
	struct sopfs *f = calloc(1, sizeof(*f));
	struct timespec boot = {0};
	struct sop_volume_stat st;
	int rc;

	if (!f)
		return sop_fail(e, -ENOMEM, "mount");
	f->v = v;
	f->latest = sop_volume_latest(v);
	sop_volume_stat(v, &st);
	f->shared = st.shared;
	f->o = *o;
	clock_gettime(CLOCK_REALTIME, &f->started);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	f->started_boot_s = boot.tv_sec;
	if (!f->o.append_commit_ms)
		f->o.append_commit_ms = 1000;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->committed_one, NULL);
	pthread_mutex_init(&f->locks_lock, NULL);
	rc = sopfs_table_init(f, e);
	if (!rc)
		rc = sopfs_ctl_start(f, e);
	if (!rc)
		rc = sopfs_worlds_start(f, e);
	if (!rc)
		rc = sopfs_recent_start(f, e);
	if (!rc)
		rc = sopfs_events_start(f, e);
	if (!rc)
		rc = sopfs_notifier_start(f, e);
	if (!rc)
		rc = sopfs_ticker_start(f, e);
	if (rc) {
		state_free(f);
		return rc;
	}
	sopfs_far_start(f);
	*out = f;
	return 0;
}

void sopfs_free(struct sopfs *f)
{
	if (!f)
		return;
	/* Commits under way still tell the kernel. */
	sopfs_worlds_stop(f);
	/* Nobody asks any more, and nobody listens. */
	f->se = NULL;
	sopfs_far_stop(f);
	sopfs_ticker_stop(f);
	sopfs_lock_stop(f);
	sopfs_handles_finish(f);
	pthread_mutex_lock(&f->lock);
	sopfs_marks_release(f);
	pthread_mutex_unlock(&f->lock);
	state_free(f);
}

void sopfs_set_session(struct sopfs *f, struct fuse_session *se)
{
	f->se = se;
}

void sopfs_stat(struct sopfs *f, struct sopfs_stat *out)
{
	out->sessions_open = atomic_load(&f->sessions_open);
	out->committed = atomic_load(&f->committed);
	out->rolled_back = atomic_load(&f->rolled_back);
	out->conflicts = atomic_load(&f->conflicts);
	out->failed = atomic_load(&f->failed);
	out->transactions = sopfs_worlds_count(f);
	out->known = f->table_used;
}
