/* The commit chain on many replicas, each of which may be away. What all interleavings of a few do
 * is tested by tests/model/slots.c, and what a volume makes of it by test_shared.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/chain.h"
#include "core/format.h"
#include "core/format_volume.h"
#include "tests/lib/simdisk.h"

#define REPLICAS 9u
#define SLOT	 REPLICAS /* the arbiter of round r is replica r */
#define AWAY	 4u	  /* replicas without which there is a majority */

static char path[REPLICAS][8];
static const char *paths[REPLICAS];

/* ---- replicas that are away, and rounds that are cut off ---- */

static struct sop_disk_ops ops;
static const struct sop_disk_ops *real;
static unsigned away;	   /* replicas below do not answer */
static unsigned cut_round; /* from this round on its arbiter alone takes links; or UINT_MAX */

static bool is_away(const struct sop_disk *d)
{
	return (unsigned)(d->name[2] - '0') < away;
}

static int open_here(struct sop_file **out, struct sop_disk *d, const char *file, int flags)
{
	return is_away(d) ? -EIO : real->file_open(out, d, file, flags);
}

static int link_here(struct sop_disk *d, const char *from, const char *to)
{
	const char *dot = strrchr(to, '.');
	unsigned round = 0;

	if (dot > strchr(to, '.')) /* commit.SLOT.ROUND */
		assert_int_equal(sscanf(dot, ".%u", &round), 1);
	if (is_away(d) || (round >= cut_round && (unsigned)(d->name[2] - '0') != round))
		return -EIO;
	return real->link(d, from, to);
}

static int open_disk(void *sim, struct sop_disk **out, const char *name, struct sop_err *e)
{
	int rc = sim_open_disk(sim, out, name, e);

	if (rc)
		return rc;
	real = (*out)->ops;
	ops = *real;
	ops.file_open = open_here;
	ops.link = link_here;
	(*out)->ops = &ops;
	return 0;
}

static struct sop_members *mounted(struct sim *s)
{
	struct sop_format_opts fo = {.k = 1,
		.m = REPLICAS - 1,
		.shared = true,
		.force = true,
		.clock = &sop_clock_system,
		.open_disk = sim_open_disk,
		.open_disk_ctx = s};
	const struct sop_members_opts o = {
		.clock = &sop_clock_system, .open_disk = open_disk, .open_disk_ctx = s};
	struct sop_members *m = NULL;
	struct sop_err e = {0};

	for (unsigned i = 0; i < REPLICAS; i++) {
		snprintf(path[i], sizeof(path[i]), "/d%u", i);
		paths[i] = path[i];
		sim_add_disk(s, path[i], 0);
	}
	if (sop_format(paths, REPLICAS, &fo, NULL, &e) ||
		sop_members_open(&m, paths, REPLICAS, &o, &e))
		fail_msg("%s", e.text);
	return m;
}

/* One mounter after the other gets its record to the arbiter of a round and no farther; the next
 * cannot see that, and closes the round. Whoever sees them all, when all are back, finishes the
 * slot: each of them may have to be carried on. */
static void a_slot_in_which_many_were_cut_off_is_settled(void **state)
{
	struct sim *s = sim_new(1);
	struct sop_members *m = mounted(s);
	struct sop_chain *c;
	struct sop_chain_record r, out;
	struct sop_err e = {0};
	bool own, placed;

	(void)state;
	for (away = 0; away <= AWAY; away++) {
		cut_round = away;
		assert_int_equal(sop_chain_new(&c, m, true, true, &e), 0);
		r = (struct sop_chain_record){
			.slot = SLOT, .type = SOP_SLOT_BATCH, .payload = "record", .len = 6};
		assert_int_equal(sop_chain_propose(c, &r, &out, &own, &placed, &e), SOP_EDISKS);
		assert_true(placed);
		sop_chain_free(c);
	}
	away = 0;
	cut_round = UINT_MAX;
	assert_int_equal(sop_chain_new(&c, m, true, true, &e), 0);
	if (sop_chain_settle(c, SLOT, &out, &e) != 1)
		fail_msg("%s", e.text);
	/* That of the last: he had seen that none of those before can be in it. */
	assert_true(sop_slot_id_equal(out.id, r.id));
	assert_memory_equal(out.payload, "record", 6);
	sop_chain_free(c);
	sop_members_close(m);
	sim_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slot_in_which_many_were_cut_off_is_settled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
