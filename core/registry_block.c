/* Blocks of the registry on all its replicas. See registry_block.h for how a block is stored.
 *
 * How reading fails: a replica that does not answer soon is passed over while another one may have
 * the block, and asked again with the full bound when none has. A read error, or a place that does
 * not verify, is counted with its member. One that gave an error is asked once more when no other
 * is sure; as long as it counts and cannot be read, nobody else's doubt is settled. How writing
 * fails: a replica that could not be written or synced is reported, which sets it aside before this
 * returns; the others go on.
 *
 * A file has its full length from the start (a hole where nothing was written), so reads meet no
 * end. A crash may leave it shorter: what is behind the end then was never synced, and reads as
 * zeros. */
#include "core/registry_files.h"

#include "core/ec.h"
#include "core/errand.h"

#define SOON_MS 250  /* how long to wait for one replica while others can be asked */
#define BULK_MS 5000 /* the same for many blocks at once */
#define SHUN_MS 5000 /* how long one that came late is not asked while others answer */

/* ---- the codec of a block ---- */

/* The sequence number of a block in memory. */
static uint32_t get_seq(const void *raw)
{
	struct le32 seq;

	memcpy(&seq, (const uint8_t *)raw + offsetof(struct sop_disk_registry_block, seq),
		sizeof(seq));
	return le32_get(seq);
}

static void set_seq(void *raw, uint32_t seq)
{
	struct le32 v = le32_make(seq);

	memcpy((uint8_t *)raw + offsetof(struct sop_disk_registry_block, seq), &v, sizeof(v));
}

static uint32_t block_crc(const void *raw)
{
	return sop_crc32c_own(
		raw, SOP_REGISTRY_BLOCK, offsetof(struct sop_disk_registry_block, crc));
}

static bool is_zero(const void *raw)
{
	const uint8_t *p = raw;

	return !p[0] && memcmp(p, p + 1, SOP_REGISTRY_BLOCK - 1) == 0;
}

int sop_registry_block_check(const void *raw, const struct sop_uuid *volume, uint32_t file,
	uint32_t block, struct sop_err *e)
{
	struct sop_disk_registry_block h;
	const size_t head = offsetof(struct sop_disk_registry_block, slot);

	memcpy(&h, raw, head);
	if (!le32_get(h.magic) && is_zero(raw))
		return 0;
	if (le32_get(h.magic) != SOP_REGISTRY_MAGIC)
		return sop_fail(e, SOP_ECORRUPT, "registry %08x block %u: magic", file, block);
	if (le32_get(h.crc) != block_crc(raw))
		return sop_fail(e, SOP_ECORRUPT, "registry %08x block %u: checksum", file, block);
	if (memcmp(h.volume_uuid, volume->b, sizeof(h.volume_uuid)))
		return sop_fail(
			e, SOP_ECORRUPT, "registry %08x block %u: of another volume", file, block);
	if (le32_get(h.file) != file || le32_get(h.block) != block)
		return sop_fail(e, SOP_ECORRUPT, "registry %08x block %u: is block %u of %08x",
			file, block, le32_get(h.block), le32_get(h.file));
	return 0;
}

struct pair {
	enum sop_regstate state;
	int best;     /* the place that counts, -1: none */
	uint32_t seq; /* of what is there */
};

static struct pair pair_examine(
	const struct sop_uuid *volume, struct sop_regplace at, const uint8_t *raw)
{
	struct pair p = {.best = -1};
	bool zero[2], good[2];
	uint32_t seq[2] = {0, 0};

	for (uint32_t i = 0; i < 2; i++) {
		const uint8_t *one = raw + i * SOP_REGISTRY_BLOCK;

		zero[i] = is_zero(one);
		good[i] =
			!zero[i] && !sop_registry_block_check(one, volume, at.file, at.block, NULL);
		if (good[i])
			seq[i] = get_seq(one);
		good[i] = good[i] && seq[i] % 2 == i && seq[i];
		if (good[i] && (p.best < 0 || seq[i] > p.seq)) {
			p.best = (int)i;
			p.seq = seq[i];
		}
	}
	if (zero[0] && zero[1])
		p.state = SOP_REG_EMPTY;
	else if (p.best < 0)
		p.state = SOP_REG_BAD;
	else if (good[0] && good[1])
		p.state = seq[0] + 1 == seq[1] || seq[1] + 1 == seq[0] ? SOP_REG_WHOLE
								       : SOP_REG_DOUBTFUL;
	else
		p.state = p.seq == 1 && zero[0] ? SOP_REG_WHOLE : SOP_REG_DOUBTFUL;
	return p;
}

