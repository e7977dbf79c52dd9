/* The command line of sopfs and mount.sopfs, and the -o list: parsed and checked, nothing acted on.
 *
 * One table says every option. An unknown one, or a value out of its bounds, is refused by name, so
 * that a typing error in fstab is never silently another setting. */
#ifndef SOPFS_OPTIONS_H
#define SOPFS_OPTIONS_H

#include "fs/sopfs.h"

struct sopfs_options {
	char *source;     /* as given: what mount(8) and df show */
	char **paths;     /* of it: absolute, unescaped, globs expanded */
	size_t n_paths;
	char *mountpoint; /* as given */

	bool foreground, debug, help, version;
	bool fake;   /* mount.sopfs -f: check all, mount nothing */
	bool sloppy; /* mount.sopfs -s: unknown options are passed over */
	bool remount;

	bool allow_other;          /* the default for root */
	unsigned long mount_flags; /* MS_*; nosuid and nodev unless told otherwise */
	char *log_file;            /* log=; NULL: stderr in the foreground, else syslog */

	struct sop_open_opts volume;
	struct sopfs_opts fs;
};

/* -EINVAL with one sentence that names what is wrong and what would be right. Release it either way.
 * argv[0] says whether mount(8) called (its -f and -v mean other things). */
int sopfs_options_parse(struct sopfs_options *o, int argc, char **argv, struct sop_err *e);
void sopfs_options_release(struct sopfs_options *o);

/* One -o list ("ro,cache=64M") into o. */
int sopfs_options_list(struct sopfs_options *o, const char *list, struct sop_err *e);
/* A SOURCE ("/data/d1:/data/d2", "/data/d*", "\:" for a colon in a name) into o->paths. */
int sopfs_options_source(struct sopfs_options *o, const char *source, struct sop_err *e);

/* "64M", "1.5G", "4096": bytes, K to T being powers of 1024. "2", "0.5", "2s", "250ms", "1min": ms. */
int sopfs_parse_size(uint64_t *bytes, const char *text);
int sopfs_parse_time(unsigned *ms, const char *text);

void sopfs_options_usage(bool to_stderr);

#endif
