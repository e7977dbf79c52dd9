/* history SEED WORKERS GENERATIONS DIR: are sessions serializable?
 *
 * Worker processes open, read, write, append to, truncate and close a few files at random, two
 * sessions at a time each; some sync in between, some exit or are killed with their files open. All
 * they read and whether each commit succeeded is recorded. Then, for each file, an order of the
 * sessions is looked for that explains everything: applied one after the other in it, every session
 * reads what it has read, and each takes effect between the call and the return of its commit (a
 * reader: of its open). So the check is for strict serializability. It is done file by file, which
 * is enough, as a session is of one file.
 *
 * In the beginning there is no file; one that is not there is like an empty one.
 *
 * A file is a row of slots; all words of a slot are one number, given to one write alone. Rolled
 * back and conflicting sessions must have read from one version too, and what they wrote must be
 * nowhere.
 *
 * The search is that of Wing and Gong with Lowe's memory of states: depth first over what could
 * come next, never twice from the same set of sessions done and the same content. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES	     4
#define CONTENT_MAX  1024 /* slots */
#define READ_MAX     70	  /* slots read in one step */
#define WRITE_MAX    4
#define LANES	     2		/* sessions that a process has open at once */
#define SESSIONS_GEN 12		/* of one process */
#define STEPS_MAX    400	/* of one transaction */
#define SHOWN_MAX    200	/* of a file whose history is not explained */
#define NOTHING	     UINT32_MAX /* read: there was the end */

/* Inline in the item; within and across pages; straight to the disks. Appends go on behind the
 * slots that are written by position. */
static const struct {
	size_t bytes;
	unsigned slots;
} shape[FILES] = {{8, 20}, {1000, 20}, {5000, 20}, {270000, 6}};

enum step_kind { READ, WRITE, TRUNCATE, APPEND };
struct step {
	uint8_t kind, slot; /* TRUNCATE: the size */
	uint32_t id;
};

enum outcome {
	OPEN,	   /* not ended */
	COMMITTED, /* in effect */
	ABORTED,   /* not in effect */
	UNKNOWN,   /* it ended with the process: either */
};

/* One transaction: a session, or what is between two commits of one. */
struct txn {
	uint64_t begin, begun; /* when its version was taken: call and return */
	uint64_t call, ret;    /* of the commit */
	uint8_t file, outcome;
	bool wrote;
	unsigned worker, n;
	struct step step[STEPS_MAX];
};

/* Of one worker; shared memory. */
struct record {
	unsigned n, max;
	uint32_t next_id;
	unsigned conflicts, syncs, killed;
	char trouble[200];
	struct txn txn[];
};

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % below;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("history: memory");
		exit(2);
	}
	return p;
}

/* ---- a worker ---- */

struct lane {
	int fd, flags;
	struct txn *t; /* NULL: no session */
	unsigned left;
};

static struct record *rec;
static unsigned me;
static const char *dir;
static char *buf;

static void trouble(const char *what, int file)
{
	snprintf(rec->trouble, sizeof(rec->trouble), "worker %u, file %d: %s: %s", me, file, what,
		strerror(errno));
	_exit(3);
}

static struct txn *txn_new(unsigned file, uint64_t begin, uint64_t begun)
{
	struct txn *t;

	if (rec->n == rec->max)
		return NULL;
	t = &rec->txn[rec->n++];
	memset(t, 0, sizeof(*t));
	t->worker = me;
	t->file = (uint8_t)file;
	t->begin = begin;
	t->begun = begun;
	return t;
}

static void note(struct txn *t, enum step_kind kind, unsigned slot, uint32_t id)
{
	t->step[t->n++] = (struct step){(uint8_t)kind, (uint8_t)slot, id};
	if (kind != READ)
		t->wrote = true;
}

