/* Check: walk everything that is reachable, verify it, and compare with the accounts.
 *
 * The master store leads to every directory and every inode with several names; directories lead to
 * items, items to extents, extents to blobs. What the accounts call live and the walk did not meet
 * is a leak; what the walk met and the accounts do not know is damage. A node that cannot be read
 * hides what is behind it: the walk goes on beside it, and from then on nothing that was not met
 * is called a leak. Runs under the checkpoint and commit locks: nothing changes meanwhile. */
#include "core/check_own.h"
#include "core/salvage.h"
#include "core/shared.h"

#include <stdio.h>
#include <sys/stat.h>

/* ---- memory ---- */

static int grow(void *p, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? 2 * *cap : 64;
	void *old, *more;

	if (n < *cap)
		return 0;
	memcpy(&old, p, sizeof(old));
	more = realloc(old, want * size);
	if (!more)
		return -ENOMEM;
	memcpy(p, &more, sizeof(more));
	*cap = want;
	return 0;
}

static void *copy(const void *p, size_t len)
{
	void *c = malloc(len ? len : 1);

	if (c && len)
		memcpy(c, p, len);
	return c;
}

/* ---- records ---- */

struct sop_check_record *sop_check_found(struct sop_check *c, enum sop_check_kind kind)
{
	struct sop_check_record *r;

	c->r.errors++;
	if (grow(&c->rec, &c->cap_rec, c->n_rec, sizeof(*c->rec)))
		return NULL;
	r = &c->rec[c->n_rec];
	*r = (struct sop_check_record){.kind = kind,
		.store = c->who.store ? c->who.store : c->store,
		.ino = c->who.ino,
		.klen = c->who.klen,
		.in = c->store};
	if (c->who.key) {
		r->key = copy(c->who.key, c->who.klen);
		if (!r->key)
			return NULL;
	}
	c->n_rec++;
	c->incomplete = c->incomplete || kind == SOP_CHECK_NODE || kind == SOP_CHECK_RECORD ||
			kind == SOP_CHECK_STATE || kind == SOP_CHECK_SHAPE;
	return r;
}

int sop_check_no_memory(struct sop_check *c)
{
	return sop_fail(c->e, -ENOMEM, "check");
}

/* About a store, or the whole volume, and not about an entry. */
static struct sop_check_record *found_of(
	struct sop_check *c, enum sop_check_kind kind, uint64_t store)
{
	struct who who = c->who;
	struct sop_check_record *r;

	c->who = (struct who){.store = store};
	r = sop_check_found(c, kind);
	if (r)
		r->store = store;
	c->who = who;
	return r;
}

static int found_count(
	struct sop_check *c, enum sop_check_kind kind, uint64_t store, uint64_t is, uint64_t want)
{
	struct sop_check_record *r = found_of(c, kind, store);

	if (!r)
		return sop_check_no_memory(c);
	r->is = is;
	r->want = want;
	return 0;
}

/* ---- blobs met ---- */

static struct met *met_slot(struct sop_check *c, const struct sop_blobref *ref)
{
	size_t i = (size_t)((ref->segment * 1000003 + ref->off / 8) * 0x9E3779B97F4A7C15ull >> 20) &
		   (c->cap_met - 1);

	while (c->met[i].used &&
		(c->met[i].ref.segment != ref->segment || c->met[i].ref.off != ref->off))
		i = (i + 1) & (c->cap_met - 1);
	return &c->met[i];
}

static int met_grow(struct sop_check *c)
{
	struct met *old = c->met;
	size_t cap = c->cap_met;

	c->cap_met = cap ? 2 * cap : 4096;
	c->met = calloc(c->cap_met, sizeof(*c->met));
	if (!c->met) {
		c->met = old;
		c->cap_met = cap;
		return sop_check_no_memory(c);
	}
	for (size_t i = 0; i < cap; i++)
		if (old[i].used)
			*met_slot(c, &old[i].ref) = old[i];
	free(old);
	return 0;
}

