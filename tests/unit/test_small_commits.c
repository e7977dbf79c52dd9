/* What small commits write, counted on the disks: journal, content, parity, and the share of a
 * checkpoint. And that what they write in little is applied as it was: after a crash at each of
 * them, on a record that it does not fit, in company. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "core/edit.h"
#include "core/engine.h"
#include "core/format_volume.h"
#include "tests/lib/scenario.h"

#define FILES  64
#define ROUNDS 16

static uint8_t bytes[8192];

static int setup(void **state)
{
	fill_random(bytes, sizeof(bytes), 1);
	return fixture_setup(state, 2, 2);
}

/* ---- as the daemon does it ---- */

struct many {
	struct fixture *f;
	uint64_t store;
	unsigned round;
};

static struct sop_name name_of(struct many *m, char key[16], const char *what, unsigned i)
{
	snprintf(key, 16, "%s%02u", what, i);
	return SOP_NAME(m->store, key);
}

static struct sop_attr now_of(struct many *m, unsigned i)
{
	struct sop_attr a = {.mode = S_IFREG | 0600};

	a.mtime = (struct timespec){1800000000 + m->round, (long)(i * 1234567 % 1000000000)};
	a.atime = a.ctime = a.btime = a.mtime;
	return a;
}

static void commit(struct fixture *f, struct sop_txn *t, int rc)
{
	fixture_ok(f, rc);
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
}

static void create_of(struct many *m, unsigned i, size_t len)
{
	struct sop_txn *t = fixture_begin(m->f, SOP_TXN_SESSION);
	struct sop_attr a = now_of(m, i);
	char key[16];

	commit(m->f, t, sop_create(t, name_of(m, key, "f", i), &a, bytes + i, len, NULL, &m->f->e));
}

static void write_of(struct many *m, unsigned i, unsigned flags, uint64_t off, size_t len)
{
	struct sop_txn *t = fixture_begin(m->f, SOP_TXN_SESSION);
	struct sop_attr a = now_of(m, i);
	struct sop_value *x;
	char key[16];
	struct sop_name name = name_of(m, key, "f", i);

	fixture_ok(m->f, sop_value_open(&x, t, name, SOP_VALUE_WRITE | flags, &m->f->e));
	assert_int_equal(
		sop_value_write(x, bytes + 7 * i + m->round, len, off, &m->f->e), (ssize_t)len);
	commit(m->f, t, sop_setattr(t, name, &a, SOP_ATTR_MTIME | SOP_ATTR_CTIME, &m->f->e));
}

static void create(struct many *m, unsigned i)
{
	char key[16];
	struct sop_txn *t;

	if (m->round) {
		t = fixture_begin(m->f, SOP_TXN_WRITE);
		commit(m->f, t, sop_remove(t, name_of(m, key, "f", i), &m->f->e));
	}
	(void)sim_take_counts(m->f->sim);
	create_of(m, i, 4096);
}

static void append(struct many *m, unsigned i)
{
	write_of(m, i, SOP_VALUE_APPEND, 0, 64);
}

static void overwrite(struct many *m, unsigned i)
{
	write_of(m, i, 0, 300, 64);
}

static void rename_(struct many *m, unsigned i, const char *from, const char *to)
{
	struct sop_txn *t = fixture_begin(m->f, SOP_TXN_WRITE);
	char a[16], b[16];

	commit(m->f, t, sop_rename(t, name_of(m, a, from, i), name_of(m, b, to, i), 0, &m->f->e));
}

static void rename_there_and_back(struct many *m, unsigned i)
{
	rename_(m, i, m->round & 1 ? "g" : "f", m->round & 1 ? "f" : "g");
}

static void chmod_(struct many *m, unsigned i)
{
	struct sop_txn *t = fixture_begin(m->f, SOP_TXN_WRITE);
	struct sop_attr a = now_of(m, i);
	char key[16];

	a.mode = S_IFREG | (0600 + m->round);
	commit(m->f, t,
		sop_setattr(
			t, name_of(m, key, "f", i), &a, SOP_ATTR_MODE | SOP_ATTR_CTIME, &m->f->e));
}

static void unlink_(struct many *m, unsigned i)
{
	struct sop_txn *t = fixture_begin(m->f, SOP_TXN_WRITE);
	char key[16];

	commit(m->f, t, sop_remove(t, name_of(m, key, "f", i), &m->f->e));
}

/* Of files of `size` bytes: what one costs, checkpoint and all; at most four times the payload and
 * 1 KiB. */
