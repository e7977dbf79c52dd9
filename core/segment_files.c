/* Shard files: their headers, names, creation, and the cache of open ones.
 *
 * Open files hang in the slots of their segments and on one list in order of use. Those of segments
 * being written, or written and not synced, stay; of the rest the oldest are closed when there are
 * too many. A member that was set aside and taken in again is another disk than before: files
 * opened through the old one are let go, and what was written through them and not synced counts as
 * lost.
 *
 * A crash while a segment is made leaves some of its files, perhaps without a whole header: nothing
 * refers to them, and sop_segments_scan() names their id so that they can be removed. */
#include "core/segment_int.h"

#include <inttypes.h>
#include <stdio.h>

static void dir_path(char *path, size_t len, uint64_t id)
{
	snprintf(path, len, SOP_PATH_SEGMENTS "/%02x", (unsigned)(id & 0xff));
}

static void shard_path(char *path, size_t len, uint64_t id, unsigned shard)
{
	snprintf(path, len, SOP_PATH_SEGMENTS "/%02x/%016" PRIx64 ".%u", (unsigned)(id & 0xff), id,
		shard);
}

/* "0123456789abcdef.3" -> id, shard. Only the one spelling that shard_path() makes. */
static bool name_parse(const char *name, uint64_t *id, unsigned *shard)
{
	char again[32];
	unsigned long long v = 0;
	unsigned n = 0;

	if (strlen(name) < 18 || strlen(name) > 19 || sscanf(name, "%16llx.%2u", &v, &n) != 2)
		return false;
	snprintf(again, sizeof(again), "%016llx.%u", v, n);
	if (strcmp(name, again) || n >= SOP_EC_MAX)
		return false;
	*id = v;
	*shard = n;
	return true;
}

/* --- headers --------------------------------------------------------------------------------
 */

void sop_shard_header_encode(struct sop_disk_shard *raw, const struct sop_uuid *volume,
	const struct sop_segment_info *info, unsigned shard, uint64_t created_ns)
{
	memset(raw, 0, sizeof(*raw));
	memcpy(raw->magic, SOP_SHARD_MAGIC, sizeof(raw->magic));
	raw->version = le32_make(SOP_FORMAT_VERSION);
	memcpy(raw->volume_uuid, volume->b, sizeof(raw->volume_uuid));
	raw->segment = le64_make(info->id);
	raw->k = info->k;
	raw->m = info->m;
	raw->shard = (uint8_t)shard;
	raw->stream = info->stream;
	raw->flags = (uint8_t)((info->no_repair ? SOP_SEGMENT_NO_REPAIR : 0) |
			       (info->lengths ? SOP_SEGMENT_LENGTHS : 0));
	raw->created_ns = le64_make(created_ns);
	for (unsigned i = 0; i < info->k + info->m; i++)
		raw->disks[i] = le16_make(info->disks[i]);
	raw->crc = le32_make(sop_crc32c(0, raw, sizeof(*raw)));
}

int sop_shard_header_decode(struct sop_segment_info *out, const struct sop_disk_shard *raw,
	const struct sop_uuid *volume, uint64_t id, unsigned shard, unsigned member,
	struct sop_err *e)
{
	struct sop_disk_shard zeroed = *raw;
	unsigned n = (unsigned)raw->k + raw->m;

	if (memcmp(raw->magic, SOP_SHARD_MAGIC, sizeof(raw->magic)))
		return sop_fail(e, SOP_ECORRUPT, "no shard header");
	if (le32_get(raw->version) != SOP_FORMAT_VERSION)
		return sop_fail(e, SOP_EVERSION, "shard header of version %u, this is %u",
			le32_get(raw->version), SOP_FORMAT_VERSION);
	zeroed.crc = le32_make(0);
	if (sop_crc32c(0, &zeroed, sizeof(zeroed)) != le32_get(raw->crc))
		return sop_fail(e, SOP_ECORRUPT, "shard header");
	if (memcmp(raw->volume_uuid, volume->b, sizeof(raw->volume_uuid)))
		return sop_fail(e, SOP_EFOREIGN, "shard header");
	if (le64_get(raw->segment) != id || raw->shard != shard || !raw->k || n > SOP_EC_MAX ||
		shard >= n || raw->stream >= SOP_STREAMS || le16_get(raw->disks[shard]) != member)
		return sop_fail(e, SOP_ECORRUPT, "shard header of another file");
	memset(out, 0, sizeof(*out));
	out->id = id;
	out->k = raw->k;
	out->m = raw->m;
	out->stream = raw->stream;
	out->no_repair = raw->flags & SOP_SEGMENT_NO_REPAIR;
	out->lengths = raw->flags & SOP_SEGMENT_LENGTHS;
	for (unsigned i = 0; i < n; i++) {
		out->disks[i] = le16_get(raw->disks[i]);
		if (out->disks[i] >= SOP_MEMBERS_MAX)
			return sop_fail(
				e, SOP_ECORRUPT, "shard header names member %u", out->disks[i]);
	}
	return 0;
}

/* 0 when the file has a header that verifies. */
static int header_read(struct sop_segment_info *out, struct sop_file *f,
	const struct sop_uuid *volume, uint64_t id, unsigned shard, unsigned member)
{
	struct sop_disk_shard raw;
	struct iovec iov = {&raw, sizeof(raw)};
	ssize_t got = f->ops->preadv(f, &iov, 1, 0);

	if (got < 0)
		return (int)got;
	if ((size_t)got != sizeof(raw))
		return SOP_ECORRUPT;
	return sop_shard_header_decode(out, &raw, volume, id, shard, member, NULL);
}

/* --- the cache of open files ----------------------------------------------------------------
 */

static void lru_remove(struct sop_segments *s, struct sop_shard_file *f)
{
	if (f->newer)
		f->newer->older = f->older;
	else
		s->newest = f->older;
	if (f->older)
		f->older->newer = f->newer;
	else
		s->oldest = f->newer;
	f->newer = f->older = NULL;
	s->n_files--;
}

static void lru_push(struct sop_segments *s, struct sop_shard_file *f)
{
	f->older = s->newest;
	f->newer = NULL;
	if (s->newest)
		s->newest->newer = f;
	else
		s->oldest = f;
	s->newest = f;
	s->n_files++;
}

