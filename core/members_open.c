#include <inttypes.h>
#include <stdio.h>

#include "core/members_own.h"

/* Opening: search, lock, judge, raise the generation.
 *
 * Search: the paths given are opened, and then, round by round, the last known paths of members
 * that the newest label so far names and that have not been found. Nothing is written before every
 * label has been read, the locks are held, and the labels were read again under them (another
 * mounter may have come and gone in between: then all starts over).
 *
 * A folder without a label is never written to: it may be the mount point of a drive that is not
 * mounted. */

#define TIMEOUT_DEFAULT_MS 30000
#define TRIES		   3
#define MISSING_TEXT	   240
#define WAIT_STEP_MS	   200
#define SHARE_WAIT_MS	   60000

/* --- search ---------------------------------------------------------------- */

struct candidate {
	struct sop_visit *visit; /* NULL: not visited yet, or it hung and is forgotten */
	char *path;
	bool given;
	int rc;
};

struct search {
	struct candidate *c;
	size_t n, visited;
	struct sop_members *m;
	const struct sop_members_opts *o;
	const struct sop_label *newest; /* NULL: no label found */
	int found[SOP_MEMBERS_MAX];	/* candidate of each member of the newest label, or -1 */
};

static void search_release(struct search *s)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->c[i].visit)
			sop_errand_put(&s->c[i].visit->errand);
		free(s->c[i].path);
	}
	free(s->c);
	s->c = NULL;
	s->n = s->visited = 0;
	s->newest = NULL;
}

static int search_add(struct search *s, const char *path, bool given)
{
	char clean[SOP_MEMBER_PATH];
	struct candidate *more;
	char *copy;

	/* What cannot be cleaned is opened as it is, and gives the error that says why. */
	if (!sop_members_path(clean, path, !s->o->open_disk))
		path = clean;
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->c[i].path, path) == 0)
			return 0;
	copy = strdup(path);
	more = reallocarray(s->c, s->n + 1, sizeof(*more));
	if (more)
		s->c = more;
	if (!copy || !more) {
		free(copy);
		return -ENOMEM;
	}
	s->c[s->n++] = (struct candidate){.path = copy, .given = given};
	return 0;
}

static int visit_all(struct search *s, struct sop_err *e)
{
	size_t n = s->n - s->visited;
	sop_autofree struct sop_errand **list = calloc(n ? n : 1, sizeof(*list));
	int rc = 0;

	if (!list)
		return sop_fail(e, -ENOMEM, "opening the volume");
	for (size_t i = 0; i < n && !rc; i++) {
		struct sop_visit *v = sop_members_visit_new(s->o, s->c[s->visited + i].path);

		s->c[s->visited + i].visit = v;
		if (v)
			list[i] = &v->errand;
		else
			rc = sop_fail(e, -ENOMEM, "opening the volume");
	}
	if (rc)
		return rc;
	sop_errands_run(list, n, s->m->threads, s->m->timeout_ms);
	for (size_t i = 0; i < n; i++) {
		struct candidate *c = &s->c[s->visited + i];

		if (list[i]->finished) {
			c->rc = c->visit->rc;
			continue;
		}
		c->rc = -ETIMEDOUT;
		sop_errand_put(list[i]);
		c->visit = NULL;
	}
	s->visited = s->n;
	/* A shortage of ours must not make a disk count as missing. */
	for (size_t i = 0; i < s->n; i++)
		if (s->c[i].rc == -ENOMEM)
			return sop_fail(e, -ENOMEM, "opening %s", s->c[i].path);
	return 0;
}

static const struct sop_label *label_of(const struct candidate *c)
{
	return c->visit && !c->rc ? &c->visit->label : NULL;
}

static int candidate_fail(struct sop_err *e, const struct candidate *c)
{
	if (!c->visit)
		return sop_fail(e, -ETIMEDOUT, "%s", c->path);
	if (c->rc == SOP_ENOTVOLUME)
		return sop_say(e, c->rc,
			"%s: holds no sopfs label; is the drive that belongs there mounted?",
			c->path);
	if (c->rc == -ENOENT)
		return sop_say(e, c->rc,
			"%s: no such folder; mount the drive that belongs there, or describe "
			"the volume in /etc/sopfs/NAME.conf",
			c->path);
	return sop_say(e, c->rc, "%s", c->visit->e.text);
}

