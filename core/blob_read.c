/* Reading blobs.
 *
 * The short way: where the blocks asked for lie in the page cache, they are read straight into the
 * caller's memory (the checksums between them to the side) and verified there. All else goes
 * through a grid: rows of blocks by shards. It plans which cells to read, reads them in one batch,
 * verifies them, and goes on until each cell that is wanted is good or its row has k good ones to
 * rebuild it from:
 *
 *   first   the cells that are wanted, and for those on a shard known to be absent or stale already
 *           what is needed in their place: so a degraded read is one batch of k shards too;
 *   then    for what was late, unreadable or wrong: others of the same row, up to k.
 *
 * Trusted shards come first, then those of disks that have been slow, then stale ones (a block that
 * verifies is right, wherever it lies), and last those that were late in this very read, with the
 * full bound. A cell is read at most twice, so this ends. Only verified cells are ever handed to
 * the decoder.
 *
 * A read that is late is not an error yet: the disk is only suspect, is asked about once a second
 * while others can answer in its place, and is set aside when it stays late for as long as the disk
 * timeout. */
#include "core/segment_int.h"

#include <inttypes.h>

#define HEDGE_MS    500	 /* a read later than this is given to other shards */
#define PROBE_MS    1000 /* a suspect disk is asked this often */
#define DIRECT_MAX  64	 /* blocks in one direct read */
#define BATCHES_MAX (2 * SOP_EC_MAX + 2)

/* --- slow disks --------------------------------------------------------------------------------
 */

static uint64_t now_ms(struct sop_segments *s)
{
	const struct sop_clock *clock = sop_members_clock(s->mem);

	return clock->monotonic_ms(clock->ctx) + 1; /* never 0 */
}

static void note_late(struct sop_segments *s, unsigned member)
{
	uint64_t now = now_ms(s), since = 0;

	if (atomic_compare_exchange_strong(&s->late_since[member], &since, now)) {
		atomic_store(&s->probe_at[member], now + PROBE_MS);
		sop_log(sop_members_log(s->mem), SOP_LOG_WARNING, "blob",
			"op=read disk=%u code=ETIMEDOUT: slow, read from the other shards", member);
	} else if (now - since > sop_members_timeout_ms(s->mem)) {
		sop_members_event(s->mem, member, SOP_EVENT_READ, -ETIMEDOUT);
	}
}

static void note_answer(struct sop_segments *s, unsigned member)
{
	if (atomic_load(&s->late_since[member]))
		atomic_store(&s->late_since[member], 0);
}

/* One caller a second gets false for a slow disk, and finds out how it does. */
static bool is_suspect(struct sop_segments *s, unsigned member)
{
	uint64_t now, at;

	if (!atomic_load(&s->late_since[member]))
		return false;
	now = now_ms(s);
	at = atomic_load(&s->probe_at[member]);
	return now < at ||
	       !atomic_compare_exchange_strong(&s->probe_at[member], &at, now + PROBE_MS);
}

/* --- what is read ------------------------------------------------------------------------------
 */

struct blob {
	struct sop_segments *s;
	struct segment *seg;
	const struct sop_blobref *ref;
	struct sop_frag_shape shape;
	unsigned k, n;
	uint32_t stale, missing, absent; /* shards, as of now */
	bool at_end; /* where a mount before this one may have been killed while it wrote */
	uint32_t seed[SOP_EC_MAX];
};

static int blob_open(
	struct blob *b, struct sop_segments *s, const struct sop_blobref *ref, struct sop_err *e)
{
	uint64_t end;
	int rc;

	memset(b, 0, sizeof(*b));
	if (!ref->segment || !ref->len || ref->len > SOP_BLOB_MAX || ref->off < SOP_SHARD_HEADER ||
		ref->off % 8 || ref->off > SOP_SEGMENT_BYTES)
		return sop_fail(e, SOP_ECORRUPT, "blob of %u bytes at %016" PRIx64 "+%" PRIu64,
			ref->len, ref->segment, ref->off);
	rc = sop_segment_get(&b->seg, s, ref->segment, e);
	if (rc)
		return rc == -ENOENT ? sop_fail(e, SOP_ELOST,
					       "blob at %016" PRIx64 "+%" PRIu64
					       ": no disk has the segment",
					       ref->segment, ref->off)
				     : rc;
	b->s = s;
	b->ref = ref;
	b->k = b->seg->info.k;
	b->n = b->seg->n;
	b->shape = sop_frag_shape(ref->len, b->k);
	end = ref->off + b->shape.bytes;
	for (unsigned i = 0; i < b->n; i++)
		b->seed[i] = sop_frag_seed_base(&b->seg->info, ref, i);
	sop_lock(&s->lock);
	b->stale = b->seg->info.stale;
	b->missing = b->seg->missing;
	b->absent = b->seg->absent;
	b->at_end = ref->segment >> SOP_SEGMENT_NUMBER_BITS != s->epoch &&
		    end + 2 * sop_blob_shard_bytes(SOP_BLOB_MAX, b->k) >= b->seg->info.end;
	/* What is known of other segments may be older than the blob (a journal is replayed over an
	 * old table). */
	rc = end > (b->seg->ours ? b->seg->info.end : SOP_SEGMENT_BYTES);
	sop_unlock(&s->lock);
	if (!rc)
		return 0;
	sop_segment_put(s, b->seg);
	return sop_fail(e, SOP_ECORRUPT,
		"blob of %u bytes at %016" PRIx64 "+%" PRIu64 ": beyond the end of the segment",
		ref->len, ref->segment, ref->off);
}

