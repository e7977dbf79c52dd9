/* A registry made anew from the nodes: each fragment of a node names its blob, each node its handle
 * and the LSN of its last change.
 *
 * Of the versions of a node that can still be read, the one written last counts, unless its LSN is
 * past the checkpoint's: then it is of a checkpoint that was never published. Space is taken in
 * rising order (segment, offset), so "written last" is the highest place. A node freed since may
 * get a slot again; nobody refers to it, and its number is not given out.
 *
 * A lost checkpoint is made anew as well. Its LSN is that of the newest block of the registry; when
 * that is gone too, the first journal file says it. Its lists of pending and uncommitted blobs are
 * gone: their space is found by the repair that follows, as a leak.
 *
 * The way a crash cannot hurt: first a checkpoint is published that holds all rebuilt slots as
 * flips, then the lost blocks are emptied, then the flips are applied, as every mount would. They
 * count as newly allocated when that checkpoint is loaded, so accounts are too high until the
 * repair. */
#include <inttypes.h>
#include <stdio.h>

#include "core/ec.h"
#include "core/fsck_own.h"
#include "core/journal_file.h"
#include "core/registry_block.h"
#include "core/segment_int.h"

#define CHUNK	 (1u << 20)
#define HOLE_MIN 128u /* zeros of a page's share that are taken for a hole */
#define INO_SANE ((uint64_t)1 << 60)

struct version {
	uint64_t handle, lsn;
	struct sop_blobref ref;
	bool master_root;
};

struct rebuild {
	const struct sop_fsck_opts *o;
	struct sop_members *mem;
	struct sop_iopool *io;
	struct sop_segments *seg;
	struct sop_regblocks *blocks;
	const struct sop_label *label;
	struct sop_checkpoint c;
	bool have; /* the checkpoint was there */
	struct flip_set flips;
	struct sop_blobref *place;
	size_t n_place, cap_place;
	struct version *node;
	size_t n_node;
	bool used;	/* a slot is as the nodes say */
	size_t unknown; /* places of nodes that might be newer than what can be read */
	struct sop_flip *flip;
	size_t n_flip, cap_flip;
	struct sop_regplace *lost; /* blocks to be emptied */
	size_t n_lost, cap_lost;
	uint64_t ino; /* highest met */
	struct sop_err *e;
};

static int grow(struct rebuild *r, void *p, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? 2 * *cap : 256;
	void *old, *more;

	if (n < *cap)
		return 0;
	memcpy(&old, p, sizeof(old));
	more = realloc(old, want * size);
	if (!more)
		return sop_fail(r->e, -ENOMEM, "rebuild");
	memcpy(p, &more, sizeof(more));
	*cap = want;
	return 0;
}

/* ---- where nodes lie ---- */

/* The places of node fragments whose headers are in this part of a shard file. */
static int take_headers(struct rebuild *r, const struct sop_segment_info *info, unsigned shard,
	const uint8_t *p, size_t len, uint64_t off)
{
	struct sop_disk_fragment h;

	for (size_t at = 0; at + sizeof(h) <= len; at += 8) {
		memcpy(&h, p + at, sizeof(h));
		if (le32_get(h.magic) != SOP_FRAG_MAGIC || h.kind != SOP_BLOB_NODE ||
			le64_get(h.segment) != info->id || le64_get(h.off) != off + at ||
			h.shard != shard || h.k != info->k || h.m != info->m ||
			le32_get(h.crc) != sop_crc32c(0, p + at + 8, sizeof(h) - 8))
			continue;
		if (grow(r, &r->place, &r->cap_place, r->n_place, sizeof(*r->place)))
			return -ENOMEM;
		r->place[r->n_place++] = (struct sop_blobref){
			info->id, off + at, le32_get(h.len), le32_get(h.nonce)};
	}
	return 0;
}

struct in_folder {
	struct rebuild *r;
	struct sop_disk *disk;
	unsigned member;
	const char *dir;
	int rc;
};

