#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/lib/scenario_own.h"

#define BIG	70000u
#define STREAM	((1u << 20) + 300000u) /* more than a session keeps in memory */
#define PIECES	20u		       /* more extents than a record holds */
#define PIECE	3000u
#define STRIDE	10000u
#define ENTRIES 12u

static uint8_t bytes[STREAM];

/* ---- parts of operations ---- */

static struct sop_name root(const char *name)
{
	return SOP_NAME(SOP_ROOT, name);
}

static const struct sop_attr file_attr = {.mode = S_IFREG | 0644, .uid = 7, .gid = 8};

static int create(struct run *r, const char *name, size_t len)
{
	fill_random(bytes, len, r->salt);
	return sop_create(r->t, root(name), &file_attr, bytes, len, NULL, r->e);
}

int scenario_store_of(struct run *r, const char *name, uint64_t *store)
{
	struct sop_attr a;
	int rc = sop_lookup(r->t, root(name), &a, r->e);

	*store = a.ino;
	return rc ? rc : S_ISDIR(a.mode) ? 0 : -ENOTDIR;
}

static int write_at(struct run *r, const char *name, unsigned flags, uint64_t off, size_t len)
{
	struct sop_value *x;
	ssize_t n;
	int rc = sop_value_open(&x, r->t, root(name), SOP_VALUE_WRITE | flags, r->e);

	if (rc)
		return rc;
	fill_random(bytes, len, r->salt + off);
	n = sop_value_write(x, bytes, len, off, r->e);
	sop_value_close(x);
	if (n >= 0 && (size_t)n < len)
		n = r->e->code;
	return n < 0 ? (int)n : 0;
}

static int resize(struct run *r, const char *name, uint64_t size)
{
	struct sop_value *x;
	int rc = sop_value_open(&x, r->t, root(name), SOP_VALUE_WRITE, r->e);

	if (rc)
		return rc;
	rc = sop_value_truncate(x, size, r->e);
	sop_value_close(x);
	return rc;
}

static int scatter(struct run *r, const char *name)
{
	struct sop_value *x;
	ssize_t n = 0;
	int rc = sop_value_open(&x, r->t, root(name), SOP_VALUE_WRITE, r->e);

	if (rc)
		return rc;
	for (unsigned i = 0; i < PIECES && n >= 0; i++) {
		fill_random(bytes, PIECE, r->salt + i);
		n = sop_value_write(x, bytes, PIECE, (uint64_t)i * STRIDE, r->e);
	}
	sop_value_close(x);
	return n < 0 ? (int)n : 0;
}

static int entries(struct run *r, uint64_t store, unsigned from, unsigned to)
{
	int rc = 0;

	for (unsigned i = from; i < to && !rc; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%02u", i);
		fill_random(bytes, 40, r->salt + i);
		rc = sop_add(r->t, SOP_NAME(store, key), bytes, 40, r->e);
	}
	return rc;
}

/* ---- the alphabet: within a transaction ---- */

static int create_small(struct run *r)
{
	return create(r, "new", 10);
}

static int create_big(struct run *r)
{
	return create(r, "new", BIG);
}

static int create_stream(struct run *r)
{
	int rc = create(r, "new", 0);

	return rc ? rc : write_at(r, "new", 0, 0, STREAM);
}

static int overwrite_small(struct run *r)
{
	return write_at(r, "small", 0, 3, 5);
}

static int overwrite_one(struct run *r)
{
	return write_at(r, "one", 0, 2000, 100);
}

static int overwrite_big(struct run *r)
{
	return write_at(r, "big", 0, 30000, 5000);
}

static int overwrite_tree(struct run *r)
{
	return write_at(r, "tree", 0, STRIDE + 1000, STRIDE);
}

static int read_and_write(struct run *r)
{
	struct sop_value *x;
	ssize_t n;
	int rc = sop_value_open(&x, r->t, root("one"), SOP_VALUE_WRITE, r->e);

	if (rc)
		return rc;
	n = sop_value_read(x, bytes, 4000, 100, r->e);
	if (n > 0)
		n = sop_value_write(x, bytes, (size_t)n, 3000, r->e);
	sop_value_close(x);
	return n < 0 ? (int)n : 0;
}

static int scatter_one(struct run *r)
{
	return scatter(r, "one");
}

