/* Mending a segment as a whole: write shards anew that were missed, move shards to other members,
 * verify all.
 *
 * The shard files themselves say what is in them: every fragment has a header. So a segment is
 * walked from its beginning to its end in large reads, without the trees, and no lock is held
 * meanwhile. What counts as a fragment is decided by checksums alone: a header of this segment, at
 * this place, each block of which verifies on k shards (or on the shard that is to be copied). Such
 * a one is taken whole, and the walk goes on behind it; anything else is looked at in steps of 8
 * bytes. So a header that somebody put into his data hides nothing that lies behind it: only where
 * all its blocks verify is it skipped over, and then it is no larger than his data. What was freed
 * and is still there is mended as well, which does no harm.
 *
 * Order, for shards that are written anew. The segment is sealed and appends under way have ended:
 * from here on it only loses blobs. Holes punched meanwhile are noted, and punched again in what
 * was written. The new shard is complete, synced, and its name is synced, before the segment says
 * that it lies there (or is not stale any more); the checkpoint that records this comes after. A
 * crash before that finds the old place, which has not been touched. */
#include "core/segment_int.h"

#include <inttypes.h>

#define WINDOW_FRAGS 2u /* of the largest size, fit into a window */
#define ROWS_MAX     (SOP_BLOB_MAX / SOP_BLOCK_BYTES + 1)

/* A fragment met in the window. */
struct found {
	struct sop_blobref ref;
	struct sop_frag_shape shape;
	uint8_t kind;
	uint32_t headers;	/* shards whose header is right */
	uint32_t whole;		/* ... and all blocks too */
	uint32_t row[ROWS_MAX]; /* shards whose block verifies */
	bool complete;		/* all that is wanted can be had */
	bool recoverable;	/* each block verifies on k shards */
	bool zeros;		/* what does not verify is zeros everywhere */
	bool punched;		/* ... and it has been freed */
};

struct run {
	uint32_t at, len;
	uint32_t shards;
	bool as_read; /* what was read there is what is written */
};

/* The writes of a window, under way while the next one is read and walked. */
struct writing {
	struct sop_batch *batch; /* NULL: none. Owns the output, holds what was read */
	struct run *run;
	size_t n_run, cap_run;
	int *request;
};

struct mend {
	struct sop_segments *s;
	struct segment *seg;
	const struct sop_mend_opts *o;
	struct sop_mend_report *r;
	struct sop_segment_info info; /* as of the beginning */
	unsigned k, n;
	uint32_t want;	/* to be written anew */
	uint32_t moved; /* of these: to another member */
	uint32_t fresh; /* of these: the target was not there */
	uint32_t have;	/* can be read */
	bool more;	/* the window before needed them all */
	bool missing;	/* a disk is absent that may have what was not found */
	struct sop_shard_file *file[SOP_EC_MAX];
	uint64_t size[SOP_EC_MAX];
	struct sop_file *target[SOP_EC_MAX];
	struct sop_range64 *gap; /* in files written in place: what is not in use */
	size_t n_gap, cap_gap;
	uint64_t end;
	/* the window */
	struct sop_batch *batch[2]; /* own the memory of what was read */
	struct sop_batch *output;   /* NULL: nothing yet; owns that of what is to be written */
	uint8_t *buf[SOP_EC_MAX];
	uint8_t *out[SOP_EC_MAX];
	uint32_t loaded;
	uint64_t off;
	uint32_t len;
	struct run *run;
	size_t n_run, cap_run;
	struct found at;
	struct writing writing;
	struct sop_mending punched;
};

