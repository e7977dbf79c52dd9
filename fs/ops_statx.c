/* STATX: the one request of the attribute family that libfuse leaves to ENOSYS. It is GETATTR with
 * the birth time, which there is no other way to show; the kernel sends it when a program asks for
 * that time. The channel hands it to us before libfuse sees it. */
#include <linux/fuse.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/channel.h"
#include "fs/ops.h"

/* As <linux/fuse.h> has them from 7.39 on, under names of our own. */
struct statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};

struct sx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};

struct statx_out {
	uint64_t valid;
	uint32_t valid_nsec, flags;
	uint64_t spare[2];
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};

static_assert(sizeof(struct statx_in) == 24 && sizeof(struct statx_out) == 288, "STATX");

static struct sx_time sx_time(struct timespec t)
{
	return (struct sx_time){.sec = t.tv_sec, .nsec = (uint32_t)t.tv_nsec};
}

static void fill(struct statx_out *o, const struct sop_attr *a, bool cache)
{
	struct stat st;

	sopfs_stat_of(a, &st);
	*o = (struct statx_out){
		.valid = cache ? (uint64_t)SOPFS_CACHE_SECONDS : 0,
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = (uint32_t)st.st_blksize,
		.nlink = (uint32_t)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.mode = (uint16_t)st.st_mode,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.atime = sx_time(st.st_atim),
		.btime = sx_time(a->btime),
		.ctime = sx_time(st.st_ctim),
		.mtime = sx_time(st.st_mtim),
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
	};
}

struct stating {
	int fd;
	uint64_t unique;
	struct statx_out out;
};

static void stating_done(void *arg)
{
	struct stating *s = arg;

	sopfs_channel_answer(s->fd, s->unique, 0, &s->out, sizeof(s->out));
	free(s);
}

/* As a GETATTR is answered (ops_meta.c). */
static void reply_statx(struct sopfs *f, const struct stating *s, struct sopfs_notes *notes)
{
	struct stating *later = sopfs_must_be_told(f, notes) ? malloc(sizeof(*later)) : NULL;

	if (later) {
		*later = *s;
		sopfs_notify_dropped(f, notes, stating_done, later);
		return;
	}
	sopfs_notify_later(f, notes);
	sopfs_channel_answer(s->fd, s->unique, 0, &s->out, sizeof(s->out));
}

void sopfs_answer_statx(void *userdata, int fd, const void *request, size_t len)
{
	struct sopfs *f = userdata;
	struct fuse_in_header head;
	struct statx_in in;
	struct stating s = {.fd = fd};
	struct sopfs_notes notes = {0};
	struct sop_err e = {0};
	struct sop_attr a;
	bool cache;
	int rc;

	memcpy(&head, request, sizeof(head));
	rc = len < sizeof(head) + sizeof(in) ? -EINVAL : sopfs_world_enter(head.nodeid, false);
	if (rc) {
		sopfs_channel_answer(fd, head.unique, -rc, NULL, 0);
		return;
	}
	memcpy(&in, (const char *)request + sizeof(head), sizeof(in));
	s.unique = head.unique;
	if (sopfs_world_current)
		f = sopfs_world_fs(sopfs_world_current);
	rc = sopfs_getattr(f, (int)head.pid, sopfs_view_of(f, head.nodeid),
		in.getattr_flags & FUSE_GETATTR_FH ? (struct sopfs_handle *)(uintptr_t)in.fh : NULL,
		&a, &cache, &notes, &e);
	if (rc) {
		sopfs_notify_later(f, &notes);
		sopfs_channel_answer(fd, head.unique, sopfs_trouble(f, rc, &e), NULL, 0);
	} else {
		fill(&s.out, &a, cache && sopfs_may_cache(f));
		reply_statx(f, &s, &notes);
	}
	sopfs_world_leave();
}