/* The newest label of the volume that the first labelled path belongs to; find its members. */
static int elect(struct search *s, struct sop_err *e)
{
	const struct candidate *first = NULL;

	s->newest = NULL;
	for (size_t i = 0; i < s->n; i++) {
		const struct sop_label *l = label_of(&s->c[i]);
		char a[160], b[160];

		if (s->c[i].rc == SOP_EVERSION)
			return candidate_fail(e, &s->c[i]);
		if (!l)
			continue;
		if (!first)
			first = &s->c[i];
		if (!sop_uuid_equal(&l->volume_uuid, &label_of(first)->volume_uuid)) {
			if (!s->c[i].given) /* a drive that serves another volume now: missing here
					     */
				continue;
			return sop_say(e, SOP_EFOREIGN, "%s is of %s, but %s is of %s", first->path,
				sop_members_volume_text(a, sizeof(a), label_of(first)),
				s->c[i].path, sop_members_volume_text(b, sizeof(b), l));
		}
		if (!s->newest || l->generation > s->newest->generation)
			s->newest = l;
	}
	for (unsigned j = 0; j < SOP_MEMBERS_MAX; j++)
		s->found[j] = -1;
	for (size_t i = 0; s->newest && i < s->n; i++) {
		const struct sop_label *l = label_of(&s->c[i]);
		const struct sop_member *who;

		if (!l || !sop_uuid_equal(&l->volume_uuid, &s->newest->volume_uuid) ||
			l->index >= s->newest->members)
			continue;
		who = &s->newest->member[l->index];
		if (!who->role || who->state == SOP_MEMBER_REMOVED ||
			!sop_uuid_equal(&who->uuid, &l->disk_uuid))
			continue;
		/* The same disk by two paths, or a copy of it: the newer one counts, else the
		 * first. */
		if (s->found[l->index] < 0 ||
			l->generation > label_of(&s->c[s->found[l->index]])->generation)
			s->found[l->index] = (int)i;
	}
	return 0;
}

static int search_run(struct search *s, const char *const *paths, size_t n, struct sop_err *e)
{
	for (size_t i = 0; i < n; i++)
		if (search_add(s, paths[i], true))
			return sop_fail(e, -ENOMEM, "opening the volume");
	while (s->visited < s->n) {
		int rc = visit_all(s, e);

		if (!rc)
			rc = elect(s, e);
		if (rc)
			return rc;
		for (unsigned j = 0; s->newest && j < s->newest->members; j++)
			if (sop_members_is(&s->newest->member[j]) && s->found[j] < 0 &&
				s->newest->member[j].path[0] &&
				search_add(s, s->newest->member[j].path, false))
				return sop_fail(e, -ENOMEM, "opening the volume");
	}
	if (!s->newest)
		return s->n ? candidate_fail(e, &s->c[0])
			    : sop_say(e, -EINVAL, "no member folder was given");
	return 0;
}

/* Paths given that are of no use: an absent member's place is no error; a wrong folder is. */
static int check_given(const struct search *s, struct sop_err *e)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct candidate *c = &s->c[i];
		bool known = false;

		if (!c->given || !c->rc)
			continue;
		for (unsigned j = 0; j < s->newest->members; j++)
			known = known || (sop_members_is(&s->newest->member[j]) &&
						 strcmp(s->newest->member[j].path, c->path) == 0);
		if (!known && !s->o->degraded)
			return candidate_fail(e, c);
		sop_log(s->m->log, SOP_LOG_WARNING, "members", "op=open path=%s code=%s: %s",
			c->path, sop_err_name(c->rc),
			c->visit ? c->visit->e.text : "does not answer");
	}
	return 0;
}

static void log_ignored(const struct search *s)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct sop_label *l = label_of(&s->c[i]);

		if (!l || (l->index < SOP_MEMBERS_MAX && s->found[l->index] == (int)i))
			continue;
		sop_log(s->m->log, SOP_LOG_WARNING, "members",
			"op=open path=%s code=SOP_EFOREIGN: is not a member of the volume any "
			"more, or "
			"a second copy of one: ignored",
			s->c[i].path);
	}
}

/* --- judging --------------------------------------------------------------- */

/* One that is offline by hand is not used, but for reading alone: judged so before the labels say
 * of others that they are missing. */