int sop_regpair_pick(const struct sop_uuid *volume, struct sop_regplace at,
	const uint8_t *const *pair, unsigned n, bool *whole)
{
	uint32_t seq = 0;
	int best = -1;

	*whole = false;
	for (unsigned i = 0; i < n; i++) {
		struct pair p = pair_examine(volume, at, pair[i]);
		bool better = best < 0 || p.seq > seq;

		if (p.state == SOP_REG_EMPTY)
			continue;
		if (p.state == SOP_REG_WHOLE ? *whole && !better : *whole || !better)
			continue;
		*whole = p.state == SOP_REG_WHOLE;
		seq = p.seq;
		best = (int)i;
	}
	return best;
}

/* Right after a crash: could the first write to this block have been cut? Then it was empty before.
 */
static bool first_write_cut(const uint8_t *raw)
{
	return is_zero(raw);
}

/* ---- reading ---- */

/* Read one pair on one replica. A file or place that is not there reads as zeros. */
static int read_pair(struct sop_regblocks *b, unsigned member, struct sop_regplace at,
	unsigned timeout_ms, uint8_t *raw)
{
	struct iovec iov = {raw, SOP_REGISTRY_PAIR};
	struct sop_batch *batch;
	struct sop_regfile *r;
	ssize_t got;
	void *buf;
	int rc = sop_regfile_get(b, member, at.file, false, &r);

	memset(raw, 0, SOP_REGISTRY_PAIR);
	if (rc == -ENOENT)
		return 0;
	if (rc)
		return rc;
	if (sop_regplace_offset(at) >= r->size)
		return 0;
	iov.iov_len = SOP_MIN(r->size - sop_regplace_offset(at), (uint64_t)SOP_REGISTRY_PAIR);
	got = r->f->ops->preadv_cached(r->f, &iov, 1, sop_regplace_offset(at));
	if (got >= 0 && (size_t)got == iov.iov_len)
		return 0;
	batch = sop_batch_new(b->io);
	buf = batch ? sop_batch_alloc(batch, iov.iov_len) : NULL;
	iov.iov_base = buf;
	rc = buf ? sop_batch_add(batch, SOP_IO_READ, r->f, &iov, 1, sop_regplace_offset(at))
		 : -ENOMEM;
	if (rc >= 0) {
		sop_batch_run(batch, SOP_IO_PARALLEL, 0, timeout_ms);
		rc = sop_batch_result(batch, rc);
	}
	if (!rc)
		memcpy(raw, buf, iov.iov_len);
	else
		memset(raw, 0, SOP_REGISTRY_PAIR);
	sop_batch_put(batch);
	return rc;
}

/* Current replicas, the one that answered last time first. */
static unsigned replicas(struct sop_regblocks *b, unsigned *idx)
{
	unsigned n = sop_members_replicas(b->mem, idx);
	unsigned prefer;

	sop_lock(&b->lock);
	prefer = b->prefer;
	sop_unlock(&b->lock);
	for (unsigned i = 1; i < n; i++)
		if (idx[i] == prefer) {
			idx[i] = idx[0];
			idx[0] = prefer;
		}
	return n;
}

static void prefer(struct sop_regblocks *b, unsigned member)
{
	sop_lock(&b->lock);
	b->prefer = member;
	sop_unlock(&b->lock);
}

static uint64_t now_ms(const struct sop_regblocks *b)
{
	const struct sop_clock *clock = sop_members_clock(b->mem);

	return clock->monotonic_ms(clock->ctx);
}

