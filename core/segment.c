/* Segments: the table, the open ones that appends go to, and sync.
 *
 * Each (profile, stream) has at most one open segment. An append reserves its range by moving `end`
 * under the lock and writes outside of it, so that appends of several threads run side by side; a
 * range whose write failed stays behind as garbage that nothing refers to. A segment is closed for
 * good ("sealed") when it is full, when a write to one of its disks failed, or when a disk it was
 * made without is back (the next one has all k+m).
 *
 * Sync: finish marks shards dirty after their write has ended. A sync takes the dirty marks and
 * then calls fdatasync, so whatever finished before it started is covered; what finishes meanwhile
 * marks again. An fdatasync that failed may have dropped pages that a second one would call clean:
 * so the shard counts as lost from then on ("unsynced"), for all it was written and not yet synced,
 * and is stale. */
#include "core/segment_int.h"
#include "core/sync.h"

#include <inttypes.h>
#include <sys/resource.h>

#define FILES_MAX   512
#define PLACE_TRIES 8 /* beyond one for each member */

/* --- the table ------------------------------------------------------------------------------
 */

static struct segment **bucket_of(struct sop_segments *s, uint64_t id)
{
	return &s->bucket[(id ^ id >> SOP_SEGMENT_NUMBER_BITS) % SOP_SEGMENT_BUCKETS];
}

static struct segment *find(struct sop_segments *s, uint64_t id)
{
	struct segment *seg = *bucket_of(s, id);

	while (seg && seg->info.id != id)
		seg = seg->hash_next;
	return seg;
}

struct segment *sop_segment_find_locked(struct sop_segments *s, uint64_t id)
{
	return find(s, id);
}

/* The lock is held; true when the caller must free it, after the lock. Its slots are empty by then:
 * a segment leaves the table with its files. */
static bool unref(struct segment *seg)
{
	return !--seg->refs;
}

void sop_segment_put(struct sop_segments *s, struct segment *seg)
{
	bool last;

	if (!seg)
		return;
	sop_lock(&s->lock);
	last = unref(seg);
	sop_unlock(&s->lock);
	if (last) {
		sop_shard_files_drop(s, seg);
		free(seg);
	}
}

static const struct sop_ec *find_codec(struct sop_segments *s, unsigned k, unsigned m)
{
	for (struct sop_codec *c = s->codecs; c; c = c->next)
		if (sop_ec_k(c->ec) == k && sop_ec_m(c->ec) == m)
			return c->ec;
	return NULL;
}

static int codec_get(const struct sop_ec **out, struct sop_segments *s, unsigned k, unsigned m,
	struct sop_err *e)
{
	sop_autofree struct sop_codec *c = NULL;
	int rc;

	sop_lock(&s->lock);
	*out = find_codec(s, k, m);
	sop_unlock(&s->lock);
	if (*out)
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return sop_fail(e, -ENOMEM, "codec");
	rc = sop_ec_new(&c->ec, k, m, e);
	if (rc)
		return rc;
	sop_lock(&s->lock);
	*out = find_codec(s, k, m);
	if (!*out) {
		*out = c->ec;
		c->next = s->codecs;
		s->codecs = c;
		c = NULL;
	}
	sop_unlock(&s->lock);
	if (c)
		sop_ec_free(c->ec);
	return 0;
}

static int check_info(const struct sop_segment_info *info, struct sop_err *e)
{
	unsigned n = (unsigned)info->k + info->m;
	bool ok = info->id && info->k && n <= SOP_EC_MAX && info->stream < SOP_STREAMS &&
		  info->end >= SOP_SHARD_HEADER && info->end <= SOP_SEGMENT_BYTES;

	for (unsigned i = 0; ok && i < n; i++)
		ok = info->disks[i] < SOP_MEMBERS_MAX;
	return ok ? 0 : sop_fail(e, SOP_ECORRUPT, "segment %016" PRIx64, info->id);
}

static bool same_shape(const struct sop_segment_info *a, const struct sop_segment_info *b)
{
	return a->k == b->k && a->m == b->m && a->stream == b->stream;
}

