/* Options: see options.h. */
#include "fs/options.h"

#include <getopt.h>
#include <stdio.h>
#include <sys/mount.h>

#include "core/human.h"

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
	WORD_SET, /* "name=word": sets an int to `flag` */
	TEXT,	  /* "name=anything"; flag: it is a URL, else a file */
};

struct option_entry {
	const char *name;
	enum kind kind;
	size_t at;	    /* offset in struct sopfs_options */
	unsigned long flag; /* MS_*, or the smallest value allowed */
	uint64_t max;
	/* What --help says, and that it is a setting --dump-config prints; NULL: another word for
	 * one that is printed, or not ours. A MS_ON or UNFLAG has its partner behind it. */
	const char *help;
};

/* Of a file or directory that the kernel knows, with what a listing of it leaves; and memory for
 * them beside their share of cache=.
 */
#define KNOWN_BYTES 512u
#define KNOWN_FREE  (UINT64_C(16) << 20)
/* Of the 64 MiB that the daemon may have beside cache=. */
#define RESIDENT_FREE ((size_t)32 << 20)

#define AT(member) offsetof(struct sopfs_options, member)

static const struct option_entry table[] = {
	{"ro", FLAG, AT(volume.read_only), 0, 0, "change nothing"},
	{"rw", UNFLAG, AT(volume.read_only), 0, 0, NULL},
	{"degraded", FLAG, AT(volume.degraded), 0, 0,
		"mount though half of the disks or more are missing"},
	{"mount_wait=", MSEC, AT(volume.wait_ms), 0, 86400000,
		"wait for disks that are late, then go on without them (0)"},
	{"durability=close", WORD_ON, AT(fs.sync), 0, 0,
		"each commit waits for the disks (also sync)"},
	{"durability=relaxed", WORD_OFF, AT(fs.sync), 0, 0,
		"it does not: see commit= (default; also async)"},
	{"sync", FLAG, AT(fs.sync), 0, 0, NULL},
	{"async", UNFLAG, AT(fs.sync), 0, 0, NULL},
	{"commit=", MSEC, AT(volume.commit_ms), 1, 3600000,
		"a commit is on the disks after this at the latest (1s)"},
	{"checkpoint=", MSEC, AT(volume.checkpoint_ms), 100, 86400000,
		"the B-trees are brought up to date after this (30s)"},
	{"journal=", SIZE, AT(volume.journal_bytes), 1u << 20, 1ull << 36,
		"or when the journal has this size (64M)"},
	{"cache=", SIZE, AT(cache_bytes), 8u << 20, 1ull << 44,
		"memory for directories and unwritten data (256M)"},
	{"disk_timeout=", MSEC, AT(volume.disk_timeout_ms), 100, 3600000,
		"a disk that does not answer for this long is set aside (30s)"},
	{"repair=on", WORD_OFF, AT(volume.no_repair), 0, 0,
		"shards that reads find bad are written anew (default)"},
	{"repair=off", WORD_ON, AT(volume.no_repair), 0, 0, "scrub alone does that"},
	{"session=close", WORD_OFF, AT(fs.session_write), 0, 0,
		"a writer's changes are one transaction, from open to close (default)"},
	{"session=write", WORD_ON, AT(fs.session_write), 0, 0, "every write is one"},
	{"killed=rollback", WORD_OFF, AT(fs.killed_commit), 0, 0,
		"what a writer killed by a signal has written is undone (default)"},
	{"killed=commit", WORD_ON, AT(fs.killed_commit), 0, 0, "it is kept"},
	{"exit=commit", WORD_OFF, AT(fs.exit_rollback), 0, 0,
		"what a program that ends with an error has written is kept (default)"},
	{"exit=rollback", WORD_ON, AT(fs.exit_rollback), 0, 0, "it is undone"},
	{"append_commit=", MSEC, AT(fs.append_commit_ms), 1, 3600000,
		"appended data commits after this at the latest (1s)"},
	{"redis=", TEXT, AT(redis), 1, 0,
		"shared volume: where its mounters meet, see sopfs-shared(7)"},
	{"redis_password_file=", TEXT, AT(redis_password_file), 0, 0,
		"its first line is the password there"},
	{"ondown=block", WORD_SET, AT(volume.ondown), SOP_ONDOWN_BLOCK, 0,
		"while Redis is away, commits wait for it (default)"},
	{"ondown=ro", WORD_SET, AT(volume.ondown), SOP_ONDOWN_RO, 0, "they fail with EROFS"},
	{"ondown=eio", WORD_SET, AT(volume.ondown), SOP_ONDOWN_EIO, 0, "they fail with EIO"},
	{"lease=", MSEC, AT(volume.lease_ms), 1000, 600000,
		"a mounter that is not heard of for this long is dead (10s)"},
	{"log=", TEXT, AT(log_file), 0, 0, "log to this file instead of the journal or syslog"},
	{"allow_other", FLAG, AT(allow_other), 0, 0,
		"other users may use the mount (default for root)"},
	{"noallow_other", UNFLAG, AT(allow_other), 0, 0, NULL},
	{"nosuid", MS_ON, AT(mount_flags), MS_NOSUID, 0, "no set-ID programs (default; or suid)"},
	{"suid", MS_OFF, AT(mount_flags), MS_NOSUID, 0, NULL},
	{"nodev", MS_ON, AT(mount_flags), MS_NODEV, 0, "no device files (default; or dev)"},
	{"dev", MS_OFF, AT(mount_flags), MS_NODEV, 0, NULL},
	{"noexec", MS_ON, AT(mount_flags), MS_NOEXEC, 0, "no programs are run (else exec)"},
	{"exec", MS_OFF, AT(mount_flags), MS_NOEXEC, 0, NULL},
	{"remount", FLAG, AT(remount), 0, 0, NULL},
	/* Permissions are always the kernel's work; names are changed at once and together; times
	 * of access are kept as under noatime. */
	{"default_permissions", IGNORED, 0, 0, 0, NULL},
	{"dirsync", IGNORED, 0, 0, 0, NULL},
	{"atime", IGNORED, 0, 0, 0, NULL},
	{"noatime", IGNORED, 0, 0, 0, NULL},
	{"diratime", IGNORED, 0, 0, 0, NULL},
	{"nodiratime", IGNORED, 0, 0, 0, NULL},
	{"relatime", IGNORED, 0, 0, 0, NULL},
	{"norelatime", IGNORED, 0, 0, 0, NULL},
	{"strictatime", IGNORED, 0, 0, 0, NULL},
	{"nostrictatime", IGNORED, 0, 0, 0, NULL},
	{"lazytime", IGNORED, 0, 0, 0, NULL},
	{"nolazytime", IGNORED, 0, 0, 0, NULL},
	{"defaults", IGNORED, 0, 0, 0, NULL},
	{"auto", IGNORED, 0, 0, 0, NULL},
	{"noauto", IGNORED, 0, 0, 0, NULL},
	{"user", IGNORED, 0, 0, 0, NULL},
	{"user=", PREFIX, 0, 0, 0, NULL},
	{"users", IGNORED, 0, 0, 0, NULL},
	{"nouser", IGNORED, 0, 0, 0, NULL},
	{"nousers", IGNORED, 0, 0, 0, NULL},
	{"owner", IGNORED, 0, 0, 0, NULL},
	{"noowner", IGNORED, 0, 0, 0, NULL},
	{"group", IGNORED, 0, 0, 0, NULL},
	{"nogroup", IGNORED, 0, 0, 0, NULL},
	{"nofail", IGNORED, 0, 0, 0, NULL},
	{"_netdev", IGNORED, 0, 0, 0, NULL},
	{"comment=", PREFIX, 0, 0, 0, NULL},
	{"x-", PREFIX, 0, 0, 0, NULL},
	{"X-", PREFIX, 0, 0, 0, NULL},
	{"helper=", PREFIX, 0, 0, 0, NULL},
	{"uhelper=", PREFIX, 0, 0, 0, NULL},
	/* What the kernel shows of a mount, and mount(8) passes back at a remount. */
	{"user_id=", PREFIX, 0, 0, 0, NULL},
	{"group_id=", PREFIX, 0, 0, 0, NULL},
	{"max_read=", PREFIX, 0, 0, 0, NULL},
	{"blksize=", PREFIX, 0, 0, 0, NULL},
};

