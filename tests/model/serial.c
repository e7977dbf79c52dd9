/* Random interleavings of a few transactions against one after the other: what was committed must
 * be what the same programs do alone, in the order of their commits. A round takes the volume as
 * the rounds before have left it, copies its disks, and runs the programs on it, a step of any of
 * them at a time, some prepared in between; then those that were committed run on the copy.
 * Compared is all that is there afterwards, and what each step told its program: that is what a
 * program may have gone by. The volume is checked at the end of each walk.
 *
 * SEED=n runs one walk; LONG=1: many. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/lib/scenario.h"

#define ROUNDS	 40
#define PROGRAMS 3
#define STEPS	 6
#define BYTES	 (64u << 10)

enum op {
	LOOKUP,
	GET,
	LIST,
	COUNT,
	READ,
	XATTR_GET,
	CREATE,
	ADD,
	UPSERT,
	UPDATE,
	REMOVE,
	MAKE_STORE,
	REMOVE_STORE,
	RENAME,
	LINK,
	SETATTR,
	XATTR_SET,
	XATTR_REMOVE,
	WRITE,
	TRUNCATE,
	APPEND,
	PUNCH,
	SET_STORE,
	CLIP,
	OPS,
};

static const char *const op_name[OPS] = {"lookup", "get", "list", "count", "read", "xattr-get",
	"create", "add", "upsert", "update", "remove", "make-store", "remove-store", "rename",
	"link", "setattr", "xattr-set", "xattr-remove", "write", "truncate", "append", "punch",
	"set-store", "clip"};
static const char *const folder[] = {"", "d1", "d2", "d1/e"};
static const char *const key[] = {"a", "b", "c", "d1", "d2", "e"};
static const char *const xattr[] = {"user.a", "user.b"};
static const size_t size[] = {0, 5, 500, 3000, 9000, 30000};

struct step {
	enum op op;
	unsigned folder[2], key[2], x, y;
	bool by_id; /* the folders as they are when the round begins, whatever they are called */
};

struct told {
	int rc;
	uint64_t h;
};

struct program {
	enum sop_txn_mode mode;
	unsigned n, done;
	struct step step[STEPS];
	struct told told[STEPS];
	struct sop_txn *t;
	bool ended;
	bool wrote; /* a session that only reads is not checked */
	int rc;	    /* of the commit */
};

static uint64_t seed, rng;
static unsigned round_, committed, conflicts, rolled_back;
static struct program program[PROGRAMS];
static unsigned programs, order[PROGRAMS], in_order;
static uint64_t folder_id[SOP_ARRAY_LEN(folder)]; /* 0: there is none */
static uint8_t buf[BYTES];
static struct sop_err e;

static unsigned dice(unsigned n)
{
	return (unsigned)(next_random(&rng) % n);
}

static void die(const char *what)
{
	printf("serial: SEED=%" PRIu64 " round %u: %s: %s\n", seed, round_, what, e.text);
	printf("order of the commits:");
	for (unsigned i = 0; i < in_order; i++)
		printf(" %u", order[i]);
	printf("\n");
	for (unsigned i = 0; i < programs; i++) {
		const struct program *p = &program[i];

		printf("program %u%s: %d\n", i, p->mode == SOP_TXN_SESSION ? ", a session" : "",
			p->rc);
		for (unsigned k = 0; k < p->n; k++)
			printf("  %s%s %s/%s %s/%s x %u y %u: %d %" PRIx64 "\n",
				op_name[p->step[k].op], p->step[k].by_id ? " by id" : "",
				folder[p->step[k].folder[0]], key[p->step[k].key[0]],
				folder[p->step[k].folder[1]], key[p->step[k].key[1]], p->step[k].x,
				p->step[k].y, p->told[k].rc, p->told[k].h);
	}
	exit(1);
}

static void ok(int rc, const char *what)
{
	if (rc < 0)
		die(what);
}

static void mix(uint64_t *h, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		*h = (*h ^ b[i]) * 0x100000001B3u;
	*h ^= *h >> 31;
}