int sop_segment_insert(struct segment **out, struct sop_segments *s,
	const struct sop_segment_info *info, struct sop_err *e)
{
	sop_autofree struct segment *seg = calloc(1, sizeof(*seg));
	struct segment **bucket;
	int rc = check_info(info, e);

	if (rc)
		return rc;
	if (!seg)
		return sop_fail(e, -ENOMEM, "segment");
	seg->info = *info;
	seg->n = (unsigned)info->k + info->m;
	rc = codec_get(&seg->ec, s, info->k, info->m, e);
	if (rc)
		return rc;
	SOP_LOCK_GUARD(&s->lock);
	if (find(s, info->id))
		return sop_fail(e, -EEXIST, "segment %016" PRIx64, info->id);
	bucket = bucket_of(s, info->id);
	seg->hash_next = *bucket;
	*bucket = seg;
	seg->in_table = true;
	seg->refs = 2;
	*out = seg;
	seg = NULL;
	return 0;
}

/* The lock is held, and the caller has a reference of its own besides the table's. */
static void take_out(struct sop_segments *s, struct segment *seg)
{
	struct segment **p = bucket_of(s, seg->info.id);

	if (!seg->in_table)
		return;
	while (*p != seg)
		p = &(*p)->hash_next;
	*p = seg->hash_next;
	seg->in_table = false;
	seg->refs--;
}

static struct segment *find_get(struct sop_segments *s, uint64_t id)
{
	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	if (seg)
		seg->refs++;
	return seg;
}

/* A segment that the table does not know, as its files show it: nothing is appended to it any more.
 */
static int learn(struct segment **out, struct sop_segments *s, uint64_t id, struct sop_err *e)
{
	struct sop_segment_info info;
	uint64_t end = 0;
	int rc = sop_shard_lookup(s, id, &info, e);

	if (rc)
		return rc;
	info.sealed = true;
	info.end = SOP_SEGMENT_BYTES;
	rc = sop_segment_insert(out, s, &info, e);
	if (rc == -EEXIST)
		*out = find_get(s, id);
	if (rc == -EEXIST && *out)
		return 0;
	if (rc)
		return rc;
	rc = sop_segments_file_end(s, id, &end, e);
	sop_lock(&s->lock);
	if (rc) {
		take_out(s, *out);
	} else {
		end = SOP_MIN(end, (uint64_t)SOP_SEGMENT_BYTES);
		(*out)->info.end = SOP_MAX(end, (uint64_t)SOP_SHARD_HEADER);
	}
	sop_unlock(&s->lock);
	if (rc) {
		sop_shard_files_drop(s, *out);
		sop_segment_put(s, *out);
		*out = NULL;
	}
	return rc;
}

int sop_segment_get(struct segment **out, struct sop_segments *s, uint64_t id, struct sop_err *e)
{
	*out = id ? find_get(s, id) : NULL;
	if (*out)
		return 0;
	if (!id)
		return sop_fail(e, -ENOENT, "segment 0");
	return learn(out, s, id, e);
}

/* --- public: life, table --------------------------------------------------------------------
 */

void sop_segments_set_bytes(struct sop_segments *s, uint64_t bytes)
{
	s->segment_bytes = SOP_MIN(bytes, (uint64_t)SOP_SEGMENT_BYTES);
}

int sop_segments_new(struct sop_segments **out, struct sop_members *mem, struct sop_iopool *io,
	uint64_t epoch, struct sop_err *e)
{
	struct sop_segments *s = calloc(1, sizeof(*s));
	struct rlimit lim;

	*out = NULL;
	if (!s)
		return sop_fail(e, -ENOMEM, "segments");
	if (epoch >> (64 - SOP_SEGMENT_NUMBER_BITS)) {
		free(s);
		return sop_fail(e, -EINVAL, "epoch %" PRIu64, epoch);
	}
	s->mem = mem;
	s->io = io;
	s->epoch = epoch;
	s->segment_bytes = SOP_SEGMENT_BYTES;
	s->next = 1;
	s->files_max = FILES_MAX;
	if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur / 2 < FILES_MAX)
		s->files_max = (unsigned)(lim.rlim_cur / 2);
	sop_lock_init(&s->lock, SOP_RANK_SEGMENTS, "segments");
	sop_cond_init(&s->changed);
	*out = s;
	return 0;
}

void sop_segments_free(struct sop_segments *s)
{
	if (!s)
		return;
	for (size_t b = 0; b < SOP_SEGMENT_BUCKETS; b++) {
		struct segment *seg, *next;

		for (seg = s->bucket[b]; seg; seg = next) {
			next = seg->hash_next;
			sop_shard_files_drop(s, seg);
			free(seg);
		}
	}
	while (s->codecs) {
		struct sop_codec *c = s->codecs;

		s->codecs = c->next;
		sop_ec_free(c->ec);
		free(c);
	}
	pthread_cond_destroy(&s->changed);
	sop_lock_release(&s->lock);
	free(s);
}

