/* Error codes and messages.
 *
 * A function that can fail returns 0 (or a count) or a negative code: -errno, or one of SOP_E*
 * below -5000. The lowest layer says what failed (sop_fail), each layer above adds where
 * (sop_wrap). Nobody logs and returns. `e` may be NULL everywhere: then the text is lost, the code
 * is not. */
#ifndef SOP_ERR_H
#define SOP_ERR_H

#include "core/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, errno a file system shows, what it means */
#define SOP_ERRORS(X)                                                                              \
	X(SOP_ECONFLICT, -5001, EBUSY, "another transaction committed what this one depends on")   \
	X(SOP_ELOST, -5002, EIO, "too few shards are left to read this")                           \
	X(SOP_ECORRUPT, -5003, EIO, "a checksum or structure does not verify")                     \
	X(SOP_EFOREIGN, -5004, EINVAL, "not a member of this volume")                              \
	X(SOP_EVERSION, -5005, EPROTONOSUPPORT, "written by a newer format")                       \
	X(SOP_EINUSE, -5006, EBUSY, "the volume is in use")                                        \
	X(SOP_EDISKS, -5007, ENODEV, "too few disks")                                              \
	X(SOP_ETIMEOUT, -5008, ETIMEDOUT, "a wait came to its bound")                              \
	X(SOP_EDEAD, -5009, EROFS, "the volume has failed and takes no more commits")              \
	X(SOP_ENOTVOLUME, -5010, EINVAL, "holds no sopfs label")                                   \
	X(SOP_EUNSYNCED, -5011, EIO, "committed, but not known to be on the media")

#define X(name, value, number, text) name = (value),
enum sop_error { SOP_ERRORS(X) };
#undef X

#define SOP_ERR_TEXT 512

/* The caller's, usually on the stack. Valid as {0}. */
struct sop_err {
	int code;
	char text[SOP_ERR_TEXT];
};

/* Set the message (object: trouble) and return rc, a negative code. The meaning of rc is appended:
 * sop_fail(e, -ENOENT, "disk d1: label") gives "disk d1: label: No such file or directory". */
int sop_fail(struct sop_err *e, int rc, const char *fmt, ...) SOP_PRINTF(3, 4);

/* The same with the message alone, where it says everything. */
int sop_say(struct sop_err *e, int rc, const char *fmt, ...) SOP_PRINTF(3, 4);

/* Put "where: " before the message there is, and return rc. */
int sop_wrap(struct sop_err *e, int rc, const char *fmt, ...) SOP_PRINTF(3, 4);

/* The text of a code; the errno (positive) that stands for it; its name ("SOP_ELOST", "ENOENT"). */
const char *sop_err_text(int rc);
int sop_err_errno(int rc);
const char *sop_err_name(int rc);

#ifdef __cplusplus
}
#endif

#endif
