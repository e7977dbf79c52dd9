/* The journal: what replay gives back after all that may happen to files, disks and machines. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/checkpoint_file.h"
#include "core/ec.h"
#include "core/format_volume.h"
#include "core/journal.h"
#include "core/journal_file.h"
#include "tests/lib/simdisk.h"

static const char *const paths[] = {"d0", "d1", "d2"};

/* --- a stream of random numbers -----------------------------------------------------------------
 */

static uint64_t next_random(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static size_t below(uint64_t *s, size_t n)
{
	return (size_t)(next_random(s) % n);
}

/* --- the model ----------------------------------------------------------------------------------
 */

#define MODEL_MAX 4096

/* Every record that is ever handed to the journal is one attempt; its payload says which. */
struct model {
	uint64_t attempts;
	uint64_t lsn_of[MODEL_MAX];    /* attempt -> LSN */
	uint64_t committed[MODEL_MAX]; /* LSN -> the attempt that finished last; 0: none */
	uint64_t last;		       /* LSN of the last that finished */
	uint64_t tried;		       /* highest LSN handed to the journal */
	uint64_t synced;	       /* what sync has promised */
};

struct payload {
	uint64_t attempt, lsn, len;
};

static void fill(uint8_t *p, size_t len, uint64_t attempt, uint64_t lsn)
{
	struct payload h = {attempt, lsn, len};
	uint64_t s = attempt;

	assert_true(len >= sizeof(h));
	memcpy(p, &h, sizeof(h));
	for (size_t i = sizeof(h); i < len; i++)
		p[i] = (uint8_t)next_random(&s);
}

/* The attempt that this payload is; fails when it is not exactly what was handed in. */
static uint64_t recognise(const struct sop_record_out *r)
{
	struct payload h;
	uint8_t *want;

	assert_true(r->payload_len >= sizeof(h));
	memcpy(&h, r->payload, sizeof(h));
	assert_int_equal(h.len, r->payload_len);
	assert_int_equal(h.lsn, r->lsn);
	want = malloc(r->payload_len);
	assert_non_null(want);
	fill(want, r->payload_len, h.attempt, h.lsn);
	assert_memory_equal(want, r->payload, r->payload_len);
	free(want);
	return h.attempt;
}

/* --- a machine with a volume ---------------------------------------------------------------------
 */

struct rig {
	struct sim *sim;
	unsigned disks;
	struct sop_members *mem;
	struct sop_iopool *io;
	struct sop_journal *j;
	struct model *model;
	uint64_t number; /* where replay starts */
	uint64_t lsn;
	uint32_t chain;
};

static struct sim *formatted(unsigned disks)
{
	struct sim *s = sim_new(disks);
	struct sop_format_opts o = {.k = 1,
		.m = disks - 1,
		.force = true,
		.clock = &sop_clock_system,
		.open_disk = sim_open_disk};
	struct sop_err e = {0};

	assert_non_null(s);
	o.open_disk_ctx = s;
	for (unsigned i = 0; i < disks; i++)
		sim_add_disk(s, paths[i], 0);
	if (sop_format(paths, disks, &o, NULL, &e))
		fail_msg("%s", e.text);
	return s;
}

static void mount_with(struct rig *r, unsigned timeout_ms)
{
	struct sop_members_opts o = {.clock = &sop_clock_system,
		.open_disk = sim_open_disk,
		.open_disk_ctx = r->sim,
		.disk_timeout_ms = timeout_ms,
		.threads = timeout_ms != 0,
		.degraded = true};
	const struct sop_iopool_opts pool = {.disks = r->disks};
	struct sop_err e = {0};

	if (sop_members_open(&r->mem, paths, r->disks, &o, &e))
		fail_msg("%s", e.text);
	assert_int_equal(
		timeout_ms ? sop_iopool_new(&r->io, &pool, &e) : sop_iopool_new_inline(&r->io, &e),
		0);
}

static void unmount(struct rig *r)
{
	sop_journal_free(r->j);
	r->j = NULL;
	sop_iopool_free(r->io, 5000);
	sop_members_close(r->mem);
	r->mem = NULL;
}

static void start(struct rig *r, uint64_t number, uint64_t file_bytes)
{
	const struct sop_journal_opts o = {.file_bytes = file_bytes};
	struct sop_err e = {0};

	if (sop_journal_new(&r->j, r->mem, r->io, &o, number, r->lsn + 1, r->chain, &e))
		fail_msg("%s", e.text);
	r->number = number;
}

static void rig_open_with(struct rig *r, unsigned disks, uint64_t file_bytes, unsigned timeout_ms)
{
	*r = (struct rig){.disks = disks, .sim = formatted(disks)};
	r->model = calloc(1, sizeof(*r->model));
	assert_non_null(r->model);
	mount_with(r, timeout_ms);
	start(r, 1, file_bytes);
}

static void rig_open(struct rig *r, unsigned disks, uint64_t file_bytes)
{
	rig_open_with(r, disks, file_bytes, 0);
}

static void rig_close(struct rig *r)
{
	unmount(r);
	sim_free(r->sim);
	free(r->model);
}

static unsigned replicas(struct rig *r)
{
	unsigned idx[SOP_MEMBERS_MAX];

	return sop_members_replicas(r->mem, idx);
}

/* --- appending -----------------------------------------------------------------------------------
 */

enum end { FINISH, ABANDON, RUN_AND_FORGET };

/* One append of n transactions with payloads of these sizes. */
static int append_ending(struct rig *r, const size_t *len, size_t n, enum end how)
{
	struct sop_batch *b = sop_batch_new(r->io);
	struct sop_record_in in[16];
	struct model *m = r->model;
	struct sop_err e = {0};
	int rc;

	assert_non_null(b);
	assert_true(n <= SOP_ARRAY_LEN(in));
	for (size_t i = 0; i < n; i++) {
		uint64_t lsn = m->last + 1 + i;
		uint8_t *p = malloc(len[i]);

		assert_non_null(p);
		assert_true(++m->attempts < MODEL_MAX && lsn < MODEL_MAX);
		m->lsn_of[m->attempts] = lsn;
		m->tried = SOP_MAX(m->tried, lsn);
		fill(p, len[i], m->attempts, lsn);
		in[i] = (struct sop_record_in){.type = SOP_RECORD_TXN,
			.lsn = lsn,
			.time_ns = 1000 + lsn,
			.next_ino = 2000 + lsn,
			.payload = p,
			.payload_len = len[i]};
	}
	rc = sop_journal_prepare(r->j, in, n, (uint32_t)(m->attempts % 3 * 1000), b, &e);
	for (size_t i = 0; i < n; i++)
		free((void *)(uintptr_t)in[i].payload);
	if (!rc && how != ABANDON)
		sop_batch_run(b, SOP_IO_SERIAL, 0, sop_members_timeout_ms(r->mem));
	if (rc) {
		assert_int_equal(e.code, rc);
	} else if (how == ABANDON) {
		sop_journal_abandon(r->j);
	} else if (how == RUN_AND_FORGET) {
		sop_journal_forget(r->j);
	} else {
		rc = sop_journal_finish(r->j, &e);
		assert_int_equal(e.code, rc);
		for (size_t i = 0; i < n && !rc; i++)
			m->committed[++m->last] = m->attempts - n + 1 + i;
	}
	sop_batch_put(b);
	return rc;
}

static int append(struct rig *r, size_t len)
{
	return append_ending(r, &len, 1, FINISH);
}

static int barrier(struct rig *r, uint64_t lsn)
{
	const struct sop_record_in in = {.type = SOP_RECORD_BARRIER, .lsn = lsn};
	struct sop_batch *b = sop_batch_new(r->io);
	struct sop_err e = {0};
	int rc;

	assert_non_null(b);
	rc = sop_journal_prepare(r->j, &in, 1, 0, b, &e);
	if (!rc) {
		sop_batch_run(b, SOP_IO_SERIAL, 0, sop_members_timeout_ms(r->mem));
		rc = sop_journal_finish(r->j, &e);
	}
	sop_batch_put(b);
	return rc;
}

static int sync_only(struct rig *r)
{
	uint64_t last = r->model->last;
	struct sop_err e = {0};
	int rc = sop_journal_sync(r->j, &e);

	assert_int_equal(e.code, rc);
	if (!rc)
		r->model->synced = last;
	return rc;
}

static int sync_and_barrier(struct rig *r)
{
	int rc = sync_only(r);

	return rc ? rc : barrier(r, r->model->synced);
}

static int rotate(struct rig *r, uint64_t *number, uint32_t *chain)
{
	struct sop_err e = {0};
	int rc = sop_journal_rotate(r->j, true, number, chain, &e);

	assert_int_equal(e.code, rc);
	return rc;
}

/* What a checkpoint does to the journal. */
static int checkpoint(struct rig *r)
{
	uint64_t number;
	uint32_t chain;
	int rc = rotate(r, &number, &chain);

	if (rc)
		return rc;
	r->number = number;
	r->lsn = r->model->last;
	r->chain = chain;
	sop_journal_trim(r->j, number);
	return 0;
}

/* --- replaying -----------------------------------------------------------------------------------
 */

struct seen {
	struct model *model;
	uint64_t lsn;	     /* of the last */
	uint64_t first_soft; /* first LSN that was not called durable; 0: none */
	bool exact;	     /* only what has finished */
	uint64_t stop_at;
	int stop_rc;
};

static int see(void *arg, const struct sop_record_out *r, bool durable)
{
	struct seen *s = arg;
	uint64_t attempt = recognise(r);

	assert_int_equal(r->lsn, s->lsn + 1);
	assert_int_equal(r->time_ns, 1000 + r->lsn);
	assert_int_equal(r->next_ino, 2000 + r->lsn);
	assert_int_equal(s->model->lsn_of[attempt], r->lsn);
	if (s->exact || r->lsn <= s->model->synced)
		assert_int_equal(s->model->committed[r->lsn], attempt);
	if (r->lsn == s->stop_at)
		return s->stop_rc;
	s->lsn = r->lsn;
	s->model->committed[r->lsn] = attempt;
	if (!durable && !s->first_soft)
		s->first_soft = r->lsn;
	if (durable) {
		assert_int_equal(s->first_soft, 0);
		assert_true(r->lsn <= s->model->synced);
	}
	return 0;
}

static int replay_stopping(
	struct rig *r, struct sop_journal_end *end, bool exact, uint64_t stop_at, int stop_rc)
{
	struct seen s = {.model = r->model,
		.lsn = r->lsn,
		.exact = exact,
		.stop_at = stop_at,
		.stop_rc = stop_rc};
	struct sop_err e = {0};
	int rc;

	*end = (struct sop_journal_end){0};
	rc = sop_journal_replay(r->mem, r->number, r->lsn, r->chain, 0, see, &s, end, &e);
	assert_int_equal(e.code, rc);
	if (!rc)
		assert_int_equal(end->lsn, s.lsn);
	return rc;
}

static int replay(struct rig *r, struct sop_journal_end *end)
{
	return replay_stopping(r, end, true, 0, 0);
}

static void assert_all_there(struct rig *r)
{
	struct sop_journal_end end;

	assert_int_equal(replay(r, &end), 0);
	assert_int_equal(end.lsn, r->model->last);
}

/* --- files ---------------------------------------------------------------------------------------
 */

static const char *path_of(uint64_t number)
{
	static char path[SOP_JOURNAL_NAME];

	sop_journal_path(path, number);
	return path;
}

static void flip(struct rig *r, unsigned disk, uint64_t number, uint64_t off)
{
	uint8_t byte;

	assert_int_equal(sim_peek(r->sim, paths[disk], path_of(number), off, &byte, 1), 0);
	byte ^= 0x10;
	assert_int_equal(sim_poke(r->sim, paths[disk], path_of(number), off, &byte, 1), 0);
}

struct listing {
	unsigned files, spares;
	uint64_t lowest, highest, bytes;
};

static void list_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	const char *dir = SOP_PATH_JOURNAL "/";
	struct listing *l = arg;
	uint64_t number;

	(void)allocated;
	if (strncmp(file, dir, strlen(dir)) != 0)
		return;
	l->bytes += size;
	if (strchr(file, '.')) {
		l->spares++;
		return;
	}
	number = strtoull(file + strlen(dir), NULL, 16);
	l->files++;
	l->lowest = l->lowest ? SOP_MIN(l->lowest, number) : number;
	l->highest = SOP_MAX(l->highest, number);
}

