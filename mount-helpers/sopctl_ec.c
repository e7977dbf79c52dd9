/* ec: erasure code profiles of a mounted volume. */
#include "core/human.h"
#include "core/source.h"
#include "mount-helpers/sopctl.h"

/* ---- ec ---- */

static void print_profile(json_t *p)
{
	char code[24], space[SOP_HUMAN_TEXT];
	sop_autofree char *name = strdup(sopctl_text(p, "name"));
	const json_t *disk;
	size_t i;

	snprintf(code, sizeof(code), "%llu+%llu",
		(unsigned long long)sopctl_number(p, "data_shards"),
		(unsigned long long)sopctl_number(p, "parity_shards"));
	printf("%-23s %-8s %-6s %10s ", name ? sopctl_clean(name) : "?", code,
		json_is_true(json_object_get(p, "repair")) ? "on" : "off",
		sop_human_size(space, sopctl_number(p, "free_bytes")));
	if (json_is_true(json_object_get(p, "all_disks")))
		fputs(" all", stdout);
	else
		json_array_foreach(json_object_get(p, "disks"), i, disk)
			printf("%c%s", i ? ',' : ' ', json_string_value(disk));
	putchar('\n');
}

static int list_profiles(const struct sopctl_args *a, struct sopctl_volume *v)
{
	int rc;
	json_t *answer = sopctl_ask(v, json_pack("{s:s}", "verb", "ec"), SOPCTL_SOON_MS, &rc), *p;
	size_t i;

	if (!rc && !a->json)
		printf("%-23s %-8s %-6s %10s  %s\n", "PROFILE", "CODE", "REPAIR", "FREE", "DISKS");
	json_array_foreach(json_object_get(answer, "profiles"), i, p)
	{
		if (a->json)
			sopctl_print_json(p);
		else
			print_profile(p);
	}
	json_decref(answer);
	return rc;
}

/* "d1,/data/d3": names, with folders in full. NULL: it cannot be read, and why is said. */
static json_t *disks_of(const char *text)
{
	struct sop_paths names = {0};
	struct sop_err e = {0};
	json_t *out = json_array();
	int rc = sop_list_split(&names, text, ',', &e);

	for (size_t i = 0; !rc && i < names.n; i++) {
		const char *name = names.path[i];
		sop_autofree char *full = strchr(name, '/') ? sopctl_absolute(name) : NULL;

		if (json_array_append_new(out, json_string(full ? full : name)))
			rc = sop_say(&e, -EINVAL, "%s: is no UTF-8", name);
	}
	sop_paths_release(&names);
	if (!rc)
		return out;
	json_decref(out);
	sopctl_fail(0, "--disks=%s: must be names of disks, as d1,d3: %s", text, e.text);
	return NULL;
}

static int add_profile(const struct sopctl_args *a, struct sopctl_volume *v)
{
	const char *plus;
	uint64_t k, m;
	json_t *disks, *request;
	int rc;

	plus = sopctl_digits(a->word[3], 255, '+', &k);
	if (!plus || !sopctl_digits(plus + 1, 255, '\0', &m) || !k)
		return sopctl_fail(SOPCTL_USAGE, "%s: must be K+M, as in 4+2", a->word[3]);
	disks = a->disks ? disks_of(a->disks) : json_array();
	if (!disks)
		return SOPCTL_USAGE;
	request = json_pack("{s:s, s:s, s:I, s:I, s:b, s:o}", "verb", "ec_add", "name", a->word[2],
		"data_shards", (json_int_t)k, "parity_shards", (json_int_t)m, "no_repair",
		a->no_repair, "disks", disks);
	if (!request)
		return sopctl_fail(SOPCTL_USAGE, "%s: the name is not UTF-8", a->word[2]);
	json_decref(sopctl_ask(v, request, SOPCTL_LONG_MS, &rc));
	if (!rc && !a->json)
		printf("%s: stores can be made with profile %s now\n", sopctl_name(v), a->word[2]);
	return rc;
}

static int run_ec(const struct sopctl_args *a)
{
	bool add = strcmp(a->word[0], "add") == 0;
	struct sopctl_volume v;
	int rc;

	if (!add && strcmp(a->word[0], "list") != 0)
		return sopctl_fail(SOPCTL_USAGE, "ec %s: there is list, and add", a->word[0]);
	if (a->words != (add ? 4 : 2))
		return sopctl_fail(SOPCTL_USAGE, "ec list VOLUME, or ec add VOLUME NAME K+M");
	if (!add && (a->disks || a->no_repair))
		return sopctl_fail(SOPCTL_USAGE, "--disks and --no-repair go with ec add");
	rc = sopctl_find(&v, a->word[1], false, true);
	if (!rc)
		rc = add ? add_profile(a, &v) : list_profiles(a, &v);
	sopctl_close(&v);
	return rc;
}

const struct sopctl_verb sopctl_ec_verbs[] = {
	{"ec", "list VOLUME | add VOLUME NAME K+M", "Show erasure code profiles, or add one",
		"json disks no-repair", 2, 4,
		"A store names one when it is made ('sopctl store create --ec NAME'). They are "
		"never "
		"changed nor\nremoved. With --disks its data lies on these alone, else on all, and "
		"those to come.\n",
		run_ec},
	{0},
};
