/* status, sync, clear, fstab: what a volume is and how it fares. */
#include "mount-helpers/sopctl.h"

#include <sys/stat.h>
#include <unistd.h>

#include "core/human.h"
#include "mount-helpers/fstab.h"

/* ---- a mounted volume --------------------------------------------------------------------------
 */

static const char *colour_of(const char *word, size_t len)
{
	static const struct {
		const char *word, *colour;
	} colours[] = {
		{"ONLINE", "\033[32m"},
		{"DEGRADED", "\033[33m"},
		{"OFFLINE", "\033[33m"},
		{"MISSING", "\033[33m"},
		{"HEALING", "\033[33m"},
		{"REPLACING", "\033[33m"},
		{"REMOVING", "\033[33m"},
		{"READ-ONLY", "\033[33m"},
		{"FAILED", "\033[31m"},
	};

	for (size_t i = 0; i < SOP_ARRAY_LEN(colours); i++)
		if (strlen(colours[i].word) == len && memcmp(colours[i].word, word, len) == 0)
			return colours[i].colour;
	return NULL;
}

static bool wants_colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && no[0]) && term && strcmp(term, "dumb");
}

/* Where a line says a state: behind "state:", or second in the table of disks. NULL: nowhere. */
static const char *state_in(const char *line, size_t len)
{
	const char *p = line + strspn(line, " ");

	if ((size_t)(p - line) >= len)
		return NULL;
	if (strncmp(p, "state: ", 7) == 0)
		return p + 7;
	if (p - line != 10 || *p != 'd')
		return NULL;
	p += strcspn(p, " \n");
	return p + strspn(p, " ");
}

static void print_text(char *text)
{
	bool colour = wants_colour();

	sopctl_clean(text);
	for (char *line = text, *next; *line; line = next) {
		size_t len = strcspn(line, "\n");
		const char *word = colour ? state_in(line, len) : NULL;
		size_t n = word ? strcspn(word, " \n") : 0;
		const char *on = word ? colour_of(word, n) : NULL;

		next = line + len + (line[len] == '\n');
		if (on)
			printf("%.*s%s%.*s\033[0m%.*s", (int)(word - line), line, on, (int)n, word,
				(int)(next - word) - (int)n, word + n);
		else
			printf("%.*s", (int)(next - line), line);
	}
}

static json_t *ask_status(struct sopctl_volume *v, const struct sopctl_args *a, int *code)
{
	return sopctl_ask(v,
		json_pack("{s:s, s:b, s:b}", "verb", "status", "text", !a->json, "verbose",
			a->verbose),
		SOPCTL_SOON_MS, code);
}

/* As plugins of monitoring systems do: one line, and 0 fine, 1 warning, 2 critical, 3 not known. */
static int check_line(const char *name, const json_t *status)
{
	const char *health = sopctl_text(status, "health"), *state = sopctl_text(status, "state");
	const char *say = sopctl_text(status, "status");
	int code = strcmp(health, "ok") == 0 ? 0 : strcmp(health, "warning") == 0 ? 1 : 2;

	printf("%s: %s %s%s%s\n",
		code == 0   ? "OK"
		: code == 1 ? "WARNING"
			    : "CRITICAL",
		name, state, say[0] ? ": " : "", say);
	return code;
}

static bool is_healthy(const json_t *status)
{
	return strcmp(sopctl_text(status, "health"), "ok") == 0;
}

static int show(struct sopctl_volume *v, const struct sopctl_args *a, bool *shown)
{
	int code;
	json_t *answer = ask_status(v, a, &code), *status;
	sop_autofree char *text = NULL;

	if (!answer) {
		if (a->check)
			printf("UNKNOWN: %s: the daemon gave no status\n", sopctl_name(v));
		return a->check ? 3 : code;
	}
	status = json_object_get(answer, "status");
	if (a->check) {
		code = check_line(sopctl_name(v), status);
	} else if (a->unhealthy && is_healthy(status)) {
		code = SOPCTL_OK;
	} else if (a->json) {
		sopctl_print_json(status);
		*shown = true;
	} else {
		text = strdup(sopctl_text(answer, "text"));
		if (*shown)
			putchar('\n');
		if (text)
			print_text(text);
		*shown = true;
	}
	json_decref(answer);
	return code;
}

