/* Damage of every kind of file in a volume: what up to m disks have lost or lie about is made up
 * for, at mount, while it is mounted, and by fsck; beyond that what is lost gives an error, and
 * nothing ever gives a wrong byte. The content is compared with a known tree each time. SEED=n,
 * ROUNDS=n, ONLY=the test's name, * for any part of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/lib/fixture.h"

#define K	  2u
#define M	  2u
#define DISKS	  (K + M)
#define FILES_MAX 64u

/* ---- the known tree ---- */

struct known {
	const char *dir; /* NULL: the root */
	const char *key;
	size_t len;
	uint64_t seed;
};

static const struct known tree[] = {
	{NULL, "empty", 0, 1},
	{NULL, "tiny", 5, 2},
	{NULL, "small", 1500, 3},
	{NULL, "medium", 9000, 4},
	{"quiet", "early", 100, 10},
	/* Here the older state ends. */
	{"quiet", "late", 100, 11},
	{NULL, "large", 700000, 5},
	{"a", "one", 300, 6},
	{"a", "two", 30000, 7},
	{"a", "linked", 20000, 8},
	{"b", "deep", 64000, 9},
};

struct dir {
	const char *name;
	uint64_t store;
};

static uint64_t seed_of_run;

static uint64_t store_of(struct fixture *f, const char *dir)
{
	struct sop_attr a;
	int rc;

	if (!dir)
		return SOP_ROOT;
	rc = sop_lookup(sop_volume_latest(f->v), SOP_NAME(SOP_ROOT, dir), &a, &f->e);
	return rc ? 0 : a.ino;
}

#define MANY 150u

static void many_key(char key[32], unsigned i)
{
	snprintf(key, 32, "item %05u of many", i);
}

static void fill(struct fixture *f, unsigned from, unsigned to)
{
	static uint8_t buf[700000];
	uint64_t store;

	for (unsigned i = from; i < to && i < SOP_ARRAY_LEN(tree); i++) {
		store = SOP_ROOT;
		if (tree[i].dir)
			fixture_ok(f, fixture_store(f, tree[i].dir, &store));
		fill_random(buf, tree[i].len, tree[i].seed);
		fixture_ok(f, fixture_upsert(f, store, tree[i].key, buf, tree[i].len, true));
	}
}

static void fill_many(struct fixture *f)
{
	struct sop_txn *t;
	uint64_t store;
	char key[32];

	fixture_ok(f, fixture_store(f, "many", &store));
	t = fixture_begin(f, SOP_TXN_WRITE);
	for (unsigned i = 0; i < MANY; i++) {
		many_key(key, i);
		fixture_ok(f, sop_add(t, SOP_NAME(store, key), key, strlen(key), &f->e));
	}
	fixture_ok(f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f->e));
}

static void link_it(struct fixture *f)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	uint64_t a = store_of(f, "a"), b = store_of(f, "b");

	fixture_ok(f, sop_link(t, SOP_NAME(a, "linked"), SOP_NAME(b, "other name"), NULL, &f->e));
	fixture_ok(f, sop_txn_commit(t, SOP_COMMIT_DURABLE, &f->e));
}

/* Machines that the damage is done to: `old` as it was at half of the work. */
struct machines {
	struct fixture f;
	struct sim *old, *closed, *crashed;
};

/* The volume is formatted. */
static void furnish(struct machines *m)
{
	fixture_ok(&m->f, fixture_open(&m->f));
	fill(&m->f, 0, 5);
	fixture_ok(&m->f, sop_volume_checkpoint(m->f.v, &m->f.e));
	m->old = sim_clone(m->f.sim, 2);
	fill(&m->f, 5, SOP_ARRAY_LEN(tree));
	fixture_ok(&m->f, sop_volume_checkpoint(m->f.v, &m->f.e));
	link_it(&m->f);
	fill_many(&m->f);
	m->crashed = sim_clone(m->f.sim, 3);
	fixture_ok(&m->f, fixture_close(&m->f));
	m->closed = sim_clone(m->f.sim, 4);
}

static void machines_make(struct machines *m)
{
	fixture_init(&m->f, K, M, 0);
	furnish(m);
}