static struct listing list(struct rig *r, unsigned disk)
{
	struct listing l = {0};

	sim_each_file(r->sim, paths[disk], list_file, &l);
	return l;
}

/* --- plain working -------------------------------------------------------------------------------
 */

static void replay_gives_back_what_was_appended(void **state)
{
	const size_t group[] = {24, 100, 31, 4096, 5000};
	struct sop_journal_end end;
	struct rig r;

	(void)state;
	rig_open(&r, 3, 0);
	assert_int_equal(replay(&r, &end), 0);
	assert_int_equal(end.lsn, 0);
	for (size_t len = 24; len < 60; len++)
		assert_int_equal(append(&r, len), 0);
	assert_int_equal(append_ending(&r, group, SOP_ARRAY_LEN(group), FINISH), 0);
	assert_int_equal(replay(&r, &end), 0);
	assert_int_equal(end.lsn, r.model->last);
	assert_int_equal(end.records, r.model->last);
	assert_int_equal(end.number, 1);
	assert_int_equal(end.bytes + SOP_JOURNAL_HEADER, sop_journal_bytes(r.j));
	rig_close(&r);
}

static void an_append_is_one_write_per_replica(void **state)
{
	const size_t group[] = {3000, 100, 31, 4096};
	struct sim_counts c;
	struct rig r;

	(void)state;
	rig_open(&r, 3, 0);
	assert_int_equal(append(&r, 24), 0);
	sim_take_counts(r.sim);
	assert_int_equal(append_ending(&r, group, SOP_ARRAY_LEN(group), FINISH), 0);
	c = sim_take_counts(r.sim);
	assert_int_equal(c.writes, 3);
	assert_int_equal(c.reads + c.syncs + c.creates + c.others, 0);
	rig_close(&r);
}

