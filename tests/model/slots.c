/* The commit chain (core/slots.c, the very code) through every interleaving of a few mounters on a
 * few replicas: each operation on a replica is a step of its own, in any order; a mounter that
 * stops for good, or for long, is one that is not chosen for the next steps, so each prefix of each
 * run is a crash and a stall as well. Besides, as often as a case allows: a replica loses power
 * (what was not synced there is gone), stays away for good, or does not answer a link and carries
 * it out later; slots that are decided are let go of (floor, then the files) while somebody sleeps.
 *
 * What must hold in every state:
 *   - whoever learns of a slot, learns the same record; a record is in one slot at most
 *   - a commit that was acknowledged is durable on a majority of the replicas, or below the floor
 *   - who looks after an acknowledgement does not find the slot empty
 *   - with a majority of replicas and nobody in the way, a mounter comes to an end (looked at in
 * some)
 *
 * Then rules are broken, one at a time, and each must be noticed. LONG=1: three mounters, more
 * faults. */
#include <stdio.h>

#include "core/slots.h"

#define REPLICAS 3
#define MOUNTERS 3
#define SLOTS	 2
#define ROUNDS	 4 /* a run that would need more is not followed: nothing new comes of it */
#define RETRIES	 1

enum { EMPTY, NIL, FIRST, TORN = 250 }; /* a register's content; FIRST + m: mounter m's record */

enum breakage {
	HONEST,
	NO_MAJORITY,
	NO_STAGE_SYNC,
	NO_DIRECTORY_SYNC,
	NO_SECOND_LOOK, /* after the sync */
	LINK_REPLACES,
	NO_FLOOR_CHECK,
	FILES_BEFORE_FLOOR,
	ARBITERS_DIFFER,
	NO_NIL,
	BREAKAGES,
};

static const char *const breakage_name[BREAKAGES] = {"honest", "no-majority", "no-stage-sync",
	"no-directory-sync", "no-second-look", "link-replaces", "no-floor-check",
	"files-before-floor", "arbiters-differ", "no-nil"};

struct settings {
	const char *name;
	enum breakage broken;
	unsigned replicas, mounters, power, away, late, followers, lookers;
	bool trim;
	size_t states_max; /* 0: all of them */
};

struct replica {
	uint8_t reg[SLOTS][ROUNDS];
	uint8_t synced[SLOTS], whole[SLOTS]; /* bits by round: the name; the content */
	uint8_t staged[MOUNTERS];	     /* bits by content */
	uint8_t floor, unlinked;
};

struct mounter {
	struct sop_slot_run run;
	uint8_t slot, tries;
	bool ended, follower, looker;
	bool behind; /* a looker: at the slot behind the one it holds the record of */
	uint8_t holds;
	uint8_t told; /* bits by slot: acknowledged, to somebody, before the run began */
};

struct world {
	struct replica rep[REPLICAS];
	struct mounter m[MOUNTERS];
	uint8_t decided[SLOTS], acknowledged; /* content; bits by slot */
	uint8_t power, away, late;	      /* left */
	uint8_t away_mask;
	struct { /* a link that was not answered */
		uint8_t replica, slot, round, content;
		bool waits;
	} ghost;
};

static const struct settings *set;
static struct {
	size_t states, own, others, stale, doubt, empty, alone, rounds;
} count;
static const char *trouble;

static struct sop_slot_id id_of(unsigned content)
{
	return content == NIL ? (struct sop_slot_id){0} : (struct sop_slot_id){content, 1};
}

static uint8_t content_of(struct sop_slot_id id)
{
	return id.who ? (uint8_t)id.who : NIL;
}

/* ---- the set of states seen, by a hash of 64 bits ---- */

static uint64_t *seen;
static size_t seen_cap, seen_n;

static bool seen_add(uint64_t h)
{
	size_t i;

	h |= !h;
	if (2 * seen_n >= seen_cap) {
		size_t cap = seen_cap ? 2 * seen_cap : 1u << 16;
		uint64_t *p = calloc(cap, sizeof(*p));

		if (!p) {
			perror("slots");
			exit(1);
		}
		for (size_t k = 0; k < seen_cap; k++) {
			if (!seen[k])
				continue;
			for (i = seen[k] & (cap - 1); p[i]; i = (i + 1) & (cap - 1))
				;
			p[i] = seen[k];
		}
		free(seen);
		seen = p;
		seen_cap = cap;
	}
	for (i = h & (seen_cap - 1); seen[i]; i = (i + 1) & (seen_cap - 1))
		if (seen[i] == h)
			return false;
	seen[i] = h;
	seen_n++;
	return true;
}

