/* Check: walk everything that is reachable, verify it, and compare with the accounts.
 *
 * The master store leads to every directory and every inode with several names; directories lead to
 * items, items to extents, extents to blobs. What the accounts call live and the walk did not meet
 * is a leak; what the walk met and the accounts do not know is damage. Runs under the checkpoint
 * and commit locks: nothing changes meanwhile. */
#include "core/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

struct met { /* a blob met, and how often */
	struct sop_blobref ref;
	uint32_t times;
	bool used;
};

struct check {
	struct sop_volume *v;
	bool data;
	void (*report)(void *arg, const char *line);
	void *arg;
	struct sop_check_report *r;
	struct sop_err *e;
	struct met *met;
	size_t n_met, cap_met; /* cap: a power of two */
	uint64_t *dirs;	       /* stores to walk */
	size_t n_dirs, cap_dirs;
	uint64_t store; /* being walked */
	uint64_t seen;	/* entries of it */
	uint64_t subdirs;
	uint64_t items;
	int rc;
	struct sop_heal_segment
		*heal; /* repair the blobs of these segments; no looking for damage */
	size_t n_heal;
};

static void found(struct check *c, const char *fmt, ...) SOP_PRINTF(2, 3);
static void found(struct check *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	c->r->errors++;
	if (!c->report)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->report(c->arg, line);
}

/* ---- blobs met ---- */

static struct met *met_slot(struct check *c, const struct sop_blobref *ref)
{
	size_t i = (size_t)((ref->segment * 1000003 + ref->off / 8) * 0x9E3779B97F4A7C15ull >> 20) &
		   (c->cap_met - 1);

	while (c->met[i].used &&
		(c->met[i].ref.segment != ref->segment || c->met[i].ref.off != ref->off))
		i = (i + 1) & (c->cap_met - 1);
	return &c->met[i];
}

static int met_grow(struct check *c)
{
	struct met *old = c->met;
	size_t cap = c->cap_met;

	c->cap_met = cap ? 2 * cap : 4096;
	c->met = calloc(c->cap_met, sizeof(*c->met));
	if (!c->met) {
		c->met = old;
		c->cap_met = cap;
		return sop_fail(c->e, -ENOMEM, "check");
	}
	for (size_t i = 0; i < cap; i++)
		if (old[i].used)
			*met_slot(c, &old[i].ref) = old[i];
	free(old);
	return 0;
}

static void heal_blob(struct check *c, const struct sop_blobref *ref)
{
	for (size_t i = 0; i < c->n_heal; i++) {
		uint32_t good = 0;

		if (c->heal[i].id != ref->segment)
			continue;
		if (sop_blob_verify(c->v->seg, ref, true, &good, NULL))
			good = 0;
		c->heal[i].failed |= c->heal[i].shards & ~good;
	}
}

static int met_add(struct check *c, const struct sop_blobref *ref, const char *what)
{
	struct met *m;
	uint32_t good;
	int rc = 0;

	if (c->n_met * 2 >= c->cap_met && (rc = met_grow(c)))
		return rc;
	m = met_slot(c, ref);
	if (m->used) {
		if (m->ref.len != ref->len || m->ref.nonce != ref->nonce)
			found(c, "%s: two blobs at one address %llx:%llu", what,
				(unsigned long long)ref->segment, (unsigned long long)ref->off);
		m->times++;
		return 0;
	}
	*m = (struct met){*ref, 1, true};
	c->n_met++;
	c->r->blobs++;
	c->r->blob_bytes += ref->len;
	if (c->n_heal)
		heal_blob(c, ref);
	if (c->data) {
		struct sop_segment_info info;
		uint32_t want;

		rc = sop_blob_verify(c->v->seg, ref, false, &good, NULL);
		if (rc) {
			found(c, "%s: blob %llx:%llu is lost", what,
				(unsigned long long)ref->segment, (unsigned long long)ref->off);
			return 0;
		}
		rc = sop_segments_info(c->v->seg, ref->segment, &info, c->e);
		if (rc)
			return rc;
		want = (uint32_t)((1ull << (info.k + info.m)) - 1);
		if (good != want)
			found(c, "%s: blob %llx:%llu has lost shards (mask %x of %x)", what,
				(unsigned long long)ref->segment, (unsigned long long)ref->off,
				good, want);
	}
	return 0;
}

/* ---- walking ---- */

static int dir_add(struct check *c, uint64_t store)
{
	if (c->n_dirs == c->cap_dirs) {
		size_t cap = c->cap_dirs ? 2 * c->cap_dirs : 256;
		uint64_t *p = realloc(c->dirs, cap * sizeof(*p));

		if (!p)
			return sop_fail(c->e, -ENOMEM, "check");
		c->dirs = p;
		c->cap_dirs = cap;
	}
	c->dirs[c->n_dirs++] = store;
	return 0;
}

