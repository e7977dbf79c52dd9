/* Coordination by a Redis server: see coord_own.h. The only file that knows hiredis.
 *
 * One thread per handle has two connections, one for requests and one that listens. It makes them
 * in steps that block, each with a bound; from then on they do not block, requests are written as
 * they come and answered in order, and the thread sleeps in poll(). Requests are scripts
 * (core/lua/), named by their digest, sent whole to a server that has lost them.
 *
 * Whatever goes wrong with either connection ends both: all that is under way is answered
 * -ENOTCONN, and they are made anew, after pauses that grow. A server that takes a connection and
 * does not answer is found by whoever waits (and by the renewal of the lease), who calls suspect().
 */
#include "core/coord_own.h"

#ifndef SOP_WITH_REDIS

static int redis_open(struct sop_coord *c, struct sop_err *e)
{
	(void)c;
	return sop_say(
		e, -EOPNOTSUPP, "redis: this build is without it; build with libhiredis-dev");
}

const struct sop_coord_backend sop_coord_redis = {.open = redis_open};

#else

#include <fcntl.h>
#include <hiredis/hiredis.h>
#ifdef SOP_WITH_REDIS_TLS
#include <hiredis/hiredis_ssl.h>
#endif
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "core/clock.h"
#include "gen/lua.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 2000
#define CERTIFICATES   "/etc/ssl/certs"

static const struct {
	const char *name, *text;
} scripts[] = {{"join", lua_join}, {"renew", lua_renew}, {"leave", lua_leave}, {"list", lua_list},
	{"tip", lua_tip}, {"reserve", lua_reserve}, {"publish", lua_publish}, {"pins", lua_pins},
	{"lock", lua_lock}, {"forget", lua_forget}, {"sync", lua_sync}, {"alone", lua_alone}};
#define SCRIPTS	       SOP_ARRAY_LEN(scripts)

struct redis {
	struct sop_coord *c;
	struct sop_coord_url url;
	char prefix[64]; /* of all keys */
	unsigned wait_ms, ping_ms;
	pthread_t thread;
	int wake;
	struct sop_lock lock; /* COORD */
	/* under lock */
	bool stop, open;	    /* open: requests are taken */
	char suspect[SOP_ERR_TEXT]; /* not "": the connections are no good, and why */
	struct sop_coord_request *queue, **queue_end;
	/* the thread's */
	redisContext *ask, *listen;
	struct sop_coord_request *flight, **flight_end; /* in the order of their answers */
	char *source[SCRIPTS];				/* whole */
	char digest[SCRIPTS][41];
	unsigned pause_ms;		 /* before the next try */
	uint64_t heard_ms, ping_sent_ms; /* of the listening connection; 0: no ping is under way */
#ifdef SOP_WITH_REDIS_TLS
	redisSSLContext *tls;
#endif
};

static uint64_t now_ms(void)
{
	return sop_clock_system.monotonic_ms(NULL);
}

static size_t script_of(enum sop_coord_op op)
{
	const char *name = sop_coord_op_script(op);
	size_t i = 0;

	while (strcmp(scripts[i].name, name) != 0)
		i++;
	return i;
}

/* ---- making connections: each step blocks for wait_ms at most ---- */

static void close_both(struct redis *s)
{
	if (s->ask)
		redisFree(s->ask);
	if (s->listen)
		redisFree(s->listen);
	s->ask = s->listen = NULL;
}

/* A command and its answer; NULL: there was none, and why is in why. An answer that is an error is
 * one: why has it. */
static redisReply *ask_once(redisContext *x, char *why, size_t size, int argc, const char **argv)
{
	redisReply *reply = redisCommandArgv(x, argc, argv, NULL);

	if (!reply) {
		snprintf(why, size, "%s",
			x->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK)
				? "does not answer"
				: x->errstr);
		return NULL;
	}
	if (reply->type != REDIS_REPLY_ERROR)
		return reply;
	snprintf(why, size, "%s: %.150s", argv[0], reply->str);
	freeReplyObject(reply);
	return NULL;
}

