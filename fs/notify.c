#define FUSE_USE_VERSION 312
#include "fs/notify.h"

#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <time.h>

#include "fs/channel.h"
#include "fs/session.h"

/* Linux 6.18, as its <linux/fuse.h> has it. */
#define NOTIFY_PRUNE 9
struct notify_prune {
	uint32_t count, padding;
	uint64_t spare;
	uint64_t nodeid[];
};
#define PRUNE_EVERY  64u  /* names: then that many */
#define PRUNE_MAX    120u /* the most that one message holds */
#define SETTLE_EVERY (16 * PRUNE_EVERY)

enum note_kind { NOTE_ENTRY, NOTE_ATTR, NOTE_DATA, NOTE_END, NOTE_PRUNE, NOTE_TOLD, NOTE_DONE };

struct sopfs_note {
	struct sopfs_note *next;
	enum note_kind kind;
	uint64_t nodeid;
	uint64_t end;	     /* of the file: NOTE_END */
	uint64_t generation; /* of the view: NOTE_TOLD */
	void (*done)(void *arg);
	void *arg; /* of done; the item: NOTE_TOLD, NOTE_DATA */
	size_t len;
	char name[];
};

/* Those who are told by PAGES and DROPS wait for no directory, but for who holds the page that is
 * to be dropped: PAGES, where writes wait, has none that is the writer's own. */
enum { ALL, PAGES, DROPS, LANES };

struct lane {
	struct sopfs *f;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sopfs_note *first, **tail;
	bool stop;
};

struct sopfs_notifier {
	struct lane lane[LANES];
	atomic_bool busy; /* a worker notifies on its own */
};

static struct sopfs_note *note_new(
	enum note_kind kind, uint64_t nodeid, const char *name, size_t len)
{
	struct sopfs_note *note;

	/* A note that is lost means that the kernel shows an old version for ever. A few bytes are
	 * always there in the end; the daemon is no good without them. */
	while (!(note = calloc(1, sizeof(*note) + len + 1)))
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	note->kind = kind;
	note->nodeid = nodeid;
	note->len = len;
	if (len)
		memcpy(note->name, name, len);
	return note;
}

static struct sopfs_note *note_of_end(uint64_t nodeid, uint64_t end, char last)
{
	struct sopfs_note *note = note_new(NOTE_END, nodeid, &last, 1);

	note->end = end;
	return note;
}

static void push(struct sopfs_notes *n, struct sopfs_note *note)
{
	note->next = n->first;
	n->first = note;
}

void sopfs_note_name(
	struct sopfs *f, struct sopfs_notes *n, uint64_t store, const char *name, size_t len)
{
	struct sopfs_item *dir = sopfs_item_find(f, store);

	/* A directory the kernel does not know has no entries there. */
	if (dir && dir->current)
		push(n, note_new(NOTE_ENTRY, sopfs_view_nodeid(f, dir->current), name, len));
}

void sopfs_note_entry(struct sopfs_notes *n, uint64_t nodeid, const char *name)
{
	push(n, note_new(NOTE_ENTRY, nodeid, name, strlen(name)));
}

void sopfs_note_names(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_item *item)
{
	for (const struct sopfs_alias *a = item->names; a; a = a->next)
		sopfs_note_name(f, n, a->store, a->text, a->len);
}

void sopfs_note_attr(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_view *v)
{
	push(n, note_new(NOTE_ATTR, sopfs_view_nodeid(f, v), NULL, 0));
}

void sopfs_note_attrs(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_item *item,
	const struct sopfs_view *but)
{
	for (const struct sopfs_view *v = item->views; v; v = v->next)
		if (v != but && v->nlookup)
			sopfs_note_attr(f, n, v);
}

