#include "core/label.h"

#include <inttypes.h>

#include "core/ec.h"

/* The two copies are files of fixed size, overwritten in place: that needs no new space, so that a
 * full disk can still say who belongs to the volume. A crash leaves the copy being written torn,
 * old or new, and the other whole; the next store therefore writes the worse copy first. */

static const char *const copy_path[2] = {SOP_PATH_LABEL0, SOP_PATH_LABEL1};

#define HASHMOD_MIN    250u
#define HASHMOD_MAX    750000u
#define NODE_BYTES_MAX (1u << 20)

/* --- codec ----------------------------------------------------------------- */

static void put_string(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memset(to, 0, size);
	memcpy(to, from, len);
}

void sop_label_encode(void *raw, const struct sop_label *l)
{
	struct sop_disk_label *d = raw;

	assert(l->members <= SOP_MEMBERS_MAX && l->profiles <= SOP_PROFILES_MAX);
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, SOP_LABEL_MAGIC, sizeof(d->magic));
	d->version = le32_make(SOP_FORMAT_VERSION);
	d->incompat = le64_make(l->incompat);
	d->ro_compat = le64_make(l->ro_compat);
	memcpy(d->volume_uuid, l->volume_uuid.b, sizeof(d->volume_uuid));
	memcpy(d->disk_uuid, l->disk_uuid.b, sizeof(d->disk_uuid));
	d->generation = le64_make(l->generation);
	d->created_ns = le64_make(l->created_ns);
	d->index = le16_make(l->index);
	d->members = le16_make(l->members);
	d->profiles = le16_make(l->profiles);
	d->flags = le16_make(l->flags);
	d->hashmod = le32_make(l->hashmod);
	d->node_bytes = le32_make(l->node_bytes);
	put_string(d->name, sizeof(d->name), l->name);
	for (unsigned i = 0; i < l->profiles; i++) {
		const struct sop_profile *from = &l->profile[i];
		struct sop_disk_profile *to = &d->profile[i];

		put_string(to->name, sizeof(to->name), from->name);
		to->k = from->k;
		to->m = from->m;
		to->flags = from->flags;
		memcpy(to->disks, from->disks, sizeof(to->disks));
	}
	for (unsigned i = 0; i < l->members; i++) {
		const struct sop_member *from = &l->member[i];
		struct sop_disk_member *to = &d->member[i];

		memcpy(to->uuid, from->uuid.b, sizeof(to->uuid));
		to->role = from->role;
		to->state = from->state;
		to->flags = from->flags;
		to->to = le16_make(from->to);
		to->current_since = le64_make(from->current_since);
		put_string(to->path, sizeof(to->path), from->path);
	}
	d->crc = le32_make(sop_crc32c(0, d, sizeof(*d)));
}

static bool crc_holds(const void *raw)
{
	static const struct le32 zero;
	const uint8_t *p = raw;
	const struct sop_disk_label *d = raw;
	size_t at = offsetof(struct sop_disk_label, crc);
	uint32_t crc = sop_crc32c(0, p, at);

	crc = sop_crc32c(crc, &zero, sizeof(zero));
	crc = sop_crc32c(crc, p + at + sizeof(zero), SOP_LABEL_SIZE - at - sizeof(zero));
	return crc == le32_get(d->crc);
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, 0, size) != NULL;
}

static int decode_profiles(struct sop_label *out, const struct sop_disk_label *d, struct sop_err *e)
{
	for (unsigned i = 0; i < out->profiles; i++) {
		const struct sop_disk_profile *from = &d->profile[i];
		struct sop_profile *to = &out->profile[i];

		if (!ends(from->name, sizeof(from->name)))
			return sop_say(e, SOP_ECORRUPT, "name of profile %u has no end", i);
		if (from->name[0] && (!from->k || from->k + from->m > SOP_EC_MAX))
			return sop_say(e, SOP_ECORRUPT, "profile %u is %u+%u", i, from->k, from->m);
		memcpy(to->name, from->name, sizeof(to->name));
		to->k = from->k;
		to->m = from->m;
		to->flags = from->flags;
		memcpy(to->disks, from->disks, sizeof(to->disks));
	}
	return 0;
}

static int decode_members(struct sop_label *out, const struct sop_disk_label *d, struct sop_err *e)
{
	for (unsigned i = 0; i < out->members; i++) {
		const struct sop_disk_member *from = &d->member[i];
		struct sop_member *to = &out->member[i];

		if (!ends(from->path, sizeof(from->path)))
			return sop_say(e, SOP_ECORRUPT, "path of member %u has no end", i);
		if (from->role & ~(SOP_ROLE_DATA | SOP_ROLE_REGISTRY) ||
			from->state > SOP_MEMBER_REMOVED)
			return sop_say(e, SOP_ECORRUPT, "member %u has role %u, state %u", i,
				from->role, from->state);
		memcpy(to->uuid.b, from->uuid, sizeof(to->uuid.b));
		to->role = from->role;
		to->state = from->state;
		to->flags = from->flags;
		to->to = le16_get(from->to);
		if (to->to > out->members)
			return sop_say(e, SOP_ECORRUPT, "member %u goes to member %u", i, to->to);
		to->current_since = le64_get(from->current_since);
		if (to->current_since > out->generation)
			return sop_say(e, SOP_ECORRUPT,
				"replica of member %u is current since generation %" PRIu64
				", the label is of %" PRIu64,
				i, to->current_since, out->generation);
		memcpy(to->path, from->path, sizeof(to->path));
	}
	if (out->member[out->index].role &&
		!sop_uuid_equal(&out->member[out->index].uuid, &out->disk_uuid))
		return sop_say(e, SOP_ECORRUPT, "slot %u is of another disk", out->index);
	return 0;
}

