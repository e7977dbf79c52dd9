/* Options: see options.h. */
#include "fs/options.h"

#include <ctype.h>
#include <glob.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <sys/mount.h>

/* ---- numbers -----------------------------------------------------------------------------------
 */

/* A plain decimal number, no sign, no exponent: what follows it is at *end. */
static int parse_decimal(double *out, const char *text, const char **end)
{
	double value = 0, scale = 1;
	const char *p = text;

	while (isdigit((unsigned char)*p))
		value = value * 10 + (*p++ - '0');
	if (p == text)
		return -EINVAL;
	if (*p == '.') {
		p++;
		while (isdigit((unsigned char)*p)) {
			scale /= 10;
			value += scale * (*p++ - '0');
		}
	}
	*out = value;
	*end = p;
	return 0;
}

int sopfs_parse_size(uint64_t *bytes, const char *text)
{
	static const char units[] = "KMGT";
	const char *end, *unit;
	double v;

	if (parse_decimal(&v, text, &end))
		return -EINVAL;
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		v = ldexp(v, 10 * (int)(unit - units + 1));
		end++;
		if (!strcasecmp(end, "iB") || !strcasecmp(end, "B"))
			end += strlen(end);
	}
	if (*end || v >= 0x1p62)
		return -EINVAL;
	*bytes = (uint64_t)v;
	return 0;
}

int sopfs_parse_time(unsigned *ms, const char *text)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"", 1000}, {"s", 1000}, {"sec", 1000}, {"ms", 1}, {"min", 60000},
		{"m", 60000}, {"h", 3600000}};
	const char *end;
	double v;
	size_t i;

	if (parse_decimal(&v, text, &end))
		return -EINVAL;
	for (i = 0; i < SOP_ARRAY_LEN(units); i++) {
		if (strcmp(end, units[i].name))
			continue;
		v = v * units[i].ms + 0.5;
		if (v >= UINT_MAX)
			return -EINVAL;
		*ms = (unsigned)v;
		return 0;
	}
	return -EINVAL;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

enum kind {
	IGNORED, /* mount(8)'s own, or without meaning here */
	PREFIX,	 /* the same, and whatever begins so ("x-systemd.automount", "comment=...") */
	FLAG,	 /* sets a bool */
	UNFLAG,	 /* clears it */
	MS_ON,	 /* a mount flag */
	MS_OFF,
	SIZE,	  /* "name=64M" */
	MSEC,	  /* "name=2", "name=250ms" */
	WORD_OFF, /* "name=word": clears a bool */
	WORD_ON,  /* "name=word": sets it */
	TEXT,	  /* "name=anything" */
};

struct option {
	const char *name;
	enum kind kind;
	size_t at;	    /* offset in struct sopfs_options */
	unsigned long flag; /* MS_*, or the smallest value allowed */
	uint64_t max;
};

#define AT(member) offsetof(struct sopfs_options, member)