/* ---- one that is not mounted -------------------------------------------------------------------
 */

static const char *peek_state(const struct sop_peek *p, const struct sop_peek_disk *d)
{
	return !p->openable && !d->found ? "UNKNOWN"
	       : !d->found		 ? "MISSING"
	       : d->online		 ? "PRESENT"
					 : "STALE";
}

static void peek_text(FILE *o, const struct sop_peek *p)
{
	char uuid[SOP_UUID_TEXT], date[SOP_HUMAN_TEXT], size[SOP_HUMAN_TEXT], left[SOP_HUMAN_TEXT];

	fprintf(o, "  volume: %s   (uuid %s, erasure code %u+%u)\n", p->name,
		sop_uuid_format(uuid, &p->uuid), p->k, p->m);
	fprintf(o, "   state: NOT MOUNTED%s\n", p->openable ? "" : ", CANNOT BE MOUNTED");
	if (!p->openable)
		fprintf(o, "  status: %s\n", p->why_not);
	fprintf(o, "    made: %s\n", sop_human_date(date, (time_t)(p->created_ns / 1000000000u)));
	fprintf(o, "  config: NAME  STATE    FREE   SIZE  PATH\n");
	for (unsigned i = 0; i < p->disks; i++) {
		const struct sop_peek_disk *d = &p->disk[i];
		char name[16];

		snprintf(name, sizeof(name), "d%u", d->index + 1);
		fprintf(o, "          %-5s %-8s %5s %6s  %s%s\n", name, peek_state(p, d),
			d->total_bytes ? sop_human_brief(left, d->free_bytes) : "-",
			d->total_bytes ? sop_human_brief(size, d->total_bytes) : "-", d->path,
			d->data ? "" : "  (registry only)");
	}
}

/* Labels are another's. */
static void peek_print(const struct sop_peek *p)
{
	sop_autofree char *text = NULL;
	size_t len;
	FILE *o = open_memstream(&text, &len);

	if (o)
		peek_text(o, p);
	if (!o || fclose(o) || !text)
		sopctl_fail(0, "out of memory");
	else
		print_text(text);
}

static void peek_json(const struct sop_peek *p)
{
	char uuid[SOP_UUID_TEXT];
	json_t *disks = json_array(), *j;

	for (unsigned i = 0; i < p->disks; i++) {
		const struct sop_peek_disk *d = &p->disk[i];
		char name[16];

		snprintf(name, sizeof(name), "d%u", d->index + 1);
		j = json_pack("{s:s, s:s, s:s, s:b, s:b, s:I, s:I}", "name", name, "uuid",
			sop_uuid_format(uuid, &d->uuid), "state", peek_state(p, d), "data", d->data,
			"registry", d->registry, "total_bytes", (json_int_t)d->total_bytes,
			"free_bytes", (json_int_t)d->free_bytes);
		sopctl_set_text(j, "path", d->path);
		json_array_append_new(disks, j);
	}
	j = json_pack("{s:i, s:{s:s, s:i, s:i}, s:s, s:s, s:n, s:n, s:o}", "version", 1, "volume",
		"uuid", sop_uuid_format(uuid, &p->uuid), "data_shards", (int)p->k, "parity_shards",
		(int)p->m, "state", "NOT MOUNTED", "health", p->openable ? "ok" : "critical",
		"status", "mount", "disks", disks);
	sopctl_set_text(json_object_get(j, "volume"), "name", p->name);
	if (!p->openable)
		sopctl_set_text(j, "status", p->why_not);
	sopctl_print_json(j);
	json_decref(j);
}