static void mix(uint64_t *h, uint64_t x)
{
	*h = (*h ^ x) * 0x9E3779B97F4A7C15ull;
	*h ^= *h >> 29;
}

static uint64_t at(uint64_t x, unsigned bit)
{
	return x << bit;
}

static uint64_t hash(const struct world *w)
{
	uint64_t h = 0x1234567;

	for (unsigned i = 0; i < set->replicas; i++) {
		const struct replica *p = &w->rep[i];

		for (unsigned s = 0; s < SLOTS; s++) {
			for (unsigned r = 0; r < ROUNDS; r++)
				mix(&h, p->reg[s][r]);
			mix(&h, p->synced[s] * 256u + p->whole[s]);
		}
		for (unsigned m = 0; m < set->mounters; m++)
			mix(&h, p->staged[m]);
		mix(&h, p->floor * 256u + p->unlinked);
	}
	for (unsigned i = 0; i < set->mounters; i++) {
		const struct mounter *m = &w->m[i];
		const struct sop_slot_run *r = &m->run;

		mix(&h, at(m->slot, 0) | at(m->tries, 8) | at(m->ended, 16) | at(m->behind, 17) |
				at(m->told, 24) | at(m->holds, 32));
		if (m->ended)
			continue;
		mix(&h, at(r->phase, 0) | at(r->round, 8) | at(r->abandoning, 16) |
				at(r->has_value, 17) | at(r->has_candidate, 18) |
				at(r->placed, 19) | at(r->differs, 20) | at(r->lost, 21) |
				at(r->restarts, 24));
		mix(&h, r->value.who << 8 | r->candidate.who);
		mix(&h, at(r->empty, 0) | at(r->nil, 8) | at(r->taken, 16) | at(r->synced, 24) |
				at(r->kept, 32) | at(r->staged, 40) | at(r->staged_nil, 48) |
				at(r->waiting, 56));
		mix(&h, r->said_exists);
	}
	for (unsigned s = 0; s < SLOTS; s++)
		mix(&h, w->decided[s]);
	mix(&h, at(w->acknowledged, 0) | at(w->power, 8) | at(w->away, 12) | at(w->late, 16) |
			at(w->away_mask, 20) | at(w->ghost.waits, 28));
	if (w->ghost.waits)
		mix(&h, at(w->ghost.replica, 0) | at(w->ghost.slot, 8) | at(w->ghost.round, 16) |
				at(w->ghost.content, 24));
	return h;
}

/* ---- replicas ---- */

static int reg_read(
	const struct world *w, unsigned i, unsigned slot, unsigned round, struct sop_slot_id *value)
{
	uint8_t c = w->rep[i].reg[slot][round];

	if (c == EMPTY)
		return -ENOENT;
	if (c == TORN)
		return -EIO;
	*value = id_of(c);
	return 0;
}

static void reg_link(struct world *w, unsigned i, unsigned slot, unsigned round, uint8_t content)
{
	struct replica *p = &w->rep[i];
	uint8_t bit = (uint8_t)(1u << round);

	p->reg[slot][round] = content;
	p->synced[slot] &= (uint8_t)~bit;
	p->whole[slot] |= bit;
	if (set->broken == NO_STAGE_SYNC)
		p->whole[slot] &= (uint8_t)~bit;
}

static struct sop_slot_answer perform(
	struct world *w, unsigned mi, unsigned i, const struct sop_slot_want *want)
{
	unsigned slot = (unsigned)want->slot, round = want->round;
	struct sop_slot_answer a = {0};
	struct replica *p = &w->rep[i];
	uint8_t content = content_of(want->value);