static const struct option table[] = {
	{"ro", FLAG, AT(volume.read_only), 0, 0},
	{"rw", UNFLAG, AT(volume.read_only), 0, 0},
	{"degraded", FLAG, AT(volume.degraded), 0, 0},
	{"sync", FLAG, AT(fs.sync), 0, 0},
	{"async", UNFLAG, AT(fs.sync), 0, 0},
	{"durability=close", WORD_ON, AT(fs.sync), 0, 0},
	{"durability=relaxed", WORD_OFF, AT(fs.sync), 0, 0},
	{"cache=", SIZE, AT(volume.cache_bytes), 8u << 20, 1ull << 44},
	{"journal=", SIZE, AT(volume.journal_bytes), 1u << 20, 1ull << 36},
	{"commit=", MSEC, AT(volume.commit_ms), 1, 3600000},
	{"checkpoint=", MSEC, AT(volume.checkpoint_ms), 100, 86400000},
	{"disk_timeout=", MSEC, AT(volume.disk_timeout_ms), 100, 3600000},
	{"append_commit=", MSEC, AT(fs.append_commit_ms), 1, 3600000},
	{"session=close", WORD_OFF, AT(fs.session_write), 0, 0},
	{"session=write", WORD_ON, AT(fs.session_write), 0, 0},
	{"killed=rollback", WORD_OFF, AT(fs.killed_commit), 0, 0},
	{"killed=commit", WORD_ON, AT(fs.killed_commit), 0, 0},
	{"exit=commit", WORD_OFF, AT(fs.exit_rollback), 0, 0},
	{"exit=rollback", WORD_ON, AT(fs.exit_rollback), 0, 0},
	{"log=", TEXT, AT(log_file), 0, 0},
	{"allow_other", FLAG, AT(allow_other), 0, 0},
	{"noallow_other", UNFLAG, AT(allow_other), 0, 0},
	{"remount", FLAG, AT(remount), 0, 0},
	{"nosuid", MS_ON, 0, MS_NOSUID, 0},
	{"suid", MS_OFF, 0, MS_NOSUID, 0},
	{"nodev", MS_ON, 0, MS_NODEV, 0},
	{"dev", MS_OFF, 0, MS_NODEV, 0},
	{"noexec", MS_ON, 0, MS_NOEXEC, 0},
	{"exec", MS_OFF, 0, MS_NOEXEC, 0},
	/* Permissions are always the kernel's work; names are changed at once and together; times
	 * of access are kept as under noatime. */
	{"default_permissions", IGNORED, 0, 0, 0},
	{"dirsync", IGNORED, 0, 0, 0},
	{"atime", IGNORED, 0, 0, 0},
	{"noatime", IGNORED, 0, 0, 0},
	{"diratime", IGNORED, 0, 0, 0},
	{"nodiratime", IGNORED, 0, 0, 0},
	{"relatime", IGNORED, 0, 0, 0},
	{"norelatime", IGNORED, 0, 0, 0},
	{"strictatime", IGNORED, 0, 0, 0},
	{"nostrictatime", IGNORED, 0, 0, 0},
	{"lazytime", IGNORED, 0, 0, 0},
	{"nolazytime", IGNORED, 0, 0, 0},
	{"defaults", IGNORED, 0, 0, 0},
	{"auto", IGNORED, 0, 0, 0},
	{"noauto", IGNORED, 0, 0, 0},
	{"user", IGNORED, 0, 0, 0},
	{"user=", PREFIX, 0, 0, 0},
	{"users", IGNORED, 0, 0, 0},
	{"nouser", IGNORED, 0, 0, 0},
	{"nousers", IGNORED, 0, 0, 0},
	{"owner", IGNORED, 0, 0, 0},
	{"noowner", IGNORED, 0, 0, 0},
	{"group", IGNORED, 0, 0, 0},
	{"nogroup", IGNORED, 0, 0, 0},
	{"nofail", IGNORED, 0, 0, 0},
	{"_netdev", IGNORED, 0, 0, 0},
	{"comment=", PREFIX, 0, 0, 0},
	{"x-", PREFIX, 0, 0, 0},
	{"X-", PREFIX, 0, 0, 0},
	{"helper=", PREFIX, 0, 0, 0},
	{"uhelper=", PREFIX, 0, 0, 0},
};

/* Whether word is this option, or this option with a value: then *value is set. */
static bool matches(const struct option *t, const char *word, const char **value)
{
	size_t len = strlen(t->name);

	*value = NULL;
	switch (t->kind) {
	case PREFIX:
		return !strncmp(word, t->name, len);
	case SIZE:
	case MSEC:
	case TEXT:
		*value = word + len;
		return !strncmp(word, t->name, len);
	case IGNORED:
	case FLAG:
	case UNFLAG:
	case MS_ON:
	case MS_OFF:
	case WORD_OFF:
	case WORD_ON:
		break;
	}
	return !strcmp(word, t->name);
}

static int set_size(struct sopfs_options *o, const struct option *t, const char *word,
	const char *value, struct sop_err *e)
{
	uint64_t n;

	if (sopfs_parse_size(&n, value) || n < t->flag || n > t->max)
		return sop_say(e, -EINVAL,
			"option %s: wants a size from %luM to %lluG, such as %s256M", word,
			t->flag >> 20, (unsigned long long)t->max >> 30, t->name);
	if (t->at == AT(volume.journal_bytes))
		o->volume.journal_bytes = n;
	else
		o->volume.cache_bytes = (size_t)n;
	return 0;
}

