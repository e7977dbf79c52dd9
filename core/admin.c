/* The face for whoever administers a volume: names of disks, their states, and what has been asked
 * for handed to those who do it. */
#include "core/mend.h"
#include "core/shared.h"

#include <stdio.h>

const char *sop_disk_state_name(enum sop_disk_state state)
{
	static const char *const names[] = {
		"ONLINE", "OFFLINE", "MISSING", "FAILED", "HEALING", "REPLACING", "REMOVING"};

	return state < SOP_ARRAY_LEN(names) ? names[state] : "?";
}

const char *sop_task_kind_name(enum sop_task_kind kind)
{
	static const char *const names[] = {"scrub", "heal", "replace", "remove"};

	return kind < SOP_ARRAY_LEN(names) ? names[kind] : "?";
}

const char *sop_task_state_name(enum sop_task_state state)
{
	static const char *const names[] = {
		"running", "paused", "waiting", "finished", "stopped", "failed"};

	return state < SOP_ARRAY_LEN(names) ? names[state] : "?";
}

/* ---- disks ---- */

/* The member that is disk number n in use. */
static bool nth(struct sop_volume *v, unsigned n, unsigned *member)
{
	struct sop_member_status s;

	for (unsigned i = 0; i < sop_members_count(v->mem); i++) {
		sop_members_status(v->mem, i, &s);
		if (s.role && s.state != SOP_MEMBER_REMOVED && !n--) {
			*member = i;
			return true;
		}
	}
	return false;
}

static enum sop_disk_state state_of(
	struct sop_volume *v, unsigned i, const struct sop_member_status *s)
{
	if (s->state == SOP_MEMBER_DRAINING)
		return s->to >= 0 ? SOP_DISK_REPLACING : SOP_DISK_REMOVING;
	if (s->by_hand)
		return SOP_DISK_OFFLINE;
	if (!s->present)
		return s->missing ? SOP_DISK_MISSING : SOP_DISK_FAILED;
	if (v->mender && (!s->current || sop_mender_missing(v->mender, i)))
		return SOP_DISK_HEALING;
	return SOP_DISK_ONLINE;
}

bool sop_volume_disk(struct sop_volume *v, unsigned n, struct sop_volume_disk *out)
{
	struct sop_member_status s;
	unsigned i;

	if (!nth(v, n, &i))
		return false;
	sop_members_status(v->mem, i, &s);
	*out = (struct sop_volume_disk){.index = i,
		.state = state_of(v, i, &s),
		.uuid = s.uuid,
		.generation = s.generation,
		.present = s.present,
		.data = s.role & SOP_ROLE_DATA,
		.registry = s.role & SOP_ROLE_REGISTRY,
		.current = s.current,
		.target = s.state == SOP_MEMBER_DRAINING ? s.to : -1,
		.last_seen = {(time_t)(s.seen_ns / 1000000000u), (long)(s.seen_ns % 1000000000u)},
		.read_errors = s.read_errors,
		.write_errors = s.write_errors,
		.checksum_errors = s.checksum_errors,
		.repaired_bytes = s.repaired_bytes,
		.total_bytes = s.total_bytes,
		.free_bytes = s.free_bytes,
		.used_bytes = sop_space_on(v->space, i),
		.missing_bytes = v->mender ? sop_mender_missing(v->mender, i) : 0};
	if (s.present)
		out->last_seen = sop_now(v);
	if (!s.present)
		memcpy(out->reason, s.reason, sizeof(out->reason));
	snprintf(out->name, sizeof(out->name), "d%u", i + 1);
	snprintf(out->path, sizeof(out->path), "%s", s.path);
	return true;
}

#define UUID_DIGITS_MIN 4

static bool begins_uuid(const char *which, const struct sop_uuid *uuid)
{
	char text[SOP_UUID_TEXT];
	size_t len = strlen(which);

	return len >= UUID_DIGITS_MIN && len < sizeof(text) &&
	       !strncasecmp(sop_uuid_format(text, uuid), which, len);
}

