/* The status as Prometheus reads it. */
#include "fs/status.h"

struct metric {
	const char *part, *key; /* of the JSON */
	const char *name, *type, *help;
};

static const struct metric metrics[] = {
	{"volume", "data_shards", "data_shards", "gauge", "Data shards of a stripe."},
	{"volume", "parity_shards", "parity_shards", "gauge", "Parity shards of a stripe."},
	{"volume", "disks", "disks", "gauge", "Disks that hold data."},
	{"volume", "disks_online", "disks_online", "gauge", "Of them, those in use."},
	{"volume", "items", "items", "gauge", "Names in all directories."},
	{"space", "total_bytes", "total_bytes", "gauge", "Data that fits, after parity."},
	{"space", "free_bytes", "free_bytes", "gauge", "Of it, still free."},
	{"space", "data_bytes", "data_bytes", "gauge", "Bytes of files, on the disks."},
	{"space", "parity_bytes", "parity_bytes", "gauge", "Bytes of redundancy."},
	{"space", "metadata_bytes", "metadata_bytes", "gauge",
		"Bytes of directories, registry, journal."},
	{"space", "pinned_bytes", "pinned_bytes", "gauge", "Bytes freed and not given back yet."},
	{"space", "reserve_bytes", "reserve_bytes", "gauge",
		"Bytes kept for deletes and metadata."},
	{"space", "live_bytes", "live_bytes", "gauge", "Bytes in use in all shard files."},
	{"space", "journal_bytes", "journal_bytes", "gauge", "Bytes of the journal."},
	{"space", "segments", "segments", "gauge", "Segments."},
	{"space", "cache_bytes", "cache_bytes", "gauge", "Bytes of directories in memory."},
	{"space", "dirty_bytes", "dirty_bytes", "gauge", "Of them, not written yet."},
	{"commits", "lsn", "lsn", "gauge", "Number of the newest commit."},
	{"commits", "durable_lsn", "durable_lsn", "gauge",
		"Number of the newest commit on the media."},
	{"commits", "committed", "commits_total", "counter",
		"Transactions committed since the mount."},
	{"commits", "conflicts", "conflicts_total", "counter",
		"Transactions refused since the mount."},
	{"commits", "failed", "failures_total", "counter", "Transactions failed since the mount."},
	{"sessions", "open", "sessions_open", "gauge", "Files open for writing."},
	{"sessions", "transactions", "transactions_open", "gauge",
		"Transactions over many files that are open."},
	{"sessions", "committed", "sessions_committed_total", "counter", "Sessions committed."},
	{"sessions", "rolled_back", "sessions_rolled_back_total", "counter",
		"Sessions rolled back."},
	{"sessions", "conflicts", "sessions_conflicts_total", "counter",
		"Sessions lost to another's commit."},
	{"sessions", "failed", "sessions_failed_total", "counter", "Sessions whose commit failed."},
	{"disk_io", "writes", "disk_writes_total", "counter", "Writes to the disks, in calls."},
	{"disk_io", "written_bytes", "disk_written_bytes_total", "counter",
		"Bytes written to the disks, parity and directories included."},
	{"disk_io", "syncs", "disk_syncs_total", "counter",
		"Calls that waited for a disk to have on its media what was written."},
	{"errors", "count", "unreadable_ranges", "gauge", "Ranges of files that cannot be read."},
	{"mount", "known", "known_files", "gauge",
		"Files and directories that the kernel remembers."},
	{"mount", "up_s", "uptime_seconds", "gauge", "Seconds since the mount."},
};

static const struct metric disk_metrics[] = {
	{NULL, "read_errors", "disk_read_errors_total", "counter", "Reads that failed."},
	{NULL, "write_errors", "disk_write_errors_total", "counter", "Writes that failed."},
	{NULL, "checksum_errors", "disk_checksum_errors_total", "counter",
		"Blocks that did not verify."},
	{NULL, "repaired_bytes", "disk_repaired_bytes_total", "counter", "Bytes written anew."},
	{NULL, "total_bytes", "disk_total_bytes", "gauge", "Size of the disk's file system."},
	{NULL, "free_bytes", "disk_free_bytes", "gauge", "Of it, free."},
	{NULL, "used_bytes", "disk_used_bytes", "gauge", "Used by this volume."},
	{NULL, "missing_bytes", "disk_missing_bytes", "gauge", "Still to be rebuilt or moved."},
};

static void head(FILE *o, const char *name, const char *type, const char *help)
{
	fprintf(o, "# HELP sopfs_%s %s\n# TYPE sopfs_%s %s\n", name, help, name, type);
}