/* Files taken out under the lock, to be closed after it: chained by `older`. */
static void close_chain(struct sop_shard_file *f)
{
	while (f) {
		struct sop_shard_file *next = f->older;

		f->file->ops->file_close(f->file);
		free(f);
		f = next;
	}
}

/* Take f out of its slot, and drop the slot's reference; onto the chain when it was the last. */
static void slot_clear(
	struct sop_segments *s, struct sop_shard_file *f, struct sop_shard_file **chain)
{
	lru_remove(s, f);
	f->seg->file[f->shard] = NULL;
	f->seg = NULL;
	if (!--f->refs) {
		f->older = *chain;
		*chain = f;
	}
}

static struct sop_shard_file *trim(struct sop_segments *s)
{
	struct sop_shard_file *chain = NULL, *f = s->oldest, *newer;

	for (; f && s->n_files > s->files_max; f = newer) {
		newer = f->newer;
		if (f->refs == 1 && !f->seg->open && !(f->seg->dirty & (1u << f->shard)))
			slot_clear(s, f, &chain);
	}
	return chain;
}

static struct sop_shard_file *take(struct sop_segments *s, struct segment *seg, unsigned i)
{
	struct sop_shard_file *f = seg->file[i];

	f->refs++;
	if (s->newest != f) {
		lru_remove(s, f);
		lru_push(s, f);
	}
	return f;
}

void sop_shard_file_put(struct sop_segments *s, struct sop_shard_file *f)
{
	bool last;

	if (!f)
		return;
	sop_lock(&s->lock);
	last = !--f->refs;
	sop_unlock(&s->lock);
	if (last) {
		f->older = NULL;
		close_chain(f);
	}
}

void sop_shard_files_put(struct sop_segments *s, uint32_t mask, struct sop_shard_file **files)
{
	struct sop_shard_file *chain = NULL;

	sop_lock(&s->lock);
	SOP_EACH_BIT(i, mask)
	{
		struct sop_shard_file *f = files[i];

		if (f && !--f->refs) {
			f->older = chain;
			chain = f;
		}
	}
	sop_unlock(&s->lock);
	close_chain(chain);
}

/* Is the slot's file one of the disk as it is open now? */
static bool is_current(struct sop_segments *s, struct segment *seg, unsigned i)
{
	struct sop_shard_file *f = seg->file[i];

	return f && f->file->disk == sop_members_disk(s->mem, sop_segment_disk(seg, i));
}

uint32_t sop_shard_files_cached(
	struct sop_segments *s, struct segment *seg, uint32_t mask, struct sop_shard_file **files)
{
	uint32_t got = 0;

	SOP_LOCK_GUARD(&s->lock);
	SOP_EACH_BIT(i, mask)
	{
		if (!is_current(s, seg, i))
			continue;
		files[i] = take(s, seg, i);
		got |= 1u << i;
	}
	return got;
}

void sop_shard_files_dirty(struct sop_segments *s, struct segment *seg, uint32_t mask,
	struct sop_shard_file **files, int *rc)
{
	SOP_EACH_BIT(i, mask)
	{
		if (!seg->file[i])
			continue;
		if (!is_current(s, seg, i))
			rc[i] = -ENODEV;
		else if (seg->file[i]->writable)
			files[i] = take(s, seg, i);
	}
}

void sop_shard_files_drop(struct sop_segments *s, struct segment *seg)
{
	struct sop_shard_file *chain = NULL;

	sop_lock(&s->lock);
	for (unsigned i = 0; i < seg->n; i++)
		if (seg->file[i])
			slot_clear(s, seg->file[i], &chain);
	sop_unlock(&s->lock);
	close_chain(chain);
}

/* The shard was written through a disk that is gone: nobody can tell what of it reached the medium.
 */
static void lose_unsynced(struct segment *seg, unsigned i)
{
	uint32_t bit = 1u << i;

	if (!(seg->dirty & bit))
		return;
	seg->dirty &= ~bit;
	seg->unsynced |= bit;
	seg->info.stale |= bit;
}

/* Put a file just opened into its slot, or use the one that another thread put there meanwhile. */
static struct sop_shard_file *install(struct sop_segments *s, struct segment *seg, unsigned i,
	struct sop_file *file, bool writable)
{
	struct sop_shard_file *f = calloc(1, sizeof(*f)), *chain = NULL, *old, *got;

	if (!f) {
		file->ops->file_close(file);
		return NULL;
	}
	*f = (struct sop_shard_file){.file = file, .shard = i, .writable = writable, .refs = 1};
	sop_lock(&s->lock);
	if (file->fd >= 0)
		s->real = true;
	seg->missing &= ~(1u << i);
	old = seg->file[i];
	if (is_current(s, seg, i) && (old->writable || !writable)) {
		chain = f;
	} else {
		if (old && !is_current(s, seg, i))
			lose_unsynced(seg, i);
		if (old)
			slot_clear(s, old, &chain);
		f->seg = seg;
		seg->file[i] = f;
		lru_push(s, f);
	}
	got = take(s, seg, i);
	if (chain != f) {
		struct sop_shard_file *more = trim(s), **end = &chain;

		while (*end)
			end = &(*end)->older;
		*end = more;
	}
	sop_unlock(&s->lock);
	close_chain(chain);
	return got;
}

static int call_open(struct sop_call *c)
{
	return c->disk->ops->file_open(&c->opened, c->disk, c->path, c->flags);
}

static void call_fill(struct sop_call *c, struct sop_segments *s, struct segment *seg, unsigned i,
	int (*fn)(struct sop_call *c))
{
	c->fn = fn;
	c->shard = i;
	c->id = seg->info.id;
	c->member = sop_segment_disk(seg, i);
	c->disk = sop_members_disk(s->mem, c->member);
	c->volume = sop_members_label(s->mem)->volume_uuid;
	shard_path(c->path, sizeof(c->path), c->id, i);
}

static bool is_real(struct sop_segments *s)
{
	SOP_LOCK_GUARD(&s->lock);
	return s->real;
}

static void calls_run(struct sop_segments *s, struct sop_calls *calls)
{
	sop_calls_run(calls, is_real(s), sop_members_timeout_ms(s->mem));
}

