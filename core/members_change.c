#include <fcntl.h>
#include <stdio.h>

#include "core/members_own.h"

/* Changes of membership while the volume is used.
 *
 * Adding. The new folder gets its label, which names it a member, before any other label does: so
 * whoever is named in a label has one. A crash in between leaves a folder that calls itself a
 * member of a volume that does not know it; nothing lies on it, and adding it again starts over.
 *
 * Draining is a state in the labels alone: nothing new is placed there, what is there is read. The
 * caller moves it.
 *
 * Removing. The others' labels say REMOVED first; only then are the folder's own labels taken away,
 * and then what else is left of ours. A crash in between leaves a label that no member agrees with:
 * it is ignored at the next mount. */

/* --- errands --------------------------------------------------------------- */

/* Look at a folder that is to become a member; with `make`, make it one. */
struct enlist {
	struct sop_errand errand;
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	char path[SOP_MEMBER_PATH];
	char claim[SOP_CLAIM_TEXT];
	bool make;
	uint8_t role;
	int replaces; /* member whose content it takes, or -1 */
	struct sop_attached *at;
	struct sop_label label; /* looking: the one found; making: the one to store */
	int label_rc;		/* what came of looking for one */
	struct sop_uuid found;	/* making: the disk of the label that was found */
	char stranger[64];	/* something in the folder */
	unsigned begun;		/* a mask */
	int rc;
	struct sop_err e;
};

/* What an attempt to make it a member leaves that was cut off. */
static const char *const begun[] = {SOP_PATH_SEGMENTS, SOP_PATH_REGISTRY, SOP_PATH_JOURNAL};

static int stranger(void *arg, const char *name)
{
	struct enlist *x = arg;

	for (size_t i = 0; i < SOP_ARRAY_LEN(begun); i++)
		if (!strcmp(name, begun[i])) {
			x->begun |= 1u << i;
			return 0;
		}
	if (strcmp(name, "lost+found") && strcmp(name, SOP_PATH_LOCK) && !x->stranger[0])
		snprintf(x->stranger, sizeof(x->stranger), "%s", name);
	return 0;
}

static int any_name(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
	return 0;
}

/* Is there anything in the folder that is not to be lost? */
static int look_for_strangers(struct enlist *x)
{
	struct sop_disk *d = x->at->disk;
	int rc = d->ops->list(d, "", stranger, x);

	for (size_t i = 0; i < SOP_ARRAY_LEN(begun) && rc >= 0 && !x->stranger[0]; i++) {
		bool any = false;

		if (!(x->begun >> i & 1))
			continue;
		rc = d->ops->list(d, begun[i], any_name, &any);
		if (rc == -ENOTDIR)
			rc = any = true;
		if (any)
			snprintf(x->stranger, sizeof(x->stranger), "%s", begun[i]);
	}
	return rc < 0 ? sop_fail(&x->e, rc, "%s", x->path) : 0;
}

static int no_folder(const char *path, struct sop_err *e)
{
	return sop_say(e, -ENOENT,
		"%s: no such folder; make it, or mount the drive that belongs there", path);
}

/* Says nothing of the label that is there. */
static bool not_read(int rc)
{
	return rc && rc != SOP_ENOTVOLUME && rc != SOP_ECORRUPT && rc != SOP_EVERSION;
}

static int look_at(struct enlist *x)
{
	struct sop_disk *d;
	int rc = sop_members_open_folder(&d, x->path, x->open_disk, x->open_disk_ctx, &x->e);

	if (rc == -ENOENT)
		return no_folder(x->path, &x->e);
	if (rc)
		return rc;
	x->at = sop_attached_new(d);
	if (!x->at)
		return sop_fail(&x->e, -ENOMEM, "%s", x->path);
	rc = d->ops->space(d, &x->at->space);
	if (rc)
		return sop_fail(&x->e, rc, "%s: free space", x->path);
	x->at->seen = true;
	x->label_rc = sop_label_load(&x->label, d, &x->e);
	if (not_read(x->label_rc))
		return x->label_rc;
	rc = x->label_rc == SOP_ENOTVOLUME ? sop_members_check_wipe(d, &x->e) : 0;
	return rc ? rc : look_for_strangers(x);
}

