/* Reading the journal back.
 *
 * A walk follows the chain from a file and a checksum on: record after record, file after file. All
 * replicas have the same bytes at the same places, so where one replica's record does not verify,
 * the walk takes another's: damage on one is covered by the others, anywhere, and even different
 * damage on each. Each walk prefers one replica. Where the replicas differ in what they hold at the
 * end (a forgotten append that one of them still has), the walk that comes farthest counts.
 *
 * Then the barriers: what a barrier covers was synced on every replica that is current, so a chain
 * that does not reach there has lost something. The barrier that tells so may lie behind the place
 * where the chain breaks, so what follows the end is searched for barriers too. That gives no false
 * alarm: a barrier's LSN is never above the end of any history that went on from there, so one that
 * lies there from the file's earlier life is below the end of ours. */
#include "core/journal.h"

#include <inttypes.h>

#include "core/journal_file.h"

#define CHUNK_BYTES (1u << 20)

/* One replica. */
struct source {
	unsigned member;
	struct sop_disk *disk;
	bool bad;	       /* does not answer: not used any more */
	bool unreadable;       /* the current file, or the place looked at last */
	struct sop_file *file; /* NULL: has no such file */
	uint64_t size;
	void *buf; /* holds [off, off + len) of file */
	uint64_t off;
	size_t len, cap;
	uint64_t careful; /* up to here reads are small: a large one has failed */
	uint64_t skip;	  /* up to here nothing is read: a small one has failed */
};

struct place {
	uint64_t number, off;
	uint64_t lsn; /* of the last transaction before it */
	uint32_t chain;
	uint64_t epoch, salt; /* of the file */
};

struct replay {
	struct sop_members *mem;
	struct source *src;
	unsigned n;
	unsigned flags;	     /* enum sop_replay_flags */
	unsigned timeout_ms; /* 0: as for any call */
	int (*fn)(void *arg, const struct sop_record_out *r, bool durable);
	void *arg;
};

struct walk {
	struct replay *r;
	unsigned pref; /* index of the preferred source */
	bool apply;    /* call fn, report damage */
	struct place at;
	uint64_t barrier; /* apply: the highest of all; else the highest met */
	uint64_t records, bytes;
	bool damage_told;
};

static unsigned timeout(const struct replay *r)
{
	return r->timeout_ms ? r->timeout_ms : sop_members_timeout_ms(r->mem);
}

/* --- one replica ---------------------------------------------------------------------------------
 */

static void source_close(struct source *s)
{
	if (s->file)
		s->file->ops->file_close(s->file);
	s->file = NULL;
	s->unreadable = false;
	s->len = 0;
	s->careful = s->skip = 0;
}

static void read_failed(struct replay *r, struct source *s, int rc)
{
	s->unreadable = true;
	s->len = 0;
	s->bad = rc == -ETIMEDOUT;
	sop_members_event(r->mem, s->member, SOP_EVENT_READ, rc);
}

/* Trouble of the disk makes the source unreadable; only short memory is an error. */
static int source_open(struct replay *r, struct source *s, uint64_t number)
{
	char path[SOP_JOURNAL_NAME];
	int rc;

	source_close(s);
	if (s->bad) {
		s->unreadable = true;
		return 0;
	}
	sop_journal_path(path, number);
	rc = sop_journal_open(&s->file, &s->size, s->disk, path, SOP_OPEN_READ, timeout(r));
	if (!rc)
		return 0;
	s->file = NULL;
	if (rc == -ENOMEM)
		return rc;
	if (rc != -ENOENT)
		read_failed(r, s, rc);
	return 0;
}

static int make_buffer(struct source *s, size_t want)
{
	if (want <= s->cap)
		return 0;
	free(s->buf);
	s->len = s->cap = 0;
	s->buf = sop_alloc_aligned(want);
	if (!s->buf)
		return -ENOMEM;
	s->cap = want;
	return 0;
}

/* Read [off, off + want) into the buffer. */
static int source_fill(struct replay *r, struct source *s, uint64_t off, size_t want)
{
	ssize_t got;
	int rc;

	rc = make_buffer(s, want);
	if (rc)
		return rc;
	s->len = 0;
	got = sop_journal_read(s->file, &s->buf, want, off, timeout(r));
	if (!s->buf)
		s->cap = 0;
	if (got < 0)
		return (int)got;
	s->unreadable = false;
	s->off = off;
	s->len = (size_t)got;
	return 0;
}

