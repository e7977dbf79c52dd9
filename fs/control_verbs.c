/* What can be asked over the control socket. */
#include "fs/control.h"

#include <stdio.h>
#include <sys/stat.h>

#include "core/mountpoint.h"
#include "fs/dump.h"
#include "fs/json.h"
#include "fs/state.h"
#include "fs/status.h"

#define EXTENTS_MAX 1000 /* in one answer; the client asks for more */

/* ---- arguments ---------------------------------------------------------------------------------
 */

/* A string, or NULL when it is not there (required: -EINVAL says so). */
static const char *text_arg(
	const json_t *request, const char *key, bool required, struct sop_err *e)
{
	const char *s = json_string_value(json_object_get(request, key));

	if (!s && required)
		sop_say(e, -EINVAL, "\"%s\" is missing", key);
	return s;
}

static unsigned admin_flags(const json_t *request)
{
	return (json_is_true(json_object_get(request, "force")) ? SOP_ADMIN_FORCE : 0u) |
	       (json_is_true(json_object_get(request, "dry_run")) ? SOP_ADMIN_DRY_RUN : 0u) |
	       (json_is_true(json_object_get(request, "data_only")) ? SOP_ADMIN_DATA : 0u);
}

static json_t *done(int rc)
{
	return rc ? NULL : json_object();
}

/* ---- looking -----------------------------------------------------------------------------------
 */

/* Who it is, for those who look for a volume. */
static json_t *run_hello(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	json_t *status = sopfs_status_json(f, false), *paths = json_array(), *disk, *out;
	const json_t *v = json_object_get(status, "volume"), *m = json_object_get(status, "mount");
	size_t i;

	(void)request;
	(void)trusted;
	(void)e;
	json_array_foreach(json_object_get(status, "disks"), i, disk)
		json_array_append(paths, json_object_get(disk, "path"));
	out = json_pack("{s:O, s:O, s:O, s:o}", "name", json_object_get(v, "name"), "uuid",
		json_object_get(v, "uuid"), "mount", m, "disks", paths);
	json_decref(status);
	return out;
}

static json_t *run_status(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	json_t *status = sopfs_status_json(f, trusted), *out;
	char *text = NULL;
	size_t len;
	FILE *o;

	(void)e;
	if (!status || !json_is_true(json_object_get(request, "text")))
		return status ? json_pack("{s:o}", "status", status) : NULL;
	o = open_memstream(&text, &len);
	if (o) {
		sopfs_status_text(o, status, json_is_true(json_object_get(request, "verbose")));
		if (fclose(o)) {
			free(text);
			text = NULL;
		}
	}
	out = text ? json_pack("{s:o, s:s}", "status", status, "text", text) : NULL;
	if (!text)
		json_decref(status);
	free(text);
	return out;
}

/* ---- where a file lies ---- */

struct layout {
	json_t *extents;
	uint64_t skip, n;	 /* extents passed over; met */
	uint64_t bytes, inlined; /* of the file, stored */
	uint64_t bad, missing;	 /* shards */
};

static int add_extent(void *arg, const struct sop_extent_layout *x)
{
	static const char *const states[] = {"unknown", "ok", "missing", "corrupt"};
	struct layout *l = arg;
	json_t *j, *shards;

	l->bytes += x->len;
	l->inlined += x->is_inline ? x->len : 0;
	for (unsigned i = 0; !x->is_inline && i < x->k + x->m; i++) {
		l->bad += x->state[i] == SOP_SHARD_CORRUPT;
		l->missing += x->state[i] == SOP_SHARD_MISSING;
	}
	if (l->n++ < l->skip || json_array_size(l->extents) >= EXTENTS_MAX)
		return 0;
	j = json_pack("{s:I, s:I, s:b}", "offset", (json_int_t)x->off, "length", (json_int_t)x->len,
		"inline", x->is_inline);
	if (!x->is_inline) {
		shards = json_array();
		for (unsigned i = 0; i < x->k + x->m; i++) {
			char disk[16];

			snprintf(disk, sizeof(disk), "d%u", x->disk[i] + 1);
			json_array_append_new(
				shards, json_pack("{s:s, s:s, s:b}", "disk", disk, "state",
						(size_t)x->state[i] < SOP_ARRAY_LEN(states)
							? states[x->state[i]]
							: "unknown",
						"parity", i >= x->k));
		}
		json_object_set_new(j, "segment", json_integer((json_int_t)x->segment));
		json_object_set_new(j, "segment_offset", json_integer((json_int_t)x->segment_off));
		json_object_set_new(j, "data_shards", json_integer(x->k));
		json_object_set_new(j, "parity_shards", json_integer(x->m));
		json_object_set_new(j, "shards", shards);
	}
	return json_array_append_new(l->extents, j) ? -ENOMEM : 0;
}