/* Shards whose disks are here: that a disk is missing is said once, and not of each blob. */
static uint32_t shards_here(struct sop_check *c, const struct sop_segment_info *info)
{
	uint32_t here = 0;

	for (unsigned i = 0; i < (unsigned)info->k + info->m; i++)
		if (sop_members_disk(c->v->mem, info->disks[i]))
			here |= 1u << i;
	return here;
}

/* 0: fine or repaired or noted; 1: lost; 2: it is not what the reference says. */
static int blob_verify(struct sop_check *c, const struct sop_blobref *ref)
{
	struct sop_segment_info info;
	struct sop_check_record *r;
	uint32_t good = 0, here, bad;
	int rc;

	rc = sop_blob_verify(c->v->seg, ref, false, &good, NULL);
	if (rc)
		return sop_blob_untold(rc)  ? sop_fail(c->e, rc, "check")
		       : rc == SOP_ECORRUPT ? 2
					    : 1;
	rc = sop_segments_info(c->v->seg, ref->segment, &info, c->e);
	if (rc)
		return rc;
	here = shards_here(c, &info);
	bad = here & ~good;
	if (!bad)
		return 0;
	if (c->o.repair && (rc = sop_blob_verify(c->v->seg, ref, true, &good, NULL))) {
		if (sop_blob_untold(rc))
			return sop_fail(c->e, rc, "check");
		good = 0;
	}
	r = sop_check_found(c, SOP_CHECK_SHARDS);
	if (!r)
		return sop_check_no_memory(c);
	r->ref = *ref;
	r->disks = (uint32_t)__builtin_popcount(bad);
	r->repaired = c->o.repair && !(here & ~good);
	if (r->repaired)
		c->r.errors--;
	return 0;
}

/* 0: fine, or noted; 1: the blob cannot be read; 2: no such blob is there; negative: an error. */
static int met_add(struct sop_check *c, const struct sop_blobref *ref, bool verify)
{
	struct sop_segment_info info;
	struct met *m;
	int rc = 0;

	if (c->n_met * 2 >= c->cap_met && (rc = met_grow(c)))
		return rc;
	m = met_slot(c, ref);
	if (m->used) {
		if (m->ref.len != ref->len || m->ref.nonce != ref->nonce) {
			struct sop_check_record *r = sop_check_found(c, SOP_CHECK_PLACE);

			if (!r)
				return sop_check_no_memory(c);
			r->ref = *ref;
		}
		m->times++;
		return m->lost;
	}
	*m = (struct met){.ref = *ref, .times = 1, .used = true};
	c->n_met++;
	c->r.blobs++;
	c->r.blob_bytes += ref->len;
	if (!sop_segments_info(c->v->seg, ref->segment, &info, NULL))
		c->done_bytes += sop_blob_shard_bytes(ref->len, info.k) * (info.k + info.m);
	if (c->o.progress && c->r.blobs % 64 == 0)
		c->o.progress(c->o.ctx, "checking", c->done_bytes, c->total_bytes);
	if (c->o.stop && c->o.stop(c->o.ctx))
		return sop_fail(c->e, -ECANCELED, "check");
	rc = verify ? blob_verify(c, ref) : 0;
	m->lost = (uint8_t)SOP_MAX(rc, 0);
	return rc;
}

/* The end of the block that holds byte `at` of a blob: shards go by slices, checksums by blocks of
 * them. */
static uint32_t block_end(uint32_t at, uint32_t len, unsigned k)
{
	uint32_t slice = (uint32_t)sop_round_up(sop_div_up(len, k), SOP_SLICE_ALIGN);
	uint32_t begin = at / slice * slice;
	uint32_t row = (at - begin) / SOP_BLOCK_BYTES;

	return SOP_MIN(begin + slice, begin + (row + 1) * SOP_BLOCK_BYTES);
}

/* The reference is to something that there is not: what can be read there is not the value's. */
static int reference_wrong(struct sop_check *c, const struct sop_extent *x)
{
	struct sop_check_record *r = sop_check_found(c, SOP_CHECK_EXTENT);

	if (!r)
		return sop_check_no_memory(c);
	r->off = x->off;
	r->len = x->len;
	r->ref = x->ref;
	return 0;
}

