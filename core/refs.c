/* Who refers to a blob, for the few blobs that cannot be read: of data a walk over all items of a
 * snapshot, without locks; of nodes a look at all that the registry names. */
#include "core/engine.h"

#include <stdio.h>
#include <sys/stat.h>

#define PATH_DEPTH 64

struct met;

struct walk {
	struct sop_volume *v;
	const struct sop_blobref *ref; /* sorted */
	size_t n;
	uint64_t lsn;
	void (*fn)(void *arg, const char *name, uint64_t off, uint64_t len);
	void *arg;
	struct sop_err *e;
	struct met *met;
	size_t n_met, cap_met;
	uint64_t *store; /* directories to be walked */
	size_t n_store, cap_store;
	/* the item at hand */
	uint64_t in;
	const void *key;
	size_t klen;
};

static int ref_cmp(const void *a, const void *b)
{
	const struct sop_blobref *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	return (x->off > y->off) - (x->off < y->off);
}

static bool is_wanted(const struct walk *w, const struct sop_blobref *ref)
{
	return bsearch(ref, w->ref, w->n, sizeof(*ref), ref_cmp) != NULL;
}

/* ---- paths ---- */

struct name_of {
	uint64_t ino;
	char text[256];
};

static int find_name(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct name_of *n = arg;
	struct sop_item it;

	if (sop_item_decode(&it, val, vlen, NULL) || it.attr.ino != n->ino)
		return 0;
	snprintf(n->text, sizeof(n->text), "%.*s", (int)SOP_MIN(klen, (size_t)255),
		(const char *)key);
	return 1;
}

static int scan(struct walk *w, uint64_t store, sop_entry_fn fn, void *arg)
{
	struct sop_range all = {0};
	struct sop_state_view view;
	int rc = sop_stores_view(w->v->stores, store, w->lsn, &view, w->e);

	if (rc == -ENOENT)
		return 0;
	return rc ? rc : sop_tree_scan(w->v->nodes, &view.tree, w->lsn, &all, fn, arg, w->e);
}

/* The directory's path, as far as it can be found, in front of what is in text. */
static void prepend_path(struct walk *w, uint64_t store, char *text, size_t size)
{
	uint8_t key[SOP_MASTER_KEY], buf[SOP_ITEM_BYTES_MAX];
	char longer[512];

	for (unsigned i = 0; i < PATH_DEPTH && store != SOP_STORE_ROOT; i++) {
		struct name_of n = {.ino = store};
		struct sop_item it;
		uint64_t parent;

		sop_master_key(key, store, 'i');
		if (sop_tree_item(w->v, SOP_STORE_MASTER, w->lsn, key, sizeof(key), &it, buf, NULL))
			return;
		parent = it.attr.rdev;
		if (scan(w, parent, find_name, &n) != 1)
			return;
		snprintf(longer, sizeof(longer), "%s/%s", n.text, text);
		snprintf(text, size, "%.*s", (int)size - 1, longer);
		store = parent;
	}
	snprintf(longer, sizeof(longer), "/%s", text);
	snprintf(text, size, "%.*s", (int)size - 1, longer);
}

/* ---- the walk ---- */

/* While a tree is scanned nothing else may be asked of it: what was met is worked off afterwards.
 */
struct met {
	void *key; /* of the item */
	size_t klen;
	uint64_t in;
	uint64_t tree; /* extents to be looked at; 0: a hit */
	uint64_t off, len;
};

