#include "fs/control.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "core/ctlsock.h"
#include "fs/events.h"
#include "fs/state.h"

#define CLIENTS	       64
#define CLIENTS_USER   12 /* of one ordinary user */
#define CLIENTS_OTHERS 40 /* of all ordinary users: the owner always gets in */
#define WORKERS	       8
#define IDLE_MS	       30000 /* without a request, or without reading the answer */
#define EVENTS_BYTES   65536
#define ANSWER_MAX     (16u << 20)
#define FULL_MS	       50 /* until the next try, when there are no descriptors */
#define READ_BYTES     4096
#define LINES_BYTES    65536  /* sent at once, of an answer of many lines */
#define LINES_MS       600000 /* without the reader of those taking any; as of a pager */
#define LINES_LOOK_MS  500    /* how soon it is seen that the volume is to be closed */

/* A verb on its way. Owned by its thread until done, then by the control thread. */
struct job {
	struct sopfs_control *c;
	const struct sopfs_verb *verb;
	json_t *request, *answer;
	bool trusted;
	bool done;   /* under c->lock */
	bool orphan; /* under c->lock: its client has gone */
};

struct client {
	int fd; /* -1: free */
	uid_t uid;
	bool trusted;
	bool last; /* nothing more is read: it closes when the answer has gone */
	char *in;
	size_t in_len, in_cap;
	char *out;
	size_t out_len, out_at;
	uint64_t deadline_ms;
	struct job *job;
	struct sopfs_follower *follower; /* it is told events */
	bool follow;			 /* without an end */
};

struct sopfs_control {
	struct sopfs *f;
	pthread_t thread;
	int folder, listener, wake;
	char name[SOP_UUID_TEXT + 24];
	struct client client[CLIENTS];
	pthread_mutex_t lock;
	pthread_cond_t cond; /* a worker has ended */
	unsigned workers;    /* under lock */
	bool stop;	     /* under lock */
};

static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(NULL);
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static json_t *refusal(int rc, const char *message)
{
	json_t *text = json_string(message);

	return json_pack("{s:i, s:b, s:s, s:o}", "version", SOP_CTL_VERSION, "ok", false, "code",
		sop_err_name(rc), "message", text ? text : json_string(sop_err_text(rc)));
}

static json_t *answer_of(json_t *result, int rc, const struct sop_err *e)
{
	if (!result)
		return refusal(rc, e->text[0] ? e->text : sop_err_text(rc));
	return json_pack(
		"{s:i, s:b, s:o}", "version", SOP_CTL_VERSION, "ok", true, "result", result);
}

static json_t *run_verb(
	const struct sopfs_verb *verb, struct sopfs *f, const json_t *request, bool trusted)
{
	struct sop_err e = {0};
	json_t *result = verb->run(f, request, trusted, &e);

	return answer_of(result, e.code ? e.code : -ENOMEM, &e);
}

/* ---- clients -----------------------------------------------------------------------------------
 */

static void job_free(struct job *j)
{
	json_decref(j->request);
	json_decref(j->answer);
	free(j);
}

static void client_close(struct sopfs_control *c, struct client *k)
{
	bool done = true;

	if (k->job) {
		pthread_mutex_lock(&c->lock);
		done = k->job->done;
		k->job->orphan = true;
		pthread_mutex_unlock(&c->lock);
		if (done)
			job_free(k->job);
	}
	sopfs_unfollow(k->follower);
	close(k->fd);
	free(k->in);
	free(k->out);
	memset(k, 0, sizeof(*k));
	k->fd = -1;
}

/* Takes the reference. A client that has no room left for its answer has none. */
static void client_answer(struct sopfs_control *c, struct client *k, json_t *answer)
{
	char *line = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	size_t len = line ? strlen(line) : 0;
	char *grown;

	json_decref(answer);
	grown = line && k->out_len + len < ANSWER_MAX ? realloc(k->out, k->out_len + len + 1)
						      : NULL;
	if (!grown) {
		free(line);
		client_close(c, k);
		return;
	}
	k->out = grown;
	memcpy(k->out + k->out_len, line, len);
	k->out_len += len;
	k->out[k->out_len++] = '\n';
	free(line);
	k->deadline_ms = now_ms() + IDLE_MS;
}