static int open_result(struct sop_segments *s, struct segment *seg, struct sop_call *c, bool write,
	struct sop_shard_file **out)
{
	if (c->rc == -ENOENT) {
		SOP_LOCK_GUARD(&s->lock);
		seg->missing |= 1u << c->shard;
	}
	if (c->rc)
		return c->rc;
	*out = install(s, seg, c->shard, c->opened, write);
	return *out ? 0 : -ENOMEM;
}

void sop_shard_files_get(struct sop_segments *s, struct segment *seg, uint32_t mask, bool write,
	struct sop_shard_file **files, int *rc)
{
	struct sop_calls *calls;
	uint32_t need = 0;
	size_t n = 0;

	/* A disk set aside is not waited for, even where its file is open. */
	sop_lock(&s->lock);
	SOP_EACH_BIT(i, mask)
	{
		files[i] = NULL;
		rc[i] = 0;
		if (!sop_members_disk(s->mem, sop_segment_disk(seg, i)))
			rc[i] = -ENODEV;
		else if (is_current(s, seg, i) && (!write || seg->file[i]->writable))
			files[i] = take(s, seg, i);
		else
			need |= 1u << i;
	}
	sop_unlock(&s->lock);
	if (!need)
		return;
	calls = sop_calls_new((size_t)__builtin_popcount(need));
	SOP_EACH_BIT(l, need)
	{
		rc[l] = -ENOMEM;
		if (!calls)
			continue;
		calls->call[n].flags = write ? SOP_OPEN_WRITE : SOP_OPEN_READ;
		call_fill(&calls->call[n++], s, seg, l, call_open);
	}
	if (!calls)
		return;
	calls_run(s, calls);
	for (size_t i = 0; i < n; i++)
		rc[calls->call[i].shard] =
			open_result(s, seg, &calls->call[i], write, &files[calls->call[i].shard]);
	sop_calls_put(calls);
}

static int call_size(struct sop_call *c)
{
	return c->file->ops->size(c->file, &c->value);
}

static int call_punch(struct sop_call *c)
{
	return c->file->ops->punch(c->file, c->off, c->len);
}

static int call_punch_all(struct sop_call *c)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_ranges && !rc; i++)
		rc = c->file->ops->punch(c->file, c->range[i].off, c->range[i].len);
	return rc;
}

/* --- making files ---------------------------------------------------------------------------
 */

static int make_dir(struct sop_call *c)
{
	char path[32];
	int rc;

	dir_path(path, sizeof(path), c->id);
	rc = c->disk->ops->mkdir(c->disk, path);
	if (rc != -ENOENT)
		return rc;
	rc = c->disk->ops->mkdir(c->disk, SOP_PATH_SEGMENTS);
	if (!rc)
		rc = c->disk->ops->syncdir(c->disk, "");
	return rc ? rc : c->disk->ops->mkdir(c->disk, path);
}

static int header_write(struct sop_call *c, struct sop_file *f)
{
	struct iovec iov = {&c->header, sizeof(c->header)};
	ssize_t put = f->ops->pwritev(f, &iov, 1, 0);

	if (put < 0)
		return (int)put;
	return (size_t)put == sizeof(c->header) ? 0 : -EIO;
}

/* A new file with its header. On failure nothing is left open; a file may be left on the disk. */
static int call_create(struct sop_call *c)
{
	struct sop_file *f = NULL;
	int flags = SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL;
	int rc = make_dir(c);

	if (!rc)
		rc = c->disk->ops->file_open(&f, c->disk, c->path, flags);
	if (rc)
		return rc;
	c->value = 1; /* it is ours to remove */
	rc = header_write(c, f);
	if (rc)
		f->ops->file_close(f);
	else
		c->opened = f;
	return rc;
}

/* The file for writing; made when it is not there; with a header that verifies. value: 1 = the name
 * may be new. */
static int call_mend(struct sop_call *c)
{
	struct sop_segment_info info;
	struct sop_file *f = NULL;
	int rc = c->disk->ops->file_open(&f, c->disk, c->path, SOP_OPEN_WRITE);

	c->value = rc == -ENOENT;
	if (rc == -ENOENT) {
		rc = make_dir(c);
		if (!rc)
			rc = c->disk->ops->file_open(
				&f, c->disk, c->path, SOP_OPEN_WRITE | SOP_OPEN_CREATE);
	}
	if (rc)
		return rc;
	if (header_read(&info, f, &c->volume, c->id, c->shard, c->member)) {
		rc = header_write(c, f);
		if (rc) {
			f->ops->file_close(f);
			return rc;
		}
	}
	c->opened = f;
	return 0;
}

static int call_unlink(struct sop_call *c)
{
	int rc = c->disk->ops->unlink(c->disk, c->path);

	return rc == -ENOENT ? 0 : rc;
}

static void call_header(struct sop_call *c, struct sop_segments *s, struct segment *seg)
{
	const struct sop_clock *clock = sop_members_clock(s->mem);

	sop_shard_header_encode(
		&c->header, &c->volume, &seg->info, c->shard, clock->wall_ns(clock->ctx));
}

/* Best effort: what stays behind is a file nothing refers to. */
static void unlink_shards(struct sop_segments *s, struct segment *seg, uint32_t shards)
{
	struct sop_calls *calls = sop_calls_new((size_t)__builtin_popcount(shards));
	size_t n = 0;

	if (!calls)
		return;
	SOP_EACH_BIT(i, shards)
	call_fill(&calls->call[n++], s, seg, i, call_unlink);
	calls_run(s, calls);
	sop_calls_put(calls);
}

int sop_shard_files_create(struct sop_segments *s, struct segment *seg, uint32_t shards,
	uint32_t *failed, struct sop_err *e)
{
	struct sop_calls *calls = sop_calls_new((size_t)__builtin_popcount(shards));
	uint32_t made = 0;
	size_t n = 0;
	int rc = 0;

	*failed = 0;
	if (!calls)
		return sop_fail(e, -ENOMEM, "segment files");
	SOP_EACH_BIT(i, shards)
	{
		call_fill(&calls->call[n], s, seg, i, call_create);
		call_header(&calls->call[n++], s, seg);
	}
	calls_run(s, calls);
	for (size_t i = 0; i < n; i++) {
		struct sop_call *c = &calls->call[i];
		struct sop_shard_file *f = NULL;

		int one = open_result(s, seg, c, true, &f);

		if (c->rc != -ETIMEDOUT && c->value)
			made |= 1u << c->shard;
		sop_shard_file_put(s, f);
		if (!one)
			continue;
		*failed |= 1u << c->shard;
		if (one != -EEXIST)
			sop_segment_blame(s, c->member, SOP_EVENT_WRITE, one);
		if (!rc)
			rc = sop_fail(e, one, "d%u: %s", c->member + 1, c->path);
	}
	sop_calls_put(calls);
	if (rc) {
		sop_shard_files_drop(s, seg);
		unlink_shards(s, seg, made);
	}
	return rc;
}

