/* Failure loops of what is done to the disks of a volume, and to a volume as a whole. Each time one
 * thing more goes well before one fails. Every time: what users see is the same all along; when the
 * disks are well again and what failed is asked for again, all comes to the same end as if nothing
 * had failed; everything verifies, and nothing leaks. Memory that fails from one allocation on and
 * stays away until the operation has been answered (memory-stays) lets none of it come to its end,
 * and may set all disks aside: then what is on the media has been begun, or has not, and whatever
 * was under way goes on at the next mount. A default run takes a sample of these, LONG=1 all, and
 * the modes in which disks fail or are full and stay so too.
 *
 *     failing_disks [--only MODE:CONFIG:OPERATION[:N]] */
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/peek.h"
#include "tests/lib/loops.h"
#include "tests/lib/scenario.h"

#define TURNS  20 /* of background work, with a minute between them */
#define ROSTER 1024
#define STRIDE 11 /* memory that stays away: one place in so many, unless LONG=1 */

enum { ONE, THREE, SHARED };
static const char *const config_names[] = {"1+0", "2+1", "shared"};

static unsigned force; /* SOP_ADMIN_FORCE, or 0 */

/* ---- operations ---- */

static const char *last(struct loop *l)
{
	return l->f.path[l->f.disks - 1];
}

static void well(struct loop *l, int rc)
{
	if (rc)
		loop_die(l, "what goes before", rc);
}

static int worked(struct loop *l, int rc)
{
	return rc ? rc : sop_volume_tick(l->f.v, &l->f.e);
}

static void missed(struct loop *l)
{
	static const uint8_t bytes[30000] = {2};

	well(l, fixture_upsert(&l->f, SOP_ROOT, "missed", bytes, sizeof(bytes), true));
}

static int replace(struct loop *l)
{
	return worked(l, sop_disk_replace(l->f.v, last(l), SCENARIO_SPARE, force, &l->f.e));
}

static void last_dies(struct loop *l)
{
	sim_disk_gone(l->f.sim, last(l), true);
	missed(l);
}

static int add(struct loop *l)
{
	return worked(l, sop_disk_add(l->f.v, SCENARIO_SPARE, force, &l->f.e));
}

static void added(struct loop *l)
{
	well(l, add(l));
	missed(l);
}

static int take_out(struct loop *l)
{
	return worked(l, sop_disk_remove(l->f.v, l->f.path[0], 0, &l->f.e));
}

static int offline(struct loop *l)
{
	return worked(l, sop_disk_offline(l->f.v, l->f.path[0], 0, &l->f.e));
}

static void away(struct loop *l)
{
	well(l, offline(l));
	missed(l);
}

static int online(struct loop *l)
{
	return worked(l, sop_disk_online(l->f.v, l->f.path[0], NULL, &l->f.e));
}

static void replacing(struct loop *l)
{
	well(l, sop_disk_replace(l->f.v, l->f.path[0], SCENARIO_SPARE, 0, &l->f.e));
}

static void removing(struct loop *l)
{
	added(l);
	well(l, sop_disk_remove(l->f.v, l->f.path[0], 0, &l->f.e));
}

static int cancel(struct loop *l)
{
	return worked(l, sop_disk_cancel(l->f.v, l->f.path[0], &l->f.e));
}

static void rot_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct loop *l = arg;
	uint8_t rot[64];

	(void)allocated;
	fill_random(rot, sizeof(rot), size);
	for (uint64_t at = 4096; at < size && !strncmp(file, "segments/", 9); at += 3000)
		sim_poke(l->f.sim, l->f.path[0], file, at, rot, sizeof(rot));
}

static void rot(struct loop *l)
{
	missed(l);
	sim_each_file(l->f.sim, l->f.path[0], rot_file, l);
}

/* Something is left to be done, and it is said. */
static int unfinished(struct loop *l)
{
	return l->mode <= NO_MEMORY_STAYS ? -ENOMEM : l->mode >= NO_SPACE_ONCE ? -ENOSPC : -EIO;
}

static int scrub(struct loop *l)
{
	int rc = worked(l, sop_scrub_start(l->f.v, 0, &l->f.e));
	struct sop_task t;

	for (unsigned i = 0; !rc && sop_volume_task(l->f.v, i, &t); i++)
		if (t.kind == SOP_TASK_SCRUB && (t.unrecoverable || t.state != SOP_TASK_FINISHED))
			return unfinished(l);
	return rc;
}

/* ---- operations on a volume that nobody has open ---- */

static void closed(struct loop *l)
{
	well(l, fixture_close(&l->f));
}