int sop_disk_find(struct sop_volume *v, const char *which, unsigned *member, struct sop_err *e)
{
	struct sop_volume_disk d;
	unsigned found = 0;

	for (unsigned n = 0; sop_volume_disk(v, n, &d); n++) {
		if (!strcmp(which, d.name) || !strcmp(which, d.path)) {
			*member = d.index;
			return 0;
		}
		if (begins_uuid(which, &d.uuid)) {
			*member = d.index;
			found++;
		}
	}
	if (found == 1)
		return 0;
	return found ? sop_say(e, -EINVAL, "%s: %u disks of the volume have UUIDs like that", which,
			       found)
		     : sop_say(e, -ENOENT,
			       "%s: no disk of the volume; name one as d1, by path or by UUID",
			       which);
}

static int writable(struct sop_volume *v, struct sop_err *e)
{
	return v->opts.read_only ? sop_say(e, -EROFS, "volume %s: mounted read-only", v->name)
				 : sop_shared_refuse(v, "changing disks", e);
}

int sop_disk_offline(struct sop_volume *v, const char *which, unsigned flags, struct sop_err *e)
{
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = sop_disk_find(v, which, &i, e);
	if (rc)
		return rc;
	return flags & SOP_ADMIN_DRY_RUN ? sop_members_may_go(v->mem, i, e)
					 : sop_members_offline(v->mem, i, e);
}

int sop_disk_online(struct sop_volume *v, const char *which, const char *path, struct sop_err *e)
{
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = sop_disk_find(v, which, &i, e);
	if (!rc)
		rc = sop_members_online(v->mem, i, path, e);
	if (!rc)
		sop_mender_returned(v->mender, i);
	return rc;
}

/* What a disk has to take that gets the content of member i: its shards, and room to go on. */
#define ROOM_SPARE ((uint64_t)8 << 20)

static unsigned member_flags(unsigned flags)
{
	return (flags & SOP_ADMIN_FORCE ? (unsigned)SOP_MEMBERS_FORCE : 0) |
	       (flags & SOP_ADMIN_DRY_RUN ? (unsigned)SOP_MEMBERS_DRY_RUN : 0);
}

int sop_disk_replace(struct sop_volume *v, const char *which, const char *path, unsigned flags,
	struct sop_err *e)
{
	struct sop_member_status s;
	unsigned i, j;
	int rc = writable(v, e);

	if (!rc)
		rc = sop_disk_find(v, which, &i, e);
	if (rc)
		return rc;
	sop_members_status(v->mem, i, &s);
	if (s.state == SOP_MEMBER_DRAINING)
		return sop_say(e, -EALREADY, "%s: is being replaced or removed already", which);
	rc = sop_members_add(v->mem, path, s.role, (int)i, member_flags(flags),
		sop_space_on(v->space, i) + ROOM_SPARE, &j, e);
	if (!rc && !(flags & SOP_ADMIN_DRY_RUN))
		sop_mender_kick(v->mender);
	return rc;
}

int sop_disk_add(struct sop_volume *v, const char *path, unsigned flags, struct sop_err *e)
{
	unsigned j;
	int rc = writable(v, e);

	if (rc)
		return rc;
	rc = sop_members_add(
		v->mem, path, SOP_ROLE_DATA, -1, member_flags(flags), ROOM_SPARE, &j, e);
	if (!rc)
		sop_mender_kick(v->mender);
	return rc;
}

/* The member that gets a replica of the registry when one goes: with most room. -1: there is none.
 */
static int heir(struct sop_volume *v, unsigned gone)
{
	uint64_t most = 0;
	int best = -1;

	for (unsigned i = 0; i < sop_members_count(v->mem); i++) {
		struct sop_member_status s;

		sop_members_status(v->mem, i, &s);
		if (i == gone || !s.present || s.state != SOP_MEMBER_ONLINE ||
			s.role != SOP_ROLE_DATA || (best >= 0 && s.free_bytes <= most))
			continue;
		best = (int)i;
		most = s.free_bytes;
	}
	return best;
}

