/* Writing blobs.
 *
 * An append is made of parts, each a range of one segment. For each part the fragments of all its
 * blobs are laid out one after the other in an image of the range, one for each shard, in memory of
 * the batch: so a part is one write for each shard, however many blobs it carries, and the caller's
 * data need not outlive a write that hangs. Data is copied, coded and summed one row of blocks at a
 * time, while it is in the processor's cache.
 *
 * A crash while an append runs leaves any part of it. Nothing refers to it yet; what it was written
 * over was never used. */
#include "core/segment_int.h"

#include <inttypes.h>

#include "core/id.h"

#define PARALLEL_FROM (256u << 10) /* bytes for each shard from which disks run side by side */
#define NONCES	      32	   /* drawn at a time */

struct part {
	struct sop_segment_place place;
	int request[SOP_EC_MAX];
};

struct sop_append {
	struct sop_segments *s;
	struct sop_batch *b;
	size_t n;
	struct part *part;
};

/* --- layout ------------------------------------------------------------------------------------
 */

uint64_t sop_blob_shard_bytes(uint32_t len, unsigned k)
{
	return sop_frag_shape(len, k).bytes;
}

uint32_t sop_frag_seed_base(
	const struct sop_segment_info *info, const struct sop_blobref *ref, unsigned shard)
{
	struct {
		struct le64 segment, off;
		struct le32 nonce, shard, len;
	} id = {le64_make(ref->segment), le64_make(ref->off), le32_make(ref->nonce),
		le32_make(shard), le32_make(ref->len)};

	return sop_crc32c(0, &id, sizeof(id) - (info->lengths ? 0 : sizeof(id.len)));
}

uint32_t sop_frag_seed_block(uint32_t base, uint32_t block)
{
	struct le32 number = le32_make(block);

	return sop_crc32c(base, &number, sizeof(number));
}

void sop_frag_header(struct sop_disk_fragment *h, const struct sop_segment_info *info,
	const struct sop_blobref *ref, uint8_t kind, unsigned shard)
{
	memset(h, 0, sizeof(*h));
	h->magic = le32_make(SOP_FRAG_MAGIC);
	h->segment = le64_make(ref->segment);
	h->off = le64_make(ref->off);
	h->len = le32_make(ref->len);
	h->nonce = le32_make(ref->nonce);
	h->shard = (uint8_t)shard;
	h->k = info->k;
	h->m = info->m;
	h->kind = kind;
	h->slice = le32_make(sop_frag_shape(ref->len, info->k).slice);
	h->crc = le32_make(sop_crc32c(0, &h->segment, sizeof(*h) - 8));
}

/* Bytes from..from+len of the data, which ends with zeros. */
static void copy_padded(uint8_t *to, const struct sop_blob_put *put, uint64_t from, uint32_t len)
{
	uint32_t have = from < put->len ? (uint32_t)SOP_MIN(put->len - from, (uint64_t)len) : 0;

	if (have)
		memcpy(to, (const uint8_t *)put->data + from, have);
	memset(to + have, 0, len - have);
}

/* The fragments of one blob, at image[0..n-1]. */
static void lay_out(
	const struct segment *seg, const struct sop_blob_put *put, uint8_t *const *image)
{
	const struct sop_blobref *ref = &put->ref;
	struct sop_frag_shape f = sop_frag_shape(put->len, seg->info.k);
	unsigned k = seg->info.k;
	uint32_t seed[SOP_EC_MAX];
	size_t at = sizeof(struct sop_disk_fragment);

	for (unsigned i = 0; i < seg->n; i++) {
		sop_frag_header(
			(struct sop_disk_fragment *)image[i], &seg->info, ref, put->kind, i);
		seed[i] = sop_frag_seed_base(&seg->info, ref, i);
	}
	for (uint32_t r = 0; r < f.rows; r++, at += SOP_FRAG_STRIDE) {
		uint32_t len = sop_frag_block(&f, r);
		const void *data[SOP_EC_MAX];
		void *parity[SOP_EC_MAX];

		for (unsigned i = 0; i < k; i++) {
			uint64_t from = (uint64_t)i * f.slice + (uint64_t)r * SOP_BLOCK_BYTES;

			copy_padded(image[i] + at, put, from, len);
			data[i] = image[i] + at;
		}
		for (unsigned i = k; i < seg->n; i++)
			parity[i - k] = image[i] + at;
		sop_ec_encode(seg->ec, len, data, parity);
		for (unsigned i = 0; i < seg->n; i++) {
			uint32_t crc = sop_frag_seed_block(seed[i], r);
			struct le32 sum = le32_make(sop_crc32c(crc, image[i] + at, len));

			memcpy(image[i] + at + len, &sum, sizeof(sum));
		}
	}
	at = sizeof(struct sop_disk_fragment) + f.slice + (size_t)f.rows * sizeof(struct le32);
	for (unsigned i = 0; i < seg->n; i++)
		memset(image[i] + at, 0, f.bytes - at);
}

