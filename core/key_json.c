/* Keys that are JSON maps: the canonical text, the encoding by an index, and back.
 *
 * An indexed field is one byte of type and then its value, made self-ending; a descending one has
 * all its bits inverted, which turns the order around since no encoding begins with another. A
 * number is the double nearest to it and then what is missing to the number itself, so that
 * integers beyond 2^53 keep their order among doubles. */
#include "core/keying.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#define DEPTH_MAX 64u

enum tag {
	TAG_MISSING = 1,
	TAG_NULL = 2,
	TAG_FALSE = 3,
	TAG_TRUE = 4,
	TAG_NUMBER = 5,
	TAG_STRING = 6,
};

static void json_put(json_t **j)
{
	json_decref(*j);
}
#define autojson __attribute__((cleanup(json_put)))

/* ---- canonical text ---- */

struct text {
	char *p;
	size_t max;
	size_t len; /* may run over max: then nothing more is written */
	bool deep;  /* too deep */
	bool no_memory;
};

static void text_put(struct text *t, const char *p, size_t len)
{
	if (t->len + len <= t->max)
		memcpy(t->p + t->len, p, len);
	t->len += len;
}

static void text_string(struct text *t, const char *p, size_t len)
{
	text_put(t, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)p[i];
		char esc[8];

		if (c == '"' || c == '\\') {
			esc[0] = '\\';
			esc[1] = (char)c;
			text_put(t, esc, 2);
		} else if (c < 0x20 || c == '/' || c == 0x7f) {
			text_put(t, esc, (size_t)snprintf(esc, sizeof(esc), "\\u%04x", c));
		} else {
			text_put(t, p + i, 1);
		}
	}
	text_put(t, "\"", 1);
}

/* A real that is an integer of 64 bits: the number is the same, and so is its text. */
static bool integral(double f, int64_t *out)
{
	if (f != floor(f) || f < -9223372036854775808.0 || f >= 9223372036854775808.0)
		return false;
	*out = (int64_t)f;
	return true;
}

static void text_number(struct text *t, const json_t *j)
{
	int64_t i = 0;
	char num[SOP_DOUBLE_TEXT];

	if (json_is_integer(j))
		i = json_integer_value(j);
	if (json_is_integer(j) || integral(json_real_value(j), &i))
		text_put(t, num, (size_t)snprintf(num, sizeof(num), "%lld", (long long)i));
	else
		text_put(t, num, (size_t)sop_double_format(num, json_real_value(j)));
}

struct member {
	const char *name;
	size_t len;
	json_t *val;
};

static int by_name(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return sop_bytes_cmp(x->name, x->len, y->name, y->len);
}

/* The members of a map, sorted; malloc'ed. */
static struct member *members_of(json_t *map, size_t *n)
{
	struct member *m = calloc(json_object_size(map) + 1, sizeof(*m));
	const char *name;
	json_t *val;

	*n = 0;
	if (!m)
		return NULL;
	json_object_foreach(map, name, val) m[(*n)++] = (struct member){name, strlen(name), val};
	if (*n)
		qsort(m, *n, sizeof(*m), by_name);
	return m;
}

static void text_value(struct text *t, json_t *j, unsigned depth)
{
	if (depth > DEPTH_MAX || t->len > t->max) {
		t->deep |= depth > DEPTH_MAX;
		return;
	}
	switch (json_typeof(j)) {
	case JSON_OBJECT: {
		sop_autofree struct member *m = NULL;
		size_t n;

		m = members_of(j, &n);
		if (!m) {
			t->no_memory = true;
			return;
		}
		text_put(t, "{", 1);
		for (size_t i = 0; i < n; i++) {
			if (i)
				text_put(t, ",", 1);
			text_string(t, m[i].name, m[i].len);
			text_put(t, ":", 1);
			text_value(t, m[i].val, depth + 1);
		}
		text_put(t, "}", 1);
		return;
	}
	case JSON_ARRAY:
		text_put(t, "[", 1);
		for (size_t i = 0; i < json_array_size(j); i++) {
			if (i)
				text_put(t, ",", 1);
			text_value(t, json_array_get(j, i), depth + 1);
		}
		text_put(t, "]", 1);
		return;
	case JSON_STRING:
		text_string(t, json_string_value(j), json_string_length(j));
		return;
	case JSON_INTEGER:
	case JSON_REAL:
		text_number(t, j);
		return;
	case JSON_TRUE:
		text_put(t, "true", 4);
		return;
	case JSON_FALSE:
		text_put(t, "false", 5);
		return;
	case JSON_NULL:
		text_put(t, "null", 4);
		return;
	}
}

