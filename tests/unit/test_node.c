/* Pages: random changes against a plain array of entries, and the packed form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/node.h"

static uint64_t rng;

static uint64_t draw(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* ---- a model of a page: sorted entries ---- */

#define MODEL_MAX 400

struct entry {
	uint8_t key[SOP_KEY_MAX];
	uint8_t val[SOP_VALUE_MAX];
	size_t klen, vlen;
};

struct model {
	struct entry *e[MODEL_MAX];
	unsigned count;
};

static void model_clear(struct model *m)
{
	while (m->count)
		free(m->e[--m->count]);
}

static struct entry *entry_random(unsigned level)
{
	struct entry *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	x->klen = draw(20) ? 1 + draw(12) : 1 + draw(SOP_KEY_MAX);
	x->vlen = level ? 8 : draw(20) ? draw(60) : draw(SOP_VALUE_MAX + 1);
	for (size_t i = 0; i < x->klen; i++)
		x->key[i] = (uint8_t)(draw(3) ? draw(4) : draw(256));
	for (size_t i = 0; i < x->vlen; i++)
		x->val[i] = (uint8_t)(1 + draw(255));
	return x;
}

static unsigned model_search(const struct model *m, const void *key, size_t klen, bool *exact)
{
	unsigned i = 0;

	*exact = false;
	while (i < m->count && sop_bytes_cmp(m->e[i]->key, m->e[i]->klen, key, klen) < 0)
		i++;
	if (i < m->count)
		*exact = sop_bytes_cmp(m->e[i]->key, m->e[i]->klen, key, klen) == 0;
	return i;
}

static void model_insert(struct model *m, unsigned slot, struct entry *x)
{
	memmove(&m->e[slot + 1], &m->e[slot], (m->count - slot) * sizeof(m->e[0]));
	m->e[slot] = x;
	m->count++;
}

static void model_delete(struct model *m, unsigned slot, unsigned level)
{
	free(m->e[slot]);
	m->count--;
	memmove(&m->e[slot], &m->e[slot + 1], (m->count - slot) * sizeof(m->e[0]));
	if (level && !slot && m->count)
		m->e[0]->klen = 0;
}

static void assert_same(const struct sop_page *p, const struct model *m)
{
	size_t bytes = sizeof(struct sop_disk_node);

	assert_int_equal(sop_page_count(p), m->count);
	for (unsigned i = 0; i < m->count; i++) {
		size_t klen, vlen;
		const void *key = sop_page_key(p, i, &klen);
		const void *val = sop_page_value(p, i, &vlen);

		assert_int_equal(klen, m->e[i]->klen);
		assert_int_equal(vlen, m->e[i]->vlen);
		assert_memory_equal(key, m->e[i]->key, klen);
		assert_memory_equal(val, m->e[i]->val, vlen);
		assert_int_equal(sop_page_entry_bytes(p, i), sop_page_entry_size(klen, vlen));
		bytes += sop_page_entry_size(klen, vlen);
	}
	assert_int_equal(sop_page_bytes(p), bytes);
	assert_true(sop_page_memory(p) >= bytes - sizeof(struct sop_disk_node));
}

static void *pack(const struct sop_page *p, uint64_t lsn, size_t *len)
{
	void *raw;

	*len = sop_page_bytes(p);
	raw = malloc(*len);
	assert_non_null(raw);
	sop_page_encode(p, raw, lsn, true);
	return raw;
}

static void assert_packs(const struct sop_page *p, const struct model *m)
{
	struct sop_page *again;
	uint64_t lsn;
	size_t len;
	void *raw = pack(p, 77, &len);

	assert_int_equal(sop_page_decode(&again, raw, len, &lsn, NULL), 0);
	free(raw);
	assert_int_equal(lsn, 77);
	assert_int_equal(sop_page_handle(again), sop_page_handle(p));
	assert_int_equal(sop_page_store(again), sop_page_store(p));
	assert_int_equal(sop_page_level(again), sop_page_level(p));
	assert_same(again, m);
	sop_page_free(again);
}

