#include <stdio.h>

#include "core/members_own.h"

/* Taking a member in again that was set aside, or absent at open. */

static int check_returning(struct sop_members *m, unsigned i, const struct sop_label *l,
	const char *path, struct sop_err *e)
{
	char a[160], b[160];
	uint64_t generation;

	if (!sop_uuid_equal(&l->volume_uuid, &m->given.volume_uuid))
		return sop_say(e, SOP_EFOREIGN, "%s is of %s, not of %s", path,
			sop_members_volume_text(a, sizeof(a), l),
			sop_members_volume_text(b, sizeof(b), &m->given));
	if (l->index != i || !sop_uuid_equal(&l->disk_uuid, &m->given.member[i].uuid))
		return sop_say(e, SOP_EFOREIGN, "%s is disk %u of the volume, not disk %u", path,
			l->index, i);
	sop_lock(&m->lock);
	generation = m->label.generation;
	sop_unlock(&m->lock);
	if (l->generation > generation)
		return sop_say(e, SOP_EFOREIGN,
			"%s was written by another mount of the volume meanwhile: unmount, then "
			"mount it "
			"with all its disks",
			path);
	return 0;
}

/* Lock the folder. When the lock is our own, of the time before it was set aside, the old
 * attachment is the one to go on with: *at is exchanged for it. */
static int relock(struct sop_members *m, unsigned i, struct sop_attached **at, struct sop_err *e)
{
	struct sop_claim *c = sop_members_claim_new(*at, m->claim);
	struct sop_errand *x;
	int rc;

	if (!c)
		return sop_fail(e, -ENOMEM, "%s", (*at)->disk->name);
	x = &c->errand;
	sop_errands_run(&x, 1, m->threads, m->timeout_ms);
	rc = x->finished ? c->rc : -ETIMEDOUT;
	if (rc == SOP_EINUSE) {
		size_t len = strcspn(m->claim, "\n");
		char own[SOP_CLAIM_TEXT];
		struct sop_attached *old;

		sop_lock(&m->lock);
		old = m->slot[i].at;
		sop_unlock(&m->lock);
		snprintf(own, sizeof(own), "%.*s", (int)len, m->claim);
		if (old && old->lock_file && strstr(c->e.text, own)) {
			sop_attached_put(*at);
			*at = sop_attached_get(old);
			rc = 0;
		}
	}
	if (rc)
		rc = x->finished ? sop_say(e, rc, "%s", c->e.text)
				 : sop_fail(e, rc, "%s: lock", (*at)->disk->name);
	sop_errand_put(x);
	return rc;
}

/* Put the attachment in its slot; the one before stays open until close, for whoever still uses it.
 */
static int install(struct sop_members *m, unsigned i, struct sop_attached *at, uint64_t *seq)
{
	struct sop_retired *r = calloc(1, sizeof(*r));
	struct sop_member *who = &m->label.member[i];

	if (!r)
		return -ENOMEM;
	sop_lock(&m->lock);
	if (m->slot[i].at && m->slot[i].at != at) {
		*r = (struct sop_retired){m->retired, m->slot[i].at};
		m->retired = r;
		r = NULL;
		m->slot[i].at = NULL;
	}
	if (!m->slot[i].at)
		m->slot[i].at = sop_attached_get(at);
	m->slot[i].aside = false;
	m->slot[i].full = false;
	if (who->state == SOP_MEMBER_OFFLINE)
		who->state = SOP_MEMBER_ONLINE;
	if (strlen(at->disk->name) < sizeof(who->path))
		snprintf(who->path, sizeof(who->path), "%s", at->disk->name);
	atomic_store(&m->usable[i], at->disk);
	*seq = ++m->change_seq;
	sop_unlock(&m->lock);
	free(r);
	return 0;
}

static int reopen(struct sop_members *m, unsigned i, const char *path, struct sop_err *e)
{
	const struct sop_members_opts o = {
		.open_disk = m->open_disk, .open_disk_ctx = m->open_disk_ctx};
	struct sop_visit *v = sop_members_visit_new(&o, path);
	struct sop_attached *at = NULL;
	struct sop_errand *x;
	uint64_t seq;
	int rc;

	if (!v)
		return sop_fail(e, -ENOMEM, "%s", path);
	x = &v->errand;
	sop_errands_run(&x, 1, m->threads, m->timeout_ms);
	if (!x->finished)
		rc = sop_fail(e, -ETIMEDOUT, "%s", path);
	else if (v->rc)
		rc = sop_say(e, v->rc, "%s", v->e.text);
	else
		rc = check_returning(m, i, &v->label, path, e);
	if (!rc) {
		at = sop_attached_get(v->at);
		if (!m->read_only)
			rc = relock(m, i, &at, e);
	}
	sop_errand_put(x);
	if (!rc)
		rc = install(m, i, at, &seq);
	if (!rc)
		rc = sop_members_store_labels(m, seq, e);
	if (!rc && !sop_members_disk(m, i))
		rc = sop_say(e, -EIO, "%s: does not take a label", path);
	sop_attached_put(at);
	return rc;
}

int sop_members_online(struct sop_members *m, unsigned i, const char *path, struct sop_err *e)
{
	char clean[SOP_MEMBER_PATH];
	bool busy;
	int rc;

	assert(i < m->given.members);
	if (!sop_members_is(&m->given.member[i]))
		return sop_say(e, -EINVAL, "disk %u is not a member of the volume", i);
	sop_lock(&m->lock);
	busy = m->reopening || (m->slot[i].at && atomic_load(&m->slot[i].at->storing));
	if (busy || atomic_load(&m->usable[i])) {
		sop_unlock(&m->lock);
		return busy ? sop_say(e, -EBUSY, "%s: a call on it still hangs",
				      m->given.member[i].path)
			    : 0;
	}
	m->reopening = true;
	snprintf(clean, sizeof(clean), "%s", m->label.member[i].path);
	sop_unlock(&m->lock);
	rc = path ? sop_members_path(clean, path, !m->open_disk) : 0;
	if (rc)
		rc = sop_fail(e, rc, "%s", path);
	else
		rc = reopen(m, i, clean, e);
	sop_lock(&m->lock);
	m->reopening = false;
	sop_unlock(&m->lock);
	return rc;
}