/* Have [off, off + need) in memory, or as much as there is. *p, *avail: the bytes at off. Where a
 * large read fails, small ones find out what is left, so that one bad place on the media does not
 * hide what is around it. */
static int source_get(struct replay *r, struct source *s, uint64_t off, size_t need,
	const uint8_t **p, size_t *avail)
{
	size_t want;
	int rc;

	*avail = 0;
	if (!s->file || s->bad || off >= s->size)
		return 0;
	if (off < s->skip) {
		s->unreadable = true;
		return 0;
	}
	/* The length comes from the disk: no more is asked for than the file has. */
	need = (size_t)SOP_MIN((uint64_t)need, s->size - off);
	if (!(off >= s->off && off - s->off < s->len && s->len - (off - s->off) >= need)) {
		want = (size_t)SOP_MIN((uint64_t)SOP_MAX(need, (size_t)CHUNK_BYTES), s->size - off);
		rc = off < s->careful ? -EIO : source_fill(r, s, off, want);
		if (rc && rc != -ENOMEM && rc != -ETIMEDOUT) {
			s->careful = SOP_MAX(s->careful, off + want);
			rc = source_fill(r, s, off, need);
		}
		if (rc == -ENOMEM)
			return rc;
		if (rc) {
			s->skip = off + SOP_MIN(need, sizeof(struct sop_disk_record));
			read_failed(r, s, rc);
			return 0;
		}
		if (!s->len)
			return 0;
	}
	*p = (const uint8_t *)s->buf + (off - s->off);
	*avail = s->len - (size_t)(off - s->off);
	return 0;
}

/* 1: this source has the record that follows `at`; 0: it does not. */
static int source_record(struct replay *r, struct source *s, const struct place *at,
	struct sop_record_out *out, uint32_t *crc, size_t *len)
{
	size_t need = sizeof(struct sop_disk_record), avail;
	const uint8_t *p = NULL;
	int rc;

	do {
		rc = source_get(r, s, at->off, need, &p, &avail);
		if (rc)
			return rc;
		if (avail < need)
			return 0;
		rc = sop_record_check(p, avail, at->chain, out, crc, &need, NULL);
	} while (rc == -EAGAIN);
	if (rc)
		return 0;
	*len = need;
	/* A mount starts files of its own: what another has written here is of the file's earlier
	 * life, or of an end that was not accepted. */
	if (out->epoch != at->epoch ||
		sop_journal_record_salt((const struct sop_disk_record *)p) != at->salt)
		return 0;
	if (out->type == SOP_RECORD_BARRIER)
		return out->lsn <= at->lsn;
	return out->lsn == at->lsn + 1;
}

/* 1: the source's file has a header that goes on from `at`. */
static int source_header(struct replay *r, struct source *s, const struct place *at,
	uint64_t number, struct sop_journal_header *h)
{
	const struct sop_label *label = sop_members_label(r->mem);
	const uint8_t *p = NULL;
	size_t avail;
	int rc;

	rc = source_get(r, s, 0, SOP_JOURNAL_HEADER, &p, &avail);
	if (rc || avail < SOP_JOURNAL_HEADER)
		return rc;
	if (sop_journal_header_decode(h, p, NULL))
		return 0;
	return h->number == number && sop_uuid_equal(&h->volume, &label->volume_uuid) &&
	       h->first_lsn == at->lsn + 1 && h->chain == at->chain && h->epoch >= at->epoch;
}

/* --- a walk --- */

static struct source *source(struct walk *w, unsigned i)
{
	return &w->r->src[(w->pref + i) % w->r->n];
}

/* 1: went on to the beginning of file `number`; 0: there is none that follows. */
static int walk_file(struct walk *w, uint64_t number)
{
	struct sop_journal_header h = {0};
	int rc, found = 0;

	for (unsigned i = 0; i < w->r->n; i++) {
		rc = source_open(w->r, source(w, i), number);
		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < w->r->n && !found; i++) {
		found = source_header(w->r, source(w, i), &w->at, number, &h);
		if (found < 0)
			return found;
	}
	if (!found)
		return 0;
	w->at.number = number;
	w->at.off = SOP_JOURNAL_HEADER;
	w->at.epoch = h.epoch;
	w->at.salt = h.salt;
	return 1;
}

