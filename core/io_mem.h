/* Large buffers for I/O, kept for the next user up to a bound: at a megabyte each and thousands a
 * second, mapping and faulting them in anew would cost more than the I/O. The bound is higher while
 * somebody moves much at once. Any thread. */
#ifndef SOP_IO_MEM_H
#define SOP_IO_MEM_H

#include "core/lock.h"

#define SOP_IOMEM_CLASSES 37 /* 32 KiB to 16 MiB in quarter steps of each doubling */

struct sop_iobuf {
	struct sop_iobuf *next; /* the user's, while it has the buffer */
	size_t len_bytes;
	unsigned size_class; /* SOP_IOMEM_CLASSES: larger than any, not kept */
	void *data;	     /* page aligned */
};

struct sop_iomem {
	struct sop_lock lock;
	size_t kept_bytes;			   /* under lock */
	unsigned bulk;				   /* under lock: who moves much at once */
	struct sop_iobuf *kept[SOP_IOMEM_CLASSES]; /* under lock */
};

void sop_iomem_init(struct sop_iomem *m);
void sop_iomem_release(struct sop_iomem *m);
/* At least len_bytes; NULL: no memory. The content is of no known state. */
struct sop_iobuf *sop_iomem_get(struct sop_iomem *m, size_t len_bytes);
void sop_iomem_put(struct sop_iomem *m, struct sop_iobuf *b);
/* Between begin and end more is kept. */
void sop_iomem_bulk_begin(struct sop_iomem *m);
void sop_iomem_bulk_end(struct sop_iomem *m);

#endif
