/* The status as people read it. */
#include "fs/status.h"

#include <time.h>

#include "core/human.h"

/* The local time of an RFC 3339 text of ours. */
static char *date_of(char *out, const char *rfc3339)
{
	struct tm tm = {0};

	if (!strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm))
		return strcpy(out, "?");
	return sop_human_date(out, timegm(&tm));
}

static int64_t seconds_of(const char *rfc3339)
{
	struct tm tm = {0};

	return strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) : 0;
}

static void text_progress(FILE *o, const json_t *t)
{
	char done[SOP_HUMAN_TEXT], total[SOP_HUMAN_TEXT], rate[SOP_HUMAN_TEXT], eta[SOP_HUMAN_TEXT];
	uint64_t all = sopfs_json_number(t, "bytes_total"),
		 part = sopfs_json_number(t, "bytes_done");

	fprintf(o, "          %s of %s (%.1f%%)", sop_human_size(done, part),
		sop_human_size(total, all),
		all ? (double)SOP_MIN(part, all) * 100 / (double)all : 0.0);
	if (sopfs_json_number(t, "bytes_per_s"))
		fprintf(o, " at %s/s", sop_human_size(rate, sopfs_json_number(t, "bytes_per_s")));
	fprintf(o, ", %llu errors", (unsigned long long)sopfs_json_number(t, "unrecoverable"));
	if (json_is_integer(json_object_get(t, "eta_s")))
		fprintf(o, ", ETA %s", sop_human_clock(eta, sopfs_json_number(t, "eta_s")));
	fputc('\n', o);
	if (sopfs_json_text(t, "message")[0])
		fprintf(o, "          %s\n", sopfs_json_text(t, "message"));
}

static const char *verb_of(const json_t *t)
{
	return sopfs_json_is(t, "kind", "heal")	     ? "resilver"
	       : sopfs_json_is(t, "kind", "replace") ? "replacement"
	       : sopfs_json_is(t, "kind", "remove")  ? "removal"
						     : "scrub";
}

static void text_task(FILE *o, const json_t *t)
{
	char from[SOP_HUMAN_TEXT], to[SOP_HUMAN_TEXT], took[SOP_HUMAN_TEXT], size[SOP_HUMAN_TEXT];
	bool scrub = sopfs_json_is(t, "kind", "scrub");
	int64_t seconds =
		seconds_of(sopfs_json_text(t, "ended")) - seconds_of(sopfs_json_text(t, "started"));

	fprintf(o, "%8s: ", scrub ? "scrub" : "scan");
	if (!scrub)
		fprintf(o, "%s", verb_of(t));
	if (!scrub && sopfs_json_text(t, "disk")[0])
		fprintf(o, " of %s", sopfs_json_text(t, "disk"));
	if (!scrub && sopfs_json_text(t, "target")[0])
		fprintf(o, " to %s", sopfs_json_text(t, "target"));
	if (!json_is_string(json_object_get(t, "ended"))) {
		fprintf(o, "%s%s since %s\n", scrub ? "" : " ",
			sopfs_json_is(t, "state", "running") && !scrub
				? "under way"
				: sopfs_json_text(t, "state"),
			date_of(from, sopfs_json_text(t, "started")));
		text_progress(o, t);
		return;
	}
	fprintf(o, "%s%s %s in %s, repaired %s, %llu unrecoverable\n", scrub ? "" : " ",
		sopfs_json_text(t, "state"), date_of(to, sopfs_json_text(t, "ended")),
		sop_human_clock(took, (uint64_t)SOP_MAX(seconds, (int64_t)0)),
		sop_human_size(size, sopfs_json_number(t, "repaired_bytes")),
		(unsigned long long)sopfs_json_number(t, "unrecoverable"));
	if (sopfs_json_text(t, "message")[0])
		fprintf(o, "          %s\n", sopfs_json_text(t, "message"));
}

