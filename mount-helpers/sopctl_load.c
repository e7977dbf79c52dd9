/* load: makes and sets below a folder what a dump says.
 *
 * Whatever the dump says, nothing outside of the folder is touched: each name is found from the
 * folder on, without ".." and through no symbolic link, and then held by a descriptor while it is
 * changed.
 *
 * A directory gets its attributes when all that is in it is done: its times would not last, and it
 * may be closed to us from then on. So those on the way to the present name wait in a stack. */
#include "mount-helpers/sopctl.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <search.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

#define SAID_MAX 20 /* names that are told of; the rest is counted */
#define FD_PATH	 32

/* A directory whose attributes are still to be set. */
struct waiting {
	struct waiting *above;
	json_t *line;
	char *path;
	int fd;
};

/* Where an inode with several names has its first. */
struct first_name {
	uint64_t ino;
	char *path;
};

struct load {
	int root;
	struct waiting *top;
	void *first; /* of tsearch(3) */
	char *parent_path;
	int parent; /* of the last name, or -1 */
	uint64_t names, made, set, missing, failed;
	bool verbose;
};

/* One line of the dump. */
struct named {
	const json_t *line;
	char *path; /* malloc'ed */
	const char *name;
	uint32_t type; /* S_IFMT */
	bool made;
};

static void tell(struct load *l, const char *path, const char *what)
{
	sop_autofree char *shown = strdup(path);

	l->failed++;
	if (l->failed <= SAID_MAX || l->verbose)
		sopctl_fail(0, "%s: %s", shown ? sopctl_clean(shown) : "?", what);
	else if (l->failed == SAID_MAX + 1)
		sopctl_fail(0, "... more of this is counted; -v shows it");
}

/* ---- lines -------------------------------------------------------------------------------------
 */

