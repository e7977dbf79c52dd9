/* An ordered map of non-overlapping intervals of a file: what a session has written and not
 * committed.
 *
 * An interval is bytes in memory, a run of a blob, a run of a blob that others have committed and
 * somebody else keeps alive, or a hole. Setting one cuts or removes what it
 * covers. Memory intervals that touch merge (up to SOP_IMAP_MEM_MAX), so that small sequential
 * writes make one buffer. A balanced tree: a million intervals are fine. One thread at a time. */
#ifndef SOP_IMAP_H
#define SOP_IMAP_H

#include "core/blob.h"

#define SOP_IMAP_MEM_MAX (1u << 20)

enum sop_imap_kind { SOP_IMAP_MEM, SOP_IMAP_BLOB, SOP_IMAP_SHARED, SOP_IMAP_ZERO };

struct sop_imap_entry {
	uint64_t off, len;
	enum sop_imap_kind kind;
	struct sop_blobref ref; /* BLOB, SHARED: data [blob_off, blob_off + len) of it */
	uint32_t blob_off;
	uint8_t *mem; /* MEM: its len bytes; owned by the map */
};

struct sop_imap {
	void *root;
	size_t count;
	size_t mem_bytes; /* allocated for MEM intervals */
	uint64_t rng;
	/* Called when the last interval that refers to a blob goes (cut away whole, or released). A
	 * blob set once and cut in the middle is two intervals and one blob: the map counts. May be
	 * NULL. */
	void (*drop)(void *arg, const struct sop_blobref *ref);
	void *arg;
};

void sop_imap_init(
	struct sop_imap *m, void (*drop)(void *arg, const struct sop_blobref *ref), void *arg);
/* Frees all; drop is called for each blob still referred to. */
void sop_imap_release(struct sop_imap *m);
/* The same without calling drop: the blobs belong to somebody else now. */
void sop_imap_forget(struct sop_imap *m);

/* 0 or -ENOMEM: the map is as before, but for whole SOP_IMAP_MEM_MAX bytes of a longer write. off +
 * len must not overflow; len 0 does nothing. */
int sop_imap_write(struct sop_imap *m, uint64_t off, const void *data, size_t len);
int sop_imap_set_blob(struct sop_imap *m, uint64_t off, uint32_t len, const struct sop_blobref *ref,
	uint32_t blob_off);
int sop_imap_set_shared(struct sop_imap *m, uint64_t off, uint32_t len,
	const struct sop_blobref *ref, uint32_t blob_off);
int sop_imap_set_zero(struct sop_imap *m, uint64_t off, uint64_t len);
/* Nothing is known of [off, off+len) any more. Takes no memory when nothing covers off+len. */
int sop_imap_remove(struct sop_imap *m, uint64_t off, uint64_t len);
/* The same from off on. Takes none. */
void sop_imap_cut(struct sop_imap *m, uint64_t off);

/* The first interval that ends after off (covers off or lies behind it); NULL: none. Pointers hold
 * until the next change. */
struct sop_imap_entry *sop_imap_at(const struct sop_imap *m, uint64_t off);
struct sop_imap_entry *sop_imap_next(const struct sop_imap *m, const struct sop_imap_entry *x);
/* End of the last interval, 0 when empty. */
uint64_t sop_imap_end(const struct sop_imap *m);

/* A MEM interval has been written out as the whole blob `ref`: it becomes a BLOB interval in place.
 */
void sop_imap_stored(struct sop_imap *m, struct sop_imap_entry *x, const struct sop_blobref *ref);

#endif