static void records_are_durable_up_to_the_last_barrier(void **state)
{
	struct sop_journal_end end;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(append(&r, 50), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(append(&r, 50), 0);
	assert_int_equal(replay(&r, &end), 0);
	assert_int_equal(end.barrier_lsn, 5);
	assert_int_equal(end.records, 9);
	assert_int_equal(replay_stopping(&r, &end, true, 7, 1), 0);
	assert_int_equal(end.lsn, 6);
	assert_int_equal(end.barrier_lsn, 5);
	rig_close(&r);
}

static void the_caller_can_end_the_chain_or_the_replay(void **state)
{
	struct sop_journal_end end, again;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 8192);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(append(&r, 1000), 0);
	assert_int_equal(replay_stopping(&r, &end, true, 11, -ENOMEM), -ENOMEM);
	assert_int_equal(replay_stopping(&r, &end, true, 11, 1), 0);
	assert_int_equal(end.lsn, 10);

	/* Going on from there gives a chain that the rest of the old one is no part of. */
	unmount(&r);
	mount_with(&r, 0);
	r.model->last = end.lsn;
	r.lsn = end.lsn;
	r.chain = end.chain;
	start(&r, end.number + 1, 8192);
	assert_int_equal(replay(&r, &again), 0);
	assert_int_equal(again.lsn, 10);
	assert_int_equal(append(&r, 500), 0);
	assert_all_there(&r);
	rig_close(&r);
}

static void a_record_may_be_larger_than_a_file(void **state)
{
	const size_t big = 5u << 20;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 65536);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(append(&r, big), 0);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(append_ending(&r, (size_t[]){big, 24, big}, 3, FINISH), 0);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	assert_all_there(&r);
	/* Such files are not kept as spares. */
	assert_int_equal(checkpoint(&r), 0);
	assert_true(list(&r, 0).bytes < big);
	rig_close(&r);
}

static void appends_go_on_in_the_next_file_when_one_is_full(void **state)
{
	uint64_t number;
	uint32_t chain;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 16384);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(append(&r, 24 + i * 37 % 3000), 0);
	assert_int_equal(rotate(&r, &number, &chain), 0);
	assert_true(number > 5);
	assert_int_equal(rotate(&r, &number, &chain), 0); /* an empty file between */
	assert_int_equal(append(&r, 100), 0);
	assert_all_there(&r);
	assert_int_equal(list(&r, 0).files, number);
	assert_int_equal(list(&r, 0).highest, number);
	rig_close(&r);
}

static void bad_records_are_refused_and_change_nothing(void **state)
{
	struct sop_record_in in = {.type = SOP_RECORD_TXN, .lsn = 2};
	struct rig r;
	struct sop_err e = {0};
	struct sop_batch *b;

	(void)state;
	rig_open(&r, 2, 0);
	b = sop_batch_new(r.io);
	assert_int_equal(sop_journal_prepare(r.j, &in, 1, 0, b, &e), -EINVAL);
	in.type = SOP_RECORD_BARRIER;
	assert_int_equal(sop_journal_prepare(r.j, &in, 1, 0, b, &e), -EINVAL);
	in.type = SOP_RECORD_TXN;
	in.lsn = 1;
	in.payload_len = UINT32_MAX;
	assert_int_equal(sop_journal_prepare(r.j, &in, 1, 0, b, &e), -EFBIG);
	sop_batch_put(b);
	assert_int_equal(append(&r, 24), 0);
	assert_all_there(&r);
	rig_close(&r);
}

/* --- forgetting ----------------------------------------------------------------------------------
 */

static void an_abandoned_append_is_overwritten_by_the_next(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 2, 0);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(append_ending(&r, (size_t[]){500, 600}, 2, ABANDON), 0);
	assert_all_there(&r);
	assert_int_equal(append_ending(&r, (size_t[]){500, 600, 700}, 3, RUN_AND_FORGET), 0);
	assert_all_there(&r);
	assert_int_equal(append(&r, 60), 0);
	assert_all_there(&r);
	assert_int_equal(append_ending(&r, (size_t[]){50, 60}, 2, FINISH), 0);
	assert_all_there(&r);
	assert_int_equal(replicas(&r), 2);
	rig_close(&r);
}

/* Commit T1 and T2; forget both; commit T1 again, the very same. The old T2 lies behind it. */
static void a_forgotten_record_does_not_follow_its_predecessor_appended_again(void **state)
{
	uint8_t one[100] = {0}, two[100] = {0};
	struct sop_record_in in[2] = {
		{.type = SOP_RECORD_TXN,
			.lsn = 1,
			.time_ns = 1001,
			.next_ino = 2001,
			.payload = one,
			.payload_len = sizeof(one)},
		{.type = SOP_RECORD_TXN,
			.lsn = 2,
			.time_ns = 1002,
			.next_ino = 2002,
			.payload = two,
			.payload_len = sizeof(two)},
	};
	struct sop_journal_end end;
	struct sop_err e = {0};
	struct rig r;

	(void)state;
	rig_open(&r, 1, 0);
	r.model->attempts = r.model->tried = 2;
	r.model->lsn_of[1] = r.model->committed[1] = r.model->last = 1;
	r.model->lsn_of[2] = 2;
	fill(one, sizeof(one), 1, 1);
	fill(two, sizeof(two), 2, 2);
	for (size_t n = 2; n; n--) {
		struct sop_batch *b = sop_batch_new(r.io);

		assert_int_equal(sop_journal_prepare(r.j, in, n, 0, b, &e), 0);
		sop_batch_run(b, SOP_IO_SERIAL, 0, 0);
		if (n == 2)
			sop_journal_forget(r.j);
		else
			assert_int_equal(sop_journal_finish(r.j, &e), 0);
		sop_batch_put(b);
	}
	assert_int_equal(replay_stopping(&r, &end, false, 0, 0), 0);
	assert_int_equal(end.lsn, 1);
	rig_close(&r);
}

/* What was forgotten must not stand before what was appended next, in the next file, and synced. */
static void a_forgotten_append_does_not_hide_the_next_file(void **state)
{
	(void)state;
	for (uint64_t choice = 0; choice < 40; choice++) {
		struct sop_journal_end end;
		struct rig r;

		rig_open(&r, 2, 8192);
		assert_int_equal(append(&r, 100), 0);
		assert_int_equal(append_ending(&r, (size_t[]){500, 600}, 2, RUN_AND_FORGET), 0);
		assert_int_equal(append(&r, 5000), 0);
		assert_int_equal(sync_and_barrier(&r), 0);
		sim_power_on(r.sim, choice ? SIM_KEEP_RANDOM : SIM_KEEP_ALL, choice);
		unmount(&r);
		mount_with(&r, 0);
		assert_int_equal(replay_stopping(&r, &end, false, 0, 0), 0);
		assert_int_equal(end.lsn, 2);
		rig_close(&r);
	}
}

