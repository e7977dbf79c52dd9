/* What labels look like from outside: each copy by itself, folders that claim one place, members
 * that are not there, and folders whose labels are gone.
 *
 * A folder without a label is normally the mount point of a drive that is not mounted, and stays
 * untouched. But when it holds shard files of this volume whose headers all name one member, it
 * is that member, and its label can be written again from what the others know. */
#include "core/members_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/blob.h"
#include "core/members_own.h"
#include "core/segment_int.h"

#define EVIDENCE_MAX 16 /* shard files looked at to tell whose a folder is */

/* Opening a folder and reading both copies may hang in the device. */
struct look {
	struct sop_errand errand;
	int (*open_disk)(void *ctx, struct sop_disk **out, const char *path, struct sop_err *e);
	void *open_disk_ctx;
	char *path;
	struct sop_disk *disk;
	struct sop_label_copy copy[SOP_LABEL_COPIES];
	struct sop_label label;
	char claim[SOP_CLAIM_TEXT];
	int rc; /* of the label */
	struct sop_err e;
};

struct folder {
	char *path;
	bool given;
	struct look *look; /* NULL: it hung */
	int rc;
	int index;   /* in the newest label, or -1 */
	bool labels; /* it is member `index`, and needs a label */
};

struct sop_label_check {
	struct sop_label_check_opts o;
	struct folder *f;
	size_t n, visited;
	const struct sop_label *newest;
	int holder[SOP_MEMBERS_MAX]; /* folder of each member, or -1 */
	char claim[SOP_CLAIM_TEXT];
};

static void look_run(struct sop_errand *x)
{
	struct look *l = (struct look *)x;
	struct iovec iov = {l->claim, sizeof(l->claim) - 1};
	struct sop_file *f;
	ssize_t n;

	l->rc = sop_members_open_folder(&l->disk, l->path, l->open_disk, l->open_disk_ctx, &l->e);
	if (l->rc) {
		l->disk = NULL;
		return;
	}
	for (unsigned i = 0; i < SOP_LABEL_COPIES; i++)
		sop_label_copy_load(&l->copy[i], l->disk, i);
	l->rc = sop_label_load(&l->label, l->disk, &l->e);
	if (l->disk->ops->file_open(&f, l->disk, SOP_PATH_LOCK, SOP_OPEN_READ))
		return;
	n = f->ops->preadv(f, &iov, 1, 0);
	f->ops->file_close(f);
	l->claim[n < 0 ? 0 : n] = '\0';
	l->claim[strcspn(l->claim, "\n")] = '\0';
	for (char *p = l->claim; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

static void look_release(struct sop_errand *x)
{
	struct look *l = (struct look *)x;

	sop_disk_close(l->disk);
	free(l->path);
	free(l);
}

static void tell(struct sop_label_check *c, enum sop_found state, const char *object,
	const char *next, const char *fmt, ...) SOP_PRINTF(5, 6);
static void tell(struct sop_label_check *c, enum sop_found state, const char *object,
	const char *next, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	c->o.found(c->o.ctx, &(struct sop_finding){
				     .state = state, .object = object, .what = what, .next = next});
}

/* ---- search ---- */

static int folder_add(struct sop_label_check *c, const char *path, bool given, struct sop_err *e)
{
	char clean[SOP_MEMBER_PATH];
	struct folder *more;
	char *own;

	if (!sop_members_path(clean, path, !c->o.open_disk))
		path = clean;
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->f[i].path, path) == 0)
			return 0;
	own = strdup(path);
	more = reallocarray(c->f, c->n + 1, sizeof(*more));
	if (more)
		c->f = more;
	if (!own || !more) {
		free(own);
		return sop_fail(e, -ENOMEM, "labels");
	}
	c->f[c->n++] = (struct folder){.path = own, .given = given, .index = -1};
	return 0;
}

/* A shortage of ours must not make a disk count as missing, or a copy as bad. */
static bool was_short(const struct look *l)
{
	bool any = l->rc == -ENOMEM;

	for (unsigned i = 0; i < SOP_LABEL_COPIES; i++)
		any = any || l->copy[i].rc == -ENOMEM;
	return any;
}