int sop_segments_add(struct sop_segments *s, const struct sop_segment_info *info, struct sop_err *e)
{
	struct segment *seg = NULL;
	int rc = sop_segment_insert(&seg, s, info, e);

	if (rc == -EEXIST) {
		/* Learned from its files before: the table knows more. */
		SOP_LOCK_GUARD(&s->lock);
		seg = find(s, info->id);
		if (!seg || !same_shape(&seg->info, info))
			return sop_fail(e, SOP_ECORRUPT,
				"segment %016" PRIx64 ": the table and the files differ", info->id);
		/* A shard that was moved: the headers of the others name the old place. */
		for (unsigned i = 0; i < seg->n; i++)
			sop_segment_disk_set(seg, i, info->disks[i]);
		seg->info.stale |= info->stale;
		seg->info.sealed = seg->info.sealed || info->sealed;
		seg->info.end = SOP_MAX(seg->info.end, info->end);
		return 0;
	}
	if (rc)
		return rc;
	sop_segment_put(s, seg);
	return 0;
}

int sop_segments_info(
	struct sop_segments *s, uint64_t id, struct sop_segment_info *out, struct sop_err *e)
{
	struct segment *seg = NULL;
	int rc = sop_segment_get(&seg, s, id, e);

	if (rc)
		return rc;
	sop_lock(&s->lock);
	*out = seg->info;
	sop_unlock(&s->lock);
	sop_segment_put(s, seg);
	return 0;
}

int sop_segments_peek(struct sop_segments *s, uint64_t id, struct sop_segment_info *out)
{
	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	if (!seg)
		return -ENOENT;
	*out = seg->info;
	return 0;
}

/* The lock is held, and so is a reference besides the open segment's. */
static void seal_locked(struct sop_segments *s, struct segment *seg)
{
	seg->info.sealed = true;
	if (!seg->open)
		return;
	for (unsigned p = 0; p < SOP_PROFILES_MAX; p++) {
		struct sop_open_segment *o = &s->open[p][seg->info.stream];

		if (o->seg == seg) {
			o->seg = NULL;
			seg->open = false;
			seg->refs--;
		}
	}
}

void sop_segments_set_epoch(struct sop_segments *s, uint64_t epoch)
{
	SOP_LOCK_GUARD(&s->lock);

	assert(!(epoch >> (64 - SOP_SEGMENT_NUMBER_BITS)));
	s->epoch = epoch;
	s->next = 1;
	for (unsigned p = 0; p < SOP_PROFILES_MAX; p++)
		for (unsigned i = 0; i < SOP_STREAMS; i++) {
			struct segment *seg = s->open[p][i].seg;

			if (!seg)
				continue;
			seg->refs++;
			seal_locked(s, seg);
			seg->refs--; /* the table has one */
		}
}

void sop_segments_on_bad(
	struct sop_segments *s, void (*fn)(void *ctx, const struct sop_blobref *ref), void *ctx)
{
	s->on_bad_ctx = ctx;
	s->on_bad = fn;
}

/* One of those that have zeros behind their end, with a reference. */
static struct segment *find_filled(struct sop_segments *s)
{
	SOP_LOCK_GUARD(&s->lock);
	for (unsigned p = 0; p < SOP_PROFILES_MAX; p++)
		for (unsigned i = 0; i < SOP_STREAMS; i++) {
			struct segment *seg = s->open[p][i].seg;

			if (!seg || seg->filled <= seg->info.end)
				continue;
			assert(!seg->filling);
			seg->filled = seg->info.end;
			seg->refs++;
			return seg;
		}
	return NULL;
}

void sop_segments_cut(struct sop_segments *s)
{
	struct segment *seg;

	while ((seg = find_filled(s))) {
		if (!sop_shard_files_cut(s, seg))
			sop_segments_seal(s, seg->info.id);
		sop_segment_put(s, seg);
	}
}

void sop_segments_seal(struct sop_segments *s, uint64_t id)
{
	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	if (seg)
		seal_locked(s, seg);
}

bool sop_segments_ended(struct sop_segments *s, uint64_t id)
{
	const struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	return seg && seg->info.sealed && !seg->busy;
}