static bool time_of(const json_t *line, const char *key, struct timespec *out)
{
	const char *text = sopctl_text(line, key);
	struct tm tm = {0};
	int end = 0;

	if (sscanf(text, "%d-%2d-%2dT%2d:%2d:%2d.%9ldZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		    &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &out->tv_nsec, &end) != 7 ||
		text[end] || end == 0)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	out->tv_sec = timegm(&tm);
	return true;
}

static bool type_of(const json_t *line, uint32_t *type)
{
	static const struct {
		const char *name;
		uint32_t type;
	} all[] = {{"directory", S_IFDIR}, {"file", S_IFREG}, {"symlink", S_IFLNK},
		{"fifo", S_IFIFO}, {"socket", S_IFSOCK}, {"block", S_IFBLK}, {"char", S_IFCHR}};

	for (size_t i = 0; i < SOP_ARRAY_LEN(all); i++)
		if (strcmp(sopctl_text(line, "type"), all[i].name) == 0) {
			*type = all[i].type;
			return true;
		}
	return false;
}

/* "a/b", below the folder; "." alone is itself. */
static bool is_below(const char *path, size_t len)
{
	if (strlen(path) != len || !len)
		return false;
	if (strcmp(path, ".") == 0)
		return true;
	for (const char *p = path;; p++) {
		size_t n = strcspn(p, "/");

		if (!n || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
		if (!*p)
			return true;
	}
}

/* What is missing or no number must not be taken for 0. */
static bool has_mode(const json_t *line)
{
	const char *text = sopctl_text(line, "mode");
	size_t digits = strspn(text, "01234567");

	return digits && !text[digits] && strtoul(text, NULL, 8) <= 07777;
}

/* Without one it is root's. */
static bool may_own(const json_t *id)
{
	return !id || (json_is_integer(id) && json_integer_value(id) >= 0 &&
			      json_integer_value(id) < UINT32_MAX);
}

/* False: it is no line of a dump. */
static bool named_of(struct named *x, const json_t *line)
{
	const char *slash;
	size_t len = 0;

	*x = (struct named){.line = line, .path = sopctl_bytes(line, "path", &len)};
	if (!x->path || !is_below(x->path, len) || !type_of(line, &x->type) || !has_mode(line) ||
		!may_own(json_object_get(line, "uid")) || !may_own(json_object_get(line, "gid"))) {
		free(x->path);
		x->path = NULL;
		return false;
	}
	slash = strrchr(x->path, '/');
	x->name = slash ? slash + 1 : x->path;
	return true;
}

/* ---- names -------------------------------------------------------------------------------------
 */

/* From the folder on. A descriptor by which it can be looked at and changed, or -1 and errno. */
static int open_below(const struct load *l, const char *path, uint64_t flags)
{
	const struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC | flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};

	return (int)syscall(SYS_openat2, l->root, path, &how, sizeof(how));
}

/* The directory that a name lies in, kept for the next one. -1 and errno. */
static int open_parent(struct load *l, const struct named *x)
{
	size_t len = (size_t)(x->name - x->path);
	sop_autofree char *path = len ? strndup(x->path, len - 1) : strdup(".");

	if (!path)
		return -1;
	if (l->parent >= 0 && strcmp(path, l->parent_path) == 0)
		return l->parent;
	if (l->parent >= 0)
		close(l->parent);
	free(l->parent_path);
	l->parent_path = path;
	path = NULL;
	l->parent = open_below(l, l->parent_path, O_DIRECTORY);
	return l->parent;
}

static int compare_first(const void *a, const void *b)
{
	const struct first_name *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* Of a file with several names: the one that came first in the dump; or this is that. NULL: out of
 * memory. */
static const struct first_name *first_name(struct load *l, const struct named *x)
{
	struct first_name *mine = calloc(1, sizeof(*mine)), **found;

	if (mine) {
		mine->ino = sopctl_number(x->line, "inode");
		mine->path = strdup(x->path);
	}
	found = mine && mine->path ? tsearch(mine, &l->first, compare_first) : NULL;
	if (found && *found == mine)
		return mine;
	if (mine)
		free(mine->path);
	free(mine);
	return found ? *found : NULL;
}

static void first_name_free(void *p)
{
	struct first_name *x = p;

	free(x->path);
	free(x);
}

/* ---- making ------------------------------------------------------------------------------------
 */

static mode_t mode_of(const struct named *x)
{
	return (mode_t)strtoul(sopctl_text(x->line, "mode"), NULL, 8);
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Whole or not at all: it goes again when it cannot be written. */
static int make_file(int parent, const char *name, mode_t mode, const char *content, size_t len)
{
	int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode), err;

	if (fd < 0)
		return -1;
	if (!write_all(fd, content, len))
		return close(fd);
	err = errno;
	close(fd);
	unlinkat(parent, name, 0);
	errno = err;
	return -1;
}

/* 1: it was made; 0: it cannot be, without its contents; -1 and errno. */
static int make_regular(struct load *l, int parent, const struct named *x)
{
	sop_autofree char *content = NULL;
	sop_autoclose int fd = -1;
	const struct first_name *first;
	char link[FD_PATH];
	size_t len = 0;

	if (sopctl_number(x->line, "links") > 1) {
		first = first_name(l, x);
		if (!first)
			return -1;
		fd = strcmp(first->path, x->path) ? open_below(l, first->path, 0) : -1;
		if (fd >= 0) {
			snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
			return linkat(AT_FDCWD, link, parent, x->name, AT_SYMLINK_FOLLOW) ? -1 : 1;
		}
	}
	content = sopctl_bytes(x->line, "content", &len);
	if (!content && sopctl_number(x->line, "size"))
		return 0;
	return make_file(parent, x->name, mode_of(x) & 0777, content ? content : "", len) ? -1 : 1;
}

static int make(struct load *l, int parent, const struct named *x)
{
	sop_autofree char *target = NULL;
	size_t len;

	switch (x->type) {
	case S_IFREG:
		return make_regular(l, parent, x);
	case S_IFDIR:
		return mkdirat(parent, x->name, 0700) ? -1 : 1;
	case S_IFLNK:
		target = sopctl_bytes(x->line, "target", &len);
		errno = EINVAL;
		return !target || symlinkat(target, parent, x->name) ? -1 : 1;
	default:
		return mknodat(parent, x->name, x->type | (mode_of(x) & 0777),
			       makedev((unsigned)sopctl_number(x->line, "major"),
				       (unsigned)sopctl_number(x->line, "minor")))
			       ? -1
			       : 1;
	}
}

/* ---- attributes --------------------------------------------------------------------------------
 */

static void could_not(struct load *l, const struct named *x, const char *what)
{
	char text[400];

	snprintf(text, sizeof(text), "%.300s: %s", what, strerror(errno));
	tell(l, x->path, text);
}

/* The options of a store, as attributes sop.NAME. Of one that was there those alone that differ. */
static void set_store(struct load *l, const struct named *x, const char *self)
{
	/* "key" says what a name is, and "session" when files are committed: before all else. */
	static const char *const names[] = {"key", "unique", "slot_length", "balance", "value",
		"ec", "cache", "session", "note"};
	const json_t *store = json_object_get(x->line, "store");

	for (size_t i = 0; i < SOP_ARRAY_LEN(names); i++) {
		const json_t *j = json_object_get(store, names[i]);
		sop_autofree char *text = j ? NULL : sopctl_bytes(store, names[i], &(size_t){0});
		char name[32], number[24], now[4200];
		const char *value = text;
		ssize_t n;

		if (json_is_string(j)) {
			value = json_string_value(j);
		} else if (json_is_boolean(j)) {
			value = json_is_true(j) ? "1" : "0";
		} else if (json_is_integer(j)) {
			snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(j));
			value = number;
		}
		if (!value)
			continue;
		snprintf(name, sizeof(name), "sop.%s", names[i]);
		n = x->made ? -1 : getxattr(self, name, now, sizeof(now) - 1);
		if (n >= 0 && (size_t)n == strlen(value) && memcmp(now, value, (size_t)n) == 0)
			continue;
		if (setxattr(self, name, value, strlen(value), 0))
			could_not(l, x, name);
	}
}

static bool is_wanted(const json_t *all, const char *name)
{
	const json_t *one;
	size_t i, len;

	json_array_foreach(all, i, one)
	{
		sop_autofree char *other = sopctl_bytes(one, "name", &len);

		if (other && strcmp(other, name) == 0)
			return true;
	}
	return false;
}

static void remove_xattrs(struct load *l, const struct named *x, const char *self)
{
	const json_t *all = json_object_get(x->line, "xattrs");
	ssize_t n = listxattr(self, NULL, 0);
	sop_autofree char *names = n > 0 ? malloc((size_t)n) : NULL;

	n = names ? listxattr(self, names, (size_t)n) : n;
	if (n < 0 && errno != EOPNOTSUPP)
		could_not(l, x, "extended attributes");
	for (char *p = names; names && p < names + n; p += strlen(p) + 1)
		if (!is_wanted(all, p) && removexattr(self, p) && errno != ENODATA)
			could_not(l, x, p);
}

static void set_xattrs(struct load *l, const struct named *x, const char *self)
{
	const json_t *one;
	size_t i, len, ignored;

	json_array_foreach(json_object_get(x->line, "xattrs"), i, one)
	{
		sop_autofree char *name = sopctl_bytes(one, "name", &ignored);
		sop_autofree char *value = sopctl_bytes(one, "value", &len);

		errno = EINVAL;
		if (!name || !value || setxattr(self, name, value, len, 0))
			could_not(l, x, name ? name : "extended attribute");
	}
}

/* In this order: another owner takes set-ID bits and capabilities away, a mode changes an access
 * list, and all of it the time of the change. */
static void set_attr(struct load *l, const struct named *x, int fd)
{
	uid_t uid = (uid_t)sopctl_number(x->line, "uid");
	gid_t gid = (gid_t)sopctl_number(x->line, "gid");
	bool moved;
	struct timespec times[2];
	char self[FD_PATH];
	struct stat st;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st)) {
		could_not(l, x, "attributes");
		return;
	}
	remove_xattrs(l, x, self);
	moved = st.st_uid != uid || st.st_gid != gid;
	if (moved && fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
		could_not(l, x, "owner");
	if (!S_ISLNK(st.st_mode) && (moved || (st.st_mode & 07777) != mode_of(x)) &&
		chmod(self, mode_of(x)))
		could_not(l, x, "mode");
	set_xattrs(l, x, self);
	if (!time_of(x->line, "atime", &times[0]) || !time_of(x->line, "mtime", &times[1]))
		return; /* beyond what a calendar can say */
	if (utimensat(fd, "", times, AT_EMPTY_PATH))
		could_not(l, x, "times");
}

