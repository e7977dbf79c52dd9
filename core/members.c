#include "core/members_own.h"

#include <inttypes.h>
#include <stdio.h>

/* Who is believed after a crash.
 *
 * Labels are stored in rounds. A round raises the generation by one and stores one label on every
 * member that is not set aside; whoever does not take it is set aside, and another round says so. A
 * round begins only when the one before has ended. So, for the newest label there is, of generation
 * G: every member it calls ONLINE has stored G - 1 at least. A member that it calls ONLINE with an
 * older label than that was not merely cut off by a crash between two stores: its folder has been
 * set back (restored from an old image), and nothing on it is believed. So that an image of the
 * same mount shows by that, a mount that ends well ends with two more rounds.
 *
 * Nothing is committed without a member before a round has recorded its absence: the caller of
 * sop_members_event() waits for it. What a crash in the middle of a round leaves is a label that
 * some have and some have not; either is true, for nothing was built on it yet.
 *
 * Two mounts may give out one generation when the first was cut off in its very first round, on
 * members that the second does not see. Nothing was written by the first then; labels of the same
 * generation that differ are merged to the less trusting (members_open.c).
 *
 * The lock is a leaf, and never held across I/O: rounds are serialised by the flag `storing`. */

/* --- attached folders ------------------------------------------------------ */

struct sop_attached *sop_attached_new(struct sop_disk *d)
{
	struct sop_attached *a = calloc(1, sizeof(*a));

	if (!a) {
		sop_disk_close(d);
		return NULL;
	}
	atomic_init(&a->refs, 1);
	atomic_init(&a->storing, false);
	a->disk = d;
	sop_lock_init(&a->lock, SOP_RANK_LEAF, "member folder");
	return a;
}

struct sop_attached *sop_attached_get(struct sop_attached *a)
{
	atomic_fetch_add(&a->refs, 1);
	return a;
}

void sop_attached_put(struct sop_attached *a)
{
	if (!a || atomic_fetch_sub(&a->refs, 1) != 1)
		return;
	if (a->lock_file)
		a->lock_file->ops->file_close(a->lock_file);
	sop_disk_close(a->disk);
	sop_lock_release(&a->lock);
	free(a);
}

/* --- storing labels -------------------------------------------------------- */

struct store {
	struct sop_errand errand;
	struct sop_attached *at;
	unsigned member;
	int rc;
	struct sop_err e;
	struct sop_label label;
};

/* A shortage of ours must not cost a disk: what it stops is tried again in a moment. */
#define MEMORY_TRIES 6u

static void wait_for_memory(unsigned tries)
{
	struct timespec pause = {.tv_nsec = 1000000l << tries};

	nanosleep(&pause, NULL);
}

static void store_run(struct sop_errand *x)
{
	struct store *s = (struct store *)x;

	if (atomic_exchange(&s->at->storing, true)) {
		/* A store given up for hung may still wake up: another one beside it could end
		 * with the older label in both copies. */
		s->rc = sop_say(&s->e, -EBUSY, "%s: a label write still hangs", s->at->disk->name);
		return;
	}
	s->rc = sop_label_store(s->at->disk, &s->label, &s->e);
	for (unsigned i = 0; s->rc == -ENOMEM && i < MEMORY_TRIES; i++) {
		wait_for_memory(i);
		s->rc = sop_label_store(s->at->disk, &s->label, &s->e);
	}
	atomic_store(&s->at->storing, false);
}

static void store_release(struct sop_errand *x)
{
	struct store *s = (struct store *)x;

	sop_attached_put(s->at);
	free(s);
}

void sop_members_label_for(struct sop_label *out, const struct sop_members *m, unsigned i)
{
	*out = m->label;
	out->index = (uint16_t)i;
	out->disk_uuid = m->label.member[i].uuid;
}

static struct store *store_new(const struct sop_members *m, unsigned i)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	sop_errand_init(&s->errand, store_run, store_release);
	s->at = sop_attached_get(m->slot[i].at);
	s->member = i;
	return s;
}

/* Under the lock. One for each member that is here; failed: where memory is short. True: nowhere.
 */
static bool stores_new(struct sop_members *m, struct store **list, unsigned *n, bool *failed)
{
	bool all = true;

	*n = 0;
	for (unsigned i = 0; i < m->label.members; i++) {
		failed[i] = false;
		if (!atomic_load(&m->usable[i]))
			continue;
		list[*n] = store_new(m, i);
		failed[i] = !list[*n];
		*n += !failed[i];
		all = all && !failed[i];
	}
	return all;
}

