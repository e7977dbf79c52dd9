/* Depth first, by a stack of directories of our own: names nest deeper than a thread's stack is
 * sure to be. The library must not be called while it lists, so each directory is taken a few names
 * at a time. */
#include "fs/dump.h"

#include <stdio.h>
#include <sys/sysmacros.h>

#include "fs/json.h"
#include "fs/posix.h"
#include "fs/state.h"

#define BATCH 128 /* names of a directory in memory */

struct entry {
	struct sop_attr attr;
	char *name; /* malloc'ed */
	size_t len;
};

/* A directory under way. */
struct frame {
	struct frame *above;
	uint64_t store;
	size_t path_len; /* of the directory in dump.path */
	struct entry entry[BATCH];
	unsigned n, next;
	uint8_t *last; /* the tree's key of the last one taken; malloc'ed */
	size_t last_len;
	bool all; /* there are no more than those */
};

struct dump {
	struct sop_txn *t;
	int (*put)(void *arg, json_t *line);
	void *arg;
	struct frame *top;
	char *path; /* malloc'ed */
	size_t path_len, path_size;
	uint64_t content_max, names, errors;
};

/* ---- lines -------------------------------------------------------------------------------------
 */

static void set_time(json_t *j, const char *key, struct timespec t)
{
	struct tm tm;
	char text[64];

	if (!gmtime_r(&t.tv_sec, &tm))
		return; /* beyond the years that a calendar can count */
	snprintf(text, sizeof(text), "%04lld-%02d-%02dT%02d:%02d:%02d.%09ldZ", tm.tm_year + 1900ll,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, t.tv_nsec);
	json_object_set_new(j, key, json_string(text));
}

static void set_number(json_t *j, const char *key, uint64_t n)
{
	json_object_set_new(j, key, json_integer((json_int_t)n));
}

static const char *type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symlink";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	case S_IFBLK:
		return "block";
	case S_IFCHR:
		return "char";
	default:
		return "file"; /* a plain item of libsop is shown as one, too */
	}
}

static bool is_file(uint32_t mode)
{
	return S_ISREG(mode) || !(mode & S_IFMT);
}

static void set_attr(json_t *j, const struct sop_attr *a)
{
	char mode[8];

	snprintf(mode, sizeof(mode), "%04o", a->mode & 07777u);
	json_object_set_new(j, "type", json_string(type_of(a->mode)));
	json_object_set_new(j, "mode", json_string(mode));
	set_number(j, "uid", a->uid);
	set_number(j, "gid", a->gid);
	set_number(j, "inode", a->ino);
	set_number(j, "version", a->version);
	set_time(j, "atime", a->atime);
	set_time(j, "mtime", a->mtime);
	set_time(j, "ctime", a->ctime);
	set_time(j, "birth", a->btime);
	if (S_ISDIR(a->mode)) {
		set_number(j, "items", a->count);
		return;
	}
	set_number(j, "links", a->nlink);
	if (is_file(a->mode)) {
		set_number(j, "size", a->size);
		set_number(j, "stored", a->bytes);
	}
	if (S_ISBLK(a->mode) || S_ISCHR(a->mode)) {
		set_number(j, "major", major(a->rdev));
		set_number(j, "minor", minor(a->rdev));
	}
}