/* --- damage --------------------------------------------------------------------------------------
 */

/* Ends of records in the only file, as replay with this many bytes must see them. */
static size_t fill_small(struct rig *r, uint64_t *ends, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(append(r, 24 + i * 13), 0);
		ends[i] = sop_journal_bytes(r->j);
	}
	return (size_t)ends[n - 1];
}

static uint64_t whole_before(const uint64_t *ends, size_t n, uint64_t cut)
{
	uint64_t lsn = 0;

	while (lsn < n && ends[lsn] <= cut)
		lsn++;
	return lsn;
}

/* Zeros instead of zeros, of padding for example, are no damage. */
static bool only_zeros(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return len > 0;
}

static void a_torn_tail_at_any_byte_leaves_an_exact_prefix(void **state)
{
	uint8_t saved[4096], noise[4096];
	struct sop_journal_end end;
	uint64_t ends[8], s = 5;
	struct rig r;
	size_t len;

	(void)state;
	rig_open(&r, 1, 0);
	len = fill_small(&r, ends, 8) - SOP_JOURNAL_HEADER;
	assert_true(len < sizeof(saved));
	sim_peek(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER, saved, len);
	for (size_t cut = 0; cut <= len; cut++) {
		uint64_t want = whole_before(ends, 8, SOP_JOURNAL_HEADER + cut);

		/* Cut off; nothing but zeros behind; noise behind. */
		sim_set_size(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER + cut);
		if (cut % 3)
			sim_set_size(r.sim, "d0", path_of(1), 65536);
		if (cut % 3 == 1 && want < 8)
			want += only_zeros(saved + cut, ends[want] - SOP_JOURNAL_HEADER - cut);
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)(next_random(&s) | 1);
		if (cut % 3 == 2)
			sim_poke(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER + cut, noise,
				sizeof(noise));
		assert_int_equal(replay(&r, &end), 0);
		assert_int_equal(end.lsn, want);
		sim_set_size(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER + len);
		assert_int_equal(
			sim_poke(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER, saved, len), 0);
	}
	for (size_t cut = 0; cut < SOP_JOURNAL_HEADER; cut += 97) {
		sim_set_size(r.sim, "d0", path_of(1), cut);
		assert_int_equal(replay(&r, &end), 0);
		assert_int_equal(end.lsn, 0);
	}
	rig_close(&r);
}

static void a_flipped_bit_on_one_replica_is_covered_by_another(void **state)
{
	uint64_t ends[6];
	struct rig r;
	size_t len;

	(void)state;
	rig_open(&r, 2, 0);
	len = fill_small(&r, ends, 6);
	for (size_t off = 0; off < len; off += off < 64 || off > 4000 ? 1 : 61) {
		flip(&r, off & 1, 1, off);
		assert_all_there(&r);
		flip(&r, off & 1, 1, off);
	}
	/* And different damage on each, and a file lost. */
	flip(&r, 0, 1, ends[0] + 70);
	flip(&r, 1, 1, ends[3] + 70);
	flip(&r, 0, 1, 3);
	assert_all_there(&r);
	rig_close(&r);
}

static void a_missing_file_on_one_replica_is_covered_by_another(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 2, 8192);
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(append(&r, 1000), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	sim_remove(r.sim, "d0", path_of(2));
	sim_remove(r.sim, "d1", path_of(4));
	sim_set_size(r.sim, "d1", path_of(5), 5000);
	assert_all_there(&r);
	rig_close(&r);
}

static void a_chain_that_breaks_before_a_barrier_is_lost_and_not_just_shorter(void **state)
{
	struct sop_journal_end end;
	uint64_t ends[6];
	struct rig r;

	(void)state;
	rig_open(&r, 1, 8192);
	fill_small(&r, ends, 6);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(append(&r, 1000), 0);
	assert_int_equal(sync_and_barrier(&r), 0); /* in the second file or later */
	assert_true(list(&r, 0).highest > 1);
	assert_int_equal(append(&r, 500), 0);
	assert_int_equal(append(&r, 500), 0);

	flip(&r, 0, 1, ends[2] + 20);
	assert_int_equal(replay(&r, &end), SOP_ELOST);
	flip(&r, 0, 1, ends[2] + 20);
	flip(&r, 0, 2, 17); /* a header */
	assert_int_equal(replay(&r, &end), SOP_ELOST);
	flip(&r, 0, 2, 17);
	assert_all_there(&r);
	rig_close(&r);

	/* Behind the barrier it is a torn tail like any other. */
	rig_open(&r, 1, 0);
	fill_small(&r, ends, 6);
	assert_int_equal(sync_and_barrier(&r), 0);
	ends[0] = sop_journal_bytes(r.j);
	assert_int_equal(append(&r, 500), 0);
	flip(&r, 0, 1, ends[0] + 100);
	assert_int_equal(replay(&r, &end), 0);
	assert_int_equal(end.lsn, 6);
	rig_close(&r);
}

static void a_barrier_in_a_payload_is_no_barrier(void **state)
{
	struct sop_disk_record fake = {
		.magic = le32_make(SOP_RECORD_MAGIC),
		.len = le32_make(sizeof(fake)),
		.lsn = le64_make(1000),
		.epoch = le64_make(1),
		.type = SOP_RECORD_BARRIER,
	};
	struct sop_record_out out;
	struct sop_journal_end end;
	uint64_t ends[4];
	struct rig r;
	uint32_t crc;
	size_t len;

	(void)state;
	rig_open(&r, 1, 0);
	fill_small(&r, ends, 4);
	fake.crc = le32_make(sop_crc32c(0, &fake, sizeof(fake)));
	assert_int_equal(sop_record_check(&fake, sizeof(fake), 0, &out, &crc, &len, NULL), 0);
	sim_poke(r.sim, "d0", path_of(1), ends[3] + 64, &fake, sizeof(fake));
	assert_int_equal(replay(&r, &end), 0);
	assert_int_equal(end.lsn, 4);
	assert_int_equal(end.barrier_lsn, 0);
	rig_close(&r);
}

