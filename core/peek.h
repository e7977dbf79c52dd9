/* A volume as its labels tell it, without opening it: for tools that look at one that is not mounted, or
 * must not wait for the daemon. Changes nothing, takes no lock. */
#ifndef SOP_PEEK_H
#define SOP_PEEK_H

#include "core/err.h"
#include "core/id.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOP_PEEK_DISKS 128
#define SOP_PEEK_PATH  208

struct sop_peek_disk {
	unsigned index;
	struct sop_uuid uuid;
	char path[SOP_PEEK_PATH];
	bool data, registry;
	bool found;  /* its label is there, or was found elsewhere */
	bool online; /* and nothing has been committed without it, as far as the labels say */
	uint64_t total_bytes, free_bytes; /* of the file system it lies on; 0: not known */
};

struct sop_peek {
	struct sop_uuid uuid;
	char name[64];
	unsigned k, m;
	uint64_t generation, created_ns;
	bool openable; /* enough of it is there */
	char why_not[SOP_ERR_TEXT];
	unsigned disks;
	struct sop_peek_disk disk[SOP_PEEK_DISKS];
};

/* path: any member folder. SOP_ENOTVOLUME, SOP_EVERSION, SOP_ECORRUPT, -errno. A disk that does not answer
 * counts as not found after a few seconds; the folder itself is waited for. */
int sop_peek(struct sop_peek *out, const char *path, struct sop_err *e);

#ifdef __cplusplus
}
#endif

#endif