void sop_segments_distrust(struct sop_segments *s, uint64_t id)
{
	struct segment *seg = find_get(s, id);
	uint32_t behind = 0;

	if (!seg)
		return;
	for (unsigned i = 0; i < seg->n; i++)
		if (sop_members_behind(s->mem, sop_segment_disk(seg, i)))
			behind |= 1u << i;
	sop_lock(&s->lock);
	seg->info.stale |= behind;
	sop_unlock(&s->lock);
	sop_segment_put(s, seg);
}

static void dirty_list_remove(struct sop_segments *s, struct segment *seg)
{
	struct segment **p = &s->dirty;

	if (!seg->on_dirty_list)
		return;
	while (*p != seg)
		p = &(*p)->dirty_next;
	*p = seg->dirty_next;
	seg->on_dirty_list = false;
	seg->refs--;
}

int sop_segments_remove(struct sop_segments *s, uint64_t id, struct sop_err *e)
{
	struct segment *seg = find_get(s, id);
	int rc;

	if (!id)
		return sop_fail(e, -EINVAL, "segment 0");
	if (seg) {
		sop_lock(&s->lock);
		seal_locked(s, seg);
		dirty_list_remove(s, seg);
		take_out(s, seg);
		sop_unlock(&s->lock);
		sop_shard_files_drop(s, seg);
	}
	rc = sop_segment_unlink(s, id, seg, e);
	sop_segment_put(s, seg);
	return rc;
}

/* --- open segments --------------------------------------------------------------------------
 */

/* Is an append to this segment as good as one to a new segment would be? The lock is held. */
static bool is_usable(struct sop_segments *s, const struct segment *seg, unsigned k, unsigned m)
{
	if (seg->info.sealed || seg->info.k != k || seg->info.m != m)
		return false;
	for (unsigned i = 0; i < seg->n; i++) {
		bool here = sop_members_disk(s->mem, sop_segment_disk(seg, i)) != NULL;
		uint32_t bit = 1u << i;

		if (here ? seg->awaited & bit : ~seg->absent & bit)
			return false;
	}
	return true;
}

/* One try: place, make the files. `again`: another try may do better. */
static int create_once(struct segment **out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, bool *again, struct sop_err *e)
{
	const struct sop_profile *p = &sop_members_label(s->mem)->profile[profile];
	struct sop_segment_info info = {.k = p->k,
		.m = p->m,
		.stream = (uint8_t)stream,
		.no_repair = p->flags & SOP_PROFILE_NO_REPAIR,
		.lengths = true,
		.end = SOP_SHARD_HEADER};
	uint32_t absent = 0, failed = 0;
	struct segment *seg = NULL;
	uint64_t n;
	int rc;

	*again = false;
	sop_lock(&s->lock);
	n = s->next++;
	sop_unlock(&s->lock);
	if (n >> SOP_SEGMENT_NUMBER_BITS)
		return sop_fail(e, -EOVERFLOW, "segments of one mount: mount again");
	rc = sop_members_place(s->mem, profile, n, info.disks, &absent, e);
	if (rc)
		return rc;
	info.id = s->epoch << SOP_SEGMENT_NUMBER_BITS | n;
	info.stale = absent;
	rc = sop_segment_insert(&seg, s, &info, e);
	/* Known from the disks: of another mount that took the same epoch, which must not be hurt.
	 */
	*again = rc == -EEXIST;
	if (rc)
		return rc;
	sop_lock(&s->lock);
	seg->absent = absent;
	seg->ours = true;
	SOP_EACH_BIT(i, absent)
	if (!sop_members_disk(s->mem, info.disks[i]))
		seg->awaited |= 1u << i;
	sop_unlock(&s->lock);
	rc = sop_shard_files_create(s, seg, sop_segment_all(seg) & ~absent, &failed, e);
	if (rc) {
		*again = rc == -EEXIST || !sop_segment_blameless(rc) || rc == -ENODEV;
		sop_lock(&s->lock);
		take_out(s, seg);
		sop_unlock(&s->lock);
		sop_segment_put(s, seg);
		return rc;
	}
	sop_lock(&s->lock);
	seg->made = true;
	sop_unlock(&s->lock);
	*out = seg;
	return 0;
}

