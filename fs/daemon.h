/* The daemon as a process: its birth, its report to whoever called, its log.
 *
 * sopfs forks before it opens anything; the parent waits for the child's one report and exits with
 * that, so that mount(8) returns when the file system serves, and with the right code when it does
 * not. */
#ifndef SOPFS_DAEMON_H
#define SOPFS_DAEMON_H

#include "core/err.h"
#include "core/log.h"

/* Exit codes of mount(8). */
enum sopfs_exit {
	SOPFS_EXIT_OK = 0,
	SOPFS_EXIT_USAGE = 1, /* or permission */
	SOPFS_EXIT_SYSTEM = 2,
	SOPFS_EXIT_INTERNAL = 4,
	SOPFS_EXIT_INTERRUPTED = 8,
	SOPFS_EXIT_FAILED = 32,
};

/* Of an error code of ours. */
int sopfs_exit_code(int rc);

/* Fork, unless in the foreground; returns in the child alone, which keeps no file of the caller's
 * but 0 to 2 (and gives those back with its report). */
int sopfs_daemon_start(bool foreground, struct sop_err *e);
/* Once: tell the parent. 0: also leave the terminal, the working directory and stdio. */
void sopfs_daemon_report(int exit_code);

/* Run a program of the system (args[0] is looked for in PATH) to its end, silently: its exit code,
 * or a negative code. */
int sopfs_run(const char *const *args);

/* Lines of the log: to stderr up to warnings until the report; from then on to the file, to stderr
 * in the foreground, or to syslog. name: the volume's, in every line; may be set later again. */
int sopfs_log_open(bool foreground, bool debug, const char *file, struct sop_err *e);
void sopfs_log_name(const char *name);
/* At the end: how many lines were left out, if any. */
void sopfs_log_finish(void);
const struct sop_log *sopfs_log(void);
/* fn gets every line that is logged, too, with a lock of the log's held: it must not log. NULL: no
 * more; when that returns, it is not called any more. */
void sopfs_log_tap(
	void (*fn)(void *arg, enum sop_log_level level, const char *module, const char *line),
	void *arg);

#endif
