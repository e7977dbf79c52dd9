/* Crash enumeration: a workload on simulated disks is cut at every step that changes a disk; what a
 * power cut may leave is drawn; then the volume is opened and must hold an exact prefix of the
 * commit history, with everything that was durable in it, and check clean. Recovery is cut as well.
 *
 *     crash_engine [--points N] [--seed S] [--only SEED:STEP:CHOICE] */
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/fixture.h"

#define KEYS	8
#define COMMITS 24
#define VALUE	120000

/* The state after n commits: a hash of each key's value, 0: absent. */
struct state {
	uint64_t hash[KEYS];
};

struct run {
	struct fixture f;
	uint64_t seed, step, choice;
	struct state hist[COMMITS + 1];
	unsigned tried;	  /* commits begun */
	unsigned durable; /* the newest known to be on the media */
	unsigned acked;
	uint64_t store[2];
	bool have_store; /* the stores' own commit was acknowledged */
	uint8_t *model[KEYS];
	size_t len[KEYS];
	bool there[KEYS];
};

static const char *program;
static unsigned long points, deep;

static void die(struct run *r, const char *what)
{
	fprintf(stderr,
		"crash_engine: %s: %s\n  tried %u acked %u durable %u\n"
		"  again: %s --only %llu:%llu:%llu\n",
		what, r->f.e.text, r->tried, r->acked, r->durable, program,
		(unsigned long long)r->seed, (unsigned long long)r->step,
		(unsigned long long)r->choice);
	exit(1);
}

static uint64_t hash_bytes(const uint8_t *p, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull ^ len;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h | 1;
}

static void note_state(struct run *r, unsigned n)
{
	for (unsigned k = 0; k < KEYS; k++)
		r->hist[n].hash[k] = r->there[k] ? hash_bytes(r->model[k], r->len[k]) : 0;
}

/* A piece of another key, by reference, as it is in the transaction. 1: there is none. */
static int copy_piece(struct run *r, struct sop_txn *t, unsigned k, uint64_t *rng)
{
	unsigned from = (unsigned)(next_random(rng) % KEYS);
	uint64_t off = next_random(rng) % VALUE, at = next_random(rng) % VALUE, len;
	struct sop_value *x, *y;
	char key[2][8];
	struct sop_clip *c;
	ssize_t n;
	int rc;

	if (from == k || !r->there[from] || at >= r->len[from])
		return 1;
	len = SOP_MIN(r->len[from] - at, VALUE - off);
	snprintf(key[0], sizeof(key[0]), "k%u", from);
	snprintf(key[1], sizeof(key[1]), "k%u", k);
	rc = sop_value_open(&x, t, SOP_NAME(r->store[from % 2], key[0]), 0, &r->f.e);
	if (rc)
		return rc;
	rc = sop_clip_take(&c, x, at, len, &r->f.e);
	sop_value_close(x);
	if (rc)
		return rc;
	rc = sop_value_open(&y, t, SOP_NAME(r->store[k % 2], key[1]), SOP_VALUE_WRITE, &r->f.e);
	if (!rc) {
		n = sop_clip_put(y, c, off, &r->f.e);
		sop_value_close(y);
		rc = n < 0 ? (int)n : 0;
		if (n > 0) {
			if (off > r->len[k])
				memset(r->model[k] + r->len[k], 0, off - r->len[k]);
			memcpy(r->model[k] + off, r->model[from] + at, (size_t)n);
			r->len[k] = SOP_MAX(r->len[k], off + (uint64_t)n);
		}
	}
	sop_clip_free(c);
	return rc;
}

