/* Checkpoint: bring the trees on disk up to the journal, so that recovery has little to do.
 *
 *   1. under the commit lock: accounts and store states go into their trees; the changed nodes are
 *      frozen as of this LSN; the journal goes on in a new file. Commits are held up for this only.
 *   2. room is taken for what the registry will have to write: where there is none, the checkpoint
 *      is refused while nothing depends on it. The frozen nodes are written as new blobs, then
 *      everything is made durable
 *   3. the checkpoint file is published: it names every registry slot to be changed
 *   4. the registry is changed, fsynced; the old journal files go
 *
 * In a volume that others have mounted too, registry and checkpoint file stay as they are: 3 and 4
 * are changes of this mounter's memory alone, the registry's overlay, which a crash takes with it.
 * From time to time what has become of it goes out as an image, for those who mount later
 * (SHARED.md, section 10).
 *
 * A crash before 3: the old checkpoint and journal stand, the new blobs are garbage that recovery
 * finds. After 3: the new one stands, and recovery repeats 4, which is harmless. */
#include "core/mend.h"
#include "core/shared.h"

#define WRITE_BYTES (1u << 20)

struct ckpt {
	struct sop_volume *v;
	struct sop_checkpoint c;
	struct sop_frozen *frozen;
	uint64_t *born; /* of each frozen node's blob of before */
	size_t n_frozen, n_written;
	uint64_t pin;
	bool needed; /* a full disk among others must not hold it up */
	bool beside; /* others have the volume mounted */
	bool image;
	struct sop_flip *before; /* with image: the overlay as it was */
	size_t n_before;
};

/* What lies in memory until a checkpoint is through. */
static size_t held_bytes(struct sop_volume *v, const struct sop_nodes_stat *s)
{
	return s->dirty_bytes + s->old_version_bytes + sop_stores_dirty_bytes(v->stores);
}

/* While a disk of the registry is full a checkpoint waits for room, and its disk stays a replica.
 * Not when the checkpoint is what the volume needs to go on, or to open. */
static bool cannot_wait(struct sop_volume *v)
{
	struct sop_nodes_stat s;

	sop_nodes_stat(v->nodes, &s);
	return !v->ckpt_ms || v->journal_used > 2 * v->opts.journal_bytes ||
	       held_bytes(v, &s) > v->opts.cache_bytes / 3;
}

static int freeze_locked(struct ckpt *k, bool clean, struct sop_err *e)
{
	struct sop_volume *v = k->v;
	uint64_t lsn = v->lsn_next - 1;
	struct sop_state *master;
	int rc;

	if (v->dead)
		return sop_fail(e, SOP_EDEAD, "volume %s", v->name);
	rc = sop_space_flush(v->space, &k->c, e);
	if (!rc)
		rc = sop_mender_flush(v->mender, e);
	if (!rc)
		rc = sop_stores_flush(v->stores, lsn, e);
	if (!rc)
		rc = sop_stores_load(v->stores, SOP_STORE_MASTER, &master, e);
	if (!rc)
		rc = sop_pins_get(v->pins, SOP_PIN_ALL, &k->pin);
	if (rc)
		return rc;
	rc = sop_registry_chain(
		v->reg, &k->c.flips, &k->c.n_flips, &k->c.next_handle, &k->c.free_handle, e);
	if (!rc && !k->beside)
		rc = sop_journal_rotate(v->journal, k->needed, &k->c.journal, &k->c.chain, e);
	if (!rc)
		rc = sop_nodes_freeze(v->nodes, lsn, &k->frozen, &k->n_frozen, e);
	if (rc) {
		sop_pins_put(v->pins, SOP_PIN_ALL, k->pin);
		return rc;
	}
	k->c.epoch = sop_members_epoch(v->mem);
	k->c.lsn = lsn;
	k->c.clean = clean;
	k->c.master_root = master->now.root;
	k->c.master_count = master->now.count;
	k->c.next_ino = v->next_ino;
	k->c.items = v->items;
	sop_shared_note(v, &k->c);
	k->c.time_ns = v->clock->wall_ns(v->clock->ctx);
	return 0;
}

/* Encode and write frozen nodes from `at` on, about WRITE_BYTES of them, all of one profile;
 * returns how many. */