/* The item at a path from the volume's root, and the name it has in its store. Symbolic links are
 * not followed. */
static int find_item(struct sop_txn *t, const char *path, struct sop_name *name, struct sop_attr *a,
	struct sop_err *e)
{
	int rc;

	*name = SOP_SELF(SOP_ROOT);
	rc = sop_lookup(t, *name, a, e);
	while (!rc) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (!len)
			return 0;
		if (!S_ISDIR(a->mode))
			return sop_fail(e, -ENOTDIR, "%s", path);
		*name = (struct sop_name){a->ino, path, len};
		rc = sop_lookup(t, *name, a, e);
		path += len;
	}
	return rc;
}

static json_t *run_info(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	sop_autofree char *path = sopfs_json_bytes_text(request, "path");
	struct layout l = {.extents = json_array()};
	struct sop_name name;
	struct sop_txn *t;
	struct sop_attr a;
	json_t *out = NULL;
	int rc;

	(void)trusted;
	l.skip = (uint64_t)json_integer_value(json_object_get(request, "skip"));
	rc = !path ? sop_say(e, -EINVAL, "\"path\" is missing")
		   : sop_txn_begin(&t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_NO_CHECK}, e);
	if (!rc) {
		rc = find_item(t, path, &name, &a, e);
		if (rc)
			rc = sop_wrap(e, rc, "%s", path);
		else if (S_ISREG(a.mode) || !(a.mode & S_IFMT))
			rc = sop_value_layout(t, name,
				json_is_true(json_object_get(request, "verify")), add_extent, &l,
				e);
		sop_txn_rollback(t);
	}
	if (!rc)
		out = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}",
			"inode", (json_int_t)a.ino, "mode", (json_int_t)a.mode, "size",
			(json_int_t)a.size, "version", (json_int_t)a.version, "links",
			(json_int_t)a.nlink, "items", (json_int_t)a.count, "extent_count",
			(json_int_t)l.n, "stored_bytes", (json_int_t)l.bytes, "inline_bytes",
			(json_int_t)l.inlined, "corrupt_shards", (json_int_t)l.bad,
			"missing_shards", (json_int_t)l.missing, "extents", l.extents);
	json_decref(l.extents);
	return out;
}

/* ---- changing ----------------------------------------------------------------------------------
 */

/* A new place of a disk. In the volume itself it would wait for itself: whoever writes to the disk
 * would ask us. One that holds the mount point would be hidden by the next mount in part, which is
 * therefore refused. */
static int check_outside(const struct sopfs *f, const char *path, struct sop_err *e)
{
	sop_autofree char *real = NULL;
	struct stat mine, st;

	if (stat(path, &st) || stat(f->o.mountpoint, &mine))
		return 0;
	if (st.st_dev == mine.st_dev)
		return sop_say(
			e, -EINVAL, "%s: lies in this volume; name a folder on a drive", path);
	real = realpath(path, NULL);
	if (real && sop_paths_overlap(real, f->o.mountpoint))
		return sop_say(e, -EINVAL,
			"%s: holds %s, where the volume is mounted; it could not be mounted there "
			"again; name another folder",
			path, f->o.mountpoint);
	return 0;
}

static json_t *run_online(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disk = text_arg(request, "disk", true, e);
	const char *path = text_arg(request, "path", false, e);

	(void)trusted;
	if (!disk || (path && check_outside(f, path, e)))
		return NULL;
	return done(sop_disk_online(f->v, disk, path, e));
}

