/* flaky_disk MOUNTPOINT IMAGES MIB: image files in memory, d1.img and so on, of devices with a
 * write cache: what has not been flushed may be lost. They serve as backing files of loop devices,
 * with a real file system on top. Commands go to the file "ctl", one at a time.
 *
 * cut SEED: the power fails at one of the next few writes, so that there is something to lose. Of
 * what was written since the last flush, whole sectors survive or do not, drawn by the seed;
 * everything fails from then on. Reading "ctl" tells whether it has happened.
 *
 * on: the power is back.
 *
 * lie: flushes do nothing any more.
 *
 * eio N: device N fails; eio 0: all work again.
 *
 * delay N MS: device N takes that long for each request. */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define IMAGES_MAX 16
#define SECTOR	   4096u /* what devices write in one piece */

struct write {
	struct write *next;
	off_t off;
	size_t len;
	char data[];
};

struct image {
	char *now, *durable;
	struct write *first, **last; /* not flushed, in order */
	bool broken;
	unsigned delay_ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct image image[IMAGES_MAX];
static unsigned images;
static off_t bytes;
static bool cut, lie;
static unsigned long cut_after; /* writes from now; 0: none is to come */
static uint64_t cut_seed;
static unsigned long flushes, lost, kept;

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9E3779B97F4A7C15ull;

	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
	x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
	return x ^ (x >> 31);
}

static void forget(struct image *im)
{
	while (im->first) {
		struct write *w = im->first;

		im->first = w->next;
		free(w);
	}
	im->last = &im->first;
}

static void flush(struct image *im)
{
	flushes++;
	if (lie)
		return;
	for (struct write *w = im->first; w; w = w->next)
		memcpy(im->durable + w->off, w->data, w->len);
	forget(im);
}

/* All, none, or any of the sectors: each of the three often. */
static void power_fails(struct image *im, uint64_t *rng)
{
	uint64_t fate = next_random(rng) % 4;

	for (struct write *w = im->first; w; w = w->next)
		for (size_t at = 0; at < w->len; at += SECTOR) {
			size_t n = w->len - at < SECTOR ? w->len - at : SECTOR;
			bool stays = fate == 0 || (fate > 1 && next_random(rng) % 2);

			if (stays)
				memcpy(im->durable + w->off + at, w->data + at, n);
			kept += stays;
			lost += !stays;
		}
	for (struct write *w = im->first; w; w = w->next)
		memcpy(im->now + w->off, im->durable + w->off, w->len);
	forget(im);
}

static void a_write_came(void)
{
	if (!cut_after || --cut_after)
		return;
	for (unsigned i = 0; i < images; i++)
		power_fails(&image[i], &cut_seed);
	cut = true;
}