/* The last that is pushed is sent first. A world's requests come one at a time. */
void sopfs_note_untold(struct sopfs *f, struct sopfs_notes *n, struct sopfs_view *v)
{
	struct sopfs_note *note;

	if (f->world)
		return;
	note = note_new(NOTE_TOLD, sopfs_view_nodeid(f, v), NULL, 0);
	note->arg = v->item;
	note->generation = v->generation;
	sopfs_item_ref(v->item);
	v->item->untold++;
	v->untold++;
	push(n, note);
}

static void told(struct sopfs *f, const struct sopfs_note *note)
{
	struct sopfs_item *item = note->arg;

	pthread_mutex_lock(&f->lock);
	for (struct sopfs_view *v = item->views; v; v = v->next)
		if (sopfs_view_nodeid(f, v) == note->nodeid && v->generation == note->generation)
			v->untold--;
	item->untold--;
	sopfs_item_unref(f, item);
	pthread_mutex_unlock(&f->lock);
}

bool sopfs_view_paged(const struct sopfs_view *v)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load(&v->paged);
}

void sopfs_note_data(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_view *v)
{
	struct sopfs_note *note = note_new(
		sopfs_view_paged(v) ? NOTE_DATA : NOTE_ATTR, sopfs_view_nodeid(f, v), NULL, 0);

	if (f->shared && note->kind == NOTE_DATA) {
		note->arg = v->item;
		sopfs_item_ref(v->item);
		v->item->dropping++;
	}
	push(n, note);
}

static void dropped(struct sopfs *f, const struct sopfs_note *note)
{
	struct sopfs_item *item = note->arg;

	pthread_mutex_lock(&f->lock);
	item->dropping--;
	sopfs_item_unref(f, item);
	pthread_mutex_unlock(&f->lock);
}

void sopfs_note_paged(struct sopfs_view *v)
{
	if (atomic_load_explicit(&v->paged, memory_order_relaxed))
		return;
	atomic_store(&v->paged, true);
	atomic_thread_fence(memory_order_seq_cst);
}

/* It drops the names of these that nobody uses, and with them what it knows; what is in use stays.
 * Kernels before 6.18 do not know the request. */
static void tell_prune(struct sopfs *f, const struct sopfs_note *note)
{
	struct notify_prune prune = {.count = (uint32_t)(note->len / sizeof(uint64_t))};
	struct fuse_out_header head = {
		.error = NOTIFY_PRUNE, .len = (uint32_t)(sizeof(head) + sizeof(prune) + note->len)};
	char body[sizeof(prune) + PRUNE_MAX * sizeof(uint64_t)];
	struct iovec iov[2] = {{&head, sizeof(head)}, {body, sizeof(prune) + note->len}};

	memcpy(body, &prune, sizeof(prune));
	memcpy(body + sizeof(prune), note->name, note->len);
	if (sopfs_channel_notify(f->se, iov, 2) == -EINVAL)
		atomic_store(&f->no_prune, true);
}

/* The last byte of the file: where it ends the kernel takes from this at once, while the size in an
 * answer is thrown away if any note about the inode has overtaken it, and a read that has asked is
 * cut short where the file ended before. */
static void tell_end(struct sopfs *f, const struct sopfs_note *note)
{
	struct fuse_notify_store_out at = {
		.nodeid = note->nodeid, .offset = note->end - 1, .size = 1};
	struct fuse_out_header head = {
		.error = FUSE_NOTIFY_STORE, .len = (uint32_t)(sizeof(head) + sizeof(at) + 1)};
	char body[sizeof(at) + 1];
	struct iovec iov[2] = {{&head, sizeof(head)}, {body, sizeof(body)}};

	memcpy(body, &at, sizeof(at));
	body[sizeof(at)] = note->name[0];
	(void)sopfs_channel_notify(f->se, iov, 2);
}

/* The kernel says ENOENT when it has nothing of the kind any more; ENODEV and the like mean that it
 * is gone altogether. Nothing is left to invalidate in any case. */