static void pop(struct load *l)
{
	struct waiting *w = l->top;
	struct named x = {.line = w->line, .path = w->path};

	l->top = w->above;
	set_attr(l, &x, w->fd);
	close(w->fd);
	json_decref(w->line);
	free(w->path);
	free(w);
}

/* Those that are done: the next name does not lie in them. */
static void pop_until(struct load *l, const char *path)
{
	while (l->top && strcmp(l->top->path, ".") != 0) {
		size_t len = strlen(l->top->path);

		if (strncmp(path, l->top->path, len) == 0 && path[len] == '/')
			return;
		pop(l);
	}
}

/* Takes the path and the descriptor. */
static int push(struct load *l, struct named *x, int fd, json_t *line)
{
	struct waiting *w = malloc(sizeof(*w));

	if (!w)
		return -1;
	*w = (struct waiting){l->top, json_incref(line), x->path, fd};
	x->path = NULL;
	l->top = w;
	return 0;
}

/* ---- one line, and all of them -----------------------------------------------------------------
 */

/* The name, made if it was not there. A descriptor; -1: it is told. */
static int reach(struct load *l, struct named *x)
{
	int parent, fd, rc;

	if (strcmp(x->path, ".") == 0) {
		fd = open_below(l, ".", O_DIRECTORY);
		if (fd < 0)
			could_not(l, x, "opening it");
		return fd;
	}
	parent = open_parent(l, x);
	if (parent < 0) {
		could_not(l, x, "the directory it lies in");
		return -1;
	}
	fd = openat(parent, x->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno != ENOENT) {
		could_not(l, x, "opening it");
		return -1;
	}
	rc = make(l, parent, x);
	if (rc == 0) {
		l->missing++;
		if (l->verbose)
			sopctl_fail(0, "%s: is not there, and what was in it is not in the dump",
				x->path);
		return -1;
	}
	if (rc < 0) {
		could_not(l, x, "making it");
		return -1;
	}
	x->made = true;
	l->made++;
	fd = openat(parent, x->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		could_not(l, x, "just made");
	return fd;
}

static void apply(struct load *l, json_t *line, struct named *x)
{
	char self[FD_PATH];
	struct stat st;
	int fd;

	pop_until(l, x->path);
	fd = reach(l, x);
	if (fd < 0)
		return;
	if (fstat(fd, &st) || (st.st_mode & S_IFMT) != x->type) {
		tell(l, x->path, "is there already, and something else; remove it first");
		close(fd);
		return;
	}
	l->set += !x->made;
	if (x->type == S_IFREG && sopctl_number(x->line, "links") > 1)
		first_name(l, x);
	if (x->type == S_IFDIR) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		set_store(l, x, self);
		if (!push(l, x, fd, line))
			return;
	}
	set_attr(l, x, fd);
	close(fd);
}

