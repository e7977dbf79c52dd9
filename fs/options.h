/* The command line of sopfs and mount.sopfs, the -o list and /etc/sopfs/NAME.conf: parsed and
 * checked, nothing acted on.
 *
 * One table says every option, its bounds, its line in --help. An unknown one, or a value out of
 * its bounds, is refused by name, so that a typing error in fstab is never silently another
 * setting. */
#ifndef SOPFS_OPTIONS_H
#define SOPFS_OPTIONS_H

#include "core/source.h"
#include "fs/sopfs.h"

struct sopfs_options {
	char *source;		/* as given: what mount(8) and df show */
	char *folders;		/* the same, or what the file of that NAME calls the source */
	struct sop_paths paths; /* of those: absolute, unescaped, globs expanded */
	char *lists;		/* all that -o gave, joined by commas, or NULL */
	char *mountpoint; /* as given, or of the file; may be NULL when only the settings are wanted
			   */
	bool named;	  /* source is the NAME of a file of settings */

	bool foreground, debug, verbose, help, version;
	bool dump;   /* --dump-config */
	bool fake;   /* mount.sopfs -f: check all, mount nothing */
	bool sloppy; /* mount.sopfs -s: unknown options are passed over */
	bool remount;

	char *namespace; /* -N: a PID or the path of a mount namespace; NULL: this one */

	uint64_t cache_bytes;	   /* cache=: of the engine and of sessions together */
	bool allow_other;	   /* the default for root */
	unsigned long mount_flags; /* MS_*; nosuid and nodev unless told otherwise */
	char *log_file; /* log=; NULL: stderr in the foreground, else the journal or syslog */

	char *redis, *redis_password_file; /* NULL: not given */
	char *secret; /* the file with the password, where another than that one (secret.h) */

	struct sop_open_opts volume;
	struct sopfs_opts fs;
};

/* The defaults. */
void sopfs_options_init(struct sopfs_options *o);
/* -EINVAL with one sentence that names what is wrong and what would be right. Release it either
 * way. argv[0] says whether mount(8) called (its -f and -v mean other things). */
int sopfs_options_parse(struct sopfs_options *o, int argc, char **argv, struct sop_err *e);
void sopfs_options_release(struct sopfs_options *o);

/* All settings as "key = value" lines, such as NAME.conf has them; malloc'ed, NULL without memory.
 */
char *sopfs_options_dump(const struct sopfs_options *o);

/* One such setting into o. */
int sopfs_options_set(
	struct sopfs_options *o, const char *key, const char *value, struct sop_err *e);
/* One -o list ("ro,cache=64M") into o. */
int sopfs_options_list(struct sopfs_options *o, const char *list, struct sop_err *e);
/* A SOURCE ("/data/d1:/data/d2", "/data/d*", "\:" for a colon in a name) into o->paths. */
int sopfs_options_source(struct sopfs_options *o, const char *source, struct sop_err *e);

void sopfs_options_usage(bool to_stderr);

#endif