static bool tell(redisContext *x, char *why, size_t size, int argc, const char **argv)
{
	redisReply *reply = ask_once(x, why, size, argc, argv);

	if (!reply)
		return false;
	freeReplyObject(reply);
	return true;
}

static int read_password(char *out, size_t size, const char *path, struct sop_err *e)
{
	sop_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		return sop_fail(e, -errno, "password file %s", path);
	if (!S_ISREG(st.st_mode))
		return sop_say(e, -EINVAL, "password file %s: not a file", path);
	if (st.st_mode & 077)
		return sop_say(
			e, -EACCES, "password file %s: others may read it; chmod 600 it", path);
	n = read(fd, out, size - 1);
	if (n < 0)
		return sop_fail(e, -errno, "password file %s", path);
	out[n] = 0;
	out[strcspn(out, "\r\n")] = 0;
	if (!out[0])
		return sop_say(e, -EINVAL, "password file %s: its first line is empty", path);
	return 0;
}

static bool log_in(struct redis *s, redisContext *x, char *why, size_t size)
{
	const char *file = sop_coord_opts(s->c)->password_file;
	char password[256], db[16];
	const char *argv[] = {"AUTH", NULL, NULL};
	struct sop_err e = {0};
	int argc = 1;
	bool ok = true;

	snprintf(password, sizeof(password), "%s", s->url.password);
	if (file && read_password(password, sizeof(password), file, &e)) {
		snprintf(why, size, "%s", e.text);
		return false;
	}
	if (password[0]) {
		if (s->url.user[0])
			argv[argc++] = s->url.user;
		argv[argc++] = password;
		ok = tell(x, why, size, argc, argv);
	}
	explicit_bzero(password, sizeof(password));
	if (!ok || !s->url.db)
		return ok;
	snprintf(db, sizeof(db), "%d", s->url.db);
	argv[0] = "SELECT";
	argv[1] = db;
	return tell(x, why, size, 2, argv);
}

static bool secure(struct redis *s, redisContext *x, char *why, size_t size)
{
	if (s->url.scheme != SOP_COORD_TLS)
		return true;
#ifdef SOP_WITH_REDIS_TLS
	if (redisInitiateSSLWithContext(x, s->tls) == REDIS_OK)
		return true;
	snprintf(why, size, "TLS: %s", x->errstr);
#else
	(void)x;
	snprintf(why, size, "this build is without TLS");
#endif
	return false;
}

/* A connection, not logged in. */
static redisContext *reach(
	struct redis *s, const struct sop_coord_peer *peer, char *why, size_t size)
{
	struct timeval bound = {.tv_sec = s->wait_ms / 1000, .tv_usec = s->wait_ms % 1000 * 1000};
	redisContext *x = peer ? redisConnectWithTimeout(peer->host, peer->port, bound)
			       : redisConnectUnixWithTimeout(s->url.path, bound);

	if (!x) {
		snprintf(why, size, "no memory");
		return NULL;
	}
	if (x->err || redisSetTimeout(x, bound)) {
		snprintf(why, size, "%s", x->err ? x->errstr : "timeout cannot be set");
		redisFree(x);
		return NULL;
	}
	(void)fcntl(x->fd, F_SETFD, FD_CLOEXEC);
	return x;
}

/* Who is the master, as the first sentinel says that answers. */
static bool ask_sentinels(struct redis *s, struct sop_coord_peer *master, char *why, size_t size)
{
	const char *argv[] = {"SENTINEL", "get-master-addr-by-name", s->url.name};

	for (size_t i = 0; i < s->url.peers; i++) {
		redisContext *x = reach(s, &s->url.peer[i], why, size);
		redisReply *reply = x ? ask_once(x, why, size, 3, argv) : NULL;
		bool good = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
			    reply->element[0]->type == REDIS_REPLY_STRING &&
			    reply->element[1]->type == REDIS_REPLY_STRING &&
			    reply->element[0]->len < sizeof(master->host);

		if (good) {
			snprintf(master->host, sizeof(master->host), "%s", reply->element[0]->str);
			master->port = atoi(reply->element[1]->str);
		} else if (reply) {
			snprintf(why, size, "sentinel %.100s knows no %s", s->url.peer[i].host,
				s->url.name);
		}
		if (reply)
			freeReplyObject(reply);
		if (x)
			redisFree(x);
		if (good)
			return true;
	}
	return false;
}