/* Enough disks, and room on them, for what lies on member i. */
static int check_remove(struct sop_volume *v, unsigned i, struct sop_err *e)
{
	const struct sop_label *label = sop_members_label(v->mem);
	uint64_t need = sop_space_on(v->space, i) + ROOM_SPARE, room = 0;
	unsigned left = 0, width = 0;
	struct sop_member_status s;

	for (unsigned p = 0; p < sop_members_profiles(v->mem); p++)
		if (label->profile[p].name[0])
			width = SOP_MAX(width, (unsigned)label->profile[p].k + label->profile[p].m);
	for (unsigned k = 0; k < sop_members_count(v->mem); k++) {
		sop_members_status(v->mem, k, &s);
		if (k == i || !s.present || s.state != SOP_MEMBER_ONLINE ||
			!(s.role & SOP_ROLE_DATA))
			continue;
		left++;
		room += s.free_bytes;
	}
	sop_members_status(v->mem, i, &s);
	if (s.role & SOP_ROLE_DATA && left < width)
		return sop_say(e, SOP_EDISKS,
			"d%u: %u disks would be left, and shards go to %u; replace it instead, or "
			"add "
			"a disk first",
			i + 1, left, width);
	if (s.role & SOP_ROLE_DATA && room < need)
		return sop_say(e, -ENOSPC,
			"d%u: the other disks have %llu bytes free, %llu are needed", i + 1,
			(unsigned long long)room, (unsigned long long)need);
	return 0;
}

int sop_disk_remove(struct sop_volume *v, const char *which, unsigned flags, struct sop_err *e)
{
	struct sop_member_status s;
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = sop_disk_find(v, which, &i, e);
	if (rc)
		return rc;
	sop_members_status(v->mem, i, &s);
	if (s.state == SOP_MEMBER_DRAINING)
		return sop_say(e, -EALREADY, "%s: is being replaced or removed already", which);
	rc = check_remove(v, i, e);
	if (rc || flags & SOP_ADMIN_DRY_RUN)
		return rc;
	rc = sop_members_drain(v->mem, i, s.role & SOP_ROLE_REGISTRY ? heir(v, i) : -1, e);
	sop_mender_kick(v->mender);
	return rc;
}

int sop_disk_cancel(struct sop_volume *v, const char *which, struct sop_err *e)
{
	struct sop_member_status s;
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = sop_disk_find(v, which, &i, e);
	if (rc)
		return rc;
	sop_members_status(v->mem, i, &s);
	if (s.state != SOP_MEMBER_DRAINING)
		return sop_say(e, -ENOENT, "%s: is not being replaced or removed", which);
	rc = sop_members_undrain(v->mem, i, e);
	if (rc != -ENOENT)
		sop_mender_cancelled(v->mender, i);
	return rc;
}

int sop_volume_clear(struct sop_volume *v, const char *which, struct sop_err *e)
{
	unsigned i = 0;
	int rc = which ? sop_disk_find(v, which, &i, e) : 0;

	if (rc)
		return rc;
	for (unsigned j = 0; j < sop_members_count(v->mem); j++)
		if (!which || j == i)
			sop_members_clear(v->mem, j);
	if (!which && v->mender)
		sop_mender_forget_lost(v->mender);
	return 0;
}

/* ---- space ---- */