static uint64_t row_off(const struct blob *b, uint32_t row)
{
	return b->ref->off + sizeof(struct sop_disk_fragment) + (uint64_t)row * SOP_FRAG_STRIDE;
}

static bool block_good(
	const struct blob *b, unsigned shard, uint32_t row, const void *data, struct le32 sum)
{
	uint32_t seed = sop_frag_seed_block(b->seed[shard], row);

	return sop_crc32c(seed, data, sop_frag_block(&b->shape, row)) == le32_get(sum);
}

/* What a read wants of one data shard: bytes [from, to) of its slice go to `buf`. */
struct piece {
	unsigned shard;
	uint32_t from, to;
	uint8_t *buf;
	bool done;
};

static uint32_t first_row(const struct piece *p)
{
	return p->from / SOP_BLOCK_BYTES;
}

static uint32_t last_row(const struct piece *p)
{
	return (p->to - 1) / SOP_BLOCK_BYTES;
}

/* Copy what a piece wants of one block. */
static void copy_block(const struct piece *p, uint32_t row, const uint8_t *data)
{
	uint32_t at = row * SOP_BLOCK_BYTES;
	uint32_t from = SOP_MAX(p->from, at), to = SOP_MIN(p->to, at + SOP_BLOCK_BYTES);

	memcpy(p->buf + (from - p->from), data + (from - at), to - from);
}

/* --- the short way -----------------------------------------------------------------------------
 */

/* Rows [row, row + rows) of a piece, from the page cache. The blocks at the ends, which are not
 * wanted whole, go to `edge`. */
static bool read_direct(const struct blob *b, const struct piece *p, struct sop_file *f,
	uint32_t row, uint32_t rows)
{
	uint8_t edge[2][SOP_BLOCK_BYTES];
	struct iovec iov[2 * DIRECT_MAX];
	struct le32 sum[DIRECT_MAX];
	bool aside[DIRECT_MAX];
	unsigned edges = 0;
	size_t total = 0;
	ssize_t got;

	for (uint32_t r = 0; r < rows; r++) {
		uint32_t at = (row + r) * SOP_BLOCK_BYTES;
		uint32_t len = sop_frag_block(&b->shape, row + r);

		aside[r] = at < p->from || at + len > p->to;
		iov[2 * r].iov_base = aside[r] ? edge[edges++] : p->buf + (at - p->from);
		iov[2 * r].iov_len = len;
		iov[2 * r + 1] = (struct iovec){&sum[r], sizeof(sum[r])};
		total += len + sizeof(sum[r]);
	}
	got = f->ops->preadv_cached(f, iov, (int)(2 * rows), row_off(b, row));
	if (got < 0 || (size_t)got != total)
		return false;
	for (uint32_t r = 0; r < rows; r++)
		if (!block_good(b, p->shard, row + r, iov[2 * r].iov_base, sum[r]))
			return false;
	for (uint32_t r = 0; r < rows; r++)
		if (aside[r])
			copy_block(p, row + r, iov[2 * r].iov_base);
	return true;
}

/* Does all it can; true when nothing is left for the grid. What fails here is read again there,
 * which finds out why. */
static bool pieces_direct(const struct blob *b, struct piece *pieces, size_t n)
{
	struct sop_shard_file *files[SOP_EC_MAX];
	uint32_t wanted = 0, got;
	bool all = true;

	for (size_t i = 0; i < n; i++)
		wanted |= 1u << pieces[i].shard;
	wanted &= ~(b->stale | b->missing);
	got = sop_shard_files_cached(b->s, b->seg, wanted, files);
	for (size_t i = 0; i < n; i++) {
		struct piece *p = &pieces[i];
		unsigned member = sop_segment_disk(b->seg, p->shard);
		uint32_t row = first_row(p), end = last_row(p) + 1;

		p->done = got & (1u << p->shard) && sop_members_disk(b->s->mem, member);
		for (; p->done && row < end; row += DIRECT_MAX)
			p->done = read_direct(b, p, files[p->shard]->file, row,
				SOP_MIN(end - row, (uint32_t)DIRECT_MAX));
		all = all && p->done;
	}
	sop_shard_files_put(b->s, got, files);
	return all;
}

/* --- the grid ----------------------------------------------------------------------------------
 */

enum cell { CELL_NEW, CELL_GOOD, CELL_BAD, CELL_LATE };

#define CELL_STATE  3
#define CELL_WANTED 4
#define CELL_PLAN   8

struct grid {
	const struct blob *b;
	uint32_t row0, rows;
	uint8_t *cell;		    /* [shard * rows + row]: enum cell and the bits above */
	uint8_t *base[SOP_EC_MAX];  /* good cells, SOP_FRAG_STRIDE apart; memory of some batch */
	uint8_t *built[SOP_EC_MAX]; /* rebuilt ones; own memory */
	uint32_t class[3];  /* shards: trusted, suspect, stale; what is in none is not read */
	int rc[SOP_EC_MAX]; /* the first trouble with each shard */
	uint32_t wrong;	    /* shards with a block that did not verify */
	uint32_t rotten;    /* of these: there is something in its place */
	struct sop_batch *batch[BATCHES_MAX];
	unsigned n_batches;
};