/* A sentinel may be behind; a replica takes no requests. */
static bool is_master(redisContext *x, char *why, size_t size)
{
	const char *argv[] = {"ROLE"};
	redisReply *reply = ask_once(x, why, size, 1, argv);
	bool yes = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements &&
		   reply->element[0]->type == REDIS_REPLY_STRING &&
		   strcmp(reply->element[0]->str, "master") == 0;

	if (reply && !yes)
		snprintf(why, size, "what the sentinels name is no master yet");
	if (reply)
		freeReplyObject(reply);
	return yes;
}

static redisContext *reach_and_log_in(
	struct redis *s, const struct sop_coord_peer *peer, char *why, size_t size)
{
	redisContext *x = reach(s, peer, why, size);

	if (x && secure(s, x, why, size) && log_in(s, x, why, size))
		return x;
	if (x)
		redisFree(x);
	return NULL;
}

static bool load_scripts(struct redis *s, char *why, size_t size)
{
	for (size_t i = 0; i < SCRIPTS; i++)
		if (redisAppendCommand(s->ask, "SCRIPT LOAD %s", s->source[i]) != REDIS_OK)
			return snprintf(why, size, "%s", s->ask->errstr), false;
	for (size_t i = 0; i < SCRIPTS; i++) {
		void *got = NULL;
		redisReply *reply;
		bool ok;

		if (redisGetReply(s->ask, &got) != REDIS_OK) {
			snprintf(why, size, "%s",
				errno == EAGAIN ? "does not answer" : s->ask->errstr);
			return false;
		}
		reply = got;
		ok = reply->type == REDIS_REPLY_STRING && reply->len == sizeof(s->digest[i]) - 1;
		if (ok)
			memcpy(s->digest[i], reply->str, sizeof(s->digest[i]));
		else
			snprintf(why, size, "script %s: %.150s", scripts[i].name,
				reply->type == REDIS_REPLY_ERROR ? reply->str : "not taken");
		freeReplyObject(reply);
		if (!ok)
			return false;
	}
	return true;
}

static void unblock(redisContext *x)
{
	(void)fcntl(x->fd, F_SETFL, fcntl(x->fd, F_GETFL) | O_NONBLOCK);
	x->flags &= ~REDIS_BLOCK;
}

static bool make_both(struct redis *s, char *why, size_t size)
{
	struct sop_coord_peer master, *peer = &s->url.peer[0];
	char channel[sizeof(s->prefix) + 2];
	const char *subscribe[] = {"SUBSCRIBE", channel};

	if (s->url.scheme == SOP_COORD_UNIX)
		peer = NULL;
	if (s->url.scheme == SOP_COORD_SENTINEL) {
		if (!ask_sentinels(s, &master, why, size))
			return false;
		peer = &master;
	}
	snprintf(channel, sizeof(channel), "%sm", s->prefix);
	s->listen = reach_and_log_in(s, peer, why, size);
	if (!s->listen || !tell(s->listen, why, size, 2, subscribe))
		return false;
	s->ask = reach_and_log_in(s, peer, why, size);
	if (!s->ask || (s->url.scheme == SOP_COORD_SENTINEL && !is_master(s->ask, why, size)) ||
		!load_scripts(s, why, size))
		return false;
	unblock(s->ask);
	unblock(s->listen);
	return true;
}

/* ---- requests ---- */