static int canonical(char *out, size_t *len, json_t *j, struct sop_err *e)
{
	struct text t = {.p = out, .max = SOP_KEY_TEXT_MAX};

	text_value(&t, j, 0);
	if (t.no_memory)
		return sop_fail(e, -ENOMEM, "key");
	if (t.deep)
		return sop_say(e, -EINVAL, "key: a JSON map nested deeper than %u", DEPTH_MAX);
	if (t.len > t.max)
		return sop_say(e, -ENAMETOOLONG, "key: a JSON map of more than %d bytes",
			SOP_KEY_TEXT_MAX);
	out[t.len] = 0;
	*len = t.len;
	return 0;
}

static int load(json_t **out, const char *text, size_t len, struct sop_err *e)
{
	json_error_t why;

	/* Long texts can only be spaces, or too long. */
	*out = len > 64 * SOP_KEY_TEXT_MAX
		       ? NULL
		       : json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
	if (!*out)
		return sop_say(e, -EINVAL, "key: no JSON map: %s",
			len > 64 * SOP_KEY_TEXT_MAX ? "too long" : why.text);
	if (!json_is_object(*out)) {
		json_decref(*out);
		*out = NULL;
		return sop_say(e, -EINVAL, "key: JSON, but no map");
	}
	return 0;
}

/* ---- encoding ---- */

struct out {
	uint8_t *p;
	size_t len;
	bool full;
};

static void put(struct out *o, const void *p, size_t len)
{
	if (len > SOP_KEY_MAX - o->len) {
		o->full = true;
		return;
	}
	memcpy(o->p + o->len, p, len);
	o->len += len;
}

static void put_byte(struct out *o, uint8_t b)
{
	put(o, &b, 1);
}

static void put_number(struct out *o, const json_t *j)
{
	double f = json_is_integer(j) ? (double)json_integer_value(j) : json_real_value(j);
	int64_t rest = 0;
	uint64_t bits;
	uint8_t raw[10];

	/* The nearest double of a 64-bit integer is at most 512 away from it. */
	if (json_is_integer(j))
		rest = (int64_t)((__int128)json_integer_value(j) - (__int128)f);
	if (f == 0)
		f = 0;
	memcpy(&bits, &f, sizeof(bits));
	be64_put(raw, bits >> 63 ? ~bits : bits | 1ull << 63);
	raw[8] = (uint8_t)((rest + 0x8000) >> 8);
	raw[9] = (uint8_t)(rest + 0x8000);
	put_byte(o, TAG_NUMBER);
	put(o, raw, sizeof(raw));
}

static int put_field(
	struct out *o, const struct sop_index_field *f, const json_t *j, struct sop_err *e)
{
	static const char *const wanted[] = {"a scalar", "true or false", "a number", "a string"};
	size_t first = o->len;
	bool ok = f->type == SOP_FIELD_ANY;

	if (!j) {
		put_byte(o, TAG_MISSING);
	} else if (json_is_null(j)) {
		put_byte(o, TAG_NULL);
	} else if (json_is_boolean(j)) {
		put_byte(o, json_is_true(j) ? TAG_TRUE : TAG_FALSE);
		ok |= f->type == SOP_FIELD_BOOL;
	} else if (json_is_number(j)) {
		put_number(o, j);
		ok |= f->type == SOP_FIELD_NUMBER;
	} else if (json_is_string(j)) {
		const char *p = json_string_value(j);

		put_byte(o, TAG_STRING);
		for (size_t i = 0; i < json_string_length(j); i++) {
			put(o, p + i, 1);
			if (!p[i])
				put_byte(o, 0xff);
		}
		put(o, "\0\0", 2);
		ok |= f->type == SOP_FIELD_STRING;
	} else {
		return sop_say(
			e, -EINVAL, "key: field %s: a list or a map cannot be indexed", f->name);
	}
	if (!ok)
		return sop_say(e, -EINVAL, "key: field %s must be %s", f->name, wanted[f->type]);
	if (f->descending)
		for (size_t i = first; i < o->len; i++)
			o->p[i] = (uint8_t)~o->p[i];
	return 0;
}

int sop_json_encode(struct sop_keybuf *out, const struct sop_keying *k, const char *text,
	size_t len, struct sop_err *e)
{
	struct out o = {.p = out->key};
	autojson json_t *map = NULL;
	size_t indexed = 0;
	int rc = load(&map, text, len, e);

	if (rc)
		return rc;
	if (!k->n_fields)
		return sop_say(e, -ENOENT, "key: the store has no index yet");
	for (unsigned i = 0; i < k->n_fields && !rc; i++) {
		const json_t *j = json_object_get(map, k->field[i].name);

		indexed += j != NULL;
		rc = put_field(&o, &k->field[i], j, e);
	}
	if (!rc && o.full)
		rc = sop_say(
			e, -ENAMETOOLONG, "key: the index takes more than %d bytes", SOP_KEY_MAX);
	/* The text is made in any case: it may be too deep or too long. */
	if (!rc)
		rc = canonical(out->text, &out->text_len, map, e);
	if (!rc && indexed == json_object_size(map))
		out->text_len = 0; /* the key says all */
	out->len = out->base = o.len;
	return rc;
}