	if (set->broken == ARBITERS_DIFFER)
		slot -= mi;
	if (w->away_mask & 1u << i) {
		a.rc = -EIO;
		return a;
	}
	switch (want->op) {
	case SOP_SLOT_READ:
		a.rc = reg_read(w, i, slot, round, &a.value);
		break;
	case SOP_SLOT_STAGE:
		p->staged[mi] |= (uint8_t)(1u << content);
		break;
	case SOP_SLOT_LINK:
		if (!(p->staged[mi] & 1u << content))
			a.rc = -ENOENT;
		else if (p->reg[slot][round] != EMPTY && set->broken != LINK_REPLACES)
			a.rc = -EEXIST;
		else if (content != NIL || set->broken != NO_NIL)
			reg_link(w, i, slot, round, content);
		break;
	case SOP_SLOT_SYNC:
		if (set->broken != NO_DIRECTORY_SYNC)
			p->synced[slot] = 0xff;
		a.rc = reg_read(w, i, slot, round, &a.value);
		if (set->broken == NO_NIL || set->broken == NO_SECOND_LOOK) {
			const struct sop_slot_run *r = &w->m[mi].run;

			a.rc = 0;
			a.value = r->nil & 1u << i ? id_of(NIL) : r->value;
		}
		break;
	case SOP_SLOT_FLOOR:
		a.floor = set->broken == NO_FLOOR_CHECK ? 0 : p->floor;
		if (set->broken == ARBITERS_DIFFER)
			a.floor += mi;
		break;
	}
	return a;
}

static void power_loss(struct world *w, unsigned i)
{
	struct replica *p = &w->rep[i];

	for (unsigned s = 0; s < SLOTS; s++)
		for (unsigned r = 0; r < ROUNDS; r++) {
			if (p->reg[s][r] == EMPTY)
				continue;
			if (!(p->synced[s] & 1u << r))
				p->reg[s][r] = EMPTY;
			else if (!(p->whole[s] & 1u << r))
				p->reg[s][r] = TORN;
		}
	memset(p->staged, 0, sizeof(p->staged));
}

/* ---- mounters ---- */

static void begin(struct world *w, unsigned mi)
{
	struct mounter *m = &w->m[mi];
	unsigned slot = m->slot + (set->broken == ARBITERS_DIFFER ? mi : 0);

	m->told = w->acknowledged;
	sop_slot_begin(&m->run, set->replicas, slot + m->behind,
		m->looker     ? SOP_SLOT_LOOK
		: m->follower ? SOP_SLOT_SETTLE
			      : SOP_SLOT_PROPOSE,
		m->follower ? (struct sop_slot_id){0} : id_of(FIRST + mi));
	if (set->broken == NO_MAJORITY)
		m->run.majority = 1;
	for (unsigned i = 0; i < set->replicas; i++)
		w->rep[i].staged[mi] = 0; /* of another slot */
}

static void learned(struct world *w, unsigned mi, uint8_t content)
{
	struct mounter *m = &w->m[mi];

	assert(m->slot < SLOTS);
	if (w->decided[m->slot] && w->decided[m->slot] != content)
		trouble = "two records are decided in one slot";
	for (unsigned s = 0; s < SLOTS; s++)
		if (s != m->slot && w->decided[s] == content)
			trouble = "a record is in two slots";
	w->decided[m->slot] = content;
	if (content == FIRST + mi) {
		w->acknowledged |= (uint8_t)(1u << m->slot);
		m->ended = true;
		count.own++;
		return;
	}
	count.others++;
	m->ended = ++m->slot == SLOTS;
	m->tries = 0;
	if (!m->ended)
		begin(w, mi);
}

/* One who only looks believes what he sees when the slot behind has been begun. */
static bool look_over(struct world *w, unsigned mi)
{
	struct mounter *m = &w->m[mi];
	enum sop_slot_outcome outcome = m->run.outcome;

	if (m->behind) {
		m->behind = false;
		m->ended = !sop_slot_begun(&m->run);
		if (m->ended)
			return true;
		if (!w->decided[m->slot])
			trouble = "one who looks believes what nobody has made sure of";
		learned(w, mi, m->holds);
		return true;
	}
	if (outcome != SOP_SLOT_DECIDED)
		return outcome != SOP_SLOT_EMPTY && (m->ended = true);
	m->holds = content_of(m->run.value);
	m->behind = true;
	m->ended = m->slot + 1 == SLOTS;
	if (!m->ended)
		begin(w, mi);
	return true;
}