/* Drawn many at a time: a commit has one blob as a rule. */
static uint32_t next_nonce(void)
{
	static _Thread_local uint32_t drawn[NONCES];
	static _Thread_local unsigned left;

	if (!left) {
		sop_random(drawn, sizeof(drawn));
		left = NONCES;
	}
	return drawn[--left];
}

static void give_refs(const struct sop_segment_place *at, struct sop_blob_put *puts)
{
	uint64_t off = at->off;

	for (size_t i = 0; i < at->fit; i++) {
		puts[i].ref = (struct sop_blobref){.segment = at->seg->info.id,
			.off = off,
			.len = puts[i].len,
			.nonce = next_nonce()};
		off += sop_blob_shard_bytes(puts[i].len, at->seg->info.k);
	}
}

/* --- an append ---------------------------------------------------------------------------------
 */

static void part_release(struct sop_segments *s, struct part *p)
{
	sop_shard_files_put(s, p->place.present, p->place.file);
	if (p->place.fill)
		sop_segment_fill_end(s, p->place.seg);
	else
		sop_segment_busy_end(s, p->place.seg);
	sop_segment_put(s, p->place.seg);
}

static void append_free(struct sop_append *a)
{
	free(a->part);
	free(a);
}

void sop_segments_abandon(struct sop_append *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->n; i++)
		part_release(a->s, &a->part[i]);
	append_free(a);
}

static int add_part(
	struct sop_append *a, struct part *p, struct sop_blob_put *puts, struct sop_err *e)
{
	struct segment *seg = p->place.seg;
	uint8_t *image[SOP_EC_MAX], *at[SOP_EC_MAX];

	for (unsigned i = 0; i < seg->n; i++) {
		at[i] = image[i] = sop_batch_alloc(a->b, p->place.bytes);
		if (!image[i])
			return sop_fail(e, -ENOMEM, "append of %" PRIu64 " bytes", p->place.bytes);
	}
	give_refs(&p->place, puts);
	for (size_t i = 0; i < p->place.fit; i++) {
		lay_out(seg, &puts[i], at);
		for (unsigned j = 0; j < seg->n; j++)
			at[j] += sop_blob_shard_bytes(puts[i].len, seg->info.k);
	}
	SOP_EACH_BIT(l, p->place.present)
	{
		struct iovec iov[2] = {{image[l], p->place.bytes}, {sop_io_zeros(), p->place.fill}};

		p->request[l] = sop_batch_add(a->b, SOP_IO_WRITE, p->place.file[l]->file, iov,
			p->place.fill ? 2 : 1, p->place.off);
		if (p->request[l] < 0)
			return sop_fail(e, p->request[l], "append");
	}
	return 0;
}

static int append_grow(struct sop_append *a, struct sop_err *e)
{
	struct part *part = reallocarray(a->part, a->n + 1, sizeof(*part));

	if (!part)
		return sop_fail(e, -ENOMEM, "append");
	a->part = part;
	memset(&part[a->n], 0, sizeof(part[0]));
	return 0;
}

static int check_puts(struct sop_segments *s, unsigned profile, enum sop_stream stream,
	const struct sop_blob_put *puts, size_t n, struct sop_err *e)
{
	const struct sop_label *label = sop_members_label(s->mem);

	if (profile >= SOP_PROFILES_MAX || profile >= sop_members_profiles(s->mem) ||
		!label->profile[profile].k || stream >= SOP_STREAMS)
		return sop_fail(e, -EINVAL, "profile %u, stream %d", profile, (int)stream);
	for (size_t i = 0; i < n; i++)
		if (!puts[i].len || puts[i].len > SOP_BLOB_MAX)
			return sop_fail(e, -EINVAL, "blob of %u bytes", puts[i].len);
	return 0;
}

