/* Walking a volume: everything that is reachable is verified and compared with the accounts.
 *
 * What is wrong is listed as records that say what a repair needs; texts with paths are made of
 * them afterwards, when the walk has met all names. Private to core: sop_volume_check and fsck use
 * it. */
#ifndef SOP_CHECK_H
#define SOP_CHECK_H

#include "core/engine.h"

enum sop_check_kind {
	SOP_CHECK_SHARDS,   /* some shards of a blob do not verify; the blob can be read */
	SOP_CHECK_DATA,	    /* lost: bytes of an item's value */
	SOP_CHECK_XATTRS,   /* lost: an item's extended attributes */
	SOP_CHECK_NODE,	    /* lost: a node of a tree, with the keys that only it leads to */
	SOP_CHECK_RECORD,   /* lost: an entry that is no item or extent */
	SOP_CHECK_STATE,    /* lost: a store whose state is not there */
	SOP_CHECK_DANGLING, /* lost: a name whose inode is not there */
	SOP_CHECK_TWIN,	    /* an item whose inode number another one has as well */
	SOP_CHECK_NO_INODE, /* a directory that is there but for its inode */
	SOP_CHECK_ORPHAN,   /* an inode without a name */
	SOP_CHECK_LINKS,    /* an inode with another number of names */
	SOP_CHECK_PARENT,   /* a directory that names another parent */
	SOP_CHECK_EXTENT,  /* lost: an extent that overlaps the one before, lies past the end, or is
			      of no blob */
	SOP_CHECK_COUNT,   /* a store with another number of entries */
	SOP_CHECK_SUBDIRS, /* a store with another number of directories */
	SOP_CHECK_ITEMS,   /* a volume with another number of names */
	SOP_CHECK_REFS,	   /* a blob with another number of references */
	SOP_CHECK_ACCOUNT, /* a segment with another number of live bytes */
	SOP_CHECK_SHAPE, /* a leaf of a tree that is out of order or out of place; with its keys */
	SOP_CHECK_DEAD,	 /* a page with more dead bytes than live ones leave room for */
	SOP_CHECK_NEXT,	 /* the next inode number to be given out is in use */
	SOP_CHECK_PLACE, /* a blob that overlaps another or lies past the end of its segment */
	SOP_CHECK_KINDS
};

/* Can what it stands for not be had back from this volume? */
static inline bool sop_check_lost(enum sop_check_kind kind)
{
	return (kind >= SOP_CHECK_DATA && kind <= SOP_CHECK_DANGLING) || kind == SOP_CHECK_EXTENT ||
	       kind == SOP_CHECK_PLACE;
}

struct sop_check_record {
	enum sop_check_kind kind;
	bool repaired;	/* SHARDS: written anew */
	uint64_t store; /* where the entry is, or whose node, state or count it is; 0: of nobody */
	void *key;	/* of the entry; NODE: the lowest key behind it; malloc'ed or NULL */
	size_t klen;
	void *to; /* NODE: the lowest key beyond */
	size_t to_len;
	uint64_t ino;
	uint64_t in; /* the store whose tree was being walked */
	/* NODE, STATE of an extent tree: the entry of its item; 0: of nobody */
	uint64_t item_store;
	void *item_key;
	size_t item_klen;
	uint64_t off, len;
	uint64_t want; /* what a count should be */
	uint64_t is;
	uint64_t handle;
	uint32_t disks; /* SHARDS: how many shards were bad */
	struct sop_blobref ref;
	char why[160];
};

struct sop_check_opts {
	bool nodes;  /* verify all shards of tree nodes */
	bool data;   /* ... and of data */
	bool repair; /* write bad shards anew */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *ctx;
	bool (*stop)(void *ctx); /* true: give up, -ECANCELED */
};

struct sop_check; /* a finished walk */

/* The caller sees to it that nothing changes meanwhile, and that no checkpoint is under way. What
 * the next one will write need not be on the disks: it is looked at in memory. */
int sop_check_run(struct sop_check **out, struct sop_volume *v, const struct sop_check_opts *o,
	struct sop_err *e);
void sop_check_free(struct sop_check *c); /* NULL is fine */
const struct sop_check_report *sop_check_report(const struct sop_check *c);
size_t sop_check_count(const struct sop_check *c);
const struct sop_check_record *sop_check_record(const struct sop_check *c, size_t i);
/* Was everything reached? When not, counts and accounts are not to be believed. */
bool sop_check_complete(const struct sop_check *c);
/* Calls fn for each name that leads to an inode of MASTER (there or not), until it returns
 * non-zero. */
int sop_check_each_name(const struct sop_check *c, uint64_t ino,
	int (*fn)(void *arg, uint64_t store, const void *key, size_t klen, bool dir), void *arg);
/* A directory's parent as its record says. */
uint64_t sop_check_parent(const struct sop_check *c, uint64_t ino);
/* What it is about, as a path from the root, and what is wrong with it. Control characters are
 * shown as octal numbers; buffers are cut short where they must be. */
void sop_check_path(
	const struct sop_check *c, const struct sop_check_record *r, char *buf, size_t size);
void sop_check_what(
	const struct sop_check *c, const struct sop_check_record *r, char *buf, size_t size);

#endif