static void machines_make_shared(struct machines *m)
{
	fixture_init_shared(&m->f, K, M);
	furnish(m);
}

static void machines_free(struct machines *m)
{
	sim_free(m->old);
	sim_free(m->closed);
	sim_free(m->crashed);
	fixture_release(&m->f);
}

/* A fixture on a copy of a machine. */
static struct fixture on_copy(const struct machines *m, struct sim *of)
{
	struct fixture f = m->f;

	f.sim = sim_clone(of, 5);
	f.v = NULL;
	f.opts.open_disk_ctx = f.sim;
	f.opts.degraded = true;
	for (unsigned i = 0; i < f.disks; i++)
		f.paths[i] = m->f.paths[i];
	return f;
}

/* ---- comparing ---- */

enum allow { RIGHT, RIGHT_OR_ERROR, RIGHT_OR_GONE };

/* True: all of it was read. */
static bool same_value(struct fixture *f, uint64_t store, const char *key, const uint8_t *want,
	size_t len, enum allow allow, const char *where)
{
	struct sop_value *x = NULL;
	uint8_t buf[4096];
	bool whole = true;
	int rc = store ? sop_value_open(&x, sop_volume_latest(f->v), SOP_NAME(store, key), 0, &f->e)
		       : f->e.code;

	if (rc) {
		if (rc == -ENOENT && allow == RIGHT_OR_GONE)
			return false;
		if (rc != -ENOENT && allow != RIGHT)
			return false;
		fail_msg("%s: %s: %s", where, key, f->e.text);
	}
	if (sop_value_size(x) != len)
		fail_msg("%s: %s: %llu bytes long, not %zu", where, key,
			(unsigned long long)sop_value_size(x), len);
	for (size_t off = 0; off < len; off += sizeof(buf)) {
		size_t want_len = SOP_MIN(sizeof(buf), len - off);
		ssize_t n = sop_value_read(x, buf, want_len, off, &f->e);

		if (n < 0) {
			if (allow != RIGHT_OR_ERROR)
				fail_msg("%s: %s at %zu: %s", where, key, off, f->e.text);
			whole = false;
			continue;
		}
		if ((size_t)n != want_len || memcmp(buf, want + off, want_len))
			fail_msg("%s: %s at %zu: WRONG BYTES", where, key, off);
	}
	sop_value_close(x);
	return whole;
}

/* Compare all that should be there; the number of items that are not whole. */
static unsigned compare(struct fixture *f, enum allow allow, const char *where)
{
	static uint8_t want[700000];
	unsigned missing = 0;
	uint64_t store;
	char key[32];

	for (unsigned i = 0; i < SOP_ARRAY_LEN(tree); i++) {
		store = store_of(f, tree[i].dir);
		fill_random(want, tree[i].len, tree[i].seed);
		missing += !same_value(f, store, tree[i].key, want, tree[i].len, allow, where);
	}
	store = store_of(f, "b");
	fill_random(want, 20000, 8);
	missing += !same_value(f, store, "other name", want, 20000, allow, where);
	store = store_of(f, "many");
	for (unsigned i = 0; i < MANY; i++) {
		many_key(key, i);
		missing +=
			!same_value(f, store, key, (const uint8_t *)key, strlen(key), allow, where);
	}
	return missing;
}

/* ---- damaging ---- */

enum kind { FLIP, TRUNCATE, ZERO_LENGTH, GARBAGE_BEHIND, GARBAGE, MISSING, SWAPPED, OLD, KINDS };
static const char *const kind_name[] = {"bits flipped", "truncated", "zero length",
	"garbage appended", "overwritten with garbage", "missing", "swapped with another disk's",
	"of an older generation"};

struct files {
	char name[FILES_MAX][64];
	uint64_t size[FILES_MAX];
	unsigned n;
};

static void note_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct files *l = arg;

	(void)allocated;
	if (l->n < FILES_MAX) {
		snprintf(l->name[l->n], sizeof(l->name[0]), "%s", file);
		l->size[l->n++] = size;
	}
}

static void list_files(struct files *l, struct sim *s, const char *disk)
{
	l->n = 0;
	sim_each_file(s, disk, note_file, l);
}