static int grow(void *p, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? 2 * *cap : 64;
	void *old, *more;

	if (n < *cap)
		return 0;
	memcpy(&old, p, sizeof(old));
	more = reallocarray(old, want, size);
	if (!more)
		return -ENOMEM;
	memcpy(p, &more, sizeof(more));
	*cap = want;
	return 0;
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* Add the reads of the window to a batch. What lies beyond the end of a file reads as zeros. */
static int add_reads(struct mend *m, struct sop_batch *b, uint32_t shards, int *request)
{
	SOP_EACH_BIT(i, shards)
	{
		struct iovec iov = {NULL, m->len};

		request[i] = -1;
		m->buf[i] = sop_batch_alloc(b, m->len);
		if (!m->buf[i])
			return -ENOMEM;
		if (m->size[i] < m->off + m->len) {
			iov.iov_len = m->size[i] > m->off ? (size_t)(m->size[i] - m->off) : 0;
			memset(m->buf[i] + iov.iov_len, 0, m->len - iov.iov_len);
		}
		iov.iov_base = m->buf[i];
		if (!iov.iov_len)
			continue;
		request[i] = sop_batch_add(b, SOP_IO_READ_ON, m->file[i]->file, &iov, 1, m->off);
		if (request[i] < 0)
			return request[i];
	}
	return 0;
}

/* What has been read; who could not be read is no source any more. */
static void take_reads(struct mend *m, struct sop_batch *b, uint32_t shards, const int *request)
{
	SOP_EACH_BIT(i, shards)
	{
		int rc = request[i] < 0 ? 0 : sop_batch_result(b, request[i]);

		if (!rc) {
			m->loaded |= 1u << i;
			m->r->read_bytes += m->len;
			continue;
		}
		m->have &= ~(1u << i);
		m->missing = true;
		sop_segment_blame(m->s, m->info.disks[i], SOP_EVENT_READ, rc);
	}
}

/* The shards to begin a window with. */
static uint32_t first_choice(const struct mend *m)
{
	uint32_t own = m->want & m->have, others = m->have & ~m->want, stale, pick = 0;
	unsigned need = m->k;

	if (m->o->verify)
		return m->have & ~m->info.stale;
	/* Copied as it is, from where it lies. */
	if (m->want == m->moved && own == m->want && !(own & m->info.stale) && !m->more)
		return own;
	/* What is there already needs only somebody who knows what ought to be. */
	if (own && !m->more)
		need = 1;
	stale = others & m->info.stale;
	others &= ~stale;
	for (uint32_t i = 0; i < m->n && need; i++)
		if (others >> i & 1) {
			pick |= 1u << i;
			need--;
		}
	for (uint32_t i = 0; i < m->n && need; i++)
		if (stale >> i & 1) {
			pick |= 1u << i;
			need--;
		}
	return pick | own;
}

/* The window needs all that can be read. */
static int load_rest(struct mend *m, struct sop_err *e)
{
	uint32_t rest = m->have & ~m->loaded;
	int request[SOP_EC_MAX];
	struct sop_batch *b;
	int rc;

	m->more = true;
	if (!rest)
		return 0;
	b = m->batch[1] = sop_batch_new(m->s->io);
	rc = b ? add_reads(m, b, rest, request) : -ENOMEM;
	if (rc)
		return sop_fail(e, rc, "segment %016" PRIx64, m->info.id);
	sop_batch_run(b, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(m->s->mem));
	take_reads(m, b, rest, request);
	return 0;
}

/* --- fragments ---------------------------------------------------------------------------------
 */

static bool header_at(const struct mend *m, unsigned shard, uint32_t at, struct found *f)
{
	struct sop_disk_fragment h;
	struct sop_frag_shape shape;
	uint32_t len;

	memcpy(&h.magic, m->buf[shard] + at, sizeof(h.magic));
	if (le32_get(h.magic) != SOP_FRAG_MAGIC)
		return false;
	memcpy(&h, m->buf[shard] + at, sizeof(h));
	len = le32_get(h.len);
	if (le32_get(h.crc) != sop_crc32c(0, &h.segment, sizeof(h) - 8) ||
		le64_get(h.segment) != m->info.id || le64_get(h.off) != m->off + at ||
		h.shard != shard || h.k != m->info.k || h.m != m->info.m || !len ||
		len > SOP_BLOB_MAX || (h.kind != SOP_BLOB_DATA && h.kind != SOP_BLOB_NODE))
		return false;
	shape = sop_frag_shape(len, m->k);
	if (le32_get(h.slice) != shape.slice)
		return false;
	f->ref = (struct sop_blobref){
		.segment = m->info.id, .off = m->off + at, .len = len, .nonce = le32_get(h.nonce)};
	f->shape = shape;
	f->kind = h.kind;
	return true;
}

/* Look at all blocks of a fragment that a header has told of. */
static void examine(struct mend *m, uint32_t at)
{
	struct found *f = &m->at;
	struct sop_disk_fragment want;
	uint32_t all = m->loaded;

	f->headers = 0;
	f->whole = all;
	f->complete = f->recoverable = true;
	f->zeros = f->punched = false;
	memset(f->row, 0, f->shape.rows * sizeof(f->row[0]));
	SOP_EACH_BIT(i, all)
	{
		uint32_t base = sop_frag_seed_base(&m->info, &f->ref, i);
		const uint8_t *p = m->buf[i] + at + sizeof(want);

		sop_frag_header(&want, &m->info, &f->ref, f->kind, i);
		if (!memcmp(&want, m->buf[i] + at, sizeof(want)))
			f->headers |= 1u << i;
		for (uint32_t r = 0; r < f->shape.rows; r++, p += SOP_FRAG_STRIDE) {
			uint32_t len = sop_frag_block(&f->shape, r);
			struct le32 sum;

			memcpy(&sum, p + len, sizeof(sum));
			if (sop_crc32c(sop_frag_seed_block(base, r), p, len) == le32_get(sum))
				f->row[r] |= 1u << i;
		}
	}
	for (uint32_t r = 0; r < f->shape.rows; r++) {
		bool enough = (unsigned)__builtin_popcount(f->row[r]) >= m->k;

		f->whole &= f->row[r];
		f->recoverable = f->recoverable && enough;
		f->complete = f->complete && (enough || (m->want && !(m->want & ~f->row[r])));
	}
	f->whole &= f->headers;
	if (f->recoverable)
		return;
	f->zeros = true;
	for (uint32_t r = 0; r < f->shape.rows && f->zeros; r++) {
		size_t row = at + sizeof(want) + (size_t)r * SOP_FRAG_STRIDE;

		if ((unsigned)__builtin_popcount(f->row[r]) >= m->k)
			continue;
		SOP_EACH_BIT(j, all)
		f->zeros =
			f->zeros && sop_all_zero(m->buf[j] + row, sop_frag_block(&f->shape, r) + 4);
	}
	/* Rot that is zeros in the same block of every shard is not to be expected. */
	f->punched = f->zeros && m->n > 1;
}

/* The blocks [from, to) of the shards in want, which all have the same good ones. */
static int compose_rows(
	struct mend *m, uint32_t at, uint32_t want, uint32_t from, uint32_t to, struct sop_err *e)
{
	const struct found *f = &m->at;
	size_t pos = at + sizeof(struct sop_disk_fragment) + (size_t)from * SOP_FRAG_STRIDE;
	size_t len = (size_t)(to - from - 1) * SOP_FRAG_STRIDE + sop_frag_block(&f->shape, to - 1);
	uint32_t good = f->row[from];
	void *shard[SOP_EC_MAX] = {NULL};

	SOP_EACH_BIT(i, want & good)
	memcpy(m->out[i] + pos, m->buf[i] + pos, len);
	want &= ~good;
	if (!want || (unsigned)__builtin_popcount(good) < m->k)
		return 0;
	SOP_EACH_BIT(l, good)
	shard[l] = m->buf[l] + pos;
	SOP_EACH_BIT(o, want)
	shard[o] = m->out[o] + pos;
	return sop_ec_rebuild(m->seg->ec, len, shard, good, want, e);
}

/* The fragment on the shards in want, in memory: all of it that can be had. */
static int compose(struct mend *m, uint32_t at, uint32_t want, struct sop_err *e)
{
	const struct found *f = &m->at;
	uint32_t rows = f->shape.rows, from = 0;
	int rc = 0;

	while (from < rows && !rc) {
		uint32_t to = from + 1;

		while (to < rows && f->row[to] == f->row[from])
			to++;
		rc = compose_rows(m, at, want, from, to, e);
		from = to;
	}
	SOP_EACH_BIT(i, want)
	{
		uint32_t base = sop_frag_seed_base(&m->info, &f->ref, i);
		uint8_t *p = m->out[i] + at;
		struct sop_disk_fragment h;

		sop_frag_header(&h, &m->info, &f->ref, f->kind, i);
		memcpy(p, &h, sizeof(h));
		p += sizeof(h);
		for (uint32_t r = 0; r < rows; r++) {
			uint32_t len = sop_frag_block(&f->shape, r);
			bool had = f->row[r] >> i & 1 ||
				   (unsigned)__builtin_popcount(f->row[r]) >= m->k;
			struct le32 sum;

			if (had) {
				sum = le32_make(sop_crc32c(sop_frag_seed_block(base, r), p, len));
				memcpy(p + len, &sum, sizeof(sum));
			}
			p += len + sizeof(sum);
		}
		if (f->complete)
			memset(p, 0, (size_t)(m->out[i] + at + f->shape.bytes - p));
	}
	return rc;
}

/* --- writing -----------------------------------------------------------------------------------
 */

static int add_run(struct mend *m, uint32_t at, uint32_t len, uint32_t shards, bool as_read)
{
	struct run *last = m->n_run ? &m->run[m->n_run - 1] : NULL;

	if (!shards)
		return 0;
	if (last && last->shards == shards && last->as_read == as_read && last->at <= at &&
		at <= last->at + last->len) {
		last->len = SOP_MAX(last->len, at + len - last->at);
		return 0;
	}
	if (grow(&m->run, &m->cap_run, m->n_run, sizeof(*m->run)))
		return -ENOMEM;
	m->run[m->n_run++] = (struct run){at, len, shards, as_read};
	return 0;
}

/* This page of files written in place is not in use. */
static int add_gap(struct mend *m, uint64_t off)
{
	struct sop_range64 *last = m->n_gap ? &m->gap[m->n_gap - 1] : NULL;

	if (last && last->off + last->len == off) {
		last->len += SOP_BLOCK_BYTES;
		return 0;
	}
	if (grow(&m->gap, &m->cap_gap, m->n_gap, sizeof(*m->gap)))
		return -ENOMEM;
	m->gap[m->n_gap++] = (struct sop_range64){off, SOP_BLOCK_BYTES};
	return 0;
}

/* A page that all others have given back: no fragment begins in it, or reaches into it. 1: it is
 * skipped (and given back here too); 0: it is no such page. Only where no header was found. */
static int skip_hole(struct mend *m, uint32_t at)
{
	uint32_t in_place = m->want & ~m->moved, others = m->loaded & ~in_place;

	if ((m->off + at) % SOP_BLOCK_BYTES || m->len - at < SOP_BLOCK_BYTES || !others)
		return 0;
	if ((in_place & ~m->fresh) && (unsigned)__builtin_popcount(m->have & ~in_place) < m->k)
		return 0;
	SOP_EACH_BIT(i, others)
	if (!sop_all_zero(m->buf[i] + at, SOP_BLOCK_BYTES))
		return 0;
	if (!(in_place & ~m->fresh))
		return 1;
	/* What is here and nowhere else goes only when all the others have been asked. */
	if (m->have & ~m->loaded & ~in_place)
		return 0;
	return add_gap(m, m->off + at) ? -ENOMEM : 1;
}

/* Of a fragment that is not complete: each block that can be had, and is not there. A block that
 * verifies on k shards is where it belongs; of the others nothing is known, and nothing is written
 * over them. */
static int add_row_runs(struct mend *m, uint32_t at)
{
	const struct found *f = &m->at;
	uint32_t pos = at + (uint32_t)sizeof(struct sop_disk_fragment);
	bool any = false;
	int rc = 0;

	for (uint32_t r = 0; r < f->shape.rows && !rc; r++, pos += SOP_FRAG_STRIDE) {
		uint32_t good = f->row[r], want = m->moved | (m->want & ~good);

		if ((unsigned)__builtin_popcount(good) < m->k)
			want &= good;
		if (!want)
			continue;
		any = true;
		rc = add_run(m, pos, sop_frag_block(&f->shape, r) + (uint32_t)sizeof(struct le32),
			want, false);
	}
	if (!rc && any && m->want & ~f->headers)
		rc = add_run(m, at, sizeof(struct sop_disk_fragment), m->want & ~f->headers, false);
	return rc;
}

/* Room for the window's content of these shards. */
static int output_room(struct mend *m, uint32_t shards)
{
	if (!m->output)
		m->output = sop_batch_new(m->s->io);
	if (!m->output)
		return -ENOMEM;
	SOP_EACH_BIT(i, shards)
	{
		if (!m->out[i])
			m->out[i] = sop_batch_alloc(m->output, m->len);
		if (!m->out[i])
			return -ENOMEM;
	}
	return 0;
}

/* What is wanted of the fragment goes to the output. */
static int emit(struct mend *m, uint32_t at, struct sop_err *e)
{
	const struct found *f = &m->at;
	uint32_t in_place = m->want & ~m->moved, want = m->moved | (in_place & ~f->whole);
	uint32_t as_read = f->complete ? want & f->whole : 0, made = want & ~as_read;
	size_t runs = m->n_run;
	int rc = want ? output_room(m, made) : 0;

	if (!rc && f->complete)
		rc = add_run(m, at, f->shape.bytes, as_read, true);
	if (!rc && made)
		rc = f->complete ? add_run(m, at, f->shape.bytes, made, false)
				 : add_row_runs(m, at);
	if (rc)
		return sop_fail(e, rc, "segment %016" PRIx64, m->info.id);
	if (!made || (!f->complete && m->n_run == runs))
		return 0;
	if (f->complete)
		m->r->corrected += (unsigned)__builtin_popcount(in_place & want);
	return compose(m, at, made, e);
}

/* The member that shard i is to lie on. */
static unsigned goal(const struct mend *m, unsigned i)
{
	return m->moved >> i & 1 ? m->o->to[i] : m->info.disks[i];
}

static int add_writes(struct mend *m, struct writing *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n_run; i++)
		SOP_EACH_BIT(s, w->run[i].shards)
		{
			const struct run *run = &w->run[i];
			uint8_t *from = run->as_read ? m->buf[s] : m->out[s];
			struct iovec iov = {from + run->at, run->len};

			w->request[n] = sop_batch_add(w->batch, SOP_IO_WRITE_OUT, m->target[s],
				&iov, 1, m->off + run->at);
			if (w->request[n] < 0)
				return w->request[n];
			n++;
		}
	return 0;
}