static void mix_number(uint64_t *h, uint64_t x)
{
	mix(h, &x, sizeof(x));
}

/* Of a directory no commit checks what a look-up says of its items. */
static void mix_attr(uint64_t *h, const struct sop_attr *a)
{
	mix_number(h, a->mode);
	if (S_ISDIR(a->mode))
		return;
	mix_number(h, a->size);
	mix_number(h, a->nlink);
}

/* ---- a step ---- */

static int find_folder(struct sop_txn *t, const struct step *s, unsigned which, uint64_t *store)
{
	unsigned i = s->folder[which];

	if (!s->by_id)
		return sop_store_at(t, folder[i], 0, NULL, store, &e);
	*store = folder_id[i];
	return *store ? 0 : -ENOENT;
}

static int list_item(void *arg, const void *k, size_t klen, const struct sop_attr *a)
{
	mix(arg, k, klen);
	mix_number(arg, a->mode & S_IFMT);
	return 0;
}

static int read_value(struct sop_txn *t, struct sop_name n, uint64_t *h)
{
	void *val;
	size_t len;
	int rc = sop_get(t, n, &val, &len, &e);

	if (rc)
		return rc;
	mix_number(h, len);
	mix(h, val, len);
	free(val);
	return 0;
}

static int read_xattr(struct sop_txn *t, struct sop_name n, const char *name, uint64_t *h)
{
	ssize_t len = sop_xattr_get(t, n, name, buf, sizeof(buf), &e);

	if (len < 0)
		return (int)len;
	mix_number(h, (uint64_t)len);
	mix(h, buf, (size_t)len);
	return 0;
}

static int change_value(struct sop_txn *t, const struct step *s, struct sop_name n, uint64_t *h)
{
	size_t len = size[s->x % SOP_ARRAY_LEN(size)] + 1;
	struct sop_value *x;
	ssize_t rc = sop_value_open(
		&x, t, n, SOP_VALUE_WRITE | (s->op == APPEND ? (unsigned)SOP_VALUE_APPEND : 0), &e);

	if (rc)
		return (int)rc;
	if (s->op == TRUNCATE) {
		rc = sop_value_truncate(x, s->y * 91 % 30000, &e);
	} else if (s->op == PUNCH) {
		/* It ends where the value ends, as the program sees it. */
		if (s->y * 53 % 20000 + len > sop_value_size(x))
			sop_value_depend(x);
		rc = sop_value_punch(x, s->y * 53 % 20000, len, &e);
	} else if (s->op == READ) {
		rc = sop_value_read(x, buf, len, s->y * 37 % 20000, &e);
		if (rc > 0)
			mix(h, buf, (size_t)rc);
		mix_number(h, sop_value_size(x));
	} else {
		fill_random(buf, len, s->y + 1);
		rc = sop_value_write(x, buf, len, s->y * 37 % 20000, &e);
	}
	sop_value_close(x);
	return rc < 0 ? (int)rc : 0;
}

static int clip(struct sop_txn *t, const struct step *s, struct sop_name from, struct sop_name to)
{
	struct sop_value *x;
	struct sop_clip *c;
	ssize_t rc = sop_value_open(&x, t, from, 0, &e);

	if (rc)
		return (int)rc;
	rc = sop_clip_take(&c, x, s->y * 37 % 20000, 20000, &e);
	sop_value_close(x);
	if (rc)
		return (int)rc;
	rc = sop_value_open(&x, t, to, SOP_VALUE_WRITE, &e);
	if (!rc) {
		rc = sop_clip_put(x, c, s->x * 777, &e);
		sop_value_close(x);
	}
	sop_clip_free(c);
	return rc < 0 ? (int)rc : 0;
}

static int set_store(struct sop_txn *t, const struct step *s, uint64_t store)
{
	char note[16];
	const struct sop_store_opts o = {.note = note, .session = (uint8_t)(s->y % 3)};
	unsigned mask = s->x & 1 ? SOP_STORE_NOTE : SOP_STORE_SESSION;

	snprintf(note, sizeof(note), "n%u", s->y);
	if (s->x % 5 == 4 && store != SOP_ROOT)
		mask = SOP_STORE_SHAPE;
	return sop_store_set(t, store, &o, mask, &e);
}

