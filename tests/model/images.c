/* Up to three mounters of one shared volume, in one process, on simulated disks: a random walk of
 * commits, removals, readers that stay, images, mounts and unmounts, mounters that die or are taken
 * for dead, and power cuts in the middle of any of it. What the mounters say is compared with a
 * simple model; readers see to their end what they saw first; nothing is accepted of one who was
 * taken for dead; and whoever is alone at last finds the volume whole.
 *
 * SEED=n runs one walk; LONG=1: many. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/sop.h"
#include "tests/lib/fixture.h"

#define DISKS	 4
#define MOUNTERS 3
#define READERS	 3
#define KEYS	 48
#define VALUE	 40000
#define STEPS	 400

struct value {
	uint32_t len; /* 0: the key is not there */
	uint32_t seed;
};

struct model {
	struct value at[KEYS];
};

struct reader {
	struct sop_txn *t;
	struct model saw;
};

struct mounter {
	struct sop_volume *v;
	struct reader reader[READERS];
};

/* A mounter that ends without a word; and locks of the living that others do not see. */
static struct sop_disk_ops ops;
static const struct sop_disk_ops *real;
static bool dies, unseen;

static struct sim *sim;
static char path[DISKS][8];
static const char *paths[DISKS];
static struct sop_open_opts opts;
static struct mounter mounter[MOUNTERS];
static struct model now;
static struct model instead; /* what may be so as well: a commit was cut */
static bool in_doubt;
static uint64_t store, rng, seed;
static unsigned step, cuts, fenced, deaths;
static struct sop_err e;
static uint8_t buf[VALUE];
static struct sop_txn *open_txn; /* to be ended when the power goes */
static jmp_buf dark;

static uint64_t dice(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static void die(const char *what)
{
	fprintf(stderr, "images: SEED=%" PRIu64 " step %u: %s: %s\n", seed, step, what, e.text);
	exit(1);
}

static void ok(int rc, const char *what)
{
	if (rc < 0 && sim_crashed(sim))
		longjmp(dark, 1);
	if (rc < 0)
		die(what);
}

static int hooked_link(struct sop_disk *d, const char *from, const char *to)
{
	return dies ? -EIO : real->link(d, from, to);
}

static int hooked_unlink(struct sop_disk *d, const char *name)
{
	return dies ? -EIO : real->unlink(d, name);
}

static int unseen_lock(struct sop_file *f)
{
	(void)f;
	return 0;
}

static int hooked_open(struct sop_file **out, struct sop_disk *d, const char *name, int flags)
{
	static struct sop_disk_ops without;
	int rc = real->file_open(out, d, name, flags);

	if (rc)
		return rc;
	without = ops;
	without.lock = unseen_lock;
	(*out)->ops = unseen && !strncmp(name, "slots/live.", 11) ? &without : &ops;
	return 0;
}

static int hooked_disk(void *ctx, struct sop_disk **out, const char *name, struct sop_err *err)
{
	int rc = sim_open_disk(ctx, out, name, err);

	if (rc)
		return rc;
	real = (*out)->ops;
	ops = *real;
	ops.link = hooked_link;
	ops.unlink = hooked_unlink;
	ops.file_open = hooked_open;
	(*out)->ops = &ops;
	return 0;
}

static void key_name(char name[32], unsigned key)
{
	snprintf(name, 32, "a key of some length %u", key);
}

static void follow(struct sop_volume *v)
{
	struct sop_volume_stat st;

	ok(sop_volume_catch_up(v, &e), "catch up");
	sop_volume_stat(v, &st);
	if (st.failed)
		die("the volume has failed");
}

static struct sop_txn *begin(struct sop_volume *v, enum sop_txn_mode mode)
{
	struct sop_txn *t;

	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = mode}, &e), "begin");
	return t;
}

static void rollback(struct sop_txn *t)
{
	open_txn = NULL;
	sop_txn_rollback(t);
}

static struct sop_txn *begin_read(struct sop_volume *v)
{
	follow(v);
	return open_txn = begin(v, SOP_TXN_READ);
}

static bool same(struct sop_txn *t, unsigned key, const struct value *want)
{
	char name[32];
	void *got = NULL;
	size_t len = 0;
	bool good;
	int rc;

	key_name(name, key);
	rc = sop_get(t, SOP_NAME(store, name), &got, &len, &e);
	if (rc == -ENOENT)
		return !want->len;
	ok(rc, name);
	fill_random(buf, want->len, want->seed);
	good = len == want->len && !memcmp(got, buf, len);
	free(got);
	return good;
}