int sop_segments_prepare(struct sop_append **out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_batch *b, struct sop_err *e)
{
	struct sop_append *a;
	int rc = check_puts(s, profile, stream, puts, n, e);

	*out = NULL;
	if (rc)
		return rc;
	a = calloc(1, sizeof(*a));
	if (!a)
		return sop_fail(e, -ENOMEM, "append");
	a->s = s;
	a->b = b;
	while (!rc && n) {
		struct part *p;

		rc = append_grow(a, e);
		if (rc)
			break;
		p = &a->part[a->n];
		rc = sop_segment_reserve(&p->place, s, profile, stream, puts, n, fill_bytes, e);
		if (rc)
			break;
		a->n++;
		rc = add_part(a, p, puts, e);
		puts += p->place.fit;
		n -= p->place.fit;
	}
	if (rc)
		sop_segments_abandon(a);
	else
		*out = a;
	return rc;
}

/* What a disk lacks must be on record before anything counts that it lacks: the labels of the
 * others say that it is set aside. Of one that is not (it is full, or the trouble is ours) nothing
 * would say so after a crash: then the append does not count, and goes elsewhere. */
static int finish_part(struct sop_append *a, struct part *p, struct sop_err *e)
{
	struct segment *seg = p->place.seg;
	uint32_t ok = 0, unrecorded = 0;
	int first = 0, why = 0;

	SOP_EACH_BIT(l, p->place.present)
	sop_segment_note(a->s, sop_segment_disk(seg, l), SOP_EVENT_WRITE,
		sop_batch_result(a->b, p->request[l]));
	SOP_EACH_BIT(i, p->place.present)
	{
		struct sop_disk *disk = sop_members_disk(a->s->mem, sop_segment_disk(seg, i));
		int rc = sop_batch_result(a->b, p->request[i]);

		/* Set aside meanwhile: it will not be synced. */
		if (!rc && p->place.file[i]->file->disk != disk)
			rc = -ENODEV;
		if (!rc) {
			ok |= 1u << i;
			continue;
		}
		if (!first)
			first = rc;
		sop_log(sop_members_log(a->s->mem), SOP_LOG_WARNING, "blob",
			"op=write segment=%016" PRIx64
			" shard=%u disk=%u code=%s: shard not written",
			seg->info.id, i, sop_segment_disk(seg, i), sop_err_name(rc));
		sop_segment_blame(a->s, sop_segment_disk(seg, i), SOP_EVENT_WRITE, rc);
		if (p->place.file[i]->file->disk !=
			sop_members_disk(a->s->mem, sop_segment_disk(seg, i)))
			continue;
		unrecorded |= 1u << i;
		why = why ? why : rc;
	}
	sop_segment_wrote(a->s, seg, p->place.present, ok, unrecorded);
	if ((unsigned)__builtin_popcount(ok) >= seg->info.k)
		return why ? sop_fail(e, why, "segment %016" PRIx64, seg->info.id) : 0;
	return sop_fail(e, first ? first : SOP_EDISKS,
		"segment %016" PRIx64 ": %d of %u shards written, %u are needed", seg->info.id,
		__builtin_popcount(ok), seg->n, seg->info.k);
}

int sop_segments_finish(struct sop_append *a, struct sop_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < a->n; i++) {
		int one = finish_part(a, &a->part[i], e);

		if (!rc)
			rc = one;
	}
	sop_segments_abandon(a);
	return rc;
}

static int put_once(struct sop_segments *s, unsigned profile, enum sop_stream stream,
	struct sop_blob_put *puts, size_t n, bool *again, struct sop_err *e)
{
	struct sop_batch *b = sop_batch_new(s->io);
	struct sop_append *a = NULL;
	uint64_t bytes = 0;
	int rc;

	*again = false;
	if (!b)
		return sop_fail(e, -ENOMEM, "append");
	rc = sop_segments_prepare(&a, s, profile, stream, puts, n, 0, b, e);
	if (!rc) {
		for (size_t i = 0; i < a->n; i++)
			bytes += a->part[i].place.bytes;
		sop_batch_run(b, bytes >= PARALLEL_FROM ? SOP_IO_PARALLEL : SOP_IO_SERIAL, 0,
			sop_members_timeout_ms(s->mem));
		rc = sop_segments_finish(a, e);
		*again = rc && (!sop_segment_blameless(rc) || rc == -ENODEV);
	}
	sop_batch_put(b);
	return rc;
}

/* Each failed write sets a disk aside or marks it full, so that this ends. */
int sop_segments_put(struct sop_segments *s, unsigned profile, enum sop_stream stream,
	struct sop_blob_put *puts, size_t n, struct sop_err *e)
{
	unsigned tries = sop_members_count(s->mem) + 1;
	bool again = true;
	int rc = 0;

	for (unsigned i = 0; again && i < tries; i++)
		rc = put_once(s, profile, stream, puts, n, &again, e);
	return rc;
}
