/* Journal, checkpoint and registry as they are on each disk that should have them.
 *
 * One whole copy is enough for a volume to work, so damage here shows nowhere else until the last
 * copy goes. A crash leaves differences that are no damage: an end of the journal that some disks
 * have and others not, blocks of the registry that the flips of the checkpoint are about to write.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/fsck_own.h"
#include "core/registry_block.h"

#define TRIES 3 /* of a block that may just be being written */

struct reps {
	const struct sop_fsck_opts *o;
	struct found_list *l;
	struct replica_look *look;
	struct sop_members *mem;
	struct sop_iopool *io;
	unsigned idx[SOP_MEMBERS_MAX], n;
	struct sop_checkpoint c;
	bool have;
	struct flip_set flips;
	struct sop_err *e;
};

static const char *disk_name(const struct reps *r, unsigned i)
{
	struct sop_disk *d = sop_members_disk(r->mem, r->idx[i]);

	return d ? d->name : "?";
}

/* ---- checkpoint ---- */

static int checkpoints(struct reps *r)
{
	struct sop_checkpoint one[SOP_MEMBERS_MAX] = {{0}};
	int rc[SOP_MEMBERS_MAX];
	char object[SOP_MEMBER_PATH + 16];
	unsigned best = 0;

	for (unsigned i = 0; i < r->n; i++) {
		struct sop_err why = {0};

		rc[i] = sop_checkpoint_load_one(&one[i], r->mem, r->idx[i], &why);
		if (rc[i] == SOP_EVERSION || rc[i] == -ENOMEM) {
			for (unsigned k = 0; k < i; k++)
				sop_checkpoint_release(&one[k]);
			return sop_say(r->e, rc[i], "%s", why.text);
		}
		if (!rc[i] && (!r->have || sop_checkpoint_newer(&one[i], &one[best]))) {
			best = i;
			r->have = true;
		}
	}
	for (unsigned i = 0; i < r->n; i++) {
		snprintf(object, sizeof(object), "%s/%s", disk_name(r, i), SOP_PATH_CHECKPOINT);
		if (rc[i])
			sop_found_say(r->l, SOP_FOUND_FIXABLE, object, "", "%s%s",
				rc[i] == -ENOENT      ? "is missing"
				: rc[i] == -ETIMEDOUT ? "the disk does not answer"
				: rc[i] == -EIO	      ? "cannot be read"
						      : "does not verify",
				r->have ? "; another disk has it whole" : "");
		else if (i != best && sop_checkpoint_newer(&one[best], &one[i]))
			sop_found_say(r->l, SOP_FOUND_FIXABLE, object, "",
				"is older than on %s (LSN %" PRIu64 ", there %" PRIu64 ")",
				disk_name(r, best), one[i].lsn, one[best].lsn);
	}
	for (unsigned i = 0; i < r->n; i++)
		if (r->have && i == best)
			r->c = one[i];
		else
			sop_checkpoint_release(&one[i]);
	r->look->no_checkpoint = !r->have;
	return 0;
}

/* ---- journal ---- */

static void journals(struct reps *r)
{
	struct sop_journal_end end[SOP_MEMBERS_MAX];
	uint64_t off[SOP_MEMBERS_MAX], far = 0, barrier = r->c.lsn;
	bool ok[SOP_MEMBERS_MAX], found = false;

	for (unsigned i = 0; i < r->n; i++) {
		ok[i] = !sop_journal_reach(r->mem, r->idx[i], r->c.journal, r->c.lsn, r->c.chain,
			&end[i], &off[i], NULL);
		if (!ok[i])
			continue;
		found |= off[i] != 0;
		far = SOP_MAX(far, end[i].lsn);
		barrier = SOP_MAX(barrier, end[i].barrier_lsn);
	}
	for (unsigned i = 0; i < r->n; i++) {
		char object[SOP_MEMBER_PATH + 48];
		struct sop_finding f = {.object = object, .next = "", .len = 0};
		char what[256];

		snprintf(object, sizeof(object), "%s/%s/%016" PRIx64, disk_name(r, i),
			SOP_PATH_JOURNAL, ok[i] ? end[i].number : r->c.journal);
		f.what = what;
		if (!ok[i]) {
			f.state = SOP_FOUND_FIXABLE;
			snprintf(what, sizeof(what), "cannot be read");
		} else if (end[i].lsn < barrier) {
			/* Other disks make up for what it lacks, unless all lack it. */
			f.state = far >= barrier ? SOP_FOUND_FIXABLE : SOP_FOUND_NOTE;
			f.off = off[i];
			f.len = off[i] ? 1 : 0;
			snprintf(what, sizeof(what),
				"the journal is missing or does not verify behind LSN %" PRIu64
				", and LSN %" PRIu64 " was on the media%s",
				end[i].lsn, barrier, far >= barrier ? "; another disk has it" : "");
		} else if (!off[i] && !r->c.clean && r->c.master_root) {
			/* It was on the media before the checkpoint was published. */
			f.state = SOP_FOUND_FIXABLE;
			snprintf(what, sizeof(what),
				"the file that goes on from the checkpoint is missing, or its "
				"header does not verify; another disk has it");
			if (!found)
				continue; /* opening the volume tells it */
		} else if (end[i].lsn < far) {
			f.state = SOP_FOUND_NOTE;
			snprintf(what, sizeof(what),
				"the journal ends at LSN %" PRIu64 ", elsewhere at %" PRIu64
				": what a crash leaves",
				end[i].lsn, far);
		} else {
			continue;
		}
		sop_found_add(r->l, &f, true);
	}
	if (far > r->c.lsn)
		r->look->clean = false;
}