static bool is_here(const struct sop_members *m, unsigned i)
{
	return atomic_load(&m->usable[i]) && i + 1 != m->leaving &&
	       (m->read_only || !(m->label.member[i].flags & SOP_MEMBER_BY_HAND));
}

static void missing_text(const struct sop_members *m, char *text, size_t size)
{
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < m->label.members; i++) {
		int n;

		if (!sop_members_is(&m->label.member[i]) || is_here(m, i))
			continue;
		n = snprintf(text + at, size - at, "%s%s", at ? ", " : "", m->label.member[i].path);
		if (n < 0 || (size_t)n >= size - at) {
			snprintf(text + size - 4, 4, "...");
			return;
		}
		at += (size_t)n;
	}
}

/* more: these would be away too (NULL: none). */
static bool beyond_parity_without(const struct sop_members *m, const bool *more)
{
	const struct sop_label *l = &m->label;

	for (unsigned p = 0; p < l->profiles; p++) {
		const struct sop_profile *profile = &l->profile[p];
		unsigned away = 0;

		for (unsigned i = 0; profile->name[0] && i < l->members; i++)
			away += sop_members_profile_has(l, profile, i) &&
				(!is_here(m, i) || (more && more[i]));
		if (profile->name[0] && away > profile->m)
			return true;
	}
	return false;
}

bool sop_members_beyond_parity(const struct sop_members *m)
{
	return beyond_parity_without(m, NULL);
}

bool sop_members_can_spare(struct sop_members *m, const bool *more)
{
	SOP_LOCK_GUARD(&m->lock);
	return !beyond_parity_without(m, more);
}

int sop_members_check_quorum(const struct sop_members *m, bool degraded, struct sop_err *e)
{
	const struct sop_label *l = &m->label;
	unsigned all = 0, here = 0, online = 0, online_here = 0, replicas = 0;
	char missing[MISSING_TEXT], volume[160];
	bool beyond_parity = false;

	missing_text(m, missing, sizeof(missing));
	sop_members_volume_text(volume, sizeof(volume), l);
	for (unsigned i = 0; i < l->members; i++) {
		bool usable = is_here(m, i);

		if (!sop_members_is(&l->member[i]))
			continue;
		all++;
		/* One that is offline by hand is here all the same, and nobody else has it. */
		here += usable || (m->slot[i].at && l->member[i].flags & SOP_MEMBER_BY_HAND);
		/* `given` is the newest label as it was found. */
		online += !sop_members_away(&m->given.member[i]);
		online_here += usable && !sop_members_away(&m->given.member[i]);
		replicas += usable && l->member[i].role & SOP_ROLE_REGISTRY &&
			    l->member[i].current_since;
	}
	for (unsigned p = 0; p < l->profiles; p++) {
		const struct sop_profile *profile = &l->profile[p];
		unsigned disks = 0, there = 0;

		if (!profile->name[0])
			continue;
		for (unsigned i = 0; i < l->members; i++) {
			if (!sop_members_profile_has(l, profile, i))
				continue;
			disks++;
			there += is_here(m, i);
		}
		if (there < profile->k)
			return sop_say(e, SOP_EDISKS,
				"%s: %u of %u disks of profile %s are here, but %u+%u needs %u; "
				"missing: %s",
				volume, there, disks, profile->name, profile->k, profile->m,
				profile->k, missing);
		beyond_parity = beyond_parity || disks - there > profile->m;
	}
	/* Read-only inspection may go on without: it says what is lost. */
	if (!replicas && !(m->read_only && degraded))
		return sop_say(e, SOP_EDISKS,
			"%s: no disk that is here holds a current copy of the registry; missing: "
			"%s",
			volume, missing[0] ? missing : "none");
	if (degraded)
		return 0;
	if (beyond_parity)
		return sop_say(e, SOP_EDISKS,
			"%s: more disks are missing than parity makes up for (%s); -o degraded "
			"goes on "
			"without them, with what can still be read",
			volume, missing);
	if (2 * here <= all)
		return sop_say(e, SOP_EDISKS,
			"%s: only %u of %u disks are here, not a majority (missing: %s); -o "
			"degraded goes "
			"on without them, if nobody else uses them",
			volume, here, all, missing);
	if (here < all && 2 * online_here <= online)
		return sop_say(e, SOP_EDISKS,
			"%s: only %u of the %u disks that were in use last are here (missing: %s), "
			"and "
			"the others may hold newer data; -o degraded goes on without them",
			volume, online_here, online, missing);
	return 0;
}