/* Whether raw says it is of a format this program does not know. */
static int check_format(const struct sop_disk_label *d, struct sop_err *e)
{
	uint32_t version = le32_get(d->version);
	uint64_t incompat = le64_get(d->incompat);

	if (version > SOP_FORMAT_VERSION)
		return sop_say(e, SOP_EVERSION,
			"has format version %" PRIu32
			"; this program knows versions up to %d: a newer "
			"sopfs is needed",
			version, SOP_FORMAT_VERSION);
	if (version == SOP_FORMAT_VERSION && incompat & ~SOP_INCOMPAT_KNOWN)
		return sop_say(e, SOP_EVERSION,
			"uses features %#llx that this program (format version %d) does not "
			"know: a newer sopfs is needed",
			(unsigned long long)(incompat & ~SOP_INCOMPAT_KNOWN), SOP_FORMAT_VERSION);
	return 0;
}

static bool has_magic(const void *raw, size_t len)
{
	return len >= sizeof(SOP_LABEL_MAGIC) - 1 &&
	       memcmp(raw, SOP_LABEL_MAGIC, sizeof(SOP_LABEL_MAGIC) - 1) == 0;
}

int sop_label_decode(struct sop_label *out, const void *raw, size_t len, struct sop_err *e)
{
	const struct sop_disk_label *d = raw;
	int rc;

	memset(out, 0, sizeof(*out));
	if (!has_magic(raw, len))
		return sop_fail(e, SOP_ENOTVOLUME, "label");
	if (len < SOP_LABEL_SIZE)
		return sop_say(e, SOP_ECORRUPT, "label is cut off at %zu bytes", len);
	rc = check_format(d, e);
	if (rc)
		return rc;
	if (!crc_holds(raw))
		return sop_fail(e, SOP_ECORRUPT, "label");
	if (le32_get(d->version) < 1)
		return sop_say(e, SOP_ECORRUPT, "label has format version 0");
	memcpy(out->volume_uuid.b, d->volume_uuid, sizeof(out->volume_uuid.b));
	memcpy(out->disk_uuid.b, d->disk_uuid, sizeof(out->disk_uuid.b));
	out->incompat = le64_get(d->incompat);
	out->ro_compat = le64_get(d->ro_compat);
	out->generation = le64_get(d->generation);
	out->created_ns = le64_get(d->created_ns);
	out->index = le16_get(d->index);
	out->members = le16_get(d->members);
	out->profiles = le16_get(d->profiles);
	out->flags = le16_get(d->flags);
	out->hashmod = le32_get(d->hashmod);
	out->node_bytes = le32_get(d->node_bytes);
	if (out->members > SOP_MEMBERS_MAX || out->index >= out->members)
		return sop_say(
			e, SOP_ECORRUPT, "label is of member %u of %u", out->index, out->members);
	if (!out->profiles || out->profiles > SOP_PROFILES_MAX)
		return sop_say(e, SOP_ECORRUPT, "label has %u profiles", out->profiles);
	if (out->hashmod < HASHMOD_MIN || out->hashmod > HASHMOD_MAX)
		return sop_say(e, SOP_ECORRUPT, "label has hashmod %" PRIu32, out->hashmod);
	if (!out->node_bytes || out->node_bytes > NODE_BYTES_MAX)
		return sop_say(
			e, SOP_ECORRUPT, "label has nodes of %" PRIu32 " bytes", out->node_bytes);
	if (!out->generation || out->generation > UINT64_MAX / 2)
		return sop_say(e, SOP_ECORRUPT, "label has generation %" PRIu64, out->generation);
	if (!ends(d->name, sizeof(d->name)))
		return sop_say(e, SOP_ECORRUPT, "name of the volume has no end");
	memcpy(out->name, d->name, sizeof(out->name));
	rc = decode_profiles(out, d, e);
	return rc ? rc : decode_members(out, d, e);
}

/* --- the two copies on a disk ---------------------------------------------- */

const char *sop_label_path(unsigned which)
{
	return copy_path[which];
}

void sop_label_copy_load(struct sop_label_copy *c, struct sop_disk *d, unsigned which)
{
	sop_autofree void *raw = NULL;
	size_t len = 0;

	memset(c, 0, sizeof(*c));
	c->rc = sop_disk_read_file(d, copy_path[which], &raw, &len, SOP_LABEL_SIZE, &c->e);
	if (c->rc == -EFBIG || c->rc == -EISDIR) /* somebody's, not ours */
		c->rc = SOP_ENOTVOLUME;
	if (!c->rc) {
		c->rc = sop_label_decode(&c->label, raw, len, &c->e);
		c->crc = len == SOP_LABEL_SIZE && crc_holds(raw);
	}
}

