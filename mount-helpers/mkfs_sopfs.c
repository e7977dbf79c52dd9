/* mkfs.sopfs: make a volume out of folders. */
#include <getopt.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/human.h"
#include "core/sop.h"
#include "core/source.h"
#include "core/stdfds.h"
#include "mount-helpers/complain.h"
#include "mount-helpers/fstab.h"

#ifndef SOPFS_VERSION
#define SOPFS_VERSION "0.1"
#endif

#define PROGRAM	      "mkfs.sopfs"
#define complain(...) tool_complain(PROGRAM, 1, __VA_ARGS__)
#define PROFILES_MAX  15 /* beside the default */

static const char usage[] =
	"usage: " PROGRAM " [options] DIR...\n"
	"Make a sopfs volume out of the folders DIR..., as a rule one on each drive.\n"
	"\n"
	"  -L LABEL               the volume's name\n"
	"  -U UUID                the volume's UUID (default: random)\n"
	"  --ec K+M               K data and M parity shards (default: by the number of folders:\n"
	"                         1+0, 1+1, 2+1, 2+2, 3+2, then 4+2)\n"
	"  --ec NAME=K+M[@DIR,DIR...][!]\n"
	"                         a further profile, for stores that name it or bear its name; on\n"
	"                         these folders alone; !: bad shards are not repaired on read\n"
	"  --stores DIR,DIR...    folders for the registry and journal replicas (default: the "
	"first\n"
	"                         M+1 of DIR...; \"\\,\" is a comma in a name)\n"
	"  --shared               to be mounted by several machines at once: see "
	"sopfs-shared(7)\n"
	"  --registry-hashmod N   blocks of a registry file, 250 to 750000 (default: 250)\n"
	"  -n                     check everything, write nothing\n"
	"  -f                     use folders that are not empty, are members of another volume,\n"
	"                         share a device, or have to be made\n"
	"  -q                     print errors alone\n"
	"  -v                     print more\n"
	"  -h, --help             print this\n"
	"  -V, --version          print the version\n";

struct args {
	struct sop_format_opts format;
	struct sop_uuid uuid;
	const char *const *disks;
	size_t n_disks;
	struct sop_paths stores;
	struct sop_format_profile profile[PROFILES_MAX];
	char *profile_text[PROFILES_MAX]; /* malloc'ed: what names point into */
	struct sop_paths profile_disks[PROFILES_MAX];
	bool quiet, verbose;
};

static void release(struct args *a)
{
	sop_paths_release(&a->stores);
	for (size_t i = 0; i < PROFILES_MAX; i++) {
		free(a->profile_text[i]);
		sop_paths_release(&a->profile_disks[i]);
	}
}

/* --- arguments ------------------------------------------------------------- */

/* Digits alone, at most max; the rest of the text is left in *end. */
static bool parse_number(const char *text, unsigned long max, unsigned long *out, const char **end)
{
	char *stop;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &stop, 10);
	*end = stop;
	return !errno && *out <= max;
}

/* NAME=K+M[@DIR[,DIR]...][!]: a profile beside the default; '!' switches repair on read off. */
static int parse_profile(struct args *a, const char *text, const char *equals)
{
	size_t n = a->format.n_profiles;
	struct sop_format_profile *p = &a->profile[n];
	unsigned long k, m;
	const char *end;
	char *list, *own = strdup(text);
	struct sop_err e = {0};

	if (!own)
		return complain("out of memory");
	a->profile_text[n] = own;
	a->format.profiles = a->profile;
	a->format.n_profiles++;
	own[equals - text] = '\0';
	p->name = own;
	if (!parse_number(equals + 1, 255, &k, &end) || *end != '+' ||
		!parse_number(end + 1, 255, &m, &end) || (*end && *end != '@' && *end != '!') ||
		!k || equals == text)
		return complain("--ec %s: must be NAME=K+M[@DIR,DIR...][!]", text);
	p->k = (unsigned)k;
	p->m = (unsigned)m;
	list = own + (end - text);
	p->no_repair = *list && list[strlen(list) - 1] == '!';
	if (p->no_repair)
		list[strlen(list) - 1] = '\0';
	if (*list != '@')
		return 0;
	if (sop_list_split(&a->profile_disks[n], list + 1, ',', &e))
		return complain("--ec %s: %s", text, e.text);
	p->disks = (const char *const *)a->profile_disks[n].path;
	p->n_disks = a->profile_disks[n].n;
	return 0;
}

static int parse_ec(struct args *a, const char *text)
{
	const char *equals = strchr(text, '=');
	unsigned long k, m;
	const char *end;

	if (equals)
		return a->format.n_profiles < PROFILES_MAX
			       ? parse_profile(a, text, equals)
			       : complain("--ec %s: too many profiles", text);

	if (!parse_number(text, 255, &k, &end) || *end != '+' ||
		!parse_number(end + 1, 255, &m, &end) || *end || !k)
		return complain("--ec %s: must be K+M, as in 4+2", text);
	a->format.k = (unsigned)k;
	a->format.m = (unsigned)m;
	return 0;
}

static int parse_hashmod(struct args *a, const char *text)
{
	unsigned long n;
	const char *end;

	if (!parse_number(text, 750000, &n, &end) || *end || n < 250)
		return complain("--registry-hashmod %s: must be a number from 250 to 750000", text);
	a->format.hashmod = (uint32_t)n;
	return 0;
}

