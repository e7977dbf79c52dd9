/* What the files of fsck share: fsck.c (the looks and what comes of them), fsck_replicas.c (journal,
 * checkpoint and registry on each disk), repair.c (an open volume made whole), rebuild.c (a registry
 * made anew from the nodes). Private to these. */
#ifndef SOP_FSCK_OWN_H
#define SOP_FSCK_OWN_H

#include "core/check.h"
#include "core/fsck.h"

struct found { /* a finding, kept; strings malloc'ed */
	enum sop_found state;
	char *object, *what, *next;
	uint64_t off, len;
	bool steady; /* of data or disks: a look at a moving volume tells it, too */
};

struct found_list {
	struct found *f;
	size_t n, cap;
	bool failed; /* memory ran out */
};

void sop_found_add(struct found_list *l, const struct sop_finding *f, bool steady);
void sop_found_say(struct found_list *l, enum sop_found state, const char *object, const char *next,
	const char *fmt, ...) SOP_PRINTF(5, 6);
void sop_found_release(struct found_list *l);

/* What one look at the replicas of a volume has told. */
struct replica_look {
	bool clean;             /* the checkpoint says that the volume was closed in order */
	bool no_checkpoint;     /* whole on no current replica */
	bool registry_lost;     /* some block is whole nowhere */
	uint64_t epoch, lsn;    /* of the checkpoint */
};
int sop_fsck_replicas(const char *const *paths, size_t n, const struct sop_fsck_opts *o,
	struct found_list *l, struct replica_look *out, struct sop_err *e);

/* The handles that the flips of a checkpoint are about to write. */
struct flip_set {
	uint64_t *handle; /* rising, each once; malloc'ed */
	size_t n;
};
int sop_flip_set(struct flip_set *s, const struct sop_checkpoint *c, struct sop_err *e);
/* Does it write this block? Was some handle of it written before this checkpoint? (All below next_handle
 * have been, by some checkpoint.) */
bool sop_flip_touches(const struct flip_set *s, uint64_t first);
bool sop_flip_older(const struct flip_set *s, uint64_t first, uint64_t next_handle);

/* v is open for writing and nobody else uses it. *changed: something was put right. */
int sop_repair(struct sop_volume *v, const struct sop_fsck_opts *o, bool *changed, struct sop_err *e);

/* Make a registry, and a checkpoint where that is gone as well, from the nodes' own headers. The volume is
 * not open. */
int sop_rebuild(const char *const *paths, size_t n, const struct sop_fsck_opts *o, struct sop_err *e);

#endif
