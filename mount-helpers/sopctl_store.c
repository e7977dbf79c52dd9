/* store: directories as the B-trees they are. Read through the mount, with the caller's own rights.
 */
#include "mount-helpers/sopctl.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/xattr.h>

struct store {
	char count[32], session[32], ec[64], slot_length[32], unique[4], value[16], balance[4],
		cache[16];
	char key[4200], note[4200];
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
	attribute(s->unique, sizeof(s->unique), path, "sop.unique");
	attribute(s->balance, sizeof(s->balance), path, "sop.balance");
	attribute(s->cache, sizeof(s->cache), path, "sop.cache");
	attribute(s->value, sizeof(s->value), path, "sop.value");
	attribute(s->key, sizeof(s->key), path, "sop.key");
	attribute(s->note, sizeof(s->note), path, "sop.note");
	return s->count[0] != '\0';
}

static json_t *store_json(const struct store *s, const char *path)
{
	json_t *j =
		json_pack("{s:I, s:s, s:s, s:I}", "items", (json_int_t)atoll(s->count), "session",
			s->session, "ec", s->ec, "slot_length", (json_int_t)atoll(s->slot_length));

	if (j) {
		json_object_set_new(j, "key", json_string_nocheck(s->key));
		json_object_set_new(j, "duplicates", json_boolean(strcmp(s->unique, "0") == 0));
		json_object_set_new(j, "balance", json_boolean(strcmp(s->balance, "1") == 0));
		json_object_set_new(j, "cache", json_string_nocheck(s->cache));
		json_object_set_new(j, "value", json_string_nocheck(s->value));
		sopctl_set_text(j, "note", s->note);
		sopctl_set_text(j, "path", path);
	}
	return j;
}