/* Until the folder is locked another may make a member of it: the label is still what it was? */
static int look_again(struct enlist *x)
{
	sop_autofree struct sop_label *l = malloc(sizeof(*l));
	int rc;

	if (!l)
		return sop_fail(&x->e, -ENOMEM, "%s", x->path);
	rc = sop_label_load(l, x->at->disk, &x->e);
	if (not_read(rc))
		return rc;
	if (rc == x->label_rc && (rc || sop_uuid_equal(&l->disk_uuid, &x->found)))
		return 0;
	return sop_say(&x->e, -EBUSY,
		"%s: another has just made something else of it; look at it, and try again",
		x->path);
}

static int make_member(struct enlist *x)
{
	struct sop_disk *d = x->at->disk;
	int rc = x->at->lock_file ? 0 : sop_members_lock(x->at, x->claim, true, &x->e);

	if (!rc)
		rc = look_again(x);
	if (rc)
		return rc;
	rc = sop_members_wipe_labels(d);
	if (!rc)
		rc = sop_members_wipe_content(d);
	if (!rc && x->role & SOP_ROLE_DATA)
		rc = d->ops->mkdir(d, SOP_PATH_SEGMENTS);
	if (!rc && x->role & SOP_ROLE_REGISTRY)
		rc = d->ops->mkdir(d, SOP_PATH_REGISTRY);
	if (!rc && x->role & SOP_ROLE_REGISTRY)
		rc = d->ops->mkdir(d, SOP_PATH_JOURNAL);
	if (!rc)
		rc = d->ops->syncdir(d, "");
	if (rc)
		return sop_fail(&x->e, rc, "%s: making the directories", x->path);
	rc = sop_label_store(d, &x->label, &x->e);
	/* No member, as far as it can be helped: so that it may be tried again. */
	if (rc)
		(void)sop_members_wipe_labels(d);
	return rc;
}

static void enlist_run(struct sop_errand *errand)
{
	struct enlist *x = (struct enlist *)errand;

	x->rc = x->make ? make_member(x) : look_at(x);
}

static void enlist_release(struct sop_errand *errand)
{
	struct enlist *x = (struct enlist *)errand;

	sop_attached_put(x->at);
	free(x);
}

static struct enlist *enlist_new(const struct sop_members *m, const char *path)
{
	struct enlist *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	sop_errand_init(&x->errand, enlist_run, enlist_release);
	x->open_disk = m->open_disk;
	x->open_disk_ctx = m->open_disk_ctx;
	snprintf(x->path, sizeof(x->path), "%s", path);
	snprintf(x->claim, sizeof(x->claim), "%s", m->claim);
	return x;
}

static int enlist_wait(struct sop_members *m, struct enlist *x, struct sop_err *e)
{
	struct sop_errand *errand = &x->errand;

	sop_errands_run(&errand, 1, m->threads, m->timeout_ms);
	if (!errand->finished)
		return sop_fail(e, -ETIMEDOUT, "%s", x->path);
	return x->rc ? sop_say(e, x->rc, "%s", x->e.text) : 0;
}

/* --- adding ---------------------------------------------------------------- */

static int check_label(struct sop_members *m, const struct enlist *x, bool force, struct sop_err *e)
{
	char volume[160];

	if (x->label_rc == SOP_ENOTVOLUME)
		return 0;
	if (x->label_rc)
		return force ? 0
			     : sop_say(e, SOP_EFOREIGN, "%s: %s; --force overwrites it", x->path,
				       x->e.text);
	if (!sop_uuid_equal(&x->label.volume_uuid, &m->given.volume_uuid))
		return force ? 0
			     : sop_say(e, SOP_EFOREIGN, "%s: belongs to %s; --force overwrites it",
				       x->path,
				       sop_members_volume_text(volume, sizeof(volume), &x->label));
	SOP_LOCK_GUARD(&m->lock);
	for (unsigned i = 0; i < m->label.members; i++)
		if (sop_members_is(&m->label.member[i]) &&
			sop_uuid_equal(&m->label.member[i].uuid, &x->label.disk_uuid))
			return sop_say(
				e, -EEXIST, "%s: is d%u of this volume already", x->path, i + 1);
	/* Of this volume, and unknown to it: was removed, or its adding was cut off. */
	return 0;
}