/* The writes of the window begin. */
static int begin_writes(struct mend *m, struct sop_err *e)
{
	struct writing *w = &m->writing;
	struct run *free_run = w->run;
	size_t cap = w->cap_run;
	int rc;

	if (!m->n_run) {
		sop_batch_put(m->output);
		m->output = NULL;
		return 0;
	}
	*w = (struct writing){.batch = m->output,
		.run = m->run,
		.n_run = m->n_run,
		.cap_run = m->cap_run,
		.request = calloc(m->n_run * SOP_EC_MAX, sizeof(*w->request))};
	m->output = NULL;
	m->run = free_run;
	m->cap_run = cap;
	m->n_run = 0;
	rc = w->request ? add_writes(m, w) : -ENOMEM;
	if (rc) {
		sop_batch_put(w->batch);
		w->batch = NULL;
		return sop_fail(e, rc, "segment %016" PRIx64, m->info.id);
	}
	for (unsigned i = 0; i < SOP_ARRAY_LEN(m->batch); i++)
		if (m->batch[i])
			sop_batch_hold(w->batch, m->batch[i]);
	sop_batch_start(w->batch);
	return 0;
}

static int take_writes(struct mend *m, const struct writing *w, struct sop_err *e)
{
	size_t n = 0;
	int rc = 0;

	for (size_t i = 0; i < w->n_run; i++)
		SOP_EACH_BIT(s, w->run[i].shards)
		{
			int one = sop_batch_result(w->batch, w->request[n++]);

			if (!one) {
				m->r->written_bytes += w->run[i].len;
				continue;
			}
			sop_segment_blame(m->s, goal(m, s), SOP_EVENT_WRITE, one);
			rc = rc ? rc
				: sop_fail(e, one, "d%u: shard of segment %016" PRIx64,
					  goal(m, s) + 1, m->info.id);
		}
	return rc;
}