/* ---- threads for what waits ---- */

static void worker_ends(struct sopfs_control *c)
{
	pthread_mutex_lock(&c->lock);
	c->workers--;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

/* It calls worker_ends() as the last thing it does with c. -EBUSY: there are as many as may be. */
static int start_worker(struct sopfs_control *c, void *(*fn)(void *arg), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool room;
	int rc;

	pthread_mutex_lock(&c->lock);
	room = c->workers < WORKERS;
	c->workers += room;
	pthread_mutex_unlock(&c->lock);
	if (!room)
		return -EBUSY;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	if (rc)
		worker_ends(c);
	return rc;
}

static json_t *refuse_work(int rc)
{
	return refusal(rc, rc == -EBUSY
				   ? "other requests are under way; try again when they are done"
				   : "control request: no thread for it");
}

static void *work(void *arg)
{
	struct job *j = arg;
	struct sopfs_control *c = j->c;
	const uint64_t one = 1;
	bool orphan;

	prctl(PR_SET_NAME, "sopfs-verb");
	j->answer = run_verb(j->verb, c->f, j->request, j->trusted);
	sopfs_events_look(c->f);
	pthread_mutex_lock(&c->lock);
	j->done = true;
	orphan = j->orphan;
	if (write(c->wake, &one, sizeof(one)) < 0)
		sop_log(c->f->o.log, SOP_LOG_WARNING, "control", "op=wake: %s", strerror(errno));
	pthread_mutex_unlock(&c->lock);
	if (orphan)
		job_free(j);
	worker_ends(c);
	return NULL;
}

/* NULL: it is on its way; else why not. The worker gets a copy of the request: how jansson counts
 * references is for one thread. */
static json_t *start_job(struct sopfs_control *c, struct client *k, const struct sopfs_verb *verb,
	const json_t *request)
{
	struct job *j = calloc(1, sizeof(*j));
	int rc;

	if (!j)
		return refuse_work(-ENOMEM);
	*j = (struct job){
		.c = c, .verb = verb, .request = json_deep_copy(request), .trusted = k->trusted};
	rc = j->request ? start_worker(c, work, j) : -ENOMEM;
	if (!rc) {
		k->job = j;
		return NULL;
	}
	job_free(j);
	return refuse_work(rc);
}

/* ---- answers of many lines ---------------------------------------------------------------------
 */

/* Its thread's own, and so is the connection. */
struct lines {
	struct sopfs_control *c;
	const struct sopfs_verb *verb;
	json_t *request;
	int fd;
	char out[LINES_BYTES];
	size_t len;
};

static bool stopping(struct sopfs_control *c)
{
	bool stop;

	pthread_mutex_lock(&c->lock);
	stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return stop;
}

static int send_all(struct lines *l, const char *text, size_t len)
{
	uint64_t until = now_ms() + LINES_MS;

	while (len) {
		struct pollfd p = {.fd = l->fd, .events = POLLOUT};
		ssize_t n = send(l->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (stopping(l->c))
			return -ESHUTDOWN;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
			until = now_ms() + LINES_MS;
		} else if (now_ms() >= until) {
			return -ETIMEDOUT;
		} else {
			poll(&p, 1, LINES_LOOK_MS);
		}
	}
	return 0;
}

static int send_held(struct lines *l)
{
	int rc = send_all(l, l->out, l->len);

	l->len = 0;
	return rc;
}

static int put_line(void *arg, json_t *line)
{
	struct lines *l = arg;
	sop_autofree char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	int rc = text ? 0 : -ENOMEM;

	json_decref(line);
	if (rc)
		return rc;
	text[len++] = '\n'; /* where its end was */
	if (l->len + len > sizeof(l->out))
		rc = send_held(l);
	if (!rc && len > sizeof(l->out))
		return send_all(l, text, len);
	if (!rc) {
		memcpy(l->out + l->len, text, len);
		l->len += len;
	}
	return rc;
}

static void *work_lines(void *arg)
{
	struct lines *l = arg;
	struct sopfs_control *c = l->c;
	struct sop_err e = {0};
	int rc;

	prctl(PR_SET_NAME, "sopfs-lines");
	rc = l->verb->lines(c->f, l->request, put_line, l, &e);
	if (!put_line(l, answer_of(rc ? NULL : json_object(), rc, &e)))
		send_held(l);
	close(l->fd);
	json_decref(l->request);
	free(l);
	worker_ends(c);
	return NULL;
}

/* NULL: they are on their way, and the client is this thread's no more; else why not. */
static json_t *start_lines(struct sopfs_control *c, struct client *k, const struct sopfs_verb *verb,
	const json_t *request)
{
	struct lines *l = calloc(1, sizeof(*l));
	int rc = l ? 0 : -ENOMEM;

	if (l) {
		*l = (struct lines){.c = c, .verb = verb, .request = json_deep_copy(request)};
		l->fd = fcntl(k->fd, F_DUPFD_CLOEXEC, 0);
		rc = l->fd < 0 ? -errno : !l->request ? -ENOMEM : start_worker(c, work_lines, l);
	}
	if (!rc) {
		client_close(c, k);
		return NULL;
	}
	if (l && l->fd >= 0)
		close(l->fd);
	if (l)
		json_decref(l->request);
	free(l);
	return refuse_work(rc);
}

static void woken(void *arg)
{
	struct sopfs_control *c = arg;
	const uint64_t one = 1;

	(void)!write(c->wake, &one, sizeof(one));
}

/* NULL: events follow; else why not. */
static json_t *start_events(struct sopfs_control *c, struct client *k, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "kind"));
	unsigned kinds = name ? sopfs_event_kind(name) : ~0u;
	struct sop_err e = {0};

	if (!kinds)
		return refusal(-EINVAL, "kinds of events: commit, session, disk, log");
	k->follow = json_is_true(json_object_get(request, "follow"));
	if (sopfs_follow(&k->follower, c->f, kinds, true, woken, c, &e))
		return answer_of(NULL, e.code, &e);
	return NULL;
}