static void shun(struct sop_regblocks *b, unsigned member)
{
	uint64_t until = now_ms(b) + SHUN_MS;

	sop_lock(&b->lock);
	b->shun_until[member] = until;
	sop_unlock(&b->lock);
}

static bool shunned(struct sop_regblocks *b, unsigned member)
{
	bool late;

	sop_lock(&b->lock);
	late = b->shun_until[member] && now_ms(b) < b->shun_until[member];
	sop_unlock(&b->lock);
	return late;
}

/* What the replicas have said about one block. */
struct verdict {
	unsigned asked, empty, failed, wrong;
	bool whole;    /* raw is right, as far as those asked know */
	uint32_t seq;  /* whole: its version */
	uint32_t best; /* highest sequence number in doubt; raw has that version */
	bool cut;      /* some replica may have been cut in the block's first write */
};

static void judge(struct sop_regblocks *b, struct verdict *v, struct sop_regplace at,
	unsigned member, const uint8_t *pair, uint8_t *raw)
{
	struct pair p = pair_examine(&b->volume, at, pair);

	v->asked++;
	switch (p.state) {
	case SOP_REG_EMPTY:
		v->empty++;
		return;
	case SOP_REG_WHOLE:
		/* One has lost a write, or has been put back; or they are being written. */
		v->wrong += v->whole && p.seq != v->seq;
		if (v->whole && p.seq <= v->seq)
			return;
		v->whole = true;
		v->seq = p.seq;
		break;
	case SOP_REG_DOUBTFUL:
	case SOP_REG_BAD:
		v->wrong++;
		v->cut |= first_write_cut(pair);
		sop_members_event(b->mem, member, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
		if (v->whole || p.state == SOP_REG_BAD || p.seq <= v->best)
			return;
		v->best = p.seq;
		break;
	}
	memcpy(raw, pair + (size_t)p.best * SOP_REGISTRY_BLOCK, SOP_REGISTRY_BLOCK);
}

static int conclude(const struct verdict *v, struct sop_regplace at, bool lenient, uint8_t *raw,
	struct sop_err *e)
{
	if (v->whole)
		return 0;
	if (v->wrong && v->failed)
		return sop_say(e, -EIO,
			"registry %08x block %u: not whole on one replica, and another one cannot "
			"be read: try again, or without the disk that gives errors",
			at.file, at.block);
	if (lenient && v->best)
		return 0;
	if ((v->empty && !v->wrong) || (lenient && v->wrong && v->cut)) {
		memset(raw, 0, SOP_REGISTRY_BLOCK);
		return 0;
	}
	return sop_fail(
		e, v->wrong ? SOP_ELOST : -EIO, "registry %08x block %u", at.file, at.block);
}

/* Some replica is not as it should be. */
static bool is_damaged(const struct verdict *v)
{
	return v->wrong || (v->whole && v->empty);
}

static int ask(struct sop_regblocks *b, struct verdict *out, struct sop_regplace at, void *raw,
	struct sop_err *e)
{
	uint8_t pair[SOP_REGISTRY_PAIR];
	unsigned idx[SOP_MEMBERS_MAX], late[SOP_MEMBERS_MAX], again[SOP_MEMBERS_MAX];
	unsigned n = replicas(b, idx), n_late = 0, n_again = 0;
	unsigned full_ms = sop_members_timeout_ms(b->mem);
	struct verdict v = {0};

	/* All are asked: one that has lost a write, or has been put back, is whole and old. */
	for (unsigned i = 0; i < n; i++) {
		unsigned ms = n > 1 ? SOP_MIN(full_ms, (unsigned)SOON_MS) : full_ms;
		bool first = !v.whole;
		int rc;

		if (n > 1 && shunned(b, idx[i])) {
			late[n_late++] = idx[i];
			continue;
		}
		rc = read_pair(b, idx[i], at, ms, pair);
		if (!rc) {
			judge(b, &v, at, idx[i], pair, raw);
			if (v.whole && first && i)
				prefer(b, idx[i]);
		} else if (rc == -ETIMEDOUT && ms < full_ms) {
			shun(b, idx[i]);
			late[n_late++] = idx[i];
		} else if (rc == -ENOMEM) {
			return sop_fail(e, rc, "registry %08x block %u", at.file, at.block);
		} else {
			sop_members_event(b->mem, idx[i], SOP_EVENT_READ, rc);
			again[n_again++] = idx[i];
		}
	}
	for (unsigned i = 0; i < n_late && !v.whole; i++) {
		int rc = read_pair(b, late[i], at, full_ms, pair);

		if (!rc) {
			judge(b, &v, at, late[i], pair, raw);
		} else {
			sop_members_event(b->mem, late[i], SOP_EVENT_READ, rc);
			again[n_again++] = late[i];
		}
	}
	for (unsigned i = 0; i < n_again && !v.whole; i++) {
		int rc;

		if (!sop_members_disk(b->mem, again[i])) /* set aside: it does not count now */
			continue;
		rc = read_pair(b, again[i], at, full_ms, pair);
		if (!rc)
			judge(b, &v, at, again[i], pair, raw);
		else if (rc == -ENOMEM)
			return sop_fail(e, rc, "registry %08x block %u", at.file, at.block);
		else
			v.failed++;
	}
	*out = v;
	return 0;
}

int sop_regblocks_read(struct sop_regblocks *b, struct sop_regplace at, bool lenient, void *raw,
	bool *damaged, struct sop_err *e)
{
	struct verdict v;
	int rc = ask(b, &v, at, raw, e);

	if (rc)
		return rc;
	*damaged = is_damaged(&v);
	return conclude(&v, at, lenient, raw, e);
}

/* The same, and it is made right on all. lenient: where one is in doubt and another knows better,
 * that has to succeed (as a read, it is tried twice): the one that knows may be set aside before
 * the block is read again. */
static int read_repaired(struct sop_regblocks *b, struct sop_regplace at, bool lenient, void *raw,
	bool *wrote, struct sop_err *e)
{
	struct verdict v;
	bool known;
	int rc = ask(b, &v, at, raw, e);

	if (!rc)
		rc = conclude(&v, at, lenient, raw, e);
	if (rc || !is_damaged(&v))
		return rc;
	known = v.whole;
	for (unsigned i = 0; i < 2; i++) {
		unsigned idx[SOP_MEMBERS_MAX];

		(void)sop_regblocks_repair(
			b, at, lenient ? SOP_REPAIR_CUT : SOP_REPAIR_MET, wrote, NULL);
		if (!lenient || !known)
			return 0;
		rc = ask(b, &v, at, raw, e);
		if (rc)
			return rc;
		if (v.whole && !is_damaged(&v) && v.asked >= sop_members_replicas(b->mem, idx))
			return 0;
	}
	return sop_say(e, -EIO,
		"registry %08x block %u: cannot be made the same on all replicas: try again, or "
		"without the disk that gives errors",
		at.file, at.block);
}

/* Pairs of one replica in one batch. */
struct bulk {
	struct sop_batch *batch;
	uint8_t **buf; /* in the batch; NULL: nothing asked, or no answer */
	int *index;
};

static int bulk_new(struct bulk *k, struct sop_iopool *io, size_t n)
{
	k->batch = sop_batch_new(io);
	k->buf = calloc(n, sizeof(*k->buf));
	k->index = calloc(n, sizeof(*k->index));
	return k->batch && k->buf && k->index ? 0 : -ENOMEM;
}

static void bulk_release(struct bulk *k)
{
	sop_batch_put(k->batch);
	free(k->buf);
	free(k->index);
}

static void bulk_ask(
	struct sop_regblocks *b, struct bulk *k, unsigned member, struct sop_regplace at, size_t i)
{
	struct iovec iov = {NULL, SOP_REGISTRY_PAIR};
	struct sop_regfile *r;

	if (sop_regfile_get(b, member, at.file, false, &r) ||
		sop_regplace_offset(at) + SOP_REGISTRY_PAIR > r->size)
		return;
	k->buf[i] = sop_batch_alloc(k->batch, SOP_REGISTRY_PAIR);
	iov.iov_base = k->buf[i];
	if (k->buf[i])
		k->index[i] = sop_batch_add(
			k->batch, SOP_IO_READ, r->f, &iov, 1, sop_regplace_offset(at));
	if (k->index[i] < 0)
		k->buf[i] = NULL;
}

static int bulk_read(struct sop_regblocks *b, struct bulk *k, unsigned member,
	const struct sop_regplace *at, size_t n, void *const *raw, unsigned timeout_ms)
{
	int rc = bulk_new(k, b->io, n);

	for (size_t i = 0; !rc && i < n; i++)
		if (raw[i])
			bulk_ask(b, k, member, at[i], i);
	if (!rc)
		sop_batch_run(k->batch, SOP_IO_PARALLEL, 0, timeout_ms);
	for (size_t i = 0; !rc && i < n; i++)
		if (k->buf[i] && sop_batch_result(k->batch, k->index[i]))
			k->buf[i] = NULL;
	return rc;
}

/* The block is whole, and the same version, on every replica. */
static bool bulk_agrees(const struct sop_regblocks *b, const struct bulk *k, unsigned replicas,
	struct sop_regplace at, size_t i, void *raw)
{
	uint32_t seq = 0;

	for (unsigned m = 0; m < replicas; m++) {
		struct pair p = {.state = SOP_REG_BAD};

		if (k[m].buf && k[m].buf[i])
			p = pair_examine(&b->volume, at, k[m].buf[i]);
		if (p.state != SOP_REG_WHOLE || (m && p.seq != seq))
			return false;
		seq = p.seq;
		if (!m)
			memcpy(raw, k[m].buf[i] + (size_t)p.best * SOP_REGISTRY_BLOCK,
				SOP_REGISTRY_BLOCK);
	}
	return replicas > 0;
}

int sop_regblocks_read_many(struct sop_regblocks *b, const struct sop_regplace *at, size_t n,
	bool lenient, void *const *raw, bool *wrote, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX];
	unsigned members = replicas(b, idx), full_ms = sop_members_timeout_ms(b->mem);
	struct bulk *k = calloc(members ? members : 1, sizeof(*k));
	int rc = k ? 0 : -ENOMEM;

	for (unsigned m = 0; !rc && m < members; m++)
		if (!m || !shunned(b, idx[m]))
			rc = bulk_read(b, &k[m], idx[m], at, n, raw,
				m ? SOP_MIN(full_ms, (unsigned)BULK_MS) : full_ms);
	for (size_t i = 0; !rc && i < n; i++) {
		if (!raw[i] || bulk_agrees(b, k, members, at[i], i, raw[i]))
			continue;
		/* What they do not agree on is looked at one by one, and made the same on all: the
		 * version to come takes the place of the one before the last, which a replica that
		 * is behind has not got past. */
		rc = read_repaired(b, at[i], lenient, raw[i], wrote, e);
	}
	if (rc == -ENOMEM)
		rc = sop_fail(e, rc, "registry blocks");
	for (unsigned m = 0; k && m < members; m++)
		bulk_release(&k[m]);
	free(k);
	return rc;
}

