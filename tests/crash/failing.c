/* Failure loops. Each operation of the alphabet runs again and again, and each time one thing more
 * goes well before one fails: an allocation, an I/O (once, or the disk is gone from then on), a
 * write on a full disk. Every time: an error comes back or none was needed; what is seen is the
 * state before or after; nothing leaks; the volume goes on or fails closed; after another mount it
 * checks clean and holds one of the two.
 *
 *     failing [--only MODE:CONFIG:OPERATION[!][:N]]      (! commits durably) */
#include <stdio.h>
#include <sys/stat.h>

#include "tests/lib/loops.h"
#include "tests/lib/scenario.h"

#define BALLAST (2u << 20)
#define WORTH	(1u << 20) /* bytes given back that are enough to go on with */

static const struct config {
	const char *name;
	unsigned k, m;
	bool shared; /* made so, and mounted beside others, though nobody else is there */
} configs[] = {{"1+0", 1, 0, false}, {"2+1", 2, 1, false}, {"shared", 2, 1, true}};

static const struct config *config_of(const struct loop *l)
{
	return &configs[l->config];
}

/* ---- operations that no crash enumeration needs: they look, or go by another door ---- */

static int read_all(struct loop *l)
{
	uint64_t h;
	int rc = scenario_digest(&l->f, &h, NULL);

	if (!rc && h != l->before)
		loop_die(l, "something else is read", rc);
	return rc;
}

static int seek_all(struct loop *l)
{
	struct sop_value *x;
	int64_t at = 0;
	unsigned turns = 0;
	int rc = sop_value_open(
		&x, sop_volume_latest(l->f.v), SOP_NAME(SOP_ROOT, "tree"), 0, &l->f.e);

	if (rc)
		return rc;
	while ((at = sop_value_seek(x, (uint64_t)at, turns % 2, &l->f.e)) >= 0 && turns < 100)
		turns++;
	sop_value_close(x);
	return at == -ENXIO ? (int)turns : (int)at;
}

static int sound(void *arg, const struct sop_extent_layout *x)
{
	struct loop *l = arg;

	for (unsigned i = 0; i < x->k + x->m && l->mode <= NO_MEMORY_STAYS; i++)
		if (!x->is_inline && x->state[i] != SOP_SHARD_OK)
			loop_die(l, "a shard is said to be bad", (int)x->state[i]);
	return 0;
}

static int lay_out(struct loop *l)
{
	return sop_value_layout(
		sop_volume_latest(l->f.v), SOP_NAME(SOP_ROOT, "tree"), true, sound, l, &l->f.e);
}

static void found(void *arg, const char *line)
{
	struct loop *l = arg;

	if (l->mode <= NO_MEMORY_STAYS)
		loop_die(l, line, 0);
}

static int check_trees(struct loop *l)
{
	struct sop_check_report r;

	return sop_volume_check(l->f.v, true, found, l, &r, &l->f.e);
}

static int count_change(void *arg, const struct sop_txn_change *c)
{
	(void)c;
	++*(unsigned *)arg;
	return 0;
}

static int list_changes(struct loop *l)
{
	struct sop_txn *t;
	unsigned n = 0;
	int rc = sop_txn_begin(&t, l->f.v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, &l->f.e);

	if (rc)
		return rc;
	rc = sop_upsert(t, SOP_NAME(SOP_ROOT, "plain"), "changed", 7, &l->f.e);
	if (!rc)
		rc = sop_rename(
			t, SOP_NAME(SOP_ROOT, "one"), SOP_NAME(SOP_ROOT, "two"), 0, &l->f.e);
	if (!rc)
		rc = sop_txn_changes(t, count_change, &n, &l->f.e);
	sop_txn_rollback(t);
	return rc ? rc : (int)n;
}

static int note_id(void *arg, const struct sop_txn_prepared *p)
{
	*(uint64_t *)arg = p->id;
	return 0;
}

static int count_item(void *arg, const struct sop_event *x)
{
	(void)x;
	++*(unsigned *)arg;
	return 0;
}

static int list_prepared(struct loop *l)
{
	struct sop_txn *t;
	uint64_t id = 0;
	unsigned n = 0;
	int rc = sop_txn_begin(&t, l->f.v,
		&(struct sop_txn_opts){.mode = SOP_TXN_WRITE, .note = "prepared"}, &l->f.e);

	if (rc)
		return rc;
	rc = sop_upsert(t, SOP_NAME(SOP_ROOT, "plain"), "changed", 7, &l->f.e);
	if (!rc)
		rc = sop_txn_prepare(t, &l->f.e);
	if (!rc)
		rc = sop_prepared_list(l->f.v, note_id, &id, &l->f.e);
	if (!rc)
		rc = sop_prepared_items(l->f.v, id, count_item, &n, &l->f.e);
	sop_txn_rollback(t);
	return rc ? rc : (int)n;
}

