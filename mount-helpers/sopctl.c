#include "mount-helpers/sopctl.h"
#include "core/stdfds.h"

#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <unistd.h>

#define PROGRAM "sopctl"

static const struct sopctl_verb *const groups[] = {sopctl_status_verbs, sopctl_scrub_verbs,
	sopctl_disk_verbs, sopctl_events_verbs, sopctl_info_verbs, sopctl_store_verbs,
	sopctl_ec_verbs, sopctl_txn_verbs, sopctl_dump_verbs, sopctl_load_verbs,
	sopctl_import_verbs, sopctl_bench_verbs, sopctl_set_verbs};

/* ---- options -----------------------------------------------------------------------------------
 */

enum kind { FLAG, VALUE };

static const struct option_spec {
	const char *name;
	char letter; /* 0: none */
	enum kind kind;
	size_t at; /* in struct sopctl_args */
	const char *help;
} options[] = {
#define AT(member) offsetof(struct sopctl_args, member)
	{"json", 0, FLAG, AT(json), "print JSON, one object a line"},
	{"yes", 'y', FLAG, AT(yes), "do not ask"},
	{"dry-run", 'n', FLAG, AT(dry_run), "check everything, change nothing"},
	{"wait", 'w', FLAG, AT(wait), "wait until it has ended, and show progress"},
	{"verbose", 'v', FLAG, AT(verbose), "more: where space goes, names of lost files"},
	{"unhealthy", 'x', FLAG, AT(unhealthy), "only volumes with something wrong"},
	{"check", 0, FLAG, AT(check), "one line, and an exit code for monitoring"},
	{"force", 0, FLAG, AT(force), "take a folder that is not empty or shares a device"},
	{"follow", 'f', FLAG, AT(follow), "go on with what comes"},
	{"verify", 0, FLAG, AT(verify), "read and check all shards"},
	{"pause", 0, FLAG, AT(pause), "pause it"},
	{"resume", 0, FLAG, AT(resume), "go on with one that is paused"},
	{"stop", 0, FLAG, AT(stop), "end it"},
	{"cancel", 0, FLAG, AT(cancel), "end one that is under way; the disk is used again"},
	{"data-only", 0, FLAG, AT(data_only), "no copy of the registry on it"},
	{"rate", 0, VALUE, AT(rate), "read at most this much a second (as 50M)"},
	{"path", 0, VALUE, AT(path), "the folder where it is now"},
	{"no-repair", 0, FLAG, AT(no_repair), "bad shards that reads meet are left to scrub"},
	{"disks", 0, VALUE, AT(disks), "on these disks alone, as d1,d3"},
	{"key", 0, VALUE, AT(key), "bytes, string, int64, float64, json or json:INDEX"},
	{"duplicates", 0, FLAG, AT(duplicates), "a key may be there more than once"},
	{"balance", 0, FLAG, AT(balance), "full leaves give to their neighbours before they split"},
	{"slot-length", 0, VALUE, AT(slot_length), "items a node holds at most, 2 to 20000"},
	{"value", 0, VALUE, AT(value), "where values live: auto, small, medium or big"},
	{"cache", 0, VALUE, AT(cache), "which nodes stay in memory: normal, hot or cold"},
	{"ec", 0, VALUE, AT(ec), "erasure code profile, by name"},
	{"session", 0, VALUE, AT(session), "close or write: when what is written is committed"},
	{"note", 0, VALUE, AT(note), "a description"},
	{"size", 0, VALUE, AT(size), "write this much (256M)"},
	{"contents", 0, VALUE, AT(contents), "what is in files up to this size, too (as 4K)"},
	{"retry", 0, VALUE, AT(retry), "run it again up to this often when another was first"},
	{"kind", 0, VALUE, AT(kind), "only events of this kind: commit, session, disk or log"},
};