/* ---- registry ---- */

static int by_number(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

int sop_flip_set(struct flip_set *s, const struct sop_checkpoint *c, struct sop_err *e)
{
	size_t n = 0;

	s->handle = malloc((c->n_flips + 1) * sizeof(*s->handle));
	if (!s->handle)
		return sop_fail(e, -ENOMEM, "check");
	for (size_t i = 0; i < c->n_flips; i++)
		s->handle[i] = c->flips[i].handle;
	qsort(s->handle, c->n_flips, sizeof(*s->handle), by_number);
	for (size_t i = 0; i < c->n_flips; i++)
		if (!n || s->handle[n - 1] != s->handle[i])
			s->handle[n++] = s->handle[i];
	s->n = n;
	return 0;
}

static size_t count_in(const struct flip_set *s, uint64_t first)
{
	size_t low = 0, high = s->n, n = 0;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->handle[mid] < first)
			low = mid + 1;
		else
			high = mid;
	}
	while (low + n < s->n && s->handle[low + n] < first + SOP_REGISTRY_SLOTS)
		n++;
	return n;
}

bool sop_flip_touches(const struct flip_set *s, uint64_t first)
{
	return count_in(s, first) > 0;
}

bool sop_flip_older(const struct flip_set *s, uint64_t first, uint64_t next_handle)
{
	uint64_t end = SOP_MIN(first + SOP_REGISTRY_SLOTS, next_handle);

	first = SOP_MAX(first, (uint64_t)1); /* there is no handle 0 */
	return end > first &&
	       count_in(s, first / SOP_REGISTRY_SLOTS * SOP_REGISTRY_SLOTS) < end - first;
}

struct block_state {
	enum sop_regstate state[SOP_MEMBERS_MAX];
	uint32_t seq[SOP_MEMBERS_MAX], best;
	int rc[SOP_MEMBERS_MAX];
	unsigned empty, doubtful;
	bool differ, whole;
};

static void look_at(
	struct reps *r, struct sop_regblocks *b, struct sop_regplace at, struct block_state *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < r->n; i++) {
		s->rc[i] = sop_regblocks_examine(b, at, r->idx[i], &s->state[i], &s->seq[i], NULL);
		s->empty += !s->rc[i] && s->state[i] == SOP_REG_EMPTY;
		s->doubtful += !s->rc[i] && s->state[i] == SOP_REG_DOUBTFUL;
		if (s->rc[i] || s->state[i] != SOP_REG_WHOLE)
			continue;
		s->whole = true;
		s->best = SOP_MAX(s->best, s->seq[i]);
	}
	for (unsigned i = 0; i < r->n; i++)
		s->differ |= s->rc[i] || s->state[i] == SOP_REG_BAD ||
			     s->state[i] == SOP_REG_DOUBTFUL ||
			     (s->whole && (s->state[i] != SOP_REG_WHOLE || s->seq[i] != s->best));
}

static void registry_block(
	struct reps *r, struct sop_regblocks *b, struct sop_regplace at, uint64_t first)
{
	struct block_state s;
	bool lost, older;