static int scan_file(struct in_folder *f, struct sop_file *file, uint64_t id, unsigned shard)
{
	struct rebuild *r = f->r;
	sop_autofree uint8_t *buf = sop_alloc_aligned(CHUNK);
	struct iovec iov = {buf, SOP_SHARD_HEADER};
	struct sop_segment_info info;
	uint64_t off = SOP_SHARD_HEADER;
	int rc = 0;

	if (!buf)
		return sop_fail(r->e, -ENOMEM, "rebuild");
	if (file->ops->preadv(file, &iov, 1, 0) != SOP_SHARD_HEADER ||
		sop_shard_header_decode(&info, (struct sop_disk_shard *)buf, &r->label->volume_uuid,
			id, shard, f->member, NULL) ||
		info.stream != SOP_STREAM_NODES)
		return 0;
	while (!rc) {
		ssize_t n;

		iov.iov_len = CHUNK;
		n = file->ops->preadv(file, &iov, 1, off);
		if (n < (ssize_t)sizeof(struct sop_disk_fragment))
			break; /* the end, or unreadable from here: the other shards tell */
		rc = take_headers(r, &info, shard, buf, (size_t)n, off);
		if (n < CHUNK)
			break;
		off += CHUNK - sop_round_up(sizeof(struct sop_disk_fragment), 8);
		if (r->o->stop && r->o->stop(r->o->ctx))
			rc = sop_fail(r->e, -ECANCELED, "rebuild");
	}
	return rc;
}

static int shard_name(void *arg, const char *name)
{
	struct in_folder *f = arg;
	char path[320], *end;
	struct sop_file *file;
	unsigned long shard;
	uint64_t id;

	id = strtoull(name, &end, 16);
	shard = *end == '.' ? strtoul(end + 1, &end, 10) : SOP_EC_MAX;
	if (*end || !id || shard >= SOP_EC_MAX ||
		snprintf(path, sizeof(path), "%s/%s", f->dir, name) >= (int)sizeof(path) ||
		f->disk->ops->file_open(&file, f->disk, path, SOP_OPEN_READ))
		return 0;
	f->rc = scan_file(f, file, id, (unsigned)shard);
	file->ops->file_close(file);
	return f->rc;
}

static int folder_name(void *arg, const char *name)
{
	struct in_folder *f = arg;
	char dir[320];

	if (snprintf(dir, sizeof(dir), "%s/%s", SOP_PATH_SEGMENTS, name) >= (int)sizeof(dir))
		return 0;
	f->dir = dir;
	f->disk->ops->list(f->disk, dir, shard_name, f);
	f->dir = NULL;
	return f->rc;
}

static int by_place(const void *a, const void *b)
{
	const struct sop_blobref *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

static int find_places(struct rebuild *r)
{
	size_t n = 0;

	for (unsigned i = 0; i < sop_members_count(r->mem); i++) {
		struct in_folder f = {.r = r, .disk = sop_members_disk(r->mem, i), .member = i};

		if (f.disk)
			f.disk->ops->list(f.disk, SOP_PATH_SEGMENTS, folder_name, &f);
		if (f.rc)
			return f.rc;
	}
	if (r->n_place)
		qsort(r->place, r->n_place, sizeof(*r->place), by_place);
	for (size_t i = 0; i < r->n_place; i++)
		if (!n || by_place(&r->place[n - 1], &r->place[i]))
			r->place[n++] = r->place[i];
	r->n_place = n;
	return 0;
}

/* ---- what they are ---- */

static void note_inodes(struct rebuild *r, const struct sop_page *p)
{
	uint64_t store = sop_page_store(p), ino;

	for (unsigned i = 0; i < sop_page_count(p) && !sop_page_level(p); i++) {
		size_t klen, vlen;
		const void *key = sop_page_key(p, i, &klen);
		const void *val = sop_page_value(p, i, &vlen);
		struct sop_attr a;
		bool link;

		ino = store == SOP_STORE_MASTER && klen == SOP_MASTER_KEY ? be64_get(key) : 0;
		/* An extent can look like an item, with a number that makes no sense. */
		if (store >= SOP_STORE_ROOT && !sop_item_decode_attr(&a, &link, val, vlen, NULL))
			ino = a.ino;
		if (ino < INO_SANE)
			r->ino = SOP_MAX(r->ino, ino);
	}
}

/* Bytes of one shard file; false: they cannot be read. */
static bool shard_bytes(struct rebuild *r, const struct sop_segment_info *info, unsigned shard,
	uint64_t off, uint8_t *buf, size_t len)
{
	struct sop_disk *d = sop_members_disk(r->mem, info->disks[shard]);
	struct iovec iov = {buf, len};
	struct sop_file *f;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), SOP_PATH_SEGMENTS "/%02x/%016" PRIx64 ".%u",
		(unsigned)(info->id & 0xff), info->id, shard);
	if (!d || d->ops->file_open(&f, d, path, SOP_OPEN_READ))
		return false;
	n = f->ops->preadv(f, &iov, 1, off);
	f->ops->file_close(f);
	return n == (ssize_t)len;
}

