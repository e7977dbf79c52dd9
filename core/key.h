/* Keys with a type: what a store's items are ordered by.
 *
 * A tree orders byte strings. A typed key is encoded so that comparing the bytes compares the keys,
 * and is decoded back without loss:
 *
 *   bytes     as they are
 *   string    UTF-8, checked; in the order of code points
 *   int64     as numbers
 *   float64   as numbers; -0 is 0, and all NaNs are one key, below -infinity
 *   JSON map  by an index: ordered fields, each ascending or descending. What is not in the index
 * is carried along: it is no part of the order, nor of what makes two keys equal. A field that is
 * missing comes before null, then false, true, numbers, strings; nothing else can be indexed.
 * Numbers are compared by value, integers of 64 bits and doubles alike.
 *
 * A key of another type than the store's is an error (-EINVAL), never compared as something else.
 *
 * Every key has a name, by which a directory shows its item: decimal for int64, the shortest
 * decimal that reads back the same for float64, the text itself for strings, canonical JSON for
 * maps (no spaces, fields sorted, '/' written as \u002f). A store that allows duplicates shows the
 * first as the name, the second as name#2, and so on. A name in another form than this one is not
 * accepted. */
#ifndef SOP_KEY_H
#define SOP_KEY_H

#include "core/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SOP_KEY_MAX	   1024 /* bytes of an encoded key */
#define SOP_KEY_TEXT_MAX   1024 /* bytes of a JSON map in canonical form */
#define SOP_INDEX_FIELDS   16
#define SOP_INDEX_NAME_MAX 255	/* bytes of the name of a field */
#define SOP_INDEX_BYTES	   1024 /* names of all fields of an index */

enum sop_key_type {
	SOP_KEY_BYTES = 0,
	SOP_KEY_STRING = 1,
	SOP_KEY_INT64 = 2,
	SOP_KEY_FLOAT64 = 3,
	SOP_KEY_JSON = 4,
	SOP_KEY_TYPES
};

struct sop_key {
	enum sop_key_type type;
	int64_t i;     /* int64 */
	double f;      /* float64 */
	const void *p; /* bytes, string, JSON text */
	size_t len;
};

static inline struct sop_key sop_key_of(
	enum sop_key_type type, int64_t i, double f, const void *p, size_t len)
{
	struct sop_key k;

	k.type = type;
	k.i = i;
	k.f = f;
	k.p = p;
	k.len = len;
	return k;
}
static inline struct sop_key sop_key_int(int64_t i)
{
	return sop_key_of(SOP_KEY_INT64, i, 0, NULL, 0);
}
static inline struct sop_key sop_key_float(double f)
{
	return sop_key_of(SOP_KEY_FLOAT64, 0, f, NULL, 0);
}
static inline struct sop_key sop_key_bytes(const void *p, size_t len)
{
	return sop_key_of(SOP_KEY_BYTES, 0, 0, p, len);
}
static inline struct sop_key sop_key_string(const char *text)
{
	return sop_key_of(SOP_KEY_STRING, 0, 0, text, strlen(text));
}
static inline struct sop_key sop_key_json(const char *text)
{
	return sop_key_of(SOP_KEY_JSON, 0, 0, text, strlen(text));
}

/* What may stand in an indexed field. */
enum sop_field_type {
	SOP_FIELD_ANY = 0, /* a scalar, or nothing */
	SOP_FIELD_BOOL = 1,
	SOP_FIELD_NUMBER = 2,
	SOP_FIELD_STRING = 3,
};

struct sop_index_field {
	const char *name; /* UTF-8, 1 to SOP_INDEX_NAME_MAX bytes */
	bool descending;
	enum sop_field_type type;
};

/* The name of a type: "bytes", "string", "int64", "float64", "json". */
const char *sop_key_type_name(enum sop_key_type type);

/* An index as text, for options and attributes: fields with commas between, each NAME[:desc][:bool
 * | :number | :string]; a name with other characters than letters, digits and _ . - stands in JSON
 * quotes. parse: names point into buf (at least strlen(text) + 1 bytes); the number of fields, or
 * -EINVAL. */
int sop_index_parse(struct sop_index_field *fields, size_t max, const char *text, char *buf,
	size_t size, struct sop_err *e);
/* A type with its index: "int64", "json", "json:NAME,NAME:desc". n: fields; buf as above. -EINVAL.
 */
int sop_key_type_parse(enum sop_key_type *type, struct sop_index_field *fields, size_t max,
	unsigned *n, const char *text, char *buf, size_t size, struct sop_err *e);
/* The length as of snprintf. */
int sop_index_format(char *text, size_t size, const struct sop_index_field *fields, size_t n);

#ifdef __cplusplus
}
#endif

#endif
