/* Coordination: one suite for both kinds, embedded and a real Redis server. */
#include "tests/unit/coord_fixture.h"

static void forget_all(struct world *w)
{
	if (w->redis)
		assert_string_equal(test_redis_do(&server, "FLUSHALL"), "+OK");
	else
		sop_coord_local_empty(&w->volume);
}

/* ---- sessions ---- */

static void a_session_is_listed_with_who_it_is_and_how_far(void **state)
{
	struct mounter a, b;
	struct sop_coord_member *m;
	struct sop_err e = {0};
	size_t n;
	bool seen = false;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	assert_int_not_equal(sop_coord_session(a.c), sop_coord_session(b.c));
	sop_coord_progress(a.c, 12, 9);
	assert_int_equal(set(&a, 1, F_WRLCK, 0, 9), 0);
	for (int i = 0; i < BOUND_MS / 2 && !seen; i++) {
		ok(sop_coord_list(b.c, &m, &n, &e), &e);
		for (size_t k = 0; k < n; k++) {
			assert_int_equal(m[k].me, m[k].session == sop_coord_session(b.c));
			assert_string_equal(m[k].host, "here");
			assert_string_equal(m[k].where, "/mnt");
			assert_int_equal(m[k].pid, getpid());
			seen |= n == 2 && !m[k].me && m[k].applied == 12 && m[k].pin == 9 &&
				m[k].locks == 1 && m[k].lease_ms <= SHORT_LEASE_MS;
		}
		free(m);
		nap();
	}
	assert_true(seen);
	/* And without asking, in time. */
	seen = false;
	for (int i = 0; i < BOUND_MS / 2 && !seen; i++) {
		ok(sop_coord_list_seen(b.c, &m, &n, &e), &e);
		seen = n == 2 && m[0].applied + m[1].applied == 12 && m[0].me + m[1].me == 1;
		free(m);
		nap();
	}
	assert_true(seen);
	sop_coord_close(a.c);
	ok(sop_coord_list(b.c, &m, &n, &e), &e);
	assert_int_equal(n, 1);
	assert_true(m[0].me);
	free(m);
	sop_coord_close(b.c);
}

static void commits_end_at_two_thirds_of_a_lease(void **state)
{
	struct mounter a;
	uint64_t session;

	start(*state, &a, LONG_LEASE_MS);
	session = sop_coord_session(a.c);
	sop_coord_stop(a.c, true);
	assert_true(sop_coord_may_commit(a.c, session));
	assert_false(sop_coord_may_commit(a.c, session + 1));
	assert_false(sop_coord_may_commit(a.c, 0));
	/* The clock is ours but for what the machine takes: less than a tenth of a lease. */
	a.boot_shift_ms = LONG_LEASE_MS / 2;
	assert_true(sop_coord_may_commit(a.c, session));
	a.boot_shift_ms = LONG_LEASE_MS * 2 / 3;
	assert_false(sop_coord_may_commit(a.c, session));
	/* A renewal that comes late, before anybody has revoked it, makes it good again. */
	sop_coord_stop(a.c, false);
	WAIT_FOR(sop_coord_may_commit(a.c, session));
	sop_coord_close(a.c);
}

static void a_killed_mounter_is_revoked_and_its_locks_are_free(void **state)
{
	struct mounter a, b = {0};
	struct sop_coord_options o = options_of(*state, &b, SHORT_LEASE_MS);
	struct sop_coord_lock l = range(1, F_WRLCK, 0, UINT64_MAX);
	struct sop_err e = {0};

	o.on.expired = NULL;
	start(*state, &a, SHORT_LEASE_MS);
	start_with(&b, &o);
	ok(sop_coord_alone(b.c, &e), &e);
	ok(lock_of(&a, &l, BOUND_MS), &e);
	sop_coord_kill(a.c);
	assert_int_equal(lock_of(&b, &l, BOUND_MS), 0);
	sop_coord_close(b.c);
}