/* Whether word is this option, or this option with a value: then *value is set. */
static bool matches(const struct option_entry *t, const char *word, const char **value)
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
	case WORD_SET:
		break;
	}
	return !strcmp(word, t->name);
}

static int set_size(struct sopfs_options *o, const struct option_entry *t, const char *word,
	const char *value, struct sop_err *e)
{
	uint64_t n;

	if (sop_human_parse_size(&n, value) || n < t->flag || n > t->max)
		return sop_say(e, -EINVAL,
			"option %s: wants a size from %luM to %lluG, such as %s256M", word,
			t->flag >> 20, (unsigned long long)t->max >> 30, t->name);
	memcpy((char *)o + t->at, &n, sizeof(n));
	return 0;
}

static int set_time(struct sopfs_options *o, const struct option_entry *t, const char *word,
	const char *value, struct sop_err *e)
{
	unsigned ms;

	if (sop_human_parse_time(&ms, value) || ms < t->flag || ms > t->max)
		return sop_say(e, -EINVAL,
			"option %s: wants a time from %lu ms to %llu s, such as %s5 (seconds) or "
			"%s500ms",
			word, t->flag, (unsigned long long)t->max / 1000, t->name, t->name);
	memcpy((char *)o + t->at, &ms, sizeof(ms));
	return 0;
}