static int append_small(struct run *r)
{
	return write_at(r, "small", SOP_VALUE_APPEND, 0, 20);
}

static int append_big(struct run *r)
{
	return write_at(r, "big", SOP_VALUE_APPEND, 0, 9000);
}

static int append_tree(struct run *r)
{
	return write_at(r, "tree", SOP_VALUE_APPEND, 0, 9000);
}

static int empty_big(struct run *r)
{
	return resize(r, "big", 0);
}

static int shrink_big(struct run *r)
{
	return resize(r, "big", 33333);
}

static int shrink_tree(struct run *r)
{
	return resize(r, "tree", 5 * STRIDE + 1000);
}

static int extend_small(struct run *r)
{
	return resize(r, "small", 200000);
}

static int rewrite_big(struct run *r)
{
	return write_at(r, "big", SOP_VALUE_TRUNC, 0, 4000);
}

static int rewrite_tree(struct run *r)
{
	return write_at(r, "tree", SOP_VALUE_TRUNC, 0, 100);
}

static int punch_big(struct run *r)
{
	struct sop_value *x;
	int rc = sop_value_open(&x, r->t, root("big"), SOP_VALUE_WRITE, r->e);

	if (rc)
		return rc;
	rc = sop_value_punch(x, 10000, 30000, r->e);
	sop_value_close(x);
	return rc;
}

static int rename_small(struct run *r)
{
	return sop_rename(r->t, root("small"), root("renamed"), 0, r->e);
}

static int rename_over(struct run *r)
{
	return sop_rename(r->t, root("small"), root("one"), 0, r->e);
}

static int rename_over_tree(struct run *r)
{
	return sop_rename(r->t, root("big"), root("tree"), 0, r->e);
}

static int rename_keep(struct run *r)
{
	return sop_rename(r->t, root("one"), root("big"), SOP_RENAME_NOREPLACE, r->e);
}

static int exchange(struct run *r)
{
	return sop_rename(r->t, root("small"), root("big"), SOP_RENAME_EXCHANGE, r->e);
}

static int exchange_dir(struct run *r)
{
	return sop_rename(r->t, root("d"), root("one"), SOP_RENAME_EXCHANGE, r->e);
}

static int rename_dir(struct run *r)
{
	return sop_rename(r->t, root("d"), root("d2"), 0, r->e);
}

static int move_big(struct run *r)
{
	uint64_t d;
	int rc = scenario_store_of(r, "d", &d);

	return rc ? rc : sop_rename(r->t, root("big"), SOP_NAME(d, "big"), 0, r->e);
}

static int move_dir(struct run *r)
{
	uint64_t d;
	int rc = scenario_store_of(r, "d", &d);

	return rc ? rc : sop_rename(r->t, root("e"), SOP_NAME(d, "e"), 0, r->e);
}

static int link_big(struct run *r)
{
	return sop_link(r->t, root("big"), root("ln"), NULL, r->e);
}

static int unlink_small(struct run *r)
{
	return sop_remove(r->t, root("small"), r->e);
}

static int unlink_big(struct run *r)
{
	return sop_remove(r->t, root("big"), r->e);
}

static int unlink_tree(struct run *r)
{
	return sop_remove(r->t, root("tree"), r->e);
}

static int unlink_linked(struct run *r)
{
	return sop_remove(r->t, root("l1"), r->e);
}

static int make_dir(struct run *r)
{
	return sop_store_create(r->t, root("nd"), NULL, NULL, NULL, r->e);
}

static int make_dir_deep(struct run *r)
{
	uint64_t store;
	int rc = sop_store_at(r->t, "p/q/r", SOP_STORE_CREATE, NULL, &store, r->e);

	return rc ? rc : sop_add(r->t, SOP_NAME(store, "leaf"), "x", 1, r->e);
}

static int remove_dir(struct run *r)
{
	return sop_store_remove(r->t, root("e"), r->e);
}

static int xattr_small(struct run *r)
{
	return sop_xattr_set(r->t, root("one"), "user.a", "value", 5, 0, r->e);
}

static int xattr_big(struct run *r)
{
	fill_random(bytes, 6000, r->salt);
	return sop_xattr_set(r->t, root("xa"), "user.big", bytes, 6000, 0, r->e);
}

static int xattr_remove(struct run *r)
{
	return sop_xattr_remove(r->t, root("xa"), "user.old", r->e);
}