static void run_over(struct world *w, unsigned mi)
{
	struct mounter *m = &w->m[mi];

	if (m->looker && look_over(w, mi))
		return;

	switch ((enum sop_slot_outcome)m->run.outcome) {
	case SOP_SLOT_DECIDED:
		learned(w, mi, content_of(m->run.value));
		return;
	case SOP_SLOT_EMPTY:
		count.empty++;
		if (!m->follower || m->told & 1u << m->slot)
			trouble = "a slot whose commit was acknowledged is found empty";
		m->ended = true;
		return;
	case SOP_SLOT_STALE:
		count.stale++;
		if (!w->decided[m->slot])
			trouble = "stale, though nothing was decided";
		m->ended = true;
		return;
	case SOP_SLOT_DOUBT:
		count.doubt++;
		if (m->tries++ < RETRIES)
			begin(w, mi);
		else
			m->ended = true;
		return;
	case SOP_SLOT_BROKEN:
		trouble = "two values in one round";
		m->ended = true;
		return;
	case SOP_SLOT_RUNNING:
		return;
	}
}

static void answer(struct world *w, unsigned mi, unsigned i, const struct sop_slot_answer *a)
{
	struct mounter *m = &w->m[mi];

	sop_slot_answer(&m->run, i, a);
	if (m->run.outcome == SOP_SLOT_RUNNING && m->run.round >= ROUNDS) {
		count.rounds++;
		m->ended = true;
	}
	if (m->run.outcome != SOP_SLOT_RUNNING)
		run_over(w, mi);
}

static void step(struct world *w, unsigned mi, unsigned i)
{
	const struct sop_slot_want *want = sop_slot_next(&w->m[mi].run);
	struct sop_slot_answer a = perform(w, mi, i, want);

	answer(w, mi, i, &a);
}

static bool wants(const struct world *w, unsigned mi, unsigned i)
{
	const struct mounter *m = &w->m[mi];

	return !m->ended && m->run.waiting & 1u << i;
}

/* Staging meets nobody: no need to interleave it. */
static void stage_all(struct world *w)
{
	for (unsigned mi = 0; mi < set->mounters; mi++)
		while (!w->m[mi].ended && w->m[mi].run.want.op == SOP_SLOT_STAGE)
			for (unsigned i = 0; i < set->replicas; i++)
				if (wants(w, mi, i) && w->m[mi].run.want.op == SOP_SLOT_STAGE)
					step(w, mi, i);
}

/* ---- what must hold ---- */

static void check(const struct world *w)
{
	for (unsigned s = 0; s < SLOTS; s++) {
		unsigned best = 0, floor = 0;

		if (!(w->acknowledged & 1u << s))
			continue;
		for (unsigned i = 0; i < set->replicas; i++)
			floor += w->rep[i].floor > s;
		for (unsigned r = 0; r < ROUNDS; r++) {
			unsigned n = 0;

			for (unsigned i = 0; i < set->replicas; i++)
				n += w->rep[i].reg[s][r] == w->decided[s] &&
				     w->rep[i].synced[s] & w->rep[i].whole[s] & 1u << r;
			best = SOP_MAX(best, n);
		}
		if (!floor && best < set->replicas / 2 + 1)
			trouble = "an acknowledged commit is not on a majority";
	}
}

/* From here on mounter mi alone, and no more faults: it must come to an end. */
static void alone(struct world w, unsigned mi)
{
	unsigned up = 0;

	for (unsigned i = 0; i < set->replicas; i++)
		up += !(w.away_mask & 1u << i);
	if (up < set->replicas / 2 + 1 || w.m[mi].ended || w.m[mi].looker)
		return;
	/* What it has met before may still make this run fail, not the next one. */
	w.m[mi].tries = 0;
	count.alone++;
	for (unsigned n = 0; !w.m[mi].ended && n < 400; n++)
		for (unsigned i = 0; i < set->replicas; i++)
			if (wants(&w, mi, i))
				step(&w, mi, i);
	if (!w.m[mi].ended)
		trouble = "a mounter that is alone does not come to an end";
	else if (w.m[mi].run.outcome == SOP_SLOT_DOUBT)
		trouble = "a mounter that is alone, with a majority of replicas, cannot commit";
}

