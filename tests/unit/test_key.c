/* Typed keys: the order of the bytes is the order of the keys, nothing is lost, what is no key is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include <locale.h>
#include <math.h>

#include "core/keying.h"
#include "tests/lib/fixture.h"

#define H "#" /* between a name and its number */

static struct sop_err err;

/* The codec of a store with these options. */
static struct sop_keying *keying(enum sop_key_type type, bool duplicates, const char *index)
{
	struct sop_index_field f[SOP_INDEX_FIELDS];
	struct sop_keying *k = calloc(1, sizeof(*k));
	int n = 0;

	assert_non_null(k);
	k->refs = 1;
	k->type = type;
	k->duplicates = duplicates;
	if (index) {
		n = sop_index_parse(f, SOP_INDEX_FIELDS, index, k->names, sizeof(k->names), &err);
		if (n <= 0)
			fail_msg("%s", err.text);
		memcpy(k->field, f, (size_t)n * sizeof(f[0]));
		k->n_fields = (uint16_t)n;
	}
	return k;
}

static int compare(const struct sop_keying *k, struct sop_key a, struct sop_key b)
{
	static struct sop_keybuf x, y;

	assert_int_equal(sop_key_encode(&x, k, &a, &err), 0);
	assert_int_equal(sop_key_encode(&y, k, &b, &err), 0);
	return sop_bytes_cmp(x.key, x.len, y.key, y.len);
}

static int sign(int c)
{
	return (c > 0) - (c < 0);
}

static void integers_keep_their_order_and_come_back(void **state)
{
	static const int64_t edge[] = {
		INT64_MIN, INT64_MIN + 1, -256, -255, -1, 0, 1, 255, 256, INT64_MAX - 1, INT64_MAX};
	struct sop_keying *k = keying(SOP_KEY_INT64, false, NULL);
	uint64_t seed = 1;

	(void)state;
	for (size_t i = 0; i < 4000; i++) {
		size_t n = SOP_ARRAY_LEN(edge);
		int64_t a = i < n * n ? edge[i / n] : (int64_t)next_random(&seed) >> (i % 63);
		int64_t b = i < n * n ? edge[i % n] : (int64_t)next_random(&seed) >> (i % 61);
		struct sop_keybuf x;
		struct sop_key back;
		char name[SOP_KEY_NAME_MAX], text[SOP_KEY_TEXT_MAX + 1];
		struct sop_key key = sop_key_int(a);
		int len;

		assert_int_equal(sign(compare(k, key, sop_key_int(b))), (a > b) - (a < b));
		assert_int_equal(sop_key_encode(&x, k, &key, &err), 0);
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		assert_true(back.i == a);
		len = sop_key_name(name, k, x.key, x.len, NULL, 0, &err);
		assert_true(len > 0);
		memset(&x, 0, sizeof(x));
		assert_int_equal(sop_key_name_encode(&x, k, name, (size_t)len, &err), 0);
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		assert_true(back.i == a);
	}
	sop_keying_put(k);
}

static void doubles_have_a_total_order(void **state)
{
	static const double rising[] = {-INFINITY, -1.7976931348623157e308, -1.5, -1, -1e-300,
		-5e-324, 0, 5e-324, 1e-300, 0.1, 1, 1.5, 9007199254740993.0, 1e300, INFINITY};
	struct sop_keying *k = keying(SOP_KEY_FLOAT64, false, NULL);
	uint64_t seed = 2;

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(rising); i++) {
		/* All NaNs are one key, below all others. */
		assert_true(compare(k, sop_key_float((double)NAN), sop_key_float(rising[i])) < 0);
		for (size_t j = 0; j < SOP_ARRAY_LEN(rising); j++)
			assert_int_equal(sign(compare(k, sop_key_float(rising[i]),
						 sop_key_float(rising[j]))),
				(i > j) - (i < j));
	}
	assert_int_equal(compare(k, sop_key_float((double)NAN), sop_key_float(-(double)NAN)), 0);
	assert_int_equal(compare(k, sop_key_float(0.0), sop_key_float(-0.0)), 0);
	for (size_t i = 0; i < 20000; i++) {
		uint64_t bits = next_random(&seed), got;
		char name[SOP_KEY_NAME_MAX], text[SOP_KEY_TEXT_MAX + 1];
		struct sop_key key, back;
		struct sop_keybuf x;
		double f;
		int len;

		memcpy(&f, &bits, sizeof(f));
		key = sop_key_float(f);
		assert_int_equal(sop_key_encode(&x, k, &key, &err), 0);
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		memcpy(&got, &back.f, sizeof(got));
		assert_true(isnan(f) ? isnan(back.f) : got == bits);
		len = sop_key_name(name, k, x.key, x.len, NULL, 0, &err);
		assert_true(len > 0 && len < 32);
		assert_int_equal(sop_key_name_encode(&x, k, name, (size_t)len, &err), 0);
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		assert_true(isnan(f) ? isnan(back.f) : back.f == f);
	}
	sop_keying_put(k);
}