static int node_met(void *arg, uint64_t handle)
{
	struct check *c = arg;
	struct sop_blobref ref;
	char what[64];
	int rc;

	c->r->nodes++;
	rc = sop_registry_lookup(c->v->reg, handle, &ref, c->e);
	if (rc) {
		found(c, "node %llu of store %llu: %s", (unsigned long long)handle,
			(unsigned long long)c->store, sop_err_text(rc));
		return 0;
	}
	snprintf(what, sizeof(what), "node %llu", (unsigned long long)handle);
	return met_add(c, &ref, what);
}

static int tree_walk(struct check *c, uint64_t store, sop_entry_fn fn)
{
	struct sop_range all = {0};
	struct sop_state_view view;
	int rc = sop_stores_view(c->v->stores, store, SOP_LSN_LATEST, &view, c->e);

	if (rc == -ENOENT) {
		found(c, "store %llu has no state", (unsigned long long)store);
		return 0;
	}
	if (rc)
		return rc;
	c->r->stores++;
	c->store = store;
	c->seen = c->subdirs = 0;
	rc = sop_tree_check(c->v->nodes, &view.tree, SOP_LSN_LATEST, node_met, c, c->e);
	if (rc) {
		found(c, "store %llu: %s", (unsigned long long)store,
			c->e ? c->e->text : "damaged");
		return 0;
	}
	rc = sop_tree_scan(c->v->nodes, &view.tree, SOP_LSN_LATEST, &all, fn, c, c->e);
	if (rc < 0)
		found(c, "store %llu: %s", (unsigned long long)store,
			c->e ? c->e->text : "damaged");
	if (c->seen != view.at.count)
		found(c, "store %llu: counts %llu items and has %llu", (unsigned long long)store,
			(unsigned long long)view.at.count, (unsigned long long)c->seen);
	if (store >= SOP_STORE_ROOT && c->subdirs != view.at.subdirs)
		found(c, "store %llu: counts %llu directories and has %llu",
			(unsigned long long)store, (unsigned long long)view.at.subdirs,
			(unsigned long long)c->subdirs);
	return 0;
}

static int extent_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct check *c = arg;
	struct sop_extent x;
	char what[64];

	c->seen++;
	if (sop_extent_decode(&x, key, klen, val, vlen, NULL)) {
		found(c, "extent tree %llu: a damaged record", (unsigned long long)c->store);
		return 0;
	}
	snprintf(what, sizeof(what), "extent tree %llu at %llu", (unsigned long long)c->store,
		(unsigned long long)x.off);
	c->rc = met_add(c, &x.ref, what);
	return c->rc;
}

struct pending_tree {
	uint64_t tree, ino, size;
};

/* Items are looked at under the tree's lock; the extent trees they name are walked afterwards. */
static int item_walk(struct check *c, const void *val, size_t vlen, bool inode)
{
	struct sop_item it;
	uint64_t at = 0;
	char what[64];
	int rc;

	rc = sop_item_decode(&it, val, vlen, NULL);
	if (rc) {
		found(c, "store %llu: a damaged item record", (unsigned long long)c->store);
		return 0;
	}
	if (it.link) {
		c->subdirs += S_ISDIR(it.attr.mode) && !inode;
		return 0;
	}
	if (S_ISDIR(it.attr.mode))
		return inode ? dir_add(c, it.attr.ino) : 0;
	snprintf(what, sizeof(what), "inode %llu", (unsigned long long)it.attr.ino);
	for (uint32_t i = 0; i < it.extents; i++) {
		if (it.extent[i].off < at || it.extent[i].off + it.extent[i].len > it.attr.size)
			found(c, "%s: an extent overlaps or lies past the end", what);
		at = it.extent[i].off + it.extent[i].len;
		rc = met_add(c, &it.extent[i].ref, what);
		if (rc)
			return rc;
	}
	if (it.xattr_blob.segment && (rc = met_add(c, &it.xattr_blob, what)))
		return rc;
	/* Bit 63 marks an extent tree among the stores to walk. */
	return it.tree ? dir_add(c, it.tree | 1ull << 63) : 0;
}

static int item_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct check *c = arg;

	(void)key;
	(void)klen;
	c->seen++;
	c->r->items++;
	c->items++;
	c->rc = item_walk(c, val, vlen, false);
	return c->rc;
}

static int master_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct check *c = arg;

	c->seen++;
	if (klen != SOP_MASTER_KEY) {
		found(c, "master store: a key of %zu bytes", klen);
		return 0;
	}
	if (((const uint8_t *)key)[8] != 'i')
		return 0;
	c->rc = item_walk(c, val, vlen, true);
	return c->rc;
}

static int system_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct check *c = arg;

	(void)val;
	(void)vlen;
	c->seen++;
	if (c->store == SOP_STORE_DOOMED && klen == 8)
		c->rc = dir_add(c, be64_get(key) | 1ull << 63);
	return c->rc;
}