static void put_whole(
	struct sim *s, const char *disk, const char *file, const uint8_t *buf, size_t len)
{
	sim_set_size(s, disk, file, 0);
	sim_set_size(s, disk, file, len);
	if (len)
		sim_poke(s, disk, file, 0, buf, len);
}

static uint64_t size_of(struct sim *s, const char *disk, const char *file)
{
	struct files l;

	list_files(&l, s, disk);
	for (unsigned i = 0; i < l.n; i++)
		if (!strcmp(l.name[i], file))
			return l.size[i];
	return UINT64_MAX;
}

#define WHOLE_MAX (64u << 20)

static void copy_file(struct sim *to, const char *to_disk, const char *to_file, struct sim *from,
	const char *disk, const char *file)
{
	uint64_t len = size_of(from, disk, file);
	uint8_t *buf;

	if (len == UINT64_MAX || len > WHOLE_MAX)
		return;
	buf = malloc(len + 1);
	assert_non_null(buf);
	if (len)
		sim_peek(from, disk, file, 0, buf, len);
	put_whole(to, to_disk, to_file, buf, len);
	free(buf);
}

/* Shard files of one segment on two disks have different names: their content changes places. */
static const char *partner(struct files *l, const char *file)
{
	size_t len = strcspn(file, ".");

	for (unsigned i = 0; i < l->n; i++)
		if (!strcmp(l->name[i], file) ||
			(!strncmp(file, "segments/", 9) && !strncmp(l->name[i], file, len + 1)))
			return l->name[i];
	return NULL;
}

static void swap(struct fixture *f, unsigned disk, unsigned other, const char *file)
{
	struct sim *was = sim_clone(f->sim, 6);
	const char *name;
	struct files l;

	list_files(&l, f->sim, f->path[other]);
	name = partner(&l, file);
	if (name) {
		copy_file(f->sim, f->path[disk], file, was, f->path[other], name);
		copy_file(f->sim, f->path[other], name, was, f->path[disk], file);
	}
	sim_free(was);
}

/* other: the disk to swap with. */
static void damage(const struct machines *m, struct fixture *f, unsigned disk, unsigned other,
	const char *file, enum kind kind, uint64_t *rng)
{
	const char *d = f->path[disk];
	uint64_t size = size_of(f->sim, d, file), at;
	uint8_t buf[5000];

	if (size == UINT64_MAX)
		return;
	fill_random(buf, sizeof(buf), next_random(rng));
	switch (kind) {
	case FLIP:
		/* Where there is something: most of a registry file is a hole. */
		for (unsigned i = 0; i < 24 && size; i++) {
			uint64_t span = i % 3 ? SOP_MIN(size, (uint64_t)20000) : size;

			at = next_random(rng) % span;
			/* Another version is refused, before the checksum is looked at. */
			if (at >= 8 && at < 12 && !strncmp(file, "label", 5))
				continue;
			sim_peek(f->sim, d, file, at, buf, 1);
			buf[0] ^= (uint8_t)(1u << next_random(rng) % 8);
			sim_poke(f->sim, d, file, at, buf, 1);
		}
		break;
	case TRUNCATE:
		sim_set_size(f->sim, d, file, size ? next_random(rng) % size : 0);
		break;
	case ZERO_LENGTH:
		sim_set_size(f->sim, d, file, 0);
		break;
	case GARBAGE_BEHIND:
		sim_poke(f->sim, d, file, size, buf, sizeof(buf));
		break;
	case GARBAGE:
		for (at = 0; at < SOP_MIN(size, (uint64_t)1 << 20); at += sizeof(buf)) {
			fill_random(buf, sizeof(buf), next_random(rng));
			sim_poke(f->sim, d, file, at, buf, SOP_MIN(sizeof(buf), size - at));
		}
		break;
	case MISSING:
		sim_remove(f->sim, d, file);
		break;
	case SWAPPED:
		swap(f, disk, other, file);
		break;
	case OLD:
		copy_file(f->sim, d, file, m->old, d, file);
		break;
	case KINDS:
		break;
	}
}

/* ---- fsck ---- */