/* What there is, if what was there before has gone. */
static void client_events(struct sopfs_control *c, struct client *k)
{
	size_t n;

	if (k->fd < 0 || !k->follower || k->out_len)
		return;
	k->out = malloc(EVENTS_BYTES);
	n = k->out ? sopfs_follower_read(k->follower, k->out, EVENTS_BYTES) : 0;
	k->out_len = n;
	if (n)
		return;
	free(k->out);
	k->out = NULL;
	if (k->follow)
		return;
	sopfs_unfollow(k->follower);
	k->follower = NULL;
	client_answer(c, k, answer_of(json_object(), 0, NULL));
}

static bool may_look(const struct sopfs_control *c, const struct client *k)
{
	return k->trusted || c->f->o.allow_other;
}

/* NULL: the answer comes later. */
static json_t *obey(struct sopfs_control *c, struct client *k, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "verb"));
	const json_t *version = json_object_get(request, "version");
	const struct sopfs_verb *verb;

	if (!name || !json_is_integer(version))
		return refusal(-EINVAL, "a request is an object with \"version\" and \"verb\"");
	if (json_integer_value(version) != SOP_CTL_VERSION)
		return refusal(-EPROTONOSUPPORT,
			"the daemon speaks another version of the protocol; use the sopctl that "
			"came with it");
	verb = sopfs_verb_find(name);
	if (!verb)
		return refusal(-EOPNOTSUPP, "the daemon does not know this verb");
	if (!may_look(c, k) || (verb->access == SOPFS_MAY_CHANGE && !k->trusted))
		return refusal(-EPERM, "only root and the user who mounted the volume may do this");
	if (verb->lines)
		return start_lines(c, k, verb, request);
	if (!verb->run)
		return start_events(c, k, request);
	if (verb->waits)
		return start_job(c, k, verb, request);
	return run_verb(verb, c->f, request, k->trusted);
}

