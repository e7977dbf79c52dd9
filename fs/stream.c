#include "fs/stream.h"

#include "fs/events.h"
#include "fs/ops.h"

#define READ_MAX 65536

struct parked {
	struct parked *next;
	struct sopfs_stream *s;
	fuse_req_t req;
	size_t size;
	bool listed, interrupted; /* under s->lock */
};

struct sopfs_stream {
	struct sopfs_follower *follower;
	pthread_mutex_t lock; /* also of the follower: one thread at a time reads it */
	struct parked *first; /* under lock: who waits, in their order */
};

static void unlist(struct sopfs_stream *s, struct parked *p)
{
	struct parked **q = &s->first;

	while (*q != p)
		q = &(*q)->next;
	*q = p->next;
	p->listed = false;
}

/* No lock held: p is ours alone, but for an interrupt under way, which this waits for. */
static void answer(struct parked *p, const char *buf, size_t n, int err)
{
	fuse_req_interrupt_func(p->req, NULL, NULL);
	if (err)
		fuse_reply_err(p->req, err);
	else
		fuse_reply_buf(p->req, buf, n);
	free(p);
}

/* The request's own lock is held by libfuse, and keeps it alive. */
static void interrupted(fuse_req_t req, void *arg)
{
	struct parked *p = arg;
	struct sopfs_stream *s = p->s;
	bool ours;

	pthread_mutex_lock(&s->lock);
	ours = p->listed;
	p->interrupted = true;
	if (ours)
		unlist(s, p);
	pthread_mutex_unlock(&s->lock);
	if (!ours)
		return;
	fuse_reply_err(req, EINTR);
	free(p);
}

/* From the thread of the events. */
static void woken(void *arg)
{
	struct sopfs_stream *s = arg;
	sop_autofree char *buf = NULL;

	for (;;) {
		struct parked *p;
		size_t n = 0;

		pthread_mutex_lock(&s->lock);
		p = s->first;
		if (p && !buf)
			buf = malloc(READ_MAX);
		if (p && buf)
			n = sopfs_follower_read(s->follower, buf, p->size);
		if (n)
			unlist(s, p);
		pthread_mutex_unlock(&s->lock);
		if (!n)
			return;
		answer(p, buf, n, 0);
	}
}

int sopfs_stream_open(struct sopfs_stream **out, struct sopfs *f, struct sop_err *e)
{
	struct sopfs_stream *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "events");
	pthread_mutex_init(&s->lock, NULL);
	rc = sopfs_follow(&s->follower, f, SOPFS_EVENT_COMMIT, false, woken, s, e);
	if (rc) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

void sopfs_stream_read(struct sopfs_stream *s, fuse_req_t req, size_t size, bool nonblock)
{
	struct parked *p = calloc(1, sizeof(*p)), **q;
	sop_autofree char *buf = malloc(READ_MAX);
	size_t n;
	bool gone;

	if (!p || !buf) {
		free(p);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	*p = (struct parked){.s = s, .req = req, .size = SOP_MIN(size, (size_t)READ_MAX)};
	/* Before it is listed: from then on others may answer it. */
	fuse_req_interrupt_func(req, interrupted, p);
	pthread_mutex_lock(&s->lock);
	gone = p->interrupted;
	n = gone || s->first ? 0 : sopfs_follower_read(s->follower, buf, p->size);
	if (!n && !gone && !nonblock) {
		for (q = &s->first; *q; q = &(*q)->next)
			;
		*q = p;
		p->listed = true;
		p = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (p)
		answer(p, buf, n, n ? 0 : gone ? EINTR : EAGAIN);
}

void sopfs_stream_close(struct sopfs_stream *s)
{
	struct parked *p;

	if (!s)
		return;
	sopfs_unfollow(s->follower);
	do {
		pthread_mutex_lock(&s->lock);
		p = s->first;
		if (p)
			unlist(s, p);
		pthread_mutex_unlock(&s->lock);
		if (p)
			answer(p, NULL, 0, ENODEV);
	} while (p);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