int sop_json_first(struct sop_keying *k, const char *text, size_t len, struct sop_err *e)
{
	sop_autofree struct member *m = NULL;
	autojson json_t *map = NULL;
	size_t n, used = 0;
	int rc = load(&map, text, len, e);

	if (rc)
		return rc;
	m = members_of(map, &n);
	if (!m)
		return sop_fail(e, -ENOMEM, "index");
	if (!n || n > SOP_INDEX_FIELDS)
		return sop_say(e, -EINVAL,
			"key: the first one is the index of the store: it needs 1 to %d fields",
			SOP_INDEX_FIELDS);
	for (size_t i = 0; i < n; i++) {
		struct sop_index_field *f = &k->field[i];

		if (!m[i].len || m[i].len > SOP_INDEX_NAME_MAX ||
			m[i].len + 1 > sizeof(k->names) - used)
			return sop_say(
				e, -EINVAL, "key: the name of a field is too long, or empty");
		f->name = memcpy(k->names + used, m[i].name, m[i].len + 1);
		used += m[i].len + 1;
		f->descending = false;
		f->type = json_is_number(m[i].val)    ? SOP_FIELD_NUMBER
			  : json_is_string(m[i].val)  ? SOP_FIELD_STRING
			  : json_is_boolean(m[i].val) ? SOP_FIELD_BOOL
						      : SOP_FIELD_ANY;
	}
	k->n_fields = (uint16_t)n;
	return 0;
}

/* ---- decoding ---- */

struct in {
	const uint8_t *p, *end;
	uint8_t invert;
	bool bad;
};

static uint8_t get(struct in *i)
{
	if (i->p == i->end) {
		i->bad = true;
		return 0;
	}
	return (uint8_t)(*i->p++ ^ i->invert);
}

static json_t *get_number(struct in *i)
{
	uint64_t bits = 0;
	int64_t rest, whole;
	double f;

	for (unsigned n = 0; n < 8; n++)
		bits = bits << 8 | get(i);
	rest = get(i) << 8;
	rest = (rest | get(i)) - 0x8000;
	bits = bits >> 63 ? bits & ~(1ull << 63) : ~bits;
	memcpy(&f, &bits, sizeof(f));
	if (i->bad || !isfinite(f)) {
		i->bad = true;
		return NULL;
	}
	if (integral(f, &whole))
		return json_integer((json_int_t)((uint64_t)whole + (uint64_t)rest));
	/* 2^63 itself, from the largest integers. */
	if (rest < 0 && f == 9223372036854775808.0)
		return json_integer((json_int_t)((1ull << 63) + (uint64_t)rest));
	return json_real(f);
}

static json_t *get_string(struct in *i)
{
	sop_autofree char *text = malloc(SOP_KEY_MAX);
	size_t n = 0;

	if (!text)
		return NULL;
	while (!i->bad) {
		uint8_t b = get(i);

		if (!b) {
			b = get(i);
			if (!b)
				return json_stringn(text, n);
			if (b != 0xff)
				i->bad = true;
			b = 0;
		}
		if (n == SOP_KEY_MAX)
			i->bad = true;
		else
			text[n++] = (char)b;
	}
	return NULL;
}

int sop_json_decode(char *text, size_t *text_len, const struct sop_keying *k, const void *key,
	size_t klen, struct sop_err *e)
{
	struct in i = {.p = key, .end = (const uint8_t *)key + klen};
	autojson json_t *map = json_object();

	for (unsigned n = 0; map && n < k->n_fields && !i.bad; n++) {
		json_t *val = NULL;
		uint8_t tag;

		i.invert = k->field[n].descending ? 0xff : 0;
		tag = get(&i);
		if (tag == TAG_MISSING)
			continue;
		if (tag == TAG_NULL)
			val = json_null();
		else if (tag == TAG_FALSE || tag == TAG_TRUE)
			val = json_boolean(tag == TAG_TRUE);
		else if (tag == TAG_NUMBER)
			val = get_number(&i);
		else if (tag == TAG_STRING)
			val = get_string(&i);
		if (json_object_set_new(map, k->field[n].name, val))
			i.bad = true;
	}
	if (!map)
		return sop_fail(e, -ENOMEM, "key");
	if (i.bad || i.p != i.end)
		return sop_fail(e, SOP_ECORRUPT, "key of a typed store");
	return canonical(text, text_len, map, e);
}

