/* Options of a store: as bytes (DISK-FORMAT.md, section 14), as the public face gives them, and
 * whether the two agree. */
#include "core/engine.h"
#include "core/keying.h"

#include <stdio.h>

/* Bytes of a description; and of a node that holds many short items, which want more room than
 * names do. */
#define NOTE_MAX	 4096u
#define NODE_BYTES_LARGE 262144u

int sop_store_options_check(const void *raw, size_t len, struct sop_err *e)
{
	struct sop_disk_store_options o;
	struct sop_keying *k;
	uint32_t node, slots;
	int rc;

	if (len < sizeof(o))
		return sop_fail(e, SOP_ECORRUPT, "store options");
	memcpy(&o, raw, sizeof(o));
	node = le32_get(o.node_bytes);
	slots = le32_get(o.slot_length);
	if (o.version != 1)
		return sop_fail(e, SOP_EVERSION, "store options version %u", o.version);
	if (sizeof(o) + o.profile_len + le16_get(o.index_len) + le16_get(o.note_len) != len ||
		(node && (node < 4096 || node > 262144)) ||
		(slots && (slots < 2 || slots > 20000)) || o.key_type >= SOP_KEY_TYPES ||
		o.flags & ~3u || o.value_class > SOP_VALUE_BIG || o.session > 2 ||
		o.cache_class > SOP_CACHE_COLD || o.profile_len >= SOP_PROFILE_NAME ||
		(le16_get(o.index_len) && o.key_type != SOP_KEY_JSON))
		return sop_fail(e, SOP_ECORRUPT, "store options");
	rc = sop_keying_new(&k, raw, len, e);
	sop_keying_put(k);
	return rc;
}

static int check(const struct sop_store_opts *o, struct sop_err *e)
{
	if (o->slot_length && (o->slot_length < 2 || o->slot_length > 20000))
		return sop_say(e, -EINVAL, "store: slot length must be from 2 to 20,000");
	if (o->node_bytes && (o->node_bytes < 4096 || o->node_bytes > 262144))
		return sop_say(e, -EINVAL, "store: node bytes must be from 4,096 to 262,144");
	if (o->session > 2)
		return sop_say(e, -EINVAL, "store: session mode %u", o->session);
	if ((unsigned)o->key_type >= SOP_KEY_TYPES)
		return sop_say(e, -EINVAL, "store: key type %u", (unsigned)o->key_type);
	if ((unsigned)o->value_class > SOP_VALUE_BIG)
		return sop_say(e, -EINVAL, "store: value class %u", (unsigned)o->value_class);
	if ((unsigned)o->cache_class > SOP_CACHE_COLD)
		return sop_say(e, -EINVAL, "store: cache class %u", (unsigned)o->cache_class);
	if (o->profile && strlen(o->profile) >= SOP_PROFILE_NAME)
		return sop_say(e, -EINVAL, "store: the name of a profile has at most %d bytes",
			SOP_PROFILE_NAME - 1);
	if (o->note && strlen(o->note) > NOTE_MAX)
		return sop_say(e, -EINVAL, "store: a description has at most %u bytes", NOTE_MAX);
	if (o->n_index && o->key_type != SOP_KEY_JSON)
		return sop_say(e, -EINVAL, "store: only JSON maps have an index");
	if (o->n_index > SOP_INDEX_FIELDS)
		return sop_say(
			e, -EINVAL, "store: an index has at most %d fields", SOP_INDEX_FIELDS);
	return 0;
}

static int index_bytes(const struct sop_store_opts *o, size_t *bytes, struct sop_err *e)
{
	size_t names = 0;

	*bytes = 0;
	for (unsigned i = 0; i < o->n_index; i++) {
		const char *name = o->index[i].name;
		size_t n = name ? strlen(name) : 0;

		names += n + 1;
		if (!n || n > SOP_INDEX_NAME_MAX || names > SOP_INDEX_BYTES ||
			!sop_utf8_valid(name, n) || (unsigned)o->index[i].type > SOP_FIELD_STRING)
			return sop_say(e, -EINVAL,
				"store: field %u of the index: its name must be 1 to 255 bytes of "
				"UTF-8",
				i + 1);
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(o->index[j].name, name))
				return sop_say(
					e, -EINVAL, "store: field %s is in the index twice", name);
		*bytes += sizeof(struct sop_disk_index_field) + n;
	}
	return 0;
}