static void note_commit(void *arg, uint64_t lsn)
{
	(void)lsn;
	++*(unsigned *)arg;
}

static int put_two(struct sop_txn *t, void *arg, struct sop_err *e)
{
	int rc = sop_txn_on_commit(t, note_commit, arg, e);

	if (!rc)
		rc = sop_upsert(t, SOP_NAME(SOP_ROOT, "plain"), "followed", 8, e);
	return rc ? rc : sop_upsert(t, SOP_NAME(SOP_ROOT, "second"), "followed", 8, e);
}

/* Who follows is told of a commit that has been, whole, and of no other. */
static int follow(struct loop *l)
{
	struct sop_events *x;
	struct sop_event event;
	unsigned told = 0, noted = 0;
	int rc = sop_events_open(&x, l->f.v, &l->f.e);

	if (rc)
		return rc;
	rc = sop_txn_run(l->f.v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0, put_two,
		&noted, &l->f.e);
	while (sop_events_next(x, &event))
		told += 1 + (unsigned)event.missed;
	sop_events_close(x);
	if (told != (rc ? 0u : 2u) || noted != !rc)
		loop_die(l, "followers are told something else", rc);
	return rc;
}

/* Commits, and then the daemon dies: what they have returned for is there after the next mount. */
static void die_suddenly(struct loop *l)
{
	static const uint8_t bytes[70000] = {1};

	for (unsigned i = 0; i < 3; i++) {
		char key[8];

		snprintf(key, sizeof(key), "kept%u", i);
		if (fixture_upsert(&l->f, SOP_ROOT, key, bytes, i * 30000 + 10, i == 0))
			loop_die(l, "what is to be recovered", l->f.e.code);
	}
	l->before = loop_digest(l);
	sim_power_on(l->f.sim, SIM_KEEP_ALL, 1);
	sop_volume_close(l->f.v, NULL);
	l->f.v = NULL;
}

static int recover(struct loop *l)
{
	return scenario_open(&l->f);
}

static int others_change(struct sop_txn *t, void *arg, struct sop_err *e)
{
	sop_autofree uint8_t *bytes = malloc(70000);
	struct sop_attr file = {.mode = S_IFREG | 0600};
	uint64_t store;
	int rc = bytes ? sop_store_at(t, "theirs", SOP_STORE_CREATE, NULL, &store, e) : -ENOMEM;

	(void)arg;
	for (unsigned i = 0; i < 40 && !rc; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key%u", i);
		fill_random(bytes, 70000, i);
		rc = sop_create(t, SOP_NAME(store, key), &file, bytes, i ? i * 10 : 70000, NULL, e);
	}
	if (!rc)
		rc = sop_rename(t, SOP_NAME(SOP_ROOT, "one"), SOP_NAME(store, "one"), 0, e);
	return rc ? rc : sop_remove(t, SOP_NAME(SOP_ROOT, "tree"), e);
}

/* Another mounter comes, commits, makes an image, and leaves: here nothing of it is known yet. */
static void others_commit(struct loop *l)
{
	struct fixture other = l->f;
	int rc = scenario_open(&other);

	if (!rc)
		rc = sop_txn_run(other.v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0,
			others_change, NULL, &other.e);
	if (!rc)
		rc = sop_volume_checkpoint(other.v, &other.e);
	if (!rc)
		rc = fixture_close(&other);
	l->f.e = other.e;
	if (rc)
		loop_die(l, "the other mounter", rc);
}

static int catch_up(struct loop *l)
{
	return sop_volume_tick(l->f.v, &l->f.e);
}

/* Rounds of labels on all disks. */
static int leave_and_return(struct loop *l)
{
	int rc = sop_disk_offline(l->f.v, "d3", 0, &l->f.e);

	return rc ? rc : sop_disk_online(l->f.v, "d3", NULL, &l->f.e);
}

static const struct look {
	const char *name;
	int (*run)(struct loop *l);
	void (*before)(struct loop *l); /* nothing fails; it may leave the volume closed */
	bool shared;			/* only of such a volume */
} looks[] = {
	{"read", read_all, NULL, false},
	{"seek", seek_all, NULL, false},
	{"layout", lay_out, NULL, false},
	{"check", check_trees, NULL, false},
	{"changes", list_changes, NULL, false},
	{"prepared", list_prepared, NULL, false},
	{"events", follow, NULL, false},
	{"leave", leave_and_return, NULL, false},
	{"recover", recover, die_suddenly, false},
	{"catch-up", catch_up, others_commit, true},
};

static const struct look *look_of(const struct loop *l)
{
	return l->op < scenario_ops() ? NULL : &looks[l->op - scenario_ops()];
}

