/* Failure loops. Each operation of the alphabet runs again and again, and each time one thing more
 * goes well before one fails: an allocation, an I/O (once, or the disk is gone from then on), a
 * write on a full disk. Every time: an error comes back or none was needed; what is seen is the
 * state before or after; nothing leaks; the volume goes on or fails closed; after another mount it
 * checks clean and holds one of the two.
 *
 *     failing [--only MODE:CONFIG:OPERATION[!][:N]]      (! commits durably) */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/lib/failing.h"
#include "tests/lib/scenario.h"

#define BALLAST (4u << 20)
#define SMALL	7 /* one loop in so many, where time is short (SMALL=1: under a sanitizer) */
#define WORTH	(1u << 20) /* bytes given back that are enough to go on with */

enum mode { NO_MEMORY, NO_MEMORY_STAYS, IO_ONCE, IO_STAYS, NO_SPACE_ONCE, FULL, MODES };
static const char *const mode_names[] = {
	"memory", "memory-stays", "io", "io-stays", "space", "full"};

static const struct config {
	const char *name;
	unsigned k, m;
	bool shared; /* made so, and mounted beside others, though nobody else is there */
} configs[] = {{"1+0", 1, 0, false}, {"2+1", 2, 1, false}, {"shared", 2, 1, true}};

struct loop {
	enum mode mode;
	const struct config *c;
	unsigned op;
	bool durable; /* commit so: when the sync alone fails, the transaction stands */
	unsigned long n;
	struct fixture base, f;
	uint64_t before, after;
	int rc_clean; /* of the operation when nothing fails */
	unsigned long countdown;
};

static struct loop *current;
static const char *program;
static unsigned long only_n;
static bool only_durable;

static void die(struct loop *l, const char *what, int rc)
{
	fprintf(stderr, "failing: %s (%d): %s\n  again: %s --only %s:%s:%s%s:%lu\n", what, rc,
		l->f.e.text, program, mode_names[l->mode], l->c->name, scenario_name(l->op),
		l->durable ? "!" : "", l->n);
	_exit(1);
}

static void on_signal(int sig)
{
	if (current)
		die(current, "signal", sig);
	_exit(1);
}

static void report(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", line);
}

/* ---- the clock stands, so that a state reached twice is the same; time passes when told to ----
 */

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

static const struct sop_clock still = {.wall_ns = wall_ns, .monotonic_ms = monotonic_ms};

/* ---- faults ---- */

static void fill_up(void *arg)
{
	struct loop *l = arg;

	if (--l->countdown)
		return;
	for (unsigned i = 0; i < l->f.disks; i++)
		sim_disk_resize(l->f.sim, l->f.path[i], sim_allocated(l->f.sim, l->f.path[i]));
}

static void arm(struct loop *l)
{
	switch (l->mode) {
	case NO_MEMORY:
	case NO_MEMORY_STAYS:
		failing_arm(l->n, l->mode == NO_MEMORY_STAYS);
		break;
	case IO_ONCE:
	case IO_STAYS:
		sim_fail_io(l->f.sim, l->n, -EIO, l->mode == IO_STAYS);
		break;
	case NO_SPACE_ONCE:
		sim_fail_io(l->f.sim, l->n, -ENOSPC, false);
		break;
	case FULL:
	case MODES:
		/* Full from the beginning, then one step later each time. */
		l->countdown = l->n;
		if (l->n == 1)
			fill_up(l);
		else
			sim_watch(l->f.sim, fill_up, l);
		break;
	}
}

/* Has the fault come up? */
static bool disarm(struct loop *l)
{
	bool hit = l->mode <= NO_MEMORY_STAYS ? failing_hit()
		   : l->mode < FULL	      ? sim_io_failed(l->f.sim)
					      : (long)l->countdown <= 0;

	failing_arm(0, false);
	sim_watch(l->f.sim, NULL, NULL);
	if (l->mode != FULL)
		sim_fail_io(l->f.sim, 0, 0, false);
	return hit;
}

static void mend(struct loop *l)
{
	passed_ms += 60000; /* a full disk is tried again after a while */
	for (unsigned i = 0; i < l->f.disks; i++) {
		sim_disk_error(l->f.sim, l->f.path[i], 0, 0, 0);
		sim_disk_resize(l->f.sim, l->f.path[i], 0);
	}
}