/* Labels of one generation that differ are of two mounts, one of which was cut off in its first
 * round: believe of each member the worst that any says. */
static void merge(struct sop_members *m, const struct search *s)
{
	for (unsigned j = 0; j < m->label.members; j++) {
		const struct sop_label *l = s->found[j] < 0 ? NULL : label_of(&s->c[s->found[j]]);

		if (!l || l->generation != m->label.generation)
			continue;
		for (unsigned i = 0; i < SOP_MIN(l->members, m->label.members); i++) {
			struct sop_member *who = &m->label.member[i];
			bool whole;

			if (l->member[i].state == SOP_MEMBER_OFFLINE &&
				who->state == SOP_MEMBER_ONLINE)
				who->state = SOP_MEMBER_OFFLINE;
			whole = who->flags & l->member[i].flags & SOP_MEMBER_WHOLE;
			who->flags |= l->member[i].flags;
			if (!whole) /* it is when all say so */
				who->flags &= (uint8_t)~SOP_MEMBER_WHOLE;
			if (!l->member[i].current_since)
				who->current_since = 0;
		}
	}
}

/* See members.c: the label of a member that the newest one calls online can be one round behind. */
static void distrust_set_back(struct sop_members *m, const struct search *s)
{
	for (unsigned i = 0; i < m->label.members; i++) {
		struct sop_member *who = &m->label.member[i];
		const struct sop_label *l = s->found[i] < 0 ? NULL : label_of(&s->c[s->found[i]]);

		if (!l || sop_members_away(who) || who->state == SOP_MEMBER_REMOVED ||
			l->generation + 1 >= m->label.generation)
			continue;
		if (who->current_since)
			sop_log(m->log, SOP_LOG_WARNING, "members",
				"op=open disk=%u path=%s generation=%" PRIu64 " newest=%" PRIu64
				": an old state of this disk, nothing on it is believed before it "
				"is verified",
				i, s->c[s->found[i]].path, l->generation, m->label.generation);
		sop_member_missed(who);
		who->flags |= SOP_MEMBER_SET_BACK;
	}
}

/* The member leaves again, before m is shared. */
static void detach(struct sop_members *m, unsigned i)
{
	atomic_store(&m->usable[i], NULL);
	sop_attached_put(m->slot[i].at);
	m->slot[i].at = NULL;
}

static void detach_all(struct sop_members *m)
{
	for (unsigned i = 0; i < SOP_MEMBERS_MAX; i++)
		detach(m, i);
}

static void adopt(struct sop_members *m, const struct search *s)
{
	detach_all(m);
	m->label = *s->newest;
	m->label.index = 0;
	m->label.disk_uuid = (struct sop_uuid){{0}};
	merge(m, s);
	m->given = m->label;
	atomic_store(&m->count, m->label.members);
	distrust_set_back(m, s);
	for (unsigned i = 0; i < m->label.members; i++) {
		struct sop_visit *v = s->found[i] < 0 ? NULL : s->c[s->found[i]].visit;

		if (!v)
			continue;
		m->slot[i].at = sop_attached_get(v->at);
		m->slot[i].reason[0] = '\0';
		v->at->seen_ms = m->clock->monotonic_ms(m->clock->ctx);
		atomic_store(&m->usable[i], v->at->disk);
	}
}

/* --- locking --------------------------------------------------------------- */

/* Why it is not used, until it is tried again. */
static void say_unlocked(struct sop_members *m, unsigned i, const struct sop_claim *c, int rc)
{
	struct sop_err e = {0};

	if (c->errand.finished)
		(void)sop_say(&e, rc, "%s", c->e.text);
	else
		(void)sop_fail(&e, rc, "%s: lock", m->slot[i].at->disk->name);
	snprintf(m->slot[i].reason, sizeof(m->slot[i].reason), "%.*s", SOP_MEMBER_REASON - 1,
		e.text);
}

/* Lock members [from, to) that are there. 1: a label changed since it was read: search again. A
 * disk that cannot be locked for a reason of its own (read-only, I/O error) is as good as absent.
 */