static void step_insert_or_replace(struct sop_page **p, struct model *m, unsigned level)
{
	struct entry *x = entry_random(level);
	bool exact, model_exact;
	unsigned slot = sop_page_search(*p, x->key, x->klen, &exact);

	assert_int_equal(slot, model_search(m, x->key, x->klen, &model_exact));
	assert_int_equal(exact, model_exact);
	if (level && !m->count)
		x->klen = 0;
	if (exact) {
		assert_int_equal(sop_page_replace(p, slot, x->val, x->vlen), 0);
		memcpy(m->e[slot]->val, x->val, x->vlen);
		m->e[slot]->vlen = x->vlen;
		free(x);
	} else if (m->count < MODEL_MAX) {
		assert_int_equal(sop_page_insert(p, slot, x->key, x->klen, x->val, x->vlen), 0);
		model_insert(m, slot, x);
	} else {
		free(x);
	}
}

static void step_split_and_merge(struct sop_page **p, struct model *m, unsigned level)
{
	unsigned from = 1 + (unsigned)draw(m->count - 1);
	struct sop_page *right = sop_page_new(6, 9, level, draw(2) ? 0 : 100000);
	struct model rm = {.count = m->count - from};
	size_t slen = m->e[from]->klen;

	assert_non_null(right);
	assert_int_equal(sop_page_split(*p, &right, from), 0);
	memcpy(rm.e, &m->e[from], rm.count * sizeof(rm.e[0]));
	m->count = from;
	if (level)
		rm.e[0]->klen = 0;
	assert_same(*p, m);
	assert_same(right, &rm);
	assert_packs(right, &rm);

	assert_int_equal(sop_page_merge(p, right, rm.e[0]->key, slen), 0);
	rm.e[0]->klen = slen;
	memcpy(&m->e[from], rm.e, rm.count * sizeof(rm.e[0]));
	m->count += rm.count;
	sop_page_free(right);
}

static void random_changes(unsigned level, uint64_t seed)
{
	struct sop_page *p = sop_page_new(5, 9, level, 0);
	struct model m = {.count = 0};

	print_message("seed %llu\n", (unsigned long long)seed);
	rng = seed;
	assert_non_null(p);
	for (unsigned i = 0; i < 6000; i++) {
		switch (draw(i / 1000 % 2 ? 5 : 12)) {
		case 0:
		case 1:
		case 2:
			if (m.count > 1) {
				unsigned slot = (unsigned)draw(m.count);

				sop_page_delete(p, slot);
				model_delete(&m, slot, level);
			}
			break;
		case 3:
			if (m.count > 2 && !draw(4))
				step_split_and_merge(&p, &m, level);
			break;
		default:
			step_insert_or_replace(&p, &m, level);
			break;
		}
		if (i % 16 == 0)
			assert_same(p, &m);
		if (i % 256 == 0)
			assert_packs(p, &m);
	}
	model_clear(&m);
	sop_page_free(p);
}

static void page_leaf_is_like_a_sorted_array(void **state)
{
	(void)state;
	random_changes(0, 20231);
	random_changes(0, 7);
}

static void page_inner_is_like_a_sorted_array_whose_first_key_is_empty(void **state)
{
	(void)state;
	random_changes(3, 99);
}

static void page_clone_is_not_touched_by_later_changes(void **state)
{
	struct sop_page *p = sop_page_new(1, 2, 0, 0);
	struct sop_page *c;
	size_t len;

	(void)state;
	assert_int_equal(sop_page_insert(&p, 0, "b", 1, "one", 3), 0);
	c = sop_page_clone(p);
	assert_non_null(c);
	assert_int_equal(sop_page_replace(&p, 0, "two", 3), 0);
	assert_int_equal(sop_page_insert(&p, 0, "a", 1, "zero", 4), 0);
	assert_int_equal(sop_page_count(c), 1);
	assert_memory_equal(sop_page_value(c, 0, &len), "one", 3);
	sop_page_free(c);
	sop_page_free(p);
}

