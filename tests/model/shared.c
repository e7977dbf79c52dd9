/* Several processes on one shared volume, on real folders: a list-append workload whose whole
 * history is checked for strict serializability.
 *
 * Each transaction reads some lists and appends a number of its own to some of them. From the lists
 * at the end, and from what each transaction has read, the order of all transactions that the
 * volume claims is known: who wrote before whom, who read what. That order, together with "this one
 * was acknowledged before that one began", must have no circle; nothing acknowledged may be
 * missing, nothing refused be there, nothing be there twice.
 *
 * Meanwhile a process is stopped (SIGSTOP, later SIGCONT) or killed in front of each single step
 * that it makes on a disk in a commit, or in making an image, while the others go on. And all of
 * them meet at a Redis server which is emptied, killed, stopped, and throws its clients out, while
 * they commit. At last short runs, each on a volume of its own and with troubles drawn from its
 * seed: workers killed and begun again, stopped past their lease, the server as above. LONG=1:
 * every step, more of everything; RUNS=N: that many of the short ones, alone. */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "core/disk.h"
#include "core/sop.h"
#include "tests/lib/redis.h"

#define KEYS	 6
#define WORKERS	 4
#define DISKS	 3
#define TXNS_MAX 200000
/* Nothing here is too slow: a process may be kept from running at any point, for any time. */
#define TIMEOUT_MS 3600000
#define BOUND_MS   900000

enum outcome { UNKNOWN, COMMITTED, REFUSED };

struct access {
	uint8_t key;
	bool appends;
	uint32_t len;  /* of the list as read */
	uint64_t hash; /* of its content */
};

struct txn {
	uint64_t began, ended; /* 0: never */
	uint32_t number;
	uint8_t n, outcome;
	struct access at[3];
};

/* Shared by all processes; each writes its own transactions alone. */
struct shared {
	_Atomic uint32_t txns;
	_Atomic uint32_t committed[WORKERS];
	_Atomic uint32_t opened;
	_Atomic bool stop;
	_Atomic bool done; /* the worker that is stopped somewhere has made what it was to make */
	_Atomic uint64_t steps; /* of the worker that counts them */
	_Atomic int errors;
	struct txn txn[TXNS_MAX];
};

static struct shared *all;
static char folder[64];
static char disk_path[DISKS][96];
static const char *paths[DISKS];
static struct sop_err e;
static struct test_redis server;
static const char *redis; /* its URL; NULL: without */
static unsigned lease_ms = 1500;
static bool quiet; /* only what is wrong is printed */

static void die(const char *what)
{
	fprintf(stderr, "shared: %d: %s: %s %s\n", (int)getpid(), what, e.text, strerror(errno));
	exit(1);
}

