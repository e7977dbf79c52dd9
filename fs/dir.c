#include "fs/dir.h"

struct uncommitted {
	char *text;
	size_t len;
	const char *key; /* the tree's: text, or in key_mem */
	size_t klen;
	char *key_mem;
	struct sop_attr attr;
};

struct sopfs_listing {
	char bound[2][SOP_KEY_MAX];
	struct sopfs_dirent *entries; /* name: an offset into text until the listing is complete */
	size_t count, room;
	char *text;
	size_t text_len, text_room;
	struct sopfs_key *keys;
	uint64_t *cookies;
	size_t keys_room;
	/* of the read under way */
	const struct sopfs_listing_opts *o;
	struct sop_range range; /* what is left of it */
	size_t left;
	bool more;
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
static int add(struct sopfs_listing *l, const char *name, size_t len, const void *key, size_t klen,
	uint64_t cookie, const struct sop_attr *a)
{
	size_t need = (l->o->fixed + len + 7) & ~(size_t)7;
	struct sopfs_dirent *d;
	int rc = make_room((void **)&l->entries, &l->room, l->count + 1, sizeof(*l->entries));

	if (!rc)
		rc = make_room((void **)&l->text, &l->text_room, l->text_len + len + klen + 1, 1);
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
	d->key = d->name;
	d->klen = len;
	if (key != name) {
		d->key = (const char *)(uintptr_t)l->text_len;
		d->klen = klen;
		memcpy(l->text + l->text_len, key, klen);
		l->text_len += klen;
	}
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

static bool is_plain(const char *name, size_t len)
{
	return !memchr(name, '%', len) && !memmem(name, len, "..", 2);
}

/* In the order of the range. */
static int compare(
	const struct sop_range *r, const void *a, size_t alen, const void *b, size_t blen)
{
	int c = sop_bytes_cmp(a, alen, b, blen);

	return r->descending ? -c : c;
}

bool sopfs_range_holds(const struct sop_range *r, const void *key, size_t len)
{
	int c = r->from ? compare(r, key, len, r->from, r->from_len) : 1;

	if (c < 0 || (!c && r->from_exclusive))
		return false;
	c = r->to ? compare(r, key, len, r->to, r->to_len) : -1;
	return c < 0 || (!c && !r->to_exclusive);
}

/* A bound as its name has it, as the store orders it. */
static int bound(
	struct sopfs *f, uint64_t store, const void **p, size_t *len, char *mem, struct sop_err *e)
{
	int rc;

	if (!*p)
		return 0;
	rc = sop_name_key(f->latest, (struct sop_name){store, *p, *len}, mem, len, e);
	*p = mem;
	return rc == -EINVAL || rc == -ENAMETOOLONG ? -ENOENT : rc;
}

int sopfs_range_keys(struct sopfs *f, uint64_t store, struct sop_range *r, char mem[2][SOP_KEY_MAX],
	struct sop_err *e)
{
	int rc = bound(f, store, &r->from, &r->from_len, mem[0], e);

	return rc ? rc : bound(f, store, &r->to, &r->to_len, mem[1], e);
}

static int add_own(struct sopfs_listing *l, const struct uncommitted *u)
{
	return add(l, u->text, u->len, u->key, u->klen, 0, &u->attr);
}

static int scanned(void *arg, const struct sop_listed *x)
{
	struct sopfs_listing *l = arg;
	int rc = 0;

	while (!rc && l->own_next < l->own_count) {
		struct uncommitted *u = &l->own[l->own_next];
		int c = compare(&l->range, u->key, u->klen, x->key, x->klen);

		if (c > 0)
			break;
		/* Equal: it has been committed since we looked. */
		if (c < 0)
			rc = add_own(l, u);
		l->own_next++;
	}
	/* No name that can be shown has a longer key, unless the disk lies. */
	if (!rc && can_be_shown(x->name, x->name_len) && x->klen <= SOPFS_COOKIE_KEY_MAX &&
		(!l->o->plain || is_plain(x->name, x->name_len)))
		rc = add(l, x->name, x->name_len, x->key, x->klen, 0, x->attr);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct uncommitted *x = a, *y = b;

	return sop_bytes_cmp(x->key, x->klen, y->key, y->klen);
}

static int by_name_falling(const void *a, const void *b)
{
	return by_name(b, a);
}

static void own_free(struct sopfs_listing *l)
{
	for (size_t i = 0; i < l->own_count; i++) {
		free(l->own[i].text);
		free(l->own[i].key_mem);
	}
	free(l->own);
	l->own = NULL;
	l->own_count = l->own_next = 0;
}

/* Their places in the order of the store; those that are not to be listed go. */
static int own_keys(
	struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir, struct sop_err *e)
{
	size_t kept = 0;
	int rc;

	for (size_t i = 0; i < l->own_count; i++) {
		struct uncommitted u = l->own[i];

		u.key_mem = malloc(SOP_KEY_MAX);
		u.key = u.key_mem;
		l->own[i] = l->own[kept];
		l->own[kept] = u; /* so that all are freed at the end */
		if (!u.key_mem)
			return -ENOMEM;
		rc = sop_name_key(f->latest, (struct sop_name){dir->ino, u.text, u.len}, u.key_mem,
			&l->own[kept].klen, e);
		/* No key: the store has got another type meanwhile, and its session will fail. */
		if (rc && rc != -EINVAL)
			return rc;
		if (!rc && sopfs_range_holds(&l->range, u.key, l->own[kept].klen) &&
			(!l->o->plain || is_plain(u.text, u.len)))
			kept++;
	}
	while (l->own_count > kept) {
		l->own_count--;
		free(l->own[l->own_count].text);
		free(l->own[l->own_count].key_mem);
	}
	return 0;
}

/* The directory's names in the range that are not committed, in order. Taken before the scan: a
 * name that is committed in between is seen twice, and shown once. */
static int own_names(
	struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir, struct sop_err *e)
{
	size_t room = 0;
	int rc = 0;

	if (!atomic_load(&f->overlay_count))
		return 0;
	pthread_mutex_lock(&f->lock);
	for (struct sopfs_item *i = f->overlay_first; !rc && i; i = i->list_next) {
		const struct sopfs_alias *a = i->names;
		struct uncommitted *u;

		if (a->store != dir->ino)
			continue;
		rc = make_room((void **)&l->own, &room, l->own_count + 1, sizeof(*l->own));
		if (rc)
			break;
		u = &l->own[l->own_count];
		u->attr = *i->last;
		u->len = a->len;
		u->key_mem = NULL;
		u->text = strdup(a->text);
		if (!u->text)
			rc = -ENOMEM;
		else
			l->own_count++;
	}
	pthread_mutex_unlock(&f->lock);
	if (!rc)
		rc = own_keys(f, l, dir, e);
	if (!rc && l->own_count)
		qsort(l->own, l->own_count, sizeof(*l->own),
			l->range.descending ? by_name_falling : by_name);
	return rc;
}

static int dots(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir, uint64_t cookie)
{
	struct sop_attr a = {.ino = dir->ino, .mode = S_IFDIR};
	int rc = 0;

	if (cookie < SOPFS_COOKIE_DOT)
		rc = add(l, ".", 1, ".", 1, SOPFS_COOKIE_DOT, &a);
	pthread_mutex_lock(&f->lock);
	if (dir->names)
		a.ino = dir->names->store;
	pthread_mutex_unlock(&f->lock);
	if (!rc && cookie < SOPFS_COOKIE_DOTDOT)
		rc = add(l, "..", 2, "..", 2, SOPFS_COOKIE_DOTDOT, &a);
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
		l->entries[i].key = l->text + (uintptr_t)l->entries[i].key;
		l->keys[i] = (struct sopfs_key){l->entries[i].key, l->entries[i].klen};
	}
	if (l->count <= first)
		return 0;
	rc = sopfs_cookies_make(c, l->keys + first, l->count - first,
		l->more ? &l->keys[l->count] : NULL, l->cookies);
	for (size_t i = first; !rc && i < l->count; i++)
		l->entries[i].cookie = l->cookies[i - first];
	return rc;
}

/* What the range holds behind the cookie. key: room for the bound. -ENOENT: nothing. */
static int go_on(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir,
	struct sopfs_cookies *c, uint64_t cookie, char *key, struct sop_err *e)
{
	struct sop_range *r = &l->range;
	size_t len;
	int rc;

