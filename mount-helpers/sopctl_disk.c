/* online, offline, replace, add, remove: the disks of a mounted volume. A disk is named as status
 * prints it ("d3"), by its folder, or by its UUID. */
#include "mount-helpers/sopctl.h"

static json_t *request_of(const char *verb, const struct sopctl_args *a)
{
	return json_pack("{s:s, s:b, s:b, s:b}", "verb", verb, "force", a->force, "dry_run",
		a->dry_run, "data_only", a->data_only);
}

/* A folder of the user's, as the daemon (which has another working directory) has to see it. */
static int set_path(json_t *request, const char *key, const char *path)
{
	sop_autofree char *full = sopctl_absolute(path);

	if (full && !json_object_set_new(request, key, json_string(full)))
		return SOPCTL_OK;
	return sopctl_fail(SOPCTL_USAGE, "%s: the name is not UTF-8", path);
}

int sopctl_set_disk(json_t *request, const char *disk)
{
	if (strchr(disk, '/'))
		return set_path(request, "disk", disk);
	return json_object_set_new(request, "disk", json_string(disk))
		       ? sopctl_fail(SOPCTL_USAGE, "%s: there is no such disk", disk)
		       : SOPCTL_OK;
}

/* A disk of the volume, by any of its names, as the daemon takes them: a path has a slash. name "":
 * there is none. */
static void find_disk(struct sopctl_disk *out, struct sopctl_volume *v, const char *disk)
{
	sop_autofree char *full = strchr(disk, '/') ? sopctl_absolute(disk) : NULL;
	json_t *answer, *d;
	size_t i, len = strlen(disk);
	int code;

	*out = (struct sopctl_disk){0};
	answer = sopctl_ask(v, json_pack("{s:s}", "verb", "status"), SOPCTL_SOON_MS, &code);
	json_array_foreach(json_object_get(json_object_get(answer, "status"), "disks"), i, d)
	{
		if (strcmp(sopctl_text(d, "name"), disk) &&
			!(full && strcmp(sopctl_text(d, "path"), full) == 0) &&
			!(len >= 4 && strncasecmp(sopctl_text(d, "uuid"), disk, len) == 0))
			continue;
		snprintf(out->name, sizeof(out->name), "%s", sopctl_text(d, "name"));
		snprintf(out->uuid, sizeof(out->uuid), "%s", sopctl_text(d, "uuid"));
	}
	json_decref(answer);
}

static void tell(const struct sopctl_args *a, const struct sopctl_volume *v, const char *what)
{
	if (!a->json && a->dry_run)
		printf("%s: nothing is in the way; nothing was done\n", sopctl_name(v));
	else if (!a->json && !a->wait)
		printf("%s: %s\n", sopctl_name(v), what);
}

/* Whoever is asked whether he means it is told first what is in the way: the same request, dry. The
 * questions are those of sopctl_confirm(). */
static int would_do(struct sopctl_volume *v, const struct sopctl_args *a, json_t *request)
{
	json_t *dry;
	int rc;

	if (a->yes || a->dry_run || a->cancel)
		return SOPCTL_OK;
	dry = json_copy(request);
	json_object_set_new(dry, "dry_run", json_true());
	json_decref(sopctl_ask(v, dry, SOPCTL_LONG_MS, &rc));
	return rc;
}

/* Sends the request, tells, and with --wait follows the work on that disk. Takes the reference. */
static int act(struct sopctl_volume *v, const struct sopctl_args *a, json_t *request,
	const char *what, const char *kind, const char *disk)
{
	bool follows = a->wait && kind && !a->dry_run;
	time_t since = time(NULL);
	struct sopctl_disk d = {0};
	int rc;

	if (follows)
		find_disk(&d, v, disk);
	json_decref(sopctl_ask(v, request, SOPCTL_LONG_MS, &rc));
	if (rc)
		return rc;
	tell(a, v, what);
	if (follows && !d.name[0])
		return sopctl_fail(SOPCTL_FAILURE,
			"%s: the work has begun, but 'sopctl status' did not tell of disk %s: it "
			"cannot be waited for",
			sopctl_name(v), disk);
	return follows ? sopctl_follow_disk(v, a, kind, &d, since) : SOPCTL_OK;
}

static int run_online(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);
	json_t *request = json_pack("{s:s}", "verb", "online");

	if (!rc)
		rc = sopctl_set_disk(request, a->word[1]);
	if (!rc && a->path)
		rc = set_path(request, "path", a->path);
	if (!rc)
		rc = act(&v, a, json_incref(request),
			"the disk is in use; what it missed, if anything, is being rebuilt", "heal",
			a->word[1]);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