static int check_device(struct sop_members *m, const struct enlist *x, struct sop_err *e)
{
	uint64_t device = x->at->space.device;
	unsigned n = sop_members_count(m);

	for (unsigned i = 0; i < n; i++) {
		struct sop_attached *a;
		bool same;

		sop_lock(&m->lock);
		a = sop_members_is(&m->label.member[i]) ? m->slot[i].at : NULL;
		sop_unlock(&m->lock);
		if (!a)
			continue;
		sop_lock(&a->lock);
		same = a->seen && a->space.device == device;
		sop_unlock(&a->lock);
		if (same)
			return sop_say(e, -EXDEV,
				"%s: is on the same device as d%u: one failing drive would take "
				"both; --force goes on",
				x->path, i + 1);
	}
	return 0;
}

static int check(struct sop_members *m, const struct enlist *x, bool force, uint64_t min_bytes,
	struct sop_err *e)
{
	bool ours = x->label_rc != SOP_ENOTVOLUME;
	int rc = check_label(m, x, force, e);

	if (!rc && !ours && x->stranger[0] && !force)
		rc = sop_say(e, -ENOTEMPTY,
			"%s: is not empty (holds \"%s\"); --force uses it all the same", x->path,
			x->stranger);
	if (!rc && !force)
		rc = check_device(m, x, e);
	if (!rc && x->at->space.free_bytes < min_bytes)
		rc = sop_say(e, -ENOSPC, "%s: has %llu bytes free, %llu are needed", x->path,
			(unsigned long long)x->at->space.free_bytes, (unsigned long long)min_bytes);
	return rc;
}

/* Under the lock. A slot whose member had been removed before this mount may serve again. */
static int free_slot(const struct sop_members *m, struct sop_err *e)
{
	for (unsigned i = 0; i < m->label.members; i++)
		if (!sop_members_is(&m->label.member[i]) && !m->slot[i].at)
			return (int)i;
	if (m->label.members < SOP_MEMBERS_MAX)
		return m->label.members;
	return sop_say(
		e, -ENOSPC, "the volume has %d disks, and can have no more", SOP_MEMBERS_MAX);
}

/* Under the lock. Whoever asked may have been told otherwise a moment ago. */
static int may_drain(const struct sop_members *m, unsigned i, struct sop_err *e)
{
	if (!sop_members_is(&m->label.member[i]))
		return sop_say(e, -ENOENT, "d%u: is no member any more", i + 1);
	if (m->label.member[i].state == SOP_MEMBER_DRAINING)
		return sop_say(e, -EALREADY, "d%u: is being replaced or removed already", i + 1);
	return 0;
}

/* Under the lock. */
static void drain_to(struct sop_members *m, unsigned i, int to)
{
	struct sop_member *who = &m->label.member[i];

	if (who->state == SOP_MEMBER_OFFLINE)
		who->flags |= SOP_MEMBER_AWAY;
	who->state = SOP_MEMBER_DRAINING;
	who->to = (uint16_t)(to + 1);
	/* Where a profile names its disks, the new one takes the place of the old. */
	for (unsigned p = 0; to >= 0 && p < m->label.profiles; p++)
		if (m->label.profile[p].disks[i / 8] >> (i % 8) & 1) {
			m->label.profile[p].disks[to / 8] |= (uint8_t)(1u << (to % 8));
			m->given.profile[p].disks[to / 8] |= (uint8_t)(1u << (to % 8));
		}
}