static int set_attr(struct run *r)
{
	struct sop_attr a = {.mode = 0600, .uid = 99, .mtime = {1234567890, 42}};

	return sop_setattr(
		r->t, root("one"), &a, SOP_ATTR_MODE | SOP_ATTR_UID | SOP_ATTR_MTIME, r->e);
}

static int set_attr_dir(struct run *r)
{
	struct sop_attr a = {.mode = 0700, .mtime = {1234567890, 42}};

	return sop_setattr(r->t, root("d"), &a, SOP_ATTR_MODE | SOP_ATTR_MTIME, r->e);
}

static int upsert_plain(struct run *r)
{
	fill_random(bytes, 5000, r->salt);
	return sop_upsert(r->t, root("plain"), bytes, 5000, r->e);
}

static int remove_plain(struct run *r)
{
	return sop_remove(r->t, root("plain"), r->e);
}

static int add_entries(struct run *r)
{
	uint64_t s;
	int rc = scenario_store_of(r, "s", &s);

	return rc ? rc : entries(r, s, ENTRIES, 2 * ENTRIES);
}

static int remove_entries(struct run *r)
{
	uint64_t s;
	int rc = scenario_store_of(r, "s", &s);

	for (unsigned i = 0; i < ENTRIES && !rc; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%02u", i);
		rc = sop_remove(r->t, SOP_NAME(s, key), r->e);
	}
	return rc;
}

static int several(struct run *r)
{
	int rc = create(r, "m1", 3000);

	if (!rc)
		rc = sop_upsert(r->t, root("plain"), "together", 8, r->e);
	if (!rc)
		rc = sop_rename(r->t, root("xa"), root("m2"), 0, r->e);
	if (!rc)
		rc = sop_remove(r->t, root("sym"), r->e);
	return rc;
}

/* Share a range of one value with another, by reference. */
static int copy_range(
	struct run *r, const char *from, uint64_t at, size_t len, const char *to, uint64_t off)
{
	struct sop_value *x;
	struct sop_clip *c;
	ssize_t n;
	int rc = sop_value_open(&x, r->t, root(from), 0, r->e);

	if (rc)
		return rc;
	rc = sop_clip_take(&c, x, at, len, r->e);
	sop_value_close(x);
	if (rc)
		return rc;
	rc = sop_value_open(&x, r->t, root(to), SOP_VALUE_WRITE, r->e);
	if (!rc) {
		n = sop_clip_put(x, c, off, r->e);
		sop_value_close(x);
		/* Short: what came in between is told by a message alone. */
		if (n >= 0 && (uint64_t)n < sop_clip_len(c))
			n = r->e->code;
		rc = n < 0 ? (int)n : 0;
	}
	sop_clip_free(c);
	return rc;
}

static int share_big(struct run *r)
{
	return copy_range(r, "big", 10000, 50000, "one", 3000);
}

static int share_within(struct run *r)
{
	return copy_range(r, "big", 0, 20000, "big", 40000);
}

static int share_tree(struct run *r)
{
	return copy_range(r, "tree", 5000, 90000, "big", 1000);
}

/* ---- the alphabet: on the volume ---- */

static int rollback_stream(struct run *r)
{
	(void)write_at(r, "big", 0, 100, STREAM);
	return -ECANCELED;
}

static int rollback_small(struct run *r)
{
	int rc = create(r, "new", 10);

	return rc ? rc : -ECANCELED;
}

static int prepare_commit(struct run *r)
{
	int rc = create(r, "pc", 4000);

	return rc ? rc : sop_txn_prepare(r->t, r->e);
}

static int prepare_rollback(struct run *r)
{
	int rc = create(r, "pr", 4000);

	if (!rc)
		rc = sop_txn_prepare(r->t, r->e);
	return rc ? rc : -ECANCELED;
}

/* As another program would, by number: the handle goes without having resolved it. */
static int by_number(struct fixture *f, bool commit)
{
	struct run r = {.f = f, .e = &f->e, .salt = 77};
	int rc = sop_txn_begin(&r.t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &f->e);

	if (rc)
		return rc;
	rc = create(&r, "pn", 4000);
	if (!rc)
		rc = sop_txn_prepare(r.t, r.e);
	if (!rc && commit)
		rc = sop_prepared_commit(f->v, sop_txn_id(r.t), 0, r.e);
	else if (!rc)
		rc = sop_prepared_rollback(f->v, sop_txn_id(r.t), r.e);
	sop_txn_rollback(r.t);
	return rc;
}