static void page_reserve_makes_room_that_an_insert_uses_in_place(void **state)
{
	struct sop_page *p = sop_page_new(1, 2, 0, 0);
	struct sop_page *before;
	char val[3000] = {1};

	(void)state;
	assert_int_equal(sop_page_insert(&p, 0, "k", 1, "v", 1), 0);
	assert_int_equal(sop_page_reserve(&p, sop_page_entry_size(1, sizeof(val)), 1), 0);
	before = p;
	assert_int_equal(sop_page_insert(&p, 1, "l", 1, val, sizeof(val)), 0);
	assert_ptr_equal(p, before);
	sop_page_free(p);
}

static void page_child_slot_is_the_last_separator_not_above_the_key(void **state)
{
	struct sop_page *p = sop_page_new(1, 2, 1, 0);
	struct le64 child[3] = {le64_make(11), le64_make(12), le64_make(13)};

	(void)state;
	assert_int_equal(sop_page_insert(&p, 0, "", 0, &child[0], 8), 0);
	assert_int_equal(sop_page_insert(&p, 1, "d", 1, &child[1], 8), 0);
	assert_int_equal(sop_page_insert(&p, 2, "m", 1, &child[2], 8), 0);
	assert_int_equal(sop_page_child_slot(p, "", 0), 0);
	assert_int_equal(sop_page_child_slot(p, "c~", 2), 0);
	assert_int_equal(sop_page_child_slot(p, "d", 1), 1);
	assert_int_equal(sop_page_child_slot(p, "da", 2), 1);
	assert_int_equal(sop_page_child_slot(p, "z", 1), 2);
	assert_int_equal(sop_page_child(p, 2), 13);
	sop_page_delete(p, 0);
	assert_int_equal(sop_page_child_slot(p, "a", 1), 0);
	assert_int_equal(sop_page_child(p, 0), 12);
	sop_page_free(p);
}

static void page_run_tells_ascending_from_descending_inserts(void **state)
{
	struct sop_page *p = sop_page_new(1, 2, 0, 0);

	(void)state;
	assert_int_equal(sop_page_run(p, 0), 0);
	assert_int_equal(sop_page_insert(&p, 0, "m", 1, "", 0), 0);
	assert_int_equal(sop_page_run(p, 1), 1);
	assert_int_equal(sop_page_run(p, 0), -1);
	assert_int_equal(sop_page_insert(&p, 1, "n", 1, "", 0), 0);
	assert_int_equal(sop_page_insert(&p, 0, "a", 1, "", 0), 0);
	assert_int_equal(sop_page_run(p, 3), 0);
	sop_page_free(p);
}

static struct sop_page *some_leaf(void)
{
	struct sop_page *p = sop_page_new(5, 9, 0, 0);

	assert_int_equal(sop_page_insert(&p, 0, "aa", 2, "value", 5), 0);
	assert_int_equal(sop_page_insert(&p, 1, "bb", 2, "", 0), 0);
	assert_int_equal(sop_page_insert(&p, 2, "cc", 2, "x", 1), 0);
	return p;
}

static int decode_rc(const void *raw, size_t len)
{
	struct sop_page *p = NULL;
	uint64_t lsn;
	/* A block of its own, so that a sanitizer sees a read beyond it. */
	void *copy = malloc(len ? len : 1);
	int rc;

	assert_non_null(copy);
	memcpy(copy, raw, len);
	rc = sop_page_decode(&p, copy, len, &lsn, NULL);
	free(copy);
	if (rc)
		assert_null(p);
	sop_page_free(p);
	return rc;
}

static void page_decode_refuses_every_shorter_piece(void **state)
{
	struct sop_page *p = some_leaf();
	size_t len;
	uint8_t *raw = pack(p, 1, &len);

	(void)state;
	assert_int_equal(decode_rc(raw, len), 0);
	for (size_t n = 0; n < len; n++) {
		struct le32 bytes = le32_make((uint32_t)n);

		assert_int_equal(decode_rc(raw, n), SOP_ECORRUPT);
		/* Also when the header agrees with the length. */
		memcpy(raw + offsetof(struct sop_disk_node, bytes), &bytes, 4);
		assert_int_equal(decode_rc(raw, n), SOP_ECORRUPT);
	}
	free(raw);
	sop_page_free(p);
}

