#include "core/disk.h"

#include <stdio.h>

#include "core/id.h"

#define TEMP_SUFFIX ".tmp"

void sop_disk_close(struct sop_disk *d)
{
	if (d && atomic_fetch_sub_explicit(&d->extra_refs, 1, memory_order_acq_rel) == 0)
		d->ops->close(d);
}

static int read_open_file(struct sop_file *f, void **buf, size_t *len_bytes, size_t max_bytes)
{
	sop_autofree void *data = NULL;
	struct iovec iov;
	uint64_t size;
	ssize_t got;
	int rc;

	rc = f->ops->size(f, &size);
	if (rc)
		return rc;
	if (size > max_bytes)
		return -EFBIG;
	data = malloc(size ? size : 1);
	if (!data)
		return -ENOMEM;
	iov = (struct iovec){.iov_base = data, .iov_len = size};
	got = size ? f->ops->preadv(f, &iov, 1, 0) : 0;
	if (got < 0)
		return (int)got;
	/* It became shorter while we read: what we have is of no known state. */
	if ((uint64_t)got != size)
		return -EIO;
	*buf = data;
	data = NULL;
	*len_bytes = size;
	return 0;
}

int sop_disk_read_file(struct sop_disk *d, const char *path, void **buf, size_t *len_bytes,
	size_t max_bytes, struct sop_err *e)
{
	struct sop_file *f;
	int rc;

	rc = d->ops->file_open(&f, d, path, SOP_OPEN_READ);
	if (rc)
		return sop_fail(e, rc, "%s/%s", d->name, path);
	rc = read_open_file(f, buf, len_bytes, max_bytes);
	f->ops->file_close(f);
	return rc ? sop_fail(e, rc, "%s/%s: read", d->name, path) : 0;
}

bool sop_disk_is_temp(const char *name, const char *path)
{
	size_t len = strlen(path);

	if (strncmp(name, path, len) || name[len] != '.')
		return false;
	name += len + 1;
	return strspn(name, "0123456789abcdef") == 16 && !strcmp(name + 16, TEMP_SUFFIX);
}

/* A name of its own for each call: a writer that hung in its device and wakes up after another one
 * has published must write to its own file, not to the published one. */
static int temp_path(char *out, const char *path)
{
	uint64_t unique;
	int n;

	sop_random(&unique, sizeof(unique));
	n = snprintf(
		out, SOP_TEMP_PATH, "%s.%016llx" TEMP_SUFFIX, path, (unsigned long long)unique);
	return n < 0 || n >= SOP_TEMP_PATH ? -ENAMETOOLONG : 0;
}

/* "a/b" -> "a", "b" -> "". */
static void parent_of(char *out, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	memcpy(out, path, len);
	out[len] = '\0';
}

static int write_temp(struct sop_disk *d, const char *temp, const void *buf, size_t len_bytes)
{
	struct sop_file *f;
	ssize_t put = 0;
	int rc;

	rc = d->ops->file_open(&f, d, temp, SOP_OPEN_WRITE | SOP_OPEN_CREATE | SOP_OPEN_EXCL);
	if (rc)
		return rc;
	if (len_bytes) {
		/* The vector is const in truth: a write only reads it. */
		struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len_bytes};

		put = f->ops->pwritev(f, &iov, 1, 0);
	}
	rc = put < 0 ? (int)put : f->ops->datasync(f);
	f->ops->file_close(f);
	return rc;
}

int sop_disk_stage(struct sop_disk *d, const char *path, const void *buf, size_t len_bytes,
	char temp[SOP_TEMP_PATH], struct sop_err *e)
{
	int rc = temp_path(temp, path);

	if (rc)
		return sop_fail(e, rc, "%s/%s", d->name, path);
	rc = write_temp(d, temp, buf, len_bytes);
	/* EEXIST would mean that the file is not ours. */
	if (rc && rc != -EEXIST)
		sop_disk_unstage(d, temp);
	return rc ? sop_fail(e, rc, "%s/%s: write", d->name, path) : 0;
}

/* What stays when it fails is a temporary file. */
void sop_disk_unstage(struct sop_disk *d, const char *temp)
{
	(void)d->ops->unlink(d, temp);
}

int sop_disk_name(struct sop_disk *d, const char *temp, const char *path, struct sop_err *e)
{
	char parent[SOP_TEMP_PATH];
	int rc = d->ops->rename(d, temp, path);

	if (rc) {
		sop_disk_unstage(d, temp);
		return sop_fail(e, rc, "%s/%s: write", d->name, path);
	}
	/* A crash here leaves the old file or the new one. */
	parent_of(parent, path);
	rc = d->ops->syncdir(d, parent);
	return rc ? sop_fail(e, rc, "%s/%s: sync of the directory", d->name, path) : 0;
}

/* A crash up to the rename leaves the old file and perhaps a temporary one. The data is synced
 * before the rename: the new name never stands for less than the whole. */
int sop_disk_publish(
	struct sop_disk *d, const char *path, const void *buf, size_t len_bytes, struct sop_err *e)
{
	char temp[SOP_TEMP_PATH];
	int rc = sop_disk_stage(d, path, buf, len_bytes, temp, e);

	return rc ? rc : sop_disk_name(d, temp, path, e);
}
