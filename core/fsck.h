/* Checking and repairing a volume: what fsck.sopfs does. Part of the public face (sop.h).
 *
 * Without `repair` nothing is written and no lock is taken, so that a volume can be looked at while
 * somebody has it mounted: then only what two looks in a row find the same is told, for what one look
 * finds may be a moment between two states. With `repair` the volume must be free; what redundancy makes
 * up for is put right, what contradicts itself is made to agree; what is lost is named and stays as it is,
 * unless `discard_lost` says that it is to be removed, so that the rest is a whole volume again. */
#ifndef SOP_FSCK_H
#define SOP_FSCK_H

#include "core/err.h"
#include "core/log.h"

struct sop_disk;

enum sop_found {
	SOP_FOUND_NOTE,      /* nothing is wrong: worth knowing */
	SOP_FOUND_FIXABLE,   /* wrong; a repair puts it right and loses nothing */
	SOP_FOUND_FIXED,     /* was wrong */
	SOP_FOUND_HELP,      /* wrong; somebody has to do something about it */
	SOP_FOUND_LOST,      /* cannot be had back from this volume */
	SOP_FOUND_DISCARDED, /* was lost, and has been removed, as was asked */
	SOP_FOUND_STATES
};

struct sop_finding {
	enum sop_found state;
	const char *object; /* a path in the volume ("/a/b"; a directory's ends in "/"), or a file on a disk */
	uint64_t off, len;  /* bytes of it; len 0: it is about the whole */
	const char *what;   /* the trouble, and what is to be had back */
	const char *next;   /* what to do where a repair does not do it; "": nothing special */
};

struct sop_fsck_opts {
	bool repair;
	bool discard_lost; /* with repair; not while a disk is missing, which may have what seems lost ... */
	bool force;        /* ... except with this: it is gone for good */
	bool quick;        /* disks and replicas only, when the volume was closed in order */
	bool no_data;      /* tree nodes are verified and the values of files are not */
	unsigned disk_timeout_ms;
	const struct sop_log *log; /* or NULL */
	void (*found)(void *ctx, const struct sop_finding *f);
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total); /* or NULL */
	bool (*stop)(void *ctx); /* or NULL; true: give up, -ECANCELED; what is repaired stays repaired */
	void *ctx;
	/* for tests, as in sop_open_opts */
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
};

struct sop_fsck_report {
	char name[64]; /* of the volume, or its UUID */
	char user[256]; /* the claim of whoever has it, or had it when the machine stopped; "": nobody */
	uint64_t stores, items, nodes, blobs, blob_bytes; /* met */
	uint64_t found[SOP_FOUND_STATES];
	bool clean;    /* it was closed in order */
	bool quick;    /* and so nothing else was looked at */
	bool unsteady; /* it changed so fast that trees and accounts could not be told */
};

/* 0: looked at all there is (findings have been told); else why not: SOP_EINUSE, SOP_EDISKS,
 * SOP_EFOREIGN, SOP_EVERSION, SOP_ENOTVOLUME, -ECANCELED. paths: at least one member folder. */
int sop_fsck(const char *const *paths, size_t n, const struct sop_fsck_opts *o,
	struct sop_fsck_report *out, struct sop_err *e);

#endif