static int act_number_commit(struct fixture *f)
{
	return by_number(f, true);
}

static int act_number_rollback(struct fixture *f)
{
	return by_number(f, false);
}

static int act_sync(struct fixture *f)
{
	return sop_volume_sync(f->v, &f->e);
}

static int act_checkpoint(struct fixture *f)
{
	return sop_volume_checkpoint(f->v, &f->e);
}

static int act_tick(struct fixture *f)
{
	return sop_volume_tick(f->v, &f->e);
}

static bool labelled(struct fixture *f, const char *disk)
{
	struct sop_disk *d;
	char magic[8];

	if (sim_open_disk(f->sim, &d, disk, NULL))
		return false;
	sop_disk_close(d);
	return (!sim_peek(f->sim, disk, "label.0", 0, magic, 8) && !memcmp(magic, "SOPLABEL", 8)) ||
	       (!sim_peek(f->sim, disk, "label.1", 0, magic, 8) && !memcmp(magic, "SOPLABEL", 8));
}

static size_t members(struct fixture *f, const char *given[FIXTURE_DISKS + 1])
{
	size_t n = 0;

	for (unsigned i = 0; i < f->disks; i++)
		if (labelled(f, f->path[i]))
			given[n++] = f->path[i];
	if (!n)
		given[n++] = SCENARIO_SPARE;
	return n;
}

int scenario_open(struct fixture *f)
{
	const char *given[FIXTURE_DISKS + 1];
	size_t n = members(f, given);

	memset(&f->e, 0, sizeof(f->e));
	return sop_volume_open(&f->v, given, n, &f->opts, &f->e);
}

int scenario_scrub_alone(struct fixture *f)
{
	int rc = fixture_close(f);

	f->opts.exclusive = true;
	if (!rc)
		rc = scenario_open(f);
	f->opts.exclusive = false;
	if (!rc)
		rc = sop_scrub_start(f->v, 0, &f->e);
	return rc ? rc : sop_volume_tick(f->v, &f->e);
}

static void tell_finding(void *arg, const struct sop_finding *x)
{
	(void)arg;
	if (x->state != SOP_FOUND_NOTE)
		fprintf(stderr, "fsck: %d: %s at %llu+%llu: %s. %s\n", (int)x->state, x->object,
			(unsigned long long)x->off, (unsigned long long)x->len, x->what, x->next);
}

static void mute(void *arg, const struct sop_finding *x)
{
	(void)arg;
	(void)x;
}

int scenario_fsck(struct fixture *f, bool repair, bool tell, struct sop_fsck_report *out)
{
	const char *given[FIXTURE_DISKS + 1];
	size_t n = members(f, given);
	struct sop_fsck_opts o = {.repair = repair,
		.found = tell ? tell_finding : mute,
		.open_disk = f->opts.open_disk,
		.open_disk_ctx = f->opts.open_disk_ctx};

	memset(&f->e, 0, sizeof(f->e));
	return sop_fsck(given, n, &o, out, &f->e);
}

static int act_remount(struct fixture *f)
{
	int rc = fixture_close(f);

	return rc ? rc : scenario_open(f);
}

static int act_first_gone(struct fixture *f)
{
	sim_disk_gone(f->sim, f->path[0], true);
	return 0;
}

static int act_last_gone(struct fixture *f)
{
	sim_disk_gone(f->sim, f->path[f->disks - 1], true);
	return 0;
}

static int act_back(struct fixture *f)
{
	for (unsigned i = 0; i < f->disks; i++)
		sim_disk_gone(f->sim, f->path[i], false);
	return 0;
}

/* Disks are changed: the work that follows is done by ticks. */
static int worked(struct fixture *f, int rc)
{
	return rc ? rc : sop_volume_tick(f->v, &f->e);
}

static int act_replace(struct fixture *f)
{
	return worked(f, sop_disk_replace(f->v, f->path[f->disks - 1], SCENARIO_SPARE, 0, &f->e));
}

static int act_replace_begun(struct fixture *f)
{
	return sop_disk_replace(f->v, f->path[f->disks - 1], SCENARIO_SPARE, 0, &f->e);
}

static int act_add(struct fixture *f)
{
	return worked(f, sop_disk_add(f->v, SCENARIO_SPARE, 0, &f->e));
}

