#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/checkpoint_file.h"
#include "core/format_volume.h"
#include "core/keying.h"
#include "core/members_own.h"

/* Making a volume: all checks, then the directories and an empty checkpoint, then the labels.
 *
 * A crash before the first label leaves folders that are no members of anything (a folder that was
 * one has lost its label first); after it, a volume some of whose members have no label: it can be
 * made again with force. The lock files are held from the first write to the end, so that two of
 * us, or a mounter, do not meet. */

#define SHARED_REPLICAS_MAX 15u
#define HASHMOD_DEFAULT	    250u
#define HASHMOD_MIN	    250u
#define HASHMOD_MAX	    750000u
#define NODE_BYTES_DEFAULT  16384u

struct folder {
	char path[SOP_MEMBER_PATH];
	uint8_t role;
	bool missing; /* to be made */
	bool had_label;
	struct sop_attached *at;
	struct sop_disk_space space;
	dev_t dev; /* with ino: who it is; 0: not a folder of this machine (tests) */
	ino_t ino;
};

struct job {
	const struct sop_format_opts *o;
	const struct sop_clock *clock;
	unsigned k, m;
	struct folder *folder;
	unsigned n;
	bool one_device, overwrites;
	char claim[SOP_CLAIM_TEXT];
};

void sop_format_profile(unsigned n, unsigned *k, unsigned *m)
{
	static const uint8_t profile[][2] = {
		{1, 0}, {1, 0}, {1, 1}, {2, 1}, {2, 2}, {3, 2}, {4, 2}};
	size_t i = SOP_MIN((size_t)n, SOP_ARRAY_LEN(profile) - 1);

	*k = profile[i][0];
	*m = profile[i][1];
}

/* --- checks ---------------------------------------------------------------- */

/* JSON could not tell of another, nor sopctl find it. */
static int check_text(const char *what, const char *name, struct sop_err *e)
{
	if (sop_utf8_valid(name, strlen(name)))
		return 0;
	return sop_say(e, -EINVAL, "%s \"%s\": is not UTF-8", what, name);
}

static int check_name(const char *name, struct sop_err *e)
{
	if (strlen(name) >= SOP_VOLUME_NAME)
		return sop_say(e, -EINVAL, "label \"%s\": longer than %d bytes", name,
			SOP_VOLUME_NAME - 1);
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("/:,\"\\", *p))
			return sop_say(e, -EINVAL,
				"label \"%s\": spaces, control characters and any of / : , \" \\ "
				"cannot be "
				"in it",
				name);
	return check_text("label", name, e);
}

static int add_folder(struct job *j, const char *path, uint8_t role, struct sop_err *e)
{
	struct folder *f;
	char clean[SOP_MEMBER_PATH];
	int rc = sop_members_path(clean, path, !j->o->open_disk);

	if (rc == -ENOENT && path[0])
		return sop_say(e, rc,
			"%s: no such folder; make it, or mount the drive that belongs there", path);
	if (rc)
		return sop_fail(e, rc, "%s", path);
	for (unsigned i = 0; i < j->n; i++) {
		if (strcmp(j->folder[i].path, clean) != 0)
			continue;
		if (j->folder[i].role & role)
			return sop_say(e, -EINVAL, "%s: is given twice", clean);
		j->folder[i].role |= role;
		return 0;
	}
	if (j->n == SOP_MEMBERS_MAX)
		return sop_say(
			e, -EINVAL, "a volume has at most %d member folders", SOP_MEMBERS_MAX);
	f = &j->folder[j->n++];
	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s", clean);
	f->role = role;
	return 0;
}

/* As many as survive what data survives; a majority of them decides in a shared volume. */
static unsigned replicas(const struct job *j)
{
	unsigned n = j->m + 1, most = SOP_MIN(j->n, SHARED_REPLICAS_MAX);

	if (j->o->shared)
		n = SOP_MAX(n, 3u) | 1;
	return j->o->shared ? SOP_MIN(n, SOP_MAX(most, j->m + 1)) : n;
}