/* ---- what is demanded ---- */

/* Failed closed: by its own word, or since disks without which nothing can be read were set aside.
 */
static bool dead(struct loop *l)
{
	struct sop_volume_stat st;

	sop_volume_stat(l->f.v, &st);
	return st.failed || st.disks_online < st.k;
}

static uint64_t digest(struct loop *l)
{
	uint64_t h = 0;
	int rc = scenario_digest(&l->f, &h, NULL);

	if (rc)
		die(l, "the state cannot be read", rc);
	return h;
}

static void check(struct loop *l, bool data)
{
	struct sop_check_report rep;
	int rc = sop_volume_check(l->f.v, data, report, NULL, &rep, &l->f.e);

	if (rc || rep.errors || rep.leaked_bytes)
		die(l, "the volume does not check clean", rc);
}

static void open_again(struct loop *l, const char *what)
{
	int rc;

	l->f.v = NULL;
	rc = fixture_open(&l->f);
	if (rc)
		die(l, what, rc);
}

static unsigned flags(const struct loop *l)
{
	return SCENARIO_NO_FAULTS | (l->durable ? SCENARIO_DURABLE : 0);
}

/* Nothing fails: what the operation answers, and the states before and after. */
static void measure(struct loop *l)
{
	scenario_clone(&l->f, &l->base, l->base.sim, 1);
	open_again(l, "the volume does not open");
	l->before = digest(l);
	l->rc_clean = scenario_run(&l->f, l->op, 5, flags(l));
	l->after = digest(l);
	fixture_release(&l->f);
}

/* Without memory no replica answers. Once the record may be in a slot nobody knows whether it
 * counts, and nothing else can come after it. */
static bool no_memory_in_slots(struct loop *l, int rc)
{
	return rc == SOP_EDISKS ||
	       (l->mode == NO_MEMORY_STAYS && rc == SOP_EDEAD && (!l->f.v || dead(l)));
}

static void answer_is_right(struct loop *l, int rc, bool hit)
{
	bool redundant = l->c->m > 0;

	if (!hit && rc != l->rc_clean)
		die(l, "another answer though nothing failed", rc);
	if (rc == l->rc_clean)
		return;
	switch (l->mode) {
	case NO_MEMORY:
	case NO_MEMORY_STAYS:
		/* A label that cannot be written for want of memory sets its disk aside, the last
		 * one too: that fails closed, while mounting or in a change of the labels. */
		if (rc != -ENOMEM && !(l->c->shared && no_memory_in_slots(l, rc)) &&
			(l->f.v ? rc != -EIO || !dead(l) : rc != -EIO && rc != SOP_EDISKS))
			die(l, "not -ENOMEM", rc);
		break;
	case IO_ONCE:
	case IO_STAYS:
		if (redundant)
			die(l, "one disk of three was enough to fail", rc);
		break;
	case NO_SPACE_ONCE:
	case FULL:
	case MODES:
		/* A disk that has taken room for a registry block, and then has none for it once
		 * the checkpoint is published: the replica is set aside, the only one too. That
		 * fails closed. A disk that is full refuses before. */
		if (rc != -ENOSPC &&
			(l->mode == FULL || redundant || rc != -EIO || (l->f.v && !dead(l))))
			die(l, "not -ENOSPC", rc);
		break;
	}
}

/* Full disks are full, and not broken. A mount alone goes on without the one that was full first.
 */
static void none_set_aside(struct loop *l)
{
	struct sop_volume_stat st;

	if (!strcmp(scenario_name(l->op), "remount"))
		return;
	sop_volume_stat(l->f.v, &st);
	if (st.disks_online != l->f.disks)
		die(l, "a full disk was set aside", (int)st.disks_online);
}

static uint64_t allocated(struct loop *l)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < l->f.disks; i++)
		bytes += sim_allocated(l->f.sim, l->f.path[i]);
	return bytes;
}

/* The room that was there comes back: what is deleted can be written again, on disks as full as
 * before. */