static int act_remove(struct fixture *f)
{
	return worked(f, sop_disk_remove(f->v, f->path[0], 0, &f->e));
}

static int act_offline(struct fixture *f)
{
	return worked(f, sop_disk_offline(f->v, f->path[0], 0, &f->e));
}

static int act_online(struct fixture *f)
{
	return worked(f, sop_disk_online(f->v, f->path[0], NULL, &f->e));
}

static int act_scrub(struct fixture *f)
{
	return worked(f, sop_scrub_start(f->v, 0, &f->e));
}

static int act_scrub_pause(struct fixture *f)
{
	int rc = sop_scrub_start(f->v, 0, &f->e);

	if (!rc)
		rc = sop_scrub_pause(f->v, &f->e);
	rc = worked(f, rc);
	if (!rc)
		rc = sop_scrub_resume(f->v, &f->e);
	return worked(f, rc);
}

static int act_scrub_stop(struct fixture *f)
{
	int rc = sop_scrub_start(f->v, 0, &f->e);

	if (!rc)
		rc = sop_scrub_stop(f->v, &f->e);
	if (!rc)
		rc = sop_volume_clear(f->v, NULL, &f->e);
	return worked(f, rc);
}

static int act_write_fails(struct fixture *f)
{
	sim_fail_step(f->sim, sim_steps(f->sim) + 2, -EIO);
	return 0;
}

static const struct op {
	const char *name;
	int (*txn)(struct run *r);
	int (*act)(struct fixture *f);
	bool fault;
} ops[] = {
	{"create-small", create_small, NULL, false},
	{"create-big", create_big, NULL, false},
	{"create-stream", create_stream, NULL, false},
	{"overwrite-small", overwrite_small, NULL, false},
	{"overwrite-one", overwrite_one, NULL, false},
	{"overwrite-big", overwrite_big, NULL, false},
	{"overwrite-tree", overwrite_tree, NULL, false},
	{"read-write", read_and_write, NULL, false},
	{"scatter", scatter_one, NULL, false},
	{"append-small", append_small, NULL, false},
	{"append-big", append_big, NULL, false},
	{"append-tree", append_tree, NULL, false},
	{"empty-big", empty_big, NULL, false},
	{"shrink-big", shrink_big, NULL, false},
	{"shrink-tree", shrink_tree, NULL, false},
	{"extend-small", extend_small, NULL, false},
	{"rewrite-big", rewrite_big, NULL, false},
	{"rewrite-tree", rewrite_tree, NULL, false},
	{"punch-big", punch_big, NULL, false},
	{"rename-small", rename_small, NULL, false},
	{"rename-over", rename_over, NULL, false},
	{"rename-over-tree", rename_over_tree, NULL, false},
	{"rename-keep", rename_keep, NULL, false},
	{"exchange", exchange, NULL, false},
	{"exchange-dir", exchange_dir, NULL, false},
	{"rename-dir", rename_dir, NULL, false},
	{"move-big", move_big, NULL, false},
	{"move-dir", move_dir, NULL, false},
	{"link-big", link_big, NULL, false},
	{"unlink-small", unlink_small, NULL, false},
	{"unlink-big", unlink_big, NULL, false},
	{"unlink-tree", unlink_tree, NULL, false},
	{"unlink-linked", unlink_linked, NULL, false},
	{"mkdir", make_dir, NULL, false},
	{"mkdir-deep", make_dir_deep, NULL, false},
	{"rmdir", remove_dir, NULL, false},
	{"xattr-small", xattr_small, NULL, false},
	{"xattr-big", xattr_big, NULL, false},
	{"xattr-remove", xattr_remove, NULL, false},
	{"setattr", set_attr, NULL, false},
	{"setattr-dir", set_attr_dir, NULL, false},
	{"upsert", upsert_plain, NULL, false},
	{"remove", remove_plain, NULL, false},
	{"add-entries", add_entries, NULL, false},
	{"remove-entries", remove_entries, NULL, false},
	{"several", several, NULL, false},
	{"keys-add", scenario_keys_add, NULL, false},
	{"keys-change", scenario_keys_change, NULL, false},
	{"keys-walk", scenario_keys_walk, NULL, false},
	{"keys-options", scenario_keys_options, NULL, false},
	{"share-big", share_big, NULL, false},
	{"share-within", share_within, NULL, false},
	{"share-tree", share_tree, NULL, false},
	{"rollback-stream", rollback_stream, NULL, false},
	{"rollback-small", rollback_small, NULL, false},
	{"prepare-commit", prepare_commit, NULL, false},
	{"prepare-rollback", prepare_rollback, NULL, false},
	{"number-commit", NULL, act_number_commit, false},
	{"number-rollback", NULL, act_number_rollback, false},
	{"sync", NULL, act_sync, false},
	{"checkpoint", NULL, act_checkpoint, false},
	{"tick", NULL, act_tick, false},
	{"remount", NULL, act_remount, false},
	{"profile", NULL, scenario_keys_profile, false},
	{"replace", NULL, act_replace, true},
	{"replace-begun", NULL, act_replace_begun, true},
	{"add", NULL, act_add, true},
	{"remove-disk", NULL, act_remove, true},
	{"offline", NULL, act_offline, true},
	{"online", NULL, act_online, true},
	{"scrub", NULL, act_scrub, false},
	{"scrub-pause", NULL, act_scrub_pause, false},
	{"scrub-stop", NULL, act_scrub_stop, false},
	{"first-gone", NULL, act_first_gone, true},
	{"last-gone", NULL, act_last_gone, true},
	{"back", NULL, act_back, true},
	{"write-fails", NULL, act_write_fails, true},
};