int sop_regblocks_examine(struct sop_regblocks *b, struct sop_regplace at, unsigned member,
	enum sop_regstate *state, uint32_t *seq, struct sop_err *e)
{
	uint8_t pair[SOP_REGISTRY_PAIR];
	struct pair p;
	int rc = read_pair(b, member, at, sop_members_timeout_ms(b->mem), pair);

	if (rc)
		return sop_fail(e, rc, "registry %08x block %u", at.file, at.block);
	p = pair_examine(&b->volume, at, pair);
	*state = p.state;
	*seq = p.seq;
	return 0;
}

int sop_regblocks_reset(struct sop_regblocks *b, struct sop_regplace at, struct sop_err *e)
{
	static const uint8_t zeros[SOP_REGISTRY_PAIR];
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(b->mem, idx);
	struct iovec iov = {(void *)(uintptr_t)zeros, sizeof(zeros)};
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++) {
		struct sop_batch *batch = sop_batch_new(b->io);
		struct sop_regfile *r;

		rc = batch ? sop_regfile_get(b, idx[i], at.file, true, &r) : -ENOMEM;
		if (!rc) {
			r->unsynced = true;
			rc = sop_batch_add(
				batch, SOP_IO_WRITE, r->f, &iov, 1, sop_regplace_offset(at));
		}
		if (rc >= 0) {
			sop_batch_run(batch, SOP_IO_SERIAL, 0, sop_members_timeout_ms(b->mem));
			rc = sop_batch_result(batch, rc);
		}
		sop_batch_put(batch);
	}
	return rc ? sop_fail(e, rc, "registry %08x block %u", at.file, at.block) : 0;
}

