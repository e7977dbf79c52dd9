/* Crash enumeration. Sequences of operations run on simulated disks: all of one and of two
 * operations, a sample of three, and some long ones, on healthy and degraded volumes. At every step
 * that changes a disk the machine is copied as it would be if it stopped there. What a power cut
 * may leave of a copy is drawn, for each disk apart; then the volume is opened and must hold an
 * exact prefix of the history of commits with all that was durable, or, when only the daemon died,
 * all that was acknowledged; everything must verify and nothing leak. Recovery is cut too, twice in
 * a row, and what it has shown once must stay.
 *
 *     crash_engine [--points N] [--per-sequence N] [--seed S] [--jobs J]
 *     crash_engine --only 2+1:append-big!,checkpoint:STEP:CHOICE      (! commits durably)
 *     crash_engine --broken RULE        the program forgets a sync: this must fail; --broken list
 */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/lib/scenario.h"

#define OPS_MAX	   24
#define POINTS_MAX 4096
#define LONG_OPS   20
#define FSCK	   24 /* one point of so many is gone over by it: that takes as long as some points */
#define LONGS	   100 /* sequences of a round */
#define THREES	   400
#define FEWER	   5 /* SMALL=1: one sequence in so many, but those of one operation all */
#define SEGMENT                                                                                    \
	((uint64_t)5 << 18) /* of data in a segment: a stream fills one, and begins the next */

#define FILLED (5u << 10) /* by a few commits: the journal goes on in another file */
#define ROOMY  SCENARIO_JOURNAL

/* Which disks, and which one is away from the beginning. */
static const struct config {
	const char *name;
	unsigned k, m;
	unsigned gone;		/* bit mask */
	unsigned journal_bytes; /* of a file of it */
	bool fresh;		/* formatted, and never mounted */
	bool shared;
} configs[] = {
	{"2+1", 2, 1, 0, FILLED, false, false},
	{"1+0", 1, 0, 0, ROOMY, false, false},
	{"2+2", 2, 2, 0, ROOMY, false, false},
	{"1+1", 1, 1, 0, FILLED, false, false},
	{"2+1-first", 2, 1, 1, ROOMY, false, false},
	{"2+1-last", 2, 1, 4, FILLED, false, false},
	{"2+2-two", 2, 2, 3, ROOMY, false, false},
	{"2+1-fresh", 2, 1, 0, ROOMY, true, false},
	{"2+1-shared", 2, 1, 0, ROOMY, false, true},
};
#define CONFIGS SOP_ARRAY_LEN(configs)

/* Programs with a fault: these syncs are not done, or only after another. */
static const struct broken {
	const char *name, *what;
	bool names;
	const char *until;
} broken[] = {
	{"no-shard-sync", "segments/", false, NULL},
	{"no-shard-name-sync", "segments/", true, NULL},
	{"no-journal-sync", "journal/", false, NULL},
	{"no-journal-name-sync", "journal", true, NULL},
	{"no-checkpoint-sync", "checkpoint", false, NULL},
	{"no-checkpoint-name-sync", "", true, NULL},
	{"no-registry-sync", "registry/", false, NULL},
	{"no-registry-name-sync", "registry", true, NULL},
	{"no-slot-sync", "slots/", false, NULL},
	{"no-slot-name-sync", "slots", true, NULL},
	{"barrier-before-shards", "segments/", false, "registry/"},
	{"flips-before-checkpoint", "", true, "registry/"},
};

struct seq {
	const struct config *c;
	unsigned op[OPS_MAX];
	bool durable[OPS_MAX];
	unsigned n;
};

struct past {
	uint64_t hash, lsn;
	char *text;
};

struct point {
	struct sim *sim;
	uint64_t step;
	unsigned op;	  /* in progress; the state before it is history[op] */
	unsigned durable; /* at least this far */
	unsigned gone;
	bool opening, unborn;
};

