#include "fs/layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/admin.h"
#include "fs/views.h"

/* An attribute holds 64 KiB, and the longest line, of 32 shards, is shorter than what is left. */
#define TEXT_MAX (63u << 10)

struct text {
	FILE *o;
	uint64_t more; /* extents there was no room for */
};

static int add_line(void *arg, const struct sop_extent_layout *x)
{
	struct text *t = arg;

	if (t->more || ftell(t->o) > (long)TEXT_MAX) {
		t->more++;
		return 0;
	}
	fprintf(t->o, "%" PRIu64 "+%" PRIu64, x->off, x->len);
	if (x->is_inline) {
		fprintf(t->o, " inline\n");
		return 0;
	}
	fprintf(t->o, " segment %016" PRIx64 ":%" PRIu64 " %u+%u", x->segment, x->segment_off, x->k,
		x->m);
	for (unsigned i = 0; i < x->k + x->m; i++)
		fprintf(t->o, " d%u%s", x->disk[i] + 1,
			x->state[i] == SOP_SHARD_MISSING || x->state[i] == SOP_SHARD_CORRUPT ? "!"
											     : "");
	fprintf(t->o, "\n");
	return 0;
}

/* Of what is committed; by that name there may lie another item meanwhile, or for the mount when
 * it has the name in a mirror. */
static int extents(struct sopfs *f, uint64_t ino, const struct sopfs_where *w, struct text *x,
	struct sop_err *e)
{
	struct sop_attr a;
	struct sop_txn *t;
	int rc = sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_NO_CHECK}, e);

	if (rc)
		return rc;
	rc = sop_lookup(t, sopfs_where_name(w), &a, e);
	if (!rc && a.ino != ino)
		rc = -ENODATA;
	if (!rc)
		rc = sop_value_layout(t, sopfs_where_name(w), false, add_line, x, e);
	sop_txn_rollback(t);
	return rc == -ENOENT ? -ENODATA : rc;
}

int sopfs_layout_text(struct sopfs *f, struct sopfs_item *item, char **out, struct sop_err *e)
{
	struct sopfs_where w;
	struct text x = {0};
	size_t len;
	int rc;

	pthread_mutex_lock(&f->lock);
	rc = item->provisional || !sopfs_item_where(item, &w) ? -ENODATA : 0;
	pthread_mutex_unlock(&f->lock);
	if (rc)
		return rc;
	*out = NULL;
	x.o = open_memstream(out, &len);
	if (!x.o)
		return sop_fail(e, -ENOMEM, "layout");
	rc = extents(f, item->ino, &w, &x, e);
	if (!rc && x.more)
		fprintf(x.o, "%" PRIu64 " more: sopctl info shows them\n", x.more);
	if (fclose(x.o) && !rc)
		rc = sop_fail(e, -ENOMEM, "layout");
	if (rc) {
		free(*out);
		*out = NULL;
	}
	return rc;
}
