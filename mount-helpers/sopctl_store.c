/* store: directories as the B-trees they are. Read through the mount, with the caller's own rights.
 */
#include "mount-helpers/sopctl.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/xattr.h>

struct store {
	char count[32], session[32], ec[64], slot_length[32];
};

static void attribute(char *out, size_t size, const char *path, const char *name)
{
	ssize_t n = getxattr(path, name, out, size - 1);

	out[n < 0 ? 0 : n] = '\0';
}

/* False: not a store of sopfs. */
static bool read_store(struct store *s, const char *path)
{
	attribute(s->count, sizeof(s->count), path, "sop.count");
	attribute(s->session, sizeof(s->session), path, "sop.session");
	attribute(s->ec, sizeof(s->ec), path, "sop.ec");
	attribute(s->slot_length, sizeof(s->slot_length), path, "sop.slot_length");
	return s->count[0] != '\0';
}

static json_t *store_json(const struct store *s, const char *path)
{
	json_t *j =
		json_pack("{s:I, s:s, s:s, s:I}", "items", (json_int_t)atoll(s->count), "session",
			s->session, "ec", s->ec, "slot_length", (json_int_t)atoll(s->slot_length));

	if (j)
		json_object_set_new(j, "path", json_string_nocheck(path));
	return j;
}

static void print_store(const struct sopctl_args *a, const struct store *s, char *path, bool list)
{
	json_t *j = a->json ? store_json(s, path) : NULL;

	if (a->json) {
		sopctl_print_json(j);
		json_decref(j);
	} else if (list) {
		printf("%12s  %-6s %-8s %s\n", s->count, s->session, s->ec, sopctl_clean(path));
	} else {
		printf("        store: %s\n        items: %s\n      session: %s\n erasure code: "
		       "%s\nitems a node: %s\n",
			sopctl_clean(path), s->count, s->session, s->ec,
			strcmp(s->slot_length, "0") ? s->slot_length : "by size");
	}
}

/* VOLUME may be a label; a path is taken as it is. malloc'ed. */
static char *folder_of(const char *name, int *rc)
{
	struct sopctl_volume v;
	struct stat st;
	char *out;

	*rc = SOPCTL_OK;
	if (strchr(name, '/') || stat(name, &st) == 0)
		return strdup(name);
	*rc = sopctl_find(&v, name, false, true);
	out = *rc ? NULL : strdup(sopctl_text(json_object_get(v.hello, "mount"), "point"));
	sopctl_close(&v);
	return out;
}

static int list(const struct sopctl_args *a, const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *d;

	if (!dir)
		return sopctl_fail(errno == EACCES ? SOPCTL_PERMISSION : SOPCTL_FAILURE, "%s: %s",
			folder, strerror(errno));
	if (!a->json)
		printf("%12s  %-6s %-8s %s\n", "ITEMS", "SESS", "EC", "STORE");
	while ((d = readdir(dir))) {
		sop_autofree char *path = NULL;
		struct store s;

		if (d->d_type != DT_DIR || strcmp(d->d_name, ".") == 0 ||
			strcmp(d->d_name, "..") == 0)
			continue;
		if (asprintf(&path, "%s/%s", folder, d->d_name) < 0) {
			path = NULL;
			continue;
		}
		if (read_store(&s, path))
			print_store(a, &s, path, true);
	}
	closedir(dir);
	return SOPCTL_OK;
}

static int run_store(const struct sopctl_args *a)
{
	bool info = strcmp(a->word[0], "info") == 0;
	sop_autofree char *folder = NULL;
	struct store s;
	int rc;

	if (!info && strcmp(a->word[0], "list"))
		return sopctl_fail(SOPCTL_USAGE, "store %s: there is list, and info", a->word[0]);
	folder = folder_of(a->word[1], &rc);
	if (!folder)
		return rc ? rc : sopctl_fail(SOPCTL_FAILURE, "out of memory");
	if (!read_store(&s, folder))
		return sopctl_fail(
			SOPCTL_NO_VOLUME, "%s: is no directory of a mounted sopfs volume", folder);
	if (!info)
		return list(a, folder);
	print_store(a, &s, folder, false);
	return SOPCTL_OK;
}

const struct sopctl_verb sopctl_store_verbs[] = {
	{"store", "list|info DIRECTORY",
		"Show directories as stores: items, sessions, erasure code", "json", 2, 2,
		"list: those in DIRECTORY; info: itself. VOLUME by its label stands for its root. "
		"The volume must be\nmounted.\n",
		run_store},
	{0},
};