int sop_options_encode(struct sop_arena *a, const struct sop_store_opts *o, const void **raw,
	uint32_t *len, struct sop_err *e)
{
	struct sop_disk_store_options d = {.version = 1};
	size_t profile, note, index;
	uint8_t *p;
	int rc;

	*raw = NULL;
	*len = 0;
	if (!o)
		return 0;
	rc = check(o, e);
	if (!rc)
		rc = index_bytes(o, &index, e);
	if (rc)
		return rc;
	profile = o->profile ? strlen(o->profile) : 0;
	note = o->note ? strlen(o->note) : 0;
	d.key_type = (uint8_t)o->key_type;
	d.flags = (uint8_t)((o->duplicates ? SOP_OPTION_DUPLICATES : 0) |
			    (o->balance ? SOP_OPTION_BALANCE : 0));
	d.value_class = (uint8_t)o->value_class;
	d.slot_length = le32_make(o->slot_length);
	d.node_bytes = le32_make(o->node_bytes		? o->node_bytes
				 : o->slot_length > 250 ? NODE_BYTES_LARGE
							: 0);
	d.session = o->session;
	d.cache_class = (uint8_t)o->cache_class;
	d.profile_len = (uint8_t)profile;
	d.index_len = le16_make((uint16_t)index);
	d.note_len = le16_make((uint16_t)note);
	p = sop_arena_alloc(a, sizeof(d) + profile + index + note);
	if (!p)
		return sop_fail(e, -ENOMEM, "store options");
	*raw = p;
	*len = (uint32_t)(sizeof(d) + profile + index + note);
	memcpy(p, &d, sizeof(d));
	p += sizeof(d);
	if (profile)
		memcpy(p, o->profile, profile);
	p += profile;
	for (unsigned i = 0; i < o->n_index; i++) {
		struct sop_disk_index_field f = {.flags = o->index[i].descending,
			.type = (uint8_t)o->index[i].type,
			.name_len = le16_make((uint16_t)strlen(o->index[i].name))};

		memcpy(p, &f, sizeof(f));
		memcpy(p + sizeof(f), o->index[i].name, strlen(o->index[i].name));
		p += sizeof(f) + strlen(o->index[i].name);
	}
	if (note)
		memcpy(p, o->note, note);
	return 0;
}

/* Takes `len` bytes as a string from the buffer; NULL: it is full. */
static char *take_string(char **buf, size_t *size, const uint8_t *p, size_t len)
{
	char *s = *buf;

	if (*size <= len)
		return NULL;
	memcpy(s, p, len);
	s[len] = 0;
	*buf += len + 1;
	*size -= len + 1;
	return s;
}

int sop_options_decode(struct sop_store_opts *o, const void *raw, size_t len, char *buf,
	size_t size, struct sop_err *e)
{
	struct sop_index_field *index;
	struct sop_disk_store_options d;
	const uint8_t *p = raw;
	sop_autokeying struct sop_keying *k = NULL;
	bool full = false;
	int rc;

	memset(o, 0, sizeof(*o));
	if (!len)
		return 0;
	memcpy(&d, raw, sizeof(d));
	rc = sop_keying_new(&k, raw, len, e);
	if (rc)
		return rc;
	o->key_type = (enum sop_key_type)d.key_type;
	o->duplicates = d.flags & SOP_OPTION_DUPLICATES;
	o->balance = d.flags & SOP_OPTION_BALANCE;
	o->value_class = (enum sop_value_class)d.value_class;
	o->cache_class = (enum sop_cache_class)d.cache_class;
	o->slot_length = le32_get(d.slot_length);
	o->node_bytes = le32_get(d.node_bytes);
	o->session = d.session;
	if (k && k->n_fields) {
		size_t skip = (size_t)(-(uintptr_t)buf) % sizeof(void *);
		size_t bytes = k->n_fields * sizeof(*index);

		if (size < skip + bytes)
			return sop_fail(e, -ERANGE, "buffer for store options");
		index = (struct sop_index_field *)(void *)(buf + skip);
		buf += skip + bytes;
		size -= skip + bytes;
		for (unsigned i = 0; i < k->n_fields; i++) {
			index[i] = k->field[i];
			index[i].name = take_string(&buf, &size, (const uint8_t *)k->field[i].name,
				strlen(k->field[i].name));
			full |= !index[i].name;
		}
		o->index = index;
		o->n_index = k->n_fields;
	}
	p += sizeof(d);
	if (d.profile_len)
		full |= !(o->profile = take_string(&buf, &size, p, d.profile_len));
	p += d.profile_len + le16_get(d.index_len);
	if (le16_get(d.note_len))
		full |= !(o->note = take_string(&buf, &size, p, le16_get(d.note_len)));
	return full ? sop_fail(e, -ERANGE, "buffer for store options") : 0;
}