struct told {
	unsigned count[SOP_FOUND_STATES];
	char first[512];
};

static void told(void *ctx, const struct sop_finding *f)
{
	struct told *t = ctx;

	if (!t->count[f->state]++ && f->state != SOP_FOUND_NOTE)
		snprintf(t->first, sizeof(t->first), "%.200s: %.300s", f->object, f->what);
}

static void log_line(void *ctx, enum sop_log_level level, const char *module, const char *line)
{
	(void)ctx;
	print_message("%s %s: %s\n", sop_log_level_name(level), module, line);
}
static const struct sop_log log_all = {.sink = log_line, .max_level = SOP_LOG_INFO};

static int fsck(struct fixture *f, bool repair, bool discard, struct told *t)
{
	struct sop_fsck_report r;
	const struct sop_fsck_opts o = {.repair = repair,
		.discard_lost = discard,
		.found = told,
		.ctx = t,
		.open_disk = sim_open_disk,
		.open_disk_ctx = f->sim,
		.log = getenv("VERBOSE") ? &log_all : NULL};

	memset(t, 0, sizeof(*t));
	memset(&f->e, 0, sizeof(f->e));
	return sop_fsck(f->paths, f->disks, &o, &r, &f->e);
}

static void open_and_compare(struct fixture *f, const char *where)
{
	if (fixture_open(f))
		fail_msg("%s: %s", where, f->e.text);
	compare(f, RIGHT, where);
	if (fixture_close(f))
		fail_msg("%s: close: %s", where, f->e.text);
}

/* nameless: a folder may have lost both labels and all that shows whose it is; then it is left
 * alone. */
static void fsck_makes_whole(struct fixture *f, bool nameless, const char *where)
{
	struct told t;

	if (fsck(f, true, false, &t))
		fail_msg("%s: fsck: %s", where, f->e.text);
	if (nameless && t.count[SOP_FOUND_HELP])
		return;
	if (t.count[SOP_FOUND_LOST] + t.count[SOP_FOUND_FIXABLE] + t.count[SOP_FOUND_HELP])
		fail_msg("%s: fsck -y leaves: %s", where, t.first);
	if (fsck(f, false, false, &t))
		fail_msg("%s: fsck -n: %s", where, f->e.text);
	if (t.first[0])
		fail_msg("%s: fsck -n after -y: %s", where, t.first);
}

/* One case, in the three ways that damage is met. */
static void survive(const struct machines *m, struct sim *of, unsigned disk, const char *file,
	enum kind kind, uint64_t seed)
{
	char where[256];
	struct fixture f;
	uint64_t rng;

	snprintf(where, sizeof(where), "%s volume, disk %u, %s, %s (SEED=%llu)",
		of == m->closed ? "closed" : "crashed", disk, file, kind_name[kind],
		(unsigned long long)seed_of_run);
	f = on_copy(m, of);
	rng = seed;
	damage(m, &f, disk, (disk + 1) % DISKS, file, kind, &rng);
	open_and_compare(&f, where);
	sim_free(f.sim);

	f = on_copy(m, of);
	rng = seed;
	damage(m, &f, disk, (disk + 1) % DISKS, file, kind, &rng);
	fsck_makes_whole(&f, false, where);
	open_and_compare(&f, where);
	sim_free(f.sim);

	if (of != m->closed || !strcmp(file, "lock"))
		return;
	f = on_copy(m, of);
	fixture_ok(&f, fixture_open(&f));
	rng = seed;
	damage(m, &f, disk, (disk + 1) % DISKS, file, kind, &rng);
	compare(&f, RIGHT, where);
	fixture_close(&f);
	open_and_compare(&f, where);
	sim_free(f.sim);
}

/* SMALL=1: as many as a run under valgrind has time for. */
static unsigned rounds_of(unsigned small, unsigned usual, unsigned heavy)
{
	const char *rounds = getenv("ROUNDS");

	return rounds		 ? (unsigned)atoi(rounds)
	       : getenv("LONG")	 ? heavy
	       : getenv("SMALL") ? small
				 : usual;
}

