#include "fs/inode.h"

#include <time.h>

#include "fs/dir.h"
#include "fs/locks.h"

#define FIRST_TABLE  1024
#define IDLE_BUCKETS 16 /* looked at for each nodeid that is wanted */

static size_t hash_ino(uint64_t ino, size_t size)
{
	return (size_t)((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (size - 1);
}

static size_t hash_name(uint64_t store, const char *name, size_t len)
{
	uint64_t h = store * UINT64_C(0x9e3779b97f4a7c15);

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * UINT64_C(0x100000001b3);
	return (size_t)(h >> 24) & 255;
}

int sopfs_table_init(struct sopfs *f, struct sop_err *e)
{
	struct timespec now;
	struct sopfs_view *v;

	f->table_size = FIRST_TABLE;
	f->table = calloc(f->table_size, sizeof(struct sopfs_item *));
	if (!f->table)
		return sop_fail(e, -ENOMEM, "inode table");
	clock_gettime(CLOCK_REALTIME, &now);
	f->generation = (uint64_t)now.tv_sec << 20;
	f->root = sopfs_item_obtain(f, SOP_ROOT, S_IFDIR);
	v = f->root ? sopfs_view_current(f, f->root) : NULL;
	if (!v)
		return sop_fail(e, -ENOMEM, "root inode");
	f->root->refs = 1;
	v->nlookup = 1;
	return 0;
}

static void item_free(struct sopfs_item *item)
{
	while (item->names) {
		struct sopfs_alias *a = item->names;

		item->names = a->next;
		free(a);
	}
	sop_txn_rollback(item->attic);
	sopfs_locks_free(item->locks);
	sopfs_cookies_free(item->cookies);
	pthread_mutex_destroy(&item->lock);
	free(item->last);
	free(item);
}

void sopfs_table_release(struct sopfs *f)
{
	for (size_t i = 0; f->table && i < f->table_size; i++) {
		while (f->table[i]) {
			struct sopfs_item *item = f->table[i];

			f->table[i] = item->hash_next;
			while (item->views) {
				struct sopfs_view *v = item->views;

				item->views = v->next;
				if (v != &item->view0)
					free(v);
			}
			item_free(item);
		}
	}
	free(f->table);
	f->table = NULL;
}

struct sopfs_view *sopfs_view_of(struct sopfs *f, uint64_t nodeid)
{
	if (nodeid == 1)
		return f->root->current;
	return (struct sopfs_view *)(uintptr_t)(nodeid & ~SOPFS_WORLD_BIT);
}

uint64_t sopfs_view_nodeid(const struct sopfs *f, const struct sopfs_view *v)
{
	if (f->world)
		return (uint64_t)(uintptr_t)v | SOPFS_WORLD_BIT;
	return v->item == f->root ? 1 : (uint64_t)(uintptr_t)v;
}

struct sopfs_item *sopfs_item_find(struct sopfs *f, uint64_t ino)
{
	struct sopfs_item *item = f->table[hash_ino(ino, f->table_size)];

	while (item && item->ino != ino)
		item = item->hash_next;
	return item;
}

/* A table that cannot grow for lack of memory only gets slower. */
static void table_grow(struct sopfs *f)
{
	size_t size = f->table_size * 2;
	struct sopfs_item **table = calloc(size, sizeof(struct sopfs_item *));

	if (!table)
		return;
	for (size_t i = 0; i < f->table_size; i++) {
		while (f->table[i]) {
			struct sopfs_item *item = f->table[i];
			size_t h = hash_ino(item->ino, size);

			f->table[i] = item->hash_next;
			item->hash_next = table[h];
			table[h] = item;
		}
	}
	free(f->table);
	f->table = table;
	f->table_size = size;
}

struct sopfs_item *sopfs_item_obtain(struct sopfs *f, uint64_t ino, mode_t type)
{
	struct sopfs_item *item = sopfs_item_find(f, ino);
	size_t h;

	if (item) {
		item->met = true;
		return item;
	}
	item = calloc(1, sizeof(*item));
	if (!item)
		return NULL;
	item->met = true;
	item->fs = f;
	item->ino = ino;
	item->type = type & S_IFMT ? type & S_IFMT : S_IFREG;
	pthread_mutex_init(&item->lock, NULL);
	if (f->table_used >= f->table_size)
		table_grow(f);
	h = hash_ino(ino, f->table_size);
	item->hash_next = f->table[h];
	f->table[h] = item;
	f->table_used++;
	return item;
}

static bool is_idle(const struct sopfs *f, const struct sopfs_item *item)
{
	const struct sopfs_view *v = item->current;

	return v && v != f->root->current && v->nlookup && !v->handles && !v->marks && !v->session;
}

size_t sopfs_table_idle(struct sopfs *f, uint64_t *nodeids, size_t max)
{
	size_t n = 0;

	for (size_t looked = 0; n < max && looked < IDLE_BUCKETS * max; looked++) {
		struct sopfs_item *item = f->table[f->hand++ & (f->table_size - 1)];

		for (; item && n < max; item = item->hash_next) {
			if (!item->met && is_idle(f, item))
				nodeids[n++] = sopfs_view_nodeid(f, item->current);
			item->met = false;
		}
	}
	return n;
}

static void item_reap(struct sopfs *f, struct sopfs_item *item)
{
	struct sopfs_item **p;

	if (item->refs || item->views || item->sessions || item->provisional || item->orphan)
		return;
	p = &f->table[hash_ino(item->ino, f->table_size)];
	while (*p != item)
		p = &(*p)->hash_next;
	*p = item->hash_next;
	f->table_used--;
	item_free(item);
}

void sopfs_item_unref(struct sopfs *f, struct sopfs_item *item)
{
	assert(item->refs);
	item->refs--;
	item_reap(f, item);
}

void sopfs_item_put(struct sopfs *f, struct sopfs_item *item)
{
	if (!item)
		return;
	pthread_mutex_lock(&f->lock);
	sopfs_item_unref(f, item);
	pthread_mutex_unlock(&f->lock);
}

struct sopfs_view *sopfs_view_add(
	struct sopfs *f, struct sopfs_item *item, enum sopfs_view_kind kind)
{
	struct sopfs_view *v = item->view0.item ? calloc(1, sizeof(*v)) : &item->view0;

	if (!v)
		return NULL;
	memset(v, 0, sizeof(*v));
	v->item = item;
	v->kind = kind;
	v->generation = ++f->generation;
	v->next = item->views;
	item->views = v;
	return v;
}

void sopfs_view_reap(struct sopfs *f, struct sopfs_view *v)
{
	struct sopfs_item *item = v->item;
	struct sopfs_view **p;

	if (v->nlookup || v->handles || v->marks || v->session || v->kind == SOPFS_VIEW_CTL)
		return;
	p = &item->views;
	while (*p != v)
		p = &(*p)->next;
	*p = v->next;
	if (item->current == v)
		item->current = NULL;
	if (v == &item->view0)
		v->item = NULL;
	else
		free(v);
	item_reap(f, item);
}

struct sopfs_view *sopfs_view_current(struct sopfs *f, struct sopfs_item *item)
{
	if (!item->current) {
		struct sopfs_view *v = sopfs_view_add(f, item, SOPFS_VIEW_COMMITTED);

		if (!v)
			return NULL;
		v->version = item->provisional ? SOPFS_VERSION_EMPTY : item->version;
		sopfs_view_becomes_current(item, v);
	}
	return item->current;
}

void sopfs_view_becomes_current(struct sopfs_item *item, struct sopfs_view *v)
{
	item->current = v;
	v->kind = SOPFS_VIEW_COMMITTED;
}

static bool alias_is(const struct sopfs_alias *a, uint64_t store, const char *name, size_t len)
{
	return a->store == store && a->len == len && memcmp(a->text, name, len) == 0;
}

bool sopfs_name_known(const struct sopfs_item *item, uint64_t store, const char *name, size_t len)
{
	for (const struct sopfs_alias *a = item->names; a; a = a->next)
		if (alias_is(a, store, name, len))
			return true;
	return false;
}

int sopfs_name_add(struct sopfs_item *item, uint64_t store, const char *name, size_t len)
{
	struct sopfs_alias *a;

	if (sopfs_name_known(item, store, name, len))
		return 0;
	assert(len <= SOPFS_NAME_MAX);
	/* A directory has one name; what we know of another is out of date. */
	if (item->type == S_IFDIR && item->names)
		sopfs_name_remove(item, item->names->store, item->names->text, item->names->len);
	a = malloc(sizeof(*a) + len + 1);
	if (!a)
		return -ENOMEM;
	a->store = store;
	a->len = (uint16_t)len;
	memcpy(a->text, name, len);
	a->text[len] = 0;
	a->next = item->names;
	item->names = a;
	return 0;
}

void sopfs_name_remove(struct sopfs_item *item, uint64_t store, const char *name, size_t len)
{
	for (struct sopfs_alias **p = &item->names; *p; p = &(*p)->next) {
		struct sopfs_alias *a = *p;

		if (!alias_is(a, store, name, len))
			continue;
		*p = a->next;
		free(a);
		return;
	}
}

bool sopfs_item_where(const struct sopfs_item *item, struct sopfs_where *w)
{
	const struct sopfs_alias *a = item->names;

	w->self = !a && item->type != S_IFDIR && item->last && item->last->nlink;
	if (item->nameless || (!a && !w->self))
		return false;
	w->store = a ? a->store : item->ino;
	w->len = a ? a->len : 0;
	memcpy(w->text, a ? a->text : "", w->len + 1);
	return true;
}

/* Written from the end to the front of buf, then moved. */
void sopfs_item_path(struct sopfs *f, const struct sopfs_item *item, char *buf, size_t size)
{
	size_t at = size - 1;
	const struct sopfs_item *up = item;

	buf[at] = 0;
	while (up && up->names && at > up->names->len + 4u) {
		at -= up->names->len;
		memcpy(buf + at, up->names->text, up->names->len);
		buf[--at] = '/';
		up = sopfs_item_find(f, up->names->store);
	}
	if (up != f->root) {
		at -= 3;
		memcpy(buf + at, "...", 3);
	}
	memmove(buf, buf + at, size - at);
}

/* ---- names that are not committed --------------------------------------------------------------
 */

struct sopfs_item *sopfs_overlay_find(struct sopfs *f, uint64_t store, const char *name, size_t len)
{
	struct sopfs_item *item;

	if (!atomic_load(&f->overlay_count))
		return NULL;
	item = f->overlay[hash_name(store, name, len)];
	while (item && !alias_is(item->names, store, name, len))
		item = item->overlay_next;
	return item;
}

void sopfs_overlay_add(struct sopfs *f, struct sopfs_item *item)
{
	const struct sopfs_alias *a = item->names;
	size_t h = hash_name(a->store, a->text, a->len);

	item->overlay_next = f->overlay[h];
	f->overlay[h] = item;
	item->list_prev = NULL;
	item->list_next = f->overlay_first;
	if (f->overlay_first)
		f->overlay_first->list_prev = item;
	f->overlay_first = item;
	atomic_fetch_add(&f->overlay_count, 1);
}

void sopfs_overlay_remove(struct sopfs *f, struct sopfs_item *item)
{
	const struct sopfs_alias *a = item->names;
	struct sopfs_item **p = &f->overlay[hash_name(a->store, a->text, a->len)];

	while (*p != item)
		p = &(*p)->overlay_next;
	*p = item->overlay_next;
	if (item->list_prev)
		item->list_prev->list_next = item->list_next;
	else
		f->overlay_first = item->list_next;
	if (item->list_next)
		item->list_next->list_prev = item->list_prev;
	item->overlay_next = item->list_next = item->list_prev = NULL;
	atomic_fetch_sub(&f->overlay_count, 1);
}

bool sopfs_overlay_has_store(struct sopfs *f, uint64_t store)
{
	for (struct sopfs_item *i = f->overlay_first; i; i = i->list_next)
		if (i->names->store == store)
			return true;
	return false;
}