static void names_are_taken_in_one_form_alone(void **state)
{
	static const char *const ints[] = {"", "-", "-0", "00", "01", "+1", " 1", "1 ", "0x1",
		"1.0", "9223372036854775808", "-9223372036854775809", "99999999999999999999",
		"1" H "2", "a"};
	static const char *const floats[] = {"", "-0", "1.0", "1.50", ".5", "1e3", "1E+300", "NaN",
		"-nan", "Inf", "infinity", "0x1p3", "1,5", "1.5 ", "1e999", "0.10000000000000001"};
	static const char *const maps[] = {"", "{}x", "{\"a\": 1}", "{\"b\":1,\"a\":2}",
		"{\"a\":1.0}", "{\"a\":1e0}", "{\"a\":1,\"a\":2}", "{\"a\":\"/\"}",
		"{\"a\":\"\\u0041\"}", "[1]", "1", "{\"a\":1", "{\"a\":\"\xff\"}", "{\"a\":01}",
		"{\"a\":9223372036854775808}"};
	struct sop_keying *i = keying(SOP_KEY_INT64, false, NULL);
	struct sop_keying *f = keying(SOP_KEY_FLOAT64, false, NULL);
	struct sop_keying *j = keying(SOP_KEY_JSON, false, "a");
	struct sop_keying *s = keying(SOP_KEY_STRING, false, NULL);
	struct sop_keybuf x;

	(void)state;
	for (size_t n = 0; n < SOP_ARRAY_LEN(ints); n++)
		if (sop_key_name_encode(&x, i, ints[n], strlen(ints[n]), &err) != -EINVAL)
			fail_msg("int64 \"%s\" is taken", ints[n]);
	for (size_t n = 0; n < SOP_ARRAY_LEN(floats); n++)
		if (sop_key_name_encode(&x, f, floats[n], strlen(floats[n]), &err) != -EINVAL)
			fail_msg("float64 \"%s\" is taken", floats[n]);
	for (size_t n = 0; n < SOP_ARRAY_LEN(maps); n++)
		if (sop_key_name_encode(&x, j, maps[n], strlen(maps[n]), &err) != -EINVAL)
			fail_msg("JSON '%s' is taken", maps[n]);
	assert_int_equal(sop_key_name_encode(&x, s, "\xc0\x80", 2, &err), -EINVAL);
	assert_int_equal(sop_key_name_encode(&x, s, "\xed\xa0\x80", 3, &err), -EINVAL);
	assert_int_equal(sop_key_name_encode(&x, s, "gr\xc3\xbc\xc3\x9f", 6, &err), 0);
	assert_int_equal(sop_key_name_encode(&x, f, "1e+300", 6, &err), 0);
	sop_keying_put(i);
	sop_keying_put(f);
	sop_keying_put(j);
	sop_keying_put(s);
}

