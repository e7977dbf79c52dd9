/* Reading leaves that a tree cannot use. Keys may be in any order here, and lie beyond the bounds
 * of the leaf: so nothing is searched for, and each entry is only checked to be whole. */
#include "core/salvage.h"

#define ENTRY_HEADER 6u

static int not_a_leaf(struct sop_err *e, uint64_t handle)
{
	return sop_fail(
		e, SOP_ECORRUPT, "node %llu is no leaf of this store", (unsigned long long)handle);
}

static int read_node(
	struct sop_volume *v, uint64_t handle, uint8_t **buf, size_t *len, struct sop_err *e)
{
	struct sop_blobref ref;
	int rc = sop_registry_lookup(v->reg, handle, &ref, e);

	*buf = NULL;
	if (rc)
		return rc;
	*len = ref.len;
	*buf = malloc(ref.len);
	return *buf ? sop_blob_read(v->seg, &ref, *buf, ref.len, 0, e)
		    : sop_fail(e, -ENOMEM, "node of %u bytes", ref.len);
}

static bool is_leaf(
	const uint8_t *buf, size_t len, uint64_t store, uint64_t handle, uint32_t *count)
{
	struct sop_disk_node h;

	if (len < sizeof(h))
		return false;
	memcpy(&h, buf, sizeof(h));
	*count = le32_get(h.count);
	return !memcmp(h.magic, SOP_NODE_MAGIC, sizeof(h.magic)) && h.version == 1 && !h.level &&
	       le64_get(h.handle) == handle && le64_get(h.store) == store &&
	       le32_get(h.bytes) == len;
}

/* The lengths of the entry at buf; false: it is not whole. */
static bool entry_at(const uint8_t *buf, size_t left, size_t *klen, size_t *vlen)
{
	struct le16 k;
	struct le32 n;

	if (left < ENTRY_HEADER)
		return false;
	memcpy(&k, buf, sizeof(k));
	memcpy(&n, buf + 2, sizeof(n));
	*klen = le16_get(k);
	*vlen = le32_get(n);
	return *klen <= SOP_KEY_MAX && *vlen <= SOP_VALUE_MAX &&
	       left - ENTRY_HEADER >= *klen + *vlen;
}

int sop_salvage_each(struct sop_volume *v, uint64_t store, uint64_t handle, sop_entry_fn fn,
	void *arg, struct sop_err *e)
{
	sop_autofree uint8_t *buf = NULL;
	size_t len = 0, at = sizeof(struct sop_disk_node), klen, vlen;
	uint32_t count;
	int rc = read_node(v, handle, &buf, &len, e);

	if (rc)
		return rc;
	if (!is_leaf(buf, len, store, handle, &count))
		return not_a_leaf(e, handle);
	/* All are looked at before any is told. */
	for (uint32_t i = 0; i < count; i++) {
		if (!entry_at(buf + at, len - at, &klen, &vlen))
			return not_a_leaf(e, handle);
		at += ENTRY_HEADER + klen + vlen;
	}
	if (at != len)
		return not_a_leaf(e, handle);
	at = sizeof(struct sop_disk_node);
	for (uint32_t i = 0; i < count && !rc; i++) {
		const uint8_t *key = buf + at + ENTRY_HEADER;

		entry_at(buf + at, len - at, &klen, &vlen);
		rc = fn(arg, key, klen, key + klen, vlen);
		at += ENTRY_HEADER + klen + vlen;
	}
	return rc;
}

static int belongs(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	const struct sop_range *r = arg;

	(void)val;
	(void)vlen;
	return (!r->from || sop_bytes_cmp(key, klen, r->from, r->from_len) >= 0) &&
	       (!r->to || sop_bytes_cmp(key, klen, r->to, r->to_len) < 0);
}

bool sop_salvage_any(
	struct sop_volume *v, uint64_t store, uint64_t handle, const struct sop_range *keys)
{
	struct sop_range range = *keys;

	return sop_salvage_each(v, store, handle, belongs, &range, NULL) == 1;
}
