#include "mount-helpers/fsck_source.h"

#include <ctype.h>
#include <glob.h>
#include <stdio.h>

static int add_path(char ***path, size_t *n, const char *one, struct sop_err *e)
{
	char **more = reallocarray(*path, *n + 1, sizeof(*more));

	if (more)
		*path = more;
	if (more)
		more[*n] = strdup(one);
	if (!more || !more[*n])
		return sop_fail(e, -ENOMEM, "%s", one);
	++*n;
	return 0;
}

/* A folder of just that name wins over a pattern. */
static int add_folder(
	char ***path, size_t *n, const char *name, const char *pattern, struct sop_err *e)
{
	glob_t g;
	int rc;

	if (!pattern || !access(name, F_OK))
		return add_path(path, n, name, e);
	rc = glob(pattern, 0, NULL, &g);
	if (rc == GLOB_NOMATCH)
		return sop_say(e, -ENOENT,
			"%s: matches no folder; check the pattern, and that the disks are mounted",
			pattern);
	if (rc)
		return sop_fail(e, rc == GLOB_NOSPACE ? -ENOMEM : -EIO, "%s", pattern);
	for (size_t i = 0; !rc && i < g.gl_pathc; i++)
		rc = add_path(path, n, g.gl_pathv[i], e);
	globfree(&g);
	return rc;
}

/* With ':' between; a backslash takes the meaning from the character behind it. */
static int add_folders(char ***path, size_t *n, const char *text, struct sop_err *e)
{
	sop_autofree char *name = malloc(strlen(text) + 1);
	sop_autofree char *pattern = malloc(2 * strlen(text) + 1);
	int rc = 0;

	if (!name || !pattern)
		return sop_fail(e, -ENOMEM, "%s", text);
	while (!rc && *text) {
		size_t len = 0, plen = 0;
		bool wild = false;

		for (; *text && *text != ':'; text++) {
			bool escaped = *text == '\\' && text[1];

			text += escaped;
			wild = wild || (!escaped && strchr("*?[", *text));
			if (escaped || *text == '\\')
				pattern[plen++] = '\\';
			pattern[plen++] = name[len++] = *text;
		}
		name[len] = pattern[plen] = '\0';
		if (len)
			rc = add_folder(path, n, name, wild ? pattern : NULL, e);
		text += *text == ':';
	}
	return rc;
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

/* The settings are sopfs's to judge; here only where the volume lies. *source: malloc'ed, NULL:
 * there is no such file. */
static int of_config(char **source, const char *name, struct sop_err *e)
{
	const char *dir = getenv("SOPFS_CONFIG_DIR");
	sop_autofree char *file = NULL, *line = NULL;
	size_t cap = 0;
	FILE *f;

	*source = NULL;
	if (!*name || *name == '.' || strpbrk(name, "/:\\"))
		return 0;
	if (asprintf(&file, "%s/%s.conf", dir ? dir : "/etc/sopfs", name) < 0) {
		file = NULL;
		return sop_fail(e, -ENOMEM, "%s", name);
	}
	f = fopen(file, "re");
	if (!f)
		return errno == ENOENT ? 0 : sop_fail(e, -errno, "%s", file);
	while (getline(&line, &cap, f) > 0) {
		char *key = trim(line), *eq = strchr(key, '=');

		if (*key == '#' || !eq)
			continue;
		*eq = '\0';
		if (strcmp(trim(key), "source") != 0)
			continue;
		free(*source); /* the last one counts */
		*source = strdup(trim(eq + 1));
	}
	fclose(f);
	return *source ? 0 : sop_say(e, -EINVAL, "%s: says no source", file);
}

int fsck_source(char ***path, size_t *n, const char *source, struct sop_err *e)
{
	sop_autofree char *folders = NULL;
	int rc = of_config(&folders, source, e);

	return rc ? rc : add_folders(path, n, folders ? folders : source, e);
}