/* Is some page's share of [off, off + len) zeros in this shard, as after giving back? */
static bool has_hole(const uint8_t *buf, uint64_t off, size_t len)
{
	for (size_t at = 0, n; at < len; at += n) {
		size_t zeros = 0;

		n = SOP_MIN(len - at, (size_t)(SOP_BLOCK_BYTES - (off + at) % SOP_BLOCK_BYTES));
		while (zeros < n && !buf[at + zeros])
			zeros++;
		if (zeros == n && n >= HOLE_MIN)
			return true;
	}
	return false;
}

/* Has the space been given back? Holes are the same in all shards; damage is not. */
static bool is_given_back(struct rebuild *r, uint64_t segment, uint64_t off, size_t len)
{
	sop_autofree uint8_t *buf = malloc(len);
	struct sop_segment_info info;
	unsigned seen = 0;

	if (!buf || sop_segments_info(r->seg, segment, &info, NULL))
		return false;
	for (unsigned i = 0; i < (unsigned)info.k + info.m; i++) {
		if (!shard_bytes(r, &info, i, off, buf, len))
			continue;
		if (!has_hole(buf, off, len))
			return false;
		seen++;
	}
	return seen > 0;
}

/* Whose is it? Its header may verify where the rest does not. */
static void take_unreadable(struct rebuild *r, const struct sop_blobref *ref)
{
	struct sop_segment_info info = {.k = 1};
	struct sop_disk_node h;

	if (ref->len >= sizeof(h) && ref->len <= SOP_BLOB_MAX &&
		!sop_blob_read(r->seg, ref, &h, sizeof(h), 0, NULL) &&
		!memcmp(h.magic, SOP_NODE_MAGIC, sizeof(h.magic))) {
		r->node[r->n_node++] = (struct version){.handle = le64_get(h.handle),
			.lsn = le64_get(h.lsn),
			.ref = *ref,
			.master_root = le64_get(h.store) == SOP_STORE_MASTER && h.flags & 1};
		return;
	}
	sop_segments_info(r->seg, ref->segment, &info, NULL);
	if (!is_given_back(r, ref->segment, ref->off,
		    (size_t)sop_blob_shard_bytes(
			    SOP_MIN(ref->len, (uint32_t)SOP_BLOB_MAX), info.k)))
		r->unknown++;
}

static void take_node(struct rebuild *r, const struct sop_blobref *ref, uint8_t *buf)
{
	struct sop_disk_node h;
	struct sop_page *p;
	uint64_t lsn;

	if (ref->len < sizeof(h) || ref->len > SOP_BLOB_MAX ||
		sop_blob_read(r->seg, ref, buf, ref->len, 0, NULL) ||
		sop_page_decode(&p, buf, ref->len, &lsn, NULL)) {
		take_unreadable(r, ref);
		return;
	}
	memcpy(&h, buf, sizeof(h));
	note_inodes(r, p);
	r->node[r->n_node++] = (struct version){.handle = sop_page_handle(p),
		.lsn = lsn,
		.ref = *ref,
		.master_root = sop_page_store(p) == SOP_STORE_MASTER && h.flags & 1};
	sop_page_free(p);
}

/* Fragments lie one behind the other: between two places there is nothing, or what was given back,
 * or one whose header is gone from every shard. */
