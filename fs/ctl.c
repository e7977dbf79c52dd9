#include "fs/ctl.h"

#include <stdio.h>
#include <time.h>

#include "fs/posix.h"
#include "fs/recent.h"

#define STATUS_RECENT 10
#define CTL_DIR	      2u /* inode numbers: the directory, then its files */

static void say_status(
	FILE *o, struct sop_volume *v, const struct sop_volume_stat *s, const struct sopfs_stat *x)
{
	char uuid[SOP_UUID_TEXT];
	struct sop_volume_disk d;

	fprintf(o, "  volume: %s   (uuid %s, erasure code %u+%u)\n", s->name,
		sop_uuid_format(uuid, &s->uuid), s->k, s->m);
	fprintf(o, "   state: %s\n",
		s->failed      ? "FAILED"
		: s->degraded  ? "DEGRADED"
		: s->read_only ? "READ-ONLY"
			       : "ONLINE");
	fprintf(o, "   disks: %u of %u online\n", s->disks_online, s->disks);
	fprintf(o, "  config: NAME STATE READ WRITE CKSUM PATH\n");
	for (unsigned i = 0; sop_volume_disk(v, i, &d); i++)
		fprintf(o, "          %s %s %llu %llu %llu %s\n", d.name,
			sop_disk_state_name(d.state), (unsigned long long)d.read_errors,
			(unsigned long long)d.write_errors, (unsigned long long)d.checksum_errors,
			d.path);
	fprintf(o, "   space: %llu bytes, %llu free, %llu items\n",
		(unsigned long long)s->total_bytes, (unsigned long long)s->free_bytes,
		(unsigned long long)s->items);
	fprintf(o, "     lsn: %llu, on the media %llu\n", (unsigned long long)s->lsn,
		(unsigned long long)s->durable_lsn);
	fprintf(o,
		"sessions: %llu open, %llu committed, %llu rolled back, %llu conflicts, %llu "
		"failed\n",
		(unsigned long long)x->sessions_open, (unsigned long long)x->committed,
		(unsigned long long)x->rolled_back, (unsigned long long)x->conflicts,
		(unsigned long long)x->failed);
}

/* The last sessions that came to nothing. */
static void say_recent(FILE *o, struct sopfs *f)
{
	struct sopfs_ending x;
	char stamp[32];
	struct tm tm;

	for (unsigned i = 0; i < STATUS_RECENT && sopfs_recent_get(f, i, &x); i++) {
		if (!gmtime_r(&x.time.tv_sec, &tm) ||
			!strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm))
			stamp[0] = 0;
		fprintf(o, "%s %s %s: %s: %s\n", i ? "         " : "  recent:", stamp, x.path,
			sop_err_name(x.code), x.reason);
	}
}

/* The numbers, as JSON members or metrics. */
static void say_numbers(
	FILE *o, const struct sop_volume_stat *s, const struct sopfs_stat *x, bool json)
{
	const struct {
		const char *name;
		uint64_t value;
	} n[] = {
		{"data_shards", s->k},
		{"parity_shards", s->m},
		{"disks", s->disks},
		{"disks_online", s->disks_online},
		{"read_only", s->read_only},
		{"degraded", s->degraded},
		{"failed", s->failed},
		{"total_bytes", s->total_bytes},
		{"free_bytes", s->free_bytes},
		{"items", s->items},
		{"lsn", s->lsn},
		{"durable_lsn", s->durable_lsn},
		{"commits", s->commits},
		{"live_bytes", s->live_bytes},
		{"pending_bytes", s->pending_bytes},
		{"segments", s->segments},
		{"journal_bytes", s->journal_bytes},
		{"cache_bytes", s->cache_bytes},
		{"dirty_bytes", s->dirty_bytes},
		{"sessions_open", x->sessions_open},
		{"sessions_committed", x->committed},
		{"sessions_rolled_back", x->rolled_back},
		{"sessions_conflicts", x->conflicts},
		{"sessions_failed", x->failed},
	};

	for (size_t i = 0; i < SOP_ARRAY_LEN(n); i++)
		fprintf(o, json ? ",\"%s\":%llu" : "sopfs_%s %llu\n", n[i].name,
			(unsigned long long)n[i].value);
}

/* A string of JSON; names and paths may hold anything. */
static void say_string(FILE *o, const char *text)
{
	fputc('"', o);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(o, "\\%c", c);
		else if (c < 32)
			fprintf(o, "\\u%04x", c);
		else
			fputc(c, o);
	}
	fputc('"', o);
}

static void write_status(struct sopfs *f, FILE *o)
{
	struct sop_volume_stat s;
	struct sopfs_stat x;

	sop_volume_stat(f->v, &s);
	sopfs_stat(f, &x);
	say_status(o, f->v, &s, &x);
	say_recent(o, f);
}

static void write_json(struct sopfs *f, FILE *o)
{
	char uuid[SOP_UUID_TEXT];
	struct sop_volume_stat s;
	struct sopfs_stat x;

	sop_volume_stat(f->v, &s);
	sopfs_stat(f, &x);
	fprintf(o, "{\"version\":1,\"uuid\":\"%s\",\"name\":", sop_uuid_format(uuid, &s.uuid));
	say_string(o, s.name);
	say_numbers(o, &s, &x, true);
	fprintf(o, "}\n");
}

static void write_metrics(struct sopfs *f, FILE *o)
{
	struct sop_volume_stat s;
	struct sopfs_stat x;

	sop_volume_stat(f->v, &s);
	sopfs_stat(f, &x);
	say_numbers(o, &s, &x, false);
}

static const struct {
	const char *name;
	void (*write)(struct sopfs *f, FILE *o);
} files[] = {
	{"status", write_status},
	{"status.json", write_json},
	{"metrics", write_metrics},
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

int sopfs_ctl_open(struct sopfs *f, struct sopfs_view *v, int flags, struct sopfs_opened *out)
{
	size_t i = (size_t)(v->item->ino - CTL_DIR - 1);
	struct sopfs_handle *h = sopfs_handle_new(f, v, flags);
	FILE *o = h ? open_memstream(&h->text, &h->text_len) : NULL;

	if (!o) {
		if (h)
			sopfs_handle_free(f, h);
		return -ENOMEM;
	}
	files[i].write(f, o);
	if (fclose(o)) {
		sopfs_handle_free(f, h);
		return -ENOMEM;
	}
	out->handle = h;
	out->keep_cache = false;
	return 0;
}
