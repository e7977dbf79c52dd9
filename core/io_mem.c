#include "core/io_mem.h"

#define SMALLEST ((size_t)32 << 10)

/* Under the address sanitizer nothing is kept, so that it sees every use after the end. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEP_BYTES ((size_t)0)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEP_BYTES ((size_t)0)
#endif
#endif
#ifndef KEEP_BYTES
#define KEEP_BYTES ((size_t)12 << 20)
#endif

static size_t class_bytes(unsigned size_class)
{
	return (SMALLEST << (size_class / 4)) / 4 * (4 + size_class % 4);
}

static unsigned class_for(size_t len_bytes)
{
	unsigned c = 0;

	while (c < SOP_IOMEM_CLASSES && class_bytes(c) < len_bytes)
		c++;
	return c;
}

void sop_iomem_init(struct sop_iomem *m)
{
	memset(m, 0, sizeof(*m));
	sop_lock_init(&m->lock, SOP_RANK_LEAF, "iomem");
}

static void destroy(struct sop_iobuf *b)
{
	free(b->data);
	free(b);
}

void sop_iomem_release(struct sop_iomem *m)
{
	for (unsigned c = 0; c < SOP_IOMEM_CLASSES; c++) {
		while (m->kept[c]) {
			struct sop_iobuf *b = m->kept[c];

			m->kept[c] = b->next;
			destroy(b);
		}
	}
	sop_lock_release(&m->lock);
}

struct sop_iobuf *sop_iomem_get(struct sop_iomem *m, size_t len_bytes)
{
	unsigned c = class_for(len_bytes);
	struct sop_iobuf *b = NULL;

	if (c < SOP_IOMEM_CLASSES) {
		len_bytes = class_bytes(c);
		sop_lock(&m->lock);
		b = m->kept[c];
		if (b) {
			m->kept[c] = b->next;
			m->kept_bytes -= b->len_bytes;
		}
		sop_unlock(&m->lock);
	}
	if (b)
		return b;
	b = malloc(sizeof(*b));
	if (!b)
		return NULL;
	b->data = sop_alloc_aligned(len_bytes);
	if (!b->data) {
		free(b);
		return NULL;
	}
	b->len_bytes = len_bytes;
	b->size_class = c;
	return b;
}

void sop_iomem_put(struct sop_iomem *m, struct sop_iobuf *b)
{
	bool keep = false;

	if (b->size_class < SOP_IOMEM_CLASSES) {
		sop_lock(&m->lock);
		keep = m->kept_bytes + b->len_bytes <= KEEP_BYTES;
		if (keep) {
			b->next = m->kept[b->size_class];
			m->kept[b->size_class] = b;
			m->kept_bytes += b->len_bytes;
		}
		sop_unlock(&m->lock);
	}
	if (!keep)
		destroy(b);
}