static int enter(struct sop_members *m, struct enlist *x, unsigned *member, struct sop_err *e)
{
	struct sop_member who = {
		.role = x->role, .state = SOP_MEMBER_ONLINE, .flags = SOP_MEMBER_WHOLE};
	int rc = sop_uuid_new(&who.uuid, e), j;

	if (rc)
		return rc;
	memcpy(who.path, x->path, sizeof(who.path));
	sop_lock(&m->lock);
	j = x->replaces < 0 ? 0 : may_drain(m, (unsigned)x->replaces, e);
	if (!j)
		j = free_slot(m, e);
	if (j >= 0) {
		sop_members_label_for(&x->label, m, 0);
		x->label.member[j] = who;
		x->label.members = (uint16_t)SOP_MAX((unsigned)j + 1, (unsigned)m->label.members);
		x->label.index = (uint16_t)j;
		x->label.disk_uuid = who.uuid;
	}
	sop_unlock(&m->lock);
	if (j < 0)
		return j;
	x->make = true;
	rc = enlist_wait(m, x, e);
	if (rc)
		return rc;
	sop_lock(&m->lock);
	rc = x->replaces < 0 ? 0 : may_drain(m, (unsigned)x->replaces, e);
	if (rc) { /* the folder is what a crash would leave */
		sop_unlock(&m->lock);
		return rc;
	}
	m->label.member[j] = who;
	m->given.member[j] = who;
	m->label.members = (uint16_t)SOP_MAX((unsigned)j + 1, (unsigned)m->label.members);
	m->given.members = m->label.members;
	m->slot[j] = (struct sop_slot){.at = sop_attached_get(x->at)};
	m->slot[j].back_ms = m->clock->monotonic_ms(m->clock->ctx);
	atomic_store(&m->count, m->label.members);
	atomic_store(&m->usable[j], x->at->disk);
	/* In the same round of labels: a crash leaves a replacement that goes on, or none. */
	if (x->replaces >= 0)
		drain_to(m, (unsigned)x->replaces, j);
	m->change_seq++;
	*member = (unsigned)j;
	sop_unlock(&m->lock);
	return 0;
}

/* Membership changes one at a time, and not while a member is being taken in again. */
static int exclusive(struct sop_members *m, struct sop_err *e)
{
	SOP_LOCK_GUARD(&m->lock);
	if (m->reopening)
		return sop_say(e, -EBUSY, "another disk is just being taken in: try again");
	m->reopening = true;
	return 0;
}

static void exclusive_end(struct sop_members *m)
{
	SOP_LOCK_GUARD(&m->lock);
	m->reopening = false;
}

static uint64_t latest_change(struct sop_members *m)
{
	SOP_LOCK_GUARD(&m->lock);
	return m->change_seq;
}

static int add(struct sop_members *m, const char *path, uint8_t role, int replaces, unsigned flags,
	uint64_t min_bytes, unsigned *member, struct sop_err *e)
{
	struct enlist *look = enlist_new(m, path), *x = NULL;
	int rc = look ? enlist_wait(m, look, e) : sop_fail(e, -ENOMEM, "%s", path);

	if (!rc)
		rc = check(m, look, flags & SOP_MEMBERS_FORCE, min_bytes, e);
	if (!rc && !(flags & SOP_MEMBERS_DRY_RUN)) {
		x = enlist_new(m, path);
		if (!x) {
			rc = sop_fail(e, -ENOMEM, "%s", path);
		} else {
			x->role = role;
			x->replaces = replaces;
			x->at = sop_attached_get(look->at);
			x->label_rc = look->label_rc;
			x->found = look->label.disk_uuid;
			rc = enter(m, x, member, e);
		}
	}
	sop_errand_put(x ? &x->errand : NULL);
	sop_errand_put(look ? &look->errand : NULL);
	if (rc || flags & SOP_MEMBERS_DRY_RUN)
		return rc;
	rc = sop_members_store_labels(m, latest_change(m), e);
	if (!rc && !sop_members_disk(m, *member))
		rc = sop_say(e, -EIO, "%s: does not take a label", path);
	if (!rc)
		sop_log(m->log, SOP_LOG_INFO, "members", "op=add disk=%u path=%s", *member, path);
	return rc;
}

int sop_members_add(struct sop_members *m, const char *path, uint8_t role, int replaces,
	unsigned flags, uint64_t min_bytes, unsigned *member, struct sop_err *e)
{
	char clean[SOP_MEMBER_PATH];
	int rc = sop_members_path(clean, path, !m->open_disk);

	if (rc == -ENOENT && path[0])
		return no_folder(path, e);
	if (rc)
		return sop_fail(e, rc, "%s", path);
	rc = exclusive(m, e);
	if (rc)
		return rc;
	rc = add(m, clean, role, replaces, flags, min_bytes, member, e);
	exclusive_end(m);
	return rc;
}