struct run {
	const struct seq *q;
	struct fixture f;
	struct past history[OPS_MAX + 2]; /* [i]: after i operations */
	unsigned op, durable;
	unsigned offline; /* by hand: stays so over mounts */
	bool moved;	  /* disks were members, and perhaps are no more */
	bool opening;	  /* the history has not begun */
	bool unborn;	  /* its beginning is not durable: the volume is new */
	unsigned gone, faults;
	uint64_t steps;
	uint64_t only_step; /* 0: a sample */
	uint64_t rng;
	struct point point[POINTS_MAX];
	unsigned n, want;
	const struct point *at; /* being looked at, for messages */
	uint64_t choice;
};

struct shared {
	unsigned long points, deep, later, examined, sequences, steps, rolls;
};

/* Without a thread to be had the engine does everything on the caller's: in order, the same each
 * time. */
int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr,
	void *(*fn)(void *), void *restrict arg)
{
	(void)thread;
	(void)attr;
	(void)fn;
	(void)arg;
	return EAGAIN;
}

static const char *program;
static struct fixture bases[CONFIGS];
static bool verbose;
static const struct broken *lie;
static struct shared *shared;
static struct run *current;

static void *must_calloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		abort();
	return p;
}

static void add(unsigned long *counter, unsigned long n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* ---- telling ---- */

static void print_seq(FILE *to, const struct seq *q)
{
	fprintf(to, "%s:", q->c->name);
	for (unsigned i = 0; i < q->n; i++)
		fprintf(to, "%s%s%s", i ? "," : "", scenario_name(q->op[i]),
			q->durable[i] ? "!" : "");
}

static void print_again(struct run *r)
{
	fprintf(stderr, "  again: %s --only ", program);
	print_seq(stderr, r->q);
	fprintf(stderr, ":%llu:%llu\n", (unsigned long long)(r->at ? r->at->step : 0),
		(unsigned long long)r->choice);
}

static void die(struct run *r, const char *what)
{
	fprintf(stderr, "crash_engine: %s: %s\n", what, r->f.e.text);
	if (r->at)
		fprintf(stderr, "  in operation %u of %u, durable are %u\n", r->at->op + 1, r->q->n,
			r->at->durable);
	print_again(r);
	_exit(1);
}

/* An assertion of the engine, or worse. */
static void on_signal(int sig)
{
	fprintf(stderr, "crash_engine: signal %d\n", sig);
	if (current)
		print_again(current);
	_exit(1);
}

static void report(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", line);
}

/* A volume that others may have mounted does less. */
static bool refused(const struct run *r, int rc)
{
	return scenario_refused(rc) || (r->q->c->shared && rc == -EOPNOTSUPP);
}

/* ---- the workload ---- */

static uint64_t salt_of(unsigned i)
{
	return 1000 + i;
}

static void set_gone(struct fixture *f, unsigned gone)
{
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_gone(f->sim, f->path[i], gone >> i & 1);
	/* Half of the disks or fewer want a word. */
	f->opts.degraded = gone;
}

static void take_point(void *arg)
{
	struct run *r = arg;
	unsigned slot = r->n;

	r->steps++;
	if (r->only_step) {
		if (r->steps != r->only_step)
			return;
	} else if (r->n == r->want) { /* each step with the same chance */
		slot = (unsigned)(next_random(&r->rng) % r->steps);
		if (slot >= r->want)
			return;
		sim_free(r->point[slot].sim);
		r->n--;
	}
	r->point[slot] = (struct point){.sim = sim_clone(r->f.sim, r->steps),
		.step = r->steps,
		.op = r->op,
		.durable = r->durable,
		.gone = r->gone,
		.opening = r->opening,
		.unborn = r->unborn};
	r->n++;
}

static void note_state(struct run *r, unsigned n)
{
	struct sop_volume_stat st;
	struct past *p = &r->history[n];
	size_t len;
	FILE *text = verbose ? open_memstream(&p->text, &len) : NULL;
	int rc = scenario_digest(&r->f, &p->hash, text);

	if (text)
		fclose(text);
	if (rc)
		die(r, "the state cannot be read");
	sop_volume_stat(r->f.v, &st);
	p->lsn = st.lsn;
	if (st.durable_lsn >= r->history[0].lsn)
		r->unborn = false;
	for (unsigned i = r->durable; i <= n; i++)
		if (r->history[i].lsn <= st.durable_lsn)
			r->durable = i;
}

static bool promises_durability(const char *op)
{
	return !strcmp(op, "sync") || !strcmp(op, "checkpoint") || !strcmp(op, "remount");
}

static int run_op(struct run *r, unsigned i)
{
	const char *name = scenario_name(r->q->op[i]);
	unsigned flags = r->q->durable[i] ? SCENARIO_DURABLE : 0;
	unsigned last = r->f.disks - 1;
	int rc;
	bool fault = !strcmp(name, "first-gone") || !strcmp(name, "last-gone") ||
		     !strcmp(name, "write-fails");

	if (scenario_changes_disks(r->q->op[i])) {
		/* One thing after the other: with all disks there, but for one taken offline. */
		if (r->gone || r->faults > (strcmp(name, "online") ? 0 : r->offline))
			return 0;
		r->moved = true;
		rc = scenario_run(&r->f, r->q->op[i], salt_of(i), flags);
		if (!rc && !strcmp(name, "offline"))
			r->faults = r->offline = 1;
		if (!rc && !strcmp(name, "online"))
			r->faults = r->offline = 0;
		return rc;
	}
	/* As many faults as the volume is made for; a disk that is back counts until a mount has
	 * healed it. */
	if (fault && r->faults == r->q->c->m)
		return 0;
	r->faults += fault;
	if (!strcmp(name, "back")) {
		set_gone(&r->f, r->gone = 0);
		return 0;
	}
	if (!strcmp(name, "first-gone"))
		r->gone |= 1;
	if (!strcmp(name, "last-gone"))
		r->gone |= 1u << last;
	if (fault && strcmp(name, "write-fails") != 0) {
		set_gone(&r->f, r->gone);
		return 0;
	}
	if (!strcmp(name, "remount")) {
		sim_fail_step(r->f.sim, 0, 0);
		r->f.opts.degraded = r->gone;
		r->faults = (unsigned)__builtin_popcount(r->gone) + r->offline;
	}
	return scenario_run(&r->f, r->q->op[i], salt_of(i), flags);
}

static unsigned long segments(struct run *r)
{
	struct sop_volume_stat st;

	sop_volume_stat(r->f.v, &st);
	return st.segments;
}

static void workload(struct run *r)
{
	int rc;

	set_gone(&r->f, r->gone);
	if (lie)
		sim_lie(r->f.sim, lie->what, lie->names, lie->until);
	r->opening = true;
	r->unborn = r->q->c->fresh;
	if (r->q->n == 1 || r->q->c->fresh)
		sim_watch(r->f.sim, take_point, r);
	rc = scenario_open(&r->f);
	if (rc)
		die(r, "the volume does not open");
	r->opening = false;
	note_state(r, 0);
	sim_watch(r->f.sim, take_point, r);
	for (unsigned i = 0; i < r->q->n; i++) {
		unsigned long had = segments(r);

		r->op = i;
		rc = run_op(r, i);
		if (rc && !refused(r, rc)) {
			fprintf(stderr, "%s: ", scenario_name(r->q->op[i]));
			die(r, "failed without a crash");
		}
		note_state(r, i + 1);
		add(&shared->rolls, segments(r) > had + 1);
		if (!rc && (r->q->durable[i] || promises_durability(scenario_name(r->q->op[i]))) &&
			r->durable != i + 1)
			die(r, "what returned as durable is not called so");
	}
	r->op = r->q->n;
	sim_watch(r->f.sim, NULL, NULL);
}

/* ---- after the crash ---- */

static void mismatch(struct run *r, struct fixture *g, unsigned least, unsigned most)
{
	uint64_t h;

	r->f.e = g->e;
	if (verbose) {
		for (unsigned i = 0; i <= r->q->n; i++)
			fprintf(stderr, "%s after %u operations, lsn %llu:\n%s",
				i >= least && i <= most ? "*" : " ", i,
				(unsigned long long)r->history[i].lsn,
				r->history[i].text ? r->history[i].text : "");
		fprintf(stderr, "found:\n");
		(void)scenario_digest(g, &h, stderr);
	}
	die(r, "what is there is no prefix of what was committed");
}

/* The state of the opened volume is one of [least, most]: which. */
static unsigned which_state(struct run *r, struct fixture *g, unsigned least, unsigned most)
{
	uint64_t h;
	int rc = scenario_digest(g, &h, NULL);

	if (rc) {
		r->f.e = g->e;
		die(r, "committed data cannot be read");
	}
	for (unsigned i = most + 1; i-- > least;)
		if (r->history[i].hash == h)
			return i;
	mismatch(r, g, least, most);
	return 0;
}

struct ids {
	uint64_t id[256];
	unsigned n;
};

static void take_id(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct ids *ids = arg;
	unsigned long long id;
	unsigned i;

	(void)size;
	(void)allocated;
	if (sscanf(file, "segments/%*2x/%16llx.", &id) != 1)
		return;
	for (i = 0; i < ids->n && ids->id[i] != id; i++)
		;
	if (i == ids->n && ids->n < SOP_ARRAY_LEN(ids->id))
		ids->id[ids->n++] = id;
}

static bool heal_waits(struct fixture *g)
{
	struct sop_task t;

	for (unsigned i = 0; sop_volume_task(g->v, i, &t); i++)
		if (t.kind == SOP_TASK_HEAL && t.state == SOP_TASK_WAITING)
			return true;
	return false;
}

static void check(struct run *r, struct fixture *g)
{
	struct sop_check_report rep;
	struct sop_volume_stat st;
	struct ids ids = {.n = 0};
	int rc = r->q->c->shared && !g->opts.degraded ? scenario_scrub_alone(g) : 0;

	/* A disk that is to be healed may have had to wait for one that is being replaced. It says
	 * so: nothing else has a second try. */
	if (!rc && r->moved && heal_waits(g))
		rc = sop_volume_tick(g->v, &g->e);
	/* With a disk away all its shards are missing, and that is that. */
	if (!rc)
		rc = sop_volume_check(g->v, !g->opts.degraded, report, NULL, &rep, &g->e);
	r->f.e = g->e;
	if (rc || rep.errors || rep.leaked_bytes)
		die(r, "the volume does not check clean");
	sop_volume_stat(g->v, &st);
	for (unsigned i = 0; i < g->disks; i++)
		sim_each_file(g->sim, g->path[i], take_id, &ids);
	if (ids.n > st.segments && !g->opts.degraded && !r->moved)
		die(r, "shard files that belong to no segment were left");
}

static void power_cut(struct fixture *g, enum sim_keep keep, uint64_t choice)
{
	sim_power_on(g->sim, keep, choice);
	if (g->v)
		sop_volume_close(g->v, NULL);
	g->v = NULL;
}

static void reopen(struct run *r, struct fixture *g)
{
	int rc = scenario_open(g);

	r->f.e = g->e;
	if (rc)
		die(r, "the volume does not open after a crash");
}

static int first_prepared(void *arg, const struct sop_txn_prepared *p)
{
	*(uint64_t *)arg = p->id;
	return 1;
}

/* What was prepared and not committed is still held; taking it back changes nothing that is seen.
 */
static void roll_back_prepared(struct run *r, struct fixture *g)
{
	uint64_t id;

	while (sop_prepared_list(g->v, first_prepared, &id, &g->e)) {
		int rc = sop_prepared_rollback(g->v, id, &g->e);

		r->f.e = g->e;
		if (rc)
			die(r, "a prepared transaction cannot be rolled back after recovery");
	}
}

/* What recovery has shown stays, and what is made durable now stays too. */
static void life_goes_on(struct run *r, struct fixture *g, unsigned state, uint64_t *rng)
{
	struct past *next = &r->history[r->q->n + 1];
	unsigned op = (unsigned)(next_random(rng) % scenario_ops());
	int rc;

	add(&shared->later, 1);
	power_cut(g, SIM_KEEP_SYNCED_ONLY, next_random(rng));
	reopen(r, g);
	roll_back_prepared(r, g);
	which_state(r, g, state, state);
	rc = scenario_run(g, op, 99, SCENARIO_DURABLE | SCENARIO_NO_FAULTS);
	r->f.e = g->e;
	if (rc && !refused(r, rc))
		die(r, "an operation after recovery fails");
	if (!rc)
		rc = sop_volume_sync(g->v, &g->e);
	if (rc && !refused(r, rc))
		die(r, "a sync after recovery fails");
	if (scenario_digest(g, &next->hash, NULL))
		die(r, "the state after recovery cannot be read");
	power_cut(g, SIM_KEEP_MIXED, next_random(rng));
	reopen(r, g);
	which_state(r, g, r->q->n + 1, r->q->n + 1);
	check(r, g);
}

/* By fsck, which may repair: after a crash there is nothing that it cannot, and when the volume has
 * been closed in order, nothing at all. */
static void examine(struct run *r, struct fixture *g, bool repair)
{
	struct sop_fsck_report rep;
	int rc = scenario_fsck(g, repair, verbose, &rep);
	uint64_t wrong = rep.found[SOP_FOUND_LOST] + rep.found[SOP_FOUND_DISCARDED];

	/* A disk taken offline lacks its shards, and one being replaced may be no member now. */
	if (!r->moved)
		wrong += rep.found[SOP_FOUND_HELP] + (repair ? 0 : rep.found[SOP_FOUND_FIXABLE]);
	r->f.e = g->e;
	if (rc || wrong)
		die(r, repair ? "fsck cannot repair what a crash left"
			      : "fsck finds something in a volume that was closed in order");
	add(&shared->examined, 1);
}

/* Recovery, by a mount or by fsck, in which the machine stops again. */
static void crash_recovery(struct fixture *g, uint64_t *rng)
{
	struct sop_fsck_report rep;

	add(&shared->deep, 1);
	sim_crash_at(g->sim, sim_steps(g->sim) + 1 + next_random(rng) % 90);
	if (next_random(rng) % 8 == 0)
		(void)scenario_fsck(g, true, false, &rep);
	else if (!scenario_open(g))
		sop_volume_close(g->v, NULL);
	g->v = NULL;
}

/* A root directory that was not durable yet is made anew, at another time. */
static void note_unborn(struct run *r, struct fixture *g)
{
	struct sop_volume_stat st;

	sop_volume_stat(g->v, &st);
	if (!st.items && scenario_digest(g, &r->history[0].hash, NULL))
		die(r, "the new volume cannot be read");
}

static void look_at(struct run *r, const struct point *p, uint64_t choice)
{
	uint64_t rng = choice * 1000003 + p->step, born = r->history[0].hash;
	uint64_t kind = next_random(&rng) % 10;
	bool process = kind < 2;
	enum sim_keep keep = process	? SIM_KEEP_CACHED
			     : kind < 4 ? SIM_KEEP_SYNCED_ONLY
			     : kind < 7 ? SIM_KEEP_RANDOM
					: SIM_KEEP_MIXED;
	unsigned least = process ? p->op : p->durable, most = p->op + 1, state;
	struct fixture g;

	r->at = p;
	r->choice = choice;
	most = p->opening ? 0 : SOP_MIN(most, r->q->n);
	scenario_clone(&g, &r->f, p->sim, choice);
	/* Disks that were away may be back, or not. */
	set_gone(&g, next_random(&rng) % 2 ? p->gone : 0);
	power_cut(&g, keep, next_random(&rng));
	for (unsigned level = 0; level < 2 && next_random(&rng) % 3 == 0; level++) {
		crash_recovery(&g, &rng);
		power_cut(&g, keep, next_random(&rng));
	}
	if (!g.opts.degraded && next_random(&rng) % FSCK == 0)
		examine(r, &g, true);
	reopen(r, &g);
	if (p->unborn)
		note_unborn(r, &g);
	state = which_state(r, &g, least, most);
	check(r, &g);
	if (next_random(&rng) % 4 == 0)
		life_goes_on(r, &g, state, &rng);
	if (fixture_close(&g)) {
		r->f.e = g.e;
		die(r, "close after recovery");
	}
	if (!g.opts.degraded && next_random(&rng) % FSCK == 0)
		examine(r, &g, false);
	sim_free(g.sim);
	r->history[0].hash = born;
	add(&shared->points, 1);
	r->at = NULL;
}

/* Run q; look at `want` of its crash points (or at one) by one choice each. */
static void run_seq(
	const struct seq *q, unsigned want, uint64_t seed, uint64_t only_step, uint64_t only_choice)
{
	struct run *r = must_calloc(sizeof(*r));
	const struct fixture *base = &bases[q->c - configs];

	r->q = q;
	r->want = SOP_MIN(want, (unsigned)POINTS_MAX);
	r->rng = seed;
	r->only_step = only_step;
	r->gone = q->c->gone;
	r->faults = (unsigned)__builtin_popcount(r->gone);
	current = r;
	scenario_clone(&r->f, base, base->sim, 1);
	workload(r);
	for (unsigned i = 0; i < r->n; i++) {
		look_at(r, &r->point[i], only_step ? only_choice : next_random(&r->rng) % 1000000);
		sim_free(r->point[i].sim);
	}
	if (only_step && !r->n)
		die(r, "there is no such step");
	set_gone(&r->f, 0);
	fixture_release(&r->f);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(r->history); i++)
		free(r->history[i].text);
	add(&shared->sequences, 1);
	add(&shared->steps, r->steps);
	current = NULL;
	free(r);
}

