/* Figures as people read them: sizes, durations, counts, times. Pure; any thread. Each fills text, which
 * holds SOP_HUMAN_TEXT bytes, and returns it. */
#ifndef SOP_HUMAN_H
#define SOP_HUMAN_H

#include <time.h>

#include "core/base.h"

#define SOP_HUMAN_TEXT 40

char *sop_human_size(char *text, uint64_t bytes);  /* "1.21 TiB", "412 MiB", "12 B" */
char *sop_human_brief(char *text, uint64_t bytes); /* for columns: "1.2T", "412M", "12B" */
char *sop_human_count(char *text, uint64_t n);     /* "1,204,331" */
char *sop_human_clock(char *text, uint64_t seconds);    /* "1:19:42", "0:05" */
char *sop_human_duration(char *text, uint64_t seconds); /* "12d 3h", "2h 5m", "41s" */
char *sop_human_date(char *text, time_t t);    /* local: "Sun Nov 22 10:05:28 2026" */
char *sop_human_rfc3339(char *text, struct timespec t); /* UTC: "2026-11-22T10:05:28.000123Z" */

#endif