static json_t *run_offline(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disk = text_arg(request, "disk", true, e);

	(void)trusted;
	return disk ? done(sop_disk_offline(f->v, disk, admin_flags(request), e)) : NULL;
}

static json_t *run_replace(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disk = text_arg(request, "disk", true, e);
	const char *path = disk ? text_arg(request, "path", true, e) : NULL;

	(void)trusted;
	if (!path || check_outside(f, path, e))
		return NULL;
	return done(sop_disk_replace(f->v, disk, path, admin_flags(request), e));
}

static json_t *run_add(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *path = text_arg(request, "path", true, e);

	(void)trusted;
	if (!path || check_outside(f, path, e))
		return NULL;
	return done(sop_disk_add(f->v, path, admin_flags(request), e));
}

static json_t *run_remove(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disk = text_arg(request, "disk", true, e);

	(void)trusted;
	return disk ? done(sop_disk_remove(f->v, disk, admin_flags(request), e)) : NULL;
}

static json_t *run_cancel(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disk = text_arg(request, "disk", true, e);

	(void)trusted;
	return disk ? done(sop_disk_cancel(f->v, disk, e)) : NULL;
}

static json_t *run_scrub(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *action = text_arg(request, "action", true, e);
	json_int_t rate = json_integer_value(json_object_get(request, "rate"));
	int rc;

	(void)trusted;
	if (!action)
		return NULL;
	if (rate < 0)
		rc = sop_say(e, -EINVAL, "\"rate\" is negative");
	else if (strcmp(action, "start") == 0)
		rc = sop_scrub_start(f->v, (uint64_t)rate, e);
	else if (strcmp(action, "pause") == 0)
		rc = sop_scrub_pause(f->v, e);
	else if (strcmp(action, "resume") == 0)
		rc = sop_scrub_resume(f->v, e);
	else if (strcmp(action, "stop") == 0)
		rc = sop_scrub_stop(f->v, e);
	else
		rc = sop_say(e, -EINVAL, "scrub: start, pause, resume or stop");
	return done(rc);
}

static json_t *run_clear(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	(void)trusted;
	return done(sop_volume_clear(f->v, text_arg(request, "disk", false, e), e));
}

/* All commits so far are on the media. */
static json_t *run_sync(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	(void)request;
	(void)trusted;
	return done(f->o.read_only ? 0 : sop_volume_sync(f->v, e));
}

static const struct sopfs_verb verbs[] = {
	{"hello", SOPFS_MAY_LOOK, false, run_hello, NULL},
	{"status", SOPFS_MAY_LOOK, false, run_status, NULL},
	{"info", SOPFS_MAY_CHANGE, true, run_info,
		NULL}, /* it tells of files that others may not see */
	{"events", SOPFS_MAY_CHANGE, false, NULL, NULL},
	{"online", SOPFS_MAY_CHANGE, true, run_online, NULL},
	{"offline", SOPFS_MAY_CHANGE, true, run_offline, NULL},
	{"replace", SOPFS_MAY_CHANGE, true, run_replace, NULL},
	{"add", SOPFS_MAY_CHANGE, true, run_add, NULL},
	{"remove", SOPFS_MAY_CHANGE, true, run_remove, NULL},
	{"cancel", SOPFS_MAY_CHANGE, true, run_cancel, NULL},
	{"scrub", SOPFS_MAY_CHANGE, true, run_scrub, NULL},
	{"clear", SOPFS_MAY_CHANGE, true, run_clear, NULL},
	{"sync", SOPFS_MAY_CHANGE, true, run_sync, NULL},
	{"ec", SOPFS_MAY_CHANGE, true, sopfs_run_ec, NULL},
	{"ec_add", SOPFS_MAY_CHANGE, true, sopfs_run_ec_add, NULL},
	{"txn", SOPFS_MAY_CHANGE, true, sopfs_run_txn, NULL},
	{"dump", SOPFS_MAY_CHANGE, true, NULL, sopfs_dump},
};

const struct sopfs_verb *sopfs_verb_find(const char *name)
{
	for (size_t i = 0; i < SOP_ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}
