/* B-tree pages in memory.
 *
 * One allocation: the header, then data[]. Entries grow from its start in their packed form
 * (le16 key length, le32 value length, key, value: as on disk), slots (offsets of entries) from its
 * end downwards, slot i at the i-th place from the end. So an insert at the end of the page moves
 * nothing, and encoding is a copy per entry. A delete leaves a hole; when the gap in the middle is
 * too small for an insert, the page is copied to a new allocation without holes, larger when that
 * is needed. That copy is the only step that can fail, and it comes before anything changes.
 *
 * Offsets and lengths in a page come from our own inserts or from sop_page_decode(), which checks
 * them all; nothing else here looks at them again. */
#include "core/node.h"

#define NODE_VERSION   1
#define NODE_FLAG_ROOT 1
#define NODE_FLAGS     NODE_FLAG_ROOT

#define ENTRY_HEADER 6u
#define SLOT_BYTES   ((size_t)sizeof(uint32_t))
#define ROOM_MIN     96u
#define ROOM_MAX     (64u << 20) /* far above any page; keeps offsets in 32 bits */

#define NO_SLOT UINT32_MAX

struct sop_page {
	uint64_t handle;
	uint64_t store;
	uint32_t count;
	uint32_t room; /* bytes of data[], a multiple of 8 */
	uint32_t tail; /* entries, with holes, lie in data[0..tail) */
	uint32_t live; /* bytes of entries without the holes */
	uint32_t last; /* slot of the last insert; a guess at the order of inserts, NO_SLOT: none */
	uint8_t level;
	_Alignas(8) uint8_t data[];
};

static uint32_t *slot_at(struct sop_page *p, unsigned slot)
{
	return (uint32_t *)(void *)(p->data + p->room) - 1 - slot;
}

static const uint8_t *entry_at(const struct sop_page *p, unsigned slot)
{
	const uint32_t *end = (const uint32_t *)(const void *)(p->data + p->room);

	return p->data + *(end - 1 - slot);
}

static size_t entry_klen(const uint8_t *entry)
{
	struct le16 v;

	memcpy(&v, entry, sizeof(v));
	return le16_get(v);
}

static size_t entry_vlen(const uint8_t *entry)
{
	struct le32 v;

	memcpy(&v, entry + 2, sizeof(v));
	return le32_get(v);
}

static size_t entry_bytes(const uint8_t *entry)
{
	return ENTRY_HEADER + entry_klen(entry) + entry_vlen(entry);
}

static void entry_write(uint8_t *to, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct le16 k = le16_make((uint16_t)klen);
	struct le32 v = le32_make((uint32_t)vlen);

	memcpy(to, &k, sizeof(k));
	memcpy(to + 2, &v, sizeof(v));
	if (klen)
		memcpy(to + ENTRY_HEADER, key, klen);
	if (vlen)
		memcpy(to + ENTRY_HEADER + klen, val, vlen);
}

size_t sop_page_entry_size(size_t klen, size_t vlen)
{
	return ENTRY_HEADER + klen + vlen;
}

struct sop_page *sop_page_new(uint64_t handle, uint64_t store, unsigned level, size_t room_bytes)
{
	struct sop_page *p;
	size_t room = SOP_MAX(room_bytes, (size_t)ROOM_MIN);

	assert(level <= UINT8_MAX);
	if (room > ROOM_MAX)
		return NULL;
	room = sop_round_up(room, 8);
	p = malloc(sizeof(*p) + room);
	if (!p)
		return NULL;
	*p = (struct sop_page){
		.handle = handle,
		.store = store,
		.level = (uint8_t)level,
		.room = (uint32_t)room,
		.last = NO_SLOT,
	};
	return p;
}

void sop_page_free(struct sop_page *p)
{
	free(p);
}

/* A copy of p without its holes, with `room` bytes, which suffice. */
static struct sop_page *copy_packed(const struct sop_page *p, size_t room)
{
	struct sop_page *c = sop_page_new(p->handle, p->store, p->level, room);