static void page_decode_survives_every_changed_byte(void **state)
{
	static const uint8_t changes[] = {0x01, 0x80, 0xff, 0x10};
	struct sop_page *p = some_leaf();
	size_t len;
	uint8_t *raw = pack(p, 1, &len);

	(void)state;
	for (size_t i = 0; i < len; i++)
		for (size_t c = 0; c < SOP_ARRAY_LEN(changes); c++) {
			raw[i] ^= changes[c];
			(void)decode_rc(raw, len);
			raw[i] ^= changes[c];
		}
	free(raw);
	sop_page_free(p);
}

static void page_decode_refuses_what_it_does_not_know(void **state)
{
	struct sop_page *p = some_leaf();
	struct sop_disk_node h;
	size_t len;
	uint8_t *raw = pack(p, 1, &len);

	(void)state;
	memcpy(&h, raw, sizeof(h));
	h.magic[0] = 'X';
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	h.magic[0] = 'S';
	h.version = 2;
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_EVERSION);
	h.version = 1;
	h.flags = 2;
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	h.flags = 0;
	h.count = le32_make(UINT32_MAX);
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	h.count = le32_make(2);
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	h.count = le32_make(3);
	h.level = 1; /* values are no handles */
	memcpy(raw, &h, sizeof(h));
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	sop_page_free(p);
}

static void page_decode_refuses_keys_out_of_order_and_doubled(void **state)
{
	struct sop_page *p = sop_page_new(5, 9, 0, 0);
	size_t len;
	uint8_t *raw;

	(void)state;
	assert_int_equal(sop_page_insert(&p, 0, "b", 1, "", 0), 0);
	assert_int_equal(sop_page_insert(&p, 1, "a", 1, "", 0), 0);
	raw = pack(p, 1, &len);
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	sop_page_delete(p, 1);
	assert_int_equal(sop_page_insert(&p, 1, "b", 1, "", 0), 0);
	raw = pack(p, 1, &len);
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	sop_page_free(p);
}

static void page_decode_refuses_inner_pages_without_children(void **state)
{
	struct sop_page *p = sop_page_new(5, 9, 1, 0);
	struct le64 none = le64_make(0);
	struct le64 child = le64_make(4);
	size_t len;
	uint8_t *raw = pack(p, 1, &len);

	(void)state;
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	assert_int_equal(sop_page_insert(&p, 0, "", 0, &none, 8), 0);
	raw = pack(p, 1, &len);
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	sop_page_delete(p, 0);
	assert_int_equal(sop_page_insert(&p, 0, "k", 1, &child, 8), 0);
	raw = pack(p, 1, &len);
	assert_int_equal(decode_rc(raw, len), SOP_ECORRUPT);
	free(raw);
	sop_page_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_leaf_is_like_a_sorted_array),
		cmocka_unit_test(page_inner_is_like_a_sorted_array_whose_first_key_is_empty),
		cmocka_unit_test(page_clone_is_not_touched_by_later_changes),
		cmocka_unit_test(page_reserve_makes_room_that_an_insert_uses_in_place),
		cmocka_unit_test(page_child_slot_is_the_last_separator_not_above_the_key),
		cmocka_unit_test(page_run_tells_ascending_from_descending_inserts),
		cmocka_unit_test(page_decode_refuses_every_shorter_piece),
		cmocka_unit_test(page_decode_survives_every_changed_byte),
		cmocka_unit_test(page_decode_refuses_what_it_does_not_know),
		cmocka_unit_test(page_decode_refuses_keys_out_of_order_and_doubled),
		cmocka_unit_test(page_decode_refuses_inner_pages_without_children),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