static uint8_t *cell_at(struct grid *g, unsigned shard, uint32_t row)
{
	return &g->cell[(size_t)shard * g->rows + row];
}

static enum cell cell_get(struct grid *g, unsigned shard, uint32_t row)
{
	return (enum cell)(*cell_at(g, shard, row) & CELL_STATE);
}

static void cell_set(struct grid *g, unsigned shard, uint32_t row, enum cell state)
{
	uint8_t *c = cell_at(g, shard, row);

	*c = (uint8_t)((*c & CELL_WANTED) | state);
}

static int grid_init(
	struct grid *g, const struct blob *b, uint32_t row0, uint32_t rows, struct sop_err *e)
{
	uint32_t last = b->stale | b->missing;

	memset(g, 0, sizeof(*g));
	g->b = b;
	g->row0 = row0;
	g->rows = rows;
	g->cell = calloc((size_t)b->n * rows, 1);
	if (!g->cell)
		return sop_fail(e, -ENOMEM, "read");
	for (unsigned i = 0; i < b->n; i++) {
		unsigned member = sop_segment_disk(b->seg, i);

		if (!sop_members_disk(b->s->mem, member))
			continue;
		if (last & (1u << i))
			g->class[2] |= 1u << i;
		else
			g->class[is_suspect(b->s, member)] |= 1u << i;
	}
	return 0;
}

static void grid_release(struct grid *g)
{
	for (unsigned i = 0; i < g->n_batches; i++)
		sop_batch_put(g->batch[i]);
	for (unsigned i = 0; i < SOP_EC_MAX; i++)
		free(g->built[i]);
	free(g->cell);
}

static uint32_t readable(const struct grid *g)
{
	return g->class[0] | g->class[1] | g->class[2];
}

/* Shards whose cell in this row is good. */
static uint32_t row_good(struct grid *g, uint32_t row)
{
	uint32_t good = 0;

	for (unsigned i = 0; i < g->b->n; i++)
		if (cell_get(g, i, row) == CELL_GOOD)
			good |= 1u << i;
	return good;
}

static uint32_t row_missing(struct grid *g, uint32_t row)
{
	uint32_t missing = 0;

	for (unsigned i = 0; i < g->b->n; i++)
		if (*cell_at(g, i, row) & CELL_WANTED && cell_get(g, i, row) != CELL_GOOD)
			missing |= 1u << i;
	return missing;
}

/* Plan up to `need` cells of a row on these shards. What is left to find. */
static unsigned plan_some(
	struct grid *g, uint32_t row, uint32_t shards, enum cell state, unsigned need)
{
	SOP_EACH_BIT(i, shards)
	{
		uint8_t *c = cell_at(g, i, row);

		if (!need)
			break;
		if ((*c & CELL_STATE) != state || *c & CELL_PLAN)
			continue;
		*c |= CELL_PLAN;
		need--;
	}
	return need;
}

/* Plan what a row still lacks. False: it has what it needs, or there is nothing left to read. */
static bool plan_row(struct grid *g, uint32_t row)
{
	uint32_t missing = row_missing(g, row), direct = 0;
	unsigned good = (unsigned)__builtin_popcount(row_good(g, row)), need, left;

	if (!missing || good >= g->b->k)
		return false;
	SOP_EACH_BIT(i, missing & g->class[0])
	{
		if (cell_get(g, i, row) != CELL_NEW)
			continue;
		*cell_at(g, i, row) |= CELL_PLAN;
		direct |= 1u << i;
	}
	if (direct == missing)
		return true;
	need = g->b->k - SOP_MIN(g->b->k, good + (unsigned)__builtin_popcount(direct));
	left = need;
	for (unsigned c = 0; c < SOP_ARRAY_LEN(g->class); c++)
		left = plan_some(g, row, g->class[c], CELL_NEW, left);
	left = plan_some(g, row, readable(g), CELL_LATE, left);
	return direct || left < need;
}

/* The shards to read now; 0: nothing more can be done. late: a cell is read for the second time. */
static uint32_t plan(struct grid *g, bool *late)
{
	uint32_t shards = 0;

	*late = false;
	for (uint32_t r = 0; r < g->rows; r++) {
		if (!plan_row(g, r))
			continue;
		for (unsigned i = 0; i < g->b->n; i++) {
			if (!(*cell_at(g, i, r) & CELL_PLAN))
				continue;
			shards |= 1u << i;
			*late = *late || cell_get(g, i, r) == CELL_LATE;
		}
	}
	return shards;
}

static void shard_failed(struct grid *g, unsigned shard, int rc)
{
	if (!g->rc[shard])
		g->rc[shard] = rc;
}

static void drop_shard(struct grid *g, unsigned shard)
{
	for (unsigned c = 0; c < SOP_ARRAY_LEN(g->class); c++)
		g->class[c] &= ~(1u << shard);
}

/* A run of planned cells of one shard, read by one request. */
struct run {
	unsigned shard;
	uint32_t row, rows;
	uint32_t bytes;
	uint8_t *buf;
	int request;
	bool cached;
};