static void compare(struct sop_txn *t, unsigned key, const struct value *want)
{
	if (!same(t, key, want)) {
		fprintf(stderr, "key %u want %u seed %u lsn %llu\n", key, want->len, want->seed,
			(unsigned long long)sop_txn_lsn(t));
		die(want->len ? "another value" : "a key that is not to be there");
	}
}

static void compare_some(struct sop_txn *t, const struct model *m)
{
	unsigned k = (unsigned)dice(KEYS);

	compare(t, k, &m->at[k]);
}

static void compare_all(struct sop_txn *t, const struct model *m)
{
	for (unsigned k = 0; k < KEYS; k++)
		compare(t, k, &m->at[k]);
}

static void change(struct mounter *m)
{
	struct sop_txn *t = open_txn = begin(m->v, SOP_TXN_WRITE);
	struct model next = now;
	int rc;

	for (uint64_t n = 1 + dice(6); n; n--) {
		unsigned k = (unsigned)dice(KEYS);
		char name[32];

		key_name(name, k);
		if (next.at[k].len && !dice(3)) {
			ok(sop_remove(t, SOP_NAME(store, name), &e), "remove");
			next.at[k].len = 0;
			continue;
		}
		next.at[k] = (struct value){
			(uint32_t)(1 + dice(dice(2) ? 200 : VALUE)), (uint32_t)dice(UINT32_MAX)};
		fill_random(buf, next.at[k].len, next.at[k].seed);
		ok(sop_upsert(t, SOP_NAME(store, name), buf, next.at[k].len, &e), "upsert");
	}
	open_txn = NULL;
	rc = sop_txn_commit(t, 0, &e);
	if (rc && sim_crashed(sim)) {
		instead = next;
		in_doubt = true;
	}
	ok(rc, "commit");
	now = next;
}

static void end_reader(struct reader *r)
{
	if (!r->t)
		return;
	compare_all(r->t, &r->saw);
	sop_txn_rollback(r->t);
	r->t = NULL;
}

static void read_or_end(struct mounter *m)
{
	struct reader *r = &m->reader[dice(READERS)];

	if (r->t) {
		end_reader(r);
		return;
	}
	follow(m->v);
	r->t = begin(m->v, SOP_TXN_READ);
	r->saw = now;
	compare_some(r->t, &r->saw);
}

/* Without a look at what its readers see. */
static void drop(struct mounter *m)
{
	for (unsigned i = 0; i < READERS; i++) {
		if (m->reader[i].t)
			sop_txn_rollback(m->reader[i].t);
		m->reader[i].t = NULL;
	}
	if (m->v)
		(void)sop_volume_close(m->v, NULL);
	m->v = NULL;
}

static void unmount(struct mounter *m)
{
	for (unsigned i = 0; i < READERS; i++)
		end_reader(&m->reader[i]);
	ok(sop_volume_close(m->v, &e), "close");
	m->v = NULL;
}

static void die_of(struct mounter *m)
{
	dies = true;
	drop(m);
	dies = false;
	deaths++;
}

static void tick_others(const struct mounter *m)
{
	for (unsigned i = 0; i < MOUNTERS; i++)
		if (mounter[i].v && &mounter[i] != m)
			ok(sop_volume_tick(mounter[i].v, &e), "tick");
}

/* The others wait for it, and see no lock of it: it has a fence before it wakes up. Then nothing
 * that it does is accepted. */
static void zombie(struct mounter *m)
{
	struct mounter *by = m == mounter ? m + 1 : mounter;
	struct sop_txn *t;
	char name[32];
	int rc;

	if (!by->v)
		return;
	/* An image that all others know of. */
	for (unsigned i = 0; i < 2 * MOUNTERS; i++)
		tick_others(NULL);
	change(by);
	ok(sop_volume_checkpoint(by->v, &e), "checkpoint");
	for (unsigned i = 0; i < MOUNTERS; i++)
		tick_others(m);
	unseen = true;
	ok(sop_volume_tick(by->v, &e), "tick");
	unseen = false;
	key_name(name, 0);
	t = open_txn = begin(m->v, SOP_TXN_WRITE);
	rc = sop_upsert(t, SOP_NAME(store, name), "zombie", 6, &e);
	open_txn = NULL;
	if (rc)
		sop_txn_rollback(t);
	else
		rc = sop_txn_commit(t, 0, &e);
	if (sim_crashed(sim))
		longjmp(dark, 1);
	if (!rc)
		die("a zombie commits");
	drop(m);
	fenced++;
}

static void mount(struct mounter *m)
{
	ok(sop_volume_open(&m->v, paths, DISKS, &opts, &e), "open");
}