static int check_shape(struct job *j, const char *const *disks, size_t n, struct sop_err *e)
{
	const struct sop_format_opts *o = j->o;
	uint32_t hashmod = o->hashmod ? o->hashmod : HASHMOD_DEFAULT;
	int rc = o->name ? check_name(o->name, e) : 0;

	if (rc)
		return rc;
	if (!n)
		return sop_say(e, -EINVAL, "no folder was given");
	if (n > SOP_MEMBERS_MAX)
		return sop_say(
			e, -EINVAL, "a volume has at most %d member folders", SOP_MEMBERS_MAX);
	if (hashmod < HASHMOD_MIN || hashmod > HASHMOD_MAX)
		return sop_say(e, -EINVAL, "registry hash-mod %u: must be %u to %u", hashmod,
			HASHMOD_MIN, HASHMOD_MAX);
	j->k = o->k;
	j->m = o->m;
	if (!j->k && !j->m)
		sop_format_profile((unsigned)n, &j->k, &j->m);
	if (!j->k || j->k > SOP_EC_MAX || j->m > SOP_EC_MAX - j->k)
		return sop_say(e, -EINVAL,
			"erasure code %u+%u: needs at least 1 data shard and at most %d shards in "
			"all",
			j->k, j->m, SOP_EC_MAX);
	if (j->k + j->m > n)
		return sop_say(e, -EINVAL, "erasure code %u+%u needs %u disks, %zu %s given", j->k,
			j->m, j->k + j->m, n, n == 1 ? "is" : "are");
	if (o->n_stores && o->n_stores < (size_t)j->m + 1 && !o->force)
		return sop_say(e, -EINVAL,
			"%zu stores folder%s for erasure code %u+%u: %u are needed, for metadata "
			"to survive as many losses as data; -f goes on",
			o->n_stores, o->n_stores == 1 ? "" : "s", j->k, j->m, j->m + 1);
	for (size_t i = 0; i < n && !rc; i++)
		rc = add_folder(j, disks[i], SOP_ROLE_DATA, e);
	for (size_t i = 0; i < o->n_stores && !rc; i++)
		rc = add_folder(j, o->stores[i], SOP_ROLE_REGISTRY, e);
	for (unsigned i = 0; i < replicas(j) && !rc && !o->n_stores; i++)
		j->folder[i].role |= SOP_ROLE_REGISTRY;
	return rc;
}

/* The folder that the path is in. */
static void parent_of(char *out, const char *path)
{
	char *slash;

	strcpy(out, path);
	slash = strrchr(out, '/');
	if (slash)
		slash[slash == out ? 1 : 0] = '\0';
}

/* What only a real folder has: an identity, and permissions. */
static int check_real(struct job *j, struct folder *f, struct sop_err *e)
{
	char parent[SOP_MEMBER_PATH];
	struct statvfs vfs;
	struct stat st;

	if (stat(f->path, &st)) {
		int rc = -errno;

		if (rc != -ENOENT)
			return sop_fail(e, rc, "%s", f->path);
		if (!j->o->force)
			return sop_say(e, rc,
				"%s: no such folder; make it, or mount the drive that belongs "
				"there (-f "
				"makes it)",
				f->path);
		f->missing = true;
		parent_of(parent, f->path);
		if (stat(parent, &st))
			return sop_fail(e, -errno, "%s: to be made in %s", f->path, parent);
		if (faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS))
			return sop_fail(e, -errno, "%s: to be made in %s", f->path, parent);
		f->dev = st.st_dev;
		if (statvfs(parent, &vfs) == 0) { /* for the report of a dry run */
			f->space.total_bytes = vfs.f_blocks * vfs.f_frsize;
			f->space.free_bytes = vfs.f_bavail * vfs.f_frsize;
			f->space.device = st.st_dev;
		}
		return 0;
	}
	if (!S_ISDIR(st.st_mode))
		return sop_fail(e, -ENOTDIR, "%s", f->path);
	if (faccessat(AT_FDCWD, f->path, R_OK | W_OK | X_OK, AT_EACCESS))
		return sop_fail(e, -errno, "%s", f->path);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	for (struct folder *o = j->folder; o < f; o++)
		if (!o->missing && o->dev == f->dev && o->ino == f->ino)
			return sop_say(
				e, -EINVAL, "%s: is the same folder as %s", f->path, o->path);
	return 0;
}

