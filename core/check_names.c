/* A check's inodes and the names that lead to them: who is named how often, and whether every
 * directory hangs on the root. */
#include "core/check_own.h"

/* ---- inodes and their names ---- */

struct inode *sop_check_inode(const struct sop_check *c, uint64_t ino)
{
	struct inode *i = c->cap_inode ? c->inode[ino % c->cap_inode] : NULL;

	while (i && i->ino != ino)
		i = i->next;
	return i;
}

static int inode_rehash(struct sop_check *c)
{
	size_t cap = c->cap_inode ? 2 * c->cap_inode + 1 : 1021;
	struct inode **b = calloc(cap, sizeof(struct inode *));

	if (!b)
		return sop_check_no_memory(c);
	for (size_t k = 0; k < c->cap_inode; k++)
		for (struct inode *i = c->inode[k], *next; i; i = next) {
			next = i->next;
			i->next = b[i->ino % cap];
			b[i->ino % cap] = i;
		}
	free(c->inode);
	c->inode = b;
	c->cap_inode = cap;
	return 0;
}

int sop_check_inode_get(struct sop_check *c, uint64_t ino, struct inode **out)
{
	int rc = 0;

	*out = sop_check_inode(c, ino);
	if (*out)
		return 0;
	if (c->n_inode >= c->cap_inode)
		rc = inode_rehash(c);
	*out = rc ? NULL : calloc(1, sizeof(**out));
	if (!*out)
		return rc ? rc : sop_check_no_memory(c);
	(*out)->ino = ino;
	(*out)->next = c->inode[ino % c->cap_inode];
	c->inode[ino % c->cap_inode] = *out;
	c->n_inode++;
	return 0;
}

int sop_check_link_met(struct sop_check *c, uint64_t ino, bool dir)
{
	struct name *name;
	struct inode *i;
	int rc = sop_check_inode_get(c, ino, &i);

	if (rc)
		return rc;
	i->links++;
	i->dir = i->dir || dir;
	name = malloc(sizeof(*name) + c->who.klen);
	if (!name)
		return sop_check_no_memory(c);
	*name = (struct name){.next = i->names, .store = c->who.store, .len = c->who.klen};
	memcpy(name->key, c->who.key, c->who.klen);
	i->names = name;
	return 0;
}

int sop_check_number_met(struct sop_check *c, uint64_t ino)
{
	uint64_t page = ino / 8 / NUMBERS_PAGE;
	struct numbers **bucket = &c->numbers[page % SOP_ARRAY_LEN(c->numbers)], *n = *bucket;
	uint8_t *byte, bit = (uint8_t)(1u << ino % 8);
	int was;

	while (n && n->page != page)
		n = n->next;
	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return sop_check_no_memory(c);
		n->page = page;
		n->next = *bucket;
		*bucket = n;
	}
	byte = &n->bits[ino / 8 % NUMBERS_PAGE];
	was = (*byte & bit) != 0;
	*byte |= bit;
	return was;
}

/* ---- names against inodes ---- */

static uint64_t parent_of(const struct inode *i)
{
	return i->names ? i->names->store : 0;
}

/* Where the way up from a directory leads: to the root, to itself, or (NOWHERE) into what hangs on
 * nothing. Those met are marked. */
enum way { WAY_ROOT, WAY_CIRCLE, WAY_NOWHERE };

static enum way way_up(struct sop_check *c, struct inode *from)
{
	for (struct inode *i = from; i; i = sop_check_inode(c, parent_of(i))) {
		if (i->ino == SOP_STORE_ROOT || i->reached == 1)
			return WAY_ROOT;
		if (i->reached == from->ino)
			return i == from ? WAY_CIRCLE : WAY_NOWHERE;
		i->reached = from->ino;
	}
	return WAY_NOWHERE;
}

static void mark_reached(struct sop_check *c, struct inode *i)
{
	for (; i && i->reached != 1; i = sop_check_inode(c, parent_of(i)))
		i->reached = 1;
}