static void a_record_is_checked_before_its_length_is_believed(void **state)
{
	struct sop_record_out out;
	struct sop_disk_record h;
	uint8_t raw[400];
	uint64_t ends[3];
	struct rig r;
	uint32_t crc;
	size_t len;

	(void)state;
	rig_open(&r, 1, 0);
	fill_small(&r, ends, 3);
	sim_peek(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER, raw, sizeof(raw));
	for (size_t avail = 0; avail < 64; avail++) {
		assert_int_equal(sop_record_check(raw, avail, 0, &out, &crc, &len, NULL), -EAGAIN);
		assert_int_equal(len, 64);
	}
	for (size_t avail = 64; avail < 88; avail++) {
		assert_int_equal(sop_record_check(raw, avail, 0, &out, &crc, &len, NULL), -EAGAIN);
		assert_int_equal(len, 88);
	}
	assert_int_equal(sop_record_check(raw, 88, 0, &out, &crc, &len, NULL), 0);
	assert_int_equal(out.payload_len, 24);
	assert_int_equal(sop_record_check(raw, 88, 1, &out, &crc, &len, NULL), SOP_ECORRUPT);
	for (size_t bit = 0; bit < 88 * 8; bit++) {
		int rc;

		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
		rc = sop_record_check(raw, 88, 0, &out, &crc, &len, NULL);
		assert_int_equal(rc, SOP_ECORRUPT);
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	/* A length that fits its payload, but is longer than all there is. */
	memcpy(&h, raw, sizeof(h));
	h.payload = le32_make(0xfffffff0u - 64);
	h.len = le32_make(0xfffffff0u);
	sim_poke(r.sim, "d0", path_of(1), SOP_JOURNAL_HEADER, &h, sizeof(h));
	{
		struct sop_journal_end end;

		assert_int_equal(replay(&r, &end), 0);
		assert_int_equal(end.lsn, 0);
	}
	rig_close(&r);
}

/* --- recycling -----------------------------------------------------------------------------------
 */

static void trimmed_files_serve_again_and_no_more_are_kept_than_needed(void **state)
{
	struct sim_counts c;
	struct listing l;
	struct rig r;
	uint64_t s = 3;

	(void)state;
	rig_open(&r, 2, 16384);
	for (unsigned round = 0; round < 60; round++) {
		if (round == 20)
			sim_take_counts(r.sim);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(append(&r, 24 + below(&s, 3000)), 0);
		if (round % 3 == 0)
			assert_int_equal(sync_and_barrier(&r), 0);
		assert_all_there(&r);
		assert_int_equal(checkpoint(&r), 0);
		assert_all_there(&r);
		l = list(&r, round & 1);
		assert_true(l.files == 1 && l.lowest == r.number && l.spares <= SOP_JOURNAL_SPARES);
	}
	c = sim_take_counts(r.sim);
	assert_int_equal(c.creates, 0);
	assert_int_equal(sop_journal_bytes(r.j), SOP_JOURNAL_HEADER);
	rig_close(&r);
}

static void spares_of_an_earlier_mount_are_used_and_other_leftovers_removed(void **state)
{
	struct listing l;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 16384);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(append(&r, 1000), 0);
	assert_int_equal(checkpoint(&r), 0);
	assert_int_equal(list(&r, 0).spares, 2);
	unmount(&r);
	/* Files that no chain goes on in, and too many spares. */
	for (unsigned i = 0; i < 2; i++) {
		struct sop_file *f;
		struct sop_disk *d = sim_disk(r.sim, i);

		for (uint64_t n = r.number + 1; n < r.number + 4; n++) {
			assert_int_equal(d->ops->file_open(&f, d, path_of(n),
						 SOP_OPEN_WRITE | SOP_OPEN_CREATE),
				0);
			d->ops->file_close(f);
		}
		assert_int_equal(d->ops->file_open(&f, d, SOP_PATH_JOURNAL "/spare.7",
					 SOP_OPEN_WRITE | SOP_OPEN_CREATE),
			0);
		d->ops->file_close(f);
	}
	mount_with(&r, 0);
	r.lsn = r.model->last;
	{
		struct sop_journal_end end;

		assert_int_equal(replay(&r, &end), 0);
		r.chain = end.chain;
	}
	sim_take_counts(r.sim);
	start(&r, r.number + 1, 16384);
	assert_int_equal(sim_take_counts(r.sim).creates, 0);
	l = list(&r, 1);
	assert_int_equal(l.highest, r.number);
	assert_int_equal(l.files, 2);
	assert_int_equal(l.spares, 1);
	assert_int_equal(append(&r, 100), 0);
	assert_all_there(&r);
	assert_int_equal(checkpoint(&r), 0); /* finds the file of the mount before */
	assert_int_equal(list(&r, 1).files, 1);
	rig_close(&r);
}

/* The file that a mount starts may have been there before, under the same number, with records that
 * followed the same last one; only the mount tells them apart. */
static void records_of_an_end_that_was_not_accepted_do_not_come_back(void **state)
{
	uint8_t old[8192], cut[4096] = {0};
	struct sop_journal_end end;
	struct rig r;

	(void)state;
	rig_open(&r, 1, 0);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(replay(&r, &end), 0);
	r.number = 2;
	r.lsn = 1;
	r.chain = end.chain;
	{
		uint64_t number;
		uint32_t chain;

		assert_int_equal(rotate(&r, &number, &chain), 0);
		assert_int_equal(chain, end.chain);
	}
	assert_int_equal(append(&r, 300), 0);
	assert_int_equal(append(&r, 300), 0);
	assert_all_there(&r);
	assert_int_equal(sim_peek(r.sim, "d0", path_of(2), 0, old, sizeof(old)), 0);
	unmount(&r);

	mount_with(&r, 0);
	r.model->last = 1;
	start(&r, 2, 0);
	/* As though the new header had reached the media, over the old file. */
	assert_int_equal(sim_set_size(r.sim, "d0", path_of(2), sizeof(old)), 0);
	assert_int_equal(sim_poke(r.sim, "d0", path_of(2), SOP_JOURNAL_HEADER,
				 old + SOP_JOURNAL_HEADER, sizeof(old) - SOP_JOURNAL_HEADER),
		0);
	assert_all_there(&r);
	sim_poke(r.sim, "d0", path_of(2), SOP_JOURNAL_HEADER, cut, sizeof(cut));
	assert_all_there(&r);
	rig_close(&r);
}

/* --- failing disks -------------------------------------------------------------------------------
 */

static void a_replica_that_fails_an_append_is_set_aside_and_not_believed(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 3, 0);
	assert_int_equal(append(&r, 100), 0);
	sim_disk_error(r.sim, "d1", 0, -EIO, 0);
	assert_int_equal(append(&r, 200), 0);
	assert_int_equal(replicas(&r), 2);
	sim_disk_error(r.sim, "d1", 0, 0, 0);
	assert_int_equal(append(&r, 300), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	assert_int_equal(checkpoint(&r), 0);
	assert_int_equal(append(&r, 300), 0);
	assert_all_there(&r);
	rig_close(&r);
}

static void a_replica_that_fails_a_sync_is_set_aside_before_sync_returns(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 3, 0);
	assert_int_equal(append(&r, 100), 0);
	sim_disk_error(r.sim, "d0", 0, 0, -EIO);
	assert_int_equal(sync_only(&r), 0);
	assert_int_equal(replicas(&r), 2);
	sim_disk_error(r.sim, "d0", 0, 0, 0);
	sim_power_on(r.sim, SIM_KEEP_SYNCED_ONLY, 1);
	unmount(&r);
	mount_with(&r, 0);
	assert_int_equal(replicas(&r), 2);
	assert_all_there(&r);
	rig_close(&r);
}