/* Each disk that fails is set aside or marked full, so that the next try goes elsewhere. */
static int create(struct segment **out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, struct sop_err *e)
{
	unsigned tries = sop_members_count(s->mem) + PLACE_TRIES;
	bool again = true;
	int rc = 0;

	for (unsigned i = 0; again && i < tries; i++) {
		rc = create_once(out, s, profile, stream, &again, e);
		if (!rc)
			return 0;
	}
	return rc;
}

static void dirty_list_add(struct sop_segments *s, struct segment *seg)
{
	if (seg->on_dirty_list)
		return;
	seg->dirty_next = s->dirty;
	s->dirty = seg;
	seg->on_dirty_list = true;
	seg->refs++;
}

/* A segment just made becomes the open one. The lock is held. */
static void publish(struct sop_segments *s, struct sop_open_segment *o, struct segment *seg)
{
	if (seg->info.sealed || !seg->in_table) /* removed meanwhile */
		return;
	seg->open = true;
	seg->refs++;
	o->seg = seg;
	seg->dirty |= sop_segment_all(seg) & ~seg->absent;
	seg->new_names |= sop_segment_all(seg) & ~seg->absent;
	dirty_list_add(s, seg);
}

/* Take room for as many puts as fit. The lock is held. */
static size_t carve(const struct sop_segments *s, struct segment *seg,
	const struct sop_blob_put *puts, size_t n, uint64_t *bytes)
{
	uint64_t room = s->segment_bytes - SOP_MIN(seg->info.end, s->segment_bytes);
	size_t fit = 0;

	*bytes = 0;
	for (; fit < n; fit++) {
		uint64_t one = sop_blob_shard_bytes(puts[fit].len, seg->info.k);

		if (one > room - *bytes)
			break;
		*bytes += one;
	}
	return fit;
}

/* Take references on the files of the shards to write; false when one is not open any more. */
static bool take_files(struct sop_segment_place *out, struct sop_segments *s, struct segment *seg)
{
	out->present = sop_segment_all(seg) & ~seg->absent;
	SOP_EACH_BIT(i, out->present)
	if (!seg->file[i] || !seg->file[i]->writable ||
		seg->file[i]->file->disk != sop_members_disk(s->mem, sop_segment_disk(seg, i)))
		return false;
	SOP_EACH_BIT(j, out->present)
	{
		out->file[j] = seg->file[j];
		seg->file[j]->refs++;
	}
	return true;
}

/* The lock is held. False: there is no open segment with room; a new one is needed. */
static bool try_reserve(struct sop_segment_place *out, struct sop_segments *s,
	struct sop_open_segment *o, const struct sop_profile *p, const struct sop_blob_put *puts,
	size_t n, uint32_t fill_bytes)
{
	struct segment *seg = o->seg;

	if (!seg)
		return false;
	out->fit = carve(s, seg, puts, n, &out->bytes);
	if (!out->fit || !is_usable(s, seg, p->k, p->m) || !take_files(out, s, seg)) {
		/* The table's reference remains: sealing cannot free it. */
		seal_locked(s, seg);
		return false;
	}
	out->seg = seg;
	seg->refs++;
	seg->busy++;
	out->off = seg->info.end;
	seg->info.end += out->bytes;
	/* Of an append that goes on in the next segment, this one is full. */
	if (fill_bytes && out->fit == n && seg->info.end > seg->filled) {
		out->fill = (uint32_t)SOP_MIN(
			SOP_MIN(fill_bytes, SOP_IO_ZEROS), s->segment_bytes - seg->info.end);
		seg->filled = seg->info.end + out->fill;
		seg->filling = out->fill;
	}
	return true;
}

/* The zeros must not come after what would be written in their place. */
static bool is_filling(const struct sop_open_segment *o)
{
	return o->seg && o->seg->filling;
}

int sop_segment_reserve(struct sop_segment_place *out, struct sop_segments *s, unsigned profile,
	enum sop_stream stream, const struct sop_blob_put *puts, size_t n, uint32_t fill_bytes,
	struct sop_err *e)
{
	const struct sop_profile *p = &sop_members_label(s->mem)->profile[profile];
	struct sop_open_segment *o = &s->open[profile][stream];
	unsigned made = 0;

