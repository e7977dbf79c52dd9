/* A volume: opening and closing, the thread for background work, figures. */
#include "core/coordinate.h"
#include "core/mend.h"
#include "core/shared.h"

#define CACHE_DEFAULT	   ((size_t)256 << 20)
#define BUFFER_DEFAULT	   ((size_t)64 << 20)
#define CACHE_MIN	   ((size_t)4 << 20)
#define JOURNAL_DEFAULT	   ((uint64_t)64 << 20)
#define JOURNAL_MIN	   ((uint64_t)1 << 20)
#define COMMIT_DEFAULT	   1000u
#define CHECKPOINT_DEFAULT 30000u
#define RECLAIM_MAX	   512u
#define FOLLOW_MS	   200
#define OPEN_TRIES	   16 /* while those who are there go on from one image to the next */

/* ---- where nodes come from ---- */

static int node_locate(void *ctx, uint64_t handle, struct sop_blobref *ref, struct sop_err *e)
{
	struct sop_volume *v = ctx;

	return sop_registry_lookup(v->reg, handle, ref, e);
}

static int node_load(void *ctx, const struct sop_blobref *ref, void **buf, struct sop_err *e)
{
	struct sop_volume *v = ctx;
	void *p = malloc(ref->len);
	int rc;

	if (!p)
		return sop_fail(e, -ENOMEM, "node of %u bytes", ref->len);
	rc = sop_blob_read(v->seg, ref, p, ref->len, 0, e);
	if (rc) {
		free(p);
		return rc;
	}
	*buf = p;
	return 0;
}

static int node_handle_alloc(void *ctx, uint64_t *handle, struct sop_err *e)
{
	struct sop_volume *v = ctx;

	return sop_registry_alloc(v->reg, handle, e);
}

static void node_handle_release(void *ctx, uint64_t handle)
{
	struct sop_volume *v = ctx;

	sop_registry_release(v->reg, handle);
}

static const struct sop_nodes_ops node_ops = {
	.locate = node_locate,
	.load = node_load,
	.handle_alloc = node_handle_alloc,
	.handle_release = node_handle_release,
};

/* ---- background work ---- */

void sop_volume_kick(struct sop_volume *v)
{
	SOP_LOCK_GUARD(&v->bg_lock);

	v->bg_kick = true;
	pthread_cond_signal(&v->bg_cond);
}

static int give_back(struct sop_volume *v, struct sop_err *e)
{
	bool left = true;
	int rc = 0;

	while (left && !rc) {
		sop_lock(&v->ckpt_lock);
		rc = sop_space_reclaim(v->space, RECLAIM_MAX, &left, e);
		sop_unlock(&v->ckpt_lock);
	}
	return rc;
}

static bool checkpoint_due(struct sop_volume *v)
{
	uint64_t now = v->clock->monotonic_ms(v->clock->ctx);
	struct sop_nodes_stat s;

	sop_nodes_stat(v->nodes, &s);
	if (sop_checkpoint_worth(v, &s))
		return true;
	return sop_pins_published(v->pins) > v->ckpt_lsn &&
	       now - v->ckpt_ms >= v->opts.checkpoint_ms;
}

/* In a volume that others have mounted, too. */
static int tick_beside(struct sop_volume *v, struct sop_err *e)
{
	struct sop_nodes_stat s;
	int rc = sop_shared_tick(v, e);

	if (rc || v->dead)
		return rc;
	sop_nodes_stat(v->nodes, &s);
	if (sop_checkpoint_worth(v, &s))
		rc = sop_checkpoint_relieve(v, 0, e);
	if (!rc && sop_shared_image_due(v))
		rc = sop_checkpoint_run(v, false, e);
	return rc ? rc : give_back(v, e);
}

int sop_volume_tick(struct sop_volume *v, struct sop_err *e)
{
	bool more = true;
	int rc = 0, reap = 0;

	if (v->opts.read_only || v->dead)
		return 0;
	if (sop_shared_live(v))
		return tick_beside(v, e);
	rc = sop_barrier(v, sop_pins_published(v->pins), e);
	/* A dropped file whose extents cannot be read must not hold up everything else. */
	for (unsigned i = 0; more && !rc && i < 1024; i++) {
		int one = sop_reap(v, &more, reap ? NULL : e);

		reap = reap ? reap : one;
	}
	/* Without a mark an idle journal makes recovery verify more than it must, and nothing may
	 * be given back. */
	if (!rc)
		rc = sop_barrier_mark(v, e);
	if (!rc)
		rc = give_back(v, e);
	if (!rc && checkpoint_due(v))
		rc = sop_checkpoint_run(v, false, e);
	if (!rc && v->opts.no_threads)
		rc = sop_mend_all(v, e);
	return rc ? rc : reap;
}