static void client_line(struct sopfs_control *c, struct client *k, const char *line, size_t len)
{
	json_error_t error;
	json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error), *answer;

	if (!json_is_object(request)) {
		json_decref(request);
		k->last = true;
		client_answer(c, k, refusal(-EINVAL, "a request is one JSON object on one line"));
		return;
	}
	answer = obey(c, k, request);
	json_decref(request);
	if (answer)
		client_answer(c, k, answer);
}

/* One request at a time: the next is looked at when the answer to this one has gone. */
static void client_requests(struct sopfs_control *c, struct client *k)
{
	while (k->fd >= 0 && !k->job && !k->follower && !k->out_len && !k->last) {
		char *end = memchr(k->in, '\n', k->in_len);
		size_t len = end ? (size_t)(end - k->in) : 0;

		if (!end && k->in_len >= SOP_CTL_REQUEST_MAX) {
			k->last = true;
			client_answer(c, k, refusal(-E2BIG, "the request is too long"));
			return;
		}
		if (!end)
			return;
		client_line(c, k, k->in, len);
		if (k->fd < 0)
			return;
		memmove(k->in, end + 1, k->in_len - len - 1);
		k->in_len -= len + 1;
		client_events(c, k);
	}
}

static void client_read(struct sopfs_control *c, struct client *k)
{
	ssize_t n;

	if (k->in_cap - k->in_len < READ_BYTES) {
		char *grown = realloc(k->in, k->in_cap + READ_BYTES);

		if (!grown) {
			client_close(c, k);
			return;
		}
		k->in = grown;
		k->in_cap += READ_BYTES;
	}
	n = recv(k->fd, k->in + k->in_len, SOP_MIN(k->in_cap - k->in_len, (size_t)READ_BYTES),
		MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(c, k);
		return;
	}
	k->in_len += (size_t)n;
	client_requests(c, k);
}

static void client_write(struct sopfs_control *c, struct client *k)
{
	ssize_t n = send(
		k->fd, k->out + k->out_at, k->out_len - k->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		client_close(c, k);
		return;
	}
	k->out_at += (size_t)n;
	k->deadline_ms = now_ms() + IDLE_MS;
	if (k->out_at < k->out_len)
		return;
	free(k->out);
	k->out = NULL;
	k->out_len = k->out_at = 0;
	if (k->last)
		client_close(c, k);
	else if (k->follower)
		client_events(c, k);
	else
		client_requests(c, k);
}

static bool has_room(struct sopfs_control *c, uid_t uid, bool trusted)
{
	unsigned all = 0, others = 0, same = 0;

	for (size_t i = 0; i < CLIENTS; i++) {
		if (c->client[i].fd < 0)
			continue;
		all++;
		others += !c->client[i].trusted;
		same += c->client[i].uid == uid;
	}
	return all < CLIENTS && (trusted || (others < CLIENTS_OTHERS && same < CLIENTS_USER));
}

