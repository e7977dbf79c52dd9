/* Lines are "36 35 98:0 /root /mnt opts optional... - type source superopts", proc(5). */
#include "fs/mountinfo.h"

#include <stdio.h>

void sopfs_mountinfo_unescape(char *field)
{
	char *in = field, *out = field;

	while (*in) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
			in[3] >= '0' && in[3] <= '7') {
			*out++ =
				(char)(((in[1] - '0') << 6) | ((in[2] - '0') << 3) | (in[3] - '0'));
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = '\0';
}

/* "ro" comes first where it is said, in both lists. */
static bool says_ro(const char *opts)
{
	return opts && !strncmp(opts, "ro", 2) && (!opts[2] || opts[2] == ',');
}

static bool parse(struct sopfs_mount *out, char *line, const char *path)
{
	char *save = NULL, *field = strtok_r(line, " \n", &save);
	unsigned n;

	for (n = 0; field && n < 5; n++, field = strtok_r(NULL, " \n", &save)) {
		if (n == 2 && sscanf(field, "%u:%u", &out->major, &out->minor) != 2)
			return false;
		if (n == 4) {
			sopfs_mountinfo_unescape(field);
			if (strcmp(field, path))
				return false;
		}
	}
	out->read_only = says_ro(field);
	while (field && strcmp(field, "-"))
		field = strtok_r(NULL, " \n", &save);
	if (!field)
		return false;
	field = strtok_r(NULL, " \n", &save);
	snprintf(out->type, sizeof(out->type), "%s", field ? field : "");
	field = strtok_r(NULL, " \n", &save);
	snprintf(out->source, sizeof(out->source), "%s", field ? field : "");
	sopfs_mountinfo_unescape(out->source);
	out->read_only |= says_ro(strtok_r(NULL, " \n", &save));
	return true;
}

int sopfs_mount_at(struct sopfs_mount *out, const char *path, struct sop_err *e)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	sop_autofree char *line = NULL;
	struct sopfs_mount one;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return sop_fail(e, -errno, "/proc/self/mountinfo");
	errno = 0;
	/* A later line lies over an earlier one. */
	while (getline(&line, &cap, f) > 0) {
		if (parse(&one, line, path)) {
			*out = one;
			found = 1;
		}
	}
	/* Cut short, it says nothing of what would have come. */
	if (!feof(f))
		found = sop_fail(e, errno ? -errno : -EIO, "/proc/self/mountinfo");
	fclose(f);
	return found;
}