static int run_step(struct sop_txn *t, const struct step *s, bool session, uint64_t *h)
{
	static const unsigned rename_flags[] = {0, 0, SOP_RENAME_NOREPLACE, SOP_RENAME_EXCHANGE};
	const char *x = xattr[s->y % SOP_ARRAY_LEN(xattr)];
	size_t len = size[s->x % SOP_ARRAY_LEN(size)];
	struct sop_attr a;
	struct sop_name n, to;
	uint64_t store;
	int rc = find_folder(t, s, 0, &store);

	if (rc)
		return rc;
	n = SOP_NAME(store, key[s->key[0]]);
	fill_random(buf, len, s->y + 1);
	switch (s->op) {
	case LOOKUP:
		rc = sop_lookup(t, n, &a, &e);
		if (!rc)
			mix_attr(h, &a);
		return rc;
	case GET:
		return read_value(t, n, h);
	case LIST: /* of a session each look is at another state, and all are checked */
		return session ? 0 : sop_scan(t, store, NULL, s->x & 1, list_item, h, &e);
	case COUNT:
		return session ? 0 : sop_count(t, store, h, &e);
	case XATTR_GET:
		return read_xattr(t, n, x, h);
	case CREATE:
		a = (struct sop_attr){.mode = S_IFREG | 0600};
		return sop_create(t, n, &a, buf, len, NULL, &e);
	case ADD:
		return sop_add(t, n, buf, len, &e);
	case UPSERT:
		return sop_upsert(t, n, buf, len, &e);
	case UPDATE:
		return sop_update(t, n, buf, len, &e);
	case REMOVE:
		return sop_remove(t, n, &e);
	case MAKE_STORE:
		return sop_store_create(t, n, NULL, NULL, NULL, &e);
	case REMOVE_STORE:
		return sop_store_remove(t, n, &e);
	case RENAME:
	case LINK:
	case CLIP:
		rc = find_folder(t, s, 1, &store);
		if (rc)
			return rc;
		to = SOP_NAME(store, key[s->key[1]]);
		return s->op == CLIP   ? clip(t, s, n, to)
		       : s->op == LINK ? sop_link(t, n, to, NULL, &e)
				       : sop_rename(t, n, to, rename_flags[s->x % 4], &e);
	case SETATTR:
		a = (struct sop_attr){.mode = 0400 + s->x};
		return sop_setattr(t, n, &a, SOP_ATTR_MODE, &e);
	case XATTR_SET:
		return sop_xattr_set(
			t, n, x, buf, len / 2, s->y % 8 == 7 ? SOP_XATTR_CREATE : 0, &e);
	case XATTR_REMOVE:
		return sop_xattr_remove(t, n, x, &e);
	case READ:
	case WRITE:
	case TRUNCATE:
	case APPEND:
	case PUNCH:
		return change_value(t, s, n, h);
	case SET_STORE:
		return set_store(t, s, store);
	case OPS:
		break;
	}
	return -EINVAL;
}

static void step(struct sop_txn *t, const struct program *p, unsigned k, struct told *out)
{
	uint64_t h = 1;

	e.text[0] = 0;
	out->rc = run_step(t, &p->step[k], p->mode == SOP_TXN_SESSION, &h);
	out->h = out->rc ? 0 : h;
	if (out->rc <= SOP_ECONFLICT) /* no answer of a step, not even of one that comes too late */
		die(op_name[p->step[k].op]);
}

/* ---- all that is there ---- */

#define ENTRIES_MAX 64

struct entries {
	struct {
		uint8_t key[16];
		size_t len;
	} entry[ENTRIES_MAX];
	unsigned n;
};

static int take_entry(void *arg, const void *k, size_t klen, const struct sop_attr *a)
{
	struct entries *l = arg;

	(void)a;
	if (l->n == ENTRIES_MAX || klen > sizeof(l->entry[0].key))
		return -ENOSPC;
	memcpy(l->entry[l->n].key, k, klen);
	l->entry[l->n++].len = klen;
	return 0;
}