/* The bytes of the blob that cannot be read, told of the value at `off`. */
static int data_lost(struct sop_check *c, const struct sop_extent *x)
{
	uint8_t *buf = malloc(SOP_BLOCK_BYTES);
	struct sop_check_record *r = NULL;
	struct sop_segment_info info = {.k = 1};
	int rc = 0;

	if (!buf)
		return sop_check_no_memory(c);
	sop_segments_info(c->v->seg, x->ref.segment, &info, NULL);
	for (uint32_t at = 0, len; at < x->len && !rc; at += len) {
		uint32_t in_blob = x->blob_off + at;
		uint64_t off = x->off + at;

		len = SOP_MIN(x->len - at, block_end(in_blob, x->ref.len, info.k) - in_blob);
		if (!sop_blob_read(c->v->seg, &x->ref, buf, len, in_blob, NULL))
			continue;
		if (r && r->off + r->len == off) {
			r->len += len;
			continue;
		}
		r = sop_check_found(c, SOP_CHECK_DATA);
		if (!r) {
			rc = sop_check_no_memory(c);
			break;
		}
		r->off = off;
		r->len = len;
		r->ref = x->ref;
	}
	free(buf);
	return rc;
}

static int extent_met(struct sop_check *c, const struct sop_extent *x, uint64_t *at, uint64_t size)
{
	struct sop_check_record *r;
	int rc;

	if (x->off < *at || x->off + x->len > size) {
		r = sop_check_found(c, SOP_CHECK_EXTENT);
		if (!r)
			return sop_check_no_memory(c);
		r->off = x->off;
		r->len = x->len;
	}
	*at = x->off + x->len;
	/* Nobody will read what is being removed. */
	rc = met_add(c, &x->ref, c->o.data && c->who.store != SOP_STORE_DOOMED);
	return rc == 2 ? reference_wrong(c, x) : rc > 0 ? data_lost(c, x) : rc;
}

/* ---- walking ---- */

static int todo_add(struct sop_check *c, uint64_t store, bool extents, uint64_t size)
{
	struct todo *t;

	if (grow(&c->todo, &c->cap_todo, c->n_todo, sizeof(*c->todo)))
		return sop_check_no_memory(c);
	t = &c->todo[c->n_todo];
	*t = (struct todo){.store = store, .extents = extents, .size = size};
	if (extents) {
		t->who = c->who;
		t->who.tree = true;
		t->who.key = c->who.key ? copy(c->who.key, c->who.klen) : NULL;
		if (c->who.key && !t->who.key)
			return sop_check_no_memory(c);
	}
	c->n_todo++;
	return 0;
}

/* Whose extent tree is being walked. */
static int note_item(struct sop_check *c, struct sop_check_record *r)
{
	r->ino = c->who.ino;
	if (!c->who.tree || !c->who.key)
		return 0;
	r->item_store = c->who.store;
	r->item_klen = c->who.klen;
	r->item_key = copy(c->who.key, c->who.klen);
	return r->item_key ? 0 : sop_check_no_memory(c);
}

static int node_record(
	struct sop_check *c, uint64_t handle, const struct sop_range *keys, int rc, const char *why)
{
	bool there = rc == SOP_ECORRUPT && keys && sop_salvage_any(c->v, c->store, handle, keys);
	struct sop_check_record *r =
		found_of(c, there ? SOP_CHECK_SHAPE : SOP_CHECK_NODE, c->store);

	if (!r || note_item(c, r))
		return sop_check_no_memory(c);
	r->handle = handle;
	snprintf(r->why, sizeof(r->why), "%s", why);
	if (keys && keys->from) {
		r->key = copy(keys->from, keys->from_len);
		r->klen = keys->from_len;
	}
	if (keys && keys->to) {
		r->to = copy(keys->to, keys->to_len);
		r->to_len = keys->to_len;
	}
	if (keys && ((keys->from && !r->key) || (keys->to && !r->to)))
		return sop_check_no_memory(c);
	/* Bytes of a value that only this node leads to. */
	if (c->who.tree) {
		r->off = keys && keys->from && keys->from_len == 8 ? be64_get(keys->from) : 0;
		r->len = (keys && keys->to && keys->to_len == 8 ? be64_get(keys->to)
								: SOP_MAX(c->size, r->off)) -
			 r->off;
	}
	c->tree_lost = true;
	return 0;
}

