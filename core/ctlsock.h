/* The control socket of a mounted volume: what the daemon and sopctl must agree on. No engine in
 * it.
 *
 * Folder: /run/sopfs for root's daemons; $XDG_RUNTIME_DIR/sopfs, or else /run/user/UID/sopfs, for
 * those of other users. $SOPFS_RUN_DIR, when set, is used instead of all of these. It is used only
 * if it is a folder (no link) of root or the user himself into which nobody else may write.
 *
 * Name: UUID.PID.sock, of the volume and the daemon. It appears when the daemon listens already; so
 * one that refuses a connection belongs to a daemon that is dead, and whoever makes another may
 * remove it.
 *
 * Over it: one JSON object a line in each direction (requests of SOP_CTL_REQUEST_MAX bytes at
 * most).
 *     {"version":1,"verb":"status"}
 *     {"version":1,"ok":true,"result":{...}}
 *     {"version":1,"ok":false,"code":"EPERM","message":"..."}
 * "events" answers with a line for each event, until either side closes; "dump" with a line for
 * each name, then the answer, then it closes. Members that the daemon does not know are passed
 * over; a version that it does not speak is an error. */
#ifndef SOP_CTLSOCK_H
#define SOP_CTLSOCK_H

#include <sys/un.h>

#include "core/err.h"

#define SOP_CTL_VERSION	    1
#define SOP_CTL_REQUEST_MAX 65536u
#define SOP_CTL_SUFFIX	    ".sock"

/* Folder i of those this user looks in; 0 is where a daemon of his has its own. False: no more. */
bool sop_ctl_folder(char *out, size_t size, unsigned i);
/* Opened (a descriptor to close) and checked; create: made when missing. */
int sop_ctl_folder_open(const char *path, bool create, struct sop_err *e);
/* The address of a name in an open folder, however long the folder's path. -ENAMETOOLONG. */
int sop_ctl_address(struct sockaddr_un *out, int folder, const char *name);

#endif
