/* The face for whoever administers a volume: names of disks, their states, and what has been asked
 * for handed to those who do it. */
#include "core/engine.h"

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

bool sop_volume_disk(struct sop_volume *v, unsigned n, struct sop_volume_disk *out)
{
	struct sop_member_status s;
	unsigned i;

	if (!nth(v, n, &i))
		return false;
	sop_members_status(v->mem, i, &s);
	*out = (struct sop_volume_disk){.index = i,
		.state = !s.present ? SOP_DISK_FAILED : SOP_DISK_ONLINE,
		.uuid = sop_members_label(v->mem)->member[i].uuid,
		.present = s.present,
		.data = s.role & SOP_ROLE_DATA,
		.registry = s.role & SOP_ROLE_REGISTRY,
		.target = -1,
		.read_errors = s.read_errors,
		.write_errors = s.write_errors,
		.checksum_errors = s.checksum_errors,
		.total_bytes = s.total_bytes,
		.free_bytes = s.free_bytes};
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

static int find(struct sop_volume *v, const char *which, unsigned *member, struct sop_err *e)
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
	return v->opts.read_only ? sop_say(e, -EROFS, "volume %s: mounted read-only", v->name) : 0;
}

int sop_disk_offline(struct sop_volume *v, const char *which, struct sop_err *e)
{
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = find(v, which, &i, e);
	return rc ? rc : sop_members_offline(v->mem, i, e);
}

int sop_disk_online(struct sop_volume *v, const char *which, const char *path, struct sop_err *e)
{
	unsigned i;
	int rc = writable(v, e);

	if (!rc)
		rc = find(v, which, &i, e);
	return rc ? rc : sop_members_online(v->mem, i, path, e);
}

static int not_yet(struct sop_err *e, const char *what)
{
	return sop_say(e, -EOPNOTSUPP, "%s: not built yet", what);
}

int sop_disk_replace(struct sop_volume *v, const char *which, const char *path, unsigned flags,
	struct sop_err *e)
{
	(void)path;
	(void)flags;
	(void)v;
	return not_yet(e, which);
}

int sop_disk_add(struct sop_volume *v, const char *path, unsigned flags, struct sop_err *e)
{
	(void)v;
	(void)flags;
	return not_yet(e, path);
}

int sop_disk_remove(struct sop_volume *v, const char *which, unsigned flags, struct sop_err *e)
{
	(void)v;
	(void)flags;
	return not_yet(e, which);
}

int sop_disk_cancel(struct sop_volume *v, const char *which, struct sop_err *e)
{
	(void)v;
	return not_yet(e, which);
}

/* ---- work ---- */

int sop_scrub_start(struct sop_volume *v, uint64_t rate_bytes_per_s, struct sop_err *e)
{
	(void)v;
	(void)rate_bytes_per_s;
	return not_yet(e, "scrub");
}

int sop_scrub_pause(struct sop_volume *v, struct sop_err *e)
{
	(void)v;
	return not_yet(e, "scrub");
}

int sop_scrub_resume(struct sop_volume *v, struct sop_err *e)
{
	(void)v;
	return not_yet(e, "scrub");
}

int sop_scrub_stop(struct sop_volume *v, struct sop_err *e)
{
	(void)v;
	return not_yet(e, "scrub");
}

bool sop_volume_task(struct sop_volume *v, unsigned i, struct sop_task *out)
{
	(void)v;
	(void)i;
	(void)out;
	return false;
}

bool sop_volume_lost(struct sop_volume *v, unsigned i, struct sop_lost *out)
{
	(void)v;
	(void)i;
	(void)out;
	return false;
}

int sop_volume_clear(struct sop_volume *v, const char *which, struct sop_err *e)
{
	unsigned i = 0;
	int rc = which ? find(v, which, &i, e) : 0;

	if (rc)
		return rc;
	for (unsigned j = which ? i : 0; j < sop_members_count(v->mem) && (!which || j == i); j++)
		sop_members_clear(v->mem, j);
	return 0;
}

/* ---- space ---- */

void sop_volume_space(struct sop_volume *v, struct sop_volume_space *out)
{
	const struct sop_profile *p = &sop_members_label(v->mem)->profile[0];
	struct sop_space_stat s;

	memset(out, 0, sizeof(*out));
	sop_members_capacity(v->mem, 0, &out->total, &out->free);
	out->reserve = sop_space_reserve_bytes(out->total);
	out->free -= SOP_MIN(out->reserve, out->free);
	sop_space_stat(v->space, &s);
	out->data = s.live_bytes / (p->k + p->m) * p->k;
	out->parity = s.live_bytes - out->data;
	out->pinned = s.pending_bytes;
	out->metadata = v->journal_used;
}

/* ---- layout ---- */

int sop_value_layout(struct sop_txn *t, struct sop_name name, bool verify,
	int (*fn)(void *arg, const struct sop_extent_layout *x), void *arg, struct sop_err *e)
{
	(void)t;
	(void)name;
	(void)verify;
	(void)fn;
	(void)arg;
	return not_yet(e, "layout");
}