static void who_has_run_out_is_fenced_before_it_is_revoked(void **state)
{
	struct mounter a, b;
	struct sop_err e = {0};
	uint64_t dead;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	dead = sop_coord_session(a.c);
	assert_int_equal(whole(&a, 1, F_WRLCK), 0);
	sop_coord_kill(a.c);
	WAIT_FOR(b.expired == dead);
	/* It is said until it is done, and nothing is free before. */
	assert_int_equal(whole(&b, 1, F_WRLCK), -EAGAIN);
	b.expired = 0;
	WAIT_FOR(b.expired == dead);
	WAIT_FOR(!sop_coord_revoke(b.c, dead, &e));
	assert_int_equal(whole(&b, 1, F_WRLCK), 0);
	ok(sop_coord_revoke(b.c, dead, &e), &e);
	sop_coord_close(b.c);
}

static void who_has_not_run_out_cannot_be_revoked(void **state)
{
	struct mounter a, b;
	struct sop_err e = {0};

	start_two(*state, &a, &b, LONG_LEASE_MS);
	assert_int_equal(sop_coord_revoke(b.c, sop_coord_session(a.c), &e), -EBUSY);
	assert_true(sop_coord_may_commit(a.c, sop_coord_session(a.c)));
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static uint64_t renewals_of(struct mounter *m)
{
	struct sop_coord_state st;

	sop_coord_state(m->c, &st);
	return st.renewals;
}

/* It was the server that slept, not the mounters: they are given the time of a lease. That time
 * passes, on a machine that is slow before the question is asked, so it is asked again. */
static void when_nobody_renewed_nobody_is_revoked_at_once(void **state)
{
	struct mounter a, b;
	struct sop_err e = {0};
	int rc = 0;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	for (int i = 0; i < 10 && rc != -EBUSY; i++) {
		uint64_t session = sop_coord_session(a.c), renewals;

		sop_coord_stop(a.c, true);
		sop_coord_stop(b.c, true);
		for (int k = 0; k < SHORT_LEASE_MS; k++)
			nap();
		renewals = renewals_of(&b);
		sop_coord_stop(b.c, false);
		WAIT_FOR(renewals_of(&b) > renewals);
		rc = sop_coord_revoke(b.c, session, &e);
		sop_coord_stop(a.c, false);
		WAIT_FOR(sop_coord_may_commit(a.c, sop_coord_session(a.c)));
	}
	assert_int_equal(rc, -EBUSY);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void a_lost_session_is_never_revived(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_err e = {0};
	uint64_t old, grant;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	old = sop_coord_session(a.c);
	ok(sop_coord_lock(a.c, &l, BOUND_MS, &grant, NULL, &e), &e);
	sop_coord_stop(a.c, true);
	WAIT_FOR(b.expired == old);
	WAIT_FOR(!sop_coord_revoke(b.c, old, &e));
	ok(lock_of(&b, &l, 0), &e);
	ok(set(&b, 1, F_UNLCK, 0, 9), &e);
	sop_coord_stop(a.c, false);
	WAIT_FOR(a.sessions == 2);
	assert_int_not_equal(a.session, old);
	assert_false(a.unbroken);
	assert_false(sop_coord_may_commit(a.c, old));
	WAIT_FOR(sop_coord_may_commit(a.c, a.session));
	assert_false(grant_good(a.c, grant));
	/* What is granted now counts. */
	l = range(1, F_WRLCK, 20, 29);
	ok(sop_coord_lock(a.c, &l, BOUND_MS, &grant, NULL, &e), &e);
	WAIT_FOR(grant_good(a.c, grant));
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* The server's clock may run faster than a mounter's: what it has revoked is lost, however good the
 * lease looks here, as others may have had the lock meanwhile. */
static void what_was_revoked_is_not_claimed_again(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_err e = {0};
	uint64_t old, grant, then;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	sop_coord_stop(a.c, true);
	WAIT_FOR(b.expired == a.session);
	old = a.session;
	sop_coord_stop(a.c, false);
	WAIT_FOR(sop_coord_may_commit(a.c, old));
	ok(sop_coord_lock(a.c, &l, BOUND_MS, &grant, NULL, &e), &e);
	sop_coord_stop(a.c, true);
	then = shifted_ms(&a);
	b.expired = 0;
	WAIT_FOR(b.expired == old);
	WAIT_FOR(!sop_coord_revoke(b.c, old, &e));
	ok(lock_of(&b, &l, 0), &e);
	ok(set(&b, 1, F_UNLCK, 0, 9), &e);
	/* As if nothing of that had taken time. */
	a.boot_shift_ms = then - shifted_ms(&a);
	sop_coord_stop(a.c, false);
	sop_coord_progress(a.c, 1, 1);
	WAIT_FOR(a.sessions == 2);
	assert_false(a.unbroken);
	assert_false(grant_good(a.c, grant));
	assert_int_equal(set(&b, 1, F_WRLCK, 0, 9), 0);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* ---- the chain ---- */

static void the_tip_never_goes_back(void **state)
{
	static const uint64_t slots[] = {5, 3, 9, 1, UINT64_MAX - 1};
	struct mounter a, b;
	struct sop_err e = {0};
	uint64_t tip, highest = 0;

	start_two(*state, &a, &b, LONG_LEASE_MS);
	ok(sop_coord_tip(b.c, &tip, &e), &e);
	assert_int_equal(tip, 0);
	for (size_t i = 0; i < SOP_ARRAY_LEN(slots); i++) {
		highest = SOP_MAX(highest, slots[i]);
		ok(sop_coord_publish(a.c, slots[i], &e), &e);
		ok(sop_coord_tip(b.c, &tip, &e), &e);
		assert_int_equal(tip, highest);
		assert_int_equal(sop_coord_tip_seen(b.c), highest);
	}
	WAIT_FOR(a.tip == highest && b.tip == highest);
	assert_int_equal(a.backwards + b.backwards, 0);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void a_tip_is_heard_without_asking(void **state)
{
	struct mounter a, b;
	struct sop_coord_state before, after;
	struct sop_err e = {0};

	start_two(*state, &a, &b, LONG_LEASE_MS);
	sop_coord_state(b.c, &before);
	ok(sop_coord_publish(a.c, 77, &e), &e);
	WAIT_FOR(b.tip == 77);
	assert_int_equal(sop_coord_tip_seen(b.c), 77);
	sop_coord_state(b.c, &after);
	assert_int_equal(after.round_trips - after.renewals, before.round_trips - before.renewals);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void a_commit_is_two_round_trips(void **state)
{
	struct mounter a, b;
	struct sop_coord_state before, after;
	struct sop_coord_turn turn;
	struct sop_err e = {0};

	start_two(*state, &a, &b, LONG_LEASE_MS);
	sop_coord_state(a.c, &before);
	for (uint64_t slot = 1; slot <= 100; slot++) {
		ok(sop_coord_reserve(a.c, &turn, &e), &e);
		assert_true(turn.mine);
		assert_int_equal(turn.tip, slot - 1);
		ok(sop_coord_publish(a.c, slot, &e), &e);
	}
	sop_coord_state(a.c, &after);
	assert_int_equal(
		after.round_trips - before.round_trips - (after.renewals - before.renewals), 200);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

struct committer {
	struct mounter *m;
	struct sop_coord_turn turn;
	int rc;
};

static void *reserve_one(void *arg)
{
	struct committer *x = arg;
	struct sop_err e = {0};

	x->rc = sop_coord_reserve(x->m->c, &x->turn, &e);
	return NULL;
}

static void the_turn_goes_to_who_waits_with_the_publication(void **state)
{
	struct mounter a, b;
	struct committer x = {.m = &b};
	struct sop_coord_state st;
	struct sop_coord_turn turn;
	struct sop_err e = {0};
	uint64_t trips;
	pthread_t t;

	start_two(*state, &a, &b, LONG_LEASE_MS);
	ok(sop_coord_reserve(a.c, &turn, &e), &e);
	assert_true(turn.mine);
	sop_coord_state(b.c, &st);
	trips = st.round_trips;
	assert_int_equal(pthread_create(&t, NULL, reserve_one, &x), 0);
	do {
		nap();
		sop_coord_state(b.c, &st);
	} while (st.round_trips == trips);
	ok(sop_coord_publish(a.c, 1, &e), &e);
	pthread_join(t, NULL);
	assert_int_equal(x.rc, 0);
	assert_true(x.turn.mine);
	assert_int_equal(x.turn.tip, 1);
	/* And back, without a commit. */
	x.m = &a;
	sop_coord_state(a.c, &st);
	trips = st.round_trips;
	assert_int_equal(pthread_create(&t, NULL, reserve_one, &x), 0);
	do {
		nap();
		sop_coord_state(a.c, &st);
	} while (st.round_trips == trips);
	sop_coord_yield(b.c);
	pthread_join(t, NULL);
	assert_int_equal(x.rc, 0);
	assert_true(x.turn.mine);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void nobody_holds_the_turn_for_ever(void **state)
{
	struct mounter a = {0}, b = {0};
	struct sop_coord_options o = options_of(*state, &a, LONG_LEASE_MS);
	struct sop_coord_turn turn = {0};
	struct sop_err e = {0};

	o.hold_ms = 100;
	start_with(&a, &o);
	o.on.arg = &b;
	o.boot_arg = &b;
	start_with(&b, &o);
	ok(sop_coord_reserve(a.c, &turn, &e), &e);
	/* Each call returns, with the turn or without it, and it comes. */
	turn.mine = false;
	for (int i = 0; i < 1000 && !turn.mine; i++)
		ok(sop_coord_reserve(b.c, &turn, &e), &e);
	assert_true(turn.mine);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

struct asker {
	struct mounter *m;
	bool wrong;
};

static _Atomic uint64_t published;

static void *ask_tips(void *arg)
{
	struct asker *x = arg;
	struct sop_err e = {0};

	for (int i = 0; i < 300; i++) {
		uint64_t least = published, tip;

		if (sop_coord_tip(x->m->c, &tip, &e) || tip < least)
			x->wrong = true;
	}
	return NULL;
}

static void a_tip_is_as_new_as_the_call(void **state)
{
	struct mounter a, b;
	struct asker x[4];
	struct sop_coord_state st;
	struct sop_err e = {0};
	pthread_t t[4];

	published = 0;
	start_two(*state, &a, &b, LONG_LEASE_MS);
	for (size_t i = 0; i < 4; i++) {
		x[i] = (struct asker){.m = &b};
		assert_int_equal(pthread_create(&t[i], NULL, ask_tips, &x[i]), 0);
	}
	for (uint64_t i = 1; i <= 300; i++) {
		ok(sop_coord_publish(a.c, i, &e), &e);
		published = i;
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_false(x[i].wrong);
	}
	sop_coord_state(b.c, &st);
	assert_true(st.round_trips - st.renewals <= 4 * 300 + 2);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void a_young_generation_knows_no_lowest_pin(void **state)
{
	struct mounter a;
	struct sop_err e = {0};
	uint64_t pin = 0;

	start(*state, &a, LONG_LEASE_MS);
	assert_int_equal(sop_coord_pins_min(a.c, &pin, &e), -EAGAIN);
	assert_int_equal(set(&a, 1, F_RDLCK, 0, 0), -EAGAIN);
	ok(sop_coord_alone(a.c, &e), &e);
	ok(sop_coord_pins_min(a.c, &pin, &e), &e);
	assert_int_equal(set(&a, 1, F_RDLCK, 0, 0), 0);
	sop_coord_close(a.c);
}

static void the_lowest_pin_of_all_is_told(void **state)
{
	struct mounter a, b;
	struct sop_err e = {0};
	uint64_t pin = 0;

	start_two(*state, &a, &b, SHORT_LEASE_MS);
	ok(sop_coord_pins_min(a.c, &pin, &e), &e);
	assert_int_equal(pin, 0);
	sop_coord_progress(a.c, 100, 50);
	sop_coord_progress(b.c, 90, 70);
	WAIT_FOR(!sop_coord_pins_min(a.c, &pin, &e) && pin == 50);
	/* Neither goes back. */
	sop_coord_progress(a.c, 10, 10);
	sop_coord_progress(a.c, 100, 80);
	WAIT_FOR(!sop_coord_pins_min(a.c, &pin, &e) && pin == 70);
	sop_coord_close(b.c);
	ok(sop_coord_pins_min(a.c, &pin, &e), &e);
	assert_int_equal(pin, 80);
	sop_coord_close(a.c);
}

/* ---- locks ---- */

static void locks_keep_others_out_as_fcntl_does(void **state)
{
	struct mounter a, b;

	start_two(*state, &a, &b, LONG_LEASE_MS);
	assert_int_equal(set(&a, 1, F_WRLCK, 10, 19), 0);
	assert_int_equal(set(&b, 1, F_RDLCK, 19, 25), -EAGAIN);
	assert_int_equal(set(&a, 2, F_RDLCK, 0, UINT64_MAX), -EAGAIN);
	assert_int_equal(set(&b, 1, F_WRLCK, 20, UINT64_MAX), 0);
	assert_int_equal(set(&b, 1, F_WRLCK, 0, 9), 0);
	/* Its own are replaced: split ... */
	assert_int_equal(set(&a, 1, F_UNLCK, 13, 15), 0);
	assert_int_equal(set(&b, 1, F_RDLCK, 13, 15), 0);
	assert_int_equal(set(&b, 2, F_RDLCK, 13, 15), 0);
	assert_int_equal(set(&b, 1, F_RDLCK, 12, 12), -EAGAIN);
	assert_int_equal(set(&b, 1, F_RDLCK, 16, 16), -EAGAIN);
	/* ... downgraded in part, upgraded when nobody is in the way */
	assert_int_equal(set(&a, 1, F_RDLCK, 10, 10), 0);
	assert_int_equal(set(&b, 2, F_RDLCK, 10, 10), 0);
	assert_int_equal(set(&a, 1, F_WRLCK, 10, 10), -EAGAIN);
	assert_int_equal(set(&b, 2, F_UNLCK, 0, UINT64_MAX), 0);
	assert_int_equal(set(&a, 1, F_WRLCK, 10, 10), 0);
	/* ... and joined. */
	assert_int_equal(set(&b, 1, F_UNLCK, 0, UINT64_MAX), 0);
	assert_int_equal(set(&a, 1, F_WRLCK, 13, 15), 0);
	assert_int_equal(set(&a, 1, F_UNLCK, 10, 19), 0);
	assert_int_equal(set(&b, 9, F_WRLCK, 0, UINT64_MAX), 0);
	/* flock(2) is a kind of its own. */
	assert_int_equal(whole(&a, 1, F_RDLCK), 0);
	assert_int_equal(whole(&b, 1, F_RDLCK), 0);
	assert_int_equal(whole(&b, 1, F_WRLCK), -EAGAIN);
	assert_int_equal(whole(&a, 1, F_UNLCK), 0);
	assert_int_equal(whole(&b, 1, F_WRLCK), 0);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void who_is_in_the_way_is_told(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 99);
	struct sop_coord_holder by;
	struct sop_err e = {0};

	start_two(*state, &a, &b, LONG_LEASE_MS);
	ok(sop_coord_lock_test(b.c, &l, &by, &e), &e);
	assert_int_equal(by.lock.type, F_UNLCK);
	assert_int_equal(set(&a, 5, F_WRLCK, 70, 79), 0);
	assert_int_equal(set(&a, UINT64_MAX, F_RDLCK, 30, 39), 0);
	ok(sop_coord_lock_test(b.c, &l, &by, &e), &e);
	assert_int_equal(by.session, sop_coord_session(a.c));
	assert_int_equal(by.lock.type, F_RDLCK);
	assert_int_equal(by.lock.start, 30);
	assert_int_equal(by.lock.end, 39);
	assert_int_equal(by.lock.owner, UINT64_MAX);
	assert_int_equal(by.lock.pid, 42);
	l.type = F_RDLCK;
	assert_int_equal(sop_coord_lock(b.c, &l, 0, NULL, &by, &e), -EAGAIN);
	assert_int_equal(by.lock.type, F_WRLCK);
	assert_int_equal(by.lock.start, 70);
	l.start = 100;
	assert_int_equal(sop_coord_lock(b.c, &l, 0, NULL, &by, &e), -EINVAL);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

struct locker {
	struct mounter *m;
	struct sop_coord_lock l;
	int rc;
};

static void *lock_waiting(void *arg)
{
	struct locker *x = arg;

	x->rc = lock_of(x->m, &x->l, BOUND_MS);
	return NULL;
}

/* What an owner asks for beside what it waits for leaves it waiting: threads of a process have one
 * owner, and that of a closed file may be the next one's. */
static void who_waits_hears_of_it_whatever_its_owner_asks_for_meanwhile(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock first = range(1, F_WRLCK, 0, 9), second = range(1, F_WRLCK, 50, 59);

	start_two(*state, &a, &b, LONG_LEASE_MS);
	first.waits = second.waits = true;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(set(&a, 5, F_WRLCK, 0, 9), 0);
		assert_int_equal(set(&a, 5, F_WRLCK, 50, 59), 0);
		assert_int_equal(lock_of(&b, &first, 0), -EAGAIN);
		assert_int_equal(lock_of(&b, &second, 0), -EAGAIN);
		b.unlocked = 0;
		assert_int_equal(set(&b, 1, F_UNLCK, i ? 0 : 100, i ? UINT64_MAX : 109), 0);
		WAIT_FOR(b.unlocked == 7);
		assert_int_equal(set(&b, 1, F_WRLCK, 200, 209), 0);
		assert_int_equal(set(&b, 1, F_WRLCK, 0, 1), -EAGAIN);
		b.unlocked = 0;
		assert_int_equal(set(&a, 5, F_UNLCK, 0, 9), 0);
		WAIT_FOR(b.unlocked == 7);
		assert_int_equal(lock_of(&b, &first, 0), 0);
		b.unlocked = 0;
		assert_int_equal(set(&a, 5, F_UNLCK, 50, 59), 0);
		WAIT_FOR(b.unlocked == 7);
		assert_int_equal(lock_of(&b, &second, 0), 0);
		assert_int_equal(set(&b, 1, F_UNLCK, 0, UINT64_MAX), 0);
	}
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void who_waits_is_told_and_granted(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock asks = range(4, F_WRLCK, 0, 0);
	struct locker x = {.m = &b, .l = range(1, F_WRLCK, 0, 9)};
	pthread_t t;

	start_two(*state, &a, &b, LONG_LEASE_MS);
	assert_int_equal(set(&a, 1, F_WRLCK, 5, 5), 0);
	assert_int_equal(pthread_create(&t, NULL, lock_waiting, &x), 0);
	nap();
	assert_int_equal(set(&a, 1, F_UNLCK, 0, UINT64_MAX), 0);
	pthread_join(t, NULL);
	assert_int_equal(x.rc, 0);
	/* Not in a thread of its own, but by an event. */
	asks.waits = true;
	b.unlocked = 0;
	a.unlocked = 0;
	assert_int_equal(lock_of(&a, &asks, 0), -EAGAIN);
	assert_int_equal(set(&b, 1, F_UNLCK, 0, 9), 0);
	WAIT_FOR(a.unlocked == 7);
	assert_int_equal(lock_of(&a, &asks, 0), 0);
	/* The session's end is told as well. */
	b.unlocked = 0;
	asks.owner = 3;
	assert_int_equal(lock_of(&b, &asks, 0), -EAGAIN);
	sop_coord_close(a.c);
	WAIT_FOR(b.unlocked == 7);
	assert_int_equal(lock_of(&b, &asks, 0), 0);
	sop_coord_close(b.c);
}

static void a_deadlock_is_told_to_who_would_close_it(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l[3];

	start_two(*state, &a, &b, LONG_LEASE_MS);
	for (uint64_t i = 0; i < 3; i++) {
		l[i] = range(i, F_WRLCK, i, i);
		l[i].object = 100 + i / 2;
		assert_int_equal(lock_of(i ? &b : &a, &l[i], 0), 0);
		l[i].waits = true;
	}
	/* 0 wants what 1 has, 1 what 2 has, over two objects: 2 must not want what 0 has. */
	l[0].start = l[0].end = 1;
	assert_int_equal(lock_of(&a, &l[0], 0), -EAGAIN);
	l[1].object = 101;
	l[1].start = l[1].end = 2;
	assert_int_equal(lock_of(&b, &l[1], 0), -EAGAIN);
	l[2].object = 100;
	l[2].start = l[2].end = 0;
	assert_int_equal(lock_of(&b, &l[2], 0), -EDEADLK);
	/* Nobody waits for who has given up. */
	sop_coord_lock_forget(b.c, &l[1]);
	assert_int_equal(lock_of(&b, &l[2], 0), -EAGAIN);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

/* ---- the memory is lost ---- */

static void what_was_held_stays_held_when_all_is_forgotten(void **state)
{
	struct mounter a, b;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_coord_holder by;
	struct sop_coord_state before, after;
	struct sop_err e = {0};
	uint64_t old, grant, tip;

	start_two(*state, &a, &b, LONG_LEASE_MS);
	sop_coord_state(a.c, &before);
	old = sop_coord_session(a.c);
	ok(sop_coord_lock(a.c, &l, 0, &grant, NULL, &e), &e);
	ok(sop_coord_publish(a.c, 12, &e), &e);
	forget_all(*state);
	/* The first to come, whoever it is, begins a new generation, which grants nothing new. */
	l.start = l.end = 100;
	assert_int_equal(sop_coord_lock(b.c, &l, 0, NULL, &by, &e), -EAGAIN);
	assert_int_equal(by.session, 0);
	ok(sop_coord_tip(a.c, &tip, &e), &e);
	WAIT_FOR(a.sessions == 2 && b.sessions == 2);
	assert_true(a.unbroken);
	assert_true(b.unbroken);
	assert_int_not_equal(sop_coord_session(a.c), old);
	assert_true(grant_good(a.c, grant));
	sop_coord_state(a.c, &after);
	assert_int_not_equal(after.generation, before.generation);
	ok(sop_coord_tip(b.c, &tip, &e), &e);
	assert_int_equal(tip, 12);
	ok(sop_coord_alone(b.c, &e), &e);
	assert_int_equal(set(&b, 1, F_RDLCK, 9, 9), -EAGAIN);
	assert_int_equal(set(&b, 1, F_RDLCK, 10, 10), 0);
	/* What is unlocked while the server knows nothing is not claimed again. */
	forget_all(*state);
	assert_int_equal(set(&a, 1, F_UNLCK, 0, 9), 0);
	ok(sop_coord_alone(b.c, &e), &e);
	assert_int_equal(set(&b, 1, F_WRLCK, 0, 9), 0);
	/* Nor what was unlocked before. */
	assert_int_equal(set(&a, 1, F_WRLCK, 50, 59), 0);
	assert_int_equal(set(&a, 1, F_UNLCK, 52, 59), 0);
	forget_all(*state);
	ok(sop_coord_tip(a.c, &tip, &e), &e);
	ok(sop_coord_alone(b.c, &e), &e);
	assert_int_equal(set(&b, 1, F_WRLCK, 51, 51), -EAGAIN);
	assert_int_equal(set(&b, 1, F_WRLCK, 52, 59), 0);
	sop_coord_close(a.c);
	sop_coord_close(b.c);
}

static void locks_are_lost_when_the_lease_ran_out_as_well(void **state)
{
	struct mounter a;
	struct sop_coord_lock l = range(1, F_WRLCK, 0, 9);
	struct sop_err e = {0};
	uint64_t grant;

	start(*state, &a, LONG_LEASE_MS);
	ok(sop_coord_alone(a.c, &e), &e);
	ok(sop_coord_lock(a.c, &l, 0, &grant, NULL, &e), &e);
	sop_coord_stop(a.c, true);
	a.boot_shift_ms = LONG_LEASE_MS;
	forget_all(*state);
	sop_coord_stop(a.c, false);
	WAIT_FOR(a.sessions == 2);
	assert_false(a.unbroken);
	assert_false(grant_good(a.c, grant));
	sop_coord_close(a.c);
}

/* Threads of two mounters go in and out of one lock, while the memory is lost again and again:
 * never are two within whose grants are good. */
static atomic_int within;
static atomic_uint broken_rounds, entered;
static atomic_bool enough;

static void *in_and_out(void *arg)
{
	struct locker *x = arg;
	struct sop_coord_lock out = x->l;
	struct sop_err e = {0};
	uint64_t tip = 0;

	out.type = F_UNLCK;
	while (!enough) {
		uint64_t grant;
		int rc = sop_coord_lock(x->m->c, &x->l, BOUND_MS, &grant, NULL, &e);

		if (rc) {
			x->rc = rc;
			break;
		}
		if (within++ && grant_good(x->m->c, grant))
			broken_rounds++;
		entered++;
		if (sop_coord_publish(x->m->c, entered, &e) || sop_coord_tip(x->m->c, &tip, &e))
			x->rc = -EIO;
		within--;
		rc = lock_of(x->m, &out, 0);
		if (rc)
			x->rc = rc;
	}
	return NULL;
}

static void two_are_never_let_in_while_the_memory_is_lost_under_load(void **state)
{
	struct mounter m[2];
	struct locker x[4];
	pthread_t t[4];
	unsigned before;
	int rounds = getenv("LONG") ? 100 : 4;

	within = 0;
	broken_rounds = entered = 0;
	enough = false;
	/* A lease that nobody misses, and a generation that is young for long: alone() ends its
	 * youth once all have come back. */
	start_two(*state, &m[0], &m[1], SHORT_LEASE_MS * 5);
	for (size_t i = 0; i < 4; i++) {
		x[i] = (struct locker){.m = &m[i % 2], .l = range(i, F_WRLCK, 0, 9)};
		assert_int_equal(pthread_create(&t[i], NULL, in_and_out, &x[i]), 0);
	}
	for (int i = 1; i <= rounds; i++) {
		struct sop_err e = {0};
		unsigned want = (unsigned)i + 1;

		before = entered;
		WAIT_FOR(entered > before + 20);
		forget_all(*state);
		WAIT_FOR(m[0].sessions >= want && m[1].sessions >= want);
		ok(sop_coord_alone(m[0].c, &e), &e);
	}
	enough = true;
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(x[i].rc, 0);
	}
	assert_int_equal(broken_rounds, 0);
	sop_coord_close(m[0].c);
	sop_coord_close(m[1].c);
}

/* ---- the server of one suite ---- */

static int setup(void **state)
{
	struct world *w = *state;
	struct sop_err e = {0};

	return sop_uuid_new(&w->volume, &e);
}

static int start_server(void **state)
{
	(void)state;
	test_redis_start(&server, false, NULL);
	return 0;
}

static int end_server(void **state)
{
	(void)state;
	test_redis_end(&server);
	return 0;
}

#define CASE(f, w)                                                                                 \
	{                                                                                          \
		.name = #f, .test_func = f, .setup_func = setup, .initial_state = (w)              \
	}
#define CASES(w)                                                                                   \
	{                                                                                          \
		CASE(a_session_is_listed_with_who_it_is_and_how_far, w),                           \
			CASE(commits_end_at_two_thirds_of_a_lease, w),                             \
			CASE(a_killed_mounter_is_revoked_and_its_locks_are_free, w),               \
			CASE(who_has_run_out_is_fenced_before_it_is_revoked, w),                   \
			CASE(who_has_not_run_out_cannot_be_revoked, w),                            \
			CASE(when_nobody_renewed_nobody_is_revoked_at_once, w),                    \
			CASE(a_lost_session_is_never_revived, w),                                  \
			CASE(what_was_revoked_is_not_claimed_again, w),                            \
			CASE(the_tip_never_goes_back, w), CASE(a_tip_is_heard_without_asking, w),  \
			CASE(a_commit_is_two_round_trips, w),                                      \
			CASE(the_turn_goes_to_who_waits_with_the_publication, w),                  \
			CASE(nobody_holds_the_turn_for_ever, w),                                   \
			CASE(a_tip_is_as_new_as_the_call, w),                                      \
			CASE(a_young_generation_knows_no_lowest_pin, w),                           \
			CASE(the_lowest_pin_of_all_is_told, w),                                    \
			CASE(locks_keep_others_out_as_fcntl_does, w),                              \
			CASE(who_is_in_the_way_is_told, w),                                        \
			CASE(who_waits_is_told_and_granted, w),                                    \
			CASE(who_waits_hears_of_it_whatever_its_owner_asks_for_meanwhile, w),      \
			CASE(a_deadlock_is_told_to_who_would_close_it, w),                         \
			CASE(what_was_held_stays_held_when_all_is_forgotten, w),                   \
			CASE(locks_are_lost_when_the_lease_ran_out_as_well, w),                    \
			CASE(two_are_never_let_in_while_the_memory_is_lost_under_load, w)          \
	}

int main(void)
{
	static struct world embedded, redis = {.redis = true};
	const struct CMUnitTest local_tests[] = CASES(&embedded);
	const struct CMUnitTest redis_tests[] = CASES(&redis);
	int rc = cmocka_run_group_tests_name("embedded", local_tests, NULL, NULL);

	if (!test_redis_there()) {
		printf("redis-server is not installed: coordination was tested without it\n");
		return rc;
	}
	return rc + cmocka_run_group_tests_name("redis", redis_tests, start_server, end_server);
}