static int write_some(struct ckpt *k, size_t at, size_t *next, struct sop_err *e)
{
	struct sop_stores *stores = k->v->stores;
	sop_autofree struct sop_blob_put *put = NULL;
	sop_autofree uint8_t *raw = NULL;
	size_t bytes = 0, n = 0, end = at, used = 0;
	unsigned profile = sop_stores_profile(stores, k->frozen[at].store);
	int rc;

	while (end < k->n_frozen && (end == at || bytes < WRITE_BYTES)) {
		const struct sop_frozen *f = &k->frozen[end];

		if (end > at && f->store != f[-1].store &&
			sop_stores_profile(stores, f->store) != profile)
			break;
		if (f->page) {
			bytes += sop_page_bytes(f->page);
			n++;
		}
		end++;
	}
	*next = end;
	if (!n)
		return 0;
	put = calloc(n, sizeof(*put));
	raw = malloc(bytes);
	if (!put || !raw)
		return sop_fail(e, -ENOMEM, "checkpoint of %zu nodes", n);
	n = 0;
	for (size_t i = at; i < end; i++) {
		const struct sop_frozen *f = &k->frozen[i];

		if (!f->page)
			continue;
		sop_page_encode(f->page, raw + used, f->node_lsn, f->root);
		put[n++] = (struct sop_blob_put){.data = raw + used,
			.len = (uint32_t)sop_page_bytes(f->page),
			.kind = SOP_BLOB_NODE};
		used += sop_page_bytes(f->page);
	}
	rc = sop_space_put(k->v->space, profile, SOP_STREAM_NODES, put, n, e);
	if (rc)
		return rc;
	n = 0;
	for (size_t i = at; i < end; i++)
		if (k->frozen[i].page)
			k->frozen[i].to = put[n++].ref;
	return 0;
}

static int write_nodes(struct ckpt *k, struct sop_err *e)
{
	int rc = 0;

	while (k->n_written < k->n_frozen && !rc) {
		size_t next;

		rc = write_some(k, k->n_written, &next, e);
		if (!rc)
			k->n_written = next;
	}
	return rc;
}

/* Where the nodes will lie is filled in when they are written. */
static int list_flips(struct ckpt *k, struct sop_err *e)
{
	struct sop_flip *f = realloc(k->c.flips, (k->c.n_flips + k->n_frozen + 1) * sizeof(*f));

	if (!f)
		return sop_fail(e, -ENOMEM, "checkpoint");
	k->c.flips = f;
	for (size_t i = 0; i < k->n_frozen; i++)
		f[k->c.n_flips++] =
			(struct sop_flip){.handle = k->frozen[i].handle, .from = k->frozen[i].from};
	return 0;
}

/* The overlay says where the blobs of before lie, also when they have been moved, and since when.
 */
static int look_before(struct ckpt *k, struct sop_err *e)
{
	struct sop_registry *reg = k->v->reg;

	k->born = calloc(k->n_frozen + 1, sizeof(*k->born));
	if (!k->born)
		return sop_fail(e, -ENOMEM, "checkpoint");
	for (size_t i = 0; i < k->n_frozen; i++)
		(void)sop_registry_overlaid(
			reg, k->frozen[i].handle, &k->frozen[i].from, &k->born[i]);
	return k->image ? sop_registry_overlay_list(reg, &k->before, &k->n_before, e) : 0;
}

static void fill_flips(struct ckpt *k)
{
	struct sop_flip *f = k->c.flips + (k->c.n_flips - k->n_frozen);

	for (size_t i = 0; i < k->n_frozen; i++)
		f[i].to = k->frozen[i].to;
}

/* The new image stands: its blobs are live, those it replaced are free once nobody reads them. */
static int settle_accounts(struct ckpt *k, struct sop_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < k->n_frozen && !rc; i++) {
		const struct sop_frozen *f = &k->frozen[i];

		if (f->to.segment)
			rc = sop_space_alloc(k->v->space, &f->to, e);
		if (!rc && f->from.segment)
			rc = sop_space_free_node(k->v->space, k->beside ? k->born[i] : 0, k->c.lsn,
				f->store, &f->from, e);
	}
	return rc;
}

/* A publication that failed may have reached a disk all the same (a rename whose directory could
 * not be synced, a disk that answers late): until a later one stands, recovery may need these
 * nodes. Without memory to remember them they stay taken until the next mount. */
static void keep_in_doubt(struct ckpt *k)
{
	struct sop_volume *v = k->v;
	struct sop_blobref *p = realloc(v->doubt, (v->n_doubt + k->n_written + 1) * sizeof(*p));

	if (!p) {
		sop_log(v->log, SOP_LOG_WARNING, "checkpoint",
			"code=ENOMEM: %zu nodes leak until the "
			"next mount",
			k->n_written);
		return;
	}
	v->doubt = p;
	for (size_t i = 0; i < k->n_written; i++)
		if (k->frozen[i].to.segment)
			v->doubt[v->n_doubt++] = k->frozen[i].to;
}