static int met_add(struct walk *w, uint64_t tree, uint64_t off, uint64_t len)
{
	struct met *m;

	if (w->n_met == w->cap_met) {
		size_t cap = w->cap_met ? 2 * w->cap_met : 64;
		struct met *p = realloc(w->met, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		w->met = p;
		w->cap_met = cap;
	}
	m = &w->met[w->n_met];
	*m = (struct met){malloc(w->klen + 1), w->klen, w->in, tree, off, len};
	if (!m->key)
		return -ENOMEM;
	memcpy(m->key, w->key, w->klen);
	w->n_met++;
	return 0;
}

static void tell(struct walk *w, const struct met *m)
{
	char text[256];

	if (m->in == SOP_STORE_MASTER) {
		snprintf(text, sizeof(text), "inode %llu", (unsigned long long)be64_get(m->key));
	} else {
		snprintf(text, sizeof(text), "%.*s", (int)SOP_MIN(m->klen, (size_t)255),
			(const char *)m->key);
		prepend_path(w, m->in, text, sizeof(text));
	}
	w->fn(w->arg, text, m->off, m->len);
}

static int extent(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct walk *w = arg;
	struct sop_extent x;

	if (sop_extent_decode(&x, key, klen, val, vlen, NULL))
		return 0;
	return is_wanted(w, &x.ref) ? met_add(w, 0, x.off, x.len) : 0;
}

static int item(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct walk *w = arg;
	struct sop_item it;
	int rc = 0;

	if (sop_item_decode(&it, val, vlen, NULL) || it.link)
		return 0;
	w->key = key;
	w->klen = klen;
	for (unsigned i = 0; i < it.extents && !rc; i++)
		if (is_wanted(w, &it.extent[i].ref))
			rc = met_add(w, 0, it.extent[i].off, it.extent[i].len);
	if (!rc && it.xattr_blob.segment && is_wanted(w, &it.xattr_blob))
		rc = met_add(w, 0, 0, 0);
	return !rc && it.tree ? met_add(w, it.tree, 0, 0) : rc;
}

static int work_off(struct walk *w)
{
	int rc = 0;

	/* The list grows meanwhile. */
	for (size_t i = 0; i < w->n_met; i++) {
		struct met m = w->met[i];

		if (!m.tree) {
			tell(w, &m);
		} else if (rc != -ENOMEM) {
			w->in = m.in;
			w->key = m.key;
			w->klen = m.klen;
			rc = scan(w, m.tree, extent, w);
		}
	}
	while (w->n_met)
		free(w->met[--w->n_met].key);
	return rc;
}

static int master(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct walk *w = arg;
	uint64_t id = klen == SOP_MASTER_KEY ? be64_get(key) : 0;

	if (!id)
		return 0;
	if (((const uint8_t *)key)[8] == 'i')
		return item(w, key, klen, val, vlen);
	if (((const uint8_t *)key)[8] != 's' || (id != SOP_STORE_ROOT && id < SOP_INO_FIRST))
		return 0;
	if (w->n_store == w->cap_store) {
		size_t cap = w->cap_store ? 2 * w->cap_store : 256;
		uint64_t *p = realloc(w->store, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		w->store = p;
		w->cap_store = cap;
	}
	w->store[w->n_store++] = id;
	return 0;
}

int sop_refs_name(struct sop_volume *v, struct sop_blobref *ref, size_t n,
	void (*fn)(void *arg, const char *name, uint64_t off, uint64_t len), void *arg,
	struct sop_err *e)
{
	struct walk w = {.v = v, .ref = ref, .n = n, .fn = fn, .arg = arg, .e = e};
	int rc = sop_pins_get(v->pins, SOP_PIN_ALL, &w.lsn);

	if (rc)
		return sop_fail(e, rc, "names of what is lost");
	qsort(ref, n, sizeof(*ref), ref_cmp);
	w.in = SOP_STORE_MASTER;
	rc = scan(&w, SOP_STORE_MASTER, master, &w);
	if (rc != -ENOMEM)
		rc = work_off(&w);
	/* What cannot be read here is told by whoever needs it. A tree of extents has a state as a
	 * directory has; its entries do not decode as items. */
	for (size_t i = 0; i < w.n_store && rc != -ENOMEM; i++) {
		w.in = w.store[i];
		rc = scan(&w, w.in, item, &w);
		if (rc != -ENOMEM)
			rc = work_off(&w);
	}
	free(w.met);
	free(w.store);
	sop_pins_put(v->pins, SOP_PIN_ALL, w.lsn);
	return rc == -ENOMEM ? sop_fail(e, rc, "names of what is lost") : 0;
}

/* ---- nodes ---- */

struct nodes {
	const struct sop_blobref *ref;
	size_t n;
	void (*fn)(void *arg, uint64_t handle);
	void *arg;
};

static void node_met(const struct nodes *w, const struct sop_blobref *ref, uint64_t handle)
{
	if (bsearch(ref, w->ref, w->n, sizeof(*ref), ref_cmp))
		w->fn(w->arg, handle);
}

static int node_pending(void *arg, const struct sop_blobref *ref)
{
	node_met(arg, ref, 0);
	return 0;
}

/* No checkpoint is under way: what the registry does not name, and nobody has freed lately, has
 * never been published, or is free. A block that cannot be read may name anything. */
int sop_refs_nodes(struct sop_volume *v, struct sop_blobref *ref, size_t n,
	void (*fn)(void *arg, uint64_t handle), void *arg, struct sop_err *e)
{
	struct nodes w = {ref, n, fn, arg};
	uint64_t handles = (uint64_t)sop_registry_files(v->reg) *
			   sop_members_label(v->mem)->hashmod * SOP_REGISTRY_SLOTS;
	int rc = 0;

	qsort(ref, n, sizeof(*ref), ref_cmp);
	SOP_LOCK_GUARD(&v->ckpt_lock);
	for (size_t i = 0; i < v->n_doubt; i++)
		node_met(&w, &v->doubt[i], 0);
	sop_lock(&v->commit);
	if (v->dead)
		rc = sop_fail(e, SOP_EDEAD, "volume %s", v->name);
	else
		(void)sop_space_each_pending(v->space, node_pending, &w);
	sop_unlock(&v->commit);
	for (uint64_t h = 1; h < handles && !rc; h++) {
		struct sop_blobref at;

		rc = sop_registry_lookup(v->reg, h, &at, e);
		if (!rc)
			node_met(&w, &at, h);
		rc = rc == -ENOENT ? 0 : rc;
	}
	return rc;
}