static void a_key_of_another_type_is_an_error(void **state)
{
	struct sop_keying *k = keying(SOP_KEY_INT64, false, NULL);
	struct sop_key s = sop_key_string("1"), f = sop_key_float(1), b = sop_key_bytes("1", 1);
	struct sop_keybuf x;

	(void)state;
	assert_int_equal(sop_key_encode(&x, k, &s, &err), -EINVAL);
	assert_non_null(strstr(err.text, "int64"));
	assert_non_null(strstr(err.text, "string"));
	assert_int_equal(sop_key_encode(&x, k, &f, &err), -EINVAL);
	assert_int_equal(sop_key_encode(&x, k, &b, &err), -EINVAL);
	assert_int_equal(sop_key_encode(&x, NULL, &s, &err), -EINVAL);
	sop_keying_put(k);
}

static int cmp_json(const struct sop_keying *k, const char *a, const char *b)
{
	return sign(compare(k, sop_key_json(a), sop_key_json(b)));
}

static void maps_are_ordered_by_their_index(void **state)
{
	struct sop_keying *k = keying(SOP_KEY_JSON, false, "address1:desc,address2");
	/* Rising by the value of one ascending field. */
	static const char *const rising[] = {"{}", "{\"v\":null}", "{\"v\":false}", "{\"v\":true}",
		"{\"v\":-1e300}", "{\"v\":-9223372036854775808}", "{\"v\":-9223372036854775807}",
		"{\"v\":-1.5}", "{\"v\":0}", "{\"v\":0.5}", "{\"v\":9007199254740992}",
		"{\"v\":9007199254740993}", "{\"v\":9007199254740994}",
		"{\"v\":9223372036854775806}", "{\"v\":9223372036854775807}", "{\"v\":1e19}",
		"{\"v\":\"\"}", "{\"v\":\"\\u0000\"}", "{\"v\":\"\\u0000\\u0001\"}",
		"{\"v\":\"\\u0001\"}", "{\"v\":\"a\"}", "{\"v\":\"aa\"}", "{\"v\":\"b\"}"};
	struct sop_keying *up = keying(SOP_KEY_JSON, false, "v");
	struct sop_keying *down = keying(SOP_KEY_JSON, false, "v:desc");

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(rising); i++)
		for (size_t j = 0; j < SOP_ARRAY_LEN(rising); j++) {
			int want = (i > j) - (i < j);

			if (cmp_json(up, rising[i], rising[j]) != want ||
				cmp_json(down, rising[i], rising[j]) != -want)
				fail_msg("%s and %s", rising[i], rising[j]);
		}
	assert_int_equal(cmp_json(k, "{\"address1\":\"b\",\"address2\":\"a\"}",
				 "{\"address1\":\"a\",\"address2\":\"z\"}"),
		-1);
	assert_int_equal(cmp_json(k, "{\"address1\":\"a\",\"address2\":\"a\"}",
				 "{\"address1\":\"a\",\"address2\":\"b\"}"),
		-1);
	/* The rest is carried along and compares nothing. */
	assert_int_equal(
		cmp_json(k, "{\"address1\":\"a\",\"zip\":1}", "{\"zip\":2,\"address1\":\"a\"}"), 0);
	assert_int_equal(cmp_json(up, "{\"v\":1}", "{ \"v\" : 1.0 }"), 0);
	sop_keying_put(k);
	sop_keying_put(up);
	sop_keying_put(down);
}