static int node_bad(
	void *arg, uint64_t handle, const struct sop_range *keys, int rc, const struct sop_err *why)
{
	return node_record(arg, handle, keys, rc, why->text);
}

static bool is_changed(const struct sop_check *c, uint64_t handle)
{
	size_t low = 0, high = c->n_changed;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->changed[mid].handle == handle)
			return true;
		if (c->changed[mid].handle < handle)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/* Nodes that no tree has any more are on the disks, and live, until a checkpoint knows of it. */
static int removed_met(struct sop_check *c)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_changed && !rc; i++)
		if (!c->changed[i].page && c->changed[i].from.segment)
			rc = met_add(c, &c->changed[i].from, false);
	return rc;
}

static int node_met(void *arg, uint64_t handle)
{
	struct sop_check *c = arg;
	bool changed = is_changed(c, handle);
	struct who who = c->who;
	struct sop_blobref ref;
	int rc;

	c->r.nodes++;
	rc = sop_registry_lookup(c->v->reg, handle, &ref, NULL);
	/* It is in memory alone until the next checkpoint. */
	if (rc == -ENOENT && changed)
		return 0;
	if (rc)
		return node_record(c, handle, NULL, rc, "the registry does not know it");
	c->who = (struct who){.store = c->store, .ino = who.ino};
	rc = met_add(c, &ref, c->o.nodes && !changed);
	c->who = who;
	/* It is in memory, from better days; what is on the disks is gone. */
	return rc > 0 ? node_record(c, handle, NULL, rc, "too few shards are left") : rc;
}

static int tree_walk(struct sop_check *c, uint64_t store, sop_entry_fn fn)
{
	const struct sop_tree_visitor visit = {.node = node_met, .entry = fn, .bad = node_bad};
	struct sop_state_view view;
	struct sop_err why = {0};
	int rc = sop_stores_view(c->v->stores, store, SOP_LSN_LATEST, &view, &why);

	c->store = store;
	c->tree_lost = false;
	if (rc == -ENOMEM)
		return sop_check_no_memory(c);
	if (rc) {
		struct sop_check_record *r = found_of(c, SOP_CHECK_STATE, store);

		if (!r || note_item(c, r))
			return sop_check_no_memory(c);
		snprintf(r->why, sizeof(r->why), "%.150s", why.text);
		return 0;
	}
	c->r.stores++;
	c->seen = c->subdirs = 0;
	rc = sop_tree_walk(c->v->nodes, &view.tree, SOP_LSN_LATEST, &visit, c, c->e);
	if (rc || c->tree_lost)
		return rc;
	if (c->seen != view.at.count)
		rc = found_count(c, SOP_CHECK_COUNT, store, view.at.count, c->seen);
	if (!rc && store >= SOP_STORE_ROOT && c->subdirs != view.at.subdirs)
		rc = found_count(c, SOP_CHECK_SUBDIRS, store, view.at.subdirs, c->subdirs);
	return rc;
}

static int record_bad(struct sop_check *c)
{
	return sop_check_found(c, SOP_CHECK_RECORD) ? 0 : sop_check_no_memory(c);
}

static int extent_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_check *c = arg;
	struct sop_extent x;
	struct sop_check_record *r;

	c->seen++;
	if (!sop_extent_decode(&x, key, klen, val, vlen, NULL))
		return extent_met(c, &x, &c->extent_end, c->size);
	r = sop_check_found(c, SOP_CHECK_RECORD);
	if (!r)
		return sop_check_no_memory(c);
	r->off = klen == 8 ? be64_get(key) : 0;
	return 0;
}

