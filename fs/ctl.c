#include "fs/ctl.h"

#include <stdio.h>

#include "fs/posix.h"
#include "fs/status.h"

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
	{"status", write_status},
	{"status.json", write_json},
	{"metrics", sopfs_status_metrics},
};

static struct sopfs_item *ctl_item(uint64_t ino, mode_t type)
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

int sopfs_ctl_start(struct sopfs *f, struct sop_err *e)
{
	for (size_t i = SOP_ARRAY_LEN(files) + 1; i-- > 0;) {
		struct sopfs_item *item = ctl_item(CTL_DIR + i, i ? S_IFREG : S_IFDIR);

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
		pthread_mutex_destroy(&item->lock);
		free(item);
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
	if (dir == f->root && strcmp(name, SOPFS_CTL_NAME) == 0) {
		out->view = &f->ctl->view0;
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
	bool dir = v->item->type == S_IFDIR;

	memset(a, 0, sizeof(*a));
	a->ino = v->item->ino;
	a->mode = dir ? S_IFDIR | 0555 : S_IFREG | 0444;
	a->nlink = dir ? 2 : 1;
	a->atime = a->mtime = a->ctime = a->btime = sopfs_now();
	return 0;
}

int sopfs_ctl_open(struct sopfs *f, const struct sopfs_caller *who, struct sopfs_view *v, int flags,
	struct sopfs_opened *out)
{
	size_t i = (size_t)(v->item->ino - CTL_DIR - 1);
	struct sopfs_handle *h = sopfs_handle_new(f, v, flags);
	FILE *o = h ? open_memstream(&h->text, &h->text_len) : NULL;
	json_t *status = o ? sopfs_status_json(f, sopfs_trusts(who->uid)) : NULL;
	bool made = status != NULL;

	if (made)
		files[i].write(o, status);
	json_decref(status);
	if (o && fclose(o))
		made = false;
	if (!made) {
		if (h)
			sopfs_handle_free(f, h);
		return -ENOMEM;
	}
	out->handle = h;
	out->keep_cache = false;
	return 0;
}