	if (!c)
		return NULL;
	if (p->count && p->tail == p->live) {
		memcpy(c->data, p->data, p->tail);
		memcpy(slot_at(c, p->count - 1), p->data + p->room - p->count * SLOT_BYTES,
			p->count * SLOT_BYTES);
		c->tail = p->tail;
	} else {
		for (unsigned i = 0; i < p->count; i++) {
			const uint8_t *e = entry_at(p, i);
			size_t n = entry_bytes(e);

			memcpy(c->data + c->tail, e, n);
			*slot_at(c, i) = c->tail;
			c->tail += (uint32_t)n;
		}
	}
	c->count = p->count;
	c->live = p->live;
	c->last = p->last;
	return c;
}

struct sop_page *sop_page_clone(const struct sop_page *p)
{
	/* A clone is made to be changed: leave room for a few inserts. */
	return copy_packed(p, p->live + p->count * SLOT_BYTES + p->live / 8 + 256);
}

uint64_t sop_page_handle(const struct sop_page *p)
{
	return p->handle;
}

void sop_page_set_handle(struct sop_page *p, uint64_t handle)
{
	p->handle = handle;
}

uint64_t sop_page_store(const struct sop_page *p)
{
	return p->store;
}

unsigned sop_page_level(const struct sop_page *p)
{
	return p->level;
}

void sop_page_set_level(struct sop_page *p, unsigned level)
{
	assert(level <= UINT8_MAX);
	p->level = (uint8_t)level;
}

unsigned sop_page_count(const struct sop_page *p)
{
	return p->count;
}

size_t sop_page_bytes(const struct sop_page *p)
{
	return sizeof(struct sop_disk_node) + p->live;
}

size_t sop_page_memory(const struct sop_page *p)
{
	return sizeof(*p) + p->room;
}