static void ok(int rc, const char *what)
{
	if (rc < 0)
		die(what);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- steps on disks, to be stopped at ---- */

static struct sop_disk_ops ops;
static const struct sop_disk_ops *real;
static _Atomic uint64_t stop_at; /* 0: never; counted from when `armed` */
static int stop_signal;
static bool calm;   /* let others have their turn */
static bool images; /* are made all the time, and it is there that one is stopped */
static _Atomic bool armed;

static void count_step(void)
{
	uint64_t n;

	if (!armed)
		return;
	n = ++all->steps;
	if (n == stop_at) {
		stop_at = 0; /* once */
		raise(stop_signal);
	}
}

static int my_link(struct sop_disk *d, const char *from, const char *to)
{
	count_step();
	return real->link(d, from, to);
}

static int my_unlink(struct sop_disk *d, const char *path)
{
	count_step();
	return real->unlink(d, path);
}

static int my_syncdir(struct sop_disk *d, const char *path)
{
	count_step();
	return real->syncdir(d, path);
}

static int my_datasync(struct sop_file *f)
{
	count_step();
	return real->datasync(f);
}

static ssize_t my_pwritev(struct sop_file *f, const struct iovec *iov, int n, uint64_t off)
{
	count_step();
	return real->pwritev(f, iov, n, off);
}

static int my_open(struct sop_file **out, struct sop_disk *d, const char *path, int flags)
{
	int rc;

	if (flags & SOP_OPEN_CREATE || !strncmp(path, "slots/", 6))
		count_step();
	rc = real->file_open(out, d, path, flags);
	if (!rc)
		(*out)->ops = &ops;
	return rc;
}

static int open_disk(void *ctx, struct sop_disk **out, const char *path, struct sop_err *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int rc = sop_disk_open_folder(out, path, err);

	(void)ctx;
	if (rc)
		return rc;
	/* Several threads open disks; all have the same operations. */
	pthread_mutex_lock(&lock);
	if (!real) {
		real = (*out)->ops;
		ops = *real;
		ops.link = my_link;
		ops.unlink = my_unlink;
		ops.syncdir = my_syncdir;
		ops.datasync = my_datasync;
		ops.pwritev = my_pwritev;
		ops.file_open = my_open;
	}
	pthread_mutex_unlock(&lock);
	(*out)->ops = &ops;
	return 0;
}

/* ---- a worker ---- */

static uint64_t hash_list(const uint32_t *list, size_t n)
{
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ list[i]) * 1099511628211u;
	return h;
}

static void key_name(char name[8], unsigned key)
{
	snprintf(name, 8, "k%u", key);
}

/* Read the lists, append to those that are wanted. */
static int fill(struct sop_txn *t, struct txn *x, uint64_t store)
{
	int rc = 0;

	for (unsigned i = 0; i < x->n && !rc; i++) {
		struct access *a = &x->at[i];
		char name[8];
		void *val = NULL;
		uint32_t *more;
		size_t len;

		key_name(name, a->key);
		rc = sop_get(t, SOP_NAME(store, name), &val, &len, &e);
		if (rc)
			return rc;
		a->len = (uint32_t)(len / 4);
		a->hash = hash_list(val, a->len);
		if (a->appends) {
			more = realloc(val, len + 4);
			if (!more)
				die("memory");
			val = more;
			more[a->len] = x->number;
			rc = sop_update(t, SOP_NAME(store, name), val, len + 4, &e);
		}
		free(val);
	}
	return rc;
}

static struct txn *txn_new(unsigned *rng)
{
	uint32_t number = ++all->txns;
	struct txn *x = &all->txn[number];
	unsigned first = (unsigned)rand_r(rng) % KEYS;

	if (number >= TXNS_MAX) {
		all->errors++;
		all->stop = true;
		return NULL;
	}
	x->number = number;
	x->n = (uint8_t)(1 + rand_r(rng) % 3);
	for (unsigned i = 0; i < x->n; i++)
		x->at[i] = (struct access){.key = (uint8_t)((first + i) % KEYS),
			.appends = i == 0 ? armed || rand_r(rng) % 8 : rand_r(rng) % 2};
	return x;
}

static void transact(struct sop_volume *v, unsigned me, uint64_t store, unsigned *rng)
{
	struct txn *x = txn_new(rng);
	struct sop_txn *t;
	int rc;

	if (!x)
		return;
	x->began = now();
	ok(sop_txn_begin(&t, v,
		   &(struct sop_txn_opts){.mode = SOP_TXN_WRITE, .timeout_ms = SOP_TXN_UNBOUNDED},
		   &e),
		"begin");
	rc = fill(t, x, store);
	if (rc) {
		sop_txn_rollback(t);
		x->outcome = REFUSED;
		if (rc != SOP_ECONFLICT)
			die("reading");
		return;
	}
	rc = sop_txn_commit(t, 0, &e);
	if (!rc) {
		x->ended = now();
		x->outcome = COMMITTED;
		all->committed[me]++;
	} else if (rc == SOP_ECONFLICT) {
		x->outcome = REFUSED;
	} else {
		die("commit");
	}
}