static int open_folder(struct job *j, struct folder *f, struct sop_err *e)
{
	struct sop_disk *d;
	int rc = sop_members_open_folder(&d, f->path, j->o->open_disk, j->o->open_disk_ctx, e);

	if (rc)
		return rc;
	f->at = sop_attached_new(d);
	if (!f->at)
		return sop_fail(e, -ENOMEM, "%s", f->path);
	rc = d->ops->space(d, &f->space);
	return rc ? sop_fail(e, rc, "%s: free space", f->path) : 0;
}

static int check_label(struct job *j, struct folder *f, struct sop_err *e)
{
	sop_autofree struct sop_label *l = malloc(sizeof(*l));
	struct sop_err why = {0};
	char volume[160];
	int rc;

	if (!l)
		return sop_fail(e, -ENOMEM, "%s", f->path);
	rc = sop_label_load(l, f->at->disk, &why);
	if (rc == SOP_ENOTVOLUME)
		return 0;
	f->had_label = true;
	j->overwrites = true;
	if (j->o->force && (!rc || rc == SOP_ECORRUPT || rc == SOP_EVERSION))
		return 0;
	if (!rc)
		return sop_say(e, -EEXIST, "%s: belongs to %s; -f overwrites it", f->path,
			sop_members_volume_text(volume, sizeof(volume), l));
	if (rc == SOP_ECORRUPT)
		return sop_say(e, -EEXIST,
			"%s: holds a damaged label of a volume; -f overwrites it", f->path);
	if (rc == SOP_EVERSION)
		return sop_say(e, -EEXIST,
			"%s: belongs to a volume of a newer format; -f overwrites it", f->path);
	return sop_say(e, rc, "%s", why.text);
}

/* A new file system has lost+found, and we leave one to it. */
static int stranger(void *arg, const char *name)
{
	char *first = arg;

	if (strcmp(name, "lost+found") != 0 && !first[0])
		snprintf(first, 64, "%s", name);
	return 0;
}

struct names {
	char **name;
	size_t n;
};

static int collect(void *arg, const char *name)
{
	struct names *l = arg;
	char **more = reallocarray(l->name, l->n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	l->name = more;
	more[l->n] = strdup(name);
	return more[l->n++] ? 0 : -ENOMEM;
}

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->name[i]);
	free(l->name);
}

static const char *const wiped[] = {
	SOP_PATH_SEGMENTS, SOP_PATH_REGISTRY, SOP_PATH_JOURNAL, SOP_PATH_SLOTS};

static int any_name(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
	return 0;
}

/* Directories of ours that are empty are what a disk that was removed has left. */
static int holds_any(struct sop_disk *d, const char *path, bool *any)
{
	struct names l = {0};
	int rc = d->ops->list(d, path, collect, &l);

	if (rc == -ENOENT || rc == -ENOTDIR)
		rc = 0;
	for (size_t i = 0; i < l.n && rc >= 0 && !*any; i++) {
		char child[512];

		*any = snprintf(child, sizeof(child), "%s/%s", path, l.name[i]) >=
		       (int)sizeof(child);
		rc = *any ? 0 : d->ops->list(d, child, any_name, any);
		if (rc == -ENOTDIR) {
			*any = true;
			rc = 0;
		}
	}
	names_free(&l);
	return rc < 0 ? rc : 0;
}

int sop_members_check_wipe(struct sop_disk *d, struct sop_err *e)
{
	struct sop_file *f;
	int rc = d->ops->file_open(&f, d, SOP_PATH_LOCK, SOP_OPEN_READ);

	if (!rc)
		f->ops->file_close(f);
	if (rc != -ENOENT)
		return 0;
	for (size_t i = 0; i < SOP_ARRAY_LEN(wiped); i++) {
		bool any = false;

		rc = holds_any(d, wiped[i], &any);
		if (rc)
			return sop_fail(e, rc, "%s", d->name);
		if (any)
			return sop_say(e, -ENOTEMPTY,
				"%s: its \"%s\" is no volume's, and would be emptied; move it away",
				d->name, wiped[i]);
	}
	return 0;
}

static int check_empty(struct job *j, struct folder *f, struct sop_err *e)
{
	char first[64] = "";
	int rc = f->at->disk->ops->list(f->at->disk, "", stranger, first);

	if (rc < 0)
		return sop_fail(e, rc, "%s", f->path);
	if (!first[0])
		return 0;
	j->overwrites = true;
	if (f->had_label)
		return 0;
	if (j->o->force)
		return sop_members_check_wipe(f->at->disk, e);
	return sop_say(e, -ENOTEMPTY, "%s: is not empty (holds \"%s\"); -f uses it all the same",
		f->path, first);
}