/* The lines of a dump, or what is wrong with it. */
static int read_lines(
	FILE *in, const char *name, int (*fn)(struct load *l, json_t *line), struct load *l)
{
	sop_autofree char *text = NULL;
	size_t size = 0;
	uint64_t number = 0;
	bool ended = false;
	ssize_t len;
	int rc = 0;

	while (!rc && (len = getline(&text, &size, in)) > 0) {
		json_t *line = json_loadb(text, (size_t)len, 0, NULL);
		bool head = ++number == 1;

		if (!json_is_object(line) || ended ||
			head != (json_object_get(line, "sopfs_dump") != NULL))
			rc = sopctl_fail(SOPCTL_FAILURE, "%s:%llu: is no line of a dump%s", name,
				(unsigned long long)number,
				head ? "; 'sopctl dump' makes one" : "");
		else if (head && sopctl_number(line, "sopfs_dump") != 1)
			rc = sopctl_fail(SOPCTL_FAILURE,
				"%s: was made by a later version of sopctl; use that one", name);
		else if (json_is_true(json_object_get(line, "end")))
			ended = true;
		else if (!head && !json_object_get(line, "error") && fn(l, line))
			rc = sopctl_fail(SOPCTL_FAILURE, "%s:%llu: is no line of a dump", name,
				(unsigned long long)number);
		json_decref(line);
	}
	if (!rc && !feof(in)) /* also for want of memory */
		rc = sopctl_fail(SOPCTL_FAILURE, "%s: %s", name, strerror(errno));
	if (!rc && !ended)
		rc = sopctl_fail(SOPCTL_FAILURE,
			"%s: was cut off: its last line is missing; dump again", name);
	return rc;
}

static int count_line(struct load *l, json_t *line)
{
	struct named x;

	if (!named_of(&x, line))
		return -1;
	free(x.path);
	l->names++;
	return 0;
}