/* The number of a slot; one that is not of one number is torn. */
static uint32_t slot_id(const char *p, size_t bytes, int file)
{
	uint32_t id, w;

	memcpy(&id, p, 4);
	for (size_t i = 4; i + 4 <= bytes; i += 4) {
		memcpy(&w, p + i, 4);
		if (w != id) {
			snprintf(rec->trouble, sizeof(rec->trouble),
				"worker %u, file %d: a slot is torn: %u and, at %zu, %u", me, file,
				id, i, w);
			_exit(3);
		}
	}
	return id;
}

static void read_slots(struct lane *l, unsigned slot, unsigned count)
{
	size_t bytes = shape[l->t->file].bytes;
	ssize_t n = pread(l->fd, buf, bytes * count, (off_t)(bytes * slot));

	if (n < 0)
		trouble("read", l->t->file);
	if (n % (ssize_t)bytes)
		trouble("the file ends within a slot", l->t->file);
	for (unsigned i = 0; i < count; i++) {
		bool end = (size_t)n < bytes * (i + 1);

		note(l->t, READ, slot + i,
			end ? NOTHING : slot_id(buf + bytes * i, bytes, l->t->file));
		if (end)
			break;
	}
}

/* The whole file, by a mapping; its size by fstat. */
static void read_mapped(struct lane *l)
{
	size_t bytes = shape[l->t->file].bytes;
	struct stat st;
	unsigned count;
	char *p;

	if (fstat(l->fd, &st))
		trouble("fstat", l->t->file);
	count = (unsigned)((size_t)st.st_size / bytes);
	count = count < READ_MAX ? count : READ_MAX;
	if (!st.st_size) {
		note(l->t, READ, 0, NOTHING);
		return;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, l->fd, 0);
	if (p == MAP_FAILED)
		trouble("mmap", l->t->file);
	for (unsigned i = 0; i < count; i++)
		note(l->t, READ, i, slot_id(p + i * bytes, bytes, l->t->file));
	if (count < READ_MAX)
		note(l->t, READ, count, NOTHING);
	munmap(p, (size_t)st.st_size);
}

static void write_slots(struct lane *l, unsigned slot, unsigned count)
{
	size_t bytes = shape[l->t->file].bytes, done = 0;
	bool append = l->flags & O_APPEND;

	for (unsigned i = 0; i < count; i++) {
		uint32_t id = ++rec->next_id;

		for (size_t k = 0; k < bytes; k += 4)
			memcpy(buf + i * bytes + k, &id, 4);
		note(l->t, append ? APPEND : WRITE, append ? 0 : slot + i, id);
	}
	while (done < count * bytes) {
		ssize_t n = append ? write(l->fd, buf + done, count * bytes - done)
				   : pwrite(l->fd, buf + done, count * bytes - done,
					     (off_t)(slot * bytes + done));

		if (n <= 0)
			trouble("write", l->t->file);
		done += (size_t)n;
	}
}

static void lane_open(struct lane *l)
{
	static const int kinds[] = {O_RDONLY, O_RDONLY, O_WRONLY, O_WRONLY | O_TRUNC,
		O_WRONLY | O_APPEND, O_RDWR, O_RDWR, O_RDWR | O_TRUNC};
	unsigned file = (unsigned)rnd(FILES * 4 - 3) / 4;
	struct stat st;
	char path[300];
	uint64_t begin;

	snprintf(path, sizeof(path), "%s/f%u", dir, file);
	l->flags = kinds[rnd(sizeof(kinds) / sizeof(kinds[0]))];
	/* Appends without end would leave nothing to look at. */
	if (l->flags & O_APPEND && !stat(path, &st) &&
		(size_t)st.st_size > shape[file].slots * shape[file].bytes)
		l->flags |= O_TRUNC;
	if ((l->flags & O_ACCMODE) != O_RDONLY)
		l->flags |= O_CREAT;
	begin = now();
	l->fd = open(path, l->flags, 0644);
	if (l->fd < 0) {
		if (errno != ENOENT || l->flags & O_CREAT)
			trouble("open", (int)file);
		l->t = txn_new(file, begin, now());
		if (l->t)
			note(l->t, READ, 0, NOTHING);
		l->t = NULL;
		return;
	}
	l->t = txn_new(file, begin, now());
	if (l->t && l->flags & O_TRUNC)
		note(l->t, TRUNCATE, 0, 0);
	l->left = 1 + (unsigned)rnd(5);
}

