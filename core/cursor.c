/* Cursors: a portion of entries read ahead, in the direction of travel. Portions grow while one
 * goes on the same way, so that a short look reads, and depends on, little. */
#include "core/engine.h"

#define AHEAD_FIRST 8u
#define AHEAD	    128u

struct item {
	struct sop_attr attr;
	uint32_t klen, text_len;
	size_t text; /* in texts */
	uint8_t key[SOP_KEY_MAX];
};

struct sop_cursor {
	struct sop_txn *t;
	uint64_t store;
	struct item *ahead; /* AHEAD of them */
	struct sop_buf texts;
	size_t n, at, want; /* read, where the cursor stands (when valid), and how many to read */
	bool valid;
	bool descending; /* how ahead was read */
	bool ended;	 /* nothing follows what was read */
	size_t writes;	 /* of the transaction when it was read: its own writes may change what
			    follows */
	char text[SOP_KEY_TEXT_MAX + 1];
};

int sop_cursor_open(struct sop_cursor **out, struct sop_txn *t, uint64_t store, struct sop_err *e)
{
	struct sop_state_view view;
	struct sop_cursor *c;
	int rc = sop_store_check(store, e);

	if (!rc)
		rc = sop_txn_state(t, store, &view, e);
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
	sop_buf_release(&c->texts);
	free(c->ahead);
	free(c);
}