static int load_line(struct load *l, json_t *line)
{
	struct named x;

	if (!named_of(&x, line))
		return -1;
	apply(l, line, &x);
	free(x.path);
	return 0;
}

static int open_folder(const char *word, int *code)
{
	sop_autofree char *folder = sopctl_folder(word, code);
	char text[32];
	int fd;

	if (!folder)
		return -1;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		*code = sopctl_fail(errno == EACCES ? SOPCTL_PERMISSION : SOPCTL_FAILURE, "%s: %s",
			folder, strerror(errno));
	else if (fgetxattr(fd, "sop.count", text, sizeof(text)) < 0)
		*code = sopctl_fail(
			SOPCTL_NO_VOLUME, "%s: does not lie in a mounted sopfs volume", folder);
	return fd;
}

static void print_loaded(const struct sopctl_args *a, const struct load *l)
{
	json_t *j;

	if (!a->json) {
		printf("%llu made, %llu were there and have their attributes again, %llu files "
		       "are not there, %llu errors\n",
			(unsigned long long)l->made, (unsigned long long)l->set,
			(unsigned long long)l->missing, (unsigned long long)l->failed);
		return;
	}
	j = json_pack("{s:i, s:I, s:I, s:I, s:I}", "version", 1, "made", (json_int_t)l->made, "set",
		(json_int_t)l->set, "missing", (json_int_t)l->missing, "errors",
		(json_int_t)l->failed);
	sopctl_print_json(j);
	json_decref(j);
}

static void print_whole(const struct load *l)
{
	json_t *j = json_pack("{s:i, s:I}", "version", 1, "names", (json_int_t)l->names);

	sopctl_print_json(j);
	json_decref(j);
}

static int load(const struct sopctl_args *a, FILE *in, const char *name)
{
	struct load l = {.root = -1, .parent = -1, .verbose = a->verbose};
	int rc = SOPCTL_OK;

	umask(0); /* modes are those of the dump */
	l.root = open_folder(a->word[0], &rc);
	/* What can be read twice is looked at in whole before anything is changed. */
	if (!rc && (a->dry_run || fseek(in, 0, SEEK_SET) == 0)) {
		rc = read_lines(in, name, count_line, &l);
		if (!rc && a->dry_run && a->json)
			print_whole(&l);
		else if (!rc && a->dry_run)
			printf("%s: is whole: %llu names; nothing was changed\n", name,
				(unsigned long long)l.names);
		if (!a->dry_run)
			rewind(in);
	}
	if (!rc && !a->dry_run) {
		rc = read_lines(in, name, load_line, &l);
		while (l.top)
			pop(&l);
		print_loaded(a, &l);
		if (!rc && (l.failed || l.missing))
			rc = SOPCTL_PARTIAL;
	}
	if (rc == SOPCTL_PARTIAL && l.missing)
		sopctl_fail(0,
			"what was in %llu files is not in the dump: put it back from a backup, and "
			"load once more for their attributes",
			(unsigned long long)l.missing);
	tdestroy(l.first, first_name_free);
	free(l.parent_path);
	if (l.parent >= 0)
		close(l.parent);
	if (l.root >= 0)
		close(l.root);
	return rc;
}

static int run_load(const struct sopctl_args *a)
{
	bool from_stdin = a->words < 2 || strcmp(a->word[1], "-") == 0;
	const char *name = from_stdin ? "standard input" : a->word[1];
	FILE *in = from_stdin ? stdin : fopen(name, "re");
	int rc;

	if (!in)
		return sopctl_fail(errno == EACCES ? SOPCTL_PERMISSION : SOPCTL_FAILURE, "%s: %s",
			name, strerror(errno));
	rc = load(a, in, name);
	if (!from_stdin)
		fclose(in);
	return rc;
}

const struct sopctl_verb sopctl_load_verbs[] = {
	{"load", "VOLUME|DIRECTORY [FILE]",
		"Make the names of a dump, and give them their attributes", "dry-run verbose json",
		1, 2,
		"What is not there is made: directories as the stores they were, links, special "
		"files, empty files,\nand those whose contents the dump has. What is there keeps "
		"its contents, and gets owner, mode, times,\naccess lists and extended attributes "
		"as in the dump. Nothing is removed. Exit code 3: some could not\nbe done; they "
		"are named. Loading again does no harm. The volume must be mounted.\n",
		run_load},
	{0},
};
