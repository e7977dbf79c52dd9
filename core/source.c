#include "core/source.h"

#include <ctype.h>
#include <glob.h>
#include <stdio.h>
#include <unistd.h>

/* ---- lists -------------------------------------------------------------------------------------
 */

int sop_paths_add(struct sop_paths *p, const char *path, struct sop_err *e)
{
	char **more = reallocarray(p->path, p->n + 1, sizeof(*more));

	if (more)
		p->path = more;
	if (more)
		more[p->n] = strdup(path);
	if (!more || !more[p->n])
		return sop_fail(e, -ENOMEM, "%s", path);
	p->n++;
	return 0;
}

void sop_paths_release(struct sop_paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->path[i]);
	free(p->path);
	*p = (struct sop_paths){0};
}

/* From *p to the next separator or the end: the name, and the same as a pattern of glob(3), twice
 * as long at most. `special` are the characters that a backslash takes the meaning from. True:
 * there were characters of patterns among these. */
static bool next_entry(
	const char **p, char separator, const char *special, char *name, char *pattern)
{
	bool wild = false;

	for (; **p && **p != separator; ++*p) {
		bool escaped = **p == '\\' && (*p)[1] && strchr(special, (*p)[1]);

		*p += escaped;
		wild |= !escaped && strchr("*?[", **p);
		if (escaped || **p == '\\')
			*pattern++ = '\\';
		*pattern++ = *name++ = **p;
	}
	*pattern = *name = '\0';
	return wild;
}

/* A folder of just that name wins over a pattern: "/srv/disk[1]" may be a name. */
static int add_folder(struct sop_paths *p, const char *name, const char *pattern, struct sop_err *e)
{
	glob_t g;
	int rc;

	if (!pattern || !access(name, F_OK))
		return sop_paths_add(p, name, e);
	rc = glob(pattern, 0, NULL, &g);
	if (rc == GLOB_NOMATCH)
		return sop_say(e, -ENOENT,
			"%s: matches no folder; check the pattern, and that the disks are mounted",
			pattern);
	if (rc)
		return sop_fail(e, rc == GLOB_NOSPACE ? -ENOMEM : -EIO, "%s", pattern);
	for (size_t i = 0; !rc && i < g.gl_pathc; i++)
		rc = sop_paths_add(p, g.gl_pathv[i], e);
	globfree(&g);
	return rc;
}

static int split(struct sop_paths *p, const char *list, char separator, const char *special,
	bool folders, struct sop_err *e)
{
	sop_autofree char *name = malloc(strlen(list) + 1);
	sop_autofree char *pattern = malloc(2 * strlen(list) + 1);

	if (!name || !pattern)
		return sop_fail(e, -ENOMEM, "%s", list);
	for (;; list++) {
		bool wild = next_entry(&list, separator, special, name, pattern);
		int rc = 0;

		if (name[0])
			rc = folders ? add_folder(p, name, wild ? pattern : NULL, e)
				     : sop_paths_add(p, name, e);
		else if (!folders)
			rc = sop_say(e, -EINVAL, "the list has an empty name");
		if (rc || !*list)
			return rc;
	}
}

int sop_list_split(struct sop_paths *p, const char *list, char separator, struct sop_err *e)
{
	const char special[] = {separator, '\\', '\0'};

	return split(p, list, separator, special, false, e);
}

int sop_source_folders(struct sop_paths *p, const char *list, struct sop_err *e)
{
	return split(p, list, ':', ":\\*?[", true, e);
}

/* ---- a volume by name --------------------------------------------------------------------------
 */

/* A word that can be only a name: no list of folders is one without a slash, but a folder in the
 * working directory, and that is meant when there is no such file. *path NULL: it can not. */
static int config_path(char **path, const char *name, struct sop_err *e)
{
	const char *dir = getenv("SOPFS_CONFIG_DIR");

	*path = NULL;
	if (!*name || strpbrk(name, "/:\\") || *name == '.')
		return 0;
	if (asprintf(path, "%s/%s.conf", dir ? dir : "/etc/sopfs", name) >= 0)
		return 0;
	*path = NULL;
	return sop_fail(e, -ENOMEM, "%s", name);
}

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (isspace((unsigned char)*text))
		text++;
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return text;
}

struct config {
	char **list;
	int (*fn)(void *arg, const char *key, const char *value, struct sop_err *e);
	void *arg;
};

static int config_line(const struct config *c, char *line, struct sop_err *e)
{
	char *key = trim(line), *eq = strchr(key, '='), *value;

	if (!*key || *key == '#')
		return 0;
	if (!eq)
		return c->fn ? sop_say(e, -EINVAL, "\"%s\" is no setting; write key = value", key)
			     : 0;
	*eq = '\0';
	key = trim(key);
	value = trim(eq + 1);
	if (strcmp(key, "source") != 0)
		return c->fn ? c->fn(c->arg, key, value, e) : 0;
	free(*c->list); /* the last one counts */
	*c->list = strdup(value);
	return *c->list ? 0 : sop_fail(e, -ENOMEM, "source");
}

static int read_lines(const struct config *c, FILE *f, const char *path, struct sop_err *e)
{
	sop_autofree char *line = NULL;
	unsigned number = 0;
	size_t cap = 0;
	int rc;

	for (;;) {
		errno = 0;
		if (getline(&line, &cap, f) < 0)
			return feof(f) ? 0 : sop_fail(e, errno ? -errno : -EIO, "%s", path);
		number++;
		rc = config_line(c, line, e);
		if (rc)
			return sop_wrap(e, rc, "%s:%u", path, number);
	}
}

int sop_source_config(char **list, const char *name,
	int (*fn)(void *arg, const char *key, const char *value, struct sop_err *e), void *arg,
	struct sop_err *e)
{
	const struct config c = {list, fn, arg};
	sop_autofree char *path = NULL;
	int rc = config_path(&path, name, e);
	FILE *f;

	*list = NULL;
	if (rc || !path)
		return rc;
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : sop_fail(e, -errno, "%s", path);
	rc = read_lines(&c, f, path, e);
	fclose(f);
	if (!rc && !*list)
		rc = sop_say(e, -EINVAL,
			"%s: says no source; add a line source = /data/d1:/data/d2", path);
	if (rc) {
		free(*list);
		*list = NULL;
	}
	return rc;
}

int sop_source_find(struct sop_paths *p, const char *source, struct sop_err *e)
{
	sop_autofree char *list = NULL;
	int rc = sop_source_config(&list, source, NULL, NULL, e);

	return rc ? rc : sop_source_folders(p, list ? list : source, e);
}