static int set_time(struct sopfs_options *o, const struct option *t, const char *word,
	const char *value, struct sop_err *e)
{
	unsigned ms;

	if (sopfs_parse_time(&ms, value) || ms < t->flag || ms > t->max)
		return sop_say(e, -EINVAL,
			"option %s: wants a time from %lu ms to %llu s, such as %s5 (seconds) or "
			"%s500ms",
			word, t->flag, (unsigned long long)t->max / 1000, t->name, t->name);
	memcpy((char *)o + t->at, &ms, sizeof(ms));
	return 0;
}

static int set_text(struct sopfs_options *o, const struct option *t, const char *word,
	const char *value, struct sop_err *e)
{
	char **to = (char **)(void *)((char *)o + t->at);
	char *copy;

	if (!*value)
		return sop_say(e, -EINVAL, "option %s: wants a value", word);
	copy = strdup(value);
	if (!copy)
		return sop_fail(e, -ENOMEM, "option %s", word);
	free(*to);
	*to = copy;
	return 0;
}

static int apply(struct sopfs_options *o, const struct option *t, const char *word,
	const char *value, struct sop_err *e)
{
	bool *flag = (bool *)((char *)o + t->at);

	switch (t->kind) {
	case IGNORED:
	case PREFIX:
		return 0;
	case FLAG:
	case WORD_ON:
		*flag = true;
		return 0;
	case UNFLAG:
	case WORD_OFF:
		*flag = false;
		return 0;
	case MS_ON:
		o->mount_flags |= t->flag;
		return 0;
	case MS_OFF:
		o->mount_flags &= ~t->flag;
		return 0;
	case SIZE:
		return set_size(o, t, word, value, e);
	case MSEC:
		return set_time(o, t, word, value, e);
	case TEXT:
		return set_text(o, t, word, value, e);
	}
	return -EINVAL;
}

/* "session=what": the option is known, the word is not. Lists the words there are. */
static int unknown(const char *word, struct sop_err *e)
{
	const char *eq = strchr(word, '=');
	char words[256] = "";
	size_t used = 0, key = eq ? (size_t)(eq - word) + 1 : 0, i;

	for (i = 0; key && i < SOP_ARRAY_LEN(table); i++) {
		if (table[i].kind != WORD_ON && table[i].kind != WORD_OFF)
			continue;
		if (!strncmp(word, table[i].name, key) && used + 64 < sizeof(words))
			used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
				used ? " or " : "", table[i].name);
	}
	if (used)
		return sop_say(e, -EINVAL, "option %s: wants %s", word, words);
	return sop_say(
		e, -EINVAL, "unknown option \"%s\"; sopfs -h lists the ones there are", word);
}

static int one_option(struct sopfs_options *o, const char *word, struct sop_err *e)
{
	const char *value;
	size_t i;

	for (i = 0; i < SOP_ARRAY_LEN(table); i++)
		if (matches(&table[i], word, &value))
			return apply(o, &table[i], word, value, e);
	return o->sloppy ? 0 : unknown(word, e);
}

int sopfs_options_list(struct sopfs_options *o, const char *list, struct sop_err *e)
{
	sop_autofree char *copy = strdup(list);
	char *save = NULL, *word;
	int rc;

	if (!copy)
		return sop_fail(e, -ENOMEM, "options");
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		rc = one_option(o, word, e);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- SOURCE ------------------------------------------------------------------------------------
 */

/* The daemon leaves its working directory, and labels remember where members were. A folder that is
 * not there keeps the name it was given: the error message wants it. */
static char *absolute(const char *path)
{
	sop_autofree char *cwd = NULL;
	char *out = realpath(path, NULL);

	if (out)
		return out;
	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&out, "%s/%s", cwd, path) < 0)
		return NULL;
	return out;
}

