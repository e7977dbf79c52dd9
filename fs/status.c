#include "fs/status.h"

#include <time.h>

#include "core/human.h"
#include "core/written.h"
#include "fs/mountinfo.h"
#include "fs/recent.h"
#include "fs/requests.h"

#define STATUS_VERSION 1
#define RECENT	       10
#define LOST_NAMED     1000 /* unreadable ranges that are listed by name */

/* ---- the model ---------------------------------------------------------------------------------
 */

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)SOP_MIN(n, (uint64_t)INT64_MAX));
}

json_t *sopfs_json_of(const char *s)
{
	json_t *j = json_string(s);
	sop_autofree char *copy = j ? NULL : strdup(s);

	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 128)
			*p = '?';
	return j ? j : copy ? json_string(copy) : NULL;
}

static json_t *when(struct timespec t)
{
	char buf[SOP_HUMAN_TEXT];

	return t.tv_sec ? json_string(sop_human_rfc3339(buf, t)) : json_null();
}

static json_t *uuid_of(const struct sop_uuid *id)
{
	char buf[SOP_UUID_TEXT];

	return json_string(sop_uuid_format(buf, id));
}

static json_t *disk_json(const struct sop_volume_disk *d)
{
	char target[16];

	snprintf(target, sizeof(target), "d%d", d->target + 1);
	return json_pack("{s:s, s:o, s:s, s:o, s:o, s:b, s:b, s:b, s:b, s:o, s:o, s:o, "
			 "s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"name", d->name, "uuid", uuid_of(&d->uuid), "state", sop_disk_state_name(d->state),
		"path", sopfs_json_of(d->path), "reason",
		d->reason[0] ? sopfs_json_of(d->reason) : json_null(), "present", d->present,
		"data", d->data, "registry", d->registry, "current", d->current, "target",
		d->target < 0 ? json_null() : json_string(target), "generation",
		number(d->generation), "last_seen", when(d->last_seen), "read_errors",
		number(d->read_errors), "write_errors", number(d->write_errors), "checksum_errors",
		number(d->checksum_errors), "repaired_bytes", number(d->repaired_bytes),
		"total_bytes", number(d->total_bytes), "free_bytes", number(d->free_bytes),
		"used_bytes", number(d->used_bytes), "missing_bytes", number(d->missing_bytes));
}

static json_t *task_json(const struct sop_task *t)
{
	uint64_t left = t->bytes_total > t->bytes_done ? t->bytes_total - t->bytes_done : 0;
	bool eta = t->state == SOP_TASK_RUNNING && t->bytes_per_s;
	char disk[16];

	snprintf(disk, sizeof(disk), "d%d", t->disk + 1);
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
			 "s:o}",
		"kind", sop_task_kind_name(t->kind), "state", sop_task_state_name(t->state), "disk",
		t->disk < 0 ? json_null() : json_string(disk), "target",
		t->target[0] ? sopfs_json_of(t->target) : json_null(), "started", when(t->started),
		"ended", when(t->ended), "bytes_total", number(t->bytes_total), "bytes_done",
		number(t->bytes_done), "bytes_per_s", number(t->bytes_per_s), "eta_s",
		eta ? number(left / t->bytes_per_s) : json_null(), "repaired_bytes",
		number(t->repaired_bytes), "corrected", number(t->corrected), "unrecoverable",
		number(t->unrecoverable), "message",
		t->message[0] ? sopfs_json_of(t->message) : json_null());
}

static json_t *disks_json(struct sop_volume *v)
{
	json_t *all = json_array();
	struct sop_volume_disk d;

	for (unsigned i = 0; sop_volume_disk(v, i, &d); i++)
		json_array_append_new(all, disk_json(&d));
	return all;
}

static json_t *tasks_json(struct sop_volume *v)
{
	json_t *all = json_array();
	struct sop_task t;

	for (unsigned i = 0; sop_volume_task(v, i, &t); i++)
		json_array_append_new(all, task_json(&t));
	return all;
}

static json_t *lost_json(struct sop_volume *v, bool names, unsigned *n)
{
	json_t *all = names ? json_array() : json_null();
	struct sop_lost l;

	for (*n = 0; sop_volume_lost(v, *n, &l); (*n)++)
		if (names && *n < LOST_NAMED)
			json_array_append_new(
				all, json_pack("{s:o, s:o, s:o, s:o}", "name",
					     sopfs_json_of(l.name), "offset", number(l.off),
					     "length", number(l.len), "found", when(l.when)));
	return all;
}