static int look_at_labels(struct sop_peek *p, const char *path)
{
	struct sop_err e = {0};
	int rc = p ? sop_peek(p, path, &e) : sop_fail(&e, -ENOMEM, "%s", path);

	if (rc == -ENOTCONN)
		return sopctl_fail(SOPCTL_NO_VOLUME,
			"%s: the daemon of this mount is dead; mount again, with the same command",
			path);
	if (rc == -EACCES || rc == -EPERM)
		return sopctl_fail(SOPCTL_PERMISSION, "%s", e.text);
	return rc ? sopctl_fail(SOPCTL_NO_VOLUME, "%s", e.text) : SOPCTL_OK;
}

static int show_labels(const char *path, const struct sopctl_args *a, bool *shown)
{
	sop_autofree struct sop_peek *p = malloc(sizeof(*p));
	int rc = look_at_labels(p, path);
	struct sopctl_volume v;
	char uuid[SOP_UUID_TEXT];

	if (rc)
		return rc;
	/* To its daemon the folder may be another: by a bind mount, or as its name is no text. */
	rc = sopctl_find(&v, sop_uuid_format(uuid, &p->uuid), false, false);
	if (!rc)
		rc = show(&v, a, shown);
	sopctl_close(&v);
	if (rc != SOPCTL_NO_VOLUME)
		return rc;
	if (a->check) {
		printf("CRITICAL: %s NOT MOUNTED\n", p->name);
		return 2;
	}
	if (a->json)
		peek_json(p);
	else
		peek_print(p);
	return p->openable ? SOPCTL_OK : SOPCTL_DEGRADED;
}

/* ---- verbs -------------------------------------------------------------------------------------
 */

static int status_of(const char *name, const struct sopctl_args *a, bool *shown)
{
	struct sopctl_volume v;
	/* A folder may be a member of a volume that is not mounted; then that is said instead. */
	bool folder = strchr(name, '/') || access(name, F_OK) == 0;
	int rc = sopctl_find(&v, name, false, !folder);

	if (rc == SOPCTL_NO_VOLUME && folder)
		rc = show_labels(name, a, shown);
	else if (!rc)
		rc = show(&v, a, shown);
	else if (a->check)
		rc = 3;
	sopctl_close(&v);
	return a->check && rc > 2 ? 3 : rc;
}

static int not_for_us(const struct sopctl_args *a)
{
	if (a->check)
		printf("UNKNOWN: no mounted volume of this user's\n");
	else
		sopctl_fail(0, "no mounted volume of this user's; ask as root, or as the user who "
			       "mounted it");
	return a->check ? 3 : SOPCTL_PERMISSION;
}

static int status_of_all(const struct sopctl_args *a, bool *shown)
{
	struct sopctl_volume *all;
	bool refused;
	size_t silent, n = sopctl_mounted(&all, &silent, &refused);
	int worst = !silent ? SOPCTL_OK : a->check ? 3 : SOPCTL_FAILURE;

	for (size_t i = 0; i < n; i++) {
		int rc = show(&all[i], a, shown);

		worst = SOP_MAX(worst, rc);
	}
	sopctl_mounted_free(all, n);
	if (a->check && silent)
		printf("UNKNOWN: %zu daemon%s not answer\n", silent,
			silent == 1 ? " does" : "s do");
	else if (!n && refused)
		worst = not_for_us(a);
	else if (!n && a->check)
		printf("OK: no volume is mounted\n");
	else if (!n && !silent && !a->json)
		printf("no volume is mounted\n");
	return worst;
}

static int run_status(const struct sopctl_args *a)
{
	bool shown = false;
	int worst = 0;

	if (!a->words)
		worst = status_of_all(a, &shown);
	for (int i = 0; i < a->words; i++) {
		int rc = status_of(a->word[i], a, &shown);

		worst = SOP_MAX(worst, rc);
	}
	if (a->unhealthy && !shown && !worst && !a->json && !a->check)
		printf("all volumes are healthy\n");
	return worst;
}