static int visit(struct sop_label_check *c, struct folder *f, struct sop_err *e)
{
	struct look *l = calloc(1, sizeof(*l));
	struct sop_errand *x = (struct sop_errand *)l;

	if (!l)
		return sop_fail(e, -ENOMEM, "labels");
	sop_errand_init(x, look_run, look_release);
	l->open_disk = c->o.open_disk;
	l->open_disk_ctx = c->o.open_disk_ctx;
	l->path = strdup(f->path);
	if (!l->path) {
		sop_errand_put(x);
		return sop_fail(e, -ENOMEM, "labels");
	}
	sop_errands_run(&x, 1, !c->o.open_disk, c->o.timeout_ms);
	if (x->finished && was_short(l)) {
		sop_errand_put(x);
		return sop_fail(e, -ENOMEM, "%s: label", f->path);
	}
	if (x->finished) {
		f->look = l;
		f->rc = l->rc;
		return 0;
	}
	f->rc = -ETIMEDOUT;
	sop_errand_put(x);
	return 0;
}

static const struct sop_label *label_of(const struct folder *f)
{
	return f->look && !f->rc ? &f->look->label : NULL;
}

/* The newest label of the volume that the first labelled path given belongs to. */
static void elect(struct sop_label_check *c)
{
	const struct sop_label *first = NULL;

	c->newest = NULL;
	for (size_t i = 0; i < c->n; i++) {
		const struct sop_label *l = label_of(&c->f[i]);

		if (!l)
			continue;
		if (!first)
			first = l;
		if (sop_uuid_equal(&l->volume_uuid, &first->volume_uuid) &&
			(!c->newest || l->generation > c->newest->generation))
			c->newest = l;
	}
}

static int search(struct sop_label_check *c, struct sop_err *e)
{
	int rc = 0;

	while (c->visited < c->n && !rc) {
		for (; c->visited < c->n && !rc; c->visited++)
			rc = visit(c, &c->f[c->visited], e);
		elect(c);
		for (unsigned j = 0; !rc && c->newest && j < c->newest->members; j++)
			if (sop_members_is(&c->newest->member[j]) && c->newest->member[j].path[0])
				rc = folder_add(c, c->newest->member[j].path, false, e);
	}
	return rc;
}

/* ---- whose is a folder without a label? ---- */

struct evidence {
	struct sop_label_check *c;
	struct sop_disk *disk;
	const char *dir;
	unsigned looked;
	int index; /* -1: nothing found; -2: it contradicts itself */
};

static int shard_evidence(void *arg, const char *name)
{
	struct evidence *v = arg;
	const struct sop_label *l = v->c->newest;
	sop_autofree struct sop_disk_shard *h = sop_alloc_aligned(sizeof(*h));
	struct iovec iov = {h, sizeof(*h)};
	struct sop_segment_info info;
	char path[320], *end;
	struct sop_file *f;
	unsigned long shard;
	uint64_t id;
	ssize_t n;

	if (!h || v->looked >= EVIDENCE_MAX)
		return 0;
	id = strtoull(name, &end, 16);
	shard = *end == '.' ? strtoul(end + 1, &end, 10) : SOP_EC_MAX;
	if (*end || !id || shard >= SOP_EC_MAX ||
		snprintf(path, sizeof(path), "%s/%s", v->dir, name) >= (int)sizeof(path) ||
		v->disk->ops->file_open(&f, v->disk, path, SOP_OPEN_READ))
		return 0;
	n = f->ops->preadv(f, &iov, 1, 0);
	f->ops->file_close(f);
	for (unsigned i = 0; n == sizeof(*h) && i < l->members; i++) {
		if (sop_shard_header_decode(
			    &info, h, &l->volume_uuid, id, (unsigned)shard, i, NULL))
			continue;
		v->looked++;
		v->index = v->index == -1 || v->index == (int)i ? (int)i : -2;
	}
	return 0;
}

static int segment_folder(void *arg, const char *name)
{
	struct evidence *v = arg;
	char dir[320];

	if (v->looked >= EVIDENCE_MAX ||
		snprintf(dir, sizeof(dir), "%s/%s", SOP_PATH_SEGMENTS, name) >= (int)sizeof(dir))
		return 0;
	v->dir = dir;
	v->disk->ops->list(v->disk, dir, shard_evidence, v);
	v->dir = NULL;
	return 0;
}