/* Those of the window before have ended. */
static int end_writes(struct mend *m, struct sop_err *e)
{
	struct writing *w = &m->writing;
	int rc = 0;

	if (w->batch) {
		sop_batch_wait(w->batch, sop_members_timeout_ms(m->s->mem));
		rc = take_writes(m, w, e);
		sop_batch_put(w->batch);
		w->batch = NULL;
	}
	free(w->request);
	w->request = NULL;
	return rc;
}

/* --- the walk ----------------------------------------------------------------------------------
 */

/* It was freed since the work began, and what gives its pages back may have come to some of the
 * shards and not to others: what is missing is not missed. at: in the window. */
static bool freed_meanwhile(struct mend *m, uint32_t at)
{
	uint64_t from = m->off + at, to = from + m->at.shape.bytes;
	bool freed = false;

	SOP_LOCK_GUARD(&m->s->lock);
	for (size_t i = 0; i < m->punched.n && !freed; i++) {
		const struct sop_range64 *hole = &m->punched.hole[i];

		freed = hole->off < to && from < hole->off + hole->len;
	}
	return freed;
}

/* Verifying: what is bad is written anew by the way that reads use, which also tells health. */
static int check_found(struct mend *m, struct sop_err *e)
{
	struct found *f = &m->at;
	uint32_t bad = m->loaded & ~f->whole, good = 0;
	int rc;

	if (!bad || f->punched)
		return 0;
	if (!f->recoverable) {
		m->r->lost++;
		m->r->rotten += !f->zeros;
		if (m->o->lost)
			m->o->lost(m->o->arg, &f->ref, f->kind);
		return 0;
	}
	rc = sop_blob_verify(m->s, &f->ref, !m->o->no_repair, &good, e);
	if (rc)
		return sop_blob_untold(rc) ? rc : 0;
	m->r->corrected += (unsigned)__builtin_popcount(good & bad);
	m->r->repaired_bytes += (uint64_t)__builtin_popcount(good & bad) * f->shape.bytes;
	m->r->bad += (unsigned)__builtin_popcount(bad & ~good);
	return 0;
}

