/* Layout of a record: type, flags, then fields as LEB128 numbers (small ones are one byte) and byte
 * runs. Times that equal the modification time, the common case, are left out by a flag. */
#include "core/item.h"

#include <sys/stat.h>

/* TEXT may come with either: the key as it was given follows at the end. */
enum item_type { ITEM_INODE = 1, ITEM_LINK = 2, ITEM_TEXT = 0x40 };

enum item_flag {
	ITEM_META = 1,
	ITEM_SAME_ATIME = 2,
	ITEM_SAME_CTIME = 4,
	ITEM_SAME_BTIME = 8,
	ITEM_RUN = 16,
	ITEM_EXTENTS = 32,
	ITEM_TREE = 64,
	ITEM_XATTR = 128,
};

struct out {
	uint8_t *p, *end;
	bool full;
};

struct in {
	const uint8_t *p, *end;
	bool bad;
};

static void put_num(struct out *o, uint64_t x)
{
	if (o->end - o->p < 10) {
		o->full = true;
		return;
	}
	while (x >= 0x80) {
		*o->p++ = (uint8_t)(x | 0x80);
		x >>= 7;
	}
	*o->p++ = (uint8_t)x;
}

static void put_bytes(struct out *o, const void *b, size_t len)
{
	if ((size_t)(o->end - o->p) < len) {
		o->full = true;
		return;
	}
	if (len)
		memcpy(o->p, b, len);
	o->p += len;
}

static void put_time(struct out *o, struct timespec t)
{
	uint64_t s = (uint64_t)t.tv_sec;

	put_num(o, (s << 1) ^ (t.tv_sec < 0 ? UINT64_MAX : 0));
	put_num(o, (uint64_t)t.tv_nsec);
}

static void put_ref(struct out *o, const struct sop_blobref *r)
{
	struct le32 nonce = le32_make(r->nonce);

	put_num(o, r->segment);
	put_num(o, r->off);
	put_num(o, r->len);
	put_bytes(o, &nonce, 4);
}

static uint64_t get_num(struct in *i)
{
	uint64_t x = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t b;

		if (i->p == i->end)
			break;
		b = *i->p++;
		if (shift == 63 && b > 1)
			break;
		x |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return x;
	}
	i->bad = true;
	return 0;
}

static uint32_t get_num32(struct in *i)
{
	uint64_t x = get_num(i);

	if (x > UINT32_MAX)
		i->bad = true;
	return (uint32_t)x;
}

static const void *get_bytes(struct in *i, size_t len)
{
	const void *p = i->p;

	if ((size_t)(i->end - i->p) < len) {
		i->bad = true;
		return NULL;
	}
	i->p += len;
	return p;
}

static struct timespec get_time(struct in *i)
{
	uint64_t z = get_num(i);
	struct timespec t;

	t.tv_sec = (time_t)((z >> 1) ^ (z & 1 ? UINT64_MAX : 0));
	t.tv_nsec = (long)get_num32(i);
	if (t.tv_nsec > 999999999)
		i->bad = true;
	return t;
}