static void count_gaps(struct rebuild *r)
{
	struct sop_segment_info info = {.k = 1};
	uint64_t segment = 0, at = 0;

	for (size_t i = 0; i < r->n_place; i++) {
		const struct sop_blobref *ref = &r->place[i];

		if (ref->segment != segment) {
			segment = ref->segment;
			at = SOP_SHARD_HEADER;
			info.k = 1;
			sop_segments_info(r->seg, segment, &info, NULL);
		}
		if (ref->off > at && !is_given_back(r, segment, at,
					     (size_t)SOP_MIN(ref->off - at, (uint64_t)CHUNK)))
			r->unknown++;
		at = ref->off + sop_blob_shard_bytes(ref->len, info.k);
	}
}

static int by_handle(const void *a, const void *b)
{
	const struct version *x = a, *y = b;

	if (x->handle != y->handle)
		return x->handle < y->handle ? -1 : 1;
	return by_place(&x->ref, &y->ref);
}

static int read_nodes(struct rebuild *r)
{
	sop_autofree uint8_t *buf = malloc(SOP_BLOB_MAX);

	r->node = calloc(r->n_place + 1, sizeof(*r->node));
	if (!buf || !r->node)
		return sop_fail(r->e, -ENOMEM, "rebuild");
	for (size_t i = 0; i < r->n_place; i++) {
		if (r->o->progress && i % 64 == 0)
			r->o->progress(r->o->ctx, "reading tree nodes", i, r->n_place);
		take_node(r, &r->place[i], buf);
	}
	count_gaps(r);
	qsort(r->node, r->n_node, sizeof(*r->node), by_handle);
	return 0;
}

/* The version of a handle that counts, or NULL. */
static const struct version *newest(const struct rebuild *r, uint64_t handle)
{
	const struct version *best = NULL;
	size_t low = 0, high = r->n_node;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->node[mid].handle < handle)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < r->n_node && r->node[low].handle == handle; low++)
		if (r->node[low].lsn <= r->c.lsn)
			best = &r->node[low];
	return best;
}

/* ---- slots ---- */

static int add_flip(struct rebuild *r, uint64_t handle, const struct sop_blobref *to)
{
	if (grow(r, &r->flip, &r->cap_flip, r->n_flip, sizeof(*r->flip)))
		return -ENOMEM;
	r->flip[r->n_flip++] = (struct sop_flip){.handle = handle, .to = *to};
	return 0;
}

/* Every slot of the block, so that a mount can tell a block that is to be written whole from one
 * that has lost something. */
static int add_rebuilt(struct rebuild *r, uint64_t handle)
{
	static const struct sop_blobref none;
	const struct version *v = newest(r, handle);

	if (!handle || (!v && handle >= r->c.next_handle))
		return 0;
	r->used = true;
	return add_flip(r, handle, v ? &v->ref : &none);
}

/* One block: what it says (only wanted when the checkpoint is gone), or what the nodes say. */
static int take_block(struct rebuild *r, struct sop_regplace at, uint64_t first)
{
	sop_autofree struct sop_disk_registry_block *raw = malloc(sizeof(*raw));
	bool damaged, there;
	int rc = raw ? sop_regblocks_read(r->blocks, at, false, raw, &damaged, NULL) : -ENOMEM;

	if (rc == -ENOMEM)
		return sop_fail(r->e, rc, "rebuild");
	there = !rc && le32_get(raw->magic);
	if (!rc && !there && r->have && sop_flip_older(&r->flips, first, r->c.next_handle))
		rc = SOP_ELOST;
	if (rc) {
		if (grow(r, &r->lost, &r->cap_lost, r->n_lost, sizeof(*r->lost)))
			return -ENOMEM;
		r->lost[r->n_lost++] = at;
	}
	for (uint64_t s = 0; s < SOP_REGISTRY_SLOTS; s++) {
		struct sop_blobref ref = {0};

		if (there)
			ref = sop_blobref_decode(&raw->slot[s].ref);
		if (rc || (!there && !r->have))
			rc = add_rebuilt(r, first + s) ? -ENOMEM : rc;
		else if (ref.segment && !r->have && add_flip(r, first + s, &ref))
			rc = -ENOMEM;
		if (rc == -ENOMEM)
			return rc;
	}
	return 0;
}

static struct sop_regplace place_of(const struct rebuild *r, uint64_t block)
{
	return (struct sop_regplace){
		(uint32_t)(block / r->label->hashmod), (uint32_t)(block % r->label->hashmod)};
}