static void client_refuse(int fd)
{
	json_t *answer = refusal(-EBUSY, "too many clients; try again");
	sop_autofree char *line = json_dumps(answer, JSON_COMPACT);

	json_decref(answer);
	if (line && send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		(void)!send(fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void client_accept(struct sopfs_control *c)
{
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t len = sizeof(who);
	bool trusted;

	if (fd < 0) {
		/* It stays in the queue, and would be found again at once. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			usleep(FULL_MS * 1000);
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
		close(fd);
		return;
	}
	trusted = sopfs_trusts(who.uid);
	if (!has_room(c, who.uid, trusted)) {
		client_refuse(fd);
		return;
	}
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *k = &c->client[i];

		if (k->fd >= 0)
			continue;
		*k = (struct client){.fd = fd,
			.uid = who.uid,
			.trusted = trusted,
			.deadline_ms = now_ms() + IDLE_MS};
		return;
	}
	close(fd);
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static void jobs_done(struct sopfs_control *c)
{
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *k = &c->client[i];
		struct job *j = k->job;
		bool done = false;

		if (k->fd < 0 || !j)
			continue;
		pthread_mutex_lock(&c->lock);
		done = j->done;
		pthread_mutex_unlock(&c->lock);
		if (!done)
			continue;
		k->job = NULL;
		client_answer(c, k, json_incref(j->answer));
		job_free(j);
	}
}

/* Half a minute for a request to come, or for its answer to be read. Not while a verb is run, nor
 * for who follows events: they are the owner's, and cost no more than a buffer. */
static bool has_deadline(const struct client *k)
{
	return k->fd >= 0 && !k->job && !k->follower;
}

static int timeout_ms(const struct sopfs_control *c)
{
	uint64_t now = now_ms(), first = now + IDLE_MS;

	for (size_t i = 0; i < CLIENTS; i++)
		if (has_deadline(&c->client[i]))
			first = SOP_MIN(first, c->client[i].deadline_ms);
	return first <= now ? 0 : (int)(first - now);
}

static void close_late(struct sopfs_control *c)
{
	uint64_t now = now_ms();

	for (size_t i = 0; i < CLIENTS; i++)
		if (has_deadline(&c->client[i]) && c->client[i].deadline_ms <= now)
			client_close(c, &c->client[i]);
}

/* What is waited for with a client: to take its answer; else to say something, or to go away. */
static short events_of(const struct client *k)
{
	return k->out_len ? POLLOUT : k->job || k->follower ? 0 : POLLIN;
}

static void serve_client(struct sopfs_control *c, struct client *k, short events)
{
	if (k->fd < 0 || !events)
		return;
	if (events & POLLOUT)
		client_write(c, k);
	else if (events & POLLIN && !k->job && !k->follower)
		client_read(c, k);
	else if (events & (POLLERR | POLLHUP | POLLNVAL))
		client_close(c, k);
}

static void news(struct sopfs_control *c)
{
	jobs_done(c);
	for (size_t i = 0; i < CLIENTS; i++)
		client_events(c, &c->client[i]);
}

static void *control(void *arg)
{
	struct sopfs_control *c = arg;
	struct pollfd p[CLIENTS + 2];
	uint64_t count;

	prctl(PR_SET_NAME, "sopfs-control");
	while (!stopping(c)) {
		p[0] = (struct pollfd){.fd = c->wake, .events = POLLIN};
		p[1] = (struct pollfd){.fd = c->listener, .events = POLLIN};
		for (size_t i = 0; i < CLIENTS; i++)
			p[i + 2] = (struct pollfd){
				.fd = c->client[i].fd, .events = events_of(&c->client[i])};
		if (poll(p, CLIENTS + 2, timeout_ms(c)) < 0 && errno != EINTR)
			break;
		if (p[0].revents && read(c->wake, &count, sizeof(count)) > 0)
			news(c);
		for (size_t i = 0; i < CLIENTS; i++)
			if (p[i + 2].fd == c->client[i].fd)
				serve_client(c, &c->client[i], p[i + 2].revents);
		close_late(c);
		if (p[1].revents)
			client_accept(c);
	}
	return NULL;
}

/* ---- the socket --------------------------------------------------------------------------------
 */

/* Of another daemon of this volume that is dead: it refuses. */
static void remove_stale(int folder, const char *uuid)
{
	int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *d;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return;
	}
	while ((d = readdir(dir))) {
		struct sockaddr_un a;
		int fd;

		if (strncmp(d->d_name, uuid, SOP_UUID_TEXT - 1) ||
			sop_ctl_address(&a, folder, d->d_name))
			continue;
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0)
			break;
		if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) && errno == ECONNREFUSED)
			unlinkat(folder, d->d_name, 0);
		close(fd);
	}
	closedir(dir);
}

/* Bound under a name of its own, and given its own when it listens: who finds it can connect. */
static int listen_in(struct sopfs_control *c, struct sop_err *e)
{
	struct sockaddr_un a;
	char temp[32];
	int rc;

	snprintf(temp, sizeof(temp), ".new.%ld", (long)getpid());
	rc = sop_ctl_address(&a, c->folder, temp);
	if (rc)
		return sop_fail(e, rc, "control socket");
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0)
		return sop_fail(e, -errno, "control socket");
	unlinkat(c->folder, temp, 0);
	if (bind(c->listener, (const struct sockaddr *)&a, sizeof(a)) ||
		fchmodat(c->folder, temp, 0666, 0) || listen(c->listener, CLIENTS) ||
		renameat(c->folder, temp, c->folder, c->name)) {
		rc = -errno;
		unlinkat(c->folder, temp, 0);
		return sop_fail(e, rc, "control socket");
	}
	return 0;
}