/* --- draining -------------------------------------------------------------- */

int sop_members_drain(struct sop_members *m, unsigned i, int heir, struct sop_err *e)
{
	uint64_t seq;
	int rc;

	assert(i < sop_members_count(m) && heir < (int)sop_members_count(m));
	sop_lock(&m->lock);
	rc = may_drain(m, i, e);
	if (rc) {
		sop_unlock(&m->lock);
		return rc;
	}
	drain_to(m, i, -1);
	if (heir >= 0 && !(m->label.member[heir].role & SOP_ROLE_REGISTRY)) {
		m->label.member[heir].role |= SOP_ROLE_REGISTRY;
		if (m->label.member[heir].current_since)
			m->label.member[heir].flags |= SOP_MEMBER_WHOLE;
		m->label.member[heir].current_since = 0;
	}
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	return sop_members_store_labels(m, seq, e);
}

int sop_members_undrain(struct sop_members *m, unsigned i, struct sop_err *e)
{
	struct sop_member *who = &m->label.member[i];
	uint64_t seq;

	assert(i < sop_members_count(m));
	sop_lock(&m->lock);
	if (who->state != SOP_MEMBER_DRAINING) {
		sop_unlock(&m->lock);
		return sop_say(e, -ENOENT, "d%u: is not being replaced or removed", i + 1);
	}
	who->state = who->flags & SOP_MEMBER_AWAY ? SOP_MEMBER_OFFLINE : SOP_MEMBER_ONLINE;
	who->flags &= (uint8_t)~SOP_MEMBER_AWAY;
	who->to = 0;
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	return sop_members_store_labels(m, seq, e);
}

/* --- removing -------------------------------------------------------------- */

struct wipe {
	struct sop_errand errand;
	struct sop_attached *at;
	int rc;
};

static void wipe_run(struct sop_errand *errand)
{
	struct wipe *x = (struct wipe *)errand;
	struct sop_disk *d = x->at->disk;

	x->rc = sop_members_wipe_labels(d);
	if (!x->rc)
		x->rc = sop_members_wipe_content(d);
	if (!x->rc)
		(void)d->ops->unlink(d, SOP_PATH_LOCK);
}

static void wipe_release(struct sop_errand *errand)
{
	struct wipe *x = (struct wipe *)errand;

	sop_attached_put(x->at);
	free(x);
}

/* What stays is of no use to anybody, and no harm: it is not waited for longer than for any call.
 */
static void wipe(struct sop_members *m, unsigned i, struct sop_attached *at)
{
	struct wipe *x = calloc(1, sizeof(*x));
	struct sop_errand *errand;
	int rc;

	if (!x)
		return;
	errand = &x->errand;
	sop_errand_init(errand, wipe_run, wipe_release);
	x->at = sop_attached_get(at);
	sop_errands_run(&errand, 1, m->threads, m->timeout_ms);
	rc = errand->finished ? x->rc : -ETIMEDOUT;
	if (rc)
		sop_log(m->log, SOP_LOG_WARNING, "members",
			"op=remove disk=%u path=%s code=%s: not all of the volume's files there "
			"are "
			"removed",
			i, m->given.member[i].path, sop_err_name(rc));
	sop_errand_put(errand);
}

/* Under the lock: who takes over from member i is in its place, and a copy of the registry besides
 * i's is current. It was so a moment ago; but what was written last may have failed there. */
static bool may_leave(const struct sop_members *m, unsigned i)
{
	int to = (int)m->label.member[i].to - 1;

	if (to >= 0 && !atomic_load(&m->usable[to]))
		return false;
	for (unsigned j = 0; j < m->label.members; j++)
		if (j != i && atomic_load(&m->usable[j]) && m->label.member[j].current_since &&
			m->label.member[j].role & SOP_ROLE_REGISTRY)
			return true;
	return false;
}