/* Folders with commas between. */
static int parse_stores(struct args *a, const char *text)
{
	struct sop_err e = {0};

	if (sop_list_split(&a->stores, text, ',', &e))
		return complain("--stores %s: %s", text, e.text);
	a->format.stores = (const char *const *)a->stores.path;
	a->format.n_stores = a->stores.n;
	return 0;
}

static int parse_uuid(struct args *a, const char *text)
{
	if (sop_uuid_parse(&a->uuid, text))
		return complain("-U %s: is not a UUID", text);
	a->format.uuid = &a->uuid;
	return 0;
}

/* 0: go on; 1: error, said; -1: nothing is left to do. */
static int parse(struct args *a, int argc, char **argv)
{
	enum { OPT_EC = 256, OPT_STORES, OPT_HASHMOD, OPT_SHARED };
	static const struct option longs[] = {
		{"ec", required_argument, NULL, OPT_EC},
		{"stores", required_argument, NULL, OPT_STORES},
		{"registry-hashmod", required_argument, NULL, OPT_HASHMOD},
		{"shared", no_argument, NULL, OPT_SHARED},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c, rc = 0;

	while (!rc && (c = getopt_long(argc, argv, "L:U:nqvfhV", longs, NULL)) != -1) {
		switch (c) {
		case 'L':
			a->format.name = optarg;
			break;
		case 'U':
			rc = parse_uuid(a, optarg);
			break;
		case OPT_EC:
			rc = parse_ec(a, optarg);
			break;
		case OPT_STORES:
			rc = parse_stores(a, optarg);
			break;
		case OPT_HASHMOD:
			rc = parse_hashmod(a, optarg);
			break;
		case OPT_SHARED:
			a->format.shared = true;
			break;
		case 'n':
			a->format.dry_run = true;
			break;
		case 'q':
			a->quiet = true;
			break;
		case 'v':
			a->verbose = true;
			break;
		case 'f':
			a->format.force = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		case 'V':
			puts(PROGRAM " (sopfs) " SOPFS_VERSION);
			return -1;
		default: /* getopt has said what is wrong */
			return tool_misused(PROGRAM, 1);
		}
	}
	if (rc)
		return rc;
	a->disks = (const char *const *)&argv[optind];
	a->n_disks = (size_t)(argc - optind);
	if (!a->n_disks) {
		complain("no folder was given");
		return tool_misused(PROGRAM, 1);
	}
	return 0;
}

/* --- what is printed ------------------------------------------------------- */

static void print_fstab(const struct sop_format_report *r)
{
	const char *paths[SOP_FORMAT_MEMBERS];

	for (unsigned i = 0; i < r->members; i++)
		paths[i] = r->member[i].path;
	fstab_line(stdout, paths, r->members, "/MOUNTPOINT");
}

static void print_members(const struct sop_format_report *r)
{
	for (unsigned i = 0; i < r->members; i++)
		printf("  member:     %u %s (%s%s%s)\n", i, r->member[i].path,
			r->member[i].data ? "data" : "",
			r->member[i].data && r->member[i].registry ? ", " : "",
			r->member[i].registry ? "registry" : "");
	printf("  registry:   hash-mod %u\n", r->hashmod);
}

static void print_made(const struct args *a, const struct sop_format_report *r)
{
	char uuid[SOP_UUID_TEXT], total[SOP_HUMAN_TEXT], left[SOP_HUMAN_TEXT];

	printf("%s volume%s%s (uuid %s)\n", a->format.dry_run ? "would make" : "made",
		r->name[0] ? " " : "", r->name, sop_uuid_format(uuid, &r->uuid));
	printf("  capacity:   %s of data, %s free now (%u disk%s, erasure code %u+%u)\n",
		sop_human_size(total, r->total_bytes), sop_human_size(left, r->free_bytes),
		r->disks, r->disks == 1 ? "" : "s", r->k, r->m);
	if (r->m)
		printf("  tolerance:  any %u disk%s may fail (metadata: %u of %u replicas)\n", r->m,
			r->m == 1 ? "" : "s", r->replicas - 1, r->replicas);
	else
		printf("  tolerance:  none: checksums, but no redundancy; a lost disk loses "
		       "data\n");
	if (a->verbose)
		print_members(r);
	fputs("  fstab:      ", stdout);
	print_fstab(r);
}

static void warn(const struct args *a, const struct sop_format_report *r)
{
	if (a->quiet)
		return;
	if (r->one_device)
		complain("warning: folders share a device: one failing drive takes more than one "
			 "of them");
	if (r->m && r->replicas <= r->m)
		complain("warning: %u registry replica%s: metadata survives fewer losses than data",
			r->replicas, r->replicas == 1 ? "" : "s");
}

int main(int argc, char **argv)
{
	struct args a = {0};
	sop_autofree struct sop_format_report *report = calloc(1, sizeof(*report));
	struct sop_err e = {0};
	int rc;

	sop_stdfds_take();
	umask(umask(0) & 077); /* what is made is its owner's to use */
	rc = report ? parse(&a, argc, argv) : complain("out of memory");
	if (rc) {
		release(&a);
		return rc > 0;
	}
	a.format.report = report;
	if (sop_format(a.disks, a.n_disks, &a.format, NULL, &e)) {
		release(&a);
		return complain("%s", e.text);
	}
	warn(&a, report);
	if (!a.quiet)
		print_made(&a, report);
	release(&a);
	/* A full pipe or disk at the other end is an error to tell, though the volume is made. */
	if (fflush(stdout) || ferror(stdout))
		return complain("standard output: %s", strerror(errno));
	return 0;
}
