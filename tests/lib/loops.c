#include "tests/lib/loops.h"

#include <execinfo.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/lib/failing.h"
#include "tests/lib/scenario.h"

#define SMALL  13 /* one loop in so many, where time is short (SMALL=1: under a sanitizer) */
#define PLACES 1024
#define CALLS  48

static const char *const mode_names[] = {
	"memory", "memory-stays", "io", "io-stays", "space", "full"};

/* Where something has failed. */
struct places {
	uint64_t at[PLACES];
	unsigned n;
};

static struct loop *current;
static const char *program;
static bool long_run;

static struct {
	unsigned long n; /* 0: all */
	bool variant;
} only;

/* Of all processes. */
static struct counts {
	unsigned long rounds[LOOP_MODES], loops;
} * counts;

void loop_die(struct loop *l, const char *what, int rc)
{
	fprintf(stderr, "%s: %s (%d): %s\n  again: %s --only %s:%s:%s%s:%lu\n", l->of->name, what,
		rc, l->f.e.text, program, mode_names[l->mode], l->of->config(l->config),
		l->of->op(l->op), l->variant ? "!" : "", l->n);
	_exit(1);
}

static void on_signal(int sig)
{
	if (current)
		loop_die(current, "signal", sig);
	_exit(1);
}

static void report(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", line);
}

/* ---- the clock ---- */

static uint64_t wall_ns(void *ctx)
{
	(void)ctx;
	return 1700000000ull * 1000000000;
}

static uint64_t passed_ms = 1000;

static uint64_t monotonic_ms(void *ctx)
{
	(void)ctx;
	return passed_ms;
}

void loop_pass_ms(unsigned ms)
{
	passed_ms += ms;
}

const struct sop_clock loop_clock = {.wall_ns = wall_ns, .monotonic_ms = monotonic_ms};

/* ---- faults ---- */

/* The n-th comes from here: has anything failed here before? Then it is the turn of the next. */
static bool here(void *arg, unsigned disk)
{
	struct loop *l = arg;
	struct places *p = l->places;
	void *calls[CALLS];
	uint64_t place = disk;
	int n;

	if (long_run || only.n)
		return true;
	n = backtrace(calls, CALLS);
	for (int i = 0; i < n; i++)
		place = (place ^ (uintptr_t)calls[i]) * 0x9E3779B97F4A7C15ull;
	for (unsigned i = 0; i < p->n; i++)
		if (p->at[i] == place) {
			l->n++;
			return false;
		}
	if (p->n == PLACES)
		loop_die(l, "more places than expected", PLACES);
	p->at[p->n++] = place;
	if (l->of->stride[l->mode] && (p->n - 1) % l->of->stride[l->mode]) {
		l->n++;
		return false;
	}
	return true;
}

static bool here_in_memory(void *arg)
{
	return here(arg, 0);
}

static void fill_up(struct loop *l)
{
	for (unsigned i = 0; i < l->f.disks; i++)
		sim_disk_resize(l->f.sim, l->f.path[i], sim_allocated(l->f.sim, l->f.path[i]));
}

static void at_step(void *arg)
{
	struct loop *l = arg;

	if (!l->countdown || --l->countdown)
		return;
	if (here(l, 0))
		fill_up(l);
	else
		l->countdown = 1;
}

void loop_arm(struct loop *l)
{
	switch (l->mode) {
	case NO_MEMORY:
	case NO_MEMORY_STAYS:
		failing_arm(l->n, l->mode == NO_MEMORY_STAYS);
		failing_choose(here_in_memory, l);
		break;
	case IO_ONCE:
	case IO_STAYS:
	case NO_SPACE_ONCE:
		sim_fail_io(l->f.sim, l->n, l->mode == NO_SPACE_ONCE ? -ENOSPC : -EIO,
			l->mode == IO_STAYS);
		sim_choose_io(l->f.sim, here, l);
		break;
	case FULL:
	case LOOP_MODES:
		/* Full from the beginning, then one step later each time. */
		l->countdown = l->n - 1;
		if (!l->countdown)
			fill_up(l);
		sim_watch(l->f.sim, at_step, l);
		break;
	}
}

bool loop_disarm(struct loop *l)
{
	bool hit = l->mode <= NO_MEMORY_STAYS ? failing_hit()
		   : l->mode < FULL	      ? sim_io_failed(l->f.sim)
					      : !l->countdown;

	failing_arm(0, false);
	sim_watch(l->f.sim, NULL, NULL);
	if (l->mode != FULL)
		sim_fail_io(l->f.sim, 0, 0, false);
	return hit;
}

void loop_mend(struct loop *l)
{
	loop_pass_ms(60000); /* a full disk is tried again after a while */
	for (unsigned i = 0; i < l->f.disks; i++) {
		sim_disk_error(l->f.sim, l->f.path[i], 0, 0, 0);
		sim_disk_resize(l->f.sim, l->f.path[i], 0);
	}
	sim_disk_error(l->f.sim, SCENARIO_SPARE, 0, 0, 0);
}

/* ---- a round ---- */

void loop_begin(struct loop *l)
{
	scenario_clone(&l->f, &l->base, l->base.sim, 1);
	loop_open(l, "the volume does not open");
}

void loop_open(struct loop *l, const char *what)
{
	int rc;

	l->f.v = NULL;
	rc = scenario_open(&l->f);
	if (rc)
		loop_die(l, what, rc);
}

bool loop_dead(struct loop *l)
{
	struct sop_volume_stat st;

	sop_volume_stat(l->f.v, &st);
	return st.failed || st.disks_online < st.k;
}

