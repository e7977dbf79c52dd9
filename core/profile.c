/* Erasure code profiles by name: which one a store's blobs are written with. */
#include "core/engine.h"

unsigned sop_profile_of(struct sop_volume *v, const char *name, size_t len)
{
	const struct sop_label *l = sop_members_label(v->mem);

	for (unsigned i = 0; len && i < l->profiles; i++)
		if (strlen(l->profile[i].name) == len && !memcmp(l->profile[i].name, name, len))
			return i;
	return 0;
}

int sop_profile_find(struct sop_volume *v, const char *name, unsigned *profile, struct sop_err *e)
{
	const struct sop_label *l = sop_members_label(v->mem);

	for (unsigned i = 0; i < l->profiles; i++)
		if (*name && !strcmp(l->profile[i].name, name)) {
			*profile = i;
			return 0;
		}
	return sop_say(e, -ENOENT, "the volume has no erasure code profile \"%s\"", name);
}