static int take(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct sop_cursor *c = arg;
	struct item *i = &c->ahead[c->n];
	void *copy = text_len ? sop_buf_grow(&c->texts, text_len) : NULL;

	if (text_len && !copy)
		return -ENOMEM;
	if (text_len)
		memcpy(copy, text, text_len);
	i->text = c->texts.len - text_len;
	i->text_len = (uint32_t)text_len;
	i->attr = *attr;
	i->klen = (uint32_t)klen;
	memcpy(i->key, key, klen);
	return ++c->n == c->want;
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
	c->want = c->t->latest ? 1
		  : exclusive && c->descending == descending
			  ? SOP_MIN(2 * SOP_MAX(c->want, (size_t)AHEAD_FIRST), (size_t)AHEAD)
			  : AHEAD_FIRST;
	c->n = c->at = 0;
	c->texts.len = 0;
	c->texts.failed = false;
	c->valid = false;
	c->descending = descending;
	c->writes = c->t->bytes;
	rc = sop_txn_scan(c->t, c->store, &r, 0, take, c, e);
	if (rc < 0)
		return c->texts.failed ? sop_fail(e, rc, "cursor") : rc;
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

/* Where a key's items begin, and (descending) end. */
static int seek_base(struct sop_cursor *c, const struct sop_keybuf *kb, bool duplicates,
	uint64_t number, bool descending, struct sop_err *e)
{
	uint8_t key[SOP_KEY_MAX];
	size_t len = kb->base;

	memcpy(key, kb->key, kb->base);
	if (duplicates) {
		be64_put(key + len, number);
		len += SOP_DUPLICATE_BYTES;
	}
	return fill(c, key, len, false, descending, e);
}

int sop_cursor_seek_key(
	struct sop_cursor *c, const struct sop_key *key, bool descending, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	struct sop_keybuf kb;
	int rc = sop_key_resolve(c->t, c->store, key, &kb, &k, false, e);

	c->valid = false;
	if (rc == -ENOENT) /* a JSON store without an index: nothing is in it */
		return 0;
	return rc ? rc
		  : seek_base(
			    c, &kb, k && k->duplicates, descending ? UINT64_MAX : 0, descending, e);
}

int sop_cursor_find(struct sop_cursor *c, const struct sop_key *key, uint64_t id, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	struct sop_keybuf kb;
	int rc = sop_key_resolve(c->t, c->store, key, &kb, &k, false, e);

	c->valid = false;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = seek_base(c, &kb, k && k->duplicates, 0, false, e);
	while (rc == 1) {
		const struct item *i = &c->ahead[c->at];
		size_t base = i->klen - (k && k->duplicates ? SOP_DUPLICATE_BYTES : 0);

		if (base != kb.base || memcmp(i->key, kb.key, base))
			return 0; /* stands on what comes after it */
		if (!id || i->attr.ino == id)
			return 1;
		rc = sop_cursor_next(c, e);
	}
	c->valid &= rc >= 0;
	return rc;
}

/* Read what follows the item it stands on. When that cannot be done it stands there as before:
 * whoever goes on after an error must not take what he was not given for the end. */
static int fill_on(struct sop_cursor *c, bool descending, struct sop_err *e)
{
	struct item was = c->ahead[c->at];
	int rc;

	if (was.text_len)
		memcpy(c->text, c->texts.p + was.text, was.text_len);
	rc = fill(c, was.key, was.klen, true, descending, e);
	if (rc >= 0)
		return rc;
	c->texts.len = 0;
	if (was.text_len) /* there was room for it before */
		memcpy(sop_buf_grow(&c->texts, was.text_len), c->text, was.text_len);
	was.text = 0;
	c->ahead[0] = was;
	c->n = 1;
	c->at = 0;
	c->valid = true;
	c->ended = false;
	return rc;
}

/* An item that was read ahead with a value open for writing may have grown since. */
static bool may_grow(const struct sop_cursor *c, const struct item *i)
{
	const struct sop_wentry *w =
		c->t->wset.count ? sop_wset_find(&c->t->wset, c->store, i->key, i->klen) : NULL;

	return w && w->value;
}

static int step(struct sop_cursor *c, bool descending, struct sop_err *e)
{
	if (!c->valid)
		return 0;
	if (c->descending == descending && c->writes == c->t->bytes && !c->t->latest) {
		if (c->at + 1 < c->n) {
			if (may_grow(c, &c->ahead[c->at + 1]))
				return fill_on(c, descending, e);
			c->at++;
			return 1;
		}
		if (c->ended) {
			c->valid = false;
			return 0;
		}
	}
	return fill_on(c, descending, e);
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

static int nowhere(struct sop_err *e)
{
	return sop_say(e, -ENOENT, "the cursor stands on no item");
}

int sop_cursor_typed(struct sop_cursor *c, struct sop_key *out, struct sop_err *e)
{
	sop_autokeying struct sop_keying *k = NULL;
	const struct item *i = &c->ahead[c->at];
	int rc = c->valid ? sop_txn_keying(c->t, c->store, &k, e) : nowhere(e);

	return rc ? rc
		  : sop_key_decode(out, k, i->key, i->klen, (const char *)c->texts.p + i->text,
			    i->text_len, c->text, e);
}

static struct sop_name here(const struct sop_cursor *c)
{
	return (struct sop_name){c->store, c->ahead[c->at].key, c->ahead[c->at].klen};
}

int sop_cursor_get(struct sop_cursor *c, void **val, size_t *len, struct sop_err *e)
{
	*val = NULL;
	*len = 0;
	return c->valid ? sop_at_get(c->t, here(c), NULL, val, len, e) : nowhere(e);
}

/* What is changed where the cursor stands changes nothing of what follows. */
int sop_cursor_update(struct sop_cursor *c, const void *val, size_t len, struct sop_err *e)
{
	bool fresh = c->writes == c->t->bytes;
	int rc = c->valid ? sop_txn_writable(c->t, e) : nowhere(e);

	if (!rc)
		rc = sop_at_update(c->t, here(c), NULL, val, len, e);
	if (fresh)
		c->writes = c->t->bytes;
	return rc;
}

int sop_cursor_remove(struct sop_cursor *c, struct sop_err *e)
{
	bool fresh = c->writes == c->t->bytes;
	int rc = c->valid ? sop_txn_writable(c->t, e) : nowhere(e);

	if (!rc)
		rc = sop_at_remove(c->t, here(c), e);
	if (fresh)
		c->writes = c->t->bytes;
	return rc;
}

struct page {
	uint64_t left;
	int given;
	sop_item_fn fn;
	void *arg;
	int result;
};

static int page_entry(void *arg, const void *key, size_t klen, const char *text, size_t text_len,
	const struct sop_attr *attr)
{
	struct page *p = arg;

	(void)text;
	(void)text_len;
	p->result = p->fn(p->arg, key, klen, attr);
	if (p->result)
		return 1;
	p->given++;
	return --p->left == 0;
}

int sop_page_items(struct sop_txn *t, uint64_t store, uint64_t offset, uint64_t count,
	bool descending, sop_item_fn fn, void *arg, struct sop_err *e)
{
	struct page p = {.left = SOP_MIN(count, (uint64_t)INT32_MAX), .fn = fn, .arg = arg};
	int rc;

	if (!p.left)
		return 0;
	rc = sop_txn_scan_from(t, store, offset, descending, page_entry, &p, e);
	return rc < 0 ? rc : p.result ? p.result : p.given;
}