/* ---- which sequences ---- */

/* Number i of a round: long ones, all of one operation, all of two, a sample of three. False: no
 * more. */
static bool seq_at(struct seq *q, unsigned long i, unsigned long round, uint64_t seed)
{
	const unsigned long n = scenario_ops(), fewer = getenv("SMALL") ? FEWER : 1,
			    ends[] = {LONGS / fewer, n, n * n / fewer, THREES / fewer};
	const unsigned sizes[] = {LONG_OPS, 1, 2, 3};
	uint64_t rng = seed * 7919 + i * 31 + round;
	unsigned kind = 0;

	q->c = &configs[(next_random(&rng) + round) % CONFIGS];
	while (kind < SOP_ARRAY_LEN(ends) && i >= ends[kind])
		i -= ends[kind++];
	if (kind == SOP_ARRAY_LEN(ends))
		return false;
	q->n = sizes[kind];
	for (unsigned k = 0; k < q->n; k++)
		q->op[k] = (unsigned)(next_random(&rng) % n);
	if (kind == 1)
		q->op[0] = (unsigned)i;
	if (kind == 2) {
		i = i * fewer + (seed + round) % fewer;
		q->op[0] = (unsigned)(i / n);
		q->op[1] = (unsigned)(i % n);
	}
	for (unsigned k = 0; k < q->n; k++)
		q->durable[k] = next_random(&rng) % 4 == 0 && scenario_is_txn(q->op[k]);
	return true;
}