	memset(out, 0, sizeof(*out));
	sop_lock(&s->lock);
	while (is_filling(o) || !try_reserve(out, s, o, p, puts, n, fill_bytes)) {
		struct segment *seg = NULL;
		int rc;

		if (o->creating || is_filling(o)) {
			sop_cond_wait(&s->changed, &s->lock, -1);
			continue;
		}
		/* Waits above are as long as a creation takes, each step of which is bounded, or
		 * an append. */
		if (made++ > PLACE_TRIES) {
			sop_unlock(&s->lock);
			return sop_fail(e, -EIO, "segments fail as soon as they are made");
		}
		o->creating = true;
		sop_unlock(&s->lock);
		rc = create(&seg, s, profile, stream, e);
		sop_lock(&s->lock);
		o->creating = false;
		if (!rc)
			publish(s, o, seg);
		pthread_cond_broadcast(&s->changed);
		sop_unlock(&s->lock);
		sop_segment_put(s, seg);
		if (rc)
			return rc;
		sop_lock(&s->lock);
	}
	sop_unlock(&s->lock);
	return 0;
}

/* Remember which shards an append reached, until it is synced. More different sets than there is
 * room for count as their common part: never more than is true. */
static void note_written(struct segment *seg, uint32_t ok)
{
	for (unsigned i = 0; i < seg->n_written; i++)
		if (seg->written[i] == ok)
			return;
	if (seg->n_written < SOP_WRITTEN_SETS)
		seg->written[seg->n_written++] = ok;
	else
		seg->written[SOP_WRITTEN_SETS - 1] &= ok;
}

void sop_segment_wrote(struct sop_segments *s, struct segment *seg, uint32_t tried, uint32_t ok,
	uint32_t unrecorded)
{
	SOP_LOCK_GUARD(&s->lock);
	/* What k shards do not hold is not a blob: nobody waits for it to be synced. */
	if ((unsigned)__builtin_popcount(ok) >= seg->info.k && !unrecorded)
		note_written(seg, ok);
	seg->dirty |= ok;
	seg->info.stale |= sop_segment_all(seg) & ~ok & ~unrecorded;
	if (seg->in_table)
		dirty_list_add(s, seg);
	if (tried != ok)
		seal_locked(s, seg);
}

void sop_segments_stale(struct sop_segments *s, uint64_t id, uint32_t shards)
{
	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	if (seg)
		seg->info.stale |= shards & sop_segment_all(seg);
}

void sop_segments_cached(struct sop_segments *s, uint64_t id, uint32_t shards)
{
	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = find(s, id);
	if (!seg)
		return;
	note_written(seg, shards);
	seg->dirty |= shards;
	seg->new_names |= shards;
	dirty_list_add(s, seg);
}

void sop_segment_busy_end(struct sop_segments *s, struct segment *seg)
{
	SOP_LOCK_GUARD(&s->lock);
	if (!--seg->busy && seg->mending)
		pthread_cond_broadcast(&s->changed);
}

void sop_segment_fill_end(struct sop_segments *s, struct segment *seg)
{
	sop_lock(&s->lock);
	seg->filling = false;
	pthread_cond_broadcast(&s->changed);
	sop_unlock(&s->lock);
	sop_segment_busy_end(s, seg);
}

/* Nothing is said of the shard then: what it lacks it lacked before. */
bool sop_segment_mended(struct sop_segments *s, struct segment *seg, const struct sop_shard_file *f)
{
	SOP_LOCK_GUARD(&s->lock);
	if (seg->file[f->shard] != f ||
		f->file->disk != sop_members_disk(s->mem, sop_segment_disk(seg, f->shard)))
		return false;
	seg->dirty |= 1u << f->shard;
	if (seg->in_table)
		dirty_list_add(s, seg);
	return true;
}

/* --- sync -----------------------------------------------------------------------------------
 */

struct sync_item {
	struct segment *seg;
	uint32_t dirty, names, failed;
	uint32_t written[SOP_WRITTEN_SETS];
	unsigned n_written;
	struct sop_shard_file *file[SOP_EC_MAX];
	int rc[SOP_EC_MAX];
	int request[SOP_EC_MAX];
	int names_rc; /* -ENOMEM: the names were not tried */
};

/* Take the dirty marks of all segments, and the files that go with them: once a mark is taken, a
 * thread that opens the file anew cannot tell that something was written through the one before.
 * The lock is held. */