static bool find_header(struct mend *m, uint32_t at)
{
	SOP_EACH_BIT(i, m->loaded)
	if (header_at(m, i, at, &m->at))
		return true;
	return false;
}

static bool any_bytes(const struct mend *m, uint32_t at)
{
	static const uint8_t zero[8];

	SOP_EACH_BIT(i, m->loaded)
	if (memcmp(m->buf[i] + at, zero, sizeof(zero)))
		return true;
	return false;
}

/* A fragment at this place of the window? 1: yes; 2: yes, but its end lies beyond the window. */
static int look(struct mend *m, uint32_t at, struct sop_err *e)
{
	bool any;
	int rc = 0;

	if (at + sizeof(struct sop_disk_fragment) > m->len)
		return m->off + m->len < m->end ? 2 : 0;
	any = find_header(m, at);
	/* Bytes that are of nothing known: the others may know. */
	if (!any && m->have & ~m->loaded && !m->o->verify && any_bytes(m, at)) {
		rc = load_rest(m, e);
		any = !rc && find_header(m, at);
	}
	if (!any)
		return rc;
	if (m->at.shape.bytes > m->len - at)
		return m->off + m->len < m->end && at ? 2 : 0;
	examine(m, at);
	if (!m->o->verify && !m->at.complete && m->have & ~m->loaded) {
		rc = load_rest(m, e);
		if (!rc)
			examine(m, at);
	} else if (!m->o->verify && m->want & ~m->moved & ~m->at.whole && !m->at.recoverable &&
		   m->have & ~m->loaded) {
		rc = load_rest(m, e);
		if (!rc)
			examine(m, at);
	}
	return rc ? rc : 1;
}

