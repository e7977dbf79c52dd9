/* info FILE: where the bytes of a file lie, and whether they are all there. */
#include "mount-helpers/sopctl.h"

#include <sys/stat.h>

#include "core/human.h"

/* The path of a file from the root of its volume. NULL: it does not lie below the mount point. */
static const char *below(const struct sopctl_volume *v, const char *path)
{
	const char *point = sopctl_text(json_object_get(v->hello, "mount"), "point");
	size_t len = strlen(point);

	if (!len || strncmp(path, point, len) || (path[len] && path[len] != '/'))
		return NULL;
	return path + len;
}

/* The last part stays: a symbolic link is an item, too. */
static char *real_name(const char *path)
{
	sop_autofree char *full = sopctl_absolute(path), *real = NULL;
	char *slash = full ? strrchr(full, '/') : NULL, *out;

	if (!slash || !slash[1])
		return full ? strdup(full) : NULL;
	*slash = '\0';
	real = sopctl_realpath(slash == full ? "/" : full);
	if (asprintf(&out, "%s/%s", !real ? full : strcmp(real, "/") ? real : "", slash + 1) < 0)
		return NULL;
	return out;
}

static const char *kind_of(uint64_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFREG:
	case 0:
		return "file";
	default:
		return "special file";
	}
}

static void print_shards(const json_t *extent)
{
	const json_t *s;
	size_t i;

	json_array_foreach(json_object_get(extent, "shards"), i, s)
	{
		const char *state = sopctl_text(s, "state");
		bool bad = strcmp(state, "ok") && strcmp(state, "unknown");

		printf(" %s%s%s%s%s", sopctl_text(s, "disk"),
			json_is_true(json_object_get(s, "parity")) ? "p" : "", bad ? "(" : "",
			bad ? state : "", bad ? ")" : "");
	}
}

static void print_extents(const json_t *result)
{
	const json_t *x;
	size_t i;

	json_array_foreach(json_object_get(result, "extents"), i, x)
	{
		printf("  %14llu %12llu ", (unsigned long long)sopctl_number(x, "offset"),
			(unsigned long long)sopctl_number(x, "length"));
		if (json_is_true(json_object_get(x, "inline"))) {
			printf(" in the directory\n");
			continue;
		}
		printf("%9llu %12llu  %llu+%llu ", (unsigned long long)sopctl_number(x, "segment"),
			(unsigned long long)sopctl_number(x, "segment_offset"),
			(unsigned long long)sopctl_number(x, "data_shards"),
			(unsigned long long)sopctl_number(x, "parity_shards"));
		print_shards(x);
		putchar('\n');
	}
}

static void print_head(const char *path, const json_t *r, bool verify)
{
	char size[SOP_HUMAN_TEXT], stored[SOP_HUMAN_TEXT];
	const char *kind = kind_of(sopctl_number(r, "mode"));
	sop_autofree char *shown = strdup(path);

	printf("    %s: %s\n", strcmp(kind, "file") ? "item" : "file",
		shown ? sopctl_clean(shown) : "?");
	printf("   inode: %llu   version %llu   %s", (unsigned long long)sopctl_number(r, "inode"),
		(unsigned long long)sopctl_number(r, "version"), kind);
	if (strcmp(kind, "directory") == 0)
		printf(", %llu items\n", (unsigned long long)sopctl_number(r, "items"));
	else
		printf(", %llu bytes (%s), %llu link%s\n",
			(unsigned long long)sopctl_number(r, "size"),
			sop_human_size(size, sopctl_number(r, "size")),
			(unsigned long long)sopctl_number(r, "links"),
			sopctl_number(r, "links") == 1 ? "" : "s");
	if (strcmp(kind, "file"))
		return;
	printf("  stored: %s in %llu extents",
		sop_human_size(stored, sopctl_number(r, "stored_bytes")),
		(unsigned long long)sopctl_number(r, "extent_count"));
	printf(", shards: %llu missing, ", (unsigned long long)sopctl_number(r, "missing_shards"));
	if (verify)
		printf("%llu corrupt\n", (unsigned long long)sopctl_number(r, "corrupt_shards"));
	else
		printf("not verified (--verify)\n");
}

/* All extents, a thousand or so at a time. */
static int show(struct sopctl_volume *v, const struct sopctl_args *a, const char *path,
	const char *name, bool *bad)
{
	uint64_t seen = 0, all = 0;
	int code = 0;

	do {
		json_t *request = json_pack("{s:s, s:b, s:I}", "verb", "info", "verify",
			a->verify && !seen, "skip", (json_int_t)seen);
		json_t *r;
		size_t n;

		sopctl_set_text(request, "path", name);
		r = sopctl_ask(v, request, SOPCTL_LONG_MS, &code);
		n = json_array_size(json_object_get(r, "extents"));
		if (!r)
			return code;
		*bad |= sopctl_number(r, "missing_shards") || sopctl_number(r, "corrupt_shards");
		if (a->json) {
			sopctl_set_text(r, "path", path);
			sopctl_print_json(r);
		} else {
			if (!seen)
				print_head(path, r, a->verify);
			if (!seen && n)
				printf("%16s %12s %9s %12s  %s\n", "OFFSET", "LENGTH", "SEGMENT",
					"AT", "EC   SHARDS (p: parity)");
			print_extents(r);
		}
		all = sopctl_number(r, "extent_count");
		seen += n;
		if (!n)
			all = seen;
		json_decref(r);
	} while (seen < all);
	return code;
}

static int run_info(const struct sopctl_args *a)
{
	int worst = 0;

	for (int i = 0; i < a->words; i++) {
		sop_autofree char *path = real_name(a->word[i]);
		struct sopctl_volume v = {.fd = -1};
		const char *name;
		bool bad = false;
		int rc = path ? sopctl_find(&v, path, true, true)
			      : sopctl_fail(SOPCTL_FAILURE, "%s: out of memory", a->word[i]);

		name = rc ? NULL : below(&v, path);
		if (!rc && !name)
			rc = sopctl_fail(SOPCTL_NO_VOLUME, "%s: does not lie on a mounted volume",
				a->word[i]);
		if (!rc)
			rc = show(&v, a, a->word[i], name, &bad);
		if (!rc && bad)
			rc = SOPCTL_PARTIAL;
		sopctl_close(&v);
		worst = SOP_MAX(worst, rc);
	}
	return worst;
}

const struct sopctl_verb sopctl_info_verbs[] = {
	{"info", "FILE...", "Show where a file's bytes lie, and whether all shards are there",
		"verify json", 1, 100000,
		"For root and the user who mounted the volume. Files that are being written are "
		"shown "
		"as they\nwere last committed. Exit code 3 when shards are missing or corrupt.\n",
		run_info},
	{0},
};