static void print_store(const struct sopctl_args *a, struct store *s, char *path, bool list)
{
	json_t *j = a->json ? store_json(s, path) : NULL;

	if (a->json) {
		sopctl_print_json(j);
		json_decref(j);
	} else if (list) {
		printf("%12s  %-6s %-8s %s\n", s->count, s->session, s->ec, sopctl_clean(path));
	} else {
		printf("        store: %s\n        items: %s\n      session: %s\n erasure code: "
		       "%s\nitems a node: %s%s\n",
			sopctl_clean(path), s->count, s->session, s->ec,
			strcmp(s->slot_length, "0") ? s->slot_length : "by size",
			strcmp(s->balance, "1") ? "" : ", balanced");
		printf("         keys: %s%s\n       values: %s\n        cache: %s\n         note: "
		       "%s\n",
			sopctl_clean(s->key), strcmp(s->unique, "0") ? "" : ", duplicates",
			s->value, s->cache, sopctl_clean(s->note));
	}
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

/* ---- making and changing -----------------------------------------------------------------------
 */

/* The attributes of the mount that stand for the options given; those that fix the shape come
 * first. */
static int set_options(const struct sopctl_args *a, const char *path)
{
	const struct {
		const char *option, *name, *value;
	} all[] = {
		{"key", "sop.key", a->key},
		{"duplicates", "sop.unique", a->duplicates ? "0" : NULL},
		{"balance", "sop.balance", a->balance ? "1" : NULL},
		{"slot-length", "sop.slot_length", a->slot_length},
		{"value", "sop.value", a->value},
		{"ec", "sop.ec", a->ec},
		{"cache", "sop.cache", a->cache},
		{"session", "sop.session", a->session},
		{"note", "sop.note", a->note},
	};

	for (size_t i = 0; i < SOP_ARRAY_LEN(all); i++) {
		int err;

		if (!all[i].value ||
			!setxattr(path, all[i].name, all[i].value, strlen(all[i].value), 0))
			continue;
		err = errno;
		return sopctl_fail(
			err == EACCES || err == EPERM ? SOPCTL_PERMISSION : SOPCTL_FAILURE,
			"%s: --%s=%s: %s", path, all[i].option, all[i].value,
			err == EINVAL	   ? "the volume does not take this value; 'sopctl store "
					     "--help' and 'sopctl ec list' tell what it takes"
			: err == ENOTEMPTY ? "is fixed by the first item; the store must be empty"
			: err == EPERM	   ? "only the owner of the directory may"
					   : strerror(err));
	}
	return SOPCTL_OK;
}

static bool any_option(const struct sopctl_args *a)
{
	return a->key || a->duplicates || a->balance || a->slot_length || a->value || a->ec ||
	       a->cache || a->session || a->note;
}

static int show(const struct sopctl_args *a, char *path)
{
	struct store s;

	if (!read_store(&s, path))
		return sopctl_fail(
			SOPCTL_NO_VOLUME, "%s: is no directory of a mounted sopfs volume", path);
	print_store(a, &s, path, false);
	return SOPCTL_OK;
}

/* All of it or nothing: the directory goes again when an option is refused. */
static int create(const struct sopctl_args *a, char *path)
{
	struct store s;
	int rc;

	if (mkdir(path, 0777)) /* less the umask */
		return sopctl_fail(
			errno == EACCES || errno == EPERM ? SOPCTL_PERMISSION : SOPCTL_FAILURE,
			"%s: %s%s", path, strerror(errno),
			errno == EEXIST ? "; 'sopctl store set' changes it" : "");
	if (!read_store(&s, path))
		rc = sopctl_fail(
			SOPCTL_NO_VOLUME, "%s: does not lie in a mounted sopfs volume", path);
	else
		rc = set_options(a, path);
	if (!rc)
		return a->json ? show(a, path) : SOPCTL_OK;
	if (rmdir(path))
		sopctl_fail(rc, "%s: cannot be removed again: %s", path, strerror(errno));
	return rc;
}

static int set(const struct sopctl_args *a, char *path)
{
	struct store s;
	int rc;

	if (!any_option(a))
		return sopctl_fail(SOPCTL_USAGE, "store set: nothing to set was given");
	if (!read_store(&s, path))
		return show(a, path);
	rc = set_options(a, path);
	return !rc && a->json ? show(a, path) : rc;
}

static int run_store(const struct sopctl_args *a)
{
	static int (*const change[])(const struct sopctl_args *a, char *path) = {create, set};
	static const char *const actions[] = {"create", "set", "list", "info"};
	sop_autofree char *folder = NULL;
	struct store s;
	size_t i = 0;
	int rc;

	while (i < SOP_ARRAY_LEN(actions) && strcmp(a->word[0], actions[i]) != 0)
		i++;
	if (i == SOP_ARRAY_LEN(actions))
		return sopctl_fail(
			SOPCTL_USAGE, "store %s: there is list, info, create, and set", a->word[0]);
	if (i < SOP_ARRAY_LEN(change))
		return change[i](a, a->word[1]);
	if (any_option(a))
		return sopctl_fail(SOPCTL_USAGE,
			"store %s: changes nothing, and takes --json alone", actions[i]);
	folder = sopctl_folder(a->word[1], &rc);
	if (!folder)
		return rc;
	if (!read_store(&s, folder))
		return show(a, folder);
	if (strcmp(actions[i], "list") == 0)
		return list(a, folder);
	print_store(a, &s, folder, false);
	return SOPCTL_OK;
}

const struct sopctl_verb sopctl_store_verbs[] = {
	{"store", "list|info|create|set DIRECTORY",
		"Show directories as stores, make one, set its options",
		"json key duplicates balance slot-length value cache ec session note", 2, 2,
		"list: those in DIRECTORY; info: itself. VOLUME by its label stands for its root. "
		"create makes it\nwith these options, or not at all; set gives them to one that is "
		"empty (--cache, --session and --note to any).\nThe volume must be mounted.\n",
		run_store},
	{0},
};