/* The daemon leaves its working directory. NULL and errno. */
static char *from_here(const char *path)
{
	sop_autofree char *cwd = NULL;
	char *out;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	return cwd && asprintf(&out, "%s/%s", cwd, path) >= 0 ? out : NULL;
}

static int set_text(struct sopfs_options *o, const struct option_entry *t, const char *word,
	const char *value, struct sop_err *e)
{
	char **to = (char **)(void *)((char *)o + t->at);
	char *copy;

	if (!*value)
		return sop_say(e, -EINVAL, "option %s: wants a value", word);
	copy = t->flag ? strdup(value) : from_here(value);
	if (!copy)
		return sop_fail(e, -errno, "option %s", word);
	free(*to);
	*to = copy;
	return 0;
}

static int apply(struct sopfs_options *o, const struct option_entry *t, const char *word,
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
	case WORD_SET:
		*(int *)(void *)((char *)o + t->at) = (int)t->flag;
		return 0;
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
		if (table[i].kind != WORD_ON && table[i].kind != WORD_OFF &&
			table[i].kind != WORD_SET)
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

/* "key = value" of a file: the same words, and yes or no for those that have none. */
int sopfs_options_set(
	struct sopfs_options *o, const char *key, const char *value, struct sop_err *e)
{
	bool yes = !strcmp(value, "yes"), no = !strcmp(value, "no");
	sop_autofree char *word = NULL;
	size_t i;

	for (i = 0; i < SOP_ARRAY_LEN(table); i++) {
		const struct option_entry *t = &table[i];

		if ((t->kind != FLAG && t->kind != MS_ON) || strcmp(t->name, key))
			continue;
		if (!yes && !no)
			return sop_say(e, -EINVAL, "%s = %s: wants yes or no", key, value);
		/* Its opposite follows it, but for those that are off by default alone. */
		if (t->kind == MS_ON)
			return apply(o, yes ? t : t + 1, key, NULL, e);
		*(bool *)((char *)o + t->at) = yes;
		return 0;
	}
	if (asprintf(&word, "%s=%s", key, value) < 0) {
		word = NULL;
		return sop_fail(e, -ENOMEM, "%s", key);
	}
	return one_option(o, word, e);
}

/* ---- as text -----------------------------------------------------------------------------------
 */

static void print_size(FILE *out, const char *name, uint64_t bytes)
{
	static const char units[] = " KMGT";
	size_t unit = 0;

	while (bytes && !(bytes % 1024) && unit < strlen(units) - 1) {
		bytes /= 1024;
		unit++;
	}
	fprintf(out, "%s = %llu%.*s\n", name, (unsigned long long)bytes, unit ? 1 : 0,
		units + unit);
}

static void print_setting(FILE *out, const struct option_entry *t, const struct sopfs_options *o)
{
	const void *at = (const char *)o + t->at;
	const char *eq = strchr(t->name, '=');
	sop_autofree char *name = strndup(t->name, eq ? (size_t)(eq - t->name) : strlen(t->name));
	bool on = false;
	uint64_t bytes;
	unsigned ms;
	char *text;

	if (!name)
		return;
	switch (t->kind) {
	case FLAG:
		fprintf(out, "%s = %s\n", name, *(const bool *)at ? "yes" : "no");
		break;
	case MS_ON:
		on = o->mount_flags & t->flag;
		fprintf(out, "%s = %s\n", name, on ? "yes" : "no");
		break;
	case WORD_ON:
	case WORD_OFF:
		if (*(const bool *)at == (t->kind == WORD_ON))
			fprintf(out, "%s = %s\n", name, eq + 1);
		break;
	case WORD_SET:
		if (*(const int *)at == (int)t->flag)
			fprintf(out, "%s = %s\n", name, eq + 1);
		break;
	case SIZE:
		memcpy(&bytes, at, sizeof(bytes));
		print_size(out, name, bytes);
		break;
	case MSEC:
		memcpy(&ms, at, sizeof(ms));
		fprintf(out, ms % 1000 ? "%s = %ums\n" : "%s = %us\n", name,
			ms % 1000 ? ms : ms / 1000);
		break;
	case TEXT:
		memcpy(&text, at, sizeof(text));
		if (text)
			fprintf(out, "%s = %s\n", name, text);
		break;
	case IGNORED:
	case PREFIX:
	case UNFLAG:
	case MS_OFF:
		break;
	}
}

/* "/a:b": some of it is to be found from here alone. */
static bool is_relative(const char *list)
{
	bool begins = true;

	for (; *list; list++) {
		if (begins && *list != '/' && *list != ':')
			return true;
		begins = *list == ':';
		if (*list == '\\' && list[1])
			list++;
	}
	return false;
}

/* As a file of settings can say it. */
static void print_source(FILE *out, const struct sopfs_options *o)
{
	fputs("source = ", out);
	if (o->folders && (!o->paths.n || !is_relative(o->folders)))
		fputs(o->folders, out);
	for (size_t i = 0; o->folders && is_relative(o->folders) && i < o->paths.n; i++) {
		if (i)
			fputc(':', out);
		for (const char *p = o->paths.path[i]; *p; p++) {
			if (strchr(":\\*?[", *p))
				fputc('\\', out);
			fputc(*p, out);
		}
	}
	fputc('\n', out);
}

char *sopfs_options_dump(const struct sopfs_options *o)
{
	char *text = NULL;
	size_t len, i;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	print_source(out, o);
	for (i = 0; i < SOP_ARRAY_LEN(table); i++)
		if (table[i].help)
			print_setting(out, &table[i], o);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- SOURCE ------------------------------------------------------------------------------------
 */

/* Labels remember where members were. A folder that is not there keeps the name it was given: the
 * error message wants it. */
static char *absolute(const char *path)
{
	char *out = realpath(path, NULL);

	return out ? out : from_here(path);
}

int sopfs_options_source(struct sopfs_options *o, const char *source, struct sop_err *e)
{
	int rc = sop_source_folders(&o->paths, source, e);

	for (size_t i = 0; !rc && i < o->paths.n; i++) {
		char *full = absolute(o->paths.path[i]);

		if (!full)
			return sop_fail(e, -errno, "%s", o->paths.path[i]);
		free(o->paths.path[i]);
		o->paths.path[i] = full;
	}
	if (!rc && !o->paths.n)
		rc = sop_say(e, -EINVAL,
			"SOURCE is empty; give a member folder of the volume, or several as "
			"/data/d1:/data/d2");
	return rc;
}

/* A setting of NAME.conf. */
static int config_setting(void *arg, const char *key, const char *value, struct sop_err *e)
{
	struct sopfs_options *o = arg;

	if (!strcmp(key, "mountpoint")) {
		free(o->mountpoint);
		o->mountpoint = strdup(value);
		return o->mountpoint ? 0 : sop_fail(e, -ENOMEM, "options");
	}
	if (!strcmp(key, "remount"))
		return sop_say(e, -EINVAL, "unknown key \"%s\"", key);
	return sopfs_options_set(o, key, value, e);
}

/* ---- the command line --------------------------------------------------------------------------
 */

void sopfs_options_usage(bool to_stderr)
{
	static const char head[] =
		"usage: sopfs [-fdv] [-o OPTION,...] SOURCE MOUNTPOINT\n"
		"\n"
		"Mounts a sopfs volume. SOURCE is any member folder of it, or several: "
		"/data/d1:/data/d2\n"
		"(\\: for a colon in a name; patterns such as /data/d* are expanded), or a NAME "
		"with "
		"its\n"
		"settings in /etc/sopfs/NAME.conf.\n"
		"\n"
		"  -f, --foreground   stay in the foreground\n"
		"  -d, --debug        the same, and show every request\n"
		"  -v, --verbose      say what was mounted\n"
		"      --dump-config  print the settings that would be used, as NAME.conf has "
		"them\n"
		"  -h, --help         this help\n"
		"  -V, --version      the version\n"
		"\n"
		"Called as mount.sopfs, by mount(8): -f mounts nothing, -s passes over unknown "
		"options,\n"
		"-n and -t are accepted, -N NAMESPACE mounts there.\n"
		"\n"
		"Options of -o (SIZE as 64M or 2G, TIME as 5, 5s, 250ms, 2min):\n";
	FILE *out = to_stderr ? stderr : stdout;
	char word[64];
	size_t i;

	fputs(head, out);
	for (i = 0; i < SOP_ARRAY_LEN(table); i++) {
		const struct option_entry *t = &table[i];
		const char *value = t->kind == SIZE   ? "SIZE"
				    : t->kind == MSEC ? "TIME"
				    : t->kind == TEXT ? (t->flag ? "URL" : "FILE")
						      : "";

		if (!t->help)
			continue;
		snprintf(word, sizeof(word), "%s%s", t->name, value);
		fprintf(out, "  %-20s %s\n", word, t->help);
	}
	fputs("\nUnmount with umount MOUNTPOINT, or fusermount3 -u MOUNTPOINT. The manual: "
	      "sopfs(8).\n",
		out);
}

struct command_line {
	bool helper; /* called by mount(8) */
	char *lists; /* of all -o, joined by commas; malloc'ed */
	const char *word[2];
	unsigned n_words;
};

static int add_list(struct command_line *c, const char *list, struct sop_err *e)
{
	char *all;

	if (asprintf(&all, "%s%s%s", c->lists ? c->lists : "", c->lists ? "," : "", list) < 0)
		return sop_fail(e, -ENOMEM, "options");
	free(c->lists);
	c->lists = all;
	return 0;
}

enum { OPT_DUMP = 256 };

static int letter(struct sopfs_options *o, struct command_line *c, int found, struct sop_err *e)
{
	switch (found) {
	case 'o':
		return add_list(c, optarg, e);
	case 'f':
		*(c->helper ? &o->fake : &o->foreground) = true;
		return 0;
	case 'd':
		o->debug = o->foreground = true;
		return 0;
	case 's':
		o->sloppy = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	case 'V':
		o->version = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case OPT_DUMP:
		o->dump = true;
		return 0;
	case 'N':
		free(o->namespace);
		o->namespace = strdup(optarg);
		return o->namespace ? 0 : sop_fail(e, -ENOMEM, "options");
	case 'n':
	case 't':
		return 0;
	default:
		return -EINVAL;
	}
}

static int letters(
	struct sopfs_options *o, struct command_line *c, int argc, char **argv, struct sop_err *e)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'f'},
		{"debug", no_argument, NULL, 'd'},
		{"verbose", no_argument, NULL, 'v'},
		{"dump-config", no_argument, NULL, OPT_DUMP},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int found, rc;

	opterr = 0;
	optind = 0; /* again from the start: tests parse more than once */
	while ((found = getopt_long(
			argc, argv, c->helper ? "+sfnvN:t:o:hV" : "+fdvo:hV", longs, NULL)) != -1) {
		rc = letter(o, c, found, e);
		if (rc == -EINVAL)
			return sop_say(e, -EINVAL,
				"unknown option %s, or its value is missing; sopfs -h tells more",
				argv[optind > 1 ? optind - 1 : 1]);
		if (rc)
			return rc;
	}
	return 0;
}