static uint32_t run_bytes(const struct grid *g, uint32_t row, uint32_t rows)
{
	uint32_t last = g->row0 + row + rows - 1;

	return (rows - 1) * SOP_FRAG_STRIDE + sop_frag_block(&g->b->shape, last) +
	       (uint32_t)sizeof(struct le32);
}

/* The next run of a shard from `row` on; false at the end. */
static bool next_run(struct grid *g, unsigned shard, uint32_t row, struct run *run)
{
	while (row < g->rows && !(*cell_at(g, shard, row) & CELL_PLAN))
		row++;
	run->shard = shard;
	run->row = row;
	run->rows = 0;
	while (row < g->rows && *cell_at(g, shard, row) & CELL_PLAN) {
		row++;
		run->rows++;
	}
	if (!run->rows)
		return false;
	run->bytes = run_bytes(g, run->row, run->rows);
	return true;
}

static void cells_set(struct grid *g, const struct run *run, enum cell state)
{
	for (uint32_t r = 0; r < run->rows; r++)
		cell_set(g, run->shard, run->row + r, state);
}

/* Memory for a run, and the request unless the page cache answers at once. */
static int run_start(struct grid *g, struct run *run, struct sop_batch *batch, struct sop_file *f)
{
	uint64_t off = row_off(g->b, g->row0 + run->row);
	struct iovec iov;

	if (!g->base[run->shard]) {
		uint8_t *base = sop_batch_alloc(batch, (size_t)g->rows * SOP_FRAG_STRIDE);

		if (!base)
			return -ENOMEM;
		g->base[run->shard] = base;
		run->buf = base + (size_t)run->row * SOP_FRAG_STRIDE;
	} else {
		/* That memory belongs to an earlier batch. */
		run->buf = sop_batch_alloc(batch, run->bytes);
		if (!run->buf)
			return -ENOMEM;
	}
	iov = (struct iovec){run->buf, run->bytes};
	run->cached = f->ops->preadv_cached(f, &iov, 1, off) == (ssize_t)run->bytes;
	if (run->cached)
		return 0;
	run->request = sop_batch_add(batch, SOP_IO_READ, f, &iov, 1, off);
	return run->request < 0 ? run->request : 0;
}

/* Verify what a run has read, and put it where the grid's good cells are. */
static void run_verify(struct grid *g, const struct run *run)
{
	uint8_t *to = g->base[run->shard] + (size_t)run->row * SOP_FRAG_STRIDE;

	for (uint32_t r = 0; r < run->rows; r++) {
		size_t at = (size_t)r * SOP_FRAG_STRIDE;
		uint32_t row = g->row0 + run->row + r, len = sop_frag_block(&g->b->shape, row);
		struct le32 sum;
		bool good;

		memcpy(&sum, run->buf + at + len, sizeof(sum));
		good = block_good(g->b, run->shard, row, run->buf + at, sum);
		cell_set(g, run->shard, run->row + r, good ? CELL_GOOD : CELL_BAD);
		if (good && to != run->buf)
			memcpy(to + at, run->buf + at, len);
		if (!good) {
			g->wrong |= 1u << run->shard;
			if (!sop_all_zero(run->buf + at, len + sizeof(sum)))
				g->rotten |= 1u << run->shard;
			shard_failed(g, run->shard, SOP_ECORRUPT);
		}
	}
}

/* The threads of a late read still write to the shard's memory: what was good in it is given up. */
static void forget(struct grid *g, unsigned shard)
{
	for (uint32_t r = 0; r < g->rows; r++)
		if (cell_get(g, shard, r) == CELL_GOOD)
			cell_set(g, shard, r, CELL_LATE);
	g->base[shard] = NULL;
}

/* A cell late twice is bad. */
static void run_late(struct grid *g, const struct run *run, bool hedged)
{
	unsigned member = sop_segment_disk(g->b->seg, run->shard);

	for (uint32_t r = 0; r < run->rows; r++) {
		bool again = cell_get(g, run->shard, run->row + r) == CELL_LATE;

		cell_set(g, run->shard, run->row + r, hedged && !again ? CELL_LATE : CELL_BAD);
	}
	if (hedged) {
		note_late(g->b->s, member);
		return;
	}
	/* At once, so that nobody waits for it again. */
	if (!g->rc[run->shard])
		sop_segment_blame(g->b->s, member, SOP_EVENT_READ, -ETIMEDOUT);
	shard_failed(g, run->shard, -ETIMEDOUT);
	drop_shard(g, run->shard);
}

static void run_end(struct grid *g, const struct run *run, int rc, bool hedged)
{
	if (rc == -ETIMEDOUT) {
		run_late(g, run, hedged);
		return;
	}
	note_answer(g->b->s, sop_segment_disk(g->b->seg, run->shard));
	if (!rc) {
		run_verify(g, run);
		return;
	}
	cells_set(g, run, CELL_BAD);
	shard_failed(g, run->shard, rc);
}

struct runs {
	struct run *run;
	size_t n, room;
};