static void digest_store(struct sop_txn *t, uint64_t store, uint64_t *h);

static void digest_item(struct sop_txn *t, struct sop_name n, uint64_t *h)
{
	struct sop_attr a;

	ok(sop_lookup(t, n, &a, &e), "look-up");
	mix(h, n.key, n.len);
	mix_attr(h, &a);
	if (S_ISDIR(a.mode)) {
		digest_store(t, a.ino, h);
		return;
	}
	ok(read_value(t, n, h), "value");
	for (unsigned i = 0; i < SOP_ARRAY_LEN(xattr); i++)
		mix_number(h, (uint64_t)read_xattr(t, n, xattr[i], h));
}

static void digest_store(struct sop_txn *t, uint64_t store, uint64_t *h)
{
	struct entries l = {.n = 0};
	char info[SOP_STORE_INFO_BYTES];
	struct sop_store_opts o;
	struct sop_attr self;
	uint64_t count;

	ok(sop_scan(t, store, NULL, false, take_entry, &l, &e), "scan");
	ok(sop_count(t, store, &count, &e), "count");
	ok(sop_lookup(t, SOP_SELF(store), &self, &e), "directory");
	ok(sop_store_info(t, store, &o, info, sizeof(info), &e), "options");
	if (count != l.n || self.count != l.n)
		die("the number of items is not what a scan finds");
	mix_number(h, l.n);
	mix_number(h, self.nlink);
	mix_number(h, o.session);
	if (o.note)
		mix(h, o.note, strlen(o.note));
	for (unsigned i = 0; i < l.n; i++)
		digest_item(t, (struct sop_name){store, l.entry[i].key, l.entry[i].len}, h);
}

static uint64_t digest(struct fixture *f)
{
	uint64_t h = 1;

	digest_store(sop_volume_latest(f->v), SOP_ROOT, &h);
	return h;
}

/* ---- a round ---- */

static void make_programs(void)
{
	memset(program, 0, sizeof(program));
	in_order = 0;
	programs = 2 + dice(PROGRAMS - 1);
	for (unsigned i = 0; i < programs; i++) {
		struct program *p = &program[i];

		p->mode = dice(4) ? SOP_TXN_WRITE : SOP_TXN_SESSION;
		p->n = 1 + dice(STEPS);
		for (unsigned k = 0; k < p->n; k++) {
			struct step *s = &p->step[k];

			s->op = (enum op)dice(OPS);
			for (unsigned d = 0; d < 2; d++) {
				s->folder[d] = dice(SOP_ARRAY_LEN(folder));
				s->key[d] = dice(SOP_ARRAY_LEN(key));
			}
			s->x = dice(64);
			s->y = dice(1000);
			s->by_id = !dice(3);
		}
	}
}

/* What was to be changed may be gone. */
static void lost(struct program *p, const char *what)
{
	if (p->rc != SOP_ECONFLICT && p->rc != -ENOENT)
		die(what);
	conflicts++;
	p->ended = true;
}

static uint64_t lsn_of(struct fixture *f)
{
	struct sop_volume_stat s;

	sop_volume_stat(f->v, &s);
	return s.lsn;
}

static void end(struct fixture *f, struct program *p)
{
	if (!sop_txn_id(p->t) && !dice(3)) {
		p->rc = sop_txn_prepare(p->t, &e);
		if (p->rc) {
			sop_txn_rollback(p->t);
			lost(p, "prepare");
		}
	} else if (sop_txn_id(p->t) && !dice(4)) {
		sop_txn_rollback(p->t);
		rolled_back++;
		p->ended = true;
	} else {
		uint64_t lsn = lsn_of(f);

		p->wrote = sop_txn_id(p->t);
		p->rc = sop_txn_commit(p->t, 0, &e);
		p->wrote |= lsn_of(f) > lsn;
		if (p->rc) {
			lost(p, "commit");
			return;
		}
		order[in_order++] = (unsigned)(p - program);
		committed++;
		p->ended = true;
	}
}

