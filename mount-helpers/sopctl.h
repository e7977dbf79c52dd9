/* sopctl: administers volumes. A table of verbs; each file of verbs knows its own options and talks
 * to the daemon of a mounted volume over its control socket (core/ctlsock.h), or reads the labels
 * of one that is not mounted (core/peek.h). It never touches the mount itself unless the verb is
 * about a file: a mount that hangs must not hang its administration. */
#ifndef SOPCTL_H
#define SOPCTL_H

#include <jansson.h>
#include <stdio.h>

#include "core/sop.h"

/* What sopctl exits with. */
enum sopctl_exit {
	SOPCTL_OK = 0,
	SOPCTL_FAILURE = 1,
	SOPCTL_USAGE = 2,
	SOPCTL_PARTIAL = 3, /* done, but something could not be repaired */
	SOPCTL_NO_VOLUME = 4,
	SOPCTL_LOCKED = 5, /* in use by another */
	SOPCTL_PERMISSION = 6,
	SOPCTL_DEGRADED = 7, /* the volume cannot do without it now */
	SOPCTL_AGAIN = 75,   /* txn: lost against another; as EX_TEMPFAIL */
};

/* ---- verbs and their words ---- */

struct sopctl_args {
	bool json, yes, dry_run, wait, verbose, unhealthy, check, force, follow, verify;
	bool pause, resume, stop, cancel, data_only, no_repair, duplicates, balance;
	const char *rate, *path, *kind, *disks, *key, *slot_length, *value, *ec, *session, *note,
		*cache, *retry, *size, *contents;
	char **word; /* what is no option */
	int words;
};

struct sopctl_verb {
	const char *name;
	const char *usage;   /* its words: "VOLUME DISK" */
	const char *summary; /* one line */
	const char *options; /* names of those it takes: "json yes wait" */
	int min_words, max_words;
	const char *help;			 /* more than the summary; lines end by \n */
	int (*run)(const struct sopctl_args *a); /* enum sopctl_exit */
};

/* Ended by one without a name. */
extern const struct sopctl_verb sopctl_status_verbs[], sopctl_disk_verbs[], sopctl_scrub_verbs[],
	sopctl_events_verbs[], sopctl_info_verbs[], sopctl_store_verbs[], sopctl_ec_verbs[],
	sopctl_txn_verbs[], sopctl_bench_verbs[], sopctl_dump_verbs[], sopctl_load_verbs[],
	sopctl_import_verbs[], sopctl_set_verbs[];

/* "sopctl: message" on stderr; returns code. */
int sopctl_fail(int code, const char *fmt, ...) SOP_PRINTF(2, 3);
/* Of an error of libsop. */
int sopctl_exit_of(int rc);
/* Dangerous: asked on a terminal, else --yes is wanted. 0, or what to exit with. */
int sopctl_confirm(const struct sopctl_args *a, const char *fmt, ...) SOP_PRINTF(2, 3);
/* Digits up to max, then `end`. Where it ends, or NULL. */
const char *sopctl_digits(const char *text, uint64_t max, char end, uint64_t *out);
/* Absolute, without "//", "/./", "/../"; as text alone. malloc'ed. */
char *sopctl_absolute(const char *path);
/* realpath(3), given up after two seconds: NULL. malloc'ed. */
char *sopctl_realpath(const char *path);
/* Text from elsewhere, made fit for a terminal: no control characters but newlines. In place. */
char *sopctl_clean(char *text);
/* Member `key` of j as bytes: a string, or as "KEY_hex" or "KEY_base64" what that stands for.
 * malloc'ed, a NUL behind it; NULL: not there, or none of these. */
char *sopctl_bytes(const json_t *j, const char *key, size_t *len);
/* The other way: "KEY_hex", where the text is no UTF-8. */
void sopctl_set_text(json_t *j, const char *key, const char *text);
/* "disk" of a request: "d3" stays what it is; a folder gets its full name. What to exit with. */
int sopctl_set_disk(json_t *request, const char *disk);
/* One JSON object on a line of stdout. */
void sopctl_print_json(const json_t *j);

/* ---- volumes ---- */

/* A mounted volume: a conversation with its daemon. */
struct sopctl_volume {
	int fd;
	json_t *hello; /* name, uuid, mount, disks */
	char *in;      /* received and not looked at */
	size_t in_len;
};

/* All mounted volumes whose daemons talk to this user. The number; *out is malloc'ed. silent:
 * further ones whose daemons do not answer; that is said. refused: there are some that do not talk
 * to this user. */
size_t sopctl_mounted(struct sopctl_volume **out, size_t *silent, bool *refused);
void sopctl_mounted_free(struct sopctl_volume *all, size_t n);
/* The one that name means: mount point, member folder, label, or UUID (or its beginning). inside:
 * or any path below the mount point. SOPCTL_NO_VOLUME when none is: said only if say. */
int sopctl_find(struct sopctl_volume *out, const char *name, bool inside, bool say);
void sopctl_close(struct sopctl_volume *v);
/* For messages and commands: its label, or its UUID. */
const char *sopctl_name(const struct sopctl_volume *v);

/* Ask; takes the reference to the request (verb and arguments). The result, a new reference; NULL:
 * an error, which is printed, and *code is what to exit with. wait_ms: at most. */
json_t *sopctl_ask(struct sopctl_volume *v, json_t *request, int wait_ms, int *code);
#define SOPCTL_SOON_MS 5000
#define SOPCTL_LONG_MS 600000 /* what waits for disks; the daemon has bounds of its own */
/* A line as it comes: 1 and *out, 0: the daemon has gone, or time is up; negative: an error. */
int sopctl_line(struct sopctl_volume *v, json_t **out, int wait_ms);
int sopctl_send(struct sopctl_volume *v, json_t *request);
/* An answer of many lines: takes the reference to the request, gives fn each line (its reference
 * stays), until fn wants no more or the answer itself has come, which says how it ended. wait_ms:
 * at most, for each; -1: no bound. What to exit with; what went wrong has been said, unless fn
 * ended it. */
int sopctl_lines(struct sopctl_volume *v, json_t *request, int wait_ms,
	bool (*fn)(void *arg, json_t *x), void *arg);
/* A folder as it is given, or of a mounted volume by its label or UUID the mount point. malloc'ed;
 * NULL: *code is what to exit with, and it is said. */
char *sopctl_folder(const char *name, int *code);

static inline const char *sopctl_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static inline uint64_t sopctl_number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

/* ---- progress (sopctl_progress.c) ---- */

/* Follow a task of this kind that was started at or after `since`, to its end. What it exits with.
 */
int sopctl_follow_task(
	struct sopctl_volume *v, const struct sopctl_args *a, const char *kind, time_t since);

/* What tells a disk from others: a name is given again when its disk has gone. */
struct sopctl_disk {
	char name[16], uuid[64];
};

/* The same for work on a disk, which may begin late and in parts: its state says when it is over.
 */
int sopctl_follow_disk(struct sopctl_volume *v, const struct sopctl_args *a, const char *kind,
	const struct sopctl_disk *disk, time_t since);

#endif