unsigned scenario_ops(void)
{
	return SOP_ARRAY_LEN(ops);
}

const char *scenario_name(unsigned op)
{
	return ops[op].name;
}

bool scenario_is_txn(unsigned op)
{
	return ops[op].txn;
}

bool scenario_is_fault(unsigned op)
{
	return ops[op].fault;
}

bool scenario_changes_disks(unsigned op)
{
	int (*act)(struct fixture * f) = ops[op].act;

	return act == act_replace || act == act_replace_begun || act == act_add ||
	       act == act_remove || act == act_offline || act == act_online;
}

int scenario_find(const char *name)
{
	for (unsigned i = 0; i < SOP_ARRAY_LEN(ops); i++)
		if (!strcmp(ops[i].name, name))
			return (int)i;
	return -1;
}

bool scenario_refused(int rc)
{
	return rc == -ENOENT || rc == -EEXIST || rc == -ENODATA || rc == -ENOTDIR ||
	       rc == -EISDIR || rc == -ENOTEMPTY || rc == -EPERM || rc == -EINVAL ||
	       rc == -ECANCELED || rc == -EALREADY || rc == SOP_EDISKS;
}

static int in_txn(struct fixture *f, int (*fn)(struct run *r), uint64_t salt, unsigned flags)
{
	struct run r = {.f = f, .e = &f->e, .salt = salt};
	int rc = sop_txn_begin(&r.t, f->v, &(struct sop_txn_opts){.mode = SOP_TXN_SESSION}, &f->e);

	if (rc)
		return rc;
	rc = fn(&r);
	if (rc) {
		sop_txn_rollback(r.t);
		return rc;
	}
	return sop_txn_commit(r.t, flags & SCENARIO_DURABLE ? SOP_COMMIT_DURABLE : 0, &f->e);
}

int scenario_run(struct fixture *f, unsigned op, uint64_t salt, unsigned flags)
{
	const struct op *o = &ops[op];

	if (o->fault && flags & SCENARIO_NO_FAULTS)
		return 0;
	return o->act ? o->act(f) : in_txn(f, o->txn, salt, flags);
}

/* ---- the volume they work on ---- */