static void push(struct sop_coord_request ***end, struct sop_coord_request *r)
{
	r->next = NULL;
	**end = r;
	*end = &r->next;
}

static void wake(struct redis *s)
{
	const uint64_t one = 1;

	/* Fails only when the counter is full, and then the thread is being woken already. */
	(void)!write(s->wake, &one, sizeof(one));
}

static void refuse(struct sop_coord_request *r)
{
	r->rc = -ENOTCONN;
	sop_coord_answer(r);
}

static void redis_submit(struct sop_coord *c, struct sop_coord_request *r)
{
	struct redis *s = sop_coord_data(c);
	bool taken;

	r->step = 0;
	sop_lock(&s->lock);
	taken = s->open;
	if (taken)
		push(&s->queue_end, r);
	sop_unlock(&s->lock);
	if (taken)
		wake(s);
	else
		refuse(r);
}

static void redis_suspect(struct sop_coord *c, const char *why)
{
	struct redis *s = sop_coord_data(c);

	sop_lock(&s->lock);
	if (s->open)
		snprintf(s->suspect, sizeof(s->suspect), "%s", why);
	sop_unlock(&s->lock);
	wake(s);
}

/* Into the output buffer. False: no memory. */
static bool write_request(struct redis *s, struct sop_coord_request *r)
{
	struct sop_coord_words w = {0};
	size_t script = script_of(r->op);
	const char **argv;
	bool ok;

	sop_coord_words_add(&w, r->step ? "EVAL" : "EVALSHA");
	sop_coord_words_add(&w, r->step ? s->source[script] : s->digest[script]);
	sop_coord_words_add(&w, "1");
	sop_coord_words_add(&w, s->prefix);
	sop_coord_encode(&w, r);
	argv = reallocarray(NULL, w.count + 1, sizeof(*argv));
	ok = !w.bad && argv;
	for (size_t i = 0; ok && i < w.count; i++)
		argv[i] = w.buf + w.at[i];
	ok = ok && redisAppendCommandArgv(s->ask, (int)w.count, argv, NULL) == REDIS_OK;
	free(argv);
	sop_coord_words_free(&w);
	return ok;
}

static void take_queue(struct redis *s)
{
	struct sop_coord_request *r, *next;

	sop_lock(&s->lock);
	r = s->queue;
	s->queue = NULL;
	s->queue_end = &s->queue;
	sop_unlock(&s->lock);
	for (; r; r = next) {
		next = r->next;
		if (!write_request(s, r)) {
			r->rc = -ENOMEM;
			sop_coord_answer(r);
			continue;
		}
		push(&s->flight_end, r);
	}
}

/* Errors that are the server's state, not the request's: another may be better, or the same later.
 */
