#include "core/peek.h"

#include <stdio.h>

#include "core/members.h"

#define WAIT_MS 5000

static void fill(struct sop_peek *out, const struct sop_label *l)
{
	memset(out, 0, sizeof(*out));
	out->uuid = l->volume_uuid;
	snprintf(out->name, sizeof(out->name), "%s", l->name);
	out->k = l->profile[0].k;
	out->m = l->profile[0].m;
	out->generation = l->generation;
	out->created_ns = l->created_ns;
	for (unsigned i = 0; i < l->members && out->disks < SOP_PEEK_DISKS; i++) {
		const struct sop_member *m = &l->member[i];
		struct sop_peek_disk *d = &out->disk[out->disks];

		if (!m->role || m->state == SOP_MEMBER_REMOVED)
			continue;
		d->index = i;
		d->uuid = m->uuid;
		snprintf(d->path, sizeof(d->path), "%s", m->path);
		d->data = m->role & SOP_ROLE_DATA;
		d->registry = m->role & SOP_ROLE_REGISTRY;
		d->online = m->state == SOP_MEMBER_ONLINE;
		out->disks++;
	}
}

static int own_label(struct sop_label *l, const char *path, struct sop_err *e)
{
	struct sop_disk *d;
	int rc = sop_disk_open_folder(&d, path, e);

	if (rc)
		return rc;
	rc = sop_label_load(l, d, e);
	sop_disk_close(d);
	return rc;
}

int sop_peek(struct sop_peek *out, const char *path, struct sop_err *e)
{
	const struct sop_members_opts o = {.read_only = true,
		.no_lock = true,
		.degraded = true,
		.disk_timeout_ms = WAIT_MS,
		.clock = &sop_clock_system};
	sop_autofree struct sop_label *l = malloc(sizeof(*l));
	struct sop_members *m;
	struct sop_err why = {0};
	int rc = l ? own_label(l, path, e) : sop_fail(e, -ENOMEM, "%s", path);

	if (rc)
		return rc;
	rc = sop_members_open(&m, &path, 1, &o, &why);
	if (rc == -ENOMEM) /* nothing is known of the others */
		return sop_say(e, rc, "%s", why.text);
	if (rc) {
		fill(out, l);
		snprintf(out->why_not, sizeof(out->why_not), "%s", why.text);
		return 0;
	}
	fill(out, sop_members_label(m));
	out->openable = true;
	for (unsigned i = 0; i < out->disks; i++) {
		struct sop_peek_disk *d = &out->disk[i];
		struct sop_member_status s;

		sop_members_status(m, d->index, &s);
		d->found = s.present;
		d->online = s.present && s.state == SOP_MEMBER_ONLINE;
		d->total_bytes = s.total_bytes;
		d->free_bytes = s.free_bytes;
		snprintf(d->path, sizeof(d->path), "%s", s.path);
	}
	sop_members_close(m);
	return 0;
}