static int check_devices(struct job *j, struct sop_err *e)
{
	for (unsigned i = 0; i < j->n; i++) {
		for (unsigned o = 0; o < i; o++) {
			const struct folder *a = &j->folder[o], *b = &j->folder[i];

			if (a->missing || b->missing ? a->dev != b->dev
						     : a->space.device != b->space.device)
				continue;
			j->one_device = true;
			if (!j->o->force)
				return sop_say(e, -EINVAL,
					"%s: is on the same device as %s: one failing drive would "
					"take "
					"both; -f goes on",
					b->path, a->path);
		}
	}
	return 0;
}

static int check_folders(struct job *j, struct sop_err *e)
{
	for (unsigned i = 0; i < j->n; i++) {
		struct folder *f = &j->folder[i];
		int rc = j->o->open_disk ? 0 : check_real(j, f, e);

		if (rc || f->missing) {
			if (rc)
				return rc;
			continue;
		}
		rc = open_folder(j, f, e);
		if (!rc)
			rc = check_label(j, f, e);
		/* Even force does not take a disk away from under a mounted volume. */
		if (!rc && !j->o->dry_run && f->had_label)
			rc = sop_members_lock(f->at, j->claim, false, e);
		if (!rc)
			rc = check_empty(j, f, e);
		if (rc)
			return rc;
	}
	return check_devices(j, e);
}

/* --- writing --------------------------------------------------------------- */

/* Unlink all files under a directory of an old volume; the directories stay. */
static int empty_directory(struct sop_disk *d, const char *path, unsigned depth)
{
	struct names l = {0};
	int rc = d->ops->list(d, path, collect, &l);

	if (rc == -ENOENT || rc == -ENOTDIR)
		rc = 0;
	for (size_t i = 0; i < l.n && rc >= 0; i++) {
		char child[512];

		if (snprintf(child, sizeof(child), "%s/%s", path, l.name[i]) >=
			(int)sizeof(child)) {
			rc = -ENAMETOOLONG;
			break;
		}
		rc = d->ops->unlink(d, child);
		if ((rc == -EISDIR || rc == -EPERM) && depth)
			rc = empty_directory(d, child, depth - 1);
		else if (rc == -ENOENT)
			rc = 0;
	}
	/* Without this a power cut brings old files back under the new labels. */
	if (rc >= 0 && l.n)
		rc = d->ops->syncdir(d, path);
	names_free(&l);
	return rc < 0 ? rc : 0;
}

static int unlink_if_there(struct sop_disk *d, const char *path)
{
	int rc = d->ops->unlink(d, path);

	return rc == -ENOENT ? 0 : rc;
}

/* The labels go first and for good: from then on the folder is nobody's, whatever is left in it. */
int sop_members_wipe_labels(struct sop_disk *d)
{
	int rc = unlink_if_there(d, SOP_PATH_LABEL0);

	if (!rc)
		rc = unlink_if_there(d, SOP_PATH_LABEL1);
	return rc ? rc : d->ops->syncdir(d, "");
}

/* Files of an old volume must not be met by the new one, whose numbers begin at 1 again. What else
 * is in the folder is left alone. */
int sop_members_wipe_content(struct sop_disk *d)
{
	int rc = unlink_if_there(d, SOP_PATH_CHECKPOINT);

	for (size_t i = 0; i < SOP_ARRAY_LEN(wiped) && !rc; i++)
		rc = empty_directory(d, wiped[i], 1);
	return rc;
}

/* Until a folder is locked another may make a volume of it; it is looked at once more. */
static int take(struct job *j, struct folder *f, struct sop_err *e)
{
	int rc = 0;

	if (f->missing) {
		if (mkdir(f->path, 0755) && errno != EEXIST)
			return sop_fail(e, -errno, "%s", f->path);
		rc = open_folder(j, f, e);
	}
	if (rc || f->at->lock_file)
		return rc;
	rc = sop_members_lock(f->at, j->claim, true, e);
	return rc ? rc : check_label(j, f, e);
}