#define RETRY_MIN_MS 2000u
#define RETRY_MAX_MS 300000u
#define CALM_MS	     600000u /* who has been fine for so long is believed to be well */

/* Under the lock. One that comes and goes is tried ever more rarely. */
static void schedule_retry(struct sop_members *m, struct sop_slot *s)
{
	uint64_t now = m->clock->monotonic_ms(m->clock->ctx);

	if (s->back_ms && now - s->back_ms > CALM_MS)
		s->retry_wait_ms = 0;
	s->retry_wait_ms =
		SOP_MIN(SOP_MAX(2 * s->retry_wait_ms, (unsigned)RETRY_MIN_MS), RETRY_MAX_MS);
	s->retry_ms = now + s->retry_wait_ms;
}

/* Under the lock. The change number after which the media know that member i is set aside. */
static uint64_t set_aside(struct sop_members *m, unsigned i)
{
	struct sop_member *who = &m->label.member[i];
	bool others = false;

	if (m->slot[i].aside)
		return m->slot[i].aside_seq;
	m->slot[i].aside = true;
	atomic_store(&m->usable[i], NULL);
	for (unsigned j = 0; j < m->label.members; j++)
		others = others || (j != i && atomic_load(&m->usable[j]) &&
					   m->label.member[j].role & SOP_ROLE_REGISTRY &&
					   m->label.member[j].current_since);
	if (who->state == SOP_MEMBER_ONLINE)
		who->state = SOP_MEMBER_OFFLINE;
	else
		who->flags |= SOP_MEMBER_AWAY;
	m->slot[i].seen_ns = m->clock->wall_ns(m->clock->ctx);
	schedule_retry(m, &m->slot[i]);
	if (others)
		who->current_since = 0;
	who->flags &= (uint8_t)~SOP_MEMBER_WHOLE;
	m->slot[i].aside_seq = ++m->change_seq;
	return m->slot[i].aside_seq;
}

/* Under the lock. */
static void say_reason(struct sop_members *m, unsigned i, const char *op, int rc)
{
	snprintf(m->slot[i].reason, sizeof(m->slot[i].reason), "%s: %s", op, sop_err_text(rc));
}

static void log_aside(const struct sop_members *m, unsigned i, const char *op, int rc)
{
	sop_log(m->log, SOP_LOG_WARNING, "members",
		"op=%s disk=%u path=%s code=%s: set aside, the volume goes on without it", op, i,
		m->given.member[i].path, sop_err_name(rc));
}

/* Before anything has been built on it a round may be left as a crash leaves it, and made again. A
 * shortage of ours must not make a disk count as missing. */
static bool short_while_opening(const struct sop_members *m, const bool *failed, const int *rcs)
{
	bool any = false;

	for (unsigned i = 0; i < m->label.members && m->opening; i++)
		any = any || (failed[i] && rcs[i] == -ENOMEM);
	return any;
}

/* One round, with m->storing held. The number of members that have the label now. -ENOMEM, while
 * opening: not all have, and nobody is set aside. */
static int store_round(struct sop_members *m)
{
	struct store *list[SOP_MEMBERS_MAX];
	struct sop_errand *errands[SOP_MEMBERS_MAX];
	int rcs[SOP_MEMBERS_MAX];
	bool failed[SOP_MEMBERS_MAX] = {false};
	unsigned n, taker[SOP_MEMBERS_MAX], tries = 0;
	uint64_t seq, generation;
	int stored = 0;

	sop_lock(&m->lock);
	while (!stores_new(m, list, &n, failed) && tries < MEMORY_TRIES) {
		sop_unlock(&m->lock);
		while (n)
			sop_errand_put(&list[--n]->errand);
		wait_for_memory(tries++);
		sop_lock(&m->lock);
	}
	generation = ++m->label.generation;
	seq = m->change_seq;
	for (unsigned j = 0; j < n; j++) {
		sop_members_label_for(&list[j]->label, m, list[j]->member);
		errands[j] = &list[j]->errand;
	}
	/* Who has none counts as a member that does not take the label. */
	for (unsigned i = 0; i < m->label.members; i++)
		rcs[i] = -ENOMEM;
	sop_unlock(&m->lock);

	sop_errands_run(errands, n, m->threads, m->label_ms);

	for (unsigned j = 0; j < n; j++) {
		unsigned i = taker[j] = list[j]->member;

		rcs[i] = list[j]->errand.finished ? list[j]->rc : -ETIMEDOUT;
		failed[i] = rcs[i] != 0;
		stored += !failed[i];
		sop_errand_put(errands[j]);
	}
	if (short_while_opening(m, failed, rcs))
		return -ENOMEM;
	sop_lock(&m->lock);
	for (unsigned j = 0; j < n; j++)
		if (!failed[taker[j]])
			m->slot[taker[j]].stored = generation;
	for (unsigned i = 0; i < m->label.members; i++) {
		if (failed[i] && !m->slot[i].aside) {
			m->slot[i].write_errors++;
			set_aside(m, i);
			say_reason(m, i, "label", rcs[i]);
		}
	}
	m->stored_seq = seq;
	sop_unlock(&m->lock);
	for (unsigned i = 0; i < SOP_MEMBERS_MAX; i++)
		if (failed[i])
			log_aside(m, i, "label", rcs[i]);
	return stored;
}

