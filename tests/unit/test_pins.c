#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/pins.h"

#define STORE 7u
#define INODE 1234567u

static int make(void **state)
{
	*state = sop_pins_new();
	return *state ? 0 : -1;
}

static int drop(void **state)
{
	sop_pins_free(*state);
	return 0;
}

static uint64_t pin(struct sop_pins *p, uint64_t scope)
{
	uint64_t lsn = UINT64_MAX;

	assert_int_equal(sop_pins_get(p, scope, &lsn), 0);
	return lsn;
}

static void a_pin_is_of_the_published_lsn(void **state)
{
	struct sop_pins *p = *state;

	assert_int_equal(sop_pins_published(p), 0);
	assert_int_equal(pin(p, STORE), 0);
	sop_pins_publish(p, 5);
	assert_int_equal(sop_pins_published(p), 5);
	assert_int_equal(pin(p, STORE), 5);
	assert_int_equal(pin(p, SOP_PIN_ALL), 5);
	sop_pins_put(p, STORE, 0);
	sop_pins_put(p, STORE, 5);
	sop_pins_put(p, SOP_PIN_ALL, 5);
}

static void publishing_never_goes_back(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 9);
	sop_pins_publish(p, 4);
	assert_int_equal(sop_pins_published(p), 9);
}

static void between_has_its_lower_bound_and_not_its_upper(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 10);
	pin(p, STORE);
	sop_pins_publish(p, 20);
	pin(p, STORE);
	assert_true(sop_pins_between(p, STORE, 10, 11));
	assert_true(sop_pins_between(p, STORE, 5, 11));
	assert_false(sop_pins_between(p, STORE, 5, 10));
	assert_false(sop_pins_between(p, STORE, 11, 20));
	assert_true(sop_pins_between(p, STORE, 11, 21));
	assert_false(sop_pins_between(p, STORE, 21, UINT64_MAX));
	assert_false(sop_pins_between(p, STORE, 10, 10));
	sop_pins_put(p, STORE, 10);
	assert_false(sop_pins_between(p, STORE, 0, 20));
	sop_pins_put(p, STORE, 20);
	assert_false(sop_pins_between(p, STORE, 0, UINT64_MAX));
}

static void a_scope_does_not_keep_what_is_of_another(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 10);
	pin(p, STORE);
	assert_true(sop_pins_between(p, STORE, 0, 11));
	assert_false(sop_pins_between(p, INODE, 0, 11));
	assert_false(sop_pins_between(p, SOP_PIN_ALL, 0, 11));
	assert_int_equal(sop_pins_newest(p, STORE), 10);
	assert_int_equal(sop_pins_newest(p, INODE), 0);
	assert_int_equal(sop_pins_newest(p, SOP_PIN_ALL), 0);
}

static void a_pin_of_everything_keeps_each_scope(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 10);
	pin(p, SOP_PIN_ALL);
	sop_pins_publish(p, 20);
	pin(p, STORE);
	assert_true(sop_pins_between(p, INODE, 10, 11));
	assert_true(sop_pins_between(p, STORE, 10, 11));
	assert_int_equal(sop_pins_newest(p, INODE), 10);
	assert_int_equal(sop_pins_newest(p, STORE), 20);
	sop_pins_put(p, SOP_PIN_ALL, 10);
	assert_false(sop_pins_between(p, STORE, 0, 20));
	assert_int_equal(sop_pins_newest(p, INODE), 0);
}

static void a_pin_taken_twice_goes_with_the_second_put(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 4);
	pin(p, INODE);
	pin(p, INODE);
	sop_pins_put(p, INODE, 4);
	assert_int_equal(sop_pins_newest(p, INODE), 4);
	sop_pins_put(p, INODE, 4);
	assert_int_equal(sop_pins_newest(p, INODE), 0);
}

static void again_pins_an_older_lsn_in_its_place(void **state)
{
	struct sop_pins *p = *state;

	sop_pins_publish(p, 3);
	pin(p, SOP_PIN_ALL);
	sop_pins_publish(p, 8);
	pin(p, INODE);
	assert_int_equal(sop_pins_again(p, INODE, 3), 0);
	assert_int_equal(sop_pins_again(p, INODE, 3), 0);
	assert_int_equal(sop_pins_again(p, INODE, 8), 0);
	sop_pins_put(p, SOP_PIN_ALL, 3);
	assert_true(sop_pins_between(p, INODE, 3, 4));
	sop_pins_put(p, INODE, 3);
	assert_true(sop_pins_between(p, INODE, 3, 4));
	sop_pins_put(p, INODE, 3);
	assert_false(sop_pins_between(p, INODE, 0, 8));
	sop_pins_put(p, INODE, 8);
	assert_int_equal(sop_pins_newest(p, INODE), 8);
	sop_pins_put(p, INODE, 8);
	assert_int_equal(sop_pins_newest(p, INODE), 0);
}