static void doubt_over(struct sop_volume *v)
{
	while (v->n_doubt)
		sop_space_abandon(v->space, &v->doubt[--v->n_doubt]);
	free(v->doubt);
	v->doubt = NULL;
}

/* The nodes; and the journal's file that goes on from here: that it is missing one day must mean
 * that it was lost. */
static int sync_written(struct ckpt *k, struct sop_err *e)
{
	struct sop_volume *v = k->v;

	return k->beside ? sop_segments_sync(v->seg, e) : sop_barrier_sync(v, e);
}

/* Both are on the media. From here on the nodes count, or (an error) do not. */
static int publish(struct ckpt *k, bool *doubt, struct sop_err *e)
{
	struct sop_volume *v = k->v;

	fill_flips(k);
	if (k->beside)
		return sop_registry_overlay_add(v->reg, k->c.flips, k->c.n_flips, k->c.lsn, e);
	return sop_checkpoint_store(v->mem, &k->c, k->needed, doubt, e);
}

static int prepare(struct ckpt *k, struct sop_err *e)
{
	int rc = k->beside ? look_before(k, e) : 0;

	if (!rc)
		rc = list_flips(k, e);
	if (!rc && !k->beside)
		rc = sop_registry_reserve(k->v->reg, k->c.flips, k->c.n_flips, k->needed, e);
	return rc;
}

static void trim_log(struct ckpt *k)
{
	struct sop_volume *v = k->v;

	if (k->beside)
		return;
	sop_journal_trim(v->journal, k->c.journal);
	if (v->shared)
		sop_shared_based(v, &k->c);
	v->journal_used = sop_journal_bytes(v->journal);
}

static int run(struct ckpt *k, bool clean, struct sop_err *e)
{
	struct sop_volume *v = k->v;
	bool doubt = false;
	int rc;

	k->needed = cannot_wait(v);
	sop_lock(&v->commit);
	rc = freeze_locked(k, clean, e);
	sop_unlock(&v->commit);
	if (rc)
		return rc;
	rc = prepare(k, e);
	if (!rc)
		rc = write_nodes(k, e);
	if (!rc)
		rc = sync_written(k, e);
	if (!rc)
		rc = publish(k, &doubt, e);
	if (rc) {
		if (doubt)
			keep_in_doubt(k);
		for (size_t i = 0; i < k->n_written && !doubt; i++)
			if (k->frozen[i].to.segment)
				sop_space_abandon(v->space, &k->frozen[i].to);
		sop_lock(&v->commit);
		sop_nodes_thaw(v->nodes, k->frozen, k->n_frozen);
		sop_unlock(&v->commit);
		sop_pins_put(v->pins, SOP_PIN_ALL, k->pin);
		return rc;
	}
	doubt_over(v);
	/* Published: from here on an error leaves a volume that recovery would bring to the same
	 * state, but this one's registry may be behind: it must not go on. */
	if (!k->beside)
		rc = sop_registry_apply(v->reg, k->c.flips, k->c.n_flips, k->c.lsn, e);
	sop_lock(&v->commit);
	if (!rc)
		rc = settle_accounts(k, e);
	if (rc)
		v->dead = rc;
	sop_nodes_written(v->nodes, k->frozen, k->n_frozen);
	trim_log(k);
	sop_stores_trim(v->stores);
	sop_unlock(&v->commit);
	sop_pins_put(v->pins, SOP_PIN_ALL, k->pin);
	sop_lock(&v->barrier);
	v->durable_lsn = SOP_MAX(v->durable_lsn, k->c.lsn);
	sop_unlock(&v->barrier);
	sop_barrier_marked(v, k->c.lsn); /* nothing before it is ever replayed */
	if (!rc && !k->beside)
		rc = sop_space_published(v->space, e);
	return rc;
}

/* ---- beside others ---- */

/* An image consists of the base and of nodes of who made it. So what it leaves to those who begin
 * with it is his alone to give back: nodes of another that it began with are written once more,
 * before the first image of its own. */