/* What others have committed is seen, whatever fails behind it. */
static bool is_catch_up(const struct loop *l)
{
	return look_of(l) && look_of(l)->run == catch_up;
}

static const char *name_of(unsigned op)
{
	return op < scenario_ops() ? scenario_name(op) : looks[op - scenario_ops()].name;
}

/* ---- what is demanded ---- */

static int run(struct loop *l)
{
	if (look_of(l))
		return look_of(l)->run(l);
	return scenario_run(
		&l->f, l->op, 5, SCENARIO_NO_FAULTS | (l->variant ? SCENARIO_DURABLE : 0));
}

static void begin(struct loop *l)
{
	loop_begin(l);
	if (look_of(l) && look_of(l)->before)
		look_of(l)->before(l);
}

/* Nothing fails: what the operation answers, and the states before and after. */
static void measure(struct loop *l)
{
	begin(l);
	l->before = l->f.v ? loop_digest(l) : l->before;
	l->rc_clean = run(l);
	l->after = loop_digest(l);
	if (is_catch_up(l) && l->before == l->after)
		loop_die(l, "there was nothing to catch up with", 0);
	fixture_release(&l->f);
}

/* Without memory no replica answers. Once the record may be in a slot nobody knows whether it
 * counts, and nothing else can come after it. */
static bool no_memory_in_slots(struct loop *l, int rc)
{
	return rc == SOP_EDISKS ||
	       (l->mode == NO_MEMORY_STAYS && rc == SOP_EDEAD && (!l->f.v || loop_dead(l)));
}

static void answer_is_right(struct loop *l, int rc, bool hit)
{
	bool redundant = config_of(l)->m > 0;

	if (!hit && rc != l->rc_clean)
		loop_die(l, "another answer though nothing failed", rc);
	if (rc == l->rc_clean)
		return;
	/* The wait for the media failed, of what is committed. */
	if (rc == SOP_EUNSYNCED && l->variant &&
		(!redundant || l->mode == NO_MEMORY || l->mode == NO_MEMORY_STAYS))
		return;
	switch (l->mode) {
	case NO_MEMORY:
	case NO_MEMORY_STAYS:
		/* A label that cannot be written for want of memory that lasts sets its disk aside,
		 * the last one too: that fails closed. A mount does not, and has missed no disk. */
		if (rc != -ENOMEM && !(config_of(l)->shared && no_memory_in_slots(l, rc)) &&
			(l->mode == NO_MEMORY || !l->f.v || rc != -EIO || !loop_dead(l)))
			loop_die(l, "not -ENOMEM", rc);
		break;
	case IO_ONCE:
	case IO_STAYS:
		if (redundant)
			loop_die(l, "one disk of three was enough to fail", rc);
		break;
	case NO_SPACE_ONCE:
	case FULL:
	case LOOP_MODES:
		/* A disk that has taken room for a registry block, and then has none for it once
		 * the checkpoint is published: the replica is set aside, the only one too. That
		 * fails closed. A disk that is full refuses before. */
		if (rc != -ENOSPC &&
			(l->mode == FULL || redundant || rc != -EIO || (l->f.v && !loop_dead(l))))
			loop_die(l, "not -ENOSPC", rc);
		break;
	}
}

/* Full disks are full, and a call that memory is short for says nothing of a disk. A mount alone
 * goes on without the one that was full first. */
static void none_set_aside(struct loop *l)
{
	unsigned asked = look_of(l) && look_of(l)->run == leave_and_return;
	struct sop_volume_stat st;

	if (l->mode == FULL &&
		(!strcmp(name_of(l->op), "remount") || !strcmp(name_of(l->op), "recover")))
		return;
	sop_volume_stat(l->f.v, &st);
	if (st.disks_online + asked < l->f.disks)
		loop_die(l, "a disk was set aside", (int)st.disks_online);
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
			loop_die(l, "a full volume refuses a delete", rc);
	}
	rc = sop_volume_tick(l->f.v, &l->f.e);
	if (rc && rc != -ENOSPC)
		loop_die(l, "background work on a full volume", rc);
	if (allocated(l) + WORTH > used)
		return; /* there was nothing to be deleted */
	loop_pass_ms(60000);
	rc = sop_volume_checkpoint(l->f.v, &l->f.e);
	if (!rc)
		rc = fixture_upsert(&l->f, SOP_ROOT, "again", bytes, sizeof(bytes), true);
	if (rc)
		loop_die(l, "the room did not come back", rc);
}

/* Everything verifies, redundancy included. */
static void check_all(struct loop *l)
{
	int rc = config_of(l)->shared ? scenario_scrub_alone(&l->f) : 0;

	if (rc)
		loop_die(l, "nobody can be alone in it, and scrub", rc);
	loop_check(l, true);
}

