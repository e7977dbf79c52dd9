/* Keys of all types but JSON: encoding, decoding, names. */
#include "core/ec.h"
#include "core/keying.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

static const char *const type_names[SOP_KEY_TYPES] = {
	"bytes", "string", "int64", "float64", "json"};

const char *sop_key_type_name(enum sop_key_type type)
{
	return (unsigned)type < SOP_KEY_TYPES ? type_names[type] : "unknown";
}

/* ---- keyings ---- */

static int index_decode(struct sop_keying *k, const uint8_t *p, size_t len, struct sop_err *e)
{
	size_t at = 0, used = 0;

	while (at < len) {
		struct sop_disk_index_field d;
		struct sop_index_field *f = &k->field[k->n_fields];
		size_t n;

		if (k->n_fields == SOP_INDEX_FIELDS || len - at < sizeof(d))
			return sop_fail(e, SOP_ECORRUPT, "index of a store");
		memcpy(&d, p + at, sizeof(d));
		n = le16_get(d.name_len);
		at += sizeof(d);
		if (!n || n > SOP_INDEX_NAME_MAX || n > len - at ||
			used + n + 1 > sizeof(k->names) || d.flags & ~1u ||
			d.type > SOP_FIELD_STRING)
			return sop_fail(e, SOP_ECORRUPT, "index of a store");
		memcpy(k->names + used, p + at, n);
		f->name = k->names + used;
		f->descending = d.flags & 1;
		f->type = (enum sop_field_type)d.type;
		k->names[used + n] = 0;
		if (strlen(f->name) != n)
			return sop_fail(e, SOP_ECORRUPT, "index of a store");
		/* What the index has of a map is told by counting its fields. */
		for (unsigned i = 0; i < k->n_fields; i++)
			if (!strcmp(k->field[i].name, f->name))
				return sop_fail(e, SOP_ECORRUPT, "index of a store");
		used += n + 1;
		at += n;
		k->n_fields++;
	}
	return 0;
}

int sop_keying_new(struct sop_keying **out, const void *options, size_t len, struct sop_err *e)
{
	struct sop_disk_store_options o;
	struct sop_keying *k;
	int rc;

	*out = NULL;
	if (!len)
		return 0;
	memcpy(&o, options, sizeof(o));
	if (o.key_type == SOP_KEY_BYTES && !(o.flags & SOP_OPTION_DUPLICATES))
		return 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return sop_fail(e, -ENOMEM, "keys of a store");
	atomic_init(&k->refs, 1);
	k->type = (enum sop_key_type)o.key_type;
	k->duplicates = o.flags & SOP_OPTION_DUPLICATES;
	rc = index_decode(
		k, (const uint8_t *)options + sizeof(o) + o.profile_len, le16_get(o.index_len), e);
	if (rc) {
		free(k);
		return rc;
	}
	k->shape = sop_crc32c(o.key_type + 256u * k->duplicates,
			   (const uint8_t *)options + sizeof(o) + o.profile_len,
			   le16_get(o.index_len)) |
		   1;
	*out = k;
	return 0;
}

struct sop_keying *sop_keying_get(struct sop_keying *k)
{
	if (k)
		atomic_fetch_add(&k->refs, 1);
	return k;
}

void sop_keying_put(struct sop_keying *k)
{
	if (k && atomic_fetch_sub(&k->refs, 1) == 1)
		free(k);
}

/* ---- scalars ---- */