static int identify(struct sop_label_check *c, struct folder *f)
{
	struct evidence v = {.c = c, .disk = f->look->disk, .index = -1};

	v.disk->ops->list(v.disk, SOP_PATH_SEGMENTS, segment_folder, &v);
	return v.index;
}

/* ---- what is wrong ---- */

static void check_copies(struct sop_label_check *c, const struct folder *f)
{
	const struct look *l = f->look;
	char object[SOP_MEMBER_PATH + 16];

	for (unsigned i = 0; i < SOP_LABEL_COPIES; i++) {
		const struct sop_label_copy *copy = &l->copy[i];

		snprintf(object, sizeof(object), "%s/%s", f->path, sop_label_path(i));
		if (copy->rc)
			tell(c, SOP_FOUND_FIXABLE, object, "",
				"this copy of the label %s; the other one is whole",
				copy->rc == -ENOENT ? "is missing" : "does not verify");
		else if (copy->label.generation < l->label.generation)
			tell(c, SOP_FOUND_NOTE, object, "",
				"this copy of the label is the older one (generation %" PRIu64
				", the other %" PRIu64 "): its writing was cut off",
				copy->label.generation, l->label.generation);
	}
}

/* The two copies are of different disks, and one of them is right for this place. */
static bool one_copy_says(const struct sop_label_check *c, const struct folder *f, unsigned place)
{
	for (unsigned i = 0; i < SOP_LABEL_COPIES; i++) {
		const struct sop_label_copy *copy = &f->look->copy[i];

		if (!copy->rc && copy->label.index == place &&
			sop_uuid_equal(&copy->label.volume_uuid, &c->newest->volume_uuid) &&
			sop_uuid_equal(&copy->label.disk_uuid, &c->newest->member[place].uuid))
			return true;
	}
	return false;
}

/* A folder at a member's place, or one that was given, without a label of this volume. */
static void check_unlabelled(struct sop_label_check *c, struct folder *f, int place)
{
	char next[SOP_MEMBER_PATH + 128] = "";
	int index;

	if (!f->look || !f->look->disk) {
		if (f->given && place < 0)
			tell(c, SOP_FOUND_HELP, f->path, "", "cannot be looked at: %s",
				f->look ? f->look->e.text : "does not answer");
		return; /* a member's: told as missing */
	}
	index = f->rc == SOP_ENOTVOLUME || f->rc == SOP_ECORRUPT ? identify(c, f) : -1;
	if (place >= 0 && one_copy_says(c, f, (unsigned)place))
		index = place;
	if (index >= 0 && c->holder[index] < 0 && sop_members_is(&c->newest->member[index])) {
		f->index = index;
		f->labels = true;
		c->holder[index] = (int)(f - c->f);
		tell(c, SOP_FOUND_FIXABLE, f->path, "",
			"no label that could be believed; what else it holds shows that it is disk "
			"%d of the volume",
			index);
		return;
	}
	if (index == -2)
		snprintf(next, sizeof(next), "take back what was copied into %s from other disks",
			f->path);
	if (f->rc == SOP_ENOTVOLUME && index == -1 && place >= 0)
		return; /* an unmounted drive: told as missing */
	tell(c, SOP_FOUND_HELP, f->path, next, "%s%s", f->look->e.text,
		index == -2 ? "; its shard files are of several disks" : "");
}

static void check_foreign(struct sop_label_check *c, const struct folder *f, int place)
{
	char a[160];

	if (place >= 0)
		tell(c, SOP_FOUND_HELP, f->path, "", "is where disk %d was, and belongs to %s now",
			place, sop_members_volume_text(a, sizeof(a), label_of(f)));
	else
		tell(c, SOP_FOUND_HELP, f->path, "leave it out", "belongs to another volume: %s",
			sop_members_volume_text(a, sizeof(a), label_of(f)));
}