static void worker(unsigned w, unsigned jobs, unsigned long points, unsigned per_seq, uint64_t seed)
{
	struct seq q = {0};

	for (unsigned long round = 0;; round++)
		for (unsigned long i = 0; seq_at(&q, i, round, seed); i++) {
			if (i % jobs != w)
				continue;
			/* At least one whole round, whatever number was asked for. */
			if (round && shared->points >= points)
				return;
			run_seq(&q, per_seq, seed + i + round * 1000003, 0, 0);
			if (round == 0 && lie && shared->points >= points)
				return;
		}
}

static int run_all(unsigned jobs, unsigned long points, unsigned per_seq, uint64_t seed)
{
	pid_t *pid = must_calloc(jobs * sizeof(*pid));
	int bad = 0, status;

	printf("crash_engine: seed %llu, %u operations, at least %lu points, %u jobs\n",
		(unsigned long long)seed, scenario_ops(), points, jobs);
	fflush(stdout);
	for (unsigned w = 0; w < jobs; w++) {
		pid[w] = fork();
		if (pid[w] < 0) {
			perror("fork");
			return 2;
		}
		if (!pid[w]) {
			worker(w, jobs, points, per_seq, seed);
			_exit(0);
		}
	}
	for (unsigned left = jobs; left; left--) {
		pid_t ended = wait(&status);

		if (ended < 0)
			break;
		for (unsigned w = 0; w < jobs; w++)
			if (pid[w] == ended)
				pid[w] = 0;
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			bad = 1;
			for (unsigned w = 0; w < jobs; w++)
				if (pid[w])
					kill(pid[w], SIGKILL);
		}
	}
	free(pid);
	printf("crash_engine: %lu crash points of %lu in %lu sequences; recovery was cut %lu "
	       "times; %lu volumes went on and were cut again; fsck looked at %lu; in %lu "
	       "operations a segment was full\n",
		shared->points, shared->steps, shared->sequences, shared->deep, shared->later,
		shared->examined, shared->rolls);
	printf("%lu passed, %d failed\n", shared->points, bad);
	return bad;
}