/* 1: *out is the next record in this file; 0: nobody has one. */
static int walk_record(struct walk *w, struct sop_record_out *out, uint32_t *crc, size_t *len)
{
	int rc = 0;

	for (unsigned i = 0; i < w->r->n; i++) {
		rc = source_record(w->r, source(w, i), &w->at, out, crc, len);
		if (!rc)
			continue;
		/* What is on the media everywhere, a barrier says, must be here as well. */
		if (rc > 0 && i && w->apply && !w->damage_told && out->lsn <= w->barrier) {
			sop_members_event(
				w->r->mem, source(w, 0)->member, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
			w->damage_told = true;
		}
		break;
	}
	return rc;
}

/* The end is only known when some replica could be read there. */
static int check_readable(const struct walk *w, struct sop_err *e)
{
	for (unsigned i = 0; i < w->r->n; i++)
		if (!w->r->src[i].unreadable)
			return 0;
	return sop_fail(e, SOP_ELOST,
		"journal: file %" PRIu64 " at %" PRIu64 " cannot be read on any replica",
		w->at.number, w->at.off);
}

/* 1: fn says that the chain ends before this record. */
static int take(struct walk *w, const struct sop_record_out *out, struct sop_err *e)
{
	int rc;

	if (out->type == SOP_RECORD_BARRIER) {
		w->barrier = SOP_MAX(w->barrier, out->lsn);
		return 0;
	}
	if (!w->apply)
		return 0;
	rc = w->r->fn(w->r->arg, out, out->lsn <= w->barrier);
	return rc < 0 ? sop_wrap(e, rc, "journal: LSN %" PRIu64, out->lsn) : rc;
}

/* Follow the chain to its end from w->at, whose file is not open yet. 1: fn has ended it. */
static int walk(struct walk *w, struct sop_err *e)
{
	struct sop_record_out out;
	uint32_t crc = 0;
	size_t len = 0;
	int rc;

	rc = walk_file(w, w->at.number);
	while (rc > 0) {
		rc = walk_record(w, &out, &crc, &len);
		if (rc < 0)
			break;
		if (!rc) {
			rc = check_readable(w, e);
			if (rc)
				return rc;
			rc = walk_file(w, w->at.number + 1);
			continue;
		}
		rc = take(w, &out, e);
		if (rc)
			return rc;
		w->at.off += len;
		w->at.lsn += out.type == SOP_RECORD_TXN;
		w->at.chain = crc;
		w->records++;
		w->bytes += len;
		rc = 1;
	}
	if (rc < 0)
		return sop_fail(e, rc, "journal file %" PRIu64, w->at.number);
	return check_readable(w, e);
}

static bool farther(const struct walk *a, const struct walk *b)
{
	return a->at.lsn != b->at.lsn ? a->at.lsn > b->at.lsn : a->records > b->records;
}

/* --- behind the end --- */

/* The highest LSN of a barrier in this part of a file, chained or not. salt: of the file's header,
 * if it has one; NULL: any. */
static size_t scan_bytes(const uint8_t *p, size_t len, const uint64_t *salt, uint64_t *barrier)
{
	const size_t size = sizeof(struct sop_disk_record);
	struct sop_record_out out;
	size_t at = 0, bytes;
	uint32_t crc;

	for (; len - at >= size; at += 8) {
		const struct sop_disk_record *h = (const struct sop_disk_record *)(p + at);

		if (le32_get(h->magic) != SOP_RECORD_MAGIC || h->type != SOP_RECORD_BARRIER)
			continue;
		if (salt && sop_journal_record_salt(h) != *salt)
			continue;
		if (!sop_record_check(h, size, le32_get(h->prev_crc), &out, &crc, &bytes, NULL))
			*barrier = SOP_MAX(*barrier, out.lsn);
	}
	return at;
}

static int scan_file(
	struct replay *r, struct source *s, uint64_t number, uint64_t off, uint64_t *barrier)
{
	struct sop_journal_header h;
	const uint64_t *salt = NULL;
	const uint8_t *p = NULL;
	size_t avail;
	int rc;

	rc = source_open(r, s, number);
	if (!rc)
		rc = source_get(r, s, 0, SOP_JOURNAL_HEADER, &p, &avail);
	if (!rc && avail >= SOP_JOURNAL_HEADER && !sop_journal_header_decode(&h, p, NULL)) {
		/* A file of another volume that lay here says nothing about this one. */
		if (!sop_uuid_equal(&h.volume, &sop_members_label(r->mem)->volume_uuid))
			return 0;
		salt = &h.salt;
	}
	while (!rc) {
		rc = source_get(r, s, off, sizeof(struct sop_disk_record), &p, &avail);
		if (rc || avail < sizeof(struct sop_disk_record))
			break;
		off += scan_bytes(p, avail, salt, barrier);
	}
	return rc;
}

/* A disk that cannot be read here has been reported; the others still tell. */
static int scan_behind(struct replay *r, const struct place *end, uint64_t *barrier)
{
	int rc = 0;

	for (unsigned i = 0; i < r->n && !rc; i++) {
		struct source *s = &r->src[i];
		struct sop_journal_names names;

		if (s->bad)
			continue;
		rc = sop_journal_list(&names, s->disk, timeout(r));
		if (rc && rc != -ENOMEM) {
			read_failed(r, s, rc);
			rc = 0;
			continue;
		}
		for (size_t k = 0; k < names.n && !rc; k++)
			if (names.number[k] >= end->number)
				rc = scan_file(r, s, names.number[k],
					names.number[k] == end->number ? end->off : 0, barrier);
		free(names.number);
	}
	return rc;
}

/* --- replay --- */

static int lost(const struct place *at, uint64_t barrier, struct sop_err *e)
{
	return sop_fail(e, SOP_ELOST,
		"journal: ends after LSN %" PRIu64 " in file %" PRIu64 " at %" PRIu64
		", but up to LSN %" PRIu64 " was on the media of every replica",
		at->lsn, at->number, at->off, barrier);
}

/* Where does the chain end, and whom to prefer on the way there? */
static int explore(
	struct walk *best, struct replay *r, const struct place *start, struct sop_err *e)
{
	uint64_t barrier = 0;
	int rc;

	for (unsigned i = 0; i < r->n; i++) {
		struct walk w = {.r = r, .pref = i, .at = *start};

		rc = walk(&w, e);
		if (rc)
			return rc;
		barrier = SOP_MAX(barrier, w.barrier);
		if (i == 0 || farther(&w, best))
			*best = w;
	}
	rc = scan_behind(r, &best->at, &barrier);
	if (rc)
		return sop_fail(e, rc, "journal");
	best->barrier = barrier;
	if (r->flags & SOP_REPLAY_PART)
		return 0;
	if (r->flags & SOP_REPLAY_BEGUN && !best->at.off)
		return sop_fail(e, SOP_ELOST,
			"journal: file %" PRIu64
			", which goes on from the checkpoint at LSN %" PRIu64
			", is whole on no disk",
			start->number, start->lsn);
	return barrier > best->at.lsn ? lost(&best->at, barrier, e) : 0;
}

static int replay(
	struct replay *r, const struct place *start, struct sop_journal_end *end, struct sop_err *e)
{
	struct walk found, w;
	int rc;

	rc = explore(&found, r, start, e);
	if (rc)
		return rc;
	w = (struct walk){
		.r = r, .pref = found.pref, .apply = true, .at = *start, .barrier = found.barrier};
	rc = walk(&w, e);
	if (rc < 0)
		return rc;
	/* The second reading came less far than the first: a disk that is unsure of itself. */
	if (!rc && w.at.lsn < found.at.lsn)
		return sop_fail(e, w.at.lsn < found.barrier ? SOP_ELOST : -EIO,
			"journal: LSN %" PRIu64 " could be read once, but not again", w.at.lsn + 1);
	*end = (struct sop_journal_end){
		.lsn = w.at.lsn,
		.chain = w.at.chain,
		.number = w.at.number,
		.barrier_lsn = found.barrier,
		.records = w.records,
		.bytes = w.bytes,
	};
	return 0;
}

int sop_journal_replay(struct sop_members *mem, uint64_t number, uint64_t lsn, uint32_t chain,
	unsigned flags, int (*fn)(void *arg, const struct sop_record_out *r, bool durable),
	void *arg, struct sop_journal_end *end, struct sop_err *e)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(mem, idx);
	struct place start = {.number = number, .lsn = lsn, .chain = chain};
	struct replay r = {.mem = mem, .fn = fn, .arg = arg, .flags = flags};
	int rc;

	r.src = calloc(n ? n : 1, sizeof(*r.src));
	if (!r.src)
		return sop_fail(e, -ENOMEM, "journal");
	for (unsigned i = 0; i < n; i++) {
		struct sop_disk *d = sop_members_disk(mem, idx[i]);

		if (d)
			r.src[r.n++] = (struct source){.member = idx[i], .disk = d};
	}
	if (r.n)
		rc = replay(&r, &start, end, e);
	else
		rc = sop_fail(e, SOP_ELOST, "journal: no current registry replica is there");
	for (unsigned i = 0; i < r.n; i++) {
		source_close(&r.src[i]);
		free(r.src[i].buf);
	}
	free(r.src);
	return rc;
}

