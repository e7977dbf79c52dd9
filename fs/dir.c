#include "fs/dir.h"

struct uncommitted {
	char *text;
	size_t len;
	struct sop_attr attr;
};

struct sopfs_listing {
	struct sopfs_dirent *entries; /* name: an offset into text until the listing is complete */
	size_t count, room;
	char *text;
	size_t text_len, text_room;
	struct sopfs_key *keys;
	uint64_t *cookies;
	size_t keys_room;
	/* of the read under way */
	size_t left, fixed;
	bool full, more;
	struct uncommitted *own;
	size_t own_count, own_next;
};

struct sopfs_listing *sopfs_listing_new(void)
{
	return calloc(1, sizeof(struct sopfs_listing));
}

void sopfs_listing_free(struct sopfs_listing *l)
{
	if (!l)
		return;
	free(l->entries);
	free(l->text);
	free(l->keys);
	free(l->cookies);
	free(l);
}

size_t sopfs_listing_count(const struct sopfs_listing *l)
{
	return l->count;
}

const struct sopfs_dirent *sopfs_listing_at(const struct sopfs_listing *l, size_t i)
{
	return &l->entries[i];
}

static int make_room(void **p, size_t *room, size_t want, size_t size)
{
	size_t n = SOP_MAX(*room * 2, SOP_MAX(want, (size_t)64));
	void *q;

	if (want <= *room)
		return 0;
	q = realloc(*p, n * size);
	if (!q)
		return -ENOMEM;
	*p = q;
	*room = n;
	return 0;
}

/* 1: the answer is full; this entry is the one after its last. */
static int add(struct sopfs_listing *l, const char *name, size_t len, uint64_t cookie,
	const struct sop_attr *a)
{
	size_t need = (l->fixed + len + 7) & ~(size_t)7;
	struct sopfs_dirent *d;
	int rc = make_room((void **)&l->entries, &l->room, l->count + 1, sizeof(*l->entries));

	if (!rc)
		rc = make_room((void **)&l->text, &l->text_room, l->text_len + len + 1, 1);
	if (rc)
		return rc;
	d = &l->entries[l->count];
	d->name = (const char *)(uintptr_t)l->text_len;
	d->len = len;
	d->cookie = cookie;
	d->attr = *a;
	memcpy(l->text + l->text_len, name, len);
	l->text[l->text_len + len] = 0;
	l->text_len += len + 1;
	if (need > l->left) {
		l->more = true;
		return 1;
	}
	l->left -= need;
	l->count++;
	return 0;
}