static bool commit_failed(struct lane *l, int rc, const char *what)
{
	l->t->ret = now();
	l->t->outcome = rc ? ABORTED : COMMITTED;
	if (!rc)
		return false;
	if (errno != EBUSY)
		trouble(what, l->t->file);
	rec->conflicts++;
	return true;
}

static void lane_close(struct lane *l)
{
	l->t->call = now();
	(void)commit_failed(l, close(l->fd), "close");
	l->t = NULL;
}

static void lane_sync(struct lane *l)
{
	struct txn *t = l->t;

	if (!t->wrote) { /* nothing to commit: it stays where it is */
		if (fsync(l->fd))
			trouble("fsync", t->file);
		return;
	}
	t->call = now();
	if (commit_failed(l, fsync(l->fd), "fsync")) {
		close(l->fd);
		l->t = NULL;
		return;
	}
	rec->syncs++;
	/* It goes on from what it has committed. */
	l->t = txn_new(t->file, t->call, t->ret);
	if (!l->t)
		close(l->fd);
}

static void lane_step(struct lane *l)
{
	unsigned slots = shape[l->t->file].slots;
	unsigned slot = (unsigned)rnd(slots), count = 1 + (unsigned)rnd(WRITE_MAX);

	if (slot + count > slots)
		count = slots - slot;
	if (!l->left-- || l->t->n + READ_MAX + WRITE_MAX > STEPS_MAX) {
		lane_close(l);
	} else if (l->flags & O_APPEND) {
		write_slots(l, 0, count);
	} else if ((l->flags & O_ACCMODE) == O_RDONLY) {
		if (rnd(2))
			read_mapped(l);
		else
			read_slots(l, slot, READ_MAX - slot);
	} else if (rnd(12) == 0) {
		lane_sync(l);
	} else if (rnd(12) == 0) {
		if (ftruncate(l->fd, (off_t)(slot * shape[l->t->file].bytes)))
			trouble("ftruncate", l->t->file);
		note(l->t, TRUNCATE, slot, 0);
	} else if ((l->flags & O_ACCMODE) == O_RDWR && rnd(2)) {
		read_slots(l, slot, count);
	} else {
		write_slots(l, slot, count);
	}
}

static void generation(void)
{
	struct lane lane[LANES] = {{0}};
	unsigned opened = 0, end = (unsigned)rnd(4);

	while (rec->n < rec->max) {
		struct lane *l = &lane[rnd(LANES)];

		if (l->t) {
			lane_step(l);
		} else if (opened++ == SESSIONS_GEN) {
			break;
		} else {
			lane_open(l);
		}
	}
	if (end == 0) {
		rec->killed++;
		kill(getpid(), SIGKILL);
	}
	for (unsigned i = 0; i < LANES; i++) {
		if (!lane[i].t)
			continue;
		/* Its end is the commit, and nobody is told how that went. */
		lane[i].t->outcome = UNKNOWN;
		lane[i].t->call = now();
		if (end != 1)
			lane_close(&lane[i]);
	}
	_exit(0);
}

/* What was open when the process ended is settled. */
static void worker(unsigned generations)
{
	uint64_t seed = rng;
	unsigned first, i;
	int status;

	for (unsigned g = 0; g < generations && rec->n < rec->max; g++) {
		pid_t pid;

		first = rec->n;
		rng = (seed + g) * 0x9e3779b97f4a7c15u | 1;
		pid = fork();
		if (pid < 0)
			_exit(3);
		if (!pid)
			generation();
		if (waitpid(pid, &status, 0) != pid)
			_exit(3);
		if (WIFEXITED(status) && WEXITSTATUS(status))
			_exit(3);
		for (i = first; i < rec->n; i++) {
			if (rec->txn[i].outcome == OPEN)
				rec->txn[i].outcome = ABORTED;
			if (rec->txn[i].outcome == UNKNOWN)
				rec->txn[i].ret = now();
		}
	}
	_exit(0);
}

