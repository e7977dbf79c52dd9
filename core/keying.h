/* How one store encodes its keys: the codec behind key.h. Pure, no I/O. Private to core.
 *
 * In a store that allows duplicates the tree's key is the encoded key, made self-ending, and a be64
 * number behind it: 1, 2, ... in the order of insertion. */
#ifndef SOP_KEYING_H
#define SOP_KEYING_H

#include "core/format.h"
#include "core/key.h"

/* Counted, since a reader may use it while its store is forgotten. */
struct sop_keying {
	_Atomic unsigned refs;
	enum sop_key_type type;
	bool duplicates;
	uint32_t shape;	   /* never 0; differs where keys are encoded otherwise */
	uint16_t n_fields; /* JSON; 0: none yet: the first key will say */
	struct sop_index_field field[SOP_INDEX_FIELDS];
	char names[SOP_INDEX_BYTES];
};

/* From a store's options, checked. *out NULL: bytes without duplicates, which need none. */
int sop_keying_new(struct sop_keying **out, const void *options, size_t len, struct sop_err *e);
struct sop_keying *sop_keying_get(struct sop_keying *k); /* NULL is fine */
void sop_keying_put(struct sop_keying *k);
static inline void sop_keying_put_p(struct sop_keying **k)
{
	sop_keying_put(*k);
}
#define sop_autokeying __attribute__((cleanup(sop_keying_put_p)))

struct sop_keybuf {
	uint8_t key[SOP_KEY_MAX];
	size_t len;
	size_t base; /* of it, without the number of a duplicate */
	/* JSON: the canonical text, when the key alone does not give it back; else text_len 0. */
	char text[SOP_KEY_TEXT_MAX + 1];
	size_t text_len;
};

#define SOP_DUPLICATE_BYTES 8u
/* An item added in a transaction gets its number at commit; until then this and its inode number.
 */
#define SOP_DUPLICATE_OWN (1ull << 63)

/* keying NULL: bytes. -EINVAL: of another type, not valid; -ENAMETOOLONG. In a store with
 * duplicates the number is put by sop_keybuf_number. */
int sop_key_encode(struct sop_keybuf *out, const struct sop_keying *k, const struct sop_key *key,
	struct sop_err *e);
int sop_keybuf_number(struct sop_keybuf *b, uint64_t number, struct sop_err *e);
uint64_t sop_duplicate_number(const void *key, size_t klen); /* of a tree's key */

/* Back. text: of a JSON map or a string with escapes, at least SOP_KEY_TEXT_MAX + 1 bytes; carried:
 * the item's own text or NULL. out->p points into text or key. */
int sop_key_decode(struct sop_key *out, const struct sop_keying *k, const void *key, size_t klen,
	const char *carried, size_t carried_len, char *text, struct sop_err *e);

/* By name. encode: -EINVAL unless it is the one canonical form. The number of a duplicate comes
 * along. */
int sop_key_name_encode(struct sop_keybuf *out, const struct sop_keying *k, const char *name,
	size_t len, struct sop_err *e);
#define SOP_KEY_NAME_MAX (SOP_KEY_TEXT_MAX + 32)
/* name: SOP_KEY_NAME_MAX bytes; the length. */
int sop_key_name(char *name, const struct sop_keying *k, const void *key, size_t klen,
	const char *carried, size_t carried_len, struct sop_err *e);

/* key_json.c: the fields of a first key, sorted by name, as an index; into `k`. */
int sop_json_first(struct sop_keying *k, const char *text, size_t len, struct sop_err *e);
/* Tree key (not NUL ended) and canonical text of a map. `base` is set. */
int sop_json_encode(struct sop_keybuf *out, const struct sop_keying *k, const char *text,
	size_t len, struct sop_err *e);
int sop_json_decode(char *text, size_t *text_len, const struct sop_keying *k, const void *key,
	size_t klen, struct sop_err *e);
/* The shortest text that reads back the same, whatever the locale; its length. */
#define SOP_DOUBLE_TEXT 40
int sop_double_format(char text[SOP_DOUBLE_TEXT], double f);
bool sop_utf8_valid(const void *p, size_t len);

#endif
