/* The filesystem over libsop, as the daemon's main program sees it.
 *
 * main.c parses options, opens the volume, makes the channel (fs/channel.h) and runs the session
 * loop; everything between a request and libsop is behind this header. One struct sopfs per mount.
 */
#ifndef SOPFS_SOPFS_H
#define SOPFS_SOPFS_H

#include "core/sop.h"

struct fuse_lowlevel_ops;
struct fuse_session;
struct fuse_conn_info;
struct sopfs;

struct sopfs_opts {
	bool session_write; /* session=write: every write its own transaction */
	bool killed_commit; /* killed=commit */
	bool exit_rollback; /* exit=rollback */
	bool sync;	    /* -o sync: every commit is durable */
	bool read_only;
	bool no_acl; /* without POSIX access control lists: one question a file less */
	unsigned append_commit_ms; /* append_commit= */
	size_t resident_max; /* bytes: beyond, the allocator gives back what is free; 0: never */
	size_t known_max;    /* of files and directories: the kernel is asked to forget beyond; 0:
				never */
	const char
		*settings; /* "key = value" lines, shown as sop.options of the root; outlive it */
	const struct sop_log *log;
	bool allow_other;	/* others may use the mount: they may see its status, too */
	const char *mountpoint; /* canonical; for status. Outlives the mount, as does source */
	const char *source;
};

int sopfs_new(
	struct sopfs **out, struct sop_volume *v, const struct sopfs_opts *o, struct sop_err *e);
/* After the session loop has ended. Sessions that are still open: file.c. */
void sopfs_free(struct sopfs *f);

extern const struct fuse_lowlevel_ops sopfs_ops; /* userdata: the struct sopfs */
/* The STATX request, which libfuse does not know; it has a header. Answered now or later, by
 * sopfs_channel_answer(). */
void sopfs_answer_statx(void *userdata, int fd, const void *request, size_t len);

/* For notifications; call once, before the loop. */
void sopfs_set_session(struct sopfs *f, struct fuse_session *se);

/* The control socket (fs/control.h). Without one the mount serves all the same. Stop it before
 * sopfs_free(). */
int sopfs_control_start(struct sopfs *f, struct sop_err *e);
void sopfs_control_stop(struct sopfs *f);

/* Sessions: counted for status. */
struct sopfs_stat {
	uint64_t sessions_open, committed, rolled_back, conflicts, failed;
	unsigned transactions; /* over many files, open */
	uint64_t known;	       /* files and directories that the kernel remembers */
};
void sopfs_stat(struct sopfs *f, struct sopfs_stat *out);

#endif