/* getopt's "+" keeps it from moving words about in the caller's argv; so options after SOURCE and
 * MOUNTPOINT (mount(8) puts them there) are reached by going on behind each word. */
static int words(
	struct sopfs_options *o, struct command_line *c, int argc, char **argv, struct sop_err *e)
{
	int at = 0, rc;

	for (;;) {
		rc = letters(o, c, argc - at, argv + at, e);
		if (rc || o->help || o->version)
			return rc;
		at += optind;
		if (at >= argc)
			break;
		if (c->n_words == 2)
			return sop_say(e, -EINVAL,
				"\"%s\" is one word too many; usage: sopfs [-o ...] SOURCE "
				"MOUNTPOINT",
				argv[at]);
		c->word[c->n_words++] = argv[at];
	}
	return c->n_words ? 0
			  : sop_say(e, -EINVAL,
				    "SOURCE is missing; usage: sopfs [-o ...] SOURCE MOUNTPOINT");
}

void sopfs_options_init(struct sopfs_options *o)
{
	memset(o, 0, sizeof(*o));
	o->allow_other = geteuid() == 0;
	o->mount_flags = MS_NOSUID | MS_NODEV;
	o->cache_bytes = 256u << 20;
	o->volume.journal_bytes = 64u << 20;
	o->volume.commit_ms = 1000;
	o->volume.checkpoint_ms = 30000;
	o->volume.disk_timeout_ms = 30000;
	o->volume.lease_ms = 10000;
	o->fs.append_commit_ms = 1000;
}

