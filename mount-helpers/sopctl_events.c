/* events: what happened, and what happens. */
#include "mount-helpers/sopctl.h"

static bool is_text(const json_t *j)
{
	return json_is_string(j) && json_string_value(j)[0];
}

static void print_commit(const json_t *x)
{
	printf("%-8s", sopctl_text(x, "kind"));
	if (json_object_get(x, "inode"))
		printf(" inode %llu", (unsigned long long)sopctl_number(x, "inode"));
	if (json_object_get(x, "store"))
		printf(" in directory %llu", (unsigned long long)sopctl_number(x, "store"));
	if (json_object_get(x, "key"))
		printf(": %s", sopctl_text(x, "key"));
	if (json_object_get(x, "key_hex"))
		printf(": 0x%s", sopctl_text(x, "key_hex"));
	printf("  (lsn %llu%s)", (unsigned long long)sopctl_number(x, "lsn"),
		json_is_true(json_object_get(x, "more")) ? ", more follows" : "");
}

static void print_text(const json_t *x)
{
	const char *event = sopctl_text(x, "event");

	printf("%.19s%s %-8s ", sopctl_text(x, "time"), sopctl_text(x, "time")[0] ? "Z" : "",
		event);
	if (strcmp(event, "commit") == 0)
		print_commit(x);
	else if (strcmp(event, "session") == 0)
		printf("%s: %s: %s", sopctl_text(x, "path"), sopctl_text(x, "code"),
			sopctl_text(x, "reason"));
	else if (strcmp(event, "disk") == 0)
		printf("%s %s (%s%s)  %s%s%s", sopctl_text(x, "disk"), sopctl_text(x, "state"),
			is_text(json_object_get(x, "was")) ? "was " : "new", sopctl_text(x, "was"),
			sopctl_text(x, "path"), is_text(json_object_get(x, "reason")) ? ": " : "",
			sopctl_text(x, "reason"));
	else if (strcmp(event, "log") == 0)
		printf("%s %s: %s", sopctl_text(x, "level"), sopctl_text(x, "module"),
			sopctl_text(x, "text"));
	else
		printf("%llu of kind %s are lost: they came too fast",
			(unsigned long long)sopctl_number(x, "missed"), sopctl_text(x, "of"));
	putchar('\n');
}

/* Every text in it is another's. */
static void clean(json_t *x)
{
	const char *key;
	json_t *value;

	json_object_foreach(x, key, value)
	{
		sop_autofree char *text =
			json_is_string(value) ? strdup(json_string_value(value)) : NULL;

		if (!text)
			continue;
		for (char *p = sopctl_clean(text); *p; p++)
			*p = *p == '\n' ? '?' : *p;
		json_string_set_nocheck(value, text);
	}
}

static bool print_one(void *arg, json_t *x)
{
	const struct sopctl_args *a = arg;

	if (a->json) {
		sopctl_print_json(x);
	} else {
		clean(x);
		print_text(x);
		fflush(stdout);
	}
	return !ferror(stdout);
}

static int run_events(const struct sopctl_args *a)
{
	json_t *request = json_pack("{s:s, s:b}", "verb", "events", "follow", a->follow);
	struct sopctl_args args = *a;
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);

	if (!rc && a->kind && json_object_set_new(request, "kind", json_string(a->kind)))
		rc = sopctl_fail(SOPCTL_USAGE, "--kind=%s: there is no such kind", a->kind);
	if (!rc)
		rc = sopctl_lines(&v, json_incref(request), a->follow ? -1 : SOPCTL_SOON_MS,
			print_one, &args);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

const struct sopctl_verb sopctl_events_verbs[] = {
	{"events", "VOLUME",
		"Show what happened: commits, sessions that came to nothing, disks, log",
		"follow kind json", 1, 1,
		"Sessions, disks and the log's lines are kept since the mount (the last 512). "
		"Commits "
		"are told\nwhile somebody follows (-f), each with its number, directory and name, "
		"in "
		"order; 'find\nMOUNT -inum N' finds a directory by its number. One who is too slow "
		"is "
		"told how many were\nlost. The same commits, as JSON, can be read from "
		"MOUNT/.sop/events.\n",
		run_events},
	{0},
};