/* What it is stopped in. */
static void commit_armed(struct sop_volume *v, unsigned me, uint64_t store, unsigned *rng)
{
	armed = true;
	while (!all->committed[me]) {
		all->steps = 0;
		transact(v, me, store, rng);
	}
	armed = false;
	all->done = true;
}

/* The image of another may be in the way: then again. */
static void image_armed(struct sop_volume *v, unsigned me, uint64_t store, unsigned *rng)
{
	for (unsigned i = 0; i < 3; i++) {
		uint32_t before = all->committed[me];

		while (all->committed[me] == before)
			transact(v, me, store, rng);
		all->steps = 0;
		armed = true;
		ok(sop_volume_checkpoint(v, &e), "checkpoint");
		ok(sop_volume_tick(v, &e), "tick");
		armed = false;
	}
	all->done = true;
}

static void worker(unsigned me, unsigned seed, uint64_t at, int sig)
{
	struct sop_volume *v;
	struct sop_txn *t;
	uint64_t store;
	unsigned rng = seed;

	stop_at = at;
	stop_signal = sig;
	ok(sop_volume_open(&v, paths, DISKS,
		   &(struct sop_open_opts){.open_disk = open_disk,
			   .disk_timeout_ms = TIMEOUT_MS,
			   .redis = redis,
			   .lease_ms = lease_ms,
			   .checkpoint_ms = images ? 1 : 0},
		   &e),
		"open");
	ok(sop_txn_begin(&t, v, NULL, &e), "begin");
	ok(sop_store_at(t, "lists", 0, NULL, &store, &e), "store");
	sop_txn_rollback(t);
	all->opened++;
	if (at && images)
		image_armed(v, me, store, &rng);
	else if (at)
		commit_armed(v, me, store, &rng);
	while (!all->stop) {
		transact(v, me, store, &rng);
		/* Who has just committed knows all; who pauses has to find out. */
		if (calm || rand_r(&rng) % 4 == 0)
			usleep(2000);
	}
	ok(sop_volume_close(v, &e), "close");
	exit(0);
}

static pid_t start(unsigned me, unsigned seed, uint64_t at, int sig)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		worker(me, seed, at, sig);
	return pid;
}

/* ---- the history ---- */

static uint32_t *list[KEYS];
static size_t list_len[KEYS];

static void read_lists(struct sop_volume *v)
{
	struct sop_txn *t;
	uint64_t store;

	ok(sop_txn_begin(&t, v, NULL, &e), "begin");
	ok(sop_store_at(t, "lists", 0, NULL, &store, &e), "store");
	for (unsigned k = 0; k < KEYS; k++) {
		char name[8];
		void *val;

		key_name(name, k);
		ok(sop_get(t, SOP_NAME(store, name), &val, &list_len[k], &e), "list");
		list_len[k] /= 4;
		free(list[k]);
		list[k] = val;
	}
	sop_txn_rollback(t);
}

static int bad(const char *what, uint32_t number, unsigned key)
{
	fprintf(stderr, "shared: %s: transaction %u, list %u\n", what, number, key);
	return 1;
}

struct edges {
	uint32_t *to;
	size_t n, cap;
};

static void edge(struct edges *from, uint32_t to)
{
	if (from->n == from->cap) {
		from->cap = from->cap ? 2 * from->cap : 8;
		from->to = realloc(from->to, from->cap * sizeof(*from->to));
		if (!from->to)
			die("memory");
	}
	from->to[from->n++] = to;
}

/* Is the transaction part of the history? */
static bool counts(const struct txn *x, const bool *seen)
{
	return x->outcome == COMMITTED || seen[x->number];
}

static int by_time(const void *a, const void *b)
{
	const struct txn *x = *(struct txn *const *)a, *y = *(struct txn *const *)b;

	return (x->began > y->began) - (x->began < y->began);
}