static int place_of(const struct sop_label_check *c, const char *path)
{
	for (unsigned j = 0; j < c->newest->members; j++)
		if (sop_members_is(&c->newest->member[j]) &&
			strcmp(c->newest->member[j].path, path) == 0)
			return (int)j;
	return -1;
}

static void claim_place(struct sop_label_check *c, size_t i)
{
	struct folder *f = &c->f[i];
	const struct sop_label *l = label_of(f);
	const struct sop_member *who =
		l->index < c->newest->members ? &c->newest->member[l->index] : NULL;
	int other;

	if (!who || !sop_members_is(who) || !sop_uuid_equal(&who->uuid, &l->disk_uuid)) {
		tell(c, SOP_FOUND_HELP, f->path, "leave it out, or empty it",
			"is not a member of the volume any more: its place has been given to "
			"another disk");
		return;
	}
	other = c->holder[l->index];
	if (other >= 0) {
		size_t old = i;

		if (l->generation > label_of(&c->f[other])->generation) {
			old = (size_t)other;
			other = (int)i;
		}
		c->holder[l->index] = other;
		tell(c, SOP_FOUND_HELP, c->f[old].path, "leave out the copy",
			"claims to be disk %u, as %s does, whose label is %s: this one is ignored",
			l->index, c->f[other].path,
			label_of(&c->f[old])->generation == label_of(&c->f[other])->generation
				? "as new"
				: "newer");
		return;
	}
	c->holder[l->index] = (int)i;
	f->index = l->index;
}

static void check_member(struct sop_label_check *c, unsigned j)
{
	const struct sop_member *who = &c->newest->member[j];
	const struct folder *f = c->holder[j] < 0 ? NULL : &c->f[c->holder[j]];
	char next[2 * SOP_MEMBER_PATH + 96];
	const struct sop_label *l = f ? label_of(f) : NULL;

	if (!f) {
		snprintf(next, sizeof(next),
			"mount the drive that belongs at %s, or 'sopctl replace %s %s NEW'",
			who->path, c->newest->name[0] ? c->newest->name : "VOLUME", who->path);
		tell(c, SOP_FOUND_HELP, who->path, next, "disk %u of the volume is not there: %s",
			j, "what it holds is made up for by the others, as far as parity reaches");
		return;
	}
	if (!l)
		return;
	check_copies(c, f);
	if (l->generation + 1 < c->newest->generation && who->state == SOP_MEMBER_ONLINE)
		tell(c, SOP_FOUND_FIXABLE, f->path, "",
			"an old state of this disk (generation %" PRIu64
			", the volume's is %" PRIu64 "): its replica is not believed, and healed",
			l->generation, c->newest->generation);
	else if (who->state == SOP_MEMBER_OFFLINE && who->flags & SOP_MEMBER_BY_HAND)
		tell(c, SOP_FOUND_NOTE, f->path, "",
			"has been taken offline by hand: 'sopctl online' brings it back");
	else if (who->state == SOP_MEMBER_OFFLINE)
		tell(c, SOP_FOUND_FIXABLE, f->path, "",
			"has been away, and has missed what was written since: healed when the "
			"volume is opened");
	else if ((who->role & SOP_ROLE_REGISTRY) && !who->current_since)
		tell(c, SOP_FOUND_FIXABLE, f->path, "",
			"its replica of journal and registry is not current: healed when the "
			"volume is opened");
}

static void examine(struct sop_label_check *c)
{
	for (unsigned j = 0; j < SOP_MEMBERS_MAX; j++)
		c->holder[j] = -1;
	for (size_t i = 0; i < c->n; i++) {
		const struct sop_label *l = label_of(&c->f[i]);

		if (l && sop_uuid_equal(&l->volume_uuid, &c->newest->volume_uuid))
			claim_place(c, i);
		else if (l)
			check_foreign(c, &c->f[i], place_of(c, c->f[i].path));
		if (c->f[i].look && c->f[i].look->claim[0] && !c->claim[0])
			snprintf(c->claim, sizeof(c->claim), "%s", c->f[i].look->claim);
	}
	for (size_t i = 0; i < c->n; i++)
		if (!label_of(&c->f[i]))
			check_unlabelled(c, &c->f[i], place_of(c, c->f[i].path));
	for (unsigned j = 0; j < c->newest->members; j++)
		if (sop_members_is(&c->newest->member[j]))
			check_member(c, j);
}