int sop_shard_file_mend(
	struct sop_segments *s, struct segment *seg, unsigned shard, struct sop_shard_file **out)
{
	struct sop_calls *calls = sop_calls_new(1);
	struct sop_call *c;
	int rc;

	if (!calls)
		return -ENOMEM;
	c = &calls->call[0];
	call_fill(c, s, seg, shard, call_mend);
	call_header(c, s, seg);
	calls_run(s, calls);
	rc = open_result(s, seg, c, true, out);
	if (!rc && c->value) {
		SOP_LOCK_GUARD(&s->lock);
		seg->new_names |= 1u << shard;
		seg->absent &= ~(1u << shard);
	}
	sop_calls_put(calls);
	return rc;
}

/* --- targets of mending ---------------------------------------------------------------------
 */

struct sop_shard_file *sop_shard_file_take(
	struct sop_segments *s, struct segment *seg, unsigned shard)
{
	struct sop_shard_file *f = seg->file[shard], *chain = NULL;

	if (!f)
		return NULL;
	f->refs++;
	slot_clear(s, f, &chain);
	return f;
}

/* A file of a shard begun anew: what an earlier try has left goes first. */
static int call_anew(struct sop_call *c)
{
	int rc = call_unlink(c);

	if (rc && rc != -ENOENT)
		return rc;
	rc = call_mend(c);
	c->value = 1;
	return rc;
}

static void call_place(struct sop_call *c, struct sop_segments *s, struct segment *seg,
	unsigned shard, unsigned member, int (*fn)(struct sop_call *c))
{
	const struct sop_clock *clock = sop_members_clock(s->mem);
	struct sop_segment_info info;

	call_fill(c, s, seg, shard, fn);
	c->member = member;
	c->disk = sop_members_disk(s->mem, member);
	sop_lock(&s->lock);
	info = seg->info;
	sop_unlock(&s->lock);
	info.disks[shard] = (uint16_t)member;
	sop_shard_header_encode(&c->header, &c->volume, &info, shard, clock->wall_ns(clock->ctx));
}

int sop_shard_file_at(struct sop_segments *s, struct segment *seg, unsigned shard, unsigned member,
	bool keep, struct sop_file **out)
{
	struct sop_calls *calls = sop_calls_new(1);
	int rc;

	if (!calls)
		return -ENOMEM;
	call_place(&calls->call[0], s, seg, shard, member, keep ? call_mend : call_anew);
	calls_run(s, calls);
	rc = calls->call[0].rc;
	if (!rc)
		*out = calls->call[0].opened;
	sop_calls_put(calls);
	return rc;
}

static int call_settle(struct sop_call *c)
{
	int rc = c->file->ops->datasync(c->file);

	if (!rc)
		rc = c->disk->ops->syncdir(c->disk, c->path);
	if (!rc)
		rc = c->disk->ops->syncdir(c->disk, SOP_PATH_SEGMENTS);
	/* Who reads it back asks the medium. */
	if (!rc && c->file->ops->forget)
		c->file->ops->forget(c->file);
	return rc;
}

int sop_shard_file_settle(struct sop_segments *s, struct segment *seg, unsigned shard,
	unsigned member, struct sop_file *f, const struct sop_range64 *gap, size_t n)
{
	struct sop_calls *calls = sop_calls_new(n + 1);
	int rc = 0;

	if (!calls)
		return -ENOMEM;
	for (size_t i = 0; i <= n; i++) {
		struct sop_call *c = &calls->call[i];

		call_place(c, s, seg, shard, member, i < n ? call_punch : call_settle);
		dir_path(c->path, sizeof(c->path), seg->info.id);
		c->file = f;
		sop_file_get(f);
		if (i < n) {
			c->off = gap[i].off;
			c->len = gap[i].len;
		}
	}
	/* One after the other: the sync comes last. */
	sop_calls_run(calls, false, sop_members_timeout_ms(s->mem));
	for (size_t i = 0; i <= n && !rc; i++)
		rc = calls->call[i].rc;
	sop_calls_put(calls);
	return rc;
}

void sop_shard_files_sizes(struct sop_segments *s, struct segment *seg, uint32_t mask,
	struct sop_shard_file **files, uint64_t *size, int *rc)
{
	struct sop_calls *calls = sop_calls_new((size_t)__builtin_popcount(mask));
	size_t n = 0;

	SOP_EACH_BIT(i, mask)
	{
		rc[i] = -ENOMEM;
		if (!calls)
			continue;
		call_fill(&calls->call[n], s, seg, i, call_size);
		calls->call[n].file = files[i]->file;
		sop_file_get(files[i]->file);
		n++;
	}
	if (!calls)
		return;
	calls_run(s, calls);
	for (size_t j = 0; j < n; j++) {
		rc[calls->call[j].shard] = calls->call[j].rc;
		size[calls->call[j].shard] = calls->call[j].value;
	}
	sop_calls_put(calls);
}

/* --- looking at files -----------------------------------------------------------------------
 */

/* To each call its own: a disk that hangs may hold it longer than the caller waits. */
static int copy_ranges(struct sop_calls *calls, const struct sop_range64 *range, size_t n)
{
	for (size_t i = 0; i < calls->n && n; i++) {
		struct sop_call *c = &calls->call[i];

		c->range = malloc(n * sizeof(*range));
		if (!c->range)
			return -ENOMEM;
		memcpy(c->range, range, n * sizeof(*range));
		c->n_ranges = n;
	}
	return 0;
}