/* Walk the window. *used: up to where it has been dealt with. */
static int walk(struct mend *m, uint32_t *used, struct sop_err *e)
{
	uint32_t at = 0;

	m->n_run = 0;
	memset(m->out, 0, sizeof(m->out));
	while (at < m->len) {
		int rc = look(m, at, e);

		if (rc < 0)
			return rc;
		if (rc == 2)
			break;
		if (!rc) {
			rc = skip_hole(m, at);
			if (rc < 0)
				return sop_fail(e, rc, "segment %016" PRIx64, m->info.id);
			at += rc ? SOP_BLOCK_BYTES : 8;
			continue;
		}
		if (m->at.whole != m->loaded && freed_meanwhile(m, at))
			m->at.punched = true;
		if (m->o->verify)
			rc = check_found(m, e);
		else if (m->at.complete)
			rc = emit(m, at, e);
		else if (!m->at.punched) {
			m->r->lost++;
			m->r->rotten += !m->at.zeros;
			if (m->o->lost)
				m->o->lost(m->o->arg, &m->at.ref, m->at.kind);
			rc = emit(m, at, e); /* what of it can be had */
		}
		if (rc < 0)
			return rc;
		if (m->o->verify ? m->at.recoverable : m->at.complete) {
			m->r->found_bytes += m->at.shape.bytes;
			at += m->at.shape.bytes;
		} else {
			at += 8;
		}
	}
	*used = SOP_MIN(at, m->len);
	return 0;
}

static uint32_t window_bytes(const struct mend *m, uint64_t off)
{
	uint64_t most = WINDOW_FRAGS * sop_blob_shard_bytes(SOP_BLOB_MAX, m->k);

	return (uint32_t)SOP_MIN(m->end - off, sop_round_up(most, SOP_BLOCK_BYTES));
}

static int too_few(const struct mend *m, struct sop_err *e)
{
	return sop_fail(e, SOP_EDISKS, "segment %016" PRIx64 ": %d shards can be read", m->info.id,
		__builtin_popcount(m->have));
}

static void let_go_of_reads(struct mend *m)
{
	for (unsigned i = 0; i < SOP_ARRAY_LEN(m->batch); i++) {
		sop_batch_put(m->batch[i]);
		m->batch[i] = NULL;
	}
	memset(m->buf, 0, sizeof(m->buf));
	m->loaded = 0;
}

/* The window at m->off, from the shards to begin with. */
static int load(struct mend *m, struct sop_err *e)
{
	struct sop_batch *b = m->batch[0] = sop_batch_new(m->s->io);
	uint32_t shards = first_choice(m);
	int reads[SOP_EC_MAX];
	int rc = b ? add_reads(m, b, shards, reads) : -ENOMEM;

	if (rc)
		return sop_fail(e, rc, "segment %016" PRIx64, m->info.id);
	sop_batch_run(b, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(m->s->mem));
	take_reads(m, b, shards, reads);
	/* A source may have been lost: another takes its place. */
	if (!m->loaded || m->loaded != first_choice(m))
		return m->have ? load_rest(m, e) : too_few(m, e);
	m->more = false;
	return 0;
}