/* ---- the search ---- */

struct content {
	unsigned size;
	uint32_t slot[CONTENT_MAX];
};

struct op {
	const struct txn *t;
	uint64_t call, ret, key;
	bool may, must; /* take effect */
	struct op *prev, *next;
};

/* What was chosen at one depth, and how it was before. */
struct frame {
	struct op *op;
	bool effect;
	uint64_t done;
	struct content before;
};

/* False: it would have read something else. */
static bool apply(struct content *c, const struct txn *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct step *s = &t->step[i];
		unsigned at = s->kind == APPEND ? c->size : s->slot;

		if (s->kind == READ) {
			if (s->id != (at < c->size ? c->slot[at] : NOTHING))
				return false;
			continue;
		}
		if (at >= CONTENT_MAX) {
			printf("a file has grown too long\n");
			exit(2);
		}
		while (c->size < at)
			c->slot[c->size++] = 0;
		if (s->kind == TRUNCATE) {
			c->size = at;
			continue;
		}
		c->slot[at] = s->id;
		if (c->size == at)
			c->size++;
	}
	return true;
}

static uint64_t mix(uint64_t h)
{
	h = (h ^ (h >> 31)) * 0x9e3779b97f4a7c15u;
	return h ^ (h >> 29);
}

static uint64_t content_hash(const struct content *c)
{
	uint64_t h = c->size;

	for (unsigned i = 0; i < c->size; i++)
		h = mix(h ^ c->slot[i]) + i;
	return mix(h);
}

static struct {
	uint64_t *key;
	size_t size, used;
} seen;

/* True: it was not there. */
static bool seen_add(uint64_t key)
{
	size_t i;

	key |= 1;
	if (seen.used * 2 >= seen.size) {
		uint64_t *old = seen.key;
		size_t n = seen.size;

		seen.size = n ? n * 2 : 1 << 16;
		seen.key = calloc(seen.size, sizeof(*seen.key));
		if (!seen.key)
			exit(2);
		seen.used = 0;
		for (i = 0; i < n; i++)
			if (old[i])
				seen_add(old[i]);
		free(old);
	}
	for (i = mix(key) & (seen.size - 1); seen.key[i]; i = (i + 1) & (seen.size - 1))
		if (seen.key[i] == key)
			return false;
	seen.key[i] = key;
	seen.used++;
	return true;
}

static void show(FILE *to, const struct op *o)
{
	static const char *const how[] = {"open", "committed", "aborted", "unknown"};
	static const char what[] = "rwta";

	fprintf(to, "  worker %u, %s, at a moment from %llu to %llu us:", o->t->worker,
		how[o->t->outcome], (unsigned long long)o->call / 1000,
		(unsigned long long)o->ret / 1000);
	for (unsigned i = 0; i < o->t->n; i++) {
		const struct step *s = &o->t->step[i];

		if (s->kind == READ && s->id == NOTHING)
			fprintf(to, " r%u=end", s->slot);
		else
			fprintf(to, " %c%u=%u", what[s->kind], s->slot, s->id);
	}
	fprintf(to, "\n");
}

/* What could come next: has begun before any of the others must have ended. */
#define FOR_NEXT(o, head, bound)                                                                   \
	for (uint64_t bound = UINT64_MAX; bound; bound = 0)                                        \
		for (struct op *o = (head)->next; o && o->call <= bound;                           \
			bound = o->ret < bound ? o->ret : bound, o = o->next)

static void show_stuck(
	FILE *to, const struct op *head, const struct content *c, size_t depth, size_t n)
{
	fprintf(to, "%zu of %zu are explained; then the file holds\n ", depth, n);
	for (unsigned i = 0; i < c->size; i++)
		fprintf(to, " %u", c->slot[i]);
	fprintf(to, "\nand none of these can be the next:\n");
	FOR_NEXT(o, head, bound)
	show(to, o);
}

