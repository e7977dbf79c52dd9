/* dump: a volume's metadata as text, for load, for backups, and to look into. */
#include "core/human.h"
#include "mount-helpers/sopctl.h"

struct printing {
	uint64_t errors;
	bool ended;
};

static bool print_line(void *arg, json_t *x)
{
	struct printing *p = arg;

	if (json_is_true(json_object_get(x, "end"))) {
		p->ended = true;
		p->errors = sopctl_number(x, "errors");
	}
	json_dumpf(x, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	return !ferror(stdout);
}

static int run_dump(const struct sopctl_args *a)
{
	struct printing p = {0};
	struct sopctl_volume v;
	uint64_t contents = 0;
	int rc;

	if (a->contents && (sop_human_parse_size(&contents, a->contents) || contents > 1u << 20))
		return sopctl_fail(SOPCTL_USAGE,
			"--contents=%s: must be a size up to 1M; more is a matter for a backup "
			"program",
			a->contents);
	rc = sopctl_find(&v, a->word[0], false, true);
	if (!rc)
		rc = sopctl_lines(&v,
			json_pack("{s:s, s:I}", "verb", "dump", "contents", (json_int_t)contents),
			SOPCTL_LONG_MS, print_line, &p);
	if (!rc && !p.ended)
		rc = sopctl_fail(SOPCTL_FAILURE, "%s: the dump was cut off", sopctl_name(&v));
	if (!rc && p.errors) {
		sopctl_fail(0, "%s: %llu names could not be read; the dump says which",
			sopctl_name(&v), (unsigned long long)p.errors);
		rc = SOPCTL_PARTIAL;
	}
	sopctl_close(&v);
	return rc;
}

const struct sopctl_verb sopctl_dump_verbs[] = {
	{"dump", "VOLUME", "Print all names and their attributes, one JSON object a line",
		"contents", 1, 1,
		"All of one committed version: types, owners, modes, times, extended attributes, "
		"links, and how\nstores are made; not what is in files, but for small ones with "
		"--contents. 'sopctl load' takes it.\nThe volume must be mounted; only root and "
		"who mounted it may.\n",
		run_dump},
	{0},
};