/* Edges for "acknowledged before it began", by way of nodes that stand for moments: n + i is the
 * moment at which the i-th of those in order of their beginning begins. */
static void time_edges(struct edges *g, uint32_t n, const bool *seen)
{
	struct txn **order = calloc(n + 1, sizeof(struct txn *));
	size_t m = 0;

	if (!order)
		die("memory");
	for (uint32_t i = 1; i <= n; i++)
		if (counts(&all->txn[i], seen))
			order[m++] = &all->txn[i];
	qsort(order, m, sizeof(struct txn *), by_time);
	for (size_t i = 0; i < m; i++) {
		edge(&g[n + 1 + i], order[i]->number);
		if (i + 1 < m)
			edge(&g[n + 1 + i], (uint32_t)(n + 2 + i));
		if (!order[i]->ended)
			continue;
		/* The first that began after it ended. */
		for (size_t lo = i + 1, hi = m;;) {
			size_t mid = lo + (hi - lo) / 2;

			if (lo == hi) {
				if (lo < m)
					edge(&g[order[i]->number], (uint32_t)(n + 1 + lo));
				break;
			}
			if (order[mid]->began > order[i]->ended)
				hi = mid;
			else
				lo = mid + 1;
		}
	}
	free(order);
}

static int find_circle(struct edges *g, size_t nodes)
{
	uint8_t *state = calloc(nodes, 1);
	uint32_t *stack = calloc(nodes, sizeof(*stack));
	size_t *at = calloc(nodes, sizeof(*at)), depth;
	int rc = 0;

	if (!state || !stack || !at)
		die("memory");
	for (uint32_t i = 0; i < nodes && !rc; i++) {
		if (state[i])
			continue;
		depth = 0;
		stack[depth++] = i;
		state[i] = 1;
		while (depth && !rc) {
			uint32_t x = stack[depth - 1], to;

			if (at[x] == g[x].n) {
				state[x] = 2;
				depth--;
				continue;
			}
			to = g[x].to[at[x]++];
			if (state[to] == 1) {
				fprintf(stderr, "shared: a circle:");
				for (size_t k = depth; k--;) {
					fprintf(stderr, " %u", stack[k]);
					if (stack[k] == to)
						break;
				}
				fprintf(stderr, "\n");
				rc = 1;
			} else if (!state[to]) {
				state[to] = 1;
				stack[depth++] = to;
			}
		}
	}
	free(state);
	free(stack);
	free(at);
	return rc;
}

static int check_reads(struct edges *g, const struct txn *x)
{
	for (unsigned i = 0; i < x->n; i++) {
		const struct access *a = &x->at[i];

		if (a->len > list_len[a->key] || a->hash != hash_list(list[a->key], a->len))
			return bad("has read what is not there", x->number, a->key);
		if (a->len)
			edge(&g[list[a->key][a->len - 1]], x->number);
		if (a->len < list_len[a->key] && list[a->key][a->len] != x->number)
			edge(&g[x->number], list[a->key][a->len]);
		if (a->appends && (a->len >= list_len[a->key] || list[a->key][a->len] != x->number))
			return bad("is missing, or not where it was appended", x->number, a->key);
	}
	return 0;
}

static int check_history(void)
{
	uint32_t n = SOP_MIN((uint32_t)all->txns, (uint32_t)TXNS_MAX - 1);
	struct edges *g = calloc(2 * (size_t)n + 3, sizeof(*g));
	bool *seen = calloc(n + 2, sizeof(*seen));
	uint32_t *last = calloc(n + 2, sizeof(*last));
	int rc = 0;

	if (!g || !seen || !last)
		die("memory");
	for (unsigned k = 0; k < KEYS; k++)
		for (size_t i = 0; i < list_len[k]; i++) {
			uint32_t x = list[k][i];

			if (!x || x > n || last[x] == k + 1)
				return bad("is there twice, or was never begun", x, k);
			last[x] = k + 1;
			seen[x] = true;
			if (all->txn[x].outcome == REFUSED)
				return bad("was refused, and is there", x, k);
			if (i)
				edge(&g[list[k][i - 1]], x);
		}
	for (uint32_t i = 1; i <= n && !rc; i++)
		if (counts(&all->txn[i], seen))
			rc = check_reads(g, &all->txn[i]);
	if (!rc) {
		time_edges(g, n, seen);
		rc = find_circle(g, 2 * (size_t)n + 3);
	}
	for (size_t i = 0; i < 2 * (size_t)n + 3; i++)
		free(g[i].to);
	free(g);
	free(seen);
	free(last);
	return rc;
}