static void control_free(struct sopfs_control *c)
{
	if (c->listener >= 0)
		close(c->listener);
	if (c->folder >= 0)
		close(c->folder);
	if (c->wake >= 0)
		close(c->wake);
	pthread_cond_destroy(&c->cond);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static int control_open(struct sopfs_control *c, struct sop_err *e)
{
	char path[4096], uuid[SOP_UUID_TEXT];
	struct sop_volume_stat s;
	int rc;

	sop_volume_stat(c->f->v, &s);
	sop_uuid_format(uuid, &s.uuid);
	snprintf(c->name, sizeof(c->name), "%s.%ld" SOP_CTL_SUFFIX, uuid, (long)getpid());
	if (!sop_ctl_folder(path, sizeof(path), 0))
		return sop_fail(e, -ENAMETOOLONG, "folder of control sockets");
	c->folder = sop_ctl_folder_open(path, true, e);
	if (c->folder < 0)
		return c->folder;
	remove_stale(c->folder, uuid);
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake < 0)
		return sop_fail(e, -errno, "control socket");
	rc = listen_in(c, e);
	return rc ? sop_wrap(e, rc, "%s", path) : 0;
}

int sopfs_control_start(struct sopfs *f, struct sop_err *e)
{
	struct sopfs_control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return sop_fail(e, -ENOMEM, "control socket");
	c->f = f;
	c->folder = c->listener = c->wake = -1;
	for (size_t i = 0; i < CLIENTS; i++)
		c->client[i].fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	rc = control_open(c, e);
	if (!rc) {
		rc = -pthread_create(&c->thread, NULL, control, c);
		if (rc) {
			sop_fail(e, rc, "control thread");
			unlinkat(c->folder, c->name, 0);
		}
	}
	if (rc) {
		control_free(c);
		return rc;
	}
	f->control = c;
	return 0;
}

void sopfs_control_stop(struct sopfs *f)
{
	struct sopfs_control *c = f->control;
	const uint64_t one = 1;

	if (!c)
		return;
	f->control = NULL;
	unlinkat(c->folder, c->name, 0);
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	if (write(c->wake, &one, sizeof(one)) < 0)
		sop_log(f->o.log, SOP_LOG_WARNING, "control", "op=stop: %s", strerror(errno));
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	for (size_t i = 0; i < CLIENTS; i++)
		if (c->client[i].fd >= 0)
			client_close(c, &c->client[i]);
	/* They use the volume, which is about to be closed. Their waits have bounds. */
	pthread_mutex_lock(&c->lock);
	while (c->workers)
		pthread_cond_wait(&c->cond, &c->lock);
	pthread_mutex_unlock(&c->lock);
	control_free(c);
}