static bool takes(const struct sopctl_verb *v, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = v->options; (p = strstr(p, name)); p += len)
		if ((p == v->options || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
			return true;
	return false;
}

static void print_help(const struct sopctl_verb *v)
{
	printf("usage: " PROGRAM " %s %s\n%s.\n", v->name, v->usage, v->summary);
	if (v->help)
		printf("\n%s", v->help);
	fputc('\n', stdout);
	for (size_t i = 0; i < SOP_ARRAY_LEN(options); i++) {
		char name[40];

		if (!takes(v, options[i].name))
			continue;
		snprintf(name, sizeof(name), "%c%c%s--%s%s", options[i].letter ? '-' : ' ',
			options[i].letter ? options[i].letter : ' ',
			options[i].letter ? ", " : "  ", options[i].name,
			options[i].kind == VALUE ? "=VALUE" : "");
		printf("  %-20s %s\n", name, options[i].help);
	}
	printf("  -h, --help           print this\n");
}

static void print_usage(FILE *o)
{
	fprintf(o,
		"usage: " PROGRAM " VERB [options] [VOLUME] ...\n"
		"Look after sopfs volumes. VOLUME is a mount point, a member folder, a label or a "
		"UUID.\n\n");
	for (size_t g = 0; g < SOP_ARRAY_LEN(groups); g++)
		for (const struct sopctl_verb *v = groups[g]; v->name; v++)
			fprintf(o, "  %-12s %s\n", v->name, v->summary);
	fprintf(o,
		"\n'" PROGRAM " VERB --help' tells more of each.\n"
		"Exit codes: 0 done, 1 failure, 2 usage, 3 done in part, 4 no such volume, 5 in "
		"use by\nanother, 6 permission, 7 the volume cannot do without it (degraded).\n");
}

static const struct sopctl_verb *find_verb(const char *name)
{
	for (size_t g = 0; g < SOP_ARRAY_LEN(groups); g++)
		for (const struct sopctl_verb *v = groups[g]; v->name; v++)
			if (strcmp(v->name, name) == 0)
				return v;
	return NULL;
}

static int misused(const struct sopctl_verb *v)
{
	fprintf(stderr, "Try '" PROGRAM " %s --help'.\n", v->name);
	return SOPCTL_USAGE;
}

/* 0: go on; -1: nothing is left to do; else what to exit with. */
static int parse(struct sopctl_args *a, const struct sopctl_verb *v, int argc, char **argv)
{
	struct option longs[SOP_ARRAY_LEN(options) + 2] = {0};
	char shorts[2 * SOP_ARRAY_LEN(options) + 4] = "h";
	size_t n = 0, s = 1;
	int c;

	for (size_t i = 0; i < SOP_ARRAY_LEN(options); i++) {
		if (!takes(v, options[i].name))
			continue;
		longs[n++] = (struct option){options[i].name,
			options[i].kind == VALUE ? required_argument : no_argument, NULL,
			256 + (int)i};
		if (options[i].letter)
			shorts[s++] = options[i].letter;
	}
	longs[n] = (struct option){"help", no_argument, NULL, 'h'};
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		size_t i = 0;

		if (c == 'h') {
			print_help(v);
			return -1;
		}
		if (c == '?') /* getopt has said what is wrong */
			return misused(v);
		if (c >= 256)
			i = (size_t)c - 256;
		else
			while (options[i].letter != c || !takes(v, options[i].name))
				i++;
		if (options[i].kind == FLAG)
			*(bool *)((char *)a + options[i].at) = true;
		else
			*(const char **)(void *)((char *)a + options[i].at) = optarg;
	}
	a->word = argv + optind;
	a->words = argc - optind;
	if (a->words >= v->min_words && a->words <= v->max_words)
		return 0;
	fprintf(stderr, PROGRAM " %s: %s; usage: " PROGRAM " %s %s\n", v->name,
		a->words < v->min_words ? "a word is missing" : "too many words", v->name,
		v->usage);
	return misused(v);
}

/* ---- for all verbs -----------------------------------------------------------------------------
 */

int sopctl_fail(int code, const char *fmt, ...)
{
	sop_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	fprintf(stderr, PROGRAM ": %s\n", text ? sopctl_clean(text) : "out of memory");
	return code;
}

const char *sopctl_digits(const char *text, uint64_t max, char end, uint64_t *out)
{
	char *stop;

	if (!isdigit((unsigned char)*text))
		return NULL;
	errno = 0;
	*out = strtoull(text, &stop, 10);
	return errno || *out > max || *stop != end ? NULL : stop;
}

int sopctl_exit_of(int rc)
{
	switch (rc) {
	case 0:
		return SOPCTL_OK;
	case -EPERM:
	case -EACCES:
		return SOPCTL_PERMISSION;
	case SOP_EINUSE:
		return SOPCTL_LOCKED;
	case SOP_EDISKS:
		return SOPCTL_DEGRADED;
	case SOP_ENOTVOLUME:
		return SOPCTL_NO_VOLUME;
	default:
		return SOPCTL_FAILURE;
	}
}

int sopctl_confirm(const struct sopctl_args *a, const char *fmt, ...)
{
	char answer[16] = "";
	va_list ap;

	if (a->yes || a->dry_run)
		return SOPCTL_OK;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return sopctl_fail(SOPCTL_USAGE,
			"this changes the volume's disks; say --yes, as nobody can be asked here");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" [y/N] ", stderr);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return SOPCTL_OK;
	return sopctl_fail(SOPCTL_FAILURE, "nothing was done");
}

void sopctl_print_json(const json_t *j)
{
	json_dumpf(j, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sopctl_args a = {0};
	const struct sopctl_verb *v;
	char name[32];
	int rc;

	sop_stdfds_take();
	if (argc < 2) {
		print_usage(stderr);
		return SOPCTL_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0) {
		print_usage(stdout);
		return SOPCTL_OK;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts(PROGRAM " (sopfs) " SOPFS_VERSION);
		return SOPCTL_OK;
	}
	v = find_verb(argv[1]);
	if (!v) {
		fprintf(stderr,
			PROGRAM ": there is no verb \"%s\"; '" PROGRAM " --help' lists them\n",
			argv[1]);
		return SOPCTL_USAGE;
	}
	/* So that getopt says whose option it is that there is not. */
	snprintf(name, sizeof(name), PROGRAM " %s", v->name);
	argv[1] = name;
	rc = parse(&a, v, argc - 1, argv + 1);
	rc = rc < 0 ? SOPCTL_OK : rc ? rc : v->run(&a);
	/* A full disk or closed pipe at the other end is an error to tell, and has no other teller.
	 */
	errno = 0;
	if (fflush(stdout) || ferror(stdout))
		return sopctl_fail(rc ? rc : SOPCTL_FAILURE, "standard output: %s",
			errno ? strerror(errno) : "not all could be written");
	return rc;
}