static void room_comes_back(struct loop *l)
{
	static const char *const victims[] = {"ballast", "big", "tree"};
	uint64_t used = allocated(l);
	uint8_t bytes[3000] = {1};
	int rc;

	for (unsigned i = 0; i < SOP_ARRAY_LEN(victims); i++) {
		rc = fixture_remove(&l->f, SOP_ROOT, victims[i]);
		if (rc && rc != -ENOENT && rc != -EISDIR)
			die(l, "a full volume refuses a delete", rc);
	}
	rc = sop_volume_tick(l->f.v, &l->f.e);
	if (rc && rc != -ENOSPC)
		die(l, "background work on a full volume", rc);
	if (allocated(l) + WORTH > used)
		return; /* there was nothing to be deleted */
	passed_ms += 60000;
	rc = sop_volume_checkpoint(l->f.v, &l->f.e);
	if (!rc)
		rc = fixture_upsert(&l->f, SOP_ROOT, "again", bytes, sizeof(bytes), true);
	if (rc)
		die(l, "the room did not come back", rc);
}

/* Everything verifies, redundancy included. */
static void check_all(struct loop *l)
{
	int rc = l->c->shared ? scenario_scrub_alone(&l->f) : 0;

	if (rc)
		die(l, "nobody can be alone in it, and scrub", rc);
	check(l, true);
}

static void goes_on(struct loop *l)
{
	int rc = fixture_upsert(&l->f, SOP_ROOT, "after", "x", 1, true);

	if (rc && !dead(l))
		die(l, "the volume does not go on, and does not say that it has failed", rc);
	if (!rc)
		rc = fixture_remove(&l->f, SOP_ROOT, "after");
}

/* One round. False: the fault did not come up any more. */
static bool round_of(struct loop *l)
{
	bool hit, after_only, lost;
	uint64_t seen = 0, before = l->before, after = l->after;
	int rc;

	scenario_clone(&l->f, &l->base, l->base.sim, 1);
	open_again(l, "the volume does not open");
	arm(l);
	rc = scenario_run(&l->f, l->op, 5, flags(l));
	hit = disarm(l);
	answer_is_right(l, rc, hit);
	after_only = rc == l->rc_clean;
	if (l->mode == FULL && l->f.v)
		none_set_aside(l);
	if (!l->f.v) { /* a mount that failed */
		mend(l);
		open_again(l, "a mount that failed spoils the next one");
	}
	/* Without redundancy the one disk was set aside, and nothing can be demanded until the next
	 * mount. */
	lost = hit && (l->mode == IO_ONCE || l->mode == IO_STAYS) && !l->c->m;
	if (!dead(l) && !lost) {
		seen = digest(l);
		if (seen != after && (after_only || seen != before))
			die(l, "neither the state before nor the one after", rc);
		if (seen == after && before != after && !after_only && !l->durable)
			die(l, "an error, and the state after", rc);
		/* (Of a shared volume space is given back by who is alone.) */
		if (l->mode == FULL && hit && !l->c->shared) {
			room_comes_back(l);
			before = after = digest(l);
		}
		mend(l);
		check(l, false);
	} else if (l->mode == FULL) {
		die(l, "a full disk has killed the volume", rc);
	}
	mend(l);
	rc = sop_volume_close(l->f.v, &l->f.e);
	if (rc && seen)
		die(l, "close", rc);
	open_again(l, "the volume does not open again");
	seen = digest(l);
	if (seen != after && (after_only || seen != before))
		die(l, "after another mount, neither the state before nor the one after", 0);
	check_all(l);
	goes_on(l);
	rc = fixture_close(&l->f);
	if (rc)
		die(l, "the last close", rc);
	fixture_release(&l->f);
	return hit;
}

/* ---- all of them ---- */

struct shared {
	unsigned long rounds[MODES], loops;
};

static struct shared *shared;

static void loop(enum mode mode, const struct config *c, const struct fixture *base, unsigned op,
	bool durable)
{
	struct loop l = {.mode = mode,
		.c = c,
		.base = *base,
		.op = op,
		.durable = durable,
		.n = only_n ? only_n : 1};

	current = &l;
	measure(&l);
	while (round_of(&l) && !only_n)
		l.n++;
	current = NULL;
	__atomic_fetch_add(&shared->rounds[mode], l.n, __ATOMIC_RELAXED);
	__atomic_fetch_add(&shared->loops, 1, __ATOMIC_RELAXED);
}

