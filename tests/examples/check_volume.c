/* check_volume FOLDER...: opens a volume that is not mounted, walks and verifies all of it, and
 * says what it found. Exit code 0: clean, no leak; 1: not; 2: it does not open. */
#include <inttypes.h>
#include <stdio.h>

#include "core/sop.h"

static void report(void *arg, const char *line)
{
	(void)arg;
	printf("%s\n", line);
}

static void log_line(void *ctx, enum sop_log_level level, const char *module, const char *line)
{
	(void)ctx;
	fprintf(stderr, "%s %s: %s\n", sop_log_level_name(level), module, line);
}

int main(int argc, char **argv)
{
	const struct sop_log log = {.sink = log_line, .max_level = SOP_LOG_WARNING};
	const struct sop_open_opts opts = {.log = &log, .degraded = true, .exclusive = true};
	struct sop_check_report r = {0};
	struct sop_volume_stat st;
	struct sop_volume *v;
	struct sop_err e = {0};
	int rc;

	if (argc < 2) {
		fprintf(stderr, "usage: check_volume FOLDER...\n");
		return 2;
	}
	rc = sop_volume_open(&v, (const char *const *)(argv + 1), (size_t)(argc - 1), &opts, &e);
	if (rc) {
		fprintf(stderr, "check_volume: %s\n", e.text);
		return 2;
	}
	/* What is dropped but not yet given back is no leak: let the background work end first. */
	rc = sop_volume_checkpoint(v, &e);
	if (!rc)
		rc = sop_volume_check(v, true, report, NULL, &r, &e);
	sop_volume_stat(v, &st);
	printf("%" PRIu64 " stores, %" PRIu64 " items, %" PRIu64 " nodes, %" PRIu64
	       " blobs, %" PRIu64 " bytes; %" PRIu64 " errors, %" PRIu64 " bytes leaked; %" PRIu64
	       " bytes pending\n",
		r.stores, r.items, r.nodes, r.blobs, r.blob_bytes, r.errors, r.leaked_bytes,
		st.pending_bytes);
	if (rc)
		fprintf(stderr, "check_volume: %s\n", e.text);
	else
		rc = r.errors || r.leaked_bytes;
	if (sop_volume_close(v, &e)) {
		fprintf(stderr, "check_volume: %s\n", e.text);
		rc = 1;
	}
	return rc ? 1 : 0;
}