/* A name of a directory has been met. All inodes have been before: what it has when its own is not
 * there is looked at, too. */
static int entries_alone(struct sop_check *c, uint64_t ino)
{
	struct inode *in = sop_check_inode(c, ino);
	struct sop_state_view view;
	int rc;

	if (in->here || in->entries)
		return 0;
	rc = sop_stores_view(c->v->stores, ino, SOP_LSN_LATEST, &view, NULL);
	if (rc == -ENOMEM)
		return sop_check_no_memory(c);
	if (rc)
		return 0;
	in->entries = true;
	return todo_add(c, ino, false, 0);
}

/* `inode`: of MASTER, under ino; else an entry of a directory. */
static int item_walk(struct sop_check *c, const void *val, size_t vlen, bool inode, uint64_t ino)
{
	struct sop_item it;
	struct inode *in;
	uint64_t at = 0;
	int rc;

	rc = sop_item_decode(&it, val, vlen, NULL);
	if (rc || (inode && (it.link || it.attr.ino != ino)))
		return record_bad(c);
	c->ino_max = SOP_MAX(c->ino_max, SOP_MAX(it.attr.ino, it.tree));
	if (it.link) {
		c->subdirs += S_ISDIR(it.attr.mode);
		rc = sop_check_link_met(c, it.attr.ino, S_ISDIR(it.attr.mode));
		return rc || !S_ISDIR(it.attr.mode) ? rc : entries_alone(c, it.attr.ino);
	}
	c->who.ino = it.attr.ino;
	rc = sop_check_number_met(c, it.attr.ino);
	if (rc > 0)
		rc = sop_check_found(c, SOP_CHECK_TWIN) ? 0 : sop_check_no_memory(c);
	if (rc)
		return rc;
	if (inode) {
		rc = sop_check_inode_get(c, ino, &in);
		if (rc)
			return rc;
		in->here = true;
		in->dir = S_ISDIR(it.attr.mode);
		in->nlink = it.attr.nlink;
		in->parent = it.attr.rdev;
	}
	if (it.xattr_blob.segment) {
		rc = met_add(c, &it.xattr_blob, c->o.data);
		if (rc > 0)
			rc = sop_check_found(c, SOP_CHECK_XATTRS) ? 0 : sop_check_no_memory(c);
		if (rc)
			return rc;
	}
	if (S_ISDIR(it.attr.mode))
		return inode ? todo_add(c, ino, false, 0) : record_bad(c);
	for (uint32_t i = 0; i < it.extents; i++) {
		rc = extent_met(c, &it.extent[i], &at, it.attr.size);
		if (rc)
			return rc;
	}
	return it.tree ? todo_add(c, it.tree, true, it.attr.size) : 0;
}

static int item_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_check *c = arg;
	int rc;

	c->seen++;
	c->r.items++;
	c->items++;
	c->who = (struct who){.store = c->store, .key = key, .klen = klen};
	rc = item_walk(c, val, vlen, false, 0);
	c->who = (struct who){0};
	return rc;
}

static int master_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_check *c = arg;
	uint64_t id;
	int rc = 0;

	c->seen++;
	c->who = (struct who){.store = SOP_STORE_MASTER, .key = key, .klen = klen};
	id = klen == SOP_MASTER_KEY ? be64_get(key) : 0;
	if (!id)
		rc = record_bad(c);
	else if (((const uint8_t *)key)[8] == 'i')
		rc = item_walk(c, val, vlen, true, id);
	c->who = (struct who){0};
	return rc;
}

static int dead_met(struct sop_check *c, const uint8_t *key, const void *val)
{
	struct le16 bytes;

	if (grow(&c->dead, &c->cap_dead, c->n_dead, sizeof(*c->dead)))
		return sop_check_no_memory(c);
	memcpy(&bytes, val, sizeof(bytes));
	c->dead[c->n_dead++] = (struct dead_page){
		.segment = be64_get(key), .page = be64_get(key + 8), .bytes = le16_get(bytes)};
	return 0;
}