/* What follows from the options, and whether they go together. */
static int derive(struct sopfs_options *o, struct sop_err *e)
{
	/* cache= bounds both: nodes in the engine, and what sessions hold before they write out. */
	o->volume.buffer_bytes = (size_t)SOP_MIN(o->cache_bytes / 4, 256ull << 20);
	o->volume.cache_bytes = (size_t)o->cache_bytes - o->volume.buffer_bytes;
	o->fs.known_max = (size_t)((SOP_MIN(o->cache_bytes, KNOWN_FREE) + o->cache_bytes / 16 * 3) /
				   KNOWN_BYTES);
	o->fs.resident_max = (size_t)o->cache_bytes + RESIDENT_FREE;
	o->volume.durable = o->fs.sync;
	o->fs.read_only = o->volume.read_only;
	if (o->volume.read_only)
		o->mount_flags |= MS_RDONLY;
	if (geteuid() != 0 && ~o->mount_flags & (MS_NOSUID | MS_NODEV))
		return sop_say(e, -EPERM,
			"options suid and dev: fusermount3 mounts without either; leave them out, "
			"or mount as root");
	o->volume.redis = o->redis;
	o->volume.redis_password_file = o->redis_password_file;
	o->volume.mounted_at = o->mountpoint;
	if (o->redis_password_file && !o->redis)
		return sop_say(e, -EINVAL,
			"option redis_password_file=: of which server? give redis=, too");
	return o->redis ? sop_redis_url_check(o->redis, e) : 0;
}

