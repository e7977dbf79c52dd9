/* Emptying extent trees whose files are gone, a little at a time, each step a commit of its own: a
 * crash in between leaves the rest in the DOOMED store, and the next mount goes on. A tree that
 * cannot be emptied is left out, and tried again when the others are through. */
#include "core/engine.h"

#define STEP 256

struct doomed {
	uint64_t tree, ino;
	struct sop_volume *v;
	bool found;
};

static int doomed_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct doomed *d = arg;
	uint64_t tree;
	struct le64 ino;

	if (klen != 8 || vlen != 8)
		return SOP_ECORRUPT;
	tree = be64_get(key);
	if (tree <= d->v->reap_after)
		return 0;
	/* A reader of the file still goes through its tree: leave it alone, its nodes would only
	 * multiply. */
	if (sop_pins_newest(d->v->pins, tree))
		return 0;
	memcpy(&ino, val, 8);
	d->tree = tree;
	d->ino = le64_get(ino);
	d->found = true;
	return 1;
}

struct step {
	struct doomed *d;
	struct sop_buf ops;
	size_t n;
	struct sop_err *e;
};

static int step_entry(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct step *s = arg;
	struct sop_extent x;
	int rc = sop_extent_decode(&x, key, klen, val, vlen, s->e);

	if (rc)
		return rc;
	sop_buf_op(&s->ops, SOP_OP_DEL, SOP_OPF_QUIET, s->d->tree, key, klen, NULL, 0);
	sop_buf_ref(&s->ops, SOP_OP_FREE, s->d->ino, &x.ref);
	return ++s->n == STEP;
}

static int reap_locked(struct sop_volume *v, bool *more, struct sop_err *e)
{
	struct doomed d = {.v = v};
	struct step s = {.d = &d, .e = e};
	struct sop_range all = {0};
	struct sop_state_view view;
	uint8_t key[8];
	int rc = sop_stores_view(v->stores, SOP_STORE_DOOMED, SOP_LSN_LATEST, &view, e);

	*more = false;
	if (!rc)
		rc = sop_tree_scan(v->nodes, &view.tree, SOP_LSN_LATEST, &all, doomed_entry, &d, e);
	if (rc < 0 || !d.found) {
		v->reap_after = 0;
		return rc < 0 ? rc : 0;
	}
	rc = sop_stores_view(v->stores, d.tree, SOP_LSN_LATEST, &view, e);
	if (!rc)
		rc = sop_tree_scan(v->nodes, &view.tree, SOP_LSN_LATEST, &all, step_entry, &s, e);
	if (rc >= 0) {
		if (!rc) { /* the end was met */
			be64_put(key, d.tree);
			sop_buf_op(&s.ops, SOP_OP_STORE_DROP, 0, d.tree, NULL, 0, NULL, 0);
			sop_buf_op(&s.ops, SOP_OP_DEL, SOP_OPF_QUIET, SOP_STORE_DOOMED, key,
				sizeof(key), NULL, 0);
		}
		rc = sop_commit_locked(v, &s.ops, e);
	}
	if (rc)
		v->reap_after = d.tree;
	*more = !v->dead;
	sop_buf_release(&s.ops);
	return rc;
}

int sop_reap(struct sop_volume *v, bool *more, struct sop_err *e)
{
	SOP_LOCK_GUARD(&v->commit);

	return reap_locked(v, more, e);
}