static uint64_t blocks_of(const struct rebuild *r)
{
	uint64_t handles = r->have ? r->c.next_handle : 1;

	if (r->n_node)
		handles = SOP_MAX(handles, r->node[r->n_node - 1].handle + 1);
	return handles / SOP_REGISTRY_SLOTS + 1;
}

static int take_slots(struct rebuild *r)
{
	uint64_t blocks = blocks_of(r);
	int rc = 0;

	for (uint64_t i = 0; i < blocks && !rc; i++)
		rc = take_block(r, place_of(r, i), i * SOP_REGISTRY_SLOTS);
	return rc;
}

/* ---- a checkpoint ---- */

/* The LSN of the newest block of the registry; 0: there is none. */
static uint64_t registry_lsn(struct rebuild *r)
{
	sop_autofree struct sop_disk_registry_block *raw = malloc(sizeof(*raw));
	uint64_t blocks = blocks_of(r), lsn = 0;
	bool damaged;

	for (uint64_t i = 0; raw && i < blocks; i++)
		if (!sop_regblocks_read(r->blocks, place_of(r, i), false, raw, &damaged, NULL) &&
			le32_get(raw->magic))
			lsn = SOP_MAX(lsn, le64_get(raw->lsn));
	return lsn;
}

/* The first journal file that goes on from `lsn` (0: from anywhere). */
static bool find_journal(struct rebuild *r, uint64_t lsn)
{
	unsigned idx[SOP_MEMBERS_MAX], n = sop_members_replicas(r->mem, idx);
	sop_autofree uint8_t *raw = sop_alloc_aligned(SOP_JOURNAL_HEADER);
	bool found = false;

	for (unsigned i = 0; i < n && raw; i++) {
		struct sop_disk *d = sop_members_disk(r->mem, idx[i]);
		struct sop_journal_names names = {0};

		if (!d || sop_journal_list(&names, d, sop_members_timeout_ms(r->mem)))
			continue;
		for (size_t k = 0; k < names.n; k++) {
			struct iovec iov = {raw, SOP_JOURNAL_HEADER};
			struct sop_journal_header h;
			char path[SOP_JOURNAL_NAME];
			struct sop_file *f;
			ssize_t got;

			sop_journal_path(path, names.number[k]);
			if (d->ops->file_open(&f, d, path, SOP_OPEN_READ))
				continue;
			got = f->ops->preadv(f, &iov, 1, 0);
			f->ops->file_close(f);
			if (got != SOP_JOURNAL_HEADER || sop_journal_header_decode(&h, raw, NULL) ||
				h.number != names.number[k] ||
				!sop_uuid_equal(&h.volume, &r->label->volume_uuid) ||
				(lsn && h.first_lsn != lsn + 1) ||
				(found && h.number >= r->c.journal))
				continue;
			found = true;
			r->c.journal = h.number;
			r->c.chain = h.chain;
			r->c.lsn = h.first_lsn - 1;
		}
		free(names.number);
	}
	return found;
}

static int make_checkpoint(struct rebuild *r)
{
	const struct version *root = NULL;
	uint64_t lsn = registry_lsn(r);

	/* Without its file nothing that was committed since can be applied. */
	if (!find_journal(r, lsn) && !(r->o->discard_lost && lsn))
		return sop_say(r->e, SOP_ELOST,
			"the checkpoint is whole on no disk, and no journal file that goes on from "
			"it is; bring back a disk that has them%s",
			lsn ? ", or -y --discard-lost goes back to it without what came after"
			    : "");
	if (!r->c.journal) {
		r->c.journal = 1;
		r->c.lsn = lsn;
	}
	for (size_t i = 0; i < r->n_node; i++) {
		r->c.next_handle = SOP_MAX(r->c.next_handle, r->node[i].handle + 1);
		if (r->node[i].master_root && r->node[i].lsn <= r->c.lsn &&
			(!root || by_place(&root->ref, &r->node[i].ref) < 0))
			root = &r->node[i];
	}
	if (!root)
		return sop_say(r->e, SOP_ELOST,
			"the checkpoint is whole on no disk, and no root of the trees was found");
	r->c.master_root = root->handle;
	return 0;
}