int sop_journal_reach(struct sop_members *mem, unsigned member, uint64_t number, uint64_t lsn,
	uint32_t chain, struct sop_journal_end *end, uint64_t *off, struct sop_err *e)
{
	struct source src = {.member = member, .disk = sop_members_disk(mem, member)};
	struct replay r = {.mem = mem, .src = &src, .n = src.disk ? 1 : 0};
	struct walk w = {.r = &r, .at = {.number = number, .lsn = lsn, .chain = chain}};
	int rc;

	if (!src.disk)
		return sop_fail(e, -ENODEV, "journal");
	rc = walk(&w, e);
	if (!rc)
		rc = scan_behind(&r, &w.at, &w.barrier);
	*end = (struct sop_journal_end){.lsn = w.at.lsn,
		.chain = w.at.chain,
		.number = w.at.number,
		.barrier_lsn = w.barrier,
		.records = w.records,
		.bytes = w.bytes};
	*off = w.at.off;
	source_close(&src);
	free(src.buf);
	return rc;
}

static int verify_file(struct replay *r, uint64_t number, uint64_t bytes)
{
	const struct sop_label *label = sop_members_label(r->mem);
	struct source *s = &r->src[0];
	struct sop_journal_header h;
	const uint8_t *p = NULL;
	struct place at;
	size_t len;
	int rc = source_open(r, s, number);

	if (!rc)
		rc = source_get(r, s, 0, SOP_JOURNAL_HEADER, &p, &len);
	if (rc || s->unreadable)
		return rc ? rc : -EIO;
	if (len < SOP_JOURNAL_HEADER || sop_journal_header_decode(&h, p, NULL) ||
		h.number != number || !sop_uuid_equal(&h.volume, &label->volume_uuid))
		return SOP_ECORRUPT;
	at = (struct place){.number = number,
		.off = SOP_JOURNAL_HEADER,
		.lsn = h.first_lsn - 1,
		.chain = h.chain,
		.epoch = h.epoch,
		.salt = h.salt};
	while (at.off < bytes) {
		struct sop_record_out out;

		rc = source_record(r, s, &at, &out, &at.chain, &len);
		if (rc < 0 || s->unreadable)
			return rc < 0 ? rc : -EIO;
		if (!rc)
			return SOP_ECORRUPT;
		at.off += len;
		at.lsn += out.type == SOP_RECORD_TXN;
	}
	return at.off == bytes ? 0 : SOP_ECORRUPT;
}

int sop_journal_verify(struct sop_members *mem, unsigned member, struct sop_disk *d,
	uint64_t number, uint64_t bytes, unsigned timeout_ms, struct sop_err *e)
{
	struct source src = {.member = member, .disk = d};
	struct replay r = {.mem = mem, .src = &src, .n = 1, .timeout_ms = timeout_ms};
	int rc = verify_file(&r, number, bytes);

	source_close(&src);
	free(src.buf);
	return rc ? sop_fail(e, rc, "%s: journal file %" PRIu64, d->name, number) : 0;
}