static int fill(struct run *r)
{
	uint64_t s, d;
	int rc = create(r, "small", 700);

	if (!rc)
		rc = create(r, "one", 5000);
	if (!rc)
		rc = create(r, "big", BIG);
	if (!rc)
		rc = create(r, "tree", 0);
	if (!rc)
		rc = scatter(r, "tree");
	if (!rc)
		rc = create(r, "l1", 3000);
	if (!rc)
		rc = sop_link(r->t, root("l1"), root("l2"), NULL, r->e);
	if (!rc)
		rc = create(r, "xa", 100);
	if (!rc)
		rc = sop_xattr_set(r->t, root("xa"), "user.old", "old", 3, 0, r->e);
	if (!rc)
		rc = sop_create(r->t, root("sym"), &(struct sop_attr){.mode = S_IFLNK | 0777},
			"small", 5, NULL, r->e);
	if (!rc)
		rc = sop_add(r->t, root("plain"), "plain", 5, r->e);
	if (!rc)
		rc = sop_store_at(r->t, "d", SOP_STORE_CREATE, NULL, &d, r->e);
	if (!rc)
		rc = sop_create(r->t, SOP_NAME(d, "g"), &file_attr, bytes, 3000, NULL, r->e);
	if (!rc)
		rc = sop_store_at(r->t, "e", SOP_STORE_CREATE, NULL, &d, r->e);
	if (!rc)
		rc = sop_store_at(r->t, "s", SOP_STORE_CREATE,
			&(struct sop_store_opts){.slot_length = 4}, &s, r->e);
	if (!rc)
		rc = entries(r, s, 0, ENTRIES);
	return rc ? rc : scenario_fill_keys(r);
}

static void furnish(struct fixture *f, const struct sop_clock *clock)
{
	sim_add_disk(f->sim, SCENARIO_SPARE, 0);
	f->opts.clock = clock;
	f->opts.cache_bytes = 4 << 20;
	f->opts.journal_bytes = SCENARIO_JOURNAL;
	fixture_ok(f, fixture_open(f));
	fixture_ok(f, in_txn(f, fill, 1, 0));
	fixture_ok(f, fixture_close(f));
}

void scenario_make(struct fixture *f, unsigned k, unsigned m, const struct sop_clock *clock)
{
	fixture_init(f, k, m, 0);
	furnish(f, clock);
}

void scenario_make_shared(struct fixture *f, unsigned k, unsigned m, const struct sop_clock *clock)
{
	fixture_init_shared(f, k, m);
	furnish(f, clock);
}

void scenario_clone(struct fixture *g, const struct fixture *f, struct sim *sim, uint64_t seed)
{
	*g = *f;
	g->sim = sim_clone(sim, seed);
	g->opts.open_disk_ctx = g->sim;
	g->v = NULL;
	for (unsigned i = 0; i < g->disks; i++)
		g->paths[i] = g->path[i];
}

/* ---- what there is ---- */

struct digest {
	struct fixture *f;
	struct sop_txn *t;
	uint64_t h;
	FILE *text;
	unsigned depth;
};

struct key_list {
	struct {
		uint8_t key[64];
		size_t len;
	} * k;
	size_t n;
};

/* By name: where keys have a type, that says all of the key. */
static int take_key(void *arg, const struct sop_listed *x)
{
	struct key_list *l = arg;
	const size_t len = x->name_len;

	if (len > sizeof(l->k->key))
		return -E2BIG;
	if ((l->n & (l->n - 1)) == 0) {
		void *p = realloc(l->k, SOP_MAX((size_t)8, 2 * l->n) * sizeof(*l->k));

		if (!p)
			return -ENOMEM;
		l->k = p;
	}
	memcpy(l->k[l->n].key, x->name, len);
	l->k[l->n++].len = len;
	return 0;
}

static uint64_t stir(uint64_t h, uint64_t x)
{
	unsigned __int128 p = (unsigned __int128)(h ^ x) * 0x9E3779B97F4A7C15ull;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t stir_bytes(uint64_t h, const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t x, lane[4] = {1, 2, 3, 4};

	h = stir(h, len);
	/* Values may be large, and four lanes go side by side. */
	for (; len >= 32; len -= 32, b += 32)
		for (unsigned i = 0; i < 4; i++) {
			memcpy(&x, b + 8 * i, 8);
			lane[i] = stir(lane[i], x);
		}
	for (unsigned i = 0; i < 4; i++)
		h = stir(h, lane[i]);
	for (; len >= 8; len -= 8, b += 8) {
		memcpy(&x, b, 8);
		h = stir(h, x);
	}
	x = 0;
	memcpy(&x, b, len);
	return stir(h, x);
}

static uint64_t attr_hash(const struct sop_attr *a)
{
	uint64_t h = 1;

	h = stir(h, a->ino);
	h = stir(h, (uint64_t)a->mode << 32 | a->nlink);
	h = stir(h, (uint64_t)a->uid << 32 | a->gid);
	h = stir(h, a->rdev);
	h = stir(h, a->size);
	h = stir(h, a->bytes);
	h = stir(h, (uint64_t)a->atime.tv_sec ^ (uint64_t)a->atime.tv_nsec << 32);
	h = stir(h, (uint64_t)a->mtime.tv_sec ^ (uint64_t)a->mtime.tv_nsec << 32);
	h = stir(h, (uint64_t)a->ctime.tv_sec ^ (uint64_t)a->ctime.tv_nsec << 32);
	h = stir(h, (uint64_t)a->btime.tv_sec ^ (uint64_t)a->btime.tv_nsec << 32);
	h = stir(h, a->version);
	h = stir(h, a->value_version);
	h = stir(h, a->flags);
	return stir(h, a->count);
}

static int digest_xattrs(struct digest *d, struct sop_name name, uint64_t *out)
{
	char list[1024];
	ssize_t n = sop_xattr_list(d->t, name, list, sizeof(list), &d->f->e);
	uint64_t h = 2;

	if (n < 0)
		return (int)n;
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
		ssize_t len = sop_xattr_get(d->t, name, list + at, bytes, sizeof(bytes), &d->f->e);

		if (len < 0)
			return (int)len;
		h = stir_bytes(h, list + at, strlen(list + at));
		h = stir_bytes(h, bytes, (size_t)len);
	}
	*out = h;
	return 0;
}