unsigned sop_regblocks_repair(struct sop_regblocks *b, struct sop_regplace at,
	enum sop_regrepair why, bool *wrote, unsigned *mended)
{
	uint8_t pair[SOP_REGISTRY_PAIR];
	unsigned idx[SOP_MEMBERS_MAX], wrong[SOP_MEMBERS_MAX];
	unsigned n = sop_members_replicas(b->mem, idx), n_wrong = 0, ms;
	struct sop_batch *batch = sop_batch_new(b->io);
	uint8_t *good = batch ? sop_batch_alloc(batch, SOP_REGISTRY_PAIR) : NULL;
	struct iovec iov = {good, SOP_REGISTRY_PAIR};
	int index[SOP_MEMBERS_MAX];
	struct pair is[SOP_MEMBERS_MAX] = {{0}};
	bool read[SOP_MEMBERS_MAX] = {false};
	uint32_t seq = 0; /* of the newest that is whole */
	bool found = false, damaged = false, any = false, cut = why == SOP_REPAIR_CUT;
	unsigned left = 0;

	ms = sop_members_timeout_ms(b->mem);
	for (unsigned i = 0; good && i < n; i++) {
		bool patient = why == SOP_REPAIR_SCRUB;
		int rc = read_pair(
			b, idx[i], at, patient ? ms : SOP_MIN(ms, (unsigned)SOON_MS), pair);

		read[i] = !rc;
		if (rc && rc != -ENOMEM && patient)
			sop_members_event(b->mem, idx[i], SOP_EVENT_READ, rc);
		if (rc)
			continue;
		any = true;
		is[i] = pair_examine(&b->volume, at, pair);
		damaged |= is[i].state == SOP_REG_BAD || is[i].state == SOP_REG_DOUBTFUL;
		if (is[i].state != SOP_REG_WHOLE || is[i].seq <= seq)
			continue;
		found = true;
		seq = is[i].seq;
		memcpy(good, pair, sizeof(pair));
	}
	for (unsigned i = 0; i < n; i++) {
		if (!read[i] || (is[i].state == SOP_REG_WHOLE && is[i].seq == seq))
			continue;
		wrong[n_wrong++] = idx[i];
		if (found && !cut && is[i].state == SOP_REG_WHOLE)
			sop_members_event(b->mem, idx[i], SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
	}
	for (unsigned i = 0; found && i < n_wrong; i++) {
		struct sop_regfile *r;

		index[i] = sop_regfile_get(b, wrong[i], at.file, true, &r);
		if (index[i])
			continue;
		r->unsynced = *wrote = true;
		index[i] =
			sop_batch_add(batch, SOP_IO_WRITE, r->f, &iov, 1, sop_regplace_offset(at));
	}
	if (found && n_wrong)
		sop_batch_run(batch, SOP_IO_SERIAL, 0, ms);
	for (unsigned i = 0; found && i < n_wrong; i++) {
		int rc = index[i] < 0 ? index[i] : sop_batch_result(batch, index[i]);

		if (rc && rc != -ENOMEM)
			sop_members_event(b->mem, wrong[i], SOP_EVENT_WRITE, rc);
		left += rc != 0;
		if (mended)
			*mended += !rc;
		sop_log(sop_members_log(b->mem), cut && !rc ? SOP_LOG_INFO : SOP_LOG_WARNING,
			"registry", "op=repair file=%08x block=%u member=%u code=%s: %s", at.file,
			at.block, wrong[i], sop_err_name(rc),
			rc ? "bad copy not repaired" : "bad copy written anew from a replica");
	}
	sop_batch_put(batch);
	return found ? left : damaged || !any;
}

/* ---- writing ---- */

/* A replica missed something: it is set aside. -ENOSPC would only mark it full. */
static void drop_member(struct sop_regblocks *b, struct sop_regwrite *w, unsigned i, int rc)
{
	sop_members_event(
		b->mem, w->member[i], SOP_EVENT_WRITE, rc == -ENOSPC || rc == -EDQUOT ? -EIO : rc);
	w->n--;
	memmove(&w->member[i], &w->member[i + 1], (w->n - i) * sizeof(w->member[0]));
}

static int any_left(const struct sop_regwrite *w, struct sop_err *e)
{
	return w->n ? 0 : sop_fail(e, -EIO, "registry: no replica is left");
}

int sop_regblocks_sync(struct sop_regblocks *b, struct sop_regwrite *w, struct sop_err *e)
{
	struct sop_batch *batch = sop_batch_new(b->io);
	int *index = calloc(w->files * w->n + 1, sizeof(*index));
	struct sop_regfile **file = calloc(w->files * w->n + 1, sizeof(struct sop_regfile *));
	int rc = batch && index && file ? 0 : -ENOMEM;
	size_t at = 0;

	for (unsigned i = 0; !rc && i < w->n; i++)
		for (size_t j = 0; !rc && j < w->files; j++, at++) {
			index[at] = sop_regfile_get(b, w->member[i], w->file[j], true, &file[at]);
			if (index[at] == -ENOMEM)
				rc = -ENOMEM;
			if (index[at] || !file[at]->unsynced) {
				file[at] = NULL;
				continue;
			}
			index[at] = sop_batch_add(batch, SOP_IO_DATASYNC, file[at]->f, NULL, 0, 0);
			if (index[at] < 0)
				rc = index[at];
		}
	if (!rc)
		sop_batch_run(batch, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(b->mem));
	at = w->files * w->n;
	for (unsigned i = w->n; !rc && i--;) {
		int failed = 0;

		at -= w->files;
		for (size_t j = 0; j < w->files; j++) {
			int one = index[at + j];

			if (one >= 0 && file[at + j])
				one = sop_batch_result(batch, one);
			if (!one && file[at + j])
				file[at + j]->unsynced = false;
			if (one < 0 && !failed)
				failed = one;
		}
		if (failed)
			drop_member(b, w, i, failed);
	}
	sop_batch_put(batch);
	free(index);
	free(file);
	return rc ? sop_fail(e, rc, "registry: sync of files") : any_left(w, e);
}

int sop_regblocks_begin(struct sop_regblocks *b, struct sop_regwrite *w, const uint32_t *file,
	size_t files, struct sop_err *e)
{
	w->n = sop_members_replicas(b->mem, w->member);
	w->file = file;
	w->files = files;
	for (unsigned i = w->n; i--;)
		for (size_t j = 0; j < files; j++) {
			struct sop_regfile *r;
			int rc = sop_regfile_get(b, w->member[i], file[j], true, &r);

			if (rc == -ENOMEM)
				return sop_fail(e, rc, "registry file");
			if (rc) {
				drop_member(b, w, i, rc);
				break;
			}
		}
	return w->n ? sop_regblocks_sync(b, w, e) : any_left(w, e);
}

int sop_regblocks_write(struct sop_regblocks *b, struct sop_regwrite *w,
	const struct sop_regplace *at, size_t n, void *const *raw, struct sop_batch *batch,
	struct sop_err *e)
{
	int first[SOP_MEMBERS_MAX];
	int rc = 0;

