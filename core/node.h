/* One B-tree node as a page in memory: pure code on a buffer, no I/O, no locks.
 *
 * A page is a slotted array: sorted slots, entry bytes behind them; deletes leave holes that
 * compaction takes out. On disk the entries are packed (format.h). Keys up to SOP_KEY_MAX bytes,
 * values up to SOP_VALUE_MAX; a page may always be split when it is over its bound. */
#ifndef SOP_NODE_H
#define SOP_NODE_H

#include "core/err.h"
#include "core/format.h"
#include "core/key.h"

#define SOP_VALUE_MAX 6144

struct sop_page; /* malloc'ed; see node.c */

struct sop_page *sop_page_new(uint64_t handle, uint64_t store, unsigned level, size_t room_bytes);
struct sop_page *sop_page_clone(const struct sop_page *p); /* NULL: no memory */
void sop_page_free(struct sop_page *p);

uint64_t sop_page_handle(const struct sop_page *p);
void sop_page_set_handle(struct sop_page *p, uint64_t handle);
uint64_t sop_page_store(const struct sop_page *p);
unsigned sop_page_level(const struct sop_page *p);
void sop_page_set_level(struct sop_page *p, unsigned level);
unsigned sop_page_count(const struct sop_page *p);
size_t sop_page_bytes(const struct sop_page *p);  /* packed size: header and entries */
size_t sop_page_memory(const struct sop_page *p); /* bytes of memory it takes */

/* First slot whose key is >= key; *exact says whether it is equal. */
unsigned sop_page_search(const struct sop_page *p, const void *key, size_t klen, bool *exact);
/* Inner pages: the slot whose child covers key (the last with separator <= key). */
unsigned sop_page_child_slot(const struct sop_page *p, const void *key, size_t klen);
const void *sop_page_key(const struct sop_page *p, unsigned slot, size_t *klen);
const void *sop_page_value(const struct sop_page *p, unsigned slot, size_t *vlen);
uint64_t sop_page_child(const struct sop_page *p, unsigned slot);
size_t sop_page_entry_bytes(const struct sop_page *p, unsigned slot); /* packed */
size_t sop_page_entry_size(size_t klen, size_t vlen);		      /* what one would take */

/* Does an insert at this slot go on with a run of ascending (1) or descending (-1) inserts? 0: no.
 */
int sop_page_run(const struct sop_page *p, unsigned slot);

/* -ENOMEM leaves the page as it was. The page grows as needed; the caller splits it. */
int sop_page_insert(struct sop_page **p, unsigned slot, const void *key, size_t klen,
	const void *val, size_t vlen);
int sop_page_replace(struct sop_page **p, unsigned slot, const void *val, size_t vlen);
/* Inner pages: the entry that becomes the first loses its key (it covers all below the next one).
 */
void sop_page_delete(struct sop_page *p, unsigned slot);
/* After it, inserts or replaces of up to `entries` entries of `bytes` packed bytes in all cannot
 * fail. */
int sop_page_reserve(struct sop_page **p, size_t bytes, unsigned entries);
/* Move entries [from, count) to the empty page `right`; 0 < from. Inner pages: the first one moved
 * loses its key, which is the separator the caller has taken. Cannot fail when right has room. */
int sop_page_split(struct sop_page *p, struct sop_page **right, unsigned from);
/* Append all entries of right, a neighbour of the same level. Inner pages: sep is the separator
 * between the two, the key of right's first entry. -ENOMEM leaves left as it was. */
int sop_page_merge(
	struct sop_page **left, const struct sop_page *right, const void *sep, size_t slen);
/* Two neighbouring leaves: the first n of all their entries to the left one, the rest to the right
 * one. -ENOMEM leaves both as they were. */
int sop_page_deal(struct sop_page **left, struct sop_page **right, unsigned n);

/* Packed form: exactly sop_page_bytes(p) bytes. decode: checks magic, bounds, order of keys, sizes;
 * SOP_ECORRUPT. lsn goes through the header. */
void sop_page_encode(const struct sop_page *p, void *raw, uint64_t lsn, bool root);
int sop_page_decode(
	struct sop_page **out, const void *raw, size_t len, uint64_t *lsn, struct sop_err *e);

#endif