static int system_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_check *c = arg;
	int rc = 0;

	c->seen++;
	if (c->store == SOP_STORE_DEAD && klen == 16 && vlen == sizeof(struct le16))
		return dead_met(c, key, val);
	if (c->store == SOP_STORE_DOOMED && klen == 8) {
		c->who = (struct who){.store = SOP_STORE_DOOMED};
		rc = todo_add(c, be64_get(key), true, UINT64_MAX);
		c->who = (struct who){0};
	}
	return rc;
}

static int refs_wrong(
	struct sop_check *c, const struct sop_blobref *ref, uint64_t is, uint64_t want)
{
	struct sop_check_record *r = found_of(c, SOP_CHECK_REFS, SOP_STORE_SHARED);

	if (!r)
		return sop_check_no_memory(c);
	r->ref = *ref;
	r->is = is;
	r->want = want;
	return 0;
}

static int shared_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct sop_check *c = arg;
	struct sop_blobref ref = {0};
	struct met *m;
	struct le32 n;

	c->seen++;
	if (klen != 16 || vlen != 4)
		return record_bad(c);
	ref.segment = be64_get(key);
	ref.off = be64_get((const uint8_t *)key + 8);
	memcpy(&n, val, 4);
	if (!c->cap_met)
		return refs_wrong(c, &ref, le32_get(n), 0);
	m = met_slot(c, &ref);
	if (m->used)
		m->counted = true;
	if (!m->used || m->times != le32_get(n))
		return refs_wrong(c, &ref, le32_get(n), m->used ? m->times : 0);
	return 0;
}

/* ---- accounts ---- */

static int pending_met(void *arg, const struct sop_blobref *ref)
{
	struct sop_check *c = arg;
	int rc;

	/* Still live by account: freed by a transaction, not given back yet; or given back before a
	 * crash that the account has not heard of. So its bytes are not looked at. */
	rc = met_add(c, ref, false);
	return rc;
}

static int by_place(const void *a, const void *b)
{
	const struct sop_blobref *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

struct sums {
	struct sop_check *c;
	struct sop_blobref *ref;
	size_t n;
};

static size_t first_of(const struct sums *s, uint64_t id)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->ref[mid].segment < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int segment_check(void *arg, uint64_t id, uint64_t live, unsigned k)
{
	const struct sums *s = arg;
	struct sop_check *c = s->c;
	struct sop_check_record *r;
	uint64_t bytes = 0;

	for (size_t i = first_of(s, id); i < s->n && s->ref[i].segment == id; i++)
		bytes += sop_blob_shard_bytes(s->ref[i].len, k);
	if (bytes == live)
		return 0;
	if (bytes < live)
		c->r.leaked_bytes += (live - bytes) * k;
	r = found_of(c, SOP_CHECK_ACCOUNT, SOP_STORE_SEGMENTS);
	if (!r)
		return sop_check_no_memory(c);
	r->ref.segment = id;
	r->is = live;
	r->want = bytes;
	return 0;
}

/* No two blobs share a byte, and none lies past the end of its shard files. (What was written since
 * the last checkpoint of an earlier mount lies past the recorded end.) */
static int places_check(const struct sums *s)
{
	struct sop_check *c = s->c;
	struct sop_segment_info info = {0};
	uint64_t end = 0, limit = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct sop_blobref *ref = &s->ref[i];
		struct sop_check_record *r;
		uint64_t next;

		if (!i || s->ref[i - 1].segment != ref->segment) {
			end = 0;
			if (sop_segments_info(c->v->seg, ref->segment, &info, NULL))
				info = (struct sop_segment_info){.k = 1, .end = UINT64_MAX};
			limit = info.end;
		}
		next = ref->off + sop_blob_shard_bytes(ref->len, info.k);
		if (next > limit && limit == info.end &&
			sop_segments_file_end(c->v->seg, ref->segment, &limit, NULL))
			limit = info.end;
		if (ref->off >= end && next <= limit) {
			end = next;
			continue;
		}
		r = found_of(c, SOP_CHECK_PLACE, 0);
		if (!r)
			return sop_check_no_memory(c);
		r->ref = *ref;
	}
	return 0;
}