/* The rebuilt slots, and after them the flips there were: the later one of two counts. */
static int join_flips(struct rebuild *r)
{
	struct sop_flip *all = realloc(r->flip, (r->n_flip + r->c.n_flips + 1) * sizeof(*all));

	if (!all)
		return sop_fail(r->e, -ENOMEM, "rebuild");
	if (r->c.n_flips)
		memcpy(all + r->n_flip, r->c.flips, r->c.n_flips * sizeof(*all));
	free(r->c.flips);
	r->c.flips = all;
	r->c.n_flips += r->n_flip;
	r->flip = NULL;
	return 0;
}

static int publish(struct rebuild *r)
{
	struct sop_registry *reg = NULL;
	int rc;

	r->c.epoch = sop_members_epoch(r->mem);
	r->c.clean = false;
	r->c.next_ino = SOP_MAX(r->c.next_ino, r->ino + 1);
	rc = join_flips(r);
	if (!rc)
		rc = sop_checkpoint_store(r->mem, &r->c, true, NULL, r->e);
	for (size_t i = 0; i < r->n_lost && !rc; i++)
		rc = sop_regblocks_reset(r->blocks, r->lost[i], r->e);
	if (!rc)
		rc = sop_registry_new(&reg, r->mem, r->io, r->label->hashmod, r->c.next_handle,
			r->c.free_handle, r->e);
	if (!rc)
		rc = sop_registry_apply(reg, r->c.flips, r->c.n_flips, r->c.lsn, r->e);
	sop_registry_free(reg);
	return rc;
}

/* ---- the whole ---- */

static int open_parts(struct rebuild *r, const char *const *paths, size_t n)
{
	const struct sop_members_opts mo = {.degraded = true,
		.disk_timeout_ms = r->o->disk_timeout_ms,
		.log = r->o->log,
		.open_disk = r->o->open_disk,
		.open_disk_ctx = r->o->open_disk_ctx};
	int rc = sop_members_open(&r->mem, paths, n, &mo, r->e);

	if (rc)
		return rc;
	r->label = sop_members_label(r->mem);
	rc = r->o->open_disk
		     ? sop_iopool_new_inline(&r->io, r->e)
		     : sop_iopool_new(&r->io,
			       &(struct sop_iopool_opts){.disks = sop_members_count(r->mem)}, r->e);
	if (!rc)
		rc = sop_segments_new(&r->seg, r->mem, r->io, sop_members_epoch(r->mem), r->e);
	if (!rc)
		rc = sop_regblocks_new(&r->blocks, r->mem, r->io, r->label->hashmod, r->e);
	return rc;
}

int sop_rebuild(
	const char *const *paths, size_t n, const struct sop_fsck_opts *o, struct sop_err *e)
{
	struct rebuild r = {.o = o, .e = e};
	struct sop_err why = {0};
	int rc = open_parts(&r, paths, n);

	if (!rc) {
		rc = sop_checkpoint_load(&r.c, r.mem, &why);
		r.have = !rc;
		rc = rc && rc != SOP_ELOST ? sop_say(e, rc, "%s", why.text) : 0;
	}
	if (!rc)
		rc = find_places(&r);
	if (!rc)
		rc = read_nodes(&r);
	if (!rc && !r.have)
		rc = make_checkpoint(&r);
	if (!rc)
		rc = sop_flip_set(&r.flips, &r.c, e);
	if (!rc)
		rc = take_slots(&r);
	if (!rc && r.used && r.unknown && !o->discard_lost)
		rc = sop_say(e, SOP_ELOST,
			"%zu tree nodes that cannot be read may be newer than those that can: "
			"bring "
			"back missing disks; -y --discard-lost goes on with what can be read",
			r.unknown);
	if (!rc)
		rc = publish(&r);
	sop_checkpoint_release(&r.c);
	free(r.place);
	free(r.node);
	free(r.flip);
	free(r.lost);
	free(r.flips.handle);
	sop_regblocks_free(r.blocks);
	sop_segments_free(r.seg);
	sop_iopool_free(r.io, o->disk_timeout_ms ? o->disk_timeout_ms : 1000);
	sop_members_close(r.mem);
	return rc ? sop_wrap(e, rc, "registry made anew") : 0;
}