static int copy_node(struct sop_volume *v, const struct sop_flip *f, struct sop_err *e)
{
	sop_autofree void *raw = malloc(f->to.len);
	struct sop_blob_put put = {.data = raw, .len = f->to.len, .kind = SOP_BLOB_NODE};
	struct sop_flip copy = {.handle = f->handle};
	struct sop_page *page;
	uint64_t lsn, store;
	int rc;

	if (!raw)
		return sop_fail(e, -ENOMEM, "node of %u bytes", f->to.len);
	rc = sop_blob_read(v->seg, &f->to, raw, f->to.len, 0, e);
	if (!rc)
		rc = sop_page_decode(&page, raw, f->to.len, &lsn, e);
	if (rc)
		return rc;
	store = sop_page_store(page);
	sop_page_free(page);
	rc = sop_space_put(
		v->space, sop_stores_profile(v->stores, store), SOP_STREAM_NODES, &put, 1, e);
	if (rc)
		return rc;
	copy.to = put.ref;
	SOP_LOCK_GUARD(&v->commit);
	rc = sop_registry_overlay_add(v->reg, &copy, 1, sop_pins_published(v->pins), e);
	if (rc) {
		sop_space_abandon(v->space, &put.ref);
		return rc;
	}
	rc = sop_space_alloc(v->space, &put.ref, e);
	if (!rc)
		rc = sop_space_free_node(v->space, 0, v->lsn_next - 1, store, &f->to, e);
	if (rc)
		v->dead = rc;
	return rc;
}

static int copy_nodes_of_others(struct sop_volume *v, struct sop_err *e)
{
	struct sop_flip *all;
	size_t n;
	int rc = sop_registry_overlay_list(v->reg, &all, &n, e);

	for (size_t i = 0; i < n && !rc; i++)
		if (all[i].to.segment &&
			sop_shared_whose(v, all[i].to.segment) == SOP_SEGMENT_OTHERS)
			rc = copy_node(v, &all[i], e);
	free(all);
	return rc;
}

/* All that differs from the base. What was there before counts first, and is in the accounts. */
static int image_flips(struct ckpt *k, struct sop_err *e)
{
	size_t n = k->n_before + k->c.n_flips;
	struct sop_flip *all = realloc(k->before, (n + 1) * sizeof(*all));

	if (!all)
		return sop_fail(e, -ENOMEM, "image");
	if (k->c.n_flips)
		memcpy(all + k->n_before, k->c.flips, k->c.n_flips * sizeof(*all));
	free(k->c.flips);
	k->c.flips = all;
	k->c.n_flips = n;
	k->before = NULL;
	return 0;
}

static bool wants_image(struct sop_volume *v)
{
	SOP_LOCK_GUARD(&v->commit);
	return sop_shared_may_image(v);
}

static int run_beside(struct ckpt *k, bool image, struct sop_err *e)
{
	struct sop_volume *v = k->v;
	int rc = 0;

	k->beside = true;
	k->image = image && wants_image(v);
	if (k->image)
		rc = copy_nodes_of_others(v, e);
	if (!rc)
		rc = run(k, false, e);
	if (!rc && k->image)
		rc = image_flips(k, e);
	if (!rc && k->image)
		rc = sop_shared_publish(v, &k->c, e);
	free(k->before);
	free(k->born);
	return rc;
}

/* The checkpoint lock is held. */
static int run_locked(struct sop_volume *v, bool clean, bool image, struct sop_err *e)
{
	struct ckpt k = {.v = v};
	int rc = sop_shared_live(v) ? run_beside(&k, image, e) : run(&k, clean, e);

	if (!rc) {
		v->ckpt_lsn = k.c.lsn;
		v->ckpt_ms = v->clock->monotonic_ms(v->clock->ctx);
	}
	sop_checkpoint_release(&k.c);
	return rc ? sop_wrap(e, rc, "checkpoint") : 0;
}

int sop_checkpoint_run(struct sop_volume *v, bool clean, struct sop_err *e)
{
	bool live = sop_shared_live(v);

	/* Registry and journal are nobody's to change while others may be there. */
	if (v->opts.read_only || (!live && sop_members_joined(v->mem)))
		return 0;
	SOP_LOCK_GUARD(&v->ckpt_lock);
	if (live) {
		SOP_LOCK_GUARD(&v->commit);
		if (sop_shared_unchanged(v))
			return 0;
	}
	return run_locked(v, clean, true, e);
}

bool sop_checkpoint_worth(struct sop_volume *v, const struct sop_nodes_stat *s)
{
	return s->dirty_bytes + sop_stores_dirty_bytes(v->stores) > v->opts.cache_bytes / 6 ||
	       v->journal_used > v->opts.journal_bytes;
}

int sop_checkpoint_relieve(struct sop_volume *v, size_t bytes, struct sop_err *e)
{
	struct sop_nodes_stat s;

	SOP_LOCK_GUARD(&v->ckpt_lock);
	/* Whoever had the lock before may have done it already. */
	sop_nodes_stat(v->nodes, &s);
	return held_bytes(v, &s) > bytes ? run_locked(v, false, false, e) : 0;
}
