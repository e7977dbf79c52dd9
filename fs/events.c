#include "fs/events.h"

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>

#include "core/human.h"
#include "fs/daemon.h"
#include "fs/json.h"
#include "fs/state.h"
#include "fs/status.h"

#define NOTES	512 /* kept */
#define DISKS	128
#define UNKNOWN (-1)

struct note {
	enum sopfs_event_kind kind;
	char *line;
};

struct sopfs_follower {
	struct sopfs_events *ev;
	struct sopfs_follower *next; /* under ev->list */
	unsigned kinds;
	struct sop_events *commits; /* or NULL */
	uint64_t note_at;	    /* number of the next */
	char *left;		    /* what did not fit */
	size_t left_len, left_at;
	void (*wake)(void *arg);
	void *arg;
};

struct sopfs_events {
	struct sopfs *f;
	pthread_t thread;
	int wake;
	atomic_bool stop;

	pthread_mutex_t list; /* held while followers are woken */
	struct sopfs_follower *followers;

	pthread_mutex_t lock; /* leaf */
	struct note note[NOTES];
	uint64_t notes; /* how many there ever were */

	int disk[DISKS]; /* of the thread: enum sop_disk_state as told last; UNKNOWN: not yet */
};

static const struct {
	const char *name;
	enum sopfs_event_kind kind;
} kinds[] = {
	{"commit", SOPFS_EVENT_COMMIT},
	{"session", SOPFS_EVENT_SESSION},
	{"log", SOPFS_EVENT_LOG},
	{"disk", SOPFS_EVENT_DISK},
};

unsigned sopfs_event_kind(const char *name)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].kind;
	return 0;
}

static const char *kind_name(enum sopfs_event_kind kind)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(kinds); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return "?";
}

/* ---- lines -------------------------------------------------------------------------------------
 */

static void set_time(json_t *event, struct timespec t)
{
	char text[SOP_HUMAN_TEXT];

	json_object_set_new(event, "time", json_string(sop_human_rfc3339(text, t)));
}