/* ---- command line ---- */

static const struct config *config_named(const char *name)
{
	for (unsigned i = 0; i < CONFIGS; i++)
		if (!strcmp(configs[i].name, name))
			return &configs[i];
	return NULL;
}

static bool parse_only(struct seq *q, uint64_t *step, uint64_t *choice, char *text)
{
	char *config = strtok(text, ":"), *list = strtok(NULL, ":"), *s = strtok(NULL, ":"),
	     *c = strtok(NULL, ":");

	memset(q, 0, sizeof(*q));
	q->c = config ? config_named(config) : NULL;
	if (!q->c || !list || !s || !c)
		return false;
	*step = strtoull(s, NULL, 10);
	*choice = strtoull(c, NULL, 10);
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		size_t len = strlen(name);
		int op;

		if (q->n == OPS_MAX)
			return false;
		q->durable[q->n] = name[len - 1] == '!';
		if (q->durable[q->n])
			name[len - 1] = '\0';
		op = scenario_find(name);
		if (op < 0)
			return false;
		q->op[q->n++] = (unsigned)op;
	}
	return q->n > 0;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: %s [--points N] [--per-sequence N] [--seed S] [--jobs J] [--broken RULE]\n"
		"       %s --only CONFIG:OPERATION,...:STEP:CHOICE\n",
		program, program);
	return 2;
}

