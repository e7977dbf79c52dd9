/* import: keys and values from lines of JSON into a store, by libsop, while the volume is not
 * mounted.
 *
 * What SOP itself has stored is not read here: sopctl(8) says why, and how it comes to be such
 * lines. */
#include "core/source.h"
#include "mount-helpers/sopctl.h"

#define BATCH_ITEMS 1000
#define BATCH_BYTES (4u << 20)

struct import {
	struct sop_volume *v;
	uint64_t store;
	struct sop_store_opts o; /* of the store; text points into info */
	char info[SOP_STORE_INFO_BYTES];
	struct sop_kv item[BATCH_ITEMS];
	char *key[BATCH_ITEMS], *value[BATCH_ITEMS]; /* malloc'ed */
	size_t n, bytes;
	uint64_t done; /* items that are committed, as many lines */
};

static void forget(struct import *x)
{
	for (size_t i = 0; i < x->n; i++) {
		free(x->key[i]);
		free(x->value[i]);
	}
	x->n = x->bytes = 0;
}

/* ---- lines -------------------------------------------------------------------------------------
 */

static int wrong_key(struct sop_err *e, const struct import *x)
{
	return sop_say(
		e, -EINVAL, "\"key\" is missing, or no %s", sop_key_type_name(x->o.key_type));
}

static int take_key(struct import *x, const json_t *line, struct sop_err *e)
{
	const json_t *key = json_object_get(line, "key");
	struct sop_key *k = &x->item[x->n].key;
	char **text = &x->key[x->n];
	size_t len = 0;

	*text = NULL;
	switch (x->o.key_type) {
	case SOP_KEY_INT64:
		*k = sop_key_int(json_integer_value(key));
		return json_is_integer(key) ? 0 : wrong_key(e, x);
	case SOP_KEY_FLOAT64:
		*k = sop_key_float(json_number_value(key));
		return json_is_number(key) ? 0 : wrong_key(e, x);
	case SOP_KEY_JSON:
		*text = json_is_object(key) ? json_dumps(key, JSON_COMPACT) : NULL;
		len = *text ? strlen(*text) : 0;
		break;
	case SOP_KEY_BYTES:
	case SOP_KEY_STRING:
	case SOP_KEY_TYPES:
		*text = sopctl_bytes(line, "key", &len);
		break;
	}
	*k = sop_key_of(x->o.key_type, 0, 0, *text, len);
	return *text ? 0 : wrong_key(e, x);
}

/* A string is its text; any other JSON is stored as JSON. */
static int take_value(struct import *x, const json_t *line, struct sop_err *e)
{
	const json_t *value = json_object_get(line, "value");
	char **text = &x->value[x->n];
	size_t len = 0;

	*text = !value || json_is_string(value) ? sopctl_bytes(line, "value", &len)
						: json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	if (!*text)
		return sop_say(e, -EINVAL, "\"value\" is missing, or cannot be read");
	x->item[x->n].val = *text;
	x->item[x->n].len = value && !json_is_string(value) ? strlen(*text) : len;
	return 0;
}

static int take_line(struct import *x, const char *text, size_t len, struct sop_err *e)
{
	json_error_t where;
	json_t *line = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	int rc;

	if (!json_is_object(line)) {
		json_decref(line);
		return sop_say(
			e, -EINVAL, "is no JSON object%s%s", where.text[0] ? ": " : "", where.text);
	}
	rc = take_key(x, line, e);
	if (!rc)
		rc = take_value(x, line, e);
	json_decref(line);
	if (rc) {
		free(x->key[x->n]);
		return rc;
	}
	x->bytes += x->item[x->n].len;
	x->n++;
	return 0;
}

/* ---- batches -----------------------------------------------------------------------------------
 */

/* *done: how many items of the batch went well, also when one does not. */
static int put_batch(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct import *x = arg;

	return sop_kv_batch(
		t, x->store, x->o.duplicates ? SOP_KV_ADD : SOP_KV_UPSERT, x->item, x->n, NULL, e);
}

static int flush(struct import *x, struct sop_err *e)
{
	int rc = x->n ? sop_txn_run(x->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0,
				put_batch, x, e)
		      : 0;

	if (!rc)
		x->done += x->n;
	forget(x);
	return rc;
}

static int read_all(struct import *x, FILE *in, const char *name, struct sop_err *e)
{
	sop_autofree char *text = NULL;
	uint64_t number = 0;
	size_t size = 0;
	int rc = 0;

	while (!rc) {
		ssize_t len;

		errno = 0;
		len = getline(&text, &size, in);
		if (len <= 0 && feof(in))
			break;
		if (len <= 0)
			return sop_fail(e, errno ? -errno : -EIO, "%s", name);
		number++;
		rc = take_line(x, text, (size_t)len, e);
		if (rc)
			return sop_wrap(e, rc, "%s:%llu", name, (unsigned long long)number);
		if (x->n == BATCH_ITEMS || x->bytes >= BATCH_BYTES)
			rc = flush(x, e);
	}
	return rc ? rc : flush(x, e);
}

/* ---- the store ---------------------------------------------------------------------------------
 */

struct wanted {
	const struct sopctl_args *a;
	struct import *x;
	struct sop_store_opts o;
	bool any; /* options were given */
};

static int parse_options(struct wanted *w, struct sop_index_field *index, char *names, size_t size,
	struct sop_err *e)
{
	const struct sopctl_args *a = w->a;
	uint64_t slots = 0;
	int class = SOP_VALUE_AUTO;