/* Run fn on the open files of a segment. each() gets the calls that have ended, in order. */
static int on_files(struct sop_segments *s, struct segment *seg, bool write,
	int (*fn)(struct sop_call *c), const struct sop_range64 *range, size_t n,
	void (*each)(void *arg, struct sop_call *c), void *arg)
{
	struct sop_shard_file *files[SOP_EC_MAX] = {NULL};
	int rcs[SOP_EC_MAX] = {0};
	struct sop_calls *calls = sop_calls_new(seg->n);

	if (!calls || copy_ranges(calls, range, n)) {
		sop_calls_put(calls);
		return -ENOMEM;
	}
	sop_shard_files_get(s, seg, sop_segment_all(seg), write, files, rcs);
	for (unsigned i = 0; i < seg->n; i++) {
		struct sop_call *c = &calls->call[i];

		call_fill(c, s, seg, i, fn);
		if (files[i]) {
			c->file = files[i]->file;
			sop_file_get(c->file);
			sop_shard_file_put(s, files[i]);
		} else {
			c->disk = NULL; /* not run */
		}
	}
	calls_run(s, calls);
	for (unsigned i = 0; i < seg->n; i++) {
		struct sop_call *c = &calls->call[i];

		if (rcs[i])
			c->rc = rcs[i];
		each(arg, c);
	}
	sop_calls_put(calls);
	return 0;
}

struct sizes {
	uint64_t end; /* the highest */
	int rc;
};

static void each_size(void *arg, struct sop_call *c)
{
	struct sizes *z = arg;

	if (!c->rc)
		z->end = SOP_MAX(z->end, c->value);
	else if (c->rc != -ENODEV && c->rc != -ENOENT && !z->rc)
		z->rc = c->rc;
}

static int call_cut(struct sop_call *c)
{
	return c->file->ops->truncate(c->file, c->range->off);
}

static void each_cut(void *arg, struct sop_call *c)
{
	bool *all = arg;

	*all &= !c->rc;
}

bool sop_shard_files_cut(struct sop_segments *s, struct segment *seg)
{
	struct sop_range64 beyond = {.off = seg->info.end};
	bool all = true;

	return !on_files(s, seg, true, call_cut, &beyond, 1, each_cut, &all) && all;
}

static int file_end(struct sop_segments *s, struct segment *seg, uint64_t *end)
{
	struct sizes z = {0};
	int rc = on_files(s, seg, false, call_size, NULL, 0, each_size, &z);

	if (!rc && !z.end)
		rc = z.rc ? z.rc : -ENOENT;
	*end = z.end;
	return rc;
}

int sop_segments_file_end(struct sop_segments *s, uint64_t id, uint64_t *end, struct sop_err *e)
{
	struct segment *seg = NULL;
	int rc = sop_segment_get(&seg, s, id, e);

	if (rc)
		return rc;
	rc = file_end(s, seg, end);
	sop_segment_put(s, seg);
	return rc ? sop_fail(e, rc, "segment %016" PRIx64 ": size", id) : 0;
}

#define PUNCHES 64 /* in one call on a disk, whose time is bounded */

struct punches {
	struct sop_segments *s;
	int rc;
};

static void each_punch(void *arg, struct sop_call *c)
{
	struct punches *p = arg;

	if (!c->rc || c->rc == -ENODEV || c->rc == -ENOENT)
		return;
	sop_segment_blame(p->s, c->member, SOP_EVENT_WRITE, c->rc);
	/* One that is set aside for it keeps what it would not give back; the others have given. */
	if (!p->rc && sop_members_disk(p->s->mem, c->member))
		p->rc = c->rc;
}

/* Whoever mends the segment punches it again in what he writes. Without memory to tell him, space
 * leaks until the segment goes. */
static void punch_begin(
	struct sop_segments *s, struct segment *seg, const struct sop_range64 *range, size_t n)
{
	struct sop_mending *m;

	SOP_LOCK_GUARD(&s->lock);
	seg->busy++;
	m = seg->mending;
	if (!m)
		return;
	if (m->cap - m->n < n) {
		size_t cap = 2 * m->cap + n;
		struct sop_range64 *p = reallocarray(m->hole, cap, sizeof(*p));

		if (!p)
			return;
		m->hole = p;
		m->cap = cap;
	}
	memcpy(m->hole + m->n, range, n * sizeof(*range));
	m->n += n;
}

/* At most PUNCHES of whole pages. */
static int punch_some(
	struct sop_segments *s, struct segment *seg, const struct sop_range64 *range, size_t n)
{
	struct punches p = {.s = s};
	int rc;

	punch_begin(s, seg, range, n);
	rc = on_files(s, seg, true, call_punch_all, range, n, each_punch, &p);
	sop_segment_busy_end(s, seg);
	return rc ? rc : p.rc;
}

int sop_segments_punch(struct sop_segments *s, uint64_t id, const struct sop_range64 *range,
	size_t n, struct sop_err *e)
{
	struct sop_range64 pages[PUNCHES];
	struct segment *seg = NULL;
	size_t fit = 0;
	int rc = sop_segment_get(&seg, s, id, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < n && !rc; i++) {
		uint64_t off = range[i].off, end;

		if (off < SOP_SHARD_HEADER || sop_add_over(&end, off, range[i].len) ||
			end > SOP_SEGMENT_BYTES) {
			rc = -EINVAL;
			break;
		}
		off = sop_round_up(off, 4096);
		end -= end % 4096;
		if (off < end)
			pages[fit++] = (struct sop_range64){off, end - off};
		if (fit == PUNCHES || (fit && i + 1 == n)) {
			rc = punch_some(s, seg, pages, fit);
			fit = 0;
		}
	}
	sop_segment_put(s, seg);
	return rc ? sop_fail(e, rc, "segment %016" PRIx64 ": punch", id) : 0;
}

/* --- names in the folders -------------------------------------------------------------------
 */

static int call_syncdir(struct sop_call *c)
{
	int rc = c->disk->ops->syncdir(c->disk, c->path);

	/* The folder's own name, where it may be new. After its content: either order is fine,
	 * since nobody relies on either before both are done. */
	if (!rc && c->value)
		rc = c->disk->ops->syncdir(c->disk, SOP_PATH_SEGMENTS);
	return rc;
}

/* The lock is held. A disk taken in anew may have been put back to a state before the folder was
 * made. */
static bool is_named(struct sop_segments *s, unsigned member, uint64_t stay, unsigned xx)
{
	if (s->named_stay[member] != stay) {
		memset(s->named[member], 0, sizeof(s->named[member]));
		s->named_stay[member] = stay;
	}
	return s->named[member][xx / 64] >> (xx % 64) & 1;
}