/* Something large, to be deleted when the disks are full. */
static void load_ballast(struct fixture *f)
{
	sop_autofree void *bytes = calloc(1, BALLAST);

	if (!bytes || fixture_open(f) ||
		fixture_upsert(f, SOP_ROOT, "ballast", bytes, BALLAST, true) || fixture_close(f))
		abort();
}

static bool wanted(const char *only, const char *name)
{
	return !only || !strcmp(only, name);
}

/* Of one operation: committed in passing, and durably. What stays away, and what is shared, is
 * tried with one of them. */
static void loops_of(enum mode m, const struct config *c, const struct fixture *base, unsigned op)
{
	bool heavy = getenv("LONG") && *getenv("LONG");
	bool both = heavy || !(m == NO_MEMORY_STAYS || m == IO_STAYS || c->shared);

	for (int d = 0; d <= scenario_is_txn(op); d++)
		if (only_n ? only_durable == (d == 1)
			   : both || d == (int)(op % 2) || !scenario_is_txn(op))
			loop(m, c, base, op, d);
}

/* Every jobs-th loop. */
static void worker(unsigned w, unsigned jobs, const char *mode, const char *config, const char *op)
{
	unsigned at = 0, fewer = getenv("SMALL") && !op ? SMALL : 1;
	struct fixture base;

	for (unsigned c = 0; c < SOP_ARRAY_LEN(configs); c++) {
		if (!wanted(config, configs[c].name))
			continue;
		(configs[c].shared ? scenario_make_shared : scenario_make)(
			&base, configs[c].k, configs[c].m, &still);
		for (enum mode m = 0; m < MODES; m++) {
			if (m == FULL)
				load_ballast(&base);
			for (unsigned i = 0; i < scenario_ops(); i++)
				if (wanted(mode, mode_names[m]) && wanted(op, scenario_name(i)) &&
					at++ % (jobs * fewer) == w)
					loops_of(m, &configs[c], &base, i);
		}
		fixture_release(&base);
	}
}

static int run_all(unsigned jobs)
{
	pid_t pid[64];
	int status, bad = 0;

	fflush(stdout);
	for (unsigned w = 0; w < jobs; w++) {
		pid[w] = fork();
		if (!pid[w]) {
			worker(w, jobs, NULL, NULL, NULL);
			exit(0); /* leaks are looked for here */
		}
	}
	for (unsigned w = 0; w < jobs; w++)
		bad |= pid[w] < 0 || waitpid(pid[w], &status, 0) < 0 || status;
	return bad;
}

int main(int argc, char **argv)
{
	unsigned jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	char *mode, *config, *op, *n;
	unsigned long failures = 0;
	int bad;

	program = argv[0];
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 2;
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	if (argc == 3 && !strcmp(argv[1], "--only")) {
		mode = strtok(argv[2], ":");
		config = strtok(NULL, ":");
		op = strtok(NULL, ":");
		n = strtok(NULL, ":");
		if (op && op[strlen(op) - 1] == '!') {
			only_durable = true;
			op[strlen(op) - 1] = '\0';
		}
		only_n = n ? strtoul(n, NULL, 10) : 0;
		worker(0, 1, mode, config, op);
		for (unsigned m = 0; m < MODES; m++)
			failures += shared->rounds[m];
		if (shared->loops)
			printf("passed: %lu failures\n", failures);
		else
			puts("there is no such loop");
		return !shared->loops;
	}
	if (argc > 1) {
		fprintf(stderr, "usage: %s [--only MODE:CONFIG:OPERATION[:N]]\n", program);
		return 2;
	}
	bad = run_all(SOP_MIN(SOP_MAX(jobs, 1u), 64u));
	printf("failing: %lu loops;", shared->loops);
	for (enum mode m = 0; m < MODES; m++)
		printf(" %s %lu", mode_names[m], shared->rounds[m]);
	printf(" failures\n%lu passed, %d failed\n", shared->loops, bad != 0);
	return bad != 0;
}