static bool find_broken(const char *name)
{
	for (unsigned i = 0; i < SOP_ARRAY_LEN(broken); i++)
		if (!strcmp(broken[i].name, name))
			lie = &broken[i];
	return lie;
}

static void prepare(void)
{
	/* Memory comes and goes in the same sizes: keep it. */
	mallopt(M_MMAP_THRESHOLD, 1 << 25);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		abort();
	for (unsigned i = 0; i < CONFIGS; i++) {
		const struct config *c = &configs[i];

		if (c->fresh) {
			fixture_init(&bases[i], c->k, c->m, 0);
			sim_add_disk(bases[i].sim, SCENARIO_SPARE, 0);
		} else if (c->shared) {
			scenario_make_shared(&bases[i], c->k, c->m, NULL);
		} else {
			scenario_make(&bases[i], c->k, c->m, NULL);
		}
		bases[i].opts.segment_bytes = SEGMENT / c->k;
		bases[i].opts.journal_bytes = c->journal_bytes;
	}
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
}

int main(int argc, char **argv)
{
	bool heavy = getenv("LONG") && *getenv("LONG");
	unsigned long points = heavy ? 1000000 : getenv("SMALL") ? 1 : 10000;
	unsigned per_seq = heavy ? 40 : getenv("SMALL") ? 1 : 3;
	unsigned jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t seed = 1, step = 0, choice = 0;
	struct seq only = {0};

	program = argv[0];
	if (argc == 3 && !strcmp(argv[1], "--broken") && !strcmp(argv[2], "list")) {
		for (unsigned i = 0; i < SOP_ARRAY_LEN(broken); i++)
			puts(broken[i].name);
		return 0;
	}
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!value)
			return usage();
		if (!strcmp(argv[i], "--points"))
			points = strtoul(value, NULL, 10);
		else if (!strcmp(argv[i], "--per-sequence"))
			per_seq = (unsigned)strtoul(value, NULL, 10);
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--jobs"))
			jobs = (unsigned)strtoul(value, NULL, 10);
		else if (!strcmp(argv[i], "--broken")
				 ? !find_broken(value)
				 : strcmp(argv[i], "--only") != 0 ||
					   !parse_only(&only, &step, &choice, argv[i + 1]))
			return usage();
	}
	prepare();
	if (only.n) {
		verbose = true;
		run_seq(&only, 1, seed, step, choice);
		puts("passed");
		return 0;
	}
	return run_all(jobs ? jobs : 1, points, per_seq, seed);
}
