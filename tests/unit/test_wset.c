/* The write set: what was put in is found, in order, whichever way keys come. */
#include "core/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define KEYS 3000u

struct set {
	struct sop_wset w;
	struct sop_arena a;
	struct sop_wentry *of[KEYS]; /* by key, NULL: not in it */
	size_t count;
};

static size_t key_of(char text[16], unsigned i)
{
	return (size_t)snprintf(text, 16, "k%06u", i);
}

static uint64_t store_of(unsigned i)
{
	return 16 + i / 1000; /* keys of three stores, in order */
}

static void get(struct set *s, unsigned i)
{
	char text[16];
	size_t len = key_of(text, i);
	struct sop_wentry *x = sop_wset_get(&s->w, &s->a, store_of(i), text, len);

	assert_non_null(x);
	if (s->of[i]) {
		assert_ptr_equal(x, s->of[i]);
		return;
	}
	assert_int_equal(x->write, SOP_WRITE_NONE);
	s->of[i] = x;
	s->count++;
}

static void find(struct set *s, unsigned i)
{
	char text[16];
	size_t len = key_of(text, i);
	unsigned at = i;

	assert_ptr_equal(sop_wset_find(&s->w, store_of(i), text, len), s->of[i]);
	while (at < KEYS && !s->of[at])
		at++;
	assert_ptr_equal(
		sop_wset_seek(&s->w, store_of(i), text, len), at < KEYS ? s->of[at] : NULL);
}

static void check_order(struct set *s)
{
	const struct sop_wentry *x = sop_wset_first(&s->w);

	for (unsigned i = 0; i < KEYS; i++)
		if (s->of[i]) {
			assert_ptr_equal(x, s->of[i]);
			x = x->next[0];
		}
	assert_null(x);
	assert_int_equal(s->w.count, s->count);
}

static struct set *set_new(void)
{
	struct set *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	return s;
}

static void set_free(struct set *s)
{
	check_order(s);
	for (unsigned i = 0; i < KEYS; i += 7)
		find(s, i);
	sop_arena_release(&s->a);
	free(s);
}

static void write_set_holds_ascending_keys(void **state)
{
	struct set *s = set_new();

	(void)state;
	for (unsigned i = 0; i < KEYS; i += 2) {
		find(s, i);
		get(s, i);
		get(s, i);
		find(s, i);
	}
	for (unsigned i = 1; i < KEYS; i += 2) { /* between the others */
		find(s, i);
		get(s, i);
		get(s, i - 1);
	}
	set_free(s);
}

static void write_set_holds_descending_keys(void **state)
{
	struct set *s = set_new();

	(void)state;
	for (unsigned i = KEYS; i-- > 0;) {
		find(s, i);
		get(s, i);
	}
	set_free(s);
}

static void write_set_holds_keys_in_any_order(void **state)
{
	struct set *s = set_new();
	uint64_t x = 88172645463325252ull;
	unsigned i = 0;

	(void)state;
	for (unsigned n = 0; n < 20000; n++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		/* Runs: the same key, the next, the one before, or any. */
		i = x % 8 == 0	? (unsigned)(x >> 32) % KEYS
		    : x % 8 < 5 ? i + 1
		    : x % 8 < 7 ? i
				: i - 1;
		i = i >= KEYS ? 0 : i;
		if (x >> 20 & 1)
			get(s, i);
		else
			find(s, i);
	}
	set_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(write_set_holds_ascending_keys),
		cmocka_unit_test(write_set_holds_descending_keys),
		cmocka_unit_test(write_set_holds_keys_in_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
