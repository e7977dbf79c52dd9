/* Access control lists: mode and list say the same; a default list is narrowed by the mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/acl.h"

#define ENTRY(tag, perm, id) tag, 0, perm, 0, id, 0, 0, 0
#define PLAIN		     2, 0, 0, 0, ENTRY(1, 7, 0), ENTRY(4, 5, 0), ENTRY(32, 4, 0)

static void lists_that_are_none_are_refused(void **state)
{
	const uint8_t plain[] = {PLAIN};
	const uint8_t unmasked[] = {PLAIN, ENTRY(2, 6, 9)};
	const uint8_t twice[] = {PLAIN, ENTRY(1, 6, 0)};
	const uint8_t strange[] = {PLAIN, ENTRY(64, 6, 0)};
	const uint8_t wide[] = {2, 0, 0, 0, ENTRY(1, 9, 0), ENTRY(4, 5, 0), ENTRY(32, 4, 0)};
	const uint8_t old[] = {1, 0, 0, 0, ENTRY(1, 7, 0), ENTRY(4, 5, 0), ENTRY(32, 4, 0)};

	(void)state;
	assert_int_equal(sopfs_acl_check(plain, sizeof(plain)), 0);
	for (size_t n = 0; n < sizeof(plain); n++)
		assert_int_equal(sopfs_acl_check(plain, n), -EINVAL);
	assert_int_equal(sopfs_acl_check(unmasked, sizeof(unmasked)), -EINVAL);
	assert_int_equal(sopfs_acl_check(twice, sizeof(twice)), -EINVAL);
	assert_int_equal(sopfs_acl_check(strange, sizeof(strange)), -EINVAL);
	assert_int_equal(sopfs_acl_check(wide, sizeof(wide)), -EINVAL);
	assert_int_equal(sopfs_acl_check(old, sizeof(old)), -EINVAL);
}

static void the_mode_shows_the_mask_for_the_group(void **state)
{
	uint8_t plain[] = {PLAIN};
	uint8_t named[] = {PLAIN, ENTRY(2, 6, 9), ENTRY(16, 6, 0)};

	(void)state;
	assert_int_equal(sopfs_acl_check(named, sizeof(named)), 0);
	assert_int_equal(sopfs_acl_mode(plain, sizeof(plain), 0104000), 0104754);
	assert_int_equal(sopfs_acl_mode(named, sizeof(named), 0100000), 0100764);
	assert_true(sopfs_acl_is_mode(plain, sizeof(plain)));
	assert_false(sopfs_acl_is_mode(named, sizeof(named)));
	sopfs_acl_set_mode(named, sizeof(named), 0610);
	assert_int_equal(sopfs_acl_mode(named, sizeof(named), 0), 0610);
	assert_int_equal(named[4 + 8 + 2], 5); /* the owning group's own entry stays */
}

static void what_is_inherited_is_no_wider_than_the_mode(void **state)
{
	uint8_t named[] = {PLAIN, ENTRY(2, 7, 9), ENTRY(16, 7, 0)};

	(void)state;
	assert_int_equal(sopfs_acl_inherit(named, sizeof(named), 0100666), 0100664);
	assert_int_equal(named[4 + 24 + 2], 7); /* the named user's, which the mask limits */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_that_are_none_are_refused),
		cmocka_unit_test(the_mode_shows_the_mask_for_the_group),
		cmocka_unit_test(what_is_inherited_is_no_wider_than_the_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