/* The last sessions that came to nothing. */
static json_t *recent_json(struct sopfs *f, bool names)
{
	json_t *all = json_array();
	struct sopfs_ending x;

	for (unsigned i = 0; i < RECENT && sopfs_recent_get(f, i, &x); i++)
		json_array_append_new(all,
			json_pack("{s:o, s:o, s:o, s:s, s:o}", "time", when(x.time), "inode",
				number(x.ino), "path", names ? sopfs_json_of(x.path) : json_null(),
				"code", sop_err_name(x.code), "reason", sopfs_json_of(x.reason)));
	return all;
}

static json_t *space_json(struct sop_volume *v, const struct sop_volume_stat *s)
{
	struct sop_volume_space x;

	sop_volume_space(v, &x);
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"total_bytes", number(s->total_bytes), "free_bytes", number(s->free_bytes),
		"data_bytes", number(x.data), "parity_bytes", number(x.parity), "metadata_bytes",
		number(x.metadata), "pinned_bytes", number(x.pinned), "reserve_bytes",
		number(x.reserve), "live_bytes", number(s->live_bytes), "journal_bytes",
		number(s->journal_bytes), "segments", number(s->segments), "cache_bytes",
		number(s->cache_bytes), "dirty_bytes", number(s->dirty_bytes));
}

/* A remount is between mount(8) and the kernel. */
static bool is_read_only(const struct sopfs *f)
{
	struct sopfs_mount m;

	return f->o.read_only ||
	       (f->o.mountpoint && sopfs_mount_at(&m, f->o.mountpoint, NULL) == 1 &&
		       strcmp(m.type, SOPFS_MOUNT_TYPE) == 0 && m.read_only);
}

static json_t *mount_json(const struct sopfs *f, const struct sopfs_stat *x)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_BOOTTIME, &now);
	return json_pack("{s:o, s:o, s:b, s:i, s:i, s:o, s:o, s:o, s:s}", "point",
		f->o.mountpoint ? sopfs_json_of(f->o.mountpoint) : json_null(), "source",
		f->o.source ? sopfs_json_of(f->o.source) : json_null(), "read_only",
		is_read_only(f), "pid", (int)getpid(), "uid", (int)geteuid(), "started",
		when(f->started), "up_s", number((uint64_t)(now.tv_sec - f->started_boot_s)),
		"known", number(x->known), "program", SOPFS_VERSION);
}

/* What the parts add up to: the worst of it in state, health, one sentence, and what to do. */
struct verdict {
	const char *state, *health;
	char status[256], action[256];
};

static void SOP_PRINTF(3, 4) say(char *out, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out, size, fmt, ap);
	va_end(ap);
}

static bool is_away(enum sop_disk_state s)
{
	return s == SOP_DISK_OFFLINE || s == SOP_DISK_MISSING || s == SOP_DISK_FAILED;
}

struct tally {
	unsigned away, healing, moving, with_errors;
	struct sop_volume_disk first_away, first_error;
};

static void count_disks(struct sop_volume *v, struct tally *t)
{
	struct sop_volume_disk d;

	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; sop_volume_disk(v, i, &d); i++) {
		if (is_away(d.state) && !t->away++)
			t->first_away = d;
		t->healing += d.state == SOP_DISK_HEALING;
		t->moving += d.state == SOP_DISK_REPLACING || d.state == SOP_DISK_REMOVING;
		if ((d.read_errors || d.write_errors || d.checksum_errors) && !t->with_errors++)
			t->first_error = d;
	}
}

static const char *plural(unsigned n)
{
	return n == 1 ? "" : "s";
}

static void say_degraded(struct verdict *x, const char *volume, const struct sop_volume_stat *s,
	const struct tally *t)
{
	unsigned missed = t->away + t->healing;
	unsigned left = s->m > missed ? s->m - missed : 0;
	const char *more = left ? "" : "no ";
	char count[16] = "";

	if (left)
		snprintf(count, sizeof(count), "%u ", left);
	x->state = "DEGRADED";
	x->health = "warning";
	if (!missed) {
		say(x->status, sizeof(x->status),
			"Redundancy is less than it should be; data is intact.");
		return;
	}
	if (!t->away) {
		say(x->status, sizeof(x->status),
			"%u disk%s being brought up to date. Data is intact; %s%smore failure%s %s "
			"tolerated now.",
			t->healing, t->healing == 1 ? " is" : "s are", more, count, plural(left),
			left == 1 ? "is" : "are");
		say(x->action, sizeof(x->action),
			"None needed; 'sopctl status %s' shows how far it is.", volume);
		return;
	}
	say(x->status, sizeof(x->status),
		"%u disk%s not in use. Data is intact; %s%smore failure%s %s tolerated now.",
		t->away, t->away == 1 ? " is" : "s are", more, count, plural(left),
		left == 1 ? "is" : "are");
	say(x->action, sizeof(x->action),
		"'sopctl online %s %s' when it is back, or 'sopctl replace %s %s NEW-FOLDER'.",
		volume, t->first_away.name, volume, t->first_away.name);
}

