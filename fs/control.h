/* The control socket of a mount (core/ctlsock.h says where it lies and what goes over it).
 *
 * One thread answers all clients and never waits: not for a disk, not for the mount, not for a
 * client. A verb that may wait is run by a thread of its own, a few at a time, and its client is
 * answered when it is done. Who asks is known from the kernel: root and the daemon's own user may
 * change things and see names of files; others may look at the status if the mount lets them in
 * (allow_other).
 *
 * Whatever a client sends, or does not read, costs this much at most: CLIENTS connections (fewer
 * for one ordinary user), a request and an answer of bounded size each, a connection without a word
 * for half a minute. */
#ifndef SOPFS_CONTROL_H
#define SOPFS_CONTROL_H

#include <jansson.h>
#include <sys/socket.h>

#include "fs/sopfs.h"

/* ---- verbs (control_verbs.c) ---- */

enum sopfs_access { SOPFS_MAY_LOOK, SOPFS_MAY_CHANGE };

struct sopfs_verb {
	const char *name;
	enum sopfs_access access;
	bool waits; /* for disks: not on the control thread */
	/* A new reference, or NULL and e. Neither function: events, a line each (control.c). */
	json_t *(*run)(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e);
	/* Or many lines, before the answer; the connection ends with it. put takes the reference;
	 * when it returns other than 0, nobody wants more. */
	int (*lines)(struct sopfs *f, const json_t *request, int (*put)(void *arg, json_t *line),
		void *arg, struct sop_err *e);
};
/* NULL: there is none of this name. */
const struct sopfs_verb *sopfs_verb_find(const char *name);

/* control_stores.c */
json_t *sopfs_run_ec(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e);
json_t *sopfs_run_ec_add(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e);
json_t *sopfs_run_txn(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e);

#endif