/* How much a failure says about the folder: the more telling one of two is reported. */
static int weight(int rc)
{
	switch (rc) {
	case -ENOENT:
		return 0;
	case SOP_ENOTVOLUME:
		return 1;
	case SOP_ECORRUPT:
		return 2;
	case SOP_EVERSION:
		return 3;
	default: /* the disk gives errors: nothing is known */
		return 4;
	}
}

unsigned sop_label_bad_copies(struct sop_disk *d)
{
	sop_autofree struct sop_label_copy *c = calloc(1, sizeof(*c));
	unsigned bad = 0;

	for (unsigned i = 0; c && i < 2; i++) {
		sop_label_copy_load(c, d, i);
		bad += c->rc != 0 && c->rc != -ENOMEM;
	}
	return bad;
}

/* A copy that memory was short for may be the newer one, or the only whole one. */
static int both_load(struct sop_label_copy *c, struct sop_disk *d, struct sop_err *e)
{
	for (unsigned i = 0; i < 2; i++) {
		sop_label_copy_load(&c[i], d, i);
		if (c[i].rc == -ENOMEM)
			return sop_fail(e, -ENOMEM, "%s: %s", d->name, copy_path[i]);
	}
	return 0;
}

int sop_label_load(struct sop_label *out, struct sop_disk *d, struct sop_err *e)
{
	sop_autofree struct sop_label_copy *c = calloc(2, sizeof(*c));
	struct sop_label_copy *best, *worse;
	int rc = c ? both_load(c, d, e) : sop_fail(e, -ENOMEM, "%s: label", d->name);

	if (rc)
		return rc;
	/* A whole copy of a newer format counts, though the other is of ours: a newer program has
	 * begun to convert this disk. */
	for (unsigned i = 0; i < 2; i++)
		if (c[i].rc == SOP_EVERSION && c[i].crc)
			return sop_say(e, c[i].rc, "%s: %s", d->name, c[i].e.text);
	if (!c[0].rc && !c[1].rc) {
		if (!sop_uuid_equal(&c[0].label.volume_uuid, &c[1].label.volume_uuid) ||
			!sop_uuid_equal(&c[0].label.disk_uuid, &c[1].label.disk_uuid))
			return sop_say(e, SOP_ECORRUPT,
				"%s: the two copies of the label are of different disks", d->name);
	}
	best = &c[0];
	worse = &c[1];
	if (best->rc && worse->rc ? weight(worse->rc) > weight(best->rc)
				  : best->rc || (!worse->rc && worse->label.generation >
								       best->label.generation)) {
		best = &c[1];
		worse = &c[0];
	}
	if (!best->rc) {
		*out = best->label;
		return 0;
	}
	if (best->rc == -ENOENT)
		return sop_fail(e, SOP_ENOTVOLUME, "%s", d->name);
	return sop_say(e, best->rc, "%s: %s", d->name, best->e.text);
}

/* A new copy has to be found after a crash, too, before the other one is touched. */
static int copy_store(struct sop_disk *d, unsigned which, const void *raw, struct sop_err *e)
{
	struct iovec iov = {(void *)(uintptr_t)raw, SOP_LABEL_SIZE};
	struct sop_file *f;
	bool created = false;
	ssize_t n;
	int rc;

	rc = d->ops->file_open(&f, d, copy_path[which], SOP_OPEN_WRITE);
	if (rc == -ENOENT) {
		created = true;
		rc = d->ops->file_open(&f, d, copy_path[which], SOP_OPEN_WRITE | SOP_OPEN_CREATE);
	}
	if (rc)
		return sop_fail(e, rc, "%s: %s", d->name, copy_path[which]);
	n = d->ops->pwritev(f, &iov, 1, 0);
	rc = n < 0 ? (int)n : n == SOP_LABEL_SIZE ? 0 : -EIO;
	if (!rc)
		rc = d->ops->datasync(f);
	d->ops->file_close(f);
	if (!rc && created)
		rc = d->ops->syncdir(d, "");
	return rc ? sop_fail(e, rc, "%s: %s: write", d->name, copy_path[which]) : 0;
}

int sop_label_store(struct sop_disk *d, const struct sop_label *l, struct sop_err *e)
{
	sop_autofree void *raw = sop_alloc_aligned(SOP_LABEL_SIZE);
	sop_autofree struct sop_label_copy *c = calloc(2, sizeof(*c));
	unsigned first;
	int rc;

	if (!raw || !c)
		return sop_fail(e, -ENOMEM, "%s: label", d->name);
	rc = both_load(c, d, e);
	if (rc)
		return rc;
	sop_label_encode(raw, l);
	/* A crash may spoil the copy written first, so it must not be the only good one. */
	first = !c[0].rc && (c[1].rc || c[0].label.generation > c[1].label.generation);
	rc = copy_store(d, first, raw, e);
	return rc ? rc : copy_store(d, !first, raw, e);
}