/* While one window is read and walked, what comes of the one before is written. */
static int step(struct mend *m, struct sop_err *e)
{
	uint32_t used = 0;
	int rc = 0;

	if (m->len)
		rc = walk(m, &used, e);
	if (!rc)
		rc = end_writes(m, e);
	if (!rc)
		rc = begin_writes(m, e);
	if (rc)
		return rc;
	let_go_of_reads(m);
	m->r->done_bytes += used;
	m->off += used;
	m->len = m->off < m->end ? window_bytes(m, m->off) : 0;
	return m->len ? load(m, e) : end_writes(m, e);
}

static int walk_all(struct mend *m, struct sop_err *e)
{
	int rc;

	m->off = SOP_SHARD_HEADER;
	m->len = 0;
	do {
		rc = step(m, e);
		if (!rc && m->o->pace)
			rc = m->o->pace(m->o->arg, m->r);
	} while (!rc && m->len);
	if (rc)
		(void)end_writes(m, NULL);
	return rc;
}

/* --- begin and end -----------------------------------------------------------------------------
 */

/* Nothing is appended any more, and holes are noted from here on. */
static void begin(struct mend *m)
{
	struct sop_segments *s = m->s;

	sop_segments_seal(s, m->seg->info.id);
	sop_lock(&s->lock);
	m->seg->mending = &m->punched;
	/* Each append and each punch is bounded. */
	while (m->seg->busy)
		sop_cond_wait(&s->changed, &s->lock, -1);
	m->info = m->seg->info;
	sop_unlock(&s->lock);
}

static int open_sources(struct mend *m, struct sop_err *e)
{
	int rcs[SOP_EC_MAX] = {0};
	uint32_t all = sop_segment_all(m->seg);

	sop_shard_files_get(m->s, m->seg, all, false, m->file, rcs);
	SOP_EACH_BIT(i, all)
	{
		if (m->file[i]) {
			m->have |= 1u << i;
		} else if (rcs[i] != -ENOENT) {
			m->missing = true;
			sop_segment_blame(m->s, m->info.disks[i], SOP_EVENT_READ, rcs[i]);
		}
	}
	sop_shard_files_sizes(m->s, m->seg, m->have, m->file, m->size, rcs);
	SOP_EACH_BIT(j, m->have)
	{
		if (!rcs[j])
			continue;
		m->have &= ~(1u << j);
		m->missing = true;
		sop_segment_blame(m->s, m->info.disks[j], SOP_EVENT_READ, rcs[j]);
	}
	m->r->here = m->have;
	m->r->nowhere = !m->have && !m->missing;
	m->end = m->seg->ours ? m->info.end : SOP_SHARD_HEADER;
	SOP_EACH_BIT(l, m->seg->ours ? 0 : m->have)
	m->end = SOP_MAX(m->end, m->size[l]);
	m->end = SOP_MIN(m->end, (uint64_t)SOP_SEGMENT_BYTES);
	/* A shard that is to be copied can be read where it is, or k can. One that has missed
	 * something has what was written before. */
	if ((unsigned)__builtin_popcount(m->have) < m->k &&
		(!m->moved || m->want != m->moved || m->want & ~m->have))
		return m->have && m->o->verify ? 0 : too_few(m, e);
	return 0;
}

static int open_targets(struct mend *m, struct sop_err *e)
{
	int rc = 0;

	SOP_EACH_BIT(i, m->want)
	{
		if (rc)
			break;
		if (!(m->have >> i & 1) || m->moved >> i & 1)
			m->fresh |= 1u << i;
		rc = sop_shard_file_at(
			m->s, m->seg, i, goal(m, i), !(m->moved >> i & 1), &m->target[i]);
		if (rc) {
			sop_segment_blame(m->s, goal(m, i), SOP_EVENT_WRITE, rc);
			rc = sop_fail(e, rc, "d%u: shard of segment %016" PRIx64, goal(m, i) + 1,
				m->info.id);
		}
	}
	return rc;
}

static int settle(struct mend *m, struct sop_err *e)
{
	int rc = 0;

	SOP_EACH_BIT(i, m->want)
	{
		bool gaps = !(m->fresh >> i & 1);

		if (rc)
			break;
		rc = sop_shard_file_settle(m->s, m->seg, i, goal(m, i), m->target[i],
			gaps ? m->gap : NULL, gaps ? m->n_gap : 0);
		if (rc) {
			sop_segment_blame(m->s, goal(m, i), SOP_EVENT_WRITE, rc);
			rc = sop_fail(e, rc, "d%u: shard of segment %016" PRIx64 ": sync",
				goal(m, i) + 1, m->info.id);
		}
	}
	return rc;
}