	*r = l->o->within;
	rc = sopfs_range_keys(f, dir->ino, r, l->bound, e);
	if (rc)
		return rc;
	rc = r->descending ? sopfs_cookies_find_below(c, cookie, key, &len)
			   : sopfs_cookies_find(c, cookie, key, &len);
	if (rc)
		return rc;
	if (len && (!r->from || compare(r, key, len, r->from, r->from_len) >= 0)) {
		r->from = key;
		r->from_len = len;
		r->from_exclusive = r->descending;
	}
	return r->from && r->to && compare(r, r->from, r->from_len, r->to, r->to_len) > 0 ? -ENOENT
											  : 0;
}

int sopfs_listing_read(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir,
	uint64_t cookie, const struct sopfs_listing_opts *o, struct sop_err *e)
{
	struct sopfs_cookies *c = cookies_of(f, dir);
	char from[SOP_KEY_MAX];
	bool empty;
	size_t first;
	int rc;

	l->count = l->text_len = 0;
	l->o = o;
	l->left = o->size;
	l->more = false;
	if (!c)
		return -ENOMEM;
	rc = go_on(f, l, dir, c, cookie, from, e);
	empty = rc == -ENOENT;
	if (rc && !empty)
		return rc;
	rc = dots(f, l, dir, cookie);
	first = l->count;
	if (!rc && !empty)
		rc = own_names(f, l, dir, e);
	if (!rc && !empty) {
		rc = sop_list(f->latest, dir->ino, &l->range, o->full, scanned, l, e);
		while (!rc && l->own_next < l->own_count) {
			rc = add_own(l, &l->own[l->own_next++]);
		}
	}
	own_free(l);
	if (rc == -ENOENT)
		rc = 0; /* removed while it is open: there is nothing in it */
	return rc < 0 ? rc : finish(l, c, first);
}
