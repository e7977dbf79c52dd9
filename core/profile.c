/* Erasure code profiles by name: which one a store's blobs are written with, and making one. */
#include "core/shared.h"

#include <stdio.h>

unsigned sop_profile_of(struct sop_volume *v, const char *name, size_t len)
{
	const struct sop_label *l = sop_members_label(v->mem);

	for (unsigned i = 0; len && i < sop_members_profiles(v->mem); i++)
		if (strlen(l->profile[i].name) == len && !memcmp(l->profile[i].name, name, len))
			return i;
	return 0;
}

int sop_profile_find(struct sop_volume *v, const char *name, unsigned *profile, struct sop_err *e)
{
	const struct sop_label *l = sop_members_label(v->mem);

	for (unsigned i = 0; i < sop_members_profiles(v->mem); i++)
		if (*name && !strcmp(l->profile[i].name, name)) {
			*profile = i;
			return 0;
		}
	return sop_say(e, -ENOENT, "the volume has no erasure code profile \"%s\"", name);
}

static void room(struct sop_volume *v, unsigned profile, uint64_t *total, uint64_t *left)
{
	sop_members_capacity(v->mem, profile, total, left);
	*left -= SOP_MIN(sop_space_reserve_bytes(*total), *left);
}

void sop_store_room(
	struct sop_volume *v, uint64_t store, uint64_t *total_bytes, uint64_t *free_bytes)
{
	room(v, sop_stores_profile(v->stores, store), total_bytes, free_bytes);
}

bool sop_profile_get(struct sop_volume *v, unsigned n, struct sop_profile_info *out)
{
	struct sop_profile p;

	if (n >= sop_members_profiles(v->mem))
		return false;
	memset(out, 0, sizeof(*out));
	out->disks = sop_members_profile_get(v->mem, n, &p, out->disk);
	memcpy(out->name, p.name, sizeof(out->name));
	out->k = p.k;
	out->m = p.m;
	out->repair = !(p.flags & SOP_PROFILE_NO_REPAIR);
	for (unsigned i = 0; i < sizeof(p.disks); i++)
		out->chosen |= p.disks[i] != 0;
	room(v, n, &out->total_bytes, &out->free_bytes);
	return true;
}

int sop_profile_add(struct sop_volume *v, const struct sop_profile_opts *o, struct sop_err *e)
{
	struct sop_profile p = {.k = (uint8_t)o->k,
		.m = (uint8_t)o->m,
		.flags = o->no_repair ? SOP_PROFILE_NO_REPAIR : 0};

	if (sop_shared_live(v))
		return sop_shared_refuse(v, "adding a profile", e);
	if (!o->name || strlen(o->name) >= sizeof(p.name) || o->k > 255 || o->m > 255)
		return sop_say(e, -EINVAL,
			"profile: the name must be 1 to %zu bytes, and K+M at most %d",
			sizeof(p.name) - 1, SOP_EC_MAX);
	snprintf(p.name, sizeof(p.name), "%s", o->name);
	for (size_t i = 0; i < o->n_disks; i++) {
		unsigned member;
		int rc = sop_disk_find(v, o->disks[i], &member, e);

		if (rc)
			return rc;
		p.disks[member / 8] |= (uint8_t)(1u << (member % 8));
	}
	return sop_members_profile_add(v->mem, &p, e);
}