bool sop_utf8_valid(const void *p, size_t len)
{
	const uint8_t *s = p, *end = s + len;

	while (s < end) {
		uint32_t c = *s++, low = 0;
		unsigned more;

		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c < 0xe0) {
			more = 1;
			c &= 0x1f;
			low = 0x80;
		} else if (c >= 0xe0 && c < 0xf0) {
			more = 2;
			c &= 0x0f;
			low = 0x800;
		} else if (c >= 0xf0 && c < 0xf5) {
			more = 3;
			c &= 0x07;
			low = 0x10000;
		} else {
			return false;
		}
		if ((size_t)(end - s) < more)
			return false;
		while (more--) {
			if ((*s & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*s++ & 0x3f);
		}
		if (c < low || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			return false;
	}
	return true;
}

static uint64_t double_bits(double f)
{
	uint64_t u;

	if (isnan(f))
		return 0; /* below -infinity, which is 0x000fffffffffffff */
	if (f == 0)
		f = 0; /* -0 */
	memcpy(&u, &f, sizeof(u));
	return u >> 63 ? ~u : u | 1ull << 63;
}

static double double_of(uint64_t u)
{
	double f;

	if (!u)
		return (double)NAN;
	u = u >> 63 ? u & ~(1ull << 63) : ~u;
	memcpy(&f, &u, sizeof(f));
	return f;
}

int sop_double_format(char text[SOP_DOUBLE_TEXT], double f)
{
	char try[SOP_DOUBLE_TEXT];
	int n = 0;

	if (isnan(f))
		return snprintf(text, SOP_DOUBLE_TEXT, "nan");
	if (isinf(f))
		return snprintf(text, SOP_DOUBLE_TEXT, f < 0 ? "-inf" : "inf");
	if (f == 0)
		f = 0;
	for (int digits = 15; digits <= 17; digits++) {
		n = snprintf(try, sizeof(try), "%.*g", digits, f);
		if (strtod(try, NULL) == f)
			break;
	}
	/* Whatever the locale writes for the point. */
	{
		char *to = text;
		bool point = false;

		for (const char *p = try; p < try + n; p++) {
			if ((*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == 'e') {
				*to++ = *p;
				point = false;
			} else if (!point) {
				*to++ = '.';
				point = true;
			}
		}
		*to = 0;
		return (int)(to - text);
	}
}

/* ---- encoding ---- */

static int take(struct sop_keybuf *out, const void *p, size_t len, struct sop_err *e)
{
	if (len > sizeof(out->key) - out->len)
		return sop_fail(e, -ENAMETOOLONG, "key of more than %d bytes", SOP_KEY_MAX);
	if (len)
		memcpy(out->key + out->len, p, len);
	out->len += len;
	return 0;
}

/* Bytes that end by themselves: 00 becomes 00 ff, and 00 00 is the end, below anything that
 * follows. */
static int take_ended(struct sop_keybuf *out, const uint8_t *p, size_t len, struct sop_err *e)
{
	int rc = 0;

	while (len && !rc) {
		const uint8_t *nul = memchr(p, 0, len);
		size_t n = nul ? (size_t)(nul - p) : len;

		rc = take(out, p, n, e);
		if (!rc && nul)
			rc = take(out, "\0\xff", 2, e);
		n += nul != NULL;
		p += n;
		len -= n;
	}
	return rc ? rc : take(out, "\0\0", 2, e);
}

static int wrong_type(const struct sop_keying *k, const struct sop_key *key, struct sop_err *e)
{
	return sop_say(e, -EINVAL, "the store's keys are of type %s, this one is of type %s",
		sop_key_type_name(k ? k->type : SOP_KEY_BYTES), sop_key_type_name(key->type));
}

int sop_key_encode(struct sop_keybuf *out, const struct sop_keying *k, const struct sop_key *key,
	struct sop_err *e)
{
	enum sop_key_type type = k ? k->type : SOP_KEY_BYTES;
	bool ended = k && k->duplicates;
	uint8_t raw[8];
	int rc = -EINVAL;

	out->len = out->base = out->text_len = 0;
	if (key->type != type)
		return wrong_type(k, key, e);
	switch (type) {
	case SOP_KEY_STRING:
		if (!sop_utf8_valid(key->p, key->len))
			return sop_say(e, -EINVAL, "key: not valid UTF-8");
		rc = ended ? take_ended(out, key->p, key->len, e) : take(out, key->p, key->len, e);
		break;
	case SOP_KEY_BYTES:
		rc = ended ? take_ended(out, key->p, key->len, e) : take(out, key->p, key->len, e);
		break;
	case SOP_KEY_INT64:
		be64_put(raw, (uint64_t)key->i ^ 1ull << 63);
		rc = take(out, raw, sizeof(raw), e);
		break;
	case SOP_KEY_FLOAT64:
		be64_put(raw, double_bits(key->f));
		rc = take(out, raw, sizeof(raw), e);
		break;
	case SOP_KEY_JSON:
		rc = sop_json_encode(out, k, key->p, key->len, e);
		break;
	case SOP_KEY_TYPES:
		break;
	}
	out->base = out->len;
	if (!rc && ended && out->len > sizeof(out->key) - SOP_DUPLICATE_BYTES)
		rc = sop_fail(e, -ENAMETOOLONG, "key of more than %d bytes", SOP_KEY_MAX);
	return rc;
}

int sop_keybuf_number(struct sop_keybuf *b, uint64_t number, struct sop_err *e)
{
	uint8_t raw[SOP_DUPLICATE_BYTES];

	be64_put(raw, number);
	b->len = b->base;
	return take(b, raw, sizeof(raw), e);
}

uint64_t sop_duplicate_number(const void *key, size_t klen)
{
	return klen < SOP_DUPLICATE_BYTES
		       ? 0
		       : be64_get((const uint8_t *)key + klen - SOP_DUPLICATE_BYTES);
}

/* ---- decoding ---- */

/* Back from take_ended into text; the length, or -1. */
static ssize_t untake(char *text, size_t size, const uint8_t *p, size_t len)
{
	size_t n = 0, at = 0;

	while (at + 2 <= len) {
		if (n == size)
			return -1;
		if (p[at]) {
			text[n++] = (char)p[at++];
			continue;
		}
		if (!p[at + 1])
			return at + 2 == len ? (ssize_t)n : -1;
		if (p[at + 1] != 0xff)
			return -1;
		text[n++] = 0;
		at += 2;
	}
	return -1;
}

static int bad_key(struct sop_err *e)
{
	return sop_fail(e, SOP_ECORRUPT, "key of a typed store");
}

int sop_key_decode(struct sop_key *out, const struct sop_keying *k, const void *key, size_t klen,
	const char *carried, size_t carried_len, char *text, struct sop_err *e)
{
	ssize_t n;

	*out = sop_key_of(k ? k->type : SOP_KEY_BYTES, 0, 0, key, klen);
	if (!k)
		return 0;
	if (k->duplicates) {
		if (klen < SOP_DUPLICATE_BYTES)
			return bad_key(e);
		klen -= SOP_DUPLICATE_BYTES;
		out->len = klen;
	}
	switch (k->type) {
	case SOP_KEY_BYTES:
	case SOP_KEY_STRING:
		if (!k->duplicates)
			return 0;
		n = untake(text, SOP_KEY_TEXT_MAX, key, klen);
		if (n < 0)
			return bad_key(e);
		text[n] = 0;
		out->p = text;
		out->len = (size_t)n;
		return 0;
	case SOP_KEY_INT64:
		if (klen != 8)
			return bad_key(e);
		out->i = (int64_t)(be64_get(key) ^ 1ull << 63);
		return 0;
	case SOP_KEY_FLOAT64:
		if (klen != 8)
			return bad_key(e);
		out->f = double_of(be64_get(key));
		return 0;
	case SOP_KEY_JSON:
		out->p = text;
		if (!carried_len)
			return sop_json_decode(text, &out->len, k, key, klen, e);
		if (carried_len > SOP_KEY_TEXT_MAX)
			return bad_key(e);
		memcpy(text, carried, carried_len);
		text[carried_len] = 0;
		out->len = carried_len;
		return 0;
	case SOP_KEY_TYPES:
		break;
	}
	return bad_key(e);
}

/* ---- names ---- */

/* The number behind the last '#' when it is one in canonical form; 0: there is none. */
static uint64_t name_number(const char *name, size_t len, size_t *base)
{
	uint64_t n = 0;
	size_t at = len;

	while (at && name[at - 1] >= '0' && name[at - 1] <= '9')
		at--;
	if (at == len || len - at > 18 || !at || name[at - 1] != '#' || name[at] == '0')
		return 0;
	*base = at - 1;
	for (size_t i = at; i < len; i++)
		n = n * 10 + (uint64_t)(name[i] - '0');
	return n;
}

static int not_canonical(
	const char *name, size_t len, const struct sop_keying *k, struct sop_err *e)
{
	return sop_say(e, -EINVAL, "\"%.*s\": no key of type %s in its canonical form",
		(int)SOP_MIN(len, (size_t)64), name, sop_key_type_name(k->type));
}

static int parse_int(int64_t *out, const char *text, size_t len)
{
	bool minus = len && *text == '-';
	uint64_t x = 0;

	if (len <= minus || len > 20 || (text[minus] == '0' && len != 1))
		return -EINVAL;
	for (size_t i = minus; i < len; i++) {
		if (text[i] < '0' || text[i] > '9' || x > UINT64_MAX / 10 - 1)
			return -EINVAL;
		x = x * 10 + (uint64_t)(text[i] - '0');
	}
	if (x > (uint64_t)INT64_MAX + minus)
		return -EINVAL;
	*out = (int64_t)(minus ? 0 - x : x);
	return 0;
}

/* In the C locale's form, whatever the locale is. */
static int parse_double(double *out, const char *text, size_t len)
{
	char own[64], back[SOP_DOUBLE_TEXT], probe[16], *end;
	size_t n = 0;

	if (len >= 40)
		return -EINVAL;
	snprintf(probe, sizeof(probe), "%.1f", 0.5); /* "0", the point, "5" */
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '.') {
			size_t point = strlen(probe) - 2;

			memcpy(own + n, probe + 1, point);
			n += point;
		} else {
			own[n++] = text[i];
		}
		if (n > sizeof(own) - 16)
			return -EINVAL;
	}
	own[n] = 0;
	*out = strtod(own, &end);
	if (*end || end == own || (size_t)sop_double_format(back, *out) != len ||
		memcmp(back, text, len))
		return -EINVAL;
	return 0;
}