static int runs_add(struct runs *rs, const struct run *run)
{
	if (rs->n == rs->room) {
		size_t room = rs->room ? rs->room * 2 : 16;
		struct run *more = reallocarray(rs->run, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		rs->run = more;
		rs->room = room;
	}
	rs->run[rs->n++] = *run;
	return 0;
}

/* The planned cells of one shard become runs. Trouble makes them bad. */
static int start_shard(struct grid *g, struct runs *rs, struct sop_batch *batch, unsigned shard,
	struct sop_shard_file *f, int open_rc)
{
	struct run run;

	for (uint32_t row = 0; next_run(g, shard, row, &run); row = run.row + run.rows) {
		int rc = open_rc;

		if (!rc)
			rc = run_start(g, &run, batch, f->file);
		if (rc) {
			cells_set(g, &run, CELL_BAD);
			shard_failed(g, shard, rc);
			continue;
		}
		if (runs_add(rs, &run))
			return -ENOMEM;
	}
	return 0;
}

static void end_runs(struct grid *g, const struct runs *rs, struct sop_batch *batch, bool hedged)
{
	uint32_t busy = 0;

	for (size_t i = 0; i < rs->n; i++) {
		const struct run *run = &rs->run[i];
		int rc = run->cached ? 0 : sop_batch_result(batch, run->request);

		if (rc == -ETIMEDOUT)
			busy |= 1u << run->shard;
		run_end(g, run, rc, hedged);
	}
	SOP_EACH_BIT(i, busy)
	forget(g, i);
}

/* Read the planned cells of these shards. Fails only for want of memory. */
static int grid_read(struct grid *g, uint32_t shards, bool late)
{
	struct sop_segments *s = g->b->s;
	struct sop_shard_file *files[SOP_EC_MAX] = {NULL};
	int rcs[SOP_EC_MAX] = {0}, rc = 0;
	unsigned bound = sop_members_timeout_ms(s->mem);
	bool hedged = !late && readable(g) & ~shards && bound > HEDGE_MS;
	struct sop_batch *batch = sop_batch_new(s->io);
	struct runs rs = {0};

	if (!batch)
		return -ENOMEM;
	assert(g->n_batches < BATCHES_MAX);
	g->batch[g->n_batches++] = batch;
	sop_shard_files_get(s, g->b->seg, shards, false, files, rcs);
	SOP_EACH_BIT(i, shards)
	{
		if (rcs[i])
			drop_shard(g, i);
		if (!rc)
			rc = start_shard(g, &rs, batch, i, files[i], rcs[i]);
	}
	if (!rc) {
		bool all_cached = true;

		for (size_t i = 0; i < rs.n; i++)
			all_cached = all_cached && rs.run[i].cached;
		if (!all_cached)
			sop_batch_run(batch, SOP_IO_PARALLEL, 0, hedged ? HEDGE_MS : bound);
		end_runs(g, &rs, batch, hedged);
	}
	sop_shard_files_put(s, shards, files);
	free(rs.run);
	return rc;
}

/* Rebuild these shards in rows [row, row + rows), which all have the same good ones. The run is
 * decoded in one piece, with the checksums between the blocks: those bytes come out meaningless and
 * are not looked at. */
static int rebuild_run(struct grid *g, uint32_t row, uint32_t rows, uint32_t have, uint32_t want,
	struct sop_err *e)
{
	size_t at = (size_t)row * SOP_FRAG_STRIDE;
	void *shard[SOP_EC_MAX] = {NULL};

	SOP_EACH_BIT(i, want)
	{
		if (!g->built[i])
			g->built[i] = sop_alloc_aligned((size_t)g->rows * SOP_FRAG_STRIDE);
		if (!g->built[i])
			return sop_fail(e, -ENOMEM, "rebuild");
		shard[i] = g->built[i] + at;
	}
	SOP_EACH_BIT(j, have)
	shard[j] = g->base[j] + at;
	return sop_ec_rebuild(
		g->b->seg->ec, run_bytes(g, row, rows) - sizeof(struct le32), shard, have, want, e);
}

/* Rebuild (or with build false: see whether one could) what is wanted and not good. lost: there is
 * a row with fewer than k good cells; the others are rebuilt all the same. */
static int grid_rebuild(struct grid *g, bool build, bool *lost, struct sop_err *e)
{
	uint32_t rows;
	int rc = 0;

	*lost = false;
	for (uint32_t r = 0; !rc && r < g->rows; r += rows) {
		uint32_t want = row_missing(g, r), have = row_good(g, r);

		for (rows = 1; r + rows < g->rows; rows++)
			if (row_missing(g, r + rows) != want || row_good(g, r + rows) != have)
				break;
		if (!want)
			continue;
		if ((unsigned)__builtin_popcount(have) < g->b->k)
			*lost = true;
		else if (build)
			rc = rebuild_run(g, r, rows, have, want, e);
	}
	return rc;
}

static const uint8_t *cell_data(struct grid *g, unsigned shard, uint32_t row)
{
	const uint8_t *from =
		cell_get(g, shard, row) == CELL_GOOD ? g->base[shard] : g->built[shard];

	return from + (size_t)row * SOP_FRAG_STRIDE;
}

/* Was it never written to its end? A mount that was killed leaves, at the end of a segment, a
 * fragment that on some of its disks is begun, or not begun: zeros, or nothing at all. That is no
 * fault of theirs. */
static bool cut_short(struct grid *g, unsigned shard)
{
	uint32_t r = 0;

	if (!g->b->at_end || g->rotten >> shard & 1)
		return false;
	if (g->rc[shard] == -ENODATA)
		return true;
	while (r < g->rows && cell_get(g, shard, r) != CELL_BAD)
		r++;
	while (r < g->rows && cell_get(g, shard, r) != CELL_GOOD)
		r++;
	return g->wrong >> shard & 1 && r == g->rows;
}

/* Tell health and log about each shard that gave trouble, once a read. Stale ones are expected to.
 */
static void report(struct grid *g, const char *op)
{
	const struct blob *b = g->b;
	bool bad = false;

	for (unsigned i = 0; i < b->n; i++) {
		unsigned member = sop_segment_disk(b->seg, i);
		uint32_t bit = 1u << i;
		bool cut = cut_short(g, i);

		if (!g->rc[i] || b->stale & bit || b->absent & bit)
			continue;
		bad = bad || g->wrong & bit || g->rc[i] == -EIO || g->rc[i] == -ENOENT;
		if (!sop_segment_blameless(g->rc[i]))
			sop_log(sop_members_log(b->s->mem), SOP_LOG_WARNING, "blob",
				"op=%s segment=%016" PRIx64 " off=%" PRIu64
				" shard=%u disk=%u code=%s: shard %s, read from the others",
				op, b->ref->segment, b->ref->off, i, member, sop_err_name(g->rc[i]),
				cut		 ? "was cut short by a crash"
				: g->wrong & bit ? "does not verify"
						 : "unreadable");
		if (cut)
			continue;
		/* A file that is gone, or shorter than it was, is damage as well: the disk answers,
		 * and its other files may be as good as ever. */
		if (g->wrong & bit || g->rc[i] == -ENOENT || g->rc[i] == -ENODATA)
			sop_members_event(b->s->mem, member, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
		else if (g->rc[i] != -ETIMEDOUT) /* told already */
			sop_segment_blame(b->s, member, SOP_EVENT_READ, g->rc[i]);
	}
	/* A verify repairs by itself, if it is to. */
	if (bad && b->s->on_bad && op[0] == 'r' && !b->seg->info.no_repair)
		b->s->on_bad(b->s->on_bad_ctx, b->ref);
}

/* Why a blob cannot be read: for want of something of ours, or because it is lost. */
static int lost_code(const struct grid *g)
{
	for (unsigned i = 0; i < g->b->n; i++)
		if (sop_blob_untold(g->rc[i]))
			return g->rc[i];
	return SOP_ELOST;
}

static int say_lost(const struct grid *g, int code, struct sop_err *e)
{
	const struct blob *b = g->b;

	return sop_fail(e, code, "blob of %u bytes at %016" PRIx64 "+%" PRIu64, b->ref->len,
		b->ref->segment, b->ref->off);
}

/* The same of a verify, which has read all that is here. Only a disk that has missed nothing, and
 * answers, tells that a blob is lost, or was never written: what others lack may be on one that is
 * not here. */
static int verify_code(const struct grid *g)
{
	const struct blob *b = g->b;
	int code = lost_code(g);

	if (code != SOP_ELOST)
		return code;
	code = SOP_EDISKS;
	for (unsigned i = 0; i < b->n; i++) {
		if (!g->rc[i] || (b->stale | b->absent) & 1u << i ||
			sop_members_behind(b->s->mem, sop_segment_disk(b->seg, i)))
			continue;
		if (g->rc[i] == SOP_ECORRUPT || g->rc[i] == -ENODATA || g->rc[i] == -ENOENT)
			return SOP_ELOST;
		code = g->rc[i];
	}
	return code;
}

static int grid_fill(struct grid *g, struct sop_err *e)
{
	bool late;

	for (;;) {
		uint32_t shards = plan(g, &late);
		int rc;

		if (!shards)
			return 0;
		rc = grid_read(g, shards, late);
		if (rc)
			return sop_fail(e, rc, "read");
	}
}

/* --- public ------------------------------------------------------------------------------------
 */

static int pieces_grid(const struct blob *b, struct piece *pieces, size_t n, struct sop_err *e)
{
	uint32_t row0 = UINT32_MAX, row1 = 0;
	bool lost = false;
	struct grid g;
	int rc;

	for (size_t i = 0; i < n; i++) {
		if (pieces[i].done)
			continue;
		row0 = SOP_MIN(row0, first_row(&pieces[i]));
		row1 = SOP_MAX(row1, last_row(&pieces[i]) + 1);
	}
	rc = grid_init(&g, b, row0, row1 - row0, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < n; i++)
		for (uint32_t r = first_row(&pieces[i]);
			!pieces[i].done && r <= last_row(&pieces[i]); r++)
			*cell_at(&g, pieces[i].shard, r - row0) |= CELL_WANTED;
	rc = grid_fill(&g, e);
	report(&g, "read");
	if (!rc)
		rc = grid_rebuild(&g, true, &lost, e);
	if (!rc && lost)
		rc = say_lost(&g, lost_code(&g), e);
	for (size_t i = 0; !rc && i < n; i++)
		for (uint32_t r = first_row(&pieces[i]);
			!pieces[i].done && r <= last_row(&pieces[i]); r++)
			copy_block(&pieces[i], r, cell_data(&g, pieces[i].shard, r - row0));
	grid_release(&g);
	return rc;
}

/* Cut [off, off + len) of the blob at the ends of the slices. */
static size_t cut(
	const struct blob *b, struct piece *pieces, uint8_t *buf, uint64_t off, size_t len)
{
	size_t n = 0;

	while (len) {
		unsigned shard = (unsigned)(off / b->shape.slice);
		uint32_t from = (uint32_t)(off % b->shape.slice);
		size_t take = SOP_MIN(len, (size_t)(b->shape.slice - from));

		pieces[n++] = (struct piece){
			.shard = shard, .from = from, .to = from + (uint32_t)take, .buf = buf};
		buf += take;
		off += take;
		len -= take;
	}
	return n;
}

int sop_blob_read(struct sop_segments *s, const struct sop_blobref *ref, void *buf, size_t len,
	uint64_t off, struct sop_err *e)
{
	struct piece pieces[SOP_EC_MAX];
	struct blob b;
	size_t n;
	int rc;

	if (off > ref->len || len > ref->len - off)
		return sop_fail(
			e, -EINVAL, "%zu bytes at %" PRIu64 " of a blob of %u", len, off, ref->len);
	rc = blob_open(&b, s, ref, e);
	if (rc)
		return rc;
	n = cut(&b, pieces, buf, off, len);
	if (!pieces_direct(&b, pieces, n))
		rc = pieces_grid(&b, pieces, n, e);
	sop_segment_put(s, b.seg);
	return rc;
}

/* --- verify and repair -------------------------------------------------------------------------
 */

/* A whole header of this blob, but for the length it tells; 0: it is none. */
static uint32_t other_len(const struct blob *b, const struct sop_disk_fragment *raw, unsigned shard)
{
	struct sop_blobref ref = *b->ref;
	struct sop_disk_fragment want;

	ref.len = le32_get(raw->len);
	if (!ref.len || ref.len > SOP_BLOB_MAX || ref.len == b->ref->len)
		return 0;
	sop_frag_header(&want, &b->seg->info, &ref, raw->kind, shard);
	return memcmp(&want, raw, sizeof(want)) ? 0 : ref.len;
}

/* Read the header of each shard's fragment. The mask of those that are what they should be; *kind:
 * what they say; *other: another length of the blob that whole headers tell, or 0. */
static int read_headers(
	struct blob *b, uint32_t shards, uint32_t *good, uint8_t *kind, uint32_t *other)
{
	struct sop_segments *s = b->s;
	struct sop_shard_file *files[SOP_EC_MAX] = {NULL};
	struct sop_disk_fragment *raw[SOP_EC_MAX] = {NULL}, want;
	int request[SOP_EC_MAX], rcs[SOP_EC_MAX] = {0}, rc = 0;
	struct sop_batch *batch = sop_batch_new(s->io);

	*good = 0;
	*other = 0;
	if (!batch)
		return -ENOMEM;
	sop_shard_files_get(s, b->seg, shards, false, files, rcs);
	SOP_EACH_BIT(i, shards)
	{
		struct iovec iov = {NULL, sizeof(want)};

		raw[i] = sop_batch_alloc(batch, sizeof(want));
		iov.iov_base = raw[i];
		if (!rcs[i] && !raw[i])
			rcs[i] = -ENOMEM;
		if (!rcs[i]) {
			request[i] = sop_batch_add(
				batch, SOP_IO_READ, files[i]->file, &iov, 1, b->ref->off);
			if (request[i] < 0)
				rcs[i] = request[i];
		}
	}
	sop_batch_run(batch, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(s->mem));
	SOP_EACH_BIT(j, shards)
	{
		if (!rcs[j])
			rcs[j] = sop_batch_result(batch, request[j]);
		sop_shard_file_put(s, files[j]);
		if (sop_blob_untold(rcs[j]))
			rc = rcs[j];
		if (rcs[j])
			continue;
		sop_frag_header(&want, &b->seg->info, b->ref, raw[j]->kind, j);
		if (memcmp(&want, raw[j], sizeof(want))) {
			*other = SOP_MAX(*other, other_len(b, raw[j], j));
			continue;
		}
		*good |= 1u << j;
		*kind = raw[j]->kind;
	}
	sop_batch_put(batch);
	return rc;
}

/* Read every cell of every shard that can be read, whatever is good already. */
static int grid_read_all(struct grid *g, struct sop_err *e)
{
	uint32_t shards = readable(g);
	int rc;

	SOP_EACH_BIT(i, shards)
	for (uint32_t r = 0; r < g->rows; r++)
		*cell_at(g, i, r) |= CELL_PLAN;
	/* late: with the full bound */
	rc = shards ? grid_read(g, shards, true) : 0;
	for (unsigned i = 0; i < g->b->n && !rc; i++)
		rc = sop_blob_untold(g->rc[i]) ? g->rc[i] : 0;
	return rc ? sop_fail(e, rc, "verify") : 0;
}

/* The whole fragment of a shard, from good and rebuilt cells. */
static void compose(struct grid *g, unsigned shard, uint8_t kind, uint8_t *image)
{
	const struct blob *b = g->b;
	size_t at = sizeof(struct sop_disk_fragment);

	memset(image, 0, b->shape.bytes);
	sop_frag_header((struct sop_disk_fragment *)image, &b->seg->info, b->ref, kind, shard);
	for (uint32_t r = 0; r < g->rows; r++, at += SOP_FRAG_STRIDE) {
		uint32_t len = sop_frag_block(&b->shape, r);
		struct le32 sum;

		memcpy(image + at, cell_data(g, shard, r), len);
		sum = le32_make(
			sop_crc32c(sop_frag_seed_block(b->seed[shard], r), image + at, len));
		memcpy(image + at + len, &sum, sizeof(sum));
	}
}

/* Write one shard anew in place. A crash on the way leaves it as bad as it was. */
static int repair_shard(struct grid *g, unsigned shard, uint8_t kind)
{
	const struct blob *b = g->b;
	struct sop_batch *batch = sop_batch_new(b->s->io);
	struct sop_shard_file *f = NULL;
	struct iovec iov = {NULL, b->shape.bytes};
	int rc, request;

	if (!batch)
		return -ENOMEM;
	iov.iov_base = sop_batch_alloc(batch, b->shape.bytes);
	rc = iov.iov_base ? sop_shard_file_mend(b->s, b->seg, shard, &f) : -ENOMEM;
	if (!rc) {
		compose(g, shard, kind, iov.iov_base);
		request = sop_batch_add(batch, SOP_IO_WRITE, f->file, &iov, 1, b->ref->off);
		rc = request < 0 ? request : 0;
	}
	if (!rc) {
		sop_batch_run(batch, SOP_IO_SERIAL, 0, sop_members_timeout_ms(b->s->mem));
		rc = sop_batch_result(batch, request);
		if (!rc && !sop_segment_mended(b->s, b->seg, f))
			rc = -ENODEV;
	}
	if (rc)
		sop_segment_blame(b->s, sop_segment_disk(b->seg, shard), SOP_EVENT_WRITE, rc);
	sop_shard_file_put(b->s, f);
	sop_batch_put(batch);
	return rc;
}

static uint32_t whole_shards(struct grid *g)
{
	uint32_t whole = 0;

	for (unsigned i = 0; i < g->b->n; i++) {
		uint32_t r = 0;

		while (r < g->rows && cell_get(g, i, r) == CELL_GOOD)
			r++;
		if (r == g->rows)
			whole |= 1u << i;
	}
	return whole;
}

static int repair_shards(struct grid *g, uint32_t shards, uint8_t kind, uint32_t *good)
{
	const struct blob *b = g->b;
	int untold = 0;

	SOP_EACH_BIT(i, shards)
	{
		unsigned member = sop_segment_disk(b->seg, i);
		int rc;

		if (!sop_members_disk(b->s->mem, member))
			continue;
		rc = repair_shard(g, i, kind);
		if (!rc)
			*good |= 1u << i;
		if (sop_blob_untold(rc))
			untold = rc;
		sop_log(sop_members_log(b->s->mem), rc ? SOP_LOG_WARNING : SOP_LOG_INFO, "blob",
			"op=repair segment=%016" PRIx64 " off=%" PRIu64
			" shard=%u disk=%u code=%s: shard %s",
			b->ref->segment, b->ref->off, i, member, rc ? sop_err_name(rc) : "0",
			rc ? "not written" : "written anew");
	}
	return untold;
}

/* All that a verify finds out, in g. */
static int verify(struct blob *b, struct grid *g, bool build, uint32_t *good, uint8_t *kind,
	struct sop_err *e)
{
	uint32_t headers = 0, other = 0;
	bool lost = false;
	int rc = grid_read_all(g, e);

	if (rc)
		return rc;
	rc = read_headers(b, readable(g), &headers, kind, &other);
	if (rc)
		return sop_fail(e, rc, "verify");
	/* It is the address that is wrong. By another length a block that verifies may be another
	 * part of the data: nothing is taken from it, and nothing written. */
	if (!headers && other)
		return sop_fail(e, SOP_ECORRUPT,
			"blob of %u bytes at %016" PRIx64 "+%" PRIu64 ": is said to have %u bytes",
			other, b->ref->segment, b->ref->off, b->ref->len);
	*good = whole_shards(g) & headers;
	for (unsigned i = 0; i < b->n; i++) {
		uint32_t bit = 1u << i;

		if (*good & bit)
			continue;
		if (readable(g) & bit && !g->rc[i]) { /* the header alone */
			g->rc[i] = SOP_ECORRUPT;
			g->wrong |= bit;
			g->rotten |= bit;
		}
		for (uint32_t r = 0; r < g->rows; r++)
			*cell_at(g, i, r) |= CELL_WANTED;
	}
	report(g, "verify");
	rc = grid_rebuild(g, build, &lost, e);
	if (!rc && lost)
		rc = say_lost(g, verify_code(g), e);
	return rc;
}

int sop_blob_verify(struct sop_segments *s, const struct sop_blobref *ref, bool repair,
	uint32_t *good, struct sop_err *e)
{
	uint8_t kind = SOP_BLOB_DATA;
	struct blob b;
	struct grid g;
	int rc;

	*good = 0;
	rc = blob_open(&b, s, ref, e);
	if (rc)
		return rc;
	rc = grid_init(&g, &b, 0, b.shape.rows, e);
	if (!rc) {
		rc = verify(&b, &g, repair, good, &kind, e);
		if (!rc && repair)
			rc = repair_shards(&g, sop_segment_all(b.seg) & ~*good, kind, good);
		grid_release(&g);
	}
	sop_segment_put(s, b.seg);
	return rc;
}