/* malloc'ed, with its newline. Takes the reference. */
static char *line_of(json_t *event)
{
	char *text = event ? json_dumps(event, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	size_t len = text ? strlen(text) : 0;
	char *line = text ? realloc(text, len + 2) : NULL;

	json_decref(event);
	if (line)
		memcpy(line + len, "\n", 2);
	else
		free(text);
	return line;
}

/* Of a key that is longer than what is kept of it, how long it is, too. */
static void set_key(json_t *j, const struct sop_event *event)
{
	size_t len = SOP_MIN(event->key_len, sizeof(event->key));

	sopfs_json_bytes(j, "key", event->key, len);
	if (event->key_len > len)
		json_object_set_new(j, "key_length", json_integer((json_int_t)event->key_len));
}

static char *commit_line(const struct sop_event *event)
{
	json_t *j = json_pack("{s:s, s:I}", "event", "commit", "lsn", (json_int_t)event->lsn);

	if (!j)
		return NULL;
	set_time(j, event->time);
	if (event->store) {
		json_object_set_new(j, "store", json_integer((json_int_t)event->store));
		set_key(j, event);
	}
	if (event->ino)
		json_object_set_new(j, "inode", json_integer((json_int_t)event->ino));
	json_object_set_new(j, "kind", json_string(sop_change_name(event->change)));
	if (event->more)
		json_object_set_new(j, "more", json_true());
	return line_of(j);
}

static char *overrun_line(const char *what, uint64_t missed)
{
	return line_of(json_pack(
		"{s:s, s:s, s:I}", "event", "overrun", "of", what, "missed", (json_int_t)missed));
}

void sopfs_event_note(struct sopfs *f, enum sopfs_event_kind kind, json_t *event)
{
	struct sopfs_events *ev = f->events;
	json_t *head = json_pack("{s:s}", "event", kind_name(kind));
	const uint64_t one = 1;
	struct timespec now = {0};
	struct note *n;
	char *line;

	clock_gettime(CLOCK_REALTIME, &now);
	if (head)
		set_time(head, now);
	if (head && event)
		json_object_update(head, event);
	json_decref(event);
	line = line_of(head);
	if (!line || !ev) {
		free(line);
		return;
	}
	pthread_mutex_lock(&ev->lock);
	n = &ev->note[ev->notes++ % NOTES];
	free(n->line);
	*n = (struct note){kind, line};
	pthread_mutex_unlock(&ev->lock);
	/* It only counts: when it is full, the thread has been woken already. */
	(void)!write(ev->wake, &one, sizeof(one));
}

/* ---- followers ---------------------------------------------------------------------------------
 */

static char *next_commit(struct sopfs_follower *x)
{
	struct sop_event event;
	char *line, *overrun, *both;

	if (!x->commits || !sop_events_next(x->commits, &event))
		return NULL;
	line = commit_line(&event);
	if (!event.missed || !line)
		return line;
	overrun = overrun_line("commit", event.missed);
	if (!overrun || asprintf(&both, "%s%s", overrun, line) < 0)
		both = NULL;
	free(overrun);
	free(line);
	return both;
}

static char *next_note(struct sopfs_follower *x)
{
	struct sopfs_events *ev = x->ev;
	char *line = NULL;

	pthread_mutex_lock(&ev->lock);
	if (ev->notes - x->note_at > NOTES) {
		line = overrun_line("log", ev->notes - x->note_at - NOTES);
		x->note_at = ev->notes - NOTES;
	}
	while (!line && x->note_at < ev->notes) {
		const struct note *n = &ev->note[x->note_at++ % NOTES];

		if (n->kind & x->kinds)
			line = strdup(n->line);
	}
	pthread_mutex_unlock(&ev->lock);
	return line;
}

static size_t take_left(struct sopfs_follower *x, char *buf, size_t size)
{
	size_t n = SOP_MIN(size, x->left_len - x->left_at);

	memcpy(buf, x->left + x->left_at, n);
	x->left_at += n;
	if (x->left_at == x->left_len) {
		free(x->left);
		x->left = NULL;
		x->left_len = x->left_at = 0;
	}
	return n;
}

size_t sopfs_follower_read(struct sopfs_follower *x, char *buf, size_t size)
{
	size_t n = x->left ? take_left(x, buf, size) : 0;

	while (n < size && !x->left) {
		char *line = next_commit(x);

		if (!line)
			line = next_note(x);
		if (!line)
			break;
		x->left = line;
		x->left_len = strlen(line);
		x->left_at = 0;
		/* The rest of a line waits for the next call, unless it is all there is. */
		if (n && x->left_len > size - n)
			break;
		n += take_left(x, buf + n, size - n);
	}
	return n;
}

int sopfs_follow(struct sopfs_follower **out, struct sopfs *f, unsigned which, bool history,
	void (*wake)(void *arg), void *arg, struct sop_err *e)
{
	struct sopfs_events *ev = f->events;
	struct sopfs_follower *x = calloc(1, sizeof(*x));
	int rc = 0;

	if (!x)
		return sop_fail(e, -ENOMEM, "events");
	*x = (struct sopfs_follower){.ev = ev, .kinds = which, .wake = wake, .arg = arg};
	if (which & SOPFS_EVENT_COMMIT)
		rc = sop_events_open(&x->commits, f->v, e);
	if (rc) {
		free(x);
		return rc;
	}
	pthread_mutex_lock(&ev->lock);
	x->note_at = !history ? ev->notes : ev->notes > NOTES ? ev->notes - NOTES : 0;
	pthread_mutex_unlock(&ev->lock);
	pthread_mutex_lock(&ev->list);
	x->next = ev->followers;
	ev->followers = x;
	pthread_mutex_unlock(&ev->list);
	*out = x;
	return 0;
}

void sopfs_unfollow(struct sopfs_follower *x)
{
	struct sopfs_follower **p;

	if (!x)
		return;
	pthread_mutex_lock(&x->ev->list);
	for (p = &x->ev->followers; *p != x; p = &(*p)->next)
		;
	*p = x->next;
	pthread_mutex_unlock(&x->ev->list);
	sop_events_close(x->commits);
	free(x->left);
	free(x);
}

/* ---- the thread --------------------------------------------------------------------------------
 */

/* What a disk is now, if that is not what was told of it last. */
static void tell_disks(struct sopfs_events *ev, bool first)
{
	struct sop_volume_disk d;

	for (unsigned i = 0; sop_volume_disk(ev->f->v, i, &d); i++) {
		int was = d.index < DISKS ? ev->disk[d.index] : (int)d.state;

		if (was == (int)d.state)
			continue;
		ev->disk[d.index] = (int)d.state;
		if (!first)
			sopfs_event_note(ev->f, SOPFS_EVENT_DISK,
				json_pack("{s:s, s:o, s:s, s:s?, s:o}", "disk", d.name, "path",
					sopfs_json_of(d.path), "state",
					sop_disk_state_name(d.state), "was",
					was == UNKNOWN
						? NULL
						: sop_disk_state_name((enum sop_disk_state)was),
					"reason", sopfs_json_of(d.reason)));
	}
}

static void *tell(void *arg)
{
	struct sopfs_events *ev = arg;
	uint64_t count;

	prctl(PR_SET_NAME, "sopfs-events");
	tell_disks(ev, true);
	while (!atomic_load(&ev->stop)) {
		struct pollfd p = {.fd = ev->wake, .events = POLLIN};

		if (poll(&p, 1, -1) < 0 || read(ev->wake, &count, sizeof(count)) < 0)
			continue;
		tell_disks(ev, false);
		pthread_mutex_lock(&ev->list);
		for (struct sopfs_follower *x = ev->followers; x; x = x->next)
			x->wake(x->arg);
		pthread_mutex_unlock(&ev->list);
	}
	return NULL;
}

/* From the log: any thread, with any lock held. */
static void on_log(void *arg, enum sop_log_level level, const char *module, const char *line)
{
	struct sopfs *f = arg;

	/* Sessions have events of their own. */
	if (level > SOP_LOG_INFO || strcmp(module, "session") == 0)
		return;
	sopfs_event_note(f, SOPFS_EVENT_LOG,
		json_pack("{s:s, s:s, s:o}", "level", sop_log_level_name(level), "module", module,
			"text", sopfs_json_of(line)));
}

/* From whoever commits. */
static void on_commit(void *arg)
{
	struct sopfs_events *ev = arg;
	const uint64_t one = 1;

	(void)!write(ev->wake, &one, sizeof(one));
}

void sopfs_events_look(struct sopfs *f)
{
	on_commit(f->events);
}

int sopfs_events_start(struct sopfs *f, struct sop_err *e)
{
	struct sopfs_events *ev = calloc(1, sizeof(*ev));
	int rc;

	if (!ev)
		return sop_fail(e, -ENOMEM, "events");
	ev->f = f;
	for (size_t i = 0; i < DISKS; i++)
		ev->disk[i] = UNKNOWN;
	pthread_mutex_init(&ev->list, NULL);
	pthread_mutex_init(&ev->lock, NULL);
	ev->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = ev->wake < 0 ? -errno : 0;
	f->events = ev;
	if (!rc)
		rc = -pthread_create(&ev->thread, NULL, tell, ev);
	if (rc) {
		f->events = NULL;
		if (ev->wake >= 0)
			close(ev->wake);
		free(ev);
		return sop_fail(e, rc, "events");
	}
	sop_events_notify(f->v, on_commit, ev);
	sopfs_log_tap(on_log, f);
	return 0;
}

void sopfs_events_stop(struct sopfs *f)
{
	struct sopfs_events *ev = f->events;

	if (!ev)
		return;
	sopfs_log_tap(NULL, NULL);
	atomic_store(&ev->stop, true);
	on_commit(ev);
	pthread_join(ev->thread, NULL);
	sop_events_notify(f->v, NULL, NULL);
	f->events = NULL;
	assert(!ev->followers);
	for (size_t i = 0; i < NOTES; i++)
		free(ev->note[i].line);
	close(ev->wake);
	pthread_mutex_destroy(&ev->list);
	pthread_mutex_destroy(&ev->lock);
	free(ev);
}
