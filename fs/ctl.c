#include "fs/ctl.h"

#include <stdio.h>

#include "fs/locks.h"
#include "fs/posix.h"
#include "fs/status.h"
#include "fs/stream.h"
#include "fs/worlds.h"

#define CTL_DIR 2u /* inode numbers: the directory, then its files */

static void write_status(FILE *o, const json_t *status)
{
	sopfs_status_text(o, status, false);
}

static void write_json(FILE *o, const json_t *status)
{
	json_dumpf(status, o, JSON_COMPACT);
	fputc('\n', o);
}

static const struct {
	const char *name;
	void (*write)(FILE *o, const json_t *status);
} files[] = {
	{"status", write_status}, {"status.json", write_json}, {"metrics", sopfs_status_metrics},
	{"events", NULL}, /* a stream */
};

struct sopfs_item *sopfs_ctl_item(uint64_t ino, mode_t type)
{
	struct sopfs_item *item = calloc(1, sizeof(*item));

	if (!item)
		return NULL;
	pthread_mutex_init(&item->lock, NULL);
	item->ino = ino;
	item->type = type;
	item->refs = 1;
	item->view0.item = item;
	item->view0.kind = SOPFS_VIEW_CTL;
	item->views = item->current = &item->view0;
	return item;
}

void sopfs_ctl_item_free(struct sopfs_item *item)
{
	if (!item)
		return;
	sopfs_locks_free(item->locks);
	pthread_mutex_destroy(&item->lock);
	free(item);
}

int sopfs_ctl_start(struct sopfs *f, struct sop_err *e)
{
	for (size_t i = SOP_ARRAY_LEN(files) + 1; i-- > 0;) {
		struct sopfs_item *item = sopfs_ctl_item(CTL_DIR + i, i ? S_IFREG : S_IFDIR);

		if (!item)
			return sop_fail(e, -ENOMEM, ".sop");
		item->hash_next = f->ctl;
		f->ctl = item;
	}
	return 0;
}

void sopfs_ctl_stop(struct sopfs *f)
{
	while (f->ctl) {
		struct sopfs_item *item = f->ctl;

		f->ctl = item->hash_next;
		sopfs_ctl_item_free(item);
	}
}

const char *sopfs_ctl_name(unsigned i, uint64_t *ino)
{
	if (i >= SOP_ARRAY_LEN(files))
		return NULL;
	*ino = CTL_DIR + 1 + i;
	return files[i].name;
}

bool sopfs_ctl_lookup(
	struct sopfs *f, struct sopfs_item *dir, const char *name, struct sopfs_entry *out)
{
	struct sopfs_item *item = f->ctl;

	out->view = NULL;
	out->cache = false;
	if (f->world)
		return false;
	if (dir == f->root && strcmp(name, SOPFS_CTL_NAME) == 0) {
		out->view = &f->ctl->view0;
	} else if (dir == f->commit_dir) {
		/* What is moved there is committed, and gone. */
	} else if (dir == f->ctl && strcmp(name, SOPFS_TXN_NAME) == 0) {
		out->view = &f->txn_dir->view0;
	} else if (dir == f->ctl && strcmp(name, SOPFS_COMMIT_NAME) == 0) {
		out->view = &f->commit_dir->view0;
	} else if (dir == f->ctl) {
		for (size_t i = 0; i < SOP_ARRAY_LEN(files); i++) {
			item = item->hash_next;
			if (strcmp(name, files[i].name) == 0)
				out->view = &item->view0;
		}
	} else {
		return false;
	}
	if (out->view)
		(void)sopfs_ctl_attr(out->view, &out->attr);
	return true;
}

int sopfs_ctl_attr(const struct sopfs_view *v, struct sop_attr *a)
{
	uint64_t ino = v->item->ino;
	bool dir = v->item->type == S_IFDIR;

	memset(a, 0, sizeof(*a));
	a->ino = ino;
	if (ino == SOPFS_TXN_INO || ino == SOPFS_COMMIT_INO)
		a->mode = S_IFDIR | 0777;
	else if (ino == SOPFS_HOLD_INO)
		a->mode = S_IFREG | 0600;
	else if (dir)
		a->mode = S_IFDIR | 0555;
	else if (!files[ino - CTL_DIR - 1].write)
		a->mode = S_IFREG | 0400; /* events tell names of all directories */
	else
		a->mode = S_IFREG | 0444;
	a->uid = ino == SOPFS_HOLD_INO ? sopfs_world_owner(v) : geteuid();
	a->gid = getegid();
	a->nlink = dir ? 2 : 1;
	a->atime = a->mtime = a->ctime = a->btime = sopfs_now();
	return 0;
}

static int make_text(
	struct sopfs *f, const struct sopfs_caller *who, size_t i, struct sopfs_handle *h)
{
	FILE *o = open_memstream(&h->text, &h->text_len);
	json_t *status = o ? sopfs_status_json(f, sopfs_trusts(who->uid)) : NULL;
	bool made = status != NULL;

	if (made)
		files[i].write(o, status);
	json_decref(status);
	if (o && fclose(o))
		made = false;
	return made ? 0 : -ENOMEM;
}

int sopfs_ctl_open(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v, int flags,
	struct sopfs_opened *out, struct sop_err *e)
{
	size_t i = (size_t)(v->item->ino - CTL_DIR - 1);
	struct sopfs_handle *h = i < SOP_ARRAY_LEN(files) ? sopfs_handle_new(f, v, flags) : NULL;
	int rc = i >= SOP_ARRAY_LEN(files) ? -EACCES
		 : !h			   ? -ENOMEM
		 : files[i].write	   ? make_text(f, who, i, h)
					   : sopfs_stream_open(&h->stream, f, e);

	if (rc && h)
		sopfs_handle_free(f, h);
	if (rc)
		return rc;
	out->handle = h;
	out->keep_cache = false;
	return 0;
}