static bool may_come(const struct op *o, bool effect, const struct content *c, struct content *next)
{
	*next = *c;
	if (effect ? !o->may : o->must)
		return false;
	/* Of one that ended with its process it is not known when it began. */
	if ((effect || o->t->outcome != UNKNOWN || !o->t->wrote) && !apply(next, o->t))
		return false;
	if (!effect)
		*next = *c;
	return true;
}

/* Choose the first that may come next, or, going on from *f, the one after that. */
static bool advance(struct op *head, struct content *c, uint64_t *done, struct frame *f, bool again)
{
	struct content next;

	FOR_NEXT(o, head, bound)
	{
		for (int effect = 1; effect >= 0; effect--) {
			if (again) {
				again = o != f->op || effect != f->effect;
				continue;
			}
			if (!may_come(o, effect, c, &next) ||
				!seen_add(mix(*done ^ o->key) ^ content_hash(&next)))
				continue;
			*f = (struct frame){o, effect, *done, *c};
			*c = next;
			*done ^= o->key;
			o->prev->next = o->next;
			if (o->next)
				o->next->prev = o->prev;
			return true;
		}
	}
	return false;
}

static void retreat(struct content *c, uint64_t *done, const struct frame *f)
{
	struct op *o = f->op;

	o->prev->next = o;
	if (o->next)
		o->next->prev = o;
	*c = f->before;
	*done = f->done;
}

static int by_call(const void *a, const void *b)
{
	const struct op *x = a, *y = b;

	return x->call < y->call ? -1 : x->call > y->call;
}

static bool explain(struct op *op, size_t n)
{
	char *text = NULL, *last = NULL;
	size_t len;
	struct op head = {0};
	struct content c = {0};
	struct frame *stack = calloc(n + 1, sizeof(*stack));
	size_t depth = 0, deepest = 0;
	bool again = false;
	uint64_t done = 0;

	if (!stack)
		exit(2);
	qsort(op, n, sizeof(*op), by_call);
	for (size_t i = 0; i < n; i++) {
		op[i].prev = i ? &op[i - 1] : &head;
		op[i].prev->next = &op[i];
		op[i].next = NULL;
		op[i].key = mix((i + 1) * 0xd1342543de82ef95u);
	}
	if (seen.key)
		memset(seen.key, 0, seen.size * sizeof(*seen.key));
	seen.used = 0;
	while (depth < n) {
		if (advance(&head, &c, &done, &stack[depth], again)) {
			depth++;
			again = false;
			continue;
		}
		if (depth > deepest) {
			FILE *to = open_memstream(&text, &len);

			if (!to)
				exit(2);
			deepest = depth;
			free(last);
			show_stuck(to, &head, &c, depth, n);
			fclose(to);
			last = text;
		}
		if (!depth)
			break;
		retreat(&c, &done, &stack[--depth]);
		again = true;
	}
	if (depth < n) {
		printf("%s", last ? last : "");
		printf("all of them, by their call:\n");
		for (size_t i = 0; i < n && n <= SHOWN_MAX; i++)
			show(stdout, &op[i]);
	}
	free(last);
	free(stack);
	return depth == n;
}

static struct op op_of(const struct txn *t)
{
	bool reader = !t->wrote || t->outcome == ABORTED;

	return (struct op){.t = t,
		.call = reader ? t->begin : t->call,
		.ret = reader ? t->begun : t->ret,
		.may = !reader,
		.must = !reader && t->outcome == COMMITTED};
}

/* ---- all together ---- */