/* A label that nobody here can read stops everything: what it says may be what counts. */
static int newer_format(const struct sop_label_check *c, struct sop_err *e)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->f[i].rc == SOP_EVERSION)
			return sop_say(e, SOP_EVERSION, "%s", c->f[i].look->e.text);
	return 0;
}

int sop_label_check(struct sop_label_check **out, const char *const *paths, size_t n,
	const struct sop_label_check_opts *o, struct sop_err *e)
{
	struct sop_label_check *c = calloc(1, sizeof(*c));
	int rc = c ? 0 : sop_fail(e, -ENOMEM, "labels");

	*out = NULL;
	if (rc)
		return rc;
	c->o = *o;
	for (size_t i = 0; i < n && !rc; i++)
		rc = folder_add(c, paths[i], true, e);
	if (!rc)
		rc = search(c, e);
	if (!rc)
		rc = newer_format(c, e);
	if (!rc && !c->newest)
		rc = !c->n	    ? sop_say(e, -EINVAL, "no member folder was given")
		     : c->f[0].look ? sop_say(e, c->f[0].rc, "%s", c->f[0].look->e.text)
				    : sop_fail(e, c->f[0].rc, "%s", c->f[0].path);
	if (rc) {
		sop_label_check_free(c);
		return rc;
	}
	examine(c);
	*out = c;
	return 0;
}

void sop_label_check_free(struct sop_label_check *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		sop_errand_put((struct sop_errand *)c->f[i].look);
		free(c->f[i].path);
	}
	free(c->f);
	free(c);
}

const struct sop_label *sop_label_check_newest(const struct sop_label_check *c)
{
	return c->newest;
}

size_t sop_label_check_paths(const struct sop_label_check *c, const char **paths)
{
	size_t n = 0;

	for (unsigned j = 0; j < c->newest->members; j++)
		if (c->holder[j] >= 0 && label_of(&c->f[c->holder[j]]))
			paths[n++] = c->f[c->holder[j]].path;
	return n;
}

const char *sop_label_check_missing(const struct sop_label_check *c)
{
	for (unsigned j = 0; j < c->newest->members; j++)
		if (sop_members_is(&c->newest->member[j]) && c->holder[j] < 0)
			return c->newest->member[j].path;
	return NULL;
}

const char *sop_label_check_claim(const struct sop_label_check *c)
{
	return c->claim;
}

int sop_label_check_free_now(const struct sop_label_check *c, struct sop_err *e)
{
	for (unsigned j = 0; j < c->newest->members; j++) {
		const struct folder *f = c->holder[j] < 0 ? NULL : &c->f[c->holder[j]];
		struct sop_disk *d = f ? f->look->disk : NULL;
		struct sop_file *lock;
		int rc;

		if (!d || d->ops->file_open(&lock, d, SOP_PATH_LOCK, SOP_OPEN_WRITE))
			continue;
		rc = d->ops->lock(lock);
		d->ops->file_close(lock);
		if (rc == -EAGAIN)
			return sop_say(e, SOP_EINUSE,
				"%s: is in use (%s); unmount it there first, or look at it with -n",
				f->path, f->look->claim[0] ? f->look->claim : "no name was left");
	}
	return 0;
}

int sop_label_check_repair(struct sop_label_check *c, struct sop_err *e)
{
	sop_autofree struct sop_label *l = calloc(1, sizeof(*l));
	int rc = l ? 0 : sop_fail(e, -ENOMEM, "labels");

	for (size_t i = 0; i < c->n && !rc; i++) {
		struct folder *f = &c->f[i];

		if (!f->labels)
			continue;
		*l = *c->newest;
		l->generation = 1;
		l->index = (uint16_t)f->index;
		l->disk_uuid = l->member[f->index].uuid;
		for (unsigned j = 0; j < l->members; j++)
			l->member[j].current_since = SOP_MIN(l->member[j].current_since, 1u);
		rc = sop_label_store(f->look->disk, l, e);
	}
	return rc;
}