static bool server_is_unfit(const char *text)
{
	static const char *const words[] = {"READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS",
		"MISCONF", "OOM", "BUSY", "NOAUTH", "NOPERM", "WRONGPASS", "CLUSTERDOWN", "MOVED",
		"UNKILLABLE"};

	for (size_t i = 0; i < SOP_ARRAY_LEN(words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

static void decode(struct sop_coord_request *r, const redisReply *reply)
{
	const char **text = reallocarray(NULL, reply->elements + 1, sizeof(*text));
	size_t n = 0;

	if (!text) {
		r->rc = -ENOMEM;
		return;
	}
	while (reply->type == REDIS_REPLY_ARRAY && n < reply->elements &&
		reply->element[n]->type == REDIS_REPLY_STRING) {
		text[n] = reply->element[n]->str;
		n++;
	}
	r->rc = reply->type == REDIS_REPLY_ARRAY && n == reply->elements
			? sop_coord_decode(r, text, n)
			: -EIO;
	if (r->rc == -EIO)
		snprintf(r->trouble, sizeof(r->trouble), "script %s: an answer that cannot be read",
			sop_coord_op_script(r->op));
	free(text);
}

/* The answer of the oldest. False: the server is no good, why says what. */
static bool take_answer(struct redis *s, const redisReply *reply, char *why, size_t size)
{
	struct sop_coord_request *r = s->flight;

	if (!r) {
		snprintf(why, size, "an answer that nobody asked for");
		return false;
	}
	if (reply->type == REDIS_REPLY_ERROR && server_is_unfit(reply->str)) {
		snprintf(why, size, "%.150s", reply->str);
		return false;
	}
	s->flight = r->next;
	if (!s->flight)
		s->flight_end = &s->flight;
	if (reply->type == REDIS_REPLY_ERROR && !r->step &&
		strncmp(reply->str, "NOSCRIPT", 8) == 0) {
		r->step = 1;
		if (write_request(s, r)) {
			push(&s->flight_end, r);
			return true;
		}
		r->rc = -ENOMEM;
	} else if (reply->type == REDIS_REPLY_ERROR) {
		r->rc = -EIO;
		snprintf(r->trouble, sizeof(r->trouble), "script %s: %s",
			sop_coord_op_script(r->op), reply->str);
	} else {
		decode(r, reply);
	}
	if (r->op == SOP_COORD_JOIN && !r->rc)
		s->pause_ms = BACKOFF_MIN_MS;
	sop_coord_answer(r);
	return true;
}

static bool take_message(struct redis *s, const redisReply *reply, char *why, size_t size)
{
	uint64_t tip, next, object;

	(void)why;
	(void)size;
	s->heard_ms = now_ms();
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
		reply->element[2]->type != REDIS_REPLY_STRING) {
		s->ping_sent_ms = 0; /* the answer to a ping */
		return true;
	}
	switch (sop_coord_decode_message(reply->element[2]->str, &tip, &next, &object)) {
	case 't':
		sop_coord_heard_tip(s->c, tip, next);
		break;
	case 'u':
		sop_coord_heard_unlocked(s->c, object);
		break;
	case 'y':
		sop_coord_heard_settled(s->c);
		break;
	default:
		break; /* of a later version */
	}
	return true;
}

/* ---- the thread ---- */

static bool read_all(struct redis *s, redisContext *x,
	bool (*take)(struct redis *s, const redisReply *reply, char *why, size_t size), char *why,
	size_t size)
{
	void *got = NULL;

	if (redisBufferRead(x) != REDIS_OK) {
		snprintf(why, size, "%s", x->errstr);
		return false;
	}
	for (;;) {
		bool ok;

		if (redisGetReplyFromReader(x, &got) != REDIS_OK) {
			snprintf(why, size, "%s", x->errstr);
			return false;
		}
		if (!got)
			return true;
		ok = take(s, got, why, size);
		freeReplyObject(got);
		if (!ok)
			return false;
	}
}

static bool write_all(redisContext *x, bool *more, char *why, size_t size)
{
	int done = 0;

	if (redisBufferWrite(x, &done) != REDIS_OK) {
		snprintf(why, size, "%s", x->errstr);
		return false;
	}
	*more = !done;
	return true;
}

/* The listening connection may be cut where nobody says so. */
static bool ping(struct redis *s, char *why, size_t size)
{
	uint64_t now = now_ms();

	if (s->ping_sent_ms && now - s->ping_sent_ms >= s->wait_ms) {
		snprintf(why, size, "does not answer");
		return false;
	}
	if (s->ping_sent_ms || now - s->heard_ms < s->ping_ms)
		return true;
	s->ping_sent_ms = now;
	if (redisAppendCommand(s->listen, "PING") != REDIS_OK) {
		snprintf(why, size, "%s", s->listen->errstr);
		return false;
	}
	return true;
}

static bool is_suspect(struct redis *s, char *why, size_t size)
{
	SOP_LOCK_GUARD(&s->lock);
	if (s->suspect[0])
		snprintf(why, size, "%s", s->suspect);
	return s->suspect[0] != 0;
}

static bool stopping(struct redis *s)
{
	SOP_LOCK_GUARD(&s->lock);
	return s->stop;
}

static void clear_wake(struct redis *s)
{
	uint64_t count;

	(void)!read(s->wake, &count, sizeof(count));
}

/* Until the connections end; why says how. */
static void serve(struct redis *s, char *why, size_t size)
{
	bool more = false, listen_more = false;

	s->heard_ms = now_ms();
	s->ping_sent_ms = 0;
	for (;;) {
		struct pollfd p[3] = {{.fd = s->wake, .events = POLLIN},
			{.fd = s->ask->fd, .events = (short)(POLLIN | (more ? POLLOUT : 0))},
			{.fd = s->listen->fd,
				.events = (short)(POLLIN | (listen_more ? POLLOUT : 0))}};

		if (poll(p, 3, (int)s->ping_ms) < 0 && errno != EINTR) {
			snprintf(why, size, "poll: %s", strerror(errno));
			return;
		}
		if (p[0].revents)
			clear_wake(s);
		if (stopping(s) || is_suspect(s, why, size))
			return;
		take_queue(s);
		if (!ping(s, why, size) || !write_all(s->ask, &more, why, size) ||
			!write_all(s->listen, &listen_more, why, size))
			return;
		if (p[1].revents & ~POLLOUT && !read_all(s, s->ask, take_answer, why, size))
			return;
		if (p[2].revents & ~POLLOUT && !read_all(s, s->listen, take_message, why, size))
			return;
		/* An answer may have asked for more. */
		if (!write_all(s->ask, &more, why, size))
			return;
	}
}

/* Nothing is taken any more, and what was is answered. */
static void drop(struct redis *s)
{
	struct sop_coord_request *list[2], *next;

	sop_lock(&s->lock);
	s->open = false;
	s->suspect[0] = 0;
	list[0] = s->flight;
	list[1] = s->queue;
	s->queue = s->flight = NULL;
	s->queue_end = &s->queue;
	s->flight_end = &s->flight;
	sop_unlock(&s->lock);
	close_both(s);
	sop_coord_cut(s->c);
	for (size_t i = 0; i < 2; i++)
		for (struct sop_coord_request *r = list[i]; r; r = next) {
			next = r->next;
			refuse(r);
		}
}

static void pause_before_next(struct redis *s)
{
	uint16_t jitter;
	uint64_t until;

	sop_random(&jitter, sizeof(jitter));
	until = now_ms() + s->pause_ms / 2 + (uint64_t)jitter * s->pause_ms / 2 / UINT16_MAX;
	s->pause_ms = SOP_MIN(s->pause_ms * 2, BACKOFF_MAX_MS);
	for (uint64_t now = now_ms(); now < until && !stopping(s); now = now_ms()) {
		struct pollfd p = {.fd = s->wake, .events = POLLIN};

		if (poll(&p, 1, (int)(until - now)) > 0)
			clear_wake(s);
	}
}

static void *run(void *arg)
{
	struct redis *s = arg;
	char server[SOP_COORD_TEXT];
	sigset_t pipe;

	/* hiredis writes to connections that may be closed. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, NULL);
	sop_coord_server(s->c, server);
	while (!stopping(s)) {
		char why[SOP_ERR_TEXT] = "";

		if (!make_both(s, why, sizeof(why))) {
			close_both(s);
			sop_coord_away(s->c, "%s: %.300s", server, why);
			pause_before_next(s);
			continue;
		}
		sop_lock(&s->lock);
		s->open = true;
		sop_unlock(&s->lock);
		sop_coord_connected(s->c);
		serve(s, why, sizeof(why));
		drop(s);
		/* A connection that broke is made again at once; a server that is unfit is given
		 * time. */
		if (!stopping(s) && s->pause_ms > BACKOFF_MIN_MS) {
			sop_coord_away(s->c, "%s: %.300s", server, why);
			pause_before_next(s);
		} else {
			s->pause_ms = BACKOFF_MIN_MS * 2;
		}
	}
	return NULL;
}

/* ---- open and close ---- */

static void release(struct redis *s)
{
	for (size_t i = 0; i < SCRIPTS; i++)
		free(s->source[i]);
#ifdef SOP_WITH_REDIS_TLS
	if (s->tls)
		redisFreeSSLContext(s->tls);
#endif
	if (s->wake >= 0)
		close(s->wake);
	sop_lock_release(&s->lock);
	explicit_bzero(&s->url, sizeof(s->url));
	free(s);
}

static int make_sources(struct redis *s)
{
	for (size_t i = 0; i < SCRIPTS; i++)
		if (asprintf(&s->source[i], "%s%s", lua_common, scripts[i].text) < 0) {
			s->source[i] = NULL;
			return -ENOMEM;
		}
	return 0;
}

static int prepare_tls(struct redis *s, struct sop_err *e)
{
	if (s->url.scheme != SOP_COORD_TLS)
		return 0;
#ifdef SOP_WITH_REDIS_TLS
	{
		redisSSLContextError bad = REDIS_SSL_CTX_NONE;

		const char *ca = s->url.ca[0] ? s->url.ca : NULL;

		redisInitOpenSSL();
		s->tls =
			redisCreateSSLContext(ca, ca ? NULL : CERTIFICATES, NULL, NULL, NULL, &bad);
		if (!s->tls)
			return sop_say(e, -EINVAL, "redis: TLS with the certificates in %s: %s",
				ca ? ca : CERTIFICATES, redisSSLContextGetError(bad));
	}
	return 0;
#else
	(void)s;
	return sop_say(e, -EOPNOTSUPP,
		"redis: this build is without TLS; use redis:// through a tunnel, or build with "
		"libhiredis_ssl");
#endif
}

/* What can be told wrong before anything is tried. */
static int check(struct redis *s, struct sop_err *e)
{
	const char *file = sop_coord_opts(s->c)->password_file;
	char password[256];
	int rc = file ? read_password(password, sizeof(password), file, e) : 0;

	explicit_bzero(password, sizeof(password));
	return rc ? rc : prepare_tls(s, e);
}

static int redis_open(struct sop_coord *c, struct sop_err *e)
{
	const struct sop_coord_options *opt = sop_coord_opts(c);
	struct redis *s = calloc(1, sizeof(*s));
	char uuid[SOP_UUID_TEXT];
	int rc;

	if (!s)
		return sop_fail(e, -ENOMEM, "redis");
	s->c = c;
	s->wait_ms = opt->wait_ms;
	s->ping_ms = SOP_MAX(opt->lease_ms * 3 / 10, 50U);
	s->pause_ms = BACKOFF_MIN_MS;
	s->queue_end = &s->queue;
	s->flight_end = &s->flight;
	sop_lock_init(&s->lock, SOP_RANK_COORD, "redis");
	snprintf(s->prefix, sizeof(s->prefix), "sopfs:{%s}:", sop_uuid_format(uuid, &opt->volume));
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = s->wake < 0 ? sop_fail(e, -errno, "redis") : sop_coord_url_parse(&s->url, opt->url, e);
	if (!rc)
		rc = check(s, e);
	if (!rc && make_sources(s))
		rc = sop_fail(e, -ENOMEM, "redis");
	if (!rc) {
		sop_coord_set_data(c, s);
		rc = pthread_create(&s->thread, NULL, run, s);
		if (rc)
			rc = sop_fail(e, -rc, "redis: thread");
	}
	if (rc)
		release(s);
	return rc;
}

static void redis_close(struct sop_coord *c)
{
	struct redis *s = sop_coord_data(c);

	sop_lock(&s->lock);
	s->stop = true;
	sop_unlock(&s->lock);
	wake(s);
	pthread_join(s->thread, NULL);
	release(s);
}

const struct sop_coord_backend sop_coord_redis = {
	.open = redis_open, .close = redis_close, .submit = redis_submit, .suspect = redis_suspect};

#endif