int sop_shard_names_sync(
	struct sop_segments *s, struct segment *seg, uint32_t mask, uint32_t *failed)
{
	struct sop_calls *calls = sop_calls_new((size_t)__builtin_popcount(mask));
	unsigned xx = (unsigned)(seg->info.id & 0xff);
	uint64_t stay[SOP_EC_MAX];
	size_t n = 0;

	*failed = 0;
	if (!calls)
		return -ENOMEM;
	SOP_EACH_BIT(i, mask)
	{
		struct sop_call *c = &calls->call[n];
		bool named;

		call_fill(c, s, seg, i, call_syncdir);
		dir_path(c->path, sizeof(c->path), seg->info.id);
		stay[n] = sop_members_stay(s->mem, c->member);
		sop_lock(&s->lock);
		named = is_named(s, c->member, stay[n], xx);
		sop_unlock(&s->lock);
		if (c->disk != sop_members_disk(s->mem, c->member))
			stay[n] = 0; /* nobody's: another disk is in its place since */
		c->value = !named || !stay[n];
		n++;
	}
	calls_run(s, calls);
	for (size_t i = 0; i < n; i++) {
		struct sop_call *c = &calls->call[i];

		if (c->rc) {
			*failed |= 1u << c->shard;
			sop_segment_unsynced(s, c->member, c->rc);
			continue;
		}
		sop_lock(&s->lock);
		if (s->named_stay[c->member] == stay[i])
			s->named[c->member][xx / 64] |= 1ULL << (xx % 64);
		sop_unlock(&s->lock);
	}
	sop_calls_put(calls);
	return 0;
}

static int ids_add(struct sop_call *c, uint64_t id)
{
	if (c->n_ids == c->room) {
		size_t room = c->room ? c->room * 2 : 64;
		uint64_t *ids = reallocarray(c->ids, room, sizeof(*ids));

		if (!ids)
			return -ENOMEM;
		c->ids = ids;
		c->room = room;
	}
	c->ids[c->n_ids++] = id;
	return 0;
}

static int scan_name(void *arg, const char *name)
{
	struct sop_call *c = arg;
	uint64_t id;
	unsigned shard;

	if (!name_parse(name, &id, &shard) || (id & 0xff) != c->value)
		return 0;
	return ids_add(c, id);
}

/* All 256 folders by name: the list of a folder need not be stable while another is read. */
static int call_scan(struct sop_call *c)
{
	for (c->value = 0; c->value < 256; c->value++) {
		char path[32];
		int rc;

		dir_path(path, sizeof(path), c->value);
		rc = c->disk->ops->list(c->disk, path, scan_name, c);
		if (rc && rc != -ENOENT)
			return rc;
	}
	return 0;
}

static int id_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* One list out of those of the calls, sorted, each once. */
static int ids_merge(uint64_t **out, size_t *n_out, const struct sop_calls *calls)
{
	size_t total = 0, n = 0, left = 0;
	uint64_t *ids;

	for (size_t i = 0; i < calls->n; i++)
		if (!calls->call[i].rc)
			total += calls->call[i].n_ids;
	ids = calloc(total ? total : 1, sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < calls->n; i++)
		for (size_t j = 0; !calls->call[i].rc && j < calls->call[i].n_ids; j++)
			ids[n++] = calls->call[i].ids[j];
	qsort(ids, n, sizeof(*ids), id_cmp);
	for (size_t i = 0; i < n; i++)
		if (!i || ids[i] != ids[i - 1])
			ids[left++] = ids[i];
	*out = ids;
	*n_out = left;
	return 0;
}

/* Calls on every disk that is present. */
static struct sop_calls *calls_on_disks(
	struct sop_segments *s, uint64_t id, int (*fn)(struct sop_call *c))
{
	unsigned count = sop_members_count(s->mem);
	struct sop_calls *calls = sop_calls_new(count);

	for (unsigned i = 0; calls && i < count; i++) {
		struct sop_call *c = &calls->call[i];

		c->fn = fn;
		c->id = id;
		c->member = i;
		c->volume = sop_members_label(s->mem)->volume_uuid;
		if (sop_members_label(s->mem)->member[i].role & SOP_ROLE_DATA)
			c->disk = sop_members_disk(s->mem, i);
	}
	return calls;
}

int sop_segments_scan(
	struct sop_segments *s, int (*fn)(void *arg, uint64_t id), void *arg, struct sop_err *e)
{
	struct sop_calls *calls = calls_on_disks(s, 0, call_scan);
	sop_autofree uint64_t *ids = NULL;
	size_t n = 0;
	int rc;

	if (!calls)
		return sop_fail(e, -ENOMEM, "list of segments");
	calls_run(s, calls);
	for (size_t i = 0; i < calls->n; i++) {
		struct sop_call *c = &calls->call[i];

		if (!c->rc || c->rc == -ENODEV)
			continue;
		/* The others name the segments of a disk that cannot be listed. */
		sop_segment_blame(s, c->member, SOP_EVENT_READ, c->rc);
		sop_log(sop_members_log(s->mem), SOP_LOG_WARNING, "blob",
			"op=scan disk=%u code=%s: segments cannot be listed", c->member,
			sop_err_name(c->rc));
	}
	rc = ids_merge(&ids, &n, calls);
	sop_calls_put(calls);
	if (rc)
		return sop_fail(e, rc, "list of segments");
	for (size_t i = 0; !rc && i < n; i++)
		rc = fn(arg, ids[i]);
	return rc;
}

static int lookup_name(void *arg, const char *name)
{
	struct sop_call *c = arg;
	uint64_t id;
	unsigned shard;

	if (name_parse(name, &id, &shard) && id == c->id)
		c->value |= 1ULL << shard;
	return 0;
}

/* The shards of a segment that a folder has (value: a mask), and what the first good header says.
 */
