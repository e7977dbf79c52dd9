#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/id.h"

static void new_uuids_are_version_4_and_differ(void **state)
{
	struct sop_uuid a, b;
	struct sop_err e = {0};

	(void)state;
	assert_int_equal(sop_uuid_new(&a, &e), 0);
	assert_int_equal(sop_uuid_new(&b, &e), 0);
	assert_false(sop_uuid_equal(&a, &b));
	assert_int_equal(a.b[6] >> 4, 4);
	assert_int_equal(a.b[8] >> 6, 2);
}

static void format_and_parse_are_inverse(void **state)
{
	struct sop_uuid a, b;
	char text[SOP_UUID_TEXT];

	(void)state;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(sop_uuid_new(&a, NULL), 0);
		assert_ptr_equal(sop_uuid_format(text, &a), text);
		assert_int_equal(strlen(text), SOP_UUID_TEXT - 1);
		assert_int_equal(sop_uuid_parse(&b, text), 0);
		assert_true(sop_uuid_equal(&a, &b));
	}
}

static void format_is_the_usual_notation(void **state)
{
	struct sop_uuid a;
	char text[SOP_UUID_TEXT];

	(void)state;
	for (size_t i = 0; i < 16; i++)
		a.b[i] = (uint8_t)(i * 0x11);
	assert_string_equal(sop_uuid_format(text, &a), "00112233-4455-6677-8899-aabbccddeeff");
}

static void parse_takes_capitals(void **state)
{
	struct sop_uuid a;
	char text[SOP_UUID_TEXT];

	(void)state;
	assert_int_equal(sop_uuid_parse(&a, "00112233-4455-6677-8899-AABBCCDDEEFF"), 0);
	assert_string_equal(sop_uuid_format(text, &a), "00112233-4455-6677-8899-aabbccddeeff");
}

static void parse_refuses_what_is_no_uuid(void **state)
{
	static const char *const bad[] = {"", "-", "0", "00112233",
		"00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeeff0",
		"00112233-4455-6677-8899-aabbccddeeff ", " 00112233-4455-6677-8899-aabbccddeeff",
		"00112233445566778899aabbccddeeff", "0011223-34455-6677-8899-aabbccddeeff",
		"00112233-4455-6677-8899-aabbccddeefg", "00112233_4455_6677_8899_aabbccddeeff",
		"0x112233-4455-6677-8899-aabbccddeeff"};
	struct sop_uuid a, kept;

	(void)state;
	memset(&a, 7, sizeof(a));
	kept = a;
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++)
		assert_int_equal(sop_uuid_parse(&a, bad[i]), -EINVAL);
	assert_true(sop_uuid_equal(&a, &kept));
}

static void random_fills_all_bytes(void **state)
{
	uint8_t sum[600] = {0}, buf[600];

	(void)state;
	/* That a byte stays zero in 16 rounds has a chance of 2^-128. */
	for (int i = 0; i < 16; i++) {
		sop_random(buf, sizeof(buf));
		for (size_t j = 0; j < sizeof(buf); j++)
			sum[j] |= buf[j];
	}
	for (size_t j = 0; j < sizeof(buf); j++)
		assert_int_not_equal(sum[j], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_uuids_are_version_4_and_differ),
		cmocka_unit_test(format_and_parse_are_inverse),
		cmocka_unit_test(format_is_the_usual_notation),
		cmocka_unit_test(parse_takes_capitals),
		cmocka_unit_test(parse_refuses_what_is_no_uuid),
		cmocka_unit_test(random_fills_all_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