int sopfs_options_parse(struct sopfs_options *o, int argc, char **argv, struct sop_err *e)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = argc > 0 ? (slash ? slash + 1 : argv[0]) : "";
	struct command_line c = {.helper = !strncmp(name, "mount.", 6)};
	sop_autofree char *from_file = NULL;
	int rc;

	sopfs_options_init(o);
	rc = words(o, &c, argc, argv, e);
	o->lists = c.lists;
	if (rc || o->help || o->version)
		return rc;
	o->source = strdup(c.word[0]);
	if (!o->source)
		return sop_fail(e, -ENOMEM, "options");
	/* The file first: the command line wins. */
	rc = sop_source_config(&from_file, o->source, config_setting, o, e);
	if (!rc && c.word[1]) {
		free(o->mountpoint);
		o->mountpoint = strdup(c.word[1]);
		rc = o->mountpoint ? 0 : sop_fail(e, -ENOMEM, "options");
	}
	if (!rc && !o->mountpoint && !o->dump)
		rc = sop_say(e, -EINVAL,
			"MOUNTPOINT is missing; usage: sopfs [-o ...] SOURCE MOUNTPOINT");
	o->named = from_file != NULL;
	o->folders = strdup(from_file ? from_file : o->source);
	if (!rc && !o->folders)
		rc = sop_fail(e, -ENOMEM, "options");
	if (!rc && o->lists)
		rc = sopfs_options_list(o, o->lists, e);
	/* A remount is told by its mount point alone: mount(8) may pass any source. */
	if (!rc && !o->remount)
		rc = sopfs_options_source(o, o->folders, e);
	return rc ? rc : derive(o, e);
}

void sopfs_options_release(struct sopfs_options *o)
{
	sop_paths_release(&o->paths);
	free(o->source);
	free(o->folders);
	free(o->lists);
	free(o->mountpoint);
	free(o->log_file);
	free(o->redis);
	free(o->redis_password_file);
	free(o->secret);
	free(o->namespace);
	memset(o, 0, sizeof(*o));
}