static void text_disk(FILE *o, const json_t *d, int width)
{
	char left[SOP_HUMAN_TEXT] = "-", used[SOP_HUMAN_TEXT], total[SOP_HUMAN_TEXT] = "-",
	     ago[SOP_HUMAN_TEXT];
	bool present = json_is_true(json_object_get(d, "present"));
	int64_t gone = (int64_t)time(NULL) - seconds_of(sopfs_json_text(d, "last_seen"));

	if (present)
		sop_human_brief(left, sopfs_json_number(d, "free_bytes"));
	if (sopfs_json_number(d, "total_bytes"))
		sop_human_brief(total, sopfs_json_number(d, "total_bytes"));
	fprintf(o, "          %-*s %-9s %5s %6s %6s %5llu %5llu %5llu  %s", width,
		sopfs_json_text(d, "name"), sopfs_json_text(d, "state"), left,
		sop_human_brief(used, sopfs_json_number(d, "used_bytes")), total,
		(unsigned long long)sopfs_json_number(d, "read_errors"),
		(unsigned long long)sopfs_json_number(d, "write_errors"),
		(unsigned long long)sopfs_json_number(d, "checksum_errors"),
		sopfs_json_text(d, "path"));
	if (!json_is_true(json_object_get(d, "data")))
		fputs("  (registry only)", o);
	if (sopfs_json_text(d, "target")[0])
		fprintf(o, "  to %s", sopfs_json_text(d, "target"));
	if (sopfs_json_number(d, "missing_bytes"))
		fprintf(o, "  %s to go",
			sop_human_size(used, sopfs_json_number(d, "missing_bytes")));
	if (!present && sopfs_json_text(d, "last_seen")[0])
		fprintf(o, "  last seen %s ago",
			sop_human_duration(ago, (uint64_t)SOP_MAX(gone, (int64_t)0)));
	if (sopfs_json_text(d, "reason")[0])
		fprintf(o, "  (%s)", sopfs_json_text(d, "reason"));
	fputc('\n', o);
}

static void text_config(FILE *o, const json_t *disks)
{
	const json_t *d;
	size_t i;
	int width = 4;

	json_array_foreach(disks, i, d) width =
		SOP_MAX(width, (int)strlen(sopfs_json_text(d, "name")));
	fprintf(o, "  config: %-*s %-9s %5s %6s %6s %5s %5s %5s  %s\n", width, "NAME", "STATE",
		"FREE", "USED", "SIZE", "READ", "WRITE", "CKSUM", "PATH");
	json_array_foreach(disks, i, d) text_disk(o, d, width);
}

static void text_space(FILE *o, const json_t *space, const json_t *volume, bool verbose)
{
	static const struct {
		const char *key, *what;
	} parts[] = {
		{"data_bytes", "data"},
		{"parity_bytes", "parity"},
		{"metadata_bytes", "metadata: directories, registry, journal"},
		{"pinned_bytes", "freed, and still seen by readers or not checkpointed"},
		{"reserve_bytes", "kept for deletes and metadata"},
	};
	char a[SOP_HUMAN_TEXT], b[SOP_HUMAN_TEXT], c[SOP_HUMAN_TEXT];

	fprintf(o, "   space: %s of data in all, %s free, %s items\n",
		sop_human_size(a, sopfs_json_number(space, "total_bytes")),
		sop_human_size(b, sopfs_json_number(space, "free_bytes")),
		sop_human_count(c, sopfs_json_number(volume, "items")));
	for (size_t i = 0; verbose && i < SOP_ARRAY_LEN(parts); i++)
		fprintf(o, "          %10s  %s\n",
			sop_human_size(a, sopfs_json_number(space, parts[i].key)), parts[i].what);
}

static void text_errors(FILE *o, const json_t *errors)
{
	const json_t *lost = json_object_get(errors, "lost"), *l;
	size_t i;

	if (!sopfs_json_number(errors, "count")) {
		fprintf(o, "  errors: No known data errors\n");
		return;
	}
	fprintf(o, "  errors: %llu ranges cannot be read\n",
		(unsigned long long)sopfs_json_number(errors, "count"));
	json_array_foreach(lost, i, l)
	{
		if (sopfs_json_number(l, "length"))
			fprintf(o, "          %s: %llu bytes at %llu\n", sopfs_json_text(l, "name"),
				(unsigned long long)sopfs_json_number(l, "length"),
				(unsigned long long)sopfs_json_number(l, "offset"));
		else
			fprintf(o, "          %s\n", sopfs_json_text(l, "name"));
	}
}