/* ---- runs ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void make_volume(void)
{
	struct sop_format_opts f = {.shared = true, .force = true, .k = 2, .m = 1};
	struct sop_volume *v;
	struct sop_txn *t;
	uint64_t store;

	for (unsigned i = 0; i < DISKS; i++) {
		nftw(disk_path[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
		if (mkdir(disk_path[i], 0755))
			die(disk_path[i]);
	}
	ok(sop_format(paths, DISKS, &f, NULL, &e), "mkfs");
	ok(sop_volume_open(&v, paths, DISKS, NULL, &e), "open");
	ok(sop_txn_begin(&t, v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &e), "begin");
	ok(sop_store_at(t, "lists", SOP_STORE_CREATE, NULL, &store, &e), "store");
	for (unsigned k = 0; k < KEYS; k++) {
		char name[8];

		key_name(name, k);
		ok(sop_add(t, SOP_NAME(store, name), "", 0, &e), "list");
	}
	ok(sop_txn_commit(t, 0, &e), "commit");
	ok(sop_volume_close(v, &e), "close");
	memset(all, 0,
		offsetof(struct shared, txn) +
			SOP_MIN((size_t)all->txns + 1, (size_t)TXNS_MAX) * sizeof(*all->txn));
}

static void say(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "shared: %s\n", line);
}

static uint64_t total_committed;

/* The end of a run: all lists, by one who is alone; what they say of the history; and the volume
 * whole. */
static int verdict(const char *name)
{
	struct sop_check_report report;
	struct sop_volume *v;
	uint32_t committed = 0, unknown = 0, n = SOP_MIN((uint32_t)all->txns, TXNS_MAX - 1u);
	int rc;

	ok(sop_volume_open(&v, paths, DISKS, &(struct sop_open_opts){.exclusive = true}, &e),
		"open at the end");
	read_lists(v);
	rc = check_history();
	ok(sop_volume_check(v, true, say, NULL, &report, &e), "check");
	ok(sop_volume_close(v, &e), "close at the end");
	for (uint32_t i = 1; i <= n; i++) {
		committed += all->txn[i].outcome == COMMITTED;
		unknown += all->txn[i].outcome == UNKNOWN;
	}
	rc = rc || report.errors || all->errors;
	total_committed += committed;
	if (!quiet || rc)
		printf("shared: %s: %u transactions, %u committed, %u refused, %u unknown: %s, "
		       "%" PRIu64 " errors\n",
			name, n, committed, n - committed - unknown, unknown,
			rc ? "NOT AS IT HAS TO BE" : "ok", report.errors);
	return rc;
}

static bool reap(pid_t pid, bool may_be_killed)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	return (WIFEXITED(status) && !WEXITSTATUS(status)) ||
	       (may_be_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static uint32_t others(unsigned me)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		n += i == me ? 0 : all->committed[i];
	return n;
}

/* Until the others have committed that many more; a worker that has failed ends the wait. */
static void let_others(unsigned me, uint32_t more)
{
	uint32_t until = others(me) + more;

	for (unsigned i = 0; others(me) < until && !all->stop; i++) {
		usleep(2000);
		if (i == BOUND_MS / 2) {
			fprintf(stderr, "shared: the others do not go on\n");
			all->errors++;
			return;
		}
	}
}