/* Keys of libsop that no path can name are not shown. */
static bool can_be_shown(const char *name, size_t len)
{
	if (!len || len > SOPFS_NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static int scanned(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	struct sopfs_listing *l = arg;
	int rc = 0;

	while (!rc && l->own_next < l->own_count) {
		struct uncommitted *u = &l->own[l->own_next];
		int c = sop_bytes_cmp(u->text, u->len, key, klen);

		if (c > 0)
			break;
		/* Equal: it has been committed since we looked. */
		if (c < 0)
			rc = add(l, u->text, u->len, 0, &u->attr);
		l->own_next++;
	}
	if (!rc && can_be_shown(key, klen))
		rc = add(l, key, klen, 0, attr);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct uncommitted *x = a, *y = b;

	return sop_bytes_cmp(x->text, x->len, y->text, y->len);
}

static void own_free(struct sopfs_listing *l)
{
	for (size_t i = 0; i < l->own_count; i++)
		free(l->own[i].text);
	free(l->own);
	l->own = NULL;
	l->own_count = l->own_next = 0;
}

/* The directory's names that are not committed, from `from` on, in order. Taken before the scan: a
 * name that is committed in between is seen twice, and shown once. */
static int own_names(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir,
	const char *from, size_t from_len)
{
	size_t room = 0;
	int rc = 0;

	if (!atomic_load(&f->overlay_count))
		return 0;
	pthread_mutex_lock(&f->lock);
	for (struct sopfs_item *i = f->overlay_first; !rc && i; i = i->list_next) {
		const struct sopfs_alias *a = i->names;
		struct uncommitted *u;

		if (a->store != dir->ino || sop_bytes_cmp(a->text, a->len, from, from_len) < 0)
			continue;
		rc = make_room((void **)&l->own, &room, l->own_count + 1, sizeof(*l->own));
		if (rc)
			break;
		u = &l->own[l->own_count];
		u->attr = *i->last;
		u->len = a->len;
		u->text = strdup(a->text);
		if (!u->text)
			rc = -ENOMEM;
		else
			l->own_count++;
	}
	pthread_mutex_unlock(&f->lock);
	if (!rc && l->own_count)
		qsort(l->own, l->own_count, sizeof(*l->own), by_name);
	return rc;
}

static int dots(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir, uint64_t cookie)
{
	struct sop_attr a = {.ino = dir->ino, .mode = S_IFDIR};
	int rc = 0;

	if (cookie < SOPFS_COOKIE_DOT)
		rc = add(l, ".", 1, SOPFS_COOKIE_DOT, &a);
	pthread_mutex_lock(&f->lock);
	if (dir->names)
		a.ino = dir->names->store;
	pthread_mutex_unlock(&f->lock);
	if (!rc && cookie < SOPFS_COOKIE_DOTDOT)
		rc = add(l, "..", 2, SOPFS_COOKIE_DOTDOT, &a);
	return rc;
}

static struct sopfs_cookies *cookies_of(struct sopfs *f, struct sopfs_item *dir)
{
	struct sopfs_cookies *c;

	pthread_mutex_lock(&f->lock);
	if (!dir->cookies)
		dir->cookies = sopfs_cookies_new();
	c = dir->cookies;
	pthread_mutex_unlock(&f->lock);
	return c;
}

/* Names and cookies of entries [first, count); the one after them, if any, lies behind them. */
static int finish(struct sopfs_listing *l, struct sopfs_cookies *c, size_t first)
{
	size_t all = l->count + (l->more ? 1 : 0), room = l->keys_room;
	int rc = make_room((void **)&l->keys, &room, all, sizeof(*l->keys));

	if (!rc)
		rc = make_room((void **)&l->cookies, &l->keys_room, all, sizeof(*l->cookies));
	if (rc)
		return rc;
	for (size_t i = 0; i < all; i++) {
		l->entries[i].name = l->text + (uintptr_t)l->entries[i].name;
		l->keys[i] = (struct sopfs_key){l->entries[i].name, l->entries[i].len};
	}
	if (l->count <= first)
		return 0;
	rc = sopfs_cookies_make(c, l->keys + first, l->count - first,
		l->more ? &l->keys[l->count] : NULL, l->cookies);
	for (size_t i = first; !rc && i < l->count; i++)
		l->entries[i].cookie = l->cookies[i - first];
	return rc;
}

int sopfs_listing_read(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir,
	uint64_t cookie, size_t size, size_t fixed, bool full, struct sop_err *e)
{
	struct sopfs_cookies *c = cookies_of(f, dir);
	char from[SOPFS_NAME_MAX + SOPFS_COOKIE_BYTES + 2];
	struct sop_range range = {0};
	size_t from_len, first;
	int rc;

	l->count = l->text_len = 0;
	l->left = size;
	l->fixed = fixed;
	l->full = full;
	l->more = false;
	if (!c)
		return -ENOMEM;
	rc = sopfs_cookies_find(c, cookie, from, &from_len);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = dots(f, l, dir, cookie);
	first = l->count;
	if (!rc)
		rc = own_names(f, l, dir, from, from_len);
	if (!rc) {
		if (from_len) {
			range.from = from;
			range.from_len = from_len;
		}
		rc = sop_scan(f->latest, dir->ino, &range, full, scanned, l, e);
		while (!rc && l->own_next < l->own_count) {
			struct uncommitted *u = &l->own[l->own_next++];

			rc = add(l, u->text, u->len, 0, &u->attr);
		}
	}
	own_free(l);
	if (rc == -ENOENT)
		rc = 0; /* removed while it is open: there is nothing in it */
	return rc < 0 ? rc : finish(l, c, first);
}