static int collect(struct sop_segments *s, struct sync_item **out, size_t *n)
{
	struct sync_item *items;
	size_t count = 0;

	for (struct segment *seg = s->dirty; seg; seg = seg->dirty_next)
		count++;
	items = calloc(count ? count : 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	for (*n = 0; s->dirty; ++*n) {
		struct segment *seg = s->dirty;
		struct sync_item *it = &items[*n];

		s->dirty = seg->dirty_next;
		seg->on_dirty_list = false; /* its reference is ours now */
		it->seg = seg;
		it->dirty = seg->dirty;
		it->names = seg->new_names;
		it->n_written = seg->n_written;
		memcpy(it->written, seg->written, sizeof(it->written));
		sop_shard_files_dirty(s, seg, it->dirty, it->file, it->rc);
		seg->dirty = seg->new_names = 0;
		seg->n_written = 0;
	}
	*out = items;
	return 0;
}

/* -ENOMEM, -EMFILE, -ENFILE: not all of them; a shortage of ours is no failure of the disk. */
static int add_requests(struct sop_segments *s, struct sync_item *it, struct sop_batch *b)
{
	uint32_t closed = 0;
	int rc = 0;

	SOP_EACH_BIT(l, it->dirty)
	if (!it->file[l] && !it->rc[l])
		closed |= 1u << l;
	sop_shard_files_get(s, it->seg, closed, true, it->file, it->rc);
	SOP_EACH_BIT(i, it->dirty)
	{
		if (it->rc[i])
			continue;
		it->request[i] = sop_batch_add(b, SOP_IO_DATASYNC, it->file[i]->file, NULL, 0, 0);
		if (it->request[i] < 0)
			it->rc[i] = it->request[i];
	}
	SOP_EACH_BIT(i, it->dirty)
	if (it->rc[i] == -ENOMEM || it->rc[i] == -EMFILE || it->rc[i] == -ENFILE)
		rc = it->rc[i];
	return rc;
}

static void put_files(struct sop_segments *s, struct sync_item *it)
{
	SOP_EACH_BIT(i, it->dirty)
	{
		sop_shard_file_put(s, it->file[i]);
		it->file[i] = NULL;
	}
}

static void take_results(struct sop_segments *s, struct sync_item *it, struct sop_batch *b)
{
	SOP_EACH_BIT(l, it->dirty)
	{
		if (!it->rc[l])
			it->rc[l] = sop_batch_result(b, it->request[l]);
		sop_segment_note(s, sop_segment_disk(it->seg, l), SOP_EVENT_WRITE, it->rc[l]);
	}
	SOP_EACH_BIT(i, it->dirty)
	{
		sop_shard_file_put(s, it->file[i]);
		if (!it->rc[i])
			continue;
		it->failed |= 1u << i;
		sop_segment_unsynced(s, sop_segment_disk(it->seg, i), it->rc[i]);
		sop_log(sop_members_log(s->mem), SOP_LOG_WARNING, "blob",
			"op=sync segment=%016" PRIx64 " disk=%u code=%s: shard not synced",
			it->seg->info.id, sop_segment_disk(it->seg, i), sop_err_name(it->rc[i]));
	}
	if (it->names & ~it->failed) {
		uint32_t failed = 0;

		it->names_rc = sop_shard_names_sync(s, it->seg, it->names & ~it->failed, &failed);
		it->failed |= failed;
	}
}

/* The lock is held. Take in what failed; SOP_ELOST when a blob is left with fewer than k shards:
 * then the marks come back, so that every later sync says so too. */
static int settle(struct sop_segments *s, struct sync_item *it, struct sop_err *e)
{
	struct segment *seg = it->seg;
	int rc = 0;

	if (it->failed) {
		seg->info.stale |= it->failed;
		seg->unsynced |= it->failed;
		seg->new_names |= it->names & it->failed;
		seal_locked(s, seg);
	}
	for (unsigned i = 0; i < it->n_written; i++) {
		unsigned left = (unsigned)__builtin_popcount(it->written[i] & ~seg->unsynced);

		if (left >= seg->info.k)
			continue;
		note_written(seg, it->written[i]);
		rc = sop_fail(e, SOP_ELOST,
			"segment %016" PRIx64 ": %u shards could be synced, %u are needed",
			seg->info.id, left, seg->info.k);
	}
	if (rc && seg->in_table) {
		seg->dirty |= it->dirty;
		dirty_list_add(s, seg);
	}
	return rc;
}

/* Marks taken, nothing done: put them back. The lock is held. */
static void restore(struct sop_segments *s, struct sync_item *it)
{
	it->seg->dirty |= it->dirty;
	it->seg->new_names |= it->names;
	for (unsigned i = 0; i < it->n_written; i++)
		note_written(it->seg, it->written[i]);
	if (it->seg->in_table)
		dirty_list_add(s, it->seg);
}

struct sop_segments_syncing {
	struct sop_segments *s;
	struct sop_batch *b;
	struct sync_item *items;
	size_t n;
	uint64_t number; /* of this sync */
};

static void items_put(struct sop_segments *s, struct sync_item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sop_segment_put(s, items[i].seg);
	free(items);
}

/* For want of something of ours: all is as it was. */
static int items_begin(
	struct sop_segments *s, struct sync_item *items, size_t n, struct sop_batch *b)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = add_requests(s, &items[i], b);
	if (!rc)
		return 0;
	sop_lock(&s->lock);
	for (size_t i = 0; i < n; i++)
		restore(s, &items[i]);
	sop_unlock(&s->lock);
	/* Not before they are marked again: until then they may be closed. */
	for (size_t i = 0; i < n; i++)
		put_files(s, &items[i]);
	return rc;
}