	w->any = a->key || a->duplicates || a->slot_length || a->balance || a->value || a->ec ||
		 a->note;
	w->o.duplicates = a->duplicates;
	w->o.balance = a->balance;
	w->o.profile = a->ec;
	w->o.note = a->note;
	if (a->slot_length && !sopctl_digits(a->slot_length, 20000, '\0', &slots))
		return sop_say(
			e, -EINVAL, "--slot-length=%s: must be from 2 to 20000", a->slot_length);
	w->o.slot_length = (uint32_t)slots;
	while (a->value && class <= SOP_VALUE_BIG &&
		strcmp(a->value, sop_value_class_name((enum sop_value_class) class)) != 0)
		class ++;
	if (class > SOP_VALUE_BIG)
		return sop_say(
			e, -EINVAL, "--value=%s: must be auto, small, medium or big", a->value);
	w->o.value_class = (enum sop_value_class) class;
	w->o.index = index;
	return a->key ? sop_key_type_parse(&w->o.key_type, index, SOP_INDEX_FIELDS, &w->o.n_index,
				a->key, names, size, e)
		      : 0;
}

static int find_store(struct sop_txn *t, void *arg, struct sop_err *e)
{
	struct wanted *w = arg;
	struct import *x = w->x;
	const char *path = w->a->word[1];
	int rc = w->any ? -ENOENT : sop_store_at(t, path, 0, NULL, &x->store, e);

	if (rc == -ENOENT) {
		*e = (struct sop_err){0};
		rc = sop_store_at(t, path, SOP_STORE_CREATE, &w->o, &x->store, e);
	}
	return rc ? rc : sop_store_info(t, x->store, &x->o, x->info, sizeof(x->info), e);
}

/* What has become of it when not all went well; closed: what closing the volume gave. */
static int tell_failed(const struct import *x, int rc, const struct sop_err *e, int closed)
{
	unsigned long long done = x->done;

	sopctl_fail(0, "%s", e->text);
	if (closed)
		return sopctl_fail(sopctl_exit_of(rc),
			"%llu items were put in, those of the first %llu lines; how many of them "
			"are in the store is not known, as not all has reached the disks",
			done, done);
	return sopctl_fail(sopctl_exit_of(rc),
		"%llu items are in the store, those of the first %llu lines; the rest is not", done,
		done);
}

static int import(const struct sopctl_args *a, struct import *x, FILE *in, const char *name)
{
	sop_autofree char *names = a->key ? malloc(strlen(a->key) + 1) : NULL;
	struct sop_index_field index[SOP_INDEX_FIELDS];
	struct wanted w = {.a = a, .x = x};
	struct sop_paths paths = {0};
	struct sop_err e = {0}, later = {0};
	int rc = a->key && !names
			 ? sop_fail(&e, -ENOMEM, "import")
			 : parse_options(&w, index, names, a->key ? strlen(a->key) + 1 : 0, &e);
	int closed;

	if (rc)
		return sopctl_fail(SOPCTL_USAGE, "%s", e.text);
	rc = sop_source_find(&paths, a->word[0], &e);
	if (!rc)
		rc = sop_volume_open(&x->v, (const char *const *)paths.path, paths.n, NULL, &e);
	sop_paths_release(&paths);
	if (rc)
		return sopctl_fail(sopctl_exit_of(rc), "%s", e.text);
	rc = sop_txn_run(
		x->v, &(struct sop_txn_opts){.mode = SOP_TXN_WRITE}, 0, 0, find_store, &w, &e);
	if (rc)
		sop_wrap(&e, rc, "%s", a->word[1]);
	else
		rc = read_all(x, in, name, &e);
	forget(x);
	/* Which makes all of it durable. */
	closed = sop_volume_close(x->v, &later);
	if (rc || closed)
		return tell_failed(x, rc ? rc : closed, rc ? &e : &later, closed);
	return SOPCTL_OK;
}

static int run_import(const struct sopctl_args *a)
{
	bool from_stdin = a->words < 3 || strcmp(a->word[2], "-") == 0;
	const char *name = from_stdin ? "standard input" : a->word[2];
	FILE *in = from_stdin ? stdin : fopen(name, "re");
	struct import *x = in ? calloc(1, sizeof(*x)) : NULL;
	int rc;

	if (!in)
		return sopctl_fail(errno == EACCES ? SOPCTL_PERMISSION : SOPCTL_FAILURE, "%s: %s",
			name, strerror(errno));
	rc = x ? import(a, x, in, name) : sopctl_fail(SOPCTL_FAILURE, "out of memory");
	if (!rc && a->json)
		printf("{\"version\":1,\"items\":%llu}\n", (unsigned long long)x->done);
	else if (!rc)
		printf("%s: %llu items\n", a->word[1], (unsigned long long)x->done);
	free(x);
	if (!from_stdin)
		fclose(in);
	return rc;
}

const struct sopctl_verb sopctl_import_verbs[] = {
	{"import", "SOURCE STORE [FILE]", "Put keys and values into a store, as of a SOP database",
		"key duplicates slot-length balance value ec note json", 2, 3,
		"From lines as {\"key\":7,\"value\":\"text\"}; sopctl(8) tells how a SOP database "
		"becomes such. The volume\nmust not be mounted; SOURCE is as of sopfs: a member "
		"folder, several, or a NAME. STORE is a path\nfrom its root; it is made with the "
		"options if it is not there. A key that is there gets the new\nvalue, with "
		"--duplicates one more item. 1,000 lines at most are one transaction.\n",
		run_import},
	{0},
};