static int add_path(struct sopfs_options *o, const char *path, struct sop_err *e)
{
	char **grown = realloc(o->paths, (o->n_paths + 1) * sizeof(*grown));

	if (!grown)
		return sop_fail(e, -ENOMEM, "%s", path);
	o->paths = grown;
	o->paths[o->n_paths] = absolute(path);
	if (!o->paths[o->n_paths])
		return sop_fail(e, -ENOMEM, "%s", path);
	o->n_paths++;
	return 0;
}

/* One entry of the list: "\:" has been undone, what glob(3) escapes has not. */
static int add_pattern(struct sopfs_options *o, const char *pattern, struct sop_err *e)
{
	glob_t g;
	size_t i;
	int rc;

	/* A folder of just that name wins over a pattern: "/srv/disk[1]" may be a name. */
	if (!strpbrk(pattern, "*?[") || !access(pattern, F_OK))
		return add_path(o, pattern, e);
	rc = glob(pattern, 0, NULL, &g);
	if (rc == GLOB_NOMATCH)
		return sop_say(e, -ENOENT,
			"%s: matches no folder; check the pattern, and that the disks are mounted",
			pattern);
	if (rc)
		return sop_fail(e, rc == GLOB_NOSPACE ? -ENOMEM : -EIO, "%s", pattern);
	for (i = 0, rc = 0; !rc && i < g.gl_pathc; i++)
		rc = add_path(o, g.gl_pathv[i], e);
	globfree(&g);
	return rc;
}

int sopfs_options_source(struct sopfs_options *o, const char *source, struct sop_err *e)
{
	sop_autofree char *word = malloc(strlen(source) + 1);
	const char *p = source;
	size_t len;
	int rc;

	if (!word)
		return sop_fail(e, -ENOMEM, "%s", source);
	for (;;) {
		for (len = 0; *p && *p != ':'; p++) {
			if (p[0] == '\\' && (p[1] == ':' || p[1] == '\\'))
				p++;
			word[len++] = *p;
		}
		word[len] = '\0';
		if (len) {
			rc = add_pattern(o, word, e);
			if (rc)
				return rc;
		}
		if (!*p)
			break;
		p++;
	}
	if (!o->n_paths)
		return sop_say(e, -EINVAL,
			"SOURCE is empty; give a member folder of the volume, or several as "
			"/data/d1:/data/d2");
	return 0;
}

/* ---- the command line --------------------------------------------------------------------------
 */

void sopfs_options_usage(bool to_stderr)
{
	static const char text[] =
		"usage: sopfs [-fd] [-o OPTION,...] SOURCE MOUNTPOINT\n"
		"\n"
		"Mounts a sopfs volume. SOURCE is any member folder of it, or several: "
		"/data/d1:/data/d2\n"
		"(\\: for a colon in a name; patterns such as /data/d* are expanded).\n"
		"\n"
		"  -f  stay in the foreground      -d  the same, and show every request\n"
		"  -h  this help                   -V  version\n"
		"\n"
		"  -o ro                 change nothing\n"
		"  -o degraded           mount though half of the disks or more are missing\n"
		"  -o sync               each commit waits for the disks (also durability=close)\n"
		"  -o commit=TIME        else it is on the disks after this at the latest (1 s; "
		"500ms)\n"
		"  -o checkpoint=TIME    B-trees are brought up to date after this (30 s)\n"
		"  -o journal=SIZE       or when the journal has this size (64M)\n"
		"  -o cache=SIZE         memory for directories and unwritten data (256M)\n"
		"  -o disk_timeout=TIME  a disk that does not answer for this long is set aside "
		"(30 s)\n"
		"  -o session=close      a writer's changes are one transaction, from open to "
		"close (default)\n"
		"  -o session=write      every write is one\n"
		"  -o killed=commit      keep what a writer killed by a signal has written (else: "
		"roll back)\n"
		"  -o exit=rollback      roll back what a program that exits with an error has "
		"written\n"
		"  -o append_commit=TIME appended data commits after this at the latest (1 s)\n"
		"  -o log=FILE           log there instead of to syslog\n"
		"  -o allow_other        other users may use the mount (default for root; "
		"noallow_other)\n"
		"  -o suid,dev,noexec    as in mount(8); nosuid and nodev are the default\n"
		"\n"
		"Unmount with umount MOUNTPOINT, or fusermount3 -u MOUNTPOINT.\n";

	fputs(text, to_stderr ? stderr : stdout);
}

