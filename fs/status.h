/* What there is to say about a mount: one model, made from memory alone (it never waits for a
 * disk), and its three forms. The text and the metrics are made from the JSON, so they cannot
 * differ from it.
 *
 * JSON, version 1: sizes in bytes, times in RFC 3339, what is not known is null. Members may be
 * added. */
#ifndef SOPFS_STATUS_H
#define SOPFS_STATUS_H

#include <jansson.h>
#include <stdio.h>

#include "fs/sopfs.h"

/* A new reference; NULL: no memory. names: with what only the owner may see (paths of lost files).
 */
json_t *sopfs_status_json(struct sopfs *f, bool names);
/* As people read it. verbose: space explained, counters. */
void sopfs_status_text(FILE *o, const json_t *status, bool verbose);
/* Prometheus text, with HELP and TYPE. */
void sopfs_status_metrics(FILE *o, const json_t *status);

/* Of a shared volume: "redis" and "mounters" are put in; and as text. NULL goes through. */
json_t *sopfs_status_with_mounters(json_t *status, struct sopfs *f);
void sopfs_status_text_mounters(FILE *o, const json_t *status);

/* A string. Names and paths may hold any bytes, JSON only UTF-8: what is none is shown as "?". */
json_t *sopfs_json_of(const char *s);

/* Members of the model. A text that is null or missing is "", a number 0. */
static inline uint64_t sopfs_json_number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static inline const char *sopfs_json_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static inline bool sopfs_json_is(const json_t *o, const char *key, const char *value)
{
	return strcmp(sopfs_json_text(o, key), value) == 0;
}

#endif