/* The same again. What has been prepared and not committed is in its way until it is resolved. */
static void goes_through_now(struct loop *l)
{
	uint64_t id = 0;
	int rc = sop_prepared_list(l->f.v, note_id, &id, &l->f.e);

	if (!rc && id)
		rc = sop_prepared_rollback(l->f.v, id, &l->f.e);
	if (rc)
		loop_die(l, "what was prepared", rc);
	rc = run(l);
	if (rc != l->rc_clean)
		loop_die(l, "asked for again it is refused", rc);
}

/* One round. False: the fault did not come up any more. */
static bool one_round(struct loop *l)
{
	bool hit, after_only, lost;
	uint64_t seen = 0, before = l->before, after = l->after;
	int rc;

	begin(l);
	loop_arm(l);
	rc = run(l);
	hit = loop_disarm(l);
	answer_is_right(l, rc, hit);
	after_only = rc == l->rc_clean || rc == SOP_EUNSYNCED;
	if ((l->mode == FULL || l->mode == NO_MEMORY) && l->f.v)
		none_set_aside(l);
	if (!l->f.v) { /* a mount that failed */
		loop_mend(l);
		loop_open(l, "a mount that failed spoils the next one");
	}
	/* Without redundancy the one disk was set aside, and nothing can be demanded until the next
	 * mount. */
	lost = hit && (l->mode == IO_ONCE || l->mode == IO_STAYS) && !config_of(l)->m;
	if (!loop_dead(l) && !lost) {
		seen = loop_digest(l);
		if (seen != after && (after_only || seen != before))
			loop_die(l, "neither the state before nor the one after", rc);
		if (seen == after && before != after && !after_only && !is_catch_up(l))
			loop_die(l, "an error, and the state after", rc);
		/* (Of a shared volume space is given back by who is alone.) */
		if (l->mode == FULL && hit && !config_of(l)->shared) {
			room_comes_back(l);
			before = after = loop_digest(l);
		}
		loop_mend(l);
		if (is_catch_up(l) && (catch_up(l) || loop_digest(l) != after))
			loop_die(l, "it does not catch up any more", l->f.e.code);
		loop_check(l, false);
	} else if (l->mode == FULL) {
		loop_die(l, "a full disk has killed the volume", rc);
	}
	loop_mend(l);
	rc = sop_volume_close(l->f.v, &l->f.e);
	if (rc && seen)
		loop_die(l, "close", rc);
	loop_open(l, "the volume does not open again");
	seen = loop_digest(l);
	if (seen != after && (after_only || is_catch_up(l) || seen != before))
		loop_die(l, "after another mount, neither the state before nor the one after", 0);
	check_all(l);
	if (seen == before && before != after)
		goes_through_now(l);
	loop_end(l);
	return hit;
}

/* ---- all of them ---- */

/* With something large, to be deleted when the disks are full. */
static void make(struct fixture *base, unsigned config, enum loop_mode mode)
{
	const struct config *c = &configs[config];
	sop_autofree void *bytes = calloc(1, BALLAST);

	(c->shared ? scenario_make_shared : scenario_make)(base, c->k, c->m, &loop_clock);
	if (mode == FULL &&
		(!bytes || fixture_open(base) ||
			fixture_upsert(base, SOP_ROOT, "ballast", bytes, BALLAST, true) ||
			fixture_close(base)))
		abort();
}

/* Committed in passing, and durably. What stays away, and what is shared, is tried with one of
 * them; what stays away, on three disks alone: all of it in long runs. */
static bool has(enum loop_mode mode, unsigned config, unsigned op, bool durable, bool long_run)
{
	const struct config *c = &configs[config];
	bool txn = op < scenario_ops() && scenario_is_txn(op);
	bool stays = mode == NO_MEMORY_STAYS || mode == IO_STAYS;

	if (op < scenario_ops() ? scenario_is_fault(op)
				: looks[op - scenario_ops()].shared && !c->shared)
		return false;
	/* One that is away, and one that fails, are too many. */
	if (op >= scenario_ops() && looks[op - scenario_ops()].run == leave_and_return &&
		mode != NO_MEMORY)
		return false;
	if (!long_run && stays && (c->shared || !c->m))
		return false;
	if (!txn)
		return !durable;
	return long_run || !(stays || c->shared) || durable == op % 2;
}

static const char *config_name(unsigned config)
{
	return configs[config].name;
}

int main(int argc, char **argv)
{
	const struct loops all = {.name = "failing",
		.n_configs = SOP_ARRAY_LEN(configs),
		.n_ops = scenario_ops() + SOP_ARRAY_LEN(looks),
		.config = config_name,
		.op = name_of,
		.make = make,
		.has = has,
		.measure = measure,
		.round = one_round};

	return loops_main(&all, argc, argv);
}