/* The first blob that may reach into the page. */
static size_t first_in(const struct sums *s, const struct dead_page *d)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct sop_blobref *ref = &s->ref[mid];

		if (ref->segment < d->segment ||
			(ref->segment == d->segment && ref->off < d->page * SOP_SPACE_PAGE))
			low = mid + 1;
		else
			high = mid;
	}
	return low && s->ref[low - 1].segment == d->segment ? low - 1 : low;
}

/* A page of which too many bytes are counted as dead would be given back with live ones in it. */
static int dead_check(const struct sums *s)
{
	struct sop_check *c = s->c;

	for (size_t i = 0; i < c->n_dead; i++) {
		const struct dead_page *d = &c->dead[i];
		struct sop_segment_info info;
		struct sop_check_record *r;
		uint64_t live = 0, from = d->page * SOP_SPACE_PAGE;

		if (sop_segments_info(c->v->seg, d->segment, &info, NULL))
			continue;
		for (size_t k = first_in(s, d); k < s->n; k++) {
			const struct sop_blobref *ref = &s->ref[k];
			uint64_t end = ref->off + sop_blob_shard_bytes(ref->len, info.k);

			if (ref->segment != d->segment || ref->off >= from + SOP_SPACE_PAGE)
				break;
			if (end > from)
				live += SOP_MIN(end, from + SOP_SPACE_PAGE) -
					SOP_MAX(ref->off, from);
		}
		if (live + d->bytes <= SOP_SPACE_PAGE)
			continue;
		r = found_of(c, SOP_CHECK_DEAD, SOP_STORE_DEAD);
		if (!r)
			return sop_check_no_memory(c);
		r->ref = (struct sop_blobref){.segment = d->segment, .off = from};
		r->is = d->bytes;
		r->want = SOP_SPACE_PAGE - SOP_MIN(live, (uint64_t)SOP_SPACE_PAGE);
	}
	return 0;
}

static int accounts_check(struct sop_check *c)
{
	struct sums s = {.c = c, .ref = calloc(c->n_met + 1, sizeof(*s.ref))};
	int rc;

	if (!s.ref)
		return sop_check_no_memory(c);
	for (size_t i = 0; i < c->cap_met; i++)
		if (c->met[i].used)
			s.ref[s.n++] = c->met[i].ref;
	qsort(s.ref, s.n, sizeof(*s.ref), by_place);
	rc = places_check(&s);
	if (!rc)
		rc = sop_space_each(c->v->space, segment_check, &s);
	if (!rc)
		rc = dead_check(&s);
	free(s.ref);
	return rc;
}

/* ---- the whole ---- */

static int walk_todo(struct sop_check *c)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_todo && !rc; i++) {
		struct todo t = c->todo[i];

		c->who = t.who;
		c->size = t.size;
		c->extent_end = 0;
		rc = tree_walk(c, t.store, t.extents ? extent_entry : item_entry);
		c->who = (struct who){0};
	}
	return rc;
}

static int prepared_met(void *arg, const struct sop_blobref *ref)
{
	struct sop_check *c = arg;

	return met_add(c, ref, c->o.data);
}