static void maps_come_back_whole(void **state)
{
	/* Given, and how it comes back. */
	static const char *const pairs[][2] = {{"{\"a\":1}", "{\"a\":1}"},
		{"{ \"b\" : [1, {\"y\":2,\"x\":null}], \"a\" : -0.0 }",
			"{\"a\":0,\"b\":[1,{\"x\":null,\"y\":2}]}"},
		{"{\"a\":\"\\u00fc/\\\"\\\\\\n\"}", "{\"a\":\"\xc3\xbc\\u002f\\\"\\\\\\u000a\"}"},
		{"{\"a\":9007199254740993}", "{\"a\":9007199254740993}"},
		{"{\"a\":9223372036854775807}", "{\"a\":9223372036854775807}"},
		{"{\"a\":-9223372036854775808}", "{\"a\":-9223372036854775808}"},
		{"{\"a\":0.1}", "{\"a\":0.1}"}, {"{\"a\":1e300}", "{\"a\":1e+300}"},
		{"{\"a\":true,\"b\":{}}", "{\"a\":true,\"b\":{}}"}, {"{\"c\":1}", "{\"c\":1}"},
		{"{}", "{}"}};
	struct sop_keying *k = keying(SOP_KEY_JSON, false, "a");

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(pairs); i++) {
		struct sop_key key = sop_key_json(pairs[i][0]), back;
		char text[SOP_KEY_TEXT_MAX + 1], name[SOP_KEY_NAME_MAX];
		struct sop_keybuf x, y;
		int len;

		assert_int_equal(sop_key_encode(&x, k, &key, &err), 0);
		if (sop_key_decode(&back, k, x.key, x.len, x.text, x.text_len, text, &err))
			fail_msg("%s: %s", pairs[i][0], err.text);
		assert_string_equal(back.p, pairs[i][1]);
		assert_int_equal(back.len, strlen(pairs[i][1]));
		len = sop_key_name(name, k, x.key, x.len, x.text, x.text_len, &err);
		assert_int_equal(sop_key_name_encode(&y, k, name, (size_t)len, &err), 0);
		assert_int_equal(sop_bytes_cmp(x.key, x.len, y.key, y.len), 0);
	}
	sop_keying_put(k);
}

static void bad_maps_are_refused(void **state)
{
	static char deep[2 * 3000 + 64], wide[4096];
	struct sop_keying *k = keying(SOP_KEY_JSON, false, "a,b:number");
	static const char *const bad[] = {"", "{", "[]", "{\"a\":[1],\"b\":1}",
		"{\"a\":{},\"b\":1}", "{\"a\":1,\"a\":2,\"b\":1}", "{\"a\":1}",
		"{\"a\":1,\"b\":\"1\"}", "{\"a\":\"\xff\",\"b\":1}", "{\"a\":1,\"b\":1e400}",
		"{\"a\":1,\"b\":1} x", "{'a':1,'b':1}", "{\"a\":NaN,\"b\":1}"};
	struct sop_keybuf x;
	struct sop_key key;

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++) {
		key = sop_key_json(bad[i]);
		if (sop_key_encode(&x, k, &key, &err) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	}
	/* Deep nesting, at the parser's bound and at ours. */
	for (int depth = 70; depth <= 3000; depth += 2930) {
		char *p = deep + sprintf(deep, "{\"b\":1,\"x\":");

		memset(p, '[', (size_t)depth);
		memset(p + depth, ']', (size_t)depth);
		strcpy(p + 2 * depth, "}");
		key = sop_key_json(deep);
		assert_int_equal(sop_key_encode(&x, k, &key, &err), -EINVAL);
	}
	sprintf(wide, "{\"b\":1,\"a\":\"%*s\"}", 1020, "");
	key = sop_key_json(wide);
	assert_int_equal(sop_key_encode(&x, k, &key, &err), -ENAMETOOLONG);
	sprintf(wide, "{\"b\":1,\"x\":\"%*s\"}", 1020, "");
	key = sop_key_json(wide);
	assert_int_equal(sop_key_encode(&x, k, &key, &err), -ENAMETOOLONG);
	sop_keying_put(k);
}