static int lock_range(struct sop_members *m, const struct search *s, unsigned from, unsigned to,
	bool shared, struct sop_err *e)
{
	struct sop_claim *list[SOP_MEMBERS_MAX] = {NULL};
	struct sop_errand *errands[SOP_MEMBERS_MAX] = {NULL};
	unsigned who[SOP_MEMBERS_MAX] = {0}, n = 0;
	int rc = 0;

	for (unsigned i = from; i < to; i++) {
		if (!m->slot[i].at)
			continue;
		list[n] = sop_members_claim_new(m->slot[i].at, m->claim);
		if (!list[n]) {
			rc = sop_fail(e, -ENOMEM, "opening the volume");
			break;
		}
		list[n]->shared = shared;
		errands[n] = &list[n]->errand;
		who[n++] = i;
	}
	if (!rc)
		sop_errands_run(errands, n, m->threads, m->timeout_ms);
	for (unsigned j = 0; j < n && !rc; j++) {
		const struct sop_label *was = label_of(&s->c[s->found[who[j]]]);
		int own = list[j]->errand.finished ? list[j]->rc : -ETIMEDOUT;

		if (own == SOP_EINUSE || own == -EACCES || own == -EPERM || own == -ENOMEM) {
			rc = sop_say(e, own, "%s", list[j]->e.text);
		} else if (own) {
			sop_log(m->log, SOP_LOG_WARNING, "members",
				"op=lock disk=%u path=%s code=%s: the volume goes on without it",
				who[j], m->slot[who[j]].at->disk->name, sop_err_name(own));
			say_unlocked(m, who[j], list[j], own);
			detach(m, who[j]);
		} else if (list[j]->label.generation != was->generation ||
			   !sop_uuid_equal(&list[j]->label.volume_uuid, &was->volume_uuid)) {
			rc = 1;
		}
	}
	for (unsigned j = 0; j < n; j++)
		sop_errand_put(errands[j]);
	return rc;
}

/* The first member's lock decides between two that come at once, so that one of them gets in. */
static int lock_all(struct sop_members *m, const struct search *s, bool shared, struct sop_err *e)
{
	unsigned first = 0;
	int rc;

	while (first < m->label.members && !m->slot[first].at)
		first++;
	if (first == m->label.members)
		return 0;
	rc = lock_range(m, s, first, first + 1, shared, e);
	return rc ? rc : lock_range(m, s, first + 1, m->label.members, shared, e);
}

static void unlock_all(struct sop_members *m)
{
	for (unsigned i = 0; i < m->label.members; i++) {
		struct sop_attached *a = m->slot[i].at;

		if (a && a->lock_file)
			a->lock_file->ops->file_close(a->lock_file);
		if (a)
			a->lock_file = NULL;
	}
}

/* Alone, or when others are in a shared volume, beside them. SOP_EINUSE: neither now. */
static int lock_as_can_be(struct sop_members *m, const struct search *s, struct sop_err *e)
{
	int rc = lock_all(m, s, false, e);

	if (rc != SOP_EINUSE || s->o->exclusive || !(m->label.flags & SOP_LABEL_SHARED))
		return rc;
	unlock_all(m);
	rc = lock_all(m, s, true, e);
	if (rc)
		unlock_all(m);
	else
		m->joined = true;
	return rc;
}

/* --- opening --------------------------------------------------------------- */

/* A crash in a round leaves members one generation behind. Bring them up before the next round
 * begins: two cut-off rounds in a row must not make a good member look like one that was set back.
 */
static void catch_up(struct sop_members *m, const struct search *s)
{
	for (unsigned i = 0; i < m->label.members; i++) {
		const struct sop_label *l = s->found[i] < 0 ? NULL : label_of(&s->c[s->found[i]]);

		if (!l || !m->slot[i].at || sop_members_away(&m->label.member[i]) ||
			l->generation == m->label.generation)
			continue;
		m->label.generation--; /* the round to come raises it to what it was */
		m->change_seq++;
		return;
	}
}

