/* Pieces of values, copied by reference.
 *
 * Invariant: who may come to refer to a blob that he has not written holds a pin, in the scope of
 * an inode that had it at that LSN, from before he read the extent until the reference is applied.
 * The reference of that inode, given up meanwhile by others, stays pending for the pin (space.c),
 * and with it the blob's count above zero. Pins of this kind are called loans: a clip has those of
 * the value it was taken from, and whoever it is put into gets them too, until his transaction
 * ends.
 *
 * A crash knows nothing of loans: a reference that is not in the journal never was, and one that is
 * comes, in the journal too, before the last one given up. */
#include "core/engine.h"

#define PIECES_MAX 4096u
#define OWN_MAX	   (4u << 20)  /* bytes copied into one clip */
#define SHARE_MIN  (16u << 10) /* less of a blob is copied: it would hold all of it */

struct piece {
	uint64_t len;
	enum sop_run_kind kind;
	struct sop_blobref ref;
	uint32_t blob_off;
	uint8_t *own;
};

struct sop_clip {
	struct sop_volume *v;
	struct sop_loans loans;
	uint64_t len;
	size_t n, cap, own_bytes;
	struct piece *piece;
};

/* ---- loans ---- */

int sop_loans_add(struct sop_loans *l, struct sop_pins *p, uint64_t ino, uint64_t lsn)
{
	for (size_t i = l->n; i-- > 0 && l->n - i <= 8;)
		if (l->loan[i].ino == ino && l->loan[i].lsn == lsn)
			return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 4;
		struct sop_loan *loan = realloc(l->loan, cap * sizeof(*loan));

		if (!loan)
			return -ENOMEM;
		l->loan = loan;
		l->cap = cap;
	}
	if (sop_pins_again(p, ino, lsn))
		return -ENOMEM;
	l->loan[l->n++] = (struct sop_loan){ino, lsn};
	return 0;
}

void sop_loans_release(struct sop_loans *l, struct sop_pins *p)
{
	while (l->n) {
		l->n--;
		sop_pins_put(p, l->loan[l->n].ino, l->loan[l->n].lsn);
	}
	free(l->loan);
	*l = (struct sop_loans){0};
}

static int loans_copy(struct sop_loans *to, const struct sop_loans *from, struct sop_pins *p)
{
	int rc = 0;

	for (size_t i = 0; i < from->n && !rc; i++)
		rc = sop_loans_add(to, p, from->loan[i].ino, from->loan[i].lsn);
	return rc;
}

/* ---- taking ---- */

static struct piece *piece_add(struct sop_clip *c)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? 2 * c->cap : 16;
		struct piece *p = realloc(c->piece, cap * sizeof(*p));

		if (!p)
			return NULL;
		c->piece = p;
		c->cap = cap;
	}
	c->piece[c->n] = (struct piece){0};
	return &c->piece[c->n++];
}

/* The bytes themselves, joined to the piece before if that has some, too. */
static int take_bytes(
	struct sop_clip *c, struct sop_value *x, uint64_t off, size_t len, struct sop_err *e)
{
	struct piece *p = c->n ? &c->piece[c->n - 1] : NULL;
	uint8_t *own;
	ssize_t n;

	if (!p || p->kind != SOP_RUN_OWN)
		p = piece_add(c);
	if (!p)
		return sop_fail(e, -ENOMEM, "clip");
	p->kind = SOP_RUN_OWN;
	own = realloc(p->own, p->len + len);
	if (!own)
		return sop_fail(e, -ENOMEM, "clip");
	p->own = own;
	n = sop_value_read(x, own + p->len, len, off, e);
	if (n < 0)
		return (int)n;
	if ((size_t)n != len)
		return sop_fail(e, -EIO, "clip");
	p->len += len;
	c->own_bytes += len;
	return 0;
}

static int take_run(
	struct sop_clip *c, struct sop_value *x, uint64_t off, uint64_t *len, struct sop_err *e)
{
	struct sop_value_run run;
	struct piece *p;
	int rc = sop_value_run(x, off, &run, e);