static void costs(void **state, const char *what, void (*fn)(struct many *m, unsigned i),
	size_t size, unsigned rounds, uint64_t payload)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	uint64_t written = 0, each;

	fixture_ok(f, fixture_store(f, what, &m.store));
	for (unsigned i = 0; i < FILES && size; i++)
		create_of(&m, i, size);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	(void)sim_take_counts(f->sim);
	for (m.round = 0; m.round < rounds; m.round++)
		for (unsigned i = 0; i < FILES; i++) {
			fn(&m, i);
			written += sim_take_counts(f->sim).write_bytes;
		}
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	written += sim_take_counts(f->sim).write_bytes;
	each = written / (rounds * FILES);
	print_message("%-28s %6llu bytes, %6llu allowed\n", what, (unsigned long long)each,
		(unsigned long long)(4 * payload + 1024));
	assert_in_range(each, 1, 4 * payload + 1024);
	fixture_settle(f);
}

static void a_small_commit_writes_four_times_the_payload_and_a_kilobyte(void **state)
{
	costs(state, "create of 4 KiB", create, 0, ROUNDS, 4096);
	costs(state, "append of 64 B", append, 4096, ROUNDS, 64);
	costs(state, "append of 64 B, empty at first", append, 1, 4 * ROUNDS, 64);
	costs(state, "overwrite of 64 B", overwrite, 1500, ROUNDS, 64);
	costs(state, "rename", rename_there_and_back, 4096, ROUNDS, 0);
	costs(state, "rename, content in the record", rename_there_and_back, 1500, ROUNDS, 0);
	costs(state, "chmod", chmod_, 4096, ROUNDS, 0);
	costs(state, "chmod, content in the record", chmod_, 1500, ROUNDS, 0);
	costs(state, "unlink", unlink_, 4096, 1, 0);
	costs(state, "unlink, content in the record", unlink_, 1500, 1, 0);
}

/* ---- what the journal says ---- */

/* Operations of each kind in the newest journal file. */
struct seen {
	char file[64];
	size_t size;
	unsigned ops[256];
};

static void newest_file(void *arg, const char *file, uint64_t size, uint64_t allocated)
{
	struct seen *s = arg;

	(void)allocated;
	if (!strncmp(file, "journal/0", 9) && strcmp(file, s->file) > 0) {
		snprintf(s->file, sizeof(s->file), "%s", file);
		s->size = (size_t)size;
	}
}

static int count_op(void *arg, enum sop_op_type type, unsigned flags, uint64_t store,
	const uint8_t *key, size_t klen, const uint8_t *val, size_t vlen)
{
	struct seen *s = arg;

	(void)flags;
	(void)store;
	(void)key;
	(void)klen;
	(void)val;
	(void)vlen;
	s->ops[type]++;
	return 0;
}

static struct seen journal(struct fixture *f)
{
	struct seen s = {0};
	struct sop_disk_record r;
	uint8_t *p;

	sim_each_file(f->sim, f->path[0], newest_file, &s);
	p = calloc(1, s.size);
	assert_int_equal(sim_peek(f->sim, f->path[0], s.file, 0, p, s.size), 0);
	for (size_t at = SOP_JOURNAL_HEADER; at + sizeof(r) < s.size; at += le32_get(r.len)) {
		memcpy(&r, p + at, sizeof(r));
		if (le32_get(r.magic) != SOP_RECORD_MAGIC || le32_get(r.len) > s.size - at)
			break;
		assert_int_equal(
			sop_ops_each(p + at + sizeof(r), le32_get(r.payload), count_op, &s, NULL),
			0);
	}
	free(p);
	return s;
}

static size_t record_of(struct fixture *f, uint64_t store, const char *key, uint8_t *buf)
{
	struct sop_state_view view;
	size_t len;

	fixture_ok(f, sop_stores_view(f->v->stores, store, SOP_LSN_LATEST, &view, &f->e));
	fixture_ok(f, sop_tree_record(f->v, &view.tree, SOP_LSN_LATEST, key, strlen(key), buf, &len,
			      &f->e));
	return len;
}

/* ---- replayed ---- */

/* Appends, changes of attributes, renames of an item whose content is in the record: all of them
 * are edits. After each the daemon dies, and the record is byte for byte what it was in memory; the
 * next is committed on top of what recovery made. */