/* ---- the search ---- */

static struct world *stack;
static size_t depth, stack_cap;

static void push(const struct world *w)
{
	if (depth == stack_cap) {
		size_t cap = stack_cap ? 2 * stack_cap : 4096;
		struct world *p = realloc(stack, cap * sizeof(*p));

		if (!p) {
			perror("slots");
			exit(1);
		}
		stack = p;
		stack_cap = cap;
	}
	stack[depth++] = *w;
}

/* A state that has been come to. */
static void come(struct world *w)
{
	stage_all(w);
	check(w);
	if (!seen_add(hash(w)))
		return;
	count.states++;
	/* Alone, its steps would count as outcomes of the search. */
	if (set->broken == HONEST && count.states % 16 == 0) {
		size_t own = count.own, others = count.others, stale = count.stale,
		       doubt = count.doubt, empty = count.empty;

		for (unsigned mi = 0; mi < set->mounters; mi++)
			alone(*w, mi);
		count.own = own;
		count.others = others;
		count.stale = stale;
		count.doubt = doubt;
		count.empty = empty;
	}
	push(w);
}

static void faults(const struct world *w)
{
	struct world x;

	for (unsigned i = 0; i < set->replicas; i++) {
		if (w->power) {
			x = *w;
			x.power--;
			power_loss(&x, i);
			come(&x);
		}
		if (w->away && !(w->away_mask & 1u << i)) {
			x = *w;
			x.away--;
			x.away_mask |= (uint8_t)(1u << i);
			come(&x);
		}
		for (unsigned mi = 0; w->late && !w->ghost.waits && mi < set->mounters; mi++) {
			const struct sop_slot_want *want = &w->m[mi].run.want;

			if (!wants(w, mi, i) || want->op != SOP_SLOT_LINK || w->away_mask & 1u << i)
				continue;
			x = *w;
			x.late--;
			x.ghost.waits = true;
			x.ghost.replica = (uint8_t)i;
			x.ghost.slot = (uint8_t)want->slot;
			x.ghost.round = (uint8_t)want->round;
			x.ghost.content = content_of(want->value);
			answer(&x, mi, i, &(struct sop_slot_answer){.rc = -ETIMEDOUT});
			come(&x);
		}
	}
	if (w->ghost.waits) {
		x = *w;
		x.ghost.waits = false;
		if (x.rep[x.ghost.replica].reg[x.ghost.slot][x.ghost.round] == EMPTY)
			reg_link(&x, x.ghost.replica, x.ghost.slot, x.ghost.round, x.ghost.content);
		come(&x);
	}
}

/* Slots that are decided are let go of: the floor first, then the files, on each replica by itself.
 */
static void trims(const struct world *w)
{
	struct world x;

	for (unsigned i = 0; i < set->replicas; i++) {
		const struct replica *p = &w->rep[i];
		bool files_first = set->broken == FILES_BEFORE_FLOOR;
		uint8_t decided = w->decided[0] ? (uint8_t)(w->decided[1] ? 2 : 1) : 0;

		if (w->away_mask & 1u << i)
			continue;
		if (p->floor < (files_first ? p->unlinked : decided)) {
			x = *w;
			x.rep[i].floor++;
			come(&x);
		}
		if (p->unlinked < (files_first ? decided : p->floor)) {
			x = *w;
			memset(x.rep[i].reg[p->unlinked], EMPTY, ROUNDS);
			x.rep[i].unlinked++;
			come(&x);
		}
	}
}

