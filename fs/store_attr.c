#include "fs/store_attr.h"

#include <stdio.h>

#define TEXT_MAX ((size_t)SOP_STORE_INFO_BYTES) /* what is told can be set */

int sopfs_store_attr_get(struct sopfs *f, uint64_t store, const char *name, char *buf, size_t size,
	struct sop_err *e)
{
	sop_autofree char *mem = malloc(SOP_STORE_INFO_BYTES);
	struct sop_store_opts o;
	int n, rc = mem ? sop_store_info(f->latest, store, &o, mem, SOP_STORE_INFO_BYTES, e)
			: -ENOMEM;

	if (rc)
		return rc;
	if (!strcmp(name, "sop.key")) {
		n = snprintf(
			buf, size, "%s%s", sop_key_type_name(o.key_type), o.n_index ? ":" : "");
		if (o.n_index && (size_t)n < size)
			n += sop_index_format(buf + n, size - (size_t)n, o.index, o.n_index);
		return n;
	}
	if (!strcmp(name, "sop.unique"))
		return snprintf(buf, size, "%d", !o.duplicates);
	if (!strcmp(name, "sop.slot_length"))
		return snprintf(buf, size, "%u", o.slot_length);
	if (!strcmp(name, "sop.value"))
		return snprintf(buf, size, "%s", sop_value_class_name(o.value_class));
	if (!strcmp(name, "sop.cache"))
		return snprintf(buf, size, "%s", sop_cache_class_name(o.cache_class));
	if (!strcmp(name, "sop.balance"))
		return snprintf(buf, size, "%d", o.balance);
	if (!strcmp(name, "sop.note"))
		return snprintf(buf, size, "%s", o.note ? o.note : "");
	return -ENODATA;
}

static int one_of(const char *val, const char *(*name)(int), int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(val, name(i)))
			return i;
	return -1;
}

static const char *value_name(int i)
{
	return sop_value_class_name((enum sop_value_class)i);
}

static const char *cache_name(int i)
{
	return sop_cache_class_name((enum sop_cache_class)i);
}

static int flag(const char *val, bool *out)
{
	if ((*val != '0' && *val != '1') || val[1])
		return -EINVAL;
	*out = *val == '1';
	return 0;
}

struct set {
	uint64_t store;
	const char *name;
	char *val;
};

static int set_number(struct sop_store_opts *o, const char *val)
{
	char *end;
	unsigned long n = strtoul(val, &end, 10);

	if (*val < '0' || *val > '9' || *end || n > UINT32_MAX)
		return -EINVAL;
	o->slot_length = (uint32_t)n;
	o->node_bytes = 0; /* what fits it */
	return 0;
}

static int set_txn(struct sop_txn *t, void *arg, struct sop_err *e)
{
	sop_autofree char *mem = malloc(SOP_STORE_INFO_BYTES), *names = malloc(TEXT_MAX + 1);
	struct sop_index_field index[SOP_INDEX_FIELDS];
	struct set *s = arg;
	unsigned mask = SOP_STORE_SHAPE;
	struct sop_store_opts o;
	bool on = false;
	int i, rc = mem && names ? sop_store_info(t, s->store, &o, mem, SOP_STORE_INFO_BYTES, e)
				 : -ENOMEM;

	if (rc)
		return rc;
	if (!strcmp(s->name, "sop.key")) {
		o.index = index;
		rc = sop_key_type_parse(&o.key_type, index, SOP_INDEX_FIELDS, &o.n_index, s->val,
			names, TEXT_MAX + 1, e);
	} else if (!strcmp(s->name, "sop.unique")) {
		rc = flag(s->val, &on);
		o.duplicates = !on;
	} else if (!strcmp(s->name, "sop.balance")) {
		rc = flag(s->val, &o.balance);
	} else if (!strcmp(s->name, "sop.slot_length")) {
		rc = set_number(&o, s->val);
	} else if (!strcmp(s->name, "sop.value")) {
		i = one_of(s->val, value_name, SOP_VALUE_BIG + 1);
		o.value_class = (enum sop_value_class)SOP_MAX(i, 0);
		rc = i < 0 ? -EINVAL : 0;
	} else if (!strcmp(s->name, "sop.ec")) {
		o.profile = s->val;
	} else if (!strcmp(s->name, "sop.cache")) {
		i = one_of(s->val, cache_name, SOP_CACHE_COLD + 1);
		o.cache_class = (enum sop_cache_class)SOP_MAX(i, 0);
		rc = i < 0 ? -EINVAL : 0;
		mask = SOP_STORE_CACHE;
	} else if (!strcmp(s->name, "sop.note")) {
		o.note = s->val;
		mask = SOP_STORE_NOTE;
	} else {
		return -ENODATA;
	}
	if (!rc)
		rc = sop_store_set(t, s->store, &o, mask, e);
	/* A profile that is not there is a bad value here, and no missing file. */
	return rc == -ENOENT ? -EINVAL : rc;
}

int sopfs_store_attr_set(struct sopfs *f, uint64_t store, const char *name, const char *val,
	size_t len, struct sop_err *e)
{
	static const char *const own[] = {"sop.key", "sop.unique", "sop.balance", "sop.slot_length",
		"sop.value", "sop.ec", "sop.cache", "sop.note"};
	sop_autofree char *text = malloc(TEXT_MAX + 1);
	struct set s = {store, name, text};
	bool known = false, full;

	for (size_t i = 0; i < SOP_ARRAY_LEN(own); i++)
		known |= !strcmp(name, own[i]);
	if (!known)
		return -ENODATA;
	if (!text)
		return -ENOMEM;
	if (len > TEXT_MAX || memchr(val, 0, len))
		return -EINVAL;
	memcpy(text, val, len);
	text[len] = '\0';
	/* Names that are not committed yet count as well. */
	pthread_mutex_lock(&f->lock);
	full = sopfs_overlay_has_store(f, store);
	pthread_mutex_unlock(&f->lock);
	if (full && strcmp(name, "sop.cache") && strcmp(name, "sop.note"))
		return -ENOTEMPTY;
	return sopfs_txn(f, set_txn, &s, e);
}