int sop_members_remove(struct sop_members *m, unsigned i, struct sop_err *e)
{
	struct sop_attached *at;
	bool present;
	uint64_t seq;
	int rc;

	assert(i < sop_members_count(m));
	sop_lock(&m->lock);
	/* From then on it may have been written to. */
	if (m->label.member[i].state != SOP_MEMBER_DRAINING) {
		sop_unlock(&m->lock);
		return sop_say(e, -ECANCELED, "disk %u: is to stay", i);
	}
	if (!may_leave(m, i)) {
		sop_unlock(&m->lock);
		return sop_say(
			e, -EAGAIN, "disk %u: what is to take over has just been set aside", i);
	}
	present = atomic_load(&m->usable[i]) != NULL;
	at = m->slot[i].at;
	m->slot[i].aside = true;
	atomic_store(&m->usable[i], NULL);
	m->label.member[i].state = SOP_MEMBER_REMOVED;
	m->label.member[i].current_since = 0;
	m->label.member[i].flags = 0;
	m->label.member[i].to = 0;
	for (unsigned p = 0; p < m->label.profiles; p++)
		m->label.profile[p].disks[i / 8] &= (uint8_t) ~(1u << (i % 8));
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	rc = sop_members_store_labels(m, seq, e);
	if (rc)
		return rc;
	sop_log(m->log, SOP_LOG_INFO, "members", "op=remove disk=%u path=%s: is no member any more",
		i, m->given.member[i].path);
	if (present && at)
		wipe(m, i, at);
	return 0;
}

/* --- scrub ----------------------------------------------------------------- */

struct inspect {
	struct sop_errand errand;
	struct sop_attached *at;
	unsigned bad;
};

static void inspect_run(struct sop_errand *errand)
{
	struct inspect *x = (struct inspect *)errand;

	x->bad = sop_label_bad_copies(x->at->disk);
}

static void inspect_release(struct sop_errand *errand)
{
	struct inspect *x = (struct inspect *)errand;

	sop_attached_put(x->at);
	free(x);
}

unsigned sop_members_scrub_labels(struct sop_members *m)
{
	unsigned n = sop_members_count(m), bad = 0;

	for (unsigned i = 0; i < n; i++) {
		struct inspect *x = calloc(1, sizeof(*x));
		struct sop_errand *errand;
		unsigned own;

		if (!x)
			continue;
		errand = &x->errand;
		sop_errand_init(errand, inspect_run, inspect_release);
		sop_lock(&m->lock);
		if (atomic_load(&m->usable[i]))
			x->at = sop_attached_get(m->slot[i].at);
		sop_unlock(&m->lock);
		if (x->at)
			sop_errands_run(&errand, 1, m->threads, m->call_ms);
		own = errand->finished ? x->bad : 0;
		if (x->at && !errand->finished)
			sop_members_event(m, i, SOP_EVENT_READ, -ETIMEDOUT);
		sop_errand_put(errand);
		for (unsigned c = 0; c < own; c++)
			sop_members_event(m, i, SOP_EVENT_CHECKSUM, SOP_ECORRUPT);
		bad += own;
	}
	if (bad) {
		sop_lock(&m->lock);
		m->change_seq++;
		sop_unlock(&m->lock);
		(void)sop_members_store_labels(m, latest_change(m), NULL);
	}
	return bad;
}

int sop_members_set_shared(struct sop_members *m, bool on, struct sop_err *e)
{
	uint64_t seq;
	int rc;

	if (m->read_only)
		return sop_say(e, -EROFS, "the volume is open for reading alone");
	sop_lock(&m->lock);
	m->label.flags = (uint16_t)(on ? m->label.flags | SOP_LABEL_SHARED
				       : m->label.flags & ~SOP_LABEL_SHARED);
	m->label.incompat = on ? m->label.incompat | SOP_INCOMPAT_SHARED
			       : m->label.incompat & ~SOP_INCOMPAT_SHARED;
	seq = ++m->change_seq;
	sop_unlock(&m->lock);
	rc = sop_members_store_labels(m, seq, e);
	return rc ? sop_wrap(e, rc, "labels") : 0;
}