void sop_volume_space(struct sop_volume *v, struct sop_volume_space *out)
{
	struct sop_space_shares x;
	unsigned replicas[SOP_MEMBERS_MAX], n = sop_members_replicas(v->mem, replicas);

	memset(out, 0, sizeof(*out));
	sop_store_room(v, SOP_ROOT, &out->total, &out->free);
	out->reserve = sop_space_reserve_bytes(out->total);
	sop_space_shares(v->space, &x);
	out->data = x.data;
	out->parity = x.parity;
	out->pinned = x.pinned;
	/* A slot of 32 bytes for each node, twice, and what the journal holds; on each replica. */
	out->metadata = x.nodes + n * (sop_registry_bytes(v->reg) + v->journal_used);
}

/* ---- layout ---- */

struct layout {
	struct sop_volume *v;
	bool verify;
	int (*fn)(void *arg, const struct sop_extent_layout *x);
	void *arg;
};

static int lay_out(struct layout *l, const struct sop_extent *x, struct sop_err *e)
{
	struct sop_extent_layout out = {
		.off = x->off, .len = x->len, .segment = x->ref.segment, .segment_off = x->ref.off};
	struct sop_segment_info info;
	uint32_t good = 0;
	int rc = sop_segments_info(l->v->seg, x->ref.segment, &info, e);

	if (rc)
		return rc;
	/* What cannot be read shows in the states of the shards. */
	rc = l->verify ? sop_blob_verify(l->v->seg, &x->ref, false, &good, NULL) : 0;
	if (sop_blob_untold(rc))
		return sop_fail(e, rc, "verify");
	out.k = info.k;
	out.m = info.m;
	for (unsigned i = 0; i < out.k + out.m; i++) {
		out.disk[i] = info.disks[i];
		if (l->verify)
			out.state[i] = good >> i & 1 ? SOP_SHARD_OK
				       : sop_members_disk(l->v->mem, info.disks[i])
					       ? SOP_SHARD_CORRUPT
					       : SOP_SHARD_MISSING;
		else if (!sop_members_disk(l->v->mem, info.disks[i]) || info.stale >> i & 1)
			out.state[i] = SOP_SHARD_MISSING;
	}
	return l->fn(l->arg, &out);
}

struct extents {
	struct sop_extent *x;
	size_t n, cap;
	struct sop_err *e;
};

static int take_extent(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
	struct extents *l = arg;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct sop_extent *p = realloc(l->x, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->x = p;
		l->cap = cap;
	}
	return sop_extent_decode(&l->x[l->n++], key, klen, val, vlen, l->e);
}

static int tree_extents(struct sop_txn *t, uint64_t tree, struct extents *l, struct sop_err *e)
{
	struct sop_range all = {0};
	struct sop_state_view view;
	int rc = sop_stores_view(t->v->stores, tree, t->lsn, &view, e);

	if (!rc)
		rc = sop_tree_scan(t->v->nodes, &view.tree, t->lsn, &all, take_extent, l, e);
	return rc;
}

int sop_value_layout(struct sop_txn *t, struct sop_name name, bool verify,
	int (*fn)(void *arg, const struct sop_extent_layout *x), void *arg, struct sop_err *e)
{
	struct layout l = {.v = t->v, .verify = verify, .fn = fn, .arg = arg};
	struct extents tree = {.e = e};
	uint8_t buf[SOP_ITEM_BYTES_MAX];
	struct sop_place place;
	struct sop_item it;
	struct sop_keybuf kb;
	int rc = sop_name_resolve(t, &name, &kb, false, e);

	if (!rc)
		rc = sop_txn_inode(t, name, &kb, &place, &it, buf, e);
	if (rc)
		return rc;
	if (it.tree)
		rc = tree_extents(t, it.tree, &tree, e);
	for (uint32_t i = 0; i < it.extents && !rc; i++)
		rc = lay_out(&l, &it.extent[i], e);
	for (size_t i = 0; i < tree.n && !rc; i++)
		rc = lay_out(&l, &tree.x[i], e);
	free(tree.x);
	if (!rc && it.run_len)
		rc = fn(arg, &(struct sop_extent_layout){
				     .off = it.run_off, .len = it.run_len, .is_inline = true});
	return rc;
}