/* One change to a key, in the transaction and in the model. */
static int change(struct run *r, struct sop_txn *t, unsigned k, uint64_t *rng)
{
	static const size_t sizes[] = {0, 10, 1500, 3000, 5000, 70000, VALUE / 2};
	struct sop_err *e = &r->f.e;
	char key[8];
	struct sop_name name;
	struct sop_value *x;
	size_t len = sizes[next_random(rng) % SOP_ARRAY_LEN(sizes)], off;
	uint8_t *buf = r->model[k];
	ssize_t n = 0;
	int rc;

	snprintf(key, sizeof(key), "k%u", k);
	name = SOP_NAME(r->store[k % 2], key);
	switch (r->there[k] ? next_random(rng) % 8 : 0) {
	case 0:
	case 1:
		fill_random(buf, len, next_random(rng));
		r->len[k] = len;
		r->there[k] = true;
		return sop_upsert(t, name, buf, len, e);
	case 2:
		r->there[k] = false;
		r->len[k] = 0;
		return sop_remove(t, name, e);
	case 3: /* append */
		len = SOP_MIN(len, VALUE - r->len[k]);
		off = r->len[k];
		rc = sop_value_open(&x, t, name, SOP_VALUE_WRITE | SOP_VALUE_APPEND, e);
		break;
	case 4: /* overwrite a range */
		off = r->len[k] ? next_random(rng) % r->len[k] : 0;
		len = SOP_MIN(len, VALUE - off);
		rc = sop_value_open(&x, t, name, SOP_VALUE_WRITE, e);
		break;
	case 5:
	case 6:
		rc = copy_piece(r, t, k, rng);
		if (rc <= 0)
			return rc;
		__attribute__((fallthrough));
	default: /* truncate */
		rc = sop_value_open(&x, t, name, SOP_VALUE_WRITE, e);
		if (rc)
			return rc;
		off = next_random(rng) % VALUE;
		if (off > r->len[k])
			memset(buf + r->len[k], 0, off - r->len[k]);
		r->len[k] = off;
		rc = sop_value_truncate(x, off, e);
		sop_value_close(x);
		return rc;
	}
	if (rc)
		return rc;
	fill_random(buf + off, len, next_random(rng));
	if (len)
		n = sop_value_write(x, buf + off, len, off, e);
	r->len[k] = SOP_MAX(r->len[k], off + len);
	sop_value_close(x);
	return n < 0 ? (int)n : 0;
}

static int make_stores(struct run *r)
{
	int rc = fixture_store(&r->f, "a", &r->store[0]);

	return rc ? rc : fixture_store(&r->f, "a/b", &r->store[1]);
}

/* Run until done or until the machine stops. Returns what ended it. */
static int workload(struct run *r)
{
	uint64_t rng = r->seed;
	int rc = fixture_open(&r->f);

	if (rc)
		return rc;
	rc = make_stores(r);
	if (rc)
		return rc;
	r->have_store = true;
	note_state(r, 0);
	for (unsigned n = 1; n <= COMMITS; n++) {
		bool durable = next_random(&rng) % 3 == 0;
		struct sop_txn *t;
		unsigned keys = 1 + (unsigned)(next_random(&rng) % 3);
		unsigned first = (unsigned)(next_random(&rng) % KEYS);

		rc = sop_txn_begin(
			&t, r->f.v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &r->f.e);
		if (rc)
			return rc;
		for (unsigned k = 0; k < keys && !rc; k++)
			rc = change(r, t, (first + k) % KEYS, &rng);
		if (rc) {
			sop_txn_rollback(t);
			return rc;
		}
		if (next_random(&rng) % 8 == 0) { /* a session that ends without a commit */
			sop_txn_rollback(t);
			return -ECANCELED;
		}
		note_state(r, n);
		r->tried = n;
		rc = sop_txn_commit(t, durable ? SOP_COMMIT_DURABLE : 0, &r->f.e);
		if (rc)
			return rc;
		r->acked = n;
		if (durable)
			r->durable = n;
		switch (next_random(&rng) % 6) {
		case 0:
			rc = sop_volume_tick(r->f.v, &r->f.e);
			break;
		case 1:
			rc = sop_volume_checkpoint(r->f.v, &r->f.e);
			break;
		default:
			break;
		}
		if (rc)
			return rc;
	}
	return 0;
}

static uint64_t key_hash(struct run *r, uint64_t store, unsigned k)
{
	char key[8];
	void *val;
	size_t len;
	uint64_t h;
	int rc;

	snprintf(key, sizeof(key), "k%u", k);
	rc = sop_get(sop_volume_latest(r->f.v), SOP_NAME(store, key), &val, &len, &r->f.e);
	if (rc == -ENOENT)
		return 0;
	if (rc)
		die(r, "a committed value cannot be read");
	h = hash_bytes(val, len);
	free(val);
	return h;
}

static void report(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", line);
}

/* The opened volume holds a prefix at or after what was durable, and checks clean. */
static void verify(struct run *r, unsigned at_least, unsigned at_most)
{
	struct sop_check_report rep;
	struct sop_attr a, b;
	struct state now = {{0}};
	unsigned n;
	int rc;

	if (r->f.v == NULL)
		die(r, "not open");
	rc = sop_lookup(sop_volume_latest(r->f.v), SOP_NAME(SOP_ROOT, "a"), &a, &r->f.e);
	if (!rc)
		rc = sop_lookup(sop_volume_latest(r->f.v), SOP_NAME(a.ino, "b"), &b, &r->f.e);
	if (rc == -ENOENT) {
		if (at_least || r->durable)
			die(r, "durable stores are gone");
	} else if (rc) {
		die(r, "the stores cannot be read");
	} else {
		for (unsigned k = 0; k < KEYS; k++)
			now.hash[k] = key_hash(r, k % 2 ? b.ino : a.ino, k);
		for (n = at_most + 1; n-- > at_least;)
			if (!memcmp(&now, &r->hist[n], sizeof(now)))
				break;
		if (n + 1 == at_least || n > at_most)
			die(r, "what is there is no prefix of what was committed");
	}
	rc = sop_volume_check(r->f.v, true, report, NULL, &rep, &r->f.e);
	if (rc || rep.errors)
		die(r, "the volume does not check clean");
}