static void *background(void *arg)
{
	struct sop_volume *v = arg;

	pthread_setname_np(pthread_self(), "sop-background");
	sop_lock(&v->bg_lock);
	while (!v->bg_stop) {
		struct sop_err e = {0};

		if (!v->bg_kick)
			sop_cond_wait(&v->bg_cond, &v->bg_lock,
				sop_shared_live(v) ? FOLLOW_MS : (long)v->opts.commit_ms);
		v->bg_kick = false;
		if (v->bg_stop)
			break;
		sop_unlock(&v->bg_lock);
		if (sop_volume_tick(v, &e))
			sop_log(v->log, SOP_LOG_ERROR, "background", "code=%s: %s",
				sop_err_name(e.code), e.text);
		sop_lock(&v->bg_lock);
	}
	sop_unlock(&v->bg_lock);
	return NULL;
}

static int background_start(struct sop_volume *v, struct sop_err *e)
{
	int rc;

	if (v->opts.read_only)
		return 0;
	if (v->opts.no_threads)
		return sop_shared_live(v) ? 0 : sop_mend_all(v, e);
	rc = sop_shared_live(v) ? 0 : sop_mender_start(v->mender, e);
	if (rc)
		return rc;
	rc = pthread_create(&v->bg_thread, NULL, background, v);
	if (rc)
		return sop_fail(e, -rc, "background thread");
	v->bg_started = true;
	return 0;
}

static void background_stop(struct sop_volume *v)
{
	if (v->mender)
		sop_mender_stop(v->mender);
	if (!v->bg_started)
		return;
	sop_lock(&v->bg_lock);
	v->bg_stop = true;
	pthread_cond_signal(&v->bg_cond);
	sop_unlock(&v->bg_lock);
	pthread_join(v->bg_thread, NULL);
	v->bg_started = false;
}

/* ---- opening and closing ---- */

static void volume_free(struct sop_volume *v)
{
	background_stop(v);
	sop_coordinate_close(v);
	sop_mender_free(v->mender);
	sop_shared_free(v);
	sop_journal_free(v->journal);
	sop_nodes_free(v->nodes);
	sop_stores_free(v->stores);
	sop_space_free(v->space);
	sop_registry_free(v->reg);
	sop_segments_free(v->seg);
	/* Everybody's own wait is over: what still runs hangs. */
	sop_iopool_free(v->io, 1000);
	sop_members_close(v->mem);
	sop_pins_free(v->pins);
	sop_event_ring_free(v->events);
	free(v->doubt);
	sop_prepared_forget(v);
	sop_lock_release(&v->commit);
	sop_lock_release(&v->queue_lock);
	sop_lock_release(&v->barrier);
	sop_lock_release(&v->ckpt_lock);
	sop_lock_release(&v->bg_lock);
	pthread_cond_destroy(&v->barrier_cond);
	pthread_cond_destroy(&v->barrier_come);
	pthread_cond_destroy(&v->bg_cond);
	free(v);
}

/* Who is alone tidies up before he lets others in: nobody can as long as anybody is there. */
static int enter(struct sop_volume *v, struct sop_err *e)
{
	int rc = 0;

	if (!sop_members_joined(v->mem)) {
		rc = sop_volume_tick(v, e);
		if (!rc)
			rc = sop_checkpoint_run(v, false, e);
	}
	if (!rc && v->opts.redis)
		rc = sop_coordinate_open(v, e);
	return rc ? rc : sop_shared_enter(v, e);
}