static int shared_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct check *c = arg;
	struct sop_blobref ref = {0};
	struct met *m;
	struct le32 n;

	c->seen++;
	if (klen != 16 || vlen != 4 || !c->cap_met)
		return 0;
	ref.segment = be64_get(key);
	ref.off = be64_get((const uint8_t *)key + 8);
	memcpy(&n, val, 4);
	m = met_slot(c, &ref);
	if (!m->used || m->times != le32_get(n))
		found(c, "blob %llx:%llu: %u references counted, %u met",
			(unsigned long long)ref.segment, (unsigned long long)ref.off, le32_get(n),
			m->used ? m->times : 0);
	if (m->used)
		m->times = 1; /* settled */
	return 0;
}

/* ---- accounts ---- */

struct account {
	struct check *c;
	uint64_t id, bytes;
	unsigned k;
};

static int pending_met(void *arg, const struct sop_blobref *ref)
{
	struct check *c = arg;
	bool data = c->data;
	size_t heal = c->n_heal;
	int rc;

	/* Still live by account: freed by a transaction, not given back yet; or given back before a
	 * crash that the account has not heard of. So its bytes are not looked at. */
	c->data = false;
	c->n_heal = 0;
	rc = met_add(c, ref, "pending");
	c->n_heal = heal;
	c->data = data;
	return rc;
}

static int segment_check(void *arg, uint64_t id, uint64_t live, unsigned k)
{
	struct check *c = arg;
	uint64_t bytes = 0;

	for (size_t i = 0; i < c->cap_met; i++)
		if (c->met[i].used && c->met[i].ref.segment == id)
			bytes += sop_blob_shard_bytes(c->met[i].ref.len, k);
	if (bytes < live) {
		c->r->leaked_bytes += (live - bytes) * k;
		found(c, "segment %llx: %llu bytes of a shard are live by account, %llu were met",
			(unsigned long long)id, (unsigned long long)live,
			(unsigned long long)bytes);
	} else if (bytes > live) {
		found(c, "segment %llx: %llu bytes of a shard were met, %llu are live by account",
			(unsigned long long)id, (unsigned long long)bytes,
			(unsigned long long)live);
	}
	return 0;
}

static int walk(struct check *c)
{
	int rc = tree_walk(c, SOP_STORE_MASTER, master_entry);

	for (uint64_t id = SOP_STORE_SEGMENTS; id <= SOP_STORE_DOOMED && !rc; id++)
		if (id != SOP_STORE_SHARED)
			rc = tree_walk(c, id, system_entry);
	for (size_t i = 0; i < c->n_dirs && !rc; i++) {
		bool extents = c->dirs[i] >> 63;

		rc = tree_walk(c, c->dirs[i] & INT64_MAX, extents ? extent_entry : item_entry);
		if (!rc)
			rc = c->rc;
	}
	if (!rc && c->items != c->v->items)
		found(c, "the volume counts %llu names and has %llu",
			(unsigned long long)c->v->items, (unsigned long long)c->items);
	if (!rc)
		rc = sop_space_each_pending(c->v->space, pending_met, c);
	if (!rc)
		rc = tree_walk(c, SOP_STORE_SHARED, shared_entry);
	for (size_t i = 0; i < c->cap_met && !rc; i++)
		if (c->met[i].used && c->met[i].times > 1)
			found(c, "blob %llx:%llu: %u references met, one counted",
				(unsigned long long)c->met[i].ref.segment,
				(unsigned long long)c->met[i].ref.off, c->met[i].times);
	if (!rc)
		rc = sop_space_each(c->v->space, segment_check, c);
	return rc;
}

int sop_volume_check(struct sop_volume *v, bool data, void (*report)(void *arg, const char *line),
	void *arg, struct sop_check_report *out, struct sop_err *e)
{
	struct sop_err own = {0};
	struct check c = {
		.v = v, .data = data, .report = report, .arg = arg, .r = out, .e = e ? e : &own};
	bool more = true;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	/* The registry must know every node: bring it up to date first. */
	if (!v->opts.read_only) {
		while (more && !rc)
			rc = sop_reap(v, &more, e);
		if (!rc)
			rc = sop_checkpoint_run(v, false, e);
	}
	if (rc)
		return rc;
	sop_lock(&v->ckpt_lock);
	sop_lock(&v->commit);
	rc = walk(&c);
	sop_unlock(&v->commit);
	sop_unlock(&v->ckpt_lock);
	free(c.met);
	free(c.dirs);
	return rc;
}

int sop_check_heal(struct sop_volume *v, struct sop_heal_segment *seg, size_t n, struct sop_err *e)
{
	struct sop_check_report r = {0};
	struct sop_err own = {0};
	struct check c = {.v = v, .r = &r, .e = e ? e : &own, .heal = seg, .n_heal = n};
	int rc = walk(&c);

	/* Who cannot be reached cannot be healed: then no segment is taken for whole. */
	for (size_t i = 0; i < n && r.errors; i++)
		seg[i].failed = seg[i].shards;
	free(c.met);
	free(c.dirs);
	return rc;
}