/* The last sessions that came to nothing. */
static void text_recent(FILE *o, const json_t *sessions)
{
	const json_t *x;
	size_t i;

	json_array_foreach(json_object_get(sessions, "recent"), i, x)
	{
		const char *path = sopfs_json_text(x, "path");

		fprintf(o, "%s %.19sZ %s: %s: %s\n",
			i ? "         " : "  recent:", sopfs_json_text(x, "time"),
			path[0] ? path : "a file", sopfs_json_text(x, "code"),
			sopfs_json_text(x, "reason"));
	}
}

static void text_mount(FILE *o, const json_t *status, bool verbose)
{
	const json_t *m = json_object_get(status, "mount"),
		     *x = json_object_get(status, "sessions"),
		     *c = json_object_get(status, "commits"),
		     *sp = json_object_get(status, "space");
	char up[SOP_HUMAN_TEXT], n[SOP_HUMAN_TEXT], a[SOP_HUMAN_TEXT], b[SOP_HUMAN_TEXT];

	fprintf(o, "   mount: %s  %s  pid %llu  up %s   commits %s\n", sopfs_json_text(m, "point"),
		json_is_true(json_object_get(m, "read_only")) ? "ro" : "rw",
		(unsigned long long)sopfs_json_number(m, "pid"),
		sop_human_duration(up, sopfs_json_number(m, "up_s")),
		sop_human_count(n, sopfs_json_number(c, "committed")));
	fprintf(o,
		"sessions: %llu open, %llu committed, %llu rolled back, %llu conflicts, %llu "
		"failed\n",
		(unsigned long long)sopfs_json_number(x, "open"),
		(unsigned long long)sopfs_json_number(x, "committed"),
		(unsigned long long)sopfs_json_number(x, "rolled_back"),
		(unsigned long long)sopfs_json_number(x, "conflicts"),
		(unsigned long long)sopfs_json_number(x, "failed"));
	if (sopfs_json_number(x, "transactions"))
		fprintf(o, "    txns: %llu open, over many files (.sop/txn)\n",
			(unsigned long long)sopfs_json_number(x, "transactions"));
	text_recent(o, x);
	if (!verbose)
		return;
	fprintf(o, "     lsn: %llu, on the media %llu\n",
		(unsigned long long)sopfs_json_number(c, "lsn"),
		(unsigned long long)sopfs_json_number(c, "durable_lsn"));
	fprintf(o, "  memory: %s of directories cached, %s of them to be written; journal %s\n",
		sop_human_size(up, sopfs_json_number(sp, "cache_bytes")),
		sop_human_size(a, sopfs_json_number(sp, "dirty_bytes")),
		sop_human_size(b, sopfs_json_number(sp, "journal_bytes")));
}

void sopfs_status_text(FILE *o, const json_t *status, bool verbose)
{
	const json_t *v = json_object_get(status, "volume"), *tasks, *t;
	size_t i;

	fprintf(o, "  volume: %s   (uuid %s, erasure code %llu+%llu)\n", sopfs_json_text(v, "name"),
		sopfs_json_text(v, "uuid"), (unsigned long long)sopfs_json_number(v, "data_shards"),
		(unsigned long long)sopfs_json_number(v, "parity_shards"));
	fprintf(o, "   state: %s\n", sopfs_json_text(status, "state"));
	if (sopfs_json_text(status, "status")[0])
		fprintf(o, "  status: %s\n", sopfs_json_text(status, "status"));
	if (sopfs_json_text(status, "action")[0])
		fprintf(o, "  action: %s\n", sopfs_json_text(status, "action"));
	tasks = json_object_get(status, "tasks");
	json_array_foreach(tasks, i, t) text_task(o, t);
	text_config(o, json_object_get(status, "disks"));
	text_space(o, json_object_get(status, "space"), v, verbose);
	text_mount(o, status, verbose);
	sopfs_status_text_mounters(o, status);
	text_errors(o, json_object_get(status, "errors"));
}
