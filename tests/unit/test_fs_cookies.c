/* Directory cookies: positions that stay right whatever is inserted or removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "fs/dir.h"

#define NAMES 3000

static unsigned seed = 4711;

static unsigned next(void)
{
	seed = seed * 1103515245u + 12345u;
	return seed >> 8;
}

static int by_key(const void *a, const void *b)
{
	const struct sopfs_key *x = a, *y = b;

	return sop_bytes_cmp(x->text, x->len, y->text, y->len);
}

/* Names of every shape: counted, sharing long beginnings, also longer ones than files have, random
 * bytes, one a prefix of another. */
static size_t names_make(struct sopfs_key *k, char (*text)[SOP_KEY_MAX])
{
	size_t n = 0, out = 0;

	for (; n < NAMES; n++) {
		int len;

		if (n % 4 == 0)
			len = snprintf(text[n], SOP_KEY_MAX, "file%06u", next() % 100000);
		else if (n % 4 == 1)
			len = snprintf(text[n], SOP_KEY_MAX, "%0*u%.*s",
				(int)((n % 8 == 1 ? 200 : 1005) + n % 3), next() % 50, (int)(n % 9),
				"\xff\xff\xff\xff\xff\xff\xff\xff");
		else if (n % 4 == 2)
			len = snprintf(text[n], SOP_KEY_MAX, "%.*s", (int)(1 + next() % 30),
				"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
		else {
			len = (int)(1 + next() % 12);
			for (int i = 0; i < len; i++)
				text[n][i] = (char)(1 + next() % 255);
		}
		k[n] = (struct sopfs_key){text[n], (size_t)len};
	}
	qsort(k, n, sizeof(*k), by_key);
	for (size_t i = 0; i < n; i++)
		if (!out || by_key(&k[out - 1], &k[i]))
			k[out++] = k[i];
	return out;
}

static void every_cookie_leads_to_the_name_after_its_own(void **state)
{
	static struct sopfs_key k[NAMES];
	static char text[NAMES][SOP_KEY_MAX];
	static uint64_t cookie[NAMES];
	struct sopfs_cookies *c = sopfs_cookies_new();
	size_t n = names_make(k, text);

	(void)state;
	print_message("seed 4711, %zu names\n", n);
	/* In answers of many sizes, as the kernel asks for them. */
	for (size_t at = 0; at < n;) {
		size_t some = SOP_MIN(n - at, (size_t)(1 + next() % 200));

		assert_int_equal(sopfs_cookies_make(c, k + at, some,
					 at + some < n ? &k[at + some] : NULL, cookie + at),
			0);
		at += some;
	}
	for (size_t i = 0; i < n; i++) {
		char low[SOP_KEY_MAX];
		size_t len, j = 0;
		int rc = sopfs_cookies_find(c, cookie[i], low, &len);

		assert_true(cookie[i] > SOPFS_COOKIE_DOTDOT && cookie[i] <= INT64_MAX);
		if (rc) {
			assert_int_equal(rc, -ENOENT);
			assert_int_equal(i, n - 1);
			continue;
		}
		while (j < n && sop_bytes_cmp(k[j].text, k[j].len, low, len) < 0)
			j++;
		assert_int_equal(j, i + 1);
	}
	sopfs_cookies_free(c);
}

static void names_that_count_share_their_prefixes(void **state)
{
	struct sopfs_cookies *c = sopfs_cookies_new();
	static char text[1000][16];
	static struct sopfs_key k[1000];
	uint64_t out[1000], again[1000];

	(void)state;
	for (int i = 0; i < 1000; i++)
		k[i] = (struct sopfs_key){text[i], (size_t)snprintf(text[i], 16, "f%08d", i)};
	assert_int_equal(sopfs_cookies_make(c, k, 1000, NULL, out), 0);
	assert_int_equal(sopfs_cookies_make(c, k, 1000, NULL, again), 0);
	assert_memory_equal(out, again, sizeof(out));
	assert_int_equal(out[0] >> 40, out[999] >> 40);
	sopfs_cookies_free(c);
}

static void the_start_the_dots_and_foreign_cookies_are_known(void **state)
{
	struct sopfs_cookies *c = sopfs_cookies_new();
	char low[SOP_KEY_MAX];
	size_t len = 1;

	(void)state;
	for (uint64_t i = 0; i <= SOPFS_COOKIE_DOTDOT; i++) {
		assert_int_equal(sopfs_cookies_find(c, i, low, &len), 0);
		assert_int_equal(len, 0);
	}
	assert_int_equal(sopfs_cookies_find(c, 3, low, &len), -EINVAL);
	assert_int_equal(sopfs_cookies_find(c, UINT64_C(7) << 40, low, &len), -EINVAL);
	sopfs_cookies_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cookie_leads_to_the_name_after_its_own),
		cmocka_unit_test(names_that_count_share_their_prefixes),
		cmocka_unit_test(the_start_the_dots_and_foreign_cookies_are_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
