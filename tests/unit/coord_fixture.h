/* Mounters of a volume that hear what they are told; see test_coord.c and test_coord_redis.c. */
#ifndef TESTS_UNIT_COORD_FIXTURE_H
#define TESTS_UNIT_COORD_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "core/coord_own.h"
#include "tests/lib/redis.h"

#define LONG_LEASE_MS  600000
#define SHORT_LEASE_MS 1000
#define BOUND_MS       60000

static struct test_redis server;

/* What is the same for all of a test. */
struct world {
	bool redis;
	struct sop_uuid volume;
};

/* One mounter, and what it heard. */
struct mounter {
	struct sop_coord *c;
	_Atomic uint64_t boot_shift_ms;
	_Atomic uint64_t tip, session, unlocked, expired;
	atomic_uint sessions, states, backwards;
	atomic_bool unbroken, up;
};

static inline void on_tip(void *arg, uint64_t tip)
{
	struct mounter *m = arg;

	if (tip <= m->tip)
		m->backwards++;
	m->tip = tip;
}

static inline void on_session(void *arg, uint64_t id, bool unbroken)
{
	struct mounter *m = arg;

	m->unbroken = unbroken;
	m->session = id;
	m->sessions++;
}

static inline void on_expired(void *arg, uint64_t session)
{
	struct mounter *m = arg;

	m->expired = session;
}

static inline void on_unlocked(void *arg, uint64_t object)
{
	struct mounter *m = arg;

	m->unlocked = object;
}

static inline void on_state(void *arg, bool up)
{
	struct mounter *m = arg;

	m->up = up;
	m->states++;
}

static inline uint64_t shifted_ms(void *arg)
{
	const struct mounter *m = arg;
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + m->boot_shift_ms;
}

static inline struct sop_coord_options options_of(
	const struct world *w, struct mounter *m, unsigned lease_ms)
{
	struct sop_coord_options o = {.volume = w->volume,
		.url = w->redis ? server.url : NULL,
		.host = "here",
		.where = "/mnt",
		.lease_ms = lease_ms,
		.wait_ms = BOUND_MS,
		.hold_ms = BOUND_MS,
		.boot_ms = shifted_ms,
		.boot_arg = m,
		.on = {.tip = on_tip,
			.session = on_session,
			.expired = on_expired,
			.unlocked = on_unlocked,
			.state = on_state,
			.arg = m}};

	return o;
}

static inline void nap(void)
{
	const struct timespec t = {.tv_nsec = 2000000};

	nanosleep(&t, NULL);
}

/* Wait for what is to come, generously. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		int left_ = BOUND_MS / 2;                                                          \
		bool come_ = false;                                                                \
		while (!come_ && left_--) {                                                        \
			come_ = (condition);                                                       \
			if (!come_)                                                                \
				nap();                                                             \
		}                                                                                  \
		if (!come_)                                                                        \
			fail_msg("this never came: %s", #condition);                               \
	} while (0)

static inline void start_with(struct mounter *m, const struct sop_coord_options *o)
{
	struct sop_err e = {0};

	if (sop_coord_open(&m->c, o, &e))
		fail_msg("open: %s", e.text);
	/* The server's first answer may come later than is waited for. */
	WAIT_FOR(m->sessions == 1);
	assert_int_not_equal(sop_coord_session(m->c), 0);
}

static inline void start(const struct world *w, struct mounter *m, unsigned lease_ms)
{
	struct sop_coord_options o;

	memset(m, 0, sizeof(*m));
	o = options_of(w, m, lease_ms);
	start_with(m, &o);
}

/* Two of them, of which the disks say that there are no others. */
static inline void start_two(
	const struct world *w, struct mounter *a, struct mounter *b, unsigned lease_ms)
{
	struct sop_err e = {0};

	start(w, a, lease_ms);
	start(w, b, lease_ms);
	assert_int_equal(sop_coord_alone(a->c, &e), 0);
}

static inline void ok(int rc, const struct sop_err *e)
{
	if (rc)
		fail_msg("%s: %s", sop_err_name(rc), e->text);
}

/* May what was written under this grant be committed? As the engine asks. */
static inline bool grant_good(struct sop_coord *c, uint64_t grant)
{
	return sop_coord_may_commit(c, sop_coord_session(c)) && !sop_coord_grant_lost(c, grant);
}

static inline int lock_of(struct mounter *m, const struct sop_coord_lock *l, unsigned wait_ms)
{
	struct sop_err e = {0};

	return sop_coord_lock(m->c, l, wait_ms, NULL, NULL, &e);
}

static inline struct sop_coord_lock range(uint64_t owner, short type, uint64_t start, uint64_t end)
{
	struct sop_coord_lock l = {
		.object = 7, .owner = owner, .type = type, .start = start, .end = end, .pid = 42};

	return l;
}

static inline int set(struct mounter *m, uint64_t owner, short type, uint64_t start, uint64_t end)
{
	struct sop_coord_lock l = range(owner, type, start, end);

	return lock_of(m, &l, 0);
}

static inline int whole(struct mounter *m, uint64_t owner, short type)
{
	struct sop_coord_lock l = {.object = 7, .owner = owner, .type = type, .whole = true};

	return lock_of(m, &l, 0);
}

#endif