/* name: the one that it goes by, or NULL. */
static int inode_record(struct sop_check *c, const struct inode *i, const struct name *name,
	enum sop_check_kind kind, uint64_t is, uint64_t want)
{
	struct sop_check_record *r;

	c->who = (struct who){.store = SOP_STORE_MASTER, .ino = i->ino};
	if (name) {
		c->who.store = name->store;
		c->who.key = name->key;
		c->who.klen = name->len;
	}
	r = sop_check_found(c, kind);
	c->who = (struct who){0};
	if (!r)
		return sop_check_no_memory(c);
	r->is = is;
	r->want = want;
	return 0;
}

/* Each of its names leads nowhere. */
static int dangling_names(struct sop_check *c, const struct inode *i)
{
	int rc = 0;

	for (const struct name *n = i->names; n && !rc; n = n->next)
		rc = inode_record(c, i, n, SOP_CHECK_DANGLING, 0, 0);
	return rc;
}

static int inode_check(struct sop_check *c, struct inode *i)
{
	enum way way = i->dir && i->links ? way_up(c, i) : WAY_ROOT;

	if (!i->links || way == WAY_CIRCLE)
		return c->incomplete ? 0 : inode_record(c, i, i->names, SOP_CHECK_ORPHAN, 0, 1);
	/* It comes along with what it hangs on, and is looked at then. */
	if (way == WAY_NOWHERE)
		return 0;
	if (i->dir)
		mark_reached(c, i);
	if (i->dir && i->links == 1 && i->parent != parent_of(i))
		return inode_record(c, i, i->names, SOP_CHECK_PARENT, i->parent, parent_of(i));
	if ((i->dir ? 1 : i->nlink) != i->links && !c->incomplete)
		return inode_record(
			c, i, i->names, SOP_CHECK_LINKS, i->dir ? 1 : i->nlink, i->links);
	return 0;
}

int sop_check_names(struct sop_check *c)
{
	bool dangling = false;
	int rc = 0;

	for (size_t k = 0; k < c->cap_inode && !rc; k++)
		for (struct inode *i = c->inode[k]; i && !rc; i = i->next) {
			if (i->ino == SOP_STORE_ROOT && i->here)
				continue;
			dangling |= !i->here && !i->entries;
			if (i->here)
				rc = inode_check(c, i);
			else if (i->entries)
				rc = inode_record(c, i, i->names, SOP_CHECK_NO_INODE, 0, 0);
			else
				rc = dangling_names(c, i);
		}
	c->incomplete |= dangling; /* what that inode had is met by nobody */
	return rc;
}

int sop_check_each_name(const struct sop_check *c, uint64_t ino,
	int (*fn)(void *arg, uint64_t store, const void *key, size_t klen, bool dir), void *arg)
{
	const struct inode *i = sop_check_inode(c, ino);
	int rc = 0;

	for (const struct name *n = i ? i->names : NULL; n && !rc; n = n->next)
		rc = fn(arg, n->store, n->key, n->len, i->dir);
	return rc;
}

uint64_t sop_check_parent(const struct sop_check *c, uint64_t ino)
{
	const struct inode *i = sop_check_inode(c, ino);

	return i ? i->parent : 0;
}

void sop_check_names_release(struct sop_check *c)
{
	for (size_t k = 0; k < SOP_ARRAY_LEN(c->numbers); k++)
		while (c->numbers[k]) {
			struct numbers *n = c->numbers[k];

			c->numbers[k] = n->next;
			free(n);
		}
	for (size_t k = 0; k < c->cap_inode; k++)
		for (struct inode *i = c->inode[k], *next; i; i = next) {
			next = i->next;
			while (i->names) {
				struct name *n = i->names;

				i->names = n->next;
				free(n);
			}
			free(i);
		}
	free(c->inode);
}