/* Everybody at once. */
static int crowd(uint32_t commits)
{
	pid_t pid[WORKERS];
	bool good = true;

	make_volume();
	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = start(i, 17 + i, 0, 0);
	let_others(WORKERS, commits);
	all->stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		good = reap(pid[i], false) && good;
	return verdict("all at once") || !good;
}

/* Worker 0 is stopped in front of step `at` of a commit, or killed there, while another goes on. */
static int stopped_at(uint64_t at, int sig, bool *beyond)
{
	pid_t pid = start(0, (unsigned)(1000 + at), at, sig);
	int status;

	*beyond = false;
	for (unsigned i = 0;; i++) {
		if (waitpid(pid, &status, WUNTRACED | WNOHANG) == pid)
			break;
		/* It made the commit, and was not stopped: there are no more steps. */
		if (all->done) {
			*beyond = true;
			return kill(pid, SIGKILL) || !reap(pid, true);
		}
		usleep(1000);
		if (i == BOUND_MS) {
			fprintf(stderr, "shared: the stopped one hangs\n");
			return 1;
		}
	}
	let_others(0, 3);
	if (WIFSTOPPED(status)) {
		uint32_t before = images ? all->committed[0] : 0;

		kill(pid, SIGCONT);
		/* It is to go on, and to commit something, now or later. */
		for (unsigned i = 0; all->committed[0] == before; i++) {
			usleep(1000);
			if (i == BOUND_MS || (waitpid(pid, &status, WNOHANG) == pid)) {
				fprintf(stderr, "shared: who was stopped does not go on\n");
				return 1;
			}
		}
		kill(pid, SIGKILL);
		return !reap(pid, true);
	}
	return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int every_step(int sig, bool of_images, unsigned stride)
{
	const char *what = of_images ? " in an image" : "";
	bool beyond = false;
	uint64_t at = 1, n = 0;
	char name[64];
	pid_t other;
	int rc = 0;

	images = of_images;
	make_volume();
	calm = true;
	other = start(1, 99, 0, 0);
	let_others(0, 1);
	for (; !rc && !beyond && !all->stop && at < 1000; at += stride, n++) {
		all->committed[0] = 0;
		all->done = false;
		rc = stopped_at(at, sig, &beyond);
	}
	all->stop = true;
	rc = rc || !reap(other, false);
	images = false;
	snprintf(name, sizeof(name), "%s at %" PRIu64 " steps%s",
		sig == SIGKILL ? "killed" : "stopped", n, what);
	return verdict(name) || rc || !beyond;
}

/* ---- with Redis, which decides nothing ---- */

static void command(const char *what)
{
	(void)test_redis_do(&server, what);
}

/* One thing that can happen to the server, or to a mounter that it then takes for dead. */
static void trouble(unsigned what, unsigned who, const pid_t *pid)
{
	switch (what % 6) {
	case 0:
		command("FLUSHALL");
		break;
	case 1:
		/* Some may commit before their leases are over, and all wait from then on. */
		test_redis_kill(&server);
		usleep(lease_ms * 1000);
		test_redis_again(&server);
		break;
	case 2:
		command("CLIENT KILL TYPE normal SKIPME yes");
		command("CLIENT KILL TYPE pubsub");
		break;
	case 3:
		/* Somebody sleeps until he is revoked, and wakes up. */
		kill(pid[who], SIGSTOP);
		usleep(lease_ms * 1500);
		let_others(who, 1);
		kill(pid[who], SIGCONT);
		break;
	case 4:
		command("SCRIPT FLUSH");
		command("FLUSHALL");
		break;
	default:
		test_redis_pause(&server, true);
		usleep(lease_ms * 100);
		test_redis_pause(&server, false);
		break;
	}
}

static int crowd_by_redis(unsigned troubles)
{
	pid_t pid[WORKERS];
	bool good = true;

	test_redis_start(&server, false, NULL);
	redis = server.url;
	make_volume();
	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = start(i, 71 + i, 0, 0);
	for (unsigned i = 0; i < troubles && !all->stop; i++) {
		let_others(WORKERS, 25);
		trouble(i, i % WORKERS, pid);
	}
	let_others(WORKERS, 25);
	all->stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		good = reap(pid[i], false) && good;
	redis = NULL;
	test_redis_end(&server);
	printf("shared: Redis was in trouble %u times\n", troubles);
	return verdict("with Redis in trouble") || !good;
}

/* ---- many short runs ---- */

static int short_run(unsigned seed)
{
	pid_t pid[WORKERS];
	unsigned rng = seed, troubles = 1 + (unsigned)rand_r(&rng) % 3;
	bool good = true;
	char name[40];

	snprintf(name, sizeof(name), "run of seed %u", seed);
	make_volume();
	calm = rand_r(&rng) % 2;
	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = start(i, (unsigned)rand_r(&rng), 0, 0);
	for (unsigned i = 0; i < troubles && !all->stop; i++) {
		unsigned who = (unsigned)rand_r(&rng) % WORKERS, what = (unsigned)rand_r(&rng) % 9;

		let_others(WORKERS, 1 + (unsigned)rand_r(&rng) % 20);
		if (what < 6 && redis) {
			trouble(what, who, pid);
			continue;
		}
		kill(pid[who], SIGKILL);
		good = reap(pid[who], true) && good;
		let_others(who, 1);
		pid[who] = start(who, (unsigned)rand_r(&rng), 0, 0);
	}
	let_others(WORKERS, 10);
	all->stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		good = reap(pid[i], false) && good;
	return verdict(name) || !good;
}

static int short_runs(unsigned n, unsigned seed)
{
	unsigned bad = 0;

	if (test_redis_there()) {
		test_redis_start(&server, false, NULL);
		redis = server.url;
	}
	lease_ms = 600;
	quiet = true;
	total_committed = 0;
	for (unsigned i = 0; i < n; i++) {
		bad += short_run(seed + i) != 0;
		if (i % 100 == 99)
			printf("shared: %u short runs, %u bad\n", i + 1, bad);
		fflush(stdout);
	}
	if (redis)
		test_redis_end(&server);
	redis = NULL;
	printf("shared: %u short runs from seed %u on, %" PRIu64 " committed: %u bad\n", n, seed,
		total_committed, bad);
	return bad != 0;
}

int main(void)
{
	const char *l = getenv("LONG"), *base = getenv("TMPDIR"), *runs = getenv("RUNS");
	const char *seed = getenv("SEED");
	bool more = l && *l && *l != '0';
	int rc;

	snprintf(folder, sizeof(folder), "%.40s/shared.XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(folder))
		die(folder);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(disk_path[i], sizeof(disk_path[i]), "%s/d%u", folder, i);
		paths[i] = disk_path[i];
	}
	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		die("memory");
	if (runs) {
		rc = short_runs((unsigned)atoi(runs), seed ? (unsigned)atoi(seed) : 1);
		goto out;
	}
	rc = crowd(more ? 4000 : 300);
	rc = every_step(SIGSTOP, false, more ? 1 : 3) || rc;
	rc = every_step(SIGKILL, false, more ? 1 : 3) || rc;
	rc = every_step(SIGSTOP, true, more ? 1 : 7) || rc;
	rc = every_step(SIGKILL, true, more ? 1 : 7) || rc;
	if (test_redis_there())
		rc = crowd_by_redis(more ? 120 : 6) || rc;
	else
		printf("shared: redis-server is not installed: not tested with it\n");
	rc = short_runs(more ? 1000 : 4, seed ? (unsigned)atoi(seed) : 1) || rc;
out:
	if (!rc)
		nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	else
		fprintf(stderr, "shared: left in %s\n", folder);
	return rc;
}