/* The value of a label: backslash, quote and newline are escaped. */
static void label(FILE *o, const char *name, const char *value)
{
	fprintf(o, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', o);
		if (*value == '\n')
			fputs("\\n", o);
		else
			fputc(*value, o);
	}
	fputc('"', o);
}

static void volume_labels(FILE *o, const json_t *status)
{
	const json_t *v = json_object_get(status, "volume");

	label(o, "volume", sopfs_json_text(v, "name"));
	fputc(',', o);
	label(o, "uuid", sopfs_json_text(v, "uuid"));
}

static void metric_states(FILE *o, const json_t *status, const json_t *disks)
{
	const json_t *d;
	size_t i;

	head(o, "healthy", "gauge", "1 when nothing is wrong.");
	fputs("sopfs_healthy{", o);
	volume_labels(o, status);
	fprintf(o, "} %d\n", sopfs_json_is(status, "health", "ok"));
	head(o, "degraded", "gauge", "1 when redundancy is less than it should be.");
	fputs("sopfs_degraded{", o);
	volume_labels(o, status);
	fprintf(o, "} %d\n", sopfs_json_is(status, "state", "DEGRADED"));
	head(o, "failed", "gauge", "1 when nothing can be committed any more.");
	fputs("sopfs_failed{", o);
	volume_labels(o, status);
	fprintf(o, "} %d\n", sopfs_json_is(status, "state", "FAILED"));
	head(o, "disk_state", "gauge", "1 for the state that the disk is in.");
	json_array_foreach(disks, i, d)
	{
		fputs("sopfs_disk_state{", o);
		volume_labels(o, status);
		fputc(',', o);
		label(o, "disk", sopfs_json_text(d, "name"));
		fputc(',', o);
		label(o, "path", sopfs_json_text(d, "path"));
		fputc(',', o);
		label(o, "state", sopfs_json_text(d, "state"));
		fputs("} 1\n", o);
	}
}

static void metric_tasks(FILE *o, const json_t *status)
{
	const json_t *tasks = json_object_get(status, "tasks"), *t;
	static const struct {
		const char *key, *name, *help;
	} parts[] = {
		{"bytes_done", "task_done_bytes", "Work done by a background task under way."},
		{"bytes_total", "task_total_bytes", "All the work of a background task under way."},
	};
	size_t i;

	for (size_t p = 0; p < SOP_ARRAY_LEN(parts); p++) {
		head(o, parts[p].name, "gauge", parts[p].help);
		json_array_foreach(tasks, i, t)
		{
			if (json_is_string(json_object_get(t, "ended")))
				continue;
			fprintf(o, "sopfs_%s{", parts[p].name);
			volume_labels(o, status);
			fputc(',', o);
			label(o, "kind", sopfs_json_text(t, "kind"));
			fputc(',', o);
			label(o, "disk", sopfs_json_text(t, "disk"));
			fprintf(o, "} %llu\n",
				(unsigned long long)sopfs_json_number(t, parts[p].key));
		}
	}
}

static void metric_requests(FILE *o, const json_t *status)
{
	json_t *requests = json_object_get(status, "requests"), *n;
	const char *kind;

	head(o, "requests_total", "counter", "Requests of the kernel, by kind.");
	json_object_foreach(requests, kind, n)
	{
		if (!strcmp(kind, "total"))
			continue;
		fprintf(o, "sopfs_requests_total{");
		volume_labels(o, status);
		fputc(',', o);
		label(o, "kind", kind);
		fprintf(o, "} %llu\n", (unsigned long long)json_integer_value(n));
	}
}

void sopfs_status_metrics(FILE *o, const json_t *status)
{
	const json_t *disks = json_object_get(status, "disks"), *d;
	size_t i;

	metric_states(o, status, disks);
	for (size_t n = 0; n < SOP_ARRAY_LEN(metrics); n++) {
		const struct metric *m = &metrics[n];

		head(o, m->name, m->type, m->help);
		fprintf(o, "sopfs_%s{", m->name);
		volume_labels(o, status);
		fprintf(o, "} %llu\n",
			(unsigned long long)sopfs_json_number(
				json_object_get(status, m->part), m->key));
	}
	for (size_t n = 0; n < SOP_ARRAY_LEN(disk_metrics); n++) {
		const struct metric *m = &disk_metrics[n];

		head(o, m->name, m->type, m->help);
		json_array_foreach(disks, i, d)
		{
			fprintf(o, "sopfs_%s{", m->name);
			volume_labels(o, status);
			fputc(',', o);
			label(o, "disk", sopfs_json_text(d, "name"));
			fprintf(o, "} %llu\n", (unsigned long long)sopfs_json_number(d, m->key));
		}
	}
	metric_requests(o, status);
	metric_tasks(o, status);
}