static int command(const char *text)
{
	unsigned long n, ms;

	pthread_mutex_lock(&lock);
	if (sscanf(text, "cut %lu", &n) == 1) {
		cut_seed = n;
		cut_after = 1 + n % 16;
	} else if (!strncmp(text, "on", 2)) {
		cut = false;
	} else if (!strncmp(text, "lie", 3)) {
		lie = true;
	} else if (sscanf(text, "eio %lu", &n) == 1 && n <= images) {
		for (unsigned i = 0; i < images; i++)
			image[i].broken = i + 1 == n;
	} else if (sscanf(text, "delay %lu %lu", &n, &ms) == 2 && n && n <= images) {
		image[n - 1].delay_ms = (unsigned)ms;
	} else {
		pthread_mutex_unlock(&lock);
		return -EINVAL;
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

static struct image *find(const char *path)
{
	unsigned n;

	return sscanf(path, "/d%u.img", &n) == 1 && n && n <= images ? &image[n - 1] : NULL;
}

/* Take the lock, after the device's delay; -EIO when there is no device. */
static int begin(struct image *im)
{
	struct timespec t = {
		.tv_sec = im->delay_ms / 1000, .tv_nsec = (long)(im->delay_ms % 1000) * 1000000};

	if (im->delay_ms)
		nanosleep(&t, NULL);
	pthread_mutex_lock(&lock);
	return cut || im->broken ? -EIO : 0;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	memset(st, 0, sizeof(*st));
	if (!strcmp(path, "/")) {
		st->st_mode = S_IFDIR | 0755;
		st->st_nlink = 2;
		return 0;
	}
	st->st_mode = S_IFREG | 0600;
	st->st_nlink = 1;
	if (!strcmp(path, "/ctl"))
		return 0;
	st->st_size = bytes;
	return find(path) ? 0 : -ENOENT;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	if (strcmp(path, "/ctl") != 0 && !find(path))
		return -ENOENT;
	fi->direct_io = 1; /* no cache that survives the power */
	return 0;
}

static int disk_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	(void)size;
	(void)fi;
	return strcmp(path, "/ctl") ? -EPERM : 0;
}

static int disk_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct image *im = find(path);
	int n, rc;

	(void)fi;
	if (!im) {
		pthread_mutex_lock(&lock);
		n = snprintf(buf, len, "power %s flushes %lu lost %lu kept %lu\n",
			cut ? "off" : "on", flushes, lost, kept);
		pthread_mutex_unlock(&lock);
		return off ? 0 : n;
	}
	rc = begin(im);
	if (off >= bytes)
		len = 0;
	else if (len > (size_t)(bytes - off))
		len = (size_t)(bytes - off);
	if (!rc)
		memcpy(buf, im->now + off, len);
	pthread_mutex_unlock(&lock);
	return rc ? rc : (int)len;
}

static int disk_write(
	const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct image *im = find(path);
	struct write *w;
	char text[64];
	int rc;

	(void)fi;
	if (!im) {
		snprintf(text, sizeof(text), "%.*s", (int)len, buf);
		rc = command(text);
		return rc ? rc : (int)len;
	}
	if (off > bytes || len > (size_t)(bytes - off))
		return -ENOSPC;
	rc = begin(im);
	/* Zeros over zeros take no memory. */
	if (!rc && memcmp(im->now + off, buf, len) != 0) {
		w = malloc(sizeof(*w) + len);
		if (!w) {
			rc = -ENOMEM;
		} else {
			*w = (struct write){.off = off, .len = len};
			memcpy(w->data, buf, len);
			memcpy(im->now + off, buf, len);
			*im->last = w;
			im->last = &w->next;
			a_write_came();
		}
	}
	pthread_mutex_unlock(&lock);
	return rc ? rc : (int)len;
}

static int disk_fsync(const char *path, int data, struct fuse_file_info *fi)
{
	struct image *im = find(path);
	int rc;

	(void)data;
	(void)fi;
	if (!im)
		return 0;
	rc = begin(im);
	if (!rc)
		flush(im);
	pthread_mutex_unlock(&lock);
	return rc;
}

static const struct fuse_operations ops = {
	.getattr = disk_getattr,
	.open = disk_open,
	.truncate = disk_truncate,
	.read = disk_read,
	.write = disk_write,
	.fsync = disk_fsync,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0], argc == 4 ? argv[1] : NULL, NULL};

	if (argc != 4 || (images = (unsigned)atoi(argv[2])) < 1 || images > IMAGES_MAX ||
		(bytes = (off_t)atol(argv[3]) << 20) <= 0) {
		fprintf(stderr, "usage: flaky_disk MOUNTPOINT IMAGES MIB\n");
		return 2;
	}
	for (unsigned i = 0; i < images; i++) {
		image[i].now = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		image[i].durable = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (image[i].now == MAP_FAILED || image[i].durable == MAP_FAILED) {
			perror("flaky_disk");
			return 1;
		}
		image[i].last = &image[i].first;
	}
	return fuse_main(2, args, &ops, NULL);
}