static void bring_up_to_date(struct sop_members *m)
{
	for (unsigned i = 0; i < m->label.members; i++) {
		struct sop_member *who = &m->label.member[i];

		if (!sop_members_is(who))
			continue;
		if (m->slot[i].at && who->flags & SOP_MEMBER_BY_HAND) {
			/* Here, and locked, but not to be used. */
			m->slot[i].aside = true;
			atomic_store(&m->usable[i], NULL);
			sop_member_missed(who);
			continue;
		}
		if (m->slot[i].at) {
			who->flags &= (uint8_t)~SOP_MEMBER_AWAY;
			if (who->state == SOP_MEMBER_OFFLINE)
				who->state = SOP_MEMBER_ONLINE;
			if (strlen(m->slot[i].at->disk->name) < sizeof(who->path))
				snprintf(who->path, sizeof(who->path), "%s",
					m->slot[i].at->disk->name);
			continue;
		}
		if (who->state == SOP_MEMBER_ONLINE)
			who->state = SOP_MEMBER_OFFLINE;
		else
			who->flags |= SOP_MEMBER_AWAY;
		sop_member_missed(who);
	}
}

static void log_absent(const struct sop_members *m)
{
	for (unsigned i = 0; i < m->label.members; i++)
		if (sop_members_is(&m->label.member[i]) && !m->slot[i].at)
			sop_log(m->log, SOP_LOG_WARNING, "members",
				"op=open disk=%u path=%s code=%s: absent, the volume is degraded",
				i, m->label.member[i].path, sop_err_name(-ENODEV));
}

/* Members that the newest label knows and that have been found; all of them. */
static unsigned count_here(const struct search *s, unsigned *all)
{
	unsigned here = 0;

	*all = 0;
	for (unsigned j = 0; s->newest && j < s->newest->members; j++) {
		*all += sop_members_is(&s->newest->member[j]);
		here += sop_members_is(&s->newest->member[j]) && s->found[j] >= 0;
	}
	return here;
}

/* Disks that are late (an enclosure spins up, a mount unit has not run): search until all are
 * there, or the time is up. Nothing is locked or written meanwhile, and whatever the last search
 * finds is judged as ever. */
static void wait_for_absent(struct search *s, const char *const *paths, size_t n)
{
	const struct sop_members_opts *o = s->o;
	const struct sop_clock *clock = s->m->clock;
	uint64_t until = clock->monotonic_ms(clock->ctx) + o->wait_ms;
	const struct timespec pause = {.tv_nsec = WAIT_STEP_MS * 1000000L};
	unsigned here, all;

	for (;;) {
		int rc = search_run(s, paths, n, NULL);

		/* Waiting makes no other volume of it, and no older format. */
		if (rc == SOP_EFOREIGN || rc == SOP_EVERSION)
			return;
		here = count_here(s, &all);
		if ((!rc && here == all) || clock->monotonic_ms(clock->ctx) >= until)
			return;
		if (o->progress)
			o->progress(o->progress_ctx, "waiting for disks", here, all);
		nanosleep(&pause, NULL);
		search_release(s);
	}
}

/* Commits of a shared volume are in slots, which more than half of the replicas have to tell.
 * Without them it cannot be opened, so their labels are not to say that those not here are old. */
static int check_slots(const struct sop_members *m, struct sop_err *e)
{
	const struct sop_label *l = &m->label;
	char missing[MISSING_TEXT], volume[160];
	unsigned all = 0, here = 0;

	if (!(l->flags & SOP_LABEL_SHARED) || m->read_only)
		return 0;
	for (unsigned i = 0; i < l->members; i++) {
		if (!sop_members_is(&l->member[i]) || !(l->member[i].role & SOP_ROLE_REGISTRY))
			continue;
		all++;
		here += m->slot[i].at != NULL;
	}
	if (2 * here > all)
		return 0;
	missing_text(m, missing, sizeof(missing));
	sop_members_volume_text(volume, sizeof(volume), l);
	return sop_say(e, SOP_EDISKS,
		"%s: %u of the %u disks that hold the registry are here, and a shared volume needs "
		"more than half (missing: %s); bring them back",
		volume, here, all, missing);
}

static int check_all(const struct sop_members *m, bool degraded, struct sop_err *e)
{
	int rc = sop_members_check_quorum(m, degraded, e);

	return rc ? rc : check_slots(m, e);
}

/* Search, lock, judge once. 1: something moved meanwhile. */
static int try_open(struct sop_members *m, struct search *s, const char *const *paths, size_t n,
	struct sop_err *e)
{
	const struct sop_members_opts *o = s->o;
	int rc = search_run(s, paths, n, e);