static void when_all_replicas_fail_nobody_is_set_aside_and_nothing_goes_on(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct sop_journal_end end;
		uint64_t number;
		uint32_t chain;
		struct rig r;

		(void)state;
		rig_open(&r, 2, 0);
		assert_int_equal(append(&r, 100), 0);
		for (unsigned i = 0; i < 2; i++)
			sim_disk_error(
				r.sim, paths[i], 0, how == 1 ? 0 : -EIO, how == 1 ? -EIO : 0);
		assert_int_equal(how == 0   ? append(&r, 200)
				 : how == 1 ? sync_only(&r)
					    : rotate(&r, &number, &chain),
			-EIO);
		assert_int_equal(replicas(&r), 2);
		for (unsigned i = 0; i < 2; i++)
			sim_disk_error(r.sim, paths[i], 0, 0, 0);
		assert_int_equal(append(&r, 200), -EIO);
		assert_int_equal(sync_only(&r), -EIO);
		assert_int_equal(rotate(&r, &number, &chain), -EIO);
		unmount(&r);
		mount_with(&r, 0);
		assert_int_equal(replay_stopping(&r, &end, false, 0, 0), 0);
		assert_int_equal(end.lsn, 1);
		rig_close(&r);
	}
}

static void a_full_replica_is_set_aside_while_another_has_room(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 2, 65536);
	assert_int_equal(append(&r, 100), 0);
	sim_disk_resize(r.sim, "d1", 1);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(append(&r, 2000), 0);
	assert_int_equal(replicas(&r), 1);
	assert_int_equal(sync_and_barrier(&r), 0);
	assert_all_there(&r);
	rig_close(&r);
}

static void when_all_are_full_appends_fail_until_there_is_room_again(void **state)
{
	unsigned failed = 0;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 65536);
	assert_int_equal(append(&r, 100), 0);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_resize(r.sim, paths[i], 1);
	for (unsigned i = 0; i < 100; i++) {
		int rc = append(&r, 2000);

		assert_true(rc == 0 || rc == -ENOSPC);
		failed += rc != 0;
	}
	assert_true(failed > 10);
	assert_int_equal(replicas(&r), 2);
	assert_all_there(&r);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_resize(r.sim, paths[i], 0);
	assert_int_equal(append(&r, 2000), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	assert_all_there(&r);
	rig_close(&r);
}

static void spares_give_way_when_a_disk_is_full(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, 2, 65536);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(append(&r, 2000), 0);
	assert_int_equal(checkpoint(&r), 0);
	assert_int_equal(list(&r, 0).spares, 2);
	for (unsigned i = 0; i < 2; i++)
		sim_disk_resize(r.sim, paths[i], sim_allocated(r.sim, paths[i]));
	/* Larger than a file: it needs new room, which only the spares can give. */
	assert_int_equal(append(&r, 100000), 0);
	assert_int_equal(replicas(&r), 2);
	assert_int_equal(list(&r, 0).spares, 0);
	assert_all_there(&r);
	rig_close(&r);
}