/* The segment says where its shards lie now. False: it has been removed meanwhile. */
static bool publish(struct mend *m)
{
	struct segment *seg = m->seg;
	struct sop_segments *s = m->s;
	struct sop_shard_file *chain[SOP_EC_MAX] = {NULL};
	bool here;

	sop_lock(&s->lock);
	here = seg->in_table;
	SOP_EACH_BIT(i, here ? m->want : 0)
	{
		uint32_t bit = 1u << i;

		if (m->moved & bit) {
			chain[i] = sop_shard_file_take(s, seg, i);
			sop_segment_disk_set(seg, i, goal(m, i));
		}
		/* What has just been written has not been read; and what cannot be read may be
		 * right where it was copied from. */
		if (m->r->written_bytes || m->r->rotten || m->fresh & bit)
			seg->info.read_back &= ~bit;
		else
			seg->info.read_back |= bit;
		seg->info.stale &= ~bit;
		seg->unsynced &= ~bit;
		seg->missing &= ~bit;
		seg->absent &= ~bit;
		seg->awaited &= ~bit;
		seg->dirty &= ~bit;
		seg->new_names &= ~bit;
	}
	sop_unlock(&s->lock);
	sop_shard_files_put(s, sop_segment_all(seg), chain);
	return here;
}

void sop_segments_place(
	struct sop_segments *s, uint64_t id, unsigned shard, unsigned member, bool proven)
{
	struct sop_shard_file *chain[SOP_EC_MAX] = {NULL};
	struct segment *seg;

	if (sop_segment_get(&seg, s, id, NULL))
		return;
	sop_lock(&s->lock);
	if (sop_segment_disk(seg, shard) != member) {
		chain[shard] = sop_shard_file_take(s, seg, shard);
		sop_segment_disk_set(seg, shard, member);
	}
	seg->missing &= ~(1u << shard);
	if (proven)
		seg->info.read_back |= 1u << shard;
	else
		seg->info.read_back &= ~(1u << shard);
	sop_unlock(&s->lock);
	sop_shard_files_put(s, 1u << shard, chain);
	sop_segment_put(s, seg);
}

static void end(struct mend *m, bool written)
{
	struct sop_segments *s = m->s;
	bool again;

	sop_lock(&s->lock);
	m->seg->mending = NULL;
	sop_unlock(&s->lock);
	/* Holes punched meanwhile, in what was written over them. */
	again = written && m->punched.n;
	if (again)
		(void)sop_segments_punch(s, m->info.id, m->punched.hole, m->punched.n, NULL);
	SOP_EACH_BIT(i, m->want)
	if (m->target[i])
		m->target[i]->ops->file_close(m->target[i]);
	sop_shard_files_put(s, sop_segment_all(m->seg), m->file);
	let_go_of_reads(m);
	sop_batch_put(m->output);
	free(m->run);
	free(m->writing.run);
	free(m->gap);
	free(m->punched.hole);
}

int sop_segment_mend(struct sop_segments *s, uint64_t id, const struct sop_mend_opts *o,
	struct sop_mend_report *r, struct sop_err *e)
{
	struct mend *m = calloc(1, sizeof(*m));
	bool published = false;
	int rc;

	memset(r, 0, sizeof(*r));
	if (!m)
		return sop_fail(e, -ENOMEM, "segment %016" PRIx64, id);
	*m = (struct mend){.s = s, .o = o, .r = r, .want = o->shards};
	rc = sop_segment_get(&m->seg, s, id, e);
	if (rc) {
		free(m);
		return rc;
	}
	m->k = m->seg->info.k;
	m->n = m->seg->n;
	begin(m);
	SOP_EACH_BIT(i, o->to ? m->want : 0)
	if (o->to[i] != m->info.disks[i])
		m->moved |= 1u << i;
	sop_iopool_bulk_begin(s->io);
	rc = open_sources(m, e);
	if (!rc)
		rc = open_targets(m, e);
	if (!rc)
		rc = walk_all(m, e);
	/* Nothing is known to be lost for good while a disk is missing that may have it. */
	if (!rc && m->want && r->lost && m->missing && !o->ignore_lost)
		rc = sop_fail(e, SOP_EDISKS,
			"segment %016" PRIx64 ": some of it can only be read with the disks that "
			"are missing",
			id);
	if (!rc && m->want)
		rc = settle(m, e);
	if (!rc && m->want)
		published = publish(m);
	end(m, published);
	sop_iopool_bulk_end(s->io);
	/* Removed meanwhile: its files went by the old places. */
	if (!rc && m->want && !published)
		(void)sop_segment_unlink(s, id, NULL, NULL);
	sop_segment_put(s, m->seg);
	free(m);
	return rc;
}