static void one_damaged_file_of_each_kind_is_made_up_for_and_mended(void **state)
{
	bool small = getenv("SMALL");
	struct machines m;
	unsigned cases = 0;

	(void)state;
	machines_make(&m);
	for (unsigned b = 0; b < 2; b++) {
		struct sim *of = b ? m.crashed : m.closed;

		for (unsigned d = 0; d < DISKS; d++) {
			struct files l;

			/* Disks 1 and 2 are as 0; the last one has no registry. */
			if (!getenv("LONG") && (d == 1 || d == 2))
				continue;
			list_files(&l, of, m.f.path[d]);
			for (unsigned i = 0; i < l.n; i++)
				for (enum kind k = 0; k < KINDS; k++)
					if (!small || (i + d + b) % KINDS == k)
						survive(&m, of, d, l.name[i], k,
							seed_of_run * 1000003 + cases++);
		}
	}
	print_message("%u cases\n", cases);
	machines_free(&m);
}

/* The registers of slots, and their floor: in them is all that a shared volume's checkpoint lacks.
 */
static void one_damaged_file_of_the_slots_is_made_up_for(void **state)
{
	bool small = getenv("SMALL");
	struct machines m;
	unsigned cases = 0;
	struct files l;

	(void)state;
	machines_make_shared(&m);
	list_files(&l, m.crashed, m.f.path[0]);
	for (unsigned i = 0; i < l.n; i++)
		for (enum kind k = 0; k < KINDS && !strncmp(l.name[i], "slots/", 6); k++)
			if (!small || i % KINDS == k)
				survive(&m, m.crashed, 0, l.name[i], k,
					seed_of_run * 7000003 + cases++);
	print_message("%u cases\n", cases);
	assert_true(cases > 10);
	machines_free(&m);
}

/* A slot that no replica can tell any more is no end of the history: the mount is refused. */
static void a_slot_that_is_damaged_everywhere_is_not_taken_for_the_end(void **state)
{
	unsigned refused = 0;
	struct machines m;
	struct files l;

	(void)state;
	machines_make_shared(&m);
	list_files(&l, m.crashed, m.f.path[0]);
	for (unsigned i = 0; i < l.n; i++) {
		struct fixture f = on_copy(&m, m.crashed);
		uint64_t rng = seed_of_run + i;

		if (!strncmp(l.name[i], "slots/commit.", 13)) {
			for (unsigned d = 0; d < DISKS; d++)
				damage(&m, &f, d, d, l.name[i], GARBAGE, &rng);
			if (!fixture_open(&f)) {
				fixture_close(&f);
				fail_msg("%s is garbage everywhere, and the volume opens",
					l.name[i]);
			}
			refused++;
		}
		sim_free(f.sim);
	}
	print_message("%u slots\n", refused);
	assert_true(refused > 3);
	machines_free(&m);
}

/* Each file of m disks may be hit. */
static void m_disks_that_lie_are_made_up_for(void **state)
{
	unsigned n = rounds_of(4, 60, 2000);
	struct machines m;

	(void)state;
	machines_make(&m);
	for (unsigned i = 0; i < n; i++) {
		uint64_t rng = seed_of_run * 7919 + i;
		struct sim *of = next_random(&rng) % 2 ? m.crashed : m.closed;
		unsigned first = (unsigned)(next_random(&rng) % DISKS);
		unsigned second = (first + 1 + (unsigned)(next_random(&rng) % (DISKS - 1))) % DISKS;
		struct fixture f = on_copy(&m, of);
		char where[160];

		snprintf(where, sizeof(where), "round %u, disks %u and %u (SEED=%llu ROUNDS=%u)", i,
			first, second, (unsigned long long)seed_of_run, i + 1);
		for (unsigned k = 0; k < 2; k++) {
			unsigned disk = k ? second : first;
			struct files l;

			list_files(&l, f.sim, f.path[disk]);
			for (unsigned j = 0; j < l.n; j++) {
				enum kind kind = (enum kind)(next_random(&rng) % KINDS);

				/* Both copies swapped would be another cabling of the disks. */
				if (kind == SWAPPED && !strncmp(l.name[j], "label", 5))
					kind = FLIP;
				if (next_random(&rng) % 3 == 0)
					damage(&m, &f, disk, k ? first : second, l.name[j], kind,
						&rng);
			}
		}
		if (next_random(&rng) % 2)
			fsck_makes_whole(&f, true, where);
		open_and_compare(&f, where);
		sim_free(f.sim);
	}
	machines_free(&m);
}

