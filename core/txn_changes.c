/* What a transaction means to change, for those who keep something of what is there. */
#include "core/engine.h"

#include <sys/stat.h>

/* What the snapshot has at the key. 0 and ino 0: nothing. */
static int before(
	struct sop_txn *t, const struct sop_wentry *w, struct sop_txn_change *c, struct sop_err *e)
{
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_item it;
	int rc;

	if (w->fresh || sop_txn_made(t, w->store))
		return 0;
	rc = sop_tree_item(t->v, w->store, t->lsn, w->key, w->klen, &it, buf, e);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	c->before.ino = it.attr.ino;
	c->before.mode = it.attr.mode & (uint32_t)S_IFMT;
	c->before.record = !it.link;
	return 0;
}

static int change(
	struct sop_txn *t, const struct sop_wentry *w, struct sop_txn_change *c, struct sop_err *e)
{
	int rc = before(t, w, c, e);

	c->store = w->store == SOP_STORE_MASTER ? 0 : w->store;
	c->key = c->store ? w->key : NULL;
	c->klen = c->store ? w->klen : 0;
	if (w->write == SOP_WRITE_PUT) {
		c->after.ino = w->item->attr.ino;
		c->after.mode = w->item->attr.mode & (uint32_t)S_IFMT;
		c->after.record = !w->item->link;
	} else if (w->write == SOP_WRITE_PATCH) {
		c->after = c->before;
	}
	return rc;
}

int sop_txn_changes(struct sop_txn *t, int (*fn)(void *arg, const struct sop_txn_change *c),
	void *arg, struct sop_err *e)
{
	int rc = sop_txn_writable(t, e);

	if (!rc && !t->pinned)
		rc = sop_say(e, -EINVAL, "a transaction without a snapshot has no list of changes");
	for (const struct sop_wentry *w = rc ? NULL : sop_wset_first(&t->wset); w && !rc;
		w = w->next[0]) {
		struct sop_txn_change c = {0};

		if (w->write == SOP_WRITE_NONE)
			continue;
		rc = change(t, w, &c, e);
		if (!rc && (c.before.ino || c.after.ino))
			rc = fn(arg, &c);
	}
	return rc;
}
