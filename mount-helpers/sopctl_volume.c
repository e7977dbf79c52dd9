/* Finding a volume by whatever name its owner uses, and talking to its daemon.
 *
 * Mounted volumes are found by their control sockets alone. Names are compared as text first, so
 * that nothing touches a mount or a disk that hangs; only a path that no daemon knows is looked at,
 * and that with a bound. */
#include "mount-helpers/sopctl.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "core/ctlsock.h"

#define HELLO_MS   700 /* for all of them */
#define LINE_MS	   200 /* for the rest of a line that has begun */
#define REALPATH_S 2
#define ANSWER_MAX (64u << 20)

/* ---- texts -------------------------------------------------------------------------------------
 */

char *sopctl_clean(char *text)
{
	for (char *p = text; *p; p++)
		if (((unsigned char)*p < ' ' && *p != '\n') || *p == 127)
			*p = '?';
	return text;
}

char *sopctl_absolute(const char *path)
{
	sop_autofree char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
	sop_autofree char *all = NULL;
	char *out, *to;

	if (asprintf(&all, "%s/%s", cwd ? cwd : "", path) < 0) {
		all = NULL;
		return NULL;
	}
	out = to = malloc(strlen(all) + 2);
	if (!out)
		return NULL;
	for (const char *p = all; *p;) {
		size_t len;

		p += strspn(p, "/");
		len = strcspn(p, "/");
		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (to > out && *--to != '/')
				;
		} else if (len && !(len == 1 && *p == '.')) {
			*to++ = '/';
			memcpy(to, p, len);
			to += len;
		}
		p += len;
	}
	if (to == out)
		*to++ = '/';
	*to = '\0';
	return out;
}

struct resolving {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	char *path, *out;
	bool done, left;
};

static void resolving_free(struct resolving *r)
{
	free(r->path);
	free(r->out);
	free(r);
}

static void *resolve(void *arg)
{
	struct resolving *r = arg;
	char *out = realpath(r->path, NULL);
	bool left;

	pthread_mutex_lock(&r->lock);
	r->out = out;
	r->done = true;
	left = r->left;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
	if (left)
		resolving_free(r);
	return NULL;
}

char *sopctl_realpath(const char *path)
{
	struct resolving *r = calloc(1, sizeof(*r));
	struct timespec until;
	pthread_t thread;
	char *out = NULL;
	bool done;
	int rc = 0;

	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->cond, NULL);
	r->path = strdup(path);
	if (!r->path || pthread_create(&thread, NULL, resolve, r)) {
		resolving_free(r);
		return NULL;
	}
	pthread_detach(thread);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += REALPATH_S;
	pthread_mutex_lock(&r->lock);
	while (!r->done && !rc)
		rc = pthread_cond_timedwait(&r->cond, &r->lock, &until);
	done = r->done;
	r->left = !done;
	if (done) {
		out = r->out;
		r->out = NULL;
	}
	pthread_mutex_unlock(&r->lock);
	if (done)
		resolving_free(r);
	return out;
}

/* ---- conversation ------------------------------------------------------------------------------
 */

static int64_t now_ms(void)
{
	return (int64_t)sop_clock_system.monotonic_ms(NULL);
}

void sopctl_close(struct sopctl_volume *v)
{
	if (v->fd >= 0)
		close(v->fd);
	json_decref(v->hello);
	free(v->in);
	*v = (struct sopctl_volume){.fd = -1};
}

const char *sopctl_name(const struct sopctl_volume *v)
{
	const char *name = sopctl_text(v->hello, "name");

	return name[0] ? name : sopctl_text(v->hello, "uuid");
}