static void run_free(struct run *r)
{
	fixture_release(&r->f);
	for (unsigned k = 0; k < KEYS; k++)
		free(r->model[k]);
}

static void run_init(struct run *r, uint64_t seed, uint64_t step, uint64_t choice)
{
	memset(r, 0, sizeof(*r));
	r->seed = seed;
	r->step = step;
	r->choice = choice;
	fixture_init(&r->f, 2, 1, 0);
	r->f.opts.cache_bytes = 4 << 20;
	for (unsigned k = 0; k < KEYS; k++)
		r->model[k] = calloc(1, VALUE);
}

/* Power on; now and then the machine stops again inside of recovery. */
static void recover_and_verify(struct run *r, bool process_crash)
{
	uint64_t rng = r->choice ^ r->seed ^ r->step;
	enum sim_keep keep = process_crash		  ? SIM_KEEP_ALL
			     : next_random(&rng) % 4 == 0 ? SIM_KEEP_SYNCED_ONLY
							  : SIM_KEEP_RANDOM;
	unsigned least = process_crash ? r->acked : r->durable;
	int rc;

	sim_power_on(r->f.sim, keep, next_random(&rng));
	for (unsigned level = 0; level < 2 && next_random(&rng) % 3 == 0; level++) {
		deep++;
		sim_crash_at(r->f.sim, sim_steps(r->f.sim) + 1 + next_random(&rng) % 60);
		rc = fixture_open(&r->f);
		if (!rc)
			sop_volume_close(r->f.v, NULL);
		r->f.v = NULL;
		sim_crash_at(r->f.sim, 0);
		sim_power_on(r->f.sim, keep, next_random(&rng));
	}
	rc = fixture_open(&r->f);
	if (rc)
		die(r, "the volume does not open");
	verify(r, least, r->tried);
}

/* One crash point. False: the workload ended before it. */
static bool point(uint64_t seed, uint64_t step, uint64_t choice)
{
	struct run r;
	bool process_crash = choice % 5 == 4, crashed;
	int rc;

	run_init(&r, seed, step, choice);
	sim_crash_at(r.f.sim, sim_steps(r.f.sim) + step);
	rc = workload(&r);
	crashed = sim_crashed(r.f.sim);
	if (rc && !crashed && rc != -ECANCELED)
		die(&r, "the workload failed without a crash");
	if (r.f.v)
		sop_volume_close(r.f.v, NULL);
	r.f.v = NULL;
	crashed = crashed || sim_crashed(r.f.sim);
	sim_crash_at(r.f.sim, 0);
	recover_and_verify(&r, process_crash);
	if (fixture_close(&r.f))
		die(&r, "close after recovery");
	run_free(&r);
	points++;
	return crashed;
}

int main(int argc, char **argv)
{
	unsigned long want = 1500;
	uint64_t seed = 1, stride;

	program = argv[0];
	for (int i = 1; i < argc; i++) {
		unsigned long long a, b, c;

		if (!strcmp(argv[i], "--points") && i + 1 < argc) {
			want = strtoul(argv[++i], NULL, 10);
		} else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
			seed = strtoull(argv[++i], NULL, 10);
		} else if (!strcmp(argv[i], "--only") && i + 1 < argc &&
			   sscanf(argv[++i], "%llu:%llu:%llu", &a, &b, &c) == 3) {
			point(a, b, c);
			puts("passed");
			return 0;
		} else {
			fprintf(stderr,
				"usage: %s [--points N] [--seed S] [--only SEED:STEP:CHOICE]\n",
				program);
			return 2;
		}
	}
	printf("crash_engine: seed %llu, %lu points\n", (unsigned long long)seed, want);
	/* All steps of many short workloads, in strides when the points are few. */
	stride = want >= 20000 ? 1 : 7;
	for (; points < want; seed++)
		for (uint64_t step = 1 + seed % stride;
			points < want &&
			point(seed, step, next_random(&(uint64_t){seed * 1000 + step}) % 1000);
			step += stride)
			;
	printf("crash_engine: %lu crash points, %lu of them also inside of recovery\n", points,
		deep);
	printf("%lu passed, 0 failed\n", points);
	return 0;
}