static int run_offline(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);
	json_t *request = json_pack("{s:s}", "verb", "offline");

	if (!rc)
		rc = sopctl_set_disk(request, a->word[1]);
	if (!rc)
		rc = would_do(&v, a, request);
	if (!rc)
		rc = sopctl_confirm(a, "Stop using disk %s of %s?", a->word[1], sopctl_name(&v));
	if (!rc)
		rc = act(&v, a, json_incref(request), "the disk is not used any more", NULL, NULL);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

static int run_replace(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc;
	json_t *request;

	if (a->cancel ? a->words != 2 : a->words != 3)
		return sopctl_fail(
			SOPCTL_USAGE, "replace VOLUME OLD NEW, or replace --cancel VOLUME OLD");
	rc = sopctl_find(&v, a->word[0], false, true);
	request = request_of(a->cancel ? "cancel" : "replace", a);
	if (!rc)
		rc = sopctl_set_disk(request, a->word[1]);
	if (!rc && !a->cancel)
		rc = set_path(request, "path", a->word[2]);
	if (!rc)
		rc = would_do(&v, a, request);
	if (!rc && !a->cancel)
		rc = sopctl_confirm(a, "Move disk %s of %s to %s (what is there is lost)?",
			a->word[1], sopctl_name(&v), a->word[2]);
	if (!rc)
		rc = act(&v, a, json_incref(request),
			a->cancel
				? "the replacement is ended"
				: "the replacement has begun; 'sopctl status' shows how far it is",
			a->cancel ? NULL : "replace", a->word[1]);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

static int run_add(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);
	json_t *request = request_of("add", a);

	if (!rc)
		rc = set_path(request, "path", a->word[1]);
	if (!rc)
		rc = would_do(&v, a, request);
	if (!rc)
		rc = sopctl_confirm(
			a, "Add %s to %s (what is there is lost)?", a->word[1], sopctl_name(&v));
	if (!rc)
		rc = act(&v, a, json_incref(request), "the disk is used from now on", NULL, NULL);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

static int run_remove(const struct sopctl_args *a)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, a->word[0], false, true);
	json_t *request = request_of(a->cancel ? "cancel" : "remove", a);

	if (!rc)
		rc = sopctl_set_disk(request, a->word[1]);
	if (!rc)
		rc = would_do(&v, a, request);
	if (!rc && !a->cancel)
		rc = sopctl_confirm(a, "Move all that is on disk %s of %s to its other disks?",
			a->word[1], sopctl_name(&v));
	if (!rc)
		rc = act(&v, a, json_incref(request),
			a->cancel ? "the removal is ended"
				  : "the removal has begun; 'sopctl status' shows how far it is",
			a->cancel ? NULL : "remove", a->word[1]);
	json_decref(request);
	sopctl_close(&v);
	return rc;
}

#define DISK_WORDS                                                                                 \
	"DISK is its name in 'sopctl status' (d3), its folder, or its UUID or the beginning of "   \
	"it.\n"

const struct sopctl_verb sopctl_disk_verbs[] = {
	{"online", "VOLUME DISK", "Use a disk again; what it missed is rebuilt", "path wait json",
		2, 2, DISK_WORDS "With --path it is looked for in that folder.\n", run_online},
	{"offline", "VOLUME DISK", "Stop using a disk, until it is put online again", "yes", 2, 2,
		DISK_WORDS "Exit code 7 when the volume cannot do without it.\n", run_offline},
	{"replace", "VOLUME OLD NEW", "Move a disk's content to a new folder, in the background",
		"yes dry-run force wait cancel json", 2, 3,
		"OLD is the disk's name in 'sopctl status' (d3), its folder or its UUID; NEW an "
		"empty folder.\nOLD may be gone: its content is rebuilt from the others. It stays "
		"a "
		"member until NEW has all\nof it. Survives crashes and remounts.\n",
		run_replace},
	{"add", "VOLUME FOLDER", "Add a disk", "yes dry-run force data-only", 2, 2,
		"New data is spread over it from now on; what is there stays where it is.\n",
		run_add},
	{"remove", "VOLUME DISK", "Empty a disk onto the others, then let it go",
		"yes dry-run wait cancel json", 2, 2, DISK_WORDS, run_remove},
	{0},
};