static void a_replay_makes_the_record_that_the_commit_made(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	uint8_t want[SOP_ITEM_BYTES_MAX], got[SOP_ITEM_BYTES_MAX];

	fixture_ok(f, fixture_store(f, "s", &m.store));
	create_of(&m, 0, 500);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	for (m.round = 0; m.round < 40; m.round++) {
		const char *key = m.round % 8 == 5 ? "g00" : "f00";
		struct fixture g;
		struct many n = {.f = &g, .store = m.store, .round = m.round};
		size_t len;

		if (m.round % 8 == 3)
			chmod_(&m, 0);
		else if (m.round % 8 == 4)
			overwrite(&m, 0);
		else if (m.round % 8 == 5)
			rename_(&m, 0, "f", "g");
		else if (m.round % 8 == 6)
			rename_(&m, 0, "g", "f");
		else
			append(&m, 0);
		len = record_of(f, m.store, key, want);
		scenario_clone(&g, f, f->sim, m.round);
		fixture_ok(&g, fixture_open(&g));
		assert_int_equal(record_of(&g, m.store, key, got), len);
		assert_memory_equal(got, want, len);
		if (m.round % 8 != 5)
			append(&n, 0);
		fixture_settle(&g);
		fixture_release(&g);
	}
	assert_int_equal(journal(f).ops[SOP_OP_EDIT], 40);
	assert_int_equal(journal(f).ops[SOP_OP_PUT], 0);
	fixture_settle(f);
}

/* The inode moves to the index of directories, with its content; the names become links. */
static void a_second_name_moves_the_record_by_an_edit(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	struct sop_txn *t;
	struct fixture g;

	fixture_ok(f, fixture_store(f, "s", &m.store));
	create_of(&m, 0, 1500);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	commit(f, t, sop_link(t, SOP_NAME(m.store, "f00"), SOP_NAME(m.store, "h"), NULL, &f->e));
	assert_int_equal(journal(f).ops[SOP_OP_EDIT], 1);
	assert_int_equal(journal(f).ops[SOP_OP_PUT], 2);
	scenario_clone(&g, f, f->sim, 1);
	fixture_ok(&g, fixture_open(&g));
	assert_int_equal(fixture_has(&g, m.store, "f00", bytes, 1500), 1);
	assert_int_equal(fixture_has(&g, m.store, "h", bytes, 1500), 1);
	fixture_settle(&g);
	fixture_release(&g);
	fixture_settle(f);
}

/* Renamed over another, appended to and given attributes; two exchanged; a chain: in one
 * transaction. */
static void several_changes_in_one_transaction_are_one(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	struct sop_attr a;
	struct sop_txn *t;
	struct sop_value *x;
	struct fixture g;
	uint8_t want[1700];

	fixture_ok(f, fixture_store(f, "s", &m.store));
	for (unsigned i = 0; i < 6; i++)
		create_of(&m, i, 1500);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_rename(t, SOP_NAME(m.store, "f00"), SOP_NAME(m.store, "f01"), 0, &f->e));
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(m.store, "f01"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	assert_int_equal(sop_value_write(x, bytes, 100, 0, &f->e), 100);
	assert_int_equal(sop_value_write(x, bytes, 100, 0, &f->e), 100);
	a = now_of(&m, 5);
	fixture_ok(f, sop_setattr(t, SOP_NAME(m.store, "f01"), &a, SOP_ATTR_MTIME, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(m.store, "f02"), SOP_NAME(m.store, "f03"),
			      SOP_RENAME_EXCHANGE, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(m.store, "f05"), SOP_NAME(m.store, "f06"), 0, &f->e));
	fixture_ok(f, sop_rename(t, SOP_NAME(m.store, "f04"), SOP_NAME(m.store, "f05"), 0, &f->e));
	commit(f, t, 0);
	memcpy(want, bytes, 1500);
	memcpy(want + 1500, bytes, 100);
	memcpy(want + 1600, bytes, 100);
	/* f00 and f04 have moved; where the others were something else is put. */
	assert_int_equal(journal(f).ops[SOP_OP_EDIT], 2);
	scenario_clone(&g, f, f->sim, 1);
	fixture_ok(&g, fixture_open(&g));
	for (unsigned i = 0; i < 2; i++) {
		struct fixture *one = i ? &g : f;

		assert_int_equal(fixture_has(one, m.store, "f00", "", 0), 0);
		assert_int_equal(fixture_has(one, m.store, "f01", want, sizeof(want)), 1);
		assert_int_equal(fixture_has(one, m.store, "f02", bytes + 3, 1500), 1);
		assert_int_equal(fixture_has(one, m.store, "f03", bytes + 2, 1500), 1);
		assert_int_equal(fixture_has(one, m.store, "f04", "", 0), 0);
		assert_int_equal(fixture_has(one, m.store, "f05", bytes + 4, 1500), 1);
		assert_int_equal(fixture_has(one, m.store, "f06", bytes + 5, 1500), 1);
		fixture_settle(one);
	}
	fixture_release(&g);
}