static int prepare(struct folder *f, struct sop_err *e)
{
	struct sop_disk *d = f->at->disk;
	int rc = sop_members_wipe_labels(d);

	if (!rc)
		rc = sop_members_wipe_content(d);
	if (!rc && f->role & SOP_ROLE_DATA)
		rc = d->ops->mkdir(d, SOP_PATH_SEGMENTS);
	if (!rc && f->role & SOP_ROLE_REGISTRY)
		rc = d->ops->mkdir(d, SOP_PATH_REGISTRY);
	if (!rc && f->role & SOP_ROLE_REGISTRY)
		rc = d->ops->mkdir(d, SOP_PATH_JOURNAL);
	if (!rc)
		rc = d->ops->syncdir(d, "");
	return rc ? sop_fail(e, rc, "%s: making the directories", f->path) : 0;
}

static int write_checkpoints(struct job *j, const struct sop_label *l, struct sop_err *e)
{
	const struct sop_checkpoint c = {
		.epoch = l->generation,
		.journal = 1,
		.clean = true,
		.next_ino = SOP_INO_FIRST,
		.next_handle = 1,
		.time_ns = l->created_ns,
	};
	sop_autofree void *raw = NULL;
	size_t len;
	int rc = sop_checkpoint_encode(&raw, &len, &c, &l->volume_uuid, e);

	for (unsigned i = 0; i < j->n && !rc; i++)
		if (j->folder[i].role & SOP_ROLE_REGISTRY)
			rc = sop_disk_publish(
				j->folder[i].at->disk, SOP_PATH_CHECKPOINT, raw, len, e);
	return rc;
}

static int add_profile(
	struct job *j, struct sop_label *l, const struct sop_format_profile *f, struct sop_err *e);

static int make_label(struct job *j, struct sop_label *l, struct sop_err *e)
{
	int rc = 0;

	memset(l, 0, sizeof(*l));
	if (j->o->uuid)
		l->volume_uuid = *j->o->uuid;
	else
		rc = sop_uuid_new(&l->volume_uuid, e);
	l->generation = 1;
	l->created_ns = j->clock->wall_ns(j->clock->ctx);
	l->members = (uint16_t)j->n;
	l->profiles = 1;
	l->hashmod = j->o->hashmod ? j->o->hashmod : HASHMOD_DEFAULT;
	l->node_bytes = NODE_BYTES_DEFAULT;
	l->flags = j->o->shared ? SOP_LABEL_SHARED : 0;
	l->incompat = j->o->shared ? SOP_INCOMPAT_SHARED : 0;
	snprintf(l->name, sizeof(l->name), "%s", j->o->name ? j->o->name : "");
	l->profile[0] =
		(struct sop_profile){.name = "default", .k = (uint8_t)j->k, .m = (uint8_t)j->m};
	for (unsigned i = 0; i < j->n && !rc; i++) {
		struct sop_member *who = &l->member[i];

		rc = sop_uuid_new(&who->uuid, e);
		who->role = j->folder[i].role;
		who->state = SOP_MEMBER_ONLINE;
		who->current_since = l->generation;
		memcpy(who->path, j->folder[i].path, sizeof(who->path));
	}
	for (size_t i = 0; i < j->o->n_profiles && !rc; i++)
		rc = add_profile(j, l, &j->o->profiles[i], e);
	return rc;
}

static int add_profile(
	struct job *j, struct sop_label *l, const struct sop_format_profile *f, struct sop_err *e)
{
	struct sop_profile p = {.k = (uint8_t)f->k,
		.m = (uint8_t)f->m,
		.flags = f->no_repair ? SOP_PROFILE_NO_REPAIR : 0};
	int rc;

	if (strlen(f->name) >= sizeof(p.name) || f->k > 255 || f->m > 255)
		return sop_say(e, -EINVAL,
			"profile %s: its name has at most %zu bytes, and K+M is at most %d",
			f->name, sizeof(p.name) - 1, SOP_EC_MAX);
	rc = check_text("profile", f->name, e);
	if (rc)
		return rc;
	snprintf(p.name, sizeof(p.name), "%s", f->name);
	for (size_t d = 0; d < f->n_disks; d++) {
		char clean[SOP_MEMBER_PATH];
		unsigned i = j->n;

		rc = sop_members_path(clean, f->disks[d], !j->o->open_disk);
		for (i = 0; !rc && i < j->n && strcmp(clean, j->folder[i].path); i++)
			;
		if (rc || i == j->n)
			return sop_say(e, -EINVAL, "profile %s: %s is none of the folders given",
				f->name, f->disks[d]);
		p.disks[i / 8] |= (uint8_t)(1u << (i % 8));
	}
	rc = sop_members_profile_check(l, &p, e);
	if (!rc)
		l->profile[l->profiles++] = p;
	return rc;
}