static int letters(struct sopfs_options *o, int argc, char **argv, bool helper, struct sop_err *e)
{
	int c, rc;

	opterr = 0;
	optind = 0; /* again from the start: tests parse more than once */
	while ((c = getopt(argc, argv, helper ? "+sfnvN:t:o:hV" : "+fdo:hV")) != -1) {
		switch (c) {
		case 'o':
			rc = sopfs_options_list(o, optarg, e);
			if (rc)
				return rc;
			break;
		case 'f':
			*(helper ? &o->fake : &o->foreground) = true;
			break;
		case 'd':
			o->debug = o->foreground = true;
			break;
		case 's':
			o->sloppy = true;
			break;
		case 'h':
			o->help = true;
			break;
		case 'V':
			o->version = true;
			break;
		case 'n':
		case 'v':
		case 'N':
		case 't':
			break;
		default:
			return sop_say(e, -EINVAL,
				"unknown option -%c, or its value is missing; sopfs -h tells more",
				optopt);
		}
	}
	return 0;
}

/* getopt's "+" keeps it from moving words about in the caller's argv; so options after SOURCE and
 * MOUNTPOINT (mount(8) puts them there) are reached by going on behind each word. */
static int words(struct sopfs_options *o, int argc, char **argv, bool helper, struct sop_err *e)
{
	const char *word[2];
	unsigned n = 0;
	int at = 0, rc;

	for (;;) {
		rc = letters(o, argc - at, argv + at, helper, e);
		if (rc || o->help || o->version)
			return rc;
		at += optind;
		if (at >= argc)
			break;
		if (n == 2)
			return sop_say(e, -EINVAL,
				"\"%s\" is one word too many; usage: sopfs [-o ...] SOURCE "
				"MOUNTPOINT",
				argv[at]);
		word[n++] = argv[at];
	}
	if (n < 2)
		return sop_say(e, -EINVAL, "%s is missing; usage: sopfs [-o ...] SOURCE MOUNTPOINT",
			n ? "MOUNTPOINT" : "SOURCE");
	o->source = strdup(word[0]);
	o->mountpoint = strdup(word[1]);
	if (!o->source || !o->mountpoint)
		return sop_fail(e, -ENOMEM, "options");
	return sopfs_options_source(o, word[0], e);
}

int sopfs_options_parse(struct sopfs_options *o, int argc, char **argv, struct sop_err *e)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = argc > 0 ? (slash ? slash + 1 : argv[0]) : "";
	uint64_t all;
	int rc;

	memset(o, 0, sizeof(*o));
	o->allow_other = geteuid() == 0;
	o->mount_flags = MS_NOSUID | MS_NODEV;
	o->volume.cache_bytes = 256u << 20;
	o->fs.append_commit_ms = 1000;
	rc = words(o, argc, argv, !strncmp(name, "mount.", 6), e);
	if (rc)
		return rc;
	/* cache= bounds both: nodes in the engine, and what sessions hold before they write out. */
	all = o->volume.cache_bytes;
	o->fs.buffer_bytes = (size_t)SOP_MIN(all / 4, 256ull << 20);
	o->volume.cache_bytes = (size_t)all - o->fs.buffer_bytes;
	o->volume.durable = o->fs.sync;
	o->fs.read_only = o->volume.read_only;
	if (o->volume.read_only)
		o->mount_flags |= MS_RDONLY;
	return 0;
}

void sopfs_options_release(struct sopfs_options *o)
{
	size_t i;

	for (i = 0; i < o->n_paths; i++)
		free(o->paths[i]);
	free(o->paths);
	free(o->source);
	free(o->mountpoint);
	free(o->log_file);
	memset(o, 0, sizeof(*o));
}