/* Without the number of a duplicate. */
static int encode_text(struct sop_keybuf *out, const struct sop_keying *k, const char *name,
	size_t len, struct sop_err *e)
{
	struct sop_key key = sop_key_of(k->type, 0, 0, name, len);
	int rc = 0;

	if (k->type == SOP_KEY_INT64)
		rc = parse_int(&key.i, name, len);
	else if (k->type == SOP_KEY_FLOAT64)
		rc = parse_double(&key.f, name, len);
	if (!rc)
		rc = sop_key_encode(out, k, &key, NULL);
	if (rc == -ENAMETOOLONG || rc == -ENOMEM)
		return sop_fail(e, rc, "key");
	return rc ? not_canonical(name, len, k, e) : 0;
}

int sop_key_name_encode(struct sop_keybuf *out, const struct sop_keying *k, const char *name,
	size_t len, struct sop_err *e)
{
	uint64_t number = 1, inner;
	size_t base = len, ignored;
	char *back;
	int rc;

	out->text_len = 0;
	if (k->duplicates) {
		number = name_number(name, len, &base);
		if (!number) {
			number = 1;
			base = len;
		} else if (number == 1) {
			/* Only where the name alone would be read as another's. */
			inner = name_number(name, base, &ignored);
			if (!inner)
				return not_canonical(name, len, k, e);
		}
	}
	rc = encode_text(out, k, name, base, e);
	if (!rc && k->type == SOP_KEY_JSON) {
		/* Not only a valid map, but in the one form. */
		sop_autofree char *text = malloc(SOP_KEY_TEXT_MAX + 1);
		size_t n = out->text_len;

		if (!text)
			return sop_fail(e, -ENOMEM, "key");
		back = n ? out->text : text;
		if (!n)
			rc = sop_json_decode(text, &n, k, out->key, out->base, e);
		if (!rc && (n != base || memcmp(back, name, n)))
			rc = not_canonical(name, len, k, e);
	}
	if (!rc && k->duplicates)
		rc = sop_keybuf_number(out, number, e);
	return rc;
}

int sop_key_name(char *name, const struct sop_keying *k, const void *key, size_t klen,
	const char *carried, size_t carried_len, struct sop_err *e)
{
	char text[SOP_KEY_TEXT_MAX + 1];
	struct sop_key d;
	uint64_t number = k && k->duplicates ? sop_duplicate_number(key, klen) : 1;
	size_t ignored;
	int n, rc = sop_key_decode(&d, k, key, klen, carried, carried_len, text, e);

	if (rc)
		return rc;
	if (d.type == SOP_KEY_INT64) {
		n = snprintf(name, SOP_KEY_NAME_MAX, "%lld", (long long)d.i);
	} else if (d.type == SOP_KEY_FLOAT64) {
		n = sop_double_format(name, d.f);
	} else {
		if (d.len > SOP_KEY_TEXT_MAX)
			return bad_key(e);
		memcpy(name, d.p, d.len);
		n = (int)d.len;
	}
	if (k && k->duplicates && (number != 1 || name_number(name, (size_t)n, &ignored)))
		n += snprintf(name + n, (size_t)(SOP_KEY_NAME_MAX - n), "#%llu",
			(unsigned long long)number);
	return n;
}