	if (rc)
		return rc;
	*len = SOP_MIN(*len, run.end - off);
	if (run.kind == SOP_RUN_STORED && *len < SHARE_MIN && *len < run.ref.len)
		run.kind = SOP_RUN_OWN;
	if (run.kind == SOP_RUN_OWN) {
		*len = SOP_MIN(*len, OWN_MAX - c->own_bytes);
		return take_bytes(c, x, off, (size_t)*len, e);
	}
	p = piece_add(c);
	if (!p)
		return sop_fail(e, -ENOMEM, "clip");
	p->kind = run.kind;
	p->len = *len;
	p->ref = run.ref;
	p->blob_off = run.blob_off;
	return 0;
}

int sop_clip_take(
	struct sop_clip **out, struct sop_value *x, uint64_t off, uint64_t len, struct sop_err *e)
{
	struct sop_clip *c = calloc(1, sizeof(*c));
	struct sop_pins *pins = x->t->v->pins;
	int rc = 0;

	*out = NULL;
	if (!c)
		return sop_fail(e, -ENOMEM, "clip");
	c->v = x->t->v;
	if (x->flags & SOP_VALUE_WRITE)
		x->depends = true;
	len = off < x->size ? SOP_MIN(len, x->size - off) : 0;
	if (len && (x->base.extents || x->base.tree))
		rc = sop_loans_add(&c->loans, pins, x->base.attr.ino, x->lsn);
	if (!rc)
		rc = loans_copy(&c->loans, &x->loans, pins);
	if (rc)
		rc = sop_fail(e, rc, "clip");
	while (c->len < len && c->n < PIECES_MAX && c->own_bytes < OWN_MAX && !rc) {
		uint64_t n = len - c->len;

		rc = take_run(c, x, off + c->len, &n, e);
		c->len += rc ? 0 : n;
	}
	if (rc) {
		sop_clip_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

uint64_t sop_clip_len(const struct sop_clip *c)
{
	return c->len;
}

void sop_clip_free(struct sop_clip *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++)
		free(c->piece[i].own);
	free(c->piece);
	sop_loans_release(&c->loans, c->v->pins);
	free(c);
}

/* ---- putting ---- */

static int put_piece(struct sop_value *x, const struct piece *p, uint64_t off, struct sop_err *e)
{
	ssize_t n;
	int rc = 0;

	if (p->kind == SOP_RUN_OWN) {
		n = sop_value_write(x, p->own, p->len, off, e);
		return n < 0 ? (int)n : 0;
	}
	if (p->kind == SOP_RUN_HOLE)
		rc = sop_imap_set_zero(&x->map, off, p->len);
	else
		rc = sop_imap_set_shared(&x->map, off, (uint32_t)p->len, &p->ref, p->blob_off);
	if (rc)
		return sop_fail(e, rc, "extent");
	x->written = SOP_MAX(x->written, off + p->len);
	x->size = SOP_MAX(x->size, off + p->len);
	x->changed = true;
	return 0;
}

ssize_t sop_clip_put(struct sop_value *x, const struct sop_clip *c, uint64_t off, struct sop_err *e)
{
	uint64_t end, done = 0;
	int rc = 0;

	if (!(x->flags & SOP_VALUE_WRITE))
		return sop_say(e, -EBADF, "the value is open for reading only");
	if (x->t->v != c->v)
		return sop_say(e, -EXDEV, "a clip of another volume");
	if (x->flags & SOP_VALUE_APPEND)
		return sop_say(e, -EINVAL, "a clip has a place to go to: not for appending");
	if (sop_add_over(&end, off, c->len) || end > INT64_MAX)
		return sop_fail(e, -EFBIG, "write at %llu", (unsigned long long)off);
	rc = sop_value_settle_appends(x, e);
	if (!rc && loans_copy(&x->loans, &c->loans, c->v->pins))
		rc = sop_fail(e, -ENOMEM, "clip");
	for (size_t i = 0; i < c->n && !rc; i++) {
		rc = put_piece(x, &c->piece[i], off + done, e);
		done += rc ? 0 : c->piece[i].len;
	}
	x->t->bytes += c->n * sizeof(struct piece);
	return rc && !done ? rc : (ssize_t)done;
}