static int walk(struct sop_check *c)
{
	struct sop_space_stat space;
	int rc;

	sop_space_stat(c->v->space, &space);
	c->total_bytes = space.live_bytes;
	/* (In a read-only volume a replay leaves some in memory.) */
	rc = sop_space_settle_references(c->v->space, c->e);
	if (!rc)
		rc = sop_nodes_changed(c->v->nodes, &c->changed, &c->n_changed, c->e);
	if (!rc)
		rc = tree_walk(c, SOP_STORE_MASTER, master_entry);
	for (uint64_t id = SOP_STORE_SEGMENTS; id <= SOP_STORE_PREPARED && !rc; id++)
		if (id != SOP_STORE_SHARED)
			rc = tree_walk(c, id, system_entry);
	if (!rc)
		rc = walk_todo(c);
	if (!rc)
		rc = sop_prepared_each_blob(c->v, prepared_met, c, c->e);
	if (!rc)
		rc = sop_space_each_pending(c->v->space, pending_met, c);
	if (!rc)
		rc = removed_met(c);
	if (!rc)
		rc = tree_walk(c, SOP_STORE_SHARED, shared_entry);
	if (!rc)
		rc = sop_check_names(c);
	/* (Who shares a volume draws from a range of his own.) */
	if (!rc && !c->v->shared && c->ino_max >= c->v->next_ino)
		rc = found_count(c, SOP_CHECK_NEXT, SOP_STORE_ROOT, c->v->next_ino, c->ino_max + 1);
	/* What was not met may be behind what cannot be read. */
	if (rc || c->incomplete)
		return rc;
	if (c->items != c->v->items)
		rc = found_count(c, SOP_CHECK_ITEMS, SOP_STORE_ROOT, c->v->items, c->items);
	for (size_t i = 0; i < c->cap_met && !rc; i++)
		if (c->met[i].used && c->met[i].times > 1 && !c->met[i].counted)
			rc = refs_wrong(c, &c->met[i].ref, 1, c->met[i].times);
	return rc ? rc : accounts_check(c);
}

int sop_check_run(struct sop_check **out, struct sop_volume *v, const struct sop_check_opts *o,
	struct sop_err *e)
{
	struct sop_check *c = calloc(1, sizeof(*c));
	struct sop_err own = {0};
	int rc;

	*out = NULL;
	if (!c)
		return sop_fail(e, -ENOMEM, "check");
	c->v = v;
	c->o = *o;
	c->e = e ? e : &own;
	rc = walk(c);
	c->e = NULL;
	if (rc)
		sop_check_free(c);
	else
		*out = c;
	return rc;
}

static void release(struct sop_check *c)
{
	for (size_t i = 0; i < c->n_rec; i++) {
		free(c->rec[i].key);
		free(c->rec[i].to);
		free(c->rec[i].item_key);
	}
	for (size_t i = 0; i < c->n_todo; i++)
		if (c->todo[i].extents)
			free((void *)(uintptr_t)c->todo[i].who.key);
	sop_check_names_release(c);
	free(c->changed);
	free(c->dead);
	free(c->rec);
	free(c->todo);
	free(c->met);
}

void sop_check_free(struct sop_check *c)
{
	if (!c)
		return;
	release(c);
	free(c);
}

const struct sop_check_report *sop_check_report(const struct sop_check *c)
{
	return &c->r;
}

size_t sop_check_count(const struct sop_check *c)
{
	return c->n_rec;
}

const struct sop_check_record *sop_check_record(const struct sop_check *c, size_t i)
{
	return i < c->n_rec ? &c->rec[i] : NULL;
}

bool sop_check_complete(const struct sop_check *c)
{
	return !c->incomplete;
}

/* ---- the public face ---- */

int sop_volume_check(struct sop_volume *v, bool data, void (*report)(void *arg, const char *line),
	void *arg, struct sop_check_report *out, struct sop_err *e)
{
	const struct sop_check_opts o = {.nodes = data, .data = data};
	struct sop_check *c;
	bool more = true;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	/* (While others may be there nobody empties what was removed: it is met as that. So is what
	 * cannot be read of it.) */
	while (!v->opts.read_only && !sop_shared_live(v) && more)
		(void)sop_reap(v, &more, NULL);
	/* So that what the disks hold is nearly all that there is, and is looked at. */
	if (!rc && !sop_shared_live(v))
		rc = sop_checkpoint_run(v, false, e);
	if (rc)
		return rc;
	sop_lock(&v->ckpt_lock);
	sop_lock(&v->commit);
	rc = sop_check_run(&c, v, &o, e);
	sop_unlock(&v->commit);
	sop_unlock(&v->ckpt_lock);
	if (rc)
		return rc;
	*out = c->r;
	if (report)
		sop_check_report_all(c, report, arg);
	sop_check_free(c);
	return 0;
}