	for (size_t j = 0; j < n; j++) {
		struct sop_disk_registry_block *h = raw[j];

		h->magic = le32_make(SOP_REGISTRY_MAGIC);
		memcpy(h->volume_uuid, b->volume.b, sizeof(h->volume_uuid));
		h->file = le32_make(at[j].file);
		h->block = le32_make(at[j].block);
		set_seq(h, get_seq(h) + 1);
		h->crc = le32_make(block_crc(h));
	}
	for (unsigned i = 0; i < w->n; i++)
		for (size_t j = 0; j < n; j++) {
			struct iovec iov = {raw[j], SOP_REGISTRY_BLOCK};
			uint64_t off = sop_regplace_offset(at[j]) +
				       (uint64_t)(get_seq(raw[j]) % 2) * SOP_REGISTRY_BLOCK;
			struct sop_regfile *r;

			rc = sop_regfile_get(b, w->member[i], at[j].file, true, &r);
			if (!rc) {
				r->unsynced = true;
				rc = sop_batch_add(batch, SOP_IO_WRITE, r->f, &iov, 1, off);
			}
			if (rc == -ENOMEM)
				return sop_fail(e, rc, "registry: write of blocks");
			if (!j || rc < 0)
				first[i] = rc;
			if (rc < 0)
				break;
		}
	sop_batch_run(batch, SOP_IO_SERIAL, 0, sop_members_timeout_ms(b->mem));
	for (unsigned i = w->n; i--;)
		for (size_t j = 0; j < n; j++) {
			rc = first[i] < 0 ? first[i] : sop_batch_result(batch, first[i] + (int)j);
			if (rc) {
				drop_member(b, w, i, rc);
				break;
			}
		}
	return any_left(w, e);
}

struct dirsync {
	struct sop_errand errand;
	struct sop_disk *disk; /* held until it has run */
	int rc;
};

static void dirsync_run(struct sop_errand *x)
{
	struct dirsync *s = (struct dirsync *)x;

	s->rc = s->disk->ops->syncdir(s->disk, SOP_PATH_REGISTRY);
	sop_disk_close(s->disk);
}

static void dirsync_release(struct sop_errand *x)
{
	free(x);
}

/* The names of new files. */
static int sync_names(struct sop_regblocks *b, struct sop_regwrite *w, unsigned i)
{
	struct sop_disk *d = sop_members_disk(b->mem, w->member[i]);
	struct dirsync *s;
	struct sop_regfile *r;
	bool wanted = false;
	int rc;

	for (size_t j = 0; j < w->files; j++) {
		rc = sop_regfile_get(b, w->member[i], w->file[j], true, &r);
		if (rc)
			return rc;
		wanted |= r->unnamed;
	}
	if (!wanted)
		return 0;
	s = d ? calloc(1, sizeof(*s)) : NULL;
	if (!s)
		return d ? -ENOMEM : -ENODEV;
	sop_errand_init(&s->errand, dirsync_run, dirsync_release);
	s->disk = d;
	sop_disk_get(d);
	sop_errands_run(
		&(struct sop_errand *){&s->errand}, 1, true, sop_members_timeout_ms(b->mem));
	rc = s->errand.finished ? s->rc : -ETIMEDOUT;
	sop_errand_put(&s->errand);
	for (size_t j = 0; !rc && j < w->files; j++)
		if (!sop_regfile_get(b, w->member[i], w->file[j], true, &r))
			r->unnamed = false;
	return rc;
}

int sop_regblocks_end(struct sop_regblocks *b, struct sop_regwrite *w, struct sop_err *e)
{
	int rc = sop_regblocks_sync(b, w, e);

	for (unsigned i = w->n; !rc && i--;) {
		int one = sync_names(b, w, i);

		if (one == -ENOMEM)
			rc = sop_fail(e, one, "registry: sync of names");
		else if (one)
			drop_member(b, w, i, one);
	}
	return rc ? rc : any_left(w, e);
}