/* Whatever is hit: right bytes or an error; fsck names what is lost and keeps it; told to, it
 * removes that and nothing else, and the rest is a whole volume. */
static void beyond_parity_nothing_is_wrong_and_fsck_makes_the_rest_whole(void **state)
{
	unsigned n = rounds_of(6, 120, 5000);
	unsigned opened = 0, repaired = 0, lost = 0;
	struct machines m;

	(void)state;
	machines_make(&m);
	for (unsigned i = getenv("FROM") ? (unsigned)atoi(getenv("FROM")) : 0; i < n; i++) {
		uint64_t rng = seed_of_run * 104729 + i;
		struct sim *of = next_random(&rng) % 2 ? m.crashed : m.closed;
		struct fixture f = on_copy(&m, of);
		unsigned often = 1 + (unsigned)(next_random(&rng) % 6);
		struct told t;
		char where[160];

		snprintf(where, sizeof(where), "round %u (SEED=%llu ROUNDS=%u)", i,
			(unsigned long long)seed_of_run, i + 1);
		for (unsigned d = 0; d < DISKS; d++) {
			struct files l;

			list_files(&l, f.sim, f.path[d]);
			for (unsigned j = 0; j < l.n; j++)
				if (next_random(&rng) % often == 0 &&
					strncmp(l.name[j], "label", 5) != 0)
					damage(&m, &f, d, d, l.name[j],
						(enum kind)(next_random(&rng) % MISSING), &rng);
		}
		if (next_random(&rng) % 2 && !fixture_open(&f)) {
			opened++;
			compare(&f, RIGHT_OR_ERROR, where);
			fixture_close(&f);
		}
		if (fsck(&f, true, false, &t) == 0) {
			lost += t.count[SOP_FOUND_LOST] != 0;
			if (t.count[SOP_FOUND_FIXABLE])
				fail_msg("%s: fsck -y leaves what it could put right: %s", where,
					t.first);
			if (!fixture_open(&f)) {
				unsigned missing = compare(&f, RIGHT_OR_ERROR, where);

				if (missing && !t.count[SOP_FOUND_LOST])
					fail_msg(
						"%s: %u items are not whole, and fsck said nothing",
						where, missing);
				fixture_close(&f);
			}
		}
		if (fsck(&f, true, true, &t)) {
			print_message("%s: not made whole: %s\n", where, f.e.text);
		} else {
			repaired++;
			if (fsck(&f, false, false, &t))
				fail_msg("%s: fsck -n after --discard-lost: %s", where, f.e.text);
			if (t.first[0])
				fail_msg("%s: fsck -n after --discard-lost: %s", where, t.first);
			if (fixture_open(&f))
				fail_msg("%s: open after --discard-lost: %s", where, f.e.text);
			compare(&f, RIGHT_OR_GONE, where);
			fixture_check(&f, true);
			if (fixture_close(&f))
				fail_msg("%s: close: %s", where, f.e.text);
		}
		sim_free(f.sim);
	}
	print_message(
		"%u rounds: %u opened, %u with losses, %u made whole\n", n, opened, lost, repaired);
	assert_true(repaired > n / 3);
	machines_free(&m);
}

int main(void)
{
	const char *seed = getenv("SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_damaged_file_of_each_kind_is_made_up_for_and_mended),
		cmocka_unit_test(one_damaged_file_of_the_slots_is_made_up_for),
		cmocka_unit_test(a_slot_that_is_damaged_everywhere_is_not_taken_for_the_end),
		cmocka_unit_test(m_disks_that_lie_are_made_up_for),
		cmocka_unit_test(beyond_parity_nothing_is_wrong_and_fsck_makes_the_rest_whole),
	};

	seed_of_run = seed ? strtoull(seed, NULL, 10) : 1;
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	print_message("SEED=%llu\n", (unsigned long long)seed_of_run);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
