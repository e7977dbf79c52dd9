#include <stdio.h>

#include "core/members_own.h"

/* Erasure code profiles of a volume that is in use: one more, in the next round of labels. It is
 * never changed nor taken away again, so that whoever knows its number knows what it is. */

/* May a profile be like this among these members? */
int sop_members_profile_check(
	const struct sop_label *l, const struct sop_profile *p, struct sop_err *e)
{
	unsigned disks = 0, replicas = 0;

	if (!p->name[0])
		return sop_say(e, -EINVAL, "an erasure code profile needs a name");
	for (const char *c = p->name; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f || strchr("/:,=@\"\\", *c))
			return sop_say(e, -EINVAL,
				"profile \"%s\": spaces, control characters and any of / : , = @ "
				"\" \\ cannot be in its name",
				p->name);
	for (unsigned i = 0; i < l->profiles; i++)
		if (!strcmp(l->profile[i].name, p->name))
			return sop_say(e, -EEXIST, "profile %s: is %u+%u already", p->name,
				l->profile[i].k, l->profile[i].m);
	if (l->profiles == SOP_PROFILES_MAX)
		return sop_say(e, -ENOSPC, "a volume has at most %d profiles", SOP_PROFILES_MAX);
	if (!p->k || p->k + p->m > SOP_EC_MAX)
		return sop_say(e, -EINVAL,
			"profile %s: %u+%u: needs at least 1 data shard and at most %d shards in "
			"all",
			p->name, p->k, p->m, SOP_EC_MAX);
	for (unsigned i = 0; i < l->members; i++) {
		if (!sop_members_is(&l->member[i]))
			continue;
		disks += sop_members_profile_has(l, p, i);
		replicas += (l->member[i].role & SOP_ROLE_REGISTRY) != 0;
	}
	if (disks < (unsigned)p->k + p->m)
		return sop_say(e, -EINVAL, "profile %s: %u+%u needs %u disks, it has %u", p->name,
			p->k, p->m, p->k + p->m, disks);
	if (replicas <= p->m)
		return sop_say(e, -EINVAL,
			"profile %s: %u disks of it may be lost, but the registry is on %u alone: "
			"add stores folders first",
			p->name, p->m, replicas);
	return 0;
}

int sop_members_profile_add(struct sop_members *m, const struct sop_profile *p, struct sop_err *e)
{
	uint64_t seq;
	int rc;

	if (m->read_only)
		return sop_say(e, -EROFS, "the volume is open for reading alone");
	sop_lock(&m->lock);
	rc = sop_members_profile_check(&m->label, p, e);
	if (!rc) {
		/* A mount needs k disks of each: who is away now may be so then. */
		m->label.profile[m->label.profiles++] = *p;
		rc = sop_members_check_quorum(m, true, e);
		if (rc)
			m->label.profiles--;
	}
	if (rc) {
		sop_unlock(&m->lock);
		return rc;
	}
	/* Readers of the given label take no lock: the entry is whole before it counts. */
	m->given.profile[m->given.profiles] = *p;
	__atomic_store_n(&m->given.profiles, (uint16_t)(m->given.profiles + 1), __ATOMIC_RELEASE);
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	rc = sop_members_store_labels(m, seq, e);
	return rc ? sop_wrap(e, rc, "profile %s", p->name) : 0;
}

unsigned sop_members_profiles(const struct sop_members *m)
{
	return __atomic_load_n(&m->given.profiles, __ATOMIC_ACQUIRE);
}

unsigned sop_members_profile_get(
	struct sop_members *m, unsigned n, struct sop_profile *out, uint8_t *disk)
{
	unsigned disks = 0;

	assert(n < sop_members_profiles(m));
	SOP_LOCK_GUARD(&m->lock);
	*out = m->label.profile[n];
	for (unsigned i = 0; i < m->label.members; i++)
		if (sop_members_profile_has(&m->label, out, i))
			disk[disks++] = (uint8_t)i;
	return disks;
}