/* Each round that ends short of success sets a member aside, so there are at most as many as
 * members. */
int sop_members_store_labels(struct sop_members *m, uint64_t seq, struct sop_err *e)
{
	int stored = 1;

	if (m->read_only || m->joined)
		return 0;
	sop_lock(&m->lock);
	while (stored > 0 && m->stored_seq < seq) {
		if (m->storing) {
			sop_cond_wait(&m->settled, &m->lock, -1);
			continue;
		}
		m->storing = true;
		sop_unlock(&m->lock);
		stored = store_round(m);
		sop_lock(&m->lock);
		/* Whoever did not take this round is recorded by the next one, before anybody who
		 * needs this one goes on. */
		seq = SOP_MAX(seq, m->change_seq);
		m->storing = false;
		pthread_cond_broadcast(&m->settled);
	}
	sop_unlock(&m->lock);
	if (stored < 0)
		return sop_fail(e, stored, "labels of the volume");
	return stored ? 0 : sop_say(e, -EIO, "no disk of the volume takes a label any more");
}

/* --- events ---------------------------------------------------------------- */

#define ERRORS_MAX 100u /* reads that fail within ERRORS_MS set a disk aside */
#define ERRORS_MS  30000u

static bool is_full(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT;
}

static bool is_timeout(int rc)
{
	return rc == -ETIMEDOUT || rc == SOP_ETIMEOUT;
}

/* Under the lock. A disk none of whose sectors can be read is better left alone: each read of it
 * costs the device's own retries. */
static bool too_many_errors(struct sop_members *m, unsigned i)
{
	struct sop_slot *s = &m->slot[i];
	uint64_t now = m->clock->monotonic_ms(m->clock->ctx);

	if (!s->errors || now - s->errors_ms > ERRORS_MS) {
		s->errors_ms = now;
		s->errors = 0;
	}
	return ++s->errors >= ERRORS_MAX;
}

/* Under the lock. The change after which the media know that it is set aside; 0: it is not. */
static uint64_t take_note(
	struct sop_members *m, unsigned i, enum sop_member_event what, int rc, bool *news)
{
	bool aside = false;

	*news = false;
	if (what == SOP_EVENT_CHECKSUM) {
		m->slot[i].checksum_errors++;
	} else if (what == SOP_EVENT_READ) {
		m->slot[i].read_errors++;
		aside = is_timeout(rc) || too_many_errors(m, i);
	} else if (is_full(rc)) {
		if (!m->slot[i].full)
			m->slot[i].full_free = UINT64_MAX;
		m->slot[i].full = true;
		m->slot[i].full_ms = m->clock->monotonic_ms(m->clock->ctx);
	} else {
		m->slot[i].write_errors++;
		aside = true;
	}
	if (!aside || !m->slot[i].at)
		return 0;
	*news = !m->slot[i].aside;
	if (*news)
		say_reason(m, i, what == SOP_EVENT_READ ? "read" : "write", rc);
	return set_aside(m, i);
}

void sop_members_note(struct sop_members *m, unsigned i, enum sop_member_event what, int rc)
{
	const char *op = what == SOP_EVENT_READ ? "read" : "write";
	bool news = false;

	assert(i < sop_members_count(m));
	if (what == SOP_EVENT_CHECKSUM || (what == SOP_EVENT_WRITE && is_full(rc)))
		return; /* sets nobody aside: the event alone counts it */
	sop_lock(&m->lock);
	if (!m->slot[i].aside && m->slot[i].at && (what == SOP_EVENT_WRITE || is_timeout(rc))) {
		news = true;
		say_reason(m, i, op, rc);
		(void)set_aside(m, i);
	}
	sop_unlock(&m->lock);
	if (news)
		log_aside(m, i, op, rc);
}

