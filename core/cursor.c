/* Cursors: a portion of entries read ahead, in the direction of travel. */
#include "core/engine.h"

#define AHEAD 128

struct item {
	struct sop_attr attr;
	uint32_t klen;
	uint8_t key[SOP_KEY_MAX];
};

struct sop_cursor {
	struct sop_txn *t;
	uint64_t store;
	struct item *ahead; /* AHEAD of them */
	size_t n, at;	    /* read, and where the cursor stands (when valid) */
	bool valid;
	bool descending; /* how ahead was read */
	bool ended;	 /* nothing follows what was read */
	size_t writes;	 /* of the transaction when it was read: its own writes may change what
			    follows */
};

int sop_cursor_open(struct sop_cursor **out, struct sop_txn *t, uint64_t store, struct sop_err *e)
{
	struct sop_state_view view;
	struct sop_cursor *c;
	int rc = sop_txn_state(t, store, &view, e);

	*out = NULL;
	if (rc)
		return rc;
	c = calloc(1, sizeof(*c));
	if (!c || !(c->ahead = malloc(AHEAD * sizeof(*c->ahead)))) {
		free(c);
		return sop_fail(e, -ENOMEM, "cursor");
	}
	c->t = t;
	c->store = store;
	*out = c;
	return 0;
}

void sop_cursor_close(struct sop_cursor *c)
{
	if (!c)
		return;
	free(c->ahead);
	free(c);
}

static int take(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	struct sop_cursor *c = arg;
	struct item *i = &c->ahead[c->n++];

	i->attr = *attr;
	i->klen = (uint32_t)klen;
	memcpy(i->key, key, klen);
	return c->n == AHEAD;
}

/* Read a portion and stand on its first. */
static int fill(struct sop_cursor *c, const void *from, size_t len, bool exclusive, bool descending,
	struct sop_err *e)
{
	uint8_t key[SOP_KEY_MAX];
	struct sop_range r = {.from_exclusive = exclusive, .descending = descending};
	int rc;

	if (from) {
		if (len > SOP_KEY_MAX)
			return sop_fail(e, -ENAMETOOLONG, "key of %zu bytes", len);
		memcpy(key, from, len); /* it may lie in what is read over now */
		r.from = key;
		r.from_len = len;
	}
	c->n = c->at = 0;
	c->valid = false;
	c->descending = descending;
	c->writes = c->t->bytes;
	rc = sop_scan(c->t, c->store, &r, false, take, c, e);
	if (rc < 0)
		return rc;
	c->ended = rc == 0;
	c->valid = c->n > 0;
	return c->valid;
}

int sop_cursor_first(struct sop_cursor *c, struct sop_err *e)
{
	return fill(c, NULL, 0, false, false, e);
}

int sop_cursor_last(struct sop_cursor *c, struct sop_err *e)
{
	return fill(c, NULL, 0, false, true, e);
}

int sop_cursor_seek(
	struct sop_cursor *c, const void *key, size_t len, bool descending, struct sop_err *e)
{
	return fill(c, key, len, false, descending, e);
}

static int step(struct sop_cursor *c, bool descending, struct sop_err *e)
{
	const struct item *i;

	if (!c->valid)
		return 0;
	i = &c->ahead[c->at];
	if (c->descending == descending && c->writes == c->t->bytes && !c->t->latest) {
		if (c->at + 1 < c->n) {
			c->at++;
			return 1;
		}
		if (c->ended) {
			c->valid = false;
			return 0;
		}
	}
	return fill(c, i->key, i->klen, true, descending, e);
}

int sop_cursor_next(struct sop_cursor *c, struct sop_err *e)
{
	return step(c, false, e);
}

int sop_cursor_prev(struct sop_cursor *c, struct sop_err *e)
{
	return step(c, true, e);
}

const void *sop_cursor_key(const struct sop_cursor *c, size_t *len)
{
	if (!c->valid)
		return NULL;
	*len = c->ahead[c->at].klen;
	return c->ahead[c->at].key;
}

const struct sop_attr *sop_cursor_attr(const struct sop_cursor *c)
{
	return c->valid ? &c->ahead[c->at].attr : NULL;
}

struct page {
	uint64_t skip, left;
	int given;
	sop_item_fn fn;
	void *arg;
	int result;
};

static int page_entry(void *arg, const void *key, size_t klen, const struct sop_attr *attr)
{
	struct page *p = arg;

	if (p->skip) {
		p->skip--;
		return 0;
	}
	p->result = p->fn(p->arg, key, klen, attr);
	if (p->result)
		return 1;
	p->given++;
	return --p->left == 0;
}

int sop_page_items(struct sop_txn *t, uint64_t store, uint64_t offset, uint64_t count,
	bool descending, sop_item_fn fn, void *arg, struct sop_err *e)
{
	struct page p = {
		.skip = offset, .left = SOP_MIN(count, (uint64_t)INT32_MAX), .fn = fn, .arg = arg};
	struct sop_range r = {.descending = descending};
	int rc;

	if (!p.left)
		return 0;
	rc = sop_scan(t, store, &r, false, page_entry, &p, e);
	return rc < 0 ? rc : p.result ? p.result : p.given;
}
