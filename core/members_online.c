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
		return sop_say(e, SOP_EFOREIGN, "%s is d%u of the volume, not d%u", path,
			l->index + 1, i + 1);
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

/* Put the attachment, whose label was of generation `found`, in its slot; the one before stays open
 * until close, for whoever still uses it.
 */
static int install(
	struct sop_members *m, unsigned i, struct sop_attached *at, uint64_t found, uint64_t *seq)
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
	m->slot[i].reason[0] = '\0';
	m->slot[i].errors = 0;
	m->slot[i].back_ms = m->clock->monotonic_ms(m->clock->ctx);
	m->slot[i].returns++;
	if (found < m->slot[i].stored) {
		who->flags |= SOP_MEMBER_SET_BACK;
		m->slot[i].noted = false;
		sop_member_missed(who);
	}
	who->flags &= (uint8_t) ~(SOP_MEMBER_BY_HAND | SOP_MEMBER_AWAY);
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

/* A visit that did not come back in time is kept: sending one after the other to a disk that hangs
 * would leave a thread in each. */
static void keep_hung(struct sop_members *m, unsigned i, struct sop_errand *x)
{
	SOP_LOCK_GUARD(&m->lock);
	m->slot[i].hung = x;
}

static int reopen(
	struct sop_members *m, unsigned i, const char *path, unsigned wait_ms, struct sop_err *e)
{
	const struct sop_members_opts o = {
		.open_disk = m->open_disk, .open_disk_ctx = m->open_disk_ctx};
	struct sop_visit *v = sop_members_visit_new(&o, path);
	struct sop_attached *at = NULL;
	struct sop_errand *x;
	uint64_t seq, found;
	int rc;

	if (!v)
		return sop_fail(e, -ENOMEM, "%s", path);
	x = &v->errand;
	sop_errands_run(&x, 1, m->threads, wait_ms);
	if (!x->finished) {
		keep_hung(m, i, x);
		return sop_fail(e, -ETIMEDOUT, "%s", path);
	}
	found = v->label.generation;
	if (v->rc)
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
		rc = install(m, i, at, found, &seq);
	if (!rc)
		rc = sop_members_store_labels(m, seq, e);
	if (!rc && !sop_members_disk(m, i))
		rc = sop_say(e, -EIO, "%s: does not take a label", path);
	sop_attached_put(at);
	return rc;
}

/* Is it free for another visit? Under the lock. */
static bool is_busy(struct sop_members *m, unsigned i)
{
	struct sop_slot *s = &m->slot[i];

	if (s->hung && sop_errand_over(s->hung)) {
		sop_errand_put(s->hung);
		s->hung = NULL;
	}
	return m->reopening || s->hung || (s->at && atomic_load(&s->at->storing));
}

static int online(
	struct sop_members *m, unsigned i, const char *path, unsigned wait_ms, struct sop_err *e)
{
	char clean[SOP_MEMBER_PATH];
	int rc = 0;

	sop_lock(&m->lock);
	if (!sop_members_is(&m->label.member[i]))
		rc = sop_say(e, -EINVAL, "d%u is not a member of the volume", i + 1);
	else if (atomic_load(&m->usable[i]))
		rc = 1;
	else if (is_busy(m, i))
		rc = sop_say(e, -EBUSY, "%s: a call on it still hangs", m->label.member[i].path);
	else
		m->reopening = true;
	snprintf(clean, sizeof(clean), "%s", m->label.member[i].path);
	sop_unlock(&m->lock);
	if (rc)
		return SOP_MIN(rc, 0);
	rc = path ? sop_members_path(clean, path, !m->open_disk) : 0;
	if (rc)
		rc = sop_fail(e, rc, "%s", path);
	else
		rc = reopen(m, i, clean, wait_ms, e);
	sop_lock(&m->lock);
	m->reopening = false;
	sop_unlock(&m->lock);
	return rc;
}

int sop_members_online(struct sop_members *m, unsigned i, const char *path, struct sop_err *e)
{
	assert(i < sop_members_count(m));
	return online(m, i, path, m->timeout_ms, e);
}

/* --- watching ---------------------------------------------------------------
 */

#define VISIT_MS 2000u /* a disk that takes longer to say who it is is not well yet */

static void watch_present(struct sop_members *m, unsigned n)
{
	struct sop_attached *at[SOP_MEMBERS_MAX] = {NULL};

	sop_lock(&m->lock);
	for (unsigned i = 0; i < n; i++)
		if (atomic_load(&m->usable[i]))
			at[i] = m->slot[i].at; /* open until m is closed */
	sop_unlock(&m->lock);
	sop_members_look(at, n, m->clock->monotonic_ms(m->clock->ctx), SOP_LOOK_MS, m->threads, 0);
	for (unsigned i = 0; i < n; i++) {
		bool gone = false;

		if (at[i]) {
			sop_lock(&at[i]->lock);
			gone = at[i]->unlabelled;
			sop_unlock(&at[i]->lock);
		}
		if (gone)
			sop_members_event(m, i, SOP_EVENT_WRITE, -ENOENT);
	}
}

static bool is_due(struct sop_members *m, unsigned i, bool at_once)
{
	const struct sop_member *who = &m->label.member[i];
	uint64_t now = m->clock->monotonic_ms(m->clock->ctx);

	SOP_LOCK_GUARD(&m->lock);
	return sop_members_is(who) && !atomic_load(&m->usable[i]) &&
	       !(who->flags & SOP_MEMBER_BY_HAND) && (at_once || now >= m->slot[i].retry_ms);
}

static void note_absent(struct sop_members *m, unsigned i, const struct sop_err *e)
{
	struct sop_slot *s = &m->slot[i];

	SOP_LOCK_GUARD(&m->lock);
	s->retry_wait_ms = SOP_MIN(SOP_MAX(2 * s->retry_wait_ms, 1000u), 60000u);
	s->retry_ms = m->clock->monotonic_ms(m->clock->ctx) + s->retry_wait_ms;
	if (!s->at || !s->reason[0])
		snprintf(s->reason, sizeof(s->reason), "%.*s", SOP_MEMBER_REASON - 1, e->text);
}

bool sop_members_watch(struct sop_members *m, bool at_once, struct sop_member_set *back)
{
	unsigned n = sop_members_count(m);
	bool any = false;

	memset(back, 0, sizeof(*back));
	if (m->read_only)
		return false;
	watch_present(m, n);
	for (unsigned i = 0; i < n; i++) {
		struct sop_err e = {0};

		if (!is_due(m, i, at_once))
			continue;
		if (online(m, i, NULL, SOP_MIN(m->timeout_ms, VISIT_MS), &e)) {
			note_absent(m, i, &e);
			continue;
		}
		sop_log(m->log, SOP_LOG_INFO, "members", "op=online disk=%u path=%s: is back", i,
			m->given.member[i].path);
		back->bits[i / 64] |= 1ULL << (i % 64);
		any = true;
	}
	return any;
}