	if (!rc)
		rc = check_given(s, e);
	if (rc)
		return rc;
	if (!o->read_only && s->newest->ro_compat & ~SOP_RO_COMPAT_KNOWN)
		return sop_say(e, SOP_EVERSION,
			"the volume uses features %#llx that this program (format version %d) can "
			"only "
			"read; -o ro, or a newer sopfs",
			(unsigned long long)(s->newest->ro_compat & ~SOP_RO_COMPAT_KNOWN),
			SOP_FORMAT_VERSION);
	adopt(m, s);
	rc = check_all(m, o->degraded, e);
	if (rc || o->read_only)
		return rc;
	rc = lock_as_can_be(m, s, e);
	/* Some may have been lost to locking. */
	return rc ? rc : check_all(m, o->degraded, e);
}

static int members_new(
	struct sop_members **out, const struct sop_members_opts *o, struct sop_err *e)
{
	struct sop_members *m = calloc(1, sizeof(*m));

	if (!m)
		return sop_fail(e, -ENOMEM, "opening the volume");
	m->opening = true;
	m->read_only = o->read_only;
	m->threads = !o->open_disk || o->threads;
	m->timeout_ms = o->disk_timeout_ms ? o->disk_timeout_ms : TIMEOUT_DEFAULT_MS;
	m->call_ms = SOP_MAX(m->timeout_ms / 3 * 2, 1u);
	m->label_ms = SOP_MAX(m->timeout_ms / 4, 1u);
	m->log = o->log;
	m->clock = o->clock ? o->clock : &sop_clock_system;
	m->open_disk = o->open_disk;
	m->open_disk_ctx = o->open_disk_ctx;
	sop_members_claim(m->claim, sizeof(m->claim), m->clock);
	sop_lock_init(&m->lock, SOP_RANK_LEAF, "members");
	sop_cond_init(&m->settled);
	*out = m;
	return 0;
}

/* Somebody who recovers a shared volume is alone in it meanwhile, and lets others in afterwards. */
static int open_patiently(struct sop_members *m, struct search *s, const char *const *paths,
	size_t n, struct sop_err *e)
{
	const struct timespec pause = {.tv_nsec = WAIT_STEP_MS * 1000000L};
	uint64_t until = m->clock->monotonic_ms(m->clock->ctx) + SHARE_WAIT_MS;
	int rc = 1;

	for (int i = 0; i < TRIES && rc == 1; i++) {
		search_release(s);
		detach_all(m);
		m->joined = false;
		rc = try_open(m, s, paths, n, e);
		if (rc != SOP_EINUSE || s->o->exclusive || !s->newest ||
			!(s->newest->flags & SOP_LABEL_SHARED) || !m->threads ||
			m->clock->monotonic_ms(m->clock->ctx) >= until)
			continue;
		nanosleep(&pause, NULL);
		i = -1;
		rc = 1;
	}
	return rc;
}

bool sop_members_joined(const struct sop_members *m)
{
	return m->joined;
}

void sop_members_own_claim(const struct sop_members *m, char *text, size_t size)
{
	snprintf(text, size, "%.*s", (int)strcspn(m->claim, "\n"), m->claim);
}

struct share {
	struct sop_errand errand;
	struct sop_attached *at;
	int rc;
};

static void share_run(struct sop_errand *x)
{
	struct share *s = (struct share *)x;

	s->rc = s->at->lock_file->ops->lock_shared(s->at->lock_file);
}

static void share_release(struct sop_errand *x)
{
	struct share *s = (struct share *)x;

	sop_attached_put(s->at);
	free(s);
}