static void tell(struct sopfs *f, struct sopfs_note *note)
{
	switch (note->kind) {
	case NOTE_ENTRY:
		(void)fuse_lowlevel_notify_inval_entry(f->se, note->nodeid, note->name, note->len);
		break;
	case NOTE_ATTR:
		(void)fuse_lowlevel_notify_inval_inode(f->se, note->nodeid, -1, 0);
		break;
	case NOTE_DATA:
		(void)fuse_lowlevel_notify_inval_inode(f->se, note->nodeid, 0, 0);
		break;
	case NOTE_END:
		tell_end(f, note);
		break;
	case NOTE_TOLD:
		told(f, note);
		break;
	case NOTE_PRUNE:
		tell_prune(f, note);
		break;
	case NOTE_DONE:
		note->done(note->arg);
		break;
	}
}

static void tell_all(struct sopfs *f, struct sopfs_note *note)
{
	while (note) {
		struct sopfs_note *next = note->next;

		if (f->se || note->kind >= NOTE_TOLD)
			tell(f, note);
		if (note->kind == NOTE_DATA && note->arg)
			dropped(f, note);
		free(note);
		note = next;
	}
}

static void *lane_main(void *arg)
{
	struct lane *q = arg;

	pthread_mutex_lock(&q->lock);
	while (q->first || !q->stop) {
		struct sopfs_note *batch = q->first;

		if (!batch) {
			pthread_cond_wait(&q->wake, &q->lock);
			continue;
		}
		q->first = NULL;
		q->tail = &q->first;
		pthread_mutex_unlock(&q->lock);
		tell_all(q->f, batch);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static int lane_start(struct sopfs *f, struct lane *q)
{
	q->f = f;
	q->tail = &q->first;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->wake, NULL);
	return -pthread_create(&q->thread, NULL, lane_main, q);
}

static void lane_stop(struct lane *q)
{
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
}

int sopfs_notifier_start(struct sopfs *f, struct sop_err *e)
{
	struct sopfs_notifier *n = calloc(1, sizeof(*n));
	int i, rc = 0;

	if (!n)
		return sop_fail(e, -ENOMEM, "notifier");
	for (i = 0; !rc && i < LANES; i++)
		rc = lane_start(f, &n->lane[i]);
	if (rc) {
		while (--i > 0)
			lane_stop(&n->lane[i - 1]);
		free(n);
		return sop_fail(e, rc, "notifier thread");
	}
	f->notifier = n;
	return 0;
}

void sopfs_notifier_stop(struct sopfs *f)
{
	struct sopfs_notifier *n = f->notifier;

	if (!n)
		return;
	for (int i = LANES; i > 0; i--)
		lane_stop(&n->lane[i - 1]);
	free(n);
	f->notifier = NULL;
}

static void queue(struct lane *q, struct sopfs_note *first)
{
	pthread_mutex_lock(&q->lock);
	*q->tail = first;
	while (*q->tail)
		q->tail = &(*q->tail)->next;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

static struct sopfs_note *note_done(void (*done)(void *arg), void *arg)
{
	struct sopfs_note *note = note_new(NOTE_DONE, 0, NULL, 0);

	note->done = done;
	note->arg = arg;
	return note;
}

void sopfs_notify_in_order(
	struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg)
{
	struct sopfs_note *first = n->first, **p;

	n->first = NULL;
	for (p = &first; *p; p = &(*p)->next)
		;
	*p = note_done(done, arg);
	queue(&f->notifier->lane[ALL], first);
}

void sopfs_notify(struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg)
{
	struct sopfs_note *first = n->first;

	/* A world's request holds its lock: whoever the kernel makes us wait for may wait for that.
	 */
	if (first && (f->world || atomic_exchange(&f->notifier->busy, true))) {
		if (done) {
			sopfs_notify_in_order(f, n, done, arg);
		} else {
			n->first = NULL;
			queue(&f->notifier->lane[ALL], first);
		}
		return;
	}
	n->first = NULL;
	if (first) {
		tell_all(f, first);
		atomic_store(&f->notifier->busy, false);
	}
	if (done)
		done(arg);
}

void sopfs_prune(struct sopfs *f)
{
	uint64_t nodeids[PRUNE_MAX];
	struct sopfs_notes notes = {0};
	unsigned due;
	size_t n;

	if (!f->o.known_max || f->world || f->table_used <= f->o.known_max || f->no_prune)
		return;
	due = atomic_fetch_add(&f->prune_due, 1);
	if (due % PRUNE_EVERY)
		return;
	if (due % SETTLE_EVERY == 0)
		sopfs_ticker_settle(f);
	pthread_mutex_lock(&f->lock);
	n = sopfs_table_idle(f, nodeids, PRUNE_MAX);
	pthread_mutex_unlock(&f->lock);
	if (!n)
		return;
	push(&notes, note_new(NOTE_PRUNE, 0, (const char *)nodeids, n * sizeof(*nodeids)));
	sopfs_notify(f, &notes, NULL, NULL);
}

void sopfs_notify_here(struct sopfs *f, struct sopfs_notes *n)
{
	struct sopfs_note *first = n->first;

	n->first = NULL;
	tell_all(f, first);
}

void sopfs_note_end(
	struct sopfs *f, struct sopfs_notes *n, struct sopfs_view *v, uint64_t end, char last)
{
	sopfs_note_paged(v); /* by this */
	push(n, note_of_end(sopfs_view_nodeid(f, v), end, last));
	sopfs_note_data(f, n, v);
}

/* Those that drop pages, and those about the end, which come between; taken out. */
static struct sopfs_note *take_drops(struct sopfs_notes *n)
{
	struct sopfs_note *taken = NULL, **end = &taken;

	for (struct sopfs_note **p = &n->first; *p;) {
		struct sopfs_note *note = *p;

		if (note->kind != NOTE_DATA && note->kind != NOTE_END) {
			p = &note->next;
			continue;
		}
		*p = note->next;
		note->next = NULL;
		*end = note;
		end = &note->next;
	}
	return taken;
}

void sopfs_notify_later(struct sopfs *f, struct sopfs_notes *n)
{
	struct sopfs_note *drops = take_drops(n);
	struct sopfs_note *wait = NULL, *now = NULL, **wait_end = &wait, **now_end = &now;
	bool waits = false;

	/* Attributes alone wait for nobody. */
	for (struct sopfs_note *note = n->first; note; note = note->next) {
		struct sopfs_note ***end = note->kind == NOTE_ATTR ? &now_end : &wait_end;

		waits = waits || note->kind == NOTE_ENTRY;
		**end = note;
		*end = &note->next;
	}
	n->first = *now_end = *wait_end = NULL;
	tell_all(f, now);
	if (drops)
		queue(&f->notifier->lane[DROPS], drops);
	if (waits)
		queue(&f->notifier->lane[ALL], wait);
	else
		tell_all(f, wait);
}

void sopfs_notify_dropped(
	struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg)
{
	sopfs_notify_later(f, n);
	queue(&f->notifier->lane[DROPS], note_done(done, arg));
}

bool sopfs_notify_pages(struct sopfs *f, struct sopfs_notes *n, struct sopfs_item *item,
	uint64_t file_end, char last, void (*done)(void *arg), void *arg)
{
	struct sopfs_note *pages, **p;

	if (!n->first || f->world || atomic_exchange(&item->telling, true))
		return false;
	pages = take_drops(n);
	if (!pages) {
		atomic_store(&item->telling, false);
		return false;
	}
	for (p = &pages; *p; p = &(*p)->next) {
		struct sopfs_note *end;

		if (!file_end)
			continue;
		end = note_of_end((*p)->nodeid, file_end, last);
		end->next = *p;
		*p = end;
		p = &end->next;
	}
	*p = note_done(done, arg);
	sopfs_notify_later(f, n);
	queue(&f->notifier->lane[PAGES], pages);
	return true;
}
