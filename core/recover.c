/* Recovery: the newest checkpoint, its flips again, then the journal up to its end.
 *
 * Records covered by a barrier are on the media with their blobs. Past the last barrier a record
 * counts only when every blob it names verifies; the first that does not ends the history for good.
 * Where nobody can tell, for want of disks or because of errors, the mount fails instead. What
 * verifies there may lie in the page cache alone, when the program died and the machine did not: it
 * is synced. When all is applied, a checkpoint is written: what was accepted is durable before
 * anything builds on it, and the torn end of the journal is behind us. A crash in here starts over
 * from the same place. */
#include "core/shared.h"

#include <sys/stat.h>

struct replay {
	struct sop_volume *v;
	struct sop_err *e;
	uint64_t records;
};

struct verify {
	struct sop_volume *v;
	bool bad;
	struct sop_err *e;
};

static int verify_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct verify *w = arg;
	struct sop_disk_blobref raw;
	struct sop_blobref ref;
	struct sop_err why = {0};
	uint32_t good;
	int rc;

	(void)flags;
	(void)store;
	(void)val;
	(void)vlen;
	if (type != SOP_OP_ALLOC)
		return 0;
	if (klen != sizeof(raw)) {
		w->bad = true;
		return 1;
	}
	memcpy(&raw, key, sizeof(raw));
	ref = sop_blobref_decode(&raw);
	/* Shards that the power cut tore are made whole again from the others. */
	rc = sop_blob_verify(w->v->seg, &ref, !w->v->opts.read_only, &good, &why);
	if (!rc) {
		/* Where the program died and the machine did not, it may lie in the page cache
		 * alone: what is built on it waits for its sync. */
		if (!w->v->opts.read_only)
			sop_segments_cached(w->v->seg, ref.segment, good);
		return 0;
	}
	if (sop_blob_untold(rc))
		return sop_say(w->e, rc, "%s", why.text);
	w->bad = rc == SOP_ELOST || rc == SOP_ECORRUPT || w->v->opts.part_journal;
	if (w->bad)
		return 1;
	/* Nothing says that it was never there, and to end the history here would be for good. */
	return sop_say(w->e, SOP_ELOST,
		"%s: cannot be read now, and may have been on the media; bring back missing disks "
		"and mount again, or fsck.sopfs -y --discard-lost gives up what was committed from "
		"there on",
		why.text);
}

static int replay_record(void *arg, const struct sop_record_out *rec, bool durable)
{
	struct replay *r = arg;
	struct sop_volume *v = r->v;
	int rc = 0;

	if (!durable) {
		struct verify w = {.v = v, .e = r->e};

		rc = sop_ops_each(rec->payload, rec->payload_len, verify_op, &w, r->e);
		if (w.bad)
			return 1;
	}
	/* What verifies was written as it is: that it cannot be understood, or does not fit what
	 * is there, is no torn end. */
	if (!rc)
		rc = sop_apply_prefault(v, rec->payload, rec->payload_len, r->e);
	if (!rc) {
		sop_apply_begin(v, rec->lsn);
		rc = sop_apply_run(v, rec->payload, rec->payload_len, rec->lsn, rec->time_ns, r->e);
		sop_apply_end(v);
	}
	if (rc)
		return sop_wrap(r->e, rc, "journal record %llu", (unsigned long long)rec->lsn);
	v->lsn_next = rec->lsn + 1;
	v->next_ino = SOP_MAX(v->next_ino, rec->next_ino);
	sop_pins_publish(v->pins, rec->lsn);
	if (++r->records % 1024 == 0 && v->opts.progress)
		v->opts.progress(v->opts.progress_ctx, "replaying the journal", r->records, 0);
	return 0;
}

/* Where nothing may be written it is made in memory alone, as a record that is replayed. */
static int put_root(struct sop_volume *v, const struct sop_buf *ops, struct sop_err *e)
{
	struct replay r = {.v = v, .e = e};
	struct sop_record_out rec = {.lsn = v->lsn_next,
		.next_ino = v->next_ino,
		.payload = ops->p,
		.payload_len = ops->len};
	int rc;

	if (v->opts.read_only)
		return ops->failed ? sop_fail(e, -ENOMEM, "root directory")
				   : replay_record(&r, &rec, true);
	sop_lock(&v->commit);
	rc = sop_commit_locked(v, ops, e);
	sop_unlock(&v->commit);
	return rc;
}

static int make_root(struct sop_volume *v, struct sop_err *e)
{
	uint8_t raw[SOP_ITEM_BYTES_MAX], key[SOP_MASTER_KEY];
	struct sop_item it = {0};
	struct sop_buf ops = {0};
	int rc;

	it.attr.ino = SOP_ROOT;
	it.attr.mode = S_IFDIR | 0755;
	/* Whoever mounts a new volume first owns it, so that an ordinary user can use his own. */
	it.attr.uid = geteuid();
	it.attr.gid = getegid();
	it.attr.nlink = 1;
	it.attr.mtime = sop_now(v);
	it.attr.atime = it.attr.ctime = it.attr.btime = it.attr.mtime;
	it.attr.rdev = SOP_ROOT;
	it.attr.version = v->lsn_next;
	rc = sop_item_encode(raw, &it);
	if (rc < 0)
		return sop_fail(e, rc, "root directory");
	sop_master_key(key, SOP_ROOT, 'i');
	sop_buf_op(&ops, SOP_OP_STORE_NEW, 0, SOP_ROOT, NULL, 0, NULL, 0);
	sop_buf_op(&ops, SOP_OP_PUT, 0, SOP_STORE_MASTER, key, sizeof(key), raw, (size_t)rc);
	rc = put_root(v, &ops, e);
	sop_buf_release(&ops);
	return rc;
}