static bool search(const struct settings *settings)
{
	struct world w;

	set = settings;
	memset(&w, 0, sizeof(w));
	memset(&count, 0, sizeof(count));
	free(seen);
	seen = NULL;
	seen_cap = seen_n = 0;
	depth = 0;
	trouble = NULL;
	w.power = (uint8_t)set->power;
	w.away = (uint8_t)set->away;
	w.late = (uint8_t)set->late;
	for (unsigned mi = 0; mi < set->mounters; mi++) {
		w.m[mi].follower = mi + set->followers >= set->mounters;
		w.m[mi].looker = mi + set->lookers >= set->mounters;
		begin(&w, mi);
	}
	come(&w);
	while (depth && !trouble && (!set->states_max || count.states < set->states_max)) {
		w = stack[--depth];
		for (unsigned mi = 0; mi < set->mounters; mi++)
			for (unsigned i = 0; i < set->replicas; i++)
				if (wants(&w, mi, i)) {
					struct world x = w;

					step(&x, mi, i);
					come(&x);
				}
		faults(&w);
		if (set->trim)
			trims(&w);
	}
	printf("%-24s %-20s %9zu states%s: own %zu others %zu stale %zu doubt %zu empty %zu alone "
	       "%zu"
	       " deep %zu%s%s\n",
		set->name, breakage_name[set->broken], count.states, depth ? " (not all)" : "",
		count.own, count.others, count.stale, count.doubt, count.empty, count.alone,
		count.rounds, trouble ? ": " : "", trouble ? trouble : "");
	return !trouble;
}

static const struct settings honest[] = {
	{.name = "two", .replicas = 3, .mounters = 2},
	{.name = "two, power", .replicas = 3, .mounters = 2, .power = 1},
	{.name = "two, away", .replicas = 3, .mounters = 2, .away = 1},
	{.name = "two, late", .replicas = 3, .mounters = 2, .late = 1},
	{.name = "two, trimmed", .replicas = 3, .mounters = 2, .trim = true},
	{.name = "one and a follower", .replicas = 3, .mounters = 2, .followers = 1, .away = 1},
	{.name = "two and a looker", .replicas = 2, .mounters = 3, .followers = 1, .lookers = 1},
	{.name = "two on two", .replicas = 2, .mounters = 2, .power = 1, .trim = true},
	{.name = "three on one",
		.replicas = 1,
		.mounters = 3,
		.followers = 1,
		.power = 1,
		.trim = true},
	{.name = "three on two", .replicas = 2, .mounters = 3, .followers = 1},
};

static const struct settings longer[] = {
	{.name = "two and a looker, all",
		.replicas = 2,
		.mounters = 3,
		.followers = 1,
		.lookers = 1,
		.power = 1,
		.trim = true,
		.states_max = 20000000},
	{.name = "two, all",
		.replicas = 3,
		.mounters = 2,
		.power = 1,
		.away = 1,
		.late = 1,
		.trim = true,
		.states_max = 20000000},
	{.name = "three", .replicas = 3, .mounters = 3, .states_max = 20000000},
	{.name = "three, follower, away",
		.replicas = 3,
		.mounters = 3,
		.followers = 1,
		.away = 1,
		.states_max = 20000000},
};

static const struct settings broken[] = {
	{.broken = NO_MAJORITY, .replicas = 3, .mounters = 2, .away = 2},
	{.broken = NO_STAGE_SYNC, .replicas = 3, .mounters = 2, .power = 1},
	{.broken = NO_DIRECTORY_SYNC, .replicas = 3, .mounters = 2, .power = 1},
	{.broken = NO_SECOND_LOOK, .replicas = 3, .mounters = 2, .power = 1},
	{.broken = LINK_REPLACES, .replicas = 3, .mounters = 2},
	{.broken = NO_FLOOR_CHECK, .replicas = 3, .mounters = 2, .trim = true},
	{.broken = FILES_BEFORE_FLOOR, .replicas = 3, .mounters = 2, .trim = true},
	{.broken = ARBITERS_DIFFER, .replicas = 3, .mounters = 2},
	{.broken = NO_NIL, .replicas = 3, .mounters = 2, .late = 1},
};

static bool all(const struct settings *s, size_t n, bool good)
{
	bool ok = true;

	for (size_t i = 0; i < n; i++) {
		struct settings x = s[i];

		x.name = x.name ? x.name : "broken";
		if (search(&x) != good) {
			printf("slots: %s: %s\n", good ? x.name : breakage_name[x.broken],
				good ? trouble : "was not noticed");
			ok = false;
		}
	}
	return ok;
}

int main(void)
{
	const char *l = getenv("LONG");
	bool ok = all(honest, SOP_ARRAY_LEN(honest), true);

	if (l && *l && *l != '0')
		ok = all(longer, SOP_ARRAY_LEN(longer), true) && ok;
	ok = all(broken, SOP_ARRAY_LEN(broken), false) && ok;
	free(seen);
	free(stack);
	return !ok;
}