/* What is prepared is done later, whatever a repair has made of its items by then. */
static void a_prepared_transaction_has_whole_records(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	struct sop_txn *t;
	struct sop_value *x;
	uint8_t want[1600];

	fixture_ok(f, fixture_store(f, "s", &m.store));
	create_of(&m, 0, 1500);
	fixture_ok(f, sop_volume_checkpoint(f->v, &f->e));
	t = fixture_begin(f, SOP_TXN_WRITE);
	fixture_ok(f, sop_value_open(&x, t, SOP_NAME(m.store, "f00"),
			      SOP_VALUE_WRITE | SOP_VALUE_APPEND, &f->e));
	assert_int_equal(sop_value_write(x, bytes, 100, 0, &f->e), 100);
	fixture_ok(f, sop_txn_prepare(t, &f->e));
	fixture_ok(f, sop_txn_commit(t, 0, &f->e));
	assert_int_equal(journal(f).ops[SOP_OP_EDIT], 0);
	memcpy(want, bytes, 1500);
	memcpy(want + 1500, bytes, 100);
	assert_int_equal(fixture_has(f, m.store, "f00", want, sizeof(want)), 1);
	fixture_settle(f);
}

/* ---- on something else ---- */

/* Another record in memory than the journal has made, as a fault would leave it. */
static void change_in_memory(struct fixture *f, uint64_t store, const char *key)
{
	uint8_t rec[SOP_ITEM_BYTES_MAX];
	size_t len = record_of(f, store, key, rec);

	rec[len - 1] ^= 1;
	sop_lock(&f->v->commit);
	sop_apply_begin(f->v, f->v->lsn_next - 1);
	fixture_ok(f, sop_apply_system(f->v, store, key, strlen(key), rec, len, &f->e));
	sop_apply_end(f->v);
	sop_unlock(&f->v->commit);
}

/* Another version of what is there, and nothing else. */
static size_t edit_of(struct fixture *f, uint64_t store, const char *key, uint8_t *raw, size_t room)
{
	uint8_t rec[SOP_ITEM_BYTES_MAX], to[SOP_ITEM_BYTES_MAX];
	size_t len = record_of(f, store, key, rec);
	struct sop_item it;
	int n;

	fixture_ok(f, sop_item_decode(&it, rec, len, &f->e));
	it.attr.version = f->v->lsn_next;
	n = sop_item_encode(to, &it);
	assert_true(n > 0);
	return sop_edit_encode(raw, room, &(struct sop_edit){0}, rec, len, to, (size_t)n);
}

static void refused(struct fixture *f, struct sop_buf *ops, const char *text)
{
	int rc;

	sop_lock(&f->v->commit);
	rc = sop_commit_locked(f->v, ops, &f->e);
	sop_unlock(&f->v->commit);
	assert_int_equal(rc, SOP_ECORRUPT);
	if (!strstr(f->e.text, text))
		fail_msg("not '%s' but: %s", text, f->e.text);
	sop_buf_release(ops);
}

/* It is looked at before the journal has it: the volume goes on. */
static void a_change_of_another_record_is_refused_before_it_is_written(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	uint8_t raw[SOP_ITEM_BYTES_MAX];
	struct sop_buf ops = {0};
	size_t len;

	fixture_ok(f, fixture_store(f, "s", &m.store));
	create_of(&m, 0, 300);
	len = edit_of(f, m.store, "f00", raw, sizeof(raw));
	append(&m, 0);
	sop_buf_op(&ops, SOP_OP_EDIT, 0, m.store, "f00", 3, raw, len);
	refused(f, &ops, "of which version");
	sop_buf_op(&ops, SOP_OP_EDIT, 0, m.store, "f01", 3, raw, len);
	refused(f, &ops, "of an item that is not there");
	sop_buf_op(&ops, SOP_OP_EDIT, 0, 12345, "f00", 3, raw, len);
	refused(f, &ops, "which is not there");
	sop_buf_op(&ops, SOP_OP_EDIT, 0, m.store, "f00", 3, raw, 7);
	refused(f, &ops, "change of a record");
	sop_buf_op(&ops, (enum sop_op_type)(SOP_OP_EDIT + 1), 0, m.store, "f00", 3, raw, len);
	refused(f, &ops, "operation of type 11, which there is not in format 1");
	append(&m, 0);
	fixture_reopen(f);
	fixture_settle(f);
}

/* A replay that meets another record than the commit did: damage, and said. fsck may go on with
 * what is left: an item is as before the change, if under its new name, and all else is there. */