static void say(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "images: %s\n", line);
}

static void look_through(struct sop_volume *v)
{
	struct sop_txn *t = begin_read(v);

	for (unsigned k = 0; k < KEYS && in_doubt; k++)
		if (!same(t, k, &now.at[k])) {
			now = instead;
			break;
		}
	in_doubt = false;
	compare_all(t, &now);
	rollback(t);
}

static void verdict(void)
{
	struct sop_check_report r;
	struct sop_volume *v;

	opts.exclusive = true;
	ok(sop_volume_open(&v, paths, DISKS, &opts, &e), "open at the end");
	look_through(v);
	ok(sop_volume_check(v, true, say, NULL, &r, &e), "check");
	if (r.errors)
		die("the volume is not whole");
	ok(sop_volume_close(v, &e), "close at the end");
	opts.exclusive = false;
}

static void one_step(void)
{
	struct mounter *m = &mounter[dice(MOUNTERS)];
	struct sop_txn *t;

	if (!m->v) {
		mount(m);
		look_through(m->v);
		return;
	}
	switch (dice(14)) {
	case 0:
		if (!dice(4))
			unmount(m);
		break;
	case 1:
		ok(sop_volume_checkpoint(m->v, &e), "checkpoint");
		break;
	case 2:
	case 3:
		ok(sop_volume_tick(m->v, &e), "tick");
		break;
	case 4:
		tick_others(NULL);
		break;
	case 5:
	case 6:
		read_or_end(m);
		break;
	case 7:
		t = begin_read(m->v);
		compare_some(t, &now);
		rollback(t);
		break;
	case 8:
		if (!dice(6))
			die_of(m);
		break;
	case 9:
		if (!dice(6))
			zombie(m);
		break;
	default:
		change(m);
	}
}

/* The power goes in front of one of the next steps on a disk. */
static void cut(void)
{
	if (open_txn)
		sop_txn_rollback(open_txn);
	open_txn = NULL;
	dies = unseen = false;
	for (unsigned i = 0; i < MOUNTERS; i++)
		drop(&mounter[i]);
	sim_crash_at(sim, 0);
	sim_power_on(sim, dice(2) ? SIM_KEEP_RANDOM : SIM_KEEP_SYNCED_ONLY, dice(UINT32_MAX));
	cuts++;
}

static void steps(void)
{
	if (setjmp(dark))
		cut();
	for (; step < STEPS; step++) {
		if (!dice(60) && !sim_crashed(sim))
			sim_crash_at(sim, sim_steps(sim) + 1 + dice(300));
		one_step();
	}
}

static void make(void)
{
	struct sop_format_opts fo = {
		.k = 2, .m = 1, .shared = true, .force = true, .open_disk = sim_open_disk};
	struct sop_txn *t;

	memset(mounter, 0, sizeof(mounter));
	memset(&now, 0, sizeof(now));
	in_doubt = false;
	sim = sim_new(1);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(path[i], sizeof(path[i]), "/d%u", i + 1);
		paths[i] = path[i];
		sim_add_disk(sim, path[i], 0);
	}
	fo.open_disk_ctx = sim;
	ok(sop_format(paths, DISKS, &fo, NULL, &e), "format");
	opts = (struct sop_open_opts){.open_disk = hooked_disk,
		.open_disk_ctx = sim,
		.inline_io = true,
		.no_threads = true,
		.cache_bytes = 4 << 20};
	mount(&mounter[0]);
	t = begin(mounter[0].v, SOP_TXN_WRITE);
	ok(sop_store_at(t, "s", SOP_STORE_CREATE, NULL, &store, &e), "store");
	ok(sop_txn_commit(t, 0, &e), "commit");
}

static void walk(void)
{
	rng = seed * 0x9E3779B97F4A7C15u + 1;
	make();
	step = 0;
	steps();
	sim_crash_at(sim, 0);
	if (sim_crashed(sim))
		cut();
	for (unsigned i = 0; i < MOUNTERS; i++)
		if (mounter[i].v)
			unmount(&mounter[i]);
	verdict();
	sim_free(sim);
}

int main(void)
{
	const char *l = getenv("LONG"), *s = getenv("SEED");
	unsigned walks = l && *l && *l != '0' ? 2000 : 20;

	for (seed = s ? strtoull(s, NULL, 10) : 1; seed <= walks || s; seed++) {
		walk();
		if (s)
			break;
	}
	printf("images: %u walks of %d steps: %u power cuts, %u deaths, %u taken for dead\n",
		s ? 1 : walks, STEPS, cuts, deaths, fenced);
	return 0;
}
