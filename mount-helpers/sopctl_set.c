/* set: what a volume is, changed while nobody has it mounted. */
#include "core/source.h"
#include "mount-helpers/sopctl.h"

static int parse(const char *text, bool *on)
{
	*on = strcmp(text, "shared=on") == 0;
	if (*on || strcmp(text, "shared=off") == 0)
		return SOPCTL_OK;
	return sopctl_fail(SOPCTL_USAGE, "%s: must be shared=on or shared=off", text);
}

/* One that is mounted on this machine; of others the disks know. */
static int not_mounted(const char *name)
{
	struct sopctl_volume v;
	int rc = sopctl_find(&v, name, false, false);

	if (rc == SOPCTL_NO_VOLUME)
		return SOPCTL_OK;
	if (!rc)
		rc = sopctl_fail(SOPCTL_LOCKED, "%s: is mounted at %s; unmount it on all machines",
			name, sopctl_text(json_object_get(v.hello, "mount"), "point"));
	sopctl_close(&v);
	return rc;
}

static unsigned replicas(struct sop_volume *v)
{
	struct sop_volume_disk d;
	unsigned n = 0;

	for (unsigned i = 0; sop_volume_disk(v, i, &d); i++)
		n += d.registry;
	return n;
}

static void say(const struct sopctl_args *a, struct sop_volume *v, bool on, bool was)
{
	unsigned n = replicas(v);
	json_t *j;

	if (a->json) {
		j = json_pack(
			"{s:b, s:b, s:i}", "shared", on, "changed", on != was, "replicas", (int)n);
		sopctl_print_json(j);
		json_decref(j);
		return;
	}
	printf("%s: %s mounts it %s\n", a->word[0],
		on ? "any number of machines" : "one machine at a time",
		on == was ? "already" : "from now on");
	if (on && n % 2 == 0)
		printf("%u of its disks hold the registry, and a commit needs %u of them: an odd "
		       "number "
		       "is better\n",
			n, n / 2 + 1);
}

/* Labels are stored where they can be; those that stay behind are found out by their age. */
static void say_missed(const struct sopctl_args *a, struct sop_volume *v)
{
	struct sop_volume_disk d;

	for (unsigned i = 0; sop_volume_disk(v, i, &d); i++)
		if (!d.present)
			sopctl_fail(0,
				"%s: %s (%s) could not be told%s%s; a mount or fsck.sopfs that can "
				"write to it does so",
				a->word[0], d.name, d.path, d.reason[0] ? ": " : "", d.reason);
}

static int run_set(const struct sopctl_args *a)
{
	const struct sop_open_opts alone = {.exclusive = true};
	struct sop_volume_stat before;
	struct sop_paths folders = {0};
	struct sop_volume *v = NULL;
	struct sop_err e = {0};
	bool on;
	int code = parse(a->word[1], &on), rc = 0;

	if (!code)
		code = not_mounted(a->word[0]);
	if (code)
		return code;
	rc = sop_source_find(&folders, a->word[0], &e);
	if (!rc)
		rc = sop_volume_open(&v, (const char *const *)folders.path, folders.n, &alone, &e);
	if (!rc) {
		sop_volume_stat(v, &before);
		rc = sop_volume_share(v, on, &e);
		if (!rc) {
			say(a, v, on, before.shared);
			if (on != before.shared)
				say_missed(a, v);
		}
	}
	if (v && sop_volume_close(v, rc ? NULL : &e) && !rc)
		rc = e.code;
	sop_paths_release(&folders);
	return rc ? sopctl_fail(sopctl_exit_of(rc), "%s: %s", a->word[0], e.text) : SOPCTL_OK;
}

const struct sopctl_verb sopctl_set_verbs[] = {
	{"set", "VOLUME shared=on|off", "Let several machines mount a volume at once, or one again",
		"json", 2, 2,
		"Nobody may have it mounted, and its disks should all be there. VOLUME is one of "
		"its folders, or\nseveral with ':' between, or NAME of /etc/sopfs/NAME.conf. What "
		"is in it stays; see sopfs-shared(7)\nfor what a shared volume costs and needs. "
		"Programs of before shared volumes were there refuse one.\n",
		run_set},
	{0},
};