static void duplicates_are_named_by_number(void **state)
{
	/* Name, and whether it is one; what it is then. */
	static const struct {
		const char *name;
		const char *text; /* NULL: no name */
		uint64_t number;
	} names[] = {{"a", "a", 1}, {"a" H "2", "a", 2}, {"a" H "10", "a", 10},
		{"a" H "02", "a" H "02", 1}, {"a" H "1", NULL, 0}, {"a" H "2" H "1", "a" H "2", 1},
		{"a" H "2" H "3", "a" H "2", 3}, {"" H "2", "", 2}, {"a" H "", "a" H "", 1},
		{"" H "", "" H "", 1}, {"a" H "0", "a" H "0", 1}, {"a" H "1" H "1", "a" H "1", 1}};
	struct sop_keying *k = keying(SOP_KEY_STRING, true, NULL);
	struct sop_keying *i = keying(SOP_KEY_INT64, true, NULL);

	(void)state;
	for (size_t n = 0; n < SOP_ARRAY_LEN(names); n++) {
		char text[SOP_KEY_TEXT_MAX + 1], name[SOP_KEY_NAME_MAX];
		struct sop_keybuf x;
		struct sop_key back;
		int len,
			rc = sop_key_name_encode(&x, k, names[n].name, strlen(names[n].name), &err);

		if (!names[n].text) {
			assert_int_equal(rc, -EINVAL);
			continue;
		}
		if (rc)
			fail_msg("%s: %s", names[n].name, err.text);
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		assert_string_equal(back.p, names[n].text);
		assert_int_equal(sop_duplicate_number(x.key, x.len), names[n].number);
		len = sop_key_name(name, k, x.key, x.len, NULL, 0, &err);
		name[len] = 0;
		assert_string_equal(name, names[n].name);
	}
	{
		struct sop_keybuf x;

		assert_int_equal(sop_key_name_encode(&x, i, "-5" H "3", 4, &err), 0);
		assert_int_equal(sop_key_name_encode(&x, i, "-5" H "1", 4, &err), -EINVAL);
	}
	sop_keying_put(k);
	sop_keying_put(i);
}

/* With numbers behind them, strings of which one begins with the other keep their order. */
static void strings_with_numbers_keep_their_order(void **state)
{
	struct sop_keying *k = keying(SOP_KEY_BYTES, true, NULL);
	uint64_t seed = 3;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t a[6], b[6];
		size_t la = next_random(&seed) % 6, lb = next_random(&seed) % 6;
		char text[SOP_KEY_TEXT_MAX + 1];
		struct sop_keybuf x, y;
		struct sop_key ka = sop_key_bytes(a, la), kb = sop_key_bytes(b, lb), back;

		for (unsigned n = 0; n < 6; n++) {
			static const uint8_t of[] = {0, 1, 0xff, 'x'};

			a[n] = of[next_random(&seed) % 4];
			b[n] = of[next_random(&seed) % 4];
		}
		assert_int_equal(sop_key_encode(&x, k, &ka, &err), 0);
		assert_int_equal(sop_key_encode(&y, k, &kb, &err), 0);
		assert_int_equal(sop_keybuf_number(&x, next_random(&seed), &err), 0);
		assert_int_equal(sop_keybuf_number(&y, next_random(&seed), &err), 0);
		if (sop_bytes_cmp(a, la, b, lb))
			assert_int_equal(sign(sop_bytes_cmp(x.key, x.len, y.key, y.len)),
				sign(sop_bytes_cmp(a, la, b, lb)));
		assert_int_equal(sop_key_decode(&back, k, x.key, x.len, NULL, 0, text, &err), 0);
		assert_int_equal(sop_bytes_cmp(back.p, back.len, a, la), 0);
	}
	sop_keying_put(k);
}

static void an_index_is_text_and_back(void **state)
{
	static const char *const good[] = {"a", "a:desc", "a,b:desc:number,c:string",
		"\"x y\":desc,\"a,b\"", "address1:desc,address2", "a.b_c-d:bool"};
	static const char *const bad[] = {
		"", ",", "a,", "a:", "a:up", "a b", "\"a", "a,,b", "\"\"", "a:desc:what"};
	struct sop_index_field f[SOP_INDEX_FIELDS];
	char buf[256], text[256];

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(good); i++) {
		int n = sop_index_parse(f, SOP_INDEX_FIELDS, good[i], buf, sizeof(buf), &err);

		if (n <= 0)
			fail_msg("%s: %s", good[i], err.text);
		sop_index_format(text, sizeof(text), f, (size_t)n);
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < SOP_ARRAY_LEN(bad); i++)
		if (sop_index_parse(f, SOP_INDEX_FIELDS, bad[i], buf, sizeof(buf), &err) != -EINVAL)
			fail_msg("\"%s\" is taken", bad[i]);
}

