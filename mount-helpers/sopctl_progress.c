/* Waiting for work in the background: on a terminal one line that is drawn again, with rate and
 * time to go; elsewhere a line every ten seconds; with --json an object a line. */
#include "mount-helpers/sopctl.h"

#include <time.h>
#include <unistd.h>

#include "core/human.h"

#define LOOK_MS	  500
#define EVERY_MS  10000 /* not on a terminal */
#define WIDTH_MAX 200

static bool is_task(const json_t *t, const char *kind, const char *disk)
{
	return strcmp(sopctl_text(t, "kind"), kind) == 0 &&
	       (!disk || strcmp(sopctl_text(t, "disk"), disk) == 0);
}

static bool has_ended(const json_t *t)
{
	return json_is_string(json_object_get(t, "ended"));
}

static time_t started(const json_t *t)
{
	struct tm tm = {0};

	return strptime(sopctl_text(t, "started"), "%Y-%m-%dT%H:%M:%S", &tm) ? timegm(&tm) : 0;
}

/* The one under way, else the one that ended since. */
static json_t *find_task(const json_t *status, const char *kind, const char *disk, time_t since)
{
	json_t *tasks = json_object_get(status, "tasks"), *t, *found = NULL;
	size_t i;

	json_array_foreach(tasks, i, t)
	{
		if (!is_task(t, kind, disk) || (has_ended(t) && started(t) < since))
			continue;
		if (!found || !has_ended(t))
			found = t;
	}
	return found;
}

static void line_of(char *out, size_t size, const json_t *t)
{
	char done[SOP_HUMAN_TEXT], total[SOP_HUMAN_TEXT], rate[SOP_HUMAN_TEXT], eta[SOP_HUMAN_TEXT];
	uint64_t all = sopctl_number(t, "bytes_total"), part = sopctl_number(t, "bytes_done");
	int n = snprintf(out, size, "%s%s%s: %s of %s (%.1f%%)", sopctl_text(t, "kind"),
		sopctl_text(t, "disk")[0] ? " " : "", sopctl_text(t, "disk"),
		sop_human_size(done, part), sop_human_size(total, all),
		all ? (double)SOP_MIN(part, all) * 100 / (double)all : 0.0);

	if (sopctl_number(t, "bytes_per_s"))
		n += snprintf(out + n, size - (size_t)n, " at %s/s",
			sop_human_size(rate, sopctl_number(t, "bytes_per_s")));
	if (sopctl_number(t, "corrected"))
		n += snprintf(out + n, size - (size_t)n, ", %llu repaired",
			(unsigned long long)sopctl_number(t, "corrected"));
	n += snprintf(out + n, size - (size_t)n, ", %llu errors",
		(unsigned long long)sopctl_number(t, "unrecoverable"));
	if (json_is_integer(json_object_get(t, "eta_s")))
		n += snprintf(out + n, size - (size_t)n, ", ETA %s",
			sop_human_clock(eta, sopctl_number(t, "eta_s")));
	if (strcmp(sopctl_text(t, "state"), "running"))
		snprintf(out + n, size - (size_t)n, ", %s%s%s", sopctl_text(t, "state"),
			sopctl_text(t, "message")[0] ? ": " : "", sopctl_text(t, "message"));
	sopctl_clean(out);
}

struct shown {
	bool tty, drawn;
	int64_t last_ms;
};

static void show(struct shown *s, const struct sopctl_args *a, const json_t *t)
{
	int64_t now = (int64_t)sop_clock_system.monotonic_ms(NULL);
	char line[WIDTH_MAX + 200];

	if (s->tty && !a->json) {
		line_of(line, sizeof(line), t);
		fprintf(stderr, "\r%.*s\033[K", WIDTH_MAX, line);
		s->drawn = true;
		return;
	}
	if (s->last_ms && now - s->last_ms < EVERY_MS && !has_ended(t))
		return;
	s->last_ms = now;
	if (a->json) {
		sopctl_print_json(t);
	} else {
		line_of(line, sizeof(line), t);
		fprintf(stderr, "%s\n", line);
	}
}

static int outcome(const struct sopctl_volume *v, const json_t *t)
{
	const char *state = sopctl_text(t, "state");

	if (strcmp(state, "finished"))
		return sopctl_fail(SOPCTL_FAILURE, "%s: %s %s%s%s", sopctl_name(v),
			sopctl_text(t, "kind"), state, sopctl_text(t, "message")[0] ? ": " : "",
			sopctl_text(t, "message"));
	if (sopctl_number(t, "unrecoverable"))
		return sopctl_fail(SOPCTL_PARTIAL,
			"%s: %llu errors could not be repaired; 'sopctl status -v %s' names them",
			sopctl_name(v), (unsigned long long)sopctl_number(t, "unrecoverable"),
			sopctl_name(v));
	return SOPCTL_OK;
}

int sopctl_follow_task(struct sopctl_volume *v, const struct sopctl_args *a, const char *kind,
	const char *disk, time_t since)
{
	struct shown s = {.tty = isatty(STDERR_FILENO)};
	unsigned absent = 0;
	int code;

	for (;;) {
		json_t *answer =
			sopctl_ask(v, json_pack("{s:s}", "verb", "status"), SOPCTL_SOON_MS, &code);
		json_t *t = find_task(json_object_get(answer, "status"), kind, disk, since);
		bool ended = t && has_ended(t);

		if (t)
			show(&s, a, t);
		if (s.drawn && (ended || !answer))
			fputc('\n', stderr);
		if (ended)
			code = outcome(v, t);
		json_decref(answer);
		if (ended || code)
			return code;
		/* Nothing had to be done, and so there is no task. */
		if (!t && ++absent > 4)
			return SOPCTL_OK;
		usleep(LOOK_MS * 1000);
	}
}