static int write_labels(struct job *j, struct sop_label *l, struct sop_err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < j->n && !rc; i++) {
		l->index = (uint16_t)i;
		l->disk_uuid = l->member[i].uuid;
		rc = sop_label_store(j->folder[i].at->disk, l, e);
	}
	l->index = 0;
	l->disk_uuid = (struct sop_uuid){{0}};
	return rc;
}

static void fill_report(struct job *j, const struct sop_label *l, struct sop_format_report *r)
{
	struct sop_disk_space space[SOP_MEMBERS_MAX];
	size_t n = 0;

	memset(r, 0, sizeof(*r));
	r->uuid = l->volume_uuid;
	r->k = j->k;
	r->m = j->m;
	r->one_device = j->one_device;
	r->overwrote = j->overwrites;
	static_assert(SOP_FORMAT_MEMBERS == SOP_MEMBERS_MAX, "members");
	static_assert(SOP_FORMAT_PATH == SOP_MEMBER_PATH, "paths");
	memcpy(r->name, l->name, sizeof(r->name));
	r->hashmod = l->hashmod;
	r->members = l->members;
	for (unsigned i = 0; i < l->members; i++) {
		memcpy(r->member[i].path, l->member[i].path, sizeof(r->member[i].path));
		r->member[i].data = l->member[i].role & SOP_ROLE_DATA;
		r->member[i].registry = l->member[i].role & SOP_ROLE_REGISTRY;
	}
	for (unsigned i = 0; i < j->n; i++) {
		struct folder *f = &j->folder[i];

		/* What an old volume took up has been given back meanwhile. */
		if (f->at && !j->o->dry_run)
			(void)f->at->disk->ops->space(f->at->disk, &f->space);
		r->replicas += (j->folder[i].role & SOP_ROLE_REGISTRY) != 0;
		if (j->folder[i].role & SOP_ROLE_DATA) {
			r->disks++;
			space[n++] = j->folder[i].space;
		}
	}
	r->total_bytes = sop_members_room(space, n, j->k, j->m, true);
	r->free_bytes = sop_members_room(space, n, j->k, j->m, false);
}

int sop_format(const char *const *disks, size_t n, const struct sop_format_opts *o,
	struct sop_label *made, struct sop_err *e)
{
	sop_autofree struct sop_label *l = malloc(sizeof(*l));
	struct job j = {.o = o, .clock = o->clock ? o->clock : &sop_clock_system};
	int rc;

	j.folder = calloc(SOP_MEMBERS_MAX, sizeof(*j.folder));
	if (!l || !j.folder) {
		rc = sop_fail(e, -ENOMEM, "making a volume");
		goto out;
	}
	sop_members_claim(j.claim, sizeof(j.claim), j.clock);
	rc = check_shape(&j, disks, n, e);
	if (!rc)
		rc = check_folders(&j, e);
	if (!rc)
		rc = make_label(&j, l, e);
	/* All of them before the first is changed: nothing is lost in one for a refusal in another.
	 */
	for (unsigned i = 0; i < j.n && !rc && !o->dry_run; i++)
		rc = take(&j, &j.folder[i], e);
	for (unsigned i = 0; i < j.n && !rc && !o->dry_run; i++)
		rc = prepare(&j.folder[i], e);
	if (!rc && !o->dry_run)
		rc = write_checkpoints(&j, l, e);
	if (!rc && !o->dry_run)
		rc = write_labels(&j, l, e);
	if (rc)
		goto out;
	if (o->report)
		fill_report(&j, l, o->report);
	if (made)
		*made = *l;
out:
	for (unsigned i = 0; i < j.n; i++) {
		struct sop_attached *a = j.folder[i].at;

		if (a && a->lock_file)
			(void)a->lock_file->ops->truncate(a->lock_file, 0); /* the claim goes */
		sop_attached_put(a);
	}
	free(j.folder);
	return rc;
}
