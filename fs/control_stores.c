/* Of the control socket: erasure code profiles, and transactions that other programs have prepared.
 */
#include <stdio.h>

#include "core/human.h"
#include "fs/control.h"
#include "fs/inode.h"
#include "fs/notify.h"
#include "fs/views.h"

/* ---- erasure code profiles -----------------------------------------------------------------
 */

static json_t *profile_json(const struct sop_profile_info *p)
{
	json_t *disks = json_array();

	for (unsigned i = 0; i < p->disks; i++) {
		char name[16];

		snprintf(name, sizeof(name), "d%u", p->disk[i] + 1);
		json_array_append_new(disks, json_string(name));
	}
	return json_pack("{s:s, s:i, s:i, s:b, s:b, s:o, s:I, s:I}", "name", p->name, "data_shards",
		(int)p->k, "parity_shards", (int)p->m, "repair", p->repair, "all_disks", !p->chosen,
		"disks", disks, "total_bytes", (json_int_t)p->total_bytes, "free_bytes",
		(json_int_t)p->free_bytes);
}

json_t *sopfs_run_ec(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	json_t *all = json_array();
	struct sop_profile_info p;

	(void)request;
	(void)trusted;
	(void)e;
	for (unsigned n = 0; sop_profile_get(f->v, n, &p); n++)
		json_array_append_new(all, profile_json(&p));
	return json_pack("{s:o}", "profiles", all);
}

json_t *sopfs_run_ec_add(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *disks[128];
	struct sop_profile_opts o = {.disks = disks};
	const json_t *list = json_object_get(request, "disks"), *disk;
	json_int_t k = json_integer_value(json_object_get(request, "data_shards"));
	json_int_t m = json_integer_value(json_object_get(request, "parity_shards"));
	size_t i;

	(void)trusted;
	o.name = json_string_value(json_object_get(request, "name"));
	o.no_repair = json_is_true(json_object_get(request, "no_repair"));
	if (!o.name || k < 1 || k > 255 || m < 0 || m > 255 ||
		json_array_size(list) > SOP_ARRAY_LEN(disks)) {
		sop_say(e, -EINVAL,
			"a profile needs \"name\", \"data_shards\" and \"parity_shards\"");
		return NULL;
	}
	o.k = (unsigned)k;
	o.m = (unsigned)m;
	json_array_foreach(list, i, disk)
	{
		disks[i] = json_string_value(disk);
		if (!disks[i]) {
			sop_say(e, -EINVAL, "\"disks\" must be names of disks");
			return NULL;
		}
	}
	o.n_disks = json_array_size(list);
	return sop_profile_add(f->v, &o, e) ? NULL : json_object();
}

/* ---- prepared transactions -----------------------------------------------------------------
 */

static int add_prepared(void *arg, const struct sop_txn_prepared *p)
{
	char text[SOP_HUMAN_TEXT];
	const struct timespec t = {.tv_sec = (time_t)(p->time_ns / 1000000000),
		.tv_nsec = (long)(p->time_ns % 1000000000)};
	json_t *j = json_pack("{s:I, s:s, s:I}", "id", (json_int_t)p->id, "prepared",
		sop_human_rfc3339(text, t), "items", (json_int_t)p->items);
	json_t *note = json_string(p->note);

	json_object_set_new(j, "note", note ? note : json_null()); /* no UTF-8 */
	return json_array_append_new(arg, j) ? -ENOMEM : 0;
}

static json_t *list_prepared(struct sopfs *f, struct sop_err *e)
{
	json_t *all = json_array();

	if (!sop_prepared_list(f->v, add_prepared, all, e))
		return json_pack("{s:o}", "transactions", all);
	json_decref(all);
	return NULL;
}

/* The item of a key of the tree, by the name that directories show. */
struct shown {
	bool there;
	char name[SOP_EVENT_KEY];
	size_t len;
	uint64_t ino, version;
};

static int found(void *arg, const struct sop_listed *x)
{
	struct shown *s = arg;

	if (x->name_len > sizeof(s->name))
		return 0;
	s->there = true;
	memcpy(s->name, x->name, x->name_len);
	s->len = x->name_len;
	s->ino = x->attr->ino;
	s->version = x->attr->value_version;
	return 0;
}

static void find_shown(struct sopfs *f, const struct sop_event *x, struct shown *s)
{
	const struct sop_range one = {
		.from = x->key, .from_len = x->key_len, .to = x->key, .to_len = x->key_len};

	if (x->store && x->key_len <= sizeof(x->key) &&
		sop_list(f->latest, x->store, &one, true, found, s, NULL))
		s->there = false;
}

/* What was committed has not come through this kernel, as all else does: it must forget what it has
 * of it. */