	for (unsigned i = 0; i < TRIES; i++) {
		look_at(r, b, at, &s);
		if (!s.differ &&
			!(s.empty == r->n && sop_flip_older(&r->flips, first, r->c.next_handle)))
			return;
	}
	older = sop_flip_older(&r->flips, first, r->c.next_handle);
	lost = !s.whole;
	/* About to be written anew at mount, from the newest that verifies, or from nothing where
	 * the flips name all of it. */
	if (sop_flip_touches(&r->flips, first) && !s.whole &&
		(s.doubtful || (s.empty == r->n && !older)))
		return;
	r->look->registry_lost |= lost;
	for (unsigned i = 0; i < r->n; i++) {
		char object[SOP_MEMBER_PATH + 32];
		struct sop_finding f = {.object = object, .next = ""};
		char what[256];
		const char *trouble = s.rc[i]			       ? "cannot be read"
				      : s.state[i] == SOP_REG_EMPTY    ? "is missing"
				      : s.state[i] == SOP_REG_WHOLE    ? "is an older version"
				      : s.state[i] == SOP_REG_DOUBTFUL ? "does not verify in part"
								       : "does not verify";

		if (!s.rc[i] && s.state[i] == SOP_REG_WHOLE && s.seq[i] == s.best)
			continue;
		snprintf(object, sizeof(object), "%s/%s/%08x", disk_name(r, i), SOP_PATH_REGISTRY,
			at.file);
		snprintf(what, sizeof(what),
			"registry block %u (handles %" PRIu64 " to %" PRIu64 ") %s; %s", at.block,
			first, first + SOP_REGISTRY_SLOTS - 1, trouble,
			lost ? "it is whole nowhere, and can be made anew from the tree nodes"
			     : "another disk has it");
		f.what = what;
		f.state = SOP_FOUND_FIXABLE;
		f.off = (uint64_t)at.block * SOP_REGISTRY_PAIR;
		f.len = SOP_REGISTRY_PAIR;
		sop_found_add(r->l, &f, true);
	}
}

static int registries(struct reps *r)
{
	uint32_t hashmod = sop_members_label(r->mem)->hashmod;
	uint64_t blocks = r->c.next_handle / SOP_REGISTRY_SLOTS + 1;
	struct sop_regblocks *b;
	int rc = sop_regblocks_new(&b, r->mem, r->io, hashmod, r->e);

	if (rc)
		return rc;
	for (uint64_t i = 0; i < blocks && !rc; i++) {
		if (r->o->stop && r->o->stop(r->o->ctx))
			rc = sop_fail(r->e, -ECANCELED, "check");
		if (r->o->progress && i % 256 == 0)
			r->o->progress(r->o->ctx, "checking the registry", i, blocks);
		registry_block(r, b,
			(struct sop_regplace){(uint32_t)(i / hashmod), (uint32_t)(i % hashmod)},
			i * SOP_REGISTRY_SLOTS);
	}
	sop_regblocks_free(b);
	return rc;
}

static void no_replica(struct reps *r)
{
	if (r->n)
		return;
	r->look->no_checkpoint = true;
	sop_found_say(r->l, SOP_FOUND_HELP, "(registry)",
		"bring back one of the disks that hold it",
		"no disk that is here holds a current copy of journal and registry");
}

int sop_fsck_replicas(const char *const *paths, size_t n, const struct sop_fsck_opts *o,
	struct found_list *l, struct replica_look *out, struct sop_err *e)
{
	const struct sop_members_opts mo = {.read_only = true,
		.no_lock = true,
		.degraded = true,
		.disk_timeout_ms = o->disk_timeout_ms,
		.open_disk = o->open_disk,
		.open_disk_ctx = o->open_disk_ctx};
	struct reps r = {.o = o, .l = l, .look = out, .e = e};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = sop_members_open(&r.mem, paths, n, &mo, e);
	if (rc)
		return rc;
	r.n = sop_members_replicas(r.mem, r.idx);
	rc = o->open_disk
		     ? sop_iopool_new_inline(&r.io, e)
		     : sop_iopool_new(&r.io,
			       &(struct sop_iopool_opts){.disks = sop_members_count(r.mem)}, e);
	if (!rc)
		rc = checkpoints(&r);
	if (!rc)
		no_replica(&r);
	if (!rc && r.have) {
		out->clean = r.c.clean;
		out->epoch = r.c.epoch;
		out->lsn = r.c.lsn;
		journals(&r);
		rc = sop_flip_set(&r.flips, &r.c, e);
		if (!rc)
			rc = registries(&r);
	}
	free(r.flips.handle);
	sop_checkpoint_release(&r.c);
	sop_iopool_free(r.io, o->disk_timeout_ms ? o->disk_timeout_ms : 1000);
	sop_members_close(r.mem);
	return rc;
}