static void copy_journal(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct rig *r = arg;
	struct sop_disk *to = sim_disk(r->sim, 1);
	struct sop_file *f;
	void *buf;

	(void)allocated;
	if (strncmp(file, SOP_PATH_JOURNAL "/0", 9) != 0)
		return;
	buf = malloc(size);
	assert_non_null(buf);
	assert_int_equal(to->ops->file_open(&f, to, file, SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	to->ops->file_close(f);
	assert_int_equal(sim_peek(r->sim, "d0", file, 0, buf, size), 0);
	assert_int_equal(sim_set_size(r->sim, "d1", file, size), 0);
	assert_int_equal(sim_poke(r->sim, "d1", file, 0, buf, size), 0);
	free(buf);
}

static void a_healed_replica_has_the_next_append(void **state)
{
	struct sop_err e = {0};
	struct rig r;

	(void)state;
	rig_open(&r, 2, 0);
	assert_int_equal(append(&r, 100), 0);
	sim_disk_error(r.sim, "d1", 0, -EIO, 0);
	assert_int_equal(append(&r, 200), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	sim_disk_error(r.sim, "d1", 0, 0, 0);
	unmount(&r);
	mount_with(&r, 0);
	assert_int_equal(replicas(&r), 1);
	{
		struct sop_journal_end end;

		assert_int_equal(replay(&r, &end), 0);
		r.lsn = end.lsn;
		r.chain = end.chain;
		start(&r, end.number + 1, 0);
	}
	assert_int_equal(append(&r, 200), 0);
	sim_each_file(r.sim, "d0", copy_journal, &r);
	assert_int_equal(sop_members_replica_current(r.mem, 1, sop_members_stay(r.mem, 1), &e), 0);
	assert_int_equal(append(&r, 300), 0);
	assert_int_equal(append(&r, 300), 0);
	assert_int_equal(sync_and_barrier(&r), 0);
	assert_int_equal(replicas(&r), 2);
	sim_disk_error(r.sim, "d0", -EIO, -EIO, -EIO);
	assert_all_there(&r);
	sim_disk_error(r.sim, "d0", 0, 0, 0);
	assert_int_equal(checkpoint(&r), 0);
	assert_int_equal(list(&r, 1).files, 1);
	rig_close(&r);
}

static void unreadable_replicas_are_not_taken_for_the_end(void **state)
{
	struct sop_journal_end end;
	struct rig r;

	(void)state;
	rig_open(&r, 2, 0);
	assert_int_equal(append(&r, 100), 0);
	assert_int_equal(append(&r, 100), 0);
	sim_disk_error(r.sim, "d0", -EIO, 0, 0);
	assert_all_there(&r);
	sim_disk_error(r.sim, "d1", -EIO, 0, 0);
	assert_int_equal(replay(&r, &end), SOP_ELOST);
	rig_close(&r);
}

static struct sim *volatile left_behind[3]; /* or the compiler takes them for used by nobody */

static void a_disk_that_hangs_is_set_aside_after_the_bound(void **state)
{
	uint64_t number;
	uint32_t chain;
	struct rig r;

	(void)state;
	for (unsigned how = 0; how < 3; how++) {
		rig_open_with(&r, 2, 0, 2000); /* the other disk answers in that time */
		assert_int_equal(append(&r, 100), 0);
		sim_disk_delay(r.sim, "d1", SIM_HANGS);
		assert_int_equal(how == 0   ? append(&r, 200)
				 : how == 1 ? sync_only(&r)
					    : rotate(&r, &number, &chain),
			0);
		assert_int_equal(replicas(&r), 1);
		assert_int_equal(append(&r, 300), 0);
		sim_disk_delay(r.sim, "d1", 0);
		assert_int_equal(sync_and_barrier(&r), 0);
		assert_all_there(&r);
		unmount(&r);
		/* What hangs may end only after the test. */
		left_behind[how] = r.sim;
		free(r.model);
	}
}

/* A step that hangs until it is let go, once. */
struct hang {
	atomic_bool begun, over;
};

static void hang_once(void *arg)
{
	struct hang *h = arg;

	if (atomic_exchange(&h->begun, true))
		return;
	while (!atomic_load(&h->over))
		usleep(1000);
}

static struct sop_file *made(struct sop_disk *d, const char *path, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	struct sop_file *f;

	assert_int_equal(d->ops->file_open(&f, d, path, SOP_OPEN_WRITE | SOP_OPEN_CREATE), 0);
	assert_int_equal(f->ops->pwritev(f, &iov, 1, 0), (ssize_t)iov.iov_len);
	return f;
}

static void a_file_begun_too_late_takes_nobodys_name(void **state)
{
	const struct sop_journal_header h = {.number = 5, .first_lsn = 1};
	struct sim *s = sim_new(1);
	struct hang hang = {0};
	struct sop_file *spare;
	struct sop_disk *d;
	char path[SOP_JOURNAL_NAME], text[5] = "";

	(void)state;
	sim_add_disk(s, "d", 0);
	d = sim_disk(s, 0);
	assert_int_equal(d->ops->mkdir(d, SOP_PATH_JOURNAL), 0);
	spare = made(d, "journal/spare.0", "spare");
	sim_watch(s, hang_once, &hang);
	assert_int_equal(sop_journal_start(&spare, d, "journal/spare.0", &h, 1), -ETIMEDOUT);
	while (!atomic_load(&hang.begun))
		usleep(1000);
	/* The disk is back by now, and has been healed. */
	sop_journal_path(path, h.number);
	d->ops->file_close(made(d, path, "healed"));
	atomic_store(&hang.over, true);
	while (atomic_load(&spare->extra_refs))
		usleep(1000);
	assert_int_equal(sim_peek(s, "d", path, 0, text, sizeof(text)), 0);
	assert_memory_equal(text, "heale", sizeof(text));
	sim_watch(s, NULL, NULL);
	d->ops->file_close(spare);
	sim_free(s);
}

/* --- sync beside appends --- */

struct syncer {
	struct rig *r;
	_Atomic uint64_t last;	 /* finished */
	_Atomic uint64_t synced; /* promised */
	atomic_bool stop;
};

static void *sync_all_the_time(void *arg)
{
	struct syncer *s = arg;

	while (!atomic_load(&s->stop)) {
		uint64_t last = atomic_load(&s->last);
		uint64_t old = atomic_load(&s->synced);

		if (sop_journal_sync(s->r->j, NULL))
			return s;
		while (old < last && !atomic_compare_exchange_weak(&s->synced, &old, last))
			;
	}
	return NULL;
}

static void what_finished_before_a_sync_began_is_covered_by_it(void **state)
{
	struct syncer s;
	pthread_t thread[2];
	struct rig r;

	(void)state;
	s = (struct syncer){.r = &r};
	rig_open(&r, 2, 16384);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, sync_all_the_time, &s), 0);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(append(&r, 24 + i * 7 % 2000), 0);
		atomic_store(&s.last, r.model->last);
		if (i % 300 == 299)
			assert_int_equal(checkpoint(&r), 0);
	}
	atomic_store(&s.stop, true);
	for (unsigned i = 0; i < 2; i++) {
		void *failed;

		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	r.model->synced = atomic_load(&s.synced);
	sim_power_on(r.sim, SIM_KEEP_RANDOM, 7);
	unmount(&r);
	mount_with(&r, 0);
	{
		struct sop_journal_end end;

		assert_int_equal(replay_stopping(&r, &end, false, 0, 0), 0);
		assert_true(end.lsn >= SOP_MAX(r.model->synced, r.lsn));
	}
	rig_close(&r);
}

/* --- every crash --- */

#define LIVES	  3
#define OPS	  14
#define FILE_SIZE 12288

/* What survives in the checkpoint file says where replay begins; so does it here. */
static int store_checkpoint(struct rig *r, uint64_t number, uint64_t lsn, uint32_t chain)
{
	struct sop_checkpoint c = {
		.epoch = sop_members_epoch(r->mem), .lsn = lsn, .journal = number, .chain = chain};
	struct sop_err e = {0};

	return sop_checkpoint_store(r->mem, &c, true, NULL, &e);
}

static int full_checkpoint(struct rig *r)
{
	uint64_t number, lsn = r->model->last;
	uint32_t chain;
	int rc;

	rc = rotate(r, &number, &chain);
	if (!rc)
		rc = store_checkpoint(r, number, lsn, chain);
	if (!rc) {
		r->model->synced = SOP_MAX(r->model->synced, lsn);
		sop_journal_trim(r->j, number);
	}
	return rc;
}

static int random_op(struct rig *r, uint64_t *s)
{
	size_t len[4], n = 1 + below(s, 4);

	for (size_t i = 0; i < n; i++)
		len[i] = 24 + below(s, 40) * below(s, 60);
	switch (below(s, 12)) {
	case 0:
	case 1:
		return sync_and_barrier(r);
	case 2:
		return sync_only(r);
	case 3:
		return full_checkpoint(r);
	case 4:
		return append_ending(r, len, n, RUN_AND_FORGET);
	case 5:
		return append_ending(r, len, n, ABANDON);
	default:
		return append_ending(r, len, n, FINISH);
	}
}

/* Recovery, as the engine does it: checkpoint, replay, new file, checkpoint. False: trouble came on
 * the way. */
static bool recover(struct rig *r, bool faults)
{
	const struct sop_journal_opts o = {.file_bytes = FILE_SIZE};
	struct sop_checkpoint c = {0};
	struct sop_journal_end end;
	struct sop_err e = {0};
	int rc;

	rc = sop_checkpoint_load(&c, r->mem, &e);
	if (rc)
		goto out;
	r->number = c.journal ? c.journal : 1;
	r->lsn = c.lsn;
	r->chain = c.chain;
	sop_checkpoint_release(&c);
	rc = replay_stopping(r, &end, false, 0, 0);
	if (rc)
		goto out;
	if (end.lsn < r->model->synced)
		fail_msg("LSN %lu was promised, but %lu is the last", r->model->synced, end.lsn);
	assert_true(end.lsn <= r->model->tried);
	assert_true(end.barrier_lsn <= r->model->synced);
	r->model->last = end.lsn;
	r->lsn = end.lsn;
	r->chain = end.chain;
	rc = sop_journal_new(&r->j, r->mem, r->io, &o, end.number + 1, end.lsn + 1, end.chain, &e);
	if (!rc)
		rc = store_checkpoint(r, end.number + 1, end.lsn, end.chain);
	if (rc)
		goto out;
	r->model->synced = end.lsn;
	sop_journal_trim(r->j, end.number + 1);
out:
	if (rc && !faults && !sim_crashed(r->sim))
		fail_msg("recovery: %s", e.text);
	return !rc;
}

static bool try_mount(struct rig *r, bool faults)
{
	const struct sop_members_opts o = {.clock = &sop_clock_system,
		.open_disk = sim_open_disk,
		.open_disk_ctx = r->sim,
		.degraded = true};
	struct sop_err e = {0};

	if (sop_members_open(&r->mem, paths, r->disks, &o, &e)) {
		if (!faults && !sim_crashed(r->sim))
			fail_msg("mount: %s", e.text);
		return false;
	}
	assert_int_equal(sop_iopool_new_inline(&r->io, &e), 0);
	return true;
}

static char crash_case[200]; /* printed when something fails */

enum trouble { POWER_CUT, WRITE_ERROR, DISK_FULL };

/* Several lives of one volume. In one of them trouble comes at `step` (0: never). Returns the
 * number of steps of that life. */
static uint64_t live(struct sim *base, unsigned disks, uint64_t seed, unsigned troubled,
	uint64_t step, enum trouble trouble)
{
	struct rig r = {.disks = disks, .sim = sim_clone(base, seed)};
	uint64_t s = seed, choice = seed * 1000003 + step, steps = 0;
	bool faults = false;

	snprintf(crash_case, sizeof(crash_case), "disks %u seed %lu life %u step %lu trouble %d",
		disks, seed, troubled, step, trouble);
	r.model = calloc(1, sizeof(*r.model));
	assert_non_null(r.model);
	for (unsigned l = 0; l < LIVES; l++) {
		uint64_t first = sim_steps(r.sim);
		enum sim_keep keep = (enum sim_keep)below(&choice, 3);

		if (l == troubled && step && trouble == POWER_CUT)
			sim_crash_at(r.sim, first + step);
		if (l == troubled && step && trouble != POWER_CUT) {
			sim_fail_step(r.sim, first + step, trouble == DISK_FULL ? -ENOSPC : -EIO);
			faults = true;
		}
		if (try_mount(&r, faults)) {
			if (recover(&r, faults)) {
				int rc = 0;

				for (unsigned i = 0; i < OPS && !rc; i++)
					rc = random_op(&r, &s);
				if (rc && !faults && !sim_crashed(r.sim))
					fail_msg("operation failed: %d", rc);
			}
			unmount(&r);
		}
		/* A process that dies takes nothing with it that had finished. */
		if (keep == SIM_KEEP_ALL)
			r.model->synced = r.model->last;
		else
			r.model->last = r.model->synced;
		if (l == troubled)
			steps = sim_steps(r.sim) - first;
		sim_fail_step(r.sim, 0, 0);
		sim_power_on(r.sim, keep, next_random(&choice));
		faults = false;
	}
	sim_free(r.sim);
	free(r.model);
	return steps;
}

/* SOP_TEST_SEEDS=n in the environment: n seeds, every step. SMALL=1: as many steps as a run under a
 * sanitizer has time for. */
static void live_with(enum trouble trouble, uint64_t first_seed, uint64_t seeds)
{
	const char *more = getenv("SOP_TEST_SEEDS");
	uint64_t stride = more ? 1 : getenv("SMALL") ? 9 : 2;

	if (more)
		seeds = strtoull(more, NULL, 10);
	for (unsigned disks = 1; disks <= 2; disks++) {
		struct sim *base = formatted(disks);

		for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++) {
			for (unsigned l = 0; l < 2; l++) {
				uint64_t steps = live(base, disks, seed, l, 0, trouble);

				assert_true(steps > 20);
				/* Each seed takes others of them. */
				for (uint64_t step = 1 + seed % stride; step <= steps;
					step += stride)
					live(base, disks, seed, l, step, trouble);
			}
		}
		sim_free(base);
	}
}

