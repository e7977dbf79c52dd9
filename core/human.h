/* Figures as people read and write them: sizes, durations, counts, times. Pure; any thread. Each
 * that writes fills text, which holds SOP_HUMAN_TEXT bytes, and returns it. */
#ifndef SOP_HUMAN_H
#define SOP_HUMAN_H

#include <time.h>

#include "core/base.h"

#define SOP_HUMAN_TEXT 40

char *sop_human_size(char *text, uint64_t bytes);	/* "1.21 TiB", "412 MiB", "12 B" */
char *sop_human_brief(char *text, uint64_t bytes);	/* for columns: "1.2T", "412M", "12B" */
char *sop_human_count(char *text, uint64_t n);		/* "1,204,331" */
char *sop_human_clock(char *text, uint64_t seconds);	/* "1:19:42", "0:05" */
char *sop_human_duration(char *text, uint64_t seconds); /* "12d 3h", "2h 5m", "41s" */
char *sop_human_date(char *text, time_t t);		/* local: "Sun Nov 22 10:05:28 2026" */
char *sop_human_rfc3339(char *text, struct timespec t); /* UTC: "2026-11-22T10:05:28.000123Z" */

/* And read, -EINVAL: it is none. "64M", "1.5G", "4096": bytes, K to T being powers of 1024, with
 * "B" or "iB" behind it as wanted. "2", "0.5", "2s", "250ms", "1min", "1h": milliseconds. */
int sop_human_parse_size(uint64_t *bytes, const char *text);
int sop_human_parse_time(unsigned *ms, const char *text);

#endif