static void damaged(struct loop *l)
{
	rot(l);
	closed(l);
	well(l, sim_remove(l->f.sim, l->f.path[0], "checkpoint"));
}

static unsigned left;

static void found(void *ctx, const struct sop_finding *x)
{
	struct loop *l = ctx;

	left += x->state == SOP_FOUND_FIXABLE || x->state == SOP_FOUND_HELP;

	/* One disk is bad already; but who only lacks memory loses nothing. */
	if ((x->state == SOP_FOUND_LOST || x->state == SOP_FOUND_DISCARDED) &&
		l->mode <= NO_MEMORY_STAYS)
		loop_die(l, x->object, (int)x->state);
}

static int fsck(struct loop *l)
{
	struct sop_fsck_report r;
	int rc;

	left = 0;
	rc = sop_fsck(l->f.paths, l->f.disks,
		&(struct sop_fsck_opts){.repair = true,
			.discard_lost = true,
			.found = found,
			.ctx = l,
			.open_disk = sim_open_disk,
			.open_disk_ctx = l->f.sim},
		&r, &l->f.e);
	return rc ? rc : left ? unfinished(l) : 0;
}

static int look(struct loop *l)
{
	struct sop_fsck_report r;

	return sop_fsck(l->f.paths, l->f.disks,
		&(struct sop_fsck_opts){.found = found,
			.ctx = l,
			.open_disk = sim_open_disk,
			.open_disk_ctx = l->f.sim},
		&r, &l->f.e);
}

static int format(struct loop *l)
{
	const char *const path = SCENARIO_SPARE;
	struct sop_format_opts o = {
		.force = true, .open_disk = sim_open_disk, .open_disk_ctx = l->f.sim};
	struct sop_open_opts oo = l->f.opts;
	struct sop_volume *v;
	int rc = sop_format(&path, 1, &o, NULL, &l->f.e);

	if (!rc)
		rc = sop_volume_open(&v, &path, 1, &oo, &l->f.e);
	return rc ? rc : sop_volume_close(v, &l->f.e);
}

static int share(struct loop *l, bool on)
{
	int rc;

	l->f.opts.exclusive = true;
	rc = scenario_open(&l->f);
	l->f.opts.exclusive = false;
	if (rc)
		return rc;
	rc = sop_volume_share(l->f.v, on, &l->f.e);
	if (rc) {
		sop_volume_close(l->f.v, NULL);
		l->f.v = NULL;
		return rc;
	}
	return fixture_close(&l->f);
}

static int unshare(struct loop *l)
{
	return share(l, false);
}

static void unshared(struct loop *l)
{
	closed(l);
	well(l, unshare(l));
}

static int share_again(struct loop *l)
{
	return share(l, true);
}

/* ---- a look at labels alone, which goes to real folders ---- */

#define LOOKED_AT 3

