#include "fs/attic.h"

#include "fs/posix.h"

/* In no tree: the transaction that makes it is not committed. */
static const struct sop_name attic = {SOP_ROOT, ".sop-attic", 10};

int sopfs_attic_open(struct sopfs *f, struct sopfs_item *item, bool make, struct sop_txn **t,
	struct sop_name *name, struct sop_err *e)
{
	const struct sop_txn_opts opts = {.mode = SOP_TXN_SESSION};
	const struct sop_attr init = {.ino = item->ino, .mode = item->type};
	struct sop_txn *made = NULL;
	int rc = 0;

	*name = attic;
	if (!item->attic && make) {
		rc = sop_txn_begin(&made, f->v, &opts, e);
		if (!rc)
			rc = sop_create(made, attic, &init, NULL, 0, NULL, e);
		if (rc)
			sop_txn_rollback(made);
		else
			item->attic = made;
	}
	*t = item->attic;
	return rc;
}

static bool is_open(struct sopfs *f, const struct sopfs_item *item)
{
	bool open = false;

	pthread_mutex_lock(&f->lock);
	for (const struct sopfs_view *v = item->views; v; v = v->next)
		open = open || v->handles;
	pthread_mutex_unlock(&f->lock);
	return open;
}

int sopfs_attic_keep(struct sopfs *f, struct sopfs_item *item, struct sop_txn *from,
	struct sop_name name, struct sop_err *e)
{
	struct sop_txn *t;
	struct sop_name to;
	ssize_t n;
	int rc;

	if (!is_open(f, item))
		return 0;
	n = sop_xattr_list(from, name, NULL, 0, e);
	if (n <= 0)
		return (int)n;
	rc = sopfs_attic_open(f, item, true, &t, &to, e);
	return rc ? rc : sopfs_copy_xattrs(t, to, from, name, e);
}
