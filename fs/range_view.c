#include "fs/range_view.h"

#include <stddef.h>

#include "core/hex.h"
#include "fs/ctl.h"
#include "fs/dir.h"
#include "fs/locks.h"

/* Shown inode numbers: beyond those of the volume. */
#define SHOWN_FIRST (UINT64_C(1) << 62)

struct sopfs_range {
	struct sopfs_item item; /* what the kernel knows: a directory of .sop */
	struct sopfs_range *next;
	struct sopfs_item *store; /* referenced */
	uint64_t shown;
	bool ranged; /* else all of the store, and the way to those below */
	struct sop_range within;
	char *text;    /* the name it was looked up by, of a ranged one; else empty */
	char bounds[]; /* from, then to */
};

static struct sopfs_range *range_of(struct sopfs_item *item)
{
	static_assert(offsetof(struct sopfs_range, item) == 0, "the item comes first");
	return (struct sopfs_range *)(void *)item;
}

static struct sopfs_range **bucket(
	struct sopfs *f, const struct sopfs_item *store, const char *text)
{
	uint64_t h = store->ino;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return &f->ranges[(h >> 24 ^ h) % SOP_ARRAY_LEN(f->ranges)];
}

/* ---- names ---- */

static int range_parse(struct sopfs_range *r, const char *name)
{
	const char *dots = strstr(name, "..");
	ssize_t from_len, to_len;
	size_t room;
	char *to;

	r->within.descending = strncmp(name, "desc:", 5) == 0;
	if (r->within.descending)
		name += 5;
	room = strlen(name); /* never longer than the text */
	from_len = sop_percent_decode(r->bounds, room, name, (size_t)(dots - name));
	if (from_len < 0)
		return (int)from_len;
	to = r->bounds + from_len;
	to_len = sop_percent_decode(to, room - (size_t)from_len, dots + 2, strlen(dots + 2));
	if (to_len < 0)
		return (int)to_len;
	if (from_len) {
		r->within.from = r->bounds;
		r->within.from_len = (size_t)from_len;
	}
	if (to_len) {
		r->within.to = to;
		r->within.to_len = (size_t)to_len;
	}
	/* A scan that falls begins at the higher end. */
	if (r->within.descending)
		r->within = (struct sop_range){.from = r->within.to,
			.from_len = r->within.to_len,
			.to = r->within.from,
			.to_len = r->within.from_len,
			.descending = true};
	return 0;
}

/* ---- the directories; sopfs.lock held ---- */

static struct sopfs_range *range_new(struct sopfs *f, struct sopfs_item *store, const char *text)
{
	struct sopfs_range *r = calloc(1, sizeof(*r) + strlen(text) + 1);
	struct sopfs_item *item;

	if (!r || !(r->text = strdup(text))) {
		free(r);
		return NULL;
	}
	item = &r->item;
	pthread_mutex_init(&item->lock, NULL);
	item->ino = SOPFS_RANGE_INO;
	item->type = S_IFDIR;
	item->refs = 1;
	item->view0.item = item;
	item->view0.kind = SOPFS_VIEW_CTL;
	item->views = item->current = &item->view0;
	r->ranged = *text != 0;
	r->store = store;
	r->shown = SHOWN_FIRST + f->range_count++;
	return r;
}

static void range_free(struct sopfs_range *r)
{
	sopfs_locks_free(r->item.locks);
	pthread_mutex_destroy(&r->item.lock);
	free(r->text);
	free(r);
}

static void range_end(struct sopfs *f, struct sopfs_range *r)
{
	struct sopfs_range **p = bucket(f, r->store, r->text);

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	sopfs_item_unref(f, r->store);
	range_free(r);
}

/* The one for this store and text, its look-up counted. */
static int obtain(
	struct sopfs *f, struct sopfs_item *store, const char *text, struct sopfs_view **out)
{
	struct sopfs_range **p, *r;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	p = bucket(f, store, text);
	for (r = *p; r && (r->store != store || strcmp(r->text, text)); r = r->next)
		;
	if (!r) {
		r = range_new(f, store, text);
		rc = !r ? -ENOMEM : r->ranged ? range_parse(r, text) : 0;
		if (rc) {
			if (r)
				range_free(r);
			pthread_mutex_unlock(&f->lock);
			return rc;
		}
		sopfs_item_ref(store);
		r->next = *p;
		*p = r;
	}
	r->item.view0.nlookup++;
	*out = &r->item.view0;
	pthread_mutex_unlock(&f->lock);
	return 0;
}