static int open_parts(struct sop_volume *v, const char *const *paths, size_t n, struct sop_err *e)
{
	const struct sop_open_opts *o = &v->opts;
	struct sop_members_opts mo = {.read_only = o->read_only,
		.exclusive = o->exclusive,
		.degraded = o->degraded,
		.disk_timeout_ms = o->disk_timeout_ms,
		.wait_ms = o->wait_ms,
		.progress = o->progress,
		.progress_ctx = o->progress_ctx,
		.log = v->log,
		.clock = v->clock,
		.threads = !o->inline_io,
		.open_disk = o->open_disk,
		.open_disk_ctx = o->open_disk_ctx};
	/* A quarter of the budget is for what comes with nodes: the heap's gaps, pages being
	 * written. */
	struct sop_nodes_opts no = {
		.cache_bytes = o->cache_bytes / 4 * 3, .ops = &node_ops, .ctx = v};
	const char *name;
	int rc = sop_members_open(&v->mem, paths, n, &mo, e);

	if (rc)
		return rc;
	name = sop_members_label(v->mem)->name;
	memcpy(v->name, name, sizeof(v->name));
	if (!*v->name)
		sop_uuid_format(v->name, &sop_members_label(v->mem)->volume_uuid);
	rc = o->inline_io
		     ? sop_iopool_new_inline(&v->io, e)
		     : sop_iopool_new(&v->io,
			       &(struct sop_iopool_opts){.disks = sop_members_count(v->mem)}, e);
	if (rc)
		return rc;
	v->pins = sop_pins_new();
	v->stores = sop_stores_new(v);
	v->space = sop_space_new(v);
	v->events = sop_event_ring_new();
	if (!v->pins || !v->stores || !v->space || !v->events)
		return sop_fail(e, -ENOMEM, "volume");
	no.pins = v->pins;
	/* A small volume is not to be filled by its journal: two files may stand on each replica.
	 */
	if (!v->opts.journal_bytes) {
		uint64_t total, avail;

		sop_members_capacity(v->mem, 0, &total, &avail);
		v->opts.journal_bytes = SOP_MIN(JOURNAL_DEFAULT, SOP_MAX(total / 64, JOURNAL_MIN));
	}
	rc = sop_segments_new(&v->seg, v->mem, v->io, sop_members_epoch(v->mem), e);
	if (!rc && o->segment_bytes)
		sop_segments_set_bytes(v->seg, o->segment_bytes);
	if (!rc)
		rc = sop_nodes_new(&v->nodes, &no, e);
	if (!rc)
		rc = sop_recover(v, e);
	if (!rc && !o->read_only) {
		v->mender = sop_mender_new(v);
		rc = v->mender ? sop_mender_load(v->mender, e) : sop_fail(e, -ENOMEM, "volume");
		if (!rc && !o->no_repair && (!v->shared || o->exclusive))
			sop_segments_on_bad(v->seg, sop_mender_repair, v->mender);
	}
	if (!rc && o->redis && !v->shared)
		rc = sop_say(e, -EINVAL,
			"volume %s is not shared: redis= has no use; sopctl set makes it shared",
			v->name);
	/* Whoever only looks, or is alone to the end, has no part in it. */
	if (!rc && v->shared && !o->read_only && !o->exclusive)
		rc = enter(v, e);
	if (!rc)
		rc = background_start(v, e);
	return rc;
}

/* *moved: it failed, and another try may not. */
static int open_once(struct sop_volume **out, const char *const *paths, size_t n,
	const struct sop_open_opts *o, bool *moved, struct sop_err *e)
{
	static const struct sop_open_opts none;
	struct sop_volume *v = calloc(1, sizeof(*v));
	int rc;

	*out = NULL;
	*moved = false;
	if (!v)
		return sop_fail(e, -ENOMEM, "volume");
	v->opts = o ? *o : none;
	v->opts.buffer_bytes = v->opts.buffer_bytes ? v->opts.buffer_bytes : BUFFER_DEFAULT;
	v->opts.cache_bytes =
		v->opts.cache_bytes ? SOP_MAX(v->opts.cache_bytes, CACHE_MIN) : CACHE_DEFAULT;
	v->opts.commit_ms = v->opts.commit_ms ? v->opts.commit_ms : COMMIT_DEFAULT;
	v->opts.checkpoint_ms = v->opts.checkpoint_ms ? v->opts.checkpoint_ms : CHECKPOINT_DEFAULT;
	v->opts.fill_bytes = v->opts.fill_bytes ? v->opts.fill_bytes : SOP_IO_ZEROS;
	v->log = v->opts.log;
	v->clock = v->opts.clock ? v->opts.clock : &sop_clock_system;
	v->latest = (struct sop_txn){
		.v = v, .mode = SOP_TXN_NO_CHECK, .latest = true, .lsn = SOP_LSN_LATEST};
	sop_lock_init(&v->commit, SOP_RANK_COMMIT, "commit");
	sop_lock_init(&v->queue_lock, SOP_RANK_LEAF, "commit queue");
	sop_lock_init(&v->barrier, SOP_RANK_LEAF, "barrier");
	sop_lock_init(&v->ckpt_lock, SOP_RANK_VOLUME, "checkpoint");
	sop_lock_init(&v->bg_lock, SOP_RANK_LEAF, "background");
	sop_cond_init(&v->barrier_cond);
	sop_cond_init(&v->barrier_come);
	sop_cond_init(&v->bg_cond);
	rc = open_parts(v, paths, n, e);
	if (rc) {
		*moved = sop_shared_moved(v);
		volume_free(v);
		return rc;
	}
	*out = v;
	return 0;
}