static void power_may_fail_at_any_step(void **state)
{
	(void)state;
	live_with(POWER_CUT, 1, 2);
}

static void any_step_may_fail(void **state)
{
	(void)state;
	live_with(WRITE_ERROR, 101, 1);
	live_with(DISK_FULL, 202, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replay_gives_back_what_was_appended),
		cmocka_unit_test(an_append_is_one_write_per_replica),
		cmocka_unit_test(records_are_durable_up_to_the_last_barrier),
		cmocka_unit_test(the_caller_can_end_the_chain_or_the_replay),
		cmocka_unit_test(a_record_may_be_larger_than_a_file),
		cmocka_unit_test(appends_go_on_in_the_next_file_when_one_is_full),
		cmocka_unit_test(bad_records_are_refused_and_change_nothing),
		cmocka_unit_test(an_abandoned_append_is_overwritten_by_the_next),
		cmocka_unit_test(a_forgotten_append_does_not_hide_the_next_file),
		cmocka_unit_test(a_forgotten_record_does_not_follow_its_predecessor_appended_again),
		cmocka_unit_test(a_torn_tail_at_any_byte_leaves_an_exact_prefix),
		cmocka_unit_test(a_flipped_bit_on_one_replica_is_covered_by_another),
		cmocka_unit_test(a_missing_file_on_one_replica_is_covered_by_another),
		cmocka_unit_test(a_chain_that_breaks_before_a_barrier_is_lost_and_not_just_shorter),
		cmocka_unit_test(a_barrier_in_a_payload_is_no_barrier),
		cmocka_unit_test(a_record_is_checked_before_its_length_is_believed),
		cmocka_unit_test(trimmed_files_serve_again_and_no_more_are_kept_than_needed),
		cmocka_unit_test(spares_of_an_earlier_mount_are_used_and_other_leftovers_removed),
		cmocka_unit_test(records_of_an_end_that_was_not_accepted_do_not_come_back),
		cmocka_unit_test(a_replica_that_fails_an_append_is_set_aside_and_not_believed),
		cmocka_unit_test(a_replica_that_fails_a_sync_is_set_aside_before_sync_returns),
		cmocka_unit_test(when_all_replicas_fail_nobody_is_set_aside_and_nothing_goes_on),
		cmocka_unit_test(a_full_replica_is_set_aside_while_another_has_room),
		cmocka_unit_test(when_all_are_full_appends_fail_until_there_is_room_again),
		cmocka_unit_test(spares_give_way_when_a_disk_is_full),
		cmocka_unit_test(a_healed_replica_has_the_next_append),
		cmocka_unit_test(unreadable_replicas_are_not_taken_for_the_end),
		cmocka_unit_test(a_disk_that_hangs_is_set_aside_after_the_bound),
		cmocka_unit_test(a_file_begun_too_late_takes_nobodys_name),
		cmocka_unit_test(what_finished_before_a_sync_began_is_covered_by_it),
		cmocka_unit_test(power_may_fail_at_any_step),
		cmocka_unit_test(any_step_may_fail),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	if (failed)
		printf("the last life was: %s\n", crash_case);
	return failed;
}