void sopfs_range_forget(struct sopfs *f, struct sopfs_view *v, uint64_t n)
{
	pthread_mutex_lock(&f->lock);
	assert(v->nlookup >= n);
	v->nlookup -= n;
	if (!v->nlookup)
		range_end(f, range_of(v->item));
	pthread_mutex_unlock(&f->lock);
}

void sopfs_ranges_release(struct sopfs *f)
{
	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < SOP_ARRAY_LEN(f->ranges); i++)
		while (f->ranges[i])
			range_end(f, f->ranges[i]);
	pthread_mutex_unlock(&f->lock);
}

/* ---- look-up ---- */

bool sopfs_range_has(const struct sopfs *f, const struct sopfs_item *dir, const char *name)
{
	return sopfs_is_range(dir) || (dir == f->ctl && strcmp(name, SOPFS_RANGE_NAME) == 0);
}

static int enter(struct sopfs *f, struct sopfs_item *store, const char *text,
	struct sopfs_entry *out, struct sop_err *e)
{
	int rc = obtain(f, store, text, &out->view);

	if (rc)
		return rc;
	out->cache = false;
	rc = sopfs_range_attr(f, out->view->item, &out->attr, e);
	if (rc)
		sopfs_range_forget(f, out->view, 1);
	return rc;
}

/* In the order of the store, as it is listed. -ENOENT: the range does not hold the name. */
static int check_within(struct sopfs *f, const struct sopfs_range *r, const char *name, size_t len,
	struct sop_err *e)
{
	struct sop_range keys = r->within;
	char mem[2][SOP_KEY_MAX], key[SOP_KEY_MAX];
	size_t klen;
	int rc = sopfs_range_keys(f, r->store->ino, &keys, mem, e);

	if (!rc)
		rc = sop_name_key(
			f->latest, (struct sop_name){r->store->ino, name, len}, key, &klen, e);
	if (rc)
		return rc == -EINVAL ? -ENOENT : rc;
	return sopfs_range_holds(&keys, key, klen) ? 0 : -ENOENT;
}

int sopfs_range_lookup(struct sopfs *f, int tid, struct sopfs_item *dir, const char *name,
	struct sopfs_entry *out, struct sop_err *e)
{
	struct sopfs_range *r = dir == f->ctl ? NULL : range_of(dir);
	char plain[SOPFS_NAME_MAX + 1];
	struct sopfs_item *below;
	size_t len = strlen(name);
	int rc;

	if (!r)
		return enter(f, f->root, "", out, e);
	if (len > SOPFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!r->ranged && strstr(name, ".."))
		return enter(f, r->store, name, out, e);
	if (!r->ranged) {
		ssize_t n = sop_percent_decode(plain, SOPFS_NAME_MAX, name, len);

		if (n < 0)
			return (int)n;
		len = (size_t)n;
		plain[len] = 0;
		name = plain;
	}
	if (strlen(name) != len || !len || memchr(name, '/', len))
		return -ENOENT;
	rc = check_within(f, r, name, len, e);
	if (rc)
		return rc;
	/* .sop itself is no item. */
	if (r->store == f->root && strcmp(name, SOPFS_CTL_NAME) == 0)
		return -ENOENT;
	rc = sopfs_lookup(f, tid, r->store, name, out, e);
	out->cache = false;
	if (rc || out->view->item->type != S_IFDIR)
		return rc;
	below = out->view->item;
	pthread_mutex_lock(&f->lock);
	sopfs_item_ref(below);
	pthread_mutex_unlock(&f->lock);
	sopfs_forget(f, out->view, 1);
	rc = enter(f, below, "", out, e);
	sopfs_item_put(f, below);
	return rc;
}

int sopfs_range_attr(struct sopfs *f, struct sopfs_item *dir, struct sop_attr *a, struct sop_err *e)
{
	struct sopfs_range *r = range_of(dir);
	int rc = sopfs_item_attr(f, r->store, a, e);

	if (rc)
		return rc;
	a->ino = r->shown;
	a->mode &= ~(uint32_t)(S_IWUSR | S_IWGRP | S_IWOTH);
	return 0;
}

struct sopfs_item *sopfs_range_store(struct sopfs_item *dir, struct sop_range *within, bool *plain)
{
	struct sopfs_range *r = range_of(dir);

	*within = r->within;
	*plain = !r->ranged;
	return r->store;
}
