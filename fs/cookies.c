/* Directory cookies: see dir.h. */
#include <pthread.h>

#include "fs/dir.h"

#define FRAGMENT_BITS 40
#define FRAGMENT_MAX  ((UINT64_C(1) << FRAGMENT_BITS) - 1)
#define IDS_MAX	      ((1u << 23) - 1)

struct prefix {
	uint16_t len;
	char text[];
};

struct sopfs_cookies {
	pthread_mutex_t lock;
	struct prefix **prefixes; /* [id - 1]; 0 is not an id */
	uint32_t count, room;
	uint32_t *hash; /* ids, open addressing; 0: free */
	uint32_t hash_size;
};

struct sopfs_cookies *sopfs_cookies_new(void)
{
	struct sopfs_cookies *c = calloc(1, sizeof(*c));

	if (c)
		pthread_mutex_init(&c->lock, NULL);
	return c;
}

void sopfs_cookies_free(struct sopfs_cookies *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->count; i++)
		free(c->prefixes[i]);
	free(c->prefixes);
	free(c->hash);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static uint32_t hash_prefix(const char *text, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)text[i]) * 16777619u;
	return h ^ (h >> 15);
}

static uint32_t *hash_slot(struct sopfs_cookies *c, const char *text, size_t len)
{
	uint32_t i = hash_prefix(text, len) & (c->hash_size - 1);

	while (c->hash[i]) {
		const struct prefix *p = c->prefixes[c->hash[i] - 1];

		if (p->len == len && memcmp(p->text, text, len) == 0)
			break;
		i = (i + 1) & (c->hash_size - 1);
	}
	return &c->hash[i];
}

static int grow(struct sopfs_cookies *c)
{
	uint32_t room = c->room ? c->room * 2 : 16;
	struct prefix **prefixes = realloc(c->prefixes, room * sizeof(struct prefix *));
	uint32_t *hash;

	if (!prefixes)
		return -ENOMEM;
	c->prefixes = prefixes;
	hash = calloc((size_t)room * 2, sizeof(*hash));
	if (!hash)
		return -ENOMEM;
	free(c->hash);
	c->hash = hash;
	c->hash_size = room * 2;
	c->room = room;
	for (uint32_t i = 0; i < c->count; i++)
		*hash_slot(c, c->prefixes[i]->text, c->prefixes[i]->len) = i + 1;
	return 0;
}

static int intern(struct sopfs_cookies *c, const char *text, size_t len, uint32_t *id)
{
	struct prefix *p;
	uint32_t *slot;

	if (c->count == c->room && grow(c))
		return -ENOMEM;
	slot = hash_slot(c, text, len);
	if (!*slot) {
		if (c->count == IDS_MAX)
			return -EOVERFLOW;
		p = malloc(sizeof(*p) + len);
		if (!p)
			return -ENOMEM;
		p->len = (uint16_t)len;
		memcpy(p->text, text, len);
		c->prefixes[c->count++] = p;
		*slot = c->count;
	}
	*id = *slot;
	return 0;
}

static size_t common(const struct sopfs_key *a, const struct sopfs_key *b)
{
	size_t n = SOP_MIN(a->len, b->len), i = 0;

	while (i < n && a->text[i] == b->text[i])
		i++;
	return i;
}

static uint64_t fragment(const struct sopfs_key *k, size_t prefix)
{
	uint64_t v = 0;

	for (size_t i = 0; i < SOPFS_COOKIE_BYTES; i++)
		v = v << 8 | (prefix + i < k->len ? (unsigned char)k->text[prefix + i] : 0);
	return v;
}

int sopfs_cookies_make(struct sopfs_cookies *c, const struct sopfs_key *names, size_t n,
	const struct sopfs_key *next, uint64_t *out)
{
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	for (size_t first = 0, end; !rc && first < n; first = end) {
		/* A run [first, end): `prefix` is what its names share, `deepest` the most that one
		 * of them shares with the name after it; they differ within the five bytes. */
		size_t prefix = SIZE_MAX, deepest = 0, shared = 0;
		uint32_t id;

		for (end = first; end < n; end++) {
			const struct sopfs_key *after = end + 1 < n ? &names[end + 1] : next;
			size_t p = end > first ? SOP_MIN(prefix, shared) : SIZE_MAX;
			size_t with_next = after ? common(&names[end], after) : 0;
			size_t d = SOP_MAX(deepest, with_next);

			if (end > first && d >= p + SOPFS_COOKIE_BYTES)
				break;
			prefix = p;
			deepest = d;
			shared = with_next;
		}
		if (prefix == SIZE_MAX)
			prefix = deepest;
		rc = intern(c, names[first].text, prefix, &id);
		for (size_t i = first; !rc && i < end; i++)
			out[i] = (uint64_t)id << FRAGMENT_BITS | fragment(&names[i], prefix);
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* -EINVAL: not one of ours. */
static int prefix_get(struct sopfs_cookies *c, uint64_t id, char *key, size_t *len)
{
	int rc = -EINVAL;

	pthread_mutex_lock(&c->lock);
	if (id <= c->count) {
		*len = c->prefixes[id - 1]->len;
		memcpy(key, c->prefixes[id - 1]->text, *len);
		rc = 0;
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* The prefix in key, n bytes, and the fragment behind it; the length. Zeros stand for the end of a
 * shorter name, which is not to be passed over. */
static size_t append_fragment(char *key, size_t n, uint64_t value)
{
	for (size_t i = 0; i < SOPFS_COOKIE_BYTES; i++)
		key[n + i] = (char)(value >> 8 * (SOPFS_COOKIE_BYTES - 1 - i));
	n += SOPFS_COOKIE_BYTES;
	while (n && !key[n - 1])
		n--;
	return n;
}

int sopfs_cookies_find_below(struct sopfs_cookies *c, uint64_t cookie, char *key, size_t *len)
{
	uint64_t id = cookie >> FRAGMENT_BITS;
	size_t n = 0;
	int rc;

	*len = 0;
	if (!id)
		return cookie <= SOPFS_COOKIE_DOTDOT ? 0 : -EINVAL;
	rc = prefix_get(c, id, key, &n);
	if (!rc)
		*len = append_fragment(key, n, cookie & FRAGMENT_MAX);
	return rc;
}

int sopfs_cookies_find(struct sopfs_cookies *c, uint64_t cookie, char *key, size_t *len)
{
	uint64_t id = cookie >> FRAGMENT_BITS, next = (cookie & FRAGMENT_MAX) + 1;
	size_t n = 0;
	int rc;

	*len = 0;
	if (!id)
		return cookie <= SOPFS_COOKIE_DOTDOT ? 0 : -EINVAL;
	rc = prefix_get(c, id, key, &n);
	if (rc)
		return rc;
	if (next <= FRAGMENT_MAX) {
		*len = append_fragment(key, n, next);
		return 0;
	}
	/* Beyond all names with this prefix. */
	while (n && (unsigned char)key[n - 1] == 0xff)
		n--;
	if (!n)
		return -ENOENT;
	key[n - 1]++;
	*len = n;
	return 0;
}