void sop_members_event(struct sop_members *m, unsigned i, enum sop_member_event what, int rc)
{
	bool news = false;
	uint64_t seq;

	assert(i < sop_members_count(m));
	sop_lock(&m->lock);
	seq = take_note(m, i, what, rc, &news);
	sop_unlock(&m->lock);
	if (news)
		log_aside(m, i, what == SOP_EVENT_READ ? "read" : "write", rc);
	/* It fails when there is nobody left to tell; then nobody is left to commit with either. */
	if (seq && sop_members_store_labels(m, seq, NULL) && news)
		sop_log(m->log, SOP_LOG_ERROR, "members",
			"op=label disk=%u code=EIO: no disk is left to record that it is set aside",
			i);
}

unsigned sop_members_replicas(struct sop_members *m, unsigned *idx)
{
	unsigned n = 0;

	SOP_LOCK_GUARD(&m->lock);
	for (unsigned i = 0; i < m->label.members; i++)
		if (atomic_load(&m->usable[i]) && m->label.member[i].role & SOP_ROLE_REGISTRY &&
			m->label.member[i].current_since)
			idx[n++] = i;
	return n;
}

bool sop_members_behind(struct sop_members *m, unsigned i)
{
	SOP_LOCK_GUARD(&m->lock);
	return i >= m->label.members ||
	       !(m->label.member[i].current_since || m->label.member[i].flags & SOP_MEMBER_WHOLE);
}

bool sop_members_set_back(struct sop_members *m, unsigned i)
{
	SOP_LOCK_GUARD(&m->lock);
	return i < m->label.members && m->label.member[i].flags & SOP_MEMBER_SET_BACK;
}

void sop_members_set_back_noted(struct sop_members *m, unsigned i)
{
	SOP_LOCK_GUARD(&m->lock);
	m->slot[i].noted = true;
}

/* Under the lock. */
static uint64_t stay_of(const struct sop_members *m, unsigned i)
{
	return m->slot[i].returns + 1;
}

uint64_t sop_members_stay(struct sop_members *m, unsigned i)
{
	SOP_LOCK_GUARD(&m->lock);
	return stay_of(m, i);
}

int sop_members_replica_current(struct sop_members *m, unsigned i, uint64_t stay, struct sop_err *e)
{
	uint64_t seq;
	int rc;

	assert(i < sop_members_count(m));
	sop_lock(&m->lock);
	if (!atomic_load(&m->usable[i])) {
		sop_unlock(&m->lock);
		return sop_say(e, -ENODEV, "%s: is not here to be brought up to date",
			m->given.member[i].path);
	}
	if (m->label.member[i].current_since) {
		sop_unlock(&m->lock);
		return 0;
	}
	if (stay_of(m, i) != stay) {
		sop_unlock(&m->lock);
		return sop_say(e, -EAGAIN, "%s: was set aside meanwhile", m->given.member[i].path);
	}
	/* Taken in again since its shards were looked through. */
	if (m->label.member[i].flags & SOP_MEMBER_SET_BACK && !m->slot[i].noted &&
		m->label.member[i].role & SOP_ROLE_DATA) {
		sop_unlock(&m->lock);
		return sop_say(e, -EAGAIN, "%s: its shards have not been looked through",
			m->given.member[i].path);
	}
	m->label.member[i].flags &= (uint8_t) ~(SOP_MEMBER_SET_BACK | SOP_MEMBER_WHOLE);
	/* The round that stores it has this generation or a later one. */
	m->label.member[i].current_since = m->label.generation + 1;
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	rc = sop_members_store_labels(m, seq, e);
	if (!rc && !atomic_load(&m->usable[i]))
		rc = sop_say(e, -EIO, "%s: was set aside again", m->given.member[i].path);
	return rc;
}

/* Under the lock. Others use it, without the lock, until it is decided. */
static int check_leaving(struct sop_members *m, unsigned i, struct sop_err *e)
{
	int rc;

	m->leaving = i + 1;
	rc = sop_members_check_quorum(m, true, e);
	if (!rc && sop_members_beyond_parity(m))
		rc = sop_say(e, SOP_EDISKS, "more disks would be away than parity makes up for");
	m->leaving = 0;
	return rc ? sop_wrap(e, rc, "%s: is needed", m->given.member[i].path) : 0;
}

int sop_members_may_go(struct sop_members *m, unsigned i, struct sop_err *e)
{
	assert(i < sop_members_count(m));
	SOP_LOCK_GUARD(&m->lock);
	return check_leaving(m, i, e);
}