int sopctl_send(struct sopctl_volume *v, json_t *request)
{
	sop_autofree char *line = NULL;
	size_t len, at = 0;

	if (request)
		json_object_set_new(request, "version", json_integer(SOP_CTL_VERSION));
	line = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!line)
		return -ENOMEM;
	len = strlen(line);
	line[len++] = '\n'; /* in place of the NUL */
	while (at < len) {
		ssize_t n = send(v->fd, line + at, len - at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	return 0;
}

static int read_more(struct sopctl_volume *v, int wait_ms)
{
	struct pollfd p = {.fd = v->fd, .events = POLLIN};
	char *grown;
	ssize_t n;
	int rc = poll(&p, 1, wait_ms);

	if (rc <= 0)
		return rc < 0 && errno != EINTR ? -errno : 0;
	if (v->in_len > ANSWER_MAX)
		return -EMSGSIZE;
	grown = realloc(v->in, v->in_len + 65536);
	if (!grown)
		return -ENOMEM;
	v->in = grown;
	n = recv(v->fd, v->in + v->in_len, 65536, 0);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (!n)
		return -ECONNRESET;
	v->in_len += (size_t)n;
	return 1;
}

int sopctl_line(struct sopctl_volume *v, json_t **out, int wait_ms)
{
	int64_t until = wait_ms < 0 ? INT64_MAX : now_ms() + wait_ms;
	size_t seen = 0;

	for (;;) {
		char *end = v->in_len > seen ? memchr(v->in + seen, '\n', v->in_len - seen) : NULL;
		int64_t left;
		int rc;

		if (end) {
			size_t len = (size_t)(end - v->in) + 1;

			*out = json_loadb(v->in, len, 0, NULL);
			memmove(v->in, v->in + len, v->in_len - len);
			v->in_len -= len;
			return *out ? 1 : -EPROTO;
		}
		seen = v->in_len;
		left = until - now_ms();
		if (left <= 0)
			return 0;
		rc = read_more(v, wait_ms < 0 ? -1 : (int)left);
		if (rc < 0)
			return rc;
	}
}

/* "SOP_EDISKS" as the daemon wrote it. */
static int exit_of_name(const char *code)
{
	static const int codes[] = {-EPERM, -EACCES, SOP_EINUSE, SOP_EDISKS};

	for (size_t i = 0; i < SOP_ARRAY_LEN(codes); i++)
		if (strcmp(code, sop_err_name(codes[i])) == 0)
			return sopctl_exit_of(codes[i]);
	return SOPCTL_FAILURE;
}

static int exchange(
	struct sopctl_volume *v, json_t *request, int wait_ms, json_t **answer, int *why)
{
	int rc = sopctl_send(v, request);

	*answer = NULL;
	if (!rc)
		rc = sopctl_line(v, answer, wait_ms);
	*why = rc;
	return rc == 1 ? 0 : -1;
}

json_t *sopctl_ask(struct sopctl_volume *v, json_t *request, int wait_ms, int *code)
{
	json_t *answer, *result;
	int why;

	*code = SOPCTL_OK;
	if (exchange(v, request, wait_ms, &answer, &why)) {
		bool gone = why == -ECONNRESET || why == -EPIPE;

		*code = sopctl_fail(SOPCTL_FAILURE, "%s: the daemon %s", sopctl_name(v),
			!why   ? "does not answer"
			: gone ? "has ended"
			       : sop_err_text(why));
		return NULL;
	}
	if (!json_is_true(json_object_get(answer, "ok"))) {
		*code = sopctl_fail(exit_of_name(sopctl_text(answer, "code")), "%s: %s",
			sopctl_name(v), sopctl_text(answer, "message"));
		json_decref(answer);
		return NULL;
	}
	result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	if (!result)
		*code = sopctl_fail(
			SOPCTL_FAILURE, "%s: an answer without a result", sopctl_name(v));
	return result;
}

int sopctl_lines(struct sopctl_volume *v, json_t *request, int wait_ms,
	bool (*fn)(void *arg, json_t *x), void *arg)
{
	if (sopctl_send(v, request))
		return sopctl_fail(SOPCTL_FAILURE, "%s: the daemon has ended", sopctl_name(v));
	for (;;) {
		json_t *x;
		bool last, more;
		int rc = sopctl_line(v, &x, wait_ms);

		if (rc == -ECONNRESET)
			return sopctl_fail(
				SOPCTL_FAILURE, "%s: the daemon has ended", sopctl_name(v));
		if (rc <= 0)
			return sopctl_fail(SOPCTL_FAILURE, "%s: the daemon %s", sopctl_name(v),
				rc ? sop_err_text(rc) : "does not answer");
		last = json_object_get(x, "ok") != NULL;
		rc = SOPCTL_OK;
		if (last && !json_is_true(json_object_get(x, "ok")))
			rc = sopctl_fail(exit_of_name(sopctl_text(x, "code")), "%s: %s",
				sopctl_name(v), sopctl_text(x, "message"));
		more = !last && fn(arg, x);
		json_decref(x);
		if (!more)
			return last ? rc : SOPCTL_FAILURE;
	}
}

/* ---- finding -----------------------------------------------------------------------------------
 */

struct found {
	struct sopctl_volume *all;
	size_t n;
	bool refused;	  /* some daemon does not talk to this user */
	size_t silent;	  /* daemons that do not answer */
	char (*who)[256]; /* names of their sockets */
};

/* One that may answer. */
struct greeted {
	struct sopctl_volume v;
	char name[256];
};

/* Connected, and asked who it is. False: nobody is there. */
static bool greet(struct greeted *g, int folder, const char *name, bool *refused)
{
	struct sockaddr_un address;

	snprintf(g->name, sizeof(g->name), "%s", name);
	g->v = (struct sopctl_volume){
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
	if (g->v.fd < 0 || sop_ctl_address(&address, folder, name))
		return false;
	if (connect(g->v.fd, (const struct sockaddr *)&address, sizeof(address))) {
		*refused |= errno == EACCES;
		return errno == EAGAIN; /* its queue is full: it does not answer */
	}
	fcntl(g->v.fd, F_SETFL, 0);
	return !sopctl_send(&g->v, json_pack("{s:s}", "verb", "hello"));
}

static void take_hello(struct found *f, struct greeted *g)
{
	struct sopctl_volume *grown;
	json_t *answer = NULL, *result;

	if (sopctl_line(&g->v, &answer, LINE_MS) == 1) {
		result = json_object_get(answer, "result");
		f->refused |= strcmp(sopctl_text(answer, "code"), "EPERM") == 0;
		if (json_is_string(json_object_get(result, "uuid")))
			g->v.hello = json_incref(result);
	}
	json_decref(answer);
	grown = g->v.hello ? realloc(f->all, (f->n + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		sopctl_close(&g->v);
		return;
	}
	f->all = grown;
	f->all[f->n++] = g->v;
	g->v = (struct sopctl_volume){.fd = -1};
}

/* All at a time: one that hangs must not keep the others waiting. */
static void take_hellos(struct found *f, struct greeted *g, size_t n)
{
	sop_autofree struct pollfd *p = calloc(n ? n : 1, sizeof(*p));
	int64_t until = now_ms() + HELLO_MS, left;
	size_t waiting = n;

	while (p && waiting && (left = until - now_ms()) > 0) {
		for (size_t i = 0; i < n; i++)
			p[i] = (struct pollfd){.fd = g[i].v.fd, .events = POLLIN};
		if (poll(p, n, (int)left) < 0 && errno != EINTR)
			break;
		for (size_t i = 0; i < n; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			take_hello(f, &g[i]);
			waiting--;
		}
	}
	for (size_t i = 0; i < n; i++) {
		char(*grown)[256] =
			g[i].v.fd < 0 ? NULL : realloc(f->who, (f->silent + 1) * sizeof(*grown));

		sopctl_close(&g[i].v);
		if (!grown)
			continue;
		f->who = grown;
		memcpy(f->who[f->silent++], g[i].name, sizeof(*grown));
	}
}

static void tell_silent(const struct found *f)
{
	for (size_t i = 0; i < f->silent; i++) {
		const char *name = f->who[i], *pid = strchr(name, '.');

		sopctl_fail(0, "volume %.*s: its daemon (pid %.*s) does not answer",
			(int)strcspn(name, "."), name, pid ? (int)strcspn(pid + 1, ".") : 0,
			pid ? pid + 1 : "");
	}
}

static bool is_socket_name(const char *name)
{
	size_t len = strlen(name), suffix = sizeof(SOP_CTL_SUFFIX) - 1;

	return name[0] != '.' && len > suffix && strcmp(name + len - suffix, SOP_CTL_SUFFIX) == 0;
}

static void look_in(struct found *f, int folder)
{
	int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct greeted *all = NULL, *grown;
	struct dirent *d;
	size_t n = 0;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return;
	}
	while ((d = readdir(dir))) {
		if (!is_socket_name(d->d_name))
			continue;
		grown = realloc(all, (n + 1) * sizeof(*grown));
		if (!grown)
			break;
		all = grown;
		if (greet(&all[n], folder, d->d_name, &f->refused))
			n++;
		else
			sopctl_close(&all[n].v);
	}
	closedir(dir);
	take_hellos(f, all, n);
	free(all);
}

static void look(struct found *f)
{
	char path[4096];

	*f = (struct found){0};
	for (unsigned i = 0; sop_ctl_folder(path, sizeof(path), i); i++) {
		struct sop_err e = {0};
		int folder = sop_ctl_folder_open(path, false, &e);

		if (folder == -ENOENT || folder == -ENOTDIR)
			continue;
		if (folder < 0) {
			sopctl_fail(0, "%s", e.text);
			continue;
		}
		look_in(f, folder);
		close(folder);
	}
}

size_t sopctl_mounted(struct sopctl_volume **out, size_t *silent, bool *refused)
{
	struct found f;

	look(&f);
	tell_silent(&f);
	free(f.who);
	*out = f.all;
	*silent = f.silent;
	*refused = f.refused;
	return f.n;
}

void sopctl_mounted_free(struct sopctl_volume *all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sopctl_close(&all[i]);
	free(all);
}

static const char *mount_point(const struct sopctl_volume *v)
{
	return sopctl_text(json_object_get(v->hello, "mount"), "point");
}

static bool is_path(const struct sopctl_volume *v, const char *path, bool inside)
{
	const char *point = mount_point(v);
	size_t len = strlen(point), i;
	const json_t *disk;

	if (strcmp(path, point) == 0)
		return true;
	if (inside && len && strncmp(path, point, len) == 0 && path[len] == '/')
		return true;
	json_array_foreach(json_object_get(v->hello, "disks"), i,
		disk) if (!inside && strcmp(path, json_string_value(disk)) == 0) return true;
	return false;
}

static bool is_uuid(const struct sopctl_volume *v, const char *name)
{
	size_t len = strlen(name);

	return len >= 4 && strncasecmp(sopctl_text(v->hello, "uuid"), name, len) == 0;
}

enum by { BY_LABEL, BY_UUID, BY_PATH };

/* How many are meant; the last of them is *at. */
static size_t matches(const struct found *f, const char *name, enum by by, bool inside, size_t *at)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++) {
		const struct sopctl_volume *v = &f->all[i];
		bool yes = by == BY_LABEL  ? strcmp(sopctl_text(v->hello, "name"), name) == 0
			   : by == BY_UUID ? is_uuid(v, name)
					   : is_path(v, name, inside);

		if (!yes)
			continue;
		/* Below several mounts: the innermost. */
		if (n && by == BY_PATH && inside) {
			if (strlen(mount_point(v)) > strlen(mount_point(&f->all[*at])))
				*at = i;
			continue;
		}
		*at = i;
		n++;
	}
	return n;
}