/* Each character of its names may need six in quotes. */
static void the_longest_index_is_text_and_back(void **state)
{
	struct sop_index_field f[SOP_INDEX_FIELDS] = {{0}}, g[SOP_INDEX_FIELDS];
	char names[4][SOP_INDEX_NAME_MAX + 1] = {{0}}, buf[SOP_STORE_INFO_BYTES],
					   text[SOP_STORE_INFO_BYTES];
	int len;

	(void)state;
	for (int i = 0; i < 4; i++) {
		memset(names[i], '/', SOP_INDEX_NAME_MAX);
		names[i][0] = (char)('a' + i);
		f[i] = (struct sop_index_field){names[i], true, SOP_FIELD_STRING};
	}
	len = sop_index_format(text, sizeof(text), f, 4);
	assert_in_range(len, 4 * 6 * (SOP_INDEX_NAME_MAX - 1), sizeof(text) - 1);
	if (sop_index_parse(g, SOP_INDEX_FIELDS, text, buf, sizeof(buf), &err) != 4)
		fail_msg("%s", err.text);
	for (int i = 0; i < 4; i++)
		assert_string_equal(g[i].name, names[i]);
}

/* What lies in a tree may be damaged: decoding never runs over, and never crashes. */
static void damaged_keys_are_found(void **state)
{
	struct sop_keying *k[] = {keying(SOP_KEY_INT64, true, NULL),
		keying(SOP_KEY_STRING, true, NULL), keying(SOP_KEY_JSON, false, "a,b:desc"),
		keying(SOP_KEY_FLOAT64, false, NULL)};
	uint64_t seed = 4;

	(void)state;
	for (unsigned i = 0; i < 40000; i++) {
		sop_autofree uint8_t *raw = NULL;
		char name[SOP_KEY_NAME_MAX];
		size_t len = next_random(&seed) % 40;

		raw = malloc(len ? len : 1); /* of this size, for the sanitizer to watch */
		assert_non_null(raw);
		fill_random(raw, len, next_random(&seed));
		for (size_t n = 0; n < len; n++)
			if (raw[n] > 8 && i & 1)
				raw[n] &= 7;
		(void)sop_key_name(name, k[i % 4], raw, len, NULL, 0, &err);
	}
	for (unsigned i = 0; i < 4; i++)
		sop_keying_put(k[i]);
}

/* The text of numbers does not depend on the program's locale. */
static void numbers_are_the_same_in_every_locale(void **state)
{
	struct sop_keying *k = keying(SOP_KEY_FLOAT64, false, NULL);
	struct sop_keybuf x;
	char name[SOP_KEY_NAME_MAX];
	int len;

	(void)state;
	if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
		(void)setlocale(LC_NUMERIC, "C"); /* then this shows nothing more than the others */
	assert_int_equal(sop_key_name_encode(&x, k, "1.5", 3, &err), 0);
	len = sop_key_name(name, k, x.key, x.len, NULL, 0, &err);
	name[len] = 0;
	assert_string_equal(name, "1.5");
	setlocale(LC_NUMERIC, "C");
	sop_keying_put(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_keep_their_order_and_come_back),
		cmocka_unit_test(doubles_have_a_total_order),
		cmocka_unit_test(names_are_taken_in_one_form_alone),
		cmocka_unit_test(a_key_of_another_type_is_an_error),
		cmocka_unit_test(maps_are_ordered_by_their_index),
		cmocka_unit_test(maps_come_back_whole),
		cmocka_unit_test(bad_maps_are_refused),
		cmocka_unit_test(duplicates_are_named_by_number),
		cmocka_unit_test(strings_with_numbers_keep_their_order),
		cmocka_unit_test(an_index_is_text_and_back),
		cmocka_unit_test(the_longest_index_is_text_and_back),
		cmocka_unit_test(damaged_keys_are_found),
		cmocka_unit_test(numbers_are_the_same_in_every_locale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
