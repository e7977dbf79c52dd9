/* Directory listings: a scan of the tree in key order, merged with the names that are not committed
 * yet.
 *
 * A cookie (d_off) says where to go on, by key, whatever has been inserted or removed meanwhile.
 * Names have up to 255 bytes, keys of typed stores more, and a cookie has 63 bits: 40 bits of the
 * name, five bytes, behind a prefix that is kept in a table of the directory (23 bits). The prefix
 * is what a run of neighbouring names has in common; a run ends where its names would no longer
 * differ within the five bytes. So the table holds few prefixes, a cookie stays right for as long
 * as the directory is known, in any handle and in the kernel's cached listings, and the listing
 * itself is never held in memory. */
#ifndef SOPFS_DIR_H
#define SOPFS_DIR_H

#include "fs/views.h"

/* ---- cookies: pure ------------------------------------------------------------ */

#define SOPFS_COOKIE_DOT    1
#define SOPFS_COOKIE_DOTDOT 2
#define SOPFS_COOKIE_BYTES  5
/* Of a key that has a cookie. That of a name in a typed store may be longer than the name. */
#define SOPFS_COOKIE_KEY_MAX (SOP_KEY_MAX - SOPFS_COOKIE_BYTES)

struct sopfs_cookies; /* the table of one directory; any thread */

struct sopfs_cookies *sopfs_cookies_new(void);
void sopfs_cookies_free(struct sopfs_cookies *c);

struct sopfs_key {
	const char *text;
	size_t len;
};
/* Cookies for n names in strictly rising, or falling, order. next: the name after the last one,
 * whether or not it is to be shown now; NULL: there is none. 0, -ENOMEM, -EOVERFLOW. */
int sopfs_cookies_make(struct sopfs_cookies *c, const struct sopfs_key *names, size_t n,
	const struct sopfs_key *next, uint64_t *out);
/* Where the listing goes on after this cookie: the lowest name it may show, inclusive. *len 0 and
 * -ENOENT: at the end; -EINVAL: not one of ours. key holds at least SOP_KEY_MAX bytes. */
int sopfs_cookies_find(struct sopfs_cookies *c, uint64_t cookie, char *key, size_t *len);
/* The same in falling order: all it may still show is lower than this. *len 0: at the beginning. */
int sopfs_cookies_find_below(struct sopfs_cookies *c, uint64_t cookie, char *key, size_t *len);

/* ---- listings ----------------------------------------------------------------- */

struct sopfs_dirent {
	const char *name;
	size_t len;
	const char *key; /* by which the store orders it; the name, but for typed stores */
	size_t klen;
	uint64_t cookie;
	struct sop_attr attr; /* not plus: ino and type */
};

struct sopfs_listing; /* one answer to READDIR; reused by its handle */

struct sopfs_listing *sopfs_listing_new(void);
void sopfs_listing_free(struct sopfs_listing *l);
struct sopfs_listing_opts {
	size_t size, fixed;	 /* of the answer; of an entry beside its name */
	bool full;		 /* all attributes */
	bool plain;		 /* no names with '%' or ".." */
	struct sop_range within; /* by names; zeros: all, in rising order */
};
/* Fill it with what follows `cookie`, as much as there is room for. */
int sopfs_listing_read(struct sopfs *f, struct sopfs_listing *l, struct sopfs_item *dir,
	uint64_t cookie, const struct sopfs_listing_opts *o, struct sop_err *e);

/* Ends of a range that are names, as the tree's keys, which lie in mem. -ENOENT: there is no such
 * key, and nothing lies between. */
int sopfs_range_keys(struct sopfs *f, uint64_t store, struct sop_range *r, char mem[2][SOP_KEY_MAX],
	struct sop_err *e);
bool sopfs_range_holds(const struct sop_range *r, const void *key, size_t len);

size_t sopfs_listing_count(const struct sopfs_listing *l);
const struct sopfs_dirent *sopfs_listing_at(const struct sopfs_listing *l, size_t i);

#endif
