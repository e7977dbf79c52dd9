#include "core/io_mem.h"

#define SMALLEST ((size_t)32 << 10)

/* Under the address sanitizer nothing is kept, so that it sees every use after the end. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS 0
#endif
#endif
#ifndef KEEPS
#define KEEPS 1
#endif
#define KEEP_BYTES	((size_t)12 << 20)
#define KEEP_BYTES_BULK ((size_t)48 << 20)

/* Under the lock. */
static size_t most_kept(const struct sop_iomem *m)
{
	return KEEPS * (m->bulk ? KEEP_BYTES_BULK : KEEP_BYTES);
}

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
		keep = m->kept_bytes + b->len_bytes <= most_kept(m);
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

void sop_iomem_bulk_begin(struct sop_iomem *m)
{
	SOP_LOCK_GUARD(&m->lock);
	m->bulk++;
}

/* Under the lock. What is too much, the largest first. */
static struct sop_iobuf *take_surplus(struct sop_iomem *m)
{
	struct sop_iobuf *out = NULL;

	for (unsigned c = SOP_IOMEM_CLASSES; c-- > 0;)
		while (m->kept[c] && m->kept_bytes > most_kept(m)) {
			struct sop_iobuf *b = m->kept[c];

			m->kept[c] = b->next;
			m->kept_bytes -= b->len_bytes;
			b->next = out;
			out = b;
		}
	return out;
}

void sop_iomem_bulk_end(struct sop_iomem *m)
{
	struct sop_iobuf *surplus;

	sop_lock(&m->lock);
	m->bulk--;
	surplus = take_surplus(m);
	sop_unlock(&m->lock);
	while (surplus) {
		struct sop_iobuf *b = surplus;

		surplus = b->next;
		destroy(b);
	}
}
