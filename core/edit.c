/* An edit is a list of steps over the old record: keep some bytes, leave some out, put some in;
 * behind the last step the rest is kept. Where old and new have an inline run, what is before it,
 * the run and what is behind it are compared apart, each from both of its ends: so bytes appended
 * to a run, or written over in it, are all that is put in of it, though the fields before it have
 * other lengths. */
#include "core/edit.h"

#include "core/ec.h"
#include "core/format.h"

/* ---- making one ---- */

struct piece {
	const uint8_t *p;
	size_t len;
};

struct steps {
	uint8_t *p, *end;
	size_t keep; /* since the step before */
	bool full;
};

static void put(struct steps *s, const void *p, size_t len)
{
	if ((size_t)(s->end - s->p) < len) {
		s->full = true;
		return;
	}
	if (len)
		memcpy(s->p, p, len);
	s->p += len;
}

static void put_piece(struct steps *s, struct piece a, struct piece b)
{
	size_t head = 0, tail = 0, both = SOP_MIN(a.len, b.len);
	struct sop_disk_edit_step step;

	while (head < both && a.p[head] == b.p[head])
		head++;
	while (tail < both - head && a.p[a.len - 1 - tail] == b.p[b.len - 1 - tail])
		tail++;
	s->keep += head;
	if (head + tail < a.len || head + tail < b.len) {
		step.keep = le16_make((uint16_t)s->keep);
		step.drop = le16_make((uint16_t)(a.len - head - tail));
		step.add = le16_make((uint16_t)(b.len - head - tail));
		put(s, &step, sizeof(step));
		put(s, b.p + head, b.len - head - tail);
		s->keep = 0;
	}
	s->keep += tail;
}

/* In three at its run; a record without is one piece and two empty ones. */
static void cut(struct piece out[3], const void *raw, size_t len, const struct sop_item *it)
{
	const uint8_t *p = raw, *run = it->run_len ? it->run : p + len;

	out[0] = (struct piece){p, (size_t)(run - p)};
	out[1] = (struct piece){run, it->run_len};
	out[2] = (struct piece){run + it->run_len, len - out[0].len - it->run_len};
}

size_t sop_edit_encode(uint8_t *raw, size_t room, const struct sop_edit *to, const void *from,
	size_t from_len, const void *rec, size_t rec_len)
{
	struct steps s = {.p = raw, .end = raw + room};
	struct piece a[3], b[3];
	struct sop_item old, new;
	struct sop_disk_edit d;
	struct le64 store = le64_make(to->store);

	if (from_len > SOP_ITEM_BYTES_MAX || rec_len > SOP_ITEM_BYTES_MAX ||
		sop_item_decode(&old, from, from_len, NULL) ||
		sop_item_decode(&new, rec, rec_len, NULL) || old.link != new.link ||
		old.attr.ino != new.attr.ino)
		return 0;
	d = (struct sop_disk_edit){.version = le64_make(old.attr.version),
		.crc = le32_make(sop_crc32c(0, from, from_len)),
		.len = le16_make((uint16_t)from_len),
		.key_len = le16_make((uint16_t)to->key_len)};
	put(&s, &d, sizeof(d));
	if (to->key_len) {
		put(&s, &store, sizeof(store));
		put(&s, to->key, to->key_len);
	}
	if (!old.run_len || !new.run_len) {
		put_piece(&s, (struct piece){from, from_len}, (struct piece){rec, rec_len});
	} else {
		cut(a, from, from_len, &old);
		cut(b, rec, rec_len, &new);
		for (unsigned i = 0; i < 3; i++)
			put_piece(&s, a[i], b[i]);
	}
	return s.full ? 0 : (size_t)(s.p - raw);
}

/* ---- reading one ---- */

static int bad(struct sop_err *e)
{
	return sop_fail(e, SOP_ECORRUPT, "change of a record");
}

int sop_edit_decode(struct sop_edit *x, const void *raw, size_t len, struct sop_err *e)
{
	const uint8_t *p = raw;
	struct sop_disk_edit d;
	struct le64 store;

	*x = (struct sop_edit){0};
	if (len < sizeof(d))
		return bad(e);
	memcpy(&d, p, sizeof(d));
	p += sizeof(d);
	len -= sizeof(d);
	x->version = le64_get(d.version);
	x->crc = le32_get(d.crc);
	x->len = le16_get(d.len);
	x->key_len = le16_get(d.key_len);
	if (x->key_len) {
		if (len < sizeof(store) || len - sizeof(store) < x->key_len)
			return bad(e);
		memcpy(&store, p, sizeof(store));
		x->store = le64_get(store);
		x->key = p + sizeof(store);
		p = x->key + x->key_len;
		len -= sizeof(store) + x->key_len;
	}
	x->steps = p;
	x->steps_len = len;
	return 0;
}

/* Is it the record that the edit was made for? */
static int check_base(
	const struct sop_edit *x, const void *from, size_t len, uint64_t *ino, struct sop_err *e)
{
	struct sop_attr a;
	bool link;
	int rc = sop_item_decode_attr(&a, &link, from, len, e);

	if (rc)
		return rc;
	*ino = a.ino;
	if (a.version != x->version)
		return sop_fail(e, SOP_ECORRUPT,
			"a change of version %llu of inode %llu, of which version %llu is there",
			(unsigned long long)x->version, (unsigned long long)a.ino,
			(unsigned long long)a.version);
	if (len != x->len || sop_crc32c(0, from, len) != x->crc)
		return sop_fail(e, SOP_ECORRUPT,
			"a change of version %llu of inode %llu, which has other bytes",
			(unsigned long long)x->version, (unsigned long long)a.ino);
	return 0;
}

int sop_edit_apply(
	uint8_t *rec, const struct sop_edit *x, const void *from, size_t len, struct sop_err *e)
{
	const uint8_t *base = from, *p = x->steps;
	size_t left = x->steps_len, at = 0, n = 0;
	struct sop_item it;
	uint64_t ino;
	int rc = check_base(x, from, len, &ino, e);

	if (rc)
		return rc;
	for (bool last = false; !last;) {
		struct sop_disk_edit_step step;
		size_t keep = len - at, drop = 0, add = 0;

		last = !left;
		if (!last) {
			if (left < sizeof(step))
				return bad(e);
			memcpy(&step, p, sizeof(step));
			p += sizeof(step);
			left -= sizeof(step);
			keep = le16_get(step.keep);
			drop = le16_get(step.drop);
			add = le16_get(step.add);
		}
		if (keep > len - at || drop > len - at - keep || add > left ||
			keep + add > SOP_ITEM_BYTES_MAX - n)
			return bad(e);
		memcpy(rec + n, base + at, keep);
		at += keep + drop;
		n += keep;
		if (add)
			memcpy(rec + n, p, add);
		n += add;
		p += add;
		left -= add;
	}
	rc = sop_item_decode(&it, rec, n, e);
	if (!rc && it.attr.ino != ino)
		rc = bad(e);
	return rc ? rc : (int)n;
}