/* ---- an index as text ---- */

static bool plain_name(const char *name)
{
	for (const char *p = name; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			    (*p >= '0' && *p <= '9') || strchr("_.-", *p)))
			return false;
	return *name;
}

int sop_index_format(char *text, size_t size, const struct sop_index_field *fields, size_t n)
{
	static const char *const types[] = {"", ":bool", ":number", ":string"};
	char own[6 * SOP_INDEX_NAME_MAX + 2]; /* each character as \uXXXX, in quotes */
	size_t len = 0;

	if (size)
		*text = 0;
	for (size_t i = 0; i < n; i++) {
		struct text t = {.p = own, .max = sizeof(own)};

		if (plain_name(fields[i].name))
			text_put(&t, fields[i].name, strlen(fields[i].name));
		else
			text_string(&t, fields[i].name, strlen(fields[i].name));
		len += (size_t)snprintf(len < size ? text + len : NULL, len < size ? size - len : 0,
			"%s%.*s%s%s", i ? "," : "", (int)SOP_MIN(t.len, sizeof(own)), own,
			fields[i].descending ? ":desc" : "",
			types[(unsigned)fields[i].type < 4 ? fields[i].type : 0]);
	}
	return (int)len;
}

/* One name, plain or in quotes; what follows it, or NULL. */
static const char *parse_name(const char *text, char *out, size_t size)
{
	const char *end = text;
	autojson json_t *j = NULL;

	if (*text != '"') {
		end += strcspn(text, ",:");
		if (end == text || (size_t)(end - text) >= size)
			return NULL;
		memcpy(out, text, (size_t)(end - text));
		out[end - text] = 0;
		return plain_name(out) ? end : NULL;
	}
	for (end = text + 1; *end && *end != '"'; end++)
		if (*end == '\\' && end[1])
			end++;
	if (!*end)
		return NULL;
	end++;
	j = json_loadb(text, (size_t)(end - text), JSON_DECODE_ANY, NULL);
	if (!j || !json_is_string(j) || !json_string_length(j) || json_string_length(j) >= size)
		return NULL;
	strcpy(out, json_string_value(j));
	return end;
}

int sop_index_parse(struct sop_index_field *fields, size_t max, const char *text, char *buf,
	size_t size, struct sop_err *e)
{
	static const char *const words[] = {":asc", ":desc", ":bool", ":number", ":string"};
	size_t n = 0;

	while (n < max) {
		struct sop_index_field *f = &fields[n];
		const char *at = parse_name(text, buf, size);

		if (!at || strlen(buf) > SOP_INDEX_NAME_MAX)
			break;
		*f = (struct sop_index_field){.name = buf};
		size -= strlen(buf) + 1;
		buf += strlen(buf) + 1;
		for (size_t w = 0; *at == ':' && w < SOP_ARRAY_LEN(words); w++) {
			size_t len = strlen(words[w]);

			if (strncmp(at, words[w], len) || (at[len] && !strchr(",:", at[len])))
				continue;
			at += len;
			if (w < 2)
				f->descending = w;
			else
				f->type = (enum sop_field_type)(w - 1);
		}
		n++;
		if (!*at)
			return (int)n;
		if (*at != ',')
			break;
		text = at + 1;
	}
	return sop_say(e, -EINVAL,
		"index \"%s\": must be up to %zu fields with commas between, each "
		"NAME[:desc][:bool|:number|:string]",
		text, max);
}

int sop_key_type_parse(enum sop_key_type *type, struct sop_index_field *fields, size_t max,
	unsigned *n, const char *text, char *buf, size_t size, struct sop_err *e)
{
	size_t len = strcspn(text, ":");
	int t = 0, rc;

	while (t < SOP_KEY_TYPES &&
		(strncmp(text, sop_key_type_name((enum sop_key_type)t), len) != 0 ||
			sop_key_type_name((enum sop_key_type)t)[len]))
		t++;
	if (!len || t == SOP_KEY_TYPES || (text[len] && t != SOP_KEY_JSON))
		return sop_say(e, -EINVAL,
			"%s: keys are bytes, string, int64, float64, json or json:INDEX", text);
	*type = (enum sop_key_type)t;
	*n = 0;
	if (!text[len])
		return 0;
	rc = sop_index_parse(fields, max, text + len + 1, buf, size, e);
	*n = rc < 0 ? 0 : (unsigned)rc;
	return rc < 0 ? rc : 0;
}