static void judge(struct verdict *x, struct sop_volume *v, const struct sop_volume_stat *s,
	const char *volume, unsigned lost)
{
	struct tally t;

	count_disks(v, &t);
	memset(x, 0, sizeof(*x));
	x->state = s->read_only ? "READ-ONLY" : "ONLINE";
	x->health = "ok";
	if (s->degraded || t.away || t.healing) {
		say_degraded(x, volume, s, &t);
	} else if (t.with_errors) {
		x->health = "warning";
		say(x->status, sizeof(x->status),
			"%u disk%s had errors, which were made good from the others.",
			t.with_errors, t.with_errors == 1 ? " has" : "s have");
		say(x->action, sizeof(x->action),
			"'sopctl scrub %s' verifies the rest; 'sopctl clear %s' forgets the "
			"counts, "
			"or 'sopctl replace %s %s NEW-FOLDER'.",
			volume, volume, volume, t.first_error.name);
	}
	if (lost) {
		x->health = "critical";
		say(x->status, sizeof(x->status),
			"%u range%s of files cannot be read any more: too few good shards.", lost,
			plural(lost));
		say(x->action, sizeof(x->action),
			"'sopctl status -v %s' names them: bring back the disks that held them, or "
			"restore these files; then 'sopctl clear %s'.",
			volume, volume);
	}
	if (s->failed) {
		x->state = "FAILED";
		x->health = "critical";
		say(x->status, sizeof(x->status),
			"Nothing can be committed any more. What was committed is there to be "
			"read.");
		say(x->action, sizeof(x->action),
			"Mend the cause (the log names it), then unmount and mount again.");
	}
}

/* What it took: requests by kind, and writes to the disks. */
static json_t *with_work(json_t *status)
{
	struct sop_written w = sop_written();

	if (!status)
		return NULL;
	if (json_object_set_new(status, "requests", sopfs_requests_json()) ||
		json_object_set_new(status, "disk_io",
			json_pack("{s:o, s:o, s:o}", "writes", number(w.writes), "written_bytes",
				number(w.bytes), "syncs", number(w.syncs)))) {
		json_decref(status);
		return NULL;
	}
	return status;
}

json_t *sopfs_status_json(struct sopfs *f, bool names)
{
	struct sop_volume_stat s;
	struct sopfs_stat x;
	struct verdict verdict;
	char uuid[SOP_UUID_TEXT];
	const char *volume;
	unsigned n_lost;
	json_t *lost;

	sop_volume_stat(f->v, &s);
	sopfs_stat(f, &x);
	sop_uuid_format(uuid, &s.uuid);
	volume = s.name[0] ? s.name : uuid;
	lost = lost_json(f->v, names, &n_lost);
	judge(&verdict, f->v, &s, volume, n_lost);
	return sopfs_status_with_mounters(
		with_work(json_pack("{s:i, s:{s:o, s:s, s:i, s:i, s:i, s:i, s:o},"
				    " s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o,"
				    " s:{s:o, s:o, s:o, s:o, s:o, s:o},"
				    " s:{s:o, s:i, s:o, s:o, s:o, s:o, s:o}, s:{s:i, s:o}}",
			"version", STATUS_VERSION,
			/* */
			"volume", "name", sopfs_json_of(s.name), "uuid", uuid, "data_shards",
			(int)s.k, "parity_shards", (int)s.m, "disks", (int)s.disks, "disks_online",
			(int)s.disks_online, "items", number(s.items),
			/* */
			"state", verdict.state, "health", verdict.health, "status",
			verdict.status[0] ? sopfs_json_of(verdict.status) : json_null(), "action",
			verdict.action[0] ? sopfs_json_of(verdict.action) : json_null(), "disks",
			disks_json(f->v), "tasks", tasks_json(f->v), "space", space_json(f->v, &s),
			"mount", mount_json(f, &x),
			/* */
			"commits", "lsn", number(s.lsn), "durable_lsn", number(s.durable_lsn),
			"committed", number(s.commits), "conflicts", number(s.conflicts),
			"rolled_back", number(s.rolled_back), "failed", number(s.failures),
			/* */
			"sessions", "open", number(x.sessions_open), "transactions",
			(int)x.transactions, "committed", number(x.committed), "rolled_back",
			number(x.rolled_back), "conflicts", number(x.conflicts), "failed",
			number(x.failed), "recent", recent_json(f, names),
			/* */
			"errors", "count", (int)n_lost, "lost", lost)),
		f);
}