static void changed(struct sopfs *f, const struct sop_event *x, struct sopfs_notes *notes)
{
	struct sopfs_item *item, *dir;
	struct shown s = {0};
	bool newer;

	find_shown(f, x, &s);
	pthread_mutex_lock(&f->lock);
	dir = x->store ? sopfs_item_find(f, x->store) : NULL;
	if (dir && s.there) {
		sopfs_note_name(f, notes, x->store, s.name, s.len);
	} else if (dir) {
		/* Of a typed key that has gone the name is not known: with the directory's own
		 * entry all below it go. */
		sopfs_note_name(f, notes, x->store, (const char *)x->key,
			SOP_MIN(x->key_len, sizeof(x->key)));
		sopfs_note_names(f, notes, dir);
	}
	if (dir)
		sopfs_note_attrs(f, notes, dir, NULL);
	for (struct sopfs_view *v = dir ? dir->views : NULL; v; v = v->next)
		sopfs_note_data(f, notes, v);
	item = x->ino ? sopfs_item_find(f, x->ino) : NULL;
	if (item)
		sopfs_item_ref(item);
	pthread_mutex_unlock(&f->lock);
	if (!item)
		return;
	pthread_mutex_lock(&item->lock);
	/* Another commit may be later: found is what is newest now, as this lock keeps sessions
	 * out. */
	s.there = false;
	find_shown(f, x, &s);
	pthread_mutex_lock(&f->lock);
	newer = s.there && s.ino == item->ino && S_ISREG(item->type) && s.version != item->version;
	pthread_mutex_unlock(&f->lock);
	if (newer)
		sopfs_superseded(f, item, NULL, s.version, notes);
	pthread_mutex_unlock(&item->lock);
	pthread_mutex_lock(&f->lock);
	sopfs_note_attrs(f, notes, item, NULL);
	pthread_mutex_unlock(&f->lock);
	sopfs_item_put(f, item);
}

/* What a transaction writes: kept before its commit, since nobody knows afterwards. As much memory
 * as the keys take, which the transaction itself takes several times over. */
struct written {
	struct written *next;
	uint64_t store, ino;
	size_t key_len; /* of the key, which may be longer than what is kept of it, as in an event
			 */
	size_t kept;
	uint8_t key[];
};

static int add_written(void *arg, const struct sop_event *x)
{
	struct written **first = arg;
	size_t kept = SOP_MIN(x->key_len, sizeof(x->key));
	struct written *w = malloc(sizeof(*w) + kept);

	if (!w)
		return -ENOMEM;
	*w = (struct written){*first, x->store, x->ino, x->key_len, kept};
	memcpy(w->key, x->key, kept);
	*first = w;
	return 0;
}

#define NOTES_AT_ONCE 1024 /* items whose notes wait in memory */

/* Frees the list. */
static void tell_written(struct sopfs *f, struct written *w)
{
	struct sopfs_notes notes = {0};
	struct written *next;

	for (unsigned n = 1; w; w = next, n++) {
		struct sop_event x = {.store = w->store, .ino = w->ino, .key_len = w->key_len};

		next = w->next;
		memcpy(x.key, w->key, w->kept);
		free(w);
		changed(f, &x, &notes);
		if (n % NOTES_AT_ONCE == 0 || !next) {
			sopfs_notify(f, &notes, NULL, NULL);
		}
	}
}

static int commit_prepared(struct sopfs *f, uint64_t id, struct sop_err *e)
{
	struct written *all = NULL;
	int rc = sop_prepared_items(f->v, id, add_written, &all, e);

	/* What the commit returns may be an error of the media after it: the rest is done in any
	 * case. */
	if (!rc)
		rc = sop_prepared_commit(f->v, id, SOP_COMMIT_DURABLE, e);
	else if (rc == -ENOMEM)
		sop_fail(e, rc, "prepared transaction %llu", (unsigned long long)id);
	tell_written(f, all);
	return rc;
}

json_t *sopfs_run_txn(struct sopfs *f, const json_t *request, bool trusted, struct sop_err *e)
{
	const char *action = json_string_value(json_object_get(request, "action"));
	const json_t *number = json_object_get(request, "id");
	uint64_t id = (uint64_t)json_integer_value(number);
	int rc;

	(void)trusted;
	if (action && strcmp(action, "list") == 0)
		return list_prepared(f, e);
	if (!json_is_integer(number))
		rc = sop_say(e, -EINVAL, "\"id\" is missing");
	else if (action && strcmp(action, "commit") == 0)
		rc = commit_prepared(f, id, e);
	else if (action && strcmp(action, "rollback") == 0)
		rc = sop_prepared_rollback(f->v, id, e);
	else
		rc = sop_say(e, -EINVAL, "txn: list, commit or rollback");
	if (rc == -ENOENT)
		sop_say(e, rc,
			"there is no prepared transaction %llu; 'sopctl txn list' shows those "
			"there are",
			(unsigned long long)id);
	return rc ? NULL : json_object();
}