static int digest_store(struct digest *d, uint64_t store);

static int digest_item(struct digest *d, struct sop_name name)
{
	struct sop_attr a;
	uint64_t xattrs = 0, value_hash = 0;
	void *value;
	size_t len;
	int rc = sop_lookup(d->t, name, &a, &d->f->e);

	if (!rc)
		rc = digest_xattrs(d, name, &xattrs);
	if (!rc && !S_ISDIR(a.mode)) {
		rc = sop_get(d->t, name, &value, &len, &d->f->e);
		if (!rc) {
			value_hash = stir_bytes(3, value, len);
			free(value);
		}
	}
	if (rc)
		return rc;
	d->h = stir_bytes(d->h, name.key, name.len);
	d->h = stir(d->h, attr_hash(&a));
	d->h = stir(d->h, xattrs);
	d->h = stir(d->h, value_hash);
	if (d->text)
		fprintf(d->text,
			"    %*s%.*s ino %llu mode %o nlink %u size %llu bytes %llu version "
			"%llu/%llu "
			"count %llu mtime %lld.%09ld ctime %lld.%09ld xattrs %llx value %llx\n",
			(int)(2 * d->depth), "", (int)name.len, (const char *)name.key,
			(unsigned long long)a.ino, a.mode, a.nlink, (unsigned long long)a.size,
			(unsigned long long)a.bytes, (unsigned long long)a.version,
			(unsigned long long)a.value_version, (unsigned long long)a.count,
			(long long)a.mtime.tv_sec, a.mtime.tv_nsec, (long long)a.ctime.tv_sec,
			a.ctime.tv_nsec, (unsigned long long)xattrs,
			(unsigned long long)value_hash);
	if (!S_ISDIR(a.mode))
		return 0;
	d->depth++;
	rc = digest_store(d, a.ino);
	d->depth--;
	return rc;
}

static int digest_store(struct digest *d, uint64_t store)
{
	struct key_list l = {0};
	int rc = sop_list(d->t, store, NULL, false, take_key, &l, &d->f->e);

	for (size_t i = 0; i < l.n && !rc; i++)
		rc = digest_item(d, (struct sop_name){store, l.k[i].key, l.k[i].len});
	free(l.k);
	d->h = stir(d->h, l.n);
	return rc;
}

int scenario_digest(struct fixture *f, uint64_t *out, FILE *text)
{
	struct digest d = {.f = f, .t = sop_volume_latest(f->v), .h = 4, .text = text};
	struct sop_volume_stat st;
	struct sop_attr a;
	int rc = sop_lookup(d.t, SOP_SELF(SOP_ROOT), &a, &f->e);

	if (!rc)
		rc = digest_store(&d, SOP_ROOT);
	if (rc)
		return rc;
	sop_volume_stat(f->v, &st);
	d.h = stir(d.h, attr_hash(&a));
	d.h = stir(d.h, st.items);
	if (text)
		fprintf(text, "    root: version %llu count %llu; items %llu lsn %llu\n",
			(unsigned long long)a.version, (unsigned long long)a.count,
			(unsigned long long)st.items, (unsigned long long)st.lsn);
	*out = d.h;
	return 0;
}