static char root[64], folder[LOOKED_AT][80];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void remove_folders(void)
{
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_folders(struct loop *l)
{
	const struct sop_format_opts o = {.force = true};
	const char *tmp = getenv("TMPDIR"), *path[LOOKED_AT];

	if (root[0])
		return;
	snprintf(root, sizeof(root), "%.40s/failing.XXXXXX", tmp ? tmp : "/tmp");
	well(l, mkdtemp(root) && !atexit(remove_folders) ? 0 : -errno);
	for (unsigned i = 0; i < LOOKED_AT; i++) {
		snprintf(folder[i], sizeof(folder[i]), "%s/d%u", root, i + 1);
		path[i] = folder[i];
		well(l, mkdir(path[i], 0700) ? -errno : 0);
	}
	well(l, sop_format(path, LOOKED_AT, &o, NULL, &l->f.e));
}

static int peek(struct loop *l)
{
	struct sop_peek p;
	int rc = sop_peek(&p, folder[0], &l->f.e);

	if (!rc && (!p.openable || p.disks != LOOKED_AT))
		loop_die(l, p.why_not, (int)p.disks);
	for (unsigned i = 0; i < LOOKED_AT && !rc; i++)
		if (!p.disk[i].found || !p.disk[i].online || strcmp(p.disk[i].path, folder[i]))
			loop_die(l, "a disk is said to be missing", (int)i);
	return rc;
}

static const struct change {
	const char *name;
	int (*run)(struct loop *l);
	void (*before)(struct loop *l); /* nothing fails; NULL: nothing */
	unsigned configs;		/* a mask */
	bool on_closed;
} changes[] = {
	{"replace", replace, NULL, 1 << ONE | 1 << THREE, false},
	{"replace-dead", replace, last_dies, 1 << THREE, false},
	{"add", add, NULL, 1 << ONE | 1 << THREE, false},
	{"remove", take_out, added, 1 << ONE | 1 << THREE, false},
	{"offline", offline, NULL, 1 << THREE, false},
	{"online", online, away, 1 << THREE, false},
	{"cancel-replace", cancel, replacing, 1 << ONE | 1 << THREE, false},
	{"cancel-remove", cancel, removing, 1 << ONE | 1 << THREE, false},
	{"scrub", scrub, rot, 1 << THREE, false},
	{"fsck", fsck, damaged, 1 << THREE, true},
	{"look", look, closed, 1 << ONE | 1 << THREE | 1 << SHARED, true},
	{"mkfs", format, closed, 1 << ONE, true},
	{"unshare", unshare, closed, 1 << SHARED, true},
	{"share", share_again, unshared, 1 << SHARED, true},
	{"peek", peek, make_folders, 1 << ONE, false},
};

static const struct change *change_of(const struct loop *l)
{
	return &changes[l->op];
}

/* ---- what is demanded ---- */

/* Of the loop, when nothing fails; and when what goes before is not cancelled. */
static char roster_clean[ROSTER], roster_unasked[ROSTER];

static int by_path(const void *a, const void *b)
{
	const struct sop_volume_disk *x = a, *y = b;

	return strcmp(x->path, y->path);
}

/* The volume's disks, in words. */
static void roster(struct loop *l, char text[ROSTER])
{
	struct sop_volume_disk d[FIXTURE_DISKS];
	struct sop_volume_stat st;
	unsigned n = 0;
	int at;

	while (n < FIXTURE_DISKS && sop_volume_disk(l->f.v, n, &d[n]))
		n++;
	qsort(d, n, sizeof(*d), by_path);
	sop_volume_stat(l->f.v, &st);
	at = snprintf(text, ROSTER, "%s", st.shared ? "shared:" : "");
	for (unsigned i = 0; i < n; i++)
		at += snprintf(text + at, ROSTER - (size_t)at, " %s %s%s%s%s;", d[i].path,
			sop_disk_state_name(d[i].state), d[i].data ? " data" : "",
			d[i].registry ? " registry" : "", d[i].current ? " current" : "");
}

static bool is_member(struct loop *l, const char *path)
{
	struct sop_volume_disk d;

	for (unsigned n = 0; sop_volume_disk(l->f.v, n, &d); n++)
		if (!strcmp(d.path, path))
			return true;
	return false;
}

static bool any_away(struct loop *l)
{
	struct sop_volume_disk d;

	for (unsigned n = 0; sop_volume_disk(l->f.v, n, &d); n++)
		if (!d.present)
			return true;
	return false;
}

/* Background work goes on to its end. */
static bool comes_to(struct loop *l, char text[ROSTER], const char *want)
{
	for (unsigned i = 0; i < TURNS; i++) {
		loop_mend(l);
		(void)sop_volume_tick(l->f.v, &l->f.e);
		roster(l, text);
		if (want && !strcmp(text, want))
			return true;
	}
	return !want;
}

static void open_again(struct loop *l)
{
	if (l->f.v)
		sop_volume_close(l->f.v, NULL);
	loop_open(l, "the volume does not open again");
}

static void begin(struct loop *l)
{
	loop_begin(l);
	if (change_of(l)->before)
		change_of(l)->before(l);
}

static void measure(struct loop *l)
{
	if (change_of(l)->run == cancel) {
		begin(l);
		comes_to(l, roster_unasked, NULL);
		fixture_release(&l->f);
	}
	begin(l);
	l->rc_clean = change_of(l)->run(l);
	if (l->rc_clean)
		loop_die(l, "it is refused though nothing fails", l->rc_clean);
	if (!l->f.v)
		loop_open(l, "the volume does not open");
	comes_to(l, roster_clean, NULL);
	l->before = loop_digest(l);
	fixture_release(&l->f);
}

/* What was set aside, for want of memory or by an error, is what the next step misses. */
static void answer_is_right(struct loop *l, int rc, bool hit)
{
	bool away = !l->f.v || any_away(l) || loop_dead(l);
	bool right;

	switch (l->mode) {
	case NO_MEMORY:
	case NO_MEMORY_STAYS:
		right = rc == -ENOMEM || (away && (rc == -EIO || rc == SOP_EDISKS));
		break;
	case IO_ONCE:
	case IO_STAYS:
		/* (Of a lock that is held it could not be read who holds it: oneself.) */
		right = rc == -EIO || (away && (rc == SOP_EDISKS || rc == SOP_ELOST)) ||
			(rc == SOP_ELOST && change_of(l)->run == fsck) ||
			(rc == SOP_EINUSE && change_of(l)->run == online);
		break;
	case NO_SPACE_ONCE:
	case FULL:
	case LOOP_MODES:
		right = rc == -ENOSPC || (away && (rc == -EIO || rc == SOP_EDISKS)) ||
			(rc == SOP_ELOST && change_of(l)->run == fsck);
		break;
	}
	if (rc && !(hit && right))
		loop_die(l, hit ? "not the error there was" : "refused though nothing failed", rc);
}

/* What failed is asked for again, with the disks well. The end it comes to then: what was to be
 * cancelled, and was not, may have come to its own end meanwhile. */
static const char *ask_again(struct loop *l)
{
	int rc = change_of(l)->run(l);

	/* A disk that is gone keeps what was begun on it. */
	if (rc == -ENOTEMPTY && (l->mode == NO_MEMORY_STAYS || l->mode == IO_STAYS)) {
		force = SOP_ADMIN_FORCE;
		rc = change_of(l)->run(l);
		force = 0;
	}
	if (rc && !scenario_refused(rc))
		loop_die(l, "asked for again it is refused", rc);
	return change_of(l)->run == cancel && !is_member(l, l->f.path[0]) ? roster_unasked
									  : roster_clean;
}

static void same_content(struct loop *l)
{
	if (loop_digest(l) != l->before)
		loop_die(l, "something else is there", 0);
}

static void comes_to_its_end(struct loop *l, const char *end)
{
	char text[ROSTER];

	if (comes_to(l, text, end))
		return;
	open_again(l);
	if (comes_to(l, text, end))
		return;
	fprintf(stderr, "disks: %s\nshould be: %s\n", text, end);
	loop_die(l, "it does not come to the same end", 0);
}

static bool one_round(struct loop *l)
{
	const char *end = roster_clean;
	char text[ROSTER];
	bool hit;
	int rc;

	begin(l);
	loop_arm(l);
	rc = change_of(l)->run(l);
	hit = loop_disarm(l);
	answer_is_right(l, rc, hit);
	loop_mend(l);
	/* (A disk may have been away when all were looked at.) */
	if ((rc || (hit && change_of(l)->run == fsck)) && change_of(l)->on_closed)
		ask_again(l);
	/* Before another mount nothing can be demanded of what has lost a disk more than it can. */
	if (!l->f.v || any_away(l) || loop_dead(l) || (rc && sop_volume_tick(l->f.v, NULL)))
		open_again(l);
	same_content(l);
	if (rc && !change_of(l)->on_closed)
		end = ask_again(l);
	comes_to_its_end(l, end);
	if (hit && change_of(l)->run == scrub)
		well(l, scrub(l));
	rc = fixture_close(&l->f);
	if (rc && !hit)
		loop_die(l, "close", rc);
	loop_open(l, "the volume does not open at the end");
	if (!comes_to(l, text, end))
		loop_die(l, "the disks are others after another mount", 0);
	same_content(l);
	loop_check(l, true);
	loop_end(l);
	return hit;
}

/* ---- all of them ---- */

static void make(struct fixture *base, unsigned config, enum loop_mode mode)
{
	(void)mode;
	if (config == SHARED)
		scenario_make_shared(base, 2, 1, &loop_clock);
	else
		scenario_make(base, config == ONE ? 1 : 2, config == ONE ? 0 : 1, &loop_clock);
}

static bool has(enum loop_mode mode, unsigned config, unsigned op, bool variant, bool long_run)
{
	bool memory = mode <= NO_MEMORY_STAYS;
	bool always = memory || mode == IO_ONCE || mode == NO_SPACE_ONCE;

	/* (Real folders do not fail.) */
	return !variant && changes[op].configs >> config & 1 && (always || long_run) &&
	       (memory || changes[op].run != peek);
}

static const char *config_name(unsigned config)
{
	return config_names[config];
}

static const char *name_of(unsigned op)
{
	return changes[op].name;
}

int main(int argc, char **argv)
{
	const struct loops all = {.name = "failing_disks",
		.n_configs = SOP_ARRAY_LEN(config_names),
		.n_ops = SOP_ARRAY_LEN(changes),
		.config = config_name,
		.op = name_of,
		.make = make,
		.has = has,
		.measure = measure,
		.round = one_round,
		.stride = {[NO_MEMORY_STAYS] = STRIDE}};

	return loops_main(&all, argc, argv);
}