static int call_lookup(struct sop_call *c)
{
	int rc;

	dir_path(c->path, sizeof(c->path), c->id);
	rc = c->disk->ops->list(c->disk, c->path, lookup_name, c);
	if (rc)
		return rc;
	rc = -ENOENT;
	SOP_EACH_BIT(i, (uint32_t)c->value)
	{
		struct sop_file *f = NULL;

		shard_path(c->path, sizeof(c->path), c->id, i);
		rc = c->disk->ops->file_open(&f, c->disk, c->path, SOP_OPEN_READ);
		if (rc)
			continue;
		rc = header_read(&c->info, f, &c->volume, c->id, i, c->member);
		f->ops->file_close(f);
		if (!rc)
			return 0;
	}
	return rc;
}

static bool names_shard(const struct sop_calls *calls, unsigned member, unsigned shard)
{
	for (size_t i = 0; i < calls->n; i++)
		if (calls->call[i].member == member)
			return !calls->call[i].rc && calls->call[i].value >> shard & 1;
	return false;
}

/* Nobody has shown it. Where as many disks as can hold it by themselves could not be asked, that
 * does not say that it is not there. */
static int not_found(struct sop_segments *s, const struct sop_calls *calls)
{
	const struct sop_label *l = sop_members_label(s->mem);
	unsigned silent = 0, enough = SOP_EC_MAX;
	int rc = -ENOENT;

	for (unsigned p = 0; p < l->profiles; p++)
		if (l->profile[p].name[0])
			enough = SOP_MIN(enough, (unsigned)l->profile[p].k);
	for (size_t i = 0; i < calls->n; i++) {
		int one = calls->call[i].rc;

		if (sop_blob_untold(one))
			return one;
		if (one == -ENODEV || one == -ENOENT || one == SOP_ECORRUPT ||
			one == SOP_EFOREIGN || one == SOP_EVERSION)
			continue;
		silent++;
		rc = one;
	}
	return silent < enough ? -ENOENT : rc;
}

int sop_shard_lookup(
	struct sop_segments *s, uint64_t id, struct sop_segment_info *out, struct sop_err *e)
{
	struct sop_calls *calls = calls_on_disks(s, id, call_lookup);
	int rc = -ENOENT;

	if (!calls)
		return sop_fail(e, -ENOMEM, "segment %016" PRIx64, id);
	calls_run(s, calls);
	for (size_t i = 0; i < calls->n && rc; i++) {
		if (calls->call[i].rc)
			continue;
		*out = calls->call[i].info;
		rc = 0;
	}
	if (rc)
		rc = not_found(s, calls);
	/* A shard that has been moved lies where its file is; while its old file is there as well,
	 * that one is whole, and the new one perhaps not. */
	for (size_t i = 0; i < calls->n && !rc; i++) {
		const struct sop_call *c = &calls->call[i];

		for (unsigned k = 0; !c->rc && k < (unsigned)out->k + out->m; k++)
			if (c->value >> k & 1 && !names_shard(calls, out->disks[k], k))
				out->disks[k] = (uint16_t)c->member;
	}
	sop_calls_put(calls);
	return rc ? sop_fail(e, rc, "segment %016" PRIx64, id) : 0;
}

/* By name, so that files without a good header go too. */
static int call_remove(struct sop_call *c)
{
	int rc;

	dir_path(c->path, sizeof(c->path), c->id);
	rc = c->disk->ops->list(c->disk, c->path, lookup_name, c);
	if (rc == -ENOENT)
		return 0;
	SOP_EACH_BIT(i, (uint32_t)c->value)
	{
		shard_path(c->path, sizeof(c->path), c->id, i);
		int one = call_unlink(c);

		if (one)
			rc = one;
	}
	return rc;
}

/* Known: the files of its shards, without a look at the folders. */
static struct sop_calls *calls_on_shards(struct sop_segments *s, struct segment *seg)
{
	struct sop_calls *calls = sop_calls_new(seg->n);

	for (unsigned i = 0; calls && i < seg->n; i++)
		call_fill(&calls->call[i], s, seg, i, call_unlink);
	return calls;
}

int sop_segment_unlink(struct sop_segments *s, uint64_t id, struct segment *seg, struct sop_err *e)
{
	struct sop_calls *calls =
		seg ? calls_on_shards(s, seg) : calls_on_disks(s, id, call_remove);
	int rc = 0;

	if (!calls)
		return sop_fail(e, -ENOMEM, "segment %016" PRIx64, id);
	calls_run(s, calls);
	for (size_t i = 0; i < calls->n; i++) {
		struct sop_call *c = &calls->call[i];

		if (!c->rc || c->rc == -ENODEV)
			continue;
		sop_segment_blame(s, c->member, SOP_EVENT_WRITE, c->rc);
		if (!rc)
			rc = sop_fail(
				e, c->rc, "d%u: removing segment %016" PRIx64, c->member + 1, id);
	}
	sop_calls_put(calls);
	return rc;
}

/* --- survey ---------------------------------------------------------------------------------
 */

static int survey_name(void *arg, const char *name)
{
	struct sop_call *c = arg;
	uint64_t id;
	unsigned shard;

	if (!name_parse(name, &id, &shard) || (id & 0xff) != c->value)
		return 0;
	/* Two numbers for each file. */
	return ids_add(c, id) ? -ENOMEM : ids_add(c, shard);
}

static int call_survey(struct sop_call *c)
{
	for (c->value = 0; c->value < 256; c->value++) {
		char path[32];
		int rc;

		dir_path(path, sizeof(path), c->value);
		rc = c->disk->ops->list(c->disk, path, survey_name, c);
		if (rc && rc != -ENOENT)
			return rc;
	}
	return 0;
}

struct named {
	uint64_t id;
	uint32_t shards;
};

static int named_cmp(const void *a, const void *b)
{
	return id_cmp(&((const struct named *)a)->id, &((const struct named *)b)->id);
}

/* What a folder has, by segment. */
static struct named *survey_sorted(const struct sop_call *c, size_t *n)
{
	struct named *list = calloc(c->n_ids / 2 + 1, sizeof(*list));
	size_t left = 0;

	if (!list)
		return NULL;
	for (size_t i = 0; i + 1 < c->n_ids; i += 2)
		list[i / 2] = (struct named){c->ids[i], 1u << c->ids[i + 1]};
	qsort(list, c->n_ids / 2, sizeof(*list), named_cmp);
	for (size_t i = 0; i < c->n_ids / 2; i++) {
		if (left && list[left - 1].id == list[i].id)
			list[left - 1].shards |= list[i].shards;
		else
			list[left++] = list[i];
	}
	*n = left;
	return list;
}