static void many_scopes_are_kept_apart(void **state)
{
	struct sop_pins *p = *state;

	for (uint64_t i = 1; i <= 5000; i++) {
		sop_pins_publish(p, i);
		assert_int_equal(pin(p, i * 3), i);
	}
	for (uint64_t i = 1; i <= 5000; i++) {
		assert_int_equal(sop_pins_newest(p, i * 3), i);
		assert_int_equal(sop_pins_newest(p, i * 3 + 1), 0);
	}
	for (uint64_t i = 2; i <= 5000; i += 2)
		sop_pins_put(p, i * 3, i);
	for (uint64_t i = 1; i <= 5000; i++)
		assert_int_equal(sop_pins_newest(p, i * 3), i % 2 ? i : 0);
}

#define LSNS   100
#define SCOPES 5

struct model {
	unsigned pins[SCOPES][LSNS];
};

static bool model_has(const struct model *m, uint64_t scope, uint64_t lsn)
{
	return m->pins[scope][lsn] || m->pins[SOP_PIN_ALL][lsn];
}

static void check_against(struct sop_pins *p, const struct model *m, unsigned *seed)
{
	for (uint64_t scope = 0; scope < SCOPES; scope++) {
		uint64_t newest = 0, from = (uint64_t)rand_r(seed) % LSNS;
		uint64_t to = (uint64_t)rand_r(seed) % LSNS;
		bool between = false;

		for (uint64_t i = 0; i < LSNS; i++) {
			if (model_has(m, scope, i))
				newest = i;
			between |= model_has(m, scope, i) && from <= i && i < to;
		}
		assert_true(sop_pins_newest(p, scope) == newest);
		assert_int_equal(sop_pins_between(p, scope, from, to), between);
	}
}

static void random_pins_agree_with_a_model(void **state)
{
	struct sop_pins *p = *state;
	struct model m = {0};
	unsigned seed = 20240607;
	uint64_t published = 0;

	print_message("seed %u\n", seed);
	for (int i = 0; i < 20000; i++) {
		uint64_t scope = (uint64_t)rand_r(&seed) % SCOPES;
		uint64_t lsn = (uint64_t)rand_r(&seed) % LSNS;

		switch (rand_r(&seed) % 5) {
		case 0:
			if (published + 1 < LSNS && i % 32 == 0)
				sop_pins_publish(p, ++published);
			break;
		case 1:
			lsn = pin(p, scope);
			assert_int_equal(lsn, published);
			m.pins[scope][lsn]++;
			break;
		case 2:
			if (model_has(&m, scope, lsn)) {
				assert_int_equal(sop_pins_again(p, scope, lsn), 0);
				m.pins[scope][lsn]++;
			}
			break;
		default:
			while (lsn < LSNS && !m.pins[scope][lsn])
				lsn++;
			if (lsn < LSNS) {
				m.pins[scope][lsn]--;
				sop_pins_put(p, scope, lsn);
			}
		}
		check_against(p, &m, &seed);
	}
}

#define THREADS 3

struct reader {
	struct sop_pins *pins;
	uint64_t scope;
};

static void *read_and_publish(void *arg)
{
	struct reader *r = arg;

	for (int i = 0; i < 3000; i++) {
		uint64_t lsn;

		if (sop_pins_get(r->pins, r->scope, &lsn))
			abort();
		sop_pins_publish(r->pins, lsn + 1);
		/* What is pinned stays visible to whoever looks for what may go. */
		if (!sop_pins_between(r->pins, r->scope, lsn, lsn + 1))
			abort();
		sop_pins_put(r->pins, r->scope, lsn);
	}
	return NULL;
}

static void threads_never_see_their_pin_go(void **state)
{
	struct reader r[THREADS];
	pthread_t t[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		r[i] = (struct reader){.pins = *state, .scope = i / 2};
		assert_int_equal(pthread_create(&t[i], NULL, read_and_publish, &r[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (uint64_t scope = 0; scope < THREADS; scope++)
		assert_false(sop_pins_between(*state, scope, 0, UINT64_MAX));
	assert_true(sop_pins_published(*state) >= 3000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_pin_is_of_the_published_lsn),
		TEST(publishing_never_goes_back),
		TEST(between_has_its_lower_bound_and_not_its_upper),
		TEST(a_scope_does_not_keep_what_is_of_another),
		TEST(a_pin_of_everything_keeps_each_scope),
		TEST(a_pin_taken_twice_goes_with_the_second_put),
		TEST(again_pins_an_older_lsn_in_its_place),
		TEST(many_scopes_are_kept_apart),
		TEST(random_pins_agree_with_a_model),
		TEST(threads_never_see_their_pin_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