static void get_ref(struct in *i, struct sop_blobref *r)
{
	const void *n;

	r->segment = get_num(i);
	r->off = get_num(i);
	r->len = get_num32(i);
	n = get_bytes(i, 4);
	if (n) {
		struct le32 v;

		memcpy(&v, n, 4);
		r->nonce = le32_get(v);
	}
	if (!r->segment || !r->len || r->len > SOP_BLOB_MAX)
		i->bad = true;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void put_meta(struct out *o, const struct sop_attr *a, unsigned flags)
{
	put_num(o, a->mode);
	put_num(o, a->uid);
	put_num(o, a->gid);
	put_num(o, a->nlink);
	put_num(o, a->rdev);
	put_num(o, a->flags);
	put_time(o, a->mtime);
	if (!(flags & ITEM_SAME_ATIME))
		put_time(o, a->atime);
	if (!(flags & ITEM_SAME_CTIME))
		put_time(o, a->ctime);
	if (!(flags & ITEM_SAME_BTIME))
		put_time(o, a->btime);
}

static void get_meta(struct in *i, struct sop_attr *a, unsigned flags)
{
	a->mode = get_num32(i);
	a->uid = get_num32(i);
	a->gid = get_num32(i);
	a->nlink = get_num32(i);
	a->rdev = get_num(i);
	a->flags = get_num32(i);
	a->mtime = get_time(i);
	a->atime = flags & ITEM_SAME_ATIME ? a->mtime : get_time(i);
	a->ctime = flags & ITEM_SAME_CTIME ? a->mtime : get_time(i);
	a->btime = flags & ITEM_SAME_BTIME ? a->mtime : get_time(i);
}

static unsigned text_flag(const struct sop_item *it)
{
	return it->text_len ? ITEM_TEXT : 0u;
}

static void put_text(struct out *o, const struct sop_item *it)
{
	if (!it->text_len)
		return;
	put_num(o, it->text_len);
	put_bytes(o, it->text, it->text_len);
}

int sop_item_encode(void *raw, const struct sop_item *it)
{
	struct out o = {.p = raw, .end = (uint8_t *)raw + SOP_ITEM_BYTES_MAX};
	const struct sop_attr *a = &it->attr;
	unsigned flags = 0;
	uint64_t at = 0;

	if (it->text_len > SOP_KEY_TEXT_MAX)
		return -E2BIG;
	if (it->link) {
		uint8_t head[2] = {(uint8_t)(ITEM_LINK | text_flag(it)), 0};

		put_bytes(&o, head, 2);
		put_num(&o, a->ino);
		put_num(&o, a->version);
		put_num(&o, a->mode & S_IFMT);
		put_text(&o, it);
		return o.full ? -E2BIG : (int)(o.p - (uint8_t *)raw);
	}
	if (!it->plain)
		flags |= ITEM_META | (same_time(a->atime, a->mtime) ? ITEM_SAME_ATIME : 0u) |
			 (same_time(a->ctime, a->mtime) ? ITEM_SAME_CTIME : 0u) |
			 (same_time(a->btime, a->mtime) ? ITEM_SAME_BTIME : 0u);
	flags |= (it->run_len ? ITEM_RUN : 0u) | (it->extents ? ITEM_EXTENTS : 0u) |
		 (it->tree ? ITEM_TREE : 0u) |
		 (it->xattrs_len || it->xattr_blob.segment ? ITEM_XATTR : 0u);
	{
		uint8_t head[2] = {(uint8_t)(ITEM_INODE | text_flag(it)), (uint8_t)flags};

		put_bytes(&o, head, 2);
	}
	put_num(&o, a->ino);
	put_num(&o, a->version);
	put_num(&o, a->value_version);
	put_num(&o, a->size);
	put_num(&o, a->bytes);
	if (flags & ITEM_META)
		put_meta(&o, a, flags);
	if (flags & ITEM_RUN) {
		put_num(&o, it->run_off);
		put_num(&o, it->run_len);
		put_bytes(&o, it->run, it->run_len);
	}
	if (flags & ITEM_EXTENTS) {
		put_num(&o, it->extents);
		for (uint32_t n = 0; n < it->extents; n++) {
			const struct sop_extent *x = &it->extent[n];

			put_num(&o, x->off - at);
			put_num(&o, x->len);
			put_num(&o, x->blob_off);
			put_ref(&o, &x->ref);
			at = x->off + x->len;
		}
	}
	if (flags & ITEM_TREE)
		put_num(&o, it->tree);
	if (flags & ITEM_XATTR) {
		put_num(&o, it->xattrs_len);
		if (it->xattrs_len)
			put_bytes(&o, it->xattrs, it->xattrs_len);
		else
			put_ref(&o, &it->xattr_blob);
	}
	put_text(&o, it);
	return o.full ? -E2BIG : (int)(o.p - (uint8_t *)raw);
}

static int decode_head(struct in *i, struct sop_attr *a, bool *link, bool *text, unsigned *flags,
	struct sop_err *e)
{
	unsigned type;

	const uint8_t *head = get_bytes(i, 2);

	memset(a, 0, sizeof(*a));
	*flags = 0;
	type = head ? head[0] & ~(unsigned)ITEM_TEXT : 0;
	if (type != ITEM_INODE && type != ITEM_LINK)
		return sop_fail(e, SOP_ECORRUPT, "item record");
	*link = type == ITEM_LINK;
	*text = head[0] & ITEM_TEXT;
	a->ino = get_num(i);
	a->version = get_num(i);
	if (*link) {
		a->mode = get_num32(i);
		return i->bad ? sop_fail(e, SOP_ECORRUPT, "item link") : 0;
	}
	*flags = head[1];
	a->value_version = get_num(i);
	a->size = get_num(i);
	a->bytes = get_num(i);
	a->nlink = 1;
	if (*flags & ITEM_META)
		get_meta(i, a, *flags);
	if (i->bad || a->size > INT64_MAX)
		return sop_fail(e, SOP_ECORRUPT, "item attributes");
	return 0;
}

int sop_item_decode_attr(
	struct sop_attr *a, bool *link, const void *raw, size_t len, struct sop_err *e)
{
	struct in i = {.p = raw, .end = (const uint8_t *)raw + len};
	unsigned flags;
	bool text;

	return decode_head(&i, a, link, &text, &flags, e);
}

static void get_extents(struct in *i, struct sop_item *it)
{
	uint64_t at = 0;

	it->extents = get_num32(i);
	if (it->extents > SOP_EXTENTS_INLINE)
		i->bad = true;
	for (uint32_t n = 0; n < it->extents && !i->bad; n++) {
		struct sop_extent *x = &it->extent[n];

		if (sop_add_over(&x->off, at, get_num(i)))
			i->bad = true;
		x->len = get_num32(i);
		x->blob_off = get_num32(i);
		get_ref(i, &x->ref);
		if (!x->len || x->off > (uint64_t)INT64_MAX - x->len || x->blob_off > x->ref.len ||
			x->len > x->ref.len - x->blob_off)
			i->bad = true;
		at = x->off + x->len;
	}
}

static void get_text(struct in *i, struct sop_item *it)
{
	uint64_t len = get_num(i);

	if (!len || len > SOP_KEY_TEXT_MAX) {
		i->bad = true;
		return;
	}
	it->text = get_bytes(i, len);
	it->text_len = it->text ? (uint32_t)len : 0;
}

int sop_item_decode(struct sop_item *it, const void *raw, size_t len, struct sop_err *e)
{
	struct in i = {.p = raw, .end = (const uint8_t *)raw + len};
	unsigned flags;
	bool text;
	int rc;

	it->text = NULL;
	it->text_len = 0;
	it->run_off = it->run_len = it->extents = it->xattrs_len = 0;
	it->run = it->xattrs = NULL;
	it->tree = 0;
	it->xattr_blob = (struct sop_blobref){0};
	it->plain = false;
	rc = decode_head(&i, &it->attr, &it->link, &text, &flags, e);
	it->record_size = it->attr.size;
	it->record_bytes = it->attr.bytes;
	if (rc)
		return rc;
	if (it->link) {
		if (text)
			get_text(&i, it);
		return i.bad || i.p != i.end ? sop_fail(e, SOP_ECORRUPT, "item link") : 0;
	}
	it->plain = !(flags & ITEM_META);
	if (flags & ITEM_RUN) {
		it->run_off = get_num(&i);
		it->run_len = get_num32(&i);
		it->run = get_bytes(&i, it->run_len);
		if (it->run_off > it->attr.size || it->run_len > it->attr.size - it->run_off)
			i.bad = true;
	}
	if (flags & ITEM_EXTENTS)
		get_extents(&i, it);
	if (flags & ITEM_TREE)
		it->tree = get_num(&i);
	if (flags & ITEM_XATTR) {
		it->xattrs_len = get_num32(&i);
		if (it->xattrs_len)
			it->xattrs = get_bytes(&i, it->xattrs_len);
		else
			get_ref(&i, &it->xattr_blob);
	}
	if (text)
		get_text(&i, it);
	if (i.bad || i.p != i.end)
		return sop_fail(e, SOP_ECORRUPT, "item record of inode %llu",
			(unsigned long long)it->attr.ino);
	return 0;
}

int sop_item_text(
	const void *raw, size_t len, const char **text, uint16_t *text_len, struct sop_err *e)
{
	struct sop_item it;
	int rc;

	*text = NULL;
	*text_len = 0;
	if (!len || !(*(const uint8_t *)raw & ITEM_TEXT))
		return 0;
	rc = sop_item_decode(&it, raw, len, e);
	*text = it.text;
	*text_len = (uint16_t)it.text_len;
	return rc;
}

int sop_extent_decode(struct sop_extent *x, const void *key, size_t klen, const void *val,
	size_t vlen, struct sop_err *e)
{
	struct sop_disk_extent d;

	if (klen != 8 || vlen != sizeof(d))
		return sop_fail(e, SOP_ECORRUPT, "extent record");
	memcpy(&d, val, sizeof(d));
	x->off = be64_get(key);
	x->len = le32_get(d.len);
	x->blob_off = le32_get(d.blob_off);
	x->ref = sop_blobref_decode(&d.ref);
	if (!x->len || x->off > (uint64_t)INT64_MAX - x->len || !x->ref.segment ||
		x->ref.len > SOP_BLOB_MAX || x->blob_off > x->ref.len ||
		x->len > x->ref.len - x->blob_off)
		return sop_fail(e, SOP_ECORRUPT, "extent record");
	return 0;
}
