#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#include "core/members_own.h"

/* One member folder: its path, its lock and the claim in it, and the errands that open and lock it.
 */

/* --- paths, folders, locks ------------------------------------------------- */

static bool ends_in(const char *path, const char *end)
{
	size_t len = strlen(path), n = strlen(end);

	return len >= n && strcmp(path + len - n, end) == 0;
}

/* Symbolic links stay: an administrator uses them as stable names. Only what cannot be cleaned up
 * as text is resolved; the last part need not be there yet. */
static int resolve(char *out, const char *path)
{
	const char *slash = strrchr(path, '/');
	sop_autofree char *parent = NULL;
	char folder[PATH_MAX];

	if (realpath(path, out))
		return 0;
	if (errno != ENOENT || !path[0] || ends_in(path, "/") || ends_in(path, "."))
		return -errno;
	parent = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	if (!parent)
		return -ENOMEM;
	if (!realpath(parent, folder))
		return -errno;
	return snprintf(out, PATH_MAX, "%s/%s", folder, slash ? slash + 1 : path) < PATH_MAX
		       ? 0
		       : -ENAMETOOLONG;
}

int sop_members_path(char *out, const char *path, bool real)
{
	char resolved[PATH_MAX];
	size_t n = 0;

	if (real && (path[0] != '/' || strstr(path, "/../") || strstr(path, "/./") ||
			    ends_in(path, "/..") || ends_in(path, "/."))) {
		int rc = resolve(resolved, path);

		if (rc)
			return rc;
		path = resolved;
	}
	for (const char *p = path; *p; p++) {
		if (*p == '/' && n && out[n - 1] == '/')
			continue;
		if (n + 1 >= SOP_MEMBER_PATH)
			return -ENAMETOOLONG;
		out[n++] = *p;
	}
	if (n > 1 && out[n - 1] == '/')
		n--;
	out[n] = '\0';
	return n ? 0 : -ENOENT;
}

int sop_members_open_folder(struct sop_disk **out, const char *path,
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e),
	void *ctx, struct sop_err *e)
{
	return open_disk ? open_disk(ctx, out, path, e) : sop_disk_open_folder(out, path, e);
}

static void read_boot_id(char *out, size_t size)
{
	sop_autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	out[n < 0 ? 0 : n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	if (!out[0])
		snprintf(out, size, "unknown");
}

void sop_members_claim(char *claim, size_t size, const struct sop_clock *clock)
{
	time_t now = (time_t)(clock->wall_ns(clock->ctx) / 1000000000u);
	char host[65] = "", boot[40], when[32] = "";
	struct tm tm;

	if (gethostname(host, sizeof(host) - 1) || !host[0])
		snprintf(host, sizeof(host), "unknown");
	read_boot_id(boot, sizeof(boot));
	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	snprintf(
		claim, size, "host=%s boot=%s pid=%ld time=%s\n", host, boot, (long)getpid(), when);
}

/* The text in the lock file, made fit for a message. */
static void read_claim(struct sop_file *f, char *text, size_t size)
{
	struct iovec iov = {text, size - 1};
	ssize_t n = f->ops->preadv(f, &iov, 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	if (!text[0])
		snprintf(text, size, "by somebody who left no name");
}

int sop_members_lock(struct sop_attached *a, const char *claim, bool create, struct sop_err *e)
{
	struct sop_disk *d = a->disk;
	char other[SOP_CLAIM_TEXT];
	struct iovec iov = {(void *)(uintptr_t)claim, strlen(claim)};
	struct sop_file *f;
	ssize_t n;
	int rc;

	rc = d->ops->file_open(
		&f, d, SOP_PATH_LOCK, SOP_OPEN_WRITE | (create ? SOP_OPEN_CREATE : 0));
	if (rc == -ENOENT && !create)
		return 0;
	if (rc)
		return sop_fail(e, rc, "%s: lock", d->name);
	rc = d->ops->lock(f);
	if (rc == -EAGAIN) {
		read_claim(f, other, sizeof(other));
		d->ops->file_close(f);
		return sop_say(e, SOP_EINUSE, "%s: is in use (%s); unmount it there first", d->name,
			other);
	}
	if (rc) {
		d->ops->file_close(f);
		return sop_fail(e, rc, "%s: lock", d->name);
	}
	/* The claim is only for messages: a full disk must not keep the volume from being opened.
	 */
	rc = d->ops->truncate(f, 0);
	n = rc ? rc : d->ops->pwritev(f, &iov, 1, 0);
	if (n < 0 && n != -ENOSPC && n != -EDQUOT) {
		d->ops->file_close(f);
		return sop_fail(e, (int)n, "%s: lock", d->name);
	}
	a->lock_file = f;
	return 0;
}

int sop_members_lock_shared(struct sop_attached *a, struct sop_err *e)
{
	struct sop_disk *d = a->disk;
	struct sop_file *f;
	int rc = d->ops->file_open(&f, d, SOP_PATH_LOCK, SOP_OPEN_WRITE | SOP_OPEN_CREATE);

	if (rc)
		return sop_fail(e, rc, "%s: lock", d->name);
	rc = d->ops->lock_shared(f);
	if (!rc) {
		a->lock_file = f;
		return 0;
	}
	d->ops->file_close(f);
	return rc == -EAGAIN ? sop_say(e, SOP_EINUSE,
				       "%s: somebody is alone in it (recovering, or checking it)",
				       d->name)
			     : sop_fail(e, rc, "%s: lock", d->name);
}

/* --- errands --------------------------------------------------------------- */

static void visit_run(struct sop_errand *x)
{
	struct sop_visit *v = (struct sop_visit *)x;
	struct sop_disk *d;

	v->rc = sop_members_open_folder(&d, v->path, v->open_disk, v->open_disk_ctx, &v->e);
	if (v->rc)
		return;
	v->rc = sop_label_load(&v->label, d, &v->e);
	if (v->rc) {
		sop_disk_close(d);
		return;
	}
	v->at = sop_attached_new(d);
	if (!v->at) {
		v->rc = sop_fail(&v->e, -ENOMEM, "%s", v->path);
		return;
	}
	/* Without figures a disk is opened all the same. */
	v->at->seen = d->ops->space(d, &v->at->space) == 0;
}

static void visit_release(struct sop_errand *x)
{
	struct sop_visit *v = (struct sop_visit *)x;

	sop_attached_put(v->at);
	free(v->path);
	free(v);
}

struct sop_visit *sop_members_visit_new(const struct sop_members_opts *o, const char *path)
{
	struct sop_visit *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	sop_errand_init(&v->errand, visit_run, visit_release);
	v->open_disk = o->open_disk;
	v->open_disk_ctx = o->open_disk_ctx;
	v->path = strdup(path);
	if (!v->path) {
		free(v);
		return NULL;
	}
	return v;
}

static void claim_run(struct sop_errand *x)
{
	struct sop_claim *c = (struct sop_claim *)x;

	c->rc = c->shared ? sop_members_lock_shared(c->at, &c->e)
			  : sop_members_lock(c->at, c->text, true, &c->e);
	if (!c->rc)
		c->rc = sop_label_load(&c->label, c->at->disk, &c->e);
}

static void claim_release(struct sop_errand *x)
{
	struct sop_claim *c = (struct sop_claim *)x;

	sop_attached_put(c->at);
	free(c);
}

struct sop_claim *sop_members_claim_new(struct sop_attached *at, const char *text)
{
	struct sop_claim *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	sop_errand_init(&c->errand, claim_run, claim_release);
	c->at = sop_attached_get(at);
	snprintf(c->text, sizeof(c->text), "%s", text);
	return c;
}
