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
	const char *of = sopctl_text(t, "disk"); /* "": of several */

	return strcmp(sopctl_text(t, "kind"), kind) == 0 &&
	       (!disk || !of[0] || strcmp(of, disk) == 0);
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

/* The one under way, else the last that ended since. */
static json_t *find_task(const json_t *status, const char *kind, const char *disk, time_t since)
{
	json_t *tasks = json_object_get(status, "tasks"), *t, *found = NULL;
	size_t i;

	json_array_foreach(tasks, i, t)
	{
		if (!is_task(t, kind, disk) || (has_ended(t) && started(t) < since))
			continue;
		if (!found || !has_ended(t) ||
			(has_ended(found) && strcmp(sopctl_text(t, "started"),
						     sopctl_text(found, "started")) >= 0))
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

enum stage {
	UNDER_WAY,
	OVER,	/* as the task says, where there was one */
	BROKEN, /* ended, and not by being done */
	NONSENSE,
};

static enum stage stage_of_task(const json_t *t)
{
	if (!t)
		return BROKEN; /* its verb begins it */
	return has_ended(t) ? OVER : UNDER_WAY;
}

static const json_t *find_disk(const json_t *disks, const struct sopctl_disk *disk)
{
	const json_t *d;
	size_t i;

	json_array_foreach(disks, i, d)
	{
		if (strcmp(sopctl_text(d, "name"), disk->name) == 0 &&
			strcmp(sopctl_text(d, "uuid"), disk->uuid) == 0)
			return d;
	}
	return NULL;
}

/* A disk that is emptied is a member until nothing of it is needed. A task alone tells nothing: it
 * begins after what goes before (the copy of the registry, what other disks miss), and one of
 * before may be there still. */
static enum stage stage_of_leaving(const json_t *d, const char *state, const json_t *t)
{
	if (d)
		return strcmp(sopctl_text(d, "state"), state) ? BROKEN : UNDER_WAY;
	return t && !has_ended(t) ? UNDER_WAY : OVER;
}

/* One that is emptied is not healed: what it has to have is the registry. */
static enum stage stage_of_healing(const json_t *d, const json_t *t)
{
	const char *state = sopctl_text(d, "state");
	bool leaves = strcmp(state, "REPLACING") == 0 || strcmp(state, "REMOVING") == 0;

	if (strcmp(state, "HEALING") == 0 ||
		(leaves && !json_is_true(json_object_get(d, "current"))))
		return UNDER_WAY;
	if (!leaves && strcmp(state, "ONLINE"))
		return BROKEN;
	return t && !has_ended(t) ? UNDER_WAY : OVER;
}

/* disk: NULL: a task of none. */
static enum stage stage_of(const json_t *status, const char *kind, const struct sopctl_disk *disk,
	const json_t *t, const json_t **d)
{
	const json_t *disks = json_object_get(status, "disks");

	*d = NULL;
	if (!disk)
		return stage_of_task(t);
	if (!json_is_array(disks))
		return NONSENSE;
	*d = find_disk(disks, disk);
	if (strcmp(kind, "heal") == 0)
		return stage_of_healing(*d, t);
	return stage_of_leaving(*d, strcmp(kind, "remove") ? "REPLACING" : "REMOVING", t);
}

static int broken(const struct sopctl_volume *v, const char *kind, const json_t *d)
{
	if (!d)
		return sopctl_fail(
			SOPCTL_FAILURE, "%s: there is no %s any more", sopctl_name(v), kind);
	return sopctl_fail(SOPCTL_FAILURE, "%s: %s was ended: %s is %s", sopctl_name(v), kind,
		sopctl_text(d, "name"), sopctl_text(d, "state"));
}

/* To whoever reads along, at first: nothing moves, and the wait goes on. */
static void say_early(const struct sopctl_args *a, const struct sopctl_volume *v, const json_t *d)
{
	if (!a->json)
		fprintf(stderr, "%s: %s is %s: the work is being prepared\n", sopctl_name(v),
			sopctl_text(d, "name"), sopctl_text(d, "state"));
}

static int follow(struct sopctl_volume *v, const struct sopctl_args *a, const char *kind,
	const struct sopctl_disk *disk, time_t since)
{
	struct shown s = {.tty = isatty(STDERR_FILENO)};
	bool first = true;
	int code;

	for (;;) {
		json_t *answer =
			sopctl_ask(v, json_pack("{s:s}", "verb", "status"), SOPCTL_SOON_MS, &code);
		json_t *status = json_object_get(answer, "status");
		json_t *t = find_task(status, kind, disk ? disk->name : NULL, since);
		const json_t *d = NULL;
		enum stage stage = stage_of(status, kind, disk, t, &d);

		if (t && (stage == OVER || !has_ended(t)))
			show(&s, a, t);
		else if (stage == UNDER_WAY && d && first)
			say_early(a, v, d);
		first = false;
		if (s.drawn && (stage != UNDER_WAY || !answer))
			fputc('\n', stderr);
		if (!code && stage == OVER)
			code = t ? outcome(v, t) : SOPCTL_OK;
		else if (!code && stage == BROKEN)
			code = broken(v, kind, d);
		else if (!code && stage == NONSENSE)
			code = sopctl_fail(SOPCTL_FAILURE, "%s: the daemon's status names no disks",
				sopctl_name(v));
		json_decref(answer);
		if (code || stage != UNDER_WAY)
			return code;
		usleep(LOOK_MS * 1000);
	}
}

int sopctl_follow_task(
	struct sopctl_volume *v, const struct sopctl_args *a, const char *kind, time_t since)
{
	return follow(v, a, kind, NULL, since);
}

int sopctl_follow_disk(struct sopctl_volume *v, const struct sopctl_args *a, const char *kind,
	const struct sopctl_disk *disk, time_t since)
{
	return follow(v, a, kind, disk, since);
}