unsigned sop_page_search(const struct sop_page *p, const void *key, size_t klen, bool *exact)
{
	unsigned lo = 0;
	unsigned hi = p->count;

	*exact = false;
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const uint8_t *e = entry_at(p, mid);
		int c = sop_bytes_cmp(e + ENTRY_HEADER, entry_klen(e), key, klen);

		if (c == 0) {
			*exact = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

unsigned sop_page_child_slot(const struct sop_page *p, const void *key, size_t klen)
{
	bool exact;
	unsigned slot = sop_page_search(p, key, klen, &exact);

	return exact || slot == 0 ? slot : slot - 1;
}

const void *sop_page_key(const struct sop_page *p, unsigned slot, size_t *klen)
{
	const uint8_t *e = entry_at(p, slot);

	assert(slot < p->count);
	*klen = entry_klen(e);
	return e + ENTRY_HEADER;
}

const void *sop_page_value(const struct sop_page *p, unsigned slot, size_t *vlen)
{
	const uint8_t *e = entry_at(p, slot);

	assert(slot < p->count);
	*vlen = entry_vlen(e);
	return e + ENTRY_HEADER + entry_klen(e);
}

uint64_t sop_page_child(const struct sop_page *p, unsigned slot)
{
	size_t vlen;
	const void *v = sop_page_value(p, slot, &vlen);
	struct le64 child;

	assert(p->level && vlen == sizeof(child));
	memcpy(&child, v, sizeof(child));
	return le64_get(child);
}

size_t sop_page_entry_bytes(const struct sop_page *p, unsigned slot)
{
	assert(slot < p->count);
	return entry_bytes(entry_at(p, slot));
}

int sop_page_run(const struct sop_page *p, unsigned slot)
{
	if (p->last == NO_SLOT)
		return 0;
	if (slot == p->last + 1)
		return 1;
	return slot == p->last ? -1 : 0;
}

int sop_page_reserve(struct sop_page **pp, size_t bytes, unsigned entries)
{
	struct sop_page *p = *pp;
	struct sop_page *c;
	size_t more = bytes + entries * SLOT_BYTES;
	size_t need = p->live + p->count * SLOT_BYTES + more;
	size_t room = p->room;

	if (p->tail + p->count * SLOT_BYTES + more <= p->room)
		return 0;
	/* When taking out holes alone would leave hardly any gap, the next insert would copy the
	 * page again: grow then. */
	if (need > room - room / 8)
		room = SOP_MAX(need + need / 8, room + room / 2);
	c = copy_packed(p, room);
	if (!c)
		return -ENOMEM;
	sop_page_free(p);
	*pp = c;
	return 0;
}

static uint32_t append_entry(
	struct sop_page *p, const void *key, size_t klen, const void *val, size_t vlen)
{
	uint32_t off = p->tail;
	uint32_t n = (uint32_t)sop_page_entry_size(klen, vlen);

	entry_write(p->data + off, key, klen, val, vlen);
	p->tail += n;
	p->live += n;
	return off;
}

int sop_page_insert(struct sop_page **pp, unsigned slot, const void *key, size_t klen,
	const void *val, size_t vlen)
{
	struct sop_page *p;
	uint32_t off;

	assert(klen <= SOP_KEY_MAX && vlen <= SOP_VALUE_MAX && slot <= (*pp)->count);
	if (sop_page_reserve(pp, sop_page_entry_size(klen, vlen), 1))
		return -ENOMEM;
	p = *pp;
	off = append_entry(p, key, klen, val, vlen);
	if (slot < p->count) {
		uint32_t *low = slot_at(p, p->count - 1);

		memmove(low - 1, low, (p->count - slot) * SLOT_BYTES);
	}
	p->count++;
	*slot_at(p, slot) = off;
	p->last = slot;
	return 0;
}

/* The bytes [off, off + n) of the entry area are no longer used. */
static void release_bytes(struct sop_page *p, uint32_t off, size_t n)
{
	p->live -= (uint32_t)n;
	if (off + n == p->tail)
		p->tail = off;
}

int sop_page_replace(struct sop_page **pp, unsigned slot, const void *val, size_t vlen)
{
	struct sop_page *p = *pp;
	uint8_t key[SOP_KEY_MAX];
	uint8_t *e;
	size_t klen, old;

	assert(slot < p->count && vlen <= SOP_VALUE_MAX);
	e = p->data + *slot_at(p, slot);
	klen = entry_klen(e);
	old = entry_vlen(e);
	if (vlen <= old) {
		struct le32 v = le32_make((uint32_t)vlen);

		memcpy(e + 2, &v, sizeof(v));
		if (vlen)
			memcpy(e + ENTRY_HEADER + klen, val, vlen);
		release_bytes(
			p, (uint32_t)(*slot_at(p, slot) + ENTRY_HEADER + klen + vlen), old - vlen);
		return 0;
	}
	if (sop_page_reserve(pp, sop_page_entry_size(klen, vlen), 0))
		return -ENOMEM;
	p = *pp;
	e = p->data + *slot_at(p, slot);
	memcpy(key, e + ENTRY_HEADER, klen);
	release_bytes(p, *slot_at(p, slot), ENTRY_HEADER + klen + old);
	*slot_at(p, slot) = append_entry(p, key, klen, val, vlen);
	return 0;
}

/* Inner pages: the first entry's key is empty. Shortens that entry where it lies. */
static void clear_first_key(struct sop_page *p)
{
	uint32_t off;
	uint8_t *e;
	size_t klen, vlen;

	if (!p->level || !p->count)
		return;
	off = *slot_at(p, 0);
	e = p->data + off;
	klen = entry_klen(e);
	vlen = entry_vlen(e);
	if (!klen)
		return;
	memmove(e + ENTRY_HEADER, e + ENTRY_HEADER + klen, vlen);
	e[0] = 0;
	e[1] = 0;
	release_bytes(p, (uint32_t)(off + ENTRY_HEADER + vlen), klen);
}

void sop_page_delete(struct sop_page *p, unsigned slot)
{
	uint32_t off;
	uint32_t *low;

	assert(slot < p->count);
	off = *slot_at(p, slot);
	release_bytes(p, off, entry_bytes(p->data + off));
	low = slot_at(p, p->count - 1);
	memmove(low + 1, low, (p->count - 1 - slot) * SLOT_BYTES);
	p->count--;
	if (p->last != NO_SLOT && slot <= p->last)
		p->last = slot == p->last || !p->last ? NO_SLOT : p->last - 1;
	if (!slot)
		clear_first_key(p);
	if (!p->count)
		p->tail = 0;
}

static void copy_entries(
	struct sop_page *to, const struct sop_page *from, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		const uint8_t *e = entry_at(from, i);
		size_t n = entry_bytes(e);

		memcpy(to->data + to->tail, e, n);
		*slot_at(to, to->count++) = to->tail;
		to->tail += (uint32_t)n;
	}
	to->live = to->tail;
}

int sop_page_split(struct sop_page *p, struct sop_page **right, unsigned from)
{
	struct sop_page *r;
	size_t bytes = 0;

	assert(from && from <= p->count && !(*right)->count && (*right)->level == p->level);
	for (unsigned i = from; i < p->count; i++)
		bytes += entry_bytes(entry_at(p, i));
	if (sop_page_reserve(right, bytes, p->count - from))
		return -ENOMEM;
	r = *right;
	copy_entries(r, p, from, p->count);
	p->count = from;
	p->live -= (uint32_t)bytes;
	if (p->last != NO_SLOT && p->last >= from) {
		r->last = p->last - from;
		p->last = NO_SLOT;
	}
	clear_first_key(r);
	return 0;
}

int sop_page_merge(
	struct sop_page **left, const struct sop_page *right, const void *sep, size_t slen)
{
	struct sop_page *p;

	assert((*left)->level == right->level && slen <= SOP_KEY_MAX);
	if (sop_page_reserve(left, right->live + slen, right->count))
		return -ENOMEM;
	p = *left;
	for (unsigned i = 0; i < right->count; i++) {
		size_t klen, vlen;
		const void *key = sop_page_key(right, i, &klen);
		const void *val = sop_page_value(right, i, &vlen);
		uint32_t off = p->level && !i ? append_entry(p, sep, slen, val, vlen)
					      : append_entry(p, key, klen, val, vlen);

		*slot_at(p, p->count++) = off;
	}
	p->last = NO_SLOT;
	return 0;
}

int sop_page_deal(struct sop_page **left, struct sop_page **right, unsigned n)
{
	struct sop_page *l = *left, *r = *right, *a, *b;
	size_t all = l->live + r->live + (l->count + r->count) * SLOT_BYTES;
	unsigned cut = SOP_MIN(n, l->count);

	assert(!l->level && !r->level && n <= l->count + r->count);
	/* Each with room for what made it too full, and some more. */
	a = sop_page_new(l->handle, l->store, 0, all);
	b = sop_page_new(r->handle, r->store, 0, all);
	if (!a || !b) {
		sop_page_free(a);
		sop_page_free(b);
		return -ENOMEM;
	}
	copy_entries(a, l, 0, cut);
	copy_entries(a, r, 0, n - cut);
	copy_entries(b, l, cut, l->count);
	copy_entries(b, r, n - cut, r->count);
	sop_page_free(l);
	sop_page_free(r);
	*left = a;
	*right = b;
	return 0;
}

/* ---- packed form ------------------------------------------------------------------------------
 */

void sop_page_encode(const struct sop_page *p, void *raw, uint64_t lsn, bool root)
{
	struct sop_disk_node h = {
		.magic = SOP_NODE_MAGIC,
		.handle = le64_make(p->handle),
		.store = le64_make(p->store),
		.lsn = le64_make(lsn),
		.count = le32_make(p->count),
		.bytes = le32_make((uint32_t)sop_page_bytes(p)),
		.level = p->level,
		.version = NODE_VERSION,
		.flags = root ? NODE_FLAG_ROOT : 0,
	};
	uint8_t *to = (uint8_t *)raw + sizeof(h);

	memcpy(raw, &h, sizeof(h));
	for (unsigned i = 0; i < p->count; i++) {
		const uint8_t *e = entry_at(p, i);
		size_t n = entry_bytes(e);

		memcpy(to, e, n);
		to += n;
	}
}

static int check_header(const struct sop_disk_node *h, size_t len, struct sop_err *e)
{
	if (memcmp(h->magic, SOP_NODE_MAGIC, sizeof(h->magic)))
		return sop_fail(e, SOP_ECORRUPT, "not a node");
	if (h->version != NODE_VERSION)
		return sop_fail(e, SOP_EVERSION, "node version %u", h->version);
	if (h->flags & ~NODE_FLAGS)
		return sop_fail(e, SOP_ECORRUPT, "node flags %#x", h->flags);
	if (le32_get(h->bytes) != len)
		return sop_fail(
			e, SOP_ECORRUPT, "node says %u bytes, has %zu", le32_get(h->bytes), len);
	/* Every entry takes at least its header, so that count is bounded by len. */
	if (le32_get(h->count) > (len - sizeof(*h)) / ENTRY_HEADER)
		return sop_fail(e, SOP_ECORRUPT, "node says %u entries", le32_get(h->count));
	if (h->level && !le32_get(h->count))
		return sop_fail(e, SOP_ECORRUPT, "inner node without entries");
	return 0;
}

/* Is the entry at data[off..], a whole one, above the one before? */
static bool in_order(const struct sop_page *p, unsigned i, size_t off)
{
	const uint8_t *e = p->data + off, *before;

	if (!i)
		return true;
	before = entry_at(p, i - 1);
	return sop_bytes_cmp(before + ENTRY_HEADER, entry_klen(before), e + ENTRY_HEADER,
		       entry_klen(e)) < 0;
}

/* One entry at data[off..len): its size, or 0 when it is not a whole entry. */
static size_t check_entry(const struct sop_page *p, unsigned i, size_t off, size_t len)
{
	const uint8_t *e = p->data + off;
	size_t klen, vlen;

	if (len - off < ENTRY_HEADER)
		return 0;
	klen = entry_klen(e);
	vlen = entry_vlen(e);
	if (klen > SOP_KEY_MAX || vlen > SOP_VALUE_MAX || len - off - ENTRY_HEADER < klen + vlen)
		return 0;
	if (p->level) {
		struct le64 child;

		if (vlen != sizeof(child) || (!i && klen))
			return 0;
		memcpy(&child, e + ENTRY_HEADER + klen, sizeof(child));
		if (!le64_get(child))
			return 0;
	}
	return ENTRY_HEADER + klen + vlen;
}

int sop_page_decode(
	struct sop_page **out, const void *raw, size_t len, uint64_t *lsn, struct sop_err *e)
{
	struct sop_disk_node h;
	struct sop_page *p;
	size_t body, off = 0;
	int rc;

	*out = NULL;
	if (len < sizeof(h) || len > SOP_BLOB_MAX)
		return sop_fail(e, SOP_ECORRUPT, "node of %zu bytes", len);
	memcpy(&h, raw, sizeof(h));
	rc = check_header(&h, len, e);
	if (rc)
		return rc;
	body = len - sizeof(h);
	p = sop_page_new(le64_get(h.handle), le64_get(h.store), h.level,
		body + le32_get(h.count) * SLOT_BYTES);
	if (!p)
		return sop_fail(e, -ENOMEM, "node of %zu bytes", len);
	if (body)
		memcpy(p->data, (const uint8_t *)raw + sizeof(h), body);
	for (unsigned i = 0; i < le32_get(h.count); i++) {
		size_t n = check_entry(p, i, off, body);

		if (!n || !in_order(p, i, off)) {
			sop_page_free(p);
			return sop_fail(e, SOP_ECORRUPT, "entry %u %s", i,
				n ? "is out of order" : "is not whole");
		}
		*slot_at(p, i) = (uint32_t)off;
		p->count = i + 1;
		off += n;
	}
	if (off != body) {
		sop_page_free(p);
		return sop_fail(e, SOP_ECORRUPT, "node %llu: %zu bytes behind the last entry",
			(unsigned long long)le64_get(h.handle), body - off);
	}
	p->tail = (uint32_t)body;
	p->live = (uint32_t)body;
	*lsn = le64_get(h.lsn);
	*out = p;
	return 0;
}
