#include "fs/recent.h"

#include <stdio.h>
#include <time.h>

#include "fs/events.h"
#include "fs/status.h"

struct sopfs_recent {
	pthread_mutex_t lock;
	unsigned next, count;
	struct sopfs_ending ending[SOPFS_RECENT];
};

int sopfs_recent_start(struct sopfs *f, struct sop_err *e)
{
	f->recent = calloc(1, sizeof(*f->recent));
	if (!f->recent)
		return sop_fail(e, -ENOMEM, "recent sessions");
	pthread_mutex_init(&f->recent->lock, NULL);
	return 0;
}

void sopfs_recent_stop(struct sopfs *f)
{
	if (!f->recent)
		return;
	pthread_mutex_destroy(&f->recent->lock);
	free(f->recent);
	f->recent = NULL;
}

/* A name may hold anything; what is shown is one line. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

void sopfs_recent_add(struct sopfs *f, struct sopfs_item *item, int code, const char *reason)
{
	struct sopfs_recent *r = f->recent;
	struct sopfs_ending x = {.ino = item->ino, .code = code};

	clock_gettime(CLOCK_REALTIME, &x.time);
	pthread_mutex_lock(&f->lock);
	sopfs_item_path(f, item, x.path, sizeof(x.path));
	pthread_mutex_unlock(&f->lock);
	make_printable(x.path);
	snprintf(x.reason, sizeof(x.reason), "%s", reason);
	sop_log(f->o.log, SOP_LOG_WARNING, "session", "op=%s inode=%llu code=%s: %s: %s",
		code == -EIO ? "rollback" : "commit", (unsigned long long)x.ino, sop_err_name(code),
		x.path, x.reason);
	sopfs_event_note(f, SOPFS_EVENT_SESSION,
		json_pack("{s:I, s:o, s:s, s:o}", "inode", (json_int_t)x.ino, "path",
			sopfs_json_of(x.path), "code", sop_err_name(code), "reason",
			sopfs_json_of(x.reason)));
	pthread_mutex_lock(&r->lock);
	r->ending[r->next] = x;
	r->next = (r->next + 1) % SOPFS_RECENT;
	r->count += r->count < SOPFS_RECENT;
	pthread_mutex_unlock(&r->lock);
}

bool sopfs_recent_get(struct sopfs *f, unsigned i, struct sopfs_ending *out)
{
	struct sopfs_recent *r = f->recent;
	bool there;

	pthread_mutex_lock(&r->lock);
	there = i < r->count;
	if (there)
		*out = r->ending[(r->next + SOPFS_RECENT - 1 - i) % SOPFS_RECENT];
	pthread_mutex_unlock(&r->lock);
	return there;
}
