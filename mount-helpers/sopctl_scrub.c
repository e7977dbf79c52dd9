#include "core/human.h"
#include "mount-helpers/sopctl.h"

static int run_scrub(const struct sopctl_args *a)
{
	const char *action = a->pause ? "pause" : a->resume ? "resume" : a->stop ? "stop" : "start";
	time_t since = time(NULL);
	struct sopctl_volume v;
	uint64_t rate = 0;
	int rc;

	if (a->pause + a->resume + a->stop > 1)
		return sopctl_fail(SOPCTL_USAGE, "--pause, --resume or --stop, one of them");
	if (a->rate && (a->pause || a->resume || a->stop))
		return sopctl_fail(SOPCTL_USAGE, "--rate is for a scrub that starts");
	if (a->wait && (a->pause || a->stop))
		return sopctl_fail(SOPCTL_USAGE, "--wait goes with a scrub that starts or goes on");
	if (a->rate && sop_human_parse_size(&rate, a->rate))
		return sopctl_fail(SOPCTL_USAGE, "--rate=%s: must be a size, as 50M", a->rate);
	rc = sopctl_find(&v, a->word[0], false, true);
	if (!rc)
		json_decref(sopctl_ask(&v,
			json_pack("{s:s, s:s, s:I}", "verb", "scrub", "action", action, "rate",
				(json_int_t)rate),
			SOPCTL_LONG_MS, &rc));
	if (!rc && a->wait)
		rc = sopctl_follow_task(&v, a, "scrub", a->resume ? 0 : since);
	sopctl_close(&v);
	return rc;
}

const struct sopctl_verb sopctl_scrub_verbs[] = {
	{"scrub", "VOLUME", "Verify everything that is stored, and repair what is bad",
		"rate pause resume stop wait json", 1, 1,
		"Starts one and returns; it goes on in the background, over remounts too. 'sopctl "
		"status'\nshows it. With --wait: 0 all is good or repaired, 3 something could not "
		"be repaired.\nInterrupting the wait leaves the scrub going.\n",
		run_scrub},
	{0},
};