static int run_sync(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);

	if (!rc)
		json_decref(
			sopctl_ask(&v, json_pack("{s:s}", "verb", "sync"), SOPCTL_LONG_MS, &rc));
	sopctl_close(&v);
	return rc;
}

static int run_clear(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);
	json_t *request = json_pack("{s:s}", "verb", "clear");

	if (!rc && a->words > 1)
		rc = sopctl_set_disk(request, a->word[1]);
	if (!rc)
		json_decref(sopctl_ask(&v, json_incref(request), SOPCTL_LONG_MS, &rc));
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

/* The daemon says '?' for what is no text. */
static int check_shown(const char *path)
{
	struct stat st;

	if (!strchr(path, '?') || lstat(path, &st) == 0)
		return SOPCTL_OK;
	return sopctl_fail(SOPCTL_FAILURE,
		"%s: is not there, or has a name that is no text; ask by a folder of the volume "
		"while it is not mounted",
		path);
}

static int fstab_mounted(const struct sopctl_volume *v, const char *point)
{
	const json_t *disks = json_object_get(v->hello, "disks"), *d;
	const char *paths[SOP_PEEK_DISKS];
	size_t i, n = 0;
	int rc = SOPCTL_OK;

	json_array_foreach(disks, i, d) if (n < SOP_ARRAY_LEN(paths)) paths[n++] =
		json_string_value(d);
	for (i = 0; i < n && !rc; i++)
		rc = check_shown(paths[i]);
	if (!rc && !point) {
		point = sopctl_text(json_object_get(v->hello, "mount"), "point");
		rc = check_shown(point);
	}
	if (!rc)
		fstab_line(stdout, paths, n, point);
	return rc;
}

static int fstab_labels(const char *path, const char *point)
{
	sop_autofree struct sop_peek *p = malloc(sizeof(*p));
	const char *paths[SOP_PEEK_DISKS];
	int rc = look_at_labels(p, path);

	if (rc)
		return rc;
	for (unsigned i = 0; i < p->disks; i++)
		paths[i] = p->disk[i].path;
	fstab_line(stdout, paths, p->disks, point ? point : "/MOUNTPOINT");
	return SOPCTL_OK;
}

static int run_fstab(const struct sopctl_args *a)
{
	sop_autofree char *point = a->words > 1 ? sopctl_absolute(a->word[1]) : NULL;
	bool folder = strchr(a->word[0], '/') || access(a->word[0], F_OK) == 0;
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, !folder);

	if (rc == SOPCTL_NO_VOLUME && folder)
		rc = fstab_labels(a->word[0], point);
	else if (!rc)
		rc = fstab_mounted(&v, point);
	sopctl_close(&v);
	return rc;
}

const struct sopctl_verb sopctl_status_verbs[] = {
	{"status", "[VOLUME]...", "Show how volumes fare: state, what to do, work under way, disks",
		"unhealthy verbose check json", 0, 1000,
		"Without VOLUME: all that are mounted. A member folder of one that is not mounted "
		"shows what\nits labels say. Answers within a second even if disks or the mount "
		"hang.\n\n"
		"With --check the exit code is that of monitoring plugins: 0 healthy; 1 degraded, "
		"or "
		"errors were\ncounted, but all data is there; 2 data cannot be read, nothing can "
		"be "
		"committed, or it is not\nmounted; 3 not known (no such volume, no answer).\n",
		run_status},
	{"sync", "VOLUME", "Make all that was committed durable", "", 1, 1,
		"Returns when it is on the disks. What programs have written to files that are "
		"open is "
		"not\ncommitted by it.\n",
		run_sync},
	{"clear", "VOLUME [DISK]", "Forget counted errors, and lists of lost ranges", "", 1, 2,
		"With DISK only its counters. Nothing is repaired by this; see 'sopctl scrub'.\n",
		run_clear},
	{"fstab", "VOLUME [MOUNTPOINT]", "Print the line for /etc/fstab", "", 1, 2,
		"VOLUME may be a member folder of one that is not mounted.\n", run_fstab},
	{0},
};