static size_t search(const struct found *f, const char *name, bool inside, size_t *at)
{
	sop_autofree char *plain = sopctl_absolute(name), *real = NULL;
	size_t n = 0;

	if (!inside && !strchr(name, '/'))
		n = matches(f, name, BY_LABEL, false, at);
	if (!n && plain)
		n = matches(f, plain, BY_PATH, inside, at);
	if (!n && !inside && !strchr(name, '/'))
		n = matches(f, name, BY_UUID, false, at);
	if (n || !f->n)
		return n;
	real = sopctl_realpath(name);
	return real ? matches(f, real, BY_PATH, inside, at) : 0;
}

int sopctl_find(struct sopctl_volume *out, const char *name, bool inside, bool say)
{
	struct found f;
	size_t at = 0, n;
	int rc = SOPCTL_OK;

	*out = (struct sopctl_volume){.fd = -1};
	look(&f);
	n = search(&f, name, inside, &at);
	if (n == 1) {
		*out = f.all[at];
		f.all[at] = (struct sopctl_volume){.fd = -1};
	} else if (n) {
		rc = sopctl_fail(SOPCTL_USAGE,
			"%s: %zu mounted volumes go by this name; give the mount point", name, n);
	} else if (f.silent) {
		tell_silent(&f);
		rc = sopctl_fail(SOPCTL_FAILURE, "%s: is none of those that answer", name);
	} else if (!say) {
		rc = SOPCTL_NO_VOLUME;
	} else if (f.refused) {
		rc = sopctl_fail(SOPCTL_PERMISSION,
			"%s: no mounted volume of this user's; ask as root, or as the user who "
			"mounted it",
			name);
	} else {
		rc = sopctl_fail(SOPCTL_NO_VOLUME,
			"%s: no mounted volume goes by this name; 'sopctl status' lists them",
			name);
	}
	sopctl_mounted_free(f.all, f.n);
	free(f.who);
	return rc;
}

char *sopctl_folder(const char *name, int *code)
{
	struct sopctl_volume v;
	struct stat st;
	char *out;

	*code = SOPCTL_OK;
	if (strchr(name, '/') || stat(name, &st) == 0) {
		out = strdup(name);
	} else {
		*code = sopctl_find(&v, name, false, true);
		out = *code ? NULL : strdup(mount_point(&v));
		sopctl_close(&v);
	}
	if (!out && !*code)
		*code = sopctl_fail(SOPCTL_FAILURE, "out of memory");
	return out;
}