/* The states that everything else is found by. */
static int system_stores(struct sop_volume *v, const struct sop_checkpoint *c, struct sop_err *e)
{
	static const uint64_t fresh[] = {SOP_STORE_SEGMENTS, SOP_STORE_SHARED, SOP_STORE_DEAD,
		SOP_STORE_DOOMED, SOP_STORE_PREPARED};
	struct sop_state *master;
	int rc;

	sop_stores_begin(v->stores);
	rc = sop_stores_create(
		v->stores, SOP_STORE_MASTER, NULL, 0, c->lsn, (struct timespec){0}, e);
	if (!rc) {
		master = sop_stores_get(v->stores, SOP_STORE_MASTER);
		master->now.root = c->master_root;
		master->now.count = c->master_count;
	}
	for (size_t i = 0; i < SOP_ARRAY_LEN(fresh) && !rc && !c->master_root; i++)
		rc = sop_stores_create(
			v->stores, fresh[i], NULL, 0, c->lsn, (struct timespec){0}, e);
	sop_stores_end(v->stores);
	if (rc || !c->master_root)
		return rc;
	/* Volumes of before it was there have none. */
	rc = sop_stores_load(v->stores, SOP_STORE_PREPARED, &master, e);
	if (rc != -ENOENT)
		return rc;
	sop_stores_begin(v->stores);
	rc = sop_stores_create(
		v->stores, SOP_STORE_PREPARED, NULL, 0, c->lsn, (struct timespec){0}, e);
	sop_stores_end(v->stores);
	return rc;
}

/* A checkpoint is published after the journal file that goes on from it is on the media. mkfs alone
 * names one that nobody has begun; and behind a clean one, or one of a shared volume, there is
 * nothing to lose. */
static unsigned replay_flags(const struct sop_volume *v, const struct sop_checkpoint *c)
{
	return (c->master_root && !c->clean && !c->base ? SOP_REPLAY_BEGUN : 0) |
	       (v->opts.part_journal ? SOP_REPLAY_PART : 0);
}

/* The slots go on where the journal ends: it was written while the volume was not shared. */
static int open_shared(struct sop_volume *v, struct sop_err *e)
{
	int rc = sop_shared_open(v, e);

	if (rc || v->opts.read_only || sop_members_joined(v->mem))
		return rc;
	SOP_LOCK_GUARD(&v->commit);
	return sop_shared_take_over(v, e);
}

int sop_recover(struct sop_volume *v, struct sop_err *e)
{
	const struct sop_label *label = sop_members_label(v->mem);
	struct replay r = {.v = v, .e = e};
	struct sop_journal_end end;
	struct sop_checkpoint c = {0};
	bool joined = sop_members_joined(v->mem);
	int rc;

	rc = sop_checkpoint_load(&c, v->mem, e);
	if (!rc && label->flags & SOP_LABEL_SHARED)
		rc = sop_shared_begin(v, &c, e);
	if (rc) {
		sop_checkpoint_release(&c);
		return rc;
	}
	if (!v->opts.read_only && !joined)
		sop_checkpoint_tidy(v->mem);
	v->next_ino = SOP_MAX(c.next_ino, (uint64_t)SOP_INO_FIRST);
	v->items = c.items;
	v->chain_end = c.slot;
	v->lsn_next = c.lsn + 1;
	v->durable_lsn = c.lsn;
	v->barrier_noted = c.lsn;
	v->barrier_marked = c.lsn;
	sop_pins_publish(v->pins, c.lsn);
	rc = sop_registry_new(
		&v->reg, v->mem, v->io, label->hashmod, c.next_handle, c.free_handle, e);
	if (!rc && (v->opts.read_only || joined)) {
		/* Nothing may be written: the flips are looked at before the registry. */
		rc = sop_registry_overlay(v->reg, c.flips, c.n_flips, e);
	} else if (!rc) {
		rc = sop_registry_apply(v->reg, c.flips, c.n_flips, c.lsn, e);
	}
	if (!rc)
		rc = system_stores(v, &c, e);
	if (!rc)
		rc = sop_space_load(v->space, &c, e);
	/* The base of who joins is a checkpoint behind which the journal is empty. */
	if (!rc && !joined)
		rc = sop_journal_replay(v->mem, c.journal, c.lsn, c.chain, replay_flags(v, &c),
			replay_record, &r, &end, e);
	if (!rc && r.records)
		sop_log(v->log, SOP_LOG_INFO, "recover", "records=%llu lsn=%llu: journal replayed",
			(unsigned long long)r.records, (unsigned long long)end.lsn);
	if (!rc && label->flags & SOP_LABEL_SHARED)
		rc = open_shared(v, e);
	if (!rc && joined)
		sop_space_leave_unsettled(v->space);
	if (!rc && !v->opts.read_only && !joined) {
		rc = sop_space_settle(v->space, e);
		if (!rc)
			rc = sop_journal_new(&v->journal, v->mem, v->io,
				&(struct sop_journal_opts){.file_bytes = v->opts.journal_bytes},
				SOP_MAX(end.number, c.journal) + 1, v->lsn_next, end.chain, e);
		if (!rc)
			rc = sop_checkpoint_run(v, false, e);
	}
	/* Of a shared volume that is only looked at, others may be making it just now. */
	if (!rc && !joined && v->lsn_next == 1 &&
		!(v->opts.read_only && label->flags & SOP_LABEL_SHARED))
		rc = make_root(v, e);
	if (!rc)
		rc = sop_prepared_load(v, e);
	sop_checkpoint_release(&c);
	return rc ? sop_wrap(e, rc, "recovery") : 0;
}