/* Those that differ from what mkdir makes, under the names of the attributes sop.NAME. */
static int set_store(struct dump *d, json_t *j, uint64_t store, struct sop_err *e)
{
	sop_autofree char *mem = malloc(SOP_STORE_INFO_BYTES), *key = malloc(SOP_STORE_INFO_BYTES);
	struct sop_store_opts o;
	json_t *s;
	size_t n;
	int rc = mem && key ? sop_store_info(d->t, store, &o, mem, SOP_STORE_INFO_BYTES, e)
			    : sop_fail(e, -ENOMEM, "store options");

	if (rc)
		return rc;
	s = json_object();
	if (o.key_type != SOP_KEY_BYTES) {
		n = (size_t)snprintf(key, SOP_STORE_INFO_BYTES, "%s%s",
			sop_key_type_name(o.key_type), o.n_index ? ":" : "");
		if (o.n_index)
			sop_index_format(key + n, SOP_STORE_INFO_BYTES - n, o.index, o.n_index);
		json_object_set_new(s, "key", json_string(key));
	}
	if (o.duplicates)
		json_object_set_new(s, "unique", json_false());
	if (o.balance)
		json_object_set_new(s, "balance", json_true());
	if (o.slot_length)
		set_number(s, "slot_length", o.slot_length);
	if (o.value_class)
		json_object_set_new(s, "value", json_string(sop_value_class_name(o.value_class)));
	if (o.cache_class)
		json_object_set_new(s, "cache", json_string(sop_cache_class_name(o.cache_class)));
	if (o.profile)
		json_object_set_new(s, "ec", json_string(o.profile));
	if (o.session)
		json_object_set_new(s, "session", json_string(o.session == 2 ? "write" : "close"));
	if (o.note)
		rc = sopfs_json_bytes(s, "note", o.note, strlen(o.note));
	if (json_object_size(s))
		json_object_set(j, "store", s);
	json_decref(s);
	return rc;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of a list, each ended by NUL, in the order of their bytes: two dumps of the same are
 * the same. malloc'ed; NULL: out of memory. */
static const char **sorted(const char *list, size_t len, size_t *n)
{
	const char **out;

	*n = 0;
	for (size_t i = 0; i < len; i++)
		*n += !list[i];
	out = calloc(*n, sizeof(*out));
	if (!out)
		return NULL;
	for (size_t i = 0; i < *n; i++, list += strlen(list) + 1)
		out[i] = list;
	qsort(out, *n, sizeof(*out), by_text);
	return out;
}

static int set_xattr(
	struct dump *d, json_t *all, struct sop_name name, const char *attr, struct sop_err *e)
{
	ssize_t len = sop_xattr_get(d->t, name, attr, NULL, 0, e);
	sop_autofree char *value = len < 0 ? NULL : malloc((size_t)len + 1);
	json_t *one;
	int rc;

	if (len < 0)
		return (int)len;
	if (!value)
		return -ENOMEM;
	len = sop_xattr_get(d->t, name, attr, value, (size_t)len, e);
	if (len < 0)
		return (int)len;
	one = json_object();
	rc = sopfs_json_bytes(one, "name", attr, strlen(attr));
	if (!rc)
		rc = sopfs_json_bytes(one, "value", value, (size_t)len);
	json_array_append_new(all, one);
	return rc;
}

static int set_xattrs(struct dump *d, json_t *j, struct sop_name name, struct sop_err *e)
{
	ssize_t n = sop_xattr_list(d->t, name, NULL, 0, e);
	sop_autofree char *list = n > 0 ? malloc((size_t)n) : NULL;
	sop_autofree const char **attr = NULL;
	size_t count;
	json_t *all;
	int rc = 0;

	if (n <= 0)
		return (int)n;
	n = list ? sop_xattr_list(d->t, name, list, (size_t)n, e) : -ENOMEM;
	if (n < 0)
		return (int)n;
	attr = sorted(list, (size_t)n, &count);
	if (!attr)
		return -ENOMEM;
	all = json_array();
	for (size_t i = 0; !rc && i < count; i++)
		rc = set_xattr(d, all, name, attr[i], e);
	json_object_set_new(j, "xattrs", all);
	return rc;
}

/* A symbolic link's target, and a file's contents when they are wanted. */
static int set_value(struct dump *d, json_t *j, struct sop_name name, const struct sop_attr *a,
	struct sop_err *e)
{
	bool link = S_ISLNK(a->mode);
	sop_autofree void *value = NULL;
	size_t len;
	int rc;

	if (!link && (!is_file(a->mode) || a->size > d->content_max || !d->content_max))
		return 0;
	rc = sop_get(d->t, name, &value, &len, e);
	return rc ? rc : sopfs_json_bytes(j, link ? "target" : "content", value, len);
}

static int put_error(
	struct dump *d, const char *path, size_t path_len, int rc, const struct sop_err *e)
{
	json_t *j = json_object();

	d->errors++;
	if (sopfs_json_bytes(j, "path", path, path_len)) {
		json_decref(j);
		return -ENOMEM;
	}
	json_object_set_new(j, "code", json_string(sop_err_name(rc)));
	json_object_set_new(j, "error", json_string(e->text[0] ? e->text : sop_err_text(rc)));
	return d->put(d->arg, j);
}

static int put_item(struct dump *d, struct sop_name name, const struct sop_attr *a)
{
	const char *path = d->path_len ? d->path : ".";
	size_t path_len = d->path_len ? d->path_len : 1;
	struct sop_err e = {0};
	json_t *j = json_object();
	int rc = sopfs_json_bytes(j, "path", path, path_len);

	if (!rc) {
		set_attr(j, a);
		rc = set_xattrs(d, j, name, &e);
	}
	if (!rc)
		rc = S_ISDIR(a->mode) ? set_store(d, j, a->ino, &e) : set_value(d, j, name, a, &e);
	if (!rc) {
		d->names++;
		return d->put(d->arg, j);
	}
	json_decref(j);
	return rc == -ENOMEM ? rc : put_error(d, path, path_len, rc, &e);
}

/* ---- the walk ----------------------------------------------------------------------------------
 */

static void forget_entries(struct frame *x)
{
	for (unsigned i = 0; i < x->n; i++)
		free(x->entry[i].name);
	x->n = x->next = 0;
}

static void pop(struct dump *d)
{
	struct frame *x = d->top;

	d->top = x->above;
	forget_entries(x);
	free(x->last);
	free(x);
}

static int push(struct dump *d, uint64_t store)
{
	struct frame *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->above = d->top;
	x->store = store;
	x->path_len = d->path_len;
	d->top = x;
	return 0;
}

static int take(void *arg, const struct sop_listed *listed)
{
	struct frame *x = arg;
	struct entry *one = &x->entry[x->n];

	if (x->n == BATCH) {
		x->all = false;
		return 1;
	}
	/* One behind the end: no length of 0. */
	free(x->last);
	x->last = malloc(listed->klen + 1);
	one->name = malloc(listed->name_len + 1);
	if (!x->last || !one->name) {
		free(one->name);
		return -ENOMEM;
	}
	x->n++;
	memcpy(x->last, listed->key, listed->klen);
	x->last_len = listed->klen;
	memcpy(one->name, listed->name, listed->name_len);
	one->len = listed->name_len;
	one->attr = *listed->attr;
	return 0;
}

/* The next names of the top directory. */
static int fill(struct dump *d, struct sop_err *e)
{
	struct frame *x = d->top;
	const struct sop_range rest = {
		.from = x->last, .from_len = x->last_len, .from_exclusive = true};
	int rc;

	sop_autofree uint8_t *from = x->last;

	x->last = NULL; /* take() makes another, while the range points to this */
	forget_entries(x);
	x->all = true;
	rc = sop_list(d->t, x->store, from ? &rest : NULL, true, take, x, e);
	return rc < 0 ? rc : 0;
}

static int set_path(struct dump *d, const struct frame *x, const struct entry *one)
{
	size_t slash = x->path_len > 0, len = x->path_len + slash + one->len;

	if (len > d->path_size) {
		char *grown = realloc(d->path, 2 * len);

		if (!grown)
			return -ENOMEM;
		d->path = grown;
		d->path_size = 2 * len;
	}
	if (slash)
		d->path[x->path_len] = '/';
	memcpy(d->path + x->path_len + slash, one->name, one->len);
	d->path_len = len;
	return 0;
}

static int step(struct dump *d)
{
	struct frame *x = d->top;
	struct sop_err e = {0};
	const struct entry *one;
	int rc;

	if (x->next == x->n && x->all) {
		pop(d);
		return 0;
	}
	if (x->next == x->n) {
		rc = fill(d, &e);
		if (!rc || rc == -ENOMEM)
			return rc;
		/* What is left of this directory cannot be read. */
		x->all = true;
		forget_entries(x);
		return put_error(
			d, x->path_len ? d->path : ".", x->path_len ? x->path_len : 1, rc, &e);
	}
	one = &x->entry[x->next++];
	rc = set_path(d, x, one);
	if (!rc)
		rc = put_item(d,
			S_ISDIR(one->attr.mode) ? SOP_SELF(one->attr.ino)
						: (struct sop_name){x->store, one->name, one->len},
			&one->attr);
	if (!rc && S_ISDIR(one->attr.mode))
		rc = push(d, one->attr.ino);
	return rc;
}

static int put_head(struct dump *d, struct sopfs *f)
{
	json_t *j = json_object(), *profiles = json_array();
	char uuid[SOP_UUID_TEXT], ec[16];
	struct sop_profile_info p;
	struct sop_volume_stat s;

	sop_volume_stat(f->v, &s);
	set_number(j, "sopfs_dump", 1);
	json_object_set_new(j, "volume",
		json_pack("{s:s, s:s}", "name", s.name, "uuid", sop_uuid_format(uuid, &s.uuid)));
	set_time(j, "time", sopfs_now());
	set_number(j, "lsn", sop_txn_lsn(d->t));
	for (unsigned n = 0; sop_profile_get(f->v, n, &p); n++) {
		snprintf(ec, sizeof(ec), "%u+%u", p.k, p.m);
		json_array_append_new(profiles, json_pack("{s:s, s:s}", "name", p.name, "ec", ec));
	}
	json_object_set_new(j, "profiles", profiles);
	return d->put(d->arg, j);
}

static int walk(struct dump *d, struct sopfs *f, struct sop_err *e)
{
	struct sop_attr root;
	int rc = put_head(d, f);

	if (!rc)
		rc = sop_lookup(d->t, SOP_SELF(SOP_ROOT), &root, e);
	if (!rc)
		rc = put_item(d, SOP_SELF(SOP_ROOT), &root);
	if (!rc)
		rc = push(d, SOP_ROOT);
	while (!rc && d->top)
		rc = step(d);
	if (!rc)
		rc = d->put(d->arg, json_pack("{s:b, s:I, s:I}", "end", true, "names",
					    (json_int_t)d->names, "errors", (json_int_t)d->errors));
	return rc;
}

int sopfs_dump(struct sopfs *f, const json_t *request, int (*put)(void *arg, json_t *line),
	void *arg, struct sop_err *e)
{
	json_int_t content = json_integer_value(json_object_get(request, "contents"));
	struct dump d = {.put = put, .arg = arg};
	int rc;

	if (content < 0 || content > SOPFS_DUMP_CONTENT_MAX)
		return sop_say(e, -EINVAL, "dump: contents of files come with it up to 1 MiB each");
	d.content_max = (uint64_t)content;
	rc = sop_txn_begin(&d.t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_NO_CHECK}, e);
	if (rc)
		return rc;
	rc = walk(&d, f, e);
	while (d.top)
		pop(&d);
	sop_txn_rollback(d.t);
	free(d.path);
	return rc && !e->code ? sop_fail(e, rc, "dump") : rc;
}