static bool check(struct record *const *r, unsigned workers, unsigned file, const struct txn *last)
{
	struct op *op;
	size_t n = 0, max = 1;
	bool good;

	for (unsigned w = 0; w < workers; w++)
		max += r[w]->n;
	op = calloc(max, sizeof(*op));
	if (!op)
		exit(2);
	for (unsigned w = 0; w < workers; w++)
		for (unsigned i = 0; i < r[w]->n; i++)
			if (r[w]->txn[i].file == file && r[w]->txn[i].n)
				op[n++] = op_of(&r[w]->txn[i]);
	op[n++] = op_of(last);
	good = explain(op, n);
	printf("file %u: %zu transactions: %s\n", file, n,
		good ? "serializable" : "NO ORDER EXPLAINS THEM");
	free(op);
	return good;
}

static bool run(struct record **r, unsigned workers, unsigned generations)
{
	bool good = true;
	int status;

	for (unsigned w = 0; w < workers; w++) {
		unsigned max = generations * SESSIONS_GEN * 2;

		r[w] = shared(sizeof(**r) + max * sizeof(struct txn));
		r[w]->max = max;
		r[w]->next_id = (w + 1) << 20;
	}
	for (unsigned w = 0; w < workers; w++) {
		pid_t pid = fork();

		if (pid < 0)
			exit(2);
		if (pid)
			continue;
		rec = r[w];
		me = w;
		rng = (rng + w) * 0xd1342543de82ef95u | 1;
		worker(generations);
	}
	for (unsigned w = 0; w < workers; w++)
		if (wait(&status) < 0 || status)
			good = false;
	for (unsigned w = 0; w < workers; w++)
		if (r[w]->trouble[0])
			printf("%s\n", r[w]->trouble);
	return good;
}

/* What the file holds in the end, as one more reader. */
static void read_last(struct record *mine, unsigned file)
{
	char path[300];
	struct lane l = {.flags = O_RDONLY};
	uint64_t begin = now();

	rec = mine;
	snprintf(path, sizeof(path), "%s/f%u", dir, file);
	l.fd = open(path, O_RDONLY);
	if (l.fd < 0 && errno != ENOENT) {
		perror(path);
		exit(2);
	}
	l.t = txn_new(file, begin, now());
	l.t->outcome = COMMITTED;
	if (l.fd < 0)
		note(l.t, READ, 0, NOTHING);
	else
		read_slots(&l, 0, READ_MAX);
	close(l.fd);
}

int main(int argc, char **argv)
{
	unsigned workers = argc == 5 ? (unsigned)atoi(argv[2]) : 0;
	unsigned generations = argc == 5 ? (unsigned)atoi(argv[3]) : 0;
	unsigned n = 0, conflicts = 0, syncs = 0, killed = 0;
	struct record **r, *mine;
	bool good;

	if (!workers || !generations) {
		fprintf(stderr, "usage: history SEED WORKERS GENERATIONS DIR\n");
		return 2;
	}
	rng = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u | 1;
	dir = argv[4];
	buf = malloc(READ_MAX * shape[FILES - 1].bytes);
	r = calloc(workers, sizeof(struct record *));
	mine = shared(sizeof(*mine) + FILES * sizeof(struct txn));
	if (!buf || !r)
		return 2;
	mine->max = FILES;
	for (unsigned f = 0; f < FILES; f++) {
		char path[300];

		snprintf(path, sizeof(path), "%s/f%u", dir, f);
		if (unlink(path) && errno != ENOENT) {
			perror(path);
			return 2;
		}
	}
	printf("seed %s, %u workers of %u generations\n", argv[1], workers, generations);
	good = run(r, workers, generations);
	for (unsigned f = 0; good && f < FILES; f++)
		read_last(mine, f);
	for (unsigned f = 0; mine->n == FILES && f < FILES; f++)
		good = check(r, workers, f, &mine->txn[f]) && good;
	for (unsigned w = 0; w < workers; w++) {
		n += r[w]->n;
		conflicts += r[w]->conflicts;
		syncs += r[w]->syncs;
		killed += r[w]->killed;
	}
	printf("%u transactions, %u conflicts, %u syncs, %u processes killed\n", n, conflicts,
		syncs, killed);
	free(r);
	free(buf);
	return good ? 0 : 1;
}