int sop_members_offline(struct sop_members *m, unsigned i, struct sop_err *e)
{
	uint64_t seq;
	int rc;

	assert(i < sop_members_count(m));
	/* An image of it that was taken before shows when it comes back. */
	if (!m->read_only && sop_members_disk(m, i))
		sop_members_part(m);
	sop_lock(&m->lock);
	/* One that has failed, or is missing, too: it would not be taken in again by itself, not
	 * even at the next mount, and may hold the last current replica. */
	rc = check_leaving(m, i, e);
	if (rc) {
		sop_unlock(&m->lock);
		return rc;
	}
	if (atomic_load(&m->usable[i])) {
		(void)set_aside(m, i);
		snprintf(m->slot[i].reason, sizeof(m->slot[i].reason), "taken offline by hand");
	}
	m->label.member[i].flags |= SOP_MEMBER_BY_HAND;
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	return sop_members_store_labels(m, seq, e);
}

void sop_members_clear(struct sop_members *m, unsigned i)
{
	assert(i < sop_members_count(m));
	SOP_LOCK_GUARD(&m->lock);
	m->slot[i].read_errors = m->slot[i].write_errors = m->slot[i].checksum_errors = 0;
}

void sop_members_repaired(struct sop_members *m, unsigned i, uint64_t bytes)
{
	assert(i < SOP_MEMBERS_MAX);
	SOP_LOCK_GUARD(&m->lock);
	m->slot[i].repaired_bytes += bytes;
}

/* --- looking --------------------------------------------------------------- */

const struct sop_label *sop_members_label(const struct sop_members *m)
{
	return &m->given;
}

uint64_t sop_members_epoch(const struct sop_members *m)
{
	return m->epoch;
}

unsigned sop_members_count(const struct sop_members *m)
{
	return atomic_load(&m->count);
}

unsigned sop_members_timeout_ms(const struct sop_members *m)
{
	return m->call_ms;
}

const struct sop_log *sop_members_log(const struct sop_members *m)
{
	return m->log;
}

const struct sop_clock *sop_members_clock(const struct sop_members *m)
{
	return m->clock;
}

struct sop_disk *sop_members_disk(struct sop_members *m, unsigned i)
{
	assert(i < SOP_MEMBERS_MAX);
	return atomic_load(&m->usable[i]);
}

struct sop_disk *sop_members_disk_any(struct sop_members *m, unsigned i)
{
	assert(i < SOP_MEMBERS_MAX);
	SOP_LOCK_GUARD(&m->lock);
	return m->slot[i].at ? m->slot[i].at->disk : NULL;
}

bool sop_members_profile_has(const struct sop_label *l, const struct sop_profile *p, unsigned i)
{
	static const uint8_t every[SOP_PROFILE_DISKS];
	const struct sop_member *who = &l->member[i];

	if (!(who->role & SOP_ROLE_DATA) || who->state == SOP_MEMBER_REMOVED)
		return false;
	return memcmp(p->disks, every, sizeof(every)) == 0 || p->disks[i / 8] >> (i % 8) & 1;
}

const char *sop_members_volume_text(char *text, size_t size, const struct sop_label *l)
{
	char uuid[SOP_UUID_TEXT];

	sop_uuid_format(uuid, &l->volume_uuid);
	if (l->name[0])
		snprintf(text, size, "volume %s (label \"%s\")", uuid, l->name);
	else
		snprintf(text, size, "volume %s", uuid);
	return text;
}

/* Two rounds: see above, "Who is believed". That they fail is no trouble of the volume. */
void sop_members_part(struct sop_members *m)
{
	for (unsigned i = 0; i < 2 && !m->joined; i++) {
		uint64_t seq;

		sop_lock(&m->lock);
		seq = ++m->change_seq;
		sop_unlock(&m->lock);
		if (sop_members_store_labels(m, seq, NULL))
			return;
	}
}

void sop_members_close(struct sop_members *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < SOP_MEMBERS_MAX; i++) {
		struct sop_attached *a = m->slot[i].at;

		/* The claim goes with the lock, so that a lock that another program holds later is
		 * not put down to us. Nothing depends on it: a failure is fine. A disk set aside
		 * may hang and is not touched. */
		if (a && a->lock_file && !m->slot[i].aside) {
			if (!m->joined)
				(void)a->lock_file->ops->truncate(a->lock_file, 0);
			/* The thread of a label store that has ended may hold `a` a moment longer,
			 * and is not to hold the lock with it. */
			a->lock_file->ops->file_close(a->lock_file);
			a->lock_file = NULL;
		}
		sop_attached_put(a);
		sop_errand_put(m->slot[i].hung);
	}
	while (m->retired) {
		struct sop_retired *r = m->retired;

		m->retired = r->next;
		sop_attached_put(r->at);
		free(r);
	}
	pthread_cond_destroy(&m->settled);
	sop_lock_release(&m->lock);
	free(m);
}