static void next_step(struct program *p)
{
	step(p->t, p, p->done, &p->told[p->done]);
	p->done++;
}

static void interleave(struct fixture *f)
{
	for (unsigned alive = programs; alive;) {
		struct program *p = &program[dice(programs)];

		if (p->ended)
			continue;
		if (!p->t)
			p->t = fixture_begin(f, p->mode);
		else if (p->done < p->n)
			next_step(p);
		else
			end(f, p);
		alive -= p->ended;
	}
}

static void one_after_the_other(struct fixture *g)
{
	for (unsigned i = 0; i < in_order; i++) {
		const struct program *p = &program[order[i]];
		struct sop_txn *t = fixture_begin(g, SOP_TXN_WRITE);

		for (unsigned k = 0; k < p->n; k++) {
			const struct told *then = &p->told[k];
			struct told now;

			/* What a session does not find is no part of what it goes by. */
			if (p->mode == SOP_TXN_SESSION && then->rc)
				continue;
			step(t, p, k, &now);
			if ((p->mode == SOP_TXN_SESSION && !p->wrote) ||
				(now.rc == then->rc && now.h == then->h))
				continue;
			snprintf(e.text, sizeof(e.text),
				"program %u, step %u: alone it is told %d %" PRIx64, order[i], k,
				now.rc, now.h);
			die("another answer");
		}
		ok(sop_txn_commit(t, 0, &e), "commit of one alone");
	}
}

/* So that most steps find something. What cannot be is left as it is. */
static void furnish(struct fixture *f)
{
	struct sop_txn *t = fixture_begin(f, SOP_TXN_WRITE);
	uint64_t store;

	for (unsigned i = 0; i < SOP_ARRAY_LEN(folder); i++) {
		if (sop_store_at(t, folder[i], SOP_STORE_CREATE, NULL, &store, &e))
			continue;
		for (unsigned k = 0; k < SOP_ARRAY_LEN(key); k++)
			if (!dice(3))
				(void)sop_add_if_absent(t, SOP_NAME(store, key[k]), key[k], 1, &e);
	}
	ok(sop_txn_commit(t, 0, &e), "furnishing");
}

static void one_round(struct fixture *f)
{
	struct fixture g;

	make_programs();
	furnish(f);
	for (unsigned i = 0; i < SOP_ARRAY_LEN(folder); i++)
		if (sop_store_at(sop_volume_latest(f->v), folder[i], 0, NULL, &folder_id[i], &e))
			folder_id[i] = 0;
	ok(fixture_close(f), "close");
	scenario_clone(&g, f, f->sim, seed);
	ok(fixture_open(f), "open");
	ok(sop_volume_open(&g.v, g.paths, g.disks, &g.opts, &e), "open the copy");
	interleave(f);
	if (!dice(3)) {
		fixture_skipped_ms += 60000;
		ok(sop_volume_tick(f->v, &e), "tick");
	}
	one_after_the_other(&g);
	if (digest(f) != digest(&g))
		die("it is not what the programs do alone");
	fixture_release(&g);
}

static void walk(void)
{
	struct fixture f;

	rng = seed * 7919;
	fixture_init(&f, 2, 1, 0);
	f.opts.clock = &fixture_clock;
	ok(fixture_open(&f), "open");
	for (round_ = 0; round_ < ROUNDS; round_++)
		one_round(&f);
	fixture_settle(&f);
	fixture_release(&f);
}

int main(void)
{
	const char *l = getenv("LONG"), *s = getenv("SEED");
	unsigned walks = s ? 1 : l && *l && *l != '0' ? 1000 : 10;

	seed = s ? strtoull(s, NULL, 10) : 1;
	for (unsigned i = 0; i < walks; i++, seed++)
		walk();
	printf("serial: %u walks of %d rounds: %u committed, %u conflicts, %u rolled back\n", walks,
		ROUNDS, committed, conflicts, rolled_back);
	return 0;
}