static void a_replay_on_another_record_stops_the_mount(void **state)
{
	struct fixture *f = *state;
	struct many m = {.f = f};
	uint8_t want[364];
	struct fixture g;

	fixture_ok(f, fixture_store(f, "s", &m.store));
	create_of(&m, 0, 300);
	create_of(&m, 1, 300);
	create_of(&m, 2, 300);
	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	change_in_memory(f, m.store, "f00");
	change_in_memory(f, m.store, "f02");
	append(&m, 0);
	append(&m, 1);
	rename_(&m, 2, "f", "g");
	memcpy(want, bytes + 1, 300);
	memcpy(want + 300, bytes + 7, 64);
	assert_int_equal(journal(f).ops[SOP_OP_EDIT], 3);
	for (unsigned synced = 0; synced < 2; synced++) {
		if (synced)
			fixture_ok(f, sop_volume_sync(f->v, &f->e));
		scenario_clone(&g, f, f->sim, 1);
		assert_int_equal(fixture_open(&g), SOP_ECORRUPT);
		if (!strstr(g.e.text, "journal record") || !strstr(g.e.text, "has other bytes"))
			fail_msg("%s", g.e.text);
		g.opts.part_journal = true;
		fixture_ok(&g, fixture_open(&g));
		assert_int_equal(fixture_has(&g, m.store, "f00", bytes, 300), 1);
		assert_int_equal(fixture_has(&g, m.store, "f01", want, sizeof(want)), 1);
		assert_int_equal(fixture_has(&g, m.store, "f02", "", 0), 0);
		assert_int_equal(fixture_has(&g, m.store, "g02", bytes + 2, 300), 1);
		fixture_settle(&g);
		fixture_release(&g);
	}
}

/* What verifies and cannot be understood is no torn end, also where no barrier covers it. */
static void a_record_with_an_unknown_operation_stops_the_mount(void **state)
{
	struct fixture *f = *state;
	struct sop_record_in in = {.type = SOP_RECORD_TXN};
	struct sop_buf ops = {0};
	struct sop_batch *b;
	struct fixture g;

	fixture_ok(f, sop_volume_sync(f->v, &f->e));
	sop_buf_op(&ops, (enum sop_op_type)77, 0, 16, "x", 1, "y", 1);
	sop_lock(&f->v->commit);
	b = sop_batch_new(f->v->io);
	in.lsn = f->v->lsn_next;
	in.next_ino = f->v->next_ino;
	in.payload = ops.p;
	in.payload_len = ops.len;
	fixture_ok(f, sop_journal_prepare(f->v->journal, &in, 1, 0, b, &f->e));
	sop_batch_run(b, SOP_IO_SERIAL, 0, 1000);
	fixture_ok(f, sop_journal_finish(f->v->journal, &f->e));
	sop_batch_put(b);
	sop_unlock(&f->v->commit);
	sop_buf_release(&ops);
	scenario_clone(&g, f, f->sim, 1);
	assert_int_equal(fixture_open(&g), SOP_ECORRUPT);
	if (!strstr(g.e.text, "operation of type 77"))
		fail_msg("%s", g.e.text);
	fixture_release(&g);
}

/* The tests that cut a volume at every step have edits in their alphabet. */
static void the_alphabet_of_the_crash_tests_has_edits(void **state)
{
	static const char *const edits[] = {
		"append-small", "overwrite-small", "rename-small", "rename-over", "several"};

	(void)state;
	for (size_t i = 0; i < SOP_ARRAY_LEN(edits); i++) {
		int op = scenario_find(edits[i]);
		struct fixture f;

		assert_true(op >= 0);
		scenario_make(&f, 2, 1, NULL);
		fixture_ok(&f, fixture_open(&f));
		fixture_ok(&f, scenario_run(&f, (unsigned)op, 3, 0));
		if (!journal(&f).ops[SOP_OP_EDIT])
			fail_msg("%s writes no edit", edits[i]);
		fixture_release(&f);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		T(a_small_commit_writes_four_times_the_payload_and_a_kilobyte),
		T(a_replay_makes_the_record_that_the_commit_made),
		T(a_second_name_moves_the_record_by_an_edit),
		T(several_changes_in_one_transaction_are_one),
		T(a_prepared_transaction_has_whole_records),
		T(a_change_of_another_record_is_refused_before_it_is_written),
		T(a_replay_on_another_record_stops_the_mount),
		T(a_record_with_an_unknown_operation_stops_the_mount),
		cmocka_unit_test(the_alphabet_of_the_crash_tests_has_edits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