static int differs(struct sop_err *e, const char *what, const char *has, const char *wanted)
{
	return sop_say(e, -EINVAL,
		"the store has %s %s, not %s: options are fixed when a store is made", what, has,
		wanted);
}

static int differs_by(struct sop_err *e, const char *what, uint64_t has, uint64_t wanted)
{
	char a[24], b[24];

	snprintf(a, sizeof(a), "%llu", (unsigned long long)has);
	snprintf(b, sizeof(b), "%llu", (unsigned long long)wanted);
	return differs(e, what, a, b);
}

static int match_index(
	const struct sop_store_opts *has, const struct sop_store_opts *o, struct sop_err *e)
{
	char a[256], b[256];
	bool same = has->n_index == o->n_index;

	for (unsigned i = 0; same && i < o->n_index; i++)
		same = !strcmp(has->index[i].name, o->index[i].name) &&
		       has->index[i].descending == o->index[i].descending &&
		       has->index[i].type == o->index[i].type;
	if (same)
		return 0;
	sop_index_format(a, sizeof(a), has->index, has->n_index);
	sop_index_format(b, sizeof(b), o->index, o->n_index);
	return differs(e, "the index", *a ? a : "(none yet)", b);
}

int sop_options_match(
	const struct sop_store_opts *has, const struct sop_store_opts *o, struct sop_err *e)
{
	int rc = check(o, e);

	if (rc)
		return rc;
	if (o->key_type != has->key_type)
		return differs(e, "keys of type", sop_key_type_name(has->key_type),
			sop_key_type_name(o->key_type));
	if (o->duplicates != has->duplicates)
		return differs(e, "keys that are", has->duplicates ? "not unique" : "unique",
			o->duplicates ? "not unique" : "unique");
	if (o->n_index && (rc = match_index(has, o, e)))
		return rc;
	if (o->slot_length && o->slot_length != has->slot_length)
		return differs_by(e, "slot length", has->slot_length, o->slot_length);
	if (o->node_bytes && o->node_bytes != has->node_bytes)
		return differs_by(e, "node bytes", has->node_bytes, o->node_bytes);
	if (o->value_class && o->value_class != has->value_class)
		return differs(e, "value class", sop_value_class_name(has->value_class),
			sop_value_class_name(o->value_class));
	if (o->cache_class && o->cache_class != has->cache_class)
		return differs(e, "cache class", sop_cache_class_name(has->cache_class),
			sop_cache_class_name(o->cache_class));
	if (o->balance && !has->balance)
		return differs(e, "leaf load balancing", "off", "on");
	if (o->session && o->session != has->session)
		return differs_by(e, "session mode", has->session, o->session);
	if (o->profile && strcmp(o->profile, has->profile ? has->profile : "default"))
		return differs(e, "erasure code profile", has->profile ? has->profile : "default",
			o->profile);
	if (o->note && strcmp(o->note, has->note ? has->note : ""))
		return differs(e, "description", has->note ? has->note : "(none)", o->note);
	return 0;
}

const char *sop_value_class_name(enum sop_value_class c)
{
	static const char *const names[] = {"auto", "small", "medium", "big"};

	return (unsigned)c < SOP_ARRAY_LEN(names) ? names[c] : "unknown";
}

const char *sop_cache_class_name(enum sop_cache_class c)
{
	static const char *const names[] = {"normal", "hot", "cold"};

	return (unsigned)c < SOP_ARRAY_LEN(names) ? names[c] : "unknown";
}