static int items_end(struct sop_segments *s, struct sync_item *items, size_t n, struct sop_batch *b,
	struct sop_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		take_results(s, &items[i], b);
	sop_lock(&s->lock);
	for (size_t i = 0; i < n; i++) {
		int one = settle(s, &items[i], e);

		if (!one && items[i].names_rc) {
			one = sop_fail(e, items[i].names_rc, "sync");
			items[i].dirty &= ~items[i].failed;
			items[i].names &= ~items[i].failed;
			restore(s, &items[i]);
		}
		if (!rc)
			rc = one;
	}
	sop_unlock(&s->lock);
	return rc;
}

/* The lock is held. One's own turn, or another's sync that covers this call: false. */
static bool sync_turn(struct sop_segments *s)
{
	uint64_t want = s->syncs_begun + 1;

	while (s->syncs_done < want && s->sync_running)
		sop_cond_wait(&s->changed, &s->lock, -1);
	if (s->syncs_done >= want)
		return false;
	s->sync_running = true;
	return true;
}

static void sync_over(struct sop_segments *s, uint64_t done)
{
	SOP_LOCK_GUARD(&s->lock);
	s->sync_running = false;
	s->syncs_done = SOP_MAX(s->syncs_done, done);
	pthread_cond_broadcast(&s->changed);
}

/* A sync that starts after this call covers it: so of several callers that find one running, one
 * runs the next for all of them. One that failed covers nobody but the caller who ran it: the
 * others see for themselves. */
int sop_segments_sync_begin(struct sop_segments_syncing **out, struct sop_segments *s,
	struct sop_batch *b, struct sop_err *e)
{
	struct sop_segments_syncing *x = calloc(1, sizeof(*x));
	int rc;

	*out = NULL;
	if (!x)
		return sop_fail(e, -ENOMEM, "sync");
	sop_lock(&s->lock);
	if (!sync_turn(s)) {
		sop_unlock(&s->lock);
		free(x);
		return 0;
	}
	*x = (struct sop_segments_syncing){.s = s, .b = b, .number = ++s->syncs_begun};
	rc = collect(s, &x->items, &x->n);
	sop_unlock(&s->lock);
	if (!rc)
		rc = items_begin(s, x->items, x->n, b);
	if (!rc) {
		*out = x;
		return 0;
	}
	sync_over(s, 0);
	items_put(s, x->items, x->n);
	free(x);
	return sop_fail(e, rc, "sync");
}

int sop_segments_sync_end(struct sop_segments_syncing *x, struct sop_err *e)
{
	int rc;

	if (!x)
		return 0;
	rc = items_end(x->s, x->items, x->n, x->b, e);
	sync_over(x->s, rc ? 0 : x->number);
	items_put(x->s, x->items, x->n);
	free(x);
	return rc;
}

int sop_segments_sync(struct sop_segments *s, struct sop_err *e)
{
	struct sop_segments_syncing *x;
	struct sop_batch *b = sop_batch_new(s->io);
	int rc;

	if (!b)
		return sop_fail(e, -ENOMEM, "sync");
	rc = sop_segments_sync_begin(&x, s, b, e);
	if (!rc) {
		if (x)
			sop_batch_run(b, SOP_IO_PARALLEL, 0, sop_members_timeout_ms(s->mem));
		rc = sop_segments_sync_end(x, e);
	}
	sop_batch_put(b);
	return rc;
}