/* Under the lock: what is to be where, and is not; with `all`, what is there as well. next: of s,
 * before the list was begun. The number of shards that are stale from now on. */
static unsigned note_missing(struct sop_segments *s, unsigned member, const struct named *list,
	size_t n, uint64_t next, bool all)
{
	uint64_t young = s->epoch << SOP_SEGMENT_NUMBER_BITS | next;
	unsigned count = 0;

	for (size_t b = 0; b < SOP_SEGMENT_BUCKETS; b++)
		for (struct segment *seg = s->bucket[b]; seg; seg = seg->hash_next) {
			struct named key = {.id = seg->info.id}, *at;

			/* Made by this mount since the list was begun, or being made: its files
			 * may have come behind it. */
			if (seg->info.id >> SOP_SEGMENT_NUMBER_BITS == s->epoch &&
				(!seg->made || seg->info.id >= young))
				continue;
			at = bsearch(&key, list, n, sizeof(*list), named_cmp);
			for (unsigned i = 0; i < seg->n; i++) {
				uint32_t bit = 1u << i;

				if (seg->info.disks[i] != member || seg->info.stale & bit)
					continue;
				/* Also of an open segment: its file may be one of the folder that
				 * was there before, and nobody need append to it again. */
				if (!all && ((at && at->shards & bit) || is_current(s, seg, i)))
					continue;
				seg->info.stale |= bit;
				count++;
			}
		}
	return count;
}

/* Shards that lie on another member by now: what a move has left, whose record has been published
 * (the caller sees to that). Those that have not been read back there stay, and are counted. */
static uint32_t strays(
	struct sop_segments *s, unsigned member, const struct named *at, unsigned *kept)
{
	uint32_t mask = 0;

	struct segment *seg;

	SOP_LOCK_GUARD(&s->lock);
	seg = sop_segment_find_locked(s, at->id);
	SOP_EACH_BIT(i, seg ? at->shards : 0)
	{
		if (i < seg->n && seg->info.disks[i] == member)
			continue;
		if (i < seg->n && !(seg->info.read_back & ~seg->info.stale & 1u << i))
			++*kept;
		else
			mask |= 1u << i;
	}
	return mask;
}

static void remove_strays(
	struct sop_segments *s, unsigned member, const struct named *list, size_t n, unsigned *kept)
{
	for (size_t j = 0; j < n; j++) {
		uint32_t mask = strays(s, member, &list[j], kept);
		struct sop_calls *calls =
			mask ? sop_calls_new((size_t)__builtin_popcount(mask)) : NULL;
		size_t at = 0;

		if (!calls)
			continue;
		SOP_EACH_BIT(i, mask)
		{
			struct sop_call *c = &calls->call[at++];

			c->fn = call_unlink;
			c->member = member;
			c->disk = sop_members_disk(s->mem, member);
			shard_path(c->path, sizeof(c->path), list[j].id, i);
		}
		calls_run(s, calls);
		sop_calls_put(calls);
	}
}

/* The shard files a member has, by segment. */
static int list_shards(struct sop_segments *s, unsigned member, struct named **list, size_t *n)
{
	struct sop_calls *calls = sop_calls_new(1);
	struct sop_call *c;
	int rc;

	*list = NULL;
	if (!calls)
		return -ENOMEM;
	c = &calls->call[0];
	c->fn = call_survey;
	c->member = member;
	c->disk = sop_members_disk(s->mem, member);
	calls_run(s, calls);
	rc = c->rc;
	if (rc)
		sop_segment_blame(s, member, SOP_EVENT_READ, rc);
	else
		*list = survey_sorted(c, n);
	sop_calls_put(calls);
	return rc || *list ? rc : -ENOMEM;
}

int sop_segments_survey(struct sop_segments *s, unsigned member, unsigned *kept, struct sop_err *e)
{
	struct sop_member_status status;
	sop_autofree struct named *list = NULL;
	bool set_back = sop_members_set_back(s->mem, member);
	unsigned missing;
	uint64_t next;
	size_t n;
	int rc;

	*kept = 0;
	sop_lock(&s->lock);
	next = s->next;
	sop_unlock(&s->lock);
	rc = list_shards(s, member, &list, &n);
	if (rc)
		return sop_fail(e, rc, "d%u: list of shards", member + 1);
	sop_lock(&s->lock);
	missing = note_missing(s, member, list, n, next, set_back);
	sop_unlock(&s->lock);
	if (set_back)
		sop_members_set_back_noted(s->mem, member);
	sop_members_status(s->mem, member, &status);
	/* While a disk is being emptied, what has moved stays there until all is verified. */
	if (status.state != SOP_MEMBER_DRAINING)
		remove_strays(s, member, list, n, kept);
	if (missing)
		sop_log(sop_members_log(s->mem), SOP_LOG_WARNING, "blob",
			"op=survey disk=%u shards=%u: %s", member, missing,
			set_back ? "are of an old state, will be verified"
				 : "are not there, will be rebuilt");
	return 0;
}

/* False: nobody knows it any more. */
static bool unproven(struct sop_segments *s, unsigned member, const struct named *at,
	struct sop_segment_info *info, uint32_t *shards)
{
	struct segment *seg;

	*shards = 0;
	SOP_LOCK_GUARD(&s->lock);
	seg = sop_segment_find_locked(s, at->id);
	if (!seg)
		return false;
	*info = seg->info;
	SOP_EACH_BIT(i, at->shards & ~(info->read_back & ~info->stale))
	if (i < seg->n && info->disks[i] != member)
		*shards |= 1u << i;
	return *shards;
}

int sop_segments_unproven(struct sop_segments *s, unsigned member,
	int (*fn)(void *arg, const struct sop_segment_info *info, uint32_t shards), void *arg,
	struct sop_err *e)
{
	sop_autofree struct named *list = NULL;
	size_t n;
	int rc = list_shards(s, member, &list, &n);

	if (rc)
		return sop_fail(e, rc, "d%u: list of shards", member + 1);
	for (size_t i = 0; i < n && !rc; i++) {
		struct sop_segment_info info;
		uint32_t shards;

		if (unproven(s, member, &list[i], &info, &shards))
			rc = fn(arg, &info, shards);
	}
	return rc;
}