uint64_t loop_digest(struct loop *l)
{
	uint64_t h = 0;
	int rc = scenario_digest(&l->f, &h, NULL);

	if (rc)
		loop_die(l, "the state cannot be read", rc);
	return h;
}

void loop_check(struct loop *l, bool data)
{
	struct sop_check_report rep;
	int rc = sop_volume_check(l->f.v, data, report, NULL, &rep, &l->f.e);

	if (rc || rep.errors || rep.leaked_bytes)
		loop_die(l, "the volume does not check clean", rc);
}

void loop_end(struct loop *l)
{
	int rc = fixture_upsert(&l->f, SOP_ROOT, "after", "x", 1, true);

	if (rc && !loop_dead(l))
		loop_die(l, "the volume does not go on, and does not say that it has failed", rc);
	if (!rc)
		rc = fixture_remove(&l->f, SOP_ROOT, "after");
	rc = fixture_close(&l->f);
	if (rc)
		loop_die(l, "the last close", rc);
	fixture_release(&l->f);
}

/* ---- all of them ---- */

static void loop_of(struct loop *l)
{
	unsigned long rounds = 1;

	l->n = only.n ? only.n : 1;
	current = l;
	l->of->measure(l);
	while (l->of->round(l) && !only.n) {
		l->n++;
		rounds++;
	}
	current = NULL;
	__atomic_fetch_add(&counts->rounds[l->mode], rounds, __ATOMIC_RELAXED);
	__atomic_fetch_add(&counts->loops, 1, __ATOMIC_RELAXED);
}

/* Of an operation, in both variants. */
static void variants_of(const struct loops *of, enum loop_mode mode, const struct fixture *base,
	unsigned config, unsigned op)
{
	static struct places places;

	places.n = 0;
	for (int i = 0; i < 2; i++) {
		struct loop l = {.of = of,
			.mode = mode,
			.config = config,
			.op = op,
			.variant = i,
			.base = *base,
			.places = &places};

		if (of->has(mode, config, op, i, long_run || only.n) &&
			(!only.n || only.variant == l.variant))
			loop_of(&l);
	}
}

static bool wanted(const char *name, const char *what)
{
	return !name || !strcmp(name, what);
}

/* Of the loops that there is time for, every jobs-th. */
static bool is_mine(unsigned loop, unsigned w, unsigned jobs, unsigned fewer)
{
	return loop % fewer == 0 && loop / fewer % jobs == w;
}

static void worker(const struct loops *of, unsigned w, unsigned jobs, const char *mode,
	const char *config, const char *op)
{
	unsigned at = 0, fewer = getenv("SMALL") && !op ? SMALL : 1;

	for (unsigned c = 0; c < of->n_configs; c++)
		for (enum loop_mode m = 0; m < LOOP_MODES; m++) {
			struct fixture base;

			if (!wanted(config, of->config(c)) || !wanted(mode, mode_names[m]))
				continue;
			of->make(&base, c, m);
			for (unsigned i = 0; i < of->n_ops; i++)
				if (wanted(op, of->op(i)) && is_mine(at++, w, jobs, fewer))
					variants_of(of, m, &base, c, i);
			fixture_release(&base);
		}
}

static int run_all(const struct loops *of, unsigned jobs)
{
	pid_t pid[64];
	int status, bad = 0;

	fflush(stdout);
	for (unsigned w = 0; w < jobs; w++) {
		pid[w] = fork();
		if (!pid[w]) {
			worker(of, w, jobs, NULL, NULL, NULL);
			exit(0); /* leaks are looked for here */
		}
	}
	for (unsigned w = 0; w < jobs; w++)
		bad |= pid[w] < 0 || waitpid(pid[w], &status, 0) < 0 || status;
	printf("%s: %lu loops;", of->name, counts->loops);
	for (enum loop_mode m = 0; m < LOOP_MODES; m++)
		printf(" %s %lu", mode_names[m], counts->rounds[m]);
	printf(" failures\n%lu passed, %d failed\n", counts->loops, bad != 0);
	return bad;
}

static int run_only(const struct loops *of, char *which)
{
	char *mode = strtok(which, ":"), *config = strtok(NULL, ":"), *op = strtok(NULL, ":"),
	     *n = strtok(NULL, ":");
	unsigned long failures = 0;

	if (op && op[strlen(op) - 1] == '!') {
		only.variant = true;
		op[strlen(op) - 1] = '\0';
	}
	only.n = n ? strtoul(n, NULL, 10) : 0;
	worker(of, 0, 1, mode, config, op);
	for (unsigned m = 0; m < LOOP_MODES; m++)
		failures += counts->rounds[m];
	if (counts->loops)
		printf("passed: %lu failures\n", failures);
	else
		puts("there is no such loop");
	return !counts->loops;
}

int loops_main(const struct loops *what, int argc, char **argv)
{
	unsigned jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	void *first[1];

	/* Memory comes and goes in the same sizes: keep it. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	(void)backtrace(first, 1); /* loads what it needs */
	program = argv[0];
	long_run = getenv("LONG") && *getenv("LONG");
	counts = mmap(
		NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		return 2;
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	if (argc == 3 && !strcmp(argv[1], "--only"))
		return run_only(what, argv[2]);
	if (argc > 1) {
		fprintf(stderr, "usage: %s [--only MODE:CONFIG:OPERATION[!][:N]]\n", program);
		return 2;
	}
	return run_all(what, SOP_MIN(SOP_MAX(jobs, 1u), 64u));
}