int sop_volume_open(struct sop_volume **out, const char *const *paths, size_t n,
	const struct sop_open_opts *o, struct sop_err *e)
{
	bool moved = true;
	int rc = 0;

	for (unsigned i = 0; moved && i < OPEN_TRIES; i++)
		rc = open_once(out, paths, n, o, &moved, e);
	return rc;
}

int sop_volume_close(struct sop_volume *v, struct sop_err *e)
{
	int rc = 0;

	background_stop(v);
	sop_shared_leave(v);
	if (!v->opts.read_only && !sop_shared_live(v)) {
		int last;

		rc = sop_volume_tick(v, e);
		sop_segments_cut(v->seg);
		/* Whatever the trouble was: the less is left to replay, the better. */
		last = sop_checkpoint_run(v, true, rc ? NULL : e);
		rc = rc ? rc : last;
		if (!rc)
			sop_members_part(v->mem);
	}
	volume_free(v);
	return rc;
}

int sop_volume_sync(struct sop_volume *v, struct sop_err *e)
{
	return v->opts.read_only ? 0 : sop_barrier_wait(v, sop_pins_published(v->pins), e);
}

int sop_volume_checkpoint(struct sop_volume *v, struct sop_err *e)
{
	return sop_checkpoint_run(v, false, e);
}

struct sop_txn *sop_volume_latest(struct sop_volume *v)
{
	return &v->latest;
}

/* ---- figures ---- */

void sop_volume_stat(struct sop_volume *v, struct sop_volume_stat *out)
{
	const struct sop_label *label = sop_members_label(v->mem);
	struct sop_space_stat space;
	struct sop_nodes_stat nodes;

	memset(out, 0, sizeof(*out));
	out->uuid = label->volume_uuid;
	memcpy(out->name, v->name, sizeof(out->name));
	out->k = label->profile[0].k;
	out->m = label->profile[0].m;
	for (unsigned i = 0; i < sop_members_count(v->mem); i++) {
		struct sop_member_status s;

		sop_members_status(v->mem, i, &s);
		/* One that is being emptied is there as long as it is. */
		if (!(s.role & SOP_ROLE_DATA) || s.state == SOP_MEMBER_REMOVED)
			continue;
		out->disks++;
		out->disks_online += s.present && !s.by_hand;
	}
	out->read_only = v->opts.read_only;
	out->degraded = out->disks_online < out->disks;
	out->failed = v->dead != 0;
	out->shared = v->shared != NULL;
	sop_store_room(v, SOP_ROOT, &out->total_bytes, &out->free_bytes);
	out->items = v->items;
	out->lsn = sop_pins_published(v->pins);
	sop_lock(&v->barrier);
	out->durable_lsn = v->durable_lsn;
	sop_unlock(&v->barrier);
	out->commits = v->commits;
	out->conflicts = v->conflicts;
	out->rolled_back = v->rolled_back;
	out->failures = v->failures;
	sop_space_stat(v->space, &space);
	out->live_bytes = space.live_bytes;
	out->pending_bytes = space.pending_bytes;
	out->segments = space.segments;
	out->journal_bytes = v->journal_used;
	sop_nodes_stat(v->nodes, &nodes);
	out->cache_bytes = nodes.memory_bytes;
	out->dirty_bytes = nodes.dirty_bytes;
}