/* Also of those that are set aside: the lock of one keeps everybody out. */
static int share_all(struct sop_members *m)
{
	struct share *list[SOP_MEMBERS_MAX] = {NULL};
	struct sop_errand *errands[SOP_MEMBERS_MAX] = {NULL};
	unsigned who[SOP_MEMBERS_MAX] = {0}, n = 0;
	int rc = 0;

	for (unsigned i = 0; i < m->label.members && !rc; i++) {
		struct sop_attached *a = m->slot[i].at;

		if (!a || !a->lock_file)
			continue;
		list[n] = calloc(1, sizeof(*list[n]));
		if (!list[n]) {
			rc = -ENOMEM;
			break;
		}
		sop_errand_init(&list[n]->errand, share_run, share_release);
		list[n]->at = sop_attached_get(a);
		errands[n] = &list[n]->errand;
		who[n++] = i;
	}
	if (!rc)
		sop_errands_run(errands, n, m->threads, m->timeout_ms);
	for (unsigned j = 0; j < n && !rc; j++) {
		int own = list[j]->errand.finished ? list[j]->rc : -ETIMEDOUT;

		/* One that does not answer is not waited for. */
		rc = own == -EAGAIN || !m->slot[who[j]].aside ? own : 0;
	}
	for (unsigned j = 0; j < n; j++)
		sop_errand_put(errands[j]);
	return rc;
}

/* Between a lock given up and the other taken somebody may have been alone: then the labels are not
 * what was stored last. Who is alone has stored them on more than half of the disks, so as many of
 * ours tell; one that cannot be read now is met again by whoever wants something of it. */
static int labels_are_ours(struct sop_members *m, struct sop_err *e)
{
	unsigned asked = 0, same = 0;
	struct sop_err why = {0};

	for (unsigned i = 0; i < m->label.members; i++) {
		struct sop_attached *a = m->slot[i].at;
		struct sop_label l;

		if (!a || !a->lock_file || m->slot[i].aside)
			continue;
		asked++;
		if (sop_label_load(&l, a->disk, &why))
			continue;
		if (l.generation != m->label.generation)
			return sop_say(e, SOP_EINUSE,
				"%s: another mounter has taken the volume over; mount it again",
				a->disk->name);
		same++;
	}
	return 2 * same > asked ? 0 : sop_say(e, why.code ? why.code : SOP_EDISKS, "%s", why.text);
}

int sop_members_share(struct sop_members *m, struct sop_err *e)
{
	const struct timespec pause = {.tv_nsec = WAIT_STEP_MS * 1000000L};
	uint64_t until = m->clock->monotonic_ms(m->clock->ctx) + SHARE_WAIT_MS;
	int rc;

	/* Whoever slips in has one lock and lacks the others, which we hold. */
	while ((rc = share_all(m)) == -EAGAIN && m->clock->monotonic_ms(m->clock->ctx) < until)
		nanosleep(&pause, NULL);
	if (rc)
		return rc == -EAGAIN ? sop_fail(e, SOP_EINUSE, "sharing the volume")
				     : sop_fail(e, rc, "sharing the volume");
	m->joined = true;
	return labels_are_ours(m, e);
}

int sop_members_open(struct sop_members **out, const char *const *paths, size_t n,
	const struct sop_members_opts *o, struct sop_err *e)
{
	struct sop_members *m = NULL;
	struct search s = {.o = o};
	int rc;

	*out = NULL;
	if (o->no_lock && !o->read_only)
		return sop_say(e, -EINVAL, "only a read-only look can do without the lock");
	rc = members_new(&m, o, e);
	if (rc)
		return rc;
	s.m = m;
	if (o->wait_ms)
		wait_for_absent(&s, paths, n);
	rc = open_patiently(m, &s, paths, n, e);
	if (rc == 1)
		rc = sop_say(
			e, SOP_EINUSE, "the volume is being opened and closed by somebody else");
	if (rc)
		goto out;
	log_ignored(&s);
	log_absent(m);
	if (m->joined) {
		/* In memory alone: the labels are everybody's. */
		bring_up_to_date(m);
	} else if (!o->read_only) {
		catch_up(m, &s);
		rc = sop_members_store_labels(m, m->change_seq, e);
		if (rc)
			goto out;
		sop_lock(&m->lock);
		bring_up_to_date(m);
		m->change_seq++;
		sop_unlock(&m->lock);
		rc = sop_members_store_labels(m, m->change_seq, e);
		/* Nobody may start on labels that are on too few disks. */
		if (!rc)
			rc = sop_members_check_quorum(m, o->degraded, e);
		if (rc)
			goto out;
	}
	m->given = m->label;
	atomic_store(&m->count, m->label.members);
	m->epoch = m->label.generation;
	m->opening = false;
out:
	search_release(&s);
	if (rc) {
		sop_members_close(m);
		return rc;
	}
	*out = m;
	return 0;
}
