/* An item as its tree entry holds it: the codec, and nothing else.
 *
 * The value of an item is a set of extents, in the record while they are few, else in a tree of their
 * own, and one inline run of bytes: the whole of a small value, or the tail that appends gather in. What
 * neither covers below the size is a hole. Every extent is one reference to its blob.
 *
 * A name of a directory, or of an inode with several names, is only a link: the inode itself lies in
 * the master store under its number. */
#ifndef SOP_ITEM_H
#define SOP_ITEM_H

#include "core/blob.h"
#include "core/sop.h"

#define SOP_INLINE_MAX     2048 /* bytes of the inline run */
#define SOP_XATTR_INLINE   2048 /* larger sets of extended attributes go to a blob */
#define SOP_EXTENTS_INLINE 16

struct sop_extent {
	uint64_t off; /* in the value */
	uint32_t len;
	uint32_t blob_off; /* where it begins in the blob's data */
	struct sop_blobref ref;
};

struct sop_item {
	bool link;  /* only attr.ino, attr.version and attr.mode's type are valid then */
	bool plain; /* no file attributes: shown with defaults */
	struct sop_attr attr;
	/* Of the record itself, where attr shows an open value's view of them (sop_txn_item). */
	uint64_t record_size, record_bytes;

	uint64_t run_off; /* the inline run */
	uint32_t run_len;
	const void *run;

	uint64_t tree; /* store of the extents, 0: none; then extents is 0 */

	const void *xattrs; /* name NUL le32 length value, ... */
	uint32_t xattrs_len;
	struct sop_blobref xattr_blob; /* or there; segment 0: none */

	const char *text; /* the key as it was given, where the tree's key does not give it back */
	uint32_t text_len;

	uint32_t extents; /* in extent[]; last, so that a kept copy has only what is used */
	struct sop_extent extent[SOP_EXTENTS_INLINE];
};

static inline size_t sop_item_bytes(const struct sop_item *it)
{
	return offsetof(struct sop_item, extent) + it->extents * sizeof(it->extent[0]);
}

/* Copy the used part; run, xattrs and text are shared. */
static inline void sop_item_copy(struct sop_item *to, const struct sop_item *from)
{
	memcpy(to, from, sop_item_bytes(from));
}

#define SOP_ITEM_BYTES_MAX 6144

/* At most SOP_ITEM_BYTES_MAX bytes; the number. -E2BIG when it does not fit. */
int sop_item_encode(void *raw, const struct sop_item *it);
/* run, xattrs and text point into raw. */
int sop_item_decode(struct sop_item *it, const void *raw, size_t len, struct sop_err *e);
/* The attributes alone: fast. *link: only number and type are known. */
int sop_item_decode_attr(struct sop_attr *a, bool *link, const void *raw, size_t len,
	struct sop_err *e);

/* The text alone: at once when the record has none. *len 0: none. It points into raw. */
int sop_item_text(const void *raw, size_t len, const char **text, uint16_t *text_len,
	struct sop_err *e);

/* Value of an extent tree's entry (its key is the be64 offset). */
struct sop_disk_extent {
	struct le32 len;
	struct le32 blob_off;
	struct sop_disk_blobref ref;
};
static_assert(sizeof(struct sop_disk_extent) == 32, "extent");

static inline struct sop_disk_extent sop_extent_encode(const struct sop_extent *x)
{
	return (struct sop_disk_extent){
		le32_make(x->len), le32_make(x->blob_off), sop_blobref_encode(&x->ref)};
}
int sop_extent_decode(struct sop_extent *x, const void *key, size_t klen, const void *val,
	size_t vlen, struct sop_err *e);

/* Keys of the master store. */
#define SOP_MASTER_KEY 9
static inline void sop_master_key(uint8_t key[SOP_MASTER_KEY], uint64_t id, char kind)
{
	be64_put(key, id);
	key[8] = (uint8_t)kind;
}

#endif
