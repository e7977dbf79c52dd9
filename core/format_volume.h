/* Making a volume (mkfs). All checks come before the first write; labels are written last, so that
 * a crash on the way leaves folders without labels, or a volume. */
#ifndef SOP_FORMAT_VOLUME_H
#define SOP_FORMAT_VOLUME_H

#include "core/clock.h"
#include "core/err.h"
#include "core/id.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sop_disk;
struct sop_label;

#define SOP_FORMAT_MEMBERS 128
#define SOP_FORMAT_PATH	   208

/* What mkfs tells its user. */
struct sop_format_report {
	struct sop_uuid uuid;
	char name[64];
	unsigned k, m, disks, replicas;
	uint32_t hashmod;
	uint64_t total_bytes, free_bytes; /* of data, after parity */
	bool one_device;		  /* two members share a device (allowed by force) */
	bool overwrote;			  /* a folder was not empty, or of another volume */
	unsigned members;
	struct {
		char path[SOP_FORMAT_PATH];
		bool data, registry;
	} member[SOP_FORMAT_MEMBERS];
};

/* An erasure code profile beside the default (see sop_profile_add). */
struct sop_format_profile {
	const char *name;
	unsigned k, m;
	bool no_repair;
	const char *const *disks; /* folders, of those given; n_disks 0: all */
	size_t n_disks;
};

struct sop_format_opts {
	const char *name;	     /* or NULL */
	const struct sop_uuid *uuid; /* or NULL: random */
	unsigned k, m;		     /* both 0: by the number of disks */
	/* Folders for registry replicas; n_stores 0: on the first m+1 disks, of a shared volume on
	 * an odd number of them, and at least three, where there are as many. */
	const char *const *stores;
	size_t n_stores;
	const struct sop_format_profile *profiles;
	size_t n_profiles;
	uint32_t hashmod; /* 250..750000; 0: 250 */
	bool shared;	  /* mounted by several machines at once (core/SHARED.md) */
	bool force;	  /* overwrite members of other volumes, non-empty folders, one device */
	bool dry_run;	  /* check all, write nothing */
	struct sop_format_report *report; /* filled when not NULL, in a dry run too */
	const struct sop_clock *clock;
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
};

/* Default profile for n disks: 1+0, 1+1, 2+1, 2+2, 3+2, then 4+2. */
void sop_format_profile(unsigned n, unsigned *k, unsigned *m);

/* Errors name the folder, the trouble and the remedy. made: the label all members share, when not
 * NULL. */
int sop_format(const char *const *disks, size_t n, const struct sop_format_opts *o,
	struct sop_label *made, struct sop_err *e);

#ifdef __cplusplus
}
#endif

#endif
